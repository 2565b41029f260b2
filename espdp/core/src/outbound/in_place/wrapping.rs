//! Wrapping together: consecutive packets of one flow, or some of many flows.

use std::time::Instant;

use super::flow::{AnyFlow, Flow};
use crate::batch::{Arrival, OutboundFrame, PackedOuter, Span};
use crate::checksum::Sum;
use crate::outbound::{Template, trailer};
use crate::packet::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};
use crate::policy::PolicyTable;
use crate::sa::OutboundTable;
use crate::segment::{TCP_CHECKSUM_AT, tcp_flags};
use crate::{OutboundBatch, VnetHeader};

/// What wrapping works with.
pub(super) struct Wrapping<'a> {
    pub(super) policies: &'a PolicyTable,
    pub(super) sas: &'a mut OutboundTable,
    pub(super) memory: &'a mut [u8],
    pub(super) now: Instant,
}

/// Packets of one flow in a row that are worth a way of their own.
const RUN: usize = 4;
/// Packets that are looked at together otherwise: enough that what the first one needs has been fetched when the last one was asked
/// for.
const BLOCK: usize = 16;

/// How many packets were wrapped, and how many octets they had before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) packets: usize,
    pub(super) bytes: u64,
}

impl Wrapping<'_> {
    /// Wraps the first packets, as far as they come from one interface and are together quickly; `frames` are as many. Where none
    /// is wrapped, the first one has to go the general way.
    #[inline]
    pub(super) fn wrap_some(&mut self, arrivals: &[Arrival], frames: &mut [OutboundFrame]) -> Counted {
        match arrivals.first().and_then(|first| AnyFlow::of(packet(self.memory, first))) {
            Some(AnyFlow::Ipv4(flow)) => self.wrap_some_of(flow, arrivals, frames),
            Some(AnyFlow::Ipv6(flow)) => self.wrap_some_of(flow, arrivals, frames),
            None => Counted::default(),
        }
    }

    /// The same where the first packet is of `flow`.
    #[inline]
    fn wrap_some_of<F: Flow>(&mut self, flow: F, arrivals: &[Arrival], frames: &mut [OutboundFrame]) -> Counted {
        match arrivals.get(RUN - 1) {
            Some(later) if flow.outer_of(packet(self.memory, later)).is_some() => {
                self.wrap_flow(flow, arrivals, frames).unwrap_or_default()
            }
            _ => self.wrap_block::<F>(arrivals.get(..BLOCK).unwrap_or(arrivals), frames),
        }
    }

    /// Wraps packets of any flows of one family. One step is taken with all of them, at most [`BLOCK`], before the next one, so that
    /// the processor fetches what they need side by side.
    #[inline(never)]
    fn wrap_block<F: Flow>(&mut self, arrivals: &[Arrival], frames: &mut [OutboundFrame]) -> Counted {
        let (policies, mut packets) = (self.policies, 0);
        let interface = arrivals.first().map(|first| first.interface);
        let mut places = [(PackedOuter::default(), F::Place::default()); BLOCK];
        for (arrival, place) in arrivals.iter().zip(&mut places) {
            let flow = F::of(packet(self.memory, arrival)).filter(|_| Some(arrival.interface) == interface);
            let Some((inner, flow)) = flow else { break };
            *place = (inner, flow.prefetch(policies, arrival.interface));
            packets += 1;
        }
        let mut templates = [None; BLOCK];
        for ((_, place), found) in places.iter().zip(&mut templates).take(packets) {
            *found = F::template(place, policies);
            if let Some(sa) = found.and_then(|template| self.sas.get(template.sa())) {
                sa.prefetch();
            }
        }
        let mut counted = Counted::default();
        for (((arrival, frame), (inner, _)), template) in arrivals.iter().zip(frames).zip(places).zip(templates) {
            let Some(template) = template else { break };
            let Some(wrapped) = self.wrap_one(inner, template, arrival) else { break };
            *frame = wrapped;
            counted.packets += 1;
            counted.bytes += u64::from(arrival.len);
        }
        counted
    }

    /// Wraps a packet whose header says `inner`.
    #[inline]
    fn wrap_one(&mut self, inner: PackedOuter, template: &Template, arrival: &Arrival) -> Option<OutboundFrame> {
        let sa = self.sas.get_mut(template.sa()).filter(|sa| sa.is_calm(usize::from(arrival.len)))?;
        let (inner, admit) = (|_: &[u8]| Some(inner), |len| sa.admit_calm(len, self.now));
        match template.around.header_len() {
            16 => write_around::<16>(self.memory, template, arrival, inner, admit),
            24 => write_around::<24>(self.memory, template, arrival, inner, admit),
            _ => None,
        }
    }

    #[inline]
    fn wrap_flow<F: Flow>(&mut self, flow: F, arrivals: &[Arrival], frames: &mut [OutboundFrame]) -> Option<Counted> {
        let place = flow.prefetch(self.policies, arrivals.first()?.interface);
        let template = F::template(&place, self.policies)?;
        match template.around.header_len() {
            16 => self.wrap_around::<F, 16>(&flow, template, arrivals, frames),
            24 => self.wrap_around::<F, 24>(&flow, template, arrivals, frames),
            _ => None,
        }
    }

    /// Wraps packets with headers of `HEADER` octets, IV included.
    #[inline]
    fn wrap_around<F: Flow, const HEADER: usize>(
        &mut self,
        flow: &F,
        template: &Template,
        arrivals: &[Arrival],
        frames: &mut [OutboundFrame],
    ) -> Option<Counted> {
        let interface = arrivals.first()?.interface;
        // A copy, so that the compiler knows that nothing written here changes it.
        let template = *template;
        let sa = self.sas.get_mut(template.sa())?;
        let mut admitting = sa.admit_many(arrivals.len(), arrivals.len() * OutboundBatch::SPACE)?;
        for (arrival, frame) in arrivals.iter().zip(frames) {
            if arrival.interface != interface {
                break;
            }
            let (inner, admit) = (|packet: &[u8]| flow.outer_of(packet), |len| admitting.admit(len));
            match write_around::<HEADER>(self.memory, &template, arrival, inner, admit) {
                Some(wrapped) => *frame = wrapped,
                None => break,
            }
        }
        let (packets, bytes) = admitting.finish(self.now);
        Some(Counted { packets, bytes })
    }
}

