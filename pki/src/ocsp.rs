//! The Online Certificate Status Protocol (RFC 6960).
//!
//! ```text
//! Request::new(certificate, issuer, nonce) → to_der → ((fetched elsewhere)) → Response::from_der
//!                                                     → verify(request, …) → Answer { status, … }
//! ```

mod asn1;
mod verify;

use der::asn1::{AnyRef, OctetString};
use der::{Decode, Encode, SliceReader, Tag, Tagged};
use x509_cert::ext::Extension;

use crate::certificate::{Certificate, oid};
use crate::hash::HashAlgorithm;
use crate::revocation::Status;
use crate::signed::{SignatureError, Signed};
use crate::time::UnixTime;

use asn1::{CertId, OcspRequest, OcspResponse, OneRequest, ResponseData, TbsRequest};

/// A question about one certificate.
#[derive(Clone)]
pub struct Request<'a> {
    certificate: &'a Certificate,
    issuer: &'a Certificate,
    nonce: Option<Vec<u8>>,
}

/// A response as somebody sent it. Nothing is believed of it yet.
#[derive(Clone)]
pub struct Response {
    signed: Signed,
    data: ResponseData,
    /// Certificates that came with it.
    certificates: Vec<Certificate>,
}

/// What a response that counts says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status, as of the time that [`Response::verify`] was told.
    pub status: Status,
    /// When the responder knew it.
    pub this_update: UnixTime,
    /// When it will know more.
    pub next_update: Option<UnixTime>,
    /// Whether it repeats our nonce, which shows that it is not an old one.
    pub nonce: bool,
}

/// Why a response does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OcspError {
    /// Not the DER of one.
    #[error("no OCSP response in DER: {0}")]
    Der(#[from] der::Error),
    /// The responder says that it has no answer.
    #[error("the OCSP responder refused: {0}")]
    Refused(Refusal),
    /// A kind of response that we do not know.
    #[error("the OCSP response is of the unknown type {0}")]
    UnknownType(der::asn1::ObjectIdentifier),
    /// It says nothing about the certificate that was asked for.
    #[error("the OCSP response says nothing about serial {serial}")]
    OtherCertificate {
        /// The serial number.
        serial: String,
    },
    /// The nonce is another one, or is missing where it is wanted.
    #[error("the OCSP response does not repeat our nonce")]
    Nonce,
    /// Neither the CA nor somebody it made a responder has signed it.
    #[error("the OCSP response for certificates of `{issuer}` is signed by nobody who may: {why}")]
    Responder {
        /// The CA.
        issuer: String,
        /// Why the last signer that was tried does not count.
        why: String,
    },
    /// The signature is wrong.
    #[error("the signature of the OCSP response does not count: {0}")]
    Signature(SignatureError),
    /// The hash of the signature is too weak.
    #[error("the signature of the OCSP response is not allowed: {wanted}")]
    Weak {
        /// What is allowed.
        wanted: String,
    },
    /// It is about a time to come.
    #[error("the OCSP response is not valid before {this_update}; now it is {now}")]
    NotYetValid {
        /// When the responder says it knew the status.
        this_update: UnixTime,
        /// What we take for the time.
        now: UnixTime,
    },
}

/// How a responder says that it has no answer (RFC 6960 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not understand the request.
    #[error("malformed request")]
    MalformedRequest,
    /// Something is wrong on its side.
    #[error("internal error")]
    InternalError,
    /// Later perhaps.
    #[error("try later")]
    TryLater,
    /// It answers signed requests only.
    #[error("a signature is required")]
    SignatureRequired,
    /// It does not answer us, or not about this CA.
    #[error("unauthorized")]
    Unauthorized,
    /// A number without meaning.
    #[error("status {0}")]
    Other(u8),
}

impl<'a> Request<'a> {
    /// Asks about a certificate of `issuer`. The nonce should be 32 random octets (RFC 9654 §2.1); without one an old
    /// response can be replayed until it is out of date.
    #[must_use]
    pub fn new(certificate: &'a Certificate, issuer: &'a Certificate, nonce: Option<&[u8]>) -> Self {
        Self { certificate, issuer, nonce: nonce.map(<[u8]>::to_vec) }
    }

