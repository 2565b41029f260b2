//! The maximum segment size that TCP announces, lowered to what a tunnel carries.

use crate::checksum::Sum;
use crate::segment::{TCP_CHECKSUM_AT, put, tcp_flags, tcp_header_len};

/// Lowers the MSS option of a SYN to `most` octets and repairs the checksum, which must be complete. What is no SYN, has no such
/// option or announces less stays as it is: a receiver must send no more than 536 octets then (RFC 9293 §3.7.1), and to raise
/// the value would be a lie. `transport` starts with the TCP header.
pub(crate) fn clamp(transport: &mut [u8], most: u16) {
    if !is_syn(transport) {
        return;
    }
    let Some(header_len) = tcp_header_len(transport) else { return };
    let most = most.max(SMALLEST);
    let mut at = OPTIONS_AT;
    // Every turn goes at least one octet on, so there are never more than 40.
    while let Some(value_at) = next_mss(transport, header_len, &mut at) {
        lower(transport, value_at, most);
    }
}

/// Whether `transport`, a TCP header, is of a SYN.
#[inline]
fn is_syn(transport: &[u8]) -> bool {
    transport.get(FLAGS_AT).is_some_and(|flags| flags & tcp_flags::SYN != 0)
}

/// Where the value of the next MSS option stands, from option `at` on.
fn next_mss(transport: &[u8], header_len: usize, at: &mut usize) -> Option<usize> {
    while *at < header_len {
        let option = transport.get(*at..header_len)?;
        let len = match option {
            [END, ..] => return None,
            [NO_OPERATION, ..] => 1,
            [_, len, ..] if usize::from(*len) >= 2 => usize::from(*len),
            _ => return None,
        };
        let start = *at;
        *at = at.checked_add(len)?;
        if matches!(option, [MSS, MSS_LEN, _, _, ..]) {
            return start.checked_add(2);
        }
    }
    None
}

fn lower(transport: &mut [u8], value_at: usize, most: u16) -> Option<()> {
    let old: [u8; 2] = *transport.get(value_at..)?.first_chunk()?;
    if u16::from_be_bytes(old) <= most {
        return Some(());
    }
    let new = most.to_be_bytes();
    put(transport, value_at, new)?;
    let checksum: [u8; 2] = *transport.get(TCP_CHECKSUM_AT..)?.first_chunk()?;
    // RFC 1624 §3, equation 3. An option may stand at an odd offset; its octets then have each other's weight.
    let word = |[high, low]: [u8; 2]| if value_at.is_multiple_of(2) { [high, low] } else { [low, high] };
    let sum = Sum::of(&checksum.map(|octet| !octet)).without(word(old)).plus(Sum::of(&word(new)));
    put(transport, TCP_CHECKSUM_AT, sum.checksum())
}

const FLAGS_AT: usize = 13;
const OPTIONS_AT: usize = 20;
/// Less than this no stack takes (Linux: `TCP_MIN_MSS` and a little).
const SMALLEST: u16 = 88;

// RFC 9293 §3.1.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pseudo_header(len: usize) -> Sum {
        Sum::of_pseudo_header([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), 6, len)
    }

    fn tcp(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let options_len = options.len().next_multiple_of(4);
        let mut packet = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0x50 + ((options_len as u8) << 2), flags];
        packet.extend([0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(options);
        packet.resize(20 + options_len, 0);
        packet.extend(data);
        let checksum = pseudo_header(packet.len()).plus(Sum::of(&packet)).checksum();
        packet[16..18].copy_from_slice(&checksum);
        packet
    }

    fn is_right(packet: &[u8]) -> bool {
        pseudo_header(packet.len()).plus(Sum::of(packet)).is_right()
    }

    #[test]
    fn the_value_is_lowered_wherever_it_stands() {
        let cases: [(&[u8], usize); 3] =
            [(&[2, 4, 5, 0xb4], 22), (&[1, 2, 4, 5, 0xb4], 23), (&[4, 2, 1, 3, 3, 7, 2, 4, 5, 0xb4], 28)];
        for (options, at) in cases {
            let mut packet = tcp(tcp_flags::SYN, options, &[]);
            clamp(&mut packet, 1300);
            assert_eq!(packet[at..at + 2], 1300u16.to_be_bytes(), "{options:?}");
            assert!(is_right(&packet), "{options:?}");
        }
    }

    #[test]
    fn a_lower_value_and_what_is_no_syn_stay() {
        let options = [2, 4, 4, 0];
        for (flags, most) in [(tcp_flags::SYN, 1024), (tcp_flags::SYN | tcp_flags::ACK, 1460), (tcp_flags::ACK, 500)] {
            let before = tcp(flags, &options, b"data");
            let mut after = before.clone();
            clamp(&mut after, most);
            assert_eq!(after, before);
        }
    }

    #[test]
    fn nothing_is_lowered_to_what_no_stack_takes() {
        let mut packet = tcp(tcp_flags::SYN, &[2, 4, 5, 0xb4], &[]);
        clamp(&mut packet, 0);
        assert_eq!(packet[22..24], SMALLEST.to_be_bytes());
    }

    #[test]
    fn what_follows_the_end_of_the_options_is_not_an_option() {
        let before = tcp(tcp_flags::SYN, &[0, 0, 0, 0, 2, 4, 5, 0xb4], &[2, 4, 5, 0xb4]);
        let mut after = before.clone();
        clamp(&mut after, 100);
        assert_eq!(after, before);
    }

    proptest! {
        #[test]
        fn any_options_keep_a_right_checksum_and_nothing_but_the_option_changes(
            options in proptest::collection::vec(0u8..9, 0..40),
            most in 88u16..2000,
        ) {
            let before = tcp(tcp_flags::SYN, &options, b"x");
            let mut after = before.clone();
            clamp(&mut after, most);
            prop_assert!(is_right(&after));
            prop_assert_eq!(&after[..16], &before[..16]);
            prop_assert_eq!(after.last(), before.last());
        }

        #[test]
        fn any_octets_are_survived(mut octets in proptest::collection::vec(any::<u8>(), 0..80), most: u16) {
            let len = octets.len();
            clamp(&mut octets, most);
            prop_assert_eq!(octets.len(), len);
        }
    }
}
