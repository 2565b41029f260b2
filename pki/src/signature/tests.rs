use der::Encode;
use der::asn1::{Any, BitString, ObjectIdentifier};
use rsa::pkcs1v15::Pkcs1v15Sign;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::*;
use crate::key::{PrivateKey, PublicKey, Secret};
use crate::test_support::{hex, key, rng};

const ALL_KEYS: [KeyType; 5] = [
    KeyType::Rsa { bits: 2048 },
    KeyType::Ecdsa(Curve::P256),
    KeyType::Ecdsa(Curve::P384),
    KeyType::Ecdsa(Curve::P521),
    KeyType::Ed25519,
];

fn rsa() -> &'static PrivateKey {
    key(KeyType::Rsa { bits: 2048 })
}

/// RFC 7427 appendix A; PSS without the trailer field that DER leaves out.
#[test]
fn identifiers_are_those_of_rfc_7427_and_8420() {
    for (scheme, expected) in [
        (SignatureScheme::RsaPkcs1(HashAlgorithm::Sha1), "300d06092a864886f70d0101050500"),
        (SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256), "300d06092a864886f70d01010b0500"),
        (SignatureScheme::RsaPkcs1(HashAlgorithm::Sha384), "300d06092a864886f70d01010c0500"),
        (SignatureScheme::RsaPkcs1(HashAlgorithm::Sha512), "300d06092a864886f70d01010d0500"),
        (SignatureScheme::Ecdsa(HashAlgorithm::Sha1), "300906072a8648ce3d0401"),
        (SignatureScheme::Ecdsa(HashAlgorithm::Sha256), "300a06082a8648ce3d040302"),
        (SignatureScheme::Ecdsa(HashAlgorithm::Sha384), "300a06082a8648ce3d040303"),
        (SignatureScheme::Ecdsa(HashAlgorithm::Sha512), "300a06082a8648ce3d040304"),
        (SignatureScheme::Ed25519, "300506032b6570"),
        (
            SignatureScheme::pss(HashAlgorithm::Sha256),
            &PSS_SHA256.replace("a303020101", "").replace("3046", "3041").replace("3039", "3034"),
        ),
    ] {
        assert_eq!(scheme.algorithm_identifier(), hex(expected), "{scheme}");
        assert_eq!(SignatureScheme::from_algorithm_identifier(&hex(expected)), Ok(scheme));
    }
    assert_eq!(SignatureScheme::from_ike(&hex(PSS_SHA256)), Ok(SignatureScheme::pss(HashAlgorithm::Sha256)));
}

/// RFC 7427 appendix A.4.3.
const PSS_SHA256: &str = "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d01010830\
    0d06096086480165030402010500a203020120a303020101";
/// RFC 7427 appendix A.4.1 and A.4.2.
const PSS_EMPTY: &str = "300d06092a864886f70d01010a3000";
const PSS_DEFAULT: &str = "303e06092a864886f70d01010a3031a00b300906052b0e03021a0500a118301606092a864886f70d010108300906052b\
    0e03021a0500a203020114a303020101";

/// NULL parameters are sometimes there and sometimes not (RFC 7427 §3).
#[test]
fn null_and_absent_parameters_mean_the_same_except_for_ed25519() {
    let rsa = SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256);
    assert_eq!(SignatureScheme::from_ike(&hex("300b06092a864886f70d01010b")), Ok(rsa));
    let ecdsa = SignatureScheme::Ecdsa(HashAlgorithm::Sha256);
    assert_eq!(SignatureScheme::from_ike(&hex("300c06082a8648ce3d0403020500")), Ok(ecdsa));
    for wrong in ["300706032b65700500", "300e06092a864886f70d01010b050100", "300e06092a864886f70d01010b020101"] {
        assert!(SignatureScheme::from_ike(&hex(wrong)).is_err(), "{wrong}");
    }
}

/// R8247-3.2-1
#[test]
fn sha1_in_auth_is_refused_in_every_form() {
    for der in [
        "300d06092a864886f70d0101050500",
        "300906072a8648ce3d0401",
        PSS_EMPTY,
        PSS_DEFAULT,
        "300b06092a864886f70d01010a",
    ] {
        assert_eq!(SignatureScheme::from_ike(&hex(der)), Err(AlgorithmError::Sha1), "{der}");
    }
}

