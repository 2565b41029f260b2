//! The thread that carries out commands, one after the other.
//!
//! It makes interfaces and routes over rtnetlink, which may take a moment, and hands what concerns SAs to the worker. What it has
//! put into the kernel it remembers, and takes away at the end.

mod book;
mod devices;
mod host;
mod interfaces;
mod links;
mod namespaces;
mod policies;
mod sas;
mod statistics;
mod whatif;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{
    Command, Done, EspSpi, Event, InterfaceName, IpPrefix, Outcome, PolicySpec, Refusal, RequestId, WorkerId,
};
use espdp_core::{Dataplane, InterfaceId};
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use tunnels::{Family, LinkWatch, Netlink, NetlinkError, NetworkState, NetworkWatch, preferred_source};

use crate::events::Events;
use crate::worker::{Mailboxes, TunnelPortId, Worker, WorkerGone};
use crate::{DataplaneSettings, StartError};
use book::Book;
use host::Host;
pub(crate) use host::is_steering;
use links::Links;
use namespaces::Namespaces;

/// A command on its way.
#[derive(Debug)]
pub(crate) enum Request {
    /// It is to be carried out here.
    Todo { id: RequestId, command: Command },
    /// The worker has carried it out, and must not wait for room to say so.
    Done { id: RequestId, outcome: Outcome },
}

/// What the control thread waits for.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    /// Peers to which the path is narrower than thought.
    pub(crate) narrow_paths: mpsc::Receiver<IpAddr>,
    /// Devices that give no packets any more.
    pub(crate) lost_devices: mpsc::UnboundedReceiver<InterfaceId>,
    /// Closed when all is to end.
    pub(crate) stop: oneshot::Receiver<()>,
}

/// Runs the control thread: starts a [`Control`], says how that went, and serves `inputs` until they say stop.
pub(crate) fn run<S: Future<Output = Result<Control, StartError>>>(
    started: &std::sync::mpsc::Sender<Result<(), StartError>>,
    inputs: Inputs,
    start: impl FnOnce() -> S,
) {
    let report = |result| {
        if started.send(result).is_err() {
            tracing::error!("nobody waits for the dataplane to start");
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            return report(Err(StartError::System { operation: "start the control thread".to_owned(), source }));
        }
    };
    runtime.block_on(async {
        match start().await {
            Ok(control) => {
                report(Ok(()));
                control.serve(inputs).await;
            }
            Err(error) => report(Err(error)),
        }
    });
}

/// What the control thread knows.
#[derive(Debug)]
pub(crate) struct Control {
    settings: DataplaneSettings,
    netlink: Netlink,
    link_watch: LinkWatch,
    network_watch: NetworkWatch,
    mailboxes: Mailboxes,
    events: Events,
    book: Book,
    /// What we have put into the kernel.
    actual: NetworkState,
    /// The same for the namespaces of interfaces whose inside is not here.
    namespaces: Namespaces,
    /// What we keep in the host's own network stack.
    host: Host,
    /// Links that are read past the host's stack.
    links: Links,
    /// When to look at the MTU of all paths again, after one was found narrow.
    paths_due: Option<Instant>,
    /// The sockets for tunnels that are open.
    tunnel_ports: BTreeSet<TunnelPortId>,
    /// When to tell the daemon that addresses or routes have changed.
    network_due: Option<Instant>,
    /// The worker that got an SA last whose place was free to choose.
    last_chosen: WorkerId,
    /// How many packets are traced.
    traced: usize,
}

