//! From a super-packet to the segments that it stands for, as the kernel's GSO would cut it.

use crate::checksum::Sum;
use crate::packet::{Header, protocol};
use crate::vnet::VnetHeader;
use crate::{DropReason, mss};

/// Cuts one packet from a TUN device. Nothing is copied before [`Segmenter::write`].
#[derive(Debug)]
pub(crate) struct Segmenter<'a> {
    packet: &'a [u8],
    header: &'a Header,
    kind: Kind,
    /// What TCP may announce as its maximum segment size.
    most_mss: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// As it is, with a checksum to be completed where `checksum` says so.
    Plain { checksum: Option<ChecksumPlace> },
    /// Cut into segments.
    Super { transport: Transport, headers_len: usize, segment_size: usize },
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp,
    Udp,
}

/// Where a checksum stands and from where to the packet's end it covers.
#[derive(Clone, Copy, Debug)]
struct ChecksumPlace {
    start: usize,
    at: usize,
}

impl<'a> Segmenter<'a> {
    /// Prepares to cut `packet`, whose IP header was parsed.
    ///
    /// # Errors
    /// [`DropReason::BadVnetHeader`] when `vnet` does not fit the packet or asks for what was never offered.
    pub(crate) fn new(vnet: &VnetHeader, packet: &'a [u8], header: &'a Header) -> Result<Self, DropReason> {
        let packet = packet.get(..header.total_len).ok_or(DropReason::Malformed)?;
        let kind = Self::kind(vnet, packet, header).ok_or(DropReason::BadVnetHeader)?;
        Ok(Self { packet, header, kind, most_mss: None })
    }

    /// The header of the packet.
    pub(crate) fn header(&self) -> &'a Header {
        self.header
    }

    /// Has TCP announce no longer segments than this.
    pub(crate) fn lower_mss_to(&mut self, most: u16) {
        self.most_mss = Some(most);
    }

    /// How many segments there are; at least one.
    pub(crate) fn count(&self) -> usize {
        match self.kind {
            Kind::Plain { .. } => 1,
            Kind::Super { headers_len, segment_size, .. } => {
                self.packet.len().saturating_sub(headers_len).div_ceil(segment_size).max(1)
            }
        }
    }

    /// Octets of segment `index`, IP header included.
    pub(crate) fn len(&self, index: usize) -> usize {
        match self.kind {
            Kind::Plain { .. } => self.packet.len(),
            Kind::Super { headers_len, .. } => headers_len.saturating_add(self.payload(index).len()),
        }
    }

    /// Writes segment `index` to `out` without its first `skip` octets, which are nothing or the IP header up to the
    /// transport header or an extension header; `out` is exactly as long as that. Copying and checksumming are one pass.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the lengths contradict each other.
    pub(crate) fn write(&self, index: usize, skip: usize, out: &mut [u8]) -> Result<(), DropReason> {
        match self.kind {
            Kind::Plain { checksum } => self.write_plain(checksum, skip, out),
            Kind::Super { transport, headers_len, segment_size } => {
                let first_octet = index.checked_mul(segment_size);
                first_octet.and_then(|from| self.write_segment(transport, headers_len, index, from, skip, out))
            }
        }
        .ok_or(DropReason::Malformed)?;
        if let Some(most) = self.most_mss
            && let Some(at) = self.header.transport_at.checked_sub(skip)
        {
            mss::clamp(out.get_mut(at..).unwrap_or_default(), most);
        }
        Ok(())
    }

    fn kind(vnet: &VnetHeader, packet: &[u8], header: &Header) -> Option<Kind> {
        let needs_checksum = vnet.flags & VnetHeader::NEEDS_CSUM != 0;
        let transport = match (vnet.gso_type & !VnetHeader::GSO_ECN, header.protocol) {
            (VnetHeader::GSO_NONE, _) => {
                let checksum = if needs_checksum { Some(checksum_place(vnet, packet, header)?) } else { None };
                return Some(Kind::Plain { checksum });
            }
            (VnetHeader::GSO_TCPV4, protocol::TCP) if header.is_ipv4() => Transport::Tcp,
            (VnetHeader::GSO_TCPV6, protocol::TCP) if !header.is_ipv4() => Transport::Tcp,
            (VnetHeader::GSO_UDP_L4, protocol::UDP) => Transport::Udp,
            _ => return None,
        };
        let transport_len = match transport {
            Transport::Tcp => tcp_header_len(packet.get(header.transport_at..)?)?,
            Transport::Udp => UDP_HEADER_LEN,
        };
        let headers_len = header.transport_at.checked_add(transport_len)?;
        let segment_size = usize::from(vnet.gso_size);
        let is_whole = !header.is_fragment && headers_len <= packet.len();
        (is_whole && segment_size > 0).then_some(Kind::Super { transport, headers_len, segment_size })
    }

    /// The payload of segment `index` of a super-packet.
    fn payload(&self, index: usize) -> &'a [u8] {
        let Kind::Super { headers_len, segment_size, .. } = self.kind else { return &[] };
        let payload = self.packet.get(headers_len..).unwrap_or_default();
        payload.chunks(segment_size).nth(index).unwrap_or_default()
    }

    fn write_plain(&self, checksum: Option<ChecksumPlace>, skip: usize, out: &mut [u8]) -> Option<()> {
        let Some(ChecksumPlace { start, at }) = checksum else {
            return copy(self.packet.get(skip..)?, out);
        };
        let head_len = start.checked_sub(skip)?;
        let (head, covered) = out.split_at_mut_checked(head_len)?;
        copy(self.packet.get(skip..start)?, head)?;
        let from = self.packet.get(start..)?;
        if from.len() != covered.len() {
            return None;
        }
        // The field holds the sum of the pseudo header, so it simply takes part.
        let checksum = Sum::of_copy(from, covered).checksum_never_zero();
        put(covered, at.checked_sub(start)?, checksum)
    }

    fn write_segment(
        &self,
        transport: Transport,
        headers_len: usize,
        index: usize,
        first_octet: usize,
        skip: usize,
        out: &mut [u8],
    ) -> Option<()> {
        let payload = self.payload(index);
        let is_last = first_octet.checked_add(payload.len())? >= self.packet.len().checked_sub(headers_len)?;
        let (headers, payload_out) = out.split_at_mut_checked(headers_len.checked_sub(skip)?)?;
        if payload_out.len() != payload.len() {
            return None;
        }
        copy(self.packet.get(skip..headers_len)?, headers)?;
        let (ip, transport_header) = headers.split_at_mut_checked(self.header.transport_at.saturating_sub(skip))?;
        if skip == 0 {
            self.fix_ip_header(ip, index, headers_len.checked_add(payload.len())?)?;
        }
        match transport {
            Transport::Tcp => fix_tcp_header(transport_header, first_octet, index == 0, is_last)?,
            Transport::Udp => {
                let len = u16::try_from(UDP_HEADER_LEN.checked_add(payload.len())?).ok()?;
                put(transport_header, 4, len.to_be_bytes())?;
            }
        }
        let checksum_at = match transport {
            Transport::Tcp => TCP_CHECKSUM_AT,
            Transport::Udp => UDP_CHECKSUM_AT,
        };
        put(transport_header, checksum_at, [0, 0])?;
        let transport_len = transport_header.len().checked_add(payload.len())?;
        let Header { source, destination, protocol, .. } = *self.header;
        let checksum = Sum::of_pseudo_header(source, destination, protocol, transport_len)
            .plus(Sum::of(transport_header))
            .plus(Sum::of_copy(payload, payload_out))
            .checksum_never_zero();
        put(transport_header, checksum_at, checksum)
    }

    /// Length, IPv4 identification (one more for each segment) and IPv4 checksum.
    fn fix_ip_header(&self, ip: &mut [u8], index: usize, total_len: usize) -> Option<()> {
        if !self.header.is_ipv4() {
            let payload_len = total_len.checked_sub(self.header.fixed_len())?;
            return put(ip, 4, u16::try_from(payload_len).ok()?.to_be_bytes());
        }
        let identification = u16::from_be_bytes(*ip.get(4..)?.first_chunk()?);
        let step = u16::try_from(index).ok()?;
        put(ip, 2, u16::try_from(total_len).ok()?.to_be_bytes())?;
        put(ip, 4, identification.wrapping_add(step).to_be_bytes())?;
        put(ip, 10, [0, 0])?;
        let checksum = Sum::of(ip).checksum();
        put(ip, 10, checksum)
    }
}