/// PSS without MGF1 hash, with another one, with a salt that is huge or negative, with another trailer.
/// R8247-3.2-2.
#[test]
fn pss_params() {
    let good = hex(PSS_SHA256);
    let with = |from: &str, to: &str| {
        let text: String = good.iter().map(|octet| format!("{octet:02x}")).collect();
        assert!(text.contains(from), "{from}");
        SignatureScheme::from_ike(&relengthened(&hex(&text.replace(from, to))))
    };
    assert_eq!(
        with("a203020120", "a20302017f"),
        Ok(SignatureScheme::RsaPss { hash: HashAlgorithm::Sha256, salt_len: 127 })
    );
    assert_eq!(
        with("a203020120", "a203020100"),
        Ok(SignatureScheme::RsaPss { hash: HashAlgorithm::Sha256, salt_len: 0 })
    );
    assert_eq!(with("a203020120", "a206020440000000"), Err(AlgorithmError::PssSalt(1 << 30)));
    assert!(with("a203020120", "a2040202ffff").is_err());
    assert!(with("a203020120", "a203020180").is_err(), "negative");
    assert!(with("a203020120", "a20a0208ffffffffffffffff").is_err());
    assert_eq!(
        with("a303020101", "a303020102"),
        Err(AlgorithmError::Parameters(ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10")))
    );
    let mask = "a11c301a06092a864886f70d010108300d06096086480165030402010500";
    assert_eq!(with(mask, "a118301606092a864886f70d010108300906052b0e03021a0500"), Err(AlgorithmError::PssMask));
    assert_eq!(with(mask, "a10d300b06092a864886f70d010108"), Err(AlgorithmError::PssMask), "no hash");
    assert_eq!(
        with(mask, "a11c301a06092a864886f70d010107300d06096086480165030402010500"),
        Err(AlgorithmError::PssMask),
        "not MGF1"
    );
    assert_eq!(with(mask, ""), Err(AlgorithmError::PssMask), "the default is SHA-1");
}

/// Sets the lengths of the two outer sequences of a PSS identifier.
fn relengthened(der: &[u8]) -> Vec<u8> {
    let mut der = der.to_vec();
    let len = u8::try_from(der.len()).unwrap();
    (der[1], der[14]) = (len - 2, len - 15);
    der
}

#[test]
fn every_key_verifies_what_it_signs_with_every_hash() {
    for key_type in ALL_KEYS {
        let key = key(key_type);
        for hash in HashAlgorithm::ALL {
            for padding in [RsaPadding::Pkcs1, RsaPadding::Pss] {
                let scheme = SignatureScheme::with_hash(key_type, hash, padding);
                let signature = key.sign(scheme, b"message", &mut rng(1)).unwrap();
                assert_eq!(key.public_key().verify(scheme, b"message", &signature), Ok(()), "{key_type} {scheme}");
                let wrong = Err(VerifyError::Wrong(scheme));
                assert_eq!(key.public_key().verify(scheme, b"massage", &signature), wrong, "{key_type} {scheme}");
                assert_eq!(key.public_key().verify(scheme, b"message", &signature[1..]), wrong);
                assert_eq!(key.public_key().verify(scheme, b"message", &[]), wrong);
            }
        }
    }
}

#[test]
fn a_key_of_another_kind_neither_signs_nor_verifies() {
    let scheme = SignatureScheme::Ecdsa(HashAlgorithm::Sha256);
    let key_type = KeyType::Rsa { bits: 2048 };
    assert_eq!(rsa().sign(scheme, b"", &mut rng(1)), Err(SignError::WrongKey { key: key_type, scheme }));
    assert_eq!(rsa().public_key().verify(scheme, b"", &[]), Err(VerifyError::WrongKey { key: key_type, scheme }));
    assert!(!scheme.fits(key_type));
}

#[test]
fn pss_counts_only_with_the_salt_it_says() {
    let (hash, public) = (HashAlgorithm::Sha256, rsa().public_key());
    for salt_len in [0, 20, 32, 222] {
        let scheme = SignatureScheme::RsaPss { hash, salt_len };
        let signature = rsa().sign(scheme, b"message", &mut rng(1)).unwrap();
        assert_eq!(public.verify(scheme, b"message", &signature), Ok(()), "{salt_len}");
        let other = SignatureScheme::RsaPss { hash, salt_len: salt_len ^ 1 };
        assert_eq!(public.verify(other, b"message", &signature), Err(VerifyError::Wrong(other)));
    }
    let too_much = SignatureScheme::RsaPss { hash, salt_len: 223 };
    assert_eq!(rsa().sign(too_much, b"message", &mut rng(1)), Err(SignError::Failed(too_much)));
    assert_eq!(public.verify(too_much, b"message", &[1; 256]), Err(VerifyError::Wrong(too_much)));
}

/// A signature equal to the modulus or above, or with zeros in front.
#[test]
fn rsa_sig_eq_n() {
    let Secret::Rsa(numbers) = &rsa().secret else { panic!("an RSA key") };
    let modulus = rsa::traits::PublicKeyParts::n_bytes(&**numbers).to_vec();
    let public = rsa().public_key();
    for scheme in [SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256), SignatureScheme::pss(HashAlgorithm::Sha256)] {
        let wrong = Err(VerifyError::Wrong(scheme));
        assert_eq!(public.verify(scheme, b"", &modulus), wrong);
        assert_eq!(public.verify(scheme, b"", &[0xff; 256]), wrong);
        assert_eq!(public.verify(scheme, b"", &[0; 256]), wrong);
        let good = rsa().sign(scheme, b"", &mut rng(1)).unwrap();
        assert_eq!(public.verify(scheme, b"", &[&[0], &good[..]].concat()), wrong, "as long as the modulus");
    }
}

/// Trailing octets after the hash, long parameters, no parameters, another hash in DigestInfo, a truncated hash.
#[test]
fn pkcs1_lenient() {
    let Secret::Rsa(numbers) = &rsa().secret else { panic!("an RSA key") };
    let scheme = SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256);
    let forge = |content: &[u8]| numbers.sign_with_rng(&mut rng(1), Pkcs1v15Sign::new_unprefixed(), content).unwrap();
    let verify = |content: &[u8]| rsa().public_key().verify(scheme, b"message", &forge(content));
    let hash = HashAlgorithm::Sha256.digest(b"message");
    let info = [hex("3031300d060960864801650304020105000420"), hash.clone()].concat();
    assert_eq!(verify(&info), Ok(()));
    // As Bleichenbacher did it in 2006: eight octets of padding, then the hash, then as much as one likes.
    let garbage = [info.clone(), vec![0x5a; 256 - 3 - 8 - info.len()]].concat();
    let no_null = [hex("302f300b0609608648016503040201"), hex("0420"), hash.clone()].concat();
    let long_parameters = [hex("3036301206096086480165030402010405aaaaaaaaaa0420"), hash.clone()].concat();
    let long_length = [hex("308131300d060960864801650304020105000420"), hash.clone()].concat();
    let other_hash = [hex("3031300d060960864801650304020205000420"), hash.clone()].concat();
    let truncated = [hex("3030300d06096086480165030402010500041f"), hash[..31].to_vec()].concat();
    let oversized = [hex("3032300d060960864801650304020105000421"), hash.clone(), vec![0]].concat();
    for (index, content) in
        [garbage, no_null, long_parameters, long_length, other_hash, truncated, oversized, hash, vec![]]
            .iter()
            .enumerate()
    {
        assert_eq!(verify(content), Err(VerifyError::Wrong(scheme)), "case {index}");
    }
}

