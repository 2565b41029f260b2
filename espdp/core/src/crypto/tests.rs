//! Published packets, and the order in which things are covered.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use espdp_api::EspIntegrity;

use super::*;

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn transform(cipher: EspCipher, integrity: EspIntegrity, extended: bool, key: &[u8], mac_key: &[u8]) -> Transform {
    let algorithms = EspAlgorithms { cipher, integrity, extended_sequence_numbers: extended };
    let (key, mac_key) = (Secret::new(key.to_vec()), Secret::new(mac_key.to_vec()));
    Transform::new(algorithms, &key, &mac_key, &Secret::new([9; 16])).unwrap()
}

/// A published tunnel-mode packet without extended sequence numbers.
struct Vector {
    name: &'static str,
    cipher: EspCipher,
    integrity: EspIntegrity,
    /// With the salt, where there is one.
    key: &'static str,
    mac_key: &'static str,
    /// The inner packet, without padding.
    inner: &'static str,
    /// From the SPI on.
    packet: &'static str,
}

const VECTORS: [Vector; 5] = [
    Vector {
        name: "RFC 7634 appendix A",
        cipher: EspCipher::ChaCha20Poly1305,
        integrity: EspIntegrity::None,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3",
        mac_key: "",
        inner: "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
                0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
                2425262728292a2b2c2d2e2f3031323334353637",
        packet: "0102030400000005 1011121314151617
                 24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
                 14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
                 cbec163fac469b502773f6fb94e664da9165b82829f641e0
                 76aaa8266b7fb0f7b11b369907e1ad43",
    },
    Vector {
        name: "AES-128-GCM, after draft-mcgrew-gcm-test",
        cipher: EspCipher::AesGcm16 { key_bits: 128 },
        integrity: EspIntegrity::None,
        key: "feffe9928665731c6d6a8f9467308308 cafebabe",
        mac_key: "",
        inner: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100
                00010000000000000373697009637962657263697479 02646b0000010001",
        packet: "0000a5f800000001 facedbaddecaf888
                 deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c
                 3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd4
                 29c737579ff19e58cffc607a3bce8994",
    },
    Vector {
        name: "AES-192-GCM, after draft-mcgrew-gcm-test",
        cipher: EspCipher::AesGcm16 { key_bits: 192 },
        integrity: EspIntegrity::None,
        key: "feffe9928665731c6d6a8f9467308308feffe9928665731c cafebabe",
        mac_key: "",
        inner: "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075670001",
        packet: "0000a5f800000001 facedbaddecaf888
                 a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0
                 315b2745214bcc7782ac9138f2bbbee4cf033689dd40d36e54052222",
    },
    Vector {
        name: "AES-256-GCM, after draft-mcgrew-gcm-test",
        cipher: EspCipher::AesGcm16 { key_bits: 256 },
        integrity: EspIntegrity::None,
        key: "abbccddef0011223344556677 8899aababbccddef00112233445566778899aab 11223344",
        mac_key: "",
        inner: "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee000000000
                7002400020bf0000020405b401010402",
        packet: "4a2cbfe300000001 0102030405060708
                 ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763
                 748a637985771d347f0545659f14e99def842d8b00144a1fec6adf0c9a927fee
                 a6c51160",
    },
    Vector {
        name: "AES-128-CBC with HMAC-SHA2-256-128, as DPDK tests it",
        cipher: EspCipher::AesCbc { key_bits: 128 },
        integrity: EspIntegrity::HmacSha2_256_128,
        key: "00040501230000000000 0a0b0c0f0000",
        mac_key: "de3456000000780000100000000000021030400001020304 0a0b0c0d05060708",
        inner: "45000032000100001f11178bc0a8016fc0a8017000090009001e0000be9be955
                00000021000000000000000000000000 0000",
        packet: "0000003400000001 34126745ffff000020bfe83900000000
                 67b5466e7817d35aac626262b0579b09194f0659c8b030651f455741721728e9
                 ad50be441d2d9ad048750d1c8d24a86f6b24b65d431e55f0f7141ff261d4e030
                 16be1b5cccb7661c47ad076cd5cbce6c",
    },
];

#[test]
fn published_packets_are_opened() {
    // R4106-8.1-1
    for Vector { name, cipher, integrity, key, mac_key, inner, packet } in VECTORS {
        let transform = transform(cipher, integrity, false, &octets(key), &octets(mac_key));
        let (mut packet, inner) = (octets(packet), octets(inner));
        let sequence = u64::from(packet[7]);
        let proof = transform.open(&mut packet, sequence).unwrap_or_else(|reason| panic!("{name}: {reason:?}"));
        assert_eq!(proof.sequence(), sequence);
        let start = ESP_HEADER_LEN + cipher.iv_len();
        assert_eq!(packet[start..start + inner.len()], inner, "{name}");
        let end = packet.len() - transform_icv_len(cipher, integrity);
        assert_eq!(packet[end - 1], 4, "{name}: next header");
        assert_eq!(usize::from(packet[end - 2]), end - 2 - start - inner.len(), "{name}: pad length");
    }
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
