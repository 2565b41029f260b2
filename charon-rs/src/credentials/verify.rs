//! The peer's proof.
//!
//! What costs little comes first, and nothing is fetched for anybody before everything else is right (CVE-2022-40617):
//! reading, the name, the signature, the path, and only then (in [`super::desk`]) revocation.

use std::sync::Arc;

use ike_proto::io::{CertificateData, FailureCode, ProofRefusal, VerifyRequest};
use pki::certificate::{Certificate, KeyPurpose};
use pki::key::PublicKey;
use pki::path::{Requirements, ValidPath, validate, validate_pinned};
use pki::time::UnixTime;

use super::demand::Demand;
use super::names;
use super::proof::Proof;
use super::refusal::{self, refusal};
use super::revocation::{Link, Offered};
use super::sign::{RAW_KEY, X509};
use super::store::Store;

/// Certificates of one peer that are looked at: RFC 7296 §3.6 wants four, nobody needs more than twelve CAs.
const MAX_CERTIFICATES: usize = 16;

/// Cert Encoding of a CRL (RFC 7296 §3.6).
const CRL: u8 = 7;

/// Cert Encoding of an OCSP response (RFC 4806 §3).
pub(super) const OCSP: u8 = 14;

/// CRLs and OCSP responses of one peer that are looked at.
const MAX_OFFERED: usize = 8;

/// A proof that counts, unless a certificate was revoked.
#[derive(Debug)]
pub(super) struct Convinced {
    /// What convinced us.
    pub(super) evidence: String,
    /// Each certificate of the path with its issuer: what to ask about revocation.
    pub(super) links: Vec<Link>,
    /// What the peer sent about revocation.
    pub(super) offered: Offered,
    /// What is demanded.
    pub(super) demand: Arc<Demand>,
}

/// What the peer sent, read.
struct Sent {
    /// The signer's certificate.
    first: Option<Certificate>,
    /// Others.
    bag: Vec<Certificate>,
    /// A raw public key.
    key: Option<PublicKey>,
    offered: Offered,
}

/// Judges a proof, revocation excepted.
///
/// # Errors
/// The refusal.
pub(super) fn verify(store: &Store, request: &VerifyRequest, now: UnixTime) -> Result<Convinced, ProofRefusal> {
    let demand = store.demand(&request.trust).ok_or_else(refusal::reconfigured)?;
    let judge = Judge { store, request, demand, proof: Proof::read(request.method, &request.data)?, now };
    let mut sent = Sent::read(&request.certificates)?;
    if let Some(certificate) = sent.first.take() {
        return judge.certificate(&certificate, sent);
    }
    if let Some(key) = &sent.key {
        return judge.key(key);
    }
    judge.known(sent)
}

struct Judge<'a> {
    store: &'a Store,
    request: &'a VerifyRequest,
    demand: &'a Arc<Demand>,
    proof: Proof<'a>,
    now: UnixTime,
}

