//! The control tool: a client of the daemon's control socket.
//!
//! | module | commands |
//! |---|---|
//! | `act` | up, down, rekey, redirect, reload |
//! | `status`, `policies` | status, list, stats |
//! | `log` | log |
//! | `keys` | keys |
//! | `check` | check |
//! | `complete` | what the shell completes |
//! | `mtu` | mtu |
//! | `trace` | trace |
//! | `capture` | capture |
//! | `whatif` | whatif |
//! | `plan` | plan |
//! | `guard` | guard |
//! | `explain` | explain |
//! | `top` | top |
//! | `pages` | pages: what the package needs besides programs |
//! | `json`, `text` | how messages of the daemon look for programs and for people |

mod act;
mod capture;
mod check;
mod complete;
mod explain;
mod guard;
mod import;
mod json;
mod keys;
mod log;
mod mtu;
mod pages;
mod plan;
mod policies;
mod status;
#[cfg(test)]
mod tests;
mod text;
mod top;
mod trace;
mod whatif;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::{ArgValueCompleter, CompleteEnv};

use crate::daemon::{DEFAULT_SOCKET, SERVICE_SOCKET};
use crate::lab;
use crate::vici::{Client, ClientError, Message};

const EXIT_CODES: &str = "Exit status:
  0  it worked; for `status NAME` and `explain NAME`: the connection is up
  1  it did not: the daemon refused or failed, or the checked file is wrong
  2  the command line is wrong
  3  no daemon answers, or it went away
  4  `status NAME`, `explain NAME`: the connection is not up";

/// The command line of `charonctl`.
#[derive(Debug, Parser)]
#[command(name = "charonctl", version, about = "Controls charon-rs, the IKEv2 daemon", after_help = EXIT_CODES)]
pub struct Cli {
    /// The daemon's control socket [default: /run/charon-rs.vici, else /run/charon-rs/vici]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs two gateways, a client and a server in namespaces of their own; needs no daemon
    Lab(lab::Args),
    /// Writes man pages and completions of charonctl and charon-rs into a folder
    #[command(hide = true)]
    Pages { folder: PathBuf },
    #[command(flatten)]
    Other(Simple),
}

