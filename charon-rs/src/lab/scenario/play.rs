//! One run of an example, from the first namespace to the last check.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use toml_edit::{DocumentMut, Item, Table, value};

use super::catalogue::Example;
use super::certificates::Authority;
use super::description::{Carried, Description, Traffic, TrafficKind, Up, Wanted};
use super::report::{ScenarioReport, TraceReport, TrafficReport};
use super::verdict::{Evidence, judge};
use crate::lab::capture::{Capture, Captured};
use crate::lab::gateway;
use crate::lab::netns::Namespace;
use crate::lab::ping::ping;
use crate::lab::place::Place;
use crate::lab::report::{Files, GatewayReport, NodeInterfaces};
use crate::lab::rtnl;
use crate::lab::sas::IkeSa;
use crate::lab::setup::{DaemonFiles, Setup};
use crate::lab::steps::Steps;
use crate::lab::tally::{MARKER, READABLE};
use crate::lab::topology::Network;
use crate::lab::transfer::{Extent, Stream, Transfer};
use crate::vici::Message;

/// What a run is to do.
#[derive(Clone, Debug)]
pub(in crate::lab) struct Plan {
    /// Which example.
    pub(in crate::lab) example: Example,
    /// Whether everything stays as it is at the end.
    pub(in crate::lab) keep: bool,
    /// Where capture, keys and logs go.
    pub(in crate::lab) directory: PathBuf,
}

/// Runs the whole of it. When this is dropped in the middle, everything is ended and removed.
pub(in crate::lab) async fn run(plan: &Plan, place: Place, steps: Steps) -> Result<ScenarioReport> {
    let description = plan.example.description()?;
    steps.tell(&format!("{}\n\n{}\n{}", description.title, description.story.trim(), description.picture));
    let gateways: Vec<&str> = description.gateways.iter().map(String::as_str).collect();
    let mut setup = Setup::build(&description.topology()?, &gateways, &plan.directory, place, steps)?;
    for (node, rules) in &description.nftables {
        load_rules(setup.network.namespace(node)?, rules)?;
    }
    let wire = &description.wire;
    let inside = setup.network.namespace(&wire.node)?;
    let capture = Capture::start(inside, &wire.interface, &setup.files.capture, wire.secret.clone())?;
    equip(&setup, &description)?;
    setup.start(&daemons(plan.example, &description, &setup.files)?, plan.keep, steps)?;
    let sockets = setup.sockets();
    let stage = Stage { network: &setup.network, sockets: &sockets, description: &description, steps };
    let observed = tokio::select! {
        // A daemon that died explains whatever else went wrong.
        biased;
        why = Setup::death(&mut setup.gateways) => return Err(why.into()),
        observed = stage.play() => observed?,
    };
    let Captured { tally, stored } = capture.finish()?;
    let Observed { traffic, traces, gateways, interfaces } = observed;
    let mut checks = judge(&Evidence { description: &description, traffic: &traffic, wire: &tally });
    let files = Files { captured_frames: stored, ..setup.files.clone() };
    let kept = if plan.keep {
        Some(setup.keep()?)
    } else {
        checks.push(setup.end(steps));
        None
    };
    Ok(ScenarioReport {
        scenario: plan.example.name.to_owned(),
        title: description.title,
        passed: checks.iter().all(|check| check.passed),
        checks,
        traffic,
        traces,
        gateways,
        interfaces,
        wire: tally,
        files,
        kept,
    })
}

/// The network and the daemons, ready to be used.
struct Stage<'a> {
    network: &'a Network,
    /// The daemons' control sockets, in the order of the description's gateways.
    sockets: &'a [PathBuf],
    description: &'a Description,
    steps: Steps,
}

/// What a run showed, but for the wire.
struct Observed {
    traffic: Vec<TrafficReport>,
    traces: Vec<TraceReport>,
    gateways: Vec<GatewayReport>,
    interfaces: Vec<NodeInterfaces>,
}

