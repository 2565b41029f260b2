//! The virtio-net header in front of every packet of a TUN device with `IFF_VNET_HDR`.

/// What the kernel says about a packet it hands over, and what we say about one we hand to it
/// (virtio 1.2 §5.1.6, `struct virtio_net_hdr`).
///
/// ```text
///  0        1          2             4             6              8               10            12 octets
/// ┌────────┬──────────┬─────────────┬─────────────┬──────────────┬───────────────┬─────────────┐
/// │ flags  │ gso_type │ hdr_len     │ gso_size    │ csum_start   │ csum_offset   │ num_buffers │
/// └────────┴──────────┴─────────────┴─────────────┴──────────────┴───────────────┴─────────────┘
///  all numbers little-endian; num_buffers only in the 12-octet form, where TUN neither reads nor fills it
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`Self::NEEDS_CSUM`] and others.
    pub flags: u8,
    /// One of the `GSO_*` constants, with [`Self::GSO_ECN`] added for TCP segments with CWR.
    pub gso_type: u8,
    /// Octets of IP and transport headers; a hint.
    pub hdr_len: u16,
    /// Octets of payload in each segment.
    pub gso_size: u16,
    /// Where the checksum's coverage starts, from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum stands, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// The checksum at `csum_start + csum_offset` covers only the pseudo header yet.
    pub const NEEDS_CSUM: u8 = 1;
    /// A plain packet.
    pub const GSO_NONE: u8 = 0;
    /// A TCP super-packet over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// A TCP super-packet over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// Several UDP datagrams of one flow (`UDP_SEGMENT`), either family.
    pub const GSO_UDP_L4: u8 = 5;
    /// Added to `gso_type`: the first segment carries CWR.
    pub const GSO_ECN: u8 = 0x80;
    /// Octets of the header in the form that TUN uses by default.
    pub const LEN: usize = 10;

    /// Takes the header off the front of what was read from a TUN device. `header_len` is what the device was set to with
    /// `TUNSETVNETHDRSZ`, usually [`Self::LEN`]. `None` when there is not even a header.
    #[must_use]
    pub fn split_from(read: &[u8], header_len: usize) -> Option<(Self, &[u8])> {
        let (header, packet) = read.split_at_checked(header_len.max(Self::LEN))?;
        let &[flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = header.first_chunk()?;
        let header = Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        };
        Some((header, packet))
    }

    /// The header as written to a TUN device, in the 12-octet form; the first [`Self::LEN`] octets are the short form.
    #[must_use]
    pub fn encode(&self) -> [u8; 12] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1, 0, 0]
    }
}

/// Which super-packets a TUN device takes (`TUNSETOFFLOAD`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP over IPv4 and IPv6 (`TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_TSO_ECN`).
    pub tcp: bool,
    /// UDP (`TUN_F_USO4`, `TUN_F_USO6`; Linux 6.2).
    pub udp: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_and_splitting_are_inverse() {
        let header =
            VnetHeader { flags: 1, gso_type: 0x81, hdr_len: 54, gso_size: 1460, csum_start: 20, csum_offset: 0x1234 };
        let mut read = header.encode().to_vec();
        read.push(0x45);
        assert_eq!(VnetHeader::split_from(&read, 12), Some((header, &read[12..])));
        assert_eq!(VnetHeader::split_from(&read, 10), Some((header, &read[10..])));
        assert_eq!(VnetHeader::split_from(&read[..9], 10), None);
    }

    #[test]
    fn numbers_are_little_endian() {
        let header = VnetHeader { gso_size: 0x0102, ..VnetHeader::default() };
        assert_eq!(header.encode(), [0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
