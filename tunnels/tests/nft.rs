//! What we write for nftables is what nftables understands. Needs root and the programs `nft` and `unshare`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};

use espdp_api::{
    AddressRange, FilterRule, HostSpec, InterfaceName, NatAction, NatRule, PacketMatch, PolicyAction, PolicyId,
    PolicySpec, PortRange, SteeringRule, TrafficSelector,
};
use tunnels::nft::Table;
use tunnels::{GuardContext, SteeringNumbers, SteeringPlaces, guard, host_table};

/// What a fresh namespace's table looks like after `nft` read this.
fn listed(arguments: &str, input: &str) -> String {
    let line = format!("nft {arguments} -f - && nft list table inet test");
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {arguments}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn in_both_forms(table: &Table) -> String {
    let as_json = listed("-j", &serde_json::to_string(&table.replacement()).unwrap());
    assert_eq!(as_json, listed("", &table.to_string()), "the text says something else than the JSON");
    as_json
}

fn table() -> Table {
    Table { name: "test".to_owned(), sets: Vec::new(), chains: Vec::new() }
}

fn selector(addresses: &str, protocol: u8, ports: PortRange) -> TrafficSelector {
    TrafficSelector { addresses: addresses_of(addresses), protocol, ports }
}

fn addresses_of(text: &str) -> AddressRange {
    match text.split_once("..") {
        Some((start, end)) => AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap(),
        None => tunnels::range(text.parse().unwrap()),
    }
}

fn policy(id: u64, local: TrafficSelector, remote: TrafficSelector) -> PolicySpec {
    let interface = InterfaceName::new("ipsec0").unwrap();
    let routes = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    PolicySpec { routes, ..PolicySpec::protect(PolicyId(id), interface, vec![local], vec![remote]) }
}

const CONTEXT: GuardContext = GuardContext { mark: 50, ike_ports: [500, 4500] };

#[test]
fn nft_takes_a_guard_of_every_kind_of_selector() {
    let any = PortRange::ANY;
    let port = |port| PortRange { start: port, end: port };
    let policies = [
        policy(1, selector("192.168.1.0..192.168.1.6", 0, any), selector("10.2.0.0/16", 0, any)),
        policy(2, selector("192.168.1.0/24", 0, any), selector("10.2.3.0/24", 6, port(443))),
        policy(
            3,
            selector("192.168.1.0/24", 1, any),
            selector("10.4.0.0/16", 1, PortRange { start: 0x800, end: 0x8ff }),
        ),
        policy(4, selector("192.168.1.0/24", 17, PortRange::OPAQUE), selector("10.5.0.0/16", 17, any)),
        policy(5, selector("fec0::/64", 0, port(53)), selector("fd01::/16", 0, any)),
        policy(6, selector("fec0::/64", 0, any), selector("fd01::1..fd01::9", 0, any)),
        PolicySpec {
            action: PolicyAction::Bypass,
            priority: 7,
            ..policy(7, selector("192.168.1.1", 0, any), selector("10.2.0.1", 0, any))
        },
    ];
    let mut table = table();
    guard(&mut table, &policies.iter().collect::<Vec<_>>(), CONTEXT);
    let listed = in_both_forms(&table);
    for expected in ["@ports_ipv4", "@icmp_ipv4", "@fragments_ipv6", "return", "192.168.1.0-192.168.1.6 . 10.2.0.0/16"]
    {
        assert!(listed.contains(expected), "{expected} is missing in\n{listed}");
    }
}

#[test]
fn nft_takes_translation_filters_and_steering() {
    let interface = |text: &str| InterfaceName::new(text).unwrap();
    let packets = PacketMatch {
        from_interfaces: vec![interface("ipsec0"), interface("lan0")],
        sources: ["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "192.168.1.0..192.168.1.6", "fd01::/64"]
            .map(addresses_of)
            .into(),
        destinations: ["10.9.0.0/16", "fd09::/64"].map(addresses_of).into(),
        protocols: vec![6, 17],
        ports: vec![(53, 53), (80, 90), (85, 99)],
        dscp: vec![46, 10],
        ..PacketMatch::default()
    };
    let leaving = PacketMatch { to_interfaces: vec![interface("wan0")], ..PacketMatch::default() };
    let nat = |packets: &PacketMatch, action| NatRule { name: "n".to_owned(), packets: packets.clone(), action };
    let spec = HostSpec {
        nat: vec![
            nat(&leaving, NatAction::Masquerade),
            nat(&leaving, NatAction::Source("192.0.2.9".parse().unwrap())),
            nat(&packets, NatAction::Destination("10.1.0.10".parse().unwrap(), Some(80))),
            nat(&packets, NatAction::Destination("fd01::10".parse().unwrap(), Some(80))),
            nat(&packets, NatAction::Destination("fd01::10".parse().unwrap(), None)),
        ],
        filter: vec![
            FilterRule { name: "some".to_owned(), packets: packets.clone(), accept: true, log: true },
            FilterRule { name: "rest".to_owned(), packets: leaving, accept: false, log: false },
        ],
        steering: vec![SteeringRule { name: "s".to_owned(), packets, interface: interface("ipsec1") }],
        ..HostSpec::default()
    };
    let numbers = SteeringNumbers { mark: 0x4301_0000, table: 4501, priority: 4201 };
    let mut table =
        host_table(&spec, &[], CONTEXT, (numbers, &SteeringPlaces::default().followed_by(&spec.steering))).unwrap();
    table.name = "test".to_owned();
    let listed = in_both_forms(&table);
    for expected in
        ["masquerade", "10.1.0.10:80", "[fd01::10]:80", "dscp", "meta mark set 0x43010000", "log prefix \"some \""]
    {
        assert!(listed.contains(expected), "{expected} is missing in\n{listed}");
    }
}

#[test]
fn nft_takes_ten_thousand_policies_in_one_transaction() {
    let any = PortRange::ANY;
    let remote = |at: u32| format!("10.{}.{}.0/24", at / 256, at % 256);
    let policies: Vec<PolicySpec> = (0..10_000)
        .map(|at| policy(at.into(), selector("192.168.1.0/24", 0, any), selector(&remote(at), 0, any)))
        .collect();
    let mut table = table();
    guard(&mut table, &policies.iter().collect::<Vec<_>>(), CONTEXT);
    let rules: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
    assert!(rules < 20, "{rules} rules for policies that do not overlap");
    let listed = listed("-j", &serde_json::to_string(&table.replacement()).unwrap());
    assert!(listed.contains("10.39.15.0/24"), "the last policy is missing");
}
