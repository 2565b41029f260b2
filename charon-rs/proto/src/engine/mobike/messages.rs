//! The notifications of MOBIKE (RFC 4555 §4).

use std::net::{IpAddr, SocketAddr};

use espdp_api::IkePath;
use subtle::ConstantTimeEq;

use super::super::context::Context;
use super::super::failure::{Incompatible, Trouble};
use super::MAX_ADDRESSES;
use crate::io::{ConfigKey, Cure, FailureCode};
use crate::wire::{Notify, NotifyType, Payload};

/// `MOBIKE_SUPPORTED`, without data (RFC 4555 §4.2.1).
pub(super) fn supported() -> Payload {
    Payload::Notify(Notify::new(NotifyType::MobikeSupported))
}

/// One of our addresses beside the one in use (RFC 4555 §4.2.2).
pub(super) fn additional_address(address: IpAddr) -> Payload {
    Payload::Notify(match address {
        IpAddr::V4(address) => Notify::with_data(NotifyType::AdditionalIp4Address, address.octets().to_vec()),
        IpAddr::V6(address) => Notify::with_data(NotifyType::AdditionalIp6Address, address.octets().to_vec()),
    })
}

/// All of them, or that there are none.
pub(super) fn additional_addresses(addresses: Vec<IpAddr>) -> Vec<Payload> {
    if addresses.is_empty() {
        return vec![Payload::Notify(Notify::new(NotifyType::NoAdditionalAddresses))];
    }
    addresses.into_iter().map(additional_address).collect()
}

/// Whether a message says which addresses its sender has.
pub(super) fn lists_addresses<'a>(mut notifies: impl Iterator<Item = &'a Notify>) -> bool {
    let kinds = [NotifyType::AdditionalIp4Address, NotifyType::AdditionalIp6Address, NotifyType::NoAdditionalAddresses];
    notifies.any(|notify| kinds.contains(&notify.kind))
}

/// The additional addresses of a message, as many as we may need.
pub(super) fn peer_addresses<'a>(notifies: impl Iterator<Item = &'a Notify>) -> Vec<IpAddr> {
    let address = |notify: &Notify| match (notify.kind, notify.data.as_slice()) {
        (NotifyType::AdditionalIp4Address, octets) => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        (NotifyType::AdditionalIp6Address, octets) => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        (_, _) => None,
    };
    let is_possible = |address: &IpAddr| !(address.is_unspecified() || address.is_multicast() || address.is_loopback());
    notifies.filter_map(address).filter(is_possible).take(MAX_ADDRESSES).collect()
}

/// A COOKIE2 that nobody can guess (R4555-4.2.5-1), and what it contains.
pub(super) fn new_cookie2(cx: &mut Context) -> (Payload, Vec<u8>) {
    let mut cookie = vec![0; COOKIE2_LEN];
    cx.random.fill_secret(&mut cookie);
    (Payload::Notify(Notify::with_data(NotifyType::Cookie2, cookie.clone())), cookie)
}

/// Whether a response brings back the COOKIE2 of its request, if that had one.
pub(super) fn returns_cookie<'a>(expected: Option<&[u8]>, mut notifies: impl Iterator<Item = &'a Notify>) -> bool {
    let Some(expected) = expected else {
        return true;
    };
    let returned = notifies.find(|notify| notify.kind == NotifyType::Cookie2);
    returned.is_some_and(|returned| bool::from(returned.data.as_slice().ct_eq(expected)))
}

/// The addresses and ports of a message that no NAT may change (RFC 4555 §4.2.6), of IPv4
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +---------------------------------------------------------------+
/// |                      Source IPv4 address                      |
/// +---------------------------------------------------------------+
/// |                   Destination IPv4 address                    |
/// +-------------------------------+-------------------------------+
/// |          Source port          |       Destination port        |
/// +-------------------------------+-------------------------------+
/// ```
///
/// and of IPv6 the same with 16 octets for each address.
pub(super) fn no_nats_allowed(sent_on: IkePath) -> Payload {
    let data = ends(sent_on.local, sent_on.remote);
    Payload::Notify(Notify::with_data(NotifyType::NoNatsAllowed, data))
}

