use std::net::IpAddr;

use super::*;
use crate::certificate::{IpSubnet, NameConstraints, PolicyConstraints, Subtree};
use crate::general_name::GeneralName;
use crate::issue::{CaTemplate, Policy, Template};
use crate::key::{Curve, KeyType};
use crate::signature::SignatureScheme;
use crate::test_support::{Entity, NOW, key, named_key, rng};

type Change<'a> = &'a dyn Fn(&mut Template);

const NOTHING: Change<'_> = &|_| {};

/// Root, two CAs and an end entity, each changed.
struct Chain {
    root: Entity,
    upper: Entity,
    lower: Entity,
    end: Entity,
}

impl Chain {
    fn new(root: Change<'_>, upper: Change<'_>, lower: Change<'_>, end: Change<'_>) -> Self {
        let root = Entity::root("root", root);
        let upper = root.authority("upper", upper);
        let lower = upper.authority("lower", lower);
        let end = lower.end_entity("moon", end);
        Self { root, upper, lower, end }
    }

    fn validate(&self, requirements: &Requirements) -> Result<usize, PathError> {
        let bag = [self.lower.certificate.clone(), self.upper.certificate.clone()];
        let anchors = [self.root.certificate.clone()];
        validate(&self.end.certificate, &bag, &anchors, NOW, requirements).map(|path| path.certificates().len())
    }
}

fn with(root: Change<'_>, upper: Change<'_>, lower: Change<'_>, end: Change<'_>) -> Result<usize, PathError> {
    Chain::new(root, upper, lower, end).validate(&Requirements::default())
}

fn name(text: &str) -> GeneralName {
    text.parse().unwrap()
}

fn subtree(text: &str) -> Subtree {
    match text.split_once('/') {
        Some((address, mask)) if address.parse::<IpAddr>().is_ok() => {
            Subtree::Ip(IpSubnet { address: address.parse().unwrap(), mask: mask.parse().unwrap() })
        }
        _ => Subtree::Name(name(text)),
    }
}

fn constraints(permitted: &[&str], excluded: &[&str]) -> NameConstraints {
    let subtrees = |all: &[&str]| all.iter().map(|text| subtree(text)).collect();
    NameConstraints { permitted: subtrees(permitted), excluded: subtrees(excluded) }
}

fn policy(id: &str) -> Policy {
    Policy { id: ObjectIdentifier::new_unwrap(id), cps_uri: None, notice: None }
}

#[test]
fn a_path_of_four_is_found_whatever_the_order_of_the_bag() {
    let chain = Chain::new(NOTHING, NOTHING, NOTHING, NOTHING);
    assert_eq!(chain.validate(&Requirements::default()), Ok(4));
    let bag = [chain.upper.certificate.clone(), chain.end.certificate.clone(), chain.lower.certificate.clone()];
    let anchors = [chain.root.certificate.clone()];
    let path = validate(&chain.end.certificate, &bag, &anchors, NOW, &Requirements::default()).unwrap();
    let names: Vec<_> = path.certificates().iter().map(|link| link.subject().to_string()).collect();
    assert_eq!(names, ["CN=moon", "CN=lower", "CN=upper", "CN=root"]);
    assert_eq!(path.links().count(), 3);
    assert_eq!(path.end_entity(), &chain.end.certificate);
}

#[test]
fn an_anchor_in_the_middle_is_enough() {
    let chain = Chain::new(NOTHING, NOTHING, NOTHING, NOTHING);
    let anchors = [chain.upper.certificate.clone()];
    let bag = [chain.lower.certificate.clone()];
    let path = validate(&chain.end.certificate, &bag, &anchors, NOW, &Requirements::default()).unwrap();
    assert_eq!(path.certificates().len(), 3);
    let pinned = [chain.end.certificate.clone()];
    assert!(validate(&chain.end.certificate, &[], &pinned, NOW, &Requirements::default()).is_ok());
}

