//! The keys of `[conn.NAME]` that are about proving who one is.

use ike_proto::config::SendCertificates;
use ike_proto::identity::{Identity, IdentityPattern};
use pki::ObjectIdentifier;
use pki::revocation::Policy;

use super::conn_keys::ConnDraft;
use super::item::{At, Complaints, Item, collect};
use super::keys::Key;
use super::source::Complaint;
use super::values::identity;
use crate::credentials::Constraints;

/// What a connection says about authentication; the rest is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct AuthDraft {
    pub(super) left: LeftDraft,
    pub(super) left2: LeftDraft,
    pub(super) right: RightDraft,
    pub(super) right2: RightDraft,
    pub(super) send_certificates: Option<SendCertificates>,
    pub(super) send_requests: Option<bool>,
    pub(super) revocation: Option<Policy>,
    pub(super) policies: Vec<ObjectIdentifier>,
}

/// One round of ours.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftDraft {
    pub(super) auth: Option<At<Method>>,
    pub(super) identity: Option<At<Identity>>,
    pub(super) certificates: Vec<At<String>>,
    pub(super) key: Option<At<String>>,
    pub(super) raw: Option<At<String>>,
    pub(super) authorities: Vec<At<String>>,
}

/// One round of the peer's.
#[derive(Clone, Debug, Default)]
pub(super) struct RightDraft {
    pub(super) auth: Option<At<Method>>,
    pub(super) identity: Option<At<IdentityPattern>>,
    pub(super) certificates: Vec<At<String>>,
    pub(super) raw: Vec<At<String>>,
    pub(super) authorities: Vec<At<String>>,
}

/// A way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// A pre-shared key.
    Psk,
    /// A signature, with what is allowed.
    Signature(Constraints),
}

const METHODS: &str = "`psk`, `pubkey`, `rsa`, `rsa/pss`, `ecdsa`, `ed25519`, with sizes and hashes";

