//! The gateways that are compared, and how each pair of them is set up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use harness::{Charon, Daemon, Gateway, Site, StrongSwan, Version, World, finish, ping, wait_until};
use tempfile::TempDir;

use crate::dataplane::Tunnels;

/// Gateways to compare. The first one that is measured is what the others are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    /// charon-rs, ESP in UDP, over its TUN device.
    Ours,
    /// charon-rs, ESP in UDP, the hosts' links read past the stack.
    OursLink,
    /// charon-rs, ESP directly in IP.
    OursNative,
    /// charon-rs with two workers, and an SA for each of them.
    OursTwo,
    /// Our dataplane alone with keys by hand, ESP in UDP, over its TUN device.
    Direct,
    /// The same, the hosts' links read past the stack.
    DirectLink,
    /// The same over its TUN device, ESP directly in IP.
    DirectNative,
    /// The system's strongSwan with ESP in user space.
    Strongswan5,
    /// strongSwan 6 with ESP in user space, in UDP.
    Strongswan6,
    /// strongSwan 6 with ESP in user space, directly in IP.
    Strongswan6Raw,
    /// The system's wireguard-go.
    WireguardGoOld,
    /// A current wireguard-go.
    WireguardGo,
    /// boringtun-cli.
    Boringtun,
    /// gotatun.
    Gotatun,
    /// FD.io VPP.
    Vpp,
    /// The kernel forwards, and nobody protects anything: what the machine can do.
    Plain,
}

impl Contender {
    /// Those that are measured when nobody names any, in the order of the table.
    pub(crate) const ALL: [Self; 13] = [
        Self::Ours,
        Self::OursLink,
        Self::OursNative,
        Self::OursTwo,
        Self::Strongswan5,
        Self::Strongswan6,
        Self::Strongswan6Raw,
        Self::WireguardGoOld,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Gotatun,
        Self::Vpp,
        Self::Plain,
    ];

    /// What the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "charon-rs, ESP in UDP, TUN",
            Self::OursLink => "charon-rs, ESP in UDP, host_link",
            Self::OursNative => "charon-rs, native ESP, TUN",
            Self::OursTwo => "charon-rs, ESP in UDP, TUN, 2 workers",
            Self::Direct => "dataplane alone, ESP in UDP, TUN",
            Self::DirectLink => "dataplane alone, ESP in UDP, host_link",
            Self::DirectNative => "dataplane alone, native ESP, TUN",
            Self::Strongswan5 => "strongSwan (installed), kernel-libipsec, UDP",
            Self::Strongswan6 => "strongSwan 6, kernel-libipsec, UDP",
            Self::Strongswan6Raw => "strongSwan 6, kernel-libipsec, raw_esp",
            Self::WireguardGoOld => "wireguard-go (installed)",
            Self::WireguardGo => "wireguard-go (current)",
            Self::Boringtun => "boringtun-cli",
            Self::Gotatun => "gotatun",
            Self::Vpp => "VPP",
            Self::Plain => "no tunnel: the kernel forwards",
        }
    }

    /// Why it cannot be measured here; `None` if it can.
    pub(crate) fn missing(self, peers: &Path) -> Option<String> {
        let wanted = match self {
            Self::Ours
            | Self::OursLink
            | Self::OursNative
            | Self::OursTwo
            | Self::Direct
            | Self::DirectLink
            | Self::DirectNative
            | Self::Plain => return None,
            Self::Strongswan5 => PathBuf::from("/usr/lib/ipsec/charon"),
            Self::Strongswan6 | Self::Strongswan6Raw => PathBuf::from("target/strongswan6/complete"),
            Self::WireguardGoOld => PathBuf::from("/usr/bin/wireguard-go"),
            Self::WireguardGo | Self::Boringtun | Self::Gotatun => peers.join("bin").join(self.program()),
            Self::Vpp => return Some("there is no package of it".to_owned()),
        };
        if !wanted.exists() {
            return Some(format!("{} is missing", wanted.display()));
        }
        let needs_wg = matches!(self, Self::WireguardGoOld | Self::WireguardGo | Self::Boringtun | Self::Gotatun);
        (needs_wg && !Path::new("/usr/bin/wg").exists()).then(|| "wireguard-tools is missing".to_owned())
    }

    fn program(self) -> &'static str {
        match self {
            Self::Boringtun => "boringtun-cli",
            Self::Gotatun => "gotatun",
            Self::WireguardGoOld | Self::WireguardGo => "wireguard-go",
            Self::Ours
            | Self::OursLink
            | Self::OursNative
            | Self::OursTwo
            | Self::Direct
            | Self::DirectLink
            | Self::DirectNative
            | Self::Strongswan5
            | Self::Strongswan6
            | Self::Strongswan6Raw
            | Self::Vpp
            | Self::Plain => "",
        }
    }
}

