//! Key exchange: private values, public values as the KE payload carries them, shared secrets.
//!
//! All methods have the shape of a key encapsulation mechanism, which is the most that ML-KEM can do: the initiator draws a
//! key pair ([`KeyExchange::generate`]) and sends the public value, the responder makes the answer and the secret of it at
//! once ([`respond`]), and the initiator gets the same secret out of the answer ([`KeyExchange::agree`]).

mod curve;
mod ml_kem;
mod modp;

use std::fmt;

use ::ml_kem::{MlKem512, MlKem768, MlKem1024, ml_kem_512, ml_kem_768, ml_kem_1024};
use espdp_api::Secret;

use self::curve::Curve;
use crate::proposal::KeyExchangeGroup;
use crate::random::SecureRandom;

/// The initiator's half of a key exchange. The private value is wiped when this is dropped.
pub struct KeyExchange {
    group: KeyExchangeGroup,
    private: Private,
    public: Vec<u8>,
}

/// Why a public value of the peer was refused. None of it is worth an answer in IKE_SA_INIT: the message may be forged, and
/// the right one may still come (RFC 6989 §2.5, R6989-2.5-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyExchangeError {
    /// The value has not the length that the group fixes.
    #[error("public value of {actual} octets where {group:?} has {expected}")]
    WrongLength {
        /// The group.
        group: KeyExchangeGroup,
        /// Octets that a value of this group has.
        expected: usize,
        /// Octets that came.
        actual: usize,
    },
    /// The value is no element of the group, or one that gives the secret away: 0, 1, p-1 or more of a MODP group, no point
    /// of a curve, a point of small order of Curve25519, an encapsulation key of ML-KEM with numbers above the modulus.
    #[error("public value that is not a sound element of {group:?}")]
    NotInGroup {
        /// The group.
        group: KeyExchangeGroup,
    },
}

enum Private {
    Modp(modp::Group, Secret<Vec<u8>>),
    Curve(curve::Scalar),
    MlKem512(ml_kem_512::DecapsulationKey),
    MlKem768(ml_kem_768::DecapsulationKey),
    MlKem1024(ml_kem_1024::DecapsulationKey),
}

/// The answer to an initiator's public value, as the KE payload carries it, and the shared secret: what a responder does,
/// all at once.
///
/// # Errors
///
/// If the initiator's value has the wrong length or is not a sound element of the group.
pub fn respond(
    group: KeyExchangeGroup,
    peer_public: &[u8],
    random: &mut dyn SecureRandom,
) -> Result<(Vec<u8>, Secret<Vec<u8>>), KeyExchangeError> {
    check_len(group, group.public_len(), peer_public)?;
    let answer = match group {
        KeyExchangeGroup::MlKem512 => ml_kem::encapsulate::<MlKem512>(peer_public, random),
        KeyExchangeGroup::MlKem768 => ml_kem::encapsulate::<MlKem768>(peer_public, random),
        KeyExchangeGroup::MlKem1024 => ml_kem::encapsulate::<MlKem1024>(peer_public, random),
        KeyExchangeGroup::Modp2048
        | KeyExchangeGroup::Modp3072
        | KeyExchangeGroup::Modp4096
        | KeyExchangeGroup::Ecp256
        | KeyExchangeGroup::Ecp384
        | KeyExchangeGroup::Ecp521
        | KeyExchangeGroup::Curve25519 => {
            let ours = KeyExchange::generate(group, random);
            ours.private.agree(peer_public).map(|secret| (ours.public, secret))
        }
    };
    answer.ok_or(KeyExchangeError::NotInGroup { group })
}

