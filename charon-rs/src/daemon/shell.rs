//! The one task that owns the engine: everything that happens reaches it in order, and nothing in it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{FromDataplane, InterfaceName, Outcome, RequestId, ToDataplane};
use ike_proto::Engine;
use ike_proto::config::Gateway;
use ike_proto::io::{Answer, Ask, AskId, Command, Notice, Output, SettledCount, Target, Ticket};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::applied::Applied;
use super::capture::Captures;
use super::counters::Counters;
use super::events;
use super::hooks::Hooks;
use super::host::Host;
use super::journal::Journal;
use super::keylog::KeyLog;
use super::logs::Logs;
use super::manual::{PendingStep, Step};
use super::metrics::Metrics;
use super::outbox::{Outbox, SaKey};
use super::trace;
use crate::credentials::Desk;
use crate::vici::Broadcast;

/// Things to do for clients that may wait in the queue.
const QUEUE: usize = 256;

/// Events that a client may be behind before it is let go.
const EVENTS_BEHIND: usize = 4096;

/// A host name is given up after this long; the engine tries again later.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);

/// When the daemon ends, a capture may take this long to be complete.
const CAPTURE_DEADLINE: Duration = Duration::from_secs(1);

/// A turn of the loop that takes longer than this is worth a warning: nobody else is served meanwhile.
const LONG_TURN: Duration = Duration::from_millis(250);

/// Where commands for the dataplane go.
pub(crate) trait Port: Send {
    /// Hands a message over without waiting.
    fn send(&self, message: ToDataplane);

    /// The dataplane that packets can be captured from; a test may have none.
    fn dataplane(&self) -> Option<&espdp::Dataplane> {
        None
    }
}

impl Port for espdp::Dataplane {
    fn send(&self, message: ToDataplane) {
        espdp::Dataplane::send(self, message);
    }

    fn dataplane(&self) -> Option<&espdp::Dataplane> {
        Some(self)
    }
}

/// How a turn of the loop is carried out for somebody outside of it.
type Errand = Box<dyn FnOnce(&mut Shell) + Send>;

/// The way of everybody else to the shell.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    errands: mpsc::Sender<Errand>,
    events: broadcast::Sender<Broadcast>,
}

/// The shell is gone: the daemon is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is shutting down")]
pub(crate) struct Gone;

impl Handle {
    /// Has `errand` done by the shell, between two other turns, and gives back what it returns.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Shell) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        // When the asker is gone, so is the receiver, and nobody misses the answer.
        let errand: Errand = Box::new(move |shell| drop(reply.send(errand(shell))));
        self.errands.send(errand).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// All events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Broadcast> {
        self.events.subscribe()
    }
}

/// What became of an undertaking: how many SAs, or why not.
pub(crate) type Settled = Result<SettledCount, String>;

/// The counters of the dataplane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statistics {
    /// Those of each half of a Child SA.
    pub(crate) sas: BTreeMap<SaKey, espdp_api::SaStatistics>,
    /// One entry for each interface.
    pub(crate) interfaces: Vec<espdp_api::InterfaceReport>,
    /// Drops that belong to no SA.
    pub(crate) drops: Vec<espdp_api::DropCount>,
}

/// Counters by what they are of. Where several have one SPI, the first counts: an SPI may be used again.
pub(crate) fn by_half(
    counters: impl IntoIterator<Item = espdp_api::SaStatistics>,
) -> BTreeMap<SaKey, espdp_api::SaStatistics> {
    let mut found = BTreeMap::new();
    for sa in counters {
        found.entry((sa.direction, sa.spi)).or_insert(sa);
    }
    found
}

