//! Why a tunnel is not up: in one line for each, or for one as the story of its last attempt with the edit to paste.

mod capture;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use clap_complete::ArgValueCompleter;

use super::{Error, Outcome, json, refused, text};
use crate::vici::{Client, Message};

/// What is to be explained.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// Connection or child [default: all that are not up, one line each]
    #[arg(add = ArgValueCompleter::new(super::complete::connections_and_children))]
    name: Option<String>,
    /// Explain the IKE messages of this capture (pcap or pcapng) instead; needs no daemon
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    pcap: Option<PathBuf>,
    /// Folder with ikev2_decryption_table, as `keylog` and `charonctl keys` write it, to look into encrypted messages
    #[arg(long, value_name = "DIR", requires = "pcap")]
    keys: Option<PathBuf>,
}

impl Explain {
    /// The capture that is to be read, and the folder with its keys.
    pub(super) fn capture(&self) -> Option<(&Path, Option<&Path>)> {
        Some((self.pcap.as_deref()?, self.keys.as_deref()))
    }
}

/// Explains a capture.
pub(super) fn of_capture(
    (file, keys): (&Path, Option<&Path>),
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Error> {
    capture::explain(file, keys, json, out)
}

/// Asks the daemon.
pub(super) fn explain(client: &mut Client, what: &Explain, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let mut arguments = Message::new();
    arguments.put_some("name", what.name.as_deref());
    let mut explained = Vec::new();
    let answer = client.stream("explain", "explain", arguments, |event| {
        explained.extend(event.sections().map(|(name, section)| (name.to_owned(), section.clone())));
    })?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    let strangers: Vec<Message> =
        answer.section("strangers").iter().flat_map(|all| all.sections()).map(|(_, section)| section.clone()).collect();
    if json {
        let connections: serde_json::Map<String, Value> =
            explained.iter().map(|(name, section)| (name.clone(), json::of(section))).collect();
        let strangers: Vec<Value> = strangers.iter().map(json::of).collect();
        writeln!(out, "{}", json!({ "connections": connections, "strangers": strangers }))?;
    } else if what.name.is_some() {
        explained.iter().try_for_each(|(name, section)| write_in_full(out, name, section))?;
    } else {
        write_overview(out, &explained, &strangers)?;
    }
    let all_up = explained.iter().all(|(_, section)| section.text("state") == Some("UP"));
    Ok(if all_up || what.name.is_none() { Outcome::Done } else { Outcome::NotUp })
}

/// One line for each.
fn write_overview(out: &mut dyn Write, explained: &[(String, Message)], strangers: &[Message]) -> io::Result<()> {
    if explained.is_empty() {
        writeln!(out, "all connections are up, and none has failed since")?;
    }
    for (name, section) in explained {
        let state = text::text(section, "state");
        match section.section("failure") {
            Some(failure) => writeln!(out, "{name}  {state}  {}", one_line(failure))?,
            None => writeln!(out, "{name}  {state}  {}", text::text(section, "why"))?,
        }
    }
    if !strangers.is_empty() {
        writeln!(out, "\npeers that no connection is for, the last first:")?;
    }
    for stranger in strangers {
        if let Some(failure) = stranger.section("failure") {
            let at = stranger.section("story").and_then(|story| story.text("began")).unwrap_or_default();
            writeln!(out, "  {}  {}", text::time(at, "%F %T"), one_line(failure))?;
            if let Some(hint) = failure.text("hint") {
                writeln!(out, "    {hint}")?;
            }
        }
    }
    Ok(())
}

/// The code, what happened and what decides.
fn one_line(failure: &Message) -> String {
    let decides = match (failure.text("key"), failure.text("place")) {
        (Some(key), Some(place)) => format!(" ({key}, {place})"),
        (Some(key), None) => format!(" ({key})"),
        (None, _) => String::new(),
    };
    format!("{}: {}{decides}", text::text(failure, "code"), text::text(failure, "what"))
}

/// Everything about one connection.
pub(super) fn write_in_full(out: &mut dyn Write, name: &str, section: &Message) -> io::Result<()> {
    let (state, failure) = (text::text(section, "state"), section.section("failure"));
    match failure {
        Some(failure) => writeln!(out, "{name} is {state}: {}", text::text(failure, "code"))?,
        None => {
            writeln!(out, "{name} is {state}{}", section.text("why").map(|why| format!(": {why}")).unwrap_or_default())?
        }
    }
    if let Some(story) = section.section("story") {
        writeln!(out)?;
        write_story(out, story)?;
    }
    if let Some(failure) = failure {
        writeln!(out)?;
        write_failure(out, failure)?;
    }
    if let (Some(count), Some(since)) = (text::number(section, "failures"), section.text("failing-since")) {
        writeln!(out, "\n  failed {count} time(s) since {}", text::time(since, "%F %T"))?;
    }
    if failure.is_some()
        && let Some(began) = section.section("succeeded").and_then(|story| story.text("began"))
    {
        writeln!(out, "  the last attempt that went well was at {}", text::time(began, "%F %T"))?;
    }
    Ok(())
}

/// What both sides have, what decides, and what to paste.
pub(super) fn write_failure(out: &mut dyn Write, failure: &Message) -> io::Result<()> {
    text::failure(out, "  ", failure)?;
    let Some(key) = failure.text("key") else { return Ok(()) };
    let place = failure.text("place").map(|place| format!(", {place}")).unwrap_or_default();
    writeln!(out, "    decides {key}{place}")?;
    if let Some(line) = failure.text("line") {
        writeln!(out, "            | {line}")?;
    }
    let edit = failure.list("edit");
    if !edit.is_empty() {
        writeln!(out, "    paste   {}", text::text(failure, "edit-at"))?;
        edit.iter().try_for_each(|line| writeln!(out, "            | {line}"))?;
    }
    Ok(())
}

/// Messages as arrows, with what they say below.
pub(super) fn write_story(out: &mut dyn Write, story: &Message) -> io::Result<()> {
    let who = if story.is_yes("initiator") { "we began" } else { "the peer began" };
    writeln!(
        out,
        "  {}, {who}, with {}",
        text::time(text::text(story, "began"), "%F %T"),
        story.text("peer").unwrap_or("nobody")
    )?;
    let Some(steps) = story.section("steps") else { return Ok(()) };
    for (_, step) in steps.sections() {
        write_step(out, step)?;
    }
    if let Some(omitted) = text::number(story, "omitted") {
        writeln!(out, "             and {omitted} more")?;
    }
    Ok(())
}

fn write_step(out: &mut dyn Write, step: &Message) -> io::Result<()> {
    let at = text::text(step, "at");
    if let Some(note) = step.text("note") {
        return writeln!(out, "  {at:>9}       {note}");
    }
    let port = |end: &str| step.text(end).and_then(|end| end.rsplit(':').next()).unwrap_or_default().to_owned();
    let (local, remote) = (port("local"), port("remote"));
    let arrow = if step.is_yes("sent") { format!("{local} --> {remote}") } else { format!("{local} <-- {remote}") };
    let again = match (text::number(step, "again"), step.text("again-at")) {
        (Some(count), Some(last)) => format!(", again {count} time(s) until {last}"),
        _ => String::new(),
    };
    writeln!(out, "  {at:>9}  {arrow}  {}  {} octets{again}", text::text(step, "message"), text::text(step, "octets"))?;
    step.list("details").iter().try_for_each(|detail| writeln!(out, "               {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Message {
        let mut failure = Message::new()
            .with("code", "AUTH_ID_REFUSED")
            .with("what", "the peer's identity is `sun`, expected `venus`")
            .with("key", "rightid of [conn.gw]")
            .with("place", "ipsec.toml:4")
            .with("line", "rightid = \"venus\"")
            .with("edit-at", "in place of ipsec.toml:4");
        failure.put_list("ours", ["venus"]);
        failure.put_list("theirs", ["sun"]);
        failure.put_list("edit", ["rightid = \"sun\""]);
        failure
    }

    fn printed(write: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_failure_ends_with_the_line_that_decides_and_the_one_to_paste() {
        assert_eq!(
            printed(|out| write_failure(out, &failure())),
            "  AUTH_ID_REFUSED: the peer's identity is `sun`, expected `venus`
    ours    venus
    theirs  sun
    decides rightid of [conn.gw], ipsec.toml:4
            | rightid = \"venus\"
    paste   in place of ipsec.toml:4
            | rightid = \"sun\"
"
        );
    }

    #[test]
    fn the_overview_has_one_line_for_each() {
        let down = Message::new().with("state", "DOWN").with_section("failure", failure());
        let waits = Message::new().with("state", "DOWN").with("why", "nothing here brings it up");
        let all = [("gw".to_owned(), down), ("lan".to_owned(), waits)];
        assert_eq!(
            printed(|out| write_overview(out, &all, &[])),
            "\
gw  DOWN  AUTH_ID_REFUSED: the peer's identity is `sun`, expected `venus` (rightid of [conn.gw], ipsec.toml:4)
lan  DOWN  nothing here brings it up
"
        );
    }

    #[test]
    fn a_story_shows_messages_as_arrows_with_their_repetitions() {
        let mut sent = Message::new()
            .with("at", "0.000")
            .with("sent", "yes")
            .with("local", "192.0.2.1:500")
            .with("remote", "192.0.2.2:500")
            .with("octets", 264)
            .with("message", "IKE_SA_INIT request 0 [ SA ]")
            .with("again", 2)
            .with("again-at", "3.000");
        sent.put_list("details", ["proposal IKE:AES_GCM_16_256"]);
        let note = Message::new().with("at", "4.000").with("note", "the next address is tried");
        let steps = Message::new().with_section("1", sent).with_section("2", note);
        let story = Message::new().with("began", "0.000").with("initiator", "yes").with_section("steps", steps);
        let shown = printed(|out| write_story(out, &story));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].ends_with("we began, with nobody"), "{shown}");
        assert_eq!(
            lines[1],
            "      0.000  500 --> 500  IKE_SA_INIT request 0 [ SA ]  264 octets, again 2 time(s) until 3.000"
        );
        assert_eq!(lines[2], "               proposal IKE:AES_GCM_16_256");
        assert!(lines[3].ends_with("the next address is tried"), "{shown}");
    }
}
