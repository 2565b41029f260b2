//! Two engines with a dataplane each, a network between them and a clock that only moves when it is told.

mod dataplane;
mod signer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{
    AddressRange, Command as DataplaneCommand, Event, IkePath, InterfaceName, Mode, PacketShape, PolicyId, Routes,
    Secret, TrafficLimit, TrafficSelector, Workers,
};

use self::dataplane::Dataplane;
use self::signer::Signer;
pub(super) use self::signer::{sign_both, sign_with, trust_in};
use super::Engine;
use crate::Settings;
use crate::config::{
    Child, CloseAction, Connection, Lifetime, LocalAuth, LocalMethod, RemoteAddress, RemoteAuth, RemoteMethod,
    Retransmission, SecretKind, SharedSecret, StartAction,
};
use crate::identity::{Identity, IdentityPattern};
use crate::io::{
    Answer, Ask, AskId, Command, Failure, FailureCode, IkeSaReport, Notice, Output, SettledCount, Target, Ticket,
};
use crate::testing::SeededRandom;
use crate::wire::{ExchangeType, Header, MessageKind, peek_header};

/// Where tests begin; what matters is only what comes after.
#[expect(clippy::disallowed_methods, reason = "an instant cannot be made in another way, and only tests begin with it")]
pub(super) fn start_of_time() -> Instant {
    Instant::now()
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Moon,
    Sun,
}

impl Who {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Moon => Self::Sun,
            Self::Sun => Self::Moon,
        }
    }

    pub(super) fn address(self) -> IpAddr {
        match self {
            Self::Moon => [192, 0, 2, 1].into(),
            Self::Sun => [192, 0, 2, 2].into(),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Moon => "moon",
            Self::Sun => "sun",
        }
    }

    fn net(self) -> TrafficSelector {
        match self {
            Self::Moon => net("10.1.0.0", "10.1.255.255"),
            Self::Sun => net("10.2.0.0", "10.2.255.255"),
        }
    }
}

pub(super) fn net(start: &str, end: &str) -> TrafficSelector {
    let range = AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap();
    TrafficSelector::any_protocol(range)
}

/// One gateway.
pub(super) struct Side {
    pub(super) engine: Engine,
    pub(super) dataplane: Dataplane,
    pub(super) notices: Vec<Notice>,
    /// The dataplane gives SPIs and does nothing else until [`World::catch_up`].
    pub(super) is_slow: bool,
    withheld: Vec<(AskId, DataplaneCommand)>,
    pub(super) signer: Signer,
}

impl Side {
    fn new(settings: &Settings, who: Who, seed: u64) -> Self {
        Self {
            engine: engine(settings, seed),
            dataplane: Dataplane::new(seed, who),
            notices: Vec::new(),
            is_slow: false,
            withheld: Vec::new(),
            signer: Signer::default(),
        }
    }
}

fn engine(settings: &Settings, seed: u64) -> Engine {
    Engine::new(settings.clone(), Box::new(SeededRandom::new(seed)))
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) from: Who,
    pub(super) path: IkePath,
    pub(super) message: Vec<u8>,
}

impl Datagram {
    pub(super) fn header(&self) -> Header {
        peek_header(&self.message).unwrap()
    }

    pub(super) fn is(&self, exchange: ExchangeType, kind: MessageKind) -> bool {
        let header = self.header();
        (header.exchange, header.kind) == (exchange, kind)
    }
}

/// What becomes of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Deliver,
    Lose,
    /// It arrives after these times, once for each.
    Late(Vec<Duration>),
    /// Kept back until [`World::release`].
    Hold,
    /// Somebody on the way puts this in its place.
    Replace(Vec<u8>),
}

/// Two gateways and what is between them.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) moon: Side,
    pub(super) sun: Side,
    wire: VecDeque<Datagram>,
    held: Vec<Datagram>,
    late: BTreeMap<(Instant, usize), Datagram>,
    pub(super) seen: Vec<Datagram>,
    network: Box<dyn FnMut(&Datagram) -> Fate>,
    next_ticket: u64,
    began: Instant,
    /// Moon is behind a NAT, which shows it under another address.
    natted: bool,
    /// Sun is behind another one, which shows it under this address and keeps the ports.
    pub(super) public_sun: Option<IpAddr>,
    /// What that NAT adds to port numbers.
    pub(super) nat_shift: u16,
    pub(super) keepalives: usize,
    /// Whenever both ends are at rest, packets of the first child must arrive.
    pub(super) watches_traffic: bool,
    /// Prints what happens.
    pub(super) chatty: bool,
}

