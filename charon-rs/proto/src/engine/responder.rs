//! Setting an IKE SA up as its responder: from an admitted IKE_SA_INIT request to the answer to IKE_AUTH (RFC 7296 §1.2).
//!
//! [`HalfOpen`] → established, or [`Refused`], which repeats the refusal to those who did not hear it.

use std::sync::Arc;
use std::time::Instant;

use espdp_api::IkePath;

use super::auth::{Identities, InitMessages, PeerAuthenticated, prove_ourselves, verify_peer};
use super::context::{Context, Sent};
use super::create_child::has_child_for;
use super::established::{Authenticated, Established, Request};
use super::extensions::{Extensions, announcements_in_init_response};
use super::failure::{About, Incompatible, Reaction, Trouble, Trust, abridged};
use super::ike_sa::{FollowUp, IkeSa, Received};
use super::initiator_auth::own_identity;
use super::nat::{Nat, nat_detection_payloads};
use super::negotiate::{accepts, choose_ike, suite_refused};
use super::session::{Names, Session, SessionParts};
use super::window::{Arrival, OurWindow, TheirWindow};
use crate::config::{Connection, UdpEncapsulation};
use crate::crypto::key_exchange::respond;
use crate::crypto::schedule::{IkeExchange, IkeKeys};
use crate::identity::Identity;
use crate::io::{FailureCode, IkeSpi, RemarkLevel, TimerKind};
use crate::rules::{AUTH_REQUEST, Body};
use crate::wire::{
    ExchangeType, Identification, KeyExchange as KeyExchangePayload, MessageKind, NotifyType, Payload, Role,
    encode_message,
};

/// An IKE_SA_INIT request is answered; nobody knows who sent it.
pub(super) struct HalfOpen {
    pub(super) session: Session,
    messages: InitMessages,
    /// Where the request came from.
    source: IkePath,
    theirs: TheirWindow,
    expires: Instant,
}

impl HalfOpen {
    /// Answers an IKE_SA_INIT request that was admitted, with the first of `candidates` that has something in common
    /// with it.
    pub(super) fn begin(
        cx: &mut Context,
        now: Instant,
        received: &Received<'_>,
        body: &Body,
        candidates: &[Arc<Connection>],
    ) -> Result<Self, Trouble> {
        let theirs = body.key_exchange()?;
        let (connection, agreement) = choose_connection(candidates, body, theirs.group)?;
        // R6989-2.5-1: a bad public value is nobody's business.
        let (public, shared_secret) = respond(agreement.suite.group, &theirs.data, &mut *cx.random)
            .map_err(|error| Trouble::NotOffered(error.to_string()))?;
        let (nonce_i, nonce_r) = (body.nonce()?.to_vec(), cx.new_nonce());
        let initiator_spi = received.message.header.initiator_spi;
        let responder_spi = cx.new_ike_spi();
        let id = cx.new_ike_sa_id();
        let names = Names { id, role: Role::OriginalResponder, initiator_spi, responder_spi };
        let exchange = IkeExchange {
            shared_secret: &shared_secret,
            more_secrets: &[],
            initiator_nonce: &nonce_i,
            responder_nonce: &nonce_r,
            initiator_spi,
            responder_spi,
        };
        // The sender hashed the SPIs of the header, where the responder's is still zero (RFC 7296 §2.23).
        let spis = (initiator_spi, IkeSpi::default());
        let nat =
            Nat::detect(body.notifies(), spis, received.path, connection.encapsulation == UdpEncapsulation::Force);
        let parts = SessionParts {
            names,
            connection: connection.clone(),
            path: received.path,
            nat,
            suite: agreement.suite,
            keys: IkeKeys::first(agreement.suite, &exchange),
            nonce_i,
            nonce_r: nonce_r.clone(),
            extensions: Extensions::announced_in_init(&connection, body.notifies()),
        };
        let announcements = announcements_in_init_response(candidates, &parts.extensions);
        let session = Session::new(now, parts).map_err(|error| {
            cx.release_ike_spi(responder_spi);
            Trouble::Local(error.to_string())
        })?;
        let mut answer = vec![
            Payload::SecurityAssociation(vec![agreement.answer]),
            Payload::KeyExchange(KeyExchangePayload { group: agreement.suite.group as u16, data: public }),
            Payload::Nonce(nonce_r),
        ];
        answer.extend(nat_detection_payloads(
            cx,
            names.spis(),
            received.path,
            connection.encapsulation == UdpEncapsulation::Force,
        ));
        answer.extend(announcements);
        let header = names.header(ExchangeType::IkeSaInit, MessageKind::Response, 0);
        let message = encode_message(&header, &answer).inspect_err(|_| cx.release_ike_spi(responder_spi))?;
        let sent = Sent { path: received.path, by_us: true, octets: message.len(), fragments: None };
        cx.trace(Some((&connection.name, id)), sent, &header, &answer);
        session.export_keys(cx);
        cx.transmit(received.path, message.clone());
        Ok(Self {
            session,
            messages: InitMessages { ours: message, theirs: received.datagram.to_vec() },
            source: received.path,
            theirs: TheirWindow::starting_at(1),
            expires: now + cx.settings.half_open_timeout,
        })
    }

