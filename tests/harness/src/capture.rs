//! Captures, and what tshark reads in them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::process::{Daemon, finish, wait_until};
use crate::world::{WAN, World};

/// A capture by tcpdump of what a gateway sends and receives outside.
#[derive(Debug)]
pub struct Capture {
    daemon: Daemon,
    file: PathBuf,
}

impl Capture {
    /// Captures everything on the outer interface of `node` into `folder`, and returns when tcpdump listens.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn start(world: &World, node: &str, folder: &Path) -> Result<Self> {
        let file = folder.join(format!("{node}.pcap"));
        let mut command = world.command(node, "tcpdump")?;
        // -Z root: tcpdump would otherwise give up its privileges before it opens the file.
        command.args(["-i", WAN, "-n", "-s", "0", "-U", "--immediate-mode", "-Z", "root", "-w"]).arg(&file);
        let daemon = Daemon::start(command, folder.join(format!("{node}.tcpdump")))?;
        wait_until(Duration::from_secs(10), "tcpdump", || Ok(daemon.log().contains("listening on")))?;
        Ok(Self { daemon, file })
    }

    /// Ends the capture; the file is complete then.
    ///
    /// # Errors
    /// When tcpdump does not end.
    pub fn stop(mut self) -> Result<PathBuf> {
        self.daemon.signal(Signal::INT)?;
        self.daemon.wait(Duration::from_secs(5))?;
        Ok(self.file.clone())
    }
}

/// The fields that tshark printed, one row for each packet.
pub type Fields = Vec<Vec<String>>;

/// Reads `fields` of the packets in `capture` that match `filter`, decrypting with the key files in `keys` (named as
/// Wireshark names them) if given.
///
/// # Errors
/// When tshark fails.
pub fn tshark(capture: &Path, keys: Option<&Path>, filter: &str, fields: &[&str]) -> Result<Fields> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-Y", filter, "-T", "fields", "-E", "separator=\t"]);
    for field in fields {
        command.args(["-e", field]);
    }
    if let Some(keys) = keys {
        for table in ["ikev2_decryption_table", "esp_sa"] {
            for line in std::fs::read_to_string(keys.join(table))?.lines().filter(|line| !line.starts_with('#')) {
                let mut option = OsString::from(format!("uat:{table}:"));
                option.push(line);
                command.arg("-o").arg(option);
            }
        }
        command.args([
            "-o",
            "esp.enable_encryption_decode:TRUE",
            "-o",
            "esp.enable_null_encryption_decode_heuristic:FALSE",
        ]);
    }
    let output = finish(command)?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}