    /// The DER to be sent, as `application/ocsp-request` by POST (RFC 6960 appendix A.1).
    ///
    /// # Errors
    /// When something does not fit in DER.
    pub fn to_der(&self) -> der::Result<Vec<u8>> {
        // Certificates are named by SHA-1 hashes, for responders that know no other; nothing is secured by them.
        let id = self.certificate_id(HashAlgorithm::Sha1)?;
        let nonce = self.nonce.as_ref().map(|nonce| -> der::Result<_> {
            let value = OctetString::new(nonce.as_slice())?.to_der()?;
            Ok(vec![Extension { extn_id: oid::OCSP_NONCE, critical: false, extn_value: OctetString::new(value)? }])
        });
        OcspRequest { tbs: TbsRequest { requests: vec![OneRequest { id }], extensions: nonce.transpose()? } }.to_der()
    }

    /// RFC 6960 §4.1.1: hashes of the issuer's name and key, and the serial number.
    fn certificate_id(&self, hash: HashAlgorithm) -> der::Result<CertId> {
        CertId::of(hash, self.certificate.issuer(), self.issuer.key_bits()?, self.certificate.serial())
    }
}

impl Response {
    /// Reads a response, whoever it comes from.
    ///
    /// ```text
    /// OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED, responseBytes [0] ResponseBytes OPTIONAL }
    /// BasicOCSPResponse ::= SEQUENCE {
    ///     tbsResponseData    ResponseData,
    ///     signatureAlgorithm AlgorithmIdentifier,
    ///     signature          BIT STRING,
    ///     certs          [0] SEQUENCE OF Certificate OPTIONAL }
    /// ```
    ///
    /// # Errors
    /// [`OcspError::Refused`] when it is no answer, others when it is nothing that can be read.
    pub fn from_der(der: &[u8]) -> Result<Self, OcspError> {
        let response = OcspResponse::from_der(der)?;
        let bytes = match (refusal(&response)?, response.bytes) {
            (Some(refusal), _) => return Err(OcspError::Refused(refusal)),
            (None, Some(bytes)) => bytes,
            (None, None) => return Err(OcspError::Der(Tag::Sequence.value_error().into())),
        };
        if bytes.kind != oid::OCSP_BASIC {
            return Err(OcspError::UnknownType(bytes.kind));
        }
        let mut reader = SliceReader::new(bytes.response.as_bytes())?;
        let (signed, certificates) = der::Reader::sequence(&mut reader, |reader| {
            let signed = Signed::read(reader)?;
            let certificates: Option<Vec<der::Any>> =
                der::Reader::context_specific(reader, der::TagNumber(0), der::TagMode::Explicit)?;
            der::Result::Ok((signed, certificates))
        })?;
        der::Reader::finish(reader)?;
        let data = ResponseData::from_der(&signed.content)?;
        // A certificate that cannot be read is as good as one that is not there.
        let certificates = certificates
            .unwrap_or_default()
            .iter()
            .take(MAX_CERTIFICATES)
            .filter_map(|any| Certificate::from_der(&any.to_der().ok()?).ok())
            .collect();
        Ok(Self { signed, data, certificates })
    }

    /// When the responder signed it.
    #[must_use]
    pub fn produced_at(&self) -> UnixTime {
        UnixTime(self.data.produced_at.to_unix_duration().as_secs())
    }
}

/// The refusal in a response; `None` is success.
fn refusal(response: &OcspResponse) -> der::Result<Option<Refusal>> {
    let status = AnyRef::from(&response.status);
    match (status.tag(), status.value()) {
        (Tag::Enumerated, [0]) => Ok(None),
        (Tag::Enumerated, [number]) => Ok(Some(match number {
            1 => Refusal::MalformedRequest,
            2 => Refusal::InternalError,
            3 => Refusal::TryLater,
            5 => Refusal::SignatureRequired,
            6 => Refusal::Unauthorized,
            other => Refusal::Other(*other),
        })),
        _ => Err(Tag::Enumerated.value_error().into()),
    }
}

/// Certificates in a response that are looked at; one is usual.
const MAX_CERTIFICATES: usize = 4;

#[cfg(test)]
mod tests;
