//! Identities of peers (RFC 7296 §3.5) and patterns that match them.

mod dn;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Who a peer says it is. The octets of the Identification payload follow from the variant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN, compared without regard to case.
    Fqdn(String),
    /// ID_RFC822_ADDR, the domain compared without regard to case.
    Rfc822(String),
    /// ID_DER_ASN1_DN: the DER encoding of a distinguished name, with the text it was made from or prints as.
    Dn {
        /// The DER encoding.
        der: Vec<u8>,
        /// For people: `C=CH, O=strongSwan, CN=moon`.
        text: String,
    },
    /// ID_KEY_ID: octets without further meaning.
    KeyId(Vec<u8>),
}

/// Which identities a connection accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityPattern {
    /// Any identity (`%any`).
    Any,
    /// Just this one.
    Exactly(Identity),
    /// A host name under this domain, one or more labels: `*.example.org`.
    FqdnUnder(String),
    /// A mail address in this domain: `*@example.org`.
    Rfc822In(String),
    /// A distinguished name like this one, where `*` stands for any value of an attribute: `C=CH, O=strongSwan, CN=*`.
    Dn {
        /// The DER encoding, with a string of `*` where any value will do.
        der: Vec<u8>,
        /// For people.
        text: String,
    },
}

impl Identity {
    /// The distinguished name that a peer sent: with its text, or in hexadecimal (RFC 4514 §2.4) if there is none.
    pub(crate) fn from_dn(der: &[u8]) -> Self {
        let hexadecimal =
            || std::iter::once("#".to_owned()).chain(der.iter().map(|octet| format!("{octet:02x}"))).collect();
        Self::Dn { der: der.to_vec(), text: dn::text(der).unwrap_or_else(hexadecimal) }
    }

    /// Whether both name the same peer. Distinguished names are compared as RFC 5280 §7.1 does it.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) => a.eq_ignore_ascii_case(b),
            (Self::Rfc822(a), Self::Rfc822(b)) => match (a.rsplit_once('@'), b.rsplit_once('@')) {
                (Some((user_a, domain_a)), Some((user_b, domain_b))) => {
                    user_a == user_b && domain_a.eq_ignore_ascii_case(domain_b)
                }
                _ => a == b,
            },
            (Self::Dn { der: a, .. }, Self::Dn { der: b, .. }) => dn::is_same(a, b),
            _ => self == other,
        }
    }
}

impl Identity {
    /// The form that is equal for identities that name the same peer: with lower-case names of hosts, and with octets for
    /// distinguished names that depend on their meaning alone and are no DER.
    #[must_use]
    pub fn canonical(&self) -> Self {
        match self {
            Self::Fqdn(name) => Self::Fqdn(name.to_ascii_lowercase()),
            Self::Rfc822(address) => Self::Rfc822(match address.rsplit_once('@') {
                Some((user, domain)) => format!("{user}@{}", domain.to_ascii_lowercase()),
                None => address.clone(),
            }),
            Self::Dn { der, .. } => Self::Dn { der: dn::canonical(der), text: String::new() },
            Self::Ipv4(_) | Self::Ipv6(_) | Self::KeyId(_) => self.clone(),
        }
    }
}

impl IdentityPattern {
    /// Whether `identity` is one of those meant.
    #[must_use]
    pub fn matches(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Any, _) => true,
            (Self::Exactly(wanted), _) => wanted.same_as(identity),
            (Self::FqdnUnder(domain), Identity::Fqdn(name)) => {
                name.len().checked_sub(domain.len()).and_then(|cut| name.get(..cut).zip(name.get(cut..))).is_some_and(
                    |(host, tail)| host.len() > 1 && host.ends_with('.') && tail.eq_ignore_ascii_case(domain),
                )
            }
            (Self::Rfc822In(domain), Identity::Rfc822(address)) => address
                .rsplit_once('@')
                .is_some_and(|(user, tail)| !user.is_empty() && tail.eq_ignore_ascii_case(domain)),
            (Self::Dn { der: pattern, .. }, Identity::Dn { der, .. }) => dn::matches(pattern, der),
            (Self::FqdnUnder(_) | Self::Rfc822In(_) | Self::Dn { .. }, _) => false,
        }
    }
}

