//! Negotiation from both ends, explanations, and proposals that peers should not have sent.

use espdp_api::{EspCipher, EspIntegrity, EspSpi, IpsecProtocol};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;
use crate::io::IkeSpi;
use crate::wire::{AdditionalRound, Attribute, AttributeValue, Protocol, TransformType, WireProposal, WireTransform};

fn ike(text: &str) -> Vec<IkeProposal> {
    parse_ike_list(text).unwrap()
}

fn esp(text: &str) -> Vec<EspProposal> {
    parse_esp_list(text).unwrap()
}

fn spi() -> EspSpi {
    EspSpi::try_from(0xc0de_0001).unwrap()
}

fn esp_offered(text: &str) -> Vec<WireProposal> {
    esp_offer(&esp(text), spi())
}

fn raw(kind: TransformType, id: u16, attributes: &[Attribute]) -> WireTransform {
    WireTransform { kind, id, attributes: attributes.to_vec() }
}

#[test]
fn our_order_decides_not_the_peers() {
    // R7296-2.7-1
    let theirs = ike_offer(&ike("aes128-sha256-modp2048-ecp256,aes256gcm16-prfsha256-x25519"), None);
    let ours = ike("aes256gcm16-prfsha384-prfsha256-x25519,aes128-sha256-ecp256-modp2048");
    let agreement = negotiate_ike(&ours, &theirs).unwrap();
    let cipher = IkeCipher::AesGcm16 { key_bits: 256 };
    let (prf, group) = (Prf::HmacSha2_256, KeyExchangeGroup::Curve25519);
    let additional = AdditionalGroups::default();
    assert_eq!(agreement.suite, IkeSuite { cipher, integrity: None, prf, group, additional });
    // R7296-3.3.1-1
    assert_eq!((agreement.answer.number, agreement.peer_spi), (2, None));
    let agreement = negotiate_ike(&ours[1..], &theirs).unwrap();
    assert_eq!((agreement.answer.number, agreement.suite.group), (1, KeyExchangeGroup::Ecp256));
}

#[test]
fn an_answer_has_one_transform_of_each_offered_type() {
    // R7296-2.7-2
    let theirs = esp_offered("aes256-aes128-sha256-sha512-modp2048-ecp256-esn-noesn");
    let agreement = negotiate_esp(&esp("aes128-aes256-sha512-ecp256-noesn-esn"), &theirs).unwrap();
    assert_eq!(describe_proposal(&agreement.answer), "ESP:AES_CBC_128/HMAC_SHA2_512_256/ECP_256/NO_EXT_SEQ");
    assert_eq!((agreement.peer_spi, agreement.answer.spi.len()), (spi(), 0));
    assert_eq!(agreement.suite.group, Some(KeyExchangeGroup::Ecp256));
}

#[test]
fn key_lengths_come_back_unmodified() {
    // R7296-3.3.6-1
    let agreement = negotiate_esp(&esp("aes256-aes192-sha256"), &esp_offered("aes128-aes192-sha256")).unwrap();
    assert_eq!(agreement.answer.transforms[0].attributes, [Attribute::key_length(192)]);
}

#[test]
fn an_ike_sa_that_replaces_another_has_an_spi_of_eight_octets() {
    let ours = ike("aes128-sha256-x25519");
    let theirs = ike_offer(&ours, Some(IkeSpi([7; 8])));
    assert_eq!(negotiate_ike(&ours, &theirs).unwrap().peer_spi, Some(IkeSpi([7; 8])));
    let mut short = theirs;
    short.iter_mut().for_each(|proposal| proposal.spi = vec![7; 4]);
    assert!(negotiate_ike(&ours, &short).unwrap_err().misses.iter().all(|miss| miss.obstacles == [Obstacle::Spi]));
}

#[test]
fn reserved_or_odd_esp_spis_are_refused() {
    for wrong in [vec![], vec![0, 0, 0, 255], vec![1; 8]] {
        let mut theirs = esp_offered("aes128gcm16");
        theirs[0].spi = wrong;
        let mismatch = negotiate_esp(&esp("aes128gcm16"), &theirs).unwrap_err();
        assert_eq!(mismatch.misses[0].obstacles, [Obstacle::Spi]);
    }
}

