//! A dataplane that only keeps books: which SAs are installed, which one sends, which packets fit.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use espdp_api::{
    Command, Direction, Done, Encapsulation, EspSpi, Event, InboundSaSpec, OutboundSaSpec, Outcome, OuterPath,
    PolicyId, PolicySpec, Refusal, SaStatistics,
};

use crate::Rng;

/// The books of one host.
#[derive(Debug, Default)]
pub struct Books {
    reserved: Vec<EspSpi>,
    inbound: BTreeMap<EspSpi, Inbound>,
    outbound: BTreeMap<(PolicyId, EspSpi), OutboundSaSpec>,
    active: BTreeMap<PolicyId, EspSpi>,
    policies: BTreeMap<PolicyId, PolicySpec>,
}

#[derive(Debug)]
struct Inbound {
    spec: InboundSaSpec,
    used: bool,
}

/// An ESP packet: enough of it to see whether the receiver could read it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The SPI on the wire.
    pub spi: EspSpi,
    /// Where it goes.
    pub to: SocketAddr,
    /// Where it comes from, as the receiver sees it.
    pub from: SocketAddr,
    encryption_key: Vec<u8>,
    integrity_key: Vec<u8>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Received.
    Delivered,
    /// No SA of this SPI.
    UnknownSpi,
    /// The keys differ.
    WrongKey,
}

impl Books {
    /// Carries out a command.
    pub fn carry_out(&mut self, command: Command, rng: &mut Rng) -> Outcome {
        match command {
            Command::ReserveSpi(_) => self.reserve(rng),
            Command::ClaimSpi(spi) => Err(Refusal::SpiInUse(spi)),
            Command::ReleaseSpi(spi) => self.unreserve(spi).map(|()| Done::Ok),
            Command::InstallInbound(spec) => self.install_inbound(*spec),
            Command::InstallOutbound(spec) => self.install_outbound(*spec),
            Command::Activate { policy, spi } => {
                let known = self.outbound.contains_key(&(policy, spi));
                if known {
                    self.active.insert(policy, spi);
                }
                if known { Ok(Done::Ok) } else { Err(Refusal::UnknownSa(spi)) }
            }
            Command::RemoveSa { direction, spi, policy } => self.remove(direction, spi, policy),
            Command::MoveSa { direction, spi, policy, path } => self.relocate(direction, spi, policy, path),
            Command::SetPolicy(spec) => {
                self.policies.insert(spec.id, *spec);
                Ok(Done::Ok)
            }
            Command::RemovePolicy(id) => {
                self.inbound.retain(|_, sa| sa.spec.sa.policy != id);
                self.outbound.retain(|(policy, _), _| *policy != id);
                self.active.remove(&id);
                self.policies.remove(&id).map(|_| Done::Ok).ok_or(Refusal::UnknownPolicy(id))
            }
            Command::SetInterface(_)
            | Command::RemoveInterface(_)
            | Command::SetHost(_)
            | Command::PlanHost(_)
            | Command::SetBridge(_)
            | Command::RemoveBridge(_) => Ok(Done::Ok),
            Command::LocalAddress { .. } => {
                Err(Refusal::System { operation: "look up a route".into(), reason: "the world knows routes".into() })
            }
            Command::Trace { .. } => Ok(Done::Ok),
            Command::ReadTraces => Ok(Done::Traces(Vec::new())),
            Command::ReadMtus => Ok(Done::Mtus(Vec::new())),
            Command::WhatIf(_) => Ok(Done::WhatIf(Box::default())),
            Command::Statistics => Ok(Done::Statistics { sas: Vec::new(), interfaces: Vec::new(), drops: Vec::new() }),
        }
    }

    /// The packet that leaves when one of `policy` comes, or `None` when nothing sends for it.
    #[must_use]
    pub fn send(&self, policy: PolicyId) -> Option<Packet> {
        let spi = *self.active.get(&policy)?;
        let sa = &self.outbound.get(&(policy, spi))?.sa;
        let (from, to) = ends(sa.path);
        Some(Packet {
            spi,
            to,
            from,
            encryption_key: sa.encryption_key.expose().clone(),
            integrity_key: sa.integrity_key.expose().clone(),
        })
    }

