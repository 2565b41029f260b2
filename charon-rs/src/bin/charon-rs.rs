//! The IKEv2 daemon: runs in the foreground, logs to stderr, ends with 0 when it is told to stop and with 1 on an error.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    charon_rs::daemon::run(charon_rs::daemon::Options::parse())
}
