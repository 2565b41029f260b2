//! The keys of `authorities.NAME`.

use super::keys::{Foreign, Key, Toml};

/// What is said about a CA; the certificate is what swanctl sends of its file.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuthorityDraft {
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) crl_uris: Vec<String>,
    pub(crate) ocsp_uris: Vec<String>,
}

/// The keys of a CA.
pub(crate) const AUTHORITY_KEYS: &[Key<AuthorityDraft>] = &[
    Key {
        name: "cacert",
        takes: "CA certificate in `x509ca`",
        default: "it must be there",
        toml: Toml::Together,
        set: |draft, value| {
            draft.certificate = value.octets()?.into_iter().next();
            Ok(())
        },
    },
    Key {
        name: "crl_uris",
        takes: "URIs",
        default: "those of the certificates",
        toml: Toml::Together,
        set: |draft, value| {
            draft.crl_uris = value.list(uri)?;
            Ok(())
        },
    },
    Key {
        name: "ocsp_uris",
        takes: "URIs",
        default: "those of the certificates",
        toml: Toml::Together,
        set: |draft, value| {
            draft.ocsp_uris = value.list(uri)?;
            Ok(())
        },
    },
    Key {
        name: "cert_uri_base",
        takes: "nothing",
        default: "certificates are not sent by hash and URL",
        toml: Toml::Nothing,
        set: |_, value| value.only(&[""]),
    },
];

/// Keys of a CA that mean something here nobody does.
pub(crate) const FOREIGN_KEYS: &[Foreign] = &[
    Foreign { name: "file", advice: "swanctl reads certificates itself: use cacert" },
    Foreign { name: "handle", advice: "there are no tokens" },
    Foreign { name: "slot", advice: "there are no tokens" },
    Foreign { name: "module", advice: "there are no tokens" },
];

fn uri(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("an empty URI") } else { Ok(text.to_owned()) }
}
