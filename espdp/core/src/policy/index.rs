//! Finds the first of many policies that selects a packet, without asking them one after the other.
//!
//! The selectors of a policy are covered by a few *boxes*: a prefix of our addresses, a prefix of the peer's, a protocol or any, and
//! prefixes of both ports. Boxes with prefixes of the same lengths have one [`Shape`], and stand in a hash table under what
//! the prefixes are. A packet is looked up once for each shape that there is, however many policies have it, and whoever stands
//! there is asked whether its selectors really select the packet: a box may be larger than what it covers, never smaller.
//! Shapes are asked in the order of their first policies, so that the search ends as soon as nothing better can come.
//!
//! Prefixes have few lengths ([`IPV4_LENGTHS`], [`IPV6_LENGTHS`], [`PORT_LENGTHS`]): there are hundreds of shapes at most, and in
//! the tables of most gateways a handful.

use std::net::IpAddr;

use espdp_api::{PortRange, TrafficSelector};

use super::flows::mix;
use super::{Order, Selected, Selectors};

/// The lengths of prefixes in bits, the longest first.
const IPV4_LENGTHS: [u8; 9] = [32, 30, 28, 24, 20, 16, 12, 8, 0];
const IPV6_LENGTHS: [u8; 9] = [128, 120, 112, 96, 64, 56, 48, 32, 0];
const PORT_LENGTHS: [u8; 5] = [16, 12, 8, 4, 0];

/// A policy with more boxes than this is covered by one that is larger than need be: peers choose selectors, too.
const MOST_BOXES: usize = 256;

/// Where policies stand, by the numbers of their slots.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// In the order of their first policies.
    shapes: Vec<ShapeUse>,
    /// The hash table; as many as a power of two. Policies that stand in one are in order.
    buckets: Vec<Vec<Standing>>,
    /// Boxes in the table.
    boxes: usize,
    /// Whether ports and protocols make boxes smaller.
    with_ports: bool,
}

/// A policy under one of its boxes.
#[derive(Clone, Copy, Debug)]
struct Standing {
    hash: u64,
    slot: u32,
}

/// A shape that occurs.
#[derive(Clone, Copy, Debug)]
struct ShapeUse {
    shape: Shape,
    /// No policy of this shape comes before this place in the order.
    first: Order,
    /// Boxes that have it.
    boxes: usize,
}

/// Which bits of a packet a box is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    is_ipv4: bool,
    local_bits: u8,
    remote_bits: u8,
    has_protocol: bool,
    local_port_bits: u8,
    remote_port_bits: u8,
}

/// What selects a packet, as far as boxes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PolicyBox {
    shape: Shape,
    hash: u64,
}

impl Index {
    /// An empty index. Without `with_ports` it is about addresses alone, for packets that hide the rest.
    pub(super) fn new(with_ports: bool) -> Self {
        Self { with_ports, ..Self::default() }
    }

    /// Adds the policy in `slot`. `order_of` says the place of any slot in the order.
    pub(super) fn insert(&mut self, slot: u32, selectors: &Selectors, order_of: impl Fn(u32) -> Option<Order>) {
        let Some(order) = order_of(slot) else { return };
        for PolicyBox { shape, hash } in boxes(selectors, self.with_ports) {
            self.grow();
            self.boxes += 1;
            if let Some(bucket) = bucket(&mut self.buckets, hash) {
                let at = bucket.partition_point(|other| order_of(other.slot).is_some_and(|other| other < order));
                bucket.insert(at, Standing { hash, slot });
            }
            match self.shapes.iter_mut().find(|own| own.shape == shape) {
                Some(own) => (own.first, own.boxes) = (own.first.min(order), own.boxes + 1),
                None => self.shapes.push(ShapeUse { shape, first: order, boxes: 1 }),
            }
        }
        self.shapes.sort_unstable_by_key(|own| own.first);
    }

    /// Takes the policy in `slot` out, which was added with these selectors.
    pub(super) fn remove(&mut self, slot: u32, selectors: &Selectors) {
        for PolicyBox { shape, hash } in boxes(selectors, self.with_ports) {
            if let Some(bucket) = bucket(&mut self.buckets, hash)
                && let Some(at) = bucket.iter().position(|other| other.slot == slot && other.hash == hash)
            {
                bucket.remove(at);
                self.boxes -= 1;
                if let Some(own) = self.shapes.iter_mut().find(|own| own.shape == shape) {
                    own.boxes -= 1;
                }
            }
        }
        self.shapes.retain(|own| own.boxes > 0);
    }