/// Whether a message that allows no NAT came through one. It arrived on `path`.
pub(in crate::engine) fn unexpected_nat<'a>(notifies: impl Iterator<Item = &'a Notify>, path: IkePath) -> bool {
    let expected = ends(path.remote, path.local);
    notifies.filter(|notify| notify.kind == NotifyType::NoNatsAllowed).any(|notify| notify.data != expected)
}

/// Why a message that came through a NAT all the same is refused.
pub(in crate::engine) fn nat_not_allowed() -> Trouble {
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::PeerRefused,
        notify: NotifyType::UnexpectedNatDetected,
        what: "there is a NAT on the way, and one of the ends does not work around NATs".to_owned(),
        ours: Vec::new(),
        theirs: Vec::new(),
        hint: Some("set `encapsulation = \"detect\"` on both sides".to_owned()),
        cure: Some(Cure::new(ConfigKey::Encapsulation, Some("detect".to_owned()))),
    }))
}

fn ends(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut octets = Vec::with_capacity(36);
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(address) => octets.extend(address.octets()),
            IpAddr::V6(address) => octets.extend(address.octets()),
        }
    }
    octets.extend(source.port().to_be_bytes());
    octets.extend(destination.port().to_be_bytes());
    octets
}

/// R4555-4.2.5-1 allows 8 to 64 octets; 16 are as hard to guess as a key.
const COOKIE2_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(local: &str, remote: &str) -> IkePath {
        IkePath { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn notify(payload: Payload) -> Notify {
        let Payload::Notify(notify) = payload else { panic!("{payload:?}") };
        notify
    }

    #[test]
    fn the_ends_of_a_message_are_written_source_first_with_the_ports_behind() {
        let v4 = notify(no_nats_allowed(path("192.0.2.1:500", "198.51.100.2:4500")));
        assert_eq!(v4.data, [192, 0, 2, 1, 198, 51, 100, 2, 0x01, 0xf4, 0x11, 0x94]);
        let v6 = notify(no_nats_allowed(path("[2001:db8::1]:500", "[2001:db8::2]:500")));
        assert_eq!(v6.data.len(), 36);
    }

    #[test]
    fn a_changed_address_or_port_is_a_nat_and_silence_is_none() {
        let sent = notify(no_nats_allowed(path("192.0.2.1:500", "198.51.100.2:500")));
        let is_natted = |arrived| unexpected_nat([&sent].into_iter(), arrived);
        assert!(!is_natted(path("198.51.100.2:500", "192.0.2.1:500")));
        assert!(is_natted(path("198.51.100.2:500", "192.0.2.1:1024")));
        assert!(is_natted(path("198.51.100.3:500", "192.0.2.1:500")));
        assert!(!unexpected_nat([].into_iter(), path("198.51.100.3:500", "192.0.2.1:500")));
    }

    #[test]
    fn addresses_are_read_back_and_impossible_or_too_many_ones_are_left_out() {
        let wanted: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let notifies: Vec<Notify> = additional_addresses(wanted.clone()).into_iter().map(notify).collect();
        assert!(lists_addresses(notifies.iter()));
        assert_eq!(peer_addresses(notifies.iter()), wanted);
        let none: Vec<Notify> = additional_addresses(Vec::new()).into_iter().map(notify).collect();
        assert!(lists_addresses(none.iter()));
        assert_eq!(peer_addresses(none.iter()), Vec::<IpAddr>::new());
        let flood: Vec<Notify> = (0..=255u8).map(|n| notify(additional_address([10, 0, 0, n].into()))).collect();
        assert_eq!(peer_addresses(flood.iter()).len(), MAX_ADDRESSES);
        let nowhere = [[0, 0, 0, 0], [224, 0, 0, 1], [127, 0, 0, 1]].map(|n| notify(additional_address(n.into())));
        assert_eq!(peer_addresses(nowhere.iter()), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_cookie_must_come_back_as_it_was() {
        let back = |data: &[u8]| Notify::with_data(NotifyType::Cookie2, data.to_vec());
        assert!(returns_cookie(None, [].into_iter()));
        assert!(returns_cookie(Some(&[1; 16]), [&back(&[1; 16])].into_iter()));
        assert!(!returns_cookie(Some(&[1; 16]), [&back(&[2; 16])].into_iter()));
        assert!(!returns_cookie(Some(&[1; 16]), [].into_iter()));
    }
}
