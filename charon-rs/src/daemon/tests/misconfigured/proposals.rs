//! Proposals that do not meet.

use super::*;

const IKE: &str = "IKE_NO_PROPOSAL";
const CHILD: &str = "CHILD_NO_PROPOSAL";

const IKE_ROWS: &[Row] = &[
    Row {
        what: "another cipher for IKE",
        edits: &[(Moon, "ike", "\"aes256-sha256-x25519\"")],
        said: &[(Moon, IKE, "ike"), (Sun, IKE, "ike")],
        cured_by: Some(Sun),
    },
    Row {
        what: "another key length for IKE",
        edits: &[(Moon, "ike", "\"aes128gcm16-prfsha256-x25519\"")],
        said: &[(Moon, IKE, "ike"), (Sun, IKE, "ike")],
        cured_by: Some(Sun),
    },
    Row {
        what: "another PRF",
        edits: &[(Moon, "ike", "\"aes256gcm16-prfsha384-x25519\"")],
        said: &[(Moon, IKE, "ike"), (Sun, IKE, "ike")],
        cured_by: Some(Sun),
    },
    Row {
        what: "another integrity algorithm for IKE",
        edits: &[(Moon, "ike", "\"aes256-sha384-x25519\""), (Sun, "ike", "\"aes256-sha256-x25519\"")],
        said: &[(Moon, IKE, "ike"), (Sun, IKE, "ike")],
        cured_by: Some(Sun),
    },
    Row {
        what: "another key exchange group",
        edits: &[(Moon, "ike", "\"aes256gcm16-prfsha256-modp2048\"")],
        said: &[(Moon, IKE, "ike"), (Sun, IKE, "ike")],
        cured_by: Some(Sun),
    },
    Row {
        what: "an additional key exchange on one side only",
        edits: &[(Sun, "ike", "\"aes256gcm16-prfsha256-x25519-ke1_mlkem768\"")],
        said: &[(Moon, IKE, "ike"), (Sun, IKE, "ike")],
        cured_by: None,
    },
];

const CHILD_ROWS: &[Row] = &[
    Row {
        what: "another cipher for ESP",
        edits: &[(Moon, "esp", "\"aes256-sha256\"")],
        said: &[(Moon, CHILD, "esp"), (Sun, CHILD, "esp")],
        cured_by: Some(Sun),
    },
    Row {
        what: "another key length for ESP",
        edits: &[(Moon, "esp", "\"aes128gcm16\"")],
        said: &[(Moon, CHILD, "esp"), (Sun, CHILD, "esp")],
        cured_by: Some(Sun),
    },
    Row {
        what: "extended sequence numbers on one side only",
        edits: &[(Moon, "esp", "\"aes256gcm16-esn\""), (Sun, "esp", "\"aes256gcm16-noesn\"")],
        said: &[(Moon, CHILD, "esp"), (Sun, CHILD, "esp")],
        cured_by: Some(Sun),
    },
    Row {
        what: "AH on one side, ESP on the other",
        edits: &[(Moon, "esp", ""), (Moon, "ah", "\"sha256\"")],
        said: &[(Moon, CHILD, "ah"), (Sun, CHILD, "esp")],
        cured_by: None,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn ike_proposals_that_do_not_meet_are_named_on_both_ends() {
    try_all(IKE_ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn esp_proposals_that_do_not_meet_are_named_on_both_ends() {
    try_all(CHILD_ROWS).await;
}

const GROUP_ROWS: &[Row] = &[
    Row {
        what: "other groups for children",
        edits: &[(Moon, "esp", "\"aes256gcm16-x25519\""), (Sun, "esp", "\"aes256gcm16-ecp256\"")],
        said: &[(Moon, CHILD, "esp"), (Sun, CHILD, "esp")],
        cured_by: None,
    },
    Row {
        what: "a group for children that the peer has not",
        edits: &[(Moon, "esp", "\"aes256gcm16-x25519\"")],
        said: &[(Moon, CHILD, "esp"), (Sun, CHILD, "esp")],
        cured_by: Some(Sun),
    },
];

/// With IKE_AUTH there is no key exchange for the child, so this shows only when it is rekeyed.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_the_peer_does_not_have_is_named_at_the_first_rekeying() {
    for row in GROUP_ROWS {
        let pair = Pair::bare();
        assert!(attempt(&pair, row, Act::Rekey), "{}: it is rekeyed", row.what);
        let said = verdict(&pair.moon).unwrap();
        assert!(said.text("hint").is_some_and(|hint| hint.contains("rekeying")), "{said}");
        check(&pair, row);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_only_the_responder_has_is_no_reason_to_lose_a_tunnel() {
    let edits = &[(Sun, "esp", "\"aes256gcm16-x25519\"")];
    let row = Row { what: "a group on one side", edits, said: &[], cured_by: None };
    assert!(!attempt(&Pair::bare(), &row, Act::Rekey));
}
