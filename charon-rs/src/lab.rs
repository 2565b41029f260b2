//! The lab: two gateways, a client and a server in network namespaces of their own, to see a tunnel work.
//!
//! `charonctl lab` needs nothing but this program: it builds the network through netlink, runs two daemons in it, has them
//! negotiate, sends traffic across, captures what passes between the gateways, and judges by the capture whether it was
//! protected. Whoever is not root gets a user namespace to be root of.
//!
//! [`netns`] and [`topology`] serve tests as well.

mod bpf;
pub mod capture;
mod experiment;
pub mod frame;
mod gateway;
pub mod netns;
pub mod ping;
mod place;
mod report;
pub mod rtnl;
mod run;
mod sandbox;
mod sas;
mod scenario;
mod settings;
mod setup;
pub mod stack;
mod steps;
pub mod tally;
pub mod topology;
pub mod transfer;
mod verdict;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use ike_proto::proposal::{parse_esp_list, parse_ike_list};

use place::Place;
use report::Report;
use run::Plan;
use sandbox::{SandboxError, Signals};
use scenario::{Example, ScenarioReport};
use settings::{Changes, Mode};
use steps::Steps;
use verdict::Check;

/// Shows a tunnel at work between two gateways in namespaces of their own: negotiates, sends traffic, checks the wire.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Runs an example of etc/examples instead; `list` tells all of them.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["mode", "ike", "esp", "psk", "encap", "duration"],
        add = clap_complete::ArgValueCompleter::new(crate::ctl::scenarios))]
    scenario: Option<String>,
    /// How packets are wrapped [default: tunnel].
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// IKE proposals [default: aes256gcm16-prfsha256-modp2048].
    #[arg(long, value_name = "PROPOSALS", value_parser = ike_proposals)]
    ike: Option<String>,
    /// ESP proposals [default: aes256gcm16-esn].
    #[arg(long, value_name = "PROPOSALS", value_parser = esp_proposals)]
    esp: Option<String>,
    /// The pre-shared key of the gateways [default: Vpp123].
    #[arg(long, value_name = "KEY")]
    psk: Option<String>,
    /// Sends ESP in UDP, as through a NAT.
    #[arg(long)]
    encap: bool,
    /// How long the TCP transfer takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration: u64,
    /// Where the capture, the keys and the logs go [default: a new directory for temporary files].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Leaves everything running, and says how to enter it and how to remove it.
    #[arg(long)]
    keep: bool,
    /// Removes labs that were left running, and what is left of labs that were killed.
    #[arg(long, conflicts_with_all = ["keep", "out", "mode", "ike", "esp", "psk", "encap", "scenario"])]
    clean: bool,
    /// Set by the lab when it starts itself again as root of a user namespace: where labs have their places.
    #[arg(long, hide = true, value_name = "DIR")]
    inside: Option<PathBuf>,
    /// Set by the lab when it starts itself again as the daemon of a gateway: its files.
    #[arg(long, hide = true, num_args = 3, value_names = ["CONFIG", "SECRETS", "SOCKET"])]
    gateway: Vec<PathBuf>,
    /// Set by the lab when it starts itself again to keep a namespace alive.
    #[arg(long, hide = true)]
    hold: bool,
}

/// The names of all scenarios.
pub(crate) fn scenario_names() -> impl Iterator<Item = &'static str> {
    scenario::list().iter().map(|example| example.name)
}

/// Runs the lab as `args` say. Progress goes to stderr, the report to stdout, with `json` as one JSON document.
///
/// Must be called outside of any runtime, on a thread that lives as long as the process: the daemons end with it.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    if args.hold {
        loop {
            std::thread::park();
        }
    }
    let result = match args.gateway.as_slice() {
        [config, secrets, socket] => run_daemon(config, secrets, socket),
        _ => try_run(args, json),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"), json);
            ExitCode::FAILURE
        }
    }
}

/// Is `charon-rs`: the same code from here on, without a second program that might be missing or of another version.
fn run_daemon(config: &Path, secrets: &Path, socket: &Path) -> Result<ExitCode> {
    let [config, secrets, socket] = [config, secrets, socket].map(|path| Some(path.to_owned()));
    crate::daemon::run(crate::daemon::Options { config, secrets, socket, socket_group: None, log: None })?;
    Ok(ExitCode::SUCCESS)
}

fn try_run(args: &Args, json: bool) -> Result<ExitCode> {
    let example = match args.scenario.as_deref() {
        Some("list") => return list(json),
        Some(name) => Some(scenario::find(name)?),
        None => None,
    };
    let base = match &args.inside {
        Some(base) => base.clone(),
        None => place::base().context("cannot make a directory for the lab")?,
    };
    if args.clean {
        return clean(&base, json);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = if sandbox::may_make_networks()? {
        runtime.block_on(attend(args, example, &base, json))
    } else if args.inside.is_some() {
        Err(SandboxError::no_networks().into())
    } else {
        let further = [OsString::from("--inside"), base.into_os_string()];
        runtime.block_on(sandbox::run_again(&further)).map(exit_code).map_err(anyhow::Error::from)
    };
    // Threads that still wait for something have nobody left to tell.
    runtime.shutdown_background();
    code
}

/// What a lab was for.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Outcome {
    Tunnel(Box<Report>),
    Scenario(Box<ScenarioReport>),
}