impl KeyExchange {
    /// Draws a private value and computes the public one.
    pub fn generate(group: KeyExchangeGroup, random: &mut dyn SecureRandom) -> Self {
        let (private, public) = match group {
            KeyExchangeGroup::Modp2048 => modp(modp::Group::Modp2048, random),
            KeyExchangeGroup::Modp3072 => modp(modp::Group::Modp3072, random),
            KeyExchangeGroup::Modp4096 => modp(modp::Group::Modp4096, random),
            KeyExchangeGroup::Ecp256 => curve(Curve::P256, random),
            KeyExchangeGroup::Ecp384 => curve(Curve::P384, random),
            KeyExchangeGroup::Ecp521 => curve(Curve::P521, random),
            KeyExchangeGroup::Curve25519 => curve(Curve::Curve25519, random),
            KeyExchangeGroup::MlKem512 => {
                let (key, public) = ml_kem::generate::<MlKem512>(random);
                (Private::MlKem512(key), public)
            }
            KeyExchangeGroup::MlKem768 => {
                let (key, public) = ml_kem::generate::<MlKem768>(random);
                (Private::MlKem768(key), public)
            }
            KeyExchangeGroup::MlKem1024 => {
                let (key, public) = ml_kem::generate::<MlKem1024>(random);
                (Private::MlKem1024(key), public)
            }
        };
        Self { group, private, public }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> KeyExchangeGroup {
        self.group
    }

    /// Our public value, as the KE payload carries it.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret shared with the responder that sent `answer`, g^ir of the key schedule. Can be called again with another
    /// value when the first turned out to be forged.
    ///
    /// # Errors
    ///
    /// If the answer has the wrong length or is not a sound element of the group.
    pub fn agree(&self, answer: &[u8]) -> Result<Secret<Vec<u8>>, KeyExchangeError> {
        check_len(self.group, self.group.answer_len(), answer)?;
        self.private.agree(answer).ok_or(KeyExchangeError::NotInGroup { group: self.group })
    }
}

fn check_len(group: KeyExchangeGroup, expected: usize, value: &[u8]) -> Result<(), KeyExchangeError> {
    let actual = value.len();
    if actual == expected { Ok(()) } else { Err(KeyExchangeError::WrongLength { group, expected, actual }) }
}

fn modp(group: modp::Group, random: &mut dyn SecureRandom) -> (Private, Vec<u8>) {
    let exponent = group.generate(random);
    let public = group.public(&exponent);
    (Private::Modp(group, exponent), public)
}

fn curve(curve: Curve, random: &mut dyn SecureRandom) -> (Private, Vec<u8>) {
    let scalar = curve.generate(random);
    let public = scalar.public();
    (Private::Curve(scalar), public)
}

impl Private {
    /// The shared secret, or `None` if the peer's value is not sound.
    fn agree(&self, peer_public: &[u8]) -> Option<Secret<Vec<u8>>> {
        match self {
            Self::Modp(group, exponent) => group.agree(exponent, peer_public),
            Self::Curve(scalar) => scalar.agree(peer_public),
            Self::MlKem512(key) => ml_kem::decapsulate::<MlKem512>(key, peer_public),
            Self::MlKem768(key) => ml_kem::decapsulate::<MlKem768>(key, peer_public),
            Self::MlKem1024(key) => ml_kem::decapsulate::<MlKem1024>(key, peer_public),
        }
    }
}

impl fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyExchange").field("group", &self.group).finish_non_exhaustive()
    }
}

