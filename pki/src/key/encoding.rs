//! Private keys in files.
//!
//! | PEM label | DER |
//! |---|---|
//! | `PRIVATE KEY` | PKCS#8 (RFC 5958) |
//! | `ENCRYPTED PRIVATE KEY` | PKCS#8 encrypted with a passphrase, PBES2 (RFC 8018) |
//! | `RSA PRIVATE KEY` | PKCS#1 (RFC 8017 appendix A.1.2) |
//! | `EC PRIVATE KEY` | SEC1 (RFC 5915) |

use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode};
use pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey};
use pkcs8::PrivateKeyInfoRef;
use rand_core::CryptoRng;
use rsa::RsaPrivateKey;
use rsa::traits::PublicKeyParts;
use sec1::EcPrivateKey;
use x509_cert::spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use super::public::{EC_PUBLIC_KEY, ED25519, RSA_ENCRYPTION};
use super::{Curve, KeyError, KeyType, MAX_RSA_BITS, MIN_RSA_BITS, PrivateKey, Secret};
use crate::passphrase::Encrypted;
use crate::pem::{self, PemError};

/// How a private key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// PKCS#8, for all kinds of keys.
    Pkcs8,
    /// PKCS#1 for RSA and SEC1 for ECDSA, as strongSwan and older programs write it; Ed25519 has only PKCS#8.
    Traditional,
}

/// Why a file gives no private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The key itself is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The PEM around it is wrong.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The PEM holds other things.
    #[error("there is no private key in it, but: {0}")]
    OtherPem(String),
    /// The key is encrypted and there is no passphrase.
    #[error("the key is encrypted; it needs a passphrase")]
    PassphraseNeeded,
    /// It is the wrong passphrase, or the file is damaged.
    #[error("the passphrase does not open the key")]
    WrongPassphrase,
    /// A way of encrypting that we do not know.
    #[error("the key is encrypted in a way that we do not support; convert it with `openssl pkcs8 -topk8 -v2 aes256`")]
    UnknownEncryption,
    /// A key that is to be used at once, but deriving it would take minutes or gigabytes.
    #[error("the key's passphrase is stretched more than we are willing to compute")]
    TooExpensive,
}

impl PrivateKey {
    /// Reads a private key in any of the formats above, PEM or DER.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong with it.
    pub fn load(octets: &[u8], passphrase: Option<&str>) -> Result<Self, KeyFileError> {
        if !pem::is_pem(octets) {
            return match Encrypted::from_der(octets) {
                Ok(encrypted) => Self::open(&encrypted, passphrase),
                Err(_) => Ok(Self::from_der(octets)?),
            };
        }
        let blocks = pem::parse(octets)?;
        for block in &blocks {
            match block.label.as_str() {
                ENCRYPTED_PRIVATE_KEY => {
                    return Self::open(&Encrypted::from_der(&block.der).map_err(KeyError::Der)?, passphrase);
                }
                PRIVATE_KEY | RSA_PRIVATE_KEY | EC_PRIVATE_KEY => return Ok(Self::from_der(&block.der)?),
                _ => {}
            }
        }
        let labels: Vec<&str> = blocks.iter().map(|block| block.label.as_str()).collect();
        Err(KeyFileError::OtherPem(labels.join(", ")))
    }

