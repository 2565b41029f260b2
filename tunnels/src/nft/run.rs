//! Hands tables to the kernel with the program `nft`.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use nftables::schema::Nftables;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time;

use super::Table;

/// The program `nft`, in the network namespace of the thread that calls it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nft;

/// Why a table is not in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// There is no such program.
    #[error("the program `nft` is not installed (Debian package nftables)")]
    NotInstalled,
    /// It did not run, or not to its end.
    #[error("nft cannot be run: {0}")]
    Run(#[source] io::Error),
    /// It took longer than anybody would wait.
    #[error("nft did not end within {} s", TIME_LIMIT.as_secs())]
    TimedOut,
    /// It refused.
    #[error("nft refuses the rules: {0}")]
    Refused(String),
    /// The table could not be written as JSON.
    #[error("the rules cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Nft {
    /// Puts a table in place of the old one of its name, all of it or nothing.
    ///
    /// # Errors
    /// [`NftError`]; then the old table is still in force, unless `nft` was given up on, which may have been done already.
    pub async fn replace(self, table: &Table) -> Result<(), NftError> {
        self.run(&table.replacement()).await
    }

    /// Takes the table of this name away. That there is none is no error.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn remove(self, name: &str) -> Result<(), NftError> {
        self.run(&Table::removal(name)).await
    }

    /// Whether there is a table of this name. Without `nft` there is none that we made.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn has(self, name: &str) -> Result<bool, NftError> {
        let mut command = Command::new("nft");
        command.args(["list", "tables", "inet"]).stdin(Stdio::null());
        match command.output().await {
            Ok(output) if output.status.success() => {
                let listed = String::from_utf8_lossy(&output.stdout);
                Ok(listed.lines().any(|line| line.split_whitespace().eq(["table", "inet", name])))
            }
            Ok(output) => Err(NftError::Refused(first_line(&output.stderr))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(NftError::Run(error)),
        }
    }

    async fn run(self, commands: &Nftables<'_>) -> Result<(), NftError> {
        let input = serde_json::to_vec(commands)?;
        let mut command = Command::new("nft");
        command.args(["-j", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound { NftError::NotInstalled } else { NftError::Run(error) }
        })?;
        let mut stdin = child.stdin.take();
        let conversation = async {
            if let Some(stdin) = &mut stdin {
                stdin.write_all(&input).await?;
            }
            drop(stdin);
            child.wait_with_output().await
        };
        let output = time::timeout(TIME_LIMIT, conversation).await.map_err(|_| NftError::TimedOut)?;
        let output = output.map_err(NftError::Run)?;
        if output.status.success() {
            return Ok(());
        }
        Err(NftError::Refused(first_line(&output.stderr)))
    }
}

fn first_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said).lines().next().unwrap_or("without a reason").to_owned()
}

/// A table with ten thousand policies takes half a second.
const TIME_LIMIT: Duration = Duration::from_secs(30);