impl KeyExchangeGroup {
    /// Octets of the initiator's public value on the wire: the length of the modulus (RFC 7296 §3.4), x and y of a point
    /// (RFC 5903 §7), u of Curve25519 (RFC 8031 §3.1), or an encapsulation key (FIPS 203 §8).
    #[must_use]
    pub fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Ecp521 => 132,
            Self::Curve25519 => 32,
            Self::MlKem512 => 800,
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Octets of the responder's answer on the wire: a public value like the initiator's, or a ciphertext (FIPS 203 §8).
    #[must_use]
    pub fn answer_len(self) -> usize {
        match self {
            Self::MlKem512 => 768,
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
            Self::Modp2048
            | Self::Modp3072
            | Self::Modp4096
            | Self::Ecp256
            | Self::Ecp384
            | Self::Ecp521
            | Self::Curve25519 => self.public_len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SeededRandom, Vector, octets};

    #[test]
    fn values_and_secrets_are_those_of_the_rfcs() {
        let modp = Vector::parse(include_str!("../../../../tests/vectors/modp.txt"));
        let curves = Vector::parse(include_str!("../../../../tests/vectors/ecdh.txt"));
        let groups: Vec<_> = modp.iter().chain(&curves).map(|case| group(case.text("group"))).collect();
        assert_eq!(groups, DIFFIE_HELLMAN);
        for case in modp.iter().chain(&curves) {
            let [i, r] = ["i", "r"].map(|name| with_private(group(case.text("group")), case.octets(name)));
            assert_eq!(i.public(), case.octets("public_i"));
            assert_eq!(r.public(), case.octets("public_r"));
            assert_eq!(i.agree(r.public()).unwrap().expose(), &case.octets("shared"));
            assert_eq!(r.agree(i.public()).unwrap().expose(), &case.octets("shared"));
        }
    }

    /// Among them ciphertexts that nobody made for the key: no error tells, the secret is another one (FIPS 203 §6.3).
    #[test]
    fn ml_kem_keys_ciphertexts_and_secrets_are_those_of_others() {
        let cases = Vector::parse(include_str!("../../../../tests/vectors/mlkem.txt"));
        let of = |case: &Vector<'_>| group(case.text("group"));
        assert_eq!(cases.iter().map(of).collect::<Vec<_>>(), [ML_KEM, ML_KEM, ML_KEM].concat());
        let (encapsulating, others): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.text("m").is_some());
        for case in encapsulating {
            let mut message = std::iter::once(case.octets("m"));
            let (answer, secret) = respond(of(case), &case.octets("public_i"), &mut Draws(&mut message)).unwrap();
            assert_eq!((&answer, secret.expose()), (&case.octets("public_r"), &case.octets("shared")));
        }
        for case in others {
            let ours = with_private(of(case), [case.octets("d"), case.octets("z")].concat());
            if case.text("public_i").is_some() {
                assert_eq!(ours.public(), case.octets("public_i"));
            }
            assert_eq!(ours.agree(&case.octets("public_r")).unwrap().expose(), &case.octets("shared"));
        }
    }

    /// FIPS 203 §7.2: numbers of 12 bits, each below 3329, then 32 octets that may be anything.
    #[test]
    fn ml_kem_encapsulation_keys_above_the_modulus_are_refused() {
        for group in ML_KEM {
            let mut random = SeededRandom::new(1);
            let right = KeyExchange::generate(group, &mut random).public().to_vec();
            let last = right.len() - 32 - 3;
            for (offset, shift) in [(0, 0), (last, 12)] {
                for (number, sound) in [(3328u32, true), (3329, false), (4095, false)] {
                    let mut key = right.clone();
                    key[offset..offset + 3].copy_from_slice(&(number << shift).to_le_bytes()[..3]);
                    let error = respond(group, &key, &mut random).err();
                    assert_eq!(error, (!sound).then_some(KeyExchangeError::NotInGroup { group }));
                }
            }
            let random_tail = [&right[..right.len() - 32], &[0xff; 32]].concat();
            assert!(respond(group, &random_tail, &mut random).is_ok());
        }
    }

    #[test]
    fn both_ends_agree_whatever_the_private_values_are() {
        for group in GROUPS {
            let mut random = SeededRandom::new(group as u64);
            let ours = KeyExchange::generate(group, &mut random);
            let another = KeyExchange::generate(group, &mut random);
            assert_ne!(ours.public(), another.public());
            assert_eq!((ours.public().len(), ours.group()), (group.public_len(), group));
            let (answer, secret) = respond(group, ours.public(), &mut random).unwrap();
            assert_eq!(answer.len(), group.answer_len());
            assert_eq!(ours.agree(&answer).unwrap().expose(), secret.expose());
            assert_ne!(another.agree(&answer).unwrap().expose(), secret.expose());
        }
    }