impl World {
    /// Two engines with these settings, without connections.
    pub(super) fn bare(settings: &Settings) -> Self {
        Self::seeded(settings, 0)
    }

    /// The same with other random numbers.
    pub(super) fn seeded(settings: &Settings, seed: u64) -> Self {
        let now = start_of_time();
        Self {
            now,
            began: now,
            natted: false,
            public_sun: None,
            nat_shift: 1000,
            keepalives: 0,
            chatty: std::env::var_os("IKE_PROTO_CHAT").is_some(),
            moon: Side { engine: engine(settings, 2 * seed + 1), ..Side::new(settings, Who::Moon, 1) },
            sun: Side { engine: engine(settings, 2 * seed + 2), ..Side::new(settings, Who::Sun, 2) },
            watches_traffic: false,
            wire: VecDeque::new(),
            held: Vec::new(),
            late: BTreeMap::new(),
            seen: Vec::new(),
            network: Box::new(|_| Fate::Deliver),
            next_ticket: 1,
        }
    }

    /// As [`Self::with`], where the dataplanes have so many workers.
    pub(super) fn with_workers(moon: u8, sun: u8, adapt: impl Fn(Who, &mut Connection)) -> Self {
        let [moon, sun] =
            [moon, sun].map(|count| Settings { workers: Workers::new(count).unwrap(), ..Settings::default() });
        let mut world = Self::bare(&moon);
        world.sun = Side { engine: engine(&sun, 2), ..Side::new(&sun, Who::Sun, 2) };
        (world.moon.dataplane.workers, world.sun.dataplane.workers) = (moon.workers, sun.workers);
        world.configure(adapt);
        world
    }

    /// The same with the connection `net-net` on both sides, changed by `adapt`, and the same key.
    pub(super) fn with(adapt: impl Fn(Who, &mut Connection)) -> Self {
        let mut world = Self::bare(&Settings::default());
        world.configure(adapt);
        world
    }

    pub(super) fn new() -> Self {
        Self::with(|_, _| {})
    }

    pub(super) fn configure(&mut self, adapt: impl Fn(Who, &mut Connection)) {
        for who in [Who::Moon, Who::Sun] {
            let mut connection = connection(who);
            adapt(who, &mut connection);
            self.command(who, Command::SetSecret(secret("psk", &[], b"Vpp123")));
            self.command(who, Command::SetConnection(Box::new(connection)));
        }
        self.run();
    }

    /// Moon loses all that it knows, and starts anew with the same configuration.
    pub(super) fn crash_moon(&mut self) {
        self.moon = Side::new(&Settings::default(), Who::Moon, 3);
        self.command(Who::Moon, Command::SetSecret(secret("psk", &[], b"Vpp123")));
        self.command(Who::Moon, Command::SetConnection(Box::new(connection(Who::Moon))));
    }

    pub(super) fn side(&mut self, who: Who) -> &mut Side {
        match who {
            Who::Moon => &mut self.moon,
            Who::Sun => &mut self.sun,
        }
    }

    pub(super) fn command(&mut self, who: Who, command: Command) {
        let now = self.now;
        self.side(who).engine.handle_command(now, command);
    }

    pub(super) fn event(&mut self, who: Who, event: Event) {
        let now = self.now;
        self.side(who).engine.handle_dataplane(now, event);
        self.run();
    }

    /// From now on the network does what `network` says.
    pub(super) fn network(&mut self, network: impl FnMut(&Datagram) -> Fate + 'static) {
        self.network = Box::new(network);
    }

    pub(super) fn repair_network(&mut self) {
        self.network(|_| Fate::Deliver);
    }

    /// Lets the datagrams go that were held, in the order in which they were sent.
    pub(super) fn release(&mut self) {
        self.repair_network();
        self.wire.extend(std::mem::take(&mut self.held));
        self.run();
    }

