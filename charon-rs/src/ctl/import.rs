//! Translating strongSwan's configuration files.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::{Error, Outcome};
use crate::import::import;

/// Prints what the file is in the words of ours, and what could not be translated on standard error. It succeeds only if nothing
/// was left out.
pub(super) fn run(file: &Path, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("charonctl: {} cannot be read: {error}", file.display());
            return Ok(Outcome::Failed);
        }
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let imported = import(file, &folder, &text);
    if json {
        let left_out: Vec<_> =
            imported.left_out.iter().map(|left| json!({"line": left.line, "why": left.why})).collect();
        let all = json!({"config": imported.config, "secrets": imported.secrets, "left_out": left_out});
        writeln!(out, "{all}")?;
    } else {
        write!(out, "{}", imported.config)?;
        if !imported.secrets.is_empty() {
            writeln!(out, "\n# What follows belongs into ipsec.secrets.toml.\n{}", imported.secrets)?;
        }
        for left in &imported.left_out {
            eprintln!("{}:{}: not translated: {}", file.display(), left.line, left.why);
        }
    }
    Ok(if imported.left_out.is_empty() { Outcome::Done } else { Outcome::Failed })
}
