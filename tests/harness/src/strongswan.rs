//! strongSwan as a peer: Debian's charon with ESP in user space, each in a namespace with a private `/run`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

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
    /// Files for its swanctl folder, for example `x509ca/ca.pem`, and where they are.
    pub files: &'a [(&'a str, PathBuf)],
    /// Which strongSwan.
    pub version: Version,
}

/// A strongSwan that tests can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// The system's own.
    #[default]
    Installed,
    /// strongSwan 6, from the folder that `tests/interop/install-strongswan6` fills.
    Six,
}

impl Version {
    /// The folder that is charon's root, if it is not the system's.
    fn root(self) -> Result<Option<PathBuf>> {
        match self {
            Self::Installed => Ok(None),
            Self::Six => {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/strongswan6");
                let folder = folder.canonicalize().unwrap_or(folder);
                ensure!(
                    folder.join("complete").exists(),
                    "strongSwan 6 is missing: run `tests/interop/install-strongswan6 {}`",
                    folder.display()
                );
                Ok(Some(folder.join("root")))
            }
        }
    }
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
        for (name, source) in setup.files {
            let target = folder.join("swanctl").join(name);
            target.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::copy(source, target).with_context(|| format!("{} for strongSwan", source.display()))?;
        }
        let socket = folder.join("vici");
        if socket.exists() {
            fs::remove_file(socket)?; // of one that was killed
        }
        let mut command = world.command(node, "unshare")?;
        command
            .args(["--mount", "sh", "-c", START])
            .env("ROOT", setup.version.root()?.unwrap_or_default())
            .env("FOLDER", &folder)
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

    /// Loads another `swanctl.conf` in the place of the one before.
    ///
    /// # Errors
    /// When charon refuses it.
    pub fn load(&self, swanctl_conf: &str) -> Result<()> {
        fs::write(self.folder.join("swanctl/swanctl.conf"), swanctl_conf)?;
        self.swanctl(&["--load-all"]).map(drop)
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

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("vici")
    }
}

/// charon has its pid file's path compiled in; a private /run lets several run at once. One with a root of its own sees
/// there the devices, and the folder under the name that it has outside.
const START: &str = r#"set -e
[ -z "$ROOT" ] || {
    mount --rbind /dev "$ROOT/dev"
    mount --bind /proc "$ROOT/proc"
    mount --bind /sys "$ROOT/sys"
    mkdir -p "$ROOT$FOLDER"
    mount --bind "$FOLDER" "$ROOT$FOLDER"
}
mount -t tmpfs tmpfs "$ROOT/run"
exec ${ROOT:+chroot "$ROOT"} /usr/lib/ipsec/charon --use-syslog"#;

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
