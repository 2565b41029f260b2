//! Our table of the host's packet filter: the guard, translation, filters and the marks of packets that are steered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use espdp_api::{
    AddressRange, FilterRule, GuardMode, HostSpec, InterfaceName, NatAction, NatRule, PacketMatch, PolicySpec,
    StaticRoute, SteeringRule,
};

use crate::guard::{guard, hooked, neighbours};
use crate::nft::{Chain, ChainKind, Field, Hook, HookPoint, Match, Rule, Statement, Table, Value};
use crate::state::everything;
use crate::{Family, GuardContext, MarkRule, NetworkState, RouteKey};

/// The name of our table.
pub const TABLE: &str = "charon-rs";

/// The numbers of what steers packets. Each interface that packets are steered to has the next one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeringNumbers {
    /// The first mark.
    pub mark: u32,
    /// The first routing table.
    pub table: u32,
    /// The priority of the first rule.
    pub priority: u32,
}

/// The place of each interface that packets are steered to: how far its numbers are from the first ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SteeringPlaces(BTreeMap<InterfaceName, u32>);

impl SteeringPlaces {
    /// The places for `rules`: an interface that has one keeps it, so that its flows do not notice what becomes of others, and a new
    /// one takes the first that is free.
    #[must_use]
    pub fn followed_by(&self, rules: &[SteeringRule]) -> Self {
        let targets = targets(rules);
        let mut places = self.0.clone();
        places.retain(|name, _| targets.contains(name));
        for target in targets {
            let taken: BTreeSet<u32> = places.values().copied().collect();
            let free = (0..).find(|place| !taken.contains(place)).unwrap_or(u32::MAX);
            places.entry(target.clone()).or_insert(free);
        }
        Self(places)
    }
}

/// Our table for `spec`; `more` are policies that are set and not in it. `None`: nothing needs a table.
#[must_use]
pub fn host_table(
    spec: &HostSpec,
    more: &[&PolicySpec],
    context: GuardContext,
    (steering, places): (SteeringNumbers, &SteeringPlaces),
) -> Option<Table> {
    let mut table = Table { name: TABLE.to_owned(), sets: Vec::new(), chains: Vec::new() };
    let policies: Vec<&PolicySpec> = spec.guarded.iter().chain(more.iter().copied()).collect();
    if spec.guard != GuardMode::Off {
        guard(&mut table, &policies, context);
    }
    let tunnels: BTreeSet<&InterfaceName> = policies.iter().map(|policy| &policy.interface).collect();
    let tunnels: Vec<Value> = tunnels.into_iter().map(name).collect();
    table.chains.extend(steering_chains(&spec.steering, &tunnels, (steering, places)));
    table.chains.extend(nat_chains(&spec.nat, &tunnels, context.mark));
    table.chains.extend(filter_chains(&spec.filter));
    (!table.chains.is_empty()).then_some(table)
}

/// The routes and rules that were asked for: static ones, and what leads marked packets to their interfaces. While an interface
/// is not there, packets that are steered to it are dropped.
#[must_use]
pub fn asked_routes(spec: &HostSpec, (numbers, places): (SteeringNumbers, &SteeringPlaces)) -> NetworkState {
    let mut state = NetworkState { static_routes: spec.routes.iter().cloned().collect(), ..NetworkState::default() };
    for (target, &offset) in &places.0 {
        let rules = spec.steering.iter().filter(|rule| rule.interface == *target);
        let families: BTreeSet<Family> = rules.flat_map(|rule| families(&rule.packets)).collect();
        let table = numbers.table.saturating_add(offset);
        for family in families {
            let destination = everything(family);
            state.mark_rules.insert(MarkRule {
                family,
                priority: numbers.priority.saturating_add(offset),
                table,
                mark: numbers.mark.saturating_add(offset),
            });
            state.static_routes.insert(StaticRoute {
                destination,
                via: None,
                interface: Some(target.clone()),
                metric: FIRST_CHOICE,
                table,
            });
            state.blackholes.insert(RouteKey::new(table, destination));
        }
    }
    state
}

