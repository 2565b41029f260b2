//! From what is written to the model: defaults, and what keys must have in common.

use std::net::IpAddr;
use std::time::Duration;

use espdp_api::{Mode, PolicyAction, PolicyId, PolicySpec, Routes, TrafficLimit, TrafficSelector};
use ike_proto::config::{
    Child, ChildSelector, Childless, Connection, Dpd, DpdAction, Fragmentation, Lifetime, LocalAuth, LocalMethod,
    PpkUse, RemoteAddress, RemoteAuth, RemoteMethod, SendCertificates, StartAction, Trust, UdpEncapsulation,
    Uniqueness,
};
use ike_proto::identity::IdentityPattern;
use ike_proto::proposal::{default_esp_proposals, default_ike_proposals};
use pki::certificate::Certificate;
use pki::key::PublicKey;
use pki::path::Authority;
use pki::revocation::Policy;

use super::auth_keys::{self, LOCAL_KEYS, LocalDraft, Method, REMOTE_KEYS, RemoteDraft};
use super::child_keys::{self, CHILD_KEYS, ChildDraft, ChildMode, Limits};
use super::conn_keys::{self, CONN_KEYS, ConnDraft};
use super::keys::{Refusal, apply};
use crate::config::{ManualPolicy, defaults};
use crate::credentials::{Constraints, Demand, Layer, Signer, names};
use crate::vici::Message;

/// swanctl's default time until an IKE SA is rekeyed.
pub(crate) const IKE_REKEY_TIME: Duration = Duration::from_secs(4 * 3600);

/// swanctl's default time until a Child SA is rekeyed.
pub(crate) const CHILD_REKEY_TIME: Duration = Duration::from_secs(3600);

/// The place of policies that let packets pass or drop them: they are asked before those that protect, as at strongSwan.
pub(crate) const SHUNT_PRIORITY: u32 = PolicySpec::DEFAULT_PRIORITY / 2;

/// The largest replay window; the smallest is 64.
const REPLAY_WINDOWS: std::ops::RangeInclusive<u32> = 64..=65536;

/// A connection of swanctl.conf.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// What it negotiates.
    pub(crate) connection: Connection,
    /// Its children that nobody negotiates.
    pub(crate) shunts: Vec<Shunt>,
}

/// A child with `mode = pass` or `mode = drop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shunt {
    /// Its name.
    pub(crate) name: String,
    /// The policy, under the name of connection and child.
    pub(crate) policy: ManualPolicy,
    /// Whether it is in force when the connection is loaded.
    pub(crate) installs: bool,
    /// What it says about rekeying, which nobody does; it is shown all the same.
    pub(crate) rekey_time: Duration,
}

/// Reads the section of the connection `name`; what signatures need goes into `layer`.
///
/// # Errors
/// What is wrong with it, as strongSwan says it.
pub(crate) fn read(name: &str, section: &Message, layer: &mut Layer) -> Result<Read, Refusal> {
    let is_section = |key: &str| key == "children" || key.starts_with("local") || key.starts_with("remote");
    let taken = |key: &str| is_section(key) && section.section(key).is_some();
    let mut draft = ConnDraft::default();
    apply(section, CONN_KEYS, conn_keys::FOREIGN_KEYS, taken, &mut draft)?;
    let mut read = Read { connection: connection(name, draft)?, shunts: Vec::new() };
    authenticate(section, &mut read.connection, layer)?;
    for (child, section) in section.section("children").into_iter().flat_map(Message::sections) {
        add_child(&mut read, child, section).map_err(|refusal| refusal.within(child).within("children"))?;
    }
    Ok(read)
}

