//! The options that say what stands in a certificate.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::{ArgMatches, Args, ValueEnum};
use der::asn1::ObjectIdentifier;
use pki::certificate::{IpSubnet, KeyPurpose, NameConstraints, PolicyConstraints, SerialNumber, Subtree};
use pki::dn::DistinguishedName;
use pki::general_name::GeneralName;
use pki::hash::HashAlgorithm;
use pki::issue::{CaTemplate, CrlPoint, Policy, Template, random_serial};
use pki::key::{Curve, KeyType};
use pki::signature::{RsaPadding, SignatureScheme};
use pki::time::UnixTime;

use super::{dates, now, rng};

/// How something is signed.
#[derive(Args)]
pub(crate) struct Signing {
    /// Hash of the signature: sha1, sha256, sha384 or sha512; by default what fits the key
    #[arg(long, short = 'g', value_name = "HASH")]
    digest: Option<HashAlgorithm>,
    /// Padding of RSA signatures
    #[arg(long, short = 'R', value_name = "pkcs1|pss", default_value = "pkcs1")]
    rsa_padding: Padding,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Padding {
    Pkcs1,
    Pss,
}

impl Signing {
    pub(crate) fn scheme(&self, key: KeyType) -> SignatureScheme {
        let padding = if self.rsa_padding == Padding::Pss { RsaPadding::Pss } else { RsaPadding::Pkcs1 };
        match self.digest {
            Some(hash) => SignatureScheme::with_hash(key, hash, padding),
            None => SignatureScheme::natural(key, padding),
        }
    }
}

/// From when to when something is valid.
#[derive(Args)]
pub(crate) struct Validity {
    /// Days that it is valid
    #[arg(long, short = 'l', value_name = "DAYS")]
    lifetime: Option<u32>,
    /// First second of the validity, as 2026-11-20 06:00:00 or 20.11.26 06:00:00
    #[arg(long, short = 'F', value_name = "DATE", value_parser = dates::parse)]
    not_before: Option<UnixTime>,
    /// Last second of the validity
    #[arg(long, short = 'T', value_name = "DATE", value_parser = dates::parse, conflicts_with = "lifetime")]
    not_after: Option<UnixTime>,
}

impl Validity {
    pub(crate) fn span(&self, default_days: u32) -> (UnixTime, UnixTime) {
        let from = self.not_before.unwrap_or_else(now);
        (from, self.not_after.unwrap_or_else(|| from.plus_days(self.lifetime.unwrap_or(default_days))))
    }
}

/// What a certificate says besides its subject and key.
#[derive(Args)]
pub(crate) struct Content {
    /// Alternative name of the subject: host name, address, mail address, URI or distinguished name; can be repeated
    #[arg(long, short = 'a', value_name = "NAME")]
    pub(crate) san: Vec<GeneralName>,
    #[command(flatten)]
    validity: Validity,
    /// Serial number in hexadecimal; by default random
    #[arg(long, short = 's', value_name = "HEX", value_parser = serial)]
    serial: Option<SerialNumber>,
    /// The certificate is a CA's
    #[arg(long, short = 'b')]
    ca: bool,
    /// How many CAs may follow below
    #[arg(long, short = 'p', value_name = "NUMBER")]
    pathlen: Option<u8>,
    /// What it is for: serverAuth, clientAuth, ikeIntermediate, ocspSigning, msSmartcardLogon or crlSign; can be repeated
    #[arg(long, short = 'e', value_name = "FLAG")]
    pub(crate) flag: Vec<Flag>,
    /// Names that certificates below may have; can be repeated
    #[arg(long, short = 'n', value_name = "NAME", value_parser = subtree)]
    nc_permitted: Vec<Subtree>,
    /// Names that certificates below must not have; can be repeated
    #[arg(long, short = 'N', value_name = "NAME", value_parser = subtree)]
    nc_excluded: Vec<Subtree>,
    /// Certificate policy; can be repeated
    #[arg(long, short = 'P', visible_alias = "policy", value_name = "OID", value_parser = oid)]
    cert_policy: Vec<ObjectIdentifier>,
    /// Where the text of the policy in front of it is
    #[arg(long, short = 'C', value_name = "URI")]
    cps_uri: Vec<String>,
    /// Text for users about the policy in front of it
    #[arg(long, short = 'U', value_name = "TEXT")]
    user_notice: Vec<String>,
    /// Our policy and what the subject calls it; can be repeated
    #[arg(long, short = 'M', visible_alias = "policy-map", value_name = "OID:OID", value_parser = mapping)]
    policy_mapping: Vec<(ObjectIdentifier, ObjectIdentifier)>,
    /// After how many CAs every certificate must have a policy
    #[arg(long, short = 'E', value_name = "NUMBER")]
    policy_explicit: Option<u32>,
    /// After how many CAs policies are no longer mapped
    #[arg(long, short = 'H', value_name = "NUMBER")]
    policy_inhibit: Option<u32>,
    /// After how many CAs anyPolicy no longer counts
    #[arg(long, short = 'A', value_name = "NUMBER")]
    policy_any: Option<u32>,
    /// Where to ask by OCSP; can be repeated
    #[arg(long, short = 'o', value_name = "URI")]
    ocsp: Vec<String>,
    /// Where a CRL is; can be repeated
    #[arg(long, short = 'u', value_name = "URI")]
    crl: Vec<String>,
    /// Who signs the CRL in front of it, when it is not the issuer
    #[arg(long, short = 'I', value_name = "DN")]
    crlissuer: Vec<DistinguishedName>,
    /// Critical extension without content, to see who refuses it
    #[arg(long, short = 'X', value_name = "OID", value_parser = oid)]
    critical: Option<ObjectIdentifier>,
}

/// A purpose, or the key usage that strongSwan counts among them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    Purpose(KeyPurpose),
    CrlSign,
}

