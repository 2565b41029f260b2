//! Hosts, the network between them, and the clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use espdp_api::{Done, EspSpi, Event, IkePath, PolicyId};
use ike_proto::Settings;
use ike_proto::io::{Answer, Ask, AskId, Command, Notice, Output};

use crate::{Faults, Host, Nat, Packet, Rng, Verdict};

/// Names a host of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(usize);

/// All of it.
pub struct World {
    hosts: Vec<Host>,
    faults: Faults,
    rng: Rng,
    seed: u64,
    start: Instant,
    now: Instant,
    events: BTreeMap<(Instant, u64), Happening>,
    next_event: u64,
    traffic: Option<Duration>,
    tapped: Option<Vec<Tapped>>,
    /// What became of the packets sent so far.
    pub tally: Traffic,
}

/// A datagram that somebody sent.
#[derive(Clone, Debug)]
pub struct Tapped {
    /// Who.
    pub from: HostId,
    /// What.
    pub message: Vec<u8>,
}

/// What became of ESP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent on an SA.
    pub sent: u64,
    /// Received.
    pub delivered: u64,
    /// No SA to send on.
    pub unsent: u64,
    /// Arrived where no SA was.
    pub unknown: u64,
    /// Arrived where the SA had other keys.
    pub undecipherable: u64,
}

/// How things stand between two hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// IKE SAs on each.
    pub ike_sas: [usize; 2],
    /// Inbound SAs on each.
    pub inbound: [usize; 2],
    /// Outbound SAs on each.
    pub outbound: [usize; 2],
    /// For each policy of the first host: whether a packet of it would arrive, and one of the other's policies back.
    pub usable: [bool; 2],
}

enum Happening {
    Datagram { to: SocketAddr, from: SocketAddr, message: Vec<u8> },
    Answer { host: HostId, id: AskId, answer: Answer },
    Packet(Packet),
    Send,
}

