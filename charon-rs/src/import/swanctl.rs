//! swanctl.conf in the words of ours, by the tables of its keys.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ike_proto::config::{CloseAction, DpdAction, StartAction};

use super::conf::Conf;
use super::text::Writer;
use super::{Imported, LeftOut};
use crate::swanctl::auth_keys::{self, LOCAL_KEYS, LocalDraft, REMOTE_KEYS, RemoteDraft};
use crate::swanctl::child_keys::{self, CHILD_KEYS, ChildDraft, ChildMode, Limits};
use crate::swanctl::conn_keys::{self, CONN_KEYS, ConnDraft};
use crate::swanctl::keys::{Key, Refusal, Toml, Value, apply_all};
use crate::swanctl::pool_keys::{ADDRESSES, is_in_toml};
use crate::swanctl::{CHILD_REKEY_TIME, IKE_REKEY_TIME, SHUNT_PRIORITY, read_pool};
use crate::vici::Message;

/// Translates swanctl.conf; `folder` is the one that it stands in, with the certificates and keys beside it.
pub(super) fn import(text: &str, folder: &Path) -> Imported {
    let mut importer = Importer { conf: Conf::parse(text), folder, config: Writer::default(), left_out: Vec::new() };
    importer.daemon();
    let root = importer.conf.root.clone();
    for (name, section) in sections(&root, "connections") {
        importer.connection(name, section);
    }
    for (name, section) in sections(&root, "pools") {
        importer.pool(name, section);
    }
    let secrets = importer.secrets(&root);
    for (kind, why) in
        [("authorities", "where to ask about revocation stands in the certificates; CAs are those of `cacerts`")]
    {
        for (name, _) in sections(&root, kind) {
            importer.leave_out(&[kind, name], format!("{kind}.{name}: {why}"));
        }
    }
    let mut left_out = importer.left_out;
    left_out.extend(importer.conf.left_out);
    Imported { config: importer.config.finish(), secrets, left_out }
}

fn sections<'a>(root: &'a Message, kind: &str) -> impl Iterator<Item = (&'a str, &'a Message)> {
    root.section(kind).into_iter().flat_map(Message::sections)
}

struct Importer<'a> {
    conf: Conf,
    folder: &'a Path,
    config: Writer,
    left_out: Vec<LeftOut>,
}

