//! `pki` makes and checks keys, certificates, requests and CRLs; who knows strongSwan's tool knows this one.

mod tool;

use std::process::ExitCode;

fn main() -> ExitCode {
    tool::run(std::env::args_os().collect())
}
