//! Two dataplanes that are each other's peer, and packets to send through them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{
    AddressRange, Carries, CryptoEngine, Direction, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi,
    Event, InboundSaSpec, InterfaceKind, InterfaceName, InterfaceSpec, IpsecProtocol, L2tpCarrier, L2tpv3, Mode,
    NextHop, OutboundSaSpec, OuterPath, PacketShape, PolicyAction, PolicyId, PolicySpec, Protection, SaLimits, SaSpec,
    SaStatistics, Secret, SequenceEnd, TrafficSelector, TunnelEnds,
};
use espdp_core::{
    Dataplane, Exit, InboundBatch, InterfaceId, Offloads, Origin, OutboundBatch, OuterHeader, Progress, Run, Sealed,
    SuperPacket, VnetHeader,
};

/// What a pair of gateways has in common. Change what a test is about.
#[derive(Clone, Debug)]
pub struct Setup {
    pub protocol: IpsecProtocol,
    pub algorithms: EspAlgorithms,
    pub mode: Mode,
    pub kind: InterfaceKind,
    pub protection: Protection,
    pub next_hops: Vec<NextHop>,
    pub outer_is_ipv6: bool,
    pub encapsulation: Encapsulation,
    pub local: Vec<TrafficSelector>,
    pub remote: Vec<TrafficSelector>,
    pub outbound_limits: SaLimits,
    pub inbound_limits: SaLimits,
    pub shape: PacketShape,
    pub replay_window: u32,
    pub acquire: bool,
    /// What computes on the left, and on the right.
    pub engines: [CryptoEngine; 2],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            protocol: IpsecProtocol::Esp,
            algorithms: algorithms(EspCipher::AesGcm16 { key_bits: 256 }, EspIntegrity::None, true),
            mode: Mode::Tunnel,
            kind: InterfaceKind::Ipsec,
            protection: Protection::Required,
            next_hops: Vec::new(),
            outer_is_ipv6: false,
            encapsulation: UDP,
            local: vec![everything(true), everything(false)],
            remote: vec![everything(true), everything(false)],
            outbound_limits: SaLimits::default(),
            inbound_limits: SaLimits::default(),
            shape: PacketShape::default(),
            replay_window: 1024,
            acquire: true,
            // So that each test has both work together.
            engines: [CryptoEngine::Auto, CryptoEngine::Library],
        }
    }
}

pub const UDP: Encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
pub const POLICY: PolicyId = PolicyId(7);

/// Every cipher with every integrity that goes with it.
pub fn all_algorithms() -> Vec<EspAlgorithms> {
    let mut all = Vec::new();
    for extended in [false, true] {
        for key_bits in [128, 192, 256] {
            all.push(algorithms(EspCipher::AesGcm16 { key_bits }, EspIntegrity::None, extended));
        }
        for aead in [
            EspCipher::AesGcm12 { key_bits: 256 },
            EspCipher::AesGcm8 { key_bits: 128 },
            EspCipher::AesCcm16 { key_bits: 256 },
            EspCipher::AesCcm12 { key_bits: 192 },
            EspCipher::AesCcm8 { key_bits: 128 },
            EspCipher::AesGmac { key_bits: 256 },
            EspCipher::ChaCha20Poly1305,
        ] {
            all.push(algorithms(aead, EspIntegrity::None, extended));
        }
        for integrity in [
            EspIntegrity::HmacSha1_96,
            EspIntegrity::HmacSha2_256_128,
            EspIntegrity::HmacSha2_384_192,
            EspIntegrity::HmacSha2_512_256,
            EspIntegrity::AesCmac96,
        ] {
            for cipher in [
                EspCipher::AesCbc { key_bits: 128 },
                EspCipher::AesCbc { key_bits: 192 },
                EspCipher::AesCbc { key_bits: 256 },
                EspCipher::AesCtr { key_bits: 256 },
                EspCipher::Null,
            ] {
                all.push(algorithms(cipher, integrity, extended));
            }
        }
    }
    all
}

