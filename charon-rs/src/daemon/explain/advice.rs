//! The line of the configuration that decides, and what to write there instead.

use ike_proto::io::{ConfigKey, Failure};

use super::keys::{Names, Table, names};
use crate::config::Line;
use crate::daemon::applied::{Applied, Origin};

/// What decides, where it stands, and what would be right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Advice {
    /// The key, as the front end calls it that told the connection.
    pub(super) key: String,
    /// File and line where it stands: `/etc/charon-rs/ipsec.toml:7`; `None` if its default holds.
    pub(super) place: Option<String>,
    /// What stands there; never of a file with secrets.
    pub(super) line: Option<String>,
    /// Where the edit goes: the line that it replaces, or below which it is to be put.
    pub(super) edit_at: Option<String>,
    /// Lines to paste; none where only people can know what is right.
    pub(super) edit: Vec<String>,
}

/// The advice for a failure, if anything in the configuration decides.
pub(super) fn of(failure: &Failure, applied: &Applied) -> Option<Advice> {
    let key = failure.deciding_key()?;
    let mut names = names(key)?;
    let value = failure.cure.as_ref().and_then(|cure| cure.value.as_deref());
    if key == ConfigKey::ChildProposals && is_of_ah(failure, applied) {
        names = Names { toml: "ah", swanctl: "ah_proposals", ..names };
    }
    let Some(connection) = failure.connection.as_deref() else {
        return Some(for_nobody(failure, names, value, applied));
    };
    match applied.connection(connection) {
        Some((Origin::Socket, _)) => Some(in_swanctl(failure, connection, names, value)),
        Some((Origin::File, _)) if names.table == Table::Secrets => {
            Some(in_secrets(failure, connection, value, applied))
        }
        Some((Origin::File, _)) => Some(in_toml(failure, connection, names, value, applied)),
        None => None,
    }
}

fn in_toml(failure: &Failure, connection: &str, names: Names, value: Option<&str>, applied: &Applied) -> Advice {
    let child = failure.child.as_deref().filter(|_| names.table == Table::Child);
    let table = match (names.table, child) {
        (Table::Daemon, _) => "[daemon]".to_owned(),
        (_, Some(child)) if child != connection => format!("[conn.{connection}.child.{child}]"),
        _ => format!("[conn.{connection}]"),
    };
    let (places, toml) = (&applied.places, names.toml);
    let found = places.of_key(connection, child, toml);
    let below = || places.of_table(connection, child).filter(|_| names.table != Table::Daemon);
    Advice {
        key: format!("{toml} of {table}"),
        place: found.map(place),
        line: found.and_then(|line| line.text.clone()),
        edit_at: value.and_then(|_| match found {
            Some(line) => Some(format!("in place of {}", place(line))),
            None => below().map(|line| format!("below {}", place(line))),
        }),
        edit: value.map(|value| format!("{toml} = {}", quoted(toml, value))).into_iter().collect(),
    }
}

fn in_swanctl(failure: &Failure, connection: &str, names: Names, value: Option<&str>) -> Advice {
    let child = failure.child.as_deref().unwrap_or(connection);
    let key = match names.table {
        Table::Connection => format!("connections.{connection}.{}", names.swanctl),
        Table::Child => format!("connections.{connection}.children.{child}.{}", names.swanctl),
        Table::Daemon => names.swanctl.to_owned(),
        Table::Secrets => match failure.cure.as_ref().and_then(|cure| cure.of.as_deref()) {
            // Secrets from the socket have a name of their own here, so that none from a file is meant.
            Some(name) => format!("secrets.{}", name.strip_prefix("socket:").unwrap_or(name)),
            None => "secrets".to_owned(),
        },
    };
    let last = names.swanctl.rsplit('.').next().unwrap_or(names.swanctl);
    let edit = match (names.table, value) {
        (Table::Secrets, Some(owners)) => {
            let owners = owners.split(',').enumerate().map(|(number, owner)| format!("  id-{} = {owner}", number + 1));
            let mut lines = vec![format!("ike-{connection} {{")];
            lines.extend(owners.chain(["  secret = \"the key that the peer has\"".to_owned(), "}".to_owned()]));
            lines
        }
        (_, Some(value)) => vec![format!("{last} = {}", value.replace(',', ", "))],
        (_, None) => Vec::new(),
    };
    let edit_at = value.map(|_| "in swanctl.conf, then: swanctl --load-all".to_owned());
    Advice { key, edit_at, edit, ..Advice::default() }
}

