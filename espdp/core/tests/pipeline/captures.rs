//! Packets are copied on both sides of both gateways.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use espdp_api::{
    CaptureRemark, CaptureSpec, CapturedPacket, Direction, Encapsulation, InterfaceKind, InterfaceName, IpsecProtocol,
    Layer, Mode, PolicyAction, PolicyId, PolicySpec, Protection, Viewpoint, Vxlan,
};
use espdp_core::{CaptureSink, VnetHeader};

use crate::support::{Gateway, POLICY, Setup, everything, ip, range, udp};

/// Keeps what is captured, as far as there is room.
#[derive(Clone, Debug, Default)]
struct Kept {
    packets: Arc<Mutex<Vec<CapturedPacket>>>,
    lost: Arc<Mutex<Vec<Viewpoint>>>,
    is_full: bool,
}

impl CaptureSink for Kept {
    fn has_room(&self, _octets: usize) -> bool {
        !self.is_full
    }

    fn put(&mut self, packet: CapturedPacket) {
        self.packets.lock().unwrap().push(packet);
    }

    fn lose(&mut self, viewpoint: Viewpoint) {
        self.lost.lock().unwrap().push(viewpoint);
    }
}

impl Kept {
    fn take(&self) -> Vec<CapturedPacket> {
        std::mem::take(&mut self.packets.lock().unwrap())
    }
}

fn everywhere() -> CaptureSpec {
    CaptureSpec { inside: true, outside: true, snaplen: 65535, policies: None, most_per_second: 1000 }
}

fn capture(gateway: &mut Gateway, spec: CaptureSpec) -> Kept {
    let kept = Kept::default();
    gateway.dataplane.capture(gateway.now, SystemTime::UNIX_EPOCH, spec, Box::new(kept.clone()));
    kept
}

fn ipsec0() -> Viewpoint {
    Viewpoint::Inside(InterfaceName::new("ipsec0").unwrap())
}

fn places(packets: &[CapturedPacket]) -> Vec<(Viewpoint, Direction)> {
    packets.iter().map(|packet| (packet.viewpoint.clone(), packet.direction)).collect()
}

/// Why packets were dropped, and the SPI of each.
fn drops(packets: &[CapturedPacket]) -> Vec<(Viewpoint, String, Option<u32>)> {
    let dropped = |packet: &CapturedPacket| match &packet.remark {
        Some(CaptureRemark::Dropped(reason)) => {
            Some((packet.viewpoint.clone(), reason.clone(), packet.sa.map(|sa| sa.spi)))
        }
        _ => None,
    };
    packets.iter().filter_map(dropped).collect()
}

