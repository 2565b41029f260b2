//! Traffic selectors and modes that do not meet.

use super::*;

const TS: &str = "TS_UNACCEPTABLE";

const ROWS: &[Row] = &[
    Row {
        what: "the responder has another network on its side",
        edits: &[(Sun, "leftsubnet", "\"10.9.0.0/24\"")],
        said: &[(Moon, TS, "rightsubnet"), (Sun, TS, "leftsubnet")],
        cured_by: Some(Sun),
    },
    Row {
        what: "the responder expects another network of the peer",
        edits: &[(Sun, "rightsubnet", "\"10.9.0.0/24\"")],
        said: &[(Moon, TS, "rightsubnet"), (Sun, TS, "rightsubnet")],
        cured_by: Some(Sun),
    },
    Row {
        what: "left and right are swapped",
        edits: &[(Moon, "leftsubnet", "\"10.2.0.0/24\""), (Moon, "rightsubnet", "\"10.1.0.0/24\"")],
        said: &[(Moon, TS, "rightsubnet"), (Sun, TS, "leftsubnet")],
        cured_by: None,
    },
    Row {
        what: "another protocol",
        edits: &[(Moon, "rightprotoport", "\"tcp\""), (Sun, "leftprotoport", "\"udp\"")],
        said: &[(Moon, TS, "rightsubnet"), (Sun, TS, "leftsubnet")],
        cured_by: None,
    },
    Row {
        what: "another family",
        edits: &[(Moon, "leftsubnet", "\"fd01::/64\""), (Moon, "rightsubnet", "\"fd02::/64\"")],
        said: &[(Moon, TS, "rightsubnet"), (Sun, TS, "leftsubnet")],
        cured_by: None,
    },
    Row {
        what: "transport mode here, a tunnel there",
        edits: &[
            (Moon, "type", "\"transport\""),
            (Moon, "leftsubnet", ""),
            (Moon, "rightsubnet", ""),
            (Sun, "leftsubnet", "\"192.0.2.2/32\""),
            (Sun, "rightsubnet", "\"192.0.2.1/32\""),
        ],
        said: &[(Moon, "PEER_REFUSED", "type")],
        cured_by: Some(Moon),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn selectors_and_modes_that_do_not_meet_are_named_on_both_ends() {
    try_all(ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_sides_are_seen_through() {
    let row = ROWS[2];
    let pair = Pair::bare();
    attempt(&pair, &row, Act::Up);
    let said = verdict(&pair.sun).unwrap();
    assert!(said.text("what").is_some_and(|what| what.contains("has on its side what is on ours")), "{said}");
}
