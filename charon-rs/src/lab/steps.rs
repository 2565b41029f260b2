//! Progress for people: one line for each step, with a clock while it runs and its time when it is done.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress goes: a spinner on a terminal, plain lines elsewhere. Always stderr, so that stdout is the report's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    terminal: bool,
}

/// A step that runs. Dropped before [`Step::done`], it counts as failed.
pub(super) struct Step {
    label: String,
    started: Instant,
    bar: Option<ProgressBar>,
    done: bool,
}

impl Steps {
    /// For the stderr of this process.
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }

    /// Says something that is no step.
    pub(super) fn tell(self, text: &str) {
        // Nobody can be told that stderr is closed.
        drop(writeln!(io::stderr(), "{text}"));
    }

    /// Starts a step.
    pub(super) fn begin(self, label: impl Into<String>) -> Step {
        let label = label.into();
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix}  {msg:.dim} {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Step { label, started: Instant::now(), bar, done: false }
    }
}

impl Step {
    /// Says how far it is.
    pub(super) fn note(&self, text: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.into());
        }
    }

    /// Ends it well; `detail` says what came of it.
    pub(super) fn done(mut self, detail: &str) {
        self.done = true;
        self.print('✔', detail);
    }

    /// Ends it badly; `detail` says why.
    pub(super) fn failed(mut self, detail: &str) {
        self.done = true;
        self.print('✘', detail);
    }

    fn print(&self, mark: char, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = self.started.elapsed().as_secs_f64();
        let separator = if detail.is_empty() { "" } else { ": " };
        // Nobody can be told that stderr is closed.
        drop(writeln!(io::stderr(), "{mark} {}{separator}{detail} ({took:.1} s)", self.label));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.done {
            self.print('✘', "");
        }
    }
}
