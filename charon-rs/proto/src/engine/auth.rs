//! Proving and checking identities with pre-shared keys (RFC 7296 §2.15).

use std::collections::BTreeMap;

use super::failure::{Incompatible, abridged};
use super::session::Session;
use crate::config::SharedSecret;
use crate::crypto::auth::{SignedOctets, fits_without_trailing_whitespace, psk_auth, verify_psk_auth};
use crate::identity::Identity;
use crate::io::FailureCode;
use crate::wire::{Authentication, AuthenticationMethod, Identification, NotifyType, Role};

/// The peer proved that it is who it says. Only [`verify_peer`] makes it, so no SA is established without. An SA that
/// replaces another has a copy of it.
#[derive(Clone, Debug)]
pub(super) struct PeerAuthenticated(());

/// Both IKE_SA_INIT messages that made the keys, as they were on the wire.
#[derive(Debug)]
pub(super) struct InitMessages {
    pub(super) ours: Vec<u8>,
    pub(super) theirs: Vec<u8>,
}

/// Both identities of an SA. The peer's may be a guess before the peer has named itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identities<'a> {
    pub(super) local: &'a Identity,
    pub(super) remote: &'a Identity,
}

/// Our AUTH payload.
pub(super) fn prove_ourselves(
    secrets: &BTreeMap<String, SharedSecret>,
    session: &Session,
    messages: &InitMessages,
    our_id: &Identification,
    identities: Identities<'_>,
) -> Result<Authentication, Incompatible> {
    let secret = find_secret(secrets, identities).ok_or_else(|| no_secret(secrets, identities))?;
    let signed = signed_by(session, session.names.role, &messages.ours, our_id);
    let data = psk_auth(session.suite.prf, secret.secret.expose(), &signed).expose().clone();
    Ok(Authentication { method: AuthenticationMethod::SharedKey, data })
}

/// Checks the peer's AUTH payload.
pub(super) fn verify_peer(
    secrets: &BTreeMap<String, SharedSecret>,
    session: &Session,
    messages: &InitMessages,
    (peer_id, auth): (&Identification, &Authentication),
    identities: Identities<'_>,
) -> Result<PeerAuthenticated, Incompatible> {
    if auth.method != AuthenticationMethod::SharedKey {
        return Err(Incompatible {
            code: FailureCode::AuthMethodRefused,
            notify: NotifyType::AuthenticationFailed,
            what: format!("the peer `{}` authenticates itself by {}", identities.remote, auth.method),
            ours: vec![AuthenticationMethod::SharedKey.to_string()],
            theirs: vec![auth.method.to_string()],
            hint: Some("have the peer use a pre-shared key for this connection".to_owned()),
        });
    }
    let secret = find_secret(secrets, identities).ok_or_else(|| no_secret(secrets, identities))?;
    let signed = signed_by(session, session.names.role.peer(), &messages.theirs, peer_id);
    let fits =
        |candidate: &SharedSecret| verify_psk_auth(session.suite.prf, candidate.secret.expose(), &signed, &auth.data);
    if fits(secret) {
        return Ok(PeerAuthenticated(()));
    }
    let trimmed = |candidate: &SharedSecret| {
        fits_without_trailing_whitespace(session.suite.prf, candidate.secret.expose(), &signed, &auth.data)
    };
    let hint = if trimmed(secret) {
        format!("the peer's key is that of secret `{}` without the white space at its end: remove it", secret.name)
    } else if let Some(other) = secrets.values().take(OTHER_SECRETS).find(|other| fits(other)) {
        format!("the peer uses the key of secret `{}`, which is not for these identities", other.name)
    } else {
        format!("give both ends the same key; ours is secret `{}`", secret.name)
    };
    Err(Incompatible {
        code: FailureCode::AuthPskMismatch,
        notify: NotifyType::AuthenticationFailed,
        what: format!("the proof of `{}` does not fit our pre-shared key", identities.remote),
        ours: vec![format!("secret `{}` for `{}` and `{}`", secret.name, identities.local, identities.remote)],
        theirs: Vec::new(),
        hint: Some(hint),
    })
}

