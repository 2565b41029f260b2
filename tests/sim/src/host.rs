//! One host: an engine and its books.

use std::net::IpAddr;
use std::time::Instant;

use ike_proto::io::{Command, IkeSaReport, Notice};
use ike_proto::testing::SeededRandom;
use ike_proto::{Engine, Settings};

use crate::{Books, Nat};

/// An engine, its dataplane's books, what it noticed, and where it lives.
pub struct Host {
    /// The engine.
    pub engine: Engine,
    /// Its dataplane.
    pub books: Books,
    /// What it told.
    pub notices: Vec<(Instant, Notice)>,
    /// Its address.
    pub address: IpAddr,
    /// The NAT in front of it.
    pub nat: Option<Nat>,
    /// A host that is down neither hears nor speaks.
    pub down: bool,
}

impl Host {
    pub(crate) fn new(address: IpAddr, settings: Settings, seed: u64) -> Self {
        Self {
            engine: engine(settings, seed),
            books: Books::default(),
            notices: Vec::new(),
            address,
            nat: None,
            down: false,
        }
    }

    /// Loses all state, as a power cut does.
    pub fn reboot(&mut self, settings: Settings, seed: u64) {
        self.engine = engine(settings, seed);
        self.books = Books::default();
        self.down = false;
    }

    /// The established IKE SAs.
    #[must_use]
    pub fn established(&self) -> Vec<IkeSaReport> {
        let mut sas = self.engine.ike_sas();
        sas.retain(|sa| sa.state == ike_proto::io::IkeState::Established);
        sas
    }

    /// How often something was noticed.
    pub fn count(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.notices.iter().filter(|(_, notice)| wanted(notice)).count()
    }

    /// The public face of its address: the NAT's, if there is one.
    #[must_use]
    pub fn public(&self) -> IpAddr {
        self.nat.as_ref().map_or(self.address, Nat::public)
    }

    pub(crate) fn command(&mut self, now: Instant, command: Command) {
        self.engine.handle_command(now, command);
    }
}

fn engine(settings: Settings, seed: u64) -> Engine {
    Engine::new(settings, Box::new(SeededRandom::new(seed)))
}
