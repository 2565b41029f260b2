//! SAs and connections as sections of VICI messages. The order of the keys is part of the interface: scripts match
//! `swanctl --list-sas --raw` with ordered patterns.

use std::time::Instant;

use espdp_api::{
    Direction, Encapsulation, EspIntegrity, EspSpi, IpsecProtocol, Mode, PolicyAction, PolicyDirections, PolicySpec,
    SaStatistics,
};
use ike_proto::io::{ChildSaReport, ChildState, IkeSaReport, IkeState};
use ike_proto::proposal::{AdditionalGroups, Algorithm};

pub(crate) use config::connection;
pub(crate) use selectors::{child_selector, selector};

use super::shell::Statistics;
use crate::config::{ManualPolicy, ManualSa};
use crate::vici::Message;

mod config;
mod selectors;

/// An IKE SA with its Child SAs, as in `list-sa` events. Without `statistics`, there are no counters.
pub(crate) fn ike_sa_with_children(sa: &IkeSaReport, statistics: Option<&Statistics>, now: Instant) -> Message {
    let mut children = Message::new();
    for child in &sa.children {
        children.put_section(&child_key(child), child_sa(child, statistics, now));
    }
    ike_sa(sa, now).with_section("child-sas", children)
}

/// A policy of a child, as strongSwan shows it.
pub(crate) fn policy(connection: &str, child: &str, mode: &str, spec: &PolicySpec) -> Message {
    let mut section = Message::new().with("child", child).with("ike", connection).with("mode", mode);
    section.put_list("local-ts", spec.local.iter().map(selector));
    section.put_list("remote-ts", spec.remote.iter().map(selector));
    Message::new().with_section(&format!("{connection}/{child}"), section)
}

/// A policy that no connection negotiates, with its SAs.
pub(crate) fn manual_policy(policy: &ManualPolicy, statistics: &Statistics) -> Message {
    let spec = &policy.spec;
    let mode = policy.sas.first().map_or(Mode::Tunnel, |sa| sa.mode);
    let (action, mode) = match spec.action {
        PolicyAction::Protect { .. } => ("protect", format!("{mode:?}").to_uppercase()),
        PolicyAction::Bypass => ("bypass", shunt_mode(spec.action).to_owned()),
        PolicyAction::Discard => ("discard", shunt_mode(spec.action).to_owned()),
    };
    let direction = match spec.directions {
        PolicyDirections::Both => "both",
        PolicyDirections::Outbound => "out",
        PolicyDirections::Inbound => "in",
    };
    let mut section = Message::new().with("child", &policy.name).with("mode", mode);
    section.put_list("local-ts", spec.local.iter().map(selector));
    section.put_list("remote-ts", spec.remote.iter().map(selector));
    section.put("action", action);
    section.put("priority", spec.priority);
    section.put("direction", direction);
    section.put("interface", &spec.interface);
    let mut sas = Message::new();
    for sa in &policy.sas {
        sas.put_section(&sa.name, manual_sa(sa, statistics));
    }
    section.with_section("sas", sas)
}

fn manual_sa(sa: &ManualSa, statistics: &Statistics) -> Message {
    let direction = if sa.direction == Direction::Inbound { "in" } else { "out" };
    let mut section = Message::new()
        .with("direction", direction)
        .with("spi", sa.spi)
        .with("mode", format!("{:?}", sa.mode).to_uppercase())
        .with("local-host", sa.path.local)
        .with("remote-host", sa.path.remote);
    section.put_if("encap", matches!(sa.path.encapsulation, Encapsulation::Udp { .. }));
    section.put("encr-alg", sa.algorithms.cipher.name());
    section.put_some("encr-keysize", sa.algorithms.cipher.key_bits());
    section.put("integ-alg", sa.algorithms.integrity.name());
    if let Some(counters) = statistics.sas.get(&(sa.direction, sa.spi)) {
        section.put("bytes", counters.bytes);
        section.put("packets", counters.packets);
        section.put("sequence", counters.sequence);
        let mut drops = Message::new();
        counters.drops.iter().for_each(|drop| drops.put(&drop.reason, drop.packets));
        section.put_section("drops", drops);
    }
    section
}

