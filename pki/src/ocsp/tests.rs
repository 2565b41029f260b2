use der::asn1::{Any, BitString, GeneralizedTime, Null};

use super::asn1::{CertStatus, ResponderId, ResponseBytes, RevokedInfo, SingleResponse};
use super::*;
use crate::certificate::KeyPurpose;
use crate::hash;
use crate::path::Strength;
use crate::revocation::Reason;
use crate::signature::{RsaPadding, SignatureScheme};
use crate::test_support::{Entity, NOW, rng};

const NONCE: &[u8] = &[7; 32];

/// What a test responder answers with; by default what is right.
struct Responder<'a> {
    signer: &'a Entity,
    by_key: bool,
    status: CertStatus,
    hash: HashAlgorithm,
    this_update: u64,
    next_update: Option<u64>,
    nonce: Option<Vec<u8>>,
    certificates: Vec<Certificate>,
}

impl<'a> Responder<'a> {
    fn new(signer: &'a Entity) -> Self {
        Self {
            signer,
            by_key: true,
            status: CertStatus::Good(Null),
            hash: HashAlgorithm::Sha1,
            this_update: NOW.0 - 60,
            next_update: Some(NOW.0 + 3600),
            nonce: Some(NONCE.to_vec()),
            certificates: vec![signer.certificate.clone()],
        }
    }

    fn answer(&self, certificate: &Certificate, issuer: &Certificate) -> Vec<u8> {
        let time = |seconds| GeneralizedTime::from_date_time(UnixTime(seconds).to_date_time());
        let single = SingleResponse {
            id: Request::new(certificate, issuer, None).certificate_id(self.hash).unwrap(),
            status: self.status.clone(),
            this_update: time(self.this_update),
            next_update: self.next_update.map(time),
            extensions: None,
        };
        let responder = if self.by_key {
            let id = hash::sha1(self.signer.certificate.key_bits().unwrap());
            ResponderId::Key(OctetString::new(id).unwrap())
        } else {
            ResponderId::Name(self.signer.certificate.subject().to_name().unwrap())
        };
        let nonce = self.nonce.as_ref().map(|nonce| {
            let value = OctetString::new(nonce.as_slice()).unwrap().to_der().unwrap();
            vec![Extension { extn_id: oid::OCSP_NONCE, critical: false, extn_value: OctetString::new(value).unwrap() }]
        });
        let produced_at = time(self.this_update);
        let data = ResponseData { version: 0, responder, produced_at, responses: vec![single], extensions: nonce };
        self.sign(&data.to_der().unwrap())
    }

    fn sign(&self, content: &[u8]) -> Vec<u8> {
        let key = &self.signer.key;
        let scheme = SignatureScheme::natural(key.key_type(), RsaPadding::Pkcs1);
        let signature = BitString::from_bytes(&key.sign(scheme, content, &mut rng(1)).unwrap()).unwrap();
        let certificates: Vec<Any> =
            self.certificates.iter().map(|certificate| Any::from_der(certificate.der()).unwrap()).collect();
        let inner = [
            content.to_vec(),
            scheme.algorithm_identifier(),
            signature.to_der().unwrap(),
            der::asn1::ContextSpecific {
                tag_number: der::TagNumber(0),
                tag_mode: der::TagMode::Explicit,
                value: certificates,
            }
            .to_der()
            .unwrap(),
        ]
        .concat();
        let basic = Any::new(Tag::Sequence, inner).unwrap().to_der().unwrap();
        let bytes = ResponseBytes { kind: oid::OCSP_BASIC, response: OctetString::new(basic).unwrap() };
        OcspResponse { status: Any::new(Tag::Enumerated, [0]).unwrap(), bytes: Some(bytes) }.to_der().unwrap()
    }
}

struct World {
    ca: Entity,
    moon: Entity,
    responder: Entity,
}

fn world() -> World {
    let ca = Entity::root("ca", |_| {});
    let moon = ca.end_entity("moon", |_| {});
    let responder = ca.end_entity("responder", |template| template.purposes = vec![KeyPurpose::OcspSigning]);
    World { ca, moon, responder }
}

impl World {
    fn verify(&self, der: &[u8]) -> Result<Answer, OcspError> {
        let request = Request::new(&self.moon.certificate, &self.ca.certificate, Some(NONCE));
        Response::from_der(der)?.verify(&request, &[], true, NOW, &Strength::default())
    }

    fn status(&self, responder: &Responder<'_>) -> Result<Status, OcspError> {
        self.verify(&responder.answer(&self.moon.certificate, &self.ca.certificate)).map(|answer| answer.status)
    }
}

#[test]
fn the_ca_and_responders_of_its_own_may_answer() {
    let world = world();
    for signer in [&world.ca, &world.responder] {
        for by_key in [true, false] {
            for hash in HashAlgorithm::ALL {
                let responder = Responder { by_key, hash, ..Responder::new(signer) };
                assert_eq!(world.status(&responder), Ok(Status::Good), "{hash}");
            }
        }
    }
    let alone = Responder { certificates: Vec::new(), ..Responder::new(&world.responder) };
    assert!(matches!(world.status(&alone), Err(OcspError::Responder { .. })), "nobody knows its certificate");
}

