//! The cache of flows in front of the policies.

use std::net::IpAddr;

use esp_engines::prefetch;
use espdp_api::{PolicyId, WorkerId};

use super::Selected;
use crate::InterfaceId;
use crate::outbound::Template;

/// Remembers what the packets of recent flows found, so that policies are searched once for each flow and not for each packet.
#[derive(Debug)]
pub(super) struct FlowCache {
    ipv4: Table<Ipv4Flow>,
    ipv6: Table<Ipv6Flow>,
    /// Flows of older generations are forgotten.
    generation: u32,
}

/// What a packet found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// No policy.
    #[default]
    Nothing,
    /// A policy that sends on an SA, and how.
    Sa(Template),
    /// A policy that lets packets pass in clear.
    Bypass,
    /// A policy that drops packets.
    Discard,
    /// That it depends on ports which cannot be seen.
    HiddenPorts,
    /// A policy without an active SA.
    NoSa(PolicyId),
    /// A policy whose SAs this worker has.
    Elsewhere(WorkerId),
    /// A policy whose active SA, at this place, does not take the packet.
    OutsideSa(u32),
    /// The policy in this slot: what packets that came in are compared with.
    Policy(u32),
}

/// Everything that selectors look at, of a packet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowKey {
    Ipv4(Ipv4Flow),
    Ipv6(Ipv6Flow),
}

/// What selectors look at in an IPv4 packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ipv4Flow {
    /// Our side's address, then the peer's side's.
    addresses: u64,
    others: Others,
}

/// What selectors look at in an IPv6 packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ipv6Flow {
    /// Our side's address, then the peer's side's.
    addresses: [u64; 4],
    others: Others,
}

/// What a flow is known by, and where it stands if it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FlowPlace<K> {
    key: K,
    /// Number of the set.
    set: u32,
}

/// What a flow has besides addresses.
///
/// ```text
///  63          48     40         32           16              0
/// ┌──────────────┬──────┬──────────┬────────────┬──────────────┐
/// │ interface    │ flags│ protocol │ local port │ remote port  │
/// └──────────────┴──────┴──────────┴────────────┴──────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Others(u64);

impl Found {
    /// How packets are sent that found an SA.
    #[inline]
    pub(super) fn template(&self) -> Option<&Template> {
        match self {
            Self::Sa(template) => Some(template),
            Self::Nothing
            | Self::Bypass
            | Self::Discard
            | Self::HiddenPorts
            | Self::NoSa(_)
            | Self::Elsewhere(_)
            | Self::OutsideSa(_)
            | Self::Policy(_) => None,
        }
    }
}

impl FlowCache {
    /// The places of both tables together hold some ten thousand flows in a few megabytes.
    pub(super) fn new() -> Self {
        Self { ipv4: Table::new(), ipv6: Table::new(), generation: 1 }
    }

    #[inline]
    pub(super) fn find(&self, key: &FlowKey) -> Option<&Found> {
        match key {
            FlowKey::Ipv4(key) => self.ipv4.find(key, self.generation),
            FlowKey::Ipv6(key) => self.ipv6.find(key, self.generation),
        }
    }

    /// As [`Self::find`] for a flow whose place is known.
    #[inline]
    pub(super) fn find_ipv4(&self, place: &FlowPlace<Ipv4Flow>) -> Option<&Found> {
        self.ipv4.find_at(place, self.generation)
    }

    /// As [`Self::find`] for a flow whose place is known.
    #[inline]
    pub(super) fn find_ipv6(&self, place: &FlowPlace<Ipv6Flow>) -> Option<&Found> {
        self.ipv6.find_at(place, self.generation)
    }

    /// Where the flow stands; unless its set is crowded, the processor is asked to fetch that.
    #[inline]
    pub(super) fn prefetch_ipv4(&self, key: Ipv4Flow) -> FlowPlace<Ipv4Flow> {
        self.ipv4.prefetch(key)
    }

    /// As [`Self::prefetch_ipv4`].
    #[inline]
    pub(super) fn prefetch_ipv6(&self, key: Ipv6Flow) -> FlowPlace<Ipv6Flow> {
        self.ipv6.prefetch(key)
    }

    pub(super) fn remember(&mut self, key: FlowKey, found: Found) {
        match key {
            FlowKey::Ipv4(key) => self.ipv4.remember(key, self.generation, found),
            FlowKey::Ipv6(key) => self.ipv6.remember(key, self.generation, found),
        }
    }

