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
}
