//! Policies of the dataplane: whose they are, and which of them wait for a packet.
//!
//! A policy outlives its Child SAs: what takes the place of a child takes its policy over, within an IKE SA and from one
//! IKE SA to the next, so that no packet finds a policy without an SA.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use std::net::IpAddr;

use espdp_api::{Carries, Command, Direction, EspSpi, PolicyAction, PolicyId, PolicySpec, TrafficSelector};

use crate::config::{Child, ChildSelector, Connection, RemoteAddress};
use crate::io::{ChildSaId, IkeSpi};

/// All policies that are set.
#[derive(Debug, Default)]
pub(super) struct Policies {
    set: BTreeMap<PolicyId, Policy>,
    /// The same by the names of connection and child.
    by_name: BTreeMap<(String, String), BTreeSet<PolicyId>>,
    /// Those of them that have no Child SA.
    waiting: BTreeMap<(String, String), BTreeSet<PolicyId>>,
    /// The policies in which an IKE SA has a Child SA.
    by_owner: BTreeSet<(IkeSpi, PolicyId)>,
    last: u64,
}

/// A policy and what it is for.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// The name of the connection, which may be configured anew meanwhile.
    pub(super) connection: String,
    pub(super) child: String,
    /// The Child SAs in it.
    members: BTreeMap<ChildSaId, Member>,
    /// Whose outbound half sends.
    sends: Option<ChildSaId>,
    /// What it is now that it is in use, as the dataplane was told.
    in_use: Option<PolicySpec>,
    /// Whether it stays when nobody uses it, and what it is then.
    trap: Option<PolicySpec>,
}

/// A Child SA of a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// The IKE SA that it belongs to, by our SPI.
    pub(super) owner: IkeSpi,
    pub(super) spi_in: EspSpi,
    pub(super) spi_out: EspSpi,
    pub(super) stage: Stage,
    /// Whose packets it carries. What is for a single worker never sends for its policy.
    pub(super) carries: Carries,
}

/// What a Child SA can do for its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is being installed.
    Installing,
    /// It could send, but the peer may not be ready yet.
    Waiting,
    /// It receives, and sends if it is the one that does.
    Ready,
    /// It receives until it is deleted.
    Receiving,
    /// It is deleted, and receives what is still under way.
    Draining,
}

/// Whose policy a Child SA may take over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    /// The IKE SA of the child.
    pub(super) owner: IkeSpi,
    /// Other IKE SAs of the same connection with the same two identities.
    pub(super) kin: &'a [IkeSpi],
    pub(super) connection: &'a Connection,
    pub(super) child: &'a Child,
    pub(super) local: &'a [TrafficSelector],
    pub(super) remote: &'a [TrafficSelector],
}

/// What follows when a Child SA leaves its policy.
#[derive(Debug, Default)]
pub(super) struct Departure {
    /// What the dataplane must be told.
    pub(super) command: Option<Command>,
    /// Those that drain and are all that is left: nobody waits for what is under way to them any more.
    pub(super) drained: Vec<(IkeSpi, ChildSaId)>,
}

impl Policies {
    /// The policy for a child that comes up: that of a child with the same name and selectors, of the same two ends; or
    /// the trap that waited for it; or a new one. It is set when the child is installed. Several children may have the
    /// same selectors (R4301-4.1-1).
    pub(super) fn claim(&mut self, claim: Claim<'_>) -> PolicyId {
        let owners = claim.kin.iter().chain([&claim.owner]);
        let of_same_ends =
            owners.flat_map(|owner| self.owned_by(*owner)).filter(|(_, policy)| policy.may_be_shared(&claim));
        let waiting = || self.waiting.get(&name_of(claim.connection, claim.child))?.first().copied();
        match of_same_ends.map(|(id, _)| id).min().or_else(waiting) {
            Some(id) => id,
            None => self.add(Policy::of(claim.connection, claim.child)),
        }
    }

    /// The policies in which this IKE SA has a Child SA.
    fn owned_by(&self, owner: IkeSpi) -> impl Iterator<Item = (PolicyId, &Policy)> {
        let ids = self.by_owner.range((owner, PolicyId(0))..=(owner, PolicyId(u64::MAX)));
        ids.filter_map(|(_, id)| Some((*id, self.set.get(id)?)))
    }

