//! What outer headers say besides addresses, for people and in one word.

/// What the outer IP header of a packet says besides addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OuterHeader {
    /// DSCP and ECN (`IP_TOS`, `IPV6_TCLASS`).
    pub traffic_class: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Flow label of an IPv6 header; it has 20 bits.
    pub flow_label: u32,
    /// Whether an IPv4 header has Don't Fragment, and an IPv6 packet is refused when it is too long.
    pub dont_fragment: bool,
    /// Whether what the kernel learned about the path counts, or only what its first link carries.
    pub heeds_path_mtu: bool,
    /// The packet is longer than the path carries, which is this many octets, and is to be fragmented; only for packets that
    /// bring their own header.
    pub cut_to: Option<u16>,
}

/// An [`OuterHeader`] in one word, so that copying and comparing it costs nothing, and taking some of it from the inner packet is a
/// mask.
///
/// ```text
///  63          48      38      37      36       35        16         8               0
/// ┌──────────────┬───────┬───────┬───────┬────────┬──────────┬───────────┬───────────────┐
/// │ cut to       │ cut?  │ heeds │ don't │        │ flow     │ hop limit │ traffic class │
/// │              │       │ MTU   │ frag. │        │ label    │           │               │
/// └──────────────┴───────┴───────┴───────┴────────┴──────────┴───────────┴───────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackedOuter(u64);

impl PackedOuter {
    const HOP_LIMIT: u32 = 8;
    const FLOW_LABEL: u32 = 16;
    const DONT_FRAGMENT: u32 = 36;
    const HEEDS_PATH_MTU: u32 = 37;
    const IS_CUT: u32 = 38;
    const CUT_TO: u32 = 48;
    const FLOW_LABEL_BITS: u32 = 0x000f_ffff;

    /// What the header of an inner packet says of what may be copied to the outside. IPv6 packets have Don't Fragment.
    #[inline]
    pub(crate) fn of_inner(traffic_class: u8, hop_limit: u8, flow_label: u32, dont_fragment: bool) -> Self {
        let header = OuterHeader { traffic_class, hop_limit, flow_label, dont_fragment, ..OuterHeader::default() };
        header.into()
    }

    /// The header with what `inner` says where `copied` has all bits; there it must have none itself.
    #[inline]
    pub(crate) fn with_copied(self, inner: Self, copied: Self) -> Self {
        Self(self.0 | inner.0 & copied.0)
    }
}

impl From<OuterHeader> for PackedOuter {
    #[inline]
    fn from(header: OuterHeader) -> Self {
        let OuterHeader { traffic_class, hop_limit, flow_label, dont_fragment, heeds_path_mtu, cut_to } = header;
        let cut_to = cut_to.map_or(0, |octets| u64::from(octets) << Self::CUT_TO | 1 << Self::IS_CUT);
        Self(
            u64::from(traffic_class)
                | u64::from(hop_limit) << Self::HOP_LIMIT
                | u64::from(flow_label & Self::FLOW_LABEL_BITS) << Self::FLOW_LABEL
                | u64::from(dont_fragment) << Self::DONT_FRAGMENT
                | u64::from(heeds_path_mtu) << Self::HEEDS_PATH_MTU
                | cut_to,
        )
    }
}

impl From<PackedOuter> for OuterHeader {
    fn from(PackedOuter(word): PackedOuter) -> Self {
        let bit = |at: u32| word >> at & 1 == 1;
        Self {
            traffic_class: word as u8,
            hop_limit: (word >> PackedOuter::HOP_LIMIT) as u8,
            flow_label: (word >> PackedOuter::FLOW_LABEL) as u32 & PackedOuter::FLOW_LABEL_BITS,
            dont_fragment: bit(PackedOuter::DONT_FRAGMENT),
            heeds_path_mtu: bit(PackedOuter::HEEDS_PATH_MTU),
            cut_to: bit(PackedOuter::IS_CUT).then_some((word >> PackedOuter::CUT_TO) as u16),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_survive_being_packed(
            traffic_class: u8,
            hop_limit: u8,
            flow_label in 0u32..1 << 20,
            dont_fragment: bool,
            heeds_path_mtu: bool,
            cut_to: Option<u16>,
        ) {
            let header = OuterHeader { traffic_class, hop_limit, flow_label, dont_fragment, heeds_path_mtu, cut_to };
            prop_assert_eq!(OuterHeader::from(PackedOuter::from(header)), header);
        }
    }
}
