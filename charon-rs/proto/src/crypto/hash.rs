//! Hashes that travel in the clear: NAT detection and cookies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use espdp_api::Secret;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::hmac::Hash;
use crate::io::IkeSpi;
use crate::random::SecureRandom;

/// Octets of a NAT detection hash: SHA-1, whatever was negotiated.
pub const NAT_DETECTION_LEN: usize = 20;

/// What NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP carry (RFC 7296 §2.23): the SHA-1 of
/// `SPIi | SPIr | address | port` in network byte order, the address in 4 or 16 octets. The SPIs are those of the header
/// of the message that carries it.
#[must_use]
pub fn nat_detection(initiator_spi: IkeSpi, responder_spi: IkeSpi, address: SocketAddr) -> [u8; NAT_DETECTION_LEN] {
    let hash = Sha1::new().chain_update(initiator_spi.0).chain_update(responder_spi.0);
    let hash = match address.ip() {
        IpAddr::V4(address) => hash.chain_update(address.octets()),
        IpAddr::V6(address) => hash.chain_update(address.octets()),
    };
    hash.chain_update(address.port().to_be_bytes()).finalize().into()
}

/// The secrets that stateless cookies are made with (RFC 7296 §2.6): the current one and the one before it, which is still
/// accepted so that a change does not turn away those who have just been given a cookie.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +---------------------------------------------------------------+
/// |                    Version of the secret                      |
/// +---------------------------------------------------------------+
/// |       HMAC-SHA-256(secret, version | IPi | SPIi | Ni)         |
/// |                         (32 octets)                           |
/// +---------------------------------------------------------------+
/// ```
///
/// The nonce comes last and the address always has 16 octets, so that no octet can pass for part of another field.
pub struct CookieSecrets {
    version: u32,
    current: Secret<[u8; SECRET_LEN]>,
    previous: Option<Secret<[u8; SECRET_LEN]>>,
}

impl CookieSecrets {
    /// Draws the first secret.
    pub fn new(random: &mut dyn SecureRandom) -> Self {
        Self { version: 0, current: draw(random), previous: None }
    }

    /// Draws a new secret; cookies of the one that was current are accepted until the next change, older ones no more.
    /// Meant to be called from time to time, at least when many cookies were asked for (RFC 7296 §2.6).
    pub fn change(&mut self, random: &mut dyn SecureRandom) {
        self.version = self.version.wrapping_add(1);
        self.previous = Some(std::mem::replace(&mut self.current, draw(random)));
    }

    /// The cookie for a request with this nonce, source address and initiator SPI.
    #[must_use]
    pub fn make(&self, nonce: &[u8], source: IpAddr, initiator_spi: IkeSpi) -> [u8; COOKIE_LEN] {
        cookie(self.version, &self.current, nonce, source, initiator_spi)
    }

    /// Whether `received` is a cookie that we gave for this nonce, source address and initiator SPI, with the current
    /// secret or the one before.
    #[must_use]
    pub fn verify(&self, received: &[u8], nonce: &[u8], source: IpAddr, initiator_spi: IkeSpi) -> bool {
        let Some(version) = received.first_chunk().map(|octets| u32::from_be_bytes(*octets)) else {
            return false;
        };
        let secret = if version == self.version {
            Some(&self.current)
        } else if version == self.version.wrapping_sub(1) {
            self.previous.as_ref()
        } else {
            None
        };
        secret.is_some_and(|secret| cookie(version, secret, nonce, source, initiator_spi).ct_eq(received).into())
    }
}

impl fmt::Debug for CookieSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieSecrets").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Octets of the cookies that we make; at most 64 are allowed (RFC 7296 §2.6).
pub const COOKIE_LEN: usize = 4 + 32;

const SECRET_LEN: usize = 32;

fn draw(random: &mut dyn SecureRandom) -> Secret<[u8; SECRET_LEN]> {
    let mut secret = Secret::new([0; SECRET_LEN]);
    random.fill_secret(secret.expose_mut());
    secret
}

