//! What a reload would change.

use std::io::Write;

use super::{Error, Outcome, json, refused};
use crate::vici::{Client, Message};

/// Shows changes of connections, of interfaces, and of the host's routes, rules and packet filter.
pub(super) fn plan(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let answer = client.request("plan", Message::new())?;
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
    let mut is_empty = true;
    for (list, what) in
        [("added", "add connection"), ("changed", "change connection"), ("removed", "remove connection")]
    {
        for name in answer.list(list) {
            writeln!(out, "{what} {name}")?;
            is_empty = false;
        }
    }
    for line in ["interfaces", "host"].into_iter().flat_map(|list| answer.list(list)) {
        writeln!(out, "{line}")?;
        is_empty = false;
    }
    if is_empty {
        writeln!(out, "nothing would change")?;
    }
    Ok(Outcome::Done)
}
