//! scapy as an independent implementation: what we seal it opens, what it seals we open.
//!
//! Needs Debian's `python3-scapy` and `python3-cryptography`; without them the test fails in CI and says so elsewhere.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use espdp_api::{CryptoEngine, Direction, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, Mode, Secret};
use espdp_core::{OuterHeader, Transform};
use serde::{Deserialize, Serialize};

use crate::ah;
use crate::support::*;

/// A question; see `scapy_peer.py`.
#[derive(Serialize)]
struct Ask<'a> {
    #[serde(rename = "do")]
    task: &'a str,
    protocol: &'a str,
    spi: u32,
    sequence: u64,
    extended: bool,
    cipher: Option<&'a str>,
    icv_len: usize,
    key: String,
    integrity: Option<&'a str>,
    integrity_key: String,
    /// The outer header of tunnel mode, empty in transport mode.
    tunnel: String,
    udp: bool,
    iv: String,
    packet: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Packet(String),
    Lacks(String),
    Error(String),
}

/// A Python process that answers.
struct Scapy {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it could not do, and how often it was asked for that.
    lacks: BTreeMap<String, usize>,
}

impl Scapy {
    /// `None` where there is no scapy.
    fn start() -> Option<Self> {
        const PYTHON: &str = "/usr/bin/python3";
        let probe = Command::new(PYTHON).args(["-c", "import scapy.layers.ipsec, cryptography"]).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs python3-scapy");
            println!("not run: this test needs python3-scapy and python3-cryptography");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pipeline/scapy_peer.py");
        let mut process =
            Command::new(PYTHON).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Some(Self { process, input, output, lacks: BTreeMap::new() })
    }

    /// The packet that comes back; `None` when scapy cannot do what is asked for.
    fn ask(&mut self, ask: &Ask<'_>) -> Option<Vec<u8>> {
        writeln!(self.input, "{}", serde_json::to_string(ask).unwrap()).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        match serde_json::from_str(&line).unwrap() {
            Answer::Packet(packet) => Some(octets(&packet)),
            Answer::Error(error) => {
                panic!("scapy cannot {} {:?} with {:?}: {error}", ask.task, ask.cipher, ask.integrity)
            }
            Answer::Lacks(what) => {
                *self.lacks.entry(what).or_default() += 1;
                None
            }
        }
    }
}

impl Drop for Scapy {
    fn drop(&mut self) {
        if self.process.kill().and_then(|()| self.process.wait()).is_err() {
            println!("scapy did not end");
        }
        for (what, times) in &self.lacks {
            println!("scapy lacks what {times} questions were about: {what}");
        }
    }
}

fn octets(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn scapy_cipher(cipher: EspCipher) -> Option<&'static str> {
    match cipher {
        EspCipher::AesGcm16 { .. } | EspCipher::AesGcm12 { .. } | EspCipher::AesGcm8 { .. } => Some("AES-GCM"),
        EspCipher::AesCcm16 { .. } | EspCipher::AesCcm12 { .. } | EspCipher::AesCcm8 { .. } => Some("AES-CCM"),
        EspCipher::ChaCha20Poly1305 => Some("CHACHA20-POLY1305"),
        EspCipher::AesGmac { .. } => None,
        EspCipher::AesCbc { .. } => Some("AES-CBC"),
        EspCipher::AesCtr { .. } => Some("AES-CTR"),
        EspCipher::Null => Some("NULL"),
    }
}

fn scapy_integrity(integrity: EspIntegrity) -> Option<&'static str> {
    Some(match integrity {
        EspIntegrity::None => "NULL",
        EspIntegrity::HmacSha1_96 => "HMAC-SHA1-96",
        EspIntegrity::HmacSha2_256_128 => "SHA2-256-128",
        EspIntegrity::HmacSha2_384_192 => "SHA2-384-192",
        EspIntegrity::HmacSha2_512_256 => "SHA2-512-256",
        EspIntegrity::AesCmac96 => "AES-CMAC-96",
    })
}

