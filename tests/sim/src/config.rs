//! Connections for the hosts of a simulation.

use std::net::IpAddr;
use std::time::Duration;

use espdp_api::{AddressRange, InterfaceName, Mode, PacketShape, Routes, Secret, TrafficLimit, TrafficSelector};
use ike_proto::config::{
    Child, CloseAction, Connection, Lifetime, LocalAuth, LocalMethod, RemoteAddress, RemoteAuth, RemoteMethod,
    Retransmission, SecretKind, SharedSecret, StartAction,
};
use ike_proto::identity::{Identity, IdentityPattern};

/// An address from its text.
///
/// # Panics
/// When it is none.
#[must_use]
#[expect(clippy::expect_used, reason = "addresses are written in the tests")]
pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The connection `net` from the host at `here` to the one at `there`, with the child `net` between 10.1.0.0/16 (the host
/// whose address is lower) and 10.2.0.0/16. Nothing rekeys and nothing starts by itself.
///
/// # Panics
/// Never: the proposals are right.
#[must_use]
#[expect(clippy::expect_used, reason = "what is parsed is written here")]
pub fn connection(here: IpAddr, there: IpAddr) -> Connection {
    let never = Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after: None };
    let subnet = |left: bool| {
        let net = if left { ("10.1.0.0", "10.1.255.255") } else { ("10.2.0.0", "10.2.255.255") };
        let range = AddressRange::new(address(net.0), address(net.1)).expect("a range");
        vec![TrafficSelector::any_protocol(range).into()]
    };
    let name = |left: bool| Identity::Fqdn(if left { "left.example" } else { "right.example" }.to_owned());
    let left = here < there;
    Connection {
        local_addresses: vec![here],
        remote_addresses: vec![RemoteAddress::Address(there)],
        local: LocalAuth { identity: Some(name(left)), method: LocalMethod::PreSharedKey },
        remote: RemoteAuth { identity: IdentityPattern::Exactly(name(!left)), method: RemoteMethod::PreSharedKey },
        ike_proposals: vec!["aes128gcm16-prfsha256-x25519".parse().expect("a proposal")],
        ike_lifetime: never,
        retransmission: Retransmission {
            first: Duration::from_millis(500),
            factor: 1.5,
            tries: 20,
            longest: Duration::from_secs(4),
        },
        children: vec![Child {
            name: "net".to_owned(),
            mode: Mode::Tunnel,
            local_selectors: subnet(left),
            remote_selectors: subnet(!left),
            esp_proposals: vec!["aes128gcm16-esn".parse().expect("a proposal")],
            lifetime: never,
            rekey_after_traffic: TrafficLimit::default(),
            expire_after_traffic: TrafficLimit::default(),
            replay_window: 1024,
            interface: InterfaceName::new("ipsec0").expect("a name"),
            routes: Routes::FromSelectors,
            later_fragments: false,
            priority: espdp_api::PolicySpec::DEFAULT_PRIORITY,
            per_resource: false,
            shape: PacketShape::default(),
            start: StartAction::None,
            updown: Vec::new(),
            close: CloseAction::None,
            dpd: None,
        }],
        ..Connection::new("net")
    }
}

/// The pre-shared key of everybody.
#[must_use]
pub fn secret() -> SharedSecret {
    SharedSecret {
        name: "net".to_owned(),
        kind: SecretKind::Ike,
        owners: Vec::new(),
        secret: Secret::new(b"a shared secret".to_vec()),
    }
}
