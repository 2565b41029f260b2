//! SAs as people see them.

use super::established::{Established, Life};
use super::ike_sa::IkeSa;
use super::nat::Nat;
use super::session::{Names, Session};
use super::task::Task;
use crate::io::{IkeSaReport, IkeState};

impl Established {
    pub(super) fn report(&self) -> IkeSaReport {
        let running = self.running.as_ref().map(|running| &running.queued);
        let rekeys = running.is_some_and(|queued| matches!(queued.task, Task::RekeyIke { .. }));
        let state = match self.life {
            Life::Up if rekeys => IkeState::Rekeying,
            Life::Up => IkeState::Established,
            Life::Replaced(_) => IkeState::Rekeyed,
            Life::Deleting | Life::Over => IkeState::Deleting,
        };
        let children = self.children.values().map(|child| child.report(self.is_rekeying(child.id)));
        IkeSaReport {
            local_id: Some(self.who.local_id.to_string()),
            remote_id: Some(self.who.remote_id.to_string()),
            established: Some(self.since),
            rekey_at: self.rekey_at,
            reauth_at: self.reauth_at(),
            expires_at: self.expires_at,
            local_virtual: self.session.virtual_addresses.ours.clone(),
            remote_virtual: self.session.virtual_addresses.theirs.clone(),
            name_servers: self.session.virtual_addresses.name_servers.clone(),
            domains: self.session.virtual_addresses.domains.clone(),
            tasks: running.into_iter().chain(self.tasks.iter()).map(|queued| queued.task.name().to_owned()).collect(),
            children: children.collect(),
            ..of_session(&self.session, state)
        }
    }
}

impl IkeSa {
    /// The SA as people see it; those that are only there to be forgotten are not shown.
    pub(super) fn report(&self) -> Option<IkeSaReport> {
        match self {
            Self::Locating(locating) => {
                let attempt = &locating.attempt;
                let path = espdp_api::IkePath {
                    local: (unspecified(), attempt.connection.local_port).into(),
                    remote: (unspecified(), attempt.connection.remote_port).into(),
                };
                Some(of_attempt(attempt, path, IkeState::Created))
            }
            Self::Initiating(initiating) => {
                Some(of_attempt(&initiating.attempt, initiating.path, IkeState::Connecting))
            }
            Self::Intermediate(intermediate) => Some(of_session(&intermediate.keyed.session, IkeState::Connecting)),
            Self::InitiatorAuth(auth) => Some(of_session(&auth.handshake.session, IkeState::Connecting)),
            Self::HalfOpen(half_open) => Some(of_session(&half_open.session, IkeState::Connecting)),
            Self::ResponderAuth(auth) => Some(of_session(&auth.handshake.half_open.session, IkeState::Connecting)),
            Self::Established(sa) => (!sa.is_spare).then(|| sa.report()),
            Self::Refusing(_) | Self::Refused(_) => None,
        }
    }
}

fn of_attempt(attempt: &super::initiator::Attempt, path: espdp_api::IkePath, state: IkeState) -> IkeSaReport {
    let names = Names {
        id: attempt.id,
        role: crate::wire::Role::OriginalInitiator,
        initiator_spi: attempt.spi,
        responder_spi: crate::io::IkeSpi::default(),
    };
    empty(&attempt.connection.name, &names, path, Nat::default(), state)
}

fn of_session(session: &Session, state: IkeState) -> IkeSaReport {
    IkeSaReport {
        proposal: Some(session.suite),
        nonce_i: session.nonce_i.clone(),
        nonce_r: session.nonce_r.clone(),
        ..empty(&session.connection.name, &session.names, session.path, session.nat, state)
    }
}

fn empty(connection: &str, names: &Names, path: espdp_api::IkePath, nat: Nat, state: IkeState) -> IkeSaReport {
    IkeSaReport {
        id: names.id,
        connection: connection.to_owned(),
        state,
        path,
        local_id: None,
        remote_id: None,
        initiator: names.role == crate::wire::Role::OriginalInitiator,
        initiator_spi: names.initiator_spi,
        responder_spi: names.responder_spi,
        proposal: None,
        nonce_i: Vec::new(),
        nonce_r: Vec::new(),
        nat_local: nat.local,
        nat_remote: nat.remote,
        nat_fake: nat.fake,
        local_virtual: Vec::new(),
        remote_virtual: Vec::new(),
        name_servers: Vec::new(),
        domains: Vec::new(),
        established: None,
        rekey_at: None,
        reauth_at: None,
        expires_at: None,
        tasks: Vec::new(),
        children: Vec::new(),
    }
}

fn unspecified() -> std::net::IpAddr {
    std::net::Ipv4Addr::UNSPECIFIED.into()
}