    /// The policies for the child of this name.
    fn named(&self, connection: &Connection, child: &Child) -> impl Iterator<Item = (PolicyId, &Policy)> {
        let ids = self.by_name.get(&name_of(connection, child));
        ids.into_iter().flatten().filter_map(|id| Some((*id, self.set.get(id)?)))
    }

    /// Adds a policy. Identifiers are never used twice, see [`PolicyId`].
    fn add(&mut self, policy: Policy) -> PolicyId {
        self.last += 1;
        let id = PolicyId(self.last);
        self.by_name.entry(policy.name()).or_default().insert(id);
        self.waiting.entry(policy.name()).or_default().insert(id);
        self.set.insert(id, policy);
        id
    }

    fn remove(&mut self, id: PolicyId) {
        let Some(policy) = self.set.remove(&id) else {
            return;
        };
        for index in [&mut self.by_name, &mut self.waiting] {
            take_out(index, policy.name(), id);
        }
    }

    /// Notes that a child is in a policy now.
    pub(super) fn join(&mut self, id: PolicyId, child: ChildSaId, member: Member) {
        if let Some(policy) = self.set.get_mut(&id) {
            policy.members.insert(child, member);
            self.by_owner.insert((member.owner, id));
            take_out(&mut self.waiting, policy.name(), id);
        }
    }

    /// Notes what a child can do.
    pub(super) fn set_stage(&mut self, id: PolicyId, child: ChildSaId, stage: Stage) {
        if let Some(policy) = self.set.get_mut(&id) {
            policy.members.entry(child).and_modify(|member| member.stage = stage);
            policy.sends.take_if(|sends| *sends == child && stage != Stage::Ready);
        }
    }

    /// Notes which child sends.
    pub(super) fn set_sender(&mut self, id: PolicyId, child: ChildSaId) {
        self.set_stage(id, child, Stage::Ready);
        if let Some(policy) = self.set.get_mut(&id) {
            policy.sends = Some(child);
        }
    }

    /// Whether this child sends for its policy.
    pub(super) fn is_sender(&self, id: PolicyId, child: ChildSaId) -> bool {
        self.set.get(&id).is_some_and(|policy| policy.sends == Some(child))
    }

    /// Whether any child sends.
    pub(super) fn has_sender(&self, id: PolicyId) -> bool {
        self.set.get(&id).is_some_and(|policy| policy.sends.is_some())
    }

    /// The child that would send if `but` did not: the newest that can, and one whose peer is ready if there is any.
    pub(super) fn next_sender(&self, id: PolicyId, but: ChildSaId) -> Option<(ChildSaId, Member)> {
        let members = self.set.get(&id)?.members.iter();
        let is_able =
            |member: &Member| member.carries == Carries::All && matches!(member.stage, Stage::Waiting | Stage::Ready);
        let able = members.filter(|(child, member)| **child != but && is_able(member));
        let best = able.max_by_key(|(child, member)| (member.stage == Stage::Ready, **child));
        best.map(|(child, member)| (*child, *member))
    }

    /// Whether another child is in the policy and does not only drain.
    pub(super) fn is_shared(&self, id: PolicyId, child: ChildSaId) -> bool {
        self.set.get(&id).is_some_and(|policy| policy.others(child).next().is_some())
    }

    /// Another IKE SA than `owner` that has a child in the policy which does not only drain.
    pub(super) fn other_owner(&self, id: PolicyId, owner: IkeSpi) -> Option<IkeSpi> {
        let policy = self.set.get(&id)?;
        let mut others = policy.members.values().filter(|member| member.stage != Stage::Draining);
        others.find(|member| member.owner != owner).map(|member| member.owner)
    }

    /// The command that makes the policy what it is while a child with these selectors is up; `None` if it is that
    /// already.
    pub(super) fn use_for(
        &mut self,
        id: PolicyId,
        child: &Child,
        (local, remote): (&[TrafficSelector], &[TrafficSelector]),
        addresses: &[IpAddr],
        later_fragments: bool,
    ) -> Option<Command> {
        let policy = self.set.get_mut(&id)?;
        let spec = PolicySpec {
            action: PolicyAction::Protect { acquire: policy.trap.is_some() },
            later_fragments,
            addresses: addresses.to_vec(),
            routes: child.routes.towards(remote),
            priority: child.priority,
            ..PolicySpec::protect(id, child.interface.clone(), local.to_vec(), remote.to_vec())
        };
        if policy.in_use.as_ref() == Some(&spec) {
            return None;
        }
        policy.in_use = Some(spec.clone());
        Some(Command::SetPolicy(Box::new(spec)))
    }

