//! CAs and certificates for both gateways, made by our own `pki`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use harness::{built, finish};
use tempfile::TempDir;

use crate::Case;

/// A CA, with a certificate and a key for each of the two gateways.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
    /// What strongSwan's swanctl folder gets.
    theirs: Vec<(&'static str, PathBuf)>,
}

impl Certificates {
    /// Makes them; `key` are the options of `pki` that say which keys, for example `--type rsa --size 3072`.
    ///
    /// # Errors
    /// When `pki` fails.
    pub fn new(key: &str) -> Result<Self> {
        Self::of("CN=Root", key)
    }

    /// The same, of a CA with this name.
    ///
    /// # Errors
    /// When `pki` fails.
    pub fn of(ca: &str, key: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().display().to_string();
        pki(&format!("quick {key} --out {out} --ca {ca} moon.example.org sun.example.org"))?;
        let sun = folder.path().join("sun.example.org");
        let theirs = vec![
            ("x509ca/ca.pem", sun.join("cacerts/ca.pem")),
            ("x509/sun.pem", sun.join("certs/sun.example.org.pem")),
            ("private/sun.pem", sun.join("private/sun.example.org.pem")),
        ];
        Ok(Self { folder, theirs })
    }

    /// The folder: `ca`, `moon.example.org` and `sun.example.org`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives strongSwan another file.
    pub fn give(&mut self, name: &'static str, file: PathBuf) {
        self.theirs.push((name, file));
    }

    /// Our lines of `[daemon]`.
    #[must_use]
    pub fn our_daemon(&self) -> String {
        format!("cacerts = \"{}/moon.example.org/cacerts\"", self.folder.path().display())
    }

    /// Our lines of the connection.
    #[must_use]
    pub fn our_lines(&self) -> String {
        let moon = self.folder.path().join("moon.example.org");
        let moon = moon.display();
        format!(
            "leftcert = \"{moon}/certs/moon.example.org.pem\"\nleftkey = \"{moon}/private/moon.example.org.pem\"\nrightauth = \"pubkey\""
        )
    }

    /// Both gateways with these certificates.
    #[must_use]
    pub fn case<'a>(&'a self, our_daemon: &'a str, our_lines: &'a str) -> Case<'a> {
        Case {
            our_daemon,
            our_lines,
            their_local: "auth = pubkey\n      certs = sun.pem",
            their_remote: "auth = pubkey",
            their_files: &self.theirs,
            ..Case::default()
        }
    }
}

/// Writes what our `pki` makes of these arguments, as PEM.
///
/// # Errors
/// When `pki` fails.
pub fn write(file: &str, arguments: &str) -> Result<()> {
    Ok(fs::write(file, pki(&format!("{arguments} --outform pem"))?)?)
}

fn pki(arguments: &str) -> Result<Vec<u8>> {
    let mut command = Command::new(built("pki")?);
    command.args(arguments.split_whitespace());
    let output = finish(command)?;
    ensure!(output.status.success(), "pki {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
