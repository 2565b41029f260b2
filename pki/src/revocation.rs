//! Whether a certificate was revoked, whoever says so: a CRL ([`crate::crl`]) or an OCSP responder ([`crate::ocsp`]).
//!
//! Fetching is not done here. Where to fetch from is only told for a path that is right ([`sources`]): a certificate that
//! anybody can send must not make us connect anywhere.

use std::fmt;
use std::str::FromStr;

use crate::certificate::Certificate;
use crate::general_name::GeneralName;
use crate::path::ValidPath;
use crate::time::UnixTime;

/// What is known of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not revoked.
    Good,
    /// Revoked.
    Revoked {
        /// Why.
        reason: Reason,
        /// Since when.
        time: UnixTime,
    },
    /// Nobody says anything about it.
    Unknown,
    /// All that was said is out of date.
    Stale {
        /// When the newest of it should have been replaced.
        next_update: UnixTime,
    },
}

/// Why a certificate was revoked (RFC 5280 §5.3.1); the value is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Nobody said why.
    Unspecified = 0,
    /// The private key is known to others.
    KeyCompromise = 1,
    /// The private key of the CA is known to others.
    CaCompromise = 2,
    /// The names are no longer right.
    AffiliationChanged = 3,
    /// There is a new one.
    Superseded = 4,
    /// It is no longer needed.
    CessationOfOperation = 5,
    /// It is on hold and can become good again.
    CertificateHold = 6,
    /// In a delta CRL: no longer on hold, or expired.
    RemoveFromCrl = 8,
    /// It is no longer allowed what it was for.
    PrivilegeWithdrawn = 9,
    /// Of attribute certificates.
    AaCompromise = 10,
}

/// A text that is no reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no reason is called `{0}`; there are key-compromise, ca-compromise, affiliation-changed, superseded, cessation-of-operation and certificate-hold"
)]
pub struct UnknownReason(pub String);

/// What to do when nothing certain is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// A certificate counts only if it is known to be good.
    Strict,
    /// As strict when the certificate says where to ask, as relaxed when not.
    IfUri,
    /// A certificate counts unless it is known to be revoked.
    #[default]
    Relaxed,
}

/// Where to ask about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// The certificate in question.
    pub certificate: &'a Certificate,
    /// Who issued it.
    pub issuer: &'a Certificate,
    /// Where OCSP responders are.
    pub ocsp_uris: Vec<&'a str>,
    /// Where CRLs are.
    pub crl_uris: Vec<&'a str>,
    /// Where delta CRLs are.
    pub delta_uris: Vec<&'a str>,
}

/// Where to ask about each certificate of a path, from the end entity up. Only `http` and `https` are told; files and
/// directories named by others are nobody's business.
#[must_use]
pub fn sources<'a>(path: &ValidPath<'a>) -> Vec<Source<'a>> {
    path.links()
        .map(|(certificate, issuer)| {
            let extensions = certificate.extensions();
            let uris = |names: &'a [GeneralName]| {
                names.iter().filter_map(|name| match name {
                    GeneralName::Uri(uri) => Some(uri.as_str()),
                    GeneralName::Dns(_)
                    | GeneralName::Email(_)
                    | GeneralName::Ip(_)
                    | GeneralName::Directory(_)
                    | GeneralName::Other(_) => None,
                })
            };
            let points = |points: &'a [crate::certificate::DistributionPoint]| {
                points.iter().flat_map(|point| uris(&point.names)).filter(|uri| is_http(uri)).take(MAX_URIS).collect()
            };
            Source {
                certificate,
                issuer,
                ocsp_uris: extensions
                    .ocsp_uris
                    .iter()
                    .map(String::as_str)
                    .filter(|uri| is_http(uri))
                    .take(MAX_URIS)
                    .collect(),
                crl_uris: points(&extensions.crl_distribution_points),
                delta_uris: points(&extensions.freshest_crl),
            }
        })
        .collect()
}

/// Where delta CRLs to a CRL are, as it says itself; only `http` and `https`.
pub fn freshest_uris(crl: &crate::crl::Crl) -> impl Iterator<Item = String> {
    let names = crl.freshest().iter().flat_map(|point| &point.names);
    let uris = names.filter_map(|name| if let GeneralName::Uri(uri) = name { Some(uri.clone()) } else { None });
    uris.filter(|uri| is_http(uri)).take(MAX_URIS)
}

impl Policy {
    /// Whether a certificate of this status counts.
    #[must_use]
    pub fn accepts(self, status: Status, source: &Source<'_>) -> bool {
        let has_uri = !source.ocsp_uris.is_empty() || !source.crl_uris.is_empty();
        match (status, self) {
            (Status::Good, _) => true,
            (Status::Revoked { .. }, _) | (Status::Unknown | Status::Stale { .. }, Self::Strict) => false,
            (Status::Unknown | Status::Stale { .. }, Self::IfUri) => !has_uri,
            (Status::Unknown | Status::Stale { .. }, Self::Relaxed) => true,
        }
    }
}

