//! Messages of the peer on their way out of their protection: whole ones, and those that come in fragments (RFC 7383
//! §2.6).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::crypto::protection::MessageCipher;
use crate::wire::{Added, Encrypted, Message, MessageKind, PlainMessage, Reassembly, UnprotectError, WireError};

/// Messages of the peer that are expected and not complete. Anybody may send fragments; only those that the peer has
/// protected are kept, up to 64 KiB for each message. There are no more messages than requests that the peer may have
/// outstanding, and one response.
#[derive(Default)]
pub(super) struct Inbox {
    slots: BTreeMap<(MessageKind, u32), Slot>,
}

/// A message of which fragments are still to come.
struct Slot {
    reassembly: Reassembly,
    /// When the latest one came.
    latest: Instant,
}

/// A message of the peer that is complete.
pub(super) struct Delivered {
    pub(super) message: PlainMessage,
    /// Octets of its datagrams.
    pub(super) octets: usize,
    /// How many they were, if it was fragmented.
    pub(super) fragments: Option<u16>,
}

/// What came of a datagram.
pub(super) enum Delivery {
    /// Nothing: it is not from the peer.
    None,
    /// A fragment is kept until the others are there.
    Incomplete,
    /// A message.
    Complete(Delivered),
}

impl Inbox {
    /// Takes a message or a fragment that is expected.
    ///
    /// # Errors
    /// What is wrong with a message that is from the peer.
    pub(super) fn take(
        &mut self,
        now: Instant,
        datagram: &[u8],
        (message, encrypted): (&Message, &Encrypted),
        cipher: &MessageCipher,
    ) -> Result<Delivery, WireError> {
        let key = (message.header.kind, message.header.message_id);
        let Some(fragment) = encrypted.fragment else {
            let opened = match PlainMessage::open(datagram, encrypted, cipher) {
                Err(UnprotectError::Inauthentic(_)) => return Ok(Delivery::None),
                Err(UnprotectError::Malformed(error)) => Err(error),
                Ok(message) => Ok(message),
            };
            // Fragments of the same message are of no use any more.
            self.slots.remove(&key);
            return Ok(Delivery::Complete(Delivered { message: opened?, octets: datagram.len(), fragments: None }));
        };
        let mut slot =
            self.slots.remove(&key).unwrap_or_else(|| Slot { reassembly: Reassembly::default(), latest: now });
        let delivery = match slot.reassembly.add(datagram, message, (encrypted, fragment), cipher)? {
            Added::Ignored => Delivery::None,
            Added::Kept => {
                slot.latest = now;
                Delivery::Incomplete
            }
            Added::Complete { message, fragments, octets } => {
                Delivery::Complete(Delivered { message, octets, fragments: Some(fragments) })
            }
        };
        if !slot.reassembly.is_empty() {
            self.slots.insert(key, slot);
        }
        Ok(delivery)
    }

    /// When what is kept has waited for the rest long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.slots.values().map(|slot| slot.latest + LONGEST_WAIT).min()
    }

    /// Forgets what has waited long enough. It is as if it had never come (RFC 7383 §2.6).
    pub(super) fn on_timeout(&mut self, now: Instant) {
        self.slots.retain(|_, slot| slot.latest + LONGEST_WAIT > now);
    }
}

/// How long fragments wait for the others: longer than the gaps between a peer's repetitions, so that what one
/// transmission lost may come with the next.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
