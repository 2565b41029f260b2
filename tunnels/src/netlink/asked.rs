//! Routes and rules that do not follow from tunnels: blackholes, routes that were asked for, and rules for marked packets.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use espdp_api::{IpPrefix, StaticRoute};
use futures_util::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{Netlink, NetlinkError, accept, into_io, route_builder};
use crate::state::everything;
use crate::{Family, MarkRule, RouteKey};

impl Netlink {
    /// The blackholes that we, or a predecessor, put into the kernel.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not list the routes.
    pub async fn blackholes(&self, family: Family) -> Result<BTreeSet<RouteKey>, NetlinkError> {
        let routes = self.own_routes(family).await?;
        let is_blackhole = |message: &&RouteMessage| message.header.kind == RouteType::BlackHole;
        Ok(routes.iter().filter(is_blackhole).filter_map(|message| key(family, message)).collect())
    }

    /// Takes away the routes that a predecessor was asked for; one who was killed could not.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not list the routes, or keeps one.
    pub async fn remove_static_routes(&self, family: Family) -> Result<(), NetlinkError> {
        let failed = |source| NetlinkError { operation: "remove an old route".to_owned(), source };
        for message in self.own_routes(family).await? {
            if message.header.kind == RouteType::Unicast {
                // ESRCH: it has just gone with its link.
                accept(self.handle.route().del(message).execute().await, &[libc::ESRCH]).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The rules that lead packets with a mark to a table and ask for nothing else, whoever made them.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not list the rules.
    pub async fn mark_rules(&self, family: Family) -> Result<BTreeSet<MarkRule>, NetlinkError> {
        let messages = self.all_rules(family).await?;
        Ok(messages.iter().filter_map(|message| mark_rule(family, message)).collect())
    }

    /// All routes with our protocol number, of every table.
    async fn own_routes(&self, family: Family) -> Result<Vec<RouteMessage>, NetlinkError> {
        let failed = |source| NetlinkError { operation: format!("list the {family} routes"), source };
        let filter = any_route(family);
        let listed: Result<Vec<RouteMessage>, _> = self.handle.route().get(filter).execute().try_collect().await;
        let mut routes = listed.map_err(|error| failed(into_io(error)))?;
        routes.retain(|message| message.header.protocol == PROTOCOL);
        Ok(routes)
    }
}

/// A blackhole: the last choice among the routes to its destination.
pub(super) fn blackhole_message(key: RouteKey) -> io::Result<RouteMessage> {
    Ok(route_builder(key)?.kind(RouteType::BlackHole).protocol(PROTOCOL).priority(LAST_CHOICE).build())
}

/// A route that was asked for; `link` is the index of its interface.
pub(super) fn static_message(route: &StaticRoute, link: Option<u32>) -> io::Result<RouteMessage> {
    let mut builder = route_builder(RouteKey::new(route.table, route.destination))?
        .protocol(PROTOCOL)
        .priority(route.metric)
        .scope(if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link });
    if let Some(via) = route.via {
        builder = builder.gateway(via).map_err(|error| io::Error::other(error.to_string()))?;
    }
    if let Some(link) = link {
        builder = builder.output_interface(link);
    }
    Ok(builder.build())
}

pub(super) fn mark_message(rule: &MarkRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(u32::MAX),
    ];
    message
}

/// The reverse of [`mark_message`]; `None` for rules of any other form.
fn mark_rule(family: Family, message: &RuleMessage) -> Option<MarkRule> {
    let (mut table, mut priority, mut mark, mut mask) = (None, None, None, None);
    for attribute in &message.attributes {
        if let RuleAttribute::Table(number) = attribute {
            table = Some(*number);
        } else if let RuleAttribute::Priority(number) = attribute {
            priority = Some(*number);
        } else if let RuleAttribute::FwMark(bits) = attribute {
            mark = Some(*bits);
        } else if let RuleAttribute::FwMask(bits) = attribute {
            mask = Some(*bits);
        } else if !matches!(attribute, RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX)) {
            return None;
        }
    }
    let header = &message.header;
    let of_this_form = header.action == RuleAction::ToTable && header.flags.is_empty() && mask == Some(u32::MAX);
    of_this_form.then_some(MarkRule { family, priority: priority?, table: table?, mark: mark? })
}

/// A question for all routes of a family.
fn any_route(family: Family) -> RouteMessage {
    let mut message = RouteMessageBuilder::<IpAddr>::new().build();
    message.header.address_family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.table = 0;
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unspec;
    message
}

/// The table and the destination of a route.
fn key(family: Family, message: &RouteMessage) -> Option<RouteKey> {
    let (mut table, mut destination) = (message.header.table.into(), None);
    for attribute in &message.attributes {
        if let RouteAttribute::Table(number) = attribute {
            table = *number;
        } else if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
            destination = Some(IpAddr::V4(*address));
        } else if let RouteAttribute::Destination(RouteAddress::Inet6(address)) = attribute {
            destination = Some(IpAddr::V6(*address));
        }
    }
    // A default route has no destination.
    let destination = destination.unwrap_or_else(|| everything(family).address());
    let prefix = IpPrefix::new(destination, message.header.destination_prefix_length).ok()?;
    Some(RouteKey::new(table, prefix))
}

/// Who made a route (`proto 143` of `ip route`): the number is free in rtnetlink.h and in /etc/iproute2/rt_protos.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(143);
/// The highest metric there is.
const LAST_CHOICE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_marked_packets_is_recognised_and_others_are_not() {
        let rule = MarkRule { family: Family::V4, priority: 4201, table: 4501, mark: 0x4301_0000 };
        let message = mark_message(&rule);
        assert_eq!(mark_rule(Family::V4, &message), Some(rule));
        let mut other = message.clone();
        other.attributes.push(RuleAttribute::Iifname("eth0".to_owned()));
        assert_eq!(mark_rule(Family::V4, &other), None);
        let mut other = message;
        other.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::FwMark(_)));
        assert_eq!(mark_rule(Family::V4, &other), None);
    }

    #[test]
    fn a_blackhole_is_recognised_by_its_table_and_destination() {
        for destination in ["10.2.0.0/16", "0.0.0.0/0"] {
            let own = RouteKey::new(4318, destination.parse().unwrap());
            assert_eq!(key(Family::V4, &blackhole_message(own).unwrap()), Some(own));
        }
        let own = RouteKey::new(4302, "::/0".parse().unwrap());
        assert_eq!(key(Family::V6, &blackhole_message(own).unwrap()), Some(own));
    }
}
