//! SAs that we send on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use esp_engines::prefetch;
use espdp_api::{
    Carries, CryptoEngine, DfPolicy, Direction, DscpPolicy, EspAlgorithms, FlowLabelPolicy, HopLimitPolicy,
    InterfaceKind, IpsecProtocol, Mode, MssPolicy, OutboundSaSpec, OuterPath, PacketShape, PaddingPolicy,
    PathMtuPolicy, Refusal, SaStatistics, Secret, SequenceEnd,
};

use super::SaCore;
use crate::batch::PackedOuter;
use crate::limits::{Charge, Usage};
use crate::packet::{Header, protocol};
use crate::policy::{Selected, Selectors};
use crate::{InterfaceId, OuterHeader, Overhead, ecn, tcp_mss};

/// A sending SA; starts on a cache line of its own.
/// What every packet changes comes first, and is one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct OutboundSa {
    /// The sequence number of the last packet; 0 before the first.
    sequence: u64,
    /// The last sequence number that may be sent.
    last_sequence: u64,
    pub(crate) core: SaCore,
    pub(crate) shape: PacketShape,
    pub(crate) carries: Carries,
    algorithms: EspAlgorithms,
    /// What the path carries, in octets with the outer IP header; `None` while nobody knows.
    path_mtu: Option<usize>,
    /// The longest packet that the path carries as the SA wraps it: with the header of a tunnel, where the interface has one.
    most: usize,
    /// The longest packet from the inside that the path carries.
    most_inside: usize,
    /// Makes flow labels that tell nothing about the flows, nor about those of other SAs.
    label_key: u64,
}

const _: () = {
    let hot = std::mem::offset_of!(OutboundSa, core) + std::mem::offset_of!(SaCore, usage) + Usage::HOT_OCTETS;
    assert!(hot <= 64, "what every packet changes is one cache line");
};

impl OutboundSa {
    /// Keys an SA.
    ///
    /// # Errors
    /// [`Refusal::BadSa`].
    pub(crate) fn new(
        spec: &OutboundSaSpec,
        interface: InterfaceId,
        engine: CryptoEngine,
        iv_key: &Secret<[u8; 16]>,
        label_key: u64,
    ) -> Result<Self, Refusal> {
        let extended = spec.sa.algorithms.extended_sequence_numbers;
        let last_sequence = match (extended, spec.sequence_end) {
            (false, SequenceEnd::Stop) => u64::from(u32::MAX),
            // We count on, and the wire shows the low half.
            (true, _) | (false, SequenceEnd::Wrap) => u64::MAX,
        };
        let mut limits = spec.sa.limits;
        // Whoever sets no limit is still told to rekey before the sequence numbers end.
        let late = last_sequence - last_sequence / 8;
        limits.soft.packets = Some(limits.soft.packets.unwrap_or(late).min(late));
        let core = SaCore::new(&spec.sa, limits, interface, engine, iv_key)?;
        if spec.sa.protocol == IpsecProtocol::Ah
            && (spec.shape.dummy_interval.is_some() || spec.shape.padding != PaddingPolicy::None)
        {
            let reason = "AH has neither dummy packets nor padding (RFC 4302 §2): only ESP hides how much is said";
            return Err(Refusal::BadSa(reason.to_owned()));
        }
        if let DscpPolicy::Fixed(dscp @ 64..) = spec.shape.dscp {
            return Err(Refusal::BadSa(format!("DSCP {dscp} is above 63")));
        }
        Ok(Self {
            sequence: 0,
            last_sequence,
            shape: spec.shape,
            carries: spec.carries,
            algorithms: spec.sa.algorithms,
            path_mtu: None,
            most: usize::MAX,
            most_inside: usize::MAX,
            label_key,
            core,
        })
    }

    /// Notes what the path carries, in octets with the outer IP header, and works out again what that leaves inside. `kind` is
    /// the kind of the interface that the SA is behind.
    pub(crate) fn set_path_mtu(&mut self, path_mtu: Option<usize>, kind: InterfaceKind) {
        self.path_mtu = path_mtu;
        // IP in IP is a tunnel whose header is that of ESP.
        let wrapping = if kind == InterfaceKind::Ipip { kind } else { InterfaceKind::Ipsec };
        let most = |kind| path_mtu.map_or(usize::MAX, |octets| self.overhead(kind).inner_mtu(octets));
        (self.most, self.most_inside) = (most(wrapping), most(kind));
    }

