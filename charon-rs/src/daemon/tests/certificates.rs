//! Two daemons that authenticate each other by certificates, told over the socket as swanctl tells it.

use pki::issue::Template;
use pki::key::{Curve, KeyFormat, KeyType};

use super::pair::{self, Pair, Running, load_rounds, load_secret};
use crate::credentials::testing::{Entity, copy, day, key};
use crate::vici::{Client, Message};

/// A message with octets.
fn with_octets(mut message: Message, name: &str, octets: &[u8]) -> Message {
    message.put_octets(name, octets.to_vec());
    message
}

fn with_list(mut message: Message, name: &str, octets: &[u8]) -> Message {
    message.put_octets_list(name, vec![octets.to_vec()]);
    message
}

fn must(client: &mut Client, command: &str, message: Message) -> Message {
    let answer = client.request(command, message).unwrap();
    assert!(answer.is_yes("success"), "{command}: {answer}");
    answer
}

/// Brings a key and the CA to a daemon.
fn load_credentials(daemon: &Running, own: &Entity, ca: &Entity) {
    let mut client = daemon.client();
    let der = own.key.to_der(KeyFormat::Pkcs8);
    must(&mut client, "load-key", with_octets(Message::new().with("type", "any"), "data", &der));
    let authority = Message::new().with("type", "X509").with("flag", "CA");
    must(&mut client, "load-cert", with_octets(authority, "data", ca.certificate.der()));
}

fn local(own: &Entity, name: &str) -> Message {
    with_list(
        Message::new().with("auth", "pubkey").with("id", format!("{name}.example.org")),
        "certs",
        own.certificate.der(),
    )
}

fn remote(name: &str) -> Message {
    Message::new().with("auth", "pubkey").with("id", format!("{name}.example.org"))
}

/// Two daemons with certificates of one CA; `change` changes sun's.
async fn with_certificates(key_type: KeyType, change: impl FnOnce(&mut Template)) -> Pair {
    let pair = Pair::start().await;
    let root = Entity::root("root");
    let name = |name: &str| vec![format!("{name}.example.org").parse().unwrap()];
    let moon = root.issue(copy(key(key_type)), "moon", |template| template.alternative_names = name("moon"));
    let sun = root.gateway("sun", change);
    load_credentials(&pair.moon, &moon, &root);
    load_credentials(&pair.sun, &sun, &root);
    let rounds = |own: &Entity, name: &str, peer: &str| [("local", local(own, name)), ("remote", remote(peer))];
    load_rounds(&mut pair.moon.client(), "moon", "sun", rounds(&moon, "moon", "sun"));
    load_rounds(&mut pair.sun.client(), "sun", "moon", rounds(&sun, "sun", "moon"));
    pair
}