pub fn algorithms(cipher: EspCipher, integrity: EspIntegrity, extended_sequence_numbers: bool) -> EspAlgorithms {
    EspAlgorithms { cipher, integrity, extended_sequence_numbers }
}

pub fn everything(ipv4: bool) -> TrafficSelector {
    let (first, last) =
        if ipv4 { ("0.0.0.0", "255.255.255.255") } else { ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") };
    range(first, last)
}

pub fn range(first: &str, last: &str) -> TrafficSelector {
    TrafficSelector::any_protocol(AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap())
}

/// One end, with its SA pair.
pub struct Gateway {
    pub dataplane: Dataplane,
    pub interface: InterfaceId,
    pub path: OuterPath,
    pub now: Instant,
    pub inbound_spi: EspSpi,
    pub outbound_spi: Option<EspSpi>,
    /// What was handed back to the inside.
    pub answers: Vec<Vec<u8>>,
    outbound: OutboundBatch,
    inbound: InboundBatch,
}

/// What left a gateway, and what went back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub wire: Vec<Wire>,
    pub clear: Vec<(Vec<u8>, Exit)>,
    pub replies: Vec<Vec<u8>>,
}

impl Sent {
    fn add(&mut self, sealed: &Sealed<'_>) {
        self.wire.extend(on_wire(sealed));
        self.clear.extend(sealed.clear().map(|packet| (packet.octets.to_vec(), packet.exit)));
        self.replies.extend(sealed.replies().map(|reply| reply.octets.to_vec()));
    }
}

/// An ESP packet on the wire, with what its outer header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// From the SPI to the ICV.
    pub octets: Vec<u8>,
    /// The outer headers that the packet brings; empty when the kernel writes one.
    pub header: Vec<u8>,
    pub outer: OuterHeader,
    pub path: OuterPath,
}

impl Setup {
    /// Two gateways with an SA pair between them, ready to send.
    pub fn connect(&self) -> (Gateway, Gateway) {
        let (mut left, mut right) = (self.gateway(true), self.gateway(false));
        let (left_spi, right_spi) = (left.inbound_spi, right.inbound_spi);
        left.install(self, left_spi, right_spi, 1, 2);
        right.install(self, right_spi, left_spi, 2, 1);
        (left, right)
    }

    /// One gateway with interface and policy but no SAs; its inbound SPI is reserved.
    pub fn gateway(&self, is_left: bool) -> Gateway {
        let mut dataplane = Dataplane::new(&Secret::new([u8::from(is_left); 32]));
        dataplane.set_crypto_engine(self.engines[usize::from(!is_left)]);
        let name = InterfaceName::new("ipsec0").unwrap();
        let kind = if is_left { self.kind } else { mirrored(self.kind) };
        let interface = dataplane.set_interface(&name, kind).unwrap();
        let (local, remote) =
            if is_left { (self.local.clone(), self.remote.clone()) } else { (self.remote.clone(), self.local.clone()) };
        let action = PolicyAction::Protect { acquire: self.acquire };
        let spec = PolicySpec { action, ..PolicySpec::protect(POLICY, name, local, remote) };
        dataplane.set_policy(&spec).unwrap();
        let inbound_spi = dataplane.reserve_spi(if is_left { 0x1111_2222 } else { 0x8888_9999 }).unwrap();
        let (left, right): (IpAddr, IpAddr) = if self.outer_is_ipv6 {
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
        } else {
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap())
        };
        let (local, remote) = if is_left { (left, right) } else { (right, left) };
        let path = OuterPath { local, remote, encapsulation: self.encapsulation };
        let tunnel = InterfaceSpec {
            ends: Some(TunnelEnds::new(local, self.next_hops.is_empty().then_some(remote))),
            protection: self.protection,
            next_hops: self.next_hops.clone(),
            ..InterfaceSpec::new(InterfaceName::new("ipsec0").unwrap(), kind)
        };
        dataplane.set_tunnel(&tunnel).unwrap();
        let (outbound, inbound) = (OutboundBatch::new(), InboundBatch::new());
        let (outbound_spi, answers) = (None, Vec::new());
        Gateway { dataplane, interface, path, now: start(), inbound_spi, outbound_spi, answers, outbound, inbound }
    }

    /// The description of one half, with keys that `seed` determines.
    pub fn sa(&self, spi: EspSpi, path: OuterPath, is_left: bool, limits: SaLimits, seed: u8) -> SaSpec {
        let EspAlgorithms { cipher, integrity, .. } = self.algorithms;
        let key = |len: usize| Secret::new((0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect::<Vec<u8>>());
        let (local, remote) =
            if is_left { (self.local.clone(), self.remote.clone()) } else { (self.remote.clone(), self.local.clone()) };
        SaSpec {
            protocol: self.protocol,
            spi,
            policy: POLICY,
            algorithms: self.algorithms,
            encryption_key: key(cipher.key_len() + cipher.salt_len()),
            integrity_key: key(integrity.key_len()),
            mode: self.mode,
            path,
            local,
            remote,
            limits,
        }
    }

    pub fn inbound(&self, spi: EspSpi, path: OuterPath, is_left: bool, seed: u8) -> InboundSaSpec {
        let sa = self.sa(spi, path, is_left, self.inbound_limits, seed);
        InboundSaSpec { sa, replay_window: self.replay_window }
    }

    pub fn outbound(&self, spi: EspSpi, path: OuterPath, is_left: bool, seed: u8) -> OutboundSaSpec {
        let sa = self.sa(spi, path, is_left, self.outbound_limits, seed);
        OutboundSaSpec { sa, shape: self.shape, sequence_end: SequenceEnd::Stop, inbound: None, carries: Carries::All }
    }
}

