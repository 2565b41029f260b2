//! ICMP messages to the inside: a packet is too big for the tunnel.

use std::net::IpAddr;

use crate::checksum::Sum;
use crate::packet::{Header, IPV6_HEADER_LEN, protocol, write_header};
use crate::segment::put;

/// Says to the sender of a packet how long its packets may be: "fragmentation needed and DF set" (RFC 792, RFC 1191 §4) or
/// "packet too big" (RFC 4443 §3.2).
///
/// ```text
///  0               1               2               3              4 octets
/// ┌───────────────┬───────────────┬───────────────────────────────┐
/// │ type 3 or 2   │ code 4 or 0   │ checksum                      │
/// ├───────────────┴───────────────┼───────────────────────────────┤
/// │ IPv4: 0, IPv6: MTU, high half │ MTU, or its low half          │
/// ├───────────────────────────────┴───────────────────────────────┤
/// │ as much of the packet as fits, from its IP header on          │
/// ```
///
/// It comes from the packet's destination: of all addresses this is the one that the host's reverse path filter lets in from the
/// tunnel, whatever the tunnel's own addresses are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketTooBig<'a> {
    header: &'a Header,
    mtu: usize,
    quote: &'a [u8],
}

impl<'a> PacketTooBig<'a> {
    /// Prepares the answer to `packet`, which has this header. `None` when it must not be answered (RFC 1122 §3.2.2, RFC 4443
    /// §2.4 e): an ICMP error, a fragment other than the first, to or from anything but one host.
    pub(crate) fn new(packet: &'a [u8], header: &'a Header, mtu: usize) -> Option<Self> {
        let transport = packet.get(header.transport_at..header.total_len)?;
        let may_be_answered = !header.is_later_fragment()
            && !is_icmp_error(header.protocol, transport)
            && is_one_host(header.source)
            && is_one_host(header.destination);
        let most = if header.is_ipv4() { MOST_IPV4 } else { MOST_IPV6 };
        let quote_len = header.total_len.min(most.checked_sub(header.fixed_len().checked_add(ICMP_HEADER_LEN)?)?);
        may_be_answered.then_some(Self { header, mtu, quote: packet.get(..quote_len)? })
    }

    /// Octets of the answer, IP header included.
    pub(crate) fn len(&self) -> usize {
        self.header.fixed_len().saturating_add(ICMP_HEADER_LEN).saturating_add(self.quote.len())
    }

    /// Writes the answer to `out`, which is exactly as long as [`Self::len`] says; `None` when it is not.
    pub(crate) fn write(&self, out: &mut [u8]) -> Option<()> {
        let Header { source: sender, destination, .. } = *self.header;
        let is_ipv4 = self.header.is_ipv4();
        let (ip, icmp) = out.split_at_mut_checked(self.header.fixed_len())?;
        let (head, quote) = icmp.split_first_chunk_mut::<ICMP_HEADER_LEN>()?;
        if quote.len() != self.quote.len() {
            return None;
        }
        quote.copy_from_slice(self.quote);
        let mtu = u32::try_from(self.mtu).unwrap_or(u32::MAX);
        let [m0, m1, m2, m3] = mtu.to_be_bytes();
        let icmp_len = icmp_len(quote);
        // RFC 1191 §4: sixteen bits have to do.
        let pseudo = if is_ipv4 {
            let [m2, m3] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
            *head = [DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, m2, m3];
            Sum::default()
        } else {
            *head = [PACKET_TOO_BIG, 0, 0, 0, m0, m1, m2, m3];
            Sum::of_pseudo_header(destination, sender, protocol::ICMPV6, icmp_len)
        };
        let checksum = pseudo.plus(Sum::of(icmp)).checksum();
        put(icmp, CHECKSUM_AT, checksum)?;
        let number = if is_ipv4 { protocol::ICMP } else { protocol::ICMPV6 };
        write_header(ip, destination, sender, number, 0, icmp_len)
    }
}

fn icmp_len(quote: &[u8]) -> usize {
    quote.len().saturating_add(ICMP_HEADER_LEN)
}

