//! What exists of an IKE SA from the moment it has keys: identity, path, ciphers.

use std::sync::Arc;
use std::time::Instant;

use espdp_api::IkePath;

use super::context::{Context, Sent};
use super::extensions::Extensions;
use super::nat::Nat;
use crate::config::Connection;
use crate::crypto::protection::{MessageCipher, UnsoundSuite};
use crate::crypto::schedule::IkeKeys;
use crate::io::{IkeKeyExport, IkeSaId, IkeSpi, Notice};
use crate::proposal::IkeSuite;
use crate::wire::{
    Encrypted, ExchangeType, Header, MessageKind, Payload, Role, UnprotectError, WireError, protect, unprotect,
};

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
    pub(super) suite: IkeSuite,
    pub(super) keys: IkeKeys,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: Vec<u8>,
    /// What the peer announced.
    pub(super) extensions: Extensions,
    /// When something was sent last to where the peer is.
    pub(super) last_sent: Instant,
    sealing: MessageCipher,
    opening: MessageCipher,
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
        let of_initiator = MessageCipher::new(suite, &keys.sk_ei, &keys.sk_ai)?;
        let of_responder = MessageCipher::new(suite, &keys.sk_er, &keys.sk_ar)?;
        let (sealing, opening) = match names.role {
            Role::OriginalInitiator => (of_initiator, of_responder),
            Role::OriginalResponder => (of_responder, of_initiator),
        };
        let last_sent = now;
        Ok(Self {
            names,
            connection,
            path,
            nat,
            suite,
            keys,
            nonce_i,
            nonce_r,
            extensions,
            last_sent,
            sealing,
            opening,
        })
    }

    /// Protects a message of ours and writes it into the journal.
    pub(super) fn seal(
        &mut self,
        cx: &mut Context,
        (exchange, kind, message_id): (ExchangeType, MessageKind, u32),
        path: IkePath,
        payloads: &[Payload],
    ) -> Result<Vec<u8>, WireError> {
        let header = self.names.header(exchange, kind, message_id);
        let message = protect(&header, payloads, &mut self.sealing, &mut *cx.random)?;
        let sent = Sent { path, by_us: true, octets: message.len() };
        cx.trace(Some((&self.connection.name, self.names.id)), sent, &header, payloads);
        Ok(message)
    }

    /// Checks and decrypts a message of the peer.
    pub(super) fn open(&self, datagram: &[u8], encrypted: &Encrypted) -> Result<Vec<Payload>, UnprotectError> {
        unprotect(datagram, encrypted, &self.opening)
    }

    /// Sends octets that were sealed before. Answers to repetitions go wherever those came from, so they do not count.
    pub(super) fn send(&mut self, cx: &mut Context, now: Instant, path: IkePath, message: Vec<u8>) {
        if path == self.path {
            self.last_sent = now;
        }
        cx.transmit(path, message);
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
