//! Commands that bring SAs up and take them down, with the log of what they do while they do it.

use std::time::Duration;

use ike_proto::config::Gateway;
use ike_proto::io::{ChildSaId, IkeSaId, IkeSaReport, IkeState, SettledCount, Target};
use tokio::sync::{broadcast, oneshot};
use tokio::time::{Instant, sleep_until};

use super::failed;
use crate::daemon::events;
use crate::daemon::report;
use crate::daemon::service::Daemon;
use crate::daemon::shell::{Settled, Shell};
use crate::vici::{Broadcast, Message, Streamer};

/// Brings up a connection (`ike`), a child (`child`), or whichever of them is called `name`.
///
/// For an SA that is being set up already, the answer is its state; with `join=yes` its end is waited for instead.
pub(super) async fn initiate(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let wanted = Wanted::from(arguments);
    let events = daemon.handle.subscribe();
    let begun = match daemon.handle.ask(move |shell| begin_initiation(shell, wanted)).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(refusal)) => return refusal,
        Err(gone) => return failed(gone),
    };
    let following = Following::new(arguments, events, streamer, begun.connection.clone());
    let what = begun.what;
    match following.until_settled(begun.settled).await {
        End::Detached => super::success(),
        End::Settled(Ok(SettledCount { matches, done })) if done == matches => super::success(),
        End::Settled(Ok(SettledCount { matches, done })) => {
            let why = format!("establishing {what} failed: {done} of {matches} children came up");
            with_cause(daemon, failed(why), begun.connection, begun.journal_before).await
        }
        End::Settled(Err(why)) => {
            let why = format!("establishing {what} failed: {why}");
            with_cause(daemon, failed(why), begun.connection, begun.journal_before).await
        }
        End::TimedOut(after) => failed(format!("{what} not established after {}ms, detaching", after.as_millis())),
    }
}

/// Adds the last failure of the connection to an answer if it came after entry `before` of the journal.
async fn with_cause(daemon: &Daemon, mut answer: Message, connection: String, before: u64) -> Message {
    let cause = daemon.handle.ask(move |shell| shell.journal.failure(Some(&connection)).cloned()).await;
    if let Ok(Some(entry)) = cause
        && entry.number > before
        && let Some(failure) = &entry.failure
    {
        answer.put_section("failure", events::failure(failure));
    }
    answer
}

/// Takes SAs down: `ike`, `child`, `ike-id`, `child-id`, or whichever connection or child is called `name`. With `force=yes`
/// they go at once, and the peers are told once.
pub(super) async fn terminate(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let events = daemon.handle.subscribe();
    let act = if arguments.is_yes("force") { Shell::terminate_at_once } else { Shell::terminate };
    let (settled, connection) = match undertake(daemon, arguments, act).await {
        Ok(Some(begun)) => begun,
        Ok(None) => return none_found("terminate"),
        Err(refusal) => return refusal,
    };
    let following = Following::new(arguments, events, streamer, connection);
    match following.until_settled(settled).await {
        End::Detached => super::success(),
        End::Settled(Ok(SettledCount { matches, done })) => {
            let mut answer = Message::new()
                .with("success", if done == matches { "yes" } else { "no" })
                .with("matches", matches)
                .with("terminated", done);
            if done < matches {
                answer.put("errmsg", "not all matching SAs could be terminated");
            }
            answer
        }
        End::Settled(Err(why)) => failed(why),
        End::TimedOut(after) => failed(format!("SAs not terminated after {}ms, detaching", after.as_millis())),
    }
}

/// Rekeys SAs; selected as for [`terminate`]. With `reauth=yes` IKE SAs are made anew instead. Answers when that is over.
pub(super) async fn rekey(daemon: &Daemon, arguments: &Message) -> Message {
    let act = if arguments.is_yes("reauth") { Shell::reauthenticate } else { Shell::rekey };
    let settled = match undertake(daemon, arguments, act).await {
        Ok(Some((settled, _))) => settled,
        Ok(None) => return none_found("rekey"),
        Err(refusal) => return refusal,
    };
    match settled.await {
        Ok(Ok(SettledCount { matches, done })) if done == matches => super::success().with("matches", matches),
        Ok(Ok(SettledCount { matches, done })) => Message::new()
            .with("success", "no")
            .with("matches", matches)
            .with("errmsg", format!("{done} of {matches} SAs could be rekeyed")),
        Ok(Err(why)) => failed(why),
        Err(_) => failed("the daemon is shutting down"),
    }
}

