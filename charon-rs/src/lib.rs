//! The IKEv2 daemon and its control tool.
