//! The control tool of the IKEv2 daemon.

use clap::Parser;

fn main() -> std::process::ExitCode {
    charon_rs::ctl::complete_for_shell();
    charon_rs::ctl::run(charon_rs::ctl::Cli::parse())
}
