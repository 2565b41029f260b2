//! Inputs that broke other daemons, each by the name under which it is known, and what RFC 7296 says about malformed
//! messages.

use super::*;
use crate::io::{CertificateData, CertificateRequest, IkeSpi};

const SA: u8 = 33;
const KE: u8 = 34;
const ID: u8 = 35;
const CERT: u8 = 37;
const CERTREQ: u8 = 38;
const AUTH: u8 = 39;
const NONCE: u8 = 40;
const NOTIFY: u8 = 41;
const DELETE: u8 = 42;
const VENDOR: u8 = 43;
const TS: u8 = 44;
const SK: u8 = 46;
const SKF: u8 = 53;

fn header() -> Header {
    Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
        exchange: ExchangeType::IkeSaInit,
        sender: Role::OriginalInitiator,
        kind: MessageKind::Request,
        message_id: 7,
    }
}

/// A payload: its type, the second octet of its generic header (the critical bit and reserved ones) and its body.
type Raw<'a> = (u8, u8, &'a [u8]);

/// A message made octet by octet, so that it may be wrong.
fn message(payloads: &[Raw<'_>]) -> Vec<u8> {
    let mut datagram = encode_message(&header(), &[]).unwrap();
    datagram[16] = payloads.first().map_or(0, |payload| payload.0);
    datagram.extend(chain(payloads));
    set_total(&mut datagram);
    datagram
}

fn chain(payloads: &[Raw<'_>]) -> Vec<u8> {
    let mut octets = Vec::new();
    for (index, (_, flags, body)) in payloads.iter().enumerate() {
        octets.push(payloads.get(index + 1).map_or(0, |next| next.0));
        octets.push(*flags);
        octets.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
        octets.extend_from_slice(body);
    }
    octets
}

fn set_total(datagram: &mut [u8]) {
    let total = u32::try_from(datagram.len()).unwrap();
    datagram[24..28].copy_from_slice(&total.to_be_bytes());
}

fn parse(payloads: &[Raw<'_>]) -> Result<Vec<Payload>, WireError> {
    Message::parse(&message(payloads)).map(|message| message.payloads)
}

fn parse_one(kind: u8, body: &[u8]) -> Result<Payload, WireError> {
    let payloads = parse(&[(kind, 0, body)])?;
    assert_eq!(payloads.len(), 1);
    Ok(payloads[0].clone())
}

/// A field error's name.
fn wrong_field(result: Result<Payload, WireError>) -> &'static str {
    match result {
        Err(WireError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

fn is_truncated(result: &Result<Payload, WireError>) -> bool {
    matches!(result, Err(WireError::Truncated { .. }))
}

#[test]
fn short_packet_padding_a_datagram_shorter_than_a_header_is_no_message() {
    let whole = message(&[]);
    for found in 0..HEADER_LEN {
        assert_eq!(peek_header(&whole[..found]), Err(WireError::Short { found }));
    }
    assert_eq!(peek_header(&whole), Ok(header()));
}

#[test]
fn the_header_must_tell_the_length_of_the_datagram() {
    let mut datagram = message(&[(VENDOR, 0, b"x")]);
    datagram.push(0);
    assert_eq!(Message::parse(&datagram), Err(WireError::MessageLength { stated: 33, found: 34 }));
    for stated in [0, 27, 28, 32, 34, u32::MAX] {
        let mut datagram = message(&[(VENDOR, 0, b"x")]);
        datagram[24..28].copy_from_slice(&stated.to_be_bytes());
        assert_eq!(peek_header(&datagram), Err(WireError::MessageLength { stated, found: 33 }));
    }
}

#[test]
fn other_major_versions_are_told_apart_and_minor_ones_ignored() {
    // R7296-2.5-1, R7296-2.5-2
    let mut datagram = message(&[]);
    for version in 0x20..=0x2f {
        datagram[17] = version;
        assert_eq!(peek_header(&datagram), Ok(header()));
    }
    for major in [0, 1, 3, 15] {
        datagram[17] = major << 4;
        assert_eq!(peek_header(&datagram), Err(WireError::MajorVersion { major, header: header() }));
    }
}

#[test]
fn other_version_payloads_are_unknown() {
    // Types 1 to 32 are those of IKEv1 (other_version_payloads), 55 and above nobody's yet; R7296-2.5-3, R7296-2.5-4.
    for kind in (1..=32).chain(55..=255) {
        let body = b"\xff\xff\xff\xff".to_vec();
        let skipped = Payload::Opaque { kind: PayloadType::Other(kind), body: body.clone() };
        assert_eq!(parse_one(kind, &body), Ok(skipped));
        let last = parse(&[(VENDOR, 0, b"v"), (kind, 0x80, &body)]);
        assert_eq!(last, Err(WireError::UnsupportedCritical { payload: kind, offset: 33 }));
    }
}

/// R7296-4-1.
#[test]
fn the_critical_bit_of_known_types_means_nothing() {
    // R7296-3.2-1
    let nonce = [5; 32];
    assert_eq!(parse(&[(NONCE, 0x80, &nonce)]), Ok(vec![Payload::Nonce(nonce.to_vec())]));
    for kind in [48, 49, 54] {
        let skipped = Payload::Opaque { kind: PayloadType::Other(kind), body: b"body".to_vec() };
        assert_eq!(parse(&[(kind, 0x80, b"body")]), Ok(vec![skipped]));
    }
}

#[test]
fn nothing_that_is_encoded_is_critical_or_has_reserved_bits_set() {
    // R7296-2.5-5, R7296-3.1-2
    let datagram = encode_message(&header(), &[Payload::VendorId(vec![1]), Payload::Nonce(vec![2; 16])]).unwrap();
    assert_eq!((datagram[19], datagram[29], datagram[34]), (0x08, 0, 0));
}

/// unassigned_bits_logged.
#[test]
fn unassigned_bits_change_nothing() {
    let bodies: [(u8, Vec<u8>, &[usize]); 5] = [
        (KE, [&[0, 31, 0, 0][..], &[1; 32]].concat(), &[2, 3]),
        (AUTH, vec![2, 0, 0, 0, 1], &[1, 2, 3]),
        (TS, [&[1, 0, 0, 0][..], &V4_SELECTOR].concat(), &[1, 2, 3]),
        (SA, PROPOSAL.to_vec(), &[1, 13, 17]),
        (NOTIFY, vec![0, 0, 0x40, 0], &[0]),
    ];
    for (kind, mut body, reserved) in bodies {
        let clean = parse_one(kind, &body).unwrap();
        for &index in reserved {
            body[index] = 0xff;
        }
        assert_eq!(parse(&[(kind, 0x7f, &body)]), Ok(vec![clean]));
    }
    let mut datagram = message(&[]);
    for flags in [0x08, 0x09, 0x18, 0xdf] {
        datagram[19] = flags;
        assert_eq!(peek_header(&datagram), Ok(header()), "{flags:#x}");
    }
}

#[test]
fn reserved_octets_of_an_identity_are_kept_for_its_proof() {
    let body = [2, 0xaa, 0xbb, 0xcc, b'a'];
    let Payload::IdInitiator(identification) = parse_one(ID, &body).unwrap() else { panic!() };
    assert_eq!(identification.octets(), body);
}

#[test]
fn payload_lengths_are_bounded_by_the_message() {
    for stated in [0u16, 1, 3] {
        let mut datagram = message(&[(VENDOR, 0, b"abc")]);
        datagram[30..32].copy_from_slice(&stated.to_be_bytes());
        assert!(matches!(Message::parse(&datagram), Err(WireError::Field { field: "payload length", .. })));
    }
    let mut datagram = message(&[(VENDOR, 0, b"abc")]);
    datagram[30..32].copy_from_slice(&8u16.to_be_bytes());
    let truncated = WireError::Truncated { payload: PayloadType::VendorId, offset: 32, needed: 4, left: 3 };
    assert_eq!(Message::parse(&datagram), Err(truncated));
    datagram[30..32].copy_from_slice(&6u16.to_be_bytes());
    let trailing = WireError::Trailing { payload: PayloadType::None, offset: 34, count: 1 };
    assert_eq!(Message::parse(&datagram), Err(trailing));
}

#[test]
fn a_generic_header_may_not_be_cut() {
    let mut datagram = message(&[(VENDOR, 0, b"")]);
    datagram.pop();
    set_total(&mut datagram);
    assert!(matches!(Message::parse(&datagram), Err(WireError::Truncated { offset: 30, .. })));
    let mut datagram = message(&[]);
    datagram[16] = VENDOR;
    assert!(matches!(Message::parse(&datagram), Err(WireError::Truncated { offset: 28, .. })));
}

#[test]
fn max_payload_count_is_exact() {
    let most = vec![(VENDOR, 0, &b"v"[..]); MAX_PAYLOADS];
    assert_eq!(parse(&most).unwrap().len(), MAX_PAYLOADS);
    let one_more = vec![(VENDOR, 0, &b"v"[..]); MAX_PAYLOADS + 1];
    assert!(matches!(parse(&one_more), Err(WireError::TooMany { limit: MAX_PAYLOADS, .. })));
    let mut with_encrypted = vec![(VENDOR, 0, &b"v"[..]); MAX_PAYLOADS - 1];
    with_encrypted.push((SKF, 0, &[0, 1, 0, 1, 9]));
    assert!(Message::parse(&message(&with_encrypted)).unwrap().encrypted.is_some());
    with_encrypted.insert(0, (VENDOR, 0, &b"v"[..]));
    assert!(matches!(parse(&with_encrypted), Err(WireError::TooMany { .. })));
}

#[test]
fn an_encrypted_payload_is_the_last() {
    // R7296-3.1-1. Its Next Payload is the type of what is inside, so the chain does not end with a zero.
    let mut datagram = message(&[(VENDOR, 0, b"v"), (SK, 0, b"ciphertext")]);
    datagram[33] = NONCE;
    let parsed = Message::parse(&datagram).unwrap();
    let encrypted = Encrypted { kind_at: 28, body: 37, fragment: None };
    assert_eq!((parsed.payloads.len(), parsed.encrypted), (1, Some(encrypted)));
    let behind = Message::parse(&message(&[(SK, 0, b"ciphertext"), (NOTIFY, 0, &[0, 0, 0x40, 0])]));
    assert_eq!(behind, Err(WireError::MisplacedEncrypted { offset: 28 }));
}

#[test]
fn certificates_and_requests_for_them_have_an_encoding_and_may_have_no_more() {
    // Several may come, and stay in the order in which they came (R7296-1.2-3).
    let several = parse(&[(CERT, 0, b"\x04one"), (CERT, 0x80, b"\x04two"), (CERTREQ, 0, b"\x04")]);
    let certificate = |data: &[u8]| Payload::Certificate(CertificateData { encoding: 4, data: data.to_vec() });
    let request = Payload::CertificateRequest(CertificateRequest { encoding: 4, authorities: Vec::new() });
    assert_eq!(several, Ok(vec![certificate(b"one"), certificate(b"two"), request]));
    for kind in [CERT, CERTREQ] {
        assert!(is_truncated(&parse_one(kind, b"")));
    }
}

/// R7383-2.6-1.
#[test]
fn frag_len_underflow_and_numbers_of_fragments() {
    let fragment = |body: &[u8]| Message::parse(&message(&[(SKF, 0, body)])).map(|message| message.encrypted);
    for short in 0..4 {
        assert!(matches!(fragment(&[0, 1, 0, 1][..short]), Err(WireError::Truncated { .. })));
    }
    for numbers in [[0, 0, 0, 0], [0, 0, 0, 1], [0, 2, 0, 1], [0xff, 0xff, 0, 1]] {
        assert!(matches!(fragment(&numbers), Err(WireError::Field { field: "fragment number", .. })));
    }
    let last = Encrypted { kind_at: 16, body: 36, fragment: Some(Fragment { number: u16::MAX, total: u16::MAX }) };
    assert_eq!(fragment(&[0xff, 0xff, 0xff, 0xff, 1]), Ok(Some(last)));
}

#[test]
fn notify_spi_size_beyond_the_payload() {
    assert!(is_truncated(&parse_one(NOTIFY, &[3, 255, 0x40, 0, 1, 2, 3, 4])));
    assert!(is_truncated(&parse_one(NOTIFY, &[3, 4, 0x40, 9, 1, 2, 3])));
    for short in 0..4 {
        assert!(is_truncated(&parse_one(NOTIFY, &[0, 0, 0x40, 0][..short])));
    }
    assert_eq!(wrong_field(parse_one(NOTIFY, &[3, 3, 0x40, 0, 1, 2, 3])), "SPI size");
    // Unknown types are ignored, whatever they carry.
    let unknown = Notify::new(NotifyType::Other(40000));
    assert_eq!(parse_one(NOTIFY, &[9, 3, 0x9c, 0x40, 1, 2, 3]), Ok(Payload::Notify(unknown)));
}

/// R7296-1.3.3-1.
#[test]
fn rekey_sa_protoid_must_be_esp_or_ah_with_its_spi() {
    let rekey = |protocol: u8, spi: &[u8]| {
        let size = u8::try_from(spi.len()).unwrap();
        parse_one(NOTIFY, &[&[protocol, size, 0x40, 0x09], spi].concat())
    };
    let spi = [1, 2, 3, 4];
    assert_eq!(
        rekey(3, &spi),
        Ok(Payload::Notify(Notify::about(NotifyType::RekeySa, espdp_api::EspSpi::from_wire(spi).unwrap())))
    );
    let ah = Notify::about_child(
        NotifyType::RekeySa,
        espdp_api::IpsecProtocol::Ah,
        espdp_api::EspSpi::from_wire(spi).unwrap(),
    );
    assert_eq!(rekey(2, &spi), Ok(Payload::Notify(ah)));
    for protocol in [0, 1, 4, 255] {
        assert_eq!(wrong_field(rekey(protocol, &spi)), "SPI size", "protocol {protocol}");
    }
    for wrong in [&[][..], &[1, 2, 3], &[1; 8], &[1; 255], &[0, 0, 0, 255]] {
        assert_eq!(wrong_field(rekey(3, wrong)), "SPI size", "{} octets", wrong.len());
    }
}

#[test]
fn natd_len_is_that_of_sha1() {
    for number in [0x04, 0x05] {
        let detection = |length: usize| parse_one(NOTIFY, &[&[0, 0, 0x40, number][..], &vec![7; length]].concat());
        assert!(detection(20).is_ok());
        for length in [0, 19, 21, 64] {
            assert_eq!(wrong_field(detection(length)), "length of notification data");
        }
    }
}

/// R7296-2.6-3.
#[test]
fn cookies_and_wanted_groups_have_the_right_length() {
    let cookie = |length: usize| parse_one(NOTIFY, &[&[0, 0, 0x40, 0x06][..], &vec![7; length]].concat());
    assert!(cookie(1).is_ok() && cookie(64).is_ok());
    assert!(cookie(0).is_err() && cookie(65).is_err());
    let wanted = |data: &[u8]| parse_one(NOTIFY, &[&[0, 0, 0, 17], data].concat());
    assert_eq!(wanted(&[0, 31]), Ok(Payload::Notify(Notify::invalid_ke(31))));
    assert!(wanted(&[]).is_err() && wanted(&[31]).is_err() && wanted(&[0, 0, 31]).is_err());
}

/// R4555-4.2.5-1.
#[test]
fn what_mobike_says_has_the_right_length() {
    let notify = |number: u8, length: usize| parse_one(NOTIFY, &[&[0, 0, 0x40, number][..], &vec![7; length]].concat());
    for (number, good, bad) in [
        (0x11, &[8, 16, 64][..], &[0, 7, 65, 1000][..]), // COOKIE2
        (0x0d, &[4], &[0, 3, 5, 16]),                    // ADDITIONAL_IP4_ADDRESS
        (0x0e, &[16], &[0, 4, 15, 17]),                  // ADDITIONAL_IP6_ADDRESS
    ] {
        assert!(good.iter().all(|length| notify(number, *length).is_ok()), "{number}");
        assert!(
            bad.iter().all(|length| wrong_field(notify(number, *length)) == "length of notification data"),
            "{number}"
        );
    }
}

#[test]
fn notify_text_injection_gets_nowhere_near_a_log_line() {
    let evil = Notify::with_data(NotifyType::Other(12345), b"$(reboot)%n\x1b[2J\n".to_vec());
    let payloads = [Payload::Notify(evil), Payload::VendorId(b"\n`id`".to_vec())];
    assert_eq!(summary(&header(), &payloads), "IKE_SA_INIT request 7 [ N(12345) V ]");
}

/// 10.0.0.0 to 10.0.0.255, TCP, ports 80 to 90.
const V4_SELECTOR: [u8; 16] = [7, 6, 0, 16, 0, 80, 0, 90, 10, 0, 0, 0, 10, 0, 0, 255];

#[test]
fn ts_malformed() {
    let selectors = |count: u8, octets: &[u8]| parse_one(TS, &[&[count, 0, 0, 0], octets].concat());
    assert!(selectors(1, &V4_SELECTOR).is_ok());
    assert_eq!(wrong_field(selectors(0, &[])), "number of selectors");
    assert_eq!(wrong_field(selectors(0, &V4_SELECTOR)), "number of selectors");
    assert!(is_truncated(&selectors(2, &V4_SELECTOR)));
    assert!(matches!(selectors(1, &[V4_SELECTOR, V4_SELECTOR].concat()), Err(WireError::Trailing { count: 16, .. })));
    let mut v4_as_long_as_v6 = [0; 40];
    v4_as_long_as_v6[..16].copy_from_slice(&V4_SELECTOR);
    v4_as_long_as_v6[3] = 40;
    assert_eq!(wrong_field(selectors(1, &v4_as_long_as_v6)), "selector length");
    let mut v6_as_long_as_v4 = V4_SELECTOR;
    v6_as_long_as_v4[0] = 8;
    assert_eq!(wrong_field(selectors(1, &v6_as_long_as_v4)), "selector length");
    for stated in [0, 3] {
        let mut short = V4_SELECTOR;
        short[3] = stated;
        assert_eq!(wrong_field(selectors(1, &short)), "selector length");
    }
}

#[test]
fn selectors_that_select_nothing_are_left_out() {
    let unknown_type = [9, 0, 0, 5, 1];
    let mut reversed_addresses = V4_SELECTOR;
    reversed_addresses[15] = 0;
    reversed_addresses[11] = 1;
    let mut reversed_ports = V4_SELECTOR;
    reversed_ports[5] = 91;
    let mut opaque = V4_SELECTOR;
    opaque[4..8].copy_from_slice(&[0xff, 0xff, 0, 0]);
    let octets = [&[4, 0, 0, 0][..], &unknown_type, &reversed_addresses, &reversed_ports, &opaque].concat();
    let Payload::SelectorsInitiator(selectors) = parse_one(TS, &octets).unwrap() else { panic!() };
    // R7296-3.13.1-1
    assert_eq!(selectors.iter().map(|selector| selector.ports).collect::<Vec<_>>(), [espdp_api::PortRange::OPAQUE]);
}

#[test]
fn dn_id_short() {
    let dn = |der: &[u8]| parse_one(ID, &[&[9, 0, 0, 0], der].concat());
    for short in [&[][..], &[0x30], &[0x30, 0], &[0x30, 1], &[0x30, 0x81], &[0x30, 0x82, 1], &[0x31, 1, 0]] {
        assert!(matches!(dn(short), Err(WireError::Encoding { .. })), "{short:x?}");
    }
    assert!(matches!(dn(&[0x30, 0x80, 0, 0]), Err(WireError::Encoding { .. })), "no indefinite lengths");
    let Ok(Payload::IdInitiator(identification)) = dn(&[0x30, 2, 0x31, 0]) else { panic!() };
    assert_eq!(identification.identity().unwrap().to_string(), "#30023100");
}

#[test]
fn idi_too_long() {
    let fqdn = |length: usize| parse_one(ID, &[&[2, 0, 0, 0][..], &vec![b'a'; length]].concat());
    assert!(fqdn(MAX_IDENTITY_OCTETS).is_ok());
    for length in [MAX_IDENTITY_OCTETS + 1, 65_000] {
        assert_eq!(wrong_field(fqdn(length)), "length of identity");
    }
}

#[test]
fn identities_have_the_length_of_their_type() {
    for (kind, right) in [(1, 4), (5, 16)] {
        for length in [0, 3, 4, 5, 15, 16, 17] {
            let parsed = parse_one(ID, &[&[kind, 0, 0, 0][..], &vec![1; length]].concat());
            assert_eq!(parsed.is_ok(), length == right, "type {kind}, {length} octets");
        }
    }
    for kind in [2, 3, 11] {
        assert_eq!(wrong_field(parse_one(ID, &[kind, 0, 0, 0])), "length of identity");
    }
    assert!(matches!(parse_one(ID, &[2, 0, 0, 0, 0xff]), Err(WireError::Encoding { .. })));
    assert!(is_truncated(&parse_one(ID, &[1, 0, 0])));
    let Ok(Payload::IdInitiator(unknown)) = parse_one(ID, &[13, 0, 0, 0]) else { panic!() };
    assert_eq!((unknown.identity(), unknown.kind()), (None, 13));
}

/// R7296-2.10-1.
#[test]
fn nonces_have_16_to_256_octets() {
    // R7296-3.9-1
    for (length, fits) in [(0, false), (15, false), (16, true), (256, true), (257, false)] {
        assert_eq!(parse_one(NONCE, &vec![1; length]).is_ok(), fits, "{length} octets");
    }
}

#[test]
fn ke_private_group_is_just_a_number() {
    let parsed = parse_one(KE, &[4, 1, 0, 0, 9]).unwrap();
    assert_eq!(parsed, Payload::KeyExchange(KeyExchange { group: 1025, data: vec![9] }));
    assert_eq!(crate::proposal::KeyExchangeGroup::from_number(1025), None);
    assert!(is_truncated(&parse_one(KE, &[0, 31, 0])));
}

#[test]
fn deletes_have_as_many_spis_as_they_say() {
    let esp = |count: u8, octets: &[u8]| parse_one(DELETE, &[&[3, 4, 0, count], octets].concat());
    let spis = vec![espdp_api::EspSpi::try_from(0x0101_0101).unwrap()];
    // The other SPI is a reserved one, which no SA has.
    assert_eq!(esp(2, &[1, 1, 1, 1, 0, 0, 0, 1]), Ok(Payload::Delete(Delete::Esp(spis))));
    assert!(is_truncated(&esp(2, &[1; 7])));
    assert!(matches!(esp(1, &[1; 5]), Err(WireError::Trailing { .. })));
    assert_eq!(parse_one(DELETE, &[1, 0, 0, 0]), Ok(Payload::Delete(Delete::IkeSa)));
    assert_eq!(wrong_field(parse_one(DELETE, &[1, 0, 0, 1])), "number of SPIs");
    assert_eq!(wrong_field(parse_one(DELETE, &[1, 8, 0, 0])), "SPI size");
    assert_eq!(wrong_field(parse_one(DELETE, &[3, 0, 0xff, 0xff])), "SPI size");
    assert_eq!(wrong_field(parse_one(DELETE, &[0, 0, 0, 0])), "protocol");
}

/// ESP, SPI 01020304, AES-CBC-256 and no ESN.
const PROPOSAL: [u8; 32] = [
    0, 0, 0, 32, 1, 3, 4, 2, 1, 2, 3, 4, // the proposal
    3, 0, 0, 12, 1, 0, 0, 12, 0x80, 14, 1, 0, // encryption with its key length
    0, 0, 0, 8, 5, 0, 0, 0, // sequence numbers
];

#[test]
fn proposals_and_transforms_agree_with_their_lengths_and_counts() {
    // R7296-3.3-1
    assert!(parse_one(SA, &PROPOSAL).is_ok());
    let with = |index: usize, octet: u8| {
        let mut proposal = PROPOSAL;
        proposal[index] = octet;
        parse_one(SA, &proposal)
    };
    assert!(parse_one(SA, &[]).is_err(), "no proposal");
    assert!(with(0, 2).is_err(), "more proposals promised");
    for length in [0, 3, 7, 31, 33, 255] {
        assert!(with(3, length).is_err(), "proposal length {length}");
    }
    for size in [0, 3, 5, 20, 255] {
        assert!(with(6, size).is_err(), "SPI size {size}");
    }
    for count in [0, 1, 3, 255] {
        assert!(with(7, count).is_err(), "{count} transforms");
    }
    assert!(with(12, 0).is_err(), "last transform is not the last");
    assert!(with(24, 3).is_err(), "more transforms promised");
    for length in [0, 3, 7, 11, 13, 255] {
        assert!(with(15, length).is_err(), "transform length {length}");
    }
}

#[test]
fn attribute_lengths_are_bounded_by_their_transform() {
    // Without the top bit, what was the key length is the length of a value that is not there.
    let mut long = PROPOSAL;
    long[20] = 0;
    assert!(is_truncated(&parse_one(SA, &long)));
    long[22..24].copy_from_slice(&[0, 0]);
    let Payload::SecurityAssociation(proposals) = parse_one(SA, &long).unwrap() else { panic!() };
    let empty = Attribute { kind: Attribute::KEY_LENGTH, value: AttributeValue::Long(vec![]) };
    assert_eq!(proposals[0].transforms[0].attributes, [empty]);
}

#[test]
fn proposals_transforms_and_attributes_are_limited() {
    let transform = |attributes: usize| WireTransform {
        kind: TransformType::Encryption,
        id: 12,
        attributes: vec![Attribute::key_length(256); attributes],
    };
    let parse_back = |proposals: Vec<WireProposal>| {
        let datagram = encode_message(&header(), &[Payload::SecurityAssociation(proposals)]).unwrap();
        Message::parse(&datagram)
    };
    let proposal = |transforms: usize, attributes: usize| WireProposal {
        number: 1,
        protocol: Protocol::Esp,
        spi: vec![1; 4],
        transforms: vec![transform(attributes); transforms],
    };
    assert!(parse_back(vec![proposal(MAX_TRANSFORMS, MAX_ATTRIBUTES); 12]).is_ok());
    assert!(parse_back(vec![proposal(1, 1); MAX_PROPOSALS]).is_ok());
    let too_many = |result| matches!(result, Err(WireError::TooMany { .. }));
    assert!(too_many(parse_back(vec![proposal(1, 1); MAX_PROPOSALS + 1])));
    assert!(too_many(parse_back(vec![proposal(MAX_TRANSFORMS + 1, 1)])));
    assert!(too_many(parse_back(vec![proposal(1, MAX_ATTRIBUTES + 1)])));
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let encode = |payload| encode_message(&header(), &[payload]);
    let too_long = |result: Result<Vec<u8>, WireError>| matches!(result, Err(WireError::TooLong { .. }));
    assert!(too_long(encode(Payload::VendorId(vec![0; 65_532]))));
    assert!(too_long(encode_message(
        &header(),
        &[Payload::VendorId(vec![0; 40_000]), Payload::VendorId(vec![0; 40_000])]
    )));
    let selector = espdp_api::TrafficSelector::any_protocol(espdp_api::AddressRange::single([10, 0, 0, 1].into()));
    assert!(encode(Payload::SelectorsInitiator(vec![selector; MAX_SELECTORS])).is_ok());
    assert!(too_long(encode(Payload::SelectorsInitiator(vec![selector; MAX_SELECTORS + 1]))));
    let spi = espdp_api::EspSpi::try_from(256).unwrap();
    assert!(too_long(encode(Payload::Delete(Delete::Esp(vec![spi; 65_536])))));
}