/// r or s zero, equal to the group order or larger, negative, with zeros in front, with octets after.
#[test]
fn ecdsa_zero() {
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let key = key(KeyType::Ecdsa(Curve::P256)).public_key();
    let scheme = SignatureScheme::Ecdsa(HashAlgorithm::Sha256);
    let one = "020101";
    for (r, s) in [
        ("020100", one),
        (one, "020100"),
        ("020100", "020100"),
        (&format!("022100{order}"), one),
        (one, &format!("022100{order}")),
        (one, &format!("022100{}", "ff".repeat(32))),
        ("0201ff", one),
        ("0200", one),
        ("02020001", one),
        (one, "0201010500"),
    ] {
        let numbers = hex(&format!("{r}{s}"));
        let der = [&[0x30, u8::try_from(numbers.len()).unwrap()], &numbers[..]].concat();
        assert_eq!(key.verify(scheme, b"", &der), Err(VerifyError::Wrong(scheme)), "{r} {s}");
    }
    for fixed in [vec![0; 64], hex(&format!("{order}{order}")), vec![0xff; 64], vec![1; 63], vec![1; 65], vec![]] {
        let verified = key.verify_legacy(LegacyMethod::Ecdsa256, b"", &fixed, true);
        assert_eq!(verified, Err(VerifyError::Wrong(scheme)), "{fixed:?}");
    }
}

