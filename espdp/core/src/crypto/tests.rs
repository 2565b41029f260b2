//! Published packets, and the order in which things are covered.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use espdp_api::{EspIntegrity, IpsecProtocol};
use serde::Deserialize;

use super::*;
use crate::OuterHeader;
use crate::batch::Span;

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const ENGINES: [CryptoEngine; 2] = [CryptoEngine::Auto, CryptoEngine::Library];

fn transform(cipher: EspCipher, integrity: EspIntegrity, extended: bool, key: &[u8], mac_key: &[u8]) -> Transform {
    transform_by(CryptoEngine::Auto, cipher, integrity, extended, key, mac_key)
}

fn transform_by(
    engine: CryptoEngine,
    cipher: EspCipher,
    integrity: EspIntegrity,
    extended: bool,
    key: &[u8],
    mac_key: &[u8],
) -> Transform {
    let algorithms = EspAlgorithms { cipher, integrity, extended_sequence_numbers: extended };
    let (key, mac_key) = (Secret::new(key.to_vec()), Secret::new(mac_key.to_vec()));
    Transform::with_engine(engine, algorithms, &key, &mac_key, &Secret::new([9; 16])).unwrap()
}

/// A published packet; what its file says of each field.
#[derive(Deserialize)]
struct Vector {
    name: String,
    source: String,
    cipher: String,
    integrity: String,
    extended: bool,
    sequence: String,
    key: String,
    #[serde(default)]
    integrity_key: String,
    plain: String,
    packet: String,
}

#[derive(Deserialize)]
struct Vectors {
    vector: Vec<Vector>,
}

fn published() -> Vec<Vector> {
    toml::from_str::<Vectors>(include_str!("../../tests/vectors/esp.toml")).unwrap().vector
}

impl Vector {
    fn cipher(&self) -> EspCipher {
        match self.cipher.as_str() {
            "aes128gcm16" => EspCipher::AesGcm16 { key_bits: 128 },
            "aes192gcm16" => EspCipher::AesGcm16 { key_bits: 192 },
            "aes256gcm16" => EspCipher::AesGcm16 { key_bits: 256 },
            "aes128gmac" => EspCipher::AesGmac { key_bits: 128 },
            "aes128" => EspCipher::AesCbc { key_bits: 128 },
            "chacha20poly1305" => EspCipher::ChaCha20Poly1305,
            other => panic!("{other}"),
        }
    }

    fn integrity(&self) -> EspIntegrity {
        match self.integrity.as_str() {
            "none" => EspIntegrity::None,
            "sha256" => EspIntegrity::HmacSha2_256_128,
            "sha384" => EspIntegrity::HmacSha2_384_192,
            "sha512" => EspIntegrity::HmacSha2_512_256,
            other => panic!("{other}"),
        }
    }

    fn sequence(&self) -> u64 {
        u64::from_str_radix(&self.sequence, 16).unwrap()
    }

    /// The packet before it is sealed, with its IV and room for an ICV.
    fn unsealed(&self) -> Vec<u8> {
        let (packet, plain) = (octets(&self.packet), octets(&self.plain));
        let start = ESP_HEADER_LEN + self.cipher().iv_len();
        let icv_len = packet.len() - start - plain.len();
        [&packet[..start], &plain, &vec![0; icv_len]].concat()
    }
}

/// R4106-8.1-1.
#[test]
fn published_packets_are_sealed_and_opened() {
    let mut sources = BTreeMap::new();
    for vector in published() {
        let name = &vector.name;
        let (published, mut packet) = (octets(&vector.packet), vector.unsealed());
        let plain = packet.clone();
        let (cipher, integrity, key) = (vector.cipher(), vector.integrity(), octets(&vector.key));
        if cipher.is_aead() || integrity != EspIntegrity::None {
            for engine in ENGINES {
                let mac_key = octets(&vector.integrity_key);
                let transform = transform_by(engine, cipher, integrity, vector.extended, &key, &mac_key);
                let mut packet = packet.clone();
                transform.seal_with_iv(&mut packet, vector.sequence()).unwrap();
                assert_eq!(packet, published, "{name} by {engine:?}");
                let proof = transform.open(&mut packet, vector.sequence());
                let proof = proof.unwrap_or_else(|reason| panic!("{name} by {engine:?}: {reason:?}"));
                assert_eq!(proof.sequence(), vector.sequence());
                let start = ESP_HEADER_LEN + cipher.iv_len();
                let end = packet.len() - transform_icv_len(cipher, integrity);
                assert_eq!(packet[start..end], plain[start..end], "{name} by {engine:?}");
            }
        } else {
            // RFC 3602 shows packets without integrity, which no SA may have.
            let cbc = Cbc::new(&key, &Secret::new([9; 16])).unwrap();
            cbc.encrypt(&mut packet, 0).unwrap();
            assert_eq!(packet, published, "{name}");
            cbc.decrypt(&mut packet, 0).unwrap();
            assert_eq!(packet, plain, "{name}");
        }
        *sources.entry(vector.source).or_insert(0) += 1;
    }
    let counts: Vec<_> = sources.values().copied().collect();
    assert_eq!(counts, [5, 4, 1, 17], "{sources:?}");
}

