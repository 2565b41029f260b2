//! The security policy database: what becomes of a packet, and which SA it goes to (RFC 4301 §4.4.1, §5).

mod flows;
mod fragments;
mod index;
mod selectors;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use espdp_api::{InterfaceKind, PolicyAction, PolicyDirections, PolicyId, PolicySpec, WorkerId};

use self::flows::{FlowCache, FlowKey, Found};
pub(crate) use self::flows::{FlowPlace, Ipv4Flow, Ipv6Flow};
use self::fragments::FragmentTable;
pub(crate) use self::fragments::Scope;
use self::index::Index;
use self::selectors::Breadth;
pub(crate) use self::selectors::{Selected, Selectors};
use crate::InterfaceId;
use crate::limits::OncePerSecond;
use crate::outbound::Template;
use crate::packet::Header;
use crate::sa::{OutboundSa, OutboundTable};

/// A policy and its SAs.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) id: PolicyId,
    pub(crate) interface: InterfaceId,
    action: PolicyAction,
    directions: PolicyDirections,
    later_fragments: bool,
    order: Order,
    selectors: Selectors,
    /// When a packet without an SA last raised an event.
    acquire: OncePerSecond,
    /// The outbound SA to send on; one of `outbound`.
    pub(crate) active: Option<u32>,
    /// Places of its outbound SAs.
    pub(crate) outbound: Vec<u32>,
    /// Places of its inbound SAs.
    pub(crate) inbound: Vec<u32>,
    /// The worker that has the SA for everybody; `None`: this one.
    pub(crate) home: Option<WorkerId>,
    /// The peers of its outbound SAs that other workers have.
    pub(crate) peers_elsewhere: Vec<IpAddr>,
}

/// Where a policy stands among those of its interface: by priority, of the same priority the narrow before the broad, and of
/// equal ones the older. It does not depend on which tunnel came up first (R4301-4.4.1-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    priority: u32,
    breadth: Breadth,
    id: PolicyId,
}

impl Policy {
    fn is_outbound(&self) -> bool {
        self.directions != PolicyDirections::Inbound
    }

    fn is_inbound(&self) -> bool {
        self.directions != PolicyDirections::Outbound
    }
}

/// All policies.
#[derive(Debug)]
pub(crate) struct PolicyTable {
    slots: Slots,
    slot_of: BTreeMap<PolicyId, u32>,
    /// Indexed by [`InterfaceId`].
    databases: Vec<Database>,
    cache: FlowCache,
    /// Counts the changes after which packets may find something else.
    revision: u64,
    fragments: FragmentTable,
}

/// Policies by the numbers of their slots, which stay while a policy exists.
#[derive(Debug, Default)]
struct Slots {
    policies: Vec<Option<Policy>>,
    free: Vec<u32>,
}

/// The policies of one interface.
#[derive(Debug)]
struct Database {
    /// All of them, in order.
    ordered: BTreeSet<(Order, u32)>,
    /// For packets that show their ports, or have none.
    index: Index,
    /// Those that name ports, for packets that hide theirs.
    by_addresses: Index,
}

/// Where an outbound packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Into the SA at this place.
    Protect(u32),
    /// Out in clear.
    Bypass,
}

/// Why a packet goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// No policy selects the packet.
    NoPolicy,
    /// The policy that does says so.
    Discard,
    /// Which policy does depends on ports that cannot be seen.
    HiddenPorts,
    /// What came in through an SA of one policy is another's.
    OtherPolicy,
    /// This one does, and has no active SA.
    NoSa(PolicyId),
    /// This one does, and another worker has its active SA.
    Elsewhere(WorkerId),
    /// Its active SA, at this place, has narrower selectors.
    OutsideSa(u32),
}

impl PolicyTable {
    /// Most policies.
    pub(crate) const MOST: usize = 65536;

    pub(crate) fn new() -> Self {
        Self {
            slots: Slots::default(),
            slot_of: BTreeMap::new(),
            databases: Vec::new(),
            cache: FlowCache::new(),
            revision: 1,
            fragments: FragmentTable::new(),
        }
    }

    pub(crate) fn get(&self, id: PolicyId) -> Option<&Policy> {
        self.slots.get(*self.slot_of.get(&id)?)
    }

