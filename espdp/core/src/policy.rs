//! Which SA an inner packet goes to (RFC 4301 §4.4.1, §5.1).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use espdp_api::{InterfaceKind, PolicyAction, PolicyDirections, PolicyId, PolicySpec, PortRange, TrafficSelector};

use crate::InterfaceId;
use crate::limits::OncePerSecond;
use crate::packet::{Header, protocol};
use crate::sa::{OutboundSa, OutboundTable};

/// The selectors of a policy or an SA: any of ours together with any of the peer's.
#[derive(Clone, Debug)]
pub(crate) struct Selectors {
    local: Box<[TrafficSelector]>,
    remote: Box<[TrafficSelector]>,
    all_ipv4: bool,
    all_ipv6: bool,
}

/// One packet as selectors see it, turned so that `local` is our side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) local_port: Option<u16>,
    pub(crate) remote_port: Option<u16>,
}

impl Selected {
    /// A packet on its way to the peer.
    pub(crate) fn outbound(header: &Header) -> Self {
        Self {
            local: header.source,
            remote: header.destination,
            protocol: header.protocol,
            local_port: header.source_port,
            remote_port: header.destination_port,
        }
    }

    /// A packet that came from the peer.
    pub(crate) fn inbound(header: &Header) -> Self {
        Self {
            local: header.destination,
            remote: header.source,
            protocol: header.protocol,
            local_port: header.destination_port,
            remote_port: header.source_port,
        }
    }

    /// An IP-in-IP packet between the gateways.
    pub(crate) fn ip_in_ip(local: IpAddr, remote: IpAddr, inner_is_ipv4: bool) -> Self {
        let protocol = if inner_is_ipv4 { protocol::IPV4 } else { protocol::IPV6 };
        Self { local, remote, protocol, local_port: None, remote_port: None }
    }
}

impl Selectors {
    pub(crate) fn new(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Self {
        let all = |ipv4| {
            let covers = |selectors: &[TrafficSelector]| selectors.iter().any(|selector| covers_family(selector, ipv4));
            covers(local) && covers(remote)
        };
        Self { local: local.into(), remote: remote.into(), all_ipv4: all(true), all_ipv6: all(false) }
    }

    /// Whether a packet is selected (R4301-7.1-1, R4301-7.3-1).
    #[inline]
    pub(crate) fn matches(&self, packet: &Selected) -> bool {
        if self.matches_all(packet.remote.is_ipv4()) {
            return true;
        }
        let &Selected { local, remote, protocol, local_port, remote_port } = packet;
        self.local.iter().any(|selector| selector.matches(local, protocol, local_port))
            && self.remote.iter().any(|selector| selector.matches(remote, protocol, remote_port))
    }

    /// Whether IP in IP between one host and another is selected.
    fn name_ip_in_ip(&self, inner_is_ipv4: bool) -> bool {
        let host = |selectors: &[TrafficSelector]| {
            let is_host = |selector: &&TrafficSelector| selector.addresses.start() == selector.addresses.end();
            selectors.iter().find(is_host).map(|selector| selector.addresses.start())
        };
        let pair = host(&self.local).zip(host(&self.remote));
        pair.is_some_and(|(local, remote)| self.matches(&Selected::ip_in_ip(local, remote, inner_is_ipv4)))
    }

    /// How much of its family the widest selector takes, on the peer's side and on ours.
    fn breadth(&self) -> Breadth {
        let widest = |selectors: &[TrafficSelector]| selectors.iter().map(breadth).max().unwrap_or_default();
        Breadth { remote: widest(&self.remote), local: widest(&self.local) }
    }

    /// Whether every packet of a family is selected, without looking.
    fn matches_all(&self, ipv4: bool) -> bool {
        if ipv4 { self.all_ipv4 } else { self.all_ipv6 }
    }
}

/// Of two policies that select the same packet, the one with less breadth is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Breadth {
    remote: (u128, u16, bool),
    local: (u128, u16, bool),
}

