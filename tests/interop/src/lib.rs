//! Our daemon against other IKEv2 implementations.
