//! The same as JSON, in the words of libnftables-json(5).

use std::borrow::Cow;
use std::collections::HashSet;

use espdp_api::AddressRange;
use nftables::batch::Batch;
use nftables::expr::{
    BinaryOperation, CT, Expression, Exthdr, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, Range,
    SetItem,
};
use nftables::schema::{self, NfListObject, SetFlag, SetType, SetTypeValue};
use nftables::stmt::{self, AnonymousCounter, JumpTarget, Mangle, NAT, NATFamily, Operator};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::{
    Chain, ChainKind, Field, Hook, HookPoint, KeyType, LOG_LINES, Match, Rule, Set, Statement, Table, Value, Values,
};
use crate::Family;

impl Table {
    /// One transaction that puts this table where the old one of the same name is, if there is one.
    #[must_use]
    pub fn replacement(&self) -> schema::Nftables<'static> {
        let mut batch = Batch::new();
        // A table must exist to be deleted.
        batch.add(table(&self.name));
        batch.delete(table(&self.name));
        batch.add(table(&self.name));
        for set in &self.sets {
            batch.add(NfListObject::Set(Box::new(set.json(&self.name))));
        }
        for chain in &self.chains {
            batch.add(NfListObject::Chain(chain.json(&self.name)));
            for rule in &chain.rules {
                batch.add(NfListObject::Rule(schema::Rule {
                    family: NfFamily::INet,
                    table: self.name.clone().into(),
                    chain: chain.name.clone().into(),
                    expr: rule.json().into(),
                    ..schema::Rule::default()
                }));
            }
        }
        batch.to_nftables()
    }

    /// One transaction that takes the table of this name away, whether there is one or not.
    #[must_use]
    pub fn removal(name: &str) -> schema::Nftables<'static> {
        let mut batch = Batch::new();
        batch.add(table(name));
        batch.delete(table(name));
        batch.to_nftables()
    }
}

fn table(name: &str) -> NfListObject<'static> {
    NfListObject::Table(schema::Table { family: NfFamily::INet, name: name.to_owned().into(), handle: None })
}

impl Set {
    fn json(&self, table: &str) -> schema::Set<'static> {
        let types: Vec<SetType> = self.key.iter().map(|key| set_type(*key)).collect();
        let elements: Vec<Expression<'static>> = self.elements.iter().map(|element| concatenation(element)).collect();
        schema::Set {
            family: NfFamily::INet,
            table: table.to_owned().into(),
            name: self.name.clone().into(),
            handle: None,
            set_type: match types[..] {
                [single] => SetTypeValue::Single(single),
                _ => SetTypeValue::Concatenated(types.into()),
            },
            policy: None,
            flags: Some(HashSet::from([SetFlag::Interval])),
            elem: (!elements.is_empty()).then(|| elements.into()),
            timeout: None,
            gc_interval: None,
            size: None,
            comment: None,
        }
    }
}

fn set_type(key: KeyType) -> SetType {
    match key {
        KeyType::Address(Family::V4) => SetType::Ipv4Addr,
        KeyType::Address(Family::V6) => SetType::Ipv6Addr,
        KeyType::Protocol => SetType::InetProto,
        KeyType::Port => SetType::InetService,
    }
}

impl Chain {
    fn json(&self, table: &str) -> schema::Chain<'static> {
        let Hook { kind, at, priority } = match self.hook {
            Some(hook) => hook,
            None => {
                return schema::Chain {
                    family: NfFamily::INet,
                    table: table.to_owned().into(),
                    name: self.name.clone().into(),
                    ..schema::Chain::default()
                };
            }
        };
        schema::Chain {
            family: NfFamily::INet,
            table: table.to_owned().into(),
            name: self.name.clone().into(),
            _type: Some(match kind {
                ChainKind::Filter => NfChainType::Filter,
                ChainKind::Route => NfChainType::Route,
                ChainKind::Nat => NfChainType::NAT,
            }),
            hook: Some(match at {
                HookPoint::Prerouting => NfHook::Prerouting,
                HookPoint::Input => NfHook::Input,
                HookPoint::Forward => NfHook::Forward,
                HookPoint::Output => NfHook::Output,
                HookPoint::Postrouting => NfHook::Postrouting,
            }),
            prio: Some(priority),
            policy: Some(NfChainPolicy::Accept),
            ..schema::Chain::default()
        }
    }
}

impl Rule {
    fn json(&self) -> Vec<stmt::Statement<'static>> {
        let matches = self.matches.iter().map(|found| stmt::Statement::Match(found.json()));
        matches.chain(self.statements.iter().flat_map(Statement::json)).collect()
    }
}

impl Match {
    fn json(&self) -> stmt::Match<'static> {
        let right = match &self.values {
            Values::Set(name) => Expression::String(format!("@{name}").into()),
            Values::Any(values) => match &values[..] {
                [one] => one.json(),
                several => Expression::Named(NamedExpression::Set(
                    several.iter().map(|value| SetItem::Element(value.json())).collect(),
                )),
            },
        };
        let fields: Vec<Expression<'static>> = self.fields.iter().map(|field| field.json()).collect();
        // Flags such as the state of a connection are bits, and "one of these" is "in"; nft does not compare them otherwise.
        let is_flags = matches!(self.fields[..], [Field::ConnectionState]);
        let op = match (self.negated, is_flags) {
            (true, _) => Operator::NEQ,
            (false, true) => Operator::IN,
            (false, false) => Operator::EQ,
        };
        stmt::Match { left: joined(fields), right, op }
    }
}

