//! What is done inside a namespace: links, addresses, routes and switches of the kernel, without any program's help.
//!
//! Every function works on the namespace of the calling thread, see [`Namespace::run`].

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use espdp_api::IpPrefix;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use serde::Serialize;

use super::netns::Namespace;

/// Brings the loopback interface up and sets what a node of a network needs set before it has other interfaces.
///
/// # Errors
/// [`RtnlError`] when the kernel refuses, for example because `/proc/sys` is mounted read-only.
pub fn prepare(forwards: bool) -> Result<(), RtnlError> {
    let forwarding = if forwards { "1" } else { "0" };
    for (key, value) in [
        ("net/ipv4/ip_forward", forwarding),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ] {
        write_sysctl(key, value)?;
    }
    // A kernel without IPv6 has none of these.
    if fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        for (key, value) in [
            ("net/ipv6/conf/all/disable_ipv6", "0"),
            ("net/ipv6/conf/default/disable_ipv6", "0"),
            ("net/ipv6/conf/all/forwarding", forwarding),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
        ] {
            write_sysctl(key, value)?;
        }
    }
    with_handle(async |handle| {
        let up = LinkUnspec::new_with_name("lo").up().build();
        handle.link().change(up).execute().await.map_err(|source| refused("bring `lo` up", source))
    })
}

/// Makes a pair of virtual Ethernet interfaces, `here` in this namespace and `there` in the other, both down.
///
/// # Errors
/// [`RtnlError`] when a name or number is taken or the kernel refuses.
pub fn add_veth(here: VethEnd<'_>, there: VethEnd<'_>, other: &Namespace, mtu: u32) -> Result<(), RtnlError> {
    let peer = LinkUnspec::new_with_name(there.name).index(there.index).mtu(mtu).setns_by_fd(other.as_raw_fd()).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(here.name)
        .index(here.index)
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    with_handle(async |handle| {
        handle.link().add(pair).execute().await.map_err(|source| refused(format!("make veth `{}`", here.name), source))
    })
}

/// One end of a pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number. The numbers of the ends must differ: a link to its own number in another namespace looks to Linux like
    /// none at all, and then takes up to a second to come up (`linkwatch_urgent_event`).
    pub index: u32,
}

/// Gives an interface its addresses, usable at once, and brings it up.
///
/// # Errors
/// [`RtnlError`] when there is no such interface or the kernel refuses.
pub fn configure(interface: &str, addresses: &[IpPrefix], mtu: u32) -> Result<(), RtnlError> {
    with_handle(async |handle| {
        let index = index_of(&handle, interface).await?;
        for prefix in addresses {
            let mut request = handle.address().add(index, prefix.address(), prefix.bits());
            // NODAD stands in the second, longer flags field only where the first cannot hold it; it can.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            request.execute().await.map_err(|source| refused(format!("add {prefix} to `{interface}`"), source))?;
        }
        let up = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        handle.link().change(up).execute().await.map_err(|source| refused(format!("bring `{interface}` up"), source))
    })
}

/// Has packets cut to size before they leave `interface`, so that a capture there shows what a real wire would: one
/// packet in each frame, not the super-packets that segmentation offload makes of many.
///
/// # Errors
/// [`RtnlError`] when there is no such interface or the kernel refuses.
pub fn one_packet_per_frame(interface: &str) -> Result<(), RtnlError> {
    with_handle(async |handle| {
        let index = index_of(&handle, interface).await?;
        let limit = LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::GsoMaxSegs(1)).build();
        let what = || format!("limit segmentation offload of `{interface}`");
        handle.link().change(limit).execute().await.map_err(|source| refused(what(), source))
    })
}

/// Adds a route through a neighbour.
///
/// # Errors
/// [`RtnlError`] when the gateway is no neighbour or the kernel refuses.
pub fn add_route(destination: IpPrefix, gateway: IpAddr) -> Result<(), RtnlError> {
    let message = match (destination.address(), gateway) {
        (IpAddr::V4(address), IpAddr::V4(gateway)) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, destination.bits())
            .gateway(gateway)
            .build(),
        (IpAddr::V6(address), IpAddr::V6(gateway)) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, destination.bits())
            .gateway(gateway)
            .build(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            return Err(RtnlError::MixedFamilies { destination, gateway });
        }
    };
    with_handle(async |handle| {
        let what = || format!("route {destination} through {gateway}");
        handle.route().add(message).execute().await.map_err(|source| refused(what(), source))
    })
}

