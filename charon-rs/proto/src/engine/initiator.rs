//! Setting an IKE SA up as its initiator: from a connection's name to the IKE_AUTH request (RFC 7296 §1.2).
//!
//! Each stage holds what exists then, and its transition consumes it:
//! [`Locating`] → [`Initiating`] → [`Keyed`] and what follows in [`super::intermediate`] and [`super::auth::initiator`].

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use espdp_api::{Command as DataplaneCommand, IkePath};

use super::auth::Transcript;
use super::auth::certificates::requested;
use super::auth::initiator::Keyed;
use super::context::{Asker, Context, Sent};
use super::extensions::{Extensions, announcements_in_init_request};
use super::failure::{About, Incompatible, Trouble};
use super::ike_sa::{FollowUp, IkeSa, Received};
use super::intermediate::{IntAuth, Intermediate};
use super::nat::{Nat, agreed, for_speed, nat_detection_payloads, path_after_init, wants_speed};
use super::packets::Packets;
use super::reauth::Succession;
use super::redirect::{Redirections, redirected_in_init, remark_redirection};
use super::session::{Names, Session, SessionParts};
use super::task::ChildWish;
use super::window::{OurWindow, Retransmit};
use crate::config::{Connection, Gateway, RemoteAddress};
use crate::crypto::key_exchange::KeyExchange;
use crate::crypto::schedule::{IkeExchange, IkeKeys};
use crate::io::{Ask, CertificateRequest, FailureCode, IkeSaId, IkeSpi, RemarkLevel, Ticket, TimerKind};
use crate::proposal::{IkeProposal, KeyExchangeGroup, check_ike_answer, ike_offer};
use crate::rules::{Body, INIT_RESPONSE, notifies};
use crate::wire::{
    ExchangeType, KeyExchange as KeyExchangePayload, MessageKind, Notify, NotifyType, Payload, Role, encode_message,
};

/// What an attempt to set an IKE SA up is for.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) connection: Arc<Connection>,
    pub(super) id: IkeSaId,
    /// The SPI that we chose.
    pub(super) spi: IkeSpi,
    pub(super) began: Instant,
    /// The children that are to come up, the first with IKE_AUTH.
    pub(super) wishes: VecDeque<ChildWish>,
    /// Whose commands end when the IKE SA is up, whatever becomes of the children.
    pub(super) tickets: Vec<Ticket>,
    /// The peer's addresses that are left to try.
    addresses: VecDeque<IpAddr>,
    /// What the new SA takes over from another one.
    pub(super) succession: Option<Succession>,
    pub(super) redirections: Redirections,
}

impl Attempt {
    /// Adds a child, or the tickets of the wish to the same child.
    pub(super) fn wish(&mut self, wish: ChildWish) {
        match self.wishes.iter_mut().find(|known| known.child.name == wish.child.name) {
            Some(known) => {
                known.tickets.extend(wish.tickets);
                known.packet = known.packet.or(wish.packet);
            }
            None => self.wishes.push_back(wish),
        }
    }

    /// Gives the attempt up: says why, settles its tickets, and leaves the rest to the reconciler.
    pub(super) fn fail(mut self, cx: &mut Context, now: Instant, trouble: Trouble, peer: Option<SocketAddr>) {
        let failure = trouble.into_failure(About {
            ike_sa: Some(self.id),
            connection: Some(&self.connection),
            child: None,
            peer,
        });
        let text = failure.what.clone();
        cx.fail(failure);
        cx.settle(self.take_tickets(), &Err(text.clone()));
        self.give_succession_up(cx, text);
        cx.reconnect_later(now, &self.connection.name);
    }

    /// Stops the attempt because somebody here wants it.
    pub(super) fn stop(mut self, cx: &mut Context) {
        cx.settle(self.take_tickets(), &Err("the attempt was stopped".to_owned()));
        self.give_succession_up(cx, "the attempt was stopped".to_owned());
    }

    fn give_succession_up(&mut self, cx: &mut Context, why: String) {
        if let Some(succession) = self.succession.take() {
            let (connection, succession) = (self.connection.name.clone(), Box::new(succession));
            cx.follow_up(FollowUp::NotReauthenticated { connection, succession, why });
        }
    }

