//! What a gateway takes off a link past the host's network stack, and how the stack is kept from forwarding it as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::{AddressRange, InterfaceName, PolicySpec};

use crate::Family;
use crate::guard::{beyond, hooked};
use crate::nft::{Chain, Field, HookPoint, KeyType, Match, Rule, Set, Statement, Table, Value};
use crate::state::range;

/// The packets of a link that a gateway takes: those from `local` to `remote` addresses that may be forwarded once more.
///
/// That is what the host's own routes would lead into the interface: what the routes of its policies lead to, but not what is
/// at home or the host itself. The stack and we go by the same ranges, so that a packet is forwarded by exactly one of us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Sorted; none meets another one.
    local: Vec<AddressRange>,
    /// Sorted; none meets another one.
    remote: Vec<AddressRange>,
}

impl Taken {
    /// What is taken for the policies of one interface of a host that has the addresses `own`.
    #[must_use]
    pub fn of<'a>(policies: impl Iterator<Item = &'a PolicySpec> + Clone, own: &[IpAddr]) -> Self {
        let local =
            merged(policies.clone().flat_map(|policy| policy.local.iter().map(|side| side.addresses)).collect());
        let routes = policies.flat_map(|policy| &policy.routes).filter(|route| !route.is_default());
        let mut remote: Vec<AddressRange> = routes.map(|route| range(*route)).collect();
        let is_whole = |side: &&AddressRange| **side == AddressRange::whole(side.is_ipv4());
        let home = local.iter().filter(|side| !is_whole(side)).copied();
        let groups = [
            AddressRange::new(Ipv4Addr::new(224, 0, 0, 0).into(), Ipv4Addr::BROADCAST.into()),
            AddressRange::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), Ipv6Addr::from_bits(u128::MAX).into()),
        ];
        let own = own.iter().copied().map(AddressRange::single);
        for other in home.chain(groups.into_iter().flatten()).chain(own) {
            remote = remote.into_iter().flat_map(|range| without(range, other)).collect();
        }
        Self { local, remote: merged(remote) }
    }

    /// Whether nothing is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() || self.remote.is_empty()
    }

    /// Whether a packet between these addresses is taken, if it may be forwarded once more.
    #[must_use]
    pub fn covers(&self, source: IpAddr, destination: IpAddr) -> bool {
        holds(&self.remote, destination) && holds(&self.local, source)
    }

    /// Has the host's stack drop what is taken from `link`, as the first thing that it does.
    pub fn keep_from_stack(&self, table: &mut Table, link: &InterfaceName) {
        let mut rules = Vec::new();
        for (family, hops) in [(Family::V4, Field::TimeToLive), (Family::V6, Field::HopLimit)] {
            let is_here = |range: &&AddressRange| Family::from(range.start()) == family;
            let mut sides =
                [(&self.local, Field::Source(family), "from"), (&self.remote, Field::Destination(family), "to")]
                    .map(|(ranges, field, word)| {
                        let elements: Vec<_> =
                            ranges.iter().filter(is_here).map(|range| vec![Value::Addresses(*range)]).collect();
                        let name = format!("{word}_{family}_{}", link.as_str());
                        (Set { name, key: vec![KeyType::Address(family)], elements }, field)
                    })
                    .to_vec();
            if sides.iter().any(|(set, _)| set.elements.is_empty()) {
                continue;
            }
            let mut matches = vec![
                Match::any(Field::InInterface, [Value::Name(link.as_str().to_owned())]),
                Match::any(hops, [Value::Range(2, u32::from(u8::MAX))]),
            ];
            matches.extend(sides.iter().map(|(set, field)| Match::in_set([*field], &set.name)));
            rules.push(Rule::new(matches, [Statement::Drop]));
            table.sets.extend(sides.drain(..).map(|(set, _)| set));
        }
        if !rules.is_empty() {
            let chain: Chain = hooked(&format!("taken_{}", link.as_str()), HookPoint::Prerouting, FIRST, rules);
            table.chains.push(chain);
        }
    }
}

/// Before defragmentation, which is at -400.
const FIRST: i32 = -450;

/// `range` without `other`.
fn without(range: AddressRange, other: AddressRange) -> Vec<AddressRange> {
    match range.intersection(&other) {
        Some(both) if both == range => Vec::new(),
        _ => beyond(range, other),
    }
}

