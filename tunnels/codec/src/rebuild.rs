//! Whole packets, put together again of what is known of their headers, for those who look on.

use crate::ip::IpHeader;
use crate::udp;

/// The first `most` octets of a packet with this IP header, `ports` (source, destination) where it is in UDP, and `payload`; and how
/// many octets all of it has. There is no checksum in the UDP header. `None` when the packet would be longer than any packet, or the
/// header's families differ.
#[must_use]
pub fn packet(ip: &IpHeader, ports: Option<(u16, u16)>, payload: &[u8], most: usize) -> Option<(Vec<u8>, usize)> {
    let udp_len = if ports.is_some() { udp::LEN } else { 0 };
    let front = ip.octets().checked_add(udp_len)?;
    let whole = front.checked_add(payload.len())?;
    let mut octets = vec![0; front];
    ip.write(payload.len().checked_add(udp_len)?, &mut octets)?;
    if let Some((source, destination)) = ports {
        udp::write(source, destination, payload.len(), octets.get_mut(ip.octets()..)?)?;
    }
    octets.extend(payload.iter().take(most.saturating_sub(front)));
    octets.truncate(most);
    Some((octets, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(protocol: u8) -> IpHeader {
        let (source, destination) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        IpHeader {
            source,
            destination,
            protocol,
            hop_limit: 64,
            traffic_class: 0,
            dont_fragment: true,
            identification: 0,
        }
    }

    #[test]
    fn a_packet_has_its_headers_and_as_much_of_the_rest_as_is_wanted() {
        let (octets, len) = packet(&header(udp::PROTOCOL), Some((4500, 4501)), &[7; 100], 60).unwrap();
        assert_eq!((octets.len(), len), (60, 128));
        assert_eq!(octets[2..4], [0, 128]);
        assert_eq!(octets[20..28], [0x11, 0x94, 0x11, 0x95, 0, 108, 0, 0]);
        assert_eq!(octets[28..], [7; 32]);
        let (octets, len) = packet(&header(50), None, &[7; 4], 10).unwrap();
        assert_eq!((octets.len(), len), (10, 24));
    }

    #[test]
    fn what_is_no_packet_is_not_put_together() {
        assert!(packet(&header(50), None, &[0; 65536], 100).is_none());
        let mixed = IpHeader { source: "2001:db8::1".parse().unwrap(), ..header(50) };
        assert!(packet(&mixed, None, &[], 100).is_none());
    }
}
