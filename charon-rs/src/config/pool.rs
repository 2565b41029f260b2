//! Pools of virtual addresses: the tables `[pool.NAME]`, and those that connections write down where they use them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use ike_proto::config::Pool;
use ike_proto::wire::ConfigurationAttribute;

use super::item::{At, Complaints, Item, Text, collect};
use super::keys::{Key, Section, names, unknown_key};
use super::place_of;
use super::problem::Report;
use super::source::{Complaint, Source};
use super::values::pool::{PoolAddresses, addresses, attribute};

/// `[pool.NAME]` while it is read.
#[derive(Default)]
pub(super) struct PoolDraft {
    addresses: Option<PoolAddresses>,
    attributes: Vec<ConfigurationAttribute>,
}

/// The keys of `[pool.NAME]`.
pub(super) const POOL_KEYS: &[Key<PoolDraft>] = &[
    Key {
        name: "addrs",
        also_called: &[],
        takes: "network, range or address",
        default: "none: a pool must have some",
        doc: "The addresses, of one family: `10.3.0.0/24`, `10.3.0.10-10.3.0.99`. Of a network, the first and the last one are not \
              given; one with host bits, `10.3.0.10/24`, begins there.",
        set: |draft, item| {
            draft.addresses = Some(item.text("a network, a range or an address")?.read(addresses)?);
            Ok(())
        },
    },
    Key {
        name: "dns",
        also_called: &[],
        takes: "address, or a list",
        default: "none",
        doc: "Name servers, of either family.",
        set: |draft, item| draft.tell("dns", item),
    },
    Key {
        name: "domain",
        also_called: &[],
        takes: "domain, or a list",
        default: "none: the servers are for all names",
        doc: "The domains for which clients ask these servers (split DNS, RFC 8598). Clients that know nothing of it are not told.",
        set: |draft, item| draft.tell("domain", item),
    },
    Key {
        name: "subnet",
        also_called: &[],
        takes: "network, or a list",
        default: "none",
        doc: "Networks that clients are told to reach through the tunnel (INTERNAL_IP4_SUBNET). What the tunnel takes is decided by \
              `leftsubnet` all the same.",
        set: |draft, item| draft.tell("subnet", item),
    },
    Key {
        name: "netmask",
        also_called: &[],
        takes: "mask, such as `255.255.255.0`",
        default: "none",
        doc: "The mask that goes with an IPv4 address, for clients that want one.",
        set: |draft, item| draft.tell("netmask", item),
    },
    Key {
        name: "nbns",
        also_called: &[],
        takes: "address, or a list",
        default: "none",
        doc: "NetBIOS name servers (WINS).",
        set: |draft, item| draft.tell("nbns", item),
    },
    Key {
        name: "dhcp",
        also_called: &[],
        takes: "address, or a list",
        default: "none",
        doc: "DHCP servers.",
        set: |draft, item| draft.tell("dhcp", item),
    },
];

impl PoolDraft {
    fn tell(&mut self, kind: &'static str, item: Item<'_>) -> Result<(), Complaints> {
        self.attributes.extend(attributes(kind, &item.texts("a value")?)?);
        Ok(())
    }
}

/// What clients are told with values of one kind.
pub(super) fn attributes(kind: &'static str, texts: &[Text<'_>]) -> Result<Vec<ConfigurationAttribute>, Complaints> {
    collect(texts.iter().map(|text| match attribute(kind, text.as_str()) {
        Some(Ok(attribute)) => Ok(attribute),
        Some(Err(error)) => Err(text.complain(error.message).expected(error.expected)),
        None => Err(text.complain(format!("nobody is told of `{kind}`"))),
    }))
}

/// A pool that a connection uses.
#[derive(Clone, Debug)]
pub(super) enum PoolUse {
    /// The one of a table.
    Named(String),
    /// Its addresses, as they are written.
    Written(String, PoolAddresses),
}

/// Reads `rightsourceip`.
pub(super) fn uses(item: Item<'_>) -> Result<Vec<At<PoolUse>>, Complaints> {
    let texts = item.texts("a network, a range, an address, or %NAME of a [pool.NAME]")?;
    collect(texts.iter().map(|text| {
        let value = match text.as_str().strip_prefix('%') {
            Some("config" | "dhcp" | "radius" | "group") => {
                let complaint = text.complain(format!("`{}` is not supported", text.as_str()));
                return Err(complaint.expected("expected a network such as 10.3.0.0/24, or %NAME of a [pool.NAME]"));
            }
            Some(name) => PoolUse::Named(name.to_owned()),
            None => PoolUse::Written(text.as_str().to_owned(), text.read(addresses)?),
        };
        Ok(At { value, span: text.span() })
    }))
}

