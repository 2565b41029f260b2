//! The matrix against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use toml::Spanned;

use crate::FILE;
use crate::file::{Matrix, Rule, Status};
use crate::source::{Source, Sources};

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, from the root of the workspace.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Everything that is wrong with a matrix, whose text is `text`, or with what the sources say about it.
#[must_use]
pub fn problems(matrix: &Matrix, text: &str, sources: &Sources) -> Vec<Problem> {
    let mut check = Check { text, sources, problems: Vec::new() };
    for (id, rule) in &matrix.rule {
        check.rule(id, rule);
    }
    for (name, hostile) in &matrix.hostile {
        check.exception(name, hostile.status, hostile.reason.as_deref(), hostile.tests.is_empty());
        check.tests(name, &hostile.tests);
    }
    let known: BTreeSet<&str> = matrix.rule.keys().map(|id| id.get_ref().as_str()).collect();
    for (file, source) in sources.iter().filter(|(file, _)| !file.starts_with("tests/matrix/")) {
        for (line, id) in source.cited.iter().filter(|(_, id)| !known.contains(id.as_str())) {
            let what = format!("{id} is not in {FILE}");
            check.problems.push(Problem { file: file.clone(), line: *line, what });
        }
    }
    check.problems.sort();
    check.problems
}

struct Check<'a> {
    text: &'a str,
    sources: &'a Sources,
    problems: Vec<Problem>,
}

impl<'s> Check<'s> {
    fn wrong<T>(&mut self, at: &Spanned<T>, what: String) {
        let before = self.text.get(..at.span().start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        self.problems.push(Problem { file: FILE.to_owned(), line, what });
    }

    fn rule(&mut self, id: &Spanned<String>, rule: &Rule) {
        let is_id = crate::source::ids_in(id.get_ref()).next().as_ref() == Some(id.get_ref());
        if !is_id {
            self.wrong(id, format!("{} is no id of a rule", id.get_ref()));
        }
        if rule.says.trim().is_empty() {
            self.wrong(id, format!("{} says nothing", id.get_ref()));
        }
        let nothing_cited = rule.code.is_empty() || rule.tests.is_empty();
        self.exception(id, rule.status, rule.reason.as_deref(), nothing_cited);
        let mut is_cited = rule.code.is_empty() || rule.status.is_some();
        for code in &rule.code {
            if let Some((source, item)) = self.find(code) {
                is_cited |= source.cited.iter().any(|(_, cited)| cited == id.get_ref());
                if !source.items.contains(item) {
                    let what = format!("there is no `{item}` in that file{}", nearest(item, source.items.iter()));
                    self.wrong(code, what);
                }
            }
        }
        if !is_cited {
            self.wrong(id, format!("no code that keeps {} names it", id.get_ref()));
        }
        self.tests(id, &rule.tests);
    }

    /// What is neither kept nor shown needs a reason, and only that.
    fn exception(&mut self, name: &Spanned<String>, status: Option<Status>, reason: Option<&str>, is_bare: bool) {
        let what = match (status, reason) {
            (None, None) if is_bare => "cites no code or no test, and there is no exception",
            (None, Some(_)) => "has a reason for no exception",
            (Some(_), None) => "has an exception without a reason",
            (None, None) | (Some(_), Some(_)) => return,
        };
        self.wrong(name, format!("{} {what}", name.get_ref()));
    }

    /// The tests exist, and one of them names what it is for.
    fn tests(&mut self, name: &Spanned<String>, tests: &[Spanned<String>]) {
        let mut is_named = tests.is_empty();
        for test in tests {
            let Some((source, function)) = self.find(test) else {
                is_named = true;
                continue;
            };
            match source.tests.get(function) {
                Some(found) => is_named |= function.contains(name.get_ref()) || source.mentions(found, name.get_ref()),
                None => {
                    is_named = true;
                    let what =
                        format!("there is no test `{function}` in that file{}", nearest(function, source.tests.keys()));
                    self.wrong(test, what);
                }
            }
        }
        if !is_named {
            self.wrong(name, format!("no test of {} names it", name.get_ref()));
        }
    }

    /// The file and the item of a citation.
    fn find<'c>(&mut self, citation: &'c Spanned<String>) -> Option<(&'s Source, &'c str)> {
        let Some((file, item)) = citation.get_ref().split_once(": ") else {
            self.wrong(citation, "a citation is a file, a colon, a blank and an item".to_owned());
            return None;
        };
        let Some(source) = self.sources.get(file) else {
            self.wrong(citation, format!("there is no file {file}"));
            return None;
        };
        Some((source, item))
    }
}

/// The names with the most letters in common at their beginning, for the message about one that is not there.
fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a String>) -> String {
    let common = |name: &str| name.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count();
    let by_length: BTreeMap<usize, &String> = known.map(|name| (common(name), name)).collect();
    match by_length.last_key_value() {
        Some((length, name)) if *length > 2 => format!("; maybe `{name}` is meant"),
        _ => String::new(),
    }
}
