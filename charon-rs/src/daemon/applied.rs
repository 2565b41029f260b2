//! What the daemon was told, from files and over the socket, and what a reload changes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use espdp_api::{BridgeName, BridgeSpec, HostSpec, InterfaceName, InterfaceSpec, PolicySpec};
use ike_proto::config::{Connection, Effect, LocalMethod, Pool, RemoteMethod, SharedSecret};
use ike_proto::io::Command;
use tracing::level_filters::LevelFilter;

use super::manual::Manual;
use super::shell::Shell;
use crate::config::{Loaded, ManualPolicy, Places};
use crate::credentials::Layer;
use crate::swanctl::Shunt;

/// Where something was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the configuration file; a reload replaces it.
    File,
    /// Over the control socket; a reload leaves it alone.
    Socket,
}

/// Everything that is in force.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    connections: BTreeMap<String, (Origin, Connection)>,
    bridges: BTreeMap<BridgeName, BridgeSpec>,
    interfaces: BTreeMap<InterfaceName, InterfaceSpec>,
    /// Those that the dataplane refused as they were asked for last.
    refused_interfaces: BTreeSet<InterfaceName>,
    secrets: BTreeMap<String, Origin>,
    pools: BTreeMap<String, (Origin, Pool)>,
    /// The policies of the file that no connection negotiates.
    policies: Vec<ManualPolicy>,
    /// The children of connections from the socket that nobody negotiates.
    shunts: BTreeMap<String, Vec<Shunt>>,
    /// Policies that no connection negotiates.
    pub(crate) manual: Manual,
    /// Where in the files stands what was told there.
    pub(crate) places: Places,
}

impl Applied {
    /// The names of the connections from `origin`.
    pub(crate) fn connection_names(&self, origin: Origin) -> impl Iterator<Item = &str> {
        self.connections.iter().filter(move |(_, (own, _))| *own == origin).map(|(name, _)| name.as_str())
    }

    /// The names of the secrets from `origin`.
    pub(crate) fn secret_names(&self, origin: Origin) -> impl Iterator<Item = &str> {
        self.secrets.iter().filter(move |(_, own)| **own == origin).map(|(name, _)| name.as_str())
    }

    /// All pools, wherever they were told.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values().map(|(_, pool)| pool)
    }

    /// Where the pool of this name was told.
    pub(crate) fn pool_origin(&self, name: &str) -> Option<Origin> {
        self.pools.get(name).map(|(origin, _)| *origin)
    }

    /// The connection of this name, and where it was told.
    pub(crate) fn connection(&self, name: &str) -> Option<(Origin, &Connection)> {
        self.connections.get(name).map(|(origin, connection)| (*origin, connection))
    }

    /// The names of the interfaces that were asked for.
    pub(crate) fn interface_names(&self) -> impl Iterator<Item = &InterfaceName> {
        self.interfaces.keys()
    }

    /// An interface is, or is not, as it was asked for.
    pub(super) fn note_interface(&mut self, name: &InterfaceName, is_there: bool) {
        if is_there {
            self.refused_interfaces.remove(name);
        } else {
            self.refused_interfaces.insert(name.clone());
        }
    }

    /// The policies of the file that no connection negotiates.
    pub(crate) fn policies_of_file(&self) -> &[ManualPolicy] {
        &self.policies
    }

    /// The children of a connection that nobody negotiates.
    pub(crate) fn shunts(&self, connection: &str) -> &[Shunt] {
        self.shunts.get(connection).map_or(&[], Vec::as_slice)
    }

    /// Those of all connections, each with the name of its own.
    pub(crate) fn all_shunts(&self) -> impl Iterator<Item = (&str, &Shunt)> {
        self.shunts.iter().flat_map(|(connection, shunts)| shunts.iter().map(|shunt| (connection.as_str(), shunt)))
    }

    /// All connections.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().map(|(_, connection)| connection)
    }

    /// The policies that no connection negotiates.
    pub(crate) fn manual_policies(&self) -> impl Iterator<Item = &PolicySpec> {
        self.manual.specs()
    }

    /// The connections that no file tells.
    pub(crate) fn connections_of_socket(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().filter(|(origin, _)| *origin == Origin::Socket).map(|(_, connection)| connection)
    }

    /// The interfaces that connections and policies use, wherever those were told: the file need not name an interface of a connection
    /// from the socket.
    fn needed_interfaces(&self) -> BTreeSet<InterfaceName> {
        let children = self.connections.values().flat_map(|(_, connection)| &connection.children);
        children.map(|child| &child.interface).chain(self.manual.interfaces()).cloned().collect()
    }
}

