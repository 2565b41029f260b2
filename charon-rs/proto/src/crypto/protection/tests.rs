use super::*;
use crate::crypto::key_exchange::KeyExchange;
use crate::crypto::schedule::{IkeExchange, IkeKeys};
use crate::io::IkeSpi;
use crate::proposal::{AdditionalGroups, Algorithm as _, KeyExchangeGroup, Prf};
use crate::testing::{SeededRandom, Vector};
use crate::wire::{
    ExchangeType, Header, Message, MessageKind, Notify, NotifyType, Payload, PlainMessage, Role, UnprotectError,
};

/// IKE header and header of the Encrypted payload.
const BODY: usize = 28 + 4;

#[test]
fn messages_are_those_of_the_vectors() {
    let cases = Vector::parse(include_str!("../../../../../tests/vectors/encrypted-payload.txt"));
    assert_eq!(cases.len(), 8);
    for case in cases {
        let suite = suite(cipher(case.text("cipher")), integrity(case.text("integrity")));
        let (sk_e, sk_a) = (case.octets("sk_e").into(), case.octets("sk_a").into());
        let mut protection = MessageCipher::new(suite, &sk_e, &sk_a).unwrap();
        let (plain, expected) = (case.octets("plain"), case.octets("message"));
        assert_eq!(protection.open(&expected, BODY).unwrap(), plain);

        let iv = expected[BODY..BODY + protection.iv_len()].to_vec();
        if let Algorithm::Aead { next_iv, .. } = &mut protection.0 {
            *next_iv = u64::from_be_bytes(iv.clone().try_into().unwrap());
        }
        let mut message = unsealed(&protection, &expected[..BODY], &plain);
        protection.seal(&mut FixedIv(iv), &mut message, BODY);
        assert_eq!(message, expected, "{case:?}");
    }
}

#[test]
fn every_suite_opens_what_it_sealed() {
    for suite in suites() {
        let mut random = SeededRandom::new(1);
        let keys = keys(suite);
        let (mut ours, theirs) = (of_initiator(suite, &keys), of_initiator(suite, &keys));
        for count in [0, 1, 2, 5, 20] {
            let payloads = vec![notify(); count];
            let message = PlainMessage::new(&header(), &payloads).unwrap().seal(&mut ours, &mut random).unwrap();
            assert_eq!(reopen(&message, &theirs).unwrap(), payloads, "{suite:?}");
        }
    }
}

/// negotiated_but_unsupported.
#[test]
fn negotiated_but_unsupported_whatever_can_be_agreed_on_is_implemented() {
    let suites = suites();
    for &cipher in IkeCipher::ALL {
        let wanted = if cipher.is_aead() { 1 } else { IkeIntegrity::ALL.len() };
        assert_eq!(suites.iter().filter(|suite| suite.cipher == cipher).count(), wanted, "{cipher:?}");
    }
    let mut random = SeededRandom::new(1);
    for &group in KeyExchangeGroup::ALL {
        assert!(!KeyExchange::generate(group, &mut random).public().is_empty(), "{group:?}");
    }
    for &prf in Prf::ALL {
        assert_eq!(prf.compute(b"key", &[b"data"]).expose().len(), prf.output_len(), "{prf:?}");
    }
}

/// R7296-1.2-2.
#[test]
fn no_bit_of_a_message_can_be_changed() {
    for suite in suites() {
        let mut protection = of_initiator(suite, &keys(suite));
        let message = sealed(&mut protection);
        assert!(protection.open(&message, BODY).is_ok());
        for bit in 0..message.len() * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(protection.open(&changed, BODY), Err(Inauthentic), "bit {bit} with {suite:?}");
        }
    }
}

#[test]
fn no_octet_can_be_cut_off_or_added() {
    for suite in suites() {
        let mut protection = of_initiator(suite, &keys(suite));
        let message = sealed(&mut protection);
        for len in 0..message.len() {
            assert_eq!(protection.open(&message[..len], BODY), Err(Inauthentic));
        }
        assert_eq!(protection.open(&[&message[..], &[0]].concat(), BODY), Err(Inauthentic));
        assert_eq!(protection.open(&message, message.len() + 1), Err(Inauthentic));
        assert_eq!(protection.open(&message, BODY + 1), Err(Inauthentic));
        assert_eq!(protection.open(&[], 0), Err(Inauthentic));
    }
}

/// R5282-5.1-1.
#[test]
fn payloads_before_the_encrypted_one_are_covered() {
    for suite in suites() {
        let mut protection = of_initiator(suite, &keys(suite));
        let body = BODY + 8;
        let mut message = unsealed(&protection, &[0x11; BODY + 8], &[0; 16]);
        protection.seal(&mut SeededRandom::new(1), &mut message, body);
        assert!(protection.open(&message, body).is_ok());
        message[28] ^= 1;
        assert_eq!(protection.open(&message, body), Err(Inauthentic));
    }
}

