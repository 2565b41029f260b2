//! Desks that ask about certificates, and the servers that they ask.

use std::path::PathBuf;
use std::process::Command;

use ike_proto::config::TrustName;
use ike_proto::identity::Identity;
use ike_proto::io::{Answer, AskId, CertificateData, CertificateRequest, FailureCode, SignRequest, VerifyRequest};
use pki::certificate::SerialNumber;
use pki::issue::{CrlPoint, CrlTemplate, RevokedCertificate, Template};
use pki::revocation::{Policy, Reason};
use pki::signature::{RsaPadding, SignatureScheme};
use tokio::sync::mpsc;

use super::*;
use crate::credentials::demand::{Demand, Signer};
use crate::credentials::testing::{Entity, Web, day};
use crate::credentials::{Desk, Layer};

/// A desk that trusts `root`, and a web server.
struct World {
    desk: Desk,
    answers: mpsc::UnboundedReceiver<(AskId, Answer)>,
    root: Entity,
    web: Web,
    trust: TrustName,
    layer: Layer,
}

impl World {
    async fn new(policy: Policy) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let root = Entity::root("root");
        let mut layer = Layer::default();
        layer.add_authority(root.certificate.clone());
        let trust = layer.add_demand(Demand { revocation: policy, ..Demand::default() });
        let mut world = Self { desk: Desk::new(sender), answers, root, web: Web::start().await, trust, layer };
        world.reload();
        world
    }

    fn reload(&mut self) {
        self.desk.store_mut().set_file(self.layer.clone());
    }

    /// A gateway whose certificate names `path` of the web server as the place of its CRL.
    fn gateway(&self, path: &str) -> Entity {
        self.root.gateway("sun", |template| template.crl_points = vec![self.point(path)])
    }

    fn point(&self, path: &str) -> CrlPoint {
        CrlPoint { uri: self.web.uri(path), issuer: None }
    }

    /// Hands the proof of a peer to the desk.
    fn submit(&self, id: u64, peer: &Entity, more: &[CertificateData]) {
        let scheme = SignatureScheme::natural(peer.key.key_type(), RsaPadding::Pkcs1);
        let signature = peer.key.sign(scheme, b"octets", &mut rng()).unwrap();
        let mut certificates = vec![CertificateData { encoding: 4, data: peer.certificate.der().to_vec() }];
        certificates.extend_from_slice(more);
        let request = VerifyRequest {
            connection: "net".into(),
            trust: self.trust.clone(),
            identity: Identity::Fqdn("sun.example.org".into()),
            octets: b"octets".to_vec(),
            method: 14,
            data: crate::credentials::proof::encode(scheme, &signature),
            certificates,
        };
        self.desk.verify(AskId(id), Box::new(request));
    }

    async fn answer(&mut self) -> (u64, Result<(), FailureCode>) {
        match self.answers.recv().await.unwrap() {
            (id, Answer::Verified(result)) => (id.0, result.map(drop).map_err(|refusal| refusal.code)),
            (_, other) => panic!("{other:?}"),
        }
    }

    async fn judge(&mut self, peer: &Entity) -> Result<(), FailureCode> {
        self.submit(1, peer, &[]);
        self.answer().await.1
    }
}

/// A CRL of `issuer` with these certificates revoked.
fn crl(issuer: &Entity, number: u8, revoked: &[&Entity], change: impl FnOnce(&mut CrlTemplate)) -> Vec<u8> {
    let entry = |entity: &&Entity| RevokedCertificate {
        serial: entity.certificate.serial().clone(),
        time: day(-1),
        reason: Reason::KeyCompromise,
    };
    let mut template = CrlTemplate {
        number: SerialNumber::positive(&[number]).unwrap(),
        this_update: day(-1),
        next_update: day(1),
        revoked: revoked.iter().map(entry).collect(),
        base_number: None,
        freshest: Vec::new(),
    };
    change(&mut template);
    issuer.issuer().sign_crl(&template, &mut rng()).unwrap().der().to_vec()
}

