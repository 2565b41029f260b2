//! Network namespaces: make them, work in them, run programs in them, give them names.
//!
//! A network namespace belongs to threads, not to processes. So nothing here changes the calling thread: work goes to a
//! thread of its own that enters the namespace and ends, and a program enters between `fork` and `exec`.
//!
//! All of it works for root, and for anybody else once [`in_user_namespace`] has put a process into a user namespace
//! whose root it is.
#![expect(unsafe_code, reason = "unshare(2) and what runs between fork and exec have no safe form")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Where `ip netns` looks for namespaces with names.
pub const NAMES: &str = "/run/netns";

/// A network namespace. It lives as long as one of its handles, a thread or process in it, or a published name.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a new namespace, empty but for a loopback interface that is down. `name` is for messages only.
    ///
    /// # Errors
    /// [`NetnsError`] when the kernel refuses: usually because the caller is not root.
    pub fn new(name: impl Into<String>) -> Result<Self, NetnsError> {
        let name = name.into();
        let made = on_own_thread(&name, || {
            // SAFETY: `NEWNET` changes nothing but the network namespace of this thread, which ends right after; the
            // table of file descriptors, which the function's safety rule is about, stays shared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let handle = made.map_err(|source| NetnsError::new(format!("make network namespace `{name}`"), source))?;
        Ok(Self { name, handle: Arc::new(handle.into()) })
    }

    /// Its name, as given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does `work` inside and waits for it.
    ///
    /// # Errors
    /// [`NetnsError`] when the namespace cannot be entered. What `work` returns is passed on as it is.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_own_thread(&self.name, || self.enter().map(|()| work()))?.map_err(|source| self.entering(source))
    }

    /// Does `work` inside, on a thread that goes on while the caller does something else.
    ///
    /// # Errors
    /// [`NetnsError`] when there is no thread to be had. The thread's result is an error when it could not enter.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T, NetnsError>>, NetnsError> {
        let namespace = self.clone();
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                namespace.enter().map_err(|source| namespace.entering(source))?;
                Ok(work())
            })
            .map_err(|source| NetnsError::new("start a thread".to_owned(), source))
    }

    /// Makes `command` start inside.
    pub fn host(&self, command: &mut Command) {
        let handle = Arc::clone(&self.handle);
        // SAFETY: the closure makes one system call and allocates nothing, as it must between fork and exec in a process
        // with threads. It keeps the descriptor open that it uses.
        unsafe {
            command.pre_exec(move || {
                rustix::thread::move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(())
            });
        }
    }

    /// Gives it a name for `ip netns exec`, under which it stays until [`forget`] takes it away.
    ///
    /// # Errors
    /// [`NetnsError`] when the name is taken or mounting is not allowed.
    pub fn publish(&self, name: &str) -> Result<PathBuf, NetnsError> {
        let path = Path::new(NAMES).join(name);
        let mounted = make_names_directory().and_then(|()| {
            File::create_new(&path)?;
            let source = format!("/proc/self/fd/{}", self.as_raw_fd());
            rustix::mount::mount_bind(source, &path).map_err(|error| match fs::remove_file(&path) {
                Ok(()) => error.into(),
                Err(leftover) => leftover,
            })
        });
        mounted.map_err(|source| NetnsError::new(format!("name network namespace `{}`", path.display()), source))?;
        Ok(path)
    }

    fn enter(&self) -> io::Result<()> {
        rustix::thread::move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    fn entering(&self, source: io::Error) -> NetnsError {
        NetnsError::new(format!("enter network namespace `{}`", self.name), source)
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}

/// Takes a name away that [`Namespace::publish`] gave. The namespace itself goes when nobody uses it any more.
///
/// # Errors
/// [`NetnsError`] when there is no such name, or the caller may not unmount.
pub fn forget(name: &str) -> Result<(), NetnsError> {
    let path = Path::new(NAMES).join(name);
    let unmounted = match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
        // Not a mount point: a name left over from before a restart of the machine, or half-made.
        Err(rustix::io::Errno::INVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    };
    unmounted
        .and_then(|()| fs::remove_file(&path))
        .map_err(|source| NetnsError::new(format!("remove the name `{}`", path.display()), source))
}

/// Makes `command` start as root of a new user namespace with a mount namespace of its own, which is what lets people who
/// are not root make network namespaces. Outside, it still is the caller.
pub fn in_user_namespace(command: &mut Command) {
    let user = format!("0 {} 1\n", rustix::process::geteuid().as_raw());
    let group = format!("0 {} 1\n", rustix::process::getegid().as_raw());
    // SAFETY: the closure makes system calls only; the texts that it writes were made before the fork, and the paths are
    // C strings already. `NEWUSER` wants a process with one thread, which is what there is after a fork.
    unsafe {
        command.pre_exec(move || {
            rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
            // Without this the kernel refuses the group map, lest somebody drops a group that denies access.
            write_all(c"/proc/self/setgroups", b"deny")?;
            write_all(c"/proc/self/uid_map", user.as_bytes())?;
            write_all(c"/proc/self/gid_map", group.as_bytes())
        });
    }
}

/// Makes `command` get a signal when the thread that starts it ends, for whatever reason. So the thread must be one that
/// lives as long as the program shall.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            Ok(())
        });
    }
}

