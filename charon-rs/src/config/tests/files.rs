//! The files of `etc/`, and who may read secrets.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

fn etc() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc")
}

/// A copy of a pair of files of `etc/`, installed as they must be.
fn installed(config: &str, secrets: &str) -> Folder {
    let read = |name: &str| fs::read_to_string(etc().join(name)).unwrap();
    Folder::with_secrets(&read(config), &read(secrets))
}

#[test]
fn the_installed_configuration_is_good_and_brings_nothing_up() {
    let loaded = installed("ipsec.toml", "ipsec.secrets.toml").load().unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.connections.is_empty() && loaded.secrets.is_empty() && loaded.interfaces.is_empty());
    assert_eq!(loaded.daemon.keylog, None);
    assert_eq!(loaded.warnings, []);
}

/// What stands behind `# ` in the installed files is right as well.
#[test]
fn the_commented_examples_are_good_when_they_are_uncommented() {
    let uncommented = |name: &str| {
        let text = fs::read_to_string(etc().join(name)).unwrap();
        let is_toml = |line: &&str| line.starts_with('[') || line.contains(" = ");
        text.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).filter(is_toml).collect::<Vec<_>>().join("\n")
    };
    let folder = Folder::with_secrets(&uncommented("ipsec.toml"), &uncommented("ipsec.secrets.toml"));
    fs::create_dir(folder.path().join("secrets")).unwrap();
    folder.write_private("secrets/hamburg.psk", b"key");
    let moon = crate::credentials::testing::Entity::root("moon");
    let rng = &mut crate::credentials::rng();
    let passphrase = "what it is encrypted with";
    folder.write_private("moon.example.org.pem", moon.key.to_encrypted_pem(passphrase, rng).as_bytes());
    let container = pki::pkcs12::Container { keys: vec![moon.key_copy()], certificates: vec![moon.certificate] };
    folder.write_private("moon.p12", &container.to_der(passphrase, rng).unwrap());
    let loaded = folder.load().unwrap_or_else(|problems| panic!("{problems}"));
    let names: Vec<&str> = loaded.connections.iter().map(|conn| conn.name.as_str()).collect();
    assert_eq!(names, ["berlin", "branches", "staff", "hamburg"]);
    assert_eq!((loaded.connections[2].pools.len(), loaded.pools.len()), (1, 1));
    assert_eq!(loaded.connections[3].children.len(), 2);
    assert_eq!((loaded.secrets.len(), loaded.credentials.keys.len()), (2, 1));
}

#[test]
fn the_two_gateways_of_the_lab_fit_each_other() {
    let [initiator, responder] = ["initiator", "responder"].map(|who| {
        let folder = installed(&format!("lab/{who}.toml"), &format!("lab/{who}.secrets.toml"));
        let loaded = folder.load().unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings, [], "{who}");
        assert_eq!(loaded.secrets.first().unwrap().secret.expose(), b"Vpp123");
        assert_eq!(loaded.interfaces.first().unwrap().name.as_str(), "ipip0");
        loaded
    });
    let (ours, theirs) = (&initiator.connections[0], &responder.connections[0]);
    assert!(theirs.remote.identity.matches(ours.local.identity.as_ref().unwrap()));
    assert!(ours.remote.identity.matches(theirs.local.identity.as_ref().unwrap()));
    assert_eq!(ours.ike_proposals, theirs.ike_proposals);
    let (ours, theirs) = (&ours.children[0], &theirs.children[0]);
    assert_eq!(ours.local_selectors, theirs.remote_selectors);
    assert_eq!(ours.remote_selectors, theirs.local_selectors);
    assert_eq!(ours.local_selectors.len(), 2);
    assert_eq!(ours.esp_proposals, theirs.esp_proposals);
    assert_eq!(ours.esp_proposals[0].extended_sequence_numbers, [true]);
}

#[test]
fn every_toml_file_of_etc_is_tested_here() {
    let mut names = Vec::new();
    for folder in ["", "lab"] {
        for entry in fs::read_dir(etc().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".toml") {
                names.push(name);
            }
        }
    }
    names.sort();
    let tested = [
        "initiator.secrets.toml",
        "initiator.toml",
        "ipsec.secrets.toml",
        "ipsec.toml",
        "responder.secrets.toml",
        "responder.toml",
    ];
    assert_eq!(names, tested);
}

/// `UPDATE_REFERENCE=1 cargo test -p charon-rs reference` writes it.
#[test]
fn the_reference_on_disk_is_up_to_date() {
    let path = etc().join("reference.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, reference()).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == reference(),
        "UPDATE_REFERENCE=1 cargo test writes it anew"
    );
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    for mode in [0o640, 0o604, 0o620, 0o601, 0o644, 0o777] {
        let folder = Folder::with_secrets("", "[secret.a]\npsk = \"x\"");
        folder.set_mode("ipsec.secrets.toml", mode);
        let file = folder.path().join("ipsec.secrets.toml");
        assert_eq!(
            folder.load().unwrap_err().to_string(),
            format!(
                "error: {0}: others can read the secrets (mode {mode:04o})\n      = expected mode 0600: chmod 600 {0}\n1 error",
                file.display()
            )
        );
    }
    for mode in [0o600, 0o400, 0o700] {
        let folder = Folder::with_secrets("", "[secret.a]\npsk = \"x\"");
        folder.set_mode("ipsec.secrets.toml", mode);
        assert_eq!(folder.load().unwrap().secrets.len(), 1);
    }
}

