//! Known answers, computed before an engine is used.

use super::{Engine, HEADER_LEN, ICV_LEN, Job, Key, Refused};

/// Octets of payload: each number of vectors with each number of blocks in the last one, around the ends of groups, and where the
/// counter takes a second octet.
const PAYLOADS: [usize; 24] = [
    0, 1, 16, 33, 47, 48, 68, 100, 160, 200, 255, 333, 400, 466, 495, 496, 497, 560, 1008, 1404, 2031, 4079, 4096, 9000,
];
/// What [`answer`] must be, computed by a library.
const ANSWER: [u8; ICV_LEN] = 0x5120_fcf2_547b_fba5_e891_f702_eb6b_375f_u128.to_be_bytes();

impl Engine {
    /// Whether the engine seals packets of all kinds as it must, opens what it sealed, and refuses what has a wrong bit.
    pub(super) fn knows_answers(self) -> bool {
        answer(|key, high, iv, packet| self.seal_known(key, high, iv, packet)) == Some(ANSWER)
    }

    /// `None` when it does not open what it sealed, or opens what it should not.
    fn seal_known(self, key: &[u8], high: Option<u32>, iv: u64, packet: &mut [u8]) -> Option<()> {
        let key: &Key = &*self.key(key, SALT)?;
        let job = || Job { key, span: 0..packet.len(), high };
        let (plain, mut results) = (packet.to_vec(), Vec::new());
        let (first, again, broken) = (job(), job(), job());
        self.seal(packet, [(first, iv, ())].into_iter(), |(), result| results.push(result));
        let (mut opened, mut wrong) = (packet.to_vec(), packet.to_vec());
        self.open(&mut opened, [(again, ())].into_iter(), |(), result| results.push(result));
        *wrong.last_mut()? ^= 0x80;
        self.open(&mut wrong, [(broken, ())].into_iter(), |(), result| results.push(result));
        let end = packet.len() - ICV_LEN;
        let is_right =
            results == [Ok(()), Ok(()), Err(Refused::Icv)] && opened[HEADER_LEN..end] == plain[HEADER_LEN..end];
        is_right.then_some(())
    }
}

/// The salt of all known packets.
const SALT: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];

/// All ICVs of the known packets, added up in a way that keeps their order: each packet's payload begins with the sum so far.
fn answer(mut seal: impl FnMut(&[u8], Option<u32>, u64, &mut [u8]) -> Option<()>) -> Option<[u8; ICV_LEN]> {
    let mut sum = [0; ICV_LEN];
    for (number, payload) in PAYLOADS.iter().enumerate() {
        for key_len in [16, 24, 32] {
            for high in [None, Some(0x0102_0304)] {
                let mut packet: Vec<u8> = (0..HEADER_LEN + payload + ICV_LEN).map(|at| (at ^ number) as u8).collect();
                packet.iter_mut().skip(HEADER_LEN).zip(sum).for_each(|(octet, sum)| *octet = sum);
                let key: Vec<u8> = (0..key_len).map(|at| (at * 7 + number) as u8).collect();
                seal(&key, high, 0x1122_3344_5566_7788 + number as u64, &mut packet)?;
                let icv: &[u8; ICV_LEN] = packet.last_chunk()?;
                sum.rotate_left(1);
                sum.iter_mut().zip(icv).for_each(|(sum, icv)| *sum ^= icv);
            }
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::*;

    fn seal_by_library(key: &[u8], high: Option<u32>, iv: u64, packet: &mut [u8]) -> Option<()> {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            _ => &AES_256_GCM,
        };
        packet[8..HEADER_LEN].copy_from_slice(&iv.to_be_bytes());
        let (header, rest) = packet.split_at_mut(HEADER_LEN);
        let (payload, icv) = rest.split_last_chunk_mut::<ICV_LEN>()?;
        let covered = [&header[..4], high.map(u32::to_be_bytes).as_slice().as_flattened(), &header[4..8]].concat();
        let nonce = Nonce::assume_unique_for_key([&SALT[..], &header[8..]].concat().try_into().unwrap());
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
        key.seal_in_place_scatter(nonce, Aad::from(covered), payload, &[], icv).ok()
    }

    #[test]
    fn the_known_answer_is_that_of_a_library() {
        assert_eq!(answer(seal_by_library), Some(ANSWER));
    }

    #[test]
    fn a_wrong_answer_is_noticed() {
        let wrong = |key: &[u8], high, iv, packet: &mut [u8]| {
            seal_by_library(key, high, iv, packet)?;
            // One wrong octet in one packet of all.
            if packet.len() == HEADER_LEN + 466 + ICV_LEN && key.len() == 24 {
                *packet.last_mut()? ^= 1;
            }
            Some(())
        };
        assert_ne!(answer(wrong), Some(ANSWER));
    }
}
