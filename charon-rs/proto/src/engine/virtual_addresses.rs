//! Virtual addresses: asking for them, giving them, and what they mean for selectors (RFC 7296 §2.19, §3.15).

use std::mem::discriminant;
use std::net::IpAddr;

use espdp_api::{AddressRange, TrafficSelector};

use super::context::Context;
use super::create_child::ChildOffer;
use super::established::Established;
use super::failure::{Incompatible, Trouble};
use super::leases::LeaseWish;
use super::session::Session;
use crate::config::{Connection, Uniqueness};
use crate::io::{ConfigKey, Cure, FailureCode, RemarkLevel};
use crate::rules::Body;
use crate::wire::{
    Configuration, ConfigurationAttribute, ConfigurationKind, MAX_CONFIGURATION_ATTRIBUTES, Notify, NotifyType, Payload,
};

/// The virtual addresses of an IKE SA, which stay as long as it and what replaces it by rekeying.
#[derive(Clone, Debug, Default)]
pub(super) struct VirtualAddresses {
    /// What we ask the peer for, until it has answered; unspecified ones for any.
    pub(super) asking: Vec<IpAddr>,
    /// Those that the peer gave us.
    pub(super) ours: Vec<IpAddr>,
    /// Those that we gave the peer.
    pub(super) theirs: Vec<IpAddr>,
    /// Why the peer, which has to have one, has none: there are no Child SAs with it.
    pub(super) missing: Option<Box<Incompatible>>,
    /// The name servers that the peer told us of.
    pub(super) name_servers: Vec<IpAddr>,
    /// The domains that those are for.
    pub(super) domains: Vec<String>,
}

/// Where the hosts themselves are, on both sides of the traffic.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    pub(super) local: Vec<AddressRange>,
    pub(super) remote: Vec<AddressRange>,
}

impl Session {
    /// What `dynamic` selectors mean. While we ask for an address it may be any, and the peer narrows that to the one that it
    /// gives (RFC 7296 §2.19).
    pub(super) fn hosts(&self) -> Hosts {
        let of = |addresses: &[IpAddr], otherwise: IpAddr| match addresses {
            [] => vec![AddressRange::single(otherwise)],
            addresses => addresses.iter().copied().map(AddressRange::single).collect(),
        };
        let VirtualAddresses { asking, ours, theirs, .. } = &self.virtual_addresses;
        let mut families: Vec<bool> = asking.iter().map(IpAddr::is_ipv4).collect();
        families.sort_unstable();
        families.dedup();
        let local = match families.as_slice() {
            [] => of(ours, self.path.local.ip()),
            families => families.iter().rev().map(|ipv4| AddressRange::whole(*ipv4)).collect(),
        };
        Hosts { local, remote: of(theirs, self.path.remote.ip()) }
    }

    /// The same as seen by `connection` before it is known which address the peer gets.
    pub(super) fn hosts_to_be(&self, connection: &Connection) -> Hosts {
        let hosts = self.hosts();
        if connection.pools.is_empty() {
            return hosts;
        }
        Hosts { remote: vec![AddressRange::whole(true), AddressRange::whole(false)], ..hosts }
    }
}

impl VirtualAddresses {
    /// What a connection asks for: where any address will do, the one that there was before.
    pub(super) fn asking(connection: &Connection, before: &[IpAddr]) -> Self {
        let mut before = before.to_vec();
        let asked = connection.virtual_addresses.iter().map(|wanted| {
            let is_alike = |known: &IpAddr| wanted.is_unspecified() && known.is_ipv4() == wanted.is_ipv4();
            before.iter().position(is_alike).map_or(*wanted, |known| before.remove(known))
        });
        Self { asking: asked.collect(), ..Self::default() }
    }

    /// The request, if we ask for anything: for addresses, and for what goes with them.
    pub(super) fn request(&self) -> Option<Payload> {
        let wanted = |address: IpAddr| Some(address).filter(|address| !address.is_unspecified());
        let mut attributes: Vec<ConfigurationAttribute> = Vec::new();
        for address in &self.asking {
            attributes.push(match address {
                IpAddr::V4(v4) => ConfigurationAttribute::Ip4Address(wanted(*address).map(|_| *v4)),
                IpAddr::V6(v6) => ConfigurationAttribute::Ip6Address(wanted(*address).map(|_| (*v6, 128))),
            });
        }
        if attributes.is_empty() {
            return None;
        }
        if self.asking.iter().any(IpAddr::is_ipv4) {
            attributes.push(ConfigurationAttribute::Ip4Dns(None));
        }
        if self.asking.iter().any(IpAddr::is_ipv6) {
            attributes.push(ConfigurationAttribute::Ip6Dns(None));
        }
        attributes.push(ConfigurationAttribute::DnsDomain(None));
        Some(Payload::Configuration(Configuration { kind: ConfigurationKind::Request, attributes }))
    }
}

