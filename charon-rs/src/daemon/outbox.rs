//! Events about SAs on their way to clients. That a Child SA is gone is told with its last counters, which the dataplane
//! knows a moment later than the engine; what happens meanwhile waits behind it, so that events stay in order.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use espdp_api::{Command, Direction, Done, EspSpi, Outcome, SaStatistics};
use ike_proto::io::{ChildSaReport, Notice};

use super::events;
use super::shell::{Statistics, by_half};
use crate::vici::Message;

/// Last counters kept: those of replaced SAs are shown while their inbound half drains.
const LAST_COUNTERS: usize = 256;

/// Events that wait. Beyond, they go without counters: a dataplane that does not answer must not cost memory.
const HELD: usize = 1024;

/// One half of a Child SA.
pub(crate) type SaKey = (Direction, EspSpi);

/// Events that wait for counters, and the counters.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    held: VecDeque<(Notice, Instant)>,
    removing: BTreeSet<SaKey>,
    last: VecDeque<SaStatistics>,
}

impl Outbox {
    /// Takes a request to the dataplane down, if it removes an SA: which one.
    pub(crate) fn on_request(&mut self, command: &Command) -> Option<SaKey> {
        let Command::RemoveSa { direction, spi, .. } = command else { return None };
        self.removing.insert((*direction, *spi));
        Some((*direction, *spi))
    }

    /// Takes the answer to such a request.
    pub(crate) fn on_removed(&mut self, key: SaKey, outcome: &Outcome) {
        self.removing.remove(&key);
        if let Ok(Done::Removed(statistics)) = outcome {
            if self.last.len() == LAST_COUNTERS {
                self.last.pop_front();
            }
            self.last.push_back((**statistics).clone());
        }
    }

    /// Takes what happened.
    pub(crate) fn push(&mut self, notice: &Notice, now: Instant) {
        if events::is_about_an_sa(notice) {
            self.held.push_back((notice.clone(), now));
        }
    }

    /// The next event that can go.
    pub(crate) fn pop(&mut self) -> Option<(&'static str, Message)> {
        let (notice, _) = self.held.front()?;
        let crowded = self.held.len() > HELD;
        if !crowded && halves(notice).iter().any(|key| self.removing.contains(key)) {
            return None;
        }
        let (notice, at) = self.held.pop_front()?;
        let told = if let Notice::ChildRekeyed { old, .. } = &notice { halves_of(old) } else { halves(&notice) };
        let last = self.last_counters().filter(|counters| told.contains(&(counters.direction, counters.spi)));
        let statistics = Statistics { sas: by_half(last.cloned()), ..Statistics::default() };
        events::updown_or_rekey(&notice, &statistics, at)
    }

    /// The counters of SAs that are gone from the dataplane, newest first: an SPI may be used again.
    pub(crate) fn last_counters(&self) -> impl Iterator<Item = &SaStatistics> {
        self.last.iter().rev()
    }
}

/// The halves whose last counters an event tells.
fn halves(notice: &Notice) -> Vec<SaKey> {
    if let Notice::ChildDown { child, .. } = notice { halves_of(child) } else { Vec::new() }
}

fn halves_of(child: &ChildSaReport) -> Vec<SaKey> {
    let outbound = child.spi_out.map(|spi| (Direction::Outbound, spi));
    [Some((Direction::Inbound, child.spi_in)), outbound].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;
    use ike_proto::io::DownReason;

    #[test]
    fn a_child_that_goes_down_waits_for_its_counters_and_what_follows_waits_behind_it() {
        let sa = Box::new(testing::ike_sa());
        let child = Box::new(sa.children.first().unwrap().clone());
        let (inbound, policy, now) = (child.spi_in, child.policy, Instant::now());
        let mut outbox = Outbox::default();
        let remove = Command::RemoveSa { direction: Direction::Inbound, spi: inbound, policy };
        let key = outbox.on_request(&remove).unwrap();
        outbox.push(&Notice::ChildDown { sa: sa.clone(), child, reason: DownReason::Command }, now);
        outbox.push(&Notice::IkeDown { sa, reason: DownReason::Command }, now);
        assert!(outbox.pop().is_none());
        let statistics = SaStatistics {
            spi: inbound,
            direction: Direction::Inbound,
            bytes: 4711,
            packets: 7,
            idle_seconds: None,
            sequence: 7,
            drops: Vec::new(),
        };
        outbox.on_removed(key, &Ok(Done::Removed(Box::new(statistics))));
        let (name, message) = outbox.pop().unwrap();
        assert_eq!(name, "child-updown");
        let children = message.section("net").and_then(|sa| sa.section("child-sas")).unwrap();
        assert_eq!(children.section("net-1").unwrap().text("bytes-in"), Some("4711"));
        assert_eq!(outbox.pop().unwrap().0, "ike-updown");
        assert!(outbox.pop().is_none());
    }

    #[test]
    fn a_removal_that_fails_holds_nothing_up() {
        let sa = Box::new(testing::ike_sa());
        let child = Box::new(sa.children.first().unwrap().clone());
        let mut outbox = Outbox::default();
        let remove = Command::RemoveSa { direction: Direction::Inbound, spi: child.spi_in, policy: child.policy };
        let key = outbox.on_request(&remove).unwrap();
        outbox.on_removed(key, &Err(espdp_api::Refusal::UnknownSa(child.spi_in)));
        outbox.push(&Notice::ChildDown { sa, child, reason: DownReason::Command }, Instant::now());
        assert!(outbox.pop().is_some());
    }
}
