//! The extensions of certificates that anything here looks at (RFC 5280 §4.2).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::constraints::name::GeneralSubtrees;
use x509_cert::ext::pkix::crl::dp;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName as Encoded, GeneralNames};
use x509_cert::ext::pkix::{self, AuthorityInfoAccessSyntax, KeyUsage};

use super::{CertificateError, oid};
use crate::general_name::{GeneralName, address};

/// What the extensions say.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    /// Whether it is a CA, and how long a path may be below it.
    pub basic_constraints: Option<BasicConstraints>,
    /// What the key may be used for; without it, anything.
    pub key_usage: Option<KeyUsage>,
    /// What the certificate may be used for; without it, anything.
    pub extended_key_usage: Option<Vec<KeyPurpose>>,
    /// Alternative names of the subject.
    pub subject_alternative_names: Vec<GeneralName>,
    /// The names that certificates below may have.
    pub name_constraints: Option<NameConstraints>,
    /// Policies it was issued under; `None` is not the same as none.
    pub policies: Option<Vec<ObjectIdentifier>>,
    /// Policies of the issuer and what the subject calls them.
    pub policy_mappings: Vec<(ObjectIdentifier, ObjectIdentifier)>,
    /// Whether and from where on policies are needed.
    pub policy_constraints: Option<PolicyConstraints>,
    /// After how many certificates `anyPolicy` no longer counts.
    pub inhibit_any_policy: Option<u32>,
    /// The key identifier of the issuer.
    pub authority_key_id: Option<Vec<u8>>,
    /// The key identifier of the subject.
    pub subject_key_id: Option<Vec<u8>>,
    /// Where CRLs are.
    pub crl_distribution_points: Vec<DistributionPoint>,
    /// Where delta CRLs are.
    pub freshest_crl: Vec<DistributionPoint>,
    /// Where to ask by OCSP.
    pub ocsp_uris: Vec<String>,
    /// Where the issuer's certificate is.
    pub issuer_uris: Vec<String>,
    /// That an OCSP responder's own certificate need not be checked (RFC 6960 §4.2.2.2.1).
    pub ocsp_no_check: bool,
    /// Critical extensions that we do not know: such a certificate must not be used.
    pub unknown_critical: Vec<ObjectIdentifier>,
}

/// RFC 5280 §4.2.1.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether the key may sign certificates.
    pub ca: bool,
    /// How many CAs may follow below.
    pub path_len: Option<u8>,
}

/// RFC 5280 §4.2.1.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyConstraints {
    /// After how many certificates every one must have an accepted policy.
    pub require_explicit: Option<u32>,
    /// After how many certificates mappings no longer count.
    pub inhibit_mapping: Option<u32>,
}

/// RFC 5280 §4.2.1.10.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameConstraints {
    /// Names of the kinds that occur here must be within one of these.
    pub permitted: Vec<Subtree>,
    /// Names must be within none of these.
    pub excluded: Vec<Subtree>,
}

/// A set of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subtree {
    /// A name and all that is below: a domain, a host or mailbox, the front of a distinguished name.
    Name(GeneralName),
    /// Addresses.
    Ip(IpSubnet),
}

/// Addresses that have the same bits where the mask has ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpSubnet {
    /// An address of the subnet.
    pub address: IpAddr,
    /// The mask, of the same family.
    pub mask: IpAddr,
}

/// What a certificate may be used for (RFC 5280 §4.2.1.12, RFC 4945 §5.1.3.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyPurpose {
    /// Servers; what clients want of gateways.
    ServerAuth,
    /// Clients.
    ClientAuth,
    /// IKE, in old macOS clients.
    IkeIntermediate,
    /// IKE, by RFC 4945.
    IpsecIke,
    /// Signing OCSP responses for the issuer.
    OcspSigning,
    /// Log-in with a smart card, for Windows.
    MsSmartcardLogon,
    /// Everything.
    Any,
    /// Something else.
    Other(ObjectIdentifier),
}

/// Where CRLs are (RFC 5280 §4.2.1.13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistributionPoint {
    /// The names of the point; the URIs among them can be fetched from.
    pub names: Vec<GeneralName>,
    /// The reasons that CRLs of the point cover; `None` means all.
    pub reasons: Option<Reasons>,
    /// Who signs the CRL, when it is not the issuer of the certificate.
    pub crl_issuer: Vec<GeneralName>,
}

/// A set of reasons for revocation; bit 1 is keyCompromise and so on (RFC 5280 §4.2.1.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reasons(pub u16);

impl Reasons {
    /// All that a CRL can cover.
    pub const ALL: Self = Self(0x1fe);
}

impl Extensions {
    pub(crate) fn read(extensions: &[Extension]) -> Result<Self, CertificateError> {
        let mut known = Self::default();
        let mut seen = BTreeSet::new();
        for extension in extensions {
            let id = extension.extn_id;
            if !seen.insert(id) {
                return Err(CertificateError::Twice(name_of(id).map_or_else(|| id.to_string(), ToOwned::to_owned)));
            }
            match name_of(id) {
                Some(name) => known
                    .take(id, extension.extn_value.as_bytes())
                    .map_err(|why| CertificateError::Extension { name, why })?,
                None if extension.critical => known.unknown_critical.push(id),
                None => {}
            }
        }
        Ok(known)
    }

