//! How many workers share the packets, and which of them has an SA.

use serde::{Deserialize, Serialize};

use crate::{EspSpi, InterfaceName};

/// The number of a worker, from 0. The first one has IKE, bridge domains and tunnels in clear as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u8);

impl WorkerId {
    /// The first worker.
    pub const FIRST: Self = Self(0);

    /// Its place among all workers.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How many workers there are: 1 to 16. Each SA belongs to one, whose number stands in the SPI on which we receive, so that
/// whoever has the packet knows the worker without asking a table.
///
/// ```text
///  31          20 19   16 15                0
/// ┌──────────────┬───────┬───────────────────┐
/// │ random       │ number│ place             │   number modulo the count is the worker
/// └──────────────┴───────┴───────────────────┘
/// ```
///
/// ```
/// use espdp_api::{WorkerId, Workers};
/// let workers = Workers::new(3).unwrap();
/// assert_eq!(workers.of_spi(0x8765_4321), WorkerId(2));
/// assert_eq!(workers.of_spi(workers.mark(0xffff_ffff, WorkerId(1))), WorkerId(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers(u8);

impl Workers {
    /// A single worker.
    pub const ONE: Self = Self(1);
    /// Most workers: as many as the bits of an SPI tell apart.
    pub const MOST: u8 = 16;
    /// Where the number stands in an SPI.
    pub const SPI_SHIFT: u32 = 16;

    /// So many workers; `None` if that is none or more than [`Self::MOST`].
    #[must_use]
    pub fn new(count: u8) -> Option<Self> {
        (1..=Self::MOST).contains(&count).then_some(Self(count))
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> u8 {
        self.0
    }

    /// All of them, in order.
    pub fn ids(self) -> impl DoubleEndedIterator<Item = WorkerId> + ExactSizeIterator {
        (0..self.0).map(WorkerId)
    }

    /// The worker that an inbound SPI belongs to, whoever chose it.
    #[inline]
    #[must_use]
    pub fn of_spi(self, spi: u32) -> WorkerId {
        let number = (spi >> Self::SPI_SHIFT).to_le_bytes()[0] % Self::MOST;
        WorkerId(number % self.0)
    }

    /// Random bits for an SPI of `worker`. With a single worker all of them stay random.
    #[must_use]
    pub fn mark(self, random: u32, worker: WorkerId) -> u32 {
        if self == Self::ONE {
            return random;
        }
        let bits = u32::from(Self::MOST - 1) << Self::SPI_SHIFT;
        random & !bits | (u32::from(worker.0) << Self::SPI_SHIFT) & bits
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::ONE
    }
}

/// What an SPI is wanted for; it decides which worker gets the SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpiWish {
    /// The interface of the SA. All SAs of interfaces that are no plain ESP interfaces are the first worker's.
    pub interface: InterfaceName,
    /// Our SPI of the SA that the new one replaces: both belong to the same worker.
    pub replaces: Option<EspSpi>,
    /// The worker that is to have the SA, for SAs of a single worker (RFC 9611); `None` leaves the choice to the dataplane.
    pub worker: Option<WorkerId>,
}

impl SpiWish {
    /// For an SA of its own, of any worker.
    #[must_use]
    pub fn new(interface: InterfaceName) -> Self {
        Self { interface, replaces: None, worker: None }
    }
}

/// Whose packets an outbound SA carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carries {
    /// Those of every worker that has no SA of its own for the policy.
    #[default]
    All,
    /// Those of its own worker (RFC 9611).
    OwnWorker,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_that_is_marked_is_found_however_many_there_are() {
        for workers in (1..=Workers::MOST).filter_map(Workers::new) {
            for worker in workers.ids() {
                for random in [0, u32::MAX, 0x1234_5678, 0x000f_0000] {
                    assert_eq!(workers.of_spi(workers.mark(random, worker)), worker, "{workers:?} {random:x}");
                }
            }
        }
    }

    #[test]
    fn every_spi_has_a_worker_and_one_worker_leaves_all_bits_random() {
        let three = Workers::new(3).unwrap();
        assert!((0..=u16::MAX).all(|high| three.of_spi(u32::from(high) << 16).0 < 3));
        assert_eq!(Workers::ONE.mark(0xabcd_ef01, WorkerId::FIRST), 0xabcd_ef01);
        assert_eq!((Workers::new(0), Workers::new(17)), (None, None));
    }
}
