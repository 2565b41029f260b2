//! What protects the packets of an SA: encryption and integrity, in place.
//!
//! ```text
//!  0       4       8        8 + iv_len                                 len - icv_len   len
//! ┌───────┬───────┬────────┬──────────────────────────────────────────┬───────────────┐
//! │ SPI   │ seq   │ IV     │ payload, padding, pad length, next header│ ICV           │
//! └───────┴───────┴────────┴──────────────────────────────────────────┴───────────────┘
//!                          └──────────────── encrypted ───────────────┘
//! ```

mod aead;
mod cbc;
mod mac;

use espdp_api::{EspAlgorithms, EspCipher, Secret};

use self::aead::Aead;
use self::cbc::Cbc;
use self::mac::Mac;
use crate::DropReason;
use crate::batch::{InboundFrame, OutboundFrame, Stage};

/// The keyed algorithms of one SA.
#[derive(Debug)]
pub struct Transform {
    cipher: Cipher,
    extended: bool,
}

#[derive(Debug)]
enum Cipher {
    /// Encryption and integrity in one.
    Aead(Aead),
    /// Encryption, then integrity over the result (RFC 4303 §3.3.2).
    /// Boxed: its key schedules are several times as long as an AEAD's.
    Cbc(Box<Cbc>, Mac),
    /// Integrity alone (RFC 2410).
    Null(Mac),
}

/// Why no transform can be made of what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// Encryption without integrity, two kinds of integrity, or neither encryption nor integrity (R4303-3.2-1).
    #[error("integrity is needed exactly where the cipher brings none: {0:?}")]
    Unsound(EspAlgorithms),
    /// A key length that AES does not have.
    #[error("AES has keys of 128, 192 and 256 bits, not of {0}")]
    AesKeyBits(u16),
    /// Too many or too few octets.
    #[error("the {which} key must have {wanted} octets, salt included, and has {given}")]
    KeyLength {
        /// Encryption or integrity.
        which: &'static str,
        /// What the algorithms take.
        wanted: usize,
        /// What was given.
        given: usize,
    },
}

impl Transform {
    /// Keys the algorithms. `encryption_key` is followed by the salt where there is one (R4106-8.1-1). `iv_key` must be
    /// independent of everything else; CBC takes its IVs from it.
    ///
    /// # Errors
    /// [`TransformError`] when algorithms and keys do not fit together.
    pub fn new(
        algorithms: EspAlgorithms,
        encryption_key: &Secret<Vec<u8>>,
        integrity_key: &Secret<Vec<u8>>,
        iv_key: &Secret<[u8; 16]>,
    ) -> Result<Self, TransformError> {
        if !algorithms.is_sound() {
            return Err(TransformError::Unsound(algorithms));
        }
        if let EspCipher::AesGcm16 { key_bits } | EspCipher::AesCbc { key_bits } = algorithms.cipher
            && !matches!(key_bits, 128 | 192 | 256)
        {
            return Err(TransformError::AesKeyBits(key_bits));
        }
        let (encryption_key, integrity_key) = (encryption_key.expose(), integrity_key.expose());
        let wanted = algorithms.cipher.key_len() + algorithms.cipher.salt_len();
        let key_length = |which, wanted, given| TransformError::KeyLength { which, wanted, given };
        if encryption_key.len() != wanted {
            return Err(key_length("encryption", wanted, encryption_key.len()));
        }
        let wrong_encryption_key = || key_length("encryption", wanted, encryption_key.len());
        let mac = || {
            Mac::new(algorithms.integrity, integrity_key)
                .ok_or_else(|| key_length("integrity", algorithms.integrity.key_len(), integrity_key.len()))
        };
        let cipher = match algorithms.cipher {
            EspCipher::AesGcm16 { .. } | EspCipher::ChaCha20Poly1305 if !integrity_key.is_empty() => {
                return Err(key_length("integrity", 0, integrity_key.len()));
            }
            EspCipher::AesGcm16 { .. } | EspCipher::ChaCha20Poly1305 => {
                Cipher::Aead(Aead::new(algorithms.cipher, encryption_key).ok_or_else(wrong_encryption_key)?)
            }
            EspCipher::AesCbc { .. } => {
                Cipher::Cbc(Box::new(Cbc::new(encryption_key, iv_key).ok_or_else(wrong_encryption_key)?), mac()?)
            }
            EspCipher::Null => Cipher::Null(mac()?),
        };
        Ok(Self { cipher, extended: algorithms.extended_sequence_numbers })
    }

    /// Seals consecutive frames of one SA.
    fn seal_run(&self, frames: &mut [OutboundFrame], memory: &mut [u8]) {
        for frame in frames {
            frame.is_sealed = self.seal(frame.span.of_mut(memory), frame.sequence).is_ok();
        }
    }

