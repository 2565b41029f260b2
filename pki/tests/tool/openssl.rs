//! Against OpenSSL.

use pki::certificate::Certificate;
use pki::hash::HashAlgorithm;
use pki::key::{KeyFormat, KeyType, PrivateKey};
use pki::ocsp;
use pki::path::Strength;
use pki::revocation::{Reason, Status};
use pki::signature::{RsaPadding, SignatureScheme};
use pki::time::UnixTime;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{KINDS, Workshop, is_there};

fn openssl() -> bool {
    is_there("openssl", "Debian: openssl")
}

/// A chain of three with each kind of key, and a CRL for it.
#[test]
fn openssl_accepts_our_chains_and_crls() {
    if !openssl() {
        return;
    }
    for (gen_options, sign) in KINDS {
        let shop = Workshop::new();
        for name in ["root", "ca", "moon"] {
            shop.make(&format!("{name}.key"), &format!("--gen {gen_options} --outform pem"));
        }
        shop.make("root.pem", &format!("--self --in root.key --dn 'C=CH, CN=root' --ca --outform pem {sign}"));
        shop.make("ca.pub", "--pub --in ca.key --outform pem");
        let issue = "--issue --outform pem";
        shop.make(
            "ca.pem",
            &format!(
                "{issue} --in ca.pub --cacert root.pem --cakey root.key --dn 'C=CH, CN=ca' --ca --pathlen 0 \
                 --nc-permitted dns:example.org --nc-excluded ip:192.0.2.0/24 --crl http://ca/root.crl {sign}"
            ),
        );
        shop.make(
            "moon.pem",
            &format!(
                "{issue} --in moon.key --type priv --cacert ca.pem --cakey ca.key --dn 'C=CH, CN=moon' --san moon.example.org \
                 --san 198.51.100.1 --flag serverAuth --flag ikeIntermediate --ocsp http://ocsp/ {sign}"
            ),
        );
        shop.make("ca.crl", &format!("--signcrl --cacert ca.pem --cakey ca.key --outform pem {sign}"));
        shop.make(
            "revoking.crl",
            &format!(
                "--signcrl --cacert ca.pem --cakey ca.key --lastcrl ca.crl --reason key-compromise --cert moon.pem --outform pem {sign}"
            ),
        );
        let verify = "verify -x509_strict -CAfile root.pem -untrusted ca.pem";
        shop.openssl_does(&format!("{verify} -purpose sslserver -verify_ip 198.51.100.1 moon.pem"));
        shop.openssl_does(&format!("{verify} -crl_check -CRLfile ca.crl moon.pem"));
        let revoked = shop.openssl(&format!("{verify} -crl_check -CRLfile revoking.crl moon.pem"));
        assert!(revoked.errors.contains("certificate revoked"), "{gen_options} {sign}: {}", revoked.errors);
        let ours = shop.pki("--verify --in moon.pem --cacert root.pem --untrusted ca.pem --crl revoking.crl");
        assert_eq!(ours.status, Some(3), "{}", ours.text());
        assert!(ours.text().contains("key-compromise"), "{}", ours.text());
    }
}

#[test]
fn we_accept_what_openssl_issues() {
    if !openssl() {
        return;
    }
    for (algorithm, sign) in [
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "-sha256"),
        // OpenSSL's own choice of salt is as long as fits.
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "-sha384 -sigopt rsa_padding_mode:pss"),
        (
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1",
        ),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "-sha512"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384", "-sha384"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-521", "-sha256"),
        ("-algorithm ED25519", ""),
    ] {
        let shop = Workshop::new();
        for name in ["ca", "moon"] {
            shop.openssl_does(&format!("genpkey {algorithm} -out {name}.key"));
        }
        shop.openssl_does(&format!("req -x509 -new -key ca.key -subj /C=CH/CN=ca -days 30 {sign} -out ca.pem"));
        shop.openssl_does(&format!(
            "req -new -key moon.key -subj /C=CH/CN=moon -addext subjectAltName=DNS:moon.example.org,IP:192.0.2.1 {sign} -out moon.csr"
        ));
        shop.openssl_does(&format!(
            "x509 -req -in moon.csr -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copyall -days 30 {sign} -out moon.pem"
        ));
        let verified = shop.pki("verify --in moon.pem --cacert ca.pem --identity moon.example.org");
        assert_eq!(verified.status, Some(0), "{algorithm} {sign}: {}{}", verified.text(), verified.errors);
        let other = shop.pki("verify --in moon.pem --cacert ca.pem --identity sun.example.org");
        assert_eq!(other.status, Some(1), "{}", other.text());
        // Our CA issues for their request, and they accept it.
        shop.make("ours.pem", "issue --in moon.csr --type pkcs10 --cacert ca.pem --cakey ca.key --outform pem");
        shop.openssl_does("verify -CAfile ca.pem -verify_hostname moon.example.org ours.pem");
        // And they accept our request.
        shop.make(
            "our.csr",
            "req --in moon.key --dn 'C=CH, CN=moon' --san moon.example.org --profile dual --outform pem",
        );
        let text = String::from_utf8(shop.openssl_does("req -in our.csr -verify -noout -text")).unwrap();
        assert!(text.contains("DNS:moon.example.org") && text.contains("TLS Web Client"), "{text}");
    }
}

