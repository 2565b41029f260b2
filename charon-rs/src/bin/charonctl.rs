//! The control tool of the IKEv2 daemon.

fn main() {}
