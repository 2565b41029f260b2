//! Processes that end when their owner does.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A daemon with its log file. Ended by SIGTERM, then SIGKILL, when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with both outputs in the file `log`.
    ///
    /// # Errors
    /// When the program or the log file cannot be opened.
    pub fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let out = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let err = out.try_clone()?;
        let program = command.get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("process id")?;
        Ok(kill_process(id, signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until(limit, "the end of a daemon", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        status.context("no exit status")
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.stop(GRACE).is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started; not when it fails.
pub fn finish(mut command: Command) -> Result<Output> {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).output().with_context(|| format!("run {}", program.display()))
}

/// Asks `ready` again and again until it says yes. For things that no event announces.
///
/// # Errors
/// When `limit` passes first, or `ready` fails.
pub fn wait_until(limit: Duration, what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !ready()? {
        if Instant::now() >= end {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The program `name` that was built beside the running test.
///
/// # Errors
/// When it was not built.
pub fn built(name: &str) -> Result<PathBuf> {
    let running = std::env::current_exe()?;
    // Tests run in `deps`, one below the programs.
    let places = running.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let program = places.into_iter().find(|program| program.exists());
    let program = program.with_context(|| format!("`{name}` is missing: `cargo build --workspace --bins` makes it"))?;
    Ok(program)
}

/// How long a daemon may take to end in good order.
const GRACE: Duration = Duration::from_secs(6);

/// Between two questions of [`wait_until`].
const POLL: Duration = Duration::from_millis(20);
