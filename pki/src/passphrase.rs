//! What a passphrase protects: PBES2 (RFC 8018), and PKCS#12's own older way (RFC 7292 appendix B and C), which is only read.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Decode, Encode, Sequence};
use pkcs5::pbes2;
use rand_core::CryptoRng;
use sha1::Sha1;
use sha2::digest::block_api::BlockSizeUser;
use sha2::digest::{Digest, FixedOutputReset};
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use crate::key::KeyFileError;

/// Something encrypted with a passphrase.
///
/// ```text
/// EncryptedPrivateKeyInfo ::= SEQUENCE {            RFC 5958 §3
///     encryptionAlgorithm AlgorithmIdentifier,
///     encryptedData       OCTET STRING }
/// ```
#[derive(Sequence)]
pub(crate) struct Encrypted {
    pub(crate) algorithm: AlgorithmIdentifierOwned,
    pub(crate) data: OctetString,
}

impl Encrypted {
    /// Decrypts it.
    pub(crate) fn open(&self, passphrase: &str) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        let (data, parameters) = (self.data.as_bytes(), self.algorithm.parameters.as_ref());
        let parameters = parameters.ok_or(KeyFileError::UnknownEncryption)?;
        match self.algorithm.oid {
            pbes2::PBES2_OID => {
                let parameters = parameters
                    .to_der()
                    .and_then(|der| pbes2::Parameters::from_der(&der))
                    .map_err(|_| KeyFileError::UnknownEncryption)?;
                affordable(&parameters.kdf)?;
                let opened = parameters.decrypt(passphrase, data).map_err(|_| KeyFileError::WrongPassphrase)?;
                Ok(Zeroizing::new(opened))
            }
            PBE_SHA1_3DES => open_cbc::<des::TdesEde3>(&Pkcs12Parameters::of(parameters)?, passphrase, 24, data),
            PBE_SHA1_RC2_40 => open_cbc::<rc2::Rc2>(&Pkcs12Parameters::of(parameters)?, passphrase, 5, data),
            _ => Err(KeyFileError::UnknownEncryption),
        }
    }

    /// Encrypts with AES-256-CBC and a key that PBKDF2-HMAC-SHA256 makes; gives the DER.
    #[expect(
        clippy::expect_used,
        reason = "a salt and a count of ours, and data that is no larger than keys and certificates"
    )]
    pub(crate) fn seal(plain: &[u8], passphrase: &str, rng: &mut dyn CryptoRng) -> Vec<u8> {
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut iv);
        let parameters = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(PBKDF2_ROUNDS, &salt, iv)
            .expect("salt and count are within bounds");
        let data = parameters.encrypt(passphrase, plain).expect("AES-CBC takes data of any length");
        let encoded = || -> der::Result<Vec<u8>> {
            let algorithm = AlgorithmIdentifierOwned {
                oid: pbes2::PBES2_OID,
                parameters: Some(Any::from_der(&parameters.to_der()?)?),
            };
            Self { algorithm, data: OctetString::new(data)? }.to_der()
        };
        encoded().expect("it is far smaller than DER can say")
    }
}

/// Refuses stretching that would take minutes or gigabytes.
fn affordable(kdf: &pbes2::Kdf) -> Result<(), KeyFileError> {
    let cheap = match kdf {
        pbes2::Kdf::Pbkdf2(parameters) => parameters.iteration_count <= MAX_ROUNDS,
        pbes2::Kdf::Scrypt(parameters) => {
            let memory = parameters.cost_parameter.saturating_mul(128 * u64::from(parameters.block_size));
            memory.saturating_mul(u64::from(parameters.parallelization)) <= MAX_SCRYPT_OCTETS
        }
        _ => return Err(KeyFileError::UnknownEncryption),
    };
    if cheap { Ok(()) } else { Err(KeyFileError::TooExpensive) }
}

/// ```text
/// pkcs-12PbeParams ::= SEQUENCE {                   RFC 7292 appendix C
///     salt       OCTET STRING,
///     iterations INTEGER }
/// ```
#[derive(Sequence)]
struct Pkcs12Parameters {
    salt: OctetString,
    iterations: u32,
}

impl Pkcs12Parameters {
    fn of(parameters: &Any) -> Result<Self, KeyFileError> {
        let parameters: Self = parameters.decode_as().map_err(|_| KeyFileError::UnknownEncryption)?;
        if parameters.iterations > MAX_ROUNDS { Err(KeyFileError::TooExpensive) } else { Ok(parameters) }
    }
}

