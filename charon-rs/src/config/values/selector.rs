//! Traffic selectors: `leftsubnet`, `rightsubnet` and the protocols and ports behind them.

use espdp_api::{PortRange, TrafficSelector};
use ike_proto::config::ChildSelector;

use super::{ValueError, address};

/// Protocols by name, as /etc/protocols has them.
const PROTOCOLS: [(&str, u8); 18] = [
    ("any", 0),
    ("%any", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("ospf", 89),
    ("pim", 103),
    ("l2tp", 115),
    ("sctp", 132),
];

/// Services by name, as /etc/services has them.
const SERVICES: [(&str, u16); 16] = [
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("tftp", 69),
    ("http", 80),
    ("ntp", 123),
    ("snmp", 161),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("syslog", 514),
    ("l2f", 1701),
    ("l2tp", 1701),
    ("radius", 1812),
];

const PORTS_WANTED: &str = "expected a port, a service such as https, a range such as 1000-2000, any, or opaque";

/// Reads a selector: a prefix, a range or an address, possibly with a protocol and a port: `10.0.0.0/24[tcp/443]`.
///
/// # Errors
/// [`ValueError`] with the place that is wrong.
pub fn selector(text: &str) -> Result<TrafficSelector, ValueError> {
    let Some(bracket) = text.find('[') else { return address::range(text).map(TrafficSelector::any_protocol) };
    let (addresses, rest) = text.split_at(bracket);
    let Some(inner) = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return Err(ValueError {
            message: "`[` without `]` at the end".to_owned(),
            expected: "expected a protocol and a port in brackets, such as 10.0.0.0/24[tcp/443]".to_owned(),
            at: bracket..text.len(),
        });
    };
    let (protocol, ports) = protocol_and_ports(inner)
        .map_err(|error| ValueError { at: error.at.start + bracket + 1..error.at.end + bracket + 1, ..error })?;
    Ok(TrafficSelector { addresses: address::range(addresses.trim_end())?, protocol, ports })
}

/// Reads a selector as [`selector`] does, or `%dynamic`, which strongSwan writes `dynamic`: `%dynamic[tcp/443]`.
///
/// # Errors
/// [`ValueError`] with the place that is wrong.
pub fn child_selector(text: &str) -> Result<ChildSelector, ValueError> {
    let Some(rest) = ["%dynamic", "dynamic"].iter().find_map(|word| text.strip_prefix(word)) else {
        return selector(text).map(ChildSelector::Fixed);
    };
    if rest.is_empty() {
        return Ok(ChildSelector::HOST);
    }
    let start = text.len() - rest.len();
    let inner = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or_else(|| ValueError {
        message: format!("`{rest}` behind `dynamic` means nothing"),
        expected: "expected a protocol and a port in brackets, such as dynamic[tcp/443]".to_owned(),
        at: start..text.len(),
    })?;
    let (protocol, ports) = protocol_and_ports(inner)
        .map_err(|error| ValueError { at: error.at.start + start + 1..error.at.end + start + 1, ..error })?;
    Ok(ChildSelector::Dynamic { protocol, ports })
}

/// Reads a protocol with or without ports: `tcp`, `udp/1701`, `17/1000-2000`, `icmp/8`, `icmp/3(4)`, `udp/%any`.
///
/// # Errors
/// [`ValueError`] with the place that is wrong.
pub fn protocol_and_ports(text: &str) -> Result<(u8, PortRange), ValueError> {
    let (protocol_text, ports_text) =
        text.split_once('/').map_or((text, None), |(protocol, ports)| (protocol, Some(ports)));
    let named = PROTOCOLS.iter().find(|(name, _)| protocol_text.eq_ignore_ascii_case(name)).map(|&(_, number)| number);
    let protocol = named.or_else(|| protocol_text.parse().ok()).ok_or_else(|| ValueError {
        message: format!("`{protocol_text}` is no protocol"),
        expected: "expected a number up to 255 or a name such as tcp, udp, icmp, icmpv6, gre, sctp".to_owned(),
        at: 0..protocol_text.len(),
    })?;
    let Some(ports_text) = ports_text else { return Ok((protocol, PortRange::ANY)) };
    let wrong = |message: String, expected: &str| ValueError {
        message,
        expected: expected.to_owned(),
        at: protocol_text.len() + 1..text.len(),
    };
    let ports = match protocol {
        1 | 58 => icmp_types(ports_text),
        _ => ports(ports_text),
    }
    .ok_or_else(|| match protocol {
        1 | 58 => wrong(
            format!("`{ports_text}` is no ICMP type"),
            "expected a type such as 8, a type with its code such as 3(4), types such as 3-4, or any",
        ),
        _ => wrong(format!("`{ports_text}` is no port"), PORTS_WANTED),
    })?;
    if protocol == 0 && ports != PortRange::ANY {
        return Err(wrong("ports without a protocol".to_owned(), "expected a protocol that has ports, such as tcp"));
    }
    Ok((protocol, ports))
}

