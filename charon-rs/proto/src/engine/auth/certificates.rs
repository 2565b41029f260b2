//! Certificates that go with a proof, and requests for them (RFC 7296 §3.6, §3.7, RFC 4806).

use std::collections::BTreeSet;

use crate::config::{AuthorityHash, Connection, RemoteMethod, SendCertificates, Trust};
use crate::engine::failure::{Incompatible, Trouble};
use crate::io::{CertificateData, CertificateRequest, FailureCode};
use crate::rules::Body;
use crate::wire::{NotifyType, Payload};

/// Whether our certificates go with our proof.
pub(super) fn are_sent(connection: &Connection, requested: &[CertificateRequest]) -> bool {
    match connection.send_certificates {
        SendCertificates::Always => true,
        SendCertificates::IfAsked => !requested.is_empty(),
        SendCertificates::Never => false,
    }
}

/// Our requests, for all that these connections demand of the peer: one for the CAs, and one for OCSP answers.
pub(in crate::engine) fn requests<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> Vec<Payload> {
    let asking = connections.into_iter().filter(|connection| connection.send_certificate_requests);
    let trusts: Vec<&Trust> = asking.flat_map(trusts_of).collect();
    let authorities: BTreeSet<AuthorityHash> =
        trusts.iter().flat_map(|trust| &trust.authorities).copied().take(MAX_AUTHORITIES).collect();
    let mut payloads = Vec::new();
    if !authorities.is_empty() {
        let authorities = authorities.iter().flat_map(|authority| authority.0).collect();
        payloads.push(Payload::CertificateRequest(CertificateRequest { encoding: X509_SIGNATURE, authorities }));
    }
    // RFC 4806 §3.1: no hashes are needed for those who answer in the name of the CA.
    if trusts.iter().any(|trust| trust.ocsp) {
        payloads.push(Payload::CertificateRequest(CertificateRequest { encoding: OCSP, authorities: Vec::new() }));
    }
    payloads
}

fn trusts_of(connection: &Connection) -> impl Iterator<Item = &Trust> {
    connection.remote_rounds().filter_map(|remote| match &remote.method {
        RemoteMethod::Signature(trust) => Some(trust),
        RemoteMethod::PreSharedKey => None,
    })
}

/// The peer's requests, as many as are worth keeping: they are wishes, and who sends them may be nobody we know.
pub(in crate::engine) fn requested(body: &Body) -> Vec<CertificateRequest> {
    let mut room = MAX_REQUEST_OCTETS;
    let fitting = body.certificate_requests().take(MAX_REQUESTS).filter(|request| {
        let fits = request.authorities.len() <= room;
        room = room.saturating_sub(if fits { request.authorities.len() } else { 0 });
        fits
    });
    fitting.cloned().collect()
}

/// The peer's certificates, the one of the signer first (R7296-1.2-3). R7296-3.6-1: chains are bounded.
pub(super) fn received(body: &Body) -> Result<Vec<CertificateData>, Trouble> {
    let (count, octets) =
        body.certificates().fold((0, 0), |(count, octets), certificate| (count + 1, octets + certificate.data.len()));
    if count > MAX_CERTIFICATES || octets > MAX_CERTIFICATE_OCTETS {
        return Err(Trouble::Incompatible(Box::new(Incompatible {
            code: FailureCode::AuthCertificateLimit,
            notify: NotifyType::AuthenticationFailed,
            what: format!("the peer sent {count} certificates of {octets} octets in all"),
            ours: vec![format!("at most {MAX_CERTIFICATES} of {MAX_CERTIFICATE_OCTETS} octets in all")],
            theirs: Vec::new(),
            hint: Some(
                "have the peer send its own certificate and those of the CAs between it and the root".to_owned(),
            ),
            cure: None,
        })));
    }
    Ok(body.certificates().cloned().collect())
}

/// Cert Encoding: X.509 Certificate - Signature (RFC 7296 §3.6).
const X509_SIGNATURE: u8 = 4;

/// Cert Encoding: OCSP Content (RFC 4806 §3).
const OCSP: u8 = 14;

/// CAs that we name: the answer to a stranger's IKE_SA_INIT must stay in one packet.
const MAX_AUTHORITIES: usize = 32;

/// Requests of a peer that are kept, and their octets: a few hundred CAs.
const MAX_REQUESTS: usize = 8;
const MAX_REQUEST_OCTETS: usize = 8 * 1024;

/// Certificates and OCSP answers of a peer: a chain of twelve is longer than anybody's.
const MAX_CERTIFICATES: usize = 16;
const MAX_CERTIFICATE_OCTETS: usize = 48 * 1024;
