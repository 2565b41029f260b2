//! What happens to IKE datagrams on their way.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::Rng;

/// The faults of the network. They apply to IKE datagrams; ESP packets only take [`Faults::latency`], so that a packet
/// that does not arrive is the engines' fault.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Percent of datagrams that vanish.
    pub loss: u64,
    /// Percent of datagrams that arrive twice.
    pub duplication: u64,
    /// The least time on the way.
    pub latency: Duration,
    /// Up to this much more, drawn for each datagram: more than the gap between two reorders them.
    pub jitter: Duration,
    /// The longest IP packet that passes, in octets, of IPv4 and without options. Longer ones vanish: somebody on the way
    /// drops the fragments of IP.
    pub mtu: usize,
}

impl Faults {
    /// A good network: 10 ms, nothing lost.
    pub const NONE: Self =
        Self { loss: 0, duplication: 0, latency: Duration::from_millis(10), jitter: Duration::ZERO, mtu: 1500 };
    /// A bad one.
    pub const BAD: Self = Self {
        loss: 25,
        duplication: 10,
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(150),
        mtu: 1500,
    };

    /// After how long the copies of a datagram with so many octets in UDP arrive; none when it is lost.
    pub(crate) fn fate(&self, rng: &mut Rng, octets: usize) -> Vec<Duration> {
        let fits = octets.saturating_add(IPV4_AND_UDP) <= self.mtu;
        let copies = if rng.chance(self.loss) || !fits { 0 } else { 1 + usize::from(rng.chance(self.duplication)) };
        (0..copies).map(|_| self.delay(rng)).collect()
    }

    fn delay(&self, rng: &mut Rng) -> Duration {
        let jitter = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        self.latency + Duration::from_micros(rng.below(jitter.saturating_add(1)))
    }
}

/// A NAT in front of one host: everything leaves from one public address, each inner port from a port of its own.
#[derive(Clone, Debug)]
pub struct Nat {
    public: IpAddr,
    next_port: u16,
    ports: BTreeMap<SocketAddr, u16>,
}

impl Nat {
    /// A NAT with this public address.
    #[must_use]
    pub fn new(public: IpAddr) -> Self {
        Self { public, next_port: FIRST_PORT, ports: BTreeMap::new() }
    }

    /// Its public address.
    #[must_use]
    pub fn public(&self) -> IpAddr {
        self.public
    }

    /// Forgets all mappings, as a restarted router does: the next datagram leaves from a new port.
    pub fn rebind(&mut self) {
        self.ports.clear();
    }

    /// The source that the outside sees.
    pub(crate) fn outward(&mut self, source: SocketAddr) -> SocketAddr {
        let port = *self.ports.entry(source).or_insert_with(|| {
            self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
            self.next_port
        });
        SocketAddr::new(self.public, port)
    }

    /// Who is meant inside by a public port; nobody if nothing went out from it.
    pub(crate) fn inward(&self, port: u16) -> Option<SocketAddr> {
        self.ports.iter().find(|(_, mapped)| **mapped == port).map(|(inner, _)| *inner)
    }
}

/// Octets of both headers.
const IPV4_AND_UDP: usize = 28;

/// The first port that a NAT gives out.
const FIRST_PORT: u16 = 20_000;