/// Whether a packet, which has this header, is an error message that quotes another packet.
pub(crate) fn is_error(packet: &[u8], header: &Header) -> bool {
    let kind = packet.get(header.transport_at);
    !header.is_later_fragment()
        && kind.is_some()
        && is_icmp_error(header.protocol, packet.get(header.transport_at..).unwrap_or_default())
}

/// The header of the packet that an error message is about, as far as it is quoted.
pub(crate) fn quoted(packet: &[u8], header: &Header) -> Option<Header> {
    let quote = packet.get(header.transport_at.checked_add(ICMP_HEADER_LEN)?..header.total_len)?;
    // Its length is that of the whole packet; here it ends sooner.
    let mut start = [0; MOST_QUOTED];
    let len = quote.len().min(MOST_QUOTED);
    start.get_mut(..len)?.copy_from_slice(quote.get(..len)?);
    let start = start.get_mut(..len)?;
    let (length_at, length) = match quote.first()? >> 4 {
        4 => (2, len),
        _ => (4, len.checked_sub(IPV6_HEADER_LEN)?),
    };
    put(start, length_at, u16::try_from(length).ok()?.to_be_bytes())?;
    Header::parse(start)
}

/// Whether a packet is an error message, or looks like one as far as one can see.
fn is_icmp_error(protocol: u8, transport: &[u8]) -> bool {
    let kind = transport.first();
    match protocol {
        // RFC 1122 §3.2.2: unreachable, source quench, redirect, time exceeded, parameter problem.
        protocol::ICMP => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // RFC 4443 §2.1: errors are below 128; §2.4 e.2: and no redirects (137) either.
        protocol::ICMPV6 => kind.is_none_or(|kind| matches!(kind, 0..128 | 137)),
        _ => false,
    }
}

/// Whether an address names one host (RFC 1122 §3.2.1.3, RFC 4443 §2.4 e.6).
fn is_one_host(address: IpAddr) -> bool {
    let is_special = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    match address {
        // Class E, with the limited broadcast address at its end, and "this network".
        IpAddr::V4(address) => !is_special && !matches!(address.octets(), [0 | 240..=255, ..]),
        IpAddr::V6(_) => !is_special,
    }
}

/// Octets of a quoted packet that are looked at: enough for extension headers and ports.
const MOST_QUOTED: usize = 192;

/// What every IPv4 host takes, and so the length of an answer (RFC 1812 §4.3.2.3).
const MOST_IPV4: usize = 576;
/// The smallest IPv6 MTU, and so the length of an answer (RFC 4443 §2.4 c).
const MOST_IPV6: usize = 1280;