    pub(super) fn forget(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            // The counter went round: a flow of long ago must not come back to life.
            (self.ipv4, self.ipv6) = (Table::new(), Table::new());
            self.generation = 1;
        }
    }
}

impl FlowKey {
    #[inline]
    pub(super) fn new(interface: InterfaceId, is_inbound: bool, packet: &Selected) -> Self {
        let others = Others::new(interface, is_inbound, packet);
        match (packet.local, packet.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let addresses = u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits());
                Self::Ipv4(Ipv4Flow { addresses, others })
            }
            (local, remote) => {
                let (local, remote) = (bits(local), bits(remote));
                let addresses = [(local >> 64) as u64, local as u64, (remote >> 64) as u64, remote as u64];
                Self::Ipv6(Ipv6Flow { addresses, others })
            }
        }
    }
}

impl Ipv4Flow {
    /// A whole outbound packet of a protocol with ports. `addresses` are source and destination, `ports` source and destination
    /// port, the source in the high half.
    #[inline]
    pub(crate) fn outbound(interface: InterfaceId, protocol: u8, addresses: u64, ports: u32) -> Self {
        Self { addresses, others: Others::outbound(interface, Others::IS_IPV4, protocol, ports) }
    }
}

impl Ipv6Flow {
    /// As [`Ipv4Flow::outbound`].
    #[inline]
    pub(crate) fn outbound(interface: InterfaceId, protocol: u8, addresses: [u64; 4], ports: u32) -> Self {
        Self { addresses, others: Others::outbound(interface, 0, protocol, ports) }
    }
}

impl Others {
    const SHOWS_PORTS: u64 = 1;
    const IS_IPV4: u64 = 1 << 1;
    const IS_INBOUND: u64 = 1 << 2;
    const IS_COMPLETED: u64 = 1 << 3;

    #[inline]
    fn new(interface: InterfaceId, is_inbound: bool, packet: &Selected) -> Self {
        let flag = |flag: u64, is_set: bool| if is_set { flag } else { 0 };
        let flags = flag(Self::SHOWS_PORTS, packet.local_port.is_some())
            | flag(Self::IS_IPV4, packet.remote.is_ipv4())
            | flag(Self::IS_INBOUND, is_inbound)
            | flag(Self::IS_COMPLETED, packet.is_completed);
        let ports = u32::from(packet.local_port.unwrap_or(0)) << 16 | u32::from(packet.remote_port.unwrap_or(0));
        Self::put_together(interface, flags, packet.protocol, ports)
    }

    #[inline]
    fn outbound(interface: InterfaceId, flags: u64, protocol: u8, ports: u32) -> Self {
        Self::put_together(interface, flags | Self::SHOWS_PORTS, protocol, ports)
    }

    #[inline]
    fn put_together(interface: InterfaceId, flags: u64, protocol: u8, ports: u32) -> Self {
        Self(u64::from(interface.0) << 48 | flags << 40 | u64::from(protocol) << 32 | u64::from(ports))
    }
}

/// The flows of one family.
#[derive(Debug)]
struct Table<K> {
    /// A flow may stand anywhere in its set; where a set is full, its oldest flow makes way.
    sets: Box<[[Flow<K>; WAYS]]>,
}

/// One flow, in a cache line of its own if its key is short.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Flow<K> {
    key: K,
    generation: u32,
    found: Found,
}

/// Flows in a set: enough that sets are seldom full while the table is not.
const WAYS: usize = 4;
const SETS: usize = 4096;

/// What flows are told apart by.
trait Key: Copy + Default + PartialEq {
    /// Spreads flows that differ in a few low bits.
    fn hash(&self) -> u64;
}

impl Key for Ipv4Flow {
    #[inline]
    fn hash(&self) -> u64 {
        // Side by side, not one after the other: all packets wait for this.
        mix(SEED, self.addresses) ^ mix(!SEED, self.others.0)
    }
}

impl Key for Ipv6Flow {
    #[inline]
    fn hash(&self) -> u64 {
        self.addresses.into_iter().fold(mix(SEED, self.others.0), mix)
    }
}

impl<K: Key> Table<K> {
    fn new() -> Self {
        Self { sets: vec![[Flow::default(); WAYS]; SETS].into_boxed_slice() }
    }

