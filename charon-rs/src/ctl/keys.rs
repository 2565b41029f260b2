//! Keys for Wireshark, of the SAs alive now.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::{Error, Outcome, refused};
use crate::daemon::keylog::{ESP_TABLE, IKE_TABLE, append_to};
use crate::vici::{Client, Message};

/// Writes both tables into `folder`, in place of older ones.
pub(super) fn keys(client: &mut Client, folder: &Path, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let answer = client.request("keys", Message::new())?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    let mut written = Vec::new();
    for table in [IKE_TABLE, ESP_TABLE] {
        let lines = answer.list(table);
        let path = folder.join(table);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        write_table(&path, &lines).map_err(named)?;
        written.push((path, lines.len()));
    }
    if json {
        let files: Vec<_> = written.iter().map(|(path, lines)| json!({"file": path, "lines": lines})).collect();
        writeln!(out, "{}", json!({"success": true, "files": files}))?;
    } else {
        for (path, lines) in &written {
            writeln!(out, "{}  {lines} line(s)", path.display())?;
        }
        writeln!(out, "Whoever reads these files can decrypt captured traffic of these SAs.")?;
        writeln!(out, "Wireshark reads them from its configuration folder (Help > About > Folders).")?;
    }
    Ok(Outcome::Done)
}

fn write_table(path: &Path, lines: &[String]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
    let mut file = append_to(path)?;
    file.set_len(0)?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn older_keys_are_replaced_and_nobody_else_can_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join(ESP_TABLE);
        write_table(&path, &["one".into(), "two".into()]).unwrap();
        write_table(&path, &["three".into()]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
