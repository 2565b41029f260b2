//! Who is let in: what an IKE_SA_INIT request must pass before it costs us a state (RFC 7296 §2.6), and how often
//! strangers get an answer (§2.21.4).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::crypto::hash::CookieSecrets;
use crate::io::IkeSpi;
use crate::{SecureRandom, Settings};

/// The half-open SAs, and the means to keep them few.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// IKE_SA_INIT requests that have an SA, by initiator SPI and source.
    requests: BTreeMap<(IkeSpi, SocketAddr), IkeSpi>,
    /// The same the other way round, and whether the SA is still half-open.
    admitted: BTreeMap<IkeSpi, Admitted>,
    half_open: usize,
    /// By what [`source_of`] makes of the addresses.
    half_open_by_source: BTreeMap<IpAddr, usize>,
    cookies: Option<CookieSecrets>,
    change_secret_at: Option<Instant>,
    pub(super) unprotected: RateLimit,
}

#[derive(Debug)]
struct Admitted {
    request: (IkeSpi, SocketAddr),
    half_open: bool,
}

/// What becomes of an IKE_SA_INIT request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admittance {
    /// It may have a state.
    Granted,
    /// The initiator must show first that it receives at its address.
    CookieWanted,
    /// There are too many half-open SAs.
    Denied,
}

impl Admission {
    /// The SA that was made for this request.
    pub(super) fn known(&self, initiator_spi: IkeSpi, source: SocketAddr) -> Option<IkeSpi> {
        self.requests.get(&(initiator_spi, source)).copied()
    }

    /// Whether more than a look at the header is worth it. No allocation and no cryptography before this.
    pub(super) fn has_room(&self, settings: &Settings, source: IpAddr) -> bool {
        let of_source = self.half_open_by_source.get(&source_of(source)).copied().unwrap_or_default();
        self.half_open < settings.half_open_limit && of_source < settings.half_open_per_address
    }

    /// Decides about a request with this nonce and cookie. A wrong cookie is none (R7296-2.6-5, R7296-2.6-2).
    pub(super) fn judge(
        &mut self,
        settings: &Settings,
        source: IpAddr,
        initiator_spi: IkeSpi,
        nonce: &[u8],
        cookie: Option<&[u8]>,
    ) -> Admittance {
        if !self.has_room(settings, source) {
            return Admittance::Denied;
        }
        if self.half_open < settings.cookie_threshold {
            return Admittance::Granted;
        }
        let verified = self.cookies.as_ref().zip(cookie);
        match verified {
            Some((secrets, cookie)) if secrets.verify(cookie, nonce, source, initiator_spi) => Admittance::Granted,
            _ => Admittance::CookieWanted,
        }
    }

    /// A cookie for this request. The first one starts the clock by which the secret changes.
    pub(super) fn cookie(
        &mut self,
        now: Instant,
        random: &mut dyn SecureRandom,
        nonce: &[u8],
        source: IpAddr,
        initiator_spi: IkeSpi,
    ) -> Vec<u8> {
        self.change_secret_at.get_or_insert(now + SECRET_LIFETIME);
        let secrets = self.cookies.get_or_insert_with(|| CookieSecrets::new(random));
        secrets.make(nonce, source, initiator_spi).to_vec()
    }

    /// Changes the secret of the cookies if it is time. While nobody needs cookies, the next change waits for the next
    /// one.
    pub(super) fn on_timeout(&mut self, now: Instant, random: &mut dyn SecureRandom) {
        if self.change_secret_at.is_some_and(|at| at <= now) {
            if let Some(secrets) = &mut self.cookies {
                secrets.change(random);
            }
            self.change_secret_at = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.change_secret_at
    }

    /// Notes the SA that was made for a request.
    pub(super) fn admit(&mut self, spi: IkeSpi, request: (IkeSpi, SocketAddr)) {
        self.requests.insert(request, spi);
        self.admitted.insert(spi, Admitted { request, half_open: true });
        self.half_open += 1;
        *self.half_open_by_source.entry(source_of(request.1.ip())).or_default() += 1;
    }

    /// The SA is not half-open any more. Its request is remembered, since copies of it may still be under way.
    pub(super) fn completed(&mut self, spi: IkeSpi) {
        let Some(admitted) = self.admitted.get_mut(&spi).filter(|admitted| admitted.half_open) else {
            return;
        };
        admitted.half_open = false;
        self.half_open = self.half_open.saturating_sub(1);
        let source = source_of(admitted.request.1.ip());
        if let Some(count) = self.half_open_by_source.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.half_open_by_source.remove(&source);
            }
        }
    }

    /// The SA is gone.
    pub(super) fn gone(&mut self, spi: IkeSpi) {
        self.completed(spi);
        if let Some(admitted) = self.admitted.remove(&spi) {
            self.requests.remove(&admitted.request);
        }
    }
}

/// What counts as one source: an IPv4 address, or the IPv6 network of 64 bits that belongs to one subscriber.
fn source_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// So many answers to strangers in a second and no more (RFC 7296 §2.21.4).
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    since: Option<Instant>,
    count: u32,
}

