//! Identities, pre-shared keys and what else is settled with IKE_AUTH.

use super::*;

const REFUSED: &str = "AUTH_REFUSED_BY_PEER";

const PSK_ROWS: &[Row] = &[
    Row {
        what: "another key",
        edits: &[(Sun, "psk", "[secret.site]\npsk = \"wrong\"\n")],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_PSK_MISMATCH", "psk")],
        cured_by: None,
    },
    Row {
        what: "a key with a line end",
        edits: &[(Sun, "psk", "[secret.site]\npsk = \"correct horse battery staple\\n\"\n")],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_PSK_MISMATCH", "psk")],
        cured_by: None,
    },
    Row {
        what: "the responder has no key",
        edits: &[(Sun, "psk", "# none\n")],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_NO_PSK", "psk")],
        cured_by: Some(Sun),
    },
    Row {
        what: "the initiator has no key",
        edits: &[(Moon, "psk", "# none\n")],
        said: &[(Moon, "AUTH_NO_PSK", "psk")],
        cured_by: Some(Moon),
    },
    Row {
        what: "the key is for somebody else",
        edits: &[(
            Sun,
            "psk",
            "[secret.site]\nfor = [\"sun.example.org\", \"venus.example.org\"]\npsk = \"correct horse battery staple\"\n",
        )],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_NO_PSK", "psk")],
        cured_by: Some(Sun),
    },
    Row {
        what: "two keys, and the one for this peer is wrong",
        edits: &[(
            Sun,
            "psk",
            "[secret.other]\nfor = [\"sun.example.org\", \"venus.example.org\"]\npsk = \"correct horse battery staple\"\n\
             [secret.site]\nfor = [\"sun.example.org\", \"moon.example.org\"]\npsk = \"wrong\"\n",
        )],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_PSK_MISMATCH", "psk")],
        cured_by: None,
    },
];

const ID_ROWS: &[Row] = &[
    Row {
        what: "the initiator calls itself something else",
        edits: &[(Moon, "leftid", "\"mond.example.org\""), (Sun, "psk", ANYBODY), (Moon, "psk", ANYBODY)],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_ID_REFUSED", "rightid")],
        cured_by: Some(Sun),
    },
    Row {
        what: "the initiator sends its address as identity",
        edits: &[(Moon, "leftid", ""), (Sun, "psk", ANYBODY), (Moon, "psk", ANYBODY)],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_ID_REFUSED", "rightid")],
        cured_by: Some(Sun),
    },
    Row {
        what: "the initiator asks for somebody else",
        edits: &[(Moon, "rightid", "\"venus.example.org\""), (Sun, "psk", ANYBODY), (Moon, "psk", ANYBODY)],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_ID_REFUSED", "leftid")],
        cured_by: Some(Sun),
    },
    Row {
        what: "the responder calls itself something else",
        edits: &[(Sun, "leftid", "\"sonne.example.org\""), (Sun, "psk", ANYBODY), (Moon, "psk", ANYBODY)],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_ID_REFUSED", "leftid")],
        cured_by: Some(Sun),
    },
    Row {
        what: "the responder is none of those whom the initiator takes",
        edits: &[(Moon, "rightid", "\"*.example.com\""), (Sun, "psk", ANYBODY), (Moon, "psk", ANYBODY)],
        said: &[(Moon, "AUTH_ID_REFUSED", "rightid")],
        cured_by: Some(Moon),
    },
    Row {
        what: "no Child SA with IKE_AUTH on one side, never without on the other",
        edits: &[(Moon, "childless", "\"force\""), (Sun, "childless", "\"never\"")],
        said: &[(Moon, "CHILDLESS_REFUSED", "childless")],
        cured_by: None,
    },
    Row {
        what: "a post-quantum key on one side only",
        edits: &[
            (Moon, "ppk_id", "\"site\""),
            (Moon, "ppk_required", "true"),
            (
                Moon,
                "psk",
                "[secret.site]\npsk = \"correct horse battery staple\"\n[ppk.site]\npsk = \"another one, and long enough\"\n",
            ),
        ],
        said: &[(Moon, "AUTH_PPK_REFUSED", "ppk_id")],
        cured_by: None,
    },
    Row {
        what: "post-quantum keys with different names",
        edits: &[
            (Moon, "ppk_id", "\"here\""),
            (Moon, "ppk_required", "true"),
            (
                Moon,
                "psk",
                "[secret.site]\npsk = \"correct horse battery staple\"\n[ppk.here]\npsk = \"another one, and long enough\"\n",
            ),
            (Sun, "ppk_id", "\"there\""),
            (Sun, "ppk_required", "true"),
            (
                Sun,
                "psk",
                "[secret.site]\npsk = \"correct horse battery staple\"\n[ppk.there]\npsk = \"another one, and long enough\"\n",
            ),
        ],
        said: &[(Moon, REFUSED, "psk"), (Sun, "AUTH_PPK_REFUSED", "ppk_id")],
        cured_by: None,
    },
];

/// One key for everybody, so that only identities matter.
const ANYBODY: &str = "[secret.all]\npsk = \"correct horse battery staple\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_missing_pre_shared_keys_are_named() {
    try_all(PSK_ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_identities_and_extras_are_named() {
    try_all(ID_ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_secrets_is_named_and_nothing_of_it_is_shown() {
    let row = PSK_ROWS[0];
    let pair = Pair::bare();
    attempt(&pair, &row, Act::Up);
    let said = verdict(&pair.sun).unwrap();
    assert!(said.text("place").is_some_and(|place| place.ends_with("ipsec.secrets.toml:2")), "{said}");
    assert!(said.text("line").is_none() && !said.to_string().contains("wrong"), "{said}");
    let row = PSK_ROWS[1];
    let pair = Pair::bare();
    attempt(&pair, &row, Act::Up);
    let said = verdict(&pair.sun).unwrap();
    assert!(said.text("hint").is_some_and(|hint| hint.contains("white space at its end")), "{said}");
}
