//! The ESP dataplane: workers, ports and kernel plumbing.
//!
//! [`Dataplane::start`] opens everything and gives back a handle for commands and a queue of outcomes and events; the words of
//! both are those of `espdp-api`, so the daemon does not care on which side of a process border the dataplane runs.
//!
//! ```text
//!            Dataplane::send                                  receiver of outcomes and events
//!                  │                                                  ▲            ▲
//!      commands    │   IKE messages                          outcomes │            │ IKE messages, events
//!        ┌─────────┴─────────┐                                        │            │
//! ┌──────▼───────────┐       │    jobs    ┌───────────────────────────┴────────────┴──┐
//! │ control thread   ├───────┴───────────►│ worker: epoll over TUN devices and sockets │
//! └──────┬───────────┘                    └───────────────────────────────────────────┘
//!        │ rtnetlink: links, addresses, routes, rules; nftables: the guard, translation, filters
//! ```
//!
//! Routes of policies go into a table of their own; the rules in front of it ([`tunnels::LongestMatch`]) make the longest prefix of
//! this table and the main one win, so that a route leaves connected networks inside it alone, and ours among equals.
//!
//! What policies cover is kept from going another way while their routes or interfaces are not there, and from coming another
//! way: by blackholes behind our routes and a table of nftables ([`tunnels::guard`]), which may outlive the dataplane.
//!
//! Our own packets carry the mark, so that a policy may cover the peer's address. A policy for everything (`0.0.0.0/0`) together
//! with a strict reverse-path filter (`rp_filter = 1`) makes the kernel drop the peer's packets, since their way back seems to
//! lead through the tunnel; the loose filter (2, the default of most distributions) does not.

mod capture;
mod control;
mod events;
mod handle;
#[expect(unsafe_code, reason = "ioctl, setsockopt and recvmsg have no safe wrapper for what is needed here")]
mod io;
mod leftovers;
mod settings;
mod worker;

pub use capture::{CaptureQueue, Captured};
pub use espdp_core::{CaptureSink, CryptoReport};
pub use handle::Dataplane;
pub use leftovers::Leftovers;
pub use settings::{DataplaneSettings, StartError};