/// An IKE SA without its Child SAs.
pub(crate) fn ike_sa(sa: &IkeSaReport, now: Instant) -> Message {
    let mut section = Message::new()
        .with("uniqueid", sa.id.0)
        .with("version", 2)
        .with("state", ike_state(sa.state))
        .with("local-host", sa.path.local.ip())
        .with("local-port", sa.path.local.port())
        .with("local-id", sa.local_id.as_deref().unwrap_or("%any"))
        .with("remote-host", sa.path.remote.ip())
        .with("remote-port", sa.path.remote.port())
        .with("remote-id", sa.remote_id.as_deref().unwrap_or("%any"));
    section.put_if("initiator", sa.initiator);
    section.put("initiator-spi", sa.initiator_spi);
    section.put("responder-spi", sa.responder_spi);
    section.put_if("nat-local", sa.nat_local);
    section.put_if("nat-remote", sa.nat_remote);
    section.put_if("nat-fake", sa.nat_fake);
    section.put_if("nat-any", sa.nat_local || sa.nat_remote || sa.nat_fake);
    if let Some(suite) = &sa.proposal {
        section.put("encr-alg", suite.cipher.name());
        section.put_some("encr-keysize", suite.cipher.key_bits());
        section.put_some("integ-alg", suite.integrity.map(Algorithm::name));
        section.put("prf-alg", suite.prf.name());
        section.put("dh-group", suite.group.name());
        put_additional(&mut section, suite.additional);
    }
    if sa.state == IkeState::Established {
        section.put_some("established", sa.established.map(|at| seconds_since(at, now)));
        section.put_some("rekey-time", sa.rekey_at.map(|at| seconds_until(at, now)));
        section.put_some("reauth-time", sa.reauth_at.map(|at| seconds_until(at, now)));
    }
    for (name, addresses) in [("local-vips", &sa.local_virtual), ("remote-vips", &sa.remote_virtual)] {
        if !addresses.is_empty() {
            section.put_list(name, addresses.iter().map(ToString::to_string));
        }
    }
    if !sa.tasks.is_empty() {
        section.put_list("tasks-queued", &sa.tasks);
    }
    section
}

/// The additional key exchanges, as strongSwan 6 names them: `ke1-alg`.
fn put_additional(section: &mut Message, additional: AdditionalGroups) {
    for (round, group) in additional.rounds() {
        section.put(&format!("ke{}-alg", round.number()), group.name());
    }
}

/// A Child SA.
pub(crate) fn child_sa(child: &ChildSaReport, statistics: Option<&Statistics>, now: Instant) -> Message {
    let is_esp = child.protocol == IpsecProtocol::Esp;
    let mut section = Message::new()
        .with("name", &child.name)
        .with("uniqueid", child.id.0)
        .with("reqid", child.policy.0)
        .with("state", child_state(child.state))
        .with("mode", mode(child.mode))
        .with("protocol", if is_esp { "ESP" } else { "AH" });
    section.put_if("encap", matches!(child.path.encapsulation, Encapsulation::Udp { .. }));
    section.put("spi-in", child.spi_in);
    // Until the outbound half exists, strongSwan shows zeros.
    section.put("spi-out", child.spi_out.map_or_else(|| "00000000".to_owned(), |spi| spi.to_string()));
    if is_esp {
        section.put("encr-alg", child.algorithms.cipher.name());
    }
    section.put_some("encr-keysize", child.algorithms.cipher.key_bits());
    if child.algorithms.integrity != EspIntegrity::None {
        section.put("integ-alg", child.algorithms.integrity.name());
    }
    section.put_some("dh-group", child.pfs_group.map(Algorithm::name));
    put_additional(&mut section, child.additional);
    if child.algorithms.extended_sequence_numbers {
        section.put("esn", 1);
    }
    if let Some(statistics) = statistics {
        put_counters(&mut section, "in", statistics_of(statistics, Direction::Inbound, Some(child.spi_in)));
        put_counters(&mut section, "out", statistics_of(statistics, Direction::Outbound, child.spi_out));
    }
    section.put_some("rekey-time", child.rekey_at.map(|at| seconds_until(at, now)));
    section.put_some("life-time", child.expires_at.map(|at| seconds_until(at, now)));
    section.put("install-time", seconds_since(child.installed, now));
    section.put_list("local-ts", child.local.iter().map(selector));
    section.put_list("remote-ts", child.remote.iter().map(selector));
    section
}

/// The name of a Child SA's section: unique where several have one name, as while rekeying.
pub(crate) fn child_key(child: &ChildSaReport) -> String {
    format!("{}-{}", child.name, child.id.0)
}

/// What our own tools show beyond [`ike_sa_with_children`]: nonces, lifetimes, sequence numbers, drops.
pub(crate) fn ike_sa_in_full(sa: &IkeSaReport, statistics: &Statistics, now: Instant) -> Message {
    let mut section = ike_sa(sa, now);
    section.put("nonce-i", hex(&sa.nonce_i));
    section.put("nonce-r", hex(&sa.nonce_r));
    section.put_some("life-time", sa.expires_at.map(|at| seconds_until(at, now)));
    let mut children = Message::new();
    for child in &sa.children {
        let mut full = child_sa(child, Some(statistics), now);
        full.put("local-host", child.path.local);
        full.put("remote-host", child.path.remote);
        let halves = [("in", Direction::Inbound, Some(child.spi_in)), ("out", Direction::Outbound, child.spi_out)];
        for (suffix, direction, spi) in halves {
            if let Some(counters) = statistics_of(statistics, direction, spi) {
                full.put(&format!("sequence-{suffix}"), counters.sequence);
                let mut drops = Message::new();
                counters.drops.iter().for_each(|drop| drops.put(&drop.reason, drop.packets));
                full.put_section(&format!("drops-{suffix}"), drops);
            }
        }
        children.put_section(&child_key(child), full);
    }
    section.with_section("child-sas", children)
}

