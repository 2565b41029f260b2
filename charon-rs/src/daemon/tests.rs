//! Two daemons in one process with their control sockets, joined by channels in place of dataplane and network.

mod certificates;
pub(crate) mod misconfigured;
pub(crate) mod pair;
mod scale;
mod swanctl;

use std::time::Duration;

use self::pair::{Pair, load_connection, load_secret};
use super::run_to_the_end;
use crate::vici::Message;

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_told_over_the_socket_comes_up_is_listed_and_goes_down() {
    let pair = Pair::start().await;
    let mut moon = pair.moon.client();
    let (answer, log) = pair::initiate(&mut moon, "net");
    assert!(answer.is_yes("success"), "{answer}\n{log:#?}");
    assert!(log.iter().any(|line| line.starts_with("CHILD_SA net{1} established with SPIs ")), "{log:#?}");
    assert!(log.iter().any(|line| line.starts_with("generating IKE_SA_INIT request 0 [ ")), "{log:#?}");
    for daemon in [&pair.moon, &pair.sun] {
        let sas = pair::list(&mut daemon.client(), "list-sa", "list-sas");
        let [(name, sa)] = sas.as_slice() else { panic!("one SA, not {sas:?}") };
        assert_eq!((name.as_str(), sa.text("state")), ("gw", Some("ESTABLISHED")));
        let child = sa.section("child-sas").and_then(|children| children.sections().next()).unwrap().1;
        assert_eq!(child.text("bytes-in"), Some("1000"), "the wire's counters arrive: {child}");
    }
    let mut arguments = Message::new();
    arguments.put("ike", "gw");
    let answer = moon.request("terminate", arguments).unwrap();
    assert_eq!(answer.to_string(), "{success=yes matches=1 terminated=1}");
    assert!(pair::list(&mut moon, "list-sa", "list-sas").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_explained_with_a_code_and_stays_in_the_status() {
    let pair = Pair::start().await;
    load_secret(&mut pair.sun.client(), "another key");
    let mut moon = pair.moon.client();
    let (answer, log) = pair::initiate(&mut moon, "net");
    assert_eq!(answer.text("success"), Some("no"), "{answer}\n{log:#?}");
    let failure = answer.section("failure").unwrap_or_else(|| panic!("no failure in {answer}"));
    assert_eq!(failure.text("code"), Some("AUTH_REFUSED_BY_PEER"), "{failure}");
    let tunnels = pair::list(&mut moon, "list-tunnel", "list-tunnels");
    let (_, tunnel) = tunnels.first().unwrap();
    assert_eq!(tunnel.section("failure").and_then(|failure| failure.text("code")), Some("AUTH_REFUSED_BY_PEER"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_no_connection_fits_is_told_too() {
    let pair = Pair::start().await;
    let mut sun = pair.sun.client();
    assert!(sun.request("unload-conn", Message::new().with("name", "gw")).unwrap().is_yes("success"));
    let arguments = Message::new().with("child", "net").with("timeout", 20_000);
    assert_eq!(pair.moon.client().request("initiate", arguments).unwrap().text("success"), Some("no"));
    let answer = sun.request("list-tunnels", Message::new()).unwrap();
    let refused = answer.section("refused").unwrap_or_else(|| panic!("nobody refused in {answer}"));
    assert_eq!(refused.text("code"), Some("IKE_NO_CONNECTION"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_answers_while_a_peer_is_dead_and_a_second_initiation_gets_the_state() {
    let pair = Pair::start().await;
    pair.cut();
    let waiting = pair.moon.client();
    let first = std::thread::spawn(move || {
        let mut waiting = waiting;
        let arguments = Message::new().with("child", "net").with("timeout", 3000);
        waiting.request("initiate", arguments).unwrap()
    });
    let mut moon = pair.moon.client();
    pair::until(|| !pair::list(&mut moon, "list-sa", "list-sas").is_empty());
    let began = std::time::Instant::now();
    let again = moon.request("initiate", Message::new().with("child", "net")).unwrap();
    assert_eq!((again.text("success"), again.text("state")), (Some("no"), Some("CONNECTING")), "{again}");
    assert!(moon.request("stats", Message::new()).unwrap().section("ikesas").is_some());
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits for the dead peer");
    let joined = Message::new().with("child", "net").with("join", "yes").with("timeout", 100);
    let joined = moon.request("initiate", joined).unwrap();
    assert_eq!(joined.text("errmsg"), Some("CHILD_SA 'net' not established after 100ms, detaching"));
    let first = first.join().unwrap();
    assert_eq!(first.text("errmsg"), Some("CHILD_SA 'net' not established after 3000ms, detaching"));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_export_the_same_keys_and_only_those_of_living_sas() {
    let pair = Pair::start().await;
    let (mut moon, mut sun) = (pair.moon.client(), pair.sun.client());
    assert!(pair::initiate(&mut moon, "net").0.is_yes("success"));
    let keys = |client: &mut crate::vici::Client| client.request("keys", Message::new()).unwrap();
    let (ours, theirs) = (keys(&mut moon), keys(&mut sun));
    assert_eq!(ours.list("ikev2_decryption_table").len(), 1);
    assert_eq!(ours.list("ikev2_decryption_table"), theirs.list("ikev2_decryption_table"));
    let sorted = |message: &Message| {
        let mut lines = message.list("esp_sa");
        lines.sort();
        lines
    };
    assert_eq!(sorted(&ours).len(), 2);
    assert_eq!(sorted(&ours), sorted(&theirs));
    assert!(moon.request("terminate", Message::new().with("ike", "gw")).unwrap().is_yes("success"));
    assert!(keys(&mut moon).list("esp_sa").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rekeying_is_an_event_and_is_counted() {
    let pair = Pair::start().await;
    let (mut moon, mut events) = (pair.moon.client(), pair.moon.client());
    assert!(pair::initiate(&mut moon, "net").0.is_yes("success"));
    events.register("child-rekey").unwrap();
    let answer = moon.request("rekey", Message::new().with("child", "net")).unwrap();
    assert_eq!(answer.to_string(), "{success=yes matches=1}");
    let mut event = None;
    events
        .listen(|_, message| {
            event = Some(message);
            std::ops::ControlFlow::Break(())
        })
        .unwrap();
    let children = event.as_ref().and_then(|event| event.section("gw")).and_then(|sa| sa.section("child-sas")).unwrap();
    let both = children.section("net").unwrap();
    assert_ne!(both.section("old").unwrap().text("spi-in"), both.section("new").unwrap().text("spi-in"));
    let counters = moon.request("get-counters", Message::new()).unwrap();
    let counters = counters.section("counters").and_then(|all| all.section("")).unwrap().clone();
    assert_eq!(counters.text("child-rekey"), Some("1"));
    assert_eq!(counters.text("create-child-out-req"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_child_is_gone_is_told_with_its_last_counters() {
    let pair = Pair::start().await;
    let mut events = pair.moon.client();
    events.register("child-updown").unwrap();
    let mut moon = pair.moon.client();
    assert!(pair::initiate(&mut moon, "net").0.is_yes("success"));
    assert!(moon.request("terminate", Message::new().with("ike", "gw")).unwrap().is_yes("success"));
    let mut counters = Vec::new();
    events
        .listen(|_, message| {
            let children = message.section("gw").and_then(|sa| sa.section("child-sas")).unwrap();
            let child = children.sections().next().unwrap().1;
            counters.push((message.is_yes("up"), child.text("bytes-in").unwrap().to_owned()));
            if message.is_yes("up") { std::ops::ControlFlow::Continue(()) } else { std::ops::ControlFlow::Break(()) }
        })
        .unwrap();
    assert_eq!(counters, [(true, "0".to_owned()), (false, "1000".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_and_options_are_refused_in_strongswans_words() {
    let pair = Pair::start().await;
    let mut moon = pair.moon.client();
    let refused = |client: &mut crate::vici::Client, command: &str, key: &str| {
        let answer = client.request(command, Message::new().with(key, "nope")).unwrap();
        answer.text("errmsg").unwrap_or_default().to_owned()
    };
    assert_eq!(refused(&mut moon, "initiate", "child"), "CHILD_SA config 'nope' not found");
    assert_eq!(refused(&mut moon, "initiate", "ike"), "IKE_SA config 'nope' not found");
    assert_eq!(refused(&mut moon, "terminate", "ike"), "no matching SAs to terminate found");
    assert_eq!(refused(&mut moon, "rekey", "child"), "no matching SAs to rekey found");
    let mut bad = Message::new();
    bad.put_section("x", Message::new().with("nonsense", "y"));
    let answer = moon.request("load-conn", bad).unwrap();
    assert_eq!(answer.to_string(), "{success=no errmsg=unknown option: nonsense, config discarded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unloading_a_connection_takes_its_sas_down() {
    let pair = Pair::start().await;
    let mut moon = pair.moon.client();
    assert!(pair::initiate(&mut moon, "net").0.is_yes("success"));
    // Loading the same again changes nothing.
    load_connection(&mut moon, "moon", "sun");
    assert_eq!(pair::list(&mut moon, "list-sa", "list-sas").len(), 1);
    assert_eq!(moon.request("get-conns", Message::new()).unwrap().list("conns"), ["gw"]);
    assert!(moon.request("unload-conn", Message::new().with("name", "gw")).unwrap().is_yes("success"));
    pair::until(|| pair::list(&mut pair.sun.client(), "list-sa", "list-sas").is_empty());
    assert!(pair::list(&mut moon, "list-conn", "list-conns").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_tells_the_peer_and_ends_the_loop() {
    let pair = Pair::start().await;
    assert!(pair::initiate(&mut pair.moon.client(), "net").0.is_yes("success"));
    let (moon, sun) = (pair.moon, pair.sun);
    moon.shut_down().await;
    pair::until(|| pair::list(&mut sun.client(), "list-sa", "list-sas").is_empty());
}

#[test]
fn what_still_blocks_does_not_hold_the_end_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (done, is_done) = std::sync::mpsc::channel();
    let ending = std::thread::spawn(move || {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let answer = run_to_the_end(runtime, async {
            drop(tokio::task::spawn_blocking(move || {
                begun.send(()).unwrap();
                released.recv()
            }));
            has_begun.await.unwrap();
            7
        });
        done.send(answer).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(7));
    drop(release);
    ending.join().unwrap();
}
