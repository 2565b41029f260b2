//! What the system tests are made of: networks of namespaces, our gateways, strongSwan peers, traffic and captures.
//!
//! Everything is owned: dropping a value ends its processes (by their id) and its namespaces go with the last handle.
//! All of it needs root.

mod capture;
mod gateway;
mod process;
mod strongswan;
mod traffic;
mod world;

pub use capture::{Capture, Fields, tshark};
pub use gateway::{Ctl, Gateway};
pub use process::{Daemon, built, finish, wait_until};
pub use strongswan::{Charon, StrongSwan, Version};
pub use traffic::{PingResult, PingStream, expect_silence, ping, tcp_transfer};
pub use world::{Site, World};
