//! The way of captured packets from the workers to whoever writes them down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use espdp_api::{CapturedPacket, Viewpoint};
use espdp_core::CaptureSink;

/// Takes captured packets, as far as there is room; nobody ever waits for that. When all clones are gone, [`Captured`] ends.
#[derive(Debug)]
pub struct CaptureQueue {
    packets: SyncSender<CapturedPacket>,
    shared: Arc<Shared>,
    /// What this clone had no room for; the others learn of it when it is dropped.
    lost: BTreeMap<Viewpoint, u64>,
}

/// The other end: packets in the order in which they were put in. Waits for the next one.
#[derive(Debug)]
pub struct Captured {
    packets: Receiver<CapturedPacket>,
    shared: Arc<Shared>,
}

/// What both ends know.
#[derive(Debug, Default)]
struct Shared {
    /// Octets that wait.
    octets: AtomicUsize,
    /// Packets lost so far, of all clones.
    lost: AtomicU64,
    /// Where, of the clones that are gone.
    by_viewpoint: Mutex<BTreeMap<Viewpoint, u64>>,
}

impl CaptureQueue {
    /// Packets that may wait.
    const PACKETS: usize = 8192;
    /// Their octets.
    const OCTETS: usize = 16 * 1024 * 1024;

    /// Both ends of a queue.
    #[must_use]
    pub fn new() -> (Self, Captured) {
        let (sender, receiver) = sync_channel(Self::PACKETS);
        let shared = Arc::new(Shared::default());
        let queue = Self { packets: sender, shared: Arc::clone(&shared), lost: BTreeMap::new() };
        (queue, Captured { packets: receiver, shared })
    }

    /// How many packets were lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Clone for CaptureQueue {
    fn clone(&self) -> Self {
        Self { packets: self.packets.clone(), shared: Arc::clone(&self.shared), lost: BTreeMap::new() }
    }
}

impl Drop for CaptureQueue {
    fn drop(&mut self) {
        let mut all = self.shared.by_viewpoint.lock().unwrap_or_else(PoisonError::into_inner);
        for (viewpoint, packets) in std::mem::take(&mut self.lost) {
            *all.entry(viewpoint).or_default() += packets;
        }
    }
}

impl CaptureSink for CaptureQueue {
    fn has_room(&self, octets: usize) -> bool {
        self.shared.octets.load(Ordering::Relaxed).saturating_add(octets) <= Self::OCTETS
    }

    fn put(&mut self, packet: CapturedPacket) {
        let (octets, viewpoint) = (packet.octets.len(), packet.viewpoint.clone());
        // Before the packet is there, so that whoever takes it never takes off more than was added.
        let waiting = self.shared.octets.fetch_add(octets, Ordering::Relaxed);
        if waiting.saturating_add(octets) > Self::OCTETS || self.packets.try_send(packet).is_err() {
            self.shared.octets.fetch_sub(octets, Ordering::Relaxed);
            self.lose(viewpoint);
        }
    }

    fn lose(&mut self, viewpoint: Viewpoint) {
        self.shared.lost.fetch_add(1, Ordering::Relaxed);
        *self.lost.entry(viewpoint).or_default() += 1;
    }
}

impl Captured {
    /// The next packet if it is there already.
    pub fn next_waiting(&mut self) -> Option<CapturedPacket> {
        let packet = self.packets.try_recv().ok();
        self.make_room_of(packet)
    }

    /// What was lost, by where it was seen; complete when there are no packets any more.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<Viewpoint, u64> {
        self.shared.by_viewpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn make_room_of(&self, packet: Option<CapturedPacket>) -> Option<CapturedPacket> {
        let octets = packet.as_ref().map_or(0, |packet| packet.octets.len());
        self.shared.octets.fetch_sub(octets, Ordering::Relaxed);
        packet
    }
}

impl Iterator for Captured {
    type Item = CapturedPacket;

    fn next(&mut self) -> Option<CapturedPacket> {
        let packet = self.packets.recv().ok();
        self.make_room_of(packet)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use espdp_api::{Direction, Layer};

    use super::*;

    fn packet(octets: usize) -> CapturedPacket {
        CapturedPacket {
            at: SystemTime::UNIX_EPOCH,
            viewpoint: Viewpoint::Outside,
            layer: Layer::Ip,
            direction: Direction::Inbound,
            octets: vec![0; octets],
            len: octets,
            sa: None,
            remark: None,
        }
    }

    #[test]
    fn what_has_no_room_is_counted_where_it_was_seen_and_nobody_waits() {
        let (mut queue, captured) = CaptureQueue::new();
        let mut other = queue.clone();
        for _ in 0..CaptureQueue::PACKETS + 5 {
            queue.put(packet(1));
        }
        other.put(packet(1));
        other.lose(Viewpoint::IkePlain);
        assert_eq!(queue.lost(), 7);
        drop((queue, other));
        let mut captured = captured;
        assert_eq!(captured.by_ref().count(), CaptureQueue::PACKETS);
        assert_eq!(captured.lost(), BTreeMap::from([(Viewpoint::Outside, 6), (Viewpoint::IkePlain, 1)]));
    }

    #[test]
    fn room_is_for_so_many_octets_and_comes_back() {
        let (mut queue, mut captured) = CaptureQueue::new();
        queue.put(packet(CaptureQueue::OCTETS));
        assert!(!queue.has_room(1) && queue.has_room(0));
        queue.put(packet(1));
        assert_eq!(queue.lost(), 1);
        assert!(captured.next_waiting().is_some() && captured.next_waiting().is_none());
        assert!(queue.has_room(CaptureQueue::OCTETS));
    }
}
