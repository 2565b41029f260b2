//! The IKEv2 daemon: runs in the foreground, logs to stderr, ends with 0 when it is told to stop and with 1 on an error.

use std::process::ExitCode;

use charon_rs::daemon::{Options, run};
use clap::Parser;

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("charon-rs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