/// What the side in `role` signs.
fn signed_by<'a>(
    session: &'a Session,
    role: Role,
    message: &'a [u8],
    identification: &'a Identification,
) -> SignedOctets<'a> {
    let (sk_p, peer_nonce) = match role {
        Role::OriginalInitiator => (&session.keys.sk_pi, &session.nonce_r),
        Role::OriginalResponder => (&session.keys.sk_pr, &session.nonce_i),
    };
    SignedOctets { message, peer_nonce, sk_p, id_body: identification.octets() }
}

/// The secret that is meant for these identities most specifically: for both of them, then for one, then for everybody.
/// Among equals the first by name.
fn find_secret<'a>(
    secrets: &'a BTreeMap<String, SharedSecret>,
    identities: Identities<'_>,
) -> Option<&'a SharedSecret> {
    let rank = |secret: &SharedSecret| {
        let names = |wanted: &Identity| secret.owners.iter().any(|owner| owner.same_as(wanted));
        let (local, remote) = (names(identities.local), names(identities.remote));
        match secret.owners.len() {
            0 => Some(1),
            1 if remote => Some(3),
            1 if local => Some(2),
            1 => None,
            _ => (local && remote).then_some(4),
        }
    };
    let mut best = None;
    for secret in secrets.values() {
        let rank = rank(secret);
        if rank > best.map(|(rank, _)| rank).unwrap_or_default() {
            best = Some((rank, secret));
        }
    }
    best.map(|(_, secret)| secret)
}

fn no_secret(secrets: &BTreeMap<String, SharedSecret>, identities: Identities<'_>) -> Incompatible {
    let Identities { local, remote } = identities;
    let ours = secrets.values().map(|secret| {
        let owners: Vec<String> = secret.owners.iter().map(ToString::to_string).collect();
        format!(
            "secret `{}` for {}",
            secret.name,
            if owners.is_empty() { "everybody".into() } else { owners.join(", ") }
        )
    });
    Incompatible {
        code: FailureCode::AuthNoPsk,
        notify: NotifyType::AuthenticationFailed,
        what: format!("there is no pre-shared key for `{local}` and `{remote}`"),
        ours: abridged(ours),
        theirs: vec![format!("identity `{remote}`")],
        hint: Some(format!("add a secret with `{local}` and `{remote}` as its owners")),
    }
}

/// Secrets that are tried to explain a failure: a stranger must not make us try thousands.
const OTHER_SECRETS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, owners: &[&str]) -> (String, SharedSecret) {
        let owners = owners.iter().map(|owner| Identity::Fqdn((*owner).to_owned())).collect();
        (name.to_owned(), SharedSecret { name: name.to_owned(), owners, secret: vec![1].into() })
    }

    #[test]
    fn the_most_specific_secret_is_taken() {
        let (local, remote) = (Identity::Fqdn("moon".into()), Identity::Fqdn("SUN".into()));
        let identities = Identities { local: &local, remote: &remote };
        let all = [
            secret("everybody", &[]),
            secret("for-us", &["moon"]),
            secret("for-peer", &["sun"]),
            secret("pair", &["moon", "sun"]),
            secret("strangers", &["moon", "venus"]),
        ];
        let found = |secrets: &[(String, SharedSecret)]| {
            find_secret(&secrets.iter().cloned().collect(), identities).map(|secret| secret.name.clone())
        };
        assert_eq!(found(&all).as_deref(), Some("pair"));
        assert_eq!(found(&all[..3]).as_deref(), Some("for-peer"));
        assert_eq!(found(&all[..2]).as_deref(), Some("for-us"));
        assert_eq!(found(&all[..1]).as_deref(), Some("everybody"));
        assert_eq!(found(&all[4..]), None);
    }
}
