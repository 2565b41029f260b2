//! What happened, in a form that people and tools can ask for afterwards: the last lines of every connection, and the
//! failure that explains why it is down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use ike_proto::io::{Failure, IkeSaId, Notice};

use super::phrases;
use super::stories::Stories;

/// Lines kept for each connection, and for what belongs to none: about twenty handshakes.
const LINES: usize = 256;

/// Lines kept in all, in some 20 MiB: with more than 256 connections each has fewer.
const ALL_LINES: usize = 65_536;

/// Lines kept for each connection, however many there are: one handshake.
const FEWEST_LINES: usize = 12;

/// A line of the journal.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Counts the lines of this daemon from 1.
    pub(crate) number: u64,
    /// When it happened.
    pub(crate) at: SystemTime,
    /// The connection, if it is about one.
    pub(crate) connection: Option<String>,
    /// The IKE SA, if it is about one.
    pub(crate) ike_sa: Option<IkeSaId>,
    /// strongSwan's name for the part of the daemon.
    pub(crate) group: &'static str,
    /// 0 for what changes the state of an SA, 1 for the steps to it, 2 for details.
    pub(crate) level: u8,
    /// What happened.
    pub(crate) text: String,
    /// The failure that this line is the beginning of.
    pub(crate) failure: Option<Arc<Failure>>,
}

/// The last lines and failures.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    lines: BTreeMap<Option<String>, VecDeque<Arc<Entry>>>,
    failures: BTreeMap<Option<String>, Arc<Entry>>,
    last_number: u64,
    /// The attempts that they are about.
    pub(crate) stories: Stories,
}

impl Journal {
    /// Writes down what happened and gives the new lines.
    pub(crate) fn record(&mut self, notice: &Notice) -> Vec<Arc<Entry>> {
        self.settle(notice);
        self.stories.record(notice, SystemTime::now());
        let cause = if let Notice::Failure(failure) = notice { Some(Arc::new((**failure).clone())) } else { None };
        let mut entries = Vec::new();
        for line in phrases::lines(notice) {
            self.last_number += 1;
            let entry = Arc::new(Entry {
                number: self.last_number,
                at: SystemTime::now(),
                connection: line.connection,
                ike_sa: line.ike_sa,
                group: line.group,
                level: line.level,
                text: line.text,
                failure: cause.clone().filter(|_| entries.is_empty()),
            });
            if entry.failure.is_some() {
                self.failures.insert(entry.connection.clone(), Arc::clone(&entry));
            }
            let share = (ALL_LINES / self.lines.len().max(1)).clamp(FEWEST_LINES, LINES);
            let ring = self.lines.entry(entry.connection.clone()).or_default();
            ring.drain(..(ring.len() + 1).saturating_sub(share));
            ring.push_back(Arc::clone(&entry));
            entries.push(entry);
        }
        entries
    }

    /// The lines of one connection, or all lines, in the order in which they were written.
    pub(crate) fn lines(&self, connection: Option<&str>) -> Vec<Arc<Entry>> {
        let mut lines: Vec<Arc<Entry>> = self
            .lines
            .iter()
            .filter(|(name, _)| connection.is_none_or(|wanted| name.as_deref() == Some(wanted)))
            .flat_map(|(_, ring)| ring.iter().cloned())
            .collect();
        lines.sort_by_key(|entry| entry.number);
        lines
    }

    /// The last failure of a connection that nothing has made up for, or of a peer that no connection fits.
    pub(crate) fn failure(&self, connection: Option<&str>) -> Option<&Arc<Entry>> {
        self.failures.get(&connection.map(str::to_owned))
    }

    /// The number of the newest line.
    pub(crate) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Forgets a connection that does not exist any more.
    pub(crate) fn forget(&mut self, connection: &str) {
        let name = Some(connection.to_owned());
        self.lines.remove(&name);
        self.failures.remove(&name);
        self.stories.forget(connection);
    }

    /// A failure is over when what failed is up.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
    fn settle(&mut self, notice: &Notice) {
        let (connection, child) = match notice {
            Notice::IkeUp(sa) => (&sa.connection, None),
            Notice::ChildUp { sa, child } => (&sa.connection, Some(&child.name)),
            _ => return,
        };
        let name = Some(connection.clone());
        let over = self
            .failures
            .get(&name)
            .and_then(|entry| entry.failure.as_ref())
            .is_some_and(|failure| failure.child.is_none() || failure.child.as_ref() == child);
        if over {
            self.failures.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;

    #[test]
    fn a_ring_keeps_the_newest_lines_of_each_connection() {
        let mut journal = Journal::default();
        journal.record(&testing::remark(Some("rare"), "once"));
        for number in 0..LINES + 5 {
            journal.record(&testing::remark(Some("busy"), &number.to_string()));
        }
        let busy = journal.lines(Some("busy"));
        assert_eq!(busy.len(), LINES);
        assert_eq!(busy.first().unwrap().text, "5");
        assert_eq!(journal.lines(Some("rare")).len(), 1);
        assert_eq!(journal.lines(None).len(), LINES + 1);
        journal.forget("rare");
        assert!(journal.lines(Some("rare")).is_empty());
    }

    #[test]
    fn thousands_of_connections_share_the_lines_and_each_keeps_its_newest() {
        let mut journal = Journal::default();
        let connections = 2 * ALL_LINES / FEWEST_LINES;
        for line in 0..LINES {
            journal.record(&testing::remark(Some("old"), &line.to_string()));
        }
        for connection in 0..connections {
            journal.record(&testing::remark(Some(&connection.to_string()), "up"));
        }
        assert_eq!(journal.lines(Some("old")).len(), LINES, "nothing new was to be kept of it");
        journal.record(&testing::remark(Some("old"), "newest"));
        let lines = journal.lines(Some("old"));
        assert_eq!(lines.len(), FEWEST_LINES);
        assert_eq!(lines.last().unwrap().text, "newest");
    }

    #[test]
    fn a_failure_stays_until_what_failed_is_up() {
        let mut journal = Journal::default();
        let sa = Box::new(testing::ike_sa());
        let child = Box::new(sa.children.first().unwrap().clone());
        let entries = journal.record(&Notice::Failure(Box::new(testing::failure(Some("net"), Some("net")))));
        assert!(entries.len() > 1, "what, ours, theirs and hint are lines of their own");
        assert_eq!(journal.failure(Some("net")).unwrap().number, entries.first().unwrap().number);
        journal.record(&Notice::IkeUp(sa.clone()));
        assert!(journal.failure(Some("net")).is_some(), "the IKE SA is up, the child is not");
        journal.record(&Notice::ChildUp { sa, child });
        assert!(journal.failure(Some("net")).is_none());
    }

    #[test]
    fn a_failure_of_a_stranger_belongs_to_no_connection() {
        let mut journal = Journal::default();
        journal.record(&Notice::Failure(Box::new(testing::failure(None, None))));
        assert!(journal.failure(None).is_some());
        assert!(journal.failure(Some("net")).is_none());
    }
}
