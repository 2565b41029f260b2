//! Why a path is not right.

use der::asn1::ObjectIdentifier;

use crate::certificate::KeyPurpose;
use crate::key::{KeyError, KeyType};
use crate::signature::{AlgorithmError, SignatureScheme};
use crate::time::UnixTime;

/// Why a certificate cannot be trusted. `subject` is always the certificate at fault; names are as text, safe for logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Nobody is known who could have issued it.
    #[error("the issuer `{issuer}` of `{subject}` is not known")]
    UnknownIssuer {
        /// The certificate.
        subject: String,
        /// The issuer it names.
        issuer: String,
    },
    /// It signed itself and is no trust anchor.
    #[error("`{subject}` is self-signed and not trusted")]
    SelfSigned {
        /// The certificate.
        subject: String,
    },
    /// There are certificates with the issuer's name, but none made the signature.
    #[error("the signature of `{issuer}` on `{subject}` is wrong")]
    BadSignature {
        /// The certificate.
        subject: String,
        /// The issuer it names.
        issuer: String,
    },
    /// The signature is made in a way that we do not know or accept.
    #[error("the signature on `{subject}` cannot be checked: {why}")]
    SignatureAlgorithm {
        /// The certificate.
        subject: String,
        /// What is wrong.
        why: AlgorithmError,
    },
    /// The key is of a kind that we do not know.
    #[error("the key of `{subject}` cannot be used: {why}")]
    Key {
        /// The certificate.
        subject: String,
        /// What is wrong.
        why: KeyError,
    },
    /// Its time is over.
    #[error("`{subject}` expired at {not_after}; now it is {now}")]
    Expired {
        /// The certificate.
        subject: String,
        /// The last second of its validity.
        not_after: UnixTime,
        /// What we take for the time.
        now: UnixTime,
    },
    /// Its time has not come.
    #[error("`{subject}` is not valid before {not_before}; now it is {now}")]
    NotYetValid {
        /// The certificate.
        subject: String,
        /// The first second of its validity.
        not_before: UnixTime,
        /// What we take for the time.
        now: UnixTime,
    },
    /// It signed a certificate and is no CA.
    #[error("`{subject}` is used as a CA, but it is none")]
    NotCa {
        /// The certificate of the issuer.
        subject: String,
    },
    /// Its key usage does not allow what the key was used for.
    #[error("the key usage of `{subject}` lacks {missing}")]
    KeyUsage {
        /// The certificate.
        subject: String,
        /// The bit that is not set.
        missing: &'static str,
    },
    /// More CAs follow it than it allows.
    #[error("`{subject}` allows {allowed} CAs below it, but there are more")]
    PathLength {
        /// The CA that sets the limit.
        subject: String,
        /// The limit.
        allowed: u8,
    },
    /// A name that is outside of what a CA above may certify.
    #[error("the name `{name}` of `{subject}` is not within what `{authority}` may certify")]
    NameNotPermitted {
        /// The certificate.
        subject: String,
        /// The name.
        name: String,
        /// The CA with the constraint.
        authority: String,
    },
    /// A name that a CA above must not certify.
    #[error("the name `{name}` of `{subject}` is excluded by `{authority}` (`{excluded}`)")]
    NameExcluded {
        /// The certificate.
        subject: String,
        /// The name.
        name: String,
        /// The CA with the constraint.
        authority: String,
        /// The constraint.
        excluded: String,
    },
    /// A name and a constraint of a kind that we cannot compare.
    #[error("the name `{name}` of `{subject}` cannot be compared with the name constraints of `{authority}`")]
    NameUnsupported {
        /// The certificate.
        subject: String,
        /// The name.
        name: String,
        /// The CA with the constraint.
        authority: String,
    },
    /// So many names and constraints that comparing them all would keep us busy.
    #[error("`{subject}` has too many names to compare them with the name constraints above it")]
    TooManyNames {
        /// The certificate.
        subject: String,
    },
    /// An extension that must be understood and is not.
    #[error("`{subject}` has the critical extension {extension}, which is not known")]
    CriticalExtension {
        /// The certificate.
        subject: String,
        /// The extension.
        extension: ObjectIdentifier,
    },
    /// No policy is left that all certificates agree on, or a mapping of `anyPolicy`.
    #[error("`{subject}` is not valid under any of the certificate policies that are wanted")]
    Policy {
        /// The certificate at which the last policy was lost.
        subject: String,
    },
    /// A key that is too weak, or of a kind that is not wanted.
    #[error("the key of `{subject}` ({key}) is not allowed: {wanted}")]
    WeakKey {
        /// The certificate.
        subject: String,
        /// Its key.
        key: KeyType,
        /// What is allowed.
        wanted: String,
    },
    /// A signature over a hash that is too weak, or made in a way that is not wanted.
    #[error("the signature on `{subject}` ({scheme}) is not allowed: {wanted}")]
    WeakSignature {
        /// The certificate.
        subject: String,
        /// How it is signed.
        scheme: SignatureScheme,
        /// What is allowed.
        wanted: String,
    },
    /// It is made for something else.
    #[error("`{subject}` is for {}, not for {}", list(has), list(wanted))]
    Purpose {
        /// The certificate.
        subject: String,
        /// What it is for.
        has: Vec<KeyPurpose>,
        /// What it should be for.
        wanted: Vec<KeyPurpose>,
    },
    /// The path is right, but comes over none of the CAs that the configuration wants.
    #[error("`{subject}` is trusted, but none of the CAs that are wanted here is among its issuers: {issuers}")]
    Authority {
        /// The certificate.
        subject: String,
        /// The issuers.
        issuers: String,
    },
    /// A path longer than anybody needs.
    #[error("there are more than {limit} certificates between `{subject}` and a trust anchor")]
    TooLong {
        /// The certificate where we gave up.
        subject: String,
        /// The limit.
        limit: usize,
    },
    /// So many certificates with the same names that it is no accident.
    #[error("no path from `{subject}` to a trust anchor was found in {limit} attempts")]
    TooManyAttempts {
        /// The certificate to be validated.
        subject: String,
        /// The limit.
        limit: u32,
    },
}

impl PathError {
    /// How far a path got that failed so: the reason that tells most is that of the path that got furthest.
    pub(super) fn progress(&self) -> u8 {
        match self {
            Self::UnknownIssuer { .. } | Self::SelfSigned { .. } => 0,
            Self::TooLong { .. } => 1,
            Self::BadSignature { .. } | Self::SignatureAlgorithm { .. } | Self::Key { .. } => 2,
            Self::TooManyAttempts { .. } => 3,
            Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::NotCa { .. }
            | Self::KeyUsage { .. }
            | Self::PathLength { .. }
            | Self::NameNotPermitted { .. }
            | Self::NameExcluded { .. }
            | Self::NameUnsupported { .. }
            | Self::TooManyNames { .. }
            | Self::CriticalExtension { .. }
            | Self::WeakKey { .. }
            | Self::WeakSignature { .. } => 4,
            Self::Policy { .. } | Self::Purpose { .. } => 5,
            Self::Authority { .. } => 6,
        }
    }
}

fn list(purposes: &[KeyPurpose]) -> String {
    match purposes {
        [] => "nothing".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
    }
}
