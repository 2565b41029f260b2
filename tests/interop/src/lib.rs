//! Our gateway on the left, strongSwan on the right: the configurations of both, and tunnels between them.

pub mod certificates;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Charon, Gateway, Site, StrongSwan, Version, World, ping};
use tempfile::TempDir;

/// What differs from one test to the next; the rest is the site-to-site tunnel of [`World::two_sites`].
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Our site.
    pub ours: Site,
    /// The IKE proposal of both.
    pub ike: &'a str,
    /// The ESP proposal of both.
    pub esp: &'a str,
    /// Whether the outer addresses are IPv6.
    pub outer6: bool,
    /// The address that strongSwan expects us at, if not our own.
    pub seen_as: Option<&'a str>,
    /// Further lines for our daemon.
    pub our_daemon: &'a str,
    /// Further lines for our connection.
    pub our_lines: &'a str,
    /// Further lines for strongSwan's connection.
    pub their_connection: &'a str,
    /// Further lines for strongSwan's child.
    pub their_child: &'a str,
    /// How strongSwan authenticates itself, as lines of its `local` section.
    pub their_local: &'a str,
    /// How we must authenticate ourselves to strongSwan, as lines of its `remote` section.
    pub their_remote: &'a str,
    /// Lines for strongSwan's daemon.
    pub their_daemon: &'a str,
    /// Certificates and keys of strongSwan: the file in its swanctl folder, and where it comes from.
    pub their_files: &'a [(&'a str, PathBuf)],
    /// Further secrets of strongSwan.
    pub their_secrets: &'a str,
    /// Which strongSwan.
    pub their_version: Version,
    /// Further lines for our secrets.
    pub our_secrets: &'a str,
    /// Our pre-shared key.
    pub our_psk: &'a str,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            ours: Site::MOON,
            ike: "aes256gcm16-prfsha384-ecp384",
            esp: "aes256gcm16",
            outer6: false,
            seen_as: None,
            our_daemon: "",
            our_lines: "",
            their_connection: "",
            their_child: "",
            their_local: "auth = psk",
            their_remote: "auth = psk",
            their_daemon: "",
            their_files: &[],
            their_secrets: "",
            their_version: Version::Installed,
            our_secrets: "",
            our_psk: PSK,
        }
    }
}

/// Both gateways, running and configured, no tunnel yet.
#[derive(Debug)]
pub struct Pair {
    /// Ours, in node `moon`. Declared before the world: daemons end before their namespaces do.
    pub ours: Gateway,
    /// strongSwan, in node `sun`.
    pub theirs: StrongSwan,
    /// The network.
    pub world: World,
    /// Configurations, logs and captures.
    pub folder: TempDir,
}