/// Moduli that are even, tiny or zero, exponents that are 0, 1, even or huge, and numbers that are negative.
#[test]
fn rsa_bad_key() {
    let Secret::Rsa(numbers) = &rsa().secret else { panic!("an RSA key") };
    let modulus = rsa::traits::PublicKeyParts::n_bytes(&**numbers).to_vec();
    let mut even = modulus.clone();
    *even.last_mut().unwrap() &= 0xfe;
    let spki = |modulus: &[u8], exponent: &[u8]| {
        let integer = |octets: &[u8]| Any::new(der::Tag::Integer, octets).unwrap();
        let bits = vec![integer(&[&[0], modulus].concat()), integer(exponent)].to_der().unwrap();
        let algorithm = AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
            parameters: Some(Any::null()),
        };
        let subject_public_key = BitString::from_bytes(&bits).unwrap();
        PublicKey::from_spki_der(&SubjectPublicKeyInfoOwned { algorithm, subject_public_key }.to_der().unwrap())
    };
    assert!(spki(&modulus, &[1, 0, 1]).is_ok() && spki(&modulus, &[3]).is_ok());
    let huge = [&[0x7f][..], &[0xff; 200]].concat();
    for exponent in [&[0][..], &[1], &[2], &[0xff], &[1, 0, 0], &[2, 0, 0, 0, 1], &huge, &[0, 1]] {
        assert!(spki(&modulus, exponent).is_err(), "exponent {exponent:?}");
    }
    for modulus in [&even[..], &[], &[0], &[0x80 | 1], &[0xff; 127], &[0xff; 1025], &[0xff; 60_000]] {
        assert!(spki(modulus, &[1, 0, 1]).is_err(), "modulus of {} octets", modulus.len());
    }
}

/// RFC 4754 §8.
#[test]
fn the_vectors_of_rfc_4754_verify() {
    for (curve, method, x, y, signature) in [
        (
            Curve::P256,
            LegacyMethod::Ecdsa256,
            "2442A5CC0ECD015FA3CA31DC8E2BBC70BF42D60CBCA20085E0822CB04235E970",
            "6FC98BD7E50211A4A27102FA3549DF79EBCB4BF246B80945CDDFE7D509BBFD7D",
            "CB28E0999B9C7715FD0A80D8E47A77079716CBBF917DD72E97566EA1C066957C\
             86FA3BB4E26CAD5BF90B7F81899256CE7594BB1EA0C89212748BFF3B3D5B0315",
        ),
        (
            Curve::P384,
            LegacyMethod::Ecdsa384,
            "96281BF8DD5E0525CA049C048D345D3082968D10FEDF5C5ACA0C64E6465A97EA5CE10C9DFEC21797415710721F437922",
            "447688BA94708EB6E2E4D59F6AB6D7EDFF9301D249FE49C33096655F5D502FAD3D383B91C5E7EDAA2B714CC99D5743CA",
            "FB017B914E29149432D8BAC29A514640B46F53DDAB2C69948084E2930F1C8F7E08E07C9C63F2D21A07DCB56A6AF56EB3\
             B263A1305E057F984D38726A1B46874109F417BCA112674C528262A40A629AF1CBB9F516CE0FA7D2FF630863A00E8B9F",
        ),
        (
            Curve::P521,
            LegacyMethod::Ecdsa521,
            "0151518F1AF0F563517EDD5485190DF95A4BF57B5CBA4CF2A9A3F6474725A35F7AFE0A6DDEB8BEDBCD6A197E592D40188901\
             CECD650699C9B5E456AEA5ADD19052A8",
            "006F3B142EA1BFFF7E2837AD44C9E4FF6D2D34C73184BBAD90026DD5E6E85317D9DF45CAD7803C6C20035B2F3FF63AFF4E1B\
             A64D1C077577DA3F4286C58F0AEAE643",
            "0154FD3836AF92D0DCA57DD5341D3053988534FDE8318FC6AAAAB68E2E6F4339B19F2F281A7E0B22C269D93CF8794A927888\
             0ED7DBB8D9362CAEACEE544320552251017705A7030290D1CEB605A9A1BB03FF9CDD521E87A696EC926C8C10C8362DF49753\
             67101F67D1CF9BCCBF2F3D239534FA509E70AAC851AE01AAC68D62F866472660",
        ),
    ] {
        let algorithm = AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"),
            parameters: Some(Any::encode_from(&curve.oid()).unwrap()),
        };
        let point = [vec![4], hex(x), hex(y)].concat();
        let info = SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(&point).unwrap() };
        let key = PublicKey::from_spki_der(&info.to_der().unwrap()).unwrap();
        let natural = SignatureScheme::natural(KeyType::Ecdsa(curve), RsaPadding::Pkcs1).hash();
        assert_eq!(key.verify_legacy(method, b"abc", &hex(signature), false).ok(), natural);
        assert!(key.verify_legacy(method, b"abd", &hex(signature), false).is_err());
    }
}