/// The same tunnel seen from its other end.
fn mirrored(kind: InterfaceKind) -> InterfaceKind {
    let InterfaceKind::L2tpv3(l2tp) = kind else { return kind };
    InterfaceKind::L2tpv3(L2tpv3 {
        session: l2tp.peer_session,
        peer_session: l2tp.session,
        cookie: l2tp.peer_cookie,
        peer_cookie: l2tp.cookie,
        carrier: match l2tp.carrier {
            L2tpCarrier::Ip => L2tpCarrier::Ip,
            L2tpCarrier::Udp { local_port, remote_port } => {
                L2tpCarrier::Udp { local_port: remote_port, remote_port: local_port }
            }
        },
        ..l2tp
    })
}

impl Gateway {
    fn install(&mut self, setup: &Setup, inbound: EspSpi, outbound: EspSpi, inbound_seed: u8, outbound_seed: u8) {
        let is_left = inbound_seed == 1;
        self.dataplane.install_inbound(&setup.inbound(inbound, self.path, is_left, inbound_seed)).unwrap();
        self.dataplane.install_outbound(&setup.outbound(outbound, self.path, is_left, outbound_seed)).unwrap();
        self.dataplane.activate(POLICY, outbound).unwrap();
        self.outbound_spi = Some(outbound);
    }

    /// Sends one plain packet.
    pub fn send(&mut self, packet: &[u8]) -> Vec<Wire> {
        self.send_super(VnetHeader::default(), packet)
    }

    /// Sends a packet with a vnet header, in as many batches as it takes.
    pub fn send_super(&mut self, vnet: VnetHeader, packet: &[u8]) -> Vec<Wire> {
        let mut packet = SuperPacket::new(self.interface, vnet, packet);
        let mut wire = Vec::new();
        loop {
            let mut filling = self.dataplane.fill(self.now, &mut self.outbound);
            let progress = filling.push(&mut packet);
            let sealed = filling.seal();
            wire.extend(on_wire(&sealed));
            self.answers.extend(sealed.replies().map(|reply| reply.octets.to_vec()));
            if progress == Progress::Done {
                return wire;
            }
        }
    }

