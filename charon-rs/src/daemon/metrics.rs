//! What monitoring wants to know: counters that go on when SAs are replaced, and the state of everything, as Prometheus reads it.
//!
//! Labels are names of the configuration, never SPIs or addresses of peers, so that series neither come and go with
//! rekeyings nor tell more than the configuration does.

mod http;
mod page;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use espdp_api::{Direction, SaStatistics};
use ike_proto::io::{ChildSaReport, IkeSaId, IkeSaReport, Notice};

pub(super) use self::http::Page;
pub(super) use self::page::{expiries, page};
use super::outbox::SaKey;

/// Handshakes that are timed at once. Those of a flood are not.
const TIMED: usize = 4096;

/// Upper ends of the buckets of handshake times, in seconds.
const BUCKETS: [f64; 9] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Counters that outlive SAs.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Whose the halves of Child SAs are.
    owners: BTreeMap<SaKey, ChildName>,
    /// What was carried by SAs that are gone.
    gone: BTreeMap<(ChildName, Way), Carried>,
    /// Failures by connection, empty for those that belong to none, and code.
    failures: BTreeMap<(String, &'static str), u64>,
    /// Rekeyings by connection and kind.
    rekeyings: BTreeMap<(String, &'static str), u64>,
    /// When handshakes began.
    begun: BTreeMap<IkeSaId, Instant>,
    handshakes: BTreeMap<&'static str, Histogram>,
}

/// A child by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChildName {
    pub(super) connection: String,
    pub(super) child: String,
}

impl ChildName {
    fn of(sa: &IkeSaReport, child: &ChildSaReport) -> Self {
        Self { connection: sa.connection.clone(), child: child.name.clone() }
    }
}

/// A direction that can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    In,
    Out,
}

