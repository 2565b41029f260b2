//! The keys of the sections `local…` and `remote…` of a connection: rounds of authentication.

use ike_proto::identity::{Identity, IdentityPattern};
use pki::ObjectIdentifier;
use pki::dn::DistinguishedName;
use pki::revocation::Policy;

use super::keys::{Foreign, Key, Toml};
use crate::config::values::identity;
use crate::credentials::Constraints;

/// How one end authenticates itself in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// By a pre-shared key.
    Psk,
    /// By a signature, with what is allowed.
    Signature(Constraints),
}

/// A round of ours; certificates and keys are what swanctl sends of their files.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalDraft {
    pub(crate) round: u32,
    pub(crate) method: Option<Method>,
    pub(crate) identity: Option<Identity>,
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) keys: Vec<Vec<u8>>,
}

/// A round of the peer's.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteDraft {
    pub(crate) round: u32,
    pub(crate) method: Option<Method>,
    pub(crate) identity: Option<IdentityPattern>,
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) authorities: Vec<Vec<u8>>,
    pub(crate) authority: Option<DistinguishedName>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) policies: Vec<ObjectIdentifier>,
    pub(crate) revocation: Policy,
}

const METHODS: &str = "`psk`, `pubkey`, `rsa`, `rsa/pss`, `ecdsa`, `ed25519`, with sizes and hashes";

/// The keys of `local…`.
pub(crate) const LOCAL_KEYS: &[Key<LocalDraft>] = &[
    Key {
        name: "round",
        takes: "number",
        default: "the order of the file",
        toml: Toml::Together,
        set: |draft, value| {
            draft.round = value.number()?;
            Ok(())
        },
    },
    Key {
        name: "auth",
        takes: METHODS,
        default: "`pubkey`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.method = Some(value.read(method)?);
            Ok(())
        },
    },
    Key {
        name: "id",
        takes: "identity",
        default: "the subject of the certificate, else our address",
        toml: Toml::Together,
        set: |draft, value| {
            // `%any` is "our address", as leaving it out.
            draft.identity = match value.text()? {
                "%any" => None,
                _ => Some(value.read(identity::identity)?),
            };
            Ok(())
        },
    },
    Key {
        name: "certs",
        takes: "certificates in `x509`",
        default: "any with a key and our identity",
        toml: Toml::Together,
        set: |draft, value| {
            draft.certificates = value.octets()?;
            Ok(())
        },
    },
    Key {
        name: "pubkeys",
        takes: "public keys in `pubkey`",
        default: "none",
        toml: Toml::Together,
        set: |draft, value| {
            draft.keys = value.octets()?;
            Ok(())
        },
    },
];

/// The keys of `remote…`.
pub(crate) const REMOTE_KEYS: &[Key<RemoteDraft>] = &[
    Key {
        name: "round",
        takes: "number",
        default: "the order of the file",
        toml: Toml::Together,
        set: |draft, value| {
            draft.round = value.number()?;
            Ok(())
        },
    },
    Key {
        name: "auth",
        takes: METHODS,
        default: "`pubkey`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.method = Some(value.read(method)?);
            Ok(())
        },
    },
    Key {
        name: "id",
        takes: "identity, with or without wildcards",
        default: "the subject of the first of `certs`, else `%any`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.identity = Some(value.read(identity::pattern)?);
            Ok(())
        },
    },
    Key {
        name: "certs",
        takes: "certificates in `x509`",
        default: "any that a trusted CA issued",
        toml: Toml::Together,
        set: |draft, value| {
            draft.certificates = value.octets()?;
            Ok(())
        },
    },
    Key {
        name: "cacerts",
        takes: "CA certificates in `x509ca`",
        default: "any trusted CA",
        toml: Toml::Together,
        set: |draft, value| {
            draft.authorities = value.octets()?;
            Ok(())
        },
    },
    Key {
        name: "ca_id",
        takes: "distinguished name of a CA",
        default: "any trusted CA",
        toml: Toml::Together,
        set: |draft, value| {
            draft.authority = Some(value.read(str::parse)?);
            Ok(())
        },
    },
    Key {
        name: "pubkeys",
        takes: "public keys in `pubkey`",
        default: "none",
        toml: Toml::Together,
        set: |draft, value| {
            draft.keys = value.octets()?;
            Ok(())
        },
    },
    Key {
        name: "cert_policy",
        takes: "object identifiers",
        default: "any",
        toml: Toml::Together,
        set: |draft, value| {
            draft.policies = value.list(str::parse)?;
            Ok(())
        },
    },
    Key {
        name: "revocation",
        takes: "`relaxed`, `ifuri` or `strict`",
        default: "`relaxed`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.revocation =
                value.choice(&[("relaxed", Policy::Relaxed), ("ifuri", Policy::IfUri), ("strict", Policy::Strict)])?;
            Ok(())
        },
    },
];

/// Keys about authentication that mean something here nobody does.
pub(crate) const FOREIGN_KEYS: &[Foreign] = &[
    Foreign { name: "eap_id", advice: "EAP is not spoken" },
    Foreign { name: "aaa_id", advice: "EAP is not spoken" },
    Foreign { name: "xauth_id", advice: "it belongs to IKEv1" },
    Foreign { name: "groups", advice: "peers have no groups here; use id, ca_id or cert_policy" },
];

fn method(text: &str) -> Result<Method, String> {
    if text == "psk" {
        Ok(Method::Psk)
    } else if text.starts_with("eap") || text.starts_with("xauth") {
        Err(format!("{text} is not supported"))
    } else {
        text.parse().map(Method::Signature).map_err(|error: crate::credentials::ConstraintError| error.to_string())
    }
}
