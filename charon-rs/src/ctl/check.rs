//! Checking a configuration without a daemon.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::{Error, Outcome};
use crate::config::{Loaded, Problem};
use crate::daemon::Files;

/// Reads the files as the daemon would and says what it would say.
pub(super) fn check(file: &Path, secrets: Option<&Path>, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let files = Files { config: file.to_owned(), secrets: secrets.map(Path::to_owned) };
    let loaded = files.load();
    if json {
        let (success, problems, connections) = match &loaded {
            Ok(loaded) => (true, loaded.warnings.iter().collect(), names(loaded)),
            Err(problems) => (false, problems.iter().collect::<Vec<&Problem>>(), Vec::new()),
        };
        writeln!(out, "{}", json!({"success": success, "problems": problems, "connections": connections}))?;
    } else {
        match &loaded {
            Ok(loaded) => {
                loaded.warnings.iter().for_each(|warning| eprintln!("{warning}"));
                writeln!(
                    out,
                    "{}: good, {} connection(s): {}",
                    file.display(),
                    loaded.connections.len(),
                    names(loaded).join(" ")
                )?;
            }
            Err(problems) => eprintln!("{problems}"),
        }
    }
    Ok(if loaded.is_ok() { Outcome::Done } else { Outcome::Failed })
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.connections.iter().map(|connection| connection.name.as_str()).collect()
}