#[tokio::test]
async fn the_three_policies_differ_in_doubt_only() {
    for (policy, without_uri, dead_uri) in [
        (Policy::Strict, Err(FailureCode::AuthCrlUnavailable), Err(FailureCode::AuthCrlUnavailable)),
        (Policy::IfUri, Ok(()), Err(FailureCode::AuthCrlUnavailable)),
        (Policy::Relaxed, Ok(()), Ok(())),
    ] {
        let mut world = World::new(policy).await;
        let bare = world.root.gateway("sun", |_| {});
        assert_eq!(world.judge(&bare).await, without_uri, "{policy:?}");
        let dead = world.gateway("/nothing");
        assert_eq!(world.judge(&dead).await, dead_uri, "{policy:?}");
        let revoked = world.gateway("/crl");
        world.web.put("/crl", 200, &crl(&world.root, 1, &[&revoked], |_| {}));
        assert_eq!(world.judge(&revoked).await, Err(FailureCode::AuthCertificateRevoked), "{policy:?}");
        world.desk.flush();
        world.web.put("/crl", 200, &crl(&world.root, 2, &[], |_| {}));
        assert_eq!(world.judge(&revoked).await, Ok(()), "{policy:?}");
    }
}

#[tokio::test]
async fn a_crl_is_fetched_once_while_it_holds() {
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/crl");
    world.web.put("/crl", 200, &crl(&world.root, 1, &[], |_| {}));
    for _ in 0..3 {
        assert_eq!(world.judge(&sun).await, Ok(()));
    }
    assert_eq!(world.web.asked("/crl"), 1);
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while() {
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/nothing");
    for _ in 0..3 {
        assert_eq!(world.judge(&sun).await, Err(FailureCode::AuthCrlUnavailable));
    }
    assert_eq!(world.web.asked("/nothing"), 1);
}

#[tokio::test]
async fn peers_that_come_at_once_wait_for_one_fetch() {
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/crl");
    world.web.put("/crl", 200, &crl(&world.root, 1, &[], |_| {}));
    for id in 0..8 {
        world.submit(id, &sun, &[]);
    }
    for _ in 0..8 {
        assert_eq!(world.answer().await.1, Ok(()));
    }
    assert_eq!(world.web.asked("/crl"), 1);
}

/// A slow server delays only those who need it.
#[tokio::test]
async fn a_server_that_never_answers_keeps_nobody_else_waiting() {
    let mut world = World::new(Policy::Strict).await;
    let limits = FetchLimits { time: Duration::from_secs(2), ..FetchLimits::default() };
    world.desk.set_fetching(limits, None);
    world.web.put_silent("/silent");
    let (stuck, sun) = (world.gateway("/silent"), world.gateway("/crl"));
    world.web.put("/crl", 200, &crl(&world.root, 1, &[], |_| {}));
    world.submit(1, &stuck, &[]);
    world.web.until_asked("/silent", 1).await;
    world.submit(2, &sun, &[]);
    assert_eq!(world.answer().await, (2, Ok(())));
    assert_eq!(world.answer().await, (1, Err(FailureCode::AuthCrlUnavailable)));
}

/// untrusted_cdp (CVE-2022-40617): nothing is fetched for a certificate before everything else about the proof is right.
#[tokio::test]
async fn untrusted_cdp() {
    let mut world = World::new(Policy::Strict).await;
    world.web.put("/crl", 200, b"");
    let point = world.point("/crl");
    let mallory = Entity::root("mallory").gateway("sun", |template| template.crl_points = vec![point.clone()]);
    assert_eq!(world.judge(&mallory).await, Err(FailureCode::AuthNoCa));
    let expired = world.root.gateway("sun", |template| {
        template.crl_points = vec![point.clone()];
        (template.not_before, template.not_after) = (day(-3), day(-2));
    });
    assert_eq!(world.judge(&expired).await, Err(FailureCode::AuthCertificateExpired));
    let thief = Entity { key: Entity::root("other").key, certificate: world.gateway("/crl").certificate };
    assert_eq!(world.judge(&thief).await, Err(FailureCode::AuthSignatureWrong));
    assert_eq!(world.web.asked("/crl"), 0);
}

#[tokio::test]
async fn what_is_no_crl_of_the_right_ca_does_not_count() {
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/crl");
    let twin = Entity::root("root");
    let stranger = Entity::root("stranger");
    for wrong in [
        b"<html>not found</html>".to_vec(),
        Vec::new(),
        crl(&twin, 1, &[], |_| {}),
        crl(&stranger, 1, &[], |_| {}),
        sun.certificate.der().to_vec(),
    ] {
        world.web.put("/crl", 200, &wrong);
        assert_eq!(world.judge(&sun).await, Err(FailureCode::AuthCrlUnavailable));
        world.desk.flush();
    }
}

#[tokio::test]
async fn a_crl_larger_than_the_limit_is_not_taken() {
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/crl");
    let list = crl(&world.root, 1, &[], |_| {});
    world.web.put("/crl", 200, &list);
    let limits = FetchLimits { crl: list.len() - 1, ..FetchLimits::default() };
    world.desk.set_fetching(limits, None);
    assert_eq!(world.judge(&sun).await, Err(FailureCode::AuthCrlUnavailable));
    world.desk.set_fetching(FetchLimits { crl: list.len(), ..limits }, None);
    assert_eq!(world.judge(&sun).await, Ok(()));
}

#[tokio::test]
async fn crls_that_are_out_of_date_are_no_proof_but_still_revoke() {
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/crl");
    let old = |template: &mut CrlTemplate| (template.this_update, template.next_update) = (day(-3), day(-2));
    world.web.put("/crl", 200, &crl(&world.root, 1, &[], old));
    assert_eq!(world.judge(&sun).await, Err(FailureCode::AuthCrlStale));
    world.desk.flush();
    world.web.put("/crl", 200, &crl(&world.root, 1, &[&sun], old));
    assert_eq!(world.judge(&sun).await, Err(FailureCode::AuthCertificateRevoked));
}

#[tokio::test]
async fn delta_crls_are_fetched_and_applied() {
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/crl");
    let freshest = vec![world.point("/delta")];
    world.web.put("/crl", 200, &crl(&world.root, 1, &[], |template| template.freshest = freshest));
    let delta = |template: &mut CrlTemplate| template.base_number = SerialNumber::positive(&[1]);
    world.web.put("/delta", 200, &crl(&world.root, 2, &[&sun], delta));
    assert_eq!(world.judge(&sun).await, Err(FailureCode::AuthCertificateRevoked));
}

#[tokio::test]
async fn crls_of_files_and_of_the_peer_make_fetching_needless() {
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/crl");
    let list = crl(&world.root, 1, &[], |_| {});
    world.submit(1, &sun, &[CertificateData { encoding: 7, data: list.clone() }]);
    assert_eq!(world.answer().await.1, Ok(()));
    world.layer.crls = vec![Arc::new(Crl::from_der(&list).unwrap())];
    world.reload();
    assert_eq!(world.judge(&sun).await, Ok(()));
    assert_eq!(world.web.asked("/crl"), 0);
}

#[tokio::test]
async fn cas_between_are_asked_about_as_well() {
    let mut world = World::new(Policy::Strict).await;
    let point = world.point("/root.crl");
    let ca = world.root.authority("ca", |template: &mut Template| template.crl_points = vec![point]);
    let point = world.point("/ca.crl");
    let sun = ca.gateway("sun", |template| template.crl_points = vec![point]);
    world.web.put("/ca.crl", 200, &crl(&ca, 1, &[], |_| {}));
    world.web.put("/root.crl", 200, &crl(&world.root, 1, &[&ca], |_| {}));
    world.submit(1, &sun, &[CertificateData { encoding: 4, data: ca.certificate.der().to_vec() }]);
    assert_eq!(world.answer().await.1, Err(FailureCode::AuthCertificateRevoked));
}

#[tokio::test]
async fn a_restart_finds_crls_on_disk_unless_somebody_changed_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(Policy::Strict).await;
    let sun = world.gateway("/crl");
    world.web.put("/crl", 200, &crl(&world.root, 1, &[], |_| {}));
    for _ in 0..2 {
        world.desk.set_fetching(FetchLimits::default(), Some(folder.path()));
        assert_eq!(world.judge(&sun).await, Ok(()));
    }
    assert_eq!(world.web.asked("/crl"), 1);
    let kept: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    std::fs::write(kept, crl(&Entity::root("root"), 1, &[], |_| {})).unwrap();
    world.desk.set_fetching(FetchLimits::default(), Some(folder.path()));
    assert_eq!(world.judge(&sun).await, Ok(()));
    assert_eq!(world.web.asked("/crl"), 2, "what is on disk is checked");
}

