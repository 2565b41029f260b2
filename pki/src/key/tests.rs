use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};

use super::*;
use crate::pem;
use crate::test_support::{key, named_key, rng};

const ALL: [KeyType; 6] = [
    KeyType::Rsa { bits: 2048 },
    KeyType::Rsa { bits: 3072 },
    KeyType::Ecdsa(Curve::P256),
    KeyType::Ecdsa(Curve::P384),
    KeyType::Ecdsa(Curve::P521),
    KeyType::Ed25519,
];

#[test]
fn keys_are_of_the_type_that_was_asked_for_and_read_as_they_are_written() {
    for key_type in ALL {
        let key = key(key_type);
        assert_eq!(key.key_type(), key_type);
        for format in [KeyFormat::Pkcs8, KeyFormat::Traditional] {
            let (der, pem) = (key.to_der(format), key.to_pem(format));
            for read in [PrivateKey::load(&der, None), PrivateKey::load(pem.as_bytes(), None)] {
                let read = read.unwrap_or_else(|error| panic!("{key_type}: {error}"));
                assert_eq!(read.public_key(), key.public_key(), "{key_type} {format:?}");
                assert_eq!(read.to_der(format), der);
            }
        }
        let public = PublicKey::from_spki_der(key.public_key().spki_der()).unwrap();
        assert_eq!((public.key_id(), public.spki_id()), (key.public_key().key_id(), key.public_key().spki_id()));
    }
    assert_eq!(KeyType::Ed25519.to_string(), "ED25519 256 bits");
    let labels = ALL.map(|key_type| {
        let pem = key(key_type).to_pem(KeyFormat::Traditional);
        pem::parse(pem.as_bytes()).unwrap().remove(0).label
    });
    let [rsa, ec] = ["RSA PRIVATE KEY", "EC PRIVATE KEY"];
    assert_eq!(labels, [rsa, rsa, ec, ec, ec, "PRIVATE KEY"]);
}

#[test]
fn an_encrypted_key_opens_with_its_passphrase_only() {
    let key = key(KeyType::Ed25519);
    let pem = key.to_encrypted_pem("secret", &mut rng(1));
    let open = |passphrase| PrivateKey::load(pem.as_bytes(), passphrase).map(|key| key.public_key().clone());
    assert_eq!(open(Some("secret")).as_ref(), Ok(key.public_key()));
    assert_eq!(open(None), Err(KeyFileError::PassphraseNeeded));
    assert_eq!(open(Some("Secret")), Err(KeyFileError::WrongPassphrase));
    let der = &pem::parse(pem.as_bytes()).unwrap()[0].der;
    assert!(PrivateKey::load(der, Some("secret")).is_ok(), "DER says by itself that it is encrypted");
}

#[test]
fn other_pem_and_old_encryption_are_named() {
    let public = pem::encode("PUBLIC KEY", key(KeyType::Ed25519).public_key().spki_der());
    let error = PrivateKey::load(public.as_bytes(), None).err().unwrap();
    assert_eq!(error.to_string(), "there is no private key in it, but: PUBLIC KEY");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\nAAEC\n-----END RSA PRIVATE KEY-----";
    let error = PrivateKey::load(old.as_bytes(), Some("x")).err().unwrap();
    assert!(error.to_string().contains("openssl pkcs8 -topk8"), "{error}");
}

#[test]
fn rsa_keys_have_2048_to_8192_bits() {
    for bits in [0, 1024, 2047, 2049, 8200, u32::MAX] {
        let error = PrivateKey::generate(KeyType::Rsa { bits }, &mut rng(1)).err();
        assert_eq!(error, Some(KeyError::RsaSize { bits }));
    }
}

/// Numbers of a private key that do not belong together.
#[test]
fn rsa_bad_key() {
    let good = key(KeyType::Rsa { bits: 2048 }).to_der(KeyFormat::Traditional);
    let numbers = pkcs1::RsaPrivateKeyRef::from_der(&good).unwrap();
    let uint = |octets: &'static [u8]| der::asn1::UintRef::new(octets).unwrap();
    let of = |change: &dyn Fn(&mut pkcs1::RsaPrivateKeyRef<'_>)| {
        let mut numbers = numbers.clone();
        change(&mut numbers);
        PrivateKey::from_der(&numbers.to_der().unwrap()).err()
    };
    assert_eq!(of(&|_| {}), None);
    for bad in [
        of(&|numbers| numbers.public_exponent = uint(&[1])),
        of(&|numbers| numbers.public_exponent = uint(&[0])),
        of(&|numbers| numbers.public_exponent = uint(&[3])),
        of(&|numbers| numbers.public_exponent = uint(&[0xff; 200])),
        of(&|numbers| numbers.prime1 = uint(&[1])),
        of(&|numbers| numbers.prime1 = uint(&[0])),
        of(&|numbers| std::mem::swap(&mut numbers.prime1, &mut numbers.modulus)),
        of(&|numbers| numbers.modulus = uint(&[0])),
        of(&|numbers| numbers.modulus = uint(&[0xfe; 256])),
        of(&|numbers| numbers.modulus = uint(&[15])),
        of(&|numbers| numbers.private_exponent = uint(&[7])),
        of(&|numbers| numbers.private_exponent = uint(&[0])),
    ] {
        assert_eq!(bad, Some(KeyError::BadRsa));
    }
    assert_eq!(of(&|numbers| numbers.modulus = uint(&[0xff; 1025])), Some(KeyError::RsaSize { bits: 8200 }));
}

