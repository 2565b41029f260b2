//! Pairs with strongSwan that do not agree: `charonctl explain` names the cause and the key that decides, whoever begins. Needs
//! root and strongSwan.

use anyhow::{Context, Result, ensure};
use harness::Site;
use interop::{Case, LIMIT, Pair};
use serde_json::Value;

/// Who brings the tunnel up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Initiator {
    Ours,
    Theirs,
}

use Initiator::{Ours, Theirs};

/// A disagreement, and what `explain` says of it.
struct Row {
    what: &'static str,
    ours: Case<'static>,
    theirs: Case<'static>,
    /// For each initiator the code, and the key that decides.
    said: &'static [(Initiator, &'static str, &'static str)],
}

fn good() -> Case<'static> {
    Case { our_lines: "retransmit_tries = 1", ..Case::default() }
}

fn rows() -> Vec<Row> {
    let elsewhere = Site { net4: "10.9.0.0/16", net6: "fec9::/64", ..Site::MOON };
    vec![
        Row {
            what: "other proposals for IKE",
            ours: Case { ike: "aes128-sha256-ecp256", ..good() },
            theirs: good(),
            said: &[(Ours, "IKE_NO_PROPOSAL", "ike"), (Theirs, "IKE_NO_PROPOSAL", "ike")],
        },
        Row {
            what: "another key exchange group",
            ours: Case { ike: "aes256gcm16-prfsha384-modp2048", ..good() },
            theirs: good(),
            said: &[(Ours, "IKE_NO_PROPOSAL", "ike"), (Theirs, "IKE_NO_PROPOSAL", "ike")],
        },
        Row {
            what: "other proposals for ESP",
            ours: Case { esp: "aes128-sha256", ..good() },
            theirs: good(),
            said: &[(Ours, "CHILD_NO_PROPOSAL", "esp"), (Theirs, "CHILD_NO_PROPOSAL", "esp")],
        },
        Row {
            what: "extended sequence numbers on one side",
            ours: Case { esp: "aes256gcm16-esn", ..good() },
            theirs: Case { esp: "aes256gcm16-noesn", ..good() },
            said: &[(Ours, "CHILD_NO_PROPOSAL", "esp"), (Theirs, "CHILD_NO_PROPOSAL", "esp")],
        },
        Row {
            what: "another network on our side",
            ours: Case { ours: elsewhere, ..good() },
            theirs: good(),
            said: &[(Ours, "TS_UNACCEPTABLE", "rightsubnet"), (Theirs, "TS_UNACCEPTABLE", "leftsubnet")],
        },
        Row {
            what: "another pre-shared key",
            ours: Case { our_psk: "wrong", ..good() },
            theirs: good(),
            said: &[(Ours, "AUTH_REFUSED_BY_PEER", "psk"), (Theirs, "AUTH_PSK_MISMATCH", "psk")],
        },
        Row {
            what: "strongSwan wants a certificate of us",
            ours: good(),
            theirs: Case { their_remote: "auth = pubkey", ..good() },
            said: &[(Ours, "AUTH_REFUSED_BY_PEER", "psk")],
        },
        Row {
            what: "strongSwan expects us elsewhere",
            ours: good(),
            theirs: Case { seen_as: Some("203.0.113.99"), ..good() },
            said: &[(Ours, "IKE_NO_PROPOSAL", "ike")],
        },
        Row {
            what: "no Child SA with IKE_AUTH here, never without there",
            ours: Case { our_lines: "childless = \"force\"", ..good() },
            theirs: Case { their_connection: "childless = never", ..good() },
            said: &[(Ours, "CHILDLESS_REFUSED", "childless")],
        },
    ]
}

/// What `explain` says of the failure of our connection, once it knows of it.
fn failure(pair: &Pair) -> Result<Value> {
    let mut found = None;
    harness::wait_until(LIMIT, "a failure to explain", || {
        let said = pair.ours.ctl(&["explain", "net", "--json"])?;
        let told: Value = serde_json::from_str(&said.stdout).with_context(|| said.stdout.clone())?;
        found = told.pointer("/connections/net/failure").cloned();
        Ok(found.is_some())
    })?;
    found.context("it was there")
}

fn check(what: &str, failure: &Value, code: &str, key: &str) -> Result<()> {
    let decides = failure.get("key").and_then(Value::as_str).unwrap_or_default();
    ensure!(failure.get("code").and_then(Value::as_str) == Some(code), "{what}: {failure}");
    ensure!(decides.starts_with(&format!("{key} of ")), "{what}: {failure}");
    ensure!(failure.get("place").is_some(), "{what}: no line of a file in {failure}");
    Ok(())
}

#[test]
fn what_strongswan_and_we_do_not_agree_on_is_named_whoever_begins() -> Result<()> {
    for row in rows() {
        for (initiator, code, key) in row.said {
            let pair = Pair::unlike(row.ours, row.theirs)?;
            let came_up = match initiator {
                Ours => pair.ours.ctl(&["up", "net"])?.success,
                Theirs => pair.theirs.try_swanctl(&["--initiate", "--child", "net"])?.status.success(),
            };
            ensure!(!came_up, "{}: it is up", row.what);
            let what = format!("{}, {initiator:?} began", row.what);
            check(&what, &failure(&pair).with_context(|| what.clone())?, code, key)?;
        }
    }
    Ok(())
}

#[test]
fn a_group_for_children_on_our_side_only_is_named_when_strongswan_refuses_to_rekey() -> Result<()> {
    let pair = Pair::unlike(Case { esp: "aes256gcm16-ecp384", ..good() }, good())?;
    pair.up_from_ours()?;
    ensure!(!pair.ours.ctl(&["rekey", "net", "--child", "net"])?.success, "strongSwan rekeyed it");
    check("PFS", &failure(&pair)?, "CHILD_NO_PROPOSAL", "esp")
}

#[test]
fn a_peer_that_is_not_there_is_named_with_its_address_and_port() -> Result<()> {
    let pair = Pair::unlike(good(), good())?;
    let Pair { ours, theirs, world, folder } = pair;
    theirs.kill()?;
    ensure!(!ours.ctl(&["up", "net"])?.success, "nobody is there");
    let told = ours.ctl(&["explain", "net"])?.stdout;
    for wanted in ["PEER_SILENT", "UDP port 500", Site::SUN.outer4, "again 1 time(s)", "right of [conn.net]"] {
        ensure!(told.contains(wanted), "`{wanted}` is not in:\n{told}");
    }
    drop((ours, world, folder));
    Ok(())
}
