//! The engine: routes what comes in to the SA it belongs to and collects what goes out.

mod admission;
mod auth;
mod child;
mod children;
mod collision;
mod commands;
mod connections;
mod contacts;
mod context;
mod create_child;
mod down;
mod established;
mod extensions;
mod failure;
mod followup;
mod ike_sa;
mod inbox;
mod informational;
mod initiator;
mod intermediate;
mod leases;
mod lost_spi;
mod mobike;
mod nat;
mod negotiate;
mod packets;
mod policies;
mod reauth;
mod reconcile;
mod redirect;
mod rekey_ike;
mod report;
mod resources;
mod responder;
mod run;
mod secrets;
mod serve;
mod session;
mod silence;
mod strangers;
mod task;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;
mod tickets;
mod timers;
mod twins;
mod uniqueness;
mod virtual_addresses;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use espdp_api::{Direction, Done, Encapsulation, EspSpi, Event, IkePath, Outcome, PolicyId, PolicySpec};

pub use self::policies::configured_policy;

use self::admission::Admission;
use self::child::InstallStep;
use self::context::{Asker, Context};
use self::ike_sa::{FollowUp, IkeSa, Received};
use self::task::ChildWish;
use crate::config::{Child, Connection};
use crate::io::{
    Answer, AskId, Command, DownReason, IkeSaReport, IkeSpi, Notice, Output, PoolReport, RemarkLevel, TimerKind,
};
use crate::wire::{ExchangeType, Message, MessageKind, Role, peek_header};
use crate::{SecureRandom, Settings};

/// An IKEv2 engine: all connections and all their SAs.
///
/// Feed it with the `handle_*` methods, each with the time; after each, carry out [`Engine::poll_output`] until it says
/// `None`, and call [`Engine::handle_timeout`] when the deadline of [`Engine::poll_timeout`] has come.
pub struct Engine {
    cx: Context,
    /// All SAs by the SPI that we chose, whatever stage they are in.
    sas: BTreeMap<IkeSpi, IkeSa>,
    /// The next deadline of each SA, by time.
    deadlines: BTreeSet<(Instant, TimerKind, IkeSpi)>,
    /// The same, by SA.
    deadline_of: BTreeMap<IkeSpi, (Instant, TimerKind)>,
    /// Attempts to set an IKE SA up as its initiator, by connection: one at a time.
    attempts: BTreeMap<String, IkeSpi>,
    admission: Admission,
    shutting_down: Option<ShuttingDown>,
}

/// Everything is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShuttingDown {
    /// Until then peers may answer.
    Until(Instant),
    /// It is over.
    Done,
}

impl Engine {
    /// An engine without connections and secrets.
    #[must_use]
    pub fn new(settings: Settings, random: Box<dyn SecureRandom + Send>) -> Self {
        Self {
            cx: Context::new(settings, random),
            sas: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            attempts: BTreeMap::new(),
            admission: Admission::default(),
            shutting_down: None,
        }
    }