    /// Sends packets one after the other, those that can be are wrapped where they are read. Says what leaves, and how many packets
    /// could be read so.
    pub fn send_in_place(&mut self, packets: &[(VnetHeader, Vec<u8>)]) -> (Sent, usize) {
        let mut sent = Sent::default();
        let mut in_place = 0;
        let mut filling = self.dataplane.fill(self.now, &mut self.outbound);
        for (vnet, packet) in packets {
            let read = [&vnet.encode()[..VnetHeader::LEN], packet].concat();
            let mut buffer = vec![0; OutboundBatch::SPACE + read.len()];
            let mut pushed = match filling.space(self.interface) {
                Some(space) => {
                    let first = read.len().min(space.len());
                    space[..first].copy_from_slice(&read[..first]);
                    buffer[OutboundBatch::SPACE..][..read.len() - first].copy_from_slice(&read[first..]);
                    let pushed = filling.arrive(self.interface, read.len(), &mut buffer);
                    in_place += usize::from(pushed.is_none());
                    pushed
                }
                None => Some(SuperPacket::new(self.interface, *vnet, packet)),
            };
            while pushed.as_mut().is_some_and(|packet| filling.push(packet) == Progress::BatchFull) {
                sent.add(&filling.seal());
                filling = self.dataplane.fill(self.now, &mut self.outbound);
            }
        }
        while !filling.is_empty() {
            sent.add(&filling.seal());
            filling = self.dataplane.fill(self.now, &mut self.outbound);
        }
        (sent, in_place)
    }

    /// How many packets each run has when packets are wrapped where they are read, in one batch.
    pub fn runs(&mut self, packets: &[(VnetHeader, Vec<u8>)]) -> Vec<usize> {
        let mut filling = self.dataplane.fill(self.now, &mut self.outbound);
        for (vnet, packet) in packets {
            let read = [&vnet.encode()[..VnetHeader::LEN], packet].concat();
            filling.space(self.interface).unwrap()[..read.len()].copy_from_slice(&read);
            assert!(filling.arrive(self.interface, read.len(), &mut []).is_none());
        }
        filling.seal().runs().map(|run| run.packets().len()).collect()
    }

    /// Sends packets one after the other.
    pub fn send_copied(&mut self, packets: &[(VnetHeader, Vec<u8>)]) -> Sent {
        let mut sent = Sent::default();
        let mut filling = self.dataplane.fill(self.now, &mut self.outbound);
        for (vnet, packet) in packets {
            let mut packet = SuperPacket::new(self.interface, *vnet, packet);
            while filling.push(&mut packet) == Progress::BatchFull {
                sent.add(&filling.seal());
                filling = self.dataplane.fill(self.now, &mut self.outbound);
            }
        }
        sent.add(&filling.seal());
        sent
    }

    /// Sends the dummy packets that are due, and says when to look again.
    pub fn send_dummies(&mut self) -> (Vec<Wire>, Option<Instant>) {
        let mut filling = self.dataplane.fill(self.now, &mut self.outbound);
        let next = filling.push_dummies();
        (on_wire(&filling.seal()), next)
    }

    /// Says what the path to the other one carries.
    pub fn set_path_mtu(&mut self, octets: usize) {
        self.dataplane.set_path_mtu(POLICY, self.outbound_spi.unwrap(), octets).unwrap();
    }

    /// Sends a plain packet and gives what leaves in clear; nothing else leaves.
    pub fn send_clear(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut packet = SuperPacket::new(self.interface, VnetHeader::default(), packet);
        let mut filling = self.dataplane.fill(self.now, &mut self.outbound);
        assert_eq!(filling.push(&mut packet), Progress::Done);
        let sealed = filling.seal();
        assert_eq!(sealed.runs().count(), 0);
        assert!(sealed.clear().all(|packet| packet.exit == Exit::Bypass));
        sealed.clear().map(|packet| packet.octets.to_vec()).collect()
    }

