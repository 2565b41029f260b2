//! A connection of `swanctl.conf`, as `swanctl` sends it, in the model of connections.
//!
//! Keys that say what this daemon does anyway are accepted with that value; a key that asks for something else is refused,
//! so that nobody believes in a protection that is not there.

use std::time::Duration;

use espdp_api::{InterfaceName, Mode, PacketShape, Routes, TrafficLimit, TrafficSelector};
use ike_proto::config::{
    Child, Childless, Connection, Dpd, DpdAction, Fragmentation, Lifetime, PpkUse, RemoteAddress, StartAction,
    UdpEncapsulation, Uniqueness,
};
use ike_proto::proposal::{
    EspProposal, IkeProposal, default_esp_proposals, default_ike_proposals, parse_ah_list, parse_esp_list,
    parse_ike_list,
};

use super::authentication;
use super::keys::Keys;
use crate::config::defaults;
use crate::config::values::{address, selector};
use crate::credentials::Layer;
use crate::vici::Message;

/// swanctl's default time until an IKE SA is rekeyed.
const IKE_REKEY_TIME: Duration = Duration::from_secs(4 * 3600);

/// swanctl's default time until a Child SA is rekeyed.
const CHILD_REKEY_TIME: Duration = Duration::from_secs(3600);

/// Reads the section of the connection `name`; what signatures need goes into `layer`.
///
/// # Errors
/// What is wrong with it, as strongSwan says it.
pub(super) fn read(name: &str, section: &Message, layer: &mut Layer) -> Result<Connection, String> {
    let mut keys = Keys::of(section);
    keys.only("version", &["0", "2"])?;
    keys.only("keyingtries", &["0", "1", "%forever"])?;
    keys.only("dpd_timeout", &["0", "0s"])?;
    let local_addresses = keys.list("local_addrs", address::remote)?.unwrap_or_default();
    let remote_addresses = keys.list("remote_addrs", address::remote)?.unwrap_or_else(|| vec![RemoteAddress::Any]);
    let proposals = keys.list("proposals", parse_ike)?;
    let dpd_delay = keys.time("dpd_delay")?.filter(|delay| !delay.is_zero());
    let (children, dpd_action) = read_children(keys.section("children"))?;
    let remote_port = keys.number("remote_port")?.unwrap_or(defaults::IKE_PORT);
    // Peers elsewhere expect IKE as through a NAT, as strongSwan sends it.
    let own_port = if remote_port == defaults::IKE_PORT { defaults::IKE_PORT } else { defaults::NAT_PORT };
    let reauth_after = keys.time("reauth_time")?.filter(|after| !after.is_zero());
    let lifetime = ike_lifetime(&mut keys, reauth_after)?;
    let mut connection = Connection {
        local_addresses: local_addresses
            .into_iter()
            .filter_map(|address| own_address(address).transpose())
            .collect::<Result<_, _>>()?,
        remote_addresses,
        local_port: keys.number("local_port")?.unwrap_or(own_port),
        remote_port,
        ike_proposals: proposals.map_or_else(default_ike_proposals, |lists| lists.concat()),
        ike_lifetime: lifetime,
        reauth_after,
        uniqueness: uniqueness(&mut keys)?,
        dpd: dpd_delay.map(|delay| Dpd { delay, action: dpd_action }),
        retransmission: defaults::RETRANSMISSION,
        encapsulation: if keys.switch("encap")?.unwrap_or(false) {
            UdpEncapsulation::Force
        } else {
            UdpEncapsulation::Detect
        },
        mobike: keys.switch("mobike")?.unwrap_or(true),
        childless: keys.value("childless", childless)?.unwrap_or(Childless::Allow),
        fragmentation: keys.value("fragmentation", fragmentation)?.unwrap_or(Fragmentation::Offer),
        ppk: PpkUse::wanted(keys.text("ppk_id")?.map(str::to_owned), keys.switch("ppk_required")?),
        children,
        ..Connection::new(name)
    };
    authentication::read(&mut keys, &mut connection, layer)?;
    keys.done()?;
    Ok(connection)
}

