//! Two engines against each other.

mod actions;
mod ah;
mod auth;
mod chaos;
mod collisions;
mod down;
mod established;
mod fragments;
mod handshake;
mod hostile;
mod hybrid;
mod later_fragments;
mod lost_spi;
mod mobike;
mod nat;
mod ppk;
mod reauth;
mod redirect;
mod rekey;
mod reload;
mod resources;
mod scripted;
mod twins;
mod upkeep;
mod virtual_addresses;
mod windows;