/// R4302-3.3.3.1-1, R4302-3.4.4-1.
#[test]
fn published_packets_of_ah_are_sealed_and_verified() {
    #[derive(Deserialize)]
    struct Published {
        name: String,
        key: String,
        inner: String,
        packet: String,
    }
    #[derive(Deserialize)]
    struct All {
        vector: Vec<Published>,
    }
    let all: All = toml::from_str(include_str!("../../tests/vectors/ah.toml")).unwrap();
    assert_eq!(all.vector.len(), 2);
    let (cipher, integrity) = (EspCipher::Null, EspIntegrity::HmacSha2_256_128);
    let algorithms = EspAlgorithms { cipher, integrity, extended_sequence_numbers: false };
    for Published { name, key, inner, packet } in all.vector {
        let transform = Transform::authentication_header(algorithms, &Secret::new(octets(&key))).unwrap();
        let (published, inner) = (octets(&packet), octets(&inner));
        let mut packet = published.clone();
        packet[32..48].fill(0);
        transform.seal(&mut packet, 1).unwrap();
        assert_eq!(packet, published, "{name}");
        assert_eq!(transform.open(&mut packet, 1).map(|proof| proof.sequence()), Ok(1), "{name}");
        assert_eq!(packet[48..], inner[if name == "tunnel mode" { 0 } else { 20 }..], "{name}");
        for at in 0..packet.len() {
            let is_mutable = [1, 8, 10, 11].contains(&at);
            let mut damaged = published.clone();
            damaged[at] ^= 0x10;
            assert_eq!(transform.open(&mut damaged, 1).is_ok(), is_mutable, "{name}, octet {at}");
        }
    }
}

#[test]
fn ah_takes_no_cipher_and_just_its_key() {
    let algorithms = |cipher, integrity| EspAlgorithms { cipher, integrity, extended_sequence_numbers: false };
    let gcm = algorithms(EspCipher::AesGcm16 { key_bits: 128 }, EspIntegrity::None);
    let nothing = algorithms(EspCipher::Null, EspIntegrity::None);
    for unsound in [gcm, nothing] {
        let made = Transform::authentication_header(unsound, &Secret::new(Vec::new()));
        assert_eq!(made.unwrap_err(), TransformError::Unsound(unsound));
    }
    let short = Transform::authentication_header(
        algorithms(EspCipher::Null, EspIntegrity::HmacSha2_384_192),
        &Secret::new(vec![0; 32]),
    );
    assert_eq!(short.unwrap_err(), TransformError::KeyLength { which: "integrity", wanted: 48, given: 32 });
}

fn transform_icv_len(cipher: EspCipher, integrity: EspIntegrity) -> usize {
    EspAlgorithms { cipher, integrity, extended_sequence_numbers: false }.icv_len()
}

#[test]
fn an_extended_aead_covers_spi_then_high_then_low_half() {
    // RFC 4106 §5, composed by hand.
    let key: Vec<u8> = (0..36).collect();
    let transform = transform(EspCipher::AesGcm16 { key_bits: 256 }, EspIntegrity::None, true, &key, &[]);
    let sequence = 0x0102_0304_a0b0_c0d0u64;
    let mut packet = vec![0x55; 8 + 8 + 20 + 16];
    packet[..8].copy_from_slice(&octets("deadbeef a0b0c0d0"));
    transform.seal(&mut packet, sequence).unwrap();

    let by_hand = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..32]).unwrap());
    let nonce: [u8; 12] = [&key[32..], &sequence.to_be_bytes()].concat().try_into().unwrap();
    let mut expected = vec![0x55; 20];
    let aad = Aad::from(octets("deadbeef 01020304 a0b0c0d0"));
    by_hand.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut expected).unwrap();
    assert_eq!(packet[8..16], sequence.to_be_bytes());
    assert_eq!(packet[16..], expected);
}