#[test]
fn an_unknown_transform_type_spoils_only_its_proposal() {
    // R7296-3.3.6-3: what a peer with a later RFC offers, with a plain proposal behind it.
    let mut theirs = ike_offer(&ike("aes256gcm16-prfsha256-x25519,aes256gcm16-prfsha256-ecp256"), None);
    theirs[0].transforms.push(raw(TransformType::Other(13), 36, &[]));
    let ours = ike("aes256gcm16-prfsha256-x25519-ecp256");
    assert_eq!(negotiate_ike(&ours, &theirs).unwrap().answer.number, 2);
    let mismatch = negotiate_ike(&ours, &theirs[..1]).unwrap_err();
    assert_eq!(mismatch.misses[0].obstacles, [Obstacle::UnknownType(TransformType::Other(13))]);
    assert!(mismatch.nearest.contains("transform type 13"), "{}", mismatch.nearest);
}

/// RFC 9370 §2.2.1.
#[test]
fn additional_key_exchanges_are_agreed_on_round_by_round() {
    use KeyExchangeGroup::{Ecp384, MlKem768, MlKem1024};
    let chosen = |ours: &str, theirs: &str| {
        let ours = ike(&format!("aes256gcm16-prfsha256-x25519{ours}"));
        let theirs = ike(&format!("aes256gcm16-prfsha256-x25519{theirs}"));
        negotiate_ike(&ours, &ike_offer(&theirs, None)).map(|agreement| {
            let answer = check_ike_answer(&theirs, &[agreement.answer]).unwrap();
            assert_eq!(answer.suite, agreement.suite);
            agreement.suite.additional.rounds().map(|(round, group)| (round.number(), group)).collect::<Vec<_>>()
        })
    };
    assert_eq!(chosen("-ke1_mlkem1024-ke1_mlkem768", "-ke1_mlkem768-ke1_mlkem1024").unwrap(), [(1, MlKem1024)]);
    assert_eq!(
        chosen("-ke1_mlkem768-ke2_ecp384-ke7_mlkem1024", "-ke7_mlkem1024-ke2_ecp384-ke1_mlkem768").unwrap(),
        [(1, MlKem768), (2, Ecp384), (7, MlKem1024)]
    );
    // What may be left out, and what may not.
    assert_eq!(chosen("-ke1_mlkem768-ke1_none", "-ke1_none-ke1_mlkem768").unwrap(), [(1, MlKem768)]);
    assert_eq!(chosen("-ke1_none-ke1_mlkem768", "-ke1_mlkem768-ke1_none").unwrap(), []);
    assert_eq!(chosen("-ke1_mlkem768-ke1_none", "").unwrap(), []);
    assert_eq!(chosen("", "-ke1_mlkem768-ke1_none").unwrap(), []);
    let kind = TransformType::AdditionalKeyExchange(AdditionalRound::ALL[0]);
    let obstacle = |ours, theirs| chosen(ours, theirs).unwrap_err().misses[0].obstacles.clone();
    assert_eq!(obstacle("-ke1_mlkem768", ""), [Obstacle::Missing(kind)]);
    assert_eq!(obstacle("", "-ke1_mlkem768"), [Obstacle::Unwanted(kind)]);
    assert_eq!(obstacle("-ke1_mlkem768", "-ke1_mlkem1024-ke1_none"), [Obstacle::NothingInCommon(kind)]);
    let mismatch = chosen("-ke1_mlkem768", "-ke1_mlkem1024").unwrap_err();
    assert!(
        mismatch
            .nearest
            .ends_with("for additional key exchange 1, the peer offers KE1_ML_KEM_1024, we allow KE1_ML_KEM_768")
    );
    assert!(mismatch.hint.contains(",aes256gcm16-prfsha256-x25519-ke1_mlkem1024\""), "{}", mismatch.hint);
}

