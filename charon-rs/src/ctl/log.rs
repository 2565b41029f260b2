//! What happened: the journal, and what follows; and how much the daemon's own log says.

use std::io::Write;
use std::ops::ControlFlow;

use super::{Error, Outcome, json, refused, text};
use crate::vici::{Client, Message};

/// The word for the levels, in the place of a name.
const SHOW: &str = "show";

/// Does what `what` says: shows lines of a connection, or of all without any, changes a level (`NAME=LEVEL`), or shows the levels.
pub(super) fn log(
    client: &mut Client,
    what: Option<&str>,
    follow: bool,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Error> {
    match what.map(|what| (what, what.split_once('='))) {
        Some((_, Some((name, level)))) => set_level(client, name, level, json, out),
        Some((SHOW, None)) if !follow => levels(client, json, out),
        Some((name, None)) => lines(client, Some(name), follow, json, out),
        None => lines(client, None, follow, json, out),
    }
}

fn set_level(client: &mut Client, name: &str, level: &str, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let answer = client.request("log-level", Message::new().with("name", name).with("level", level))?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        writeln!(out, "{}", json::of(&answer))?;
    }
    Ok(Outcome::Done)
}

fn levels(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let answer = client.request("log-levels", Message::new())?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        writeln!(out, "{}", json::of(&answer))?;
        return Ok(Outcome::Done);
    }
    for (name, own) in answer.section("connections").iter().flat_map(|connections| connections.sections()) {
        writeln!(out, "{name}: {} (by {})", text::text(own, "level"), text::text(own, "from"))?;
    }
    writeln!(out, "all else: {}", text::text(&answer, "default"))?;
    Ok(Outcome::Done)
}

/// Shows the last lines of the journal, and with `follow` those that come.
fn lines(
    client: &mut Client,
    name: Option<&str>,
    follow: bool,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Error> {
    // Registered before the journal is asked for, so that nothing falls between: what comes twice is told by its number.
    client.register("log")?;
    let mut arguments = Message::new();
    arguments.put_some("name", name);
    let mut newest = 0;
    let mut written = Ok(());
    let answer = client.request_with("journal", arguments, |_, line| {
        if written.is_ok() {
            written = show(&line, name, &mut newest, json, out);
        }
    })?;
    written?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if follow {
        let mut written = Ok(());
        client.listen(|_, line| {
            written = show(&line, name, &mut newest, json, out).and_then(|()| out.flush());
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
    }
    Ok(Outcome::Done)
}

fn show(line: &Message, name: Option<&str>, newest: &mut u64, json: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let number = text::number(line, "seq").unwrap_or(u64::MAX);
    let connection = line.text("ikesa-name");
    if number <= *newest || (name.is_some() && name != connection) {
        return Ok(());
    }
    *newest = number;
    if json {
        return writeln!(out, "{}", json::of(line));
    }
    let time = text::time(text::text(line, "time"), "%b %d %H:%M:%S%.3f");
    let id = line.text("ikesa-uniqueid").map(|id| format!("[{id}]")).unwrap_or_default();
    let connection = connection.map(|name| format!("{name}{id} ")).unwrap_or_default();
    writeln!(out, "{time} {} {connection}{}", text::text(line, "group"), text::text(line, "msg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_twice_is_shown_once_and_strangers_not_at_all() {
        let line = |number: u64, name: &str| {
            Message::new()
                .with("group", "IKE")
                .with("ikesa-name", name)
                .with("ikesa-uniqueid", 1)
                .with("msg", "hello")
                .with("seq", number)
                .with("time", "0.000")
        };
        let (mut out, mut newest) = (Vec::new(), 0);
        for (number, name) in [(1, "net"), (2, "other"), (2, "net"), (2, "net")] {
            show(&line(number, name), Some("net"), &mut newest, false, &mut out).unwrap();
        }
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(shown.lines().all(|line| line.ends_with("IKE net[1] hello")), "{shown}");
    }
}
