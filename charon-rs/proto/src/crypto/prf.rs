//! The pseudo-random functions of IKEv2 and what is built on them (RFC 7296 §2.13).

use espdp_api::Secret;

use super::hmac::Hash;
use crate::proposal::Prf;

impl Prf {
    /// Octets that [`Prf::compute`] returns.
    #[must_use]
    pub fn output_len(self) -> usize {
        self.hash().output_len()
    }

    /// The preferred key length in octets: that of SK_d, SK_pi and SK_pr (RFC 7296 §2.14). For an HMAC it is the length of
    /// the output (RFC 4868 §2.1.2).
    #[must_use]
    pub fn key_len(self) -> usize {
        self.hash().output_len()
    }

    /// `prf(key, data)`, where the data is all `parts` one after the other. The key may have any length.
    #[must_use]
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret<Vec<u8>> {
        self.hash().hmac(key, parts)
    }

    /// `prf+(key, seed)`, the first `len` octets of `T1 | T2 | ...` with `Tn = prf(key, Tn-1 | seed | n)`; the seed is all
    /// `seed` parts one after the other.
    ///
    /// # Panics
    ///
    /// If `len` is more than [`Prf::longest_expansion`], because the block number is one octet. The keys of all suites
    /// together are far below it.
    #[must_use]
    pub fn expand(self, key: &[u8], seed: &[&[u8]], len: usize) -> Secret<Vec<u8>> {
        assert!(len <= self.longest_expansion(), "prf+ ends after 255 blocks");
        // Room for the last block whole, so that the vector never moves and leaves keys behind.
        let mut stream = Secret::new(Vec::with_capacity(len + self.output_len()));
        let mut block = Secret::new(Vec::new());
        for number in 1..=u8::MAX {
            if stream.expose().len() >= len {
                break;
            }
            let counter = [number];
            let mut parts = vec![block.expose().as_slice()];
            parts.extend_from_slice(seed);
            parts.push(&counter);
            block = self.compute(key, &parts);
            stream.expose_mut().extend_from_slice(block.expose());
        }
        stream.expose_mut().truncate(len);
        stream
    }

    /// The most octets that [`Prf::expand`] can give: 255 blocks.
    #[must_use]
    pub fn longest_expansion(self) -> usize {
        usize::from(u8::MAX) * self.output_len()
    }

    fn hash(self) -> Hash {
        match self {
            Self::HmacSha1 => Hash::Sha1,
            Self::HmacSha2_256 => Hash::Sha256,
            Self::HmacSha2_384 => Hash::Sha384,
            Self::HmacSha2_512 => Hash::Sha512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Vector;

    #[test]
    fn every_prf_gives_the_outputs_of_the_rfcs() {
        let cases = Vector::parse(include_str!("../../../../tests/vectors/hmac.txt"));
        assert_eq!(cases.len(), 24);
        for case in cases {
            let mac = named(case.text("prf")).compute(&case.octets("key"), &[&case.octets("data")]);
            assert_eq!(mac.expose(), &case.octets("mac"), "{case:?}");
        }
    }

    #[test]
    fn parts_are_taken_one_after_the_other() {
        let whole = Prf::HmacSha2_256.compute(b"key", &[b"one two"]);
        assert_eq!(Prf::HmacSha2_256.compute(b"key", &[b"one", b"", b" two"]).expose(), whole.expose());
    }

    #[test]
    fn expansion_is_cut_to_any_length_up_to_the_longest() {
        for prf in ALL {
            let longest = prf.expand(b"key", &[b"seed"], prf.longest_expansion());
            assert_eq!(longest.expose().len(), 255 * prf.output_len());
            for len in [0, 1, prf.output_len() - 1, prf.output_len(), prf.output_len() + 1] {
                assert_eq!(prf.expand(b"key", &[b"seed"], len).expose(), &longest.expose()[..len]);
            }
        }
    }

    #[test]
    fn each_block_goes_over_the_one_before_the_seed_and_its_number() {
        let prf = Prf::HmacSha2_512;
        let stream = prf.expand(b"key", &[b"se", b"ed"], 255 * 64);
        let last = prf.compute(b"key", &[&stream.expose()[253 * 64..254 * 64], b"seed", &[255]]);
        assert_eq!(&stream.expose()[254 * 64..], last.expose());
    }

    #[test]
    #[should_panic(expected = "prf+ ends after 255 blocks")]
    fn expansion_beyond_255_blocks_is_refused() {
        drop(Prf::HmacSha1.expand(b"key", &[b"seed"], 255 * 20 + 1));
    }

    const ALL: [Prf; 4] = [Prf::HmacSha1, Prf::HmacSha2_256, Prf::HmacSha2_384, Prf::HmacSha2_512];

    fn named(name: Option<&str>) -> Prf {
        match name {
            Some("HMAC-SHA-1") => Prf::HmacSha1,
            Some("HMAC-SHA-256") => Prf::HmacSha2_256,
            Some("HMAC-SHA-384") => Prf::HmacSha2_384,
            Some("HMAC-SHA-512") => Prf::HmacSha2_512,
            other => panic!("no PRF {other:?}"),
        }
    }
}
