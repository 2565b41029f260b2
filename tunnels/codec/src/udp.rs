//! UDP headers of tunnels (RFC 768).
//!
//! ```text
//! ┌───────────────────────────────┬───────────────────────────────┐
//! │ Source port                   │ Destination port              │
//! ├───────────────────────────────┼───────────────────────────────┤
//! │ Length, header included       │ Checksum; 0: none             │
//! └───────────────────────────────┴───────────────────────────────┘
//!  16 bits each, in network order
//! ```

use std::net::IpAddr;

use crate::checksum::Sum;

/// The IP protocol number of UDP.
pub const PROTOCOL: u8 = 17;
/// Octets of the header.
pub const LEN: usize = 8;

/// Writes the header of a datagram with `payload_len` octets of payload, without a checksum. `None` when there is no room, or
/// the payload is too long.
#[must_use]
pub fn write(source_port: u16, destination_port: u16, payload_len: usize, out: &mut [u8]) -> Option<()> {
    let [s0, s1] = source_port.to_be_bytes();
    let [d0, d1] = destination_port.to_be_bytes();
    let [l0, l1] = u16::try_from(payload_len.checked_add(LEN)?).ok()?.to_be_bytes();
    *out.first_chunk_mut::<LEN>()? = [s0, s1, d0, d1, l0, l1, 0, 0];
    Some(())
}

/// Computes the checksum of a whole datagram where it needs one: over IPv6 (RFC 8200 §8.1), since not every peer has agreed to go
/// without (RFC 6935 §5); over IPv4 tunnels are better off without (RFC 7348 §5). `None` when the datagram is too short.
#[must_use]
pub fn fill_checksum(source: IpAddr, destination: IpAddr, datagram: &mut [u8]) -> Option<()> {
    if destination.is_ipv4() {
        return Some(());
    }
    let pseudo_header = Sum::of_pseudo_header(source, destination, PROTOCOL, datagram.len());
    let checksum = pseudo_header.plus(Sum::of(datagram)).checksum_never_zero();
    *datagram.get_mut(6..)?.first_chunk_mut()? = checksum;
    Some(())
}

/// The ports and the payload of a datagram. The checksum is not looked at: the kernel, or ESP, has seen to it. `None` when
/// the datagram is shorter than it says.
#[must_use]
pub fn parse(datagram: &[u8]) -> Option<(u16, u16, &[u8])> {
    let &[s0, s1, d0, d1, l0, l1, _, _] = datagram.first_chunk::<LEN>()?;
    let payload = datagram.get(LEN..usize::from(u16::from_be_bytes([l0, l1])))?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R8200-8.1-1, R7348-5-2.
    #[test]
    fn only_ipv6_demands_a_checksum() {
        let mut datagram = [0; 10];
        write(49_152, 4789, 2, &mut datagram).unwrap();
        datagram[8..].copy_from_slice(&[7, 9]);
        fill_checksum([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), &mut datagram).unwrap();
        assert_eq!(datagram, [0xc0, 0, 0x12, 0xb5, 0, 10, 0, 0, 7, 9]);
        let (source, destination) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        fill_checksum(source, destination, &mut datagram).unwrap();
        let sum = Sum::of_pseudo_header(source, destination, PROTOCOL, datagram.len()).plus(Sum::of(&datagram));
        assert!(datagram[6..8] != [0, 0] && sum.is_right());
    }

    #[test]
    fn lengths_beyond_the_datagram_are_refused_and_less_is_trimmed() {
        let mut datagram = [0; 12];
        write(1, 2, 3, &mut datagram).unwrap();
        assert_eq!(parse(&datagram), Some((1, 2, &[0, 0, 0][..])));
        for (len, parsed) in [(13, None), (7, None), (8, Some((1, 2, &[][..])))] {
            datagram[5] = len;
            assert_eq!(parse(&datagram), parsed);
        }
        assert_eq!(parse(&datagram[..7]), None);
        assert_eq!(write(1, 2, 65_528, &mut datagram), None);
    }
}
