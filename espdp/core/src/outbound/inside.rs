//! What comes from the inside, segment by segment, and what a tunnel makes of it.

use espdp_api::Layer;
use tunnel_codec::ethernet::{self, ether_type};

use crate::packet::Header;
use crate::segment::Segmenter;
use crate::tunnel::Front;
use crate::{DropReason, VnetHeader};

/// Packets that can be written one after the other.
pub(super) trait Content {
    /// How many there are.
    fn count(&self) -> usize;

    /// Octets of packet `index`, IP header included.
    fn len(&self, index: usize) -> usize;

    /// Octets of packet `index` as it came from the inside.
    fn inside_len(&self, index: usize) -> usize;

    /// The IP header of what came from the inside, where its sender expects answers to it.
    fn inside(&self) -> Option<&Header>;

    /// Has TCP announce no longer segments than this.
    fn lower_mss_to(&mut self, most: u16);

    /// Writes packet `index` to `out` as it came from the inside, checksums and all.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the lengths contradict each other.
    fn write_inside(&self, index: usize, out: &mut [u8]) -> Result<(), DropReason>;

    /// Writes packet `index` to `out` without its first `skip` octets: none, or the IP header.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the lengths contradict each other.
    fn write(&self, index: usize, skip: usize, out: &mut [u8]) -> Result<(), DropReason>;
}

impl Content for Segmenter<'_> {
    fn count(&self) -> usize {
        Segmenter::count(self)
    }

    fn len(&self, index: usize) -> usize {
        Segmenter::len(self, index)
    }

    fn inside_len(&self, index: usize) -> usize {
        Segmenter::len(self, index)
    }

    fn inside(&self) -> Option<&Header> {
        Some(self.header())
    }

    fn lower_mss_to(&mut self, most: u16) {
        Segmenter::lower_mss_to(self, most);
    }

    fn write_inside(&self, index: usize, out: &mut [u8]) -> Result<(), DropReason> {
        Segmenter::write(self, index, 0, out)
    }

    fn write(&self, index: usize, skip: usize, out: &mut [u8]) -> Result<(), DropReason> {
        Segmenter::write(self, index, skip, out)
    }
}

/// What a tunnel carries: an IP packet, or an Ethernet frame with or without one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inside<'a> {
    /// The Ethernet header, which stands in front of each segment of a frame; empty without one.
    ethernet: &'a [u8],
    /// The rest.
    packet: &'a [u8],
    /// As the Ethernet header announces it, where there is one.
    ip: Option<Header>,
    vnet: VnetHeader,
}

impl<'a> Inside<'a> {
    /// Takes apart what came from the inside of an interface of this layer.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    pub(super) fn new(layer: Layer, vnet: VnetHeader, octets: &'a [u8]) -> Result<Self, DropReason> {
        match layer {
            Layer::Ip => {
                let ip = Some(Header::parse(octets).ok_or(DropReason::Malformed)?);
                Ok(Self { ethernet: &[], packet: octets, ip, vnet })
            }
            Layer::Ethernet => {
                let (at, kind) = ethernet::payload(octets).ok_or(DropReason::Malformed)?;
                let (ethernet, packet) = octets.split_at_checked(at).ok_or(DropReason::Malformed)?;
                let ip = Header::parse(packet).filter(|ip| match kind {
                    ether_type::IPV4 => ip.is_ipv4(),
                    ether_type::IPV6 => !ip.is_ipv4(),
                    _ => false,
                });
                Ok(Self { ethernet, packet, ip, vnet })
            }
        }
    }

    /// The IP header, if there is one.
    pub(super) fn ip(&self) -> Option<&Header> {
        self.ip.as_ref()
    }

    /// Puts `front` before each segment. The segments before `first` were wrapped earlier, so that `front` is that of `first`.
    ///
    /// # Errors
    /// [`DropReason::BadVnetHeader`], [`DropReason::Malformed`].
    pub(super) fn wrap(&self, front: Front, first: usize) -> Result<Wrapped<'_>, DropReason> {
        let is_plain = self.vnet.gso_type == VnetHeader::GSO_NONE && self.vnet.flags & VnetHeader::NEEDS_CSUM == 0;
        let body = match &self.ip {
            // A frame that needs nothing travels as it is, padding included.
            _ if is_plain && !self.ethernet.is_empty() => Body::Whole(self.packet),
            Some(ip) => {
                let ethernet_len = u16::try_from(self.ethernet.len()).map_err(|_| DropReason::Malformed)?;
                let csum_start = self.vnet.csum_start.checked_sub(ethernet_len).ok_or(DropReason::BadVnetHeader);
                let csum_start = if is_plain { 0 } else { csum_start? };
                Body::Segments(Segmenter::new(&VnetHeader { csum_start, ..self.vnet }, self.packet, ip)?)
            }
            None => return Err(DropReason::BadVnetHeader),
        };
        Ok(Wrapped { front, first, ethernet: self.ethernet, body })
    }
}

/// The packets of a tunnel.
#[derive(Debug)]
pub(super) struct Wrapped<'a> {
    front: Front,
    first: usize,
    ethernet: &'a [u8],
    body: Body<'a>,
}

#[derive(Debug)]
enum Body<'a> {
    Whole(&'a [u8]),
    Segments(Segmenter<'a>),
}

impl Content for Wrapped<'_> {
    fn count(&self) -> usize {
        match &self.body {
            Body::Whole(_) => 1,
            Body::Segments(segments) => segments.count(),
        }
    }

    fn len(&self, index: usize) -> usize {
        self.front.octets() + self.inside_len(index)
    }

    fn inside_len(&self, index: usize) -> usize {
        let body = match &self.body {
            Body::Whole(octets) => octets.len(),
            Body::Segments(segments) => segments.len(index),
        };
        self.ethernet.len() + body
    }

    fn inside(&self) -> Option<&Header> {
        match &self.body {
            Body::Segments(segments) if self.ethernet.is_empty() => Some(segments.header()),
            Body::Segments(_) | Body::Whole(_) => None,
        }
    }

    fn lower_mss_to(&mut self, most: u16) {
        if let Body::Segments(segments) = &mut self.body {
            segments.lower_mss_to(most);
        }
    }

    fn write_inside(&self, index: usize, out: &mut [u8]) -> Result<(), DropReason> {
        let (ethernet, body) = out.split_at_mut_checked(self.ethernet.len()).ok_or(DropReason::Malformed)?;
        ethernet.copy_from_slice(self.ethernet);
        match &self.body {
            Body::Whole(octets) if octets.len() == body.len() => body.copy_from_slice(octets),
            Body::Whole(_) => return Err(DropReason::Malformed),
            Body::Segments(segments) => segments.write(index, 0, body)?,
        }
        Ok(())
    }

    fn write(&self, index: usize, skip: usize, out: &mut [u8]) -> Result<(), DropReason> {
        let inner = |out: &mut [u8]| self.write_inside(index, out).ok();
        // The IP header is written or left away as a whole.
        let without_ip = skip == self.front.ip_octets();
        let number = index.saturating_sub(self.first);
        self.front.write(number, without_ip, out, inner).ok_or(DropReason::Malformed)
    }
}