#[test]
fn keys_go_both_ways_in_every_format() {
    if !openssl() {
        return;
    }
    let shop = Workshop::new();
    shop.write("pass", "secret\n");
    for (algorithm, traditional) in [
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "rsa -traditional"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "ec"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-521", "ec"),
        ("-algorithm ED25519", ""),
    ] {
        shop.openssl_does(&format!("genpkey {algorithm} -out key.pem"));
        let spki = shop.openssl_does("pkey -in key.pem -pubout -outform der");
        let mut files = vec!["key.pem"];
        if !traditional.is_empty() {
            shop.openssl_does(&format!("{traditional} -in key.pem -out traditional.pem"));
            shop.openssl_does(&format!("{traditional} -in key.pem -outform der -out traditional.der"));
            files.extend(["traditional.pem", "traditional.der"]);
        }
        let seal = "pkcs8 -topk8 -in key.pem -passout file:pass";
        for (file, how) in [
            ("aes256.pem", "-v2 aes256"),
            ("aes128-sha1.pem", "-v2 aes128 -v2prf hmacWithSHA1"),
            ("sha512.pem", "-v2 aes256 -v2prf hmacWithSHA512"),
            ("scrypt.pem", "-scrypt"),
            ("old.der", "-v1 PBE-SHA1-3DES -outform der"),
        ] {
            shop.openssl_does(&format!("{seal} {how} -out {file}"));
            files.push(file);
        }
        for file in files {
            let ours = shop.pki(&format!("pub --in {file} --passphrase-file pass --outform der"));
            assert_eq!(ours.output, spki, "{file}: {}", ours.errors);
        }
        // And back.
        let key = PrivateKey::load(&shop.read("key.pem"), None).unwrap();
        for format in [KeyFormat::Pkcs8, KeyFormat::Traditional] {
            shop.write("ours.pem", key.to_pem(format).as_bytes());
            assert_eq!(shop.openssl_does("pkey -in ours.pem -pubout -outform der"), spki, "{format:?}");
        }
        shop.write("sealed.pem", key.to_encrypted_pem("secret", &mut ChaCha20Rng::seed_from_u64(1)));
        assert_eq!(shop.openssl_does("pkey -in sealed.pem -passin file:pass -pubout -outform der"), spki);
    }
}

#[test]
fn containers_go_both_ways() {
    if !openssl() {
        return;
    }
    let shop = Workshop::new();
    shop.write("pass", "secret");
    shop.openssl_does("req -x509 -newkey rsa:2048 -nodes -keyout key.pem -subj /CN=moon -days 9 -out cert.pem");
    let export = "pkcs12 -export -inkey key.pem -in cert.pem -passout file:pass -out theirs.p12";
    for how in ["", "-macalg sha512", "-legacy", "-legacy -descert", "-keypbe NONE -certpbe NONE"] {
        shop.openssl_does(&format!("{export} {how}"));
        let list = shop.pki("pkcs12 --in theirs.p12 --passphrase-file pass --list");
        assert!(list.text().contains("\"CN=moon\"") && list.text().contains("RSA 2048"), "{how}: {}", list.errors);
    }
    shop.make("ours.p12", "pkcs12 --key key.pem --cert cert.pem --passphrase-file pass --outform der");
    let text = String::from_utf8(shop.openssl_does("pkcs12 -in ours.p12 -passin file:pass -nodes")).unwrap();
    assert!(text.contains("BEGIN CERTIFICATE") && text.contains("BEGIN PRIVATE KEY"), "{text}");
    shop.write("wrong", "Secret");
    let refused = shop.pki("pkcs12 --in ours.p12 --passphrase-file wrong --list");
    assert!(refused.errors.contains("the passphrase does not open"), "{}", refused.errors);
}