    /// The IKE_SA_INIT request again: the same answer again, if it is the same request.
    pub(super) fn on_init_again(&self, cx: &mut Context, path: IkePath, datagram: &[u8]) {
        if datagram == self.messages.theirs {
            cx.transmit(path, self.messages.ours.clone());
        }
    }

    /// Takes the IKE_AUTH request. Nothing else is heard before it (R7296-1-1, R7296-1.4-1).
    pub(super) fn on_message(mut self, cx: &mut Context, now: Instant, received: &Received<'_>) -> Option<IkeSa> {
        let header = received.message.header;
        let is_auth =
            header.kind == MessageKind::Request && header.exchange == ExchangeType::IkeAuth && header.message_id == 1;
        let opened = if is_auth { self.session.open(cx, now, received) } else { None };
        let Some(opened) = opened else {
            return Some(IkeSa::HalfOpen(Box::new(self)));
        };
        self.theirs.accept();
        // Whatever address the message came from, it is where the peer is now: usually the NAT-T ports.
        self.session.path = received.path;
        let request = Request { exchange: header.exchange, message_id: header.message_id, path: received.path };
        let authenticated = opened.map_err(Trouble::from).and_then(|opened| {
            let body = AUTH_REQUEST.check(opened.payloads)?;
            let (who, proof) = self.authenticate(cx, &body)?;
            Ok((body, who, proof))
        });
        match authenticated {
            Ok((body, who, proof)) => Some(self.establish(cx, now, request, (who, proof), &body)),
            Err(trouble) => self.refuse(cx, now, request, trouble),
        }
    }

    /// Finds the connection that is meant by the identities, and checks that the peer's is true.
    fn authenticate(&mut self, cx: &Context, body: &Body) -> Result<(Authenticated, Vec<Payload>), Trouble> {
        let id_payload = body.id_initiator()?;
        let wanted = body.id_responder().ok().and_then(Identification::identity);
        let candidates = cx.connections.of_path(self.source);
        let fits = |connection: &&Arc<Connection>| {
            let peer_fits = id_payload.identity().is_some_and(|id| connection.remote.identity.matches(id));
            peer_fits && wanted.is_none_or(|wanted| own_identity(connection, &self.session).same_as(wanted))
        };
        let meant: Vec<&Arc<Connection>> = candidates.iter().filter(fits).collect();
        let (Some(first), Some(remote_id)) = (meant.first(), id_payload.identity()) else {
            return Err(id_refused(&candidates, &self.session, id_payload, wanted));
        };
        let suite = self.session.suite;
        let Some(accepting) = meant.iter().find(|connection| accepts(connection, suite)) else {
            self.session.connection = Arc::clone(first);
            return Err(suite_refused(first, suite));
        };
        self.session.connection = Arc::clone(accepting);
        let local_id = own_identity(&self.session.connection, &self.session);
        let identities = Identities { local: &local_id, remote: remote_id };
        let incompatible = |reason| Trouble::Incompatible(Box::new(reason));
        let theirs = (id_payload, body.authentication()?);
        let peer: PeerAuthenticated =
            verify_peer(&cx.secrets, &self.session, &self.messages, theirs, identities).map_err(incompatible)?;
        let our_id = Identification::new(local_id.clone());
        let auth =
            prove_ourselves(&cx.secrets, &self.session, &self.messages, &our_id, identities).map_err(incompatible)?;
        let proof = vec![Payload::IdResponder(our_id), Payload::Authentication(auth)];
        // Several connections may be for the very same peer; then the one with the right child is meant.
        let with_child = meant.iter().find(|connection| {
            let is_for_same_peer = (&connection.local, &connection.remote, &connection.remote_addresses)
                == (&accepting.local, &accepting.remote, &accepting.remote_addresses);
            is_for_same_peer && accepts(connection, suite) && has_child_for(&self.session, connection, body)
        });
        self.session.connection = Arc::clone(with_child.unwrap_or(accepting));
        Ok((Authenticated { local_id, remote_id: remote_id.clone(), _peer: peer }, proof))
    }

