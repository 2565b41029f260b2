//! ML-KEM (FIPS 203) as a key exchange: the initiator's public value is an encapsulation key, the answer to it a ciphertext.

use std::convert::Infallible;

use espdp_api::Secret;
use ml_kem::kem::{Ciphertext, Encapsulate, FromSeed, Seed};
use ml_kem::{Decapsulate, Kem, KeyExport, TryKeyInit};
use rand_core::{TryCryptoRng, TryRng};

use crate::random::SecureRandom;

/// Draws a key pair: the decapsulation key and, as the KE payload carries it, the encapsulation key.
pub(super) fn generate<K: FromSeed>(random: &mut dyn SecureRandom) -> (K::DecapsulationKey, Vec<u8>) {
    let mut seed = Secret::new(Seed::<K>::default());
    random.fill_secret(seed.expose_mut());
    let (private, public) = K::from_seed(seed.expose());
    (private, public.to_bytes().to_vec())
}

/// The ciphertext for the owner of an encapsulation key and the secret in it, or `None` if the key has the wrong length or
/// numbers in it that are not below the modulus (FIPS 203 §7.2).
pub(super) fn encapsulate<K: Kem>(
    encapsulation_key: &[u8],
    random: &mut dyn SecureRandom,
) -> Option<(Vec<u8>, Secret<Vec<u8>>)> {
    let key = K::EncapsulationKey::new_from_slice(encapsulation_key).ok()?;
    let (ciphertext, secret) = key.encapsulate_with_rng(&mut Draw(random));
    let secret = Secret::new(secret);
    Some((ciphertext.to_vec(), Secret::new(secret.expose().to_vec())))
}

/// The secret in a ciphertext, or `None` if it has the wrong length (FIPS 203 §7.3). One that was not made for this key
/// gives a secret that nobody else knows.
pub(super) fn decapsulate<K: Kem>(private: &K::DecapsulationKey, ciphertext: &[u8]) -> Option<Secret<Vec<u8>>>
where
    K::DecapsulationKey: Decapsulate<Kem = K>,
{
    let ciphertext: &Ciphertext<K> = ciphertext.try_into().ok()?;
    let secret = Secret::new(private.decapsulate(ciphertext));
    Some(Secret::new(secret.expose().to_vec()))
}

/// The secret stream, as the library wants to see it.
struct Draw<'a>(&'a mut dyn SecureRandom);

impl TryRng for Draw<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut octets = [0; 4];
        self.0.fill_secret(&mut octets);
        Ok(u32::from_le_bytes(octets))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut octets = [0; 8];
        self.0.fill_secret(&mut octets);
        Ok(u64::from_le_bytes(octets))
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_secret(octets);
        Ok(())
    }
}

impl TryCryptoRng for Draw<'_> {}