    /// As [`Self::set_path_mtu`] when the path itself has changed, but not what it carries.
    pub(crate) fn move_to(&mut self, path: OuterPath, kind: InterfaceKind) {
        self.core.path = path;
        self.set_path_mtu(self.path_mtu, kind);
    }

    /// What the path carries, in octets with the outer IP header; `None` while nobody knows.
    pub(crate) fn path_mtu(&self) -> Option<usize> {
        self.path_mtu
    }

    /// The longest packet that the path carries as the SA wraps it; without end while nobody knows.
    #[inline]
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// The longest packet in transport mode whose headers up to ESP take `outer_header` octets.
    pub(crate) fn most_with_headers(&self, outer_header: usize) -> usize {
        let overhead = Overhead { outer_header, kept_header: outer_header, ..self.overhead(InterfaceKind::Ipsec) };
        self.path_mtu.map_or(usize::MAX, |octets| overhead.inner_mtu(octets))
    }

    /// What TCP may announce as its maximum segment size at most.
    pub(crate) fn mss(&self, is_ipv6: bool) -> Option<u16> {
        match self.shape.mss {
            MssPolicy::Keep => None,
            MssPolicy::AtMost(octets) => Some(octets),
            MssPolicy::Automatic if self.most_inside == usize::MAX => None,
            MssPolicy::Automatic => {
                let smallest = if is_ipv6 { SMALLEST_IPV6_MTU } else { 0 };
                u16::try_from(tcp_mss(self.most_inside.max(smallest), is_ipv6)).ok()
            }
        }
    }

    /// What a packet, if it is TCP, may announce as its maximum segment size.
    #[inline]
    pub(crate) fn mss_of(&self, inside: &Header) -> Option<u16> {
        let is_tcp = inside.protocol == protocol::TCP && !inside.is_later_fragment();
        if is_tcp { self.mss(!inside.is_ipv4()) } else { None }
    }

    /// How long packets are made.
    pub(crate) fn fill_to(&self) -> usize {
        match self.shape.padding {
            PaddingPolicy::None => 0,
            PaddingPolicy::To(octets) => usize::from(octets).min(self.most),
            PaddingPolicy::ToPathMtu if self.most == usize::MAX => 0,
            PaddingPolicy::ToPathMtu => self.most,
        }
    }

    fn overhead(&self, kind: InterfaceKind) -> Overhead {
        let OuterPath { remote, encapsulation, .. } = self.core.path;
        let mode = self.core.mode;
        let overhead = match self.core.protocol {
            IpsecProtocol::Esp => Overhead::new(self.algorithms, mode, encapsulation, remote.is_ipv6()),
            IpsecProtocol::Ah => Overhead::authentication_header(self.algorithms, mode, remote.is_ipv6()),
        };
        overhead.with_tunnel(kind, mode, remote.is_ipv6())
    }

    /// Counts a packet with `bytes` inner octets and gives it the next sequence number: one more for each packet, the
    /// first is 1 (R4303-2.2-1), and none after the last (R4303-3.3.3-1). The number is valid when the packet may pass.
    #[inline]
    pub(crate) fn admit(&mut self, bytes: usize) -> (Charge, u64) {
        if self.sequence >= self.last_sequence {
            let charge = if self.core.usage.stop() { Charge::StopAtHardLimit } else { Charge::Stop };
            return (charge, self.sequence);
        }
        let charge = self.core.usage.charge(bytes);
        if matches!(charge, Charge::Pass | Charge::PassAtSoftLimit) {
            self.sequence += 1;
        }
        (charge, self.sequence)
    }