    /// Takes a datagram from the network, without the non-ESP marker. A bad one is not the caller's error.
    pub fn handle_datagram(&mut self, now: Instant, path: IkePath, datagram: &[u8]) {
        self.route(now, path, datagram);
        self.settle_down(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: BTreeSet<IkeSpi> =
            self.deadlines.iter().take_while(|(at, _, _)| *at <= now).map(|(_, _, spi)| *spi).collect();
        for spi in due {
            self.with_sa(spi, |sa, cx| sa.on_timeout(cx, now));
            self.follow_up(now);
        }
        self.admission.on_timeout(now, &mut *self.cx.random);
        while let Some(connection) = self.cx.reconciler.take_due(now) {
            self.bring_up_wanted(now, &connection);
        }
        if matches!(self.shutting_down, Some(ShuttingDown::Until(at)) if at <= now) {
            self.end_all(now);
        }
        self.settle_down(now);
    }

    /// Takes the answer to an [`Output::Ask`].
    pub fn handle_answer(&mut self, now: Instant, id: AskId, answer: Answer) {
        let asker = self.cx.answered(id);
        match (asker, answer) {
            (Some(asker), Answer::Dataplane(outcome)) => self.on_outcome(now, asker, outcome),
            (Some(Asker::PeerAddresses(spi)), Answer::Addresses(addresses)) => {
                self.with_sa(spi, |sa, cx| sa.on_addresses(cx, now, addresses));
            }
            (Some(Asker::Signature(spi)), Answer::Signed(signed)) => {
                self.with_sa(spi, |sa, cx| sa.on_signed(cx, now, signed));
            }
            (Some(Asker::Judgement(spi)), Answer::Verified(verified)) => {
                self.with_sa(spi, |sa, cx| sa.on_verified(cx, now, verified));
            }
            (Some(Asker::MorePeerAddresses(spi)), Answer::Addresses(addresses)) => {
                self.with_established(spi, |sa, cx| sa.on_more_addresses(cx, addresses));
            }
            // Nobody asked for them.
            (_, Answer::Addresses(_) | Answer::Signed(_) | Answer::Verified(_)) => {}
            (None, Answer::Dataplane(outcome)) => self.give_back(outcome),
        }
        self.settle_down(now);
    }

    /// Carries out what somebody wants.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        self.carry_out(now, command);
        self.settle_down(now);
    }

    /// Takes what the dataplane saw. [`espdp_api::Event::Ike`] is a datagram.
    pub fn handle_dataplane(&mut self, now: Instant, event: Event) {
        match event {
            Event::Ike { path, message } => self.route(now, path, &message),
            Event::Acquire { policy, packet } => {
                if let Some((connection, child)) = self.trapped_child(policy) {
                    let wish = ChildWish { packet: Some(packet), ..ChildWish::new(child) };
                    self.bring_up(now, &connection, wish);
                }
            }
            Event::SoftLimit { direction, spi, policy } => {
                let limit = (direction, spi, policy);
                self.with_owner(limit, |sa, cx| sa.on_limit(cx, now, limit, false));
            }
            Event::HardLimit { direction, spi, policy } => {
                let limit = (direction, spi, policy);
                self.with_owner(limit, |sa, cx| sa.on_limit(cx, now, limit, true));
            }
            Event::FirstPacket { spi, policy } => {
                self.with_owner((Direction::Inbound, spi, policy), |sa, cx| sa.on_first_packet(cx, now, spi));
            }
            Event::PeerMoved { path, policy, spi } => {
                if let Encapsulation::Udp { local_port, remote_port } = path.encapsulation {
                    let path =
                        IkePath { local: (path.local, local_port).into(), remote: (path.remote, remote_port).into() };
                    self.with_owner((Direction::Inbound, spi, policy), |sa, cx| sa.on_peer_moved(cx, now, path));
                }
            }
            Event::NetworkChanged { addresses } => self.on_network_changed(now, addresses),
            Event::UnknownSpi { path, spi } => {
                let text = format!("ESP from {} for SPI {spi:08x}, which nobody has", path.remote);
                self.cx.remark(None, RemarkLevel::Debug, text);
                self.on_unknown_esp(now, path, spi);
            }
            Event::Fatal { reason } => {
                self.cx.remark(None, RemarkLevel::Warn, format!("the dataplane gave up: {reason}"));
            }
        }
        self.settle_down(now);
    }

