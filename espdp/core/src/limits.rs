//! How much an SA carried, and how much it may carry.

use std::time::{Duration, Instant};

use espdp_api::SaLimits;

/// The counters of an SA against its limits. What every packet looks at stands together, in front.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Usage {
    packets: u64,
    bytes: u64,
    /// Up to here nothing has to be decided: the smallest of the limits that are still ahead.
    calm_packets: u64,
    calm_bytes: u64,
    last_used: Option<Instant>,
    limits: SaLimits,
    soft_reached: bool,
    hard_reached: bool,
}

/// What a limit says to one more packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// Counted.
    Pass,
    /// Counted; the soft limit is reached with this packet.
    PassAtSoftLimit,
    /// Not counted: the hard limit would be exceeded, for the first time.
    StopAtHardLimit,
    /// Not counted, as the ones before.
    Stop,
}

impl Usage {
    /// Octets of what every packet looks at.
    pub(crate) const HOT_OCTETS: usize = std::mem::offset_of!(Usage, limits);

    /// Nothing carried yet.
    pub(crate) fn new(limits: SaLimits) -> Self {
        let mut usage = Self {
            packets: 0,
            bytes: 0,
            last_used: None,
            calm_packets: 0,
            calm_bytes: 0,
            limits,
            soft_reached: false,
            hard_reached: false,
        };
        usage.look_ahead();
        usage
    }

    pub(crate) fn packets(&self) -> u64 {
        self.packets
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long ago the last packet was seen.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        self.last_used.map(|last_used| now.saturating_duration_since(last_used))
    }

    /// Notes that the SA is in use; whether for the first time.
    pub(crate) fn touch(&mut self, now: Instant) -> bool {
        self.last_used.replace(now).is_none()
    }

    /// Counts a packet with `bytes` inner octets, unless a hard limit forbids it (RFC 4301 §4.4.2.1, R4301-4.4.2.1-1).
    #[inline]
    pub(crate) fn charge(&mut self, bytes: usize) -> Charge {
        let packets = self.packets.saturating_add(1);
        let bytes = self.bytes.saturating_add(bytes as u64);
        if packets <= self.calm_packets && bytes <= self.calm_bytes {
            (self.packets, self.bytes) = (packets, bytes);
            return Charge::Pass;
        }
        self.decide(packets, bytes)
    }

    /// How many packets, and how many inner octets, may still come before a limit has anything to say.
    #[inline]
    pub(crate) fn calm(&self) -> (u64, u64) {
        (self.calm_packets.saturating_sub(self.packets), self.calm_bytes.saturating_sub(self.bytes))
    }

    /// Counts packets within what [`Self::calm`] said.
    #[inline]
    pub(crate) fn count_calm(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Stops the SA for another reason than its limits; whether it was still running.
    pub(crate) fn stop(&mut self) -> bool {
        let was_running = !self.hard_reached;
        self.hard_reached = true;
        self.look_ahead();
        was_running
    }

    #[cold]
    fn decide(&mut self, packets: u64, bytes: u64) -> Charge {
        let hard = self.limits.hard;
        if self.hard_reached {
            return Charge::Stop;
        }
        if packets > hard.packets.unwrap_or(u64::MAX) || bytes > hard.bytes.unwrap_or(u64::MAX) {
            self.stop();
            return Charge::StopAtHardLimit;
        }
        (self.packets, self.bytes) = (packets, bytes);
        let soft = self.limits.soft;
        let soft_now = packets >= soft.packets.unwrap_or(u64::MAX) || bytes >= soft.bytes.unwrap_or(u64::MAX);
        if soft_now && !self.soft_reached {
            self.soft_reached = true;
            self.look_ahead();
            return Charge::PassAtSoftLimit;
        }
        Charge::Pass
    }

    fn look_ahead(&mut self) {
        let calm = |soft: Option<u64>, hard: Option<u64>| {
            let soft = soft.filter(|_| !self.soft_reached).map_or(u64::MAX, |soft| soft.saturating_sub(1));
            if self.hard_reached { 0 } else { soft.min(hard.unwrap_or(u64::MAX)) }
        };
        let SaLimits { soft, hard } = self.limits;
        (self.calm_packets, self.calm_bytes) = (calm(soft.packets, hard.packets), calm(soft.bytes, hard.bytes));
    }
}

/// Lets something through at most once a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OncePerSecond(Option<Instant>);

impl OncePerSecond {
    /// Whether a second has passed since this was last answered with yes.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(1));
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// Lets so many things through at once, and as many more each second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowance {
    /// When what was taken so far will have grown back.
    whole_at: Option<Instant>,
}

impl Allowance {
    /// Enough for the flows of a busy site to learn of a narrow path, and far too little to make us a reflector.
    const MOST: u32 = 100;