impl std::str::FromStr for Flag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [
            ("serverAuth", Self::Purpose(KeyPurpose::ServerAuth)),
            ("clientAuth", Self::Purpose(KeyPurpose::ClientAuth)),
            ("ikeIntermediate", Self::Purpose(KeyPurpose::IkeIntermediate)),
            ("ocspSigning", Self::Purpose(KeyPurpose::OcspSigning)),
            ("msSmartcardLogon", Self::Purpose(KeyPurpose::MsSmartcardLogon)),
            ("crlSign", Self::CrlSign),
        ];
        let found = all.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, flag)| *flag).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
            format!("there are {}", names.join(", "))
        })
    }
}

impl Flag {
    pub(crate) fn purposes(flags: &[Self]) -> Vec<KeyPurpose> {
        flags
            .iter()
            .filter_map(|flag| match flag {
                Self::Purpose(purpose) => Some(*purpose),
                Self::CrlSign => None,
            })
            .collect()
    }
}

impl Content {
    /// The certificate for `subject`; `order` knows where on the command line each option stands.
    pub(crate) fn template(&self, subject: DistinguishedName, order: &ArgMatches) -> Result<Template> {
        let (not_before, not_after) = self.validity.span(DEFAULT_DAYS);
        let serial = self.serial.clone().unwrap_or_else(|| random_serial(&mut rng()));
        let mut template = Template::new(subject, serial, not_before, not_after);
        template.alternative_names.clone_from(&self.san);
        template.ca = self.ca.then_some(CaTemplate { path_len: self.pathlen });
        if self.pathlen.is_some() && !self.ca {
            bail!("--pathlen belongs to --ca");
        }
        template.purposes = Flag::purposes(&self.flag);
        template.crl_sign = self.flag.contains(&Flag::CrlSign);
        template.name_constraints =
            NameConstraints { permitted: self.nc_permitted.clone(), excluded: self.nc_excluded.clone() };
        template.policies = self.policies(order)?;
        template.policy_mappings.clone_from(&self.policy_mapping);
        template.policy_constraints =
            (self.policy_explicit.is_some() || self.policy_inhibit.is_some()).then_some(PolicyConstraints {
                require_explicit: self.policy_explicit,
                inhibit_mapping: self.policy_inhibit,
            });
        template.inhibit_any_policy = self.policy_any;
        template.ocsp_uris.clone_from(&self.ocsp);
        template.crl_points = self.crl_points(order)?;
        // An OCTET STRING of nothing.
        template.extra = self.critical.iter().map(|id| (*id, true, vec![4, 0])).collect();
        Ok(template)
    }

    fn policies(&self, order: &ArgMatches) -> Result<Vec<Policy>> {
        let mut policies: Vec<Policy> =
            self.cert_policy.iter().map(|id| Policy { id: *id, cps_uri: None, notice: None }).collect();
        for (policy, uri) in belonging(order, "cert_policy", "cps_uri", &self.cps_uri)? {
            policies[policy].cps_uri = Some(uri.clone());
        }
        for (policy, text) in belonging(order, "cert_policy", "user_notice", &self.user_notice)? {
            policies[policy].notice = Some(text.clone());
        }
        Ok(policies)
    }

    fn crl_points(&self, order: &ArgMatches) -> Result<Vec<CrlPoint>> {
        let mut points: Vec<CrlPoint> =
            self.crl.iter().map(|uri| CrlPoint { uri: uri.clone(), issuer: None }).collect();
        for (point, issuer) in belonging(order, "crl", "crlissuer", &self.crlissuer)? {
            points[point].issuer = Some(issuer.clone());
        }
        Ok(points)
    }
}

/// Each value of `option` with the index of the value of `head` that stands in front of it.
fn belonging<'a, T>(order: &ArgMatches, head: &str, option: &str, values: &'a [T]) -> Result<Vec<(usize, &'a T)>> {
    let positions = |id: &str| -> Vec<usize> { order.indices_of(id).into_iter().flatten().collect() };
    let heads = positions(head);
    positions(option)
        .into_iter()
        .zip(values)
        .map(|(position, value)| {
            let before = heads.iter().filter(|head| **head < position).count();
            let index = before.checked_sub(1).with_context(|| {
                format!("--{} must stand behind a --{}", option.replace('_', "-"), head.replace('_', "-"))
            })?;
            Ok((index, value))
        })
        .collect()
}