/// `%any` among our own addresses means no choice.
fn own_address(address: RemoteAddress) -> Result<Option<std::net::IpAddr>, String> {
    match address {
        RemoteAddress::Address(address) => Ok(Some(address)),
        RemoteAddress::Any => Ok(None),
        RemoteAddress::Range(_) | RemoteAddress::Name(_) => {
            Err("invalid value for: local_addrs: only addresses and %any are supported".to_owned())
        }
    }
}

fn fragmentation(text: &str) -> Result<Fragmentation, &'static str> {
    match text {
        "yes" => Ok(Fragmentation::Offer),
        "no" => Ok(Fragmentation::Never),
        "accept" => Ok(Fragmentation::Accept),
        "force" => Ok(Fragmentation::Force),
        _ => Err("expected yes, no, accept or force"),
    }
}

fn childless(text: &str) -> Result<Childless, &'static str> {
    match text {
        "allow" => Ok(Childless::Allow),
        "prefer" => Ok(Childless::Prefer),
        "force" => Ok(Childless::Force),
        "never" => Ok(Childless::Never),
        _ => Err("expected allow, prefer, force or never"),
    }
}

/// `default` among proposals stands for ours.
fn parse_ike(text: &str) -> Result<Vec<IkeProposal>, String> {
    if text == "default" {
        Ok(default_ike_proposals())
    } else {
        parse_ike_list(text).map_err(|error| error.to_string())
    }
}

fn parse_esp(text: &str) -> Result<Vec<EspProposal>, String> {
    if text == "default" {
        Ok(default_esp_proposals())
    } else {
        parse_esp_list(text).map_err(|error| error.to_string())
    }
}

fn parse_ah(text: &str) -> Result<Vec<EspProposal>, String> {
    parse_ah_list(text).map_err(|error| error.to_string())
}

/// swanctl: without `rekey_time` an SA that is authenticated anew is not rekeyed.
fn ike_lifetime(keys: &mut Keys<'_>, reauth: Option<Duration>) -> Result<Lifetime, String> {
    let default = if reauth.is_some() { Duration::ZERO } else { IKE_REKEY_TIME };
    let rekey = keys.time("rekey_time")?.unwrap_or(default);
    let over = keys.time("over_time")?.unwrap_or(rekey.max(reauth.unwrap_or_default()) / 10);
    let jitter = keys.time("rand_time")?.unwrap_or(over);
    let rekeys = !rekey.is_zero();
    Ok(Lifetime {
        rekey_after: rekeys.then_some(rekey),
        jitter: jitter.min(if rekeys { rekey } else { reauth.unwrap_or_default() }),
        expire_after: rekeys.then_some(rekey).or(reauth).map(|time| time + over),
    })
}

fn uniqueness(keys: &mut Keys<'_>) -> Result<Uniqueness, String> {
    match keys.text("unique")? {
        None | Some("no") => Ok(Uniqueness::No),
        Some("never") => Ok(Uniqueness::Never),
        Some("replace" | "yes") => Ok(Uniqueness::Replace),
        Some("keep") => Ok(Uniqueness::Keep),
        Some(other) => Err(format!("invalid value for: unique: {other}")),
    }
}

/// The children, and what they want done about a dead peer: the strongest wish counts for all.
fn read_children(section: Option<&Message>) -> Result<(Vec<Child>, DpdAction), String> {
    let mut children = Vec::new();
    let mut action = DpdAction::Clear;
    for (name, section) in section.into_iter().flat_map(Message::sections) {
        let (child, wish) = read_child(name, section).map_err(|error| format!("child '{name}': {error}"))?;
        children.push(child);
        action = match (action, wish) {
            (DpdAction::Restart, _) | (_, DpdAction::Restart) => DpdAction::Restart,
            (DpdAction::Hold, _) | (_, DpdAction::Hold) => DpdAction::Hold,
            (DpdAction::Clear, DpdAction::Clear) => DpdAction::Clear,
        };
    }
    Ok((children, action))
}

