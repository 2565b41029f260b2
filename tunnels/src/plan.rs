//! The way from one network state to another.

use std::fmt;

use espdp_api::{InterfaceName, IpPrefix, StaticRoute};

use crate::{MarkRule, NetworkState, RouteKey, RouteTarget, Rule};

/// One change of the kernel's network configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sets the MTU of a link, in octets.
    SetMtu(InterfaceName, u32),
    /// Adds an address to a link, without duplicate address detection.
    AddAddress(InterfaceName, IpPrefix),
    /// Takes an address from a link.
    RemoveAddress(InterfaceName, IpPrefix),
    /// Sets a link up, without an IPv6 link-local address of the kernel's choice: nobody asked for one, and with it come router
    /// solicitations that no policy wants.
    SetUp(InterfaceName),
    /// Adds a route, or gives the one with this key a new target.
    SetRoute(RouteKey, RouteTarget),
    /// Removes a route.
    RemoveRoute(RouteKey),
    /// Adds a rule.
    AddRule(Rule),
    /// Removes a rule.
    RemoveRule(Rule),
    /// Drops the packets to a destination that no other route of the table takes.
    AddBlackhole(RouteKey),
    /// Takes that back.
    RemoveBlackhole(RouteKey),
    /// Adds a route that was asked for.
    AddStaticRoute(StaticRoute),
    /// Removes one.
    RemoveStaticRoute(StaticRoute),
    /// Adds a rule for marked packets.
    AddMarkRule(MarkRule),
    /// Removes one.
    RemoveMarkRule(MarkRule),
}

impl Step {
    /// Carries the step out on `state`, as the kernel does when it accepts it.
    pub fn record(&self, state: &mut NetworkState) {
        match self {
            Self::SetMtu(name, mtu) => {
                let link = state.links.entry(name.clone());
                link.and_modify(|link| link.mtu = *mtu)
                    .or_insert_with(|| crate::Link { mtu: *mtu, addresses: Default::default() });
            }
            Self::AddAddress(name, address) => {
                if let Some(link) = state.links.get_mut(name) {
                    link.addresses.insert(*address);
                }
            }
            Self::RemoveAddress(name, address) => {
                if let Some(link) = state.links.get_mut(name) {
                    link.addresses.remove(address);
                }
            }
            Self::SetUp(_) => {}
            Self::SetRoute(key, target) => {
                state.routes.insert(*key, target.clone());
            }
            Self::RemoveRoute(key) => {
                state.routes.remove(key);
            }
            Self::AddRule(rule) => {
                state.rules.insert(*rule);
            }
            Self::RemoveRule(rule) => {
                state.rules.remove(rule);
            }
            Self::AddBlackhole(key) => {
                state.blackholes.insert(*key);
            }
            Self::RemoveBlackhole(key) => {
                state.blackholes.remove(key);
            }
            Self::AddStaticRoute(route) => {
                state.static_routes.insert(route.clone());
            }
            Self::RemoveStaticRoute(route) => {
                state.static_routes.remove(route);
            }
            Self::AddMarkRule(rule) => {
                state.mark_rules.insert(*rule);
            }
            Self::RemoveMarkRule(rule) => {
                state.mark_rules.remove(rule);
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetMtu(name, mtu) => write!(f, "set the MTU of {name} to {mtu}"),
            Self::AddAddress(name, address) => write!(f, "add address {address} to {name}"),
            Self::RemoveAddress(name, address) => write!(f, "remove address {address} from {name}"),
            Self::SetUp(name) => write!(f, "set {name} up"),
            Self::SetRoute(RouteKey { table, destination }, RouteTarget { interface, source }) => {
                write!(f, "add route {destination} dev {interface} table {table}")?;
                source.map_or(Ok(()), |source| write!(f, " src {source}"))
            }
            Self::RemoveRoute(RouteKey { table, destination }) => {
                write!(f, "remove route {destination} table {table}")
            }
            Self::AddRule(rule) => write!(f, "add {} rule {} to table {}", rule.family, rule.priority, rule.table),
            Self::RemoveRule(rule) => {
                write!(f, "remove {} rule {} to table {}", rule.family, rule.priority, rule.table)
            }
            Self::AddBlackhole(RouteKey { table, destination }) => {
                write!(f, "add blackhole {destination} table {table}")
            }
            Self::RemoveBlackhole(RouteKey { table, destination }) => {
                write!(f, "remove blackhole {destination} table {table}")
            }
            Self::AddStaticRoute(route) => write!(f, "add {}", Static(route)),
            Self::RemoveStaticRoute(route) => write!(f, "remove {}", Static(route)),
            Self::AddMarkRule(MarkRule { family, priority, table, mark }) => {
                write!(f, "add {family} rule {priority} for mark {mark:#x} to table {table}")
            }
            Self::RemoveMarkRule(MarkRule { family, priority, table, mark }) => {
                write!(f, "remove {family} rule {priority} for mark {mark:#x} to table {table}")
            }
        }
    }
}

/// A route as `ip route` has it.
struct Static<'a>(&'a StaticRoute);