    #[inline]
    fn find(&self, key: &K, generation: u32) -> Option<&Found> {
        self.find_at(&FlowPlace { key: *key, set: Self::set(key) as u32 }, generation)
    }

    #[inline]
    fn find_at(&self, place: &FlowPlace<K>, generation: u32) -> Option<&Found> {
        let set = self.sets.get(place.set as usize)?;
        set.iter().find(|flow| flow.generation == generation && flow.key == place.key).map(|flow| &flow.found)
    }

    #[inline]
    fn prefetch(&self, key: K) -> FlowPlace<K> {
        let set = Self::set(&key);
        if let Some([first, ..]) = self.sets.get(set) {
            prefetch(first);
        }
        // There are far fewer sets.
        FlowPlace { key, set: set as u32 }
    }

    fn remember(&mut self, key: K, generation: u32, found: Found) {
        if let Some(set) = self.sets.get_mut(Self::set(&key)) {
            set.rotate_right(1);
            let [newest, ..] = set;
            *newest = Flow { key, generation, found };
        }
    }

    #[inline]
    fn set(key: &K) -> usize {
        (key.hash() as usize) % SETS
    }
}

/// The first digits of pi: nothing in particular.
const SEED: u64 = 0x243f_6a88_85a3_08d3;

/// Multiply and fold: one more word of a hash.
#[inline]
pub(super) fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product as u64) ^ ((product >> 64) as u64)
}

/// An address as a number, IPv4 in the low bits.
#[inline]
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(number: u32, is_ipv4: bool) -> Selected {
        let (local, remote): (IpAddr, IpAddr) = if is_ipv4 {
            ([10, 1, 0, 1].into(), std::net::Ipv4Addr::from_bits(0x0a02_0000 + number).into())
        } else {
            (std::net::Ipv6Addr::from_bits(1).into(), std::net::Ipv6Addr::from_bits(u128::from(number)).into())
        };
        Selected { local, remote, protocol: 17, local_port: Some(5), remote_port: Some(53), is_completed: false }
    }

    fn flow(number: u32, is_ipv4: bool) -> FlowKey {
        FlowKey::new(InterfaceId(3), false, &selected(number, is_ipv4))
    }

    #[test]
    fn a_cache_that_is_a_quarter_full_forgets_hardly_anything() {
        for is_ipv4 in [true, false] {
            let mut cache = FlowCache::new();
            let flows = (SETS * WAYS / 4) as u32;
            for number in 0..flows {
                cache.remember(flow(number, is_ipv4), Found::Policy(number));
            }
            let is_known = |number: &u32| cache.find(&flow(*number, is_ipv4)) == Some(&Found::Policy(*number));
            let found = (0..flows).filter(is_known).count();
            assert!(found as u32 > flows / 100 * 99, "{found} of {flows}");
            assert_eq!(cache.find(&flow(flows, is_ipv4)), None);
        }
    }

    #[test]
    fn what_is_forgotten_stays_forgotten_when_the_generations_start_again() {
        let mut cache = FlowCache::new();
        let key = flow(1, true);
        cache.remember(key, Found::Policy(1));
        cache.forget();
        assert_eq!(cache.find(&key), None);
        cache.generation = u32::MAX;
        cache.forget();
        assert_eq!(cache.generation, 1, "the generation in which the flow was remembered");
        assert_eq!(cache.find(&key), None);
        assert_eq!(cache.ipv4.find(&Ipv4Flow::default(), cache.generation), None, "an empty place is no flow");
    }

    #[test]
    fn a_flow_has_the_same_key_however_it_is_read() {
        let read = Ipv4Flow::outbound(InterfaceId(3), 17, 0x0a01_0001_0a02_0007, 5 << 16 | 53);
        assert_eq!(flow(7, true), FlowKey::Ipv4(read));
        let read = Ipv6Flow::outbound(InterfaceId(3), 17, [0, 1, 0, 7], 5 << 16 | 53);
        assert_eq!(flow(7, false), FlowKey::Ipv6(read));
        let inbound = FlowKey::new(InterfaceId(3), true, &selected(7, true));
        let completed = FlowKey::new(InterfaceId(3), false, &Selected { is_completed: true, ..selected(7, true) });
        assert!(flow(7, true) != inbound && flow(7, true) != completed && inbound != completed);
    }
}