    /// Has the processor fetch what the packets that are sent look at.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch(&self.sequence);
        prefetch(&self.core.transform);
        prefetch(&self.core.path);
    }

    /// Admits packets one after the other, at most so many with at most so many inner octets together; `None` when a limit might
    /// have something to say to one of them.
    #[inline]
    pub(crate) fn admit_many(&mut self, packets: usize, bytes: usize) -> Option<Admitting<'_>> {
        let (calm_packets, calm_bytes) = self.core.usage.calm();
        let left = calm_packets.min(self.last_sequence.saturating_sub(self.sequence));
        let is_calm = packets as u64 <= left && bytes as u64 <= calm_bytes;
        is_calm.then_some(Admitting { sequence: self.sequence, bytes: 0, sa: self })
    }

    /// Whether one more packet with at most so many inner octets may be sent, and no limit has anything to say to it.
    #[inline]
    pub(crate) fn is_calm(&self, bytes: usize) -> bool {
        let (calm_packets, calm_bytes) = self.core.usage.calm();
        self.sequence < self.last_sequence && calm_packets > 0 && bytes as u64 <= calm_bytes
    }

    /// As [`Self::admit`] right after [`Self::is_calm`] has said so.
    #[inline]
    pub(crate) fn admit_calm(&mut self, bytes: usize, now: Instant) -> u64 {
        self.sequence += 1;
        self.core.usage.count_calm(1, bytes as u64);
        self.core.usage.touch(now);
        self.sequence
    }

    pub(crate) fn is_transport(&self) -> bool {
        self.core.mode == Mode::Transport
    }

    pub(crate) fn path(&self) -> OuterPath {
        self.core.path
    }

    /// Whether the SA's own selectors allow a packet.
    pub(crate) fn selects(&self, packet: &Selected) -> bool {
        let selectors: &Selectors = &self.core.selectors;
        selectors.matches(packet)
    }

    /// The outer headers of a tunnel's packets for all packets of a flow, of which `inner` is one (RFC 4301 §5.1.2): what they have
    /// in common, and of which bits the inner packets decide.
    pub(crate) fn tunnel_header(&self, inner: &Header) -> (PackedOuter, PackedOuter) {
        // RFC 4301 §5.1.2.1; R6040-4.1-1: the ECN mark is copied whatever is said of the DSCP.
        let (dscp, copied_dscp) = match self.shape.dscp {
            DscpPolicy::Copy => (0, !ecn::MASK),
            DscpPolicy::Fixed(dscp) => (dscp << 2, 0),
        };
        let (hop_limit, copied_hop_limit) = match self.shape.hop_limit {
            HopLimitPolicy::Copy => (0, u8::MAX),
            HopLimitPolicy::Fixed(hops) => (hops, 0),
        };
        let (flow_label, copied_flow_label) = match self.shape.flow_label {
            // An IPv4 header has none.
            _ if !self.core.path.remote.is_ipv6() => (0, 0),
            FlowLabelPolicy::Zero => (0, 0),
            FlowLabelPolicy::Copy => (0, u32::MAX),
            FlowLabelPolicy::Hash => (self.hashed_flow_label(inner), 0),
        };
        // R4301-8.1-1.
        let (dont_fragment, copies_dont_fragment) = match self.shape.df {
            DfPolicy::Copy => (false, true),
            DfPolicy::Set => (true, false),
            DfPolicy::Clear => (false, false),
        };
        let common = OuterHeader {
            traffic_class: dscp,
            hop_limit,
            flow_label,
            dont_fragment,
            heeds_path_mtu: self.heeds_path_mtu(),
            cut_to: None,
        };
        let copied = OuterHeader {
            traffic_class: copied_dscp | ecn::MASK,
            hop_limit: copied_hop_limit,
            flow_label: copied_flow_label,
            dont_fragment: copies_dont_fragment,
            heeds_path_mtu: false,
            cut_to: None,
        };
        (common.into(), copied.into())
    }

    /// The outer header of a packet that has nothing inside: what the shape says, and otherwise what is usual.
    pub(crate) fn dummy_header(&self) -> OuterHeader {
        OuterHeader {
            traffic_class: match self.shape.dscp {
                DscpPolicy::Copy => 0,
                DscpPolicy::Fixed(dscp) => dscp << 2,
            },
            hop_limit: match (self.shape.hop_limit, HopLimitPolicy::default()) {
                (HopLimitPolicy::Fixed(hops), _) | (HopLimitPolicy::Copy, HopLimitPolicy::Fixed(hops)) => hops,
                (HopLimitPolicy::Copy, HopLimitPolicy::Copy) => u8::MAX,
            },
            flow_label: 0,
            dont_fragment: self.shape.df != DfPolicy::Clear,
            heeds_path_mtu: self.heeds_path_mtu(),
            cut_to: None,
        }
    }

    /// Whether what the kernel learns about the path counts.
    pub(crate) fn heeds_path_mtu(&self) -> bool {
        self.shape.path_mtu == PathMtuPolicy::Learn
    }

    /// RFC 6438 §3: the same for all packets of an inner flow, evenly spread over flows, and never zero.
    fn hashed_flow_label(&self, inner: &Header) -> u32 {
        let mut hasher = DefaultHasher::new();
        let &Header { source, destination, protocol, source_port, destination_port, .. } = inner;
        (self.label_key, source, destination, protocol, source_port, destination_port).hash(&mut hasher);
        let [a, b, c, ..] = hasher.finish().to_ne_bytes();
        u32::from_be_bytes([0, a & 0x0f, b, c]).max(1)
    }

    /// How long no packet was sent, and how long none may be; `None` when silence is no secret (RFC 4303 §2.6).
    pub(crate) fn silence(&self, now: Instant) -> Option<(Option<Duration>, Duration)> {
        Some((self.core.usage.idle(now), self.shape.dummy_interval?))
    }

    pub(crate) fn statistics(&self, now: Instant) -> SaStatistics {
        self.core.statistics(Direction::Outbound, self.sequence, now)
    }

    #[cfg(test)]
    pub(crate) fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }
}

