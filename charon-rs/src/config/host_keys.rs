//! The tables `[nat.NAME]`, `[filter.NAME]` and `[route.NAME]`: what the host's own network stack is to do.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use espdp_api::{
    FilterRule, InterfaceName, IpPrefix, NatAction, NatRule, PacketMatch, PortRange, StaticRoute, SteeringRule,
};

use super::item::{At, Complaints, Item, collect};
use super::keys::Key;
use super::source::Complaint;
use super::values::{address, selector};

/// One of these tables while it is read.
#[derive(Default)]
pub(super) struct RuleDraft {
    packets: PacketMatch,
    /// Where `destination` stands, and what it says as prefixes.
    prefixes: Option<At<Vec<IpPrefix>>>,
    port: Option<Range<usize>>,
    /// A condition that only packets have, not destinations.
    condition: Option<Range<usize>>,
    source_nat: Option<At<NatAction>>,
    destination_nat: Option<At<NatAction>>,
    drops: bool,
    log: bool,
    interface: Option<InterfaceName>,
    via: Option<At<IpAddr>>,
    metric: Option<At<u32>>,
    table: Option<At<u32>>,
}

/// What a table `[route.NAME]` is.
pub(super) enum Route {
    /// Routes to its destinations.
    Static(Vec<StaticRoute>),
    /// A way for packets that are chosen by more than their destination.
    Steering(SteeringRule),
}

const IN: Key<RuleDraft> = Key {
    name: "in",
    also_called: &[],
    takes: "interface, or a list",
    default: "any",
    doc: "Only packets that come from these interfaces.",
    set: |draft, item| {
        draft.condition = Some(item.span());
        draft.packets.from_interfaces = interfaces(item)?;
        Ok(())
    },
};
const OUT: Key<RuleDraft> = Key {
    name: "out",
    also_called: &[],
    takes: "interface, or a list",
    default: "any",
    doc: "Only packets that leave through these interfaces.",
    set: |draft, item| {
        draft.packets.to_interfaces = interfaces(item)?;
        Ok(())
    },
};
const SOURCE: Key<RuleDraft> = Key {
    name: "source",
    also_called: &["from"],
    takes: "prefixes, ranges, addresses",
    default: "any",
    doc: "Only packets from these addresses.",
    set: |draft, item| {
        draft.condition = Some(item.span());
        draft.packets.sources = ranges(item)?;
        Ok(())
    },
};
const DESTINATION: Key<RuleDraft> = Key {
    name: "destination",
    also_called: &["to"],
    takes: "prefixes, ranges, addresses",
    default: "any",
    doc: "Only packets to these addresses.",
    set: |draft, item| {
        draft.packets.destinations = ranges(item)?;
        Ok(())
    },
};
const PROTOCOL: Key<RuleDraft> = Key {
    name: "protocol",
    also_called: &[],
    takes: "name or number, or a list",
    default: "any",
    doc: "Only packets of these protocols: `tcp`, `udp`, `icmp`, `icmpv6`, `gre`, `ospf`, a number.",
    set: |draft, item| {
        draft.condition = Some(item.span());
        draft.packets.protocols = protocols(item)?;
        Ok(())
    },
};
const PORT: Key<RuleDraft> = Key {
    name: "port",
    also_called: &["ports"],
    takes: "port or range, or a list",
    default: "any",
    doc: "Only packets to these ports; `protocol` must say of which protocol.",
    set: |draft, item| {
        draft.port = Some(item.span());
        draft.packets.ports = ports(item)?;
        Ok(())
    },
};
const DSCP: Key<RuleDraft> = Key {
    name: "dscp",
    also_called: &[],
    takes: "name or number, or a list",
    default: "any",
    doc: "Only packets with these code points: `ef`, `cs0` to `cs7`, `af11` to `af43`, or 0 to 63.",
    set: |draft, item| {
        draft.condition = Some(item.span());
        draft.packets.dscp = code_points(item)?;
        Ok(())
    },
};