#[test]
fn ec_keys_must_be_on_a_known_curve_and_fit_their_public_half() {
    let good = key(KeyType::Ecdsa(Curve::P256)).to_der(KeyFormat::Traditional);
    let parts = sec1::EcPrivateKey::from_der(&good).unwrap();
    let of = |change: &dyn Fn(&mut sec1::EcPrivateKey<'_>)| {
        let mut parts = parts.clone();
        change(&mut parts);
        PrivateKey::from_der(&parts.to_der().unwrap()).err()
    };
    let bad = Some(KeyError::BadPoint(KeyType::Ecdsa(Curve::P256)));
    let secp256k1 = ObjectIdentifier::new_unwrap("1.3.132.0.10");
    assert_eq!(of(&|_| {}), None);
    assert_eq!(of(&|parts| parts.public_key = None), None);
    assert_eq!(of(&|parts| parts.parameters = None), Some(KeyError::UnknownCurve));
    assert_eq!(of(&|parts| parts.parameters = Some(secp256k1.into())), Some(KeyError::UnknownCurve));
    assert_eq!(of(&|parts| parts.private_key = &[0; 32]), bad);
    assert_eq!(of(&|parts| parts.private_key = &[0xff; 32]), bad);
    assert_eq!(of(&|parts| parts.private_key = &[1; 33]), bad);
    assert_eq!(of(&|parts| parts.private_key = &[1; 32]), Some(KeyError::Mismatch));
    let short = of(&|parts| {
        parts.private_key = &[7];
        parts.public_key = None;
    });
    assert_eq!(short, None, "zeros in front may be missing");
}

#[test]
fn points_that_are_no_keys_are_refused() {
    let spki = |key_type: KeyType, change: &dyn Fn(&mut Vec<u8>)| {
        let mut der = key(key_type).public_key().spki_der().to_vec();
        change(&mut der);
        PublicKey::from_spki_der(&der).err()
    };
    let p256 = KeyType::Ecdsa(Curve::P256);
    assert_eq!(spki(p256, &|der| *der.last_mut().unwrap() ^= 1), Some(KeyError::BadPoint(p256)), "not on the curve");
    // The neutral element and points of small order of Ed25519.
    for low_order in [[1, 0], [0, 0], [0, 0x80]] {
        let error = spki(KeyType::Ed25519, &|der| {
            let start = der.len() - 32;
            der[start..].fill(0);
            der[start] = low_order[0];
            *der.last_mut().unwrap() = low_order[1];
        });
        assert_eq!(error, Some(KeyError::BadPoint(KeyType::Ed25519)), "{low_order:?}");
    }
    // An empty point and the point at infinity.
    for bits in [&b"\0"[..], b"\0\0"] {
        let algorithm = &b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"[..];
        let bits = [&[3, u8::try_from(bits.len()).unwrap()], bits].concat();
        let der = [&[0x30, u8::try_from(algorithm.len() + bits.len()).unwrap()], algorithm, &bits].concat();
        assert_eq!(PublicKey::from_spki_der(&der).err(), Some(KeyError::BadPoint(p256)), "{bits:?}");
    }
}

/// Signing happens in threads of its own.
#[test]
fn keys_and_what_was_verified_go_from_thread_to_thread() {
    fn goes<T: Send + Sync>() {}
    goes::<PrivateKey>();
    goes::<crate::certificate::Certificate>();
    goes::<crate::crl::VerifiedCrl>();
    goes::<crate::path::ValidPath<'_>>();
}

#[test]
fn keys_print_without_their_secret() {
    let key = named_key("x");
    let text = format!("{:?}", key.public_key());
    assert_eq!(text, format!("ED25519 256 bits {}", key.public_key().key_id()));
    assert_eq!(key.public_key().key_id().to_string().len(), 59);
}

proptest::proptest! {
    #[test]
    fn no_octets_make_loading_panic(octets: Vec<u8>, at in 0..1000usize, octet: u8) {
        proptest::prop_assert!(PrivateKey::load(&octets, Some("x")).is_err());
        for key_type in ALL {
            let mut der = key(key_type).to_der(KeyFormat::Pkcs8);
            let len = der.len();
            der[at % len] = octet;
            // Whatever became of it has its own public half.
            if let Ok(changed) = PrivateKey::load(&der, None) {
                proptest::prop_assert_eq!(changed.key_type().bits(), changed.public_key().key_type().bits());
            }
        }
    }
}
