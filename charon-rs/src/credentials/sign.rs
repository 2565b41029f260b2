//! Our proof: which certificate, which scheme, which chain goes along.

use ike_proto::io::{CertificateData, CertificateRequest, FailureCode, ProofRefusal, SignRequest, Signed};
use pki::certificate::Certificate;
use pki::hash::HashAlgorithm;
use pki::key::{KeyType, PublicKey};
use pki::path::{Requirements, Strength, validate};
use pki::signature::{LegacyMethod, RsaPadding, SignatureScheme};
use pki::time::UnixTime;

use super::demand::Signer;
use super::layer::OwnKey;
use super::proof::{DIGITAL_SIGNATURE, encode};
use super::refusal::{reconfigured, refusal};
use super::revocation::Link;
use super::store::Store;
use super::verify::OCSP;
use super::{names, rng};

/// Cert Encoding of an X.509 certificate (RFC 7296 §3.6).
pub(super) const X509: u8 = 4;

/// Cert Encoding of a raw public key (RFC 7670 §3).
pub(super) const RAW_KEY: u8 = 15;

/// CAs that go with a certificate: RFC 7296 §3.6 wants four in all, nobody needs more than these.
const MAX_CHAIN: usize = 12;

/// What was signed, and what the peer may want to know about the certificate.
pub(super) struct OwnProof {
    pub(super) signed: Signed,
    /// The certificate that the peer wants an OCSP answer about (RFC 4806).
    pub(super) staple: Option<Link>,
}

/// Something that we can sign with.
struct Candidate<'a> {
    key: &'a OwnKey,
    certificate: Option<&'a Certificate>,
    /// The CAs above the certificate, the nearest first, the root included.
    issuers: Vec<&'a Certificate>,
}

/// How to sign.
#[derive(Clone, Copy)]
enum Way {
    Digital(SignatureScheme),
    Legacy,
}

/// Makes our proof.
///
/// # Errors
/// Why there is none.
pub(super) fn sign(store: &Store, request: &SignRequest, now: UnixTime) -> Result<OwnProof, ProofRefusal> {
    let signer = store.signer(&request.credential).ok_or_else(reconfigured)?;
    let candidates = candidates(store, signer, request)?;
    let offered: Vec<String> = candidates.iter().map(Candidate::describe).collect();
    let best = candidates
        .into_iter()
        .filter_map(|candidate| Some((candidate.way(signer, request)?, candidate)))
        .min_by_key(|(_, candidate)| (!candidate.is_requested(&request.requested), !candidate.is_valid(now)));
    let (way, candidate) = best.ok_or_else(|| no_scheme(offered, signer, request))?;
    let (method, data) = candidate.prove(way, &request.octets)?;
    let certificates = if request.with_certificates { candidate.chain(&request.requested) } else { Vec::new() };
    let wants_ocsp = !certificates.is_empty() && request.requested.iter().any(|request| request.encoding == OCSP);
    let staple = if wants_ocsp { candidate.link(store, now) } else { None };
    Ok(OwnProof { signed: Signed { method, data, certificates }, staple })
}

fn candidates<'a>(
    store: &'a Store,
    signer: &'a Signer,
    request: &SignRequest,
) -> Result<Vec<Candidate<'a>>, ProofRefusal> {
    let with_key = |certificate: &'a Certificate| {
        let key = store.key_of(certificate.public_key().ok()?)?;
        Some(Candidate { key, certificate: Some(certificate), issuers: issuers(store, certificate) })
    };
    let raw =
        |public: &PublicKey| store.key_of(public).map(|key| Candidate { key, certificate: None, issuers: Vec::new() });
    let any = signer.certificates.is_empty() && signer.raw.is_none();
    let candidates: Vec<Candidate<'a>> = if any {
        store.certificates().filter(|own| names::has(own, &request.identity)).filter_map(with_key).collect()
    } else {
        signer.certificates.iter().filter_map(with_key).chain(signer.raw.as_ref().and_then(raw)).collect()
    };
    if candidates.is_empty() {
        let what = format!("there is no certificate with a private key for {}", request.identity);
        return Err(ProofRefusal {
            hint: Some("name it: leftcert = \"FILE\", and its key in [key.NAME] of the secrets file".to_owned()),
            ..refusal(FailureCode::AuthNoPrivateKey, what)
        });
    }
    Ok(candidates)
}

