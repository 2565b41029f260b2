//! The reference of all keys, made of the tables that read them.

use super::auth_keys::AUTH_KEYS;
use super::bridge::BRIDGE_KEYS;
use super::child_keys::CHILD_KEYS;
use super::conn_keys::{CONN_KEYS, FOREIGN_KEYS};
use super::daemon::DAEMON_KEYS;
use super::host_keys::{FILTER_KEYS, NAT_KEYS, ROUTE_KEYS};
use super::interface_keys::INTERFACE_KEYS;
use super::key_secrets::KEY_KEYS;
use super::keys::Key;
use super::policy_keys::{POLICY_KEYS, SPD_KEYS};
use super::pool::POOL_KEYS;
use super::sa_keys::SA_KEYS;
use super::sa_secrets::SA_SECRET_KEYS;
use super::secrets::{PPK_KEYS, SECRET_KEYS};
use super::shape_keys::SHAPE_KEYS;

const INTRODUCTION: &str = include_str!("reference.md");

/// `etc/reference.md`: every key with what it takes, its default and its meaning, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    section(&mut text, "`[daemon]`", "The daemon as a whole.", DAEMON_KEYS);
    section(&mut text, "`[interface.NAME]`", "An interface that the daemon makes.", INTERFACE_KEYS);
    section(
        &mut text,
        "`[bridge.NAME]`",
        "A bridge domain: an Ethernet segment that the daemon switches.",
        BRIDGE_KEYS,
    );
    section(
        &mut text,
        "`[conn.NAME]`",
        "A peer and the IKE SA with it. The keys of children may stand here too.",
        CONN_KEYS,
    );
    section(&mut text, "Authentication, in `[conn.NAME]`", "Who both ends are and how they show it.", AUTH_KEYS);
    section(
        &mut text,
        "`[conn.NAME.child.CHILD]`, or in `[conn.NAME]`",
        "A Child SA. Without tables of children the connection is its only child, under its own name.",
        CHILD_KEYS,
    );
    section(
        &mut text,
        "Packets, in `[conn.NAME.child.CHILD]` or `[conn.NAME]`",
        "How the packets of a Child SA are shaped. The two gateways need not agree on any of it.",
        SHAPE_KEYS,
    );
    section(
        &mut text,
        "`[pool.NAME]`",
        "Virtual addresses for peers, and what they are told with them. A connection uses it with `rightsourceip = \"%NAME\"`.",
        POOL_KEYS,
    );
    section(
        &mut text,
        "`[policy.NAME]`",
        "An entry of the security policy database (RFC 4301) that no connection negotiates: what becomes of which packets.",
        POLICY_KEYS,
    );
    section(&mut text, "`[spd]`", "The policies as a whole.", SPD_KEYS);
    section(
        &mut text,
        "`[sa.NAME]`",
        "Half of an SA pair that is keyed by hand, with the keys about packets that children have, too; its keys stand in a table of \
         this name in the secrets file. Prefer connections: nobody replaces these keys.",
        SA_KEYS,
    );
    section(
        &mut text,
        "`[nat.NAME]`",
        "Address translation. The rules of the file are asked in their order for the first packet of a flow.",
        NAT_KEYS,
    );
    section(
        &mut text,
        "`[filter.NAME]`",
        "A stateful filter. Packets of flows that were let pass always pass. Of an interface that `in` or `out` of any rule names, \
         packets in that direction which no rule fits are dropped.",
        FILTER_KEYS,
    );
    section(
        &mut text,
        "`[route.NAME]`",
        "Routes, and ways for packets that are chosen by more than their destination.",
        ROUTE_KEYS,
    );
    section(&mut text, "`[secret.NAME]` in the secrets file", "A pre-shared key.", SECRET_KEYS);
    section(
        &mut text,
        "`[ppk.NAME]` in the secrets file",
        "A post-quantum pre-shared key (RFC 8784), which is mixed into the keys.",
        PPK_KEYS,
    );
    section(
        &mut text,
        "`[key.NAME]` and `[pkcs12.NAME]` in the secrets file",
        "A private key, or a PKCS#12 container with keys and certificates.",
        KEY_KEYS,
    );
    section(&mut text, "`[sa.NAME]` in the secrets file", "The keys of an SA that is keyed by hand.", SA_SECRET_KEYS);
    text.push_str("\n## Keys of ipsec.conf that are not here\n\n| key | instead |\n|---|---|\n");
    for foreign in FOREIGN_KEYS {
        row(&mut text, &[&format!("`{}`", foreign.name), foreign.advice]);
    }
    text.push_str(&crate::swanctl::reference());
    text
}

fn section<D>(text: &mut String, title: &str, what: &str, keys: &[Key<D>]) {
    text.push_str(&format!("\n## {title}\n\n{what}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n"));
    for key in keys {
        let names = key.also_called.iter().fold(format!("`{}`", key.name), |names, name| format!("{names}, `{name}`"));
        let is_value = key.default.starts_with(|c: char| c == '"' || c.is_ascii_digit() && !key.default.contains(' '));
        let default = if is_value || matches!(key.default, "true" | "false") {
            format!("`{}`", key.default)
        } else {
            key.default.to_owned()
        };
        row(text, &[&names, key.takes, &default, key.doc]);
    }
}

fn row(text: &mut String, cells: &[&str]) {
    text.push('|');
    for cell in cells {
        text.push_str(&format!(" {} |", cell.replace('|', "\\|")));
    }
    text.push('\n');
}
