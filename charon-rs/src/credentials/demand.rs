//! What the configuration says about our proof and about the peer's.

use ike_proto::config::{CredentialName, TrustName};
use pki::ObjectIdentifier;
use pki::certificate::Certificate;
use pki::hash::HashAlgorithm;
use pki::key::PublicKey;
use pki::path::{Authority, Strength, StrengthTextError};
use pki::revocation::Policy;

/// What we sign with.
#[derive(Clone, Debug, Default)]
pub struct Signer {
    /// The certificates to choose from. Empty: those that the store has a key for and that have our identity.
    pub certificates: Vec<Certificate>,
    /// A key that goes without certificate (RFC 7670).
    pub raw: Option<PublicKey>,
    /// The ways to sign that may be used.
    pub schemes: Strength,
}

/// What is demanded of a peer's signature.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// Just these certificates; empty for all that a CA vouches for.
    pub certificates: Vec<Certificate>,
    /// Raw public keys that count, too (RFC 7670).
    pub keys: Vec<PublicKey>,
    /// A certificate must come over one of these CAs; empty for any. Certificates among them are trusted.
    pub authorities: Vec<Authority>,
    /// How strong keys and signatures must be.
    pub constraints: Constraints,
    /// A certificate must be issued under one of these policies; empty for any or none.
    pub policies: Vec<ObjectIdentifier>,
    /// What to do when it is not known whether a certificate was revoked.
    pub revocation: Policy,
}

/// How strong keys and signatures must be.
///
/// As text it is what strongSwan takes: `rsa-3072-sha256`, `ecdsa-256`, `ed25519`, `rsa/pss`, `pubkey-sha384`; with `ike:` in
/// front it holds for signatures in IKE only, not for certificates: `ecdsa-256-sha256,ike:ecdsa-sha384`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// For certificates.
    pub certificates: Strength,
    /// For the signature in IKE_AUTH.
    pub signature: Strength,
}

/// Why a text says nothing about strength.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// A word that means nothing.
    #[error(transparent)]
    Strength(#[from] StrengthTextError),
    /// Two texts of one kind.
    #[error("`{0}` is the second of its kind; join them with `-`")]
    Twice(String),
}

impl Signer {
    /// Names it by its content.
    #[must_use]
    pub fn name(&self) -> CredentialName {
        let mut digest = Digest::default();
        self.certificates.iter().for_each(|certificate| digest.add(certificate.der()));
        digest.add(self.raw.as_ref().map_or(&[], PublicKey::spki_der));
        digest.add(self.schemes.to_string().as_bytes());
        let what = match (self.certificates.first(), &self.raw) {
            (Some(certificate), _) => certificate.subject().to_string(),
            (None, Some(key)) => format!("key {}", key.key_id()),
            (None, None) => "by identity".to_owned(),
        };
        CredentialName(format!("{what} #{}", digest.finish()))
    }
}

impl Demand {
    /// Names it by its content.
    #[must_use]
    pub fn name(&self) -> TrustName {
        let mut digest = Digest::default();
        self.certificates.iter().for_each(|certificate| digest.add(certificate.der()));
        digest.add(b"keys");
        self.keys.iter().for_each(|key| digest.add(key.spki_der()));
        digest.add(b"authorities");
        for authority in &self.authorities {
            match authority {
                Authority::Certificate(certificate) => digest.add(certificate.der()),
                Authority::Named(name) => digest.add(name.der()),
            }
        }
        digest.add(self.constraints.certificates.to_string().as_bytes());
        digest.add(self.constraints.signature.to_string().as_bytes());
        self.policies.iter().for_each(|policy| digest.add(policy.to_string().as_bytes()));
        digest.add(format!("{:?}", self.revocation).as_bytes());
        TrustName(digest.finish())
    }

    /// The certificates among the CAs.
    pub(super) fn anchors(&self) -> impl Iterator<Item = &Certificate> {
        self.authorities.iter().filter_map(|authority| match authority {
            Authority::Certificate(certificate) => Some(&**certificate),
            Authority::Named(_) => None,
        })
    }
}

impl std::str::FromStr for Constraints {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let (mut certificates, mut signature) = (None, None);
        // strongSwan takes `-ike:` in the middle as well as a list.
        let text = text.replace("-ike:", ",ike:");
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let (place, strength) = match part.strip_prefix("ike:") {
                Some(strength) => (&mut signature, strength),
                None => (&mut certificates, part),
            };
            if place.replace(strength.parse::<Strength>()?).is_some() {
                return Err(ConstraintError::Twice(part.to_owned()));
            }
        }
        // Without `ike:` what is said holds for both.
        let signature = signature.or_else(|| certificates.clone()).unwrap_or_default();
        Ok(Self { certificates: certificates.unwrap_or_default(), signature })
    }
}

/// A hash over parts, each with its length, so that nothing moves from one to the next unseen.
#[derive(Default)]
struct Digest(Vec<u8>);

impl Digest {
    fn add(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.extend_from_slice(part);
    }

    fn finish(self) -> String {
        HashAlgorithm::Sha256.digest(&self.0).iter().take(16).map(|octet| format!("{octet:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::testing::Entity;
    use pki::key::{Curve, KeyType};
    use pki::signature::SignatureScheme;

    #[test]
    fn names_are_equal_if_and_only_if_the_content_is() {
        let (moon, sun) = (Entity::root("moon").certificate, Entity::root("sun").certificate);
        let demand = |change: fn(&mut Demand)| {
            let mut demand = Demand { keys: Vec::new(), ..Demand::default() };
            change(&mut demand);
            demand.name()
        };
        assert_eq!(demand(|_| {}), demand(|_| {}));
        assert_ne!(demand(|_| {}), demand(|demand| demand.revocation = Policy::Strict));
        assert_ne!(demand(|_| {}), demand(|demand| demand.constraints.signature = Strength::weakest()));
        let pinned = Demand { certificates: vec![moon.clone()], ..Demand::default() };
        let authority = Authority::Certificate(Box::new(moon.clone()));
        let issued = Demand { authorities: vec![authority], ..Demand::default() };
        assert_ne!(pinned.name(), issued.name(), "the same certificate in another role");
        let signer =
            |certificate: &Certificate| Signer { certificates: vec![certificate.clone()], ..Signer::default() };
        assert_eq!(signer(&moon).name(), signer(&moon).name());
        assert_ne!(signer(&moon).name(), signer(&sun).name());
        assert!(signer(&moon).name().0.starts_with("CN=moon #"), "{:?}", signer(&moon).name());
    }

    #[test]
    fn constraints_for_ike_are_apart_from_those_for_certificates() {
        let read = |text: &str| text.parse::<Constraints>().unwrap();
        let both = read("rsa-3072-sha256");
        assert_eq!(both.certificates, both.signature);
        for text in ["ecdsa-256,ike:ecdsa-sha384", "ecdsa-256-ike:ecdsa-sha384"] {
            let apart = read(text);
            let p256 = KeyType::Ecdsa(Curve::P256);
            assert!(apart.certificates.check_key(p256).is_ok());
            let sha256 = SignatureScheme::Ecdsa(HashAlgorithm::Sha256);
            assert!(apart.certificates.check_signature(sha256).is_ok());
            assert!(apart.signature.check_signature(sha256).is_err());
        }
        let only_ike = read("ike:pubkey-sha512");
        assert_eq!(only_ike.certificates, Strength::default());
        assert!("rsa,ecdsa".parse::<Constraints>().is_err());
        assert!("rsa-foo".parse::<Constraints>().is_err());
    }
}
