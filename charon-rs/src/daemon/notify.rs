//! The service manager's notification socket (sd_notify(3)): a datagram of text to the address in `NOTIFY_SOCKET`.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Says that the daemon serves.
pub(crate) const READY: &str = "READY=1";

/// Says that the daemon is shutting down.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Says that the daemon still works.
pub(crate) const ALIVE: &str = "WATCHDOG=1";

/// How often the service manager wants to hear that the daemon still works; `None` when it does not want to.
pub(crate) fn watchdog() -> Option<Duration> {
    let of = |name| env::var(name).ok();
    period(of("WATCHDOG_USEC").as_deref(), of("WATCHDOG_PID").as_deref(), std::process::id())
}

/// A third of the time after which we would be taken for dead, if that is about us.
fn period(microseconds: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let limit = microseconds?.parse().ok().map(Duration::from_micros)?;
    (is_ours && !limit.is_zero()).then_some(limit / 3)
}

/// Tells the service manager about `state`, if there is one.
pub(crate) fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = address(name.as_bytes()).and_then(|address| send(&address, state)) {
        tracing::warn!(%error, state, "the service manager cannot be told");
    }
}

/// A path, or behind an `@` a name without a file.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
    }
}

fn send(address: &SocketAddr, state: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_three_times_in_its_time_and_only_by_whom_it_watches() {
        assert_eq!(period(Some("30000000"), None, 7), Some(Duration::from_secs(10)));
        assert_eq!(period(Some("30000000"), Some("7"), 7), Some(Duration::from_secs(10)));
        assert_eq!(period(Some("30000000"), Some("8"), 7), None);
        assert_eq!((period(None, None, 7), period(Some("0"), None, 7), period(Some("x"), None, 7)), (None, None, None));
    }

    #[test]
    fn the_state_arrives_on_a_path_and_on_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("@charon-rs-test-{}", std::process::id());
        for name in [path.to_str().unwrap(), &abstract_name] {
            let address = address(name.as_bytes()).unwrap();
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            send(&address, READY).unwrap();
            let mut buffer = [0; 16];
            let len = manager.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"READY=1");
        }
    }
}
