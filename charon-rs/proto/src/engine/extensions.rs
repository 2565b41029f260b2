//! Extensions of IKEv2 that both ends announce to each other, by notifications, before they use them.

use std::sync::Arc;

use super::redirect::announces_redirect;
use crate::Settings;
use crate::config::{Childless, Connection, Fragmentation, LocalMethod, RemoteMethod};
use crate::proposal::IkeProposal;
use crate::wire::{Notify, NotifyType, Payload};

/// What the peer announced. It holds for the IKE SA and for those that replace it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// Both ends understand fragments (RFC 7383 §2.3).
    pub(super) fragmentation: bool,
    /// It does IKE_INTERMEDIATE exchanges (RFC 9242 §3.1).
    pub(super) intermediate: bool,
    /// It can mix post-quantum pre-shared keys into the keys (RFC 8784 §3).
    pub(super) ppk: bool,
    /// The numbers of the hashes that it takes in signatures of method 14 (RFC 7427 §4); `None` if it does not know that
    /// method.
    pub(super) signature_hashes: Option<Vec<u16>>,
    /// It does several rounds of authentication (RFC 4739).
    pub(super) multiple_auth: bool,
    /// It sets up IKE SAs without a Child SA (RFC 6023).
    pub(super) childless: bool,
    /// It can be redirected (RFC 5685).
    pub(super) redirect: bool,
}

impl Extensions {
    /// Reads the notifications of the peer's IKE_SA_INIT message.
    pub(super) fn announced_in_init<'a>(connection: &Connection, notifies: impl Iterator<Item = &'a Notify>) -> Self {
        let mut extensions = Self::default();
        for notify in notifies {
            if notify.kind == NotifyType::FragmentationSupported {
                extensions.fragmentation = understands_fragments(connection);
            } else if notify.kind == NotifyType::SignatureHashAlgorithms && extensions.signature_hashes.is_none() {
                extensions.signature_hashes = Some(hash_numbers(&notify.data));
            }
            extensions.intermediate |= notify.kind == INTERMEDIATE;
            extensions.ppk |= notify.kind == NotifyType::UsePpk;
            extensions.multiple_auth |= notify.kind == NotifyType::MultipleAuthSupported;
            extensions.redirect |= announces_redirect(notify.kind);
            extensions.childless |= notify.kind == NotifyType::ChildlessIkev2Supported;
        }
        extensions
    }

    /// Reads the notifications of the peer's first IKE_AUTH request as well.
    pub(super) fn add_announced_in_auth<'a>(&mut self, notifies: impl Iterator<Item = &'a Notify>) {
        for notify in notifies {
            self.multiple_auth |= notify.kind == NotifyType::MultipleAuthSupported;
        }
    }
}

/// What we announce in an IKE_SA_INIT request.
pub(super) fn announcements_in_init_request(connection: &Arc<Connection>) -> Vec<Payload> {
    let fragmentation = understands_fragments(connection).then_some(FRAGMENTATION);
    let has_rounds = connection.ike_proposals.iter().any(IkeProposal::has_rounds);
    // R8784-3-2.
    let ppk = connection.ppk.is_some().then_some(NotifyType::UsePpk);
    let intermediate = has_rounds.then_some(INTERMEDIATE).into_iter().chain(ppk);
    let hashes = signature_hashes(std::slice::from_ref(connection));
    fragmentation.into_iter().chain(intermediate).map(Notify::new).chain(hashes).map(Payload::Notify).collect()
}

/// What we announce in an IKE_SA_INIT response. It is not known yet which of the connections for the peer's address is
/// meant, so we promise what any of them may need.
pub(super) fn announcements_in_init_response(connections: &[Arc<Connection>], theirs: &Extensions) -> Vec<Payload> {
    let fragmentation = theirs.fragmentation.then_some(FRAGMENTATION);
    let ppk = theirs.ppk.then_some(NotifyType::UsePpk);
    let intermediate = theirs.intermediate.then_some(INTERMEDIATE).into_iter().chain(ppk);
    let may_be_childless = connections.iter().any(|connection| may_be_childless(connection));
    let childless = may_be_childless.then_some(NotifyType::ChildlessIkev2Supported);
    let plain =
        fragmentation.into_iter().chain(intermediate).chain([NotifyType::MultipleAuthSupported]).chain(childless);
    plain.map(Notify::new).chain(signature_hashes(connections)).map(Payload::Notify).collect()
}