/// What a configuration file says about connections, as far as a reload changes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The connections.
    pub(crate) connections: Vec<Connection>,
    /// The pools of virtual addresses.
    pub(crate) pools: Vec<Pool>,
    /// The secrets.
    pub(crate) secrets: Vec<SharedSecret>,
    /// Certificates and private keys.
    pub(crate) credentials: Layer,
    /// The bridge domains.
    pub(crate) bridges: Vec<BridgeSpec>,
    /// The interfaces.
    pub(crate) interfaces: Vec<InterfaceSpec>,
    /// The policies that no connection negotiates.
    pub(crate) policies: Vec<ManualPolicy>,
    /// What the host's own network stack is to do.
    pub(crate) host: HostSpec,
    /// The connections that are logged at a level of their own.
    pub(crate) log_levels: BTreeMap<String, LevelFilter>,
    /// Where in the files all of this stands.
    pub(crate) places: Places,
}

impl From<Loaded> for Wanted {
    fn from(loaded: Loaded) -> Self {
        Self {
            connections: loaded.connections,
            pools: loaded.pools,
            secrets: loaded.secrets,
            credentials: loaded.credentials,
            bridges: loaded.bridges,
            interfaces: loaded.interfaces,
            policies: loaded.policies,
            host: loaded.host,
            log_levels: loaded.log_levels,
            places: loaded.places,
        }
    }
}

/// What a reload did, by the names of the connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// New ones.
    pub(crate) added: Vec<String>,
    /// Replaced ones. Where not all is said by the next two lists, what is up goes on, in part at least, with what was negotiated.
    pub(crate) changed: Vec<String>,
    /// Those of the replaced ones of which everything holds at once, also for what is up.
    pub(crate) live: Vec<String>,
    /// Those of the replaced ones that what is up follows when it is rekeyed.
    pub(crate) at_rekey: Vec<String>,
    /// Those that are gone, with their SAs.
    pub(crate) removed: Vec<String>,
    /// Those that nobody touched.
    pub(crate) unchanged: Vec<String>,
}

impl Changes {
    /// Takes a connection of the file in, which takes the place of what was there.
    fn add(&mut self, before: Option<(Origin, Effect)>, logs: Effect, name: &str) {
        let name = || name.to_owned();
        match before.map(|(origin, effect)| (origin, effect.max(logs))) {
            None => return self.added.push(name()),
            Some((Origin::File, Effect::Nothing)) => return self.unchanged.push(name()),
            Some((_, Effect::Nothing | Effect::AtOnce)) => self.live.push(name()),
            Some((_, Effect::AtRekey)) => self.at_rekey.push(name()),
            Some((_, Effect::NewSas)) => {}
        }
        self.changed.push(name());
    }
}

impl Shell {
    /// What a connection of the file would change, which is complete.
    fn effect(&self, new: &Connection) -> Option<(Origin, Effect)> {
        let (origin, own) = self.applied.connections.get(&new.name)?;
        Some((*origin, own.effect_of(new)))
    }