impl Outcome {
    fn checks(&self) -> &[Check] {
        match self {
            Self::Tunnel(report) => &report.checks,
            Self::Scenario(report) => &report.checks,
        }
    }

    fn passed(&self) -> bool {
        self.checks().iter().all(|check| check.passed)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel(report) => write!(f, "{report}"),
            Self::Scenario(report) => write!(f, "{report}"),
        }?;
        f.write_str(match (self, self.passed()) {
            (Self::Tunnel(_), true) => "\nTraffic crossed the tunnel, and nobody between the gateways could read it.",
            (Self::Scenario(_), true) => "\nEverything was as the scenario says, also on the wire.",
            (_, false) => "\nThe lab failed, see the checks.",
        })
    }
}

/// Runs the lab until it ends or a signal comes.
async fn attend(args: &Args, example: Option<Example>, base: &Path, json: bool) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let place = Place::take(base).with_context(|| format!("cannot make a directory in `{}`", base.display()))?;
    let directory = output_directory(args.out.as_deref()).context("cannot make the output directory")?;
    let outcome = tokio::select! {
        outcome = carry_out(args, example, &directory, place) => outcome,
        signal = signals.next() => {
            // The run was dropped: everything is gone already.
            complain(&format!("interrupted; everything was removed but {}", directory.display()), json);
            return Ok(exit_code(std::process::ExitStatus::from_raw(signal.as_raw())));
        }
    };
    match outcome {
        Ok(outcome) => {
            print(&outcome, json)?;
            if !outcome.passed() {
                explain(outcome.checks(), &directory);
            }
            Ok(if outcome.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            show_logs(&directory);
            Err(error)
        }
    }
}

/// Runs what `args` ask for.
async fn carry_out(args: &Args, example: Option<Example>, directory: &Path, place: Place) -> Result<Outcome> {
    let (keep, directory) = (args.keep, directory.to_owned());
    if let Some(example) = example {
        let plan = scenario::Plan { example, keep, directory };
        return Ok(Outcome::Scenario(Box::new(scenario::run(&plan, place, Steps::new()).await?)));
    }
    let changes = Changes {
        ike: args.ike.clone(),
        esp: args.esp.clone(),
        psk: args.psk.clone(),
        mode: args.mode,
        encap: args.encap,
    };
    let plan = Plan { changes, duration: Duration::from_secs(args.duration), keep, directory };
    Ok(Outcome::Tunnel(Box::new(run::run(&plan, place, Steps::new()).await?)))
}

/// Tells which scenarios there are.
fn list(json: bool) -> Result<ExitCode> {
    let list = scenario::List::new()?;
    let mut out = io::stdout().lock();
    if json { writeln!(out, "{}", serde_json::to_string(&list)?) } else { write!(out, "{list}") }?;
    Ok(ExitCode::SUCCESS)
}

fn clean(base: &Path, json: bool) -> Result<ExitCode> {
    let cleaned = place::clean(base).context("not everything could be removed")?;
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &serde_json::json!({ "removed": cleaned }))?;
        writeln!(out)?;
    } else if cleaned.is_empty() {
        writeln!(out, "Nothing was left running.")?;
    } else {
        cleaned.iter().try_for_each(|lab| writeln!(out, "Removed {lab}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn output_directory(wanted: Option<&Path>) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    if let Some(directory) = wanted {
        builder.recursive(true).create(directory)?;
        return directory.canonicalize();
    }
    let parent = std::env::temp_dir();
    for number in 1..u32::MAX {
        let directory = parent.join(format!("charon-lab-{number}"));
        match builder.create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn print(outcome: &Outcome, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, outcome)?;
        writeln!(out)?;
    } else {
        writeln!(out, "\n{outcome}")?;
    }
    Ok(())
}

/// Says on stderr what failed, so that it stands last.
fn explain(checks: &[Check], directory: &Path) {
    show_logs(directory);
    for check in checks.iter().filter(|check| !check.passed) {
        note(&format!("failed: {}: {}", check.name, check.found));
    }
}

/// The last lines of all daemons' logs, on stderr.
fn show_logs(directory: &Path) {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect();
    logs.sort();
    for path in logs {
        let Ok(log) = std::fs::read_to_string(&path) else { continue };
        let lines: Vec<&str> = log.lines().collect();
        note(&format!("\nThe last lines of {}:", path.display()));
        lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).for_each(|line| note(&format!("  {line}")));
    }
}

fn complain(error: &str, json: bool) {
    note(&format!("charonctl lab: {error}"));
    if json {
        let document = serde_json::json!({ "passed": false, "error": error });
        // Nobody can be told that stdout is closed.
        drop(writeln!(io::stdout(), "{document:#}"));
    }
}

fn note(text: &str) {
    // Nobody can be told that stderr is closed.
    drop(writeln!(io::stderr(), "{text}"));
}

/// The code that a shell would give for `status`.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(SIGNALLED)));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn ike_proposals(text: &str) -> Result<String, String> {
    parse_ike_list(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn esp_proposals(text: &str) -> Result<String, String> {
    parse_esp_list(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

const LOG_LINES: usize = 15;

/// Shells add this to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;
