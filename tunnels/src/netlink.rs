//! Takes plan steps and asks about routes over rtnetlink.

mod asked;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use espdp_api::{InterfaceName, IpPrefix, StaticRoute};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::{IpVersion, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::{Family, NetworkState, RouteKey, RouteTarget, Rule, Step, plan};
use asked::{blackhole_message, mark_message, static_message};

/// A connection to the kernel's rtnetlink in the network namespace of the thread that opened it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

/// How datagrams travel to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathToPeer {
    /// The address that the kernel would send from.
    pub source: IpAddr,
    /// The largest datagram, IP header included, in octets: the path MTU when one is known, else the MTU of the link.
    pub mtu: u32,
    /// How that is known.
    pub known_from: KnownFrom,
    /// The MTU of the link, in octets.
    pub link_mtu: u32,
}

/// How the kernel knows what a path carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownFrom {
    /// It is what the first link carries.
    Link,
    /// The route says so.
    Route,
    /// An ICMP message said so, and it will be forgotten (RFC 1191 §6.3).
    Message,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// The index of the link that has it.
    pub link: u32,
}

impl Netlink {
    /// Opens the connection; it lives on a task of the tokio runtime that the caller is in.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _multicast) = rtnetlink::new_connection()
            .map_err(|source| NetlinkError { operation: "open a netlink socket".to_owned(), source })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Leads the kernel from `actual` to `desired`, as far as it goes: a step that the kernel refuses does not keep it from the others.
    ///
    /// # Errors
    /// [`NetlinkError`] of the first step that the kernel refuses.
    pub async fn apply(&self, actual: &mut NetworkState, desired: &NetworkState) -> Result<(), NetlinkError> {
        self.apply_each(actual, desired).await.into_iter().next().map_or(Ok(()), Err)
    }

    /// Does as [`Self::apply`] and says what the kernel refused, which may succeed another time. After each step `actual` holds what is
    /// there now.
    pub async fn apply_each(&self, actual: &mut NetworkState, desired: &NetworkState) -> Vec<NetlinkError> {
        let mut failed = Vec::new();
        for step in plan(actual, desired) {
            tracing::debug!(%step, "network");
            match self.take(&step).await {
                Ok(()) => step.record(actual),
                Err(source) => failed.push(NetlinkError { operation: step.to_string(), source }),
            }
        }
        failed
    }

    /// Takes away everything that `actual` holds beyond `kept`, as far as the kernel lets us; links are left to their makers.
    pub async fn clear(&self, actual: &mut NetworkState, kept: &NetworkState) {
        for step in plan(actual, kept) {
            match self.take(&step).await {
                Ok(()) => step.record(actual),
                Err(error) => {
                    tracing::warn!(%error, "could not clean up");
                    tracing::debug!(%step, "what stays");
                }
            }
        }
    }

    /// Asks the kernel for the route that a packet to `remote` with `mark` would take.
    ///
    /// # Errors
    /// [`NetlinkError`] when there is no route.
    pub async fn path_to(&self, remote: IpAddr, mark: u32) -> Result<PathToPeer, NetlinkError> {
        let failed = |source| NetlinkError { operation: format!("look up the route to {remote}"), source };
        let no_source = || failed(io::Error::new(io::ErrorKind::AddrNotAvailable, "the route has no source address"));
        let route = self.route_to(remote, mark).await.map_err(failed)?;
        let (mut source, mut link, mut path_mtu, mut expires) = (None, None, None, false);
        for attribute in &route.attributes {
            if let RouteAttribute::PrefSource(RouteAddress::Inet(address)) = attribute {
                source = Some(IpAddr::V4(*address));
            } else if let RouteAttribute::PrefSource(RouteAddress::Inet6(address)) = attribute {
                source = Some(IpAddr::V6(*address));
            } else if let RouteAttribute::Oif(index) = attribute {
                link = Some(*index);
            } else if let RouteAttribute::Metrics(metrics) = attribute {
                path_mtu = metrics.iter().find_map(mtu_metric);
            } else if let RouteAttribute::CacheInfo(cached) = attribute {
                // Only what was learned has an end.
                expires = cached.expires != 0;
            }
        }
        let link_mtu = match link {
            Some(link) => self.link_mtu(link).await.map_err(failed)?,
            None => ETHERNET_MTU,
        };
        let known_from = match (path_mtu, expires) {
            (None, _) => KnownFrom::Link,
            (Some(_), false) => KnownFrom::Route,
            (Some(_), true) => KnownFrom::Message,
        };
        let mtu = path_mtu.unwrap_or(link_mtu);
        Ok(PathToPeer { source: source.ok_or_else(no_source)?, mtu, known_from, link_mtu })
    }