    /// Makes what the file says the truth, without touching what is the same already.
    pub(crate) fn apply_file(&mut self, wanted: Wanted) -> Changes {
        let mut changes = Changes::default();
        self.applied.places = wanted.places;
        let logs = LogChanges { before: self.logs.of_file(), after: wanted.log_levels };
        if logs.before != logs.after {
            self.logs.set_file(logs.after.clone());
        }
        // Credentials first: a connection that starts at once needs its own.
        self.desk.store_mut().set_file(wanted.credentials);
        self.tell_authorities(&[Origin::Socket]);
        let secrets: BTreeSet<String> = wanted.secrets.iter().map(|secret| secret.name.clone()).collect();
        for secret in wanted.secrets {
            self.set_secret(Origin::File, secret);
        }
        let pools: BTreeSet<String> = wanted.pools.iter().map(|pool| pool.name.clone()).collect();
        for pool in wanted.pools {
            self.set_pool(Origin::File, pool);
        }
        let bridges: BTreeSet<BridgeName> = wanted.bridges.iter().map(|spec| spec.name.clone()).collect();
        for spec in wanted.bridges {
            self.want_bridge(spec);
        }
        let interfaces: BTreeSet<InterfaceName> = wanted.interfaces.iter().map(|spec| spec.name.clone()).collect();
        for spec in wanted.interfaces {
            self.want_interface(spec);
        }
        self.set_file_policies(wanted.policies);
        let connections: BTreeSet<String> =
            wanted.connections.iter().map(|connection| connection.name.clone()).collect();
        for mut connection in wanted.connections {
            self.desk.store().complete(&mut connection);
            let name = connection.name.clone();
            let before = self.effect(&connection);
            changes.add(before, logs.effect(&name), &name);
            if before != Some((Origin::File, Effect::Nothing)) {
                self.set_connection(Origin::File, connection);
            }
        }
        changes.removed = missing(self.applied.connection_names(Origin::File), &connections);
        for name in &changes.removed {
            self.remove_connection(name);
        }
        let of_file = self.applied.pools.iter().filter(|(_, (origin, _))| *origin == Origin::File);
        for name in missing(of_file.map(|(name, _)| name.as_str()), &pools) {
            self.remove_pool(&name);
        }
        for name in missing(self.applied.secret_names(Origin::File), &secrets) {
            self.remove_secret(&name);
        }
        self.host.file = wanted.host;
        self.tell_host();
        let needed = self.applied.needed_interfaces();
        let is_unused = |name: &&InterfaceName| !interfaces.contains(*name) && !needed.contains(*name);
        let unused: Vec<InterfaceName> = self.applied.interfaces.keys().filter(is_unused).cloned().collect();
        for name in unused {
            self.applied.interfaces.remove(&name);
            self.applied.refused_interfaces.remove(&name);
            self.remove_interface(name);
        }
        let unused: Vec<BridgeName> =
            self.applied.bridges.keys().filter(|name| !bridges.contains(*name)).cloned().collect();
        for name in unused {
            self.applied.bridges.remove(&name);
            self.remove_bridge(name);
        }
        changes
    }

    /// What [`Self::apply_file`] would do to connections, and, in lines for people, to interfaces.
    pub(crate) fn differences(&self, wanted: &Wanted) -> (Changes, Vec<String>) {
        let mut changes = Changes::default();
        let logs = LogChanges { before: self.logs.of_file(), after: wanted.log_levels.clone() };
        for connection in &wanted.connections {
            let mut complete = connection.clone();
            self.desk.store().complete(&mut complete);
            changes.add(self.effect(&complete), logs.effect(&connection.name), &connection.name);
        }
        let names = wanted.connections.iter().map(|connection| connection.name.clone()).collect();
        changes.removed = missing(self.applied.connection_names(Origin::File), &names);
        let mut lines = Vec::new();
        for spec in &wanted.interfaces {
            match self.applied.interfaces.get(&spec.name) {
                Some(own) if own == spec => {}
                Some(_) => lines.push(format!("change interface {}", spec.name)),
                None => lines.push(format!("add interface {}", spec.name)),
            }
        }
        lines.extend(self.pool_differences(&wanted.pools));
        let stay = wanted.connections.iter().chain(self.applied.connections_of_socket());
        let of_children = stay.flat_map(|connection| &connection.children).map(|child| &child.interface);
        let needed: BTreeSet<&InterfaceName> =
            of_children.chain(wanted.policies.iter().map(|policy| &policy.spec.interface)).collect();
        let named = |name: &InterfaceName| wanted.interfaces.iter().any(|spec| spec.name == *name);
        let gone = self.applied.interfaces.keys().filter(|name| !named(name) && !needed.contains(name));
        lines.extend(gone.map(|name| format!("remove interface {name}")));
        (changes, lines)
    }

    /// What a reload would do to pools, in lines for people.
    fn pool_differences(&self, wanted: &[Pool]) -> Vec<String> {
        let mut lines = Vec::new();
        for pool in wanted {
            match self.applied.pools.get(&pool.name) {
                Some((_, own)) if own == pool => {}
                Some(_) => lines.push(format!("change pool {}", pool.name)),
                None => lines.push(format!("add pool {}", pool.name)),
            }
        }
        let of_file = self.applied.pools.iter().filter(|(_, (origin, _))| *origin == Origin::File);
        let gone = of_file.filter(|(name, _)| wanted.iter().all(|pool| pool.name != **name));
        lines.extend(gone.map(|(name, _)| format!("remove pool {name}")));
        lines
    }

