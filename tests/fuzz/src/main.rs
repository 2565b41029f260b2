//! Runs targets on inputs that are made of their corpora.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use fuzz::mutate::Mutator;
use fuzz::{TARGETS, Target};

/// Hostile input for everything that reads what others have written.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs targets: their corpora, then inputs that are made of them.
    Run {
        /// Its name, or `all`.
        target: String,
        /// How long, for each target.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// The same seed gives the same inputs in the same order.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs a target on files, as they are.
    Replay {
        /// Its name.
        target: String,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Writes the parts of the corpora anew that are recorded.
    Record,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Run { target, seconds, seed } if target == "all" => {
            TARGETS.iter().try_for_each(|target| run(*target, Duration::from_secs(seconds), seed))
        }
        What::Run { target, seconds, seed } => run(named(&target)?, Duration::from_secs(seconds), seed),
        What::Replay { target, files } => {
            let target = named(&target)?;
            for file in files {
                let input = std::fs::read(&file).with_context(|| file.display().to_string())?;
                println!("{}", file.display());
                (target.run)(&input);
            }
            Ok(())
        }
        What::Record => record(),
    }
}

fn named(name: &str) -> anyhow::Result<Target> {
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    Target::named(name).with_context(|| format!("there is no target `{name}`, but {}", names()))
}

/// Runs a target for a while. What makes it panic is kept in a file and is the end.
fn run(target: Target, time: Duration, seed: u64) -> anyhow::Result<()> {
    let corpus = target.corpus()?;
    for input in &corpus {
        attempt(target, input)?;
    }
    let (began, mut mutator, mut count) = (Instant::now(), Mutator::new(seed, corpus), 0_u64);
    while began.elapsed() < time {
        attempt(target, &mutator.next_input())?;
        count += 1;
    }
    println!("{}: {count} inputs, nothing found", target.name);
    Ok(())
}

fn attempt(target: Target, input: &[u8]) -> anyhow::Result<()> {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return Ok(());
    }
    let folder = target.corpus_folder().with_file_name("found");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{}-{}", target.name, input.len()));
    std::fs::write(&file, input)?;
    bail!("{} panics; see `fuzz replay {} {}`", target.name, target.name, file.display());
}

fn record() -> anyhow::Result<()> {
    for (target, name, input) in fuzz::seeds::recorded().into_iter().chain(fuzz::seeds::fragmented()) {
        let folder = named(target)?.corpus_folder();
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), input)?;
    }
    Ok(())
}