#[test]
fn certificates_count_only_in_their_time() {
    let late: Change<'_> = &|template| template.not_before = UnixTime(NOW.0 + 1);
    let over: Change<'_> = &|template| template.not_after = UnixTime(NOW.0 - 1);
    let exact: Change<'_> = &|template| (template.not_before, template.not_after) = (NOW, NOW);
    let expired =
        |subject: &str| Err(PathError::Expired { subject: subject.into(), not_after: UnixTime(NOW.0 - 1), now: NOW });
    let early = |subject: &str| {
        Err(PathError::NotYetValid { subject: subject.into(), not_before: UnixTime(NOW.0 + 1), now: NOW })
    };
    assert_eq!(with(exact, exact, exact, exact), Ok(4));
    assert_eq!(with(over, NOTHING, NOTHING, NOTHING), expired("CN=root"));
    assert_eq!(with(NOTHING, over, NOTHING, NOTHING), expired("CN=upper"));
    assert_eq!(with(NOTHING, NOTHING, NOTHING, over), expired("CN=moon"));
    assert_eq!(with(NOTHING, NOTHING, late, NOTHING), early("CN=lower"));
    let text = with(NOTHING, NOTHING, NOTHING, over).unwrap_err().to_string();
    assert_eq!(text, "`CN=moon` expired at 2027-01-15 07:59:59 UTC; now it is 2027-01-15 08:00:00 UTC");
}

#[test]
fn only_cas_issue() {
    let no_ca: Change<'_> = &|template| template.ca = None;
    let not_ca = |subject: &str| Err(PathError::NotCa { subject: subject.into() });
    assert_eq!(with(NOTHING, no_ca, NOTHING, NOTHING), not_ca("CN=upper"));
    assert_eq!(with(NOTHING, NOTHING, no_ca, NOTHING), not_ca("CN=lower"));
    assert_eq!(with(no_ca, NOTHING, NOTHING, NOTHING), not_ca("CN=root"), "an anchor of version 3 says what it is");
}

#[test]
fn a_ca_needs_the_key_usage_if_there_is_one() {
    // basicConstraints says CA, keyUsage says digitalSignature.
    let contradiction: Change<'_> = &|template| {
        template.extra.push((crate::certificate::oid::KEY_USAGE, true, vec![3, 2, 7, 0x80]));
    };
    let expected = Err(PathError::KeyUsage { subject: "CN=lower".into(), missing: "keyCertSign" });
    assert_eq!(with(NOTHING, NOTHING, contradiction, NOTHING), expected);
}

#[test]
fn an_end_entity_must_be_allowed_to_sign() {
    let usage = |bits: [u8; 2]| {
        move |template: &mut Template| {
            template.extra.push((crate::certificate::oid::KEY_USAGE, true, vec![3, 2, bits[0], bits[1]]));
        }
    };
    let missing = Err(PathError::KeyUsage { subject: "CN=moon".into(), missing: "digitalSignature" });
    assert_eq!(with(NOTHING, NOTHING, NOTHING, &usage([1, 0x02])), missing, "cRLSign");
    assert_eq!(with(NOTHING, NOTHING, NOTHING, &usage([5, 0x20])), missing, "keyEncipherment");
    assert_eq!(with(NOTHING, NOTHING, NOTHING, &usage([6, 0x40])), Ok(4), "nonRepudiation");
    assert_eq!(with(NOTHING, NOTHING, NOTHING, &usage([7, 0x80])), Ok(4), "digitalSignature");
}

#[test]
fn path_length_counts_cas_that_are_not_self_issued() {
    let limit = |allowed: u8| move |template: &mut Template| template.ca = Some(CaTemplate { path_len: Some(allowed) });
    let too_long = |subject: &str, allowed| Err(PathError::PathLength { subject: subject.into(), allowed });
    assert_eq!(with(&limit(2), &limit(1), &limit(0), NOTHING), Ok(4));
    assert_eq!(with(&limit(1), NOTHING, NOTHING, NOTHING), too_long("CN=root", 1));
    assert_eq!(with(NOTHING, &limit(0), NOTHING, NOTHING), too_long("CN=upper", 0));
    assert_eq!(with(&limit(0), NOTHING, NOTHING, NOTHING), too_long("CN=root", 0));
    assert_eq!(with(&limit(2), &limit(200), NOTHING, NOTHING), Ok(4), "a CA below cannot widen it");
}