/// RFC 9370 §2.2.1: no method twice, whoever chooses.
#[test]
fn no_key_exchange_method_is_chosen_twice() {
    let theirs = ike("aes256gcm16-prfsha256-x25519-ecp384-ke1_x25519-ke1_ecp384-ke2_ecp384-ke2_none");
    let ours = ike("aes256gcm16-prfsha256-x25519-ke1_x25519-ke1_ecp384-ke2_ecp384-ke2_none");
    let agreement = negotiate_ike(&ours, &ike_offer(&theirs, None)).unwrap();
    assert_eq!(
        describe_proposal(&agreement.answer),
        "IKE:AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ECP_384/KE2_NONE"
    );
    assert!(check_ike_answer(&theirs, std::slice::from_ref(&agreement.answer)).is_ok());
    let mut twice = agreement.answer;
    twice.transforms[4].id = KeyExchangeGroup::Ecp384.id();
    let obstacle = Obstacle::NothingInCommon(twice.transforms[4].kind);
    assert_eq!(check_ike_answer(&theirs, &[twice]), Err(BadAnswer::NotOffered { number: 1, obstacle }));
    let only = ike("aes256gcm16-prfsha256-mlkem768-ke1_mlkem768");
    assert!(negotiate_ike(&only, &ike_offer(&only, None)).is_err());
}

#[test]
fn an_unknown_id_or_attribute_spoils_only_its_transform() {
    // R7296-3.3.6-4
    let mut theirs = esp_offered("aes128gcm16-esn-noesn");
    let with_unknown = [Attribute::key_length(256), Attribute { kind: 9, value: AttributeValue::Short(1) }];
    theirs[0].transforms.insert(0, raw(TransformType::Encryption, 20, &with_unknown));
    theirs[0].transforms.insert(0, raw(TransformType::Encryption, 1024, &[]));
    let agreement = negotiate_esp(&esp("aes256gcm16-aes128gcm16"), &theirs).unwrap();
    assert_eq!(agreement.suite.algorithms.cipher, EspCipher::AesGcm16 { key_bits: 128 });
}

#[test]
fn gmac_zero_keymat_odd_key_lengths_are_never_chosen() {
    // R7296-3.3.5-1, R7296-3.3.5-2
    let key_length = |value| vec![Attribute { kind: Attribute::KEY_LENGTH, value }];
    let wrong = [
        (20, vec![]),
        (12, vec![]),
        (20, vec![Attribute::key_length(0)]),
        (20, vec![Attribute::key_length(127)]),
        (20, vec![Attribute::key_length(65535)]),
        (20, vec![Attribute::key_length(256), Attribute::key_length(256)]),
        (20, key_length(AttributeValue::Long(vec![1, 0]))),
        (28, vec![Attribute::key_length(256)]),
        (28, vec![Attribute::key_length(0)]),
        (11, vec![Attribute::key_length(0)]),
    ];
    let ours = esp("aes256gcm16-chacha20poly1305,aes256-null-sha256");
    for (id, attributes) in wrong {
        let mut theirs = esp_offered("aes256gcm16,aes256-sha256");
        theirs.iter_mut().for_each(|its| its.transforms[0] = raw(TransformType::Encryption, id, &attributes));
        assert!(negotiate_esp(&ours, &theirs).is_err(), "{id} {attributes:?}");
    }
}

#[test]
fn an_aead_comes_with_integrity_none_or_without() {
    // R5282-8-1
    let ours = ike("aes256gcm16-prfsha256-ecp256");
    let offer = ike_offer(&ours, None);
    assert!(offer[0].transforms.iter().all(|its| its.kind != TransformType::Integrity));
    let mut with_none = offer.clone();
    with_none[0].transforms.push(raw(TransformType::Integrity, 0, &[]));
    let agreement = negotiate_ike(&ours, &with_none).unwrap();
    assert_eq!(agreement.answer.transforms.len(), 4, "NONE was offered, so it is in the answer");
    assert!(check_ike_answer(&ours, &[agreement.answer]).is_ok());
    let mut with_integrity = offer;
    with_integrity[0].transforms.push(raw(TransformType::Integrity, 12, &[]));
    let mismatch = negotiate_ike(&ours, &with_integrity).unwrap_err();
    assert_eq!(mismatch.misses[0].obstacles, [Obstacle::Unwanted(TransformType::Integrity)]);
}

