//! Named network namespaces (`ip netns`), for the inside of interfaces.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace. It lives at least as long as this handle, also when its name is deleted.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(Arc<File>);

impl Namespace {
    /// The namespace that is called `name` now.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a network namespace"));
        }
        File::open(Path::new(FOLDER).join(name)).map(|file| Self(Arc::new(file)))
    }

    /// Whether both are the same namespace.
    pub(crate) fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (own, other) = (self.0.metadata()?, other.0.metadata()?);
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// Runs `body` on a thread that is in the namespace, and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let file = Arc::clone(&self.0);
        let in_namespace = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(body())
        };
        let thread = thread::Builder::new().name("espdp-namespace".to_owned()).spawn(in_namespace)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    }
}

/// Where iproute2 keeps the names.
const FOLDER: &str = "/run/netns";