    fn establish(
        self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        (who, proof): (Authenticated, Vec<Payload>),
        body: &Body,
    ) -> IkeSa {
        if body.has_notify(NotifyType::InitialContact) {
            cx.follow_up(FollowUp::InitialContact {
                spi: self.session.names.local_spi(),
                connection: self.session.connection.name.clone(),
            });
        }
        let mut sa = Established::new(cx, now, self.session, who, (OurWindow::starting_at(0), self.theirs));
        sa.come_up(cx);
        if sa.session.nat.encapsulates() && sa.session.path.local.port() != cx.settings.nat_port {
            let text = "there is a NAT, and the peer stays on the port of plain IKE: ESP goes without UDP";
            cx.remark(Some(sa.connection_name()), RemarkLevel::Info, text);
        }
        sa.serve_ike_auth(cx, now, request, proof, body);
        IkeSa::Established(Box::new(sa))
    }

    /// Says no: all failures of authentication look alike from outside (R7296-2.21.2-2).
    fn refuse(mut self, cx: &mut Context, now: Instant, request: Request, trouble: Trouble) -> Option<IkeSa> {
        let reaction = trouble.reaction(Trust::Keyed);
        let about =
            About { connection: Some(&self.session.connection), child: None, peer: Some(self.session.path.remote) };
        cx.fail(trouble.into_failure(about));
        let (Reaction::Answer(notify) | Reaction::AnswerAndClose(notify)) = reaction else {
            return None;
        };
        let what = (request.exchange, MessageKind::Response, request.message_id);
        let message = self.session.seal(cx, what, request.path, &[Payload::Notify(notify)]).ok()?;
        self.theirs.answered(message.clone());
        self.session.send(cx, now, request.path, message);
        let Self { session, theirs, expires, .. } = self;
        Some(IkeSa::Refused(Box::new(Refused { session, theirs, expires })))
    }

    pub(super) fn on_timeout(self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        if self.expires > now {
            return Some(IkeSa::HalfOpen(Box::new(self)));
        }
        let text = format!("{} did not go on after IKE_SA_INIT", self.source.remote);
        cx.remark(Some(&self.session.connection.name), RemarkLevel::Debug, text);
        None
    }

    pub(super) fn deadline(&self) -> (Instant, TimerKind) {
        (self.expires, TimerKind::HalfOpen)
    }
}

/// An IKE_AUTH request was refused. The refusal is kept for a while, in case it got lost.
pub(super) struct Refused {
    pub(super) session: Session,
    theirs: TheirWindow,
    expires: Instant,
}

impl Refused {
    pub(super) fn on_message(mut self, cx: &mut Context, now: Instant, received: &Received<'_>) -> IkeSa {
        let header = received.message.header;
        if header.kind == MessageKind::Request
            && let Arrival::Repeated(response) = self.theirs.arrival(header.message_id)
            && self.session.is_repetition(received)
        {
            self.session.send(cx, now, received.path, response);
        }
        IkeSa::Refused(Box::new(self))
    }

    pub(super) fn on_timeout(self, now: Instant) -> Option<IkeSa> {
        (self.expires > now).then(|| IkeSa::Refused(Box::new(self)))
    }

    pub(super) fn deadline(&self) -> (Instant, TimerKind) {
        (self.expires, TimerKind::HalfOpen)
    }
}

/// The first connection that has proposals in common with the request.
fn choose_connection(
    candidates: &[Arc<Connection>],
    body: &Body,
    group: u16,
) -> Result<(Arc<Connection>, crate::proposal::IkeAgreement), Trouble> {
    let mut first_trouble = None;
    for connection in candidates {
        match choose_ike(connection, body.proposals()?, group) {
            Ok(agreement) => return Ok((connection.clone(), agreement)),
            // A connection that only wants another group is nearer than one with nothing in common.
            Err(trouble @ Trouble::WrongGroup { .. }) => {
                first_trouble =
                    Some(first_trouble.filter(|first| matches!(first, Trouble::WrongGroup { .. })).unwrap_or(trouble));
            }
            Err(trouble) => first_trouble = Some(first_trouble.unwrap_or(trouble)),
        }
    }
    Err(first_trouble.unwrap_or_else(|| Trouble::Local("there is no connection for these addresses".to_owned())))
}

fn id_refused(
    candidates: &[Arc<Connection>],
    session: &Session,
    id_payload: &Identification,
    wanted: Option<&Identity>,
) -> Trouble {
    let theirs = id_payload.identity().map_or_else(|| "of an unknown type".to_owned(), ToString::to_string);
    let mut their_lines = vec![format!("identity `{theirs}`")];
    their_lines.extend(wanted.map(|wanted| format!("asks for `{wanted}`")));
    let ours = candidates.iter().map(|connection| {
        let local = own_identity(connection, session);
        format!("connection `{}`: we are `{local}`, the peer is `{}`", connection.name, connection.remote.identity)
    });
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::AuthIdRefused,
        notify: NotifyType::AuthenticationFailed,
        what: format!("no connection accepts the peer's identity `{theirs}`"),
        ours: abridged(ours),
        theirs: their_lines,
        hint: Some(
            "`rightid` must be the identity that the peer has, and `leftid` the one that it asks for".to_owned(),
        ),
    }))
}