/// The number of addresses less one, in parts of the family so that IPv4 and IPv6 compare; the number of ports less one;
/// whether any protocol will do. What a selector covers is never broader than itself.
fn breadth(selector: &TrafficSelector) -> (u128, u16, bool) {
    let addresses = match (selector.addresses.start(), selector.addresses.end()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits().saturating_sub(first.to_bits())) << 96,
        (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().saturating_sub(first.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    (addresses, selector.ports.end.saturating_sub(selector.ports.start), selector.protocol == 0)
}

/// Whether a selector takes all packets of a family.
fn covers_family(selector: &TrafficSelector, ipv4: bool) -> bool {
    let (first, last) = (selector.addresses.start(), selector.addresses.end());
    let whole = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => ipv4 && first.to_bits() == 0 && last.to_bits() == u32::MAX,
        (IpAddr::V6(first), IpAddr::V6(last)) => !ipv4 && first.to_bits() == 0 && last.to_bits() == u128::MAX,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    whole && selector.protocol == 0 && selector.ports == PortRange::ANY
}

/// A policy and its SAs.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) id: PolicyId,
    pub(crate) interface: InterfaceId,
    action: PolicyAction,
    directions: PolicyDirections,
    priority: u32,
    selectors: Selectors,
    /// Whether a packet without an SA raises an event, and when it last did.
    acquire: Option<OncePerSecond>,
    /// The outbound SA to send on; one of `outbound`.
    pub(crate) active: Option<u32>,
    /// Places of its outbound SAs.
    pub(crate) outbound: Vec<u32>,
    /// Places of its inbound SAs.
    pub(crate) inbound: Vec<u32>,
}

impl Policy {
    /// Where it stands among the policies of its interface.
    fn order(&self) -> (u32, Breadth, PolicyId) {
        (self.priority, self.selectors.breadth(), self.id)
    }
}

/// All policies, each interface's in an order that does not depend on which tunnel came up first (R4301-4.4.1-1): by
/// priority, of the same priority the narrow before the broad, and of equal ones the older.
#[derive(Debug)]
pub(crate) struct PolicyTable {
    /// Indexed by [`InterfaceId`].
    by_interface: Vec<Vec<Policy>>,
    interface_of: BTreeMap<PolicyId, InterfaceId>,
    cache: FlowCache,
}

/// Why no SA was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// No policy selects the packet.
    NoPolicy,
    /// The policy that does says so.
    Discard,
    /// This one does, and has no active SA.
    NoSa(PolicyId),
    /// Its active SA, at this place, has narrower selectors.
    OutsideSa(u32),
}

impl PolicyTable {
    /// Most policies.
    pub(crate) const MOST: usize = 65536;

    pub(crate) fn new() -> Self {
        Self { by_interface: Vec::new(), interface_of: BTreeMap::new(), cache: FlowCache::new() }
    }

    pub(crate) fn get(&self, id: PolicyId) -> Option<&Policy> {
        let policies = self.by_interface.get(usize::from(self.interface_of.get(&id)?.0))?;
        policies.iter().find(|policy| policy.id == id)
    }

    /// Access that may change what packets find; forgets what was found before.
    pub(crate) fn get_mut(&mut self, id: PolicyId) -> Option<&mut Policy> {
        self.cache.forget();
        self.find_mut(id)
    }

    /// Forgets what packets found before.
    pub(crate) fn forget_flows(&mut self) {
        self.cache.forget();
    }

    /// Whether a packet that found no SA may raise an event now.
    pub(crate) fn may_acquire(&mut self, id: PolicyId, now: Instant) -> bool {
        let acquire = self.find_mut(id).and_then(|policy| policy.acquire.as_mut());
        acquire.is_some_and(|once| once.allows(now))
    }

    pub(crate) fn len(&self) -> usize {
        self.interface_of.len()
    }

    /// Whether an interface has policies.
    pub(crate) fn uses(&self, interface: InterfaceId) -> bool {
        self.by_interface.get(usize::from(interface.0)).is_some_and(|policies| !policies.is_empty())
    }

    /// Sets a policy, or changes one that keeps its SAs.
    pub(crate) fn set(&mut self, spec: &PolicySpec, interface: InterfaceId) {
        self.cache.forget();
        let selectors = Selectors::new(&spec.local, &spec.remote);
        let acquire = (spec.action == PolicyAction::Protect { acquire: true }).then(OncePerSecond::default);
        let old = self.remove(spec.id);
        let (outbound, inbound, active) =
            old.map(|policy| (policy.outbound, policy.inbound, policy.active)).unwrap_or_default();
        self.interface_of.insert(spec.id, interface);
        let index = usize::from(interface.0);
        if self.by_interface.len() <= index {
            self.by_interface.resize_with(index + 1, Vec::new);
        }
        if let Some(policies) = self.by_interface.get_mut(index) {
            let PolicySpec { id, action, directions, priority, .. } = *spec;
            let policy =
                Policy { id, interface, action, directions, priority, selectors, acquire, active, outbound, inbound };
            let place = policies.partition_point(|other| other.order() < policy.order());
            policies.insert(place, policy);
        }
    }

