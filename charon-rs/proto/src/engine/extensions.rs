//! Extensions of IKEv2 that both ends announce to each other, by notifications, before they use them.

use std::sync::Arc;

use crate::config::{Connection, LocalMethod, RemoteMethod};
use crate::wire::{Notify, NotifyType, Payload};

/// What the peer announced. It holds for the IKE SA and for those that replace it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// The numbers of the hashes that it takes in signatures of method 14 (RFC 7427 §4); `None` if it does not know that
    /// method.
    pub(super) signature_hashes: Option<Vec<u16>>,
}

impl Extensions {
    /// Reads the notifications of the peer's IKE_SA_INIT message.
    pub(super) fn announced_in_init<'a>(notifies: impl Iterator<Item = &'a Notify>) -> Self {
        let mut extensions = Self::default();
        for notify in notifies {
            if notify.kind == NotifyType::SignatureHashAlgorithms && extensions.signature_hashes.is_none() {
                extensions.signature_hashes = Some(hash_numbers(&notify.data));
            }
        }
        extensions
    }
}

/// What we announce in IKE_SA_INIT. A responder knows by then which connections may be meant, and speaks for all of
/// them.
pub(super) fn announcements_in_init(connections: &[Arc<Connection>]) -> Vec<Payload> {
    let mut payloads = Vec::new();
    if connections.iter().any(|connection| signs(connection)) {
        let numbers = SIGNATURE_HASHES.iter().flat_map(|number| number.to_be_bytes()).collect();
        payloads.push(Payload::Notify(Notify::with_data(NotifyType::SignatureHashAlgorithms, numbers)));
    }
    payloads
}

/// Whether one of the ends authenticates itself by a signature.
fn signs(connection: &Connection) -> bool {
    let mut ours = std::iter::once(&connection.local).chain(&connection.more_local);
    let mut theirs = std::iter::once(&connection.remote).chain(&connection.more_remote);
    ours.any(|local| matches!(local.method, LocalMethod::Signature(_)))
        || theirs.any(|remote| matches!(remote.method, RemoteMethod::Signature(_)))
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

    fn hashes(data: &[u8]) -> Option<Vec<u16>> {
        let notify = Notify::with_data(NotifyType::SignatureHashAlgorithms, data.to_vec());
        Extensions::announced_in_init([&notify].into_iter()).signature_hashes
    }

    #[test]
    fn hashes_for_signatures_are_announced_where_somebody_signs() {
        let plain = Arc::new(Connection::new("psk"));
        assert_eq!(announcements_in_init(&[plain.clone()]), []);
        let method = LocalMethod::Signature(CredentialName("key".to_owned()));
        let signing = Connection { local: LocalAuth { identity: None, method }, ..Connection::new("key") };
        let notify = Notify::with_data(NotifyType::SignatureHashAlgorithms, vec![0, 2, 0, 3, 0, 4, 0, 5]);
        assert_eq!(announcements_in_init(&[plain, Arc::new(signing)]), [Payload::Notify(notify)]);
    }

    #[test]
    fn the_peers_hashes_are_read_and_bounded() {
        assert_eq!(Extensions::announced_in_init([].into_iter()).signature_hashes, None);
        assert_eq!(hashes(&[]), Some(vec![]));
        assert_eq!(hashes(&[0, 2, 0, 5, 9]), Some(vec![2, 5]), "half a number is none");
        assert_eq!(hashes(&[1; 60_000]).map(|numbers| numbers.len()), Some(MAX_HASHES));
    }
}
