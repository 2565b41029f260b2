//! NAT detection (RFC 7296 §2.23).

use espdp_api::{AddressRange, Encapsulation, IkePath, OuterPath, TrafficSelector};

use super::context::Context;
use crate::config::{Connection, UdpEncapsulation};
use crate::crypto::hash::{NAT_DETECTION_LEN, nat_detection};
use crate::io::IkeSpi;
use crate::wire::{Notify, NotifyType, Payload};

/// Where NATs are between us and the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Nat {
    /// Both ends look for NATs and can work around them.
    pub(super) traverses: bool,
    /// One is in front of us.
    pub(super) local: bool,
    /// One is in front of the peer, or the peer says so.
    pub(super) remote: bool,
    /// ESP travels in UDP as if there were one, because we said so to a peer that does NAT traversal, or both of us want it.
    pub(super) fake: bool,
}

impl Nat {
    /// Reads the NAT_DETECTION notifications of a message that arrived on `path`. A peer without them does not do NAT
    /// traversal, and with [`UdpEncapsulation::Refuse`] we do not, so nothing is found. Of several source hashes one that
    /// fits is enough (R7296-2.23-5). With [`UdpEncapsulation::Force`] we say that there is a NAT.
    pub(super) fn detect<'a>(
        notifies: impl Iterator<Item = &'a Notify> + Clone,
        spis: (IkeSpi, IkeSpi),
        path: IkePath,
        encapsulation: UdpEncapsulation,
    ) -> Self {
        if encapsulation == UdpEncapsulation::Refuse || !is_detecting(notifies.clone()) {
            return Self::default();
        }
        let differs = |kind, address| {
            let expected = nat_detection(spis.0, spis.1, address);
            let mut hashes = notifies.clone().filter(|notify| notify.kind == kind).peekable();
            hashes.peek().is_some() && !hashes.any(|notify| notify.data == expected)
        };
        Self {
            traverses: true,
            local: differs(NotifyType::NatDetectionDestinationIp, path.local),
            remote: differs(NotifyType::NatDetectionSourceIp, path.remote),
            fake: encapsulation == UdpEncapsulation::Force,
        }
    }

    /// Whether ESP must travel in UDP (R7296-2.23-4).
    pub(super) fn encapsulates(self) -> bool {
        self.local || self.remote || self.fake
    }

    /// How ESP travels and why, where [`UdpEncapsulation::Auto`] left it open.
    pub(super) fn choice(self, encapsulation: UdpEncapsulation) -> Option<&'static str> {
        match (encapsulation, self.local || self.remote, self.fake) {
            (UdpEncapsulation::Auto, true, _) => Some("ESP travels in UDP because of a NAT"),
            (UdpEncapsulation::Auto, _, true) => Some(
                "ESP travels in UDP for speed: both ends have `encapsulation = \"auto\"`, and kernels segment UDP but not ESP",
            ),
            (UdpEncapsulation::Auto, ..) => Some(
                "ESP travels directly in IP: there is no NAT, and the peer does not have `encapsulation = \"auto\"`",
            ),
            (UdpEncapsulation::Detect | UdpEncapsulation::Force | UdpEncapsulation::Refuse, ..) => None,
        }
    }

    /// Whether the peer's address may change under way. The side behind a NAT does not follow changes, for it cannot
    /// tell them from an attack (R7296-2.23-6).
    pub(super) fn follows_peer(self) -> bool {
        self.remote && !self.local
    }

    /// Prepares the selectors of transport mode for a peer behind a NAT: each side has just the address that IKE uses
    /// (R7296-2.23-1), if the configuration has it.
    pub(super) fn narrow_to_hosts(
        self,
        path: IkePath,
        local: &mut Vec<TrafficSelector>,
        remote: &mut Vec<TrafficSelector>,
    ) {
        if self.local || self.remote {
            for (side, host) in [(local, path.local.ip()), (remote, path.remote.ip())] {
                // Without it there is nothing to offer that would be right, and the peer says what it thinks of that.
                if side.iter().any(|selector| selector.addresses.contains(host)) {
                    side.retain(|selector| selector.addresses.contains(host));
                    side.iter_mut().for_each(|selector| selector.addresses = AddressRange::single(host));
                }
            }
        }
    }

    /// Reads the selectors of transport mode that the peer sent through a NAT: addresses behind a NAT mean nothing on this
    /// side of it, those that are seen here take their place (RFC 7296 §2.23.1). Selectors of more than one address are left
    /// out, for nobody could say which one is meant (R7296-2.23-1).
    pub(super) fn show_hosts(self, path: IkePath, local: &mut Vec<TrafficSelector>, remote: &mut Vec<TrafficSelector>) {
        if self.local || self.remote {
            for (side, natted, host) in [(local, self.local, path.local.ip()), (remote, self.remote, path.remote.ip())]
            {
                side.retain(|selector| selector.addresses.start() == selector.addresses.end());
                if natted {
                    side.iter_mut().for_each(|selector| selector.addresses = AddressRange::single(host));
                }
            }
        }
    }

    /// How ESP travels when IKE travels on `path`. ESP in UDP needs our NAT-T port: a peer that sees the NAT and keeps
    /// away from it gets plain ESP (R7296-2.23-2).
    pub(super) fn outer_path(self, path: IkePath, nat_port: u16) -> OuterPath {
        let encapsulation = if self.encapsulates() && path.local.port() == nat_port {
            Encapsulation::Udp { local_port: path.local.port(), remote_port: path.remote.port() }
        } else {
            Encapsulation::Esp
        };
        OuterPath { local: path.local.ip(), remote: path.remote.ip(), encapsulation }
    }
}