/// What waits for the outcome of a request to the dataplane.
pub(super) enum Waiting {
    /// The engine; with the SA that the request removes, if it does.
    Engine(AskId, Option<SaKey>),
    /// Nobody; what was tried is named when it fails.
    Nobody(String),
    /// A step towards what nobody negotiates, and the SPI that was claimed for it.
    Manual(PendingStep, Option<espdp_api::EspSpi>),
    /// An interface that is to be as it was asked for.
    Interface(InterfaceName),
    /// An interface that no connection needs any more.
    Removal(InterfaceName),
    /// A bridge domain that the file does not name any more.
    BridgeRemoval(espdp_api::BridgeName),
    /// Somebody who wants counters.
    Statistics(oneshot::Sender<Statistics>),
    /// Somebody who wants the outcome as it is.
    Asker(oneshot::Sender<Outcome>),
}

/// The engine and everything around it that must happen in order.
pub(crate) struct Shell {
    pub(crate) engine: Engine,
    pub(crate) journal: Journal,
    pub(crate) counters: Counters,
    pub(crate) metrics: Metrics,
    pub(crate) keys: Option<KeyLog>,
    /// Packets that are written to a file.
    pub(crate) captures: Captures,
    /// How much of which connection is logged.
    pub(crate) logs: Logs,
    /// Programs that are run when SAs come and go.
    pub(super) hooks: Option<Hooks>,
    pub(crate) applied: Applied,
    /// What the host's own network stack was told.
    pub(super) host: Host,
    pub(crate) load: Load,
    /// Certificates and keys, and who works with them.
    pub(crate) desk: Desk,
    port: Box<dyn Port>,
    events: broadcast::Sender<Broadcast>,
    outbox: Outbox,
    waiting: BTreeMap<RequestId, Waiting>,
    last_request: u64,
    tickets: BTreeMap<Ticket, oneshot::Sender<Settled>>,
    last_ticket: u64,
    /// Interfaces to be removed as soon as the last policy has left them.
    leaving: BTreeSet<InterfaceName>,
    /// Bridge domains to be removed as soon as the last port has left them.
    leaving_bridges: BTreeSet<espdp_api::BridgeName>,
    answers: mpsc::UnboundedSender<(AskId, Answer)>,
    state: State,
}

/// How busy the loop is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Turns so far.
    pub(crate) turns: u64,
    /// The longest of them.
    pub(crate) longest_turn: Duration,
}

/// Whether the shell goes on.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Running,
    ShuttingDown { until: Instant },
    Done(Ending),
}

/// How the shell ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As it was told to.
    Orderly,
    /// The dataplane cannot go on.
    Fatal(String),
}

/// A shell that is ready to run, with its inputs.
pub(crate) struct Inputs {
    errands: mpsc::Receiver<Errand>,
    dataplane: mpsc::Receiver<FromDataplane>,
    answers: mpsc::UnboundedReceiver<(AskId, Answer)>,
}

impl Shell {
    /// A shell around `engine`, which talks to the dataplane through `port` and `dataplane`.
    pub(crate) fn new(
        engine: Engine,
        port: Box<dyn Port>,
        dataplane: mpsc::Receiver<FromDataplane>,
        keys: Option<KeyLog>,
    ) -> (Self, Inputs, Handle) {
        let (errands, errands_in) = mpsc::channel(QUEUE);
        let (answers, answers_in) = mpsc::unbounded_channel();
        let events = broadcast::Sender::new(EVENTS_BEHIND);
        let shell = Self {
            engine,
            journal: Journal::default(),
            counters: Counters::default(),
            metrics: Metrics::default(),
            keys,
            captures: Captures::default(),
            logs: Logs::default(),
            hooks: None,
            applied: Applied::default(),
            host: Host::default(),
            load: Load::default(),
            desk: Desk::new(answers.clone()),
            port,
            events: events.clone(),
            outbox: Outbox::default(),
            waiting: BTreeMap::new(),
            last_request: 0,
            tickets: BTreeMap::new(),
            last_ticket: 0,
            leaving: BTreeSet::new(),
            leaving_bridges: BTreeSet::new(),
            answers,
            state: State::Running,
        };
        (shell, Inputs { errands: errands_in, dataplane, answers: answers_in }, Handle { errands, events })
    }

