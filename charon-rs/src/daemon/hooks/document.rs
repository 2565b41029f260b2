//! The JSON document that a hook reads from its standard input.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use espdp_api::{Encapsulation, InterfaceName, IpsecProtocol, Mode, TrafficSelector};
use ike_proto::io::{ChildSaReport, IkeSaReport};
use serde::Serialize;

/// What happened, as JSON in one line.
pub(super) fn of(
    sa: &IkeSaReport,
    child: Option<&ChildSaReport>,
    interface: Option<&InterfaceName>,
    event: &'static str,
    reason: Option<&'static str>,
) -> String {
    let document = Document {
        event,
        time: crate::daemon::events::unix_time(SystemTime::now()),
        connection: &sa.connection,
        unique_id: sa.id.0,
        local: End::new(sa.path.local, sa.local_id.as_deref(), &sa.local_virtual),
        remote: End::new(sa.path.remote, sa.remote_id.as_deref(), &sa.remote_virtual),
        name_servers: &sa.name_servers,
        domains: &sa.domains,
        child: child.map(|child| Child {
            name: &child.name,
            unique_id: child.id.0,
            reqid: child.policy.0,
            interface: interface.map(InterfaceName::as_str),
            mode: match child.mode {
                Mode::Tunnel => "tunnel",
                Mode::Transport => "transport",
            },
            protocol: match child.protocol {
                IpsecProtocol::Esp => "esp",
                IpsecProtocol::Ah => "ah",
            },
            in_udp: matches!(child.path.encapsulation, Encapsulation::Udp { .. }),
            spi_in: child.spi_in.to_string(),
            spi_out: child.spi_out.map(|spi| spi.to_string()),
            local_selectors: child.local.iter().map(TrafficSelector::to_string).collect(),
            remote_selectors: child.remote.iter().map(TrafficSelector::to_string).collect(),
        }),
        reason,
    };
    serde_json::to_string(&document).unwrap_or_else(|error| {
        tracing::error!(%error, "an event cannot be written as JSON");
        "{}".to_owned()
    })
}

#[derive(Serialize)]
struct Document<'a> {
    event: &'static str,
    /// Seconds since 1970.
    time: String,
    connection: &'a str,
    unique_id: u32,
    local: End<'a>,
    remote: End<'a>,
    /// What the peer told us with our virtual addresses.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    name_servers: &'a [IpAddr],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    domains: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<Child<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// One end of the IKE SA.
#[derive(Serialize)]
struct End<'a> {
    address: IpAddr,
    port: u16,
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    virtual_addresses: &'a [IpAddr],
}

impl<'a> End<'a> {
    fn new(address: SocketAddr, id: Option<&'a str>, virtual_addresses: &'a [IpAddr]) -> Self {
        Self { address: address.ip(), port: address.port(), id, virtual_addresses }
    }
}

#[derive(Serialize)]
struct Child<'a> {
    name: &'a str,
    unique_id: u32,
    reqid: u64,
    interface: Option<&'a str>,
    mode: &'static str,
    protocol: &'static str,
    in_udp: bool,
    spi_in: String,
    spi_out: Option<String>,
    local_selectors: Vec<String>,
    remote_selectors: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;

    #[test]
    fn programs_find_names_addresses_and_selectors() {
        let sa = testing::ike_sa();
        let text = of(&sa, sa.children.first(), None, "child-down", Some("on command"));
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let at = |pointer: &str| document.pointer(pointer).unwrap().clone();
        assert_eq!(at("/event"), "child-down");
        assert_eq!(at("/connection"), "net");
        assert_eq!(at("/remote/address"), "192.168.0.2");
        assert_eq!(at("/remote/id"), "sun.strongswan.org");
        assert_eq!(at("/child/local_selectors/0"), "10.1.0.0/24");
        assert_eq!(at("/reason"), "on command");
        assert!(!text.contains('\n'), "one line for each event");
    }
}
