//! Questions for the station behind an IP address, and what stations say about themselves: ARP (RFC 826) and IPv6 neighbour
//! discovery (RFC 4861).
//!
//! Only frames without VLAN tags are looked at: in another VLAN the same address may be somebody else's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::MacAddress;

use super::neighbours::Known;
use crate::checksum::Sum;
use crate::packet::{IPV6_HEADER_LEN, protocol};

/// A question to all stations who has an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Solicitation {
    station: MacAddress,
    question: Question,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// An ARP request. `sender` is unspecified when the station asks whether it may take the address (RFC 5227 §2.1.1).
    Arp { sender: Ipv4Addr, target: Ipv4Addr },
    /// A neighbour solicitation; likewise (RFC 4862 §5.4.2).
    Ndp { sender: Ipv6Addr, target: Ipv6Addr },
}

impl Solicitation {
    /// Reads a frame. `None` when it is something else, is for one station only, or breaks the rules (RFC 4861 §7.1.1).
    pub(crate) fn read(ether_type: u16, frame: &[u8]) -> Option<Self> {
        let (ethernet, payload) = frame.split_first_chunk::<ETHERNET_HEADER_LEN>()?;
        let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _] = ethernet;
        let station = MacAddress::new([s0, s1, s2, s3, s4, s5]);
        if !MacAddress::new([d0, d1, d2, d3, d4, d5]).is_group() {
            return None;
        }
        let question = match ether_type {
            ETHER_TYPE_ARP => {
                let arp = Arp::read(payload)?;
                let is_about_itself = arp.sender == arp.target || arp.sender_station != station;
                (arp.operation == ARP_REQUEST && !is_about_itself)
                    .then_some(Question::Arp { sender: arp.sender, target: arp.target })?
            }
            ETHER_TYPE_IPV6 => {
                let discovery = Discovery::read(payload)?;
                (discovery.kind == NEIGHBOUR_SOLICITATION)
                    .then_some(Question::Ndp { sender: discovery.source, target: discovery.target })?
            }
            _ => return None,
        };
        Some(Self { station, question })
    }

    /// Who asks.
    pub(crate) fn station(&self) -> MacAddress {
        self.station
    }

    /// The address that is asked for.
    pub(crate) fn target(&self) -> IpAddr {
        match self.question {
            Question::Arp { target, .. } => target.into(),
            Question::Ndp { target, .. } => target.into(),
        }
    }

    /// Writes the frame with which `neighbour` itself would answer.
    pub(crate) fn write_answer(&self, neighbour: Known, out: &mut Vec<u8>) {
        out.clear();
        match self.question {
            Question::Arp { sender, target } => {
                self.write_ethernet(self.station, neighbour.mac, ETHER_TYPE_ARP, out);
                out.extend_from_slice(&ARP_START);
                out.extend_from_slice(&ARP_REPLY.to_be_bytes());
                out.extend_from_slice(&neighbour.mac.octets());
                out.extend_from_slice(&target.octets());
                out.extend_from_slice(&self.station.octets());
                out.extend_from_slice(&sender.octets());
            }
            Question::Ndp { sender, target } => self.write_advertisement(neighbour, sender, target, out),
        }
    }

    /// A neighbour advertisement (RFC 4861 §4.4):
    ///
    /// ```text
    /// ┌────────┬────────┬──────────┬───────────────────┬─────────────────────┬────────────────────────────┐
    /// │ 136    │ 0      │ checksum │ R S O, 29 bits 0  │ target, 16 octets   │ 2, 1, the station's address │
    /// └────────┴────────┴──────────┴───────────────────┴─────────────────────┴────────────────────────────┘
    /// ```
    fn write_advertisement(&self, neighbour: Known, sender: Ipv6Addr, target: Ipv6Addr, out: &mut Vec<u8>) {
        // RFC 4861 §7.2.4: who has no address yet gets the answer together with all others, as an unsolicited one.
        let (station, destination, solicited) = if sender.is_unspecified() {
            (ALL_NODES_STATION, ALL_NODES, 0)
        } else {
            (self.station, sender, FLAG_SOLICITED)
        };
        let router = if neighbour.is_router { FLAG_ROUTER } else { 0 };
        let mut message = [0; ADVERTISEMENT_LEN];
        message[0] = NEIGHBOUR_ADVERTISEMENT;
        message[4] = router | solicited | FLAG_OVERRIDE;
        message[8..24].copy_from_slice(&target.octets());
        message[24..26].copy_from_slice(&[OPTION_TARGET_STATION, 1]);
        message[26..].copy_from_slice(&neighbour.mac.octets());
        let pseudo = Sum::of_pseudo_header(target.into(), destination.into(), protocol::ICMPV6, ADVERTISEMENT_LEN);
        let checksum = pseudo.plus(Sum::of(&message)).checksum();
        message[2..4].copy_from_slice(&checksum);

        self.write_ethernet(station, neighbour.mac, ETHER_TYPE_IPV6, out);
        out.extend_from_slice(&[0x60, 0, 0, 0, 0, ADVERTISEMENT_LEN as u8, protocol::ICMPV6, HOP_LIMIT]);
        out.extend_from_slice(&target.octets());
        out.extend_from_slice(&destination.octets());
        out.extend_from_slice(&message);
    }

    fn write_ethernet(&self, to: MacAddress, from: MacAddress, ether_type: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(&to.octets());
        out.extend_from_slice(&from.octets());
        out.extend_from_slice(&ether_type.to_be_bytes());
    }
}

