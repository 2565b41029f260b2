//! How long packets may be, and where the octets go that they may not have.

use std::io::{self, Write};

use super::{Error, Outcome, json, refused};
use crate::vici::{Client, Message};

pub(super) fn mtu(client: &mut Client, name: Option<&str>, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let mut arguments = Message::new();
    arguments.put_some("name", name);
    let mut reports = Vec::new();
    let answer = client.stream("list-mtu", "list-mtus", arguments, |report| reports.push(report))?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        let reports: Vec<_> = reports.iter().map(json::of).collect();
        writeln!(out, "{}", serde_json::Value::from(reports))?;
    } else if reports.is_empty() {
        writeln!(out, "no SA sends")?;
    } else {
        reports.iter().try_for_each(|report| write_report(out, report))?;
    }
    Ok(Outcome::Done)
}

fn write_report(out: &mut dyn Write, report: &Message) -> io::Result<()> {
    let text = |key| report.text(key).unwrap_or("?");
    let names: Vec<_> = ["connection", "child", "interface"].iter().filter_map(|key| report.text(key)).collect();
    writeln!(out, "{}: SPI {} to {}", names.join(" / "), text("spi-out"), text("remote"))?;
    writeln!(out, "  {:>6}  path MTU: {}", text("path-mtu"), text("known-from"))?;
    for term in report.list("terms") {
        let (octets, name) = term.split_once(' ').unwrap_or(("", term.as_str()));
        writeln!(out, "  {:>6}  {name}", format!("-{octets}"))?;
    }
    writeln!(out, "  {:>6}  inner MTU", text("inner-mtu"))?;
    writeln!(out, "  {:>6}  largest TCP segment over IPv4, {} over IPv6", text("mss-ipv4"), text("mss-ipv6"))?;
    writeln!(out, "  {:>6}  MTU of the interface: {}", text("interface-mtu"), text("interface-mtu-why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_sum_to_read() {
        let mut report = Message::new().with("connection", "net").with("child", "net").with("interface", "ipsec0");
        for (key, value) in [("spi-out", "c0ffee00"), ("remote", "192.0.2.2"), ("path-mtu", "1500")] {
            report.put(key, value);
        }
        report.put("known-from", "the MTU of the link");
        report.put_list("terms", ["20 IPv4 header", "16 ICV"]);
        for (key, value) in
            [("inner-mtu", "1446"), ("mss-ipv4", "1406"), ("mss-ipv6", "1386"), ("interface-mtu", "1446")]
        {
            report.put(key, value);
        }
        report.put("interface-mtu-why", "what this SA leaves");
        let mut out = Vec::new();
        write_report(&mut out, &report).unwrap();
        let expected = "\
net / net / ipsec0: SPI c0ffee00 to 192.0.2.2
    1500  path MTU: the MTU of the link
     -20  IPv4 header
     -16  ICV
    1446  inner MTU
    1406  largest TCP segment over IPv4, 1386 over IPv6
    1446  MTU of the interface: what this SA leaves
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
