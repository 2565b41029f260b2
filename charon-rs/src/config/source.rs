//! A configuration file in memory: its text, its tables, and how problems are tied to places in it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::problem::{Place, Problem, Report, Severity};

/// A file that was read.
pub(super) struct Source {
    path: PathBuf,
    text: Zeroizing<String>,
    /// Whether no line of it may be shown.
    confidential: bool,
}

/// What is wrong with a key or value: a problem before it is tied to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Octets of the file that are meant.
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) expected: Option<String>,
    pub(super) nearest: Option<String>,
}

impl Source {
    /// A file whose lines may be shown.
    pub(super) fn open(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text: Zeroizing::new(text), confidential: false }
    }

    /// A file of secrets.
    pub(super) fn confidential(path: &Path, text: Zeroizing<String>) -> Self {
        Self { path: path.to_owned(), text, confidential: true }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The octets of the file in `span`.
    pub(super) fn slice(&self, span: Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    /// The tables of the file, or none when it is not TOML: what could be read besides would only bring follow-up errors.
    pub(super) fn parse(&self, report: &mut Report) -> DeTable<'_> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return table.into_inner();
        }
        for error in errors {
            // The parser's words can hold a piece of the file.
            let message = if self.confidential { "this is not TOML" } else { error.message() };
            report.add(self.error(Complaint::new(error.span().unwrap_or(0..0), message.replace('\n', ", "))));
        }
        DeTable::new()
    }

    /// `complaint` as an error of this file.
    pub(super) fn error(&self, complaint: Complaint) -> Problem {
        self.problem(Severity::Error, complaint)
    }

    /// `complaint` as a warning of this file.
    pub(super) fn warning(&self, complaint: Complaint) -> Problem {
        self.problem(Severity::Warning, complaint)
    }

    fn problem(&self, severity: Severity, complaint: Complaint) -> Problem {
        let Complaint { span, message, expected, nearest } = complaint;
        let place = Some(self.place(span));
        Problem { file: self.path.clone(), place, severity, message, expected, nearest }
    }

    /// The lines of the file, for many questions.
    pub(super) fn lines(&self) -> Lines<'_> {
        let starts = self.text.match_indices('\n').map(|(at, _)| at + 1);
        Lines { source: self, starts: std::iter::once(0).chain(starts).collect() }
    }

    fn place(&self, span: Range<usize>) -> Place {
        let start = span.start.min(self.text.len());
        let line_start = self.slice(0..start).rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.slice(start..self.text.len()).find('\n').map_or(self.text.len(), |at| start + at);
        Place {
            line: self.slice(0..start).matches('\n').count() + 1,
            column: self.slice(line_start..start).chars().count() + 1,
            width: self.slice(start..span.end.min(line_end)).trim_end_matches('\r').chars().count().max(1),
            text: (!self.confidential).then(|| self.slice(line_start..line_end).trim_end_matches('\r').to_owned()),
        }
    }
}

/// Where the lines of a file begin.
pub(super) struct Lines<'a> {
    source: &'a Source,
    starts: Vec<usize>,
}

impl Lines<'_> {
    /// The number, from 1, of the line with the octet at `at`, and its text if it may be shown.
    pub(super) fn at(&self, at: usize) -> (usize, Option<&str>) {
        let number = self.starts.partition_point(|start| *start <= at);
        let start = number.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or_default();
        let end = self.starts.get(number).copied().unwrap_or(self.source.text.len());
        let text = (!self.source.confidential).then(|| self.source.slice(start..end).trim());
        (number, text)
    }
}

impl Complaint {
    /// That `message` is the matter at `span`.
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), expected: None, nearest: None }
    }

    /// Adds what would be right.
    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds the one of `names` that is most like `written`, if any is like it.
    pub(super) fn nearest<'n>(mut self, written: &str, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.nearest = nearest(written, names).map(str::to_owned);
        self
    }
}

/// Names less alike than this are not what was meant (Jaro-Winkler, 1 is equal).
const ALIKE: f64 = 0.8;

/// The one of `names` that is most like `written`, if any is like it; of two equally alike ones the first.
pub(crate) fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let written = written.to_ascii_lowercase();
    let mut best = None;
    for name in names {
        let name_lowercase = name.to_ascii_lowercase();
        // In short names one slip makes a great difference.
        let is_slip = strsim::damerau_levenshtein(&written, &name_lowercase) <= 1;
        let likeness = strsim::jaro_winkler(&written, &name_lowercase).max(if is_slip { ALIKE } else { 0.0 });
        if likeness >= ALIKE && best.is_none_or(|(most, _)| likeness > most) {
            best = Some((likeness, name));
        }
    }
    best.map(|(_, name)| name)
}