    /// Takes a packet from the wire and says what the engine should hear of it.
    pub fn receive(&mut self, packet: &Packet) -> (Verdict, Vec<Event>) {
        let Some(sa) = self.inbound.get_mut(&packet.spi) else {
            return (Verdict::UnknownSpi, Vec::new());
        };
        let keys = (sa.spec.sa.encryption_key.expose(), sa.spec.sa.integrity_key.expose());
        if keys != (&packet.encryption_key, &packet.integrity_key) {
            return (Verdict::WrongKey, Vec::new());
        }
        let mut events = Vec::new();
        let policy = sa.spec.sa.policy;
        if !std::mem::replace(&mut sa.used, true) {
            events.push(Event::FirstPacket { spi: packet.spi, policy });
        }
        let (local, remote) = ends(sa.spec.sa.path);
        if remote != packet.from {
            let path = OuterPath {
                local: local.ip(),
                remote: packet.from.ip(),
                encapsulation: Encapsulation::Udp { local_port: local.port(), remote_port: packet.from.port() },
            };
            events.push(Event::PeerMoved { spi: packet.spi, policy, path });
        }
        (Verdict::Delivered, events)
    }

    /// The policies, in the order of their ids.
    pub fn policies(&self) -> impl Iterator<Item = &PolicySpec> {
        self.policies.values()
    }

    /// The SPIs of all inbound SAs.
    pub fn inbound(&self) -> impl Iterator<Item = EspSpi> {
        self.inbound.keys().copied()
    }

    /// The SPIs of all outbound SAs.
    pub fn outbound(&self) -> impl Iterator<Item = EspSpi> {
        self.outbound.keys().map(|(_, spi)| *spi)
    }

    /// The SPI that `policy` sends on.
    #[must_use]
    pub fn active(&self, policy: PolicyId) -> Option<EspSpi> {
        self.active.get(&policy).copied()
    }

    /// How many SPIs are set aside and not installed.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.reserved.len()
    }

    fn reserve(&mut self, rng: &mut Rng) -> Outcome {
        loop {
            let [a, b, c, d, ..] = rng.roll().to_le_bytes();
            let Ok(spi) = EspSpi::from_wire([a, b, c, d]) else { continue };
            if !self.reserved.contains(&spi) && !self.inbound.contains_key(&spi) {
                self.reserved.push(spi);
                return Ok(Done::Spi(spi));
            }
        }
    }

    fn unreserve(&mut self, spi: EspSpi) -> Result<(), Refusal> {
        let place = self.reserved.iter().position(|reserved| *reserved == spi).ok_or(Refusal::SpiNotReserved(spi))?;
        self.reserved.swap_remove(place);
        Ok(())
    }

    fn install_inbound(&mut self, spec: InboundSaSpec) -> Outcome {
        if !self.policies.contains_key(&spec.sa.policy) {
            return Err(Refusal::UnknownPolicy(spec.sa.policy));
        }
        self.unreserve(spec.sa.spi)?;
        self.inbound.insert(spec.sa.spi, Inbound { spec, used: false });
        Ok(Done::Ok)
    }

    fn install_outbound(&mut self, spec: OutboundSaSpec) -> Outcome {
        if !self.policies.contains_key(&spec.sa.policy) {
            return Err(Refusal::UnknownPolicy(spec.sa.policy));
        }
        self.outbound.insert((spec.sa.policy, spec.sa.spi), spec);
        Ok(Done::Ok)
    }

    fn remove(&mut self, direction: Direction, spi: EspSpi, policy: PolicyId) -> Outcome {
        let known = match direction {
            Direction::Inbound => self.inbound.remove(&spi).is_some(),
            Direction::Outbound => {
                if self.active.get(&policy) == Some(&spi) {
                    self.active.remove(&policy);
                }
                self.outbound.remove(&(policy, spi)).is_some()
            }
        };
        if known { Ok(Done::Removed(Box::new(no_statistics(direction, spi)))) } else { Err(Refusal::UnknownSa(spi)) }
    }

    fn relocate(&mut self, direction: Direction, spi: EspSpi, policy: PolicyId, path: OuterPath) -> Outcome {
        let sa = match direction {
            Direction::Inbound => self.inbound.get_mut(&spi).map(|sa| &mut sa.spec.sa),
            Direction::Outbound => self.outbound.get_mut(&(policy, spi)).map(|spec| &mut spec.sa),
        };
        let sa = sa.ok_or(Refusal::UnknownSa(spi))?;
        sa.path = path;
        Ok(Done::Ok)
    }
}

/// The ends of a path, (ours, the peer's); native ESP has no ports, for which 0 stands.
fn ends(path: OuterPath) -> (SocketAddr, SocketAddr) {
    let (local, remote): (u16, u16) = match path.encapsulation {
        Encapsulation::Esp => (0, 0),
        Encapsulation::Udp { local_port, remote_port } => (local_port, remote_port),
    };
    let end = |address: IpAddr, port| SocketAddr::new(address, port);
    (end(path.local, local), end(path.remote, remote))
}

fn no_statistics(direction: Direction, spi: EspSpi) -> SaStatistics {
    SaStatistics { spi, direction, bytes: 0, packets: 0, idle_seconds: None, sequence: 0, drops: Vec::new() }
}
