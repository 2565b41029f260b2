//! IKE messages: octets to types and back (RFC 7296 §3).
//!
//! A datagram goes through three steps, each of which can be the last:
//!
//! 1. [`peek_header`] reads the fixed header and allocates nothing; admission control needs no more.
//! 2. [`Message::parse`] reads the payloads in clear and finds the Encrypted payload, if there is one.
//! 3. [`unprotect`] checks and decrypts the Encrypted payload and parses what is inside.
//!
//! The other way, [`encode_message`] writes a message in clear and [`protect`] one with an Encrypted payload. Ciphers
//! come in through [`MessageProtection`].
//!
//! Nothing here trusts a length or a count: every read is bounded, nothing is allocated by a number that the octets do
//! not back, and each kind of thing that can be repeated has a named limit.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

mod authentication;
mod certificate;
mod chain;
mod delete;
mod error;
mod header;
#[cfg(test)]
mod hostile;
mod identification;
mod message;
mod notify;
mod notify_type;
mod payload;
mod payload_type;
#[cfg(test)]
mod properties;
mod protection;
mod reader;
mod security_association;
mod summary;
mod traffic_selectors;
mod writer;

pub use authentication::{Authentication, AuthenticationMethod};
pub use delete::Delete;
pub use error::WireError;
pub use header::{ExchangeType, HEADER_LEN, Header, MessageKind, Role, peek_header};
pub use identification::{Identification, MAX_IDENTITY_OCTETS};
pub use message::{Encrypted, Fragment, Message, encode_message};
pub use notify::{MAX_COOKIE_OCTETS, Notify};
pub use notify_type::NotifyType;
pub use payload::{KeyExchange, MAX_NONCE_OCTETS, MAX_PAYLOADS, MIN_NONCE_OCTETS, Payload};
pub use payload_type::PayloadType;
pub use protection::{Inauthentic, MessageProtection, UnprotectError, protect, unprotect};
pub use security_association::{
    AdditionalRound, Attribute, AttributeValue, MAX_ATTRIBUTES, MAX_PROPOSALS, MAX_TRANSFORMS, Protocol, TransformType,
    WireProposal, WireTransform,
};
pub use summary::summary;
pub use traffic_selectors::MAX_SELECTORS;