/// Sends the peers of IKE SAs to another gateway, `gateway` (RFC 5685): those of `ike`, `ike-id` or `name`, at `peer-ip`, with
/// the identity `peer-id`.
pub(super) async fn redirect(daemon: &Daemon, arguments: &Message) -> Message {
    let Some(gateway) = arguments.text("gateway").filter(|gateway| !gateway.is_empty()) else {
        return failed("missing target gateway");
    };
    let gateway = match gateway.parse() {
        Ok(address) => Gateway::Address(address),
        Err(_) => Gateway::Name(gateway.to_owned()),
    };
    let text = |name| arguments.text(name).map(str::to_owned);
    let (connection, id) = (text("ike").or_else(|| text("name")), text("ike-id"));
    let (address, identity) = (text("peer-ip"), text("peer-id"));
    if [&connection, &id, &address, &identity].into_iter().all(Option::is_none) {
        return failed("missing redirect selector");
    }
    let is_meant = move |sa: &IkeSaReport| {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&connection, &sa.connection)
            && is(&id, &sa.id.0.to_string())
            && is(&address, &sa.path.remote.ip().to_string())
            && is(&identity, sa.remote_id.as_deref().unwrap_or_default())
            && sa.established.is_some()
    };
    let begin = move |shell: &mut Shell| -> Vec<oneshot::Receiver<Settled>> {
        let meant = shell.engine.ike_sas().into_iter().filter(|sa| is_meant(sa));
        meant.map(|sa| shell.redirect(Target::IkeSa(sa.id), gateway.clone())).collect()
    };
    let begun = match daemon.handle.ask(begin).await {
        Ok(begun) if begun.is_empty() => return none_found("redirect"),
        Ok(begun) => begun,
        Err(gone) => return failed(gone),
    };
    let (matches, mut redirected, mut why) = (begun.len(), 0, None);
    for settled in begun {
        match settled.await {
            Ok(Ok(_)) => redirected += 1,
            Ok(Err(error)) => why = Some(error),
            Err(_) => why = Some("the daemon is shutting down".to_owned()),
        }
    }
    let success = if why.is_none() { "yes" } else { "no" };
    let mut answer = Message::new().with("success", success).with("matches", matches).with("redirected", redirected);
    answer.put_some("errmsg", why);
    answer
}

/// Puts the policy of a child (`child`, in the connection `ike` if that is named) in force: a trap, or one that lets packets pass
/// or drops them.
pub(super) async fn install(daemon: &Daemon, arguments: &Message) -> Message {
    change_policy(daemon, arguments, true, "configuration name not found").await
}

/// Takes the policy of a child out of force.
pub(super) async fn uninstall(daemon: &Daemon, arguments: &Message) -> Message {
    let child = arguments.text("child").unwrap_or_default();
    change_policy(daemon, arguments, false, &format!("policy '{child}' not found")).await
}

async fn change_policy(daemon: &Daemon, arguments: &Message, installs: bool, not_found: &str) -> Message {
    let text = |name| arguments.text(name).map(str::to_owned);
    let (connection, Some(child)) = (text("ike"), text("child")) else {
        return failed("missing configuration name");
    };
    let (not_found, name) = (not_found.to_owned(), child.clone());
    let change = move |shell: &mut Shell| -> Result<Option<oneshot::Receiver<Settled>>, String> {
        if shell.install_shunts(connection.as_deref(), &child, installs) > 0 {
            return Ok(None);
        }
        let wanted = Wanted { connection: connection.clone(), child: Some(child.clone()), either: None, join: false };
        if wanted.resolve(shell).is_err() {
            return Err(not_found);
        }
        Ok(Some(if installs { shell.install(connection, child) } else { shell.uninstall(connection, child) }))
    };
    match daemon.handle.ask(change).await {
        Ok(Ok(None)) => super::success(),
        Ok(Ok(Some(settled))) => match settled.await {
            Ok(Ok(_)) => super::success(),
            Ok(Err(why)) if installs => failed(format!("installing policy '{name}' failed: {why}")),
            Ok(Err(why)) => failed(why),
            Err(_) => failed("the daemon is shutting down"),
        },
        Ok(Err(why)) => failed(why),
        Err(gone) => failed(gone),
    }
}