    /// Opens those of consecutive frames of one SA that were admitted.
    fn open_run(&self, frames: &mut [InboundFrame], memory: &mut [u8]) {
        for frame in frames {
            let Stage::Admitted { sequence } = frame.stage else { continue };
            frame.stage = match self.open(frame.span.of_mut(memory), sequence) {
                Ok(proof) => Stage::Opened(proof),
                Err(reason) => Stage::Refused(reason),
            };
        }
    }

    /// Encrypts `packet`, which reaches from the SPI to the end of the still empty ICV, and fills in IV and ICV.
    /// Each `sequence` must be used once only: it is the nonce (R4106-3.1-1).
    ///
    /// # Errors
    /// [`DropReason::Crypto`] when the packet has no room for IV and ICV, or is no multiple of the cipher's block. Nothing
    /// of such a packet may be sent.
    pub fn seal(&self, packet: &mut [u8], sequence: u64) -> Result<(), DropReason> {
        let sealed = match &self.cipher {
            Cipher::Aead(aead) => {
                self.associated_data(packet, sequence).and_then(|covered| aead.seal(packet, &covered, sequence))
            }
            Cipher::Cbc(cbc, mac) => cbc
                .encrypt(packet, mac.len(), sequence)
                .and_then(|()| mac.append(packet, self.implicit_high(sequence).as_slice().as_flattened())),
            Cipher::Null(mac) => mac.append(packet, self.implicit_high(sequence).as_slice().as_flattened()),
        };
        sealed.ok_or(DropReason::Crypto)
    }

    /// Verifies `packet`, which reaches from the SPI to the end of the ICV, then decrypts it in place
    /// (R4303-3.4.4.1-1).
    ///
    /// # Errors
    /// [`DropReason::BadIcv`]; the packet's content is undefined then. [`DropReason::Short`] when it has no room for IV and
    /// ICV or is no multiple of the cipher's block.
    pub fn open(&self, packet: &mut [u8], sequence: u64) -> Result<Authentic, DropReason> {
        match &self.cipher {
            Cipher::Aead(aead) => {
                let covered = self.associated_data(packet, sequence).ok_or(DropReason::Short)?;
                aead.open(packet, &covered)?;
            }
            Cipher::Cbc(cbc, mac) => {
                mac.verify(packet, self.implicit_high(sequence).as_slice().as_flattened())?;
                cbc.decrypt(packet, mac.len()).ok_or(DropReason::Short)?;
            }
            Cipher::Null(mac) => mac.verify(packet, self.implicit_high(sequence).as_slice().as_flattened())?,
        }
        Ok(Authentic { sequence })
    }

    /// SPI and sequence number, with the high half between them when numbers are extended (RFC 4106 §5).
    fn associated_data(&self, packet: &[u8], sequence: u64) -> Option<AssociatedData> {
        let header: &[u8; 8] = packet.first_chunk()?;
        let [s0, s1, s2, s3, l0, l1, l2, l3] = *header;
        let [h0, h1, h2, h3, ..] = sequence.to_be_bytes();
        Some(if self.extended {
            AssociatedData { octets: [s0, s1, s2, s3, h0, h1, h2, h3, l0, l1, l2, l3], len: 12 }
        } else {
            AssociatedData { octets: [s0, s1, s2, s3, l0, l1, l2, l3, 0, 0, 0, 0], len: 8 }
        })
    }

    /// The half of an extended sequence number that is not sent but covered by the ICV, behind the packet
    /// (RFC 4303 §2.2.1).
    fn implicit_high(&self, sequence: u64) -> Option<[u8; 4]> {
        let [h0, h1, h2, h3, ..] = sequence.to_be_bytes();
        self.extended.then_some([h0, h1, h2, h3])
    }
}

/// Seals all frames of a batch. Frames of one SA that follow each other are handed to its transform together, so that an
/// implementation can work on several packets at once.
pub(crate) fn seal_batch<'k>(
    frames: &mut [OutboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    for run in frames.chunk_by_mut(|one, next| one.sa == next.sa) {
        if let Some(transform) = run.first().and_then(|frame| transform_of(frame.sa)) {
            transform.seal_run(run, memory);
        }
    }
}

/// Opens all admitted frames of a batch; like [`seal_batch`].
pub(crate) fn open_batch<'k>(
    frames: &mut [InboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    for run in frames.chunk_by_mut(|one, next| one.sa == next.sa) {
        if let Some(transform) = run.first().and_then(|frame| transform_of(frame.sa)) {
            transform.open_run(run, memory);
        }
    }
}

/// Proves that a packet with this sequence number passed the integrity check; only [`Transform::open`] makes one.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Authentic {
    sequence: u64,
}

impl Authentic {
    /// The whole sequence number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    #[cfg(test)]
    pub(crate) fn forged(sequence: u64) -> Self {
        Self { sequence }
    }
}

/// What an AEAD covers without encrypting it.
struct AssociatedData {
    octets: [u8; 12],
    len: usize,
}

impl AsRef<[u8]> for AssociatedData {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or(&self.octets)
    }
}

/// Octets of SPI and sequence number.
pub(crate) const ESP_HEADER_LEN: usize = 8;

#[cfg(test)]
mod tests;
