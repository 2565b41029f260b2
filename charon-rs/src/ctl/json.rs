//! Messages as JSON: the names are those of VICI; numbers and truth values are such in JSON, too.

use serde_json::{Map, Value};

use crate::vici::{Message, Node};

/// Values of these names are numbers. Others may look like one, as SPIs do.
const NUMBERS: [&str; 48] = [
    "uniqueid",
    "version",
    "local-port",
    "remote-port",
    "encr-keysize",
    "established",
    "rekey-time",
    "life-time",
    "install-time",
    "reqid",
    "bytes-in",
    "bytes-out",
    "packets-in",
    "packets-out",
    "use-in",
    "use-out",
    "sequence-in",
    "sequence-out",
    "rekey_time",
    "reauth_time",
    "reauth-time",
    "rekey_bytes",
    "rekey_packets",
    "dpd_delay",
    "mtu",
    "total",
    "half-open",
    "idle",
    "turns",
    "longest-turn-us",
    "scheduled",
    "level",
    "seq",
    "time",
    "ikesa-uniqueid",
    "matches",
    "terminated",
    "lines",
    "tunnels",
    "after-us",
    "packets",
    "octets",
    "lost",
    "limit",
    "since",
    "wire-octets",
    "path-octets",
    "longest",
];

/// Sections that hold nothing but numbers.
const NUMBER_SECTIONS: [&str; 3] = ["drops", "drops-in", "drops-out"];

/// Values of these names say yes or no.
const TRUTHS: [&str; 8] = ["success", "initiator", "nat-local", "nat-remote", "nat-fake", "nat-any", "encap", "esn"];

/// The message as an object.
pub(super) fn of(message: &Message) -> Value {
    section(message, false)
}

fn section(message: &Message, numbers: bool) -> Value {
    let entry = |(name, node): (&str, &Node)| {
        let value = match node {
            Node::Value(value) => scalar(name, &String::from_utf8_lossy(value), numbers),
            Node::List(items) => items.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect(),
            Node::Section(inner) => section(inner, NUMBER_SECTIONS.contains(&name)),
        };
        (name.to_owned(), value)
    };
    Value::Object(message.entries().map(entry).collect::<Map<_, _>>())
}

fn scalar(name: &str, text: &str, number: bool) -> Value {
    let parsed = if number || NUMBERS.contains(&name) {
        serde_json::from_str(text).ok().filter(Value::is_number)
    } else if TRUTHS.contains(&name) {
        Some(Value::Bool(matches!(text, "yes" | "1")))
    } else {
        None
    };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_numbers_and_spis_are_not() {
        let mut message = Message::new()
            .with("uniqueid", 1)
            .with("spi-in", "12345678")
            .with("version", "IKEv2")
            .with("esn", 1)
            .with("time", "1700000000.250")
            .with_section("drops-in", Message::new().with("replay", 7));
        message.put_list("local-ts", ["10.1.0.0/24"]);
        let expected = json!({"uniqueid": 1, "spi-in": "12345678", "version": "IKEv2", "esn": true,
            "time": 1_700_000_000.25, "drops-in": {"replay": 7}, "local-ts": ["10.1.0.0/24"]});
        assert_eq!(of(&message), expected);
    }
}
