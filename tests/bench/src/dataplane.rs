//! Our dataplane alone, with keys by hand: as many tunnels as one likes, without a handshake for each, or one for everything.
//!
//! Both gateways are processes of their own, the program `bench-gateway`.

use std::io::Read;
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context, Result, ensure};
use harness::{Site, World, built};

/// Both gateways.
pub(crate) struct Tunnels {
    gateways: Vec<(Child, ChildStdin)>,
}

impl Tunnels {
    /// Starts both and waits until all tunnels are there; none stands for one for everything. `options` are those of `bench-gateway`.
    pub(crate) fn start(world: &World, tunnels: u32, options: &[&str]) -> Result<Self> {
        let program = built("bench-gateway")?;
        let mut gateways = Vec::new();
        for (site, side) in [(Site::MOON, "moon"), (Site::SUN, "sun")] {
            let mut command = world.command(site.gateway, &program)?;
            command.args([side, &tunnels.to_string()]).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().context("start a gateway")?;
            let stdin = child.stdin.take().context("its standard input")?;
            gateways.push((child, stdin));
        }
        for (child, _) in &mut gateways {
            let mut word = [0; 5];
            child.stdout.take().context("its standard output")?.read_exact(&mut word).context("a gateway failed")?;
            ensure!(&word == READY, "a gateway said {word:?}");
        }
        Ok(Self { gateways })
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.gateways.iter().map(|(child, _)| child.id()).collect()
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        for (mut child, stdin) in self.gateways.drain(..) {
            drop(stdin); // The end of its input is its sign to stop.
            if let Err(error) = child.wait() {
                eprintln!("a gateway cannot be waited for: {error}");
            }
        }
    }
}

/// What a gateway says when its tunnels are there.
const READY: &[u8; 5] = b"READY";
