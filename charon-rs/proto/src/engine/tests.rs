//! Two engines against each other.

mod established;
mod handshake;
mod hostile;
mod rekey;
mod upkeep;
