//! The headers of tunnels, read and written: GRE, VXLAN, L2TPv3, and the UDP and IP headers around them.
//!
//! Nothing here does I/O or keeps packets, and only [`rebuild`] allocates. Writers take the room that they fill and answer `None` when it is too
//! short; readers give the header and the rest of the packet, or say what is wrong with it.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod checksum;
pub mod ethernet;
pub mod gre;
pub mod ip;
pub mod l2tp;
pub mod order;
pub mod rebuild;
pub mod udp;
pub mod vxlan;