impl Field {
    fn json(self) -> Expression<'static> {
        let payload = |protocol: &'static str, field: &'static str| {
            let field = PayloadField { protocol: protocol.into(), field: field.into() };
            Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
        };
        let meta = |key| Expression::Named(NamedExpression::Meta(Meta { key }));
        match self {
            Self::Source(family) => payload(ip(family), "saddr"),
            Self::Destination(family) => payload(ip(family), "daddr"),
            Self::Protocol => meta(MetaKey::L4proto),
            Self::SourcePort => payload("th", "sport"),
            Self::DestinationPort => payload("th", "dport"),
            Self::Dscp(family) => payload(ip(family), "dscp"),
            Self::TimeToLive => payload("ip", "ttl"),
            Self::HopLimit => payload("ip6", "hoplimit"),
            Self::FragmentOffset(Family::V4) => Expression::BinaryOperation(Box::new(BinaryOperation::AND(
                payload("ip", "frag-off"),
                Expression::Number(OFFSET_BITS),
            ))),
            Self::FragmentOffset(Family::V6) => Expression::Named(NamedExpression::Exthdr(Exthdr {
                name: "frag".into(),
                field: Some("frag-off".into()),
                offset: None,
            })),
            Self::InInterface => meta(MetaKey::Iifname),
            Self::OutInterface => meta(MetaKey::Oifname),
            Self::Mark => meta(MetaKey::Mark),
            Self::ConnectionState => {
                Expression::Named(NamedExpression::CT(CT { key: Cow::Borrowed("state"), family: None, dir: None }))
            }
        }
    }
}

impl Value {
    fn json(&self) -> Expression<'static> {
        let range = |start, end| Expression::Range(Box::new(Range { range: [start, end] }));
        match self {
            Self::Number(number) => Expression::Number(*number),
            Self::Range(start, end) => range(Expression::Number(*start), Expression::Number(*end)),
            Self::Addresses(addresses) => addresses_json(addresses),
            Self::Name(name) => Expression::String(name.clone().into()),
            Self::Word(word) => Expression::String(Cow::Borrowed(word)),
        }
    }
}

fn addresses_json(addresses: &AddressRange) -> Expression<'static> {
    let text = |address: std::net::IpAddr| Expression::String(address.to_string().into());
    if addresses.start() == addresses.end() {
        return text(addresses.start());
    }
    match addresses.prefix_len() {
        Some(len) => {
            Expression::Named(NamedExpression::Prefix(Prefix { addr: Box::new(text(addresses.start())), len }))
        }
        None => Expression::Range(Box::new(Range { range: [text(addresses.start()), text(addresses.end())] })),
    }
}

impl Statement {
    fn json(&self) -> Vec<stmt::Statement<'static>> {
        let only = |statement| vec![statement];
        match self {
            Self::Count => only(stmt::Statement::Counter(stmt::Counter::Anonymous(Some(AnonymousCounter::default())))),
            Self::Log(prefix) => {
                let limit = stmt::Limit {
                    rate: LOG_LINES,
                    rate_unit: None,
                    per: Some("minute".into()),
                    burst: None,
                    burst_unit: None,
                    inv: None,
                };
                let log = stmt::Log { prefix: Some(format!("{prefix} ").into()), ..stmt::Log::new(None) };
                vec![stmt::Statement::Limit(limit), stmt::Statement::Log(Some(log))]
            }
            Self::Accept => only(stmt::Statement::Accept(None)),
            Self::Drop => only(stmt::Statement::Drop(None)),
            Self::Return => only(stmt::Statement::Return(None)),
            Self::Jump(chain) => only(stmt::Statement::Jump(JumpTarget { target: chain.clone().into() })),
            Self::SetMark(mark) => {
                only(stmt::Statement::Mangle(Mangle { key: Field::Mark.json(), value: Expression::Number(*mark) }))
            }
            Self::Masquerade => only(stmt::Statement::Masquerade(None)),
            Self::TranslateSource(to) => only(stmt::Statement::SNAT(Some(translation(*to, None)))),
            Self::TranslateDestination(to, port) => only(stmt::Statement::DNAT(Some(translation(*to, *port)))),
        }
    }
}

fn translation(to: std::net::IpAddr, port: Option<u16>) -> NAT<'static> {
    NAT {
        addr: Some(Expression::String(to.to_string().into())),
        family: Some(if to.is_ipv4() { NATFamily::IP } else { NATFamily::IP6 }),
        port: port.map(|port| Expression::Number(port.into())),
        flags: None,
    }
}

fn concatenation(element: &[Value]) -> Expression<'static> {
    joined(element.iter().map(Value::json).collect())
}

fn joined(mut parts: Vec<Expression<'static>>) -> Expression<'static> {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            Expression::Named(NamedExpression::Concat(parts))
        }
    }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The fragment offset in the third 16 bits of an IPv4 header (RFC 791 §3.1): all but the three flags.
const OFFSET_BITS: u32 = 0x1fff;
