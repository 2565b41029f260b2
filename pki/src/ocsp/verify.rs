//! Whether a response counts (RFC 6960 §3.2, §4.2.2).

use der::asn1::OctetString;
use der::{Decode, Encode};

use super::asn1::{CertStatus, ResponderId, SingleResponse};
use super::{Answer, OcspError, Request, Response};
use crate::certificate::{Certificate, KeyPurpose, oid};
use crate::crl::reason_of;
use crate::dn::DistinguishedName;
use crate::hash::{self, HashAlgorithm};
use crate::path::Strength;
use crate::revocation::{Reason, Status};
use crate::time::UnixTime;

impl Response {
    /// Checks that the response answers `request` and comes from somebody who may: the CA that issued the certificate, or a
    /// responder whose certificate this CA signed for OCSP signing (it may come with the response or be in `responders`).
    ///
    /// # Errors
    /// [`OcspError`]; [`OcspError::Nonce`] for another nonce than ours, and with `nonce_required` for none at all.
    pub fn verify(
        &self,
        request: &Request<'_>,
        responders: &[Certificate],
        nonce_required: bool,
        now: UnixTime,
        strength: &Strength,
    ) -> Result<Answer, OcspError> {
        let nonce = self.check_nonce(request, nonce_required)?;
        self.check_signer(request.issuer, responders, now, strength)?;
        let single = self.about(request)?;
        let (this_update, next_update) = (time(&single.this_update), single.next_update.as_ref().map(time));
        if this_update.0 > now.0.saturating_add(CLOCK_SKEW_SECONDS) {
            return Err(OcspError::NotYetValid { this_update, now });
        }
        let until = next_update.unwrap_or(UnixTime(this_update.0.saturating_add(DEFAULT_VALIDITY_SECONDS)));
        let stale = until.0.saturating_add(CLOCK_SKEW_SECONDS) < now.0;
        let status = match &single.status {
            CertStatus::Revoked(info) => {
                let reason = match &info.reason {
                    Some(reason) => reason_of(&reason.to_der()?)?,
                    None => Reason::Unspecified,
                };
                Status::Revoked { reason, time: time(&info.time) }
            }
            CertStatus::Good(_) if stale => Status::Stale { next_update: until },
            CertStatus::Good(_) => Status::Good,
            CertStatus::Unknown(_) => Status::Unknown,
        };
        Ok(Answer { status, this_update, next_update, nonce })
    }

    /// The certificate of the issuer and the serial number must be those of the request, whatever hash names them.
    fn about(&self, request: &Request<'_>) -> Result<&SingleResponse, OcspError> {
        for hash in HashAlgorithm::ALL {
            let id = request.certificate_id(hash)?;
            if let Some(single) = self.data.responses.iter().find(|single| single.id.same_as(&id)) {
                return Ok(single);
            }
        }
        Err(OcspError::OtherCertificate { serial: request.certificate.serial().to_string() })
    }

    fn check_nonce(&self, request: &Request<'_>, required: bool) -> Result<bool, OcspError> {
        let nonce = self.data.extensions.iter().flatten().find(|extension| extension.extn_id == oid::OCSP_NONCE);
        match (&request.nonce, nonce) {
            (Some(sent), Some(received)) => {
                // RFC 8954 §2.1: an OCTET STRING; some responders leave it out.
                let raw = received.extn_value.as_bytes();
                let inner = OctetString::from_der(raw);
                let same = inner.is_ok_and(|inner| inner.as_bytes() == sent.as_slice()) || raw == sent.as_slice();
                if same { Ok(true) } else { Err(OcspError::Nonce) }
            }
            (Some(_), None) if required => Err(OcspError::Nonce),
            _ => Ok(false),
        }
    }

    fn check_signer(
        &self,
        issuer: &Certificate,
        responders: &[Certificate],
        now: UnixTime,
        strength: &Strength,
    ) -> Result<(), OcspError> {
        let mut why = "its certificate is not there".to_owned();
        let delegated = responders.iter().chain(&self.certificates);
        for signer in std::iter::once(issuer).chain(delegated).filter(|signer| self.is_by(signer)) {
            if signer != issuer
                && let Err(error) = may_respond(signer, issuer, now, strength)
            {
                why = error;
                continue;
            }
            let Ok(key) = signer.public_key() else { continue };
            self.signed.verify(key).map_err(OcspError::Signature)?;
            if let Ok(scheme) = self.signed.scheme() {
                strength.check_signature(scheme).map_err(|wanted| OcspError::Weak { wanted })?;
            }
            return strength.check_key(key.key_type()).map_err(|wanted| OcspError::Weak { wanted });
        }
        Err(OcspError::Responder { issuer: issuer.subject().to_string(), why })
    }

    fn is_by(&self, signer: &Certificate) -> bool {
        match &self.data.responder {
            ResponderId::Name(name) => {
                DistinguishedName::from_name(name).is_ok_and(|name| name.same_as(signer.subject()))
            }
            ResponderId::Key(id) => signer.key_bits().is_ok_and(|bits| hash::sha1(bits).as_slice() == id.as_bytes()),
        }
    }
}

/// RFC 6960 §4.2.2.2: the CA itself signed the responder's certificate, for this purpose and no wider one.
fn may_respond(signer: &Certificate, issuer: &Certificate, now: UnixTime, strength: &Strength) -> Result<(), String> {
    let purposes = signer.extensions().extended_key_usage.as_deref().unwrap_or_default();
    let key = issuer.public_key().map_err(ToString::to_string)?;
    strength.check_signature(signer.signature_scheme().map_err(|error| error.to_string())?)?;
    if !purposes.contains(&KeyPurpose::OcspSigning) {
        Err(format!("`{}` is not made for OCSP signing", signer.subject()))
    } else if !signer.issuer().same_as(issuer.subject()) || signer.verify_signature(key).is_err() {
        Err(format!("`{}` is not signed by the CA itself", signer.subject()))
    } else if now < signer.not_before() || now > signer.not_after() {
        Err(format!("`{}` is valid from {} to {}", signer.subject(), signer.not_before(), signer.not_after()))
    } else if let Some(extension) = signer.extensions().unknown_critical.first() {
        Err(format!("`{}` has the unknown critical extension {extension}", signer.subject()))
    } else {
        Ok(())
    }
}

fn time(time: &der::asn1::GeneralizedTime) -> UnixTime {
    UnixTime(time.to_unix_duration().as_secs())
}

/// By how much a responder's clock may differ from ours.
const CLOCK_SKEW_SECONDS: u64 = 300;

/// How long an answer holds that does not say it: RFC 6960 §4.2.2.1 says that newer information is always there then.
const DEFAULT_VALIDITY_SECONDS: u64 = 3600;