impl RateLimit {
    /// Whether one more is within the limit; if so, it counts.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let fresh = self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1));
        if fresh {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= UNPROTECTED_PER_SECOND
    }
}

/// Enough for people who look for the cause of a problem, too few to be of use against others.
const UNPROTECTED_PER_SECOND: u32 = 50;

/// How long a secret makes cookies; they are accepted for as long again.
const SECRET_LIFETIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testbed::start_of_time;
    use crate::testing::SeededRandom;

    const SPI: IkeSpi = IkeSpi([1; 8]);
    const NONCE: [u8; 16] = [2; 16];

    fn source() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn crowded() -> (Admission, Settings) {
        let settings = Settings { cookie_threshold: 1, half_open_per_address: 2, ..Settings::default() };
        let mut admission = Admission::default();
        admission.admit(IkeSpi([9; 8]), (IkeSpi([8; 8]), "192.0.2.9:500".parse().unwrap()));
        (admission, settings)
    }

    /// R7296-2.6-2.
    #[test]
    fn above_the_threshold_only_a_right_cookie_lets_in() {
        let (mut admission, settings) = crowded();
        let (mut random, now) = (SeededRandom::new(1), start_of_time());
        assert_eq!(admission.judge(&settings, source(), SPI, &NONCE, None), Admittance::CookieWanted);
        let cookie = admission.cookie(now, &mut random, &NONCE, source(), SPI);
        assert_eq!(admission.judge(&settings, source(), SPI, &NONCE, Some(&cookie)), Admittance::Granted);
        assert_eq!(admission.judge(&settings, source(), SPI, &[3; 16], Some(&cookie)), Admittance::CookieWanted);
        let elsewhere = "192.0.2.2".parse().unwrap();
        assert_eq!(admission.judge(&settings, elsewhere, SPI, &NONCE, Some(&cookie)), Admittance::CookieWanted);
    }

    /// R7296-2.6-5.
    #[test]
    fn cookies_outlive_one_change_of_the_secret_and_not_two() {
        let (mut admission, settings) = crowded();
        let (mut random, now) = (SeededRandom::new(1), start_of_time());
        let cookie = admission.cookie(now, &mut random, &NONCE, source(), SPI);
        let change = admission.deadline().unwrap();
        admission.on_timeout(change, &mut random);
        assert_eq!(admission.deadline(), None, "nobody needs cookies");
        assert_eq!(admission.judge(&settings, source(), SPI, &NONCE, Some(&cookie)), Admittance::Granted);
        admission.cookie(change, &mut random, &NONCE, source(), SPI);
        let change = admission.deadline().unwrap();
        admission.on_timeout(change, &mut random);
        assert_eq!(admission.judge(&settings, source(), SPI, &NONCE, Some(&cookie)), Admittance::CookieWanted);
    }

    #[test]
    fn a_source_with_too_many_half_open_sas_is_denied_until_one_is_done() {
        let (mut admission, settings) = crowded();
        let settings = Settings { cookie_threshold: 100, ..settings };
        for port in 1..=2 {
            let spi = IkeSpi([port; 8]);
            admission.admit(spi, (spi, SocketAddr::new(source(), port.into())));
        }
        assert_eq!(admission.judge(&settings, source(), SPI, &NONCE, None), Admittance::Denied);
        admission.completed(IkeSpi([1; 8]));
        assert_eq!(admission.judge(&settings, source(), SPI, &NONCE, None), Admittance::Granted);
        assert_eq!(admission.known(IkeSpi([1; 8]), SocketAddr::new(source(), 1)), Some(IkeSpi([1; 8])));
        admission.gone(IkeSpi([1; 8]));
        assert_eq!(admission.known(IkeSpi([1; 8]), SocketAddr::new(source(), 1)), None);
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_count_as_one_source() {
        let (mut admission, settings) = crowded();
        let settings = Settings { cookie_threshold: 100, ..settings };
        for host in 1..=2 {
            let spi = IkeSpi([host; 8]);
            admission.admit(spi, (spi, SocketAddr::new(format!("2001:db8::{host}").parse().unwrap(), 500)));
        }
        let mut judge = |source: &str| admission.judge(&settings, source.parse().unwrap(), SPI, &NONCE, None);
        assert_eq!(judge("2001:db8::3"), Admittance::Denied);
        assert_eq!(judge("2001:db8:0:1::3"), Admittance::Granted);
        admission.gone(IkeSpi([1; 8]));
        assert_eq!(admission.judge(&settings, "2001:db8::3".parse().unwrap(), SPI, &NONCE, None), Admittance::Granted);
    }

    #[test]
    fn strangers_get_a_limited_number_of_answers_in_a_second() {
        let (mut limit, now) = (RateLimit::default(), start_of_time());
        let answers = (0..10_000).filter(|_| limit.allows(now)).count();
        assert_eq!(answers, 50);
        assert!(limit.allows(now + Duration::from_secs(1)));
    }
}
