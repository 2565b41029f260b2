//! Sealing and opening of Encrypted payloads: one [`MessageCipher`] per direction of an IKE SA.

use std::fmt;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, Nonce, Tag};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, KeyInit};
use cbc::{Decryptor, Encryptor};
use chacha20poly1305::ChaCha20Poly1305;
use espdp_api::Secret;
use subtle::ConstantTimeEq;

use super::hmac::Hash;
use crate::proposal::{IkeCipher, IkeIntegrity, IkeSuite};
use crate::random::SecureRandom;
use crate::wire::{Inauthentic, MessageProtection};

/// The cipher of one direction of an IKE SA with its keys, which are wiped when it is dropped.
///
/// What the initiator of the SA sends is sealed and opened with SK_ei and SK_ai, what the responder sends with SK_er and
/// SK_ar. An SA must not have two ciphers that seal with one key: both would begin with the same IV.
pub struct MessageCipher(Algorithm);

/// A suite that no messages can be protected with: a key length that the cipher has not, an integrity transform beside an
/// AEAD or none beside another cipher, or keys that are not as long as the suite says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cipher:?} with integrity {integrity:?} cannot protect messages")]
pub struct UnsoundSuite {
    /// The cipher.
    pub cipher: IkeCipher,
    /// The integrity transform.
    pub integrity: Option<IkeIntegrity>,
}

enum Algorithm {
    Aead { cipher: AeadCipher, salt: Secret<[u8; SALT_LEN]>, next_iv: u64 },
    CbcHmac { cipher: CbcCipher, integrity: IkeIntegrity, key: Secret<Vec<u8>> },
}

enum AeadCipher {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<Aes192Gcm>),
    Aes256(Box<Aes256Gcm>),
    ChaCha20(Box<ChaCha20Poly1305>),
}

enum CbcCipher {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
}

type Aes192Gcm = AesGcm<Aes192, U12>;

impl MessageCipher {
    /// Makes the cipher for one direction. `encryption_key` is SK_ei or SK_er, with the salt at its end for AEADs;
    /// `integrity_key` is SK_ai or SK_ar, empty for AEADs.
    ///
    /// # Errors
    ///
    /// [`UnsoundSuite`] if cipher and integrity transform do not go together or the keys do not fit them.
    pub fn new(
        suite: IkeSuite,
        encryption_key: &Secret<Vec<u8>>,
        integrity_key: &Secret<Vec<u8>>,
    ) -> Result<Self, UnsoundSuite> {
        let (encryption_key, integrity_key) = (encryption_key.expose(), integrity_key.expose());
        let algorithm = match suite.integrity {
            None if integrity_key.is_empty() => Algorithm::aead(suite.cipher, encryption_key),
            Some(integrity) if integrity_key.len() == integrity.key_len() => {
                CbcCipher::new(suite.cipher, encryption_key).map(|cipher| Algorithm::CbcHmac {
                    cipher,
                    integrity,
                    key: Secret::new(integrity_key.clone()),
                })
            }
            None | Some(_) => None,
        };
        algorithm.map(Self).ok_or(UnsoundSuite { cipher: suite.cipher, integrity: suite.integrity })
    }
}

impl MessageProtection for MessageCipher {
    fn iv_len(&self) -> usize {
        match self.0 {
            Algorithm::Aead { .. } => AEAD_IV_LEN,
            Algorithm::CbcHmac { .. } => AES_BLOCK_LEN,
        }
    }

    /// AEADs need no padding (RFC 5282 §3); AES-CBC works on whole blocks.
    fn block_len(&self) -> usize {
        match self.0 {
            Algorithm::Aead { .. } => 1,
            Algorithm::CbcHmac { .. } => AES_BLOCK_LEN,
        }
    }

    fn icv_len(&self) -> usize {
        match &self.0 {
            Algorithm::Aead { .. } => AEAD_ICV_LEN,
            Algorithm::CbcHmac { integrity, .. } => integrity.icv_len(),
        }
    }

    /// # Panics
    ///
    /// If the message has no room for IV and checksum, or, for an AEAD, after 2^64 messages: an IV is never used again with
    /// the same key (RFC 4106 §3.1, R4106-3.1-1). Message IDs of 32 bits end an IKE SA long before that.
    fn seal(&mut self, random: &mut dyn SecureRandom, message: &mut [u8], body: usize) {
        match &mut self.0 {
            Algorithm::Aead { cipher, salt, next_iv } => {
                let iv = *next_iv;
                #[expect(
                    clippy::expect_used,
                    reason = "message IDs end the SA before 2^64 messages; an IV must not come twice"
                )]
                {
                    *next_iv = iv.checked_add(1).expect("an IKE SA ends before its IVs do");
                }
                cipher.seal(salt, iv.to_be_bytes(), message, body);
            }
            Algorithm::CbcHmac { cipher, integrity, key } => {
                seal_cbc_hmac(cipher, *integrity, key, random, message, body);
            }
        }
    }

    fn open(&self, message: &[u8], body: usize) -> Result<Vec<u8>, Inauthentic> {
        match &self.0 {
            Algorithm::Aead { cipher, salt, .. } => cipher.open(salt, message, body),
            Algorithm::CbcHmac { cipher, integrity, key } => open_cbc_hmac(cipher, *integrity, key, message, body),
        }
        .ok_or(Inauthentic)
    }
}

