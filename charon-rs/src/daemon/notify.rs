//! The service manager's notification socket (sd_notify(3)): a datagram of text to the address in `NOTIFY_SOCKET`.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the daemon serves.
pub(crate) const READY: &str = "READY=1";

/// Says that the daemon is shutting down.
pub(crate) const STOPPING: &str = "STOPPING=1";

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