/// R7296-2.18-1.
#[test]
fn proposal_without_dh_or_another_mandatory_type_is_unacceptable() {
    let ours = ike("aes128-sha256-modp2048");
    for missing in [1, 2, 3, 4].map(TransformType::from_number) {
        let mut theirs = ike_offer(&ours, None);
        theirs[0].transforms.retain(|its| its.kind != missing);
        assert_eq!(negotiate_ike(&ours, &theirs).unwrap_err().misses[0].obstacles, [Obstacle::Missing(missing)]);
    }
    let mut none = ike_offer(&ours, None);
    none[0]
        .transforms
        .iter_mut()
        .for_each(|its| its.id = if its.kind == TransformType::KeyExchange { 0 } else { its.id });
    assert!(negotiate_ike(&ours, &none).is_err(), "NONE is no key exchange");
    let mut without_numbers = esp_offered("aes128gcm16");
    without_numbers[0].transforms.retain(|its| its.kind != TransformType::SequenceNumbers);
    assert!(negotiate_esp(&esp("aes128gcm16"), &without_numbers).is_err());
}

#[test]
fn pfs_wants_a_group_from_both_sides() {
    let with = "aes128gcm16-ecp256";
    assert!(negotiate_esp(&esp(with), &esp_offered("aes128gcm16")).is_err());
    assert!(negotiate_esp(&esp("aes128gcm16"), &esp_offered(with)).is_err());
    let mut none = esp_offered("aes128gcm16");
    none[0].transforms.push(raw(TransformType::KeyExchange, 0, &[]));
    let agreement = negotiate_esp(&esp("aes128gcm16"), &none).unwrap();
    assert_eq!((agreement.suite.group, agreement.answer.transforms.len()), (None, 3));
    assert_eq!(without_groups(&esp("aes128gcm16-ecp256,aes128gcm16-modp2048")), esp("aes128gcm16"));
}

#[test]
fn an_offer_for_another_protocol_is_not_ours() {
    let mut theirs = esp_offered("aes128gcm16");
    theirs[0].protocol = Protocol::Ah;
    let mismatch = negotiate_esp(&esp("aes128gcm16"), &theirs).unwrap_err();
    assert_eq!(mismatch.misses[0].obstacles, [Obstacle::Protocol(Protocol::Ah)]);
}

#[test]
fn the_answer_must_be_one_of_our_offer() {
    // R7296-3.3.6-2
    let ours = ike("aes256gcm16-prfsha256-x25519,aes256-aes128-sha256-ecp256");
    let good = negotiate_ike(&ours[1..], &ike_offer(&ours, None)).unwrap().answer;
    assert_eq!(
        check_ike_answer(&ours, std::slice::from_ref(&good)).unwrap().suite.integrity,
        Some(IkeIntegrity::HmacSha2_256_128)
    );
    let changed = |change: fn(&mut WireProposal)| {
        let mut answer = good.clone();
        change(&mut answer);
        check_ike_answer(&ours, &[answer])
    };
    assert_eq!(changed(|its| its.number = 0), Err(BadAnswer::Number { number: 0, offered: 2 }));
    assert_eq!(changed(|its| its.number = 3), Err(BadAnswer::Number { number: 3, offered: 2 }));
    assert!(matches!(changed(|its| its.number = 1), Err(BadAnswer::NotOffered { number: 1, .. })));
    assert!(matches!(changed(|its| its.protocol = Protocol::Esp), Err(BadAnswer::NotOffered { .. })));
    assert!(matches!(changed(|its| its.transforms[0].attributes.clear()), Err(BadAnswer::NotOffered { .. })));
    assert!(matches!(changed(|its| its.transforms[3].id = 14), Err(BadAnswer::NotOffered { .. })));
    let obstacle = Obstacle::Missing(TransformType::KeyExchange);
    assert_eq!(changed(|its| its.transforms.truncate(3)), Err(BadAnswer::NotOffered { number: 2, obstacle }));
    let twice = changed(|its| its.transforms.push(WireTransform { id: 14, ..its.transforms[3].clone() }));
    assert_eq!(twice, Err(BadAnswer::Ambiguous(TransformType::KeyExchange)));
    assert_eq!(check_ike_answer(&ours, &[]), Err(BadAnswer::Count(0)));
    assert_eq!(check_ike_answer(&ours, &[good.clone(), good]), Err(BadAnswer::Count(2)));
}

