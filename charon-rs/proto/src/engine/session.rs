//! What exists of an IKE SA from the moment it has keys: identity, path, ciphers.

use std::sync::Arc;
use std::time::Instant;

use espdp_api::{IkePath, OuterPath, Secret};

use super::context::{Context, Sent};
use super::extensions::Extensions;
use super::failure::Trouble;
use super::ike_sa::Received;
use super::inbox::{Delivered, Delivery, Inbox};
use super::nat::Nat;
use super::packets::Packets;
use super::virtual_addresses::VirtualAddresses;
use crate::config::{Connection, Fragmentation};
use crate::crypto::protection::{MessageCipher, UnsoundSuite};
use crate::crypto::schedule::{IkeExchange, IkeKeys};
use crate::io::{IkeKeyExport, IkeSaId, IkeSpi, Notice};
use crate::proposal::IkeSuite;
use crate::wire::{ExchangeType, Header, MessageKind, Payload, PlainMessage, Role, UnprotectError, WireError};

/// The names of an IKE SA and who is who.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// For people.
    pub(super) id: IkeSaId,
    /// Our role in the making of this SA.
    pub(super) role: Role,
    pub(super) initiator_spi: IkeSpi,
    pub(super) responder_spi: IkeSpi,
}

impl Names {
    /// The SPI that we chose.
    pub(super) fn local_spi(&self) -> IkeSpi {
        match self.role {
            Role::OriginalInitiator => self.initiator_spi,
            Role::OriginalResponder => self.responder_spi,
        }
    }

    /// Both SPIs, the initiator's first.
    pub(super) fn spis(&self) -> (IkeSpi, IkeSpi) {
        (self.initiator_spi, self.responder_spi)
    }

    /// The header of a message of ours.
    pub(super) fn header(&self, exchange: ExchangeType, kind: MessageKind, message_id: u32) -> Header {
        Header {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            exchange,
            sender: self.role,
            kind,
            message_id,
        }
    }
}

/// An IKE SA with keys.
pub(super) struct Session {
    pub(super) names: Names,
    pub(super) connection: Arc<Connection>,
    /// Where our requests go.
    pub(super) path: IkePath,
    pub(super) nat: Nat,
    /// Where ESP travels as long as the peer has not shown that it can be reached at `path` (RFC 4555 §3.7).
    pub(super) unconfirmed: Option<OuterPath>,
    pub(super) suite: IkeSuite,
    pub(super) keys: IkeKeys,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: Vec<u8>,
    /// What the peer announced.
    pub(super) extensions: Extensions,
    pub(super) virtual_addresses: VirtualAddresses,
    /// When something was sent last to where the peer is.
    pub(super) last_sent: Instant,
    pub(super) inbox: Inbox,
    sealing: MessageCipher,
    opening: MessageCipher,
    /// Opens what the peer sent before the last change of keys, and may send again.
    opening_before: Option<MessageCipher>,
}

/// What a [`Session`] is made of.
pub(super) struct SessionParts {
    pub(super) names: Names,
    pub(super) connection: Arc<Connection>,
    pub(super) path: IkePath,
    pub(super) nat: Nat,
    pub(super) suite: IkeSuite,
    pub(super) keys: IkeKeys,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: Vec<u8>,
    pub(super) extensions: Extensions,
}

impl Session {
    /// Puts ciphers to the keys. The initiator of the exchange that made the keys sends with `sk_ei`.
    pub(super) fn new(now: Instant, parts: SessionParts) -> Result<Self, UnsoundSuite> {
        let SessionParts { names, connection, path, nat, suite, keys, nonce_i, nonce_r, extensions } = parts;
        let (sealing, opening) = ciphers(names.role, suite, &keys)?;
        let (last_sent, inbox) = (now, Inbox::default());
        Ok(Self {
            names,
            connection,
            path,
            nat,
            unconfirmed: None,
            suite,
            keys,
            nonce_i,
            nonce_r,
            extensions,
            virtual_addresses: VirtualAddresses::default(),
            last_sent,
            inbox,
            sealing,
            opening,
            opening_before: None,
        })
    }

    /// How ESP travels.
    pub(super) fn outer_path(&self, nat_port: u16) -> OuterPath {
        self.unconfirmed.unwrap_or_else(|| self.nat.outer_path(self.path, nat_port))
    }

