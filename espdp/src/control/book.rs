//! Interfaces, policies and outbound SAs as the daemon set them, and the network state that follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use espdp_api::{
    EspAlgorithms, EspSpi, GuardMode, HostSpec, InterfaceKind, InterfaceName, InterfaceSpec, IpPrefix, IpsecProtocol,
    Mode, Mtu, MtuReport, MtuTerm, OutboundSaSpec, OuterPath, PacketShape, PathMtuPolicy, PathMtuSource, PolicyAction,
    PolicyId, PolicySpec, Protection, SaSpec, WorkerId,
};
use espdp_core::{InterfaceId, Overhead, Term, tcp_mss};
use tunnels::{KnownFrom, Link, LongestMatch, NetworkState, PathToPeer, RouteKey, RouteTarget};

use super::devices::DeviceSource;
use crate::DataplaneSettings;

/// All that the daemon set and that shows in the kernel.
#[derive(Debug)]
pub(crate) struct Book {
    /// How the kernel finds the routes.
    pub(crate) longest_match: LongestMatch,
    /// Interfaces whose devices somebody deleted and that are not made again yet.
    pub(crate) lost: BTreeSet<InterfaceId>,
    pub(crate) interfaces: BTreeMap<InterfaceName, Interface>,
    pub(crate) policies: BTreeMap<PolicyId, Policy>,
    pub(crate) outbound: BTreeMap<(PolicyId, EspSpi), Outbound>,
    /// The paths to the peers.
    paths: BTreeMap<IpAddr, PathToPeer>,
    /// What the host's own network stack is to do, as soon as we are told.
    pub(crate) host: Option<HostSpec>,
    /// Rules and blackholes of a predecessor, which stay until then.
    pub(crate) inherited: NetworkState,
    /// What the paths carry, in octets, of packets that are routed as those of any program.
    routed_mtus: BTreeMap<IpAddr, u32>,
}

/// An interface.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) spec: InterfaceSpec,
    pub(crate) id: InterfaceId,
    /// The MTU it has now, in octets.
    pub(crate) mtu: u32,
}

impl Interface {
    pub(crate) fn new(spec: InterfaceSpec, id: InterfaceId) -> Self {
        let mtu = fixed_mtu(&spec).unwrap_or(MTU_WITHOUT_SA);
        Self { spec, id, mtu }
    }

    /// Whether packets that any worker decrypts get to its inside.
    pub(crate) fn is_served_by_all(&self) -> bool {
        self.spec.kind == InterfaceKind::Ipsec
    }

    /// Whether they get there as well as from the first worker.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_served_by_all() && self.spec.host_link.is_none()
    }

    /// Takes over what the daemon changed. An automatic MTU stays until it is computed again.
    pub(crate) fn change(&mut self, spec: InterfaceSpec) {
        self.mtu = fixed_mtu(&spec).unwrap_or(self.mtu);
        self.spec = spec;
    }
}

/// A policy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) spec: PolicySpec,
    /// The preferred sources of those of its routes that have one.
    pub(crate) sources: BTreeMap<IpPrefix, IpAddr>,
    /// The worker that got its latest inbound SA.
    pub(crate) worker: WorkerId,
}

/// What an outbound SA means for the MTU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outbound {
    /// The worker that has it.
    pub(crate) worker: WorkerId,
    pub(crate) protocol: IpsecProtocol,
    pub(crate) path: OuterPath,
    pub(crate) algorithms: EspAlgorithms,
    pub(crate) mode: Mode,
    pub(crate) shape: PacketShape,
    /// What the core was told that the path carries.
    told: Option<u32>,
}

impl Outbound {
    pub(crate) fn new(spec: &OutboundSaSpec, worker: WorkerId) -> Self {
        let SaSpec { protocol, path, algorithms, mode, .. } = spec.sa;
        Self { worker, protocol, path, algorithms, mode, shape: spec.shape, told: None }
    }

    /// Takes over another path, of which nothing is known yet.
    pub(crate) fn move_to(&mut self, path: OuterPath) {
        (self.path, self.told) = (path, None);
    }

