//! How somebody who is not root gets to make networks: the lab starts itself again inside a user namespace.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::netns::{self, Namespace, NetnsError};

/// Whether this process may make networks as it is.
///
/// # Errors
/// [`NetnsError`] when the kernel refuses for another reason than want of privileges.
pub(super) fn may_make_networks() -> Result<bool, NetnsError> {
    match Namespace::new("probe") {
        Ok(_) => Ok(true),
        Err(error) if error.is_permission() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs this program again with the same arguments and `further` ones as root of a user namespace, hands signals on to it,
/// and waits for its end.
///
/// # Errors
/// [`SandboxError`] when the kernel does not allow it.
pub(super) async fn run_again(further: &[OsString]) -> Result<ExitStatus, SandboxError> {
    let program = std::env::current_exe().map_err(SandboxError::System)?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).args(further);
    netns::in_user_namespace(&mut command);
    netns::end_with_parent(&mut command);
    // Made before the child, so that no signal is missed.
    let mut signals = Signals::new().map_err(SandboxError::System)?;
    let mut child = command.spawn().map_err(|error| SandboxError::Refused { error, cause: cause() })?;
    let pid = Pid::from_child(&child);
    let (done, ended) = tokio::sync::oneshot::channel();
    let waiter = std::thread::spawn(move || done.send(child.wait()));
    tokio::pin!(ended);
    loop {
        tokio::select! {
            status = &mut ended => {
                let status = status.map_err(|_| SandboxError::System(io::ErrorKind::BrokenPipe.into()))?;
                drop(waiter);
                return status.map_err(SandboxError::System);
            }
            // The child may have ended in this moment: then there is nobody to tell.
            signal = signals.next() => drop(rustix::process::kill_process(pid, signal)),
        }
    }
}

/// The signals that mean: end.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    /// Catches them from now on; must be called in a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hang_up.recv() => Signal::HUP,
        }
    }
}

/// Why there is no user namespace.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    /// The kernel or its configuration refuses.
    #[error("not root, and no user namespace to be root of: {error}. {cause}")]
    Refused {
        /// What the kernel said.
        error: io::Error,
        /// What is likely behind it, and what to do.
        cause: String,
    },
    /// There is a user namespace, but its root may not do what root may.
    #[error("not root, and the user namespace to be root of allows no network namespaces. {cause}")]
    NoNetworks {
        /// What is likely behind it, and what to do.
        cause: String,
    },
    /// Something else failed.
    #[error("cannot start the lab again in a user namespace: {0}")]
    System(io::Error),
}

impl SandboxError {
    /// The error of a lab that runs in a user namespace already, and may not make networks there either.
    pub(super) fn no_networks() -> Self {
        Self::NoNetworks { cause: cause() }
    }
}

/// Looks for the switch that forbids user namespaces.
fn cause() -> String {
    let is = |path: &str, value: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(path)).is_ok_and(|text| text.trim() == value)
    };
    let switches = [
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    ];
    match switches.iter().find(|(path, value, _)| is(path, value)) {
        Some((path, value, remedy)) => {
            format!("/proc/sys/{path} is {value}: run the lab as root, or have root say `{remedy}`")
        }
        None => "Run the lab as root; in a container, one that may make namespaces".to_owned(),
    }
}
