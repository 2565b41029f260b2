//! Identities of IKE as names in certificates.

use ike_proto::identity::Identity;
use pki::certificate::Certificate;
use pki::general_name::GeneralName;

/// Whether the identity is a name of the certificate (R4301-4.4.3.2-1).
pub(crate) fn has(certificate: &Certificate, identity: &Identity) -> bool {
    certificate.has_identity(match identity {
        Identity::Ipv4(address) => pki::identity::Identity::Ipv4(*address),
        Identity::Ipv6(address) => pki::identity::Identity::Ipv6(*address),
        Identity::Fqdn(name) => pki::identity::Identity::Fqdn(name),
        Identity::Rfc822(address) => pki::identity::Identity::Rfc822(address),
        Identity::Dn { der, .. } => pki::identity::Identity::Dn(der),
        Identity::KeyId(octets) => pki::identity::Identity::KeyId(octets),
    })
}

/// All names of a certificate that can be identities, for people.
pub(crate) fn of(certificate: &Certificate) -> Vec<String> {
    let subject = Some(certificate.subject()).filter(|subject| !subject.is_empty()).map(ToString::to_string);
    subject.into_iter().chain(certificate.alternative_names().iter().map(ToString::to_string)).collect()
}

/// The identity that a certificate has when nobody says which: its subject, or the first of its other names.
pub(crate) fn first(certificate: &Certificate) -> Option<Identity> {
    let subject = certificate.subject();
    if !subject.is_empty() {
        return Some(Identity::Dn { der: subject.der().to_vec(), text: subject.to_string() });
    }
    certificate.alternative_names().iter().find_map(|name| match name {
        GeneralName::Dns(name) => Some(Identity::Fqdn(name.clone())),
        GeneralName::Email(address) => Some(Identity::Rfc822(address.clone())),
        GeneralName::Ip(std::net::IpAddr::V4(address)) => Some(Identity::Ipv4(*address)),
        GeneralName::Ip(std::net::IpAddr::V6(address)) => Some(Identity::Ipv6(*address)),
        GeneralName::Directory(name) => Some(Identity::Dn { der: name.der().to_vec(), text: name.to_string() }),
        GeneralName::Uri(_) | GeneralName::Other(_) => None,
    })
}