impl Pair {
    /// Starts both in `world`.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start(world: World, case: Case<'_>) -> Result<Self> {
        Self::start_unlike(world, case, case)
    }

    /// Starts both as two sites that see each other, each with a configuration of its own.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn unlike(ours: Case<'_>, theirs: Case<'_>) -> Result<Self> {
        Self::start_unlike(World::two_sites()?, ours, theirs)
    }

    fn start_unlike(world: World, ours: Case<'_>, theirs: Case<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let charon = Charon { options: theirs.their_daemon, files: theirs.their_files, version: theirs.their_version };
        let sun = StrongSwan::start(&world, Site::SUN.gateway, folder.path(), charon, &theirs.swanctl_conf())?;
        let toml = ours.toml(folder.path());
        let moon = Gateway::start(&world, ours.ours.gateway, folder.path(), &toml, &ours.secrets())?;
        Ok(Self { ours: moon, theirs: sun, world, folder })
    }

    /// Starts both as two sites that see each other.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn two_sites(case: Case<'_>) -> Result<Self> {
        Self::start(World::two_sites()?, case)
    }

    /// Starts both, and brings the tunnel up and traffic across it from either side.
    ///
    /// # Errors
    /// When one of them does not start, or the tunnel does not come up.
    pub fn both_ways(case: Case<'_>) -> Result<Self> {
        let pair = Self::two_sites(case)?;
        pair.up_from_ours()?;
        pair.expect_pings()?;
        pair.ours.expect_ctl(&["down", "net"])?;
        pair.up_from_theirs()?;
        pair.expect_pings()?;
        Ok(pair)
    }

    /// We initiate.
    ///
    /// # Errors
    /// When the tunnel does not come up.
    pub fn up_from_ours(&self) -> Result<()> {
        self.ours
            .expect_ctl(&["up", "net"])
            .map(drop)
            .with_context(|| format!("strongSwan's log:\n{}", self.theirs.log()))
    }

    /// strongSwan initiates.
    ///
    /// # Errors
    /// When the tunnel does not come up.
    pub fn up_from_theirs(&self) -> Result<()> {
        self.theirs.swanctl(&["--initiate", "--child", "net"])?;
        // strongSwan is done when it has our response; our own installation is confirmed by then.
        self.ours.wait_status(LIMIT, "our side of the tunnel", |status| status.to_string().contains("INSTALLED"))
    }

    /// Pings from host to host both ways and in both families, and wants every reply.
    ///
    /// # Errors
    /// When a reply is missing.
    pub fn expect_pings(&self) -> Result<()> {
        self.expect_ping(Site::MOON.host, Site::SUN.host4)?;
        self.expect_ping(Site::SUN.host, Site::MOON.host4)?;
        self.expect_ping(Site::MOON.host, Site::SUN.host6)
    }

    /// Pings once each way in IPv4.
    ///
    /// # Errors
    /// When a reply is missing.
    pub fn expect_ping(&self, from: &str, to: &str) -> Result<()> {
        let result = ping(&self.world, from, to, 3)?;
        ensure!(
            result.lossless(),
            "{from} to {to}: {result:?}\n--- ours\n{}{}\n--- theirs\n{}",
            self.ours.expect_ctl(&["stats"]).unwrap_or_default(),
            self.ours.log(),
            self.theirs.log()
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
    fn outer(&self) -> (&str, &str) {
        if self.outer6 { (self.ours.outer6, Site::SUN.outer6) } else { (self.ours.outer4, Site::SUN.outer4) }
    }

    fn toml(&self, folder: &std::path::Path) -> String {
        let (left, right) = self.outer();
        let (ours, sun) = (self.ours, Site::SUN);
        format!(
            "[daemon]
keylog = \"{keys}\"
{daemon}

[conn.net]
left = \"{left}\"
leftid = \"moon.example.org\"
leftsubnet = [\"{}\", \"{}\"]
right = \"{right}\"
rightid = \"sun.example.org\"
rightsubnet = [\"{}\", \"{}\"]
ike = \"{}\"
esp = \"{}\"
interface = \"ipsec0\"
auto = \"add\"
retransmit_timeout = \"500ms\"
{}
",
            ours.net4,
            ours.net6,
            sun.net4,
            sun.net6,
            self.ike,
            self.esp,
            self.our_lines,
            daemon = self.our_daemon,
            keys = folder.join("keys").display(),
        )
    }

    /// Our secrets.
    #[must_use]
    pub fn secrets(&self) -> String {
        format!(
            "[secret.net]\nfor = [\"moon.example.org\", \"sun.example.org\"]\npsk = \"{}\"\n{}",
            self.our_psk, self.our_secrets
        )
    }

    /// strongSwan's configuration.
    #[must_use]
    pub fn swanctl_conf(&self) -> String {
        let (left, right) = self.outer();
        let (ours, sun) = (self.ours, Site::SUN);
        format!(
            "connections {{
  net {{
    version = 2
    local_addrs = {right}
    remote_addrs = {peer}
    proposals = {ike}
    {connection}
    local {{
      {local}
      id = sun.example.org
    }}
    remote {{
      {remote}
      id = moon.example.org
    }}
    children {{
      net {{
        local_ts = {}, {}
        remote_ts = {}, {}
        esp_proposals = {esp}
        {child}
      }}
    }}
  }}
}}
secrets {{
  ike-net {{
    id-1 = moon.example.org
    id-2 = sun.example.org
    secret = \"{PSK}\"
  }}
  {secrets}
}}
",
            sun.net4,
            sun.net6,
            ours.net4,
            ours.net6,
            peer = self.seen_as.unwrap_or(left),
            ike = self.ike,
            esp = self.esp,
            connection = self.their_connection,
            child = self.their_child,
            local = self.their_local,
            secrets = self.their_secrets,
            remote = self.their_remote,
        )
    }
}

/// The key that strongSwan has.
pub const PSK: &str = "correct horse battery staple";

/// How long one thing may take.
pub const LIMIT: Duration = Duration::from_secs(20);
