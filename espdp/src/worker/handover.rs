//! Packets that another worker has the SA for, on their way there.
//!
//! ```text
//!            parcels with packets
//!           ┌────────────────────▶┐
//!  worker 0 │                     │ worker 1       and the same the other way, for each pair of workers
//!           └◀────────────────────┘
//!            the same parcels, empty
//! ```
//!
//! Packets are copied into a parcel while a worker reads, and the parcel leaves when it is full or the worker is done reading; the
//! bell is rung once until it is heard. The packets of a flow come through one queue of their device and one lane, so they stay in
//! order. Both rings have room for all parcels of a lane. What finds no parcel, or too much under way, is lost and counted.

mod bell;

use espdp_api::{WorkerId, Workers};
use espdp_core::{InterfaceId, Origin, VnetHeader};
use rtrb::{Consumer, Producer, RingBuffer};

pub(super) use bell::Bell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A worker's ends of the lanes to and from all others.
#[derive(Debug)]
pub(crate) struct Handover {
    workers: Workers,
    own: WorkerId,
    /// By worker; `None` for this one.
    outgoing: Vec<Option<Outgoing>>,
    incoming: Vec<Incoming>,
    bell: Arc<Bell>,
}

/// A packet that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cargo {
    /// It came from the inside of an interface.
    Inside {
        interface: InterfaceId,
        vnet: VnetHeader,
        /// How many workers had it before.
        hops: u8,
    },
    /// It is ESP that came in UDP.
    Esp(Origin),
}

/// Several packets.
#[derive(Debug)]
pub(super) struct Parcel {
    octets: Vec<u8>,
    /// What the packets are, and their octets.
    items: Vec<(Cargo, usize)>,
}

#[derive(Debug)]
struct Outgoing {
    full: Producer<Parcel>,
    empty: Consumer<Parcel>,
    /// Empty parcels at hand; the one that came back last is the next, since it is in the cache.
    spare: Vec<Parcel>,
    /// Parcels that exist.
    made: usize,
    /// Octets that are under way.
    under_way: usize,
    /// The one that is being filled.
    current: Option<Parcel>,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Incoming {
    full: Consumer<Parcel>,
    empty: Producer<Parcel>,
}

impl Handover {
    /// Those of all workers, in order.
    pub(crate) fn between(workers: Workers) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for own in workers.ids() {
            let bell = Arc::new(Bell::new()?);
            all.push(Self { workers, own, outgoing: Vec::new(), incoming: Vec::new(), bell });
        }
        for from in workers.ids() {
            for to in workers.ids() {
                if from == to {
                    all[from.index()].outgoing.push(None);
                    continue;
                }
                let (full, full_end) = RingBuffer::new(Parcel::MOST);
                let (empty_end, empty) = RingBuffer::new(Parcel::MOST);
                let bell = Arc::clone(&all[to.index()].bell);
                all[from.index()].outgoing.push(Some(Outgoing::new(full, empty, bell)));
                all[to.index()].incoming.push(Incoming { full: full_end, empty: empty_end });
            }
        }
        Ok(all)
    }

