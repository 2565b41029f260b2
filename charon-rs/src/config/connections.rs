//! The tables `[conn.NAME]`: what they inherit, and the drafts that come out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::de::DeValue;

use super::auth_keys::AUTH_KEYS;
use super::child_keys::{Auto, CHILD_KEYS, ChildDraft};
use super::conn_keys::{CONN_KEYS, ConnDraft, FOREIGN_KEYS};
use super::item::Text;
use super::keys::{Entry, Key, Section, names, unknown_key};
use super::problem::Report;
use super::shape_keys::SHAPE_KEYS;
use super::source::{Complaint, nearest};

/// The name of the section that all connections inherit.
const DEFAULT: &str = "%default";
/// Names another section to inherit.
pub(super) const ALSO: &str = "also";
/// Holds the tables of a connection's children.
pub(super) const CHILD: &str = "child";

/// A connection with everything it inherits.
pub(super) struct Resolved<'a> {
    pub(super) name: &'a str,
    /// Where the name stands.
    pub(super) span: Range<usize>,
    pub(super) draft: ConnDraft,
    /// Its children of its own, each with everything it inherits; without any, the connection is its only child.
    pub(super) children: Vec<(&'a str, Range<usize>, ChildDraft)>,
    /// Whether another section builds on this one.
    pub(super) is_base: bool,
}

/// Resolves every connection; `%default` is checked and left out.
pub(super) fn resolve<'a>(sections: &'a [Section<'a>], report: &mut Report) -> Vec<Resolved<'a>> {
    let mut resolver =
        Resolver { by_name: sections.iter().map(|section| (section.name, section)).collect(), bases: BTreeSet::new() };
    let mut resolved = Vec::new();
    for section in sections {
        let mut draft = ConnDraft::default();
        if section.name != DEFAULT {
            check_name(section, report);
            resolver.inherit(DEFAULT, &mut draft, &mut Vec::new(), report);
        }
        resolver.inherit(section.name, &mut draft, &mut Vec::new(), report);
        let children = children(section, &draft.child, report);
        if section.name != DEFAULT {
            resolved.push(Resolved { name: section.name, span: section.span.clone(), draft, children, is_base: false });
        }
    }
    for conn in &mut resolved {
        conn.is_base = resolver.bases.contains(conn.name);
    }
    resolved
}

impl Resolved<'_> {
    /// Whether anything of it is to be loaded.
    pub(super) fn is_loaded(&self) -> bool {
        let loads = |draft: &ChildDraft| matches!(&draft.auto, Some(auto) if auto.value != Auto::Ignore);
        if self.children.is_empty() {
            loads(&self.draft.child)
        } else {
            self.children.iter().any(|(_, _, draft)| loads(draft))
        }
    }
}

struct Resolver<'a> {
    by_name: BTreeMap<&'a str, &'a Section<'a>>,
    /// The sections that `also` names.
    bases: BTreeSet<&'a str>,
}

impl<'a> Resolver<'a> {
    /// Puts what the section `name` inherits and then what it says itself into `draft`. `path` are the sections on the way
    /// here.
    fn inherit(&mut self, name: &str, draft: &mut ConnDraft, path: &mut Vec<&'a str>, report: &mut Report) {
        let Some(&section) = self.by_name.get(name) else { return };
        path.push(section.name);
        for entry in section.entries.iter().filter(|entry| entry.name == ALSO) {
            for base in also(section, entry, report) {
                if let Some(known) = self.base(section, &base, path, report) {
                    self.inherit(known, draft, path, report);
                }
            }
        }
        path.pop();
        apply(section, draft, report);
    }

    /// The section that `base` names, if it can be inherited here.
    fn base(
        &mut self,
        section: &Section<'_>,
        base: &Text<'_>,
        path: &[&'a str],
        report: &mut Report,
    ) -> Option<&'a str> {
        if base.as_str() == DEFAULT {
            let complaint =
                base.complain("`%default` is inherited anyway").expected("expected the name of another conn");
            report.add(section.source.error(complaint));
            return None;
        }
        let Some((&known, _)) = self.by_name.get_key_value(base.as_str()) else {
            let names = self.by_name.keys().copied().filter(|name| *name != DEFAULT && *name != section.name);
            let complaint =
                base.complain(format!("there is no conn `{}`", base.as_str())).nearest(base.as_str(), names);
            report.add(section.source.error(complaint));
            return None;
        };
        if let Some(start) = path.iter().position(|name| *name == known) {
            let circle = path.get(start..).unwrap_or_default().join(" -> ");
            let complaint = base.complain(format!("`also` goes in a circle: {circle} -> {known}"));
            report.add(section.source.error(complaint));
            return None;
        }
        self.bases.insert(known);
        Some(known)
    }
}

