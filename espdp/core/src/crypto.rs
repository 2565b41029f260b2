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
mod ah;
mod cbc;
mod ctr;
mod gcm;
mod gmac;
mod mac;
mod report;
mod side_by_side;
mod uncommon;

use esp_engines::cbc_hmac::{CbcHmac, Engine as CbcHmacEngine};
use esp_engines::chacha20poly1305::{ChaCha20Poly1305, Engine as ChaChaEngine};
use esp_engines::gcm::Engine as GcmEngine;
use esp_engines::side_by_side::WORTHWHILE;
use espdp_api::{CryptoEngine, EspAlgorithms, EspCipher, Secret};

use self::aead::Aead;
use self::cbc::Cbc;
use self::ctr::Ctr;
use self::gcm::Gcm;
use self::gmac::Gmac;
use self::mac::Mac;
pub use self::report::CryptoReport;
use self::side_by_side::SideBySide;
use self::uncommon::UncommonAead;
use crate::DropReason;
use crate::batch::{InboundFrame, OutboundFrame, Stage};

/// The keyed algorithms of one SA.
#[derive(Debug)]
pub struct Transform {
    cipher: Cipher,
    extended: bool,
}

/// Boxed, because keys take more room than all the rest of an SA: what packets need of it shall stand together.
#[derive(Debug)]
enum Cipher {
    /// Encryption and integrity in one, by a library.
    Aead(Box<Aead>),
    /// The same, of which packets of a batch go to an engine.
    ChaCha(Box<Aead>, SideBySide<ChaCha20Poly1305>),
    /// The same, by an engine for whole batches.
    Gcm(Gcm),
    /// The same, for ciphers that few use.
    Uncommon(Box<UncommonAead>),
    /// Integrity alone, made like that of an AEAD (RFC 4543).
    Gmac(Box<Gmac>),
    /// Encryption, then integrity over the result (RFC 4303 §3.3.2).
    /// Packets of a batch go to the engine, where there is one.
    Cbc(Box<Cbc>, Box<Mac>, Option<SideBySide<CbcHmac>>),
    /// Likewise (RFC 3686).
    Ctr(Box<Ctr>, Box<Mac>),
    /// Integrity alone (RFC 2410).
    Null(Box<Mac>),
    /// The Authentication Header instead of ESP.
    Ah(Box<Mac>),
}

