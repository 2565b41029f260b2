//! The daemon: a shell around the engine that moves datagrams, time and commands.
//!
//! | module | what lives there |
//! |---|---|
//! | `shell` | the one task that owns the engine |
//! | `applied` | what the daemon was told, and what a reload changes |
//! | `manual` | policies and SAs that nobody negotiates |
//! | `host` | what the host's own network stack is told |
//! | `service`, `commands` | the control socket's commands |
//! | `report`, `events`, `phrases` | SAs, events and log lines as people and programs see them |
//! | `outbox` | events that wait for an SA's last counters |
//! | `journal`, `counters` | what happened so far |
//! | `dashboard`, `web` | the page to look at, and the server of it and of the metrics |
//! | `metrics` | the same, and what is, for Prometheus |
//! | `hooks` | programs that are run when SAs come and go |
//! | `trace`, `logs` | what happened, in the daemon's own log, and how that looks |
//! | `keylog` | keys for Wireshark |
//! | `capture` | packets for Wireshark |
//! | `random`, `notify` | the operating system's randomness, the service manager's socket |

mod applied;
pub(crate) mod capture;
mod commands;
mod counters;
mod dashboard;
mod events;
mod explain;
mod hooks;
mod host;
mod journal;
pub(crate) mod keylog;
mod logs;
mod manual;
mod metrics;
mod notify;
mod outbox;
mod phrases;
mod random;
mod report;
mod service;
mod shell;
mod stories;
#[cfg(test)]
mod testing;
#[cfg(test)]
pub(crate) mod tests;
mod trace;
mod web;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use espdp::{CryptoReport, Dataplane, DataplaneSettings};
use espdp_api::CryptoEngine;
use ike_proto::{Engine, Settings};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use self::applied::Wanted;
use self::hooks::{HookEnd, Hooks, Runner};
use self::keylog::KeyLog;
use self::logs::Logs;
use self::random::OsRandom;
use self::service::Daemon;
pub(crate) use self::service::Files;
use self::shell::{Ending, Handle, Port, Shell};
use crate::config::{DaemonConfig, Loaded};
use crate::vici::{Access, Server};

/// The configuration file when none is named.
pub const DEFAULT_CONFIG: &str = "/etc/charon-rs/ipsec.toml";

/// The control socket when none is named.
pub const DEFAULT_SOCKET: &str = "/run/charon-rs.vici";

/// The control socket when the service manager starts the daemon, whose user cannot write to `/run` itself.
pub const SERVICE_SOCKET: &str = "/run/charon-rs/vici";

/// The folder of fetched CRLs when none is named.
pub const DEFAULT_CACHE: &str = "/var/lib/charon-rs";

/// Peers that do not answer our deletes are not waited for longer than this.
const GRACE: Duration = Duration::from_secs(3);

/// The dataplane takes interfaces and routes away within this, or is left to the kernel's clean-up.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// When the daemon stops, the last hooks may take this long.
const HOOK_DEADLINE: Duration = Duration::from_secs(3);

