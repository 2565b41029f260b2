//! What the dataplane has to tell.

use std::collections::VecDeque;

use espdp_api::Event;

/// Events in order. Bounded: a shell that does not listen loses the newest ones instead of growing without end.
#[derive(Debug, Default)]
pub(crate) struct EventQueue(VecDeque<Event>);

impl EventQueue {
    /// More than the packets of a batch can raise: events are once for an SA, or once a second.
    const MOST: usize = 4096;

    pub(crate) fn push(&mut self, event: Event) {
        if self.0.len() < Self::MOST {
            self.0.push_back(event);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