    /// The name of the link that the kernel would send packets to.
    ///
    /// # Errors
    /// [`NetlinkError`] when there is no route, or it leads to no link.
    pub async fn link_to(&self, destination: IpAddr) -> Result<String, NetlinkError> {
        let failed = |source| NetlinkError { operation: format!("look up the route to {destination}"), source };
        let route = self.route_to(destination, 0).await.map_err(failed)?;
        let index = |attribute: &RouteAttribute| {
            if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
        };
        let index = route.attributes.iter().find_map(index);
        let nowhere = || failed(io::Error::from_raw_os_error(libc::ENETUNREACH));
        let request = self.handle.link().get().match_index(index.ok_or_else(nowhere)?);
        let link = request.execute().try_next().await.map_err(|error| failed(into_io(error)))?;
        let name = |attribute: &LinkAttribute| {
            if let LinkAttribute::IfName(name) = attribute { Some(name.clone()) } else { None }
        };
        let name = link.iter().flat_map(|link| &link.attributes).find_map(name);
        name.ok_or_else(nowhere)
    }

    /// The addresses of this host that can be used now, in the kernel's order.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not list them.
    pub async fn local_addresses(&self) -> Result<Vec<LocalAddress>, NetlinkError> {
        let failed = |source| NetlinkError { operation: "list the local addresses".to_owned(), source };
        let messages: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(|error| failed(into_io(error)))?;
        Ok(messages.iter().filter_map(local_address).collect())
    }

    /// The rules of a family that are like ours, whoever made them: without packets of one mark, and without any other condition.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not list them.
    pub async fn rules(&self, family: Family) -> Result<BTreeSet<Rule>, NetlinkError> {
        let messages = self.all_rules(family).await?;
        Ok(messages.iter().filter_map(|message| rule(family, message)).collect())
    }

    /// The rules of a family, whoever made them.
    async fn all_rules(&self, family: Family) -> Result<Vec<RuleMessage>, NetlinkError> {
        let failed = |error| NetlinkError { operation: format!("list the {family} rules"), source: into_io(error) };
        let version = match family {
            Family::V4 => IpVersion::V4,
            Family::V6 => IpVersion::V6,
        };
        self.handle.rule().get(version).execute().try_collect().await.map_err(failed)
    }

    /// The index of a link.
    ///
    /// # Errors
    /// [`NetlinkError`] when there is none of this name.
    pub async fn link_index(&self, name: &InterfaceName) -> Result<u32, NetlinkError> {
        let failed = |source| NetlinkError { operation: format!("find the link {name}"), source };
        self.index(name).await.map_err(failed)
    }

