//! What can be wrong with octets.

use super::header::Header;
use super::payload_type::PayloadType;

/// Why octets are no message, or a message has no octets.
///
/// Offsets count from the start of the datagram, or, for payloads from inside an Encrypted payload, from the start of
/// what was decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The datagram is shorter than an IKE header.
    #[error("a datagram of {found} octets cannot hold the 28 octets of an IKE header")]
    Short {
        /// Octets of the datagram.
        found: usize,
    },
    /// The message is of another major version (RFC 7296 §2.5). If it is a higher one, an INVALID_MAJOR_VERSION may be
    /// sent that takes its SPIs and message ID from `header`.
    #[error("IKE version {major} is not spoken here, only version 2")]
    MajorVersion {
        /// The version of the message.
        major: u8,
        /// The rest of the header, which is the same in all versions.
        header: Header,
    },
    /// The header's length is not that of the datagram.
    #[error("the IKE header speaks of {stated} octets, the datagram has {found}")]
    MessageLength {
        /// What the header says.
        stated: u32,
        /// What arrived.
        found: usize,
    },
    /// A field or payload goes beyond what holds it.
    #[error("{payload} at offset {offset}: {needed} octets needed, {left} left")]
    Truncated {
        /// In which payload.
        payload: PayloadType,
        /// Where the field begins.
        offset: usize,
        /// Octets that the field has.
        needed: usize,
        /// Octets that are there.
        left: usize,
    },
    /// Octets are left over where everything was read.
    #[error("{payload} at offset {offset}: {count} octets too many")]
    Trailing {
        /// In which payload; [`PayloadType::None`] after the last one.
        payload: PayloadType,
        /// Where they begin.
        offset: usize,
        /// How many they are.
        count: usize,
    },
    /// A field has a value that it may not have.
    #[error("{payload} at offset {offset}: {field} is {found}, expected {expected}")]
    Field {
        /// In which payload.
        payload: PayloadType,
        /// Where the payload's body begins, or the field, if it is one of many.
        offset: usize,
        /// The field.
        field: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What is there.
        found: u64,
    },
    /// Text is not UTF-8, or a DER encoding is none.
    #[error("{payload} at offset {offset}: the {what} is malformed")]
    Encoding {
        /// In which payload.
        payload: PayloadType,
        /// Where it begins.
        offset: usize,
        /// What it should be.
        what: &'static str,
    },
    /// Nobody here knows the payload type, and the sender insists that it be understood (RFC 7296 §2.5): the answer is
    /// UNSUPPORTED_CRITICAL_PAYLOAD with the type.
    #[error("payload type {payload} at offset {offset} is unknown and critical")]
    UnsupportedCritical {
        /// The type.
        payload: u8,
        /// Where the payload begins.
        offset: usize,
    },
    /// More of something than anybody needs.
    #[error("{payload} at offset {offset}: more than {limit} {what}")]
    TooMany {
        /// In which payload; [`PayloadType::None`] for payloads as such.
        payload: PayloadType,
        /// Where the first one too many begins.
        offset: usize,
        /// What is repeated.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// An Encrypted payload that is not the last one, or is inside another (RFC 7296 §3.1, §3.14).
    #[error("an Encrypted payload at offset {offset} is not the last payload of the message")]
    MisplacedEncrypted {
        /// Where it begins.
        offset: usize,
    },
    /// Something that is to be sent does not fit in its field.
    #[error("{payload}: {found} {what} to send, the format allows {limit}")]
    TooLong {
        /// In which payload; [`PayloadType::None`] for the message as a whole.
        payload: PayloadType,
        /// What is too long, with its unit.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much fits.
        limit: usize,
    },
}