#[test]
fn a_link_is_as_secret_as_what_it_leads_to() {
    let folder = Folder::new("");
    folder.write_private("real", b"[secret.a]\npsk = \"x\"");
    symlink("real", folder.path().join("ipsec.secrets.toml")).unwrap();
    assert_eq!(folder.load().unwrap().secrets.len(), 1);
    folder.set_mode("real", 0o644);
    assert!(folder.complaints().starts_with("error: ipsec.secrets.toml: others can read the secrets (mode 0644)"));
}

#[test]
fn what_is_missing_or_no_file_is_said_at_once() {
    let folder = Folder::new("");
    symlink("nowhere", folder.path().join("ipsec.secrets.toml")).unwrap();
    assert_eq!(
        folder.complaints(),
        "error: ipsec.secrets.toml: No such file or directory (os error 2)\n      = expected the file of the pre-shared keys here"
    );
    let folder = Folder::new("");
    fs::create_dir(folder.path().join("ipsec.secrets.toml")).unwrap();
    assert_eq!(folder.complaints(), "error: ipsec.secrets.toml: this is not a file");
    let folder = Folder::new("");
    fs::remove_file(folder.path().join("ipsec.toml")).unwrap();
    assert_eq!(
        folder.complaints(),
        "error: ipsec.toml: the file cannot be read: No such file or directory (os error 2)"
    );
    fs::write(folder.path().join("ipsec.toml"), [0xff]).unwrap();
    assert_eq!(folder.complaints(), "error: ipsec.toml: the file cannot be read: stream did not contain valid UTF-8");
    folder.write_private("ipsec.secrets.toml", &[0xff]);
    fs::write(folder.path().join("ipsec.toml"), "").unwrap();
    assert_eq!(folder.complaints(), "error: ipsec.secrets.toml: this is not UTF-8");
}

#[test]
fn secrets_are_text_hexadecimal_base64_or_a_file() {
    let secrets = "[secret.text]\npsk = \"Vpp123\"\n[secret.hex]\npsk = \"0x00fF\"\n[secret.base64]\npsk = \"0sAAEC\"\n\
                   [secret.bare]\npsk = \"0sAA\"\n[secret.file]\nfile = \"key\"\n[secret.escaped]\npsk = \"a\\tb\"\n";
    let folder = Folder::with_secrets("", secrets);
    folder.write_private("key", b"\0binary\n\n");
    let loaded = folder.load().unwrap();
    let keys: Vec<(&str, &[u8])> =
        loaded.secrets.iter().map(|secret| (secret.name.as_str(), secret.secret.expose().as_slice())).collect();
    let wanted: [(&str, &[u8]); 6] = [
        ("text", b"Vpp123"),
        ("hex", b"\0\xff"),
        ("base64", b"\0\x01\x02"),
        ("bare", b"\0"),
        ("file", b"\0binary\n"),
        ("escaped", b"a\tb"),
    ];
    assert_eq!(keys, wanted);
    assert_eq!(
        folder.complaints(),
        "warning: key: the newline at the end does not count as part of the secret\n      \
         = expected if an editor put it there; `printf %s` writes none"
    );
}

#[test]
fn a_secret_in_a_file_of_its_own_is_guarded_as_well() {
    let folder = Folder::with_secrets("", "[secret.a]\nfile = \"key\"");
    assert!(folder.complaints().starts_with("error: key: No such file or directory"));
    folder.write_private("key", b"x");
    folder.set_mode("key", 0o640);
    assert!(folder.complaints().starts_with("error: key: others can read the secrets (mode 0640)"));
    folder.write_private("key", b"\r\n");
    assert_eq!(folder.complaints(), "error: key: the file is empty");
}

#[test]
fn the_owners_of_secrets_are_identities() {
    let secrets = "[secret.none]\npsk = \"x\"\n[secret.one]\npsk = \"x\"\nfor = \"C=CH, O=strongSwan, CN=moon\"\n\
                   [secret.two]\npsk = \"x\"\nfor = [\"@a\", \"10.0.0.1\"]\n";
    let loaded = Folder::with_secrets("", secrets).load().unwrap();
    let owners: Vec<String> = loaded
        .secrets
        .iter()
        .map(|secret| secret.owners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "))
        .collect();
    assert_eq!(owners, ["", "C=CH, O=strongSwan, CN=moon", "a and 10.0.0.1"]);
}

/// Whatever is wrong with a secrets file, the secret is in no message.
#[test]
fn no_message_holds_a_secret() {
    const SECRET: &str = "hunter2";
    for wrong in [
        "[secret.a]\npsk = \"0xhunter2\"",
        "[secret.a]\npsk = \"0shunter2\"",
        "[secret.a]\npsk = hunter2",
        "[secret.a]\npsk = \"hunter2",
        "[secret.a]\nhunter2 = 1",
        "[secret.a]\nhunter2",
        "hunter2 = 1",
        "[hunter2]",
        "[secret.a]\npsk = \" hunter2\"\nfile = \"hunter2\"",
        "[secret.a]\npsk = [\"hunter2\"]",
        "[secret.a]\npsk = \"x\"\nfor = \"hunter2 hunter2\"",
        "[secret.a]\npsk = \"hunter2\"\npsk = \"hunter2\"",
        "[secret.a]\npsk = { hunter2 = 1 }",
        "[secret]\nhunter2 = \"hunter2\"",
    ] {
        let folder = Folder::with_secrets("", wrong);
        let problems = folder.load().unwrap_err();
        assert!(!format!("{problems} {problems:?}").contains(SECRET), "{wrong}: {problems}");
    }
    let folder = Folder::with_secrets("", "[secret.a]\npsk = \" hunter2 \"");
    let loaded = folder.load().unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(!format!("{loaded:?}").contains(SECRET));
}