    /// Whether there is nobody else.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.incoming.is_empty()
    }

    /// Adds a packet to the parcel for another worker; whether there was room. It leaves with the next [`Self::flush`] at the latest.
    #[must_use]
    pub(super) fn add(&mut self, to: WorkerId, cargo: Cargo, packet: &[u8]) -> bool {
        let lane = self.outgoing.get_mut(to.index()).and_then(Option::as_mut);
        lane.is_some_and(|lane| lane.add(cargo, packet))
    }

    /// Takes the datagrams out of `octets`, `stride` octets each and the last one perhaps shorter, that are ESP for other workers, and
    /// hands those over. Returns how many octets are left, and how many packets found no room.
    pub(super) fn sift(&mut self, octets: &mut [u8], stride: usize, origin: Origin) -> (usize, usize) {
        let (mut kept, mut lost, mut at) = (0, 0, 0);
        while at < octets.len() {
            let end = octets.len().min(at + stride.max(1));
            let datagram = at..end;
            at = end;
            let owner = octets.get(datagram.clone()).and_then(|octets| self.owner_of(octets));
            match owner.filter(|owner| *owner != self.own) {
                Some(owner) => {
                    let taken = octets.get(datagram).is_some_and(|packet| self.add(owner, Cargo::Esp(origin), packet));
                    lost += usize::from(!taken);
                }
                None => {
                    let len = datagram.len();
                    octets.copy_within(datagram, kept);
                    kept += len;
                }
            }
        }
        (kept, lost)
    }

    /// Who has the SA of an ESP packet; nobody in particular that of what is none: IKE behind four zero octets, and what is shorter.
    fn owner_of(&self, datagram: &[u8]) -> Option<WorkerId> {
        let spi = u32::from_be_bytes(*datagram.first_chunk()?);
        (spi != 0).then(|| self.workers.of_spi(spi))
    }

    /// Sends all parcels that are under way.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.outgoing.iter_mut().flatten().for_each(Outgoing::flush);
    }

    /// To be called when the bell rings, before [`Self::next`].
    pub(super) fn hush(&self) {
        self.bell.hush();
    }

    /// The next parcel that came, of the lane with this number.
    pub(super) fn next(&mut self, lane: usize) -> Option<Parcel> {
        self.incoming.get_mut(lane)?.full.pop().ok()
    }

    /// Gives a parcel back that came by this lane.
    pub(super) fn give_back(&mut self, lane: usize, parcel: Parcel) {
        // There is room for all parcels of the lane. Should the other end have gone, the parcel goes, too.
        if let Some(lane) = self.incoming.get_mut(lane)
            && let Err(error) = lane.empty.push(parcel)
        {
            tracing::debug!(%error, "a parcel of another lane came back");
        }
    }

    /// How many lanes lead here.
    pub(super) fn lanes(&self) -> usize {
        self.incoming.len()
    }

    /// Has [`Self::hush`] called again soon, since more parcels wait than one turn may take.
    pub(super) fn come_back(&self) {
        self.bell.ring();
    }

    /// Whether more parcels wait.
    pub(super) fn has_more(&self) -> bool {
        self.incoming.iter().any(|lane| !lane.full.is_empty())
    }
}

impl AsFd for Handover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Outgoing {
    fn new(full: Producer<Parcel>, empty: Consumer<Parcel>, bell: Arc<Bell>) -> Self {
        Self { full, empty, spare: Vec::new(), made: 0, under_way: 0, current: None, bell }
    }

    fn add(&mut self, cargo: Cargo, packet: &[u8]) -> bool {
        if self.current.as_ref().is_some_and(|parcel| !parcel.has_room(packet.len())) {
            self.flush();
        }
        if self.current.is_none() {
            self.current = self.take_or_make();
        }
        let Some(parcel) = self.current.as_mut().filter(|parcel| parcel.has_room(packet.len())) else { return false };
        parcel.octets.extend_from_slice(packet);
        parcel.items.push((cargo, packet.len()));
        true
    }

    /// An empty parcel, unless too much is under way. A lane that nobody uses has none.
    fn take_or_make(&mut self) -> Option<Parcel> {
        while let Ok(mut parcel) = self.empty.pop() {
            self.under_way -= parcel.octets.len();
            parcel.clear();
            self.spare.push(parcel);
        }
        if self.under_way > Self::MOST_OCTETS {
            return None;
        }
        self.spare.pop().or_else(|| {
            (self.made < Parcel::MOST).then(|| {
                self.made += 1;
                Parcel::new()
            })
        })
    }

    /// Octets that may be under way before packets get lost: a few milliseconds of traffic, as much as a socket holds.
    const MOST_OCTETS: usize = 4 << 20;

    fn flush(&mut self) {
        let Some(parcel) = self.current.take() else { return };
        self.under_way += parcel.octets.len();
        // There is room for all parcels of the lane.
        if let Err(error) = self.full.push(parcel) {
            tracing::debug!(%error, "a lane has more parcels than it had made");
        }
        self.bell.ring();
    }
}

impl Parcel {
    /// Parcels of one lane. Each is as small as what was read at once, so that many may be needed.
    const MOST: usize = 256;
    /// Packets in a parcel.
    const ITEMS: usize = 64;
    /// Octets in a parcel: a super-packet and one more.
    const OCTETS: usize = 128 * 1024;

    fn new() -> Self {
        Self { octets: Vec::with_capacity(Self::OCTETS), items: Vec::with_capacity(Self::ITEMS) }
    }

    fn has_room(&self, len: usize) -> bool {
        self.items.len() < Self::ITEMS && self.octets.len() + len <= Self::OCTETS
    }

    fn clear(&mut self) {
        self.octets.clear();
        self.items.clear();
    }

