//! Names that the shell completes: the daemon's, or those of the configuration file where none answers.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use clap_complete::CompletionCandidate;

use crate::daemon::DEFAULT_CONFIG;
use crate::lab;
use crate::vici::Message;

/// Whoever presses the tabulator key waits no longer for a daemon.
const PATIENCE: Duration = Duration::from_secs(1);

/// What there are names of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    connections: BTreeSet<String>,
    children: BTreeSet<String>,
    interfaces: BTreeSet<String>,
}

/// Connections.
pub(super) fn connections(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning_with(current, names().connections)
}

/// Children of connections.
pub(super) fn children(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning_with(current, names().children)
}

/// Connections, and children of any.
pub(super) fn connections_and_children(current: &OsStr) -> Vec<CompletionCandidate> {
    let Names { connections, children, .. } = names();
    beginning_with(current, connections.into_iter().chain(children).collect())
}

/// Interfaces.
pub(super) fn interfaces(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning_with(current, names().interfaces)
}

/// Whatever has a name.
pub(super) fn all(current: &OsStr) -> Vec<CompletionCandidate> {
    let Names { connections, children, interfaces } = names();
    beginning_with(current, connections.into_iter().chain(children).chain(interfaces).collect())
}

/// What `log` takes: connections, their levels, and the word for those.
pub(super) fn of_log(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    let words: BTreeSet<String> = match text.split_once('=') {
        Some((name, _)) => ["off", "error", "warn", "info", "debug", "trace", "default"]
            .iter()
            .map(|level| format!("{name}={level}"))
            .collect(),
        None => names().connections.into_iter().chain(["show".to_owned()]).collect(),
    };
    beginning_with(current, words)
}

/// Scenarios of the lab.
pub(crate) fn scenarios(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning_with(current, lab::scenario_names().chain(["list"]).map(str::to_owned).collect())
}

fn beginning_with(current: &OsStr, words: BTreeSet<String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    words.into_iter().filter(|word| word.starts_with(current.as_ref())).map(CompletionCandidate::new).collect()
}

fn names() -> Names {
    let socket = socket_of(std::env::args_os());
    let (reply, answer) = mpsc::channel();
    // A daemon that does not answer leaves the thread behind, which goes with the process.
    std::thread::spawn(move || drop(reply.send(of_daemon(socket.as_deref()))));
    let of_daemon = answer.recv_timeout(PATIENCE).ok().flatten();
    of_daemon.unwrap_or_else(|| of_file(&std::fs::read_to_string(DEFAULT_CONFIG).unwrap_or_default()))
}

/// The socket that the line names which is being completed.
fn socket_of(arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut arguments = arguments.skip_while(|argument| argument != "--socket");
    arguments.next();
    arguments.next().map(PathBuf::from)
}

fn of_daemon(socket: Option<&Path>) -> Option<Names> {
    let answer = super::connect(socket).ok()?.request("names", Message::new()).ok()?;
    let list = |name| answer.list(name).into_iter().collect();
    Some(Names { connections: list("connections"), children: list("children"), interfaces: list("interfaces") })
}

/// What the file says, right or wrong: it may be about to be mended.
fn of_file(text: &str) -> Names {
    let file: toml::Table = toml::from_str(text).unwrap_or_default();
    let tables = |name: &str| file.get(name).and_then(toml::Value::as_table).into_iter().flatten();
    let mut names =
        Names { interfaces: tables("interface").map(|(name, _)| name.clone()).collect(), ..Names::default() };
    for (name, connection) in tables("conn").filter(|(name, _)| !name.starts_with('%')) {
        names.connections.insert(name.clone());
        match connection.get("child").and_then(toml::Value::as_table) {
            Some(children) => names.children.extend(children.keys().cloned()),
            // The connection is its only child.
            None => drop(names.children.insert(name.clone())),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_are_found_in_a_file_as_well() {
        let text = "[interface.gre0]\n[conn.\"%default\"]\n[conn.net]\nright = \"%any\"\n[conn.two.child.a]\n[conn.two.child.b]\n";
        let expected =
            Names { connections: set(&["net", "two"]), children: set(&["a", "b", "net"]), interfaces: set(&["gre0"]) };
        assert_eq!(of_file(text), expected);
        assert_eq!(of_file("no [ toml"), Names::default());
    }

    #[test]
    fn the_socket_is_that_of_the_line() {
        let socket = |line: &[&str]| socket_of(line.iter().map(OsString::from));
        assert_eq!(socket(&["charonctl", "--", "charonctl", "--socket", "/run/x", "up", ""]), Some("/run/x".into()));
        assert_eq!(socket(&["charonctl", "--", "charonctl", "up", ""]), None);
    }

    #[test]
    fn the_shell_is_told_commands_scenarios_and_levels() {
        let told = |line: &[&str]| -> Vec<String> {
            let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
            let index = arguments.len() - 1;
            let told =
                clap_complete::engine::complete(&mut super::super::Cli::command(), arguments, index, None).unwrap();
            told.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(told(&["charonctl", "exp"]), ["explain"]);
        assert_eq!(told(&["charonctl", "lab", "--scenario", "road"]), ["road-warrior"]);
        assert_eq!(told(&["charonctl", "log", "net=d"]), ["net=debug", "net=default"]);
        assert_eq!(told(&["charonctl", "--socket", "/nonexistent", "log", "sho"]), ["show"]);
    }
}
