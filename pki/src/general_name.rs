//! The names that certificates carry besides the distinguished name (RFC 5280 §4.2.1.6).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use der::Encode;
use der::asn1::{Ia5String, OctetString};
use x509_cert::ext::pkix::name::GeneralName as Encoded;
use x509_cert::name::Name;

use crate::dn::{DistinguishedName, DnTextError};

/// A name of a certificate's subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GeneralName {
    /// A host name (`dNSName`).
    Dns(String),
    /// A mail address (`rfc822Name`).
    Email(String),
    /// An address (`iPAddress`).
    Ip(IpAddr),
    /// A distinguished name (`directoryName`).
    Directory(DistinguishedName),
    /// A URI.
    Uri(String),
    /// A kind of name that we only pass on.
    Other(OtherKind),
}

/// The kinds of names that nothing here looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OtherKind {
    /// `otherName`, for example a Kerberos principal.
    OtherName,
    /// `ediPartyName`
    EdiParty,
    /// `registeredID`
    RegisteredId,
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameTextError {
    /// Not a distinguished name although there is a `=`.
    #[error("`{text}` is no distinguished name: {why}")]
    Dn {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: DnTextError,
    },
    /// A prefix that means another kind of name than follows.
    #[error("`{0}` is not of the kind that its prefix says")]
    Prefix(String),
    /// Not ASCII, or empty.
    #[error("`{0}` is no name: it must be ASCII and not empty")]
    Characters(String),
}

impl GeneralName {
    pub(crate) fn from_encoded(name: &Encoded) -> der::Result<Self> {
        Ok(match name {
            Encoded::DnsName(name) => Self::Dns(name.as_str().to_owned()),
            Encoded::Rfc822Name(address) => Self::Email(address.as_str().to_owned()),
            Encoded::UniformResourceIdentifier(uri) => Self::Uri(uri.as_str().to_owned()),
            Encoded::DirectoryName(name) => Self::Directory(DistinguishedName::from_name(name)?),
            Encoded::IpAddress(octets) => Self::Ip(
                address(octets.as_bytes()).ok_or_else(|| der::Error::from(der::Tag::OctetString.length_error()))?,
            ),
            Encoded::OtherName(_) => Self::Other(OtherKind::OtherName),
            Encoded::EdiPartyName(_) => Self::Other(OtherKind::EdiParty),
            Encoded::RegisteredId(_) => Self::Other(OtherKind::RegisteredId),
        })
    }

    /// `None` for [`Self::Other`] and for what is not ASCII.
    pub(crate) fn to_encoded(&self) -> Option<Encoded> {
        Some(match self {
            Self::Dns(name) => Encoded::DnsName(Ia5String::new(name).ok()?),
            Self::Email(address) => Encoded::Rfc822Name(Ia5String::new(address).ok()?),
            Self::Uri(uri) => Encoded::UniformResourceIdentifier(Ia5String::new(uri).ok()?),
            Self::Directory(name) => Encoded::DirectoryName(name.to_name().ok()?),
            Self::Ip(IpAddr::V4(address)) => Encoded::IpAddress(OctetString::new(address.octets()).ok()?),
            Self::Ip(IpAddr::V6(address)) => Encoded::IpAddress(OctetString::new(address.octets()).ok()?),
            Self::Other(_) => return None,
        })
    }
}

impl FromStr for GeneralName {
    type Err = NameTextError;

    /// Reads what one writes: `moon.example.org`, `moon@example.org`, `192.0.2.1`, `CN=moon`, `https://example.org`; or with
    /// the kind in front: `dns:`, `email:`, `ip:`, `dn:`, `uri:` (and `fqdn:`, `rfc822:`).
    fn from_str(text: &str) -> Result<Self, NameTextError> {
        let text = text.trim();
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) if KINDS.contains(&kind.to_ascii_lowercase().as_str()) => {
                (kind.to_ascii_lowercase(), rest.trim())
            }
            _ => (String::new(), text),
        };
        if !rest.is_ascii() && !rest.contains('=') || rest.is_empty() {
            return Err(NameTextError::Characters(text.to_owned()));
        }
        match kind.as_str() {
            "dns" | "fqdn" => Ok(Self::Dns(rest.to_owned())),
            "email" | "rfc822" => Ok(Self::Email(rest.to_owned())),
            "ip" => rest.parse().map(Self::Ip).map_err(|_| NameTextError::Prefix(text.to_owned())),
            "uri" => Ok(Self::Uri(rest.to_owned())),
            "dn" => directory(rest),
            _ => guess(rest),
        }
    }
}