#[test]
fn legacy_methods_sign_and_verify_in_the_fixed_form() {
    for (curve, method, len) in [
        (Curve::P256, LegacyMethod::Ecdsa256, 64),
        (Curve::P384, LegacyMethod::Ecdsa384, 96),
        (Curve::P521, LegacyMethod::Ecdsa521, 132),
    ] {
        let key = key(KeyType::Ecdsa(curve));
        let (used, signature) = key.sign_legacy(HashAlgorithm::Sha1, b"message", &mut rng(1)).unwrap();
        assert_eq!((used, signature.len()), (method, len));
        assert!(key.public_key().verify_legacy(method, b"message", &signature, false).is_ok());
        assert!(key.public_key().verify_legacy(LegacyMethod::Rsa, b"message", &signature, true).is_err());
    }
    assert!(key(KeyType::Ed25519).sign_legacy(HashAlgorithm::Sha1, b"", &mut rng(1)).is_err());
}

#[test]
fn rsa_method_1_over_sha1_counts_only_where_it_is_allowed() {
    let (method, signature) = rsa().sign_legacy(HashAlgorithm::Sha1, b"message", &mut rng(1)).unwrap();
    let verify = |signature: &[u8], sha1| rsa().public_key().verify_legacy(method, b"message", signature, sha1);
    assert_eq!(verify(&signature, true), Ok(HashAlgorithm::Sha1));
    assert_eq!(verify(&signature, false), Err(VerifyError::Sha1));
    let (_, signature) = rsa().sign_legacy(HashAlgorithm::Sha512, b"message", &mut rng(1)).unwrap();
    assert_eq!(verify(&signature, false), Ok(HashAlgorithm::Sha512));
}

/// R7427-4-1, R8420-2-1
#[test]
fn the_hash_is_one_that_the_peer_listed() {
    let rsa = KeyType::Rsa { bits: 2048 };
    let choose = |key, hashes: &[u16]| SignatureScheme::for_peer(key, hashes, RsaPadding::Pkcs1);
    assert_eq!(choose(rsa, &[1, 2, 3, 4]), Some(SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256)));
    assert_eq!(choose(rsa, &[1, 4]), Some(SignatureScheme::RsaPkcs1(HashAlgorithm::Sha512)));
    assert_eq!(choose(rsa, &[1, 5]), None, "never SHA-1");
    assert_eq!(choose(KeyType::Ecdsa(Curve::P521), &[2, 3]), Some(SignatureScheme::Ecdsa(HashAlgorithm::Sha384)));
    assert_eq!(choose(KeyType::Ecdsa(Curve::P256), &[4]), Some(SignatureScheme::Ecdsa(HashAlgorithm::Sha512)));
    assert_eq!(choose(KeyType::Ed25519, &[2, 5]), Some(SignatureScheme::Ed25519));
    assert_eq!(choose(KeyType::Ed25519, &[1, 2, 3, 4]), None, "only to peers that know Identity");
    let pss = SignatureScheme::for_peer(KeyType::Rsa { bits: 4096 }, &[2, 3, 4], RsaPadding::Pss);
    assert_eq!(pss, Some(SignatureScheme::pss(HashAlgorithm::Sha384)));
    assert_eq!(SignatureScheme::Ed25519.ike_hash_number(), 5);
}

proptest::proptest! {
    #[test]
    fn no_octets_make_the_parsers_panic(octets: Vec<u8>) {
        proptest::prop_assert!(SignatureScheme::from_algorithm_identifier(&octets).is_err());
        proptest::prop_assert!(PublicKey::from_spki_der(&octets).is_err());
        proptest::prop_assert!(PrivateKey::from_der(&octets).is_err());
    }

    #[test]
    fn no_octets_are_a_signature(octets: Vec<u8>, at in 0..5usize) {
        let key_type = ALL_KEYS[at];
        let scheme = SignatureScheme::natural(key_type, RsaPadding::Pss);
        proptest::prop_assert!(key(key_type).public_key().verify(scheme, b"message", &octets).is_err());
    }
}