/// Makes `command` start in a session of its own, so that a Ctrl-C at the terminal does not reach it.
pub fn in_own_session(command: &mut Command) {
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
}

/// Makes sure that programs which the calling thread starts find `/dev/net/tun`. Where the device node is missing, the
/// thread gets a mount namespace of its own with one.
///
/// # Errors
/// [`NetnsError`] when the node is missing and cannot be made.
pub fn provide_tun_device() -> Result<(), NetnsError> {
    if Path::new(TUN_DEVICE).exists() {
        return Ok(());
    }
    make_tun_device().map_err(|source| {
        NetnsError::new(format!("make `{TUN_DEVICE}`, which is missing (root gets it by `modprobe tun`)"), source)
    })
}

/// What could not be done with a namespace, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct NetnsError {
    operation: String,
    source: io::Error,
}

impl NetnsError {
    fn new(operation: String, source: io::Error) -> Self {
        Self { operation, source }
    }

    /// Whether the kernel refused for want of privileges.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

fn on_own_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, work)
            .map_err(|source| NetnsError::new("start a thread".to_owned(), source))?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}

/// The directory must be a shared mount, as `ip netns` makes it, so that names made in one mount namespace go in all.
fn make_names_directory() -> io::Result<()> {
    fs::create_dir_all(NAMES)?;
    let shared = || rustix::mount::mount_change(NAMES, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    if shared().is_err() {
        rustix::mount::mount_bind(NAMES, NAMES)?;
        shared()?;
    }
    Ok(())
}

fn make_tun_device() -> io::Result<()> {
    // SAFETY: `NEWNS` changes what the calling thread sees of the file system, not the table of file descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    fs::create_dir_all("/dev/net")?;
    rustix::mount::mount("lab", "/dev/net", "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0755")?;
    let (major, minor) = TUN_NUMBERS;
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, TUN_DEVICE, rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)?;
    Ok(())
}

/// Writes a small file in one go. Called between fork and exec: no allocation.
fn write_all(path: &std::ffi::CStr, text: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let written = rustix::io::write(&file, text)?;
    if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

const TUN_DEVICE: &str = "/dev/net/tun";

/// Major and minor number of the TUN device (Linux `Documentation/admin-guide/devices.txt`).
const TUN_NUMBERS: (u32, u32) = (10, 200);

/// Says that a test cannot run for want of privileges, which in CI is a failure.
#[cfg(test)]
pub(crate) fn skipped(why: &dyn std::fmt::Display) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test makes network namespaces: {why}");
    eprintln!("skipped: {why}");
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Namespaces need privileges that not every build machine gives.
    fn namespace(name: &str) -> Option<Namespace> {
        match Namespace::new(name) {
            Ok(namespace) => Some(namespace),
            Err(error) if error.is_permission() => {
                skipped(&error);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn current() -> PathBuf {
        fs::read_link("/proc/thread-self/ns/net").unwrap()
    }

    #[test]
    fn work_runs_inside_and_the_caller_stays_outside() {
        let Some(namespace) = namespace("inside") else { return };
        let outside = current();
        let inside = namespace.run(current).unwrap();
        assert_ne!(inside, outside);
        assert_eq!(namespace.run(current).unwrap(), inside);
        assert_eq!(namespace.start(current).unwrap().join().unwrap().unwrap(), inside);
        assert_eq!(current(), outside);
    }

    #[test]
    fn a_new_namespace_has_no_working_loopback() {
        let Some(namespace) = namespace("empty") else { return };
        let sent = namespace.run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", "127.0.0.1:9")).unwrap();
        assert!(sent.is_err());
    }

    #[test]
    fn a_program_starts_inside() {
        let Some(namespace) = namespace("hosted") else { return };
        let mut command = Command::new("readlink");
        command.arg("/proc/self/ns/net");
        namespace.host(&mut command);
        let output = command.output().unwrap();
        let inside = namespace.run(current).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), inside.to_str().unwrap());
    }

    #[test]
    fn a_program_in_a_user_namespace_is_root_there_and_us_outside() {
        let mut command = Command::new("cat");
        command.arg("/proc/self/uid_map");
        in_user_namespace(&mut command);
        let Ok(output) = command.output() else { return skipped(&"no user namespaces here") };
        let map = String::from_utf8(output.stdout).unwrap();
        let fields: Vec<&str> = map.split_ascii_whitespace().collect();
        assert_eq!(fields, ["0", &rustix::process::geteuid().as_raw().to_string(), "1"]);
    }

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let starting = thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("600");
            end_with_parent(&mut command);
            command.spawn().unwrap()
        });
        let status = starting.join().unwrap().wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn a_name_comes_and_goes() {
        let Some(namespace) = namespace("named") else { return };
        let name = format!("lab-test-{}", std::process::id());
        let path = namespace.publish(&name).unwrap();
        assert!(namespace.publish(&name).is_err(), "a name is given once");
        assert!(path.exists());
        forget(&name).unwrap();
        assert!(!path.exists());
    }
}