fn cookie(
    version: u32,
    secret: &Secret<[u8; SECRET_LEN]>,
    nonce: &[u8],
    source: IpAddr,
    initiator_spi: IkeSpi,
) -> [u8; COOKIE_LEN] {
    let version = version.to_be_bytes();
    let source = match source {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let mac = Hash::Sha256.hmac(secret.expose(), &[&version, &source, &initiator_spi.0, nonce]);
    let mut cookie = [0; COOKIE_LEN];
    for (octet, value) in cookie.iter_mut().zip(version.iter().chain(mac.expose())) {
        *octet = *value;
    }
    cookie
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::testing::{SeededRandom, octets};

    const INITIATOR: IkeSpi = IkeSpi([1, 2, 3, 4, 5, 6, 7, 8]);
    const RESPONDER: IkeSpi = IkeSpi([9, 10, 11, 12, 13, 14, 15, 16]);
    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const NONCE: [u8; 32] = [7; 32];

    #[test]
    fn nat_detection_hashes_spis_address_and_port() {
        // From `printf ... | sha1sum` over the octets in order.
        let v4 = nat_detection(INITIATOR, RESPONDER, SocketAddr::new(SOURCE, 500));
        assert_eq!(v4[..], octets("f91d4f6bc96115a493f7b83bfe8b8f9b6c885243"));
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let v6 = nat_detection(INITIATOR, IkeSpi::default(), SocketAddr::new(address.into(), 4500));
        assert_eq!(v6[..], octets("98c75483db80168697635aa7844504963e87de33"));
    }

    #[test]
    fn cookies_fit_only_what_they_were_made_for() {
        let secrets = CookieSecrets::new(&mut SeededRandom::new(1));
        let cookie = secrets.make(&NONCE, SOURCE, INITIATOR);
        assert!(secrets.verify(&cookie, &NONCE, SOURCE, INITIATOR));
        assert!(!secrets.verify(&cookie, &NONCE[1..], SOURCE, INITIATOR));
        assert!(!secrets.verify(&cookie, &NONCE, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), INITIATOR));
        assert!(!secrets.verify(&cookie, &NONCE, SOURCE, RESPONDER));
        for index in 0..cookie.len() {
            let mut changed = cookie;
            changed[index] ^= 0x80;
            assert!(!secrets.verify(&changed, &NONCE, SOURCE, INITIATOR));
        }
        for len in 0..cookie.len() {
            assert!(!secrets.verify(&cookie[..len], &NONCE, SOURCE, INITIATOR));
        }
    }

    #[test]
    fn an_address_cannot_end_in_the_octets_of_another() {
        let secrets = CookieSecrets::new(&mut SeededRandom::new(1));
        let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xc000, 0x0201));
        let cookie = secrets.make(&NONCE, v6, INITIATOR);
        let longer = [&NONCE[..], &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert!(!secrets.verify(&cookie, &longer, SOURCE, INITIATOR));
        assert!(!secrets.verify(&cookie, &NONCE, SOURCE, INITIATOR));
    }

    #[test]
    fn the_secret_before_the_current_one_is_still_good_and_no_older_one() {
        let mut random = SeededRandom::new(1);
        let mut secrets = CookieSecrets::new(&mut random);
        let cookie = secrets.make(&NONCE, SOURCE, INITIATOR);
        secrets.change(&mut random);
        assert_ne!(secrets.make(&NONCE, SOURCE, INITIATOR), cookie);
        assert!(secrets.verify(&cookie, &NONCE, SOURCE, INITIATOR));
        secrets.change(&mut random);
        assert!(!secrets.verify(&cookie, &NONCE, SOURCE, INITIATOR));
    }

    #[test]
    fn a_version_never_used_is_refused_before_the_first_change() {
        let secrets = CookieSecrets::new(&mut SeededRandom::new(1));
        assert!(!secrets.verify(&[0xff; COOKIE_LEN], &NONCE, SOURCE, INITIATOR));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let secrets = CookieSecrets::new(&mut SeededRandom::new(1));
        assert_eq!(format!("{secrets:?}"), "CookieSecrets { version: 0, .. }");
    }
}
