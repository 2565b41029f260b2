//! Messages of the peer on their way out of their protection: whole ones, and those that come in fragments (RFC 7383
//! §2.6).

use std::time::{Duration, Instant};

use crate::crypto::protection::MessageCipher;
use crate::wire::{
    Added, Encrypted, Fragment, Message, MessageKind, PlainMessage, Reassembly, UnprotectError, WireError,
};

/// Fragments of one request and of one response of the peer. Anybody may send fragments; only those that the peer has
/// protected are kept, up to 64 KiB in each direction.
#[derive(Default)]
pub(super) struct Inbox {
    requests: Slot,
    responses: Slot,
}

#[derive(Default)]
struct Slot {
    reassembly: Reassembly,
    /// When a fragment came last, as long as the message is not complete.
    latest: Option<Instant>,
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
        let slot = match message.header.kind {
            MessageKind::Request => &mut self.requests,
            MessageKind::Response => &mut self.responses,
        };
        match encrypted.fragment {
            None => slot.take_whole(datagram, encrypted, cipher),
            Some(fragment) => slot.take_fragment(now, datagram, message, (encrypted, fragment), cipher),
        }
    }

    /// When what is kept has waited for the rest long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [&self.requests, &self.responses].into_iter().filter_map(|slot| Some(slot.latest? + LONGEST_WAIT)).min()
    }

    /// Forgets what has waited long enough. It is as if it had never come (RFC 7383 §2.6).
    pub(super) fn on_timeout(&mut self, now: Instant) {
        for slot in [&mut self.requests, &mut self.responses] {
            if slot.latest.is_some_and(|latest| latest + LONGEST_WAIT <= now) {
                slot.clear();
            }
        }
    }
}

impl Slot {
    fn take_whole(
        &mut self,
        datagram: &[u8],
        encrypted: &Encrypted,
        cipher: &MessageCipher,
    ) -> Result<Delivery, WireError> {
        let message = match PlainMessage::open(datagram, encrypted, cipher) {
            Err(UnprotectError::Inauthentic(_)) => return Ok(Delivery::None),
            Err(UnprotectError::Malformed(error)) => Err(error),
            Ok(message) => Ok(message),
        };
        // Fragments of the same message, or of an older one, are of no use any more.
        self.clear();
        Ok(Delivery::Complete(Delivered { message: message?, octets: datagram.len(), fragments: None }))
    }

    fn take_fragment(
        &mut self,
        now: Instant,
        datagram: &[u8],
        message: &Message,
        fragment: (&Encrypted, Fragment),
        cipher: &MessageCipher,
    ) -> Result<Delivery, WireError> {
        let added = self.reassembly.add(datagram, message, fragment, cipher).inspect_err(|_| self.latest = None)?;
        match added {
            Added::Ignored => Ok(Delivery::None),
            Added::Kept => {
                self.latest = Some(now);
                Ok(Delivery::Incomplete)
            }
            Added::Complete { message, fragments, octets } => {
                self.latest = None;
                Ok(Delivery::Complete(Delivered { message, octets, fragments: Some(fragments) }))
            }
        }
    }

    fn clear(&mut self) {
        self.reassembly.clear();
        self.latest = None;
    }
}

/// How long fragments wait for the others: longer than the gaps between a peer's repetitions, so that what one
/// transmission lost may come with the next.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