#[test]
fn an_extended_mac_covers_the_high_half_behind_the_packet() {
    // RFC 4303 §2.2.1, composed by hand for each HMAC.
    for (integrity, algorithm) in [
        (EspIntegrity::HmacSha1_96, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        (EspIntegrity::HmacSha2_256_128, hmac::HMAC_SHA256),
        (EspIntegrity::HmacSha2_384_192, hmac::HMAC_SHA384),
        (EspIntegrity::HmacSha2_512_256, hmac::HMAC_SHA512),
    ] {
        let key = vec![0x5c; integrity.key_len()];
        for (extended, high) in [(true, "01020304"), (false, "")] {
            let transform = transform(EspCipher::Null, integrity, extended, &[], &key);
            let mut packet = [octets("deadbeef a0b0c0d0"), vec![7; 12], vec![0; integrity.icv_len()]].concat();
            transform.seal(&mut packet, 0x0102_0304_a0b0_c0d0).unwrap();
            let covered = [&packet[..20], &octets(high)].concat();
            let tag = hmac::sign(&hmac::Key::new(algorithm, &key), &covered);
            assert_eq!(packet[20..], tag.as_ref()[..integrity.icv_len()], "{integrity:?}");
            assert_eq!(packet[8..20], [7; 12]);
        }
    }
}

#[test]
fn the_mac_is_checked_before_anything_is_decrypted() {
    // R4303-3.4.4.1-1
    let (cipher, integrity) = (EspCipher::AesCbc { key_bits: 256 }, EspIntegrity::HmacSha2_256_128);
    let transform = transform(cipher, integrity, true, &[1; 32], &[2; 32]);
    let mut packet = vec![0x33; 8 + 16 + 32 + 16];
    transform.seal(&mut packet, 1).unwrap();
    packet[30] ^= 1;
    let damaged = packet.clone();
    assert_eq!(transform.open(&mut packet, 1), Err(DropReason::BadIcv));
    assert_eq!(packet, damaged, "not decrypted");
}

const ALL: [(EspCipher, EspIntegrity); 15] = [
    (EspCipher::AesGcm16 { key_bits: 192 }, EspIntegrity::None),
    (EspCipher::AesGcm12 { key_bits: 128 }, EspIntegrity::None),
    (EspCipher::AesGcm12 { key_bits: 192 }, EspIntegrity::None),
    (EspCipher::AesGcm8 { key_bits: 256 }, EspIntegrity::None),
    (EspCipher::AesCcm16 { key_bits: 128 }, EspIntegrity::None),
    (EspCipher::AesCcm12 { key_bits: 192 }, EspIntegrity::None),
    (EspCipher::AesCcm8 { key_bits: 256 }, EspIntegrity::None),
    (EspCipher::ChaCha20Poly1305, EspIntegrity::None),
    (EspCipher::AesGmac { key_bits: 128 }, EspIntegrity::None),
    (EspCipher::AesGmac { key_bits: 192 }, EspIntegrity::None),
    (EspCipher::AesGmac { key_bits: 256 }, EspIntegrity::None),
    (EspCipher::AesCbc { key_bits: 192 }, EspIntegrity::AesCmac96),
    (EspCipher::AesCtr { key_bits: 128 }, EspIntegrity::HmacSha2_256_128),
    (EspCipher::AesCtr { key_bits: 256 }, EspIntegrity::HmacSha1_96),
    (EspCipher::Null, EspIntegrity::AesCmac96),
];

/// R4543-3.4-1: every single octet of the 16 counts.
#[test]
fn every_transform_opens_what_it_sealed_and_nothing_else() {
    for (cipher, integrity) in ALL {
        for extended in [false, true] {
            let key = vec![0x4b; cipher.key_len() + cipher.salt_len()];
            let transform = transform(cipher, integrity, extended, &key, &vec![0x6d; integrity.key_len()]);
            let sequence = 0x0102_0304_a0b0_c0d0u64;
            let start = ESP_HEADER_LEN + cipher.iv_len();
            let icv_len = transform_icv_len(cipher, integrity);
            let plain = [&octets("deadbeef a0b0c0d0")[..], &vec![0x55; start - 8 + 48 + icv_len]].concat();
            let mut sealed = plain.clone();
            transform.seal(&mut sealed, sequence).unwrap();
            let in_clear = matches!(cipher, EspCipher::Null | EspCipher::AesGmac { .. });
            assert_eq!(sealed[start..start + 48] == plain[start..start + 48], in_clear, "{cipher:?}");

            let mut opened = sealed.clone();
            assert_eq!(transform.open(&mut opened, sequence).map(|proof| proof.sequence()), Ok(sequence), "{cipher:?}");
            assert_eq!(opened[start..start + 48], plain[start..start + 48], "{cipher:?}");
            for place in 0..sealed.len() {
                let mut damaged = sealed.clone();
                damaged[place] ^= 0x10;
                assert_eq!(transform.open(&mut damaged, sequence), Err(DropReason::BadIcv), "{cipher:?} at {place}");
            }
            // The half that is not sent counts if numbers are extended, and only then.
            let other = transform.open(&mut sealed.clone(), sequence ^ 1 << 40);
            assert_eq!(other.is_err(), extended, "{cipher:?}");
        }
    }
}

#[test]
fn a_key_of_another_length_is_refused_for_every_cipher() {
    for (cipher, integrity) in ALL {
        let algorithms = EspAlgorithms { cipher, integrity, extended_sequence_numbers: false };
        let (key_len, mac_len) = (cipher.key_len() + cipher.salt_len(), integrity.key_len());
        for (key_len, mac_len) in [(key_len + 1, mac_len), (key_len, mac_len + 1)] {
            let (key, mac_key) = (Secret::new(vec![0; key_len]), Secret::new(vec![0; mac_len]));
            let made = Transform::new(algorithms, &key, &mac_key, &Secret::new([9; 16]));
            assert!(matches!(made, Err(TransformError::KeyLength { .. })), "{cipher:?}");
        }
    }
    let odd = EspAlgorithms {
        cipher: EspCipher::AesCcm16 { key_bits: 120 },
        integrity: EspIntegrity::None,
        extended_sequence_numbers: false,
    };
    let made = Transform::new(odd, &Secret::new(vec![0; 18]), &Secret::new(Vec::new()), &Secret::new([9; 16]));
    assert_eq!(made.unwrap_err(), TransformError::AesKeyLen(15));
}

/// RFC 4494 §4.3 and RFC 4493 §4: the message of no octets and of 16.
#[test]
fn the_vectors_of_rfc_4493_come_out_truncated() {
    let key = octets("2b7e151628aed2a6abf7158809cf4f3c");
    let mac = Mac::new(EspIntegrity::AesCmac96, &key).unwrap();
    for (message, tag) in [
        ("", "bb1d6929e95937287fa37d12"),
        ("6bc1bee22e409f96e93d7e117393172a", "070a16b46b4d4144f79bdd9d"),
        (
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411",
            "dfa66747de9ae63030ca3261",
        ),
    ] {
        let mut packet = [octets(message), vec![0; 12]].concat();
        mac.append(&mut packet, &[]).unwrap();
        assert_eq!(packet[packet.len() - 12..], octets(tag));
        assert_eq!(mac.verify(&packet, &[]), Ok(()));
    }
}

#[test]
fn packets_without_room_or_with_broken_blocks_are_refused() {
    for (cipher, integrity) in [
        (EspCipher::AesGcm16 { key_bits: 128 }, EspIntegrity::None),
        (EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha1_96),
        (EspCipher::Null, EspIntegrity::HmacSha2_512_256),
    ] {
        let key = vec![0; cipher.key_len() + cipher.salt_len()];
        let transform = transform(cipher, integrity, true, &key, &vec![0; integrity.key_len()]);
        for len in 0..8 + cipher.iv_len() + transform_icv_len(cipher, integrity) {
            assert!(transform.open(&mut vec![0; len], 1).is_err(), "{cipher:?} {len}");
            if cipher != EspCipher::Null {
                assert_eq!(transform.seal(&mut vec![0; len], 1), Err(DropReason::Crypto), "{cipher:?} {len}");
            }
        }
    }
    let cbc = transform(EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha1_96, true, &[0; 16], &[0; 20]);
    assert_eq!(cbc.seal(&mut [0; 8 + 16 + 15 + 12], 1), Err(DropReason::Crypto));
}

#[test]
fn debug_output_shows_no_key() {
    let gcm = transform(EspCipher::AesGcm16 { key_bits: 128 }, EspIntegrity::None, true, &[0xab; 20], &[]);
    let (cipher, integrity) = (EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha2_256_128);
    let cbc = transform(cipher, integrity, true, &[0xab; 16], &[0xab; 32]);
    for shown in [format!("{gcm:?}"), format!("{cbc:?}")] {
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
    }
}

/// SAs of different ciphers, by an engine or by the library.
fn mixed(engine: CryptoEngine) -> Vec<Transform> {
    let gcm = |key_bits, extended| {
        let key: Vec<u8> = (0..u8::try_from(key_bits / 8 + 4).unwrap()).collect();
        transform_by(engine, EspCipher::AesGcm16 { key_bits }, EspIntegrity::None, extended, &key, &[])
    };
    let chacha = transform_by(engine, EspCipher::ChaCha20Poly1305, EspIntegrity::None, true, &[3; 36], &[]);
    let (cipher, integrity) = (EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha2_256_128);
    let cbc = transform_by(engine, cipher, integrity, true, &[4; 16], &[5; 32]);
    vec![gcm(128, true), gcm(256, true), chacha, cbc, gcm(192, false)]
}

#[test]
fn a_batch_of_many_sas_comes_out_as_packet_by_packet() {
    const PACKETS: usize = 200;
    // Whole blocks for CBC, too.
    let len = |number: usize| 40 + number * 16 % 1296;
    let sa = |number: usize| (number * number / 3 % 6) as u32;
    let spans: Vec<Span> = (0..PACKETS)
        .scan(0, |end, number| {
            let offset = std::mem::replace(end, *end + len(number));
            Some(Span { offset, len: len(number) })
        })
        .collect();
    let sequence = |number: usize| ((number as u64) << 32) + 7 * number as u64 + 1;
    let plain: Vec<u8> = (0..spans.iter().map(|span| span.len).sum()).map(|at: usize| (at * 13) as u8).collect();
    let (library, fast) = (mixed(CryptoEngine::Library), mixed(CryptoEngine::Auto));
    let (mut expected, mut memory) = (plain.clone(), plain);
    let mut frames: Vec<OutboundFrame> = Vec::new();
    for (number, span) in spans.iter().enumerate() {
        // There is no sixth SA; and what is sealed already stays as it is.
        let is_sealed = number % 17 == 16;
        if let Some(transform) = library.get(sa(number) as usize).filter(|_| !is_sealed) {
            transform.seal(span.of_mut(&mut expected), sequence(number)).unwrap();
        }
        frames.push(OutboundFrame {
            sequence: sequence(number),
            outer: OuterHeader::default().into(),
            sa: sa(number),
            offset: span.offset as u32,
            len: span.len as u16,
            own_header: 0,
            is_whole: false,
            is_sealed,
        });
    }
    seal_batch(&mut frames, &mut memory, |sa| fast.get(sa as usize));
    assert!(memory == expected);
    for (number, frame) in frames.iter().enumerate() {
        assert_eq!(frame.is_sealed, number % 17 == 16 || sa(number) < 5, "{number}");
    }

    // One in eleven is broken, one in seven was not admitted.
    let mut frames: Vec<InboundFrame> = Vec::new();
    for (number, span) in spans.iter().enumerate() {
        if number % 11 == 10 {
            memory[span.offset + span.len - 1] ^= 1;
        }
        let stage = if number % 7 == 6 { Stage::Dropped } else { Stage::Admitted { sequence: sequence(number) } };
        frames.push(InboundFrame {
            span: (*span).into(),
            stage,
            sa: sa(number),
            origin: 0,
            header_len: 0,
            protocol: IpsecProtocol::Esp,
        });
    }
    open_batch(&mut frames, &mut memory, |sa| fast.get(sa as usize));
    for (number, frame) in frames.iter().enumerate() {
        let is_bad = number % 11 == 10 || number % 17 == 16;
        match &frame.stage {
            Stage::Dropped => assert_eq!(number % 7, 6),
            Stage::Admitted { .. } => assert_eq!(sa(number), 5),
            Stage::Refused(DropReason::BadIcv) => assert!(is_bad && number % 7 != 6, "{number}"),
            Stage::Opened(proof) => assert!(!is_bad && proof.sequence == sequence(number), "{number}"),
            other @ (Stage::Received | Stage::InClear { .. } | Stage::Refused(_) | Stage::Delivered(_)) => {
                panic!("{number}: {other:?}")
            }
        }
    }
}
