//! What is wrong with a configuration: where, what, and what was expected instead.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One thing that is wrong with a configuration, or that its author should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Where in the file; `None` when it is about the file as a whole.
    pub place: Option<Place>,
    /// Whether the configuration can be used nevertheless.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What would be right, or what to do.
    pub expected: Option<String>,
    /// The valid name nearest to the one that was written.
    pub nearest: Option<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters that are meant, at least 1.
    pub width: usize,
    /// The line's text; `None` for a file of secrets.
    pub text: Option<String>,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but it may not do what its author thinks.
    Warning,
}

/// Everything that is wrong with a configuration, in the order of files and lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// All problems, warnings included.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        let errors = self.0.iter().filter(|problem| problem.severity == Severity::Error).count();
        write!(f, "{errors} error{}", if errors == 1 { "" } else { "s" })
    }
}

impl fmt::Display for Problem {
    /// As compilers print it:
    /// ```text
    /// error: ipsec.toml:3:1: unknown key `leftsubnett`
    ///    3 | leftsubnett = "10.0.0.0/8"
    ///      | ^^^^^^^^^^^ did you mean `leftsubnet`?
    ///      = expected a key of [conn.NAME]
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = self.nearest.as_ref().map(|name| format!("did you mean `{name}`?"));
        write!(f, "{}: {}:", self.severity, self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        write!(f, " {}", self.message)?;
        let excerpt = self.place.as_ref().and_then(|place| Some((place, place.text.as_ref()?)));
        if let Some((place, text)) = excerpt {
            let indent: String = text.chars().take(place.column.saturating_sub(1)).map(blank).collect();
            let text: String = text.chars().map(visible).collect();
            write!(f, "\n{:>5} | {text}\n      | {indent}{}", place.line, "^".repeat(place.width))?;
        }
        match (hint, excerpt) {
            (Some(hint), Some(_)) => write!(f, " {hint}")?,
            (Some(hint), None) => write!(f, "\n      = {hint}")?,
            (None, _) => {}
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n      = {expected}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Collects problems while a configuration is read. The same problem found twice, through `%default` and `also`, is one.
#[derive(Debug, Default)]
pub(crate) struct Report(BTreeSet<Problem>);

impl Report {
    /// Takes a problem in.
    pub(crate) fn add(&mut self, problem: Problem) {
        self.0.insert(problem);
    }

    /// The warnings, when nothing worse was found.
    pub(crate) fn into_warnings(self) -> Result<Vec<Problem>, Problems> {
        let problems: Vec<Problem> = self.0.into_iter().collect();
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            Err(Problems(problems))
        } else {
            Ok(problems)
        }
    }
}

/// What stands in the line below a character so that the caret is in its place.
fn blank(c: char) -> char {
    if c == '\t' { '\t' } else { ' ' }
}

/// A character of the file as it may be printed on a terminal.
fn visible(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}
