//! Authentic packets with strange contents: what only somebody with the keys can send.

use espdp_api::{
    AddressRange, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, InboundSaSpec, InterfaceKind, InterfaceName,
    IpsecProtocol, Mode, OuterPath, PolicyId, PolicySpec, SaLimits, SaSpec, SaStatistics, Secret, TrafficSelector,
};

use super::*;
use crate::crypto::Transform;
use crate::packet::{Header, IPV4_HEADER_LEN, protocol, write_header};

/// A receiving SA, and the keys of its sender.
struct Peer {
    dataplane: Dataplane,
    batch: InboundBatch,
    transform: Transform,
    spi: [u8; 4],
    sequence: u64,
    path: OuterPath,
    cipher: EspCipher,
}

const ALGORITHMS: EspAlgorithms = EspAlgorithms {
    cipher: EspCipher::AesGcm16 { key_bits: 128 },
    integrity: EspIntegrity::None,
    extended_sequence_numbers: true,
};

impl Peer {
    fn new(mode: Mode) -> Self {
        let mut dataplane = Dataplane::new(&Secret::new([1; 32]));
        let (interface, policy) = (InterfaceName::new("ipsec0").unwrap(), PolicyId(1));
        dataplane.set_interface(&interface, InterfaceKind::Ipsec).unwrap();
        let any = |first: &str, last: &str| {
            TrafficSelector::any_protocol(AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap())
        };
        let all = vec![any("0.0.0.0", "255.255.255.255"), any("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")];
        let (local, remote) = (all.clone(), all);
        let spec = PolicySpec::protect(policy, interface, local, remote);
        dataplane.set_policy(&spec).unwrap();
        let spi = dataplane.reserve_spi(0x4711_0000).unwrap();
        let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
        let path = OuterPath { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into(), encapsulation };
        let (key, none) = (Secret::new(vec![7; 20]), Secret::new(vec![]));
        let sa = SaSpec {
            protocol: IpsecProtocol::Esp,
            spi,
            policy,
            algorithms: ALGORITHMS,
            encryption_key: key.clone(),
            integrity_key: none.clone(),
            mode,
            path,
            local: spec.local,
            remote: spec.remote,
            limits: SaLimits::default(),
        };
        dataplane.install_inbound(&InboundSaSpec { sa, replay_window: 64 }).unwrap();
        let transform = Transform::new(ALGORITHMS, &key, &none, &Secret::new([0; 16])).unwrap();
        let (batch, spi, cipher) = (InboundBatch::new(), spi.to_wire(), ALGORITHMS.cipher);
        Self { dataplane, batch, transform, spi, sequence: 0, path, cipher }
    }

    /// Receives what was encrypted as it stands, trailer included; the next sequence number is used.
    fn receive(&mut self, plaintext: &[u8]) -> Vec<Vec<u8>> {
        self.sequence += 1;
        self.receive_numbered(self.sequence, plaintext)
    }

    fn receive_numbered(&mut self, sequence: u64, plaintext: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(plaintext.len() % 4, 0, "the test pads itself");
        let iv = vec![0; self.cipher.iv_len()];
        let low = (sequence as u32).to_be_bytes();
        let mut packet = [&self.spi[..], &low, &iv, plaintext, &[0; 16]].concat();
        self.transform.seal(&mut packet, sequence).unwrap();
        self.batch.clear();
        self.batch.space().unwrap()[..packet.len()].copy_from_slice(&packet);
        let origin = Origin { path: self.path, traffic_class: 0, hop_limit: None };
        self.batch.add_esp(packet.len(), origin);
        let opened = self.dataplane.open(now(), Offloads::default(), &mut self.batch);
        opened.deliveries().map(|delivery| delivery.pieces().collect::<Vec<_>>().concat()).collect()
    }

    fn statistics(&self) -> SaStatistics {
        self.dataplane.statistics(now()).pop().unwrap()
    }

