//! Two daemons and the wire between them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use espdp_api::{
    Command, Direction, Done, EspSpi, Event, FromDataplane, IkePath, Outcome, SaSpec, SaStatistics, ToDataplane,
};
use ike_proto::{Engine, Settings};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::daemon::keylog::KeyLog;
use crate::daemon::random::OsRandom;
use crate::daemon::service::{Daemon, Files};
use crate::daemon::shell::{Ending, Handle, Port, Shell};
use crate::vici::{Access, Client, Message, Server};

/// Whether a message on this path gets lost.
type Lost = Box<dyn FnMut(IkePath, &[u8]) -> bool + Send>;

/// `moon` (192.0.2.1) and `sun` (192.0.2.2).
pub(crate) struct Pair {
    pub(crate) moon: Running,
    pub(crate) sun: Running,
    lost: Arc<Mutex<Lost>>,
}

/// A daemon that runs.
pub(crate) struct Running {
    pub(crate) socket: PathBuf,
    /// Where `ipsec.toml` and `ipsec.secrets.toml` are read when somebody reloads.
    pub(crate) folder: tempfile::TempDir,
    handle: Handle,
    shell: JoinHandle<(Ending, Box<dyn Port>)>,
    server: JoinHandle<()>,
}

/// A dataplane that does nothing but say yes, and carries datagrams to the other one.
struct Wire {
    address: std::net::IpAddr,
    own: mpsc::Sender<FromDataplane>,
    other: mpsc::Sender<FromDataplane>,
    lost: Arc<Mutex<Lost>>,
    sas: Mutex<BTreeMap<(Direction, EspSpi), SaStatistics>>,
    last_spi: Mutex<u32>,
}

impl Pair {
    /// Both with the connection `gw`, its child `net` and the key for it, told over the socket.
    pub(crate) async fn start() -> Self {
        let pair = Self::bare();
        load_connection(&mut pair.moon.client(), "moon", "sun");
        load_connection(&mut pair.sun.client(), "sun", "moon");
        load_secret(&mut pair.moon.client(), "Vpp123");
        load_secret(&mut pair.sun.client(), "Vpp123");
        pair
    }

    /// Both without connections.
    pub(crate) fn bare() -> Self {
        let nothing: Lost = Box::new(|_, _| false);
        let lost = Arc::new(Mutex::new(nothing));
        let (moon, from_moon) = mpsc::channel(1024);
        let (sun, from_sun) = mpsc::channel(1024);
        let wire = |last: u8, own: &mpsc::Sender<_>, other: &mpsc::Sender<_>| Wire {
            address: [192, 0, 2, last].into(),
            own: own.clone(),
            other: other.clone(),
            lost: Arc::clone(&lost),
            sas: Mutex::default(),
            last_spi: Mutex::new(u32::from(last) << 16),
        };
        Self {
            moon: Running::start(wire(1, &moon, &sun), from_moon),
            sun: Running::start(wire(2, &sun, &moon), from_sun),
            lost,
        }
    }

    /// From now on every datagram is lost.
    pub(crate) fn cut(&self) {
        self.lose(|_, _| true);
    }

    /// From now on those messages are lost of which `lost` says so; it sees all of them.
    pub(crate) fn lose(&self, lost: impl FnMut(IkePath, &[u8]) -> bool + Send + 'static) {
        *self.lost.lock().unwrap() = Box::new(lost);
    }
}

impl Running {
    fn start(wire: Wire, from_dataplane: mpsc::Receiver<FromDataplane>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyLog::open(&folder.path().join("keys")).unwrap();
        let engine = Engine::new(Settings { export_keys: true, ..Settings::default() }, Box::new(OsRandom));
        let (shell, inputs, handle) = Shell::new(engine, Box::new(wire), from_dataplane, Some(keys));
        let socket = folder.path().join("vici");
        let server = Server::bind(&Access { path: socket.clone(), group: None }).unwrap();
        let started = (SystemTime::now(), Instant::now());
        let files = Files { config: folder.path().join("ipsec.toml"), secrets: None };
        let daemon = Daemon { handle: handle.clone(), files, startup: None, started };
        Self {
            socket,
            handle,
            shell: tokio::spawn(shell.run(inputs)),
            server: tokio::spawn(server.serve(Arc::new(daemon))),
            folder,
        }
    }

    /// A new client. It blocks, so tests that use it need more than one thread.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }

    /// Ends the daemon as SIGTERM does.
    pub(crate) async fn shut_down(self) {
        self.handle.ask(|shell| shell.shut_down(Duration::from_secs(3))).await.unwrap();
        let (ending, _) = self.shell.await.unwrap();
        assert_eq!(ending, Ending::Orderly);
        self.server.abort();
    }
}

impl Port for Wire {
    fn send(&self, message: ToDataplane) {
        match message {
            ToDataplane::Request(id, command) => {
                self.own.try_send(FromDataplane::Outcome(id, self.carry_out(command))).unwrap();
            }
            ToDataplane::SendIke { path, message } if !(*self.lost.lock().unwrap())(path, &message) => {
                let path = IkePath { local: path.remote, remote: path.local };
                // The other daemon may have ended.
                drop(self.other.try_send(FromDataplane::Event(Event::Ike { path, message })));
            }
            ToDataplane::SendIke { .. } | ToDataplane::SendKeepalive { .. } => {}
        }
    }
}

