//! Addresses, and what happens to packets on the way.

use espdp_api::IkePath;

use super::*;

const ROWS: &[Row] = &[
    Row {
        what: "the initiator calls an address that the responder has, but not for this connection",
        edits: &[(Moon, "right", "\"192.0.2.22\"")],
        said: &[(Moon, "IKE_NO_PROPOSAL", "ike"), (Sun, "IKE_NO_CONNECTION", "left")],
        cured_by: None,
    },
    Row {
        what: "the responder expects the peer at another address",
        edits: &[(Sun, "right", "\"192.0.2.77\"")],
        said: &[(Moon, "IKE_NO_PROPOSAL", "ike"), (Sun, "IKE_NO_CONNECTION", "right")],
        cured_by: Some(Sun),
    },
    Row {
        what: "the responder has not loaded the connection",
        edits: &[(Sun, "auto", "\"ignore\"")],
        said: &[(Moon, "IKE_NO_PROPOSAL", "ike"), (Sun, "IKE_NO_CONNECTION", "right")],
        cured_by: None,
    },
    Row {
        what: "anybody on both sides, so that nobody can begin",
        edits: &[(Moon, "right", "\"%any\""), (Sun, "right", "\"%any\"")],
        said: &[(Moon, "NO_ADDRESS", "right")],
        cured_by: None,
    },
    Row {
        what: "a name that does not resolve",
        edits: &[(Moon, "right", "\"sun.invalid\"")],
        said: &[(Moon, "NO_ADDRESS", "right")],
        cured_by: None,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn wrong_addresses_are_named() {
    try_all(ROWS).await;
}

/// Whether a message on this path gets lost.
type Loses = fn(IkePath, &[u8]) -> bool;

/// What gets lost on the way, what `explain` says of it, and the configuration in which that shows.
const LOSSES: &[(Row, Loses)] = &[
    (
        Row {
            what: "everything: a firewall, or nobody there",
            edits: &[],
            said: &[(Moon, "PEER_SILENT", "right")],
            cured_by: None,
        },
        |_, _| true,
    ),
    (
        Row {
            what: "all that goes to port 4500",
            edits: &[(Moon, "forceencaps", "true")],
            said: &[(Moon, "NAT_PORT_SILENT", "encapsulation")],
            cured_by: None,
        },
        |path, _| path.remote.port() == 4500,
    ),
    (
        Row {
            what: "the answers, but not the requests",
            edits: &[],
            said: &[(Moon, "PEER_SILENT", "right")],
            cured_by: None,
        },
        |path, _| path.local.ip() == std::net::IpAddr::from([192, 0, 2, 2]),
    ),
    (
        Row {
            what: "long packets",
            edits: &[
                (Moon, "ike", "\"aes256gcm16-prfsha256-x25519-ke1_mlkem1024\""),
                (Sun, "ike", "\"aes256gcm16-prfsha256-x25519-ke1_mlkem1024\""),
                (Moon, "fragmentation", "\"no\""),
            ],
            said: &[(Moon, "LARGE_MESSAGE_LOST", "fragmentsize")],
            cured_by: None,
        },
        |_, message| message.len() > 1200,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_gets_lost_on_the_way_is_told_by_what_got_through() {
    for (row, loses) in LOSSES {
        let pair = Pair::bare();
        pair.lose(*loses);
        assert!(attempt(&pair, row, Act::Up), "{}", row.what);
        check(&pair, row);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_whose_answers_get_lost_tells_that_the_peer_did_not_go_on() {
    let (row, _) = LOSSES[2];
    let pair = Pair::bare();
    pair.lose(|path: IkePath, _| path.local.ip() == std::net::IpAddr::from([192, 0, 2, 2]));
    attempt(&pair, &row, Act::Up);
    let mut client: Client = pair.sun.client();
    let mut told = String::new();
    let arguments = Message::new().with("name", "gw");
    client.stream("explain", "explain", arguments, |event| told = event.to_string()).unwrap();
    assert!(told.contains("IKE_SA_INIT request 0") && told.contains("again=1"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_file_is_found_before_it_does_harm() {
    for (edit, said) in [
        ((Moon, "leftsubnett", "\"10.1.0.0/24\""), "did you mean `leftsubnet`?"),
        ((Moon, "interface", "\"ipsec7\""), "there is no [interface.ipsec7]"),
        ((Moon, "keyexchange", "\"ikev1\""), "`keyexchange` of ipsec.conf is not a key here"),
        ((Moon, "ike", "\"aes256gcm16-prfsha256\""), "aes256gcm16-prfsha256"),
        ((Moon, "leftcert", "\"moon.pem\""), "moon.pem"),
        ((Moon, "rightsubnet", "\"fd02::/64\""), "different families"),
    ] {
        let pair = Pair::bare();
        write_files(&pair.moon, &config(Moon, &[edit]), &secrets(Moon, &[]));
        let answer = reload(&pair.moon);
        let why = answer.text("errmsg").unwrap_or_default();
        assert!(!answer.is_yes("success") && why.contains(said) && why.contains("ipsec.toml:"), "{answer}");
    }
}
