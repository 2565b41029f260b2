//! ChaCha20-Poly1305 (RFC 7634) by an engine that puts the packets of a batch side by side, whatever their SAs. Where there are
//! few, and one by one, the library is faster: see [`super::Cipher::ChaCha`].

use std::ops::Range;

use esp_engines::chacha20poly1305::{Engine, Job, Key, Refused};
use espdp_api::{CryptoEngine, EspCipher};

use super::{Authentic, Cipher, Transform};
use crate::DropReason;
use crate::batch::{InboundFrame, OutboundFrame, Stage};

/// What the engine needs of an SA.
#[derive(Debug)]
pub(super) struct ChaCha {
    engine: Engine,
    key: Box<Key>,
}

impl ChaCha {
    /// `None` where there is no engine, none for this cipher, or none is allowed.
    pub(super) fn new(choice: CryptoEngine, cipher: EspCipher, key_and_salt: &[u8]) -> Option<Self> {
        if choice != CryptoEngine::Auto || cipher != EspCipher::ChaCha20Poly1305 {
            return None;
        }
        let engine = Engine::detect().engine?;
        let (key, salt) = key_and_salt.split_last_chunk()?;
        Some(Self { engine, key: engine.key(key.try_into().ok()?, *salt) })
    }

    /// Who computes.
    #[inline]
    pub(super) fn engine(&self) -> Engine {
        self.engine
    }
}

/// Seals those of consecutive frames that are not sealed yet; all have transforms of `engine`.
pub(super) fn seal_run<'k>(
    engine: Engine,
    frames: &mut [OutboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    let jobs = frames.iter_mut().filter(|frame| !frame.is_sealed).filter_map(|frame| {
        let job = job(transform_of(frame.sa)?, frame.span().range(), frame.sequence)?;
        Some((job, frame.sequence, frame))
    });
    engine.seal(memory, jobs, |frame, result| frame.is_sealed = result.is_ok());
}

/// Opens those of consecutive frames that were admitted; all have transforms of `engine`.
pub(super) fn open_run<'k>(
    engine: Engine,
    frames: &mut [InboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    let jobs = frames.iter_mut().filter_map(|frame| {
        let Stage::Admitted { sequence } = frame.stage else { return None };
        let job = job(transform_of(frame.sa)?, frame.span.long().range(), sequence)?;
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
fn job(transform: &Transform, span: Range<usize>, sequence: u64) -> Option<Job<'_>> {
    let Cipher::ChaCha(_, side_by_side) = &transform.cipher else { return None };
    let high = transform.implicit_high(sequence).map(u32::from_be_bytes);
    Some(Job { key: &side_by_side.key, span, high })
}