/// The keys of `[nat.NAME]`.
pub(super) const NAT_KEYS: &[Key<RuleDraft>] = &[
    Key {
        name: "snat",
        also_called: &[],
        takes: "`masquerade` or an address",
        default: "none: one of `snat` and `dnat` is needed",
        doc: "The new source: that of the interface that the packet leaves through, or this one. What goes into a tunnel keeps its \
              source, unless `out` names the tunnel's interface.",
        set: |draft, item| {
            let text = item.text("`masquerade` or an address")?;
            let action = match text.as_str() {
                "masquerade" => NatAction::Masquerade,
                other => NatAction::Source(other.parse().map_err(|_| {
                    text.complain(format!("`{other}` is no address"))
                        .expected("expected \"masquerade\" or an address")
                        .nearest(other, ["masquerade"])
                })?),
            };
            draft.source_nat = Some(item.at(action));
            Ok(())
        },
    },
    Key {
        name: "dnat",
        also_called: &["forward"],
        takes: "address, or address and port",
        default: "none",
        doc: "The new destination, for port forwards: `10.1.0.10`, `10.1.0.10:80` or `[fd01::10]:80`.",
        set: |draft, item| {
            let text = item.text("an address such as \"10.1.0.10\" or \"10.1.0.10:80\"")?;
            let with_port =
                text.as_str().parse().map(|to: SocketAddr| NatAction::Destination(to.ip(), Some(to.port())));
            let alone = || text.as_str().parse().map(|to: IpAddr| NatAction::Destination(to, None));
            let action = with_port.or_else(|_| alone()).map_err(|_| {
                text.complain(format!("`{}` is no address", text.as_str()))
                    .expected("expected an address, with a port if it changes: 10.1.0.10:80, [fd01::10]:80")
            })?;
            draft.destination_nat = Some(item.at(action));
            Ok(())
        },
    },
    IN,
    OUT,
    SOURCE,
    DESTINATION,
    PROTOCOL,
    PORT,
];

/// The keys of `[filter.NAME]`.
pub(super) const FILTER_KEYS: &[Key<RuleDraft>] = &[
    Key {
        name: "action",
        also_called: &[],
        takes: "`accept` or `drop`",
        default: "\"accept\"",
        doc: "What becomes of the packets. The rules of the file are asked in their order.",
        set: |draft, item| {
            draft.drops = item.choice(&[("accept", false), ("drop", true)])?;
            Ok(())
        },
    },
    Key {
        name: "log",
        also_called: &[],
        takes: "true or false",
        default: "false",
        doc: "Whether the kernel's log tells of them, at most ten times a minute, with the name of the rule.",
        set: |draft, item| {
            draft.log = item.boolean()?;
            Ok(())
        },
    },
    IN,
    OUT,
    SOURCE,
    DESTINATION,
    PROTOCOL,
    PORT,
    DSCP,
];

/// The keys of `[route.NAME]`.
pub(super) const ROUTE_KEYS: &[Key<RuleDraft>] = &[
    Key {
        name: "destination",
        also_called: &["to"],
        takes: "prefixes",
        default: "any, if there is another condition",
        doc: "Where packets go that take this route.",
        set: |draft, item| {
            let prefixes = super::daemon::prefixes(item, "a prefix such as \"10.9.0.0/16\"")?;
            draft.packets.destinations = prefixes.iter().map(|prefix| tunnels::range(*prefix)).collect();
            draft.prefixes = Some(item.at(prefixes));
            Ok(())
        },
    },
    Key {
        name: "interface",
        also_called: &["dev"],
        takes: "interface",
        default: "that of the way to `via`",
        doc: "The interface that packets leave through. With any of `in`, `source`, `protocol`, `port` and `dscp` only such packets \
              are led there, whatever other routes say; they are dropped while the interface is not there.",
        set: |draft, item| {
            draft.interface = Some(interface(&item)?);
            Ok(())
        },
    },
    Key {
        name: "via",
        also_called: &["gateway"],
        takes: "address",
        default: "none",
        doc: "The next hop.",
        set: |draft, item| {
            let text = item.text("an address")?;
            let via = text.read(address::local)?;
            draft.via = Some(item.at(via));
            Ok(())
        },
    },
    Key {
        name: "metric",
        also_called: &[],
        takes: "number",
        default: "0",
        doc: "The place of the route among others to the same destination; the lowest is taken. The kernel makes 1024 of 0 for IPv6.",
        set: |draft, item| {
            draft.metric = Some(item.at(number(item, 0, u64::from(u32::MAX) - 1)?));
            Ok(())
        },
    },
    Key {
        name: "table",
        also_called: &[],
        takes: "number",
        default: "254",
        doc: "The routing table; 254 is the main one.",
        set: |draft, item| {
            draft.table = Some(item.at(number(item, 1, u32::MAX.into())?));
            Ok(())
        },
    },
    IN,
    SOURCE,
    PROTOCOL,
    PORT,
    DSCP,
];

