//! TOML as people write it.

use std::fmt::Display;
use std::time::Duration;

/// A file while it is written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    text: String,
}

impl Writer {
    /// Begins a table; the parts of its name are quoted where they must be.
    pub(super) fn table(&mut self, parts: &[&str]) {
        let parts: Vec<String> = parts.iter().map(|part| key(part)).collect();
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&format!("[{}]\n", parts.join(".")));
    }

    /// A line with text.
    pub(super) fn string(&mut self, name: &str, value: impl Display) {
        self.raw(name, quoted(&value.to_string()));
    }

    /// A line with a list, or with text where there is one item only.
    pub(super) fn list<T: Display>(&mut self, name: &str, items: &[T]) {
        match items {
            [item] => self.string(name, item),
            items => {
                let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
                self.raw(name, format!("[{}]", items.join(", ")));
            }
        }
    }

    /// A line with a length of time.
    pub(super) fn time(&mut self, name: &str, time: Duration) {
        self.string(name, format!("{}s", time.as_secs()));
    }

    /// A line with a value that needs no quotes.
    pub(super) fn raw(&mut self, name: &str, value: impl Display) {
        self.text.push_str(&format!("{name} = {value}\n"));
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

fn key(part: &str) -> String {
    toml_edit::Key::new(part).to_string()
}
