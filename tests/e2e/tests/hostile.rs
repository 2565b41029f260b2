//! Datagrams that nobody should send, at a gateway with a tunnel. Needs root.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use e2e::{Case, Twins};
use harness::{Capture, Site, tshark};

/// A small generator, so that every run sends the same.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or_default()
    }
}

/// What was seen on the wire, to be mutated.
fn recorded(twins: &Twins) -> Result<Vec<Vec<u8>>> {
    let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
    twins.up()?;
    twins.expect_pings()?;
    let capture = capture.stop()?;
    let rows = tshark(&capture, None, "udp", &["udp.payload"])?;
    rows.iter()
        .flatten()
        .map(|hex| {
            let digits = hex.as_bytes().chunks(2);
            digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
        })
        .collect()
}

#[test]
fn noise_and_mutations_harm_neither_daemon_nor_tunnel() -> Result<()> {
    let mut twins = Twins::start(Case { lines: "forceencaps = true", ..Case::default() })?;
    let originals = recorded(&twins)?;
    ensure!(originals.len() > 8, "only {} datagrams to start from", originals.len());
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut hostile: Vec<Vec<u8>> = Vec::new();
    for _ in 0..3000 {
        let len = noise.below(200);
        hostile.push(noise.octets(len));
    }
    for _ in 0..12000 {
        let mut datagram = originals.get(noise.below(originals.len())).context("a datagram")?.clone();
        for _ in 0..=noise.below(4) {
            let (at, value) = (noise.below(datagram.len()), noise.next().to_le_bytes()[0]);
            if let Some(octet) = datagram.get_mut(at) {
                *octet = value;
            }
        }
        if noise.below(4) == 0 {
            let len = noise.below(datagram.len());
            datagram.truncate(len);
        }
        hostile.push(datagram);
    }
    // From the peer's own address and port too: the source proves nothing.
    for (source, port) in [("192.168.0.2:0", 500), ("192.168.0.2:0", 4500), ("192.168.0.2:9999", 4500)] {
        let target = format!("{}:{port}", Site::MOON.outer4);
        twins.world.namespace("sun")?.run(|| -> Result<()> {
            let socket = UdpSocket::bind(source)?;
            for datagram in &hostile {
                // A full queue may refuse one: that is no failure of the gateway.
                socket.send_to(datagram, &target).ok();
            }
            Ok(())
        })??;
    }
    ensure!(twins.moon.is_running()?, "the daemon is gone:\n{}", twins.moon.log());
    ensure!(!twins.moon.log().contains("panicked"), "{}", twins.moon.log());
    twins.expect_pings()?;
    twins.moon.expect_ctl(&["rekey", "net", "--child", "net"])?;
    twins.expect_pings()
}