    /// The same, and from now on datagrams of this kind are lost.
    pub(super) fn release_but(&mut self, mut lost: impl FnMut(&Datagram) -> bool + 'static) {
        self.network(move |datagram| if lost(datagram) { Fate::Lose } else { Fate::Deliver });
        self.wire.extend(std::mem::take(&mut self.held));
        self.run();
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    pub(super) fn initiate(&mut self, who: Who) -> Ticket {
        self.initiate_child(who, None)
    }

    pub(super) fn initiate_child(&mut self, who: Who, child: Option<&str>) -> Ticket {
        self.initiate_of(who, "net-net", child)
    }

    pub(super) fn initiate_of(&mut self, who: Who, connection: &str, child: Option<&str>) -> Ticket {
        let ticket = self.ticket();
        let (connection, child) = (Some(connection.to_owned()), child.map(str::to_owned));
        self.command(who, Command::Initiate { ticket, connection, child });
        self.run();
        ticket
    }

    pub(super) fn terminate(&mut self, who: Who, target: Target) -> Ticket {
        let ticket = self.ticket();
        self.command(who, Command::Terminate { ticket, target });
        self.run();
        ticket
    }

    /// Wants a child without letting anything travel yet.
    pub(super) fn begin_child(&mut self, who: Who, child: &str) -> Ticket {
        let ticket = self.ticket();
        let (connection, child) = (Some("net-net".to_owned()), Some(child.to_owned()));
        self.command(who, Command::Initiate { ticket, connection, child });
        ticket
    }

    /// Takes down without letting anything travel yet.
    pub(super) fn begin_terminate(&mut self, who: Who, target: Target) -> Ticket {
        let ticket = self.ticket();
        self.command(who, Command::Terminate { ticket, target });
        ticket
    }

    /// Queues a rekeying without letting anything travel yet.
    pub(super) fn begin_rekey(&mut self, who: Who, target: Target) -> Ticket {
        let ticket = self.ticket();
        self.command(who, Command::Rekey { ticket, target });
        ticket
    }

    pub(super) fn reauthenticate(&mut self, who: Who, target: Target) -> Ticket {
        let ticket = self.ticket();
        self.command(who, Command::Reauthenticate { ticket, target });
        self.run();
        ticket
    }

    pub(super) fn rekey(&mut self, who: Who, target: Target) -> Ticket {
        let ticket = self.begin_rekey(who, target);
        self.run();
        ticket
    }

    /// Carries out all outputs and delivers all datagrams until nothing happens any more; time stands still.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            let busy = [Who::Moon, Who::Sun].into_iter().any(|who| self.carry_out_one(who));
            if busy {
                continue;
            }
            if self.watches_traffic {
                self.assert_no_packet_is_lost();
            }
            let Some(datagram) = self.wire.pop_front() else {
                return;
            };
            let (now, to) = (self.now, datagram.from.other());
            let Some(path) = self.path_at_receiver(&datagram) else {
                continue;
            };
            self.side(to).engine.handle_datagram(now, path, &datagram.message);
        }
        panic!("the engines never come to rest");
    }

    /// Prints what happens, for whoever looks for the cause of a failed test.
    fn chat(&self, who: Who, notice: &Notice) {
        let at = self.now.saturating_duration_since(self.began).as_secs_f64();
        match notice {
            Notice::Message(trace) => {
                let direction = if trace.sent { "-->" } else { "<--" };
                println!("{at:9.3} {who:?} {direction} {}", trace.summary);
            }
            Notice::ChildRekeyed { old, new, .. } => {
                println!("{at:9.3} {who:?}     child {} -> {}", old.spi_in, new.spi_in);
            }
            Notice::IkeMoved { sa, path } => println!("{at:9.3} {who:?}     {:?} -> {path:?}", sa.path),
            Notice::ChildUp { child, .. } => println!("{at:9.3} {who:?}     child {} up", child.spi_in),
            Notice::ChildDown { child, reason, .. } => {
                println!("{at:9.3} {who:?}     child {} down: {reason:?}", child.spi_in);
            }
            Notice::Remark { text, .. } => println!("{at:9.3} {who:?}     {text}"),
            other @ (Notice::IkeUp(_)
            | Notice::IkeDown { .. }
            | Notice::IkeRekeyed { .. }
            | Notice::Failure(_)
            | Notice::Abandoned(_)
            | Notice::Repetition(_)
            | Notice::Settled { .. }
            | Notice::IkeKeys(_)
            | Notice::PlainText(_)
            | Notice::ChildKeys(_)
            | Notice::ShutDown) => {
                println!("{at:9.3} {who:?}     {}", format!("{other:?}").chars().take(60).collect::<String>())
            }
        }
    }

    /// How a datagram looks to whom it is sent, if it gets there: it needs addresses that exist, and the NAT lets in what
    /// is sent to itself.
    fn path_at_receiver(&self, datagram: &Datagram) -> Option<IkePath> {
        let IkePath { local, remote } = match (self.public_sun, datagram.from) {
            (Some(public), Who::Moon) if datagram.path.remote.ip() != public => return None,
            (Some(_), Who::Moon) => {
                let inside = *self.sun.dataplane.addresses.first()?;
                IkePath { remote: (inside, datagram.path.remote.port()).into(), ..datagram.path }
            }
            (_, _) => datagram.path,
        };
        let (moon, sun) = (&self.moon.dataplane.addresses, &self.sun.dataplane.addresses);
        let (ours, theirs) = if datagram.from == Who::Moon { (moon, sun) } else { (sun, moon) };
        let arrived = match datagram.from {
            Who::Moon if self.natted => {
                IkePath { local: remote, remote: (NAT, local.port().wrapping_add(self.nat_shift)).into() }
            }
            Who::Sun if self.natted => {
                let inside = remote.port().wrapping_sub(self.nat_shift);
                IkePath { local: (*moon.first().filter(|_| remote.ip() == NAT)?, inside).into(), remote: local }
            }
            Who::Moon | Who::Sun => IkePath { local: remote, remote: local },
        };
        let reaches = ours.contains(&local.ip()) && theirs.contains(&arrived.local.ip());
        let shown = match (self.public_sun, datagram.from) {
            (Some(public), Who::Sun) => IkePath { remote: (public, arrived.remote.port()).into(), ..arrived },
            (_, _) => arrived,
        };
        reaches.then_some(shown)
    }

    /// Gives a host other addresses, the one that its routes prefer first, and has it notice.
    pub(super) fn readdress(&mut self, who: Who, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.side(who).dataplane.addresses.clone_from(&addresses);
        self.event(who, Event::NetworkChanged { addresses });
    }

    /// Puts a NAT in front of Moon, or takes it away, without a word to anybody.
    pub(super) fn set_nat(&mut self, natted: bool) {
        self.natted = natted;
    }

    pub(super) fn nat_in_front_of_moon(&mut self, natted: bool) {
        self.natted = natted;
        let mut connection = connection(Who::Sun);
        connection.remote_addresses = vec![RemoteAddress::Any];
        self.command(Who::Sun, Command::SetConnection(Box::new(connection)));
    }

    fn carry_out_one(&mut self, who: Who) -> bool {
        let now = self.now;
        let side = self.side(who);
        let Some(output) = side.engine.poll_output() else {
            return false;
        };
        match output {
            Output::Transmit { path, message } => {
                let datagram = Datagram { from: who, path, message };
                self.seen.push(datagram.clone());
                match (self.network)(&datagram) {
                    Fate::Deliver => self.wire.push_back(datagram),
                    Fate::Lose => {}
                    Fate::Late(times) => {
                        let copies =
                            times.iter().enumerate().map(|(copy, time)| (now + *time, 2 * self.seen.len() + copy));
                        self.late.extend(copies.map(|arrival| (arrival, datagram.clone())));
                    }
                    Fate::Hold => self.held.push(datagram),
                    Fate::Replace(message) => self.wire.push_back(Datagram { message, ..datagram }),
                }
            }
            Output::Keepalive(_) => self.keepalives += 1,
            Output::Ask(id, Ask::Dataplane(command))
                if side.is_slow && !matches!(command, DataplaneCommand::ReserveSpi(_)) =>
            {
                side.withheld.push((id, command));
            }
            Output::Ask(id, Ask::Dataplane(command)) => {
                let outcome = side.dataplane.carry_out(who, command);
                side.engine.handle_answer(now, id, Answer::Dataplane(outcome));
            }
            Output::Ask(id, ask @ (Ask::Sign(_) | Ask::Verify(_))) => {
                if let Some(answer) = side.signer.take(id, ask) {
                    side.engine.handle_answer(now, id, answer);
                }
            }
            Output::Ask(id, Ask::Resolve(_)) => {
                let addresses = self.side(who.other()).dataplane.addresses.clone();
                self.side(who).engine.handle_answer(now, id, Answer::Addresses(addresses));
            }
            Output::Notice(notice) => {
                if self.chatty {
                    self.chat(who, &notice);
                }
                self.side(who).notices.push(notice);
            }
        }
        true
    }

    /// A slow dataplane does what it was asked to do.
    pub(super) fn catch_up(&mut self, who: Who) {
        let now = self.now;
        let side = self.side(who);
        side.is_slow = false;
        for (id, command) in std::mem::take(&mut side.withheld) {
            let outcome = side.dataplane.carry_out(who, command);
            side.engine.handle_answer(now, id, Answer::Dataplane(outcome));
        }
        self.run();
    }

    /// A slow signer does what it was asked to do.
    pub(super) fn let_sign(&mut self, who: Who) {
        let now = self.now;
        let side = self.side(who);
        for (id, answer) in side.signer.catch_up() {
            side.engine.handle_answer(now, id, answer);
        }
        self.run();
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run();
        for _ in 0..1_000_000 {
            let timers = [&self.moon, &self.sun].into_iter().filter_map(|side| side.engine.poll_timeout());
            let arrival = self.late.first_key_value().map(|((at, _), _)| *at);
            let next = timers.map(|(at, _)| at).chain(arrival).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            let now = self.now;
            while let Some(first) = self.late.first_entry().filter(|first| first.key().0 <= now) {
                let datagram = first.remove();
                self.wire.push_back(datagram);
                self.run();
            }
            for who in [Who::Moon, Who::Sun] {
                if self.side(who).engine.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    self.side(who).engine.handle_timeout(now);
                }
            }
            self.run();
        }
        panic!("timers never come to rest");
    }

    // What there is.

    pub(super) fn ike_sas(&mut self, who: Who) -> Vec<IkeSaReport> {
        self.side(who).engine.ike_sas()
    }

    pub(super) fn only_ike_sa(&mut self, who: Who) -> IkeSaReport {
        let mut sas = self.ike_sas(who);
        assert_eq!(sas.len(), 1, "{who:?} has {sas:#?}");
        sas.pop().unwrap()
    }

    pub(super) fn settled(&mut self, who: Who, ticket: Ticket) -> Result<SettledCount, String> {
        let mut results = self.side(who).notices.iter().filter_map(|notice| {
            let Notice::Settled { ticket: settled, result } = notice else {
                return None;
            };
            (*settled == ticket).then(|| result.clone())
        });
        let result = results.next().unwrap_or_else(|| panic!("{ticket:?} is not settled"));
        assert!(results.next().is_none(), "{ticket:?} is settled twice");
        result
    }

    pub(super) fn is_settled(&mut self, who: Who, ticket: Ticket) -> bool {
        let settles = |notice: &Notice| matches!(notice, Notice::Settled { ticket: settled, .. } if *settled == ticket);
        self.side(who).notices.iter().any(settles)
    }

    pub(super) fn failures(&mut self, who: Who) -> Vec<FailureCode> {
        self.failure_reports(who).iter().map(|failure| failure.code).collect()
    }

    pub(super) fn failure_reports(&mut self, who: Who) -> Vec<Failure> {
        let notices = self.side(who).notices.iter();
        notices
            .filter_map(|notice| if let Notice::Failure(failure) = notice { Some(*failure.clone()) } else { None })
            .collect()
    }

    /// Messages that were sent, by exchange and kind.
    pub(super) fn count(&self, exchange: ExchangeType, kind: MessageKind) -> usize {
        self.seen.iter().filter(|datagram| datagram.is(exchange, kind)).count()
    }

    /// Both ends agree on one IKE SA with `children` Child SAs, and the dataplanes send where the other end receives.
    pub(super) fn assert_agreement(&mut self, children: usize) {
        let (moon, sun) = (self.only_ike_sa(Who::Moon), self.only_ike_sa(Who::Sun));
        assert_eq!((moon.initiator_spi, moon.responder_spi), (sun.initiator_spi, sun.responder_spi));
        assert_ne!(moon.initiator, sun.initiator);
        let pairs = |report: &IkeSaReport, swapped: bool| -> BTreeSet<(u32, u32)> {
            let pair = report.children.iter().map(|child| (child.spi_in.value(), child.spi_out.unwrap().value()));
            pair.map(|(inbound, outbound)| if swapped { (outbound, inbound) } else { (inbound, outbound) }).collect()
        };
        assert_eq!(pairs(&moon, false), pairs(&sun, true));
        assert_eq!(moon.children.len(), children, "{moon:#?}");
        self.assert_traffic_flows(children);
    }

    /// Each end sends where the other receives, on as many policies.
    pub(super) fn assert_traffic_flows(&self, policies: usize) {
        for (from, to) in [(&self.moon, &self.sun), (&self.sun, &self.moon)] {
            assert_eq!(from.dataplane.policies.len(), policies);
            for policy in &from.dataplane.policies {
                let spi = from.dataplane.active.get(policy).unwrap_or_else(|| panic!("{policy:?} does not send"));
                assert!(to.dataplane.inbound.contains_key(spi), "nobody receives on {spi}");
            }
        }
    }

    /// A packet of the first child would arrive now.
    fn assert_no_packet_is_lost(&self) {
        for (from, to) in [(&self.moon, &self.sun), (&self.sun, &self.moon)] {
            for (policy, spi) in from.dataplane.active.iter().filter(|(policy, _)| **policy == FIRST) {
                assert!(to.dataplane.inbound.contains_key(spi), "{policy:?} sends on {spi}, where nobody receives");
            }
            for (policy, _) in from.dataplane.outbound.keys().filter(|(policy, _)| *policy == FIRST) {
                assert!(from.dataplane.active.contains_key(policy), "{policy:?} has an SA, and does not send");
            }
        }
    }

    /// Nothing is left of anything.
    pub(super) fn assert_nothing_left(&mut self) {
        for who in [Who::Moon, Who::Sun] {
            assert!(self.ike_sas(who).is_empty(), "{who:?} still has {:#?}", self.ike_sas(who));
            self.side(who).dataplane.assert_empty();
        }
    }
}