    fn take_tickets(&mut self) -> Vec<Ticket> {
        let of_wishes = self.wishes.drain(..).flat_map(|wish| wish.tickets);
        self.tickets.drain(..).chain(of_wishes).collect()
    }

    /// Gives the attempt up for a cause that concerns neither messages nor proposals.
    fn fail_for(self, cx: &mut Context, now: Instant, code: FailureCode, what: String, hint: Option<&str>) {
        let trouble = Trouble::Incompatible(Box::new(Incompatible {
            code,
            notify: NotifyType::NoProposalChosen,
            what,
            ours: Vec::new(),
            theirs: Vec::new(),
            hint: hint.map(str::to_owned),
            cure: None,
        }));
        self.fail(cx, now, trouble, None);
    }
}

/// Looking for the peer's addresses and for ours.
#[derive(Debug)]
pub(super) struct Locating {
    pub(super) attempt: Attempt,
    /// Names whose addresses are still to come.
    unresolved: usize,
    /// Why an address cannot be reached from here.
    no_way: Option<String>,
}

impl Locating {
    /// Begins an attempt. Names are resolved anew each time.
    pub(super) fn begin(
        cx: &mut Context,
        now: Instant,
        connection: Arc<Connection>,
        spi: IkeSpi,
        (wishes, tickets): (VecDeque<ChildWish>, Vec<Ticket>),
    ) -> Option<IkeSa> {
        let id = cx.new_ike_sa_id();
        let (addresses, succession, redirections) = (VecDeque::new(), None, Redirections::default());
        let attempt = Attempt { connection, id, spi, began: now, wishes, tickets, addresses, succession, redirections };
        let mut locating = Self { attempt, unresolved: 0, no_way: None };
        for remote in locating.attempt.connection.clone().remote_addresses.iter() {
            match remote {
                RemoteAddress::Address(address) => locating.attempt.addresses.push_back(*address),
                RemoteAddress::Name(name) => {
                    locating.unresolved += 1;
                    cx.ask(Asker::PeerAddresses(spi), Ask::Resolve(name.clone()));
                }
                RemoteAddress::Range(_) | RemoteAddress::Any => {}
            }
        }
        locating.proceed(cx, now)
    }

    /// Goes on at another gateway.
    pub(super) fn elsewhere(cx: &mut Context, now: Instant, mut attempt: Attempt, gateway: Gateway) -> Option<IkeSa> {
        attempt.addresses.clear();
        let unresolved = match gateway {
            Gateway::Address(address) => {
                attempt.addresses.push_back(address);
                0
            }
            Gateway::Name(name) => {
                cx.ask(Asker::PeerAddresses(attempt.spi), Ask::Resolve(name));
                1
            }
        };
        Self { attempt, unresolved, no_way: None }.proceed(cx, now)
    }

    /// Begins an attempt to make an IKE SA anew, at this gateway.
    pub(super) fn begin_again(
        cx: &mut Context,
        now: Instant,
        connection: Arc<Connection>,
        spi: IkeSpi,
        wishes: VecDeque<ChildWish>,
        (gateway, succession, redirections): (Gateway, Succession, Redirections),
    ) -> Option<IkeSa> {
        let id = cx.new_ike_sa_id();
        let (tickets, addresses, succession) = (Vec::new(), VecDeque::new(), Some(succession));
        let attempt = Attempt { connection, id, spi, began: now, wishes, tickets, addresses, succession, redirections };
        Self::elsewhere(cx, now, attempt, gateway)
    }

    /// Takes the addresses of one name.
    pub(super) fn on_addresses(mut self, cx: &mut Context, now: Instant, found: Vec<IpAddr>) -> Option<IkeSa> {
        self.unresolved = self.unresolved.saturating_sub(1);
        let room = MAX_ADDRESSES.saturating_sub(self.attempt.addresses.len());
        self.attempt.addresses.extend(found.into_iter().take(room));
        self.proceed(cx, now)
    }