    /// Reads PKCS#8, PKCS#1 or SEC1, not encrypted.
    ///
    /// # Errors
    /// [`KeyError`] when it is none of them, or a key that we do not use.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let as_pkcs8 = match PrivateKeyInfoRef::from_der(der) {
            Ok(info) => return Self::from_pkcs8(&info),
            Err(error) => error,
        };
        if pkcs1::RsaPrivateKeyRef::from_der(der).is_ok() {
            return Self::from_secret(rsa_secret(der)?);
        }
        match EcPrivateKey::from_der(der) {
            Ok(key) => Self::from_secret(ec_secret(&key, None)?),
            Err(_) => Err(KeyError::Der(as_pkcs8)),
        }
    }

    fn from_pkcs8(info: &PrivateKeyInfoRef<'_>) -> Result<Self, KeyError> {
        let octets = info.private_key.as_bytes();
        let key = Self::from_secret(match info.algorithm.oid {
            RSA_ENCRYPTION => rsa_secret(octets)?,
            EC_PUBLIC_KEY => {
                let named = info.algorithm.parameters_oid().map_err(|_| KeyError::UnknownCurve)?;
                ec_secret(&EcPrivateKey::from_der(octets)?, Some(named))?
            }
            ED25519 => {
                // RFC 8410 §7: an OCTET STRING within the OCTET STRING.
                let seed = <&OctetStringRef>::from_der(octets)?.as_bytes();
                let seed = <&[u8; 32]>::try_from(seed).map_err(|_| KeyError::BadPoint(KeyType::Ed25519))?;
                Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(seed))
            }
            other => return Err(KeyError::UnknownAlgorithm(other)),
        })?;
        Ok(key)
    }

    pub(crate) fn open(encrypted: &Encrypted, passphrase: Option<&str>) -> Result<Self, KeyFileError> {
        let opened = encrypted.open(passphrase.ok_or(KeyFileError::PassphraseNeeded)?)?;
        Self::from_der(&opened).map_err(|error| {
            // Padding happens to be right with one wrong passphrase in 256; what comes out is no DER then.
            let no_der = matches!(error, KeyError::Der(_));
            if no_der { KeyFileError::WrongPassphrase } else { KeyFileError::Key(error) }
        })
    }

    /// Writes the key as DER.
    #[must_use]
    pub fn to_der(&self, format: KeyFormat) -> Zeroizing<Vec<u8>> {
        match (format, &self.secret) {
            (KeyFormat::Pkcs8, _) | (KeyFormat::Traditional, Secret::Ed25519(_)) => self.pkcs8(),
            (KeyFormat::Traditional, _) => self.inner(true),
        }
    }

    /// Writes the key as PEM.
    #[must_use]
    pub fn to_pem(&self, format: KeyFormat) -> Zeroizing<String> {
        let label = match (format, &self.secret) {
            (KeyFormat::Pkcs8, _) | (KeyFormat::Traditional, Secret::Ed25519(_)) => PRIVATE_KEY,
            (KeyFormat::Traditional, Secret::Rsa(_)) => RSA_PRIVATE_KEY,
            (KeyFormat::Traditional, Secret::P256(_) | Secret::P384(_) | Secret::P521(_)) => EC_PRIVATE_KEY,
        };
        pem::encode(label, &self.to_der(format))
    }

    /// Writes the key as PKCS#8 encrypted with AES-256 and a key that PBKDF2-HMAC-SHA256 makes of the passphrase in
    /// 600 000 rounds (RFC 8018 §6.2).
    #[must_use]
    pub fn to_encrypted_pem(&self, passphrase: &str, rng: &mut dyn CryptoRng) -> String {
        pem::encode(ENCRYPTED_PRIVATE_KEY, &Encrypted::seal(&self.pkcs8(), passphrase, rng)).to_string()
    }

    fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let curve_oid;
        let (oid, parameters) = match &self.secret {
            Secret::Rsa(_) => (RSA_ENCRYPTION, Some(der::asn1::AnyRef::NULL)),
            Secret::Ed25519(_) => (ED25519, None),
            Secret::P256(_) | Secret::P384(_) | Secret::P521(_) => {
                curve_oid = self.curve().unwrap_or(Curve::P256).oid();
                (EC_PUBLIC_KEY, Some((&curve_oid).into()))
            }
        };
        let inner = self.inner(false);
        encoded(
            OctetStringRef::new(&inner)
                .and_then(|inner| PrivateKeyInfoRef::new(AlgorithmIdentifierRef { oid, parameters }, inner).to_der()),
        )
    }

    /// What stands in the OCTET STRING of PKCS#8; alone it needs the curve.
    fn inner(&self, alone: bool) -> Zeroizing<Vec<u8>> {
        match &self.secret {
            Secret::Rsa(key) => rsa_numbers(key),
            Secret::Ed25519(key) => encoded(OctetStringRef::new(key.as_bytes()).and_then(|seed| seed.to_der())),
            Secret::P256(key) => self.sec1(&key.to_bytes(), key.verifying_key().to_sec1_point(false).as_bytes(), alone),
            Secret::P384(key) => self.sec1(&key.to_bytes(), key.verifying_key().to_sec1_point(false).as_bytes(), alone),
            Secret::P521(key) => self.sec1(&key.to_bytes(), key.verifying_key().to_sec1_point(false).as_bytes(), alone),
        }
    }

    fn sec1(&self, scalar: &[u8], point: &[u8], alone: bool) -> Zeroizing<Vec<u8>> {
        let parameters = self.curve().filter(|_| alone).map(|curve| sec1::EcParameters::NamedCurve(curve.oid()));
        encoded(EcPrivateKey { private_key: scalar, parameters, public_key: Some(point) }.to_der())
    }

    fn curve(&self) -> Option<Curve> {
        match self.key_type() {
            KeyType::Ecdsa(curve) => Some(curve),
            KeyType::Rsa { .. } | KeyType::Ed25519 => None,
        }
    }
}

