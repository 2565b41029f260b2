//! SAs that we receive on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use esp_engines::prefetch;
use espdp_api::{
    CryptoEngine, Direction, Encapsulation, EspSpi, InboundSaSpec, IpsecProtocol, Mode, OuterPath, Refusal,
    SaStatistics, Secret, Workers,
};

use super::{Layout, SaCore, TRAILER_LEN};
use crate::InterfaceId;
use crate::batch::Span;
use crate::inbound::LastFlow;
use crate::limits::OncePerSecond;
use crate::replay::ReplayWindow;

/// A receiving SA. What packets need of it stands together, in as few cache lines as may be:
///
/// ```text
/// line 0  1               3            4
/// ┌──────┬───────────────┬────────────┬────────────────
/// │ first│ bits of the   │ last flow  │ counters, then
/// │ pass │ replay window │            │ what is seldom needed
/// └──────┴───────────────┴────────────┴────────────────
/// ```
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct InboundSa {
    /// That of `core`.
    spi: EspSpi,
    framing: Framing,
    /// The interface of packets that may go the short way; `None` when none may. ESP in tunnel mode has one.
    pub(crate) plain: Option<InterfaceId>,
    /// That of the path in `core`.
    peer: Peer,
    pub(crate) window: ReplayWindow,
    pub(crate) flow: LastFlow,
    /// When a moved peer was last reported.
    pub(crate) moved: OncePerSecond,
    pub(crate) core: SaCore,
    /// What TCP may announce as its maximum segment size at most, in IPv4 and in IPv6 packets: what we send back has to fit.
    pub(crate) mss: [Option<u16>; 2],
}

const _: () = {
    assert!(std::mem::offset_of!(InboundSa, flow) == 3 * 64);
    assert!(std::mem::offset_of!(InboundSa, core) == 4 * 64);
};

/// What the length of a received packet has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    header_len: u8,
    icv_len: u8,
    block_mask: u8,
}

impl Framing {
    fn new(layout: &Layout) -> Self {
        // No algorithm has a header, ICV or block of more than a few dozen octets.
        let short = |octets: usize| u8::try_from(octets).unwrap_or(u8::MAX);
        Self {
            header_len: short(layout.header_len),
            icv_len: short(layout.icv_len),
            block_mask: short(layout.block_mask()),
        }
    }

    /// Where payload, padding and trailer stand in a packet.
    #[inline]
    pub(crate) fn encrypted(self, packet: Span) -> Option<Span> {
        let header_len = usize::from(self.header_len);
        let len = packet.len.checked_sub(header_len + usize::from(self.icv_len))?;
        Some(Span { offset: packet.offset + header_len, len })
    }

    /// Whether a received packet of `len` octets can be one of the SA's: room for everything, and whole blocks.
    #[inline]
    pub(crate) fn allows(self, len: usize) -> bool {
        let encrypted = len.checked_sub(usize::from(self.header_len) + usize::from(self.icv_len));
        encrypted.is_some_and(|len| len >= TRAILER_LEN && len & usize::from(self.block_mask) == 0)
    }
}

/// Where packets come from, as far as an SA knows: address and port of the peer, and whether its packets come in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    address: [u64; 2],
    /// The port, and above it the kind.
    port: u32,
}

impl Peer {
    pub(crate) fn of(path: &OuterPath) -> Self {
        let (address, family) = match path.remote {
            IpAddr::V4(address) => ([0, u64::from(address.to_bits())], 1 << 16),
            IpAddr::V6(address) => {
                let [high, low] = [address.to_bits() >> 64, address.to_bits()];
                ([high as u64, low as u64], 0)
            }
        };
        let port = match path.encapsulation {
            Encapsulation::Esp => 0,
            Encapsulation::Udp { remote_port, .. } => u32::from(remote_port) | 1 << 17,
        };
        Self { address, port: port | family }
    }
}

impl InboundSa {
    /// Keys an SA.
    ///
    /// # Errors
    /// [`Refusal::BadSa`].
    pub(crate) fn new(
        spec: &InboundSaSpec,
        interface: InterfaceId,
        engine: CryptoEngine,
        iv_key: &Secret<[u8; 16]>,
    ) -> Result<Self, Refusal> {
        let core = SaCore::new(&spec.sa, spec.sa.limits, interface, engine, iv_key)?;
        let mut sa = Self {
            spi: core.spi,
            framing: Framing::new(&core.layout),
            plain: None,
            peer: Peer::of(&core.path),
            window: ReplayWindow::new(spec.replay_window, core.extended),
            flow: LastFlow::default(),
            mss: [None; 2],
            moved: OncePerSecond::default(),
            core,
        };
        sa.set_interface(interface);
        Ok(sa)
    }