/// What a station says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// Its IP address.
    pub(crate) address: IpAddr,
    /// The station.
    pub(crate) mac: MacAddress,
    /// Whether it is a router; `None`: it does not say.
    pub(crate) is_router: Option<bool>,
}

impl Announcement {
    /// Reads a frame: ARP of either kind, a neighbour advertisement, or a neighbour solicitation from somebody who has an address.
    /// What a station says about others does not count.
    pub(crate) fn read(ether_type: u16, frame: &[u8]) -> Option<Self> {
        let (ethernet, payload) = frame.split_first_chunk::<ETHERNET_HEADER_LEN>()?;
        let &[_, _, _, _, _, _, s0, s1, s2, s3, s4, s5, _, _] = ethernet;
        let mac = MacAddress::new([s0, s1, s2, s3, s4, s5]);
        match ether_type {
            ETHER_TYPE_ARP => {
                let arp = Arp::read(payload)?;
                let is_own = arp.sender_station == mac && is_host_v4(arp.sender);
                is_own.then_some(Self { address: arp.sender.into(), mac, is_router: None })
            }
            ETHER_TYPE_IPV6 => {
                let discovery = Discovery::read(payload)?;
                let (address, is_router) = match discovery.kind {
                    NEIGHBOUR_ADVERTISEMENT => (discovery.target, Some(discovery.flags & FLAG_ROUTER != 0)),
                    _ => (discovery.source, None),
                };
                let is_own = is_host_v6(address) && discovery.station == Some(mac);
                is_own.then_some(Self { address: address.into(), mac, is_router })
            }
            _ => None,
        }
    }
}

/// An ARP packet for IPv4 over Ethernet.
///
/// ```text
/// ┌──────────┬──────────┬───┬───┬───────────┬─────────┬─────────┬─────────┬─────────┐
/// │ 0x0001   │ 0x0800   │ 6 │ 4 │ operation │ sender  │ sender  │ target  │ target  │
/// │ Ethernet │ IPv4     │   │   │ 2 octets  │ station │ address │ station │ address │
/// └──────────┴──────────┴───┴───┴───────────┴─────────┴─────────┴─────────┴─────────┘
/// ```
struct Arp {
    operation: u16,
    sender_station: MacAddress,
    sender: Ipv4Addr,
    target: Ipv4Addr,
}

impl Arp {
    fn read(payload: &[u8]) -> Option<Self> {
        let (start, rest) = payload.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_station, rest) = rest.split_first_chunk::<6>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let target = rest.first_chunk::<4>()?;
        (*start == ARP_START).then_some(Self {
            operation: u16::from_be_bytes(*operation),
            sender_station: MacAddress::new(*sender_station),
            sender: Ipv4Addr::from(*sender),
            target: Ipv4Addr::from(*target),
        })
    }
}

/// A neighbour solicitation or advertisement.
struct Discovery {
    kind: u8,
    flags: u8,
    source: Ipv6Addr,
    target: Ipv6Addr,
    /// What the option says: the source's station in a solicitation, the target's in an advertisement.
    station: Option<MacAddress>,
}

