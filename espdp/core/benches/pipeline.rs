//! How many clocks a packet takes through ESP in memory, for one core.
//!
//! `cargo bench -p espdp-core --bench pipeline -- [--quick] [--json] [--sas N] [--rounds N] [CIPHER ..] [PATH ..] [OCTETS ..]`
//!
//! Without names of ciphers, paths or lengths it is all of them. With `--instructions` and nothing else instructions are counted
//! instead, and the process fails where there are more than allowed.
//!
//! Paths: `outbound` is everything from an inner packet to a sealed ESP packet, `inbound` everything from a received ESP
//! packet to the inner packet to be written, without coalescing; `outbound-tso` and `inbound-gro` are the same for a TCP
//! stream that comes from the kernel and goes to it in super-packets, per segment; `gre-out`, `gre-in` and so on are `outbound` and
//! `inbound` with the headers of a tunnel, protected in transport mode by AES-256-GCM; `crypto-seal` and `crypto-open` are the ciphers alone,
//! packet by packet, in place; `batch-seal` and `batch-open` are the same by an engine that takes the whole batch. Clocks are those of the time stamp counter. Of many rounds the lower quartile counts,
//! because what else the machine does only ever adds to them.

#![expect(clippy::unwrap_used, reason = "a benchmark whose setting fails has nothing to measure")]

#[path = "support/clock.rs"]
#[expect(unreachable_pub, reason = "shared by the benchmarks")]
mod clock;
#[path = "support/instructions.rs"]
#[expect(unreachable_pub, reason = "as the other one")]
mod instructions;

use esp_engines::gcm::{Engine, Job};
use espdp_api::{
    AddressRange, Carries, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi, Gre, InboundSaSpec,
    InterfaceKind, InterfaceName, InterfaceSpec, IpsecProtocol, L2tpCarrier, L2tpCookie, L2tpSublayer, L2tpv3, Layer,
    Mode, OutboundSaSpec, OuterPath, PacketShape, PolicyId, PolicySpec, SaLimits, SaSpec, Secret, SequenceEnd,
    TrafficSelector, TunnelEnds, Vxlan,
};
use espdp_core::{
    Dataplane, InboundBatch, InterfaceId, Offloads, Origin, OutboundBatch, Progress, Run, Sealed, SuperPacket,
    Transform, VnetHeader,
};

use clock::{clock, lower_quartile, now};

/// Inner packet lengths in octets.
const OCTETS: [usize; 3] = [64, 512, 1400];
/// Numbers of SAs among which packets go at random.
const SAS: [usize; 2] = [1, 1000];
/// Packets in one measured batch.
const BATCH: usize = 256;

fn main() {
    let wanted = Wanted(std::env::args().skip(1).collect());
    if wanted.names("--instructions") {
        return instructions::guard(BATCH);
    }
    let rounds = wanted.value("--rounds").unwrap_or(if wanted.names("--quick") { 60 } else { 600 });
    let wanted_sas = wanted.value("--sas");
    let report = Report { json: wanted.names("--json"), clocks_per_second: clocks_per_second() };
    report.head();
    let lengths = || OCTETS.into_iter().filter(|octets| wanted.length(*octets));
    for (cipher, algorithms) in ciphers().into_iter().filter(|(cipher, _)| wanted.cipher(cipher)) {
        for octets in lengths() {
            if wanted.paths(["crypto-seal", "crypto-open"]) {
                let (seal, open) = crypto(algorithms, octets, rounds);
                report.line("crypto-seal", cipher, octets, 1, seal);
                report.line("crypto-open", cipher, octets, 1, open);
            }
            if wanted.paths(["batch-seal", "batch-open"])
                && let Some((seal, open)) = crypto_batch(algorithms, octets, rounds)
            {
                report.line("batch-seal", cipher, octets, 1, seal);
                report.line("batch-open", cipher, octets, 1, open);
            }
            let is_wanted = |sas: &usize| wanted_sas.is_none_or(|wanted| wanted == *sas);
            for sas in SAS.into_iter().filter(is_wanted).filter(|_| wanted.paths(["outbound", "inbound"])) {
                let (outbound, inbound) = Gateways::new(algorithms, octets, sas).run(rounds);
                report.line("outbound", cipher, octets, sas, outbound);
                report.line("inbound", cipher, octets, sas, inbound);
            }
            if wanted.paths(["outbound-tso", "inbound-gro"]) {
                let (outbound, inbound) = Gateways::new(algorithms, octets, 1).run_super(rounds);
                report.line("outbound-tso", cipher, octets, 1, outbound);
                report.line("inbound-gro", cipher, octets, 1, inbound);
            }
        }
    }
    let (cipher, algorithms) = ciphers().remove(2);
    for (out, back, kind) in tunnels() {
        for octets in lengths().filter(|_| wanted.cipher(cipher) && wanted.paths([out, back])) {
            let (outbound, inbound) = Gateways::tunnel(algorithms, octets, kind).run(rounds);
            report.line(out, cipher, octets, 1, outbound);
            report.line(back, cipher, octets, 1, inbound);
        }
    }
}