impl World {
    /// An empty world. Everything in it follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        let start = Instant::now();
        Self {
            hosts: Vec::new(),
            faults,
            rng: Rng::new(seed),
            seed,
            start,
            now: start,
            events: BTreeMap::new(),
            next_event: 0,
            traffic: None,
            tapped: None,
            tally: Traffic::default(),
        }
    }

    /// Adds a host.
    pub fn add(&mut self, address: IpAddr, settings: Settings) -> HostId {
        let id = HostId(self.hosts.len());
        let seed = self.seed.wrapping_mul(1000).wrapping_add(id.0 as u64);
        self.hosts.push(Host::new(address, settings, seed));
        id
    }

    /// A host.
    ///
    /// # Panics
    /// When the id is of another world.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "ids come from this world")]
    pub fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0]
    }

    /// A host, to change it.
    ///
    /// # Panics
    /// When the id is of another world.
    #[expect(clippy::indexing_slicing, reason = "ids come from this world")]
    pub fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0]
    }

    /// Gives a command to a host's engine.
    pub fn command(&mut self, id: HostId, command: Command) {
        let now = self.now;
        self.host_mut(id).command(now, command);
        self.drain(id);
    }

    /// Gives a host another address, which it notices.
    pub fn readdress(&mut self, id: HostId, address: IpAddr) {
        let now = self.now;
        let host = self.host_mut(id);
        host.address = address;
        host.engine.handle_dataplane(now, Event::NetworkChanged { addresses: vec![address] });
        self.drain(id);
    }

    /// Keeps a copy of every datagram of IKE that is sent from now on.
    pub fn tap(&mut self) {
        self.tapped.get_or_insert_default();
    }

    /// What was sent since [`Self::tap`].
    #[must_use]
    pub fn tapped(&self) -> &[Tapped] {
        self.tapped.as_deref().unwrap_or_default()
    }

    /// Puts a datagram on the wire that none of the hosts sent. It arrives at once.
    pub fn inject(&mut self, to: SocketAddr, from: SocketAddr, message: Vec<u8>) {
        self.schedule(Duration::ZERO, Happening::Datagram { to, from, message });
    }

    /// Changes the network.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.duration_since(self.start)
    }

    /// Sends a packet of every policy of every host each `interval` from now on; `None` stops it.
    pub fn set_traffic(&mut self, interval: Option<Duration>) {
        if self.traffic.is_none() && interval.is_some() {
            self.schedule(Duration::ZERO, Happening::Send);
        }
        self.traffic = interval;
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.next_due().filter(|due| *due <= end) {
            self.step(due);
        }
        self.now = end;
    }

    /// Lets time pass until `done`, at most `limit`; says whether it came to that.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            match self.next_due().filter(|due| *due <= end) {
                Some(due) => self.step(due),
                None => {
                    self.now = end;
                    return done(self);
                }
            }
        }
        true
    }

    /// How things stand between two hosts.
    #[must_use]
    pub fn survey(&self, one: HostId, other: HostId) -> Survey {
        let count = |f: &dyn Fn(&Host) -> usize| [f(self.host(one)), f(self.host(other))];
        Survey {
            ike_sas: count(&|host| host.engine.ike_sas().len()),
            inbound: count(&|host| host.books.inbound().count()),
            outbound: count(&|host| host.books.outbound().count()),
            usable: [self.usable(one), self.usable(other)],
        }
    }

    /// Wants that two hosts agree: one IKE SA with equal SPIs, one Child SA pair for each policy, in use both ways, and
    /// nothing left over.
    ///
    /// # Panics
    /// When they do not.
    pub fn assert_agreement(&self, one: HostId, other: HostId, children: usize) {
        let survey = self.survey(one, other);
        let wanted = Survey { ike_sas: [1; 2], inbound: [children; 2], outbound: [children; 2], usable: [true; 2] };
        assert_eq!(survey, wanted, "after {:?}:\n{}", self.elapsed(), self.story());
        let spis = |id| -> Vec<_> {
            let sas = self.host(id).established();
            sas.iter().map(|sa| (sa.initiator_spi, sa.responder_spi)).collect()
        };
        assert_eq!(spis(one), spis(other), "the IKE SAs differ:\n{}", self.story());
    }

    /// Everything the hosts told, in the order of time.
    #[must_use]
    pub fn story(&self) -> String {
        let mut lines: Vec<(Instant, String)> = Vec::new();
        for host in &self.hosts {
            for (at, notice) in &host.notices {
                lines.push((*at, tell(host, self.start, *at, notice)));
            }
        }
        lines.sort_by_key(|(at, _)| *at);
        lines.into_iter().map(|(_, line)| line + "\n").collect()
    }

    fn usable(&self, id: HostId) -> bool {
        let host = self.host(id);
        let mut policies = host.books.policies().peekable();
        policies.peek().is_some()
            && policies.all(|policy| {
                host.books.send(policy.id).is_some_and(|packet| {
                    self.receiver(packet.to)
                        .is_some_and(|to| self.host(to).books.inbound().any(|spi| spi == packet.spi))
                })
            })
    }

    fn next_due(&self) -> Option<Instant> {
        let timers = self.hosts.iter().filter(|host| !host.down).filter_map(|host| host.engine.poll_timeout());
        let timer = timers.map(|(due, _)| due).min();
        let event = self.events.keys().next().map(|(due, _)| *due);
        timer.into_iter().chain(event).min()
    }

    fn step(&mut self, due: Instant) {
        self.now = self.now.max(due);
        if let Some(event) = self.events.first_entry().filter(|event| event.key().0 <= due) {
            let event = event.remove();
            self.happen(event);
            return;
        }
        for id in (0..self.hosts.len()).map(HostId) {
            let now = self.now;
            let host = self.host_mut(id);
            if host.down || host.engine.poll_timeout().is_none_or(|(due, _)| due > now) {
                continue;
            }
            let before = host.engine.poll_timeout();
            host.engine.handle_timeout(now);
            self.drain(id);
            let after = self.host(id).engine.poll_timeout();
            assert!(before != after || before.is_none(), "a timer that is not served: {before:?}\n{}", self.story());
        }
    }

    fn happen(&mut self, event: Happening) {
        match event {
            Happening::Datagram { to, from, message } => {
                let Some((id, local)) = self.arrival(to) else { return };
                let now = self.now;
                let path = IkePath { local, remote: from };
                let host = self.host_mut(id);
                if !host.down {
                    host.engine.handle_datagram(now, path, &message);
                    self.drain(id);
                }
            }
            Happening::Answer { host: id, id: ask, answer } => {
                let now = self.now;
                self.host_mut(id).engine.handle_answer(now, ask, answer);
                self.drain(id);
            }
            Happening::Packet(packet) => self.arrive(&packet),
            Happening::Send => self.send_everywhere(),
        }
    }

    fn arrive(&mut self, packet: &Packet) {
        let Some(id) = self.receiver(packet.to) else {
            self.tally.unknown += 1;
            return;
        };
        let now = self.now;
        let host = self.host_mut(id);
        if host.down {
            return;
        }
        let (verdict, events) = host.books.receive(packet);
        for event in events {
            host.engine.handle_dataplane(now, event);
        }
        match verdict {
            Verdict::Delivered => self.tally.delivered += 1,
            Verdict::UnknownSpi => self.tally.unknown += 1,
            Verdict::WrongKey => self.tally.undecipherable += 1,
        }
        self.drain(id);
    }

    fn send_everywhere(&mut self) {
        let Some(interval) = self.traffic else { return };
        for id in (0..self.hosts.len()).map(HostId) {
            let policies: Vec<PolicyId> = self.host(id).books.policies().map(|policy| policy.id).collect();
            for policy in policies {
                let Some(mut packet) = self.host(id).books.send(policy) else {
                    self.tally.unsent += 1;
                    continue;
                };
                self.tally.sent += 1;
                if packet.from.ip() != self.host(id).address {
                    continue; // from an address that is gone
                }
                if packet.from.port() != 0 {
                    packet.from = self.translated(id, packet.from);
                }
                self.schedule(self.faults.latency, Happening::Packet(packet));
            }
        }
        self.schedule(interval, Happening::Send);
    }

    /// Carries out what a host's engine wants.
    fn drain(&mut self, id: HostId) {
        while let Some(output) = self.host_mut(id).engine.poll_output() {
            match output {
                Output::Transmit { path, message } => self.transmit(id, path, &message),
                // A keepalive only refreshes the NAT's mapping.
                Output::Keepalive(path) => drop(self.translated(id, path.local)),
                Output::Ask(ask, Ask::Dataplane(espdp_api::Command::LocalAddress { .. })) => {
                    let answer = Answer::Dataplane(Ok(Done::LocalAddress(self.host(id).address)));
                    self.schedule(DATAPLANE_DELAY, Happening::Answer { host: id, id: ask, answer });
                }
                Output::Ask(ask, Ask::Dataplane(command)) => {
                    let mut rng = self.rng.clone();
                    let outcome = self.host_mut(id).books.carry_out(command, &mut rng);
                    self.rng = rng;
                    // The dataplane takes its time, but keeps the order.
                    let answer = Answer::Dataplane(outcome);
                    self.schedule(DATAPLANE_DELAY, Happening::Answer { host: id, id: ask, answer });
                }
                Output::Ask(ask, _) => {
                    let answer = Answer::Addresses(Vec::new());
                    self.schedule(DATAPLANE_DELAY, Happening::Answer { host: id, id: ask, answer });
                }
                Output::Notice(notice) => {
                    if let Notice::ChildUp { child, .. } = &notice {
                        let sends = self.host(id).books.active(child.policy).is_some();
                        assert!(sends, "a child is up that does not send:\n{}", self.story());
                    }
                    let now = self.now;
                    self.host_mut(id).notices.push((now, notice));
                }
            }
        }
    }

    fn transmit(&mut self, id: HostId, path: IkePath, message: &[u8]) {
        let host = self.host(id);
        if host.down || host.address != path.local.ip() {
            return;
        }
        if let Some(tapped) = &mut self.tapped {
            tapped.push(Tapped { from: id, message: message.to_vec() });
        }
        let from = self.translated(id, path.local);
        let faults = self.faults;
        for delay in faults.fate(&mut self.rng, message.len()) {
            self.schedule(delay, Happening::Datagram { to: path.remote, from, message: message.to_vec() });
        }
    }

    fn translated(&mut self, id: HostId, source: SocketAddr) -> SocketAddr {
        self.host_mut(id).nat.as_mut().map_or(source, |nat| nat.outward(source))
    }

    /// Who gets what is sent to `to`, and at which of its own addresses.
    fn arrival(&self, to: SocketAddr) -> Option<(HostId, SocketAddr)> {
        self.hosts.iter().enumerate().find_map(|(index, host)| match &host.nat {
            None => (host.address == to.ip()).then_some((HostId(index), to)),
            Some(nat) if nat.public() == to.ip() => nat.inward(to.port()).map(|inner| (HostId(index), inner)),
            Some(_) => None,
        })
    }

    /// Who gets an ESP packet.
    fn receiver(&self, to: SocketAddr) -> Option<HostId> {
        self.arrival(to).map(|(id, _)| id)
    }

    fn schedule(&mut self, after: Duration, event: Happening) {
        self.events.insert((self.now + after, self.next_event), event);
        self.next_event += 1;
    }

    /// Puts a NAT in front of a host.
    pub fn put_behind_nat(&mut self, id: HostId, public: IpAddr) {
        self.host_mut(id).nat = Some(Nat::new(public));
    }

    /// The inbound SPIs of a host.
    #[must_use]
    pub fn inbound(&self, id: HostId) -> Vec<EspSpi> {
        self.host(id).books.inbound().collect()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what has no line of its own is printed whole")]
fn tell(host: &Host, start: Instant, at: Instant, notice: &Notice) -> String {
    let what = match notice {
        Notice::Message(trace) => format!("{} {}", if trace.sent { "->" } else { "<-" }, trace.summary),
        Notice::IkeUp(sa) => format!("IKE SA up {} {}", sa.initiator_spi, sa.responder_spi),
        Notice::IkeDown { sa, reason } => format!("IKE SA down {} ({reason:?})", sa.initiator_spi),
        Notice::IkeRekeyed { sa, .. } => format!("IKE SA rekeyed to {} {}", sa.initiator_spi, sa.responder_spi),
        Notice::ChildUp { child, .. } => format!("child up in {} out {:?}", child.spi_in, child.spi_out),
        Notice::ChildDown { child, reason, .. } => format!("child down in {} ({reason:?})", child.spi_in),
        Notice::ChildRekeyed { old, new, .. } => format!("child rekeyed in {} to {}", old.spi_in, new.spi_in),
        Notice::Failure(failure) => format!("{}: {}", failure.code.name(), failure.what),
        Notice::Remark { text, .. } => text.clone(),
        other => format!("{other:?}"),
    };
    format!("{:>10.3} {} {what}", at.duration_since(start).as_secs_f64(), host.address)
}

/// How long the dataplane takes to carry out a command.
const DATAPLANE_DELAY: Duration = Duration::from_micros(300);