impl Way {
    fn of(direction: Direction) -> Self {
        match direction {
            Direction::Inbound => Self::In,
            Direction::Outbound => Self::Out,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// What SAs have carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    octets: u64,
    packets: u64,
    /// Numbers that the sender has used and that never passed: lost on the way, at rekeyings, or dropped. Of inbound SAs that
    /// are gone; those that are alive may have packets on the way.
    missing: u64,
    drops: BTreeMap<String, u64>,
}

impl Carried {
    fn add(&mut self, sa: &SaStatistics) {
        self.octets += sa.bytes;
        self.packets += sa.packets;
        for drop in &sa.drops {
            *self.drops.entry(drop.reason.clone()).or_default() += drop.packets;
        }
    }
}

/// How often something took how long.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(at) = BUCKETS.iter().position(|end| seconds <= *end)
            && let Some(count) = self.counts.get_mut(at)
        {
            *count += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

impl Metrics {
    /// Counts what happened.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
    pub(super) fn on_notice(&mut self, notice: &Notice, now: Instant) {
        match notice {
            Notice::Message(trace) if trace.summary.starts_with("IKE_SA_INIT") => {
                if let Some(id) = trace.ike_sa.filter(|_| self.begun.len() < TIMED) {
                    self.begun.entry(id).or_insert(now);
                }
            }
            Notice::IkeUp(sa) => {
                if let Some(began) = self.begun.remove(&sa.id) {
                    let role = if sa.initiator { "initiator" } else { "responder" };
                    self.handshakes.entry(role).or_default().observe(now.saturating_duration_since(began));
                }
            }
            Notice::IkeDown { sa, .. } => drop(self.begun.remove(&sa.id)),
            Notice::ChildUp { sa, child } => self.own(sa, child),
            Notice::ChildRekeyed { sa, new, .. } => {
                self.own(sa, new);
                *self.rekeyings.entry((sa.connection.clone(), "child")).or_default() += 1;
            }
            Notice::IkeRekeyed { sa, .. } => {
                *self.rekeyings.entry((sa.connection.clone(), "ike")).or_default() += 1;
            }
            Notice::Failure(failure) => {
                let connection = failure.connection.clone().unwrap_or_default();
                *self.failures.entry((connection, failure.code.name())).or_default() += 1;
            }
            _ => {}
        }
        // What was begun and never came to an end in either way.
        if self.begun.len() == TIMED {
            self.begun.retain(|_, began| now.saturating_duration_since(*began) < Duration::from_secs(60));
        }
    }

    /// Takes the last counters of a half.
    pub(super) fn on_removed(&mut self, sa: &SaStatistics) {
        let Some(name) = self.owners.remove(&(sa.direction, sa.spi)) else { return };
        let way = Way::of(sa.direction);
        let carried = self.gone.entry((name, way)).or_default();
        carried.add(sa);
        if way == Way::In {
            carried.missing += sa.sequence.saturating_sub(sa.packets);
        }
    }

    /// Forgets a connection that was removed.
    pub(super) fn forget(&mut self, connection: &str) {
        self.owners.retain(|_, name| name.connection != connection);
        self.gone.retain(|(name, _), _| name.connection != connection);
        self.failures.retain(|(name, _), _| name != connection);
        self.rekeyings.retain(|(name, _), _| name != connection);
    }

    /// What children have carried so far, in SAs that are gone and in those of `alive`.
    fn carried<'a>(&self, alive: impl Iterator<Item = &'a SaStatistics>) -> BTreeMap<(ChildName, Way), Carried> {
        let mut all = self.gone.clone();
        for sa in alive {
            if let Some(name) = self.owners.get(&(sa.direction, sa.spi)) {
                all.entry((name.clone(), Way::of(sa.direction))).or_default().add(sa);
            }
        }
        all
    }

    fn own(&mut self, sa: &IkeSaReport, child: &ChildSaReport) {
        self.owners.insert((Direction::Inbound, child.spi_in), ChildName::of(sa, child));
        if let Some(spi) = child.spi_out {
            self.owners.insert((Direction::Outbound, spi), ChildName::of(sa, child));
        }
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::{DropCount, EspSpi};

    use super::*;
    use crate::daemon::testing;

    fn counters(direction: Direction, spi: EspSpi, packets: u64) -> SaStatistics {
        let drops = vec![DropCount { reason: "replay".into(), packets: 1 }];
        SaStatistics { spi, direction, bytes: packets * 100, packets, idle_seconds: None, sequence: packets + 2, drops }
    }

    #[test]
    fn counters_go_on_when_an_sa_is_replaced() {
        let sa = Box::new(testing::ike_sa());
        let old = Box::new(sa.children.first().unwrap().clone());
        let new = Box::new(ChildSaReport { spi_in: EspSpi::try_from(0x1234_5678).unwrap(), ..(*old).clone() });
        let mut metrics = Metrics::default();
        let now = Instant::now();
        metrics.on_notice(&Notice::ChildUp { sa: sa.clone(), child: old.clone() }, now);
        metrics.on_notice(&Notice::ChildRekeyed { sa, old: old.clone(), new: new.clone() }, now);
        metrics.on_removed(&counters(Direction::Inbound, old.spi_in, 7));
        metrics.on_removed(&counters(Direction::Inbound, old.spi_in, 7));
        let alive = [counters(Direction::Inbound, new.spi_in, 5)];
        let carried = metrics.carried(alive.iter());
        let name = ChildName { connection: "net".into(), child: "net".into() };
        let drops = [("replay".to_owned(), 2)].into();
        assert_eq!(carried.get(&(name, Way::In)), Some(&Carried { octets: 1200, packets: 12, missing: 2, drops }));
        metrics.forget("net");
        assert!(metrics.carried(alive.iter()).is_empty());
    }

    #[test]
    fn handshakes_are_timed_from_their_first_message() {
        let mut metrics = Metrics::default();
        let (now, sa) = (Instant::now(), testing::ike_sa());
        let mut first = testing::message(Some("net"), true, "IKE_SA_INIT request 0 [ SA KE No ]");
        first.ike_sa = Some(sa.id);
        metrics.on_notice(&Notice::Message(first), now);
        metrics.on_notice(&Notice::IkeUp(Box::new(sa)), now + Duration::from_millis(30));
        let timed = metrics.handshakes.get("initiator").unwrap();
        assert_eq!((timed.counts, timed.count), ([0, 0, 1, 0, 0, 0, 0, 0, 0], 1));
        assert!(metrics.begun.is_empty());
    }
}
