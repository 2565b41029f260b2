//! The Authentication Data of signatures (RFC 7296 §3.8, RFC 7427 §3).
//!
//! ```text
//! method 14
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | ASN.1 Length  |          AlgorithmIdentifier (DER) ...        ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ~                         Signature Value                       ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! methods 1, 9, 10 and 11: the signature alone
//! ```

use ike_proto::io::{FailureCode, ProofRefusal};
use pki::hash::HashAlgorithm;
use pki::key::PublicKey;
use pki::path::Strength;
use pki::signature::{AlgorithmError, LegacyMethod, SignatureScheme, VerifyError};

use super::refusal::refusal;

/// The Auth Method of signatures by RFC 7427.
pub(super) const DIGITAL_SIGNATURE: u8 = 14;

/// A signature as the peer sent it.
#[derive(Debug)]
pub(super) enum Proof<'a> {
    /// Method 14.
    Digital(SignatureScheme, &'a [u8]),
    /// Methods 1 and 9 to 11.
    Legacy(LegacyMethod, &'a [u8]),
}

/// The Authentication Data of method 14.
pub(super) fn encode(scheme: SignatureScheme, signature: &[u8]) -> Vec<u8> {
    let identifier = scheme.algorithm_identifier();
    // The longest identifier, that of PSS, has 67 octets.
    let len = u8::try_from(identifier.len()).unwrap_or(u8::MAX);
    [&[len], identifier.as_slice(), signature].concat()
}

impl<'a> Proof<'a> {
    /// Reads the Authentication Data of `method`. SHA-1 and PSS with parameters left out are refused in method 14, whatever
    /// the configuration says (R8247-3.2-1, R8247-3.2-2).
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn read(method: u8, data: &'a [u8]) -> Result<Self, ProofRefusal> {
        if let Some(legacy) = LegacyMethod::from_number(method) {
            return Ok(Self::Legacy(legacy, data));
        }
        if method != DIGITAL_SIGNATURE {
            return Err(malformed(format!("authentication method {method} is no signature")));
        }
        let parts = data.split_first().and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)));
        let Some((identifier, signature)) = parts else {
            return Err(malformed("the AUTH payload is shorter than the algorithm in it".to_owned()));
        };
        match SignatureScheme::from_ike(identifier) {
            Ok(scheme) => Ok(Self::Digital(scheme, signature)),
            Err(why @ (AlgorithmError::Sha1 | AlgorithmError::PssMask | AlgorithmError::PssSalt(_))) => {
                Err(ProofRefusal {
                    hint: Some("the peer must sign with SHA-256 or better; nothing here allows less".to_owned()),
                    ..refusal(FailureCode::AuthAlgorithmRefused, format!("the peer's signature is refused: {why}"))
                })
            }
            Err(why @ AlgorithmError::Der(_)) => Err(malformed(format!("the AUTH payload cannot be read: {why}"))),
            Err(why) => Err(refusal(
                FailureCode::AuthAlgorithmRefused,
                format!("the algorithm of the peer's signature cannot be used: {why}"),
            )),
        }
    }

    /// Whether it is a signature of `octets` by `key` that is strong enough; then, how it is made.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn check(&self, key: &PublicKey, octets: &[u8], wanted: &Strength) -> Result<String, ProofRefusal> {
        wanted.check_key(key.key_type()).map_err(|wanted| ProofRefusal {
            code: FailureCode::AuthKeyTooWeak,
            ..weak(&key.key_type().to_string(), &wanted)
        })?;
        match self {
            Self::Digital(scheme, signature) => {
                wanted.check_signature(*scheme).map_err(|wanted| weak(&scheme.to_string(), &wanted))?;
                key.verify(*scheme, octets, signature).map_err(|error| wrong(&error))?;
                Ok(scheme.to_string())
            }
            Self::Legacy(method, signature) => {
                let sha1 = wanted.check_signature(SignatureScheme::RsaPkcs1(HashAlgorithm::Sha1)).is_ok();
                let hash = key.verify_legacy(*method, octets, signature, sha1).map_err(|error| match error {
                    VerifyError::Sha1 => ProofRefusal {
                        hint: Some(
                            "if this peer cannot do better: rightauth = \"rsa-sha1-sha256\" accepts SHA-1".to_owned(),
                        ),
                        ..weak("RSA with SHA-1", &wanted.to_string())
                    },
                    VerifyError::WrongKey { .. } | VerifyError::Wrong(_) | _ => wrong(&error),
                })?;
                let scheme = if *method == LegacyMethod::Rsa {
                    SignatureScheme::RsaPkcs1(hash)
                } else {
                    SignatureScheme::Ecdsa(hash)
                };
                wanted.check_signature(scheme).map_err(|wanted| weak(&scheme.to_string(), &wanted))?;
                Ok(format!("{scheme} (method {})", method.number()))
            }
        }
    }
}

fn malformed(what: String) -> ProofRefusal {
    refusal(FailureCode::PeerMisbehaved, what)
}