impl Importer<'_> {
    fn leave_out(&mut self, path: &[&str], why: impl Into<String>) {
        self.left_out.push(LeftOut { line: self.conf.line(path), why: why.into() });
    }

    fn refused(&mut self, path: &[&str], refusals: Vec<Refusal>) {
        for refusal in refusals {
            let path: Vec<&str> = path.iter().copied().chain(refusal.path.iter().map(String::as_str)).collect();
            self.leave_out(&path, refusal.why);
        }
    }

    /// The CAs of swanctl's folder stay where they are.
    fn daemon(&mut self) {
        let authorities = self.folder.join("x509ca");
        if authorities.is_dir() {
            self.config.table(&["daemon"]);
            self.config.string("cacerts", authorities.display());
        }
    }

    fn connection(&mut self, name: &str, section: &Message) {
        let path = ["connections", name];
        let is_section = |key: &str| section.section(key).is_some();
        let mut draft = ConnDraft::default();
        let refusals = apply_all(section, CONN_KEYS, conn_keys::FOREIGN_KEYS, is_section, &mut draft);
        self.refused(&path, refusals);
        self.config.table(&["conn", name]);
        direct(&mut self.config, section, CONN_KEYS);
        if draft.remote_addresses.is_none() {
            self.config.string("right", "%any");
        }
        if let Some(proposals) = draft.proposals.as_deref().filter(|proposals| !proposals.is_empty()) {
            self.config.list("ike", proposals);
        }
        let wanted = draft.virtual_addresses.iter().map(|address| match address {
            IpAddr::V4(any) if any.is_unspecified() => "%config4".to_owned(),
            IpAddr::V6(any) if any.is_unspecified() => "%config6".to_owned(),
            IpAddr::V4(_) | IpAddr::V6(_) => address.to_string(),
        });
        let wanted: Vec<String> = wanted.collect();
        let pools: Vec<String> = draft.pools.iter().map(|name| format!("%{name}")).collect();
        for (key, items) in [("leftsourceip", wanted), ("rightsourceip", pools)] {
            if !items.is_empty() {
                self.config.list(key, &items);
            }
        }
        self.ike_times(&path, &draft);
        if let Some(delay) = draft.dpd_delay.filter(|delay| !delay.is_zero()) {
            self.config.string("dpdaction", "clear");
            self.config.time("dpddelay", delay);
        }
        self.authentication(name, section);
        for (child, section) in sections(section, "children") {
            self.child(name, child, section);
        }
    }

    /// A pool; `rightsourceip` names it.
    fn pool(&mut self, name: &str, section: &Message) {
        if let Err(why) = read_pool(name, section) {
            return self.leave_out(&["pools", name], format!("pools.{name}: {why}"));
        }
        self.config.table(&["pool", name]);
        for (key, _) in section.entries() {
            let values = Value::of(section, key).and_then(|value| value.items().ok()).unwrap_or_default();
            if key == ADDRESSES || is_in_toml(key) {
                self.config.list(key, &values);
            } else {
                self.leave_out(&["pools", name, key], format!("pools.{name}.{key}: clients are not told"));
            }
        }
    }

    fn ike_times(&mut self, path: &[&str], draft: &ConnDraft) {
        let reauth = draft.reauth_time.filter(|after| !after.is_zero());
        let default = if reauth.is_some() { Duration::ZERO } else { IKE_REKEY_TIME };
        let rekey = draft.rekey_time.unwrap_or(default);
        let over = draft.over_time.unwrap_or(rekey.max(reauth.unwrap_or_default()) / 10);
        let jitter = draft.rand_time.unwrap_or(over);
        match (rekey.is_zero(), reauth) {
            (true, None) => {
                self.leave_out(path, "an IKE SA that never ends: it is rekeyed every 24 hours");
                times(&mut self.config, "ikelifetime", DAY, (DAY / 10, DAY / 10));
            }
            (true, Some(reauth)) => {
                self.config.raw("reauth", true);
                times(&mut self.config, "ikelifetime", reauth + over, (over, jitter));
            }
            (false, reauth) => {
                if let Some(reauth) = reauth {
                    self.config.time("reauthtime", reauth);
                }
                times(&mut self.config, "ikelifetime", rekey + over, (over, jitter));
            }
        }
    }

    fn authentication(&mut self, name: &str, section: &Message) {
        let rounds = |prefix: &str| -> Vec<(String, Message)> {
            let named = section.sections().filter(|(key, _)| key.starts_with(prefix));
            let mut rounds: Vec<_> = named.map(|(key, round)| (key.to_owned(), round.clone())).collect();
            rounds.sort_by_key(|(_, round)| round.text("round").and_then(|text| text.parse::<u32>().ok()).unwrap_or(0));
            rounds
        };
        for (index, (key, round)) in rounds("local").iter().enumerate() {
            let path = ["connections", name, key.as_str()];
            let mut draft = LocalDraft::default();
            let refusals = apply_all(round, LOCAL_KEYS, auth_keys::FOREIGN_KEYS, |_| false, &mut draft);
            self.refused(&path, refusals);
            self.round(
                &path,
                index,
                "left",
                round,
                (&[("certs", "cert", "x509"), ("pubkeys", "sigkey", "pubkey")], "%any"),
            );
        }
        for (index, (key, round)) in rounds("remote").iter().enumerate() {
            let path = ["connections", name, key.as_str()];
            let mut draft = RemoteDraft::default();
            let refusals = apply_all(round, REMOTE_KEYS, auth_keys::FOREIGN_KEYS, |_| false, &mut draft);
            self.refused(&path, refusals);
            let files = [("certs", "cert", "x509"), ("pubkeys", "sigkey", "pubkey"), ("cacerts", "ca", "x509ca")];
            self.round(&path, index, "right", round, (&files, ""));
            if draft.certificates.is_empty() && draft.identity.is_none() && index == 0 {
                self.config.string("rightid", "%any");
            }
            for (key, toml) in [("ca_id", "rightca"), ("cert_policy", "rightcertpolicy"), ("revocation", "revocation")]
            {
                if let Some(text) = round.text(key) {
                    self.config.string(toml, text);
                }
            }
        }
    }

    /// What both ends of a round have: a way, an identity, and files, each with what it is in swanctl.conf, in ipsec.toml, and its folder.
    fn round(
        &mut self,
        path: &[&str],
        index: usize,
        side: &str,
        round: &Message,
        (files, no_id): (&[(&str, &str, &str)], &str),
    ) {
        let number = match index {
            0 => "",
            1 => "2",
            _ => return self.leave_out(path, "more than two rounds of authentication"),
        };
        self.config.string(&format!("{side}auth{number}"), round.text("auth").unwrap_or("pubkey"));
        if let Some(id) = round.text("id").filter(|id| *id != no_id) {
            self.config.string(&format!("{side}id{number}"), id);
        }
        for (key, toml, folder) in files {
            let items = Value::of(round, key).and_then(|value| value.items().ok()).unwrap_or_default();
            if items.is_empty() {
                continue;
            }
            let place = |file: &String| self.folder.join(folder).join(file).display().to_string();
            let places: Vec<String> = items.iter().map(place).collect();
            self.config.list(&format!("{side}{toml}{number}"), &places);
        }
    }

    fn child(&mut self, connection: &str, name: &str, section: &Message) {
        let path = ["connections", connection, "children", name];
        let mut draft = ChildDraft::default();
        let refusals = apply_all(section, CHILD_KEYS, child_keys::FOREIGN_KEYS, |_| false, &mut draft);
        self.refused(&path, refusals);
        if let Some(action @ (ChildMode::Pass | ChildMode::Drop)) = draft.mode {
            return self.shunt(&path, action, &draft);
        }
        self.config.table(&["conn", connection, "child", name]);
        direct(&mut self.config, section, CHILD_KEYS);
        if let Some(proposals) = draft.esp.as_deref().filter(|proposals| !proposals.is_empty()) {
            self.config.list("esp", proposals);
        }
        if let Some(proposals) = draft.ah.as_deref() {
            self.config.list("ah", proposals);
        }
        if draft.mode == Some(ChildMode::Protect(espdp_api::Mode::Transport)) {
            self.config.string("type", "transport");
        }
        let auto = match draft.start.unwrap_or(StartAction::None) {
            StartAction::None => "add",
            StartAction::Trap => "route",
            StartAction::Start => "start",
            StartAction::Once { trap: false } => "once",
            StartAction::Once { trap: true } => "route+once",
        };
        self.config.string("auto", auto);
        match draft.close {
            CloseAction::None => {}
            CloseAction::Trap => self.config.string("closeaction", "hold"),
            CloseAction::Start => self.config.string("closeaction", "restart"),
        }
        match draft.dpd {
            None | Some(DpdAction::Clear) => {}
            Some(DpdAction::Hold) => self.config.string("dpdaction", "hold"),
            Some(DpdAction::Restart) => self.config.string("dpdaction", "restart"),
        }
        self.child_times(&path, &draft);
        for (unit, limits) in [("bytes", draft.bytes), ("packets", draft.packets)] {
            self.traffic(&path, unit, limits);
        }
        if let Some(priority) = draft.priority {
            self.config.raw("priority", priority);
        }
        if let Some(window) = draft.replay_window {
            self.config.raw("replay_window", if window == 0 { 0 } else { window.max(64) });
        }
        for (key, toml, words) in SHAPES {
            let written = section.text(key);
            if let Some((_, word)) = words.iter().find(|(own, _)| Some(*own) == written) {
                self.config.string(toml, word);
            }
        }
        if let Some(octets) =
            section.text("tfc_padding").and_then(|text| text.parse::<u16>().ok()).filter(|octets| *octets > 0)
        {
            self.config.raw("tfc", octets);
        }
    }

    fn child_times(&mut self, path: &[&str], draft: &ChildDraft) {
        let life = draft.life_time;
        let rekey = draft.rekey_time.unwrap_or_else(|| life.map_or(CHILD_REKEY_TIME, |life| life * 10 / 11));
        let life = life.unwrap_or(rekey * 11 / 10);
        if life.is_zero() {
            self.leave_out(path, "a Child SA that never ends: it is rekeyed every 24 hours");
            return times(&mut self.config, "lifetime", DAY, (DAY / 10, DAY / 10));
        }
        if rekey.is_zero() {
            self.config.raw("rekey", false);
            return self.config.time("lifetime", life);
        }
        let margin = life.saturating_sub(rekey);
        times(&mut self.config, "lifetime", life, (margin, draft.rand_time.unwrap_or(margin)));
    }

    /// strongSwan: an SA that is rekeyed ends a tenth later.
    fn traffic(&mut self, path: &[&str], unit: &str, limits: Limits) {
        let rekey = limits.rekey.filter(|limit| *limit > 0);
        let life = limits.life.map_or_else(|| rekey.map(|rekey| rekey + rekey / 10), Some).filter(|limit| *limit > 0);
        let suffix = if unit == "bytes" { "B" } else { "" };
        let config = &mut self.config;
        let mut amount = |name: String, value: u64| {
            if suffix.is_empty() {
                config.raw(&name, value);
            } else {
                config.string(&name, format!("{value}{suffix}"));
            }
        };
        match (rekey, life) {
            (Some(rekey), Some(life)) => {
                amount(format!("life{unit}"), life);
                amount(format!("margin{unit}"), life.saturating_sub(rekey));
            }
            (None, Some(life)) => {
                amount(format!("life{unit}"), life);
                self.leave_out(path, format!("life_{unit} without rekey_{unit}: it is rekeyed a tenth sooner"));
            }
            (Some(_), None) => self.leave_out(path, format!("rekey_{unit} without an end (life_{unit} = 0)")),
            (None, None) => {}
        }
    }

    fn shunt(&mut self, path: &[&str], mode: ChildMode, draft: &ChildDraft) {
        if !draft.start.is_some_and(StartAction::traps) {
            return self.leave_out(path, "a child that passes or drops packets and is installed by command only");
        }
        let name = path.iter().filter(|part| !matches!(**part, "connections" | "children")).copied();
        self.config.table(&["policy", &name.collect::<Vec<_>>().join("-")]);
        self.config.string("action", if mode == ChildMode::Pass { "bypass" } else { "discard" });
        self.config.raw("priority", draft.priority.unwrap_or(SHUNT_PRIORITY));
        self.config.list("leftsubnet", draft.local.as_deref().unwrap_or_default());
        self.config.list("rightsubnet", draft.remote.as_deref().unwrap_or_default());
        if mode == ChildMode::Pass {
            self.config.string("routes", "none");
        }
    }

    fn secrets(&mut self, root: &Message) -> String {
        let mut secrets = Writer::default();
        for (name, section) in sections(root, "secrets") {
            let text = |key: &str| section.text(key).unwrap_or_default();
            let mut ids: Vec<(&str, String)> = section
                .entries()
                .filter(|(key, _)| key.starts_with("id"))
                .filter_map(|(key, _)| Some((key, section.text(key)?.to_owned())))
                .collect();
            ids.sort_by_key(|(key, _)| (*key).to_owned());
            let ids: Vec<String> = ids.into_iter().map(|(_, id)| id).filter(|id| id != "%any").collect();
            if name.starts_with("ike") {
                secrets.table(&["secret", name]);
                if !ids.is_empty() {
                    secrets.list("for", &ids);
                }
                secrets.string("psk", text("secret"));
            } else if name.starts_with("ppk") {
                secrets.table(&["ppk", name]);
                secrets.list("id", &ids);
                secrets.string("psk", text("secret"));
            } else if let Some(folder) = KEY_FOLDERS.iter().find(|folder| name.starts_with(**folder)) {
                secrets.table(&[if *folder == "pkcs12" { "pkcs12" } else { "key" }, name]);
                secrets.string("file", self.folder.join(folder).join(text("file")).display());
                secrets.string("passphrase", text("secret"));
            } else {
                self.leave_out(&["secrets", name], format!("secrets.{name}: there are no such secrets here"));
            }
        }
        for folder in KEY_FOLDERS {
            self.plain_keys(root, folder, &mut secrets);
        }
        secrets.finish()
    }

    /// Private keys of swanctl's folders that no secret names: those without passphrases.
    fn plain_keys(&self, root: &Message, folder: &str, secrets: &mut Writer) {
        let named = |file: &str| sections(root, "secrets").any(|(_, section)| section.text("file") == Some(file));
        let Ok(files) = std::fs::read_dir(self.folder.join(folder)) else { return };
        let mut names: Vec<String> = files.flatten().filter_map(|file| file.file_name().into_string().ok()).collect();
        names.sort();
        for name in names.iter().filter(|name| !named(name)) {
            let stem = name.split('.').next().unwrap_or_default();
            secrets.table(&[if folder == "pkcs12" { "pkcs12" } else { "key" }, stem]);
            secrets.string("file", self.folder.join(folder).join(name).display());
        }
    }
}