/// What we announce in our first IKE_AUTH request.
pub(super) fn announcements_in_auth_request() -> Vec<Payload> {
    vec![Payload::Notify(Notify::new(NotifyType::MultipleAuthSupported))]
}

/// Whether a peer may set up an IKE SA of this connection without a Child SA.
pub(super) fn may_be_childless(connection: &Connection) -> bool {
    connection.childless != Childless::Never
}

fn understands_fragments(connection: &Connection) -> bool {
    connection.fragmentation != Fragmentation::Never
}

const FRAGMENTATION: NotifyType = NotifyType::FragmentationSupported;
const INTERMEDIATE: NotifyType = NotifyType::IntermediateExchangeSupported;

/// The hashes that we take in signatures, if somebody signs.
fn signature_hashes(connections: &[Arc<Connection>]) -> Option<Notify> {
    let numbers = || SIGNATURE_HASHES.iter().flat_map(|number| number.to_be_bytes()).collect();
    let signs = connections.iter().any(|connection| signs(connection));
    signs.then(|| Notify::with_data(NotifyType::SignatureHashAlgorithms, numbers()))
}

/// Tells the peer how many requests it may have outstanding in an IKE SA that is being set up, if it is more than the one
/// that it may always have (RFC 7296 §2.3).
pub(super) fn window_announcement(settings: &Settings) -> Option<Payload> {
    let size = settings.window_size;
    (size > 1).then(|| Payload::Notify(Notify::with_data(NotifyType::SetWindowSize, size.to_be_bytes().to_vec())))
}

/// Whether one of the ends authenticates itself by a signature.
fn signs(connection: &Connection) -> bool {
    connection.local_rounds().any(|local| matches!(local.method, LocalMethod::Signature(_)))
        || connection.remote_rounds().any(|remote| matches!(remote.method, RemoteMethod::Signature(_)))
}

/// RFC 7427 §4: numbers of two octets each, without padding.
fn hash_numbers(data: &[u8]) -> Vec<u16> {
    let (pairs, _) = data.as_chunks();
    pairs.iter().take(MAX_HASHES).map(|pair| u16::from_be_bytes(*pair)).collect()
}

/// SHA2-256, SHA2-384, SHA2-512 and, for Ed25519, Identity (RFC 7427 §7, RFC 8420 §2). SHA-1 is left to peers that know
/// nothing but the methods of RFC 7296.
const SIGNATURE_HASHES: [u16; 4] = [2, 3, 4, 5];

