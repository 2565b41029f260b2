//! Packets that are wrapped where they are read become what they become otherwise.

use espdp_api::{
    DfPolicy, Direction, DscpPolicy, EspAlgorithms, EspCipher, EspIntegrity, FlowLabelPolicy, FragmentPolicy, Gre,
    HopLimitPolicy, InterfaceKind, InterfaceName, IpsecProtocol, Mode, MssPolicy, PacketShape, PaddingPolicy,
    PolicyAction, PolicyId, PolicySpec, SaLimits, TrafficLimit,
};
use espdp_core::{OutboundBatch, VnetHeader};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::{Gateway, INNER, Setup, algorithms, everything, ip, range, udp};

type Packet = (VnetHeader, Vec<u8>);

fn plain(packet: Vec<u8>) -> Packet {
    (VnetHeader::default(), packet)
}

#[test]
fn plain_packets_of_one_flow_are_one_run_that_starts_where_they_were_read() {
    for ipv4 in [true, false] {
        let (mut left, mut right) = Setup::default().connect();
        let packets: Vec<_> = (0..60).map(|_| plain(udp(ipv4, 300))).collect();
        let (sent, in_place) = left.send_in_place(&packets);
        assert_eq!((sent.wire.len(), in_place), (60, 60));
        assert_eq!(left.runs(&packets), [60]);
        assert!(right.receive(&sent.wire).iter().zip(&packets).all(|(received, (_, sent))| received == sent));
    }
}

#[test]
fn a_batch_takes_256_packets_of_1400_octets() {
    let (mut left, _) = Setup::default().connect();
    let packets: Vec<_> = (0..OutboundBatch::FRAMES).map(|_| plain(udp(true, 1400 - 28))).collect();
    // What fits in one UDP datagram, five times and a rest.
    assert_eq!(left.runs(&packets), [45, 45, 45, 45, 45, 31]);
}

/// What fragments make of a batch has no room in it; nothing is lost, and nothing overtakes.
#[test]
fn what_has_no_room_in_a_batch_is_in_the_next() {
    let (mut left, mut right) = Setup::default().connect();
    left.set_path_mtu(600);
    let mut packets: Vec<_> = (0..200).map(|_| plain(may_fragment(udp(true, 1400)))).collect();
    packets.push(plain(udp(true, 20)));
    let (sent, in_place) = left.send_in_place(&packets);
    assert_eq!((sent.wire.len(), in_place), (601, 201));
    let received = right.receive(&sent.wire);
    assert_eq!(received.last(), packets.last().map(|(_, packet)| packet));
}

fn may_fragment(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] = 0;
    packet
}

/// Every kind of packet that a device gives, some of them malformed.
fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let lens = prop_oneof![3 => 0..1500usize, 1 => 2200..2400usize, 1 => 0..10_000usize];
    let bare = (any::<bool>(), any::<u8>(), select(vec![6, 17, 1, 58, 47, 132, 136]), 0..4u8, lens);
    let packet = bare.prop_map(|(ipv4, traffic_class, protocol, host, len)| {
        let (source, destination) = if ipv4 { INNER[0] } else { INNER[1] };
        let mut payload =
            vec![0x10, host, 0, 53, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, host << 1, 0, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4];
        payload.resize(len, traffic_class);
        let destination = format!("{}{}", &destination[..destination.len() - 1], host + 1);
        ip(source, &destination, protocol, traffic_class, &payload)
    });
    let fault = prop_oneof![
        12 => Just(Fault::None),
        2 => (any::<bool>(), any::<u16>()).prop_map(|(first, to)| Fault::Fragment(first, to)),
        1 => Just(Fault::Fragmentable),
        1 => (0..60usize, any::<u8>()).prop_map(|(at, octet)| Fault::Octet(at, octet)),
        1 => (0..60usize).prop_map(Fault::Cut),
        1 => Just(Fault::Longer),
        2 => (0..80u16, 0..40u16).prop_map(|(start, offset)| Fault::Checksum(start, offset)),
        3 => Just(Fault::RightChecksum),
    ];
    vec((packet, fault).prop_map(|(packet, fault)| fault.apply(packet)), 1..40)
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Fragment(bool, u16),
    Fragmentable,
    Octet(usize, u8),
    Cut(usize),
    Longer,
    Checksum(u16, u16),
    RightChecksum,
}

impl Fault {
    fn apply(self, mut packet: Vec<u8>) -> Packet {
        let is_ipv4 = packet[0] >> 4 == 4;
        let mut vnet = VnetHeader::default();
        match self {
            Self::Fragment(is_first, offset) if is_ipv4 => {
                let offset = if is_first { 0 } else { offset & 0x1fff };
                packet[6..8].copy_from_slice(&(0x2000 | offset).to_be_bytes());
            }
            Self::Fragmentable if is_ipv4 => packet[6] = 0,
            Self::Octet(at, octet) if at < packet.len() => packet[at] = octet,
            Self::Cut(len) => packet.truncate(len),
            Self::Longer => packet.extend([1, 2, 3]),
            Self::Checksum(csum_start, csum_offset) => {
                vnet = VnetHeader { flags: VnetHeader::NEEDS_CSUM, csum_start, csum_offset, ..vnet };
            }
            Self::RightChecksum => {
                let csum_start = if is_ipv4 { 20 } else { 40 };
                vnet = VnetHeader { flags: VnetHeader::NEEDS_CSUM, csum_start, csum_offset: 6, ..vnet };
            }
            Self::None | Self::Fragment(..) | Self::Fragmentable | Self::Octet(..) => {}
        }
        (vnet, packet)
    }
}

