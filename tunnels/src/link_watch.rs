//! Notices when somebody sets a link up.

use std::fmt;

use espdp_api::InterfaceName;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use crate::NetlinkError;

/// The links that are set up, by us or anybody else, in the network namespace of the thread that opened it.
pub struct LinkWatch {
    set_up: BoxStream<'static, InterfaceName>,
}

impl LinkWatch {
    /// Starts to watch, on a task of the tokio runtime that the caller is in.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
            .map_err(|source| NetlinkError { operation: "watch the links".to_owned(), source })?;
        tokio::spawn(connection);
        let link_set_up = async |(message, _): (NetlinkMessage<RouteNetlinkMessage>, _)| {
            let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload else { return None };
            set_up(&link)
        };
        Ok(Self { set_up: messages.filter_map(link_set_up).boxed() })
    }

    /// Waits for the next link that is set up. Cancelling loses nothing.
    pub async fn next_set_up(&mut self) -> Option<InterfaceName> {
        self.set_up.next().await
    }
}

impl fmt::Debug for LinkWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkWatch").finish_non_exhaustive()
    }
}

/// The name of a link that has just been set up. Changes of anything else are reported with the same kind of message.
fn set_up(link: &LinkMessage) -> Option<InterfaceName> {
    let header = &link.header;
    if !(header.flags & header.change_mask).contains(LinkFlags::Up) {
        return None;
    }
    let name = |attribute: &LinkAttribute| {
        if let LinkAttribute::IfName(name) = attribute { InterfaceName::new(name).ok() } else { None }
    };
    link.attributes.iter().find_map(name)
}