    /// Sends one packet, or super-packet, of which everything must leave in clear.
    pub fn send_in_clear(&mut self, vnet: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut packet = SuperPacket::new(self.interface, vnet, packet);
        let mut wire = Vec::new();
        loop {
            let mut filling = self.dataplane.fill(self.now, &mut self.outbound);
            let progress = filling.push(&mut packet);
            let sealed = filling.seal();
            assert_eq!(sealed.runs().len(), 0);
            wire.extend(sealed.clear().map(|packet| {
                assert_eq!(packet.exit, Exit::Routed);
                packet.octets.to_vec()
            }));
            if progress == Progress::Done {
                return wire;
            }
        }
    }

    /// Receives whole packets of AH as the sockets would hand them over, and gives what is written to the inside.
    pub fn receive_ah(&mut self, wire: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.inbound.clear();
        for packet in wire {
            let is_ipv4 = packet[0] >> 4 == 4;
            let received = if is_ipv4 { &packet[..] } else { &packet[40..] };
            let packet = [packet, &[0][..]].concat();
            self.inbound.space().unwrap()[..received.len()].copy_from_slice(received);
            let traffic_class = if is_ipv4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 };
            self.inbound.add_ah(received.len(), Origin { path: self.path, traffic_class, hop_limit: None });
        }
        let opened = self.dataplane.open(self.now, Offloads::default(), &mut self.inbound);
        opened.deliveries().map(|delivery| delivery.pieces().collect::<Vec<_>>().concat()).collect()
    }

    /// Receives whole packets in clear as the sockets for tunnels would hand them over, and gives what is written to the inside.
    pub fn receive_in_clear(&mut self, wire: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.inbound.clear();
        for packet in wire {
            let OuterPath { local, remote, .. } = self.path;
            let header_len = if packet[0] >> 4 == 4 { 20 } else { 40 };
            let protocol = if header_len == 20 { packet[9] } else { packet[6] };
            let traffic_class = if header_len == 20 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 };
            let (mut from, mut encapsulation) = (header_len, Encapsulation::Esp);
            if protocol == 17 {
                let port = |at: usize| u16::from_be_bytes([packet[header_len + at], packet[header_len + at + 1]]);
                encapsulation = Encapsulation::Udp { local_port: port(2), remote_port: port(0) };
                from += 8;
            } else if header_len == 20 {
                from = 0;
            }
            let received = &packet[from..];
            self.inbound.space().unwrap()[..received.len()].copy_from_slice(received);
            let origin = Origin { path: OuterPath { local, remote, encapsulation }, traffic_class, hop_limit: None };
            match encapsulation {
                Encapsulation::Esp => self.inbound.add_raw_tunnel(received.len(), protocol, origin),
                Encapsulation::Udp { .. } => self.inbound.add_udp_tunnel(received.len(), 0, origin),
            }
        }
        let opened = self.dataplane.open(self.now, Offloads::default(), &mut self.inbound);
        opened.deliveries().map(|delivery| delivery.pieces().collect::<Vec<_>>().concat()).collect()
    }

    /// Receives packets, each alone, and gives what is written to the interface.
    pub fn receive(&mut self, wire: &[Wire]) -> Vec<Vec<u8>> {
        let written = self.receive_super(wire, Offloads::default());
        assert!(written.iter().all(|(vnet, _)| *vnet == VnetHeader::default()));
        written.into_iter().map(|(_, packet)| packet).collect()
    }

    /// Receives packets in batches and coalesces what is allowed.
    pub fn receive_super(&mut self, wire: &[Wire], offloads: Offloads) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut written = Vec::new();
        let mut wire = wire.iter().peekable();
        while wire.peek().is_some() {
            self.inbound.clear();
            while let Some(space) = self.inbound.space() {
                let Some(packet) = wire.next() else { break };
                space[..packet.octets.len()].copy_from_slice(&packet.octets);
                let OuterPath { local, remote, encapsulation } = packet.path;
                let path = OuterPath { local: remote, remote: local, encapsulation };
                let OuterHeader { traffic_class, hop_limit, .. } = packet.outer;
                let origin = Origin { path, traffic_class, hop_limit: Some(hop_limit) };
                let len = packet.octets.len();
                if packet.header.first().is_some_and(|first| first >> 4 == 4) {
                    // A raw IPv4 socket gives the packet with its header.
                    let whole = [&packet.header[..], &packet.octets].concat();
                    space[..whole.len()].copy_from_slice(&whole);
                    self.inbound.add_ipv4(whole.len());
                    continue;
                }
                match encapsulation {
                    Encapsulation::Esp => self.inbound.add_esp(len, origin),
                    Encapsulation::Udp { .. } => self.inbound.add_udp(len, len, origin, |_| panic!("no IKE here")),
                }
            }
            let opened = self.dataplane.open(self.now, offloads, &mut self.inbound);
            for delivery in opened.deliveries() {
                assert_eq!(delivery.interface, self.interface);
                written.push((delivery.vnet, delivery.pieces().collect::<Vec<_>>().concat()));
            }
        }
        written
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.dataplane.poll_event()).collect()
    }

    pub fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    pub fn statistics(&self, direction: Direction) -> SaStatistics {
        let all = self.dataplane.statistics(self.now);
        all.into_iter().find(|sa| sa.direction == direction).unwrap()
    }

    /// Names of drops of the SA and of no SA, each with its count.
    pub fn drops(&self, direction: Direction) -> Vec<(String, u64)> {
        let of_sa = self.statistics(direction).drops;
        of_sa.into_iter().chain(self.dataplane.drops()).map(|drop| (drop.reason, drop.packets)).collect()
    }
}

