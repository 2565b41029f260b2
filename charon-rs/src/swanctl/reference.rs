//! The reference of all keys, made of the tables that read them.

use super::auth_keys::{self, LOCAL_KEYS, REMOTE_KEYS};
use super::authority_keys::{self, AUTHORITY_KEYS};
use super::child_keys::{self, CHILD_KEYS};
use super::conn_keys::{self, CONN_KEYS};
use super::keys::{Foreign, Key, Toml};

const INTRODUCTION: &str = "
## Keys of swanctl.conf

What `swanctl --load-all` loads over the control socket, with strongSwan's meaning. Keys that are not in these tables are
refused by name; a value that asks for something else than what happens anyway is refused, too.
";

/// The keys of swanctl.conf in Markdown.
pub(crate) fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    section(&mut text, "`connections.NAME`", CONN_KEYS, conn_keys::FOREIGN_KEYS);
    section(&mut text, "`connections.NAME.local…`", LOCAL_KEYS, auth_keys::FOREIGN_KEYS);
    section(&mut text, "`connections.NAME.remote…`", REMOTE_KEYS, auth_keys::FOREIGN_KEYS);
    section(&mut text, "`connections.NAME.children.CHILD`", CHILD_KEYS, child_keys::FOREIGN_KEYS);
    section(&mut text, "`authorities.NAME`", AUTHORITY_KEYS, authority_keys::FOREIGN_KEYS);
    text.push_str(&super::pool_keys::reference());
    text
}

fn section<D>(text: &mut String, title: &str, keys: &[Key<D>], foreign: &[Foreign]) {
    text.push_str(&format!("\n### {title}\n\n| key | takes | without it | in ipsec.toml |\n|---|---|---|---|\n"));
    for key in keys {
        let toml = match key.toml {
            Toml::Text(name) | Toml::List(name) | Toml::Switch(name) | Toml::Number(name) => {
                format!("`{name}`")
            }
            Toml::Together => "with others".to_owned(),
            Toml::Nothing => String::new(),
        };
        text.push_str(&format!("| `{}` | {} | {} | {toml} |\n", key.name, key.takes, key.default));
    }
    if !foreign.is_empty() {
        let names: Vec<String> = foreign.iter().map(|key| format!("`{}`", key.name)).collect();
        text.push_str(&format!("\nNot supported: {}.\n", names.join(", ")));
    }
}