/// strongSwan's name of an IKE SA's state.
pub(crate) fn ike_state(state: IkeState) -> &'static str {
    match state {
        IkeState::Created => "CREATED",
        IkeState::Connecting => "CONNECTING",
        IkeState::Established => "ESTABLISHED",
        IkeState::Rekeying => "REKEYING",
        IkeState::Rekeyed => "REKEYED",
        IkeState::Deleting => "DELETING",
    }
}

/// strongSwan's name of a Child SA's state.
fn child_state(state: ChildState) -> &'static str {
    match state {
        ChildState::Installing => "INSTALLING",
        ChildState::Installed => "INSTALLED",
        ChildState::Rekeying => "REKEYING",
        ChildState::Rekeyed => "REKEYED",
        ChildState::Deleting => "DELETING",
    }
}

/// strongSwan's name of what becomes of packets that no SA carries.
pub(crate) fn shunt_mode(action: PolicyAction) -> &'static str {
    match action {
        PolicyAction::Protect { .. } => "TUNNEL",
        PolicyAction::Bypass => "PASS",
        PolicyAction::Discard => "DROP",
    }
}

/// strongSwan's name of a mode.
pub(crate) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Tunnel => "TUNNEL",
        Mode::Transport => "TRANSPORT",
    }
}

fn put_counters(section: &mut Message, suffix: &str, counters: Option<&SaStatistics>) {
    if let Some(counters) = counters {
        section.put(&format!("bytes-{suffix}"), counters.bytes);
        section.put(&format!("packets-{suffix}"), counters.packets);
        section.put_some(&format!("use-{suffix}"), counters.idle_seconds);
    } else {
        section.put(&format!("bytes-{suffix}"), 0);
        section.put(&format!("packets-{suffix}"), 0);
    }
}

fn statistics_of(statistics: &Statistics, direction: Direction, spi: Option<EspSpi>) -> Option<&SaStatistics> {
    statistics.sas.get(&(direction, spi?))
}

fn seconds_since(at: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(at).as_secs()
}

fn seconds_until(at: Instant, now: Instant) -> u64 {
    let left = at.saturating_duration_since(now);
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::shell::by_half;
    use crate::daemon::testing;

    fn statistics() -> Statistics {
        let of = |spi: u32, direction, bytes| SaStatistics {
            spi: EspSpi::try_from(spi).unwrap(),
            direction,
            bytes,
            packets: 3,
            idle_seconds: Some(0),
            sequence: 3,
            drops: vec![espdp_api::DropCount { reason: "replay".into(), packets: 7 }],
        };
        let sas = vec![of(0xbc72_1029, Direction::Inbound, 252), of(0x61d7_5315, Direction::Outbound, 253)];
        Statistics { sas: by_half(sas), ..Statistics::default() }
    }

    /// The line that `swanctl --list-sas --raw` prints for strongSwan 5.9.8 in the same situation, with our SPIs and times.
    #[test]
    fn an_sa_has_the_keys_of_strongswan_in_its_order() {
        let sa = testing::ike_sa();
        let now = sa.established.unwrap();
        let message = Message::new().with_section("net", ike_sa_with_children(&sa, Some(&statistics()), now));
        assert_eq!(
            message.to_string(),
            "{net {uniqueid=1 version=2 state=ESTABLISHED local-host=192.168.0.1 local-port=4500 \
             local-id=moon.strongswan.org remote-host=192.168.0.2 remote-port=4500 remote-id=sun.strongswan.org \
             initiator=yes initiator-spi=0158b8fb90b7623d responder-spi=13514610cea16160 nat-remote=yes nat-any=yes \
             encr-alg=AES_GCM_16 encr-keysize=256 prf-alg=PRF_HMAC_SHA2_384 dh-group=ECP_256 established=0 \
             rekey-time=14098 child-sas {net-1 {name=net uniqueid=1 reqid=1 state=INSTALLED mode=TUNNEL protocol=ESP \
             encap=yes spi-in=bc721029 spi-out=61d75315 encr-alg=AES_GCM_16 encr-keysize=256 esn=1 bytes-in=252 \
             packets-in=3 use-in=0 bytes-out=253 packets-out=3 use-out=0 rekey-time=3239 life-time=3960 install-time=0 \
             local-ts=[10.1.0.0/24] remote-ts=[10.2.0.0/24]}}}}"
        );
    }

    #[test]
    fn our_own_tools_see_nonces_and_drops_too() {
        let sa = testing::ike_sa();
        let full = ike_sa_in_full(&sa, &statistics(), sa.established.unwrap());
        assert_eq!(full.text("nonce-i"), Some("0101"));
        let child = full.section("child-sas").and_then(|children| children.section("net-1")).unwrap();
        assert_eq!(child.section("drops-in").unwrap().text("replay"), Some("7"));
        assert_eq!(child.text("sequence-out"), Some("3"));
    }
}