#[test]
fn a_mismatch_names_the_nearest_miss_and_a_value_to_paste() {
    let theirs = ike_offer(&ike("aes128-sha1-modp2048,aes256gcm16-prfsha384-modp2048-modp3072"), None);
    let mismatch =
        negotiate_ike(&ike("chacha20poly1305-prfsha256-x25519,aes256gcm16-prfsha384-ecp384"), &theirs).unwrap_err();
    assert_eq!(
        mismatch.nearest,
        "`aes256gcm16-prfsha384-ecp384` and the peer's proposal 2 differ: \
         for key exchange group, the peer offers MODP_2048, MODP_3072, we allow ECP_384"
    );
    assert_eq!(
        mismatch.hint,
        "ike = \"chacha20poly1305-prfsha256-x25519,aes256gcm16-prfsha384-ecp384,aes256gcm16-prfsha384-modp2048\" \
         would agree with the peer"
    );
    assert_eq!(mismatch.theirs[0], "IKE:AES_CBC_128/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_2048");
    assert_eq!((mismatch.ours.len(), mismatch.theirs.len(), mismatch.misses.len()), (2, 2, 4));
}

#[test]
fn a_mismatch_with_the_defaults_keeps_them_in_the_value_to_paste() {
    let theirs = esp_offered("aes256-sha1");
    let mismatch = negotiate_esp(&default_esp_proposals(), &theirs).unwrap_err();
    assert_eq!(mismatch.hint, "esp = \"default,aes256-sha1\" would agree with the peer (weak: better change the peer)");
}

#[test]
fn a_mismatch_that_no_configuration_can_cure_says_so() {
    let mut theirs = ike_offer(&ike("aes128-sha1-modp2048"), None);
    theirs[0].transforms[0] = raw(TransformType::Encryption, 3, &[]);
    theirs[0].transforms[3].id = 2;
    let mismatch = negotiate_ike(&ike("aes128-sha256-x25519"), &theirs).unwrap_err();
    assert!(mismatch.nearest.contains("3DES_CBC") && mismatch.nearest.contains("MODP_1024"), "{}", mismatch.nearest);
    assert_eq!(
        mismatch.hint,
        "none of the peer's proposals can be met here; let the peer offer `aes128-sha256-x25519`"
    );
}

/// R7296-5-1.
#[test]
fn an_ike_sa_is_never_without_encryption_or_integrity() {
    let every = || ike("aes128-aes256-sha1-sha256-prfsha1-prfsha256-modp2048-x25519,default");
    let refused = |change: &dyn Fn(&mut WireProposal)| {
        let mut theirs = ike_offer(&ike("aes128-sha256-prfsha256-x25519"), None);
        theirs.iter_mut().for_each(change);
        negotiate_ike(&every(), &theirs).is_err()
    };
    assert!(!refused(&|_| {}));
    let null = raw(TransformType::Encryption, 11, &[]);
    assert!(refused(&|its| its.transforms[0] = null.clone()), "no encryption");
    assert!(refused(&|its| its.transforms[1].id = 0), "NONE for integrity");
    assert!(refused(&|its| drop(its.transforms.remove(1))), "no integrity");
    assert!("null-sha256-x25519".parse::<IkeProposal>().is_err());
    assert!("aes128-x25519-prfsha256".parse::<IkeProposal>().is_err());
}

