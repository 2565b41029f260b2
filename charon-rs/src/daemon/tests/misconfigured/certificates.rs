//! Certificates that do not convince.

use pki::certificate::KeyPurpose;
use pki::issue::Template;
use pki::key::KeyFormat;

use super::*;
use crate::credentials::testing::{Entity, day};

/// Who has which certificate, and whom moon trusts.
struct Papers {
    moon: Entity,
    sun: Entity,
    /// What sun sends besides its own.
    chain: Vec<Entity>,
    trusted: Vec<Entity>,
}

/// A mistake: what is wrong with the papers, and how both ends speak of it.
struct Case {
    row: Row,
    papers: fn(&Entity) -> Papers,
}

/// Papers as they should be, with a change of sun's certificate.
fn good(root: &Entity, change: impl FnOnce(&mut Template)) -> Papers {
    let (moon, sun) = (root.gateway("moon", |_| {}), root.gateway("sun", change));
    Papers { moon, sun, chain: Vec::new(), trusted: Vec::new() }
}

fn refused(what: &'static str, said: &'static [Said]) -> Row {
    Row { what, edits: &[], said, cured_by: None }
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            row: refused("a CA that nobody trusts", &[(Moon, "AUTH_NO_CA", "cacerts")]),
            papers: |root| Papers { sun: Entity::root("elsewhere").gateway("sun", |_| {}), ..good(root, |_| {}) },
        },
        Case {
            row: refused("a missing CA in between", &[(Moon, "AUTH_NO_CA", "cacerts")]),
            papers: |root| Papers {
                sun: root.authority("between", |_| {}).gateway("sun", |_| {}),
                ..good(root, |_| {})
            },
        },
        Case {
            row: refused("an expired certificate", &[(Moon, "AUTH_CERT_EXPIRED", "")]),
            papers: |root| good(root, |template| (template.not_before, template.not_after) = (day(-9), day(-8))),
        },
        Case {
            row: refused("a certificate of tomorrow", &[(Moon, "AUTH_CERT_NOT_YET_VALID", "")]),
            papers: |root| good(root, |template| (template.not_before, template.not_after) = (day(8), day(9))),
        },
        Case {
            row: refused("a certificate for another name", &[(Moon, "AUTH_ID_NOT_IN_CERT", "rightid")]),
            papers: |root| good(root, |template| template.alternative_names = vec!["sol.example.org".parse().unwrap()]),
        },
        Case {
            row: refused("a certificate for something else", &[(Moon, "AUTH_KEY_USAGE", "")]),
            papers: |root| good(root, |template| template.purposes = vec![KeyPurpose::OcspSigning]),
        },
        Case {
            row: Row {
                edits: &[(Moon, "rightca", "\"CN=other\"")],
                ..refused("not of the CA that the connection wants", &[(Moon, "AUTH_CA_REFUSED", "rightca")])
            },
            papers: |root| Papers { trusted: vec![Entity::root("other")], ..good(root, |_| {}) },
        },
        Case {
            row: Row {
                edits: &[(Moon, "rightauth", "\"ecdsa-384\"")],
                ..refused("a key that is too short", &[(Moon, "AUTH_KEY_TOO_WEAK", "rightauth")])
            },
            papers: |root| good(root, |_| {}),
        },
        Case {
            row: Row {
                edits: &[(Moon, "rightauth", "\"ecdsa-256-sha512\"")],
                ..refused("a hash that is not accepted", &[(Moon, "AUTH_ALGORITHM_REFUSED", "rightauth")])
            },
            papers: |root| good(root, |_| {}),
        },
        Case {
            row: Row {
                edits: &[(Moon, "revocation", "\"strict\"")],
                ..refused("no CRL where one is demanded", &[(Moon, "AUTH_CRL_UNAVAILABLE", "revocation")])
            },
            papers: |root| good(root, |_| {}),
        },
        Case {
            row: Row {
                edits: &[(Sun, "sendcert", "\"never\"")],
                ..refused("a peer that sends no certificate", &[(Moon, "AUTH_NO_CERTIFICATE", "rightcert")])
            },
            papers: |root| good(root, |_| {}),
        },
        Case {
            row: Row {
                edits: &[(Moon, "rightcert", "\"moon.pem\""), (Moon, "rightid", "\"sun.example.org\"")],
                ..refused("another certificate than the pinned one", &[(Moon, "AUTH_CERT_NOT_PINNED", "rightcert")])
            },
            papers: |root| good(root, |_| {}),
        },
        Case {
            row: Row {
                edits: &[(Moon, "rightauth", "\"psk\""), (Moon, "psk", "[secret.site]\npsk = \"key\"\n")],
                ..refused(
                    "a certificate where a pre-shared key is wanted",
                    &[(Moon, "AUTH_METHOD_REFUSED", "rightauth")],
                )
            },
            papers: |root| good(root, |_| {}),
        },
    ]
}

/// The good configuration with certificates; moon has the mistakes of `row`, sun its own.
fn files(who: Who, row: &Row) -> String {
    let own = if who == Moon { "\"moon.pem\"" } else { "\"sun.pem\"" };
    let mut edits: Vec<Edit> =
        vec![(who, "leftcert", own), (who, "leftauth", "\"pubkey\""), (who, "rightauth", "\"pubkey\"")];
    edits.extend(row.edits);
    config(who, &edits)
}

fn equip(daemon: &Running, (name, own): (&str, &Entity), chain: &[Entity], trusted: &[&Entity]) {
    let folder = daemon.folder.path();
    for kind in ["certs", "private", "cacerts"] {
        fs::create_dir(folder.join(kind)).unwrap();
    }
    let chain: String = chain.iter().map(|entity| entity.certificate.to_pem()).collect();
    fs::write(folder.join("certs").join(format!("{name}.pem")), own.certificate.to_pem() + &chain).unwrap();
    let key = folder.join("private/own.pem");
    fs::write(&key, own.key.to_pem(KeyFormat::Pkcs8).as_bytes()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    for (number, ca) in trusted.iter().enumerate() {
        fs::write(folder.join(format!("cacerts/{number}.pem")), ca.certificate.to_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_convince_say_why() {
    for Case { row, papers } in cases() {
        let root = Entity::root("root");
        let Papers { moon, sun, chain, trusted } = papers(&root);
        let pair = Pair::bare();
        let trusted: Vec<&Entity> = std::iter::once(&root).chain(&trusted).collect();
        equip(&pair.moon, ("moon", &moon), &[], &trusted);
        equip(&pair.sun, ("sun", &sun), &chain, &[&root]);
        for (who, daemon) in [(Moon, &pair.moon), (Sun, &pair.sun)] {
            write_files(daemon, &files(who, &row), &secrets(who, row.edits));
            let answer = reload(daemon);
            assert!(answer.is_yes("success"), "{}: {answer}", row.what);
        }
        assert!(act_on(&pair.moon, Act::Up), "{}: it is up", row.what);
        check(&pair, &row);
    }
}