#[test]
fn a_new_key_of_the_same_ca_does_not_count_in_the_path_length() {
    let root = Entity::root("root", |template| template.ca = Some(CaTemplate { path_len: Some(0) }));
    let rolled = root.issue("root", named_key("root, new key"), |template| template.ca = Some(CaTemplate::default()));
    assert!(rolled.certificate.is_self_issued() && !rolled.certificate.is_self_signed());
    let moon = rolled.end_entity("moon", NOTHING);
    let (bag, anchors) = ([rolled.certificate], [root.certificate]);
    assert!(validate(&moon.certificate, &bag, &anchors, NOW, &Requirements::default()).is_ok());
}

#[test]
fn unknown_critical_extensions_are_refused_and_others_ignored() {
    let id = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.36906.1");
    let critical = move |template: &mut Template| template.extra.push((id, true, vec![5, 0]));
    let other = move |template: &mut Template| template.extra.push((id, false, vec![0xff]));
    let refused = |subject: &str| Err(PathError::CriticalExtension { subject: subject.into(), extension: id });
    assert_eq!(with(&other, &other, &other, &other), Ok(4));
    assert_eq!(with(NOTHING, &critical, NOTHING, NOTHING), refused("CN=upper"));
    assert_eq!(with(NOTHING, NOTHING, NOTHING, &critical), refused("CN=moon"));
    assert_eq!(with(&critical, NOTHING, NOTHING, NOTHING), refused("CN=root"));
}

#[test]
fn who_is_missing_is_said() {
    let chain = Chain::new(NOTHING, NOTHING, NOTHING, NOTHING);
    let (root, lower, end) = (&chain.root.certificate, &chain.lower.certificate, &chain.end.certificate);
    let try_with = |bag: &[Certificate], anchors: &[Certificate]| {
        validate(end, bag, anchors, NOW, &Requirements::default()).map(|_| ()).unwrap_err()
    };
    let unknown =
        |subject: &str, issuer: &str| PathError::UnknownIssuer { subject: subject.into(), issuer: issuer.into() };
    assert_eq!(try_with(&[], std::slice::from_ref(root)), unknown("CN=moon", "CN=lower"));
    assert_eq!(try_with(std::slice::from_ref(lower), std::slice::from_ref(root)), unknown("CN=lower", "CN=upper"));
    let all = [lower.clone(), chain.upper.certificate.clone(), root.clone()];
    assert_eq!(try_with(&all, &[]), PathError::SelfSigned { subject: "CN=root".into() });
}

#[test]
fn a_wrong_signature_is_seen() {
    let chain = Chain::new(NOTHING, NOTHING, NOTHING, NOTHING);
    let mut der = chain.end.certificate.der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    let broken = Certificate::from_der(&der).unwrap();
    let bag = [chain.lower.certificate.clone(), chain.upper.certificate.clone()];
    let anchors = [chain.root.certificate.clone()];
    let error = validate(&broken, &bag, &anchors, NOW, &Requirements::default()).unwrap_err();
    assert_eq!(error, PathError::BadSignature { subject: "CN=moon".into(), issuer: "CN=lower".into() });
}

/// Whatever one octet is changed to, the certificate is no longer one of the CA.
#[test]
fn no_octet_can_be_changed() {
    let root = Entity::root("root", NOTHING);
    let end = root.end_entity("moon", |template| template.alternative_names.push(name("moon.example.org")));
    let anchors = [root.certificate];
    for at in 0..end.certificate.der().len() {
        for change in [0x01, 0x20, 0x80, 0xff] {
            let mut der = end.certificate.der().to_vec();
            der[at] ^= change;
            let Ok(changed) = Certificate::from_der(&der) else { continue };
            assert!(validate(&changed, &[], &anchors, NOW, &Requirements::default()).is_err(), "{at} {change}");
        }
    }
}

#[test]
fn of_several_issuers_with_one_name_the_right_one_is_found() {
    let root = Entity::root("root", NOTHING);
    let real = root.issue("ca", named_key("real"), |template| template.ca = Some(CaTemplate::default()));
    let moon = real.end_entity("moon", NOTHING);
    let mut bag: Vec<Certificate> = (0..20)
        .map(|number| {
            let key = named_key(&number.to_string());
            root.issue("ca", key, |template| template.ca = Some(CaTemplate::default())).certificate
        })
        .collect();
    bag.push(real.certificate.clone());
    let anchors = [root.certificate.clone()];
    assert!(validate(&moon.certificate, &bag, &anchors, NOW, &Requirements::default()).is_ok());
    bag.pop();
    let error = validate(&moon.certificate, &bag, &anchors, NOW, &Requirements::default()).unwrap_err();
    assert_eq!(error, PathError::BadSignature { subject: "CN=moon".into(), issuer: "CN=ca".into() });
}

