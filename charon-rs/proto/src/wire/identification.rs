//! Identification payloads (RFC 7296 §3.5).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::WireError;
use super::reader::Reader;
use crate::identity::Identity;

/// The longest identity that is accepted. Names of hosts and people end at 255 octets; distinguished names with many
/// components can be longer, and nothing needs more than this.
pub const MAX_IDENTITY_OCTETS: usize = 2048;

/// The body of an Identification payload and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identification {
    octets: Vec<u8>,
    identity: Option<Identity>,
}

impl Identification {
    /// The payload for `identity`.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let (kind, data): (u8, &[u8]) = match &identity {
            Identity::Ipv4(address) => (IPV4_ADDR, &address.octets()),
            Identity::Fqdn(name) => (FQDN, name.as_bytes()),
            Identity::Rfc822(address) => (RFC822_ADDR, address.as_bytes()),
            Identity::Ipv6(address) => (IPV6_ADDR, &address.octets()),
            Identity::Dn { der, .. } => (DER_ASN1_DN, der),
            Identity::KeyId(octets) => (KEY_ID, octets),
        };
        let octets = [&[kind, 0, 0, 0], data].concat();
        Self { octets, identity: Some(identity) }
    }

    /// The identity, or `None` if it is of a type that we do not know.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Everything behind the generic header exactly as sent or received: type, reserved octets and data. The AUTH
    /// payload signs this (RFC 7296 §2.15).
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The number of the ID type.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.octets.first().copied().unwrap_or_default()
    }

    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |   ID Type     |                 RESERVED                      |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~                   Identification Data                         ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    pub(super) fn parse(body: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut all = *body;
        let [kind, _, _, _] = body.array()?;
        let (offset, found) = (body.offset(), body.len());
        if found > MAX_IDENTITY_OCTETS {
            return Err(body.wrong(offset, "length of identity", "at most 2048 octets", found));
        }
        let identity = parse_identity(kind, body)?;
        Ok(Self { octets: all.rest().to_vec(), identity })
    }
}

const IPV4_ADDR: u8 = 1;
const FQDN: u8 = 2;
const RFC822_ADDR: u8 = 3;
const IPV6_ADDR: u8 = 5;
const DER_ASN1_DN: u8 = 9;
const KEY_ID: u8 = 11;

/// R7296-3.5-1.
fn parse_identity(kind: u8, data: &mut Reader<'_>) -> Result<Option<Identity>, WireError> {
    let (offset, found) = (data.offset(), data.len());
    let octets = data.rest();
    let wrong_length = |expected| data.wrong(offset, "length of identity", expected, found);
    if octets.is_empty() && matches!(kind, FQDN | RFC822_ADDR | KEY_ID) {
        return Err(wrong_length("at least 1 octet"));
    }
    Ok(Some(match kind {
        IPV4_ADDR => {
            let address: [u8; 4] = octets.try_into().map_err(|_| wrong_length("4 octets"))?;
            Identity::Ipv4(Ipv4Addr::from(address))
        }
        IPV6_ADDR => {
            let address: [u8; 16] = octets.try_into().map_err(|_| wrong_length("16 octets"))?;
            Identity::Ipv6(Ipv6Addr::from(address))
        }
        FQDN => Identity::Fqdn(text(data, offset, octets)?),
        RFC822_ADDR => Identity::Rfc822(text(data, offset, octets)?),
        DER_ASN1_DN if is_der_name(octets) => Identity::from_dn(octets),
        DER_ASN1_DN => {
            return Err(WireError::Encoding { payload: data.payload(), offset, what: "DER of a distinguished name" });
        }
        KEY_ID => Identity::KeyId(octets.to_vec()),
        _ => return Ok(None),
    }))
}

fn text(data: &Reader<'_>, offset: usize, octets: &[u8]) -> Result<String, WireError> {
    let malformed = |_| WireError::Encoding { payload: data.payload(), offset, what: "name in UTF-8" };
    std::str::from_utf8(octets).map(str::to_owned).map_err(malformed)
}

/// Whether `octets` are exactly one DER SEQUENCE that is not empty, which is the outside of every distinguished name
/// that names somebody. The inside is for those who compare names.
fn is_der_name(octets: &[u8]) -> bool {
    match *octets {
        [0x30, length @ 1..=0x7f, ref content @ ..] => content.len() == usize::from(length),
        [0x30, 0x81, length @ 0x80..=0xff, ref content @ ..] => content.len() == usize::from(length),
        [0x30, 0x82, high @ 1..=0xff, low, ref content @ ..] => {
            content.len() == usize::from(u16::from_be_bytes([high, low]))
        }
        _ => false,
    }
}
