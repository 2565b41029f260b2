//! The IKEv2 daemon.

fn main() {}