    /// Whether a NAT stands between us and the peer, or we act as if.
    pub(super) fn is_through_nat(&self) -> bool {
        self.nat.encapsulates()
    }

    /// Goes on with the keys that the secret of an additional key exchange makes (RFC 9370 §2.2.2, RFC 9242 §3.3.1).
    pub(super) fn mix(&mut self, secret: &Secret<Vec<u8>>) -> Result<(), Trouble> {
        let exchange = IkeExchange {
            shared_secret: secret,
            more_secrets: &[],
            initiator_nonce: &self.nonce_i,
            responder_nonce: &self.nonce_r,
            initiator_spi: self.names.initiator_spi,
            responder_spi: self.names.responder_spi,
        };
        let keys = self.keys.next(self.suite, &exchange);
        let (sealing, opening) =
            ciphers(self.names.role, self.suite, &keys).map_err(|error| Trouble::Local(error.to_string()))?;
        self.opening_before = Some(std::mem::replace(&mut self.opening, opening));
        (self.keys, self.sealing, self.inbox) = (keys, sealing, Inbox::default());
        Ok(())
    }

    /// The peer has heard the answer that was the last with the keys before.
    pub(super) fn forget_keys_before(&mut self) {
        self.opening_before = None;
    }

    /// Protects a message of ours, in fragments if it needs them, and writes it into the journal.
    pub(super) fn seal(
        &mut self,
        cx: &mut Context,
        (exchange, kind, message_id): (ExchangeType, MessageKind, u32),
        path: IkePath,
        payloads: &[Payload],
    ) -> Result<Packets, WireError> {
        let header = self.names.header(exchange, kind, message_id);
        let message = PlainMessage::new(&header, payloads)?;
        let longest = longest_datagram(path, self.connection.fragment_size, cx.settings.nat_port);
        let (packets, fragments) = if self.is_to_be_fragmented(&message, longest) {
            let fragments = message.seal_in_fragments(longest, &mut self.sealing, &mut *cx.random)?;
            let count = u16::try_from(fragments.len()).ok();
            (Packets::fragments(fragments), count)
        } else {
            (Packets::whole(message.seal(&mut self.sealing, &mut *cx.random)?), None)
        };
        let sent = Sent { path, by_us: true, octets: packets.octets(), fragments };
        cx.trace(Some((&self.connection.name, self.names.id)), sent, &header, payloads);
        Ok(packets)
    }

    /// R7383-2.4-1: never, unless both ends have said that they understand fragments.
    fn is_to_be_fragmented(&self, message: &PlainMessage, longest: usize) -> bool {
        self.extensions.fragmentation
            && match self.connection.fragmentation {
                Fragmentation::Force => true,
                Fragmentation::Offer => message.sealed_len(&self.sealing) > longest,
                Fragmentation::Accept | Fragmentation::Never => false,
            }
    }

    /// Protects octets that need not be payloads.
    #[cfg(test)]
    pub(super) fn seal_octets(
        &mut self,
        cx: &mut Context,
        (exchange, kind, message_id): (ExchangeType, MessageKind, u32),
        (first, octets): (crate::wire::PayloadType, &[u8]),
    ) -> Vec<u8> {
        let header = self.names.header(exchange, kind, message_id);
        crate::wire::protect_octets(&header, (first, octets), &mut self.sealing, &mut *cx.random).unwrap()
    }

    /// The payloads of a message of the peer that is no fragment, whatever became of it otherwise.
    #[cfg(test)]
    pub(super) fn read(&self, datagram: &[u8]) -> Option<Vec<Payload>> {
        let encrypted = crate::wire::Message::parse(datagram).ok()?.encrypted?;
        PlainMessage::open(datagram, &encrypted, &self.opening).ok()?.payloads().ok()
    }