/// A packet as it came.
#[inline]
fn packet<'m>(memory: &'m [u8], arrival: &Arrival) -> &'m [u8] {
    Span { offset: arrival.at as usize, len: usize::from(arrival.len) }.of(memory)
}

/// Writes a header of `HEADER` octets, IV included, in front of a packet, and a trailer behind it. `inner` says what its own header
/// says that may be copied, and `admit` gives it a number; it is not asked when the packet has to go the general way, where the
/// result is `None`.
#[inline(always)]
fn write_around<const HEADER: usize>(
    memory: &mut [u8],
    template: &Template,
    arrival: &Arrival,
    inner: impl FnOnce(&[u8]) -> Option<PackedOuter>,
    admit: impl FnOnce(usize) -> u64,
) -> Option<OutboundFrame> {
    let (at, len, around) = (arrival.at as usize, usize::from(arrival.len), template.around);
    if arrival.around != around || len > usize::from(template.most) {
        return None;
    }
    let (start, end) = (at - HEADER, at + len + around.tail_len(len));
    let (header, rest) = memory.get_mut(start..end)?.split_first_chunk_mut::<HEADER>()?;
    let (packet, behind) = rest.split_at_mut_checked(len)?;
    let header = header.first_chunk_mut()?;
    let inner = inner(packet)?;
    let needs_care = arrival.vnet.flags & VnetHeader::NEEDS_CSUM != 0 || template.heeds_mss;
    if needs_care && !prepare(packet, &arrival.vnet, template.heeds_mss) {
        return None;
    }
    let sequence = admit(len);
    *header = (u64::from(template.spi) << 32 | sequence & u64::from(u32::MAX)).to_be_bytes();
    trailer::write(behind, around.padding(len), template.next_header);
    Some(OutboundFrame {
        sequence,
        outer: template.outer(inner),
        sa: template.sa(),
        offset: start as u32,
        len: (end - start) as u16,
        own_header: 0,
        is_whole: false,
        is_sealed: false,
    })
}

/// Completes the checksum of a packet if it is asked for; whether it has not to go the general way.
fn prepare(packet: &mut [u8], vnet: &VnetHeader, heeds_mss: bool) -> bool {
    if heeds_mss && is_syn(packet) {
        return false;
    }
    if vnet.flags & VnetHeader::NEEDS_CSUM == 0 {
        return true;
    }
    // A checksum that stands anywhere else might make a SYN of it.
    let at = usize::from(vnet.csum_start) + usize::from(vnet.csum_offset);
    if heeds_mss && at != header_len(packet) + TCP_CHECKSUM_AT {
        return false;
    }
    covered(vnet, packet).map(|(covered, at)| complete_checksum(covered, at)).is_some()
}

/// Whether a TCP packet without options or extension headers of IP asks for a connection; what is cut off might.
#[inline]
fn is_syn(packet: &[u8]) -> bool {
    packet.get(header_len(packet) + TCP_FLAGS_AT).is_none_or(|flags| flags & tcp_flags::SYN != 0)
}

/// Octets of the IP header of a packet that has nothing but the fixed one.
#[inline]
fn header_len(packet: &[u8]) -> usize {
    if packet.first().is_some_and(|first| first >> 4 == 4) { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
}

/// Where the flags stand in a TCP header.
const TCP_FLAGS_AT: usize = 13;

/// What the checksum that a vnet header asks for covers, and where it stands in that. `None` when it reaches into the IP header or
/// beyond the packet.
fn covered<'p>(vnet: &VnetHeader, packet: &'p mut [u8]) -> Option<(&'p mut [u8], usize)> {
    let header_len = header_len(packet);
    let covered =
        packet.get_mut(usize::from(vnet.csum_start)..).filter(|_| usize::from(vnet.csum_start) >= header_len)?;
    let at = usize::from(vnet.csum_offset);
    (at + 2 <= covered.len()).then_some((covered, at))
}

/// Puts a checksum in its place, which holds the sum of the pseudo header.
fn complete_checksum(covered: &mut [u8], at: usize) {
    let checksum = Sum::of(covered).checksum_never_zero();
    if let Some(place) = covered.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = checksum;
    }
}