#[test]
fn a_message_cannot_be_sent_back_to_whom_it_came_from() {
    for suite in suites() {
        let keys = keys(suite);
        let message = sealed(&mut of_initiator(suite, &keys));
        let of_responder = MessageCipher::new(suite, &keys.sk_er, &keys.sk_ar).unwrap();
        assert_eq!(of_responder.open(&message, BODY), Err(Inauthentic));
        let of_another_sa = of_initiator(suite, &keys_from(suite, b"other"));
        assert_eq!(of_another_sa.open(&message, BODY), Err(Inauthentic));
    }
}

/// RFC 4106 §3.1, R4106-3.1-1.
#[test]
fn ivs_of_aeads_count_up_and_those_of_cbc_are_drawn() {
    for suite in suites() {
        let mut protection = of_initiator(suite, &keys(suite));
        let mut random = SeededRandom::new(1);
        let mut ivs: Vec<_> = (0..1000)
            .map(|_| {
                let mut message = unsealed(&protection, &[0; BODY], &[0; 16]);
                protection.seal(&mut random, &mut message, BODY);
                message[BODY..BODY + protection.iv_len()].to_vec()
            })
            .collect();
        let counted = ivs.iter().zip(0u64..).all(|(iv, number)| iv[..] == number.to_be_bytes());
        assert_eq!(counted, suite.cipher.is_aead());
        ivs.sort_unstable();
        ivs.dedup();
        assert_eq!(ivs.len(), 1000);
    }
}

#[test]
#[should_panic(expected = "an IKE SA ends before its IVs do")]
fn sealing_ends_before_an_iv_comes_again() {
    let suite = suite(IkeCipher::AesGcm16 { key_bits: 256 }, None);
    let mut protection = of_initiator(suite, &keys(suite));
    if let Algorithm::Aead { next_iv, .. } = &mut protection.0 {
        *next_iv = u64::MAX - 1;
    }
    let last = sealed(&mut protection);
    assert_eq!(last[BODY..BODY + 8], (u64::MAX - 1).to_be_bytes());
    sealed(&mut protection);
}

/// libreswan's CVE-2013-4564 and what is near it: packets shorter than header, IV, checksum or block, and padding that is
/// longer than what was encrypted.
#[test]
fn short_packet_padding() {
    for suite in suites() {
        let mut protection = of_initiator(suite, &keys(suite));
        let plain = PlainMessage::new(&header(), &[notify()]).unwrap();
        let message = plain.seal(&mut protection, &mut SeededRandom::new(1)).unwrap();
        let encrypted = Message::parse(&message).unwrap().encrypted.unwrap();
        for len in 0..message.len() {
            let opened = PlainMessage::open(&message[..len], &encrypted, &protection);
            assert_eq!(opened.err(), Some(UnprotectError::Inauthentic(Inauthentic)));
        }
        for pad_length in [16, 17, 128, 255] {
            let mut plain = vec![0; 16];
            plain[15] = pad_length;
            let mut message = unsealed(&protection, &message[..BODY], &plain);
            protection.seal(&mut SeededRandom::new(1), &mut message, BODY);
            let opened = PlainMessage::open(&message, &encrypted, &protection);
            assert!(matches!(opened.err(), Some(UnprotectError::Malformed(_))));
        }
    }
}

#[test]
fn suites_that_make_no_sense_are_refused() {
    let refused = |suite: IkeSuite, sk_e: usize, sk_a: usize| {
        MessageCipher::new(suite, &vec![0; sk_e].into(), &vec![0; sk_a].into()).is_err()
    };
    let gcm = |key_bits| IkeCipher::AesGcm16 { key_bits };
    let cbc = |key_bits| IkeCipher::AesCbc { key_bits };
    let mac = Some(IkeIntegrity::HmacSha2_256_128);
    // Key lengths that AES has not, zero among them.
    assert!([0, 8, 64, 100, 255, 512].iter().all(|&bits| refused(
        suite(gcm(bits), None),
        usize::from(bits / 8) + 4,
        0
    )));
    assert!([0, 8, 64, 100, 255, 512].iter().all(|&bits| refused(suite(cbc(bits), mac), usize::from(bits / 8), 32)));
    // Integrity where it does not belong, or none where it does.
    assert!(refused(suite(gcm(256), mac), 36, 32));
    assert!(refused(suite(IkeCipher::ChaCha20Poly1305, mac), 36, 32));
    assert!(refused(suite(cbc(256), None), 32, 0));
    // Keys of another length.
    assert!(refused(suite(gcm(256), None), 32, 0) && refused(suite(gcm(256), None), 36, 32));
    assert!(refused(suite(gcm(256), None), 20, 0) && refused(suite(gcm(256), None), 0, 0));
    assert!(refused(suite(cbc(256), mac), 16, 32) && refused(suite(cbc(256), mac), 32, 20));
    assert!(refused(suite(IkeCipher::ChaCha20Poly1305, None), 32, 0));
    assert!(!refused(suite(gcm(256), None), 36, 0) && !refused(suite(cbc(256), mac), 32, 32));
}