impl Stage<'_> {
    async fn play(&self) -> Result<Observed> {
        for socket in self.sockets {
            gateway::ready(socket).await?;
            // Carried out after everything that the configuration asks of the dataplane, which is in place then.
            ask(socket, "stats", Message::new()).await?;
        }
        for up in &self.description.up {
            self.bring_up(up).await?;
        }
        let (mut traffic, mut traces) = (Vec::new(), Vec::new());
        for item in &self.description.traffic {
            // One packet and its answer are followed through all gateways.
            let follow = traces.is_empty() && item.result == Wanted::Arrives;
            if follow {
                self.follow(item).await?;
            }
            traffic.push(self.send(item).await?);
            if follow {
                traces = self.traces().await?;
            }
        }
        Ok(Observed { traffic, traces, gateways: self.sas().await?, interfaces: self.interfaces()? })
    }

    /// Has every daemon follow the next packet of `traffic` in each direction.
    async fn follow(&self, traffic: &Traffic) -> Result<()> {
        let address = match traffic.kind {
            TrafficKind::Ping { destination, .. } => destination,
            TrafficKind::Tcp { server, .. } => server.ip(),
        };
        for socket in self.sockets {
            let arguments = Message::new().with("packets", 2).with("addresses", address);
            let answer = ask(socket, "trace-packets", arguments).await?;
            ensure!(
                answer.is_yes("success"),
                "packets cannot be traced: {}",
                answer.text("errmsg").unwrap_or_default()
            );
        }
        Ok(())
    }

    /// What became of the packets that were followed.
    async fn traces(&self) -> Result<Vec<TraceReport>> {
        let mut traces = Vec::new();
        for (node, socket) in self.description.gateways.iter().zip(self.sockets) {
            let socket = socket.clone();
            let collect = move || gateway::collect(&socket, "trace", "list-traces", Message::new());
            let (_, events) = tokio::task::spawn_blocking(collect).await??;
            traces.extend(events.iter().map(|event| TraceReport::read(node, event)));
        }
        Ok(traces)
    }

    async fn bring_up(&self, up: &Up) -> Result<()> {
        let Up { gateway, child } = up;
        let step = self.steps.begin(format!("{gateway} brings `{child}` up"));
        let arguments = Message::new().with("child", child).with("timeout", PATIENCE.as_millis());
        let answer = ask(self.socket(gateway)?, "initiate", arguments).await?;
        if !answer.is_yes("success") {
            let why = answer.text("errmsg").unwrap_or("the daemon does not say why");
            let hint = answer.section("failure").and_then(|failure| failure.text("hint")).unwrap_or_default();
            bail!("`{child}` does not come up: {why}{}{hint}", if hint.is_empty() { "" } else { ": " });
        }
        step.done("");
        Ok(())
    }

    async fn send(&self, traffic: &Traffic) -> Result<TrafficReport> {
        let step = self.steps.begin(traffic.to_string());
        let sender = self.network.namespace(&traffic.from)?.clone();
        let text = if traffic.carried == Carried::Secret { MARKER } else { READABLE };
        let (arrived, found) = match &traffic.kind {
            TrafficKind::Ping { destination, size } => {
                let payload: Vec<u8> = text.iter().copied().cycle().take(*size).collect();
                let destination = *destination;
                let (count, patience) = match traffic.result {
                    Wanted::Arrives => (PINGS, PING_PATIENCE),
                    Wanted::Nothing => (1, SILENCE),
                };
                let sent = move || sender.run(|| ping(destination, &payload, count, patience));
                let report = tokio::task::spawn_blocking(sent).await???;
                (report.received == report.sent, format!("{} of {} answered", report.received, report.sent))
            }
            TrafficKind::Tcp { server, to } => {
                let receiver = self.network.namespace(to)?;
                let stream = Stream { address: *server, extent: Extent::Octets(OCTETS), text };
                let transfer = Transfer::start(&sender, receiver, stream)?;
                let _stop = transfer.stop_on_drop();
                match tokio::task::spawn_blocking(move || transfer.finish()).await? {
                    Ok(report) => (true, format!("{} octets arrived unchanged", report.octets)),
                    Err(error) => (false, error.to_string()),
                }
            }
        };
        let passed = arrived == (traffic.result == Wanted::Arrives);
        if passed {
            step.done(&found);
        } else {
            step.failed(&found);
        }
        Ok(TrafficReport { what: traffic.to_string(), passed, found })
    }

    /// The SAs of all daemons.
    async fn sas(&self) -> Result<Vec<GatewayReport>> {
        let mut gateways = Vec::new();
        for (node, socket) in self.description.gateways.iter().zip(self.sockets) {
            let socket = socket.clone();
            let collect = move || gateway::collect(&socket, "list-tunnel", "list-tunnels", Message::new());
            let (_, events) = tokio::task::spawn_blocking(collect).await??;
            let sas = events.iter().flat_map(IkeSa::read_all).collect();
            gateways.push(GatewayReport { node: node.clone(), sas });
        }
        Ok(gateways)
    }

    fn interfaces(&self) -> Result<Vec<NodeInterfaces>> {
        let of = |namespace: &Namespace| {
            Ok(NodeInterfaces { node: namespace.name().to_owned(), interfaces: namespace.run(rtnl::interfaces)?? })
        };
        self.network.namespaces().iter().map(of).collect()
    }

    fn socket(&self, gateway: &str) -> Result<&Path> {
        let at = self.description.gateways.iter().position(|name| name == gateway);
        at.and_then(|at| self.sockets.get(at)).map(PathBuf::as_path).with_context(|| format!("{gateway} has no daemon"))
    }
}