/// The interfaces that packets are steered to.
fn targets(steering: &[SteeringRule]) -> BTreeSet<&InterfaceName> {
    steering.iter().map(|rule| &rule.interface).collect()
}

/// Packets that carry a mark already are left alone: it is somebody else's, or that of an earlier rule.
fn steering_chains(
    steering: &[SteeringRule],
    tunnels: &[Value],
    (numbers, places): (SteeringNumbers, &SteeringPlaces),
) -> Vec<Chain> {
    let rules = |local: bool| -> Vec<Rule> {
        let mut rules = Vec::new();
        for rule in steering {
            let Some(place) = places.0.get(&rule.interface) else { continue };
            let mark = numbers.mark.saturating_add(*place);
            // Packets of this host come from no interface.
            if local && !rule.packets.from_interfaces.is_empty() {
                continue;
            }
            for mut found in alternatives(&rule.packets, None) {
                found.insert(0, Match::any(Field::Mark, [Value::Number(0)]));
                if !local && rule.packets.from_interfaces.is_empty() && !tunnels.is_empty() {
                    found.push(Match::none(Field::InInterface, tunnels));
                }
                rules.push(Rule::new(found, [Statement::Count, Statement::SetMark(mark)]));
            }
        }
        rules
    };
    let local = Hook { kind: ChainKind::Route, at: HookPoint::Output, priority: BEFORE_ROUTING };
    [
        hooked("steer_in", HookPoint::Prerouting, BEFORE_ROUTING, rules(false)),
        Chain { name: "steer_out".to_owned(), hook: Some(local), rules: rules(true) },
    ]
    .into_iter()
    .filter(|chain| !chain.rules.is_empty())
    .collect()
}

/// What goes into a tunnel is translated only by rules that name the tunnel, and the tunnels' own packets never are.
fn nat_chains(nat: &[NatRule], tunnels: &[Value], mark: u32) -> Vec<Chain> {
    let mut arriving = Vec::new();
    let mut leaving = Vec::new();
    for rule in nat {
        let only = match rule.action {
            NatAction::Source(to) | NatAction::Destination(to, _) => Some(Family::from(to)),
            NatAction::Masquerade => None,
        };
        for mut found in alternatives(&rule.packets, only) {
            match rule.action {
                NatAction::Destination(to, port) => {
                    arriving.push(Rule::new(found, [Statement::Count, Statement::TranslateDestination(to, port)]));
                    continue;
                }
                NatAction::Masquerade | NatAction::Source(_) if rule.packets.to_interfaces.is_empty() => {
                    if !tunnels.is_empty() {
                        found.push(Match::none(Field::OutInterface, tunnels));
                    }
                }
                NatAction::Masquerade | NatAction::Source(_) => {}
            }
            let statement = match rule.action {
                NatAction::Source(to) => Statement::TranslateSource(to),
                NatAction::Masquerade | NatAction::Destination(..) => Statement::Masquerade,
            };
            leaving.push(Rule::new(found, [Statement::Count, statement]));
        }
    }
    if !leaving.is_empty() {
        leaving.insert(0, Rule::new([Match::any(Field::Mark, [Value::Number(mark)])], [Statement::Accept]));
    }
    let chain = |name: &str, at, priority, rules| Chain {
        name: name.to_owned(),
        hook: Some(Hook { kind: ChainKind::Nat, at, priority }),
        rules,
    };
    [
        chain("nat_in", HookPoint::Prerouting, DESTINATIONS, arriving),
        chain("nat_out", HookPoint::Postrouting, SOURCES, leaving),
    ]
    .into_iter()
    .filter(|chain| !chain.rules.is_empty())
    .collect()
}

