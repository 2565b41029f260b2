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
    let live = answer.list("live");
    for (list, what) in [
        ("added", "new"),
        (
            "changed",
            "changed for SAs that are set up from now on; `charonctl rekey --reauth` makes them anew without a gap",
        ),
        ("removed", "removed, its SAs end"),
    ] {
        for name in answer.list(list) {
            let what = if list == "changed" && live.contains(&name) { "changed, holds at once" } else { what };
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
