//! Everything that one worker owns.

use std::time::Instant;

use espdp_api::{
    Direction, DropCount, EspSpi, Event, InboundSaSpec, InterfaceKind, InterfaceName, OutboundSaSpec, OuterPath,
    PolicyId, PolicySpec, Refusal, SaStatistics, Secret,
};

/// Names an interface inside a [`Dataplane`]; small and dense, so that the shell can index its devices by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u16);

/// What passed an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets from the inside, after segmentation, drops included.
    pub packets_out: u64,
    /// Their octets.
    pub bytes_out: u64,
    /// Packets handed to the inside, before coalescing.
    pub packets_in: u64,
    /// Their octets.
    pub bytes_in: u64,
}

/// The policies, SAs and counters of one worker. Plain `&mut` state: one owner, no locks.
#[derive(Debug)]
pub struct Dataplane {}

impl Dataplane {
    /// An empty dataplane. `seed` must be fresh and unpredictable; the IVs of CBC SAs are derived from it.
    #[must_use]
    pub fn new(_seed: &Secret<[u8; 32]>) -> Self {
        unimplemented!()
    }

    /// Makes an interface known, or changes the kind of the one of this name.
    ///
    /// # Errors
    /// [`Refusal::Full`] when there are too many.
    pub fn set_interface(&mut self, _name: &InterfaceName, _kind: InterfaceKind) -> Result<InterfaceId, Refusal> {
        unimplemented!()
    }

    /// Forgets an interface; its id may be given to a later one.
    ///
    /// # Errors
    /// [`Refusal::UnknownInterface`], and [`Refusal::InterfaceInUse`] while it has policies.
    pub fn remove_interface(&mut self, _name: &InterfaceName) -> Result<InterfaceId, Refusal> {
        unimplemented!()
    }

    /// What passed an interface so far; zeros for one that does not exist.
    #[must_use]
    pub fn interface_counters(&self, _id: InterfaceId) -> InterfaceCounters {
        unimplemented!()
    }

    /// Sets a policy, or changes the one with this id: its place in the order and its SAs stay. Routes are the shell's.
    ///
    /// # Errors
    /// [`Refusal::UnknownInterface`], [`Refusal::Full`].
    pub fn set_policy(&mut self, _spec: &PolicySpec) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Removes a policy and every SA left in it.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`].
    pub fn remove_policy(&mut self, _id: PolicyId) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Sets an inbound SPI aside. Its low bits say where the SA will stand, the others come from `random`.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn reserve_spi(&mut self, _random: u32) -> Result<EspSpi, Refusal> {
        unimplemented!()
    }

    /// Gives a reserved SPI back that was never installed.
    ///
    /// # Errors
    /// [`Refusal::SpiNotReserved`].
    pub fn release_spi(&mut self, _spi: EspSpi) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Installs a receiving SA under a reserved SPI.
    ///
    /// # Errors
    /// [`Refusal::SpiNotReserved`], [`Refusal::UnknownPolicy`], [`Refusal::BadSa`].
    pub fn install_inbound(&mut self, _spec: &InboundSaSpec) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Installs a sending SA; [`Self::activate`] makes it send.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::BadSa`], [`Refusal::Full`].
    pub fn install_outbound(&mut self, _spec: &OutboundSaSpec) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Makes an outbound SA the one its policy sends on.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::UnknownSa`].
    pub fn activate(&mut self, _policy: PolicyId, _spi: EspSpi) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Removes an SA and tells its last counters.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::UnknownSa`].
    pub fn remove_sa(
        &mut self,
        _direction: Direction,
        _spi: EspSpi,
        _policy: PolicyId,
        _now: Instant,
    ) -> Result<SaStatistics, Refusal> {
        unimplemented!()
    }

    /// Changes the outer path of an SA; counters and window go on.
    ///
    /// # Errors
    /// [`Refusal::UnknownPolicy`], [`Refusal::UnknownSa`].
    pub fn move_sa(
        &mut self,
        _direction: Direction,
        _spi: EspSpi,
        _policy: PolicyId,
        _path: OuterPath,
    ) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// The counters of all SAs.
    #[must_use]
    pub fn statistics(&self, _now: Instant) -> Vec<SaStatistics> {
        unimplemented!()
    }

    /// Drops that belong to no SA.
    #[must_use]
    pub fn drops(&self) -> Vec<DropCount> {
        unimplemented!()
    }

    /// What happened since the last call, in order; call until `None` after each batch.
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }
}