/// All pools of a file, by name.
#[derive(Debug, Default)]
pub(super) struct Pools(BTreeMap<String, At<Pool>>);

impl Pools {
    /// Reads the tables.
    pub(super) fn read(sections: &[Section<'_>], report: &mut Report) -> Self {
        let mut pools = Self::default();
        for section in sections {
            let mut draft = PoolDraft::default();
            for entry in section.apply(POOL_KEYS, &mut draft, report) {
                let complaint = unknown_key(entry, "[pool.NAME]", &[], names(POOL_KEYS), place_of(entry.name));
                report.add(section.source.error(complaint));
            }
            let has_key = section.entries.iter().any(|entry| entry.name == "addrs");
            let Some(PoolAddresses { base, addresses }) = draft.addresses else {
                if !has_key {
                    let complaint = Complaint::new(section.span.clone(), "the pool has no addresses");
                    report
                        .add(section.source.error(complaint.expected("expected `addrs`, for example \"10.3.0.0/24\"")));
                }
                continue;
            };
            let (name, attributes) = (section.name.to_owned(), draft.attributes);
            let pool = Pool { name, base, addresses, attributes };
            pools.add(section.source, pool, section.span.clone(), report);
        }
        pools
    }

    /// Adds a pool that has no address in common with another one.
    fn add(&mut self, source: &Source, pool: Pool, span: Range<usize>, report: &mut Report) {
        if let Some(other) = self.0.values().find(|other| other.value.overlaps(&pool)) {
            let message = format!(
                "{} is also in pool `{}`: two clients would get the same address",
                pool.addresses, other.value.name
            );
            report.add(source.error(Complaint::new(span, message).expected("expected addresses of its own")));
            return;
        }
        self.0.insert(pool.name.clone(), At { value: pool, span });
    }

    /// The name of the pool that a connection uses; one that is written down there is added.
    pub(super) fn resolve(&mut self, used: &At<PoolUse>, source: &Source, report: &mut Report) -> Option<String> {
        let At { value, span } = used;
        match value {
            PoolUse::Named(name) if self.0.contains_key(name) => Some(name.clone()),
            PoolUse::Named(name) => {
                let complaint = Complaint::new(span.clone(), format!("there is no [pool.{name}]"));
                let complaint = complaint.nearest(name, self.0.keys().map(String::as_str));
                report.add(source.error(complaint));
                None
            }
            PoolUse::Written(text, PoolAddresses { base, addresses }) => {
                if self.0.get(text).is_none_or(|known| known.value.addresses != *addresses) {
                    let (name, base, addresses) = (text.clone(), *base, *addresses);
                    let pool = Pool { name, base, addresses, attributes: Vec::new() };
                    self.add(source, pool, span.clone(), report);
                }
                Some(text.clone())
            }
        }
    }

    /// The pools.
    pub(super) fn into_vec(self) -> Vec<Pool> {
        self.0.into_values().map(|at| at.value).collect()
    }
}

/// An address that a connection asks for; `None`: any of the family that the tunnel's ends have.
pub(super) type Wanted = Option<IpAddr>;

/// Reads `leftsourceip`.
pub(super) fn wanted(item: Item<'_>) -> Result<Vec<Wanted>, Complaints> {
    const WANTED: &str = "%config, %config4, %config6 or an address";
    let texts = item.texts(WANTED)?;
    collect(texts.iter().map(|text| {
        match text.as_str() {
            "%config" | "%cfg" | "%modeconfig" | "%modecfg" => Ok(None),
            "%config4" => Ok(Some(std::net::Ipv4Addr::UNSPECIFIED.into())),
            "%config6" => Ok(Some(std::net::Ipv6Addr::UNSPECIFIED.into())),
            other => other
                .parse()
                .map(Some)
                .map_err(|_| text.complain(format!("`{other}` is no address")).expected(format!("expected {WANTED}"))),
        }
    }))
}