/// What the command line asks for.
struct Wanted(Vec<String>);

impl Wanted {
    /// The number behind a name.
    fn value(&self, name: &str) -> Option<usize> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1)?.parse().ok()
    }

    fn names(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    fn cipher(&self, cipher: &str) -> bool {
        self.names(cipher) || !ciphers().iter().any(|(cipher, _)| self.names(cipher))
    }

    fn length(&self, octets: usize) -> bool {
        self.names(&octets.to_string()) || !OCTETS.iter().any(|octets| self.names(&octets.to_string()))
    }

    fn paths(&self, paths: [&str; 2]) -> bool {
        let tunnels = tunnels();
        let tunnels = tunnels.iter().flat_map(|(out, back, _)| [*out, *back]);
        let mut all = tunnels.chain([
            "crypto-seal",
            "crypto-open",
            "batch-seal",
            "batch-open",
            "outbound",
            "inbound",
            "outbound-tso",
            "inbound-gro",
        ]);
        paths.iter().any(|path| self.names(path)) || !all.any(|path| self.names(path))
    }
}

/// Tunnels, with the names of their two paths.
fn tunnels() -> Vec<(&'static str, &'static str, InterfaceKind)> {
    let gre = |layer| InterfaceKind::Gre(Gre { layer, ..Gre::default() });
    let full = InterfaceKind::Gre(Gre { key: Some(1), checksum: true, sequence: true, layer: Layer::Ip });
    let vxlan = InterfaceKind::Vxlan(Vxlan { vni: 1.try_into().unwrap(), port: Vxlan::PORT });
    let cookie = L2tpCookie::Eight([7; 8]);
    let l2tp = InterfaceKind::L2tpv3(L2tpv3 {
        session: 1,
        peer_session: 1,
        cookie,
        peer_cookie: cookie,
        carrier: L2tpCarrier::Ip,
        sublayer: L2tpSublayer::None,
    });
    vec![
        ("gre-out", "gre-in", gre(Layer::Ip)),
        ("gre-full-out", "gre-full-in", full),
        ("gre-eth-out", "gre-eth-in", gre(Layer::Ethernet)),
        ("vxlan-out", "vxlan-in", vxlan),
        ("l2tpv3-out", "l2tpv3-in", l2tp),
    ]
}