impl fmt::Debug for MessageCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageCipher(..)")
    }
}

impl Algorithm {
    /// RFC 5282 §7.1, RFC 7634 §3: the last 4 octets of the keying material are the salt.
    fn aead(cipher: IkeCipher, keymat: &[u8]) -> Option<Self> {
        let (key, salt) = keymat.split_last_chunk::<SALT_LEN>()?;
        let cipher = match cipher {
            IkeCipher::AesGcm16 { key_bits: 128 } => AeadCipher::Aes128(keyed(key)?),
            IkeCipher::AesGcm16 { key_bits: 192 } => AeadCipher::Aes192(keyed(key)?),
            IkeCipher::AesGcm16 { key_bits: 256 } => AeadCipher::Aes256(keyed(key)?),
            IkeCipher::ChaCha20Poly1305 => AeadCipher::ChaCha20(keyed(key)?),
            IkeCipher::AesGcm16 { .. } | IkeCipher::AesCbc { .. } => return None,
        };
        Some(Self::Aead { cipher, salt: Secret::new(*salt), next_iv: 0 })
    }
}

impl AeadCipher {
    fn seal(&self, salt: &Secret<[u8; SALT_LEN]>, iv: [u8; AEAD_IV_LEN], message: &mut [u8], body: usize) {
        match self {
            Self::Aes128(cipher) => seal_aead(&**cipher, salt, iv, message, body),
            Self::Aes192(cipher) => seal_aead(&**cipher, salt, iv, message, body),
            Self::Aes256(cipher) => seal_aead(&**cipher, salt, iv, message, body),
            Self::ChaCha20(cipher) => seal_aead(&**cipher, salt, iv, message, body),
        }
    }

    fn open(&self, salt: &Secret<[u8; SALT_LEN]>, message: &[u8], body: usize) -> Option<Vec<u8>> {
        match self {
            Self::Aes128(cipher) => open_aead(&**cipher, salt, message, body),
            Self::Aes192(cipher) => open_aead(&**cipher, salt, message, body),
            Self::Aes256(cipher) => open_aead(&**cipher, salt, message, body),
            Self::ChaCha20(cipher) => open_aead(&**cipher, salt, message, body),
        }
    }
}

impl CbcCipher {
    fn new(cipher: IkeCipher, key: &[u8]) -> Option<Self> {
        match cipher {
            IkeCipher::AesCbc { key_bits: 128 } => Some(Self::Aes128(keyed(key)?)),
            IkeCipher::AesCbc { key_bits: 192 } => Some(Self::Aes192(keyed(key)?)),
            IkeCipher::AesCbc { key_bits: 256 } => Some(Self::Aes256(keyed(key)?)),
            IkeCipher::AesCbc { .. } | IkeCipher::AesGcm16 { .. } | IkeCipher::ChaCha20Poly1305 => None,
        }
    }

    fn encrypt(&self, iv: &[u8; AES_BLOCK_LEN], blocks: &mut [AesBlock]) {
        match self {
            Self::Aes128(cipher) => encrypt_cbc(&**cipher, iv, blocks),
            Self::Aes192(cipher) => encrypt_cbc(&**cipher, iv, blocks),
            Self::Aes256(cipher) => encrypt_cbc(&**cipher, iv, blocks),
        }
    }

    fn decrypt(&self, iv: &[u8; AES_BLOCK_LEN], blocks: &mut [AesBlock]) {
        match self {
            Self::Aes128(cipher) => decrypt_cbc(&**cipher, iv, blocks),
            Self::Aes192(cipher) => decrypt_cbc(&**cipher, iv, blocks),
            Self::Aes256(cipher) => decrypt_cbc(&**cipher, iv, blocks),
        }
    }
}

fn keyed<C: KeyInit>(key: &[u8]) -> Option<Box<C>> {
    C::new_from_slice(key).ok().map(Box::new)
}

/// Everything before the IV is associated data: the IKE header, payloads in clear if there are any, and the header of the
/// Encrypted payload (RFC 5282 §5.1, R5282-5.1-1).
#[expect(clippy::expect_used, reason = "the caller made the message with the room that iv_len and icv_len ask for")]
fn seal_aead<C>(cipher: &C, salt: &Secret<[u8; SALT_LEN]>, iv: [u8; AEAD_IV_LEN], message: &mut [u8], body: usize)
where
    C: AeadInOut<NonceSize = U12, TagSize = U16>,
{
    let (associated, body) = message.split_at_mut_checked(body).expect("body is inside the message");
    let (iv_field, body) = body.split_first_chunk_mut::<AEAD_IV_LEN>().expect("room for the IV");
    let (text, icv) = body.split_last_chunk_mut::<AEAD_ICV_LEN>().expect("room for the checksum");
    *iv_field = iv;
    let tag = cipher
        .encrypt_inout_detached(&nonce::<C>(salt, iv), associated, text.into())
        .expect("a message of at most 2^32 octets is within the limits of the AEADs");
    *icv = tag.into();
}

