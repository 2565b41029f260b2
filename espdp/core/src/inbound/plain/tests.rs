//! Both ways come to the same.

use std::time::Instant;

use espdp_api::{
    AddressRange, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi, Event, InboundSaSpec, InterfaceKind,
    InterfaceName, IpsecProtocol, Mode, OuterPath, PolicyAction, PolicyId, PolicySpec, PortRange, SaLimits, SaSpec,
    SaStatistics, Secret, TrafficLimit, TrafficSelector,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::crypto::Transform;
use crate::packet::protocol;
use crate::{Dataplane, InboundBatch, InterfaceCounters, InterfaceId, Offloads, Origin};

/// Everything that can be seen from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    delivered: Vec<(InterfaceId, Vec<u8>)>,
    events: Vec<Event>,
    statistics: Vec<SaStatistics>,
    counters: InterfaceCounters,
}

/// A receiver with a tunnel of two policies, of which one has the SA.
struct Receiver {
    dataplane: Dataplane,
    interface: InterfaceId,
    spi: EspSpi,
    now: Instant,
    batch: InboundBatch,
}

/// One ESP packet: its number, what is encrypted, and how it came.
#[derive(Clone, Debug)]
struct Arrival {
    sequence: u64,
    plaintext: Vec<u8>,
    outer_class: u8,
    has_moved: bool,
    is_damaged: bool,
}

const ALGORITHMS: EspAlgorithms = EspAlgorithms {
    cipher: EspCipher::AesGcm16 { key_bits: 256 },
    integrity: EspIntegrity::None,
    extended_sequence_numbers: true,
};
const OWN: PolicyId = PolicyId(1);

fn key() -> Secret<Vec<u8>> {
    Secret::new(vec![7; 36])
}

fn range(first: &str, last: &str) -> TrafficSelector {
    TrafficSelector::any_protocol(AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap())
}

fn path(remote_port: u16) -> OuterPath {
    let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port };
    OuterPath { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into(), encapsulation }
}

impl Receiver {
    fn new(limits: SaLimits, takes_short_way: bool, now: Instant) -> Self {
        let mut dataplane = Dataplane::new(&Secret::new([1; 32]));
        let name = InterfaceName::new("ipsec0").unwrap();
        let interface = dataplane.set_interface(&name, InterfaceKind::Ipsec).unwrap();
        let local = vec![range("10.2.0.0", "10.2.0.255"), range("fd02::", "fd02::ff")];
        let remote = vec![range("10.1.0.0", "10.1.255.255"), range("fd01::", "fd01::ffff")];
        let spec = PolicySpec::protect(OWN, name, local, remote);
        dataplane.set_policy(&spec).unwrap();
        let spi = dataplane.reserve_spi(0x4711_0000).unwrap();
        let sa = SaSpec {
            protocol: IpsecProtocol::Esp,
            spi,
            policy: OWN,
            algorithms: ALGORITHMS,
            encryption_key: key(),
            integrity_key: Secret::new(vec![]),
            mode: Mode::Tunnel,
            path: path(4500),
            local: spec.local,
            remote: spec.remote,
            limits,
        };
        dataplane.install_inbound(&InboundSaSpec { sa, replay_window: 64 }).unwrap();
        let sa = dataplane.inbound.get_mut(dataplane.inbound.installed(spi).unwrap()).unwrap();
        sa.plain = sa.plain.filter(|_| takes_short_way);
        sa.mss = [Some(1300), Some(1280)];
        Self { dataplane, interface, spi, now, batch: InboundBatch::new() }
    }

    /// Adds or removes a policy that comes first: what goes to these ports is dropped.
    fn set_second_policy(&mut self, is_there: bool) {
        let id = PolicyId(2);
        if !is_there {
            let _removed = self.dataplane.remove_policy(id);
            return;
        }
        let dns = TrafficSelector { ports: PortRange { start: 53, end: 53 }, ..range("10.2.0.0", "10.2.0.15") };
        let (local, remote) = (vec![dns], vec![range("10.1.0.0", "10.1.255.255")]);
        let second = PolicySpec::protect(id, InterfaceName::new("ipsec0").unwrap(), local, remote);
        self.dataplane.set_policy(&PolicySpec { action: PolicyAction::Discard, priority: 0, ..second }).unwrap();
    }