/// The same addresses, in as few ranges as they can be, in order.
fn merged(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort_unstable();
    let mut merged: Vec<AddressRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.is_ipv4() == range.is_ipv4() && range.start() <= last.end() => {
                if let Ok(joined) = AddressRange::new(last.start(), last.end().max(range.end())) {
                    *last = joined;
                }
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Whether one of the sorted ranges holds an address.
fn holds(ranges: &[AddressRange], address: IpAddr) -> bool {
    let after = ranges.partition_point(|range| range.start() <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| range.contains(address))
}

#[cfg(test)]
mod tests {
    use espdp_api::{IpPrefix, PolicyId, TrafficSelector};

    use super::*;

    fn policy(local: &str, remote: &str, routes: &[&str]) -> PolicySpec {
        let selectors = |text: &str| vec![TrafficSelector::any_protocol(range(text.parse().unwrap()))];
        let name = InterfaceName::new("ipsec0").unwrap();
        let routes: Vec<IpPrefix> = routes.iter().map(|text| text.parse().unwrap()).collect();
        PolicySpec { routes, ..PolicySpec::protect(PolicyId(1), name, selectors(local), selectors(remote)) }
    }

    fn covers(taken: &Taken, source: &str, destination: &str) -> bool {
        taken.covers(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn what_routes_lead_into_the_interface_is_taken_but_not_what_is_at_home() {
        let policies = [
            policy("10.1.0.0/16", "10.0.0.0/8", &["10.0.0.0/8"]),
            policy("10.1.0.0/16", "192.0.2.0/24", &["192.0.2.0/25"]),
            policy("fd01::/16", "fd00::/8", &["fd00::/8"]),
        ];
        let taken = Taken::of(policies.iter(), &["10.9.0.1".parse().unwrap()]);
        assert!(covers(&taken, "10.1.0.9", "10.2.0.1") && covers(&taken, "10.1.0.9", "10.0.0.0"));
        assert!(covers(&taken, "fd01::1", "fd02::1") && !covers(&taken, "fd02::1", "fd03::1"));
        assert!(!covers(&taken, "10.1.0.9", "10.1.4.4"), "neighbours speak among themselves");
        assert!(!covers(&taken, "10.1.0.9", "10.9.0.1"), "the host itself");
        assert!(covers(&taken, "10.1.0.9", "10.9.0.2"));
        assert!(!covers(&taken, "10.3.0.9", "10.2.0.1"), "from elsewhere");
        assert!(covers(&taken, "10.1.0.9", "192.0.2.5") && !covers(&taken, "10.1.0.9", "192.0.2.200"), "no route");
    }

    #[test]
    fn a_default_route_takes_nothing_since_nobody_can_tell_what_is_at_home() {
        let taken = Taken::of([policy("10.1.0.0/16", "0.0.0.0/0", &["0.0.0.0/0"])].iter(), &[]);
        assert!(taken.is_empty());
        let open = Taken::of([policy("0.0.0.0/0", "0.0.0.0/0", &["10.2.0.0/16"])].iter(), &[]);
        assert!(covers(&open, "10.1.0.1", "10.2.0.1"), "the routes alone decide");
    }

    #[test]
    fn the_stack_drops_exactly_what_is_taken_and_keeps_what_must_not_go_further() {
        let taken = Taken::of([policy("10.1.0.0/16", "10.2.0.0/16", &["10.2.0.0/16"])].iter(), &[]);
        let mut table = Table { name: "t".to_owned(), sets: Vec::new(), chains: Vec::new() };
        taken.keep_from_stack(&mut table, &InterfaceName::new("lan0").unwrap());
        let text = table.to_string();
        let rule = "iifname \"lan0\" ip ttl 2-255 ip saddr @from_IPv4_lan0 ip daddr @to_IPv4_lan0 drop";
        assert!(text.contains(rule), "{text}");
        assert!(text.contains("type filter hook prerouting priority -450"), "{text}");
        let mut table = Table { sets: Vec::new(), chains: Vec::new(), ..table };
        Taken::default().keep_from_stack(&mut table, &InterfaceName::new("lan0").unwrap());
        assert!(table.sets.is_empty() && table.chains.is_empty());
    }

    #[test]
    fn ranges_that_meet_become_one() {
        let ranges = ["10.0.0.0/9", "10.64.0.0/10", "::/0", "10.128.0.0/9"].map(|text| range(text.parse().unwrap()));
        let merged = merged(ranges.to_vec());
        assert_eq!(merged.iter().filter(|range| range.is_ipv4()).count(), 2, "neighbours need not be joined");
        assert!(holds(&merged, "10.255.0.1".parse().unwrap()) && !holds(&merged, "11.0.0.0".parse().unwrap()));
        assert!(holds(&merged, "::".parse().unwrap()) && !holds(&[], "::".parse().unwrap()));
    }
}
