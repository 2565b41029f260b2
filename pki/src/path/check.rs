//! The steps of RFC 5280 §6.1, from the anchor down. Signatures are checked already.

use super::names::NameState;
use super::policies::PolicyState;
use super::{PathError, Requirements, Strength};
use crate::certificate::{Certificate, KeyPurpose};
use crate::time::UnixTime;

/// Checks a path, the end entity first and the anchor last.
pub(super) fn path(path: &[&Certificate], now: UnixTime, requirements: &Requirements) -> Result<(), PathError> {
    let below_anchor = path.len().saturating_sub(1);
    let mut state = State {
        names: NameState::default(),
        policies: PolicyState::new(below_anchor, &requirements.policies),
        path_len: None,
    };
    for (depth, &link) in path.iter().rev().enumerate() {
        let (is_anchor, is_last) = (depth == 0, depth == below_anchor);
        certificate(link, now, &requirements.strength)?;
        // An anchor is believed, whoever signed it, and its own name is the configuration's choice.
        if !is_anchor {
            signature(link, &requirements.strength)?;
            if is_last || !link.is_self_issued() {
                state.names.check(link)?;
            }
            state.policies.process(link, is_last)?;
        }
        if !is_last {
            state.prepare_next(link, is_anchor)?;
        }
    }
    let Some(last) = path.first() else { return Ok(()) };
    state.policies.finish(last)?;
    end_entity(last, requirements)
}

/// What holds for every certificate: its time, its extensions, its key.
pub(super) fn certificate(link: &Certificate, now: UnixTime, strength: &Strength) -> Result<(), PathError> {
    let subject = || link.subject().to_string();
    if now < link.not_before() {
        return Err(PathError::NotYetValid { subject: subject(), not_before: link.not_before(), now });
    }
    if now > link.not_after() {
        return Err(PathError::Expired { subject: subject(), not_after: link.not_after(), now });
    }
    if let Some(extension) = link.extensions().unknown_critical.first() {
        return Err(PathError::CriticalExtension { subject: subject(), extension: *extension });
    }
    let key = link.public_key().map_err(|why| PathError::Key { subject: subject(), why: why.clone() })?.key_type();
    strength.check_key(key).map_err(|wanted| PathError::WeakKey { subject: subject(), key, wanted })
}

/// What holds for the certificate that is to be validated.
pub(super) fn end_entity(link: &Certificate, requirements: &Requirements) -> Result<(), PathError> {
    let subject = || link.subject().to_string();
    // RFC 4945 §5.1.3.2: either bit will do for signing in IKE. CAs that are asked for themselves sign other things.
    if let Some(usage) = &link.extensions().key_usage
        && !usage.digital_signature()
        && !usage.non_repudiation()
        && !link.is_ca()
    {
        return Err(PathError::KeyUsage { subject: subject(), missing: "digitalSignature" });
    }
    match &link.extensions().extended_key_usage {
        Some(has)
            if !requirements.purposes.is_empty()
                && !has.contains(&KeyPurpose::Any)
                && !has.iter().any(|purpose| requirements.purposes.contains(purpose)) =>
        {
            Err(PathError::Purpose { subject: subject(), has: has.clone(), wanted: requirements.purposes.clone() })
        }
        _ => Ok(()),
    }
}

fn signature(link: &Certificate, strength: &Strength) -> Result<(), PathError> {
    let subject = || link.subject().to_string();
    let scheme = link.signature_scheme().map_err(|why| PathError::SignatureAlgorithm { subject: subject(), why })?;
    strength.check_signature(scheme).map_err(|wanted| PathError::WeakSignature { subject: subject(), scheme, wanted })
}

struct State {
    names: NameState,
    policies: PolicyState,
    path_len: Option<PathLen>,
}

/// `max_path_length` with where it comes from.
struct PathLen {
    /// How many CAs may follow that are not self-issued.
    left: u8,
    allowed: u8,
    authority: String,
}

impl State {
    /// RFC 5280 §6.1.4: what a CA says about the certificates below it.
    fn prepare_next(&mut self, authority: &Certificate, is_anchor: bool) -> Result<(), PathError> {
        let subject = || authority.subject().to_string();
        let extensions = authority.extensions();
        // (k): an anchor of version 1 or 2 is a CA because the configuration says so.
        let by_configuration = is_anchor && authority.version() < 3;
        if !authority.is_ca() && !by_configuration {
            return Err(PathError::NotCa { subject: subject() });
        }
        // (n)
        if extensions.key_usage.as_ref().is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(PathError::KeyUsage { subject: subject(), missing: "keyCertSign" });
        }
        // (l): the anchor itself is not counted.
        if let Some(limit) = &mut self.path_len
            && !authority.is_self_issued()
        {
            limit.left = limit
                .left
                .checked_sub(1)
                .ok_or(PathError::PathLength { subject: limit.authority.clone(), allowed: limit.allowed })?;
        }
        // (m)
        if let Some(allowed) = extensions.basic_constraints.and_then(|constraints| constraints.path_len)
            && self.path_len.as_ref().is_none_or(|limit| allowed < limit.left)
        {
            self.path_len = Some(PathLen { left: allowed, allowed, authority: subject() });
        }
        // (g)
        if let Some(constraints) = &extensions.name_constraints {
            self.names.constrain(authority, constraints);
        }
        // (a), (b), (h) to (j)
        self.policies.prepare_next(authority, is_anchor)
    }
}
