//! Connections as sections of VICI messages, in the order of keys that strongSwan has.

use espdp_api::PolicySpec;
use ike_proto::config::{
    Child, CloseAction, Connection, DpdAction, LocalAuth, LocalMethod, RemoteAddress, RemoteAuth, RemoteMethod,
    StartAction, Uniqueness,
};
use ike_proto::identity::IdentityPattern;
use pki::certificate::Certificate;
use pki::path::Authority;
use pki::revocation::Policy;

use super::{child_selector, mode, selector, shunt_mode};
use crate::config::defaults;
use crate::credentials::Store;
use crate::swanctl::{SHUNT_PRIORITY, Shunt};
use crate::vici::Message;

/// A connection as in `list-conn` events, with its children that nobody negotiates.
pub(crate) fn connection(connection: &Connection, shunts: &[Shunt], credentials: &Store) -> Message {
    let mut section = Message::new();
    section.put_list("local_addrs", or_any(connection.local_addresses.iter().map(ToString::to_string)));
    section.put_list("remote_addrs", or_any(connection.remote_addresses.iter().map(remote_address)));
    section.put("version", "IKEv2");
    section.put("reauth_time", connection.reauth_after.map_or(0, |after| after.as_secs()));
    section.put("rekey_time", connection.ike_lifetime.rekey_after.map_or(0, |after| after.as_secs()));
    section.put("unique", uniqueness(connection.uniqueness));
    section.put_some("dpd_delay", connection.dpd.map(|dpd| dpd.delay.as_secs()));
    if let Some(ppk) = &connection.ppk {
        section.put_some("ppk_id", ppk.id.as_ref().map(|id| String::from_utf8_lossy(id)));
        section.put("ppk_required", if ppk.required { "yes" } else { "no" });
    }
    let local = std::iter::once(&connection.local).chain(&connection.more_local);
    for (index, round) in local.enumerate() {
        section.put_section(&format!("local-{}", index + 1), local_auth(round, credentials));
    }
    let remote = std::iter::once(&connection.remote).chain(&connection.more_remote);
    for (index, round) in remote.enumerate() {
        section.put_section(&format!("remote-{}", index + 1), remote_auth(round, credentials));
    }
    let mut children = Message::new();
    for child in &connection.children {
        let dpd = child.dpd.or(connection.dpd.map(|dpd| dpd.action));
        children.put_section(&child.name, child_config(child, dpd));
    }
    for shunt in shunts {
        children.put_section(&shunt.name, shunt_config(shunt));
    }
    section.with_section("children", children)
}

fn shunt_config(shunt: &Shunt) -> Message {
    let mut section = Message::new()
        .with("mode", shunt_mode(shunt.policy.spec.action))
        .with("rekey_time", shunt.rekey_time.as_secs())
        .with("rekey_bytes", 0)
        .with("rekey_packets", 0)
        .with("dpd_action", "none")
        .with("close_action", "none");
    section.put_list("local-ts", shunt.policy.spec.local.iter().map(selector));
    section.put_list("remote-ts", shunt.policy.spec.remote.iter().map(selector));
    section.put_some("priority", Some(shunt.policy.spec.priority).filter(|priority| *priority != SHUNT_PRIORITY));
    section
}

/// strongSwan's names.
fn uniqueness(uniqueness: Uniqueness) -> &'static str {
    match uniqueness {
        Uniqueness::Never => "UNIQUE_NEVER",
        Uniqueness::No => "UNIQUE_NO",
        Uniqueness::Replace => "UNIQUE_REPLACE",
        Uniqueness::Keep => "UNIQUE_KEEP",
    }
}

fn child_config(child: &Child, dpd: Option<DpdAction>) -> Message {
    let dpd_action = match dpd {
        Some(DpdAction::Restart) => "start",
        Some(DpdAction::Hold) => "trap",
        Some(DpdAction::Clear) | None => "none",
    };
    let close_action = match child.close {
        _ if child.start == StartAction::Start => "start",
        CloseAction::Start => "start",
        CloseAction::Trap => "trap",
        CloseAction::None => "none",
    };
    let mut section = Message::new()
        .with("mode", mode(child.mode))
        .with("rekey_time", child.lifetime.rekey_after.map_or(0, |after| after.as_secs()))
        .with("rekey_bytes", child.rekey_after_traffic.bytes.unwrap_or(0))
        .with("rekey_packets", child.rekey_after_traffic.packets.unwrap_or(0))
        .with("dpd_action", dpd_action)
        .with("close_action", close_action);
    section.put_list("local-ts", child.local_selectors.iter().map(child_selector));
    section.put_list("remote-ts", child.remote_selectors.iter().map(child_selector));
    section.put_some("interface", Some(&child.interface).filter(|interface| **interface != defaults::interface()));
    section.put_some("priority", Some(child.priority).filter(|priority| *priority != PolicySpec::DEFAULT_PRIORITY));
    section
}

fn local_auth(round: &LocalAuth, credentials: &Store) -> Message {
    let mut section = Message::new();
    section.put_some("id", round.identity.as_ref());
    let mut certificates = Vec::new();
    match &round.method {
        LocalMethod::PreSharedKey => section.put("class", "pre-shared key"),
        LocalMethod::Signature(name) => {
            section.put("class", "public key");
            let signer = credentials.signer(name);
            certificates.extend(signer.iter().flat_map(|signer| &signer.certificates).map(Certificate::subject));
        }
        _ => section.put("class", "unknown"),
    }
    section.put_list("groups", NONE);
    section.put_list("cert_policy", NONE);
    section.put_list("certs", certificates);
    section.put_list("cacerts", NONE);
    section
}

fn remote_auth(round: &RemoteAuth, credentials: &Store) -> Message {
    let mut section = Message::new();
    section.put_some("id", Some(&round.identity).filter(|id| **id != IdentityPattern::Any));
    let demand = match &round.method {
        RemoteMethod::PreSharedKey => {
            section.put("class", "pre-shared key");
            None
        }
        RemoteMethod::Signature(trust) => {
            section.put("class", "public key");
            credentials.demand(&trust.name)
        }
        _ => {
            section.put("class", "unknown");
            None
        }
    };
    // What validation must come to at least, with strongSwan's names.
    section.put_some(
        "revocation",
        demand.and_then(|demand| match demand.revocation {
            Policy::Strict => Some("GOOD"),
            Policy::IfUri => Some("SKIPPED"),
            Policy::Relaxed => None,
        }),
    );
    section.put_list("groups", NONE);
    section.put_list("cert_policy", demand.iter().flat_map(|demand| &demand.policies));
    section.put_list("certs", demand.iter().flat_map(|demand| &demand.certificates).map(Certificate::subject));
    section.put_list(
        "cacerts",
        demand.iter().flat_map(|demand| &demand.authorities).map(|authority| match authority {
            Authority::Certificate(certificate) => certificate.subject(),
            Authority::Named(name) => name,
        }),
    );
    section
}

const NONE: [&str; 0] = [];

fn remote_address(address: &RemoteAddress) -> String {
    match address {
        RemoteAddress::Address(address) => address.to_string(),
        RemoteAddress::Range(range) => range.to_string(),
        RemoteAddress::Name(name) => name.clone(),
        RemoteAddress::Any => "%any".to_owned(),
    }
}

fn or_any(addresses: impl Iterator<Item = String>) -> Vec<String> {
    let addresses: Vec<String> = addresses.collect();
    if addresses.is_empty() { vec!["%any".to_owned()] } else { addresses }
}
