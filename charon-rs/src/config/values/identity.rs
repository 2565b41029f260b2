//! Identities: `leftid`, `rightid` and the owners of secrets.
//!
//! | written | means |
//! |---|---|
//! | `192.0.2.1`, `2001:db8::1` | ID_IPV4_ADDR, ID_IPV6_ADDR |
//! | `moon.example.org`, `@moon` | ID_FQDN |
//! | `user@example.org` | ID_RFC822_ADDR |
//! | `C=CH, O=strongSwan, CN=moon` | ID_DER_ASN1_DN |
//! | `@#0a1b2c`, `keyid:text` | ID_KEY_ID |
//! | `fqdn:`, `email:`, `ipv4:`, `ipv6:`, `dn:` in front | the kind is not guessed |

use std::net::IpAddr;

use ike_proto::identity::{Identity, IdentityPattern};
use pki::dn::{DistinguishedName, DnTextError};

use super::ValueError;

const WANTED: &str = "expected an address, a host name, user@host, a distinguished name such as \"C=CH, CN=moon\", \
     @#hexadecimal, or keyid:text";

/// Reads an identity.
///
/// # Errors
/// [`ValueError`] when it is of no kind, or a wildcard.
pub fn identity(text: &str) -> Result<Identity, ValueError> {
    if text.contains('*') || text.starts_with('%') {
        return Err(ValueError::whole(text, format!("`{text}` stands for more than one identity"), WANTED));
    }
    exact(text)
}

/// Reads an identity or a pattern: `%any`, `*.example.org`, `*@example.org`, `C=CH, O=*, CN=*`.
///
/// # Errors
/// [`ValueError`] when it is neither.
pub fn pattern(text: &str) -> Result<IdentityPattern, ValueError> {
    if text == "%any" {
        return Ok(IdentityPattern::Any);
    }
    let wild = |domain: &str| -> Result<String, ValueError> {
        if is_name(domain) && !domain.contains(['*', '@']) {
            return Ok(domain.to_owned());
        }
        Err(ValueError::whole(text, format!("`{text}` is no pattern"), "expected *.domain or *@domain"))
    };
    if let Some(domain) = text.strip_prefix("*.") {
        return wild(domain).map(IdentityPattern::FqdnUnder);
    }
    if let Some(domain) = text.strip_prefix("*@") {
        return wild(domain).map(IdentityPattern::Rfc822In);
    }
    if text.contains('*') && text.contains('=') && !text.starts_with("keyid:") {
        let name = text.strip_prefix("dn:").or(text.strip_prefix("asn1dn:")).unwrap_or(text);
        let pattern = DistinguishedName::pattern_from_str(name).map_err(|error| no_distinguished_name(text, &error))?;
        return Ok(IdentityPattern::Dn { der: pattern.der().to_vec(), text: name.to_owned() });
    }
    if text.contains('*') && !text.starts_with("keyid:") || text.starts_with('%') {
        let expected = "expected an identity, %any, *.domain, *@domain, or a distinguished name with * for values";
        return Err(ValueError::whole(text, format!("`{text}` is no pattern"), expected));
    }
    exact(text).map(IdentityPattern::Exactly)
}

/// An identity of the kind that is written in front of it, or that it looks like.
fn exact(text: &str) -> Result<Identity, ValueError> {
    let wrong = |kind: &str| ValueError::whole(text, format!("`{text}` is no {kind}"), WANTED);
    if let Some((kind, value)) = text.split_once(':') {
        match kind {
            "keyid" if !value.is_empty() => return Ok(Identity::KeyId(value.as_bytes().to_vec())),
            "keyid" => return Err(wrong("key identifier")),
            "fqdn" | "dns" => return fqdn(value).ok_or_else(|| wrong("host name")),
            "email" | "rfc822" | "userfqdn" => return mail(value).ok_or_else(|| wrong("mail address")),
            "ipv4" => return value.parse().map(Identity::Ipv4).map_err(|_| wrong("IPv4 address")),
            "ipv6" => return value.parse().map(Identity::Ipv6).map_err(|_| wrong("IPv6 address")),
            "dn" | "asn1dn" => return distinguished_name(text, value),
            _ => {}
        }
    }
    if let Some(hex) = text.strip_prefix("@#") {
        return base16ct::mixed::decode_vec(hex)
            .ok()
            .filter(|octets| !octets.is_empty())
            .map(Identity::KeyId)
            .ok_or_else(|| wrong("key identifier in hexadecimal"));
    }
    if let Some(name) = text.strip_prefix('@') {
        return fqdn(name).ok_or_else(|| wrong("host name"));
    }
    if text.contains('=') {
        return distinguished_name(text, text);
    }
    if text.contains('@') {
        return mail(text).ok_or_else(|| wrong("mail address"));
    }
    if text.contains(':') {
        return text.parse().map(Identity::Ipv6).map_err(|_| wrong("IPv6 address"));
    }
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return text.parse().map(Identity::Ipv4).map_err(|_| {
            let expected = format!("expected an address, or @{text} if this is a name");
            ValueError::whole(text, format!("`{text}` is no IPv4 address"), expected)
        });
    }
    fqdn(text).ok_or_else(|| wrong("identity"))
}

