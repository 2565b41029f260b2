//! Building and validating certification paths (RFC 5280 §6).
//!
//! ```text
//! trust anchor ──signs──▶ CA ──signs──▶ CA ──signs──▶ end entity
//!      │                  └──── validate() finds these ────┘
//!      └ configured; its name constraints, path length, validity and key strength count as well
//! ```
//!
//! Several certificates can have the name of an issuer: CAs that sign each other, keys that roll over, certificates that
//! somebody sends to confuse. All are tried, those whose key identifier fits first; how deep and how often is bounded.

mod check;
mod error;
mod names;
mod policies;
mod search;
mod strength;

use der::asn1::ObjectIdentifier;

use crate::certificate::{Certificate, KeyPurpose};
use crate::dn::DistinguishedName;
use crate::time::UnixTime;

pub use error::PathError;
pub use strength::{KeyKind, Strength, StrengthTextError};

/// What somebody wants of a path besides that it is right.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// Keys and hashes that are strong enough.
    pub strength: Strength,
    /// The certificate must be usable for one of these, if it says what it is usable for. Empty: for anything.
    pub purposes: Vec<KeyPurpose>,
    /// The path must be valid under one of these policies. Empty: under any or none.
    pub policies: Vec<ObjectIdentifier>,
    /// One of these CAs must be in the path. Empty: any.
    pub authorities: Vec<Authority>,
}

/// A CA that a path must come over.
#[derive(Clone, Debug)]
pub enum Authority {
    /// This certificate.
    Certificate(Box<Certificate>),
    /// A CA with this name.
    Named(DistinguishedName),
}

/// A path that is right: proof that the names of its first certificate belong to its key.
#[derive(Clone, Debug)]
pub struct ValidPath<'a> {
    end_entity: &'a Certificate,
    /// The end entity first, then who signed it, and so on; the last is the trust anchor.
    certificates: Vec<&'a Certificate>,
}

impl<'a> ValidPath<'a> {
    /// The certificate that was to be validated.
    #[must_use]
    pub fn end_entity(&self) -> &'a Certificate {
        self.end_entity
    }

    /// The end entity, its issuers, the trust anchor.
    #[must_use]
    pub fn certificates(&self) -> &[&'a Certificate] {
        &self.certificates
    }

    /// Each certificate with the one that signed it, from the end entity up; the trust anchor needs no proof. What is to be
    /// asked for revocation.
    pub fn links(&self) -> impl Iterator<Item = (&'a Certificate, &'a Certificate)> {
        self.certificates.iter().copied().zip(self.certificates.iter().copied().skip(1))
    }
}

/// Finds a path from `end_entity` to one of `anchors` that is right at `now` and as `requirements` wants it.
///
/// `bag` are certificates that came with it or lie around; nothing is believed of them. An anchor need not be self-signed.
///
/// # Errors
/// [`PathError`]: of all paths that could be tried, why the one failed that got furthest.
pub fn validate<'a>(
    end_entity: &'a Certificate,
    bag: &'a [Certificate],
    anchors: &'a [Certificate],
    now: UnixTime,
    requirements: &Requirements,
) -> Result<ValidPath<'a>, PathError> {
    search::Search::new(bag, anchors, now, requirements).run(end_entity)
}

/// Checks a certificate that the configuration itself trusts: its time, strength and purpose, but no issuer.
///
/// # Errors
/// [`PathError`]
pub fn validate_pinned<'a>(
    certificate: &'a Certificate,
    now: UnixTime,
    requirements: &Requirements,
) -> Result<ValidPath<'a>, PathError> {
    check::certificate(certificate, now, &requirements.strength)?;
    check::end_entity(certificate, requirements)?;
    Ok(ValidPath { end_entity: certificate, certificates: vec![certificate] })
}

#[cfg(test)]
mod tests;
