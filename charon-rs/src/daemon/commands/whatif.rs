//! What would become of a packet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use espdp_api::{
    Carriage, Command, Done, Encapsulation, Fitting, InboundVerdict, InterfaceName, IpsecProtocol, Mode, OutboundFate,
    OutboundVerdict, PolicyAction, PolicyId, Question, TraceStep, WhatIf,
};
use tunnel_codec::ip::IpHeader;
use tunnel_codec::udp;

use super::trace::{ask as ask_dataplane, number};
use super::{failed, success};
use crate::daemon::capture::PolicyName;
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::vici::Message;

/// What would become of a packet from `source` to `destination`, of IP protocol `protocol`, with `source-port` and `destination-port`
/// (of ICMP type and code), `length` octets long, if it came from the inside of `interface` or where the kernel's routes lead; and
/// which SAs may bring such a packet.
pub(super) async fn ask(daemon: &Daemon, arguments: &Message) -> Message {
    let question = match question(arguments) {
        Ok(question) => question,
        Err(why) => return failed(why),
    };
    let answer = match ask_dataplane(daemon, Command::WhatIf(Box::new(question))).await {
        Ok(Done::WhatIf(answer)) => answer,
        Ok(_) => return failed("the dataplane answered something else"),
        Err(why) => return failed(why),
    };
    match daemon.handle.ask(|shell| Names::of(shell)).await {
        Ok(names) => section(&answer, &names),
        Err(gone) => failed(gone),
    }
}

/// What policies are called, and where they stand.
struct Names(BTreeMap<PolicyId, (PolicyName, Option<String>)>);

impl Names {
    fn of(shell: &Shell) -> Self {
        let places = &shell.applied.places;
        let named = shell.policy_names().into_iter().map(|(id, name)| {
            let line = match &name.connection {
                Some(connection) => places.of_table(connection, Some(&name.own)),
                None => places.of_policy(&name.own),
            };
            let place = line.map(|line| format!("{}:{}", line.file.display(), line.number));
            (id, (name, place))
        });
        Self(named.collect())
    }

    fn name(&self, id: PolicyId) -> String {
        self.0.get(&id).map_or_else(|| format!("policy {}", id.0), |(name, _)| name.to_string())
    }

    /// Adds what a policy is called, where it stands and what it says.
    fn describe(&self, message: &mut Message, policy: Option<(PolicyId, PolicyAction)>) {
        let Some((id, action)) = policy else { return };
        let (name, place) = self.0.get(&id).map(|(name, place)| (name, place)).unzip();
        message.put("policy", self.name(id));
        message.put_some("connection", name.and_then(|name| name.connection.as_ref()));
        message.put_some("child", name.filter(|name| name.connection.is_some()).map(|name| &name.own));
        message.put_some("place", place.and_then(Option::as_ref));
        message.put("action", action);
    }
}

fn section(answer: &WhatIf, names: &Names) -> Message {
    let mut message = success();
    message.put_some("link", answer.link.as_ref());
    if let Some(verdict) = &answer.outbound {
        message.put_section("outbound", outbound(verdict, names));
    }
    let mut inbound = Message::new();
    for verdict in &answer.inbound {
        inbound.put_section(verdict.interface.as_str(), self::inbound(verdict, names));
    }
    message.put_section("inbound", inbound);
    message
}

fn outbound(verdict: &OutboundVerdict, names: &Names) -> Message {
    let mut message = Message::new().with("interface", &verdict.interface);
    names.describe(&mut message, verdict.policy);
    message.put_some("tunnel", verdict.tunnel.map(|tunnel| TraceStep::Wrapped { tunnel }));
    match &verdict.fate {
        OutboundFate::Protected(carriage) => put_carriage(&mut message, carriage),
        OutboundFate::InClear => message.put("fate", "in-clear"),
        OutboundFate::Dropped { reason, spi } => {
            message.put("fate", "dropped");
            message.put("reason", reason);
            message.put_some("spi", spi.map(|spi| format!("{spi:08x}")));
            let is_negotiated = matches!(verdict.policy, Some((_, PolicyAction::Protect { acquire: true })));
            message.put_if("negotiates", reason == "no_sa" && is_negotiated);
        }
        OutboundFate::Elsewhere(_) => {
            message.put("fate", "dropped");
            message.put("reason", "its SA moves from one worker to another");
        }
    }
    message
}

