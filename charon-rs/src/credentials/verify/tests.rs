//! Each way in which a peer's proof can fail, and those in which it counts.

use ike_proto::config::TrustName;
use ike_proto::identity::Identity;
use pki::hash::HashAlgorithm;
use pki::issue::{Policy as IssuedPolicy, Template};
use pki::key::{Curve, KeyType, PrivateKey};
use pki::path::Authority;
use pki::signature::SignatureScheme;

use super::*;
use crate::credentials::proof::{DIGITAL_SIGNATURE, encode};
use crate::credentials::testing::{Entity, copy, day, key};
use crate::credentials::{Layer, now, rng};

const OCTETS: &[u8] = b"what the peer must have signed";

/// A gateway that trusts `root`, and the peer `sun` below it.
struct World {
    root: Entity,
    demand: Demand,
}

impl World {
    fn new() -> Self {
        Self { root: Entity::root("root"), demand: Demand::default() }
    }

    fn sun(&self) -> Entity {
        self.root.gateway("sun", |_| {})
    }

    fn layer(&self) -> (Layer, TrustName) {
        let mut layer = Layer::default();
        layer.add_authority(self.root.certificate.clone());
        let name = layer.add_demand(self.demand.clone());
        (layer, name)
    }

    /// What becomes of a proof by `peer` that sends `certificates`.
    fn judge(&self, peer: &Entity, certificates: &[&Certificate]) -> Result<String, FailureCode> {
        self.judge_as("sun.example.org", &peer.key, certificates)
    }

    fn judge_as(&self, name: &str, key: &PrivateKey, sent: &[&Certificate]) -> Result<String, FailureCode> {
        let mut request = request(key, sent);
        request.identity = Identity::Fqdn(name.into());
        self.answer(request)
    }

    fn answer(&self, mut request: VerifyRequest) -> Result<String, FailureCode> {
        let (layer, name) = self.layer();
        request.trust = name;
        let mut store = Store::default();
        store.set_file(layer);
        verify(&store, &request, now()).map(|convinced| convinced.evidence).map_err(|refusal| {
            assert!(!refusal.what.is_empty());
            refusal.code
        })
    }
}

fn request(key: &PrivateKey, sent: &[&Certificate]) -> VerifyRequest {
    let scheme = SignatureScheme::natural(key.key_type(), pki::signature::RsaPadding::Pkcs1);
    VerifyRequest {
        connection: "net".into(),
        trust: TrustName(String::new()),
        identity: Identity::Fqdn("sun.example.org".into()),
        octets: OCTETS.to_vec(),
        method: DIGITAL_SIGNATURE,
        data: encode(scheme, &key.sign(scheme, OCTETS, &mut rng()).unwrap()),
        certificates: sent
            .iter()
            .map(|certificate| CertificateData { encoding: X509, data: certificate.der().to_vec() })
            .collect(),
    }
}

#[test]
fn a_certificate_of_a_trusted_ca_counts_and_says_so() {
    let world = World::new();
    let sun = world.sun();
    let evidence = world.judge(&sun, &[&sun.certificate]).unwrap();
    assert_eq!(evidence, "ECDSA with SHA-256, certificate \"CN=sun\", CA \"CN=root\"");
}

/// R7296-3.6-1: chains of four certificates, and of twelve; not without end.
#[test]
fn chains_of_four_and_twelve_certificates_count() {
    let world = World::new();
    let chain = |len: usize| {
        let mut authorities = vec![world.root.authority("ca 1", |_| {})];
        for index in 2..len {
            authorities.push(authorities.last().unwrap().authority(&format!("ca {index}"), |_| {}));
        }
        let sun = authorities.last().unwrap().gateway("sun", |_| {});
        let sent: Vec<&Certificate> =
            std::iter::once(&sun.certificate).chain(authorities.iter().map(|ca| &ca.certificate)).collect();
        world.judge(&sun, &sent)
    };
    assert!(chain(4).is_ok());
    assert!(chain(12).is_ok());
    assert_eq!(chain(15), Err(FailureCode::AuthChainWrong));
}

