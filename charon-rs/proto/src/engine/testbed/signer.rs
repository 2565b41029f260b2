//! Keys, signatures and certificates for tests: whoever knows the name of a key has it, and a certificate is what it says.

use super::Who;
use crate::config::{AuthorityHash, Connection, CredentialName, LocalMethod, RemoteMethod, Trust, TrustName};
use crate::io::{
    Answer, Ask, AskId, CertificateData, FailureCode, ProofRefusal, SignRequest, Signed, Verified, VerifyRequest,
};
use crate::proposal::Prf;

/// Does what the shell does with private keys and certificates. A key is known by its name; a certificate is the text
/// `key identity`.
///
/// | name | key |
/// |---|---|
/// | `lost...` | is not there |
/// | `ed25519...` | signs only without hashing (RFC 8420) |
/// | `sha512...` | signs only with SHA2-512 |
/// | `sha1...` | signs with SHA-1, which nobody accepts |
/// | `forged...` | makes wrong signatures |
/// | `stolen...` | has the certificate of somebody else |
/// | `chain-12`, `long-chain-2` | has so many certificates, of 30 000 octets each if they are long |
/// | all others | sign with any hash |
///
/// Trust in `ca` accepts keys whose name has no `@`, trust in any other name those that end with `@` and that name.
#[derive(Debug, Default)]
pub(in crate::engine) struct Signer {
    /// Answers wait for [`super::World::let_sign`].
    pub(in crate::engine) is_slow: bool,
    /// All that it was asked.
    pub(in crate::engine) asked: Vec<AskId>,
    pub(in crate::engine) signed: Vec<SignRequest>,
    pub(in crate::engine) verified: Vec<VerifyRequest>,
    withheld: Vec<(AskId, Answer)>,
}

impl Signer {
    /// The answer, unless it takes its time.
    pub(super) fn take(&mut self, id: AskId, ask: Ask) -> Option<Answer> {
        self.asked.push(id);
        let answer = match ask {
            Ask::Sign(request) => {
                self.signed.push((*request).clone());
                Answer::Signed(sign(&request))
            }
            Ask::Verify(request) => {
                self.verified.push((*request).clone());
                Answer::Verified(verify(&request))
            }
            other @ (Ask::Dataplane(_) | Ask::Resolve(_)) => panic!("{other:?} is not for the signer"),
        };
        if self.is_slow {
            self.withheld.push((id, answer));
            return None;
        }
        Some(answer)
    }

    pub(super) fn catch_up(&mut self) -> Vec<(AskId, Answer)> {
        self.is_slow = false;
        std::mem::take(&mut self.withheld)
    }
}

/// Has both sides sign: `moon` and `sun` are their keys.
pub(in crate::engine) fn sign_both(who: Who, connection: &mut Connection) {
    connection.local.method = sign_with(who.name());
    connection.remote.method = trust_in("ca");
}

pub(in crate::engine) fn sign_with(key: &str) -> LocalMethod {
    LocalMethod::Signature(CredentialName(key.to_owned()))
}

pub(in crate::engine) fn trust_in(name: &str) -> RemoteMethod {
    let authority = AuthorityHash([u8::try_from(name.len()).unwrap(); 20]);
    RemoteMethod::Signature(Trust { name: TrustName(name.to_owned()), authorities: vec![authority], ocsp: false })
}

fn refusal<T>(code: FailureCode) -> Result<T, Box<ProofRefusal>> {
    let what = format!("the signer says {}", code.name());
    Err(Box::new(ProofRefusal { code, what, ours: Vec::new(), theirs: Vec::new(), hint: None }))
}

fn sign(request: &SignRequest) -> Result<Signed, Box<ProofRefusal>> {
    let key = request.credential.0.as_str();
    let wanted: &[u16] = match key {
        _ if key.starts_with("lost") => return refusal(FailureCode::AuthNoPrivateKey),
        _ if key.starts_with("ed25519") => &[IDENTITY],
        _ if key.starts_with("sha512") => &[4],
        _ if key.starts_with("sha1") => &[SHA1],
        _ => &[2, 3, 4],
    };
    let certificates = if request.with_certificates {
        let owner = if key.starts_with("stolen") { "somebody-else".to_owned() } else { request.identity.to_string() };
        let text = format!("{key} {owner}");
        let filling = if key.starts_with("long") { 30_000 } else { 100 };
        let above = CertificateData { encoding: 4, data: vec![1; filling] };
        let chain = key.split_once("chain-").and_then(|(_, length)| length.parse().ok()).unwrap_or(1);
        let mut certificates = vec![above; chain];
        certificates[0].data = [text.as_bytes(), &vec![b' '; filling.saturating_sub(100)]].concat();
        certificates
    } else {
        Vec::new()
    };
    let mut mac = mac(key, &request.octets);
    if key.starts_with("forged") {
        mac[0] ^= 1;
    }
    let Some(hashes) = &request.peer_hashes else {
        return if wanted.contains(&IDENTITY) {
            refusal(FailureCode::AuthNoCommonHash)
        } else {
            Ok(Signed { method: 9, data: mac, certificates })
        };
    };
    let hash = wanted.iter().find(|hash| hashes.contains(hash) || **hash == SHA1);
    match hash.copied().map(u8::try_from) {
        Some(Ok(hash)) => Ok(Signed { method: 14, data: [&[hash], &mac[..]].concat(), certificates }),
        _ => refusal(FailureCode::AuthNoCommonHash),
    }
}

fn verify(request: &VerifyRequest) -> Result<Verified, Box<ProofRefusal>> {
    let Some(certificate) = request.certificates.first() else {
        return refusal(FailureCode::AuthNoCertificate);
    };
    let text = String::from_utf8_lossy(&certificate.data);
    let Some((key, identity)) = text.split_once(' ') else {
        return refusal(FailureCode::AuthCertificateMalformed);
    };
    let issuer = key.split_once('@').map_or("ca", |(_, issuer)| issuer);
    let (hash, received) = match (request.method, request.data.split_first()) {
        (14, Some((hash, mac))) => (Some(u16::from(*hash)), mac),
        _ => (None, &request.data[..]),
    };
    if issuer != request.trust.0 {
        refusal(FailureCode::AuthNoCa)
    } else if identity.trim_end() != request.identity.to_string() {
        refusal(FailureCode::AuthIdNotInCertificate)
    } else if hash == Some(SHA1) {
        refusal(FailureCode::AuthAlgorithmRefused)
    } else if received != mac(key, &request.octets) {
        refusal(FailureCode::AuthSignatureWrong)
    } else {
        Ok(Verified { evidence: format!("key {key}, method {}", request.method) })
    }
}

fn mac(key: &str, octets: &[u8]) -> Vec<u8> {
    Prf::HmacSha2_256.compute(key.as_bytes(), &[octets]).expose().clone()
}

/// Numbers of hashes (RFC 7427 §7, RFC 8420 §2).
const SHA1: u16 = 1;
const IDENTITY: u16 = 5;