    /// Checks and decrypts a message of the peer that is expected, or a fragment of one, and writes it into the journal.
    /// `None` if there is nothing to be done yet: somebody else sent it, or fragments are still to come. An error is the
    /// peer's: the message came from it.
    pub(super) fn open(
        &mut self,
        cx: &mut Context,
        now: Instant,
        received: &Received<'_>,
    ) -> Option<Result<Opened, WireError>> {
        let encrypted = received.message.encrypted.as_ref()?;
        // R7383-2.4-1.
        if encrypted.fragment.is_some() && !self.extensions.fragmentation {
            return None;
        }
        let owner = Some((self.connection.name.as_str(), self.names.id));
        let whole = Sent { path: received.path, by_us: false, octets: received.datagram.len(), fragments: None };
        let header = &received.message.header;
        let delivery = self.inbox.take(now, received.datagram, (&received.message, encrypted), &self.opening);
        let Delivered { message, octets, fragments } = match delivery {
            Ok(Delivery::None) => return None,
            Ok(Delivery::Incomplete) => {
                encrypted.fragment.inspect(|fragment| cx.trace_fragment(owner, whole, header, *fragment));
                return None;
            }
            Ok(Delivery::Complete(delivered)) => delivered,
            Err(error) => {
                cx.trace(owner, whole, header, &[]);
                return Some(Err(error));
            }
        };
        let payloads = message.payloads();
        let sent = Sent { octets, fragments, ..whole };
        cx.trace(owner, sent, header, payloads.as_deref().unwrap_or_default());
        Some(payloads.map(|payloads| Opened { payloads, message }))
    }

    /// Whether a message that was answered before came from the peer again, so that the answer is to be sent again. Of a
    /// message in fragments the first one stands for all (R7383-2.6.1-1).
    pub(super) fn is_repetition(&self, received: &Received<'_>) -> bool {
        let stands_for_all = |number| self.extensions.fragmentation && number == 1;
        let encrypted = received.message.encrypted;
        encrypted.is_some_and(|encrypted| {
            encrypted.fragment.is_none_or(|fragment| stands_for_all(fragment.number))
                && [Some(&self.opening), self.opening_before.as_ref()].into_iter().flatten().any(|opening| {
                    let opened = PlainMessage::open(received.datagram, &encrypted, opening);
                    !matches!(opened, Err(UnprotectError::Inauthentic(_)))
                })
        })
    }

    /// Sends what was sealed before. Answers to repetitions go wherever those came from, so they do not count.
    pub(super) fn send(&mut self, cx: &mut Context, now: Instant, path: IkePath, packets: Packets) {
        if path == self.path {
            self.last_sent = now;
        }
        packets.transmit(cx, path);
    }

    /// Hands the keys to those who record traffic, if somebody asked for it.
    pub(super) fn export_keys(&self, cx: &mut Context) {
        if !cx.settings.export_keys {
            return;
        }
        cx.notice(Notice::IkeKeys(Box::new(IkeKeyExport {
            initiator_spi: self.names.initiator_spi,
            responder_spi: self.names.responder_spi,
            suite: self.suite,
            sk_ei: self.keys.sk_ei.clone(),
            sk_er: self.keys.sk_er.clone(),
            sk_ai: self.keys.sk_ai.clone(),
            sk_ar: self.keys.sk_ar.clone(),
        })));
    }
}

/// A message of the peer that was inside an Encrypted payload.
pub(super) struct Opened {
    pub(super) payloads: Vec<Payload>,
    /// The same as octets, for those who authenticate it.
    pub(super) message: PlainMessage,
}

/// What seals our messages and what opens the peer's: the initiator of the exchange that made the keys sends with `sk_ei`.
fn ciphers(role: Role, suite: IkeSuite, keys: &IkeKeys) -> Result<(MessageCipher, MessageCipher), UnsoundSuite> {
    let of_initiator = MessageCipher::new(suite, &keys.sk_ei, &keys.sk_ai)?;
    let of_responder = MessageCipher::new(suite, &keys.sk_er, &keys.sk_ar)?;
    Ok(match role {
        Role::OriginalInitiator => (of_initiator, of_responder),
        Role::OriginalResponder => (of_responder, of_initiator),
    })
}

/// Octets of an IKE message that fits in an IP packet of `packet` octets without options or extension headers.
fn longest_datagram(path: IkePath, packet: u16, nat_port: u16) -> usize {
    let ip = if path.local.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    let marker = if path.local.port() == nat_port { NON_ESP_MARKER } else { 0 };
    usize::from(packet).saturating_sub(ip + UDP_HEADER + marker)
}

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// What tells IKE from ESP on the NAT-T ports (RFC 3948 §2.2).
const NON_ESP_MARKER: usize = 4;
