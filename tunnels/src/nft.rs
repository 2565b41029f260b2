//! Tables of nftables as plain values, written as text for people and as JSON for the program `nft`.
//!
//! Only what our own table needs is here. A [`Table`] is always put into the kernel as a whole ([`Table::replacement`]), in one
//! transaction that takes the old table of the same name away: there is no moment with half of it.

mod json;
mod run;

use std::fmt;
use std::net::IpAddr;

use espdp_api::AddressRange;

use crate::Family;

pub use run::{Nft, NftError};

/// A table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its named sets.
    pub sets: Vec<Set>,
    /// Its chains; those that a rule jumps to stand before it.
    pub chains: Vec<Chain>,
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What its elements are made of.
    pub key: Vec<KeyType>,
    /// The elements: none overlaps another one.
    pub elements: Vec<Element>,
}

/// What a field of a set's key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// An address.
    Address(Family),
    /// A protocol number.
    Protocol,
    /// A port, or type and code of ICMP.
    Port,
}

/// An element of a set: one value for each field of the key.
pub type Element = Vec<Value>;

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets come from; `None`: only from other chains.
    pub hook: Option<Hook>,
    /// The rules, the first one first.
    pub rules: Vec<Rule>,
}

/// Where a chain sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What its rules may do.
    pub kind: ChainKind,
    /// When in the life of a packet.
    pub at: HookPoint,
    /// The place among the chains of the same hook; the lowest is asked first.
    pub priority: i32,
}

/// What the rules of a chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Anything but translate and reroute.
    Filter,
    /// Change what the route of a local packet depends on.
    Route,
    /// Translate addresses; only the first packet of a flow is seen.
    Nat,
}

/// When a chain sees a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// On arrival, before the route is looked up.
    Prerouting,
    /// On the way to this host.
    Input,
    /// On the way through this host.
    Forward,
    /// From this host.
    Output,
    /// Before it leaves.
    Postrouting,
}

/// A rule: when all matches hold, the statements are carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub matches: Vec<Match>,
    /// What is done, in this order.
    pub statements: Vec<Statement>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// What is compared; several fields are one concatenation.
    pub fields: Vec<Field>,
    /// Whether the condition holds when they are *not* among `values`.
    pub negated: bool,
    /// What they are compared with.
    pub values: Values,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of these.
    Any(Vec<Value>),
    /// An element of the set of this name.
    Set(String),
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The source address.
    Source(Family),
    /// The destination address.
    Destination(Family),
    /// The protocol above IP, extension headers skipped.
    Protocol,
    /// The first 16 bits of the transport header: the source port, or type and code of ICMP. Not there in later fragments.
    SourcePort,
    /// The second 16 bits: the destination port.
    DestinationPort,
    /// The differentiated services code point.
    Dscp(Family),
    /// The time to live of IPv4.
    TimeToLive,
    /// The hop limit of IPv6; 255 says that no router has seen the packet.
    HopLimit,
    /// Where the packet is in the datagram that it is a fragment of; 0 in the first fragment and where nothing is fragmented.
    FragmentOffset(Family),
    /// The name of the interface that it came from.
    InInterface,
    /// The name of the interface that it leaves through.
    OutInterface,
    /// The mark.
    Mark,
    /// What connection tracking says.
    ConnectionState,
}

/// What a field may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u32),
    /// A range of numbers, both ends included.
    Range(u32, u32),
    /// A range of addresses.
    Addresses(AddressRange),
    /// The name of an interface.
    Name(String),
    /// A word of nftables such as `established`.
    Word(&'static str),
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Counts packets and octets.
    Count,
    /// Writes a line to the kernel's log, at most ten a minute.
    Log(String),
    /// Lets the packet pass this hook of this table.
    Accept,
    /// Drops it.
    Drop,
    /// Goes back to the chain that jumped here.
    Return,
    /// Goes on in another chain.
    Jump(String),
    /// Sets the mark.
    SetMark(u32),
    /// Translates the source to the address of the interface that it leaves through.
    Masquerade,
    /// Translates the source.
    TranslateSource(IpAddr),
    /// Translates the destination; the port stays without a new one.
    TranslateDestination(IpAddr, Option<u16>),
}

impl Rule {
    /// A rule.
    #[must_use]
    pub fn new(matches: impl Into<Vec<Match>>, statements: impl Into<Vec<Statement>>) -> Self {
        Self { matches: matches.into(), statements: statements.into() }
    }
}

impl Match {
    /// That a field has one of these values.
    #[must_use]
    pub fn any(field: Field, values: impl Into<Vec<Value>>) -> Self {
        Self { fields: vec![field], negated: false, values: Values::Any(values.into()) }
    }

