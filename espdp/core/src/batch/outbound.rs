//! Packets on their way out.

use std::net::IpAddr;

use espdp_api::OuterPath;

use super::Span;
use super::arrivals::{Arrival, Arrivals};
use super::outer::{OuterHeader, PackedOuter};
use crate::InterfaceId;
use crate::packet::Header;

/// Packets for the wire: ESP, and what may leave in clear; and answers for those inside who sent them. One allocation, made once;
/// filled by [`crate::Dataplane::fill`].
///
/// The packets stand one directly behind the other, so that a run of them is one contiguous send:
///
/// ```text
/// ┌─────┬────┬───────────────┬─────┬─────┬────┬───────────────┬─────┬─────┬──
/// │ ESP │ IV │ inner, padded │ ICV │ ESP │ IV │ inner, padded │ ICV │ ESP │ …
/// └─────┴────┴───────────────┴─────┴─────┴────┴───────────────┴─────┴─────┴──
///  ◀──────── frame 0 ─────────────▶ ◀──────── frame 1 ─────────────▶
/// ```
#[derive(Debug)]
pub struct OutboundBatch {
    pub(super) memory: Box<[u8]>,
    pub(super) used: usize,
    pub(super) arrivals: Arrivals,
    /// Of which [`Self::protected`] count.
    frames: Box<[OutboundFrame]>,
    protected: usize,
    clear: Vec<ClearFrame>,
    replies: Vec<ReplyFrame>,
    /// Filled by [`crate::Filling::seal`].
    runs: Vec<RunSpan>,
    /// Whether [`crate::Filling::seal`] was here since the last [`Self::clear`].
    is_sealed: bool,
}

/// A whole IP packet that a policy or an interface lets out as it is.
#[derive(Clone, Copy, Debug)]
struct ClearFrame {
    span: Span,
    exit: Exit,
}

/// An answer to an interface's inside.
#[derive(Clone, Copy, Debug)]
struct ReplyFrame {
    span: Span,
    interface: InterfaceId,
}

/// One ESP or AH packet. Half a cache line: a batch is walked along several times.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OutboundFrame {
    /// The whole sequence number.
    pub(crate) sequence: u64,
    /// The outer header.
    pub(crate) outer: PackedOuter,
    /// Its place in the table of outbound SAs.
    pub(crate) sa: u32,
    /// Where it starts: at the SPI, or at its own header if it is whole.
    pub(crate) offset: u32,
    /// Octets up to the ICV, or to the end of the packet.
    pub(crate) len: u16,
    /// Octets right before it that are its outer headers; 0 when the kernel writes one.
    pub(crate) own_header: u16,
    /// Whether it has its IP header, as AH packets do, and leaves as it is.
    pub(crate) is_whole: bool,
    /// Whether it is protected; only then it may leave.
    pub(crate) is_sealed: bool,
}

const _: () = assert!(size_of::<OutboundFrame>() == 32, "two frames in a cache line");

/// What of a batch nothing is in yet.
pub(crate) struct Free<'a> {
    /// As many as there may still be.
    pub(crate) frames: &'a mut [OutboundFrame],
    pub(crate) memory: &'a mut [u8],
    /// Where that begins in the memory of the batch.
    pub(crate) offset: usize,
}

#[derive(Clone, Copy, Debug)]
struct RunSpan {
    /// The SA of the last packet.
    sa: u32,
    path: OuterPath,
    outer: PackedOuter,
    has_own_header: bool,
    segment_len: usize,
    start: usize,
    end: usize,
    /// Packets so far; [`Run::PACKETS`] when no other may follow.
    full: usize,
}

