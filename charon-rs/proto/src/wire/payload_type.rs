//! Types of payloads (RFC 7296 §3.2 and IANA's registry).

use std::fmt;

/// What a payload is. Every number has a place here; [`PayloadType::is_known`] tells which are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadType {
    /// No (next) payload, 0.
    None,
    /// Security Association, 33.
    SecurityAssociation,
    /// Key Exchange, 34.
    KeyExchange,
    /// Identification - Initiator, 35.
    IdInitiator,
    /// Identification - Responder, 36.
    IdResponder,
    /// Certificate, 37.
    Certificate,
    /// Certificate Request, 38.
    CertificateRequest,
    /// Authentication, 39.
    Authentication,
    /// Nonce, 40.
    Nonce,
    /// Notify, 41.
    Notify,
    /// Delete, 42.
    Delete,
    /// Vendor ID, 43.
    VendorId,
    /// Traffic Selector - Initiator, 44.
    SelectorsInitiator,
    /// Traffic Selector - Responder, 45.
    SelectorsResponder,
    /// Encrypted and Authenticated, 46.
    Encrypted,
    /// Configuration, 47.
    Configuration,
    /// Encrypted and Authenticated Fragment, 53 (RFC 7383).
    EncryptedFragment,
    /// Any other number, assigned or not.
    Other(u8),
}

impl PayloadType {
    /// The type with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            33 => Self::SecurityAssociation,
            34 => Self::KeyExchange,
            35 => Self::IdInitiator,
            36 => Self::IdResponder,
            37 => Self::Certificate,
            38 => Self::CertificateRequest,
            39 => Self::Authentication,
            40 => Self::Nonce,
            41 => Self::Notify,
            42 => Self::Delete,
            43 => Self::VendorId,
            44 => Self::SelectorsInitiator,
            45 => Self::SelectorsResponder,
            46 => Self::Encrypted,
            47 => Self::Configuration,
            53 => Self::EncryptedFragment,
            other => Self::Other(other),
        }
    }

    /// The number of this type.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::SecurityAssociation => 33,
            Self::KeyExchange => 34,
            Self::IdInitiator => 35,
            Self::IdResponder => 36,
            Self::Certificate => 37,
            Self::CertificateRequest => 38,
            Self::Authentication => 39,
            Self::Nonce => 40,
            Self::Notify => 41,
            Self::Delete => 42,
            Self::VendorId => 43,
            Self::SelectorsInitiator => 44,
            Self::SelectorsResponder => 45,
            Self::Encrypted => 46,
            Self::Configuration => 47,
            Self::EncryptedFragment => 53,
            Self::Other(number) => number,
        }
    }

    /// Whether an RFC assigns the number to IKEv2 (33 to 54), so that the critical bit says nothing (RFC 7296 §3.2).
    /// The numbers below are IKEv1's, and here as unknown as those above (R7296-4-1).
    #[must_use]
    pub fn is_known(self) -> bool {
        matches!(self.number(), 33..=54)
    }
}

impl fmt::Display for PayloadType {
    /// The short names of the RFCs, with `No` for nonces, so that `N` always is a Notify.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "message",
            Self::SecurityAssociation => "SA",
            Self::KeyExchange => "KE",
            Self::IdInitiator => "IDi",
            Self::IdResponder => "IDr",
            Self::Certificate => "CERT",
            Self::CertificateRequest => "CERTREQ",
            Self::Authentication => "AUTH",
            Self::Nonce => "No",
            Self::Notify => "N",
            Self::Delete => "D",
            Self::VendorId => "V",
            Self::SelectorsInitiator => "TSi",
            Self::SelectorsResponder => "TSr",
            Self::Encrypted => "SK",
            Self::Configuration => "CP",
            Self::Other(48) => "EAP",
            Self::Other(49) => "GSPM",
            Self::Other(50) => "IDg",
            Self::Other(51) => "GSA",
            Self::Other(52) => "KD",
            Self::EncryptedFragment => "SKF",
            Self::Other(54) => "PS",
            Self::Other(number) => return write!(f, "payload {number}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for number in 0..=u8::MAX {
            assert_eq!(PayloadType::from_number(number).number(), number);
        }
    }
}
