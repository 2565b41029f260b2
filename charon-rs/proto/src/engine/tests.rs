//! Two engines against each other.

mod chaos;
mod established;
mod handshake;
mod hostile;
mod rekey;
mod upkeep;