    /// The names of all drops so far.
    fn drops(&self) -> Vec<String> {
        self.statistics().drops.into_iter().map(|drop| drop.reason).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn now() -> Instant {
    Instant::now()
}

/// An IPv4 packet that carries `len` octets of protocol 200.
fn inner(len: usize) -> Vec<u8> {
    let mut packet = vec![0xaa; IPV4_HEADER_LEN + len];
    write_header(&mut packet, [10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 200, 0, len).unwrap();
    packet
}

#[test]
fn a_dummy_packet_is_dropped_without_error_and_counts_as_life() {
    // R4303-2.6-1
    let mut peer = Peer::new(Mode::Tunnel);
    assert!(peer.receive(&[9, 9, 9, 9, 9, 9, 0, protocol::NO_NEXT_HEADER]).is_empty());
    let statistics = peer.statistics();
    assert_eq!((statistics.packets, statistics.bytes, statistics.sequence), (1, 0, 1));
    assert_eq!(statistics.idle_seconds, Some(0));
    assert_eq!(peer.drops(), ["dummy"]);
    assert!(matches!(peer.dataplane.poll_event(), Some(Event::FirstPacket { .. })));
    assert!(peer.receive_numbered(1, &[0, 0, 0, protocol::NO_NEXT_HEADER]).is_empty());
    assert_eq!(peer.drops(), ["replay", "dummy"], "it moved the window");
}

#[test]
fn a_batch_that_is_opened_twice_delivers_once() {
    let mut peer = Peer::new(Mode::Tunnel);
    assert_eq!(peer.receive(&[&inner(18)[..], &[0, protocol::IPV4]].concat()).len(), 1);
    let again = peer.dataplane.open(now(), Offloads::default(), &mut peer.batch);
    assert_eq!(again.deliveries().len(), 0);
    assert_eq!(peer.drops(), [""; 0]);
}

#[test]
fn octets_behind_the_inner_packet_are_cut_off() {
    // R4303-2.7-1: traffic flow confidentiality.
    let mut peer = Peer::new(Mode::Tunnel);
    let packet = inner(10);
    let with_tfc = [&packet[..], &[0x55; 100], &[0, protocol::IPV4]].concat();
    assert_eq!(peer.receive(&with_tfc), [packet]);
}

#[test]
fn esp_pad_len_beyond_the_payload_is_refused() {
    let mut peer = Peer::new(Mode::Tunnel);
    assert!(peer.receive(&[&inner(18)[..], &[255, protocol::IPV4]].concat()).is_empty());
    assert!(peer.receive(&[7, protocol::IPV4, 3, protocol::IPV4]).is_empty());
    assert_eq!(peer.drops(), ["bad_padding"]);
    assert_eq!(peer.statistics().packets, 0);
}

#[test]
fn padding_must_count_up_from_one() {
    // R4303-2.4-1
    let mut peer = Peer::new(Mode::Tunnel);
    let packet = inner(16);
    let long: Vec<u8> = (1..=254).collect();
    assert_eq!(peer.receive(&[&packet[..], &long, &[254, protocol::IPV4]].concat()), std::slice::from_ref(&packet));
    let (odd, longest): (_, Vec<u8>) = (inner(19), (1..=255).collect());
    assert_eq!(peer.receive(&[&odd[..], &longest, &[255, protocol::IPV4]].concat()), std::slice::from_ref(&odd));
    for padding in [[1, 3], [2, 1], [0, 0]] {
        assert!(peer.receive(&[&packet[..], &padding, &[2, protocol::IPV4]].concat()).is_empty());
    }
    assert_eq!(peer.drops(), ["bad_padding"]);
}

#[test]
fn inner_packets_that_are_none_are_refused() {
    let mut peer = Peer::new(Mode::Tunnel);
    let packet = inner(18);
    let mut too_long = packet.clone();
    too_long[3] += 1;
    let mut version = packet.clone();
    version[0] = 0x55;
    let mut short_header = packet.clone();
    short_header[0] = 0x44;
    for (content, next_header) in [
        (&too_long, protocol::IPV4),
        (&version, protocol::IPV4),
        (&short_header, protocol::IPV4),
        (&packet, protocol::IPV6),
        (&vec![0x60, 0], protocol::IPV6),
        (&vec![0x45, 0], protocol::IPV4),
    ] {
        assert!(peer.receive(&[&content[..], &[0, next_header]].concat()).is_empty());
    }
    assert_eq!(peer.drops(), ["bad_inner"]);
    assert!(peer.receive(&[&packet[..], &[0, protocol::TCP]].concat()).is_empty());
    assert_eq!(peer.drops(), ["next_header", "bad_inner"]);
}

#[test]
fn an_empty_payload_is_no_packet_in_either_mode() {
    let mut tunnel = Peer::new(Mode::Tunnel);
    assert!(tunnel.receive(&[1, 2, 2, protocol::IPV4]).is_empty());
    assert_eq!(tunnel.drops(), ["bad_inner"]);
    let mut transport = Peer::new(Mode::Transport);
    let rebuilt = transport.receive(&[1, 2, 2, 200]);
    assert_eq!(rebuilt.len(), 1, "a header alone is a packet");
    assert_eq!(Header::parse(&rebuilt[0]).unwrap().total_len, IPV4_HEADER_LEN);
}

#[test]
fn a_checksum_that_a_nat_made_wrong_is_renewed_in_transport_mode() {
    // RFC 3948 §3.1.2: the sender computed it for addresses that we never see.
    let mut peer = Peer::new(Mode::Transport);
    let datagram = [0x10, 0, 0, 53, 0, 10, 0xde, 0xad, 1, 2];
    let rebuilt = peer.receive(&[&datagram[..], &[0, protocol::UDP]].concat()).pop().unwrap();
    let header = Header::parse(&rebuilt).unwrap();
    assert_eq!((header.source, header.destination), (peer.path.remote, peer.path.local));
    let transport = &rebuilt[header.transport_at..];
    let pseudo =
        crate::checksum::Sum::of_pseudo_header(header.source, header.destination, header.protocol, transport.len());
    assert!(pseudo.plus(crate::checksum::Sum::of(transport)).is_right());
    let mut without = datagram;
    without[6..8].fill(0);
    let rebuilt = peer.receive(&[&without[..], &[0, protocol::UDP]].concat()).pop().unwrap();
    assert_eq!(rebuilt[26..28], [0, 0], "no checksum stays no checksum");
}

#[test]
fn extended_sequence_numbers_cross_the_32_bit_border() {
    let mut peer = Peer::new(Mode::Tunnel);
    let packet = inner(18);
    let padded = [&packet[..], &[0, protocol::IPV4]].concat();
    let border = 1u64 << 32;
    for sequence in [1, border / 2, border - 2, border + 1, border - 1, border, border + 40] {
        assert_eq!(peer.receive_numbered(sequence, &padded), std::slice::from_ref(&packet), "{sequence:x}");
    }
    assert_eq!(peer.statistics().sequence, border + 40);
    // The same low half, sealed for another 2³² numbers, is somebody's replay.
    assert!(peer.receive_numbered(41 + 5 * border, &padded).is_empty());
    assert_eq!(peer.drops(), ["bad_icv"]);
}
