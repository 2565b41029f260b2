//! What tests of the engine need, here and in other crates (feature `testing`).

use std::collections::BTreeMap;
use std::fmt;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::random::SecureRandom;

/// Randomness that is the same for the same seed. For tests only: whoever knows the seed knows all keys.
pub struct SeededRandom {
    public: ChaCha20Rng,
    secret: ChaCha20Rng,
}

impl SeededRandom {
    /// Two streams, public and secret, that follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let public = ChaCha20Rng::seed_from_u64(seed);
        let mut secret = public.clone();
        secret.set_stream(1);
        Self { public, secret }
    }
}

impl SecureRandom for SeededRandom {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        self.public.fill_bytes(buffer);
    }

    fn fill_secret(&mut self, buffer: &mut [u8]) {
        self.secret.fill_bytes(buffer);
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeededRandom").finish_non_exhaustive()
    }
}

/// One case of a file of test vectors: what its fields are called and what they hold.
#[derive(Clone, Debug)]
pub struct Vector<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Vector<'a> {
    /// The cases of a file: `name = value` in each line, an empty line between cases, `#` before remarks.
    #[must_use]
    pub fn parse(file: &'a str) -> Vec<Self> {
        let mut cases = vec![BTreeMap::new()];
        for line in file.lines().map(str::trim) {
            if line.is_empty() {
                cases.push(BTreeMap::new());
            } else if let (false, Some((name, value)), Some(case)) =
                (line.starts_with('#'), line.split_once('='), cases.last_mut())
            {
                case.insert(name.trim(), value.trim());
            }
        }
        cases.into_iter().filter(|case| !case.is_empty()).map(Self).collect()
    }

    /// The text of a field, if the case has it.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    /// The octets of a field that is written in hexadecimal.
    ///
    /// # Panics
    ///
    /// If the case has no such field or it is something else.
    #[must_use]
    pub fn octets(&self, name: &str) -> Vec<u8> {
        octets(self.text(name).unwrap_or_else(|| panic!("no field {name} in {self:?}")))
    }
}

/// The octets that are written in hexadecimal; white space is left out.
///
/// # Panics
///
/// If it is not hexadecimal, or half an octet is left over.
#[must_use]
pub fn octets(hexadecimal: &str) -> Vec<u8> {
    let digit = |digit: char| digit.to_digit(16).unwrap_or_else(|| panic!("{digit:?} is no hexadecimal digit"));
    let digits: Vec<u32> = hexadecimal.chars().filter(|c| !c.is_whitespace()).map(digit).collect();
    let (pairs, rest) = digits.as_chunks();
    assert!(rest.is_empty(), "half an octet");
    pairs.iter().filter_map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_read_case_by_case() {
        let cases = Vector::parse("# remark\n\na = 00 ff\nb = text\n\n\na = 7f\n");
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].octets("a"), [0, 255]);
        assert_eq!(cases[0].text("b"), Some("text"));
        assert_eq!((cases[1].octets("a"), cases[1].text("b")), (vec![127], None));
    }

    #[test]
    fn the_same_seed_gives_the_same_octets_and_the_streams_differ() {
        let (mut one, mut two) = (SeededRandom::new(7), SeededRandom::new(7));
        let (mut a, mut b, mut secret) = ([0; 32], [0; 32], [0; 32]);
        one.fill_public(&mut a);
        two.fill_secret(&mut secret);
        two.fill_public(&mut b);
        assert_eq!(a, b);
        assert_ne!(a, secret);
        SeededRandom::new(8).fill_public(&mut b);
        assert_ne!(a, b);
    }
}
