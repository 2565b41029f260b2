//! Super-packets through the tunnel: cut on one side, joined on the other.

use espdp_api::Direction;
use espdp_core::{Offloads, OutboundBatch, VnetHeader};
use proptest::prelude::*;

use crate::in_place::{setups, state};
use crate::support::{INNER, Setup, checksum, ip};

const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

/// A TCP packet with options, its checksum complete.
fn tcp(ipv4: bool, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0x01, 0xbb];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 99, 0x80, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    segment.extend(payload);
    let (source, destination) = if ipv4 { INNER[0] } else { INNER[1] };
    let mut packet = ip(source, destination, 6, 0, &segment);
    fix_transport_checksum(&mut packet);
    packet
}

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

fn pseudo_header(packet: &[u8]) -> Vec<u8> {
    let (addresses, protocol) =
        if packet[0] >> 4 == 4 { (&packet[12..20], packet[9]) } else { (&packet[8..40], packet[6]) };
    let len = (packet.len() - header_len(packet)) as u16;
    [addresses, &[0, protocol], &len.to_be_bytes()].concat()
}

fn checksum_at(packet: &[u8]) -> usize {
    let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
    header_len(packet) + if protocol == 6 { 16 } else { 6 }
}

fn fix_transport_checksum(packet: &mut [u8]) {
    let at = checksum_at(packet);
    packet[at..at + 2].fill(0);
    // RFC 768: zero means that there is none.
    let sum = match checksum(&[&pseudo_header(packet), &packet[header_len(packet)..]]) {
        0 => 0xffff,
        sum => sum,
    };
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn assert_checksums(packet: &[u8]) {
    let (ip, transport) = packet.split_at(header_len(packet));
    if packet[0] >> 4 == 4 {
        assert_eq!(checksum(&[ip]), 0);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
    } else {
        assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len() - 40);
    }
    assert_eq!(checksum(&[&pseudo_header(packet), transport]), 0);
}

/// A UDP packet, its checksum complete.
fn udp(ipv4: bool, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40, 0, 53];
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let (source, destination) = if ipv4 { INNER[0] } else { INNER[1] };
    let mut packet = ip(source, destination, 17, 0, &datagram);
    fix_transport_checksum(&mut packet);
    packet
}

