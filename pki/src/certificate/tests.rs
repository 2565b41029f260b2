use super::*;
use crate::issue::{CaTemplate, CrlPoint, Policy, Template};
use crate::test_support::{Entity, NOW, key, rng};

fn rich() -> Certificate {
    let root = Entity::root("root", |_| {});
    root.end_entity("C=CH, CN=moon", |template: &mut Template| {
        template.ca = Some(CaTemplate { path_len: Some(3) });
        template.alternative_names = ["moon.example.org", "a@b.c", "192.0.2.1", "2001:db8::1", "http://x/", "CN=other"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        template.purposes = vec![KeyPurpose::ServerAuth, KeyPurpose::IkeIntermediate];
        template.name_constraints = NameConstraints {
            permitted: vec![Subtree::Name("example.org".parse().unwrap())],
            excluded: vec![Subtree::Ip(IpSubnet {
                address: "192.0.2.0".parse().unwrap(),
                mask: "255.255.255.0".parse().unwrap(),
            })],
        };
        let id = der::asn1::ObjectIdentifier::new_unwrap("1.2.3");
        template.policies = vec![Policy { id, cps_uri: Some("http://cps/".into()), notice: Some("Für alle".into()) }];
        template.policy_mappings = vec![(id, id)];
        template.policy_constraints = Some(PolicyConstraints { require_explicit: Some(1), inhibit_mapping: Some(2) });
        template.inhibit_any_policy = Some(3);
        template.crl_points = vec![CrlPoint { uri: "http://ca/crl".into(), issuer: Some("CN=crl".parse().unwrap()) }];
        template.ocsp_uris = vec!["http://ocsp/".into()];
    })
    .certificate
}

#[test]
fn a_certificate_says_what_its_template_said() {
    let certificate = rich();
    let extensions = certificate.extensions();
    assert_eq!((certificate.version(), certificate.is_ca()), (3, true));
    assert_eq!(certificate.subject().to_string(), "C=CH, CN=moon");
    assert_eq!(certificate.issuer().to_string(), "CN=root");
    assert_eq!(extensions.basic_constraints, Some(BasicConstraints { ca: true, path_len: Some(3) }));
    let names: Vec<_> = certificate.alternative_names().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["moon.example.org", "a@b.c", "192.0.2.1", "2001:db8::1", "http://x/", "CN=other"]);
    assert_eq!(extensions.extended_key_usage, Some(vec![KeyPurpose::ServerAuth, KeyPurpose::IkeIntermediate]));
    let constraints = extensions.name_constraints.as_ref().unwrap();
    assert_eq!(constraints.permitted[0].to_string(), "example.org");
    assert_eq!(constraints.excluded[0].to_string(), "192.0.2.0/24");
    assert_eq!(extensions.policies.as_ref().unwrap().len(), 1);
    assert_eq!(extensions.policy_mappings.len(), 1);
    assert_eq!(extensions.inhibit_any_policy, Some(3));
    assert_eq!(extensions.policy_constraints.unwrap().inhibit_mapping, Some(2));
    assert_eq!(extensions.crl_distribution_points[0].names[0].to_string(), "http://ca/crl");
    assert_eq!(extensions.crl_distribution_points[0].crl_issuer[0].to_string(), "CN=crl");
    assert_eq!(extensions.ocsp_uris, ["http://ocsp/"]);
    let own = certificate.public_key().unwrap().key_id();
    assert_eq!(extensions.subject_key_id.as_deref(), Some(&own.0[..]));
    assert!(extensions.authority_key_id.is_some() && extensions.unknown_critical.is_empty());
    assert!(!certificate.is_self_signed() && certificate.fingerprint().len() == 32);
}

#[test]
fn files_hold_one_certificate_in_der_or_several_in_pem() {
    let certificate = rich();
    assert_eq!(Certificate::load(certificate.der()).unwrap(), std::slice::from_ref(&certificate));
    let two = certificate.to_pem() + &certificate.to_pem();
    assert_eq!(Certificate::load(two.as_bytes()).unwrap().len(), 2);
    let none = key(crate::key::KeyType::Ed25519).to_pem(crate::key::KeyFormat::Pkcs8);
    assert_eq!(Certificate::load(none.as_bytes()), Err(CertificateError::NoCertificate));
}