    /// What stands around an inner packet.
    fn overhead(&self, kind: InterfaceKind) -> Overhead {
        let outer_is_ipv6 = self.path.remote.is_ipv6();
        let overhead = match self.protocol {
            IpsecProtocol::Esp => Overhead::new(self.algorithms, self.mode, self.path.encapsulation, outer_is_ipv6),
            IpsecProtocol::Ah => Overhead::authentication_header(self.algorithms, self.mode, outer_is_ipv6),
        };
        overhead.with_tunnel(kind, self.mode, outer_is_ipv6)
    }

    /// The longest inner packet when the path carries `path_mtu` octets.
    fn inner_mtu(&self, path_mtu: u32, kind: InterfaceKind) -> u32 {
        octets(self.overhead(kind).inner_mtu(usize::try_from(path_mtu).unwrap_or(usize::MAX)))
    }

    /// What the SA believes that its path carries, and why (R4301-6.1.1-1): the kernel learns from ICMP messages that nobody
    /// signs, so an SA may ignore them, and none makes it believe in less than every path carries.
    fn believed(&self, path: &PathToPeer) -> (u32, PathMtuSource) {
        let least = if self.path.remote.is_ipv6() { SMALLEST_IPV6_MTU } else { SMALLEST_IPV4_MTU };
        match (self.shape.path_mtu, path.known_from) {
            (PathMtuPolicy::Fixed(mtu), _) => (u32::from(mtu), PathMtuSource::Configuration),
            (PathMtuPolicy::Learn | PathMtuPolicy::Ignore, KnownFrom::Link) => (path.mtu, PathMtuSource::Link),
            (PathMtuPolicy::Learn | PathMtuPolicy::Ignore, KnownFrom::Route) => (path.mtu, PathMtuSource::Route),
            (PathMtuPolicy::Ignore, KnownFrom::Message) => (path.link_mtu, PathMtuSource::Link),
            (PathMtuPolicy::Learn, KnownFrom::Message) if path.mtu < least => (least, PathMtuSource::Bound),
            (PathMtuPolicy::Learn, KnownFrom::Message) => (path.mtu, PathMtuSource::Message),
        }
    }
}

impl Book {
    /// An empty book.
    pub(crate) fn new(settings: &DataplaneSettings) -> Self {
        let DataplaneSettings { table, rule_priority: priority, mark, .. } = *settings;
        Self {
            longest_match: LongestMatch { table, priority, mark },
            lost: BTreeSet::new(),
            interfaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            outbound: BTreeMap::new(),
            host: None,
            inherited: NetworkState::default(),
            paths: BTreeMap::new(),
            routed_mtus: BTreeMap::new(),
        }
    }

    /// The namespaces that insides of interfaces are in.
    pub(crate) fn namespaces(&self) -> BTreeSet<&str> {
        self.interfaces.values().filter_map(|own| own.spec.netns.as_deref()).collect()
    }

    /// What the kernel should have in the namespace `netns`. Routes are in its main table: the packets that carry the tunnels
    /// are not there, so nothing has to be kept apart.
    pub(crate) fn desired_in(&self, netns: &str) -> NetworkState {
        let (links, routes) = self.links_and_routes(Some(netns), MAIN_TABLE);
        NetworkState { links, routes, ..NetworkState::default() }
    }

    /// The links of a namespace, of ours for `None`, and the routes into them. Where policies have the same route, the oldest one
    /// gets it.
    fn links_and_routes(&self, netns: Option<&str>, table: u32) -> (Links, Routes) {
        // Somebody else may have a link of the name of a lost one: nothing must lead there.
        let is_here = |own: &Interface| own.spec.netns.as_deref() == netns && !self.lost.contains(&own.id);
        let link = |own: &Interface| Link { mtu: own.mtu, addresses: own.spec.addresses.iter().copied().collect() };
        let made = self.interfaces.iter().filter(|(_, own)| is_here(own) && DeviceSource::of(&own.spec).is_made());
        let mut links: Links = made.map(|(name, own)| (name.clone(), link(own))).collect();
        let mut routes = BTreeMap::new();
        for Policy { spec, sources, .. } in self.policies.values() {
            if !self.interfaces.get(&spec.interface).is_none_or(is_here) {
                continue;
            }
            if let Some(link) = links.get_mut(&spec.interface) {
                link.addresses.extend(spec.addresses.iter().filter_map(|address| host_prefix(*address)));
            }
            for route in &spec.routes {
                let target = || RouteTarget { interface: spec.interface.clone(), source: sources.get(route).copied() };
                routes.entry(RouteKey::new(table, *route)).or_insert_with(target);
            }
        }
        (links, routes)
    }