/// The CAs above a certificate as far as they are known, by name and key identifier. Whether the signatures are right is for
/// the peer to say.
fn issuers<'a>(store: &'a Store, certificate: &'a Certificate) -> Vec<&'a Certificate> {
    let mut found: Vec<&Certificate> = Vec::new();
    let mut current = certificate;
    while !current.is_self_issued() && found.len() < MAX_CHAIN {
        let wanted = current.extensions().authority_key_id.as_deref();
        let fits = |issuer: &&Certificate| {
            issuer.subject().same_as(current.issuer())
                && match (wanted, issuer.extensions().subject_key_id.as_deref()) {
                    (Some(wanted), Some(has)) => wanted == has,
                    _ => true,
                }
        };
        let issuer = store.intermediates().chain(store.anchors().iter()).find(fits);
        let Some(issuer) = issuer.filter(|issuer| !found.contains(issuer)) else { break };
        found.push(issuer);
        current = issuer;
    }
    found
}

impl Candidate<'_> {
    /// How this key can sign so that the peer understands it. R7427-3-1: if the peer said which hashes it takes, by method 14.
    fn way(&self, signer: &Signer, request: &SignRequest) -> Option<Way> {
        let key = self.key.private().key_type();
        match &request.peer_hashes {
            Some(hashes) => scheme(key, hashes, &signer.schemes).map(Way::Digital),
            None => {
                legacy_scheme(key).filter(|scheme| signer.schemes.check_signature(*scheme).is_ok()).map(|_| Way::Legacy)
            }
        }
    }

    fn prove(&self, way: Way, octets: &[u8]) -> Result<(u8, Vec<u8>), ProofRefusal> {
        let failed = |error: pki::signature::SignError| refusal(FailureCode::AuthSigningFailed, error.to_string());
        match way {
            Way::Digital(scheme) => {
                let signature = self.key.private().sign(scheme, octets, &mut rng()).map_err(failed)?;
                Ok((DIGITAL_SIGNATURE, encode(scheme, &signature)))
            }
            Way::Legacy => {
                let (method, signature) =
                    self.key.private().sign_legacy(HashAlgorithm::Sha1, octets, &mut rng()).map_err(failed)?;
                Ok((method.number(), signature))
            }
        }
    }

    /// Whether a CA above it is one that the peer asks certificates of; without a request every one will do.
    fn is_requested(&self, requested: &[CertificateRequest]) -> bool {
        let asked: Vec<&[u8]> = requested
            .iter()
            .filter(|request| request.encoding == X509)
            .flat_map(|request| request.authorities.chunks_exact(20))
            .collect();
        asked.is_empty() || self.issuers.iter().any(|issuer| asked.contains(&issuer.spki_id().0.as_slice()))
    }

    fn is_valid(&self, now: UnixTime) -> bool {
        self.certificate.is_none_or(|own| (own.not_before()..=own.not_after()).contains(&now))
    }

    /// R7296-1.2-3: the certificate of the key first, then the CAs above it. The root stays here: the peer has it, or would
    /// not believe it.
    fn chain(&self, requested: &[CertificateRequest]) -> Vec<CertificateData> {
        let Some(own) = self.certificate else {
            let wanted = requested.iter().any(|request| request.encoding == RAW_KEY);
            let key = self.key.private().public_key().spki_der().to_vec();
            return if wanted { vec![CertificateData { encoding: RAW_KEY, data: key }] } else { Vec::new() };
        };
        let above = self.issuers.iter().copied().filter(|issuer| !issuer.is_self_issued());
        std::iter::once(own)
            .chain(above)
            .map(|certificate| CertificateData { encoding: X509, data: certificate.der().to_vec() })
            .collect()
    }

    /// The certificate with its issuer, if we trust that ourselves: for others nothing is fetched.
    fn link(&self, store: &Store, now: UnixTime) -> Option<Link> {
        let bag: Vec<Certificate> = store.intermediates().cloned().collect();
        let requirements = Requirements { strength: Strength::weakest(), ..Requirements::default() };
        let path = validate(self.certificate?, &bag, store.anchors(), now, &requirements).ok()?;
        Link::of(&path, store).into_iter().next()
    }

    fn describe(&self) -> String {
        let key = self.key.private().key_type();
        self.certificate.map_or_else(|| key.to_string(), |own| format!("{key} of `{}`", own.subject()))
    }
}