    async fn take(&self, step: &Step) -> io::Result<()> {
        match step {
            Step::SetMtu(name, mtu) => {
                let link = LinkMessageBuilder::<LinkUnspec>::new().index(self.index(name).await?).mtu(*mtu).build();
                self.handle.link().change(link).execute().await.map_err(into_io)
            }
            Step::SetUp(name) => self.set_up(name).await,
            Step::AddAddress(name, address) => self.add_address(name, *address).await,
            Step::RemoveAddress(name, address) => {
                let message = address_message(self.index(name).await?, *address);
                accept(self.handle.address().del(message).execute().await, &[libc::EADDRNOTAVAIL])
            }
            Step::SetRoute(key, target) => {
                let link = self.index(&target.interface).await?;
                self.handle.route().add(route_message(*key, target, link)?).replace().execute().await.map_err(into_io)
            }
            Step::RemoveRoute(key) => {
                // IPv4 routes are removed by their scope, too, and this one stands for any.
                let message = route_builder(*key)?.scope(RouteScope::NoWhere).build();
                // ESRCH: the kernel took it away already, with its link or its preferred source.
                accept(self.handle.route().del(message).execute().await, &[libc::ESRCH])
            }
            Step::AddRule(rule) => {
                let mut request = self.handle.rule().add();
                *request.message_mut() = rule_message(rule);
                accept(request.execute().await, &[libc::EEXIST])
            }
            Step::RemoveRule(rule) => {
                accept(self.handle.rule().del(rule_message(rule)).execute().await, &[libc::ENOENT])
            }
            Step::AddBlackhole(key) => {
                self.handle.route().add(blackhole_message(*key)?).replace().execute().await.map_err(into_io)
            }
            Step::RemoveBlackhole(key) => {
                accept(self.handle.route().del(blackhole_message(*key)?).execute().await, &[libc::ESRCH])
            }
            Step::AddStaticRoute(route) => {
                let message = static_message(route, self.link_of(route).await?)?;
                self.handle.route().add(message).replace().execute().await.map_err(into_io)
            }
            Step::RemoveStaticRoute(route) => {
                // With its link the route went, too.
                let Ok(link) = self.link_of(route).await else { return Ok(()) };
                accept(self.handle.route().del(static_message(route, link)?).execute().await, &[libc::ESRCH])
            }
            Step::AddMarkRule(rule) => {
                let mut request = self.handle.rule().add();
                *request.message_mut() = mark_message(rule);
                accept(request.execute().await, &[libc::EEXIST])
            }
            Step::RemoveMarkRule(rule) => {
                accept(self.handle.rule().del(mark_message(rule)).execute().await, &[libc::ENOENT])
            }
        }
    }

    async fn set_up(&self, name: &InterfaceName) -> io::Result<()> {
        let index = self.index(name).await?;
        let quiet = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )])]);
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(index).append_extra_attribute(quiet).build();
        // Without IPv6 there is nothing to keep quiet.
        accept(self.handle.link().change(link).execute().await, &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP])?;
        let link = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
        self.handle.link().change(link).execute().await.map_err(into_io)
    }

    async fn add_address(&self, name: &InterfaceName, address: IpPrefix) -> io::Result<()> {
        let index = self.index(name).await?;
        let mut request = self.handle.address().add(index, address.address(), address.bits()).replace();
        // Nobody else is on a point-to-point tunnel, and a tentative address could not be used at once.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(into_io)
    }

    /// The index of the interface that a route names, if it names one.
    async fn link_of(&self, route: &StaticRoute) -> io::Result<Option<u32>> {
        match &route.interface {
            Some(name) => Ok(Some(self.index(name).await?)),
            None => Ok(None),
        }
    }

    async fn index(&self, name: &InterfaceName) -> io::Result<u32> {
        let mut links = self.handle.link().get().match_name(name.as_str()).execute();
        let link = links.try_next().await.map_err(into_io)?;
        link.map(|link| link.header.index).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    async fn link_mtu(&self, index: u32) -> io::Result<u32> {
        let link: Option<LinkMessage> =
            self.handle.link().get().match_index(index).execute().try_next().await.map_err(into_io)?;
        let mut attributes = link.iter().flat_map(|link| &link.attributes);
        let mtu =
            attributes.find_map(|attribute| if let LinkAttribute::Mtu(mtu) = attribute { Some(*mtu) } else { None });
        Ok(mtu.unwrap_or(ETHERNET_MTU))
    }

    async fn route_to(&self, remote: IpAddr, mark: u32) -> io::Result<RouteMessage> {
        let key = IpPrefix::new(remote, if remote.is_ipv4() { 32 } else { 128 }).map_err(io::Error::other)?;
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(key.address(), key.bits())
            .map_err(|error| io::Error::other(error.to_string()))?
            .mark(mark)
            .build();
        message.header.table = 0;
        message.header.protocol = RouteProtocol::Unspec;
        let mut routes = Box::pin(self.handle.route().get(message).execute());
        routes.try_next().await.map_err(into_io)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENETUNREACH))
    }
}