/// A chain for each way through the host: to it, through it, from it.
fn filter_chains(filter: &[FilterRule]) -> Vec<Chain> {
    let named = |of: fn(&PacketMatch) -> &[InterfaceName]| -> Vec<Value> {
        let names: BTreeSet<&InterfaceName> = filter.iter().flat_map(|rule| of(&rule.packets)).collect();
        names.into_iter().map(name).collect()
    };
    let (from, to) = (named(|packets| &packets.from_interfaces), named(|packets| &packets.to_interfaces));
    let rules = |arrives: bool, leaves: bool| -> Vec<Rule> {
        let is_here = |rule: &&FilterRule| {
            (arrives || rule.packets.from_interfaces.is_empty()) && (leaves || rule.packets.to_interfaces.is_empty())
        };
        let mut rules = vec![Rule::new(
            [Match::any(Field::ConnectionState, [Value::Word("established"), Value::Word("related")])],
            [Statement::Accept],
        )];
        rules.push(neighbours());
        for rule in filter.iter().filter(is_here) {
            let end = if rule.accept { Statement::Accept } else { Statement::Drop };
            for found in alternatives(&rule.packets, None) {
                if rule.log {
                    rules.push(Rule::new(found.clone(), [Statement::Log(rule.name.clone())]));
                }
                rules.push(Rule::new(found, [Statement::Count, end.clone()]));
            }
        }
        let rest = |field, names: &Vec<Value>| {
            (!names.is_empty())
                .then(|| Rule::new([Match::any(field, names.clone())], [Statement::Count, Statement::Drop]))
        };
        rules.extend(rest(Field::InInterface, &from).filter(|_| arrives));
        rules.extend(rest(Field::OutInterface, &to).filter(|_| leaves));
        rules
    };
    if filter.is_empty() {
        return Vec::new();
    }
    vec![
        hooked("filter_in", HookPoint::Input, FILTERS, rules(true, false)),
        hooked("filter_through", HookPoint::Forward, FILTERS, rules(true, true)),
        hooked("filter_out", HookPoint::Output, FILTERS, rules(false, true)),
    ]
}

/// The conditions of a rule: those of each family by themselves when they speak of one. `only`: no packets of the other family.
fn alternatives(packets: &PacketMatch, only: Option<Family>) -> Vec<Vec<Match>> {
    let PacketMatch { from_interfaces, to_interfaces, sources, destinations, protocols, ports, dscp } = packets;
    let mut common = Vec::new();
    let mut add = |field, values: Vec<Value>| {
        if !values.is_empty() {
            common.push(Match::any(field, values));
        }
    };
    add(Field::InInterface, from_interfaces.iter().map(name).collect());
    add(Field::OutInterface, to_interfaces.iter().map(name).collect());
    add(Field::Protocol, protocols.iter().map(|protocol| Value::Number((*protocol).into())).collect());
    let merged = merge(ports.iter().map(|(first, last)| (u32::from(*first), u32::from(*last))).collect());
    let range = |(first, last)| if first == last { Value::Number(first) } else { Value::Range(first, last) };
    add(Field::DestinationPort, merged.into_iter().map(range).collect());
    if sources.is_empty() && destinations.is_empty() && dscp.is_empty() {
        return vec![common];
    }
    let of_family = |family: Family| {
        let mut found = common.clone();
        for (field, ranges) in [(Field::Source(family), sources), (Field::Destination(family), destinations)] {
            if !ranges.is_empty() {
                found.push(Match::any(field, addresses(ranges, family)));
            }
        }
        if !dscp.is_empty() {
            let values: Vec<Value> = dscp.iter().map(|dscp| Value::Number((*dscp).into())).collect();
            found.push(Match::any(Field::Dscp(family), values));
        }
        found
    };
    let wanted = |family: &Family| only.is_none_or(|only| only == *family);
    families(packets).into_iter().filter(wanted).map(of_family).collect()
}

/// The families whose packets can fit.
fn families(packets: &PacketMatch) -> Vec<Family> {
    let fits = |ranges: &[AddressRange], family: Family| {
        ranges.is_empty() || ranges.iter().any(|range| Family::from(range.start()) == family)
    };
    let both = [Family::V4, Family::V6].into_iter();
    both.filter(|family| fits(&packets.sources, *family) && fits(&packets.destinations, *family)).collect()
}