#[test]
fn signatures_verify_on_the_other_side() {
    if !openssl() {
        return;
    }
    let shop = Workshop::new();
    shop.write("message", "message");
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (algorithm, hashes) in [
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", &HashAlgorithm::ALL[..]),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", &HashAlgorithm::ALL[..]),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384", &HashAlgorithm::ALL[..]),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-521", &HashAlgorithm::ALL[..]),
    ] {
        shop.openssl_does(&format!("genpkey {algorithm} -out key.pem"));
        shop.openssl_does("pkey -in key.pem -pubout -out pub.pem");
        let key = PrivateKey::load(&shop.read("key.pem"), None).unwrap();
        for hash in hashes {
            for padding in [RsaPadding::Pkcs1, RsaPadding::Pss] {
                let scheme = SignatureScheme::with_hash(key.key_type(), *hash, padding);
                let mut options = format!("-{}", hash.to_string().to_lowercase().replace("sha-", "sha"));
                if matches!(scheme, SignatureScheme::RsaPss { .. }) {
                    options += " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1";
                }
                shop.write("ours", key.sign(scheme, b"message", &mut rng).unwrap());
                shop.openssl_does(&format!("dgst {options} -verify pub.pem -signature ours message"));
                shop.openssl_does(&format!("dgst {options} -sign key.pem -out theirs message"));
                let verified = key.public_key().verify(scheme, b"message", &shop.read("theirs"));
                assert_eq!(verified, Ok(()), "{algorithm} {scheme}");
            }
        }
    }
    shop.openssl_does("genpkey -algorithm ED25519 -out key.pem");
    let key = PrivateKey::load(&shop.read("key.pem"), None).unwrap();
    assert_eq!(key.key_type(), KeyType::Ed25519);
    shop.write("ours", key.sign(SignatureScheme::Ed25519, b"message", &mut rng).unwrap());
    shop.openssl_does("pkeyutl -verify -rawin -inkey key.pem -sigfile ours -in message");
    shop.openssl_does("pkeyutl -sign -rawin -inkey key.pem -out theirs -in message");
    assert!(key.public_key().verify(SignatureScheme::Ed25519, b"message", &shop.read("theirs")).is_ok());
}

/// OpenSSL's own CA and OCSP responder: its CRL (version 1 by default) and its answers to our requests.
#[test]
fn we_understand_openssls_crls_and_ocsp_answers() {
    if !openssl() {
        return;
    }
    let shop = Workshop::new();
    shop.write("ca.cnf", CA_CONFIGURATION);
    shop.write("index.txt", "");
    shop.write("serial", "1000\n");
    shop.write("crlnumber", "01\n");
    shop.openssl_does("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=ca -days 30 -out ca.pem");
    for name in ["moon", "sun", "responder"] {
        shop.openssl_does(&format!(
            "req -new -newkey rsa:2048 -nodes -keyout {name}.key -subj /CN={name} -out {name}.csr"
        ));
        let extensions = if name == "responder" { "-extensions responder" } else { "" };
        shop.openssl_does(&format!("ca -config ca.cnf -batch -notext -in {name}.csr -out {name}.pem {extensions}"));
    }
    shop.openssl_does("ca -config ca.cnf -revoke moon.pem -crl_reason keyCompromise");
    for extensions in ["", "-crlexts crl"] {
        shop.openssl_does(&format!("ca -config ca.cnf -gencrl {extensions} -out ca.crl"));
        let revoked = shop.pki("verify --in moon.pem --cacert ca.pem --crl ca.crl");
        assert_eq!(revoked.status, Some(3), "{}{}", revoked.text(), revoked.errors);
        let good = shop.pki("verify --in sun.pem --cacert ca.pem --crl ca.crl --revocation strict");
        assert_eq!(good.status, Some(0), "{}{}", good.text(), good.errors);
    }
    let load = |name: &str| Certificate::load(&shop.read(name)).unwrap().remove(0);
    let ca = load("ca.pem");
    for (name, signer, revoked) in [
        ("moon.pem", "ca", true),
        ("sun.pem", "ca", false),
        ("sun.pem", "responder", false),
        ("moon.pem", "responder", true),
    ] {
        let certificate = load(name);
        let request = ocsp::Request::new(&certificate, &ca, Some(&[7; 32]));
        shop.write("request", request.to_der().unwrap());
        shop.openssl_does(&format!(
            "ocsp -index index.txt -CA ca.pem -rsigner {signer}.pem -rkey {signer}.key -reqin request -respout response -ndays 1"
        ));
        let response = ocsp::Response::from_der(&shop.read("response")).unwrap();
        let now: UnixTime = response.produced_at();
        let answer = response.verify(&request, &[], true, now, &Strength::default()).unwrap();
        assert!(answer.nonce && answer.next_update.is_some());
        let expected = matches!(answer.status, Status::Revoked { reason: Reason::KeyCompromise, .. });
        assert!(expected == revoked && (revoked || answer.status == Status::Good), "{}", answer.status);
        let verdict = shop.pki(&format!("verify --in {name} --cacert ca.pem --ocsp-response response"));
        assert_eq!(verdict.status, Some(if revoked { 3 } else { 0 }), "{}{}", verdict.text(), verdict.errors);
    }
}

const CA_CONFIGURATION: &str = "
[ca]
default_ca = all
[all]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 9
default_crl_days = 9
policy = any
unique_subject = no
[any]
commonName = supplied
[crl]
authorityKeyIdentifier = keyid
[responder]
extendedKeyUsage = OCSPSigning
noCheck = ignored
";
