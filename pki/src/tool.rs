//! The commands, and what they have in common.
//!
//! Commands are written `pki gen` or, as strongSwan has it, `pki --gen` or `pki -g`; options have strongSwan's names and
//! letters. Keys and certificates go to standard output, as DER like there, but as PEM when that is a terminal.

mod dates;
mod files;
mod identifiers;
mod make;
mod options;
mod pkcs12;
mod print;
mod quick;
mod signcrl;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use pki::time::UnixTime;
use rand_core::UnwrapErr;

#[derive(Parser)]
#[command(name = "pki", version, about = "Makes and checks keys, certificates, requests and CRLs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generate a private key
    Gen(make::GenArgs),
    /// Make a self-signed certificate
    #[command(name = "self")]
    SelfSigned(make::SelfArgs),
    /// Issue a certificate with a CA's certificate and key
    Issue(make::IssueArgs),
    /// Make a certification request (PKCS#10)
    Req(make::ReqArgs),
    /// Issue a CRL with a CA's certificate and key
    Signcrl(signcrl::Args),
    /// Verify a certificate and say exactly what is wrong with it
    Verify(verify::Args),
    /// Print a key, certificate, request or CRL for people
    Print(print::Args),
    /// Extract the public key of a key, certificate or request
    Pub(identifiers::PubArgs),
    /// Calculate the identifiers of a key
    Keyid(identifiers::KeyidArgs),
    /// Print the subject of a certificate as a configuration wants it
    Dn(identifiers::DnArgs),
    /// List, extract or make PKCS#12 containers
    Pkcs12(pkcs12::Args),
    /// Make a CA, and certificates and keys for a list of gateways, all at once
    Quick(quick::Args),
    /// Write man pages into a folder
    #[command(hide = true)]
    Pages { folder: std::path::PathBuf },
}

/// How the program ends when all went well but the answer is no.
pub(crate) enum Outcome {
    Done,
    /// With this exit status.
    Refused(u8),
}

/// Runs the program.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    let matches = match Cli::command().try_get_matches_from(recognised(arguments)) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match execute(cli.command, &matches) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused(status)) => ExitCode::from(status),
        Err(error) => {
            eprintln!("pki: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, matches: &ArgMatches) -> Result<Outcome> {
    // The order of some options counts, and clap tells it only here.
    let Some((_, order)) = matches.subcommand() else { return Ok(Outcome::Refused(USAGE)) };
    match command {
        Command::Gen(args) => make::generate(&args),
        Command::SelfSigned(args) => make::self_signed(&args, order),
        Command::Issue(args) => make::issue(&args, order),
        Command::Req(args) => make::request(&args),
        Command::Signcrl(args) => signcrl::run(&args, order),
        Command::Verify(args) => return verify::run(&args),
        Command::Print(args) => print::run(&args),
        Command::Pub(args) => identifiers::public(&args),
        Command::Keyid(args) => identifiers::keyid(&args),
        Command::Dn(args) => identifiers::dn(&args),
        Command::Pkcs12(args) => pkcs12::run(&args),
        Command::Quick(args) => quick::run(&args),
        Command::Pages { folder } => {
            std::fs::create_dir_all(&folder)?;
            Ok(clap_mangen::generate_to(Cli::command(), &folder)?)
        }
    }?;
    Ok(Outcome::Done)
}

/// Turns `pki --gen` and `pki -g` into `pki gen`.
fn recognised(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(first) = arguments.get_mut(1) else { return arguments };
    let text = first.to_str().unwrap_or_default();
    let long = COMMANDS.iter().find(|(name, _)| text.strip_prefix("--") == Some(name));
    let short = COMMANDS.iter().find(|(_, letter)| text == *letter);
    if let Some((name, _)) = long.or(short) {
        *first = name.into();
    }
    arguments
}

fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // When nobody listens there is nothing to be done.
    error.print().ok();
    ExitCode::from(if asked { 0 } else { USAGE })
}

/// The time; the only place that asks for it.
#[expect(clippy::disallowed_methods, reason = "the library is told the time, and this is who tells it")]
fn now() -> UnixTime {
    std::time::SystemTime::now().into()
}

/// Randomness of the operating system; without it there is nothing we could do.
fn rng() -> UnwrapErr<getrandom::SysRng> {
    UnwrapErr(getrandom::SysRng)
}

/// The exit status of a wrong command line.
const USAGE: u8 = 2;

/// The commands of strongSwan with their letters.
const COMMANDS: [(&str, &str); 12] = [
    ("gen", "-g"),
    ("self", "-s"),
    ("issue", "-i"),
    ("req", "-r"),
    ("signcrl", "-c"),
    ("verify", "-v"),
    ("print", "-a"),
    ("pub", "-p"),
    ("keyid", "-k"),
    ("dn", "-d"),
    ("pkcs12", "-u"),
    ("quick", "-q"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_written_in_three_ways() {
        for (written, command) in [("gen", "gen"), ("--gen", "gen"), ("-g", "gen"), ("--help", "--help"), ("-x", "-x")]
        {
            let arguments = recognised(vec!["pki".into(), written.into(), "--self".into()]);
            assert_eq!(arguments[1..], [OsString::from(command), "--self".into()]);
        }
    }
}
