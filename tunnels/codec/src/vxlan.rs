//! Virtual eXtensible LAN (RFC 7348 §5): an Ethernet frame in UDP.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! ├─┼─┼─┼─┼─┼─┼─┼─┼───────────────────────────────────────────────┤
//! │R│R│R│R│I│R│R│R│ Reserved                                      │
//! ├─┴─┴─┴─┴─┴─┴─┴─┴───────────────────────────────┬───────────────┤
//! │ VXLAN network identifier (VNI)                │ Reserved      │
//! └───────────────────────────────────────────────┴───────────────┘
//! ```

/// Octets of the header.
pub const LEN: usize = 8;

/// The I flag: the VNI is valid.
const VALID: u8 = 0x08;

/// Why a datagram is no VXLAN packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VxlanError {
    /// It ends within the header.
    #[error("the datagram ends within its VXLAN header")]
    Short,
    /// The I flag is not set.
    #[error("a VXLAN header without a valid VNI")]
    NoVni,
}

/// Writes the header for `vni`, of which the low 24 bits count. `None` when there is no room.
#[must_use]
pub fn write(vni: u32, out: &mut [u8]) -> Option<()> {
    let [_, v0, v1, v2] = vni.to_be_bytes();
    *out.first_chunk_mut::<LEN>()? = [VALID, 0, 0, 0, v0, v1, v2, 0];
    Some(())
}

/// The VNI and the frame of a datagram's payload. Reserved bits are ignored (RFC 7348 §5).
///
/// # Errors
/// [`VxlanError`].
pub fn parse(payload: &[u8]) -> Result<(u32, &[u8]), VxlanError> {
    let (&[flags, _, _, _, v0, v1, v2, _], frame) = payload.split_first_chunk::<LEN>().ok_or(VxlanError::Short)?;
    if flags & VALID == 0 {
        return Err(VxlanError::NoVni);
    }
    Ok((u32::from_be_bytes([0, v0, v1, v2]), frame))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// R7348-5-1.
    #[test]
    fn the_i_flag_is_set_and_demanded_and_everything_reserved_is_zero_and_ignored() {
        let mut header = [0xff; LEN];
        write(0x12_3456, &mut header).unwrap();
        assert_eq!(header, [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(parse(&[0xff, 1, 2, 3, 0x12, 0x34, 0x56, 4, 9]), Ok((0x12_3456, &[9][..])));
        assert_eq!(parse(&[0xf7, 0, 0, 0, 0x12, 0x34, 0x56, 0]), Err(VxlanError::NoVni));
        assert_eq!(parse(&header[..7]), Err(VxlanError::Short));
        assert_eq!(write(1, &mut [0; 7]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(vni in 0u32..1 << 24, frame in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut packet = vec![0; LEN];
            write(vni, &mut packet).unwrap();
            packet.extend(&frame);
            prop_assert_eq!(parse(&packet), Ok((vni, &frame[..])));
        }

        #[test]
        fn any_octets_are_read_without_panic(packet in proptest::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(parse(&packet).is_ok(), packet.len() >= LEN && packet[0] & 8 != 0);
        }
    }
}
