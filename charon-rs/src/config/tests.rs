//! What a reader of configurations owes its users: the whole way from files to the model, and every kind of mistake.

mod bridges;
mod certificates;
mod files;
mod host;
mod interfaces;
mod mistakes;
mod model;
mod places;
mod policies;
mod pools;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// A folder with a configuration and, if wanted, secrets.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ipsec.toml"), config).unwrap();
        Self(folder)
    }

    fn with_secrets(config: &str, secrets: &str) -> Self {
        let folder = Self::new(config);
        folder.write_private("ipsec.secrets.toml", secrets.as_bytes());
        folder
    }

    fn write_private(&self, name: &str, content: &[u8]) {
        fs::write(self.path().join(name), content).unwrap();
        self.set_mode(name, 0o600);
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self) -> Result<Loaded, Problems> {
        let secrets = self.path().join("ipsec.secrets.toml");
        load(&self.path().join("ipsec.toml"), secrets.symlink_metadata().is_ok().then_some(secrets.as_path()))
    }

    /// What is printed about the files, with the folder's name cut out.
    fn complaints(&self) -> String {
        let folder = format!("{}/", self.path().display());
        match self.load() {
            Ok(loaded) => {
                loaded.warnings.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n").replace(&folder, "")
            }
            Err(problems) => {
                problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n").replace(&folder, "")
            }
        }
    }
}

/// What the configuration `config` gives.
fn good(config: &str) -> Loaded {
    Folder::new(config).load().unwrap_or_else(|problems| panic!("{problems}"))
}

/// The only connection of `config`.
fn connection(config: &str) -> Connection {
    let mut connections = good(config).connections;
    assert_eq!(connections.len(), 1);
    connections.remove(0)
}