/// How long an SA lives that swanctl.conf never ends.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// swanctl's folders of private keys.
const KEY_FOLDERS: [&str; 5] = ["private", "rsa", "ecdsa", "pkcs8", "pkcs12"];

/// What a key of swanctl.conf is called here, and the words for what it may say.
type Shape = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Keys about packets.
const SHAPES: [Shape; 2] =
    [("copy_df", "df", &[("yes", "copy"), ("no", "clear")]), ("tfc_padding", "tfc", &[("mtu", "mtu")])];

/// The keys that have the same meaning under another name.
fn direct<D>(config: &mut Writer, section: &Message, keys: &'static [Key<D>]) {
    for key in keys {
        let Some(value) = Value::of(section, key.name) else { continue };
        match key.toml {
            Toml::Text(name) => {
                if let Ok(text) = value.text() {
                    config.string(name, text);
                }
            }
            Toml::List(name) => {
                if let Ok(items) = value.items() {
                    config.list(name, &items);
                }
            }
            Toml::Switch(name) => {
                if let Ok(switch) = value.switch() {
                    config.raw(name, switch);
                }
            }
            Toml::Number(name) => {
                if let Ok(number) = value.number::<u64>() {
                    config.raw(name, number);
                }
            }
            Toml::Together | Toml::Nothing => {}
        }
    }
}