impl fmt::Display for GeneralName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) | Self::Email(text) | Self::Uri(text) => {
                text.bytes().try_for_each(|octet| write!(f, "{}", octet.escape_ascii()))
            }
            Self::Ip(address) => address.fmt(f),
            Self::Directory(name) => name.fmt(f),
            Self::Other(kind) => f.write_str(match kind {
                OtherKind::OtherName => "(otherName)",
                OtherKind::EdiParty => "(ediPartyName)",
                OtherKind::RegisteredId => "(registeredID)",
            }),
        }
    }
}

impl DistinguishedName {
    pub(crate) fn from_name(name: &Name) -> der::Result<Self> {
        Self::from_der(&name.to_der()?).map_err(|_| der::Tag::Sequence.value_error().into())
    }

    pub(crate) fn to_name(&self) -> der::Result<Name> {
        der::Decode::from_der(self.der())
    }
}

/// Four or sixteen octets as an address.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => <[u8; 16]>::try_from(octets).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

fn guess(text: &str) -> Result<GeneralName, NameTextError> {
    if let Ok(address) = text.parse() {
        Ok(GeneralName::Ip(address))
    } else if text.contains("://") {
        Ok(GeneralName::Uri(text.to_owned()))
    } else if text.contains('=') {
        directory(text)
    } else if let Some(fqdn) = text.strip_prefix('@') {
        // strongSwan's way of saying "a host name, whatever it looks like".
        Ok(GeneralName::Dns(fqdn.to_owned()))
    } else if text.contains('@') {
        Ok(GeneralName::Email(text.to_owned()))
    } else {
        Ok(GeneralName::Dns(text.to_owned()))
    }
}

fn directory(text: &str) -> Result<GeneralName, NameTextError> {
    match text.parse() {
        Ok(name) => Ok(GeneralName::Directory(name)),
        Err(why) => Err(NameTextError::Dn { text: text.to_owned(), why }),
    }
}

const KINDS: [&str; 7] = ["dns", "fqdn", "email", "rfc822", "ip", "uri", "dn"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_name_is_seen_or_said() {
        let dn: DistinguishedName = "C=CH, CN=moon".parse().unwrap();
        for (text, name) in [
            ("moon.example.org", GeneralName::Dns("moon.example.org".into())),
            ("@moon", GeneralName::Dns("moon".into())),
            ("moon@example.org", GeneralName::Email("moon@example.org".into())),
            ("192.0.2.1", GeneralName::Ip([192, 0, 2, 1].into())),
            ("2001:db8::1", GeneralName::Ip("2001:db8::1".parse().unwrap())),
            ("C=CH, CN=moon", GeneralName::Directory(dn.clone())),
            ("https://example.org/x", GeneralName::Uri("https://example.org/x".into())),
            ("dns:192.0.2.1", GeneralName::Dns("192.0.2.1".into())),
            ("IP:192.0.2.1", GeneralName::Ip([192, 0, 2, 1].into())),
            ("uri:urn:x", GeneralName::Uri("urn:x".into())),
            ("dn:C=CH, CN=moon", GeneralName::Directory(dn)),
        ] {
            assert_eq!(text.parse(), Ok(name.clone()), "{text}");
            let encoded = name.to_encoded().unwrap();
            assert_eq!(GeneralName::from_encoded(&encoded), Ok(name));
        }
    }

    #[test]
    fn what_is_no_name_is_an_error() {
        for (text, message) in [
            ("", "`` is no name: it must be ASCII and not empty"),
            ("mönd.example.org", "`mönd.example.org` is no name: it must be ASCII and not empty"),
            ("ip:moon", "`ip:moon` is not of the kind that its prefix says"),
            ("CX=moon", "`CX=moon` is no distinguished name: no attribute is called `CX`"),
        ] {
            assert_eq!(text.parse::<GeneralName>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn control_characters_do_not_reach_a_log() {
        assert_eq!(GeneralName::Dns("a\nb\u{1b}".into()).to_string(), "a\\nb\\x1b");
    }
}
