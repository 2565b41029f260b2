//! Policies that no connection negotiates, for people.

use std::io::{self, Write};

use super::{Error, text};
use crate::vici::{Client, Message};

/// The policies of the configuration, each with its name.
pub(super) fn fetch(client: &mut Client) -> Result<Vec<(String, Message)>, Error> {
    let mut policies = Vec::new();
    let all = Message::new().with("trap", "yes").with("pass", "yes").with("drop", "yes");
    client.stream("list-policy", "list-policies", all, |event| {
        // Children that wait for packets have no action of their own: they are shown with their connections.
        let own = event.sections().filter(|(_, policy)| policy.text("action").is_some());
        policies.extend(own.map(|(name, policy)| (name.to_owned(), policy.clone())));
    })?;
    Ok(policies)
}

/// One line for each.
pub(super) fn list(out: &mut dyn Write, policies: &[(String, Message)]) -> io::Result<()> {
    let header = ["POLICY", "ACTION", "PRIORITY", "DIRECTION", "SELECTORS", "IN", "OUT"].map(str::to_owned).to_vec();
    let row = |(name, policy): &(String, Message)| {
        let get = |key: &str| text::text(policy, key).to_owned();
        let of =
            |direction: &str| text::octets(sas(policy, direction).filter_map(|sa| text::number(sa, "bytes")).sum());
        vec![name.clone(), get("action"), get("priority"), get("direction"), selectors(policy), of("in"), of("out")]
    };
    text::table(out, &std::iter::once(header).chain(policies.iter().map(row)).collect::<Vec<_>>())
}

/// Everything about each.
pub(super) fn status(out: &mut dyn Write, policies: &[(String, Message)]) -> io::Result<()> {
    for (name, policy) in policies {
        let get = |key: &str| text::text(policy, key);
        writeln!(out, "\npolicy {name}  {}  priority {}, {}", get("action"), get("priority"), get("direction"))?;
        writeln!(out, "  interface {}", get("interface"))?;
        writeln!(out, "  selectors {}", selectors(policy))?;
        for (name, sa) in policy.section("sas").into_iter().flat_map(Message::sections) {
            let get = |key: &str| text::text(sa, key);
            let carrier = if sa.is_yes("encap") { "ESP in UDP" } else { "ESP" };
            let suite = [get("encr-alg"), "-", get("encr-keysize"), " / ", get("integ-alg")].concat();
            let mode = get("mode").to_lowercase();
            writeln!(
                out,
                "  sa {name}  {}  0x{}  {carrier}, {mode} mode, keyed by hand",
                get("direction"),
                get("spi")
            )?;
            writeln!(out, "    path    {} === {}", get("local-host"), get("remote-host"))?;
            writeln!(out, "    suite   {suite}")?;
            let octets = text::octets(text::number(sa, "bytes").unwrap_or_default());
            writeln!(out, "    carried {octets} in {} packets", text::number(sa, "packets").unwrap_or_default())?;
            for (reason, _) in sa.section("drops").into_iter().flat_map(Message::entries) {
                let count = sa.section("drops").and_then(|drops| text::number(drops, reason)).unwrap_or_default();
                writeln!(out, "    dropped {reason} {count}")?;
            }
        }
    }
    Ok(())
}

fn sas<'a>(policy: &'a Message, direction: &str) -> impl Iterator<Item = &'a Message> {
    let all = policy.section("sas").into_iter().flat_map(Message::sections).map(|(_, sa)| sa);
    all.filter(move |sa| sa.text("direction") == Some(direction))
}

fn selectors(policy: &Message) -> String {
    format!("{} === {}", policy.list("local-ts").join(" "), policy.list("remote-ts").join(" "))
}