    /// Takes our address towards the first of the peer's.
    pub(super) fn on_local_address(
        mut self,
        cx: &mut Context,
        now: Instant,
        local: Result<IpAddr, String>,
    ) -> Option<IkeSa> {
        let Some(remote) = self.attempt.addresses.pop_front() else {
            return self.proceed(cx, now);
        };
        match local {
            Ok(local) => Initiating::begin(cx, now, self.attempt, local, remote),
            Err(why) => {
                let text = format!("there is no way to {remote}: {why}");
                cx.remark(Some(&self.attempt.connection.name), RemarkLevel::Info, text.clone());
                self.no_way = Some(text);
                self.proceed(cx, now)
            }
        }
    }

    /// Goes on with the first address once all names are resolved.
    fn proceed(mut self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        if self.unresolved > 0 {
            return Some(IkeSa::Locating(Box::new(self)));
        }
        let connection = self.attempt.connection.clone();
        let Some(&remote) = self.attempt.addresses.front() else {
            match self.no_way {
                Some(why) => {
                    let hint = "add a route to the peer, or bring the interface up that has one; is `left` an address of ours?";
                    self.attempt.fail_for(cx, now, FailureCode::NoRoute, why, Some(hint));
                }
                None => {
                    let what =
                        format!("no address of the peer of `{}` is known{}", connection.name, unresolved(&connection));
                    let hint =
                        "`right` must be an address or a name that resolves for us to initiate: try `getent ahosts`";
                    self.attempt.fail_for(cx, now, FailureCode::NoAddress, what, Some(hint));
                }
            }
            return None;
        };
        let same_family = |local: &&IpAddr| local.is_ipv4() == remote.is_ipv4();
        match connection.local_addresses.iter().find(same_family) {
            Some(&local) => {
                self.attempt.addresses.pop_front();
                Initiating::begin(cx, now, self.attempt, local, remote)
            }
            None => {
                let command = DataplaneCommand::LocalAddress { remote };
                cx.ask(Asker::LocalAddress(self.attempt.spi), Ask::Dataplane(command));
                Some(IkeSa::Locating(Box::new(self)))
            }
        }
    }
}

/// The IKE_SA_INIT request is on its way.
#[derive(Debug)]
pub(super) struct Initiating {
    pub(super) attempt: Attempt,
    pub(super) path: IkePath,
    window: OurWindow,
    nonce: Vec<u8>,
    key_exchange: KeyExchange,
    /// NAT detection hashes, which stay over retries so that all but cookie and key exchange is unchanged
    /// (R7296-2.6-4).
    nat_detection: Vec<Payload>,
    cookie: Option<Vec<u8>>,
    /// The message as it was sent last.
    message: Vec<u8>,
    /// How often the peer asked for a cookie or another group.
    retries: u8,
    /// An error notification that came: nobody vouches for it, so a better answer is waited for (RFC 7296 §2.21.1).
    refusal: Option<Notify>,
}

impl Initiating {
    fn begin(cx: &mut Context, now: Instant, attempt: Attempt, local: IpAddr, remote: IpAddr) -> Option<IkeSa> {
        let connection = attempt.connection.clone();
        let path = IkePath {
            local: SocketAddr::new(local, connection.local_port),
            remote: SocketAddr::new(remote, connection.remote_port),
        };
        let Some(group) = first_group(&connection.ike_proposals) else {
            let what = format!("connection `{}` has no IKE proposal with a group", connection.name);
            attempt.fail_for(cx, now, FailureCode::Local, what, None);
            return None;
        };
        let nonce = cx.new_nonce();
        let key_exchange = KeyExchange::generate(group, &mut *cx.random);
        let spis = (attempt.spi, IkeSpi::default());
        let nat_detection = nat_detection_payloads(cx, spis, path, connection.encapsulation);
        let mut initiating = Self {
            attempt,
            path,
            window: OurWindow::starting_at(0),
            nonce,
            key_exchange,
            nat_detection,
            cookie: None,
            message: Vec::new(),
            retries: 0,
            refusal: None,
        };
        match initiating.build(cx) {
            Ok(()) => {
                let message = initiating.message.clone();
                initiating.window.sent(
                    now,
                    ExchangeType::IkeSaInit,
                    Packets::whole(message.clone()),
                    &connection.retransmission,
                );
                cx.transmit(path, message);
                Some(IkeSa::Initiating(Box::new(initiating)))
            }
            Err(trouble) => {
                initiating.attempt.fail(cx, now, trouble, Some(path.remote));
                None
            }
        }
    }

