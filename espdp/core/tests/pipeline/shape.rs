//! Packets of every shape: too long, with options and extension headers, filled up, and none at all.

use std::time::Duration;

use espdp_api::{
    DfPolicy, Direction, Encapsulation, EspCipher, EspIntegrity, FlowLabelPolicy, FragmentPolicy, HopLimitPolicy, Mode,
    MssPolicy, PacketShape, PaddingPolicy,
};
use espdp_core::{Fragmenter, Overhead, VnetHeader};
use proptest::prelude::*;

use crate::support::{INNER, POLICY, Setup, UDP, algorithms, checksum, ip, range, udp, udp_between};

fn shaped(shape: PacketShape) -> Setup {
    Setup { shape, ..Setup::default() }
}

/// What a path of `octets` leaves inside of the default SA.
fn inner_mtu(octets: usize) -> usize {
    overhead().inner_mtu(octets)
}

fn overhead() -> Overhead {
    let Setup { algorithms, mode, encapsulation, outer_is_ipv6, .. } = Setup::default();
    Overhead::new(algorithms, mode, encapsulation, outer_is_ipv6)
}

/// A UDP packet of `len` octets in all that may be fragmented.
fn fragmentable(len: usize) -> Vec<u8> {
    let mut packet = udp(true, len - 28);
    packet[6] = 0;
    fix_header(&mut packet);
    packet
}

fn fix_header(packet: &mut [u8]) {
    let header_len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..header_len]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The MTU in an ICMP answer.
fn told_mtu(answer: &[u8]) -> usize {
    let icmp = if answer[0] >> 4 == 4 { &answer[20..] } else { &answer[40..] };
    u32::from_be_bytes(icmp[4..8].try_into().unwrap()) as usize
}

/// R4301-8.2.1-1.
#[test]
fn what_is_too_long_by_an_octet_is_refused_and_its_sender_told_what_fits() {
    for (ipv4, path_mtu) in [(true, 1500), (true, 577), (false, 1500), (false, 9000)] {
        let (mut left, mut right) = Setup::default().connect();
        left.set_path_mtu(path_mtu);
        let fits = inner_mtu(path_mtu);
        let packet = |len: usize| udp(ipv4, len - if ipv4 { 28 } else { 48 });
        assert_eq!(right.receive(&left.send(&packet(fits))), [packet(fits)]);
        assert!(left.answers.is_empty());
        assert!(left.send(&packet(fits + 1)).is_empty());
        let answers = std::mem::take(&mut left.answers);
        assert_eq!(answers.iter().map(|answer| told_mtu(answer)).collect::<Vec<_>>(), [fits]);
        assert_eq!(left.drops(Direction::Outbound), [("too_big".to_owned(), 1)]);
    }
}

#[test]
fn answers_are_not_given_without_end() {
    let (mut left, _) = Setup::default().connect();
    left.set_path_mtu(1000);
    for _ in 0..1000 {
        left.send(&udp(true, 1200));
    }
    assert_eq!(left.answers.len(), 100);
    left.pass(500);
    left.send(&udp(true, 1200));
    assert_eq!(left.answers.len(), 101);
}

#[test]
fn ipv6_is_never_told_of_less_than_1280_octets_and_goes_in_outer_fragments_up_to_there() {
    let (mut left, mut right) = Setup::default().connect();
    left.set_path_mtu(1000);
    assert!(left.send(&udp(false, 1300)).is_empty());
    assert_eq!(told_mtu(&left.answers[0]), 1280);
    let packet = udp(false, 1280 - 48);
    let wire = left.send(&packet);
    assert_eq!((wire.len(), wire[0].outer.dont_fragment), (1, false));
    assert_eq!(right.receive(&wire), [packet]);
}

#[test]
fn ipv4_without_df_is_fragmented_inside_and_every_fragment_fits() {
    let (mut left, mut right) = Setup::default().connect();
    left.set_path_mtu(1000);
    let whole = fragmentable(2900);
    let wire = left.send(&whole);
    assert_eq!(wire.len(), 4);
    let around = 20 + 8;
    assert!(wire.iter().all(|packet| packet.octets.len() + around <= 1000 && packet.outer.dont_fragment));
    let fragmenter = Fragmenter::new(&whole, inner_mtu(1000)).unwrap();
    let expected: Vec<_> = (0..fragmenter.count())
        .map(|index| {
            let mut fragment = vec![0; fragmenter.len(index)];
            fragmenter.write(index, &mut fragment).unwrap();
            fragment
        })
        .collect();
    assert_eq!(right.receive(&wire), expected);
    assert!(left.answers.is_empty());
}

