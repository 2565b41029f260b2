//! How long it takes to say where an Ethernet frame goes, in clocks per frame of one core.
//!
//! `cargo bench -p espdp-core --bench bridge -- [--quick] [--json]`
//!
//! `unicast` is a frame from one learned station to another, `broadcast` one to all of eight ports, `arp` a question for a known
//! neighbour, which is answered.

#![expect(clippy::unwrap_used, reason = "a benchmark whose setting fails has nothing to measure")]

#[path = "support/clock.rs"]
#[expect(unreachable_pub, reason = "shared by the benchmarks")]
mod clock;

use espdp_api::{BridgeName, BridgePort, BridgeSpec, InterfaceKind, InterfaceName, MacAddress, Neighbour, Secret};
use espdp_core::{Dataplane, Egress, InterfaceId};

use clock::{clock, lower_quartile, now};

/// Stations in the domain.
const STATIONS: [u32; 3] = [2, 1000, 30_000];
const PORTS: u32 = 8;
/// Frames in one measurement.
const BATCH: usize = 96;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (rounds, json) = (if has("--quick") { 100 } else { 1000 }, has("--json"));
    if !json {
        println!("{:>8} {:>9} {:>10} {:>9}", "stations", "unicast", "broadcast", "arp");
    }
    for stations in STATIONS {
        let mut domain = Domain::new(stations);
        let unicast = domain.run(rounds, |number| frame(station((number + 1) % stations), station(number % stations)));
        let broadcast = domain.run(rounds, |number| frame(MacAddress::BROADCAST, station(number % stations)));
        let arp = domain.run(rounds, |number| question(station(number % stations)));
        if json {
            println!(
                "{{\"stations\":{stations},\"unicast\":{unicast:.1},\"broadcast\":{broadcast:.1},\"arp\":{arp:.1}}}"
            );
        } else {
            println!("{stations:>8} {unicast:>9.1} {broadcast:>10.1} {arp:>9.1}");
        }
    }
}

/// A dataplane with one domain, all stations learned.
struct Domain {
    dataplane: Dataplane,
    ports: Vec<InterfaceId>,
    egress: Egress,
}

impl Domain {
    fn new(stations: u32) -> Self {
        let mut dataplane = Dataplane::new(&Secret::new([1; 32]));
        let name = BridgeName::new("lan").unwrap();
        let mac = MacAddress::new([2, 0xff, 0, 0, 0, 1]);
        let neighbours = vec![Neighbour { address: [10, 0, 0, 2].into(), mac }];
        dataplane.set_bridge(&BridgeSpec { neighbours, ..BridgeSpec::new(name.clone()) }).unwrap();
        let port = |number| {
            let interface = InterfaceName::new(format!("tap{number}")).unwrap();
            let id = dataplane.set_interface(&interface, InterfaceKind::Tap).unwrap();
            let port = BridgePort { bridge: name.clone(), split_horizon: 0 };
            dataplane.set_bridge_port(&interface, Some(&port)).unwrap();
            id
        };
        let ports = (0..PORTS).map(port).collect();
        let mut domain = Self { dataplane, ports, egress: Egress::default() };
        for number in 0..stations {
            domain.forward(number, &frame(MacAddress::BROADCAST, station(number)));
            assert_eq!(domain.egress.ports().len(), domain.ports.len() - 1);
        }
        domain
    }

    /// Stations are spread over the ports.
    fn forward(&mut self, number: u32, frame: &[u8]) {
        let from = self.ports[(number % PORTS) as usize];
        self.dataplane.forward(now(), from, frame, &mut self.egress);
    }

    /// Clocks per frame.
    fn run(&mut self, rounds: usize, make: impl Fn(u32) -> Vec<u8>) -> f64 {
        let at = now();
        let mut number = 0;
        let measured = (0..rounds).map(|_| {
            let frames: Vec<(InterfaceId, Vec<u8>)> = (0..BATCH)
                .map(|_| {
                    number += 1;
                    let frame = make(number);
                    // The port behind which the sender was learned.
                    let sender = u32::from_be_bytes([0, frame[9], frame[10], frame[11]]);
                    (self.ports[(sender % PORTS) as usize], frame)
                })
                .collect();
            let start = clock();
            for (from, frame) in &frames {
                self.dataplane.forward(at, *from, frame, &mut self.egress);
            }
            (clock() - start) as f64 / BATCH as f64
        });
        lower_quartile(measured.collect())
    }
}

fn station(number: u32) -> MacAddress {
    let [_, a, b, c] = number.to_be_bytes();
    MacAddress::new([2, 0, 0, a, b, c])
}

fn frame(to: MacAddress, from: MacAddress) -> Vec<u8> {
    [&to.octets()[..], &from.octets(), &[0x08, 0x00], &[0; 50]].concat()
}

/// An ARP request for the known neighbour.
fn question(from: MacAddress) -> Vec<u8> {
    let ethernet = [&MacAddress::BROADCAST.octets()[..], &from.octets(), &[0x08, 0x06]].concat();
    [&ethernet[..], &[0, 1, 8, 0, 6, 4, 0, 1], &from.octets(), &[10, 0, 0, 1], &[0; 6], &[10, 0, 0, 2]].concat()
}
