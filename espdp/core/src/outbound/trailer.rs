//! What stands behind the payload of an ESP packet.

/// Writes padding, its length and the next header to the start of `behind`, which has room for them and an ICV of eight octets at
/// least (RFC 4303 §2.4: 1, 2, 3 …). What will be the ICV may be overwritten.
#[inline]
pub(super) fn write(behind: &mut [u8], padding: usize, next_header: u8) {
    match (short(padding, next_header), behind.first_chunk_mut()) {
        (Some(short), Some(trailer)) => *trailer = short,
        _ => write_long(behind, padding, next_header),
    }
}

/// Padding of none to three octets, its length and the next header, and zeros where the ICV will be.
#[inline]
fn short(padding: usize, next_header: u8) -> Option<[u8; 8]> {
    /// Without next header, the first octet lowest.
    const SHORT: [u64; 4] = [0, 0x01_01, 0x02_02_01, 0x03_03_02_01];
    let short = SHORT.get(padding)?;
    Some((short | u64::from(next_header) << (8 * (padding + 1))).to_le_bytes())
}

/// The same for padding of any length.
fn write_long(behind: &mut [u8], padding: usize, next_header: u8) {
    let values = (1u8..).take(padding).chain([padding as u8, next_header]);
    for (octet, value) in behind.iter_mut().zip(values) {
        *octet = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_trailers_are_like_long_ones() {
        for padding in 0..=3 {
            let mut long = [0; 8];
            write_long(&mut long, padding, 41);
            assert_eq!(short(padding, 41), Some(long));
        }
        assert_eq!(short(4, 41), None);
    }
}
