//! Distinguished names (RFC 5280 §4.1.2.4): text to DER, DER to text, comparison.
//!
//! ```text
//! Name ::= SEQUENCE OF RelativeDistinguishedName            C=CH, O=strongSwan, CN=moon
//! RelativeDistinguishedName ::= SET OF SEQUENCE {           CN=moon+UID=7
//!     type  OBJECT IDENTIFIER,
//!     value ANY }
//! ```

mod attributes;
mod text;

use std::fmt;
use std::str::FromStr;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

pub use text::DnTextError;
use text::Stars;

/// A distinguished name. `==` compares encodings; [`Self::same_as`] compares names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DistinguishedName {
    rdns: RdnSequence,
    der: Vec<u8>,
}

/// Octets that are no DER encoding of a distinguished name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no distinguished name in DER: {0}")]
pub struct DnDerError(x509_cert::der::Error);

impl DistinguishedName {
    /// Reads a DER encoding, whoever it comes from.
    ///
    /// # Errors
    /// [`DnDerError`] when `der` is anything else, also when something follows the name.
    pub fn from_der(der: &[u8]) -> Result<Self, DnDerError> {
        let rdns = RdnSequence::from_der(der).map_err(DnDerError)?;
        Ok(Self { rdns, der: der.to_vec() })
    }

    /// The DER encoding.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Reads what stands for many names: as [`FromStr`] does it, but each attribute may have `*` for its value, also those
    /// whose values cannot be just anything.
    ///
    /// # Errors
    /// [`DnTextError`]
    pub fn pattern_from_str(text: &str) -> Result<Self, DnTextError> {
        text::parse(text, Stars::AnyValue)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rdns.is_empty()
    }

    /// Whether both are the same name as RFC 5280 §7.1 compares them: part by part in order, text without regard to case,
    /// to the kind of string, to white space at the ends and to the length of white space within.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.rdns.len() == other.rdns.len() && (self.der == other.der || self.is_under(other))
    }

    /// Whether it begins with all parts of `base`; so does `base` itself.
    #[must_use]
    pub fn is_under(&self, base: &Self) -> bool {
        self.rdns.len() >= base.rdns.len()
            && self.rdns.iter().zip(base.rdns.iter()).all(|(ours, theirs)| {
                let (mut ours, mut theirs): (Vec<_>, Vec<_>) =
                    (ours.iter().map(comparable).collect(), theirs.iter().map(comparable).collect());
                ours.sort_unstable();
                theirs.sort_unstable();
                ours == theirs
            })
    }

    /// The mail addresses in it (`emailAddress`), which certificates should have as alternative names instead.
    pub(crate) fn email_addresses(&self) -> Vec<String> {
        let attributes = self.rdns.iter().flat_map(RelativeDistinguishedName::iter);
        attributes.filter(|attribute| attribute.oid == EMAIL).filter_map(|email| string_of(&email.value)).collect()
    }

    fn from_rdns(rdns: RdnSequence) -> Result<Self, DnDerError> {
        let der = rdns.to_der().map_err(DnDerError)?;
        Ok(Self { rdns, der })
    }
}

impl FromStr for DistinguishedName {
    type Err = DnTextError;

    /// Reads `C=CH, O=strongSwan, CN=moon` or `/C=CH/O=strongSwan/CN=moon`; the first part written is the first one encoded,
    /// as strongSwan and OpenSSL do it (RFC 4514 has it the other way round). Special characters are quoted as in
    /// RFC 4514: `\,`, `\2C`, or the whole value in `"`; a value that starts with `#` is DER in hexadecimal.
    fn from_str(text: &str) -> Result<Self, DnTextError> {
        text::parse(text, Stars::Characters)
    }
}

impl fmt::Display for DistinguishedName {
    /// Writes what [`FromStr`] reads: `C=CH, O=strongSwan, CN=moon`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write(&self.rdns, f)
    }
}

/// What two attributes must have in common to be the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Comparable {
    Text(String, String),
    Octets(String, Vec<u8>),
}

