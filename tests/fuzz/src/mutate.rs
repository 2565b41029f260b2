//! Making new inputs of old ones, the same ones for the same seed.

use sim::Rng;

/// The longest input that is made. Longer ones take more time than they find.
const LONGEST: usize = 4096;

/// An endless sequence of inputs.
pub struct Mutator {
    rng: Rng,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    /// Inputs that are made of `corpus`.
    #[must_use]
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self { rng: Rng::new(seed), corpus }
    }

    /// The next input: one of the corpus, changed in one to eight places.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.pick();
        for _ in 0..=self.rng.below(8) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn pick(&mut self) -> Vec<u8> {
        let index = self.index(self.corpus.len());
        self.corpus.get(index).cloned().unwrap_or_default()
    }

    /// A place in something of this length; 0 if it is empty.
    fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.rng.below(length.max(1))).unwrap_or_default()
    }

    fn octet(&mut self) -> u8 {
        u8::try_from(self.rng.below(256)).unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.index(input.len());
        let end = (at + 1 + self.index(16)).min(input.len());
        match self.rng.below(9) {
            0 => input.get_mut(at).into_iter().for_each(|octet| *octet ^= 1 << self.rng.below(8)),
            1 => {
                let octet = self.octet();
                input.get_mut(at).into_iter().for_each(|place| *place = octet);
            }
            2 => self.put_interesting(input, at),
            3 => {
                let delta = self.octet() % 16;
                let up = self.rng.chance(50);
                input.get_mut(at).into_iter().for_each(|octet| {
                    *octet = if up { octet.wrapping_add(delta) } else { octet.wrapping_sub(delta) };
                });
            }
            4 => drop(input.drain(at.min(end)..end)),
            5 => {
                let part = input.get(at..end).unwrap_or_default().to_vec();
                input.splice(at..at, part);
            }
            6 => {
                let octets: Vec<u8> = (0..=self.rng.below(8)).map(|_| self.octet()).collect();
                input.splice(at..at, octets);
            }
            7 => {
                // The end of another one: what belongs to two of them meets.
                let other = self.pick();
                let from = self.index(other.len());
                input.truncate(at);
                input.extend(other.get(from..).unwrap_or_default());
            }
            _ => input.truncate(at),
        }
    }

    /// Numbers at which lengths and counts go wrong, one to four octets wide.
    fn put_interesting(&mut self, input: &mut [u8], at: usize) {
        const NUMBERS: [u32; 12] = [0, 1, 3, 4, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];
        let number = NUMBERS.get(self.index(NUMBERS.len())).copied().unwrap_or_default().to_be_bytes();
        let width = [1, 2, 4].get(self.index(3)).copied().unwrap_or(4);
        let octets = number.get(4 - width..).unwrap_or_default();
        input.iter_mut().skip(at).zip(octets).for_each(|(place, octet)| *place = *octet);
    }
}