pub(super) fn secret(name: &str, owners: &[&str], key: &[u8]) -> SharedSecret {
    let owners = owners.iter().map(|owner| Identity::Fqdn((*owner).to_owned())).collect();
    SharedSecret { name: name.to_owned(), kind: SecretKind::Ike, owners, secret: Secret::new(key.to_vec()) }
}

/// The policy of the child that comes up first.
const FIRST: PolicyId = PolicyId(1);

const NAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

pub(super) const NEVER: Lifetime = Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after: None };

/// The connection `net-net` as `who` has it.
pub(super) fn connection(who: Who) -> Connection {
    Connection {
        local_addresses: vec![who.address()],
        remote_addresses: vec![RemoteAddress::Address(who.other().address())],
        local: LocalAuth { identity: Some(Identity::Fqdn(who.name().to_owned())), method: LocalMethod::PreSharedKey },
        remote: RemoteAuth {
            identity: IdentityPattern::Exactly(Identity::Fqdn(who.other().name().to_owned())),
            method: RemoteMethod::PreSharedKey,
        },
        ike_proposals: vec!["aes256gcm16-prfsha256-x25519".parse().unwrap()],
        retransmission: Retransmission {
            first: Duration::from_secs(2),
            factor: 2.0,
            tries: 4,
            longest: Duration::from_secs(30),
        },
        children: vec![child(who, "net")],
        ..Connection::new("net-net")
    }
}

