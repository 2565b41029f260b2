//! Commands that strongSwan does not have: what `charonctl` needs beyond `swanctl`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ike_proto::config::{Connection, StartAction};
use ike_proto::io::{ChildState, IkeSaReport, IkeState};

use super::query::statistics;
use super::{failed, success};
use crate::daemon::events;
use crate::daemon::journal::Entry;
use crate::daemon::keylog::{ESP_TABLE, IKE_TABLE};
use crate::daemon::report;
use crate::daemon::service::Daemon;
use crate::daemon::shell::{Shell, Statistics};
use crate::vici::{Message, Streamer};

/// Reads the configuration file again. A bad file changes nothing, and the answer says what is wrong with it.
pub(super) async fn reload(daemon: &Daemon) -> Message {
    match daemon.reload().await {
        Ok(reloaded) => {
            let mut answer = success();
            answer.put_list("added", &reloaded.changes.added);
            answer.put_list("changed", &reloaded.changes.changed);
            answer.put_list("live", &reloaded.changes.live);
            answer.put_list("next-rekey", &reloaded.changes.at_rekey);
            answer.put_list("removed", &reloaded.changes.removed);
            answer.put_list("unchanged", &reloaded.changes.unchanged);
            answer.put_list("warnings", &reloaded.warnings);
            answer
        }
        Err(why) => failed(why),
    }
}

/// The same for `swanctl`: strongSwan says no more than whether it worked.
pub(super) async fn reload_settings(daemon: &Daemon) -> Message {
    match daemon.reload().await {
        Ok(reloaded) => {
            reloaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            success()
        }
        Err(why) => failed(why),
    }
}

/// The names of connections, their children and interfaces, for shells that complete them.
pub(super) async fn names(daemon: &Daemon) -> Message {
    let names = |shell: &mut Shell| {
        let children = shell.applied.connections().flat_map(|connection| &connection.children);
        let children: BTreeSet<&str> = children.map(|child| child.name.as_str()).collect();
        let mut answer = success();
        answer.put_list("connections", shell.applied.connections().map(|connection| &connection.name));
        answer.put_list("children", children);
        answer.put_list("interfaces", shell.applied.interface_names());
        answer
    };
    daemon.handle.ask(names).await.unwrap_or_else(failed)
}

/// Streams one `list-tunnel` event for each connection, whether it is up or not, so that one that is down does not vanish:
/// its state, its configuration, its SAs with everything about them, and the failure that explains why it is down. The
/// answer tells the last failure of a peer that no connection fits.
pub(super) async fn list_tunnels(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let wanted = arguments.text("name").map(str::to_owned);
    let look = move |shell: &mut Shell| (tunnels(shell, wanted.as_deref()), shell.journal.failure(None).cloned());
    let looked = daemon.handle.ask(look).await;
    let ((tunnels, refused), statistics) = match (looked, statistics(daemon).await) {
        (Ok(looked), Ok(statistics)) => (looked, statistics.unwrap_or_default()),
        (Err(gone), _) | (_, Err(gone)) => return failed(gone),
    };
    let now = Instant::now();
    for (name, tunnel) in &tunnels {
        streamer.send("list-tunnel", Message::new().with_section(name, tunnel.section(&statistics, now))).await;
    }
    let mut answer = Message::new().with("tunnels", tunnels.len());
    if let Some(refused) = refused.as_deref().and_then(dated_failure) {
        answer.put_section("refused", refused);
    }
    answer
}

/// A failure with its time.
fn dated_failure(entry: &Entry) -> Option<Message> {
    let failure = entry.failure.as_ref()?;
    Some(events::failure(failure).with("time", events::unix_time(entry.at)))
}

/// Streams the last lines of the journal as `log` events: of one connection or child (`name`), or all.
pub(super) async fn journal(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let name = arguments.text("name").map(str::to_owned);
    match daemon.handle.ask(move |shell| shell.journal.lines(name.as_deref())).await {
        Ok(lines) => {
            for entry in &lines {
                streamer.send("log", events::log(entry)).await;
            }
            success().with("lines", lines.len())
        }
        Err(gone) => failed(gone),
    }
}

