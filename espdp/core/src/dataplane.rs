//! Everything that one worker owns, and what the daemon can have done with it.

use std::net::IpAddr;
use std::time::Instant;

use aws_lc_rs::hmac;
use espdp_api::{
    BridgeName, BridgePort, BridgeSpec, Carries, CryptoEngine, Direction, DropCount, EspSpi, Event, InboundSaSpec,
    InterfaceKind, InterfaceName, InterfaceSpec, OutboundSaSpec, OuterPath, PolicyId, PolicySpec, Refusal,
    SaStatistics, Secret, WorkerId,
};

use crate::bridge::{BridgeTable, Egress};
use crate::capture::Capturer;
use crate::drops::DropCounters;
use crate::events::EventQueue;
use crate::interfaces::{InterfaceCounters, InterfaceId, InterfaceTable};
use crate::limits::{Allowance, OncePerSecond};
use crate::policy::{Policy, PolicyTable};
use crate::sa::{InboundSa, InboundTable, OutboundSa, OutboundTable, check_path};
use crate::trace::Tracer;
use crate::tunnel::{Tunnel, TunnelIndex};

/// The policies, SAs and counters of one worker. Plain `&mut` state: one owner, no locks.
#[derive(Debug)]
pub struct Dataplane {
    pub(crate) interfaces: InterfaceTable,
    pub(crate) bridges: BridgeTable,
    pub(crate) tunnels: TunnelIndex,
    pub(crate) policies: PolicyTable,
    pub(crate) inbound: InboundTable,
    pub(crate) outbound: OutboundTable,
    pub(crate) events: EventQueue,
    /// Drops that belong to no SA.
    pub(crate) drops: DropCounters,
    /// When an unknown SPI was last reported.
    pub(crate) unknown_spi: OncePerSecond,
    pub(crate) tracer: Tracer,
    pub(crate) capturer: Capturer,
    /// What may compute the ciphers of new SAs.
    engine: CryptoEngine,
    iv_keys: IvKeys,
    /// How often senders of packets that are too long are answered.
    pub(crate) answers: Allowance,
    /// For one packet that is looked at before it is wrapped; empty in between.
    pub(crate) scratch: Vec<u8>,
    /// For one packet that cannot be wrapped where it stands; empty in between.
    pub(crate) aside: Vec<u8>,
    /// Places of the outbound SAs that send dummy packets.
    pub(crate) dummy_senders: Vec<u32>,
}

impl Dataplane {
    /// An empty dataplane. `seed` must be fresh and unpredictable; the IVs of CBC SAs are derived from it.
    #[must_use]
    pub fn new(seed: &Secret<[u8; 32]>) -> Self {
        Self {
            interfaces: InterfaceTable::default(),
            bridges: BridgeTable::default(),
            tunnels: TunnelIndex::default(),
            policies: PolicyTable::new(),
            inbound: InboundTable::default(),
            outbound: OutboundTable::default(),
            events: EventQueue::default(),
            drops: DropCounters::default(),
            unknown_spi: OncePerSecond::default(),
            tracer: Tracer::default(),
            capturer: Capturer::default(),
            engine: CryptoEngine::default(),
            iv_keys: IvKeys { seed: hmac::Key::new(hmac::HMAC_SHA256, seed.expose()), made: 0 },
            answers: Allowance::default(),
            scratch: Vec::new(),
            aside: Vec::new(),
            dummy_senders: Vec::new(),
        }
    }

    /// Says what may compute the ciphers of SAs that are installed from now on.
    pub fn set_crypto_engine(&mut self, engine: CryptoEngine) {
        self.engine = engine;
    }

    /// Makes an interface known, or finds the one of this name.
    ///
    /// # Errors
    /// [`Refusal::Full`] when there are too many; [`Refusal::InterfaceInUse`] when the kind would change under policies.
    pub fn set_interface(&mut self, name: &InterfaceName, kind: InterfaceKind) -> Result<InterfaceId, Refusal> {
        let Some(id) = self.interfaces.find(name) else { return self.interfaces.add(name, kind) };
        let in_use = self.policies.uses(id);
        if let Some(interface) = self.interfaces.get_mut(id)
            && interface.kind != kind
        {
            if in_use {
                return Err(Refusal::InterfaceInUse(name.clone()));
            }
            interface.kind = kind;
        }
        Ok(id)
    }