fn connection(name: &str, draft: ConnDraft) -> Result<Connection, Refusal> {
    let remote_port = draft.remote_port.unwrap_or(defaults::IKE_PORT);
    // Peers elsewhere expect IKE as through a NAT, as strongSwan sends it.
    let own_port = if remote_port == defaults::IKE_PORT { defaults::IKE_PORT } else { defaults::NAT_PORT };
    let lifetime = ike_lifetime(&draft);
    let own: Result<Vec<Option<IpAddr>>, _> = draft.local_addresses.iter().map(own_address).collect();
    let own = own.map_err(|why| Refusal { path: vec!["local_addrs".to_owned()], why })?;
    Ok(Connection {
        local_addresses: own.into_iter().flatten().collect(),
        remote_addresses: draft.remote_addresses.unwrap_or_else(|| vec![RemoteAddress::Any]),
        local_port: draft.local_port.unwrap_or(own_port),
        remote_port,
        ike_proposals: draft.proposals.unwrap_or_else(default_ike_proposals),
        ike_lifetime: lifetime,
        reauth_after: draft.reauth_time.filter(|after| !after.is_zero()),
        uniqueness: draft.uniqueness.unwrap_or(Uniqueness::No),
        dpd: draft.dpd_delay.filter(|delay| !delay.is_zero()).map(|delay| Dpd { delay, action: DpdAction::Clear }),
        retransmission: defaults::RETRANSMISSION,
        encapsulation: if draft.encap == Some(true) { UdpEncapsulation::Force } else { UdpEncapsulation::Detect },
        mobike: draft.mobike.unwrap_or(true),
        childless: draft.childless.unwrap_or(Childless::Allow),
        fragmentation: draft.fragmentation.unwrap_or(Fragmentation::Offer),
        ppk: PpkUse::wanted(draft.ppk_id, draft.ppk_required),
        virtual_addresses: draft.virtual_addresses,
        pools: draft.pools,
        send_certificate_requests: draft.send_requests.unwrap_or(true),
        send_certificates: draft.send_certificates.unwrap_or(SendCertificates::IfAsked),
        ..Connection::new(name)
    })
}

/// `%any` among our own addresses means no choice, and so does a network of everything.
fn own_address(address: &RemoteAddress) -> Result<Option<IpAddr>, String> {
    match address {
        RemoteAddress::Address(address) if address.is_unspecified() => Ok(None),
        RemoteAddress::Address(address) => Ok(Some(*address)),
        RemoteAddress::Any => Ok(None),
        RemoteAddress::Range(range) if range.prefix_len() == Some(0) => Ok(None),
        RemoteAddress::Range(_) | RemoteAddress::Name(_) => {
            Err("invalid value for: local_addrs: only addresses and %any are supported".to_owned())
        }
    }
}

/// swanctl: without `rekey_time` an SA that is authenticated anew is not rekeyed.
fn ike_lifetime(draft: &ConnDraft) -> Lifetime {
    let reauth = draft.reauth_time.filter(|after| !after.is_zero());
    let default = if reauth.is_some() { Duration::ZERO } else { IKE_REKEY_TIME };
    let rekey = draft.rekey_time.unwrap_or(default);
    let over = draft.over_time.unwrap_or(rekey.max(reauth.unwrap_or_default()) / 10);
    let jitter = draft.rand_time.unwrap_or(over);
    let rekeys = !rekey.is_zero();
    Lifetime {
        rekey_after: rekeys.then_some(rekey),
        jitter: jitter.min(if rekeys { rekey } else { reauth.unwrap_or_default() }),
        expire_after: rekeys.then_some(rekey).or(reauth).map(|time| time + over),
    }
}

fn add_child(read: &mut Read, name: &str, section: &Message) -> Result<(), Refusal> {
    let mut draft = ChildDraft::default();
    apply(section, CHILD_KEYS, child_keys::FOREIGN_KEYS, |_| false, &mut draft)?;
    match draft.mode.unwrap_or(ChildMode::Protect(Mode::Tunnel)) {
        ChildMode::Protect(mode) => read.connection.children.push(child(name, mode, draft)?),
        ChildMode::Pass => read.shunts.push(shunt(&read.connection, name, PolicyAction::Bypass, &draft)?),
        ChildMode::Drop => read.shunts.push(shunt(&read.connection, name, PolicyAction::Discard, &draft)?),
    }
    Ok(())
}

