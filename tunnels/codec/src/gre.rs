//! Generic Routing Encapsulation, version 0 (RFC 2784) with key and sequence number (RFC 2890).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! ├─┼─┼─┼─┼─────────────────┼─────┼───────────────────────────────┤
//! │C│R│K│S│ Reserved0       │ Ver │ Protocol type (an EtherType)  │
//! ├─┴─┴─┴─┴─────────────────┴─────┼───────────────────────────────┤
//! │ Checksum (if C)               │ Reserved1 (if C)              │
//! ├───────────────────────────────┴───────────────────────────────┤
//! │ Key (if K)                                                    │
//! ├───────────────────────────────────────────────────────────────┤
//! │ Sequence number (if S)                                        │
//! └───────────────────────────────────────────────────────────────┘
//!  all numbers in network order
//! ```

use crate::checksum::Sum;

/// The IP protocol number of GRE.
pub const PROTOCOL: u8 = 47;

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreHeader {
    /// What is carried: an EtherType, see [`crate::ethernet::ether_type`].
    pub protocol: u16,
    /// Whether there is a checksum over header and payload.
    pub has_checksum: bool,
    /// The key.
    pub key: Option<u32>,
    /// The sequence number.
    pub sequence: Option<u32>,
}

/// Why a packet is no GRE packet that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreError {
    /// It ends within the header.
    #[error("the packet ends within its GRE header")]
    Short,
    /// RFC 2784 §2.3.1: only version 0; 1 is PPTP's.
    #[error("GRE version {0} where 0 was expected")]
    Version(u8),
    /// Routing, strict source route and recursion control are of RFC 1701, which RFC 2784 §2.3 tells to drop.
    #[error("GRE with routing or other fields of RFC 1701")]
    Routing,
    /// The checksum is wrong.
    #[error("the GRE checksum is wrong")]
    Checksum,
}

const CHECKSUM: u8 = 0x80;
const KEY: u8 = 0x20;
const SEQUENCE: u8 = 0x10;
/// Bits 1, 4 and 5: those of bits 1 to 5 that RFC 2890 did not give a new meaning.
const RFC_1701: u8 = 0x4c;
const CHECKSUM_AT: usize = 4;

impl GreHeader {
    /// Octets of the longest header.
    pub const LONGEST: usize = 16;

    /// Octets of this header.
    #[must_use]
    pub fn octets(&self) -> usize {
        let optional = [self.has_checksum, self.key.is_some(), self.sequence.is_some()];
        optional.into_iter().filter(|is_there| *is_there).count().saturating_add(1).saturating_mul(4)
    }

    /// Writes the header to the first [`Self::octets`] octets of `out`, its checksum zero until [`fill_checksum`]. `None` when
    /// there is no room.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> Option<()> {
        let flag = |is_there, flag| if is_there { flag } else { 0 };
        let flags =
            flag(self.has_checksum, CHECKSUM) | flag(self.key.is_some(), KEY) | flag(self.sequence.is_some(), SEQUENCE);
        let (first, mut rest) = out.split_first_chunk_mut::<4>()?;
        let [p0, p1] = self.protocol.to_be_bytes();
        *first = [flags, 0, p0, p1];
        let checksum = self.has_checksum.then_some(0);
        for field in [checksum, self.key, self.sequence].into_iter().flatten() {
            let (here, behind) = rest.split_first_chunk_mut::<4>()?;
            *here = u32::to_be_bytes(field);
            rest = behind;
        }
        Some(())
    }

    /// Reads the header of `packet` and gives its payload. A checksum is verified wherever there is one (RFC 2784 §2.2).
    ///
    /// # Errors
    /// [`GreError`].
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), GreError> {
        let (&[flags, version, p0, p1], mut rest) = packet.split_first_chunk::<4>().ok_or(GreError::Short)?;
        // Bits 6 to 12 are ignored (RFC 2784 §2.3).
        if version & 0x07 != 0 {
            return Err(GreError::Version(version & 0x07));
        }
        if flags & RFC_1701 != 0 {
            return Err(GreError::Routing);
        }
        let mut field = |flag| {
            if flags & flag == 0 {
                return Ok(None);
            }
            let (here, behind) = rest.split_first_chunk::<4>().ok_or(GreError::Short)?;
            rest = behind;
            Ok(Some(u32::from_be_bytes(*here)))
        };
        let has_checksum = field(CHECKSUM)?.is_some();
        let (key, sequence) = (field(KEY)?, field(SEQUENCE)?);
        if has_checksum && !Sum::of(packet).is_right() {
            return Err(GreError::Checksum);
        }
        Ok((Self { protocol: u16::from_be_bytes([p0, p1]), has_checksum, key, sequence }, rest))
    }
}