/// The same CA, once with an expired certificate and once below another root: any path that is right will do.
#[test]
fn cross_signed_cas_lead_to_whoever_is_trusted() {
    let (old, new) = (Entity::root("old root", NOTHING), Entity::root("new root", NOTHING));
    let ca = |root: &Entity, change: Change<'_>| {
        root.issue("ca", named_key("ca"), |template| {
            template.ca = Some(CaTemplate::default());
            change(template);
        })
    };
    let (under_old, under_new) = (ca(&old, NOTHING), ca(&new, NOTHING));
    let expired = ca(&new, &|template| template.not_after = UnixTime(NOW.0 - 1));
    let moon = under_old.end_entity("moon", NOTHING);
    let bag = [expired.certificate.clone(), under_old.certificate, under_new.certificate];
    for root in [&old, &new] {
        let anchors = [root.certificate.clone()];
        let path = validate(&moon.certificate, &bag, &anchors, NOW, &Requirements::default()).unwrap();
        assert_eq!(path.certificates()[2], &root.certificate);
    }
    let (bag, anchors) = ([expired.certificate], [new.certificate]);
    let error = validate(&moon.certificate, &bag, &anchors, NOW, &Requirements::default()).unwrap_err();
    assert_eq!(error, PathError::Expired { subject: "CN=ca".into(), not_after: UnixTime(NOW.0 - 1), now: NOW });
}

#[test]
fn cas_that_sign_each_other_do_not_lead_in_circles() {
    let (a, b) = (Entity::root("a", NOTHING), Entity::root("b", NOTHING));
    let cross = |by: &Entity, who: &str| {
        by.issue(who, named_key(who), |template| template.ca = Some(CaTemplate::default())).certificate
    };
    let moon = a.end_entity("moon", NOTHING);
    let bag = [cross(&a, "b"), cross(&b, "a"), a.certificate.clone(), b.certificate.clone()];
    let error = validate(&moon.certificate, &bag, &[], NOW, &Requirements::default()).unwrap_err();
    assert!(matches!(error, PathError::SelfSigned { .. } | PathError::UnknownIssuer { .. }), "{error}");
    let anchors = [b.certificate.clone()];
    assert!(validate(&moon.certificate, &bag, &anchors, NOW, &Requirements::default()).is_ok());
}

/// R7296-3.6-1: four certificates and more; not without end.
#[test]
fn paths_of_twelve_are_found_and_longer_ones_refused() {
    let root = Entity::root("root", NOTHING);
    let mut chain = vec![root];
    for depth in 1..=13 {
        let next = chain.last().unwrap().authority(&format!("ca {depth}"), NOTHING);
        chain.push(next);
    }
    let bag: Vec<_> = chain[1..].iter().map(|entity| entity.certificate.clone()).collect();
    let anchors = [chain[0].certificate.clone()];
    let requirements = Requirements::default();
    let path = validate(&chain[12].certificate, &bag, &anchors, NOW, &requirements);
    assert_eq!(path.map(|path| path.certificates().len()), Ok(13));
    let error = validate(&chain[13].certificate, &bag, &anchors, NOW, &requirements).unwrap_err();
    assert_eq!(error, PathError::TooLong { subject: "CN=ca 1".into(), limit: 12 });
}

/// cert_cache_flood: many certificates of one name, all signed by each other, keep nobody busy.
#[test]
fn a_mesh_of_cas_ends_after_a_bounded_number_of_signatures() {
    let keys: Vec<_> = (0..6).map(|number| named_key(&format!("mesh {number}"))).collect();
    let layer = |by: usize| {
        let issuer =
            Entity { key: named_key(&format!("mesh {by}")), certificate: Entity::root("ca", NOTHING).certificate };
        (0..keys.len()).map(move |who| {
            issuer.issue("ca", named_key(&format!("mesh {who}")), |template| template.ca = Some(CaTemplate::default()))
        })
    };
    let bag: Vec<_> = (0..keys.len()).flat_map(layer).map(|entity| entity.certificate).collect();
    let last = Entity { key: named_key("mesh 0"), certificate: bag[0].clone() };
    let moon = last.end_entity("moon", NOTHING);
    let error = validate(&moon.certificate, &bag, &[], NOW, &Requirements::default()).unwrap_err();
    assert_eq!(error, PathError::TooManyAttempts { subject: "CN=moon".into(), limit: 64 });
}