fn child(name: &str, mode: Mode, draft: ChildDraft) -> Result<Child, Refusal> {
    let proposals = match (draft.esp, draft.ah) {
        (Some(_), Some(_)) => return Err(Refusal::of_section("a child has either esp_proposals or ah_proposals")),
        (esp, ah) => esp.or(ah),
    };
    let life = draft.life_time;
    let rekey = draft.rekey_time.unwrap_or_else(|| life.map_or(CHILD_REKEY_TIME, |life| life * 10 / 11));
    let life = life.unwrap_or(rekey * 11 / 10);
    let jitter = draft.rand_time.unwrap_or(life.saturating_sub(rekey));
    let some = |duration: Duration| Some(duration).filter(|duration| !duration.is_zero());
    let ((soft_bytes, hard_bytes), (soft_packets, hard_packets)) = (limits(draft.bytes), limits(draft.packets));
    Ok(Child {
        name: name.to_owned(),
        mode,
        local_selectors: selectors(draft.local),
        remote_selectors: selectors(draft.remote),
        esp_proposals: proposals.unwrap_or_else(default_esp_proposals),
        lifetime: Lifetime { rekey_after: some(rekey), jitter: jitter.min(rekey), expire_after: some(life) },
        rekey_after_traffic: TrafficLimit { bytes: soft_bytes, packets: soft_packets },
        expire_after_traffic: TrafficLimit { bytes: hard_bytes, packets: hard_packets },
        replay_window: replay_window(draft.replay_window)?,
        interface: draft.interface.unwrap_or_else(defaults::interface),
        priority: draft.priority.unwrap_or(PolicySpec::DEFAULT_PRIORITY),
        routes: Routes::FromSelectors,
        later_fragments: false,
        per_resource: draft.per_resource,
        shape: draft.shape,
        start: draft.start.unwrap_or(StartAction::None),
        close: draft.close,
        updown: draft.updown,
        dpd: draft.dpd.filter(|action| *action != DpdAction::Clear),
    })
}

/// No selectors mean the addresses of the IKE SA.
fn selectors(written: Option<Vec<ChildSelector>>) -> Vec<ChildSelector> {
    written.filter(|selectors| !selectors.is_empty()).unwrap_or_else(|| vec![ChildSelector::HOST])
}

/// strongSwan: an SA that is rekeyed ends a tenth later.
fn limits(limits: Limits) -> (Option<u64>, Option<u64>) {
    let some = |limit: Option<u64>| limit.filter(|limit| *limit > 0);
    let soft = some(limits.rekey);
    let hard = match limits.life {
        None => soft.map(|soft| soft.saturating_add(soft / 10)),
        given => some(given),
    };
    (soft, hard)
}

fn replay_window(window: Option<u32>) -> Result<u32, Refusal> {
    match window {
        None => Ok(defaults::REPLAY_WINDOW),
        Some(0) => Ok(0),
        // More than was asked for hurts nobody; strongSwan's own default is 32.
        Some(window) if window <= *REPLAY_WINDOWS.end() => Ok(window.max(*REPLAY_WINDOWS.start())),
        Some(window) => Err(Refusal {
            path: vec!["replay_window".to_owned()],
            why: format!("invalid value for: replay_window: {window} is more than {}", REPLAY_WINDOWS.end()),
        }),
    }
}