#[test]
fn fragments_of_a_packet_that_outgrows_the_batch_are_not_sent_twice() {
    let (mut left, mut right) = Setup::default().connect();
    left.set_path_mtu(600);
    let whole = fragmentable(65_000);
    let mut data = Vec::new();
    for fragment in right.receive(&left.send(&whole)) {
        let offset = usize::from(u16::from_be_bytes([fragment[6] & 0x1f, fragment[7]])) * 8;
        assert_eq!(offset, data.len());
        data.extend_from_slice(&fragment[20..]);
    }
    assert_eq!(data, whole[20..]);
}

#[test]
fn fragmentation_after_encryption_leaves_the_packet_whole() {
    let after = PacketShape { fragment: FragmentPolicy::After, ..PacketShape::default() };
    for (df, packet, passes) in [
        (DfPolicy::Set, udp(true, 1200), true),
        (DfPolicy::Set, udp(false, 1200), true),
        (DfPolicy::Copy, fragmentable(1200), true),
        (DfPolicy::Copy, udp(true, 1200), false),
    ] {
        let (mut left, mut right) = shaped(PacketShape { df, ..after }).connect();
        left.set_path_mtu(800);
        let wire = left.send(&packet);
        assert_eq!(wire.len(), usize::from(passes), "{df:?}");
        assert!(wire.iter().all(|packet| !packet.outer.dont_fragment && packet.outer.cut_to.is_none()));
        assert_eq!(right.receive(&wire).len(), wire.len());
        assert_eq!(left.answers.len(), usize::from(!passes));
    }
}

#[test]
fn an_sa_for_one_port_gets_its_long_packets_fragmented_outside() {
    let mut dns = crate::support::everything(true);
    (dns.protocol, dns.ports) = (17, espdp_api::PortRange { start: 53, end: 53 });
    let (mut left, mut right) = Setup { remote: vec![dns], ..Setup::default() }.connect();
    left.set_path_mtu(1000);
    let wire = left.send(&fragmentable(1400));
    assert_eq!((wire.len(), wire[0].outer.dont_fragment), (1, false));
    assert_eq!(right.receive(&wire), [fragmentable(1400)]);
}

fn transport(outer_is_ipv6: bool) -> Setup {
    Setup { mode: Mode::Transport, encapsulation: Encapsulation::Esp, outer_is_ipv6, ..Setup::default() }
}

/// RFC 4303 §3.3.4: transport mode protects whole packets, so they are fragmented afterwards.
#[test]
fn transport_mode_keeps_df_and_asks_for_outer_fragments() {
    let (mut left, mut right) = transport(false).connect();
    left.set_path_mtu(1000);
    let mut packet = udp_between("192.0.2.1", "192.0.2.2", 0, 1200);
    assert!(left.send(&packet).is_empty());
    let overhead = Overhead { kept_header: 20, ..overhead() };
    let fits = Overhead { udp: 0, ..overhead }.inner_mtu(1000);
    assert_eq!(told_mtu(&left.answers[0]), fits);
    packet[6] = 0;
    fix_header(&mut packet);
    let wire = left.send(&packet);
    assert_eq!((wire.len(), wire[0].outer.cut_to), (1, Some(1000)));
    let whole = [&wire[0].header[..], &wire[0].octets].concat();
    assert_eq!(Fragmenter::new(&whole, 1000).unwrap().count(), 2);
    assert_eq!(right.receive(&wire), [packet]);
}

