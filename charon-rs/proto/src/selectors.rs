//! Negotiation of traffic selectors (RFC 7296 §2.9).
//!
//! Both functions look at one side of the traffic; what goes for TSi goes for TSr.

use espdp_api::{AddressRange, TrafficSelector};

use crate::wire::MAX_SELECTORS;

/// What a peer wants and we allow: all that each of `theirs` has in common with each of `ours`, in the order of
/// `theirs`. As the selectors that a peer puts first come first, and nothing that both sides allow gets lost, its first
/// choice is in the result whenever we allow it (R7296-2.9-1). A selector that another one of the result covers is left
/// out. The result is empty when nothing is in common, and no longer than one payload can hold.
#[must_use]
pub fn narrow(ours: &[TrafficSelector], theirs: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut common: Vec<TrafficSelector> = Vec::new();
    let pairs = theirs.iter().flat_map(|their| ours.iter().filter_map(|our| our.intersection(their)));
    for selector in pairs {
        if common.iter().any(|earlier| earlier.covers(&selector)) {
            continue;
        }
        common.retain(|earlier| !selector.covers(earlier));
        if common.len() == MAX_SELECTORS {
            break;
        }
        common.push(selector);
    }
    common
}

/// Whether a peer that was offered `offered` may answer with `answered`: with something, and nothing beyond the offer.
/// It may put neighbouring ranges of the offer together.
#[must_use]
pub fn is_narrowed(answered: &[TrafficSelector], offered: &[TrafficSelector]) -> bool {
    !answered.is_empty() && answered.iter().all(|selector| is_covered(selector, offered))
}

/// Whether the ranges of those of `offered` that allow the protocol and the ports cover all addresses.
fn is_covered(selector: &TrafficSelector, offered: &[TrafficSelector]) -> bool {
    let mut ranges: Vec<AddressRange> = offered
        .iter()
        .filter_map(|offer| {
            let common = offer.intersection(selector)?;
            (common.protocol == selector.protocol && common.ports == selector.ports).then_some(common.addresses)
        })
        .collect();
    ranges.sort_by_key(AddressRange::start);
    // Each range is a part of the selector's, so the sweep is over when one ends where the selector ends.
    let mut covered: Option<AddressRange> = None;
    for range in ranges {
        covered = match covered {
            None if range.start() == selector.addresses.start() => Some(range),
            None => return false,
            Some(before) if range.start() <= before.end() || follows(&before, &range) => {
                let end = before.end().max(range.end());
                AddressRange::new(before.start(), end).ok()
            }
            Some(_) => return false,
        };
    }
    covered == Some(selector.addresses)
}