    /// What the kernel should have in our own namespace.
    pub(crate) fn desired(&self) -> NetworkState {
        let (links, routes) = self.links_and_routes(None, self.longest_match.table);
        let destinations = routes.keys().map(|key| key.destination);
        let NetworkState { rules, blackholes, .. } = self.closed(destinations);
        NetworkState { links, routes, rules, blackholes, ..NetworkState::default() }
    }

    /// Whether packets of a policy come from our own namespace.
    pub(crate) fn is_here(&self, policy: &PolicySpec) -> bool {
        self.interfaces.get(&policy.interface).is_none_or(|own| own.spec.netns.is_none())
    }

    /// What stays when the dataplane is stopped.
    pub(crate) fn kept(&self) -> NetworkState {
        match &self.host {
            Some(host) if host.guard != GuardMode::Always => NetworkState::default(),
            Some(_) | None => self.closed([]),
        }
    }

    /// The rules for routes to `destinations`, and blackholes for what policies cover, so that nothing goes another way while
    /// its route is not there.
    fn closed(&self, destinations: impl IntoIterator<Item = IpPrefix>) -> NetworkState {
        let Some(host) = &self.host else {
            let mut rules = self.longest_match.rules(destinations, []);
            rules.extend(&self.inherited.rules);
            return NetworkState { rules, blackholes: self.inherited.blackholes.clone(), ..NetworkState::default() };
        };
        let set = self.policies.values().map(|policy| &policy.spec);
        let is_closed = |policy: &&PolicySpec| policy.action != PolicyAction::Bypass && self.is_here(policy);
        let guarded = host.guarded.iter().chain(set).filter(is_closed);
        let dropped: BTreeSet<IpPrefix> = match host.guard {
            GuardMode::Off => BTreeSet::new(),
            GuardMode::WhileRunning | GuardMode::Always => guarded.flat_map(|policy| &policy.routes).copied().collect(),
        };
        let blackholes = dropped.iter().map(|destination| self.longest_match.blackhole(*destination)).collect();
        let rules = self.longest_match.rules(destinations, dropped.iter().copied());
        NetworkState { rules, blackholes, ..NetworkState::default() }
    }

    /// The peers that we send to.
    pub(crate) fn peers(&self) -> BTreeSet<IpAddr> {
        self.outbound.values().map(|sa| sa.path.remote).collect()
    }

    /// Notes what is known about the path to a peer; used by the next [`Self::set_mtus`].
    pub(crate) fn set_path(&mut self, peer: IpAddr, path: PathToPeer) {
        self.paths.insert(peer, path);
    }

