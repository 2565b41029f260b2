//! What would become of a packet.

use std::io::{self, Write};
use std::net::IpAddr;

use clap::Args;

use super::{Error, Outcome, json, refused, text};
use crate::vici::{Client, Message};

/// A packet that nobody sends.
#[derive(Debug, Args)]
pub(super) struct WhatIf {
    /// Where it comes from
    source: IpAddr,
    /// Where it goes
    destination: IpAddr,
    /// tcp, udp, icmp, icmpv6, sctp, gre, or the number of an IP protocol
    #[arg(value_parser = protocol)]
    protocol: u8,
    /// Its source port, or type of ICMP
    source_port: Option<u16>,
    /// Its destination port, or code of ICMP
    destination_port: Option<u16>,
    /// The interface from whose inside it comes [default: where the kernel's routes lead]
    #[arg(long, value_name = "INTERFACE", add = clap_complete::ArgValueCompleter::new(super::complete::interfaces))]
    from: Option<String>,
    /// Its octets, the IP header included [default: as few as can be]
    #[arg(long, value_name = "OCTETS")]
    len: Option<u32>,
    /// It may be cut into fragments on its way; TCP and most others forbid that
    #[arg(long)]
    may_fragment: bool,
}

pub(super) fn what_if(client: &mut Client, what: &WhatIf, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let mut arguments = Message::new().with("source", what.source).with("destination", what.destination);
    arguments.put("protocol", what.protocol);
    arguments.put_some("source-port", what.source_port);
    arguments.put_some("destination-port", what.destination_port);
    arguments.put_some("interface", what.from.as_deref());
    arguments.put_some("length", what.len);
    arguments.put_if("may-fragment", what.may_fragment);
    let answer = client.request("what-if", arguments)?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        writeln!(out, "{}", json::of(&answer))?;
    } else {
        write_answer(out, &answer)?;
    }
    Ok(Outcome::Done)
}

fn write_answer(out: &mut dyn Write, answer: &Message) -> io::Result<()> {
    writeln!(out, "from the inside")?;
    match (answer.section("outbound"), answer.text("link")) {
        (Some(outbound), link) => {
            let interface = text::text(outbound, "interface");
            match link {
                Some(link) => writeln!(out, "  the kernel sends it to {link}")?,
                None => writeln!(out, "  it comes to {interface}")?,
            }
            write_outbound(out, outbound)?;
        }
        (None, Some(link)) => writeln!(out, "  the kernel sends it to {link}, past all tunnels: no policy sees it")?,
        (None, None) => writeln!(out, "  the kernel has no route for it")?,
    }
    writeln!(out, "from the outside, if a peer sent it through a tunnel")?;
    let inbound = answer.section("inbound");
    let mut interfaces = inbound.iter().flat_map(|inbound| inbound.sections()).peekable();
    if interfaces.peek().is_none() {
        writeln!(out, "  there is no interface that it could come to")?;
    }
    interfaces.try_for_each(|(interface, verdict)| write_inbound(out, interface, verdict))
}

fn write_outbound(out: &mut dyn Write, verdict: &Message) -> io::Result<()> {
    let fate = text::text(verdict, "fate");
    if let Some(tunnel) = verdict.text("tunnel") {
        writeln!(out, "  {tunnel}")?;
    }
    match verdict.text("policy") {
        Some(policy) => writeln!(out, "  {policy} says {}{}", text::text(verdict, "action"), place(verdict))?,
        None if fate == "in-clear" => {}
        None => writeln!(out, "  no policy selects it")?,
    }
    if let Some(octets) = verdict.text("wire-octets") {
        let of = |name| text::text(verdict, name);
        let in_udp = if verdict.text("local-port").is_some() { " in UDP" } else { "" };
        let (protocol, mode) = (of("protocol"), of("mode"));
        writeln!(out, "  SA {}, {protocol} in {mode} mode, {} to {}{in_udp}", of("spi"), of("local"), of("remote"))?;
        write!(out, "  {octets} octets on the wire")?;
        if let (Some(mtu), Some(longest)) = (verdict.text("path-octets"), verdict.text("longest")) {
            write!(out, "; the path carries {mtu}, which leaves {longest} inside")?;
        }
        writeln!(out, "\n  {}", of("fit"))?;
    }
    match (fate, verdict.text("reason")) {
        ("in-clear", _) => writeln!(out, "  it leaves in clear"),
        ("dropped", Some("no_sa")) if verdict.is_yes("negotiates") => {
            writeln!(out, "  dropped: no_sa; an SA would be negotiated, and the next ones pass")
        }
        ("dropped", Some(reason)) => {
            let told = verdict.text("told-mtu").map(|mtu| format!("; its sender is told {mtu}")).unwrap_or_default();
            writeln!(out, "  dropped: {reason}{told}")
        }
        _ => writeln!(out, "  it is sent"),
    }
}

