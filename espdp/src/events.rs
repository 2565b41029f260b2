//! The queue to the daemon.

use espdp_api::{Event, FromDataplane, Outcome, RequestId};
use tokio::sync::mpsc;

/// Sends outcomes and events. A slow daemon loses IKE datagrams first, which the peers send again, then other events; outcomes
/// wait for room.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<FromDataplane>,
}

impl Events {
    pub(crate) fn new(sender: mpsc::Sender<FromDataplane>) -> Self {
        Self { sender }
    }

    /// Queues an event and says whether there was room. A quarter of the queue is kept from IKE datagrams.
    #[must_use]
    pub(crate) fn event(&self, event: Event) -> bool {
        let is_ike = matches!(event, Event::Ike { .. });
        if is_ike && self.sender.capacity() <= self.sender.max_capacity() / 4 {
            return false;
        }
        self.sender.try_send(FromDataplane::Event(event)).is_ok()
    }

    /// Queues that the dataplane cannot go on, after waiting for room: this alone must not get lost. Only for threads that end
    /// then.
    pub(crate) fn fatal(&self, reason: String) {
        if self.sender.blocking_send(FromDataplane::Event(Event::Fatal { reason })).is_err() {
            tracing::debug!("nobody reads events any more");
        }
    }

    /// Queues an outcome, after waiting for room. Nobody to read it is no error: the daemon is about to stop us.
    pub(crate) async fn outcome(&self, id: RequestId, outcome: Outcome) {
        if self.sender.send(FromDataplane::Outcome(id, outcome)).await.is_err() {
            tracing::debug!(?id, "nobody reads outcomes any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ike() -> Event {
        let address = "192.0.2.1:500".parse().unwrap();
        Event::Ike { path: espdp_api::IkePath { local: address, remote: address }, message: vec![0] }
    }

    #[test]
    fn a_flood_of_ike_datagrams_leaves_room_for_other_events() {
        let (sender, mut receiver) = mpsc::channel(8);
        let events = Events::new(sender);
        let queued = (0..100).filter(|_| events.event(ike())).count();
        assert_eq!(queued, 6);
        assert!(events.event(Event::Fatal { reason: "x".to_owned() }));
        let last = std::iter::from_fn(|| receiver.try_recv().ok()).last();
        assert!(matches!(last, Some(FromDataplane::Event(Event::Fatal { .. }))));
        assert!(events.event(ike()));
    }

    #[test]
    fn that_nothing_goes_on_is_told_even_when_the_queue_is_full() {
        let (sender, mut receiver) = mpsc::channel(1);
        let events = Events::new(sender);
        let first = Event::UnknownSpi {
            path: espdp_api::OuterPath {
                local: [192, 0, 2, 1].into(),
                remote: [192, 0, 2, 2].into(),
                encapsulation: espdp_api::Encapsulation::Esp,
            },
            spi: 1,
        };
        assert!(events.event(first));
        let teller = std::thread::spawn(move || events.fatal("x".to_owned()));
        assert!(matches!(receiver.blocking_recv(), Some(FromDataplane::Event(Event::UnknownSpi { .. }))));
        assert!(matches!(receiver.blocking_recv(), Some(FromDataplane::Event(Event::Fatal { .. }))));
        teller.join().unwrap();
    }
}
