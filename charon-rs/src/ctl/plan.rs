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
    for (list, what) in [("added", "new"), ("changed", ""), ("removed", "removed, its SAs end")] {
        for name in answer.list(list) {
            let what = if list == "changed" { when(&answer, &name) } else { what };
            writeln!(out, "connection {name}: {what}")?;
            is_empty = false;
        }
    }
    let unchanged = answer.list("unchanged");
    if !is_empty && !unchanged.is_empty() {
        writeln!(out, "unchanged: {}", unchanged.join(" "))?;
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

/// From when on SAs that are up are as a changed connection says.
pub(super) fn when(answer: &Message, name: &str) -> &'static str {
    let is_in = |list| answer.list(list).iter().any(|own| own == name);
    if is_in("live") {
        "changed, holds at once"
    } else if is_in("next-rekey") {
        "changed, holds from the next rekeying on; `charonctl rekey` does that now"
    } else {
        "changed for SAs that are set up from now on; `charonctl rekey --reauth` makes them anew without a gap"
    }
}
