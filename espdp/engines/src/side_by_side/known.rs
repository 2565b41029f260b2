//! Known answers, computed before an engine is used.

use super::{Engine, ICV_LEN, Job, Suite};
use crate::gcm::Refused;

/// What a suite computes its known answer of.
pub(crate) trait KnownAnswer: Sized {
    /// Octets of SPI, sequence number and IV.
    const HEADER_LEN: usize;
    /// What [`answer`] must be, computed by a library.
    const ANSWER: [u8; ICV_LEN];

    /// Octets of payload of a known packet, which end at each place that makes a difference.
    fn payload_len(number: usize) -> usize;

    /// The keys of a known packet.
    fn known_key(engine: Engine<Self>, known: &Known) -> Option<Box<Self::Key>>
    where
        Self: Suite;
}

/// One packet, and what it is sealed with.
pub(crate) struct Known {
    /// Which one.
    pub(crate) number: usize,
    pub(crate) high: Option<u32>,
    /// What its IV follows from.
    pub(crate) unique: u64,
    pub(crate) packet: Vec<u8>,
}

/// Packets in a call: in some lanes and in all, in one group and in several.
const BATCHES: [usize; 5] = [1, 5, 16, 33, 60];

impl Known {
    fn new<S: KnownAnswer>(number: usize) -> Self {
        let len = S::HEADER_LEN + S::payload_len(number) + ICV_LEN;
        Self {
            number,
            high: number.is_multiple_of(2).then_some(0x0102_0304),
            unique: 0x1122_3344_5566_7788 + number as u64,
            packet: (0..len).map(|at| octet(number, at + 120)).collect(),
        }
    }

    /// Octets of its keys, from one of them on.
    pub(crate) fn octets<const LEN: usize>(&self, from: usize) -> [u8; LEN] {
        std::array::from_fn(|at| octet(self.number, at + from))
    }
}

fn octet(number: usize, at: usize) -> u8 {
    (at ^ (at >> 8)).wrapping_mul(number + 3) as u8
}

impl<S: Suite> Engine<S> {
    /// Whether the engine seals packets of all kinds as it must, opens what it sealed, and refuses what has a wrong bit.
    pub(super) fn knows_answers(self) -> bool {
        answer::<S>(|known| self.seal_known(known)) == Some(S::ANSWER)
    }

    /// `None` when it does not open what it sealed, or opens what it should not.
    fn seal_known(self, known: &[Known]) -> Option<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        for known in known {
            keys.push(S::known_key(self, known)?);
        }
        let (mut memory, mut spans) = (Vec::new(), Vec::new());
        for Known { packet, .. } in known {
            spans.push(memory.len()..memory.len() + packet.len());
            memory.extend(packet);
        }
        let plain = memory.clone();
        let jobs = || {
            let all = known.iter().zip(&keys).zip(&spans);
            all.map(|((known, key), span)| (Job { key: &**key, span: span.clone(), high: known.high }, known.unique))
        };
        let mut sealed_well = true;
        let sealing = jobs().map(|(job, unique)| (job, unique, ()));
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
            let payload = span.start + S::HEADER_LEN..span.end - ICV_LEN;
            opened_well &= at.is_multiple_of(3) || memory[payload.clone()] == plain[payload];
        }
        (sealed_well && opened_well).then_some(sealed)
    }
}

/// All ICVs of known packets, added up in a way that keeps their order. They depend on all else in the packets.
fn answer<S: KnownAnswer>(mut seal: impl FnMut(&[Known]) -> Option<Vec<Vec<u8>>>) -> Option<[u8; ICV_LEN]> {
    let (mut sum, mut number) = ([0; ICV_LEN], 0);
    for count in BATCHES {
        let known: Vec<Known> = (number..number + count).map(Known::new::<S>).collect();
        number += count;
        for packet in seal(&known)? {
            let icv: &[u8; ICV_LEN] = packet.last_chunk()?;
            sum.rotate_left(1);
            sum.iter_mut().zip(icv).for_each(|(sum, icv)| *sum ^= icv);
        }
    }
    Some(sum)
}

/// Wants the known answer of `S` to be the one that comes of a library, and another one if a single octet is wrong.
#[cfg(test)]
pub(crate) fn expect_answer_of_library<S: KnownAnswer>(seal: impl Fn(&Known) -> Vec<u8>) {
    let right = |known: &[Known]| Some(known.iter().map(&seal).collect());
    assert_eq!(answer::<S>(right), Some(S::ANSWER));
    let wrong = |known: &[Known]| {
        let mut sealed: Vec<_> = known.iter().map(&seal).collect();
        if known.len() == 33 {
            *sealed[32].last_mut()? ^= 1;
        }
        Some(sealed)
    };
    assert_ne!(answer::<S>(wrong), Some(S::ANSWER));
}
