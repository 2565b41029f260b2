//! ipsec.conf and ipsec.secrets in the words of ours, which are nearly the same.

use std::path::Path;

use super::text::Writer;
use super::{Imported, LeftOut};
use crate::config::{Known, known_key};

/// Translates ipsec.conf. Its keys have the same names and meanings here; what differs is how values are written.
pub(super) fn config(text: &str) -> Imported {
    let mut left_out = Vec::new();
    let mut config = Writer::default();
    let sections = sections(text, &mut left_out);
    // Here it belongs to each connection.
    let uniqueness = sections.iter().filter(|section| section.kind == "config").flat_map(|section| &section.entries);
    let uniqueness = uniqueness.filter(|entry| entry.name == "uniqueids").map(|entry| entry.value).next_back();
    if let Some(value) = uniqueness.filter(|_| !sections.iter().any(|section| section.name == "%default")) {
        config.table(&["conn", "%default"]);
        config.string("uniqueids", value);
    }
    for section in &sections {
        match section.kind {
            "conn" => {
                config.table(&["conn", section.name]);
                if let Some(value) = uniqueness.filter(|_| section.name == "%default") {
                    config.string("uniqueids", value);
                }
                for entry in &section.entries {
                    if let Err(why) = key(&mut config, entry) {
                        left_out.push(LeftOut { line: entry.line, why });
                    }
                }
            }
            "config" => {
                left_out.extend(section.entries.iter().filter(|entry| entry.name != "uniqueids").map(|entry| LeftOut {
                    line: entry.line,
                    why: format!("{}: the daemon's own settings are in [daemon]", entry.name),
                }))
            }
            kind => {
                let why = format!("{kind} {}: CAs are the files of the folder `cacerts`", section.name);
                left_out.push(LeftOut { line: section.line, why });
            }
        }
    }
    Imported { config: config.finish(), secrets: String::new(), left_out }
}

struct Section<'a> {
    line: usize,
    kind: &'a str,
    name: &'a str,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    line: usize,
    name: &'a str,
    value: &'a str,
}

/// Sections begin at the left edge, and their keys do not.
fn sections<'a>(text: &'a str, left_out: &mut Vec<LeftOut>) -> Vec<Section<'a>> {
    let mut sections: Vec<Section<'a>> = Vec::new();
    for (line, written) in (1..).zip(text.lines()) {
        let content = without_comment(written);
        if content.trim().is_empty() {
            continue;
        }
        let mut leave_out = |why: String| left_out.push(LeftOut { line, why });
        if !content.starts_with([' ', '\t']) {
            let mut words = content.split_whitespace();
            let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            match kind {
                "conn" | "config" | "ca" => sections.push(Section { line, kind, name, entries: Vec::new() }),
                "version" => {}
                "include" => leave_out(format!("include {name}: import that file as well")),
                _ => leave_out(format!("`{kind}` is no section")),
            }
            continue;
        }
        match (content.split_once('='), sections.last_mut()) {
            (Some((name, value)), Some(section)) => {
                section.entries.push(Entry { line, name: name.trim(), value: unquoted(value.trim()) });
            }
            _ => leave_out(format!("`{}` is no key with a value", content.trim())),
        }
    }
    sections
}

