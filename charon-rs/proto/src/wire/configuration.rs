//! The Configuration payload (RFC 7296 §3.15, RFC 8598 §4).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::WireError;
use super::payload_type::PayloadType;
use super::reader::Reader;

/// Attributes in one payload: far more than a network has addresses, servers and domains to tell a client of.
pub const MAX_CONFIGURATION_ATTRIBUTES: usize = 256;

/// The longest domain name, in octets.
const MAX_DOMAIN_OCTETS: usize = 253;

/// Requests for addresses and what belongs to them, and the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What it is about.
    pub kind: ConfigurationKind,
    /// What is wanted or given, in the sender's order.
    pub attributes: Vec<ConfigurationAttribute>,
}

/// What the sender of a Configuration payload wants (CFG Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationKind {
    /// CFG_REQUEST, 1: it wants to know.
    Request,
    /// CFG_REPLY, 2: it was asked.
    Reply,
    /// CFG_SET, 3: it wants the other end to change.
    Set,
    /// CFG_ACK, 4: it has changed.
    Ack,
    /// Any other number.
    Other(u8),
}

impl ConfigurationKind {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Reply,
            3 => Self::Set,
            4 => Self::Ack,
            other => Self::Other(other),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::Set => 3,
            Self::Ack => 4,
            Self::Other(number) => number,
        }
    }
}

/// One attribute. Those without a value ask for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigurationAttribute {
    /// INTERNAL_IP4_ADDRESS, 1.
    Ip4Address(Option<Ipv4Addr>),
    /// INTERNAL_IP4_DNS, 3.
    Ip4Dns(Option<Ipv4Addr>),
    /// INTERNAL_IP6_ADDRESS, 8: with the length of its prefix in bits.
    Ip6Address(Option<(Ipv6Addr, u8)>),
    /// INTERNAL_IP6_DNS, 10.
    Ip6Dns(Option<Ipv6Addr>),
    /// INTERNAL_DNS_DOMAIN, 25 (RFC 8598): a domain whose names the servers know. Letters, digits, dots, hyphens and underscores.
    DnsDomain(Option<String>),
    /// Any other one, or a domain with other characters. Those that nobody here knows are left aside (R7296-3.15.1-1).
    Other {
        /// The type, of 15 bits.
        kind: u16,
        /// Its value.
        value: Vec<u8>,
    },
}

const IP4_ADDRESS: u16 = 1;
const IP4_DNS: u16 = 3;
const IP6_ADDRESS: u16 = 8;
const IP6_DNS: u16 = 10;
const DNS_DOMAIN: u16 = 25;

/// The bit of the attribute's type that is reserved.
const RESERVED: u16 = 0x8000;

impl Configuration {
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |   CFG Type    |                    RESERVED                   |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~                   Configuration Attributes                    ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    pub(super) fn parse(body: &mut Reader<'_>) -> Result<Self, WireError> {
        let [kind, _, _, _] = body.array()?;
        let mut attributes = Vec::new();
        while !body.is_empty() {
            if attributes.len() == MAX_CONFIGURATION_ATTRIBUTES {
                let (payload, offset) = (PayloadType::Configuration, body.offset());
                let (what, limit) = ("attributes", MAX_CONFIGURATION_ATTRIBUTES);
                return Err(WireError::TooMany { payload, offset, what, limit });
            }
            attributes.push(ConfigurationAttribute::parse(body)?);
        }
        Ok(Self { kind: ConfigurationKind::from_number(kind), attributes })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        out.extend_from_slice(&[self.kind.number(), 0, 0, 0]);
        self.attributes.iter().try_for_each(|attribute| attribute.encode(out))
    }
}

