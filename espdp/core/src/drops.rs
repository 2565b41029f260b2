//! Why packets are dropped, and how often.

use espdp_api::DropCount;

/// Why a packet went no further. Every exit from the data path is one of these, counted for its SA where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum DropReason {
    /// Outbound: not an IP packet, or its lengths contradict each other.
    Malformed,
    /// Outbound: the vnet header does not fit the packet, or asks for an offload that was never offered.
    BadVnetHeader,
    /// Outbound: no policy of the interface selects the packet (RFC 4301 §5: discard).
    NoPolicy,
    /// Outbound: the packet's policy says discard (RFC 4301 §4.4.1).
    Discard,
    /// A fragment but the first one of a packet, or one that is cut off: which policy it belongs to depends on ports that it
    /// does not show and that nothing told before (RFC 4301 §7.3).
    HiddenPorts,
    /// Outbound: the packet's policy has no active SA.
    NoSa,
    /// Outbound: the policy selects the packet, its SA does not, or is in transport mode between other addresses.
    OutsideSa,
    /// Outbound: the ESP packet would not fit in a datagram.
    TooBig,
    /// Transport mode, outbound: a fragment, IPv4 options, or extension headers that belong in front of ESP.
    TransportHeader,
    /// A hard limit or the end of the sequence numbers is reached.
    HardLimit,
    /// The cipher refused the packet.
    Crypto,
    /// Inbound: shorter than the SA's headers, trailer and ICV, or not a multiple of its block.
    Short,
    /// Inbound: an IP fragment; ESP is for whole packets (RFC 4303 §3.4.1).
    Fragment,
    /// Inbound: more packets in one receive than a batch holds.
    Overflow,
    /// Inbound: nobody has this SPI.
    UnknownSpi,
    /// Inbound: the sequence number was seen before.
    Replay,
    /// Inbound: the sequence number lies before the replay window.
    ReplayTooOld,
    /// Inbound: the ICV is wrong.
    BadIcv,
    /// Inbound: the padding is longer than the payload or not 1, 2, 3 …
    BadPadding,
    /// Inbound: the next header does not fit the mode.
    NextHeader,
    /// Inbound: the inner packet's version or lengths are wrong.
    BadInner,
    /// Inbound: the inner packet is one of another policy than the SA's, or of none (RFC 4301 §5.2 step 4).
    OtherPolicy,
    /// Inbound: the inner packet is outside the SA's selectors (RFC 4301 §5.2).
    Selectors,
    /// Inbound: congestion was marked on the outer header of a packet that cannot carry the mark (RFC 6040 §4.2).
    Ecn,
    /// Inbound: a dummy packet (RFC 4303 §2.6); not an error.
    Dummy,
    /// Bridge: the frame came by an interface that is no port of any domain.
    NoBridge,
    /// Bridge: the sender is a group address or zero, or a static station that is behind another port.
    BridgeSource,
    /// Bridge: for the neighbour on the link only (IEEE 802.1Q-2018 §8.6.3).
    BridgeReserved,
    /// Bridge: nobody knows where the destination is, and such frames are not flooded, or there is nobody else.
    BridgeUnknown,
    /// Bridge: the destination is behind the port that the frame came by; not an error.
    BridgeSamePort,
    /// Bridge: the destination is behind a port of the same split-horizon group.
    SplitHorizon,
    /// Outbound: a multipoint tunnel has no next hop for the packet.
    NoNextHop,
    /// Inbound: not the tunnel's protocol, or its header is cut off, of another version, or has a wrong checksum.
    TunnelHeader,
    /// Inbound: a tunnel's packet between other addresses than its ends.
    TunnelEnds,
    /// Inbound: key, VNI, session or cookie is not the tunnel's.
    TunnelKey,
    /// Inbound: the tunnel's sequence number was overtaken.
    TunnelOrder,
    /// A packet in clear of a tunnel that nobody has, or from the inside of a tunnel that has no ends yet.
    NoTunnel,
    /// Inbound: a packet in clear of a tunnel whose packets must be protected.
    ClearTunnel,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 38] = [
        Self::Malformed,
        Self::BadVnetHeader,
        Self::NoPolicy,
        Self::Discard,
        Self::HiddenPorts,
        Self::NoSa,
        Self::OutsideSa,
        Self::TooBig,
        Self::TransportHeader,
        Self::HardLimit,
        Self::Crypto,
        Self::Short,
        Self::Fragment,
        Self::Overflow,
        Self::UnknownSpi,
        Self::Replay,
        Self::ReplayTooOld,
        Self::BadIcv,
        Self::BadPadding,
        Self::NextHeader,
        Self::BadInner,
        Self::OtherPolicy,
        Self::Selectors,
        Self::Ecn,
        Self::Dummy,
        Self::NoBridge,
        Self::BridgeSource,
        Self::BridgeReserved,
        Self::BridgeUnknown,
        Self::BridgeSamePort,
        Self::SplitHorizon,
        Self::NoNextHop,
        Self::TunnelHeader,
        Self::TunnelEnds,
        Self::TunnelKey,
        Self::TunnelOrder,
        Self::NoTunnel,
        Self::ClearTunnel,
    ];

    /// The stable name, for statistics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadVnetHeader => "bad_vnet_header",
            Self::NoPolicy => "no_policy",
            Self::Discard => "discard",
            Self::HiddenPorts => "hidden_ports",
            Self::NoSa => "no_sa",
            Self::OutsideSa => "outside_sa",
            Self::TooBig => "too_big",
            Self::TransportHeader => "transport_header",
            Self::HardLimit => "hard_limit",
            Self::Crypto => "crypto",
            Self::Short => "short",
            Self::Fragment => "fragment",
            Self::Overflow => "overflow",
            Self::UnknownSpi => "unknown_spi",
            Self::Replay => "replay",
            Self::ReplayTooOld => "replay_too_old",
            Self::BadIcv => "bad_icv",
            Self::BadPadding => "bad_padding",
            Self::NextHeader => "next_header",
            Self::BadInner => "bad_inner",
            Self::OtherPolicy => "other_policy",
            Self::Selectors => "selectors",
            Self::Ecn => "ecn",
            Self::Dummy => "dummy",
            Self::NoBridge => "no_bridge",
            Self::BridgeSource => "bridge_source",
            Self::BridgeReserved => "bridge_reserved",
            Self::BridgeUnknown => "bridge_unknown",
            Self::BridgeSamePort => "bridge_same_port",
            Self::SplitHorizon => "split_horizon",
            Self::NoNextHop => "no_next_hop",
            Self::TunnelHeader => "tunnel_header",
            Self::TunnelEnds => "tunnel_ends",
            Self::TunnelKey => "tunnel_key",
            Self::TunnelOrder => "tunnel_order",
            Self::NoTunnel => "no_tunnel",
            Self::ClearTunnel => "clear_tunnel",
        }
    }
}

