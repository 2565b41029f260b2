//! The whole pipeline through its public interface: two gateways in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[expect(unreachable_pub, reason = "shared by the modules of this test")]
mod support;
mod tunnels;

#[expect(unreachable_pub, reason = "shared by the modules of this test")]
mod ah;
mod captures;
mod control;
mod headers;
mod hostile;
mod in_place;
mod mtu;
mod roundtrip;
mod scapy;
mod segments;
mod shape;
mod spd;
mod traces;
mod whatif;