    fn names(&self) -> Names {
        Names {
            id: self.attempt.id,
            role: Role::OriginalInitiator,
            initiator_spi: self.attempt.spi,
            responder_spi: IkeSpi::default(),
        }
    }

    /// Builds the request as it is to be now and writes it into the journal.
    fn build(&mut self, cx: &mut Context) -> Result<(), Trouble> {
        let header = self.names().header(ExchangeType::IkeSaInit, MessageKind::Request, 0);
        let cookie = self.cookie.iter().map(|cookie| Notify::with_data(NotifyType::Cookie, cookie.clone()));
        let mut payloads: Vec<Payload> = cookie.map(Payload::Notify).collect();
        payloads.push(Payload::SecurityAssociation(ike_offer(&self.attempt.connection.ike_proposals, None)));
        payloads.push(Payload::KeyExchange(KeyExchangePayload {
            group: self.key_exchange.group() as u16,
            data: self.key_exchange.public().to_vec(),
        }));
        payloads.push(Payload::Nonce(self.nonce.clone()));
        payloads.extend(self.nat_detection.iter().cloned());
        payloads.extend(for_speed(self.attempt.connection.encapsulation));
        payloads.extend(announcements_in_init_request(&self.attempt.connection));
        payloads.extend(self.attempt.redirections.announcement(&self.attempt.connection).map(Payload::Notify));
        self.message = encode_message(&header, &payloads)?;
        let sent = Sent { path: self.path, by_us: true, octets: self.message.len(), fragments: None };
        cx.trace(Some((&self.attempt.connection.name, self.attempt.id)), sent, &header, &payloads);
        Ok(())
    }

    /// Sends the request again with what the peer asked for, as far as its patience goes.
    fn retry(mut self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        self.retries += 1;
        match self.build(cx) {
            Ok(()) => {
                self.window.replace(now, Packets::whole(self.message.clone()), &self.attempt.connection.retransmission);
                cx.transmit(self.path, self.message.clone());
                Some(IkeSa::Initiating(Box::new(self)))
            }
            Err(trouble) => {
                self.attempt.fail(cx, now, trouble, Some(self.path.remote));
                None
            }
        }
    }

    /// Takes a response. What is wrong or makes no sense is ignored: it may be forged, and the right one may still come
    /// (R6989-2.5-1).
    pub(super) fn on_message(mut self, cx: &mut Context, now: Instant, received: &Received<'_>) -> Option<IkeSa> {
        let header = &received.message.header;
        let is_answer = header.kind == MessageKind::Response
            && header.sender == Role::OriginalResponder
            && received.message.encrypted.is_none()
            && self.window.expects(header.message_id, header.exchange);
        if !is_answer {
            return Some(IkeSa::Initiating(Box::new(self)));
        }
        received.trace(cx, Some((&self.attempt.connection.name, self.attempt.id)), &received.message.payloads);
        let payloads = received.message.payloads.clone();
        if let Some(notify) = notifies(&payloads).find(|notify| notify.kind == NotifyType::Cookie) {
            return self.on_cookie(cx, now, notify.data.clone());
        }
        if let Some(notify) = notifies(&payloads).find(|notify| notify.wanted_group().is_some()) {
            return self.on_wanted_group(cx, now, notify);
        }
        if let Some(notify) = notifies(&payloads).find(|notify| notify.kind == NotifyType::Redirect) {
            return self.on_redirect(cx, now, notify);
        }
        if let Some(error) = notifies(&payloads).find(|notify| notify.kind.is_error()) {
            self.refusal = Some(error.clone());
            return Some(IkeSa::Initiating(Box::new(self)));
        }
        let agreed = INIT_RESPONSE
            .check(payloads)
            .map_err(Trouble::from)
            .and_then(|body| Ok((self.agree(now, cx.settings.nat_port, received, &body)?, requested(&body))));
        match agreed {
            Ok((session, requested)) => Intermediate::begin(cx, now, self.into_keyed(session, requested, received)),
            Err(trouble) => {
                let text = format!("an answer to IKE_SA_INIT from {} is ignored: {trouble}", received.path.remote);
                cx.remark(Some(&self.attempt.connection.name), RemarkLevel::Debug, text);
                Some(IkeSa::Initiating(Box::new(self)))
            }
        }
    }

