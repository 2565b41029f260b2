//! Distinguished names in DER: what they have in common, and what they are called (RFC 5280 §4.1.2.4, §7.1).
//!
//! ```text
//! Name      ::= SEQUENCE OF RDN
//! RDN       ::= SET OF Attribute
//! Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, value ANY }
//! ```

use std::fmt::Write;

/// Whether both are the same name: part by part in order, text without regard to case, to the kind of string, and to
/// how much white space there is.
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    a == b || canonical(a) == canonical(b)
}

/// Octets that are the same for names that are the same. Those of what is no name are what it is.
pub(super) fn canonical(der: &[u8]) -> Vec<u8> {
    let Some(parts) = parse(der) else {
        return der.to_vec();
    };
    let mut octets = vec![CANONICAL];
    for part in parts {
        let mut attributes: Vec<Vec<u8>> = part.iter().map(Attribute::canonical).collect();
        attributes.sort_unstable();
        push_all(&mut octets, &attributes);
    }
    octets
}

/// Appends how many there are, and each with its length, so that the octets of one never pass for those of another.
fn push_all(octets: &mut Vec<u8>, items: &[Vec<u8>]) {
    octets.extend_from_slice(&items.len().to_be_bytes());
    for item in items {
        octets.extend_from_slice(&item.len().to_be_bytes());
        octets.extend_from_slice(item);
    }
}

/// Whether a name is one of those that `pattern` means: the same, but where the pattern has `*` for a value, the name may
/// have any.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    fit(pattern, name, |wanted, attribute| wanted.text().as_deref() == Some("*") || wanted.has_value_of(attribute))
}

/// The name as people write it: `C=CH, O=strongSwan, CN=moon`. `None` if it is none.
pub(super) fn text(der: &[u8]) -> Option<String> {
    let parts = parse(der)?;
    let parts = parts.iter().map(|part| part.iter().map(Attribute::written).collect::<Vec<_>>().join("+"));
    Some(parts.collect::<Vec<_>>().join(", "))
}

/// Whether both have the same parts with the same types of attributes, and `fits` for each of them.
fn fit(a: &[u8], b: &[u8], fits: impl Fn(&Attribute<'_>, &Attribute<'_>) -> bool) -> bool {
    let (Some(a), Some(b)) = (parse(a), parse(b)) else {
        return false;
    };
    let pairs = |a: &Attribute<'_>, b: &Attribute<'_>| a.kind == b.kind && fits(a, b);
    let same_part = |(a, b): (&Part<'_>, &Part<'_>)| {
        a.len() == b.len()
            && a.iter().all(|a| b.iter().any(|b| pairs(a, b)))
            && b.iter().all(|b| a.iter().any(|a| pairs(a, b)))
    };
    a.len() == b.len() && a.iter().zip(&b).all(same_part)
}

/// A relative distinguished name.
type Part<'a> = Vec<Attribute<'a>>;

/// An attribute and its value.
struct Attribute<'a> {
    /// The object identifier, without tag and length.
    kind: &'a [u8],
    /// The tag of the value.
    tag: u8,
    value: &'a [u8],
}

impl Attribute<'_> {
    fn canonical(&self) -> Vec<u8> {
        let value = match self.text() {
            Some(text) => vec![self.kind.to_vec(), text.into_bytes()],
            None => vec![self.kind.to_vec(), vec![self.tag], self.value.to_vec()],
        };
        let mut octets = Vec::new();
        push_all(&mut octets, &value);
        octets
    }

    fn has_value_of(&self, other: &Self) -> bool {
        match (self.text(), other.text()) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => (self.tag, self.value) == (other.tag, other.value),
        }
    }

    /// The value for comparison, if it is text.
    fn text(&self) -> Option<String> {
        let words: Vec<String> = self.characters()?.to_lowercase().split_whitespace().map(str::to_owned).collect();
        Some(words.join(" "))
    }

    fn characters(&self) -> Option<&str> {
        const TEXT: [u8; 4] = [UTF8_STRING, PRINTABLE_STRING, TELETEX_STRING, IA5_STRING];
        std::str::from_utf8(self.value).ok().filter(|_| TEXT.contains(&self.tag))
    }

    /// `CN=moon`; what is no text is written in hexadecimal.
    fn written(&self) -> String {
        let name = NAMES.iter().find(|(kind, _)| *kind == self.kind).map(|(_, name)| *name);
        let mut written = name.map_or_else(|| dotted(self.kind), str::to_owned) + "=";
        match self.characters() {
            Some(text) => {
                for (index, c) in text.chars().enumerate() {
                    let is_special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') || (c == '#' && index == 0);
                    written.extend(is_special.then_some('\\').into_iter().chain([c]));
                }
            }
            None => {
                written.push('#');
                // Writing to a string does not fail.
                self.value.iter().for_each(|octet| write!(written, "{octet:02x}").unwrap_or_default());
            }
        }
        written
    }
}

