//! The attributes that names are made of: how they are written, their object identifiers, and how new values are encoded.

use x509_cert::der::asn1::ObjectIdentifier;

/// An attribute that has a name.
pub(super) struct Attribute {
    /// How it is written; the first one is how it prints.
    pub(super) names: &'static [&'static str],
    pub(super) oid: ObjectIdentifier,
    pub(super) encoding: Encoding,
}

/// How the value of an attribute is encoded when it comes from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `PrintableString` if its characters allow it, else `UTF8String`.
    Directory,
    /// `PrintableString` of exactly two letters (RFC 5280 appendix A.1, `X520countryName`).
    Country,
    /// `PrintableString` (RFC 5280 appendix A.1: `X520dnQualifier`, `X520SerialNumber`).
    Printable,
    /// `IA5String` (RFC 5280 appendix A.1: `DomainComponent`, `EmailAddress`).
    Ia5,
}

/// The attributes that have names, as strongSwan and OpenSSL write them.
pub(super) const ATTRIBUTES: &[Attribute] = &[
    attribute(&["C", "countryName"], "2.5.4.6", Encoding::Country),
    attribute(&["O", "organizationName"], "2.5.4.10", Encoding::Directory),
    attribute(&["OU", "organizationalUnitName"], "2.5.4.11", Encoding::Directory),
    attribute(&["CN", "commonName"], "2.5.4.3", Encoding::Directory),
    attribute(&["ST", "stateOrProvinceName"], "2.5.4.8", Encoding::Directory),
    attribute(&["L", "localityName"], "2.5.4.7", Encoding::Directory),
    attribute(&["STREET", "streetAddress"], "2.5.4.9", Encoding::Directory),
    attribute(&["postalCode"], "2.5.4.17", Encoding::Directory),
    attribute(&["DC", "domainComponent"], "0.9.2342.19200300.100.1.25", Encoding::Ia5),
    attribute(&["E", "emailAddress", "email"], "1.2.840.113549.1.9.1", Encoding::Ia5),
    attribute(&["UID", "userId"], "0.9.2342.19200300.100.1.1", Encoding::Directory),
    attribute(&["serialNumber"], "2.5.4.5", Encoding::Printable),
    attribute(&["dnQualifier"], "2.5.4.46", Encoding::Printable),
    attribute(&["T", "title"], "2.5.4.12", Encoding::Directory),
    attribute(&["D", "description"], "2.5.4.13", Encoding::Directory),
    attribute(&["N", "name"], "2.5.4.41", Encoding::Directory),
    attribute(&["S", "surname"], "2.5.4.4", Encoding::Directory),
    attribute(&["G", "GN", "givenName"], "2.5.4.42", Encoding::Directory),
    attribute(&["I", "initials"], "2.5.4.43", Encoding::Directory),
    attribute(&["pseudonym"], "2.5.4.65", Encoding::Directory),
    attribute(&["organizationIdentifier"], "2.5.4.97", Encoding::Directory),
    attribute(&["unstructuredName"], "1.2.840.113549.1.9.2", Encoding::Directory),
];

impl Attribute {
    /// The attribute written `name`, in whatever case.
    pub(super) fn by_name(name: &str) -> Option<&'static Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// The attribute with this object identifier.
    pub(super) fn by_oid(oid: ObjectIdentifier) -> Option<&'static Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.oid == oid)
    }
}

const fn attribute(names: &'static [&'static str], oid: &'static str, encoding: Encoding) -> Attribute {
    Attribute { names, oid: ObjectIdentifier::new_unwrap(oid), encoding }
}