/// Octets of a UDP header.
pub(crate) const UDP_HEADER_LEN: usize = 8;
/// Where the checksum stands in a UDP header.
pub(crate) const UDP_CHECKSUM_AT: usize = 6;
/// Where the checksum stands in a TCP header.
pub(crate) const TCP_CHECKSUM_AT: usize = 16;

/// The flags of a TCP header, as in its octet 13.
pub(crate) mod tcp_flags {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const URG: u8 = 0x20;
    pub(crate) const CWR: u8 = 0x80;
}

/// Octets of a TCP header with its options. `None` when the data offset is too small or reaches beyond `transport`.
pub(crate) fn tcp_header_len(transport: &[u8]) -> Option<usize> {
    let len = usize::from(*transport.get(12)? >> 4) * 4;
    (20..=transport.len()).contains(&len).then_some(len)
}

/// Writes two octets at `at`.
pub(crate) fn put(buffer: &mut [u8], at: usize, octets: [u8; 2]) -> Option<()> {
    *buffer.get_mut(at..)?.first_chunk_mut()? = octets;
    Some(())
}

/// Sequence number moved on; FIN and PSH only on the last segment, CWR only on the first (RFC 3168 §6.1.2).
fn fix_tcp_header(tcp: &mut [u8], first_octet: usize, is_first: bool, is_last: bool) -> Option<()> {
    let sequence: &mut [u8; 4] = tcp.get_mut(4..)?.first_chunk_mut()?;
    let step = u32::try_from(first_octet).ok()?;
    *sequence = u32::from_be_bytes(*sequence).wrapping_add(step).to_be_bytes();
    let flags = tcp.get_mut(13)?;
    if !is_last {
        *flags &= !(tcp_flags::FIN | tcp_flags::PSH);
    }
    if !is_first {
        *flags &= !tcp_flags::CWR;
    }
    Some(())
}

/// Checks that the checksum lies in the transport header: not in the IP header, which another pass may drop.
fn checksum_place(vnet: &VnetHeader, packet: &[u8], header: &Header) -> Option<ChecksumPlace> {
    let start = usize::from(vnet.csum_start);
    let at = start.checked_add(usize::from(vnet.csum_offset))?;
    let fits = start >= header.transport_at && at.checked_add(2)? <= packet.len();
    fits.then_some(ChecksumPlace { start, at })
}

fn copy(from: &[u8], to: &mut [u8]) -> Option<()> {
    if from.len() != to.len() {
        return None;
    }
    to.copy_from_slice(from);
    Some(())
}
