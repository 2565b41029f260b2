//! The guard: rules of the host's packet filter that keep what policies cover from passing the tunnels by.
//!
//! Routes lead packets into a tunnel interface, and the dataplane protects or drops them there. When the routes or the interface
//! are not there (the daemon was killed, an administrator deleted the link), packets would leave in clear. And nothing but the
//! guard sees packets that come in clear and claim to be from the other end of a tunnel. So our table has, for each policy:
//!
//! * after routing, before translation: what the selectors cover and does not leave through a tunnel interface is dropped, unless
//!   it carries the mark of the dataplane's own packets, which protected it, or let it pass by a policy;
//! * for this host and through it: what the selectors cover, turned round, and does not come from a tunnel interface is dropped.
//!
//! Policies that let packets pass in clear are exempt, in the order of the policies of their interface. Link-local traffic and
//! the resolution of neighbours never count: no router passes them on. IKE, ESP and AH for this host pass, since they are how
//! protected packets arrive. The rules follow from the configuration, so a tunnel that comes up or goes down changes nothing.

mod flows;
mod layers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use espdp_api::{AddressRange, InterfaceName, PolicyAction, PolicyDirections, PolicySpec, TrafficSelector};

use crate::Family;
use crate::nft::{
    Chain, ChainKind, Element, Field, Hook, HookPoint, KeyType, Match, Rule, Set, Statement, Table, Value,
};
use crate::state::range;
pub(crate) use flows::beyond;
use flows::{Flow, Ports, exempt, guarded};
use layers::layers;

/// What the guard has to know beside the policies.
#[derive(Clone, Copy, Debug)]
pub struct GuardContext {
    /// The mark of packets that the dataplane sends itself.
    pub mark: u32,
    /// The ports of IKE, and of IKE and ESP in UDP.
    pub ike_ports: [u16; 2],
}

/// Adds the guard of `policies` to a table. Without anything to guard it adds nothing.
pub fn guard(table: &mut Table, policies: &[&PolicySpec], context: GuardContext) {
    let sections = sections(policies);
    let mut rules = Rules::default();
    for section in &sections {
        rules.add(section);
    }
    if rules.chains.iter().all(|chain| chain.rules.is_empty()) {
        return;
    }
    let tunnels: BTreeSet<&InterfaceName> = policies.iter().map(|policy| &policy.interface).collect();
    let trusted: Vec<Value> = std::iter::once(LOOPBACK)
        .chain(tunnels.iter().map(|name| name.as_str()))
        .map(|name| Value::Name(name.to_owned()))
        .collect();
    let jumps = |way: Way| -> Vec<Rule> {
        let ours = rules.chains.iter().filter(|chain| chain.name.starts_with(way.prefix()) && !chain.rules.is_empty());
        ours.map(|chain| Rule::new([], [Statement::Jump(chain.name.clone())])).collect()
    };
    let accept = |found: Match| Rule::new([found], [Statement::Accept]);
    let outbound = [accept(Match::any(Field::Mark, [Value::Number(context.mark)]))]
        .into_iter()
        .chain([accept(Match::any(Field::OutInterface, trusted.clone()))])
        .chain(link_local(Field::Destination))
        .chain(jumps(Way::Outbound));
    let from_tunnels = || [accept(Match::any(Field::InInterface, trusted.clone()))];
    let input = from_tunnels()
        .into_iter()
        .chain(link_local(Field::Source))
        .chain(protected_arrivals(context.ike_ports))
        .chain(jumps(Way::Inbound));
    let forward = from_tunnels().into_iter().chain(jumps(Way::Inbound));
    let hooked = [
        hooked("guard_out", HookPoint::Postrouting, BEFORE_TRANSLATION, outbound.collect()),
        hooked("guard_in", HookPoint::Input, BEFORE_FILTERS, input.collect()),
        hooked("guard_through", HookPoint::Forward, BEFORE_FILTERS, forward.collect()),
    ];
    table.sets.extend(rules.sets);
    table.chains.extend(rules.chains.into_iter().filter(|chain| !chain.rules.is_empty()));
    table.chains.extend(hooked);
}

