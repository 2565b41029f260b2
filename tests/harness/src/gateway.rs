//! Our own daemon as it is installed: the program, its files and its control tool.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Daemon, built, finish, wait_until};
use crate::world::World;

/// A running `charon-rs`.
#[derive(Debug)]
pub struct Gateway {
    daemon: Daemon,
    folder: PathBuf,
}

/// What `charonctl` said.
#[derive(Clone, Debug)]
pub struct Ctl {
    /// Whether it ended with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Gateway {
    /// Starts the daemon in a node's namespace with this configuration, and returns when it says that it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the message has its log.
    pub fn start(world: &World, node: &str, folder: &Path, config: &str, secrets: &str) -> Result<Self> {
        Self::start_with_log(world, node, folder, config, secrets, "debug")
    }

    /// Starts the daemon as [`Self::start`] does, with these directives for its log (`RUST_LOG`).
    ///
    /// # Errors
    /// When it does not become ready; the message has its log.
    pub fn start_with_log(
        world: &World,
        node: &str,
        folder: &Path,
        config: &str,
        secrets: &str,
        log: &str,
    ) -> Result<Self> {
        let folder = folder.join(format!("gateway-{node}"));
        fs::create_dir_all(&folder)?;
        write_private(&folder.join("ipsec.toml"), &with_workers(config))?;
        write_private(&folder.join("ipsec.secrets.toml"), secrets)?;
        let ready = folder.join("notify");
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        let notifications = UnixDatagram::bind(&ready)?;
        notifications.set_read_timeout(Some(START_LIMIT))?;
        let mut command = world.command(node, built("charon-rs")?)?;
        command
            .arg("--config")
            .arg(folder.join("ipsec.toml"))
            .arg("--secrets")
            .arg(folder.join("ipsec.secrets.toml"))
            .arg("--socket")
            .arg(folder.join("vici"))
            .env("NOTIFY_SOCKET", &ready)
            .env("RUST_LOG", log)
            .env("RUST_BACKTRACE", "1");
        let daemon = Daemon::start(command, folder.join("log"))?;
        let gateway = Self { daemon, folder };
        gateway.await_ready(&notifications)?;
        Ok(gateway)
    }

    /// Runs `charonctl` with this daemon's socket.
    ///
    /// # Errors
    /// When it cannot be run; not when it fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Ctl> {
        let mut command = Command::new(built("charonctl")?);
        command.arg("--socket").arg(self.socket()).args(arguments);
        let output = finish(command)?;
        Ok(Ctl {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs Debian's `swanctl` with this daemon's socket; `folder` is its configuration. Says whether it succeeded, and what it
    /// printed.
    ///
    /// # Errors
    /// When it cannot be run; not when it fails.
    pub fn swanctl(&self, folder: &Path, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new("swanctl");
        command.args(arguments).arg("--uri").arg(format!("unix://{}", self.socket().display()));
        command.env("SWANCTL_DIR", folder).env("STRONGSWAN_CONF", folder.join("strongswan.conf"));
        fs::write(folder.join("strongswan.conf"), SWANCTL_PLUGINS)?;
        let output = finish(command)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), said))
    }

    /// Runs `charonctl` and wants it to succeed.
    ///
    /// # Errors
    /// With everything it printed, and the daemon's log, when it fails.
    pub fn expect_ctl(&self, arguments: &[&str]) -> Result<String> {
        let said = self.ctl(arguments)?;
        if !said.success {
            bail!("charonctl {arguments:?}: {}{}\n--- log\n{}", said.stdout, said.stderr, self.log());
        }
        Ok(said.stdout)
    }

    /// Runs `charonctl --json` and reads the answer.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let text = self.expect_ctl(&arguments)?;
        serde_json::from_str(&text).with_context(|| format!("charonctl {arguments:?} printed {text}"))
    }

    /// Waits until what `charonctl status --json` says satisfies `ready`.
    ///
    /// # Errors
    /// When that does not happen within `limit`.
    pub fn wait_status(&self, limit: Duration, what: &str, mut ready: impl FnMut(&Value) -> bool) -> Result<()> {
        let mut last = Value::Null;
        let waited = wait_until(limit, what, || {
            last = self.json(&["status"])?;
            Ok(ready(&last))
        });
        waited.with_context(|| format!("status: {last:#}\n--- log\n{}", self.log()))
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("vici")
    }

    /// The folder with its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon.signal(signal)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        self.daemon.is_running()
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.daemon.stop(Duration::from_secs(10))
    }

    /// Ends it with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.daemon.signal(Signal::KILL)?;
        self.daemon.wait(Duration::from_secs(5))
    }

    fn await_ready(&self, notifications: &UnixDatagram) -> Result<()> {
        let mut buffer = [0; 512];
        loop {
            let Ok(size) = notifications.recv(&mut buffer) else {
                bail!("charon-rs did not become ready:\n{}", self.log());
            };
            if String::from_utf8_lossy(buffer.get(..size).unwrap_or_default()).contains("READY=1") {
                return Ok(());
            }
        }
    }
}

/// What swanctl needs to read certificates and keys.
const SWANCTL_PLUGINS: &str = "swanctl { load = pem pkcs1 pkcs8 x509 pubkey openssl random }\n";

fn write_private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

/// How long the daemon may take to become ready.
const START_LIMIT: Duration = Duration::from_secs(15);

/// The configuration, with as many workers as the environment variable `CHARON_TEST_WORKERS` says, unless it says itself: everything
/// has to work with any number of them.
fn with_workers(config: &str) -> String {
    let wanted = std::env::var("CHARON_TEST_WORKERS").ok().filter(|_| !config.contains("\nworkers = "));
    let Some(wanted) = wanted else { return config.to_owned() };
    match config.split_once("[daemon]\n") {
        Some((before, behind)) => format!("{before}[daemon]\nworkers = {wanted}\n{behind}"),
        // In front, since tests add lines behind.
        None => format!("[daemon]\nworkers = {wanted}\n{config}"),
    }
}