    /// R6989-2.5-1, openiked_ecdh_double_free.
    #[test]
    fn the_right_value_still_counts_after_a_forged_one() {
        let mut random = SeededRandom::new(1);
        let ours = KeyExchange::generate(KeyExchangeGroup::Ecp256, &mut random);
        let theirs = KeyExchange::generate(KeyExchangeGroup::Ecp256, &mut random);
        assert!(ours.agree(&[0; 64]).is_err());
        assert!(ours.agree(theirs.public()).is_ok());
    }

    /// R7296-3.4-1.
    #[test]
    fn modp_values_and_secrets_are_padded_on_the_left() {
        for group in MODP {
            // 2^1 and (2^1)^1 fill two bits of the prime's length.
            let mut one = vec![0; exponent_len(group)];
            *one.last_mut().unwrap() = 1;
            let ours = with_private(group, one);
            let mut two = vec![0; group.public_len()];
            *two.last_mut().unwrap() = 2;
            assert_eq!(ours.public(), two);
            assert_eq!(ours.agree(&two).unwrap().expose(), &two);
        }
    }

    /// R6989-2.1-1.
    #[test]
    fn ke_zero_or_one() {
        for group in MODP {
            let ours = KeyExchange::generate(group, &mut SeededRandom::new(1));
            let p = prime(group);
            let number = |value: u8| [vec![0; p.len() - 1], vec![value]].concat();
            // p ends in 64 ones, so neighbours differ in the last octet, and p+1 in the last nine.
            let near = |last: u8| [&p[..p.len() - 1], &[last]].concat();
            let above = [&p[..p.len() - 9], &[p[p.len() - 9] + 1], &[0; 8]].concat();
            for refused in [number(0), number(1), near(0xfe), near(0xff), above, vec![0xff; p.len()]] {
                assert_eq!(ours.agree(&refused).unwrap_err(), KeyExchangeError::NotInGroup { group });
            }
            assert!(ours.agree(&number(2)).is_ok());
            assert!(ours.agree(&near(0xfd)).is_ok());
        }
    }

    #[test]
    fn ke_wrong_len() {
        for group in GROUPS {
            let ours = KeyExchange::generate(group, &mut SeededRandom::new(1));
            let request = ours.public().to_vec();
            let (answer, _) = respond(group, &request, &mut SeededRandom::new(2)).unwrap();
            type Receive<'a> = &'a dyn Fn(&[u8]) -> Option<KeyExchangeError>;
            let agree: Receive<'_> = &|value| ours.agree(value).err();
            let responding: Receive<'_> = &|value| respond(group, value, &mut SeededRandom::new(2)).err();
            for (right, receive) in [(&answer, agree), (&request, responding)] {
                let len = right.len();
                let longer = [&right[..], &[0]].concat();
                let padded = [&[0], &right[..]].concat();
                for wrong in [&right[..len - 1], &right[1..], &right[..len / 2], &longer, &padded, &[0; 65536]] {
                    let error = KeyExchangeError::WrongLength { group, expected: len, actual: wrong.len() };
                    assert_eq!(receive(wrong), Some(error));
                }
                assert_eq!(receive(right), None);
            }
        }
    }

    #[test]
    fn ec_empty_point() {
        for group in GROUPS {
            let ours = KeyExchange::generate(group, &mut SeededRandom::new(1));
            let error = |expected| KeyExchangeError::WrongLength { group, expected, actual: 0 };
            assert_eq!(ours.agree(&[]).unwrap_err(), error(group.answer_len()));
            assert_eq!(respond(group, &[], &mut SeededRandom::new(1)).unwrap_err(), error(group.public_len()));
        }
    }