impl OutboundBatch {
    /// Packets in one batch at most.
    pub const FRAMES: usize = 256;
    /// Octets in one batch at most: [`Self::FRAMES`] packets of the usual length, and still within a second-level cache.
    pub const OCTETS: usize = 384 * 1024;

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            memory: vec![0; Self::OCTETS].into_boxed_slice(),
            used: 0,
            arrivals: Arrivals::new(),
            frames: vec![OutboundFrame::default(); Self::FRAMES].into_boxed_slice(),
            protected: 0,
            clear: Vec::with_capacity(Self::FRAMES),
            replies: Vec::with_capacity(Self::FRAMES),
            runs: Vec::with_capacity(Self::FRAMES),
            is_sealed: false,
        }
    }

    /// Whether its packets were sealed: then it takes no more.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Whether another packet of `len` octets fits.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.has_room_for(1, len)
    }

    /// Whether so many packets of `len` octets together fit.
    pub(crate) fn has_room_for(&self, packets: usize, len: usize) -> bool {
        self.packets() + packets <= Self::FRAMES && len <= self.memory.len() - self.used
    }

    /// Packets of every kind.
    pub(crate) fn packets(&self) -> usize {
        self.arrivals.left() + self.protected + self.clear.len() + self.replies.len()
    }

    /// The `len` octets behind the last frame; they join the batch with [`Self::add`].
    pub(crate) fn next(&mut self, len: usize) -> (Span, &mut [u8]) {
        let span = Span { offset: self.used, len };
        (span, span.of_mut(&mut self.memory))
    }

    /// Adds what [`Self::next`] gave last.
    pub(crate) fn add(&mut self, frame: OutboundFrame) {
        let Span { offset, len } = frame.span();
        self.used = offset + len;
        if let Some(place) = self.frames.get_mut(self.protected) {
            *place = frame;
            self.protected += 1;
        }
    }

    /// Adds what [`Self::next`] gave last as a packet that leaves as it is. Only an explicit policy or interface may ask for this.
    pub(crate) fn add_clear(&mut self, span: Span, exit: Exit) {
        self.used = span.offset + span.len;
        self.clear.push(ClearFrame { span, exit });
    }

    /// Adds what [`Self::next`] gave last as an answer to the inside of `interface`.
    pub(crate) fn add_reply(&mut self, span: Span, interface: InterfaceId) {
        self.used = span.offset + span.len;
        self.replies.push(ReplyFrame { span, interface });
    }

    /// How many ESP packets there are.
    pub(crate) fn protected(&self) -> usize {
        self.protected
    }

    /// How many packets there are that leave as they are.
    pub(crate) fn cleared(&self) -> usize {
        self.clear.len()
    }

    /// An ESP packet.
    pub(crate) fn frame(&self, place: usize) -> Option<OutboundFrame> {
        self.frames().get(place).copied()
    }

    /// All frames and the memory they lie in.
    pub(crate) fn parts(&mut self) -> (&mut [OutboundFrame], &mut [u8]) {
        (self.frames.get_mut(..self.protected).unwrap_or_default(), &mut self.memory)
    }

    /// All packets that are not wrapped yet, where their frames go, and the memory of the batch.
    #[inline]
    pub(crate) fn arrivals(&mut self) -> (&[Arrival], &mut [OutboundFrame], &mut [u8]) {
        (self.arrivals.to_wrap(), self.frames.get_mut(self.protected..).unwrap_or_default(), &mut self.memory)
    }

    /// Says that so many of the packets are wrapped, their frames filled in.
    #[inline]
    pub(crate) fn finish_wrapped(&mut self, packets: usize) {
        self.protected += packets;
        self.arrivals.finish(packets);
    }

    /// Where the next packets go; they join the batch with [`Self::add_together`].
    pub(crate) fn free(&mut self) -> Free<'_> {
        let packets = Self::FRAMES.saturating_sub(self.packets());
        let frames = self.frames.get_mut(self.protected..).unwrap_or_default();
        let most = packets.min(frames.len());
        Free {
            frames: frames.get_mut(..most).unwrap_or_default(),
            memory: self.memory.get_mut(self.used..).unwrap_or_default(),
            offset: self.used,
        }
    }

    /// Adds so many packets with so many octets, which stand where [`Self::free`] said.
    pub(crate) fn add_together(&mut self, packets: usize, octets: usize) {
        self.protected += packets;
        self.used += octets;
    }

    /// The ESP packets.
    fn frames(&self) -> &[OutboundFrame] {
        self.frames.get(..self.protected).unwrap_or_default()
    }

    /// Forgets all packets but those that had no room in it and wait for the next batch.
    pub fn clear(&mut self) {
        self.used = 0;
        self.arrivals.clear();
        self.protected = 0;
        self.clear.clear();
        self.replies.clear();
        self.runs.clear();
        self.is_sealed = false;
    }

    /// Gathers the sealed frames in runs; `path_of` knows where an SA's packets go. Says whether all were sealed.
    pub(crate) fn gather(&mut self, path_of: impl Fn(u32) -> Option<OuterPath>) -> bool {
        self.is_sealed = true;
        let mut last: Option<RunSpan> = None;
        let mut all_sealed = true;
        for frame in self.frames.get(..self.protected).unwrap_or_default() {
            if !frame.is_sealed {
                all_sealed = false;
                continue;
            }
            if frame.is_whole {
                self.clear.push(ClearFrame { span: frame.span(), exit: Exit::Bypass });
                continue;
            }
            if let Some(run) = &mut last
                && run.takes(frame)
                && (run.sa == frame.sa || path_of(frame.sa) == Some(run.path))
            {
                run.extend(frame);
                continue;
            }
            self.runs.extend(last.take());
            last = path_of(frame.sa).map(|path| RunSpan::new(frame, path));
        }
        self.runs.extend(last);
        all_sealed
    }

    /// The frames that are not sealed.
    pub(crate) fn unsealed(&self) -> impl Iterator<Item = &OutboundFrame> {
        self.frames().iter().filter(|frame| !frame.is_sealed)
    }

    /// The batch, now that nothing in it is in clear but what may be.
    pub(crate) fn sealed(&self) -> Sealed<'_> {
        Sealed { batch: self }
    }
}

