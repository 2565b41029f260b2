//! What goes wrong with strongSwan must be explained here and leave nothing behind. Needs root and strongSwan.

use anyhow::{Result, ensure};
use harness::Site;
use interop::{Case, LIMIT, Pair};

/// Neither an SA nor a way to the peer's network may be left of a tunnel that never was; the route into nothing, which keeps
/// packets for it from leaving in clear, stays for as long as the connection is configured.
fn expect_nothing_left(pair: &Pair) -> Result<()> {
    pair.ours.wait_status(LIMIT, "no SA", |status| !status.to_string().contains("spi_in"))?;
    let routes = pair.world.sh("moon", "ip route show table all")?;
    ensure!(!routes.contains("10.2.0.0/16 dev"), "a route is left: {routes}");
    pair.expect_silence()
}

#[test]
fn a_wrong_key_is_named_when_we_respond() -> Result<()> {
    let pair = Pair::two_sites(Case { our_psk: "wrong", ..Case::default() })?;
    let output = pair.theirs.try_swanctl(&["--initiate", "--child", "net"])?;
    ensure!(!output.status.success(), "strongSwan got in with a wrong key");
    ensure!(pair.ours.log().contains("AUTH_PSK_MISMATCH"), "{}", pair.ours.log());
    expect_nothing_left(&pair)
}

#[test]
fn a_wrong_key_is_named_when_we_initiate() -> Result<()> {
    let pair = Pair::two_sites(Case { our_psk: "wrong", ..Case::default() })?;
    let said = pair.ours.ctl(&["up", "net"])?;
    ensure!(!said.success, "it came up with a wrong key: {}", said.stdout);
    ensure!((said.stdout.clone() + &said.stderr).contains("AUTH_REFUSED_BY_PEER"), "{}{}", said.stdout, said.stderr);
    expect_nothing_left(&pair)
}

#[test]
fn a_wrong_key_with_a_line_end_is_seen_through() -> Result<()> {
    let pair = Pair::two_sites(Case { our_psk: "correct horse battery staple\\n", ..Case::default() })?;
    pair.theirs.try_swanctl(&["--initiate", "--child", "net"])?;
    ensure!(pair.ours.log().contains("AUTH_PSK_MISMATCH"), "{}", pair.ours.log());
    let status = pair.ours.expect_ctl(&["status"])?;
    ensure!(
        status.contains("newline") || status.contains("white space") || status.contains("trailing"),
        "no hint: {status}"
    );
    Ok(())
}

/// Both gateways with proposals of their own.
fn with_proposals(ours: (&str, &str), theirs: (&str, &str)) -> Result<Pair> {
    let case = |(ike, esp)| Case { ike, esp, ..Case::default() };
    Pair::unlike(case(ours), case(theirs))
}

#[test]
fn no_common_ike_proposal_is_explained_to_the_side_that_refuses() -> Result<()> {
    let pair = with_proposals(
        ("aes256gcm16-prfsha256-ecp256", "aes256gcm16"),
        ("aes256gcm16-prfsha256-modp2048", "aes256gcm16"),
    )?;
    let output = pair.theirs.try_swanctl(&["--initiate", "--child", "net"])?;
    ensure!(!output.status.success());
    let status = pair.ours.expect_ctl(&["status"])?;
    for wanted in ["IKE_NO_PROPOSAL", "MODP_2048", "ECP_256", "ike"] {
        ensure!(status.contains(wanted), "`{wanted}` is not in: {status}\n--- log\n{}", pair.ours.log());
    }
    expect_nothing_left(&pair)
}

#[test]
fn no_common_ike_proposal_is_reported_when_the_peer_refuses() -> Result<()> {
    let pair =
        with_proposals(("aes128-sha256-ecp256", "aes256gcm16"), ("aes256gcm16-prfsha256-ecp256", "aes256gcm16"))?;
    let said = pair.ours.ctl(&["up", "net"])?;
    ensure!(
        !said.success && (said.stdout.clone() + &said.stderr).contains("NO_PROPOSAL"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    expect_nothing_left(&pair)
}

#[test]
fn no_common_esp_proposal_keeps_the_ike_sa_and_is_explained() -> Result<()> {
    let pair = with_proposals(
        ("aes256gcm16-prfsha256-ecp256", "aes128-sha256"),
        ("aes256gcm16-prfsha256-ecp256", "aes256gcm16"),
    )?;
    let said = pair.ours.ctl(&["up", "net"])?;
    ensure!(
        !said.success && (said.stdout.clone() + &said.stderr).contains("CHILD_NO_PROPOSAL"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    pair.expect_silence()
}

#[test]
fn selectors_that_do_not_meet_are_shown() -> Result<()> {
    let case = Case { ours: Site { net4: "10.9.0.0/16", net6: "fec9::/64", ..Site::MOON }, ..Case::default() };
    let pair = Pair::unlike(case, Case::default())?;
    pair.theirs.try_swanctl(&["--initiate", "--child", "net"])?;
    let status = pair.ours.expect_ctl(&["status"])?;
    for wanted in ["TS_UNACCEPTABLE", "10.9.0.0/16", "10.1.0.0/16"] {
        ensure!(status.contains(wanted), "`{wanted}` is not in: {status}");
    }
    pair.expect_silence()
}
