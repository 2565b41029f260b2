//! One value of a configuration file: its type, the pieces of its text, and where they stand.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::source::{Complaint, Source};
use super::values::{self, ValueError};

/// A value and the file it stands in.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    source: &'a Source,
    value: &'a Spanned<DeValue<'a>>,
}

/// Text of a value, or a piece of it, that knows where it stands.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    text: &'a str,
    span: Range<usize>,
    /// Whether octets of `text` and of the file are the same, so that a place inside can be shown.
    exact: bool,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// Everything that is wrong with one value.
#[derive(Debug)]
pub(super) struct Complaints(pub(super) Vec<Complaint>);

impl From<Complaint> for Complaints {
    fn from(complaint: Complaint) -> Self {
        Self(vec![complaint])
    }
}

impl<'a> Item<'a> {
    pub(super) fn new(source: &'a Source, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { source, value }
    }

    /// Where the value stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// `value` with the place of this item.
    pub(super) fn at<T>(&self, value: T) -> At<T> {
        At { value, span: self.span() }
    }

    /// That the value is not of the type that was wanted.
    pub(super) fn wrong_type(&self, wanted: impl fmt::Display) -> Complaint {
        let got = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        Complaint::new(self.span(), format!("this is {got}")).expected(format!("expected {wanted}"))
    }

    /// A string; `wanted` says what it is to hold.
    pub(super) fn text(&self, wanted: &str) -> Result<Text<'a>, Complaint> {
        let DeValue::String(text) = self.value.get_ref() else { return Err(self.wrong_type(wanted)) };
        let written = self.source.slice(self.span());
        let quote = [r#"""""#, "'''", "\"", "'"].into_iter().find(|quote| written.starts_with(quote)).unwrap_or("");
        // TOML: a newline right after three quotation marks is not part of the string.
        let newline = match written.get(quote.len()..) {
            Some(inner) if quote.len() == 3 && inner.starts_with('\n') => 1,
            Some(inner) if quote.len() == 3 && inner.starts_with("\r\n") => 2,
            _ => 0,
        };
        let inner = self.span().start + quote.len() + newline..self.span().end.saturating_sub(quote.len());
        let exact = self.source.slice(inner.clone()) == text.as_ref();
        Ok(Text { text, span: if exact { inner } else { self.span() }, exact })
    }