/// Two running gateways with a tunnel between them.
pub(crate) struct Pair {
    /// Their process ids, for their CPU time.
    pub(crate) processes: Vec<u32>,
    /// Kept for as long as they are to run.
    _daemons: Vec<Box<dyn std::any::Any>>,
    _folder: TempDir,
}

impl Pair {
    /// Starts both, connects them, and waits until a packet passes.
    pub(crate) fn start(contender: Contender, world: &World, peers: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (processes, daemons) = match contender {
            Contender::Ours => ours(world, folder.path(), "", "forceencaps = true")?,
            Contender::OursLink => {
                ours(world, folder.path(), "", "forceencaps = true\n[interface.ipsec0]\nhost_link = \"lan0\"")?
            }
            Contender::OursNative => ours(world, folder.path(), "", "")?,
            Contender::OursTwo => {
                ours(world, folder.path(), "[daemon]\nworkers = 2\n", "forceencaps = true\nper_resource_sas = true")?
            }
            Contender::Direct => direct(world, &[])?,
            Contender::DirectLink => direct(world, &["--link", "lan0"])?,
            Contender::DirectNative => direct(world, &["--native"])?,
            Contender::Strongswan5 => strongswan(world, folder.path(), Charon::default())?,
            Contender::Strongswan6 => {
                strongswan(world, folder.path(), Charon { version: Version::Six, ..Charon::default() })?
            }
            Contender::Strongswan6Raw => {
                let options = "plugins {\n kernel-libipsec {\n raw_esp = yes\n }\n }";
                strongswan(world, folder.path(), Charon { version: Version::Six, options, ..Charon::default() })?
            }
            Contender::WireguardGoOld => wireguard(world, folder.path(), "wireguard-go -f wg0")?,
            Contender::WireguardGo | Contender::Gotatun => {
                let program = peers.join("bin").join(contender.program()).canonicalize()?;
                wireguard(world, folder.path(), &format!("{} -f wg0", program.display()))?
            }
            Contender::Boringtun => {
                let program = peers.join("bin").join(contender.program()).canonicalize()?;
                wireguard(world, folder.path(), &format!("{} -f --disable-drop-privileges wg0", program.display()))?
            }
            Contender::Plain => {
                for (here, there) in SIDES {
                    world.sh(here.gateway, &format!("ip route add {} via {}", there.net4, there.outer4))?;
                }
                (Vec::new(), Vec::new())
            }
            Contender::Vpp => anyhow::bail!("there is no package of it"),
        };
        wait_until(Duration::from_secs(15), "a packet through the tunnel", || {
            Ok(ping(world, Site::MOON.host, Site::SUN.host4, 1)?.lossless())
        })?;
        Ok(Self { processes, _daemons: daemons, _folder: folder })
    }
}

type Started = (Vec<u32>, Vec<Box<dyn std::any::Any>>);

/// Our dataplane with one tunnel for everything.
fn direct(world: &World, options: &[&str]) -> Result<Started> {
    let gateways = Tunnels::start(world, 0, options)?;
    Ok((gateways.processes(), vec![Box::new(gateways)]))
}