fn put_carriage(message: &mut Message, carriage: &Carriage) {
    let Carriage { spi, protocol, mode, path, wire_octets, path_mtu, longest, fit } = carriage;
    let (fate, fit, told) = match fit {
        Fitting::Whole => ("protected", "whole", None),
        Fitting::CutOutside => ("protected", "cut after it is protected", None),
        Fitting::CutInside => ("protected", "cut before it is protected", None),
        Fitting::TooBig(most) => ("dropped", "too big", Some(*most)),
    };
    message.put("fate", fate);
    message.put_some("reason", told.map(|_| "too_big"));
    message.put("spi", format!("{spi:08x}"));
    message.put("protocol", if *protocol == IpsecProtocol::Esp { "ESP" } else { "AH" });
    message.put("mode", if *mode == Mode::Tunnel { "tunnel" } else { "transport" });
    message.put("local", path.local);
    message.put("remote", path.remote);
    if let Encapsulation::Udp { local_port, remote_port } = path.encapsulation {
        message.put("local-port", local_port);
        message.put("remote-port", remote_port);
    }
    message.put("wire-octets", wire_octets);
    message.put_some("path-octets", *path_mtu);
    message.put_some("longest", *longest);
    message.put("fit", fit);
    message.put_some("told-mtu", told);
}

fn inbound(verdict: &InboundVerdict, names: &Names) -> Message {
    let mut message = Message::new();
    names.describe(&mut message, verdict.policy);
    message.put_list("sas", verdict.sas.iter().map(|(spi, _)| format!("{spi:08x}")));
    message.put_list("of", verdict.sas.iter().map(|(_, policy)| names.name(*policy)));
    message.put_some("reason", verdict.reason.as_ref());
    message
}

fn question(arguments: &Message) -> Result<Question, String> {
    let address = |name: &str| {
        let text = arguments.text(name).ok_or_else(|| format!("`{name}` is missing"))?;
        text.parse::<IpAddr>().map_err(|_| format!("`{text}` is no address"))
    };
    let (source, destination) = (address("source")?, address("destination")?);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(format!("{source} and {destination} are of different families: no packet has both"));
    }
    let protocol = number(arguments, "protocol")?.ok_or("`protocol` is missing: a number, as 6 for TCP")?;
    let ports = [number(arguments, "source-port")?, number(arguments, "destination-port")?];
    let payload = payload(protocol, ports)?;
    let header = IpHeader {
        source,
        destination,
        protocol,
        hop_limit: 64,
        traffic_class: 0,
        dont_fragment: !arguments.is_yes("may-fragment"),
        identification: 0,
    };
    let least = header.octets() + payload.len();
    let length = number::<usize>(arguments, "length")?.unwrap_or(least);
    if !(least..=65535).contains(&length) {
        return Err(format!("length {length}: expected {least} to 65535 octets, the IP header included"));
    }
    let mut packet = vec![0; length];
    let start = packet.get_mut(header.octets()..least).ok_or("there is no room for the headers")?;
    start.copy_from_slice(&payload);
    header.write(length - header.octets(), &mut packet).ok_or("no packet is so long")?;
    let interface = arguments.text("interface").map(|name| InterfaceName::new(name).map_err(|error| error.to_string()));
    Ok(Question { interface: interface.transpose()?, destination, packet })
}

