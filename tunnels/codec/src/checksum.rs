//! The Internet checksum (RFC 1071), fast enough for every octet of a tunnel.
//!
//! Sums are kept in the host's octet order and unfolded; the one's complement sum does not care (RFC 1071 §2).

use std::net::IpAddr;

/// A one's complement sum that is not folded yet. Wide enough for 2³² 32-bit words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `data`, as if a zero octet followed when its length is odd.
    #[must_use]
    #[inline]
    pub fn of(data: &[u8]) -> Self {
        Self(esp_engines::checksum::sum(data))
    }

    /// Copies `from` to `to`, which must be as long, and sums it up on the way.
    #[must_use]
    #[inline]
    pub fn of_copy(from: &[u8], to: &mut [u8]) -> Self {
        Self(esp_engines::checksum::copy(from, to))
    }

    /// The sum of the pseudo header that TCP, UDP and ICMPv6 checksums cover (RFC 9293 §3.1, RFC 8200 §8.1).
    #[must_use]
    #[inline]
    pub fn of_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, transport_len: usize) -> Self {
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::of_short(&source.octets()).plus(Self::of_short(&destination.octets()))
            }
            (source, destination) => Self::of_address(source).plus(Self::of_address(destination)),
        };
        addresses.plus(Self::of_protocol(protocol, transport_len))
    }

    /// What a pseudo header has besides the addresses.
    #[must_use]
    #[inline]
    pub fn of_protocol(protocol: u8, transport_len: usize) -> Self {
        let len = u32::try_from(transport_len).unwrap_or(u32::MAX);
        Self::of_short(&len.to_be_bytes()).plus(Self::of_short(&[0, protocol]))
    }

    fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_short(&address.octets()),
            IpAddr::V6(address) => Self::of_short(&address.octets()),
        }
    }

    /// For a few octets.
    fn of_short(data: &[u8]) -> Self {
        let (words, rest) = data.as_chunks::<2>();
        let sum = words.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum();
        let last = rest.first().map_or(0, |octet| u64::from(u16::from_ne_bytes([*octet, 0])));
        Self(sum).plus(Self(last))
    }

    /// Both sums; the left part must have had an even number of octets.
    #[must_use]
    #[inline]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The sum without the 16-bit field `octets`, which it covers.
    #[must_use]
    #[inline]
    pub fn without(self, octets: [u8; 2]) -> Self {
        // RFC 1624: subtracting is adding the complement.
        self.plus(Self(u64::from(!u16::from_ne_bytes(octets))))
    }

    /// The folded sum as it stands in a packet where the rest is still to be added (virtio's `NEEDS_CSUM`).
    #[must_use]
    #[inline]
    pub fn partial(self) -> [u8; 2] {
        self.fold().to_ne_bytes()
    }

    /// The checksum field that makes the sum right; the field itself must have been zero.
    #[must_use]
    #[inline]
    pub fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// As [`Self::checksum`], with zero written as all ones, which UDP needs (RFC 768) and TCP does not mind.
    #[must_use]
    #[inline]
    pub fn checksum_never_zero(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        }
    }

    /// Whether data that contains its own checksum is intact.
    #[must_use]
    #[inline]
    pub fn is_right(self) -> bool {
        self.fold() == u16::MAX
    }

    fn fold(self) -> u16 {
        let mut sum = self.0;
        while let high @ 1.. = sum >> 16 {
            sum = (sum & 0xffff).wrapping_add(high);
        }
        u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, word by word.
    fn naive(data: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for word in data.chunks(2) {
            sum += u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).partial(), [0xdd, 0xf2]);
    }

    proptest! {
        #[test]
        fn fast_and_naive_sums_agree(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assume!(data.iter().any(|octet| *octet != 0));
            let mut copy = vec![0; data.len()];
            prop_assert_eq!(Sum::of(&data).checksum(), naive(&data));
            prop_assert_eq!(Sum::of_copy(&data, &mut copy).checksum(), naive(&data));
            prop_assert_eq!(copy, data);
        }

        #[test]
        fn a_field_can_be_taken_out_of_a_sum(mut data in proptest::collection::vec(any::<u8>(), 4..80)) {
            data[0] |= 1;
            let without = Sum::of(&data).without([data[2], data[3]]);
            (data[2], data[3]) = (0, 0);
            prop_assert_eq!(without.checksum(), naive(&data));
        }
    }

    #[test]
    fn intact_data_is_right_and_damaged_data_is_not() {
        let mut data = [0x45, 0, 0, 20, 1, 2, 3, 4];
        let checksum = Sum::of(&data[..6]).checksum();
        data[6..].copy_from_slice(&checksum);
        assert!(Sum::of(&data).is_right());
        data[0] ^= 1;
        assert!(!Sum::of(&data).is_right());
    }
}
