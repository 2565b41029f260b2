//! The kernel's table of neighbours: who on a link has which Ethernet address.

use std::fmt;
use std::future::ready;
use std::net::IpAddr;

use espdp_api::MacAddress;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as KernelState,
};

use crate::NetlinkError;

/// What the kernel knows of one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The number of the link.
    pub link: u32,
    /// Whom.
    pub address: IpAddr,
    /// Where; `None` when nobody answers there.
    pub station: Option<Station>,
}

/// Where a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Whether the kernel asks anew when it next sends something there (RFC 4861 §7.3.2: stale).
    pub is_stale: bool,
}

/// The neighbours on all links in the network namespace of the thread that opened it: first those that are known already, then
/// every change.
pub struct NeighbourWatch {
    changes: BoxStream<'static, Neighbour>,
}

impl NeighbourWatch {
    /// Starts to watch, on a task of the tokio runtime that the caller is in.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel gives no socket, or does not tell what it knows.
    pub async fn open() -> Result<Self, NetlinkError> {
        let failed = |source| NetlinkError { operation: "watch the neighbours".to_owned(), source };
        // Changes between the two are seen twice, which is better than never.
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Neigh]).map_err(failed)?;
        tokio::spawn(connection);
        let known: Vec<NeighbourMessage> = handle
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let known: Vec<Neighbour> = known.iter().filter_map(|message| neighbour(message, false)).collect();
        let change = |(message, _): (NetlinkMessage<RouteNetlinkMessage>, _)| ready(changed(message));
        Ok(Self { changes: stream::iter(known).chain(messages.filter_map(change)).boxed() })
    }

    /// Waits for the next neighbour that is known, or known better. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Neighbour> {
        self.changes.next().await
    }
}

impl fmt::Debug for NeighbourWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NeighbourWatch").finish_non_exhaustive()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of all that netlink tells, these are about neighbours")]
fn changed(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Neighbour> {
    let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
    match message {
        RouteNetlinkMessage::NewNeighbour(message) => neighbour(&message, false),
        RouteNetlinkMessage::DelNeighbour(message) => neighbour(&message, true),
        _ => None,
    }
}

/// What a message says; nothing when it is about stations of a bridge, or of another kind of link than Ethernet.
#[expect(clippy::wildcard_enum_match_arm, reason = "of all attributes, one is the address")]
fn neighbour(message: &NeighbourMessage, is_gone: bool) -> Option<Neighbour> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::LinkLayerAddress(octets) = attribute { octets[..].try_into().ok() } else { None }
    });
    let state = message.header.state;
    // Once the kernel has begun to ask, it goes on by itself.
    let is_fresh = matches!(
        state,
        KernelState::Reachable | KernelState::Noarp | KernelState::Permanent | KernelState::Delay | KernelState::Probe
    );
    let is_stale = if is_fresh { Some(false) } else { (state == KernelState::Stale).then_some(true) };
    let station = match (mac.map(MacAddress::new), is_stale) {
        (Some(mac), Some(is_stale)) if !is_gone && mac.is_station() => Some(Station { mac, is_stale }),
        _ => None,
    };
    Some(Neighbour { link: message.header.ifindex, address, station })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: KernelState, mac: &[u8]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        (message.header.ifindex, message.header.state) = (7, state);
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 9].into())));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message
    }

    fn station(state: KernelState, mac: &[u8]) -> Option<Station> {
        let found = neighbour(&message(state, mac), false).unwrap();
        assert_eq!((found.link, found.address), (7, IpAddr::from([10, 0, 0, 9])));
        found.station
    }

    #[test]
    fn only_neighbours_that_answer_at_an_address_of_their_own_can_be_sent_to() {
        let mac = [2, 0, 0, 0, 0, 9];
        let at = |is_stale| Some(Station { mac: MacAddress::new(mac), is_stale });
        assert_eq!(station(KernelState::Reachable, &mac), at(false));
        assert_eq!(station(KernelState::Stale, &mac), at(true));
        assert_eq!(station(KernelState::Probe, &mac), at(false));
        for state in [KernelState::Failed, KernelState::Incomplete, KernelState::None] {
            assert_eq!(station(state, &mac), None, "{state:?}");
        }
        for other in [&[0xff; 6][..], &[0; 6], &[2, 0, 0], &[]] {
            assert_eq!(station(KernelState::Reachable, other), None, "{other:?}");
        }
        assert_eq!(neighbour(&message(KernelState::Reachable, &mac), true).unwrap().station, None);
        assert_eq!(neighbour(&NeighbourMessage::default(), false), None);
    }
}