#[tokio::test]
async fn an_authority_can_tell_where_to_ask() {
    let mut world = World::new(Policy::IfUri).await;
    let sun = world.root.gateway("sun", |_| {});
    assert_eq!(world.judge(&sun).await, Ok(()));
    let (authority, crl_uris) = (world.root.certificate.clone(), vec![world.web.uri("/crl")]);
    world.layer.places.insert("root".into(), crate::credentials::Places { authority, crl_uris, ocsp_uris: Vec::new() });
    world.reload();
    world.web.put("/crl", 200, &crl(&world.root, 1, &[&sun], |_| {}));
    assert_eq!(world.judge(&sun).await, Err(FailureCode::AuthCertificateRevoked));
}

/// Whether OpenSSL is there; in CI it must be.
fn openssl() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok();
    assert!(there || std::env::var("CI").as_deref() != Ok("true"), "this test needs openssl (Debian: openssl)");
    there
}

/// Answers as OpenSSL's responder does; `revoked` is the state of all certificates.
fn responder(root: &Entity, peer: &Entity, revoked: bool) -> impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
    write("ca.pem", &root.certificate.to_pem());
    write("ca.key", &root.key.to_pem(pki::key::KeyFormat::Pkcs8));
    let serial = peer.certificate.serial().to_string().replace(':', "").to_uppercase();
    let state = if revoked { "R\t300101000000Z\t240101000000Z" } else { "V\t300101000000Z\t" };
    write("index.txt", &format!("{state}\t{serial}\tunknown\t/CN=sun\n"));
    move |request| {
        std::fs::write(folder.path().join("request"), request).unwrap();
        let arguments =
            "ocsp -index index.txt -rsigner ca.pem -rkey ca.key -CA ca.pem -ndays 1 -reqin request -respout response";
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        std::fs::read(folder.path().join("response")).unwrap()
    }
}