fn without_comment(line: &str) -> &str {
    let mut is_quoted = false;
    let end = line.char_indices().find(|(_, c)| {
        is_quoted ^= *c == '"';
        *c == '#' && !is_quoted
    });
    end.map_or(line, |(at, _)| line.get(..at).unwrap_or(line))
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Writes one key, or says why not.
fn key(config: &mut Writer, entry: &Entry<'_>) -> Result<(), String> {
    let value = entry.value;
    match (entry.name, value) {
        // What is so anyway.
        ("keyexchange", "ike" | "ikev2") | ("compress" | "aggressive", "no") | ("installpolicy", "yes") => {
            return Ok(());
        }
        ("authby", "psk" | "secret") => {
            config.string("leftauth", "psk");
            config.string("rightauth", "psk");
            return Ok(());
        }
        ("authby", "pubkey" | "rsasig" | "ecdsasig") => {
            config.string("leftauth", "pubkey");
            config.string("rightauth", "pubkey");
            return Ok(());
        }
        ("type", "passthrough" | "drop" | "pass") => {
            return Err(format!("type = {value}: write a [policy.NAME] with action = \"bypass\" or \"discard\""));
        }
        ("closeaction", "clear") => {
            config.string("closeaction", "none");
            return Ok(());
        }
        ("also", _) => {
            config.string("also", value);
            return Ok(());
        }
        _ => {}
    }
    match known_key(entry.name) {
        Known::Key { name, takes } => write(config, name, takes, value),
        Known::Foreign(advice) => Err(format!("{}: {advice}", entry.name)),
        Known::No(Some(nearest)) => Err(format!("{}: there is no such key (did you mean {nearest}?)", entry.name)),
        Known::No(None) => Err(format!("{}: there is no such key", entry.name)),
    }
}

/// What a value looks like depends on what the key takes.
fn write(config: &mut Writer, name: &str, takes: &str, value: &str) -> Result<(), String> {
    let is_number = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
    if takes.starts_with("`true` or `false`") {
        let switch = match value {
            "yes" | "true" | "on" | "1" => true,
            "no" | "false" | "off" | "0" => false,
            _ => return Err(format!("{name} = {value}: it is neither yes nor no")),
        };
        config.raw(name, switch);
    } else if takes.starts_with("duration") && is_number {
        config.string(name, format!("{value}s"));
    } else if takes.starts_with("amount of data") && is_number {
        config.string(name, format!("{value}B"));
    } else if is_number && (takes.starts_with("number") || takes.starts_with("port") || takes.starts_with("packets")) {
        config.raw(name, value);
    } else if name == "replay_window" && value == "-1" {
        // The default of either.
    } else {
        config.string(name, value);
    }
    Ok(())
}

/// Translates ipsec.secrets; relative files of keys are in the folder `ipsec.d/private` beside it.
pub(super) fn secrets(text: &str, folder: &Path) -> Imported {
    let mut secrets = Writer::default();
    let mut left_out = Vec::new();
    for (line, written) in (1..).zip(text.lines()) {
        let content = without_comment(written).trim();
        if content.is_empty() {
            continue;
        }
        if let Err(why) = secret(&mut secrets, content, line, folder) {
            left_out.push(LeftOut { line, why });
        }
    }
    Imported { config: String::new(), secrets: secrets.finish(), left_out }
}

fn secret(secrets: &mut Writer, content: &str, line: usize, folder: &Path) -> Result<(), String> {
    if content.starts_with("include") {
        return Err(format!("{content}: import that file as well"));
    }
    // Nothing of a line is repeated: it may be a secret.
    let (owners, what) = match content.split_once(" : ") {
        Some((owners, what)) => (owners, what),
        None => ("", content.strip_prefix(':').ok_or("this is no secret: identities, a colon, and what it is")?),
    };
    let what = what.trim();
    let (kind, rest) = what.split_once([' ', '\t']).unwrap_or((what, ""));
    let (value, passphrase) = first_word(rest.trim());
    let name = format!("line{line}");
    match kind.to_ascii_uppercase().as_str() {
        "PSK" => {
            let owners: Vec<&str> = owners.split_whitespace().map(unquoted).filter(|owner| *owner != "%any").collect();
            secrets.table(&["secret", &name]);
            if !owners.is_empty() {
                secrets.list("for", &owners);
            }
            secrets.string("psk", value);
            Ok(())
        }
        kind @ ("RSA" | "ECDSA" | "PKCS8" | "P12") => {
            secrets.table(&[if kind == "P12" { "pkcs12" } else { "key" }, &name]);
            secrets.string("file", folder.join("ipsec.d/private").join(value).display());
            let passphrase = unquoted(passphrase.trim());
            if !passphrase.is_empty() {
                secrets.string("passphrase", passphrase);
            }
            Ok(())
        }
        kind => Err(format!("secrets of the kind {kind} are not used here")),
    }
}

/// A word, or what stands in quotes, and what follows.
fn first_word(text: &str) -> (&str, &str) {
    match text.strip_prefix('"').and_then(|text| text.split_once('"')) {
        Some(quoted) => quoted,
        None => text.split_once([' ', '\t']).unwrap_or((text, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike_proto::config::{DpdAction, StartAction, Uniqueness};

    const TEXT: &str = "# ipsec.conf\nconfig setup\n  uniqueids = no\n  charondebug = \"ike 2\"\n\nconn %default\n  ikelifetime=60m\n  \
                        keylife=20m\n  keyexchange=ikev2\n  mobike=no\n\nconn net-net\n\tleft=192.0.2.1\n\tleftsubnet=10.1.0.0/16\n\t\
                        leftid=@moon.strongswan.org\n\tright=192.0.2.2\n\trightsubnet=10.2.0.0/16 # there\n\trightid=@sun.strongswan.org\n\t\
                        authby=secret\n\tike=aes128-sha256-modp3072!\n\tesp=aes128gcm16!\n\tdpdaction=restart\n\tdpddelay=10\n\t\
                        leftfirewall=yes\n\tlifebytes=5000000\n\tauto=start\n";

    #[test]
    fn ipsec_conf_is_loaded_as_it_was_meant() {
        let imported = config(TEXT);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ipsec.toml");
        std::fs::write(&file, &imported.config).unwrap();
        let loaded =
            crate::config::load(&file, None).unwrap_or_else(|problems| panic!("{problems}\n{}", imported.config));
        let [connection] = loaded.connections.as_slice() else { panic!("one connection") };
        assert_eq!((connection.name.as_str(), connection.mobike), ("net-net", false));
        assert_eq!(connection.uniqueness, Uniqueness::No);
        assert_eq!(connection.ike_lifetime.expire_after, Some(std::time::Duration::from_secs(3600)));
        assert_eq!(connection.dpd.map(|dpd| dpd.action), Some(DpdAction::Restart));
        let child = &connection.children[0];
        assert_eq!((child.start, child.expire_after_traffic.bytes), (StartAction::Start, Some(5_000_000)));
        let told: Vec<usize> = imported.left_out.iter().map(|left| left.line).collect();
        let line = |needle: &str| TEXT.lines().position(|line| line.contains(needle)).unwrap() + 1;
        assert_eq!(told, [line("charondebug"), line("leftfirewall")], "{:?}", imported.left_out);
    }

    #[test]
    fn keys_that_nobody_knows_are_told_with_the_nearest_one() {
        let mut imported = config("conn a\n  lefsubnet=10.0.0.0/8\n  type=passthrough\n  mark=42\nnonsense\n  x\n");
        imported.left_out.sort();
        imported.left_out.sort();
        let whys: Vec<&str> = imported.left_out.iter().map(|left| left.why.as_str()).collect();
        assert!(whys[0].contains("lefsubnet") && whys[0].contains("leftsubnet"), "{whys:?}");
        assert!(whys[1].contains("[policy.NAME]"), "{whys:?}");
        assert_eq!(whys.len(), 5, "{whys:?}");
    }

    #[test]
    fn ipsec_secrets_become_tables_and_are_never_repeated() {
        let text = "# secrets\n@moon.strongswan.org @sun.strongswan.org : PSK \"a # secret\"\n192.0.2.1 %any : PSK 0sAAEC\n\
                    : RSA moonKey.pem \"pass phrase\"\n: ECDSA key.pem\ncarol : EAP \"topsecret\"\ntopsecret\n";
        let imported = secrets(text, Path::new("/etc"));
        for line in [
            "for = [\"@moon.strongswan.org\", \"@sun.strongswan.org\"]",
            "psk = \"a # secret\"",
            "for = \"192.0.2.1\"",
            "psk = \"0sAAEC\"",
            "file = \"/etc/ipsec.d/private/moonKey.pem\"",
            "passphrase = \"pass phrase\"",
        ] {
            assert!(imported.secrets.lines().any(|own| own == line), "`{line}` is not in\n{}", imported.secrets);
        }
        let told: Vec<usize> = imported.left_out.iter().map(|left| left.line).collect();
        assert_eq!(told, [6, 7]);
        assert!(!format!("{:?}", imported.left_out).contains("topsecret"));
    }
}
