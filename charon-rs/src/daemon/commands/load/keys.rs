//! The keys of a section, taken out one after the other, so that what nobody took is found.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::vici::{Message, Node};

/// The keys of one section that were not taken yet.
pub(super) struct Keys<'a> {
    section: &'a Message,
    left: BTreeSet<&'a str>,
}

impl<'a> Keys<'a> {
    /// All keys and sections of `section`.
    pub(super) fn of(section: &'a Message) -> Self {
        Self { section, left: section.entries().map(|(name, _)| name).collect() }
    }

    /// A value as text.
    ///
    /// # Errors
    /// When it is a list or a section, or no text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<&'a str>, String> {
        if !self.left.remove(name) {
            return Ok(None);
        }
        self.section.text(name).map(Some).ok_or_else(|| format!("invalid value for: {name}"))
    }

    /// A value read by `read`.
    ///
    /// # Errors
    /// When `read` refuses it.
    pub(super) fn value<T, E: fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        read(text).map(Some).map_err(|error| format!("invalid value for: {name}: {error}"))
    }

    /// A number or whatever else reads itself from text.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        self.value(name, |text| text.parse().map_err(|_| format!("`{text}` is no such number")))
    }

    /// A list, or a single value with commas; every item read by `read`.
    ///
    /// # Errors
    /// When `read` refuses one.
    pub(super) fn list<T, E: fmt::Display>(
        &mut self,
        name: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<Vec<T>>, String> {
        if !self.left.remove(name) {
            return Ok(None);
        }
        let items = match self.section.node(name) {
            Some(Node::Value(_)) => {
                let text = self.section.text(name).unwrap_or_default();
                text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
            }
            Some(Node::List(_)) => self.section.list(name),
            Some(Node::Section(_)) | None => return Err(format!("invalid value for: {name}")),
        };
        let read = |item: &String| read(item).map_err(|error| format!("invalid value for: {name}: {error}"));
        items.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// The octets of a list, or of a single value.
    ///
    /// # Errors
    /// When it is a section.
    pub(super) fn octets(&mut self, name: &str) -> Result<Vec<&'a [u8]>, String> {
        if !self.left.remove(name) {
            return Ok(Vec::new());
        }
        match self.section.node(name) {
            Some(Node::Value(octets)) => Ok(vec![octets]),
            Some(Node::List(items)) => Ok(items.iter().map(Vec::as_slice).collect()),
            Some(Node::Section(_)) | None => Err(format!("invalid value for: {name}")),
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn switch(&mut self, name: &str) -> Result<Option<bool>, String> {
        self.value(name, |text| match text {
            "yes" | "true" | "enabled" | "1" => Ok(true),
            "no" | "false" | "disabled" | "0" => Ok(false),
            _ => Err("expected yes or no"),
        })
    }

    /// A length of time: seconds, or a number with `s`, `m`, `h` or `d`.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn time(&mut self, name: &str) -> Result<Option<Duration>, String> {
        self.value(name, |text| {
            let seconds = text.parse().ok().map(Duration::from_secs);
            seconds.or_else(|| crate::config::values::duration(text)).ok_or("expected a length of time")
        })
    }

    /// Takes a value that may only be one of those that change nothing here.
    ///
    /// # Errors
    /// When it is another one.
    pub(super) fn only(&mut self, name: &str, harmless: &[&str]) -> Result<(), String> {
        match self.text(name)? {
            Some(text) if !harmless.contains(&text) => Err(format!("{name} = {text} is not supported")),
            Some(_) | None => Ok(()),
        }
    }

    /// A section.
    pub(super) fn section(&mut self, name: &str) -> Option<&'a Message> {
        self.left.remove(name);
        self.section.section(name)
    }

    /// The sections whose names begin with `prefix`.
    pub(super) fn sections(&mut self, prefix: &str) -> Vec<&'a Message> {
        let found = self.section.sections().filter(|(name, _)| name.starts_with(prefix));
        found
            .map(|(name, section)| {
                self.left.remove(name);
                section
            })
            .collect()
    }

    /// Whether every key was taken.
    ///
    /// # Errors
    /// The first that was not, as strongSwan says it.
    pub(super) fn done(self) -> Result<(), String> {
        match self.left.first() {
            Some(name) => Err(format!("unknown option: {name}")),
            None => Ok(()),
        }
    }
}
