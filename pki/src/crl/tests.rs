use super::*;
use crate::certificate::{Reasons, oid};
use crate::issue::{CaTemplate, CrlPoint, CrlTemplate, Issuer, RevokedCertificate, Template};
use crate::revocation::Status;
use crate::signature::{RsaPadding, SignatureScheme};
use crate::test_support::{Entity, NOW, key, rng};

fn number(value: u8) -> SerialNumber {
    SerialNumber(vec![value])
}

fn template(revoked: &[(&Entity, Reason)]) -> CrlTemplate {
    CrlTemplate {
        number: number(5),
        this_update: UnixTime(NOW.0 - 100),
        next_update: UnixTime(NOW.0 + 100),
        revoked: revoked
            .iter()
            .map(|(entity, reason)| RevokedCertificate {
                serial: entity.certificate.serial().clone(),
                time: UnixTime(NOW.0 - 500),
                reason: *reason,
            })
            .collect(),
        base_number: None,
        freshest: Vec::new(),
    }
}

fn signed(ca: &Entity, template: &CrlTemplate) -> Crl {
    let scheme = SignatureScheme::natural(ca.key.key_type(), RsaPadding::Pkcs1);
    Issuer::of_crls(&ca.certificate, &ca.key, scheme).unwrap().sign_crl(template, &mut rng(1)).unwrap()
}

fn verified(ca: &Entity, template: &CrlTemplate) -> VerifiedCrl {
    signed(ca, template).verify(&ca.certificate, &Strength::default()).unwrap()
}

/// A CRL with other extensions than ours are made with, signed again.
fn with_extensions(ca: &Entity, crl: &Crl, extensions: &[(ObjectIdentifier, bool, Vec<u8>)]) -> Crl {
    use der::Encode;
    let mut content =
        x509_cert::crl::TbsCertList::<x509_cert::certificate::Rfc5280>::from_der(&crl.signed.content).unwrap();
    content.crl_extensions.get_or_insert_default().extend(extensions.iter().map(|(id, critical, value)| Extension {
        extn_id: *id,
        critical: *critical,
        extn_value: der::asn1::OctetString::new(value.as_slice()).unwrap(),
    }));
    let scheme = crl.signature_scheme().unwrap();
    let signature = ca.key.sign(scheme, &content.to_der().unwrap(), &mut rng(1)).unwrap();
    let list = x509_cert::crl::CertificateList {
        signature_algorithm: content.signature.clone(),
        tbs_cert_list: content,
        signature: der::asn1::BitString::from_bytes(&signature).unwrap(),
    };
    Crl::from_der(&list.to_der().unwrap()).unwrap()
}

fn ca() -> Entity {
    Entity::root("ca", |_| {})
}

const REVOKED: Status = Status::Revoked { reason: Reason::KeyCompromise, time: UnixTime(NOW.0 - 500) };

#[test]
fn a_crl_says_who_is_revoked() {
    let ca = ca();
    let (moon, sun) = (ca.end_entity("moon", |_| {}), ca.end_entity("sun", |_| {}));
    let crl = signed(&ca, &template(&[(&moon, Reason::KeyCompromise)]));
    assert_eq!(crl.entries().count(), 1);
    assert_eq!(Crl::load(crl.to_pem().as_bytes()).unwrap().der(), crl.der());
    let crls = [crl.verify(&ca.certificate, &Strength::default()).unwrap()];
    assert_eq!(status(&moon.certificate, &crls, NOW), REVOKED);
    assert_eq!(status(&sun.certificate, &crls, NOW), Status::Good);
    assert_eq!(status(&sun.certificate, &[], NOW), Status::Unknown);
    let other = Entity::root("other", |_| {}).end_entity("moon", |_| {});
    assert_eq!(other.certificate.serial(), moon.certificate.serial());
    assert_eq!(status(&other.certificate, &crls, NOW), Status::Unknown, "the same number of another CA");
}

#[test]
fn a_crl_out_of_its_time_shows_nobody_to_be_good() {
    let ca = ca();
    let (moon, sun) = (ca.end_entity("moon", |_| {}), ca.end_entity("sun", |_| {}));
    let crls = [verified(&ca, &template(&[(&moon, Reason::KeyCompromise)]))];
    let later = UnixTime(NOW.0 + 101);
    assert_eq!(status(&sun.certificate, &crls, later), Status::Stale { next_update: UnixTime(NOW.0 + 100) });
    assert_eq!(status(&moon.certificate, &crls, later), REVOKED);
    assert_eq!(status(&moon.certificate, &crls, UnixTime(NOW.0 - 101)), Status::Unknown, "not yet made");
}

#[test]
fn of_two_crls_the_newer_one_counts() {
    let ca = ca();
    let moon = ca.end_entity("moon", |_| {});
    let old = verified(&ca, &CrlTemplate { this_update: UnixTime(NOW.0 - 90), ..template(&[]) });
    let new = verified(&ca, &CrlTemplate { this_update: NOW, ..template(&[(&moon, Reason::KeyCompromise)]) });
    for crls in [[old.clone(), new.clone()], [new, old]] {
        assert_eq!(status(&moon.certificate, &crls, NOW), REVOKED);
    }
}

