//! The Security Association payload: proposals, transforms, attributes (RFC 7296 §3.3).
//!
//! What is parsed here is what the peer said, known or not, so that it can be explained; what it means to us is for
//! [`crate::proposal`].

use std::fmt;

use espdp_api::IpsecProtocol;

use super::error::WireError;
use super::payload_type::PayloadType;
use super::reader::Reader;
use super::writer::{count_octet, set_length};

/// Proposals in one payload. Old clients that list every combination by itself come to two or three dozen.
pub const MAX_PROPOSALS: usize = 64;

/// Transforms in one proposal. Peers that offer all they have come to about forty.
pub const MAX_TRANSFORMS: usize = 128;

/// Attributes of one transform. There is just one kind in use, and none may come twice.
pub const MAX_ATTRIBUTES: usize = 8;

const PAYLOAD: PayloadType = PayloadType::SecurityAssociation;

/// What an SA is for (RFC 7296 §3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// IKE, 1.
    Ike,
    /// AH, 2.
    Ah,
    /// ESP, 3.
    Esp,
    /// Any other number.
    Other(u8),
}

impl Protocol {
    /// The protocol with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Ike,
            2 => Self::Ah,
            3 => Self::Esp,
            other => Self::Other(other),
        }
    }

    /// The number of this protocol.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Ike => 1,
            Self::Ah => 2,
            Self::Esp => 3,
            Self::Other(number) => number,
        }
    }
}

impl From<IpsecProtocol> for Protocol {
    fn from(protocol: IpsecProtocol) -> Self {
        match protocol {
            IpsecProtocol::Esp => Self::Esp,
            IpsecProtocol::Ah => Self::Ah,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ike => f.write_str("IKE"),
            Self::Ah => f.write_str("AH"),
            Self::Esp => f.write_str("ESP"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

/// What a transform decides about an SA (RFC 7296 §3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransformType {
    /// Encryption, 1.
    Encryption,
    /// Pseudo-random function, 2.
    PseudoRandomFunction,
    /// Integrity, 3.
    Integrity,
    /// Key exchange group, 4.
    KeyExchange,
    /// (Extended) sequence numbers, 5.
    SequenceNumbers,
    /// Additional key exchange in one of seven rounds, 6 to 12 (RFC 9370 §2.2).
    AdditionalKeyExchange(AdditionalRound),
    /// Any other number.
    Other(u8),
}

/// A round of additional key exchanges (RFC 9370): each that was agreed on is done in this order, after the first key
/// exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdditionalRound(u8);

impl AdditionalRound {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5), Self(6)];

    /// Its number, from 1 to 7, as in ADDKE1.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0.saturating_add(1)
    }
}

/// The transform type of the first of [`AdditionalRound::ALL`].
const FIRST_ADDITIONAL: u8 = 6;

impl TransformType {
    /// The type with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Encryption,
            2 => Self::PseudoRandomFunction,
            3 => Self::Integrity,
            4 => Self::KeyExchange,
            5 => Self::SequenceNumbers,
            other => {
                let round =
                    AdditionalRound::ALL.into_iter().find(|round| FIRST_ADDITIONAL.checked_add(round.0) == Some(other));
                round.map_or(Self::Other(other), Self::AdditionalKeyExchange)
            }
        }
    }

    /// The number of this type.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Encryption => 1,
            Self::PseudoRandomFunction => 2,
            Self::Integrity => 3,
            Self::KeyExchange => 4,
            Self::SequenceNumbers => 5,
            Self::AdditionalKeyExchange(round) => FIRST_ADDITIONAL.saturating_add(round.0),
            Self::Other(number) => number,
        }
    }
}

impl fmt::Display for TransformType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encryption => "encryption",
            Self::PseudoRandomFunction => "PRF",
            Self::Integrity => "integrity",
            Self::KeyExchange => "key exchange group",
            Self::SequenceNumbers => "extended sequence numbers",
            Self::AdditionalKeyExchange(round) => return write!(f, "additional key exchange {}", round.number()),
            Self::Other(number) => return write!(f, "transform type {number}"),
        })
    }
}