/// Ranges of one family that do not touch each other: nft takes no others.
fn addresses(ranges: &[AddressRange], family: Family) -> Vec<Value> {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let address = |bits: u128| match family {
        Family::V4 => IpAddr::from(u32::try_from(bits).unwrap_or(u32::MAX).to_be_bytes()),
        Family::V6 => IpAddr::from(bits.to_be_bytes()),
    };
    let of_family = ranges.iter().filter(|range| Family::from(range.start()) == family);
    let merged = merge(of_family.map(|range| (bits(range.start()), bits(range.end()))).collect());
    let range = |(start, end)| AddressRange::new(address(start), address(end)).ok().map(Value::Addresses);
    merged.into_iter().filter_map(range).collect()
}

/// The same numbers in as few ranges as possible.
fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn name(interface: &InterfaceName) -> Value {
    Value::Name(interface.as_str().to_owned())
}

/// Marks must be there before the route is looked up, and where others expect them (`NF_IP_PRI_MANGLE`).
const BEFORE_ROUTING: i32 = -150;
/// `NF_IP_PRI_NAT_DST`.
const DESTINATIONS: i32 = -100;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCES: i32 = 100;
/// `NF_IP_PRI_FILTER`.
const FILTERS: i32 = 0;
/// The metric of the route to the interface; the blackhole beside it has the highest.
const FIRST_CHOICE: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: GuardContext = GuardContext { mark: 50, ike_ports: [500, 4500] };
    const NUMBERS: SteeringNumbers = SteeringNumbers { mark: 0x4301_0000, table: 4501, priority: 4201 };

    fn interface(text: &str) -> InterfaceName {
        InterfaceName::new(text).unwrap()
    }

    fn addresses_of(text: &str) -> AddressRange {
        crate::range(text.parse().unwrap())
    }

    fn lines(spec: &HostSpec, chain: &str) -> Vec<String> {
        let places = SteeringPlaces::default().followed_by(&spec.steering);
        let table = host_table(spec, &[], CONTEXT, (NUMBERS, &places)).unwrap();
        let chain = table.chains.iter().find(|found| found.name == chain).unwrap();
        chain.rules.iter().map(Rule::to_string).collect()
    }

    fn steered(name: &str, to: &str, sources: &[&str]) -> SteeringRule {
        let sources = sources.iter().map(|text| addresses_of(text)).collect();
        SteeringRule {
            name: name.to_owned(),
            packets: PacketMatch { sources, ..PacketMatch::default() },
            interface: interface(to),
        }
    }

    #[test]
    fn nothing_asked_for_is_no_table() {
        let steering = (NUMBERS, &SteeringPlaces::default());
        assert_eq!(host_table(&HostSpec::default(), &[], CONTEXT, steering), None);
    }

    #[test]
    fn what_goes_into_tunnels_is_not_translated_unless_a_rule_names_the_tunnel() {
        let rule = |to: &[&str], action| NatRule {
            name: "n".to_owned(),
            packets: PacketMatch {
                to_interfaces: to.iter().map(|to| interface(to)).collect(),
                ..PacketMatch::default()
            },
            action,
        };
        let guarded = PolicySpec::protect(espdp_api::PolicyId(0), interface("ipsec0"), vec![], vec![]);
        let nat = vec![
            rule(&[], NatAction::Masquerade),
            rule(&["ipsec0"], NatAction::Source("10.9.0.1".parse().unwrap())),
            rule(&[], NatAction::Destination("10.1.0.10".parse().unwrap(), Some(80))),
        ];
        let spec = HostSpec { guarded: vec![guarded], nat, ..HostSpec::default() };
        assert_eq!(
            lines(&spec, "nat_out"),
            [
                "meta mark 50 accept",
                "oifname != \"ipsec0\" counter masquerade",
                "oifname \"ipsec0\" counter snat ip to 10.9.0.1"
            ]
        );
        assert_eq!(lines(&spec, "nat_in"), ["counter dnat ip to 10.1.0.10:80"]);
    }

    #[test]
    fn an_interface_that_a_filter_names_drops_the_rest() {
        let web = PacketMatch {
            from_interfaces: vec![interface("ipsec0")],
            sources: vec![addresses_of("10.2.0.0/16"), addresses_of("10.2.3.0/24"), addresses_of("fd02::/16")],
            protocols: vec![6],
            ports: vec![(80, 81), (443, 443)],
            ..PacketMatch::default()
        };
        let rule = FilterRule { name: "web".to_owned(), packets: web, accept: true, log: true };
        let spec = HostSpec { filter: vec![rule], ..HostSpec::default() };
        let common = "iifname \"ipsec0\" meta l4proto 6 th dport { 80-81, 443 }";
        let expected = [
            "ct state { established, related } accept".to_owned(),
            neighbours().to_string(),
            format!("{common} ip saddr 10.2.0.0/16 limit rate 10/minute log prefix \"web \""),
            format!("{common} ip saddr 10.2.0.0/16 counter accept"),
            format!("{common} ip6 saddr fd02::/16 limit rate 10/minute log prefix \"web \""),
            format!("{common} ip6 saddr fd02::/16 counter accept"),
            "iifname \"ipsec0\" counter drop".to_owned(),
        ];
        assert_eq!(lines(&spec, "filter_in"), expected);
        assert_eq!(lines(&spec, "filter_through"), expected);
        assert_eq!(lines(&spec, "filter_out").len(), 2, "what leaves is nobody's business here");
    }

    #[test]
    fn an_interface_keeps_its_numbers_whatever_becomes_of_others() {
        let rules = |names: &[&str]| -> Vec<SteeringRule> {
            names.iter().map(|name| steered(name, name, &["10.1.0.0/24"])).collect()
        };
        let places = |places: &SteeringPlaces| {
            let places = places.0.iter().map(|(name, place)| format!("{name}:{place}"));
            places.collect::<Vec<_>>().join(" ")
        };
        let first = SteeringPlaces::default().followed_by(&rules(&["m", "z"]));
        assert_eq!(places(&first), "m:0 z:1");
        let more = first.followed_by(&rules(&["a", "m", "z"]));
        assert_eq!(places(&more), "a:2 m:0 z:1");
        let fewer = more.followed_by(&rules(&["a", "z"]));
        assert_eq!(places(&fewer), "a:2 z:1");
        assert_eq!(places(&fewer.followed_by(&rules(&["a", "b", "z"]))), "a:2 b:0 z:1");
        let steps = |from: &SteeringPlaces, to: &SteeringPlaces| {
            let state = |places, names: &[&str]| {
                asked_routes(&HostSpec { steering: rules(names), ..HostSpec::default() }, (NUMBERS, places))
            };
            crate::plan(&state(from, &["m", "z"]), &state(to, &["a", "m", "z"])).len()
        };
        assert_eq!(steps(&first, &more), 3, "a rule, a route and a blackhole are added, and nothing else changes");
    }

    #[test]
    fn each_interface_that_packets_are_steered_to_has_a_mark_a_table_and_a_rule() {
        let steering = vec![
            steered("a", "ipsec1", &["10.1.0.0/24"]),
            steered("b", "ipsec0", &["fd01::/64"]),
            steered("c", "ipsec1", &["10.1.1.0/24"]),
        ];
        let spec = HostSpec { steering, ..HostSpec::default() };
        assert_eq!(
            lines(&spec, "steer_in"),
            [
                "meta mark 0 ip saddr 10.1.0.0/24 counter meta mark set 1124139009",
                "meta mark 0 ip6 saddr fd01::/64 counter meta mark set 1124139008",
                "meta mark 0 ip saddr 10.1.1.0/24 counter meta mark set 1124139009",
            ]
        );
        let places = SteeringPlaces::default().followed_by(&spec.steering);
        let state = asked_routes(&spec, (NUMBERS, &places));
        let steps: Vec<String> =
            crate::plan(&NetworkState::default(), &state).iter().map(ToString::to_string).collect();
        assert_eq!(
            steps,
            [
                "add blackhole ::/0 table 4501",
                "add blackhole 0.0.0.0/0 table 4502",
                "add route 0.0.0.0/0 dev ipsec1 metric 1 table 4502",
                "add route ::/0 dev ipsec0 metric 1 table 4501",
                "add IPv4 rule 4202 for mark 0x43010001 to table 4502",
                "add IPv6 rule 4201 for mark 0x43010000 to table 4501",
            ]
        );
    }
}