/// md5_prf_policy.
#[test]
fn md5_prf_policy_weak_algorithms_are_neither_chosen_nor_configured() {
    let weak = [
        (TransformType::PseudoRandomFunction, 1),
        (TransformType::Integrity, 1),
        (TransformType::Encryption, 2),
        (TransformType::Encryption, 3),
        (TransformType::KeyExchange, 1),
        (TransformType::KeyExchange, 2),
        (TransformType::KeyExchange, 5),
        (TransformType::KeyExchange, 22),
    ];
    for (kind, id) in weak {
        let mut theirs = ike_offer(&ike("aes128-sha256-prfsha256-modp2048"), None);
        for transform in theirs[0].transforms.iter_mut().filter(|its| its.kind == kind) {
            *transform = raw(kind, id, &[]);
        }
        assert!(negotiate_ike(&default_ike_proposals(), &theirs).is_err(), "{kind} {id}");
    }
    for text in
        ["aes128-md5-modp2048", "aes128-sha256-prfmd5-modp2048", "3des-sha256-modp2048", "aes128-sha256-modp1024"]
    {
        assert!(text.parse::<IkeProposal>().is_err(), "{text}");
    }
}

#[test]
fn unknown_transforms_are_described_by_number() {
    let long = Attribute { kind: 17, value: AttributeValue::Long(vec![1, 2]) };
    let transforms = vec![
        raw(TransformType::Encryption, 1024, &[Attribute::key_length(256), long]),
        raw(TransformType::KeyExchange, 36, &[]),
        raw(TransformType::AdditionalKeyExchange(AdditionalRound::ALL[1]), 37, &[]),
        raw(TransformType::AdditionalKeyExchange(AdditionalRound::ALL[2]), 4711, &[]),
        raw(TransformType::Other(241), 1, &[]),
    ];
    let proposal = WireProposal { number: 1, protocol: Protocol::Other(9), spi: vec![], transforms };
    assert_eq!(
        describe_proposal(&proposal),
        "protocol 9:ENCR_1024_256(attribute 17: 2 octets)/ML_KEM_768/KE2_ML_KEM_1024/KE3_4711/TYPE241_1"
    );
}

#[test]
fn the_defaults_agree_with_themselves_and_prefer_short_sequence_numbers() {
    let (ike, esp) = (default_ike_proposals(), default_esp_proposals());
    let suite = negotiate_ike(&ike, &ike_offer(&ike, None)).unwrap().suite;
    assert_eq!((suite.cipher, suite.group), (IkeCipher::AesGcm16 { key_bits: 256 }, KeyExchangeGroup::Curve25519));
    let agreement = negotiate_esp(&esp, &esp_offer(&esp, spi())).unwrap();
    assert!(!agreement.suite.algorithms.extended_sequence_numbers && agreement.suite.algorithms.is_sound());
    assert!(
        ike.iter().all(|its| !its.integrity.contains(&IkeIntegrity::HmacSha1_96) && !its.prfs.contains(&Prf::HmacSha1))
    );
}

fn some<A: Algorithm + std::fmt::Debug>(from: usize, filter: fn(&A) -> bool) -> impl Strategy<Value = Vec<A>> {
    let all: Vec<A> = A::ALL.iter().copied().filter(filter).collect();
    let most = all.len();
    subsequence(all, from..=most).prop_shuffle()
}

fn any_ike() -> impl Strategy<Value = IkeProposal> {
    let ciphers = prop_oneof![
        (some(1, |cipher: &IkeCipher| cipher.is_aead()), Just(Vec::new())),
        (some(1, |cipher: &IkeCipher| !cipher.is_aead()), some(1, |_: &IkeIntegrity| true)),
    ];
    (ciphers, some(1, |_: &Prf| true), some(1, is_diffie_hellman), any_rounds()).prop_map(
        |((ciphers, integrity), prfs, groups, additional)| IkeProposal { ciphers, integrity, prfs, groups, additional },
    )
}

fn is_diffie_hellman(group: &KeyExchangeGroup) -> bool {
    (*group as u16) < KeyExchangeGroup::MlKem512 as u16
}