fn rsa_secret(pkcs1: &[u8]) -> Result<Secret, KeyError> {
    let size = pkcs1::RsaPrivateKeyRef::from_der(pkcs1)?.modulus.as_bytes().len();
    let too_large = u32::try_from(size).unwrap_or(u32::MAX).saturating_mul(8);
    if too_large > MAX_RSA_BITS {
        return Err(KeyError::RsaSize { bits: too_large });
    }
    let key = RsaPrivateKey::from_pkcs1_der(pkcs1).map_err(|_| KeyError::BadRsa)?;
    // The library does not look whether the primes differ.
    key.crt_coefficient().ok_or(KeyError::BadRsa)?;
    match key.n().bits_vartime() {
        bits if bits < MIN_RSA_BITS => Err(KeyError::RsaSize { bits }),
        _ => Ok(Secret::Rsa(Box::new(key))),
    }
}

/// `around` is the curve that PKCS#8 names outside.
fn ec_secret(key: &EcPrivateKey<'_>, around: Option<ObjectIdentifier>) -> Result<Secret, KeyError> {
    let inside = key.parameters.and_then(sec1::EcParameters::named_curve);
    if inside.is_some() && around.is_some() && inside != around {
        return Err(KeyError::UnknownCurve);
    }
    let curve = around.or(inside).and_then(Curve::from_oid).ok_or(KeyError::UnknownCurve)?;
    let bad = |_| KeyError::BadPoint(KeyType::Ecdsa(curve));
    let scalar = padded(key.private_key, curve)?;
    let (secret, point) = match curve {
        Curve::P256 => {
            let key = p256::ecdsa::SigningKey::from_slice(&scalar).map_err(bad)?;
            let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
            (Secret::P256(key), point)
        }
        Curve::P384 => {
            let key = p384::ecdsa::SigningKey::from_slice(&scalar).map_err(bad)?;
            let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
            (Secret::P384(key), point)
        }
        Curve::P521 => {
            let key = p521::ecdsa::SigningKey::from_slice(&scalar).map_err(bad)?;
            let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
            (Secret::P521(key), point)
        }
    };
    // A compressed point in the file is not compared: it has another length.
    match key.public_key {
        Some(theirs) if theirs.len() == point.len() && theirs != point => Err(KeyError::Mismatch),
        _ => Ok(secret),
    }
}

/// Some programs leave out the zeros in front of a scalar.
fn padded(scalar: &[u8], curve: Curve) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let missing = curve.field_len().checked_sub(scalar.len()).ok_or(KeyError::BadPoint(KeyType::Ecdsa(curve)))?;
    let mut octets = Zeroizing::new(vec![0; missing]);
    octets.extend_from_slice(scalar);
    Ok(octets)
}

#[expect(clippy::expect_used, reason = "the parts of a key that exists fit in DER")]
fn encoded(der: der::Result<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(der.expect("a key is far smaller than DER can say"))
}

#[expect(clippy::expect_used, reason = "loading refuses primes without a coefficient, and generating makes none")]
fn rsa_numbers(key: &RsaPrivateKey) -> Zeroizing<Vec<u8>> {
    key.to_pkcs1_der().expect("there are two primes, and one is invertible modulo the other").to_bytes()
}

const PRIVATE_KEY: &str = "PRIVATE KEY";
const ENCRYPTED_PRIVATE_KEY: &str = "ENCRYPTED PRIVATE KEY";
const RSA_PRIVATE_KEY: &str = "RSA PRIVATE KEY";
const EC_PRIVATE_KEY: &str = "EC PRIVATE KEY";