impl Discovery {
    /// RFC 4861 §7.1.1, §7.1.2: hop limit 255, a right checksum, code 0, at least 24 octets, no multicast target. Extension headers
    /// are allowed but of no use here.
    fn read(payload: &[u8]) -> Option<Self> {
        let (ip, rest) = payload.split_first_chunk::<IPV6_HEADER_LEN>()?;
        let (start, addresses) = ip.split_first_chunk::<8>()?;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let (source, destination) = (Ipv6Addr::from(*source), Ipv6Addr::from(*destination.first_chunk::<16>()?));
        let &[version, _, _, _, len0, len1, next_header, hop_limit] = start;
        if version >> 4 != 6 || next_header != protocol::ICMPV6 || hop_limit != HOP_LIMIT {
            return None;
        }
        let message = rest.get(..usize::from(u16::from_be_bytes([len0, len1])))?;
        let (&[kind, code, _, _, flags, _, _, _], body) = message.split_first_chunk::<8>()?;
        let (target, options) = body.split_first_chunk::<16>()?;
        let target = Ipv6Addr::from(*target);
        if !matches!(kind, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) || code != 0 || target.is_multicast() {
            return None;
        }
        let pseudo = Sum::of_pseudo_header(source.into(), destination.into(), protocol::ICMPV6, message.len());
        if !pseudo.plus(Sum::of(message)).is_right() {
            return None;
        }
        let wanted = if kind == NEIGHBOUR_SOLICITATION { OPTION_SOURCE_STATION } else { OPTION_TARGET_STATION };
        Some(Self { kind, flags, source, target, station: station_option(options, wanted)? })
    }
}

/// Looks for an option with a station's address; `None` outside: the options are broken.
fn station_option(mut options: &[u8], wanted: u8) -> Option<Option<MacAddress>> {
    let mut found = None;
    while !options.is_empty() {
        // RFC 4861 §4.6: the length counts units of 8 octets and is not 0.
        let len = usize::from(*options.get(1)?).checked_mul(8).filter(|len| *len > 0)?;
        let (option, rest) = options.split_at_checked(len)?;
        if let Some((&[kind, 1], station)) = option.split_first_chunk::<2>()
            && kind == wanted
        {
            found = station.first_chunk::<6>().map(|octets| MacAddress::new(*octets));
        }
        options = rest;
    }
    Some(found)
}

fn is_host_v4(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
}

