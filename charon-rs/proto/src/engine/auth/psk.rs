//! Pre-shared keys: which one is meant, our proof by it and the peer's (RFC 7296 §2.15).

use std::cmp::Reverse;

use super::proof::Audience;
use crate::config::SharedSecret;
use crate::crypto::auth::{fits_without_trailing_whitespace, psk_auth, verify_psk_auth};
use crate::engine::failure::{Incompatible, Trouble, abridged};
use crate::engine::secrets::Secrets;
use crate::engine::session::Session;
use crate::identity::{Identity, IdentityPattern};
use crate::io::{ConfigKey, Cure, FailureCode};
use crate::wire::NotifyType;

/// The Authentication Data that proves that we are `our_id` to whoever has the same key.
pub(super) fn prove(
    secrets: &Secrets,
    session: &Session,
    octets: &[u8],
    our_id: &Identity,
    audience: Audience<'_>,
) -> Result<Vec<u8>, Trouble> {
    let secret = find_secret(secrets, our_id, audience).ok_or_else(|| no_secret(secrets, our_id, audience))?;
    Ok(psk_auth(session.suite.prf, secret.secret.expose(), octets).expose().clone())
}

/// Checks the Authentication Data of a peer that says that it is `identity`.
pub(super) fn verify(
    secrets: &Secrets,
    session: &Session,
    octets: &[u8],
    received: &[u8],
    (our_id, identity): (&Identity, &Identity),
) -> Result<(), Trouble> {
    let audience = Audience::Named(identity);
    let secret = find_secret(secrets, our_id, audience).ok_or_else(|| no_secret(secrets, our_id, audience))?;
    let prf = session.suite.prf;
    let fits = |candidate: &SharedSecret| verify_psk_auth(prf, candidate.secret.expose(), octets, received);
    if fits(secret) {
        return Ok(());
    }
    let hint = if fits_without_trailing_whitespace(prf, secret.secret.expose(), octets, received) {
        format!("the peer's key is that of secret `{}` without the white space at its end: remove it", secret.name)
    } else if let Some(other) = secrets.iter().take(OTHER_SECRETS).find(|other| fits(other)) {
        format!("the peer uses the key of secret `{}`, which is not for these identities", other.name)
    } else {
        format!("give both ends the same key; ours is secret `{}`", secret.name)
    };
    Err(Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::AuthPskMismatch,
        notify: NotifyType::AuthenticationFailed,
        what: format!("the proof of `{identity}` does not fit our pre-shared key"),
        ours: vec![format!("secret `{}` for `{our_id}` and `{identity}`", secret.name)],
        theirs: Vec::new(),
        hint: Some(hint),
        cure: Some(Cure { key: ConfigKey::Secret, value: None, of: Some(secret.name.clone()) }),
    })))
}

/// The secret that is meant for us and the peer most specifically; among equals the first by name.
fn find_secret<'a>(secrets: &'a Secrets, our_id: &Identity, audience: Audience<'_>) -> Option<&'a SharedSecret> {
    let probably = match audience {
        Audience::Named(identity) | Audience::OneOf(IdentityPattern::Exactly(identity), _) => identity,
        Audience::OneOf(_, address) => address,
    };
    let of_one = secrets.only_of(probably).chain(secrets.only_of(our_id));
    let likely = secrets.of_both(our_id, probably).chain(of_one).chain(secrets.of_everybody());
    // Only a secret of ours can turn out to be for a peer that has not named itself.
    best_of(likely, our_id, audience).or_else(|| best_of(secrets.of(our_id), our_id, audience))
}

fn best_of<'a>(
    candidates: impl Iterator<Item = &'a SharedSecret>,
    our_id: &Identity,
    audience: Audience<'_>,
) -> Option<&'a SharedSecret> {
    let fitting = candidates.map(|secret| (fit_of(secret, our_id, audience), secret));
    let best = fitting.filter(|(fit, _)| *fit != Fit::None).max_by_key(|(fit, secret)| (*fit, Reverse(&secret.name)));
    best.map(|(_, secret)| secret)
}

/// How well a secret fits, from the worst: for strongSwan, too, the peer weighs more than we do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It is for others.
    #[default]
    None,
    /// The peer has not named itself, and may turn out to be an owner.
    Possible,
    Everybody,
    Ours,
    Peers,
    Both,
}