fn read_child(name: &str, section: &Message) -> Result<(Child, DpdAction), String> {
    let mut keys = Keys::of(section);
    keys.only("hostaccess", &["no", "yes"])?;
    keys.only("policies", &["yes"])?;
    keys.only("ipcomp", &["no"])?;
    keys.only("priority", &["0"])?;
    keys.only("reqid", &["0"])?;
    let proposals = match (keys.list("esp_proposals", parse_esp)?, keys.list("ah_proposals", parse_ah)?) {
        (Some(_), Some(_)) => return Err("a child has either esp_proposals or ah_proposals".to_owned()),
        (esp, ah) => esp.or(ah),
    };
    let start = match keys.text("start_action")? {
        None | Some("none") => StartAction::None,
        Some("trap" | "route") => StartAction::Trap,
        Some("start" | "trap|start" | "start|trap") => StartAction::Start,
        Some(other) => return Err(format!("invalid value for: start_action: {other}")),
    };
    let start = match keys.text("close_action")? {
        Some("start" | "restart") => StartAction::Start,
        _ => start,
    };
    let dpd_action = match keys.text("dpd_action")? {
        None | Some("none" | "clear") => DpdAction::Clear,
        Some("trap" | "hold") => DpdAction::Hold,
        Some("start" | "restart") => DpdAction::Restart,
        Some(other) => return Err(format!("invalid value for: dpd_action: {other}")),
    };
    let mode = match keys.text("mode")? {
        None | Some("tunnel") => Mode::Tunnel,
        Some("transport") => Mode::Transport,
        Some(other) => return Err(format!("mode = {other} is not supported")),
    };
    let (lifetime, soft, hard) = child_limits(&mut keys)?;
    let child = Child {
        name: name.to_owned(),
        mode,
        local_selectors: selectors(&mut keys, "local_ts")?,
        remote_selectors: selectors(&mut keys, "remote_ts")?,
        esp_proposals: proposals.map_or_else(default_esp_proposals, |lists| lists.concat()),
        lifetime,
        rekey_after_traffic: soft,
        expire_after_traffic: hard,
        replay_window: keys.number("replay_window")?.unwrap_or(defaults::REPLAY_WINDOW),
        interface: keys.value("interface", |name| InterfaceName::new(name))?.unwrap_or_else(defaults::interface),
        routes: Routes::FromSelectors,
        later_fragments: false,
        shape: PacketShape::default(),
        start,
        updown: keys.value("updown", crate::config::read_program)?.unwrap_or_default(),
    };
    keys.done()?;
    Ok((child, dpd_action))
}

/// `dynamic`, alone, is the address of the IKE SA, which the model writes as no selectors.
fn selectors(keys: &mut Keys<'_>, name: &str) -> Result<Vec<TrafficSelector>, String> {
    let read = |text: &str| match text {
        "dynamic" => Ok(None),
        _ => selector::selector(text).map(Some).map_err(|error| error.to_string()),
    };
    let selectors = keys.list(name, read)?.unwrap_or_default();
    if selectors.len() > 1 && selectors.contains(&None) {
        return Err(format!("invalid value for: {name}: dynamic beside other selectors is not supported"));
    }
    Ok(selectors.into_iter().flatten().collect())
}

