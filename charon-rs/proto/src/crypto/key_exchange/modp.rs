//! The MODP groups of RFC 3526: powers of 2 modulo a safe prime.

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{CtAssign, CtEq, Odd, U512, U2048, U3072, U4096, Uint};
use espdp_api::Secret;

use crate::random::SecureRandom;

/// One of the three groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Modp2048,
    Modp3072,
    Modp4096,
}

impl Group {
    /// Octets of a private exponent: at least the 225, 275 and 325 bits that RFC 7919 §A.1 to §A.3 gives for safe primes of
    /// this length, which is twice their strength and more. Exponents as long as the prime would cost up to nine times the
    /// work for nothing.
    fn exponent_len(self) -> usize {
        match self {
            Self::Modp2048 => 29,
            Self::Modp3072 => 35,
            Self::Modp4096 => 41,
        }
    }

    /// Draws a private exponent.
    pub(super) fn generate(self, random: &mut dyn SecureRandom) -> Secret<Vec<u8>> {
        let mut exponent = Secret::new(vec![0; self.exponent_len()]);
        random.fill_secret(exponent.expose_mut());
        exponent
    }

    /// The public value of a private exponent, as long as the prime (R7296-3.4-1).
    pub(super) fn public(self, private: &Secret<Vec<u8>>) -> Vec<u8> {
        let public = match self {
            Self::Modp2048 => POWERS_2048.of_generator(private),
            Self::Modp3072 => POWERS_3072.of_generator(private),
            Self::Modp4096 => POWERS_4096.of_generator(private),
        };
        public.expose().clone()
    }

    /// The shared secret, as long as the prime, or `None` if `peer_public` is not as long as the prime or not sound.
    pub(super) fn agree(self, private: &Secret<Vec<u8>>, peer_public: &[u8]) -> Option<Secret<Vec<u8>>> {
        match self {
            Self::Modp2048 => agree(&MODP_2048, private, peer_public),
            Self::Modp3072 => agree(&MODP_3072, private, peer_public),
            Self::Modp4096 => agree(&MODP_4096, private, peer_public),
        }
    }
}

/// Refuses all but values between 1 and p-1 (RFC 6989 §2.1, R6989-2.1-1). As p is a safe prime, every other value spans a
/// subgroup of order (p-1)/2 at least, so nothing more needs to be checked.
fn agree<const LIMBS: usize>(
    params: &FixedMontyParams<LIMBS>,
    private: &Secret<Vec<u8>>,
    peer_public: &[u8],
) -> Option<Secret<Vec<u8>>> {
    if peer_public.len() != Uint::<LIMBS>::BYTES {
        return None;
    }
    let value = Uint::<LIMBS>::from_be_slice(peer_public);
    let highest = params.modulus().as_ref().wrapping_sub(&Uint::ONE);
    (value > Uint::ONE && value < highest).then(|| power(params, &value, private))
}

/// `base` to the power of `exponent`, in constant time for exponents of one length, as big-endian octets padded to the
/// length of the modulus.
fn power<const LIMBS: usize>(
    params: &FixedMontyParams<LIMBS>,
    base: &Uint<LIMBS>,
    exponent: &Secret<Vec<u8>>,
) -> Secret<Vec<u8>> {
    let bits = u32::try_from(exponent.expose().len() * 8).unwrap_or(u32::MAX);
    let exponent = Secret::new(U512::from_be_slice_truncated(exponent.expose(), U512::BITS));
    octets_of(&Secret::new(FixedMontyForm::new(base, params).pow_bounded_exp(exponent.expose(), bits)))
}

/// A number as big-endian octets, padded to the length of the modulus.
fn octets_of<const LIMBS: usize>(number: &Secret<FixedMontyForm<LIMBS>>) -> Secret<Vec<u8>> {
    let number = Secret::new(number.expose().retrieve());
    Secret::new(number.expose().to_be_bytes().as_slice().to_vec())
}

/// Powers of the generator from which each other one is made with a multiplication for each four bits of the exponent,
/// instead of four squarings and one: a sixth of the time.
struct Powers<const LIMBS: usize> {
    params: &'static FixedMontyParams<LIMBS>,
    /// `2^(d * 16^i)` in Montgomery form at `[i][d]`.
    by_digit: Vec<[Uint<LIMBS>; DIGITS]>,
}

impl<const LIMBS: usize> Powers<LIMBS> {
    /// Powers for exponents of `exponent_len` octets.
    fn new(params: &'static FixedMontyParams<LIMBS>, exponent_len: usize) -> Self {
        let mut base = FixedMontyForm::new(&Uint::from_u8(GENERATOR), params);
        let mut by_digit = Vec::with_capacity(2 * exponent_len);
        for _ in 0..2 * exponent_len {
            let mut power = FixedMontyForm::one(params);
            by_digit.push([(); DIGITS].map(|()| {
                let entry = power.to_montgomery();
                power *= &base;
                entry
            }));
            base = power;
        }
        Self { params, by_digit }
    }