/// The command line of `charon-rs`.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "charon-rs", version, about = "IKEv2 daemon with a userspace ESP dataplane")]
pub struct Options {
    /// Configuration file [default: /etc/charon-rs/ipsec.toml if it is there, else none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File with secrets [default: ipsec.secrets.toml beside the configuration file]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// Control socket (VICI) [default: the configuration's, else /run/charon-rs.vici]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Group, by number, that may use the control socket besides the owner
    #[arg(long, value_name = "GID")]
    pub socket_group: Option<u32>,
    /// What to log, as in `info` or `info,ike_proto=debug` [default: RUST_LOG, the configuration's, `info`]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot start, or the dataplane failed while it ran.
pub fn run(options: Options) -> anyhow::Result<()> {
    // Sockets and key files are for the owner alone from the moment they exist.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let files = files(&options);
    // The file that was named must be there, the default one need not.
    let loaded = (options.config.is_some() || files.config.exists()).then(|| files.load()).transpose();
    let loaded = loaded.map_err(|problems| anyhow!("the configuration cannot be used\n{problems}"))?;
    let logs = start_log(&options, loaded.as_ref().map(|loaded| &loaded.daemon))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    run_to_the_end(runtime, serve(options, files, loaded, logs))
}

/// Runs `main` and leaves behind what still blocks then, a look-up of a host name for example: a runtime that is just dropped
/// waits for it, however long it takes.
fn run_to_the_end<T>(runtime: Runtime, main: impl Future<Output = T>) -> T {
    let result = runtime.block_on(main);
    runtime.shutdown_background();
    result
}

/// Which files are read, now and by a reload.
fn files(options: &Options) -> Files {
    let config = options.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    Files { config, secrets: options.secrets.clone() }
}

fn start_log(options: &Options, daemon: Option<&DaemonConfig>) -> anyhow::Result<Logs> {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let configured = daemon.and_then(|daemon| daemon.log.clone());
    let filter = options.log.clone().or(environment).or(configured).unwrap_or_else(|| "info".to_owned());
    Logs::start(&filter, daemon.map(|daemon| daemon.log_format).unwrap_or_default())
}

async fn serve(options: Options, files: Files, loaded: Option<Loaded>, logs: Logs) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("signals cannot be received")?;
    let settings = loaded.as_ref().map_or_else(Settings::default, |loaded| loaded.daemon.settings.clone());
    let crypto_engine = loaded.as_ref().map_or_else(CryptoEngine::default, |loaded| loaded.daemon.crypto_engine);
    let keys = open_keylog(loaded.as_ref().map(|loaded| &loaded.daemon))?;
    let (dataplane, from_dataplane) = start_dataplane(&settings, crypto_engine)?;
    let engine = Engine::new(settings, Box::new(OsRandom));
    let (mut shell, inputs, handle) = Shell::new(engine, Box::new(dataplane), from_dataplane, keys);
    shell.logs = logs;
    let startup = loaded.as_ref().map(|loaded| loaded.daemon.clone());
    let fetching = startup.clone().unwrap_or_default();
    let (runner, hooks) = Runner::start(fetching.hooks.limit);
    shell.hooks = Some(Hooks::new(fetching.hooks.program.clone(), runner));
    shell
        .desk
        .set_fetching(fetching.fetching, Some(fetching.cache_folder.as_deref().unwrap_or(Path::new(DEFAULT_CACHE))));
    if let Some(loaded) = loaded {
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        shell.apply_file(loaded.into());
    } else {
        tracing::info!("there is no {DEFAULT_CONFIG}: waiting to be told over the control socket");
        shell.apply_file(Wanted { host: crate::config::defaults::host(), ..Wanted::default() });
    }
    let path = options.socket.or_else(|| startup.as_ref().and_then(|daemon| daemon.socket.clone()));
    let access = Access { path: path.unwrap_or_else(|| DEFAULT_SOCKET.into()), group: options.socket_group };
    let server = Server::bind(&access)
        .with_context(|| format!("the control socket {} cannot be made", access.path.display()))?;
    let daemon =
        Arc::new(Daemon { handle: handle.clone(), files, startup, started: (SystemTime::now(), Instant::now()) });
    if let Some(address) = daemon.startup.as_ref().and_then(|startup| startup.metrics) {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("metrics: nobody can be served at {address}"))?;
        tokio::spawn(web::serve(listener, None, Arc::new(metrics::Page(Arc::clone(&daemon)))));
    }
    if let Some(dashboard) = daemon.startup.as_ref().and_then(|startup| startup.dashboard.as_ref()) {
        dashboard::start(dashboard, Arc::clone(&daemon)).await?;
    }
    let server = tokio::spawn(server.serve(Arc::clone(&daemon)));
    let shell = tokio::spawn(shell.run(inputs));
    in_place(&handle).await;
    tracing::info!(socket = %access.path.display(), version = env!("CARGO_PKG_VERSION"), "charon-rs is ready");
    notify::notify(notify::READY);
    let alive = tokio::spawn(keep_saying_alive(handle.clone()));
    let ended = until_the_end(shell, &handle, &daemon, &mut signals, hooks).await;
    alive.abort();
    server.abort();
    // The socket goes with the server.
    if server.await.is_err_and(|error| error.is_panic()) {
        tracing::error!("the server of the control socket panicked");
    }
    ended
}

