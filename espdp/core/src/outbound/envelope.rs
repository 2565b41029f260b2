//! How a flow's packets are wrapped: what stands between the ESP header and the ICV, or around AH.

use std::net::IpAddr;

use espdp_api::{DfPolicy, Encapsulation, FragmentPolicy, InterfaceKind, IpsecProtocol, Mode, OuterPath};

use super::inside::Content;
use crate::crypto::ESP_HEADER_LEN;
use crate::packet::{
    Header, IPV4_HEADER_LEN, IPV6_HEADER_LEN, OuterEnd, make_cuttable, protocol, set_hop_limit, set_payload,
    write_header,
};
use crate::policy::Selected;
use crate::sa::{OutboundSa, SMALLEST_IPV6_MTU, TRAILER_LEN};
use crate::{DropReason, OuterHeader, ah};

/// How the packets of a flow are wrapped.
///
/// ```text
///                ┌─────┬────┬────────────────┬─────────┬─────────┬─────────┬─────┐
///  tunnel mode   │ ESP │ IV │ inner packet   │ filling │ padding │ trailer │ ICV │
///                └─────┴────┴────────────────┴─────────┴─────────┴─────────┴─────┘
///    ┌───────────┬─────┬────┬────────────────┬─────────┬─────────┬─────┐
///    │ own headers ESP │ IV │ its payload    │ padding │ trailer │ ICV │  transport mode; in UDP the kernel writes a header
///    └───────────┴─────┴────┴────────────────┴─────────┴─────────┴─────┘
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    /// Octets at the start of the inner packet that do not stand inside.
    skip: usize,
    next_header: u8,
    pub(super) outer: OuterHeader,
    /// In transport mode, the packet's own headers, which go out in front of ESP.
    own: Option<OuterEnd>,
    /// The longest packet that the path carries so.
    most: usize,
    /// Packets are filled up to this length (RFC 4303 §2.7).
    fill_to: usize,
}

/// What becomes of a packet of some length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The path carries it.
    Whole,
    /// Its ESP packet is fragmented on the outside.
    CutOutside,
    /// It is fragmented, and each fragment is wrapped.
    CutInside,
    /// It is refused; its sender should make its packets no longer than this.
    TooBig(usize),
}

