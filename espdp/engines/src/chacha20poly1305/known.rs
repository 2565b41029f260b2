//! Known answers, computed before an engine is used.

use super::{Engine, HEADER_LEN, ICV_LEN, Job, Refused};

/// What [`answer`] must be, computed by a library.
const ANSWER: [u8; ICV_LEN] = 0x74a7_443a_2045_416e_5508_2442_b12a_6a09_u128.to_be_bytes();
/// Packets in a call: in some lanes and in all, in one group and in several.
const BATCHES: [usize; 5] = [1, 5, 16, 33, 60];

/// One packet, and what it is sealed with.
struct Known {
    key: [u8; 32],
    salt: [u8; 4],
    high: Option<u32>,
    iv: u64,
    packet: Vec<u8>,
}

impl Known {
    /// Packets with payloads of up to 700 octets, which end at each place in a block and in a group of blocks.
    fn new(number: usize) -> Self {
        let octet = |at: usize| (at ^ (at >> 8)).wrapping_mul(number + 3) as u8;
        let payload = number * 37 % 701;
        Self {
            key: std::array::from_fn(octet),
            salt: std::array::from_fn(|at| octet(at + 40)),
            high: number.is_multiple_of(2).then_some(0x0102_0304),
            iv: 0x1122_3344_5566_7788 + number as u64,
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
        let keys: Vec<_> = known.iter().map(|Known { key, salt, .. }| self.key(key, *salt)).collect();
        let (mut memory, mut spans) = (Vec::new(), Vec::new());
        for Known { packet, .. } in known {
            spans.push(memory.len()..memory.len() + packet.len());
            memory.extend(packet);
        }
        let plain = memory.clone();
        let jobs = || {
            let all = known.iter().zip(&keys).zip(&spans);
            all.map(|((known, key), span)| (Job { key, span: span.clone(), high: known.high }, known.iv))
        };
        let mut sealed_well = true;
        let sealing = jobs().map(|(job, iv)| (job, iv, ()));
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
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::*;

    fn seal_by_library(known: &[Known]) -> Option<Vec<Vec<u8>>> {
        let seal = |known: &Known| {
            let mut packet = known.packet.clone();
            packet[8..HEADER_LEN].copy_from_slice(&known.iv.to_be_bytes());
            let (header, rest) = packet.split_at_mut(HEADER_LEN);
            let (payload, icv) = rest.split_last_chunk_mut::<ICV_LEN>()?;
            let high = known.high.map(u32::to_be_bytes);
            let covered = [&header[..4], high.as_slice().as_flattened(), &header[4..8]].concat();
            let nonce = Nonce::assume_unique_for_key([&known.salt, &header[8..]].concat().try_into().ok()?);
            let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &known.key).ok()?);
            key.seal_in_place_scatter(nonce, Aad::from(covered), payload, &[], icv).ok()?;
            Some(packet)
        };
        known.iter().map(seal).collect()
    }

    #[test]
    fn the_known_answer_is_that_of_a_library() {
        assert_eq!(answer(seal_by_library), Some(ANSWER));
    }

    #[test]
    fn a_wrong_answer_is_noticed() {
        let wrong = |known: &[Known]| {
            let mut sealed = seal_by_library(known)?;
            // One wrong octet in one packet of all.
            if known.len() == 33 {
                *sealed[32].last_mut()? ^= 1;
            }
            Some(sealed)
        };
        assert_ne!(answer(wrong), Some(ANSWER));
    }
}
