//! What is in the host's network stack to keep packets from passing the tunnels by, with or without a daemon.

use std::io::Write;

use espdp::{DataplaneSettings, Leftovers};
use serde_json::json;

use super::{Error, Outcome};

/// Shows it, or takes it away. `remove`: whether a daemon answers, which would put it back.
pub(super) fn guard(remove: Option<bool>, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let say = |out: &mut dyn Write, failure: String| -> Result<Outcome, Error> {
        if json {
            writeln!(out, "{}", json!({"success": false, "errmsg": failure}))?;
        } else {
            eprintln!("charonctl: {failure}");
        }
        Ok(Outcome::Failed)
    };
    if remove == Some(true) {
        let advice = "a daemon runs and keeps the guard up: put guard = \"off\" into [daemon] of ipsec.toml and reload, or stop the \
                      daemon first";
        return say(out, advice.to_owned());
    }
    let settings = DataplaneSettings::default();
    let done = match remove {
        Some(_) => Leftovers::remove(&settings),
        None => Leftovers::find(&settings),
    };
    let leftovers = match done {
        Ok(leftovers) => leftovers,
        Err(error) => return say(out, error.to_string()),
    };
    let Leftovers { table, lines } = leftovers;
    if json {
        writeln!(out, "{}", json!({"success": true, "removed": remove.is_some(), "table": table, "lines": lines}))?;
        return Ok(Outcome::Done);
    }
    let verb = if remove.is_some() { "removed: " } else { "" };
    if table {
        writeln!(out, "{verb}nftables table inet {}", tunnels::TABLE)?;
    }
    for line in &lines {
        writeln!(out, "{verb}{line}")?;
    }
    if !table && lines.is_empty() {
        writeln!(out, "there is no guard")?;
    }
    Ok(Outcome::Done)
}