#[test]
fn transport_mode_keeps_ttl_identification_and_options_outside() {
    let (mut left, mut right) = transport(false).connect();
    let mut packet = udp_between("192.0.2.1", "192.0.2.2", 0xb8, 100);
    // Router alert and padding.
    packet.splice(20..20, [148, 4, 0, 0, 1, 1, 1, 0]);
    packet[0] = 0x47;
    packet[3] += 8;
    packet[8] = 7;
    fix_header(&mut packet);
    let wire = left.send(&packet);
    let header = &wire[0].header;
    assert_eq!(header.len(), 28);
    assert_eq!((header[8], header[9], &header[4..8], &header[12..]), (7, 50, &packet[4..8], &packet[12..28]));
    assert_eq!(checksum(&[header]), 0);
    assert_eq!(usize::from(u16::from_be_bytes([header[2], header[3]])), header.len() + wire[0].octets.len());
    let mut onward = wire.clone();
    // A router on the way.
    onward[0].header[8] = 5;
    fix_header(&mut onward[0].header);
    packet[8] = 5;
    fix_header(&mut packet);
    assert_eq!(right.receive(&onward), [packet]);
}

/// RFC 4303 §3.1.1.
#[test]
fn extension_headers_in_every_order_stay_on_their_side_of_esp() {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const OPTIONS: u8 = 60;
    let chains: [(&[u8], usize); 7] = [
        (&[], 0),
        (&[HOP_BY_HOP], 1),
        (&[OPTIONS], 0),
        (&[HOP_BY_HOP, OPTIONS], 1),
        (&[OPTIONS, ROUTING], 2),
        (&[HOP_BY_HOP, ROUTING, OPTIONS], 2),
        (&[HOP_BY_HOP, OPTIONS, ROUTING, OPTIONS], 3),
    ];
    for (chain, outside) in chains {
        let mut kinds = chain.iter().copied().chain([17]);
        let first = kinds.next().unwrap();
        let mut payload: Vec<u8> = kinds.flat_map(|next| [next, 0, 1, 4, 0, 0, 0, 0]).collect();
        payload.extend([0x10, 1, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);
        let (mut left, mut right) = transport(true).connect();
        let packet = ip("2001:db8::1", "2001:db8::2", first, 0, &payload);
        let wire = left.send(&packet);
        let header = &wire[0].header;
        assert_eq!(header.len(), 40 + 8 * outside, "{chain:?}");
        // The kernel processes what stands outside; what was inside comes back.
        let received = right.receive(&wire);
        let inside = chain.get(outside).copied().unwrap_or(17);
        assert_eq!(received[0][6], inside, "{chain:?}");
        assert_eq!(received[0][40..], payload[8 * outside..], "{chain:?}");
        assert_eq!(received[0][7], packet[7], "the hop limit is as received");
    }
}

#[test]
fn padding_hides_the_length_of_packets_and_the_peer_cuts_it_off() {
    let to = |padding| PacketShape { padding, ..PacketShape::default() };
    for (shape, expected) in [(to(PaddingPolicy::To(600)), 600), (to(PaddingPolicy::ToPathMtu), inner_mtu(1500))] {
        let (mut left, mut right) = shaped(shape).connect();
        left.set_path_mtu(1500);
        for len in [0, 1, 100, 500] {
            for ipv4 in [true, false] {
                let wire = left.send(&udp(ipv4, len));
                assert_eq!(wire[0].octets.len() + 28, overhead().outer_len(expected), "{len}");
                assert_eq!(right.receive(&wire), [udp(ipv4, len)]);
            }
        }
        let long = udp(true, 1000);
        assert_eq!(right.receive(&left.send(&long)), [long]);
    }
    let (mut left, _) = shaped(to(PaddingPolicy::ToPathMtu)).connect();
    assert_eq!(left.send(&udp(true, 10))[0].octets.len() + 28, overhead().outer_len(38), "the path is not known");
}

/// R4303-2.6-1.
#[test]
fn silence_is_filled_with_dummies_that_the_peer_drops() {
    let interval = Duration::from_secs(2);
    let padding = PaddingPolicy::To(300);
    let shape = PacketShape { dummy_interval: Some(interval), padding, ..PacketShape::default() };
    let (mut left, mut right) = shaped(shape).connect();
    let real = left.send(&udp(true, 10));
    let start = left.now;
    left.pass(500);
    assert_eq!(left.send_dummies(), (vec![], Some(start + interval)));
    left.pass(1500);
    let (dummies, next) = left.send_dummies();
    assert_eq!((dummies.len(), next), (1, Some(start + 2 * interval)));
    assert_eq!(dummies[0].octets.len(), real[0].octets.len(), "a dummy looks like a packet");
    assert_eq!(dummies[0].outer, real[0].outer);
    assert_eq!(right.receive(&real).len(), 1);
    assert!(right.receive(&dummies).is_empty());
    assert_eq!(right.drops(Direction::Inbound), [("dummy".to_owned(), 1)]);
    left.send(&udp(true, 10));
    assert_eq!(left.send_dummies(), (vec![], Some(start + 2 * interval)), "the SA is not silent");
    assert!(!Setup::default().connect().0.dataplane.sends_dummies());
}

/// A SYN with an MSS option.
fn syn(ipv4: bool, mss: u16) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4];
    segment.extend(mss.to_be_bytes());
    let (source, destination) = if ipv4 { INNER[0] } else { INNER[1] };
    let mut packet = ip(source, destination, 6, 0, &segment);
    let at = packet.len() - 24;
    let sum = checksum(&[&pseudo_header(&packet), &packet[at..]]);
    packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn pseudo_header(packet: &[u8]) -> Vec<u8> {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    [addresses, &[0, 6, 0, 24]].concat()
}