    /// The dataplane did not take the policy as it was to be.
    pub(super) fn was_refused(&mut self, id: PolicyId) {
        if let Some(policy) = self.set.get_mut(&id) {
            policy.in_use = None;
        }
    }

    /// A child is gone. The policy goes with the last one, or waits for packets again.
    pub(super) fn leave(&mut self, id: PolicyId, child: ChildSaId) -> Departure {
        let Some(policy) = self.set.get_mut(&id) else {
            return Departure::default();
        };
        if let Some(Member { owner, .. }) = policy.members.remove(&child)
            && !policy.is_owned_by(owner)
        {
            self.by_owner.remove(&(owner, id));
        }
        policy.sends.take_if(|sends| *sends == child);
        if !policy.members.is_empty() {
            let drained = match policy.others(child).next() {
                Some(_) => Vec::new(),
                None => policy.members.iter().map(|(child, member)| (member.owner, *child)).collect(),
            };
            return Departure { command: None, drained };
        }
        policy.in_use = None;
        let command = match &policy.trap {
            Some(trap) => {
                self.waiting.entry(policy.name()).or_default().insert(id);
                Command::SetPolicy(Box::new(trap.clone()))
            }
            None => {
                self.remove(id);
                Command::RemovePolicy(id)
            }
        };
        Departure { command: Some(command), drained: Vec::new() }
    }

    /// Lets a child's policy wait for packets: the one in use stays when its child goes, or a new one is set by the
    /// command that is returned.
    pub(super) fn trap(&mut self, connection: &Connection, child: &Child) -> Result<Option<Command>, NoSelectors> {
        let existing = self.named(connection, child).next().map(|(id, _)| id);
        let id = existing.unwrap_or_else(|| PolicyId(self.last + 1));
        let Some(spec) = configured_policy(id, connection, child) else {
            return Err(NoSelectors { child: child.name.clone() });
        };
        if let Some(policy) = self.set.get_mut(&id) {
            policy.trap = Some(spec);
            return Ok(None);
        }
        let command = Command::SetPolicy(Box::new(spec.clone()));
        self.add(Policy { trap: Some(spec), ..Policy::of(connection, child) });
        Ok(Some(command))
    }

    /// Lets no policy of the connection wait any more; those that nobody uses go.
    pub(super) fn untrap(&mut self, connection: &str) -> Vec<Command> {
        let first = (connection.to_owned(), String::new());
        let of_connection = self.by_name.range(first..).take_while(|((name, _), _)| name == connection);
        let ids: Vec<PolicyId> = of_connection.flat_map(|(_, ids)| ids).copied().collect();
        self.untrap_all(ids)
    }

    /// Lets no policy of one child wait any more, as [`Self::untrap`]; `None` when none did.
    pub(super) fn untrap_child(&mut self, connection: &str, child: &str) -> Option<Vec<Command>> {
        let ids: Vec<PolicyId> =
            self.by_name.get(&(connection.to_owned(), child.to_owned()))?.iter().copied().collect();
        let is_trap = |id: &PolicyId| self.set.get(id).is_some_and(|policy| policy.trap.is_some());
        ids.iter().any(is_trap).then(|| self.untrap_all(ids))
    }

    fn untrap_all(&mut self, ids: Vec<PolicyId>) -> Vec<Command> {
        let mut gone = Vec::new();
        for id in ids {
            let Some(policy) = self.set.get_mut(&id) else {
                continue;
            };
            policy.trap = None;
            if policy.members.is_empty() {
                self.remove(id);
                gone.push(Command::RemovePolicy(id));
            }
        }
        gone
    }

    /// What waits for packets, each with the names of connection and child.
    pub(super) fn traps(&self) -> impl Iterator<Item = (&str, &str, &PolicySpec)> {
        self.set.values().filter_map(|policy| {
            policy.trap.as_ref().map(|spec| (policy.connection.as_str(), policy.child.as_str(), spec))
        })
    }

    /// Whether the policy exists and has a child of this IKE SA.
    pub(super) fn is_used_by(&self, id: PolicyId, owner: IkeSpi) -> bool {
        self.set.get(&id).is_some_and(|policy| policy.is_owned_by(owner))
    }