    /// Changes the credentials that were told over the control socket. Connections that ask for other CAs then are told so.
    pub(crate) fn change_credentials<T>(&mut self, change: impl FnOnce(&mut Layer) -> T) -> T {
        let result = self.desk.store_mut().change_socket(change);
        self.tell_authorities(&[Origin::File, Origin::Socket]);
        result
    }

    /// Tells the connections of these origins which CAs to ask for, if those are others than before.
    fn tell_authorities(&mut self, origins: &[Origin]) {
        let demands_signature = |connection: &Connection| {
            connection.remote_rounds().any(|remote| matches!(remote.method, RemoteMethod::Signature(_)))
        };
        let changed: Vec<(Origin, Connection)> = self
            .applied
            .connections
            .values()
            .filter(|(origin, connection)| origins.contains(origin) && demands_signature(connection))
            .filter_map(|(origin, connection)| {
                let mut complete = connection.clone();
                self.desk.store().complete(&mut complete);
                (complete != *connection).then_some((*origin, complete))
            })
            .collect();
        for (origin, connection) in changed {
            self.set_connection(origin, connection);
        }
    }

    /// Forgets what no connection from the control socket signs with or demands any more.
    pub(crate) fn forget_unused_credentials(&mut self) {
        let told = self.desk.store().socket();
        if told.signers.is_empty() && told.demands.is_empty() {
            return;
        }
        let connections = || self.applied.connections.values().map(|(_, connection)| connection);
        let local = connections().flat_map(|c| std::iter::once(&c.local).chain(&c.more_local));
        let signers: BTreeSet<_> = local
            .filter_map(
                |round| if let LocalMethod::Signature(name) = &round.method { Some(name.clone()) } else { None },
            )
            .collect();
        let remote = connections().flat_map(|c| std::iter::once(&c.remote).chain(&c.more_remote));
        let demands: BTreeSet<_> = remote
            .filter_map(|round| match &round.method {
                RemoteMethod::Signature(trust) => Some(trust.name.clone()),
                RemoteMethod::PreSharedKey | _ => None,
            })
            .collect();
        self.change_credentials(|layer| {
            layer.signers.retain(|name, _| signers.contains(name));
            layer.demands.retain(|name, _| demands.contains(name));
        });
    }

    /// Adds a connection or replaces the one of its name.
    pub(crate) fn set_connection(&mut self, origin: Origin, connection: Connection) {
        self.applied.connections.insert(connection.name.clone(), (origin, connection.clone()));
        self.host_is_stale();
        self.engine.handle_command(Instant::now(), Command::SetConnection(Box::new(connection)));
    }

    /// Adds the children of a connection from the socket that nobody negotiates, or replaces them.
    pub(crate) fn set_shunts(&mut self, name: &str, shunts: Vec<Shunt>) {
        if self.applied.shunts(name) == shunts {
            return;
        }
        if shunts.is_empty() {
            self.applied.shunts.remove(name);
        } else {
            self.applied.shunts.insert(name.to_owned(), shunts);
        }
        self.set_policies();
        self.host_is_stale();
    }

    /// Puts the policies of children in force that nobody negotiates, or out of force: those of this name that are not so yet.
    /// Returns how many there are.
    pub(crate) fn install_shunts(&mut self, connection: Option<&str>, child: &str, installs: bool) -> usize {
        let of_connection =
            self.applied.shunts.iter_mut().filter(|(name, _)| connection.is_none_or(|own| own == *name));
        let meant = of_connection.flat_map(|(_, shunts)| shunts).filter(|shunt| shunt.name == child);
        let changed = meant.filter(|shunt| shunt.installs != installs).map(|shunt| shunt.installs = installs).count();
        if changed > 0 {
            self.set_policies();
            self.host_is_stale();
        }
        changed
    }

    /// Has these policies of the file in force.
    pub(super) fn set_file_policies(&mut self, policies: Vec<ManualPolicy>) {
        self.applied.policies = policies;
        self.set_policies();
    }

