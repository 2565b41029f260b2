//! The VICI protocol of the control socket, strongSwan's "versatile IKE control interface": stock `swanctl` and the `vici`
//! client libraries talk to us through it, and so does our own `charonctl`.
//!
//! A connection carries segments, each behind a length of 32 bits in network order. A segment is one [`Packet`]; most
//! packets carry a [`Message`], a tree of named sections, values and lists.
//!
//! ```text
//!  0               4     5       6          6+n
//! +---------------+-----+-------+----------+----------------------+
//! | length        |type | n     | name     | elements             |
//! +---------------+-----+-------+----------+----------------------+
//!                 |<------------ length octets ------------------>|
//! ```
//!
//! | module | what lives there |
//! |---|---|
//! | `message` | the tree and its bytes |
//! | `packet` | packet types, and segments on a stream |
//! | `server` | the socket, its clients, and what each of them may cost |
//! | `client` | a blocking client |

mod client;
mod message;
mod packet;
mod server;

pub use client::{Client, ClientError};
pub use message::{Message, MessageError, Node};
pub use packet::{MAX_SEGMENT, Packet, PacketError};
pub use server::{Access, Broadcast, Server, Service, Streamer};