    /// Access that may change what packets find; forgets what was found before.
    pub(crate) fn get_mut(&mut self, id: PolicyId) -> Option<&mut Policy> {
        self.forget_flows();
        self.slots.get_mut(*self.slot_of.get(&id)?)
    }

    /// Forgets what packets found before.
    pub(crate) fn forget_flows(&mut self) {
        self.cache.forget();
        self.revision += 1;
    }

    /// A number that is another one after every change that may have packets find something else; never 0.
    #[inline]
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether a packet that found no SA may raise an event now.
    pub(crate) fn may_acquire(&mut self, id: PolicyId, now: Instant) -> bool {
        let policy = self.slot_of.get(&id).and_then(|slot| self.slots.get_mut(*slot));
        policy.is_some_and(|policy| {
            policy.action == PolicyAction::Protect { acquire: true } && policy.acquire.allows(now)
        })
    }

    /// The header of a fragment with the protocol and the ports that the first one of its packet showed; `None` for what is
    /// whole.
    #[inline]
    pub(crate) fn complete(&mut self, scope: Scope, header: &Header, now: Instant) -> Option<Header> {
        header.is_fragment.then(|| self.fragments.complete(scope, header, now))
    }

    pub(crate) fn len(&self) -> usize {
        self.slot_of.len()
    }

    /// Whether an interface has policies.
    pub(crate) fn uses(&self, interface: InterfaceId) -> bool {
        self.database(interface).is_some_and(|database| !database.ordered.is_empty())
    }

    /// Sets a policy, or changes one that keeps its SAs.
    pub(crate) fn set(&mut self, spec: &PolicySpec, interface: InterfaceId) {
        let &PolicySpec { id, action, directions, priority, later_fragments, .. } = spec;
        let selectors = Selectors::new(&spec.local, &spec.remote);
        let order = Order { priority, breadth: selectors.breadth(), id };
        let old = self.remove(id);
        let (outbound, inbound, active, home, peers_elsewhere) =
            old.map(|old| (old.outbound, old.inbound, old.active, old.home, old.peers_elsewhere)).unwrap_or_default();
        let acquire = OncePerSecond::default();
        let policy = Policy {
            id,
            interface,
            action,
            directions,
            later_fragments,
            order,
            selectors,
            acquire,
            active,
            outbound,
            inbound,
            home,
            peers_elsewhere,
        };
        let slot = self.slots.insert(policy);
        self.slot_of.insert(id, slot);
        let database_at = usize::from(interface.0);
        if self.databases.len() <= database_at {
            self.databases.resize_with(database_at + 1, Database::new);
        }
        let (Some(database), Some(policy)) = (self.databases.get_mut(database_at), self.slots.get(slot)) else {
            return;
        };
        database.ordered.insert((order, slot));
        let order_of = |slot: u32| self.slots.get(slot).map(|policy| policy.order);
        database.index.insert(slot, &policy.selectors, order_of);
        if policy.selectors.name_ports() {
            database.by_addresses.insert(slot, &policy.selectors, order_of);
        }
    }

    pub(crate) fn remove(&mut self, id: PolicyId) -> Option<Policy> {
        self.forget_flows();
        let slot = self.slot_of.remove(&id)?;
        let policy = self.slots.remove(slot)?;
        if let Some(database) = self.databases.get_mut(usize::from(policy.interface.0)) {
            database.ordered.remove(&(policy.order, slot));
            database.index.remove(slot, &policy.selectors);
            if policy.selectors.name_ports() {
                database.by_addresses.remove(slot, &policy.selectors);
            }
        }
        Some(policy)
    }

    fn database(&self, interface: InterfaceId) -> Option<&Database> {
        self.databases.get(usize::from(interface.0))
    }