impl Default for OutboundBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl OutboundFrame {
    /// What is protected.
    pub(crate) fn span(&self) -> Span {
        Span { offset: self.offset as usize, len: usize::from(self.len) }
    }

    /// The packet with the outer headers that it brings.
    pub(crate) fn whole(&self) -> Span {
        let (Span { offset, len }, own_header) = (self.span(), usize::from(self.own_header));
        Span { offset: offset.saturating_sub(own_header), len: len + own_header }
    }
}

impl RunSpan {
    fn new(frame: &OutboundFrame, path: OuterPath) -> Self {
        let OutboundFrame { sa, outer, own_header, .. } = *frame;
        let Span { offset, len } = frame.whole();
        let end = offset + len;
        Self { sa, path, outer, has_own_header: own_header > 0, segment_len: len, start: offset, end, full: 1 }
    }

    #[inline]
    fn extend(&mut self, frame: &OutboundFrame) {
        let Span { len, .. } = frame.whole();
        self.sa = frame.sa;
        self.end += len;
        // A shorter one is the last one.
        self.full = if len == self.segment_len { self.full + 1 } else { Run::PACKETS };
    }

    /// Whether `frame` can follow if its path is the same: same outer header, directly behind, not longer than the others, and no
    /// shorter one in between (only the last datagram of a `UDP_SEGMENT` send may be shorter).
    #[inline]
    fn takes(&self, frame: &OutboundFrame) -> bool {
        let Span { offset, len } = frame.whole();
        frame.outer == self.outer
            && offset == self.end
            && len <= self.segment_len
            && self.full < Run::PACKETS
            && self.end - self.start + len <= Run::OCTETS
            && (frame.own_header > 0) == self.has_own_header
    }

    fn span(&self) -> Span {
        Span { offset: self.start, len: self.end - self.start }
    }
}

/// A batch whose packets may leave: they are encrypted, or a policy or an interface lets them out in clear.
#[derive(Debug)]
pub struct Sealed<'a> {
    pub(super) batch: &'a OutboundBatch,
}