impl ConfigurationAttribute {
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |R|         Attribute Type      |            Length             |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~                             Value                             ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    fn parse(body: &mut Reader<'_>) -> Result<Self, WireError> {
        let offset = body.offset();
        let kind = body.u16()? & !RESERVED;
        let length = body.u16()?;
        let mut value = body.part(usize::from(length))?;
        let wrong = |expected| Err(value.wrong(offset, "length of a configuration attribute", expected, length));
        Ok(match (kind, length) {
            (IP4_ADDRESS, 0) => Self::Ip4Address(None),
            (IP4_ADDRESS, 4) => Self::Ip4Address(Some(value.array::<4>()?.into())),
            (IP4_DNS, 0) => Self::Ip4Dns(None),
            (IP4_DNS, 4) => Self::Ip4Dns(Some(value.array::<4>()?.into())),
            (IP4_ADDRESS | IP4_DNS, _) => return wrong("0 or 4"),
            (IP6_ADDRESS, 0) => Self::Ip6Address(None),
            (IP6_ADDRESS, 17) => {
                let address = value.array::<16>()?.into();
                let [bits] = value.array()?;
                if bits > 128 {
                    return Err(value.wrong(offset, "prefix length", "at most 128", bits));
                }
                Self::Ip6Address(Some((address, bits)))
            }
            // As the first drafts had it, and some clients still do.
            (IP6_ADDRESS, 16) => Self::Ip6Address(Some((value.array::<16>()?.into(), 128))),
            (IP6_ADDRESS, _) => return wrong("0 or 17"),
            (IP6_DNS, 0) => Self::Ip6Dns(None),
            (IP6_DNS, 16) => Self::Ip6Dns(Some(value.array::<16>()?.into())),
            (IP6_DNS, _) => return wrong("0 or 16"),
            (DNS_DOMAIN, 0) => Self::DnsDomain(None),
            (_, _) => {
                let value = value.rest();
                match domain(value).filter(|_| kind == DNS_DOMAIN) {
                    Some(name) => Self::DnsDomain(Some(name)),
                    None => Self::Other { kind, value: value.to_vec() },
                }
            }
        })
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let (kind, value) = match self {
            Self::Ip4Address(address) => (IP4_ADDRESS, octets_of(*address)),
            Self::Ip4Dns(address) => (IP4_DNS, octets_of(*address)),
            Self::Ip6Address(address) => {
                let with_bits = |(address, bits): (Ipv6Addr, u8)| [&address.octets()[..], &[bits]].concat();
                (IP6_ADDRESS, address.map(with_bits).unwrap_or_default())
            }
            Self::Ip6Dns(address) => (IP6_DNS, address.map(|address| address.octets().to_vec()).unwrap_or_default()),
            Self::DnsDomain(name) => (DNS_DOMAIN, name.clone().unwrap_or_default().into_bytes()),
            Self::Other { kind, value } => (*kind & !RESERVED, value.clone()),
        };
        let (payload, found, limit) = (PayloadType::Configuration, value.len(), usize::from(u16::MAX));
        let what = "octets of an attribute";
        let length = u16::try_from(found).map_err(|_| WireError::TooLong { payload, what, found, limit })?;
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&value);
        Ok(())
    }

    /// A domain name, if it is one: what goes on to programs and files must not mean anything else there.
    #[must_use]
    pub fn of_domain(name: &str) -> Option<Self> {
        domain(name.as_bytes()).map(|name| Self::DnsDomain(Some(name)))
    }
}

fn octets_of(address: Option<Ipv4Addr>) -> Vec<u8> {
    address.map(|address| address.octets().to_vec()).unwrap_or_default()
}