    /// Where an outbound packet goes (R4301-5-1: whatever is not selected is dropped).
    #[inline]
    pub(crate) fn route(
        &mut self,
        interface: InterfaceId,
        kind: InterfaceKind,
        header: &Header,
        sas: &OutboundTable,
    ) -> Result<Route, Miss> {
        let packet = Selected::outbound(header);
        let key = FlowKey::new(interface, false, &packet);
        match self.cache.find(&key) {
            Some(Found::Sa(template)) => return Ok(Route::Protect(template.sa())),
            Some(Found::Bypass) => return Ok(Route::Bypass),
            Some(Found::Discard) => return Err(Miss::Discard),
            Some(Found::HiddenPorts) => return Err(Miss::HiddenPorts),
            Some(Found::Nothing) => return Err(Miss::NoPolicy),
            Some(Found::NoSa(policy)) => return Err(Miss::NoSa(*policy)),
            Some(Found::Elsewhere(worker)) => return Err(Miss::Elsewhere(*worker)),
            Some(Found::OutsideSa(place)) => return Err(Miss::OutsideSa(*place)),
            Some(Found::Policy(_)) | None => {}
        }
        let routed = if kind == InterfaceKind::Ipip {
            self.search_ip_in_ip(interface, &packet, sas)
        } else {
            self.search(interface, &packet, sas)
        };
        let found = match routed {
            Ok(Route::Protect(place)) => match sas.get(place) {
                Some(sa) => Found::Sa(Template::new(place, sa, kind, header)),
                None => return routed,
            },
            Ok(Route::Bypass) => Found::Bypass,
            Err(Miss::Discard) => Found::Discard,
            Err(Miss::HiddenPorts) => Found::HiddenPorts,
            Err(Miss::NoPolicy) => Found::Nothing,
            Err(Miss::NoSa(policy)) => Found::NoSa(policy),
            Err(Miss::OutsideSa(place)) => Found::OutsideSa(place),
            Err(Miss::Elsewhere(worker)) => Found::Elsewhere(worker),
            Err(Miss::OtherPolicy) => return routed,
        };
        self.cache.remember(key, found);
        routed
    }

    /// Whether [`Self::route`] would not have to search.
    pub(crate) fn knows_route(&self, interface: InterfaceId, header: &Header) -> bool {
        self.cache.find(&FlowKey::new(interface, false, &Selected::outbound(header))).is_some()
    }

    /// What a policy says.
    pub(crate) fn action(&self, id: PolicyId) -> Option<PolicyAction> {
        self.get(id).map(|policy| policy.action)
    }

    /// The first policy that selects a packet which came through an SA, whatever it says.
    pub(crate) fn selecting_inbound(&self, interface: InterfaceId, packet: &Selected) -> Option<PolicyId> {
        self.first(interface, packet, Policy::is_inbound).ok().map(|(_, policy)| policy.id)
    }

    /// The policy that decides about an outbound packet, whatever it says.
    pub(crate) fn selecting(
        &self,
        interface: InterfaceId,
        kind: InterfaceKind,
        header: &Header,
        sas: &OutboundTable,
    ) -> Option<PolicyId> {
        let packet = Selected::outbound(header);
        if kind == InterfaceKind::Ipip {
            return self.first_ip_in_ip(interface, &packet, sas).map(|(policy, _)| policy.id);
        }
        self.first(interface, &packet, Policy::is_outbound).ok().map(|(_, policy)| policy.id)
    }

    /// How packets of a flow are sent whose route was asked for before; `None` also when they are not sent on an SA.
    #[inline]
    pub(crate) fn ipv4_template(&self, place: &FlowPlace<Ipv4Flow>) -> Option<&Template> {
        self.cache.find_ipv4(place).and_then(Found::template)
    }

    /// Where [`Self::ipv4_template`] looks, which the processor is asked to fetch.
    #[inline]
    pub(crate) fn prefetch_ipv4(&self, flow: Ipv4Flow) -> FlowPlace<Ipv4Flow> {
        self.cache.prefetch_ipv4(flow)
    }

    /// As [`Self::prefetch_ipv4`].
    #[inline]
    pub(crate) fn prefetch_ipv6(&self, flow: Ipv6Flow) -> FlowPlace<Ipv6Flow> {
        self.cache.prefetch_ipv6(flow)
    }

    /// As [`Self::ipv4_template`].
    #[inline]
    pub(crate) fn ipv6_template(&self, place: &FlowPlace<Ipv6Flow>) -> Option<&Template> {
        self.cache.find_ipv6(place).and_then(Found::template)
    }
}