const ICMP_HEADER_LEN: usize = 8;
const CHECKSUM_AT: usize = 2;
const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::IPV4_HEADER_LEN;

    const HOSTS: [(&str, &str); 2] = [("10.1.0.1", "10.2.0.1"), ("fd01::1", "fd02::1")];

    fn packet((source, destination): (&str, &str), protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
        let mut packet = vec![0; if source.is_ipv4() { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }];
        write_header(&mut packet, source, destination, protocol, 0, payload.len()).unwrap();
        packet.extend(payload);
        packet
    }

    fn answer(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
        let header = Header::parse(packet).unwrap();
        let answer = PacketTooBig::new(packet, &header, mtu)?;
        let mut out = vec![0; answer.len()];
        answer.write(&mut out).unwrap();
        Some(out)
    }

    /// R4301-8.2.1-1.
    #[test]
    fn the_sender_learns_what_fits_from_the_packets_destination() {
        let udp = [0x55; 2000];
        for (hosts, most) in HOSTS.into_iter().zip([MOST_IPV4, MOST_IPV6]) {
            let too_big = packet(hosts, protocol::UDP, &udp);
            let answer = answer(&too_big, 1438).unwrap();
            let header = Header::parse(&answer).unwrap();
            assert_eq!((header.source.to_string(), header.destination.to_string()), (hosts.1.into(), hosts.0.into()));
            assert_eq!((answer.len(), header.total_len), (most, most));
            let icmp = &answer[header.transport_at..];
            let (pseudo, expected) = if header.is_ipv4() {
                assert!(Sum::of(&answer[..20]).is_right());
                (Sum::default(), [3, 4, 0, 0, 5, 0x9e])
            } else {
                (Sum::of_pseudo_header(header.source, header.destination, 58, icmp.len()), [2, 0, 0, 0, 5, 0x9e])
            };
            assert_eq!([&icmp[..2], &icmp[4..8]].concat(), expected);
            assert!(pseudo.plus(Sum::of(icmp)).is_right());
            assert_eq!(icmp[8..], too_big[..icmp.len() - 8]);
        }
    }

    #[test]
    fn short_packets_are_quoted_whole_and_not_what_follows_them() {
        let mut short = packet(HOSTS[0], protocol::TCP, &[0; 20]);
        short.extend([0xee; 9]);
        assert_eq!(answer(&short, 30).unwrap().len(), 20 + 8 + 40);
    }

    #[test]
    fn errors_get_no_answer_and_other_messages_do() {
        for (kind, is_answered) in [(3, false), (4, false), (5, false), (11, false), (12, false), (0, true), (8, true)]
        {
            let icmp = packet(HOSTS[0], protocol::ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(answer(&icmp, 68).is_some(), is_answered, "ICMP type {kind}");
        }
        for (kind, is_answered) in [(1, false), (2, false), (127, false), (128, true), (135, true), (137, false)] {
            let icmp = packet(HOSTS[1], protocol::ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(answer(&icmp, 1280).is_some(), is_answered, "ICMPv6 type {kind}");
        }
        assert!(answer(&packet(HOSTS[0], protocol::ICMP, &[]), 68).is_none());
    }

    #[test]
    fn the_packet_that_an_error_is_about_is_read_though_it_is_cut_off() {
        for hosts in HOSTS {
            let about = packet(hosts, protocol::UDP, &[&[0x12, 0x34, 0, 53][..], &[0; 1996]].concat());
            let error = answer(&about, 1280).unwrap();
            let header = Header::parse(&error).unwrap();
            assert!(is_error(&error, &header));
            let quoted = quoted(&error, &header).unwrap();
            assert_eq!((quoted.source.to_string(), quoted.destination.to_string()), (hosts.0.into(), hosts.1.into()));
            assert_eq!((quoted.source_port, quoted.destination_port), (Some(0x1234), Some(53)));
            assert!(!is_error(&about, &Header::parse(&about).unwrap()));
        }
        let nothing = packet(HOSTS[0], protocol::ICMP, &[3, 4, 0, 0, 0, 0, 0, 0, 0x45, 0]);
        assert_eq!(quoted(&nothing, &Header::parse(&nothing).unwrap()), None);
    }

    #[test]
    fn packets_that_are_not_between_two_hosts_get_no_answer() {
        let host = HOSTS[0].0;
        for other in ["224.0.0.5", "255.255.255.255", "0.0.0.0", "0.1.2.3", "127.0.0.1", "240.0.0.1"] {
            assert!(answer(&packet((host, other), protocol::UDP, &[0; 40]), 68).is_none(), "to {other}");
            assert!(answer(&packet((other, host), protocol::UDP, &[0; 40]), 68).is_none(), "from {other}");
        }
        let host = HOSTS[1].0;
        for other in ["ff02::5", "::", "::1"] {
            assert!(answer(&packet((host, other), protocol::UDP, &[0; 40]), 1280).is_none(), "to {other}");
            assert!(answer(&packet((other, host), protocol::UDP, &[0; 40]), 1280).is_none(), "from {other}");
        }
    }

    #[test]
    fn only_the_first_fragment_gets_an_answer() {
        let mut fragment = packet(HOSTS[0], protocol::UDP, &[0; 40]);
        fragment[6..8].copy_from_slice(&[0x20, 0]);
        assert!(answer(&fragment, 68).is_some());
        fragment[6..8].copy_from_slice(&[0, 9]);
        assert!(answer(&fragment, 68).is_none());
        let mut later = vec![protocol::UDP, 0, 0, 8, 0, 0, 0, 1];
        later.extend([0; 40]);
        assert!(answer(&packet(HOSTS[1], protocol::FRAGMENT, &later), 1280).is_none());
    }
}
