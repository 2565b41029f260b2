//! The daemon as the control socket serves it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::broadcast;

use super::applied::{Changes, Wanted};
use super::commands;
use super::events;
use super::shell::Handle;
use crate::config::{self, DaemonConfig, Loaded, Problems};
use crate::vici::{Broadcast, Message, Service, Streamer};

/// Where the configuration is read from.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// `ipsec.toml`.
    pub(crate) config: PathBuf,
    /// The file of secrets; `None` means `ipsec.secrets.toml` beside the configuration, if it is there.
    pub(crate) secrets: Option<PathBuf>,
}

impl Files {
    /// Reads both files.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn load(&self) -> Result<Loaded, Problems> {
        let beside = self.config.with_file_name("ipsec.secrets.toml");
        let secrets = self.secrets.clone().or_else(|| beside.exists().then_some(beside));
        config::load(&self.config, secrets.as_deref())
    }
}

/// What commands need to know besides the shell.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The way to the engine.
    pub(crate) handle: Handle,
    /// Where a reload reads.
    pub(crate) files: Files,
    /// What the daemon was started with and cannot change while it runs.
    pub(crate) startup: Option<DaemonConfig>,
    /// When it started.
    pub(crate) started: (SystemTime, Instant),
}

impl Service for Daemon {
    fn has_event(&self, name: &str) -> bool {
        events::NAMES.contains(&name)
    }

    fn subscribe(&self) -> broadcast::Receiver<Broadcast> {
        self.handle.subscribe()
    }

    async fn call(self: Arc<Self>, name: String, arguments: Message, streamer: Streamer) -> Option<Message> {
        commands::call(&self, &name, &arguments, &streamer).await
    }
}

/// What a reload did, and what the author of the configuration should know.
#[derive(Clone, Debug)]
pub(crate) struct Reloaded {
    /// The changes.
    pub(crate) changes: Changes,
    /// Warnings, for people.
    pub(crate) warnings: Vec<String>,
}

impl Daemon {
    /// Reads the files again and applies what changed. A bad file changes nothing.
    ///
    /// # Errors
    /// What is wrong with the files, for people, with lines and columns.
    pub(crate) async fn reload(&self) -> Result<Reloaded, String> {
        let (wanted, warnings) = self.read().await?;
        let changes = self.handle.ask(|shell| shell.apply_file(wanted)).await.map_err(|gone| gone.to_string())?;
        Ok(Reloaded { changes, warnings })
    }

    /// Reads the files and applies nothing: what there should be, and warnings for people.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub(crate) async fn read(&self) -> Result<(Wanted, Vec<String>), String> {
        let files = self.files.clone();
        let loaded = match tokio::task::spawn_blocking(move || files.load()).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(problems)) => return Err(problems.to_string()),
            Err(panic) => return Err(format!("reading the configuration failed: {panic}")),
        };
        let mut warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        if self.startup.as_ref().is_some_and(|startup| !are_alike(startup, &loaded.daemon)) {
            warnings.push("changes of the daemon's own settings take effect when it is restarted".into());
        }
        Ok((loaded.into(), warnings))
    }
}

/// Whether a restart with `new` would change nothing of the daemon itself.
fn are_alike(old: &DaemonConfig, new: &DaemonConfig) -> bool {
    old == new
}