/// What is measured, with extended sequence numbers.
fn ciphers() -> Vec<(&'static str, EspAlgorithms)> {
    let gcm = |key_bits| (EspCipher::AesGcm16 { key_bits }, EspIntegrity::None);
    let cbc = |key_bits, integrity| (EspCipher::AesCbc { key_bits }, integrity);
    let all = [
        ("aes128gcm16", gcm(128)),
        ("aes192gcm16", gcm(192)),
        ("aes256gcm16", gcm(256)),
        ("chacha20poly1305", (EspCipher::ChaCha20Poly1305, EspIntegrity::None)),
        ("aes128-sha1", cbc(128, EspIntegrity::HmacSha1_96)),
        ("aes128-sha256", cbc(128, EspIntegrity::HmacSha2_256_128)),
        ("aes192-sha384", cbc(192, EspIntegrity::HmacSha2_384_192)),
        ("aes256-sha256", cbc(256, EspIntegrity::HmacSha2_256_128)),
        ("aes256-sha512", cbc(256, EspIntegrity::HmacSha2_512_256)),
        ("null-sha256", (EspCipher::Null, EspIntegrity::HmacSha2_256_128)),
    ];
    let extended_sequence_numbers = true;
    all.into_iter()
        .map(|(name, (cipher, integrity))| (name, EspAlgorithms { cipher, integrity, extended_sequence_numbers }))
        .collect()
}

/// Clocks per packet of sealing and opening alone.
fn crypto(algorithms: EspAlgorithms, octets: usize, rounds: usize) -> (f64, f64) {
    let [encryption, integrity] = keys(algorithms, 0);
    let transform = Transform::new(algorithms, &encryption, &integrity, &Secret::new([3; 16])).unwrap();
    let payload = (octets + 2).next_multiple_of(algorithms.cipher.pad_block());
    let len = 8 + algorithms.cipher.iv_len() + payload + algorithms.icv_len();
    let mut memory = vec![1u8; len * BATCH];
    let (mut seal, mut open) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let first = (round * BATCH) as u64 + 1;
        let numbered = |at: usize| first + at as u64;
        seal.push(measure(|| {
            for (at, packet) in memory.chunks_mut(len).enumerate() {
                transform.seal(packet, numbered(at)).unwrap();
            }
        }));
        open.push(measure(|| {
            for (at, packet) in memory.chunks_mut(len).enumerate() {
                drop(transform.open(packet, numbered(at)).unwrap());
            }
        }));
    }
    (lower_quartile(seal), lower_quartile(open))
}

/// As [`crypto`], by an engine that takes the batch at once; `None` where there is none for the cipher.
fn crypto_batch(algorithms: EspAlgorithms, octets: usize, rounds: usize) -> Option<(f64, f64)> {
    let EspCipher::AesGcm16 { .. } = algorithms.cipher else { return None };
    let engine = Engine::detect().engine?;
    let [encryption, _] = keys(algorithms, 0);
    let (key, salt) = encryption.expose().split_last_chunk::<4>()?;
    let key = engine.key(key, *salt)?;
    let len = 32 + (octets + 2).next_multiple_of(algorithms.cipher.pad_block());
    let mut memory = vec![1u8; len * BATCH];
    let jobs = || (0..BATCH).map(|at| Job { key: &key, span: at * len..(at + 1) * len, high: Some(0) });
    let (mut seal, mut open) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let ivs = (round * BATCH) as u64 + 1..;
        seal.push(measure(|| {
            engine.seal(&mut memory, jobs().zip(ivs).map(|(job, iv)| (job, iv, ())), |(), result| result.unwrap());
        }));
        open.push(measure(|| {
            engine.open(&mut memory, jobs().map(|job| (job, ())), |(), result| result.unwrap());
        }));
    }
    Some((lower_quartile(seal), lower_quartile(open)))
}

/// A sender and a receiver with many SAs between them, each for one destination.
struct Gateways {
    sender: Dataplane,
    receiver: Dataplane,
    interface: InterfaceId,
    packet: Vec<u8>,
    /// Where the IPv4 destination stands in it.
    destination_at: usize,
    sas: usize,
    /// State of the generator that chooses destinations.
    random: u64,
}

