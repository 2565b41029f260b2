//! The cache of flows in front of the policies.

use std::net::IpAddr;

use super::Selected;
use crate::InterfaceId;

/// Remembers what the packets of recent flows found, so that policies are searched once for each flow and not for each packet.
#[derive(Debug)]
pub(super) struct FlowCache {
    /// A flow may stand anywhere in its set; where a set is full, its oldest flow makes way.
    sets: Box<[[Flow; Self::WAYS]]>,
    /// Flows of older generations are forgotten.
    generation: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    key: FlowKey,
    generation: u32,
    found: Found,
}

/// What a packet found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// No policy.
    #[default]
    Nothing,
    /// A policy that sends on the SA at this place.
    Sa(u32),
    /// A policy that lets packets pass in clear.
    Bypass,
    /// A policy that drops packets.
    Discard,
    /// That it depends on ports which cannot be seen.
    HiddenPorts,
    /// The policy in this slot: what packets that came in are compared with.
    Policy(u32),
}

/// Everything that selectors look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowKey {
    local: u128,
    remote: u128,
    /// Interface, direction, family, protocol and ports.
    others: u64,
}

impl FlowKey {
    #[inline]
    pub(super) fn new(interface: InterfaceId, is_inbound: bool, packet: &Selected) -> Self {
        let ports = u64::from(packet.local_port.unwrap_or(0)) << 16 | u64::from(packet.remote_port.unwrap_or(0));
        let flags = u64::from(packet.is_completed) << 3
            | u64::from(is_inbound) << 2
            | u64::from(packet.remote.is_ipv4()) << 1
            | u64::from(packet.local_port.is_some());
        let others = u64::from(interface.0) << 48 | flags << 40 | u64::from(packet.protocol) << 32 | ports;
        Self { local: bits(packet.local), remote: bits(packet.remote), others }
    }

    /// Spreads flows that differ in a few low bits.
    #[inline]
    fn hash(&self) -> u64 {
        let words =
            [self.local as u64, (self.local >> 64) as u64, self.remote as u64, (self.remote >> 64) as u64, self.others];
        words.into_iter().fold(0x243f_6a88_85a3_08d3, mix)
    }
}

impl FlowCache {
    /// Flows in a set: enough that sets are seldom full while the cache is not.
    const WAYS: usize = 4;
    const SETS: usize = 4096;

    pub(super) fn new() -> Self {
        Self { sets: vec![[Flow::default(); Self::WAYS]; Self::SETS].into_boxed_slice(), generation: 1 }
    }

    #[inline]
    pub(super) fn find(&self, key: &FlowKey) -> Option<Found> {
        let set = self.sets.get(Self::set(key))?;
        set.iter().find(|flow| flow.generation == self.generation && flow.key == *key).map(|flow| flow.found)
    }

    pub(super) fn remember(&mut self, key: FlowKey, found: Found) {
        let generation = self.generation;
        if let Some(set) = self.sets.get_mut(Self::set(&key)) {
            set.rotate_right(1);
            let [newest, ..] = set;
            *newest = Flow { key, generation, found };
        }
    }

    pub(super) fn forget(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            // The counter went round: a flow of long ago must not come back to life.
            self.sets.fill([Flow::default(); Self::WAYS]);
            self.generation = 1;
        }
    }

    fn set(key: &FlowKey) -> usize {
        (key.hash() as usize) % Self::SETS
    }
}

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

    fn flow(number: u32) -> FlowKey {
        FlowKey { local: 1, remote: u128::from(number), others: 17 << 32 }
    }

    #[test]
    fn a_cache_that_is_a_quarter_full_forgets_hardly_anything() {
        let mut cache = FlowCache::new();
        let flows = (FlowCache::SETS * FlowCache::WAYS / 4) as u32;
        for number in 0..flows {
            cache.remember(flow(number), Found::Sa(number));
        }
        let found = (0..flows).filter(|number| cache.find(&flow(*number)) == Some(Found::Sa(*number))).count();
        assert!(found as u32 > flows / 100 * 99, "{found} of {flows}");
        assert_eq!(cache.find(&flow(flows)), None);
    }

    #[test]
    fn what_is_forgotten_stays_forgotten_when_the_generations_start_again() {
        let mut cache = FlowCache::new();
        cache.remember(flow(1), Found::Sa(1));
        cache.forget();
        assert_eq!(cache.find(&flow(1)), None);
        cache.generation = u32::MAX;
        cache.forget();
        assert_eq!(cache.generation, 1, "the generation in which the flow was remembered");
        assert_eq!(cache.find(&flow(1)), None);
        assert_eq!(cache.find(&FlowKey::default()), None, "an empty place is no flow");
    }
}