/// What a question about an SA with these algorithms has in common with others.
fn ask_about(algorithms: EspAlgorithms) -> Ask<'static> {
    Ask {
        task: "seal",
        protocol: "ESP",
        spi: 0,
        sequence: 1,
        extended: algorithms.extended_sequence_numbers,
        cipher: scapy_cipher(algorithms.cipher),
        icv_len: algorithms.icv_len(),
        key: String::new(),
        integrity: scapy_integrity(algorithms.integrity),
        integrity_key: String::new(),
        tunnel: String::new(),
        udp: false,
        iv: "5a".repeat(algorithms.cipher.iv_len()),
        packet: String::new(),
    }
}

/// The outer header of a packet between two gateways.
fn outer(gateway: &Gateway, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip(&gateway.path.local.to_string(), &gateway.path.remote.to_string(), protocol, 0, payload)
}

/// What stands on the wire: outer header, UDP header, ESP.
fn on_the_wire(sender: &Gateway, wire: &Wire) -> Vec<u8> {
    match wire.path.encapsulation {
        Encapsulation::Esp => outer(sender, 50, &wire.octets),
        Encapsulation::Udp { .. } => {
            let len = (wire.octets.len() as u16 + 8).to_be_bytes();
            let udp = [&[0x11, 0x94, 0x11, 0x94][..], &len, &[0, 0], &wire.octets].concat();
            outer(sender, 17, &udp)
        }
    }
}

/// The ESP packet within what scapy made for the wire.
fn off_the_wire(sender: &Gateway, packet: &[u8]) -> Wire {
    let header_len = if sender.path.local.is_ipv4() { 20 } else { 40 };
    let udp_len = if matches!(sender.path.encapsulation, Encapsulation::Esp) { 0 } else { 8 };
    let octets = packet[header_len + udp_len..].to_vec();
    let outer = OuterHeader { dont_fragment: true, ..OuterHeader::default() };
    Wire { octets, header: Vec::new(), outer, path: sender.path }
}

/// Sends packets both ways between us and scapy. Says whether scapy could.
fn exchange(scapy: &mut Scapy, setup: &Setup, packets: &[Vec<u8>]) -> bool {
    let (mut left, mut right) = setup.connect();
    let tunnel = if setup.mode == Mode::Tunnel { hex(&outer(&left, 4, &[])) } else { String::new() };
    for (packet, sequence) in packets.iter().zip(1..) {
        let sa = setup.outbound(right.inbound_spi, left.path, true, 2).sa;
        let about = || Ask {
            spi: sa.spi.value(),
            sequence,
            key: hex(sa.encryption_key.expose()),
            integrity_key: hex(sa.integrity_key.expose()),
            tunnel: tunnel.clone(),
            udp: setup.encapsulation != Encapsulation::Esp,
            ..ask_about(setup.algorithms)
        };
        let wire = left.send(packet);
        assert_eq!(wire.len(), 1, "{:?}", left.drops(Direction::Outbound));
        let Some(opened) = scapy.ask(&Ask { task: "open", packet: hex(&on_the_wire(&left, &wire[0])), ..about() })
        else {
            return false;
        };
        assert_same(&opened, packet, setup);

        let Some(sealed) = scapy.ask(&Ask { packet: hex(packet), ..about() }) else { return false };
        let written = right.receive(&[off_the_wire(&left, &sealed)]);
        assert_eq!(written.len(), 1, "{:?}: {:?}", setup.algorithms, right.drops(Direction::Inbound));
        assert_same(&written[0], packet, setup);
    }
    true
}

/// In transport mode the header is a new one: TTL, ID and traffic class are not compared.
fn assert_same(found: &[u8], sent: &[u8], setup: &Setup) {
    if setup.mode == Mode::Tunnel {
        assert_eq!(found, sent, "{:?}", setup.algorithms);
        return;
    }
    let header_len = if sent[0] >> 4 == 4 { 20 } else { 40 };
    assert_eq!(found.len(), sent.len());
    assert_eq!(found[header_len..], sent[header_len..], "{:?}", setup.algorithms);
    let [addresses, protocol] = if header_len == 20 { [12, 9] } else { [8, 6] };
    assert_eq!(found[addresses..header_len], sent[addresses..header_len]);
    assert_eq!(found[protocol], sent[protocol]);
}

