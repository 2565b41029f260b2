//! What stands between the ESP header and the ICV of a flow's packets.

use espdp_api::{InterfaceKind, Mode};

use super::inside::Content;
use crate::DropReason;
use crate::crypto::ESP_HEADER_LEN;
use crate::packet::{Header, protocol};
use crate::sa::{OutboundSa, TRAILER_LEN};

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
        // The outer header is the kernel's own, so nothing but the fixed header can be kept; and transport mode is for
        // whole packets (RFC 4303 §3.3.4).
        if header.is_fragment || header.has_outer_options {
            return Err(DropReason::TransportHeader);
        }
        Ok(Self {
            skip: header.fixed_len(),
            next_header: header.first_next_header,
            traffic_class: header.traffic_class,
            dont_fragment: header.dont_fragment,
        })
    }

    /// Octets from the SPI to the ICV for an inner packet of `inner_len` octets.
    pub(super) fn esp_len(&self, sa: &OutboundSa, inner_len: usize) -> usize {
        let layout = sa.core.layout;
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
