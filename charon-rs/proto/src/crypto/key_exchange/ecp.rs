//! The NIST curves (RFC 5903): P-256, P-384 and P-521.
//!
//! On the wire a point is x and y, each in the full length of the field (RFC 5903 §7, R5903-7-1). That is the uncompressed
//! form of SEC 1 without the octet 4 in front.

use crypto_bigint::BitOps;
use espdp_api::Secret;
use p256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use p256::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytes, FieldBytesSize, PublicKey, SecretKey};

use crate::random::SecureRandom;

/// Draws a private scalar, uniformly from 1 to the order of the curve less 1.
pub(super) fn generate<C: CurveArithmetic>(random: &mut dyn SecureRandom) -> SecretKey<C> {
    let mut octets = Secret::new(FieldBytes::<C>::default());
    // Bits above the order are cleared (P-521 has 7 of them), and what still is too large is drawn again, which keeps the
    // distribution even. The chance of a second draw is 2^-32 for P-256 and far lower for the others.
    let first_octet_bits = C::ORDER.as_ref().bits_vartime() % 8;
    loop {
        random.fill_secret(octets.expose_mut());
        if let Some(first) = octets.expose_mut().first_mut() {
            *first &= u8::MAX >> ((8 - first_octet_bits) % 8);
        }
        if let Ok(key) = SecretKey::from_bytes(octets.expose()) {
            return key;
        }
    }
}

/// The public point of a private scalar, as the KE payload carries it.
pub(super) fn public<C>(private: &SecretKey<C>) -> Vec<u8>
where
    C: CurveArithmetic,
    FieldBytesSize<C>: ModulusSize,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
{
    private.public_key().to_sec1_point(false).as_bytes().iter().skip(1).copied().collect()
}

/// The x coordinate of the shared point (RFC 5903 §9: nothing else), or `None` if `peer_public` is not a point of the curve
/// with coordinates below the field's prime (RFC 6989 §2.3, R6989-2.3-1). The point at infinity cannot be written in this
/// form, and as the order of these curves is prime, no other point leads to it.
pub(super) fn agree<C>(private: &SecretKey<C>, peer_public: &[u8]) -> Option<Secret<Vec<u8>>>
where
    C: CurveArithmetic,
    FieldBytesSize<C>: ModulusSize,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
{
    let encoded = [&[UNCOMPRESSED], peer_public].concat();
    let peer = PublicKey::<C>::from_sec1_bytes(&encoded).ok()?;
    Some(Secret::new(private.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
}

/// What stands before x and y in SEC 1.
const UNCOMPRESSED: u8 = 4;