#[test]
fn a_packet_is_seen_on_both_sides_of_both_gateways() {
    for (encapsulation, outer_is_ipv6) in [
        (crate::support::UDP, false),
        (Encapsulation::Esp, false),
        (crate::support::UDP, true),
        (Encapsulation::Esp, true),
    ] {
        let (mut left, mut right) = Setup { encapsulation, outer_is_ipv6, ..Setup::default() }.connect();
        let (of_left, of_right) = (capture(&mut left, everywhere()), capture(&mut right, everywhere()));
        left.pass(1500);
        let packet = udp(true, 100);
        let wire = left.send(&packet);
        right.receive(&wire);
        let (sent, received) = (of_left.take(), of_right.take());
        assert_eq!(places(&sent), [(ipsec0(), Direction::Outbound), (Viewpoint::Outside, Direction::Outbound)]);
        assert_eq!(places(&received), [(Viewpoint::Outside, Direction::Inbound), (ipsec0(), Direction::Inbound)]);
        assert_eq!((&sent[0].octets, &received[1].octets), (&packet, &packet));
        assert_eq!(sent[0].at, SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        // The outer headers are those that the kernel writes.
        let front = if outer_is_ipv6 { 40 } else { 20 } + if encapsulation == Encapsulation::Esp { 0 } else { 8 };
        for outer in [&sent[1], &received[0]] {
            assert_eq!(outer.octets.len(), front + wire[0].octets.len());
            assert!(outer.octets.ends_with(&wire[0].octets));
            assert_eq!(outer.octets[0] >> 4, if outer_is_ipv6 { 6 } else { 4 });
        }
        let spi = right.inbound_spi.value();
        assert!(sent.iter().chain(&received).all(|packet| packet.sa.is_some_and(|sa| sa.spi == spi)));
        assert!(sent.iter().chain(&received).all(|packet| packet.remark.is_none() && packet.layer == Layer::Ip));
    }
}

#[test]
fn each_packet_that_is_dropped_says_why_and_by_whom() {
    let (mut left, mut right) = Setup::default().connect();
    let wire = left.send(&udp(true, 50));
    let (of_left, of_right) = (capture(&mut left, everywhere()), capture(&mut right, everywhere()));
    assert!(left.send(&[0x45; 9]).is_empty());
    assert_eq!(drops(&of_left.take()), [(ipsec0(), "malformed".to_owned(), None)]);
    let spi = right.inbound_spi.value();
    let mut forged = wire.clone();
    forged[0].octets[30] ^= 1;
    right.receive(&forged);
    right.receive(&wire);
    right.receive(&wire);
    let mut strange = wire.clone();
    strange[0].octets[0] ^= 0x80;
    right.receive(&strange);
    strange[0].octets.truncate(5);
    right.receive(&strange);
    let outside = |reason: &str, spi| (Viewpoint::Outside, reason.to_owned(), spi);
    let expected = [
        outside("bad_icv", Some(spi)),
        outside("replay", Some(spi)),
        outside("unknown_spi", None),
        outside("short", None),
    ];
    assert_eq!(drops(&of_right.take()), expected);
}

#[test]
fn each_of_the_dropped_packets_of_a_batch_has_its_own_reason() {
    let (mut left, mut right) = Setup::default().connect();
    let mut wire: Vec<_> = (0..7).flat_map(|_| left.send(&udp(true, 50))).collect();
    wire[1].octets[30] ^= 1;
    wire[4] = wire[3].clone();
    wire[6].octets[30] ^= 1;
    let kept = capture(&mut right, CaptureSpec { inside: false, ..everywhere() });
    right.receive(&wire);
    let reasons: Vec<_> = kept.take().into_iter().map(|packet| packet.remark).collect();
    let dropped = |reason: &str| Some(CaptureRemark::Dropped(reason.to_owned()));
    let (forged, again) = (dropped("bad_icv"), dropped("replay"));
    assert_eq!(reasons, [None, forged.clone(), None, None, again, None, forged]);
}

#[test]
fn what_was_decrypted_and_refused_is_seen_inside() {
    let narrow = Setup { local: vec![range("10.1.0.0", "10.1.0.255")], ..Setup::default() };
    let (mut left, _) = Setup::default().connect();
    let (_, mut right) = narrow.connect();
    let kept = capture(&mut right, CaptureSpec { outside: false, ..everywhere() });
    let packet = ip("198.51.100.1", "10.2.0.1", 17, 0, &[0; 30]);
    // All setups make their SAs of the same seeds.
    right.receive(&left.send(&packet));
    let seen = kept.take();
    assert_eq!(drops(&seen), [(ipsec0(), "selectors".to_owned(), Some(right.inbound_spi.value()))]);
    assert_eq!(seen[0].octets, packet);
}

#[test]
fn only_one_side_is_seen_if_only_that_is_asked_for_and_no_more_of_a_packet_than_wanted() {
    let (mut left, mut right) = Setup::default().connect();
    let inside = capture(&mut left, CaptureSpec { outside: false, snaplen: 40, ..everywhere() });
    let outside = capture(&mut right, CaptureSpec { inside: false, snaplen: 40, ..everywhere() });
    let wire = left.send(&udp(true, 1000));
    right.receive(&wire);
    let (inside, outside) = (inside.take(), outside.take());
    assert_eq!(
        (places(&inside), places(&outside)),
        (vec![(ipsec0(), Direction::Outbound)], vec![(Viewpoint::Outside, Direction::Inbound)],)
    );
    assert_eq!((inside[0].octets.len(), inside[0].len), (40, 1028));
    assert_eq!((outside[0].octets.len(), outside[0].len), (40, 28 + wire[0].octets.len()));
}

#[test]
fn packets_of_other_policies_are_left_out() {
    let (mut left, _) = Setup::default().connect();
    let discard = PolicySpec {
        action: PolicyAction::Discard,
        priority: 1,
        ..PolicySpec::protect(
            PolicyId(9),
            InterfaceName::new("ipsec0").unwrap(),
            vec![everything(true)],
            vec![range("10.9.0.0", "10.9.255.255")],
        )
    };
    left.dataplane.set_policy(&discard).unwrap();
    let refused = ip("10.1.0.1", "10.9.0.1", 17, 0, &[0; 30]);
    let kept = capture(&mut left, CaptureSpec { policies: Some(vec![POLICY]), ..everywhere() });
    left.send(&udp(true, 50));
    assert!(left.send(&refused).is_empty());
    assert_eq!(places(&kept.take()), [(ipsec0(), Direction::Outbound), (Viewpoint::Outside, Direction::Outbound)]);
    left.dataplane.set_captured_policies(Some(vec![PolicyId(9)]));
    left.send(&udp(true, 50));
    left.send(&refused);
    assert_eq!(drops(&kept.take()), [(ipsec0(), "discard".to_owned(), None)]);
}

#[test]
fn what_has_no_room_or_comes_too_fast_is_counted() {
    let (mut left, _) = Setup::default().connect();
    let full = Kept { is_full: true, ..Kept::default() };
    left.dataplane.capture(left.now, SystemTime::UNIX_EPOCH, everywhere(), Box::new(full.clone()));
    left.send(&udp(true, 50));
    assert!(full.take().is_empty());
    assert_eq!(*full.lost.lock().unwrap(), [ipsec0(), Viewpoint::Outside]);
    let slow = capture(&mut left, CaptureSpec { most_per_second: 3, ..everywhere() });
    for _ in 0..4 {
        left.send(&udp(true, 50));
    }
    assert_eq!((slow.take().len(), slow.lost.lock().unwrap().len()), (3, 5));
    left.pass(1000);
    left.send(&udp(true, 50));
    assert_eq!(slow.take().len(), 2);
    left.dataplane.end_capture();
    left.send(&udp(true, 50));
    assert!(slow.take().is_empty());
    assert_eq!(Arc::strong_count(&slow.packets), 1, "the sink is dropped");
}

/// What is inside of packets from the wire is looked at when it goes further and when it is refused: it counts once.
#[test]
fn what_is_received_without_room_or_too_fast_is_counted() {
    let narrow = Setup { local: vec![range("10.1.0.0", "10.1.0.255")], ..Setup::default() };
    let (mut left, _) = Setup::default().connect();
    for (source, passes) in [("10.1.0.1", true), ("198.51.100.1", false)] {
        let (_, mut right) = narrow.connect();
        let packet = ip(source, "10.2.0.1", 17, 0, &[0; 30]);
        let mut wire: Vec<_> = (0..6).flat_map(|_| left.send(&packet)).collect();
        let full = Kept { is_full: true, ..Kept::default() };
        right.dataplane.capture(right.now, SystemTime::UNIX_EPOCH, everywhere(), Box::new(full.clone()));
        assert_eq!(right.receive(&wire.split_off(5)).len(), usize::from(passes));
        assert!(full.take().is_empty());
        assert_eq!(*full.lost.lock().unwrap(), [Viewpoint::Outside, ipsec0()]);
        let slow = capture(&mut right, CaptureSpec { most_per_second: 5, ..everywhere() });
        right.receive(&wire.split_off(1));
        assert_eq!((slow.take().len(), slow.lost.lock().unwrap().len()), (5, 3));
        right.pass(1000);
        right.receive(&wire);
        assert_eq!(places(&slow.take()), [(Viewpoint::Outside, Direction::Inbound), (ipsec0(), Direction::Inbound)]);
    }
}

/// Packets that are wrapped where they are read are seen outside; they are read elsewhere as long as the inside is looked at.
#[test]
fn a_look_at_the_outside_leaves_packets_where_they_are_read() {
    let (mut left, _) = Setup::default().connect();
    let packets: Vec<_> = (0..5).map(|_| (VnetHeader::default(), udp(true, 100))).collect();
    left.send_in_place(&packets);
    let kept = capture(&mut left, CaptureSpec { inside: false, ..everywhere() });
    let (sent, in_place) = left.send_in_place(&packets);
    assert_eq!((sent.wire.len(), in_place, kept.take().len()), (5, 5, 5));
    let kept = capture(&mut left, everywhere());
    let (sent, in_place) = left.send_in_place(&packets);
    assert_eq!((sent.wire.len(), in_place, kept.take().len()), (5, 0, 10));
}

#[test]
fn super_packets_are_one_inside_and_many_outside() {
    let (mut left, _) = Setup::default().connect();
    let kept = capture(&mut left, everywhere());
    let vnet = VnetHeader { gso_type: 5, hdr_len: 28, gso_size: 400, ..VnetHeader::default() };
    let mut packet = udp(true, 1000);
    // A pseudo-header's checksum would be there.
    packet[26..28].fill(0);
    let vnet = VnetHeader { flags: VnetHeader::NEEDS_CSUM, csum_start: 20, csum_offset: 6, ..vnet };
    let wire = left.send_super(vnet, &packet);
    let seen = kept.take();
    assert_eq!((wire.len(), seen.len()), (3, 4));
    assert_eq!((seen[0].len, places(&seen[1..]).iter().all(|(at, _)| *at == Viewpoint::Outside)), (1028, true));
}

#[test]
fn frames_are_seen_as_frames_and_tunnels_in_clear_say_so() {
    let setup = Setup {
        kind: InterfaceKind::Vxlan(Vxlan { vni: 7.try_into().unwrap(), port: Vxlan::PORT }),
        protection: Protection::None,
        ..Setup::default()
    };
    let (mut left, mut right) = (setup.gateway(true), setup.gateway(false));
    let (of_left, of_right) = (capture(&mut left, everywhere()), capture(&mut right, everywhere()));
    let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &udp(true, 60)].concat();
    let wire = left.send_in_clear(VnetHeader::default(), &frame);
    right.receive_in_clear(&wire);
    let (sent, received) = (of_left.take(), of_right.take());
    assert_eq!((sent[0].layer, sent[0].octets == frame), (Layer::Ethernet, true));
    assert_eq!((sent[1].layer, &sent[1].octets), (Layer::Ip, &wire[0]));
    assert_eq!(received[1].octets, frame);
    for outer in [&sent[0], &sent[1], &received[0]] {
        assert_eq!((outer.remark.clone(), outer.sa), (Some(CaptureRemark::InClear), None));
    }
    assert_eq!(received[0].octets[20..], wire[0][20..]);
}

