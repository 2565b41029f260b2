//! How much room the tunnels leave.

use espdp_api::{Command, Done, MtuReport, PathMtuSource};

use super::trace::ask;
use super::{failed, success};
use crate::daemon::service::Daemon;
use crate::vici::{Message, Streamer};

/// Streams one `list-mtu` event for each SA that sends: of an interface, a connection or a child (`name`), or all. It says what
/// the path carries and how that is known, what stands around an inner packet, and what is left.
pub(super) async fn list(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let wanted = arguments.text("name").map(str::to_owned);
    let reports = match ask(daemon, Command::ReadMtus).await {
        Ok(Done::Mtus(reports)) => reports,
        Ok(_) => return failed("the dataplane answered something else"),
        Err(why) => return failed(why),
    };
    let sas = match daemon.handle.ask(|shell| shell.engine.ike_sas()).await {
        Ok(sas) => sas,
        Err(gone) => return failed(gone),
    };
    let name_of = |report: &MtuReport| {
        sas.iter().find_map(|sa| {
            let child = sa.children.iter().find(|child| child.policy == report.policy)?;
            Some((sa.connection.clone(), child.name.clone()))
        })
    };
    let mut shown = 0;
    for report in &reports {
        let names = name_of(report);
        let is_wanted = |name: &str| {
            report.interface.as_str() == name
                || names.as_ref().is_some_and(|(connection, child)| connection == name || child == name)
        };
        if wanted.as_deref().is_none_or(is_wanted) {
            streamer.send("list-mtu", event(report, names.as_ref())).await;
            shown += 1;
        }
    }
    match wanted {
        Some(name) if shown == 0 => {
            failed(format!("`{name}` is no interface, connection or child with an SA that sends"))
        }
        _ => success().with("sas", shown),
    }
}

fn event(report: &MtuReport, names: Option<&(String, String)>) -> Message {
    let mut message = Message::new();
    message.put_some("connection", names.map(|(connection, _)| connection));
    message.put_some("child", names.map(|(_, child)| child));
    message.put("interface", &report.interface);
    message.put("spi-out", report.spi);
    message.put("remote", report.path.remote);
    message.put("path-mtu", report.path_mtu);
    message.put("known-from", source(report.known_from));
    message.put_list("terms", report.terms.iter().map(|term| format!("{} {}", term.octets, term.name)));
    message.put("inner-mtu", report.inner_mtu);
    message.put("mss-ipv4", report.mss_ipv4);
    message.put("mss-ipv6", report.mss_ipv6);
    message.put("interface-mtu", report.interface_mtu);
    message.with("interface-mtu-why", why(report))
}

fn source(source: PathMtuSource) -> &'static str {
    match source {
        PathMtuSource::Link => "the MTU of the link",
        PathMtuSource::Route => "the MTU of the route",
        PathMtuSource::Message => "an ICMP message",
        PathMtuSource::Bound => "an ICMP message said less than is believed",
        PathMtuSource::Configuration => "pmtu in the configuration",
    }
}

/// Why the interface has the MTU that it has.
fn why(report: &MtuReport) -> &'static str {
    match (report.interface_is_fixed, report.interface_mtu.cmp(&report.inner_mtu)) {
        (true, _) => "mtu in the configuration",
        (false, std::cmp::Ordering::Equal) => "what this SA leaves",
        (false, std::cmp::Ordering::Less) => "another SA of the interface leaves less",
        (false, std::cmp::Ordering::Greater) => {
            "the least that the packets inside need; longer ones than fit are fragmented"
        }
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::{Encapsulation, EspSpi, InterfaceName, MtuTerm, OuterPath, PolicyId};

    use super::*;

    fn report() -> MtuReport {
        let path = OuterPath {
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            encapsulation: Encapsulation::Esp,
        };
        MtuReport {
            interface: InterfaceName::new("ipsec0").unwrap(),
            interface_mtu: 1446,
            interface_is_fixed: false,
            policy: PolicyId(1),
            spi: EspSpi::try_from(0x1234).unwrap(),
            path,
            path_mtu: 1500,
            known_from: PathMtuSource::Link,
            terms: vec![MtuTerm { name: "IPv4 header".into(), octets: 20 }],
            inner_mtu: 1446,
            mss_ipv4: 1406,
            mss_ipv6: 1386,
        }
    }

    #[test]
    fn a_report_says_where_every_octet_goes_and_why() {
        let message = event(&report(), Some(&("net".into(), "lan".into())));
        assert_eq!(message.text("connection"), Some("net"));
        assert_eq!(message.text("known-from"), Some("the MTU of the link"));
        assert_eq!(message.text("interface-mtu-why"), Some("what this SA leaves"));
        assert_eq!(message.list("terms"), ["20 IPv4 header"]);
        let narrow = MtuReport { interface_mtu: 1280, ..report() };
        assert_eq!(why(&narrow), "another SA of the interface leaves less");
        assert_eq!(why(&MtuReport { interface_is_fixed: true, ..narrow }), "mtu in the configuration");
    }
}