/// Whether packets of `policy` are guarded already on behalf of `others`, so that it adds nothing.
#[must_use]
pub fn is_covered(policy: &PolicySpec, others: &[PolicySpec]) -> bool {
    let covers = |theirs: &[TrafficSelector], ours: &[TrafficSelector]| {
        ours.iter().all(|selector| theirs.iter().any(|other| other.covers(selector)))
    };
    let is_same = |other: &PolicySpec| PolicySpec { id: policy.id, ..other.clone() } == *policy;
    others.iter().any(|other| {
        is_same(other)
            || other.interface == policy.interface
                && policy.action != PolicyAction::Bypass
                && other.action != PolicyAction::Bypass
                && other.directions == policy.directions
                && policy.routes.iter().all(|route| other.routes.contains(route))
                && covers(&other.local, &policy.local)
                && covers(&other.remote, &policy.remote)
    })
}

/// Policies that are looked up one after the other, and where the routes into the interface of each lead.
#[derive(Default)]
struct Section<'a> {
    policies: Vec<&'a PolicySpec>,
    routes: BTreeMap<&'a InterfaceName, Vec<AddressRange>>,
}

/// One section for all interfaces without exemptions, where the order means nothing, and one for each of the others.
fn sections<'a>(policies: &[&'a PolicySpec]) -> Vec<Section<'a>> {
    let mut by_interface: BTreeMap<&InterfaceName, Vec<&PolicySpec>> = BTreeMap::new();
    for policy in policies {
        by_interface.entry(&policy.interface).or_default().push(policy);
    }
    let mut common = Section::default();
    let mut sections = Vec::new();
    for (name, mut policies) in by_interface {
        let routes: BTreeSet<AddressRange> =
            policies.iter().flat_map(|policy| &policy.routes).map(|route| range(*route)).collect();
        let routes: Vec<AddressRange> = routes.into_iter().collect();
        if policies.iter().all(|policy| policy.action != PolicyAction::Bypass) {
            common.policies.extend(policies);
            common.routes.insert(name, routes);
        } else {
            policies.sort_by_key(|policy| (policy.priority, breadth(policy), policy.id));
            sections.push(Section { policies, routes: BTreeMap::from([(name, routes)]) });
        }
    }
    sections.insert(0, common);
    sections
}

/// As the dataplane orders policies of the same priority: the number of addresses less one in parts of the family, the number of
/// ports less one, and whether any protocol will do; the peer's side counts first.
fn breadth(policy: &PolicySpec) -> [(u128, u16, bool); 2] {
    let of = |selector: &TrafficSelector| {
        let addresses = match (selector.addresses.start(), selector.addresses.end()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits().saturating_sub(first.to_bits())) << 96,
            (first, last) => bits(last).saturating_sub(bits(first)),
        };
        (addresses, selector.ports.end.saturating_sub(selector.ports.start), selector.protocol == 0)
    };
    [&policy.remote, &policy.local].map(|selectors| selectors.iter().map(of).max().unwrap_or_default())
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The sets and chains of all sections.
#[derive(Default)]
struct Rules {
    sets: Vec<Set>,
    chains: Vec<Chain>,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Outbound,
    Inbound,
}

impl Way {
    fn prefix(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }

    fn is_of(self, directions: PolicyDirections) -> bool {
        match directions {
            PolicyDirections::Both => true,
            PolicyDirections::Outbound => self == Self::Outbound,
            PolicyDirections::Inbound => self == Self::Inbound,
        }
    }
}

