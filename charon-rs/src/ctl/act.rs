//! Commands that change something.

use std::io::Write;

use serde_json::{Value, json};

use super::{Error, Outcome, What, json, refused, text};
use crate::vici::{Client, Message};

/// Brings a connection or child up. What the daemon logs about it is shown as it happens.
pub(super) fn up(
    client: &mut Client,
    what: &What,
    timeout_seconds: u32,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Error> {
    let arguments = what.arguments().with("join", "yes").with("timeout", u64::from(timeout_seconds) * 1000);
    let (answer, log) = followed(client, "initiate", arguments, json, out)?;
    if json {
        writeln!(out, "{}", with_log(&answer, log))?;
    } else if answer.is_yes("success") {
        writeln!(out, "{what} is up")?;
    } else {
        eprintln!("charonctl: {what} is not up: {}", text::text(&answer, "errmsg"));
        if let Some(failure) = answer.section("failure") {
            text::failure(&mut std::io::stderr(), "  ", failure)?;
        }
    }
    Ok(outcome(&answer))
}

/// Takes a connection or child down.
pub(super) fn down(
    client: &mut Client,
    what: &What,
    (force, timeout_seconds): (bool, u32),
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Error> {
    let mut arguments = what.arguments().with("timeout", u64::from(timeout_seconds) * 1000);
    arguments.put_if("force", force);
    let (answer, log) = followed(client, "terminate", arguments, json, out)?;
    if json {
        writeln!(out, "{}", with_log(&answer, log))?;
    } else if answer.is_yes("success") {
        writeln!(out, "{what} is down")?;
    } else if text::number(&answer, "matches") == Some(0) {
        writeln!(out, "{what} was down already")?;
    } else {
        return refused(&answer, json, out);
    }
    let is_down = answer.is_yes("success") || text::number(&answer, "matches") == Some(0);
    Ok(if is_down { Outcome::Done } else { Outcome::Failed })
}

/// Rekeys a connection or child.
pub(super) fn rekey(
    client: &mut Client,
    what: &What,
    reauth: bool,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Error> {
    let mut arguments = what.arguments();
    arguments.put_if("reauth", reauth);
    let answer = client.request("rekey", arguments)?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        writeln!(out, "{}", json::of(&answer))?;
    } else {
        let done = if reauth { "made anew" } else { "rekeyed" };
        writeln!(out, "{what}: {} SA(s) {done}", text::text(&answer, "matches"))?;
    }
    Ok(Outcome::Done)
}

/// Sends the peers of a connection to another gateway.
pub(super) fn redirect(
    client: &mut Client,
    name: &str,
    gateway: &str,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Error> {
    let answer = client.request("redirect", Message::new().with("ike", name).with("gateway", gateway))?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        writeln!(out, "{}", json::of(&answer))?;
    } else {
        writeln!(out, "{name}: {} peer(s) sent to {gateway}", text::text(&answer, "redirected"))?;
    }
    Ok(Outcome::Done)
}

/// Has the daemon read its configuration again.
pub(super) fn reload(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let answer = client.request("reload", Message::new())?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        writeln!(out, "{}", json::of(&answer))?;
        return Ok(Outcome::Done);
    }
    for warning in answer.list("warnings") {
        eprintln!("{warning}");
    }
    for what in ["added", "changed", "removed", "unchanged"] {
        let names = answer.list(what);
        if !names.is_empty() {
            writeln!(out, "{what:<9}  {}", names.join(" "))?;
        }
        if what == "changed" {
            names.iter().try_for_each(|name| writeln!(out, "  {name}: {}", super::plan::when(&answer, name)))?;
        }
    }
    Ok(Outcome::Done)
}

/// Has a command carried out and shows the lines of its log as they come; for programs they are collected.
fn followed(
    client: &mut Client,
    command: &str,
    arguments: Message,
    json: bool,
    out: &mut dyn Write,
) -> Result<(Message, Vec<Value>), Error> {
    let mut log = Vec::new();
    let mut written = Ok(());
    let answer = client.stream("control-log", command, arguments, |line| {
        if json {
            log.push(json::of(&line));
        } else if written.is_ok() {
            written = writeln!(out, "[{}] {}", text::text(&line, "group"), text::text(&line, "msg"));
        }
    })?;
    written?;
    Ok((answer, log))
}

fn with_log(answer: &Message, log: Vec<Value>) -> Value {
    let mut value = json::of(answer);
    if let Value::Object(members) = &mut value {
        members.insert("log".to_owned(), json!(log));
    }
    value
}

fn outcome(answer: &Message) -> Outcome {
    if answer.is_yes("success") { Outcome::Done } else { Outcome::Failed }
}