fn announced(packet: &[u8]) -> u16 {
    let at = packet.len() - 24;
    assert_eq!(checksum(&[&pseudo_header(packet), &packet[at..]]), 0);
    u16::from_be_bytes([packet[at + 22], packet[at + 23]])
}

#[test]
fn tcp_is_told_what_fits_in_both_directions() {
    for ipv4 in [true, false] {
        let fits = if ipv4 { inner_mtu(1300) - 40 } else { 1280 - 60 };
        let cases = [(MssPolicy::Automatic, fits as u16), (MssPolicy::Keep, 1460), (MssPolicy::AtMost(700), 700)];
        for (mss, expected) in cases {
            let setup = shaped(PacketShape { mss, ..PacketShape::default() });
            let (mut left, mut right) = setup.connect();
            left.set_path_mtu(1300);
            assert_eq!(announced(&right.receive(&left.send(&syn(ipv4, 1460)))[0]), expected, "{mss:?} on the way out");
            assert_eq!(announced(&right.receive(&left.send(&syn(ipv4, 536)))[0]), 536);
            let (mut left, mut right) = setup.connect();
            right.set_path_mtu(1300);
            assert_eq!(announced(&right.receive(&left.send(&syn(ipv4, 1460)))[0]), expected, "{mss:?} on the way in");
        }
    }
}

#[test]
fn tcp_is_told_nothing_any_more_when_the_sa_is_gone_that_it_had_to_fit() {
    let (mut left, mut right) = shaped(PacketShape::default()).connect();
    right.set_path_mtu(1300);
    assert!(announced(&right.receive(&left.send(&syn(true, 1460)))[0]) < 1300);
    let spi = right.outbound_spi.unwrap();
    right.dataplane.remove_sa(Direction::Outbound, spi, POLICY, right.now).unwrap();
    assert_eq!(announced(&right.receive(&left.send(&syn(true, 1460)))[0]), 1460);
}

/// R4301-6.2-1.
#[test]
fn icmp_errors_pass_only_about_packets_that_the_sa_would_carry() {
    let (here, there) = (range("10.1.0.0", "10.1.255.255"), range("10.2.0.0", "10.2.255.255"));
    let (mut left, mut right) = Setup { local: vec![here], remote: vec![there], ..Setup::default() }.connect();
    let error = |about: &[u8]| {
        let mut icmp = [&[3, 4, 0, 0, 0, 0, 5, 0], &about[..28]].concat();
        let sum = checksum(&[&icmp]);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        ip("10.2.0.1", "10.1.0.1", 1, 0, &icmp)
    };
    let about_this_tunnel = error(&udp_between("10.1.0.1", "10.2.0.9", 0, 1400));
    assert_eq!(left.receive(&right.send(&about_this_tunnel)), [about_this_tunnel]);
    for other in [udp_between("10.1.0.1", "198.51.100.1", 0, 1400), udp_between("10.2.0.9", "10.1.0.1", 0, 1400)] {
        assert!(left.receive(&right.send(&error(&other))).is_empty());
    }
    assert_eq!(left.drops(Direction::Inbound), [("selectors".to_owned(), 2)]);
}