fn shunt(connection: &Connection, name: &str, action: PolicyAction, draft: &ChildDraft) -> Result<Shunt, Refusal> {
    // No SA has an address here that `dynamic` could be.
    let fixed = |written: &Option<Vec<ChildSelector>>, key: &str| -> Result<Vec<TrafficSelector>, Refusal> {
        let selectors = written.iter().flatten().map(ChildSelector::fixed).collect::<Option<Vec<_>>>();
        selectors.filter(|selectors| !selectors.is_empty()).ok_or_else(|| Refusal {
            path: vec![key.to_owned()],
            why: format!("invalid value for: {key}: `dynamic` is nothing in a child that passes or drops packets"),
        })
    };
    let (local, remote) = (fixed(&draft.local, "local_ts")?, fixed(&draft.remote, "remote_ts")?);
    let interface = draft.interface.clone().unwrap_or_else(defaults::interface);
    // What passes needs no way through the interface; what is to be dropped must come there.
    let routes = match action {
        PolicyAction::Discard => Routes::FromSelectors.towards(&remote),
        PolicyAction::Bypass | PolicyAction::Protect { .. } => Vec::new(),
    };
    let spec = PolicySpec {
        action,
        routes,
        priority: draft.priority.unwrap_or(SHUNT_PRIORITY),
        // Nobody else has to agree: later fragments share the fate of the first.
        later_fragments: true,
        ..PolicySpec::protect(PolicyId(0), interface, local, remote)
    };
    let installs = draft.start.is_some_and(StartAction::traps);
    let policy = ManualPolicy { name: format!("{}/{name}", connection.name), spec, sas: Vec::new() };
    let rekey_time = draft.rekey_time.unwrap_or(CHILD_REKEY_TIME);
    Ok(Shunt { name: name.to_owned(), policy, installs, rekey_time })
}

fn authenticate(section: &Message, connection: &mut Connection, layer: &mut Layer) -> Result<(), Refusal> {
    let mut local = Vec::new();
    let mut remote = Vec::new();
    for (name, round) in section.sections() {
        let within = |refusal: Refusal| refusal.within(name);
        if name.starts_with("local") {
            no_tokens(round, &["cert"]).map_err(within)?;
            let mut draft = LocalDraft::default();
            apply(round, LOCAL_KEYS, auth_keys::FOREIGN_KEYS, |_| false, &mut draft).map_err(within)?;
            local.push((name, draft));
        } else if name.starts_with("remote") {
            no_tokens(round, &["cert", "cacert"]).map_err(within)?;
            let mut draft = RemoteDraft::default();
            apply(round, REMOTE_KEYS, auth_keys::FOREIGN_KEYS, |_| false, &mut draft).map_err(within)?;
            remote.push((name, draft));
        }
    }
    // Rounds are in the order of their numbers, else in that of the message.
    local.sort_by_key(|(_, draft)| draft.round);
    remote.sort_by_key(|(_, draft)| draft.round);
    let mut rounds = Vec::new();
    for (name, draft) in local {
        rounds.push(local_round(draft, layer).map_err(|refusal| refusal.within(name))?);
    }
    let mut rounds = rounds.into_iter();
    if let Some(first) = rounds.next() {
        (connection.local, connection.more_local) = (first, rounds.collect());
    }
    let mut rounds = Vec::new();
    for (name, draft) in remote {
        rounds.push(remote_round(draft, layer).map_err(|refusal| refusal.within(name))?);
    }
    let mut rounds = rounds.into_iter();
    if let Some(first) = rounds.next() {
        (connection.remote, connection.more_remote) = (first, rounds.collect());
    }
    Ok(())
}