fn open_cbc<C>(
    parameters: &Pkcs12Parameters,
    passphrase: &str,
    key_len: usize,
    data: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyFileError>
where
    C: cbc::cipher::BlockCipherDecrypt + cbc::cipher::KeyInit,
    cbc::Decryptor<C>: KeyIvInit + BlockModeDecrypt,
{
    let derive =
        |purpose, len| pkcs12_key::<Sha1>(passphrase, parameters.salt.as_bytes(), parameters.iterations, purpose, len);
    let (key, iv) = (derive(Purpose::Key, key_len), derive(Purpose::Iv, BLOCK_LEN));
    let mut plain = Zeroizing::new(data.to_vec());
    let len = <cbc::Decryptor<C> as KeyIvInit>::new_from_slices(&key, &iv)
        .map_err(|_| KeyFileError::UnknownEncryption)?
        .decrypt_padded::<Pkcs7>(&mut plain)
        .map_err(|_| KeyFileError::WrongPassphrase)?
        .len();
    plain.truncate(len);
    Ok(plain)
}

/// What a key of PKCS#12 is for (RFC 7292 appendix B.3).
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Key,
    Iv,
    Mac,
}

impl Purpose {
    /// The octet of the diversifier.
    fn id(self) -> u8 {
        match self {
            Self::Key => 1,
            Self::Iv => 2,
            Self::Mac => 3,
        }
    }
}

/// Makes a key of a passphrase as RFC 7292 appendix B.2 does it; the letters are the RFC's.
pub(crate) fn pkcs12_key<H: Digest + BlockSizeUser + FixedOutputReset>(
    passphrase: &str,
    salt: &[u8],
    iterations: u32,
    purpose: Purpose,
    len: usize,
) -> Zeroizing<Vec<u8>> {
    let v = H::block_size();
    // The passphrase as a BMPString with its terminating zero (appendix B.1).
    let password: Zeroizing<Vec<u8>> =
        Zeroizing::new(passphrase.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect());
    let diversifier = vec![purpose.id(); v];
    let fill = |octets: &[u8]| -> Vec<u8> {
        octets
            .iter()
            .copied()
            .cycle()
            .take(if octets.is_empty() { 0 } else { octets.len().next_multiple_of(v) })
            .collect()
    };
    let mut i = Zeroizing::new([fill(salt), fill(&password)].concat());
    let mut output = Zeroizing::new(Vec::with_capacity(len.saturating_add(v)));
    let mut hash = H::new();
    while output.len() < len {
        Digest::update(&mut hash, &diversifier);
        Digest::update(&mut hash, i.as_slice());
        let mut a = Digest::finalize_reset(&mut hash);
        for _ in 1..iterations {
            Digest::update(&mut hash, &a);
            a = Digest::finalize_reset(&mut hash);
        }
        output.extend_from_slice(&a);
        // Every block of I grows by B + 1, B being A repeated to the length of a block.
        for block in i.chunks_mut(v) {
            let mut carry = 1u16;
            for (octet, b) in block.iter_mut().zip(a.iter().cycle().take(v).collect::<Vec<_>>()).rev() {
                // At most 255 + 255 + 1.
                carry = carry.saturating_add(u16::from(*octet)).saturating_add(u16::from(*b));
                let [high, low] = carry.to_be_bytes();
                (*octet, carry) = (low, u16::from(high));
            }
        }
    }
    output.truncate(len);
    output
}

/// What PKCS#12's own encryption works on: 3DES and RC2 have blocks of 8 octets.
const BLOCK_LEN: usize = 8;

/// As OWASP recommends for PBKDF2-HMAC-SHA256.
const PBKDF2_ROUNDS: u32 = 600_000;

/// More than anybody uses; some seconds.
pub(crate) const MAX_ROUNDS: u32 = 10_000_000;

/// 512 MiB; OpenSSL's default takes 16 MiB, RustCrypto's 128 MiB.
const MAX_SCRYPT_OCTETS: u64 = 512 << 20;

/// pbeWithSHAAnd3-KeyTripleDES-CBC
const PBE_SHA1_3DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3");
/// pbeWithSHAAnd40BitRC2-CBC
const PBE_SHA1_RC2_40: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.6");
