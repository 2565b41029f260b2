//! The Notify payload (RFC 7296 §3.10).

use std::ops::RangeInclusive;

use espdp_api::{EspSpi, IpsecProtocol};

use super::error::WireError;
use super::notify_type::NotifyType;
use super::reader::Reader;
use super::security_association::Protocol;

/// The longest cookie (RFC 7296 §2.6).
pub const MAX_COOKIE_OCTETS: usize = 64;

/// How long the data of COOKIE2 is (R4555-4.2.5-1).
pub const COOKIE2_OCTETS: RangeInclusive<usize> = 8..=64;

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// What it says.
    pub kind: NotifyType,
    /// The Child SA that it is about. Always there in REKEY_SA.
    pub spi: Option<EspSpi>,
    /// The protocol of that SA; ESP where there is none.
    pub protocol: IpsecProtocol,
    /// What belongs to it. COOKIE, COOKIE2, INVALID_KE_PAYLOAD, the NAT_DETECTIONs and the ADDITIONAL_ADDRESSes have lengths
    /// of their own, which were checked.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notification that says it all by its type.
    #[must_use]
    pub fn new(kind: NotifyType) -> Self {
        Self::with_data(kind, Vec::new())
    }

    /// A notification with data.
    #[must_use]
    pub fn with_data(kind: NotifyType, data: Vec<u8>) -> Self {
        Self { kind, spi: None, protocol: IpsecProtocol::Esp, data }
    }

    /// A notification about an ESP SA.
    #[must_use]
    pub fn about(kind: NotifyType, spi: EspSpi) -> Self {
        Self::about_child(kind, IpsecProtocol::Esp, spi)
    }

    /// A notification about a Child SA.
    #[must_use]
    pub fn about_child(kind: NotifyType, protocol: IpsecProtocol, spi: EspSpi) -> Self {
        Self { kind, spi: Some(spi), protocol, data: Vec::new() }
    }

    /// An INVALID_KE_PAYLOAD that asks for `group` (RFC 7296 §1.2).
    #[must_use]
    pub fn invalid_ke(group: u16) -> Self {
        Self::with_data(NotifyType::InvalidKePayload, group.to_be_bytes().to_vec())
    }

    /// The group that an INVALID_KE_PAYLOAD asks for; `None` for any other notification.
    #[must_use]
    pub fn wanted_group(&self) -> Option<u16> {
        let octets = self.data.first_chunk().filter(|_| self.kind == NotifyType::InvalidKePayload)?;
        Some(u16::from_be_bytes(*octets))
    }

    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |  Protocol ID  |   SPI Size    |      Notify Message Type      |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~                Security Parameter Index (SPI)                 ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~                       Notification Data                       ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    pub(super) fn parse(body: &mut Reader<'_>) -> Result<Self, WireError> {
        let offset = body.offset();
        let [protocol, spi_size] = body.array()?;
        let kind = NotifyType::from_number(body.u16()?);
        let spi_field = body.take(usize::from(spi_size))?;
        // With an empty SPI the protocol means nothing (RFC 7296 §3.10).
        let protocol = match Protocol::from_number(protocol) {
            Protocol::Esp => Some(IpsecProtocol::Esp),
            Protocol::Ah => Some(IpsecProtocol::Ah),
            Protocol::Ike | Protocol::Other(_) => None,
        };
        let spi_of_child = protocol.and_then(|_| <[u8; 4]>::try_from(spi_field).ok());
        let spi = spi_of_child.and_then(|field| EspSpi::from_wire(field).ok());
        let protocol = protocol.filter(|_| spi.is_some()).unwrap_or(IpsecProtocol::Esp);
        // CHILD_SA_NOT_FOUND should have one as well, and strongSwan leaves it out: it answers a request that has it.
        if kind == NotifyType::RekeySa && spi.is_none() {
            return Err(body.wrong(offset, "SPI size", "an SPI of ESP or AH, 4 octets, above 255", spi_size));
        }
        // Unknown types must be ignored, so they may have any SPI that fits.
        if !matches!(kind, NotifyType::Other(_)) && !matches!(spi_size, 0 | 4 | 8) {
            return Err(body.wrong(offset, "SPI size", "0, 4 or 8", spi_size));
        }
        if let Some((lengths, expected)) = data_lengths(kind)
            && !lengths.contains(&body.len())
        {
            return Err(body.wrong(body.offset(), "length of notification data", expected, body.len()));
        }
        Ok(Self { kind, spi, protocol, data: body.rest().to_vec() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let protocol = Protocol::from(self.protocol).number();
        let protocol_and_size = if self.spi.is_some() { [protocol, 4] } else { [0, 0] };
        out.extend_from_slice(&protocol_and_size);
        out.extend_from_slice(&self.kind.number().to_be_bytes());
        out.extend(self.spi.iter().flat_map(|spi| spi.to_wire()));
        out.extend_from_slice(&self.data);
    }
}

/// How long the data of those types may be whose data is used here (R7296-2.6-3).
fn data_lengths(kind: NotifyType) -> Option<(RangeInclusive<usize>, &'static str)> {
    if matches!(kind, NotifyType::NatDetectionSourceIp | NotifyType::NatDetectionDestinationIp) {
        Some((20..=20, "20 octets"))
    } else if kind == NotifyType::Cookie {
        Some((1..=MAX_COOKIE_OCTETS, "1 to 64 octets"))
    } else if kind == NotifyType::Cookie2 {
        Some((COOKIE2_OCTETS, "8 to 64 octets"))
    } else if kind == NotifyType::AdditionalIp4Address {
        Some((4..=4, "4 octets"))
    } else if kind == NotifyType::AdditionalIp6Address {
        Some((16..=16, "16 octets"))
    } else if kind == NotifyType::InvalidKePayload {
        Some((2..=2, "2 octets"))
    } else {
        None
    }
}