    fn take(&mut self, id: ObjectIdentifier, value: &[u8]) -> der::Result<()> {
        match id {
            oid::BASIC_CONSTRAINTS => {
                let constraints = pkix::BasicConstraints::from_der(value)?;
                self.basic_constraints =
                    Some(BasicConstraints { ca: constraints.ca, path_len: constraints.path_len_constraint });
            }
            oid::KEY_USAGE => self.key_usage = Some(KeyUsage::from_der(value)?),
            oid::EXTENDED_KEY_USAGE => {
                let purposes = pkix::ExtendedKeyUsage::from_der(value)?.0;
                self.extended_key_usage = Some(purposes.into_iter().map(KeyPurpose::from_oid).collect());
            }
            oid::SUBJECT_ALTERNATIVE_NAME => {
                self.subject_alternative_names = names(&pkix::SubjectAltName::from_der(value)?.0)?;
            }
            oid::NAME_CONSTRAINTS => {
                let constraints = pkix::NameConstraints::from_der(value)?;
                self.name_constraints = Some(NameConstraints {
                    permitted: subtrees(constraints.permitted_subtrees.as_ref())?,
                    excluded: subtrees(constraints.excluded_subtrees.as_ref())?,
                });
            }
            oid::CERTIFICATE_POLICIES => {
                let policies = pkix::CertificatePolicies::from_der(value)?.0;
                self.policies = Some(policies.into_iter().map(|policy| policy.policy_identifier).collect());
            }
            oid::POLICY_MAPPINGS => {
                let mappings = pkix::PolicyMappings::from_der(value)?.0;
                self.policy_mappings =
                    mappings.into_iter().map(|m| (m.issuer_domain_policy, m.subject_domain_policy)).collect();
            }
            oid::POLICY_CONSTRAINTS => {
                let constraints = pkix::PolicyConstraints::from_der(value)?;
                self.policy_constraints = Some(PolicyConstraints {
                    require_explicit: constraints.require_explicit_policy,
                    inhibit_mapping: constraints.inhibit_policy_mapping,
                });
            }
            oid::INHIBIT_ANY_POLICY => self.inhibit_any_policy = Some(u32::from_der(value)?),
            oid::AUTHORITY_KEY_ID => {
                let identifier = pkix::AuthorityKeyIdentifier::from_der(value)?.key_identifier;
                self.authority_key_id = identifier.map(|id| id.as_bytes().to_vec());
            }
            oid::SUBJECT_KEY_ID => {
                self.subject_key_id = Some(pkix::SubjectKeyIdentifier::from_der(value)?.0.as_bytes().to_vec());
            }
            oid::CRL_DISTRIBUTION_POINTS => {
                self.crl_distribution_points = points(&pkix::CrlDistributionPoints::from_der(value)?.0)?;
            }
            oid::FRESHEST_CRL => self.freshest_crl = points(&pkix::FreshestCrl::from_der(value)?.0)?,
            oid::AUTHORITY_INFO_ACCESS => {
                for access in AuthorityInfoAccessSyntax::from_der(value)?.0 {
                    let Encoded::UniformResourceIdentifier(uri) = &access.access_location else { continue };
                    match access.access_method {
                        oid::ACCESS_OCSP => self.ocsp_uris.push(uri.as_str().to_owned()),
                        oid::ACCESS_CA_ISSUERS => self.issuer_uris.push(uri.as_str().to_owned()),
                        _ => {}
                    }
                }
            }
            oid::OCSP_NO_CHECK => self.ocsp_no_check = true,
            _ => {}
        }
        Ok(())
    }
}

impl KeyPurpose {
    const KNOWN: [Self; 7] = [
        Self::ServerAuth,
        Self::ClientAuth,
        Self::IkeIntermediate,
        Self::IpsecIke,
        Self::OcspSigning,
        Self::MsSmartcardLogon,
        Self::Any,
    ];

    pub(crate) const fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::ServerAuth => "1.3.6.1.5.5.7.3.1",
            Self::ClientAuth => "1.3.6.1.5.5.7.3.2",
            Self::IkeIntermediate => "1.3.6.1.5.5.8.2.2",
            Self::IpsecIke => "1.3.6.1.5.5.7.3.17",
            Self::OcspSigning => "1.3.6.1.5.5.7.3.9",
            Self::MsSmartcardLogon => "1.3.6.1.4.1.311.20.2.2",
            Self::Any => "2.5.29.37.0",
            Self::Other(oid) => return oid,
        })
    }

    fn from_oid(oid: ObjectIdentifier) -> Self {
        Self::KNOWN.into_iter().find(|purpose| purpose.oid() == oid).unwrap_or(Self::Other(oid))
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerAuth => "serverAuth",
            Self::ClientAuth => "clientAuth",
            Self::IkeIntermediate => "ikeIntermediate",
            Self::IpsecIke => "ipsecIKE",
            Self::OcspSigning => "ocspSigning",
            Self::MsSmartcardLogon => "msSmartcardLogon",
            Self::Any => "anyExtendedKeyUsage",
            Self::Other(oid) => return oid.fmt(f),
        })
    }
}

