//! The IKE header (RFC 7296 §3.1).
//!
//! ```text
//!                      1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    IKE SA Initiator's SPI                     |
//! |                          (8 octets)                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    IKE SA Responder's SPI                     |
//! |                          (8 octets)                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Next Payload  | Major | Minor | Exchange Type |X|X|R|V|I|X|X|X|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                          Message ID                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                            Length                             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::fmt;

use super::error::WireError;
use super::payload_type::PayloadType;
use super::reader::Reader;
use crate::io::IkeSpi;

/// Octets of the IKE header.
pub const HEADER_LEN: usize = 28;

/// Where in the header the type of the first payload stands.
pub(super) const NEXT_PAYLOAD_AT: usize = 16;

/// Where in the header the length stands.
pub(super) const LENGTH_AT: usize = 24;

const MAJOR_VERSION: u8 = 2;
const VERSION_OCTET: u8 = MAJOR_VERSION << 4;
const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;

/// What the header of a message says, apart from lengths and versions, which the codec looks after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The original initiator's SPI.
    pub initiator_spi: IkeSpi,
    /// The original responder's SPI; zero in the first message of an SA.
    pub responder_spi: IkeSpi,
    /// The exchange.
    pub exchange: ExchangeType,
    /// Who of the two sent the message (the I flag).
    pub sender: Role,
    /// Request or response (the R flag).
    pub kind: MessageKind,
    /// The message ID, by which a response finds its request and a repetition its original.
    pub message_id: u32,
}

/// The role in which somebody took part in the making of an IKE SA. It stays for the life of the SA, and its rekeying
/// assigns it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sent the first message of the SA.
    OriginalInitiator,
    /// Answered it.
    OriginalResponder,
}

impl Role {
    /// The other one.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::OriginalInitiator => Self::OriginalResponder,
            Self::OriginalResponder => Self::OriginalInitiator,
        }
    }
}

/// Which half of an exchange a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// The first half.
    Request,
    /// The answer, with the message ID of the request.
    Response,
}

/// What an exchange is for (RFC 7296 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExchangeType {
    /// IKE_SA_INIT, 34.
    IkeSaInit,
    /// IKE_AUTH, 35.
    IkeAuth,
    /// CREATE_CHILD_SA, 36.
    CreateChildSa,
    /// INFORMATIONAL, 37.
    Informational,
    /// IKE_INTERMEDIATE, 43 (RFC 9242).
    IkeIntermediate,
    /// IKE_FOLLOWUP_KE, 44 (RFC 9370).
    IkeFollowupKe,
    /// Any other number.
    Other(u8),
}

impl ExchangeType {
    /// The exchange with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            34 => Self::IkeSaInit,
            35 => Self::IkeAuth,
            36 => Self::CreateChildSa,
            37 => Self::Informational,
            43 => Self::IkeIntermediate,
            44 => Self::IkeFollowupKe,
            other => Self::Other(other),
        }
    }

    /// The number of this exchange.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::IkeSaInit => 34,
            Self::IkeAuth => 35,
            Self::CreateChildSa => 36,
            Self::Informational => 37,
            Self::IkeIntermediate => 43,
            Self::IkeFollowupKe => 44,
            Self::Other(other) => other,
        }
    }
}

impl fmt::Display for ExchangeType {
    /// The name in the RFCs, or `exchange 99`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IkeSaInit => f.write_str("IKE_SA_INIT"),
            Self::IkeAuth => f.write_str("IKE_AUTH"),
            Self::CreateChildSa => f.write_str("CREATE_CHILD_SA"),
            Self::Informational => f.write_str("INFORMATIONAL"),
            Self::Other(38) => f.write_str("IKE_SESSION_RESUME"),
            Self::IkeIntermediate => f.write_str("IKE_INTERMEDIATE"),
            Self::IkeFollowupKe => f.write_str("IKE_FOLLOWUP_KE"),
            Self::Other(other) => write!(f, "exchange {other}"),
        }
    }
}

/// Reads the header of a datagram without looking at, or allocating for, anything behind it. The minor version and the
/// reserved flags are ignored (RFC 7296 §2.5, §3.1), as is the V flag.
///
/// # Errors
/// [`WireError::Short`], [`WireError::MajorVersion`] for any version but 2, and [`WireError::MessageLength`] unless the
/// datagram is exactly as long as its header says.
pub fn peek_header(datagram: &[u8]) -> Result<Header, WireError> {
    parse_header(datagram).map(|(header, _)| header)
}

impl Header {
    /// Appends the header of a message whose first payload is `next`, as version 2.0, with all reserved flags clear
    /// (R7296-3.1-2) and a length of zero, which is set when it is known.
    pub(super) fn encode(&self, next: PayloadType, out: &mut Vec<u8>) {
        let initiator = if self.sender == Role::OriginalInitiator { FLAG_INITIATOR } else { 0 };
        let response = if self.kind == MessageKind::Response { FLAG_RESPONSE } else { 0 };
        out.extend_from_slice(&self.initiator_spi.0);
        out.extend_from_slice(&self.responder_spi.0);
        out.extend_from_slice(&[next.number(), VERSION_OCTET, self.exchange.number(), initiator | response]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

/// The header and the type of the first payload (R7296-2.5-2). A message may be as long as a datagram (R7296-2-1).
pub(super) fn parse_header(datagram: &[u8]) -> Result<(Header, PayloadType), WireError> {
    let found = datagram.len();
    let mut reader = Reader::new(PayloadType::None, datagram, 0);
    if found < HEADER_LEN {
        return Err(WireError::Short { found });
    }
    let (initiator_spi, responder_spi) = (IkeSpi(reader.array()?), IkeSpi(reader.array()?));
    let [next, version, exchange, flags] = reader.array()?;
    let header = Header {
        initiator_spi,
        responder_spi,
        exchange: ExchangeType::from_number(exchange),
        sender: if flags & FLAG_INITIATOR == 0 { Role::OriginalResponder } else { Role::OriginalInitiator },
        kind: if flags & FLAG_RESPONSE == 0 { MessageKind::Request } else { MessageKind::Response },
        message_id: reader.u32()?,
    };
    let stated = reader.u32()?;
    let major = version >> 4;
    if major != MAJOR_VERSION {
        return Err(WireError::MajorVersion { major, header });
    }
    if usize::try_from(stated) != Ok(found) {
        return Err(WireError::MessageLength { stated, found });
    }
    Ok((header, PayloadType::from_number(next)))
}
