//! Compares the engine for AES-CBC and HMAC-SHA2-256 with two libraries, batch by batch.

#![expect(clippy::unwrap_used, reason = "a comparison whose setting fails has nothing to compare")]

use std::ops::Range;

use aes::cipher::{BlockCipherEncrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use aws_lc_rs::cipher::{EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use esp_engines::cbc_hmac::{Engine, Job, Key, Refused};

use super::random::Random;

/// The keys of an SA, as they are and as the engine takes them.
struct Sa {
    encryption: Vec<u8>,
    integrity: [u8; 32],
    iv_key: [u8; 16],
    extended: bool,
    key: Box<Key>,
}

impl Sa {
    fn new(engine: Engine, random: &mut Random) -> Self {
        let encryption_len = [16, 24, 32][random.below(3)];
        let encryption = random.octets(encryption_len);
        let integrity = random.octets(32).try_into().unwrap();
        let iv_key = random.octets(16).try_into().unwrap();
        let key = engine.key(&encryption, &integrity, &iv_key).unwrap();
        Self { encryption, integrity, iv_key, extended: random.below(2) == 0, key }
    }

    /// What the engine has to make of a packet.
    fn seal(&self, packet: &mut [u8], sequence: u64) {
        let mut iv = u128::from(sequence).to_be_bytes().into();
        aes::Aes128::new(&self.iv_key.into()).encrypt_block(&mut iv);
        let (covered, icv) = packet.split_last_chunk_mut::<16>().unwrap();
        covered[8..24].copy_from_slice(&iv);
        let plain = covered[24..].to_vec();
        self.encrypt(&iv.into(), &mut covered[24..]);
        assert_eq!(self.encrypted_by_the_other(iv.into(), plain), covered[24..], "the libraries agree");
        let high = self.high(sequence).map(u32::to_be_bytes);
        let high = high.as_slice().as_flattened();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.integrity).unwrap();
        hmac::Mac::update(&mut mac, covered);
        hmac::Mac::update(&mut mac, high);
        icv.copy_from_slice(&hmac::Mac::finalize(mac).into_bytes()[..16]);
        let other = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.integrity);
        let other = aws_lc_rs::hmac::sign(&other, &[covered, high].concat());
        assert_eq!(other.as_ref()[..16], icv[..], "the libraries agree");
    }

    fn encrypt(&self, iv: &[u8; 16], blocks: &mut [u8]) {
        let blocks = aes::Block::cast_slice_from_core_mut(blocks.as_chunks_mut().0);
        let (key, iv) = (&self.encryption[..], &iv[..]);
        match key.len() {
            16 => cbc::Encryptor::<aes::Aes128>::new_from_slices(key, iv).unwrap().encrypt_blocks(blocks),
            24 => cbc::Encryptor::<aes::Aes192>::new_from_slices(key, iv).unwrap().encrypt_blocks(blocks),
            _ => cbc::Encryptor::<aes::Aes256>::new_from_slices(key, iv).unwrap().encrypt_blocks(blocks),
        }
    }

    /// The same by aws-lc, which pads always: its last block is one too many.
    fn encrypted_by_the_other(&self, iv: [u8; 16], plain: Vec<u8>) -> Vec<u8> {
        use aws_lc_rs::cipher::{AES_128, AES_192, AES_256};
        let algorithm = match self.encryption.len() {
            16 => &AES_128,
            24 => &AES_192,
            _ => &AES_256,
        };
        let (len, mut octets) = (plain.len(), plain);
        let key = UnboundCipherKey::new(algorithm, &self.encryption).unwrap();
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).unwrap();
        key.less_safe_encrypt(&mut octets, EncryptionContext::Iv128(iv.into())).unwrap();
        octets.truncate(len);
        octets
    }

    fn high(&self, sequence: u64) -> Option<u32> {
        self.extended.then_some((sequence >> 32) as u32)
    }
}

/// Seals and opens `cases` packets or some more, in batches of all sizes, of many SAs, at all alignments and distances, and with
/// some ICVs made wrong. Nothing but the packets may change.
pub(crate) fn compare(engine: Engine, seed: u64, cases: usize, blocks: Range<usize>) {
    let mut random = Random(seed);
    let mut done = 0;
    while done < cases {
        let sas: Vec<Sa> = (0..1 + random.below(9)).map(|_| Sa::new(engine, &mut random)).collect();
        let most = if random.below(8) == 0 { 300 } else { 40 };
        let count = 1 + random.below(most);
        compare_batch(engine, &mut random, &sas, count, &blocks);
        done += count;
    }
}

fn compare_batch(engine: Engine, random: &mut Random, sas: &[Sa], count: usize, blocks: &Range<usize>) {
    // Now and then all packets but a few have one length, as it is with a stream.
    let usual = (random.below(2) == 0).then(|| random.below(blocks.len()));
    let (mut packets, mut end) = (Vec::new(), random.below(65));
    for _ in 0..count {
        let len = match usual {
            Some(len) if random.below(16) != 0 => len,
            _ => random.below(blocks.len()),
        };
        let span = end..end + 40 + 16 * (blocks.start + len);
        end = span.end + [0, random.below(65)][random.below(2)];
        packets.push((&sas[random.below(sas.len())], span, random.next()));
    }
    end += random.below(65);
    let plain = random.octets(end);
    let mut expected = plain.clone();
    for (sa, span, sequence) in &packets {
        sa.seal(&mut expected[span.clone()], *sequence);
    }
    for at in (1..packets.len()).rev() {
        packets.swap(at, random.below(at + 1));
    }
    let job = |(sa, span, sequence): &(&'_ Sa, Range<usize>, u64)| (span.clone(), sa.high(*sequence));
    let jobs = packets.iter().enumerate().map(|(at, packet)| {
        let (span, high) = job(packet);
        (Job { key: &packet.0.key, span, high }, packet.2, at)
    });
    let mut memory = plain.clone();
    let mut sealed = vec![0; count];
    engine.seal(&mut memory, jobs, |at, result| {
        assert_eq!(result, Ok(()));
        sealed[at] += 1;
    });
    assert_eq!(sealed, vec![1; count], "each packet is heard of once");
    assert!(memory == expected, "sealed as the libraries do");

    let mut expected = plain;
    let mut results = vec![Ok(()); count];
    for (at, (_, span, _)) in packets.iter().enumerate() {
        expected[span.start + 8..span.start + 24].copy_from_slice(&memory[span.start + 8..span.start + 24]);
        expected[span.end - 16..span.end].copy_from_slice(&memory[span.end - 16..span.end]);
        if random.below(10) == 0 {
            memory[span.start + random.below(span.len())] ^= 1 << random.below(8);
            expected[span.clone()].copy_from_slice(&memory[span.clone()]);
            results[at] = Err(Refused::Icv);
        }
    }
    let jobs = packets.iter().enumerate().map(|(at, packet)| {
        let (span, high) = job(packet);
        (Job { key: &packet.0.key, span, high }, at)
    });
    let mut opened = vec![None; count];
    engine.open(&mut memory, jobs, |at, result| assert_eq!(opened[at].replace(result), None));
    assert_eq!(opened, results.into_iter().map(Some).collect::<Vec<_>>());
    assert!(memory == expected, "opened are those that are authentic, and only those change");
}