#[test]
fn hop_limit_and_flow_label_of_the_outer_header_are_fixed_copied_or_hashed() {
    let shape = |hop_limit, flow_label| PacketShape { hop_limit, flow_label, ..PacketShape::default() };
    let setup = |shape, outer_is_ipv6| Setup { outer_is_ipv6, ..shaped(shape) };
    let send = |shape, packet: &[u8]| setup(shape, true).connect().0.send(packet)[0].outer;
    let packet = udp(false, 10);
    let plain = send(PacketShape::default(), &packet);
    assert_eq!((plain.hop_limit, plain.flow_label), (64, 0));
    let copied = send(shape(HopLimitPolicy::Copy, FlowLabelPolicy::Copy), &packet);
    assert_eq!((copied.hop_limit, copied.flow_label), (63, 0x000a_bcde));
    let hash = shape(HopLimitPolicy::Fixed(9), FlowLabelPolicy::Hash);
    let (mut left, _) = setup(hash, true).connect();
    let mut label = |packet: &[u8]| left.send(packet)[0].outer.flow_label;
    let (one, again, other) = (label(&packet), label(&packet), label(&udp_between("fd01::1", "fd02::2", 0, 10)));
    assert!(one == again && one != other && (1..1 << 20).contains(&one), "{one:05x} {other:05x}");
    for flow_label in [FlowLabelPolicy::Copy, FlowLabelPolicy::Hash] {
        let (mut left, _) = setup(shape(HopLimitPolicy::Fixed(9), flow_label), false).connect();
        assert_eq!(left.send(&packet)[0].outer.flow_label, 0, "an IPv4 header has none");
    }
}

#[test]
fn a_super_packet_whose_segments_are_too_long_is_answered_once_with_the_first_segment() {
    let (mut left, _) = Setup::default().connect();
    left.set_path_mtu(1000);
    let mut segment = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 16, 0xff, 0xff, 0, 0, 0, 0];
    segment.extend([7; 5000]);
    let packet = ip(INNER[0].0, INNER[0].1, 6, 0, &segment);
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        hdr_len: 40,
        gso_size: 1200,
        csum_start: 20,
        csum_offset: 16,
    };
    assert!(left.send_super(vnet, &packet).is_empty());
    assert_eq!(left.answers.len(), 1);
    let quoted = &left.answers[0][28..];
    assert_eq!(u16::from_be_bytes([quoted[2], quoted[3]]), 1240);
    assert_eq!(checksum(&[&quoted[..20]]), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is sent fits the path or asks for outer fragments, and arrives.
    #[test]
    fn nothing_that_must_not_be_fragmented_is_longer_than_the_path(
        len in 28usize..4000,
        path_mtu in 576usize..3000,
        may_be_cut: bool,
        is_cbc: bool,
        padding in prop_oneof![Just(PaddingPolicy::None), Just(PaddingPolicy::ToPathMtu), (100u16..2000).prop_map(PaddingPolicy::To)],
        fragment in prop_oneof![Just(FragmentPolicy::Before), Just(FragmentPolicy::After)],
    ) {
        let cbc = algorithms(EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha2_256_128, false);
        let shape = PacketShape { padding, fragment, ..PacketShape::default() };
        let setup = if is_cbc { Setup { algorithms: cbc, ..shaped(shape) } } else { shaped(shape) };
        let (mut left, mut right) = setup.connect();
        left.set_path_mtu(path_mtu);
        let packet = if may_be_cut { fragmentable(len) } else { udp(true, len - 28) };
        let wire = left.send(&packet);
        for packet in &wire {
            prop_assert_eq!(packet.path.encapsulation, UDP);
            prop_assert!(packet.octets.len() + 28 <= path_mtu || !packet.outer.dont_fragment);
        }
        let data: Vec<u8> = right.receive(&wire).iter().flat_map(|fragment| fragment[20..].to_vec()).collect();
        if left.answers.is_empty() {
            prop_assert_eq!(&data, &packet[20..]);
        } else {
            prop_assert!(!may_be_cut && wire.is_empty() && fragment == FragmentPolicy::Before);
        }
    }
}
