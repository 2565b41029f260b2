//! NAT detection (RFC 7296 §2.23).

use std::net::SocketAddr;

use espdp_api::{Encapsulation, IkePath, OuterPath};

use super::context::Context;
use crate::crypto::hash::{NAT_DETECTION_LEN, nat_detection};
use crate::io::IkeSpi;
use crate::wire::{Notify, NotifyType, Payload};

/// Where NATs are between us and the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Nat {
    /// One is in front of us.
    pub(super) local: bool,
    /// One is in front of the peer, or the peer says so.
    pub(super) remote: bool,
    /// We said that there is one although there is none, to a peer that does NAT traversal.
    pub(super) fake: bool,
}

impl Nat {
    /// Reads the NAT_DETECTION notifications of a message that arrived on `path`. A peer without them does not do NAT
    /// traversal, so nothing is found. Of several source hashes one that fits is enough (R7296-2.23-5). `fake` tells
    /// whether we say that there is a NAT.
    pub(super) fn detect<'a>(
        notifies: impl Iterator<Item = &'a Notify> + Clone,
        spis: (IkeSpi, IkeSpi),
        path: IkePath,
        fake: bool,
    ) -> Self {
        let differs = |kind, address| {
            let expected = nat_detection(spis.0, spis.1, address);
            let mut hashes = notifies.clone().filter(|notify| notify.kind == kind).peekable();
            hashes.peek().is_some() && !hashes.any(|notify| notify.data == expected)
        };
        let (source, destination) = (NotifyType::NatDetectionSourceIp, NotifyType::NatDetectionDestinationIp);
        let traverses = notifies.clone().any(|notify| notify.kind == source || notify.kind == destination);
        Self { local: differs(destination, path.local), remote: differs(source, path.remote), fake: fake && traverses }
    }

    /// Whether ESP must travel in UDP (R7296-2.23-4).
    pub(super) fn encapsulates(self) -> bool {
        self.local || self.remote || self.fake
    }

    /// Whether the peer's address may change under way. The side behind a NAT does not follow changes, for it cannot
    /// tell them from an attack (R7296-2.23-6).
    pub(super) fn follows_peer(self) -> bool {
        self.remote && !self.local
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

/// Both NAT_DETECTION notifications of an IKE_SA_INIT message that goes out on `path`. With `fake` the source is a hash
/// of nothing, so that the peer sees a NAT in front of us and encapsulates ESP in UDP.
pub(super) fn nat_detection_payloads(
    cx: &mut Context,
    spis: (IkeSpi, IkeSpi),
    path: IkePath,
    fake: bool,
) -> [Payload; 2] {
    let source = if fake {
        let mut hash = [0; NAT_DETECTION_LEN];
        cx.random.fill_public(&mut hash);
        hash
    } else {
        nat_detection(spis.0, spis.1, path.local)
    };
    let destination = nat_detection(spis.0, spis.1, path.remote);
    [(NotifyType::NatDetectionSourceIp, source), (NotifyType::NatDetectionDestinationIp, destination)]
        .map(|(kind, hash)| Payload::Notify(Notify::with_data(kind, hash.to_vec())))
}

/// The path after the float to the NAT-T ports.
pub(super) fn floated(path: IkePath, nat_port: u16) -> IkePath {
    IkePath {
        local: SocketAddr::new(path.local.ip(), nat_port),
        remote: SocketAddr::new(path.remote.ip(), PEER_NAT_PORT),
    }
}

/// The port on which every peer expects NAT-T (RFC 7296 §2.23).
const PEER_NAT_PORT: u16 = 4500;

#[cfg(test)]
mod tests {
    use super::*;

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
        let straight = Nat::detect(notifies.iter(), SPIS, path("192.0.2.2:500", "10.0.0.1:500"), false);
        assert_eq!(straight, Nat::default());
        let in_front_of_peer = Nat::detect(notifies.iter(), SPIS, path("192.0.2.2:500", "192.0.2.1:1024"), false);
        assert_eq!(in_front_of_peer, Nat { remote: true, ..Nat::default() });
        let in_front_of_us = Nat::detect(notifies.iter(), SPIS, path("172.16.0.1:500", "10.0.0.1:500"), false);
        assert_eq!(in_front_of_us, Nat { local: true, ..Nat::default() });
    }

    /// R7296-2.23-5.
    #[test]
    fn one_fitting_source_hash_of_several_is_enough() {
        let mut notifies = vec![Notify::with_data(NotifyType::NatDetectionSourceIp, vec![0; 20])];
        let here = path("192.0.2.2:500", "10.0.0.1:500");
        assert!(Nat::detect(notifies.iter(), SPIS, here, false).remote);
        notifies.extend(sent_on(path("10.0.0.1:500", "192.0.2.2:500")));
        assert_eq!(Nat::detect(notifies.iter(), SPIS, here, false), Nat::default());
        assert_eq!(Nat::detect([].iter(), SPIS, here, false), Nat::default(), "the peer does not do NAT traversal");
        assert_eq!(Nat::detect([].iter(), SPIS, here, true), Nat::default(), "and sees no NAT that we make up");
        assert!(Nat::detect(notifies.iter(), SPIS, here, true).fake);
    }
}
