//! Links within the process: what one end writes, the other one reads, without a system call for the frame.
//!
//! The ends find each other by the number of their link, whichever dataplane of the process opens them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use espdp_api::InterfaceName;
use rustix::event::{EventfdFlags, eventfd};

use super::device::DeviceError;

/// One end of a link. Frames that nobody reads wait, as many as fit.
#[derive(Debug)]
pub(crate) struct MemoryPort {
    number: u32,
    side: usize,
    incoming: Arc<Lane>,
    outgoing: Arc<Lane>,
}

/// One direction of a link.
#[derive(Debug)]
struct Lane {
    queue: Mutex<Queue>,
    /// Readable while the queue is not empty.
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    octets: usize,
    /// Whether there is somebody who reads.
    is_read: bool,
}

/// A link that has at least one end.
#[derive(Debug)]
struct Link {
    /// The lane that each side reads from.
    lanes: [Arc<Lane>; 2],
    taken: [bool; 2],
}

static LINKS: Mutex<BTreeMap<u32, Link>> = Mutex::new(BTreeMap::new());

impl MemoryPort {
    /// Octets that may wait in one direction: about as many as in a socket.
    const MOST_WAITING: usize = 4 << 20;

    /// Opens an end of link `number` for the interface `name`.
    pub(crate) fn open(name: &InterfaceName, number: u32) -> Result<Self, DeviceError> {
        let failed = |source| DeviceError { step: "open a memory link for", name: name.clone(), source };
        let mut links = lock(&LINKS);
        if let std::collections::btree_map::Entry::Vacant(place) = links.entry(number) {
            let lanes = [Lane::new().map_err(failed)?, Lane::new().map_err(failed)?];
            place.insert(Link { lanes: lanes.map(Arc::new), taken: [false; 2] });
        }
        let both_taken = || failed(io::Error::new(io::ErrorKind::AddrInUse, format!("link {number} has two ends")));
        let link = links.get_mut(&number).ok_or_else(both_taken)?;
        let side = link.taken.iter().position(|taken| !taken).ok_or_else(both_taken)?;
        link.taken[side] = true;
        let (incoming, outgoing) = (Arc::clone(&link.lanes[side]), Arc::clone(&link.lanes[1 - side]));
        lock(&incoming.queue).is_read = true;
        Ok(Self { number, side, incoming, outgoing })
    }

    /// Reads one frame with its vnet header; `None` when none is waiting.
    pub(crate) fn read<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let frame = self.incoming.take()?;
        let space = buffer.get_mut(..frame.len())?;
        space.copy_from_slice(&frame);
        Some(space)
    }

    /// Writes one frame with its vnet header. Without another end it is lost, as on a link without carrier.
    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        self.outgoing.put(pieces)
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        let mut links = lock(&LINKS);
        let mut queue = lock(&self.incoming.queue);
        queue.is_read = false;
        let is_silent = queue.frames.is_empty();
        (queue.frames, queue.octets) = (VecDeque::new(), 0);
        if !is_silent {
            self.incoming.silence();
        }
        if let Some(link) = links.get_mut(&self.number) {
            link.taken[self.side] = false;
            if link.taken == [false; 2] {
                links.remove(&self.number);
            }
        }
    }
}

impl AsFd for MemoryPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.bell.as_fd()
    }
}

impl Lane {
    fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Mutex::default(), bell })
    }

    fn put(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut queue = lock(&self.queue);
        if !queue.is_read {
            return Err(io::Error::from(io::ErrorKind::NotConnected));
        }
        if queue.octets + len > MemoryPort::MOST_WAITING {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        let mut frame = Vec::with_capacity(len);
        for piece in pieces {
            frame.extend_from_slice(piece);
        }
        if queue.frames.is_empty() {
            rustix::io::write(&self.bell, &1u64.to_ne_bytes())?;
        }
        queue.octets += len;
        queue.frames.push_back(frame);
        Ok(())
    }

    fn take(&self) -> Option<Vec<u8>> {
        let mut queue = lock(&self.queue);
        let frame = queue.frames.pop_front()?;
        queue.octets -= frame.len();
        if queue.frames.is_empty() {
            self.silence();
        }
        Some(frame)
    }

    fn silence(&self) {
        if let Err(error) = rustix::io::read(&self.bell, &mut [0; 8]) {
            tracing::debug!(%error, "the bell of a memory link was silent already");
        }
    }
}

/// No one leaves these locks in a state that is wrong, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn end(number: u32) -> MemoryPort {
        MemoryPort::open(&InterfaceName::new("mem0").unwrap(), number).unwrap()
    }

    fn is_readable(port: &MemoryPort) -> bool {
        poll(&mut [PollFd::new(port, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    fn write(port: &MemoryPort, octets: &[u8]) -> io::Result<()> {
        let (head, tail) = octets.split_at(octets.len() / 2);
        port.write(&[IoSlice::new(head), IoSlice::new(tail)])
    }

    #[test]
    fn what_one_end_writes_the_other_one_reads_in_order() {
        let (a, b) = (end(1), end(1));
        let mut buffer = [0; 64];
        assert!(!is_readable(&b) && b.read(&mut buffer).is_none());
        for text in [b"first", b"other"] {
            write(&a, text).unwrap();
        }
        write(&b, b"back").unwrap();
        assert!(is_readable(&b));
        assert_eq!(b.read(&mut buffer), Some(&b"first"[..]));
        assert!(is_readable(&b));
        assert_eq!(b.read(&mut buffer), Some(&b"other"[..]));
        assert!(!is_readable(&b) && b.read(&mut buffer).is_none());
        assert_eq!(a.read(&mut buffer), Some(&b"back"[..]));
    }

    #[test]
    fn a_link_has_two_ends_and_a_closed_end_can_be_opened_again() {
        let (a, b) = (end(2), end(2));
        let third = MemoryPort::open(&InterfaceName::new("mem0").unwrap(), 2);
        assert!(third.unwrap_err().to_string().contains("link 2 has two ends"));
        write(&a, b"for nobody").unwrap();
        drop(b);
        assert_eq!(write(&a, b"lost").unwrap_err().kind(), io::ErrorKind::NotConnected);
        let b = end(2);
        assert!(!is_readable(&b), "what the old end did not read is gone");
        write(&a, b"new").unwrap();
        assert_eq!(b.read(&mut [0; 8]), Some(&b"new"[..]));
    }

    #[test]
    fn what_nobody_reads_is_bounded() {
        let (a, b) = (end(3), end(3));
        let frame = vec![0; 60_000];
        let written = (0..1000).take_while(|_| write(&a, &frame).is_ok()).count();
        assert_eq!(written, MemoryPort::MOST_WAITING / frame.len());
        let mut buffer = vec![0; 60_000];
        assert!(b.read(&mut buffer).is_some());
        write(&a, &frame).unwrap();
    }
}
