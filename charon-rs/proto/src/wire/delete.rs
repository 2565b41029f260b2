//! The Delete payload (RFC 7296 §3.11).

use espdp_api::{EspSpi, IpsecProtocol};

use super::error::WireError;
use super::payload_type::PayloadType;
use super::reader::Reader;
use super::security_association::Protocol;

/// SAs that the sender has removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delete {
    /// The IKE SA over which this comes, and with it all its Child SAs.
    IkeSa,
    /// ESP SAs, by the SPIs on which the sender received.
    Esp(Vec<EspSpi>),
    /// AH SAs, likewise.
    Ah(Vec<EspSpi>),
}

impl Delete {
    /// Child SAs of one protocol.
    #[must_use]
    pub fn children(protocol: IpsecProtocol, spis: Vec<EspSpi>) -> Self {
        match protocol {
            IpsecProtocol::Esp => Self::Esp(spis),
            IpsecProtocol::Ah => Self::Ah(spis),
        }
    }

    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// | Protocol ID   |   SPI Size    |          Num of SPIs          |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~               Security Parameter Index(es) (SPI)              ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    /// Reserved SPIs belong to no SA and are left out.
    pub(super) fn parse(body: &mut Reader<'_>) -> Result<Self, WireError> {
        let offset = body.offset();
        let [protocol, spi_size] = body.array()?;
        let count = usize::from(body.u16()?);
        let protocol = Protocol::from_number(protocol);
        let expected_size = match protocol {
            Protocol::Ike => 0,
            Protocol::Ah | Protocol::Esp => 4,
            Protocol::Other(number) => {
                return Err(body.wrong(offset, "protocol", "1 (IKE), 2 (AH) or 3 (ESP)", number));
            }
        };
        if spi_size != expected_size {
            let expected = if expected_size == 0 { "0 for IKE" } else { "4 for AH and ESP" };
            return Err(body.wrong(offset, "SPI size", expected, spi_size));
        }
        if protocol == Protocol::Ike {
            return if count == 0 {
                Ok(Self::IkeSa)
            } else {
                Err(body.wrong(offset, "number of SPIs", "0 for IKE", count))
            };
        }
        let mut fields = body.part(count.saturating_mul(4))?;
        let mut spis = Vec::with_capacity(count);
        while !fields.is_empty() {
            spis.extend(EspSpi::from_wire(fields.array()?).ok());
        }
        Ok(if protocol == Protocol::Ah { Self::Ah(spis) } else { Self::Esp(spis) })
    }

    /// The SPIs of SAs of one protocol.
    #[must_use]
    pub fn spis(&self, protocol: IpsecProtocol) -> &[EspSpi] {
        match (self, protocol) {
            (Self::Esp(spis), IpsecProtocol::Esp) | (Self::Ah(spis), IpsecProtocol::Ah) => spis,
            (Self::IkeSa | Self::Esp(_) | Self::Ah(_), _) => &[],
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        match self {
            Self::IkeSa => out.extend_from_slice(&[Protocol::Ike.number(), 0, 0, 0]),
            Self::Esp(spis) | Self::Ah(spis) => {
                let protocol = if matches!(self, Self::Ah(_)) { Protocol::Ah } else { Protocol::Esp };
                let (found, limit) = (spis.len(), usize::from(u16::MAX));
                let payload = PayloadType::Delete;
                let count =
                    u16::try_from(found).map_err(|_| WireError::TooLong { payload, what: "SPIs", found, limit })?;
                out.extend_from_slice(&[protocol.number(), 4]);
                out.extend_from_slice(&count.to_be_bytes());
                spis.iter().for_each(|spi| out.extend_from_slice(&spi.to_wire()));
            }
        }
        Ok(())
    }
}