impl RuleDraft {
    /// The rule of a table `[nat.NAME]`, whose name stands at `span`.
    pub(super) fn nat(self, name: &str, span: Range<usize>) -> Result<NatRule, Complaint> {
        self.check_ports()?;
        let action = match (self.source_nat, self.destination_nat) {
            (Some(action), None) => action,
            (None, Some(action)) if self.packets.to_interfaces.is_empty() => action,
            (None, Some(action)) => {
                return Err(Complaint::new(
                    action.span,
                    "the new destination decides which interface a packet leaves through",
                )
                .expected("expected no `out` beside `dnat`"));
            }
            (Some(_), Some(action)) => {
                return Err(Complaint::new(action.span, "`snat` and `dnat` in one rule")
                    .expected("expected two tables [nat.NAME]"));
            }
            (None, None) => {
                return Err(Complaint::new(span, format!("`{name}` translates nothing"))
                    .expected("expected snat = \"masquerade\", snat = \"ADDRESS\" or dnat = \"ADDRESS:PORT\""));
            }
        };
        let rule = NatRule { name: name.to_owned(), packets: self.packets, action: action.value };
        if let (NatAction::Destination(_, Some(_)), true) = (rule.action, rule.packets.protocols.is_empty()) {
            return Err(Complaint::new(action.span, "a port without a protocol")
                .expected("expected protocol = \"tcp\" or \"udp\" beside it"));
        }
        if let (NatAction::Source(_), false) = (rule.action, rule.packets.from_interfaces.is_empty()) {
            return Err(Complaint::new(
                action.span,
                "where a packet came from is not known when its source is translated",
            )
            .expected("expected `source` instead of `in`"));
        }
        Ok(rule)
    }

    /// The rule of a table `[filter.NAME]`.
    pub(super) fn filter(self, name: &str, span: Range<usize>) -> Result<FilterRule, Complaint> {
        self.check_ports()?;
        if self.packets.from_interfaces.is_empty() && self.packets.to_interfaces.is_empty() {
            return Err(Complaint::new(span, format!("`{name}` names no interface"))
                .expected("expected `in` or `out` with the interfaces that are filtered"));
        }
        Ok(FilterRule { name: name.to_owned(), packets: self.packets, accept: !self.drops, log: self.log })
    }

    /// The routes of a table `[route.NAME]`.
    pub(super) fn route(self, name: &str, span: Range<usize>) -> Result<Route, Complaint> {
        self.check_ports()?;
        let is_steering = self.condition.is_some() || self.port.is_some();
        if !is_steering {
            return self.static_routes(name, span).map(Route::Static);
        }
        let misplaced = [self.via.map(|at| at.span), self.metric.map(|at| at.span), self.table.map(|at| at.span)];
        if let Some(span) = misplaced.into_iter().flatten().next() {
            return Err(Complaint::new(
                span,
                "packets that are chosen by more than their destination have no such key",
            )
            .expected("expected `interface` alone"));
        }
        let interface = self
            .interface
            .ok_or_else(|| Complaint::new(span, format!("`{name}` leads nowhere")).expected("expected `interface`"))?;
        Ok(Route::Steering(SteeringRule { name: name.to_owned(), packets: self.packets, interface }))
    }

    fn static_routes(self, name: &str, span: Range<usize>) -> Result<Vec<StaticRoute>, Complaint> {
        let Some(prefixes) = self.prefixes else {
            return Err(Complaint::new(span, format!("`{name}` has no destination")).expected("expected `destination`"));
        };
        if self.via.is_none() && self.interface.is_none() {
            return Err(
                Complaint::new(span, format!("`{name}` leads nowhere")).expected("expected `interface` or `via`")
            );
        }
        let is_ipv4 = |prefix: &IpPrefix| prefix.address().is_ipv4();
        if let Some(via) = &self.via
            && prefixes.value.iter().any(|prefix| is_ipv4(prefix) != via.value.is_ipv4())
        {
            return Err(Complaint::new(via.span.clone(), "the next hop is of another family than the destination")
                .expected("expected a table [route.NAME] for each family"));
        }
        let route = |destination: &IpPrefix| StaticRoute {
            destination: tunnels::network(*destination),
            via: self.via.as_ref().map(|via| via.value),
            interface: self.interface.clone(),
            metric: self.metric.as_ref().map_or(0, |metric| metric.value),
            table: self.table.as_ref().map_or(MAIN_TABLE, |table| table.value),
        };
        Ok(prefixes.value.iter().map(route).collect())
    }

    fn check_ports(&self) -> Result<(), Complaint> {
        match &self.port {
            Some(span) if self.packets.protocols.is_empty() => {
                Err(Complaint::new(span.clone(), "ports without a protocol")
                    .expected("expected protocol = \"tcp\" or another one that has ports"))
            }
            _ => Ok(()),
        }
    }
}

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;

