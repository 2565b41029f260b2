//! Where a lab keeps its sockets and secrets while it runs, and what is known of labs that were left running.
//!
//! All labs of a user share a directory; each takes a number in it. `record.json` says what has to be ended and removed, so
//! that [`clean`] can do it later, also for a lab that was killed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::netns;

/// The directory of one lab. Dropping it removes the directory, unless it was kept.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    number: u32,
    record: Record,
}

/// What belongs to a lab.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The process that runs it; none once it was left running on purpose.
    owner: Option<Process>,
    /// Daemons, and what keeps namespaces alive.
    processes: Vec<Process>,
    /// Names of namespaces.
    names: Vec<String>,
}

/// A process that cannot be taken for another one that got its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: u32,
    /// Clock ticks from the start of the machine to the start of the process.
    started: u64,
}

impl Place {
    /// Takes the first free number in `base`, which [`base`] gives.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub(super) fn take(base: &Path) -> io::Result<Self> {
        for number in 1..MOST {
            let directory = base.join(number.to_string());
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {
                    let record = Record { owner: Process::of(std::process::id()), ..Record::default() };
                    let place = Self { directory, number, record };
                    place.write()?;
                    return Ok(place);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{} labs in `{}`: clean up first", MOST, base.display())))
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of a node's namespace for `ip netns`.
    pub(super) fn name_of(&self, node: &str) -> String {
        format!("charon-lab{}-{node}", self.number)
    }

    /// Remembers a process that has to be ended.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(super) fn remember_process(&mut self, pid: u32) -> io::Result<()> {
        self.record.processes.extend(Process::of(pid));
        self.write()
    }

    /// Remembers a name that has to be taken away.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(super) fn remember_name(&mut self, name: String) -> io::Result<()> {
        self.record.names.push(name);
        self.write()
    }

    /// Lets everything be when this value is dropped.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(super) fn keep(mut self) -> io::Result<()> {
        self.record.owner = None;
        self.write()?;
        std::mem::forget(self);
        Ok(())
    }

    fn write(&self) -> io::Result<()> {
        serde_json::to_writer(File::create(self.directory.join(RECORD))?, &self.record).map_err(io::Error::from)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.record.undo(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "cannot remove the lab's directory");
        }
    }
}

impl Record {
    /// Ends the processes, takes the names away, removes the directory. Goes on after failures and says the first.
    fn undo(&self, directory: &Path) -> io::Result<()> {
        let ended = self.processes.iter().map(|process| process.end());
        let forgotten = self.names.iter().map(|name| {
            netns::forget(name).map_err(|error| io::Error::other(format!("{:#}", anyhow::Error::from(error))))
        });
        let results: Vec<io::Result<()>> = ended.chain(forgotten).collect();
        let removed = fs::remove_dir_all(directory);
        results.into_iter().chain([removed]).find(Result::is_err).unwrap_or(Ok(()))
    }
}

impl Process {
    /// The process with this number, if there is one.
    fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, blanks and parentheses too: the last parenthesis ends it (proc_pid_stat(5)).
        let fields = status.rsplit_once(')')?.1;
        let started = fields.split_ascii_whitespace().nth(STARTED_AFTER_NAME)?.parse().ok()?;
        Some(Self { pid, started })
    }

    fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends it, politely first.
    fn end(self) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw).filter(|_| self.is_alive()) else {
            return Ok(());
        };
        let ending = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        rustix::process::pidfd_send_signal(&ending, Signal::TERM)?;
        let patience = rustix::event::Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let mut ready = [rustix::event::PollFd::new(&ending, rustix::event::PollFlags::IN)];
        if rustix::event::poll(&mut ready, Some(&patience))? == 0 {
            rustix::process::pidfd_send_signal(&ending, Signal::KILL)?;
        }
        Ok(())
    }
}

/// The directory of all labs of this user, made if need be.
///
/// # Errors
/// When it cannot be made, or belongs to somebody else.
pub(super) fn base() -> io::Result<PathBuf> {
    let user = rustix::process::geteuid();
    let base = if user.is_root() { PathBuf::from("/run/charon-rs-lab") } else { users_base(user.as_raw()) };
    match DirBuilder::new().mode(0o700).create(&base) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(&base)?;
            if !found.is_dir() || found.uid() != user.as_raw() {
                return Err(io::Error::other(format!("`{}` is not a directory of ours", base.display())));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(base)
}

/// Ends and removes all labs in `base` that nobody runs any more; gives their numbers.
///
/// # Errors
/// The first failure, after everything was tried.
pub(super) fn clean(base: &Path) -> io::Result<Vec<String>> {
    let (mut cleaned, mut failure) = (Vec::new(), Ok(()));
    for entry in fs::read_dir(base)? {
        let directory = entry?.path();
        // Without a record there is nothing else than the directory.
        let text = fs::read_to_string(directory.join(RECORD)).unwrap_or_default();
        let record: Record = serde_json::from_str(&text).unwrap_or_default();
        if record.owner.is_some_and(Process::is_alive) {
            continue;
        }
        failure = failure.and(record.undo(&directory));
        cleaned.push(directory.display().to_string());
    }
    failure.map(|()| cleaned)
}

fn users_base(user: u32) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|directory| directory.is_dir()) {
        Some(directory) => directory.join("charon-rs-lab"),
        None => std::env::temp_dir().join(format!("charon-rs-lab-{user}")),
    }
}

const RECORD: &str = "record.json";

/// More labs than this at a time are forgotten ones.
const MOST: u32 = 100;

/// Field 22 of /proc/PID/stat, counted from the one after the name.
const STARTED_AFTER_NAME: usize = 19;

/// A daemon deletes its SAs before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let base = std::env::temp_dir().join(format!("lab-place-{name}-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        base
    }

    #[test]
    fn each_lab_has_its_place_and_leaves_it_empty() {
        let base = scratch("own");
        let (first, second) = (Place::take(&base).unwrap(), Place::take(&base).unwrap());
        assert_ne!(first.directory(), second.directory());
        assert_ne!(first.name_of("client"), second.name_of("client"));
        let gone = first.directory().to_owned();
        drop(first);
        assert!(!gone.exists());
        assert_eq!(Place::take(&base).unwrap().directory(), gone, "its number is free again");
        drop(second);
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn a_kept_lab_is_cleaned_up_with_its_processes_and_a_running_one_is_not() {
        let base = scratch("kept");
        let running = Place::take(&base).unwrap();
        let mut kept = Place::take(&base).unwrap();
        let mut process = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        kept.remember_process(process.id()).unwrap();
        let directory = kept.directory().to_owned();
        kept.keep().unwrap();
        assert!(directory.exists());
        assert_eq!(clean(&base).unwrap(), [directory.display().to_string()]);
        assert!(!directory.exists() && running.directory().exists());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&process.wait().unwrap()), Some(15));
        drop(running);
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn a_process_is_not_taken_for_another_with_its_number() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = Process { started: me.started - 1, ..me };
        assert!(!other.is_alive());
        other.end().unwrap();
    }
}