/// Sections of certificates are about files that only the daemon reads, and tokens.
fn no_tokens(section: &Message, prefixes: &[&str]) -> Result<(), Refusal> {
    let found = section.sections().find(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    match found {
        Some((name, _)) => Err(Refusal {
            path: vec![name.to_owned()],
            why: format!("section {name} is not supported: use certs or cacerts, whose files swanctl reads"),
        }),
        None => Ok(()),
    }
}

fn local_round(draft: LocalDraft, layer: &mut Layer) -> Result<LocalAuth, Refusal> {
    let loaded = certificates(&draft.certificates, "certs")?;
    let raw = public_keys(&draft.keys)?.into_iter().next();
    // strongSwan takes public keys when nothing is said.
    let constraints = match draft.method {
        Some(Method::Psk) => {
            return Ok(LocalAuth { identity: draft.identity, method: LocalMethod::PreSharedKey });
        }
        Some(Method::Signature(constraints)) => constraints,
        None => Constraints::default(),
    };
    let mut signer = Signer { certificates: Vec::new(), raw, schemes: constraints.signature };
    // Each is a whole file, whose first certificate is ours; a CA among them goes along with ours.
    for certificate in loaded {
        if certificate.is_ca() { layer.add_certificate(certificate) } else { signer.certificates.push(certificate) }
    }
    let identity = draft.identity.or_else(|| signer.certificates.first().and_then(names::first));
    Ok(LocalAuth { identity, method: LocalMethod::Signature(layer.add_signer(signer)) })
}

fn remote_round(draft: RemoteDraft, layer: &mut Layer) -> Result<RemoteAuth, Refusal> {
    let authorities = certificates(&draft.authorities, "cacerts")?;
    let mut demand = Demand {
        certificates: certificates(&draft.certificates, "certs")?,
        keys: public_keys(&draft.keys)?,
        authorities: authorities.into_iter().map(|authority| Authority::Certificate(Box::new(authority))).collect(),
        policies: draft.policies,
        revocation: draft.revocation,
        ..Demand::default()
    };
    demand.authorities.extend(draft.authority.map(Authority::Named));
    demand.constraints = match draft.method {
        Some(Method::Psk) => {
            let identity = draft.identity.unwrap_or(IdentityPattern::Any);
            return Ok(RemoteAuth { identity, method: RemoteMethod::PreSharedKey });
        }
        Some(Method::Signature(constraints)) => constraints,
        None => Constraints::default(),
    };
    let pinned = demand.certificates.first().and_then(names::first).map(IdentityPattern::Exactly);
    let ocsp = demand.revocation != Policy::Relaxed;
    let trust = Trust { name: layer.add_demand(demand), authorities: Vec::new(), ocsp };
    let identity = draft.identity.or(pinned).unwrap_or(IdentityPattern::Any);
    Ok(RemoteAuth { identity, method: RemoteMethod::Signature(trust) })
}

fn certificates(files: &[Vec<u8>], key: &str) -> Result<Vec<Certificate>, Refusal> {
    let mut found = Vec::new();
    for octets in files {
        found.extend(Certificate::load(octets).map_err(|error| refused_value(key, error))?);
    }
    Ok(found)
}

fn public_keys(files: &[Vec<u8>]) -> Result<Vec<PublicKey>, Refusal> {
    let read = |octets: &Vec<u8>| {
        let block = pki::pem::parse(octets).ok().and_then(|blocks| blocks.into_iter().next());
        let der = block.as_ref().map_or(octets.as_slice(), |block| block.der.as_slice());
        PublicKey::from_spki_der(der).map_err(|error| refused_value("pubkeys", error))
    };
    files.iter().map(read).collect()
}

fn refused_value(key: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal { path: vec![key.to_owned()], why: format!("invalid value for: {key}: {error}") }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::credentials::testing::Entity;
    use ike_proto::identity::Identity;

    fn read(section: &Message) -> Result<Connection, String> {
        read_all(section).map(|(read, _)| read.connection)
    }

    fn read_all(section: &Message) -> Result<(Read, Layer), String> {
        let mut layer = Layer::default();
        let read = super::read("gw", section, &mut layer).map_err(|refusal| refusal.to_string())?;
        Ok((read, layer))
    }

    fn with_child(child: Message) -> Message {
        Message::new().with_section("children", Message::new().with_section("net", child))
    }

    fn child(child: Message) -> Child {
        read(&with_child(child)).unwrap().children.remove(0)
    }

    /// What swanctl 5.9.8 sends for the example of its manual page, reduced to pre-shared keys.
    fn example() -> Message {
        let auth = |id: &str| Message::new().with("auth", "psk").with("id", id);
        let mut child = Message::new();
        child.put_list("local_ts", ["10.1.0.0/24"]);
        child.put_list("remote_ts", ["10.2.0.0/24", "10.3.0.0/24[tcp/443]"]);
        child.put_list("esp_proposals", ["aes256gcm16-ecp256"]);
        child.put("start_action", "trap");
        child.put("dpd_action", "restart");
        let mut section = Message::new().with("version", "2");
        section.put_list("local_addrs", ["192.168.0.1"]);
        section.put_list("remote_addrs", ["192.168.0.2", "gw.example.org"]);
        section.put_list("proposals", ["aes256gcm16-prfsha384-ecp256", "default"]);
        section.put("dpd_delay", "30s");
        section
            .with_section("local", auth("moon.strongswan.org"))
            .with_section("remote", auth("*.strongswan.org"))
            .with_section("children", Message::new().with_section("net", child))
    }

    #[test]
    fn a_connection_of_swanctl_becomes_one_of_ours() {
        let connection = read(&example()).unwrap();
        assert_eq!(connection.local_addresses, ["192.168.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(connection.remote_addresses.get(1), Some(&RemoteAddress::Name("gw.example.org".into())));
        assert_eq!(connection.ike_proposals.len(), 1 + default_ike_proposals().len());
        assert_eq!(connection.dpd, Some(Dpd { delay: Duration::from_secs(30), action: DpdAction::Clear }));
        assert_eq!(connection.remote.identity, IdentityPattern::FqdnUnder("strongswan.org".into()));
        assert_eq!(connection.ike_lifetime.expire_after, Some(Duration::from_secs(15840)));
        let child = connection.children.first().unwrap();
        assert_eq!((child.start, child.remote_selectors.len()), (StartAction::Trap, 2));
        assert_eq!(child.dpd, Some(DpdAction::Restart));
        assert_eq!(child.lifetime.rekey_after, Some(CHILD_REKEY_TIME));
    }

    #[test]
    fn unknown_keys_are_named_wherever_they_are() {
        assert_eq!(read(&example().with("nonsense", "y")).unwrap_err(), "unknown option: nonsense");
        let section = Message::new().with_section("local", Message::new().with("auth", "psk").with("idd", "x"));
        assert_eq!(read(&section).unwrap_err(), "section 'local': unknown option: idd (did you mean id?)");
        assert_eq!(
            read(&with_child(Message::new().with("local_tss", "10.0.0.0/8"))).unwrap_err(),
            "child 'net': unknown option: local_tss (did you mean local_ts?)"
        );
        let mediated = read(&Message::new().with("mediated_by", "x")).unwrap_err();
        assert!(mediated.starts_with("option mediated_by is not supported: "), "{mediated}");
    }

    #[test]
    fn virtual_addresses_are_asked_for_and_given() {
        let section = example().with("vips", "0.0.0.0, ::").with("pools", "rw, rw6");
        let read = super::read("gw", &section, &mut Layer::default()).unwrap().connection;
        let unspecified: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        assert_eq!(read.virtual_addresses, unspecified);
        assert_eq!(read.pools, ["rw", "rw6"]);
        assert!(super::read("gw", &example().with("vips", "%any"), &mut Layer::default()).is_err());
    }

    #[test]
    fn what_happens_when_a_child_is_loaded_deleted_or_dead_is_said_for_each_child() {
        let start = |value: &str| child(Message::new().with("start_action", value)).start;
        assert_eq!(
            ["none", "trap", "start", "trap|start"].map(start),
            [StartAction::None, StartAction::Trap, StartAction::Once { trap: false }, StartAction::Once { trap: true }]
        );
        use ike_proto::config::CloseAction;
        let close = |value: &str| child(Message::new().with("close_action", value)).close;
        assert_eq!(["none", "trap", "start"].map(close), [CloseAction::None, CloseAction::Trap, CloseAction::Start]);
        let dpd = |value: &str| child(Message::new().with("dpd_action", value)).dpd;
        assert_eq!(["clear", "trap", "start"].map(dpd), [None, Some(DpdAction::Hold), Some(DpdAction::Restart)]);
    }

    #[test]
    fn dynamic_may_have_a_protocol_and_stand_beside_others() {
        let mut section = Message::new();
        section.put_list("local_ts", ["dynamic[tcp/22]", "10.1.0.0/16"]);
        let child = child(section);
        let written: Vec<String> = child.local_selectors.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["dynamic[tcp/22]", "10.1.0.0/16"]);
        assert_eq!(child.remote_selectors, [ChildSelector::HOST]);
    }

    #[test]
    fn children_that_pass_or_drop_packets_become_policies() {
        let section = |mode: &str| {
            Message::new()
                .with("mode", mode)
                .with("local_ts", "10.1.0.0/16")
                .with("remote_ts", "10.3.0.0/16")
                .with("start_action", "trap")
        };
        let (read, _) = read_all(&with_child(section("pass"))).unwrap();
        assert!(read.connection.children.is_empty());
        let [shunt] = read.shunts.as_slice() else { panic!("{read:?}") };
        assert_eq!((shunt.policy.name.as_str(), shunt.installs), ("gw/net", true));
        assert_eq!((shunt.policy.spec.action, shunt.policy.spec.routes.len()), (PolicyAction::Bypass, 0));
        assert!(shunt.policy.spec.priority < PolicySpec::DEFAULT_PRIORITY);
        let (read, _) = read_all(&with_child(section("drop"))).unwrap();
        assert_eq!(read.shunts[0].policy.spec.action, PolicyAction::Discard);
        assert_eq!(read.shunts[0].policy.spec.routes, ["10.3.0.0/16".parse().unwrap()]);
        let nowhere = with_child(Message::new().with("mode", "pass"));
        assert!(read_all(&nowhere).unwrap_err().contains("local_ts"));
    }

    #[test]
    fn a_program_is_run_with_its_arguments() {
        assert_eq!(child(Message::new().with("updown", "/x/_updown iptables")).updown, ["/x/_updown", "iptables"]);
    }

    #[test]
    fn an_ike_sa_that_is_authenticated_anew_is_not_rekeyed_unless_that_is_said() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let times = |section: Message| {
            let connection = read(&section).unwrap();
            let Lifetime { rekey_after, expire_after, .. } = connection.ike_lifetime;
            (connection.reauth_after, rekey_after, expire_after)
        };
        let reauth = || example().with("reauth_time", "1h");
        assert_eq!(times(reauth()), (seconds(3600), None, seconds(3960)));
        let both = reauth().with("rekey_time", "30m").with("over_time", "60");
        assert_eq!(times(both), (seconds(3600), seconds(1800), seconds(1860)));
        assert_eq!(times(example().with("reauth_time", "0")).0, None);
    }

    #[test]
    fn words_mean_what_they_mean_at_strongswan() {
        let unique = |value: &str| read(&example().with("unique", value)).unwrap().uniqueness;
        assert_eq!(["never", "no", "replace", "keep"].map(unique), {
            use Uniqueness::{Keep, Never, No, Replace};
            [Never, No, Replace, Keep]
        });
        let childless = |value: &str| read(&example().with("childless", value)).unwrap().childless;
        assert_eq!(["allow", "prefer", "force", "never"].map(childless), {
            use Childless::{Allow, Force, Never, Prefer};
            [Allow, Prefer, Force, Never]
        });
        let fragmentation = |value: &str| read(&example().with("fragmentation", value)).unwrap().fragmentation;
        assert_eq!(["yes", "accept", "force", "no"].map(fragmentation), {
            use Fragmentation::{Accept, Force, Never, Offer};
            [Offer, Accept, Force, Never]
        });
        assert!(
            read(&example().with("unique", "often")).unwrap_err().starts_with("invalid value for: unique: `often`")
        );
    }

    #[test]
    fn limits_end_a_tenth_after_rekeying_and_zero_is_never() {
        let lifetime = child(Message::new().with("rekey_time", "0")).lifetime;
        assert_eq!((lifetime.rekey_after, lifetime.expire_after), (None, None));
        let bytes = child(Message::new().with("rekey_bytes", "1000"));
        assert_eq!((bytes.rekey_after_traffic.bytes, bytes.expire_after_traffic.bytes), (Some(1000), Some(1100)));
        let never = child(Message::new().with("rekey_packets", "10").with("life_packets", "0"));
        assert_eq!((never.rekey_after_traffic.packets, never.expire_after_traffic.packets), (Some(10), None));
    }

    #[test]
    fn small_replay_windows_become_the_smallest_one() {
        let window = |value: &str| read(&with_child(Message::new().with("replay_window", value)));
        let window_of = |value: &str| window(value).unwrap().children.first().unwrap().replay_window;
        assert_eq!(["0", "32", "128"].map(window_of), [0, 64, 128]);
        assert!(window("70000").is_err());
    }

    fn with_list(section: Message, name: &str, items: &[&[u8]]) -> Message {
        let mut section = section;
        section.put_octets_list(name, items.iter().map(|item| item.to_vec()).collect());
        section
    }

    #[test]
    fn certificates_of_swanctl_become_signers_and_demands() {
        let root = Entity::root("root");
        let moon = root.gateway("moon", |_| {});
        let local = with_list(Message::new(), "certs", &[moon.certificate.der()]);
        let remote = with_list(Message::new().with("id", "sun.example.org"), "cacerts", &[root.certificate.der()])
            .with("auth", "ecdsa-256-sha256-ike:pubkey-sha384")
            .with("revocation", "strict");
        let section = Message::new().with_section("local", local).with_section("remote", remote);
        let (read, layer) = read_all(&section).unwrap();
        let connection = read.connection;
        let LocalMethod::Signature(name) = &connection.local.method else { panic!("a signature") };
        assert_eq!(layer.signers[name].certificates.first(), Some(&moon.certificate));
        let Some(Identity::Dn { text, .. }) = &connection.local.identity else { panic!("a DN") };
        assert_eq!(text, "CN=moon");
        let RemoteMethod::Signature(trust) = &connection.remote.method else { panic!("a signature") };
        let demand = &layer.demands[&trust.name];
        assert_eq!((demand.revocation, demand.authorities.len(), trust.ocsp), (Policy::Strict, 1, true));
        assert_eq!(demand.constraints.signature.to_string(), "pubkey-sha384");
    }

    #[test]
    fn rounds_are_in_the_order_of_their_numbers() {
        let round = |number: u32, auth: &str| Message::new().with("round", number).with("auth", auth);
        let section =
            Message::new().with_section("local-b", round(2, "psk")).with_section("local-a", round(1, "pubkey"));
        let connection = read(&section).unwrap();
        assert!(matches!(connection.local.method, LocalMethod::Signature(_)));
        assert_eq!(connection.more_local.len(), 1);
        assert_eq!(connection.more_local.first().map(|round| &round.method), Some(&LocalMethod::PreSharedKey));
    }

    #[test]
    fn authentication_that_cannot_be_done_is_refused() {
        for (section, wanted) in [
            (Message::new().with("auth", "eap-mschapv2"), "invalid value for: auth: eap-mschapv2 is not supported"),
            (Message::new().with("auth", "rsa-foo"), "invalid value for: auth: "),
            (with_list(Message::new(), "certs", &[b"junk"]), "invalid value for: certs: "),
            (with_list(Message::new(), "pubkeys", &[b"junk"]), "invalid value for: pubkeys: "),
            (Message::new().with_section("cert1", Message::new().with("handle", "1")), "section cert1"),
            (Message::new().with("eap_id", "x"), "option eap_id is not supported"),
        ] {
            let error = read(&Message::new().with_section("local", section)).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
