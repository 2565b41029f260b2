//! Explains a capture of anybody's IKEv2: who said what to whom, and why nothing came of it.
//!
//! ```text
//! frames ─ conversation (with keys) ─ judge ─ here, for people and programs
//! ```

mod conversation;
mod frames;
mod judge;
mod keys;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ike_proto::wire::Role;
use serde_json::{Value, json};

use self::conversation::{Conversation, Conversations, Step};
use self::frames::{CaptureError, Found};
use self::judge::{Esp, Verdict, judge};
use self::keys::Keys;
use crate::ctl::{Error, Outcome, text};

/// Explains the capture in `file`; `keys` is a folder with `ikev2_decryption_table`.
pub(super) fn explain(file: &Path, keys: Option<&Path>, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let table = match keys.map(Keys::read).transpose() {
        Ok(table) => table.unwrap_or_default(),
        Err(error) => {
            let folder = keys.unwrap_or(file).display();
            return refused(&format!("{folder}: the keys cannot be read: {error}"), json, out);
        }
    };
    let (conversations, esp) = match read(file, table) {
        Ok(read) => read,
        Err(error) => return refused(&format!("{}: {error}", file.display()), json, out),
    };
    let all = conversations.all();
    let judged: Vec<(&Conversation, Verdict)> =
        all.iter().map(|conversation| (conversation, judge(conversation, all, &esp))).collect();
    if json {
        let list: Vec<Value> = judged.iter().map(|(conversation, verdict)| value(conversation, verdict)).collect();
        writeln!(out, "{}", json!({ "conversations": list, "unreadable": conversations.unreadable }))?;
        return Ok(Outcome::Done);
    }
    for (number, (conversation, verdict)) in judged.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        write(out, conversation, verdict)?;
    }
    if judged.is_empty() {
        let esp: u64 = esp.values().sum();
        writeln!(out, "no IKEv2 messages on UDP ports 500 and 4500; {esp} ESP packets")?;
    }
    if conversations.unreadable > 0 {
        writeln!(
            out,
            "\n{} datagrams on these ports are no IKEv2 messages, or were cut off",
            conversations.unreadable
        )?;
    }
    if conversations.omitted > 0 {
        writeln!(out, "{} messages of more SAs were left out", conversations.omitted)?;
    }
    Ok(Outcome::Done)
}

fn read(file: &Path, keys: Keys) -> Result<(Conversations, Esp), CaptureError> {
    let has_keys = !keys.is_empty();
    let (mut conversations, mut esp) = (Conversations::new(keys), Esp::new());
    frames::read(file, has_keys, |found| match found {
        Found::Ike(captured) => conversations.add(&captured),
        Found::Esp { source, destination } => {
            // Addresses can be made up; what is of interest are those of gateways.
            if esp.len() < MAX_ESP_PAIRS || esp.contains_key(&(source, destination)) {
                *esp.entry((source, destination)).or_default() += 1;
            }
        }
    })?;
    Ok((conversations, esp))
}

fn refused(why: &str, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    if json {
        writeln!(out, "{}", json!({ "success": false, "errmsg": why }))?;
    } else {
        eprintln!("charonctl: {why}");
    }
    Ok(Outcome::Failed)
}

fn write(out: &mut dyn Write, conversation: &Conversation, verdict: &Verdict) -> Result<(), Error> {
    let (initiator, responder) = (conversation.initiator, conversation.responder);
    let code = verdict.code.map_or("no failure", |code| code.name());
    writeln!(out, "{} -> {}, SPI {}: {code}\n", initiator.ip(), responder.ip(), conversation.spi)?;
    let unix = format!("{}.{:03}", conversation.began.as_secs(), conversation.began.subsec_millis());
    writeln!(out, "  {}", text::time(&unix, "%F %T"))?;
    for step in &conversation.steps {
        write_step(out, conversation, step)?;
    }
    if conversation.omitted > 0 {
        writeln!(out, "             and {} more messages", conversation.omitted)?;
    }
    writeln!(out, "\n  {}", verdict.what)?;
    for (label, items) in [("initiator", &verdict.initiator), ("responder", &verdict.responder)] {
        for (index, item) in items.iter().enumerate() {
            writeln!(out, "    {:<9}  {item}", if index == 0 { label } else { "" })?;
        }
    }
    if let Some(hint) = &verdict.hint {
        writeln!(out, "    hint       {hint}")?;
    }
    Ok(())
}

/// The initiator is on the left.
fn write_step(out: &mut dyn Write, conversation: &Conversation, step: &Step) -> Result<(), Error> {
    let (source, destination) = (step.source.port(), step.destination.port());
    let arrow = match step.header.sender {
        Role::OriginalInitiator => format!("{source} --> {destination}"),
        Role::OriginalResponder => format!("{destination} <-- {source}"),
    };
    let at = seconds(step.at.saturating_sub(conversation.began));
    let again = match step.again {
        0 => String::new(),
        count => format!(", again {count} time(s) until {}", seconds(step.last.saturating_sub(conversation.began))),
    };
    let cut = if step.was_fragmented { ", in IP fragments" } else { "" };
    writeln!(out, "  {at:>9}  {arrow}  {}  {} octets{cut}{again}", step.summary, step.octets)?;
    Ok(step.details.iter().try_for_each(|detail| writeln!(out, "               {detail}"))?)
}

fn value(conversation: &Conversation, verdict: &Verdict) -> Value {
    let step = |step: &Step| {
        json!({
            "at": seconds(step.at.saturating_sub(conversation.began)),
            "source": step.source.to_string(),
            "destination": step.destination.to_string(),
            "octets": step.octets,
            "message": step.summary,
            "details": step.details,
            "ip-fragments": step.was_fragmented,
            "again": step.again,
        })
    };
    json!({
        "initiator": conversation.initiator.to_string(),
        "responder": conversation.responder.to_string(),
        "initiator-spi": conversation.spi.to_string(),
        "began": seconds(conversation.began),
        "steps": conversation.steps.iter().map(step).collect::<Vec<_>>(),
        "code": verdict.code.map(|code| code.name()),
        "what": verdict.what,
        "of-initiator": verdict.initiator,
        "of-responder": verdict.responder,
        "hint": verdict.hint,
    })
}

fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// Pairs of addresses between which ESP is counted.
const MAX_ESP_PAIRS: usize = 4096;
