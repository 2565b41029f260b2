//! How long it takes to find the policy of a packet, in clocks per packet of one core.
//!
//! `cargo bench -p espdp-core --bench spd -- [--quick] [--json]`
//!
//! The policies discard, so that what is measured is the way of a packet up to its verdict: parsing its header and looking it
//! up. A *cached* flow was seen before, an *uncached* one is new with every packet. The tables:
//!
//! | table | its policies |
//! |---|---|
//! | `hosts` | each for one host behind the peer |
//! | `networks` | each for a network of ours and a /24 behind the peer |
//! | `ports` | all between the same two networks, each for one UDP port |
//! | `ranges` | ranges of up to 2²⁴ addresses on both sides, in no order, by protocol and port range or not; and one for everything |

#![expect(clippy::unwrap_used, reason = "a benchmark whose setting fails has nothing to measure")]

#[path = "support/clock.rs"]
#[expect(unreachable_pub, reason = "shared by the benchmarks")]
mod clock;

use std::net::Ipv4Addr;

use espdp_api::{
    AddressRange, InterfaceKind, InterfaceName, PolicyAction, PolicyId, PolicySpec, PortRange, Secret, TrafficSelector,
};
use espdp_core::{Dataplane, InterfaceId, OutboundBatch, Progress, SuperPacket, VnetHeader};

use clock::{clock, lower_quartile, now};

