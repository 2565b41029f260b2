//! Messages from nobody we know: requests for a new SA, and those that find none (RFC 7296 §2.6, §2.21.1, §2.21.4).

use std::time::Instant;

use espdp_api::IkePath;

use super::Engine;
use super::admission::Admittance;
use super::connections::Connections;
use super::context::Sent;
use super::failure::{About, Incompatible, Reaction, Trouble, Trust};
use super::ike_sa::{IkeSa, Received};
use super::redirect::redirect_in_init;
use super::responder::HalfOpen;
use crate::io::{Cure, FailureCode, IkeSpi, RemarkLevel};
use crate::rules::{Body, INIT_REQUEST};
use crate::wire::{Header, Message, MessageKind, Notify, NotifyType, Payload, Role, WireError, encode_message};

impl Engine {
    /// An IKE_SA_INIT request: checked from the cheap to the dear, and nothing is kept before all is passed.
    pub(super) fn on_init_request(&mut self, now: Instant, path: IkePath, datagram: &[u8], header: Header) {
        let is_first = header.responder_spi == IkeSpi::default()
            && header.initiator_spi != IkeSpi::default()
            && header.message_id == 0
            && header.sender == Role::OriginalInitiator;
        if !is_first || self.shutting_down.is_some() {
            return;
        }
        if let Some(known) = self.admission.known(header.initiator_spi, path.remote) {
            if let Some(IkeSa::HalfOpen(half_open)) = self.sas.get(&known) {
                half_open.on_init_again(&mut self.cx, path, datagram);
            }
            return;
        }
        if !self.admission.has_room(&self.cx.settings, path.remote.ip()) {
            return;
        }
        let checked = Message::parse(datagram).map_err(Trouble::from).and_then(|message| {
            let body = INIT_REQUEST.check(message.payloads.clone())?;
            Ok((Received { path, datagram, message }, body))
        });
        let begun = match checked {
            Ok((received, body)) if received.message.encrypted.is_none() => self.admit(now, &received, &body),
            Ok(_) => return,
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = begun {
            self.refuse_stranger(now, path, header, trouble);
        }
    }

    /// Answers a well-formed request, with a cookie to begin with if there are many.
    fn admit(&mut self, now: Instant, received: &Received<'_>, body: &Body) -> Result<(), Trouble> {
        let (header, path) = (received.message.header, received.path);
        let (source, nonce) = (path.remote.ip(), body.nonce()?);
        let cookie = body.notify(NotifyType::Cookie).map(|notify| notify.data.as_slice());
        match self.admission.judge(&self.cx.settings, source, header.initiator_spi, nonce, cookie) {
            Admittance::Granted => {}
            Admittance::Denied => return Ok(()),
            Admittance::CookieWanted => {
                let random = &mut *self.cx.random;
                let cookie = self.admission.cookie(now, random, nonce, source, header.initiator_spi);
                // There is a flood, and the journal is no place for that.
                self.answer_stranger(path, header, Notify::with_data(NotifyType::Cookie, cookie), false);
                return Ok(());
            }
        }
        received.trace(&mut self.cx, None, &received.message.payloads);
        let candidates = self.cx.connections.of_path(path);
        if candidates.is_empty() {
            return Err(no_connection(&self.cx.connections, path));
        }
        // RFC 5685 §3: no SA comes of it, and the responder's SPI stays zero.
        if let Some(redirect) = candidates.first().and_then(|connection| redirect_in_init(connection, body)) {
            self.answer_stranger(path, header, redirect, true);
            return Ok(());
        }
        let half_open = HalfOpen::begin(&mut self.cx, now, received, body, &candidates)?;
        let spi = half_open.session.names.local_spi();
        self.admission.admit(spi, (header.initiator_spi, path.remote));
        self.keep(spi, IkeSa::HalfOpen(Box::new(half_open)));
        Ok(())
    }

    /// Says no to somebody unknown, or nothing.
    fn refuse_stranger(&mut self, now: Instant, path: IkePath, header: Header, trouble: Trouble) {
        let allowed = self.admission.unprotected.allows(now);
        // To learn our group is a step on the way to an SA, not an error: a flood must not keep anybody from it.
        if !allowed && !matches!(trouble, Trouble::WrongGroup { .. }) {
            return;
        }
        let reaction = trouble.reaction(Trust::None);
        if !allowed {
            // Nobody wants to read of all of them.
        } else if trouble.is_passing() || reaction == Reaction::Silence {
            let text = format!("a request of {} is refused: {trouble}", path.remote);
            self.cx.remark(None, RemarkLevel::Debug, text);
        } else {
            // Where only one connection can be meant, its owner wants to know.
            let candidates = self.cx.connections.of_path(path);
            let connection = if let [only] = &candidates[..] { Some(&**only) } else { None };
            self.cx.fail(trouble.into_failure(About { connection, peer: Some(path.remote), ..About::default() }));
        }
        match reaction {
            Reaction::Silence => {}
            Reaction::Answer(notify) | Reaction::AnswerAndClose(notify) => {
                self.answer_stranger(path, header, notify, allowed);
            }
        }
    }

    /// A datagram that has not even a header of ours. RFC 7296 §2.5: of versions to come the sender learns that there is
    /// only ours (R7296-2.5-1).
    pub(super) fn on_unreadable(&mut self, now: Instant, path: IkePath, error: &WireError) {
        if let WireError::MajorVersion { major, header } = *error
            && major > OUR_MAJOR_VERSION
            && header.kind == MessageKind::Request
            && self.admission.unprotected.allows(now)
        {
            let notify = Notify::with_data(NotifyType::InvalidMajorVersion, vec![OUR_MAJOR_VERSION << 4]);
            self.answer_stranger(path, header, notify, true);
        }
    }

    /// A message for no SA of ours: maybe we lost it. A response is never answered (R7296-3.1-3).
    pub(super) fn on_unknown_spi(&mut self, now: Instant, path: IkePath, header: Header) {
        if header.kind == MessageKind::Request && self.admission.unprotected.allows(now) {
            self.answer_stranger(path, header, Notify::new(NotifyType::InvalidIkeSpi), true);
        }
    }

    /// Sends an unprotected response with the SPIs and message ID of the request, and writes it into the journal if
    /// somebody should see it.
    fn answer_stranger(&mut self, path: IkePath, header: Header, notify: Notify, is_journaled: bool) {
        let header = Header { kind: MessageKind::Response, sender: header.sender.peer(), ..header };
        let payloads = [Payload::Notify(notify)];
        if let Ok(message) = encode_message(&header, &payloads) {
            if is_journaled {
                let sent = Sent { path, by_us: true, octets: message.len(), fragments: None };
                self.cx.trace(None, sent, &header, &payloads);
            }
            self.cx.transmit(path, message);
        }
    }
}

/// No connection is for the addresses: which come nearest, and what is in the way.
fn no_connection(connections: &Connections, path: IkePath) -> Trouble {
    let IkePath { local, remote } = path;
    let nearest = connections.nearest(path, MAX_NEAREST);
    let near = nearest.iter().find(|near| near.is_close);
    let hint = match near {
        Some(near) => format!("if `{}` is meant: {}", near.name, near.why),
        None => format!("add a connection with `left = \"{}\"` and `right = \"{}\"`", local.ip(), remote.ip()),
    };
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::IkeNoConnection,
        notify: NotifyType::NoProposalChosen,
        what: format!("{remote} wants an IKE SA with {local}, and no connection is for these addresses"),
        ours: nearest.iter().map(|near| format!("`{}`: {}", near.name, near.why)).collect(),
        theirs: vec![format!("from {} to {}", remote.ip(), local.ip())],
        hint: Some(hint),
        cure: near.map(|near| Cure::new(near.key, Some(near.value.clone()))),
    }))
}

/// Connections that are named to explain why none fits.
const MAX_NEAREST: usize = 4;

const OUR_MAJOR_VERSION: u8 = 2;