impl<'a> Sealed<'a> {
    /// What to send, in order.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = Run<'a>> + use<'a> {
        let OutboundBatch { memory, runs, .. } = self.batch;
        runs.iter().map(|run| Run {
            path: run.path,
            outer: run.outer.into(),
            has_own_header: run.has_own_header,
            segment_len: run.segment_len,
            octets: run.span().of(memory),
        })
    }

    /// What to send as it is, in order; AH packets come last.
    pub fn clear(&self) -> impl ExactSizeIterator<Item = ClearPacket<'a>> + use<'a> {
        let OutboundBatch { memory, clear, .. } = self.batch;
        clear.iter().map(|frame| ClearPacket { octets: frame.span.of(memory), exit: frame.exit })
    }

    /// What to hand back to the inside, in order.
    pub fn replies(&self) -> impl ExactSizeIterator<Item = Reply<'a>> + use<'a> {
        let OutboundBatch { memory, replies, .. } = self.batch;
        replies.iter().map(|frame| Reply { interface: frame.interface, octets: frame.span.of(memory) })
    }
}

/// Which way a packet in clear takes through the kernel's routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With our mark, past the routes that lead into our interfaces: a policy has decided already.
    Bypass,
    /// Without a mark, as any host's packet: a tunnel whose packets another policy may protect.
    Routed,
}

/// A packet to send as it is.
#[derive(Clone, Copy, Debug)]
pub struct ClearPacket<'a> {
    /// From the IP header on.
    pub octets: &'a [u8],
    /// How it leaves.
    pub exit: Exit,
}

impl ClearPacket<'_> {
    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> Option<IpAddr> {
        Header::parse(self.octets).map(|header| header.destination)
    }
}

/// A packet for the inside of an interface, in answer to what came from there.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Which device.
    pub interface: InterfaceId,
    /// The packet, checksums complete.
    pub octets: &'a [u8],
}

/// Consecutive ESP packets with the same outer header: one `UDP_SEGMENT` send, or one raw send for each.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Outer addresses and encapsulation.
    pub path: OuterPath,
    /// What the outer header says.
    pub outer: OuterHeader,
    /// Whether each packet brings its outer IP header, extension headers included; otherwise it starts with the SPI.
    pub has_own_header: bool,
    /// Octets of each packet (what `UDP_SEGMENT` takes); the last one may be shorter.
    pub segment_len: usize,
    /// The packets, each up to its ICV, without gaps.
    pub octets: &'a [u8],
}

impl<'a> Run<'a> {
    /// Packets in one run at most: what Linux accepts in a `UDP_SEGMENT` send.
    pub const PACKETS: usize = 64;
    /// Octets in one run at most: what fits in one UDP datagram over IPv4.
    pub const OCTETS: usize = 65507;

    /// The packets, one by one.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        self.octets.chunks(self.segment_len.max(1))
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::Encapsulation;

    use super::*;

    fn path(last: u8) -> OuterPath {
        let remote = [192, 0, 2, last].into();
        OuterPath { local: [192, 0, 2, 1].into(), remote, encapsulation: Encapsulation::Esp }
    }

    fn frame(span: Span, sa: u32, traffic_class: u8) -> OutboundFrame {
        let outer = OuterHeader { traffic_class, dont_fragment: true, ..OuterHeader::default() }.into();
        let (offset, len) = (span.offset as u32, span.len as u16);
        OutboundFrame { offset, len, own_header: 0, sa, sequence: 1, outer, is_whole: false, is_sealed: true }
    }

    /// Length of each packet and packets in each run; packets are given as length, traffic class and SA.
    fn runs(packets: &[(usize, u8, u32)]) -> Vec<(usize, usize)> {
        let mut batch = OutboundBatch::new();
        for (len, traffic_class, sa) in packets {
            assert!(batch.has_room(*len));
            let (span, _) = batch.next(*len);
            batch.add(frame(span, *sa, *traffic_class));
        }
        batch.gather(|sa| Some(path(sa as u8)));
        let sealed = batch.sealed();
        sealed.runs().map(|run| (run.segment_len, run.packets().len())).collect()
    }