    /// RFC 7296 §2.6: the same again with the cookie in front. It stays over a change of the group (R7296-2.6.1-1).
    fn on_cookie(mut self, cx: &mut Context, now: Instant, cookie: Vec<u8>) -> Option<IkeSa> {
        if self.retries >= MAX_RETRIES || self.cookie.as_ref() == Some(&cookie) {
            return Some(IkeSa::Initiating(Box::new(self)));
        }
        self.cookie = Some(cookie);
        self.retry(cx, now)
    }

    /// RFC 5685 §3: the responder wants us elsewhere. What does not have our nonce is forged (R5685-3-1).
    fn on_redirect(mut self, cx: &mut Context, now: Instant, notify: &Notify) -> Option<IkeSa> {
        let connection = self.attempt.connection.clone();
        let gateway = redirected_in_init(notify, &self.nonce).filter(|_| connection.follow_redirects);
        let Some(gateway) = gateway else {
            return Some(IkeSa::Initiating(Box::new(self)));
        };
        let from = self.path.remote;
        if !self.attempt.redirections.follow(now, from.ip()) {
            self.attempt.fail(cx, now, Trouble::redirected_too_often(), Some(from));
            return None;
        }
        remark_redirection(cx, &connection, from.ip(), &gateway);
        Locating::elsewhere(cx, now, self.attempt, gateway)
    }

    /// RFC 7296 §1.2: the same again with the group that the peer wants, if we offered it (R7296-1.2-1).
    fn on_wanted_group(mut self, cx: &mut Context, now: Instant, notify: &Notify) -> Option<IkeSa> {
        let offered = |wanted| offered_group(&self.attempt.connection.ike_proposals, wanted);
        let group = notify.wanted_group().and_then(offered);
        match group {
            Some(group) if group != self.key_exchange.group() && self.retries < MAX_RETRIES => {
                self.key_exchange = KeyExchange::generate(group, &mut *cx.random);
                self.retry(cx, now)
            }
            _ => {
                self.refusal = Some(notify.clone());
                Some(IkeSa::Initiating(Box::new(self)))
            }
        }
    }

    /// Makes the keys from an answer that agrees with our offer.
    fn agree(&self, now: Instant, nat_port: u16, received: &Received<'_>, body: &Body) -> Result<Session, Trouble> {
        let connection = &self.attempt.connection;
        let responder_spi = received.message.header.responder_spi;
        if responder_spi == IkeSpi::default() {
            return Err(Trouble::NotOffered("the responder's SPI is zero".to_owned()));
        }
        let agreement = check_ike_answer(&connection.ike_proposals, body.proposals()?)
            .map_err(|error| Trouble::NotOffered(error.to_string()))?;
        let suite = agreement.suite;
        let theirs = body.key_exchange()?;
        if theirs.group != suite.group as u16 || suite.group != self.key_exchange.group() {
            return Err(Trouble::NotOffered(format!("the answer is for group {}", theirs.group)));
        }
        let shared_secret =
            self.key_exchange.agree(&theirs.data).map_err(|error| Trouble::NotOffered(error.to_string()))?;
        let nonce_r = body.nonce()?.to_vec();
        let names = Names { responder_spi, ..self.names() };
        let keys = IkeKeys::first(
            suite,
            &IkeExchange {
                shared_secret: &shared_secret,
                more_secrets: &[],
                initiator_nonce: &self.nonce,
                responder_nonce: &nonce_r,
                initiator_spi: names.initiator_spi,
                responder_spi,
            },
        );
        let theirs = notifies(&received.message.payloads);
        let extensions = Extensions::announced_in_init(connection, theirs.clone());
        // RFC 9370 §2.2.1.
        if !suite.additional.is_empty() && !extensions.intermediate {
            return Err(Trouble::NotOffered("the peer wants IKE_INTERMEDIATE and does not announce it".to_owned()));
        }
        let encapsulation = agreed(connection.encapsulation, wants_speed(&received.message.payloads));
        let nat = Nat::detect(theirs, names.spis(), received.path, encapsulation);
        let path = path_after_init(self.path, nat, connection, nat_port);
        let parts = SessionParts {
            names,
            connection: connection.clone(),
            path,
            nat,
            suite,
            keys,
            nonce_i: self.nonce.clone(),
            nonce_r,
            extensions,
        };
        Session::new(now, parts).map_err(|error| Trouble::Local(error.to_string()))
    }