    /// Whether one more may pass.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / Self::MOST;
        let whole_at = self.whole_at.unwrap_or(now).max(now);
        let allows = whole_at.saturating_duration_since(now) + each <= Duration::from_secs(1);
        if allows {
            self.whole_at = Some(whole_at + each);
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::TrafficLimit;

    use super::*;

    fn usage(soft: (Option<u64>, Option<u64>), hard: (Option<u64>, Option<u64>)) -> Usage {
        let limit = |(packets, bytes)| TrafficLimit { bytes, packets };
        Usage::new(SaLimits { soft: limit(soft), hard: limit(hard) })
    }

    #[test]
    fn the_soft_limit_is_reported_once_and_the_hard_limit_stops() {
        let mut usage = usage((Some(2), None), (Some(4), None));
        let charges: Vec<_> = (0..6).map(|_| usage.charge(10)).collect();
        assert_eq!(
            charges,
            [Charge::Pass, Charge::PassAtSoftLimit, Charge::Pass, Charge::Pass, Charge::StopAtHardLimit, Charge::Stop]
        );
        assert_eq!((usage.packets(), usage.bytes()), (4, 40));
    }

    /// R4301-4.4.2.1-1.
    #[test]
    fn bytes_and_packets_count_whichever_is_first() {
        let mut by_bytes = usage((Some(100), Some(1000)), (Some(1000), Some(2000)));
        assert_eq!(by_bytes.charge(999), Charge::Pass);
        assert_eq!(by_bytes.charge(1), Charge::PassAtSoftLimit);
        assert_eq!(by_bytes.charge(1000), Charge::Pass);
        assert_eq!(by_bytes.charge(1), Charge::StopAtHardLimit);
        assert_eq!(by_bytes.charge(0), Charge::Stop);
    }

    #[test]
    fn without_limits_everything_passes() {
        let mut usage = usage((None, None), (None, None));
        assert!((0..1000).all(|_| usage.charge(65535) == Charge::Pass));
        assert!(usage.stop());
        assert_eq!(usage.charge(1), Charge::Stop);
        assert!(!usage.stop());
    }

    #[test]
    fn once_per_second_is_once_per_second() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut gate = OncePerSecond::default();
        let passed: Vec<_> = (0..5).filter(|step| gate.allows(start + Duration::from_millis(400 * step))).collect();
        assert_eq!(passed, [0, 3]);
    }

    #[test]
    fn an_allowance_is_used_up_and_grows_back() {
        #[expect(clippy::disallowed_methods, reason = "a test may look at the clock once")]
        let start = Instant::now();
        let mut allowance = Allowance::default();
        let passed = |allowance: &mut Allowance, now| (0..1000).filter(|_| allowance.allows(now)).count();
        assert_eq!(passed(&mut allowance, start), 100);
        assert_eq!(passed(&mut allowance, start + Duration::from_millis(55)), 5);
        assert_eq!(passed(&mut allowance, start + Duration::from_secs(60)), 100);
    }
}
