//! Known answers, computed before an engine is used.

use super::{Engine, HEADER_LEN, ICV_LEN, Job, Refused};

/// What [`answer`] must be, computed by libraries.
const ANSWER: [u8; ICV_LEN] = 0x027b_7987_a93d_b021_31ca_887a_a27c_2faf_u128.to_be_bytes();
/// Packets in a call: in some lanes and in all, in one group and in several.
const BATCHES: [usize; 5] = [1, 5, 16, 33, 60];

/// One packet, and what it is sealed with.
struct Known {
    encryption: Vec<u8>,
    integrity: [u8; 32],
    iv_key: [u8; 16],
    high: Option<u32>,
    sequence: u64,
    packet: Vec<u8>,
}

impl Known {
    /// Packets with payloads of up to 40 blocks, so that hashes end at each place in a block, and decryption takes all its ways.
    fn new(number: usize) -> Self {
        let octet = |at: usize| (at ^ (at >> 8)).wrapping_mul(number + 3) as u8;
        let payload = 16 * (number * 7 % 41);
        Self {
            encryption: (0..[16, 24, 32][number % 3]).map(octet).collect(),
            integrity: std::array::from_fn(|at| octet(at + 40)),
            iv_key: std::array::from_fn(|at| octet(at + 80)),
            high: number.is_multiple_of(2).then_some(0x0102_0304),
            sequence: 0x1122_3344_5566_7788 + number as u64,
            packet: (0..HEADER_LEN + payload + ICV_LEN).map(|at| octet(at + 120)).collect(),
        }
    }
}

impl Engine {
    /// Whether the engine seals packets of all kinds as it must, opens what it sealed, and refuses what has a wrong bit.
    pub(super) fn knows_answers(self) -> bool {
        answer(|known| self.seal_known(known)) == Some(ANSWER)
    }

    /// `None` when it does not open what it sealed, or opens what it should not.
    fn seal_known(self, known: &[Known]) -> Option<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        for Known { encryption, integrity, iv_key, .. } in known {
            keys.push(self.key(encryption, integrity, iv_key)?);
        }
        let (mut memory, mut spans) = (Vec::new(), Vec::new());
        for Known { packet, .. } in known {
            spans.push(memory.len()..memory.len() + packet.len());
            memory.extend(packet);
        }
        let plain = memory.clone();
        let jobs = || {
            let all = known.iter().zip(&keys).zip(&spans);
            all.map(|((known, key), span)| (Job { key, span: span.clone(), high: known.high }, known.sequence))
        };
        let mut sealed_well = true;
        let sealing = jobs().map(|(job, sequence)| (job, sequence, ()));
        self.seal(&mut memory, sealing, |(), result| sealed_well &= result.is_ok());
        let sealed = spans.iter().map(|span| memory[span.clone()].to_vec()).collect();
        // Every third one has a wrong bit.
        for span in spans.iter().step_by(3) {
            memory[span.end - 1] ^= 0x80;
        }
        let opening = jobs().enumerate().map(|(at, (job, _))| (job, at));
        let mut opened_well = true;
        self.open(&mut memory, opening, |at, result| {
            opened_well &= result == if at.is_multiple_of(3) { Err(Refused::Icv) } else { Ok(()) };
        });
        for (at, span) in spans.iter().enumerate() {
            let payload = span.start + HEADER_LEN..span.end - ICV_LEN;
            opened_well &= at.is_multiple_of(3) || memory[payload.clone()] == plain[payload];
        }
        (sealed_well && opened_well).then_some(sealed)
    }
}

/// All ICVs of known packets, added up in a way that keeps their order. They depend on all else in the packets.
fn answer(mut seal: impl FnMut(&[Known]) -> Option<Vec<Vec<u8>>>) -> Option<[u8; ICV_LEN]> {
    let (mut sum, mut number) = ([0; ICV_LEN], 0);
    for count in BATCHES {
        let known: Vec<Known> = (number..number + count).map(Known::new).collect();
        number += count;
        for packet in seal(&known)? {
            let icv: &[u8; ICV_LEN] = packet.last_chunk()?;
            sum.rotate_left(1);
            sum.iter_mut().zip(icv).for_each(|(sum, icv)| *sum ^= icv);
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use aes::cipher::{BlockCipherEncrypt, BlockModeEncrypt, KeyInit, KeyIvInit};

    use super::*;

    fn seal_by_libraries(known: &[Known]) -> Option<Vec<Vec<u8>>> {
        let seal = |known: &Known| {
            let mut packet = known.packet.clone();
            let (covered, icv) = packet.split_last_chunk_mut::<ICV_LEN>().unwrap();
            let mut iv = u128::from(known.sequence).to_be_bytes().into();
            aes::Aes128::new(&known.iv_key.into()).encrypt_block(&mut iv);
            covered[8..HEADER_LEN].copy_from_slice(&iv);
            let blocks = aes::Block::cast_slice_from_core_mut(covered[HEADER_LEN..].as_chunks_mut().0);
            let key = &known.encryption[..];
            match key.len() {
                16 => cbc::Encryptor::<aes::Aes128>::new_from_slices(key, &iv).unwrap().encrypt_blocks(blocks),
                24 => cbc::Encryptor::<aes::Aes192>::new_from_slices(key, &iv).unwrap().encrypt_blocks(blocks),
                _ => cbc::Encryptor::<aes::Aes256>::new_from_slices(key, &iv).unwrap().encrypt_blocks(blocks),
            }
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &known.integrity);
            let high = known.high.map(u32::to_be_bytes);
            let mac = aws_lc_rs::hmac::sign(&key, &[covered, high.as_slice().as_flattened()].concat());
            icv.copy_from_slice(&mac.as_ref()[..ICV_LEN]);
            packet
        };
        Some(known.iter().map(seal).collect())
    }

    #[test]
    fn the_known_answer_is_that_of_libraries() {
        assert_eq!(answer(seal_by_libraries), Some(ANSWER));
    }

    #[test]
    fn a_wrong_answer_is_noticed() {
        let wrong = |known: &[Known]| {
            let mut sealed = seal_by_libraries(known)?;
            // One wrong octet in one packet of all.
            if known.len() == 33 {
                *sealed[32].last_mut()? ^= 1;
            }
            Some(sealed)
        };
        assert_ne!(answer(wrong), Some(ANSWER));
    }
}
