use std::time::Duration;

use espdp_api::{Flood, MacAddress, Neighbour, StaticStation};
use proptest::prelude::*;

use super::stations::StationTable;
use super::*;

const AGE: Duration = Duration::from_secs(300);

fn name(number: u16) -> InterfaceName {
    InterfaceName::new(format!("port{number}")).unwrap()
}

fn spec() -> BridgeSpec {
    BridgeSpec::new(BridgeName::new("lan").unwrap())
}

fn station(number: u8) -> MacAddress {
    MacAddress::new([2, 0, 0x5e, 0, 0x53, number])
}

fn frame(to: MacAddress, from: MacAddress) -> Vec<u8> {
    [&to.octets()[..], &from.octets(), &[0x08, 0x00], b"payload"].concat()
}

/// A domain with ports 0, 1, 2 … of the given split-horizon groups.
struct Bench {
    table: BridgeTable,
    egress: Egress,
    now: Instant,
}

impl Bench {
    fn new(spec: &BridgeSpec, groups: &[u8]) -> Self {
        let mut table = BridgeTable::default();
        table.set(spec).unwrap();
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut bench = Self { table, egress: Egress::default(), now };
        for (number, group) in (0..).zip(groups) {
            bench.join(number, *group);
        }
        bench
    }

    fn join(&mut self, number: u16, group: u8) {
        let port = BridgePort { bridge: spec().name, split_horizon: group };
        self.table.set_port(InterfaceId(number), &name(number), Some(&port)).unwrap();
    }

    fn leave(&mut self, number: u16) {
        self.table.set_port(InterfaceId(number), &name(number), None).unwrap();
    }

    fn send_frame(&mut self, from: u16, frame: &[u8]) -> Result<Vec<u16>, DropReason> {
        self.table.forward(self.now, InterfaceId(from), frame, &mut self.egress)?;
        Ok(self.egress.ports().iter().map(|port| port.0).collect())
    }

    fn send(&mut self, from: u16, source: MacAddress, destination: MacAddress) -> Result<Vec<u16>, DropReason> {
        self.send_frame(from, &frame(destination, source))
    }
}

#[test]
fn unknown_stations_are_flooded_to_and_known_ones_are_not() {
    let mut bench = Bench::new(&spec(), &[0, 0, 0]);
    assert_eq!(bench.send(0, station(1), station(2)), Ok(vec![1, 2]));
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![0]));
    assert_eq!(bench.send(0, station(1), station(2)), Ok(vec![1]));
    assert_eq!(bench.send(0, station(1), MacAddress::BROADCAST), Ok(vec![1, 2]));
    assert_eq!(bench.send(2, station(3), MacAddress::new([1, 0, 0x5e, 0, 0, 5])), Ok(vec![0, 1]));
}

#[test]
fn a_station_that_moves_is_found_at_its_new_port() {
    let mut bench = Bench::new(&spec(), &[0, 0, 0]);
    bench.send(0, station(1), MacAddress::BROADCAST).unwrap();
    bench.send(2, station(1), MacAddress::BROADCAST).unwrap();
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![2]));
    bench.leave(2);
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![0]));
}

#[test]
fn silent_stations_are_forgotten() {
    let mut bench = Bench::new(&spec(), &[0, 0, 0]);
    bench.send(0, station(1), MacAddress::BROADCAST).unwrap();
    bench.now += AGE;
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![0]));
    bench.now += Duration::from_nanos(1);
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![0, 2]));
}

#[test]
fn a_frame_for_a_station_behind_its_own_port_is_dropped() {
    let mut bench = Bench::new(&spec(), &[0, 0]);
    bench.send(0, station(1), MacAddress::BROADCAST).unwrap();
    assert_eq!(bench.send(0, station(2), station(1)), Err(DropReason::BridgeSamePort));
}

#[test]
fn ports_of_one_split_horizon_group_do_not_reach_each_other() {
    let mut bench = Bench::new(&spec(), &[0, 1, 1, 2]);
    assert_eq!(bench.send(1, station(1), MacAddress::BROADCAST), Ok(vec![0, 3]));
    assert_eq!(bench.send(0, station(2), MacAddress::BROADCAST), Ok(vec![1, 2, 3]));
    assert_eq!(bench.send(2, station(3), station(1)), Err(DropReason::SplitHorizon));
    assert_eq!(bench.send(3, station(4), station(1)), Ok(vec![1]));
}

#[test]
fn without_learning_and_flooding_only_static_stations_are_reached_and_only_from_where_they_are() {
    let stations = vec![
        StaticStation { mac: station(1), interface: name(0) },
        StaticStation { mac: station(2), interface: name(1) },
        StaticStation { mac: station(9), interface: name(9) },
    ];
    let spec = BridgeSpec { learning: false, flood: Flood::Nothing, stations, ..spec() };
    let mut bench = Bench::new(&spec, &[0, 0, 0]);
    assert_eq!(bench.send(0, station(1), station(2)), Ok(vec![1]));
    assert_eq!(bench.send(0, station(5), station(2)), Ok(vec![1]));
    assert_eq!(bench.send(0, station(1), station(5)), Err(DropReason::BridgeUnknown));
    assert_eq!(bench.send(0, station(1), MacAddress::BROADCAST), Err(DropReason::BridgeUnknown));
    assert_eq!(bench.send(1, station(1), station(2)), Err(DropReason::BridgeSource), "somebody else claims to be 1");
    assert_eq!(bench.send(0, station(1), station(9)), Err(DropReason::BridgeUnknown), "its interface is no port");
    bench.join(9, 0);
    assert_eq!(bench.send(0, station(1), station(9)), Ok(vec![9]));
    bench.leave(9);
    assert_eq!(bench.send(0, station(1), station(9)), Err(DropReason::BridgeUnknown));
}