/// The packets that a super-packet with segments of `size` octets stands for.
fn cut(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (ip_len, is_tcp) = (header_len(packet), checksum_at(packet) - header_len(packet) == 16);
    let (headers, payload) = packet.split_at(ip_len + if is_tcp { 32 } else { 8 });
    let count = payload.len().div_ceil(size);
    let segment = |(index, payload): (usize, &[u8])| {
        let mut segment = [headers, payload].concat();
        let (total_len, transport_len) = (segment.len() as u16, (segment.len() - ip_len) as u16);
        if ip_len == 20 {
            let identification = u16::from_be_bytes([headers[4], headers[5]]).wrapping_add(index as u16);
            segment[2..4].copy_from_slice(&total_len.to_be_bytes());
            segment[4..6].copy_from_slice(&identification.to_be_bytes());
            segment[10..12].fill(0);
            let sum = checksum(&[&segment[..20]]);
            segment[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            segment[4..6].copy_from_slice(&transport_len.to_be_bytes());
        }
        if is_tcp {
            let sequence = u32::from_be_bytes(headers[ip_len + 4..][..4].try_into().unwrap());
            let sequence = sequence.wrapping_add((index * size) as u32);
            segment[ip_len + 4..][..4].copy_from_slice(&sequence.to_be_bytes());
            let not_here = if index + 1 < count { FIN | PSH } else { 0 } | if index > 0 { CWR } else { 0 };
            segment[ip_len + 13] &= !not_here;
        } else {
            segment[ip_len + 4..][..2].copy_from_slice(&transport_len.to_be_bytes());
        }
        fix_transport_checksum(&mut segment);
        segment
    };
    payload.chunks(size).enumerate().map(segment).collect()
}

/// The vnet header with which the kernel would hand over a TCP super-packet.
fn tso(packet: &[u8], mss: u16) -> VnetHeader {
    let gso_type = if packet[0] >> 4 == 4 { VnetHeader::GSO_TCPV4 } else { VnetHeader::GSO_TCPV6 };
    let start = header_len(packet) as u16;
    VnetHeader { flags: 1, gso_type, hdr_len: start + 32, gso_size: mss, csum_start: start, csum_offset: 16 }
}

/// The same for a UDP super-packet.
fn uso(packet: &[u8], size: u16) -> VnetHeader {
    let start = header_len(packet) as u16;
    let gso_type = VnetHeader::GSO_UDP_L4;
    VnetHeader { flags: 1, gso_type, hdr_len: start + 8, gso_size: size, csum_start: start, csum_offset: 6 }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

const ALL: Offloads = Offloads { tcp: true, udp: true };

#[test]
fn a_full_tcp_super_packet_is_cut_into_right_segments_and_joined_again() {
    for ipv4 in [true, false] {
        let (mut left, mut right) = Setup::default().connect();
        let data = payload(64_000);
        let original = tcp(ipv4, 0xffff_ff00, ACK | PSH | CWR, &data);
        let mut vnet = tso(&original, 1400);
        vnet.gso_type |= VnetHeader::GSO_ECN;
        let wire = left.send_super(vnet, &original);
        assert_eq!(wire.len(), 46);
        assert!(wire[..45].iter().all(|packet| packet.octets.len() == wire[0].octets.len()));

        let segments = right.receive(&wire);
        let mut collected = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            assert_checksums(segment);
            let start = header_len(segment);
            let sequence = u32::from_be_bytes(segment[start + 4..start + 8].try_into().unwrap());
            assert_eq!(sequence, 0xffff_ff00u32.wrapping_add(index as u32 * 1400));
            let expected_flags = ACK | if index == 0 { CWR } else { 0 } | if index == 45 { PSH } else { 0 };
            assert_eq!(segment[start + 13], expected_flags, "segment {index}");
            if ipv4 {
                assert_eq!(u16::from_be_bytes([segment[4], segment[5]]), 0x1234 + index as u16);
            }
            collected.extend_from_slice(&segment[start + 32..]);
        }
        assert_eq!(collected, data);

        let (_, mut joining) = Setup::default().connect();
        let written = joining.receive_super(&wire, ALL);
        assert_eq!(written.len(), 1);
        let (joined_vnet, joined) = &written[0];
        assert_eq!(*joined_vnet, vnet);
        let mut joined = joined.clone();
        fix_transport_checksum(&mut joined);
        assert!(joined == original, "joined again it is the original");
    }
}

#[test]
fn a_joined_packet_has_the_checksum_of_its_pseudo_header_only() {
    let (mut left, mut right) = Setup::default().connect();
    let original = tcp(true, 1, ACK, &payload(5000));
    let wire = left.send_super(tso(&original, 1000), &original);
    let (vnet, joined) = right.receive_super(&wire, ALL).pop().unwrap();
    let at = usize::from(vnet.csum_start + vnet.csum_offset);
    let partial = !checksum(&[&pseudo_header(&joined)]);
    assert_eq!(joined[at..at + 2], partial.to_be_bytes());
    assert_eq!(checksum(&[&joined[..20]]), 0);
}

#[test]
fn udp_super_packets_are_cut_and_joined_too() {
    for (source, destination) in INNER {
        let (mut left, mut right) = Setup::default().connect();
        let data = payload(10_000);
        let mut datagram = vec![0x13, 0x88, 0x01, 0xbb, 0, 0, 0, 0];
        datagram[4..6].copy_from_slice(&10_008u16.to_be_bytes());
        datagram.extend(&data);
        let mut original = ip(source, destination, 17, 0, &datagram);
        fix_transport_checksum(&mut original);
        let start = header_len(&original) as u16;
        let (flags, gso_type) = (VnetHeader::NEEDS_CSUM, VnetHeader::GSO_UDP_L4);
        let vnet =
            VnetHeader { flags, gso_type, hdr_len: start + 8, gso_size: 1200, csum_start: start, csum_offset: 6 };
        let wire = left.send_super(vnet, &original);
        assert_eq!(wire.len(), 9);
        for (index, segment) in right.receive(&wire).iter().enumerate() {
            assert_checksums(segment);
            let start = header_len(segment);
            let len = if index == 8 { 400 } else { 1200 };
            assert_eq!(segment[start + 4..start + 6], (len as u16 + 8).to_be_bytes());
            assert_eq!(segment[start + 8..], data[index * 1200..index * 1200 + len]);
        }
        let (_, mut joining) = Setup::default().connect();
        let mut written = joining.receive_super(&wire, ALL);
        let (joined_vnet, mut joined) = written.pop().unwrap();
        assert!(written.is_empty());
        assert_eq!(joined_vnet, vnet);
        fix_transport_checksum(&mut joined);
        assert!(joined == original);
    }
}

#[test]
fn a_checksum_that_the_kernel_left_open_is_completed() {
    for ipv4 in [true, false] {
        let (mut left, mut right) = Setup::default().connect();
        let complete = tcp(ipv4, 5, ACK | PSH, &payload(333));
        let mut partial = complete.clone();
        let at = checksum_at(&partial);
        let pseudo = !checksum(&[&pseudo_header(&partial)]);
        partial[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        let start = header_len(&partial) as u16;
        let vnet = VnetHeader { flags: 1, csum_start: start, csum_offset: 16, ..VnetHeader::default() };
        assert_eq!(right.receive(&left.send_super(vnet, &partial)), [complete]);
    }
}

#[test]
fn a_super_packet_that_outgrows_the_batch_goes_on_in_the_next() {
    let (mut left, mut right) = Setup::default().connect();
    let data = payload(40_000);
    let original = tcp(true, 0, ACK, &data);
    let wire = left.send_super(tso(&original, 64), &original);
    assert_eq!(wire.len(), 625);
    assert!(wire.len() > 2 * OutboundBatch::FRAMES);
    let segments = right.receive(&wire);
    segments.iter().for_each(|segment| assert_checksums(segment));
    assert!(segments.iter().flat_map(|segment| &segment[52..]).eq(&data));
}

#[test]
fn vnet_headers_that_do_not_fit_are_refused() {
    let (mut left, _) = Setup::default().connect();
    let packet = tcp(true, 0, ACK, &payload(3000));
    let good = tso(&packet, 1000);
    assert_eq!(left.send_super(good, &packet).len(), 3);
    let bad = [
        VnetHeader { gso_size: 0, ..good },
        VnetHeader { gso_type: VnetHeader::GSO_TCPV6, ..good },
        VnetHeader { gso_type: VnetHeader::GSO_UDP_L4, ..good },
        VnetHeader { gso_type: 3, ..good },
        VnetHeader { flags: 1, gso_type: 0, csum_start: 20, csum_offset: 3100, ..good },
        VnetHeader { flags: 1, gso_type: 0, csum_start: 4, ..good },
        VnetHeader { flags: 1, gso_type: 0, csum_start: u16::MAX, csum_offset: u16::MAX, ..good },
    ];
    for vnet in bad {
        assert!(left.send_super(vnet, &packet).is_empty(), "{vnet:?}");
    }
    let mut cut = packet.clone();
    cut[32] = 0xf0;
    cut.truncate(60);
    cut[2..4].copy_from_slice(&60u16.to_be_bytes());
    assert!(left.send_super(good, &cut).is_empty(), "the TCP header reaches beyond the packet");
    assert_eq!(left.drops(Direction::Outbound), [("bad_vnet_header".to_owned(), bad.len() as u64 + 1)]);
}

/// What arrives when packets are sent one by one and coalesced at the end.
fn joined(packets: &[Vec<u8>]) -> Vec<usize> {
    let (mut left, mut right) = Setup::default().connect();
    let wire: Vec<_> = packets.iter().flat_map(|packet| left.send(packet)).collect();
    let written = right.receive_super(&wire, ALL);
    let lone: Vec<_> = written.iter().filter(|(vnet, _)| *vnet == VnetHeader::default()).collect();
    assert!(lone.iter().all(|(_, packet)| packets.contains(packet)), "what is not joined is untouched");
    written
        .iter()
        .map(
            |(vnet, packet)| {
                if vnet.gso_size == 0 { 1 } else { (packet.len() - 52).div_ceil(usize::from(vnet.gso_size)) }
            },
        )
        .collect()
}

/// Consecutive segments of one flow, with counting IPv4 identifications, and one of them changed.
fn flow(change: impl Fn(usize, &mut Vec<u8>)) -> Vec<Vec<u8>> {
    (0..4)
        .map(|index| {
            let mut packet = tcp(true, 1000 * index as u32, ACK, &payload(1000));
            let identification = 0x1234 + index as u16;
            packet[4..6].copy_from_slice(&identification.to_be_bytes());
            change(index, &mut packet);
            packet[10..12].fill(0);
            let sum = checksum(&[&packet[..20]]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            fix_transport_checksum(&mut packet);
            packet
        })
        .collect()
}

#[test]
fn segments_are_joined_only_where_their_headers_agree() {
    assert_eq!(joined(&flow(|_, _| {})), [4]);
    let third = |change: fn(&mut Vec<u8>)| {
        flow(move |index, packet| {
            if index == 2 {
                change(packet);
            }
        })
    };
    let same_identification = flow(|_, packet| packet[4..6].fill(7));
    assert_eq!(joined(&same_identification), [4], "with DF the identification means nothing");
    assert_eq!(joined(&third(|packet| packet[1] = 3)), [2, 1, 1], "ECN");
    assert_eq!(joined(&third(|packet| packet[8] = 9)), [2, 1, 1], "TTL");
    assert_eq!(joined(&third(|packet| packet[6] = 0)), [2, 1, 1], "DF");
    assert_eq!(joined(&third(|packet| packet[5] = 0x99)), [2, 1, 1], "identification");
    assert_eq!(joined(&third(|packet| packet[19] = 9)), [2, 1, 1], "address");
    assert_eq!(joined(&third(|packet| packet[21] = 9)), [2, 1, 1], "port");
    assert_eq!(joined(&third(|packet| packet[27] = 9)), [2, 1, 1], "sequence");
    assert_eq!(joined(&third(|packet| packet[31] = 9)), [2, 1, 1], "acknowledgement");
    assert_eq!(joined(&third(|packet| packet[35] = 9)), [2, 1, 1], "window");
    assert_eq!(joined(&third(|packet| packet[47] = 9)), [2, 1, 1], "time stamp");
    assert_eq!(joined(&third(|packet| packet[33] |= CWR)), [2, 2], "CWR starts a packet and may only stand there");
    assert_eq!(joined(&third(|packet| packet[33] |= 0x20)), [2, 1, 1], "urgent");
    assert_eq!(joined(&third(|packet| packet[33] |= 0x04)), [2, 1, 1], "reset");
    assert_eq!(joined(&third(|packet| packet[33] |= 0x40)), [2, 1, 1], "ECE");
    assert_eq!(joined(&third(|packet| packet[33] |= PSH)), [3, 1], "PSH ends a packet");
    assert_eq!(joined(&third(|packet| packet[33] |= FIN)), [3, 1], "FIN ends a packet");
}

#[test]
fn a_shorter_segment_ends_a_packet_and_a_longer_one_starts_another() {
    let lens = [1000usize, 1000, 400, 1000, 1200];
    let mut sequence = 0;
    let packets: Vec<_> = lens
        .iter()
        .enumerate()
        .map(|(index, len)| {
            let mut packet = tcp(false, sequence, ACK, &payload(*len));
            sequence += *len as u32;
            packet[7] = 64;
            let _ = index;
            packet
        })
        .collect();
    let (mut left, mut right) = Setup::default().connect();
    let wire: Vec<_> = packets.iter().flat_map(|packet| left.send(packet)).collect();
    let written = right.receive_super(&wire, ALL);
    let lens: Vec<_> = written.iter().map(|(_, packet)| packet.len() - 72).collect();
    assert_eq!(lens, [2400, 1000, 1200]);
}

#[test]
fn a_segment_with_a_wrong_checksum_is_handed_on_as_it_is() {
    for broken in 0..3 {
        let mut packets = flow(|_, _| {});
        *packets[broken].last_mut().unwrap() ^= 1;
        let expected: &[usize] = match broken {
            0 => &[1, 3],
            1 => &[1, 1, 2],
            _ => &[2, 1, 1],
        };
        assert_eq!(joined(&packets), expected, "packet {broken}");
    }
}

#[test]
fn a_segment_with_a_wrong_ipv4_header_checksum_is_handed_on_as_it_is() {
    // Joining computes the header checksum anew: whoever receives the packet could not see the damage any more.
    for (broken, expected) in [(0, &[1, 3][..]), (1, &[1, 1, 2]), (2, &[2, 1, 1])] {
        let mut packets = flow(|_, _| {});
        packets[broken][10] ^= 1;
        assert_eq!(joined(&packets), expected, "packet {broken}");
    }
}

#[test]
fn acknowledgements_and_offloads_not_offered_are_left_alone() {
    let acks: Vec<_> = (0..3).map(|_| tcp(true, 7, ACK, &[])).collect();
    assert_eq!(joined(&acks), [1, 1, 1]);
    let (mut left, mut right) = Setup::default().connect();
    let wire: Vec<_> = flow(|_, _| {}).iter().flat_map(|packet| left.send(packet)).collect();
    assert_eq!(right.receive_super(&wire, Offloads { tcp: false, udp: true }).len(), 4);
}

proptest! {
    #[test]
    fn cutting_and_joining_keep_every_octet(
        ipv4 in any::<bool>(),
        len in 1usize..20_000,
        mss in 100u16..3000,
        sequence in any::<u32>(),
        flags in proptest::sample::select(vec![ACK, ACK | PSH, ACK | FIN]),
    ) {
        let (mut left, mut right) = Setup::default().connect();
        let original = tcp(ipv4, sequence, flags, &payload(len));
        let wire = left.send_super(tso(&original, mss), &original);
        prop_assert_eq!(wire.len(), len.div_ceil(usize::from(mss)));
        let mut stream = Vec::new();
        for (_, packet) in right.receive_super(&wire, ALL) {
            stream.extend_from_slice(&packet[header_len(&packet) + 32..]);
        }
        prop_assert_eq!(stream, payload(len));
    }

    /// Segments of a super-packet go a way of their own, which must lead to the same place as that of packets that come one by one.
    #[test]
    fn segments_become_what_they_become_as_packets_of_their_own(
        setup in setups(),
        packets in proptest::collection::vec(
            (any::<[bool; 2]>(), 1usize..20_000, 100u16..1400, any::<u32>(), any::<u8>()),
            1..12,
        ),
    ) {
        let packets: Vec<_> = packets.into_iter().map(|([is_ipv4, is_tcp], len, size, sequence, flags)| {
            if is_tcp {
                let original = tcp(is_ipv4, sequence, flags & (FIN | PSH | CWR) | ACK, &payload(len));
                (tso(&original, size), original)
            } else {
                let original = udp(is_ipv4, &payload(len));
                (uso(&original, size), original)
            }
        }).collect();
        let cut = |(vnet, original): &(VnetHeader, Vec<u8>)| cut(original, usize::from(vnet.gso_size));
        let one_by_one: Vec<_> = packets.iter().flat_map(cut).map(|packet| (VnetHeader::default(), packet)).collect();
        let (mut together, mut alone) = (setup.connect().0, setup.connect().0);
        alone.now = together.now;
        for _ in 0..2 {
            let is_same = together.send_copied(&packets) == alone.send_copied(&one_by_one);
            prop_assert!(is_same, "what is sent differs");
            // A super-packet that is refused is one drop, where packets are one each.
            if alone.drops(Direction::Outbound).is_empty() {
                prop_assert_eq!(state(&mut together), state(&mut alone));
            }
        }
    }
}