impl Gateways {
    fn new(algorithms: EspAlgorithms, octets: usize, sas: usize) -> Self {
        let (mut sender, mut receiver) = (Dataplane::new(&Secret::new([1; 32])), Dataplane::new(&Secret::new([2; 32])));
        let name = InterfaceName::new("ipsec0").unwrap();
        let interface = sender.set_interface(&name, InterfaceKind::Ipsec).unwrap();
        receiver.set_interface(&name, InterfaceKind::Ipsec).unwrap();
        for number in 0..sas {
            let spi = receiver.reserve_spi(0x5a00_0000).unwrap();
            let id = PolicyId(number as u64);
            let source = selector([10, 1, 0, 0], [10, 1, 255, 255]);
            let target = selector(destination(number), destination(number));
            for (dataplane, local, remote) in [(&mut sender, source, target), (&mut receiver, target, source)] {
                let (local, remote) = (vec![local], vec![remote]);
                let interface = name.clone();
                dataplane.set_policy(&PolicySpec::protect(id, interface, local, remote)).unwrap();
            }
            let sa = |local, remote| sa(algorithms, spi, id, number, local, remote);
            receiver.install_inbound(&InboundSaSpec { sa: sa(target, source), replay_window: 1024 }).unwrap();
            sender
                .install_outbound(&OutboundSaSpec {
                    sa: sa(source, target),
                    shape: PacketShape::default(),
                    sequence_end: SequenceEnd::Stop,
                    inbound: None,
                    carries: Carries::All,
                })
                .unwrap();
            sender.activate(id, spi).unwrap();
        }
        Self { sender, receiver, interface, packet: packet(octets), destination_at: 16, sas, random: 1 }
    }

