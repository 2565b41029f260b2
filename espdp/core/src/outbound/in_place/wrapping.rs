//! Wrapping run by run: consecutive packets of one flow.

use std::time::Instant;

use super::flow::{Flow, Ipv4, Ipv6};
use crate::batch::{Arrival, OutboundFrame, Span};
use crate::checksum::Sum;
use crate::outbound::Template;
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

/// How many packets ahead SAs are fetched; flows twice as many.
const AHEAD: usize = 4;

/// How many packets were wrapped, and how many octets they had before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) packets: usize,
    pub(super) bytes: u64,
}

impl Wrapping<'_> {
    /// Wraps the first packets, as far as they are of one flow and fit what it says; `frames` are as many. Where none is wrapped, the
    /// first one has to go the general way.
    #[inline]
    pub(super) fn wrap_run(&mut self, arrivals: &[Arrival], frames: &mut [OutboundFrame]) -> Counted {
        let Some(first) = arrivals.first() else { return Counted::default() };
        let packet = Span { offset: first.at as usize, len: usize::from(first.len) }.of(self.memory);
        let counted = match packet.first().map(|first| first >> 4) {
            Some(4) => Ipv4::of(packet).and_then(|flow| self.wrap_flow(flow, arrivals, frames)),
            Some(6) => Ipv6::of(packet).and_then(|flow| self.wrap_flow(flow, arrivals, frames)),
            _ => None,
        };
        counted.unwrap_or_default()
    }

    /// Has the processor fetch what packets need that come a little later, while there is work with those that come before.
    #[inline]
    pub(super) fn look_ahead(&self, arrivals: &[Arrival]) {
        let packet =
            |arrival: &Arrival| Span { offset: arrival.at as usize, len: usize::from(arrival.len) }.of(self.memory);
        if let Some(arrival) = arrivals.get(2 * AHEAD) {
            let packet = packet(arrival);
            if let Some(flow) = Ipv4::of(packet) {
                flow.prefetch(self.policies, arrival.interface);
            } else if let Some(flow) = Ipv6::of(packet) {
                flow.prefetch(self.policies, arrival.interface);
            }
        }
        if let Some(arrival) = arrivals.get(AHEAD) {
            let packet = packet(arrival);
            let template = match Ipv4::of(packet) {
                Some(flow) => flow.template(self.policies, arrival.interface),
                None => Ipv6::of(packet).and_then(|flow| flow.template(self.policies, arrival.interface)),
            };
            if let Some(sa) = template.and_then(|template| self.sas.get(template.sa())) {
                sa.prefetch();
            }
        }
    }

    #[inline]
    fn wrap_flow<F: Flow>(&mut self, flow: F, arrivals: &[Arrival], frames: &mut [OutboundFrame]) -> Option<Counted> {
        let template = flow.template(self.policies, arrivals.first()?.interface)?;
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
        let sa = self.sas.get_mut(template.sa())?;
        let mut admitting = sa.admit_many(arrivals.len(), arrivals.len() * OutboundBatch::SPACE)?;
        let (around, most) = (template.around, usize::from(template.most));
        let spi = u64::from(template.spi) << 32;
        let trailers = short_trailers(template.next_header);
        for (arrival, frame) in arrivals.iter().zip(frames) {
            let (at, len) = (arrival.at as usize, usize::from(arrival.len));
            if arrival.around != around || arrival.interface != interface || len > most {
                break;
            }
            let (start, end) = (at - HEADER, at + len + around.tail_len(len));
            let Some(whole) = self.memory.get_mut(start..end) else { break };
            let Some((header, rest)) = whole.split_first_chunk_mut::<HEADER>() else { break };
            let Some((packet, behind)) = rest.split_at_mut_checked(len) else { break };
            let (Some(header), Some(trailer)) = (header.first_chunk_mut(), behind.first_chunk_mut()) else { break };
            let Some(inner) = flow.outer_of(packet) else { break };
            let needs_care = arrival.vnet.flags & VnetHeader::NEEDS_CSUM != 0 || template.heeds_mss;
            if needs_care && !prepare(packet, &arrival.vnet, template.heeds_mss) {
                break;
            }
            let sequence = admitting.admit(len);
            *header = (spi | sequence & u64::from(u32::MAX)).to_be_bytes();
            let padding = around.padding(len);
            match trailers.get(padding) {
                Some(short) => *trailer = *short,
                None => write_long_trailer(behind, padding, template.next_header),
            }
            *frame = OutboundFrame {
                sequence,
                outer: template.outer(inner),
                sa: template.sa(),
                offset: start as u32,
                len: (end - start) as u16,
                own_header: 0,
                is_whole: false,
                is_sealed: false,
            };
        }
        let (packets, bytes) = admitting.finish(self.now);
        Some(Counted { packets, bytes })
    }
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

/// Padding of none to three octets, its length and the next header, and what may stand where the ICV will (RFC 4303 §2.4: 1, 2,
/// 3 …).
#[inline]
fn short_trailers(next_header: u8) -> [[u8; 8]; 4] {
    [
        [0, next_header, 0, 0, 0, 0, 0, 0],
        [1, 1, next_header, 0, 0, 0, 0, 0],
        [1, 2, 2, next_header, 0, 0, 0, 0],
        [1, 2, 3, 3, next_header, 0, 0, 0],
    ]
}

/// The same for padding of any length.
fn write_long_trailer(behind: &mut [u8], padding: usize, next_header: u8) {
    let values = (1u8..).take(padding).chain([padding as u8, next_header]);
    for (octet, value) in behind.iter_mut().zip(values) {
        *octet = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_trailers_are_like_long_ones() {
        for padding in 0..=3 {
            let mut long = [0; 8];
            write_long_trailer(&mut long, padding, 41);
            assert_eq!(short_trailers(41)[padding], long);
        }
    }
}