    /// R6989-2.3-1.
    #[test]
    fn points_that_are_not_on_the_curve_are_refused() {
        for (group, prime) in ECP {
            let mut random = SeededRandom::new(1);
            let ours = KeyExchange::generate(group, &mut random);
            let theirs = KeyExchange::generate(group, &mut random);
            let (x, y) = theirs.public().split_at(group.public_len() / 2);
            let (prime, zero) = (octets(prime), vec![0; x.len()]);
            let mut off_by_one = y.to_vec();
            off_by_one[x.len() - 1] ^= 1;
            let changed: [[&[u8]; 2]; 7] = [
                [x, &off_by_one],
                [y, x],
                [&zero, &zero],
                [x, &zero],
                [&prime, y],
                [x, &prime],
                [&vec![0xff; x.len()], &vec![0xff; x.len()]],
            ];
            for point in changed {
                assert_eq!(ours.agree(&point.concat()).unwrap_err(), KeyExchangeError::NotInGroup { group });
            }
            assert!(ours.agree(theirs.public()).is_ok());
        }
    }

    /// R5903-7-1.
    #[test]
    fn coordinates_keep_their_leading_zeros() {
        // The smallest multiples of the base point with a leading zero octet in x, in y, and in the x that is shared.
        let small =
            |scalar: u64| with_private(KeyExchangeGroup::Ecp256, [&[0; 24][..], &scalar.to_be_bytes()].concat());
        let leading_zero_in = |octet: usize| {
            (1..5000).map(small).find(|exchange| exchange.public()[octet] == 0).expect("one in 256 is such a point")
        };
        let (x, y) = (leading_zero_in(0), leading_zero_in(32));
        let base_point = small(1);
        assert_eq!(x.agree(base_point.public()).unwrap().expose(), &x.public()[..32]);
        assert_eq!(base_point.agree(y.public()).unwrap().expose(), &y.public()[..32]);
    }

    /// R8031-3.2-1.
    #[test]
    fn curve25519_ignores_the_top_bit_and_takes_values_above_the_prime() {
        let ours = KeyExchange::generate(KeyExchangeGroup::Curve25519, &mut SeededRandom::new(1));
        let nine = octets("0900000000000000000000000000000000000000000000000000000000000000");
        let top_bit = octets("0900000000000000000000000000000000000000000000000000000000000080");
        // The highest value that can be written is 2^255 - 1, which is the prime and 18.
        let highest = octets("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        let eighteen = octets("1200000000000000000000000000000000000000000000000000000000000000");
        let secret = |public: &[u8]| ours.agree(public).unwrap().expose().clone();
        assert_eq!(secret(&nine), ours.public());
        assert_eq!(secret(&top_bit), ours.public());
        assert_eq!(secret(&highest), secret(&eighteen));
    }

    /// RFC 8031 §3.2: the secret that comes of a point of small order is all zero.
    #[test]
    fn points_of_small_order_on_curve25519_are_refused() {
        let group = KeyExchangeGroup::Curve25519;
        let ours = KeyExchange::generate(group, &mut SeededRandom::new(1));
        for point in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let mut point = octets(point);
            assert_eq!(ours.agree(&point).unwrap_err(), KeyExchangeError::NotInGroup { group });
            point[31] |= 0x80;
            assert_eq!(ours.agree(&point).unwrap_err(), KeyExchangeError::NotInGroup { group });
        }
    }