impl Control {
    /// Finds the rules and blackholes of a predecessor that was killed or left them behind; its links and their routes went with
    /// it. They stay until the daemon says what there is to be.
    pub(crate) async fn start(
        settings: DataplaneSettings,
        families: Vec<Family>,
        mailboxes: Mailboxes,
        events: Events,
    ) -> Result<Self, StartError> {
        let mut actual = NetworkState::default();
        let mut book = Book::new(&settings);
        let netlink = Netlink::open()?;
        let link_watch = LinkWatch::open()?;
        let network_watch = NetworkWatch::open(book.longest_match.tables())?;
        let host = Host::start(&netlink, &settings, &families).await?;
        for family in families {
            let rules = netlink.rules(family).await?;
            actual.rules.extend(rules.into_iter().filter(|rule| book.longest_match.owns(rule)));
            let blackholes = netlink.blackholes(family).await?;
            actual.blackholes.extend(blackholes.into_iter().filter(|key| book.longest_match.owns_blackhole(key)));
        }
        book.inherited = actual.clone();
        Ok(Self {
            settings,
            netlink,
            link_watch,
            network_watch,
            mailboxes,
            events,
            book,
            actual,
            namespaces: Namespaces::default(),
            host,
            links: Links::default(),
            paths_due: None,
            tunnel_ports: BTreeSet::new(),
            network_due: Some(Instant::now()),
            last_chosen: WorkerId::FIRST,
            traced: 0,
        })
    }