/// Ours; `front` stands before the connection, `lines` at its end.
fn ours(world: &World, folder: &Path, front: &str, lines: &str) -> Result<Started> {
    let secrets = format!("[secret.net]\nfor = [\"moon.example.org\", \"sun.example.org\"]\npsk = \"{PSK}\"\n");
    let (mut ids, mut daemons): Started = (Vec::new(), Vec::new());
    let mut moon = None;
    for (here, there) in SIDES.into_iter().rev() {
        let config = format!(
            "{front}[conn.net]\nleft = \"{}\"\nleftid = \"{}.example.org\"\nleftsubnet = \"{}\"\nright = \"{}\"\n\
             rightid = \"{}.example.org\"\nrightsubnet = \"{}\"\nike = \"aes256gcm16-prfsha384-ecp384\"\n\
             esp = \"aes256gcm16\"\ninterface = \"ipsec0\"\nauto = \"add\"\n{lines}\n",
            here.outer4, here.gateway, here.net4, there.outer4, there.gateway, there.net4,
        );
        let gateway = Gateway::start_with_log(world, here.gateway, folder, &config, &secrets, "info")?;
        ids.push(gateway.id());
        daemons.extend(moon.replace(gateway).map(|gateway| Box::new(gateway) as Box<dyn std::any::Any>));
    }
    let moon = moon.context("two gateways")?;
    moon.expect_ctl(&["up", "net"])?;
    daemons.push(Box::new(moon));
    Ok((ids, daemons))
}

fn strongswan(world: &World, folder: &Path, charon: Charon<'_>) -> Result<Started> {
    let conf = |here: Site, there: Site| {
        format!(
            "connections {{\n net {{\n  version = 2\n  local_addrs = {}\n  remote_addrs = {}\n  proposals = aes256gcm16-prfsha384-ecp384\n\
             \x20 local {{\n   auth = psk\n   id = {}.example.org\n  }}\n  remote {{\n   auth = psk\n   id = {}.example.org\n  }}\n\
             \x20 children {{\n   net {{\n    local_ts = {}\n    remote_ts = {}\n    esp_proposals = aes256gcm16\n   }}\n  }}\n }}\n}}\n\
             secrets {{\n ike-net {{\n  id-1 = moon.example.org\n  id-2 = sun.example.org\n  secret = \"{PSK}\"\n }}\n}}\n",
            here.outer4, there.outer4, here.gateway, there.gateway, here.net4, there.net4,
        )
    };
    let [(moon, sun), _] = SIDES;
    let right = StrongSwan::start(world, sun.gateway, folder, charon, &conf(sun, moon))?;
    let left = StrongSwan::start(world, moon.gateway, folder, charon, &conf(moon, sun))?;
    left.swanctl(&["--initiate", "--child", "net"])?;
    Ok((vec![left.id(), right.id()], vec![Box::new(left), Box::new(right)]))
}

/// A WireGuard in user space with the usual control socket; all take wireguard-go's options.
fn wireguard(world: &World, folder: &Path, program: &str) -> Result<Started> {
    let key = || -> Result<(String, String)> {
        let private = shell("wg genkey")?;
        let public = shell(&format!("echo {} | wg pubkey", private.trim()))?;
        Ok((private.trim().to_owned(), public.trim().to_owned()))
    };
    let (moon, sun) = (key()?, key()?);
    let (mut ids, mut daemons): Started = (Vec::new(), Vec::new());
    for ((here, there), (private, public)) in SIDES.into_iter().zip([(&moon.0, &sun.1), (&sun.0, &moon.1)]) {
        let mut command = world.command(here.gateway, "unshare")?;
        command.args(["--mount", "sh", "-c", &format!("mount -t tmpfs tmpfs /run && exec {program}")]);
        let daemon = Daemon::start(command, folder.join(here.gateway))?;
        let conf = folder.join(format!("{}.conf", here.gateway));
        fs::write(
            &conf,
            format!(
                "[Interface]\nPrivateKey = {private}\nListenPort = 51820\n[Peer]\nPublicKey = {public}\nAllowedIPs = {}\nEndpoint = {}:51820\n",
                there.net4, there.outer4
            ),
        )?;
        let enter = format!("nsenter -t {} -m -n", daemon.id());
        let set = || {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{enter} wg setconf wg0 {}", conf.display())]);
            Ok(finish(command)?.status.success())
        };
        wait_until(Duration::from_secs(10), program, set).with_context(|| daemon.log())?;
        shell(&format!("{enter} ip link set wg0 mtu 1420 up && {enter} ip route add {} dev wg0", there.net4))?;
        ids.push(daemon.id());
        daemons.push(Box::new(daemon));
    }
    Ok((ids, daemons))
}

fn shell(line: &str) -> Result<String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let output = finish(command)?;
    ensure!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Each gateway and its peer.
pub(crate) const SIDES: [(Site, Site); 2] = [(Site::MOON, Site::SUN), (Site::SUN, Site::MOON)];

const PSK: &str = "correct horse battery staple";