    /// The next thing to do; call until `None` after every input, and keep the order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.cx.pop_output()
    }

    /// When [`Engine::handle_timeout`] is due, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        let of_sas = self.deadlines.first().map(|(at, kind, _)| (*at, *kind));
        let reconnect = self.cx.reconciler.next_due().map(|at| (at, TimerKind::Reconnect));
        let cookies = self.admission.deadline().map(|at| (at, TimerKind::CookieSecret));
        let shut_down = match self.shutting_down {
            Some(ShuttingDown::Until(at)) => Some((at, TimerKind::ShutDown)),
            Some(ShuttingDown::Done) | None => None,
        };
        [of_sas, reconnect, cookies, shut_down].into_iter().flatten().min()
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.cx.settings
    }

    /// Has each message told in plain text from now on ([`Notice::PlainText`]), or not any more.
    pub fn export_plain_text(&mut self, wanted: bool) {
        self.cx.exports_plain_text = wanted;
    }

    /// All IKE SAs as people see them.
    #[must_use]
    pub fn ike_sas(&self) -> Vec<IkeSaReport> {
        self.sas.values().filter_map(IkeSa::report).collect()
    }

    /// The connections, by name.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.cx.connections.iter().map(|connection| &**connection)
    }

    /// The pools of virtual addresses, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolReport> {
        self.cx.leases.report()
    }

    /// The policies that wait for packets, each with the names of connection and child.
    pub fn traps(&self) -> impl Iterator<Item = (&str, &str, &PolicySpec)> {
        self.cx.policies.traps()
    }

    /// The child that waits for packets on this policy, as it is configured now.
    fn trapped_child(&self, policy: PolicyId) -> Option<(Arc<Connection>, Arc<Child>)> {
        let policy = self.cx.policies.get(policy)?;
        let connection = self.cx.connections.get(&policy.connection)?;
        let child = connection.children.iter().find(|child| child.name == policy.child)?;
        Some((connection.clone(), Arc::new(child.clone())))
    }

    // Routing.

    /// RFC 7296 §2.6: a message belongs to an SA by the SPI that we chose for it, and by nothing else.
    fn route(&mut self, now: Instant, path: IkePath, datagram: &[u8]) {
        let header = match peek_header(datagram) {
            Ok(header) => header,
            Err(error) => return self.on_unreadable(now, path, &error),
        };
        let is_request = header.kind == MessageKind::Request;
        if is_request && header.exchange == ExchangeType::IkeSaInit {
            return self.on_init_request(now, path, datagram, header);
        }
        let (spi, peer_spi) = match header.sender {
            Role::OriginalInitiator => (header.responder_spi, header.initiator_spi),
            Role::OriginalResponder => (header.initiator_spi, header.responder_spi),
        };
        let known = self.sas.get(&spi).filter(|sa| sa.expects_from(header.sender, peer_spi));
        if known.is_none() {
            return self.on_unknown_spi(now, path, header);
        }
        let Ok(message) = Message::parse(datagram) else {
            return;
        };
        let received = Received { path, datagram, message };
        self.with_sa(spi, |sa, cx| sa.on_message(cx, now, &received));
    }

    fn on_outcome(&mut self, now: Instant, asker: Asker, outcome: Outcome) {
        let spi_of = |outcome: Outcome| match outcome {
            Ok(Done::Spi(spi)) => Ok(spi),
            Ok(other) => Err(format!("the dataplane gave no SPI but {other:?}")),
            Err(refusal) => Err(refusal.to_string()),
        };
        match asker {
            Asker::Nobody(what) => {
                if let Err(refusal) = outcome {
                    self.cx.remark(None, RemarkLevel::Debug, format!("could not {what}: {refusal}"));
                }
            }
            Asker::LocalAddress(spi) => {
                let local = local_address(outcome);
                self.with_sa(spi, |sa, cx| sa.on_local_address(cx, now, local));
            }
            Asker::WayToPeer { spi, remote, detour } => {
                let local = local_address(outcome);
                self.with_established(spi, |sa, cx| sa.on_way_to_peer(cx, now, (remote, detour), local));
            }
            Asker::PeerAddresses(_) | Asker::MorePeerAddresses(_) | Asker::Signature(_) | Asker::Judgement(_) => {
                self.give_back(outcome);
            }
            Asker::SpiToOffer(spi) if self.sas.contains_key(&spi) => {
                self.with_sa(spi, |sa, cx| sa.on_spi_to_offer(cx, now, spi_of(outcome)));
            }
            Asker::SpiToAnswer(spi) if self.sas.contains_key(&spi) => {
                self.with_sa(spi, |sa, cx| sa.on_spi_to_answer(cx, now, spi_of(outcome)));
            }
            Asker::SpiToOffer(_) | Asker::SpiToAnswer(_) => self.give_back(outcome),
            // Nobody waits for it any more, and what was refused is still reserved.
            Asker::Install(spi, _, InstallStep::Inbound(reserved))
                if outcome.is_err() && !self.sas.contains_key(&spi) =>
            {
                self.cx.release_spi(reserved);
            }
            Asker::Install(spi, child, step) => {
                let outcome = outcome.map(|_| ());
                self.with_established(spi, |sa, cx| sa.on_install(cx, now, (child, step), outcome));
            }
        }
    }

    /// Nobody waits for this outcome any more; an SPI must not be lost.
    fn give_back(&mut self, outcome: Outcome) {
        if let Ok(Done::Spi(spi)) = outcome {
            self.cx.release_spi(spi);
        }
    }

    /// The addresses or routes of this host have changed.
    fn on_network_changed(&mut self, now: Instant, addresses: Vec<IpAddr>) {
        self.cx.set_host_addresses(addresses);
        let established: Vec<IkeSpi> =
            self.sas.iter().filter(|(_, sa)| sa.established().is_some()).map(|(spi, _)| *spi).collect();
        for spi in established {
            self.with_established(spi, |sa, cx| sa.on_network_changed(cx, now));
        }
    }

    // SAs.

    /// Lets an SA do something, which may turn it into another stage or end it, and keeps the books.
    fn with_sa(&mut self, spi: IkeSpi, act: impl FnOnce(IkeSa, &mut Context) -> Option<IkeSa>) {
        let Some(sa) = self.sas.remove(&spi) else {
            return;
        };
        let attempt = sa.attempt().map(|attempt| attempt.connection.name.clone());
        let after = act(sa, &mut self.cx);
        if let Some(connection) = attempt
            && after.as_ref().is_none_or(|sa| sa.attempt().is_none())
        {
            self.attempts.remove(&connection);
        }
        match after {
            Some(sa) => self.keep(spi, sa),
            None => self.forget(spi),
        }
    }

    fn with_established(&mut self, spi: IkeSpi, act: impl FnOnce(&mut established::Established, &mut Context)) {
        self.with_sa(spi, |mut sa, cx| {
            if let IkeSa::Established(established) = &mut sa {
                act(established, cx);
                if established.is_over() {
                    return None;
                }
            }
            Some(sa)
        });
    }

    /// The same for the IKE SA to whose child an SPI belongs.
    fn with_owner(
        &mut self,
        (direction, spi, policy): (Direction, EspSpi, PolicyId),
        act: impl FnOnce(&mut established::Established, &mut Context),
    ) {
        if let Some(owner) = self.cx.policies.owner_of(policy, direction, spi) {
            self.with_established(owner, act);
        }
    }

    fn keep(&mut self, spi: IkeSpi, sa: IkeSa) {
        if matches!(sa, IkeSa::Established(_)) {
            self.admission.completed(spi);
        }
        if sa.attempt().is_some() {
            let connection = sa.attempt().map(|attempt| attempt.connection.name.clone());
            self.attempts.extend(connection.map(|connection| (connection, spi)));
        }
        self.set_deadline(spi, sa.deadline(&self.cx));
        self.sas.insert(spi, sa);
    }

    fn forget(&mut self, spi: IkeSpi) {
        self.set_deadline(spi, None);
        self.admission.gone(spi);
        self.cx.leases.release(spi);
        self.cx.release_ike_spi(spi);
    }

    fn set_deadline(&mut self, spi: IkeSpi, deadline: Option<(Instant, TimerKind)>) {
        let before = match deadline {
            Some(deadline) => self.deadline_of.insert(spi, deadline),
            None => self.deadline_of.remove(&spi),
        };
        if before != deadline {
            before.map(|(at, kind)| self.deadlines.remove(&(at, kind, spi)));
            self.deadlines.extend(deadline.map(|(at, kind)| (at, kind, spi)));
        }
    }

    /// Does what one SA's doings mean for others.
    fn follow_up(&mut self, now: Instant) {
        while let Some(follow_up) = self.cx.pop_follow_up() {
            match follow_up {
                FollowUp::Insert(sa) => self.keep(sa.local_spi(), IkeSa::Established(sa)),
                FollowUp::Inherit { heir, estate } => {
                    let mut estate = Some(estate);
                    self.with_established(heir, |sa, cx| {
                        if let Some(estate) = estate.take() {
                            sa.inherit(cx, now, *estate);
                        }
                    });
                    if let Some(estate) = estate {
                        estate.abandon(&mut self.cx);
                    }
                }
                FollowUp::Close { spi, reason } => self.with_established(spi, |sa, cx| sa.end(cx, now, reason)),
                FollowUp::AwaitDelete { spi } => self.with_established(spi, |sa, _| sa.await_delete(now)),
                FollowUp::ChildDeleted { heir, spi_out } => {
                    self.with_established(heir, |sa, cx| sa.on_inherited_child_deleted(cx, now, spi_out));
                }
                FollowUp::Sends { owner, child } => self.with_established(owner, |sa, _| sa.on_sends(child)),
                FollowUp::Drain { heir, child } => {
                    let mut child = Some(child);
                    self.with_established(heir, |sa, cx| {
                        child.take().into_iter().for_each(|child| sa.adopt_draining(cx, *child));
                    });
                    child.into_iter().for_each(|child| child.abandon(&mut self.cx));
                }
                FollowUp::Drained { owner, child } => {
                    self.with_established(owner, |sa, cx| sa.drop_child(cx, now, child, &DownReason::Replaced));
                }
                FollowUp::Unique { spi } => {
                    self.end_duplicates(now, spi);
                    self.displace_older(now, spi);
                    self.succeed(now, spi);
                }
                FollowUp::Displace { spi } => self.displace_one_too_many(now, spi),
                FollowUp::Reauthenticate { spi } => self.reauthenticate(now, spi, Vec::new()),
                FollowUp::Redirected { spi, gateway } => self.move_elsewhere(now, spi, gateway),
                FollowUp::Elsewhere { attempt, gateway } => self.begin_elsewhere(now, *attempt, gateway),
                FollowUp::NotReauthenticated { connection, succession, why } => {
                    self.on_reauthentication_failed(now, &connection, *succession, &why);
                }
                FollowUp::InitialContact { spi, began } => {
                    for other in self.cx.contacts.same_as(spi) {
                        self.with_established(other, |sa, cx| sa.on_initial_contact(cx, now, began));
                    }
                }
            }
        }
    }

    /// The end of every input.
    fn settle_down(&mut self, now: Instant) {
        self.follow_up(now);
        if matches!(self.shutting_down, Some(ShuttingDown::Until(_))) && self.sas.is_empty() {
            self.shutting_down = Some(ShuttingDown::Done);
            self.cx.settle_all("the daemon shuts down");
            self.cx.notice(Notice::ShutDown);
        }
    }
}

/// The address that the dataplane was asked for.
fn local_address(outcome: Outcome) -> Result<IpAddr, String> {
    match outcome {
        Ok(Done::LocalAddress(address)) => Ok(address),
        Ok(other) => Err(format!("the dataplane gave no address but {other:?}")),
        Err(refusal) => Err(refusal.to_string()),
    }
}