/// A proposal as it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireProposal {
    /// Its number, from 1.
    pub number: u8,
    /// What it is for.
    pub protocol: Protocol,
    /// The sender's SPI: 4 octets for ESP and AH, 8 for the IKE SA that replaces another, none for a first IKE SA. It is
    /// as long as it came.
    pub spi: Vec<u8>,
    /// Its transforms: one of each type is to be chosen.
    pub transforms: Vec<WireTransform>,
}

/// A transform as it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireTransform {
    /// What it decides.
    pub kind: TransformType,
    /// Which algorithm it is.
    pub id: u16,
    /// What completes the algorithm.
    pub attributes: Vec<Attribute>,
}

/// An attribute of a transform (RFC 7296 §3.3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its type, 15 bits.
    pub kind: u16,
    /// Its value.
    pub value: AttributeValue,
}

/// The value of an attribute, which comes in two formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// Two octets.
    Short(u16),
    /// Any number of octets.
    Long(Vec<u8>),
}

impl Attribute {
    /// The type of [`Attribute::key_length`].
    pub const KEY_LENGTH: u16 = 14;

    /// The Key Length attribute, in bits.
    #[must_use]
    pub fn key_length(bits: u16) -> Self {
        Self { kind: Self::KEY_LENGTH, value: AttributeValue::Short(bits) }
    }
}

/// Reads proposals up to the end of `body`. All lengths and counts must agree (R7296-3.3-1).
pub(super) fn parse_proposals(body: &mut Reader<'_>) -> Result<Vec<WireProposal>, WireError> {
    if body.is_empty() {
        return Err(body.wrong(body.offset(), "number of proposals", "at least 1", 0u8));
    }
    let mut proposals = Vec::new();
    while !body.is_empty() {
        if proposals.len() == MAX_PROPOSALS {
            return Err(too_many(body, "proposals", MAX_PROPOSALS));
        }
        let mut proposal = substructure(body, MORE_PROPOSALS)?;
        proposals.push(parse_proposal(&mut proposal)?);
        proposal.finish()?;
    }
    Ok(proposals)
}

/// Appends `proposals`.
pub(super) fn encode_proposals(proposals: &[WireProposal], out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut rest = proposals;
    while let Some((proposal, behind)) = rest.split_first() {
        let start = out.len();
        out.extend_from_slice(&[if behind.is_empty() { 0 } else { MORE_PROPOSALS }, 0, 0, 0]);
        encode_proposal(proposal, out)?;
        set_length(out, PAYLOAD, start)?;
        rest = behind;
    }
    Ok(())
}

/// "More follows" in the first octet of a proposal; the last one has 0 there.
const MORE_PROPOSALS: u8 = 2;

/// The same for transforms.
const MORE_TRANSFORMS: u8 = 3;

/// A Key Length or another attribute of two octets has this bit set in its type.
const SHORT_FORMAT: u16 = 0x8000;

