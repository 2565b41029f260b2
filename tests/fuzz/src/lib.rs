//! Hostile input for everything that reads what others have written: datagrams, what is inside of protected ones,
//! fragments, proposals, selectors, certificates, VICI.
//!
//! Each [`Target`] takes any octets and panics when something that must always hold does not. The corpus of a target is a
//! folder of small files under `tests/fuzz/corpus`; the tests of this package replay all of them, and mutate each a bit.
//! `cargo run -p fuzz -- run all --seconds 20` mutates for longer, with the same sequence of inputs for the same seed, and
//! keeps what made a target panic.

mod cursor;
mod gateways;
pub mod mutate;
pub mod seeds;
mod targets;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Something that takes any octets.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its corpus.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "datagram", run: targets::engine::datagrams },
    Target { name: "payloads", run: targets::engine::payloads },
    Target { name: "fragments", run: targets::fragments::run },
    Target { name: "proposals", run: targets::proposals::run },
    Target { name: "selectors", run: targets::selectors::run },
    Target { name: "certificates", run: targets::certificates::run },
    Target { name: "vici", run: targets::vici::run },
];

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.iter().copied().find(|target| target.name == name)
    }

    /// Where its corpus is.
    #[must_use]
    pub fn corpus_folder(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }

    /// The inputs of its corpus, in the order of their names.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn corpus(self) -> anyhow::Result<Vec<Vec<u8>>> {
        let folder = self.corpus_folder();
        let entries = std::fs::read_dir(&folder).with_context(|| format!("no corpus in {}", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).with_context(|| path.display().to_string())).collect()
    }
}
