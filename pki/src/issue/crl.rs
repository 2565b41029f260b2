//! Making CRLs.

use der::asn1::{BitString, OctetString, Uint};
use der::{Encode, Tag};
use rand_core::CryptoRng;
use x509_cert::certificate::Version;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

use super::{CrlPoint, IssueError, Issuer, distribution_points, extension};
use crate::certificate::{SerialNumber, oid};
use crate::crl::Crl;
use crate::revocation::Reason;
use crate::time::UnixTime;

/// What stands in a CRL apart from its issuer.
#[derive(Clone, Debug)]
pub struct CrlTemplate {
    /// Its number: higher than that of the one before.
    pub number: SerialNumber,
    /// When it is made.
    pub this_update: UnixTime,
    /// When the next one will be there.
    pub next_update: UnixTime,
    /// The revoked certificates.
    pub revoked: Vec<RevokedCertificate>,
    /// For a delta CRL: the number of the complete one that it adds to.
    pub base_number: Option<SerialNumber>,
    /// Where delta CRLs to it will be.
    pub freshest: Vec<CrlPoint>,
}

/// A certificate to be revoked.
#[derive(Clone, Debug)]
pub struct RevokedCertificate {
    /// Its number.
    pub serial: SerialNumber,
    /// Since when.
    pub time: UnixTime,
    /// Why.
    pub reason: Reason,
}

impl Issuer<'_> {
    /// Makes a CRL.
    ///
    /// # Errors
    /// [`IssueError`]
    pub fn sign_crl(&self, template: &CrlTemplate, rng: &mut dyn CryptoRng) -> Result<Crl, IssueError> {
        let (key, scheme) = self.key();
        let mut extensions = vec![
            extension(
                oid::AUTHORITY_KEY_ID,
                false,
                &AuthorityKeyIdentifier {
                    key_identifier: Some(OctetString::new(self.key_id())?),
                    ..Default::default()
                },
            )?,
            extension(oid::CRL_NUMBER, false, &number(&template.number)?)?,
        ];
        if let Some(base) = &template.base_number {
            extensions.push(extension(oid::DELTA_CRL_INDICATOR, true, &number(base)?)?);
        }
        if !template.freshest.is_empty() {
            extensions.push(extension(oid::FRESHEST_CRL, false, &distribution_points(&template.freshest)?)?);
        }
        let revoked = template.revoked.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let content: TbsCertList = TbsCertList {
            version: Version::V2,
            signature: scheme.to_identifier()?,
            issuer: self.certificate().subject().to_name()?,
            this_update: template.this_update.to_x509(),
            next_update: Some(template.next_update.to_x509()),
            // RFC 5280 §5.1.2.6: no certificates, no list.
            revoked_certificates: Some(revoked).filter(|revoked| !revoked.is_empty()),
            crl_extensions: Some(extensions),
        };
        let signature = BitString::from_bytes(&key.sign(scheme, &content.to_der()?, rng)?)?;
        let signature_algorithm = content.signature.clone();
        let list = CertificateList { tbs_cert_list: content, signature_algorithm, signature };
        Crl::from_der(&list.to_der()?).map_err(|error| IssueError::Name(error.to_string()))
    }
}

fn entry(revoked: &RevokedCertificate) -> Result<RevokedCert, IssueError> {
    // RFC 5280 §5.3.1: no reason is better than `unspecified`.
    let reason = (revoked.reason != Reason::Unspecified)
        .then(|| der::asn1::Any::new(Tag::Enumerated, [revoked.reason.number()]).map_err(IssueError::from))
        .transpose()?
        .map(|reason| extension(oid::CRL_REASON, false, &reason))
        .transpose()?;
    Ok(RevokedCert {
        serial_number: revoked.serial.encoded()?,
        revocation_date: revoked.time.to_x509(),
        crl_entry_extensions: reason.map(|reason| vec![reason]),
    })
}

fn number(number: &SerialNumber) -> Result<Uint, IssueError> {
    Ok(Uint::new(&number.0)?)
}
