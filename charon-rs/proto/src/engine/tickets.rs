//! Tickets: which parts of which commands are still under way.

use std::collections::BTreeMap;

use crate::io::{Notice, SettledCount, Ticket};

/// The commands that wait for their end. Each is settled exactly once.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    open: BTreeMap<Ticket, Progress>,
}

#[derive(Debug)]
struct Progress {
    waiting: u32,
    count: SettledCount,
    error: Option<String>,
}

impl Tickets {
    /// Opens a ticket for an undertaking of `parts` parts; without parts it is settled at once with `none`.
    pub(super) fn open(&mut self, ticket: Ticket, parts: u32, none: &str) -> Option<Notice> {
        if parts == 0 {
            return Some(Notice::Settled { ticket, result: Err(none.to_owned()) });
        }
        let count = SettledCount { matches: parts, done: 0 };
        self.open.insert(ticket, Progress { waiting: parts, count, error: None });
        None
    }

    /// Notes how one part ended; after the last one the ticket is settled: well, if any part went well.
    pub(super) fn part_ended(&mut self, ticket: Ticket, result: &Result<(), String>) -> Option<Notice> {
        let progress = self.open.get_mut(&ticket)?;
        progress.waiting = progress.waiting.saturating_sub(1);
        match result {
            Ok(()) => progress.count.done += 1,
            Err(error) => progress.error = progress.error.take().or_else(|| Some(error.clone())),
        }
        if progress.waiting > 0 {
            return None;
        }
        let progress = self.open.remove(&ticket)?;
        let result = match progress.error {
            Some(error) if progress.count.done == 0 => Err(error),
            _ => Ok(progress.count),
        };
        Some(Notice::Settled { ticket, result })
    }

    /// Settles everything that is still open, because the engine ends.
    pub(super) fn abandon_all(&mut self, why: &str) -> Vec<Notice> {
        std::mem::take(&mut self.open)
            .into_keys()
            .map(|ticket| Notice::Settled { ticket, result: Err(why.to_owned()) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(notice: Option<Notice>) -> Result<SettledCount, String> {
        match notice {
            Some(Notice::Settled { ticket: Ticket(7), result }) => result,
            other => panic!("ticket 7 is not settled: {other:?}"),
        }
    }

    #[test]
    fn a_ticket_is_settled_once_after_its_last_part() {
        let mut tickets = Tickets::default();
        assert!(tickets.open(Ticket(7), 2, "nothing").is_none());
        assert!(tickets.part_ended(Ticket(7), &Err("no".into())).is_none());
        let result = settled(tickets.part_ended(Ticket(7), &Ok(())));
        assert_eq!(result, Ok(SettledCount { matches: 2, done: 1 }));
        assert!(tickets.part_ended(Ticket(7), &Ok(())).is_none());
    }

    #[test]
    fn a_ticket_of_which_nothing_worked_reports_the_first_error() {
        let mut tickets = Tickets::default();
        tickets.open(Ticket(7), 2, "nothing");
        tickets.part_ended(Ticket(7), &Err("first".into()));
        assert_eq!(settled(tickets.part_ended(Ticket(7), &Err("second".into()))), Err("first".into()));
        assert_eq!(settled(tickets.open(Ticket(7), 0, "nothing")), Err("nothing".into()));
    }
}
