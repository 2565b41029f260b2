//! The daemons' configuration: the files of `etc/lab`, changed as the command line asks.

use std::path::Path;

use serde::Serialize;
use toml_edit::{DocumentMut, Item, Table, TomlError, value};

/// What the command line changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// IKE proposals.
    pub(super) ike: Option<String>,
    /// ESP proposals.
    pub(super) esp: Option<String>,
    /// The pre-shared key.
    pub(super) psk: Option<String>,
    /// How packets are wrapped.
    pub(super) mode: Option<Mode>,
    /// Whether ESP travels in UDP although there is no NAT.
    pub(super) encap: bool,
}

/// How the packets of the two networks are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Tunnel mode: ESP with the inner packet in it.
    Tunnel,
    /// IP in IP, protected by ESP in transport mode.
    Transport,
}

/// The files of one gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    /// The configuration.
    pub(super) config: &'static str,
    /// The secrets.
    pub(super) secrets: &'static str,
}

/// The gateway that starts.
pub(super) const INITIATOR: Template = Template {
    config: include_str!("../../../etc/lab/initiator.toml"),
    secrets: include_str!("../../../etc/lab/initiator.secrets.toml"),
};

/// The gateway that answers.
pub(super) const RESPONDER: Template = Template {
    config: include_str!("../../../etc/lab/responder.toml"),
    secrets: include_str!("../../../etc/lab/responder.secrets.toml"),
};

impl Template {
    /// The configuration with `changes`; keys are written to `keylog` if there is one.
    ///
    /// # Errors
    /// [`TomlError`] when the template is no TOML.
    pub(super) fn config(&self, changes: &Changes, keylog: Option<&Path>) -> Result<String, TomlError> {
        let mut document: DocumentMut = self.config.parse()?;
        if let Some(keylog) = keylog {
            table(document.as_table_mut(), "daemon")["keylog"] = value(keylog.display().to_string());
        }
        for (_, connection) in connections(&mut document) {
            for (key, text) in [("ike", &changes.ike), ("esp", &changes.esp)] {
                if let Some(text) = text {
                    connection[key] = value(text);
                }
            }
            if changes.mode == Some(Mode::Transport) {
                into_transport_mode(connection);
            }
            if changes.encap {
                connection["forceencaps"] = value(true);
            }
        }
        Ok(document.to_string())
    }

    /// The secrets with `changes`.
    ///
    /// # Errors
    /// [`TomlError`] when the template is no TOML.
    pub(super) fn secrets(&self, changes: &Changes) -> Result<String, TomlError> {
        let mut document: DocumentMut = self.secrets.parse()?;
        if let Some(psk) = &changes.psk {
            tables(&mut document, "secret").for_each(|(_, secret)| secret["psk"] = value(psk));
        }
        Ok(document.to_string())
    }

    /// The name of its connection.
    ///
    /// # Errors
    /// [`TomlError`] when the template is no TOML.
    pub(super) fn connection(&self) -> Result<Option<String>, TomlError> {
        let mut document: DocumentMut = self.config.parse()?;
        Ok(connections(&mut document).next().map(|(name, _)| name))
    }
}

/// Transport mode protects packets between the gateways, here those of IP in IP. So the networks behind them are no
/// selectors any more, but still lie behind the interface.
fn into_transport_mode(connection: &mut Item) {
    connection["type"] = value("transport");
    if let Some(connection) = connection.as_table_like_mut() {
        connection.remove("leftsubnet");
        if let Some(networks) = connection.remove("rightsubnet") {
            connection.insert("routes", networks);
        }
    }
}

/// The tables `[conn.NAME]`, without those that only hold defaults.
fn connections(document: &mut DocumentMut) -> impl Iterator<Item = (String, &mut Item)> {
    tables(document, "conn").filter(|(name, _)| !name.starts_with('%'))
}