impl PolicyTable {
    /// Whether a packet may come in through an SA of the policy `own`, the other end of which is `peer`: whether the first
    /// policy that selects it is that one (RFC 4301 §5.2 step 4). Another one that protects with the same priority will do when
    /// nobody said which of them comes first: when it is as broad (R4301-4.1-1), or has SAs with the same peer, who may
    /// see another order.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        interface: InterfaceId,
        packet: &Selected,
        own: PolicyId,
        peer: IpAddr,
        sas: &OutboundTable,
    ) -> Result<(), Miss> {
        if self.database(interface).is_some_and(|database| self.is_only(database, own, packet)) {
            return Ok(());
        }
        let key = FlowKey::new(interface, true, packet);
        let found = self.cache.find(&key).copied().unwrap_or_else(|| {
            let found = self.search_inbound(interface, packet);
            self.cache.remember(key, found);
            found
        });
        match found {
            Found::Policy(slot) => {
                let first = self.slots.get(slot).ok_or(Miss::NoPolicy)?;
                if first.id == own || self.is_as_good(first, own, peer, sas) { Ok(()) } else { Err(Miss::OtherPolicy) }
            }
            Found::HiddenPorts => Err(Miss::HiddenPorts),
            Found::Discard => Err(Miss::Discard),
            Found::Nothing
            | Found::Bypass
            | Found::Sa(_)
            | Found::NoSa(_)
            | Found::Elsewhere(_)
            | Found::OutsideSa(_) => Err(Miss::NoPolicy),
        }
    }

    /// Whether an interface has no policy but this one, and that selects the packet: what most gateways have.
    fn is_only(&self, database: &Database, own: PolicyId, packet: &Selected) -> bool {
        let Some((order, slot)) = database.ordered.first().filter(|_| database.ordered.len() == 1) else {
            return false;
        };
        let policy = self.slots.get(*slot).filter(|_| order.id == own);
        policy.is_some_and(|policy| {
            let protects = matches!(policy.action, PolicyAction::Protect { .. });
            protects && policy.is_inbound() && policy.selectors.matches(packet)
        })
    }

    /// What the SAs of a policy are asked about: with later fragments only what they show by themselves, unless both ends
    /// agreed to send them along (RFC 4301 §7.3).
    #[inline]
    pub(crate) fn for_sa(&self, packet: &Selected, policy: PolicyId) -> Selected {
        let agreed = || self.get(policy).is_some_and(|policy| policy.later_fragments);
        if packet.is_completed && !agreed() { packet.as_it_is() } else { *packet }
    }

    fn search_inbound(&self, interface: InterfaceId, packet: &Selected) -> Found {
        match self.first(interface, packet, Policy::is_inbound) {
            Ok((_, Policy { action: PolicyAction::Discard, .. })) => Found::Discard,
            Ok((slot, _)) => Found::Policy(slot),
            Err(Unfound::HiddenPorts) => Found::HiddenPorts,
            Err(Unfound::Nothing) => Found::Nothing,
        }
    }

    /// See [`Self::admit`].
    fn is_as_good(&self, first: &Policy, own: PolicyId, peer: IpAddr, sas: &OutboundTable) -> bool {
        let Some(own) = self.get(own) else { return false };
        let protects = matches!(first.action, PolicyAction::Protect { .. });
        let here = first.outbound.iter().filter_map(|place| Some(sas.get(*place)?.path().remote));
        let mut peers = here.chain(first.peers_elsewhere.iter().copied());
        protects
            && first.order.priority == own.order.priority
            && (first.order.breadth == own.order.breadth || peers.any(|other| other == peer))
    }

    fn search(&self, interface: InterfaceId, packet: &Selected, sas: &OutboundTable) -> Result<Route, Miss> {
        match self.first(interface, packet, Policy::is_outbound) {
            Ok((_, policy)) => policy.route(packet, sas),
            Err(Unfound::HiddenPorts) => Err(Miss::HiddenPorts),
            Err(Unfound::Nothing) => Err(Miss::NoPolicy),
        }
    }

    /// The first policy that selects a packet, of those that are `asked`.
    fn first(
        &self,
        interface: InterfaceId,
        packet: &Selected,
        asked: impl Fn(&Policy) -> bool,
    ) -> Result<(u32, &Policy), Unfound> {
        let database = self.database(interface).ok_or(Unfound::Nothing)?;
        let order_if = |slot: u32, selects: &dyn Fn(&Selectors) -> bool| {
            let policy = self.slots.get(slot)?;
            (asked(policy) && selects(&policy.selectors)).then_some(policy.order)
        };
        let slot = database.index.find(packet, |slot| order_if(slot, &|selectors| selectors.matches(packet)));
        let found = slot.and_then(|slot| Some((slot, self.slots.get(slot)?)));
        if !packet.hides_ports() || found.is_some_and(|(_, policy)| policy.selectors.wants_hidden_ports(packet)) {
            return found.ok_or(Unfound::Nothing);
        }
        let might = database.by_addresses.find(packet, |slot| order_if(slot, &|selectors| selectors.may_match(packet)));
        let order = |slot: u32| self.slots.get(slot).map(|policy| policy.order);
        match (might.and_then(order), found) {
            (Some(might), Some((_, policy))) if policy.order <= might => {}
            (Some(_), _) => return Err(Unfound::HiddenPorts),
            (None, _) => {}
        }
        found.ok_or(Unfound::Nothing)
    }

    /// Where a packet goes on an interface that puts an IP header in front of it for those SAs that are in transport mode:
    /// what their policies select is the wrapped packet.
    fn search_ip_in_ip(&self, interface: InterfaceId, inner: &Selected, sas: &OutboundTable) -> Result<Route, Miss> {
        match self.first_ip_in_ip(interface, inner, sas) {
            Some((policy, Some(packet))) => policy.route(&packet, sas),
            Some((policy, None)) => Err(Miss::NoSa(policy.id)),
            None => Err(Miss::NoPolicy),
        }
    }

    /// The first policy that selects such a packet, and what it selects; or one that would if it had an SA.
    fn first_ip_in_ip(
        &self,
        interface: InterfaceId,
        inner: &Selected,
        sas: &OutboundTable,
    ) -> Option<(&Policy, Option<Selected>)> {
        let policies = || {
            let ordered = self.database(interface).into_iter().flat_map(|database| &database.ordered);
            ordered.filter_map(|(_, slot)| self.slots.get(*slot)).filter(|policy| policy.is_outbound())
        };
        for policy in policies() {
            let active = policy.active.and_then(|place| sas.get(place)).filter(|sa| sa.is_transport());
            let packet = active.map_or(*inner, |sa| sa.ip_in_ip(inner.remote.is_ipv4()));
            if policy.selectors.matches(&packet) {
                return Some((policy, Some(packet)));
            }
        }
        // Which addresses the interface would put in front is known only with an SA, but it has to be two hosts.
        let is_waiting =
            |policy: &&Policy| policy.active.is_none() && policy.selectors.name_ip_in_ip(inner.remote.is_ipv4());
        policies().find(is_waiting).map(|policy| (policy, None))
    }
}