/// Computes the checksum of a whole GRE packet that has one (RFC 2784 §2.5). `None` when it is too short for that.
#[must_use]
pub fn fill_checksum(packet: &mut [u8]) -> Option<()> {
    let checksum = Sum::of(packet).checksum();
    *packet.get_mut(CHECKSUM_AT..)?.first_chunk_mut()? = checksum;
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ethernet::ether_type;

    fn write(header: &GreHeader, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; header.octets()];
        header.write(&mut packet).unwrap();
        packet.extend(payload);
        if header.has_checksum {
            fill_checksum(&mut packet).unwrap();
        }
        packet
    }

    /// R2784-2.3-1, R2784-2.3.1-1.
    #[test]
    fn a_plain_header_is_four_octets() {
        let header = GreHeader { protocol: ether_type::IPV4, has_checksum: false, key: None, sequence: None };
        assert_eq!(write(&header, &[]), [0, 0, 0x08, 0x00]);
    }

    /// R2890-2-1.
    #[test]
    fn all_fields_stand_in_the_order_of_the_drawing() {
        let header =
            GreHeader { protocol: ether_type::TEB, has_checksum: true, key: Some(0x0102_0304), sequence: Some(5) };
        let packet = write(&header, &[0xaa, 0xbb]);
        // ~(b000 + 6558 + 0102 + 0304 + 0005 + aabb), folded.
        assert_eq!(packet, [0xb0, 0, 0x65, 0x58, 0x3b, 0xe0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 5, 0xaa, 0xbb]);
        assert_eq!(GreHeader::parse(&packet), Ok((header, &[0xaa, 0xbb][..])));
    }

    /// R2784-2.3-1, R2784-2.3.1-1.
    #[test]
    fn old_and_foreign_headers_are_refused_and_reserved_bits_ignored() {
        let parse =
            |flags: u8, version: u8| GreHeader::parse(&[flags, version, 8, 0]).map(|(header, _)| header.protocol);
        assert_eq!(parse(0, 0), Ok(0x0800));
        assert_eq!(parse(0, 1), Err(GreError::Version(1)));
        for bit in [0x40, 0x08, 0x04] {
            assert_eq!(parse(bit, 0), Err(GreError::Routing));
        }
        assert_eq!(parse(0x03, 0xf8), Ok(0x0800));
        assert_eq!(parse(0x20, 0), Err(GreError::Short));
    }

    /// R2784-2.2-1.
    #[test]
    fn a_checksum_is_verified_even_where_nobody_asked_for_one() {
        let header = GreHeader { protocol: ether_type::IPV6, has_checksum: true, key: None, sequence: None };
        let mut packet = write(&header, &[1, 2, 3]);
        assert!(GreHeader::parse(&packet).is_ok());
        packet[10] ^= 1;
        assert_eq!(GreHeader::parse(&packet), Err(GreError::Checksum));
    }

    #[test]
    fn there_must_be_room_for_the_whole_header() {
        let header = GreHeader { protocol: 0, has_checksum: false, key: Some(1), sequence: Some(2) };
        assert_eq!(header.octets(), 12);
        assert_eq!(header.write(&mut [0; 11]), None);
        assert_eq!(fill_checksum(&mut [0; 5]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            protocol in any::<u16>(), has_checksum in any::<bool>(), key in any::<Option<u32>>(),
            sequence in any::<Option<u32>>(), payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let header = GreHeader { protocol, has_checksum, key, sequence };
            let packet = write(&header, &payload);
            prop_assert_eq!(packet.len(), header.octets() + payload.len());
            prop_assert_eq!(GreHeader::parse(&packet), Ok((header, &payload[..])));
        }

        #[test]
        fn any_octets_are_read_without_panic(packet in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok((header, payload)) = GreHeader::parse(&packet) {
                prop_assert_eq!(header.octets() + payload.len(), packet.len());
            }
        }
    }
}
