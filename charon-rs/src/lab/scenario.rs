//! One run from the first namespace to the last check.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::capture::{Capture, Captured};
use super::gateway::{self, Gateway, GatewayFiles};
use super::netns;
use super::ping::{PingReport, ping};
use super::place::Place;
use super::report::{Files, GatewayReport, Kept, NodeInterfaces, Report, quoted};
use super::rtnl;
use super::sas::IkeSa;
use super::settings::{self, Changes, Template};
use super::steps::{Step, Steps};
use super::topology::{CLIENT, INITIATOR, Network, RESPONDER, SERVER, Topology, WAN_INTERFACE};
use super::transfer::{Transfer, TransferReport};
use super::verdict::{Check, Evidence, judge};
use crate::vici::Message;

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

/// What is done with a lab that stands.
struct Experiment<'a> {
    network: &'a Network,
    /// The control sockets of initiator and responder.
    sockets: [PathBuf; 2],
    connection: &'a str,
    capture: &'a Capture,
    steps: Steps,
}

/// What an experiment showed, but for the wire.
struct Observed {
    sas: [Vec<IkeSa>; 2],
    interfaces: Vec<NodeInterfaces>,
    pings: Vec<PingReport>,
    transfer: TransferReport,
}

impl Experiment<'_> {
    async fn run(&self, duration: Duration) -> Result<Observed> {
        for socket in &self.sockets {
            gateway::ready(socket).await?;
        }
        self.initiate().await?;
        let pings = self.ping().await?;
        let transfer = self.transfer(duration).await?;
        let step = self.steps.begin("Reading counters and the wire");
        // The capture may have skipped ESP: a last packet in each direction shows how many there were.
        self.capture.look_at_everything()?;
        let client = self.network.namespace(CLIENT)?.clone();
        let [destination, _] = SERVER_ADDRESSES;
        off_thread(move || client.run(|| ping(destination, 1, PING_PATIENCE))).await???;
        let sas = self.settled_sas().await?;
        let interfaces = self.interfaces()?;
        step.done("");
        Ok(Observed { sas, interfaces, pings, transfer })
    }

    async fn initiate(&self) -> Result<()> {
        let step = self.steps.begin("Negotiating IKEv2");
        let arguments = Message::new().with("child", self.connection).with("timeout", INITIATE_PATIENCE.as_millis());
        let [socket, _] = self.sockets.clone();
        let answer = off_thread(move || gateway::request(&socket, "initiate", arguments));
        let answer = tokio::time::timeout(INITIATE_PATIENCE.saturating_mul(2), answer)
            .await
            .context("the initiator's daemon does not say what became of `initiate`")???;
        if !answer.is_yes("success") {
            let why = answer.text("errmsg").unwrap_or("the daemon does not say why");
            let hint = answer.section("failure").and_then(|failure| failure.text("hint")).unwrap_or_default();
            bail!("the tunnel does not come up: {why}{}{hint}", if hint.is_empty() { "" } else { ": " });
        }
        let [initiator, _] = self.sas().await?;
        let sa = initiator.first().context("the daemon says that the tunnel is up, and lists no SA")?;
        step.done(&format!("{} and {}", sa.local_host, sa.remote_host));
        Ok(())
    }

    async fn ping(&self) -> Result<Vec<PingReport>> {
        let mut reports = Vec::new();
        for destination in SERVER_ADDRESSES {
            let step = self.steps.begin(format!("Pinging {destination} from the client"));
            let client = self.network.namespace(CLIENT)?.clone();
            let report = off_thread(move || client.run(|| ping(destination, PINGS, PING_PATIENCE))).await???;
            let detail = format!("{} of {} answered", report.received, report.sent);
            if report.received == report.sent {
                step.done(&detail);
            } else {
                step.failed(&detail);
            }
            reports.push(report);
        }
        Ok(reports)
    }

    async fn transfer(&self, duration: Duration) -> Result<TransferReport> {
        let [server_address, _] = SERVER_ADDRESSES;
        let step = self.steps.begin("Sending over TCP from client to server");
        let (client, server) = (self.network.namespace(CLIENT)?, self.network.namespace(SERVER)?);
        let transfer = Transfer::start(client, server, server_address, duration)?;
        let _stop = transfer.stop_on_drop();
        let started = Instant::now();
        while !transfer.is_finished() {
            tokio::time::sleep(SHORT).await;
            note_rate(&step, transfer.octets(), started.elapsed());
        }
        Ok(match transfer.finish() {
            Ok(report) => {
                step.done(&format!("{:.0} Mbit/s", report.mbit_per_second));
                report
            }
            Err(why) => {
                step.failed(&why.to_string());
                TransferReport::failed(&why)
            }
        })
    }

    /// The SAs of both daemons at a moment when nothing is under way, so that their counters can be compared.
    async fn settled_sas(&self) -> Result<[Vec<IkeSa>; 2]> {
        for _ in 0..SETTLE_TRIES {
            let before = self.capture.esp_packets();
            tokio::time::sleep(QUIET).await;
            let sas = self.sas().await?;
            tokio::time::sleep(SHORT).await;
            if self.capture.esp_packets() == before {
                return Ok(sas);
            }
        }
        self.sas().await
    }

    async fn sas(&self) -> Result<[Vec<IkeSa>; 2]> {
        let list = async |socket: &Path| -> Result<Vec<IkeSa>> {
            let socket = socket.to_owned();
            let collect = move || gateway::collect(&socket, "list-tunnel", "list-tunnels", Message::new());
            let (_, events) = off_thread(collect).await??;
            Ok(events.iter().flat_map(IkeSa::read_all).collect())
        };
        let [initiator, responder] = &self.sockets;
        Ok([list(initiator).await?, list(responder).await?])
    }

    fn interfaces(&self) -> Result<Vec<NodeInterfaces>> {
        let of = |namespace: &netns::Namespace| {
            Ok(NodeInterfaces { node: namespace.name().to_owned(), interfaces: namespace.run(rtnl::interfaces)?? })
        };
        self.network.namespaces().iter().map(of).collect()
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

/// Runs what blocks on a thread of its own, so that a signal can interrupt the wait for it.
fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, tokio::task::JoinError>> {
    tokio::task::spawn_blocking(work)
}

fn note_rate(step: &Step, octets: u64, elapsed: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "a few digits for people")]
    let megabits = octets as f64 * 8.0 / 1e6;
    step.note(format!("{:.0} MB, {:.0} Mbit/s", megabits / 8.0, megabits / elapsed.as_secs_f64().max(0.001)));
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

const SERVER_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 3, 2)), IpAddr::V6(Ipv6Addr::new(0xfec3, 0, 0, 0, 0, 0, 0, 2))];

const PINGS: u32 = 5;
const PING_PATIENCE: Duration = Duration::from_secs(1);

/// Nothing is lost here, so an exchange that takes longer than this will not succeed.
const INITIATE_PATIENCE: Duration = Duration::from_secs(15);

/// How often progress is shown.
const SHORT: Duration = Duration::from_millis(100);

/// The wire is quiet when nothing was sent for this long.
const QUIET: Duration = Duration::from_millis(300);

/// A tunnel that is never quiet is reported as it is.
const SETTLE_TRIES: u32 = 20;