/// Whether `next` begins right behind the end of `before`; both are of one family.
fn follows(before: &AddressRange, next: &AddressRange) -> bool {
    use std::net::IpAddr::{V4, V6};
    match (before.end(), next.start()) {
        (V4(end), V4(start)) => end.to_bits().checked_add(1) == Some(start.to_bits()),
        (V6(end), V6(start)) => end.to_bits().checked_add(1) == Some(start.to_bits()),
        (V4(_), V6(_)) | (V6(_), V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::PortRange;
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn range(text: &str) -> AddressRange {
        let (start, end) = text.split_once('-').unwrap_or((text, text));
        AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap()
    }

    fn any(text: &str) -> TrafficSelector {
        TrafficSelector::any_protocol(range(text))
    }

    fn port(text: &str, protocol: u8, start: u16, end: u16) -> TrafficSelector {
        TrafficSelector { addresses: range(text), protocol, ports: PortRange { start, end } }
    }

    #[test]
    fn equal_policies_come_back_as_they_are() {
        let both = [any("10.1.0.0-10.1.255.255"), any("fec5::-fec5::ffff")];
        assert_eq!(narrow(&both, &both), both);
    }

    #[test]
    fn a_true_range_is_cut_to_what_both_allow() {
        assert_eq!(narrow(&[any("10.1.0.5-10.1.0.77")], &[any("10.1.0.0-10.1.0.63")]), [any("10.1.0.5-10.1.0.63")]);
    }

    #[test]
    fn protocols_and_ports_are_narrowed_with_the_addresses() {
        let ours = [port("10.0.0.1", 6, 0, 65535), port("10.0.0.1", 17, 500, 500)];
        let theirs = [port("10.0.0.0-10.0.0.255", 0, 0, 65535)];
        assert_eq!(narrow(&ours, &theirs), ours);
        assert_eq!(narrow(&[port("10.0.0.1", 6, 80, 90)], &[port("10.0.0.1", 17, 80, 90)]), []);
    }

    /// R7296-2.9-1.
    #[test]
    fn the_first_selector_of_the_peer_is_in_the_result_if_allowed() {
        let packet = port("10.1.0.9", 6, 443, 443);
        let theirs = [packet, any("10.1.0.0-10.1.0.15"), any("10.9.0.0-10.9.0.9")];
        let ours = [any("10.9.0.0-10.9.0.9"), any("10.1.0.8-10.1.0.11")];
        let result = narrow(&ours, &theirs);
        assert_eq!(result, [any("10.1.0.8-10.1.0.11"), any("10.9.0.0-10.9.0.9")]);
        assert!(result[0].covers(&packet));
    }

    #[test]
    fn opaque_ports_meet_any_ports() {
        let opaque = TrafficSelector { ports: PortRange::OPAQUE, ..any("10.0.0.1") };
        assert_eq!(narrow(&[any("10.0.0.0-10.0.0.9")], &[opaque]), [opaque]);
        assert_eq!(narrow(&[port("10.0.0.1", 6, 1, 2)], &[opaque]), []);
    }

    #[test]
    fn two_families_have_nothing_in_common() {
        assert_eq!(narrow(&[any("0.0.0.0-255.255.255.255")], &[any("::-ffff::")]), []);
    }

    #[test]
    fn the_result_fits_in_one_payload() {
        let hosts: Vec<_> = (0..=255).flat_map(|c| (0..2).map(move |d| any(&format!("10.0.{c}.{}", d * 2)))).collect();
        assert_eq!(narrow(&[any("10.0.0.0-10.255.255.255")], &hosts).len(), MAX_SELECTORS);
    }

    #[test]
    fn an_answer_may_not_go_beyond_the_offer() {
        let offered = [any("10.0.0.0-10.0.0.127"), any("10.0.0.128-10.0.0.255")];
        assert!(is_narrowed(&[any("10.0.0.5")], &offered));
        assert!(is_narrowed(&[any("10.0.0.0-10.0.0.255")], &offered), "neighbours were put together");
        assert!(!is_narrowed(&[any("10.0.0.0-10.0.1.0")], &offered));
        assert!(!is_narrowed(&[any("10.0.0.5"), any("::1")], &offered));
        assert!(!is_narrowed(&[], &offered));
        let gap = [any("10.0.0.0-10.0.0.9"), any("10.0.0.11-10.0.0.20")];
        assert!(!is_narrowed(&[any("10.0.0.0-10.0.0.20")], &gap));
    }

    #[test]
    fn an_answer_may_not_widen_protocol_or_ports() {
        let offered = [port("10.0.0.1", 6, 80, 90)];
        assert!(is_narrowed(&[port("10.0.0.1", 6, 81, 81)], &offered));
        assert!(!is_narrowed(&[port("10.0.0.1", 0, 80, 90)], &offered));
        assert!(!is_narrowed(&[port("10.0.0.1", 6, 80, 91)], &offered));
    }

    fn selector() -> impl Strategy<Value = TrafficSelector> {
        let protocol = prop_oneof![Just(0u8), Just(6), Just(17)];
        ((0u8..20, 0u8..20), protocol, (0u16..20, 0u16..20), proptest::bool::ANY).prop_map(
            |(hosts, protocol, ports, wide)| {
                let host = |octet: u8| std::net::IpAddr::from([10, 0, 0, octet]);
                let addresses = AddressRange::new(host(hosts.0.min(hosts.1)), host(hosts.0.max(hosts.1))).unwrap();
                let some = PortRange { start: ports.0.min(ports.1), end: ports.0.max(ports.1) };
                TrafficSelector { addresses, protocol, ports: if wide { PortRange::ANY } else { some } }
            },
        )
    }

    proptest! {
        #[test]
        fn a_packet_is_in_the_result_exactly_if_both_sides_allow_it(
            ours in proptest::collection::vec(selector(), 1..5),
            theirs in proptest::collection::vec(selector(), 1..5),
            octet in 0u8..20, protocol in prop_oneof![Just(6u8), Just(17)], port in 0u16..20,
        ) {
            let address = std::net::IpAddr::from([10, 0, 0, octet]);
            let matched = |by: &[TrafficSelector]| by.iter().any(|ts| ts.matches(address, protocol, Some(port)));
            let result = narrow(&ours, &theirs);
            prop_assert_eq!(matched(&result), matched(&ours) && matched(&theirs));
            prop_assert!(result.is_empty() || is_narrowed(&result, &theirs));
            prop_assert!(result.is_empty() || is_narrowed(&result, &ours));
        }
    }
}