/// What follows the IP header at least.
fn payload(protocol: u8, [source, destination]: [Option<u16>; 2]) -> Result<Vec<u8>, String> {
    let (len, has_ports) = match protocol {
        TCP => (20, true),
        UDP_LITE | DCCP | udp::PROTOCOL => (udp::LEN, true),
        SCTP => (12, true),
        ICMP | ICMPV6 => (8, false),
        _ if source.or(destination).is_some() => return Err(format!("IP protocol {protocol} has no ports")),
        _ => (0, false),
    };
    let mut payload = vec![0; len];
    let start = if has_ports {
        let [[s0, s1], [d0, d1]] = [source.unwrap_or(ANY_PORT), destination.unwrap_or(ANY_PORT)].map(u16::to_be_bytes);
        vec![s0, s1, d0, d1]
    } else if len > 0 {
        let of_echo = if protocol == ICMP { 8 } else { 128 };
        let octet = |number: Option<u16>, default: u16| {
            u8::try_from(number.unwrap_or(default)).map_err(|_| "type and code of ICMP are 0 to 255".to_owned())
        };
        vec![octet(source, of_echo)?, octet(destination, 0)?]
    } else {
        Vec::new()
    };
    payload.iter_mut().zip(start).for_each(|(to, from)| *to = from);
    if protocol == TCP
        && let Some(offset) = payload.get_mut(12)
    {
        *offset = 5 << 4;
    }
    Ok(payload)
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
/// What most clients send from.
const ANY_PORT: u16 = 40_000;

#[cfg(test)]
mod tests {
    use espdp_api::OuterPath;

    use super::*;

    /// A question about TCP, but for what `more` says.
    fn said(more: &[(&str, &str)]) -> Result<Question, String> {
        let usual = [("source", "10.1.0.9"), ("destination", "10.2.0.9"), ("protocol", "6")];
        let all: BTreeMap<&str, &str> = usual.iter().chain(more).copied().collect();
        question(&all.into_iter().fold(Message::new(), |message, (name, value)| message.with(name, value)))
    }

    #[test]
    fn a_question_becomes_a_packet() {
        let question = said(&[("source-port", "4"), ("destination-port", "443"), ("length", "1400")]).unwrap();
        assert_eq!((question.packet.len(), &question.packet[2..4]), (1400, &[0x05, 0x78][..]));
        assert_eq!(question.packet[6], 0x40, "as TCP does, it forbids to be cut");
        assert_eq!(question.packet[20..24], [0, 4, 1, 187]);
        assert_eq!(payload(ICMP, [None, None]).unwrap()[..2], [8, 0]);
        assert_eq!(payload(47, [None, None]).unwrap().len(), 0);
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (more, why) in [
            (&[("destination", "fd01::1")][..], "different families"),
            (&[("source", "host")], "`host` is no address"),
            (&[("protocol", "47"), ("source-port", "1")], "has no ports"),
            (&[("protocol", "1"), ("source-port", "256")], "0 to 255"),
            (&[("length", "39")], "expected 40 to 65535"),
            (&[("length", "65536")], "expected 40 to 65535"),
            (&[("interface", "a/b")], "a/b"),
        ] {
            let error = said(more).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_answer_names_connection_line_and_sizes() {
        let name = PolicyName { connection: Some("gw".to_owned()), own: "net".to_owned() };
        let names = Names(BTreeMap::from([(PolicyId(7), (name, Some("/etc/x.toml:12".to_owned())))]));
        let path = OuterPath {
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            encapsulation: Encapsulation::Udp { local_port: 4500, remote_port: 1024 },
        };
        let carriage = Carriage {
            spi: 0xc000_0001,
            protocol: IpsecProtocol::Esp,
            mode: Mode::Tunnel,
            path,
            wire_octets: 1460,
            path_mtu: Some(1400),
            longest: Some(1338),
            fit: Fitting::TooBig(1338),
        };
        let interface = InterfaceName::new("ipsec0").unwrap();
        let policy = Some((PolicyId(7), PolicyAction::Protect { acquire: false }));
        let verdict = OutboundVerdict { interface, tunnel: None, policy, fate: OutboundFate::Protected(carriage) };
        let message = outbound(&verdict, &names);
        for (name, value) in [
            ("policy", "net of gw"),
            ("connection", "gw"),
            ("child", "net"),
            ("place", "/etc/x.toml:12"),
            ("fate", "dropped"),
            ("reason", "too_big"),
            ("spi", "c0000001"),
            ("remote-port", "1024"),
            ("told-mtu", "1338"),
        ] {
            assert_eq!(message.text(name), Some(value), "{name}");
        }
    }
}