    /// The IKE SA whose child has this SPI in this direction.
    pub(super) fn owner_of(&self, id: PolicyId, direction: Direction, spi: EspSpi) -> Option<IkeSpi> {
        let has_spi = |member: &&Member| match direction {
            Direction::Inbound => member.spi_in == spi,
            Direction::Outbound => member.spi_out == spi,
        };
        self.set.get(&id)?.members.values().find(has_spi).map(|member| member.owner)
    }

    pub(super) fn get(&self, id: PolicyId) -> Option<&Policy> {
        self.set.get(&id)
    }

    /// Notes that a child belongs to another IKE SA now.
    pub(super) fn hand_over(&mut self, id: PolicyId, child: ChildSaId, owner: IkeSpi) {
        let Some(policy) = self.set.get_mut(&id) else {
            return;
        };
        let Some(member) = policy.members.get_mut(&child) else {
            return;
        };
        let before = std::mem::replace(&mut member.owner, owner);
        if !policy.is_owned_by(before) {
            self.by_owner.remove(&(before, id));
        }
        self.by_owner.insert((owner, id));
    }
}

/// Takes a policy out of an index by name.
fn take_out(index: &mut BTreeMap<(String, String), BTreeSet<PolicyId>>, name: (String, String), id: PolicyId) {
    if let Entry::Occupied(mut ids) = index.entry(name) {
        ids.get_mut().remove(&id);
        if ids.get().is_empty() {
            ids.remove();
        }
    }
}

fn name_of(connection: &Connection, child: &Child) -> (String, String) {
    (connection.name.clone(), child.name.clone())
}

/// The configuration does not say which packets a child is for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("child `{child}` cannot wait for packets: `left`, `right` or the subnets must say which")]
pub(super) struct NoSelectors {
    child: String,
}

impl Policy {
    fn of(connection: &Connection, child: &Child) -> Self {
        Self {
            connection: connection.name.clone(),
            child: child.name.clone(),
            members: BTreeMap::new(),
            sends: None,
            in_use: None,
            trap: None,
        }
    }

    fn name(&self) -> (String, String) {
        (self.connection.clone(), self.child.clone())
    }

    fn is_for(&self, connection: &Connection, child: &Child) -> bool {
        self.connection == connection.name && self.child == child.name
    }

    fn is_owned_by(&self, owner: IkeSpi) -> bool {
        self.members.values().any(|member| member.owner == owner)
    }

    /// Whether what is in the policy is just what the claim is for. Clients of one connection have policies of their own.
    fn may_be_shared(&self, claim: &Claim<'_>) -> bool {
        let is_kin = |member: &Member| member.owner == claim.owner || claim.kin.contains(&member.owner);
        let is_same = |spec: &PolicySpec| {
            spec.local == claim.local && spec.remote == claim.remote && spec.interface == claim.child.interface
        };
        self.is_for(claim.connection, claim.child)
            && self.members.values().any(is_kin)
            && self.in_use.as_ref().is_some_and(is_same)
    }

    /// The children that do not only drain, but this one.
    fn others(&self, but: ChildSaId) -> impl Iterator<Item = &Member> {
        let others =
            self.members.iter().filter(move |(child, member)| **child != but && member.stage != Stage::Draining);
        others.map(|(_, member)| member)
    }
}

/// The policy of a child that waits for packets, with the selectors of the configuration. `None` when those mean "our address"
/// or "the peer's address", and the configuration does not know it.
#[must_use]
pub fn configured_policy(id: PolicyId, connection: &Connection, child: &Child) -> Option<PolicySpec> {
    let at = |selectors: &[ChildSelector], host: Option<IpAddr>| -> Option<Vec<TrafficSelector>> {
        selectors.iter().map(|selector| selector.fixed().or_else(|| host.map(|host| selector.at(host)))).collect()
    };
    // Virtual addresses are not known before there is an SA.
    let ours = connection.local_addresses.first().filter(|_| connection.virtual_addresses.is_empty());
    let local = at(&child.local_selectors, ours.copied())?;
    let peer = connection.remote_addresses.iter().find_map(|remote| match remote {
        RemoteAddress::Address(address) => Some(*address),
        RemoteAddress::Range(_) | RemoteAddress::Name(_) | RemoteAddress::Any => None,
    });
    let remote = at(&child.remote_selectors, peer.filter(|_| connection.pools.is_empty()))?;
    let routes = child.routes.towards(&remote);
    let action = PolicyAction::Protect { acquire: true };
    let priority = child.priority;
    Some(PolicySpec { action, routes, priority, ..PolicySpec::protect(id, child.interface.clone(), local, remote) })
}