/// One counter for each [`DropReason`].
#[derive(Clone, Debug)]
pub(crate) struct DropCounters([u64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one packet.
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// Counts several packets.
    pub(crate) fn count_many(&mut self, reason: DropReason, packets: usize) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter = counter.saturating_add(packets as u64);
        }
    }

    /// Adds `other` and empties it.
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        for (counter, more) in self.0.iter_mut().zip(&mut other.0) {
            *counter = counter.saturating_add(std::mem::take(more));
        }
    }

    /// The reasons that occurred.
    pub(crate) fn report(&self) -> Vec<DropCount> {
        let counted = DropReason::ALL.iter().zip(self.0).filter(|(_, packets)| *packets > 0);
        counted.map(|(reason, packets)| DropCount { reason: reason.name().to_owned(), packets }).collect()
    }
}

/// The counters of one SA, which take memory when its first packet is dropped.
#[derive(Debug, Default)]
pub(crate) struct LazyDrops(Option<Box<DropCounters>>);

impl LazyDrops {
    /// Counts one packet.
    #[cold]
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// Counts several packets.
    #[cold]
    pub(crate) fn count_many(&mut self, reason: DropReason, packets: usize) {
        self.0.get_or_insert_default().count_many(reason, packets);
    }

    /// The reasons that occurred.
    pub(crate) fn report(&self) -> Vec<DropCount> {
        self.0.as_ref().map(|counters| counters.report()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        let mut counters = DropCounters::default();
        for reason in DropReason::ALL {
            counters.count(reason);
        }
        let report = counters.report();
        assert_eq!(report.len(), DropReason::ALL.len());
        assert!(report.iter().all(|count| count.packets == 1));
        let mut names: Vec<_> = report.into_iter().map(|count| count.reason).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }

    #[test]
    fn absorbing_moves_the_counts() {
        let (mut all, mut some) = (DropCounters::default(), DropCounters::default());
        some.count(DropReason::Replay);
        all.absorb(&mut some);
        all.absorb(&mut some);
        assert_eq!(all.report(), [DropCount { reason: "replay".into(), packets: 1 }]);
    }
}