#[test]
fn purposes_are_checked_if_the_certificate_has_any() {
    let requirements =
        Requirements { purposes: vec![KeyPurpose::ServerAuth, KeyPurpose::IkeIntermediate], ..Requirements::default() };
    for (has, fits) in [
        (vec![], true),
        (vec![KeyPurpose::ServerAuth], true),
        (vec![KeyPurpose::ClientAuth, KeyPurpose::IkeIntermediate], true),
        (vec![KeyPurpose::Any], true),
        (vec![KeyPurpose::ClientAuth], false),
    ] {
        let chain = Chain::new(NOTHING, NOTHING, NOTHING, &|template| template.purposes.clone_from(&has));
        let expected = if fits {
            Ok(4)
        } else {
            Err(PathError::Purpose {
                subject: "CN=moon".into(),
                has: has.clone(),
                wanted: requirements.purposes.clone(),
            })
        };
        assert_eq!(chain.validate(&requirements), expected, "{has:?}");
    }
}

#[test]
fn every_key_and_signature_of_the_path_must_be_strong_enough() {
    let root = Entity {
        key: crate::key::PrivateKey::from_der(&key(KeyType::Rsa { bits: 2048 }).to_der(crate::key::KeyFormat::Pkcs8))
            .unwrap(),
        ..Entity::root("x", NOTHING)
    };
    let template = {
        let mut template = Template::new("CN=root".parse().unwrap(), root.certificate.serial().clone(), NOW, NOW);
        template.ca = Some(CaTemplate::default());
        template
    };
    let sha1 = SignatureScheme::RsaPkcs1(crate::hash::HashAlgorithm::Sha1);
    let certificate = template.self_signed(&root.key, sha1, &mut rng(1)).unwrap();
    let root = Entity { certificate, ..root };
    let p256 = crate::key::PrivateKey::generate(KeyType::Ecdsa(Curve::P256), &mut rng(3)).unwrap();
    let moon = root.issue("moon", p256, NOTHING);
    let anchors = [root.certificate.clone()];
    let check = |strength: &str| {
        let requirements = Requirements { strength: strength.parse().unwrap(), ..Requirements::default() };
        validate(&moon.certificate, &[], &anchors, NOW, &requirements).map(|_| ())
    };
    assert_eq!(check("rsa-2048-ecdsa-256-sha256"), Ok(()), "how an anchor signed itself does not matter");
    assert!(matches!(check("rsa-3072-ecdsa-256"), Err(PathError::WeakKey { subject, .. }) if subject == "CN=root"));
    assert!(matches!(check("rsa-2048-ecdsa-384"), Err(PathError::WeakKey { subject, .. }) if subject == "CN=moon"));
    assert!(matches!(check("rsa-sha512-ecdsa"), Err(PathError::WeakSignature { subject, .. }) if subject == "CN=moon"));
    assert!(matches!(check("ecdsa-256"), Err(PathError::WeakKey { subject, .. }) if subject == "CN=root"));
    let message = check("rsa-3072-ecdsa-256").unwrap_err().to_string();
    assert_eq!(message, "the key of `CN=root` (RSA 2048 bits) is not allowed: rsa-3072-ecdsa-256");
}