impl Rules {
    /// Policies in a row that mean the same share their sets.
    fn add(&mut self, section: &Section<'_>) {
        let number = self.chains.len() / 2;
        let mut chains = [Way::Outbound, Way::Inbound]
            .map(|way| (way, Chain { name: format!("{}_{number}", way.prefix()), hook: None, rules: Vec::new() }));
        let kind = |policy: &&PolicySpec| (policy.action == PolicyAction::Bypass, policy.directions);
        for run in section.policies.chunk_by(|one, other| kind(one) == kind(other)) {
            let Some((is_exempt, directions)) = run.first().map(kind) else { continue };
            let flows = run.iter().flat_map(|policy| {
                let routes = section.routes.get(&policy.interface).map(Vec::as_slice).unwrap_or_default();
                if is_exempt { exempt(policy, routes) } else { guarded(policy, routes) }
            });
            let end = if is_exempt { Statement::Return } else { Statement::Drop };
            for (kind, flows) in sorted(flows) {
                for layer in layers(&flows) {
                    let set = self.set(kind, &layer);
                    for (way, chain) in &mut chains {
                        if way.is_of(directions) {
                            chain.rules.push(kind.rule(*way, &set, end.clone()));
                        }
                    }
                }
            }
        }
        self.chains.extend(chains.map(|(_, chain)| chain));
    }

    fn set(&mut self, kind: Kind, flows: &[Flow]) -> String {
        let name = format!("{}_{}", kind.name(), self.sets.len());
        self.sets.push(Set { name: name.clone(), key: kind.key(), elements: flows.iter().map(element).collect() });
        name
    }
}

/// Flows that one set can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    family: Family,
    shape: Shape,
}

/// See [`Ports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Any,
    Pair,
    TypeAndCode,
    Hidden,
}

fn sorted(flows: impl Iterator<Item = Flow>) -> BTreeMap<Kind, BTreeSet<Flow>> {
    let mut sorted: BTreeMap<Kind, BTreeSet<Flow>> = BTreeMap::new();
    for flow in flows {
        let shape = match flow.ports {
            Ports::Any => Shape::Any,
            Ports::Pair { .. } => Shape::Pair,
            Ports::TypeAndCode(_) => Shape::TypeAndCode,
            Ports::Hidden => Shape::Hidden,
        };
        let family = Family::from(flow.remote.start());
        sorted.entry(Kind { family, shape }).or_default().insert(flow);
    }
    sorted
}

/// Our side, the peer's side, the protocol, and what else the shape has.
fn element(flow: &Flow) -> Element {
    let port = |(start, end): (u16, u16)| Value::Range(start.into(), end.into());
    let (first, last) = flow.protocol;
    let mut element =
        vec![Value::Addresses(flow.local), Value::Addresses(flow.remote), Value::Range(first.into(), last.into())];
    match flow.ports {
        Ports::Any | Ports::Hidden => {}
        Ports::Pair { local, remote } => element.extend([port(local), port(remote)]),
        Ports::TypeAndCode(both) => element.push(port(both)),
    }
    element
}

impl Kind {
    fn name(self) -> String {
        let shape = match self.shape {
            Shape::Any => "any",
            Shape::Pair => "ports",
            Shape::TypeAndCode => "icmp",
            Shape::Hidden => "fragments",
        };
        format!("{shape}_{}", if self.family == Family::V4 { "ipv4" } else { "ipv6" })
    }

    fn key(self) -> Vec<KeyType> {
        let address = KeyType::Address(self.family);
        let more: &[KeyType] = match self.shape {
            Shape::Any | Shape::Hidden => &[],
            Shape::Pair => &[KeyType::Port, KeyType::Port],
            Shape::TypeAndCode => &[KeyType::Port],
        };
        [address, address, KeyType::Protocol].into_iter().chain(more.iter().copied()).collect()
    }

