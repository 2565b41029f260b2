//! Packets that stand in a batch as they came from the inside, where they will be wrapped.

use espdp_api::WorkerId;

use super::{OutboundBatch, Sealed, Span};
use crate::sa::{Layout, TRAILER_LEN};
use crate::{InterfaceId, VnetHeader};

/// What stands around a packet in tunnel mode, in so few octets that it is known for each flow.
///
/// ```text
///  ◀─ header_len ─▶              ◀──── tail ─────▶
/// ┌────────┬───────┬────────────┬─────────┬───────┐
/// │ ESP    │ IV    │ packet     │ padding,│ ICV   │
/// │   ┌────┴───────┤            │ trailer │       │
/// │   │ vnet header│            │         │       │  as it is read
/// └───┴────────────┴────────────┴─────────┴───────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Header length, ICV length, block length less one, nothing.
    octets: [u8; 4],
}

impl Surroundings {
    /// What AES-GCM and ChaCha20-Poly1305 need.
    pub(crate) const USUAL: Self = Self { octets: [16, 16, 3, 0] };

    /// `None` when the vnet header does not find room in front.
    pub(crate) fn new(layout: Layout) -> Option<Self> {
        let [header_len, icv_len, block] = [layout.header_len, layout.icv_len, layout.block()].map(u8::try_from);
        let octets = [header_len.ok()?, icv_len.ok()?, block.ok()?.checked_sub(1)?, 0];
        (layout.header_len >= VnetHeader::LEN).then_some(Self { octets })
    }

    /// Octets in front of a packet.
    #[inline]
    pub(crate) fn header_len(self) -> usize {
        let [header_len, ..] = self.octets;
        usize::from(header_len)
    }

    /// Octets of padding behind a packet of `len` octets.
    #[inline]
    pub(crate) fn padding(self, len: usize) -> usize {
        let [_, _, mask, _] = self.octets;
        (len + TRAILER_LEN).wrapping_neg() & usize::from(mask)
    }

    /// Octets behind a packet of `len` octets.
    #[inline]
    pub(crate) fn tail_len(self, len: usize) -> usize {
        let [_, icv_len, ..] = self.octets;
        self.padding(len) + TRAILER_LEN + usize::from(icv_len)
    }
}

/// One packet that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Where its IP header starts.
    pub(crate) at: u32,
    pub(crate) len: u16,
    pub(crate) interface: InterfaceId,
    pub(crate) around: Surroundings,
    pub(crate) vnet: VnetHeader,
}

/// A packet from the inside that another worker has the SA of: it is to be pushed there.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere<'a> {
    /// Which worker.
    pub worker: WorkerId,
    /// Where the packet came from.
    pub interface: InterfaceId,
    /// Its vnet header.
    pub vnet: VnetHeader,
    /// The packet.
    pub octets: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// What was read in place and is for other workers, in order.
    pub fn elsewhere(&self) -> impl ExactSizeIterator<Item = Elsewhere<'a>> + use<'a> {
        let batch = self.batch;
        batch.arrivals.elsewhere.iter().map(|(worker, arrival)| {
            let Arrival { interface, vnet, .. } = *arrival;
            Elsewhere { worker: *worker, interface, vnet, octets: batch.arrived(arrival) }
        })
    }
}

/// The packets that came and are not wrapped yet.
#[derive(Debug)]
pub(super) struct Arrivals {
    all: Vec<Arrival>,
    /// How many of them are wrapped or dropped.
    done: usize,
    /// Those that another worker has the SA of.
    elsewhere: Vec<(WorkerId, Arrival)>,
    /// Those for which there was no room as what they became; for the next batch.
    late: Vec<(InterfaceId, VnetHeader, Box<[u8]>)>,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { all: Vec::with_capacity(OutboundBatch::FRAMES), done: 0, elsewhere: Vec::new(), late: Vec::new() }
    }

    /// Those that are not wrapped yet.
    #[inline]
    pub(super) fn to_wrap(&self) -> &[Arrival] {
        self.all.get(self.done..).unwrap_or_default()
    }

    /// Says that so many more are done.
    #[inline]
    pub(super) fn finish(&mut self, packets: usize) {
        self.done += packets;
    }

    /// How many are not wrapped yet, or for another worker.
    pub(super) fn left(&self) -> usize {
        self.all.len() - self.done + self.elsewhere.len()
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.done = 0;
        self.elsewhere.clear();
    }
}

