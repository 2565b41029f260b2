//! Points in time; a core has no clock, so they come from outside.

use std::fmt;
use std::time::{Duration, SystemTime};

use x509_cert::der::DateTime;
use x509_cert::time::Time;

/// Seconds since 1970-01-01 00:00:00 UTC. Certificates know no finer time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// 9999-12-31 23:59:59, "no well-defined expiration date" (RFC 5280 §4.1.2.5).
    pub const NEVER: Self = Self(253_402_300_799);

    /// So many days later, but not after [`Self::NEVER`].
    #[must_use]
    pub fn plus_days(self, days: u32) -> Self {
        self.plus(Duration::from_secs(u64::from(days) * SECONDS_PER_DAY))
    }

    /// So much later, but not after [`Self::NEVER`].
    #[must_use]
    pub fn plus(self, more: Duration) -> Self {
        Self(self.0.saturating_add(more.as_secs())).min(Self::NEVER)
    }

    /// Whole days from `earlier` until now, 0 when `earlier` is later.
    #[must_use]
    pub fn days_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / SECONDS_PER_DAY
    }

    pub(crate) fn to_date_time(self) -> DateTime {
        DateTime::from_unix_duration(Duration::from_secs(self.min(Self::NEVER).0)).unwrap_or(DateTime::INFINITY)
    }

    /// As certificates and CRLs write it: `UTCTime` until 2049, `GeneralizedTime` after (RFC 5280 §4.1.2.5).
    pub(crate) fn to_x509(self) -> Time {
        Time::from(self.to_date_time())
    }
}

impl From<Time> for UnixTime {
    fn from(time: Time) -> Self {
        Self(time.to_unix_duration().as_secs())
    }
}

impl From<SystemTime> for UnixTime {
    /// Times before 1970 become 1970.
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl fmt::Display for UnixTime {
    /// `2026-11-20 06:00:49 UTC`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.to_date_time();
        write!(
            f,
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minutes(),
            at.seconds()
        )
    }
}

const SECONDS_PER_DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(UnixTime(0).to_string(), "1970-01-01 00:00:00 UTC");
        assert_eq!(UnixTime(1_795_154_449).to_string(), "2026-11-20 06:00:49 UTC");
        assert_eq!(UnixTime(u64::MAX).to_string(), "9999-12-31 23:59:59 UTC");
    }

    #[test]
    fn years_from_2050_are_written_as_generalized_time() {
        let last = UnixTime(2_524_607_999);
        assert!(matches!(last.to_x509(), Time::UtcTime(_)));
        assert!(matches!(UnixTime(last.0 + 1).to_x509(), Time::GeneralTime(_)));
        assert_eq!(UnixTime::from(last.to_x509()), last);
    }

    #[test]
    fn nothing_is_later_than_never() {
        assert_eq!(UnixTime(1).plus_days(u32::MAX), UnixTime::NEVER);
        assert_eq!(UnixTime(5).plus_days(1), UnixTime(86_405));
        assert_eq!(UnixTime(86_404).days_since(UnixTime(5)), 0);
        assert_eq!(UnixTime(5).days_since(UnixTime(86_405)), 0);
    }
}