    /// Whether it is the SA with this SPI on the wire, and of this protocol.
    #[inline]
    pub(crate) fn is(&self, spi: u32, protocol: IpsecProtocol) -> bool {
        let is_plain_esp = self.plain.is_some() && protocol == IpsecProtocol::Esp;
        self.spi.value() == spi && (is_plain_esp || self.core.protocol == protocol)
    }

    #[inline]
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    #[inline]
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Changes where packets are for.
    pub(crate) fn set_interface(&mut self, interface: InterfaceId) {
        let is_plain = self.core.protocol == IpsecProtocol::Esp && self.core.mode == Mode::Tunnel;
        self.plain = is_plain.then_some(interface);
        self.core.interface = interface;
    }

    /// Changes where packets come from.
    pub(crate) fn move_to(&mut self, path: OuterPath) {
        self.peer = Peer::of(&path);
        self.core.path = path;
        // Whether a packet is of the SA's policy depends on who sent it.
        self.flow = LastFlow::default();
    }

    /// Has the processor fetch what the first pass needs.
    #[inline]
    pub(crate) fn prefetch_for_admission(&self) {
        prefetch(self);
    }

    /// Has the processor fetch what the last pass needs.
    #[inline]
    pub(crate) fn prefetch_for_acceptance(&self) {
        prefetch(self);
        prefetch(&self.flow);
        prefetch(&self.core.usage);
        self.window.prefetch();
    }

    pub(crate) fn statistics(&self, now: Instant) -> SaStatistics {
        self.core.statistics(Direction::Inbound, self.window.newest(), now)
    }
}

/// The receiving SAs. We choose their SPIs, so the low bits of an SPI say where its SA stands, and looking it up is one
/// access; the high bits are the caller's, who says in some of them which worker this is ([`Workers`]) and takes random ones for
/// the others, so that an SPI tells nothing and is not soon used again.
///
/// ```text
///  31               16 15                0
/// ┌───────────────────┬───────────────────┐
/// │ the caller's      │ place             │
/// └───────────────────┴───────────────────┘
/// ```
///
/// SPIs that somebody else chose, for SAs keyed by hand, stand anywhere and are looked up in a map; the others do not pay for it.
#[derive(Debug, Default)]
pub(crate) struct InboundTable {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Where claimed SPIs stand.
    claimed: BTreeMap<EspSpi, u32>,
}

#[derive(Debug)]
enum Place {
    Free,
    Reserved(EspSpi),
    /// Boxed, so that keys stay where they are when the table grows and no copy is left behind.
    Installed(Box<InboundSa>),
}

impl InboundTable {
    /// Bits of an SPI that say the place.
    const PLACE_BITS: u32 = 16;
    /// SPIs that differ in what is free to choose.
    const STEPS: u32 = 1 << (u32::BITS - Self::PLACE_BITS - WORKER_BITS);
    /// Most SAs, reserved ones included.
    const MOST: usize = 1 << Self::PLACE_BITS;

    /// Sets an SPI aside whose high bits come from `random`; never a reserved one (R4303-2.1-1, R3948-2.1-1).
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub(crate) fn reserve(&mut self, random: u32) -> Result<EspSpi, Refusal> {
        let place = self.free_place()?;
        // Values below 256 are nobody's, and a claimed one is not ours: whatever `random` is, a few steps on there is another. The
        // bits that name the worker stay.
        let steps = (0..Self::STEPS).map(|step| random.wrapping_add(step << (Workers::SPI_SHIFT + WORKER_BITS)));
        let mut spis = steps.filter_map(|high| EspSpi::try_from(high & !Self::mask() | place).ok());
        let Some(spi) = spis.find(|spi| !self.claimed.contains_key(spi)) else {
            self.free.push(place);
            return Err(Refusal::Full(format!("{} SPIs", Self::MOST)));
        };
        self.set_aside(place, spi);
        Ok(spi)
    }