fn weak(theirs: &str, wanted: &str) -> ProofRefusal {
    ProofRefusal {
        ours: vec![wanted.to_owned()],
        theirs: vec![theirs.to_owned()],
        hint: Some("rightauth tells what is accepted; add what the peer uses if that is meant".to_owned()),
        ..refusal(FailureCode::AuthAlgorithmRefused, format!("the peer's signature ({theirs}) is not accepted here"))
    }
}

fn wrong(error: &VerifyError) -> ProofRefusal {
    ProofRefusal {
        hint: Some("the peer's private key does not belong to its certificate, or somebody is in between".to_owned()),
        ..refusal(FailureCode::AuthSignatureWrong, format!("the peer's proof is wrong: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::rng;
    use crate::credentials::testing::key;
    use pki::key::{Curve, KeyType};

    const P256: KeyType = KeyType::Ecdsa(Curve::P256);

    /// R8247-3.2-1: SHA-1 is refused in method 14, even where the configuration accepts it in method 1.
    #[test]
    fn sha1_is_never_accepted_in_method_14() {
        let scheme = SignatureScheme::RsaPkcs1(HashAlgorithm::Sha1);
        let data = encode(scheme, b"signature");
        assert_eq!(Proof::read(DIGITAL_SIGNATURE, &data).unwrap_err().code, FailureCode::AuthAlgorithmRefused);
    }

    /// R8247-3.2-2: PSS whose parameters are left out, empty, or without the mask's hash.
    #[test]
    fn pss_params() {
        let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
        let identifier = |parameters: &[u8]| {
            let body = [&oid[..], parameters].concat();
            let der = [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat();
            [&[u8::try_from(der.len()).unwrap()], der.as_slice(), b"signature"].concat()
        };
        for parameters in [&[][..], &[0x30, 0x00]] {
            let data = identifier(parameters);
            assert_eq!(Proof::read(DIGITAL_SIGNATURE, &data).unwrap_err().code, FailureCode::AuthAlgorithmRefused);
        }
    }

    #[test]
    fn what_is_no_authentication_data_is_refused() {
        for data in [&[][..], &[1], &[255, 0x30], &[2, 0x30, 0x00], &[3, 0x30, 0x80, 0x00, 0x00]] {
            let error = Proof::read(DIGITAL_SIGNATURE, data).unwrap_err();
            assert_eq!(error.code, FailureCode::PeerMisbehaved, "{data:?}");
        }
        assert_eq!(Proof::read(2, b"").unwrap_err().code, FailureCode::PeerMisbehaved);
    }

    #[test]
    fn a_signature_counts_for_its_octets_only() {
        let key = key(P256);
        let scheme = SignatureScheme::Ecdsa(HashAlgorithm::Sha256);
        let data = encode(scheme, &key.sign(scheme, b"octets", &mut rng()).unwrap());
        let proof = Proof::read(DIGITAL_SIGNATURE, &data).unwrap();
        let check = |octets: &[u8], wanted: &str| {
            proof.check(key.public_key(), octets, &wanted.parse().unwrap()).map_err(|refusal| refusal.code)
        };
        assert_eq!(check(b"octets", "ecdsa-256-sha256"), Ok("ECDSA with SHA-256".to_owned()));
        assert_eq!(check(b"other", "ecdsa"), Err(FailureCode::AuthSignatureWrong));
        assert_eq!(check(b"octets", "ecdsa-256-sha384"), Err(FailureCode::AuthAlgorithmRefused));
        assert_eq!(check(b"octets", "ecdsa-384"), Err(FailureCode::AuthKeyTooWeak));
        assert_eq!(check(b"octets", "rsa"), Err(FailureCode::AuthKeyTooWeak));
    }

    /// ecdsa_zero: r or s of zero, in both encodings.
    #[test]
    fn ecdsa_zero() {
        let zeros = [0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00];
        let digital = Proof::Digital(SignatureScheme::Ecdsa(HashAlgorithm::Sha256), &zeros);
        let legacy = Proof::Legacy(LegacyMethod::Ecdsa256, &[0; 64]);
        for proof in [digital, legacy] {
            let error = proof.check(key(P256).public_key(), b"octets", &Strength::default()).unwrap_err();
            assert_eq!(error.code, FailureCode::AuthSignatureWrong);
        }
    }

    #[test]
    fn sha1_in_method_1_counts_only_where_it_is_allowed() {
        let key = key(KeyType::Rsa { bits: 2048 });
        let (method, data) = key.sign_legacy(HashAlgorithm::Sha1, b"octets", &mut rng()).unwrap();
        let proof = Proof::read(method.number(), &data).unwrap();
        let check = |wanted: Strength| proof.check(key.public_key(), b"octets", &wanted);
        let refused = check(Strength::default()).unwrap_err();
        assert_eq!(refused.code, FailureCode::AuthAlgorithmRefused);
        assert!(refused.hint.is_some_and(|hint| hint.contains("rsa-sha1-sha256")));
        assert!(check("rsa-sha1-sha256".parse().unwrap()).is_ok());
    }
}