#[test]
fn tunnels_with_every_cipher_and_family_are_read_both_ways() {
    let Some(mut scapy) = Scapy::start() else { return };
    let packets: Vec<_> = [(true, 0), (false, 1), (true, 1300), (false, 61)].map(|(ipv4, len)| udp(ipv4, len)).into();
    let mut done = 0;
    for algorithms in all_algorithms() {
        for outer_is_ipv6 in [false, true] {
            for encapsulation in [Encapsulation::Esp, UDP] {
                let setup = Setup { algorithms, outer_is_ipv6, encapsulation, ..Setup::default() };
                done += usize::from(exchange(&mut scapy, &setup, &packets));
            }
        }
    }
    // Without ESN all but GMAC, GCM-8 and GCM-12; with it, the AEADs of these.
    let all = all_algorithms();
    let known = |algorithms: &&EspAlgorithms| {
        let EspAlgorithms { cipher, extended_sequence_numbers: extended, .. } = **algorithms;
        let gcm = matches!(cipher, EspCipher::AesGcm12 { .. } | EspCipher::AesGcm8 { .. });
        scapy_cipher(cipher).is_some() && !gcm && (!extended || cipher.is_aead())
    };
    assert_eq!(done, 4 * all.iter().filter(known).count());
}

#[test]
fn transport_mode_is_read_both_ways() {
    let Some(mut scapy) = Scapy::start() else { return };
    for (cipher, integrity, extended) in [
        (EspCipher::AesGcm16 { key_bits: 256 }, EspIntegrity::None, true),
        (EspCipher::ChaCha20Poly1305, EspIntegrity::None, false),
        (EspCipher::AesCcm12 { key_bits: 192 }, EspIntegrity::None, true),
        (EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha2_256_128, false),
        (EspCipher::AesCtr { key_bits: 128 }, EspIntegrity::AesCmac96, false),
        (EspCipher::Null, EspIntegrity::HmacSha2_512_256, false),
    ] {
        // Not UDP over IPv6: there, scapy 2.5 leaves the UDP header in what it opens.
        for (outer_is_ipv6, encapsulation) in [(false, Encapsulation::Esp), (false, UDP), (true, Encapsulation::Esp)] {
            let algorithms = algorithms(cipher, integrity, extended);
            let setup = Setup { algorithms, mode: Mode::Transport, outer_is_ipv6, encapsulation, ..Setup::default() };
            let (source, destination) =
                if outer_is_ipv6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
            let packets = [5, 1200].map(|len| udp_between(source, destination, 0, len));
            assert!(exchange(&mut scapy, &setup, &packets), "{algorithms:?}");
        }
    }
}

