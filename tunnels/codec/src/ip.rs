//! The outer IP header of a tunnel: IPv4 without options (RFC 791 §3.1) or IPv6 without extension headers (RFC 8200 §3).
//!
//! ```text
//! ┌───────┬───────┬───────────────┬───────────────────────────────┐
//! │ Ver=4 │ IHL=5 │ DSCP and ECN  │ Total length                  │
//! ├───────┴───────┴───────────────┼─────┬─────────────────────────┤
//! │ Identification                │Flags│ Fragment offset = 0     │
//! ├───────────────┬───────────────┼─────┴─────────────────────────┤
//! │ Time to live  │ Protocol      │ Header checksum               │
//! ├───────────────┴───────────────┴───────────────────────────────┤
//! │ Source address                                                │
//! ├───────────────────────────────────────────────────────────────┤
//! │ Destination address                                           │
//! └───────────────────────────────────────────────────────────────┘
//! ┌───────┬───────────────┬───────────────────────────────────────┐
//! │ Ver=6 │ DSCP and ECN  │ Flow label                            │
//! ├───────┴───────────────┴───────┬───────────────┬───────────────┤
//! │ Payload length                │ Next header   │ Hop limit     │
//! ├───────────────────────────────┴───────────────┴───────────────┤
//! │ Source address, 128 bits; destination address, 128 bits       │
//! └───────────────────────────────────────────────────────────────┘
//! ```

use std::net::IpAddr;

use crate::checksum::Sum;

/// Octets of an IPv4 header without options.
pub const V4_LEN: usize = 20;
/// Octets of an IPv6 header.
pub const V6_LEN: usize = 40;

/// The header in front of a tunnel's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// What follows: a protocol number.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IPv4: Don't Fragment.
    pub dont_fragment: bool,
    /// IPv4: identification. Without [`Self::dont_fragment`] it must differ between packets (RFC 6864 §4.3).
    pub identification: u16,
}

impl IpHeader {
    /// Octets of the header.
    #[must_use]
    pub fn octets(&self) -> usize {
        if self.destination.is_ipv4() { V4_LEN } else { V6_LEN }
    }

    /// Writes the header in front of `payload_len` octets. `None` when there is no room, the families differ, or the packet would
    /// be too long.
    #[must_use]
    pub fn write(&self, payload_len: usize, out: &mut [u8]) -> Option<()> {
        let &Self { traffic_class, protocol, hop_limit, .. } = self;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let out = out.first_chunk_mut::<V4_LEN>()?;
                let [l0, l1] = u16::try_from(payload_len.checked_add(V4_LEN)?).ok()?.to_be_bytes();
                let [i0, i1] = self.identification.to_be_bytes();
                let flags = if self.dont_fragment { 0x40 } else { 0 };
                let [s0, s1, s2, s3] = source.octets();
                let [d0, d1, d2, d3] = destination.octets();
                #[rustfmt::skip]
                let header = |[c0, c1]: [u8; 2]| [
                    0x45, traffic_class, l0, l1, i0, i1, flags, 0, hop_limit, protocol, c0, c1,
                    s0, s1, s2, s3, d0, d1, d2, d3,
                ];
                *out = header(Sum::of(&header([0, 0])).checksum());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [l0, l1] = u16::try_from(payload_len).ok()?.to_be_bytes();
                let (start, addresses) = out.first_chunk_mut::<V6_LEN>()?.split_first_chunk_mut::<8>()?;
                let (source_out, destination_out) = addresses.split_first_chunk_mut::<16>()?;
                *start = [0x60 | (traffic_class >> 4), traffic_class << 4, 0, 0, l0, l1, protocol, hop_limit];
                *source_out = source.octets();
                *destination_out.first_chunk_mut()? = destination.octets();
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: &str, destination: &str) -> IpHeader {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let (hop_limit, traffic_class) = (63, 0xb9);
        IpHeader {
            source,
            destination,
            protocol: 47,
            hop_limit,
            traffic_class,
            dont_fragment: true,
            identification: 0x0102,
        }
    }

    #[test]
    fn an_ipv4_header_stands_as_in_the_drawing() {
        let mut out = [0; V4_LEN];
        header("192.0.2.1", "198.51.100.2").write(100, &mut out).unwrap();
        assert!(Sum::of(&out).is_right());
        assert_eq!(out[..10], [0x45, 0xb9, 0, 120, 1, 2, 0x40, 0, 63, 47]);
        assert_eq!(out[12..], [192, 0, 2, 1, 198, 51, 100, 2]);
    }

    #[test]
    fn an_ipv6_header_stands_as_in_the_drawing() {
        let mut out = [0; V6_LEN];
        header("2001:db8::1", "2001:db8::2").write(100, &mut out).unwrap();
        assert_eq!(out[..8], [0x6b, 0x90, 0, 0, 0, 100, 47, 63]);
        assert_eq!((out[8], out[23], out[39]), (0x20, 1, 2));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let v4 = header("192.0.2.1", "198.51.100.2");
        assert_eq!(v4.write(100, &mut [0; V4_LEN - 1]), None);
        assert_eq!(v4.write(65_516, &mut [0; V4_LEN]), None);
        assert_eq!(header("::1", "::2").write(65_536, &mut [0; V6_LEN]), None);
        assert_eq!(header("192.0.2.1", "::2").write(0, &mut [0; V6_LEN]), None);
    }
}
