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
    let mut lab = Lab::build(plan, place, steps).await?;
    lab.initiate(steps).await?;
    let pings = lab.ping(steps).await?;
    let transfer = lab.transfer(plan.duration, steps).await?;
    let step = steps.begin("Reading counters and the wire");
    let sas = lab.settled_sas().await?;
    let interfaces = lab.interfaces()?;
    let Captured { tally: wire, stored } = lab.capture.take().context("the capture runs")?.finish()?;
    step.done(&format!("{} ESP packets between the gateways", wire.esp_packets()));
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
    capture: Option<Capture>,
    initiator: Gateway,
    responder: Gateway,
    holders: Vec<Holder>,
    network: Network,
    files: Files,
    place: Place,
    connection: String,
}

impl Lab {
    async fn build(plan: &Plan, mut place: Place, steps: Steps) -> Result<Self> {
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
        let capture = {
            let protected = PROTECTED.iter().map(|net| net.parse()).collect::<Result<Vec<IpNet>, _>>()?;
            Capture::start(network.namespace(INITIATOR)?, WAN_INTERFACE, &files.capture, protected)?
        };
        let start = |node: &str, template: Template, keylog: Option<&Path>, place: &mut Place| -> Result<Gateway> {
            let files = GatewayFiles {
                config: write_private(
                    place.directory(),
                    &format!("{node}.toml"),
                    &template.config(&plan.changes, keylog)?,
                )?,
                secrets: write_private(
                    place.directory(),
                    &format!("{node}.secrets.toml"),
                    &template.secrets(&plan.changes)?,
                )?,
                socket: place.directory().join(format!("{node}.sock")),
                log: plan.directory.join(format!("{node}.log")),
            };
            let gateway = Gateway::start(network.namespace(node)?, files, plan.keep)?;
            place.remember_process(gateway.pid())?;
            Ok(gateway)
        };
        let mut initiator = start(INITIATOR, settings::INITIATOR, Some(&files.wireshark), &mut place)?;
        let mut responder = start(RESPONDER, settings::RESPONDER, None, &mut place)?;
        responder.ready().await?;
        initiator.ready().await?;
        step.done(&format!("pids {} and {}", initiator.pid(), responder.pid()));
        let connection = settings::INITIATOR.connection()?.context("the initiator's configuration has a connection")?;
        Ok(Self {
            capture: Some(capture),
            initiator,
            responder,
            holders: Vec::new(),
            network,
            files,
            place,
            connection,
        })
    }

    async fn initiate(&mut self, steps: Steps) -> Result<()> {
        let step = steps.begin("Negotiating IKEv2");
        let arguments = Message::new().with("child", &self.connection).with("timeout", INITIATE_PATIENCE.as_millis());
        let socket = self.initiator.socket().to_owned();
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

    async fn ping(&self, steps: Steps) -> Result<Vec<PingReport>> {
        let mut reports = Vec::new();
        for destination in SERVER_ADDRESSES {
            let step = steps.begin(format!("Pinging {destination} from the client"));
            let client = self.network.namespace(CLIENT)?.clone();
            let report = off_thread(move || client.run(|| ping(destination, PINGS, PING_PATIENCE))).await???;
            let detail = format!("{} of {} answered", report.received, report.sent);
            if report.received == report.sent {
                step.done(&detail)
            } else {
                step.failed(&detail)
            }
            reports.push(report);
        }
        Ok(reports)
    }

    async fn transfer(&self, duration: Duration, steps: Steps) -> Result<TransferReport> {
        let [server_address, _] = SERVER_ADDRESSES;
        let step = steps.begin("Sending over TCP from client to server");
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
        let seen = || self.capture.as_ref().map_or(0, Capture::esp_packets);
        for _ in 0..SETTLE_TRIES {
            let before = seen();
            tokio::time::sleep(QUIET).await;
            let sas = self.sas().await?;
            tokio::time::sleep(SHORT).await;
            if seen() == before {
                return Ok(sas);
            }
        }
        self.sas().await
    }

    async fn sas(&self) -> Result<[Vec<IkeSa>; 2]> {
        let list = |gateway: &Gateway| {
            let socket = gateway.socket().to_owned();
            off_thread(move || gateway::collect(&socket, "list-tunnel", "list-tunnels", Message::new()))
        };
        let read = |events: Vec<Message>| events.iter().flat_map(IkeSa::read_all).collect::<Vec<_>>();
        let (_, initiator) = list(&self.initiator).await??;
        let (_, responder) = list(&self.responder).await??;
        Ok([read(initiator), read(responder)])
    }

    fn interfaces(&self) -> Result<Vec<NodeInterfaces>> {
        let of = |namespace: &netns::Namespace| {
            Ok(NodeInterfaces { node: namespace.name().to_owned(), interfaces: namespace.run(rtnl::interfaces)?? })
        };
        self.network.namespaces().iter().map(of).collect()
    }

    /// Leaves it all running, with names or processes to enter it by.
    fn keep(mut self) -> Result<Kept> {
        let mut enter = Vec::new();
        let outside = rustix::process::geteuid().is_root() && !is_user_namespace();
        for namespace in self.network.namespaces() {
            let node = namespace.name();
            let pid = match [&self.initiator, &self.responder].into_iter().find(|gateway| gateway.name() == node) {
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
        let control = [&self.initiator, &self.responder]
            .map(|gateway| {
                let command = format!("{program} --socket {} status", quoted(gateway.socket()));
                (gateway.name().to_owned(), command)
            })
            .into();
        self.initiator.keep();
        self.responder.keep();
        self.holders.into_iter().for_each(Holder::keep);
        self.place.keep()?;
        Ok(Kept { enter, control, remove: format!("{program} lab --clean") })
    }

    /// Ends the daemons and removes everything; whether they went as they should is a check of its own.
    fn end(self, steps: Steps) -> Check {
        let step = steps.begin("Ending the daemons and removing the namespaces");
        let mut found = Vec::new();
        let mut passed = true;
        for gateway in [self.initiator, self.responder] {
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
