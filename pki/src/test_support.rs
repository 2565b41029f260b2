//! What the unit tests share: keys that are made once, and octets from hexadecimal.

use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::certificate::{Certificate, SerialNumber};
use crate::hash::HashAlgorithm;
use crate::issue::{CaTemplate, Issuer, Template};
use crate::key::{Curve, KeyType, PrivateKey};
use crate::signature::{RsaPadding, SignatureScheme};
use crate::time::UnixTime;

/// The same random numbers for the same seed.
pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A key of each type; RSA with 2048 and 3072 bits.
pub(crate) fn key(key_type: KeyType) -> &'static PrivateKey {
    static KEYS: [OnceLock<PrivateKey>; 6] = [const { OnceLock::new() }; 6];
    let index = match key_type {
        KeyType::Rsa { bits: ..=2048 } => 0,
        KeyType::Rsa { .. } => 1,
        KeyType::Ecdsa(Curve::P256) => 2,
        KeyType::Ecdsa(Curve::P384) => 3,
        KeyType::Ecdsa(Curve::P521) => 4,
        KeyType::Ed25519 => 5,
    };
    KEYS[index].get_or_init(|| PrivateKey::generate(key_type, &mut rng(7)).unwrap())
}

/// Octets written in hexadecimal, in which white space does not count.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// A certificate with its key, and the making of others below it.
pub(crate) struct Entity {
    pub(crate) key: PrivateKey,
    pub(crate) certificate: Certificate,
}

/// What all tests take for the time; certificates are valid from a day before to a day after.
pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);

impl Entity {
    /// A root CA; `change` may change everything.
    pub(crate) fn root(name: &str, change: impl FnOnce(&mut Template)) -> Self {
        let key = named_key(name);
        let mut template = template(name);
        template.ca = Some(CaTemplate::default());
        change(&mut template);
        let certificate = template.self_signed(&key, scheme(&key), &mut rng(1)).unwrap();
        Self { key, certificate }
    }

    /// A CA below this one.
    pub(crate) fn authority(&self, name: &str, change: impl FnOnce(&mut Template)) -> Self {
        self.issue(name, named_key(name), |template| {
            template.ca = Some(CaTemplate::default());
            change(template);
        })
    }

    /// An end entity.
    pub(crate) fn end_entity(&self, name: &str, change: impl FnOnce(&mut Template)) -> Self {
        self.issue(name, named_key(name), change)
    }

    pub(crate) fn issue(&self, name: &str, key: PrivateKey, change: impl FnOnce(&mut Template)) -> Self {
        let mut template = template(name);
        change(&mut template);
        let issuer = Issuer::unchecked(&self.certificate, &self.key, scheme(&self.key));
        let certificate = issuer.issue(&template, key.public_key(), &mut rng(1)).unwrap();
        Self { key, certificate }
    }
}

fn template(name: &str) -> Template {
    let subject = if name.contains('=') { name.parse().unwrap() } else { format!("CN={name}").parse().unwrap() };
    let serial = HashAlgorithm::Sha256.digest(name.as_bytes())[..8].to_vec();
    let day = 86_400;
    Template::new(subject, SerialNumber::positive(&serial).unwrap(), UnixTime(NOW.0 - day), UnixTime(NOW.0 + day))
}

/// A key for a name, always the same.
pub(crate) fn named_key(name: &str) -> PrivateKey {
    let seed = HashAlgorithm::Sha256.digest(name.as_bytes());
    let seed = u64::from_be_bytes(seed[..8].try_into().unwrap());
    PrivateKey::generate(KeyType::Ed25519, &mut rng(seed)).unwrap()
}

fn scheme(key: &PrivateKey) -> SignatureScheme {
    SignatureScheme::natural(key.key_type(), RsaPadding::Pkcs1)
}