    /// Has the policies in force that no connection negotiates: those of the file, and those of children from the socket.
    pub(super) fn set_policies(&mut self) {
        let shunts = self.applied.all_shunts().filter(|(_, shunt)| shunt.installs);
        let shunts: Vec<ManualPolicy> = shunts.map(|(_, shunt)| shunt.policy.clone()).collect();
        self.change_policies(self.applied.policies.iter().cloned().chain(shunts).collect());
    }

    /// Forgets a connection, whose SAs are deleted.
    pub(crate) fn remove_connection(&mut self, name: &str) {
        self.applied.connections.remove(name);
        self.set_shunts(name, Vec::new());
        self.host_is_stale();
        self.journal.forget(name);
        self.metrics.forget(name);
        self.engine.handle_command(Instant::now(), Command::RemoveConnection(name.to_owned()));
    }

    /// Adds a pool or replaces the one of its name; leases that fit stay.
    pub(crate) fn set_pool(&mut self, origin: Origin, pool: Pool) {
        let told = (origin, pool.clone());
        if self.applied.pools.insert(pool.name.clone(), told.clone()) != Some(told) {
            self.engine.handle_command(Instant::now(), Command::SetPool(pool));
        }
    }

    /// Forgets a pool.
    pub(crate) fn remove_pool(&mut self, name: &str) {
        self.applied.pools.remove(name);
        self.engine.handle_command(Instant::now(), Command::RemovePool(name.to_owned()));
    }

    /// Adds a secret or replaces the one of its name.
    pub(crate) fn set_secret(&mut self, origin: Origin, secret: SharedSecret) {
        self.applied.secrets.insert(secret.name.clone(), origin);
        self.engine.handle_command(Instant::now(), Command::SetSecret(secret));
    }

    /// Forgets a secret.
    pub(crate) fn remove_secret(&mut self, name: &str) {
        self.applied.secrets.remove(name);
        self.engine.handle_command(Instant::now(), Command::RemoveSecret(name.to_owned()));
    }

    /// Makes sure that a bridge domain is as `spec` says.
    fn want_bridge(&mut self, spec: BridgeSpec) {
        if self.applied.bridges.get(&spec.name) != Some(&spec) {
            self.applied.bridges.insert(spec.name.clone(), spec.clone());
            self.set_bridge(spec);
        }
    }

    /// Makes sure that an interface is as `spec` says.
    pub(crate) fn want_interface(&mut self, spec: InterfaceSpec) {
        let is_there = !self.applied.refused_interfaces.contains(&spec.name);
        if !is_there || self.applied.interfaces.get(&spec.name) != Some(&spec) {
            self.applied.interfaces.insert(spec.name.clone(), spec.clone());
            self.set_interface(spec);
        }
    }

    /// Whether an interface of this name was asked for.
    pub(crate) fn has_interface(&self, name: &InterfaceName) -> bool {
        self.applied.interfaces.contains_key(name)
    }

    /// Whether a link of that name may be ours: wanted, or still on its way out.
    pub(crate) fn owns_link(&self, name: &InterfaceName) -> bool {
        self.has_interface(name) || self.is_leaving(name)
    }
}

/// The levels of connections in the log.
struct LogChanges {
    before: BTreeMap<String, LevelFilter>,
    after: BTreeMap<String, LevelFilter>,
}

impl LogChanges {
    fn effect(&self, connection: &str) -> Effect {
        let is_same = self.before.get(connection) == self.after.get(connection);
        if is_same { Effect::Nothing } else { Effect::AtOnce }
    }
}

