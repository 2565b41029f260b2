//! Whether an IKE identity is a name of a certificate.
//!
//! As strongSwan does it: the identity must be one of the alternative names, or be the whole subject. A common name is no
//! host name, and a wildcard in a certificate stands for nothing but itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::certificate::Certificate;
use crate::dn::DistinguishedName;
use crate::general_name::GeneralName;

/// An identity that a certificate can speak for (RFC 7296 §3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    /// ID_IPV4_ADDR
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR
    Ipv6(Ipv6Addr),
    /// ID_FQDN
    Fqdn(&'a str),
    /// ID_RFC822_ADDR
    Rfc822(&'a str),
    /// ID_DER_ASN1_DN: the DER, whoever it comes from.
    Dn(&'a [u8]),
    /// ID_KEY_ID: the subjectKeyIdentifier of the certificate.
    KeyId(&'a [u8]),
}

impl Certificate {
    /// Whether the identity is a name of this certificate (R4301-4.4.3.2-1). Case does not count in host names and behind
    /// the `@`, distinguished names are compared as RFC 5280 §7.1 says.
    ///
    /// ```text
    /// Ipv4, Ipv6   iPAddress               Dn     subject, directoryName
    /// Fqdn         dNSName                 KeyId  subjectKeyIdentifier
    /// Rfc822       rfc822Name
    /// ```
    #[must_use]
    pub fn has_identity(&self, identity: Identity<'_>) -> bool {
        let alternative = |matches: &dyn Fn(&GeneralName) -> bool| self.alternative_names().iter().any(matches);
        match identity {
            Identity::Ipv4(wanted) => alternative(&|name| *name == GeneralName::Ip(IpAddr::V4(wanted))),
            Identity::Ipv6(wanted) => alternative(&|name| *name == GeneralName::Ip(IpAddr::V6(wanted))),
            Identity::Fqdn(wanted) => {
                !wanted.is_empty()
                    && alternative(&|name| matches!(name, GeneralName::Dns(host) if host.eq_ignore_ascii_case(wanted)))
            }
            Identity::Rfc822(wanted) => {
                !wanted.is_empty()
                    && alternative(&|name| matches!(name, GeneralName::Email(address) if same_mailbox(address, wanted)))
            }
            Identity::Dn(der) => DistinguishedName::from_der(der).is_ok_and(|wanted| {
                // An empty name is nobody's.
                !wanted.is_empty()
                    && (self.subject().same_as(&wanted)
                        || alternative(&|name| matches!(name, GeneralName::Directory(other) if other.same_as(&wanted))))
            }),
            Identity::KeyId(wanted) => {
                !wanted.is_empty() && self.extensions().subject_key_id.as_deref() == Some(wanted)
            }
        }
    }
}

fn same_mailbox(a: &str, b: &str) -> bool {
    match (a.rsplit_once('@'), b.rsplit_once('@')) {
        (Some((mailbox_a, host_a)), Some((mailbox_b, host_b))) => {
            mailbox_a == mailbox_b && host_a.eq_ignore_ascii_case(host_b)
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::Entity;

    fn moon() -> Certificate {
        Entity::root("C=CH, O=strongSwan, CN=moon.example.org", |template| {
            template.ca = None;
            template.alternative_names =
                ["gw.example.org", "*.example.org", "Moon@example.org", "192.0.2.1", "2001:db8::1", "CN=other"]
                    .map(|text| text.parse().unwrap())
                    .to_vec();
        })
        .certificate
    }

    fn dn(text: &str) -> Vec<u8> {
        text.parse::<DistinguishedName>().unwrap().der().to_vec()
    }

    #[test]
    fn alternative_names_and_the_whole_subject_are_identities() {
        let moon = moon();
        for identity in [
            Identity::Fqdn("gw.example.org"),
            Identity::Fqdn("GW.Example.ORG"),
            Identity::Rfc822("Moon@EXAMPLE.org"),
            Identity::Ipv4(Ipv4Addr::new(192, 0, 2, 1)),
            Identity::Ipv6("2001:db8::1".parse().unwrap()),
            Identity::Dn(&dn("C=ch, O=STRONGSWAN, CN=Moon.example.org")),
            Identity::Dn(&dn("CN=other")),
            Identity::KeyId(&moon.public_key().unwrap().key_id().0),
        ] {
            assert!(moon.has_identity(identity), "{identity:?}");
        }
    }

    /// R4301-4.4.3.2-1.
    #[test]
    fn nothing_else_is() {
        let moon = moon();
        for identity in [
            Identity::Fqdn("moon.example.org"),
            Identity::Fqdn("any.example.org"),
            Identity::Fqdn("gw.example.org."),
            Identity::Fqdn("Moon@example.org"),
            Identity::Fqdn("192.0.2.1"),
            Identity::Fqdn(""),
            Identity::Rfc822("moon@example.org"),
            Identity::Rfc822("gw.example.org"),
            Identity::Rfc822("@example.org"),
            Identity::Ipv4(Ipv4Addr::new(192, 0, 2, 2)),
            Identity::Ipv6("::ffff:192.0.2.1".parse().unwrap()),
            Identity::Dn(&dn("C=CH, O=strongSwan")),
            Identity::Dn(&dn("CN=moon.example.org")),
            Identity::KeyId(&[]),
            Identity::KeyId(b"moon"),
        ] {
            assert!(!moon.has_identity(identity), "{identity:?}");
        }
    }

    /// ID_DER_ASN1_DN of 0, 1 and 2 octets, and of nonsense.
    #[test]
    fn dn_id_short() {
        let (moon, nameless) = (
            moon(),
            Entity::root("x", |template| {
                template.ca = None;
                template.subject = DistinguishedName::from_der(&[0x30, 0]).unwrap();
                template.alternative_names = vec!["moon".parse().unwrap()];
            }),
        );
        for der in [&[][..], &[0x30], &[0x30, 0], &[0x30, 0x80], &[0x30, 1], &[0x31, 0], &[0; 2]] {
            assert!(!moon.has_identity(Identity::Dn(der)), "{der:?}");
            assert!(!nameless.certificate.has_identity(Identity::Dn(der)), "{der:?}");
        }
    }
}
