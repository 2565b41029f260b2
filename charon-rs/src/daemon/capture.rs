//! Packets in a file for Wireshark: what the dataplane copies, and the IKE messages that only the daemon sees.
//!
//! ```text
//!  workers ──▶ CaptureQueue (bounded; what has no room is counted) ──▶ thread `capture` ──▶ file
//!  shell   ──▶      "
//! ```

mod file;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use espdp::{CaptureQueue, CaptureSink};
use espdp_api::{CaptureSpec, CapturedPacket, Direction, IkePath, Layer, PolicyId, Viewpoint};
use ike_proto::io::{Notice, PlainText};
use tokio::sync::oneshot;
use tunnel_codec::{ip::IpHeader, rebuild, udp};

pub(crate) use file::open;
pub(crate) use writer::{Ending, IKE_PLAIN, OUTSIDE, Report};
use writer::{Labels, Progress, Writer};

use super::shell::Shell;

/// What somebody wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Where it is written, for people.
    pub(crate) file: PathBuf,
    /// Packets on the inside of interfaces.
    pub(crate) inside: bool,
    /// Packets on the outside, IKE among them.
    pub(crate) outside: bool,
    /// IKE messages as if nobody had encrypted them.
    pub(crate) ike_plain: bool,
    /// Only what belongs to this connection, or to this policy of the file.
    pub(crate) connection: Option<String>,
    /// Octets of each packet that are kept at most.
    pub(crate) snaplen: usize,
    /// Octets of the file at most.
    pub(crate) limit: u64,
    /// Packets a second that each worker copies at most.
    pub(crate) rate: u32,
}

/// The capture that runs, and how the last one went.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    running: Option<Running>,
    last: Option<Arc<Progress>>,
}

#[derive(Debug)]
struct Running {
    wish: Wish,
    queue: CaptureQueue,
    /// The policies whose packets are wanted; `None`: all.
    policies: Option<BTreeSet<PolicyId>>,
    labels: Labels,
    written: Written,
}

/// Who wants to know when everything is in the file.
type Written = Arc<Mutex<Vec<oneshot::Sender<()>>>>;

/// Why no capture was begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotBegun {
    #[error("a capture into {} runs already: end it with `charonctl capture stop`", .0.display())]
    Running(PathBuf),
    #[error("the last capture, into {}, is not all in the file yet: see `charonctl capture show`", .0.display())]
    Unwritten(PathBuf),
    #[error("there is no connection and no policy `{wanted}`; there are: {known}")]
    Unknown { wanted: String, known: String },
    #[error("the thread that writes cannot be started: {0}")]
    Thread(String),
}

impl Captures {
    /// How the capture goes that runs, or how the last one went.
    pub(crate) fn report(&self) -> Option<Report> {
        let lost = self.running.as_ref().map(|running| running.queue.lost());
        self.last.as_ref().map(|progress| progress.report(lost))
    }