/// Why no policy was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfound {
    /// None selects the packet.
    Nothing,
    /// It depends on ports that cannot be seen.
    HiddenPorts,
}

impl Policy {
    /// Where a packet goes that the policy selects.
    fn route(&self, packet: &Selected, sas: &OutboundTable) -> Result<Route, Miss> {
        match self.action {
            PolicyAction::Discard => Err(Miss::Discard),
            PolicyAction::Bypass => Ok(Route::Bypass),
            PolicyAction::Protect { .. } => {
                let active = self.active.and_then(|place| Some((place, sas.get(place)?)));
                let (place, sa) = active.ok_or(self.home.map_or(Miss::NoSa(self.id), Miss::Elsewhere))?;
                // RFC 4301 §7.3: what does not show its ports is for certain ports only where both ends agreed.
                let packet = if self.later_fragments { *packet } else { packet.as_it_is() };
                if sa.selects(&packet) { Ok(Route::Protect(place)) } else { Err(Miss::OutsideSa(place)) }
            }
        }
    }
}

impl Database {
    fn new() -> Self {
        Self { ordered: BTreeSet::new(), index: Index::new(true), by_addresses: Index::new(false) }
    }
}

impl Slots {
    #[inline]
    fn get(&self, slot: u32) -> Option<&Policy> {
        self.policies.get(slot as usize)?.as_ref()
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Policy> {
        self.policies.get_mut(slot as usize)?.as_mut()
    }

    fn insert(&mut self, policy: Policy) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.policies.push(None);
            u32::try_from(self.policies.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.policies.get_mut(slot as usize) {
            *place = Some(policy);
        }
        slot
    }

    fn remove(&mut self, slot: u32) -> Option<Policy> {
        let policy = self.policies.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(policy)
    }
}

impl OutboundSa {
    /// An inner packet of this family in the IP header between the gateways.
    fn ip_in_ip(&self, inner_is_ipv4: bool) -> Selected {
        let path = self.path();
        Selected::ip_in_ip(path.local, path.remote, inner_is_ipv4)
    }
}

#[cfg(test)]
mod tests;