/// The answer when no SA is meant.
fn none_found(verb: &str) -> Message {
    let mut answer = Message::new().with("success", "no").with("matches", 0);
    if verb == "terminate" {
        answer.put("terminated", 0);
    }
    answer.with("errmsg", format!("no matching SAs to {verb} found"))
}

/// What the arguments name.
#[derive(Clone, Debug)]
struct Wanted {
    connection: Option<String>,
    child: Option<String>,
    either: Option<String>,
    join: bool,
}

impl From<&Message> for Wanted {
    fn from(arguments: &Message) -> Self {
        let text = |name| arguments.text(name).map(str::to_owned);
        Self { connection: text("ike"), child: text("child"), either: text("name"), join: arguments.is_yes("join") }
    }
}

impl Wanted {
    /// Finds the connection and the child that are meant, the latter only if one is asked for.
    fn resolve(self, shell: &Shell) -> Result<(String, Option<String>), String> {
        let exists = |name: &str| shell.engine.connections().any(|connection| connection.name == name);
        let with_child = |child: &str| {
            let has = |connection: &&ike_proto::config::Connection| connection.children.iter().any(|c| c.name == child);
            shell.engine.connections().find(has).map(|connection| connection.name.clone())
        };
        match (self.connection, self.child, self.either) {
            (Some(connection), _, _) if !exists(&connection) => Err(format!("IKE_SA config '{connection}' not found")),
            (Some(connection), child, _) => Ok((connection, child)),
            (None, Some(child), _) => match with_child(&child) {
                Some(connection) => Ok((connection, Some(child))),
                None => Err(format!("CHILD_SA config '{child}' not found")),
            },
            (None, None, Some(name)) if exists(&name) => Ok((name, None)),
            (None, None, Some(name)) => match with_child(&name) {
                Some(connection) => Ok((connection, Some(name))),
                None => Err(format!("there is no connection or child `{name}`")),
            },
            (None, None, None) => Err("missing configuration name".to_owned()),
        }
    }
}

struct Initiation {
    connection: String,
    what: String,
    settled: oneshot::Receiver<Settled>,
    journal_before: u64,
}

fn begin_initiation(shell: &mut Shell, wanted: Wanted) -> Result<Initiation, Message> {
    let join = wanted.join;
    let (connection, child) = wanted.resolve(shell).map_err(failed)?;
    let sas = shell.engine.ike_sas();
    if let Some(connecting) = sas.iter().find(|sa| is_connecting(sa, &connection)).filter(|_| !join) {
        let state = report::ike_state(connecting.state);
        let why = format!("IKE_SA '{connection}' #{} is {state} already", connecting.id.0);
        return Err(failed(why).with("state", state).with("ike-id", connecting.id.0));
    }
    let what = match &child {
        Some(child) => format!("CHILD_SA '{child}'"),
        None => format!("IKE_SA '{connection}'"),
    };
    let journal_before = shell.journal.last_number();
    let settled = shell.initiate(Some(connection.clone()), child);
    Ok(Initiation { connection, what, settled, journal_before })
}

fn is_connecting(sa: &IkeSaReport, connection: &str) -> bool {
    sa.connection == connection && matches!(sa.state, IkeState::Created | IkeState::Connecting)
}

/// Starts what `act` does to the SAs that the arguments name, and gives the connection of the first; `None` when there
/// are no such SAs.
async fn undertake(
    daemon: &Daemon,
    arguments: &Message,
    act: fn(&mut Shell, Target) -> oneshot::Receiver<Settled>,
) -> Result<Option<(oneshot::Receiver<Settled>, String)>, Message> {
    let wanted = Wanted::from(arguments);
    let number = |name| {
        arguments.text(name).map(|text| text.parse::<u32>().map_err(|_| failed(format!("`{text}` is no {name}"))))
    };
    let ike_id = number("ike-id").transpose()?;
    let child_id = number("child-id").transpose()?;
    let begin = move |shell: &mut Shell| {
        let sas = shell.engine.ike_sas();
        let target = match (child_id, ike_id) {
            (Some(id), _) => Target::ChildSa(ChildSaId(id)),
            (None, Some(id)) => Target::IkeSa(IkeSaId(id)),
            (None, None) => target_by_name(&wanted, &sas)?,
        };
        let connection = connection_of(&target, &sas);
        if connection.is_none() && wanted.either.is_some() {
            wanted.resolve(shell).map_err(failed)?; // who mistypes a name must not believe that it is down
        }
        Ok(connection.map(|connection| (act(shell, target), connection)))
    };
    match daemon.handle.ask(begin).await {
        Ok(begun) => begun,
        Err(gone) => Err(failed(gone)),
    }
}

