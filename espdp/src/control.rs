//! The thread that carries out commands, one after the other.
//!
//! It makes interfaces and routes over rtnetlink, which may take a moment, and hands what concerns SAs to the worker. What it has
//! put into the kernel it remembers, and takes away at the end.

mod book;
mod devices;
mod host;
mod namespaces;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{Command, Direction, Done, EspSpi, Event, InterfaceName, InterfaceReport, InterfaceSpec, IpPrefix};
use espdp_api::{OutboundSaSpec, Outcome, OuterPath, PolicyId, PolicySpec, Refusal, RequestId};
use espdp_core::{Dataplane, InterfaceId};
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use tunnels::{Family, LinkWatch, Netlink, NetlinkError, NetworkState, NetworkWatch, preferred_source};

use crate::events::Events;
use crate::io::device::Device;
use crate::worker::{Mailbox, TunnelPortId, Worker, WorkerGone};
use crate::{DataplaneSettings, StartError};
use book::{Book, Interface, Outbound};
use devices::DeviceSource;
use host::Host;
pub(crate) use host::is_steering;
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
    mailbox: Mailbox,
    events: Events,
    book: Book,
    /// What we have put into the kernel.
    actual: NetworkState,
    /// The same for the namespaces of interfaces whose inside is not here.
    namespaces: Namespaces,
    /// What we keep in the host's own network stack.
    host: Host,
    /// When to look at the MTU of all paths again, after one was found narrow.
    paths_due: Option<Instant>,
    /// The sockets for tunnels that are open.
    tunnel_ports: BTreeSet<TunnelPortId>,
    /// When to tell the daemon that addresses or routes have changed.
    network_due: Option<Instant>,
}