    /// The generator to the power of `exponent`, as [`power`] gives it, and like that in constant time: all powers that
    /// could be the next factor are looked at.
    fn of_generator(&self, exponent: &Secret<Vec<u8>>) -> Secret<Vec<u8>> {
        let digits = exponent.expose().iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
        let mut product = Secret::new(FixedMontyForm::one(self.params));
        let mut factor = Secret::new(*self.params.one());
        for (digit, powers) in digits.zip(&self.by_digit) {
            for (candidate, power) in (0u8..).zip(powers) {
                factor.expose_mut().ct_assign(power, candidate.ct_eq(&digit));
            }
            *product.expose_mut() *= &FixedMontyForm::from_montgomery(*factor.expose(), self.params);
        }
        octets_of(&product)
    }
}

/// Values of a digit of four bits.
const DIGITS: usize = 16;

// Made when the group is used for the first time, in less time than a few exponentiations take; a fourth to two thirds of a
// MiB each.

static POWERS_2048: LazyLock<Powers<{ U2048::LIMBS }>> =
    LazyLock::new(|| Powers::new(&MODP_2048, Group::Modp2048.exponent_len()));

static POWERS_3072: LazyLock<Powers<{ U3072::LIMBS }>> =
    LazyLock::new(|| Powers::new(&MODP_3072, Group::Modp3072.exponent_len()));

static POWERS_4096: LazyLock<Powers<{ U4096::LIMBS }>> =
    LazyLock::new(|| Powers::new(&MODP_4096, Group::Modp4096.exponent_len()));

const GENERATOR: u8 = 2;

/// 2^2048 - 2^1984 - 1 + 2^64 * ([2^1918 pi] + 124476) (RFC 3526 §3).
static MODP_2048: FixedMontyParams<{ U2048::LIMBS }> =
    FixedMontyParams::new_vartime(Odd::<U2048>::from_be_hex(concat!(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD",
        "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
        "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F",
        "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
        "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
        "15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    )));

/// 2^3072 - 2^3008 - 1 + 2^64 * ([2^2942 pi] + 1690314) (RFC 3526 §4).
static MODP_3072: FixedMontyParams<{ U3072::LIMBS }> =
    FixedMontyParams::new_vartime(Odd::<U3072>::from_be_hex(concat!(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD",
        "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
        "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F",
        "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
        "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
        "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7",
        "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C",
        "BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    )));

/// 2^4096 - 2^4032 - 1 + 2^64 * ([2^3966 pi] + 240904) (RFC 3526 §5).
static MODP_4096: FixedMontyParams<{ U4096::LIMBS }> =
    FixedMontyParams::new_vartime(Odd::<U4096>::from_be_hex(concat!(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD",
        "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
        "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F",
        "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
        "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
        "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7",
        "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C",
        "BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7",
        "88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6",
        "287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9",
        "93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
    )));

#[cfg(test)]
mod tests {
    use super::*;

    impl Group {
        /// The prime, as long as the public values.
        pub(in super::super) fn prime(self) -> Vec<u8> {
            match self {
                Self::Modp2048 => MODP_2048.modulus().as_ref().to_be_bytes().as_slice().to_vec(),
                Self::Modp3072 => MODP_3072.modulus().as_ref().to_be_bytes().as_slice().to_vec(),
                Self::Modp4096 => MODP_4096.modulus().as_ref().to_be_bytes().as_slice().to_vec(),
            }
        }
    }

    /// As it must with a safe prime that is 7 modulo 8: a wrong digit would not leave that so.
    #[test]
    fn two_spans_the_subgroup_of_prime_order() {
        assert!(two_to_half_the_order_is_one(&MODP_2048));
        assert!(two_to_half_the_order_is_one(&MODP_3072));
        assert!(two_to_half_the_order_is_one(&MODP_4096));
    }

    #[test]
    fn tabled_powers_are_those_that_exponentiation_gives() {
        for fill in [[0, 0], [0xff, 0xff], [0, 1], [0x5a, 0xc3]] {
            compare(&POWERS_2048, fill);
            compare(&POWERS_3072, fill);
            compare(&POWERS_4096, fill);
        }
    }

    fn compare<const LIMBS: usize>(powers: &Powers<LIMBS>, fill: [u8; 2]) {
        let len = powers.by_digit.len() / 2;
        let exponent = Secret::new(fill.into_iter().cycle().take(len).collect::<Vec<u8>>());
        let expected = power(powers.params, &Uint::from_u8(GENERATOR), &exponent);
        assert_eq!(powers.of_generator(&exponent).expose(), expected.expose());
    }

    fn two_to_half_the_order_is_one<const LIMBS: usize>(params: &FixedMontyParams<LIMBS>) -> bool {
        let half_the_order = params.modulus().as_ref().shr_vartime(1);
        FixedMontyForm::new(&Uint::from_u8(GENERATOR), params).pow_vartime(&half_the_order).retrieve() == Uint::ONE
    }
}
