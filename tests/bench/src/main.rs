//! Traffic through two gateways: ours, strongSwan's ESP in user space, and WireGuard in user space, in one run.
//!
//! ```text
//!  alice ───── moon ═════════════ sun ───── bob      four namespaces on one machine
//!  (load)    gateway            gateway   (sink)
//! ```
//!
//! The rounds are interleaved, so that a machine that is busy for a while is busy for all of them. The figures to trust are the
//! ratios and the CPU time per gigabyte or per million packets. Needs root; `tests/bench/run` builds and gets everything.

mod dataplane;
mod gateways;
mod load;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use harness::World;

use gateways::{Contender, Pair};
use load::{Figures, Mix, Pace};
use report::Report;

fn main() -> Result<()> {
    compare(&Options::parse())
}

#[derive(Parser)]
#[command(about = "Measures traffic through pairs of gateways, in interleaved rounds")]
struct Options {
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_value = "tcp1,tcp4")]
    modes: Vec<Mode>,
    /// Through which gateways; all that are there by default.
    #[arg(long, value_delimiter = ',')]
    gateways: Vec<Contender>,
    /// Interleaved rounds; the median is printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of one measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Tunnels of mode `tunnels`.
    #[arg(long, value_delimiter = ',', default_value = "1,100,10000")]
    tunnels: Vec<u32>,
    /// The folder that `tests/bench/install-peers` filled.
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
    /// One object for each row instead of tables.
    #[arg(long)]
    json: bool,
    /// Send datagrams as fast as one core can, and not just as many as the gateways carry.
    #[arg(long)]
    flood: bool,
}

impl Options {
    fn pace(&self) -> Pace {
        if self.flood { Pace::Flood } else { Pace::Window }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Mode {
    /// One TCP stream.
    Tcp1,
    /// Four TCP streams.
    Tcp4,
    /// Datagrams of 64 octets with their headers, as many as go.
    Udp64,
    /// Datagrams of 64, 594 and 1400 octets, 7:4:1, as many as go.
    Imix,
    /// Datagrams of 594 octets in a thousand flows.
    Flows,
    /// Round trips while a TCP stream takes half of what the gateways can do.
    Latency,
    /// Datagrams over all of many tunnels at random: ours alone.
    Tunnels,
}

impl Mode {
    fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "one TCP stream",
            Self::Tcp4 => "four TCP streams",
            Self::Udp64 => "UDP, 64 octets",
            Self::Imix => "UDP, IMIX",
            Self::Flows => "UDP, 594 octets, 1000 flows",
            Self::Latency => "round trips at half load",
            Self::Tunnels => "UDP, 594 octets, at random over tunnels",
        }
    }
}

/// Runs all modes, each with all gateways in turn.
fn compare(options: &Options) -> Result<()> {
    let asked = if options.gateways.is_empty() { Contender::ALL.to_vec() } else { options.gateways.clone() };
    let mut present = Vec::new();
    for contender in asked {
        match contender.missing(&options.peers) {
            None => present.push(contender),
            Some(why) => eprintln!("not measured: {}: {why}", contender.name()),
        }
    }
    let span = Duration::from_secs(options.seconds);
    for mode in &options.modes {
        let mut report = Report::new(*mode);
        if *mode == Mode::Tunnels {
            for round in 0..options.rounds {
                for tunnels in &options.tunnels {
                    let name = format!("{tunnels} tunnels");
                    let figures = many_tunnels(*tunnels, options.pace(), span).with_context(|| name.clone())?;
                    report.add(round, &name, figures);
                }
            }
        } else {
            for round in 0..options.rounds {
                for contender in &present {
                    match measure(*contender, *mode, span, options) {
                        Ok(figures) => report.add(round, contender.name(), figures),
                        Err(error) => eprintln!("round {round}: {}: {error:#}", contender.name()),
                    }
                }
            }
        }
        report.print(options.json);
    }
    Ok(())
}

fn measure(contender: Contender, mode: Mode, span: Duration, options: &Options) -> Result<Figures> {
    let world = World::two_sites()?;
    load::prepare(&world)?;
    let pair = Pair::start(contender, &world, &options.peers)?;
    let pace = options.pace();
    match mode {
        Mode::Tcp1 => load::tcp(&world, &pair.processes, 1, span),
        Mode::Tcp4 => load::tcp(&world, &pair.processes, 4, span),
        Mode::Udp64 => load::udp(&world, &pair.processes, &Mix::small(), pace, span),
        Mode::Imix => load::udp(&world, &pair.processes, &Mix::imix(), pace, span),
        Mode::Flows => load::udp(&world, &pair.processes, &Mix::flows(1000), pace, span),
        Mode::Latency => load::latency(&world, &pair.processes, span),
        Mode::Tunnels => anyhow::bail!("it has gateways of its own"),
    }
}

fn many_tunnels(tunnels: u32, pace: Pace, span: Duration) -> Result<Figures> {
    let world = World::two_sites()?;
    load::prepare(&world)?;
    let gateways = dataplane::Tunnels::start(&world, tunnels, &[])?;
    load::udp(&world, &gateways.processes(), &Mix::tunnels(tunnels), pace, span)
}