#[test]
fn ah_and_transport_mode_are_seen_whole() {
    let ends = |last| vec![range(last, last)];
    for protocol in [IpsecProtocol::Ah, IpsecProtocol::Esp] {
        let setup = Setup {
            protocol,
            mode: Mode::Transport,
            encapsulation: Encapsulation::Esp,
            algorithms: crate::support::algorithms(
                if protocol == IpsecProtocol::Ah {
                    espdp_api::EspCipher::Null
                } else {
                    espdp_api::EspCipher::AesGcm16 { key_bits: 256 }
                },
                if protocol == IpsecProtocol::Ah {
                    espdp_api::EspIntegrity::HmacSha2_256_128
                } else {
                    espdp_api::EspIntegrity::None
                },
                false,
            ),
            local: ends("192.0.2.1"),
            remote: ends("192.0.2.2"),
            ..Setup::default()
        };
        let (mut left, _) = setup.connect();
        let kept = capture(&mut left, everywhere());
        let packet = ip("192.0.2.1", "192.0.2.2", 17, 0, &[0x11; 30]);
        left.send_copied(&[(VnetHeader::default(), packet.clone())]);
        let seen = kept.take();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].octets, packet);
        // The packet's own header, with another protocol behind it.
        let number = if protocol == IpsecProtocol::Ah { 51 } else { 50 };
        assert_eq!((seen[1].octets[0], seen[1].octets[9]), (0x45, number));
        assert_eq!(seen[1].octets[12..20], packet[12..20]);
        assert_eq!(usize::from(u16::from_be_bytes([seen[1].octets[2], seen[1].octets[3]])), seen[1].octets.len());
    }
}
