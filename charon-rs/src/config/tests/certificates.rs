//! Certificates and keys: what connections make of the files around the configuration.

use ike_proto::config::{AuthorityHash, LocalMethod, RemoteMethod, SendCertificates};
use ike_proto::identity::{Identity, IdentityPattern};
use pki::key::KeyFormat;
use pki::pkcs12::Container;
use pki::revocation::Policy;

use super::*;
use crate::credentials::testing::{Entity, day};
use crate::credentials::{Demand, Signer, Store};

const HEAD: &str = "[conn.net]\nright = \"192.0.2.2\"\nauto = \"add\"\n";

/// A folder as `pki quick` makes it for the gateway `moon`.
struct Gateway {
    folder: Folder,
    root: Entity,
    moon: Entity,
}

impl Gateway {
    fn new(lines: &str) -> Self {
        let gateway = Self::without_key(lines);
        gateway.write("private", "moon.pem", gateway.moon.key.to_pem(KeyFormat::Pkcs8).as_bytes());
        gateway.folder.set_mode("private/moon.pem", 0o600);
        gateway
    }

    fn without_key(lines: &str) -> Self {
        let root = Entity::root("root");
        let moon = root.gateway("moon", |_| {});
        let gateway = Self { folder: Folder::new(&format!("{HEAD}{lines}")), root, moon };
        gateway.write("cacerts", "ca.pem", gateway.root.certificate.to_pem().as_bytes());
        gateway.write("certs", "moon.pem", gateway.moon.certificate.to_pem().as_bytes());
        gateway
    }

    fn write(&self, folder: &str, name: &str, content: &[u8]) {
        let folder = self.folder.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), content).unwrap();
    }

    fn load(&self) -> Loaded {
        self.folder.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The only connection, with what its names mean.
    fn connection(&self) -> (Connection, Option<Signer>, Option<Demand>) {
        let mut loaded = self.load();
        let connection = loaded.connections.remove(0);
        let signer = match &connection.local.method {
            LocalMethod::Signature(name) => loaded.credentials.signers.get(name).map(|signer| (**signer).clone()),
            LocalMethod::PreSharedKey | _ => None,
        };
        let demand = match &connection.remote.method {
            RemoteMethod::Signature(trust) => loaded.credentials.demands.get(&trust.name).map(|d| (**d).clone()),
            RemoteMethod::PreSharedKey | _ => None,
        };
        (connection, signer, demand)
    }

    fn complaints(&self) -> String {
        self.folder.complaints()
    }
}

#[test]
fn what_pki_quick_makes_needs_two_lines() {
    let gateway = Gateway::new("leftcert = \"moon.pem\"\nrightid = \"sun.example.org\"\n");
    let (connection, signer, demand) = gateway.connection();
    let subject = gateway.moon.certificate.subject();
    assert_eq!(connection.local.identity, Some(Identity::Dn { der: subject.der().to_vec(), text: "CN=moon".into() }));
    assert_eq!(signer.unwrap().certificates.first(), Some(&gateway.moon.certificate));
    assert!(demand.unwrap().authorities.is_empty(), "any trusted CA will do");
    assert_eq!(gateway.load().credentials.authorities.first(), Some(&gateway.root.certificate));
    assert_eq!(gateway.complaints(), "");
}

#[test]
fn the_same_files_give_the_same_names_and_others_give_others() {
    let gateway = Gateway::new("leftcert = \"moon.pem\"\n");
    let first = gateway.load().connections;
    assert_eq!(first, gateway.load().connections);
    let renewed = gateway.root.issue(gateway.moon.key_copy(), "moon", |template| template.not_after = day(2));
    gateway.write("certs", "moon.pem", renewed.certificate.to_pem().as_bytes());
    assert_ne!(first, gateway.load().connections, "a reload sees the new certificate");
}

#[test]
fn a_connection_is_told_which_cas_to_ask_for() {
    let gateway = Gateway::new("leftcert = \"moon.pem\"\n");
    let mut loaded = gateway.load();
    let mut store = Store::default();
    store.set_file(loaded.credentials);
    store.complete(&mut loaded.connections[0]);
    let RemoteMethod::Signature(trust) = &loaded.connections[0].remote.method else { panic!("a signature") };
    assert_eq!(trust.authorities, [AuthorityHash(gateway.root.certificate.spki_id().0)]);
}