/// Each failure of a certificate or path once: what is changed about the peer's certificate, and what comes of it.
#[test]
fn each_fault_of_a_certificate_has_its_code() {
    let world = World::new();
    type Change = fn(&mut Template);
    let cases: [(FailureCode, Change); 5] = [
        (FailureCode::AuthCertificateExpired, |template| template.not_after = UnixTime(now().0 - 1)),
        (FailureCode::AuthCertificateNotYetValid, |template| template.not_before = day(1)),
        (FailureCode::AuthKeyUsage, |template| template.purposes = vec![KeyPurpose::OcspSigning]),
        (FailureCode::AuthIdNotInCertificate, |template| template.alternative_names.clear()),
        (FailureCode::AuthCriticalExtension, |template| {
            template.extra = vec![("1.3.6.1.4.1.99999.1".parse().unwrap(), true, vec![5, 0])];
        }),
    ];
    for (code, change) in cases {
        let sun = world.root.gateway("sun", change);
        assert_eq!(world.judge(&sun, &[&sun.certificate]), Err(code));
    }
}

#[test]
fn each_fault_of_the_cas_above_has_its_code() {
    let world = World::new();
    let below = |authority: &Entity| {
        let sun = authority.gateway("sun", |_| {});
        world.judge(&sun, &[&sun.certificate, &authority.certificate])
    };
    assert_eq!(below(&Entity::root("mallory")), Err(FailureCode::AuthNoCa));
    let limited = world.root.authority("limited", |template| template.ca.as_mut().unwrap().path_len = Some(0));
    let deeper = limited.authority("deeper", |_| {});
    let sun = deeper.gateway("sun", |_| {});
    let sent = [&sun.certificate, &deeper.certificate, &limited.certificate];
    assert_eq!(world.judge(&sun, &sent), Err(FailureCode::AuthChainWrong));
    // Another root with the name of ours, and its own key.
    let twin = Entity::root("root").gateway("sun", |_| {});
    assert_eq!(world.judge(&twin, &[&twin.certificate]), Err(FailureCode::AuthChainWrong));
    let alone = Entity::root_with("sun", |template| {
        template.ca = None;
        template.alternative_names = vec!["sun.example.org".parse().unwrap()];
    });
    assert_eq!(world.judge(&alone, &[&alone.certificate]), Err(FailureCode::AuthNoCa));
}

#[test]
fn name_constraints() {
    let world = World::new();
    let constrained = world.root.authority("constrained", |template| {
        let name = pki::certificate::Subtree::Name("example.com".parse().unwrap());
        template.name_constraints.permitted = vec![name];
    });
    let sun = constrained.gateway("sun", |_| {});
    let judged = world.judge(&sun, &[&sun.certificate, &constrained.certificate]);
    assert_eq!(judged, Err(FailureCode::AuthNameConstraints));
}

#[test]
fn the_connection_can_want_policies_a_ca_and_strength() {
    let mut world = World::new();
    let sun = world.root.gateway("sun", |template| {
        let id = "1.3.6.1.4.1.99999.1".parse().unwrap();
        template.policies = vec![IssuedPolicy { id, cps_uri: None, notice: None }];
    });
    let judge = |world: &World| world.judge(&sun, &[&sun.certificate]);
    world.demand.policies = vec!["1.3.6.1.4.1.99999.1".parse().unwrap()];
    assert!(judge(&world).is_ok());
    world.demand.policies = vec!["1.3.6.1.4.1.99999.2".parse().unwrap()];
    assert_eq!(judge(&world), Err(FailureCode::AuthPolicy));
    world.demand = Demand { authorities: vec![Authority::Named("CN=other".parse().unwrap())], ..Demand::default() };
    assert_eq!(judge(&world), Err(FailureCode::AuthCaRefused));
    world.demand.authorities = vec![Authority::Named("CN=root".parse().unwrap())];
    assert!(judge(&world).is_ok());
    for (constraints, wanted) in [
        ("ecdsa-384,ike:ecdsa", Err(FailureCode::AuthKeyTooWeak)),
        ("ecdsa-256-sha384,ike:ecdsa", Err(FailureCode::AuthAlgorithmRefused)),
        ("ike:ecdsa-384", Err(FailureCode::AuthKeyTooWeak)),
        ("ike:pubkey-sha512", Err(FailureCode::AuthAlgorithmRefused)),
        ("ecdsa-256-sha256", Ok(())),
    ] {
        world.demand = Demand { constraints: constraints.parse().unwrap(), ..Demand::default() };
        assert_eq!(judge(&world).map(drop), wanted, "{constraints}");
    }
}