fn ports(text: &str) -> Option<PortRange> {
    if let Some(special) = special_ports(text) {
        return Some(special);
    }
    if let Some((_, port)) = SERVICES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
        return Some(PortRange { start: *port, end: *port });
    }
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let ports = PortRange { start: start.trim().parse().ok()?, end: end.trim().parse().ok()? };
    (ports.start <= ports.end).then_some(ports)
}

/// RFC 7296 §3.13.1: the type is the high octet of the port field, the code the low one. strongSwan writes that field as a number,
/// too, or a range of it, where it is no type alone: `2048` is type 8 with code 0.
fn icmp_types(text: &str) -> Option<PortRange> {
    if let Some(special) = special_ports(text) {
        return Some(special);
    }
    if let Some((kind, code)) = text.split_once('(') {
        let field = u16::from_be_bytes([kind.parse().ok()?, code.strip_suffix(')')?.parse().ok()?]);
        return Some(PortRange { start: field, end: field });
    }
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let of_code = |number: &str, code| -> Option<u16> {
        let number: u16 = number.trim().parse().ok()?;
        Some(u8::try_from(number).map_or(number, |kind| u16::from_be_bytes([kind, code])))
    };
    let types = PortRange { start: of_code(start, 0)?, end: of_code(end, u8::MAX)? };
    (types.start <= types.end).then_some(types)
}

fn special_ports(text: &str) -> Option<PortRange> {
    match text {
        "any" | "%any" => Some(PortRange::ANY),
        "opaque" | "%opaque" => Some(PortRange::OPAQUE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_print_as_they_are_written() {
        for text in [
            "10.1.0.0/16",
            "10.1.0.1..10.1.0.6",
            "10.1.0.0/16[tcp/443]",
            "fec3::/16[udp/1000-2000]",
            "10.0.0.1/32[gre]",
            "10.0.0.1/32[89]",
            "10.1.0.0/16[icmp/8]",
            "10.1.0.0/16[icmp/3(4)]",
            "10.1.0.0/16[icmp/3-4]",
            "10.1.0.0/16[icmp/771-1024]",
            "10.1.0.0/16[icmp/opaque]",
        ] {
            assert_eq!(selector(text).unwrap().to_string(), text);
        }
        assert_eq!(selector("10.1.0.1-10.1.0.6"), selector("10.1.0.1..10.1.0.6"));
        assert_eq!(selector("10.1.0.1"), selector("10.1.0.1/32"));
    }

    #[test]
    fn the_type_of_icmp_is_the_high_octet() {
        assert_eq!(protocol_and_ports("icmp/8"), Ok((1, PortRange { start: 0x0800, end: 0x08ff })));
        assert_eq!(protocol_and_ports("icmp/3(4)"), Ok((1, PortRange { start: 0x0304, end: 0x0304 })));
        assert_eq!(protocol_and_ports("icmp/2048"), Ok((1, PortRange { start: 0x0800, end: 0x0800 })));
        assert_eq!(protocol_and_ports("icmp/3-4"), Ok((1, PortRange { start: 0x0300, end: 0x04ff })));
        assert_eq!(protocol_and_ports("17/%any"), Ok((17, PortRange::ANY)));
        assert_eq!(protocol_and_ports("tcp/opaque"), Ok((6, PortRange::OPAQUE)));
    }

    #[test]
    fn the_wrong_piece_of_a_selector_is_pointed_at() {
        for (text, at) in [
            ("10.0.0.0/24[tpc/443]", "tpc"),
            ("10.0.0.0/24[tcp/htpp]", "htpp"),
            ("10.0.0.0/24[tcp/9-1]", "9-1"),
            ("10.0.0.0/24[icmp/70000]", "70000"),
            ("10.0.0.0/24[icmp/4-3]", "4-3"),
            ("10.0.0.0/24[icmp/3(4]", "3(4"),
            ("10.0.0.0/24[any/80]", "80"),
            ("10.0.0.0/24[tcp", "[tcp"),
            ("10.0.0.0/33", "10.0.0.0/33"),
        ] {
            let error = selector(text).unwrap_err();
            assert_eq!(&text[error.at.clone()], at, "{error}");
        }
    }
}