    /// With a tunnel between them, which one SA protects. Packets of `octets` octets stand in frames where the tunnel carries them.
    fn tunnel(algorithms: EspAlgorithms, octets: usize, kind: InterfaceKind) -> Self {
        let (mut sender, mut receiver) = (Dataplane::new(&Secret::new([1; 32])), Dataplane::new(&Secret::new([2; 32])));
        let name = InterfaceName::new("tunnel0").unwrap();
        let ends = Some(TunnelEnds::new(path().local, Some(path().remote)));
        let spec = InterfaceSpec { ends, ..InterfaceSpec::new(name.clone(), kind) };
        let interface = sender.set_interface(&name, kind).unwrap();
        receiver.set_interface(&name, kind).unwrap();
        let spi = receiver.reserve_spi(0x5a00_0000).unwrap();
        let (id, all) = (PolicyId(0), TrafficSelector::any_protocol(AddressRange::whole(true)));
        for dataplane in [&mut sender, &mut receiver] {
            dataplane.set_tunnel(&spec).unwrap();
            dataplane.set_policy(&PolicySpec::protect(id, name.clone(), vec![all], vec![all])).unwrap();
        }
        let sa = || SaSpec { mode: Mode::Transport, ..sa(algorithms, spi, id, 0, all, all) };
        receiver.install_inbound(&InboundSaSpec { sa: sa(), replay_window: 1024 }).unwrap();
        sender
            .install_outbound(&OutboundSaSpec {
                sa: sa(),
                shape: PacketShape::default(),
                sequence_end: SequenceEnd::Stop,
                inbound: None,
                carries: Carries::All,
            })
            .unwrap();
        sender.activate(id, spi).unwrap();
        let (mut inside, mut destination_at) = (packet(octets), 16);
        if kind.layer() == Layer::Ethernet {
            inside = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &inside].concat();
            destination_at += 14;
        }
        Self { sender, receiver, interface, packet: inside, destination_at, sas: 1, random: 1 }
    }

    /// Clocks per packet outbound and inbound.
    fn run(&mut self, rounds: usize) -> (f64, f64) {
        let (mut outbound_batch, mut inbound_batch) = (OutboundBatch::new(), InboundBatch::new());
        let (mut outbound, mut inbound) = (Vec::new(), Vec::new());
        let now = now();
        for _ in 0..rounds {
            let mut sealed = None;
            let mut filling = self.sender.fill(now, &mut outbound_batch);
            // Reading is not measured, copying is where it has to be.
            let mut left = BATCH;
            while left > 0
                && let Some(space) = filling.space(self.interface)
            {
                let (vnet, rest) = space.split_at_mut(VnetHeader::LEN);
                vnet.fill(0);
                rest[..self.packet.len()].copy_from_slice(&self.packet);
                rest[self.destination_at..][..4].copy_from_slice(&destination(next(&mut self.random) % self.sas));
                assert!(filling.arrive(self.interface, VnetHeader::LEN + self.packet.len(), &mut []).is_none());
                left -= 1;
            }
            let mut clocks_out = measure(|| {
                for _ in 0..left {
                    let to = destination(next(&mut self.random) % self.sas);
                    self.packet[self.destination_at..][..4].copy_from_slice(&to);
                    let mut packet = SuperPacket::new(self.interface, VnetHeader::default(), &self.packet);
                    assert_eq!(filling.push(&mut packet), Progress::Done);
                }
                sealed = Some(filling.seal());
            });
            let mut delivered = 0;
            let mut clocks_in = Self::receive(sealed.iter().flat_map(Sealed::runs), &mut inbound_batch, |batch| {
                delivered += self.receiver.open(now, Offloads::default(), batch).deliveries().len();
            });
            // What cannot be wrapped where it was read, and had no room elsewhere, comes first in the next batch.
            while delivered < BATCH {
                let (before, mut sealed) = (delivered, None);
                clocks_out += measure(|| sealed = Some(self.sender.fill(now, &mut outbound_batch).seal()));
                clocks_in += Self::receive(sealed.iter().flat_map(Sealed::runs), &mut inbound_batch, |batch| {
                    delivered += self.receiver.open(now, Offloads::default(), batch).deliveries().len();
                });
                let drops = (self.sender.drops(), self.receiver.drops());
                assert!(delivered > before, "{delivered} of {BATCH} packets arrived: {drops:?}");
            }
            outbound.push(clocks_out);
            inbound.push(clocks_in);
        }
        (lower_quartile(outbound), lower_quartile(inbound))
    }

    /// Hands what was sent to `open`, as many packets at once as a batch takes, and says the clocks per packet of that alone.
    fn receive<'r>(
        runs: impl Iterator<Item = Run<'r>>,
        batch: &mut InboundBatch,
        mut open: impl FnMut(&mut InboundBatch),
    ) -> f64 {
        let origin = Origin { path: path(), traffic_class: 0, hop_limit: None };
        let mut clocks = 0.0;
        batch.clear();
        for run in runs {
            if batch.space().is_none() {
                clocks += measure(|| open(batch));
                batch.clear();
            }
            batch.space().unwrap()[..run.octets.len()].copy_from_slice(run.octets);
            batch.add_udp(run.octets.len(), run.segment_len, origin, |_| unreachable!());
        }
        clocks + measure(|| open(batch))
    }

    /// Clocks per segment of super-packets outbound and inbound, checksums and coalescing included.
    fn run_super(&mut self, rounds: usize) -> (f64, f64) {
        const SEGMENTS: usize = BATCH / 8;
        let octets = self.packet.len();
        let super_packet = tcp_super_packet(octets - TCP_HEADERS, SEGMENTS);
        let vnet = VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: VnetHeader::GSO_TCPV4,
            hdr_len: TCP_HEADERS as u16,
            gso_size: (octets - TCP_HEADERS) as u16,
            csum_start: 20,
            csum_offset: 16,
        };
        let (mut outbound_batch, mut inbound_batch) = (OutboundBatch::new(), InboundBatch::new());
        let (mut outbound, mut inbound) = (Vec::new(), Vec::new());
        let now = now();
        for _ in 0..rounds {
            let mut sealed = None;
            outbound.push(measure(|| {
                let mut filling = self.sender.fill(now, &mut outbound_batch);
                for _ in 0..BATCH / SEGMENTS {
                    let mut packet = SuperPacket::new(self.interface, vnet, &super_packet);
                    assert_eq!(filling.push(&mut packet), Progress::Done);
                }
                sealed = Some(filling.seal());
            }));
            let mut pieces = 0;
            inbound.push(Self::receive(sealed.iter().flat_map(Sealed::runs), &mut inbound_batch, |batch| {
                let opened = self.receiver.open(now, Offloads { tcp: true, udp: true }, batch);
                pieces += opened.deliveries().map(|delivery| delivery.pieces().len()).sum::<usize>();
            }));
            assert_eq!(pieces, BATCH);
        }
        (lower_quartile(outbound), lower_quartile(inbound))
    }
}