#[test]
fn a_certificate_without_its_key_is_an_error_that_says_where_it_looked() {
    let gateway = Gateway::without_key("leftcert = \"moon.pem\"\n");
    let complaints = gateway.complaints();
    assert!(
        complaints.contains("ipsec.toml:4:13: there is no private key for the certificate of `CN=moon`"),
        "{complaints}"
    );
    assert!(
        complaints.contains("looked at [key.NAME] and [pkcs12.NAME] of the secrets file, and at the files in private")
    );
    let other = Gateway::new("leftcert = \"sun.pem\"\n");
    let complaints = other.complaints();
    assert!(complaints.contains("`sun.pem` gives no certificate"), "{complaints}");
    assert!(complaints.contains("looked at certs/sun.pem, sun.pem"), "{complaints}");
}

#[test]
fn keys_with_a_passphrase_are_named_in_the_secrets_file() {
    let gateway = Gateway::without_key("leftcert = \"moon.pem\"\n");
    let encrypted = gateway.moon.key.to_encrypted_pem("open sesame", &mut crate::credentials::rng());
    gateway.write("private", "moon.pem", encrypted.as_bytes());
    gateway.folder.set_mode("private/moon.pem", 0o600);
    assert!(gateway.complaints().contains("private/moon.pem needs a passphrase: name it in [key.NAME]"));
    let secret = |passphrase: &str| {
        let secrets = format!("[key.moon]\nfile = \"moon.pem\"\npassphrase = \"{passphrase}\"\n");
        gateway.folder.write_private("ipsec.secrets.toml", secrets.as_bytes());
    };
    secret("open sesame");
    assert_eq!(gateway.complaints(), "");
    secret("open sesam");
    let complaints = gateway.complaints();
    assert!(complaints.contains("private/moon.pem: ") && !complaints.contains("sesam"), "{complaints}");
}

#[test]
fn a_container_brings_key_and_certificate() {
    let gateway = Gateway::without_key("leftauth = \"pubkey\"\nleftid = \"moon.example.org\"\n");
    assert!(gateway.complaints().contains("there is no certificate with a private key for `moon.example.org`"));
    let container =
        Container { keys: vec![gateway.moon.key_copy()], certificates: vec![gateway.moon.certificate.clone()] };
    let der = container.to_der("open sesame", &mut crate::credentials::rng()).unwrap();
    gateway.folder.write_private("moon.p12", &der);
    let secrets = "[pkcs12.moon]\nfile = \"moon.p12\"\npassphrase = \"open sesame\"\n";
    gateway.folder.write_private("ipsec.secrets.toml", secrets.as_bytes());
    assert_eq!(gateway.complaints(), "");
}

#[test]
fn a_private_key_that_others_can_read_is_refused() {
    let gateway = Gateway::new("leftcert = \"moon.pem\"\n");
    gateway.folder.set_mode("private/moon.pem", 0o644);
    assert!(gateway.complaints().contains("others can read the private key (mode 0644); chmod 600"));
}

#[test]
fn an_identity_that_the_certificate_does_not_have_is_worth_a_warning() {
    let gateway = Gateway::new("leftcert = \"moon.pem\"\nleftid = \"mars.example.org\"\n");
    let complaints = gateway.complaints();
    assert!(complaints.starts_with("warning: ipsec.toml:4:13: leftid `mars.example.org` is no name"), "{complaints}");
    assert!(complaints.contains("`CN=moon`, `moon.example.org`"), "{complaints}");
    let expired = gateway.root.issue(gateway.moon.key_copy(), "moon", |template| {
        template.not_before = day(-3);
        template.not_after = day(-2);
    });
    gateway.write("certs", "moon.pem", expired.certificate.to_pem().as_bytes());
    assert!(gateway.complaints().contains("our certificate expired at "));
}

