//! Rekeying with strongSwan under traffic: no packet may be lost, whoever starts it. Needs root and strongSwan.

use anyhow::{Result, anyhow, ensure};
use harness::{PingStream, Site};
use interop::{Case, LIMIT, Pair};

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

/// Both ends rekey at once, again and again, while pings run; in the end there is one pair of SAs.
fn rekey_at_once(ours: &[&str], theirs: &[&str]) -> Result<Pair> {
    let pair = Pair::two_sites(Case::default())?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    let stream = PingStream::start(&pair.world, Site::MOON.host, Site::SUN.host4)?;
    for _ in 0..8 {
        // Which of the two comes first is left to chance; whoever finds its SA replaced may say so.
        std::thread::scope(|scope| {
            let their_end = scope.spawn(|| pair.theirs.try_swanctl(theirs).map(drop));
            let our_end = pair.ours.ctl(ours).map(drop);
            our_end.and(their_end.join().map_err(|_| anyhow!("swanctl panicked"))?)
        })?;
        pair.ours.wait_status(LIMIT, "one pair of SAs", |status| {
            let status = status.to_string();
            let alone = |state: &str| status.matches(state).count() == 1;
            alone("\"ESTABLISHED\"") && alone("\"INSTALLED\"") && !status.contains("\"DELETING\"")
        })?;
        pair.expect_pings()?;
    }
    let result = stream.stop()?;
    let sas = pair.theirs.swanctl(&["--list-sas"])?;
    ensure!(sas.matches("ESTABLISHED").count() == 1 && sas.matches("INSTALLED").count() == 1, "{sas}");
    ensure!(result.lossless() && result.sent > 100, "{result:?}\n{}\n{}", pair.ours.log(), pair.theirs.log());
    Ok(pair)
}

#[test]
fn both_rekey_the_child_at_once() -> Result<()> {
    let pair = rekey_at_once(&["rekey", "net", "--child", "net"], &["--rekey", "--child", "net"])?;
    ensure!(pair.theirs.log().contains("collision"), "they never met:\n{}", pair.theirs.log());
    Ok(())
}

#[test]
fn both_rekey_the_ike_sa_at_once() -> Result<()> {
    rekey_at_once(&["rekey", "net"], &["--rekey", "--ike", "net"]).map(drop)
}

#[test]
fn one_rekeys_the_child_while_the_other_rekeys_the_ike_sa() -> Result<()> {
    rekey_at_once(&["rekey", "net", "--child", "net"], &["--rekey", "--ike", "net"]).map(drop)
}
