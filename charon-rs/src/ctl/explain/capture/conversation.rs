//! The messages of one IKE SA in a capture, as far as they can be read.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use ike_proto::crypto::protection::MessageCipher;
use ike_proto::describe;
use ike_proto::io::IkeSpi;
use ike_proto::wire::{
    Added, Encrypted, ExchangeType, Header, Message, MessageKind, Payload, PlainMessage, Reassembly, Role,
    fragment_summary, summary,
};
use pki::certificate::Certificate;

use super::frames::Captured;
use super::keys::{Ciphers, Keys};

/// An IKE SA, or an attempt at one.
pub(super) struct Conversation {
    pub(super) spi: IkeSpi,
    pub(super) initiator: SocketAddr,
    pub(super) responder: SocketAddr,
    /// Since 1970.
    pub(super) began: Duration,
    pub(super) steps: Vec<Step>,
    /// Messages that were left out because there are too many.
    pub(super) omitted: usize,
    ciphers: Option<Ciphers>,
    halves: [Reassembly; 2],
}

/// A message.
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) header: Header,
    pub(super) octets: usize,
    pub(super) summary: String,
    pub(super) details: Vec<String>,
    /// What it says; `None` if it is encrypted and there are no keys, or is a fragment.
    pub(super) payloads: Option<Vec<Payload>>,
    /// Whether IP had it in fragments.
    pub(super) was_fragmented: bool,
    /// How often it was seen again, and when last.
    pub(super) again: u32,
    pub(super) last: Duration,
    hash: u64,
}

/// All conversations of a capture, in the order in which they began.
pub(super) struct Conversations {
    keys: Keys,
    all: Vec<Conversation>,
    by_spi: BTreeMap<IkeSpi, usize>,
    /// Datagrams to the ports of IKE that are no IKEv2 messages.
    pub(super) unreadable: usize,
    /// Messages of SAs for which there was no room any more.
    pub(super) omitted: usize,
}

impl Conversations {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, all: Vec::new(), by_spi: BTreeMap::new(), unreadable: 0, omitted: 0 }
    }

    pub(super) fn all(&self) -> &[Conversation] {
        &self.all
    }

    /// Takes a message.
    pub(super) fn add(&mut self, captured: &Captured) {
        let Ok(message) = Message::parse(&captured.message) else {
            self.unreadable += 1;
            return;
        };
        let spi = message.header.initiator_spi;
        let index = match self.by_spi.get(&spi) {
            Some(index) => *index,
            None if self.all.len() >= MAX_CONVERSATIONS => {
                self.omitted += 1;
                return;
            }
            None => {
                self.all.push(Conversation::begin(captured, message.header));
                self.by_spi.insert(spi, self.all.len() - 1);
                self.all.len() - 1
            }
        };
        if let Some(conversation) = self.all.get_mut(index) {
            conversation.add(captured, &message, &self.keys);
        }
    }
}

impl Conversation {
    fn begin(captured: &Captured, header: Header) -> Self {
        let (initiator, responder) = match header.sender {
            Role::OriginalInitiator => (captured.source, captured.destination),
            Role::OriginalResponder => (captured.destination, captured.source),
        };
        let (steps, halves) = (Vec::new(), [Reassembly::default(), Reassembly::default()]);
        let (spi, began) = (header.initiator_spi, captured.at);
        Self { spi, initiator, responder, began, steps, omitted: 0, ciphers: None, halves }
    }