#[test]
fn what_is_demanded_of_the_peer_is_read_from_its_keys() {
    let gateway = Gateway::new(
        "leftcert = \"moon.pem\"\nrightauth = \"rsa-3072-ecdsa-256-sha256,ike:pubkey-sha384\"\nrightca = \"CN=root\"\n\
         rightcertpolicy = [\"1.3.6.1.4.1.99999.1\"]\nrevocation = \"strict\"\nsendcert = \"always\"\nsendcertreq = false\n",
    );
    let (connection, _, demand) = gateway.connection();
    let demand = demand.unwrap();
    assert_eq!(demand.constraints.certificates.to_string(), "rsa-3072-ecdsa-256-sha256");
    assert_eq!(demand.constraints.signature.to_string(), "pubkey-sha384");
    assert_eq!((demand.revocation, demand.policies.len(), demand.authorities.len()), (Policy::Strict, 1, 1));
    assert_eq!(connection.send_certificates, SendCertificates::Always);
    assert!(!connection.send_certificate_requests);
    let RemoteMethod::Signature(trust) = &connection.remote.method else { panic!("a signature") };
    assert!(trust.ocsp, "who insists on knowing also asks the peer");
}

#[test]
fn a_named_certificate_of_the_peer_tells_who_it_is() {
    let gateway = Gateway::new("leftcert = \"moon.pem\"\nrightcert = \"sun.pem\"\n");
    let sun = Entity::root("other").gateway("sun", |_| {});
    gateway.write("certs", "sun.pem", sun.certificate.to_pem().as_bytes());
    let (connection, _, demand) = gateway.connection();
    let IdentityPattern::Exactly(Identity::Dn { text, .. }) = connection.remote.identity else { panic!("a DN") };
    assert_eq!(text, "CN=sun");
    assert_eq!(demand.unwrap().certificates, [sun.certificate]);
}

#[test]
fn raw_keys_need_no_certificate() {
    let gateway =
        Gateway::new("leftsigkey = \"moon.pub\"\nrightsigkey = \"sun.pub\"\nleftid = \"moon\"\nrightid = \"sun\"\n");
    let sun = Entity::root("sun");
    let pem = |entity: &Entity| pki::pem::encode("PUBLIC KEY", entity.key.public_key().spki_der());
    gateway.write("pubkey", "moon.pub", pem(&gateway.moon).as_bytes());
    gateway.write("pubkey", "sun.pub", pem(&sun).as_bytes());
    let (_, signer, demand) = gateway.connection();
    assert_eq!(signer.unwrap().raw.as_ref(), Some(gateway.moon.key.public_key()));
    assert_eq!(demand.unwrap().keys, [sun.key.public_key().clone()]);
}

#[test]
fn rounds_can_be_of_different_kinds() {
    let gateway = Gateway::new(
        "leftcert = \"moon.pem\"\nleftauth2 = \"psk\"\nleftid2 = \"user@example.org\"\nrightauth = \"psk\"\n\
         rightauth2 = \"ecdsa-256\"\nrightid2 = \"%any\"\n",
    );
    let (connection, ..) = gateway.connection();
    assert!(matches!(connection.local.method, LocalMethod::Signature(_)));
    assert_eq!(connection.more_local[0].method, LocalMethod::PreSharedKey);
    assert_eq!(connection.more_local[0].identity, Some(Identity::Rfc822("user@example.org".into())));
    assert_eq!(connection.remote.method, RemoteMethod::PreSharedKey);
    assert!(matches!(connection.more_remote[0].method, RemoteMethod::Signature(_)));
}

#[test]
fn mistakes_about_authentication_are_named() {
    for (lines, wanted) in [
        ("leftauth = \"pubky\"\n", "did you mean `pubkey`?"),
        ("leftauth = \"eap\"\n", "EAP is not supported yet"),
        ("rightauth = \"rsa-3072-shaa\"\n", "`shaa`"),
        ("leftauth = \"psk\"\nleftcert = \"moon.pem\"\n", "pre-shared keys need no certificates or keys"),
        ("revocation = \"strictly\"\n", "did you mean `strict`?"),
        ("rightcertpolicy = \"1.x\"\n", "`1.x` is no object identifier"),
        ("leftcert = \"moon.pem\"\nrightca = \"CN=nobody\"\n", "no CA in `cacerts` is called `CN=nobody`"),
        ("leftcert = \"moon.pem\"\nrightca = \"nobody.pem\"\n", "`nobody.pem` gives no certificate"),
        ("leftauth = \"pubkey\"\n", "we have no certificate to authenticate with"),
        ("leftcrt = \"moon.pem\"\n", "did you mean `leftcert`?"),
    ] {
        let complaints = Gateway::new(lines).complaints();
        assert!(complaints.contains(wanted), "{lines}: {complaints}");
    }
}