/// An interface, as the kernel counts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceState {
    /// Its name.
    pub name: String,
    /// Its MTU in octets.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Packets received.
    pub rx_packets: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// Packets dropped in either direction.
    pub dropped: u64,
}

/// All interfaces but the loopback, in the kernel's order.
///
/// # Errors
/// [`RtnlError`] when the kernel does not say.
pub fn interfaces() -> Result<Vec<InterfaceState>, RtnlError> {
    with_handle(async |handle| {
        let links: Vec<LinkMessage> =
            handle.link().get().execute().try_collect().await.map_err(|source| refused("list interfaces", source))?;
        Ok(links.iter().map(interface_state).filter(|interface| interface.name != "lo").collect())
    })
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RtnlError {
    /// A netlink request failed.
    #[error("cannot {operation}")]
    Refused {
        /// What was asked.
        operation: String,
        /// What the kernel said.
        source: Box<rtnetlink::Error>,
    },
    /// A file, socket or thread was not to be had.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A route of one family through a gateway of the other.
    #[error("no route to {destination} through {gateway}: not the same family")]
    MixedFamilies {
        /// Where the route would lead.
        destination: IpPrefix,
        /// Through whom.
        gateway: IpAddr,
    },
}

fn interface_state(link: &LinkMessage) -> InterfaceState {
    let mut state = InterfaceState {
        name: String::new(),
        mtu: 0,
        up: link.header.flags.contains(LinkFlags::Up),
        rx_packets: 0,
        rx_bytes: 0,
        tx_packets: 0,
        tx_bytes: 0,
        dropped: 0,
    };
    for attribute in &link.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel says a great deal more than we ask")]
        match attribute {
            LinkAttribute::IfName(name) => state.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => state.mtu = *mtu,
            LinkAttribute::Stats64(counters) => {
                state.rx_packets = counters.rx_packets;
                state.rx_bytes = counters.rx_bytes;
                state.tx_packets = counters.tx_packets;
                state.tx_bytes = counters.tx_bytes;
                state.dropped = counters.rx_dropped.saturating_add(counters.tx_dropped);
            }
            _ => {}
        }
    }
    state
}

async fn index_of(handle: &Handle, interface: &str) -> Result<u32, RtnlError> {
    let mut request = handle.link().get();
    *request.message_mut() = LinkUnspec::new_with_name(interface).build();
    let find = || format!("find interface `{interface}`");
    let links: Vec<LinkMessage> = request.execute().try_collect().await.map_err(|source| refused(find(), source))?;
    let named = |link: &&LinkMessage| {
        link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(name) if name == interface))
    };
    let absent = || RtnlError::Io { operation: find(), source: io::ErrorKind::NotFound.into() };
    links.iter().find(named).map(|link| link.header.index).ok_or_else(absent)
}

/// Runs `work` with a netlink socket of the calling thread's namespace.
fn with_handle<T>(work: impl AsyncFnOnce(Handle) -> Result<T, RtnlError>) -> Result<T, RtnlError> {
    let open = |source| RtnlError::Io { operation: "open a netlink socket".to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(open)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(open)?;
        let connection = tokio::spawn(connection);
        let result = work(handle).await;
        connection.abort();
        result
    })
}

fn write_sysctl(key: &str, value: &str) -> Result<(), RtnlError> {
    let path = format!("/proc/sys/{key}");
    fs::write(&path, value).map_err(|source| RtnlError::Io { operation: format!("write {value} to {path}"), source })
}

fn refused(operation: impl Into<String>, source: rtnetlink::Error) -> RtnlError {
    RtnlError::Refused { operation: operation.into(), source: Box::new(source) }
}
