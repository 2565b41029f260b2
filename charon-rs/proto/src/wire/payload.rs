//! One payload: what its body says (RFC 7296 §3.3 to §3.13).

use espdp_api::TrafficSelector;

use super::authentication::Authentication;
use super::certificate::{encode_certificate, encode_request, parse_certificate, parse_request};
use super::configuration::Configuration;
use super::delete::Delete;
use super::error::WireError;
use super::identification::Identification;
use super::notify::Notify;
use super::payload_type::PayloadType;
use super::reader::Reader;
use super::security_association::{WireProposal, encode_proposals, parse_proposals};
use super::traffic_selectors::{encode_selectors, parse_selectors};
use crate::io::{CertificateData, CertificateRequest};

/// Payloads in one chain, that is, outside or inside an Encrypted payload. The longest useful messages, with a dozen
/// certificates and two dozen notifications, have far fewer.
pub const MAX_PAYLOADS: usize = 64;

/// The shortest nonce (RFC 7296 §3.9, R7296-3.9-1).
pub const MIN_NONCE_OCTETS: usize = 16;

/// The longest nonce (RFC 7296 §3.9).
pub const MAX_NONCE_OCTETS: usize = 256;

/// A payload that is not encrypted, or was decrypted. Nothing is compressed
/// (R7296-2.22-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Proposals: an offer, or the one that was chosen.
    SecurityAssociation(Vec<WireProposal>),
    /// A public value of a key exchange.
    KeyExchange(KeyExchange),
    /// Who the initiator of the exchange is.
    IdInitiator(Identification),
    /// Who its responder is, or whom the initiator wants to talk to.
    IdResponder(Identification),
    /// A certificate, or something else that vouches for a key.
    Certificate(CertificateData),
    /// Whose certificates are of use to the sender.
    CertificateRequest(CertificateRequest),
    /// The proof of an identity.
    Authentication(Authentication),
    /// A nonce of [`MIN_NONCE_OCTETS`] to [`MAX_NONCE_OCTETS`] octets.
    Nonce(Vec<u8>),
    /// A notification.
    Notify(Notify),
    /// SAs that are gone.
    Delete(Delete),
    /// Addresses and what belongs to them, wanted or given.
    Configuration(Configuration),
    /// Something about the maker of the peer.
    VendorId(Vec<u8>),
    /// What the initiator of the exchange protects. Selectors of unknown types are left out, and so are ranges that end
    /// before they begin, which select nothing.
    SelectorsInitiator(Vec<TrafficSelector>),
    /// The same of the responder.
    SelectorsResponder(Vec<TrafficSelector>),
    /// A payload to be ignored: of an assigned type that is of no use here, or of an unknown one that may be skipped.
    Opaque {
        /// Its type.
        kind: PayloadType,
        /// What follows its generic header.
        body: Vec<u8>,
    },
}

/// A Key Exchange payload (RFC 7296 §3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyExchange {
    /// The number of the group.
    pub group: u16,
    /// The public value, whose length the group decides.
    pub data: Vec<u8>,
}

impl Payload {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> PayloadType {
        match self {
            Self::SecurityAssociation(_) => PayloadType::SecurityAssociation,
            Self::KeyExchange(_) => PayloadType::KeyExchange,
            Self::IdInitiator(_) => PayloadType::IdInitiator,
            Self::IdResponder(_) => PayloadType::IdResponder,
            Self::Certificate(_) => PayloadType::Certificate,
            Self::CertificateRequest(_) => PayloadType::CertificateRequest,
            Self::Authentication(_) => PayloadType::Authentication,
            Self::Nonce(_) => PayloadType::Nonce,
            Self::Notify(_) => PayloadType::Notify,
            Self::Delete(_) => PayloadType::Delete,
            Self::Configuration(_) => PayloadType::Configuration,
            Self::VendorId(_) => PayloadType::VendorId,
            Self::SelectorsInitiator(_) => PayloadType::SelectorsInitiator,
            Self::SelectorsResponder(_) => PayloadType::SelectorsResponder,
            Self::Opaque { kind, .. } => *kind,
        }
    }

    /// Reads the body of a payload of the type that `body` is marked with; all of it must be used up.
    pub(super) fn parse(mut body: Reader<'_>) -> Result<Self, WireError> {
        let payload = match body.payload() {
            PayloadType::SecurityAssociation => Self::SecurityAssociation(parse_proposals(&mut body)?),
            PayloadType::KeyExchange => Self::KeyExchange(parse_key_exchange(&mut body)?),
            PayloadType::IdInitiator => Self::IdInitiator(Identification::parse(&mut body)?),
            PayloadType::IdResponder => Self::IdResponder(Identification::parse(&mut body)?),
            PayloadType::Certificate => Self::Certificate(parse_certificate(&mut body)?),
            PayloadType::CertificateRequest => Self::CertificateRequest(parse_request(&mut body)?),
            PayloadType::Authentication => Self::Authentication(Authentication::parse(&mut body)?),
            PayloadType::Nonce => Self::Nonce(parse_nonce(&mut body)?),
            PayloadType::Notify => Self::Notify(Notify::parse(&mut body)?),
            PayloadType::Delete => Self::Delete(Delete::parse(&mut body)?),
            PayloadType::Configuration => Self::Configuration(Configuration::parse(&mut body)?),
            PayloadType::VendorId => Self::VendorId(body.rest().to_vec()),
            PayloadType::SelectorsInitiator => Self::SelectorsInitiator(parse_selectors(&mut body)?),
            PayloadType::SelectorsResponder => Self::SelectorsResponder(parse_selectors(&mut body)?),
            kind @ (PayloadType::None
            | PayloadType::Encrypted
            | PayloadType::EncryptedFragment
            | PayloadType::Other(_)) => Self::Opaque { kind, body: body.rest().to_vec() },
        };
        body.finish()?;
        Ok(payload)
    }

    /// Appends the body.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        match self {
            Self::SecurityAssociation(proposals) => encode_proposals(proposals, out)?,
            Self::KeyExchange(KeyExchange { group, data }) => {
                out.extend_from_slice(&group.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(data);
            }
            Self::IdInitiator(identification) | Self::IdResponder(identification) => {
                out.extend_from_slice(identification.octets());
            }
            Self::Certificate(certificate) => encode_certificate(certificate, out),
            Self::CertificateRequest(request) => encode_request(request, out),
            Self::Authentication(authentication) => authentication.encode(out),
            Self::Notify(notify) => notify.encode(out),
            Self::Delete(delete) => delete.encode(out)?,
            Self::Configuration(configuration) => configuration.encode(out)?,
            Self::SelectorsInitiator(selectors) | Self::SelectorsResponder(selectors) => {
                encode_selectors(self.kind(), selectors, out)?;
            }
            Self::Nonce(octets) | Self::VendorId(octets) | Self::Opaque { body: octets, .. } => {
                out.extend_from_slice(octets);
            }
        }
        Ok(())
    }
}

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Diffie-Hellman Group Num    |           RESERVED            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                       Key Exchange Data                       ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
fn parse_key_exchange(body: &mut Reader<'_>) -> Result<KeyExchange, WireError> {
    let group = body.u16()?;
    body.take(2)?;
    Ok(KeyExchange { group, data: body.rest().to_vec() })
}

fn parse_nonce(body: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
    let (offset, found) = (body.offset(), body.len());
    if !(MIN_NONCE_OCTETS..=MAX_NONCE_OCTETS).contains(&found) {
        return Err(body.wrong(offset, "nonce length", "16 to 256 octets", found));
    }
    Ok(body.rest().to_vec())
}
