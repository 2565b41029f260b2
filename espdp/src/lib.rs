//! The ESP dataplane: workers, ports and kernel plumbing.
//!
//! [`Dataplane::start`] opens everything and gives back a handle for commands and a queue of outcomes and events; the words of
//! both are those of `espdp-api`, so the daemon does not care on which side of a process border the dataplane runs.

mod handle;
mod settings;

pub use handle::Dataplane;
pub use settings::{DataplaneSettings, StartError};
