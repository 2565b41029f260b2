//! How much the daemon's own log says about which connection.

use tracing::level_filters::LevelFilter;

use super::{failed, success};
use crate::config::{log_level, nearest};
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::vici::Message;

/// Has a connection (`name`) logged at a level of its own (`level`); `default`: at what the configuration says.
pub(super) async fn set_level(daemon: &Daemon, arguments: &Message) -> Message {
    let (Some(name), Some(level)) = (arguments.text("name"), arguments.text("level")) else {
        return failed("`name` and `level` are missing: which connection is to be logged, and how?");
    };
    let wanted = match (level, log_level(level)) {
        ("default", _) => None,
        (_, Some(level)) => Some(level),
        (_, None) => return failed(format!("`{level}` is no level: off, error, warn, info, debug, trace or default")),
    };
    let name = name.to_owned();
    match daemon.handle.ask(move |shell| tell(shell, &name, wanted)).await {
        Ok(Ok(())) => success(),
        Ok(Err(why)) => failed(why),
        Err(gone) => failed(gone),
    }
}

/// The level of all that is about no connection or one without a level of its own (`default`), and those that have one, each with
/// where it is `from`: `configuration` or `command`.
pub(super) async fn levels(daemon: &Daemon) -> Message {
    let look = |shell: &mut Shell| (shell.logs.base(), shell.logs.own());
    let (base, own) = match daemon.handle.ask(look).await {
        Ok(levels) => levels,
        Err(gone) => return failed(gone),
    };
    let mut connections = Message::new();
    for own in own {
        let from = if own.told { "command" } else { "configuration" };
        connections.put_section(&own.connection, Message::new().with("level", own.level).with("from", from));
    }
    success().with("default", base).with_section("connections", connections)
}

fn tell(shell: &mut Shell, name: &str, level: Option<LevelFilter>) -> Result<(), String> {
    let mut known = shell.applied.connections().map(|connection| connection.name.as_str());
    // One that is gone may still be quiet or loud.
    if level.is_some() && !known.any(|own| own == name) {
        let known = shell.applied.connections().map(|connection| connection.name.as_str());
        let hint = nearest(name, known).map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        return Err(format!("there is no connection `{name}`{hint}"));
    }
    shell.logs.tell(name, level);
    Ok(())
}
