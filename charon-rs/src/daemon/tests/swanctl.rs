//! Stock `swanctl` against our socket. Needs Debian's package strongswan-swanctl, so these tests run with `--ignored`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::pair::{Pair, Running};
use crate::credentials::testing::Entity;

/// What `swanctl --load-all` loads; the same as [`super::pair::load_connection`] and two times that it computes itself.
const SWANCTL_CONF: &str = r#"
connections {
  gw {
    version = 2
    local_addrs = 192.0.2.1
    remote_addrs = 192.0.2.2
    proposals = aes256gcm16-prfsha256-x25519
    local { auth = psk
      id = moon.strongswan.org }
    remote { auth = psk
      id = sun.strongswan.org }
    children { net { local_ts = 10.1.0.0/24
      remote_ts = 10.2.0.0/24
      esp_proposals = aes256gcm16-noesn } }
  }
}
secrets { ike-1 { id-1 = moon.strongswan.org
  id-2 = sun.strongswan.org
  secret = Vpp123 } }
"#;

/// Runs swanctl with its own configuration folder.
fn swanctl(daemon: &Running, folder: &Path, arguments: &[&str]) -> Output {
    let uri = format!("unix://{}", daemon.socket.display());
    let output = Command::new("swanctl").args(arguments).args(["--uri", &uri]).env("SWANCTL_DIR", folder).output();
    output.expect("swanctl is installed (package strongswan-swanctl)")
}

fn stdout(daemon: &Running, folder: &Path, arguments: &[&str]) -> String {
    let output = swanctl(daemon, folder, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(folder.path().join("swanctl.conf")).unwrap();
    file.write_all(SWANCTL_CONF.as_bytes()).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn swanctl_loads_initiates_lists_rekeys_and_terminates() {
    let pair = Pair::start().await;
    let folder = folder();
    let run = |arguments: &[&str]| stdout(&pair.moon, folder.path(), arguments);
    let loaded = run(&["--load-all"]);
    assert!(loaded.contains("loaded ike secret 'ike-1'"), "{loaded}");
    assert!(loaded.contains("successfully loaded 1 connections, 0 unloaded"), "{loaded}");
    let up = run(&["--initiate", "--child", "net"]);
    assert!(up.contains("[ENC] generating IKE_SA_INIT request 0 ["), "{up}");
    assert!(up.ends_with("initiate completed successfully\n"), "{up}");
    let sas = run(&["--list-sas"]);
    assert!(sas.starts_with("gw: #1, ESTABLISHED, IKEv2, "), "{sas}");
    assert!(sas.contains("  AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519\n"), "{sas}");
    assert!(sas.contains("  net: #1, reqid 1, INSTALLED, TUNNEL, ESP:AES_GCM_16-256\n"), "{sas}");
    assert!(sas.contains(",   1000 bytes,    10 packets,     1s ago\n"), "{sas}");
    assert!(!sas.contains("(null)"), "{sas}");
    assert!(run(&["--rekey", "--child", "net"]).contains("rekey completed successfully"));
    let conns = run(&["--list-conns"]);
    assert!(conns.starts_with("gw: IKEv2, no reauthentication, rekeying every 14400s\n"), "{conns}");
    assert!(conns.contains("  local pre-shared key authentication:\n    id: moon.strongswan.org\n"), "{conns}");
    let down = run(&["--terminate", "--ike", "gw"]);
    assert!(down.ends_with("terminate completed successfully\n"), "{down}");
    assert_eq!(run(&["--list-sas"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn swanctl_shows_version_statistics_algorithms_and_counters() {
    let pair = Pair::start().await;
    let folder = folder();
    let run = |arguments: &[&str]| stdout(&pair.moon, folder.path(), arguments);
    let version = run(&["--version", "--daemon"]);
    assert!(version.starts_with(&format!("strongSwan {} charon-rs (Linux, ", env!("CARGO_PKG_VERSION"))), "{version}");
    let stats = run(&["--stats"]);
    assert!(stats.contains("worker threads: 1 total, 1 idle, working: 0/0/0/0\n"), "{stats}");
    assert!(stats.contains("IKE_SAs: 0 total, 0 half-open\n") && !stats.contains("(null)"), "{stats}");
    assert!(run(&["--list-algs"]).contains("  CURVE_25519[charon-rs]\n"));
    assert!(run(&["--counters"]).contains("ike-init-out-req"));
    for quiet in ["--list-pools", "--list-certs", "--list-authorities", "--list-pols"] {
        assert_eq!(run(&[quiet]), "", "{quiet}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swanctl_says_why_something_is_refused() {
    let pair = Pair::start().await;
    let folder = folder();
    for (arguments, message) in [
        (["--initiate", "--child", "nope"], "initiate failed: CHILD_SA config 'nope' not found\n"),
        (["--terminate", "--ike", "nope"], "terminate failed: no matching SAs to terminate found\n"),
        (["--rekey", "--ike", "nope"], "rekey failed: no matching SAs to rekey found\n"),
    ] {
        let output = swanctl(&pair.moon, folder.path(), &arguments);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).ends_with(message), "{output:?}");
    }
}

/// The same connection with certificates, which swanctl reads from its folders.
const SWANCTL_WITH_CERTIFICATES: &str = r#"
connections {
  gw {
    version = 2
    local_addrs = 192.0.2.1
    remote_addrs = 192.0.2.2
    proposals = aes256gcm16-prfsha256-x25519
    local { auth = pubkey
      certs = moon.pem
      id = moon.example.org }
    remote { auth = ecdsa-256-sha256
      id = sun.example.org
      cacerts = ca.pem
      revocation = ifuri }
    children { net { local_ts = 10.1.0.0/24
      remote_ts = 10.2.0.0/24
      esp_proposals = aes256gcm16-noesn } }
  }
}
authorities { home { cacert = ca.pem
  crl_uris = http://192.0.2.99/none.crl } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn swanctl_loads_certificates_keys_and_authorities() {
    let pair = Pair::start().await;
    let root = Entity::root("root");
    let moon = root.gateway("moon", |_| {});
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    };
    write("swanctl.conf", SWANCTL_WITH_CERTIFICATES.as_bytes());
    write("x509/moon.pem", moon.certificate.to_pem().as_bytes());
    write("x509ca/ca.pem", root.certificate.to_pem().as_bytes());
    write("private/moon.pem", moon.key.to_pem(pki::key::KeyFormat::Traditional).as_bytes());
    let run = |arguments: &[&str]| stdout(&pair.moon, folder.path(), arguments);
    let loaded = run(&["--load-all"]);
    for wanted in ["loaded certificate from", "key from", "loaded authority 'home'", "loaded connection 'gw'"] {
        assert!(loaded.contains(wanted), "{loaded}");
    }
    let certs = run(&["--list-certs"]);
    assert!(certs.contains("subject:  \"CN=moon\"") && certs.contains("has private key"), "{certs}");
    assert!(certs.contains("subject:  \"CN=root\""), "{certs}");
    let authorities = run(&["--list-authorities"]);
    assert!(authorities.starts_with("home:\n  cacert: CN=root\n"), "{authorities}");
    let conns = run(&["--list-conns"]);
    assert!(conns.contains("local public key authentication"), "{conns}");
    // Twice is as good as once, and nothing is left when it is taken back.
    assert!(run(&["--load-all"]).contains("loaded connection 'gw'"));
    run(&["--load-creds", "--clear", "--noprompt"]);
    run(&["--flush-certs"]);
}