/// RFC 4303 §2.2.1: beyond 2³² packets, the half that is not sent counts.
#[test]
fn extended_sequence_numbers_beyond_32_bits_are_read_both_ways() {
    let Some(mut scapy) = Scapy::start() else { return };
    let inner = udp(true, 50);
    let header = ip("192.0.2.1", "192.0.2.2", 50, 0, &[]);
    for cipher in [
        EspCipher::AesGcm16 { key_bits: 128 },
        EspCipher::AesCcm8 { key_bits: 256 },
        EspCipher::AesCcm16 { key_bits: 128 },
        EspCipher::ChaCha20Poly1305,
    ] {
        let algorithms = algorithms(cipher, EspIntegrity::None, true);
        let key: Vec<u8> = (0..).take(cipher.key_len() + cipher.salt_len()).collect();
        let (secret, none) = (Secret::new(key.clone()), Secret::new(Vec::new()));
        let by = |engine| Transform::with_engine(engine, algorithms, &secret, &none, &Secret::new([7; 16])).unwrap();
        let transforms = [by(CryptoEngine::Auto), by(CryptoEngine::Library)];
        let sequences = [u64::from(u32::MAX), 1 << 32, (0xdead << 32) + 0xbeef, u64::MAX];
        for (transform, sequence) in transforms.iter().flat_map(|by| sequences.map(|sequence| (by, sequence))) {
            let about =
                || Ask { spi: 0x1234_5678, sequence, key: hex(&key), tunnel: hex(&header), ..ask_about(algorithms) };
            let start = [&0x1234_5678u32.to_be_bytes()[..], &(sequence as u32).to_be_bytes(), &[0; 8]].concat();
            // 78 octets of packet, and a trailer that fills the last word.
            let mut packet = [&start[..], &inner, &[0, 4], &vec![0; cipher.icv_len()]].concat();
            transform.seal(&mut packet, sequence).unwrap();
            let wire = ip("192.0.2.1", "192.0.2.2", 50, 0, &packet);
            let opened = scapy.ask(&Ask { task: "open", packet: hex(&wire), ..about() }).unwrap();
            assert_eq!(opened, inner, "{cipher:?}");

            let mut sealed = scapy.ask(&Ask { packet: hex(&inner), ..about() }).unwrap().split_off(20);
            assert_eq!(transform.open(&mut sealed, sequence).unwrap().sequence(), sequence);
            assert_eq!(sealed[16..16 + inner.len()], inner, "{cipher:?}");
        }
    }
}

/// Sends packets of AH both ways between us and scapy. `on_the_way` is what routers do to what scapy sealed.
fn exchange_ah(scapy: &mut Scapy, setup: &Setup, packets: &[Vec<u8>], on_the_way: impl Fn(&mut [u8])) {
    let (mut left, mut right) = setup.connect();
    let tunnel = if setup.mode == Mode::Tunnel { hex(&outer(&left, 4, &[])) } else { String::new() };
    for (packet, sequence) in packets.iter().zip(1..) {
        let sa = setup.outbound(right.inbound_spi, left.path, true, 2).sa;
        let integrity_key = hex(sa.integrity_key.expose());
        let about = || Ask {
            protocol: "AH",
            spi: sa.spi.value(),
            sequence,
            integrity_key: integrity_key.clone(),
            tunnel: tunnel.clone(),
            iv: String::new(),
            ..ask_about(setup.algorithms)
        };
        let wire = left.send_clear(packet).remove(0);
        let opened = scapy.ask(&Ask { task: "open", packet: hex(&wire), ..about() }).unwrap();
        assert_eq!(opened, *packet, "{:?}", setup.algorithms);

        let mut sealed = scapy.ask(&Ask { packet: hex(packet), ..about() }).unwrap();
        on_the_way(&mut sealed);
        let written = right.receive_ah(&[sealed]);
        assert_eq!(written.len(), 1, "{:?}: {:?}", setup.algorithms, right.drops(Direction::Inbound));
        assert_same(&written[0], packet, setup);
    }
}

/// R4302-3.3.3.1-1.
#[test]
fn ah_is_read_both_ways_in_every_mode_family_and_length() {
    let Some(mut scapy) = Scapy::start() else { return };
    for integrity in ah::INTEGRITY {
        for extended in [false, true] {
            for outer_is_ipv6 in [false, true] {
                let tunnel = ah::setup(integrity, extended, Mode::Tunnel, outer_is_ipv6);
                let packets = [udp(true, 0), udp(false, 7), udp(true, 1200)];
                let count_hops = |packet: &mut [u8]| packet[if outer_is_ipv6 { 7 } else { 8 }] -= 3;
                exchange_ah(&mut scapy, &tunnel, &packets, count_hops);
                let transport = ah::setup(integrity, extended, Mode::Transport, outer_is_ipv6);
                let packets = [0, 1, 1200].map(|len| ah::between_gateways(outer_is_ipv6, 0, len));
                exchange_ah(&mut scapy, &transport, &packets, count_hops);
            }
        }
    }
    assert!(scapy.lacks.is_empty());
}