/// The identity that stands for an address.
#[must_use]
pub fn of_address(address: IpAddr) -> Identity {
    match address {
        IpAddr::V4(address) => Identity::Ipv4(address),
        IpAddr::V6(address) => Identity::Ipv6(address),
    }
}

fn fqdn(name: &str) -> Option<Identity> {
    (is_name(name) && !name.contains('@')).then(|| Identity::Fqdn(name.to_owned()))
}

fn mail(address: &str) -> Option<Identity> {
    let (user, domain) = address.rsplit_once('@')?;
    (is_name(user) && is_name(domain)).then(|| Identity::Rfc822(address.to_owned()))
}

fn distinguished_name(text: &str, name: &str) -> Result<Identity, ValueError> {
    let name: DistinguishedName = name.parse().map_err(|error| no_distinguished_name(text, &error))?;
    Ok(Identity::Dn { der: name.der().to_vec(), text: name.to_string() })
}

fn no_distinguished_name(text: &str, error: &DnTextError) -> ValueError {
    let expected =
        "expected a distinguished name such as \"C=CH, O=strongSwan, CN=moon\", or keyid: in front of any text";
    ValueError::whole(text, error.to_string(), expected)
}

/// Whether `text` can be (a part of) a name: printable ASCII without blanks. Peers use names that DNS would not have.
fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn each_kind_of_identity_is_told_by_its_form() {
        for (text, meant) in [
            ("192.0.2.1", Identity::Ipv4(Ipv4Addr::new(192, 0, 2, 1))),
            ("ipv4:192.0.2.1", Identity::Ipv4(Ipv4Addr::new(192, 0, 2, 1))),
            ("2001:db8::1", Identity::Ipv6("2001:db8::1".parse::<Ipv6Addr>().unwrap())),
            ("ipv6:::1", Identity::Ipv6(Ipv6Addr::LOCALHOST)),
            ("moon.example.org", Identity::Fqdn("moon.example.org".into())),
            ("moon", Identity::Fqdn("moon".into())),
            ("@moon", Identity::Fqdn("moon".into())),
            ("@10.0.0.1", Identity::Fqdn("10.0.0.1".into())),
            ("fqdn:10.0.0.1", Identity::Fqdn("10.0.0.1".into())),
            ("carol@example.org", Identity::Rfc822("carol@example.org".into())),
            ("email:carol@example.org", Identity::Rfc822("carol@example.org".into())),
            ("@#0A1b", Identity::KeyId(vec![0x0a, 0x1b])),
            ("keyid:any text = @ will do", Identity::KeyId(b"any text = @ will do".to_vec())),
        ] {
            assert_eq!(identity(text), Ok(meant), "{text}");
        }
    }

    #[test]
    fn distinguished_names_keep_their_text() {
        for text in ["C=CH, O=strongSwan, CN=moon", "/C=CH/O=strongSwan/CN=moon", "dn:C=CH,O=strongSwan,CN=moon"] {
            let Identity::Dn { der, text } = identity(text).unwrap() else { panic!("{text} is a DN") };
            assert_eq!(text, "C=CH, O=strongSwan, CN=moon");
            assert_eq!(der.first(), Some(&0x30));
        }
    }

    #[test]
    fn patterns_are_for_peers_only() {
        assert_eq!(pattern("%any"), Ok(IdentityPattern::Any));
        assert_eq!(pattern("*.example.org"), Ok(IdentityPattern::FqdnUnder("example.org".into())));
        let Ok(IdentityPattern::Dn { text, .. }) = pattern("C=*, O=strongSwan, CN=*") else { panic!("it is a name") };
        assert_eq!(text, "C=*, O=strongSwan, CN=*");
        assert_eq!(pattern("*@example.org"), Ok(IdentityPattern::Rfc822In("example.org".into())));
        assert_eq!(pattern("moon"), Ok(IdentityPattern::Exactly(Identity::Fqdn("moon".into()))));
        for wild in ["%any", "*.example.org", "*@example.org"] {
            assert!(identity(wild).is_err(), "{wild}");
        }
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for wrong in [
            "",
            "10.0.0.300",
            "1:2",
            "@",
            "@#",
            "@#0",
            "@#xy",
            "a@",
            "@a@b",
            "a b",
            "keyid:",
            "C=Schweiz",
            "moon\u{e9}",
        ] {
            assert!(identity(wrong).is_err(), "{wrong}");
        }
        for wrong in ["*", "*.", "a*.example.org", "*.*.example.org", "%anyy", "*@"] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            identity("10.0.0.300").unwrap_err().to_string(),
            "`10.0.0.300` is no IPv4 address; expected an address, or @10.0.0.300 if this is a name"
        );
    }
}
