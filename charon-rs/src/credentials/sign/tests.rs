//! What we sign with, how, and what goes along.

use ike_proto::config::CredentialName;
use ike_proto::identity::Identity;
use pki::key::{Curve, PrivateKey};

use super::*;
use crate::credentials::Layer;
use crate::credentials::proof::Proof;
use crate::credentials::testing::{Entity, copy, key};
use crate::credentials::{demand::Demand, now};

const SHA2: [u16; 3] = [2, 3, 4];
const IDENTITY: u16 = 5;

/// A store with some entities, and what signs with them.
struct Desk {
    store: Store,
    name: CredentialName,
}

impl Desk {
    fn new(own: &[&Entity], above: &[&Entity], schemes: &str) -> Self {
        let mut layer = Layer::default();
        for entity in own {
            layer.add_key(entity.key_copy());
        }
        for entity in above {
            if entity.certificate.is_self_issued() {
                layer.add_authority(entity.certificate.clone());
            } else {
                layer.add_certificate(entity.certificate.clone());
            }
        }
        let certificates = own.iter().map(|entity| entity.certificate.clone()).collect();
        let name = layer.add_signer(Signer { certificates, raw: None, schemes: schemes.parse().unwrap() });
        let mut store = Store::default();
        store.set_file(layer);
        Self { store, name }
    }

    fn request(&self, hashes: Option<&[u16]>) -> SignRequest {
        SignRequest {
            credential: self.name.clone(),
            identity: Identity::Fqdn("moon.example.org".into()),
            octets: b"octets".to_vec(),
            peer_hashes: hashes.map(<[u16]>::to_vec),
            requested: Vec::new(),
            with_certificates: true,
        }
    }

    fn sign(&self, hashes: Option<&[u16]>) -> Result<Signed, FailureCode> {
        self.answer(&self.request(hashes))
    }

    fn answer(&self, request: &SignRequest) -> Result<Signed, FailureCode> {
        sign(&self.store, request, now()).map(|proof| proof.signed).map_err(|refusal| refusal.code)
    }
}

fn scheme_of(signed: &Signed, key: &PrivateKey) -> String {
    let proof = Proof::read(signed.method, &signed.data).unwrap();
    proof.check(key.public_key(), b"octets", &Demand::default().constraints.signature).unwrap()
}

fn entity(root: &Entity, key_type: KeyType) -> Entity {
    root.issue(copy(key(key_type)), "moon", |_| {})
}

/// R7427-4-1: with a hash that the peer listed; R8420-2-1: Ed25519 only for peers that listed Identity.
#[test]
fn the_scheme_is_one_that_the_peer_takes() {
    let root = Entity::root("root");
    let (rsa, p384) = (entity(&root, KeyType::Rsa { bits: 2048 }), entity(&root, KeyType::Ecdsa(Curve::P384)));
    let ed25519 = entity(&root, KeyType::Ed25519);
    for (entity, hashes, wanted) in [
        (&rsa, &SHA2[..], Ok("RSA with SHA-256")),
        (&rsa, &[4][..], Ok("RSA with SHA-512")),
        (&rsa, &[1][..], Err(FailureCode::AuthNoCommonHash)),
        (&rsa, &[][..], Err(FailureCode::AuthNoCommonHash)),
        (&p384, &SHA2[..], Ok("ECDSA with SHA-384")),
        (&p384, &[2][..], Ok("ECDSA with SHA-256")),
        (&ed25519, &[IDENTITY][..], Ok("ED25519")),
        (&ed25519, &SHA2[..], Err(FailureCode::AuthNoCommonHash)),
    ] {
        let signed = Desk::new(&[entity], &[], "pubkey").sign(Some(hashes));
        let scheme = signed.map(|signed| {
            assert_eq!(signed.method, DIGITAL_SIGNATURE, "R7427-3-1");
            scheme_of(&signed, &entity.key)
        });
        assert_eq!(scheme.as_deref().map_err(|code| *code), wanted, "{hashes:?}");
    }
}

#[test]
fn the_configuration_can_ask_for_pss_and_for_hashes() {
    let rsa = entity(&Entity::root("root"), KeyType::Rsa { bits: 2048 });
    for (schemes, wanted) in [
        ("rsa/pss", "RSA-PSS with SHA-256"),
        ("rsa-sha512", "RSA with SHA-512"),
        ("rsa/pss-sha384", "RSA-PSS with SHA-384"),
    ] {
        let signed = Desk::new(&[&rsa], &[], schemes).sign(Some(&SHA2)).unwrap();
        assert_eq!(scheme_of(&signed, &rsa.key), wanted);
    }
    assert_eq!(Desk::new(&[&rsa], &[], "rsa-sha512").sign(Some(&[2])).unwrap_err(), FailureCode::AuthNoCommonHash);
}