/// SAs outlive their configuration for a moment, so names are looked up among the SAs.
fn target_by_name(wanted: &Wanted, sas: &[IkeSaReport]) -> Result<Target, Message> {
    match (&wanted.connection, &wanted.child, &wanted.either) {
        (connection, Some(child), _) => Ok(Target::Child { connection: connection.clone(), child: child.clone() }),
        (Some(connection), None, _) => Ok(Target::Connection(connection.clone())),
        (None, None, Some(name)) if sas.iter().any(|sa| sa.connection == *name) => Ok(Target::Connection(name.clone())),
        (None, None, Some(name)) => Ok(Target::Child { connection: None, child: name.clone() }),
        (None, None, None) => Err(failed("missing SA selector")),
    }
}

fn connection_of(target: &Target, sas: &[IkeSaReport]) -> Option<String> {
    let is_meant = |sa: &&IkeSaReport| match target {
        Target::Connection(connection) => sa.connection == *connection,
        Target::Child { connection: Some(connection), .. } => sa.connection == *connection,
        Target::Child { connection: None, child } => sa.children.iter().any(|own| own.name == *child),
        Target::IkeSa(id) => sa.id == *id,
        Target::ChildSa(id) => sa.children.iter().any(|own| own.id == *id),
    };
    sas.iter().find(is_meant).map(|sa| sa.connection.clone())
}

/// How waiting for an undertaking ended.
enum End {
    /// It is over.
    Settled(Settled),
    /// Nobody wanted to wait.
    Detached,
    /// It took longer than the client wanted to wait; it goes on.
    TimedOut(Duration),
}

/// A client that follows what it has begun.
struct Following<'a> {
    events: broadcast::Receiver<Broadcast>,
    streamer: &'a Streamer,
    connection: String,
    level: u8,
    timeout: Option<Duration>,
    detached: bool,
}

impl<'a> Following<'a> {
    /// `timeout` is in milliseconds: 0 waits for ever, -1 not at all. `loglevel` is strongSwan's, 1 by default.
    fn new(
        arguments: &Message,
        events: broadcast::Receiver<Broadcast>,
        streamer: &'a Streamer,
        connection: String,
    ) -> Self {
        let number = |name| arguments.text(name).and_then(|text| text.parse::<i64>().ok());
        let timeout = number("timeout").unwrap_or(0);
        Self {
            events,
            streamer,
            connection,
            level: number("loglevel").and_then(|level| u8::try_from(level).ok()).unwrap_or(1),
            timeout: u64::try_from(timeout).ok().filter(|millis| *millis > 0).map(Duration::from_millis),
            detached: timeout < 0,
        }
    }

    /// Hands on what is logged about the connection until the undertaking is over.
    async fn until_settled(mut self, mut settled: oneshot::Receiver<Settled>) -> End {
        if self.detached {
            return End::Detached;
        }
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Ok(event) => self.hand_on(&event).await,
                    // Lines were lost because the client is slow; what matters is the end.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return End::Settled(Err("the daemon is shutting down".into())),
                },
                result = &mut settled => {
                    while let Ok(event) = self.events.try_recv() {
                        self.hand_on(&event).await;
                    }
                    return End::Settled(result.unwrap_or_else(|_| Err("the daemon is shutting down".into())));
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return End::TimedOut(self.timeout.unwrap_or_default());
                }
            }
        }
    }

    async fn hand_on(&self, event: &Broadcast) {
        let of_us = event.message.text("ikesa-name") == Some(self.connection.as_str());
        let level = event.message.text("level").and_then(|level| level.parse::<u8>().ok()).unwrap_or(u8::MAX);
        if event.name != "log" || !of_us || level > self.level {
            return;
        }
        let mut line = Message::new();
        for key in ["group", "level", "ikesa-name", "ikesa-uniqueid", "msg"] {
            line.put_some(key, event.message.text(key));
        }
        self.streamer.send("control-log", line).await;
    }
}