    /// The slot of the first policy that `selects` the packet. `selects` gives the policy's place in the order if it does.
    #[inline]
    pub(super) fn find(&self, packet: &Selected, selects: impl Fn(u32) -> Option<Order>) -> Option<u32> {
        let words = Words::new(packet);
        let mut best: Option<(Order, u32)> = None;
        for ShapeUse { shape, first, .. } in &self.shapes {
            if best.is_some_and(|(order, _)| order < *first) {
                break;
            }
            let Some(hash) = shape.hash(&words) else { continue };
            let bucket = self.buckets.get(hash as usize & self.buckets.len().wrapping_sub(1)).into_iter().flatten();
            let standing = bucket.filter(|standing| standing.hash == hash);
            let found = standing.filter_map(|standing| Some((selects(standing.slot)?, standing.slot))).next();
            best = best.into_iter().chain(found).min();
        }
        best.map(|(_, slot)| slot)
    }

    /// Makes room for one more box.
    fn grow(&mut self) {
        if self.boxes < self.buckets.len() {
            return;
        }
        let old = std::mem::take(&mut self.buckets);
        self.buckets.resize_with((old.len() * 2).max(16), Vec::new);
        // A bucket's boxes go to two new ones, and stay in order.
        for standing in old.into_iter().flatten() {
            if let Some(bucket) = bucket(&mut self.buckets, standing.hash) {
                bucket.push(standing);
            }
        }
    }
}

/// Where a hash stands; `None` while there are no buckets.
fn bucket(buckets: &mut [Vec<Standing>], hash: u64) -> Option<&mut Vec<Standing>> {
    let mask = buckets.len().checked_sub(1)?;
    buckets.get_mut(hash as usize & mask)
}

/// What shapes look at, as numbers whose high bits are the prefixes.
#[derive(Clone, Copy, Debug)]
struct Words {
    is_ipv4: bool,
    local: u128,
    remote: u128,
    protocol: u8,
    local_port: Option<u16>,
    remote_port: Option<u16>,
}

impl Words {
    fn new(packet: &Selected) -> Self {
        let &Selected { local, remote, protocol, local_port, remote_port, .. } = packet;
        let is_ipv4 = remote.is_ipv4();
        Self { is_ipv4, local: high_bits(local), remote: high_bits(remote), protocol, local_port, remote_port }
    }
}

/// An address with its first bit in the highest place.
fn high_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first `bits` bits of `value`.
fn prefix(value: u128, bits: u8) -> u128 {
    value & !u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}

impl Shape {
    /// Where a packet would stand; `None` when it cannot have this shape.
    #[inline]
    fn hash(&self, words: &Words) -> Option<u64> {
        if self.is_ipv4 != words.is_ipv4 {
            return None;
        }
        let port =
            |bits: u8, port: Option<u16>| if bits == 0 { Some(0) } else { port.map(|port| port_prefix(port, bits)) };
        let local_port = port(self.local_port_bits, words.local_port)?;
        let remote_port = port(self.remote_port_bits, words.remote_port)?;
        let protocol = if self.has_protocol { words.protocol } else { 0 };
        let others = u64::from(local_port) << 32 | u64::from(remote_port) << 16 | u64::from(protocol);
        let lengths = [self.local_bits, self.remote_bits, self.local_port_bits, self.remote_port_bits];
        let lengths = lengths.into_iter().fold(0, |all, bits| all << 8 | u64::from(bits));
        let shape = lengths << 2 | u64::from(self.has_protocol) << 1 | u64::from(self.is_ipv4);
        let (local, remote) = (prefix(words.local, self.local_bits), prefix(words.remote, self.remote_bits));
        let hash = mix(mix(START, shape), others);
        let high = (local >> 64) as u64 | (remote >> 96) as u64;
        Some(if self.is_ipv4 {
            mix(hash, high)
        } else {
            [(local >> 64) as u64, local as u64, (remote >> 64) as u64, remote as u64].into_iter().fold(hash, mix)
        })
    }
}

/// What hashes start with; any number without a pattern.
const START: u64 = 0x1319_8a2e_0370_7344;