    /// Makes an interface known as `spec` describes it, its tunnel included, or changes the one of this name.
    ///
    /// # Errors
    /// Those of [`Self::set_interface`] and [`Self::set_tunnel`]; then nothing has changed.
    pub fn apply_interface(&mut self, spec: &InterfaceSpec) -> Result<InterfaceId, Refusal> {
        let key = Tunnel::new(spec)?.as_ref().map(Tunnel::key);
        self.tunnels.check(self.interfaces.find(&spec.name), &spec.name, key)?;
        let id = self.set_interface(&spec.name, spec.kind)?;
        self.set_tunnel(spec)?;
        Ok(id)
    }

    /// Sets the tunnel that an interface puts its packets in, and takes them out of: ends, protection, next hops. Sequence numbers
    /// go on unless the kind changes.
    ///
    /// # Errors
    /// [`Refusal::UnknownInterface`], and [`Refusal::BadInterface`] when something is missing, contradicts itself, or belongs to
    /// another interface; then nothing has changed.
    pub fn set_tunnel(&mut self, spec: &InterfaceSpec) -> Result<(), Refusal> {
        let id = self.interface(&spec.name)?;
        let tunnel = Tunnel::new(spec)?;
        self.tunnels.set(id, &spec.name, tunnel.as_ref().map(Tunnel::key))?;
        // What wrapped packets look like to policies changes with the ends.
        self.policies.forget_flows();
        if let Some(interface) = self.interfaces.get_mut(id) {
            let old = interface.tunnel.take().map(|old| *old);
            interface.tunnel = tunnel.map(|new| Box::new(new.continuing(old)));
        }
        Ok(())
    }

    /// Forgets an interface; its id may be given to a later one.
    ///
    /// # Errors
    /// [`Refusal::UnknownInterface`], and [`Refusal::InterfaceInUse`] while it has policies.
    pub fn remove_interface(&mut self, name: &InterfaceName) -> Result<InterfaceId, Refusal> {
        let id = self.interface(name)?;
        if self.policies.uses(id) {
            return Err(Refusal::InterfaceInUse(name.clone()));
        }
        self.bridges.set_port(id, name, None)?;
        self.tunnels.set(id, name, None)?;
        self.interfaces.remove(id);
        Ok(id)
    }

