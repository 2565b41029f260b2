//! Rekeying with strongSwan under traffic: no packet may be lost, whoever starts it. Needs root and strongSwan.

use anyhow::{Result, ensure};
use harness::{PingStream, Site};
use interop::{Case, Pair};

/// Rekeys with `rekey`, several times, while pings run in both directions.
fn rekey_under_traffic(case: Case<'_>, rekey: impl Fn(&Pair) -> Result<()>) -> Result<()> {
    let pair = Pair::two_sites(case)?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    let streams = [
        PingStream::start(&pair.world, Site::MOON.host, Site::SUN.host4)?,
        PingStream::start(&pair.world, Site::SUN.host, Site::MOON.host4)?,
    ];
    for _ in 0..3 {
        rekey(&pair)?;
        pair.expect_pings()?;
    }
    for stream in streams {
        let result = stream.stop()?;
        ensure!(
            result.lossless() && result.sent > 100,
            "{result:?}\n--- ours\n{}\n--- theirs\n{}",
            pair.ours.log(),
            pair.theirs.log()
        );
    }
    Ok(())
}

#[test]
fn we_rekey_the_child() -> Result<()> {
    rekey_under_traffic(Case::default(), |pair| pair.ours.expect_ctl(&["rekey", "net", "--child", "net"]).map(drop))
}

#[test]
fn we_rekey_the_child_with_another_key_exchange() -> Result<()> {
    let case = Case { esp: "aes256gcm16-ecp256", ..Case::default() };
    rekey_under_traffic(case, |pair| pair.ours.expect_ctl(&["rekey", "net", "--child", "net"]).map(drop))
}

#[test]
fn the_peer_rekeys_the_child() -> Result<()> {
    rekey_under_traffic(Case::default(), |pair| pair.theirs.swanctl(&["--rekey", "--child", "net"]).map(drop))
}

#[test]
fn the_peer_rekeys_the_child_with_another_key_exchange() -> Result<()> {
    let case = Case { esp: "aes128-sha256-curve25519", ..Case::default() };
    rekey_under_traffic(case, |pair| pair.theirs.swanctl(&["--rekey", "--child", "net"]).map(drop))
}

#[test]
fn the_peer_rekeys_the_ike_sa() -> Result<()> {
    rekey_under_traffic(Case::default(), |pair| pair.theirs.swanctl(&["--rekey", "--ike", "net"]).map(drop))
}

#[test]
fn we_rekey_the_ike_sa() -> Result<()> {
    rekey_under_traffic(Case::default(), |pair| pair.ours.expect_ctl(&["rekey", "net"]).map(drop))
}