/// The code of the failure that a daemon shows for its connection.
fn failure(daemon: &Running) -> Option<String> {
    let tunnels = pair::list(&mut daemon.client(), "list-tunnel", "list-tunnels");
    tunnels.first()?.1.section("failure")?.text("code").map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_come_up_with_each_kind_of_key() {
    for key_type in [KeyType::Rsa { bits: 2048 }, KeyType::Ecdsa(Curve::P384), KeyType::Ed25519] {
        let pair = with_certificates(key_type, |_| {}).await;
        let (answer, log) = pair::initiate(&mut pair.moon.client(), "net");
        assert!(answer.is_yes("success"), "{key_type}: {answer}\n{log:#?}");
        let sas = pair::list(&mut pair.sun.client(), "list-sa", "list-sas");
        assert_eq!(sas.first().unwrap().1.text("remote-id"), Some("moon.example.org"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_count_is_refused_with_its_code() {
    let expired = |template: &mut Template| (template.not_before, template.not_after) = (day(-3), day(-2));
    let pair = with_certificates(KeyType::Ed25519, expired).await;
    let (answer, _) = pair::initiate(&mut pair.moon.client(), "net");
    assert_eq!(answer.text("success"), Some("no"));
    assert_eq!(failure(&pair.moon).as_deref(), Some("AUTH_CERT_EXPIRED"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_can_use_a_certificate_and_the_other_a_secret() {
    let pair = Pair::start().await;
    let root = Entity::root("root");
    let moon = root.gateway("moon", |_| {});
    load_credentials(&pair.moon, &moon, &root);
    load_credentials(&pair.sun, &Entity::root("sun"), &root);
    let psk = |name: &str| Message::new().with("auth", "psk").with("id", format!("{name}.strongswan.org"));
    load_rounds(&mut pair.moon.client(), "moon", "sun", [("local", local(&moon, "moon")), ("remote", psk("sun"))]);
    load_rounds(&mut pair.sun.client(), "sun", "moon", [("local", psk("sun")), ("remote", remote("moon"))]);
    for daemon in [&pair.moon, &pair.sun] {
        let mut secret = Message::new().with("id", "ike-2").with("type", "IKE").with("data", "mixed");
        secret.put_list("owners", ["moon.example.org", "sun.strongswan.org"]);
        must(&mut daemon.client(), "load-shared", secret);
    }
    let (answer, log) = pair::initiate(&mut pair.moon.client(), "net");
    assert!(answer.is_yes("success"), "{answer}\n{log:#?}");
}

/// RFC 4739: a certificate first, a secret in the second round.
#[tokio::test(flavor = "multi_thread")]
async fn rounds_follow_each_other() {
    let pair = Pair::start().await;
    let root = Entity::root("root");
    let (moon, sun) = (root.gateway("moon", |_| {}), root.gateway("sun", |_| {}));
    load_credentials(&pair.moon, &moon, &root);
    load_credentials(&pair.sun, &sun, &root);
    let second =
        |name: &str| Message::new().with("round", 2).with("auth", "psk").with("id", format!("{name}.strongswan.org"));
    let rounds = |own: &Entity, name: &str, peer: &str| {
        [
            ("local-1", local(own, name).with("round", 1)),
            ("local-2", second(name)),
            ("remote-1", remote(peer).with("round", 1)),
            ("remote-2", second(peer)),
        ]
    };
    load_rounds(&mut pair.moon.client(), "moon", "sun", rounds(&moon, "moon", "sun"));
    load_rounds(&mut pair.sun.client(), "sun", "moon", rounds(&sun, "sun", "moon"));
    let (answer, log) = pair::initiate(&mut pair.moon.client(), "net");
    assert!(answer.is_yes("success"), "{answer}\n{log:#?}");
    load_secret(&mut pair.sun.client(), "another key");
    must(&mut pair.moon.client(), "terminate", Message::new().with("ike", "gw"));
    let (answer, _) = pair::initiate(&mut pair.moon.client(), "net");
    assert_eq!(answer.text("success"), Some("no"), "the second round counts as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_listed_and_taken_back() {
    let pair = with_certificates(KeyType::Ed25519, |_| {}).await;
    let mut client = pair.moon.client();
    let keys = client.request("get-keys", Message::new()).unwrap().list("keys");
    let [id] = keys.as_slice() else { panic!("one key, not {keys:?}") };
    assert_eq!(*id, key(KeyType::Ed25519).public_key().key_id().to_string().replace(':', ""));
    let mut listed = Vec::new();
    client.stream("list-cert", "list-certs", Message::new(), |event| listed.push(event.clone())).unwrap();
    assert_eq!(listed.iter().map(|event| event.text("flag")).collect::<Vec<_>>(), [Some("CA")]);
    must(&mut client, "unload-key", Message::new().with("id", id));
    assert_eq!(
        client.request("unload-key", Message::new().with("id", id)).unwrap().text("errmsg"),
        Some("key not found")
    );
    let (answer, _) = pair::initiate(&mut pair.moon.client(), "net");
    assert_eq!(answer.text("success"), Some("no"));
    assert_eq!(failure(&pair.moon).as_deref(), Some("AUTH_NO_PRIVATE_KEY"), "{answer}");
    must(&mut client, "clear-creds", Message::new());
    listed.clear();
    client.stream("list-cert", "list-certs", Message::new(), |event| listed.push(event.clone())).unwrap();
    assert!(listed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_have_names_and_places() {
    let pair = Pair::start().await;
    let mut client = pair.moon.client();
    let root = Entity::root("root");
    let mut section = with_octets(Message::new(), "cacert", root.certificate.to_pem().as_bytes());
    section.put_list("crl_uris", ["http://ca.example.org/root.crl"]);
    must(&mut client, "load-authority", Message::new().with_section("home", section));
    assert_eq!(client.request("get-authorities", Message::new()).unwrap().list("authorities"), ["home"]);
    let listed = pair::list(&mut client, "list-authority", "list-authorities");
    let (name, section) = listed.first().unwrap();
    assert_eq!((name.as_str(), section.text("cacert")), ("home", Some("CN=root")));
    assert_eq!(section.list("crl_uris"), ["http://ca.example.org/root.crl"]);
    must(&mut client, "unload-authority", Message::new().with("name", "home"));
    assert!(pair::list(&mut client, "list-authority", "list-authorities").is_empty());
    let junk = Message::new().with_section("home", with_octets(Message::new(), "cacert", b"junk"));
    let answer = client.request("load-authority", junk).unwrap();
    assert!(answer.text("errmsg").is_some_and(|why| why.ends_with("authority 'home' discarded")), "{answer}");
    must(&mut client, "flush-certs", Message::new());
}
