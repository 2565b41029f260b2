//! The dataplane of a gateway under test.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use espdp_api::{
    Carries, Command as DataplaneCommand, Direction, Done, EspSpi, Outcome, PolicyAction, PolicyId, Refusal,
    SaStatistics, SpiWish, Workers,
};

use super::Who;

/// What a dataplane would do, without packets. It refuses what a real one refuses.
#[derive(Debug)]
pub(in crate::engine) struct Dataplane {
    next_spi: u32,
    /// The addresses of the host, the one that its routes prefer first.
    pub(in crate::engine) addresses: Vec<IpAddr>,
    pub(in crate::engine) reserved: BTreeSet<EspSpi>,
    pub(in crate::engine) inbound: BTreeMap<EspSpi, PolicyId>,
    pub(in crate::engine) outbound: BTreeMap<(PolicyId, EspSpi), espdp_api::OuterPath>,
    pub(in crate::engine) policies: BTreeSet<PolicyId>,
    pub(in crate::engine) trapped: BTreeSet<PolicyId>,
    /// Those that let later fragments through.
    pub(in crate::engine) later_fragments: BTreeSet<PolicyId>,
    /// The virtual addresses that policies bring along.
    pub(in crate::engine) virtual_addresses: BTreeMap<PolicyId, Vec<IpAddr>>,
    pub(in crate::engine) active: BTreeMap<PolicyId, EspSpi>,
    pub(in crate::engine) workers: Workers,
    /// Outbound SAs for single workers; whether they send.
    pub(in crate::engine) own: BTreeMap<EspSpi, bool>,
    /// The keys of all SAs that ever were, by direction and SPI.
    pub(in crate::engine) keys: BTreeMap<(Direction, EspSpi), Vec<u8>>,
    /// Refuses the next command of this kind.
    pub(in crate::engine) refuse_install: Option<Direction>,
    /// What it refused to install, which may be removed by somebody who does not know that yet.
    refused: BTreeSet<(Direction, EspSpi)>,
}

impl Dataplane {
    pub(super) fn new(seed: u64, who: Who) -> Self {
        Self {
            addresses: vec![who.address()],
            next_spi: 0x1000_0000 * u32::try_from(seed).unwrap(),
            reserved: BTreeSet::new(),
            inbound: BTreeMap::new(),
            outbound: BTreeMap::new(),
            policies: BTreeSet::new(),
            trapped: BTreeSet::new(),
            later_fragments: BTreeSet::new(),
            virtual_addresses: BTreeMap::new(),
            active: BTreeMap::new(),
            workers: Workers::ONE,
            own: BTreeMap::new(),
            keys: BTreeMap::new(),
            refuse_install: None,
            refused: BTreeSet::new(),
        }
    }

    pub(super) fn assert_empty(&self) {
        assert!(self.reserved.is_empty(), "SPIs are leaked: {:?}", self.reserved);
        assert!(self.inbound.is_empty(), "inbound SAs are leaked: {:?}", self.inbound);
        assert!(self.outbound.is_empty(), "outbound SAs are leaked: {:?}", self.outbound);
        assert!(self.policies.is_empty(), "policies are leaked: {:?}", self.policies);
    }

    fn refuses(&mut self, direction: Direction, spi: EspSpi) -> bool {
        let refuses = self.refuse_install.take_if(|refused| *refused == direction).is_some();
        self.refused.extend(refuses.then_some((direction, spi)));
        refuses
    }

    fn reserve(&mut self, wish: &SpiWish) -> EspSpi {
        self.next_spi += 1;
        let of_old = wish.replaces.map(|old| self.workers.of_spi(old.value()));
        let worker = of_old.or(wish.worker).unwrap_or_default();
        let spi = EspSpi::try_from(self.workers.mark(self.next_spi, worker)).unwrap();
        self.reserved.insert(spi);
        spi
    }

