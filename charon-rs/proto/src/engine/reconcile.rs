//! Children that should be up: who they are, and when to try again. There is no last try; the waits grow and are
//! jittered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::{Connection, StartAction};

/// What should be up.
#[derive(Debug, Default)]
pub(super) struct Reconciler {
    wanted: BTreeMap<String, Wanted>,
    /// The connections that are to be looked at, by time.
    queue: BTreeSet<(Instant, String)>,
}

/// The children of one connection that should be up.
#[derive(Debug, Default)]
struct Wanted {
    /// For good: the configuration says so.
    always: BTreeSet<String>,
    /// Until they are up once: the configuration says so, or they fell with a dead peer.
    once: BTreeSet<String>,
    /// Tries that came to nothing since the last that did not.
    failures: u32,
    due: Option<Instant>,
}

impl Reconciler {
    /// Wants what the configuration wants, and at once.
    pub(super) fn configure(&mut self, now: Instant, connection: &Connection) {
        let start = connection.children.iter().filter(|child| child.start == StartAction::Start);
        let always: BTreeSet<String> = start.map(|child| child.name.clone()).collect();
        let once = connection.children.iter().filter(|child| matches!(child.start, StartAction::Once { .. }));
        let once: BTreeSet<String> = once.map(|child| child.name.clone()).collect();
        self.forget(&connection.name);
        if !always.is_empty() || !once.is_empty() {
            self.wanted.insert(connection.name.clone(), Wanted { always, once, ..Wanted::default() });
            self.set_due(&connection.name, Some(now));
        }
    }

    pub(super) fn forget(&mut self, connection: &str) {
        self.set_due(connection, None);
        self.wanted.remove(connection);
    }

    pub(super) fn forget_all(&mut self) {
        *self = Self::default();
    }

    fn set_due(&mut self, connection: &str, due: Option<Instant>) {
        let Some(wanted) = self.wanted.get_mut(connection) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut wanted.due, due) {
            self.queue.remove(&(before, connection.to_owned()));
        }
        self.queue.extend(due.map(|due| (due, connection.to_owned())));
    }

    /// Somebody took the child (or all of them) down on purpose: it stays down until somebody wants it up.
    pub(super) fn suspend(&mut self, connection: &str, child: Option<&str>) {
        let Some(wanted) = self.wanted.get_mut(connection) else {
            return;
        };
        match child {
            None => {
                wanted.always.clear();
                wanted.once.clear();
            }
            Some(child) => {
                wanted.always.remove(child);
                wanted.once.remove(child);
            }
        }
    }

    /// Somebody wants the child up: if the configuration wants it, too, it is kept up again.
    pub(super) fn resume(&mut self, connection: &Connection, child: &str) {
        let starts = |other: &&crate::config::Child| other.name == child && other.start == StartAction::Start;
        if connection.children.iter().any(|child| starts(&child)) {
            self.wanted.entry(connection.name.clone()).or_default().always.insert(child.to_owned());
        }
    }

    /// Wants the child up once more, and at once.
    pub(super) fn want_once(&mut self, now: Instant, connection: &str, child: &str) {
        let wanted = self.wanted.entry(connection.to_owned()).or_default();
        wanted.once.insert(child.to_owned());
        self.set_due(connection, Some(now));
    }

    /// The child is up.
    pub(super) fn came_up(&mut self, connection: &str, child: &str) {
        if let Some(wanted) = self.wanted.get_mut(connection) {
            wanted.once.remove(child);
            wanted.failures = 0;
        }
    }

    /// Tries again later if anything is wanted: after a wait that is twice as long as the one before, less a random part
    /// of up to a quarter. `random` is between 0 and 1.
    pub(super) fn later(&mut self, now: Instant, connection: &str, waits: Waits, random: f64) {
        let Some(wanted) = self.wanted.get_mut(connection) else {
            return;
        };
        if wanted.always.is_empty() && wanted.once.is_empty() {
            return;
        }
        let wait = waits.first.saturating_mul(1 << wanted.failures.min(20)).min(waits.longest);
        let wait = wait.mul_f64(1.0 - random / 4.0);
        wanted.failures = wanted.failures.saturating_add(1);
        let due = wanted.due.map_or(now + wait, |due| due.min(now + wait));
        self.set_due(connection, Some(due));
    }

    /// Takes a connection that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<String> {
        let (_, connection) = self.queue.first().filter(|(due, _)| *due <= now)?.clone();
        self.set_due(&connection, None);
        Some(connection)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// The children of the connection that should be up.
    pub(super) fn wanted(&self, connection: &str) -> Vec<String> {
        let wanted = self.wanted.get(connection);
        wanted.map(|wanted| wanted.always.union(&wanted.once).cloned().collect()).unwrap_or_default()
    }
}

/// How long to wait between tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testbed::start_of_time;

    const WAITS: Waits = Waits { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

    #[test]
    fn waits_grow_are_jittered_and_start_again_after_success() {
        let now = start_of_time();
        let mut reconciler = Reconciler::default();
        reconciler.want_once(now, "c", "net");
        assert_eq!(reconciler.take_due(now).as_deref(), Some("c"));
        let mut waits = Vec::new();
        for random in [0.0, 0.0, 0.0, 0.0, 0.0, 1.0] {
            reconciler.later(now, "c", WAITS, random);
            waits.push((reconciler.next_due().unwrap() - now).as_secs_f64());
            reconciler.take_due(now + WAITS.longest);
        }
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 10.0, 7.5]);
        reconciler.came_up("c", "net");
        assert!(reconciler.wanted("c").is_empty());
        reconciler.want_once(now, "c", "net");
        reconciler.take_due(now);
        reconciler.later(now, "c", WAITS, 0.0);
        assert_eq!(reconciler.next_due(), Some(now + WAITS.first));
    }

    #[test]
    fn what_was_taken_down_on_purpose_stays_down() {
        let now = start_of_time();
        let mut reconciler = Reconciler::default();
        reconciler.want_once(now, "c", "net");
        reconciler.take_due(now);
        reconciler.suspend("c", Some("net"));
        reconciler.later(now, "c", WAITS, 0.0);
        assert_eq!(reconciler.next_due(), None);
    }
}
