//! strongSwan 6 as the peer, for what version 5 cannot. Needs root, strongSwan, and the folder that
//! `tests/interop/install-strongswan6` fills.

use anyhow::{Result, ensure};
use harness::Version;
use interop::{Case, Pair};

fn six() -> Case<'static> {
    Case { their_version: Version::Six, ..Case::default() }
}

#[test]
fn a_tunnel_comes_up_from_either_side() -> Result<()> {
    Pair::both_ways(six()).map(drop)
}

/// ML-KEM as an additional key exchange of the IKE SA and of its Child SAs.
fn hybrid() -> Case<'static> {
    Case { ike: "aes256gcm16-prfsha384-x25519-ke1_mlkem768", esp: "aes256gcm16-x25519-ke1_mlkem768", ..six() }
}

/// Rekeys everything from both sides; what is left must still be hybrid.
fn expect_rekeys(pair: &Pair) -> Result<()> {
    let status = || pair.ours.expect_ctl(&["status"]);
    ensure!(status()?.contains("KE1_ML_KEM_768"), "the IKE SA is not hybrid: {}", status()?);
    pair.ours.expect_ctl(&["rekey", "net", "--child", "net"])?;
    pair.expect_pings()?;
    pair.ours.expect_ctl(&["rekey", "net"])?;
    pair.expect_pings()?;
    pair.theirs.swanctl(&["--rekey", "--child", "net"])?;
    pair.expect_pings()?;
    pair.theirs.swanctl(&["--rekey", "--ike", "net"])?;
    pair.expect_pings()?;
    ensure!(status()?.contains("KE1_ML_KEM_768"), "the rekeyed IKE SA is not hybrid: {}", status()?);
    Ok(())
}

#[test]
fn we_exchange_keys_by_ml_kem_as_well() -> Result<()> {
    let pair = Pair::two_sites(hybrid())?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    expect_rekeys(&pair)
}

#[test]
fn the_peer_exchanges_keys_by_ml_kem_as_well() -> Result<()> {
    let pair = Pair::two_sites(hybrid())?;
    pair.up_from_theirs()?;
    pair.expect_pings()?;
    expect_rekeys(&pair)
}

#[test]
fn three_key_exchanges_one_after_the_other() -> Result<()> {
    let case = Case { ike: "aes256gcm16-prfsha384-x25519-ke1_mlkem1024-ke2_ecp384-ke3_mlkem512", ..six() };
    Pair::both_ways(case).map(drop)
}