/// The tables `[KIND.NAME]`.
fn tables<'a>(document: &'a mut DocumentMut, kind: &str) -> impl Iterator<Item = (String, &'a mut Item)> + use<'a> {
    let all = document.get_mut(kind).and_then(Item::as_table_like_mut).map(|tables| tables.iter_mut());
    all.into_iter().flatten().map(|(name, table)| (name.get().to_owned(), table))
}

fn table<'a>(parent: &'a mut Table, name: &str) -> &'a mut Item {
    parent.entry(name).or_insert_with(|| Item::Table(Table::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: Template = Template {
        config: "# Why\n[conn.\"%default\"]\nike = \"a\"\n\n[conn.lab]\nesp = \"b\" # kept\n",
        secrets: "[secret.lab]\npsk = \"old\"\nfor = [\"x\"]\n[secret.other]\npsk = \"old\"\n",
    };

    #[test]
    fn without_changes_a_template_stays_as_it_is() {
        assert_eq!(TEMPLATE.config(&Changes::default(), None).unwrap(), TEMPLATE.config);
        assert_eq!(TEMPLATE.secrets(&Changes::default()).unwrap(), TEMPLATE.secrets);
        assert_eq!(TEMPLATE.connection().unwrap().as_deref(), Some("lab"));
    }

    #[test]
    fn changes_go_to_the_connection_and_spare_the_rest() {
        let changes =
            Changes { ike: Some("i".into()), esp: Some("e".into()), psk: None, mode: Some(Mode::Tunnel), encap: true };
        let changed = TEMPLATE.config(&changes, Some(Path::new("/keys"))).unwrap();
        let document: DocumentMut = changed.parse().unwrap();
        let connection = &document["conn"]["lab"];
        assert_eq!(connection["ike"].as_str(), Some("i"));
        assert_eq!(connection["esp"].as_str(), Some("e"));
        assert!(connection.get("type").is_none(), "tunnel mode is what the template says");
        assert_eq!(connection["forceencaps"].as_bool(), Some(true));
        assert_eq!(document["conn"]["%default"]["ike"].as_str(), Some("a"));
        assert_eq!(document["daemon"]["keylog"].as_str(), Some("/keys"));
        assert!(changed.starts_with("# Why"));
    }

    #[test]
    fn in_transport_mode_networks_are_routes_and_no_selectors() {
        let changes = Changes { mode: Some(Mode::Transport), ..Changes::default() };
        let document: DocumentMut = INITIATOR.config(&changes, None).unwrap().parse().unwrap();
        let connection = &document["conn"]["lab"];
        assert_eq!(connection["type"].as_str(), Some("transport"));
        assert!(connection.get("leftsubnet").is_none() && connection.get("rightsubnet").is_none());
        assert!(connection["routes"].as_array().is_some_and(|routes| routes.len() == 2));
    }

    #[test]
    fn a_key_of_ones_own_replaces_every_secret_and_is_quoted() {
        let changes = Changes { psk: Some("a \"quoted\" key".into()), ..Changes::default() };
        let document: DocumentMut = TEMPLATE.secrets(&changes).unwrap().parse().unwrap();
        for name in ["lab", "other"] {
            assert_eq!(document["secret"][name]["psk"].as_str(), Some("a \"quoted\" key"));
        }
        assert!(document["secret"]["lab"]["for"].is_array());
    }

    /// The help of the command line names them.
    #[test]
    fn the_defaults_are_those_of_the_help() {
        for template in [INITIATOR, RESPONDER] {
            for line in [r#"ike = "aes256gcm16-prfsha256-modp2048""#, r#"esp = "aes256gcm16-esn""#] {
                assert!(template.config.lines().any(|found| found == line), "{line}");
            }
            assert!(template.secrets.contains(r#"psk = "Vpp123""#));
        }
    }

    #[test]
    fn the_real_templates_have_a_connection_and_a_secret() {
        for template in [INITIATOR, RESPONDER] {
            let name = template.connection().unwrap().expect("a connection");
            let changes = Changes { ike: Some("aes128".into()), psk: Some("changed".into()), ..Changes::default() };
            assert!(template.config(&changes, None).unwrap().contains("ike = \"aes128\""), "{name}");
            assert!(template.secrets(&changes).unwrap().contains("\"changed\""), "{name}");
        }
    }
}
