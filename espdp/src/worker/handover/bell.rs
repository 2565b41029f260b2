//! The bell that tells a worker of parcels.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd that is written once until it is heard, so that handing over to a busy worker is no system call.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: Rung<AtomicBool>,
    descriptor: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { rung: Rung(AtomicBool::new(false)), descriptor })
    }

    /// Tells the worker that something is there; to be called after it was put there.
    pub(super) fn ring(&self) {
        if self.rung.set()
            && let Err(error) = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes())
        {
            tracing::debug!(%error, "the bell rings already");
        }
    }

    /// Silences the bell; to be called before the worker looks what is there.
    pub(super) fn hush(&self) {
        if let Err(error) = rustix::io::read(&self.descriptor, &mut [0; 8]) {
            tracing::trace!(%error, "the bell fell silent");
        }
        self.rung.clear();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether the bell was rung and not yet heard.
///
/// Nothing is missed: both sides exchange the flag in one step, and these steps have an order. If `set` finds it true, the `clear`
/// that comes later sees, through it, all that was put there before; if it finds it false, the descriptor is written, and the worker
/// wakes again.
#[derive(Debug)]
struct Rung<F>(F);

impl<F: Flag> Rung<F> {
    /// Whether the descriptor has to be written.
    fn set(&self) -> bool {
        !self.0.exchange(true)
    }

    fn clear(&self) {
        self.0.exchange(false);
    }
}

/// An atomic flag.
trait Flag {
    /// Writes `value`, with all that was written before, and reads what was there, with all that was written before that.
    fn exchange(&self, value: bool) -> bool;
}

impl Flag for AtomicBool {
    fn exchange(&self, value: bool) -> bool {
        self.swap(value, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering as LoomOrdering};

    use super::*;

    impl Flag for loom::sync::atomic::AtomicBool {
        fn exchange(&self, value: bool) -> bool {
            self.swap(value, LoomOrdering::AcqRel)
        }
    }

    /// A bell whose descriptor is a counter, and a ring whose parcels are only counted.
    struct Model {
        rung: Rung<loom::sync::atomic::AtomicBool>,
        written: AtomicUsize,
        parcels: AtomicUsize,
    }

    impl Model {
        fn hand_over(&self) {
            // As a ring of one producer publishes; several of them stand for several lanes.
            self.parcels.fetch_add(1, LoomOrdering::Release);
            if self.rung.set() {
                self.written.fetch_add(1, LoomOrdering::Relaxed);
            }
        }

        /// What the worker does when its descriptor is readable; what it has seen then.
        fn wake(&self) -> Option<usize> {
            if self.written.swap(0, LoomOrdering::Relaxed) == 0 {
                return None;
            }
            self.rung.clear();
            Some(self.parcels.load(LoomOrdering::Relaxed))
        }
    }

    #[test]
    fn a_worker_never_sleeps_on_a_parcel_whatever_the_order_of_events() {
        loom::model(|| {
            let model = Arc::new(Model {
                rung: Rung(loom::sync::atomic::AtomicBool::new(false)),
                written: AtomicUsize::new(0),
                parcels: AtomicUsize::new(0),
            });
            let producers: Vec<_> = (0..2)
                .map(|_| {
                    let model = Arc::clone(&model);
                    loom::thread::spawn(move || model.hand_over())
                })
                .collect();
            let mut seen = model.wake().unwrap_or(0);
            for producer in producers {
                producer.join().unwrap();
            }
            // Whatever it has not seen by now rings.
            while let Some(now) = model.wake() {
                seen = now;
            }
            assert_eq!(seen, 2);
        });
    }

    #[test]
    fn a_bell_is_written_once_until_it_is_heard() {
        let bell = Bell::new().unwrap();
        bell.ring();
        bell.ring();
        let mut octets = [0; 8];
        rustix::io::read(&bell.descriptor, &mut octets).unwrap();
        assert_eq!(u64::from_ne_bytes(octets), 1);
        bell.hush();
        bell.ring();
        rustix::io::read(&bell.descriptor, &mut octets).unwrap();
    }
}
