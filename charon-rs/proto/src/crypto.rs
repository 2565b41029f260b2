//! PRFs, key exchange, ciphers and the key schedule of IKEv2.
//!
//! Nothing here is cryptography of our own: the primitives come from the RustCrypto crates, and this module puts them
//! together as the RFCs say. It is handed its randomness, keeps nothing but keys and the IVs used up with them, and wipes
//! the keys when it drops them.
//!
//! | module | what lives there |
//! |---|---|
//! | [`prf`] | `prf` and `prf+` (RFC 7296 §2.13), as methods of [`crate::proposal::Prf`] |
//! | [`key_exchange`] | private and public values, shared secrets (RFC 3526, RFC 5903, RFC 8031, FIPS 203) |
//! | [`schedule`] | SKEYSEED, the SK_* keys and KEYMAT (RFC 7296 §2.14, §2.17, §2.18, RFC 9370, RFC 8784) |
//! | [`protection`] | sealing and opening of Encrypted payloads |
//! | [`auth`] | what the AUTH payload is made over, and the one for pre-shared keys (RFC 7296 §2.15) |
//! | [`hash`] | NAT detection and cookies (RFC 7296 §2.23, §2.6) |

pub mod auth;
pub mod hash;
mod hmac;
pub mod key_exchange;
pub mod prf;
pub mod protection;
pub mod schedule;