    /// Serves everybody until the engine has shut down. The dataplane's port is given back, so that it can be stopped.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> (Ending, Box<dyn Port>) {
        self.turn(|_| {}); // what was told to the engine before it ran
        loop {
            let ending = match &self.state {
                State::Done(ending) => Some(ending.clone()),
                State::ShuttingDown { until } if *until <= Instant::now() => Some(Ending::Orderly),
                State::Running | State::ShuttingDown { .. } => None,
            };
            if let Some(ending) = ending {
                if let Some(written) = self.end_capture() {
                    // Without an answer the file has no statistics at its end.
                    drop(tokio::time::timeout(CAPTURE_DEADLINE, written).await);
                }
                return (ending, self.port);
            }
            let deadline = self.deadline();
            tokio::select! {
                Some(message) = inputs.dataplane.recv() => self.turn(|shell| shell.on_dataplane(message)),
                Some(errand) = inputs.errands.recv() => self.turn(errand),
                Some((id, answer)) = inputs.answers.recv() => {
                    self.turn(|shell| shell.engine.handle_answer(Instant::now(), id, answer));
                }
                () = sleep_until(deadline) => self.turn(|shell| shell.engine.handle_timeout(Instant::now())),
            }
        }
    }

    /// Brings a connection or one of its children up.
    pub(crate) fn initiate(&mut self, connection: Option<String>, child: Option<String>) -> oneshot::Receiver<Settled> {
        self.undertake(|ticket| Command::Initiate { ticket, connection, child })
    }

    /// Takes SAs down.
    pub(crate) fn terminate(&mut self, target: Target) -> oneshot::Receiver<Settled> {
        self.undertake(|ticket| Command::Terminate { ticket, target })
    }

    /// Takes SAs down without waiting for the peers.
    pub(crate) fn terminate_at_once(&mut self, target: Target) -> oneshot::Receiver<Settled> {
        self.undertake(|ticket| Command::TerminateAtOnce { ticket, target })
    }

    /// Sends the peers of IKE SAs to another gateway.
    pub(crate) fn redirect(&mut self, target: Target, gateway: Gateway) -> oneshot::Receiver<Settled> {
        self.undertake(|ticket| Command::Redirect { ticket, target, gateway })
    }

    /// Has the policy of a child wait for packets.
    pub(crate) fn install(&mut self, connection: Option<String>, child: String) -> oneshot::Receiver<Settled> {
        self.undertake(|ticket| Command::Install { ticket, connection, child })
    }

    /// Has the policy of a child wait no more.
    pub(crate) fn uninstall(&mut self, connection: Option<String>, child: String) -> oneshot::Receiver<Settled> {
        self.undertake(|ticket| Command::Uninstall { ticket, connection, child })
    }

    /// Rekeys SAs.
    pub(crate) fn rekey(&mut self, target: Target) -> oneshot::Receiver<Settled> {
        self.undertake(|ticket| Command::Rekey { ticket, target })
    }

    /// Makes IKE SAs anew, with a new authentication.
    pub(crate) fn reauthenticate(&mut self, target: Target) -> oneshot::Receiver<Settled> {
        self.undertake(|ticket| Command::Reauthenticate { ticket, target })
    }

    /// Asks the dataplane for its counters.
    pub(crate) fn statistics(&mut self) -> oneshot::Receiver<Statistics> {
        let (reply, answer) = oneshot::channel();
        self.request(espdp_api::Command::Statistics, Waiting::Statistics(reply));
        answer
    }

    /// Has the dataplane carry a command out that concerns nobody but the one who asks.
    pub(crate) fn ask_dataplane(&mut self, command: espdp_api::Command) -> oneshot::Receiver<Outcome> {
        let (reply, answer) = oneshot::channel();
        self.request(command, Waiting::Asker(reply));
        answer
    }

    /// Makes or changes a bridge domain. It is in place before an interface that is set afterwards becomes its port.
    pub(crate) fn set_bridge(&mut self, spec: espdp_api::BridgeSpec) {
        self.leaving_bridges.remove(&spec.name);
        let what = format!("bridge `{}` cannot be set up", spec.name);
        self.request(espdp_api::Command::SetBridge(Box::new(spec)), Waiting::Nobody(what));
    }

    /// Removes a bridge domain once no interface is a port of it any more.
    pub(crate) fn remove_bridge(&mut self, name: espdp_api::BridgeName) {
        self.leaving_bridges.insert(name.clone());
        self.request(espdp_api::Command::RemoveBridge(name.clone()), Waiting::BridgeRemoval(name));
    }

    /// A domain that still has ports stays on the list: they go with the last policies of their interfaces.
    fn on_bridge_removal(&mut self, name: espdp_api::BridgeName, outcome: Outcome) {
        if matches!(outcome, Err(espdp_api::Refusal::BridgeInUse(_))) {
            return;
        }
        if let Err(refusal) = outcome {
            tracing::warn!(%refusal, bridge = %name, "the bridge cannot be removed");
        }
        self.leaving_bridges.remove(&name);
    }

    /// Makes or changes an interface. It is in place before a connection that is set afterwards uses it.
    pub(crate) fn set_interface(&mut self, spec: espdp_api::InterfaceSpec) {
        self.leaving.remove(&spec.name);
        let waiting = Waiting::Interface(spec.name.clone());
        self.request(espdp_api::Command::SetInterface(Box::new(spec)), waiting);
    }

    /// Has a step carried out that nobody waits for.
    pub(super) fn order(&mut self, step: Step) {
        let Step { command, pending } = step;
        let claimed = if let espdp_api::Command::InstallInbound(spec) = &command { Some(spec.sa.spi) } else { None };
        self.request(command, Waiting::Manual(pending, claimed));
    }

    fn on_manual(&mut self, pending: PendingStep, claimed: Option<espdp_api::EspSpi>, outcome: Outcome) {
        let goes_on = self.applied.manual.goes_on(&pending);
        match (outcome, pending.then) {
            (Ok(_), Some(espdp_api::Command::InstallInbound(spec))) if !goes_on => self.release(spec.sa.spi),
            (Ok(_), Some(_)) if !goes_on => {}
            (Ok(_), Some(command)) => self.order(Step { command, pending: PendingStep { then: None, ..pending } }),
            (Ok(_), None) => {}
            (Err(refusal), _) => {
                tracing::error!(%refusal, "{}", pending.what);
                if let Some(spi) = claimed {
                    // Whoever tries again claims it again.
                    self.release(spi);
                }
                self.on_refused_part(pending.part);
            }
        }
    }

    /// Gives an SPI back that was claimed.
    fn release(&mut self, spi: espdp_api::EspSpi) {
        let what = format!("the SPI {spi} cannot be given back");
        self.request(espdp_api::Command::ReleaseSpi(spi), Waiting::Nobody(what));
    }

    /// An interface that is refused is asked for again with the next reload; one that is there may be what policies wait for.
    fn on_interface(&mut self, name: &InterfaceName, outcome: Outcome) {
        self.applied.note_interface(name, outcome.is_ok());
        match outcome {
            Ok(_) => self.retry_policies(),
            Err(refusal) => tracing::error!(%refusal, "interface `{name}` cannot be set up"),
        }
    }

    /// Whether an interface is to be removed, and is still there.
    pub(crate) fn is_leaving(&self, name: &InterfaceName) -> bool {
        self.leaving.contains(name)
    }

    /// Removes an interface once no policy uses it any more.
    pub(crate) fn remove_interface(&mut self, name: InterfaceName) {
        self.leaving.insert(name.clone());
        self.request(espdp_api::Command::RemoveInterface(name.clone()), Waiting::Removal(name));
    }

    /// Deletes all SAs, tells the peers, and ends the loop; peers that do not answer are not waited for longer than `grace`.
    pub(crate) fn shut_down(&mut self, grace: Duration) {
        if self.state != State::Running {
            self.state = State::Done(Ending::Orderly); // asked twice: at once
            return;
        }
        let now = Instant::now();
        // The engine ends by itself; the second is for the case that it does not.
        self.state = State::ShuttingDown { until: now + grace + Duration::from_secs(1) };
        self.engine.handle_command(now, Command::ShutDown { grace });
    }

    fn deadline(&self) -> Option<Instant> {
        let engine = [self.engine.poll_timeout().map(|(at, _)| at), self.host.due].into_iter().flatten().min();
        match self.state {
            State::ShuttingDown { until } => Some(engine.map_or(until, |at| at.min(until))),
            State::Running | State::Done(_) => engine,
        }
    }

    /// One input and everything that follows from it.
    fn turn(&mut self, input: impl FnOnce(&mut Self)) {
        let began = Instant::now();
        input(self);
        if self.host.due.is_some_and(|due| due <= began) {
            self.tell_host();
        }
        while let Some(output) = self.engine.poll_output() {
            self.carry_out(output);
        }
        let took = began.elapsed();
        self.load.turns += 1;
        self.load.longest_turn = self.load.longest_turn.max(took);
        if took > LONG_TURN {
            let timer = self.engine.poll_timeout().map(|(_, kind)| kind);
            tracing::warn!(?took, next_timer = ?timer, "a turn of the daemon's loop took long");
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Transmit { path, message } => {
                self.captures.on_wire(&path, true, &message, self.engine.settings().nat_port);
                self.port.send(ToDataplane::SendIke { path, message });
            }
            Output::Keepalive(path) => self.port.send(ToDataplane::SendKeepalive { path }),
            Output::Ask(id, Ask::Dataplane(command)) => {
                let removed = self.outbox.on_request(&command);
                self.request(command, Waiting::Engine(id, removed));
            }
            Output::Ask(id, Ask::Resolve(name)) => self.resolve(id, name),
            Output::Ask(id, Ask::Sign(request)) => self.desk.sign(id, request),
            Output::Ask(id, Ask::Verify(request)) => self.desk.verify(id, request),
            Output::Ask(id, _) => tracing::error!(?id, "the engine asks for what this daemon cannot do"),
            Output::Notice(notice) => self.on_notice(notice),
        }
    }

    fn on_dataplane(&mut self, message: FromDataplane) {
        match message {
            FromDataplane::Outcome(id, outcome) => self.on_outcome(id, outcome),
            FromDataplane::Event(espdp_api::Event::Fatal { reason }) => {
                self.state = State::Done(Ending::Fatal(reason));
            }
            FromDataplane::Event(event @ espdp_api::Event::UnknownSpi { .. }) => {
                self.counters.count_unknown_spi();
                self.engine.handle_dataplane(Instant::now(), event);
            }
            FromDataplane::Event(event) => {
                if let espdp_api::Event::Ike { path, message } = &event {
                    self.captures.on_wire(path, false, message, self.engine.settings().nat_port);
                }
                self.engine.handle_dataplane(Instant::now(), event);
            }
        }
    }

    fn on_outcome(&mut self, id: RequestId, outcome: Outcome) {
        match self.waiting.remove(&id) {
            Some(Waiting::Engine(ask, removed)) => {
                if let Some(key) = removed {
                    if let Ok(espdp_api::Done::Removed(last)) = &outcome {
                        self.metrics.on_removed(last);
                    }
                    self.outbox.on_removed(key, &outcome);
                    self.send_events();
                }
                self.engine.handle_answer(Instant::now(), ask, Answer::Dataplane(outcome));
                self.retry_removals();
            }
            Some(Waiting::Nobody(what)) => {
                if let Err(refusal) = outcome {
                    tracing::error!(%refusal, "{what}");
                }
            }
            Some(Waiting::Manual(pending, claimed)) => self.on_manual(pending, claimed, outcome),
            Some(Waiting::Interface(name)) => self.on_interface(&name, outcome),
            Some(Waiting::Removal(name)) => self.on_removal(name, outcome),
            Some(Waiting::BridgeRemoval(name)) => self.on_bridge_removal(name, outcome),
            Some(Waiting::Statistics(reply)) => {
                if let Ok(espdp_api::Done::Statistics { sas, interfaces, drops }) = outcome {
                    let sas = by_half(sas.into_iter().chain(self.outbox.last_counters().cloned()));
                    drop(reply.send(Statistics { sas, interfaces, drops })); // an asker that is gone wants none
                }
            }
            Some(Waiting::Asker(reply)) => drop(reply.send(outcome)), // an asker that is gone wants none
            None => tracing::warn!(?id, "the dataplane answered a request that nobody made"),
        }
    }

    /// An interface that is still in use stays on the list: its policies go when their SAs are deleted.
    fn on_removal(&mut self, name: InterfaceName, outcome: Outcome) {
        match outcome {
            Err(espdp_api::Refusal::InterfaceInUse(_)) => {}
            Err(refusal) => {
                tracing::warn!(%refusal, interface = %name, "the interface cannot be removed");
                self.leaving.remove(&name);
            }
            Ok(_) => {
                self.leaving.remove(&name);
                for name in self.leaving_bridges.clone() {
                    self.remove_bridge(name);
                }
            }
        }
    }

    /// After the engine's own requests a policy may be gone.
    fn retry_removals(&mut self) {
        let asked = |name: &InterfaceName| {
            self.waiting.values().any(|waiting| matches!(waiting, Waiting::Removal(asked) if asked == name))
        };
        let due: Vec<InterfaceName> = self.leaving.iter().filter(|name| !asked(name)).cloned().collect();
        for name in due {
            self.request(espdp_api::Command::RemoveInterface(name.clone()), Waiting::Removal(name));
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
    fn on_notice(&mut self, notice: Notice) {
        trace::trace(&notice);
        self.capture_notice(&notice);
        self.counters.count(&notice);
        self.metrics.on_notice(&notice, Instant::now());
        if let Some(keys) = &mut self.keys {
            keys.on_notice(&notice);
        }
        if let Some(hooks) = &mut self.hooks {
            hooks.on_notice(&notice, |name| self.applied.connection(name).map(|(_, connection)| connection));
        }
        for entry in self.journal.record(&notice) {
            self.broadcast("log", || events::log(&entry));
        }
        self.outbox.push(&notice, Instant::now());
        self.send_events();
        match notice {
            Notice::Settled { ticket, result } => {
                if let Some(reply) = self.tickets.remove(&ticket) {
                    drop(reply.send(result)); // whoever began it may have left
                }
            }
            Notice::ShutDown => self.state = State::Done(Ending::Orderly),
            _ => {}
        }
    }

    fn send_events(&mut self) {
        while let Some((name, message)) = self.outbox.pop() {
            self.broadcast(name, || message);
        }
    }

    /// Tells whoever listens, if anybody does.
    fn broadcast(&self, name: &'static str, message: impl FnOnce() -> crate::vici::Message) {
        if self.events.receiver_count() > 0 {
            // The last listener may leave meanwhile.
            drop(self.events.send(Broadcast { name, message: message().into() }));
        }
    }

    fn undertake(&mut self, command: impl FnOnce(Ticket) -> Command) -> oneshot::Receiver<Settled> {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let (reply, settled) = oneshot::channel();
        self.tickets.insert(ticket, reply);
        self.engine.handle_command(Instant::now(), command(ticket));
        settled
    }

    /// The way to the dataplane.
    pub(super) fn port(&self) -> &dyn Port {
        &*self.port
    }

    pub(super) fn request(&mut self, command: espdp_api::Command, waiting: Waiting) {
        if let espdp_api::Command::RemovePolicy(policy) = &command {
            self.captures.on_removal(*policy);
        }
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.waiting.insert(id, waiting);
        self.port.send(ToDataplane::Request(id, command));
    }

    fn resolve(&self, id: AskId, name: String) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let addresses = addresses_of(&name).await;
            drop(answers.send((id, Answer::Addresses(addresses)))); // fails only when the shell is gone
        });
    }
}

