//! Dates as people write them.

use der::DateTime;
use pki::time::UnixTime;

/// Reads `2026-11-20`, `2026-11-20 06:00[:00]` and strongSwan's `20.11.26 06:00:00`, all in UTC.
pub(crate) fn parse(text: &str) -> Result<UnixTime, String> {
    let wrong = || format!("`{text}` is no date; write 2026-11-20 06:00:00 or 20.11.26 06:00:00 (UTC)");
    let text = text.trim().trim_end_matches("UTC").trim_end_matches('Z').trim();
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
    let (year, month, day) = if date.contains('.') {
        let [day, month, year] = numbers(date, '.').ok_or_else(wrong)?;
        // strptime's %y: 69 to 99 are of the last century.
        let century = if year >= 69 { 1900 } else { 2000 };
        (if year < 100 { century + year } else { year }, month, day)
    } else {
        let [year, month, day] = numbers(date, '-').ok_or_else(wrong)?;
        (year, month, day)
    };
    let [hour, minute, second] =
        numbers(time, ':').or_else(|| numbers(time, ':').map(|[h, m]| [h, m, 0])).ok_or_else(wrong)?;
    let small = |number: u16| u8::try_from(number).map_err(|_| wrong());
    let at = DateTime::new(year, small(month)?, small(day)?, small(hour)?, small(minute)?, small(second)?);
    Ok(UnixTime(at.map_err(|_| wrong())?.unix_duration().as_secs()))
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[u16; N]> {
    let all: Option<Vec<u16>> = text.split(separator).map(|number| number.trim().parse().ok()).collect();
    all?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_in_several_ways() {
        let at = UnixTime(1_795_154_400);
        for text in [
            "2026-11-20 06:00:00",
            "2026-11-20 06:00",
            "2026-11-20T06:00:00Z",
            "20.11.26 06:00:00",
            "20.11.2026 06:00:00 UTC",
        ] {
            assert_eq!(parse(text), Ok(at), "{text}");
        }
        assert_eq!(parse("2026-11-20"), Ok(UnixTime(at.0 - 6 * 3600)));
        for text in ["", "tomorrow", "2026-13-01", "2026-02-30", "2026-11-20 25:00:00", "1.2", "300.1.2026"] {
            assert!(parse(text).unwrap_err().contains("is no date"), "{text}");
        }
    }
}