/// What [`UdpEncapsulation::Auto`] comes down to: with a peer that says the same, ESP travels in UDP as behind a NAT.
pub(super) fn agreed(encapsulation: UdpEncapsulation, peer_says_so: bool) -> UdpEncapsulation {
    match encapsulation {
        UdpEncapsulation::Auto if peer_says_so => UdpEncapsulation::Force,
        UdpEncapsulation::Auto => UdpEncapsulation::Detect,
        UdpEncapsulation::Detect | UdpEncapsulation::Force | UdpEncapsulation::Refuse => encapsulation,
    }
}

/// How an IKE_SA_INIT message says [`UdpEncapsulation::Auto`] (RFC 7296 §3.12: whoever does not know a vendor ID ignores it).
pub(super) fn for_speed(encapsulation: UdpEncapsulation) -> Option<Payload> {
    (encapsulation == UdpEncapsulation::Auto).then(|| Payload::VendorId(FOR_SPEED.to_vec()))
}

/// Whether an IKE_SA_INIT message says [`UdpEncapsulation::Auto`].
pub(super) fn wants_speed(payloads: &[Payload]) -> bool {
    payloads.iter().any(|payload| matches!(payload, Payload::VendorId(id) if id == FOR_SPEED))
}

/// Our own vendor ID for this.
const FOR_SPEED: &[u8] = b"charon-rs: ESP in UDP for speed";

/// Whether a message has NAT_DETECTION notifications.
pub(super) fn is_detecting<'a>(mut notifies: impl Iterator<Item = &'a Notify>) -> bool {
    let kinds = [NotifyType::NatDetectionSourceIp, NotifyType::NatDetectionDestinationIp];
    notifies.any(|notify| kinds.contains(&notify.kind))
}

