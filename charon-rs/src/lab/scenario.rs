//! One run from the first namespace to the last check.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::capture::{Capture, Captured};
use super::experiment::{Experiment, Observed};
use super::gateway::{Gateway, GatewayFiles};
use super::netns;
use super::place::Place;
use super::report::{Files, GatewayReport, Kept, Report, quoted};
use super::rtnl;
use super::settings::{self, Changes, Template};
use super::steps::Steps;
use super::topology::{INITIATOR, Network, RESPONDER, Topology, WAN_INTERFACE};
use super::verdict::{Check, Evidence, judge};

/// What a run is to do.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What to change in the configuration.
    pub(super) changes: Changes,
    /// How long the transfer takes.
    pub(super) duration: Duration,
    /// Whether everything stays as it is at the end.
    pub(super) keep: bool,
    /// Where capture, keys and logs go.
    pub(super) directory: PathBuf,
}

/// Runs the whole of it. When this is dropped in the middle, everything is ended and removed.
pub(super) async fn run(plan: &Plan, place: Place, steps: Steps) -> Result<Report> {
    let (mut lab, capture) = Lab::build(plan, place, steps)?;
    let Gateways { initiator, responder } = &mut lab.gateways;
    let sockets = [initiator.socket().to_owned(), responder.socket().to_owned()];
    let experiment =
        Experiment { network: &lab.network, sockets, connection: &lab.connection, capture: &capture, steps };
    let observed = tokio::select! {
        // A daemon that died explains whatever else went wrong.
        biased;
        why = initiator.death() => return Err(why.into()),
        why = responder.death() => return Err(why.into()),
        observed = experiment.run(plan.duration) => observed?,
    };
    let Captured { tally: wire, stored } = capture.finish()?;
    let Observed { sas, interfaces, pings, transfer } = observed;
    let [initiator, responder] = &sas;
    let mut checks = judge(&Evidence { initiator, responder, pings: &pings, transfer: &transfer, wire: &wire });
    let files = Files { captured_frames: stored, ..lab.files.clone() };
    let kept = if plan.keep {
        Some(lab.keep()?)
    } else {
        checks.push(lab.end(steps));
        None
    };
    let [initiator, responder] = sas;
    let gateways = [(INITIATOR, initiator), (RESPONDER, responder)];
    Ok(Report {
        passed: checks.iter().all(|check| check.passed),
        checks,
        gateways: gateways.map(|(node, sas)| GatewayReport { node: node.to_owned(), sas }).into(),
        interfaces,
        pings,
        transfer,
        wire,
        files,
        kept,
    })
}

/// The lab while it stands. The order of the fields is the order in which things go: daemons before what they stand on.
struct Lab {
    gateways: Gateways,
    holders: Vec<Holder>,
    network: Network,
    files: Files,
    place: Place,
    connection: String,
}

struct Gateways {
    initiator: Gateway,
    responder: Gateway,
}

impl Gateways {
    fn all(&self) -> [&Gateway; 2] {
        [&self.initiator, &self.responder]
    }
}

impl Lab {
    /// Builds the network, and starts the capture and then the daemons in it.
    fn build(plan: &Plan, mut place: Place, steps: Steps) -> Result<(Self, Capture)> {
        let step = steps.begin("Building four namespaces");
        let network = Network::build(&Topology::two_gateways()?)?;
        for node in [INITIATOR, RESPONDER] {
            network.namespace(node)?.run(|| rtnl::one_packet_per_frame(WAN_INTERFACE))??;
        }
        netns::provide_tun_device()?;
        step.done("client, initiator, responder, server");

        let step = steps.begin("Starting two daemons");
        let logs = [INITIATOR, RESPONDER].map(|node| plan.directory.join(format!("{node}.log")));
        let files = Files::in_directory(&plan.directory, logs.into());
        prepare_wireshark(&files.wireshark)?;
        let protected = PROTECTED.iter().map(|net| net.parse()).collect::<Result<Vec<IpNet>, _>>()?;
        let capture = Capture::start(network.namespace(INITIATOR)?, WAN_INTERFACE, &files.capture, protected)?;
        let keylog = Some(files.wireshark.as_path());
        let initiator = start(network.namespace(INITIATOR)?, settings::INITIATOR, keylog, plan, &mut place)?;
        let responder = start(network.namespace(RESPONDER)?, settings::RESPONDER, None, plan, &mut place)?;
        step.done(&format!("pids {} and {}", initiator.pid(), responder.pid()));
        let connection = settings::INITIATOR.connection()?.context("the initiator's configuration has a connection")?;
        let gateways = Gateways { initiator, responder };
        Ok((Self { gateways, holders: Vec::new(), network, files, place, connection }, capture))
    }

    /// Leaves it all running, with names or processes to enter it by.
    fn keep(mut self) -> Result<Kept> {
        let mut enter = Vec::new();
        let outside = rustix::process::geteuid().is_root() && !is_user_namespace();
        for namespace in self.network.namespaces() {
            let node = namespace.name();
            let pid = match self.gateways.all().into_iter().find(|gateway| gateway.name() == node) {
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
        let control = self
            .gateways
            .all()
            .map(|gateway| {
                let command = format!("{program} --socket {} status", quoted(gateway.socket()));
                (gateway.name().to_owned(), command)
            })
            .into();
        let Gateways { initiator, responder } = self.gateways;
        initiator.keep();
        responder.keep();
        self.holders.into_iter().for_each(Holder::keep);
        self.place.keep()?;
        Ok(Kept { enter, control, remove: format!("{program} lab --clean") })
    }

    /// Ends the daemons and removes everything; whether they went as they should is a check of its own.
    fn end(self, steps: Steps) -> Check {
        let step = steps.begin("Ending the daemons and removing the namespaces");
        let mut found = Vec::new();
        let mut passed = true;
        let Gateways { initiator, responder } = self.gateways;
        for gateway in [initiator, responder] {
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
        Check { name: "both daemons end when asked to", passed, found: found.join(", ") }
    }
}

/// Starts the daemon of a gateway with its files.
fn start(
    namespace: &netns::Namespace,
    template: Template,
    keylog: Option<&Path>,
    plan: &Plan,
    place: &mut Place,
) -> Result<Gateway> {
    let node = namespace.name();
    let (config, secrets) = (template.config(&plan.changes, keylog)?, template.secrets(&plan.changes)?);
    let files = GatewayFiles {
        config: write_private(place.directory(), &format!("{node}.toml"), &config)?,
        secrets: write_private(place.directory(), &format!("{node}.secrets.toml"), &secrets)?,
        socket: place.directory().join(format!("{node}.sock")),
        log: plan.directory.join(format!("{node}.log")),
    };
    let gateway = Gateway::start(namespace, files, plan.keep)?;
    place.remember_process(gateway.pid())?;
    Ok(gateway)
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
fn write_private(directory: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
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

/// The networks behind the gateways, whose addresses nobody may see between them.
const PROTECTED: [&str; 4] = ["192.168.5.0/24", "192.168.3.0/24", "fec5::/16", "fec3::/16"];
