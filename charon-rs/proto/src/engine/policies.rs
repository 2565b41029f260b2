//! Policies of the dataplane: whose they are, and which of them wait for a packet.

use std::collections::BTreeMap;

use espdp_api::{AddressRange, Command, PolicyId, PolicySpec, TrafficSelector};

use super::routes::routes_of;
use crate::config::{Child, Connection, RemoteAddress};
use crate::io::IkeSpi;

/// All policies that are set.
#[derive(Debug, Default)]
pub(super) struct Policies {
    set: BTreeMap<PolicyId, Policy>,
    last: u64,
}

/// A policy and what it is for.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// The name of the connection, which may be configured anew meanwhile.
    pub(super) connection: String,
    pub(super) child: String,
    /// The IKE SA (by our SPI) whose child uses it now.
    pub(super) user: Option<IkeSpi>,
    /// Whether it stays when nobody uses it, and what it is then.
    trap: Option<PolicySpec>,
}

impl Policies {
    /// The policy for a child that comes up: the trap that waited for it, or a new one. It is set when the child is
    /// installed.
    pub(super) fn claim(&mut self, user: IkeSpi, connection: &Connection, child: &Child) -> PolicyId {
        let waiting = self.set.iter_mut().find(|(_, policy)| policy.user.is_none() && policy.is_for(connection, child));
        if let Some((&id, policy)) = waiting {
            policy.user = Some(user);
            return id;
        }
        let id = self.next_id();
        self.set.insert(id, Policy { user: Some(user), ..Policy::of(connection, child) });
        id
    }

    /// What the policy of a child is while the child is up with these selectors.
    pub(super) fn in_use(
        &self,
        id: PolicyId,
        child: &Child,
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
    ) -> Command {
        Command::SetPolicy(Box::new(PolicySpec {
            id,
            interface: child.interface.clone(),
            local: local.to_vec(),
            remote: remote.to_vec(),
            routes: routes_of(&child.routes, remote),
            acquire: self.set.get(&id).is_some_and(|policy| policy.trap.is_some()),
        }))
    }

    /// The child that used the policy is gone: what the dataplane must be told.
    pub(super) fn release(&mut self, id: PolicyId) -> Option<Command> {
        let policy = self.set.get_mut(&id)?;
        policy.user = None;
        if let Some(trap) = &policy.trap {
            return Some(Command::SetPolicy(Box::new(trap.clone())));
        }
        self.set.remove(&id);
        Some(Command::RemovePolicy(id))
    }

    /// Lets a child's policy wait for packets: the one in use stays when its child goes, or a new one is set by the
    /// command that is returned.
    pub(super) fn trap(&mut self, connection: &Connection, child: &Child) -> Result<Option<Command>, NoSelectors> {
        let existing = self.set.iter().find(|(_, policy)| policy.is_for(connection, child)).map(|(&id, _)| id);
        let id = existing.unwrap_or_else(|| PolicyId(self.last + 1));
        let Some(spec) = trap_spec(id, connection, child) else {
            return Err(NoSelectors { child: child.name.clone() });
        };
        if let Some(policy) = self.set.get_mut(&id) {
            policy.trap = Some(spec);
            return Ok(None);
        }
        let command = Command::SetPolicy(Box::new(spec.clone()));
        let id = self.next_id();
        self.set.insert(id, Policy { trap: Some(spec), ..Policy::of(connection, child) });
        Ok(Some(command))
    }

    /// Lets no policy of the connection wait any more; those that nobody uses go.
    pub(super) fn untrap(&mut self, connection: &str) -> Vec<Command> {
        let mut gone = Vec::new();
        self.set.retain(|&id, policy| {
            if policy.connection != connection {
                return true;
            }
            policy.trap = None;
            if policy.user.is_none() {
                gone.push(Command::RemovePolicy(id));
            }
            policy.user.is_some()
        });
        gone
    }

    /// Whether the policy exists and belongs to a child of this IKE SA.
    pub(super) fn is_used_by(&self, id: PolicyId, user: IkeSpi) -> bool {
        self.set.get(&id).is_some_and(|policy| policy.user == Some(user))
    }

    pub(super) fn get(&self, id: PolicyId) -> Option<&Policy> {
        self.set.get(&id)
    }

    /// Notes that the child with this policy belongs to another IKE SA now.
    pub(super) fn hand_over(&mut self, id: PolicyId, user: IkeSpi) {
        if let Some(policy) = self.set.get_mut(&id) {
            policy.user = Some(user);
        }
    }

    /// Identifiers are never used twice, see [`PolicyId`].
    fn next_id(&mut self) -> PolicyId {
        self.last += 1;
        PolicyId(self.last)
    }
}

/// The configuration does not say which packets a child is for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("child `{child}` cannot wait for packets: `left`, `right` or the subnets must say which")]
pub(super) struct NoSelectors {
    child: String,
}

impl Policy {
    fn of(connection: &Connection, child: &Child) -> Self {
        Self { connection: connection.name.clone(), child: child.name.clone(), user: None, trap: None }
    }

    fn is_for(&self, connection: &Connection, child: &Child) -> bool {
        self.connection == connection.name && self.child == child.name
    }
}

/// The policy of a child that waits for packets, with the selectors of the configuration. Selectors that mean "our
/// address" or "the peer's address" must be known by the configuration.
fn trap_spec(id: PolicyId, connection: &Connection, child: &Child) -> Option<PolicySpec> {
    let host = |address| vec![TrafficSelector::any_protocol(AddressRange::single(address))];
    let local = match child.local_selectors.as_slice() {
        [] => host(*connection.local_addresses.first()?),
        given => given.to_vec(),
    };
    let remote = match child.remote_selectors.as_slice() {
        [] => host(connection.remote_addresses.iter().find_map(|remote| match remote {
            RemoteAddress::Address(address) => Some(*address),
            RemoteAddress::Range(_) | RemoteAddress::Name(_) | RemoteAddress::Any => None,
        })?),
        given => given.to_vec(),
    };
    let routes = routes_of(&child.routes, &remote);
    Some(PolicySpec { id, interface: child.interface.clone(), local, remote, routes, acquire: true })
}