    fn add(&mut self, captured: &Captured, message: &Message, keys: &Keys) {
        let mut hasher = DefaultHasher::new();
        captured.message.hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.steps.iter_mut().find(|step| step.hash == hash && step.source.ip() == captured.source.ip());
        if let Some(known) = known {
            known.again = known.again.saturating_add(1);
            known.last = captured.at;
            return;
        }
        if self.steps.len() >= MAX_STEPS {
            self.omitted += 1;
            return;
        }
        let header = message.header;
        if self.ciphers.is_none() {
            self.ciphers = keys.ciphers(header.initiator_spi, header.responder_spi);
        }
        let Read { summary, payloads } = match &message.encrypted {
            None => Read { summary: summary(&header, &message.payloads), payloads: Some(message.payloads.clone()) },
            Some(encrypted) => self.open(captured, message, encrypted),
        };
        let details = payloads.as_deref().map(details).unwrap_or_default();
        self.steps.push(Step {
            at: captured.at,
            source: captured.source,
            destination: captured.destination,
            header,
            octets: captured.message.len(),
            summary,
            details,
            payloads,
            was_fragmented: captured.was_fragmented,
            again: 0,
            last: captured.at,
            hash,
        });
    }

    /// What is inside of an encrypted message, if its keys are there.
    fn open(&mut self, captured: &Captured, message: &Message, encrypted: &Encrypted) -> Read {
        let header = &message.header;
        let closed = match encrypted.fragment {
            Some(fragment) => fragment_summary(header, fragment),
            None => summary(header, &[]).replace("[ ]", "[ SK ]"),
        };
        let closed = Read { summary: closed, payloads: None };
        let Some(ciphers) = &self.ciphers else { return closed };
        let (cipher, half): (&MessageCipher, _) = match header.sender {
            Role::OriginalInitiator => (&ciphers.of_initiator, 0),
            Role::OriginalResponder => (&ciphers.of_responder, 1),
        };
        let opened = match (encrypted.fragment, self.halves.get_mut(half)) {
            (Some(fragment), Some(half)) => match half.add(&captured.message, message, (encrypted, fragment), cipher) {
                Ok(Added::Complete { message, fragments, .. }) => Some((message, Some(fragments))),
                Ok(Added::Ignored | Added::Kept) | Err(_) => None,
            },
            _ => PlainMessage::open(&captured.message, encrypted, cipher).ok().map(|message| (message, None)),
        };
        let read = opened.and_then(|(message, fragments)| Some((message.payloads().ok()?, fragments)));
        let Some((payloads, fragments)) = read else { return closed };
        let whole = summary(header, &payloads);
        let summary = fragments.map_or(whole.clone(), |count| format!("{whole} in {count} fragments"));
        Read { summary, payloads: Some(payloads) }
    }

    /// The messages of an exchange, requests or responses.
    pub(super) fn of(&self, exchange: ExchangeType, kind: MessageKind) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.header.exchange == exchange && step.header.kind == kind)
    }
}

/// What was read of a message.
struct Read {
    summary: String,
    payloads: Option<Vec<Payload>>,
}

/// The lines about a message; those about certificates say whose they are.
fn details(payloads: &[Payload]) -> Vec<String> {
    let mut lines = describe(payloads);
    lines.extend(certificates(payloads).iter().map(|certificate| {
        format!(
            "certificate \"{}\", issued by \"{}\", valid from {} to {}",
            certificate.subject(),
            certificate.issuer(),
            certificate.not_before(),
            certificate.not_after()
        )
    }));
    lines
}

/// The X.509 certificates in CERT payloads, as far as they can be read.
pub(super) fn certificates(payloads: &[Payload]) -> Vec<Certificate> {
    let sent = payloads
        .iter()
        .filter_map(|payload| if let Payload::Certificate(certificate) = payload { Some(certificate) } else { None });
    sent.filter(|certificate| certificate.encoding == X509)
        .take(MAX_CERTIFICATES)
        .filter_map(|certificate| Certificate::from_der(&certificate.data).ok())
        .collect()
}

/// Cert Encoding: X.509 Certificate - Signature (RFC 7296 §3.6).
const X509: u8 = 4;

/// Certificates of one message that are told.
const MAX_CERTIFICATES: usize = 8;

/// SAs of one capture that are told.
const MAX_CONVERSATIONS: usize = 1024;

/// Messages of one SA that are told, repetitions not counted: an SA may live for days.
const MAX_STEPS: usize = 128;