    pub(super) fn carry_out(&mut self, who: Who, command: DataplaneCommand) -> Outcome {
        match command {
            DataplaneCommand::ReserveSpi(wish) => return Ok(Done::Spi(self.reserve(&wish))),
            DataplaneCommand::ReleaseSpi(spi) => {
                assert!(self.reserved.remove(&spi), "{who:?} releases {spi}, which is not reserved");
            }
            DataplaneCommand::InstallInbound(spec) => {
                if self.refuses(Direction::Inbound, spec.sa.spi) {
                    return Err(Refusal::Full("test".to_owned()));
                }
                assert!(self.policies.contains(&spec.sa.policy), "{who:?} installs without policy");
                assert!(self.reserved.remove(&spec.sa.spi), "{who:?} installs {}, which is not reserved", spec.sa.spi);
                self.keys.insert((Direction::Inbound, spec.sa.spi), spec.sa.encryption_key.expose().clone());
                self.inbound.insert(spec.sa.spi, spec.sa.policy);
            }
            DataplaneCommand::InstallOutbound(spec) => {
                if self.refuses(Direction::Outbound, spec.sa.spi) {
                    return Err(Refusal::Full("test".to_owned()));
                }
                self.keys.insert((Direction::Outbound, spec.sa.spi), spec.sa.encryption_key.expose().clone());
                if self.outbound.contains_key(&(spec.sa.policy, spec.sa.spi)) {
                    self.refused.insert((Direction::Outbound, spec.sa.spi));
                    return Err(Refusal::BadSa("the policy has an SA with this SPI".to_owned()));
                }
                self.outbound.insert((spec.sa.policy, spec.sa.spi), spec.sa.path);
                if spec.carries == Carries::OwnWorker {
                    self.own.insert(spec.sa.spi, false);
                }
            }
            DataplaneCommand::Activate { policy, spi } => {
                assert!(self.outbound.contains_key(&(policy, spi)), "{who:?} activates {spi}, which is not there");
                match self.own.get_mut(&spi) {
                    Some(sends) => *sends = true,
                    None => drop(self.active.insert(policy, spi)),
                }
            }
            DataplaneCommand::RemoveSa { direction, spi, policy } => {
                let known = match direction {
                    Direction::Inbound => self.inbound.remove(&spi).is_some(),
                    Direction::Outbound => self.outbound.remove(&(policy, spi)).is_some(),
                };
                if !known && self.refused.contains(&(direction, spi)) {
                    return Err(Refusal::UnknownSa(spi));
                }
                assert!(known, "{who:?} removes {direction:?} {spi}, which is not there");
                if direction == Direction::Outbound {
                    self.own.remove(&spi);
                }
                if direction == Direction::Outbound && self.active.get(&policy) == Some(&spi) {
                    self.active.remove(&policy);
                }
                let drops = Vec::new();
                let statistics =
                    SaStatistics { spi, direction, bytes: 0, packets: 0, idle_seconds: None, sequence: 0, drops };
                return Ok(Done::Removed(Box::new(statistics)));
            }
            DataplaneCommand::MoveSa { direction, spi, policy, path } => {
                if direction == Direction::Outbound {
                    *self.outbound.get_mut(&(policy, spi)).unwrap() = path;
                }
            }
            DataplaneCommand::SetPolicy(spec) => {
                self.policies.insert(spec.id);
                self.virtual_addresses.insert(spec.id, spec.addresses);
                self.later_fragments.remove(&spec.id);
                self.later_fragments.extend(spec.later_fragments.then_some(spec.id));
                if spec.action == (PolicyAction::Protect { acquire: true }) {
                    self.trapped.insert(spec.id)
                } else {
                    self.trapped.remove(&spec.id)
                };
            }
            DataplaneCommand::RemovePolicy(policy) => {
                assert!(self.policies.remove(&policy), "{who:?} removes {policy:?}, which is not set");
                self.trapped.remove(&policy);
                self.virtual_addresses.remove(&policy);
                let left = self.inbound.values().any(|other| *other == policy)
                    || self.outbound.keys().any(|(other, _)| *other == policy);
                assert!(!left, "{who:?} removes {policy:?} with SAs in it");
            }
            DataplaneCommand::LocalAddress { remote } => {
                let found = self.addresses.iter().find(|address| address.is_ipv4() == remote.is_ipv4());
                let unreachable =
                    || Refusal::System { operation: "look up a route".to_owned(), reason: "no route".to_owned() };
                return found.copied().map(Done::LocalAddress).ok_or_else(unreachable);
            }
            other @ (DataplaneCommand::ClaimSpi(_)
            | DataplaneCommand::SetInterface(_)
            | DataplaneCommand::RemoveInterface(_)
            | DataplaneCommand::SetHost(_)
            | DataplaneCommand::PlanHost(_)
            | DataplaneCommand::SetBridge(_)
            | DataplaneCommand::RemoveBridge(_)
            | DataplaneCommand::Trace { .. }
            | DataplaneCommand::ReadTraces
            | DataplaneCommand::WhatIf(_)
            | DataplaneCommand::ReadMtus
            | DataplaneCommand::Statistics) => panic!("{other:?} is not for the engine"),
        }
        Ok(Done::Ok)
    }
}