    /// The peers of a policy's outbound SAs that other workers than `here` have.
    pub(crate) fn peers_elsewhere(&self, policy: PolicyId, here: WorkerId) -> Vec<IpAddr> {
        let elsewhere = self.outbound.iter().filter(|((other, _), sa)| *other == policy && sa.worker != here);
        elsewhere.map(|(_, sa)| sa.path.remote).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The SAs whose path their worker does not know yet, or as another one, with what it carries. From now on it knows.
    pub(crate) fn paths_to_tell(&mut self) -> BTreeMap<WorkerId, Vec<(PolicyId, EspSpi, usize)>> {
        let mut news = BTreeMap::<_, Vec<_>>::new();
        for ((policy, spi), sa) in &mut self.outbound {
            let Some((mtu, _)) = self.paths.get(&sa.path.remote).map(|path| sa.believed(path)) else { continue };
            if sa.told.replace(mtu) != Some(mtu) {
                let path = (*policy, *spi, usize::try_from(mtu).unwrap_or(usize::MAX));
                news.entry(sa.worker).or_default().push(path);
            }
        }
        news
    }

    /// Where the octets of the paths go.
    pub(crate) fn mtu_reports(&self) -> Vec<MtuReport> {
        let report = |((policy, spi), sa): (&(PolicyId, EspSpi), &Outbound)| {
            let own = self.interfaces.get(&self.policies.get(policy)?.spec.interface)?;
            let (path_mtu, known_from) = sa.believed(self.paths.get(&sa.path.remote)?);
            let path_octets = usize::try_from(path_mtu).ok()?;
            let overhead = sa.overhead(own.spec.kind);
            let inner = overhead.inner_mtu(path_octets);
            let term = |term: Term| MtuTerm { name: term.name.to_owned(), octets: octets(term.octets) };
            Some(MtuReport {
                interface: own.spec.name.clone(),
                interface_mtu: own.mtu,
                interface_is_fixed: own.spec.mtu != Mtu::Automatic,
                policy: *policy,
                spi: *spi,
                path: sa.path,
                path_mtu,
                known_from,
                terms: overhead.terms(path_octets).into_iter().map(term).collect(),
                inner_mtu: octets(inner),
                mss_ipv4: octets(tcp_mss(inner, false)),
                mss_ipv6: octets(tcp_mss(inner, true)),
            })
        };
        self.outbound.iter().filter_map(report).collect()
    }

    /// The other ends of tunnels in clear, whose packets are routed as any other.
    pub(crate) fn routed_peers(&self) -> BTreeSet<IpAddr> {
        self.interfaces.values().flat_map(routed_peers_of).collect()
    }

    /// Notes what the path of a tunnel in clear carries; used by the next [`Self::set_mtus`].
    pub(crate) fn set_routed_mtu(&mut self, peer: IpAddr, mtu: u32) {
        self.routed_mtus.insert(peer, mtu);
    }

    /// Sets the automatic MTUs: the smallest that any SA of the interface needs. Without SAs, or without any path that is
    /// known, an interface keeps the MTU it has.
    pub(crate) fn set_mtus(&mut self) {
        let peers = self.peers();
        self.paths.retain(|peer, _| peers.contains(peer));
        let peers = self.routed_peers();
        self.routed_mtus.retain(|peer, _| peers.contains(peer));
        let mut mtus = BTreeMap::new();
        for own in self.interfaces.values().filter(|own| own.spec.mtu == Mtu::Automatic) {
            let of_sa = |sa: &Outbound| {
                let (path_mtu, _) = sa.believed(self.paths.get(&sa.path.remote)?);
                Some(sa.inner_mtu(path_mtu, own.spec.kind))
            };
            let of_path = |peer| Some(inside_of(*self.routed_mtus.get(&peer)?, own.spec.kind, peer));
            let routed = routed_peers_of(own).into_iter().filter_map(of_path);
            if let Some(mtu) = self.outbound_of(&own.spec.name).filter_map(of_sa).chain(routed).min() {
                mtus.insert(own.spec.name.clone(), mtu.clamp(self.smallest_mtu(own), LARGEST_MTU));
            }
        }
        for (name, mtu) in mtus {
            if let Some(own) = self.interfaces.get_mut(&name) {
                own.mtu = mtu;
            }
        }
    }

    fn outbound_of(&self, name: &InterfaceName) -> impl Iterator<Item = &Outbound> {
        let here = move |id: &PolicyId| self.policies.get(id).is_some_and(|policy| policy.spec.interface == *name);
        self.outbound.iter().filter(move |((policy, _), _)| here(policy)).map(|(_, sa)| sa)
    }

    /// Linux takes IPv6 away from links with less than 1280 octets (RFC 8200 §5), so IPv6 inside sets the limit there.
    fn smallest_mtu(&self, own: &Interface) -> u32 {
        let policies = self.policies.values().filter(|policy| policy.spec.interface == own.spec.name);
        let inside = policies.flat_map(|policy| &policy.spec.remote).any(|selector| !selector.addresses.is_ipv4());
        let has_ipv6 = inside || own.spec.addresses.iter().any(|prefix| prefix.address().is_ipv6());
        if has_ipv6 { SMALLEST_IPV6_MTU } else { SMALLEST_IPV4_MTU }
    }
}

/// The other ends of an interface's tunnel, if it is in clear.
fn routed_peers_of(own: &Interface) -> Vec<IpAddr> {
    let InterfaceSpec { ends, protection, next_hops, .. } = &own.spec;
    match (ends, protection) {
        (Some(ends), Protection::None) => {
            ends.remote.into_iter().chain(next_hops.iter().map(|hop| hop.remote)).collect()
        }
        _ => Vec::new(),
    }
}

/// What a tunnel of this kind leaves of what its path carries.
fn inside_of(path_mtu: u32, kind: InterfaceKind, peer: IpAddr) -> u32 {
    octets(Overhead::of_tunnel(kind, peer.is_ipv6()).inner_mtu(usize::try_from(path_mtu).unwrap_or(usize::MAX)))
}

/// `RT_TABLE_MAIN` (linux/rtnetlink.h).
const MAIN_TABLE: u32 = 254;
type Links = BTreeMap<InterfaceName, Link>;
type Routes = BTreeMap<RouteKey, RouteTarget>;

/// The MTU of an automatic interface before its first SA: what any cipher leaves of 1500 octets.
const MTU_WITHOUT_SA: u32 = 1400;
/// RFC 8200 §5.
const SMALLEST_IPV6_MTU: u32 = 1280;
/// RFC 791: every host takes datagrams of 576 octets.
const SMALLEST_IPV4_MTU: u32 = 576;
/// The longest IP packet; loopback offers more.
const LARGEST_MTU: u32 = 65_535;

fn octets(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn fixed_mtu(spec: &InterfaceSpec) -> Option<u32> {
    match spec.mtu {
        Mtu::Automatic => None,
        Mtu::Fixed(mtu) => Some(u32::from(mtu)),
    }
}

/// The prefix of one address alone.
fn host_prefix(address: IpAddr) -> Option<IpPrefix> {
    IpPrefix::new(address, if address.is_ipv4() { 32 } else { 128 }).ok()
}

#[cfg(test)]
mod tests {
    use espdp_api::{AddressRange, Encapsulation, EspCipher, EspIntegrity, TrafficSelector};

    use super::*;

    const PEER: &str = "192.0.2.2";

    fn name(text: &str) -> InterfaceName {
        InterfaceName::new(text).unwrap()
    }

    fn spi(value: u32) -> EspSpi {
        EspSpi::try_from(value).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn interface(text: &str, mtu: Mtu) -> Interface {
        let spec = InterfaceSpec { mtu, ..InterfaceSpec::new(name(text), InterfaceKind::Ipsec) };
        Interface::new(spec, InterfaceId(0))
    }

    fn policy(id: u64, interface: &str, routes: &[&str]) -> Policy {
        let remote = TrafficSelector::any_protocol(AddressRange::single(address("10.2.0.1")));
        let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
        let spec = PolicySpec { routes, ..PolicySpec::protect(PolicyId(id), name(interface), vec![], vec![remote]) };
        Policy { spec, sources: BTreeMap::new(), worker: WorkerId::FIRST }
    }

    fn outbound(encapsulation: Encapsulation) -> Outbound {
        let path = OuterPath { local: address("192.0.2.1"), remote: address(PEER), encapsulation };
        let algorithms = EspAlgorithms {
            cipher: EspCipher::AesGcm16 { key_bits: 256 },
            integrity: EspIntegrity::None,
            extended_sequence_numbers: true,
        };
        Outbound {
            worker: WorkerId::FIRST,
            protocol: IpsecProtocol::Esp,
            path,
            algorithms,
            mode: Mode::Tunnel,
            shape: PacketShape::default(),
            told: None,
        }
    }

    /// A path whose first link carries so many octets.
    fn link(mtu: u32) -> PathToPeer {
        PathToPeer { source: address("192.0.2.1"), mtu, known_from: KnownFrom::Link, link_mtu: mtu }
    }

    fn book() -> Book {
        let mut book = Book::new(&DataplaneSettings::default());
        book.interfaces.insert(name("ipsec0"), interface("ipsec0", Mtu::Automatic));
        book.policies.insert(PolicyId(1), policy(1, "ipsec0", &["10.2.0.0/16"]));
        book
    }

    fn mtu(book: &Book) -> u32 {
        book.interfaces[&name("ipsec0")].mtu
    }

    #[test]
    fn the_smallest_sa_sets_the_mtu_and_its_removal_lifts_it() {
        let mut book = book();
        book.outbound.insert((PolicyId(1), spi(256)), outbound(Encapsulation::Esp));
        book.set_path(address(PEER), link(1500));
        book.set_mtus();
        // 1500 - 20 (IPv4) - 8 (SPI, sequence) - 8 (IV) - 16 (ICV) = 1448, of which 2 are the trailer.
        assert_eq!(mtu(&book), 1446);
        let udp = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
        book.outbound.insert((PolicyId(1), spi(257)), outbound(udp));
        book.set_path(address(PEER), link(1500));
        book.set_mtus();
        assert_eq!(mtu(&book), 1438);
        book.outbound.remove(&(PolicyId(1), spi(257)));
        book.set_path(address(PEER), link(1500));
        book.set_mtus();
        assert_eq!(mtu(&book), 1446);
        book.outbound.clear();
        book.set_path(address(PEER), link(1500));
        book.set_mtus();
        assert_eq!(mtu(&book), 1446);
    }

    /// R4301-8.2.2-1: the kernel forgets what it learned of a path, and what it says then counts.
    #[test]
    fn a_path_that_is_wide_again_widens_the_interface() {
        let mut book = book();
        book.outbound.insert((PolicyId(1), spi(256)), outbound(Encapsulation::Esp));
        for (path_mtu, inner) in [(1500, 1446), (1300, 1246), (1500, 1446)] {
            book.set_path(address(PEER), link(path_mtu));
            book.set_mtus();
            assert_eq!(mtu(&book), inner);
        }
    }

    #[test]
    fn a_fixed_mtu_is_left_alone() {
        let mut book = book();
        book.interfaces.insert(name("ipsec0"), interface("ipsec0", Mtu::Fixed(1350)));
        book.outbound.insert((PolicyId(1), spi(256)), outbound(Encapsulation::Esp));
        book.set_path(address(PEER), link(1500));
        book.set_mtus();
        assert_eq!(mtu(&book), 1350);
    }

    #[test]
    fn transport_mode_keeps_its_header_outside_unless_that_is_of_ip_in_ip() {
        let mut book = book();
        let sa = Outbound { mode: Mode::Transport, ..outbound(Encapsulation::Esp) };
        book.outbound.insert((PolicyId(1), spi(256)), sa);
        book.set_path(address(PEER), link(1500));
        book.set_mtus();
        assert_eq!(mtu(&book), 1466);
        book.interfaces.get_mut(&name("ipsec0")).unwrap().spec.kind = InterfaceKind::Ipip;
        book.set_mtus();
        assert_eq!(mtu(&book), 1446);
    }

    #[test]
    fn a_tunnels_headers_are_taken_off_protected_and_plain() {
        let vxlan = InterfaceKind::Vxlan(espdp_api::Vxlan { vni: 1.try_into().unwrap(), port: 4789 });
        let mut book = book();
        let own = book.interfaces.get_mut(&name("ipsec0")).unwrap();
        own.spec.kind = vxlan;
        own.spec.ends = Some(espdp_api::TunnelEnds::new(address("192.0.2.1"), Some(address(PEER))));
        let sa = Outbound { mode: Mode::Transport, ..outbound(Encapsulation::Esp) };
        book.outbound.insert((PolicyId(1), spi(256)), sa);
        book.set_path(address(PEER), link(1500));
        book.set_mtus();
        assert_eq!(mtu(&book), 1466 - 20 - 8 - 8 - 14);
        assert!(book.routed_peers().is_empty());
        book.outbound.clear();
        book.interfaces.get_mut(&name("ipsec0")).unwrap().spec.protection = Protection::None;
        assert_eq!(book.routed_peers().into_iter().collect::<Vec<_>>(), [address(PEER)]);
        book.set_routed_mtu(address(PEER), 1400);
        book.set_mtus();
        assert_eq!(mtu(&book), 1400 - 50);
    }

    #[test]
    fn a_narrow_path_does_not_take_ipv6_from_the_link() {
        let mut book = book();
        book.outbound.insert((PolicyId(1), spi(256)), outbound(Encapsulation::Esp));
        book.set_path(address(PEER), link(1000));
        book.set_mtus();
        assert_eq!(mtu(&book), 946);
        let own = book.interfaces.get_mut(&name("ipsec0")).unwrap();
        own.spec.addresses.push("fec3::1/64".parse().unwrap());
        book.set_path(address(PEER), link(1000));
        book.set_mtus();
        assert_eq!(mtu(&book), 1280);
    }

    #[test]
    fn virtual_addresses_are_on_the_link_as_long_as_a_policy_brings_them() {
        let mut book = book();
        let on_link = |book: &Book| -> Vec<String> {
            book.desired().links[&name("ipsec0")].addresses.iter().map(ToString::to_string).collect()
        };
        let before = on_link(&book);
        for id in [2, 3] {
            let mut policy = policy(id, "ipsec0", &[]);
            policy.spec.addresses = vec![address("10.3.0.1"), address("fec3::1")];
            book.policies.insert(PolicyId(id), policy);
        }
        book.policies.remove(&PolicyId(2));
        assert_eq!(on_link(&book), [&before[..], &["10.3.0.1/32".to_owned(), "fec3::1/128".to_owned()]].concat());
        book.policies.remove(&PolicyId(3));
        assert_eq!(on_link(&book), before);
    }

    #[test]
    fn a_route_of_two_policies_stays_until_both_are_gone() {
        let mut book = book();
        book.policies.insert(PolicyId(2), policy(2, "ipsec1", &["10.2.0.0/16"]));
        let key = RouteKey::new(4301, "10.2.0.0/16".parse().unwrap());
        assert_eq!(book.desired().routes[&key].interface, name("ipsec0"));
        book.policies.remove(&PolicyId(1));
        assert_eq!(book.desired().routes[&key].interface, name("ipsec1"));
        book.policies.remove(&PolicyId(2));
        assert!(book.desired().routes.is_empty());
    }

    #[test]
    fn rules_come_with_the_first_route_of_a_length_and_go_with_the_last() {
        let mut book = book();
        let rules = |book: &Book| book.desired().rules.iter().map(|rule| rule.longer_than).collect::<Vec<_>>();
        assert_eq!(rules(&book), [Some(16), Some(15)]);
        book.policies.insert(PolicyId(2), policy(2, "ipsec0", &["10.3.0.0/16", "0.0.0.0/0"]));
        assert_eq!(rules(&book), [Some(16), Some(15), Some(0), None]);
        book.policies.remove(&PolicyId(1));
        assert_eq!(rules(&book), [Some(16), Some(15), Some(0), None]);
        book.policies.remove(&PolicyId(2));
        assert!(rules(&book).is_empty());
    }

    /// R4301-6.1.1-1.
    #[test]
    fn forged_messages_about_the_path_are_bounded_or_ignored() {
        let learned = |mtu| PathToPeer { mtu, known_from: KnownFrom::Message, ..link(1500) };
        let believed = |policy, path: &PathToPeer| {
            let shape = PacketShape { path_mtu: policy, ..PacketShape::default() };
            Outbound { shape, ..outbound(Encapsulation::Esp) }.believed(path)
        };
        assert_eq!(believed(PathMtuPolicy::Learn, &learned(68)), (576, PathMtuSource::Bound));
        assert_eq!(believed(PathMtuPolicy::Learn, &learned(1300)), (1300, PathMtuSource::Message));
        assert_eq!(believed(PathMtuPolicy::Ignore, &learned(68)), (1500, PathMtuSource::Link));
        assert_eq!(believed(PathMtuPolicy::Fixed(1400), &learned(68)), (1400, PathMtuSource::Configuration));
        let route = PathToPeer { mtu: 400, known_from: KnownFrom::Route, ..link(1500) };
        assert_eq!(believed(PathMtuPolicy::Ignore, &route), (400, PathMtuSource::Route), "our own word counts");
    }

    #[test]
    fn the_core_is_told_of_a_path_once_and_again_when_it_changes() {
        let mut book = book();
        book.outbound.insert((PolicyId(1), spi(256)), outbound(Encapsulation::Esp));
        let told = |mtu| BTreeMap::from([(WorkerId::FIRST, vec![(PolicyId(1), spi(256), mtu)])]);
        assert!(book.paths_to_tell().is_empty());
        book.set_path(address(PEER), link(1500));
        assert_eq!(book.paths_to_tell(), told(1500));
        assert!(book.paths_to_tell().is_empty());
        book.set_path(address(PEER), link(1400));
        assert_eq!(book.paths_to_tell(), told(1400));
        let sa = book.outbound.get_mut(&(PolicyId(1), spi(256))).unwrap();
        sa.move_to(OuterPath { local: address("192.0.2.9"), ..sa.path });
        assert_eq!(book.paths_to_tell(), told(1400));
    }

    #[test]
    fn the_report_adds_up_to_the_path() {
        let mut book = book();
        book.outbound.insert((PolicyId(1), spi(256)), outbound(Encapsulation::Esp));
        assert!(book.mtu_reports().is_empty(), "nothing is known of the path");
        book.set_path(address(PEER), link(1500));
        book.set_mtus();
        let [report] = <[MtuReport; 1]>::try_from(book.mtu_reports()).unwrap();
        let around: u32 = report.terms.iter().map(|term| term.octets).sum();
        assert_eq!((report.path_mtu, around + report.inner_mtu), (1500, 1500));
        assert_eq!(
            (report.interface_mtu, report.inner_mtu, report.mss_ipv4, report.mss_ipv6),
            (1446, 1446, 1406, 1386)
        );
    }

    fn host(guard: GuardMode, guarded: Vec<Policy>) -> HostSpec {
        HostSpec { guard, guarded: guarded.into_iter().map(|policy| policy.spec).collect(), ..HostSpec::default() }
    }

    #[test]
    fn blackholes_do_not_depend_on_what_is_up() {
        let mut book = book();
        let configured = host(GuardMode::Always, vec![policy(1, "ipsec0", &["10.2.0.0/16", "fd02::/64"])]);
        book.host = Some(configured);
        let up = book.desired();
        book.policies.clear();
        let down = book.desired();
        assert_eq!(up.blackholes, down.blackholes);
        assert_eq!(down.blackholes.iter().map(|key| key.table).collect::<Vec<_>>(), [4318, 4366]);
        assert_eq!(down.rules.len(), 6, "three for each of the two lengths");
        assert_eq!(book.kept().blackholes, down.blackholes);
        book.host = Some(host(GuardMode::WhileRunning, vec![policy(1, "ipsec0", &["10.2.0.0/16"])]));
        assert_eq!(book.desired().blackholes.len(), 1);
        assert_eq!(book.kept(), NetworkState::default());
        book.host = Some(HostSpec::default());
        assert_eq!(book.desired(), NetworkState { links: book.desired().links, ..NetworkState::default() });
    }

    #[test]
    fn what_a_predecessor_left_stays_until_we_are_told() {
        let mut book = book();
        book.policies.clear();
        book.inherited.rules = book.longest_match.rules([], ["10.9.0.0/16".parse().unwrap()]);
        book.inherited.blackholes.insert(book.longest_match.blackhole("10.9.0.0/16".parse().unwrap()));
        assert_eq!(book.desired().rules, book.inherited.rules);
        assert_eq!(book.kept(), book.inherited);
        book.host = Some(HostSpec::default());
        assert!(book.desired().rules.is_empty() && book.kept().blackholes.is_empty());
    }
}