#[test]
fn statuses_are_told() {
    let world = world();
    let with = |status| world.status(&Responder { status, ..Responder::new(&world.ca) });
    let revoked = |reason: Option<u8>| {
        let time = GeneralizedTime::from_date_time(NOW.to_date_time());
        let reason = reason.map(|number| Any::new(Tag::Enumerated, [number]).unwrap());
        with(CertStatus::Revoked(RevokedInfo { time, reason }))
    };
    assert_eq!(with(CertStatus::Unknown(Null)), Ok(Status::Unknown));
    assert_eq!(revoked(None), Ok(Status::Revoked { reason: Reason::Unspecified, time: NOW }));
    assert_eq!(revoked(Some(1)), Ok(Status::Revoked { reason: Reason::KeyCompromise, time: NOW }));
    assert_eq!(revoked(Some(77)), Ok(Status::Revoked { reason: Reason::Unspecified, time: NOW }));
}

#[test]
fn answers_count_only_in_their_time() {
    let world = world();
    let with =
        |this_update, next_update| world.status(&Responder { this_update, next_update, ..Responder::new(&world.ca) });
    let now = NOW.0;
    assert_eq!(with(now - 9000, Some(now - 301)), Ok(Status::Stale { next_update: UnixTime(now - 301) }));
    assert_eq!(with(now - 9000, Some(now - 200)), Ok(Status::Good), "clocks differ a little");
    assert_eq!(with(now + 200, None), Ok(Status::Good));
    assert!(matches!(with(now + 400, None), Err(OcspError::NotYetValid { .. })));
    assert_eq!(with(now - 3000, None), Ok(Status::Good));
    assert!(matches!(with(now - 9000, None), Ok(Status::Stale { .. })));
}

#[test]
fn nobody_else_may_answer() {
    let world = world();
    let stranger = Entity::root("stranger", |_| {});
    let other_ca = stranger.end_entity("responder", |template| template.purposes = vec![KeyPurpose::OcspSigning]);
    let no_purpose = world.ca.end_entity("no purpose", |_| {});
    let any_purpose = world.ca.end_entity("any purpose", |template| template.purposes = vec![KeyPurpose::Any]);
    let expired = world.ca.end_entity("expired", |template| {
        template.purposes = vec![KeyPurpose::OcspSigning];
        template.not_after = UnixTime(NOW.0 - 1);
    });
    for (signer, reason) in [
        (&stranger, "`CN=stranger` is not made for OCSP signing"),
        (&other_ca, "`CN=responder` is not signed by the CA itself"),
        (&no_purpose, "`CN=no purpose` is not made for OCSP signing"),
        (&any_purpose, "`CN=any purpose` is not made for OCSP signing"),
        (&world.moon, "`CN=moon` is not made for OCSP signing"),
        (&expired, "`CN=expired` is valid from 2027-01-14 08:00:00 UTC to 2027-01-15 07:59:59 UTC"),
    ] {
        match world.status(&Responder::new(signer)) {
            Err(OcspError::Responder { why, .. }) => assert_eq!(why, reason),
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[test]
fn an_answer_about_another_certificate_does_not_count() {
    let world = world();
    let sun = world.ca.end_entity("sun", |_| {});
    let other = Responder::new(&world.ca).answer(&sun.certificate, &world.ca.certificate);
    assert!(matches!(world.verify(&other), Err(OcspError::OtherCertificate { .. })));
    // The same serial number of another CA.
    let other_ca = Entity::root("ca", |template| template.not_before = UnixTime(0));
    let other_ca = Entity { key: crate::test_support::named_key("other"), ..other_ca };
    let fake =
        other_ca.issue("x", crate::test_support::named_key("x"), |template| template.ca = Some(Default::default()));
    let other = Responder::new(&world.ca).answer(&world.moon.certificate, &fake.certificate);
    assert!(matches!(world.verify(&other), Err(OcspError::OtherCertificate { .. })));
}

#[test]
fn nonces_must_be_repeated() {
    let world = world();
    let request = Request::new(&world.moon.certificate, &world.ca.certificate, Some(NONCE));
    let verify = |nonce: Option<&[u8]>, required| {
        let responder = Responder { nonce: nonce.map(<[u8]>::to_vec), ..Responder::new(&world.ca) };
        let der = responder.answer(&world.moon.certificate, &world.ca.certificate);
        let response = Response::from_der(&der).unwrap();
        response.verify(&request, &[], required, NOW, &Strength::default()).map(|answer| answer.nonce)
    };
    assert_eq!(verify(Some(NONCE), true), Ok(true));
    assert_eq!(verify(Some(b"other"), false), Err(OcspError::Nonce));
    assert_eq!(verify(None, false), Ok(false));
    assert_eq!(verify(None, true), Err(OcspError::Nonce));
}

#[test]
fn no_octet_of_an_answer_can_be_changed() {
    let world = world();
    let responder = Responder { certificates: Vec::new(), ..Responder::new(&world.ca) };
    let good = responder.answer(&world.moon.certificate, &world.ca.certificate);
    assert!(world.verify(&good).is_ok());
    for at in 0..good.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut der = good.clone();
            der[at] ^= change;
            assert!(world.verify(&der).is_err(), "{at} {change}");
        }
    }
}

#[test]
fn refusals_are_told_apart() {
    let refused = |number: u8| {
        let response = OcspResponse { status: Any::new(Tag::Enumerated, [number]).unwrap(), bytes: None };
        Response::from_der(&response.to_der().unwrap()).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(1), OcspError::Refused(Refusal::MalformedRequest));
    assert_eq!(refused(3), OcspError::Refused(Refusal::TryLater));
    assert_eq!(refused(6).to_string(), "the OCSP responder refused: unauthorized");
    assert_eq!(refused(9), OcspError::Refused(Refusal::Other(9)));
    assert!(matches!(refused(0), OcspError::Der(_)));
}

proptest::proptest! {
    #[test]
    fn no_octets_make_the_parser_panic(octets: Vec<u8>) {
        proptest::prop_assert!(Response::from_der(&octets).is_err());
    }
}