    fn receive(&mut self, arrivals: &[Arrival]) -> Seen {
        let transform = Transform::new(ALGORITHMS, &key(), &Secret::new(vec![]), &Secret::new([0; 16])).unwrap();
        self.batch.clear();
        for arrival in arrivals {
            let Arrival { sequence, plaintext, outer_class, has_moved, is_damaged } = arrival;
            let low = (*sequence as u32).to_be_bytes();
            let mut packet = [&self.spi.to_wire()[..], &low, &[0; 8], plaintext, &[0; 16]].concat();
            transform.seal(&mut packet, *sequence).unwrap();
            if *is_damaged {
                packet[20] ^= 1;
            }
            self.batch.space().unwrap()[..packet.len()].copy_from_slice(&packet);
            let path = path(if *has_moved { 4501 } else { 4500 });
            self.batch.add_esp(packet.len(), Origin { path, traffic_class: *outer_class, hop_limit: None });
        }
        let opened = self.dataplane.open(self.now, Offloads::default(), &mut self.batch);
        let deliveries = opened.deliveries();
        Seen {
            delivered: deliveries
                .map(|delivery| (delivery.interface, delivery.pieces().collect::<Vec<_>>().concat()))
                .collect(),
            events: std::iter::from_fn(|| self.dataplane.poll_event()).collect(),
            statistics: self.dataplane.statistics(self.now),
            counters: self.dataplane.interface_counters(self.interface),
        }
    }
}

/// Octets of an IP packet that is most often what it says it is.
fn inner() -> impl Strategy<Value = Vec<u8>> {
    let protocol = prop_oneof![
        4 => Just(protocol::TCP),
        4 => Just(protocol::UDP),
        1 => Just(protocol::ICMP),
        1 => Just(protocol::FRAGMENT),
        1 => any::<u8>()
    ];
    let port = prop_oneof![Just(53u16), Just(80), any::<u16>()];
    let host = prop_oneof![8 => 0u8..2, 1 => any::<u8>()];
    let flags = prop_oneof![3 => Just(0x10u8), 1 => Just(2), 1 => any::<u8>()];
    let ipv4_start = prop_oneof![8 => Just(0x45u8), 1 => any::<u8>()];
    let fragment = prop_oneof![8 => Just(0x4000u16), 2 => Just(0x2000), 2 => Just(0x0010), 1 => any::<u16>()];
    let shape = (any::<bool>(), protocol, 0usize..60, prop_oneof![6 => Just(0i16), 1 => -20i16..20]);
    let fields = (port.clone(), port, host.clone(), host, flags, any::<u8>(), ipv4_start, fragment);
    (shape, fields).prop_map(|((is_ipv4, protocol, rest, wrong), fields)| {
        let (from, to, source, destination, flags, class, start, fragment) = fields;
        let mut transport = [from.to_be_bytes(), to.to_be_bytes()].concat();
        transport.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x60, flags, 1, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
        transport.truncate(rest);
        let fragment = fragment.to_be_bytes();
        if is_ipv4 {
            let len = ((20 + transport.len()) as u16).wrapping_add_signed(wrong).to_be_bytes();
            let ports = [start, class, len[0], len[1], 0, 1, fragment[0], fragment[1], 64, protocol, 0, 0];
            [&ports[..], &[10, 1, 0, source], &[10, 2, 0, destination], &transport].concat()
        } else {
            let len = (transport.len() as u16).wrapping_add_signed(wrong).to_be_bytes();
            let head = [start ^ 0x25 | class >> 4, class << 4, 0, 0, len[0], len[1], protocol, 64];
            let address = |net: u8, host: u8| [&[0xfd, net], &[0; 13][..], &[host]].concat();
            [&head[..], &address(1, source), &address(2, destination), &transport].concat()
        }
    })
}