fn child_limits(keys: &mut Keys<'_>) -> Result<(Lifetime, TrafficLimit, TrafficLimit), String> {
    let life = keys.time("life_time")?;
    let rekey = keys.time("rekey_time")?.unwrap_or_else(|| life.map_or(CHILD_REKEY_TIME, |life| life * 10 / 11));
    let life = life.unwrap_or(rekey * 11 / 10);
    let jitter = keys.time("rand_time")?.unwrap_or(life.saturating_sub(rekey));
    let some = |duration: Duration| Some(duration).filter(|duration| !duration.is_zero());
    let lifetime = Lifetime { rekey_after: some(rekey), jitter: jitter.min(rekey), expire_after: some(life) };
    let mut traffic = |unit: &str| -> Result<(Option<u64>, Option<u64>), String> {
        let soft = keys.number::<u64>(&format!("rekey_{unit}"))?.filter(|limit| *limit > 0);
        let hard = keys.number::<u64>(&format!("life_{unit}"))?.filter(|limit| *limit > 0);
        keys.only(&format!("rand_{unit}"), &["0"])?;
        Ok((soft, hard))
    };
    let (soft_bytes, hard_bytes) = traffic("bytes")?;
    let (soft_packets, hard_packets) = traffic("packets")?;
    let limit = |bytes, packets| TrafficLimit { bytes, packets };
    Ok((lifetime, limit(soft_bytes, soft_packets), limit(hard_bytes, hard_packets)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike_proto::identity::IdentityPattern;

    fn read(name: &str, section: &Message) -> Result<Connection, String> {
        super::read(name, section, &mut Layer::default())
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
        let connection = read("gw", &example()).unwrap();
        assert_eq!(connection.local_addresses, ["192.168.0.1".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(connection.remote_addresses.get(1), Some(&RemoteAddress::Name("gw.example.org".into())));
        assert_eq!(connection.ike_proposals.len(), 1 + default_ike_proposals().len());
        assert_eq!(connection.dpd, Some(Dpd { delay: Duration::from_secs(30), action: DpdAction::Restart }));
        assert_eq!(connection.remote.identity, IdentityPattern::FqdnUnder("strongswan.org".into()));
        assert_eq!(connection.ike_lifetime.expire_after, Some(Duration::from_secs(15840)));
        let child = connection.children.first().unwrap();
        assert_eq!((child.start, child.remote_selectors.len()), (StartAction::Trap, 2));
        assert_eq!(child.lifetime.rekey_after, Some(CHILD_REKEY_TIME));
    }

    #[test]
    fn unknown_keys_are_named_wherever_they_are() {
        let refused = |section: Message| read("gw", &section).unwrap_err();
        assert_eq!(refused(example().with("nonsense", "y")), "unknown option: nonsense");
        let auth = Message::new().with("auth", "psk").with("idd", "x");
        let section = Message::new().with_section("local", auth);
        assert_eq!(refused(section), "unknown option: idd");
        let child = Message::new().with("local_tss", "10.0.0.0/8");
        let children = Message::new().with_section("net", child);
        assert_eq!(
            refused(Message::new().with_section("children", children)),
            "child 'net': unknown option: local_tss"
        );
    }

    #[test]
    fn fragmentation_is_as_swanctl_says_it() {
        let with = |value: &str| read("gw", &example().with("fragmentation", value));
        assert_eq!(read("gw", &example()).unwrap().fragmentation, Fragmentation::Offer);
        assert_eq!(with("accept").unwrap().fragmentation, Fragmentation::Accept);
        assert_eq!(with("force").unwrap().fragmentation, Fragmentation::Force);
        assert_eq!(with("no").unwrap().fragmentation, Fragmentation::Never);
        assert!(with("maybe").unwrap_err().contains("expected yes, no, accept or force"));
    }

    #[test]
    fn what_is_not_there_yet_is_refused_and_not_forgotten() {
        let with = |key: &str, value: &str| read("gw", &example().with(key, value)).unwrap_err();
        assert_eq!(with("unique", "often"), "invalid value for: unique: often");
    }

    #[test]
    fn an_ike_sa_that_is_authenticated_anew_is_not_rekeyed_unless_that_is_said() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let times = |section: Message| {
            let connection = read("gw", &section).unwrap();
            let Lifetime { rekey_after, expire_after, .. } = connection.ike_lifetime;
            (connection.reauth_after, rekey_after, expire_after)
        };
        let reauth = || example().with("reauth_time", "1h");
        assert_eq!(times(reauth()), (seconds(3600), None, seconds(3960)));
        let both = reauth().with("rekey_time", "30m").with("over_time", "60");
        assert_eq!(times(both), (seconds(3600), seconds(1800), seconds(1860)));
        assert_eq!(times(example().with("reauth_time", "0")).0, None);
        let unique = |value: &str| read("gw", &example().with("unique", value)).unwrap().uniqueness;
        let childless = |value: &str| read("gw", &example().with("childless", value)).unwrap().childless;
        assert_eq!(["allow", "prefer", "force", "never"].map(childless), {
            use Childless::{Allow, Force, Never, Prefer};
            [Allow, Prefer, Force, Never]
        });
        assert_eq!(["never", "no", "replace", "keep"].map(unique), {
            use Uniqueness::{Keep, Never, No, Replace};
            [Never, No, Replace, Keep]
        });
    }

    #[test]
    fn a_child_without_rekeying_never_expires() {
        let child = Message::new().with("rekey_time", "0");
        let children = Message::new().with_section("net", child);
        let connection = read("gw", &Message::new().with_section("children", children)).unwrap();
        let lifetime = connection.children.first().unwrap().lifetime;
        assert_eq!((lifetime.rekey_after, lifetime.expire_after), (None, None));
    }
}