fn is_host_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// Octets in front of the payload of a frame without tags.
const ETHERNET_HEADER_LEN: usize = 14;
const ETHER_TYPE_ARP: u16 = 0x0806;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
/// Hardware type Ethernet, protocol IPv4, and the lengths of their addresses.
const ARP_START: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
/// What the answer says replaces what the asker has cached: it comes from who knows.
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_SOURCE_STATION: u8 = 1;
const OPTION_TARGET_STATION: u8 = 2;
/// Octets of a neighbour advertisement with its option.
const ADVERTISEMENT_LEN: usize = 32;
/// So that nobody beyond the link can have sent it (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_STATION: MacAddress = MacAddress::new([0x33, 0x33, 0, 0, 0, 1]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKER: MacAddress = MacAddress::new([2, 0, 0x5e, 0, 0x53, 1]);
    const OWNER: MacAddress = MacAddress::new([2, 0, 0x5e, 0, 0x53, 2]);

    /// As RFC 826 describes it, octet by octet.
    fn arp_request() -> Vec<u8> {
        let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0x5e, 0, 0x53, 1, 8, 6];
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0x5e, 0, 0x53, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        frame
    }

    /// From fe80::1 for fe80::2, with the source's address as an option; the checksum computed apart from this code.
    fn solicitation() -> Vec<u8> {
        let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 2, 2, 0, 0x5e, 0, 0x53, 1, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
        frame.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend("ff02::1:ff00:2".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend([135, 0, 0xc9, 0x96, 0, 0, 0, 0]);
        frame.extend("fe80::2".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend([1, 1, 2, 0, 0x5e, 0, 0x53, 1]);
        frame
    }

    #[test]
    fn an_arp_request_is_answered_as_its_target_would() {
        let frame = arp_request();
        let solicitation = Solicitation::read(ETHER_TYPE_ARP, &frame).unwrap();
        assert_eq!((solicitation.station(), solicitation.target()), (ASKER, [10, 0, 0, 2].into()));
        let mut answer = Vec::new();
        solicitation.write_answer(Known { mac: OWNER, is_router: false }, &mut answer);
        let mut expected = vec![2, 0, 0x5e, 0, 0x53, 1, 2, 0, 0x5e, 0, 0x53, 2, 8, 6];
        expected.extend([0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0x5e, 0, 0x53, 2, 10, 0, 0, 2]);
        expected.extend([2, 0, 0x5e, 0, 0x53, 1, 10, 0, 0, 1]);
        assert_eq!(answer, expected);
    }

    #[test]
    fn requests_for_ones_own_address_and_replies_are_no_questions() {
        let mut announcement = arp_request();
        announcement[41] = 1;
        assert_eq!(Solicitation::read(ETHER_TYPE_ARP, &announcement), None);
        let mut reply = arp_request();
        reply[21] = 2;
        assert_eq!(Solicitation::read(ETHER_TYPE_ARP, &reply), None);
        let mut to_one = arp_request();
        to_one[..6].copy_from_slice(&OWNER.octets());
        assert_eq!(Solicitation::read(ETHER_TYPE_ARP, &to_one), None);
    }

    #[test]
    fn what_a_station_says_about_another_one_is_not_believed() {
        let own = Announcement { address: [10, 0, 0, 1].into(), mac: ASKER, is_router: None };
        assert_eq!(Announcement::read(ETHER_TYPE_ARP, &arp_request()), Some(own));
        let mut lie = arp_request();
        lie[27] = 9;
        assert_eq!(Announcement::read(ETHER_TYPE_ARP, &lie), None);
        let mut probe = arp_request();
        probe[28..32].fill(0);
        assert_eq!(Announcement::read(ETHER_TYPE_ARP, &probe), None);
    }

    #[test]
    fn a_neighbour_solicitation_is_answered_with_an_advertisement_that_can_be_read_again() {
        let solicitation = Solicitation::read(ETHER_TYPE_IPV6, &solicitation()).unwrap();
        assert_eq!((solicitation.station(), solicitation.target()), (ASKER, "fe80::2".parse().unwrap()));
        for is_router in [true, false] {
            let mut answer = Vec::new();
            solicitation.write_answer(Known { mac: OWNER, is_router }, &mut answer);
            assert_eq!((&answer[..6], &answer[6..12]), (&ASKER.octets()[..], &OWNER.octets()[..]));
            let read = Announcement::read(ETHER_TYPE_IPV6, &answer);
            let address = "fe80::2".parse().unwrap();
            assert_eq!(read, Some(Announcement { address, mac: OWNER, is_router: Some(is_router) }));
            assert_eq!(answer[58] & FLAG_SOLICITED, FLAG_SOLICITED);
        }
    }

    #[test]
    fn who_has_no_address_yet_is_answered_by_multicast() {
        let mut frame = solicitation();
        frame[22..38].fill(0); // The source.
        frame.truncate(78); // Without the option, which must not be there then.
        frame[19] = 24;
        frame[56..58].fill(0);
        let pseudo = Sum::of_pseudo_header(
            Ipv6Addr::UNSPECIFIED.into(),
            "ff02::1:ff00:2".parse::<IpAddr>().unwrap(),
            protocol::ICMPV6,
            24,
        );
        let checksum = pseudo.plus(Sum::of(&frame[54..])).checksum();
        frame[56..58].copy_from_slice(&checksum);
        let mut answer = Vec::new();
        let solicitation = Solicitation::read(ETHER_TYPE_IPV6, &frame).unwrap();
        solicitation.write_answer(Known { mac: OWNER, is_router: false }, &mut answer);
        assert_eq!(&answer[..6], &ALL_NODES_STATION.octets());
        assert_eq!(&answer[38..54], &ALL_NODES.octets());
        assert_eq!(answer[58] & FLAG_SOLICITED, 0);
        assert!(Announcement::read(ETHER_TYPE_IPV6, &answer).is_some());
        assert_eq!(Announcement::read(ETHER_TYPE_IPV6, &frame), None);
    }

    #[test]
    fn solicitations_from_beyond_the_link_or_with_wrong_checksums_are_ignored() {
        for (at, value) in [(21, 254), (57, 0x97), (55, 1), (54, 133), (14, 0x50), (79, 0), (79, 2)] {
            let mut frame = solicitation();
            frame[at] = value;
            assert_eq!(Solicitation::read(ETHER_TYPE_IPV6, &frame), None, "octet {at}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_panic(frame in proptest::collection::vec(any::<u8>(), 0..120), arp: bool) {
            let ether_type = if arp { ETHER_TYPE_ARP } else { ETHER_TYPE_IPV6 };
            prop_assert!(frame.len() >= 42 || Solicitation::read(ether_type, &frame).is_none());
            prop_assert!(frame.len() >= 42 || Announcement::read(ether_type, &frame).is_none());
        }

        /// Flips octets of good messages, so that the deeper checks are reached.
        #[test]
        fn damaged_messages_are_read_without_panic(at in 0usize..86, value: u8, len in 0usize..86) {
            for (ether_type, mut frame) in [(ETHER_TYPE_ARP, arp_request()), (ETHER_TYPE_IPV6, solicitation())] {
                let at = at % frame.len();
                frame[at] = value;
                frame.truncate(len);
                if let Some(question) = Solicitation::read(ether_type, &frame) {
                    let mut answer = Vec::new();
                    question.write_answer(Known { mac: OWNER, is_router: false }, &mut answer);
                    prop_assert!(answer.len() == 42 || answer.len() == 86);
                }
            }
        }
    }
}
