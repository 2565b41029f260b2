//! The `pki` tool against OpenSSL and strongSwan's tool: what one makes the other must read and accept.
//!
//! Needs the programs `openssl` (3.0 or later) and strongSwan's `pki` (Debian: strongswan-pki). Where one is missing its
//! tests are not run, except in CI, where they fail.

#![expect(clippy::unwrap_used, reason = "what helps tests may fail like tests")]

mod openssl;
mod quick;
mod strongswan;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder for the files of one test.
struct Workshop {
    folder: tempfile::TempDir,
}

/// What a program said.
struct Said {
    status: Option<i32>,
    output: Vec<u8>,
    errors: String,
}

impl Workshop {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, octets: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), octets).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs our tool with words that are separated by blanks; `'…'` is one word.
    fn pki(&self, line: &str) -> Said {
        self.run(Path::new(env!("CARGO_BIN_EXE_pki")), line)
    }

    /// Runs our tool and keeps what it writes.
    fn make(&self, file: &str, line: &str) {
        let said = self.pki(line);
        assert_eq!(said.status, Some(0), "pki {line}: {}", said.errors);
        self.write(file, said.output);
    }

    fn openssl(&self, line: &str) -> Said {
        self.run(Path::new("openssl"), line)
    }

    /// Runs OpenSSL, which must succeed.
    fn openssl_does(&self, line: &str) -> Vec<u8> {
        let said = self.openssl(line);
        assert_eq!(said.status, Some(0), "openssl {line}: {}{}", said.text(), said.errors);
        said.output
    }

    fn run(&self, program: &Path, line: &str) -> Said {
        let output: Output = Command::new(program).args(words(line)).current_dir(self.folder.path()).output().unwrap();
        Said {
            status: output.status.code(),
            output: output.stdout,
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(ToOwned::to_owned));
        }
    }
    words
}

/// Whether a program is there; in CI it must be.
fn is_there(program: &str, how: &str) -> bool {
    if Command::new(program).arg("--help").output().is_ok() {
        return true;
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs {program} ({how})");
    println!("not run: this test needs {program} ({how})");
    false
}

/// Options of `pki gen` and of `pki self`, `issue` and so on for each kind of key and signature.
const KINDS: [(&str, &str); 7] = [
    ("--type rsa --size 2048", ""),
    ("--type rsa --size 2048", "--rsa-padding pss"),
    ("--type rsa --size 2048", "--digest sha512"),
    ("--type ecdsa --size 256", ""),
    ("--type ecdsa --size 384", ""),
    ("--type ecdsa --size 521", ""),
    ("--type ed25519", ""),
];