/// R4302-3.3.3.1-1: what appendix A says of options and extension headers, read by somebody else.
#[test]
fn scapy_covers_the_same_options_and_extension_headers() {
    let Some(mut scapy) = Scapy::start() else { return };
    let sum = |packet: &mut Vec<u8>| {
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum(&[&packet[..usize::from(packet[0] & 15) * 4]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    };
    let transport = ah::setup(EspIntegrity::HmacSha2_256_128, true, Mode::Transport, false);
    // Router alert; record route, filled by a router on the way.
    let options = [[0x94, 4, 0, 0].to_vec(), vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]];
    for options in options {
        let mut packet = ah::between_gateways(false, 0, 21);
        packet[0] += (options.len() / 4) as u8;
        packet.splice(20..20, options.iter().copied());
        sum(&mut packet);
        let (mut left, mut right) = transport.connect();
        let sa = transport.outbound(right.inbound_spi, left.path, true, 2).sa;
        let about = || Ask {
            protocol: "AH",
            spi: sa.spi.value(),
            integrity_key: hex(sa.integrity_key.expose()),
            iv: String::new(),
            ..ask_about(transport.algorithms)
        };
        let wire = left.send_clear(&packet).remove(0);
        assert_eq!(scapy.ask(&Ask { task: "open", packet: hex(&wire), ..about() }).unwrap(), packet);
        let mut sealed = scapy.ask(&Ask { packet: hex(&packet), ..about() }).unwrap();
        let is_record_route = options[0] == 7;
        if is_record_route {
            sealed[22..27].copy_from_slice(&[8, 198, 51, 100, 1]);
        }
        let written = right.receive_ah(&[sealed]);
        assert_eq!(written[0].len(), packet.len(), "{:?}", right.drops(Direction::Inbound));
        assert_eq!(written[0][23..27] == [198, 51, 100, 1], is_record_route);
    }
}

/// R4302-3.3.3.1-1: routers change an option that says it may change, count hops and move the addresses of a routing header; the
/// sender has foreseen that.
#[test]
fn a_packet_that_scapy_sends_by_a_source_route_is_authentic_at_its_end() {
    let Some(mut scapy) = Scapy::start() else { return };
    let algorithms = algorithms(EspCipher::Null, EspIntegrity::HmacSha2_512_256, true);
    let key: Vec<u8> = (0..64).collect();
    let transform = Transform::authentication_header(algorithms, &Secret::new(key.clone())).unwrap();
    let final_destination = [0x2a; 16];
    let hop_by_hop = [43, 0, 0x3e, 4, 1, 2, 3, 4];
    let routing = [&[17, 2, 0, 1, 0, 0, 0, 0][..], &final_destination].concat();
    let udp = udp_between("2001:db8::1", "2001:db8::9", 0, 30).split_off(40);
    let packet = ip("2001:db8::1", "2001:db8::9", 0, 0, &[&hop_by_hop[..], &routing, &udp].concat());
    let sequence = (7 << 32) + 9;
    let mut sealed = scapy
        .ask(&Ask {
            protocol: "AH",
            spi: 0x1234,
            sequence,
            integrity_key: hex(&key),
            iv: String::new(),
            packet: hex(&packet),
            ..ask_about(algorithms)
        })
        .unwrap();
    assert!(transform.open(&mut sealed.clone(), sequence).is_err(), "still on its way");
    let first_hop: [u8; 16] = sealed[24..40].try_into().unwrap();
    sealed[7] -= 1;
    sealed[44..48].copy_from_slice(&[9, 9, 9, 9]);
    sealed[51] = 0;
    sealed[24..40].copy_from_slice(&final_destination);
    sealed[56..72].copy_from_slice(&first_hop);
    assert_eq!(transform.open(&mut sealed, sequence).map(|proof| proof.sequence()), Ok(sequence));
    sealed[43] ^= 1;
    assert!(transform.open(&mut sealed, sequence).is_err(), "another length");
}