    /// Sets an SPI aside that somebody else chose.
    ///
    /// # Errors
    /// [`Refusal::SpiInUse`], [`Refusal::Full`].
    pub(crate) fn claim(&mut self, spi: EspSpi) -> Result<(), Refusal> {
        if self.spi_at(self.place_of(spi)) == Some(spi) {
            return Err(Refusal::SpiInUse(spi));
        }
        let place = self.free_place()?;
        self.claimed.insert(spi, place);
        self.set_aside(place, spi);
        Ok(())
    }

    /// Gives a reserved or claimed SPI back.
    ///
    /// # Errors
    /// [`Refusal::SpiNotReserved`].
    pub(crate) fn release(&mut self, spi: EspSpi) -> Result<(), Refusal> {
        let place = self.place_of(spi);
        match self.places.get_mut(place as usize) {
            Some(slot @ Place::Reserved(_)) if slot.spi() == Some(spi) => {
                *slot = Place::Free;
                self.free.push(place);
                self.claimed.remove(&spi);
                Ok(())
            }
            _ => Err(Refusal::SpiNotReserved(spi)),
        }
    }

    /// Puts an SA where its SPI was reserved, and says where that is.
    ///
    /// # Errors
    /// [`Refusal::SpiNotReserved`].
    pub(crate) fn install(&mut self, sa: InboundSa) -> Result<u32, Refusal> {
        let spi = sa.core.spi;
        let place = self.place_of(spi);
        match self.places.get_mut(place as usize) {
            Some(slot @ Place::Reserved(_)) if slot.spi() == Some(spi) => {
                *slot = Place::Installed(Box::new(sa));
                Ok(place)
            }
            _ => Err(Refusal::SpiNotReserved(spi)),
        }
    }

    /// Whether an SA can be installed under this SPI.
    pub(crate) fn is_reserved(&self, spi: EspSpi) -> bool {
        matches!(self.places.get(self.place_of(spi) as usize), Some(Place::Reserved(other)) if *other == spi)
    }

    /// The SA with this SPI on the wire, and its place.
    #[inline]
    pub(crate) fn find(&self, spi: u32, protocol: IpsecProtocol) -> Option<(u32, &InboundSa)> {
        self.find_own(spi, protocol).or_else(|| self.find_claimed(spi, protocol))
    }

    /// As [`Self::find`], but no SA whose SPI somebody else chose.
    #[inline]
    pub(crate) fn find_own(&self, spi: u32, protocol: IpsecProtocol) -> Option<(u32, &InboundSa)> {
        let place = spi & Self::mask();
        self.get(place).filter(|sa| sa.is(spi, protocol)).map(|sa| (place, sa))
    }

    /// The place of the SA with this SPI.
    pub(crate) fn installed(&self, spi: EspSpi) -> Option<u32> {
        let place = self.place_of(spi);
        self.get(place).filter(|sa| sa.core.spi == spi).map(|_| place)
    }

    /// Has the processor fetch the SA that [`Self::find`] would look at first.
    #[inline]
    pub(crate) fn prefetch(&self, spi: u32) {
        if let Some(sa) = self.get(spi & Self::mask()) {
            sa.prefetch_for_admission();
        }
    }

    #[cold]
    fn find_claimed(&self, spi: u32, protocol: IpsecProtocol) -> Option<(u32, &InboundSa)> {
        let place = *self.claimed.get(&EspSpi::try_from(spi).ok()?)?;
        self.get(place).filter(|sa| sa.is(spi, protocol)).map(|sa| (place, sa))
    }