impl Envelope {
    pub(super) fn new(sa: &OutboundSa, kind: InterfaceKind, header: &Header) -> Result<Self, DropReason> {
        if sa.core.mode == Mode::Tunnel || kind == InterfaceKind::Ipip {
            let (common, copied) = sa.tunnel_header(header);
            return Ok(Self {
                skip: 0,
                next_header: if header.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 },
                outer: common.with_copied(header.outer(), copied).into(),
                own: None,
                most: sa.most(),
                fill_to: sa.fill_to(),
            });
        }
        // Transport mode is between the two ends of the SA (RFC 4301 §4.1): the header that goes out, and the one that the
        // peer rebuilds, have their addresses, whatever addresses the selectors would allow.
        let path = sa.path();
        if header.source != path.local || header.destination != path.remote {
            return Err(DropReason::OutsideSa);
        }
        let OuterEnd { at: skip, next_header, .. } = header.outer_end;
        let is_esp = sa.core.protocol == IpsecProtocol::Esp;
        let is_native = path.encapsulation == Encapsulation::Esp;
        // Transport mode is for whole packets (RFC 4303 §3.3.4, RFC 4302 §3.3.4), and in UDP the outer header is the kernel's own, so
        // nothing but the fixed header can be kept.
        if header.is_fragment || !is_native && skip != header.fixed_len() {
            return Err(DropReason::TransportHeader);
        }
        Ok(Self {
            skip,
            next_header,
            outer: OuterHeader {
                traffic_class: header.traffic_class,
                hop_limit: header.hop_limit,
                flow_label: header.flow_label,
                dont_fragment: header.dont_fragment,
                heeds_path_mtu: sa.heeds_path_mtu(),
                cut_to: None,
            },
            own: (is_native && is_esp).then_some(header.outer_end),
            most: if skip == header.fixed_len() { sa.most() } else { sa.most_with_headers(skip) },
            fill_to: 0,
        })
    }

    /// The envelope of a dummy packet (RFC 4303 §2.6).
    pub(super) fn of_dummy(sa: &OutboundSa) -> Self {
        Self {
            skip: 0,
            next_header: protocol::NO_NEXT_HEADER,
            outer: sa.dummy_header(),
            own: None,
            most: sa.most(),
            fill_to: sa.fill_to(),
        }
    }

    /// Whether ESP stands around whole packets, with nothing but padding behind them.
    pub(super) fn is_around_whole(&self) -> bool {
        self.skip == 0 && self.own.is_none() && self.fill_to == 0
    }

    /// The protocol of what is inside.
    pub(super) fn next_header(&self) -> u8 {
        self.next_header
    }

    /// The longest packet that the path carries so.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// What becomes of packet `index` of `content`, and of shorter ones.
    #[inline]
    pub(super) fn fit(&self, sa: &OutboundSa, content: &impl Content, index: usize) -> Fit {
        if content.len(index) <= self.most { Fit::Whole } else { self.fit_of_long(sa, content, index) }
    }

    /// RFC 4301 §8.2.1, RFC 4303 §3.3.4.
    fn fit_of_long(&self, sa: &OutboundSa, content: &impl Content, index: usize) -> Fit {
        // Whoever sent an Ethernet frame expects no answer.
        let Some(inside) = content.inside() else { return Fit::CutOutside };
        let tunnel_octets = content.len(index).saturating_sub(content.inside_len(index));
        let may_be_cut = inside.is_ipv4() && !inside.dont_fragment;
        // RFC 8200 §5: a link of less than 1280 octets has to fragment below IPv6, and a sender is not told of less.
        let smallest = if inside.is_ipv4() { 0 } else { SMALLEST_IPV6_MTU };
        let refused = Fit::TooBig(self.most.saturating_sub(tunnel_octets).max(smallest));
        if self.skip > 0 && tunnel_octets == 0 {
            return if may_be_cut { Fit::CutOutside } else { refused };
        }
        match sa.shape.fragment {
            FragmentPolicy::After if sa.shape.df == DfPolicy::Copy && !may_be_cut => refused,
            FragmentPolicy::After => Fit::CutOutside,
            FragmentPolicy::Before if may_be_cut && tunnel_octets == 0 && takes_fragments(sa, inside) => Fit::CutInside,
            FragmentPolicy::Before if may_be_cut || content.inside_len(index) <= smallest => Fit::CutOutside,
            FragmentPolicy::Before => refused,
        }
    }

    /// The same for packets that are fragmented outside.
    pub(super) fn cut_outside(self, sa: &OutboundSa) -> Self {
        let cut_to = sa.path_mtu().filter(|_| self.own.is_some()).and_then(|octets| u16::try_from(octets).ok());
        Self { outer: OuterHeader { dont_fragment: false, cut_to, ..self.outer }, ..self }
    }

    /// Octets of the packet's own headers, in front of ESP.
    pub(super) fn own_header(&self) -> usize {
        self.own.map_or(0, |end| end.at)
    }

    /// Octets from the packet's own headers, or the SPI where there are none, to the ICV, for an inner packet of `inner_len`
    /// octets.
    pub(super) fn len(&self, sa: &OutboundSa, inner_len: usize) -> usize {
        let layout = sa.core.layout;
        if sa.core.protocol == IpsecProtocol::Ah {
            return self.new_header_len(sa) + sa.core.ah_len() + inner_len;
        }
        let payload_len = self.payload_len(inner_len);
        let around = self.own_header() + layout.header_len + TRAILER_LEN + layout.icv_len;
        around + payload_len + layout.padding(payload_len)
    }

    /// Writes everything but IV and ICV. `write_inner` writes an inner packet of `inner_len` octets without so many at its start.
    pub(super) fn write(
        &self,
        sa: &OutboundSa,
        sequence: u64,
        inner_len: usize,
        octets: &mut [u8],
        write_inner: impl Fn(usize, &mut [u8]) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        match sa.core.protocol {
            IpsecProtocol::Esp => self.write_esp(sa, sequence, inner_len, octets, write_inner),
            IpsecProtocol::Ah => self.write_ah(sa, sequence, octets, write_inner),
        }
    }

    /// Octets of the IP header that is put in front of AH; none when the packet keeps its own.
    fn new_header_len(&self, sa: &OutboundSa) -> usize {
        match (self.skip, sa.path().remote.is_ipv6()) {
            (1.., _) => 0,
            (0, false) => IPV4_HEADER_LEN,
            (0, true) => IPV6_HEADER_LEN,
        }
    }

    /// Writes the IP header, AH and what it protects.
    fn write_ah(
        &self,
        sa: &OutboundSa,
        sequence: u64,
        octets: &mut [u8],
        write_inner: impl Fn(usize, &mut [u8]) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let malformed = DropReason::Malformed;
        let (ah_len, new_header_len) = (sa.core.ah_len(), self.new_header_len(sa));
        let (front, inner) = octets.split_at_mut_checked(new_header_len + ah_len).ok_or(malformed)?;
        write_inner(0, inner)?;
        let place = if new_header_len == 0 {
            // Its own headers move to the front, up to where AH goes.
            let place = ah::Place::for_transport(inner).ok_or(DropReason::TransportHeader)?;
            octets.copy_within(ah_len..ah_len + place.at, 0);
            place
        } else {
            let OuterPath { local, remote, .. } = sa.path();
            let OuterHeader { traffic_class, hop_limit, dont_fragment, .. } = self.outer;
            let payload_len = ah_len + inner.len();
            write_header(front, local, remote, self.next_header, traffic_class, payload_len).ok_or(malformed)?;
            if let (IpAddr::V4(_), [_, _, _, _, _, _, flags, ..], false) = (remote, &mut *front, dont_fragment) {
                *flags = 0;
            }
            set_hop_limit(front, hop_limit);
            ah::Place::behind_fixed_header(remote.is_ipv6())
        };
        place.write(octets, ah_len, sa.core.spi.to_wire(), sequence).ok_or(malformed)
    }

    /// Writes the packet's own headers, where it brings them, ESP header, payload and trailer.
    fn write_esp(
        &self,
        sa: &OutboundSa,
        sequence: u64,
        inner_len: usize,
        octets: &mut [u8],
        write_inner: impl Fn(usize, &mut [u8]) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let layout = sa.core.layout;
        let malformed = DropReason::Malformed;
        if let Some(end) = &self.own {
            // The whole packet, so that its payload comes to stand behind the ESP header; then its headers move to the front.
            let packet = layout.header_len..layout.header_len + inner_len;
            write_inner(0, octets.get_mut(packet).ok_or(malformed)?)?;
            octets.copy_within(layout.header_len..layout.header_len + end.at, 0);
            if self.outer.cut_to.is_some() {
                make_cuttable(octets, sequence).ok_or(malformed)?;
            }
            set_payload(octets, end, protocol::ESP).ok_or(malformed)?;
        }
        let octets = octets.get_mut(self.own_header()..).ok_or(malformed)?;
        let (esp, rest) = octets.split_first_chunk_mut::<ESP_HEADER_LEN>().ok_or(malformed)?;
        let (spi, low) = esp.split_at_mut(4);
        spi.copy_from_slice(&sa.core.spi.to_wire());
        low.copy_from_slice(&(sequence as u32).to_be_bytes());
        let rest = rest.get_mut(layout.header_len - ESP_HEADER_LEN..).ok_or(malformed)?;
        let payload_len = self.payload_len(inner_len);
        let (payload, rest) = rest.split_at_mut_checked(payload_len).ok_or(malformed)?;
        let (inner, filling) = payload.split_at_mut_checked(inner_len.saturating_sub(self.skip)).ok_or(malformed)?;
        if self.own.is_none() {
            write_inner(self.skip, inner)?;
        }
        filling.fill(0);
        let (padding, trailer) = rest.split_at_mut_checked(layout.padding(payload_len)).ok_or(malformed)?;
        // RFC 4303 §2.4: 1, 2, 3 …; there are never more than 15.
        for (octet, value) in padding.iter_mut().zip(1u8..) {
            *octet = value;
        }
        *trailer.first_chunk_mut().ok_or(malformed)? = [padding.len() as u8, self.next_header];
        Ok(())
    }

    fn payload_len(&self, inner_len: usize) -> usize {
        inner_len.saturating_sub(self.skip).max(self.fill_to)
    }
}

/// Whether fragments of a packet, whose ports nobody sees, are the SA's, too. IP in IP hides them from selectors anyway.
fn takes_fragments(sa: &OutboundSa, header: &Header) -> bool {
    let fragment = Selected { local_port: None, remote_port: None, ..Selected::outbound(header) };
    sa.is_transport() || sa.selects(&fragment)
}