#[tokio::test]
async fn ocsp_responders_are_asked_before_crls_are_fetched() {
    if !openssl() {
        return;
    }
    for (revoked, wanted) in [(false, Ok(())), (true, Err(FailureCode::AuthCertificateRevoked))] {
        let mut world = World::new(Policy::Strict).await;
        let (uri, point) = (world.web.uri("/ocsp"), world.point("/crl"));
        let sun =
            world.root.gateway("sun", |template| (template.ocsp_uris, template.crl_points) = (vec![uri], vec![point]));
        world.web.put_computed("/ocsp", responder(&world.root, &sun, revoked));
        for _ in 0..2 {
            assert_eq!(world.judge(&sun).await, wanted);
        }
        assert_eq!((world.web.asked("/ocsp"), world.web.asked("/crl")), (1, 0));
    }
}

/// RFC 4806: a response that the peer sends along makes asking needless; one about another certificate does not.
#[tokio::test]
async fn ocsp_responses_inside_of_ike_count() {
    if !openssl() {
        return;
    }
    let mut world = World::new(Policy::Strict).await;
    let uri = world.web.uri("/ocsp");
    let (sun, mars) =
        (world.root.gateway("sun", |template| template.ocsp_uris = vec![uri]), world.root.gateway("mars", |_| {}));
    let response = |peer: &Entity| {
        let request = ocsp::Request::new(&peer.certificate, &world.root.certificate, None).to_der().unwrap();
        responder(&world.root, peer, false)(&request)
    };
    let (own, other) = (response(&sun), response(&mars));
    world.submit(1, &sun, &[CertificateData { encoding: 14, data: other }]);
    assert_eq!(world.answer().await.1, Err(FailureCode::AuthCrlUnavailable));
    assert_eq!(world.web.asked("/ocsp"), 1);
    world.submit(1, &sun, &[CertificateData { encoding: 14, data: own }]);
    assert_eq!(world.answer().await.1, Ok(()));
    assert_eq!(world.web.asked("/ocsp"), 1);
}

/// RFC 4806: peers that ask get what the responder says about our certificate, and no others.
#[tokio::test]
async fn our_own_ocsp_response_goes_to_peers_that_ask() {
    if !openssl() {
        return;
    }
    let mut world = World::new(Policy::Relaxed).await;
    let uri = world.web.uri("/ocsp");
    let own = world.root.gateway("moon", |template| template.ocsp_uris = vec![uri]);
    world.web.put_computed("/ocsp", responder(&world.root, &own, false));
    world.layer.add_key(own.key_copy());
    let signer = Signer { certificates: vec![own.certificate.clone()], ..Signer::default() };
    let credential = world.layer.add_signer(signer);
    world.reload();
    for (encodings, wanted) in [(&[4, 14][..], &[4, 14][..]), (&[4], &[4])] {
        let request = |encoding: &u8| CertificateRequest { encoding: *encoding, authorities: Vec::new() };
        let request = SignRequest {
            credential: credential.clone(),
            identity: Identity::Fqdn("moon.example.org".into()),
            octets: b"octets".to_vec(),
            peer_hashes: Some(vec![2]),
            requested: encodings.iter().map(request).collect(),
            with_certificates: true,
        };
        world.desk.sign(AskId(1), Box::new(request));
        let Some((_, Answer::Signed(Ok(signed)))) = world.answers.recv().await else { panic!("it is signed") };
        let sent: Vec<u8> = signed.certificates.iter().map(|certificate| certificate.encoding).collect();
        assert_eq!(sent, wanted);
    }
}