/// Everything that talks to a daemon, or to nobody.
#[derive(Debug, Subcommand)]
enum Simple {
    /// Brings a connection, or one child of it, up and shows how that goes
    Up {
        #[command(flatten)]
        what: What,
        /// Give up waiting after this many seconds; the daemon goes on trying
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        timeout: u32,
    },
    /// Takes a connection, or one child of it, down
    Down {
        #[command(flatten)]
        what: What,
        /// At once, without waiting for the peer, which is told once
        #[arg(long)]
        force: bool,
        /// Give up waiting after this many seconds; the daemon goes on
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        timeout: u32,
    },
    /// Shows connections and their SAs in full, and why they are down
    Status {
        /// Connection or child [default: all]
        #[arg(add = ArgValueCompleter::new(complete::connections_and_children))]
        name: Option<String>,
    },
    /// Shows one line for each connection
    List,
    /// Tells why a tunnel is not up: what was said, what decides, and what to change
    Explain(explain::Explain),
    /// Rekeys a connection's IKE SA, or the SAs of one child, now
    Rekey {
        #[command(flatten)]
        what: What,
        /// Make the IKE SA anew with all its children, with a new authentication
        #[arg(long)]
        reauth: bool,
    },
    /// Sends the peers of a connection to another gateway
    Redirect {
        /// Connection
        #[arg(add = ArgValueCompleter::new(complete::connections))]
        name: String,
        /// Address or host name of the other gateway
        gateway: String,
    },
    /// Shows what happened last, or has the daemon's own log say more or less about a connection
    Log {
        /// Only this connection. NAME=LEVEL: log it at this level (off, error, warn, info, debug, trace, or default for what the
        /// configuration says). show: the levels
        #[arg(value_name = "NAME|NAME=LEVEL|show", add = ArgValueCompleter::new(complete::of_log))]
        what: Option<String>,
        /// Go on with what happens from now on
        #[arg(long, short)]
        follow: bool,
    },
    /// Writes the keys of the SAs alive now for Wireshark, if the daemon exports keys
    Keys {
        /// Folder for ikev2_decryption_table and esp_sa
        #[arg(value_name = "DIR", default_value = ".")]
        folder: PathBuf,
    },
    /// Checks a configuration file; needs no daemon
    Check {
        /// The file, as /etc/charon-rs/ipsec.toml
        file: PathBuf,
        /// File with secrets [default: ipsec.secrets.toml beside it, if it is there]
        #[arg(long, value_name = "FILE")]
        secrets: Option<PathBuf>,
    },
    /// Prints the keys of the configuration as a JSON Schema, for editors that complete them; needs no daemon
    Schema {
        /// Those of the secrets file
        #[arg(long)]
        secrets: bool,
    },
    /// Prints a configuration file of strongSwan (ipsec.conf, ipsec.secrets, swanctl.conf) in the words of ours; needs no daemon
    Import {
        /// The file
        file: PathBuf,
    },
    /// Follows single packets through the gateway, step by step
    #[command(subcommand)]
    Trace(trace::Trace),
    /// Says what would become of a packet: interface, policy, SA, sizes
    Whatif(whatif::WhatIf),
    /// Writes packets to a file for Wireshark, as they are inside and outside
    #[command(subcommand)]
    Capture(capture::Capture),
    /// Has the daemon read its configuration again; what did not change is not touched
    Reload,
    /// Shows how long packets may be, and where the octets go that they may not have
    Mtu {
        /// Interface, connection or child [default: all]
        #[arg(add = ArgValueCompleter::new(complete::all))]
        name: Option<String>,
    },
    /// Shows what a reload would change, and changes nothing
    Plan,
    /// Shows what keeps packets from passing the tunnels by; needs no daemon
    Guard {
        /// Take it away, when no daemon runs
        #[arg(long)]
        remove: bool,
    },
    /// Shows how the daemon is doing
    Stats,
    /// Shows tunnels, rates, drops and threads as they are now
    Top {
        /// Between two looks, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        interval: u64,
        /// Look once, and print that
        #[arg(long)]
        once: bool,
    },
}

/// What a command is about.
#[derive(Debug, clap::Args)]
struct What {
    /// Connection, or a child of any connection
    #[arg(add = ArgValueCompleter::new(complete::connections_and_children))]
    name: String,
    /// Only this child of the connection
    #[arg(long, add = ArgValueCompleter::new(complete::children))]
    child: Option<String>,
}

impl What {
    /// The arguments of a command about it.
    fn arguments(&self) -> Message {
        match &self.child {
            Some(child) => Message::new().with("ike", &self.name).with("child", child),
            None => Message::new().with("name", &self.name),
        }
    }
}

/// For sentences.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.child {
            Some(child) => write!(f, "{} of {}", child, self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// How a command ended that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It was said why.
    Failed,
    NotUp,
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{}", not_there(socket, source))]
    NotThere { socket: PathBuf, source: io::Error },
    #[error("the daemon went away: {0}")]
    Client(#[from] ClientError),
    #[error(transparent)]
    Output(#[from] io::Error),
}

pub(crate) use self::complete::scenarios;

/// Answers the shell if it is that which calls, to complete a line; then the process ends here.
pub fn complete_for_shell() {
    CompleteEnv::with_factory(Cli::command).bin("charonctl").complete();
}

/// Runs `charonctl` and gives its exit status.
pub fn run(cli: Cli) -> ExitCode {
    let Cli { socket, json, command } = cli;
    let command = match command {
        Command::Lab(args) => return lab::run(&args, json),
        Command::Pages { folder } => {
            return match pages::write(&folder) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("charonctl: {} cannot be written: {error}", folder.display());
                    ExitCode::from(1)
                }
            };
        }
        Command::Other(command) => command,
    };
    let mut out = io::stdout().lock();
    match carry_out(socket.as_deref(), json, command, &mut out) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::NotUp) => ExitCode::from(4),
        // Whoever reads our output has enough, as `head` does.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("charonctl: {error}");
            ExitCode::from(if matches!(error, Error::Output(_)) { 1 } else { 3 })
        }
    }
}

