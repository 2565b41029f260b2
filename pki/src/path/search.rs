//! Looking for issuers until a trust anchor is found.

use super::{Authority, PathError, Requirements, ValidPath, check};
use crate::certificate::Certificate;
use crate::signed::SignatureError;
use crate::time::UnixTime;

pub(super) struct Search<'a, 'r> {
    bag: &'a [Certificate],
    anchors: &'a [Certificate],
    now: UnixTime,
    requirements: &'r Requirements,
    /// Signatures that may still be checked.
    budget: u32,
    /// Why the path failed that got furthest.
    best: Option<PathError>,
}

impl<'a, 'r> Search<'a, 'r> {
    pub(super) fn new(
        bag: &'a [Certificate],
        anchors: &'a [Certificate],
        now: UnixTime,
        requirements: &'r Requirements,
    ) -> Self {
        Self { bag, anchors, now, requirements, budget: MAX_SIGNATURES, best: None }
    }

    pub(super) fn run(mut self, end_entity: &'a Certificate) -> Result<ValidPath<'a>, PathError> {
        // An end entity that is a trust anchor itself needs no path.
        if self.anchors.contains(end_entity) {
            return super::validate_pinned(end_entity, self.now, self.requirements);
        }
        match self.extend(&mut vec![end_entity]) {
            Some(path) => Ok(path),
            None => Err(self.best.unwrap_or_else(|| unknown_issuer(end_entity))),
        }
    }

    /// Tries all who could have issued the last certificate of `path`.
    fn extend(&mut self, path: &mut Vec<&'a Certificate>) -> Option<ValidPath<'a>> {
        let current = *path.last()?;
        let candidates = self.candidates(current, path);
        if candidates.is_empty() {
            self.failed(unknown_issuer(current));
        } else if path.len() > MAX_BELOW_ANCHOR {
            self.failed(PathError::TooLong { subject: current.subject().to_string(), limit: MAX_BELOW_ANCHOR });
            return None;
        }
        for (candidate, is_anchor) in candidates {
            let Some(left) = self.budget.checked_sub(1) else {
                let subject = path.first()?.subject().to_string();
                self.failed(PathError::TooManyAttempts { subject, limit: MAX_SIGNATURES });
                return None;
            };
            self.budget = left;
            if let Err(error) = signed_by(current, candidate) {
                self.failed(error);
                continue;
            }
            path.push(candidate);
            let found = if is_anchor { self.finish(path) } else { self.extend(path) };
            path.pop();
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Who has the name of the issuer, fitting key identifiers first and of those the anchors.
    fn candidates(&self, current: &Certificate, path: &[&Certificate]) -> Vec<(&'a Certificate, bool)> {
        let wanted = current.extensions().authority_key_id.as_deref();
        let anchors = self.anchors.iter().map(|certificate| (certificate, true));
        let bag = self.bag.iter().map(|certificate| (certificate, false));
        let mut all: Vec<_> = anchors
            .chain(bag)
            .filter(|(candidate, is_anchor)| {
                candidate.subject().same_as(current.issuer())
                    // RFC 5280 §6.1: no certificate twice; one of the same name and key would only lead round in a circle.
                    && !path.iter().any(|used| same_entity(used, candidate))
                    && (*is_anchor || !self.anchors.contains(candidate))
            })
            .collect();
        all.sort_by_key(|(candidate, is_anchor)| {
            let fits = match (wanted, candidate.extensions().subject_key_id.as_deref()) {
                (Some(wanted), Some(has)) => wanted == has,
                _ => true,
            };
            (!fits, !is_anchor)
        });
        all
    }

    /// Checks a path that has reached an anchor.
    fn finish(&mut self, path: &[&'a Certificate]) -> Option<ValidPath<'a>> {
        let checked = check::path(path, self.now, self.requirements).and_then(|()| self.over_wanted_authority(path));
        match checked {
            Ok(()) => Some(ValidPath { end_entity: path.first()?, certificates: path.to_vec() }),
            Err(error) => {
                self.failed(error);
                None
            }
        }
    }

    fn over_wanted_authority(&self, path: &[&Certificate]) -> Result<(), PathError> {
        let issuers = path.get(1..).unwrap_or_default();
        let wanted = &self.requirements.authorities;
        if wanted.is_empty() || issuers.iter().any(|issuer| wanted.iter().any(|wanted| wanted.is(issuer))) {
            return Ok(());
        }
        let names: Vec<String> = issuers.iter().map(|issuer| format!("`{}`", issuer.subject())).collect();
        let subject = path.first().map(|first| first.subject().to_string()).unwrap_or_default();
        Err(PathError::Authority { subject, issuers: names.join(", ") })
    }

    fn failed(&mut self, error: PathError) {
        if self.best.as_ref().is_none_or(|best| best.progress() < error.progress()) {
            self.best = Some(error);
        }
    }
}

impl Authority {
    fn is(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Certificate(wanted) => **wanted == *certificate,
            Self::Named(name) => name.same_as(certificate.subject()),
        }
    }
}

fn same_entity(a: &Certificate, b: &Certificate) -> bool {
    a == b || (a.public_key().is_ok() && a.public_key() == b.public_key() && a.subject().same_as(b.subject()))
}

fn signed_by(current: &Certificate, issuer: &Certificate) -> Result<(), PathError> {
    let key = issuer
        .public_key()
        .map_err(|why| PathError::Key { subject: issuer.subject().to_string(), why: why.clone() })?;
    current.verify_signature(key).map_err(|error| match error {
        SignatureError::Algorithm(why) => PathError::SignatureAlgorithm { subject: current.subject().to_string(), why },
        SignatureError::Wrong(_) => {
            PathError::BadSignature { subject: current.subject().to_string(), issuer: current.issuer().to_string() }
        }
    })
}

fn unknown_issuer(certificate: &Certificate) -> PathError {
    let subject = certificate.subject().to_string();
    if certificate.is_self_issued() {
        PathError::SelfSigned { subject }
    } else {
        PathError::UnknownIssuer { subject, issuer: certificate.issuer().to_string() }
    }
}

/// Certificates below an anchor: RFC 7296 §3.6 wants four, nobody needs more than twelve (R7296-3.6-1).
const MAX_BELOW_ANCHOR: usize = 12;

/// Signatures that are checked for one certificate: enough for CAs that sign each other, too few to keep us busy.
const MAX_SIGNATURES: u32 = 64;
