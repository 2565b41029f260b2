//! GRE, VXLAN and L2TPv3 between two daemons, in clear and inside ESP, with tshark as the judge of the wire. Needs root.

use anyhow::{Result, ensure};
use e2e::{SECRETS, Twins};
use harness::{Capture, Gateway, Site, World, ping, tcp_transfer, tshark};

/// A tunnel: its name, keys for both ends, keys for moon's, keys for sun's, and what tshark prints of its packets.
struct Tunnel {
    name: &'static str,
    keys: &'static str,
    moon: &'static str,
    sun: &'static str,
    filter: &'static str,
    fields: &'static [&'static str],
    expected: &'static [&'static str],
}

const TUNNELS: [Tunnel; 5] = [
    Tunnel {
        name: "gre0",
        keys: "key = 0x0a0b0c0d\nchecksum = true\nsequence = true\n",
        moon: "",
        sun: "",
        filter: "gre && icmp.type == 8 && ip.src == 10.9.0.1",
        fields: &["gre.proto", "gre.key", "gre.checksum.status", "gre.flags.sequence_number"],
        expected: &["0x0800", "0x0a0b0c0d", "1", "1"],
    },
    Tunnel {
        name: "gre1",
        keys: "layer = \"ethernet\"\n",
        moon: "",
        sun: "",
        filter: "gre && icmp.type == 8 && ip.src == 10.9.0.1",
        fields: &["gre.proto", "gre.flags.key", "gre.flags.checksum"],
        expected: &["0x6558", "0", "0"],
    },
    Tunnel {
        name: "vxlan0",
        keys: "vni = 1193046\n",
        moon: "",
        sun: "",
        filter: "vxlan && icmp.type == 8 && ip.src == 10.9.0.1",
        fields: &["vxlan.vni", "vxlan.flag_i", "udp.dstport", "udp.checksum"],
        expected: &["1193046", "1", "4789", "0x0000"],
    },
    Tunnel {
        name: "l2tp0",
        keys: "",
        moon: "session = 7\npeer_session = 9\n",
        sun: "session = 9\npeer_session = 7\n",
        filter: "ip.proto == 115 && ip.src == 192.168.0.1",
        fields: &["l2tp.sid"],
        expected: &["0x00000009"],
    },
    Tunnel {
        name: "l2tp1",
        keys: "carrier = \"udp\"\nsequence = true\n",
        moon: "session = 7\npeer_session = 9\ncookie = \"01020304\"\n",
        sun: "session = 9\npeer_session = 7\npeer_cookie = \"01020304\"\n",
        filter: "udp.dstport == 1701 && ip.src == 192.168.0.1",
        fields: &["l2tp.version", "l2tp.type", "l2tp.sid", "udp.srcport"],
        expected: &["3", "0", "0x00000009", "1701"],
    },
];

impl Tunnel {
    /// The configuration of the gateway at `here`, number 1 or 2 inside.
    fn toml(&self, here: Site, there: Site, number: u8, more: &str) -> String {
        let own = if number == 1 { self.moon } else { self.sun };
        let (local, remote) = (here.outer4, there.outer4);
        format!(
            "[daemon]\nkeylog = \"keys-{number}\"\n[interface.{}]\nlocal = \"{local}\"\nremote = \"{remote}\"\n\
             addresses = [\"10.9.0.{number}/24\", \"fd09::{number}/64\"]\n{}{own}{more}",
            self.name, self.keys
        )
    }

    /// Both gateways; `more` gives further lines for the two configurations.
    fn start(&self, more: impl Fn(Site, Site) -> String) -> Result<Twins> {
        let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
        let start = |here: Site, there: Site, number: u8| {
            let toml = self.toml(here, there, number, &more(here, there));
            let toml = toml.replace("\"keys-", &format!("\"{}/keys-", folder.path().display()));
            Gateway::start(&world, here.gateway, folder.path(), &toml, SECRETS)
        };
        let (sun, moon) = (start(Site::SUN, Site::MOON, 2)?, start(Site::MOON, Site::SUN, 1)?);
        Ok(Twins { moon, sun, world, folder })
    }
}

fn traffic_crosses(twins: &Twins) -> Result<()> {
    for (from, to) in [("moon", "10.9.0.2"), ("sun", "fd09::1")] {
        // A neighbour that was not found before is asked for again only after a while.
        let is_there = || Ok(ping(&twins.world, from, to, 1)?.lossless());
        harness::wait_until(e2e::LIMIT, "the neighbour is found", is_there)?;
        ensure!(
            ping(&twins.world, from, to, 3)?.lossless(),
            "{from} to {to}\n{}\n{}",
            twins.moon.log(),
            twins.sun.log()
        );
    }
    tcp_transfer(&twins.world, "moon", "sun", "10.9.0.2", 2 << 20)
}

#[test]
fn plain_tunnels_are_what_tshark_takes_them_for() -> Result<()> {
    for tunnel in TUNNELS {
        println!("{}", tunnel.name);
        let twins = tunnel.start(|_, _| "protection = \"none\"\n".to_owned())?;
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        traffic_crosses(&twins)?;
        let capture = capture.stop()?;
        let rows = tshark(&capture, None, tunnel.filter, tunnel.fields)?;
        ensure!(rows.iter().any(|row| row == tunnel.expected), "{}: {:?}", tunnel.name, rows.first());
        ensure!(tshark(&capture, None, "esp", &["frame.number"])?.is_empty(), "nobody asked for ESP");
    }
    Ok(())
}

#[test]
fn tunnels_are_protected_by_child_sas_that_protect_their_packets_by_default() -> Result<()> {
    for tunnel in TUNNELS {
        for mode in ["transport", "tunnel"] {
            println!("{} in {mode} mode", tunnel.name);
            let twins = tunnel.start(|here, there| {
                format!(
                    "[conn.net]\nleft = \"{}\"\nleftid = \"{}.example.org\"\nright = \"{}\"\nrightid = \"{}.example.org\"\n\
                     interface = \"{}\"\ntype = \"{mode}\"\nauto = \"add\"\nretransmit_timeout = \"500ms\"\n",
                    here.outer4, here.gateway, there.outer4, there.gateway, tunnel.name
                )
            })?;
            let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
            harness::expect_silence(&twins.world, "moon", "10.9.0.2")?;
            twins.up()?;
            traffic_crosses(&twins)?;
            let capture = capture.stop()?;
            let clear = "gre or vxlan or l2tp or icmp.type == 8 or ip.proto == 115 or tcp";
            let clear = tshark(&capture, None, clear, &["frame.number"])?;
            ensure!(clear.is_empty(), "{} packets in clear", clear.len());
            let keys = twins.folder.path().join("keys-1");
            let rows = tshark(&capture, Some(&keys), tunnel.inside_esp(), tunnel.fields)?;
            let found = rows.iter().any(|row| row.iter().zip(tunnel.expected).all(|(got, want)| got.ends_with(want)));
            ensure!(found, "{} in {mode} mode: {rows:?}", tunnel.name);
        }
    }
    Ok(())
}

impl Tunnel {
    /// The filter for its packets where the outer header is that of ESP.
    fn inside_esp(&self) -> &'static str {
        match self.name {
            "l2tp0" => "esp && l2tp.sid == 9",
            "l2tp1" => "esp && l2tp.sid == 9 && udp.dstport == 1701",
            "vxlan0" => "esp && vxlan && icmp.type == 8",
            _ => "esp && gre && icmp.type == 8",
        }
    }
}