#[test]
fn a_ca_of_the_connection_is_trusted_by_it_alone() {
    let mut world = World::new();
    let other = Entity::root("other");
    let sun = other.gateway("sun", |_| {});
    assert_eq!(world.judge(&sun, &[&sun.certificate]), Err(FailureCode::AuthNoCa));
    world.demand.authorities = vec![Authority::Certificate(Box::new(other.certificate.clone()))];
    assert!(world.judge(&sun, &[&sun.certificate]).is_ok());
    let by_root = world.sun();
    assert_eq!(world.judge(&by_root, &[&by_root.certificate]), Err(FailureCode::AuthCaRefused));
}

/// R4301-4.4.3.2-1, dn_id_short: names that are not in the certificate, and distinguished names that are none.
#[test]
fn the_identity_must_be_a_name_of_the_certificate() {
    let world = World::new();
    let sun = world.sun();
    assert_eq!(world.judge_as("sun", &sun.key, &[&sun.certificate]), Err(FailureCode::AuthIdNotInCertificate));
    for der in [&[][..], &[0x30], &[0x30, 0x80]] {
        let identity = Identity::Dn { der: der.to_vec(), text: String::new() };
        let judged = world.answer(VerifyRequest { identity, ..request(&sun.key, &[&sun.certificate]) });
        assert_eq!(judged, Err(FailureCode::AuthIdNotInCertificate));
    }
    let subject = sun.certificate.subject();
    let identity = Identity::Dn { der: subject.der().to_vec(), text: subject.to_string() };
    assert!(world.answer(VerifyRequest { identity, ..request(&sun.key, &[&sun.certificate]) }).is_ok());
}

/// R7296-1.2-2: a bit flipped in what was signed or in the signature; another key.
#[test]
fn only_the_right_signature_counts() {
    let world = World::new();
    let sun = world.sun();
    let good = request(&sun.key, &[&sun.certificate]);
    let mut octets = good.clone();
    octets.octets[0] ^= 1;
    assert_eq!(world.answer(octets), Err(FailureCode::AuthSignatureWrong));
    let mut data = good.clone();
    *data.data.last_mut().unwrap() ^= 1;
    assert_eq!(world.answer(data), Err(FailureCode::AuthSignatureWrong));
    assert_eq!(world.judge(&world.sun(), &[&sun.certificate]), Err(FailureCode::AuthSignatureWrong));
    let short = VerifyRequest { data: vec![200, 0x30], ..good.clone() };
    assert_eq!(world.answer(short), Err(FailureCode::PeerMisbehaved));
    assert!(world.answer(good).is_ok());
}

/// R7296-1.2-3: the first certificate is the signer's, whatever comes after it.
#[test]
fn the_first_certificate_is_the_signers() {
    let world = World::new();
    let authority = world.root.authority("ca", |_| {});
    let sun = authority.gateway("sun", |_| {});
    assert!(world.judge(&sun, &[&sun.certificate, &authority.certificate]).is_ok());
    assert_eq!(
        world.judge(&sun, &[&authority.certificate, &sun.certificate]),
        Err(FailureCode::AuthIdNotInCertificate)
    );
}

/// asn1_choice_loop: what is no certificate is refused as the signer's and passed over behind it.
#[test]
fn asn1_choice_loop() {
    let world = World::new();
    let sun = world.sun();
    let junk = |data: &[u8]| CertificateData { encoding: X509, data: data.to_vec() };
    let nested = [0x30, 0x80].repeat(1000);
    for data in [&[][..], &[0x30], &[0xa0, 0x80, 0, 0], &nested] {
        let mut first = request(&sun.key, &[&sun.certificate]);
        first.certificates.insert(0, junk(data));
        assert_eq!(world.answer(first), Err(FailureCode::AuthCertificateMalformed));
        let mut behind = request(&sun.key, &[&sun.certificate]);
        behind.certificates.push(junk(data));
        assert!(world.answer(behind).is_ok());
    }
}