impl fmt::Display for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(subnet) => subnet.fmt(f),
        }
    }
}

impl IpSubnet {
    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, self.mask, address) {
            (IpAddr::V4(base), IpAddr::V4(mask), IpAddr::V4(address)) => {
                (base.to_bits() ^ address.to_bits()) & mask.to_bits() == 0
            }
            (IpAddr::V6(base), IpAddr::V6(mask), IpAddr::V6(address)) => {
                (base.to_bits() ^ address.to_bits()) & mask.to_bits() == 0
            }
            _ => false,
        }
    }

    /// Address and mask, one after the other (RFC 5280 §4.2.1.10).
    pub(crate) fn octets(&self) -> Vec<u8> {
        [self.address, self.mask]
            .into_iter()
            .flat_map(|address| match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            })
            .collect()
    }
}

impl fmt::Display for IpSubnet {
    /// `192.0.2.0/24`, or with a mask that is no prefix `192.0.2.0/255.0.255.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ones, zeros, width) = match self.mask {
            IpAddr::V4(mask) => (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros(), 32),
            IpAddr::V6(mask) => (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros(), 128),
        };
        if ones.checked_add(zeros) == Some(width) {
            write!(f, "{}/{ones}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.mask)
        }
    }
}

fn names(names: &GeneralNames) -> der::Result<Vec<GeneralName>> {
    names.iter().map(GeneralName::from_encoded).collect()
}

/// RFC 5280 §4.2.1.10: `minimum` must be 0 and `maximum` absent; a constraint with others cannot be kept.
fn subtrees(subtrees: Option<&GeneralSubtrees>) -> der::Result<Vec<Subtree>> {
    let unusable = || der::Error::from(der::Tag::Sequence.value_error());
    subtrees
        .into_iter()
        .flatten()
        .map(|subtree| match &subtree.base {
            _ if subtree.minimum != 0 || subtree.maximum.is_some() => Err(unusable()),
            Encoded::IpAddress(octets) => subnet(octets.as_bytes()).map(Subtree::Ip).ok_or_else(unusable),
            Encoded::OtherName(_)
            | Encoded::Rfc822Name(_)
            | Encoded::DnsName(_)
            | Encoded::DirectoryName(_)
            | Encoded::EdiPartyName(_)
            | Encoded::UniformResourceIdentifier(_)
            | Encoded::RegisteredId(_) => GeneralName::from_encoded(&subtree.base).map(Subtree::Name),
        })
        .collect()
}

/// An address and a mask, 8 or 32 octets together.
fn subnet(octets: &[u8]) -> Option<IpSubnet> {
    let (front, back) = octets.split_at_checked(octets.len() / 2)?;
    Some(IpSubnet { address: address(front)?, mask: address(back)? }).filter(|_| front.len() == back.len())
}

pub(crate) fn points(points: &[dp::DistributionPoint]) -> der::Result<Vec<DistributionPoint>> {
    points
        .iter()
        .map(|point| {
            let full = match &point.distribution_point {
                Some(DistributionPointName::FullName(full)) => names(full)?,
                // A name relative to the issuer names an entry in a directory, which nobody fetches.
                Some(DistributionPointName::NameRelativeToCRLIssuer(_)) | None => Vec::new(),
            };
            Ok(DistributionPoint {
                names: full,
                reasons: point.reasons.map(|reasons| Reasons(reasons.bits())),
                crl_issuer: point.crl_issuer.as_ref().map(names).transpose()?.unwrap_or_default(),
            })
        })
        .collect()
}

fn name_of(id: ObjectIdentifier) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

const NAMES: [(ObjectIdentifier, &str); 15] = [
    (oid::BASIC_CONSTRAINTS, "basicConstraints"),
    (oid::KEY_USAGE, "keyUsage"),
    (oid::EXTENDED_KEY_USAGE, "extKeyUsage"),
    (oid::SUBJECT_ALTERNATIVE_NAME, "subjectAltName"),
    (oid::NAME_CONSTRAINTS, "nameConstraints"),
    (oid::CERTIFICATE_POLICIES, "certificatePolicies"),
    (oid::POLICY_MAPPINGS, "policyMappings"),
    (oid::POLICY_CONSTRAINTS, "policyConstraints"),
    (oid::INHIBIT_ANY_POLICY, "inhibitAnyPolicy"),
    (oid::AUTHORITY_KEY_ID, "authorityKeyIdentifier"),
    (oid::SUBJECT_KEY_ID, "subjectKeyIdentifier"),
    (oid::CRL_DISTRIBUTION_POINTS, "cRLDistributionPoints"),
    (oid::FRESHEST_CRL, "freshestCRL"),
    (oid::AUTHORITY_INFO_ACCESS, "authorityInfoAccess"),
    (oid::OCSP_NO_CHECK, "ocsp-nocheck"),
];
