//! Commands against a daemon that runs, with another one as its peer.

use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::{Cli, Command, Error, Outcome, carry_out};
use crate::daemon::tests::pair::{Pair, load_secret};

/// Runs a command line against the daemon at `socket` and gives how it ended and what it printed.
fn charonctl(socket: &Path, arguments: &[&str]) -> (Outcome, String) {
    let cli = Cli::try_parse_from([&["charonctl"], arguments].concat()).unwrap();
    let Command::Other(command) = cli.command else { panic!("not a command for a daemon") };
    let mut out = Vec::new();
    let outcome = carry_out(Some(socket), cli.json, command, &mut out).unwrap();
    (outcome, String::from_utf8(out).unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_goes_up_is_shown_and_goes_down() {
    let pair = Pair::start().await;
    let run = |arguments: &[&str]| charonctl(&pair.moon.socket, arguments);
    assert_eq!(run(&["status", "gw"]).0, Outcome::NotUp);
    let (outcome, shown) = run(&["up", "gw"]);
    assert_eq!(outcome, Outcome::Done, "{shown}");
    assert!(shown.starts_with("[ENC] generating IKE_SA_INIT request 0 ["), "{shown}");
    assert!(shown.ends_with("gw is up\n"), "{shown}");
    let (outcome, shown) = run(&["status", "gw"]);
    assert_eq!(outcome, Outcome::Done, "{shown}");
    assert!(shown.starts_with("gw  UP\n  IKE SA #1  ESTABLISHED  IKEv2, initiator\n"), "{shown}");
    assert!(shown.contains("1.00 kB  10 packets  1s ago  seq 10\n"), "{shown}");
    let (_, table) = run(&["list"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["gw", "UP", "192.0.2.2", "net"], "{table}");
    assert_eq!(run(&["rekey", "gw", "--child", "net"]).1, "net of gw: 1 SA(s) rekeyed\n");
    let (outcome, shown) = run(&["down", "gw"]);
    assert_eq!(outcome, Outcome::Done, "{shown}");
    assert!(shown.ends_with("gw is down\n"), "{shown}");
    assert_eq!(run(&["down", "gw"]), (Outcome::Done, "gw was down already\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_one_json_document_for_each_command() {
    let pair = Pair::start().await;
    let run = |arguments: &[&str]| json(&charonctl(&pair.moon.socket, &[arguments, &["--json"]].concat()).1);
    let up = run(&["up", "gw"]);
    assert_eq!(up["success"], true);
    assert!(up["log"].as_array().is_some_and(|lines| lines.len() > 5), "{up}");
    let status = run(&["status"]);
    let sa = &status["tunnels"]["gw"]["ike-sas"]["1"];
    assert_eq!((&sa["state"], &sa["local-port"]), (&Value::from("ESTABLISHED"), &Value::from(4500)));
    assert_eq!(sa["child-sas"]["net-1"]["bytes-in"], 1000);
    let stats = run(&["stats"])["stats"].take();
    assert_eq!(stats["ikesas"]["total"], 1);
    assert_eq!(stats["crypto"]["aes-gcm"], espdp::CryptoReport::new(espdp_api::CryptoEngine::Auto).aes_gcm);
    assert_eq!(run(&["list"])["tunnels"]["gw"]["state"], "UP");
    assert_eq!(run(&["down", "gw"])["terminated"], 1);
    assert_eq!(run(&["up", "typo"])["errmsg"], "there is no connection or child `typo`");
    assert_eq!(run(&["reload"])["success"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_what_where_and_what_to_do() {
    let pair = Pair::start().await;
    load_secret(&mut pair.sun.client(), "another key");
    let (outcome, shown) = charonctl(&pair.moon.socket, &["up", "gw", "--json"]);
    assert_eq!(outcome, Outcome::Failed);
    let failure = &json(&shown)["failure"];
    assert_eq!(failure["code"], "AUTH_REFUSED_BY_PEER");
    assert!(failure["hint"].is_string(), "{failure}");
    let (_, shown) = charonctl(&pair.sun.socket, &["status"]);
    assert!(shown.contains("AUTH_PSK_MISMATCH"), "{shown}");
    let (_, log) = charonctl(&pair.sun.socket, &["log"]);
    assert!(log.lines().any(|line| line.contains("IKE gw") && line.contains("AUTH_PSK_MISMATCH: ")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_written_for_wireshark() {
    let pair = Pair::start().await;
    assert_eq!(charonctl(&pair.moon.socket, &["up", "gw"]).0, Outcome::Done);
    let folder = tempfile::tempdir().unwrap();
    let (outcome, shown) = charonctl(&pair.moon.socket, &["keys", folder.path().to_str().unwrap()]);
    assert_eq!(outcome, Outcome::Done, "{shown}");
    let table = std::fs::read_to_string(folder.path().join("esp_sa")).unwrap();
    assert_eq!(table.lines().filter(|line| line.starts_with("\"IPv4\",\"192.0.2.")).count(), 2, "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_explained_as_a_story_that_ends_with_the_key_that_decides() {
    let pair = Pair::start().await;
    load_secret(&mut pair.sun.client(), "another key");
    let run = |socket: &Path, arguments: &[&str]| charonctl(socket, arguments);
    let (outcome, shown) = run(&pair.sun.socket, &["explain", "gw"]);
    assert_eq!(outcome, Outcome::NotUp);
    assert!(shown.starts_with("gw is DOWN: no attempt was made, and the peer made none that got here"), "{shown}");
    run(&pair.moon.socket, &["up", "gw"]);
    let (outcome, shown) = run(&pair.sun.socket, &["explain", "net"]);
    assert_eq!(outcome, Outcome::NotUp);
    let first = shown.lines().next().unwrap();
    assert_eq!(first, "gw is DOWN: AUTH_PSK_MISMATCH");
    for said in [
        "the peer began",
        "500 <-- 500  IKE_SA_INIT request 0 [ SA KE No ",
        "proposal IKE:AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE_25519",
        "4500 <-- 4500  IKE_AUTH request 1 [ IDi ",
        "IDi moon.strongswan.org",
        "TSr 10.2.0.0/24",
        "AUTH_PSK_MISMATCH: the proof of `moon.strongswan.org` does not fit our pre-shared key",
        "decides secrets.ike-1",
        "failed 1 time(s) since ",
    ] {
        assert!(shown.contains(said), "`{said}` is not in:\n{shown}");
    }
    let (outcome, overview) = run(&pair.sun.socket, &["explain"]);
    assert_eq!((outcome, overview.lines().count()), (Outcome::Done, 1), "{overview}");
    assert!(overview.starts_with("gw  DOWN  AUTH_PSK_MISMATCH: "), "{overview}");
    let told = json(&run(&pair.moon.socket, &["explain", "gw", "--json"]).1);
    let gw = &told["connections"]["gw"];
    assert_eq!(gw["failure"]["code"], "AUTH_REFUSED_BY_PEER");
    assert_eq!(gw["story"]["steps"]["1"]["sent"], "yes");
    assert_eq!(run(&pair.moon.socket, &["explain", "gww"]).0, Outcome::Failed);
}

#[test]
fn without_a_daemon_the_error_says_where_and_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nobody");
    let cli = Cli::try_parse_from(["charonctl", "list"]).unwrap();
    let Command::Other(command) = cli.command else { panic!("not a command for a daemon") };
    let error = carry_out(Some(&socket), false, command, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::NotThere { .. }));
    let text = error.to_string();
    assert!(text.contains(socket.to_str().unwrap()) && text.contains("systemctl start charon-rs"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_shows_ike_in_plain_text_and_says_how_it_went() {
    let pair = Pair::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ike.pcapng");
    let run = |arguments: &[&str]| charonctl(&pair.moon.socket, arguments);
    assert!(run(&["capture", "show"]).1.starts_with("no packets were captured"));
    let refused = json(&run(&["capture", "start", file.to_str().unwrap(), "--connection", "typo", "--json"]).1);
    assert_eq!(refused["errmsg"], "there is no connection and no policy `typo`; there are: gw");
    let start = ["capture", "start", file.to_str().unwrap(), "--connection", "gw"];
    assert_eq!(run(&start).0, Outcome::Done);
    let refused = json(&run(&[&start[..], &["--json"]].concat()).1);
    assert!(refused["errmsg"].as_str().unwrap().contains("runs already"), "{refused}");
    assert_eq!(run(&["up", "gw"]).0, Outcome::Done);
    assert!(run(&["capture", "show"]).1.contains("ike.pcapng  running\n  inner, outer, ike-plain of gw"));
    let (_, stopped) = run(&["capture", "stop"]);
    assert!(stopped.contains("ended\n") && stopped.contains("  4 packet(s), "), "{stopped}");
    assert_eq!(run(&["capture", "stop"]).0, Outcome::Failed);
    let octets = std::fs::read(&file).unwrap();
    // An identity, which is encrypted on the wire.
    assert!(octets.windows(19).any(|octets| octets == b"moon.strongswan.org"));
    let explained = |file: &Path| run(&["explain", "--pcap", file.to_str().unwrap()]).1;
    let story = explained(&file);
    assert!(story.contains("IKE_AUTH request 1 [ IDi "), "without keys: {story}");
    // An older capture makes way. With all viewpoints each message is there twice, and told once.
    assert_eq!(run(&["down", "gw"]).0, Outcome::Done);
    assert_eq!(run(&["capture", "start", file.to_str().unwrap()]).0, Outcome::Done);
    assert_eq!(run(&["up", "gw"]).0, Outcome::Done);
    assert_eq!(run(&["capture", "stop"]).0, Outcome::Done);
    let story = explained(&file);
    assert_eq!(story.matches("IKE_SA_INIT request").count(), 1, "{story}");
    assert!(story.contains("IKE_AUTH request 1 [ IDi "), "without keys: {story}");
}
