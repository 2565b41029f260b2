//! Traffic selectors with strongSwan's words: names of protocols and services come from the system's files, as with it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use espdp_api::{PortRange, TrafficSelector};
use ike_proto::config::ChildSelector;

/// Of `/etc/protocols` and `/etc/services`; a system without them has numbers.
static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    Names::parse(&read("/etc/protocols"), &read("/etc/services"))
});

#[derive(Default)]
struct Names {
    /// By number.
    protocols: BTreeMap<u8, String>,
    /// By protocol and port.
    services: BTreeMap<(String, u16), String>,
    /// By port, for whatever protocol.
    ports: BTreeMap<u16, String>,
}

/// A selector of an SA or a policy: `10.1.0.0/16[tcp/ssh]`.
pub(crate) fn selector(selector: &TrafficSelector) -> String {
    NAMES.selector(selector.addresses.to_string(), selector.protocol, selector.ports)
}

/// A selector of a child: `dynamic[icmp/8]`.
pub(crate) fn child_selector(child: &ChildSelector) -> String {
    match *child {
        ChildSelector::Fixed(fixed) => selector(&fixed),
        ChildSelector::Dynamic { protocol, ports } => NAMES.selector("dynamic".to_owned(), protocol, ports),
    }
}

impl Names {
    /// protocols(5) and services(5): name, number, aliases; `#` begins a comment. The first line for a number counts.
    fn parse(protocols: &str, services: &str) -> Self {
        let mut names = Self::default();
        for (name, number) in entries(protocols) {
            if let Ok(number) = number.parse() {
                names.protocols.entry(number).or_insert_with(|| name.to_owned());
            }
        }
        for (name, number) in entries(services) {
            let Some((port, protocol)) = number.split_once('/') else { continue };
            if let Ok(port) = port.parse() {
                names.services.entry((protocol.to_owned(), port)).or_insert_with(|| name.to_owned());
                names.ports.entry(port).or_insert_with(|| name.to_owned());
            }
        }
        names
    }

    fn selector(&self, addresses: String, protocol: u8, ports: PortRange) -> String {
        if protocol == 0 && ports == PortRange::ANY {
            return addresses;
        }
        let protocol_name = self.protocols.get(&protocol).filter(|_| protocol != 0);
        let protocol_text = protocol_name.cloned().unwrap_or_else(|| protocol.to_string());
        if ports == PortRange::ANY {
            return format!("{addresses}[{protocol_text}]");
        }
        let ports_text = match protocol {
            _ if ports == PortRange::OPAQUE => "OPAQUE".to_owned(),
            1 | 58 => icmp(ports),
            _ if ports.start == ports.end => self.service(protocol, protocol_name, ports.start),
            _ => format!("{}-{}", ports.start, ports.end),
        };
        format!("{addresses}[{protocol_text}/{ports_text}]")
    }

    fn service(&self, protocol: u8, protocol_name: Option<&String>, port: u16) -> String {
        let name = match protocol_name {
            Some(name) => self.services.get(&(name.clone(), port)),
            None if protocol == 0 => self.ports.get(&port),
            None => None,
        };
        name.cloned().unwrap_or_else(|| port.to_string())
    }
}

fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?, words.next()?))
    })
}

/// Types with their codes in parentheses (RFC 7296 §3.13.1); a type with all its codes stands alone, as one with code 0 does.
fn icmp(ports: PortRange) -> String {
    let one = |port: u16| match port.to_be_bytes() {
        [kind, 0] => kind.to_string(),
        [kind, code] => format!("{kind}({code})"),
    };
    let [start, end] = [ports.start, ports.end].map(u16::to_be_bytes);
    let is_whole_type = start[0] == end[0] && start[1] == 0 && end[1] == u8::MAX;
    if is_whole_type || start == end { one(ports.start) } else { format!("{}-{}", one(ports.start), one(ports.end)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::selector::child_selector as parse;

    /// What strongSwan 5.9.8 prints on Debian for the same.
    #[test]
    fn selectors_are_those_that_strongswan_prints() {
        let names = Names::parse(
            "# protocols\nicmp\t1\tICMP\ntcp\t6\tTCP\t# transmission\nudp 17 UDP\ngre 47 GRE\nipv6-icmp 58 IPv6-ICMP\n",
            "ssh\t22/tcp\t# shell\nl2f 1701/udp l2tp\nhttps 443/tcp\nhttps 443/udp\n",
        );
        for (written, printed) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("10.1.0.0/16[tcp/ssh]", "10.1.0.0/16[tcp/ssh]"),
            ("10.1.0.0/16[udp/1701]", "10.1.0.0/16[udp/l2f]"),
            ("10.1.0.0/16[udp/4500-4501]", "10.1.0.0/16[udp/4500-4501]"),
            ("10.1.0.0/16[tcp/8443]", "10.1.0.0/16[tcp/8443]"),
            ("10.1.0.0/16[200]", "10.1.0.0/16[200]"),
            ("10.0.0.1..10.0.0.5[tcp/opaque]", "10.0.0.1..10.0.0.5[tcp/OPAQUE]"),
            ("fec0::/16[icmpv6/128]", "fec0::/16[ipv6-icmp/128]"),
            ("dynamic[gre]", "dynamic[gre]"),
            ("dynamic[icmp/8]", "dynamic[icmp/8]"),
            ("dynamic[icmp/2048]", "dynamic[icmp/8]"),
            ("dynamic[icmp/2052]", "dynamic[icmp/8(4)]"),
            ("dynamic[icmp/771-1024]", "dynamic[icmp/3(3)-4]"),
        ] {
            let text = match parse(written).unwrap() {
                ChildSelector::Fixed(fixed) => names.selector(fixed.addresses.to_string(), fixed.protocol, fixed.ports),
                ChildSelector::Dynamic { protocol, ports } => names.selector("dynamic".to_owned(), protocol, ports),
            };
            assert_eq!(text, printed);
        }
        let any = PortRange { start: 443, end: 443 };
        assert_eq!(names.selector("10.1.0.0/16".to_owned(), 0, any), "10.1.0.0/16[0/https]");
    }
}
