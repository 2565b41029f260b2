//! Bridge domains: Ethernet segments that the dataplane itself switches.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{InterfaceName, MacAddress};

/// The name of a bridge domain: 1 to 32 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BridgeName(String);

impl BridgeName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`BridgeNameError`] when it is empty, too long, or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, BridgeNameError> {
        let name = name.into();
        let fits = (1..=32).contains(&name.len());
        if !fits || name.bytes().any(|c| !c.is_ascii_alphanumeric() && !b"-_.".contains(&c)) {
            return Err(BridgeNameError(name));
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BridgeName {
    type Error = BridgeNameError;

    fn try_from(name: String) -> Result<Self, BridgeNameError> {
        Self::new(name)
    }
}

impl From<BridgeName> for String {
    fn from(name: BridgeName) -> Self {
        name.0
    }
}

impl fmt::Display for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a bridge domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a bridge domain: 1 to 32 letters, digits, `-`, `_` and `.`")]
pub struct BridgeNameError(pub String);

/// That an interface is a port of a bridge domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// The domain.
    pub bridge: BridgeName,
    /// Ports of the same group do not forward to each other, so that a full mesh of tunnels has no loop; 0 is no group.
    pub split_horizon: u8,
}

/// A bridge domain, whose ports are the interfaces that name it in [`BridgePort::bridge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeSpec {
    /// Its name.
    pub name: BridgeName,
    /// Whether it learns behind which port a station is from the frames that the station sends.
    pub learning: bool,
    /// What is sent to all ports.
    pub flood: Flood,
    /// How long a learned station is remembered after its last frame.
    pub age: Duration,
    /// Stations that are where they are, whatever is learned.
    pub stations: Vec<StaticStation>,
    /// Who has which address: requests for these (ARP, IPv6 neighbour solicitations) are answered here, not forwarded.
    pub neighbours: Vec<Neighbour>,
    /// Whether neighbours are also learned, from what stations say about themselves.
    pub learn_neighbours: bool,
}

impl BridgeSpec {
    /// How long a learned station is remembered unless told otherwise (IEEE 802.1Q-2018 table 8-6: 300 seconds).
    pub const AGE: Duration = Duration::from_secs(300);

    /// A learning, flooding domain without static entries.
    #[must_use]
    pub fn new(name: BridgeName) -> Self {
        Self {
            name,
            learning: true,
            flood: Flood::All,
            age: Self::AGE,
            stations: Vec::new(),
            neighbours: Vec::new(),
            learn_neighbours: false,
        }
    }
}

/// Which frames are sent to all ports of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flood {
    /// Broadcast, multicast, and frames to stations that nobody knows.
    All,
    /// Broadcast and multicast only.
    Groups,
    /// None: only what is known is forwarded.
    Nothing,
}

/// A station that is known without learning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticStation {
    /// Its address.
    pub mac: MacAddress,
    /// The port that it is behind; while this is no port of the domain, frames to the station are dropped.
    pub interface: InterfaceName,
}

/// Who has an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The IP address.
    pub address: IpAddr,
    /// The station that has it.
    pub mac: MacAddress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_other_characters_or_lengths_are_refused() {
        assert_eq!(BridgeName::new("lan-1.a_b").unwrap().as_str(), "lan-1.a_b");
        for name in ["", "a b", "a/b", "bä", "a".repeat(33).as_str()] {
            assert_eq!(BridgeName::new(name), Err(BridgeNameError(name.to_owned())));
        }
    }
}