impl Reason {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Unspecified, "unspecified"),
        (Self::KeyCompromise, "key-compromise"),
        (Self::CaCompromise, "ca-compromise"),
        (Self::AffiliationChanged, "affiliation-changed"),
        (Self::Superseded, "superseded"),
        (Self::CessationOfOperation, "cessation-of-operation"),
        (Self::CertificateHold, "certificate-hold"),
        (Self::RemoveFromCrl, "remove-from-crl"),
        (Self::PrivilegeWithdrawn, "privilege-withdrawn"),
        (Self::AaCompromise, "aa-compromise"),
    ];

    /// Its number.
    #[expect(clippy::as_conversions, reason = "the enum is of u8")]
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// The reason with this number; numbers without meaning give no reason.
    pub(crate) fn from_number(number: u32) -> Self {
        Self::ALL
            .into_iter()
            .map(|(reason, _)| reason)
            .find(|reason| u32::from(reason.number()) == number)
            .unwrap_or(Self::Unspecified)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(reason, _)| reason == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(reason, _)| reason).ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Revoked { reason, time } => write!(f, "revoked since {time} ({reason})"),
            Self::Unknown => f.write_str("unknown"),
            Self::Stale { next_update } => write!(f, "stale since {next_update}"),
        }
    }
}

fn is_http(uri: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| uri.get(..scheme.len()).is_some_and(|front| front.eq_ignore_ascii_case(scheme)))
}

/// URIs of one kind in one certificate.
const MAX_URIS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue::CrlPoint;
    use crate::path::{Requirements, validate};
    use crate::test_support::{Entity, NOW};

    /// untrusted_cdp: URIs are told for a path that is right, and there is no other way to get a [`Source`].
    #[test]
    fn only_a_valid_path_tells_where_to_fetch_from() {
        let root = Entity::root("root", |_| {});
        let moon = root.end_entity("moon", |template| {
            let point = |uri: &str| CrlPoint { uri: uri.into(), issuer: None };
            template.crl_points = vec![point("http://a/x.crl"), point("ldap://b/"), point("FILE:///etc/passwd")];
            template.ocsp_uris = vec!["HTTP://c/".into()];
        });
        let anchors = [root.certificate.clone()];
        let path = validate(&moon.certificate, &[], &anchors, NOW, &Requirements::default()).unwrap();
        let [source] = &sources(&path)[..] else { panic!("one link") };
        assert_eq!((&source.crl_uris[..], &source.ocsp_uris[..]), (&["http://a/x.crl"][..], &["HTTP://c/"][..]));
        assert_eq!(source.issuer, &root.certificate);
    }

    #[test]
    fn policies_differ_in_what_they_do_with_doubt() {
        let root = Entity::root("root", |_| {});
        let bare = root.end_entity("bare", |_| {});
        let telling = root.end_entity("telling", |template| template.ocsp_uris = vec!["http://c/".into()]);
        let anchors = [root.certificate.clone()];
        let revoked = Status::Revoked { reason: Reason::Superseded, time: NOW };
        let stale = Status::Stale { next_update: NOW };
        for (policy, status, without_uri, with_uri) in [
            (Policy::Strict, Status::Good, true, true),
            (Policy::Strict, Status::Unknown, false, false),
            (Policy::Strict, stale, false, false),
            (Policy::IfUri, Status::Unknown, true, false),
            (Policy::IfUri, stale, true, false),
            (Policy::Relaxed, Status::Unknown, true, true),
            (Policy::Relaxed, stale, true, true),
            (Policy::Relaxed, revoked, false, false),
            (Policy::IfUri, revoked, false, false),
        ] {
            let accepts = |entity: &Entity| {
                let path = validate(&entity.certificate, &[], &anchors, NOW, &Requirements::default()).unwrap();
                policy.accepts(status, &sources(&path)[0])
            };
            assert_eq!((accepts(&bare), accepts(&telling)), (without_uri, with_uri), "{policy:?} {status}");
        }
    }

    #[test]
    fn reasons_read_as_they_print() {
        for (reason, name) in Reason::ALL {
            assert_eq!((reason.to_string().as_str(), name.parse()), (name, Ok(reason)));
            assert_eq!(Reason::from_number(u32::from(reason as u8)), reason);
        }
        assert_eq!(Reason::from_number(7), Reason::Unspecified);
        assert!("because".parse::<Reason>().is_err());
    }
}