    fn into_keyed(self, session: Session, requested: Vec<CertificateRequest>, received: &Received<'_>) -> Keyed {
        let Self { attempt, mut window, message, .. } = self;
        window.close();
        let (theirs, intermediate) = (received.datagram.to_vec(), IntAuth::default());
        let transcript = Transcript { ours: message, theirs, intermediate };
        Keyed { attempt, session, transcript, window, requested }
    }

    pub(super) fn on_timeout(mut self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let connection = self.attempt.connection.clone();
        let is_due = self.window.due().is_some_and(|due| due <= now);
        // Peers that refuse us for good say so each time; one that was tricked would have answered by now.
        let refused_for_good = |refusal: &Notify| refusal.kind == NotifyType::NoProposalChosen;
        if is_due && self.refusal.as_ref().is_some_and(refused_for_good) {
            return self.give_up(cx, now);
        }
        match self.window.retransmit(now, &connection.retransmission) {
            Retransmit::NotDue => Some(IkeSa::Initiating(Box::new(self))),
            Retransmit::Again(packets) => {
                let unanswered = self.window.unanswered();
                cx.repeated((&connection.name, self.attempt.id), (self.path, true), unanswered);
                packets.transmit(cx, self.path);
                Some(IkeSa::Initiating(Box::new(self)))
            }
            Retransmit::Exhausted => self.give_up(cx, now),
        }
    }

    /// Tries the next address, or reports what the peer said, if anything.
    fn give_up(self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let remote = self.path.remote;
        if self.refusal.is_none() && !self.attempt.addresses.is_empty() {
            let text = format!("{remote} does not answer, the next address is tried");
            cx.remark(Some(&self.attempt.connection.name), RemarkLevel::Info, text);
            return Locating { attempt: self.attempt, unresolved: 0, no_way: None }.proceed(cx, now);
        }
        let trouble = match &self.refusal {
            Some(notify) => Trouble::refused_in_init(notify, &self.attempt.connection),
            None => Trouble::silent_peer(&self.attempt.connection, self.path, self.window.unanswered()),
        };
        self.attempt.fail(cx, now, trouble, Some(remote));
        None
    }

    pub(super) fn deadline(&self) -> Option<(Instant, TimerKind)> {
        self.window.due().map(|due| (due, TimerKind::Retransmit))
    }
}

/// Whether the connection says where the peer is, so that we can begin.
pub(super) fn can_initiate(connection: &Connection) -> bool {
    let is_place = |remote: &RemoteAddress| matches!(remote, RemoteAddress::Address(_) | RemoteAddress::Name(_));
    connection.remote_addresses.iter().any(is_place)
}

/// The names that were looked up in vain, for the end of a sentence.
fn unresolved(connection: &Connection) -> String {
    let name = |remote: &RemoteAddress| match remote {
        RemoteAddress::Name(name) => Some(format!("`{name}`")),
        RemoteAddress::Address(_) | RemoteAddress::Range(_) | RemoteAddress::Any => None,
    };
    let names: Vec<String> = connection.remote_addresses.iter().filter_map(name).collect();
    if names.is_empty() { String::new() } else { format!(": {} has none", names.join(", ")) }
}

/// The first group of the first proposal: the one that is tried first.
pub(super) fn first_group(proposals: &[IkeProposal]) -> Option<KeyExchangeGroup> {
    proposals.iter().find_map(|proposal| proposal.groups.first().copied())
}

/// The group with this number, if one of the proposals has it.
pub(super) fn offered_group(proposals: &[IkeProposal], number: u16) -> Option<KeyExchangeGroup> {
    proposals.iter().flat_map(|proposal| &proposal.groups).copied().find(|&group| group as u16 == number)
}

/// Cookies and groups that a peer may ask for in one attempt (RFC 7296 §2.6 wants a limit). An honest one asks for two
/// cookies and one group at most, see §2.6.1.
const MAX_RETRIES: u8 = 5;

/// Addresses of one peer that are tried: what names resolve to comes from outside.
const MAX_ADDRESSES: usize = 16;