/// Rounds that have no method in common with each other or with the first key exchange.
fn any_rounds() -> impl Strategy<Value = Rounds> {
    use KeyExchangeGroup::{MlKem512, MlKem768, MlKem1024};
    let one = subsequence(vec![Some(MlKem512), Some(MlKem768), None], 0..=3).prop_shuffle();
    let another = subsequence(vec![Some(MlKem1024), None], 0..=2).prop_shuffle();
    (one, another).prop_map(|(one, another)| {
        let mut rounds = Rounds::default();
        (rounds[0], rounds[3]) = (one, another);
        rounds
    })
}

fn any_esp() -> impl Strategy<Value = EspProposal> {
    let ciphers = prop_oneof![
        (some(1, |cipher: &EspCipher| cipher.is_aead()), Just(Vec::new())),
        (some(1, |cipher: &EspCipher| !cipher.is_aead()), some(1, |_: &EspIntegrity| true)),
    ];
    let numbers = prop_oneof![Just(vec![false]), Just(vec![true]), Just(vec![true, false]), Just(vec![false, true])];
    (ciphers, some(0, is_diffie_hellman), any_rounds(), numbers).prop_map(
        |((ciphers, integrity), groups, rounds, extended_sequence_numbers)| {
            let additional = if groups.is_empty() { Rounds::default() } else { rounds };
            EspProposal {
                protocol: IpsecProtocol::Esp,
                ciphers,
                integrity,
                groups,
                additional,
                extended_sequence_numbers,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(ike in any_ike(), esp in any_esp()) {
        prop_assert_eq!(ike.to_string().parse(), Ok(ike));
        prop_assert_eq!(esp.to_string().parse(), Ok(esp));
    }

    #[test]
    fn lists_are_read_back_proposal_by_proposal(proposals in vec(any_ike(), 1..4)) {
        let texts: Vec<_> = proposals.iter().map(ToString::to_string).collect();
        prop_assert_eq!(parse_ike_list(&texts.join(" , ")), Ok(proposals));
    }

    #[test]
    fn arbitrary_text_is_read_or_refused_with_a_place_in_it(text in "(?s).{0,40}|[a-z0-9_,! -]{0,60}") {
        for error in [parse_ike_list(&text).err(), parse_esp_list(&text).err()].into_iter().flatten() {
            prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error.span);
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn both_ends_end_up_with_the_same_suite(ours in vec(any_ike(), 1..3), theirs in vec(any_ike(), 1..3)) {
        let offer = ike_offer(&theirs, None);
        match negotiate_ike(&ours, &offer) {
            Ok(IkeAgreement { suite, answer, .. }) => {
                prop_assert_eq!(check_ike_answer(&theirs, &[answer]).map(|agreement| agreement.suite), Ok(suite));
                prop_assert_eq!(suite.cipher.is_aead(), suite.integrity.is_none());
            }
            Err(mismatch) => {
                let pasted = mismatch.hint.split('"').nth(1).map(parse_ike_list);
                prop_assert!(pasted.is_some_and(|value| negotiate_ike(&value.unwrap(), &offer).is_ok()));
            }
        }
    }

    #[test]
    fn both_ends_end_up_with_the_same_child_suite(ours in vec(any_esp(), 1..3), theirs in vec(any_esp(), 1..3)) {
        let offer = esp_offer(&theirs, spi());
        match negotiate_esp(&ours, &offer) {
            Ok(EspAgreement { suite, mut answer, .. }) => {
                answer.spi = vec![9; 4];
                prop_assert_eq!(check_esp_answer(&theirs, &[answer]).map(|agreement| agreement.suite), Ok(suite));
                prop_assert!(suite.algorithms.is_sound());
            }
            Err(mismatch) => {
                let pasted = mismatch.hint.split('"').nth(1).map(parse_esp_list);
                prop_assert!(pasted.is_some_and(|value| negotiate_esp(&value.unwrap(), &offer).is_ok()));
            }
        }
    }
}