    /// The packets, in order.
    pub(super) fn packets(&self) -> impl Iterator<Item = (Cargo, &[u8])> {
        let mut rest = &self.octets[..];
        self.items.iter().map_while(move |(cargo, len)| {
            let (packet, behind) = rest.split_at_checked(*len)?;
            rest = behind;
            Some((*cargo, packet))
        })
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::{Encapsulation, OuterPath};

    use super::*;

    fn pair() -> (Handover, Handover) {
        let all = Handover::between(Workers::new(2).unwrap()).unwrap();
        <[Handover; 2]>::try_from(all).unwrap().into()
    }

    fn inside(number: u16) -> Cargo {
        Cargo::Inside { interface: InterfaceId(number), vnet: VnetHeader::default(), hops: 0 }
    }

    fn origin() -> Origin {
        let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
        let path = OuterPath { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into(), encapsulation };
        Origin { path, traffic_class: 0, hop_limit: None }
    }

    /// Takes all that came and gives the parcels back.
    fn take(handover: &mut Handover) -> Vec<(Cargo, Vec<u8>)> {
        handover.hush();
        let mut taken = Vec::new();
        while let Some(parcel) = handover.next(0) {
            taken.extend(parcel.packets().map(|(cargo, packet)| (cargo, packet.to_vec())));
            handover.give_back(0, parcel);
        }
        taken
    }

    #[test]
    fn what_is_handed_over_arrives_whole_and_in_order_once_it_is_flushed() {
        let (mut a, mut b) = pair();
        for number in 0..200u16 {
            assert!(a.add(WorkerId(1), inside(number), &vec![7; usize::from(number) * 10]));
        }
        a.flush();
        let taken = take(&mut b);
        let expected: Vec<_> = (0..200).map(|number| (inside(number), vec![7; usize::from(number) * 10])).collect();
        assert_eq!(taken, expected);
        assert!(!a.add(WorkerId(0), inside(0), &[1]) && !a.add(WorkerId(2), inside(0), &[1]), "nobody else is there");
    }

    #[test]
    fn a_worker_that_does_not_listen_costs_a_bounded_number_of_packets_and_hears_the_rest_later() {
        let (mut a, mut b) = pair();
        let packet = vec![1; 65_000];
        let taken = (0..1000).filter(|_| a.add(WorkerId(1), inside(1), &packet)).count();
        assert!((Outgoing::MOST_OCTETS..Outgoing::MOST_OCTETS + 2 * Parcel::OCTETS).contains(&(taken * 65_000)));
        a.flush();
        assert_eq!(take(&mut b).len(), taken);
        assert!(a.add(WorkerId(1), inside(1), &packet), "the parcels came back");
        let mut small = 0;
        while a.add(WorkerId(1), inside(1), &[7]) {
            a.flush();
            small += 1;
        }
        assert_eq!(small, Parcel::MOST);
        assert_eq!(take(&mut b).len(), 1 + small);
        assert!(!a.add(WorkerId(1), inside(1), &vec![0; Parcel::OCTETS + 1]));
    }

    #[test]
    fn datagrams_of_other_workers_are_taken_out_of_a_run_and_the_rest_closes_up() {
        let (mut a, mut b) = pair();
        let workers = Workers::new(2).unwrap();
        let datagram = |worker, octet: u8, len: usize| {
            let spi = workers.mark(0x5555_5555, WorkerId(worker));
            [&spi.to_be_bytes()[..], &vec![octet; len]].concat()
        };
        let run = [datagram(0, 1, 20), datagram(1, 2, 20), vec![0; 24], datagram(1, 3, 20), datagram(0, 4, 8)].concat();
        let mut octets = run.clone();
        let (kept, lost) = a.sift(&mut octets, 24, origin());
        assert_eq!(octets[..kept], [datagram(0, 1, 20), vec![0; 24], datagram(0, 4, 8)].concat());
        assert_eq!(lost, 0);
        a.flush();
        let others = take(&mut b);
        let expected = [datagram(1, 2, 20), datagram(1, 3, 20)].map(|datagram| (Cargo::Esp(origin()), datagram));
        assert_eq!(others, expected);
        let mut keepalive = [0xff];
        assert_eq!(a.sift(&mut keepalive, 1, origin()), (1, 0));
        assert_eq!(a.sift(&mut [], 0, origin()), (0, 0));
    }
}