fn interface(item: &Item<'_>) -> Result<InterfaceName, Complaint> {
    let text = item.text("the name of an interface")?;
    InterfaceName::new(text.as_str()).map_err(|error| text.complain(error.to_string()))
}

fn interfaces(item: Item<'_>) -> Result<Vec<InterfaceName>, Complaints> {
    collect(
        item.texts("the name of an interface")?
            .iter()
            .map(|text| InterfaceName::new(text.as_str()).map_err(|error| text.complain(error.to_string()))),
    )
}

fn ranges(item: Item<'_>) -> Result<Vec<espdp_api::AddressRange>, Complaints> {
    collect(item.texts("a prefix, a range or an address")?.iter().map(|text| text.read(address::range)))
}

fn protocols(item: Item<'_>) -> Result<Vec<u8>, Complaints> {
    collect(item.texts("a protocol such as \"tcp\"")?.iter().map(|text| {
        let (protocol, ports) = text.read(selector::protocol_and_ports)?;
        if protocol == 0 || ports != PortRange::ANY {
            return Err(text
                .complain(format!("`{}` is not just a protocol", text.as_str()))
                .expected("expected a name or number"));
        }
        Ok(protocol)
    }))
}

/// A number or text, or a list of texts: ports are written both ways.
fn ports(item: Item<'_>) -> Result<Vec<(u16, u16)>, Complaints> {
    if let Ok(number) = item.integer(1..=u64::from(u16::MAX)) {
        let port = u16::try_from(number).map_err(|_| item.wrong_type("a port"))?;
        return Ok(vec![(port, port)]);
    }
    collect(item.texts("a port or a range such as \"1000-2000\"")?.iter().map(|text| {
        let (first, last) = text.as_str().split_once('-').unwrap_or((text.as_str(), text.as_str()));
        let range = first.trim().parse().ok().zip(last.trim().parse().ok());
        range.filter(|(first, last): &(u16, u16)| first <= last).ok_or_else(|| {
            text.complain(format!("`{}` is no port", text.as_str()))
                .expected("expected a port or a range such as 1000-2000")
        })
    }))
}

/// A number or text, or a list of texts.
fn code_points(item: Item<'_>) -> Result<Vec<u8>, Complaints> {
    if let Ok(number) = item.integer(0..=LARGEST_DSCP.into()) {
        return Ok(vec![u8::try_from(number).map_err(|_| item.wrong_type("a code point"))?]);
    }
    collect(item.texts("a code point such as \"ef\"")?.iter().map(|text| {
        code_point(text.as_str()).ok_or_else(|| {
            text.complain(format!("`{}` is no code point", text.as_str()))
                .expected("expected ef, cs0 to cs7, af11 to af43, or a number up to 63")
        })
    }))
}

/// RFC 2474 §4.2.2.1 (class selectors), RFC 2597 §6 (assured forwarding), RFC 3246 §2.7 (expedited forwarding).
fn code_point(text: &str) -> Option<u8> {
    let lower = text.to_ascii_lowercase();
    let digit = |digit: u8, most: u8| {
        let value = digit.checked_sub(b'0')?;
        (value <= most).then_some(value)
    };
    match lower.as_bytes() {
        b"ef" => Some(46),
        [b'c', b's', class] => Some(digit(*class, 7)? << 3),
        [b'a', b'f', class, drop] => {
            let (class, drop) = (digit(*class, 4)?, digit(*drop, 3)?);
            (class > 0 && drop > 0).then_some(class << 3 | drop << 1)
        }
        _ => lower.parse().ok().filter(|number| *number <= LARGEST_DSCP),
    }
}

/// Six bits.
const LARGEST_DSCP: u8 = 63;

fn number(item: Item<'_>, least: u64, most: u64) -> Result<u32, Complaint> {
    u32::try_from(item.integer(least..=most)?).map_err(|_| item.wrong_type("a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_points_have_names_and_numbers() {
        for (text, expected) in [
            ("ef", Some(46)),
            ("CS6", Some(48)),
            ("af11", Some(10)),
            ("af43", Some(38)),
            ("63", Some(63)),
            ("0", Some(0)),
        ] {
            assert_eq!(code_point(text), expected, "{text}");
        }
        for text in ["64", "cs8", "af14", "af51", "af01", "", "-1"] {
            assert_eq!(code_point(text), None, "{text}");
        }
    }
}