#[test]
fn flooding_of_groups_only_leaves_unknown_stations_out() {
    let mut bench = Bench::new(&BridgeSpec { flood: Flood::Groups, ..spec() }, &[0, 0]);
    assert_eq!(bench.send(0, station(1), station(2)), Err(DropReason::BridgeUnknown));
    assert_eq!(bench.send(0, station(1), MacAddress::BROADCAST), Ok(vec![1]));
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![0]));
}

#[test]
fn a_change_of_the_domain_keeps_ports_and_what_was_learned() {
    let mut bench = Bench::new(&spec(), &[0, 0, 0]);
    bench.send(0, station(1), MacAddress::BROADCAST).unwrap();
    let stations = vec![StaticStation { mac: station(3), interface: name(2) }];
    bench.table.set(&BridgeSpec { stations, ..spec() }).unwrap();
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![0]));
    assert_eq!(bench.send(1, station(2), station(3)), Ok(vec![2]));
    bench.table.set(&BridgeSpec { learning: false, ..spec() }).unwrap();
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![0, 2]));
    assert_eq!(bench.send(1, station(2), station(3)), Ok(vec![0, 2]));
}

#[test]
fn frames_for_the_neighbour_on_the_link_and_impossible_senders_go_nowhere() {
    let mut bench = Bench::new(&spec(), &[0, 0]);
    for last in [0, 2, 3, 0x0e, 0x0f] {
        let reserved = MacAddress::new([1, 0x80, 0xc2, 0, 0, last]);
        assert_eq!(bench.send(0, station(1), reserved), Err(DropReason::BridgeReserved));
    }
    let outside = MacAddress::new([1, 0x80, 0xc2, 0, 0, 0x10]);
    assert_eq!(bench.send(0, station(1), outside), Ok(vec![1]));
    for source in [MacAddress::BROADCAST, MacAddress::new([0; 6]), outside] {
        assert_eq!(bench.send(0, source, station(1)), Err(DropReason::BridgeSource));
    }
    assert_eq!(bench.send_frame(0, &[0; 13]), Err(DropReason::Malformed));
    assert_eq!(bench.send(7, station(1), station(2)), Err(DropReason::NoBridge));
}

#[test]
fn a_flood_of_addresses_fills_the_share_of_its_port_only() {
    let mut bench = Bench::new(&spec(), &[0, 0, 0]);
    bench.send(2, station(1), MacAddress::BROADCAST).unwrap();
    for number in 0..20_000u32 {
        let [_, a, b, c] = number.to_be_bytes();
        bench.send(0, MacAddress::new([6, 0, 0, a, b, c]), MacAddress::BROADCAST).unwrap();
    }
    let domain = bench.table.domains[0].as_ref().unwrap();
    assert_eq!(domain.learned(), StationTable::MOST_OF_PORT + 1);
    assert_eq!(bench.send(1, station(2), station(1)), Ok(vec![2]), "the others are known as before");
    assert_eq!(bench.send(0, station(1), station(2)), Ok(vec![1]), "new stations of other ports are learned");
    bench.now += AGE + Duration::from_secs(1);
    bench.send(0, station(9), MacAddress::BROADCAST).unwrap();
    assert_eq!(bench.table.domains[0].as_ref().unwrap().learned(), 1, "old ones make room");
}

/// From a station whose IP address ends like its own.
fn arp_request(sender: MacAddress, target: [u8; 4]) -> Vec<u8> {
    let ethernet = [&MacAddress::BROADCAST.octets()[..], &sender.octets(), &[0x08, 0x06]].concat();
    let address = [10, 0, 0, sender.octets()[5]];
    [&ethernet[..], &[0, 1, 8, 0, 6, 4, 0, 1], &sender.octets(), &address, &[0; 6], &target].concat()
}