impl Wire {
    fn carry_out(&self, command: Command) -> Outcome {
        Ok(match command {
            Command::ReserveSpi(_) => {
                let mut last = self.last_spi.lock().unwrap();
                *last += 1;
                Done::Spi(EspSpi::try_from(*last).unwrap())
            }
            Command::InstallInbound(spec) => self.install(Direction::Inbound, &spec.sa),
            Command::InstallOutbound(spec) => self.install(Direction::Outbound, &spec.sa),
            Command::RemoveSa { direction, spi, .. } => {
                let gone = self.sas.lock().unwrap().remove(&(direction, spi));
                Done::Removed(Box::new(gone.expect("only what was installed is removed")))
            }
            Command::LocalAddress { .. } => Done::LocalAddress(self.address),
            Command::Statistics => {
                let sas = self.sas.lock().unwrap().values().cloned().collect();
                Done::Statistics { sas, interfaces: Vec::new(), drops: Vec::new() }
            }
            Command::ReadTraces => Done::Traces(Vec::new()),
            Command::ReadMtus => Done::Mtus(Vec::new()),
            Command::WhatIf(_) => Done::WhatIf(Box::default()),
            Command::ClaimSpi(_)
            | Command::Trace { .. }
            | Command::ReleaseSpi(_)
            | Command::Activate { .. }
            | Command::MoveSa { .. }
            | Command::SetHost(_)
            | Command::PlanHost(_)
            | Command::SetPolicy(_)
            | Command::RemovePolicy(_)
            | Command::SetInterface(_)
            | Command::RemoveInterface(_)
            | Command::SetBridge(_)
            | Command::RemoveBridge(_) => Done::Ok,
        })
    }

    fn install(&self, direction: Direction, sa: &SaSpec) -> Done {
        let statistics = SaStatistics {
            spi: sa.spi,
            direction,
            bytes: 1000,
            packets: 10,
            idle_seconds: Some(1),
            sequence: 10,
            drops: Vec::new(),
        };
        self.sas.lock().unwrap().insert((direction, sa.spi), statistics);
        Done::Ok
    }
}

/// Loads the connection `gw` with the child `net`, as `swanctl --load-conns` does.
pub(crate) fn load_connection(client: &mut Client, own: &str, peer: &str) {
    let auth = |name: &str| Message::new().with("auth", "psk").with("id", format!("{name}.strongswan.org"));
    load_rounds(client, own, peer, [("local", auth(own)), ("remote", auth(peer))]);
}

/// Loads the connection with these rounds of authentication.
pub(crate) fn load_rounds<'a>(
    client: &mut Client,
    own: &str,
    peer: &str,
    rounds: impl IntoIterator<Item = (&'a str, Message)>,
) {
    let number = |name: &str| if name == "moon" { 1 } else { 2 };
    let mut child = Message::new();
    child.put_list("local_ts", [format!("10.{}.0.0/24", number(own))]);
    child.put_list("remote_ts", [format!("10.{}.0.0/24", number(peer))]);
    child.put_list("esp_proposals", ["aes256gcm16-noesn"]);
    let mut section = Message::new();
    section.put_list("local_addrs", [format!("192.0.2.{}", number(own))]);
    section.put_list("remote_addrs", [format!("192.0.2.{}", number(peer))]);
    section.put_list("proposals", ["aes256gcm16-prfsha256-x25519"]);
    rounds.into_iter().for_each(|(name, round)| section.put_section(name, round));
    section.put_section("children", Message::new().with_section("net", child));
    let answer = client.request("load-conn", Message::new().with_section("gw", section)).unwrap();
    assert!(answer.is_yes("success"), "{answer}");
}

/// Loads the one pre-shared key.
pub(crate) fn load_secret(client: &mut Client, secret: &str) {
    let mut message = Message::new().with("id", "ike-1").with("type", "IKE").with("data", secret);
    message.put_list("owners", ["moon.strongswan.org", "sun.strongswan.org"]);
    assert!(client.request("load-shared", message).unwrap().is_yes("success"));
}

/// Brings a child up and gives the answer and the lines of the log.
pub(crate) fn initiate(client: &mut Client, child: &str) -> (Message, Vec<String>) {
    let mut log = Vec::new();
    let arguments = Message::new().with("child", child).with("timeout", 20_000);
    let answer = client
        .stream("control-log", "initiate", arguments, |line| log.push(line.text("msg").unwrap().to_owned()))
        .unwrap();
    (answer, log)
}

/// The sections that a command streams as events.
pub(crate) fn list(client: &mut Client, event: &str, command: &str) -> Vec<(String, Message)> {
    let mut sections = Vec::new();
    client
        .stream(event, command, Message::new(), |event| {
            sections.extend(event.sections().map(|(name, section)| (name.to_owned(), section.clone())));
        })
        .unwrap();
    sections
}

/// Asks until the answer is yes; every question is a round trip to a daemon.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it does not happen");
    }
}
