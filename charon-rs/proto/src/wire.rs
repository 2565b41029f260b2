//! IKE messages: octets to types and back (RFC 7296 §3).
//!
//! A datagram goes through three steps, each of which can be the last:
//!
//! 1. [`peek_header`] reads the fixed header and allocates nothing; admission control needs no more.
//! 2. [`Message::parse`] reads the payloads in clear and finds the Encrypted payload, if there is one.
//! 3. [`PlainMessage::open`] checks and decrypts the Encrypted payload, or [`Reassembly`] does so with several fragments
//!    and puts them together; [`PlainMessage::payloads`] parses what was inside.
//!
//! The other way, [`encode_message`] writes a message in clear, and [`PlainMessage`] one with an Encrypted payload, which
//! is sealed as a whole or in fragments. Ciphers come in through [`MessageProtection`].
//!
//! Nothing here trusts a length or a count: every read is bounded, nothing is allocated by a number that the octets do
//! not back, and each kind of thing that can be repeated has a named limit.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

mod authentication;
mod certificate;
mod chain;
mod configuration;
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
mod plain;
#[cfg(test)]
mod properties;
mod protection;
mod reader;
mod reassembly;
mod security_association;
mod summary;
#[cfg(test)]
mod toy;
mod traffic_selectors;
mod writer;

pub use authentication::{Authentication, AuthenticationMethod};
pub use configuration::{Configuration, ConfigurationAttribute, ConfigurationKind, MAX_CONFIGURATION_ATTRIBUTES};
pub use delete::Delete;
pub use error::WireError;
pub use header::{ExchangeType, HEADER_LEN, Header, MessageKind, Role, peek_header};
pub use identification::{Identification, MAX_IDENTITY_OCTETS};
pub use message::{Encrypted, Fragment, Message, encode_message};
pub use notify::{COOKIE2_OCTETS, MAX_COOKIE_OCTETS, Notify};
pub use notify_type::NotifyType;
pub use payload::{KeyExchange, MAX_NONCE_OCTETS, MAX_PAYLOADS, MIN_NONCE_OCTETS, Payload};
pub use payload_type::PayloadType;
pub use plain::PlainMessage;
#[cfg(test)]
pub(crate) use protection::protect_octets;
pub use protection::{Inauthentic, MessageProtection, UnprotectError};
pub use reassembly::{Added, MAX_FRAGMENTS, Reassembly};
pub use security_association::{
    AdditionalRound, Attribute, AttributeValue, MAX_ATTRIBUTES, MAX_PROPOSALS, MAX_TRANSFORMS, Protocol, TransformType,
    WireProposal, WireTransform,
};
pub use summary::{fragment_summary, summary};
pub use traffic_selectors::MAX_SELECTORS;