/// The parts of a name. Their number is bounded by that of the octets.
fn parse(der: &[u8]) -> Option<Vec<Part<'_>>> {
    let (parts, []) = element(der, SEQUENCE)? else {
        return None;
    };
    elements(parts, SET)?
        .into_iter()
        .map(|part| elements(part, SEQUENCE)?.into_iter().map(attribute).collect())
        .collect()
}

fn attribute(content: &[u8]) -> Option<Attribute<'_>> {
    let (kind, rest) = element(content, OBJECT_IDENTIFIER)?;
    let tag = *rest.first()?;
    let (value, []) = element(rest, tag)? else {
        return None;
    };
    Some(Attribute { kind, tag, value })
}

/// The contents of all elements in `octets`, at least one, each with this tag.
fn elements(mut octets: &[u8], tag: u8) -> Option<Vec<&[u8]>> {
    let mut all = Vec::new();
    while !octets.is_empty() {
        let (content, rest) = element(octets, tag)?;
        all.push(content);
        octets = rest;
    }
    (!all.is_empty()).then_some(all)
}

/// The content of the element with this tag that `octets` begin with, and what follows.
fn element(octets: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match *octets {
        [first, len @ 0..=0x7f, ref rest @ ..] if first == tag => (usize::from(len), rest),
        [first, 0x81, len @ 0x80..=0xff, ref rest @ ..] if first == tag => (usize::from(len), rest),
        [first, 0x82, high @ 1..=0xff, low, ref rest @ ..] if first == tag => {
            (usize::from(u16::from_be_bytes([high, low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// `2.5.4.3` from the octets of an object identifier: base 128, the first two numbers in one.
fn dotted(kind: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number = 0u64;
    for octet in kind {
        number = number.wrapping_shl(7) | u64::from(octet & 0x7f);
        if octet & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let first = numbers.first().copied().unwrap_or_default();
    let root = (first / 40).min(2);
    let head = [root, first - 40 * root];
    head.iter().chain(numbers.iter().skip(1)).map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// What the canonical form begins with, and no DER.
const CANONICAL: u8 = 0;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 12;
const PRINTABLE_STRING: u8 = 19;
const TELETEX_STRING: u8 = 20;
const IA5_STRING: u8 = 22;

/// Object identifiers of attributes, and how people write them.
const NAMES: [(&[u8], &str); 13] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "S"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 42], "G"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "E"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn attribute(number: u8, tag: u8, value: &str) -> Vec<u8> {
        let kind = tlv(OBJECT_IDENTIFIER, &[0x55, 4, number]);
        tlv(SEQUENCE, &[kind, tlv(tag, value.as_bytes())].concat())
    }

    fn name(parts: &[&[(u8, u8, &str)]]) -> Vec<u8> {
        let part = |part: &&[(u8, u8, &str)]| {
            tlv(SET, &part.iter().flat_map(|(number, tag, value)| attribute(*number, *tag, value)).collect::<Vec<_>>())
        };
        tlv(SEQUENCE, &parts.iter().flat_map(part).collect::<Vec<_>>())
    }

    const C: u8 = 6;
    const O: u8 = 10;
    const CN: u8 = 3;
    const P: u8 = PRINTABLE_STRING;
    const U: u8 = UTF8_STRING;

    #[test]
    fn names_are_the_same_whatever_the_case_the_kind_of_string_and_the_white_space() {
        let moon = name(&[&[(C, P, "CH")], &[(O, P, "Linux strongSwan")], &[(CN, P, "moon")]]);
        let again = name(&[&[(C, P, "ch")], &[(O, U, " linux  StrongSwan")], &[(CN, IA5_STRING, "Moon")]]);
        assert!(is_same(&moon, &again) && matches(&moon, &again));
        assert_eq!(canonical(&moon), canonical(&again));
        for other in [
            name(&[&[(C, P, "CH")], &[(O, P, "Linux strongSwan")], &[(CN, P, "sun")]]),
            name(&[&[(C, P, "CH")], &[(CN, P, "moon")], &[(O, P, "Linux strongSwan")]]),
            name(&[&[(C, P, "CH")], &[(O, P, "Linux strongSwan")]]),
            name(&[&[(C, P, "CH")], &[(O, P, "Linux strongSwan"), (CN, P, "moon")]]),
            name(&[&[(C, P, "CH")], &[(O, P, "Linux strongSwan")], &[(CN, 4, "moon")]]),
            name(&[&[(C, P, "CH")], &[(O, P, "LinuxstrongSwan")], &[(CN, P, "moon")]]),
        ] {
            assert!(!is_same(&moon, &other), "{}", text(&other).unwrap());
        }
    }

    #[test]
    fn attributes_of_one_part_have_no_order_and_each_needs_its_own() {
        let pair = name(&[&[(O, P, "a"), (CN, P, "b")]]);
        assert!(is_same(&pair, &name(&[&[(CN, P, "b"), (O, P, "a")]])));
        let twice = name(&[&[(CN, P, "a"), (CN, P, "a")]]);
        assert!(!is_same(&twice, &name(&[&[(CN, P, "a"), (CN, P, "b")]])));
    }

    #[test]
    fn a_star_stands_for_any_value_of_its_attribute_and_for_nothing_else() {
        let pattern = name(&[&[(C, P, "CH")], &[(O, U, "*")], &[(CN, U, "*")]]);
        assert!(matches(&pattern, &name(&[&[(C, P, "CH")], &[(O, P, "strongSwan")], &[(CN, P, "moon")]])));
        assert!(matches(&pattern, &name(&[&[(C, P, "ch")], &[(O, 30, "\0a")], &[(CN, P, "*")]])));
        for other in [
            name(&[&[(C, P, "DE")], &[(O, P, "strongSwan")], &[(CN, P, "moon")]]),
            name(&[&[(C, P, "CH")], &[(O, P, "strongSwan")]]),
            name(&[&[(C, P, "CH")], &[(O, P, "strongSwan")], &[(O, P, "moon")]]),
            name(&[&[(C, P, "CH")], &[(O, P, "strongSwan")], &[(CN, P, "moon")], &[(CN, P, "more")]]),
        ] {
            assert!(!matches(&pattern, &other), "{}", text(&other).unwrap());
        }
        let star = name(&[&[(CN, P, "*")]]);
        assert!(!is_same(&star, &name(&[&[(CN, P, "moon")]])), "in an identity it is a character");
    }

    #[test]
    fn names_are_written_as_people_write_them() {
        let moon = name(&[&[(C, P, "CH")], &[(O, P, "Moon, Inc."), (CN, U, "#1")], &[(46, 4, "\u{1}a")]]);
        assert_eq!(text(&moon).unwrap(), "C=CH, O=Moon\\, Inc.+CN=\\#1, 2.5.4.46=#0161");
    }

    /// dn_id_short.
    #[test]
    fn what_is_no_name_is_like_nothing_but_itself() {
        let moon = name(&[&[(C, P, "CH")], &[(CN, P, "moon")]]);
        for len in 0..moon.len() {
            assert_eq!(text(&moon[..len]), None);
            assert!(!is_same(&moon, &moon[..len]) && !matches(&moon[..len], &moon));
        }
        for position in 0..moon.len() {
            for value in 0..=u8::MAX {
                let mut changed = moon.clone();
                changed[position] = value;
                // Nothing is read that is not there.
                drop((text(&changed), is_same(&moon, &changed), matches(&changed, &moon)));
            }
        }
        assert_eq!(text(&[&moon[..], &[0]].concat()), None);
        assert_eq!(text(&[SEQUENCE, 0]), None);
    }
}