/// A step that the kernel refused, or a question it could not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {source}")]
pub struct NetlinkError {
    /// What was tried.
    pub operation: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// What most links carry; for routes that name neither an MTU nor a link.
const ETHERNET_MTU: u32 = 1500;

fn route_builder(key: RouteKey) -> io::Result<RouteMessageBuilder<IpAddr>> {
    let builder = RouteMessageBuilder::<IpAddr>::new().table_id(key.table);
    builder
        .destination_prefix(key.destination.address(), key.destination.bits())
        .map_err(|error| io::Error::other(error.to_string()))
}

fn route_message(key: RouteKey, target: &RouteTarget, link: u32) -> io::Result<RouteMessage> {
    let mut builder = route_builder(key)?.output_interface(link).scope(RouteScope::Link);
    if let Some(source) = target.source {
        builder = builder.pref_source(source).map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(builder.build())
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.header.flags = RuleFlags::Invert;
    message.attributes = vec![
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.except_mark),
        RuleAttribute::FwMask(u32::MAX),
    ];
    message.attributes.extend(rule.longer_than.map(|bits| RuleAttribute::SuppressPrefixLen(bits.into())));
    message
}

/// The reverse of [`rule_message`]; `None` for rules of any other form.
fn rule(family: Family, message: &RuleMessage) -> Option<Rule> {
    let (mut table, mut priority, mut mark, mut mask, mut longer_than) = (None, None, None, None, None);
    for attribute in &message.attributes {
        if let RuleAttribute::Table(number) = attribute {
            table = Some(*number);
        } else if let RuleAttribute::Priority(number) = attribute {
            priority = Some(*number);
        } else if let RuleAttribute::FwMark(bits) = attribute {
            mark = Some(*bits);
        } else if let RuleAttribute::FwMask(bits) = attribute {
            mask = Some(*bits);
        } else if let RuleAttribute::SuppressPrefixLen(bits) = attribute {
            // All ones: nothing is suppressed.
            longer_than = u8::try_from(*bits).ok();
        } else if !matches!(attribute, RuleAttribute::Protocol(_)) {
            return None;
        }
    }
    let header = &message.header;
    let of_this_form =
        header.action == RuleAction::ToTable && header.flags == RuleFlags::Invert && mask == Some(u32::MAX);
    let (table, priority, except_mark) = (table?, priority?, mark?);
    of_this_form.then_some(Rule { family, priority, table, except_mark, longer_than })
}

fn address_message(link: u32, address: IpPrefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match address.address() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.index = link;
    message.header.prefix_len = address.bits();
    message.attributes = vec![AddressAttribute::Local(address.address()), AddressAttribute::Address(address.address())];
    message
}

/// `None` for addresses that cannot be a source: those of narrow scope, and those that are not yet or no longer good.
fn local_address(message: &AddressMessage) -> Option<LocalAddress> {
    let (mut local, mut remote, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            local = Some(*address);
        } else if let AddressAttribute::Address(address) = attribute {
            remote = Some(*address);
        } else if let AddressAttribute::Flags(all) = attribute {
            flags = *all;
        }
    }
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let usable = message.header.scope == AddressScope::Universe && !flags.intersects(unusable);
    // On point-to-point links IFA_ADDRESS is the other end; where there is no other end, IPv6 gives IFA_ADDRESS alone.
    let address = local.or(remote).filter(|_| usable)?;
    Some(LocalAddress { address, link: message.header.index })
}

fn mtu_metric(metric: &RouteMetric) -> Option<u32> {
    if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None }
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error {
        return message.to_io();
    }
    io::Error::other(error.to_string())
}

/// Takes an error that means "it is so already" as success.
fn accept(result: Result<(), rtnetlink::Error>, harmless: &[i32]) -> io::Result<()> {
    match result.map_err(into_io) {
        Err(error) if error.raw_os_error().is_some_and(|code| harmless.contains(&code)) => Ok(()),
        other => other,
    }
}
