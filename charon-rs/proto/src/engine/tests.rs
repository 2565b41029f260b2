//! Two engines against each other.

mod handshake;