/// The boxes that cover what the selectors select, each once.
fn boxes(selectors: &Selectors, with_ports: bool) -> Vec<PolicyBox> {
    let mut boxes = Vec::new();
    for is_ipv4 in [true, false] {
        let mut local = pieces(selectors.local(), is_ipv4, with_ports);
        let mut remote = pieces(selectors.remote(), is_ipv4, with_ports);
        if local.len() * remote.len() > MOST_BOXES {
            let longer = if local.len() > remote.len() { &mut local } else { &mut remote };
            *longer = longer.iter().copied().reduce(Piece::hull).into_iter().collect();
        }
        if local.len() * remote.len() > MOST_BOXES {
            for side in [&mut local, &mut remote] {
                *side = side.iter().copied().reduce(Piece::hull).into_iter().collect();
            }
        }
        let pairs = local.iter().flat_map(|local| remote.iter().map(move |remote| (local, remote)));
        boxes.extend(pairs.filter_map(|(local, remote)| Piece::pair(local, remote, is_ipv4)));
    }
    boxes.sort_unstable();
    boxes.dedup();
    boxes
}

/// One side of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    address: u128,
    bits: u8,
    /// 0 for any.
    protocol: u8,
    port: u16,
    port_bits: u8,
}

impl Piece {
    /// The smallest piece that covers two.
    fn hull(self, other: Self) -> Self {
        let same_bits = (self.address ^ other.address).leading_zeros();
        let bits = u8::try_from(same_bits).unwrap_or(u8::MAX).min(self.bits).min(other.bits);
        let protocol = if self.protocol == other.protocol { self.protocol } else { 0 };
        let (bits, port, port_bits) = (bits & !7, 0, 0);
        Self { address: prefix(self.address, bits), bits, protocol, port, port_bits }
    }

    /// The box of both sides; `None` when no packet has the protocols of both.
    fn pair(local: &Self, remote: &Self, is_ipv4: bool) -> Option<PolicyBox> {
        let protocol = match (local.protocol, remote.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        let shape = Shape {
            is_ipv4,
            local_bits: local.bits,
            remote_bits: remote.bits,
            has_protocol: protocol != 0,
            local_port_bits: local.port_bits,
            remote_port_bits: remote.port_bits,
        };
        let (local_port, remote_port) = (Some(local.port), Some(remote.port));
        let words = Words { is_ipv4, local: local.address, remote: remote.address, protocol, local_port, remote_port };
        Some(PolicyBox { shape, hash: shape.hash(&words)? })
    }
}

/// The pieces that cover selectors: a range of addresses takes one, or two where a single prefix would be much too large.
fn pieces(selectors: &[TrafficSelector], is_ipv4: bool, with_ports: bool) -> Vec<Piece> {
    let lengths = if is_ipv4 { &IPV4_LENGTHS } else { &IPV6_LENGTHS };
    let mut pieces = Vec::new();
    for selector in selectors.iter().filter(|selector| selector.addresses.is_ipv4() == is_ipv4) {
        let (first, last) = (high_bits(selector.addresses.start()), high_bits(selector.addresses.end()));
        let ports = with_ports.then_some(selector.ports).filter(|ports| ports.start <= ports.end);
        let (port, port_bits) = ports.map_or((0, 0), |PortRange { start, end }| {
            let bits = shorter(u8::try_from((start ^ end).leading_zeros()).unwrap_or(0), &PORT_LENGTHS);
            (port_prefix(start, bits), bits)
        });
        let protocol = if with_ports { selector.protocol } else { 0 };
        // The two halves of the smallest prefix that has both ends: where the range passes from one to the other.
        let same_bits = (first ^ last).leading_zeros();
        let bits_of_half = u8::try_from(same_bits + 1).unwrap_or(u8::MAX).min(if is_ipv4 { 32 } else { 128 });
        let end_of_first = first | u128::MAX.checked_shr(u32::from(bits_of_half)).unwrap_or(0);
        let ranges = [(first, end_of_first.min(last)), (prefix(last, bits_of_half).max(first), last)];
        pieces.extend(ranges.map(|(first, last)| {
            let same_bits = (first ^ last).leading_zeros();
            let bits = shorter(u8::try_from(same_bits).unwrap_or(u8::MAX), lengths);
            Piece { address: prefix(first, bits), bits, protocol, port, port_bits }
        }));
    }
    pieces.sort_unstable();
    pieces.dedup();
    pieces
}

/// The longest of `lengths` that is not above `bits`.
fn shorter(bits: u8, lengths: &[u8]) -> u8 {
    lengths.iter().copied().find(|length| *length <= bits).unwrap_or(0)
}

fn port_prefix(port: u16, bits: u8) -> u16 {
    port & !u16::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}