impl fmt::Display for Static<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StaticRoute { destination, via, interface, metric, table } = self.0;
        write!(f, "route {destination}")?;
        if let Some(via) = via {
            write!(f, " via {via}")?;
        }
        if let Some(interface) = interface {
            write!(f, " dev {interface}")?;
        }
        write!(f, " metric {metric} table {table}")
    }
}

/// The steps from `actual` to `desired`, in an order in which the kernel accepts them: routes go before the addresses that they
/// prefer and the links that they lead to, and come after them. Rules come and go after their routes: without its rules a route
/// hides nothing that the main table knows better. Blackholes come before all that, with the rules that lead to them, and go after it,
/// so that no packet finds neither, whatever cannot be done in between. A link that is no longer desired is left as it is: it vanishes when its maker
/// closes it.
#[must_use]
pub fn plan(actual: &NetworkState, desired: &NetworkState) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(desired.blackholes.difference(&actual.blackholes).map(|key| Step::AddBlackhole(*key)));
    let leads_to_blackhole = |rule: &&Rule| desired.blackholes.iter().any(|key| key.table == rule.table);
    let new_rules = || desired.rules.difference(&actual.rules);
    steps.extend(new_rules().filter(leads_to_blackhole).map(|rule| Step::AddRule(*rule)));
    let gone = actual.static_routes.difference(&desired.static_routes);
    steps.extend(gone.map(|route| Step::RemoveStaticRoute(route.clone())));
    let gone = actual.routes.keys().filter(|key| !desired.routes.contains_key(key));
    steps.extend(gone.map(|key| Step::RemoveRoute(*key)));
    steps.extend(actual.rules.difference(&desired.rules).map(|rule| Step::RemoveRule(*rule)));
    for (name, link) in &desired.links {
        let old = actual.links.get(name);
        if old.is_none_or(|old| old.mtu != link.mtu) {
            steps.push(Step::SetMtu(name.clone(), link.mtu));
        }
        let is_new = |address: &&IpPrefix| old.is_none_or(|old| !old.addresses.contains(address));
        steps.extend(link.addresses.iter().filter(is_new).map(|address| Step::AddAddress(name.clone(), *address)));
        let gone = old.into_iter().flat_map(|old| old.addresses.difference(&link.addresses));
        steps.extend(gone.map(|address| Step::RemoveAddress(name.clone(), *address)));
        if old.is_none() {
            steps.push(Step::SetUp(name.clone()));
        }
    }
    let changed = desired.routes.iter().filter(|(key, target)| actual.routes.get(key) != Some(target));
    steps.extend(changed.map(|(key, target)| Step::SetRoute(*key, target.clone())));
    steps.extend(new_rules().filter(|rule| !leads_to_blackhole(rule)).map(|rule| Step::AddRule(*rule)));
    let new = desired.static_routes.difference(&actual.static_routes);
    steps.extend(new.map(|route| Step::AddStaticRoute(route.clone())));
    steps.extend(actual.mark_rules.difference(&desired.mark_rules).map(|rule| Step::RemoveMarkRule(*rule)));
    steps.extend(desired.mark_rules.difference(&actual.mark_rules).map(|rule| Step::AddMarkRule(*rule)));
    steps.extend(actual.blackholes.difference(&desired.blackholes).map(|key| Step::RemoveBlackhole(*key)));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Link};

    const TABLE: u32 = 4301;

    fn name(text: &str) -> InterfaceName {
        InterfaceName::new(text).unwrap()
    }

    fn prefix(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    fn link(mtu: u32, addresses: &[&str]) -> Link {
        Link { mtu, addresses: addresses.iter().map(|text| prefix(text)).collect() }
    }

    fn target(interface: &str) -> RouteTarget {
        RouteTarget { interface: name(interface), source: None }
    }

    fn gateway() -> NetworkState {
        let rule = |family| Rule { family, priority: TABLE, table: TABLE, except_mark: 50, longer_than: Some(15) };
        NetworkState {
            links: [(name("ipsec0"), link(1400, &["10.9.0.1/30", "fe80::1/64"]))].into(),
            routes: [(RouteKey::new(TABLE, prefix("10.2.0.0/16")), target("ipsec0"))].into(),
            rules: [rule(Family::V4), rule(Family::V6)].into(),
            ..NetworkState::default()
        }
    }

    #[test]
    fn equal_states_need_no_step() {
        assert_eq!(plan(&gateway(), &gateway()), []);
    }

    #[test]
    fn from_nothing_a_link_is_numbered_and_up_before_its_routes() {
        let steps: Vec<String> = plan(&NetworkState::default(), &gateway()).iter().map(Step::to_string).collect();
        assert_eq!(
            steps,
            [
                "set the MTU of ipsec0 to 1400",
                "add address 10.9.0.1/30 to ipsec0",
                "add address fe80::1/64 to ipsec0",
                "set ipsec0 up",
                "add route 10.2.0.0/16 dev ipsec0 table 4301",
                "add IPv4 rule 4301 to table 4301",
                "add IPv6 rule 4301 to table 4301",
            ]
        );
    }

    #[test]
    fn to_nothing_routes_and_rules_go_and_the_link_is_left_to_its_maker() {
        let steps = plan(&gateway(), &NetworkState::default());
        assert_eq!(steps.len(), 3);
        assert!(matches!(steps[..], [Step::RemoveRoute(_), Step::RemoveRule(_), Step::RemoveRule(_)]));
    }

    #[test]
    fn a_changed_link_gets_only_the_difference() {
        let mut desired = gateway();
        desired.links.insert(name("ipsec0"), link(1300, &["10.9.0.1/30", "10.9.0.5/30"]));
        assert_eq!(
            plan(&gateway(), &desired),
            [
                Step::SetMtu(name("ipsec0"), 1300),
                Step::AddAddress(name("ipsec0"), prefix("10.9.0.5/30")),
                Step::RemoveAddress(name("ipsec0"), prefix("fe80::1/64")),
            ]
        );
    }

    #[test]
    fn a_route_that_moves_to_another_interface_is_replaced_not_removed() {
        let mut desired = gateway();
        desired.routes.insert(RouteKey::new(TABLE, prefix("10.2.0.0/16")), target("ipsec1"));
        let [Step::SetRoute(_, moved)] = &plan(&gateway(), &desired)[..] else { panic!("one step expected") };
        assert_eq!(moved.interface, name("ipsec1"));
    }

    #[test]
    fn blackholes_are_there_before_the_rules_and_until_after_them() {
        let mut closed = gateway();
        closed.blackholes.insert(RouteKey::new(4318, prefix("10.2.0.0/16")));
        let steps: Vec<String> = plan(&NetworkState::default(), &closed).iter().map(Step::to_string).collect();
        assert_eq!(steps.first().unwrap(), "add blackhole 10.2.0.0/16 table 4318");
        let steps: Vec<String> = plan(&closed, &NetworkState::default()).iter().map(Step::to_string).collect();
        assert_eq!(steps.last().unwrap(), "remove blackhole 10.2.0.0/16 table 4318");
    }

    #[test]
    fn blackholes_are_in_force_before_anything_is_tried_that_might_fail() {
        let mut closed = gateway();
        closed.blackholes.insert(RouteKey::new(4318, prefix("10.2.0.0/16")));
        let to_blackholes =
            Rule { family: Family::V4, priority: 4400, table: 4318, except_mark: 50, longer_than: Some(15) };
        closed.rules.insert(to_blackholes);
        let steps = plan(&NetworkState::default(), &closed);
        let [Step::AddBlackhole(_), Step::AddRule(first), rest @ ..] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(*first, to_blackholes);
        assert_eq!(rest.iter().filter(|step| matches!(step, Step::AddRule(_))).count(), 2, "each comes once");
    }

    #[test]
    fn routes_that_were_asked_for_come_after_their_links_and_marks_after_their_routes() {
        let mut steered = gateway();
        let table = 4501;
        let to = StaticRoute {
            destination: prefix("0.0.0.0/0"),
            via: None,
            interface: Some(name("ipsec0")),
            metric: 0,
            table,
        };
        steered.static_routes.insert(to);
        steered.mark_rules.insert(MarkRule { family: Family::V4, priority: 4201, table, mark: 0x4301_0000 });
        let steps: Vec<String> = plan(&gateway(), &steered).iter().map(Step::to_string).collect();
        assert_eq!(
            steps,
            [
                "add route 0.0.0.0/0 dev ipsec0 metric 0 table 4501",
                "add IPv4 rule 4201 for mark 0x43010000 to table 4501"
            ]
        );
    }

    #[test]
    fn recording_all_steps_leads_from_any_state_to_the_desired_one() {
        let mut other = gateway();
        other.links.insert(name("ipsec0"), link(1280, &["10.9.0.9/30"]));
        other.links.insert(name("ipip0"), link(1500, &[]));
        other.routes.clear();
        other.routes.insert(RouteKey::new(TABLE, prefix("fec3::/16")), target("ipip0"));
        other.blackholes.insert(RouteKey::new(TABLE, prefix("fec3::/16")));
        other.mark_rules.insert(MarkRule { family: Family::V6, priority: 1, table: 2, mark: 3 });
        for (from, to) in [(NetworkState::default(), gateway()), (gateway(), other.clone()), (other, gateway())] {
            let mut state = from.clone();
            for step in plan(&from, &to) {
                step.record(&mut state);
            }
            state.links.retain(|name, _| to.links.contains_key(name));
            assert_eq!(state, to);
        }
    }
}
