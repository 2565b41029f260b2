//! What is negotiated, and by how many.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use espdp_api::{AddressRange, InterfaceName, Mode, PacketShape, Routes, Secret, TrafficLimit, TrafficSelector};
use ike_proto::config::{
    Child, CloseAction, Connection, CredentialName, Dpd, DpdAction, Lifetime, LocalAuth, LocalMethod, RemoteAddress,
    RemoteAuth, RemoteMethod, SecretKind, SharedSecret, StartAction, Trust, TrustName,
};
use ike_proto::identity::{Identity, IdentityPattern};
use ike_proto::io::Command;
use pki::key::{Curve, KeyType};

use crate::network::Role;

/// A way to set an IKE SA up.
pub(crate) struct Suite {
    /// For people.
    pub(crate) name: &'static str,
    /// The IKE proposal.
    proposal: &'static str,
    /// The keys of both ends; without, they have a pre-shared one.
    pub(crate) key: Option<KeyType>,
}

impl Suite {
    /// What is measured.
    pub(crate) fn all() -> Vec<Self> {
        let gcm = |name, proposal, key| Self { name, proposal, key };
        let (ecdsa, rsa) = (KeyType::Ecdsa(Curve::P256), KeyType::Rsa { bits: 3072 });
        vec![
            gcm("psk, x25519", "aes256gcm16-prfsha256-x25519", None),
            gcm("psk, ecp256", "aes256gcm16-prfsha256-ecp256", None),
            gcm("psk, ecp384", "aes256gcm16-prfsha384-ecp384", None),
            gcm("psk, modp2048", "aes256gcm16-prfsha256-modp2048", None),
            gcm("psk, x25519 and ML-KEM-768", "aes256gcm16-prfsha256-x25519-ke1_mlkem768", None),
            gcm("ecdsa p-256, ecp256", "aes256gcm16-prfsha256-ecp256", Some(ecdsa)),
            gcm("rsa 3072, ecp256", "aes256gcm16-prfsha256-ecp256", Some(rsa)),
        ]
    }
}

/// Who sets SAs up with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fleet {
    /// Sites with a connection and a secret each on both ends.
    Hub,
    /// The responder has one connection and one secret for all.
    RoadWarriors,
}

/// The name of the initiator's connection with this number.
pub(crate) fn name(number: u32) -> String {
    format!("site-{number}")
}

impl Fleet {
    /// What both ends are told.
    pub(crate) fn configuration(self, suite: &Suite, connections: u32) -> Vec<(Role, Command)> {
        let mut commands = Vec::new();
        for number in 0..connections {
            commands.push((Role::Initiator, set(of_initiator(suite, number))));
            commands.push((Role::Initiator, Command::SetSecret(secret(&name(number), Some(number)))));
            if self == Self::Hub {
                commands.push((Role::Responder, set(of_responder(suite, Some(number)))));
                commands.push((Role::Responder, Command::SetSecret(secret(&name(number), Some(number)))));
            }
        }
        if self == Self::RoadWarriors {
            commands.push((Role::Responder, set(of_responder(suite, None))));
            commands.push((Role::Responder, Command::SetSecret(secret("all", None))));
        }
        commands
    }
}

fn set(connection: Connection) -> Command {
    Command::SetConnection(Box::new(connection))
}

fn hub() -> Identity {
    Identity::Fqdn("hub.example".to_owned())
}