pub(super) fn child(who: Who, name: &str) -> Child {
    Child {
        name: name.to_owned(),
        mode: Mode::Tunnel,
        local_selectors: vec![who.net().into()],
        remote_selectors: vec![who.other().net().into()],
        esp_proposals: vec!["aes256gcm16".parse().unwrap()],
        lifetime: NEVER,
        rekey_after_traffic: TrafficLimit::default(),
        expire_after_traffic: TrafficLimit::default(),
        replay_window: 1024,
        interface: InterfaceName::new("ipsec0").unwrap(),
        routes: Routes::FromSelectors,
        later_fragments: false,
        priority: espdp_api::PolicySpec::DEFAULT_PRIORITY,
        per_resource: false,
        shape: PacketShape::default(),
        start: StartAction::None,
        updown: Vec::new(),
        close: CloseAction::None,
        dpd: None,
    }
}

/// Gives the connection a second child, `second`.
pub(super) fn two_children(who: Who, connection: &mut Connection) {
    let mut second = child(who, "second");
    let (moon, sun) = (net("10.3.0.0", "10.3.0.255"), net("10.4.0.0", "10.4.0.255"));
    let (local, remote) = if who == Who::Moon { (moon, sun) } else { (sun, moon) };
    (second.local_selectors, second.remote_selectors) = (vec![local.into()], vec![remote.into()]);
    connection.children.push(second);
}
