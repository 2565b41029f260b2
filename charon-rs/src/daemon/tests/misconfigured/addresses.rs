//! Virtual addresses that are not asked for, or not given.

use super::*;

/// Both have a child for the virtual address.
const HOST: [Edit; 2] = [(Moon, "leftsubnet", ""), (Sun, "rightsubnet", "")];

const ASKS: Edit = (Moon, "leftsourceip", "\"%config\"");

const REFUSED: Said = (Moon, "CP_ADDRESS_REFUSED", "leftsourceip");

const ROWS: &[Row] = &[
    Row {
        what: "the gateway has no pool",
        edits: &[HOST[0], HOST[1], ASKS],
        said: &[REFUSED, (Sun, "CP_NO_POOL", "rightsourceip")],
        cured_by: None,
    },
    Row {
        what: "the pool is of the other family",
        edits: &[HOST[0], HOST[1], ASKS, (Sun, "rightsourceip", "\"fec3::/120\"")],
        said: &[REFUSED, (Sun, "CP_NO_POOL", "rightsourceip")],
        cured_by: None,
    },
    Row {
        what: "the gateway gives an address that no host can have",
        edits: &[HOST[0], HOST[1], ASKS, (Sun, "rightsourceip", "\"127.0.0.9\"")],
        said: &[REFUSED],
        cured_by: None,
    },
    Row {
        what: "the client asks for nothing",
        edits: &[HOST[0], HOST[1], (Sun, "rightsourceip", "\"10.3.0.0/24\"")],
        said: &[(Moon, "CP_REQUIRED", "leftsourceip"), (Sun, "CP_REQUIRED", "rightsourceip")],
        cured_by: None,
    },
];

const ANYBODY: &str = "[secret.any]\npsk = \"correct horse battery staple\"\n";

const EXHAUSTED: Row = Row {
    what: "the pool has one address",
    edits: &[
        HOST[0],
        HOST[1],
        ASKS,
        (Sun, "rightsourceip", "\"10.3.0.1\""),
        (Sun, "rightid", "\"%any\""),
        (Moon, "psk", ANYBODY),
        (Sun, "psk", ANYBODY),
    ],
    said: &[],
    cured_by: None,
};

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_asked_for_or_not_given_are_named_on_both_ends() {
    try_all(ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_that_asks_for_nothing_is_told_what_to_write() {
    let pair = Pair::bare();
    attempt(&pair, &ROWS[3], Act::Up);
    let found = verdict(&pair.moon).unwrap();
    assert_eq!(found.list("edit"), ["leftsourceip = \"%config\""]);
    // The IKE SA is there, and was made without a request.
    pair.moon.client().request("terminate", Message::new().with("ike", "gw")).unwrap();
    paste(&pair.moon, &found);
    assert!(reload(&pair.moon).is_yes("success"));
    assert!(!act_on(&pair.moon, Act::Up), "{:?}", verdict(&pair.moon).map(|section| section.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_is_named_on_both_ends() {
    let pair = Pair::bare();
    assert!(!attempt(&pair, &EXHAUSTED, Act::Up), "the first one gets it");
    let psk = |id: &str| Message::new().with("auth", "psk").with("id", id);
    let carol = Message::new()
        .with("local_addrs", "192.0.2.1")
        .with("remote_addrs", "192.0.2.2")
        .with("proposals", "aes256gcm16-prfsha256-x25519")
        .with("vips", "0.0.0.0")
        .with_section("local", psk("carol.example.org"))
        .with_section("remote", psk("sun.example.org"))
        .with_section(
            "children",
            Message::new().with_section("carol", Message::new().with("remote_ts", "10.2.0.0/24")),
        );
    let mut client = pair.moon.client();
    assert!(client.request("load-conn", Message::new().with_section("carol", carol)).unwrap().is_yes("success"));
    let up = client.request("initiate", Message::new().with("ike", "carol").with("child", "carol"));
    assert!(!up.unwrap().is_yes("success"));
    let (moon, sun) = (verdict(&pair.moon).unwrap(), verdict(&pair.sun).unwrap());
    assert_eq!((moon.text("code"), moon.text("key")), (Some("CP_ADDRESS_REFUSED"), Some("connections.carol.vips")));
    assert_eq!(sun.text("code"), Some("CP_POOL_EXHAUSTED"), "{sun}");
    assert!(sun.list("ours").contains(&"pool `10.3.0.1`: 10.3.0.1/32, 1 of 1 in use".to_owned()), "{sun}");
    let pools = pair.sun.client().request("get-pools", Message::new().with("leases", "yes")).unwrap();
    let lease = pools.section("10.3.0.1").and_then(|pool| pool.section("leases")?.section("0").cloned()).unwrap();
    assert_eq!(lease.to_string(), "{address=10.3.0.1 identity=moon.example.org status=online}");
}