impl Session {
    /// Takes what the peer gave us. RFC 7296 §3.15.4: to have asked and got no address is an error; to have got some of several is
    /// not. The answer may be another address than the one that was asked for; those that we did not get are returned.
    ///
    /// `offer` is the child that we asked for along with them: to refuse that, the peer need not say anything about addresses.
    pub(super) fn adopt_addresses(&mut self, body: &Body, offer: Option<&ChildOffer>) -> Result<Vec<IpAddr>, Trouble> {
        let asked = std::mem::take(&mut self.virtual_addresses.asking);
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let reply = body.configuration(ConfigurationKind::Reply);
        let given = reply.unwrap_or_default().iter().filter_map(address_in).flatten();
        let given: Vec<IpAddr> = given.filter(|address| is_usable(self, *address)).collect();
        let of_family = |addresses: &[IpAddr], ipv4: bool| -> Vec<IpAddr> {
            addresses.iter().copied().filter(|address| address.is_ipv4() == ipv4).collect()
        };
        let mut ours = Vec::new();
        for ipv4 in [true, false] {
            // The peer gives no more than was asked for.
            ours.extend(of_family(&given, ipv4).into_iter().take(of_family(&asked, ipv4).len()));
        }
        if ours.is_empty() {
            return Err(match body.error() {
                Some(error) if !is_about_addresses(error.kind) => {
                    offer.map_or(Trouble::Refused(error.kind), |offer| offer.refused(error.kind))
                }
                error => no_address(&asked, reply, error),
            });
        }
        let name_servers = reply.unwrap_or_default().iter().filter_map(name_server_in);
        let name_servers: Vec<IpAddr> = name_servers.take(MAX_NAME_SERVERS).collect();
        let domains = reply.unwrap_or_default().iter().filter_map(|attribute| {
            if let ConfigurationAttribute::DnsDomain(name) = attribute { name.clone() } else { None }
        });
        // RFC 8598 §2, §3.2: a domain says nothing without a server to ask, nor where all traffic goes to the peer anyway.
        let takes_all = body.selectors_responder().is_ok_and(|theirs| theirs.iter().any(is_everything));
        let is_split = !name_servers.is_empty() && !takes_all;
        let domains = domains.take(if is_split { MAX_DOMAINS } else { 0 }).collect();
        let is_missed = |wanted: &IpAddr| !wanted.is_unspecified() && !ours.contains(wanted);
        let missed = asked.into_iter().filter(is_missed).collect();
        self.virtual_addresses = VirtualAddresses { ours, name_servers, domains, ..VirtualAddresses::default() };
        Ok(missed)
    }
}

impl Established {
    /// Gives the peer the addresses that it asks for with IKE_AUTH: the reply to go with ours, if it asked (R7296-2.19-1).
    pub(super) fn give_addresses(&mut self, cx: &mut Context, body: &Body) -> Result<Option<Payload>, Trouble> {
        let connection = self.session.connection.clone();
        let request = body.configuration(ConfigurationKind::Request).unwrap_or_default();
        let asked = first_of_each_family(request);
        if asked.is_empty() {
            let is_no_matter = connection.pools.is_empty();
            return if is_no_matter { Ok(None) } else { Err(self.give_none(not_asked_for(&connection))) };
        }
        let (mut attributes, mut pools) = (Vec::new(), Vec::new());
        for attribute in &asked {
            if let Some((pool, address)) = self.lease(cx, &connection, attribute, body) {
                attributes.push(match address {
                    IpAddr::V4(address) => ConfigurationAttribute::Ip4Address(Some(address)),
                    IpAddr::V6(address) => ConfigurationAttribute::Ip6Address(Some((address, 128))),
                });
                self.session.virtual_addresses.theirs.push(address);
                let text = format!("the peer gets the virtual address {address} of pool `{pool}`");
                cx.remark(Some(self.connection_name()), RemarkLevel::Debug, text);
                pools.push(pool);
            }
        }
        if attributes.is_empty() {
            return Err(self.give_none(no_lease(cx, &connection, &asked)));
        }
        pools.sort_unstable();
        pools.dedup();
        let of_pools = pools.iter().flat_map(|pool| cx.leases.attributes(pool));
        attributes.extend(connection.pool_attributes.iter().chain(of_pools).cloned());
        let is_domain = |attribute: &ConfigurationAttribute| matches!(attribute, ConfigurationAttribute::DnsDomain(_));
        // RFC 8598 §3.1, §3.2: domains are for those that said what they are, and go with the servers that know them.
        if !request.iter().any(is_domain) || !attributes.iter().any(|attribute| name_server_in(attribute).is_some()) {
            attributes.retain(|attribute| !is_domain(attribute));
        }
        attributes.truncate(MAX_CONFIGURATION_ATTRIBUTES);
        Ok(Some(Payload::Configuration(Configuration { kind: ConfigurationKind::Reply, attributes })))
    }