    #[test]
    fn what_is_not_sealed_never_leaves() {
        let mut batch = OutboundBatch::new();
        for is_sealed in [true, false, true] {
            let (span, _) = batch.next(50);
            batch.add(OutboundFrame { is_sealed, ..frame(span, 2, 0) });
        }
        batch.gather(|sa| Some(path(sa as u8)));
        let offsets: Vec<_> = batch.runs.iter().map(|run| (run.start, run.span().len)).collect();
        assert_eq!(offsets, [(0, 50), (100, 50)]);
    }

    #[test]
    fn what_leaves_in_clear_and_what_goes_back_inside_are_in_no_run() {
        let mut batch = OutboundBatch::new();
        let (span, octets) = batch.next(20);
        let (from, to) = ([192, 0, 2, 1].into(), [192, 0, 2, 9].into());
        crate::packet::write_header(octets, from, to, 17, 0, 0).unwrap();
        batch.add_clear(span, Exit::Bypass);
        let (span, _) = batch.next(50);
        batch.add(frame(span, 2, 0));
        let (span, octets) = batch.next(3);
        octets.copy_from_slice(&[7, 8, 9]);
        batch.add_reply(span, InterfaceId(4));
        batch.gather(|sa| Some(path(sa as u8)));
        let sealed = batch.sealed();
        assert_eq!(sealed.runs().map(|run| run.octets.len()).collect::<Vec<_>>(), [50]);
        let clear: Vec<_> = sealed.clear().map(|packet| (packet.destination(), packet.exit)).collect();
        assert_eq!(clear, [(Some(to), Exit::Bypass)]);
        let replies: Vec<_> = sealed.replies().map(|reply| (reply.interface, reply.octets.to_vec())).collect();
        assert_eq!(replies, [(InterfaceId(4), vec![7, 8, 9])]);
        batch.clear();
        let sealed = batch.sealed();
        assert_eq!((sealed.clear().len(), sealed.replies().len()), (0, 0));
    }

    #[test]
    fn equal_packets_to_one_peer_are_one_run_and_a_shorter_one_ends_it() {
        let to = 2;
        assert_eq!(
            runs(&[(100, 0, to), (100, 0, to), (60, 0, to), (60, 0, to), (100, 0, to)]),
            [(100, 3), (60, 1), (100, 1)]
        );
    }

    #[test]
    fn another_peer_or_traffic_class_starts_another_run() {
        let packets = [(100, 0, 2), (100, 0, 3), (100, 1, 3), (100, 1, 3)];
        assert_eq!(runs(&packets), [(100, 1), (100, 1), (100, 2)]);
    }

    #[test]
    fn packets_that_bring_their_header_are_runs_with_it() {
        let mut batch = OutboundBatch::new();
        for (len, own_header) in [(120, 20), (120, 20), (120, 0)] {
            let (Span { offset, .. }, _) = batch.next(len);
            let span = Span { offset: offset + own_header, len: len - own_header };
            batch.add(OutboundFrame { own_header: own_header as u16, ..frame(span, 2, 0) });
        }
        batch.gather(|sa| Some(path(sa as u8)));
        let runs: Vec<_> = batch.sealed().runs().map(|run| (run.has_own_header, run.packets().len())).collect();
        assert_eq!(runs, [(true, 2), (false, 1)]);
        assert_eq!(batch.runs[0].span(), Span { offset: 0, len: 240 });
    }

    #[test]
    fn runs_stay_within_what_one_send_carries() {
        assert_eq!(runs(&[(1472, 0, 2); 100]), [(1472, 44), (1472, 44), (1472, 12)]);
        assert_eq!(runs(&[(80, 0, 2); 130]), [(80, 64), (80, 64), (80, 2)]);
    }

    #[test]
    fn a_batch_that_is_reused_keeps_its_memory() {
        let mut batch = OutboundBatch::new();
        let before = batch.memory.as_ptr();
        for _ in 0..3 {
            while batch.has_room(1000) {
                let (span, _) = batch.next(1000);
                batch.add(frame(span, 2, 0));
            }
            assert_eq!(batch.frames().len(), OutboundBatch::FRAMES);
            batch.clear();
        }
        assert_eq!(batch.memory.as_ptr(), before);
    }
}
