//! A lab while it stands: its namespaces, its daemons, its files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::task::Poll;

use anyhow::{Context, Result};

use super::gateway::{Gateway, GatewayError, GatewayFiles};
use super::netns;
use super::place::Place;
use super::report::{Files, Kept, quoted};
use super::rtnl;
use super::steps::Steps;
use super::topology::{Network, Topology, WAN_INTERFACE};
use super::verdict::Check;

/// A lab while it stands. The order of the fields is the order in which things go: daemons before what they stand on.
pub(super) struct Setup {
    /// The daemons.
    pub(super) gateways: Vec<Gateway>,
    holders: Vec<Holder>,
    /// What they run in.
    pub(super) network: Network,
    /// What is left at the end.
    pub(super) files: Files,
    place: Place,
}

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub(super) struct DaemonFiles {
    /// The node that it runs in.
    pub(super) node: String,
    /// Its configuration.
    pub(super) config: String,
    /// Its secrets.
    pub(super) secrets: String,
}

impl Setup {
    /// Builds `topology`; no daemon runs yet. Capture, keys and logs of `gateways` go into `directory`.
    pub(super) fn build(
        topology: &Topology,
        gateways: &[&str],
        directory: &Path,
        place: Place,
        steps: Steps,
    ) -> Result<Self> {
        let step = steps.begin(format!("Building {} namespaces", topology.nodes.len()));
        let network = Network::build(topology)?;
        let outside = topology.links.iter().flat_map(|link| &link.ends).filter(|end| end.interface == WAN_INTERFACE);
        for end in outside {
            network.namespace(&end.node)?.run(|| rtnl::one_packet_per_frame(WAN_INTERFACE))??;
        }
        netns::provide_tun_device()?;
        let names: Vec<&str> = topology.nodes.iter().map(|node| node.name.as_str()).collect();
        step.done(&names.join(", "));
        let logs = gateways.iter().map(|node| directory.join(format!("{node}.log"))).collect();
        let files = Files::in_directory(directory, logs);
        prepare_wireshark(&files.wireshark)?;
        Ok(Self { gateways: Vec::new(), holders: Vec::new(), network, files, place })
    }

    /// The folder of a gateway's configuration, made if it is not there yet.
    pub(super) fn folder_of(&self, node: &str) -> Result<PathBuf> {
        let folder = self.place.directory().join(node);
        DirBuilder::new().mode(0o700).recursive(true).create(&folder).context("cannot make a gateway's folder")?;
        Ok(folder)
    }

    /// Starts daemons with their files, and says so. With `stay`, they outlive this program.
    pub(super) fn start(&mut self, daemons: &[DaemonFiles], stay: bool, steps: Steps) -> Result<()> {
        let step = steps.begin(format!("Starting {} daemons", daemons.len()));
        for DaemonFiles { node, config, secrets } in daemons {
            let folder = self.folder_of(node)?;
            let files = GatewayFiles {
                config: write_private(&folder, "ipsec.toml", config)?,
                secrets: write_private(&folder, "ipsec.secrets.toml", secrets)?,
                socket: folder.join("vici"),
                log: self.files.directory.join(format!("{node}.log")),
            };
            let gateway = Gateway::start(self.network.namespace(node)?, files, stay)?;
            self.place.remember_process(gateway.pid())?;
            self.gateways.push(gateway);
        }
        let pids: Vec<String> = self.gateways.iter().map(|gateway| gateway.pid().to_string()).collect();
        step.done(&format!("pids {}", pids.join(" and ")));
        Ok(())
    }

    /// The control sockets of all daemons, in their order.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        self.gateways.iter().map(|gateway| gateway.socket().to_owned()).collect()
    }

    /// Waits until a daemon dies: that explains whatever else goes wrong.
    pub(super) async fn death(gateways: &mut [Gateway]) -> GatewayError {
        let mut deaths: Vec<_> = gateways.iter_mut().map(|gateway| Box::pin(gateway.death())).collect();
        std::future::poll_fn(|context| {
            let mut dead = deaths.iter_mut().map(|death| death.as_mut().poll(context));
            dead.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Leaves it all running, with names or processes to enter it by.
    pub(super) fn keep(mut self) -> Result<Kept> {
        let mut enter = Vec::new();
        let outside = rustix::process::geteuid().is_root() && !is_user_namespace();
        for namespace in self.network.namespaces() {
            let node = namespace.name();
            let pid = match self.gateways.iter().find(|gateway| gateway.name() == node) {
                Some(gateway) => gateway.pid(),
                None => {
                    let holder = Holder::start(namespace)?;
                    let pid = holder.0.as_ref().map_or(0, Child::id);
                    self.place.remember_process(pid)?;
                    self.holders.push(holder);
                    pid
                }
            };
            let command = if outside {
                let name = self.place.name_of(node);
                namespace.publish(&name)?;
                self.place.remember_name(name.clone())?;
                format!("ip netns exec {name} bash   # or: nsenter --target {pid} --net")
            } else {
                format!("nsenter --target {pid} --user --net --preserve-credentials")
            };
            enter.push((node.to_owned(), command));
        }
        let program = quoted(&std::env::current_exe()?);
        let status = |gateway: &Gateway| {
            let command = format!("{program} --socket {} status", quoted(gateway.socket()));
            (gateway.name().to_owned(), command)
        };
        let control = self.gateways.iter().map(status).collect();
        self.gateways.into_iter().for_each(Gateway::keep);
        self.holders.into_iter().for_each(Holder::keep);
        self.place.keep()?;
        Ok(Kept { enter, control, remove: format!("{program} lab --clean") })
    }

    /// Ends the daemons and removes everything; whether they went as they should is a check of its own.
    pub(super) fn end(self, steps: Steps) -> Check {
        let step = steps.begin("Ending the daemons and removing the namespaces");
        let mut found = Vec::new();
        let mut passed = true;
        for gateway in self.gateways {
            let name = gateway.name().to_owned();
            let status = gateway.end();
            passed &= matches!(&status, Some(Ok(status)) if status.success());
            found.push(match status {
                Some(Ok(status)) => format!("{name}: {status}"),
                Some(Err(error)) => format!("{name}: {error}"),
                None => format!("{name}: let go"),
            });
        }
        step.done("");
        Check { name: "the daemons end when asked to".into(), passed, found: found.join(", ") }
    }
}

/// A process that does nothing but keep a namespace alive.
#[derive(Debug)]
struct Holder(Option<Child>);

impl Holder {
    fn start(namespace: &netns::Namespace) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["lab", "--hold"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        namespace.host(&mut command);
        netns::in_own_session(&mut command);
        Ok(Self(Some(command.spawn().context("cannot keep the namespace alive")?)))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(mut process) = self.0.take() {
            drop(process.kill().and_then(|()| process.wait()));
        }
    }
}

/// A configuration directory that makes Wireshark decrypt without further options.
fn prepare_wireshark(directory: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(directory).context("cannot make the directory for keys")?;
    let preferences = "esp.enable_encryption_decode: TRUE\nesp.enable_null_encryption_decode_heuristic: FALSE\n";
    fs::write(directory.join("preferences"), preferences).context("cannot write Wireshark's preferences")
}

/// Writes a file that nobody else can read.
pub(super) fn write_private(directory: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = directory.join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}

/// Whether user ids here are not those of the machine.
fn is_user_namespace() -> bool {
    let whole = |map: String| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    !fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}
