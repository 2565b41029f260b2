//! Notices when the host's addresses or routes change.

use std::fmt;
use std::future::ready;
use std::ops::RangeInclusive;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};

use crate::NetlinkError;

/// The addresses and routes of the network namespace of the thread that opened it.
pub struct NetworkWatch {
    changes: BoxStream<'static, ()>,
}

impl NetworkWatch {
    /// Starts to watch, on a task of the tokio runtime that the caller is in. Routes in `own_tables` are our own and of no
    /// interest.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel gives no socket.
    pub fn open(own_tables: RangeInclusive<u32>) -> Result<Self, NetlinkError> {
        let groups = [
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|source| NetlinkError { operation: "watch addresses and routes".to_owned(), source })?;
        tokio::spawn(connection);
        let change = move |(message, _): (NetlinkMessage<RouteNetlinkMessage>, _)| {
            let NetlinkPayload::InnerMessage(message) = message.payload else { return ready(None) };
            ready(is_change(&message, &own_tables).then_some(()))
        };
        Ok(Self { changes: messages.filter_map(change).boxed() })
    }

    /// Waits for the next change; one cause often makes several. Cancelling loses nothing.
    pub async fn next_change(&mut self) -> Option<()> {
        self.changes.next().await
    }
}

impl fmt::Debug for NetworkWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkWatch").finish_non_exhaustive()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of all that netlink tells, these are about addresses and routes")]
fn is_change(message: &RouteNetlinkMessage, own_tables: &RangeInclusive<u32>) -> bool {
    match message {
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => true,
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            !own_tables.contains(&table(route))
        }
        _ => false,
    }
}

/// The routing table; those with numbers above 255 stand in an attribute.
fn table(route: &RouteMessage) -> u32 {
    let of = |attribute: &RouteAttribute| {
        if let RouteAttribute::Table(table) = attribute { Some(*table) } else { None }
    };
    route.attributes.iter().find_map(of).unwrap_or(route.header.table.into())
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressMessage;
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    fn route(table: u32) -> RouteMessage {
        let mut route = RouteMessage::default();
        match u8::try_from(table) {
            Ok(table) => route.header.table = table,
            Err(_) => route.attributes.push(RouteAttribute::Table(table)),
        }
        route
    }

    #[test]
    fn addresses_and_routes_of_others_count_and_our_own_routes_do_not() {
        assert!(is_change(&RouteNetlinkMessage::NewAddress(AddressMessage::default()), &(4301..=4430)));
        assert!(is_change(&RouteNetlinkMessage::DelAddress(AddressMessage::default()), &(4301..=4430)));
        assert!(is_change(&RouteNetlinkMessage::NewRoute(route(254)), &(4301..=4430)));
        assert!(is_change(&RouteNetlinkMessage::DelRoute(route(4431)), &(4301..=4430)));
        assert!(!is_change(&RouteNetlinkMessage::NewRoute(route(4301)), &(4301..=4430)));
        assert!(!is_change(&RouteNetlinkMessage::NewRoute(route(4430)), &(4301..=4430)));
        assert!(!is_change(&RouteNetlinkMessage::DelRoute(route(100)), &(100..=100)));
        assert!(!is_change(&RouteNetlinkMessage::NewLink(LinkMessage::default()), &(4301..=4430)));
    }
}
