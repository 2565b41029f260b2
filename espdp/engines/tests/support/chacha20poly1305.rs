//! Compares the engine for ChaCha20-Poly1305 with two libraries, batch by batch.

#![expect(clippy::unwrap_used, reason = "a comparison whose setting fails has nothing to compare")]

use std::ops::Range;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use esp_engines::chacha20poly1305::{Engine, Job, Key, Refused};

use super::random::Random;

/// The keys of an SA, as they are and as the engine takes them.
struct Sa {
    bare: [u8; 32],
    salt: [u8; 4],
    extended: bool,
    key: Box<Key>,
}

impl Sa {
    fn new(engine: Engine, random: &mut Random) -> Self {
        let bare = random.octets(32).try_into().unwrap();
        let salt = random.octets(4).try_into().unwrap();
        Self { bare, salt, extended: random.below(2) == 0, key: engine.key(&bare, salt) }
    }

    /// What the engine has to make of a packet.
    fn seal(&self, packet: &mut [u8], iv: u64) {
        packet[8..16].copy_from_slice(&iv.to_be_bytes());
        let (header, rest) = packet.split_at_mut(16);
        let (payload, icv) = rest.split_last_chunk_mut::<16>().unwrap();
        let high = self.high(iv).map(u32::to_be_bytes);
        let covered = [&header[..4], high.as_slice().as_flattened(), &header[4..8]].concat();
        let nonce: [u8; 12] = [&self.salt, &header[8..]].concat().try_into().unwrap();
        let mut other = payload.to_vec();
        let cipher = ChaCha20Poly1305::new(&self.bare.into());
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &covered, payload.into()).unwrap();
        icv.copy_from_slice(&tag);
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.bare).unwrap());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(covered), &mut other).unwrap();
        assert!(other == payload && tag.as_ref() == icv, "the libraries agree");
    }

    fn high(&self, sequence: u64) -> Option<u32> {
        self.extended.then_some((sequence >> 32) as u32)
    }
}

/// Seals and opens `cases` packets or some more, in batches of all sizes, of many SAs, at all alignments and distances, and with
/// some ICVs made wrong. Nothing but the packets may change.
pub(crate) fn compare(engine: Engine, seed: u64, cases: usize, octets: Range<usize>) {
    let mut random = Random(seed);
    let mut done = 0;
    while done < cases {
        let sas: Vec<Sa> = (0..1 + random.below(9)).map(|_| Sa::new(engine, &mut random)).collect();
        let most = if random.below(8) == 0 { 300 } else { 40 };
        let count = 1 + random.below(most);
        compare_batch(engine, &mut random, &sas, count, &octets);
        done += count;
    }
}

fn compare_batch(engine: Engine, random: &mut Random, sas: &[Sa], count: usize, octets: &Range<usize>) {
    // Now and then all packets but a few have one length, as it is with a stream.
    let usual = (random.below(2) == 0).then(|| random.below(octets.len()));
    let (mut packets, mut end) = (Vec::new(), random.below(65));
    for _ in 0..count {
        let len = match usual {
            Some(len) if random.below(16) != 0 => len,
            _ => random.below(octets.len()),
        };
        let span = end..end + 32 + octets.start + len;
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
        expected[span.start + 8..span.start + 16].copy_from_slice(&memory[span.start + 8..span.start + 16]);
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