    pub(crate) fn remove(&mut self, id: PolicyId) -> Option<Policy> {
        self.cache.forget();
        let interface = self.interface_of.remove(&id)?;
        let policies = self.by_interface.get_mut(usize::from(interface.0))?;
        let at = policies.iter().position(|policy| policy.id == id)?;
        Some(policies.remove(at))
    }

    fn find_mut(&mut self, id: PolicyId) -> Option<&mut Policy> {
        let policies = self.by_interface.get_mut(usize::from(self.interface_of.get(&id)?.0))?;
        policies.iter_mut().find(|policy| policy.id == id)
    }

    /// The place of the SA that an outbound packet goes to (R4301-5-1: whatever is not selected is dropped).
    #[inline]
    pub(crate) fn route(
        &mut self,
        interface: InterfaceId,
        kind: InterfaceKind,
        header: &Header,
        sas: &OutboundTable,
    ) -> Result<u32, Miss> {
        let key = FlowKey::new(interface, header);
        if let Some(sa) = self.cache.find(&key) {
            return Ok(sa);
        }
        let sa = self.search(interface, kind, header, sas)?;
        self.cache.remember(key, sa);
        Ok(sa)
    }

    fn search(
        &self,
        interface: InterfaceId,
        kind: InterfaceKind,
        header: &Header,
        sas: &OutboundTable,
    ) -> Result<u32, Miss> {
        let packet = Selected::outbound(header);
        let policies = self.by_interface.get(usize::from(interface.0)).into_iter().flatten();
        for policy in policies.filter(|policy| policy.directions != PolicyDirections::Inbound) {
            let active = policy.active.and_then(|place| Some((place, sas.get(place)?)));
            let packet = match active {
                Some((_, sa)) if sa.is_ip_in_ip(kind) => sa.ip_in_ip(header),
                _ => packet,
            };
            if policy.selectors.matches(&packet) {
                if policy.action == PolicyAction::Discard {
                    return Err(Miss::Discard);
                }
                let (place, sa) = active.ok_or(Miss::NoSa(policy.id))?;
                return if sa.selects(&packet) { Ok(place) } else { Err(Miss::OutsideSa(place)) };
            }
        }
        let waiting = self.waiting_for_ip_in_ip(interface, kind, header);
        Err(waiting.map_or(Miss::NoPolicy, Miss::NoSa))
    }

    /// The policy without an SA whose packets this one would be once it is wrapped. Which addresses the interface would put
    /// in front is known only with an SA, but it has to be two hosts.
    fn waiting_for_ip_in_ip(&self, interface: InterfaceId, kind: InterfaceKind, inner: &Header) -> Option<PolicyId> {
        let mut policies =
            self.by_interface.get(usize::from(interface.0)).filter(|_| kind == InterfaceKind::Ipip)?.iter();
        let is_waiting = |policy: &&Policy| policy.active.is_none() && policy.selectors.name_ip_in_ip(inner.is_ipv4());
        policies.find(is_waiting).map(|policy| policy.id)
    }
}

impl OutboundSa {
    /// Whether the interface wraps packets in IP before this SA protects them.
    fn is_ip_in_ip(&self, kind: InterfaceKind) -> bool {
        kind == InterfaceKind::Ipip && self.is_transport()
    }

    /// The wrapped packet.
    fn ip_in_ip(&self, inner: &Header) -> Selected {
        let path = self.path();
        Selected::ip_in_ip(path.local, path.remote, inner.is_ipv4())
    }
}

/// Remembers the SAs of recent flows, so that policies are searched once for each flow and not for each packet.
#[derive(Debug)]
struct FlowCache {
    /// A flow may stand anywhere in its set; where a set is full, its oldest flow makes way.
    sets: Box<[[Flow; Self::WAYS]]>,
    /// Flows of older generations are forgotten.
    generation: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    key: FlowKey,
    generation: u32,
    sa: u32,
}

/// Everything that selectors look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FlowKey {
    source: u128,
    destination: u128,
    /// Interface, family, protocol and ports.
    others: u64,
}