/// Both NAT_DETECTION notifications of a message that goes out on `path`. With [`UdpEncapsulation::Force`] the source is a
/// hash of nothing, so that the peer sees a NAT in front of us and encapsulates ESP in UDP; with
/// [`UdpEncapsulation::Refuse`] there are none.
pub(super) fn nat_detection_payloads(
    cx: &mut Context,
    spis: (IkeSpi, IkeSpi),
    path: IkePath,
    encapsulation: UdpEncapsulation,
) -> Vec<Payload> {
    let source = match encapsulation {
        UdpEncapsulation::Refuse => return Vec::new(),
        UdpEncapsulation::Force => {
            let mut hash = [0; NAT_DETECTION_LEN];
            cx.random.fill_public(&mut hash);
            hash
        }
        UdpEncapsulation::Detect | UdpEncapsulation::Auto => nat_detection(spis.0, spis.1, path.local),
    };
    let destination = nat_detection(spis.0, spis.1, path.remote);
    [(NotifyType::NatDetectionSourceIp, source), (NotifyType::NatDetectionDestinationIp, destination)]
        .map(|(kind, hash)| Payload::Notify(Notify::with_data(kind, hash.to_vec())))
        .to_vec()
}

/// The initiator's path from IKE_AUTH on. With a NAT under way everything goes to the NAT-T ports (R7296-2.23-2). So does
/// everything where MOBIKE is wanted and both ends can, in case a NAT appears later (R4555-3.3-1); whether the peer wants
/// it, too, only IKE_AUTH tells.
pub(super) fn path_after_init(path: IkePath, nat: Nat, connection: &Connection, nat_port: u16) -> IkePath {
    let floats = nat.encapsulates() || connection.mobike && nat.traverses;
    if !floats || path.local.port() == nat_port {
        return path;
    }
    let mut floated = path;
    floated.local.set_port(nat_port);
    floated.remote.set_port(PEER_NAT_PORT);
    floated
}

/// The port on which every peer expects NAT-T (RFC 7296 §2.23).
const PEER_NAT_PORT: u16 = 4500;

#[cfg(test)]
mod tests {
    use UdpEncapsulation::{Detect, Force, Refuse};

    use super::*;

    const NO_NAT: Nat = Nat { traverses: true, local: false, remote: false, fake: false };

    const SPIS: (IkeSpi, IkeSpi) = (IkeSpi([1; 8]), IkeSpi([2; 8]));