/// Any point in time; tests count from it.
#[expect(clippy::disallowed_methods, reason = "a test may look at the clock once")]
pub fn start() -> Instant {
    Instant::now()
}

fn on_wire(sealed: &Sealed<'_>) -> Vec<Wire> {
    let of_run = |run: Run<'_>| -> Vec<Wire> {
        let wire = |packet: &[u8]| {
            let (header, octets) = packet.split_at(if run.has_own_header { headers_len(packet) } else { 0 });
            Wire { octets: octets.to_vec(), header: header.to_vec(), outer: run.outer, path: run.path }
        };
        run.packets().map(wire).collect()
    };
    sealed.runs().flat_map(of_run).collect()
}

/// Octets of the IP headers in front of ESP.
pub fn headers_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 {
        return usize::from(packet[0] & 15) * 4;
    }
    let (mut at, mut next) = (40, packet[6]);
    while next != 50 {
        (next, at) = (packet[at], at + 8 + usize::from(packet[at + 1]) * 8);
    }
    at
}

/// The Internet checksum, word by word.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let data = parts.concat();
    let mut sum = 0u32;
    for word in data.chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The addresses of test packets.
pub const INNER: [(&str, &str); 2] = [("10.1.0.1", "10.2.0.1"), ("fd01::1", "fd02::1")];

/// An IP packet around a payload.
pub fn ip(source: &str, destination: &str, protocol: u8, traffic_class: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, traffic_class];
            header.extend((payload.len() as u16 + 20).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, 63, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let checksum = checksum(&[&header]);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            [&header, payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60 | traffic_class >> 4, traffic_class << 4 | 0x0a, 0xbc, 0xde];
            header.extend((payload.len() as u16).to_be_bytes());
            header.extend([protocol, 63]);
            header.extend(source.octets());
            header.extend(destination.octets());
            [&header, payload].concat()
        }
        _ => panic!("mixed families"),
    }
}

/// A UDP datagram of `len` octets of data, without a checksum.
pub fn udp(ipv4: bool, len: usize) -> Vec<u8> {
    let (source, destination) = if ipv4 { INNER[0] } else { INNER[1] };
    udp_between(source, destination, 0, len)
}

pub fn udp_between(source: &str, destination: &str, traffic_class: u8, len: usize) -> Vec<u8> {
    let mut payload = vec![0x10, 0x01, 0, 53];
    payload.extend((len as u16 + 8).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend((0..len).map(|at| (at * 7) as u8));
    ip(source, destination, 17, traffic_class, &payload)
}