impl IdentityPattern {
    /// Whether only one identity is meant.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exactly(_))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => address.fmt(f),
            Self::Ipv6(address) => address.fmt(f),
            Self::Fqdn(name) | Self::Rfc822(name) => f.write_str(&printable(name.as_bytes())),
            Self::Dn { text, .. } => f.write_str(&printable(text.as_bytes())),
            Self::KeyId(octets) if octets.iter().all(|octet| matches!(octet, b' '..=b'~')) => {
                f.write_str(&printable(octets))
            }
            Self::KeyId(octets) => {
                f.write_str("@#")?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("%any"),
            Self::Exactly(identity) => identity.fmt(f),
            Self::FqdnUnder(domain) => write!(f, "*.{domain}"),
            Self::Rfc822In(domain) => write!(f, "*@{domain}"),
            Self::Dn { text, .. } => f.write_str(text),
        }
    }
}

/// A peer's octets as text that can do no harm in a log: everything but printable ASCII is escaped.
fn printable(octets: &[u8]) -> String {
    octets.iter().flat_map(|&octet| octet.escape_ascii()).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_name_the_same_peer_if_their_canonical_forms_are_equal() {
        let dn = |der: &[u8], text: &str| Identity::Dn { der: der.to_vec(), text: text.to_owned() };
        let all = [
            Identity::Fqdn("sun.example".into()),
            Identity::Fqdn("SUN.Example".into()),
            Identity::Fqdn("moon.example".into()),
            Identity::Rfc822("carol@sun.example".into()),
            Identity::Rfc822("carol@Sun.Example".into()),
            Identity::Rfc822("Carol@sun.example".into()),
            Identity::Rfc822("sun.example".into()),
            Identity::Rfc822("SUN.example".into()),
            dn(&[1], "CN=sun"),
            dn(&[1], "cn=sun"),
            dn(&[2], "CN=sun"),
            Identity::KeyId(b"sun.example".to_vec()),
            Identity::Ipv4([192, 0, 2, 1].into()),
            Identity::Ipv6(Ipv6Addr::LOCALHOST),
        ];
        for one in &all {
            for other in &all {
                assert_eq!(one.same_as(other), one.canonical() == other.canonical(), "{one:?}, {other:?}");
            }
        }
    }

    #[test]
    fn names_are_compared_without_regard_to_case() {
        assert!(Identity::Fqdn("Moon.Example.org".into()).same_as(&Identity::Fqdn("moon.example.ORG".into())));
        assert!(!Identity::Fqdn("moon".into()).same_as(&Identity::KeyId(b"moon".to_vec())));
    }

    #[test]
    fn wildcards_want_at_least_one_label_in_front() {
        let pattern = IdentityPattern::FqdnUnder("example.org".into());
        assert!(pattern.matches(&Identity::Fqdn("a.b.EXAMPLE.org".into())));
        assert!(!pattern.matches(&Identity::Fqdn("example.org".into())));
        assert!(!pattern.matches(&Identity::Fqdn("badexample.org".into())));
        assert!(!pattern.matches(&Identity::Fqdn(".example.org".into())));
        assert!(!pattern.matches(&Identity::Rfc822("a@a.example.org".into())));
    }

    #[test]
    fn a_peers_name_cannot_inject_control_characters() {
        assert_eq!(Identity::Fqdn("a\n\u{1b}[2J".into()).to_string(), "a\\n\\x1b[2J");
    }

    #[test]
    fn key_identifiers_that_are_no_text_print_as_they_are_configured() {
        assert_eq!(Identity::KeyId(vec![0x0a, 0x1b, 0xff]).to_string(), "@#0a1bff");
        assert_eq!(Identity::KeyId(b"gate 7".to_vec()).to_string(), "gate 7");
    }
}