    fn path(local: &str, remote: &str) -> IkePath {
        IkePath { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn sent_on(path: IkePath) -> Vec<Notify> {
        [(NotifyType::NatDetectionSourceIp, path.local), (NotifyType::NatDetectionDestinationIp, path.remote)]
            .map(|(kind, address)| Notify::with_data(kind, nat_detection(SPIS.0, SPIS.1, address).to_vec()))
            .to_vec()
    }

    #[test]
    fn a_nat_is_seen_on_the_side_where_the_address_changed() {
        let notifies = sent_on(path("10.0.0.1:500", "192.0.2.2:500"));
        let straight = Nat::detect(notifies.iter(), SPIS, path("192.0.2.2:500", "10.0.0.1:500"), Detect);
        assert_eq!(straight, NO_NAT);
        let in_front_of_peer = Nat::detect(notifies.iter(), SPIS, path("192.0.2.2:500", "192.0.2.1:1024"), Detect);
        assert_eq!(in_front_of_peer, Nat { remote: true, ..NO_NAT });
        let in_front_of_us = Nat::detect(notifies.iter(), SPIS, path("172.16.0.1:500", "10.0.0.1:500"), Detect);
        assert_eq!(in_front_of_us, Nat { local: true, ..NO_NAT });
        let both = Nat::detect(notifies.iter(), SPIS, path("172.16.0.1:500", "192.0.2.1:1024"), Detect);
        assert_eq!(both, Nat { local: true, remote: true, ..NO_NAT });
        assert!(!both.follows_peer(), "R7296-2.23-6");
    }

    /// R7296-2.23-5.
    #[test]
    fn one_fitting_source_hash_of_several_is_enough() {
        let mut notifies = vec![Notify::with_data(NotifyType::NatDetectionSourceIp, vec![0; 20])];
        let here = path("192.0.2.2:500", "10.0.0.1:500");
        assert!(Nat::detect(notifies.iter(), SPIS, here, Detect).remote);
        notifies.extend(sent_on(path("10.0.0.1:500", "192.0.2.2:500")));
        assert_eq!(Nat::detect(notifies.iter(), SPIS, here, Detect), NO_NAT);
        assert_eq!(Nat::detect([].iter(), SPIS, here, Detect), Nat::default(), "the peer does not do NAT traversal");
        assert_eq!(Nat::detect([].iter(), SPIS, here, Force), Nat::default(), "and sees no NAT that we make up");
        assert!(Nat::detect(notifies.iter(), SPIS, here, Force).fake);
    }

    fn selectors(ranges: &[(&str, &str)]) -> Vec<TrafficSelector> {
        let range = |(start, end): &(&str, &str)| AddressRange::new(start.parse().unwrap(), end.parse().unwrap());
        ranges.iter().map(|pair| TrafficSelector::any_protocol(range(pair).unwrap())).collect()
    }

    /// R7296-2.23-1.
    #[test]
    fn behind_a_nat_transport_mode_is_for_one_address_on_each_side() {
        let here = path("10.0.0.1:4500", "192.0.2.2:4500");
        let offered = |nat: Nat| {
            let mut local = selectors(&[("10.0.0.0", "10.0.0.255"), ("172.16.0.0", "172.16.0.9")]);
            let mut remote = selectors(&[("192.0.2.0", "192.0.2.255")]);
            nat.narrow_to_hosts(here, &mut local, &mut remote);
            (local, remote)
        };
        let hosts = (selectors(&[("10.0.0.1", "10.0.0.1")]), selectors(&[("192.0.2.2", "192.0.2.2")]));
        assert_eq!(offered(Nat { local: true, ..NO_NAT }), hosts);
        assert_eq!(offered(NO_NAT).0.len(), 2, "without a NAT they stay");
        let (mut elsewhere, mut remote) = (selectors(&[("10.1.0.0", "10.1.0.255")]), hosts.1.clone());
        Nat { local: true, ..NO_NAT }.narrow_to_hosts(here, &mut elsewhere, &mut remote);
        assert_eq!(elsewhere.len(), 1, "an offer is never empty");

        let read = |nat: Nat| {
            let mut local = selectors(&[("203.0.113.9", "203.0.113.9"), ("203.0.113.0", "203.0.113.255")]);
            let mut remote = selectors(&[("172.16.0.1", "172.16.0.1"), ("172.16.0.0", "172.16.255.255")]);
            nat.show_hosts(here, &mut local, &mut remote);
            (local, remote)
        };
        assert_eq!(read(Nat { local: true, remote: true, ..NO_NAT }), hosts);
        let as_sent = selectors(&[("203.0.113.9", "203.0.113.9")]);
        assert_eq!(read(Nat { remote: true, ..NO_NAT }), (as_sent, hosts.1), "only addresses behind a NAT change");
    }

    #[test]
    fn whoever_refuses_encapsulation_sees_no_nat() {
        let notifies = sent_on(path("10.0.0.1:500", "192.0.2.2:500"));
        let natted = path("172.16.0.1:500", "192.0.2.1:1024");
        assert_eq!(Nat::detect(notifies.iter(), SPIS, natted, Refuse), Nat::default());
    }

    /// R7296-2.23-2, R4555-3.3-1.
    #[test]
    fn ike_floats_for_a_nat_and_for_mobike_if_both_ends_can() {
        let before = path("10.0.0.1:500", "192.0.2.2:500");
        let connection = |mobike| Connection { mobike, ..Connection::new("test") };
        let ports = |nat, mobike| {
            let after = path_after_init(before, nat, &connection(mobike), 14500);
            (after.local.port(), after.remote.port())
        };
        assert_eq!(ports(NO_NAT, false), (500, 500));
        assert_eq!(ports(Nat { local: true, ..NO_NAT }, false), (14500, 4500));
        assert_eq!(ports(NO_NAT, true), (14500, 4500));
        assert_eq!(ports(Nat::default(), true), (500, 500), "the peer does no NAT traversal");
        let from_nat_port = path("10.0.0.1:14500", "192.0.2.2:24500");
        assert_eq!(path_after_init(from_nat_port, NO_NAT, &connection(true), 14500), from_nat_port);
    }
}
