//! Where in the files what connections and secrets say stands, so that a failure can name the line that decides.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::connections::Resolved;
use super::keys::Section;
use super::source::{Lines, Source};

/// The lines of all connections and secrets.
#[derive(Clone, Debug, Default)]
pub struct Places {
    connections: BTreeMap<String, OfConnection>,
    secrets: BTreeMap<String, Line>,
    policies: BTreeMap<String, Line>,
    /// Where new secrets would be put.
    secrets_file: Option<Arc<Path>>,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub file: Arc<Path>,
    /// Its number, from 1.
    pub number: usize,
    /// What stands there; `None` in a file of secrets.
    pub text: Option<String>,
}

#[derive(Clone, Debug)]
struct OfConnection {
    header: Line,
    keys: BTreeMap<&'static str, Line>,
    /// Children with tables of their own.
    children: BTreeMap<String, (Line, BTreeMap<&'static str, Line>)>,
}

impl Places {
    /// The line where a key of a connection, or of a child of it, stands, wherever it is inherited from; `None` if its default
    /// holds.
    #[must_use]
    pub fn of_key(&self, connection: &str, child: Option<&str>, key: &str) -> Option<&Line> {
        let own = self.connections.get(connection)?;
        let of_child = || child.and_then(|child| own.children.get(child)).and_then(|(_, keys)| keys.get(key));
        // With one child in a table of its own there is no doubt whose key is meant.
        let only = || match own.children.values().collect::<Vec<_>>()[..] {
            [(_, keys)] if child.is_none() => keys.get(key),
            _ => None,
        };
        of_child().or_else(only).or_else(|| own.keys.get(key))
    }

    /// The first line of a connection, or of a child that has a table of its own.
    #[must_use]
    pub fn of_table(&self, connection: &str, child: Option<&str>) -> Option<&Line> {
        let own = self.connections.get(connection)?;
        let of_child = child.and_then(|child| own.children.get(child)).map(|(header, _)| header);
        Some(of_child.unwrap_or(&own.header))
    }

    /// The line where a pre-shared key stands.
    #[must_use]
    pub fn of_secret(&self, name: &str) -> Option<&Line> {
        self.secrets.get(name)
    }

    /// The first line of a policy that no connection negotiates.
    #[must_use]
    pub fn of_policy(&self, name: &str) -> Option<&Line> {
        self.policies.get(name)
    }

    /// The file that holds the secrets.
    #[must_use]
    pub fn secrets_file(&self) -> Option<&Path> {
        self.secrets_file.as_deref()
    }

    /// Takes connections in.
    pub(super) fn add_connections(&mut self, source: &Source, connections: &[Resolved<'_>]) {
        let (file, lines): (Arc<Path>, Lines<'_>) = (source.path().into(), source.lines());
        let all = |spans: &BTreeMap<&'static str, Range<usize>>| {
            spans.iter().map(|(key, span)| (*key, line(&file, &lines, span))).collect::<BTreeMap<_, _>>()
        };
        for conn in connections {
            let mut keys = all(&conn.draft.spans);
            keys.extend(all(&conn.draft.child.spans));
            let children = conn
                .children
                .iter()
                .map(|(name, span, draft)| ((*name).to_owned(), (line(&file, &lines, span), all(&draft.spans))));
            let own = OfConnection { header: line(&file, &lines, &conn.span), keys, children: children.collect() };
            self.connections.insert(conn.name.to_owned(), own);
        }
    }

    /// Takes policies in, by their tables.
    pub(super) fn add_policies(&mut self, source: &Source, policies: &[Section<'_>]) {
        let (file, lines): (Arc<Path>, Lines<'_>) = (source.path().into(), source.lines());
        let policies = policies.iter().map(|policy| (policy.name.to_owned(), line(&file, &lines, &policy.span)));
        self.policies.extend(policies);
    }

    /// Takes secrets in, by their names and where they stand.
    pub(super) fn add_secrets(&mut self, source: &Source, secrets: &[(String, Range<usize>)]) {
        let (file, lines): (Arc<Path>, Lines<'_>) = (source.path().into(), source.lines());
        self.secrets.extend(secrets.iter().map(|(name, span)| (name.clone(), line(&file, &lines, span))));
        self.secrets_file = Some(file);
    }
}

fn line(file: &Arc<Path>, lines: &Lines<'_>, span: &Range<usize>) -> Line {
    let (number, text) = lines.at(span.start);
    Line { file: Arc::clone(file), number, text: text.map(str::to_owned) }
}