#[test]
fn sha1_certificates_count_only_where_it_is_allowed() {
    let root_key = key(KeyType::Rsa { bits: 2048 });
    let mut template = Template::new("CN=root".parse().unwrap(), crate::issue::random_serial(&mut rng(1)), NOW, NOW);
    template.ca = Some(CaTemplate::default());
    let sha1 = SignatureScheme::RsaPkcs1(crate::hash::HashAlgorithm::Sha1);
    let root = template.self_signed(root_key, sha1, &mut rng(1)).unwrap();
    let issuer = crate::issue::Issuer::new(&root, root_key, sha1).unwrap();
    let moon = Template { ca: None, subject: "CN=moon".parse().unwrap(), ..template };
    let moon = issuer.issue(&moon, named_key("moon").public_key(), &mut rng(1)).unwrap();
    let anchors = [root.clone()];
    let check = |strength| {
        validate(&moon, &[], &anchors, NOW, &Requirements { strength, ..Requirements::default() }).map(|_| ())
    };
    assert!(matches!(check(Strength::default()), Err(PathError::WeakSignature { .. })));
    assert_eq!(check(Strength::weakest()), Ok(()));
    assert_eq!(check("pubkey-sha1".parse().unwrap()), Ok(()));
}

#[test]
fn a_wanted_ca_must_be_in_the_path() {
    let chain = Chain::new(NOTHING, NOTHING, NOTHING, NOTHING);
    let over = |authority: Authority| {
        chain.validate(&Requirements { authorities: vec![authority], ..Requirements::default() })
    };
    assert_eq!(over(Authority::Named("cn=UPPER".parse().unwrap())), Ok(4));
    assert_eq!(over(Authority::Certificate(Box::new(chain.root.certificate.clone()))), Ok(4));
    let issuers = "`CN=lower`, `CN=upper`, `CN=root`".to_owned();
    let missing = Err(PathError::Authority { subject: "CN=moon".into(), issuers });
    assert_eq!(over(Authority::Named("CN=other".parse().unwrap())), missing);
    assert_eq!(over(Authority::Named("CN=moon".parse().unwrap())), missing, "the end entity is no CA");
}

/// Constraints of the upper and the lower CA, names of the end entity, and whether the path is right.
#[test]
fn name_constraints() {
    let none = || constraints(&[], &[]);
    let dns = || constraints(&["dns:example.org"], &[]);
    for (case, upper, lower, names, right) in [
        ("within", dns(), none(), &["dns:moon.example.org"][..], true),
        ("the domain itself", dns(), none(), &["dns:example.org"], true),
        ("case does not count", dns(), none(), &["dns:MOON.Example.ORG"], true),
        ("other domain", dns(), none(), &["dns:moon.example.net"], false),
        ("one of two outside", dns(), none(), &["dns:moon.example.org", "dns:evil.net"], false),
        ("other kinds are free", dns(), none(), &["ip:192.0.2.1", "email:a@evil.net"], true),
        ("both must permit", dns(), constraints(&["dns:a.example.org"], &[]), &["dns:b.example.org"], false),
        ("the lower cannot widen", dns(), constraints(&["dns:org"], &[]), &["dns:other.org"], false),
        ("nothing in common", dns(), constraints(&["dns:example.net"], &[]), &["dns:x.example.net"], false),
        (
            "excluded after permitted",
            dns(),
            constraints(&[], &["dns:secret.example.org"]),
            &["dns:a.secret.example.org"],
            false,
        ),
        (
            "excluded and permitted at once",
            constraints(&["dns:example.org"], &["dns:SECRET.example.org"]),
            none(),
            &["dns:secret.EXAMPLE.org"],
            false,
        ),
        (
            "beside the excluded",
            constraints(&["dns:example.org"], &["dns:secret.example.org"]),
            none(),
            &["dns:moon.example.org"],
            true,
        ),
        (
            "wildcard over the excluded",
            constraints(&[], &["dns:secret.example.org"]),
            none(),
            &["dns:*.example.org"],
            false,
        ),
        (
            "excluded above, permitted below",
            constraints(&[], &["dns:example.org"]),
            dns(),
            &["dns:moon.example.org"],
            false,
        ),
        ("address within", constraints(&["192.0.2.0/255.255.255.0"], &[]), none(), &["ip:192.0.2.77"], true),
        ("address outside", constraints(&["192.0.2.0/255.255.255.0"], &[]), none(), &["ip:192.0.3.77"], false),
        (
            "address of the other family",
            constraints(&["192.0.2.0/255.255.255.0"], &[]),
            none(),
            &["ip:2001:db8::1"],
            false,
        ),
        ("address excluded", constraints(&[], &["2001:db8::/ffff:ffff::"]), none(), &["ip:2001:db8::1"], false),
        ("mail host", constraints(&["email:example.org"], &[]), none(), &["email:moon@EXAMPLE.org"], true),
        ("mail of a subdomain", constraints(&["email:example.org"], &[]), none(), &["email:moon@a.example.org"], false),
        (
            "mailbox excluded by case",
            constraints(&[], &["email:root@example.org"]),
            none(),
            &["email:ROOT@example.org"],
            false,
        ),
        ("uri", constraints(&["uri:.example.org"], &[]), none(), &["uri:https://moon.example.org/"], true),
        ("uri without a host", constraints(&["uri:.example.org"], &[]), none(), &["uri:urn:x"], false),
        ("directory excluded", constraints(&[], &["dn:C=CH"]), none(), &["dn:C=CH, CN=x"], false),
        (
            "directory excluded by case",
            constraints(&[], &["dn:O=Evil Corp"]),
            none(),
            &["dn:O=evil  CORP, CN=x"],
            false,
        ),
        ("subject excluded", constraints(&[], &["dn:CN=moon"]), none(), &[], false),
        ("subject not permitted", constraints(&["dn:C=CH"], &[]), none(), &[], false),
    ] {
        let result = Chain::new(
            NOTHING,
            &|template| template.name_constraints = upper.clone(),
            &|template| template.name_constraints = lower.clone(),
            &|template| template.alternative_names = names.iter().map(|text| name(text)).collect(),
        )
        .validate(&Requirements::default());
        assert_eq!(result.is_ok(), right, "{case}: {result:?}");
    }
}