/// RFC 8598 §4.1: the name as it is written, with A-labels.
fn domain(octets: &[u8]) -> Option<String> {
    let is_usual = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    let fits = (1..=MAX_DOMAIN_OCTETS).contains(&octets.len()) && octets.iter().all(is_usual);
    let name = std::str::from_utf8(octets).ok().filter(|_| fits)?;
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
    starts_well.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(octets: &[u8]) -> Result<Configuration, WireError> {
        let mut reader = Reader::new(PayloadType::Configuration, octets, 0);
        let parsed = Configuration::parse(&mut reader)?;
        reader.finish()?;
        Ok(parsed)
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&[1, 0, 0, 0][..], &kind.to_be_bytes(), &length.to_be_bytes(), value].concat()
    }

    #[test]
    fn a_request_of_all_kinds_comes_back_as_it_was() {
        let request = Configuration {
            kind: ConfigurationKind::Request,
            attributes: vec![
                ConfigurationAttribute::Ip4Address(None),
                ConfigurationAttribute::Ip4Address(Some([10, 3, 0, 1].into())),
                ConfigurationAttribute::Ip6Address(None),
                ConfigurationAttribute::Ip6Address(Some(("fec3::1".parse().unwrap(), 64))),
                ConfigurationAttribute::Ip4Dns(None),
                ConfigurationAttribute::Ip6Dns(Some("fec3::53".parse().unwrap())),
                ConfigurationAttribute::DnsDomain(None),
                ConfigurationAttribute::of_domain("corp.example").unwrap(),
                ConfigurationAttribute::Other { kind: 7, value: b"charon".to_vec() },
            ],
        };
        let mut octets = Vec::new();
        request.encode(&mut octets).unwrap();
        assert_eq!(parse(&octets), Ok(request));
        assert_eq!(octets[..12], [1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 4]);
    }

    #[test]
    fn the_reserved_bits_mean_nothing() {
        let octets = [2, 0xff, 0xff, 0xff, 0x80, 1, 0, 4, 10, 3, 0, 1];
        let address = ConfigurationAttribute::Ip4Address(Some([10, 3, 0, 1].into()));
        assert_eq!(parse(&octets), Ok(Configuration { kind: ConfigurationKind::Reply, attributes: vec![address] }));
    }

    #[test]
    fn every_length_but_the_right_ones_is_refused() {
        for (kind, right) in
            [(IP4_ADDRESS, &[0, 4][..]), (IP4_DNS, &[0, 4]), (IP6_ADDRESS, &[0, 16, 17]), (IP6_DNS, &[0, 16])]
        {
            for length in 0..40 {
                let parsed = parse(&attribute(kind, &vec![1; length]));
                assert_eq!(parsed.is_ok(), right.contains(&length), "{kind} with {length} octets");
            }
        }
        assert!(parse(&attribute(IP6_ADDRESS, &[129; 17])).is_err(), "no prefix is that long");
    }

    #[test]
    fn an_attribute_beyond_the_payload_is_refused() {
        let whole = attribute(IP4_ADDRESS, &[10, 3, 0, 1]);
        for length in 0..whole.len() {
            let parsed = parse(&whole[..length]);
            assert_eq!(parsed.is_ok(), length == 4, "{length} octets");
        }
    }

    /// R7296-3.15.1-1.
    #[test]
    fn unknown_attributes_are_kept_apart_and_harm_nothing() {
        for kind in [0, 5, 16, 26, 27, 16384, 0x7fff] {
            let parsed = parse(&attribute(kind, b"what?")).unwrap();
            assert_eq!(parsed.attributes, [ConfigurationAttribute::Other { kind, value: b"what?".to_vec() }]);
        }
    }

    #[test]
    fn a_domain_that_could_mean_something_else_is_no_domain() {
        for name in ["$(reboot)", "a b", "x;y", "a\nb", "-rf", "../etc", "b\u{e4}r", &"a".repeat(254)] {
            let parsed = parse(&attribute(DNS_DOMAIN, name.as_bytes())).unwrap();
            assert!(matches!(parsed.attributes[..], [ConfigurationAttribute::Other { .. }]), "{name}");
            assert_eq!(ConfigurationAttribute::of_domain(name), None);
        }
        assert!(ConfigurationAttribute::of_domain("_tcp.corp-1.example").is_some());
    }

    #[test]
    fn a_flood_of_attributes_is_refused() {
        let flood = |count: usize| [&[1, 0, 0, 0][..], &[0, 1, 0, 0].repeat(count)].concat();
        assert_eq!(parse(&flood(256)).unwrap().attributes.len(), MAX_CONFIGURATION_ATTRIBUTES);
        assert!(matches!(parse(&flood(257)), Err(WireError::TooMany { limit: 256, .. })));
    }
}