/// The scheme for a peer that takes `hashes` (R7427-4-1, R8420-2-1): the one that fits the key, or else any that both want.
fn scheme(key: KeyType, hashes: &[u16], allowed: &Strength) -> Option<SignatureScheme> {
    let natural = |padding| SignatureScheme::for_peer(key, hashes, padding);
    let others = |padding| {
        let known = HashAlgorithm::ALL.into_iter().filter(|hash| *hash != HashAlgorithm::Sha1);
        known.filter_map(move |hash| {
            let scheme = SignatureScheme::with_hash(key, hash, padding);
            hashes.contains(&scheme.ike_hash_number()).then_some(scheme)
        })
    };
    [RsaPadding::Pkcs1, RsaPadding::Pss]
        .into_iter()
        .flat_map(|padding| natural(padding).into_iter().chain(others(padding)))
        .find(|scheme| allowed.check_signature(*scheme).is_ok())
}

/// What a legacy method of this key amounts to: RSA means SHA-1, for old peers know no other.
fn legacy_scheme(key: KeyType) -> Option<SignatureScheme> {
    Some(match LegacyMethod::of_key(key)? {
        LegacyMethod::Rsa => SignatureScheme::RsaPkcs1(HashAlgorithm::Sha1),
        LegacyMethod::Ecdsa256 => SignatureScheme::Ecdsa(HashAlgorithm::Sha256),
        LegacyMethod::Ecdsa384 => SignatureScheme::Ecdsa(HashAlgorithm::Sha384),
        LegacyMethod::Ecdsa521 => SignatureScheme::Ecdsa(HashAlgorithm::Sha512),
    })
}

fn no_scheme(keys: Vec<String>, signer: &Signer, request: &SignRequest) -> ProofRefusal {
    let mut ours = keys;
    ours.push(format!("leftauth allows {}", signer.schemes));
    let (theirs, hint) = match &request.peer_hashes {
        Some(hashes) => {
            let name = |number: &u16| match HashAlgorithm::ALL.into_iter().find(|hash| hash.ike_number() == *number) {
                Some(hash) => hash.to_string(),
                None if *number == SignatureScheme::IDENTITY_HASH => "Identity (Ed25519)".to_owned(),
                None => format!("hash {number}"),
            };
            (hashes.iter().map(name).collect(), "let leftauth allow a hash that the peer takes, or use another key")
        }
        None => (
            vec!["no SIGNATURE_HASH_ALGORITHMS: only RSA with SHA-1 and ECDSA by RFC 4754".to_owned()],
            "use an ECDSA key for this peer, or allow SHA-1: leftauth = \"rsa-sha1\"",
        ),
    };
    ProofRefusal {
        ours,
        theirs,
        hint: Some(hint.to_owned()),
        ..refusal(FailureCode::AuthNoCommonHash, "our keys can sign in no way that the peer understands")
    }
}

#[cfg(test)]
mod tests;
