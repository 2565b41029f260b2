//! Authentication by certificates with strongSwan: every kind of key, both roles, mixed methods, and refusals that are
//! explained. Needs root and strongSwan.

use anyhow::{Result, ensure};
use interop::certificates::{Certificates, write};
use interop::{Case, Pair};

/// A tunnel from either side, with these keys.
fn tunnel_with(key: &str, adapt: impl Fn(&mut Case<'_>)) -> Result<Pair> {
    let certificates = Certificates::new(key)?;
    let (daemon, lines) = (certificates.our_daemon(), certificates.our_lines());
    let mut case = certificates.case(&daemon, &lines);
    adapt(&mut case);
    Pair::both_ways(case)
}

/// What strongSwan wrote about our signature must say this.
fn expect_said(pair: &Pair, what: &str) -> Result<()> {
    let log = pair.theirs.log();
    ensure!(log.contains(what), "strongSwan did not say `{what}`:\n{log}");
    Ok(())
}

#[test]
fn rsa_certificates() -> Result<()> {
    let pair = tunnel_with("--type rsa --size 3072", |_| {})?;
    expect_said(&pair, "authentication of 'moon.example.org' with RSA_EMSA_PKCS1_SHA2_256 successful")
}

#[test]
fn rsa_certificates_with_pss() -> Result<()> {
    let pair = tunnel_with("--type rsa --size 3072", |case| {
        case.their_daemon = "rsa_pss = yes";
        case.their_local = "auth = rsa/pss-sha384\n      certs = sun.pem";
    })?;
    ensure!(pair.ours.log().contains("RSA-PSS with SHA-384"), "{}", pair.ours.log());
    Ok(())
}

#[test]
fn ecdsa_certificates_of_each_curve() -> Result<()> {
    for (bits, hash) in [("256", "SHA256"), ("384", "SHA384"), ("521", "SHA512")] {
        let pair = tunnel_with(&format!("--type ecdsa --size {bits}"), |_| {})?;
        let said = format!("with ECDSA_WITH_{hash}_DER successful");
        expect_said(&pair, &said)?;
    }
    Ok(())
}

#[test]
fn ed25519_certificates() -> Result<()> {
    let pair = tunnel_with("--type ed25519", |_| {})?;
    expect_said(&pair, "authentication of 'moon.example.org' with ED25519 successful")
}

#[test]
fn a_peer_without_rfc_7427() -> Result<()> {
    let pair = tunnel_with("--type ecdsa --size 384", |case| case.their_daemon = "signature_authentication = no")?;
    expect_said(&pair, "authentication of 'moon.example.org' with ECDSA-384 signature successful")
}

#[test]
fn our_certificate_and_the_peers_key() -> Result<()> {
    let certificates = Certificates::new("--type ecdsa --size 256")?;
    let (daemon, lines) = (certificates.our_daemon(), certificates.our_lines().replace("\"pubkey\"", "\"psk\""));
    let case = Case { their_local: "auth = psk", ..certificates.case(&daemon, &lines) };
    Pair::both_ways(case).map(drop)
}

#[test]
fn our_key_and_the_peers_certificate() -> Result<()> {
    let certificates = Certificates::new("--type ecdsa --size 256")?;
    let daemon = certificates.our_daemon();
    let case =
        Case { their_remote: "auth = psk", ..certificates.case(&daemon, "leftauth = \"psk\"\nrightauth = \"pubkey\"") };
    Pair::both_ways(case).map(drop)
}

#[test]
fn a_chain_of_cas_that_needs_fragments() -> Result<()> {
    let mut certificates = Certificates::new("--type rsa --size 4096")?;
    let folder = certificates.folder().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    let (ca, key) = (path("ca/ca.pem"), path("ca/ca.key.pem"));
    // The CA of `pki quick` may not have others below it.
    for file in ["ca/ca.pem", "moon.example.org/cacerts/ca.pem", "sun.example.org/cacerts/ca.pem"] {
        write(&path(file), &format!("self --ca --type priv --in {key} --dn CN=Root"))?;
    }
    write(&path("sub.key"), "gen --type rsa --size 4096")?;
    let request = format!("issue --cacert {ca} --cakey {key} --type priv --in {} --ca --dn CN=Sub", path("sub.key"));
    write(&path("sub.pem"), &request)?;
    for name in ["moon", "sun"] {
        let host = format!("{name}.example.org");
        let request = format!(
            "issue --cacert {} --cakey {} --type priv --in {} --dn CN={host} --san {host}",
            path("sub.pem"),
            path("sub.key"),
            path(&format!("{host}/private/{host}.pem")),
        );
        write(&path(&format!("{host}/certs/{host}.pem")), &request)?;
    }
    // Each end has the intermediate CA to send it, and trusts only the root.
    certificates.give("x509/sub.pem", folder.join("sub.pem"));
    let daemon = certificates.our_daemon();
    let lines = format!("{}\nleftca = \"{}\"\nfragmentsize = 576", certificates.our_lines(), path("sub.pem"));
    let case = Case {
        their_connection: "fragmentation = yes",
        their_daemon: "fragment_size = 576",
        their_local: "auth = pubkey\n      certs = sun.pem, sub.pem",
        ..certificates.case(&daemon, &lines)
    };
    let pair = Pair::both_ways(case)?;
    expect_said(&pair, "received fragment #")
}

/// Both ends with certificates, of which the peer's is refused for this reason.
fn refused(certificates: &Certificates, daemon: &str, lines: &str, code: &str) -> Result<()> {
    let pair = Pair::two_sites(certificates.case(daemon, lines))?;
    let said = pair.ours.ctl(&["up", "net"])?;
    ensure!(!said.success, "it came up: {}", said.stdout);
    let text = said.stdout.clone() + &said.stderr + &pair.ours.log();
    ensure!(text.contains(code), "no word of {code}: {text}");
    let output = pair.theirs.try_swanctl(&["--initiate", "--child", "net"])?;
    ensure!(!output.status.success(), "strongSwan got in");
    // From outside all failures of authentication look alike.
    expect_said(&pair, "received AUTHENTICATION_FAILED")?;
    pair.expect_silence()
}

#[test]
fn a_certificate_of_an_unknown_ca_is_refused() -> Result<()> {
    let (certificates, others) =
        (Certificates::new("--type ed25519")?, Certificates::of("CN=Other", "--type ed25519")?);
    refused(&certificates, &others.our_daemon(), &certificates.our_lines(), "AUTH_NO_CA")
}

#[test]
fn a_certificate_for_another_name_is_refused() -> Result<()> {
    let mut certificates = Certificates::new("--type ed25519")?;
    let folder = certificates.folder().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    let request = format!(
        "issue --cacert {} --cakey {} --type priv --in {} --dn CN=venus.example.org --san venus.example.org",
        path("ca/ca.pem"),
        path("ca/ca.key.pem"),
        path("sun.example.org/private/sun.example.org.pem"),
    );
    write(&path("venus.pem"), &request)?;
    certificates.give("x509/sun.pem", folder.join("venus.pem"));
    refused(&certificates, &certificates.our_daemon(), &certificates.our_lines(), "AUTH_ID_NOT_IN_CERT")
}

#[test]
fn a_revoked_certificate_is_refused() -> Result<()> {
    let certificates = Certificates::new("--type ecdsa --size 256")?;
    let path = |name: &str| certificates.folder().join(name).display().to_string();
    let request = format!(
        "signcrl --cacert {} --cakey {} --reason key-compromise --cert {}",
        path("ca/ca.pem"),
        path("ca/ca.key.pem"),
        path("sun.example.org/certs/sun.example.org.pem"),
    );
    write(&path("revoked.crl"), &request)?;
    let daemon = format!("{}\ncrls = \"{}\"", certificates.our_daemon(), path("revoked.crl"));
    refused(&certificates, &daemon, &certificates.our_lines(), "AUTH_CERT_REVOKED")
}