fn carry_out(socket: Option<&Path>, json: bool, command: Simple, out: &mut dyn Write) -> Result<Outcome, Error> {
    let connect = || connect(socket);
    match command {
        Simple::Up { what, timeout } => act::up(&mut connect()?, &what, timeout, json, out),
        Simple::Down { what, force, timeout } => act::down(&mut connect()?, &what, (force, timeout), json, out),
        Simple::Redirect { name, gateway } => act::redirect(&mut connect()?, &name, &gateway, json, out),
        Simple::Rekey { what, reauth } => act::rekey(&mut connect()?, &what, reauth, json, out),
        Simple::Reload => act::reload(&mut connect()?, json, out),
        Simple::Plan => plan::plan(&mut connect()?, json, out),
        Simple::Guard { remove } => guard::guard(remove.then(|| connect().is_ok()), json, out),
        Simple::Status { name } => status::status(&mut connect()?, name.as_deref(), json, out),
        Simple::Explain(what) => match what.capture() {
            Some(capture) => explain::of_capture(capture, json, out),
            None => explain::explain(&mut connect()?, &what, json, out),
        },
        Simple::List => status::list(&mut connect()?, json, out),
        Simple::Stats => status::stats(&mut connect()?, json, out),
        Simple::Top { interval, once } => top::top(&mut connect()?, Duration::from_secs(interval), once, out),
        Simple::Log { what, follow } => log::log(&mut connect()?, what.as_deref(), follow, json, out),
        Simple::Keys { folder } => keys::keys(&mut connect()?, &folder, json, out),
        Simple::Mtu { name } => mtu::mtu(&mut connect()?, name.as_deref(), json, out),
        Simple::Trace(what) => trace::trace(&mut connect()?, &what, json, out),
        Simple::Whatif(what) => whatif::what_if(&mut connect()?, &what, json, out),
        Simple::Capture(what) => capture::capture(&mut connect()?, &what, json, out),
        Simple::Schema { secrets } => {
            let schema = if secrets { crate::config::secrets_schema() } else { crate::config::schema() };
            writeln!(out, "{schema:#}")?;
            Ok(Outcome::Done)
        }
        Simple::Import { file } => import::run(&file, json, out),
        Simple::Check { file, secrets } => check::check(&file, secrets.as_deref(), json, out),
    }
}

/// Connects to the named socket, or to the first of the usual ones where a daemon answers.
fn connect(socket: Option<&Path>) -> Result<Client, Error> {
    let usual = Path::new(DEFAULT_SOCKET);
    let service = Path::new(SERVICE_SOCKET);
    let socket = match socket {
        Some(socket) => socket,
        None if service.exists() && !usual.exists() => service,
        None => usual,
    };
    Client::connect(socket).map_err(|source| Error::NotThere { socket: socket.to_owned(), source })
}

fn not_there(socket: &Path, source: &io::Error) -> String {
    let socket = socket.display();
    if source.kind() == io::ErrorKind::PermissionDenied {
        return format!("you may not use the control socket {socket}: try as root");
    }
    format!(
        "no daemon answers at {socket} ({source})\n  \
         start it:        systemctl start charon-rs    or    charon-rs --config FILE\n  \
         another socket:  charonctl --socket PATH ..."
    )
}

/// A message as an object, as programs get it from `--json`.
pub(crate) fn json_of(message: &Message) -> serde_json::Value {
    json::of(message)
}

/// The story of a connection, as people get it from `explain`.
pub(crate) fn story_of(name: &str, section: &Message) -> String {
    let mut story = Vec::new();
    // Writing into memory does not fail.
    drop(explain::write_in_full(&mut story, name, section));
    String::from_utf8_lossy(&story).into_owned()
}

/// Says why the daemon refused; the way to say it for all commands that have no more to say.
fn refused(answer: &Message, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    if json {
        writeln!(out, "{}", json::of(answer))?;
    } else {
        eprintln!("charonctl: {}", answer.text("errmsg").unwrap_or("the daemon gives no reason"));
    }
    Ok(Outcome::Failed)
}