/// Policies in a table.
const POLICIES: [u32; 4] = [1, 100, 1000, 10_000];
/// Packets in one measurement.
const BATCH: usize = 96;
/// Flows that are seen again and again.
const FLOWS: u32 = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (rounds, json) = (if has("--quick") { 100 } else { 1000 }, has("--json"));
    if !json {
        println!("{:<10} {:>8} {:>9} {:>9} {:>12}", "table", "policies", "cached", "uncached", "set (clocks)");
    }
    for table in [Table::Hosts, Table::Networks, Table::Ports, Table::Ranges] {
        for policies in POLICIES {
            let mut gateway = Gateway::new(table, policies);
            let cached = gateway.run(rounds, |number| number % FLOWS);
            let uncached = gateway.run(rounds, |number| number);
            let name = format!("{table:?}").to_lowercase();
            let set = gateway.set;
            if json {
                println!(
                    "{{\"table\":\"{name}\",\"policies\":{policies},\"cached\":{cached:.1},\"uncached\":{uncached:.1},\"set\":{set:.0}}}"
                );
            } else {
                println!("{name:<10} {policies:>8} {cached:>9.1} {uncached:>9.1} {set:>12.0}");
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Table {
    Hosts,
    Networks,
    Ports,
    Ranges,
}

impl Table {
    /// The selectors of one of `policies` policies.
    fn selectors(self, number: u32, policies: u32) -> (TrafficSelector, TrafficSelector) {
        let all = selector(0, u32::MAX);
        let peer = 0x1400_0000;
        match self {
            Self::Hosts => (all, selector(peer + number, peer + number)),
            Self::Networks => {
                let remote = peer + (number << 8);
                (selector(OURS, OURS + 0xff_ffff), selector(remote, remote + 0xff))
            }
            Self::Ports => {
                let port = u16::try_from(number + 1).unwrap();
                let ports = PortRange { start: port, end: port };
                (all, TrafficSelector { protocol: 17, ports, ..selector(peer, peer + 0xff_ffff) })
            }
            Self::Ranges if number + 1 == policies => (all, all),
            Self::Ranges => {
                let side = |salt: u32| {
                    let (one, size) = (scatter(number * 4 + salt), scatter(number * 4 + salt + 1) >> (8 + number % 24));
                    selector(one, one.saturating_add(size))
                };
                let port = (scatter(number) >> 16) as u16;
                let ports = match number % 3 {
                    0 => PortRange::ANY,
                    1 => PortRange { start: port, end: port },
                    _ => PortRange { start: port, end: port.saturating_add(100) },
                };
                let protocol = if ports == PortRange::ANY { 0 } else { 17 };
                (side(0), TrafficSelector { protocol, ports, ..side(2) })
            }
        }
    }

    /// Addresses and ports of a flow that one of the policies selects.
    fn flow(self, number: u32, policies: u32) -> (u32, u32, u16, u16) {
        let (spread, source_port) = (number % policies, (number / policies) as u16);
        let source = OURS + ((number / policies) >> 16) % 0xffff;
        let peer = 0x1400_0000;
        match self {
            Self::Hosts => (source, peer + spread, source_port, 53),
            Self::Networks => (source, peer + (spread << 8), source_port, 53),
            Self::Ports => (source, peer + number % 0xffff, source_port, (spread + 1) as u16),
            Self::Ranges => (scatter(number), scatter(!number), source_port, (scatter(number) >> 8) as u16),
        }
    }
}

/// Our side of the tunnel.
const OURS: u32 = 0x0a00_0000;

/// A number that looks random, the same for the same `number`.
fn scatter(number: u32) -> u32 {
    let product = u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((product >> 32) ^ (product >> 17)) as u32
}

fn selector(first: u32, last: u32) -> TrafficSelector {
    let [first, last] = [first, last].map(|bits| Ipv4Addr::from_bits(bits).into());
    TrafficSelector::any_protocol(AddressRange::new(first, last).unwrap())
}

struct Gateway {
    dataplane: Dataplane,
    interface: InterfaceId,
    table: Table,
    policies: u32,
    next: u32,
    /// Clocks that it took to set one policy, on average.
    set: f64,
}

impl Gateway {
    fn new(table: Table, policies: u32) -> Self {
        let mut dataplane = Dataplane::new(&Secret::new([1; 32]));
        let name = InterfaceName::new("ipsec0").unwrap();
        let interface = dataplane.set_interface(&name, InterfaceKind::Ipsec).unwrap();
        let start = clock();
        for number in 0..policies {
            let (local, remote) = table.selectors(number, policies);
            let id = PolicyId(u64::from(number));
            let protect = PolicySpec::protect(id, name.clone(), vec![local], vec![remote]);
            dataplane.set_policy(&PolicySpec { action: PolicyAction::Discard, ..protect }).unwrap();
        }
        let set = clock().wrapping_sub(start) as f64 / f64::from(policies);
        Self { dataplane, interface, table, policies, next: 0, set }
    }

    /// Clocks per packet; the number of a packet says which flow it is of.
    fn run(&mut self, rounds: usize, flow: impl Fn(u32) -> u32) -> f64 {
        let mut batch = OutboundBatch::new();
        let mut clocks = Vec::new();
        let now = now();
        let dropped = self.dropped();
        for _ in 0..rounds {
            let packets: Vec<_> = (0..BATCH).map(|_| self.packet(&flow)).collect();
            let mut filling = self.dataplane.fill(now, &mut batch);
            let start = clock();
            for packet in &packets {
                let mut packet = SuperPacket::new(self.interface, VnetHeader::default(), packet);
                assert_eq!(filling.push(&mut packet), Progress::Done);
            }
            clocks.push(clock().wrapping_sub(start) as f64 / BATCH as f64);
        }
        assert_eq!(self.dropped() - dropped, (rounds * BATCH) as u64, "each packet has its policy");
        lower_quartile(clocks)
    }

    fn dropped(&self) -> u64 {
        self.dataplane.drops().iter().find(|drop| drop.reason == "discard").map_or(0, |drop| drop.packets)
    }

    /// The next packet: UDP without data.
    fn packet(&mut self, flow: &impl Fn(u32) -> u32) -> [u8; 28] {
        let (source, destination, source_port, port) = self.table.flow(flow(self.next), self.policies);
        self.next += 1;
        let mut packet = [0; 28];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0]);
        packet[12..16].copy_from_slice(&source.to_be_bytes());
        packet[16..20].copy_from_slice(&destination.to_be_bytes());
        packet[20..22].copy_from_slice(&source_port.to_be_bytes());
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet[24..26].copy_from_slice(&8u16.to_be_bytes());
        packet
    }
}