fn site(number: u32) -> Identity {
    Identity::Fqdn(format!("site-{number}.example"))
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

const HUB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn secret(name: &str, number: Option<u32>) -> SharedSecret {
    let owners = number.map(|number| vec![hub(), site(number)]).unwrap_or_default();
    SharedSecret {
        name: name.to_owned(),
        kind: SecretKind::Ike,
        owners,
        secret: Secret::new(b"a key of 32 octets, all the same".to_vec()),
    }
}

fn of_initiator(suite: &Suite, number: u32) -> Connection {
    let dpd = Some(Dpd { delay: Duration::from_secs(30), action: DpdAction::Clear });
    let (local, remote) = (network(number), vec![TrafficSelector::any_protocol(range(0xac10_0000, 0xac10_ffff))]);
    Connection {
        local_addresses: vec![address(number)],
        remote_addresses: vec![RemoteAddress::Address(HUB)],
        local: local_auth(suite, site(number)),
        remote: remote_auth(suite, IdentityPattern::Exactly(hub())),
        dpd,
        ike_lifetime: rekeyed_after(80),
        // Never at the time when the IKE SA is due: of two timers that are due at once only one is told.
        children: vec![Child { lifetime: rekeyed_after(37), ..child(local, remote) }],
        ..connection(suite, name(number))
    }
}

fn of_responder(suite: &Suite, number: Option<u32>) -> Connection {
    let local = vec![TrafficSelector::any_protocol(range(0xac10_0000, 0xac10_ffff))];
    let everywhere = vec![TrafficSelector::any_protocol(range(0, u32::MAX))];
    Connection {
        local_addresses: vec![HUB],
        remote_addresses: vec![number.map_or(RemoteAddress::Any, |number| RemoteAddress::Address(address(number)))],
        local: local_auth(suite, hub()),
        remote: remote_auth(
            suite,
            number.map_or(IdentityPattern::Any, |number| IdentityPattern::Exactly(site(number))),
        ),
        children: vec![child(local, number.map_or(everywhere, network))],
        ..connection(suite, number.map_or("all".to_owned(), name))
    }
}

fn connection(suite: &Suite, name: String) -> Connection {
    Connection { ike_proposals: vec![suite.proposal.parse().unwrap()], ..Connection::new(name) }
}

fn rekeyed_after(seconds: u64) -> Lifetime {
    Lifetime { rekey_after: Some(Duration::from_secs(seconds)), jitter: Duration::ZERO, expire_after: None }
}

fn local_auth(suite: &Suite, identity: Identity) -> LocalAuth {
    let method = match suite.key {
        None => LocalMethod::PreSharedKey,
        Some(_) => LocalMethod::Signature(CredentialName("own".to_owned())),
    };
    LocalAuth { identity: Some(identity), method }
}

fn remote_auth(suite: &Suite, identity: IdentityPattern) -> RemoteAuth {
    let trust = || Trust { name: TrustName("any".to_owned()), authorities: Vec::new(), ocsp: false };
    let method = suite.key.map_or(RemoteMethod::PreSharedKey, |_| RemoteMethod::Signature(trust()));
    RemoteAuth { identity, method }
}

/// What is behind a site.
fn network(number: u32) -> Vec<TrafficSelector> {
    let first = 0x6440_0000 + (number << 8);
    vec![TrafficSelector::any_protocol(range(first, first + 255))]
}

fn range(first: u32, last: u32) -> AddressRange {
    AddressRange::new(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into()).unwrap()
}

fn child(local_selectors: Vec<TrafficSelector>, remote_selectors: Vec<TrafficSelector>) -> Child {
    Child {
        name: "net".to_owned(),
        mode: Mode::Tunnel,
        local_selectors: local_selectors.into_iter().map(Into::into).collect(),
        remote_selectors: remote_selectors.into_iter().map(Into::into).collect(),
        esp_proposals: vec!["aes256gcm16-esn".parse().unwrap()],
        lifetime: Lifetime { rekey_after: None, ..rekeyed_after(0) },
        rekey_after_traffic: TrafficLimit::default(),
        expire_after_traffic: TrafficLimit::default(),
        replay_window: 1024,
        interface: InterfaceName::new("ipsec0").unwrap(),
        routes: Routes::FromSelectors,
        later_fragments: false,
        priority: espdp_api::PolicySpec::DEFAULT_PRIORITY,
        per_resource: false,
        shape: PacketShape::default(),
        start: StartAction::None,
        updown: Vec::new(),
        close: CloseAction::None,
        dpd: None,
    }
}