/// Hashes that are kept of a peer's list: IANA has assigned eight.
const MAX_HASHES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CredentialName, LocalAuth};
    use crate::rules::notifies;

    fn kinds(payloads: &[Payload]) -> Vec<NotifyType> {
        notifies(payloads).map(|notify| notify.kind).collect()
    }

    fn learned(connection: &Connection, notify: &Notify) -> Extensions {
        Extensions::announced_in_init(connection, [notify].into_iter())
    }

    fn hashes(data: &[u8]) -> Option<Vec<u16>> {
        let notify = Notify::with_data(NotifyType::SignatureHashAlgorithms, data.to_vec());
        learned(&Connection::new("any"), &notify).signature_hashes
    }

    #[test]
    fn hashes_for_signatures_are_announced_where_somebody_signs() {
        let ike_proposals = vec!["aes256gcm16-prfsha256-x25519".parse().unwrap()];
        let fragmentation = Fragmentation::Never;
        let plain = Arc::new(Connection { fragmentation, ike_proposals, ..Connection::new("psk") });
        assert_eq!(announcements_in_init_request(&plain), []);
        let method = LocalMethod::Signature(CredentialName("key".to_owned()));
        let local = LocalAuth { identity: None, method };
        let signing = Arc::new(Connection { local, ..Connection::clone(&plain) });
        let notify = Notify::with_data(NotifyType::SignatureHashAlgorithms, vec![0, 2, 0, 3, 0, 4, 0, 5]);
        assert_eq!(announcements_in_init_request(&signing), [Payload::Notify(notify.clone())]);
        let response = announcements_in_init_response(&[plain, signing], &Extensions::default());
        assert!(response.contains(&Payload::Notify(notify)));
    }

    /// R6023-3-1.
    #[test]
    fn only_where_it_is_allowed_an_sa_without_child_is_announced() {
        for (mode, expected) in [(Childless::Allow, true), (Childless::Force, true), (Childless::Never, false)] {
            let connection = Arc::new(Connection { childless: mode, ..Connection::new("any") });
            let response = announcements_in_init_response(std::slice::from_ref(&connection), &Extensions::default());
            assert_eq!(kinds(&response).contains(&NotifyType::ChildlessIkev2Supported), expected);
            let learned = Extensions::announced_in_init(&connection, notifies(&response));
            assert_eq!((learned.childless, learned.multiple_auth), (expected, true));
        }
    }

    /// R7383-2.4-1.
    #[test]
    fn fragmentation_is_agreed_on_if_both_ends_understand_it() {
        let theirs = Notify::new(NotifyType::FragmentationSupported);
        for (mode, expected) in [
            (Fragmentation::Offer, true),
            (Fragmentation::Force, true),
            (Fragmentation::Accept, true),
            (Fragmentation::Never, false),
        ] {
            let connection = Arc::new(Connection { fragmentation: mode, ..Connection::new("any") });
            let request = kinds(&announcements_in_init_request(&connection));
            assert_eq!(request.contains(&NotifyType::FragmentationSupported), expected);
            let both = learned(&connection, &theirs);
            assert_eq!(both.fragmentation, expected);
            let answers = |theirs| {
                let response = announcements_in_init_response(std::slice::from_ref(&connection), theirs);
                kinds(&response).contains(&NotifyType::FragmentationSupported)
            };
            assert_eq!(answers(&both), expected);
            let silent = Extensions::announced_in_init(&connection, [].into_iter());
            assert!(!silent.fragmentation);
            assert!(!answers(&silent));
        }
    }

    /// RFC 9370 §2.2.1.
    #[test]
    fn ike_intermediate_is_announced_where_it_may_be_needed() {
        for (proposal, expected) in [
            ("aes256gcm16-prfsha256-x25519", false),
            ("aes256gcm16-prfsha256-x25519-ke1_none", false),
            ("aes256gcm16-prfsha256-x25519-ke2_mlkem768-ke2_none", true),
        ] {
            let ike_proposals = vec![proposal.parse().unwrap()];
            let connection = Arc::new(Connection { ike_proposals, ..Connection::new("any") });
            let request = announcements_in_init_request(&connection);
            assert_eq!(kinds(&request).contains(&INTERMEDIATE), expected);
            // Whoever is asked says that it can.
            let theirs = Extensions::announced_in_init(&connection, notifies(&request));
            let response = announcements_in_init_response(std::slice::from_ref(&connection), &theirs);
            assert_eq!(kinds(&response).contains(&INTERMEDIATE), expected);
        }
    }

    #[test]
    fn the_peers_hashes_are_read_and_bounded() {
        assert_eq!(Extensions::default().signature_hashes, None);
        assert_eq!(hashes(&[]), Some(vec![]));
        assert_eq!(hashes(&[0, 2, 0, 5, 9]), Some(vec![2, 5]), "half a number is none");
        assert_eq!(hashes(&[1; 60_000]).map(|numbers| numbers.len()), Some(MAX_HASHES));
    }
}