/// What kind of key `--type` and `--size` mean.
pub(crate) fn key_type(kind: &str, size: Option<u32>) -> Result<KeyType> {
    match (kind.to_ascii_lowercase().as_str(), size) {
        ("rsa", size) => Ok(KeyType::Rsa { bits: size.unwrap_or(DEFAULT_RSA_BITS) }),
        ("ecdsa", None | Some(384)) => Ok(KeyType::Ecdsa(Curve::P384)),
        ("ecdsa", Some(256)) => Ok(KeyType::Ecdsa(Curve::P256)),
        ("ecdsa", Some(521)) => Ok(KeyType::Ecdsa(Curve::P521)),
        ("ecdsa", Some(size)) => bail!("ECDSA keys have 256, 384 or 521 bits, not {size}"),
        ("ed25519", None | Some(256)) => Ok(KeyType::Ed25519),
        ("ed25519", Some(size)) => bail!("Ed25519 keys have 256 bits, not {size}"),
        (other, _) => Err(anyhow!("there are keys of type rsa, ecdsa and ed25519, not `{other}`")),
    }
}

pub(crate) fn serial(text: &str) -> Result<SerialNumber, String> {
    let digits: Option<Vec<u8>> = text
        .trim_start_matches("0x")
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.ok_or_else(|| format!("`{text}` is not hexadecimal"))?;
    // Digits count from the right.
    let octets: Vec<u8> =
        digits.rchunks(2).rev().map(|pair| pair.iter().fold(0, |all, digit| all << 4 | digit)).collect();
    SerialNumber::positive(&octets).ok_or_else(|| format!("`{text}` is no serial number of 1 to 20 octets above zero"))
}

pub(crate) fn oid(text: &str) -> Result<ObjectIdentifier, String> {
    ObjectIdentifier::new(text).map_err(|_| format!("`{text}` is no object identifier such as 1.2.3.4"))
}

fn mapping(text: &str) -> Result<(ObjectIdentifier, ObjectIdentifier), String> {
    let (issuer, subject) = text.split_once(':').ok_or("write two object identifiers with a : between")?;
    Ok((oid(issuer)?, oid(subject)?))
}

/// A name, or for addresses `192.0.2.0/24`; a single address means just itself.
fn subtree(text: &str) -> Result<Subtree, String> {
    let (address, prefix) = match text.strip_prefix("ip:").unwrap_or(text).split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        let name: GeneralName = text.parse().map_err(|error: pki::general_name::NameTextError| error.to_string())?;
        return Ok(match name {
            GeneralName::Ip(address) => Subtree::Ip(whole(address, address_bits(address))),
            GeneralName::Dns(_)
            | GeneralName::Email(_)
            | GeneralName::Directory(_)
            | GeneralName::Uri(_)
            | GeneralName::Other(_) => Subtree::Name(name),
        });
    };
    let bits = address_bits(address);
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits),
        None => Some(bits),
    };
    prefix
        .map(|prefix| Subtree::Ip(whole(address, prefix)))
        .ok_or_else(|| format!("`{text}` has a wrong prefix length"))
}

fn address_bits(address: std::net::IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn whole(address: std::net::IpAddr, prefix: u32) -> IpSubnet {
    let mask = match address {
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::from(u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).into(),
    };
    IpSubnet { address, mask }
}

/// A CA's certificate and key.
#[derive(Args)]
pub(crate) struct Authority {
    /// Certificate of the CA
    #[arg(long, short = 'c', value_name = "FILE")]
    pub(crate) cacert: PathBuf,
    /// Private key of the CA
    #[arg(long, short = 'k', value_name = "FILE")]
    pub(crate) cakey: PathBuf,
}

/// Three years, as strongSwan has it.
pub(crate) const DEFAULT_DAYS: u32 = 1095;
const DEFAULT_RSA_BITS: u32 = 3072;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_read_as_they_print() {
        for (text, printed) in [("01ab", "01:ab"), ("1ab", "01:ab"), ("0xFF", "ff"), ("00:7f", "7f")] {
            assert_eq!(serial(text).unwrap().to_string(), printed);
        }
        assert!(serial("0").is_err() && serial("x").is_err() && serial(&"ff".repeat(21)).is_err());
    }

    #[test]
    fn constraints_are_names_or_subnets() {
        for (text, printed) in [
            ("strongswan.org", "strongswan.org"),
            ("dns:.strongswan.org", ".strongswan.org"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("ip:192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("C=CH, O=strongSwan", "C=CH, O=strongSwan"),
        ] {
            assert_eq!(subtree(text).map(|subtree| subtree.to_string()), Ok(printed.to_owned()));
        }
        assert!(subtree("192.0.2.0/33").is_err());
    }

    #[test]
    fn kinds_of_keys_have_sizes() {
        assert_eq!(key_type("RSA", None).ok(), Some(KeyType::Rsa { bits: 3072 }));
        assert_eq!(key_type("ecdsa", Some(521)).ok(), Some(KeyType::Ecdsa(Curve::P521)));
        assert!(key_type("ecdsa", Some(512)).unwrap_err().to_string().contains("521"));
        assert!(key_type("dsa", None).is_err());
    }
}
