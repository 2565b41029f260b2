//! The Certificate and the Certificate Request payload (RFC 7296 §3.6, §3.7).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Cert Encoding |                                               |
//! +-+-+-+-+-+-+-+-+                                               +
//! ~      Certificate Data, or the Certification Authorities       ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! What stands behind the encoding is for those who know the encoding; of the others nothing is made.

use super::error::WireError;
use super::reader::Reader;
use crate::io::{CertificateData, CertificateRequest};

pub(super) fn parse_certificate(body: &mut Reader<'_>) -> Result<CertificateData, WireError> {
    let [encoding] = body.array()?;
    Ok(CertificateData { encoding, data: body.rest().to_vec() })
}

pub(super) fn encode_certificate(certificate: &CertificateData, out: &mut Vec<u8>) {
    out.push(certificate.encoding);
    out.extend_from_slice(&certificate.data);
}

pub(super) fn parse_request(body: &mut Reader<'_>) -> Result<CertificateRequest, WireError> {
    let [encoding] = body.array()?;
    Ok(CertificateRequest { encoding, authorities: body.rest().to_vec() })
}

pub(super) fn encode_request(request: &CertificateRequest, out: &mut Vec<u8>) {
    out.push(request.encoding);
    out.extend_from_slice(&request.authorities);
}