impl Judge<'_> {
    /// The peer sent nothing: it must be among those that are known here.
    fn known(&self, sent: Sent) -> Result<Convinced, ProofRefusal> {
        let identity = &self.request.identity;
        let pinned = self.demand.certificates.iter();
        let of_store = self.store.certificates().filter(|_| self.demand.certificates.is_empty());
        let mut refused = None;
        for certificate in pinned.chain(of_store).filter(|certificate| names::has(certificate, identity)) {
            match self.certificate(certificate, sent.without_certificates()) {
                Ok(convinced) => return Ok(convinced),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        for key in &self.demand.keys {
            match self.key(key) {
                Ok(convinced) => return Ok(convinced),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        Err(refused.unwrap_or_else(|| refusal::no_certificate(identity)))
    }

    /// A raw public key counts if the configuration names it; whose it is, the configuration says as well.
    fn key(&self, key: &PublicKey) -> Result<Convinced, ProofRefusal> {
        if !self.demand.keys.contains(key) {
            return Err(refusal::not_pinned(self.pins(), format!("public key {key:?}")));
        }
        let how = self.proof.check(key, &self.request.octets, &self.demand.constraints.signature)?;
        Ok(self.convinced(format!("{how}, public key {}", key.key_id()), Vec::new(), Offered::default()))
    }

    fn certificate(&self, certificate: &Certificate, mut sent: Sent) -> Result<Convinced, ProofRefusal> {
        let demand = self.demand;
        let key = certificate.public_key();
        if let Ok(key) = key
            && demand.keys.contains(key)
        {
            return self.key(key);
        }
        let pinned = demand.certificates.contains(certificate);
        if !pinned && (!demand.certificates.is_empty() || !demand.keys.is_empty() && demand.authorities.is_empty()) {
            return Err(refusal::not_pinned(self.pins(), describe(certificate)));
        }
        // R4301-4.4.3.2-1, R7296-1.2-2: the identity must be a name of the certificate.
        if !names::has(certificate, &self.request.identity) {
            return Err(refusal::other_identity(certificate, &self.request.identity));
        }
        let key = key.map_err(|why| {
            refusal(
                FailureCode::AuthKeyTooWeak,
                format!("the key of `{}` cannot be used: {why}", certificate.subject()),
            )
        })?;
        let how = self.proof.check(key, &self.request.octets, &demand.constraints.signature)?;
        sent.bag.extend(self.store.intermediates().cloned());
        let anchors = self.anchors();
        let path = self.path(certificate, pinned, &sent.bag, &anchors)?;
        let mut evidence = format!("{how}, certificate \"{}\"", certificate.subject());
        if let [_, .., anchor] = path.certificates() {
            evidence += &format!(", CA \"{}\"", anchor.subject());
        }
        Ok(self.convinced(evidence, Link::of(&path, self.store), sent.offered))
    }

    fn path<'c>(
        &self,
        certificate: &'c Certificate,
        pinned: bool,
        bag: &'c [Certificate],
        anchors: &'c [Certificate],
    ) -> Result<ValidPath<'c>, ProofRefusal> {
        let demand = self.demand;
        let requirements = Requirements {
            strength: demand.constraints.certificates.clone(),
            purposes: PURPOSES.to_vec(),
            policies: demand.policies.clone(),
            authorities: demand.authorities.clone(),
        };
        let path = if pinned {
            validate_pinned(certificate, self.now, &requirements)
        } else {
            validate(certificate, bag, anchors, self.now, &requirements)
        };
        path.map_err(|error| ProofRefusal { theirs: vec![describe(certificate)], ..refusal::path(&error) })
    }

    /// The trusted CAs, with those that only this connection trusts.
    fn anchors(&self) -> Vec<Certificate> {
        let common = self.store.anchors();
        let own = self.demand.anchors().filter(|own| !common.contains(own));
        common.iter().chain(own).cloned().collect()
    }

    fn convinced(&self, evidence: String, links: Vec<Link>, offered: Offered) -> Convinced {
        Convinced { evidence, links, offered, demand: Arc::clone(self.demand) }
    }

    fn pins(&self) -> Vec<String> {
        let certificates = self.demand.certificates.iter().map(describe);
        certificates.chain(self.demand.keys.iter().map(|key| format!("public key {key:?}"))).collect()
    }
}

impl Sent {
    /// Reads what came in CERT payloads. R7296-1.2-3: the first certificate is the signer's. Of the others those that cannot
    /// be read are as good as not there, and so is what comes after more than anybody needs.
    fn read(payloads: &[CertificateData]) -> Result<Self, ProofRefusal> {
        let of = |encoding: u8| payloads.iter().filter(move |payload| payload.encoding == encoding);
        let mut certificates = of(X509).take(MAX_CERTIFICATES).map(|payload| Certificate::from_der(&payload.data));
        let first = certificates.next().transpose().map_err(|why| malformed(&why))?;
        let bag = certificates.filter_map(Result::ok).collect();
        let key = of(RAW_KEY).next().map(|payload| PublicKey::from_spki_der(&payload.data)).transpose();
        let offered = Offered {
            ocsp: of(OCSP).take(MAX_OFFERED).map(|payload| payload.data.clone()).collect(),
            crls: of(CRL).take(MAX_OFFERED).map(|payload| payload.data.clone()).collect(),
        };
        Ok(Self { first, bag, key: key.map_err(|why| malformed(&why))?, offered })
    }

    fn without_certificates(&self) -> Self {
        Self { first: None, bag: self.bag.clone(), key: None, offered: self.offered.clone() }
    }
}

/// RFC 4945 §5.1.3.12: what a certificate that says what it is for must be for. Gateways have certificates of web servers, too.
const PURPOSES: [KeyPurpose; 4] =
    [KeyPurpose::IpsecIke, KeyPurpose::IkeIntermediate, KeyPurpose::ServerAuth, KeyPurpose::ClientAuth];

fn malformed(why: &dyn std::fmt::Display) -> ProofRefusal {
    refusal(FailureCode::AuthCertificateMalformed, format!("the peer's certificate cannot be read: {why}"))
}

fn describe(certificate: &Certificate) -> String {
    format!("certificate \"{}\", issued by \"{}\"", certificate.subject(), certificate.issuer())
}

#[cfg(test)]
mod tests;