    async fn serve(mut self, inputs: Inputs) {
        let Inputs { mut requests, mut narrow_paths, mut lost_devices, mut stop } = inputs;
        loop {
            let paths_due = until(self.paths_due);
            let network_due = until(self.network_due);
            let lost_due = until(self.host.lost_due);
            let links_due = until(self.links.due);
            tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(peer) = narrow_paths.recv() => {
                    tracing::debug!(%peer, "a packet was too long for the path");
                    self.refresh_path(peer).await;
                    self.paths_due = Some(Instant::now() + PATH_MTU_LIFE);
                }
                Some(id) = lost_devices.recv() => self.restore_device(id).await,
                () = lost_due => self.restore_lost_devices().await,
                Some(name) = self.link_watch.next_set_up() => self.restore_link(&name).await,
                Some(()) = self.network_watch.next_change() => {
                    self.network_due.get_or_insert_with(|| Instant::now() + NETWORK_SETTLES);
                }
                Some(neighbour) = self.links.next_neighbour() => self.tell_neighbour(neighbour),
                () = links_due => self.take_from_links().await,
                () = network_due => {
                    self.network_due = None;
                    self.links.look();
                    self.report_network().await;
                }
                request = requests.recv() => {
                    let (id, outcome) = match request {
                        Some(Request::Todo { id, command }) => (id, self.execute(command).await),
                        Some(Request::Done { id, outcome }) => (id, outcome),
                        None => break,
                    };
                    tokio::select! {
                        () = self.events.outcome(id, outcome) => {}
                        _ = &mut stop => break,
                    }
                }
                () = paths_due => {
                    self.paths_due = None;
                    for peer in self.book.peers() {
                        self.refresh_path(peer).await;
                    }
                    self.refresh_routed_paths().await;
                }
            }
        }
        self.netlink.clear(&mut self.actual, &self.book.kept()).await;
        self.host.stop(&self.netlink, self.book.host.as_ref(), self.links.need_table()).await;
    }

    async fn execute(&mut self, command: Command) -> Outcome {
        match command {
            Command::ReserveSpi(wish) => self.reserve_spi(&wish).await,
            Command::ClaimSpi(spi) => self.in_core_of(spi, move |core| core.claim_spi(spi)).await,
            Command::ReleaseSpi(spi) => self.in_core_of(spi, move |core| core.release_spi(spi)).await,
            Command::InstallInbound(spec) => self.install_inbound(spec).await,
            Command::InstallOutbound(spec) => self.install_outbound(spec).await,
            Command::Activate { policy, spi } => self.activate(policy, spi).await,
            Command::RemoveSa { direction, spi, policy } => self.remove_sa(direction, spi, policy).await,
            Command::MoveSa { direction, spi, policy, path } => self.move_sa(direction, spi, policy, path).await,
            Command::SetPolicy(spec) => self.set_policy(*spec).await,
            Command::RemovePolicy(id) => self.remove_policy(id).await,
            Command::SetInterface(spec) => match self.book.interfaces.get(&spec.name) {
                Some(_) => self.change_interface(*spec).await,
                None => self.make_interface(*spec).await,
            },
            Command::RemoveInterface(name) => self.remove_interface(&name).await,
            Command::SetBridge(spec) => self.in_cores(move |core| core.set_bridge(&spec)).await,
            Command::RemoveBridge(name) => self.in_cores(move |core| core.remove_bridge(&name)).await,
            Command::SetHost(spec) => self.set_host(*spec).await,
            Command::PlanHost(spec) => self.plan_host(*spec),
            Command::LocalAddress { remote } => {
                let path = self.netlink.path_to(remote, self.settings.mark).await.map_err(refusal)?;
                Ok(Done::LocalAddress(path.source))
            }
            Command::Statistics => self.statistics().await,
            Command::ReadMtus => Ok(Done::Mtus(self.book.mtu_reports())),
            Command::Trace { packets, filter } => self.trace(packets, filter).await,
            Command::ReadTraces => self.read_traces().await,
            Command::WhatIf(question) => self.what_if(*question).await,
        }
    }

    /// Has something done by the core of the worker that an inbound SPI belongs to.
    async fn in_core_of(
        &self,
        spi: EspSpi,
        job: impl FnOnce(&mut Dataplane) -> Result<(), Refusal> + Send + 'static,
    ) -> Outcome {
        self.in_core(self.settings.workers.of_spi(spi.value()), job).await
    }

    /// Has something done by a worker's core that has nothing to tell.
    async fn in_core(
        &self,
        worker: WorkerId,
        job: impl FnOnce(&mut Dataplane) -> Result<(), Refusal> + Send + 'static,
    ) -> Outcome {
        self.ask(worker, move |worker| job(&mut worker.core)).await??;
        Ok(Done::Ok)
    }

    /// Has the same done by the cores of all workers. They have the same interfaces, policies and bridge domains, and so agree: when
    /// the first one refuses, nothing has changed.
    async fn in_cores(&self, job: impl Fn(&mut Dataplane) -> Result<(), Refusal> + Clone + Send + 'static) -> Outcome {
        for worker in self.settings.workers.ids() {
            let job = job.clone();
            self.in_core(worker, move |core| job(core)).await?;
        }
        Ok(Done::Ok)
    }

    async fn ask<T: Send + 'static>(
        &self,
        worker: WorkerId,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.mailboxes.call(worker, job).await.map_err(gone)
    }

    /// What each of the workers says, in order.
    async fn ask_all<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Worker) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, Refusal> {
        let mut answers = Vec::new();
        for worker in self.settings.workers.ids() {
            let job = job.clone();
            answers.push(self.ask(worker, move |worker| job(worker)).await?);
        }
        Ok(answers)
    }

    async fn apply(&mut self) -> Result<(), NetlinkError> {
        self.netlink.apply(&mut self.actual, &self.book.desired()).await?;
        self.namespaces.apply(|netns| self.book.desired_in(netns)).await
    }

    /// Puts back what the kernel took when somebody set a link of ours down: routes, and IPv6 addresses.
    async fn restore_link(&mut self, name: &InterfaceName) {
        // A route that was asked for may have waited for just this link, or have gone with it.
        self.host_link_is_up(name).await;
        self.open_link(name).await;
        self.open_link(name).await;
        // Somebody may have deleted it since; then there is nothing to restore.
        if !self.actual.links.contains_key(name) || self.netlink.link_index(name).await.is_err() {
            return;
        }
        self.actual.forget_link(name);
        let restored = self.apply().await;
        self.note_failure("restore the routes of an interface", restored.err().map(|error| error.to_string()));
    }

    /// The preferred source of each of the policy's routes. Addresses of the interface itself come first.
    async fn sources(&self, spec: &PolicySpec) -> Result<BTreeMap<IpPrefix, IpAddr>, NetlinkError> {
        if spec.routes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let netns = self.book.interfaces.get(&spec.interface).and_then(|own| own.spec.netns.as_deref());
        let netlink = netns.and_then(|netns| self.namespaces.netlink(netns)).unwrap_or(&self.netlink);
        let own_link = netlink.link_index(&spec.interface).await?;
        let mut addresses = netlink.local_addresses().await?;
        addresses.sort_by_key(|address| address.link != own_link);
        // The virtual ones come with the policy.
        let known = addresses.into_iter().map(|address| address.address);
        let addresses: Vec<IpAddr> = spec.addresses.iter().copied().chain(known).collect();
        let source =
            |route: &IpPrefix| Some((*route, preferred_source(*route, &spec.local, &spec.remote, &addresses)?));
        Ok(spec.routes.iter().filter_map(source).collect())
    }

    /// Tells the daemon which addresses the host has now, beside those of our own interfaces.
    async fn report_network(&mut self) {
        let addresses = match self.addresses_of_others().await {
            Ok(addresses) => addresses,
            Err(error) => return self.note_failure("look at the addresses of the host", Some(error.to_string())),
        };
        if !self.events.event(Event::NetworkChanged { addresses }) {
            // The daemon is busy; it must learn of this, though.
            self.network_due = Some(Instant::now() + NETWORK_SETTLES);
        }
    }

    async fn addresses_of_others(&self) -> Result<Vec<IpAddr>, NetlinkError> {
        let mut own = Vec::new();
        for name in self.actual.links.keys() {
            // Somebody may have deleted it.
            own.extend(self.netlink.link_index(name).await.ok());
        }
        let addresses = self.netlink.local_addresses().await?;
        Ok(addresses.into_iter().filter(|at| !own.contains(&at.link)).map(|at| at.address).collect())
    }

    /// Asks for the MTUs of the paths that tunnels in clear take, and sets what follows from them.
    async fn refresh_routed_paths(&mut self) {
        for peer in self.book.routed_peers() {
            match self.netlink.path_to(peer, 0).await {
                Ok(path) => self.book.set_routed_mtu(peer, path.mtu),
                Err(error) => tracing::debug!(%error, "the MTU of a tunnel's path is not known"),
            }
        }
        self.refresh_mtus().await;
    }

    /// Asks for the MTU of the path to a peer, and sets what follows from it.
    async fn refresh_path(&mut self, peer: IpAddr) {
        if self.book.routed_peers().contains(&peer) {
            self.refresh_routed_paths().await;
        }
        match self.netlink.path_to(peer, self.settings.mark).await {
            Ok(path) => self.book.set_path(peer, path),
            Err(error) => tracing::debug!(%error, "the MTU of a path is not known"),
        }
        self.refresh_mtus().await;
    }

    /// Sets the MTUs that follow from SAs and paths. It is no reason to refuse a command when that fails.
    async fn refresh_mtus(&mut self) {
        self.book.set_mtus();
        for (worker, news) in self.book.paths_to_tell() {
            self.mailboxes.post(worker, move |worker| {
                for (policy, spi, octets) in news {
                    if let Err(refusal) = worker.core.set_path_mtu(policy, spi, octets) {
                        tracing::debug!(%refusal, "an SA is gone before its path was known");
                    }
                }
            });
        }
        let applied = self.apply().await;
        self.note_failure("set an MTU", applied.err().map(|error| error.to_string()));
    }

    fn note_failure(&self, what: &str, error: Option<String>) {
        if let Some(error) = error {
            tracing::warn!(error, "could not {what}");
        }
    }
}

/// Waits until then; for ever when there is no such time.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// A change of the network comes in many pieces: a link goes, its addresses, their routes. This long after the first one
/// the daemon learns of all.
const NETWORK_SETTLES: Duration = Duration::from_millis(100);

/// How long the kernel believes in a path MTU (RFC 1191 §6.3: ten minutes), and a little more, so that we ask after that
/// (R4301-8.2.2-1).
const PATH_MTU_LIFE: Duration = Duration::from_secs(605);

fn system(operation: impl Into<String>, error: &dyn std::error::Error) -> Refusal {
    Refusal::System { operation: operation.into(), reason: error.to_string() }
}

fn gone(error: WorkerGone) -> Refusal {
    system("hand the command to the worker", &error)
}

fn refusal(error: NetlinkError) -> Refusal {
    system(error.operation, &error.source)
}