    /// One address. An SA that takes the place of another one gets what that has: the peer asks for it when it authenticates
    /// itself anew, and need not when the other one goes because this one comes.
    fn lease(
        &self,
        cx: &mut Context,
        connection: &Connection,
        attribute: &ConfigurationAttribute,
        body: &Body,
    ) -> Option<(String, IpAddr)> {
        let spi = self.local_spi();
        let replaces = match connection.uniqueness {
            Uniqueness::Never => false,
            Uniqueness::Replace => true,
            Uniqueness::No | Uniqueness::Keep => body.has_notify(NotifyType::InitialContact),
        };
        let near = cx.contacts.near(spi);
        let going = if replaces { cx.contacts.same_as(spi) } else { Vec::new() };
        let identity = self.who.remote_id.canonical();
        cx.leases.assign(LeaseWish {
            pools: &connection.pools,
            identity: &identity,
            holder: spi,
            ipv4: matches!(attribute, ConfigurationAttribute::Ip4Address(_)),
            wanted: address_in(attribute).flatten().filter(|address| !address.is_unspecified()),
            near: &near,
            going: &going,
        })
    }

    /// The peer gets no address, now or later: that is why it gets no Child SA, if it has to have one.
    fn give_none(&mut self, why: Incompatible) -> Trouble {
        let why = Box::new(why);
        if !self.session.connection.pools.is_empty() {
            self.session.virtual_addresses.missing = Some(why.clone());
        }
        Trouble::Incompatible(why)
    }

    /// Why a peer gets no Child SA later than with IKE_AUTH: it has no address.
    pub(super) fn missing_address(&self) -> Option<Trouble> {
        let why = self.session.virtual_addresses.missing.as_deref()?;
        let what = format!("the peer got no virtual address when it authenticated itself: {}", why.what);
        Some(Trouble::Incompatible(Box::new(Incompatible { what, ..why.clone() })))
    }
}

/// RFC 7296 §2.19: there is no Child SA for a peer that should have a virtual address and has not asked (R7296-2.19-2).
fn not_asked_for(connection: &Connection) -> Incompatible {
    Incompatible {
        code: FailureCode::AddressNotAskedFor,
        notify: NotifyType::FailedCpRequired,
        what: format!("connection `{}` gives its peers virtual addresses, and this one asks for none", connection.name),
        ours: connection.pools.iter().map(|pool| format!("pool `{pool}`")).collect(),
        theirs: vec!["no request for an address".to_owned()],
        hint: Some(
            "have the peer ask for an address (`leftsourceip = \"%config\"`, `vips = 0.0.0.0`), or take the pool away"
                .to_owned(),
        ),
        cure: None,
    }
}

fn is_everything(selector: &TrafficSelector) -> bool {
    selector.addresses == AddressRange::whole(selector.addresses.is_ipv4())
}

/// The address of an attribute that is about one; `Some(None)` for any.
fn address_in(attribute: &ConfigurationAttribute) -> Option<Option<IpAddr>> {
    match attribute {
        ConfigurationAttribute::Ip4Address(address) => Some(address.map(IpAddr::from)),
        ConfigurationAttribute::Ip6Address(address) => Some(address.map(|(address, _)| IpAddr::from(address))),
        ConfigurationAttribute::Ip4Dns(_)
        | ConfigurationAttribute::Ip6Dns(_)
        | ConfigurationAttribute::DnsDomain(_)
        | ConfigurationAttribute::Other { .. } => None,
    }
}

/// What a peer that asks for addresses gets: one of each family, so that none takes all of a pool.
fn first_of_each_family(request: &[ConfigurationAttribute]) -> Vec<&ConfigurationAttribute> {
    let mut asked: Vec<&ConfigurationAttribute> = Vec::new();
    for attribute in request.iter().filter(|attribute| address_in(attribute).is_some()) {
        if asked.iter().all(|known| discriminant(*known) != discriminant(attribute)) {
            asked.push(attribute);
        }
    }
    asked
}

