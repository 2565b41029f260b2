//! AES-GCM (RFC 4106) by an engine that takes all packets of a batch at once, whatever their SAs.

use esp_engines::gcm::{Engine, Job, Key, Refused};

use super::{Authentic, ESP_HEADER_LEN, Transform};
use crate::DropReason;
use crate::batch::{InboundFrame, OutboundFrame, Stage};

/// A keyed AES-GCM. The nonce is made as in [`super::Aead`].
#[derive(Debug)]
pub(super) struct Gcm {
    engine: Engine,
    key: Box<Key>,
}

const SALT_LEN: usize = 4;

impl Gcm {
    /// `None` when the key's length is wrong.
    pub(super) fn new(engine: Engine, key_and_salt: &[u8]) -> Option<Self> {
        let (key, salt) = key_and_salt.split_last_chunk::<SALT_LEN>()?;
        Some(Self { engine, key: engine.key(key, *salt)? })
    }

    /// Who computes.
    #[inline]
    pub(super) fn engine(&self) -> Engine {
        self.engine
    }

    /// Encrypts one packet under the IV that stands in it.
    pub(super) fn seal(&self, packet: &mut [u8], high: Option<[u8; 4]>) -> Option<()> {
        let iv = u64::from_be_bytes(*packet.get(ESP_HEADER_LEN..)?.first_chunk()?);
        let job = Job { key: &self.key, span: 0..packet.len(), high: high.map(u32::from_be_bytes) };
        let mut sealed = None;
        self.engine.seal(packet, [(job, iv, ())].into_iter(), |(), result| sealed = result.ok());
        sealed
    }

    /// Opens one packet.
    pub(super) fn open(&self, packet: &mut [u8], high: Option<[u8; 4]>) -> Result<(), DropReason> {
        let job = Job { key: &self.key, span: 0..packet.len(), high: high.map(u32::from_be_bytes) };
        let mut opened = Err(DropReason::Crypto);
        self.engine.open(packet, [(job, ())].into_iter(), |(), result| opened = result.map_err(reason));
        opened
    }
}

/// Seals those of consecutive frames that are not sealed yet; all have transforms of `engine`.
pub(super) fn seal_run<'k>(
    engine: Engine,
    frames: &mut [OutboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    let fetch =
        |frames: &[OutboundFrame]| prefetch(frames.iter().map(|frame| (frame.sa, frame.span().len)), &transform_of);
    let mut known = Known::new(&transform_of);
    in_steps(
        frames,
        |frame| frame.sa,
        fetch,
        |frames| {
            let jobs = frames.iter_mut().filter(|frame| !frame.is_sealed).filter_map(|frame| {
                let job = job(known.of(frame.sa)?, frame.span().range(), frame.sequence)?;
                Some((job, frame.sequence, frame))
            });
            engine.seal(memory, jobs, |frame, result| frame.is_sealed = result.is_ok());
        },
    );
}

/// Opens those of consecutive frames that were admitted; all have transforms of `engine`.
pub(super) fn open_run<'k>(
    engine: Engine,
    frames: &mut [InboundFrame],
    memory: &mut [u8],
    transform_of: impl Fn(u32) -> Option<&'k Transform>,
) {
    let fetch =
        |frames: &[InboundFrame]| prefetch(frames.iter().map(|frame| (frame.sa, frame.span.long().len)), &transform_of);
    let mut known = Known::new(&transform_of);
    in_steps(
        frames,
        |frame| frame.sa,
        fetch,
        |frames| {
            let jobs = frames.iter_mut().filter_map(|frame| {
                let Stage::Admitted { sequence } = frame.stage else { return None };
                let job = job(known.of(frame.sa)?, frame.span.long().range(), sequence)?;
                Some((job, (frame, sequence)))
            });
            engine.open(memory, jobs, |(frame, sequence), result| {
                frame.stage = match result {
                    Ok(()) => Stage::Opened(Authentic { sequence }),
                    Err(refused) => Stage::Refused(reason(refused)),
                };
            });
        },
    );
}

/// The transform of the packet before, which most packets share.
struct Known<'k, F> {
    find: F,
    last: Option<(u32, &'k Transform)>,
}

impl<'k, F: Fn(u32) -> Option<&'k Transform>> Known<'k, F> {
    fn new(find: F) -> Self {
        Self { find, last: None }
    }

    #[inline]
    fn of(&mut self, sa: u32) -> Option<&'k Transform> {
        match self.last {
            Some((last, transform)) if last == sa => Some(transform),
            Some(_) | None => {
                let transform = (self.find)(sa)?;
                self.last = Some((sa, transform));
                Some(transform)
            }
        }
    }
}

/// Works on some frames while the processor fetches what the next ones need. All first frames of one SA are one step: they need
/// nothing more, and each step has to get going anew.
fn in_steps<F>(frames: &mut [F], sa_of: impl Fn(&F) -> u32, fetch: impl Fn(&[F]), mut work: impl FnMut(&mut [F])) {
    let step = |frames: &[F]| {
        let first = frames.first().map(&sa_of);
        let of_one_sa = frames.iter().take_while(|frame| Some(sa_of(frame)) == first).count();
        of_one_sa.max(STEP).min(frames.len())
    };
    let (mut now, mut later) = frames.split_at_mut(step(frames));
    while !now.is_empty() {
        let (next, rest) = later.split_at_mut(step(later));
        fetch(next);
        work(now);
        (now, later) = (next, rest);
    }
}

/// Frames whose keys are fetched together: enough that they are there in time, and few enough that they stay in a first-level cache.
const STEP: usize = 16;

/// Fetches the keys for packets of these SAs and lengths; once for packets of one SA in a row.
fn prefetch<'k>(packets: impl Iterator<Item = (u32, usize)>, transform_of: impl Fn(u32) -> Option<&'k Transform>) {
    let mut last = None;
    for (sa, octets) in packets {
        if last != Some(sa)
            && let Some(super::Cipher::Gcm(gcm)) = transform_of(sa).map(|transform| &transform.cipher)
        {
            gcm.key.prefetch(octets);
        }
        last = Some(sa);
    }
}

#[inline]
fn job(transform: &Transform, span: std::ops::Range<usize>, sequence: u64) -> Option<Job<'_>> {
    let super::Cipher::Gcm(gcm) = &transform.cipher else { return None };
    let high = transform.implicit_high(sequence).map(u32::from_be_bytes);
    Some(Job { key: &gcm.key, span, high })
}

fn reason(refused: Refused) -> DropReason {
    match refused {
        Refused::Span => DropReason::Short,
        Refused::Icv => DropReason::BadIcv,
    }
}
