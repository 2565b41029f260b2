//! What CRLs say about a certificate (RFC 5280 §6.3).

use super::{Crl, Entry, VerifiedCrl};
use crate::certificate::{Certificate, DistributionPoint, Reasons, SerialNumber};
use crate::general_name::GeneralName;
use crate::revocation::{Reason, Status};
use crate::time::UnixTime;

/// What these CRLs together say about a certificate at `now`. CRLs about other certificates may be among them, and delta
/// CRLs, which are applied to those they add to.
///
/// A CRL that is out of date does not show that a certificate is good, but one that is revoked in it stays revoked.
#[must_use]
pub fn status(certificate: &Certificate, crls: &[VerifiedCrl], now: UnixTime) -> Status {
    let (mut complete, deltas): (Vec<&Crl>, Vec<&Crl>) = crls
        .iter()
        .map(|verified| &*verified.crl)
        .filter(|crl| crl.this_update <= now)
        .partition(|crl| crl.base_number.is_none());
    complete.sort_by_key(|crl| std::cmp::Reverse(crl.this_update));
    let (mut covered, mut stale) = (0, None);
    for crl in complete {
        let reasons = scope(certificate, crl);
        if reasons & !covered == 0 {
            continue;
        }
        let delta = newest_delta(crl, &deltas);
        let entry = delta.and_then(|delta| find(delta, certificate)).or_else(|| find(crl, certificate));
        if let Some(entry) = entry.filter(|entry| entry.reason != Reason::RemoveFromCrl) {
            return Status::Revoked { reason: entry.reason, time: entry.time };
        }
        match next_update(crl, delta) {
            Some(next_update) if next_update < now => stale = stale.max(Some(next_update)),
            _ => covered |= reasons,
        }
        if covered == Reasons::ALL.0 {
            return Status::Good;
        }
    }
    stale.map_or(Status::Unknown, |next_update| Status::Stale { next_update })
}

/// The reasons for which a CRL speaks about a certificate, none if it does not (RFC 5280 §6.3.3 (b) and (d)).
fn scope(certificate: &Certificate, crl: &Crl) -> u16 {
    let scope = &crl.scope;
    let is_ca = certificate.is_ca();
    if scope.only_attribute_certificates
        || (scope.only_user_certificates && is_ca)
        || (scope.only_ca_certificates && !is_ca)
    {
        return 0;
    }
    let own_issuer = crl.issuer.same_as(certificate.issuer());
    let points = &certificate.extensions().crl_distribution_points;
    let by_points: u16 = points
        .iter()
        .filter(|point| names_crl(point, crl, own_issuer))
        .map(|point| point.reasons.unwrap_or(Reasons::ALL).0)
        .fold(0, |all, reasons| all | reasons);
    // A CRL of the issuer about everything counts even if no point names it (the end of RFC 5280 §6.3.3).
    let by_issuer = if own_issuer && scope.names.is_empty() { Reasons::ALL.0 } else { 0 };
    (by_points | by_issuer) & scope.reasons.unwrap_or(Reasons::ALL).0 & Reasons::ALL.0
}

/// Whether a distribution point of the certificate means this CRL.
fn names_crl(point: &DistributionPoint, crl: &Crl, own_issuer: bool) -> bool {
    let signer_fits = if point.crl_issuer.is_empty() {
        own_issuer
    } else {
        crl.scope.indirect
            && point
                .crl_issuer
                .iter()
                .any(|name| matches!(name, GeneralName::Directory(issuer) if issuer.same_as(&crl.issuer)))
    };
    let wanted = if point.names.is_empty() { &point.crl_issuer } else { &point.names };
    signer_fits && (crl.scope.names.is_empty() || crl.scope.names.iter().any(|name| wanted.contains(name)))
}

/// The delta CRL with the highest number that can be applied (RFC 5280 §5.2.4, §6.3.3 (c)).
fn newest_delta<'a>(crl: &Crl, deltas: &[&'a Crl]) -> Option<&'a Crl> {
    let number = crl.number.as_ref()?;
    deltas
        .iter()
        .copied()
        .filter(|delta| {
            delta.issuer.same_as(&crl.issuer)
                && delta.scope == crl.scope
                && delta.authority_key_id == crl.authority_key_id
                && delta.base_number.as_ref().is_some_and(|base| in_order(base, number))
                && delta.number.as_ref().is_some_and(|delta| in_order(number, delta))
        })
        .max_by_key(|delta| delta.number.as_ref().map(SerialNumber::ordering))
}

fn in_order(lower: &SerialNumber, higher: &SerialNumber) -> bool {
    lower.ordering() <= higher.ordering()
}

fn next_update(crl: &Crl, delta: Option<&Crl>) -> Option<UnixTime> {
    let own = crl.next_update?;
    // Without a next one announced, a delta says nothing about how long it holds.
    Some(delta.and_then(|delta| delta.next_update).map_or(own, |delta| delta.max(own)))
}

fn find<'a>(crl: &'a Crl, certificate: &Certificate) -> Option<&'a Entry> {
    crl.revoked.get(certificate.serial())?.iter().find(|entry| entry.issuer.same_as(certificate.issuer()))
}