/// The names that `also` gives.
fn also<'a>(section: &Section<'a>, entry: &Entry<'a>, report: &mut Report) -> Vec<Text<'a>> {
    section.item(entry).texts("the name of a conn").unwrap_or_else(|complaints| {
        for complaint in complaints.0 {
            report.add(section.source.error(complaint));
        }
        Vec::new()
    })
}

/// Puts what a section says itself into `draft`.
fn apply(section: &Section<'_>, draft: &mut ConnDraft, report: &mut Report) {
    draft.spans.extend(section.spans(CONN_KEYS).chain(section.spans(AUTH_KEYS)));
    draft.child.spans.extend(section.spans(CHILD_KEYS));
    section.apply(CONN_KEYS, draft, report);
    section.apply(AUTH_KEYS, draft, report);
    section.apply(SHAPE_KEYS, &mut draft.child.shape, report);
    for entry in section.apply(CHILD_KEYS, &mut draft.child, report) {
        let is_table = matches!(entry.value.get_ref(), DeValue::Table(_));
        let is_known = is_of_conn(entry.name) || Key::find(SHAPE_KEYS, entry.name).is_some();
        if is_known || entry.name == ALSO || entry.name == CHILD && is_table {
            continue;
        }
        let all = names(CONN_KEYS).chain(names(AUTH_KEYS)).chain(names_of_child()).chain([ALSO, CHILD]);
        let elsewhere = super::place_of(entry.name).filter(|place| !place.starts_with("[conn"));
        let mut complaint = unknown_key(entry, "[conn.NAME]", FOREIGN_KEYS, all, elsewhere);
        if entry.name == CHILD {
            complaint = Complaint::new(entry.span.clone(), "`child` holds tables")
                .expected("expected [conn.NAME.child.CHILD] tables");
        }
        report.add(section.source.error(complaint));
    }
}

/// Whether a child has a key of this name; it may stand in its connection, too.
pub(super) fn is_of_child(name: &str) -> bool {
    Key::find(CHILD_KEYS, name).is_some() || Key::find(SHAPE_KEYS, name).is_some()
}

fn names_of_child() -> impl Iterator<Item = &'static str> {
    names(CHILD_KEYS).chain(names(SHAPE_KEYS))
}

/// Whether only a connection has a key of this name.
pub(super) fn is_of_conn(name: &str) -> bool {
    Key::find(CONN_KEYS, name).is_some() || Key::find(AUTH_KEYS, name).is_some()
}

/// The children that the section has in tables of their own.
fn children<'a>(
    section: &Section<'a>,
    inherited: &ChildDraft,
    report: &mut Report,
) -> Vec<(&'a str, Range<usize>, ChildDraft)> {
    let Some(entry) = section.entries.iter().find(|entry| entry.name == CHILD) else { return Vec::new() };
    let DeValue::Table(table) = entry.value.get_ref() else { return Vec::new() };
    if section.name == DEFAULT {
        let complaint = Complaint::new(entry.span.clone(), "`%default` has no children of its own")
            .expected("expected the keys of children, which all conns inherit");
        report.add(section.source.error(complaint));
        return Vec::new();
    }
    let tables = Section::new(section.source, entry.name, entry.span.clone(), table);
    let mut children = Vec::new();
    for child in tables.tables("[conn.NAME.child.CHILD]", report) {
        check_name(&child, report);
        let mut draft = inherited.clone();
        draft.spans.extend(child.spans(CHILD_KEYS));
        child.apply(SHAPE_KEYS, &mut draft.shape, report);
        let unknown = child.apply(CHILD_KEYS, &mut draft, report);
        for entry in unknown.into_iter().filter(|entry| Key::find(SHAPE_KEYS, entry.name).is_none()) {
            let of_conn = is_of_conn(entry.name).then_some("the connection, not of a child");
            let elsewhere = of_conn.or_else(|| super::place_of(entry.name));
            let complaint = unknown_key(entry, "[conn.NAME.child.CHILD]", FOREIGN_KEYS, names_of_child(), elsewhere);
            report.add(section.source.error(complaint));
        }
        children.push((child.name, child.span, draft));
    }
    children
}

/// Names of connections and children are typed in commands, so they are plain.
fn check_name(section: &Section<'_>, report: &mut Report) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=64).contains(&section.name.len()) && section.name.chars().all(plain) && !section.name.starts_with('-') {
        return;
    }
    let complaint = Complaint::new(section.span.clone(), format!("`{}` is no name", section.name));
    let complaint = match nearest(section.name, [DEFAULT]) {
        Some(default) if section.name.starts_with('%') => complaint.nearest(section.name, [default]),
        _ => complaint.expected("expected up to 64 letters, digits, `.`, `_` and `-`"),
    };
    report.add(section.source.error(complaint));
}
