//! Security parameter indexes.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The SPI of an ESP security association (RFC 4303 §2.1): 32 bits, never below 256.
///
/// ```
/// use espdp_api::EspSpi;
/// assert!(EspSpi::from_wire([0, 0, 0, 255]).is_err());
/// assert_eq!(EspSpi::from_wire([0, 0, 1, 0]).unwrap().to_string(), "00000100");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct EspSpi(NonZeroU32);

impl EspSpi {
    /// RFC 4303 §2.1: 0 is for local use, 1 to 255 are kept by IANA.
    pub const FIRST_USABLE: u32 = 256;

    /// Reads the SPI from its four octets in network order.
    ///
    /// # Errors
    /// [`ReservedSpi`] when the value is below [`Self::FIRST_USABLE`].
    pub fn from_wire(field: [u8; 4]) -> Result<Self, ReservedSpi> {
        Self::try_from(u32::from_be_bytes(field))
    }

    /// The four octets in network order.
    #[must_use]
    pub fn to_wire(self) -> [u8; 4] {
        self.0.get().to_be_bytes()
    }

    /// The value in host order.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for EspSpi {
    type Error = ReservedSpi;

    fn try_from(value: u32) -> Result<Self, ReservedSpi> {
        match NonZeroU32::new(value) {
            Some(spi) if value >= Self::FIRST_USABLE => Ok(Self(spi)),
            _ => Err(ReservedSpi(value)),
        }
    }
}

impl From<EspSpi> for u32 {
    fn from(spi: EspSpi) -> Self {
        spi.value()
    }
}

impl fmt::Display for EspSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.value())
    }
}

impl fmt::Debug for EspSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EspSpi({self})")
    }
}

/// An SPI that no ESP packet may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SPI {0} is reserved: usable ESP SPIs start at 256")]
pub struct ReservedSpi(pub u32);
