//! strongSwan as a peer: Debian's charon with ESP in user space, each in a namespace with a private `/run`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Daemon, finish, wait_until};
use crate::world::World;

/// A running charon.
#[derive(Debug)]
pub struct StrongSwan {
    daemon: Daemon,
    folder: PathBuf,
}

/// How charon is set up beyond its connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Charon<'a> {
    /// Lines for the `charon` section, for example `cookie_threshold = 0`.
    pub options: &'a str,
}

impl StrongSwan {
    /// Starts charon in a node's namespace and loads `swanctl_conf`.
    ///
    /// # Errors
    /// When it does not start, or refuses the configuration.
    pub fn start(world: &World, node: &str, folder: &Path, setup: Charon<'_>, swanctl_conf: &str) -> Result<Self> {
        let folder = folder.join(format!("strongswan-{node}"));
        fs::create_dir_all(folder.join("swanctl"))?;
        fs::write(folder.join("strongswan.conf"), strongswan_conf(&folder, setup))?;
        fs::write(folder.join("swanctl/swanctl.conf"), swanctl_conf)?;
        let socket = folder.join("vici");
        if socket.exists() {
            fs::remove_file(socket)?; // of one that was killed
        }
        let mut command = world.command(node, "unshare")?;
        // charon has its pid file's path compiled in; a private /run lets several run at once.
        command
            .args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && exec /usr/lib/ipsec/charon --use-syslog"])
            .env("STRONGSWAN_CONF", folder.join("strongswan.conf"));
        let daemon = Daemon::start(command, folder.join("output"))?;
        let mut peer = Self { daemon, folder };
        wait_until(Duration::from_secs(20), "strongSwan's control socket", || {
            if !peer.daemon.is_running()? {
                bail!("strongSwan ended: {}", peer.daemon.log());
            }
            Ok(peer.socket().exists())
        })?;
        peer.swanctl(&["--load-all"]).context("load strongSwan's configuration")?;
        Ok(peer)
    }

    /// Runs swanctl against this charon.
    ///
    /// # Errors
    /// When swanctl says that it failed.
    pub fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_swanctl(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("swanctl {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }

    /// Runs swanctl against this charon, whatever comes of it.
    ///
    /// # Errors
    /// When swanctl cannot be run.
    pub fn try_swanctl(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("swanctl");
        command
            .args(arguments)
            .arg("--uri")
            .arg(format!("unix://{}", self.socket().display()))
            .env("STRONGSWAN_CONF", self.folder.join("strongswan.conf"))
            .env("SWANCTL_DIR", self.folder.join("swanctl"));
        finish(command)
    }

    /// charon's log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("charon.log")).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// Ends charon without a word to its peers, as a power cut would.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.daemon.signal(rustix::process::Signal::KILL)?;
        self.daemon.wait(Duration::from_secs(5))?;
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("vici")
    }
}

/// kernel-libipsec does ESP in user space; the marks keep its own packets out of its tunnels.
fn strongswan_conf(folder: &Path, setup: Charon<'_>) -> String {
    let folder = folder.display();
    let options = setup.options;
    format!(
        "charon {{
  load_modular = yes
  install_routes = yes
  {options}
  filelog {{
    log {{
      path = {folder}/charon.log
      default = 1
      ike = 2
      flush_line = yes
    }}
  }}
  plugins {{
    include /etc/strongswan.d/charon/*.conf
    kernel-libipsec {{
      load = yes
      allow_peer_ts = yes
    }}
    kernel-netlink {{
      load = yes
      fwmark = !0x42
    }}
    socket-default {{
      load = yes
      fwmark = 0x42
    }}
    bypass-lan {{
      load = no
    }}
    stroke {{
      load = no
    }}
    resolve {{
      load = no
    }}
    vici {{
      load = yes
      socket = unix://{folder}/vici
    }}
  }}
}}
swanctl {{
  load = pem pkcs1 pkcs8 x509 pubkey openssl random
}}
"
    )
}