/// The addresses of a name; none when it has none or the resolver takes too long.
async fn addresses_of(name: &str) -> Vec<IpAddr> {
    match tokio::time::timeout(RESOLVE_DEADLINE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a host name has no address");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!("the resolver takes too long");
            Vec::new()
        }
    }
}

/// Waits for ever when there is nothing to wait for.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::Wire;
    use espdp_api::{Done, Event, Refusal};

    #[tokio::test]
    async fn a_dataplane_that_cannot_go_on_ends_the_daemon_with_its_reason() {
        let (shell, inputs, to_shell, _wire) = Wire::connected();
        to_shell.send(FromDataplane::Event(Event::Fatal { reason: "the sky falls".into() })).await.unwrap();
        assert_eq!(shell.run(inputs).await.0, Ending::Fatal("the sky falls".into()));
    }

    #[tokio::test]
    async fn a_second_wish_to_end_is_granted_at_once() {
        let (mut shell, inputs, _to_shell, _wire) = Wire::connected();
        shell.shut_down(Duration::from_secs(3600));
        shell.shut_down(Duration::from_secs(3600));
        assert_eq!(shell.run(inputs).await.0, Ending::Orderly);
    }

    #[tokio::test]
    async fn an_interface_in_use_is_removed_once_its_policies_are_gone() {
        let (mut shell, mut wire) = Wire::shell();
        let name = InterfaceName::new("ipsec0").unwrap();
        shell.remove_interface(name.clone());
        let [(first, _)] = wire.requests().try_into().unwrap();
        shell.on_dataplane(FromDataplane::Outcome(first, Err(Refusal::InterfaceInUse(name.clone()))));
        assert!(wire.requests().is_empty(), "nothing changed yet");
        assert!(shell.owns_link(&name), "connections told over the socket may have it again");
        shell.request(espdp_api::Command::RemovePolicy(espdp_api::PolicyId(1)), Waiting::Engine(AskId(1), None));
        let [(policy, _)] = wire.requests().try_into().unwrap();
        shell.on_dataplane(FromDataplane::Outcome(policy, Ok(Done::Ok)));
        let [(again, command)] = wire.requests().try_into().unwrap();
        assert_eq!(format!("{command:?}"), format!("{:?}", espdp_api::Command::RemoveInterface(name.clone())));
        shell.on_dataplane(FromDataplane::Outcome(again, Ok(Done::Ok)));
        assert!(shell.leaving.is_empty() && !shell.owns_link(&name));
    }

    #[tokio::test]
    async fn what_was_refused_for_want_of_an_interface_comes_into_force_with_it() {
        let (mut shell, mut wire) = Wire::shell();
        let name = InterfaceName::new("ipsec0").unwrap();
        let spec = espdp_api::InterfaceSpec::new(name.clone(), espdp_api::InterfaceKind::Ipsec);
        let policy = espdp_api::PolicySpec::protect(espdp_api::PolicyId(0), name.clone(), Vec::new(), Vec::new());
        let policy = crate::config::ManualPolicy { name: "p".into(), spec: policy, sas: Vec::new() };
        shell.want_interface(spec.clone());
        shell.set_file_policies(vec![policy]);
        let [(interface, _), (first, command)] = wire.requests().try_into().unwrap();
        shell.on_dataplane(FromDataplane::Outcome(interface, Err(Refusal::InterfaceInUse(name.clone()))));
        shell.on_dataplane(FromDataplane::Outcome(first, Err(Refusal::UnknownInterface(name.clone()))));
        assert!(wire.requests().is_empty(), "nothing changed yet");
        shell.want_interface(spec);
        let [(interface, _)] = wire.requests().try_into().unwrap();
        shell.on_dataplane(FromDataplane::Outcome(interface, Ok(Done::Ok)));
        let [(second, again)] = wire.requests().try_into().unwrap();
        assert_eq!(format!("{again:?}"), format!("{command:?}"));
        shell.on_dataplane(FromDataplane::Outcome(second, Ok(Done::Ok)));
        assert!(wire.requests().is_empty());
    }

    #[tokio::test]
    async fn host_names_are_resolved_and_what_is_none_has_no_address() {
        assert!(addresses_of("localhost").await.iter().any(IpAddr::is_loopback));
        assert!(addresses_of("two words").await.is_empty());
    }
}