#[test]
fn only_the_issuer_signs_crls() {
    let ca = ca();
    let crl = signed(&ca, &template(&[]));
    let verify = |crl: &Crl, by: &Entity| crl.clone().verify(&by.certificate, &Strength::default()).map(|_| ());
    assert_eq!(verify(&crl, &ca), Ok(()));
    let other = Entity::root("other", |_| {});
    let error = CrlError::Issuer { has: "CN=ca".into(), wanted: "CN=other".into() };
    assert_eq!(verify(&crl, &other), Err(error));
    let same_name = Entity { certificate: ca.certificate.clone(), key: crate::test_support::named_key("x") };
    let same_name = same_name
        .issue("ca", crate::test_support::named_key("y"), |template| template.ca = Some(CaTemplate::default()));
    assert!(matches!(verify(&crl, &same_name), Err(CrlError::Signature { .. })));
    // keyCertSign without cRLSign.
    let no_crls =
        Entity::root("ca", |template: &mut Template| template.extra.push((oid::KEY_USAGE, true, vec![3, 2, 2, 4])));
    assert_eq!(verify(&crl, &no_crls), Err(CrlError::KeyUsage("CN=ca".into())));
}

#[test]
fn crls_over_sha1_count_only_where_it_is_allowed() {
    let rsa = key(crate::key::KeyType::Rsa { bits: 2048 });
    let mut ca = Template::new("CN=ca".parse().unwrap(), number(1), NOW, NOW);
    ca.ca = Some(CaTemplate::default());
    let sha1 = SignatureScheme::RsaPkcs1(crate::hash::HashAlgorithm::Sha1);
    let certificate = ca.self_signed(rsa, sha1, &mut rng(1)).unwrap();
    let crl = Issuer::of_crls(&certificate, rsa, sha1).unwrap().sign_crl(&template(&[]), &mut rng(1)).unwrap();
    assert!(matches!(crl.clone().verify(&certificate, &Strength::default()), Err(CrlError::Weak { .. })));
    assert!(crl.verify(&certificate, &Strength::weakest()).is_ok());
}

#[test]
fn unknown_critical_extensions_make_a_crl_useless() {
    let ca = ca();
    let id = ObjectIdentifier::new_unwrap("1.2.3.4");
    let crl = with_extensions(&ca, &signed(&ca, &template(&[])), &[(id, true, vec![5, 0])]);
    let error = CrlError::CriticalExtension { issuer: "CN=ca".into(), extension: id };
    assert_eq!(crl.verify(&ca.certificate, &Strength::default()).err(), Some(error));
}

#[test]
fn a_delta_crl_adds_to_and_takes_from_its_base() {
    let ca = ca();
    let [moon, sun, venus] = ["moon", "sun", "venus"].map(|name| ca.end_entity(name, |_| {}));
    let base = verified(&ca, &template(&[(&moon, Reason::CertificateHold), (&sun, Reason::KeyCompromise)]));
    let delta = |number_: u8, base_: u8| {
        verified(
            &ca,
            &CrlTemplate {
                number: number(number_),
                base_number: Some(number(base_)),
                this_update: NOW,
                next_update: UnixTime(NOW.0 + 1000),
                ..template(&[(&moon, Reason::RemoveFromCrl), (&venus, Reason::KeyCompromise)])
            },
        )
    };
    let held = Status::Revoked { reason: Reason::CertificateHold, time: UnixTime(NOW.0 - 500) };
    let with = |delta: VerifiedCrl, entity: &Entity, now| status(&entity.certificate, &[delta, base.clone()], now);
    assert_eq!(with(delta(6, 5), &moon, NOW), Status::Good, "no longer on hold");
    assert_eq!(with(delta(6, 4), &venus, NOW), REVOKED);
    assert_eq!(with(delta(6, 5), &sun, NOW), REVOKED, "the base still counts");
    assert_eq!(with(delta(6, 5), &moon, UnixTime(NOW.0 + 500)), Status::Good, "the delta is younger than its base");
    assert_eq!(with(delta(7, 6), &moon, NOW), held, "it adds to a later base");
    assert_eq!(with(delta(4, 3), &moon, NOW), held, "it is older than the base");
    assert_eq!(status(&sun.certificate, &[delta(6, 5)], NOW), Status::Unknown, "alone it says nothing");
}

