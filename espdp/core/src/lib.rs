//! Pure ESP: SAD, policies, replay windows and the batch pipeline. No sockets, no clock, no threads, no `unsafe`.
//!
//! A [`Dataplane`] is everything that one worker owns: the policies of its interfaces, its SAs and their counters.
//! The shell around it moves octets and time:
//!
//! ```text
//!  TUN ─▶ SuperPacket ─▶ Filling::push ─▶ Filling::seal ─▶ Run          ─▶ UDP (UDP_SEGMENT) or raw socket
//!         (≤ 64 KiB)     segments, ESP     one pass over     equal-length
//!                        headers           all packets       packets
//!
//!  TUN ◀─ Delivery    ◀─ Opened ◀───────── Dataplane::open ◀ InboundBatch ◀─ UDP (UDP_GRO) or raw socket
//!         (≤ 64 KiB)     coalesced         in place
//! ```
//!
//! What leaves is typed: only [`Filling::seal`] makes a [`Sealed`] batch, from which alone packets can be taken for the
//! wire, and only [`Dataplane::open`] makes an [`Opened`] one, from which alone packets can be taken for the inside. A sealed
//! batch holds three kinds of packets: runs of ESP; packets in clear, which an explicit policy or interface let out; and answers
//! to the inside, such as packet-too-big.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod ah;
mod batch;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod bridge;
mod capture;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod coalesce;
mod crypto;
mod dataplane;
mod drops;
mod ecn;
mod events;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod fragment;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod icmp;
mod inbound;
mod interfaces;
mod limits;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod mss;
mod mtu;
mod outbound;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod packet;
mod policy;
mod replay;
mod sa;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod segment;
mod trace;
mod tunnel;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
mod vnet;

pub use batch::{
    ClearPacket, Delivery, Elsewhere, Exit, InboundBatch, Opened, Origin, OutboundBatch, OuterHeader, Reply, Run,
    Sealed,
};
pub use bridge::Egress;
pub use capture::CaptureSink;
pub use crypto::{Authentic, CryptoReport, Transform, TransformError};
pub use dataplane::Dataplane;
pub use drops::DropReason;
pub use fragment::Fragmenter;
pub use interfaces::{InterfaceCounters, InterfaceId};
pub use mtu::{Overhead, Term, tcp_mss};
pub use outbound::{Filling, Progress, SuperPacket};
pub use tunnel::tunnel_octets;
use tunnel_codec::checksum;
pub use vnet::{Offloads, VnetHeader};