/// cert_cache_flood: a thousand CAs with the same name and key identifier cost no more than a few signatures.
#[test]
fn cert_cache_flood() {
    let world = World::new();
    let fake = Entity::root("root");
    let sun = world.sun();
    let flood: Vec<&Certificate> = std::iter::repeat_n(&fake.certificate, 1000).collect();
    let sent: Vec<&Certificate> = std::iter::once(&sun.certificate).chain(flood).collect();
    assert!(world.judge(&sun, &sent).is_ok());
}

#[test]
fn a_certificate_that_is_named_counts_and_no_other() {
    let mut world = World::new();
    let own = Entity::root_with("sun", |template| {
        template.ca = None;
        template.alternative_names = vec!["sun.example.org".parse().unwrap()];
    });
    world.demand.certificates = vec![own.certificate.clone()];
    assert!(world.judge(&own, &[&own.certificate]).is_ok());
    assert!(world.judge(&own, &[]).is_ok(), "the peer need not send it");
    let other = world.sun();
    assert_eq!(world.judge(&other, &[&other.certificate]), Err(FailureCode::AuthCertificateNotPinned));
    assert_eq!(world.judge(&other, &[]), Err(FailureCode::AuthSignatureWrong));
}

#[test]
fn a_peer_without_certificate_must_be_known() {
    let world = World::new();
    assert_eq!(world.judge(&world.sun(), &[]), Err(FailureCode::AuthNoCertificate));
}

#[test]
fn raw_keys_count_where_they_are_named() {
    let mut world = World::new();
    let (ours, other) = (key(KeyType::Ed25519), copy(key(KeyType::Ecdsa(Curve::P256))));
    world.demand.keys = vec![ours.public_key().clone()];
    let sent = |key: &PrivateKey| {
        let data = key.public_key().spki_der().to_vec();
        VerifyRequest { certificates: vec![CertificateData { encoding: RAW_KEY, data }], ..request(key, &[]) }
    };
    assert!(world.answer(sent(ours)).is_ok());
    assert!(world.answer(request(ours, &[])).is_ok(), "the peer need not send it");
    assert_eq!(world.answer(sent(&other)), Err(FailureCode::AuthCertificateNotPinned));
    assert_eq!(world.answer(request(&other, &[])), Err(FailureCode::AuthSignatureWrong));
}

#[test]
fn a_certificate_with_a_key_of_an_unknown_kind_is_refused() {
    let world = World::new();
    let sun = world.sun();
    // The named curve of the key is replaced by one that we do not know.
    let mut der = sun.certificate.der().to_vec();
    let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = der.windows(curve.len()).position(|window| window == curve).unwrap();
    der[at + curve.len() - 1] = 0x7f;
    let mut bad = request(&sun.key, &[]);
    bad.certificates = vec![CertificateData { encoding: X509, data: der }];
    assert_eq!(world.answer(bad), Err(FailureCode::AuthKeyTooWeak));
}

#[test]
fn a_demand_that_a_reload_took_away_is_a_failure_of_ours() {
    let store = Store::default();
    let sun = World::new().sun();
    let refused = verify(&store, &request(&sun.key, &[&sun.certificate]), now()).unwrap_err();
    assert_eq!(refused.code, FailureCode::Local);
}

/// A hash that nobody allows is not accepted because a certificate is fine.
#[test]
fn sha1_signatures_do_not_count() {
    let world = World::new();
    let sun = world.root.issue(copy(key(KeyType::Rsa { bits: 2048 })), "sun", |template| {
        template.alternative_names = vec!["sun.example.org".parse().unwrap()];
    });
    let (method, data) = sun.key.sign_legacy(HashAlgorithm::Sha1, OCTETS, &mut rng()).unwrap();
    let legacy = VerifyRequest { method: method.number(), data, ..request(&sun.key, &[&sun.certificate]) };
    assert_eq!(world.answer(legacy.clone()), Err(FailureCode::AuthAlgorithmRefused));
    let mut allowing = World { root: world.root, demand: Demand::default() };
    allowing.demand.constraints = "pubkey-sha256,ike:rsa-sha1-sha256".parse().unwrap();
    assert!(allowing.answer(legacy).is_ok());
}