/// What was encrypted, or `None` if the checksum does not fit. It is checked before anything is decrypted.
fn open_aead<C>(cipher: &C, salt: &Secret<[u8; SALT_LEN]>, message: &[u8], body: usize) -> Option<Vec<u8>>
where
    C: AeadInOut<NonceSize = U12, TagSize = U16>,
{
    let (associated, body) = message.split_at_checked(body)?;
    let (iv, body) = body.split_first_chunk::<AEAD_IV_LEN>()?;
    let (text, icv) = body.split_last_chunk::<AEAD_ICV_LEN>()?;
    let mut text = text.to_vec();
    let tag = Tag::<C>::from(*icv);
    cipher.decrypt_inout_detached(&nonce::<C>(salt, *iv), associated, text.as_mut_slice().into(), &tag).ok()?;
    Some(text)
}

/// RFC 5282 §4, RFC 7634 §2: the salt, then the IV.
fn nonce<C: AeadInOut<NonceSize = U12>>(salt: &Secret<[u8; SALT_LEN]>, iv: [u8; AEAD_IV_LEN]) -> Nonce<C> {
    let mut nonce = Nonce::<C>::default();
    for (octet, value) in nonce.iter_mut().zip(salt.expose().iter().chain(&iv)) {
        *octet = *value;
    }
    nonce
}

/// The IV is drawn anew for each message, as CBC needs one that nobody can foresee (RFC 3602 §3). The checksum is made last,
/// over everything before it (RFC 7296 §3.14).
#[expect(clippy::expect_used, reason = "the caller made the message with the room that iv_len and icv_len ask for")]
fn seal_cbc_hmac(
    cipher: &CbcCipher,
    integrity: IkeIntegrity,
    key: &Secret<Vec<u8>>,
    random: &mut dyn SecureRandom,
    message: &mut [u8],
    body: usize,
) {
    let end = message.len().checked_sub(integrity.icv_len()).expect("room for the checksum");
    let (covered, icv) = message.split_at_mut(end);
    let body = covered.get_mut(body..).expect("body is inside the message");
    let (iv, text) = body.split_first_chunk_mut::<AES_BLOCK_LEN>().expect("room for the IV");
    random.fill_public(iv);
    let (blocks, rest) = AesBlock::slice_as_chunks_mut(text);
    assert!(rest.is_empty(), "the caller padded to whole blocks");
    cipher.encrypt(iv, blocks);
    icv.copy_from_slice(&checksum(integrity, key, covered));
}

/// What was encrypted, or `None` if the checksum does not fit. It is checked before anything is decrypted, so that padding
/// tells nothing.
fn open_cbc_hmac(
    cipher: &CbcCipher,
    integrity: IkeIntegrity,
    key: &Secret<Vec<u8>>,
    message: &[u8],
    body: usize,
) -> Option<Vec<u8>> {
    let (covered, icv) = message.split_at_checked(message.len().checked_sub(integrity.icv_len())?)?;
    if !bool::from(checksum(integrity, key, covered).ct_eq(icv)) {
        return None;
    }
    let (iv, text) = covered.get(body..)?.split_first_chunk::<AES_BLOCK_LEN>()?;
    let mut text = text.to_vec();
    let (blocks, rest) = AesBlock::slice_as_chunks_mut(&mut text);
    if !rest.is_empty() {
        return None;
    }
    cipher.decrypt(iv, blocks);
    Some(text)
}

/// The HMAC, cut to the length of the checksum (RFC 4868 §2.1.1).
fn checksum(integrity: IkeIntegrity, key: &Secret<Vec<u8>>, covered: &[u8]) -> Vec<u8> {
    let hash = match integrity {
        IkeIntegrity::HmacSha1_96 => Hash::Sha1,
        IkeIntegrity::HmacSha2_256_128 => Hash::Sha256,
        IkeIntegrity::HmacSha2_384_192 => Hash::Sha384,
        IkeIntegrity::HmacSha2_512_256 => Hash::Sha512,
    };
    let mac = hash.hmac(key.expose(), &[covered]);
    mac.expose().iter().take(integrity.icv_len()).copied().collect()
}

fn encrypt_cbc<C: BlockCipherEncrypt<BlockSize = U16>>(cipher: &C, iv: &[u8; AES_BLOCK_LEN], blocks: &mut [AesBlock]) {
    Encryptor::inner_iv_init(cipher, &(*iv).into()).encrypt_blocks(blocks);
}

fn decrypt_cbc<C: BlockCipherDecrypt<BlockSize = U16>>(cipher: &C, iv: &[u8; AES_BLOCK_LEN], blocks: &mut [AesBlock]) {
    Decryptor::inner_iv_init(cipher, &(*iv).into()).decrypt_blocks(blocks);
}

type AesBlock = aes::Block;

const AES_BLOCK_LEN: usize = 16;
const AEAD_IV_LEN: usize = 8;
const AEAD_ICV_LEN: usize = 16;
const SALT_LEN: usize = 4;

#[cfg(test)]
mod tests;
