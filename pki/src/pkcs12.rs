//! PKCS#12 containers: a private key with its certificates under one passphrase (RFC 7292).
//!
//! ```text
//! PFX { authSafe: data { AuthenticatedSafe: SEQUENCE OF ContentInfo }, macData }
//!                                                       │
//!                    data or encryptedData ─────────────┘
//!                        SafeContents: SEQUENCE OF SafeBag { keyBag | pkcs8ShroudedKeyBag | certBag | … }
//! ```
//!
//! Read are PBES2 and the old PBE with 3DES and RC2-40; written is PBES2 with AES-256 and a MAC with SHA-256.

use der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec};
use der::{Decode, Encode, Sequence};
use hmac::{Hmac, KeyInit, Mac};
use rand_core::CryptoRng;
use sha1::Sha1;
use sha2::digest::block_api::{BlockSizeUser, EagerHash};
use sha2::digest::{Digest, FixedOutputReset};
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;
use x509_cert::attr::Attribute;
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use crate::certificate::{Certificate, CertificateError, oid};
use crate::hash::HashAlgorithm;
use crate::key::{KeyFileError, KeyFormat, PrivateKey};
use crate::passphrase::{Encrypted, MAX_ROUNDS, Purpose, pkcs12_key};

/// What a container holds.
pub struct Container {
    /// The private keys.
    pub keys: Vec<PrivateKey>,
    /// The certificates; the first whose key is among `keys` is the end entity's.
    pub certificates: Vec<Certificate>,
}