/// The keys about authentication.
pub(super) const AUTH_KEYS: &[Key<ConnDraft>] = &[
    Key {
        name: "leftid",
        also_called: &[],
        takes: "identity",
        default: "the subject of `leftcert`, else our address",
        doc: "Who we say we are.",
        set: |draft, item| left_identity(&mut draft.auth.left, item),
    },
    Key {
        name: "leftauth",
        also_called: &[],
        takes: METHODS,
        default: "`pubkey` if a certificate or key of ours is named, else `psk`",
        doc: "How we authenticate ourselves. Hashes limit what we sign with: `rsa/pss-sha384`. SHA-1, which old peers want of \
              RSA keys, must be named: `rsa-sha1-sha256`.",
        set: |draft, item| auth(&mut draft.auth.left.auth, item),
    },
    Key {
        name: "leftcert",
        also_called: &[],
        takes: "file, or a list",
        default: "none",
        doc: "Our certificate, PEM or DER, with the CAs above it if they are in the same file. Of several, one is used whose \
              CA the peer asks for. Looked for in the folder `certs` beside this file, and beside this file.",
        set: |draft, item| files(&mut draft.auth.left.certificates, item),
    },
    Key {
        name: "leftkey",
        also_called: &[],
        takes: "file",
        default: "any key that fits the certificate",
        doc: "Our private key if it has no passphrase. Keys in the folder `private` beside this file, and those that the \
              secrets file names in `[key.NAME]` and `[pkcs12.NAME]`, are found by themselves.",
        set: |draft, item| file(&mut draft.auth.left.key, item),
    },
    Key {
        name: "leftsigkey",
        also_called: &[],
        takes: "file",
        default: "none",
        doc: "Our public key, PEM or DER, to authenticate with it instead of a certificate.",
        set: |draft, item| file(&mut draft.auth.left.raw, item),
    },
    Key {
        name: "leftca",
        also_called: &[],
        takes: "file, or a list",
        default: "what is found in `leftcert` and `cacerts`",
        doc: "CA certificates between ours and the root, which go along with it.",
        set: |draft, item| files(&mut draft.auth.left.authorities, item),
    },
    Key {
        name: "leftauth2",
        also_called: &[],
        takes: METHODS,
        default: "no second round",
        doc: "How we authenticate ourselves in a second round (RFC 4739).",
        set: |draft, item| auth(&mut draft.auth.left2.auth, item),
    },
    Key {
        name: "leftid2",
        also_called: &[],
        takes: "identity",
        default: "the subject of `leftcert2`, else `leftid`",
        doc: "Who we say we are in the second round.",
        set: |draft, item| left_identity(&mut draft.auth.left2, item),
    },
    Key {
        name: "leftcert2",
        also_called: &[],
        takes: "file, or a list",
        default: "none",
        doc: "Our certificate of the second round.",
        set: |draft, item| files(&mut draft.auth.left2.certificates, item),
    },
    Key {
        name: "rightid",
        also_called: &[],
        takes: "identity, `%any`, `*.domain`, `*@domain`, or a distinguished name with `*` for values",
        default: "the subject of `rightcert`, else the peer's address or host name, else `%any`",
        doc: "Who the peer must be. With certificates it must be the subject or an alternative name of the peer's.",
        set: |draft, item| right_identity(&mut draft.auth.right, item),
    },
    Key {
        name: "rightauth",
        also_called: &[],
        takes: METHODS,
        default: "`pubkey` if a certificate, key or CA of the peer is named or we use one ourselves, else `psk`",
        doc: "How the peer must authenticate itself, and how strong its keys and all signatures must be: \
              `rsa-3072-ecdsa-256-sha256-sha384`. With `ike:` in front it holds for the signature in IKE only: \
              `pubkey-sha256,ike:pubkey-sha384`. SHA-1 must be named.",
        set: |draft, item| auth(&mut draft.auth.right.auth, item),
    },
    Key {
        name: "rightcert",
        also_called: &[],
        takes: "file, or a list",
        default: "any that a trusted CA issued",
        doc: "The peer's certificate: this and no other, whoever issued it.",
        set: |draft, item| files(&mut draft.auth.right.certificates, item),
    },
    Key {
        name: "rightsigkey",
        also_called: &[],
        takes: "file, or a list",
        default: "none",
        doc: "The peer's public key, PEM or DER, to authenticate it without a certificate.",
        set: |draft, item| files(&mut draft.auth.right.raw, item),
    },
    Key {
        name: "rightca",
        also_called: &[],
        takes: "distinguished name or file, or a list",
        default: "any of `cacerts`",
        doc: "The CA that must have issued the peer's certificate, directly or through others: the name of one in `cacerts`, \
              or the file of one that only this connection trusts.",
        set: |draft, item| authorities(&mut draft.auth.right.authorities, item),
    },
    Key {
        name: "rightauth2",
        also_called: &[],
        takes: METHODS,
        default: "no second round",
        doc: "How the peer must authenticate itself in a second round (RFC 4739).",
        set: |draft, item| auth(&mut draft.auth.right2.auth, item),
    },
    Key {
        name: "rightid2",
        also_called: &[],
        takes: "identity, `%any`, `*.domain`, `*@domain`, or a distinguished name with `*` for values",
        default: "the subject of `rightcert2`, else `%any`",
        doc: "Who the peer must be in the second round.",
        set: |draft, item| right_identity(&mut draft.auth.right2, item),
    },
    Key {
        name: "rightcert2",
        also_called: &[],
        takes: "file, or a list",
        default: "any that a trusted CA issued",
        doc: "The peer's certificate of the second round.",
        set: |draft, item| files(&mut draft.auth.right2.certificates, item),
    },
    Key {
        name: "rightca2",
        also_called: &[],
        takes: "distinguished name or file, or a list",
        default: "any of `cacerts`",
        doc: "The CA that must have issued the peer's certificate of the second round.",
        set: |draft, item| authorities(&mut draft.auth.right2.authorities, item),
    },
    Key {
        name: "rightcertpolicy",
        also_called: &[],
        takes: "object identifier, or a list",
        default: "any or none",
        doc: "The peer's certificate must be issued under one of these policies.",
        set: |draft, item| {
            let texts = item.texts("an object identifier such as \"1.3.6.1.4.1.99999.1\"")?;
            draft.auth.policies = collect(texts.iter().map(|text| {
                text.as_str().parse().map_err(|_| {
                    text.complain(format!("`{}` is no object identifier", text.as_str()))
                        .expected("expected numbers with dots, such as \"1.3.6.1.4.1.99999.1\"")
                })
            }))?;
            Ok(())
        },
    },
    Key {
        name: "revocation",
        also_called: &[],
        takes: "`strict`, `ifuri` or `relaxed`",
        default: "\"relaxed\"",
        doc: "What to do when it is not known whether the peer's certificate was revoked. `strict`: refuse it. `ifuri`: refuse \
              it if it says where to ask. `relaxed`: accept it. One that is known to be revoked is always refused.",
        set: |draft, item| {
            draft.auth.revocation = Some(item.choice(&[
                ("strict", Policy::Strict),
                ("ifuri", Policy::IfUri),
                ("relaxed", Policy::Relaxed),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "sendcert",
        also_called: &["leftsendcert"],
        takes: "`always`, `ifasked` or `never`",
        default: "\"ifasked\"",
        doc: "When our certificate goes to the peer: always, if it asks for certificates, never.",
        set: |draft, item| {
            draft.auth.send_certificates = Some(item.choice(&[
                ("ifasked", SendCertificates::IfAsked),
                ("always", SendCertificates::Always),
                ("never", SendCertificates::Never),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "sendcertreq",
        also_called: &[],
        takes: "`true` or `false`",
        default: "true",
        doc: "Whether the peer is asked for its certificate, with the CAs that we trust.",
        set: |draft, item| {
            draft.auth.send_requests = Some(item.boolean()?);
            Ok(())
        },
    },
];

impl LeftDraft {
    /// Whether anything is said.
    pub(super) fn is_there(&self) -> bool {
        self.auth.is_some() || self.identity.is_some() || self.names_material()
    }

    /// Whether something is named that a signature needs.
    pub(super) fn names_material(&self) -> bool {
        !self.certificates.is_empty() || self.key.is_some() || self.raw.is_some()
    }
}

impl RightDraft {
    /// Whether anything is said.
    pub(super) fn is_there(&self) -> bool {
        self.auth.is_some() || self.identity.is_some() || self.names_material()
    }

    /// Whether something is named that a signature needs.
    pub(super) fn names_material(&self) -> bool {
        !self.certificates.is_empty() || !self.raw.is_empty() || !self.authorities.is_empty()
    }
}

fn left_identity(draft: &mut LeftDraft, item: Item<'_>) -> Result<(), Complaints> {
    let text = item.text("an identity")?;
    draft.identity = Some(item.at(text.read(identity::identity)?));
    Ok(())
}

fn right_identity(draft: &mut RightDraft, item: Item<'_>) -> Result<(), Complaints> {
    let text = item.text("an identity")?;
    draft.identity = Some(item.at(text.read(identity::pattern)?));
    Ok(())
}

fn files(place: &mut Vec<At<String>>, item: Item<'_>) -> Result<(), Complaints> {
    *place = collect(item.strings("a file")?.iter().map(|text| {
        if text.is_empty() {
            return Err(text.complain("an empty name").expected("expected the name of a file"));
        }
        Ok(At { value: text.as_str().to_owned(), span: text.span() })
    }))?;
    Ok(())
}

fn authorities(place: &mut Vec<At<String>>, item: Item<'_>) -> Result<(), Complaints> {
    files(place, item)
}

fn file(place: &mut Option<At<String>>, item: Item<'_>) -> Result<(), Complaints> {
    let text = item.text("a file")?;
    *place = Some(At { value: text.as_str().to_owned(), span: text.span() });
    Ok(())
}

fn auth(place: &mut Option<At<Method>>, item: Item<'_>) -> Result<(), Complaints> {
    const EXPECTED: &str = "expected \"psk\", \"pubkey\", \"rsa\", \"rsa/pss\", \"ecdsa\" or \"ed25519\", with sizes and hashes if wanted: \
         \"rsa-3072-sha256\"";
    let texts = item.texts("a way to authenticate")?;
    let words: Vec<&str> = texts.iter().map(|text| old_name(text.as_str())).collect();
    let span = if let [text] = texts.as_slice() { text.span() } else { item.span() };
    let complain = |message: String| Complaint::new(span, message).expected(EXPECTED);
    let method = match words.as_slice() {
        ["psk" | "secret"] => Method::Psk,
        [eap, ..] if eap.starts_with("eap") => return Err(complain("EAP is not supported yet".to_owned()).into()),
        [] => return Err(complain("there is no way to authenticate here".to_owned()).into()),
        words => Method::Signature(words.join(",").parse().map_err(|error: crate::credentials::ConstraintError| {
            let known = ["psk", "pubkey", "rsa", "ecdsa", "ed25519"];
            let kind = words.first().and_then(|word| word.split('-').next()).unwrap_or_default();
            let message = match words {
                [word] if *word == kind && !known.contains(word) => format!("`{word}` is no way to authenticate"),
                _ => error.to_string(),
            };
            complain(message).nearest(kind, known.into_iter().filter(|name| *name != kind))
        })?),
    };
    *place = Some(item.at(method));
    Ok(())
}

/// ipsec.conf's older words.
fn old_name(word: &str) -> &str {
    match word {
        "rsasig" => "rsa",
        "ecdsasig" => "ecdsa",
        other => other,
    }
}
