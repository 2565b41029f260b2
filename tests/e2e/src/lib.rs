//! Two of our own gateways, one at each site, and tunnels between them.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Gateway, Site, World, ping};
use tempfile::TempDir;

/// What differs from one test to the next.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The IKE proposal of both.
    pub ike: &'a str,
    /// The ESP proposal of both.
    pub esp: &'a str,
    /// The interface of both.
    pub interface: &'a str,
    /// Whether the outer addresses are IPv6.
    pub outer6: bool,
    /// Whether the gateways' own addresses are protected instead of the networks behind them.
    pub host_to_host: bool,
    /// Further lines for both connections.
    pub lines: &'a str,
    /// Further lines for moon's connection.
    pub moon_lines: &'a str,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            ike: "aes256gcm16-prfsha256-x25519",
            esp: "aes256gcm16-esn",
            interface: "ipsec0",
            outer6: false,
            host_to_host: false,
            lines: "",
            moon_lines: "",
        }
    }
}

/// Both gateways, running and configured, no tunnel yet.
#[derive(Debug)]
pub struct Twins {
    /// The left one.
    pub moon: Gateway,
    /// The right one.
    pub sun: Gateway,
    /// The network.
    pub world: World,
    /// Configurations, logs and captures.
    pub folder: TempDir,
}

impl Twins {
    /// Starts both as two sites that see each other.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start(case: Case<'_>) -> Result<Self> {
        Self::start_in(World::two_sites()?, case)
    }

    /// Starts both in `world`.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start_in(world: World, case: Case<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let sun = Gateway::start(&world, "sun", folder.path(), &case.toml(Site::SUN, Site::MOON), SECRETS)?;
        let moon_toml = case.toml(Site::MOON, Site::SUN) + case.moon_lines;
        let moon = Gateway::start(&world, "moon", folder.path(), &moon_toml, SECRETS)?;
        Ok(Self { moon, sun, world, folder })
    }

    /// Brings the tunnel up from the left.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn up(&self) -> Result<()> {
        self.moon.expect_ctl(&["up", "net"]).map(drop)
    }

    /// Pings host to host in both directions and both families, and wants every reply.
    ///
    /// # Errors
    /// When a reply is missing.
    pub fn expect_pings(&self) -> Result<()> {
        self.expect_ping(Site::MOON.host, Site::SUN.host4)?;
        self.expect_ping(Site::SUN.host, Site::MOON.host6)
    }

    /// Pings and wants every reply.
    ///
    /// # Errors
    /// When a reply is missing.
    pub fn expect_ping(&self, from: &str, to: &str) -> Result<()> {
        let result = ping(&self.world, from, to, 3)?;
        ensure!(
            result.lossless(),
            "{from} to {to}: {result:?}\n--- moon\n{}\n--- sun\n{}",
            self.moon.expect_ctl(&["stats"]).unwrap_or_default() + &self.moon.log(),
            self.sun.expect_ctl(&["stats"]).unwrap_or_default() + &self.sun.log()
        );
        Ok(())
    }

    /// Wants that nothing passes.
    ///
    /// # Errors
    /// When something does.
    pub fn expect_silence(&self) -> Result<()> {
        harness::expect_silence(&self.world, Site::MOON.host, Site::SUN.host4)
    }
}

impl Case<'_> {
    /// The configuration of the gateway at `here`.
    #[must_use]
    pub fn toml(&self, here: Site, there: Site) -> String {
        let outer = |site: Site| if self.outer6 { site.outer6 } else { site.outer4 };
        let subnets = if self.host_to_host && self.interface.starts_with("ipip") {
            format!("routes = [\"{}\", \"{}\"]\n", there.net4, there.net6)
        } else if self.host_to_host {
            String::new()
        } else {
            format!(
                "leftsubnet = [\"{}\", \"{}\"]\nrightsubnet = [\"{}\", \"{}\"]\n",
                here.net4, here.net6, there.net4, there.net6
            )
        };
        format!(
            "[interface.{}]
[conn.net]
left = \"{}\"
leftid = \"{}.example.org\"
right = \"{}\"
rightid = \"{}.example.org\"
{subnets}ike = \"{}\"
esp = \"{}\"
interface = \"{}\"
auto = \"add\"
retransmit_timeout = \"500ms\"
{}
",
            self.interface,
            outer(here),
            here.gateway,
            outer(there),
            there.gateway,
            self.ike,
            self.esp,
            self.interface,
            self.lines,
        )
    }
}

/// The secrets of both.
pub const SECRETS: &str = "[secret.net]\npsk = \"correct horse battery staple\"\n";

/// How long one thing may take.
pub const LIMIT: Duration = Duration::from_secs(20);