fn comparable(attribute: &AttributeTypeAndValue) -> Comparable {
    let kind = attribute.oid.to_string();
    match string_of(&attribute.value) {
        Some(text) => Comparable::Text(kind, text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")),
        None => Comparable::Octets(kind, attribute.value.to_der().unwrap_or_default()),
    }
}

/// The text of an attribute whose value is one of the strings of RFC 5280's `DirectoryString` or an `IA5String`.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other tags, later ones too, are no strings")]
fn string_of(value: &Any) -> Option<String> {
    let octets = value.value();
    match value.tag() {
        Tag::PrintableString | Tag::Ia5String | Tag::VisibleString | Tag::NumericString => {
            octets.is_ascii().then(|| octets.iter().copied().map(char::from).collect())
        }
        Tag::Utf8String => String::from_utf8(octets.to_vec()).ok(),
        // T.61 has no definite meaning; the many CAs that used it meant ISO 8859-1.
        Tag::TeletexString => Some(octets.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let (units, []) = octets.as_chunks::<2>() else { return None };
            char::decode_utf16(units.iter().map(|unit| u16::from_be_bytes(*unit))).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// RFC 2985 §5.2.1.
const EMAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DistinguishedName {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// As `openssl asn1parse` shows strongSwan's `C=CH, O=strongSwan, CN=moon.strongswan.org`.
    #[test]
    fn text_becomes_the_der_that_others_make_of_it() {
        let der = b"\x30\x3e\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02CH\x31\x13\x30\x11\x06\x03\x55\x04\x0a\x13\x0astrongSwan\
            \x31\x1a\x30\x18\x06\x03\x55\x04\x03\x13\x11moon.strongswan.o";
        let built = name("C=CH, O=strongSwan, CN=moon.strongswan.o");
        assert_eq!(built.der(), &der[..]);
        assert_eq!(DistinguishedName::from_der(der).unwrap().to_string(), "C=CH, O=strongSwan, CN=moon.strongswan.o");
    }

    #[test]
    fn names_that_differ_in_case_and_white_space_are_the_same() {
        let moon = name("C=CH, O=Linux strongSwan, CN=moon");
        assert!(moon.same_as(&name("C=ch, O=  LINUX   strongswan , CN=Moon")));
        assert!(moon.same_as(&name("/C=CH/O=Linux strongSwan/CN=moon")));
        assert!(!moon.same_as(&name("O=Linux strongSwan, C=CH, CN=moon")), "order counts");
        assert!(!moon.same_as(&name("C=CH, O=LinuxstrongSwan, CN=moon")), "white space within counts");
        assert!(!moon.same_as(&name("C=CH, O=Linux strongSwan")));
        assert!(!name("O=a").same_as(&name("OU=a")));
    }

    #[test]
    fn the_kind_of_string_does_not_matter() {
        let printable = b"\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x13\x01a";
        let utf8 = b"\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x0c\x01A";
        let bmp = b"\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x0a\x1e\x02\0a";
        let octets = b"\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x04\x01a";
        let [printable, utf8, bmp, octets] =
            [&printable[..], utf8, bmp, octets].map(|der| DistinguishedName::from_der(der).unwrap());
        assert!(printable.same_as(&utf8) && utf8.same_as(&bmp));
        assert!(!printable.same_as(&octets));
        assert_ne!(printable, utf8);
    }

    #[test]
    fn parts_with_several_attributes_are_sets() {
        assert_eq!(name("CN=moon+UID=7").der(), name("UID=7 + CN=moon").der());
        assert!(name("CN=moon+UID=7").same_as(&name("UID=7+CN=MOON")));
        assert!(!name("CN=moon+UID=7").same_as(&name("CN=moon, UID=7")));
    }

    #[test]
    fn short_and_broken_encodings_are_errors() {
        let good = name("C=CH, O=strongSwan, CN=moon");
        for cut in 0..good.der().len() {
            assert!(DistinguishedName::from_der(&good.der()[..cut]).is_err(), "{cut} octets");
        }
        for wrong in [
            &[0x30][..],
            &[0x30, 0x80],
            &[0x31, 0],
            &[0x30, 2, 0x31, 0x82],
            &[0x30, 0, 0],
            &[0x30, 0x84, 255, 255, 255, 255],
        ] {
            assert!(DistinguishedName::from_der(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(DistinguishedName::from_der(&[0x30, 0]).unwrap().to_string(), "");
    }

    /// Whatever one octet is changed to, nothing panics, and what still is a name prints as text that reads back.
    #[test]
    fn a_changed_octet_gives_an_error_or_a_name_that_prints() {
        let good = name("C=CH, O=strongSwan+CN=moon, DC=org");
        for at in 0..good.der().len() {
            for octet in 0..=u8::MAX {
                let mut der = good.der().to_vec();
                der[at] = octet;
                let Ok(changed) = DistinguishedName::from_der(&der) else { continue };
                assert!(changed.same_as(&changed.clone()));
                let text = changed.to_string();
                assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
                let back = DistinguishedName::from_str(&text);
                assert!(back.is_ok_and(|back| back.same_as(&changed)), "{text:?}");
            }
        }
    }
}
