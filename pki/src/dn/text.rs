//! Distinguished names as people write them.

use std::fmt::{self, Write};

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Tag};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

use super::attributes::{Attribute, Encoding};
use super::{DistinguishedName, string_of};

/// Why a text is no distinguished name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnTextError {
    /// There is no attribute in it.
    #[error("an empty name")]
    Empty,
    /// A part without `=`.
    #[error("`{0}` is not of the form attribute=value")]
    NoValue(String),
    /// An attribute that is neither known by name nor an object identifier.
    #[error("no attribute is called `{0}`")]
    UnknownAttribute(String),
    /// `SN`, which is the surname in RFC 4519 and the serial number in strongSwan.
    #[error("`SN` can mean surname or serialNumber; write which one")]
    Ambiguous,
    /// A value that the attribute cannot have.
    #[error("{attribute} cannot be `{value}`: {wanted}")]
    BadValue {
        /// The attribute.
        attribute: String,
        /// What was written.
        value: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A `\` or a `"` without what belongs to it.
    #[error("`{0}` ends within a quotation")]
    Unfinished(String),
    /// Longer than DER can say.
    #[error("the name is too long")]
    TooLong,
}

/// What a value that is just `*` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stars {
    /// What it is.
    Characters,
    /// Any value.
    AnyValue,
}

/// Reads a name; the rules are told at its `FromStr`.
pub(super) fn parse(text: &str, stars: Stars) -> Result<DistinguishedName, DnTextError> {
    let text = text.trim_start();
    let (separator, text) = text.strip_prefix('/').map_or((',', text), |rest| ('/', rest));
    if text.trim().is_empty() {
        return Err(DnTextError::Empty);
    }
    let mut rdns = RdnSequence::default();
    for part in split(text, separator)? {
        let attributes =
            split(part, '+')?.into_iter().map(|part| attribute(part, stars)).collect::<Result<Vec<_>, _>>()?;
        rdns.push(RelativeDistinguishedName::try_from(attributes).map_err(|_| DnTextError::TooLong)?);
    }
    DistinguishedName::from_rdns(rdns).map_err(|_| DnTextError::TooLong)
}

/// Writes a name so that [`parse`] reads it back.
pub(super) fn write(rdns: &RdnSequence, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, rdn) in rdns.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { ", " })?;
        for (index, attribute) in rdn.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "+" })?;
            write_attribute(attribute, f)?;
        }
    }
    Ok(())
}

fn write_attribute(attribute: &AttributeTypeAndValue, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let known = Attribute::by_oid(attribute.oid);
    match known.and_then(|known| known.names.first()) {
        Some(name) => write!(f, "{name}=")?,
        None => write!(f, "{}=", attribute.oid)?,
    }
    // Only what would be read back as the same text is written as text.
    let text = string_of(&attribute.value)
        .filter(|text| known.map_or(Encoding::Directory, |known| known.encoding).encode(text).is_ok());
    match text {
        Some(text) => write_escaped(&text, f),
        None => {
            f.write_char('#')?;
            attribute.value.to_der().map_err(|_| fmt::Error)?.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
        }
    }
}

fn write_escaped(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let last = text.chars().count().saturating_sub(1);
    for (index, c) in text.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => write!(f, "\\{c}")?,
            '#' if index == 0 => write!(f, "\\{c}")?,
            ' ' if index == 0 || index == last => write!(f, "\\{c}")?,
            _ if c.is_control() || c.is_whitespace() && c != ' ' => {
                c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|octet| write!(f, "\\{octet:02X}"))?;
            }
            _ => f.write_char(c)?,
        }
    }
    Ok(())
}

/// The pieces of `text` between unquoted `separator`s.
fn split(text: &str, separator: char) -> Result<Vec<&str>, DnTextError> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => {
                pieces.push(text.get(start..at).unwrap_or_default());
                start = at.saturating_add(c.len_utf8());
            }
            _ => {}
        }
    }
    if quoted || escaped {
        return Err(DnTextError::Unfinished(text.to_owned()));
    }
    pieces.push(text.get(start..).unwrap_or_default());
    Ok(pieces)
}

fn attribute(text: &str, stars: Stars) -> Result<AttributeTypeAndValue, DnTextError> {
    let (name, value) = text.split_once('=').ok_or_else(|| DnTextError::NoValue(text.trim().to_owned()))?;
    let (name, value) = (name.trim(), trim(value));
    if name.eq_ignore_ascii_case("SN") {
        return Err(DnTextError::Ambiguous);
    }
    let (oid, encoding) = match Attribute::by_name(name) {
        Some(known) => (known.oid, known.encoding),
        None => (
            ObjectIdentifier::new(name).map_err(|_| DnTextError::UnknownAttribute(name.to_owned()))?,
            Encoding::Directory,
        ),
    };
    let bad = |wanted| DnTextError::BadValue { attribute: name.to_owned(), value: value.to_owned(), wanted };
    let value = match value.strip_prefix('#') {
        Some(hex) => hex_der(hex).ok_or_else(|| bad("`#` starts the hexadecimal form of DER"))?,
        None if value == "*" && stars == Stars::AnyValue => Encoding::Directory.encode(value).map_err(bad)?,
        None => encoding.encode(&unquote(value)?).map_err(bad)?,
    };
    Ok(AttributeTypeAndValue { oid, value })
}

