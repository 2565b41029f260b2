//! Keys of sections: what is known, who reads it, and what is said about everything else.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config::nearest;
use crate::vici::{Message, Node};

/// A key of a kind of section. The table of them is what reads a section, what suggests names, what the reference is made of, and
/// what translates a file.
pub(crate) struct Key<D: 'static> {
    pub(crate) name: &'static str,
    /// What it takes, for people.
    pub(crate) takes: &'static str,
    /// What holds without it.
    pub(crate) default: &'static str,
    /// What becomes of it in `ipsec.toml`.
    pub(crate) toml: Toml,
    /// Puts the value into the draft.
    pub(crate) set: fn(&mut D, Value<'_>) -> Result<(), String>,
}

/// What becomes of a key in `ipsec.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toml {
    /// The key of this name has the same text.
    Text(&'static str),
    /// The key of this name has the same items.
    List(&'static str),
    /// The key of this name is `true` or `false`.
    Switch(&'static str),
    /// The key of this name has the same number.
    Number(&'static str),
    /// It goes into what several keys together say.
    Together,
    /// It says what holds anyway.
    Nothing,
}

/// A key that strongSwan knows and this daemon does not, and why.
pub(crate) struct Foreign {
    pub(crate) name: &'static str,
    pub(crate) advice: &'static str,
}

/// A value that is refused, or a key that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The sections it stands in below that of the connection or CA, as `children.net`, and the key.
    pub(crate) path: Vec<String>,
    /// What is wrong, as strongSwan says it.
    pub(crate) why: String,
}

impl Refusal {
    /// That something is wrong with a whole section.
    pub(crate) fn of_section(why: impl Into<String>) -> Self {
        Self { path: Vec::new(), why: why.into() }
    }

    /// The same in the section `name` of another one.
    #[must_use]
    pub(crate) fn within(mut self, name: &str) -> Self {
        self.path.insert(0, name.to_owned());
        self
    }
}

/// The section is named if there may be several: `child 'net': unknown option: nonsense`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_slice() {
            [children, child, ..] if children == "children" => write!(f, "child '{child}': {}", self.why),
            [round, _key] => write!(f, "section '{round}': {}", self.why),
            _ => f.write_str(&self.why),
        }
    }
}

impl<D> Key<D> {
    /// The key called `name` in `keys`.
    pub(crate) fn find<'k>(keys: &'k [Self], name: &str) -> Option<&'k Self> {
        keys.iter().find(|key| key.name == name)
    }
}

/// Gives each key of `section` to the one that knows it; those for which `is_taken` says so are somebody else's.
///
/// # Errors
/// The first that nobody knows, or whose value is refused.
pub(crate) fn apply<D>(
    section: &Message,
    keys: &'static [Key<D>],
    foreign: &[Foreign],
    is_taken: impl Fn(&str) -> bool,
    draft: &mut D,
) -> Result<(), Refusal> {
    for (name, node) in section.entries().filter(|(name, _)| !is_taken(name)) {
        let refuse = |why| Refusal { path: vec![name.to_owned()], why };
        match Key::find(keys, name) {
            Some(key) => (key.set)(draft, Value { name, node }).map_err(refuse)?,
            None => return Err(refuse(unknown(name, keys, foreign))),
        }
    }
    Ok(())
}

/// As [`apply`], but goes on after what is refused.
pub(crate) fn apply_all<D>(
    section: &Message,
    keys: &'static [Key<D>],
    foreign: &[Foreign],
    is_taken: impl Fn(&str) -> bool,
    draft: &mut D,
) -> Vec<Refusal> {
    let mut refused = Vec::new();
    for (name, node) in section.entries().filter(|(name, _)| !is_taken(name)) {
        let outcome = match Key::find(keys, name) {
            Some(key) => (key.set)(draft, Value { name, node }),
            None => Err(unknown(name, keys, foreign)),
        };
        refused.extend(outcome.err().map(|why| Refusal { path: vec![name.to_owned()], why }));
    }
    refused
}

fn unknown<D>(name: &str, keys: &[Key<D>], foreign: &[Foreign]) -> String {
    if let Some(known) = foreign.iter().find(|key| key.name == name) {
        return format!("option {name} is not supported: {}", known.advice);
    }
    match nearest(name, keys.iter().map(|key| key.name)) {
        Some(nearest) => format!("unknown option: {name} (did you mean {nearest}?)"),
        None => format!("unknown option: {name}"),
    }
}

impl<'a> Value<'a> {
    /// The value of the key `name`, if the section has it.
    pub(crate) fn of(section: &'a Message, name: &'a str) -> Option<Self> {
        section.node(name).map(|node| Self { name, node })
    }
}

/// The value of a key.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    name: &'a str,
    node: &'a Node,
}