    /// One string or a list of strings, each possibly several separated by commas.
    pub(super) fn texts(&self, wanted: &str) -> Result<Vec<Text<'a>>, Complaints> {
        self.strings(wanted)
            .map(|strings| strings.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty()).collect())
    }

    /// One string or a list of strings.
    pub(super) fn strings(&self, wanted: &str) -> Result<Vec<Text<'a>>, Complaints> {
        let DeValue::Array(items) = self.value.get_ref() else {
            return Ok(vec![self.text(&format!("{wanted}, or a list of them"))?]);
        };
        collect(items.iter().map(|value| Item { source: self.source, value }.text(wanted)))
    }

    /// The keys of a table, in the order of the file, each with its value.
    pub(super) fn pairs(&self, wanted: &str) -> Result<Vec<(At<&'a str>, Item<'a>)>, Complaint> {
        let DeValue::Table(table) = self.value.get_ref() else { return Err(self.wrong_type(wanted)) };
        let pair = |(key, value): (&'a Spanned<_>, _)| {
            let key: &'a Spanned<std::borrow::Cow<'a, str>> = key;
            (At { value: key.get_ref().as_ref(), span: key.span() }, Item { source: self.source, value })
        };
        let mut pairs: Vec<_> = table.iter().map(pair).collect();
        pairs.sort_by_key(|(key, _)| key.span.start);
        Ok(pairs)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Complaint> {
        if let DeValue::Boolean(value) = self.value.get_ref() {
            return Ok(*value);
        }
        let meant = self.value.get_ref().as_str().and_then(|text| match text {
            "yes" | "true" => Some(", here `true`"),
            "no" | "false" => Some(", here `false`"),
            _ => None,
        });
        Err(self.wrong_type(format!("`true` or `false` without quotes{}", meant.unwrap_or_default())))
    }

    /// A whole number in `range`.
    pub(super) fn integer(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, Complaint> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = self.value.get_ref() else { return Err(self.wrong_type(wanted)) };
        u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| range.contains(number)).ok_or_else(
            || {
                Complaint::new(self.span(), format!("{} is out of range", number.as_str()))
                    .expected(format!("expected {wanted}"))
            },
        )
    }

    /// A number, with a fraction or without.
    pub(super) fn float(&self, range: std::ops::RangeInclusive<f64>) -> Result<f64, Complaint> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        let value = self.value.get_ref();
        let decimal = value.as_integer().filter(|number| number.radix() == 10).map(|number| number.as_str());
        let Some(written) = decimal.or_else(|| value.as_float().map(|number| number.as_str())) else {
            return Err(self.wrong_type(wanted));
        };
        written.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            Complaint::new(self.span(), format!("{written} is out of range")).expected(format!("expected {wanted}"))
        })
    }

    /// A length of time such as `"1h30m"`.
    pub(super) fn duration(&self) -> Result<At<Duration>, Complaint> {
        const WANTED: &str = "a length of time with its unit, such as \"30s\" (ms, s, m, h, d)";
        if let DeValue::Integer(number) = self.value.get_ref() {
            return Err(Complaint::new(self.span(), "a length of time needs its unit")
                .expected(format!("expected \"{}s\" if seconds are meant (ms, s, m, h, d)", number.as_str())));
        }
        let text = self.text(WANTED)?;
        let duration = values::duration(text.as_str()).ok_or_else(|| {
            text.complain(format!("`{}` is no length of time", text.as_str())).expected(format!("expected {WANTED}"))
        })?;
        Ok(self.at(duration))
    }

    /// An amount of data such as `"10GiB"`, in octets.
    pub(super) fn bytes(&self) -> Result<At<u64>, Complaint> {
        const WANTED: &str =
            "an amount of data with its unit, such as \"10GiB\" (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)";
        if let DeValue::Integer(number) = self.value.get_ref() {
            return Err(Complaint::new(self.span(), "an amount of data needs its unit").expected(format!(
                "expected \"{}B\" if octets are meant (B, kB, MB, GB, KiB, MiB, GiB ...)",
                number.as_str()
            )));
        }
        let text = self.text(WANTED)?;
        let bytes = values::bytes(text.as_str()).ok_or_else(|| {
            text.complain(format!("`{}` is no amount of data", text.as_str())).expected(format!("expected {WANTED}"))
        })?;
        Ok(self.at(bytes))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Complaint> {
        let list = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let wanted = if words.len() == 1 { list } else { format!("one of {list}") };
        let text = self.text(&wanted)?;
        words.iter().find(|(word, _)| *word == text.as_str()).map(|(_, value)| *value).ok_or_else(|| {
            text.complain(format!("`{}` is not known here", text.as_str()))
                .expected(format!("expected {wanted}"))
                .nearest(text.as_str(), words.iter().map(|(word, _)| *word))
        })
    }
}

impl<'a> Text<'a> {
    /// The text.
    pub(super) fn as_str(&self) -> &'a str {
        self.text
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Where it stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// That `message` is the matter with it.
    pub(super) fn complain(&self, message: impl Into<String>) -> Complaint {
        Complaint::new(self.span(), message)
    }

    /// What `parse` makes of it; an error keeps its place.
    pub(super) fn read<T>(&self, parse: fn(&str) -> Result<T, ValueError>) -> Result<T, Complaint> {
        parse(self.text).map_err(|error| self.part(error.at).complain(error.message).expected(error.expected))
    }

    /// The octets `range` of it, with their place if that is known.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let text = self.text.get(range.clone()).unwrap_or_default();
        let span = if self.exact { self.span.start + range.start..self.span.start + range.end } else { self.span() };
        Self { text, span, exact: self.exact }
    }

    /// The pieces between `separator`s, without white space around.
    pub(super) fn split(&self, separator: char) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for piece in self.text.split(separator) {
            let lead = piece.len() - piece.trim_start().len();
            let from = start + lead;
            pieces.push(self.part(from..from + piece.trim().len()));
            start += piece.len() + separator.len_utf8();
        }
        pieces
    }
}

/// All values, or everything that is wrong with them.
pub(super) fn collect<T>(results: impl IntoIterator<Item = Result<T, Complaint>>) -> Result<Vec<T>, Complaints> {
    let (mut values, mut complaints) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(complaint) => complaints.push(complaint),
        }
    }
    if complaints.is_empty() { Ok(values) } else { Err(Complaints(complaints)) }
}