/// Proposals and transforms begin alike: whether more of them follow, which their lengths tell too, a reserved octet and
/// their length.
fn substructure<'a>(reader: &mut Reader<'a>, more: u8) -> Result<Reader<'a>, WireError> {
    let offset = reader.offset();
    let [follows, _] = reader.array()?;
    let stated = reader.u16()?;
    let Some(length) = stated.checked_sub(4) else {
        return Err(reader.wrong(offset, "substructure length", "at least 4 octets", stated));
    };
    let part = reader.part(usize::from(length))?;
    let expected = if reader.is_empty() { 0 } else { more };
    if follows != expected {
        let meaning = if expected == 0 { "0, for the last one" } else { "2 or 3, for more to follow" };
        return Err(reader.wrong(offset, "last substructure", meaning, follows));
    }
    Ok(part)
}

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Last Substruc |   RESERVED    |         Proposal Length       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                        SPI (variable)                         ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                        <Transforms>                           ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
fn parse_proposal(reader: &mut Reader<'_>) -> Result<WireProposal, WireError> {
    let offset = reader.offset();
    let [number, protocol, spi_size, count] = reader.array()?;
    let spi = reader.take(usize::from(spi_size))?.to_vec();
    if usize::from(count) > MAX_TRANSFORMS {
        return Err(too_many(reader, "transforms", MAX_TRANSFORMS));
    }
    let mut transforms = Vec::new();
    for _ in 0..count {
        let mut transform = substructure(reader, MORE_TRANSFORMS)?;
        transforms.push(parse_transform(&mut transform)?);
    }
    if !reader.is_empty() {
        return Err(reader.wrong(offset, "number of transforms", "as many as the proposal holds", count));
    }
    Ok(WireProposal { number, protocol: Protocol::from_number(protocol), spi, transforms })
}

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Last Substruc |   RESERVED    |        Transform Length       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Transform Type |   RESERVED    |          Transform ID         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                      Transform Attributes                     ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
fn parse_transform(reader: &mut Reader<'_>) -> Result<WireTransform, WireError> {
    let [kind, _] = reader.array()?;
    let id = reader.u16()?;
    let mut attributes = Vec::new();
    while !reader.is_empty() {
        if attributes.len() == MAX_ATTRIBUTES {
            return Err(too_many(reader, "attributes", MAX_ATTRIBUTES));
        }
        attributes.push(parse_attribute(reader)?);
    }
    Ok(WireTransform { kind: TransformType::from_number(kind), id, attributes })
}

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |A|       Attribute Type        |    AF=0  Attribute Length     |
/// |F|                             |    AF=1  Attribute Value      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                   AF=0  Attribute Value                       |
/// |                   AF=1  Not Transmitted                       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
fn parse_attribute(reader: &mut Reader<'_>) -> Result<Attribute, WireError> {
    let (kind, field) = (reader.u16()?, reader.u16()?);
    let value = if kind & SHORT_FORMAT == 0 {
        AttributeValue::Long(reader.take(usize::from(field))?.to_vec())
    } else {
        AttributeValue::Short(field)
    };
    Ok(Attribute { kind: kind & !SHORT_FORMAT, value })
}

fn encode_proposal(proposal: &WireProposal, out: &mut Vec<u8>) -> Result<(), WireError> {
    let WireProposal { number, protocol, spi, transforms } = proposal;
    let spi_size = count_octet(PAYLOAD, "octets of SPI", spi.len())?;
    let count = count_octet(PAYLOAD, "transforms", transforms.len())?;
    out.extend_from_slice(&[*number, protocol.number(), spi_size, count]);
    out.extend_from_slice(spi);
    let mut rest = transforms.as_slice();
    while let Some((transform, behind)) = rest.split_first() {
        let start = out.len();
        out.extend_from_slice(&[if behind.is_empty() { 0 } else { MORE_TRANSFORMS }, 0, 0, 0]);
        out.extend_from_slice(&[transform.kind.number(), 0]);
        out.extend_from_slice(&transform.id.to_be_bytes());
        for attribute in &transform.attributes {
            encode_attribute(attribute, out)?;
        }
        set_length(out, PAYLOAD, start)?;
        rest = behind;
    }
    Ok(())
}

fn encode_attribute(attribute: &Attribute, out: &mut Vec<u8>) -> Result<(), WireError> {
    let (format, field, long): (u16, u16, &[u8]) = match &attribute.value {
        AttributeValue::Short(value) => (SHORT_FORMAT, *value, &[]),
        AttributeValue::Long(octets) => {
            let (found, limit) = (octets.len(), usize::from(u16::MAX));
            let what = "octets of attribute";
            let length =
                u16::try_from(found).map_err(|_| WireError::TooLong { payload: PAYLOAD, what, found, limit })?;
            (0, length, octets)
        }
    };
    out.extend_from_slice(&(attribute.kind | format).to_be_bytes());
    out.extend_from_slice(&field.to_be_bytes());
    out.extend_from_slice(long);
    Ok(())
}

fn too_many(reader: &Reader<'_>, what: &'static str, limit: usize) -> WireError {
    WireError::TooMany { payload: PAYLOAD, offset: reader.offset(), what, limit }
}
