//! Certificates, revocation lists and OCSP answers.

use pki::certificate::Certificate;
use pki::crl::Crl;
use pki::dn::DistinguishedName;
use pki::ocsp::Response;
use pki::path::{Requirements, Strength, validate, validate_pinned};
use pki::request::Request;
use pki::revocation::sources;
use pki::time::UnixTime;

use crate::cursor::Cursor;

/// The input is several pieces of DER, each behind its count: every one is read as all that it may be, and those that are
/// certificates become a path, whose last one is trusted.
pub(crate) fn run(input: &[u8]) {
    let mut input = Cursor::new(input);
    let mut certificates = Vec::new();
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        let der = input.counted();
        certificates.extend(Certificate::from_der(der).ok());
        read_others(der);
        drop(Certificate::load(der));
    }
    for certificate in &certificates {
        assert_eq!(
            Certificate::from_der(certificate.der()).ok().map(|again| again.der().to_vec()).as_deref(),
            Some(certificate.der())
        );
        drop(certificate.subject().to_string());
    }
    path(&certificates);
}

fn read_others(der: &[u8]) {
    if let Ok(crl) = Crl::from_der(der) {
        drop((crl.entries().count(), crl.number(), crl.base_number(), crl.freshest().len(), crl.to_pem()));
    }
    drop(Response::from_der(der));
    drop(Request::from_der(der));
    drop(DistinguishedName::from_der(der));
}

/// The last certificate is trusted, the first one is to be proved, and the others lie around. A path that is right stays
/// right when there is more around.
fn path(certificates: &[Certificate]) {
    let ([first, ..], [others @ .., last]) = (certificates, certificates) else { return };
    let requirements = Requirements { strength: Strength::weakest(), ..Requirements::default() };
    let anchors = std::slice::from_ref(last);
    let now = UnixTime(IN_2027);
    if let Ok(path) = validate(first, others, anchors, now, &requirements) {
        assert!(path.links().all(|(below, above)| below.issuer().same_as(above.subject())), "a path with a gap");
        drop(sources(&path));
        assert!(validate(first, certificates, anchors, now, &requirements).is_ok(), "more certificates break a path");
    }
    drop(validate_pinned(first, now, &requirements));
}

/// The certificates of the corpus are valid for a hundred years from 2026.
const IN_2027: u64 = 1_800_000_000;
