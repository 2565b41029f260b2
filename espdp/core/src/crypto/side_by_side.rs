//! Algorithms that an engine computes for the packets of a batch side by side, whatever their SAs: AES-CBC with HMAC-SHA2-256-128
//! (RFC 3602, RFC 4868) and ChaCha20-Poly1305 (RFC 7634). Where there are few, and one by one, the libraries are faster: see
//! [`super::Cipher::Cbc`] and [`super::Cipher::ChaCha`].

use std::ops::Range;

use esp_engines::cbc_hmac::CbcHmac;
use esp_engines::chacha20poly1305::ChaCha20Poly1305;
use esp_engines::gcm::Refused;
use esp_engines::side_by_side::{Engine, Job, Suite};
use espdp_api::{CryptoEngine, EspCipher, EspIntegrity, Secret};

use super::{Authentic, Cipher, Transform};
use crate::DropReason;
use crate::batch::{InboundFrame, OutboundFrame, Stage};

/// What an engine needs of an SA.
#[derive(Debug)]
pub(super) struct SideBySide<S: Suite> {
    engine: Engine<S>,
    key: Box<S::Key>,
}

/// A suite that SAs can have.
pub(super) trait SuiteOfSas: Suite {
    /// What its engine needs of an SA that has it.
    fn of(transform: &Transform) -> Option<&SideBySide<Self>>;
}

impl SideBySide<CbcHmac> {
    /// `None` where there is no engine, none for this integrity, or none is allowed.
    pub(super) fn cbc_hmac(
        choice: CryptoEngine,
        integrity: EspIntegrity,
        encryption_key: &[u8],
        integrity_key: &[u8],
        iv_key: &Secret<[u8; 16]>,
    ) -> Option<Self> {
        if choice != CryptoEngine::Auto || integrity != EspIntegrity::HmacSha2_256_128 {
            return None;
        }
        let engine = Engine::detect().engine?;
        Some(Self { engine, key: engine.key(encryption_key, integrity_key.try_into().ok()?, iv_key.expose())? })
    }
}

impl SideBySide<ChaCha20Poly1305> {
    /// `None` where there is no engine, none for this cipher, or none is allowed.
    pub(super) fn chacha20_poly1305(choice: CryptoEngine, cipher: EspCipher, key_and_salt: &[u8]) -> Option<Self> {
        if choice != CryptoEngine::Auto || cipher != EspCipher::ChaCha20Poly1305 {
            return None;
        }
        let engine = Engine::detect().engine?;
        let (key, salt) = key_and_salt.split_last_chunk()?;
        Some(Self { engine, key: engine.key(key.try_into().ok()?, *salt) })
    }
}

impl<S: Suite> SideBySide<S> {
    /// Who computes.
    #[inline]
    pub(super) fn engine(&self) -> Engine<S> {
        self.engine
    }
}

impl SuiteOfSas for CbcHmac {
    #[inline]
    fn of(transform: &Transform) -> Option<&SideBySide<Self>> {
        if let Cipher::Cbc(_, _, together) = &transform.cipher { together.as_ref() } else { None }
    }
}

impl SuiteOfSas for ChaCha20Poly1305 {
    #[inline]
    fn of(transform: &Transform) -> Option<&SideBySide<Self>> {
        if let Cipher::ChaCha(_, together) = &transform.cipher { Some(together) } else { None }
    }
}

/// Seals those of consecutive frames that are not sealed yet; all have transforms of `engine`.
pub(super) fn seal_run<'k, S: SuiteOfSas>(
    engine: Engine<S>,
    frames: &mut [OutboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    let jobs = frames.iter_mut().filter(|frame| !frame.is_sealed).filter_map(|frame| {
        let job = job::<S>(transform_of(frame.sa)?, frame.span().range(), frame.sequence)?;
        Some((job, frame.sequence, frame))
    });
    engine.seal(memory, jobs, |frame, result| frame.is_sealed = result.is_ok());
}

/// Opens those of consecutive frames that were admitted; all have transforms of `engine`.
pub(super) fn open_run<'k, S: SuiteOfSas>(
    engine: Engine<S>,
    frames: &mut [InboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    let jobs = frames.iter_mut().filter_map(|frame| {
        let Stage::Admitted { sequence } = frame.stage else { return None };
        let job = job::<S>(transform_of(frame.sa)?, frame.span.long().range(), sequence)?;
        Some((job, (frame, sequence)))
    });
    engine.open(memory, jobs, |(frame, sequence), result| {
        frame.stage = match result {
            Ok(()) => Stage::Opened(Authentic { sequence }),
            Err(Refused::Span) => Stage::Refused(DropReason::Short),
            Err(Refused::Icv) => Stage::Refused(DropReason::BadIcv),
        };
    });
}

#[inline]
fn job<S: SuiteOfSas>(transform: &Transform, span: Range<usize>, sequence: u64) -> Option<Job<'_, S::Key>> {
    let high = transform.implicit_high(sequence).map(u32::from_be_bytes);
    Some(Job { key: &S::of(transform)?.key, span, high })
}