fn shapes() -> impl Strategy<Value = PacketShape> {
    let outer = (
        select(vec![DfPolicy::Copy, DfPolicy::Set, DfPolicy::Clear]),
        select(vec![DscpPolicy::Copy, DscpPolicy::Fixed(46)]),
        select(vec![HopLimitPolicy::Copy, HopLimitPolicy::Fixed(9)]),
        select(vec![FlowLabelPolicy::Zero, FlowLabelPolicy::Copy, FlowLabelPolicy::Hash]),
    );
    let others = (
        prop_oneof![4 => Just(PaddingPolicy::None), 1 => Just(PaddingPolicy::To(500)), 1 => Just(PaddingPolicy::ToPathMtu)],
        select(vec![MssPolicy::Automatic, MssPolicy::Keep, MssPolicy::AtMost(700)]),
        select(vec![FragmentPolicy::Before, FragmentPolicy::After]),
    );
    (outer, others).prop_map(|((df, dscp, hop_limit, flow_label), (padding, mss, fragment))| PacketShape {
        df,
        dscp,
        hop_limit,
        flow_label,
        padding,
        mss,
        fragment,
        ..PacketShape::default()
    })
}

fn suites() -> Vec<EspAlgorithms> {
    let gcm = |extended| algorithms(EspCipher::AesGcm16 { key_bits: 256 }, EspIntegrity::None, extended);
    vec![
        gcm(true),
        gcm(true),
        gcm(false),
        algorithms(EspCipher::AesGcm8 { key_bits: 128 }, EspIntegrity::None, true),
        algorithms(EspCipher::AesCbc { key_bits: 256 }, EspIntegrity::HmacSha2_256_128, true),
        algorithms(EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha1_96, false),
        algorithms(EspCipher::AesCtr { key_bits: 256 }, EspIntegrity::HmacSha2_256_128, true),
        algorithms(EspCipher::Null, EspIntegrity::HmacSha2_256_128, true),
    ]
}

pub(crate) fn setups() -> impl Strategy<Value = Setup> {
    let kinds = vec![
        (Mode::Tunnel, InterfaceKind::Ipsec),
        (Mode::Tunnel, InterfaceKind::Ipsec),
        (Mode::Tunnel, InterfaceKind::Ipsec),
        (Mode::Transport, InterfaceKind::Ipsec),
        (Mode::Tunnel, InterfaceKind::Ipip),
        (Mode::Transport, InterfaceKind::Ipip),
        (Mode::Transport, InterfaceKind::Gre(Gre::default())),
    ];
    let limit =
        |packets| SaLimits { hard: TrafficLimit { packets: Some(packets), bytes: None }, ..SaLimits::default() };
    let limits = prop_oneof![4 => Just(SaLimits::default()), 1 => (0..30u64).prop_map(limit)];
    (select(kinds), select(suites()), shapes(), limits, any::<bool>(), any::<bool>()).prop_map(
        |((mode, kind), algorithms, shape, outbound_limits, outer_is_ipv6, is_narrow)| {
            let setup = Setup { mode, kind, algorithms, shape, outbound_limits, outer_is_ipv6, ..Setup::default() };
            let narrow = vec![range("10.2.0.1", "10.2.0.3"), everything(false)];
            if is_narrow { Setup { remote: narrow, ..setup } } else { setup }
        },
    )
}

/// What an outbound gateway can be asked afterwards.
pub(crate) fn state(gateway: &mut Gateway) -> impl PartialEq + std::fmt::Debug + use<> {
    let interface = gateway.interface;
    let events = gateway.events();
    (
        gateway.statistics(Direction::Outbound),
        gateway.drops(Direction::Outbound),
        events,
        gateway.dataplane.interface_counters(interface),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// In two turns, so that flows are known in the second one.
    #[test]
    fn packets_become_the_same_in_place_and_copied(
        setup in setups(),
        mtu in prop_oneof![Just(None), select(vec![Some(300), Some(600), Some(1000), Some(1400)])],
        actions in select(vec![None, Some(PolicyAction::Bypass), Some(PolicyAction::Discard)]),
        first in packets(),
        second in packets(),
    ) {
        let gateway = || {
            let (mut left, _) = setup.connect();
            if let Some(octets) = mtu {
                left.set_path_mtu(octets);
            }
            if let Some(action) = actions {
                let other = PolicySpec::protect(PolicyId(1), InterfaceName::new("ipsec0").unwrap(), vec![everything(true)], vec![range("10.2.0.2", "10.2.0.2")]);
                left.dataplane.set_policy(&PolicySpec { action, priority: 1, ..other }).unwrap();
            }
            left
        };
        let (mut in_place, mut copied) = (gateway(), gateway());
        copied.now = in_place.now;
        for packets in [&first, &second, &first] {
            let (one, other) = (in_place.send_in_place(packets).0, copied.send_copied(packets));
            prop_assert_eq!(one, other);
            prop_assert_eq!(state(&mut in_place), state(&mut copied));
        }
    }
}

#[test]
fn packets_of_ah_are_copied_and_the_same() {
    let setup = Setup {
        protocol: IpsecProtocol::Ah,
        algorithms: algorithms(EspCipher::Null, EspIntegrity::HmacSha2_256_128, true),
        encapsulation: espdp_api::Encapsulation::Esp,
        ..Setup::default()
    };
    let (mut in_place, mut copied) = (setup.connect().0, setup.connect().0);
    let packets = [plain(udp(true, 100)), plain(udp(false, 100))];
    assert_eq!(in_place.send_in_place(&packets).0, copied.send_copied(&packets));
    assert_eq!(in_place.send_in_place(&packets).1, 0, "in the end it is known that they have to be copied");
}
