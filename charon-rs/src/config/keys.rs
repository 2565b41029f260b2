//! Keys and tables: what is known, who reads it, and what is said about everything else.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::item::{Complaints, Item};
use super::problem::Report;
use super::source::{Complaint, Source};

/// A key of a kind of table. The table of them is what reads a file, what suggests names, and what the reference is made of.
pub(super) struct Key<D: 'static> {
    pub(super) name: &'static str,
    /// Other names for it.
    pub(super) also_called: &'static [&'static str],
    /// What it takes, for people.
    pub(super) takes: &'static str,
    /// Its default as TOML (starts with a quotation mark, a digit, `true` or `false`), or what happens without it.
    pub(super) default: &'static str,
    /// What it means, in Markdown.
    pub(super) doc: &'static str,
    /// Puts the value into the draft.
    pub(super) set: fn(&mut D, Item<'_>) -> Result<(), Complaints>,
}

/// A key of ipsec.conf that is not one here, and why.
pub(super) struct Foreign {
    pub(super) name: &'static str,
    pub(super) advice: &'static str,
}

/// A table of a file.
pub(super) struct Section<'a> {
    pub(super) source: &'a Source,
    /// What it is called after its kind; empty for a table that exists once.
    pub(super) name: &'a str,
    /// Where the name stands first.
    pub(super) span: Range<usize>,
    /// The keys and their values in the order of the file.
    pub(super) entries: Vec<Entry<'a>>,
}

/// A key with its value.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) span: Range<usize>,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl<D> Key<D> {
    /// The key called `name` in `keys`.
    pub(super) fn find<'k>(keys: &'k [Self], name: &str) -> Option<&'k Self> {
        keys.iter().find(|key| key.name == name || key.also_called.contains(&name))
    }
}

impl<'a> Section<'a> {
    pub(super) fn new(source: &'a Source, name: &'a str, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        let mut entries: Vec<Entry<'a>> =
            table.iter().map(|(name, value)| Entry { name: name.get_ref(), span: name.span(), value }).collect();
        entries.sort_by_key(|entry| entry.span.start);
        Self { source, name, span, entries }
    }

    /// The value of an entry as an item of this file.
    pub(super) fn item(&self, entry: &Entry<'a>) -> Item<'a> {
        Item::new(self.source, entry.value)
    }

    /// The tables in this one, each with its name; what is no table goes to `report`.
    pub(super) fn tables(&self, form: &str, report: &mut Report) -> Vec<Section<'a>> {
        let mut tables = Vec::new();
        for entry in &self.entries {
            if let DeValue::Table(table) = entry.value.get_ref() {
                tables.push(Section::new(self.source, entry.name, entry.span.clone(), table));
            } else {
                let complaint = Complaint::new(entry.span.clone(), "this is not a table");
                report.add(self.source.error(complaint.expected(format!("expected {form}"))));
            }
        }
        tables
    }

    /// Where those of `keys` stand that are given.
    pub(super) fn spans<D>(&self, keys: &'static [Key<D>]) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        self.entries.iter().filter_map(|entry| Some((Key::find(keys, entry.name)?.name, entry.span.clone())))
    }

    /// Gives each entry to the key that knows it. Entries that no key knows are returned.
    pub(super) fn apply<D>(&self, keys: &[Key<D>], draft: &mut D, report: &mut Report) -> Vec<&Entry<'a>> {
        let mut seen = BTreeMap::new();
        let mut unknown = Vec::new();
        for entry in &self.entries {
            let Some(key) = Key::find(keys, entry.name) else {
                unknown.push(entry);
                continue;
            };
            if let Some(first) = seen.insert(key.name, entry.name) {
                let message = format!("`{}` is another name of `{first}`, which is given as well", entry.name);
                report.add(self.source.error(Complaint::new(entry.span.clone(), message)));
                continue;
            }
            if let Err(Complaints(complaints)) = (key.set)(draft, self.item(entry)) {
                for complaint in complaints {
                    report.add(self.source.error(complaint));
                }
            }
        }
        unknown
    }
}

/// That a key is not known: with the reason if it is one of ipsec.conf, with its right place if it belongs elsewhere, with
/// the nearest of `names` otherwise.
pub(super) fn unknown_key<'n>(
    entry: &Entry<'_>,
    place: &str,
    foreign: &[Foreign],
    names: impl IntoIterator<Item = &'n str>,
    elsewhere: Option<&str>,
) -> Complaint {
    if let Some(foreign) = foreign.iter().find(|foreign| foreign.name == entry.name) {
        let message = format!("`{}` of ipsec.conf is not a key here", entry.name);
        return Complaint::new(entry.span.clone(), message).expected(foreign.advice);
    }
    let complaint = Complaint::new(entry.span.clone(), format!("unknown key `{}`", entry.name));
    match elsewhere {
        Some(elsewhere) => complaint.expected(format!("it is a key of {elsewhere}")),
        None => complaint.expected(format!("expected a key of {place}")).nearest(entry.name, names),
    }
}

/// Every name of `keys`.
pub(super) fn names<D>(keys: &'static [Key<D>]) -> impl Iterator<Item = &'static str> {
    keys.iter().flat_map(|key| std::iter::once(key.name).chain(key.also_called.iter().copied()))
}