/// Why octets are no container that can be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// Not the DER of one. Windows and OpenSSL write DER; BER is not read.
    #[error("no PKCS#12 container in DER: {0}")]
    Der(#[from] der::Error),
    /// A container that is protected by public keys, or without a MAC.
    #[error("the PKCS#12 container is not protected by a passphrase")]
    NoMac,
    /// The MAC is wrong: another passphrase, or the file is damaged.
    #[error("the passphrase does not open the PKCS#12 container")]
    WrongPassphrase,
    /// A hash we do not know.
    #[error("the MAC of the PKCS#12 container uses the unknown hash {0}")]
    UnknownHash(ObjectIdentifier),
    /// A key in it is broken.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A certificate in it is broken.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

#[derive(Sequence)]
struct Pfx {
    version: u8,
    safe: ContentInfo,
    mac: Option<MacData>,
}

#[derive(Sequence)]
struct ContentInfo {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: Any,
}

#[derive(Sequence)]
struct MacData {
    digest: DigestInfo,
    salt: OctetString,
    #[asn1(default = "one")]
    iterations: u32,
}

fn one() -> u32 {
    1
}

#[derive(Sequence)]
struct DigestInfo {
    algorithm: AlgorithmIdentifierOwned,
    digest: OctetString,
}

/// RFC 5652 §8.
#[derive(Sequence)]
struct EncryptedData {
    version: u8,
    content: EncryptedContent,
}

#[derive(Sequence)]
struct EncryptedContent {
    kind: ObjectIdentifier,
    algorithm: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    data: Option<OctetString>,
}

#[derive(Sequence)]
struct SafeBag {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: Any,
    attributes: Option<SetOfVec<Attribute>>,
}

#[derive(Sequence)]
struct CertificateBag {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: OctetString,
}

impl Container {
    /// Opens a container.
    ///
    /// # Errors
    /// [`ContainerError`]
    pub fn from_der(der: &[u8], passphrase: &str) -> Result<Self, ContainerError> {
        let pfx = Pfx::from_der(der)?;
        if pfx.safe.kind != oid::CMS_DATA {
            return Err(ContainerError::NoMac);
        }
        let safe = pfx.safe.content.decode_as::<OctetString>()?;
        let mac = pfx.mac.ok_or(ContainerError::NoMac)?;
        if mac.iterations > MAX_ROUNDS {
            return Err(KeyFileError::TooExpensive.into());
        }
        mac.check(safe.as_bytes(), passphrase)?;
        let mut container = Self { keys: Vec::new(), certificates: Vec::new() };
        for info in Vec::<ContentInfo>::from_der(safe.as_bytes())? {
            let contents = match info.kind {
                oid::CMS_DATA => Zeroizing::new(info.content.decode_as::<OctetString>()?.into_bytes().into_vec()),
                oid::CMS_ENCRYPTED_DATA => {
                    let encrypted = info.content.decode_as::<EncryptedData>()?.content;
                    let data = encrypted.data.ok_or(KeyFileError::UnknownEncryption)?;
                    Encrypted { algorithm: encrypted.algorithm, data }.open(passphrase)?
                }
                _ => return Err(ContainerError::NoMac),
            };
            for bag in Vec::<SafeBag>::from_der(&contents)? {
                container.take(&bag, passphrase)?;
            }
        }
        Ok(container)
    }

    /// The first certificate that belongs to the first key.
    #[must_use]
    pub fn end_entity(&self) -> Option<(&PrivateKey, &Certificate)> {
        let key = self.keys.first()?;
        let certificate =
            self.certificates.iter().find(|certificate| certificate.public_key() == Ok(key.public_key()))?;
        Some((key, certificate))
    }

    /// Writes the keys and certificates under a passphrase.
    ///
    /// # Errors
    /// When they do not fit in DER.
    pub fn to_der(&self, passphrase: &str, rng: &mut dyn CryptoRng) -> der::Result<Zeroizing<Vec<u8>>> {
        let keys = self.keys.iter().map(|key| {
            let shrouded = Encrypted::seal(&key.to_der(KeyFormat::Pkcs8), passphrase, rng);
            let value = Any::from_der(&shrouded)?;
            let attributes = Some(local_key_id(&key.public_key().key_id().0)?);
            Ok(SafeBag { kind: oid::SHROUDED_KEY_BAG, value, attributes })
        });
        let keys = keys.collect::<der::Result<Vec<_>>>()?;
        let certificates = self.certificates.iter().map(|certificate| {
            let bag = CertificateBag { kind: oid::X509_CERTIFICATE, value: OctetString::new(certificate.der())? };
            let owner = self.keys.iter().find(|key| certificate.public_key() == Ok(key.public_key()));
            let attributes = owner.map(|key| local_key_id(&key.public_key().key_id().0)).transpose()?;
            Ok(SafeBag { kind: oid::CERTIFICATE_BAG, value: Any::encode_from(&bag)?, attributes })
        });
        let certificates = certificates.collect::<der::Result<Vec<_>>>()?.to_der()?;
        let encrypted = Encrypted::from_der(&Encrypted::seal(&certificates, passphrase, rng))?;
        let encrypted = EncryptedData {
            version: 0,
            content: EncryptedContent {
                kind: oid::CMS_DATA,
                algorithm: encrypted.algorithm,
                data: Some(encrypted.data),
            },
        };
        let safe = vec![
            ContentInfo { kind: oid::CMS_DATA, content: Any::encode_from(&OctetString::new(keys.to_der()?)?)? },
            ContentInfo { kind: oid::CMS_ENCRYPTED_DATA, content: Any::encode_from(&encrypted)? },
        ];
        let safe = OctetString::new(safe.to_der()?)?;
        let mac = Some(MacData::make(safe.as_bytes(), passphrase, rng)?);
        let pfx = Pfx { version: 3, safe: ContentInfo { kind: oid::CMS_DATA, content: Any::encode_from(&safe)? }, mac };
        Ok(Zeroizing::new(pfx.to_der()?))
    }

    fn take(&mut self, bag: &SafeBag, passphrase: &str) -> Result<(), ContainerError> {
        match bag.kind {
            oid::KEY_BAG => {
                let der = Zeroizing::new(bag.value.to_der()?);
                self.keys.push(PrivateKey::from_der(&der).map_err(KeyFileError::Key)?);
            }
            oid::SHROUDED_KEY_BAG => {
                self.keys.push(PrivateKey::open(&bag.value.decode_as::<Encrypted>()?, Some(passphrase))?);
            }
            oid::CERTIFICATE_BAG => {
                let inner = bag.value.decode_as::<CertificateBag>()?;
                if inner.kind == oid::X509_CERTIFICATE {
                    self.certificates.push(Certificate::from_der(inner.value.as_bytes())?);
                }
            }
            // CRLs, secrets and nested bags are of no use here.
            _ => {}
        }
        Ok(())
    }
}

impl MacData {
    fn make(safe: &[u8], passphrase: &str, rng: &mut dyn CryptoRng) -> der::Result<Self> {
        let mut salt = [0; 16];
        rng.fill_bytes(&mut salt);
        let tag = mac::<Sha256>(passphrase, &salt, MAC_ROUNDS, safe);
        let algorithm = AlgorithmIdentifierOwned { oid: HashAlgorithm::Sha256.oid(), parameters: Some(Any::null()) };
        Ok(Self {
            digest: DigestInfo { algorithm, digest: OctetString::new(tag)? },
            salt: OctetString::new(salt)?,
            iterations: MAC_ROUNDS,
        })
    }

    /// RFC 7292 §5.1; the comparison takes the same time wherever it differs.
    fn check(&self, safe: &[u8], passphrase: &str) -> Result<(), ContainerError> {
        let id = self.digest.algorithm.oid;
        let mac = match HashAlgorithm::from_oid(id).ok_or(ContainerError::UnknownHash(id))? {
            HashAlgorithm::Sha1 => mac::<Sha1>,
            HashAlgorithm::Sha256 => mac::<Sha256>,
            HashAlgorithm::Sha384 => mac::<Sha384>,
            HashAlgorithm::Sha512 => mac::<Sha512>,
        };
        let tag = mac(passphrase, self.salt.as_bytes(), self.iterations, safe);
        let right = bool::from(tag.ct_eq(self.digest.digest.as_bytes()));
        if right { Ok(()) } else { Err(ContainerError::WrongPassphrase) }
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac<H>(passphrase: &str, salt: &[u8], iterations: u32, safe: &[u8]) -> Vec<u8>
where
    H: Digest + BlockSizeUser + FixedOutputReset + EagerHash,
{
    let key = pkcs12_key::<H>(passphrase, salt, iterations, Purpose::Mac, <H as Digest>::output_size());
    let mac = Hmac::<H>::new_from_slice(&key).expect("HMAC takes keys of any length");
    mac.chain_update(safe).finalize().into_bytes().to_vec()
}

fn local_key_id(id: &[u8]) -> der::Result<SetOfVec<Attribute>> {
    let values = SetOfVec::try_from(vec![Any::encode_from(&OctetString::new(id)?)?])?;
    SetOfVec::try_from(vec![Attribute { oid: oid::LOCAL_KEY_ID, values }])
}

/// As OpenSSL 3 does it.
const MAC_ROUNDS: u32 = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Curve, KeyType};
    use crate::test_support::{Entity, named_key, rng};

    fn container() -> Container {
        let ca = Entity::root("ca", |_| {});
        let key = PrivateKey::generate(KeyType::Ecdsa(Curve::P384), &mut rng(4)).unwrap();
        let moon = ca.issue("moon", key, |_| {});
        Container { keys: vec![moon.key], certificates: vec![ca.certificate, moon.certificate] }
    }

    #[test]
    fn what_is_written_is_read_with_the_same_passphrase_only() {
        let container = container();
        let der = container.to_der("päss", &mut rng(1)).unwrap();
        let read = Container::from_der(&der, "päss").unwrap();
        assert_eq!(read.certificates, container.certificates);
        let (key, certificate) = read.end_entity().unwrap();
        assert_eq!(key.public_key(), container.keys[0].public_key());
        assert_eq!(certificate.subject().to_string(), "CN=moon");
        for wrong in ["pass", "", "päss "] {
            assert_eq!(Container::from_der(&der, wrong).err(), Some(ContainerError::WrongPassphrase), "{wrong:?}");
        }
    }

    /// pkcs7_malformed and its like: whatever octet is changed, there is an error and no panic.
    #[test]
    fn a_damaged_container_is_not_opened() {
        let key = named_key("x");
        let der = Container { keys: vec![key], certificates: Vec::new() }.to_der("x", &mut rng(1)).unwrap();
        // The MAC covers all from octet 30 on; in front are lengths and identifiers.
        for at in (0..der.len()).step_by(7) {
            let mut damaged = der.clone();
            damaged[at] ^= 0x11;
            assert!(Container::from_der(&damaged, "x").is_err(), "{at}");
        }
        for len in (0..der.len()).step_by(5) {
            assert!(Container::from_der(&der[..len], "x").is_err(), "{len}");
        }
    }

    #[test]
    fn endless_stretching_is_refused() {
        let der = Container { keys: Vec::new(), certificates: Vec::new() }.to_der("x", &mut rng(1)).unwrap();
        let mut pfx = Pfx::from_der(&der).unwrap();
        pfx.mac.as_mut().unwrap().iterations = MAX_ROUNDS + 1;
        let error = Container::from_der(&pfx.to_der().unwrap(), "x").err();
        assert_eq!(error, Some(ContainerError::Key(KeyFileError::TooExpensive)));
        pfx.mac = None;
        assert_eq!(Container::from_der(&pfx.to_der().unwrap(), "x").err(), Some(ContainerError::NoMac));
    }

    proptest::proptest! {
        /// pkcs7_malformed.
        #[test]
        fn no_octets_make_the_parser_panic(octets: Vec<u8>) {
            proptest::prop_assert!(Container::from_der(&octets, "x").is_err());
        }
    }
}