    /// That a field has none of these values.
    #[must_use]
    pub fn none(field: Field, values: impl Into<Vec<Value>>) -> Self {
        Self { negated: true, ..Self::any(field, values) }
    }

    /// That fields together are in a set.
    #[must_use]
    pub fn in_set(fields: impl Into<Vec<Field>>, set: &str) -> Self {
        Self { fields: fields.into(), negated: false, values: Values::Set(set.to_owned()) }
    }
}

impl Table {
    /// The table line by line, as `nft list table` prints it but for its choice of words. Equal lines of two tables are equal
    /// rules, so the difference of two texts is what changes.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.to_string().lines().map(str::to_owned).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for set in &self.sets {
            writeln!(f, "\tset {} {{", set.name)?;
            writeln!(f, "\t\ttype {}", Joined(&set.key, " . "))?;
            writeln!(f, "\t\tflags interval")?;
            if !set.elements.is_empty() {
                writeln!(f, "\t\telements = {{")?;
                for element in &set.elements {
                    writeln!(f, "\t\t\t{},", Joined(element, " . "))?;
                }
                writeln!(f, "\t\t}}")?;
            }
            writeln!(f, "\t}}")?;
        }
        for chain in &self.chains {
            writeln!(f, "\tchain {} {{", chain.name)?;
            if let Some(hook) = chain.hook {
                writeln!(f, "\t\t{hook}")?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Route => "route",
            ChainKind::Nat => "nat",
        };
        let at = match self.at {
            HookPoint::Prerouting => "prerouting",
            HookPoint::Input => "input",
            HookPoint::Forward => "forward",
            HookPoint::Output => "output",
            HookPoint::Postrouting => "postrouting",
        };
        write!(f, "type {kind} hook {at} priority {}; policy accept;", self.priority)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.matches {
            write!(f, "{found} ")?;
        }
        write!(f, "{}", Joined(&self.statements, " "))
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Joined(&self.fields, " . "), if self.negated { "!= " } else { "" })?;
        match &self.values {
            Values::Set(name) => write!(f, "@{name}"),
            Values::Any(values) => match &values[..] {
                [one] => write!(f, "{one}"),
                several => write!(f, "{{ {} }}", Joined(several, ", ")),
            },
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address(Family::V4) => "ipv4_addr",
            Self::Address(Family::V6) => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source(Family::V4) => "ip saddr",
            Self::Source(Family::V6) => "ip6 saddr",
            Self::Destination(Family::V4) => "ip daddr",
            Self::Destination(Family::V6) => "ip6 daddr",
            Self::Protocol => "meta l4proto",
            Self::SourcePort => "th sport",
            Self::DestinationPort => "th dport",
            Self::Dscp(Family::V4) => "ip dscp",
            Self::Dscp(Family::V6) => "ip6 dscp",
            Self::TimeToLive => "ip ttl",
            Self::HopLimit => "ip6 hoplimit",
            Self::FragmentOffset(Family::V4) => "ip frag-off & 8191",
            Self::FragmentOffset(Family::V6) => "frag frag-off",
            Self::InInterface => "iifname",
            Self::OutInterface => "oifname",
            Self::Mark => "meta mark",
            Self::ConnectionState => "ct state",
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Range(start, end) => write!(f, "{start}-{end}"),
            Self::Addresses(range) if range.start() == range.end() => write!(f, "{}", range.start()),
            Self::Addresses(range) => match range.prefix_len() {
                Some(len) => write!(f, "{}/{len}", range.start()),
                None => write!(f, "{}-{}", range.start(), range.end()),
            },
            Self::Name(name) => write!(f, "\"{name}\""),
            Self::Word(word) => f.write_str(word),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("counter"),
            Self::Log(prefix) => write!(f, "limit rate {LOG_LINES}/minute log prefix \"{prefix} \""),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::SetMark(mark) => write!(f, "meta mark set {mark}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::TranslateSource(to) => write!(f, "snat {} to {to}", family_word(*to)),
            Self::TranslateDestination(to, None) => write!(f, "dnat {} to {to}", family_word(*to)),
            Self::TranslateDestination(IpAddr::V4(to), Some(port)) => write!(f, "dnat ip to {to}:{port}"),
            Self::TranslateDestination(IpAddr::V6(to), Some(port)) => write!(f, "dnat ip6 to [{to}]:{port}"),
        }
    }
}

/// Lines that one rule writes to the kernel's log in a minute: whoever floods the rule must not flood the log.
const LOG_LINES: u32 = 10;

fn family_word(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

/// Items with something in between.
struct Joined<'a, T>(&'a [T], &'a str);

impl<T: fmt::Display> fmt::Display for Joined<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if at == 0 { "" } else { self.1 })?;
        }
        Ok(())
    }
}
