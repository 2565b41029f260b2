//! The matrix as it stands in its file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use toml::Spanned;

/// All rules and all hostile inputs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// The rules by their ids: `R7296-2.1-1` is the first one of RFC 7296 §2.1.
    pub rule: BTreeMap<Spanned<String>, Rule>,
    /// Inputs that broke other daemons, by the names under which they are known here.
    pub hostile: BTreeMap<Spanned<String>, HostileInput>,
}

/// A rule of an RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// How much the RFC insists.
    pub level: Level,
    /// The rule in our words.
    pub says: String,
    /// The code that keeps it: a file, a colon, an item in it.
    #[serde(default)]
    pub code: Vec<Spanned<String>>,
    /// The tests that show it: a file, a colon, a test function in it.
    #[serde(default)]
    pub tests: Vec<Spanned<String>>,
    /// Anything but kept and shown.
    pub status: Option<Status>,
    /// Why.
    pub reason: Option<String>,
}

/// An input that broke some other daemon.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostileInput {
    /// What comes in.
    pub input: String,
    /// The tests: their names, or what stands in or above them, has the name of the input.
    #[serde(default)]
    pub tests: Vec<Spanned<String>>,
    /// Anything but tested.
    pub status: Option<Status>,
    /// Why.
    pub reason: Option<String>,
}

/// How much an RFC insists on a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Level {
    /// MUST.
    #[serde(rename = "MUST")]
    Must,
    /// MUST NOT.
    #[serde(rename = "MUST NOT")]
    MustNot,
    /// SHOULD.
    #[serde(rename = "SHOULD")]
    Should,
    /// SHOULD NOT.
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
}

/// A written exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Status {
    /// The feature that the rule is about does not exist here.
    #[serde(rename = "not built")]
    NotBuilt,
    /// There is no place where such an input could arrive.
    #[serde(rename = "not applicable")]
    NotApplicable,
    /// Still to be done.
    #[serde(rename = "open")]
    Open,
}

impl Matrix {
    /// Reads a file; also returns its text, which spans point into.
    ///
    /// # Errors
    /// When it cannot be read or is no matrix.
    pub fn load(path: &Path) -> anyhow::Result<(Self, String)> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let matrix = toml::from_str(&text).with_context(|| path.display().to_string())?;
        Ok((matrix, text))
    }
}

impl Level {
    /// The word of the RFCs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
        }
    }
}

impl Status {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotBuilt => "not built",
            Self::NotApplicable => "not applicable",
            Self::Open => "open",
        }
    }
}
