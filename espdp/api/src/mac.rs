//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet (MAC) address, in the order in which it is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// All stations of a segment.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address with these octets.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether it stands for several stations, perhaps for all: the group bit, the lowest of the first octet, is set.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether it can be the address of one station: no group address, and not all zeros.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    /// Reads six hexadecimal octets between colons or hyphens.
    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let wrong = || MacAddressError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no MAC address: six hexadecimal octets between colons, such as 02:00:5e:00:53:01")]
pub struct MacAddressError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        let address = MacAddress::new([0x02, 0, 0x5e, 0xff, 0x53, 1]);
        assert_eq!(address.to_string(), "02:00:5e:ff:53:01");
        assert_eq!(address.to_string().parse(), Ok(address));
        assert_eq!("02-00-5E-FF-53-01".parse(), Ok(address));
    }

    #[test]
    fn other_texts_are_refused_with_the_form_that_is_expected() {
        for text in
            ["", "02:00:5e:00:53", "02:00:5e:00:53:01:02", "2:0:5e:0:53:1", "02:00:5e:00:53:0g", "02:00:5e:00:53:+1"]
        {
            let error = text.parse::<MacAddress>().unwrap_err();
            assert!(error.to_string().contains("02:00:5e:00:53:01"), "{error}");
        }
    }

    #[test]
    fn group_and_zero_addresses_are_no_stations() {
        let of = |text: &str| text.parse::<MacAddress>().unwrap();
        assert!(MacAddress::BROADCAST.is_group() && of("01:00:5e:00:00:01").is_group());
        assert!(of("02:00:5e:00:53:01").is_station());
        for no_station in ["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "00:00:00:00:00:00"] {
            assert!(!of(no_station).is_station(), "{no_station}");
        }
    }
}