fn fit_of(secret: &SharedSecret, our_id: &Identity, audience: Audience<'_>) -> Fit {
    let owners = secret.owners.as_slice();
    let ours = owners.iter().any(|owner| owner.same_as(our_id));
    let (theirs, possibly_theirs) = match audience {
        Audience::Named(identity) => (owners.iter().any(|owner| owner.same_as(identity)), false),
        Audience::OneOf(pattern, address) => (
            owners.iter().any(|owner| pattern.matches(owner) && (pattern.is_exact() || owner.same_as(address))),
            owners.iter().any(|owner| pattern.matches(owner) && !owner.same_as(our_id)),
        ),
    };
    match owners {
        [] => Fit::Everybody,
        [_] if theirs => Fit::Peers,
        [_] if ours => Fit::Ours,
        [_, _, ..] if ours && theirs => Fit::Both,
        [_, _, ..] if ours && possibly_theirs => Fit::Possible,
        _ => Fit::None,
    }
}

fn no_secret(secrets: &Secrets, our_id: &Identity, audience: Audience<'_>) -> Trouble {
    let peer = audience.to_string();
    let ours = secrets.iter().map(|secret| {
        let owners: Vec<String> = secret.owners.iter().map(ToString::to_string).collect();
        let owners = if owners.is_empty() { "everybody".into() } else { owners.join(", ") };
        format!("secret `{}` for {owners}", secret.name)
    });
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::AuthNoPsk,
        notify: NotifyType::AuthenticationFailed,
        what: format!("there is no pre-shared key for `{our_id}` and `{peer}`"),
        ours: abridged(ours),
        theirs: vec![format!("identity `{peer}`")],
        hint: Some(format!("add a secret with `{our_id}` and `{peer}` as its owners")),
        cure: Some(Cure::new(ConfigKey::Secret, Some(format!("{our_id},{peer}")))),
    }))
}

/// Secrets that are tried to explain a failure: a stranger must not make us try thousands.
const OTHER_SECRETS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretKind;

    fn fqdn(name: &str) -> Identity {
        Identity::Fqdn(name.to_owned())
    }

    fn secret(name: &str, owners: &[&str]) -> SharedSecret {
        let owners = owners.iter().map(|owner| fqdn(owner)).collect();
        SharedSecret { name: name.to_owned(), kind: SecretKind::Ike, owners, secret: vec![1].into() }
    }

    fn found(all: &[SharedSecret], audience: Audience<'_>) -> Option<String> {
        let mut secrets = Secrets::default();
        all.iter().for_each(|secret| secrets.insert(secret.clone()));
        find_secret(&secrets, &fqdn("moon"), audience).map(|secret| secret.name.clone())
    }

    #[test]
    fn the_most_specific_secret_is_taken() {
        let sun = fqdn("SUN");
        let all = [
            secret("everybody", &[]),
            secret("for-us", &["moon"]),
            secret("for-peer", &["sun"]),
            secret("pair", &["moon", "sun"]),
            secret("strangers", &["moon", "venus"]),
        ];
        let found = |secrets| found(secrets, Audience::Named(&sun));
        assert_eq!(found(&all).as_deref(), Some("pair"));
        assert_eq!(found(&all[..3]).as_deref(), Some("for-peer"));
        assert_eq!(found(&all[..2]).as_deref(), Some("for-us"));
        assert_eq!(found(&all[..1]).as_deref(), Some("everybody"));
        assert_eq!(found(&all[4..]), None);
    }

    #[test]
    fn a_peer_that_is_not_named_yet_is_known_by_address_or_by_being_the_only_one() {
        let address = Identity::Ipv4([192, 0, 2, 2].into());
        let any = Audience::OneOf(&IdentityPattern::Any, &address);
        let mut by_address = secret("address", &["moon"]);
        by_address.owners.push(address.clone());
        let all = [secret("sun", &["moon", "sun"]), secret("everybody", &[]), by_address];
        assert_eq!(found(&all, any).as_deref(), Some("address"));
        assert_eq!(found(&all[..2], any).as_deref(), Some("everybody"));
        assert_eq!(found(&all[..1], any).as_deref(), Some("sun"));
        let elsewhere = IdentityPattern::FqdnUnder("example.org".into());
        assert_eq!(found(&all[..1], Audience::OneOf(&elsewhere, &address)), None);
    }
}