/// Has a daemon carry a command out; gives up when it takes far longer than it may.
async fn ask(socket: &Path, name: &'static str, arguments: Message) -> Result<Message> {
    let socket = socket.to_owned();
    let answer = tokio::task::spawn_blocking(move || gateway::request(&socket, name, arguments));
    let answer = tokio::time::timeout(PATIENCE.saturating_mul(2), answer).await;
    Ok(answer.with_context(|| format!("a daemon does not answer `{name}`"))???)
}

/// Gives gateways their certificates.
fn equip(setup: &Setup, description: &Description) -> Result<()> {
    if description.certificates.is_empty() {
        return Ok(());
    }
    let authority = Authority::new().context("cannot make a CA")?;
    for (gateway, name) in &description.certificates {
        authority
            .equip(&setup.folder_of(gateway)?, name)
            .with_context(|| format!("cannot make certificates for {name}"))?;
    }
    Ok(())
}

/// The files of all daemons. The first one writes the keys down, which open what is captured.
fn daemons(example: Example, description: &Description, files: &Files) -> Result<Vec<DaemonFiles>> {
    let mut daemons = Vec::new();
    for (at, node) in description.gateways.iter().enumerate() {
        let text = example.config(node).with_context(|| format!("the example has no {node}.toml"))?;
        let config = if at == 0 { with_keylog(text, &files.wireshark)? } else { text.to_owned() };
        daemons.push(DaemonFiles { node: node.clone(), config, secrets: example.secrets().to_owned() });
    }
    Ok(daemons)
}

fn with_keylog(config: &str, folder: &Path) -> Result<String> {
    let mut document: DocumentMut = config.parse()?;
    let daemon = document.entry("daemon").or_insert_with(|| Item::Table(Table::new()));
    daemon["keylog"] = value(folder.display().to_string());
    Ok(document.to_string())
}

/// Loads rules of nftables in a namespace.
fn load_rules(namespace: &Namespace, rules: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    namespace.host(&mut command);
    let mut nft = command.spawn().context("this scenario needs the program `nft` (package nftables)")?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(rules.as_bytes())?;
    }
    let output = nft.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`nft` in {}: {said}", namespace.name());
    Ok(())
}

const PINGS: u32 = 3;
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// An answer that shall not come is waited for this long: far longer than one takes that does.
const SILENCE: Duration = Duration::from_secs(1);

/// Enough for several windows of TCP; it all fits into the capture.
const OCTETS: u64 = 512 << 10;

/// Nothing is lost here, so an exchange that takes longer than this will not succeed.
const PATIENCE: Duration = Duration::from_secs(15);
