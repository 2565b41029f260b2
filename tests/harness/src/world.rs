//! Networks of namespaces.

use std::process::Command;

use anyhow::{Context, Result, bail};
use charon_rs::lab::netns::Namespace;
use charon_rs::lab::topology::{Network, Topology};

use crate::process::finish;

/// A network of hosts in namespaces of their own, gone when dropped.
///
/// ```text
/// two sites:   alice ── moon ──────────── sun ── bob
///              10.1.0.10  192.168.0.1 ── 192.168.0.2  10.2.0.10
/// with a NAT:  alice ── moon ── nat ──── sun ── bob
///              10.1.0.10  172.16.0.2 ─ 172.16.0.1|192.168.0.9 ── 192.168.0.2  10.2.0.10
/// ```
///
/// The same with IPv6: fec1::10, fec0::1, fec0::2, fec2::10.
#[derive(Debug)]
pub struct World {
    network: Network,
}

/// One side of the two-site networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The gateway's node.
    pub gateway: &'static str,
    /// The host behind it.
    pub host: &'static str,
    /// The gateway's outer IPv4 address.
    pub outer4: &'static str,
    /// The gateway's outer IPv6 address.
    pub outer6: &'static str,
    /// The IPv4 network behind it.
    pub net4: &'static str,
    /// The IPv6 network behind it.
    pub net6: &'static str,
    /// The host's IPv4 address.
    pub host4: &'static str,
    /// The host's IPv6 address.
    pub host6: &'static str,
}

impl Site {
    /// The left site.
    pub const MOON: Self = Self {
        gateway: "moon",
        host: "alice",
        outer4: "192.168.0.1",
        outer6: "fec0::1",
        net4: "10.1.0.0/16",
        net6: "fec1::/64",
        host4: "10.1.0.10",
        host6: "fec1::10",
    };
    /// The right site.
    pub const SUN: Self = Self {
        gateway: "sun",
        host: "bob",
        outer4: "192.168.0.2",
        outer6: "fec0::2",
        net4: "10.2.0.0/16",
        net6: "fec2::/64",
        host4: "10.2.0.10",
        host6: "fec2::10",
    };
    /// The left site when it is behind a NAT.
    pub const HIDDEN_MOON: Self = Self { outer4: "172.16.0.2", ..Self::MOON };
}

impl World {
    /// Two sites whose gateways see each other.
    ///
    /// # Errors
    /// Without root.
    pub fn two_sites() -> Result<Self> {
        let topology = sites()?.link(
            1500,
            ("moon", WAN, &["192.168.0.1/24", "fec0::1/64"]),
            ("sun", WAN, &["192.168.0.2/24", "fec0::2/64"]),
        )?;
        Self::build(&topology)
    }

    /// Two sites; the left gateway is behind a NAT at 192.168.0.9 (masquerade of nftables).
    ///
    /// # Errors
    /// Without root, or without `nft`.
    pub fn left_behind_nat() -> Result<Self> {
        let topology = sites()?
            .router(NAT)
            .link(1500, ("moon", WAN, &["172.16.0.2/24"]), (NAT, "lan0", &["172.16.0.1/24"]))?
            .link(1500, (NAT, WAN, &["192.168.0.9/24"]), ("sun", WAN, &["192.168.0.2/24"]))?
            .default_routes("moon", ["172.16.0.1"])?;
        let world = Self::build(&topology)?;
        world.sh(
            NAT,
            "nft add table ip nat && nft 'add chain ip nat post { type nat hook postrouting priority 100; }' \
             && nft add rule ip nat post oifname wan0 masquerade",
        )?;
        Ok(world)
    }

    /// Any network.
    ///
    /// # Errors
    /// Without root.
    pub fn build(topology: &Topology) -> Result<Self> {
        Ok(Self { network: Network::build(topology).context("the system tests make namespaces and need root")? })
    }

    /// The namespace of a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn namespace(&self, node: &str) -> Result<&Namespace> {
        Ok(self.network.namespace(node)?)
    }

    /// A command that will run in a node's namespace.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn command(&self, node: &str, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        self.namespace(node)?.host(&mut command);
        Ok(command)
    }

    /// Runs a line of shell in a node's namespace and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with its messages.
    pub fn sh(&self, node: &str, line: &str) -> Result<String> {
        let mut command = self.command(node, "sh")?;
        command.args(["-c", line]);
        let output = finish(command)?;
        if !output.status.success() {
            bail!("`{line}` in {node}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn sites() -> Result<Topology> {
    Ok(Topology::new()
        .host("alice")
        .router("moon")
        .router("sun")
        .host("bob")
        .link(
            1500,
            ("alice", "eth0", &["10.1.0.10/16", "fec1::10/64"]),
            ("moon", "lan0", &["10.1.0.1/16", "fec1::1/64"]),
        )?
        .link(1500, ("bob", "eth0", &["10.2.0.10/16", "fec2::10/64"]), ("sun", "lan0", &["10.2.0.1/16", "fec2::1/64"]))?
        .default_routes("alice", ["10.1.0.1", "fec1::1"])?
        .default_routes("bob", ["10.2.0.1", "fec2::1"])?)
}

/// The interface of each gateway that faces the other.
pub(crate) const WAN: &str = "wan0";

/// The node between the gateways of [`World::left_behind_nat`].
const NAT: &str = "nat";