#[test]
fn debug_output_shows_no_key() {
    let suite = suite(IkeCipher::ChaCha20Poly1305, None);
    assert_eq!(format!("{:?}", of_initiator(suite, &keys(suite))), "MessageCipher(..)");
}

/// All that can be negotiated.
fn suites() -> Vec<IkeSuite> {
    let bits = [128, 192, 256];
    let integrity = [
        IkeIntegrity::HmacSha1_96,
        IkeIntegrity::HmacSha2_256_128,
        IkeIntegrity::HmacSha2_384_192,
        IkeIntegrity::HmacSha2_512_256,
    ];
    let aeads = bits.iter().map(|&key_bits| suite(IkeCipher::AesGcm16 { key_bits }, None));
    let cbc = |key_bits| integrity.map(|mac| suite(IkeCipher::AesCbc { key_bits }, Some(mac)));
    aeads.chain([suite(IkeCipher::ChaCha20Poly1305, None)]).chain(bits.into_iter().flat_map(cbc)).collect()
}

fn suite(cipher: IkeCipher, integrity: Option<IkeIntegrity>) -> IkeSuite {
    IkeSuite {
        cipher,
        integrity,
        prf: Prf::HmacSha2_256,
        group: KeyExchangeGroup::Curve25519,
        additional: AdditionalGroups::default(),
    }
}

fn cipher(name: Option<&str>) -> IkeCipher {
    match name {
        Some("AES-GCM-16-128") => IkeCipher::AesGcm16 { key_bits: 128 },
        Some("AES-GCM-16-192") => IkeCipher::AesGcm16 { key_bits: 192 },
        Some("AES-GCM-16-256") => IkeCipher::AesGcm16 { key_bits: 256 },
        Some("CHACHA20-POLY1305") => IkeCipher::ChaCha20Poly1305,
        Some("AES-CBC-128") => IkeCipher::AesCbc { key_bits: 128 },
        Some("AES-CBC-192") => IkeCipher::AesCbc { key_bits: 192 },
        Some("AES-CBC-256") => IkeCipher::AesCbc { key_bits: 256 },
        other => panic!("no cipher {other:?}"),
    }
}

fn integrity(name: Option<&str>) -> Option<IkeIntegrity> {
    match name {
        Some("NONE") => None,
        Some("HMAC-SHA1-96") => Some(IkeIntegrity::HmacSha1_96),
        Some("HMAC-SHA2-256-128") => Some(IkeIntegrity::HmacSha2_256_128),
        Some("HMAC-SHA2-384-192") => Some(IkeIntegrity::HmacSha2_384_192),
        Some("HMAC-SHA2-512-256") => Some(IkeIntegrity::HmacSha2_512_256),
        other => panic!("no integrity transform {other:?}"),
    }
}

fn of_initiator(suite: IkeSuite, keys: &IkeKeys) -> MessageCipher {
    MessageCipher::new(suite, &keys.sk_ei, &keys.sk_ai).unwrap()
}

fn keys(suite: IkeSuite) -> IkeKeys {
    keys_from(suite, b"shared secret")
}

fn keys_from(suite: IkeSuite, shared_secret: &[u8]) -> IkeKeys {
    let exchange = IkeExchange {
        shared_secret: &shared_secret.to_vec().into(),
        more_secrets: &[],
        initiator_nonce: &[1; 32],
        responder_nonce: &[2; 32],
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
    };
    IkeKeys::first(suite, &exchange)
}

fn header() -> Header {
    Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
        exchange: ExchangeType::Informational,
        sender: Role::OriginalInitiator,
        kind: MessageKind::Request,
        message_id: 2,
    }
}

fn notify() -> Payload {
    Payload::Notify(Notify::with_data(NotifyType::SetWindowSize, vec![0, 0, 0, 10]))
}

/// A message with room for IV and checksum.
fn unsealed(protection: &MessageCipher, before: &[u8], plain: &[u8]) -> Vec<u8> {
    [before, &vec![0; protection.iv_len()], plain, &vec![0; protection.icv_len()]].concat()
}

fn sealed(protection: &mut MessageCipher) -> Vec<u8> {
    let mut message = unsealed(protection, &[0xa5; BODY], b"0123456789abcdef");
    protection.seal(&mut SeededRandom::new(1), &mut message, BODY);
    message
}

fn reopen(message: &[u8], protection: &MessageCipher) -> Result<Vec<Payload>, UnprotectError> {
    let encrypted = Message::parse(message).unwrap().encrypted.unwrap();
    Ok(PlainMessage::open(message, &encrypted, protection)?.payloads()?)
}

/// Gives out one IV.
struct FixedIv(Vec<u8>);

impl SecureRandom for FixedIv {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }

    fn fill_secret(&mut self, _: &mut [u8]) {
        panic!("an IV is public");
    }
}
