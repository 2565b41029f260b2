//! Pairs of gateways with a mistake in a file or on the way: `explain` names the cause and the key that decides, on both ends
//! where both can know, and what it says to paste makes the tunnel come up.

mod addresses;
mod authentication;
mod certificates;
mod network;
mod proposals;
mod selectors;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use self::Who::{Moon, Sun};
use super::pair::{Pair, Running};
use crate::vici::{Client, Message};

/// One of the two gateways; moon initiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Moon,
    Sun,
}

/// A change of the good configuration: whose, which key of `[conn.gw]`, and its value as TOML; an empty one takes the key away.
pub(crate) type Edit = (Who, &'static str, &'static str);

/// What somebody's `explain` must say: the code, and the key that decides with its table or without; none when nothing in the
/// configuration does.
pub(crate) type Said = (Who, &'static str, &'static str);

/// A mistake.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) edits: &'static [Edit],
    pub(crate) said: &'static [Said],
    /// Whose advice, pasted, makes the tunnel come up.
    pub(crate) cured_by: Option<Who>,
}

/// What is done with two gateways.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Moon brings the tunnel up.
    Up,
    /// Moon brings it up, which works, and rekeys the child.
    Rekey,
}

/// Tries each mistake of a table.
async fn try_all(rows: &[Row]) {
    for row in rows {
        let pair = Pair::bare();
        let fails = attempt(&pair, row, Act::Up);
        assert!(fails, "{}: the tunnel is up", row.what);
        check(&pair, row);
    }
}

/// Loads the files, which must be good, and does it. Gives whether it failed.
pub(crate) fn attempt(pair: &Pair, row: &Row, act: Act) -> bool {
    for (who, daemon) in [(Moon, &pair.moon), (Sun, &pair.sun)] {
        write_files(daemon, &config(who, row.edits), &secrets(who, row.edits));
        let answer = reload(daemon);
        assert!(answer.is_yes("success"), "{}: {answer}", row.what);
    }
    act_on(&pair.moon, act)
}

fn act_on(moon: &Running, act: Act) -> bool {
    let mut client = moon.client();
    let up = client.request("initiate", Message::new().with("ike", "gw").with("child", "gw").with("timeout", 20_000));
    let failed = !up.unwrap().is_yes("success");
    if act == Act::Up {
        return failed;
    }
    assert!(!failed, "it must be up to be rekeyed");
    !client.request("rekey", Message::new().with("child", "gw")).unwrap().is_yes("success")
}

/// Whether both say what they must, and whether the cure is one.
fn check(pair: &Pair, row: &Row) {
    for (who, code, key) in row.said {
        let daemon = if *who == Moon { &pair.moon } else { &pair.sun };
        let found =
            verdict(daemon).unwrap_or_else(|said| panic!("{}: {who:?} has no failure but says {said}", row.what));
        assert_eq!(found.text("code"), Some(*code), "{} at {who:?}: {found}", row.what);
        let decides = found.text("key").unwrap_or_default();
        assert!(decides == *key || decides.starts_with(&format!("{key} of ")), "{} at {who:?}: {found}", row.what);
        assert!(found.text("hint").is_some_and(|hint| !hint.is_empty()), "{}: no way out in {found}", row.what);
    }
    let Some(doctor) = row.cured_by else { return };
    let daemon = if doctor == Moon { &pair.moon } else { &pair.sun };
    let found = verdict(daemon).unwrap();
    paste(daemon, &found);
    let answer = reload(daemon);
    assert!(answer.is_yes("success"), "{}: what was pasted does not load: {answer}\n{found}", row.what);
    let failed = act_on(&pair.moon, Act::Up);
    assert!(
        !failed,
        "{}: the cure is none: {found}\n{:?}",
        row.what,
        verdict(&pair.moon).map(|section| section.to_string())
    );
}