impl OutboundBatch {
    /// Octets of the room for one packet with its vnet header. Longer ones are super-packets, which have to be cut anyway, or
    /// of links that few have.
    pub const SPACE: usize = 2304;

    /// Room for a packet with its vnet header behind all others, with room around it for what `around` says.
    #[inline]
    pub(crate) fn space(&mut self, around: Surroundings) -> Option<&mut [u8]> {
        let longest = Self::SPACE - VnetHeader::LEN;
        let len = around.header_len() + longest + around.tail_len(longest);
        if !self.has_room(len) {
            return None;
        }
        let start = self.used + around.header_len() - VnetHeader::LEN;
        self.memory.get_mut(start..start + Self::SPACE)
    }

    /// Adds what [`Self::space`] gave last, of which `len` octets are filled. Nothing is added that has no whole vnet header, or
    /// more octets than there were.
    #[inline]
    pub(crate) fn arrive(&mut self, interface: InterfaceId, around: Surroundings, len: usize) {
        let at = self.used + around.header_len();
        let read = self.memory.get(at - VnetHeader::LEN..).and_then(|rest| rest.get(..len.min(Self::SPACE)));
        let Some((vnet, packet)) = read.and_then(|read| VnetHeader::split_from(read, VnetHeader::LEN)) else { return };
        let len = packet.len();
        self.used = at + len + around.tail_len(len);
        // No batch has more octets.
        self.arrivals.all.push(Arrival { at: at as u32, len: len as u16, interface, around, vnet });
    }

    /// A packet as it came.
    pub(crate) fn arrived(&self, arrival: &Arrival) -> &[u8] {
        Span { offset: arrival.at as usize, len: usize::from(arrival.len) }.of(&self.memory)
    }

    /// The next packet that is not wrapped yet.
    #[inline]
    pub(crate) fn next_arrival(&self) -> Option<Arrival> {
        self.arrivals.to_wrap().first().copied()
    }

    /// Says that the next packet is dropped, or somewhere else.
    pub(crate) fn finish_arrival(&mut self) {
        self.arrivals.finish(1);
    }

    /// Leaves a packet where it is, for another worker to wrap.
    pub(crate) fn hand_over(&mut self, worker: WorkerId, arrival: &Arrival) {
        self.arrivals.elsewhere.push((worker, *arrival));
    }

    /// As [`Self::hand_over`] for a packet that stands somewhere else; whether there was room.
    pub(crate) fn hand_over_copy(
        &mut self,
        worker: WorkerId,
        interface: InterfaceId,
        vnet: VnetHeader,
        packet: &[u8],
    ) -> bool {
        if !self.has_room(packet.len()) {
            return false;
        }
        let (Span { offset, len }, octets) = self.next(packet.len());
        octets.copy_from_slice(packet);
        self.used = offset + len;
        let around = Surroundings::default();
        self.hand_over(worker, &Arrival { at: offset as u32, len: len as u16, interface, around, vnet });
        true
    }

    /// Keeps a packet for the next batch.
    pub(crate) fn postpone(&mut self, interface: InterfaceId, vnet: VnetHeader, packet: &[u8]) {
        self.arrivals.late.push((interface, vnet, packet.into()));
    }

    /// Whether packets were postponed.
    pub(crate) fn has_postponed(&self) -> bool {
        !self.arrivals.late.is_empty()
    }

    /// The packets that were postponed, oldest first, and forgets them.
    pub(crate) fn take_postponed(&mut self) -> Vec<(InterfaceId, VnetHeader, Box<[u8]>)> {
        std::mem::take(&mut self.arrivals.late)
    }
}