/// Without white space around, but with an escaped blank at the end.
fn trim(value: &str) -> &str {
    let value = value.trim_start();
    let end = value.trim_end();
    let backslashes = end.bytes().rev().take_while(|&octet| octet == b'\\').count();
    if backslashes % 2 == 1 { value.get(..end.len().saturating_add(1)).unwrap_or(end) } else { end }
}

/// What a value with `"` and `\` means.
fn unquote(value: &str) -> Result<String, DnTextError> {
    let unfinished = || DnTextError::Unfinished(value.to_owned());
    let value_bytes = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value).as_bytes();
    let mut octets = Vec::with_capacity(value_bytes.len());
    let mut rest = value_bytes.iter().copied();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        let escaped = rest.next().ok_or_else(unfinished)?;
        match char::from(escaped).to_digit(16) {
            Some(high) => {
                let low = rest.next().and_then(|low| char::from(low).to_digit(16)).ok_or_else(unfinished)?;
                octets.push(u8::try_from(high << 4 | low).map_err(|_| unfinished())?);
            }
            None => octets.push(escaped),
        }
    }
    String::from_utf8(octets).map_err(|_| DnTextError::BadValue {
        attribute: "the value".to_owned(),
        value: value.to_owned(),
        wanted: "escaped octets must be UTF-8",
    })
}

fn hex_der(hex: &str) -> Option<Any> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let octets: Vec<u8> = pairs.iter().filter_map(|[high, low]| u8::try_from(high << 4 | low).ok()).collect();
    Any::from_der(&octets).ok()
}

impl Encoding {
    /// The value that `text` is encoded as, or what it must be instead.
    fn encode(self, text: &str) -> Result<Any, &'static str> {
        let printable = text.bytes().all(is_printable);
        let tag = match self {
            _ if text.is_empty() => return Err("a value must not be empty"),
            Self::Country if text.len() == 2 && text.bytes().all(|c| c.is_ascii_alphabetic()) => Tag::PrintableString,
            Self::Country => return Err("a country is two letters"),
            Self::Printable if printable => Tag::PrintableString,
            Self::Printable => return Err("letters, digits, blanks and '()+,-./:=? are possible"),
            Self::Ia5 if text.is_ascii() => Tag::Ia5String,
            Self::Ia5 => return Err("it must be ASCII"),
            Self::Directory if printable => Tag::PrintableString,
            Self::Directory => Tag::Utf8String,
        };
        Any::new(tag, text.as_bytes()).map_err(|_| "it is too long")
    }
}

/// Whether a `PrintableString` may hold the character (X.680 §41.4).
fn is_printable(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DistinguishedName, DnTextError> {
        super::parse(text, Stars::Characters)
    }

    #[test]
    fn stars_are_values_of_all_attributes_where_any_value_may_be() {
        let pattern = super::parse("C=*, O=a*b, CN=*", Stars::AnyValue).unwrap();
        let same = "2.5.4.6=*, O=a*b, CN=*".parse().unwrap();
        assert!(pattern.same_as(&same));
        assert!(matches!(parse("C=*"), Err(DnTextError::BadValue { .. })));
    }

    #[test]
    fn both_ways_of_writing_mean_the_same() {
        let comma: DistinguishedName = "C=CH, O=Linux strongSwan, CN=moon".parse().unwrap();
        let slash: DistinguishedName = "/C=CH/O=Linux strongSwan/CN=moon".parse().unwrap();
        assert_eq!(comma, slash);
        assert_eq!(slash.to_string(), "C=CH, O=Linux strongSwan, CN=moon");
    }

    #[test]
    fn names_print_as_they_are_read() {
        for text in [
            "DC=org, DC=example, CN=host/a",
            "CN=Müller, E=m@example.org",
            r#"O=Sales\, Inc., CN=a\+b\\c\<\>\;\"d\""#,
            r"CN=\ a \ ",
            r"CN=\#7",
            r"CN=a\0Ab",
            "1.2.3.4=abc",
            "CN=#04020102",
            "C=CH, serialNumber=7+G=Jan",
        ] {
            let name = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(name.to_string(), text);
            assert_eq!(parse(&name.to_string()), Ok(name));
        }
    }

    #[test]
    fn quoted_values_hold_separators() {
        assert_eq!(parse(r#"O="Sales, Inc.", CN=a"#).unwrap().to_string(), r"O=Sales\, Inc., CN=a");
        assert_eq!(parse("emailaddress=a@b, commonname=x").unwrap().to_string(), "E=a@b, CN=x");
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        for (text, message) in [
            ("", "an empty name"),
            ("/", "an empty name"),
            ("C=CH, moon", "`moon` is not of the form attribute=value"),
            ("C=CH,, CN=a", "`` is not of the form attribute=value"),
            ("CM=moon", "no attribute is called `CM`"),
            ("SN=7", "`SN` can mean surname or serialNumber; write which one"),
            ("C=Schweiz", "C cannot be `Schweiz`: a country is two letters"),
            ("E=ü@x", "E cannot be `ü@x`: it must be ASCII"),
            ("CN=", "CN cannot be ``: a value must not be empty"),
            ("CN=#zz", "CN cannot be `#zz`: `#` starts the hexadecimal form of DER"),
            ("CN=\"a", "`CN=\"a` ends within a quotation"),
            ("CN=a\\", "`CN=a\\` ends within a quotation"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