/// The keys of the SAs alive now as the lines of Wireshark's tables; only if the daemon exports keys at all.
pub(super) async fn keys(daemon: &Daemon) -> Message {
    match daemon.handle.ask(|shell| shell.keys.as_ref().map(crate::daemon::keylog::KeyLog::alive)).await {
        Ok(Some((ike, esp))) => {
            let mut answer = success();
            answer.put_list(IKE_TABLE, ike.expose().lines());
            answer.put_list(ESP_TABLE, esp.expose().lines());
            answer
        }
        Ok(None) => failed(
            "keylog is off: put keylog = \"DIR\" into [daemon] of ipsec.toml and restart the daemon; \
             whoever can read DIR can then decrypt captured traffic",
        ),
        Err(gone) => failed(gone),
    }
}

/// A connection with everything that belongs to it.
#[derive(Default)]
pub(super) struct Tunnel {
    pub(super) connection: Option<Connection>,
    /// The connection as `list-conns` shows it.
    config: Message,
    sas: Vec<IkeSaReport>,
    pub(super) failure: Option<Arc<Entry>>,
}

/// All connections, or those that are called so or have a child that is.
pub(super) fn tunnels(shell: &mut Shell, wanted: Option<&str>) -> BTreeMap<String, Tunnel> {
    let mut tunnels: BTreeMap<String, Tunnel> = BTreeMap::new();
    for connection in shell.engine.connections() {
        let tunnel = tunnels.entry(connection.name.clone()).or_default();
        tunnel.connection = Some(connection.clone());
        tunnel.config = report::connection(connection, &[], shell.desk.store());
        tunnel.failure = shell.journal.failure(Some(&connection.name)).cloned();
    }
    // SAs of a connection that was just removed are shown until they are deleted.
    for sa in shell.engine.ike_sas() {
        tunnels.entry(sa.connection.clone()).or_default().sas.push(sa);
    }
    tunnels.retain(|name, tunnel| wanted.is_none_or(|wanted| wanted == name || tunnel.has_child(wanted)));
    tunnels
}

impl Tunnel {
    fn has_child(&self, name: &str) -> bool {
        self.connection.iter().any(|connection| connection.children.iter().any(|child| child.name == name))
    }

    /// What people want to know first.
    pub(super) fn state(&self) -> &'static str {
        let in_state = |wanted: &[IkeState]| self.sas.iter().any(|sa| wanted.contains(&sa.state));
        let is_up = |name: &str| {
            let children = self.sas.iter().flat_map(|sa| &sa.children);
            let serves = |state| matches!(state, ChildState::Installed | ChildState::Rekeying);
            children.into_iter().any(|child| child.name == name && serves(child.state))
        };
        let children = self.connection.iter().flat_map(|connection| &connection.children);
        let (up, down): (Vec<_>, Vec<_>) = children.partition(|child| is_up(&child.name));
        match (in_state(&[IkeState::Established, IkeState::Rekeying]), up.is_empty(), down.is_empty()) {
            (true, _, true) => "UP",
            (true, false, false) => "PARTLY UP",
            (true, true, false) => "UP WITHOUT CHILDREN",
            (false, ..) if in_state(&[IkeState::Created, IkeState::Connecting]) => "CONNECTING",
            (false, ..) if in_state(&[IkeState::Deleting]) => "DELETING",
            (false, ..) => "DOWN",
        }
    }

    fn section(&self, statistics: &Statistics, now: Instant) -> Message {
        let mut section = Message::new().with("state", self.state());
        if let Some(connection) = &self.connection {
            section.put("start", start_of(connection));
            section.put_section("config", self.config.clone());
        }
        if let Some(failure) = self.failure.as_deref().and_then(dated_failure) {
            section.put_section("failure", failure);
        }
        let mut sas = Message::new();
        for sa in &self.sas {
            sas.put_section(&sa.id.0.to_string(), report::ike_sa_in_full(sa, statistics, now));
        }
        section.with_section("ike-sas", sas)
    }
}

/// The strongest start action of the children.
fn start_of(connection: &Connection) -> &'static str {
    let any = |action| connection.children.iter().any(|child| child.start == action);
    if any(StartAction::Start) {
        "start"
    } else if any(StartAction::Trap) {
        "trap"
    } else {
        "none"
    }
}