/// A lifetime with its margin and the largest random part of that.
fn times(config: &mut Writer, key: &str, life: Duration, (margin, jitter): (Duration, Duration)) {
    config.time(key, life);
    config.time("margintime", margin);
    let percent = (jitter.as_secs() * 100).checked_div(margin.as_secs()).unwrap_or(0);
    config.string("rekeyfuzz", format!("{}%", percent.min(500)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Layer;

    const TEXT: &str = r#"
connections {
  gw {
    version = 2
    local_addrs = 192.0.2.1
    remote_addrs = 192.0.2.2, gw.example.org
    proposals = aes256gcm16-prfsha384-x25519, aes128-sha256-modp3072
    encap = yes
    mobike = no
    unique = replace
    dpd_delay = 30s
    fragmentation = force
    send_cert = always
    over_time = 10m
    rand_time = 5m
    local { auth = psk
      id = moon.example.org }
    remote { auth = psk
      id = sun.example.org }
    children {
      net {
        local_ts = 10.1.0.0/16, 10.9.0.0/24[tcp/443]
        remote_ts = dynamic[udp]
        esp_proposals = aes256gcm16-x25519-esn
        mode = transport
        start_action = trap|start
        close_action = trap
        dpd_action = start
        rekey_time = 30m
        life_time = 40m
        rekey_bytes = 1000000
        rekey_packets = 4000
        life_packets = 5000
        replay_window = 32
        copy_df = yes
        tfc_padding = mtu
        updown = /etc/updown now
        mark_in = 42
      }
      again { start_action = none }
      local { mode = pass
        local_ts = 10.1.0.0/16
        remote_ts = 10.3.0.0/16
        start_action = trap }
    }
  }
  rw { remote_addrs = %any
    vips = 0.0.0.0, 10.3.0.7
    pools = p
    reauth_time = 2h
    ppk_id = quantum
    local { auth = psk }
    remote { auth = psk }
    children { host { } } }
}
secrets {
  ike-1 { id-1 = moon.example.org
    id-2 = sun.example.org
    secret = "a secret" }
  ppk-1 { id = quantum
    secret = 0x0102 }
  eap-carol { id = carol
    secret = x }
}
pools { p { addrs = 10.3.0.0/24
    dns = 10.2.0.53, 10.2.0.54
    28675 = hello } }
"#;

    #[test]
    fn what_is_imported_is_the_same_model_as_what_swanctl_loads() {
        let folder = tempfile::tempdir().unwrap();
        let imported = import(TEXT, folder.path());
        let (config, secrets) = (folder.path().join("ipsec.toml"), folder.path().join("ipsec.secrets.toml"));
        std::fs::write(&config, &imported.config).unwrap();
        std::fs::write(&secrets, &imported.secrets).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secrets, private).unwrap();
        let loaded = crate::config::load(&config, Some(&secrets)).unwrap_or_else(|problems| {
            panic!("{problems}\n{}\n{}", imported.config, imported.secrets);
        });
        let conf = Conf::parse(&TEXT.replace("        mark_in = 42\n", ""));
        for (name, section) in sections(&conf.root, "connections") {
            let read = crate::swanctl::read(name, section, &mut Layer::default()).unwrap();
            let own = loaded.connections.iter().find(|own| own.name == name);
            if read.connection.children.is_empty() {
                continue; // an IKE SA alone is not what a file of ours can ask for
            }
            assert_eq!(own, Some(&read.connection), "{}", imported.config);
            for shunt in read.shunts {
                let name = shunt.policy.name.replace('/', "-");
                let policy = loaded.policies.iter().find(|policy| policy.name == name).unwrap();
                assert_eq!((policy.spec.clone(), shunt.installs), (shunt.policy.spec, true));
            }
        }
        let pool = |(name, section): (&str, &Message)| {
            let pool = read_pool(name, section).unwrap();
            ike_proto::config::Pool { attributes: pool.attributes[..2].to_vec(), ..pool }
        };
        assert!(loaded.pools.iter().cloned().eq(sections(&conf.root, "pools").map(pool)));
        let names: Vec<&str> = loaded.secrets.iter().map(|secret| secret.name.as_str()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn what_cannot_be_translated_is_told_with_its_line() {
        let imported = import(TEXT, Path::new("/nowhere"));
        let line = |needle: &str| TEXT.lines().position(|line| line.contains(needle)).unwrap() + 1;
        let told: Vec<usize> = imported.left_out.iter().map(|left| left.line).collect();
        for needle in ["mark_in", "eap-carol", "28675"] {
            assert!(told.contains(&line(needle)), "{needle}: {:?}", imported.left_out);
        }
        assert_eq!(told.len(), 3, "{:?}", imported.left_out);
    }

    #[test]
    fn certificates_stay_where_swanctl_has_them() {
        let text = "connections { gw { remote_addrs = 192.0.2.2\n local { certs = moon.pem }\n remote { cacerts = ca.pem\n \
                    auth = ecdsa-256\n revocation = strict } children { net { } } } }";
        let config = import(text, Path::new("/etc/swanctl")).config;
        for line in [
            "leftauth = \"pubkey\"",
            "leftcert = \"/etc/swanctl/x509/moon.pem\"",
            "rightauth = \"ecdsa-256\"",
            "rightca = \"/etc/swanctl/x509ca/ca.pem\"",
            "revocation = \"strict\"",
            "rightid = \"%any\"",
        ] {
            assert!(config.lines().any(|own| own == line), "`{line}` is not in\n{config}");
        }
    }
}