impl<'a> Value<'a> {
    /// The value as text.
    ///
    /// # Errors
    /// When it is a list or a section, or no text.
    pub(crate) fn text(self) -> Result<&'a str, String> {
        match self.node {
            Node::Value(octets) => std::str::from_utf8(octets).map_err(|_| self.wrong("it is no text")),
            Node::List(_) | Node::Section(_) => Err(self.wrong("one value is expected")),
        }
    }

    /// The value read by `read`.
    ///
    /// # Errors
    /// When `read` refuses it.
    pub(crate) fn read<T, E: fmt::Display>(self, read: impl FnOnce(&str) -> Result<T, E>) -> Result<T, String> {
        read(self.text()?).map_err(|error| self.wrong(error))
    }

    /// A number or whatever else reads itself from text.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn number<T: FromStr>(self) -> Result<T, String> {
        self.read(|text| text.parse().map_err(|_| format!("`{text}` is no such number")))
    }

    /// A list, or a single value with commas; every item read by `read`.
    ///
    /// # Errors
    /// When `read` refuses one.
    pub(crate) fn list<T, E: fmt::Display>(self, read: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, String> {
        let items = self.items()?;
        items.iter().map(|item| read(item).map_err(|error| self.wrong(error))).collect()
    }

    /// The items of a list, or of a single value with commas.
    ///
    /// # Errors
    /// When it is a section, or no text.
    pub(crate) fn items(self) -> Result<Vec<String>, String> {
        let split = |octets: &[u8]| -> Result<Vec<String>, String> {
            let text = std::str::from_utf8(octets).map_err(|_| self.wrong("it is no text"))?;
            Ok(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
        };
        match self.node {
            Node::Value(octets) => split(octets),
            Node::List(items) => {
                let text = |item: &Vec<u8>| String::from_utf8(item.clone()).map_err(|_| self.wrong("it is no text"));
                items.iter().map(text).collect()
            }
            Node::Section(_) => Err(self.wrong("a list is expected")),
        }
    }

    /// The octets of a list, or of a single value.
    ///
    /// # Errors
    /// When it is a section.
    pub(crate) fn octets(self) -> Result<Vec<Vec<u8>>, String> {
        match self.node {
            Node::Value(octets) => Ok(vec![octets.clone()]),
            Node::List(items) => Ok(items.clone()),
            Node::Section(_) => Err(self.wrong("a list is expected")),
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// When it is neither.
    pub(crate) fn switch(self) -> Result<bool, String> {
        self.read(|text| match text {
            "yes" | "true" | "enabled" | "1" => Ok(true),
            "no" | "false" | "disabled" | "0" => Ok(false),
            _ => Err("expected yes or no"),
        })
    }

    /// A length of time: seconds, or a number with `s`, `m`, `h` or `d`.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn time(self) -> Result<Duration, String> {
        self.read(|text| {
            let seconds = text.parse().ok().map(Duration::from_secs);
            seconds.or_else(|| crate::config::values::duration(text)).ok_or("expected a length of time")
        })
    }

    /// One of a few words.
    ///
    /// # Errors
    /// When it is none of them.
    pub(crate) fn choice<T: Copy>(self, words: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?;
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(format!("`{text}` is not supported, expected {}", words.join(", ")))
        })
    }

    /// Accepts a value that is one of those that change nothing here.
    ///
    /// # Errors
    /// When it is another one.
    pub(crate) fn only(self, harmless: &[&str]) -> Result<(), String> {
        let text = self.text()?;
        if harmless.contains(&text) { Ok(()) } else { Err(format!("{} = {text} is not supported", self.name)) }
    }

    /// As [`Self::only`], and says what does the same here.
    ///
    /// # Errors
    /// When it is another one.
    pub(crate) fn only_or(self, harmless: &[&str], advice: &str) -> Result<(), String> {
        self.only(harmless).map_err(|error| format!("{error}: {advice}"))
    }

    fn wrong(self, why: impl fmt::Display) -> String {
        format!("invalid value for: {}: {why}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Draft {
        names: Vec<String>,
    }

    const KEYS: &[Key<Draft>] = &[Key {
        name: "names",
        takes: "names",
        default: "none",
        toml: Toml::Nothing,
        set: |draft, value| {
            draft.names = value.items()?;
            Ok(())
        },
    }];

    fn refusal(name: &str) -> String {
        let foreign = [Foreign { name: "marks", advice: "there are none" }];
        apply(&Message::new().with(name, "x"), KEYS, &foreign, |name| name == "skipped", &mut Draft::default())
            .map_or_else(|refusal| refusal.to_string(), |()| "taken".to_owned())
    }

    #[test]
    fn a_key_that_nobody_knows_is_named_with_the_nearest_one() {
        assert_eq!(refusal("name"), "unknown option: name (did you mean names?)");
        assert_eq!(refusal("quux"), "unknown option: quux");
        assert_eq!(refusal("marks"), "option marks is not supported: there are none");
        assert_eq!((refusal("names"), refusal("skipped")), ("taken".to_owned(), "taken".to_owned()));
    }

    #[test]
    fn a_value_with_commas_is_a_list() {
        let mut draft = Draft::default();
        apply(&Message::new().with("names", "a, b,,c"), KEYS, &[], |_| false, &mut draft).unwrap();
        assert_eq!(draft.names, ["a", "b", "c"]);
    }

    #[test]
    fn refusals_name_the_section_where_there_may_be_several() {
        let refusal = Refusal { path: vec!["local_tss".to_owned()], why: "unknown option: local_tss".to_owned() };
        let child = refusal.clone().within("net").within("children");
        assert_eq!(child.to_string(), "child 'net': unknown option: local_tss");
        assert_eq!(refusal.clone().within("local-a").to_string(), "section 'local-a': unknown option: local_tss");
        assert_eq!(refusal.to_string(), "unknown option: local_tss");
    }
}
