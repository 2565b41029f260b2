//! Two gateways of which one gets to read what the other one would never send.

use std::net::SocketAddr;
use std::time::Duration;

use ike_proto::Settings;
use ike_proto::crypto::protection::MessageCipher;
use ike_proto::io::{Command, IkeKeyExport, Notice, Ticket};
use ike_proto::wire::Role;
use sim::{Faults, HostId, World, address, connection, secret};

const LEFT: &str = "192.0.2.1";
const RIGHT: &str = "192.0.2.2";

/// How far two gateways have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The IKE_SA_INIT request is on its way.
    Begun,
    /// Both have keys, and the IKE_AUTH request is on its way.
    Keyed,
    /// The tunnel is up.
    Established,
}

/// The left one initiates.
pub(crate) struct Gateways {
    pub(crate) world: World,
    pub(crate) left: HostId,
    pub(crate) right: HostId,
}

impl Gateways {
    pub(crate) fn at(stage: Stage) -> Self {
        let mut world = World::new(1, Faults::NONE);
        world.tap();
        let settings = Settings { export_keys: true, ..Settings::default() };
        let left = world.add(address(LEFT), settings.clone());
        let right = world.add(address(RIGHT), settings);
        for (host, here, there) in [(left, LEFT, RIGHT), (right, RIGHT, LEFT)] {
            world.command(host, Command::SetSecret(secret()));
            world.command(host, Command::SetConnection(Box::new(connection(address(here), address(there)))));
        }
        let initiate = Command::Initiate { ticket: Ticket(1), connection: Some("net".into()), child: None };
        world.command(left, initiate);
        let mut gateways = Self { world, left, right };
        let long_enough = Duration::from_secs(1);
        let arrived = match stage {
            Stage::Begun => true,
            Stage::Keyed => gateways.world.run_until(long_enough, |world| {
                // IKE_SA_INIT both ways, and the IKE_AUTH request.
                world.tapped().len() == 3
            }),
            Stage::Established => {
                gateways.world.run_until(long_enough, |world| world.survey(left, right).usable == [true; 2])
            }
        };
        assert!(arrived, "two sound gateways come to {stage:?}");
        gateways
    }

    /// The address of a host.
    pub(crate) fn place(&self, host: HostId) -> SocketAddr {
        SocketAddr::new(self.world.host(host).address, 500)
    }

    pub(crate) fn other(&self, host: HostId) -> HostId {
        if host == self.left { self.right } else { self.left }
    }

    /// The keys of the IKE SA, as soon as there are any.
    pub(crate) fn keys(&self) -> Option<&IkeKeyExport> {
        let mut notices = self.world.host(self.right).notices.iter();
        notices.find_map(|(_, notice)| if let Notice::IkeKeys(keys) = notice { Some(&**keys) } else { None })
    }

    /// What protects the messages that `host` gets, and the role of those who send them.
    pub(crate) fn voice_to(&self, host: HostId) -> Option<(MessageCipher, Role)> {
        let keys = self.keys()?;
        let (encryption, integrity, sender) = if host == self.right {
            (&keys.sk_ei, &keys.sk_ai, Role::OriginalInitiator)
        } else {
            (&keys.sk_er, &keys.sk_ar, Role::OriginalResponder)
        };
        MessageCipher::new(keys.suite, encryption, integrity).ok().map(|cipher| (cipher, sender))
    }

    /// Gives a host a datagram that seems to come from the other one.
    pub(crate) fn deliver(&mut self, to: HostId, message: Vec<u8>) {
        let (here, there) = (self.place(to), self.place(self.other(to)));
        self.world.inject(here, there, message);
    }

    /// Both end, in whatever state they are, and leave nothing behind.
    pub(crate) fn finish(mut self) {
        for host in [self.left, self.right] {
            self.world.command(host, Command::ShutDown { grace: Duration::from_secs(1) });
        }
        self.world.run(Duration::from_secs(3));
        for host in [self.left, self.right] {
            let host = self.world.host(host);
            let left_over = (host.engine.ike_sas().len(), host.books.inbound().count(), host.books.outbound().count());
            assert_eq!(left_over, (0, 0, 0), "IKE SAs, inbound and outbound SAs are left");
            assert_eq!(host.books.reserved(), 0, "SPIs are left");
        }
    }
}
