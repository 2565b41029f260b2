//! The MODP groups of RFC 3526: powers of 2 modulo a safe prime.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U512, U2048, U3072, U4096, Uint};
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
    /// Octets of a private exponent: for each group at least twice the higher of the two strengths that RFC 3526 §8
    /// estimates (160, 210 and 240 bits). Exponents as long as the prime would cost up to eight times the work for nothing.
    fn exponent_len(self) -> usize {
        match self {
            Self::Modp2048 => 320 / 8,
            Self::Modp3072 => 448 / 8,
            Self::Modp4096 => 512 / 8,
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
            Self::Modp2048 => power(&MODP_2048, &Uint::from_u8(GENERATOR), private),
            Self::Modp3072 => power(&MODP_3072, &Uint::from_u8(GENERATOR), private),
            Self::Modp4096 => power(&MODP_4096, &Uint::from_u8(GENERATOR), private),
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
    let power = Secret::new(FixedMontyForm::new(base, params).pow_bounded_exp(exponent.expose(), bits));
    let power = Secret::new(power.expose().retrieve());
    Secret::new(power.expose().to_be_bytes().as_slice().to_vec())
}

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

    fn two_to_half_the_order_is_one<const LIMBS: usize>(params: &FixedMontyParams<LIMBS>) -> bool {
        let half_the_order = params.modulus().as_ref().shr_vartime(1);
        FixedMontyForm::new(&Uint::from_u8(GENERATOR), params).pow_vartime(&half_the_order).retrieve() == Uint::ONE
    }
}