#[test]
fn old_peers_get_the_method_of_the_key_and_sha1_only_if_that_is_allowed() {
    let root = Entity::root("root");
    for (curve, method) in [(Curve::P256, 9), (Curve::P384, 10), (Curve::P521, 11)] {
        let own = entity(&root, KeyType::Ecdsa(curve));
        assert_eq!(Desk::new(&[&own], &[], "pubkey").sign(None).unwrap().method, method);
    }
    let rsa = entity(&root, KeyType::Rsa { bits: 2048 });
    assert_eq!(Desk::new(&[&rsa], &[], "pubkey").sign(None).unwrap_err(), FailureCode::AuthNoCommonHash);
    assert_eq!(Desk::new(&[&rsa], &[], "rsa-sha1-sha256").sign(None).unwrap().method, 1);
    let ed25519 = entity(&root, KeyType::Ed25519);
    assert_eq!(Desk::new(&[&ed25519], &[], "pubkey").sign(None).unwrap_err(), FailureCode::AuthNoCommonHash);
}

/// R7296-1.2-3 and R7296-3.6-1: ours first, then the CAs above it, three of them here; the root stays at home.
#[test]
fn the_chain_goes_along_without_the_root() {
    let root = Entity::root("root");
    let first = root.authority("first", |_| {});
    let second = first.authority("second", |_| {});
    let third = second.authority("third", |_| {});
    let moon = third.gateway("moon", |_| {});
    let desk = Desk::new(&[&moon], &[&root, &first, &third, &second], "pubkey");
    let sent = desk.sign(Some(&SHA2)).unwrap().certificates;
    let wanted: Vec<_> = [&moon, &third, &second, &first]
        .map(|entity| CertificateData { encoding: X509, data: entity.certificate.der().to_vec() })
        .into();
    assert_eq!(sent, wanted);
    let without = SignRequest { with_certificates: false, ..desk.request(Some(&SHA2)) };
    assert!(desk.answer(&without).unwrap().certificates.is_empty());
}

#[test]
fn of_several_certificates_the_one_is_used_whose_ca_the_peer_asks_for() {
    let (alpha, beta) = (Entity::root("alpha"), Entity::root("beta"));
    let (by_alpha, by_beta) = (alpha.gateway("moon", |_| {}), beta.gateway("moon", |_| {}));
    let desk = Desk::new(&[&by_alpha, &by_beta], &[&alpha, &beta], "pubkey");
    let asked = |roots: &[&Entity]| {
        let authorities = roots.iter().flat_map(|root| root.certificate.spki_id().0).collect();
        let requested = vec![CertificateRequest { encoding: X509, authorities }];
        let signed = desk.answer(&SignRequest { requested, ..desk.request(Some(&SHA2)) }).unwrap();
        signed.certificates.first().unwrap().data.clone()
    };
    assert_eq!(asked(&[&beta]), by_beta.certificate.der());
    assert_eq!(asked(&[&alpha]), by_alpha.certificate.der());
    assert_eq!(asked(&[&Entity::root("gamma")]), by_alpha.certificate.der(), "better than nothing");
}

#[test]
fn without_a_named_certificate_the_one_with_our_identity_is_used() {
    let root = Entity::root("root");
    let (moon, sun) = (root.gateway("moon", |_| {}), root.gateway("sun", |_| {}));
    let mut layer = Layer::default();
    for entity in [&sun, &moon] {
        layer.add_key(entity.key_copy());
        layer.add_certificate(entity.certificate.clone());
    }
    let name = layer.add_signer(Signer::default());
    let mut store = Store::default();
    store.set_file(layer);
    let desk = Desk { store, name };
    assert_eq!(desk.sign(Some(&SHA2)).unwrap().certificates.first().unwrap().data, moon.certificate.der());
    let stranger = SignRequest { identity: Identity::Fqdn("mars".into()), ..desk.request(Some(&SHA2)) };
    assert_eq!(desk.answer(&stranger).unwrap_err(), FailureCode::AuthNoPrivateKey);
}

#[test]
fn a_raw_key_is_sent_to_those_who_ask() {
    let key = key(KeyType::Ed25519);
    let mut layer = Layer::default();
    layer.add_key(copy(key));
    let name = layer.add_signer(Signer { raw: Some(key.public_key().clone()), ..Signer::default() });
    let mut store = Store::default();
    store.set_file(layer);
    let desk = Desk { store, name };
    assert!(desk.sign(Some(&[IDENTITY])).unwrap().certificates.is_empty());
    let requested = vec![CertificateRequest { encoding: RAW_KEY, authorities: Vec::new() }];
    let request = SignRequest { requested, ..desk.request(Some(&[IDENTITY])) };
    let sent = desk.answer(&request).unwrap().certificates;
    assert_eq!(sent, [CertificateData { encoding: RAW_KEY, data: key.public_key().spki_der().to_vec() }]);
}

#[test]
fn a_credential_that_a_reload_took_away_is_a_failure_of_ours() {
    let moon = Entity::root("root").gateway("moon", |_| {});
    let mut desk = Desk::new(&[&moon], &[], "pubkey");
    desk.store.set_file(Layer::default());
    assert_eq!(desk.sign(Some(&SHA2)).unwrap_err(), FailureCode::Local);
}
