//! How a flow's packets are wrapped: what stands between the ESP header and the ICV, or around AH.

use std::net::IpAddr;

use espdp_api::{InterfaceKind, IpsecProtocol, Mode, OuterPath};

use super::inside::Content;
use crate::crypto::ESP_HEADER_LEN;
use crate::packet::{Header, IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol, write_header};
use crate::sa::{OutboundSa, TRAILER_LEN};
use crate::{DropReason, ah};

/// How the packets of a flow are wrapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    /// Octets at the start of the inner packet that do not stand inside.
    skip: usize,
    next_header: u8,
    pub(super) traffic_class: u8,
    pub(super) dont_fragment: bool,
}

impl Envelope {
    pub(super) fn new(sa: &OutboundSa, kind: InterfaceKind, header: &Header) -> Result<Self, DropReason> {
        if sa.core.mode == Mode::Tunnel || kind == InterfaceKind::Ipip {
            return Ok(Self {
                skip: 0,
                next_header: if header.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 },
                traffic_class: sa.tunnel_traffic_class(header),
                dont_fragment: sa.tunnel_dont_fragment(header),
            });
        }
        // Transport mode is between the two ends of the SA (RFC 4301 §4.1): the header that goes out, and the one that the
        // peer rebuilds, have their addresses, whatever addresses the selectors would allow.
        let path = sa.path();
        if header.source != path.local || header.destination != path.remote {
            return Err(DropReason::OutsideSa);
        }
        // With ESP the outer header is the kernel's own, so nothing but the fixed header can be kept; AH packets are sent with all
        // their headers. Transport mode is for whole packets (RFC 4303 §3.3.4, RFC 4302 §3.3.4).
        let is_esp = sa.core.protocol == IpsecProtocol::Esp;
        if header.is_fragment || (is_esp && header.has_outer_options) {
            return Err(DropReason::TransportHeader);
        }
        Ok(Self {
            skip: header.fixed_len(),
            next_header: header.first_next_header,
            traffic_class: header.traffic_class,
            dont_fragment: header.dont_fragment,
        })
    }

    /// Octets for an inner packet of `inner_len` octets: with ESP from the SPI to the ICV, with AH the whole packet.
    pub(super) fn len(&self, sa: &OutboundSa, inner_len: usize) -> usize {
        let layout = sa.core.layout;
        if sa.core.protocol == IpsecProtocol::Ah {
            return self.new_header_len(sa) + sa.core.ah_len() + inner_len;
        }
        let payload_len = inner_len.saturating_sub(self.skip);
        layout.header_len + payload_len + layout.padding(payload_len) + TRAILER_LEN + layout.icv_len
    }

    /// Writes everything but IV and ICV.
    pub(super) fn write(
        &self,
        sa: &OutboundSa,
        sequence: u64,
        content: &impl Content,
        index: usize,
        octets: &mut [u8],
    ) -> Result<(), DropReason> {
        match sa.core.protocol {
            IpsecProtocol::Esp => self.write_esp(sa, sequence, content, index, octets),
            IpsecProtocol::Ah => self.write_ah(sa, sequence, content, index, octets),
        }
    }

    /// Octets of the IP header that is put in front; none when the packet keeps its own.
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
        content: &impl Content,
        index: usize,
        octets: &mut [u8],
    ) -> Result<(), DropReason> {
        let malformed = DropReason::Malformed;
        let (ah_len, new_header_len) = (sa.core.ah_len(), self.new_header_len(sa));
        let (front, inner) = octets.split_at_mut_checked(new_header_len + ah_len).ok_or(malformed)?;
        content.write(index, 0, inner)?;
        let place = if new_header_len == 0 {
            // Its own headers move to the front, up to where AH goes.
            let place = ah::Place::for_transport(inner).ok_or(DropReason::TransportHeader)?;
            octets.copy_within(ah_len..ah_len + place.at, 0);
            place
        } else {
            let OuterPath { local, remote, .. } = sa.path();
            let payload_len = ah_len + inner.len();
            write_header(front, local, remote, self.next_header, self.traffic_class, payload_len).ok_or(malformed)?;
            if let (IpAddr::V4(_), [_, _, _, _, _, _, flags, ..], false) = (remote, front, self.dont_fragment) {
                *flags = 0;
            }
            ah::Place::behind_fixed_header(remote.is_ipv6())
        };
        place.write(octets, ah_len, sa.core.spi.to_wire(), sequence).ok_or(malformed)
    }

    /// Writes ESP header, payload and trailer.
    fn write_esp(
        &self,
        sa: &OutboundSa,
        sequence: u64,
        content: &impl Content,
        index: usize,
        octets: &mut [u8],
    ) -> Result<(), DropReason> {
        let layout = sa.core.layout;
        let payload_len = content.len(index).saturating_sub(self.skip);
        let malformed = DropReason::Malformed;
        let (esp, rest) = octets.split_first_chunk_mut::<ESP_HEADER_LEN>().ok_or(malformed)?;
        let (spi, low) = esp.split_at_mut(4);
        spi.copy_from_slice(&sa.core.spi.to_wire());
        low.copy_from_slice(&(sequence as u32).to_be_bytes());
        let rest = rest.get_mut(layout.header_len - ESP_HEADER_LEN..).ok_or(malformed)?;
        let (payload, rest) = rest.split_at_mut_checked(payload_len).ok_or(malformed)?;
        content.write(index, self.skip, payload)?;
        let (padding, trailer) = rest.split_at_mut_checked(layout.padding(payload_len)).ok_or(malformed)?;
        // RFC 4303 §2.4: 1, 2, 3 …; there are never more than 15.
        for (octet, value) in padding.iter_mut().zip(1u8..) {
            *octet = value;
        }
        *trailer.first_chunk_mut().ok_or(malformed)? = [padding.len() as u8, self.next_header];
        Ok(())
    }
}