impl FlowKey {
    #[inline]
    fn new(interface: InterfaceId, header: &Header) -> Self {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let visible = u64::from(header.source_port.is_some());
        let ports = u64::from(header.source_port.unwrap_or(0)) << 16 | u64::from(header.destination_port.unwrap_or(0));
        let family = u64::from(header.is_ipv4());
        let others =
            u64::from(interface.0) << 48 | family << 41 | visible << 40 | u64::from(header.protocol) << 32 | ports;
        Self { source: bits(header.source), destination: bits(header.destination), others }
    }

    /// Multiply and fold: spreads flows that differ in a few low bits.
    #[inline]
    fn hash(&self) -> u64 {
        let words = [
            self.source as u64,
            (self.source >> 64) as u64,
            self.destination as u64,
            (self.destination >> 64) as u64,
            self.others,
        ];
        let mix = |hash: u64, word: u64| {
            let product = u128::from(hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (product as u64) ^ ((product >> 64) as u64)
        };
        words.into_iter().fold(0x243f_6a88_85a3_08d3, mix)
    }
}

impl FlowCache {
    /// Flows in a set: enough that sets are seldom full while the cache is not.
    const WAYS: usize = 4;
    const SETS: usize = 4096;

    fn new() -> Self {
        Self { sets: vec![[Flow::default(); Self::WAYS]; Self::SETS].into_boxed_slice(), generation: 1 }
    }

    #[inline]
    fn find(&self, key: &FlowKey) -> Option<u32> {
        let set = self.sets.get(Self::set(key))?;
        set.iter().find(|flow| flow.generation == self.generation && flow.key == *key).map(|flow| flow.sa)
    }

    fn remember(&mut self, key: FlowKey, sa: u32) {
        let generation = self.generation;
        if let Some(set) = self.sets.get_mut(Self::set(&key)) {
            set.rotate_right(1);
            let [newest, ..] = set;
            *newest = Flow { key, generation, sa };
        }
    }

    fn forget(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            // The counter went round: a flow of long ago must not come back to life.
            self.sets.fill([Flow::default(); Self::WAYS]);
            self.generation = 1;
        }
    }

    fn set(key: &FlowKey) -> usize {
        (key.hash() as usize) % Self::SETS
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::AddressRange;

    use super::*;

    fn flow(number: u32) -> FlowKey {
        FlowKey { source: 1, destination: u128::from(number), others: 17 << 32 }
    }

    #[test]
    fn a_cache_that_is_a_quarter_full_forgets_hardly_anything() {
        let mut cache = FlowCache::new();
        let flows = (FlowCache::SETS * FlowCache::WAYS / 4) as u32;
        for number in 0..flows {
            cache.remember(flow(number), number);
        }
        let found = (0..flows).filter(|number| cache.find(&flow(*number)) == Some(*number)).count();
        assert!(found as u32 > flows / 100 * 99, "{found} of {flows}");
        assert_eq!(cache.find(&flow(flows)), None);
    }

    #[test]
    fn what_is_forgotten_stays_forgotten_when_the_generations_start_again() {
        let mut cache = FlowCache::new();
        cache.remember(flow(1), 1);
        cache.forget();
        assert_eq!(cache.find(&flow(1)), None);
        cache.generation = u32::MAX;
        cache.forget();
        assert_eq!(cache.generation, 1, "the generation in which the flow was remembered");
        assert_eq!(cache.find(&flow(1)), None);
        assert_eq!(cache.find(&FlowKey::default()), None, "an empty place is no flow");
    }

    #[test]
    fn only_whole_families_without_protocol_and_ports_are_everything() {
        let range = |first: &str, last: &str| {
            TrafficSelector::any_protocol(AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap())
        };
        let all = range("0.0.0.0", "255.255.255.255");
        assert!(covers_family(&all, true) && !covers_family(&all, false));
        assert!(covers_family(&range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), false));
        assert!(!covers_family(&range("0.0.0.1", "255.255.255.255"), true));
        assert!(!covers_family(&TrafficSelector { protocol: 6, ..all }, true));
        assert!(!covers_family(&TrafficSelector { ports: PortRange::OPAQUE, ..all }, true));
        let one_sided = Selectors::new(&[all], &[range("10.0.0.0", "10.0.0.255")]);
        assert!(!one_sided.matches_all(true));
    }
}
