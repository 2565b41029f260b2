//! `pki quick`, and how the tool says what is wrong.

use std::os::unix::fs::PermissionsExt;

use super::Workshop;

fn mode(shop: &Workshop, name: &str) -> u32 {
    std::fs::metadata(shop.path(name)).unwrap().permissions().mode() & 0o777
}

#[test]
fn one_command_makes_all_that_gateways_need() {
    let shop = Workshop::new();
    let said = shop.pki("quick --ca 'C=CH, CN=Test CA' --out pki --json gw1.example.org,192.0.2.1 gw2.example.org");
    assert_eq!(said.status, Some(0), "{}", said.errors);
    let answer: serde_json::Value = serde_json::from_slice(&said.output).unwrap();
    assert_eq!(answer["ca"]["subject"], "C=CH, CN=Test CA");
    assert_eq!(answer["gateways"][0]["alternative_names"], serde_json::json!(["gw1.example.org", "192.0.2.1"]));
    for (index, identity) in [(0, "192.0.2.1"), (1, "gw2.example.org")] {
        let gateway = &answer["gateways"][index];
        let file = |name: &str| gateway[name].as_str().unwrap().to_owned();
        let verify = format!(
            "verify --in {} --cacert {} --identity {identity} --flag serverAuth",
            file("certificate"),
            file("ca")
        );
        assert_eq!(shop.pki(&verify).status, Some(0));
        assert_eq!(mode(&shop, &file("key")), 0o600);
        assert_eq!(mode(&shop, &file("certificate")), 0o644);
        let id = |line: &str| shop.pki(line).text();
        let key = id(&format!("keyid --in {}", file("key")));
        assert_eq!(key, id(&format!("keyid --in {} --type x509", file("certificate"))));
    }
    assert_eq!((mode(&shop, "pki/ca"), mode(&shop, "pki/ca/ca.key.pem")), (0o700, 0o600));
    assert_eq!(mode(&shop, "pki/gw1.example.org/private"), 0o700);
}

#[test]
fn a_second_run_uses_the_ca_and_replaces_nothing() {
    let shop = Workshop::new();
    shop.write("pass", "secret");
    let quick = "quick --out pki --type ed25519 --passphrase-file pass";
    assert_eq!(shop.pki(&format!("{quick} --ca CN=ca gw1")).status, Some(0));
    assert!(String::from_utf8(shop.read("pki/ca/ca.key.pem")).unwrap().contains("ENCRYPTED PRIVATE KEY"));
    assert_eq!(shop.pki(&format!("{quick} gw2")).status, Some(0));
    assert_eq!(shop.pki("verify --in pki/gw2/certs/gw2.pem --cacert pki/gw1/cacerts/ca.pem").status, Some(0));
    let before = shop.read("pki/gw1/private/gw1.pem");
    for (line, message) in [
        (format!("{quick} gw3 gw1"), "is there already"),
        (format!("{quick} gw3 gw3"), "gw3 is there twice"),
        (format!("{quick} --ca CN=other gw3"), "is of `CN=ca`, not of `CN=other`"),
        (format!("{quick} ../gw3"), "cannot be the name of a gateway"),
        (format!("{quick} ca"), "cannot be the name of a gateway"),
        ("quick --out pki gw3".to_owned(), "it needs a passphrase"),
        ("quick --out other gw3".to_owned(), "--ca is missing"),
    ] {
        let said = shop.pki(&line);
        assert!(said.status == Some(1) && said.errors.contains(message), "{line}: {}", said.errors);
    }
    assert_eq!(shop.read("pki/gw1/private/gw1.pem"), before);
    assert!(!shop.path("pki/gw3").exists());
}