#[test]
fn directory_constraints_hold_for_cas_and_subjects() {
    let under = constraints(&["dn:C=CH, O=strongSwan"], &[]);
    let root = Entity::root("C=CH, O=strongSwan, CN=root", |template| template.name_constraints = under.clone());
    let good = root.authority("C=CH, O=STRONGSWAN, CN=ca", NOTHING);
    let moon = good.end_entity("C=CH, O=strongSwan, OU=x, CN=moon", NOTHING);
    let (bag, anchors) = ([good.certificate.clone()], [root.certificate.clone()]);
    assert!(validate(&moon.certificate, &bag, &anchors, NOW, &Requirements::default()).is_ok());
    let evil = good.end_entity("C=CH, O=Evil, CN=moon", NOTHING);
    let error = validate(&evil.certificate, &bag, &anchors, NOW, &Requirements::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the name `C=CH, O=Evil, CN=moon` of `C=CH, O=Evil, CN=moon` is not within what `C=CH, O=strongSwan, CN=root` may certify"
    );
}

#[test]
fn mail_addresses_in_the_subject_are_constrained_too() {
    let root = Entity::root("root", |template| template.name_constraints = constraints(&["email:example.org"], &[]));
    let anchors = [root.certificate.clone()];
    let check = |subject: &str, alternative: Option<&str>| {
        let end = root.end_entity(subject, |template| template.alternative_names.extend(alternative.map(name)));
        validate(&end.certificate, &[], &anchors, NOW, &Requirements::default()).is_ok()
    };
    assert!(check("CN=a, E=a@example.org", None));
    assert!(!check("CN=a, E=a@evil.org", None));
    assert!(check("CN=a, E=a@evil.org", Some("email:a@example.org")), "RFC 5280 §4.2.1.10: only without a SAN");
}