/// RFC 5280 §5.2.5, each row an issuingDistributionPoint and what it says about an end entity and about a CA.
#[test]
fn a_crl_speaks_only_about_its_scope() {
    let ca = ca();
    let point = |uri: &str| CrlPoint { uri: uri.into(), issuer: None };
    let moon = ca.end_entity("moon", |template| template.crl_points = vec![point("http://ca/x.crl")]);
    let lower = ca.authority("lower", |_| {});
    let name = |uri: &str| {
        let len = |more: usize| u8::try_from(uri.len() + more).unwrap();
        [&[0xa0, len(4), 0xa0, len(2), 0x86, len(0)], uri.as_bytes()].concat()
    };
    for (case, content, end_entity, authority) in [
        ("no restriction", vec![], true, true),
        ("user certificates", vec![0x81, 1, 0xff], true, false),
        ("CA certificates", vec![0x82, 1, 0xff], false, true),
        ("attribute certificates", vec![0x85, 1, 0xff], false, false),
        ("this point", name("http://ca/x.crl"), true, false),
        ("another point", name("http://ca/y.crl"), false, false),
        ("some reasons", vec![0x83, 2, 6, 0x40], false, false),
    ] {
        let idp = [&[0x30, u8::try_from(content.len()).unwrap()], &content[..]].concat();
        let crl = with_extensions(&ca, &signed(&ca, &template(&[])), &[(oid::ISSUING_DISTRIBUTION_POINT, true, idp)]);
        let crls = [crl.verify(&ca.certificate, &Strength::default()).unwrap()];
        let expected = |good| if good { Status::Good } else { Status::Unknown };
        assert_eq!(status(&moon.certificate, &crls, NOW), expected(end_entity), "{case}");
        assert_eq!(status(&lower.certificate, &crls, NOW), expected(authority), "{case}, CA");
    }
}

#[test]
fn crls_for_some_reasons_together_cover_all() {
    let ca = ca();
    let moon = ca.end_entity("moon", |_| {});
    let some = |bits: u16, revoked: &[(&Entity, Reason)]| {
        let [high, low] = bits.to_be_bytes();
        let idp = vec![0x30, 5, 0x83, 3, 7, high, low];
        with_extensions(&ca, &signed(&ca, &template(revoked)), &[(oid::ISSUING_DISTRIBUTION_POINT, true, idp)])
            .verify(&ca.certificate, &Strength::default())
            .unwrap()
    };
    // Bit 1 (keyCompromise) is the second from the left.
    let (first, rest) = (some(0x4000, &[]), some(0x3f80, &[]));
    assert_eq!(status(&moon.certificate, std::slice::from_ref(&first), NOW), Status::Unknown);
    assert_eq!(status(&moon.certificate, &[first.clone(), rest.clone()], NOW), Status::Good);
    let revoking = some(0x4000, &[(&moon, Reason::KeyCompromise)]);
    assert_eq!(status(&moon.certificate, &[rest, revoking], NOW), REVOKED);
    assert_eq!(Reasons::ALL.0.count_ones(), 8);
}

/// Another one signs, as the certificate says; the entries name the CA.
#[test]
fn an_indirect_crl_counts_for_certificates_that_name_its_issuer() {
    use der::Encode;
    let (ca, signer) = (ca(), Entity::root("crl signer", |_| {}));
    let issuer: DistinguishedName = "CN=crl signer".parse().unwrap();
    let point = CrlPoint { uri: "http://ca/x.crl".into(), issuer: Some(issuer) };
    let moon = ca.end_entity("moon", |template| template.crl_points = vec![point]);
    let plain = ca.end_entity("sun", |_| {});
    let crl = signed(&signer, &template(&[(&moon, Reason::KeyCompromise)]));
    // The entry gets a certificateIssuer, the CRL an issuingDistributionPoint that says indirect.
    let mut content =
        x509_cert::crl::TbsCertList::<x509_cert::certificate::Rfc5280>::from_der(&crl.signed.content).unwrap();
    let names = vec![Encoded::DirectoryName(ca.certificate.subject().to_name().unwrap())];
    let entry_issuer = crate::issue::extension(oid::CERTIFICATE_ISSUER, true, &names).unwrap();
    for entry in content.revoked_certificates.iter_mut().flatten() {
        entry.crl_entry_extensions.get_or_insert_default().push(entry_issuer.clone());
    }
    let inner = Crl { signed: Signed { content: content.to_der().unwrap(), ..crl.signed.clone() }, ..crl };
    let crl =
        with_extensions(&signer, &inner, &[(oid::ISSUING_DISTRIBUTION_POINT, true, vec![0x30, 3, 0x84, 1, 0xff])]);
    let crls = [crl.verify(&signer.certificate, &Strength::default()).unwrap()];
    assert_eq!(status(&moon.certificate, &crls, NOW), REVOKED);
    assert_eq!(status(&plain.certificate, &crls, NOW), Status::Unknown);
}

#[test]
fn no_octet_of_a_crl_can_be_changed() {
    let ca = ca();
    let moon = ca.end_entity("moon", |_| {});
    let good = signed(&ca, &template(&[(&moon, Reason::KeyCompromise)]));
    for at in 0..good.der().len() {
        for change in [0x01, 0x80, 0xff] {
            let mut der = good.der().to_vec();
            der[at] ^= change;
            let Ok(changed) = Crl::from_der(&der) else { continue };
            assert!(changed.verify(&ca.certificate, &Strength::default()).is_err(), "{at} {change}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_octets_make_the_parser_panic(octets: Vec<u8>) {
        proptest::prop_assert!(Crl::from_der(&octets).is_err());
    }
}