/// A pre-shared key: the line of the one that is used, or a new one to paste.
fn in_secrets(failure: &Failure, connection: &str, owners: Option<&str>, applied: &Applied) -> Advice {
    let name = failure.cure.as_ref().and_then(|cure| cure.of.as_deref());
    let found = name.and_then(|name| applied.places.of_secret(name));
    let table = name.map_or_else(|| "[secret.NAME]".to_owned(), |name| format!("[secret.{name}]"));
    let file = || applied.places.secrets_file().map(|file| file.display().to_string());
    let edit = owners.map(|owners| {
        let owners: Vec<String> = owners.split(',').map(toml_string).collect();
        vec![
            format!("[secret.{connection}]"),
            format!("for = [{}]", owners.join(", ")),
            "psk = \"the key that the peer has\"".to_owned(),
        ]
    });
    Advice {
        key: format!("psk of {table}"),
        place: found.map(place).or_else(file),
        line: None,
        edit_at: owners.map(|_| file().map_or("in ipsec.secrets.toml".to_owned(), |file| format!("in {file}"))),
        edit: edit.unwrap_or_default(),
    }
}

/// A peer that no connection is for: the nearest one to change, or a new one.
fn for_nobody(failure: &Failure, names: Names, value: Option<&str>, applied: &Applied) -> Advice {
    let nearest = failure.ours.first().and_then(|line| line.strip_prefix('`')).and_then(|line| line.split('`').next());
    let known = nearest.and_then(|name| Some((name, applied.connection(name)?.0))).filter(|_| value.is_some());
    match known {
        Some((connection, Origin::File)) => in_toml(failure, connection, names, value, applied),
        Some((connection, Origin::Socket)) => in_swanctl(failure, connection, names, value),
        None => Advice { key: format!("{} of [conn.NAME]", names.toml), ..Advice::default() },
    }
}

fn is_of_ah(failure: &Failure, applied: &Applied) -> bool {
    let connection = failure.connection.as_deref().and_then(|name| applied.connection(name));
    let child = connection.and_then(|(_, connection)| {
        connection.children.iter().find(|child| failure.child.as_deref().is_none_or(|name| name == child.name))
    });
    let first = child.and_then(|child| child.esp_proposals.first());
    first.is_some_and(|proposal| proposal.protocol == espdp_api::IpsecProtocol::Ah)
}

fn place(line: &Line) -> String {
    format!("{}:{}", line.file.display(), line.number)
}

/// A value as TOML; numbers and truths have no quotation marks.
fn quoted(key: &str, value: &str) -> String {
    match value {
        "true" | "false" => value.to_owned(),
        _ if key == "fragmentsize" && value.bytes().all(|octet| octet.is_ascii_digit()) => value.to_owned(),
        _ => toml_string(value),
    }
}

/// Text as a string of TOML. Identities come from peers, so nothing of them may end it early.
fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;
    use ike_proto::io::Cure;

    #[test]
    fn text_of_a_peer_stays_inside_its_quotation_marks() {
        assert_eq!(toml_string("sun.example"), "\"sun.example\"");
        let hostile = toml_string("a\"\nright = \"evil");
        let parsed: toml::Table = toml::from_str(&format!("key = {hostile}")).unwrap();
        assert_eq!((parsed.len(), parsed["key"].as_str()), (1, Some("a\"\nright = \"evil")));
    }

    #[test]
    fn advice_for_swanctl_has_its_words() {
        let mut failure = testing::failure(Some("gw"), Some("net"));
        failure.cure = Some(Cure::new(ConfigKey::RemoteSelectors, Some("10.2.0.0/16,10.3.0.0/16".to_owned())));
        let names = names(ConfigKey::RemoteSelectors).unwrap();
        let advice = in_swanctl(&failure, "gw", names, failure.cure.as_ref().unwrap().value.as_deref());
        assert_eq!(advice.key, "connections.gw.children.net.remote_ts");
        assert_eq!(advice.edit, ["remote_ts = 10.2.0.0/16, 10.3.0.0/16"]);
    }
}
