//! What is done with a lab that stands: negotiate, send traffic, read what the daemons counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::capture::Capture;
use super::gateway;
use super::netns;
use super::ping::{PingReport, ping};
use super::report::{NodeInterfaces, rate};
use super::rtnl;
use super::sas::IkeSa;
use super::steps::{Step, Steps};
use super::tally::MARKER;
use super::topology::{CLIENT, Network, SERVER};
use super::transfer::{Extent, Stream, Transfer, TransferReport};
use crate::vici::Message;

/// What is done with a lab that stands.
pub(super) struct Experiment<'a> {
    pub(super) network: &'a Network,
    /// The control sockets of initiator and responder.
    pub(super) sockets: [PathBuf; 2],
    pub(super) connection: &'a str,
    pub(super) capture: &'a Capture,
    pub(super) steps: Steps,
}

/// What an experiment showed, but for the wire.
pub(super) struct Observed {
    pub(super) sas: [Vec<IkeSa>; 2],
    pub(super) interfaces: Vec<NodeInterfaces>,
    pub(super) pings: Vec<PingReport>,
    pub(super) transfer: TransferReport,
}

impl Experiment<'_> {
    /// Does all of it once.
    pub(super) async fn run(&self, duration: Duration) -> Result<Observed> {
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
        off_thread(move || client.run(|| ping(destination, MARKER, 1, PING_PATIENCE))).await???;
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
            let report = off_thread(move || client.run(|| ping(destination, MARKER, PINGS, PING_PATIENCE))).await???;
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
        let transfer = Transfer::start(client, server, Stream::new(server_address, Extent::Time(duration)))?;
        let _stop = transfer.stop_on_drop();
        let started = Instant::now();
        while !transfer.is_finished() {
            tokio::time::sleep(SHORT).await;
            note_rate(&step, transfer.octets(), started.elapsed());
        }
        Ok(match transfer.finish() {
            Ok(report) => {
                step.done(&rate(report.mbit_per_second));
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

/// Runs what blocks on a thread of its own, so that a signal can interrupt the wait for it.
fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, tokio::task::JoinError>> {
    tokio::task::spawn_blocking(work)
}

fn note_rate(step: &Step, octets: u64, elapsed: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "a few digits for people")]
    let megabits = octets as f64 * 8.0 / 1e6;
    step.note(format!("{:.0} MB, {}", megabits / 8.0, rate(megabits / elapsed.as_secs_f64().max(0.001))));
}

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
