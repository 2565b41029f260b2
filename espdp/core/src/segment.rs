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
    Super(Cut),
}

/// How a super-packet is cut, and what checksums have in common.
///
/// ```text
/// ┌────────────────────┬────────────┬────────────┬── ─ ─ ──┬──────┐
/// │ headers of all     │ payload 0  │ payload 1  │         │ rest │
/// └────────────────────┴────────────┴────────────┴── ─ ─ ──┴──────┘
///  ◀── headers_len ───▶ ◀── size ──▶
/// ```
#[derive(Clone, Copy, Debug)]
struct Cut {
    transport: Transport,
    headers_len: usize,
    size: usize,
    /// Of IPv4.
    identification: u16,
    /// The IPv4 header's sum without length, identification and checksum.
    ip: Sum,
    /// The sum of the pseudo header and the transport header, without lengths and checksum, and without what differs in TCP's:
    /// sequence number, and the word with the flags.
    covered: Sum,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    /// With the first segment's sequence number, and the word in which the flags are.
    Tcp {
        sequence: u32,
        offset_and_flags: [u8; 2],
    },
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
            Kind::Super(Cut { headers_len, size, .. }) => {
                self.packet.len().saturating_sub(headers_len).div_ceil(size).max(1)
            }
        }
    }

    /// Octets of segment `index`, IP header included.
    pub(crate) fn len(&self, index: usize) -> usize {
        match self.kind {
            Kind::Plain { .. } => self.packet.len(),
            Kind::Super(cut) => cut.headers_len.saturating_add(self.payload(&cut, index).len()),
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
            Kind::Super(cut) => self.write_segment(&cut, index, skip, out),
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
        let transport_header = packet.get(header.transport_at..)?;
        let (transport, transport_len) = match (vnet.gso_type & !VnetHeader::GSO_ECN, header.protocol) {
            (VnetHeader::GSO_NONE, _) => {
                let checksum = if needs_checksum { Some(checksum_place(vnet, packet, header)?) } else { None };
                return Some(Kind::Plain { checksum });
            }
            (VnetHeader::GSO_TCPV4, protocol::TCP) if header.is_ipv4() => Transport::tcp(transport_header)?,
            (VnetHeader::GSO_TCPV6, protocol::TCP) if !header.is_ipv4() => Transport::tcp(transport_header)?,
            (VnetHeader::GSO_UDP_L4, protocol::UDP) => (Transport::Udp, UDP_HEADER_LEN),
            _ => return None,
        };
        let size = usize::from(vnet.gso_size);
        if header.is_fragment || size == 0 {
            return None;
        }
        Cut::new(packet, header, transport, transport_header.get(..transport_len)?, size).map(Kind::Super)
    }

    /// The payload of segment `index` of a super-packet.
    #[inline]
    fn payload(&self, cut: &Cut, index: usize) -> &'a [u8] {
        let payload = self.packet.get(cut.headers_len..).unwrap_or_default();
        payload.chunks(cut.size).nth(index).unwrap_or_default()
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

    #[inline]
    fn write_segment(&self, cut: &Cut, index: usize, skip: usize, out: &mut [u8]) -> Option<()> {
        let payload = self.payload(cut, index);
        let headers_len = cut.headers_len.checked_sub(skip)?;
        if out.len() != headers_len.checked_add(payload.len())? {
            return None;
        }
        let from = self.packet.get(skip..)?;
        match (from.first_chunk::<USUAL_HEADERS>(), out.first_chunk_mut()) {
            // The payload comes over what is too much, and a length that is known beforehand takes no call.
            (Some(from), Some(out)) if headers_len <= USUAL_HEADERS => *out = *from,
            _ => out.get_mut(..headers_len)?.copy_from_slice(from.get(..headers_len)?),
        }
        let (headers, payload_out) = out.split_at_mut_checked(headers_len)?;
        let (ip, transport_header) = headers.split_at_mut_checked(self.header.transport_at.saturating_sub(skip))?;
        if skip == 0 {
            self.fix_ip_header(cut, ip, index, cut.headers_len.checked_add(payload.len())?)?;
        }
        let transport_len = u16::try_from(transport_header.len().checked_add(payload.len())?).ok()?.to_be_bytes();
        let covered = cut.covered.plus(Sum::of(&transport_len)).plus(Sum::of_copy(payload, payload_out));
        match cut.transport {
            Transport::Tcp { sequence, offset_and_flags } => {
                let first_octet = index.checked_mul(cut.size)?;
                let end = cut.headers_len.checked_add(first_octet)?.checked_add(payload.len())?;
                let (is_first, is_last) = (index == 0, end >= self.packet.len());
                let sequence = sequence.wrapping_add(u32::try_from(first_octet).ok()?).to_be_bytes();
                let offset_and_flags = flags_of_segment(offset_and_flags, is_first, is_last);
                *transport_header.get_mut(4..)?.first_chunk_mut()? = sequence;
                put(transport_header, TCP_OFFSET_AT, offset_and_flags)?;
                let covered = covered.plus(Sum::of(&sequence)).plus(Sum::of(&offset_and_flags));
                put(transport_header, TCP_CHECKSUM_AT, covered.checksum_never_zero())
            }
            Transport::Udp => {
                put(transport_header, UDP_LEN_AT, transport_len)?;
                let checksum = covered.plus(Sum::of(&transport_len)).checksum_never_zero();
                put(transport_header, UDP_CHECKSUM_AT, checksum)
            }
        }
    }

    /// Length, IPv4 identification (one more for each segment) and IPv4 checksum.
    #[inline]
    fn fix_ip_header(&self, cut: &Cut, ip: &mut [u8], index: usize, total_len: usize) -> Option<()> {
        if !self.header.is_ipv4() {
            let payload_len = total_len.checked_sub(self.header.fixed_len())?;
            return put(ip, 4, u16::try_from(payload_len).ok()?.to_be_bytes());
        }
        let len = u16::try_from(total_len).ok()?.to_be_bytes();
        let identification = cut.identification.wrapping_add(u16::try_from(index).ok()?).to_be_bytes();
        put(ip, 2, len)?;
        put(ip, 4, identification)?;
        put(ip, 10, cut.ip.plus(Sum::of(&len)).plus(Sum::of(&identification)).checksum())
    }
}