/// Policies of upper, lower and end entity; what is wanted; what root and upper demand; whether the path is right.
#[test]
fn policies() {
    let (gold, silver, any) = ("1.2.3.1", "1.2.3.2", "2.5.29.32.0");
    let explicit = |skip| Some(PolicyConstraints { require_explicit: Some(skip), inhibit_mapping: None });
    for (case, [upper, lower, end], wanted, constraint, right) in [
        ("nothing wanted, none there", [&[][..], &[], &[]], &[][..], None, true),
        ("nothing wanted, nothing in common", [&[gold], &[silver], &[gold]], &[], None, true),
        ("all gold", [&[gold], &[gold], &[gold]], &[gold], None, true),
        ("all gold, silver wanted", [&[gold], &[gold], &[gold]], &[silver], None, false),
        ("either", [&[gold, silver], &[silver], &[silver]], &[gold, silver], None, true),
        ("a CA without", [&[], &[gold], &[gold]], &[gold], None, false),
        ("an end entity without", [&[gold], &[gold], &[]], &[gold], None, false),
        ("any at the CAs", [&[any], &[any], &[gold]], &[gold], None, true),
        ("any everywhere", [&[any], &[any], &[any]], &[gold], None, true),
        ("gold, then any", [&[gold], &[any], &[any]], &[gold], None, true),
        ("gold, then any, silver wanted", [&[gold], &[any], &[any]], &[silver], None, false),
        ("explicit and there", [&[gold], &[gold], &[gold]], &[], explicit(0), true),
        ("explicit and none", [&[], &[], &[]], &[], explicit(0), false),
        ("explicit later", [&[], &[], &[]], &[], explicit(5), true),
        ("explicit just in time", [&[], &[], &[]], &[], explicit(2), false),
    ] {
        let policies = |all: &[&str]| -> Vec<Policy> { all.iter().map(|id| policy(id)).collect() };
        let chain = Chain::new(
            NOTHING,
            &|template| {
                template.policies = policies(upper);
                template.policy_constraints = constraint;
            },
            &|template| template.policies = policies(lower),
            &|template| template.policies = policies(end),
        );
        let wanted = wanted.iter().map(|id| ObjectIdentifier::new_unwrap(id)).collect();
        let result = chain.validate(&Requirements { policies: wanted, ..Requirements::default() });
        assert_eq!(result.is_ok(), right, "{case}: {result:?}");
    }
}

#[test]
fn policies_go_by_other_names_where_a_ca_maps_them() {
    let [gold, theirs, any] = ["1.2.3.1", "1.9.9.1", "2.5.29.32.0"].map(ObjectIdentifier::new_unwrap);
    let of = |id: ObjectIdentifier| Policy { id, cps_uri: None, notice: None };
    let check = |upper_has: ObjectIdentifier, mapping: (ObjectIdentifier, ObjectIdentifier), inhibit: Option<u32>| {
        Chain::new(
            &|template| {
                template.policy_constraints =
                    inhibit.map(|skip| PolicyConstraints { require_explicit: None, inhibit_mapping: Some(skip) });
            },
            &|template| {
                template.policies = vec![of(upper_has)];
                template.policy_mappings = vec![mapping];
            },
            &|template| template.policies = vec![of(theirs)],
            &|template| template.policies = vec![of(theirs)],
        )
        .validate(&Requirements { policies: vec![gold], ..Requirements::default() })
    };
    assert_eq!(check(gold, (gold, theirs), None), Ok(4));
    assert_eq!(check(any, (gold, theirs), None), Ok(4), "anyPolicy contains what is mapped");
    assert!(check(gold, (gold, gold), None).is_err());
    assert!(check(gold, (gold, theirs), Some(0)).is_err(), "mapping is inhibited");
    assert!(check(gold, (any, theirs), None).is_err() && check(gold, (gold, any), None).is_err());
}

#[test]
fn any_policy_counts_no_longer_where_it_is_inhibited() {
    let check = |skip: Option<u32>| {
        let any = || vec![policy("2.5.29.32.0")];
        Chain::new(
            &|template| template.inhibit_any_policy = skip,
            &|template| template.policies = any(),
            &|template| template.policies = any(),
            &|template| template.policies = vec![policy("1.2.3.1")],
        )
        .validate(&Requirements { policies: vec![ObjectIdentifier::new_unwrap("1.2.3.1")], ..Requirements::default() })
    };
    assert_eq!(check(None), Ok(4));
    assert_eq!(check(Some(2)), Ok(4));
    let lost = |subject: &str| Err(PathError::Policy { subject: subject.into() });
    assert_eq!(check(Some(1)), lost("CN=lower"));
    assert_eq!(check(Some(0)), lost("CN=upper"));
}

#[test]
fn a_pinned_certificate_needs_no_issuer_but_its_time() {
    let chain = Chain::new(NOTHING, NOTHING, NOTHING, NOTHING);
    let requirements = Requirements { purposes: vec![KeyPurpose::ServerAuth], ..Requirements::default() };
    assert!(validate_pinned(&chain.end.certificate, NOW, &requirements).is_ok());
    let later = NOW.plus_days(2);
    assert!(matches!(validate_pinned(&chain.end.certificate, later, &requirements), Err(PathError::Expired { .. })));
}