/// Waits until the interfaces and policies of the configuration are in place, so that *ready* means that no packet of
/// theirs leaves in clear. The dataplane carries out commands in order: its counters come after all that was asked before.
/// When the shell has ended instead, whoever waits for its end says why.
async fn in_place(handle: &Handle) {
    if let Ok(counters) = handle.ask(Shell::statistics).await {
        drop(counters.await);
    }
}

/// Tells the service manager's watchdog, if there is one, that the loop and the dataplane still answer.
async fn keep_saying_alive(handle: Handle) {
    let Some(period) = notify::watchdog() else { return };
    loop {
        in_place(&handle).await;
        notify::notify(notify::ALIVE);
        tokio::time::sleep(period).await;
    }
}

/// Serves signals until the shell has ended, then stops the dataplane.
async fn until_the_end(
    mut shell: JoinHandle<(Ending, Box<dyn Port>)>,
    handle: &Handle,
    daemon: &Daemon,
    signals: &mut Signals,
    hooks: HookEnd,
) -> anyhow::Result<()> {
    let ended = loop {
        let wish = tokio::select! {
            ended = &mut shell => break ended,
            wish = signals.next() => wish,
        };
        match wish {
            Wish::Stop => {
                notify::notify(notify::STOPPING);
                tracing::info!("shutting down: telling the peers");
                if handle.ask(|shell| shell.shut_down(GRACE)).await.is_err() {
                    tracing::debug!("the loop has ended already");
                }
            }
            Wish::Reload => match daemon.reload().await {
                Ok(reloaded) => {
                    reloaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                    tracing::info!(changes = ?reloaded.changes, "the configuration is reloaded");
                }
                Err(why) => tracing::error!("the configuration stays as it was:\n{why}"),
            },
        }
    };
    let (ending, port) = ended.map_err(|panic| anyhow!("the daemon's loop ended: {panic}"))?;
    let stopping = tokio::task::spawn_blocking(move || drop(port));
    if tokio::time::timeout(STOP_DEADLINE, stopping).await.is_err() {
        tracing::warn!("the dataplane takes too long to stop: leaving it behind");
    }
    if tokio::time::timeout(HOOK_DEADLINE, hooks).await.is_err() {
        tracing::warn!("hooks take too long: leaving them behind");
    }
    match ending {
        Ending::Orderly => Ok(()),
        Ending::Fatal(reason) => Err(anyhow!("the dataplane cannot go on: {reason}")),
    }
}

/// Opens the files for keys if the configuration asks for them; it warns of them by itself.
fn open_keylog(daemon: Option<&DaemonConfig>) -> anyhow::Result<Option<KeyLog>> {
    let folder = daemon.and_then(|daemon| daemon.keylog.as_deref());
    let open = |folder: &Path| {
        KeyLog::open(folder).with_context(|| format!("keylog: the files in {} cannot be written", folder.display()))
    };
    folder.map(open).transpose()
}

fn start_dataplane(
    settings: &Settings,
    crypto_engine: CryptoEngine,
) -> anyhow::Result<(Dataplane, tokio::sync::mpsc::Receiver<espdp_api::FromDataplane>)> {
    let CryptoReport { aes_gcm, wrong, .. } = CryptoReport::new(crypto_engine);
    for engine in wrong {
        tracing::warn!(engine, "a crypto engine computes wrong answers on this processor, and is not used");
    }
    tracing::debug!(aes_gcm, "crypto engines");
    let dataplane = DataplaneSettings {
        ike_port: settings.ike_port,
        nat_port: settings.nat_port,
        workers: settings.workers,
        crypto_engine,
        ..DataplaneSettings::default()
    };
    Dataplane::start(dataplane).map_err(|error| {
        anyhow!(
            "the dataplane cannot start: {error}\n  it needs UDP ports {} and {}, /dev/net/tun, and root or the capabilities \
             CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE",
            settings.ike_port,
            settings.nat_port
        )
    })
}

/// The signals that mean something to us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them.
    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
}