fn sa(
    algorithms: EspAlgorithms,
    spi: EspSpi,
    policy: PolicyId,
    number: usize,
    local: TrafficSelector,
    remote: TrafficSelector,
) -> SaSpec {
    let [encryption_key, integrity_key] = keys(algorithms, number);
    SaSpec {
        protocol: IpsecProtocol::Esp,
        spi,
        policy,
        algorithms,
        encryption_key,
        integrity_key,
        mode: Mode::Tunnel,
        path: path(),
        local: vec![local],
        remote: vec![remote],
        limits: SaLimits::default(),
    }
}

fn keys(algorithms: EspAlgorithms, number: usize) -> [Secret<Vec<u8>>; 2] {
    let EspAlgorithms { cipher, integrity, .. } = algorithms;
    let key = |len: usize| Secret::new((0..len).map(|at| (at ^ number) as u8).collect());
    [key(cipher.key_len() + cipher.salt_len()), key(integrity.key_len())]
}

fn path() -> OuterPath {
    let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
    OuterPath { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 1].into(), encapsulation }
}

/// Any number (xorshift).
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as usize
}

fn destination(number: usize) -> [u8; 4] {
    let [.., high, low] = (number as u32).to_be_bytes();
    [10, 2, high, low]
}

fn selector(first: [u8; 4], last: [u8; 4]) -> TrafficSelector {
    TrafficSelector::any_protocol(AddressRange::new(first.into(), last.into()).unwrap())
}

/// A UDP packet of `octets` octets, still without a destination.
fn packet(octets: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1];
    packet[2..4].copy_from_slice(&(octets as u16).to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([0x10, 0x01, 0, 53]);
    packet.extend((octets as u16 - 20).to_be_bytes());
    packet.resize(octets, 0);
    packet
}

/// Octets of IPv4 and TCP headers.
const TCP_HEADERS: usize = 40;

/// A TCP packet that stands for `segments` segments with `payload` octets each.
fn tcp_super_packet(payload: usize, segments: usize) -> Vec<u8> {
    let len = TCP_HEADERS + payload * segments;
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 1];
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet.extend(destination(0));
    packet.extend([0x10, 0x01, 0, 53, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend((TCP_HEADERS..len).map(|at| at as u8));
    packet
}

/// Where results go.
struct Report {
    json: bool,
    clocks_per_second: f64,
}

impl Report {
    fn head(&self) {
        if !self.json {
            println!(
                "{:<12} {:<17} {:>6} {:>5} {:>9} {:>8} {:>8}",
                "path", "cipher", "octets", "sas", "clocks", "Mpps", "Gb/s"
            );
        }
    }

    fn line(&self, path: &str, cipher: &str, octets: usize, sas: usize, clocks: f64) {
        let mpps = self.clocks_per_second / clocks / 1e6;
        if self.json {
            println!(
                "{{\"path\":\"{path}\",\"cipher\":\"{cipher}\",\"octets\":{octets},\"sas\":{sas},\"clocks\":{clocks:.1},\"mpps\":{mpps:.3}}}"
            );
        } else {
            let gigabits = mpps * octets as f64 * 8.0 / 1e3;
            println!("{path:<12} {cipher:<17} {octets:>6} {sas:>5} {clocks:>9.1} {mpps:>8.3} {gigabits:>8.2}");
        }
    }
}

/// Clocks for each packet of one batch.
fn measure(work: impl FnOnce()) -> f64 {
    let start = clock();
    work();
    clock().wrapping_sub(start) as f64 / BATCH as f64
}

/// How fast [`clock`] is.
fn clocks_per_second() -> f64 {
    let (start, start_clock) = (now(), clock());
    while start.elapsed().as_millis() < 100 {
        std::hint::spin_loop();
    }
    clock().wrapping_sub(start_clock) as f64 / start.elapsed().as_secs_f64()
}