    #[inline]
    pub(crate) fn get(&self, place: u32) -> Option<&InboundSa> {
        match self.places.get(place as usize)? {
            Place::Installed(sa) => Some(sa),
            Place::Free | Place::Reserved(_) => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut InboundSa> {
        match self.places.get_mut(place as usize)? {
            Place::Installed(sa) => Some(sa),
            Place::Free | Place::Reserved(_) => None,
        }
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<Box<InboundSa>> {
        let slot = self.places.get_mut(place as usize)?;
        match std::mem::replace(slot, Place::Free) {
            Place::Installed(sa) => {
                self.free.push(place);
                self.claimed.remove(&sa.core.spi);
                Some(sa)
            }
            reserved_or_free @ (Place::Reserved(_) | Place::Free) => {
                *slot = reserved_or_free;
                None
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &InboundSa> {
        self.places.iter().filter_map(|place| match place {
            Place::Installed(sa) => Some(&**sa),
            Place::Free | Place::Reserved(_) => None,
        })
    }

    const fn mask() -> u32 {
        (1 << Self::PLACE_BITS) - 1
    }

    /// Where the SA with this SPI stands, or would if there were one.
    fn place_of(&self, spi: EspSpi) -> u32 {
        self.claimed.get(&spi).copied().unwrap_or(spi.value() & Self::mask())
    }

    fn spi_at(&self, place: u32) -> Option<EspSpi> {
        self.places.get(place as usize).and_then(Place::spi)
    }

    fn free_place(&mut self) -> Result<u32, Refusal> {
        match self.free.pop() {
            Some(place) => Ok(place),
            None if self.places.len() >= Self::MOST => Err(Refusal::Full(format!("{} SPIs", Self::MOST))),
            None => {
                self.places.push(Place::Free);
                Ok(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX))
            }
        }
    }

    fn set_aside(&mut self, place: u32, spi: EspSpi) {
        if let Some(slot) = self.places.get_mut(place as usize) {
            *slot = Place::Reserved(spi);
        }
    }
}

/// Bits of an SPI that tell the workers apart.
const WORKER_BITS: u32 = Workers::MOST.ilog2();

impl Place {
    fn spi(&self) -> Option<EspSpi> {
        match self {
            Self::Free => None,
            Self::Reserved(spi) => Some(*spi),
            Self::Installed(sa) => Some(sa.core.spi),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R3948-2.1-1, R4303-2.1-1.
    #[test]
    fn spis_are_never_reserved_values_and_never_given_twice() {
        let mut table = InboundTable::default();
        let mut spis: Vec<_> = (0..1000).map(|_| table.reserve(0).unwrap().value()).collect();
        assert!(spis.iter().all(|spi| *spi >= 256));
        spis.sort_unstable();
        spis.dedup();
        assert_eq!(spis.len(), 1000);
    }

    #[test]
    fn the_high_bits_are_the_random_ones() {
        let mut table = InboundTable::default();
        assert_eq!(table.reserve(0xabcd_ffff).unwrap().value(), 0xabcd_0000);
        assert_eq!(table.reserve(0xabcd_ffff).unwrap().value(), 0xabcd_0001);
    }

    #[test]
    fn a_released_spi_is_gone_and_cannot_be_released_again() {
        let mut table = InboundTable::default();
        let spi = table.reserve(0x1234_0000).unwrap();
        assert!(table.is_reserved(spi));
        assert_eq!(table.release(spi), Ok(()));
        assert_eq!(table.release(spi), Err(Refusal::SpiNotReserved(spi)));
        assert!(!table.is_reserved(spi));
        let next = table.reserve(0x4321_0000).unwrap();
        assert_eq!(next.value(), 0x4321_0000);
        assert!(table.find(next.value(), IpsecProtocol::Esp).is_none());
    }

    #[test]
    fn an_spi_that_somebody_else_chose_is_claimed_once_and_disturbs_nobody() {
        let mut table = InboundTable::default();
        let ours = table.reserve(0x1234_0000).unwrap();
        assert_eq!(table.claim(ours), Err(Refusal::SpiInUse(ours)));
        // Its low bits are the place of ours.
        let theirs = EspSpi::try_from(0x5678_0000).unwrap();
        assert_eq!(table.claim(theirs), Ok(()));
        assert_eq!(table.claim(theirs), Err(Refusal::SpiInUse(theirs)));
        assert!(table.is_reserved(ours) && table.is_reserved(theirs));
        assert_eq!(table.release(ours), Ok(()));
        let next = table.reserve(0x5678_0000).unwrap();
        assert_eq!(next.value(), 0x5688_0000, "the claimed one is not given to anybody");
        assert_eq!(table.release(theirs), Ok(()));
        assert!(!table.is_reserved(theirs) && table.is_reserved(next));
    }

    #[test]
    fn a_full_table_refuses() {
        let mut table = InboundTable::default();
        for _ in 0..InboundTable::MOST {
            table.reserve(u32::MAX).unwrap();
        }
        assert!(matches!(table.reserve(0), Err(Refusal::Full(_))));
    }
}