fn write_inbound(out: &mut dyn Write, interface: &str, verdict: &Message) -> io::Result<()> {
    let (sas, of) = (verdict.list("sas"), verdict.list("of"));
    for (sa, of) in sas.iter().zip(&of) {
        writeln!(out, "  {interface}: SA {sa} of {of} may bring it{}", place(verdict))?;
    }
    match (verdict.text("reason"), verdict.text("policy")) {
        (Some(reason), Some(policy)) => {
            let action = text::text(verdict, "action");
            writeln!(out, "  {interface}: dropped: {reason}; {policy} says {action}{}", place(verdict))
        }
        (Some(reason), None) => writeln!(out, "  {interface}: dropped: {reason}"),
        (None, _) => Ok(()),
    }
}

/// Where the policy stands, for people.
fn place(verdict: &Message) -> String {
    verdict.text("place").map(|place| format!(" ({place})")).unwrap_or_default()
}

fn protocol(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "icmp" => Ok(1),
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "gre" => Ok(47),
        "icmpv6" | "icmp6" => Ok(58),
        "sctp" => Ok(132),
        other => other.parse().map_err(|_| "expected tcp, udp, icmp, icmpv6, sctp, gre or a number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(answer: &Message) -> String {
        let mut out = Vec::new();
        write_answer(&mut out, answer).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_is_read_from_top_to_bottom() {
        let mut outbound = Message::new().with("interface", "ipsec0").with("policy", "net of gw");
        for (name, value) in [
            ("place", "/etc/x.toml:12"),
            ("action", "protect"),
            ("fate", "dropped"),
            ("reason", "too_big"),
            ("spi", "c0000001"),
            ("protocol", "ESP"),
            ("mode", "tunnel"),
            ("local", "192.0.2.1"),
            ("remote", "192.0.2.2"),
            ("local-port", "4500"),
            ("wire-octets", "1460"),
            ("path-octets", "1400"),
            ("longest", "1338"),
            ("fit", "too big"),
            ("told-mtu", "1338"),
        ] {
            outbound.put(name, value);
        }
        let mut one = Message::new();
        one.put_list("sas", ["c0000002"]);
        one.put_list("of", ["net of gw"]);
        let other = Message::new().with("reason", "no_policy");
        let mut inbound = Message::new();
        inbound.put_section("ipsec0", one);
        inbound.put_section("ipsec1", other);
        let mut answer = Message::new().with("link", "ipsec0");
        answer.put_section("outbound", outbound);
        answer.put_section("inbound", inbound);
        let expected = "from the inside
  the kernel sends it to ipsec0
  net of gw says protect (/etc/x.toml:12)
  SA c0000001, ESP in tunnel mode, 192.0.2.1 to 192.0.2.2 in UDP
  1460 octets on the wire; the path carries 1400, which leaves 1338 inside
  too big
  dropped: too_big; its sender is told 1338
from the outside, if a peer sent it through a tunnel
  ipsec0: SA c0000002 of net of gw may bring it
  ipsec1: dropped: no_policy
";
        assert_eq!(shown(&answer), expected);
    }

    #[test]
    fn what_no_tunnel_sees_is_said_to_be_so() {
        let answer = Message::new().with("link", "eth0");
        assert!(shown(&answer).contains("the kernel sends it to eth0, past all tunnels"));
        assert!(shown(&Message::new()).contains("the kernel has no route for it"));
    }

    #[test]
    fn protocols_have_names() {
        assert_eq!(["tcp", "UDP", "icmpv6", "50"].map(|text| protocol(text).unwrap()), [6, 17, 58, 50]);
        assert!(protocol("ip").is_err() && protocol("256").is_err());
    }
}