#[test]
fn broken_extensions_are_named() {
    let with = |id, value: &[u8]| {
        let mut template = Template::new("CN=x".parse().unwrap(), crate::issue::random_serial(&mut rng(1)), NOW, NOW);
        template.extra.push((id, false, value.to_vec()));
        template.self_signed(key(crate::key::KeyType::Ed25519), SignatureScheme::Ed25519, &mut rng(1)).unwrap_err()
    };
    // A choice of no kind, an indefinite length, a name constraint with a minimum, an address of three octets.
    for (id, value, name) in [
        (oid::SUBJECT_ALTERNATIVE_NAME, &[0x30, 2, 0x8a, 0][..], "subjectAltName"),
        (oid::SUBJECT_ALTERNATIVE_NAME, &[0x30, 0x80, 0, 0], "subjectAltName"),
        (oid::SUBJECT_ALTERNATIVE_NAME, &[0x30, 5, 0x87, 3, 1, 2, 3], "subjectAltName"),
        (oid::NAME_CONSTRAINTS, &[0x30, 10, 0xa0, 8, 0x30, 6, 0x82, 1, b'a', 0x80, 1, 1], "nameConstraints"),
        (oid::NAME_CONSTRAINTS, &[0x30, 10, 0xa0, 8, 0x30, 6, 0x87, 4, 1, 2, 3, 4], "nameConstraints"),
        (oid::BASIC_CONSTRAINTS, &[0x30, 3, 1, 1, 7], "basicConstraints"),
        (oid::KEY_USAGE, &[], "keyUsage"),
        (oid::EXTENDED_KEY_USAGE, &[0x30, 0, 0], "extKeyUsage"),
    ] {
        let error = with(id, value).to_string();
        assert!(error.starts_with(&format!("the extension {name} is broken: ")), "{value:?}: {error}");
    }
}

#[test]
fn an_extension_must_not_be_there_twice() {
    let mut template = Template::new("CN=x".parse().unwrap(), crate::issue::random_serial(&mut rng(1)), NOW, NOW);
    template.extra = vec![(oid::OCSP_NO_CHECK, false, vec![5, 0]); 2];
    let made = template.self_signed(key(crate::key::KeyType::Ed25519), SignatureScheme::Ed25519, &mut rng(1));
    let twice = CertificateError::Twice("ocsp-nocheck".into());
    assert_eq!(made.err(), Some(crate::issue::IssueError::Certificate(twice)));
}

/// asn1_choice_loop: lengths that are indefinite, endless or huge, and nesting without end.
#[test]
fn asn1_choice_loop() {
    let nested = |tag: u8, depth: usize| {
        (0..depth).fold(vec![5, 0], |inner, _| {
            let len = inner.len();
            let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
            [&[tag, 0x82, high, low], &inner[..]].concat()
        })
    };
    for der in [
        vec![],
        vec![0x30],
        vec![0x30, 0x80],
        vec![0x30, 0x80, 0x30, 0x80, 0x30, 0x80],
        [&[0x30, 0x80][..], &[0x30, 0x80].repeat(1000)].concat(),
        vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        vec![0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        nested(0x30, 10_000),
        nested(0xa0, 10_000),
        nested(0x31, 10_000),
        vec![0x30; 60_000],
    ] {
        assert!(Certificate::from_der(&der).is_err(), "{} octets", der.len());
    }
    let large = vec![0x30; MAX_CERTIFICATE_LEN + 1];
    assert_eq!(Certificate::from_der(&large), Err(CertificateError::TooLarge { len: large.len() }));
}

#[test]
fn serial_numbers_are_positive_and_of_twenty_octets_at_most() {
    assert_eq!(SerialNumber::positive(&[0, 0, 1]), Some(SerialNumber(vec![1])));
    assert_eq!(SerialNumber::positive(&[0xff]), Some(SerialNumber(vec![0, 0xff])));
    assert_eq!(SerialNumber::positive(&[0xff]).unwrap().to_string(), "ff");
    assert_eq!(SerialNumber::positive(&[0]), None);
    assert_eq!(SerialNumber::positive(&[0x7f; 20]).map(|serial| serial.0.len()), Some(20));
    assert_eq!(SerialNumber::positive(&[0x80; 20]), None);
}

proptest::proptest! {
    #[test]
    fn no_octets_make_the_parser_panic(octets: Vec<u8>, at in 0..2000usize, octet: u8, cut in 0..2000usize) {
        proptest::prop_assert!(Certificate::from_der(&octets).is_err());
        let mut der = rich().der().to_vec();
        let len = der.len();
        der[at % len] = octet;
        if let Ok(certificate) = Certificate::from_der(&der) {
            let text = format!("{certificate:?} {:?}", certificate.extensions());
            proptest::prop_assert!(!certificate.is_self_signed(), "{}", text);
        }
        proptest::prop_assert!(Certificate::from_der(&der[..cut % len]).is_err());
    }
}