#[test]
fn the_tool_says_what_is_wrong() {
    let shop = Workshop::new();
    shop.make("ca.key", "gen --type ed25519 --outform pem");
    shop.make("other.key", "gen --type ecdsa --outform pem");
    shop.make("ca.pem", "self --in ca.key --dn CN=ca --ca --outform pem");
    shop.make(
        "end.pem",
        "self --in other.key --dn CN=end --not-after 2020-01-01 --not-before 2019-01-01 --outform pem",
    );
    for (line, status, message) in [
        ("gen --type dsa", 1, "there are keys of type rsa, ecdsa and ed25519, not `dsa`"),
        ("gen --size 1024", 1, "an RSA key of 1024 bits; it must have 2048 to 8192"),
        ("gen --type ecdsa --size 512", 1, "ECDSA keys have 256, 384 or 521 bits, not 512"),
        ("self --in nowhere --dn CN=x", 1, "nowhere: No such file"),
        ("self --in ca.pem --dn CN=x", 1, "there is no private key in it, but: CERTIFICATE"),
        ("self --in ca.key --dn CX=x", 2, "no attribute is called `CX`"),
        ("self --in ca.key --dn CN=x --pathlen 1", 1, "--pathlen belongs to --ca"),
        ("self --in ca.key --dn CN=x --flag server", 2, "there are serverAuth, clientAuth"),
        ("self --in ca.key --dn CN=x --cps-uri http://x", 1, "--cps-uri must stand behind a --cert-policy"),
        ("self --in ca.key --type rsa --dn CN=x", 1, "the key is of type ED25519 256 bits, not rsa"),
        (
            "issue --in other.key --type priv --cacert ca.pem --cakey other.key --dn CN=x",
            1,
            "does not belong to the CA key",
        ),
        ("issue --in other.key --type priv --cacert end.pem --cakey other.key --dn CN=x", 1, "must not sign this"),
        ("issue --in other.key --type priv --cacert ca.pem --cakey ca.key", 1, "--dn is missing"),
        ("signcrl --cacert ca.pem --cakey ca.key --serial zz", 2, "`zz` is not hexadecimal"),
        ("nonsense", 2, "unrecognized subcommand"),
    ] {
        let said = shop.pki(line);
        assert_eq!(said.status, Some(status), "{line}: {}{}", said.text(), said.errors);
        assert!(said.errors.contains(message), "{line}: {}", said.errors);
    }
    let expired = shop.pki("verify --in end.pem").text();
    assert!(expired.contains("certificate not trusted: `CN=end` expired at 2020-01-01 00:00:00 UTC"), "{expired}");
    let at = shop.pki("verify --in end.pem --at 2019-06-01");
    assert_eq!(at.status, Some(0), "{}", at.text());
    let json: serde_json::Value =
        serde_json::from_slice(&shop.pki("verify --in end.pem --cacert ca.pem --json").output).unwrap();
    assert_eq!((json["trusted"].as_bool(), json["subject"].as_str()), (Some(false), Some("CN=end")));
    assert_eq!(json["reason"], "`CN=end` is self-signed and not trusted");
}

#[test]
fn everything_prints_as_text_and_as_json() {
    let shop = Workshop::new();
    shop.make("key", "gen --type ed25519 --outform pem");
    shop.make("pub", "pub --in key --outform der");
    shop.make("csr", "req --in key --dn CN=x --san x.example.org --outform der");
    shop.make("cert", "self --in key --dn CN=x --ca --san x.example.org --outform der");
    shop.make("crl", "signcrl --cacert cert --cakey key --reason superseded --serial 7 --outform der");
    for (file, kind, inside) in [
        ("key", "priv", "ED25519 256 bits"),
        ("pub", "pub", "ED25519 256 bits"),
        ("csr", "pkcs10", "x.example.org"),
        ("cert", "x509", "self-signed"),
        ("crl", "crl", "superseded"),
    ] {
        let text = shop.pki(&format!("print --in {file}")).text();
        assert!(text.contains(inside), "{file}: {text}");
        let json = shop.pki(&format!("print --in {file} --type {kind} --json"));
        let json: serde_json::Value =
            serde_json::from_slice(&json.output).unwrap_or_else(|_| panic!("{}", json.errors));
        let first = json.get(0).unwrap_or(&json);
        assert_eq!(first["type"], kind);
        assert!(json.to_string().contains(inside));
    }
}