    /// Whether another one may begin: not before the last one is written, for it may be into the same file.
    fn may_begin(&self) -> Result<(), NotBegun> {
        if let Some(running) = &self.running {
            return Err(NotBegun::Running(running.wish.file.clone()));
        }
        match self.report() {
            Some(Report { wish, ending: None, .. }) => Err(NotBegun::Unwritten(wish.file)),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes down a datagram with an IKE message as it is on the wire.
    pub(super) fn on_wire(&mut self, path: &IkePath, sent: bool, message: &[u8], nat_port: u16) {
        let Some(running) = &mut self.running else { return };
        // Whose it is cannot be seen from the outside.
        if running.wish.outside && running.wish.connection.is_none() {
            running.put(Viewpoint::Outside, path, sent, message, nat_port);
        }
    }

    /// A policy is removed. The workers need not know: identifiers are never used twice, see [`PolicyId`].
    pub(super) fn on_removal(&mut self, policy: PolicyId) {
        let Some(running) = &mut self.running else { return };
        running.labels.remove(policy);
        if let Some(policies) = &mut running.policies {
            policies.remove(&policy);
        }
    }

    fn on_plain_text(&mut self, text: &PlainText, nat_port: u16) {
        let Some(running) = &mut self.running else { return };
        let wanted = running.wish.connection.as_ref();
        if running.wish.ike_plain && wanted.is_none_or(|wanted| text.connection.as_ref() == Some(wanted)) {
            running.put(Viewpoint::IkePlain, &text.path, text.sent, &text.message, nat_port);
        }
    }
}

impl Running {
    /// Learns what policies are called. Returns all that are wanted if there are new ones among them.
    fn learn(&mut self, names: BTreeMap<PolicyId, PolicyName>) -> Option<Vec<PolicyId>> {
        let mut all = None;
        if let (Some(wanted), Some(policies)) = (&self.wish.connection, &mut self.policies) {
            let before = policies.len();
            policies.extend(ids_of(&names, wanted));
            all = (policies.len() > before).then(|| policies.iter().copied().collect());
        }
        self.labels.add(names);
        all
    }

    /// Puts a datagram into the queue, with the headers that it has outside.
    fn put(&mut self, viewpoint: Viewpoint, path: &IkePath, sent: bool, message: &[u8], nat_port: u16) {
        let (direction, source, destination) = if sent {
            (Direction::Outbound, path.local, path.remote)
        } else {
            (Direction::Inbound, path.remote, path.local)
        };
        let header = IpHeader {
            source: source.ip(),
            destination: destination.ip(),
            protocol: udp::PROTOCOL,
            hop_limit: 64,
            traffic_class: 0,
            dont_fragment: false,
            identification: 0,
        };
        // RFC 3948 §2.2: where ESP may come, four zero octets tell IKE from it.
        let marker: &[u8] = if path.local.port() == nat_port { &[0; 4] } else { &[] };
        let payload = [marker, message].concat();
        let ports = Some((source.port(), destination.port()));
        let Some((octets, len)) = rebuild::packet(&header, ports, &payload, self.wish.snaplen) else { return };
        if !self.queue.has_room(octets.len()) {
            self.queue.lose(viewpoint);
            return;
        }
        let (at, layer) = (SystemTime::now(), Layer::Ip);
        self.queue.put(CapturedPacket { at, viewpoint, layer, direction, octets, len, sa: None, remark: None });
    }
}

impl Shell {
    /// Whether such a capture may begin.
    ///
    /// # Errors
    /// [`NotBegun`].
    pub(crate) fn may_capture(&self, wish: &Wish) -> Result<(), NotBegun> {
        self.captures.may_begin()?;
        let manual = self.applied.manual.policies().map(|(_, policy)| policy.name.as_str());
        let known: Vec<&str> =
            self.engine.connections().map(|connection| connection.name.as_str()).chain(manual).collect();
        match &wish.connection {
            Some(wanted) if !known.contains(&wanted.as_str()) => {
                Err(NotBegun::Unknown { wanted: wanted.clone(), known: known.join(", ") })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Begins to write what `wish` says to `file`, instead of what is in it. What is returned is told when no more can be written
    /// although nobody has ended it; then [`Self::end_capture`] is to be called.
    ///
    /// # Errors
    /// [`NotBegun`].
    pub(crate) fn begin_capture(&mut self, wish: Wish, file: File) -> Result<oneshot::Receiver<()>, NotBegun> {
        self.may_capture(&wish)?;
        let names = self.policy_names();
        let policies: Option<BTreeSet<_>> = wish.connection.as_deref().map(|wanted| ids_of(&names, wanted).collect());
        let (queue, captured) = CaptureQueue::new();
        let labels = Labels::default();
        let progress = Arc::new(Progress::new(wish.clone()));
        let (full, is_full) = oneshot::channel();
        let written: Written = Arc::default();
        let writer = Writer { file, progress: Arc::clone(&progress), labels: labels.clone(), full };
        let tell = Arc::clone(&written);
        let write = move || {
            writer.run(captured);
            let all = std::mem::take(&mut *tell.lock().unwrap_or_else(PoisonError::into_inner));
            let told = all.into_iter().filter_map(|asker| asker.send(()).ok()).count();
            tracing::debug!(told, "a capture is complete");
        };
        let thread = std::thread::Builder::new().name("capture".into()).spawn(write);
        thread.map_err(|error| NotBegun::Thread(error.to_string()))?;
        labels.add(names);
        if let Some(dataplane) = self.port().dataplane() {
            let spec = CaptureSpec {
                inside: wish.inside,
                outside: wish.outside,
                snaplen: wish.snaplen,
                policies: policies.as_ref().map(|policies| policies.iter().copied().collect()),
                most_per_second: wish.rate,
            };
            dataplane.capture(&spec, &queue);
        }
        self.engine.export_plain_text(wish.ike_plain);
        self.captures.last = Some(progress);
        self.captures.running = Some(Running { wish, queue, policies, labels, written });
        Ok(is_full)
    }

    /// Ends the capture that runs, if one does. What is returned is told when everything is written.
    pub(crate) fn end_capture(&mut self) -> Option<oneshot::Receiver<()>> {
        let running = self.captures.running.take()?;
        self.engine.export_plain_text(false);
        if let Some(dataplane) = self.port().dataplane() {
            dataplane.end_capture();
        }
        let (asker, written) = oneshot::channel();
        // The thread goes on until the queue ends, which it does when we and the workers have dropped it.
        running.written.lock().unwrap_or_else(PoisonError::into_inner).push(asker);
        Some(written)
    }

    /// Takes down what a notice says, and whom policies belong to from now on.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other notices change no policies, and so do future ones")]
    pub(super) fn capture_notice(&mut self, notice: &Notice) {
        if self.captures.running.is_none() {
            return;
        }
        match notice {
            Notice::PlainText(text) => {
                let nat_port = self.engine.settings().nat_port;
                self.captures.on_plain_text(text, nat_port);
            }
            // Rekeyings change no policy, and what was up before is known from the beginning.
            Notice::ChildUp { sa, child } => {
                let name = PolicyName::of_child(&sa.connection, &child.name);
                self.add_to_capture(BTreeMap::from([(child.policy, name)]));
            }
            // A command may have had policies set that wait for packets.
            Notice::Settled { .. } => self.add_to_capture(self.names_without_sas().collect()),
            _ => {}
        }
    }

    fn add_to_capture(&mut self, names: BTreeMap<PolicyId, PolicyName>) {
        let Some(running) = &mut self.captures.running else { return };
        let Some(policies) = running.learn(names) else { return };
        if let Some(dataplane) = self.port().dataplane() {
            dataplane.set_captured_policies(Some(&policies));
        }
    }

    /// The names of the policies: of the connection and of the child, or only their own.
    pub(crate) fn policy_names(&self) -> BTreeMap<PolicyId, PolicyName> {
        let of_sas = self.engine.ike_sas().into_iter().flat_map(|sa| {
            let connection = sa.connection;
            sa.children.into_iter().map(move |child| (child.policy, PolicyName::of_child(&connection, &child.name)))
        });
        of_sas.chain(self.names_without_sas()).collect()
    }

    /// The names of the policies that wait for packets, and of those of the file.
    fn names_without_sas(&self) -> impl Iterator<Item = (PolicyId, PolicyName)> {
        let traps = self.engine.traps();
        let of_traps = traps.map(|(connection, child, spec)| (spec.id, PolicyName::of_child(connection, child)));
        let manual = self.applied.manual.policies();
        let of_file = manual.map(|(id, policy)| (id, PolicyName { connection: None, own: policy.name.clone() }));
        of_traps.chain(of_file)
    }
}

/// What a policy is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyName {
    /// The connection whose child it is of.
    pub(crate) connection: Option<String>,
    /// The child's name, or that of a policy of the file.
    pub(crate) own: String,
}

impl PolicyName {
    fn of_child(connection: &str, child: &str) -> Self {
        Self { connection: Some(connection.to_owned()), own: child.to_owned() }
    }
}

/// For sentences: `net of gw`.
impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.connection {
            Some(connection) if *connection == self.own => f.write_str(connection),
            Some(connection) => write!(f, "{} of {connection}", self.own),
            None => write!(f, "policy {}", self.own),
        }
    }
}

fn ids_of(names: &BTreeMap<PolicyId, PolicyName>, wanted: &str) -> impl Iterator<Item = PolicyId> {
    let is_wanted = move |name: &PolicyName| name.connection.as_deref().unwrap_or(&name.own) == wanted;
    names.iter().filter(move |(_, name)| is_wanted(name)).map(|(id, _)| *id)
}

#[cfg(test)]
mod tests;