/// Why no transform can be made of what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// Encryption without integrity, two kinds of integrity, or neither encryption nor integrity (R4303-3.2-1).
    #[error("integrity is needed exactly where the cipher brings none: {0:?}")]
    Unsound(EspAlgorithms),
    /// A key length that AES does not have.
    #[error("AES has keys of 16, 24 and 32 octets, not of {0}")]
    AesKeyLen(usize),
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
    /// independent of everything else; CBC takes its IVs from it. The fastest engine computes.
    ///
    /// # Errors
    /// [`TransformError`] when algorithms and keys do not fit together.
    pub fn new(
        algorithms: EspAlgorithms,
        encryption_key: &Secret<Vec<u8>>,
        integrity_key: &Secret<Vec<u8>>,
        iv_key: &Secret<[u8; 16]>,
    ) -> Result<Self, TransformError> {
        Self::with_engine(CryptoEngine::Auto, algorithms, encryption_key, integrity_key, iv_key)
    }

    /// As [`Self::new`], by what `engine` allows.
    ///
    /// # Errors
    /// [`TransformError`] when algorithms and keys do not fit together.
    pub fn with_engine(
        engine: CryptoEngine,
        algorithms: EspAlgorithms,
        encryption_key: &Secret<Vec<u8>>,
        integrity_key: &Secret<Vec<u8>>,
        iv_key: &Secret<[u8; 16]>,
    ) -> Result<Self, TransformError> {
        if !algorithms.is_sound() {
            return Err(TransformError::Unsound(algorithms));
        }
        let key_len = algorithms.cipher.key_len();
        if algorithms.cipher != EspCipher::Null && !matches!(key_len, 16 | 24 | 32) {
            return Err(TransformError::AesKeyLen(key_len));
        }
        let (encryption_key, integrity_key) = (encryption_key.expose(), integrity_key.expose());
        let wanted = algorithms.cipher.key_len() + algorithms.cipher.salt_len();
        let key_length = |which, wanted, given| TransformError::KeyLength { which, wanted, given };
        if encryption_key.len() != wanted {
            return Err(key_length("encryption", wanted, encryption_key.len()));
        }
        let wrong_encryption_key = || key_length("encryption", wanted, encryption_key.len());
        if algorithms.cipher.is_aead() && !integrity_key.is_empty() {
            return Err(key_length("integrity", 0, integrity_key.len()));
        }
        let mac = || {
            Mac::new(algorithms.integrity, integrity_key)
                .map(Box::new)
                .ok_or_else(|| key_length("integrity", algorithms.integrity.key_len(), integrity_key.len()))
        };
        let cipher = match algorithms.cipher {
            EspCipher::AesGcm16 { .. } | EspCipher::ChaCha20Poly1305 => match gcm_engine(engine, algorithms.cipher) {
                Some(engine) => Cipher::Gcm(Gcm::new(engine, encryption_key).ok_or_else(wrong_encryption_key)?),
                None => {
                    let aead = Aead::new(algorithms.cipher, encryption_key);
                    let aead = Box::new(aead.ok_or_else(wrong_encryption_key)?);
                    match SideBySide::chacha20_poly1305(engine, algorithms.cipher, encryption_key) {
                        Some(together) => Cipher::ChaCha(aead, together),
                        None => Cipher::Aead(aead),
                    }
                }
            },
            EspCipher::AesGcm12 { .. }
            | EspCipher::AesGcm8 { .. }
            | EspCipher::AesCcm16 { .. }
            | EspCipher::AesCcm12 { .. }
            | EspCipher::AesCcm8 { .. } => {
                let aead = UncommonAead::new(algorithms.cipher, encryption_key);
                Cipher::Uncommon(Box::new(aead.ok_or_else(wrong_encryption_key)?))
            }
            EspCipher::AesGmac { .. } => {
                let gmac = Gmac::new(algorithms.cipher, encryption_key);
                Cipher::Gmac(Box::new(gmac.ok_or_else(wrong_encryption_key)?))
            }
            EspCipher::AesCbc { .. } => {
                let cbc = Box::new(Cbc::new(encryption_key, iv_key).ok_or_else(wrong_encryption_key)?);
                let together =
                    SideBySide::cbc_hmac(engine, algorithms.integrity, encryption_key, integrity_key, iv_key);
                Cipher::Cbc(cbc, mac()?, together)
            }
            EspCipher::AesCtr { .. } => {
                Cipher::Ctr(Box::new(Ctr::new(encryption_key).ok_or_else(wrong_encryption_key)?), mac()?)
            }
            EspCipher::Null => Cipher::Null(mac()?),
        };
        Ok(Self { cipher, extended: algorithms.extended_sequence_numbers })
    }

    /// Keys the integrity algorithm of an AH SA, whose packets reach from the IP header to their end.
    ///
    /// # Errors
    /// [`TransformError`] when there is encryption, or algorithm and key do not fit together.
    pub fn authentication_header(
        algorithms: EspAlgorithms,
        integrity_key: &Secret<Vec<u8>>,
    ) -> Result<Self, TransformError> {
        if algorithms.cipher != EspCipher::Null || !algorithms.is_sound() {
            return Err(TransformError::Unsound(algorithms));
        }
        let (wanted, given) = (algorithms.integrity.key_len(), integrity_key.expose().len());
        let mac = Mac::new(algorithms.integrity, integrity_key.expose());
        let mac = mac.ok_or(TransformError::KeyLength { which: "integrity", wanted, given })?;
        Ok(Self { cipher: Cipher::Ah(Box::new(mac)), extended: algorithms.extended_sequence_numbers })
    }

    /// Who can take its frames together with those of other SAs.
    #[inline]
    fn batching(&self) -> Batching {
        match &self.cipher {
            Cipher::Gcm(gcm) => Batching::Gcm(gcm.engine()),
            Cipher::ChaCha(_, together) => Batching::ChaCha(together.engine()),
            Cipher::Cbc(_, _, Some(together)) => Batching::CbcHmac(together.engine()),
            Cipher::Aead(_)
            | Cipher::Uncommon(_)
            | Cipher::Gmac(_)
            | Cipher::Cbc(_, _, None)
            | Cipher::Ctr(..)
            | Cipher::Null(_)
            | Cipher::Ah(_) => Batching::OneByOne,
        }
    }

    /// Seals consecutive frames of one SA.
    fn seal_run(&self, frames: &mut [OutboundFrame], memory: &mut [u8]) {
        // Sealing twice would take the encryption off again.
        for frame in frames.iter_mut().filter(|frame| !frame.is_sealed) {
            frame.is_sealed = self.seal(frame.span().of_mut(memory), frame.sequence).is_ok();
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
        self.write_iv(packet, sequence).and_then(|()| self.seal_with_iv(packet, sequence)).ok_or(DropReason::Crypto)
    }

    /// Fills in the IV.
    fn write_iv(&self, packet: &mut [u8], sequence: u64) -> Option<()> {
        let place = packet.get_mut(ESP_HEADER_LEN..)?;
        match &self.cipher {
            Cipher::Aead(_)
            | Cipher::ChaCha(..)
            | Cipher::Gcm(_)
            | Cipher::Uncommon(_)
            | Cipher::Gmac(_)
            | Cipher::Ctr(..) => {
                *place.first_chunk_mut()? = sequence.to_be_bytes();
            }
            Cipher::Cbc(cbc, ..) => *place.first_chunk_mut()? = cbc.iv(sequence),
            Cipher::Null(_) | Cipher::Ah(_) => {}
        }
        Some(())
    }

    /// Seals under the IV that stands in the packet. `None` where there is no room.
    fn seal_with_iv(&self, packet: &mut [u8], sequence: u64) -> Option<()> {
        let high = self.implicit_high(sequence);
        let behind = high.as_slice().as_flattened();
        match &self.cipher {
            Cipher::Aead(aead) | Cipher::ChaCha(aead, _) => aead.seal(packet, &self.associated_data(packet, sequence)?),
            Cipher::Uncommon(aead) => aead.seal(packet, &self.associated_data(packet, sequence)?),
            Cipher::Gcm(gcm) => gcm.seal(packet, high),
            Cipher::Gmac(gmac) => gmac.seal(packet, high),
            Cipher::Cbc(cbc, mac, _) => {
                cbc.encrypt(packet, mac.len())?;
                mac.append(packet, behind)
            }
            Cipher::Ctr(ctr, mac) => {
                ctr.apply(packet, mac.len())?;
                mac.append(packet, behind)
            }
            Cipher::Null(mac) => mac.append(packet, behind),
            Cipher::Ah(mac) => ah::seal(mac, packet, behind),
        }
    }

    /// Verifies `packet`, which reaches from the SPI to the end of the ICV, then decrypts it in place
    /// (R4303-3.4.4.1-1).
    ///
    /// # Errors
    /// [`DropReason::BadIcv`]; the packet's content is undefined then. [`DropReason::Short`] when it has no room for IV and
    /// ICV or is no multiple of the cipher's block.
    pub fn open(&self, packet: &mut [u8], sequence: u64) -> Result<Authentic, DropReason> {
        let high = self.implicit_high(sequence);
        let behind = high.as_slice().as_flattened();
        let covered = |packet: &[u8]| self.associated_data(packet, sequence).ok_or(DropReason::Short);
        match &self.cipher {
            Cipher::Aead(aead) | Cipher::ChaCha(aead, _) => aead.open(packet, &covered(packet)?)?,
            Cipher::Uncommon(aead) => aead.open(packet, &covered(packet)?)?,
            Cipher::Gcm(gcm) => gcm.open(packet, high)?,
            Cipher::Gmac(gmac) => gmac.open(packet, high)?,
            Cipher::Cbc(cbc, mac, _) => {
                mac.verify(packet, behind)?;
                cbc.decrypt(packet, mac.len()).ok_or(DropReason::Short)?;
            }
            Cipher::Ctr(ctr, mac) => {
                mac.verify(packet, behind)?;
                ctr.apply(packet, mac.len()).ok_or(DropReason::Short)?;
            }
            Cipher::Null(mac) => mac.verify(packet, behind)?,
            Cipher::Ah(mac) => ah::verify(mac, packet, behind)?,
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

/// Seals all frames of a batch. Frames that follow each other are handed together to what can seal them together: an engine that
/// takes packets of many SAs, or the transform of their SA.
pub(crate) fn seal_batch<'k>(
    frames: &mut [OutboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    let together = |one: &OutboundFrame, next: &OutboundFrame| are_together(one.sa, next.sa, &transform_of);
    for run in frames.chunk_by_mut(together) {
        let Some(transform) = run.first().and_then(|frame| transform_of(frame.sa)) else { continue };
        match transform.batching() {
            Batching::Gcm(engine) => gcm::seal_run(engine, run, memory, &transform_of),
            Batching::CbcHmac(engine) if run.len() >= WORTHWHILE => {
                side_by_side::seal_run(engine, run, memory, &transform_of);
            }
            Batching::ChaCha(engine) if run.len() >= WORTHWHILE => {
                side_by_side::seal_run(engine, run, memory, &transform_of);
            }
            Batching::CbcHmac(_) | Batching::ChaCha(_) | Batching::OneByOne => {
                for run in run.chunk_by_mut(|one, next| one.sa == next.sa) {
                    if let Some(transform) = run.first().and_then(|frame| transform_of(frame.sa)) {
                        transform.seal_run(run, memory);
                    }
                }
            }
        }
    }
}

/// Opens all admitted frames of a batch; like [`seal_batch`].
pub(crate) fn open_batch<'k>(
    frames: &mut [InboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    let together = |one: &InboundFrame, next: &InboundFrame| are_together(one.sa, next.sa, &transform_of);
    for run in frames.chunk_by_mut(together) {
        let Some(transform) = run.first().and_then(|frame| transform_of(frame.sa)) else { continue };
        match transform.batching() {
            Batching::Gcm(engine) => gcm::open_run(engine, run, memory, &transform_of),
            Batching::CbcHmac(engine) if run.len() >= WORTHWHILE => {
                side_by_side::open_run(engine, run, memory, &transform_of);
            }
            Batching::ChaCha(engine) if run.len() >= WORTHWHILE => {
                side_by_side::open_run(engine, run, memory, &transform_of);
            }
            Batching::CbcHmac(_) | Batching::ChaCha(_) | Batching::OneByOne => {
                for run in run.chunk_by_mut(|one, next| one.sa == next.sa) {
                    if let Some(transform) = run.first().and_then(|frame| transform_of(frame.sa)) {
                        transform.open_run(run, memory);
                    }
                }
            }
        }
    }
}

/// Who can take frames of several SAs at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batching {
    /// Nobody.
    OneByOne,
    /// An engine for AES-GCM.
    Gcm(GcmEngine),
    /// An engine for AES-CBC with HMAC-SHA2-256, when there are some packets.
    CbcHmac(CbcHmacEngine),
    /// An engine for ChaCha20-Poly1305, likewise.
    ChaCha(ChaChaEngine),
}

/// Whether the frames of two SAs that follow each other go the same way.
#[inline]
fn are_together<'k>(one: u32, next: u32, transform_of: impl Fn(u32) -> Option<&'k Transform>) -> bool {
    let batching = |sa| transform_of(sa).map(Transform::batching).filter(|batching| *batching != Batching::OneByOne);
    one == next || batching(one).is_some_and(|one| Some(one) == batching(next))
}

/// The engine for AES-GCM with ICVs of full length, where there is one and it may be used.
fn gcm_engine(choice: CryptoEngine, cipher: EspCipher) -> Option<GcmEngine> {
    let is_gcm = matches!(cipher, EspCipher::AesGcm16 { .. });
    if is_gcm && choice == CryptoEngine::Auto { GcmEngine::detect().engine } else { None }
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