    #[test]
    fn a_private_scalar_above_the_order_is_drawn_again() {
        let mut draws = vec![vec![0xff; 32], vec![0; 32], [&[0; 31][..], &[1]].concat()].into_iter();
        let exchange = KeyExchange::generate(KeyExchangeGroup::Ecp256, &mut Draws(&mut draws));
        let x_of_base_point = octets("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
        assert_eq!(exchange.public()[..32], x_of_base_point);
        assert_eq!(draws.next(), None);
    }

    #[test]
    fn debug_output_shows_nothing_of_the_private_value() {
        let exchange = KeyExchange::generate(KeyExchangeGroup::Curve25519, &mut SeededRandom::new(1));
        assert_eq!(format!("{exchange:?}"), "KeyExchange { group: Curve25519, .. }");
    }

    const MODP: [KeyExchangeGroup; 3] =
        [KeyExchangeGroup::Modp2048, KeyExchangeGroup::Modp3072, KeyExchangeGroup::Modp4096];

    /// With the primes of their fields (RFC 5903 §3).
    const ECP: [(KeyExchangeGroup, &str); 3] = [
        (KeyExchangeGroup::Ecp256, "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
        (
            KeyExchangeGroup::Ecp384,
            "ffffffffffffffffffffffffffffffffffffffffffffffff
             fffffffffffffffeffffffff0000000000000000ffffffff",
        ),
        (
            KeyExchangeGroup::Ecp521,
            "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
             ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ),
    ];

    const ML_KEM: [KeyExchangeGroup; 3] =
        [KeyExchangeGroup::MlKem512, KeyExchangeGroup::MlKem768, KeyExchangeGroup::MlKem1024];

    const DIFFIE_HELLMAN: [KeyExchangeGroup; 7] = [
        KeyExchangeGroup::Modp2048,
        KeyExchangeGroup::Modp3072,
        KeyExchangeGroup::Modp4096,
        KeyExchangeGroup::Ecp256,
        KeyExchangeGroup::Ecp384,
        KeyExchangeGroup::Ecp521,
        KeyExchangeGroup::Curve25519,
    ];

    const GROUPS: [KeyExchangeGroup; 10] = {
        let ([a, b, c, d, e, f, g], [h, i, j]) = (DIFFIE_HELLMAN, ML_KEM);
        [a, b, c, d, e, f, g, h, i, j]
    };

    fn group(name: Option<&str>) -> KeyExchangeGroup {
        match name {
            Some("MODP-2048") => KeyExchangeGroup::Modp2048,
            Some("MODP-3072") => KeyExchangeGroup::Modp3072,
            Some("MODP-4096") => KeyExchangeGroup::Modp4096,
            Some("P-256") => KeyExchangeGroup::Ecp256,
            Some("P-384") => KeyExchangeGroup::Ecp384,
            Some("P-521") => KeyExchangeGroup::Ecp521,
            Some("X25519") => KeyExchangeGroup::Curve25519,
            Some("ML-KEM-512") => KeyExchangeGroup::MlKem512,
            Some("ML-KEM-768") => KeyExchangeGroup::MlKem768,
            Some("ML-KEM-1024") => KeyExchangeGroup::MlKem1024,
            other => panic!("no group {other:?}"),
        }
    }

    fn exponent_len(group: KeyExchangeGroup) -> usize {
        let Private::Modp(_, exponent) = KeyExchange::generate(group, &mut SeededRandom::new(0)).private else {
            panic!("no exponent");
        };
        exponent.expose().len()
    }

    fn prime(group: KeyExchangeGroup) -> Vec<u8> {
        let Private::Modp(group, _) = KeyExchange::generate(group, &mut SeededRandom::new(0)).private else {
            panic!("no prime");
        };
        group.prime()
    }

    fn with_private(group: KeyExchangeGroup, private: Vec<u8>) -> KeyExchange {
        KeyExchange::generate(group, &mut Draws(&mut std::iter::once(private)))
    }

    /// Gives out what it was told to, one private value after the other.
    struct Draws<'a>(&'a mut dyn Iterator<Item = Vec<u8>>);

    impl SecureRandom for Draws<'_> {
        fn fill_public(&mut self, _: &mut [u8]) {
            panic!("a private value must not come from the public stream");
        }

        fn fill_secret(&mut self, buffer: &mut [u8]) {
            buffer.copy_from_slice(&self.0.next().expect("no more draws"));
        }
    }
}