/// Why `gw` is not up, or what is said instead of a failure. Where no connection is for the peer, that is told of the peer.
fn verdict(daemon: &Running) -> Result<Message, String> {
    let mut explained = Vec::new();
    let answer = daemon
        .client()
        .stream("explain", "explain", Message::new(), |event| {
            explained.extend(event.sections().map(|(_, section)| section.clone()));
        })
        .unwrap();
    let own = explained.iter().find_map(|section| section.section("failure"));
    let strangers = answer.section("strangers").and_then(|all| all.sections().next());
    let stranger = strangers.and_then(|(_, stranger)| stranger.section("failure"));
    own.or(stranger).cloned().ok_or_else(|| format!("{explained:?} {answer}"))
}

/// Does what an engineer does with the lines to paste.
fn paste(daemon: &Running, verdict: &Message) {
    let (at, edit) = (verdict.text("edit-at").unwrap_or_default(), verdict.list("edit"));
    assert!(!edit.is_empty(), "nothing to paste: {verdict}");
    let file = at.split_whitespace().last().unwrap();
    let (path, line) = match file.rsplit_once(':') {
        Some((path, line)) => (path, line.parse::<usize>().unwrap()),
        None => (file, usize::MAX),
    };
    assert!(path.starts_with(daemon.folder.path().to_str().unwrap()), "{at}");
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let place = line.min(lines.len());
    let replaced = if at.starts_with("in place of") { place - 1..place } else { place..place };
    lines.splice(replaced, edit.iter().map(String::as_str));
    // A secret to paste needs the key that only people know.
    fs::write(path, lines.join("\n").replace("the key that the peer has", PSK)).unwrap();
}

fn reload(daemon: &Running) -> Message {
    daemon.client().request("reload", Message::new()).unwrap()
}

fn write_files(daemon: &Running, config: &str, secrets: &str) {
    fs::write(daemon.folder.path().join("ipsec.toml"), config).unwrap();
    let path = daemon.folder.path().join("ipsec.secrets.toml");
    fs::write(&path, secrets).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The good configuration of one gateway with its mistakes.
fn config(who: Who, edits: &[Edit]) -> String {
    let (own, peer, ours, theirs) = if who == Moon { ("moon", "sun", 1, 2) } else { ("sun", "moon", 2, 1) };
    let mut keys: Vec<(String, String)> = [
        ("left", format!("\"192.0.2.{ours}\"")),
        ("leftid", format!("\"{own}.example.org\"")),
        ("leftsubnet", format!("\"10.{ours}.0.0/24\"")),
        ("right", format!("\"192.0.2.{theirs}\"")),
        ("rightid", format!("\"{peer}.example.org\"")),
        ("rightsubnet", format!("\"10.{theirs}.0.0/24\"")),
        ("ike", "\"aes256gcm16-prfsha256-x25519\"".to_owned()),
        ("esp", "\"aes256gcm16\"".to_owned()),
        ("auto", "\"add\"".to_owned()),
        ("retransmit_timeout", "\"100ms\"".to_owned()),
        ("retransmit_tries", "1".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for (_, key, value) in edits.iter().filter(|(whose, key, _)| *whose == who && !key.starts_with("psk")) {
        keys.retain(|(known, _)| known != key);
        if !value.is_empty() {
            keys.push(((*key).to_owned(), (*value).to_owned()));
        }
    }
    let lines: Vec<String> = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    format!("# the gateway {own}\n\n[conn.gw]\n{}", lines.concat())
}

/// The secrets of one gateway; the key `psk` of an edit is the whole file.
fn secrets(who: Who, edits: &[Edit]) -> String {
    let own =
        edits.iter().find(|(whose, key, _)| *whose == who && *key == "psk").map(|(_, _, value)| (*value).to_owned());
    own.unwrap_or_else(|| {
        format!("# secrets\n[secret.site]\nfor = [\"moon.example.org\", \"sun.example.org\"]\npsk = \"{PSK}\"\n")
    })
}

const PSK: &str = "correct horse battery staple";

#[tokio::test(flavor = "multi_thread")]
async fn the_good_configuration_is_good() {
    let row = Row { what: "nothing", edits: &[], said: &[], cured_by: None };
    let pair = Pair::bare();
    assert!(!attempt(&pair, &row, Act::Rekey), "{:?}", verdict(&pair.moon).map(|section| section.to_string()));
}