#[test]
fn questions_for_static_neighbours_are_answered_at_the_port_and_not_flooded() {
    let neighbours = vec![Neighbour { address: [10, 0, 0, 2].into(), mac: station(2) }];
    let mut bench = Bench::new(&BridgeSpec { neighbours, ..spec() }, &[0, 0]);
    assert_eq!(bench.send_frame(0, &arp_request(station(1), [10, 0, 0, 2])), Ok(vec![]));
    let answer = bench.egress.answer().unwrap();
    assert_eq!((&answer[..6], &answer[6..12]), (&station(1).octets()[..], &station(2).octets()[..]));
    assert_eq!(answer[20..32], [0, 2, 2, 0, 0x5e, 0, 0x53, 2, 10, 0, 0, 2]);
    // Others are asked for as always.
    assert_eq!(bench.send_frame(0, &arp_request(station(1), [10, 0, 0, 3])), Ok(vec![1]));
    assert_eq!(bench.egress.answer(), None);
    // The station itself asks whether its address is free, and hears no answer in its own name.
    assert_eq!(bench.send_frame(1, &arp_request(station(2), [10, 0, 0, 2])), Ok(vec![0]));
    assert_eq!(bench.egress.answer(), None);
    // Now it is known to be behind port 1, and answers questions from there itself.
    let same_port = bench.send_frame(1, &arp_request(station(4), [10, 0, 0, 2]));
    assert_eq!(same_port, Err(DropReason::BridgeSamePort));
}

#[test]
fn neighbours_are_learned_only_when_asked_for() {
    for learn_neighbours in [false, true] {
        let mut bench = Bench::new(&BridgeSpec { learn_neighbours, ..spec() }, &[0, 0]);
        bench.send_frame(0, &arp_request(station(1), [10, 0, 0, 2])).unwrap();
        let question = arp_request(station(2), [10, 0, 0, 1]);
        assert_eq!(bench.send_frame(1, &question), Ok(if learn_neighbours { vec![] } else { vec![0] }));
        assert_eq!(bench.egress.answer().is_some(), learn_neighbours);
        bench.now += AGE + Duration::from_secs(1);
        assert_eq!(bench.send_frame(1, &question), Ok(vec![0]), "what is old is asked for again");
    }
}

#[test]
fn a_domain_with_ports_is_not_removed_and_ports_need_a_domain() {
    let mut bench = Bench::new(&spec(), &[0]);
    assert_eq!(bench.table.remove(&spec().name), Err(Refusal::BridgeInUse(spec().name)));
    bench.leave(0);
    assert_eq!(bench.table.remove(&spec().name), Ok(()));
    assert_eq!(bench.table.remove(&spec().name), Err(Refusal::UnknownBridge(spec().name)));
    let port = BridgePort { bridge: spec().name, split_horizon: 0 };
    let refused = bench.table.set_port(InterfaceId(0), &name(0), Some(&port));
    assert_eq!(refused, Err(Refusal::UnknownBridge(spec().name)));
    assert_eq!(bench.send(0, station(1), station(2)), Err(DropReason::NoBridge));
}

#[test]
fn a_port_that_changes_its_domain_leaves_nothing_behind() {
    let mut bench = Bench::new(&spec(), &[0, 0, 0]);
    bench.send(2, station(1), MacAddress::BROADCAST).unwrap();
    let other = BridgeName::new("other").unwrap();
    bench.table.set(&BridgeSpec::new(other.clone())).unwrap();
    let port = BridgePort { bridge: other, split_horizon: 0 };
    bench.table.set_port(InterfaceId(2), &name(2), Some(&port)).unwrap();
    assert_eq!(bench.send(0, station(2), station(1)), Ok(vec![1]));
    assert_eq!(bench.send(2, station(1), MacAddress::BROADCAST), Err(DropReason::BridgeUnknown));
}

proptest! {
    #[test]
    fn a_frame_leaves_once_by_each_port_and_never_by_its_own_or_one_of_its_group(
        groups in proptest::collection::vec(0u8..3, 1..8),
        learning: bool,
        flood in prop_oneof![Just(Flood::All), Just(Flood::Groups), Just(Flood::Nothing)],
        frames in proptest::collection::vec((0u16..8, 0u8..6, 0u8..8, 0u64..200), 1..60),
    ) {
        let stations = vec![StaticStation { mac: station(0), interface: name(0) }];
        let neighbours = vec![Neighbour { address: [10, 0, 0, 0].into(), mac: station(0) }];
        let spec = BridgeSpec { learning, flood, stations, neighbours, ..spec() };
        let mut bench = Bench::new(&spec, &groups);
        for (from, source, destination, seconds) in frames {
            bench.now += Duration::from_secs(seconds);
            let destination = if destination >= 6 { MacAddress::BROADCAST } else { station(destination) };
            let Ok(ports) = bench.send(from, station(source), destination) else { continue };
            let group = groups[usize::from(from)];
            let mut seen = std::collections::BTreeSet::new();
            for port in ports {
                prop_assert!(port != from && usize::from(port) < groups.len());
                prop_assert!(group == 0 || groups[usize::from(port)] != group);
                prop_assert!(seen.insert(port));
            }
            prop_assert!(learning || bench.table.domains[0].as_ref().unwrap().learned() == 0);
        }
    }

    #[test]
    fn any_octets_are_forwarded_or_dropped(frame in proptest::collection::vec(any::<u8>(), 0..100)) {
        let neighbours = vec![Neighbour { address: [10, 0, 0, 0].into(), mac: station(0) }];
        let mut bench = Bench::new(&BridgeSpec { neighbours, learn_neighbours: true, ..spec() }, &[0, 0]);
        if let Ok(ports) = bench.send_frame(0, &frame) {
            prop_assert!(ports == [1] || bench.egress.answer().is_some());
        }
    }
}
