//! The engine: routes what comes in to the SA it belongs to and collects what goes out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use espdp_api::IkePath;

use crate::config::Connection;
use crate::io::{Answer, AskId, Command, IkeSaReport, Notice, Output, TimerKind};
use crate::{SecureRandom, Settings};

/// An IKEv2 engine: all connections and all their SAs.
///
/// Feed it with the `handle_*` methods, each with the time; after each, carry out [`Engine::poll_output`] until it says
/// `None`, and call [`Engine::handle_timeout`] when the deadline of [`Engine::poll_timeout`] has come.
pub struct Engine {
    connections: BTreeMap<String, Connection>,
    outputs: VecDeque<Output>,
}

impl Engine {
    /// An engine without connections and secrets.
    #[must_use]
    pub fn new(settings: Settings, random: Box<dyn SecureRandom + Send>) -> Self {
        drop((settings, random));
        Self { connections: BTreeMap::new(), outputs: VecDeque::new() }
    }

    /// Takes a datagram from the network, without the non-ESP marker. A bad one is not the caller's error.
    pub fn handle_datagram(&mut self, now: Instant, path: IkePath, datagram: &[u8]) {
        let _unrouted = (now, path, datagram);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _nothing_due = now;
    }

    /// Takes the answer to an [`Output::Ask`].
    pub fn handle_answer(&mut self, now: Instant, id: AskId, answer: Answer) {
        drop((now, id, answer));
    }

    /// Carries out what somebody wants.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        let _started = now;
        match command {
            Command::SetConnection(connection) => {
                self.connections.insert(connection.name.clone(), *connection);
            }
            Command::RemoveConnection(name) => {
                self.connections.remove(&name);
            }
            Command::ShutDown { .. } => self.outputs.push_back(Output::Notice(Notice::ShutDown)),
            Command::SetSecret(_)
            | Command::RemoveSecret(_)
            | Command::Initiate { .. }
            | Command::Terminate { .. }
            | Command::Rekey { .. } => {}
        }
    }

    /// Takes what the dataplane saw. [`espdp_api::Event::Ike`] is a datagram.
    pub fn handle_dataplane(&mut self, now: Instant, event: espdp_api::Event) {
        if let espdp_api::Event::Ike { path, message } = event {
            self.handle_datagram(now, path, &message);
        }
    }

    /// The next thing to do; call until `None` after every input, and keep the order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Engine::handle_timeout`] is due, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        None
    }

    /// All IKE SAs as people see them.
    #[must_use]
    pub fn ike_sas(&self) -> Vec<IkeSaReport> {
        Vec::new()
    }

    /// The connections, by name.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }
}