impl Control {
    /// Finds the rules and blackholes of a predecessor that was killed or left them behind; its links and their routes went with
    /// it. They stay until the daemon says what there is to be.
    pub(crate) async fn start(
        settings: DataplaneSettings,
        families: Vec<Family>,
        mailbox: Mailbox,
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
            mailbox,
            events,
            book,
            actual,
            namespaces: Namespaces::default(),
            host,
            paths_due: None,
            tunnel_ports: BTreeSet::new(),
            network_due: Some(Instant::now()),
        })
    }

    async fn serve(mut self, inputs: Inputs) {
        let Inputs { mut requests, mut narrow_paths, mut lost_devices, mut stop } = inputs;
        loop {
            let paths_due = until(self.paths_due);
            let network_due = until(self.network_due);
            let lost_due = until(self.host.lost_due);
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
                () = network_due => {
                    self.network_due = None;
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
        self.host.stop(&self.netlink, self.book.host.as_ref()).await;
    }

    async fn execute(&mut self, command: Command) -> Outcome {
        match command {
            Command::ReserveSpi => self.reserve_spi().await,
            Command::ClaimSpi(spi) => self.in_core(move |core| core.claim_spi(spi)).await,
            Command::ReleaseSpi(spi) => self.in_core(move |core| core.release_spi(spi)).await,
            Command::InstallInbound(spec) => self.in_core(move |core| core.install_inbound(&spec)).await,
            Command::InstallOutbound(spec) => self.install_outbound(spec).await,
            Command::Activate { policy, spi } => self.in_core(move |core| core.activate(policy, spi)).await,
            Command::RemoveSa { direction, spi, policy } => self.remove_sa(direction, spi, policy).await,
            Command::MoveSa { direction, spi, policy, path } => self.move_sa(direction, spi, policy, path).await,
            Command::SetPolicy(spec) => self.set_policy(*spec).await,
            Command::RemovePolicy(id) => self.remove_policy(id).await,
            Command::SetInterface(spec) => match self.book.interfaces.get(&spec.name) {
                Some(_) => self.change_interface(spec).await,
                None => self.make_interface(spec).await,
            },
            Command::RemoveInterface(name) => self.remove_interface(&name).await,
            Command::SetBridge(spec) => self.in_core(move |core| core.set_bridge(&spec)).await,
            Command::RemoveBridge(name) => self.in_core(move |core| core.remove_bridge(&name)).await,
            Command::SetHost(spec) => self.set_host(*spec).await,
            Command::PlanHost(spec) => self.plan_host(*spec),
            Command::LocalAddress { remote } => {
                let path = self.netlink.path_to(remote, self.settings.mark).await.map_err(refusal)?;
                Ok(Done::LocalAddress(path.source))
            }
            Command::Statistics => self.statistics().await,
            Command::ReadMtus => Ok(Done::Mtus(self.book.mtu_reports())),
            Command::Trace { packets, filter } => {
                self.ask(move |worker| worker.core.trace(Instant::now(), packets, filter)).await?;
                Ok(Done::Ok)
            }
            Command::ReadTraces => self.ask(|worker| worker.core.traces().to_vec()).await.map(Done::Traces),
        }
    }

    /// Has something done by the worker's core that has nothing to tell.
    async fn in_core(&self, job: impl FnOnce(&mut Dataplane) -> Result<(), Refusal> + Send + 'static) -> Outcome {
        self.ask(move |worker| job(&mut worker.core)).await??;
        Ok(Done::Ok)
    }

    async fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut Worker) -> T + Send + 'static) -> Result<T, Refusal> {
        self.mailbox.call(job).await.map_err(|gone: WorkerGone| Refusal::System {
            operation: "hand the command to the worker".to_owned(),
            reason: gone.to_string(),
        })
    }

    async fn reserve_spi(&self) -> Outcome {
        let random = getrandom::u32().map_err(|error| system("get random octets", &error))?;
        let spi = self.ask(move |worker| worker.core.reserve_spi(random)).await??;
        Ok(Done::Spi(spi))
    }

    async fn install_outbound(&mut self, spec: Box<OutboundSaSpec>) -> Outcome {
        let key = (spec.sa.policy, spec.sa.spi);
        let outbound = Outbound::new(&spec);
        self.in_core(move |core| core.install_outbound(&spec)).await?;
        self.book.outbound.insert(key, outbound);
        self.refresh_path(outbound.path.remote).await;
        Ok(Done::Ok)
    }

    async fn remove_sa(&mut self, direction: Direction, spi: EspSpi, policy: PolicyId) -> Outcome {
        let statistics =
            self.ask(move |worker| worker.core.remove_sa(direction, spi, policy, Instant::now())).await??;
        if direction == Direction::Outbound {
            self.book.outbound.remove(&(policy, spi));
            self.refresh_mtus().await;
        }
        Ok(Done::Removed(Box::new(statistics)))
    }

    async fn move_sa(&mut self, direction: Direction, spi: EspSpi, policy: PolicyId, path: OuterPath) -> Outcome {
        self.in_core(move |core| core.move_sa(direction, spi, policy, path)).await?;
        if let (Direction::Outbound, Some(sa)) = (direction, self.book.outbound.get_mut(&(policy, spi))) {
            sa.move_to(path);
            self.refresh_path(path.remote).await;
        }
        Ok(Done::Ok)
    }

    /// The policy goes first: what its routes lead into the interface is then protected from the first packet on.
    async fn set_policy(&mut self, spec: PolicySpec) -> Outcome {
        if !self.book.interfaces.contains_key(&spec.interface) {
            return Err(Refusal::UnknownInterface(spec.interface));
        }
        let sources = self.sources(&spec).await.map_err(refusal)?;
        let (id, for_core) = (spec.id, spec.clone());
        self.in_core(move |core| core.set_policy(&for_core)).await?;
        let old = self.book.policies.insert(id, book::Policy { spec, sources });
        let Err(error) = self.apply().await else {
            self.guard_policies(old.as_ref().map(|old| &old.spec), id).await;
            return Ok(Done::Ok);
        };
        let undone = match old {
            Some(old) => {
                let for_core = old.spec.clone();
                self.book.policies.insert(id, old);
                self.in_core(move |core| core.set_policy(&for_core)).await
            }
            None => {
                self.book.policies.remove(&id);
                self.in_core(move |core| core.remove_policy(id)).await
            }
        };
        self.note_failure("undo a policy", undone.map(drop).err().map(|refusal| refusal.to_string()));
        let restored = self.apply().await;
        self.note_failure("undo a policy's routes", restored.err().map(|error| error.to_string()));
        Err(refusal(error))
    }

    async fn remove_policy(&mut self, id: PolicyId) -> Outcome {
        self.in_core(move |core| core.remove_policy(id)).await?;
        let removed = self.book.policies.remove(&id);
        self.book.outbound.retain(|(policy, _), _| *policy != id);
        self.apply().await.map_err(refusal)?;
        self.guard_policies(removed.as_ref().map(|removed| &removed.spec), id).await;
        self.refresh_mtus().await;
        Ok(Done::Ok)
    }

    async fn make_interface(&mut self, spec: InterfaceSpec) -> Outcome {
        let device = self.open_device(&spec)?;
        let name = spec.name.clone();
        let made = match self.tell_core(&spec).await {
            Ok(id) => {
                self.book.interfaces.insert(name.clone(), Interface::new(spec, id));
                self.put_into_service(id, device).await
            }
            Err(refusal) => Err(refusal),
        };
        if made.is_err() {
            self.forget_interface(&name);
            let undone = self.in_core(move |core| core.remove_interface(&name).map(drop)).await;
            self.note_failure("undo an interface", undone.err().map(|refusal| refusal.to_string()));
            let closed = self.serve_tunnels().await;
            self.note_failure("undo an interface", closed.err().map(|refusal| refusal.to_string()));
        }
        self.refresh_routed_paths().await;
        made.map(|()| Done::Ok)
    }

    /// Does what an interface needs outside of the core: links, routes, sockets, its device.
    async fn put_into_service(&mut self, id: InterfaceId, device: Option<Device>) -> Result<(), Refusal> {
        self.serve_tunnels().await?;
        self.apply().await.map_err(refusal)?;
        self.serve_device(id, device).await
    }

    /// Opens the sockets that interfaces need whose tunnels are in clear, and closes those that none needs any more.
    async fn serve_tunnels(&mut self) -> Result<(), Refusal> {
        let wanted: BTreeSet<_> = self.book.interfaces.values().flat_map(|own| TunnelPortId::of(&own.spec)).collect();
        if wanted == self.tunnel_ports {
            return Ok(());
        }
        let open = |id: &TunnelPortId| match id.open() {
            Ok(port) => Ok((*id, port)),
            Err(StartError::System { operation, source }) => Err(system(operation, &source)),
            Err(error) => Err(system("open a socket for a tunnel", &error)),
        };
        let opened = wanted.difference(&self.tunnel_ports).map(open).collect::<Result<Vec<_>, _>>()?;
        self.tunnel_ports = wanted.clone();
        let served = self.ask(move |worker| worker.set_tunnel_ports(&wanted, opened)).await?;
        served.map_err(|error| system("serve a socket for a tunnel", &error))
    }

    /// Hands the device of an interface to the worker.
    async fn serve_device(&self, id: InterfaceId, device: Option<Device>) -> Result<(), Refusal> {
        let Some(device) = device else { return Ok(()) };
        let added = self.ask(move |worker| worker.add_device(id, device)).await?;
        added.map_err(|error| system("serve a device", &error))
    }

    async fn change_interface(&mut self, spec: InterfaceSpec) -> Outcome {
        let Some(old) = self.book.interfaces.get(&spec.name).cloned() else {
            return Err(Refusal::UnknownInterface(spec.name));
        };
        let mut new = old.clone();
        new.change(spec);
        if let Err(refused) = self.take_over(&old, &new).await {
            let restored = self.take_over(&new, &old).await;
            self.note_failure("undo a change of an interface", restored.err().map(|error| error.to_string()));
            return Err(refused);
        }
        self.refresh_routed_paths().await;
        Ok(Done::Ok)
    }

    /// Makes an interface what `new` says; another device than before takes the place of the old one.
    async fn take_over(&mut self, old: &Interface, new: &Interface) -> Result<(), Refusal> {
        let (name, id) = (new.spec.name.clone(), new.id);
        self.tell_core(&new.spec).await?;
        let mut device = None;
        if DeviceSource::of(&new.spec) != DeviceSource::of(&old.spec) || new.spec.netns != old.spec.netns {
            self.ask(move |worker| worker.remove_device(id)).await?;
            self.forget_link(&old.spec);
            device = self.open_device(&new.spec)?;
        }
        self.book.interfaces.insert(name, new.clone());
        self.put_into_service(id, device).await
    }

    /// Opens the device of an interface, in its namespace if it has one.
    fn open_device(&mut self, spec: &InterfaceSpec) -> Result<Option<Device>, Refusal> {
        let (source, name) = (DeviceSource::of(spec), spec.name.clone());
        let opened = match &spec.netns {
            None => source.open(&name),
            Some(netns) => {
                let opened = self.namespaces.enter(netns)?.run(move || source.open(&name));
                opened.map_err(|error| system(format!("enter the network namespace {netns}"), &error))?
            }
        };
        opened.map_err(|error| system(error.operation(), &error.source))
    }

    /// Forgets a link whose device is closed.
    fn forget_link(&mut self, spec: &InterfaceSpec) {
        match &spec.netns {
            None => self.actual.forget_link(&spec.name),
            Some(netns) => self.namespaces.forget_link(netns, &spec.name),
        }
    }

    /// Takes an interface out of the book, and lets go of its namespace if it was the last one there.
    fn forget_interface(&mut self, name: &InterfaceName) {
        if let Some(gone) = self.book.interfaces.remove(name) {
            self.forget_link(&gone.spec);
        }
        self.namespaces.keep(&self.book.namespaces());
    }

    /// Tells the core the kind of an interface, its tunnel, and its place in a bridge domain.
    async fn tell_core(&self, spec: &InterfaceSpec) -> Result<InterfaceId, Refusal> {
        let spec = spec.clone();
        self.ask(move |worker| {
            let id = worker.core.set_interface(&spec.name, spec.kind)?;
            worker.core.set_tunnel(&spec)?;
            worker.core.set_bridge_port(&spec.name, spec.bridge.as_ref())?;
            Ok(id)
        })
        .await?
    }

    async fn remove_interface(&mut self, name: &InterfaceName) -> Outcome {
        let for_core = name.clone();
        let id = self.ask(move |worker| worker.core.remove_interface(&for_core)).await??;
        let spec = self.book.interfaces.remove(name).map(|gone| gone.spec);
        let withdrawn = self.apply().await;
        spec.iter().for_each(|spec| self.forget_link(spec));
        self.namespaces.keep(&self.book.namespaces());
        self.ask(move |worker| worker.remove_device(id)).await?;
        self.serve_tunnels().await?;
        withdrawn.map_err(refusal)?;
        Ok(Done::Ok)
    }

    async fn statistics(&self) -> Outcome {
        let interfaces: Vec<_> =
            self.book.interfaces.values().map(|own| (own.id, own.spec.name.clone(), own.mtu)).collect();
        self.ask(move |worker| {
            let report = |(id, name, mtu)| {
                let counters = worker.core.interface_counters(id);
                InterfaceReport {
                    name,
                    mtu,
                    packets_out: counters.packets_out,
                    bytes_out: counters.bytes_out,
                    packets_in: counters.packets_in,
                    bytes_in: counters.bytes_in,
                }
            };
            let interfaces = interfaces.into_iter().map(report).collect();
            Done::Statistics { sas: worker.core.statistics(Instant::now()), interfaces, drops: worker.drops() }
        })
        .await
    }

    async fn apply(&mut self) -> Result<(), NetlinkError> {
        self.netlink.apply(&mut self.actual, &self.book.desired()).await?;
        self.namespaces.apply(|netns| self.book.desired_in(netns)).await
    }

    /// Puts back what the kernel took when somebody set a link of ours down: routes, and IPv6 addresses.
    async fn restore_link(&mut self, name: &InterfaceName) {
        // A route that was asked for may have waited for just this link, or have gone with it.
        self.host_link_is_up(name).await;
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
        let addresses: Vec<IpAddr> = addresses.into_iter().map(|address| address.address).collect();
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
        let news = self.book.paths_to_tell();
        if !news.is_empty() {
            self.mailbox.post(move |worker| {
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

fn refusal(error: NetlinkError) -> Refusal {
    system(error.operation, &error.source)
}
