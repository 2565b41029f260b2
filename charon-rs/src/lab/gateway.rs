//! A daemon of the lab: started in its namespace, watched, ended.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::netns::{self, Namespace};
use crate::vici::{Client, ClientError, Message};

/// A daemon that runs. Dropping it ends the daemon, politely first.
#[derive(Debug)]
pub(super) struct Gateway {
    name: String,
    socket: PathBuf,
    process: Option<Child>,
}

/// The files of a daemon.
#[derive(Clone, Debug)]
pub(super) struct GatewayFiles {
    /// Its configuration.
    pub(super) config: PathBuf,
    /// Its secrets.
    pub(super) secrets: PathBuf,
    /// Where its control socket shall be.
    pub(super) socket: PathBuf,
    /// Where its log goes.
    pub(super) log: PathBuf,
}

impl Gateway {
    /// Starts the daemon in `namespace`. Unless `stays`, it ends when the calling thread does.
    ///
    /// # Errors
    /// [`GatewayError`] when it cannot be started.
    pub(super) fn start(namespace: &Namespace, files: GatewayFiles, stays: bool) -> Result<Self, GatewayError> {
        let name = namespace.name().to_owned();
        let failed = |source| GatewayError::Start { name: name.clone(), source };
        let log = File::create(&files.log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["lab", "--gateway"]).args([&files.config, &files.secrets, &files.socket]);
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        namespace.host(&mut command);
        netns::in_own_session(&mut command);
        if !stays {
            netns::end_with_parent(&mut command);
        }
        let process = command.spawn().map_err(failed)?;
        let GatewayFiles { socket, .. } = files;
        Ok(Self { name, socket, process: Some(process) })
    }

    /// Waits until the daemon ends; gives how as an error, because nobody asked it to.
    pub(super) async fn death(&mut self) -> GatewayError {
        let name = self.name.clone();
        let Some(process) = &mut self.process else { return std::future::pending().await };
        match status_of(process).await {
            Ok(status) => GatewayError::Ended { name, status },
            Err(source) => GatewayError::Watch { name, source },
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// Its name, which is its node's.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its control socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Lets the daemon go on when this value is dropped.
    pub(super) fn keep(mut self) {
        self.process = None;
    }

    /// Asks the daemon to end, and ends it when it does not within [`END_PATIENCE`]. `None` when it had been let go.
    pub(super) fn end(mut self) -> Option<io::Result<ExitStatus>> {
        self.process.take().map(end)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.process.take().map(end) {
            tracing::warn!(gateway = self.name, %error, "cannot end the daemon");
        }
    }
}

/// Waits until the control socket at `socket` accepts.
///
/// # Errors
/// [`GatewayError::NotReady`] when that takes too long.
pub(super) async fn ready(socket: &Path) -> Result<(), GatewayError> {
    let started = Instant::now();
    while UnixStream::connect(socket).is_err() {
        if started.elapsed() > PATIENCE {
            return Err(GatewayError::NotReady { socket: socket.to_owned() });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Runs a command of the control socket at `socket`. Blocks until the daemon answers.
///
/// # Errors
/// [`GatewayError::Control`] when there is no answer; an answer that says no is none.
pub(super) fn request(socket: &Path, name: &str, arguments: Message) -> Result<Message, GatewayError> {
    let failed = |source| GatewayError::Control { command: name.to_owned(), source };
    Client::connect(socket).map_err(|error| failed(error.into()))?.request(name, arguments).map_err(failed)
}

/// Runs a command that streams events, and gives all of them.
///
/// # Errors
/// [`GatewayError::Control`] when there is no answer.
pub(super) fn collect(
    socket: &Path,
    event: &str,
    name: &str,
    arguments: Message,
) -> Result<(Message, Vec<Message>), GatewayError> {
    let failed = |source| GatewayError::Control { command: name.to_owned(), source };
    let mut client = Client::connect(socket).map_err(|error| failed(error.into()))?;
    let mut events = Vec::new();
    let answer = client.stream(event, name, arguments, |event| events.push(event)).map_err(failed)?;
    Ok((answer, events))
}

/// Why a daemon of the lab cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatewayError {
    /// It could not be started.
    #[error("cannot start the daemon of `{name}`")]
    Start {
        /// Which one.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It ended although nobody asked it to.
    #[error("the daemon of `{name}` ended: {}", describe(*status))]
    Ended {
        /// Which one.
        name: String,
        /// How.
        status: ExitStatus,
    },
    /// It cannot be watched.
    #[error("cannot watch the daemon of `{name}`")]
    Watch {
        /// Which one.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It runs, and its socket does not accept.
    #[error("no daemon answers at `{}` after {} s", socket.display(), PATIENCE.as_secs())]
    NotReady {
        /// Its socket.
        socket: PathBuf,
    },
    /// Its control socket failed.
    #[error("`{command}` at the control socket")]
    Control {
        /// What was asked.
        command: String,
        /// What went wrong.
        source: ClientError,
    },
}

async fn status_of(process: &mut Child) -> io::Result<ExitStatus> {
    // Caught before the first look, so that no end is missed.
    let mut children = signal(SignalKind::child())?;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        children.recv().await;
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn end(mut process: Child) -> io::Result<ExitStatus> {
    if let Some(status) = process.try_wait()? {
        return Ok(status);
    }
    let pid = Pid::from_child(&process);
    rustix::process::kill_process(pid, Signal::TERM)?;
    // The descriptor becomes readable when the process ends.
    let ending = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let mut ready = [rustix::event::PollFd::new(&ending, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: END_PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    if rustix::event::poll(&mut ready, Some(&patience))? == 0 {
        process.kill()?;
    }
    process.wait()
}

/// A daemon that is not ready after this long has a problem.
const PATIENCE: Duration = Duration::from_secs(15);

/// A socket that appears and accepts is no event to wait for.
const POLL: Duration = Duration::from_millis(20);

/// A daemon deletes its SAs, routes and interfaces before it ends; the peer's answers may take a few retransmissions.
const END_PATIENCE: Duration = Duration::from_secs(10);