    /// Sets hold our side first, whichever way the packet goes.
    fn rule(self, way: Way, set: &str, end: Statement) -> Rule {
        let (source, destination) = (Field::Source(self.family), Field::Destination(self.family));
        let [ours, theirs, our_port, their_port] = match way {
            Way::Outbound => [source, destination, Field::SourcePort, Field::DestinationPort],
            Way::Inbound => [destination, source, Field::DestinationPort, Field::SourcePort],
        };
        let more: &[Field] = match self.shape {
            Shape::Any | Shape::Hidden => &[],
            Shape::Pair => &[our_port, their_port],
            Shape::TypeAndCode => &[Field::SourcePort],
        };
        let fields: Vec<Field> = [ours, theirs, Field::Protocol].into_iter().chain(more.iter().copied()).collect();
        let later =
            (self.shape == Shape::Hidden).then(|| Match::none(Field::FragmentOffset(self.family), [Value::Number(0)]));
        let matches: Vec<Match> = later.into_iter().chain([Match::in_set(fields, set)]).collect();
        Rule::new(matches, [Statement::Count, end])
    }
}

/// What no router passes on: link-local addresses, multicast of the link, and the resolution of neighbours (RFC 4861 §7.1: a
/// hop limit of 255).
fn link_local(address: fn(Family) -> Field) -> Vec<Rule> {
    let values = |networks: &[&str]| -> Vec<Value> {
        networks.iter().filter_map(|text| text.parse().ok()).map(|prefix| Value::Addresses(range(prefix))).collect()
    };
    let accept = |matches: Vec<Match>| Rule::new(matches, [Statement::Accept]);
    vec![
        accept(vec![Match::any(
            address(Family::V4),
            values(&["169.254.0.0/16", "224.0.0.0/24", "255.255.255.255/32"]),
        )]),
        accept(vec![Match::any(address(Family::V6), values(&["fe80::/10", "ff02::/16"]))]),
        neighbours(),
    ]
}

/// Lets the resolution of neighbours pass.
pub(crate) fn neighbours() -> Rule {
    Rule::new(
        [
            Match::any(Field::HopLimit, [Value::Number(255)]),
            Match::any(Field::Protocol, [Value::Number(ICMPV6)]),
            Match::any(Field::SourcePort, [Value::Range(ROUTER_SOLICITATION << 8, REDIRECT << 8 | 0xff)]),
        ],
        [Statement::Accept],
    )
}

/// How protected packets and IKE come to this host. Fragments of IPv6 behind the first have no ports, and are put together only
/// behind us (those of IPv4 before). The first one is judged like all packets; without it, nothing becomes of the others.
fn protected_arrivals(ike_ports: [u16; 2]) -> [Rule; 3] {
    let ports = ike_ports.map(|port| Value::Number(port.into()));
    let accept = |matches: Vec<Match>| Rule::new(matches, [Statement::Accept]);
    [
        accept(vec![Match::any(Field::Protocol, [ESP, AH].map(Value::Number))]),
        accept(vec![Match::any(Field::Protocol, [Value::Number(UDP)]), Match::any(Field::DestinationPort, ports)]),
        accept(vec![
            Match::none(Field::FragmentOffset(Family::V6), [Value::Number(0)]),
            Match::any(Field::Protocol, [UDP, ESP, AH].map(Value::Number)),
        ]),
    ]
}

/// A chain of a hook.
pub(crate) fn hooked(name: &str, at: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), hook: Some(Hook { kind: ChainKind::Filter, at, priority }), rules }
}

/// The name of the loopback interface.
const LOOPBACK: &str = "lo";
/// Translation of sources comes at 100: selectors speak of the addresses before it.
const BEFORE_TRANSLATION: i32 = 50;
/// Filters of others come at 0: what is forged must not make an entry in their logs or their tables.
const BEFORE_FILTERS: i32 = -10;
const UDP: u32 = 17;
const ESP: u32 = 50;
const AH: u32 = 51;
const ICMPV6: u32 = 58;
/// The first and the last type of neighbour discovery (RFC 4861 §4).
const ROUTER_SOLICITATION: u32 = 133;
const REDIRECT: u32 = 137;