/// Headers that are not longer are copied faster: all but those with many options or extension headers.
const USUAL_HEADERS: usize = 64;

impl Cut {
    /// `packet` reaches to where its IP header says, and `transport_header` is the one in it.
    fn new(packet: &[u8], header: &Header, transport: Transport, transport_header: &[u8], size: usize) -> Option<Self> {
        let &[v0, v1, _, _, i0, i1, f0, f1, t0, t1, _, _] = packet.first_chunk()?;
        // Addresses and options.
        let rest = packet.get(12..header.transport_at)?;
        let Header { source, destination, protocol, .. } = *header;
        let pseudo_header = Sum::of_pseudo_header(source, destination, protocol, 0);
        Some(Self {
            transport,
            headers_len: header.transport_at.checked_add(transport_header.len())?,
            size,
            identification: u16::from_be_bytes([i0, i1]),
            ip: Sum::of(&[v0, v1, f0, f1, t0, t1]).plus(Sum::of(rest)),
            covered: pseudo_header.plus(transport.sum_in_common(transport_header)?),
        })
    }
}

impl Transport {
    /// With the length of the header.
    fn tcp(header: &[u8]) -> Option<(Self, usize)> {
        let &[_, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, flags] = header.first_chunk()?;
        let sequence = u32::from_be_bytes([s0, s1, s2, s3]);
        Some((Self::Tcp { sequence, offset_and_flags: [offset, flags] }, tcp_header_len(header)?))
    }

    /// What the headers of all segments have in common; see [`Cut::covered`].
    fn sum_in_common(self, header: &[u8]) -> Option<Sum> {
        match self {
            Self::Tcp { .. } => {
                let (fixed, options) = header.split_first_chunk::<20>()?;
                let &[p0, p1, p2, p3, _, _, _, _, a0, a1, a2, a3, _, _, w0, w1, _, _, u0, u1] = fixed;
                Some(Sum::of(&[p0, p1, p2, p3, a0, a1, a2, a3, w0, w1, u0, u1]).plus(Sum::of(options)))
            }
            Self::Udp => header.first_chunk::<4>().map(|ports| Sum::of(ports)),
        }
    }
}

/// Octets of a UDP header.
pub(crate) const UDP_HEADER_LEN: usize = 8;
/// Where the length stands in a UDP header.
const UDP_LEN_AT: usize = 4;
/// Where the checksum stands in a UDP header.
pub(crate) const UDP_CHECKSUM_AT: usize = 6;
/// Where the data offset stands in a TCP header, and right behind it the flags.
const TCP_OFFSET_AT: usize = 12;
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

/// FIN and PSH only on the last segment, CWR only on the first (RFC 3168 §6.1.2).
#[inline]
fn flags_of_segment([offset, flags]: [u8; 2], is_first: bool, is_last: bool) -> [u8; 2] {
    let not_here =
        if is_last { 0 } else { tcp_flags::FIN | tcp_flags::PSH } | if is_first { 0 } else { tcp_flags::CWR };
    [offset, flags & !not_here]
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