    /// Makes a bridge domain, or changes the one of this name; its ports and what it has learned stay.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn set_bridge(&mut self, spec: &BridgeSpec) -> Result<(), Refusal> {
        self.bridges.set(spec)
    }

    /// Forgets a bridge domain.
    ///
    /// # Errors
    /// [`Refusal::UnknownBridge`], and [`Refusal::BridgeInUse`] while it has ports.
    pub fn remove_bridge(&mut self, name: &BridgeName) -> Result<(), Refusal> {
        self.bridges.remove(name)
    }

    /// Makes an interface a port of a bridge domain, or of none.
    ///
    /// # Errors
    /// [`Refusal::UnknownInterface`], [`Refusal::UnknownBridge`].
    pub fn set_bridge_port(&mut self, name: &InterfaceName, port: Option<&BridgePort>) -> Result<(), Refusal> {
        let id = self.interface(name)?;
        self.bridges.set_port(id, name, port)
    }

    /// Whether the frames of an interface are for [`Self::forward`].
    #[must_use]
    pub fn is_bridge_port(&self, id: InterfaceId) -> bool {
        self.bridges.has_port(id)
    }

    /// Says in `egress` where an Ethernet frame goes that came in by `from`: a port of a bridge domain, from its inside, or out
    /// of its tunnel. What goes nowhere is counted.
    pub fn forward(&mut self, now: Instant, from: InterfaceId, frame: &[u8], egress: &mut Egress) {
        let interfaces = &mut self.interfaces;
        if let Some(interface) = interfaces.get_mut(from).filter(|interface| interface.is_device()) {
            interface.counters.packets_out += 1;
            interface.counters.bytes_out += frame.len() as u64;
        }
        if let Err(reason) = self.bridges.forward(now, from, frame, egress) {
            self.drops.count(reason);
        }
        for port in egress.ports() {
            if let Some(interface) = interfaces.get_mut(*port).filter(|interface| interface.is_device()) {
                interface.counters.packets_in += 1;
                interface.counters.bytes_in += frame.len() as u64;
            }
        }
    }

    /// What passed an interface so far; zeros for one that does not exist.
    #[must_use]
    pub fn interface_counters(&self, id: InterfaceId) -> InterfaceCounters {
        self.interfaces.get(id).map_or_else(InterfaceCounters::default, |interface| interface.counters)
    }

    /// Sets a policy, or changes the one with this id, whose SAs stay. Routes are the shell's.
    ///
    /// # Errors
    /// [`Refusal::UnknownInterface`], [`Refusal::Full`].
    pub fn set_policy(&mut self, spec: &PolicySpec) -> Result<(), Refusal> {
        let interface = self.interface(&spec.interface)?;
        if self.policies.get(spec.id).is_none() && self.policies.len() >= PolicyTable::MOST {
            return Err(Refusal::Full(format!("{} policies", PolicyTable::MOST)));
        }
        self.policies.set(spec, interface);
        let Some(policy) = self.policies.get(spec.id) else { return Ok(()) };
        for place in &policy.outbound {
            if let Some(sa) = self.outbound.get_mut(*place) {
                sa.core.interface = interface;
                if let Some(interface) = self.interfaces.get(interface) {
                    sa.move_to(sa.path(), interface.kind);
                }
            }
        }
        for place in &policy.inbound {
            if let Some(sa) = self.inbound.get_mut(*place) {
                sa.set_interface(interface);
            }
        }
        self.tell_mss(spec.id);
        Ok(())
    }

    /// Removes a policy and every SA left in it.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`].
    pub fn remove_policy(&mut self, id: PolicyId) -> Result<(), Refusal> {
        let policy = self.policies.remove(id).ok_or(Refusal::UnknownPolicy(id))?;
        for place in policy.outbound {
            self.outbound.remove(place);
            self.dummy_senders.retain(|sender| *sender != place);
        }
        for place in policy.inbound {
            self.inbound.remove(place);
        }
        Ok(())
    }

    /// Sets an inbound SPI aside. Its low bits say where the SA will stand, the others come from `random`.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn reserve_spi(&mut self, random: u32) -> Result<EspSpi, Refusal> {
        self.inbound.reserve(random)
    }

    /// Sets an inbound SPI aside that somebody else chose.
    ///
    /// # Errors
    /// [`Refusal::SpiInUse`], [`Refusal::Full`].
    pub fn claim_spi(&mut self, spi: EspSpi) -> Result<(), Refusal> {
        self.inbound.claim(spi)
    }

    /// Gives a reserved or claimed SPI back that was never installed.
    ///
    /// # Errors
    /// [`Refusal::SpiNotReserved`].
    pub fn release_spi(&mut self, spi: EspSpi) -> Result<(), Refusal> {
        self.inbound.release(spi)
    }

    /// Installs a receiving SA under a reserved SPI.
    ///
    /// # Errors
    /// [`Refusal::SpiNotReserved`], [`Refusal::UnknownPolicy`], [`Refusal::BadSa`].
    pub fn install_inbound(&mut self, spec: &InboundSaSpec) -> Result<(), Refusal> {
        if !self.inbound.is_reserved(spec.sa.spi) {
            return Err(Refusal::SpiNotReserved(spec.sa.spi));
        }
        let interface = self.policy(spec.sa.policy)?.interface;
        let sa = InboundSa::new(spec, interface, self.engine, &self.iv_keys.next())?;
        let place = self.inbound.install(sa)?;
        if let Some(policy) = self.policies.get_mut(spec.sa.policy) {
            policy.inbound.push(place);
        }
        self.tell_mss(spec.sa.policy);
        Ok(())
    }

    /// Installs a sending SA; [`Self::activate`] makes it send.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::BadSa`] (also when the policy has an SA with this SPI), [`Refusal::Full`].
    pub fn install_outbound(&mut self, spec: &OutboundSaSpec) -> Result<(), Refusal> {
        let interface = self.policy(spec.sa.policy)?.interface;
        if self.outbound_place(spec.sa.policy, spec.sa.spi).is_ok() {
            return Err(Refusal::BadSa(format!("the policy has an outbound SA with SPI {} already", spec.sa.spi)));
        }
        let sa = OutboundSa::new(spec, interface, self.engine, &self.iv_keys.next(), self.iv_keys.next_number())?;
        let place = self.outbound.insert(sa)?;
        if spec.shape.dummy_interval.is_some() {
            self.dummy_senders.push(place);
        }
        if let Some(policy) = self.policies.get_mut(spec.sa.policy) {
            policy.outbound.push(place);
        }
        Ok(())
    }

    /// Makes an outbound SA the one its policy sends on, and says whose packets it carries: if those of all workers, the others
    /// have to be told ([`Self::set_home`]).
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::UnknownSa`].
    pub fn activate(&mut self, policy_id: PolicyId, spi: EspSpi) -> Result<Carries, Refusal> {
        let place = self.outbound_place(policy_id, spi)?;
        let carries = self.outbound.get(place).ok_or(Refusal::UnknownSa(spi))?.carries;
        if let Some(policy) = self.policies.get_mut(policy_id) {
            policy.active = Some(place);
            if carries == Carries::All {
                policy.home = None;
            }
        }
        self.tell_mss(policy_id);
        Ok(carries)
    }

    /// Says that `home`, which is not this worker, has the SA that carries a policy's packets for all workers, or will have it. An SA
    /// of ours that did so sends no more: packets that come here are [`crate::Progress::Elsewhere`], unless there is an SA for this
    /// worker alone.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`].
    pub fn set_home(&mut self, policy: PolicyId, home: WorkerId) -> Result<(), Refusal> {
        let own = self.policies.get_mut(policy).ok_or(Refusal::UnknownPolicy(policy))?;
        own.home = Some(home);
        let is_own = |place: &u32| self.outbound.get(*place).is_some_and(|sa| sa.carries == Carries::OwnWorker);
        own.active = own.active.filter(is_own);
        self.tell_mss(policy);
        Ok(())
    }

    /// Says which peers the policy's outbound SAs lead to that other workers have.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`].
    pub fn set_peers_elsewhere(&mut self, policy: PolicyId, peers: Vec<IpAddr>) -> Result<(), Refusal> {
        self.policies.get_mut(policy).ok_or(Refusal::UnknownPolicy(policy))?.peers_elsewhere = peers;
        Ok(())
    }

    /// Removes an SA and tells its last counters.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::UnknownSa`].
    pub fn remove_sa(
        &mut self,
        direction: Direction,
        spi: EspSpi,
        policy: PolicyId,
        now: Instant,
    ) -> Result<SaStatistics, Refusal> {
        let unknown = || Refusal::UnknownSa(spi);
        match direction {
            Direction::Outbound => {
                let place = self.outbound_place(policy, spi)?;
                if let Some(policy) = self.policies.get_mut(policy) {
                    policy.outbound.retain(|other| *other != place);
                    policy.active = policy.active.filter(|active| *active != place);
                }
                self.dummy_senders.retain(|sender| *sender != place);
                let removed = self.outbound.remove(place);
                self.tell_mss(policy);
                removed.map(|sa| sa.statistics(now)).ok_or_else(unknown)
            }
            Direction::Inbound => {
                let place = self.inbound_place(policy, spi)?;
                if let Some(policy) = self.policies.get_mut(policy) {
                    policy.inbound.retain(|other| *other != place);
                }
                self.inbound.remove(place).map(|sa| sa.statistics(now)).ok_or_else(unknown)
            }
        }
    }

    /// Changes the outer path of an SA; counters and window go on.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::UnknownSa`]; [`Refusal::BadSa`] when AH would go through a NAT.
    pub fn move_sa(
        &mut self,
        direction: Direction,
        spi: EspSpi,
        policy: PolicyId,
        path: OuterPath,
    ) -> Result<(), Refusal> {
        match direction {
            Direction::Outbound => {
                let place = self.outbound_place(policy, spi)?;
                let kind = self.kind_behind(policy)?;
                // What IP-in-IP packets look like to selectors changes with the path.
                self.policies.forget_flows();
                let sa = self.outbound.get_mut(place).ok_or(Refusal::UnknownSa(spi))?;
                check_path(sa.core.protocol, &path)?;
                sa.move_to(path, kind);
                self.tell_mss(policy);
            }
            Direction::Inbound => {
                let place = self.inbound_place(policy, spi)?;
                let sa = self.inbound.get_mut(place).ok_or(Refusal::UnknownSa(spi))?;
                check_path(sa.core.protocol, &path)?;
                sa.move_to(path);
            }
        }
        Ok(())
    }

    /// Says what the path of an outbound SA carries, in octets with the outer IP header. What is longer is refused, fragmented
    /// or answered as the SA's shape says.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::UnknownSa`].
    pub fn set_path_mtu(&mut self, policy: PolicyId, spi: EspSpi, octets: usize) -> Result<(), Refusal> {
        let place = self.outbound_place(policy, spi)?;
        let kind = self.kind_behind(policy)?;
        // They remember how long packets may be.
        self.policies.forget_flows();
        self.outbound.get_mut(place).ok_or(Refusal::UnknownSa(spi))?.set_path_mtu(Some(octets), kind);
        self.tell_mss(policy);
        Ok(())
    }

    /// The kind of the interface that a policy's SAs are behind.
    fn kind_behind(&self, policy: PolicyId) -> Result<InterfaceKind, Refusal> {
        let interface = self.interfaces.get(self.policy(policy)?.interface);
        interface.map(|interface| interface.kind).ok_or(Refusal::UnknownPolicy(policy))
    }

    /// Tells a policy's inbound SAs how long the TCP segments may be that go back.
    fn tell_mss(&mut self, policy: PolicyId) {
        let Some(policy) = self.policies.get(policy) else { return };
        let sender = policy.active.and_then(|place| self.outbound.get(place));
        let mss = [false, true].map(|is_ipv6| sender.and_then(|sa| sa.mss(is_ipv6)));
        for place in &policy.inbound {
            if let Some(sa) = self.inbound.get_mut(*place) {
                sa.mss = mss;
            }
        }
    }

    /// The counters of all SAs.
    #[must_use]
    pub fn statistics(&self, now: Instant) -> Vec<SaStatistics> {
        let inbound = self.inbound.iter().map(|sa| sa.statistics(now));
        inbound.chain(self.outbound.iter().map(|sa| sa.statistics(now))).collect()
    }

    /// Drops that belong to no SA.
    #[must_use]
    pub fn drops(&self) -> Vec<DropCount> {
        self.drops.report()
    }

    /// What happened since the last call, in order; call until `None` after each batch.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    fn interface(&self, name: &InterfaceName) -> Result<InterfaceId, Refusal> {
        self.interfaces.find(name).ok_or_else(|| Refusal::UnknownInterface(name.clone()))
    }

    fn policy(&self, id: PolicyId) -> Result<&Policy, Refusal> {
        self.policies.get(id).ok_or(Refusal::UnknownPolicy(id))
    }

    /// Two peers may choose the same SPI, so outbound SAs are told apart by their policy.
    fn outbound_place(&self, policy: PolicyId, spi: EspSpi) -> Result<u32, Refusal> {
        let mut places = self.policy(policy)?.outbound.iter().copied();
        places
            .find(|place| self.outbound.get(*place).is_some_and(|sa| sa.core.spi == spi))
            .ok_or(Refusal::UnknownSa(spi))
    }

    fn inbound_place(&self, policy: PolicyId, spi: EspSpi) -> Result<u32, Refusal> {
        let place = self.inbound.installed(spi).ok_or(Refusal::UnknownSa(spi))?;
        let belongs = self.policy(policy)?.inbound.contains(&place);
        belongs.then_some(place).ok_or(Refusal::UnknownSa(spi))
    }
}

/// Makes independent keys for the IVs of CBC SAs.
#[derive(Debug)]
struct IvKeys {
    seed: hmac::Key,
    made: u64,
}

impl IvKeys {
    /// A number that tells nothing about the keys.
    fn next_number(&mut self) -> u64 {
        let key = self.next();
        key.expose().first_chunk().map_or(0, |octets| u64::from_ne_bytes(*octets))
    }

    fn next(&mut self) -> Secret<[u8; 16]> {
        self.made = self.made.wrapping_add(1);
        let tag = hmac::sign(&self.seed, &self.made.to_be_bytes());
        let mut key = Secret::new([0; 16]);
        for (octet, derived) in key.expose_mut().iter_mut().zip(tag.as_ref()) {
            *octet = *derived;
        }
        key
    }
}
