//! Many SAs in one daemon.

use std::time::Instant;

use super::pair::{Pair, list};
use crate::vici::{Client, Message};

/// Octets of a page on the machines that this runs on.
const PAGE: u64 = 4096;

/// SAs that the test sets up, unless `SAS` says how many.
const SAS: u32 = 150;

/// With many SAs everything is listed, and whoever asks for something else meanwhile gets it. How long things take is
/// printed: `SAS=10000 cargo test --release -p charon-rs --lib many_sas -- --nocapture`.
#[tokio::test(flavor = "multi_thread")]
async fn many_sas_are_listed_whole_while_others_are_served() {
    let count = std::env::var("SAS").map_or(SAS, |text| text.parse().expect("SAS is a number"));
    let pair = Pair::start().await;
    let (mut moon, mut sun) = (pair.moon.client(), pair.sun.client());
    load(&mut sun, "all", auth(Some("sun")), auth(None), ["10.2.0.0/24", "10.128.0.0/9"]);
    for daemon in [&mut moon, &mut sun] {
        let secret = Message::new().with("id", "all").with("type", "IKE").with("data", "a key for all");
        assert!(daemon.request("load-shared", secret).unwrap().is_yes("success"));
    }
    for number in 0..count {
        let [_, high, middle, low] = (number << 2).to_be_bytes();
        let own = format!("10.{}.{middle}.{low}/30", 128 + high);
        load(&mut moon, &name(number), auth(Some(&name(number))), auth(Some("sun")), [&own, "10.2.0.0/24"]);
    }
    let before = resident_octets();
    let began = Instant::now();
    (0..count).for_each(|number| bring_up(&mut moon, number));
    let each = began.elapsed() / count;
    let octets = resident_octets().saturating_sub(before) / u64::from(count);
    println!("{count} SAs: {each:?} to set each up over VICI, both ends in this process, {octets} octets for each");

    for (who, client, event_first) in [("initiator", &mut moon, true), ("responder", &mut sun, false)] {
        let mut other = if event_first { pair.moon.client() } else { pair.sun.client() };
        let began = Instant::now();
        let mut listed = 0;
        let stream = client.stream("list-sa", "list-sas", Message::new(), |_| {
            listed += 1;
            if listed == 1 {
                let began = Instant::now();
                let stats = other.request("stats", Message::new()).unwrap();
                println!("{who}: stats in the midst of list-sas take {:?}", began.elapsed());
                let total = stats.section("ikesas").and_then(|sas| sas.text("total").map(str::to_owned));
                assert_eq!(total, Some(count.to_string()));
            }
        });
        stream.unwrap();
        assert_eq!(listed, count);
        println!("{who}: list-sas takes {:?}", began.elapsed());
    }
    let last = Message::new().with("ike", name(count - 1));
    for command in ["rekey", "terminate"] {
        let began = Instant::now();
        let answer = moon.request(command, last.clone()).unwrap();
        assert!(answer.is_yes("success"), "{answer}");
        println!("{command} of one takes {:?}", began.elapsed());
    }
    let began = Instant::now();
    bring_up(&mut moon, count - 1);
    println!("initiate of one takes {:?}", began.elapsed());
    let listed = list(&mut moon, "list-sa", "list-sas").len();
    assert_eq!(listed, usize::try_from(count).unwrap());
    for (who, client) in [("initiator", &mut moon), ("responder", &mut sun)] {
        let stats = client.request("stats", Message::new()).unwrap();
        let turn = stats.section("event-loop").and_then(|turns| turns.text("longest-turn-us"));
        println!("{who}: the longest turn of the loop took {} µs", turn.unwrap_or("unknown"));
    }
}

fn name(number: u32) -> String {
    format!("site-{number}")
}

fn auth(name: Option<&str>) -> Message {
    let id = name.map_or("%any".to_owned(), |name| format!("{name}.strongswan.org"));
    Message::new().with("auth", "psk").with("id", id)
}

/// Loads a connection with anybody at the other end of the wire.
fn load(client: &mut Client, name: &str, local: Message, remote: Message, [own, peers]: [&str; 2]) {
    let mut child = Message::new();
    child.put_list("local_ts", [own]);
    child.put_list("remote_ts", [peers]);
    child.put_list("esp_proposals", ["aes256gcm16-noesn"]);
    let mut section = Message::new();
    section.put_list("remote_addrs", [if name == "all" { "%any" } else { "192.0.2.2" }]);
    section.put_list("proposals", ["aes256gcm16-prfsha256-x25519"]);
    section.put_section("local", local);
    section.put_section("remote", remote);
    section.put_section("children", Message::new().with_section("net", child));
    let answer = client.request("load-conn", Message::new().with_section(name, section)).unwrap();
    assert!(answer.is_yes("success"), "{answer}");
}

fn bring_up(client: &mut Client, number: u32) {
    let arguments = Message::new().with("ike", name(number)).with("child", "net").with("timeout", 20_000);
    let answer = client.request("initiate", arguments).unwrap();
    assert!(answer.is_yes("success"), "{answer}");
}

/// Octets of this process that are in memory.
fn resident_octets() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * PAGE
}