fn name_server_in(attribute: &ConfigurationAttribute) -> Option<IpAddr> {
    let address = match attribute {
        ConfigurationAttribute::Ip4Dns(address) => address.map(IpAddr::from),
        ConfigurationAttribute::Ip6Dns(address) => address.map(IpAddr::from),
        ConfigurationAttribute::Ip4Address(_)
        | ConfigurationAttribute::Ip6Address(_)
        | ConfigurationAttribute::DnsDomain(_)
        | ConfigurationAttribute::Other { .. } => None,
    };
    address.filter(|address| !address.is_unspecified() && !address.is_multicast())
}

/// Whether a host can have this address in the peer's network. Those of the tunnel's own ends would lead it into itself.
fn is_usable(session: &Session, address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    let is_end = [session.path.local.ip(), session.path.remote.ip()].contains(&address);
    !(is_special || is_end || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

fn listed(addresses: &[IpAddr]) -> String {
    let name = |address: &IpAddr| match address {
        IpAddr::V4(address) if address.is_unspecified() => "any IPv4 address".to_owned(),
        IpAddr::V6(address) if address.is_unspecified() => "any IPv6 address".to_owned(),
        IpAddr::V4(_) | IpAddr::V6(_) => address.to_string(),
    };
    addresses.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Whether a peer that answers with this error gives us no address, not just no child.
fn is_about_addresses(error: NotifyType) -> bool {
    matches!(error, NotifyType::InternalAddressFailure | NotifyType::FailedCpRequired)
}

/// The peer gave us nothing.
fn no_address(asked: &[IpAddr], reply: Option<&[ConfigurationAttribute]>, error: Option<&Notify>) -> Trouble {
    let theirs = match (error, reply) {
        (Some(error), _) => error.kind.to_string(),
        (None, Some(_)) => "a reply without an address that we could use".to_owned(),
        (None, None) => "no reply to our request".to_owned(),
    };
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::AddressRefused,
        notify: NotifyType::FailedCpRequired,
        what: format!("the peer gives us no virtual address: {theirs}"),
        ours: vec![format!("asks for {}", listed(asked))],
        theirs: vec![theirs],
        hint: Some(
            "does the peer have a pool for us, of this address family, with an address left? Or ask for none"
                .to_owned(),
        ),
        cure: None,
    }))
}

/// We have nothing for the peer.
fn no_lease(cx: &Context, connection: &Connection, asked: &[&ConfigurationAttribute]) -> Incompatible {
    let is_ipv4 = |attribute: &&ConfigurationAttribute| matches!(attribute, ConfigurationAttribute::Ip4Address(_));
    let families: Vec<bool> = asked.iter().map(is_ipv4).collect();
    let has_pool = families.iter().any(|ipv4| cx.leases.have_family(&connection.pools, *ipv4));
    let unspecified = |attribute: &&ConfigurationAttribute| match address_in(attribute).flatten() {
        Some(address) => listed(&[address]),
        None if is_ipv4(attribute) => "any IPv4 address".to_owned(),
        None => "any IPv6 address".to_owned(),
    };
    let theirs = vec![format!("asks for {}", asked.iter().map(unspecified).collect::<Vec<_>>().join(", "))];
    let ours = cx.leases.describe(&connection.pools);
    let name = &connection.name;
    let (code, what, hint) = if has_pool {
        let what = format!("all virtual addresses of connection `{name}` are in use");
        (FailureCode::PoolExhausted, what, "make the pool larger, or give the connection another one beside it")
    } else if connection.pools.is_empty() {
        let what = format!("the peer asks for a virtual address, and connection `{name}` has no pool");
        (
            FailureCode::NoPool,
            what,
            "give the connection a pool (`rightsourceip`, `pools`), or have the peer ask for none",
        )
    } else {
        let what = format!("connection `{name}` has no pool of the address family that the peer asks for");
        (FailureCode::NoPool, what, "give the connection a pool of that family, too")
    };
    let cure = Cure::new(ConfigKey::Pools, None);
    Incompatible {
        code,
        notify: NotifyType::InternalAddressFailure,
        what,
        ours,
        theirs,
        hint: Some(hint.to_owned()),
        cure: Some(cure),
    }
}

/// Name servers of one peer that are of use; a resolver asks three.
const MAX_NAME_SERVERS: usize = 16;

/// Domains of one peer.
const MAX_DOMAINS: usize = 64;
