//! How things look for people.

use std::io::{self, Write};

use crate::vici::Message;

/// Seconds as the two largest units: `3h 40m`.
pub(super) fn duration(seconds: u64) -> String {
    let units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut rest = seconds;
    let parts = units.map(|(unit, size)| {
        let count = rest / size;
        rest %= size;
        (unit, count)
    });
    let shown: Vec<String> = parts
        .iter()
        .skip_while(|(_, count)| *count == 0)
        .take(2)
        .filter(|(_, count)| *count > 0)
        .map(|(unit, count)| format!("{count}{unit}"))
        .collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

/// The value of `name` in seconds as a duration, `-` when there is none.
pub(super) fn duration_of(section: &Message, name: &str) -> String {
    number(section, name).map_or_else(|| "-".to_owned(), duration)
}

/// Octets with three figures and a decimal unit.
#[expect(clippy::cast_precision_loss, reason = "three figures are shown")]
pub(super) fn octets(count: u64) -> String {
    let mut scaled = count as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if scaled < 1000.0 {
            break;
        }
        (scaled, unit) = (scaled / 1000.0, next);
    }
    match unit {
        "B" => format!("{count} B"),
        _ if scaled < 10.0 => format!("{scaled:.2} {unit}"),
        _ if scaled < 100.0 => format!("{scaled:.1} {unit}"),
        _ => format!("{scaled:.0} {unit}"),
    }
}

/// The value of `name` as a number.
pub(super) fn number(section: &Message, name: &str) -> Option<u64> {
    section.text(name)?.parse().ok()
}

/// The value of `name`, or nothing.
pub(super) fn text<'a>(section: &'a Message, name: &str) -> &'a str {
    section.text(name).unwrap_or_default()
}

/// The failure as its code and what there is to say about it, one item a line.
pub(super) fn failure(out: &mut dyn Write, indent: &str, failure: &Message) -> io::Result<()> {
    writeln!(out, "{indent}{}: {}", text(failure, "code"), text(failure, "what"))?;
    for (label, items) in [("ours", failure.list("ours")), ("theirs", failure.list("theirs"))] {
        for (index, item) in items.iter().enumerate() {
            writeln!(out, "{indent}  {:<7} {item}", if index == 0 { label } else { "" })?;
        }
    }
    if let Some(hint) = failure.text("hint") {
        writeln!(out, "{indent}  hint    {hint}")?;
    }
    Ok(())
}

/// The time of day, or date and time, of seconds since 1970 as the daemon sends them.
pub(super) fn time(unix: &str, format: &str) -> String {
    let (seconds, millis) = unix.split_once('.').unwrap_or((unix, "0"));
    let timestamp = seconds.parse().ok().zip(millis.parse::<i64>().ok()).and_then(|(seconds, millis): (i64, i64)| {
        jiff::Timestamp::from_millisecond(seconds.checked_mul(1000)?.checked_add(millis)?).ok()
    });
    timestamp
        .map_or_else(|| unix.to_owned(), |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string())
}

/// Prints rows with columns as wide as their widest cell.
pub(super) fn table(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (3661, "1h 1m"), (90000, "1d 1h"), (86405, "1d")] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn octets_show_three_figures() {
        for (count, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (987_654_321, "988 MB")]
        {
            assert_eq!(octets(count), text);
        }
    }

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let rows = [vec!["a".into(), "b".into()], vec!["long".into(), String::new()]];
        let mut out = Vec::new();
        table(&mut out, &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a     b\nlong\n");
    }
}
