//! Counters of exchanges, as `swanctl --counters` prints them.

use std::collections::BTreeMap;

use ike_proto::io::{MessageTrace, Notice};

use crate::vici::Message;

/// Their names, in the order in which they are printed.
const NAMES: [&str; 21] = [
    "ike-rekey-init",
    "ike-rekey-resp",
    "child-rekey",
    "invalid",
    "invalid-spi",
    "ike-init-in-req",
    "ike-init-in-resp",
    "ike-init-out-req",
    "ike-init-out-resp",
    "ike-auth-in-req",
    "ike-auth-in-resp",
    "ike-auth-out-req",
    "ike-auth-out-resp",
    "create-child-in-req",
    "create-child-in-resp",
    "create-child-out-req",
    "create-child-out-resp",
    "info-in-req",
    "info-in-resp",
    "info-out-req",
    "info-out-resp",
];

/// All counters, of the daemon and of each connection.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    all: BTreeMap<&'static str, u64>,
    connections: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// Counts what happened, if it is something that is counted.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
    pub(crate) fn count(&mut self, notice: &Notice) {
        match notice {
            Notice::Message(trace) => {
                if let Some(name) = exchange_counter(trace) {
                    self.add(name, trace.connection.as_deref());
                }
            }
            Notice::IkeRekeyed { sa, .. } => {
                let name = if sa.initiator { "ike-rekey-init" } else { "ike-rekey-resp" };
                self.add(name, Some(&sa.connection));
            }
            Notice::ChildRekeyed { sa, .. } => self.add("child-rekey", Some(&sa.connection)),
            _ => {}
        }
    }

    /// Counts an ESP packet for an SPI that nobody has.
    pub(crate) fn count_unknown_spi(&mut self) {
        self.add("invalid-spi", None);
    }

    /// The counters of the daemon (under an empty name) or of one connection; `None` when nothing was counted for it.
    pub(crate) fn of(&self, connection: Option<&str>) -> Option<Message> {
        match connection {
            None => Some(section(&self.all)),
            Some(name) => self.connections.get(name).map(section),
        }
    }

    /// The counters of every connection.
    pub(crate) fn of_connections(&self) -> impl Iterator<Item = (&str, Message)> {
        self.connections.iter().map(|(name, counters)| (name.as_str(), section(counters)))
    }

    /// Sets the counters of one connection, or of everything, to zero.
    pub(crate) fn reset(&mut self, connection: Option<&str>) {
        match connection {
            None => *self = Self::default(),
            Some(name) => {
                self.connections.remove(name);
            }
        }
    }

    fn add(&mut self, name: &'static str, connection: Option<&str>) {
        *self.all.entry(name).or_default() += 1;
        if let Some(connection) = connection {
            *self.connections.entry(connection.to_owned()).or_default().entry(name).or_default() += 1;
        }
    }
}

/// Which counter a message moves, from the first words of its summary.
fn exchange_counter(trace: &MessageTrace) -> Option<&'static str> {
    let mut words = trace.summary.split(' ');
    let exchange = match words.next()? {
        "IKE_SA_INIT" => "ike-init",
        "IKE_AUTH" => "ike-auth",
        "CREATE_CHILD_SA" => "create-child",
        "INFORMATIONAL" => "info",
        _ => return None,
    };
    let kind = match words.next()? {
        "request" => "req",
        "response" => "resp",
        _ => return None,
    };
    let wanted = format!("{exchange}-{}-{kind}", if trace.sent { "out" } else { "in" });
    NAMES.into_iter().find(|name| *name == wanted)
}

fn section(counters: &BTreeMap<&'static str, u64>) -> Message {
    let mut section = Message::new();
    for name in NAMES {
        section.put(name, counters.get(name).unwrap_or(&0));
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;

    #[test]
    fn messages_are_counted_by_exchange_direction_and_kind() {
        let mut counters = Counters::default();
        counters.count(&Notice::Message(testing::message(Some("net"), true, "IKE_SA_INIT request 0 [ SA KE No ]")));
        counters.count(&Notice::Message(testing::message(None, false, "IKE_AUTH response 1 [ IDr AUTH ]")));
        counters.count(&Notice::Message(testing::message(None, false, "gibberish")));
        let all = counters.of(None).unwrap();
        assert_eq!(all.text("ike-init-out-req"), Some("1"));
        assert_eq!(all.text("ike-auth-in-resp"), Some("1"));
        assert_eq!(all.entries().count(), NAMES.len());
        assert_eq!(counters.of(Some("net")).unwrap().text("ike-auth-in-resp"), Some("0"));
        counters.reset(Some("net"));
        assert!(counters.of(Some("net")).is_none());
        assert_eq!(counters.of(None).unwrap().text("ike-init-out-req"), Some("1"));
    }
}
