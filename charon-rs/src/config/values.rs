//! Values that are written as text, for every front end of the configuration.

pub mod address;
pub mod identity;
pub mod pool;
pub mod selector;

use std::ops::Range;
use std::time::Duration;

/// Why a text is no value of the kind that was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {expected}")]
pub struct ValueError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: String,
    /// The octets of the text that are meant.
    pub at: Range<usize>,
}

impl ValueError {
    /// That `message` is the matter with the whole of `text`.
    pub(super) fn whole(text: &str, message: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { message: message.into(), expected: expected.into(), at: 0..text.len() }
    }
}

/// Reads a length of time: numbers with units (ms, s, m, h, d), the sum of which is meant, such as `1h30m`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut milliseconds = 0u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, unit, tail) = number_and_unit(rest)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        milliseconds = milliseconds.checked_add(number.checked_mul(factor)?)?;
        rest = tail.trim_start();
    }
    Some(Duration::from_millis(milliseconds))
}

/// Reads an amount of data, a number with its unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), in octets.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit, rest) = number_and_unit(text.trim())?;
    let factor = match unit {
        "B" => 1,
        "kB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "TB" => 1000 * 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    rest.is_empty().then_some(number.checked_mul(factor)?)
}

/// Cuts `10GiB rest` into 10, `GiB` and ` rest`.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_sums_of_numbers_with_units() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration(" 1 d 500ms "), Some(Duration::from_millis(86_400_500)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for wrong in ["", "3", "h", "3 hours", "-3s", "1.5h", "3h 5", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn amounts_are_one_number_with_its_unit() {
        assert_eq!(bytes("10GiB"), Some(10 << 30));
        assert_eq!(bytes("5 MB"), Some(5_000_000));
        assert_eq!(bytes("1B"), Some(1));
        for wrong in ["", "10", "10gib", "10GiB5B", "-1B", "1.5GiB", "99999999999TiB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