/// Packets that an SA admits one after the other; see [`OutboundSa::admit_many`].
#[derive(Debug)]
pub(crate) struct Admitting<'a> {
    sequence: u64,
    bytes: u64,
    sa: &'a mut OutboundSa,
}

impl Admitting<'_> {
    /// Gives a packet with `bytes` inner octets the next sequence number.
    #[inline]
    pub(crate) fn admit(&mut self, bytes: usize) -> u64 {
        self.sequence += 1;
        self.bytes += bytes as u64;
        self.sequence
    }

    /// Counts them; says how many they were, and their inner octets.
    #[inline]
    pub(crate) fn finish(self, now: Instant) -> (usize, u64) {
        let packets = self.sequence - self.sa.sequence;
        if packets > 0 {
            self.sa.sequence = self.sequence;
            self.sa.core.usage.count_calm(packets, self.bytes);
            self.sa.core.usage.touch(now);
        }
        (packets as usize, self.bytes)
    }
}

/// RFC 8200 §5: whatever carries IPv6 carries packets of this length, in fragments if need be.
pub(crate) const SMALLEST_IPV6_MTU: usize = 1280;

/// The sending SAs. Places are reused; whoever holds one must drop it when the SA is removed.
#[derive(Debug, Default)]
pub(crate) struct OutboundTable {
    /// Boxed, so that keys stay where they are when the table grows and no copy is left behind.
    places: Vec<Option<Box<OutboundSa>>>,
    free: Vec<u32>,
}

impl OutboundTable {
    /// Most SAs.
    const MOST: usize = 65536;

    pub(crate) fn get(&self, place: u32) -> Option<&OutboundSa> {
        self.places.get(place as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut OutboundSa> {
        self.places.get_mut(place as usize)?.as_deref_mut()
    }

    /// Gives an SA a place.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub(crate) fn insert(&mut self, sa: OutboundSa) -> Result<u32, Refusal> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() >= Self::MOST => return Err(Refusal::Full(format!("{} SAs", Self::MOST))),
            None => {
                self.places.push(None);
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(slot) = self.places.get_mut(place as usize) {
            *slot = Some(Box::new(sa));
        }
        Ok(place)
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<Box<OutboundSa>> {
        let sa = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(sa)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OutboundSa> {
        self.places.iter().flatten().map(|sa| &**sa)
    }
}