#[cfg(test)]
mod tests {
    use espdp_api::{EspAlgorithms, EspCipher, IpsecProtocol};

    use super::super::{open_batch, seal_batch};
    use super::*;
    use crate::batch::PackedOuter;

    /// SAs of which some go to the engine, under the same keys whoever computes, and the octets around the payloads.
    fn sas(choice: CryptoEngine) -> Vec<(Transform, usize)> {
        use EspIntegrity::{HmacSha2_256_128, HmacSha2_512_256, None};
        let kinds = [
            (EspCipher::AesCbc { key_bits: 256 }, HmacSha2_256_128, true),
            (EspCipher::AesCbc { key_bits: 128 }, HmacSha2_256_128, false),
            (EspCipher::AesCbc { key_bits: 256 }, HmacSha2_512_256, true),
            (EspCipher::AesGcm16 { key_bits: 256 }, None, true),
            (EspCipher::AesCbc { key_bits: 192 }, HmacSha2_256_128, true),
            (EspCipher::ChaCha20Poly1305, None, true),
            (EspCipher::ChaCha20Poly1305, None, false),
        ];
        let made = kinds.into_iter().enumerate().map(|(number, (cipher, integrity, extended_sequence_numbers))| {
            let algorithms = EspAlgorithms { cipher, integrity, extended_sequence_numbers };
            let key = |len: usize| Secret::new((0..len).map(|at| (at * 3 + number) as u8).collect());
            let (encryption, integrity) = (key(cipher.key_len() + cipher.salt_len()), key(integrity.key_len()));
            let iv_key = Secret::new([number as u8; 16]);
            let transform = Transform::with_engine(choice, algorithms, &encryption, &integrity, &iv_key).unwrap();
            (transform, 8 + cipher.iv_len() + algorithms.icv_len())
        });
        made.collect()
    }

    /// Frames of all SAs, in runs of every length up to 40, and the memory they are in.
    fn frames(sas: &[(Transform, usize)]) -> (Vec<OutboundFrame>, Vec<u8>) {
        let (mut frames, mut memory) = (Vec::new(), Vec::new());
        for run in 1..=40 {
            for at in 0..run {
                // Either two SAs of the engine take turns, or all frames of the run are of one SA.
                let sa = if run % 7 == 0 { [[0, 4], [5, 6]][run % 2][at % 2] } else { run % 6 };
                let len = sas[sa].1 + 16 * (run * at % 90);
                let (offset, sequence) = (memory.len() as u32, (run as u64) << 32 | at as u64);
                let (outer, own_header, is_whole, is_sealed) = (PackedOuter::default(), 0, false, false);
                let (sa, short) = (sa as u32, len as u16);
                frames.push(OutboundFrame { sequence, outer, sa, offset, len: short, own_header, is_whole, is_sealed });
                memory.extend((0..len).map(|at| at as u8));
            }
        }
        (frames, memory)
    }

    /// The sequence number of a packet that was opened.
    fn opened(stage: &Stage) -> Option<u64> {
        if let Stage::Opened(proof) = stage { Some(proof.sequence()) } else { None }
    }

    #[test]
    fn batches_come_out_of_the_engine_as_out_of_the_libraries() {
        let (engine, library) = (sas(CryptoEngine::Auto), sas(CryptoEngine::Library));
        let by = |sas: &'_ [(Transform, usize)]| -> (Vec<u8>, Vec<u8>, Vec<Option<u64>>) {
            let transform_of = |sa: u32| sas.get(sa as usize).map(|(transform, _)| transform);
            let (mut sent, mut memory) = frames(sas);
            seal_batch(&mut sent, &mut memory, transform_of);
            assert!(sent.iter().all(|frame| frame.is_sealed));
            let sealed = memory.clone();
            let mut received: Vec<InboundFrame> = Vec::new();
            for (number, frame) in sent.iter().enumerate() {
                // Some have a wrong bit, and some a wrong length.
                let mut span = frame.span();
                memory[span.offset + 9] ^= u8::from(number % 9 == 0);
                span.len -= usize::from(number % 31 == 0);
                received.push(InboundFrame {
                    span: span.into(),
                    stage: Stage::Admitted { sequence: frame.sequence },
                    sa: frame.sa,
                    origin: 0,
                    header_len: 0,
                    protocol: IpsecProtocol::Esp,
                });
            }
            open_batch(&mut received, &mut memory, transform_of);
            let outcomes: Vec<_> = received.iter().map(|frame| opened(&frame.stage)).collect();
            let authentic = received.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_some());
            let opened = authentic.flat_map(|(frame, _)| frame.span.of(&memory).to_vec()).collect();
            (sealed, opened, outcomes)
        };
        let ((sealed, opened, outcomes), expected) = (by(&engine), by(&library));
        assert!(sealed == expected.0, "sealed alike");
        assert!(opened == expected.1, "opened alike");
        assert_eq!(outcomes, expected.2);
        assert!(outcomes.contains(&None) && outcomes.iter().any(Option::is_some));
    }
}