/// Payload, padding and trailer.
fn plaintext() -> impl Strategy<Value = Vec<u8>> {
    let behind = prop_oneof![6 => Just(0usize), 1 => 1usize..40];
    let more_padding = prop_oneof![6 => Just(0usize), 2 => 0usize..4, 1 => 0usize..50];
    let next_header = prop_oneof![12 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let wrong = prop_oneof![12 => Just(None), 1 => (0usize..12, any::<u8>()).prop_map(Some)];
    (inner(), behind, more_padding, next_header, wrong).prop_map(|(mut octets, behind, more, next_header, wrong)| {
        let family = if octets[0] >> 4 == 4 { protocol::IPV4 } else { protocol::IPV6 };
        octets.resize(octets.len() + behind, 0x55);
        let pad_len = (octets.len() + 2).wrapping_neg() % 4 + 4 * more;
        octets.extend(1..=pad_len as u8);
        octets.extend([pad_len as u8, next_header.unwrap_or(family)]);
        if let Some((back, value)) = wrong {
            let at = octets.len().saturating_sub(back + 1);
            octets[at] = value;
        }
        octets
    })
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let step = prop_oneof![8 => Just(1i64), 1 => -3i64..5, 1 => Just(100)];
    let outer_class = prop_oneof![6 => Just(0u8), 1 => 0u8..4];
    let chance = |weight| prop_oneof![20 => Just(false), weight => Just(true)];
    // Most packets are like the one before, but for one octet or what is outside: only so are there any to be taken together.
    let change = (any::<bool>(), any::<proptest::sample::Index>(), any::<u8>());
    let like_before =
        prop_oneof![2 => Just(None), 4 => Just(Some(None)), 1 => change.prop_map(|change| Some(Some(change)))];
    let arrival = (step, plaintext(), outer_class, chance(1), chance(1), like_before);
    proptest::collection::vec(arrival, 1..40).prop_map(|arrivals| {
        let mut numbered: Vec<Arrival> = Vec::new();
        for (step, plaintext, outer_class, has_moved, is_damaged, like_before) in arrivals {
            let before = numbered.last().map_or(10, |before| before.sequence.cast_signed());
            let sequence = (before + step).max(1).cast_unsigned();
            let arrival = Arrival { sequence, plaintext, outer_class, has_moved, is_damaged };
            numbered.push(match (numbered.last().cloned(), like_before) {
                (Some(mut before), Some(change)) => {
                    match change {
                        Some((true, ..)) => before.outer_class = outer_class ^ before.outer_class ^ 1,
                        Some((false, at, octet)) => *at.get_mut(&mut before.plaintext) = octet,
                        None => {}
                    }
                    Arrival { sequence, is_damaged, ..before }
                }
                (None, _) | (_, None) => arrival,
            });
        }
        numbered
    })
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

/// Packets and octets after which limits are reached, or none.
fn limits() -> impl Strategy<Value = SaLimits> {
    let limit = |packets, bytes| TrafficLimit { bytes, packets };
    let some = (1u64..20, 1u64..2000).prop_map(move |(packets, bytes)| SaLimits {
        soft: limit(Some(packets), None),
        hard: limit(Some(packets + 5), Some(bytes + 500)),
    });
    prop_oneof![Just(SaLimits::default()), some]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_short_way_and_the_general_way_come_to_the_same(
        batches in proptest::collection::vec((any::<bool>(), arrivals()), 1..4),
        limits in limits(),
    ) {
        let now = start();
        let [mut short, mut general] = [true, false].map(|short| Receiver::new(limits, short, now));
        for (with_second_policy, batch) in &batches {
            short.set_second_policy(*with_second_policy);
            general.set_second_policy(*with_second_policy);
            prop_assert_eq!(short.receive(batch), general.receive(batch));
        }
    }
}

/// Without this the comparison above would show nothing.
#[test]
fn most_packets_take_the_short_way() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = proptest::collection::vec(plaintext(), 1000).new_tree(&mut runner).unwrap();
    let short = tree.current().iter().filter(|octets| super::PlainPacket::read(octets).is_some()).count();
    assert!((250..750).contains(&short), "{short} of 1000");
}

#[test]
fn a_flow_that_was_let_in_before_is_looked_at_anew_when_policies_change() {
    let mut receiver = Receiver::new(SaLimits::default(), true, start());
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, protocol::UDP, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1];
    packet.extend([0, 9, 0, 53, 0, 8, 0, 0, 1, 2, 2, protocol::IPV4]);
    let mut sequence = 0;
    let mut receive = |receiver: &mut Receiver| {
        sequence += 1;
        let plaintext = packet.clone();
        let arrival = Arrival { sequence, plaintext, outer_class: 0, has_moved: false, is_damaged: false };
        receiver.receive(&[arrival]).delivered.len()
    };
    assert_eq!([receive(&mut receiver), receive(&mut receiver)], [1, 1]);
    receiver.set_second_policy(true);
    assert_eq!(receive(&mut receiver), 0);
    receiver.set_second_policy(false);
    assert_eq!(receive(&mut receiver), 1);
}
