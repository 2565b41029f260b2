//! CRLs of files, whose signatures are checked once and not for each peer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pki::certificate::Certificate;
use pki::crl::{Crl, CrlError, VerifiedCrl};
use pki::path::Strength;

/// Pairs of CRL and issuer that are remembered.
const MAX_REMEMBERED: usize = 256;

/// A CRL and an issuer, by their octets, and the strength that was wanted.
type Key = (Vec<u8>, Vec<u8>, String);

/// CRLs with the outcome of checking their signatures.
#[derive(Debug, Default)]
pub(super) struct KnownCrls(Mutex<BTreeMap<Key, Result<VerifiedCrl, CrlError>>>);

impl KnownCrls {
    /// Those of `crls`, and of `offered` by a peer, that `issuer` signed.
    pub(super) fn verified<'a>(
        &self,
        crls: impl Iterator<Item = &'a Arc<Crl>>,
        offered: &[Vec<u8>],
        issuer: &Certificate,
        strength: &Strength,
    ) -> Vec<VerifiedCrl> {
        let own = crls.filter(|crl| crl.issuer().same_as(issuer.subject()));
        let theirs = offered.iter().filter_map(|der| Crl::from_der(der).ok()).filter_map(|crl| {
            // What a peer sends is not remembered: it could send much.
            crl.verify(issuer, strength).inspect_err(|error| tracing::debug!(%error, "a CRL does not count")).ok()
        });
        own.filter_map(|crl| self.remembered(crl, issuer, strength)).chain(theirs).collect()
    }

    /// A CRL with its signature checked, if it is right.
    pub(super) fn remembered(&self, crl: &Crl, issuer: &Certificate, strength: &Strength) -> Option<VerifiedCrl> {
        self.check(crl, issuer, strength).inspect_err(|error| tracing::warn!(%error, "a CRL does not count")).ok()
    }

    /// A CRL with its signature checked.
    ///
    /// # Errors
    /// Why it does not count.
    pub(super) fn check(&self, crl: &Crl, issuer: &Certificate, strength: &Strength) -> Result<VerifiedCrl, CrlError> {
        let key = (crl.fingerprint().to_vec(), issuer.fingerprint(), strength.to_string());
        if let Some(known) = self.lock().get(&key) {
            return known.clone();
        }
        let verified = crl.clone().verify(issuer, strength);
        let mut remembered = self.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, verified.clone());
        verified
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Result<VerifiedCrl, CrlError>>> {
        // Nothing in there can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
