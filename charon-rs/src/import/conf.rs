//! The syntax of strongswan.conf and swanctl.conf: sections in braces, `key = value`, comments.

use std::collections::BTreeMap;

use super::LeftOut;
use crate::vici::Message;

/// A file with the lines of everything in it.
#[derive(Debug, Default)]
pub(super) struct Conf {
    pub(super) root: Message,
    /// The lines of sections and keys, by their paths with dots.
    lines: BTreeMap<String, usize>,
    /// What is no section and no key.
    pub(super) left_out: Vec<LeftOut>,
}

impl Conf {
    /// Reads a file. What cannot be read is left out and noted.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        let mut reader = Reader { rest: text, line: 1 };
        conf.root = conf.section(&mut reader, &mut Vec::new());
        conf
    }

    /// The line of what is at `path`, else that of the nearest section around it.
    pub(super) fn line(&self, path: &[&str]) -> usize {
        let around = (0..=path.len()).rev().filter_map(|length| path.get(..length));
        around.filter_map(|path| self.lines.get(&path.join("."))).next().copied().unwrap_or(1)
    }

    fn section(&mut self, reader: &mut Reader<'_>, path: &mut Vec<String>) -> Message {
        let mut section = Message::new();
        while let Some(statement) = reader.statement() {
            let line = statement.line;
            let mut leave_out = |why: String| self.left_out.push(LeftOut { line, why });
            match statement.kind {
                Kind::End => break,
                Kind::Begin(name) if name.contains(':') => {
                    leave_out(format!("section `{name}` inherits others: write out what it inherits"));
                    reader.skip_section();
                }
                Kind::Begin(_) if path.len() >= MAX_DEPTH => {
                    leave_out("too many sections in each other".to_owned());
                    reader.skip_section();
                }
                Kind::Begin(name) => {
                    path.push(name.clone());
                    self.lines.insert(path.join("."), line);
                    let inner = self.section(reader, path);
                    path.pop();
                    section.put_section(&name, inner);
                }
                Kind::Pair(name, value) => {
                    path.push(name.clone());
                    self.lines.insert(path.join("."), line);
                    path.pop();
                    section.put(&name, value);
                }
                Kind::Include(what) => leave_out(format!("include {what}: import that file as well")),
                Kind::Junk(what) => leave_out(format!("`{what}` is no section and no key")),
            }
        }
        section
    }
}

/// strongSwan's files have five.
const MAX_DEPTH: usize = 12;

struct Statement {
    line: usize,
    kind: Kind,
}

enum Kind {
    Begin(String),
    End,
    Pair(String, String),
    Include(String),
    Junk(String),
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn advance(&mut self, octets: usize) {
        let all: &'a str = self.rest;
        let (taken, rest) = all.split_at_checked(octets).unwrap_or((all, ""));
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }

    /// Skips white space and comments.
    fn skip_blank(&mut self) {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            if !self.rest.starts_with('#') {
                return;
            }
            self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    fn statement(&mut self) -> Option<Statement> {
        self.skip_blank();
        let line = self.line;
        if self.rest.is_empty() {
            return None;
        }
        if self.rest.starts_with('}') {
            self.advance(1);
            return Some(Statement { line, kind: Kind::End });
        }
        let end = self.rest.find(['{', '}', '=', '\n', '#']).unwrap_or(self.rest.len());
        let name = self.rest.get(..end).unwrap_or_default().trim().to_owned();
        self.advance(end);
        let behind = (self.rest, self.line);
        let kind = if self.rest.starts_with('=') {
            self.advance(1);
            Kind::Pair(name, self.value())
        } else if let Some(what) = name.strip_prefix("include ") {
            Kind::Include(what.trim().to_owned())
        } else {
            // A brace may stand on the line after the name.
            self.skip_blank();
            if self.rest.starts_with('{') {
                self.advance(1);
                Kind::Begin(name)
            } else {
                (self.rest, self.line) = behind;
                Kind::Junk(name)
            }
        };
        Some(Statement { line, kind })
    }

    /// The rest of a line, or what stands in quotes, over several lines if need be.
    fn value(&mut self) -> String {
        let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
        self.advance(blank);
        if self.rest.starts_with('"') {
            self.advance(1);
            let end = self.rest.find('"').unwrap_or(self.rest.len());
            let value = self.rest.get(..end).unwrap_or_default().to_owned();
            self.advance(end + 1);
            return value;
        }
        let end = self.rest.find(['\n', '#', '}']).unwrap_or(self.rest.len());
        let value = self.rest.get(..end).unwrap_or_default().trim().to_owned();
        self.advance(end);
        value
    }

    /// Skips what belongs to a section that has just begun.
    fn skip_section(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.statement().map(|statement| statement.kind) {
                None => return,
                Some(Kind::Begin(_)) => depth += 1,
                Some(Kind::End) => depth -= 1,
                Some(Kind::Pair(..) | Kind::Include(_) | Kind::Junk(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_comments_and_quotes_are_read_with_their_lines() {
        let text = "# a comment\nconnections {\n  gw {\n    version = 2 # why not\n    local { id = \"C=CH,\n CN=moon\" }\n  }\n}\n\
                    secrets\n{\n  ike { secret = 0sAA== }\n}\ninclude conf.d/*.conf\nnonsense\n";
        let conf = Conf::parse(text);
        assert_eq!(
            conf.root.to_string(),
            "{connections {gw {version=2 local {id=C=CH,\n CN=moon}}} secrets {ike {secret=0sAA==}}}"
        );
        assert_eq!(conf.line(&["connections", "gw", "version"]), 4);
        assert_eq!(conf.line(&["connections", "gw", "local", "id"]), 5);
        assert_eq!(conf.line(&["secrets", "ike", "secret"]), 11);
        assert_eq!(conf.line(&["connections", "gw", "nothing"]), 3, "the section around it");
        let left_out: Vec<(usize, &str)> = conf.left_out.iter().map(|left| (left.line, left.why.as_str())).collect();
        assert_eq!(
            left_out,
            [(13, "include conf.d/*.conf: import that file as well"), (14, "`nonsense` is no section and no key")]
        );
    }

    #[test]
    fn text_that_is_no_configuration_ends_all_the_same() {
        for text in ["", "}", "{{{{", "a {", "= = =", "\"", "a = \"", "}}} a = 1", "a : b { c = 1 } d = 2"] {
            let conf = Conf::parse(text);
            assert!(conf.left_out.len() <= text.len() + 1);
        }
        assert_eq!(Conf::parse("a : b { c = 1 } d = 2").root.to_string(), "{d=2}");
    }
}