fn missing<'a>(names: impl Iterator<Item = &'a str>, wanted: &BTreeSet<String>) -> Vec<String> {
    names.filter(|name| !wanted.contains(*name)).map(str::to_owned).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::daemon::testing::Wire;
    use espdp_api::{Mode, PacketShape, Routes, TrafficLimit};
    use ike_proto::config::{Child, ChildSelector, CloseAction, Lifetime, StartAction};
    use std::time::Duration;

    pub(in crate::daemon) fn connection(name: &str, local_port: u16) -> Connection {
        Connection { local_port, ..Connection::new(name) }
    }

    pub(in crate::daemon) fn child(interface: &str) -> Child {
        let never = Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after: None };
        Child {
            name: "net".into(),
            mode: Mode::Tunnel,
            local_selectors: vec![ChildSelector::HOST],
            remote_selectors: vec![ChildSelector::HOST],
            esp_proposals: Vec::new(),
            lifetime: never,
            rekey_after_traffic: TrafficLimit::default(),
            expire_after_traffic: TrafficLimit::default(),
            replay_window: 64,
            interface: InterfaceName::new(interface).unwrap(),
            routes: Routes::FromSelectors,
            later_fragments: false,
            priority: espdp_api::PolicySpec::DEFAULT_PRIORITY,
            per_resource: false,
            shape: PacketShape::default(),
            start: StartAction::None,
            updown: Vec::new(),
            close: CloseAction::None,
            dpd: None,
        }
    }

    pub(in crate::daemon) fn wanted(connections: &[Connection], interfaces: &[&str]) -> Wanted {
        let spec =
            |name: &&str| InterfaceSpec::new(InterfaceName::new(*name).unwrap(), espdp_api::InterfaceKind::Ipsec);
        Wanted {
            connections: connections.to_vec(),
            pools: Vec::new(),
            secrets: Vec::new(),
            credentials: Layer::default(),
            bridges: Vec::new(),
            interfaces: interfaces.iter().map(spec).collect(),
            policies: Vec::new(),
            host: HostSpec::default(),
            log_levels: BTreeMap::new(),
            places: Places::default(),
        }
    }

    #[tokio::test]
    async fn a_reload_touches_only_what_changed() {
        let (mut shell, _wire) = Wire::shell();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let first = wanted(&[connection("a", 500), connection("b", 500), connection("c", 500)], &[]);
        assert_eq!(shell.apply_file(first).added, names(&["a", "b", "c"]));
        shell.set_connection(Origin::Socket, connection("told", 500));
        let second = wanted(&[connection("a", 500), connection("b", 501), connection("d", 500)], &[]);
        assert_eq!(
            shell.apply_file(second),
            Changes {
                added: names(&["d"]),
                changed: names(&["b"]),
                live: Vec::new(),
                at_rekey: Vec::new(),
                removed: names(&["c"]),
                unchanged: names(&["a"])
            }
        );
        let known: Vec<&str> = shell.engine.connections().map(|connection| connection.name.as_str()).collect();
        assert_eq!(known, ["a", "b", "d", "told"], "what was told over the socket stays");
    }

    #[tokio::test]
    async fn connections_are_told_when_other_cas_are_trusted() {
        let (mut shell, _wire) = Wire::shell();
        let name = shell.change_credentials(|layer| layer.add_demand(crate::credentials::Demand::default()));
        let trust = ike_proto::config::Trust { name, authorities: Vec::new(), ocsp: false };
        let mut told = connection("told", 500);
        told.remote.method = RemoteMethod::Signature(trust);
        shell.set_connection(Origin::Socket, told);
        let asked = |shell: &Shell| match &shell.applied.connection("told").unwrap().1.remote.method {
            RemoteMethod::Signature(trust) => trust.authorities.len(),
            RemoteMethod::PreSharedKey | _ => 0,
        };
        let mut reloaded = wanted(&[], &[]);
        reloaded.credentials.add_authority(crate::credentials::testing::Entity::root("file").certificate);
        shell.apply_file(reloaded);
        assert_eq!(asked(&shell), 1, "a reload of the files");
        let other = crate::credentials::testing::Entity::root("socket").certificate;
        shell.change_credentials(|layer| layer.add_authority(other));
        assert_eq!(asked(&shell), 2);
        shell.apply_file(wanted(&[], &[]));
        assert_eq!(asked(&shell), 1);
        shell.forget_unused_credentials();
        assert_eq!(shell.desk.store().socket().demands.len(), 1, "it is still used");
        shell.remove_connection("told");
        shell.forget_unused_credentials();
        assert!(shell.desk.store().socket().demands.is_empty());
    }

    #[tokio::test]
    async fn a_plan_tells_what_holds_at_once_or_with_the_next_rekeying_from_what_is_for_new_sas() {
        let (mut shell, _wire) = Wire::shell();
        let with = |children: Vec<Child>, port| Connection { children, ..connection("a", port) };
        let first = wanted(&[with(vec![child("ipsec0")], 500)], &["ipsec0"]);
        shell.apply_file(first);
        let plan = |shell: &Shell, connection: Connection| {
            let (changes, _) = shell.differences(&wanted(&[connection], &["ipsec0"]));
            (changes.changed.len(), changes.live.len(), changes.at_rekey.len())
        };
        let closing = Child { close: CloseAction::Start, ..child("ipsec0") };
        let second = Child { name: "second".into(), ..child("ipsec0") };
        let shorter = Child { replay_window: 128, ..child("ipsec0") };
        assert_eq!(plan(&shell, with(vec![child("ipsec0")], 500)), (0, 0, 0));
        assert_eq!(plan(&shell, with(vec![closing.clone()], 500)), (1, 1, 0));
        assert_eq!(plan(&shell, with(vec![second, child("ipsec0")], 500)), (1, 1, 0));
        assert_eq!(plan(&shell, with(vec![shorter], 500)), (1, 0, 1));
        assert_eq!(plan(&shell, with(vec![child("ipsec0")], 4500)), (1, 0, 0));
        assert_eq!(plan(&shell, with(Vec::new(), 500)), (1, 0, 0));
        assert_eq!(shell.apply_file(wanted(&[with(vec![closing], 500)], &["ipsec0"])).live, ["a"]);
    }

    #[tokio::test]
    async fn pools_come_and_go_with_the_file_and_the_plan_says_so() {
        let (mut shell, _wire) = Wire::shell();
        let pool = |name: &str, last: u8| {
            let [base, end] = [[10, 3, 0, 1], [10, 3, 0, last]].map(std::net::IpAddr::from);
            let addresses = espdp_api::AddressRange::new(base, end).unwrap();
            Pool { name: name.to_owned(), base, addresses, attributes: Vec::new() }
        };
        let with = |pools: Vec<Pool>| Wanted { pools, ..wanted(&[], &[]) };
        shell.set_pool(Origin::Socket, pool("told", 4));
        shell.apply_file(with(vec![pool("a", 5), pool("b", 6)]));
        let second = with(vec![pool("b", 7), pool("c", 8)]);
        assert_eq!(shell.differences(&second).1, ["change pool b", "add pool c", "remove pool a"]);
        shell.apply_file(second.clone());
        let known: Vec<(String, u64)> =
            shell.engine.pools().into_iter().map(|known| (known.pool.name.clone(), known.pool.size())).collect();
        assert_eq!(known, [("b".to_owned(), 7), ("c".to_owned(), 8), ("told".to_owned(), 4)]);
        assert!(shell.differences(&second).1.is_empty());
    }

    #[tokio::test]
    async fn interfaces_are_made_once_and_removed_when_nothing_wants_them() {
        let (mut shell, mut wire) = Wire::shell();
        shell.apply_file(wanted(&[], &["ipsec0", "ipip0"]));
        shell.apply_file(wanted(&[], &["ipsec0"]));
        let is_about_interfaces =
            |(_, command): &(_, espdp_api::Command)| !matches!(command, espdp_api::Command::SetHost(_));
        let requests = wire.requests().into_iter().filter(is_about_interfaces);
        let seen: Vec<String> = requests.map(|(_, command)| format!("{command:?}")).collect();
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen.get(2).is_some_and(|last| last.contains("RemoveInterface") && last.contains("ipip0")), "{seen:?}");
    }

    #[tokio::test]
    async fn a_reload_leaves_the_interface_of_a_connection_from_the_socket_until_that_is_gone() {
        let (mut shell, mut wire) = Wire::shell();
        for spec in wanted(&[], &["ipsec7"]).interfaces {
            shell.want_interface(spec);
        }
        shell.set_connection(Origin::Socket, Connection { children: vec![child("ipsec7")], ..connection("told", 500) });
        wire.requests();
        let removals = |wire: &mut Wire| {
            let is_removal = |command: &espdp_api::Command| matches!(command, espdp_api::Command::RemoveInterface(_));
            wire.requests().iter().filter(|(_, command)| is_removal(command)).count()
        };
        shell.apply_file(wanted(&[], &[]));
        assert_eq!(removals(&mut wire), 0, "its next SA would find no interface");
        shell.remove_connection("told");
        shell.apply_file(wanted(&[], &[]));
        assert_eq!(removals(&mut wire), 1);
    }
}
