//! SAs that we send on.

use std::time::Instant;

use espdp_api::{
    DfPolicy, Direction, DscpPolicy, Mode, OutboundSaSpec, OuterPath, PacketShape, Refusal, SaStatistics, Secret,
};

use super::SaCore;
use crate::limits::Charge;
use crate::packet::Header;
use crate::policy::{Selected, Selectors};
use crate::{InterfaceId, ecn};

/// A sending SA; starts on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct OutboundSa {
    /// The sequence number of the last packet; 0 before the first.
    sequence: u64,
    /// The last sequence number that may be sent.
    last_sequence: u64,
    pub(crate) shape: PacketShape,
    pub(crate) core: SaCore,
}

impl OutboundSa {
    /// Keys an SA.
    ///
    /// # Errors
    /// [`Refusal::BadSa`].
    pub(crate) fn new(
        spec: &OutboundSaSpec,
        interface: InterfaceId,
        iv_key: &Secret<[u8; 16]>,
    ) -> Result<Self, Refusal> {
        let extended = spec.sa.algorithms.extended_sequence_numbers;
        let last_sequence = if extended { u64::MAX } else { u64::from(u32::MAX) };
        let mut limits = spec.sa.limits;
        // Whoever sets no limit is still told to rekey before the sequence numbers end.
        let late = last_sequence - last_sequence / 8;
        limits.soft.packets = Some(limits.soft.packets.unwrap_or(late).min(late));
        let core = SaCore::new(&spec.sa, limits, interface, iv_key)?;
        if let DscpPolicy::Fixed(dscp @ 64..) = spec.shape.dscp {
            return Err(Refusal::BadSa(format!("DSCP {dscp} is above 63")));
        }
        Ok(Self { sequence: 0, last_sequence, shape: spec.shape, core })
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

    /// DSCP and ECN of the outer header of a tunnel (RFC 4301 §5.1.2.1, R6040-4.1-1).
    pub(crate) fn tunnel_traffic_class(&self, inner: &Header) -> u8 {
        let dscp = match self.shape.dscp {
            DscpPolicy::Copy => inner.traffic_class & !ecn::MASK,
            DscpPolicy::Fixed(dscp) => dscp << 2,
        };
        dscp | ecn::encapsulate(inner.traffic_class)
    }

    /// Don't Fragment of the outer header of a tunnel (R4301-8.1-1).
    pub(crate) fn tunnel_dont_fragment(&self, inner: &Header) -> bool {
        match self.shape.df {
            DfPolicy::Copy => inner.dont_fragment,
            DfPolicy::Set => true,
            DfPolicy::Clear => false,
        }
    }

    pub(crate) fn statistics(&self, now: Instant) -> SaStatistics {
        self.core.statistics(Direction::Outbound, self.sequence, now)
    }

    #[cfg(test)]
    pub(crate) fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }
}

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
