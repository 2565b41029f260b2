//! Why a proof does not count, for people: a stable code, both sides' lines, and the key of the configuration that decides.

use ike_proto::identity::Identity;
use ike_proto::io::{FailureCode, ProofRefusal};
use pki::certificate::Certificate;
use pki::path::PathError;
use pki::revocation::{Policy, Status};

use super::names;

/// A refusal with nothing but its code and what happened.
pub(super) fn refusal(code: FailureCode, what: impl Into<String>) -> ProofRefusal {
    ProofRefusal { code, what: what.into(), ours: Vec::new(), theirs: Vec::new(), hint: None }
}

/// The configuration changed while the peer was authenticated.
pub(super) fn reconfigured() -> ProofRefusal {
    refusal(FailureCode::Local, "the configuration of the connection changed in between")
}

/// Too much is being signed or verified already.
pub(super) fn busy() -> ProofRefusal {
    refusal(FailureCode::Local, "too many signatures are being made and checked already")
}

/// Neither a certificate from the peer nor one for it.
pub(super) fn no_certificate(identity: &Identity) -> ProofRefusal {
    ProofRefusal {
        theirs: vec![format!("identity {identity}, no certificate")],
        hint: Some(
            "have the peer send its certificate (its sendcert), or name it here: rightcert = \"FILE\"".to_owned(),
        ),
        ..refusal(FailureCode::AuthNoCertificate, "the peer sent no certificate, and none of it is known here")
    }
}

/// The identity is no name of the certificate.
pub(super) fn other_identity(certificate: &Certificate, identity: &Identity) -> ProofRefusal {
    let mut theirs = vec![format!("identity {identity}")];
    theirs.extend(names::of(certificate).into_iter().map(|name| format!("certificate for {name}")));
    let hint = "the peer must say who it is by one of these names (its leftid), or get a certificate with this one";
    ProofRefusal {
        theirs,
        hint: Some(hint.to_owned()),
        ..refusal(FailureCode::AuthIdNotInCertificate, "the peer's certificate is for other names than it says it has")
    }
}

/// Another certificate or key than the one that is configured.
pub(super) fn not_pinned(ours: Vec<String>, theirs: String) -> ProofRefusal {
    ProofRefusal {
        ours,
        theirs: vec![theirs],
        hint: Some("put the peer's new certificate into rightcert, or its key into rightsigkey".to_owned()),
        ..refusal(
            FailureCode::AuthCertificateNotPinned,
            "the peer's certificate or key is not the one that is configured",
        )
    }
}

/// What it takes that the status of a certificate counts.
pub(super) fn status(certificate: &Certificate, status: Status, policy: Policy) -> ProofRefusal {
    let subject = certificate.subject();
    if let Status::Revoked { .. } = status {
        return ProofRefusal {
            hint: Some("the peer needs a new certificate".to_owned()),
            ..refusal(FailureCode::AuthCertificateRevoked, format!("`{subject}` is {status}"))
        };
    }
    let policy = if policy == Policy::Strict { "strict" } else { "ifuri" };
    let code =
        if let Status::Stale { .. } = status { FailureCode::AuthCrlStale } else { FailureCode::AuthCrlUnavailable };
    ProofRefusal {
        ours: vec![format!("revocation = \"{policy}\"")],
        hint: Some(
            "make its CRL or OCSP responder reachable, put the CRL into `crls`, or set revocation = \"relaxed\""
                .to_owned(),
        ),
        ..refusal(code, format!("it is not known whether `{subject}` was revoked: its status is {status}"))
    }
}

/// What is wrong with a path.
pub(super) fn path(error: &PathError) -> ProofRefusal {
    use FailureCode as Code;
    let (code, hint) = match error {
        PathError::UnknownIssuer { issuer, .. } => (
            Code::AuthNoCa,
            format!(
                "put the certificate of `{issuer}` into the folder of `cacerts`; if it is a CA below a trusted one, \
                     the peer must send it"
            ),
        ),
        PathError::SelfSigned { .. } => {
            (Code::AuthNoCa, "rightcert = \"FILE\" trusts just this certificate".to_owned())
        }
        PathError::BadSignature { issuer, .. } => (
            Code::AuthChainWrong,
            format!("the CA `{issuer}` may have a new key: put its new certificate into the folder of `cacerts`"),
        ),
        PathError::Expired { .. } => {
            (Code::AuthCertificateExpired, "renew it, and check the clock of this machine".to_owned())
        }
        PathError::NotYetValid { .. } => {
            (Code::AuthCertificateNotYetValid, "check the clocks of both machines".to_owned())
        }
        PathError::NotCa { .. } => {
            (Code::AuthChainWrong, "only a certificate with the CA flag can issue others".to_owned())
        }
        PathError::PathLength { .. } | PathError::TooLong { .. } | PathError::TooManyAttempts { .. } => {
            (Code::AuthChainWrong, "name the CA nearest to the peer: rightca = \"FILE\"".to_owned())
        }
        PathError::KeyUsage { .. } | PathError::Purpose { .. } => (
            Code::AuthKeyUsage,
            "it needs the key usage digitalSignature and, if it names purposes at all, serverAuth, clientAuth or \
             ipsecIKE"
                .to_owned(),
        ),
        PathError::NameNotPermitted { .. }
        | PathError::NameExcluded { .. }
        | PathError::NameUnsupported { .. }
        | PathError::TooManyNames { .. } => {
            (Code::AuthNameConstraints, "the CA must issue a certificate with names that it may certify".to_owned())
        }
        PathError::CriticalExtension { .. } => {
            (Code::AuthCriticalExtension, "have it issued without that extension, or not critical".to_owned())
        }
        PathError::Policy { .. } => (Code::AuthPolicy, "rightcertpolicy tells which policies are wanted".to_owned()),
        PathError::Authority { .. } => (Code::AuthCaRefused, "rightca tells which CA is wanted".to_owned()),
        PathError::WeakKey { .. } | PathError::Key { .. } => {
            (Code::AuthKeyTooWeak, "rightauth tells which keys are accepted, such as \"rsa-3072-ecdsa-256\"".to_owned())
        }
        PathError::WeakSignature { .. } | PathError::SignatureAlgorithm { .. } => (
            Code::AuthAlgorithmRefused,
            "rightauth tells which hashes are accepted, such as \"pubkey-sha256-sha384\"".to_owned(),
        ),
        _ => (Code::AuthNoCa, "see `pki verify`".to_owned()),
    };
    ProofRefusal { hint: Some(hint), ..refusal(code, format!("the peer's certificate does not count: {error}")) }
}
