//! Other ways to begin with strongSwan: without a Child SA, with a post-quantum pre-shared key, in several rounds, and
//! anew. Needs root and strongSwan.

use anyhow::{Result, ensure};
use harness::{PingStream, Site, wait_until};
use interop::certificates::Certificates;
use interop::{Case, LIMIT, Pair};

/// Both ends have this key.
fn with_ppk<'a>(our_lines: &'a str, their_connection: &'a str) -> Case<'a> {
    Case {
        our_lines,
        their_connection,
        our_secrets: "[ppk.shared]\npsk = \"0x0102030405060708090a0b0c0d0e0f10\"\n",
        their_secrets: "ppk-shared {\n    id = shared\n    secret = 0x0102030405060708090a0b0c0d0e0f10\n  }",
        ..Case::default()
    }
}

#[test]
fn a_post_quantum_pre_shared_key_that_both_require() -> Result<()> {
    let required = "ppk_id = \"shared\"\nppk_required = true";
    let pair = Pair::both_ways(with_ppk(required, "ppk_id = shared\n    ppk_required = yes"))?;
    ensure!(pair.theirs.log().contains("using PPK for PPK_ID 'shared'"), "{}", pair.theirs.log());
    pair.ours.expect_ctl(&["rekey", "net"])?;
    pair.theirs.swanctl(&["--rekey", "--ike", "net"])?;
    pair.expect_pings()
}

#[test]
fn a_post_quantum_pre_shared_key_that_only_we_know() -> Result<()> {
    let pair = Pair::both_ways(Case { their_secrets: "", ..with_ppk("ppk_id = \"shared\"", "") })?;
    ensure!(!pair.theirs.log().contains("using PPK for"), "{}", pair.theirs.log());
    Ok(())
}

#[test]
fn ike_sas_without_a_child_to_begin_with() -> Result<()> {
    let pair = Pair::both_ways(Case {
        our_lines: "childless = \"force\"",
        their_connection: "childless = force",
        esp: "aes256gcm16-ecp256",
        ..Case::default()
    })?;
    ensure!(pair.theirs.log().contains("CREATE_CHILD_SA request"), "{}", pair.theirs.log());
    Ok(())
}

#[test]
fn the_peer_proves_itself_in_two_rounds() -> Result<()> {
    let certificates = Certificates::new("--type ecdsa --size 256")?;
    let daemon = certificates.our_daemon();
    let lines = "leftauth = \"psk\"\nrightauth = \"pubkey\"\nrightauth2 = \"psk\"\nrightid2 = \"sun.example.org\"";
    Pair::both_ways(Case {
        their_connection: "local-2 {\n      auth = psk\n      id = sun.example.org\n      round = 2\n    }",
        their_remote: "auth = psk",
        ..certificates.case(&daemon, lines)
    })
    .map(drop)
}

#[test]
fn we_prove_ourselves_in_two_rounds() -> Result<()> {
    let certificates = Certificates::new("--type ecdsa --size 256")?;
    let daemon = certificates.our_daemon();
    let lines = certificates.our_lines().replace("\"pubkey\"", "\"psk\"")
        + "\nleftauth = \"pubkey\"\nleftauth2 = \"psk\"\nleftid2 = \"moon.example.org\"";
    // strongSwan as the initiator counts the rounds of its peer after the first one already, so only we initiate.
    let pair = Pair::two_sites(Case {
        their_connection: "remote-2 {\n      auth = psk\n      id = moon.example.org\n      round = 2\n    }",
        their_local: "auth = psk",
        ..certificates.case(&daemon, &lines)
    })?;
    pair.up_from_ours()?;
    pair.expect_pings()
}

/// Makes the IKE SA anew twice while pings run, of which so many may be lost.
fn anew(case: Case<'_>, tolerated: u32, reauthenticate: impl Fn(&Pair) -> Result<()>) -> Result<()> {
    let pair = Pair::two_sites(case)?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    let stream = PingStream::start(&pair.world, Site::MOON.host, Site::SUN.host4)?;
    for _ in 0..2 {
        reauthenticate(&pair)?;
        wait_until(LIMIT, "pings without a loss", || Ok(tolerated == 0 || pair.expect_pings().is_ok()))?;
        pair.expect_pings()?;
    }
    let result = stream.stop()?;
    ensure!(
        result.received + tolerated >= result.sent && result.sent > 50,
        "{result:?}\n--- ours\n{}\n--- theirs\n{}",
        pair.ours.log(),
        pair.theirs.log()
    );
    Ok(())
}

#[test]
fn we_authenticate_anew_without_losing_a_packet() -> Result<()> {
    anew(Case::default(), 0, |pair| pair.ours.expect_ctl(&["rekey", "net", "--reauth"]).map(drop))
}

#[test]
fn the_peer_authenticates_anew_under_traffic() -> Result<()> {
    let case = Case { their_daemon: "make_before_break = yes", ..Case::default() };
    anew(case, 0, |pair| pair.theirs.swanctl(&["--rekey", "--ike", "net", "--reauth"]).map(drop))
}
