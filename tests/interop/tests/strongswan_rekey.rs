//! Rekeying with strongSwan under traffic: no packet may be lost, whoever starts it. Needs root and strongSwan.

use anyhow::{Result, anyhow, ensure};
use harness::{PingStream, Site, wait_until};
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

/// Whether the requests of both ends pass each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crossing {
    Certain,
    ByChance,
}

/// How often both ends rekey.
const ROUNDS: u32 = 6;

/// IKE messages do not pass, ESP does: it has no marker of zeros behind the UDP header (RFC 3948 §2.2).
const HOLD: &str = "nft add table inet held \
    && nft 'add chain inet held in { type filter hook input priority 0; }' \
    && nft 'add chain inet held out { type filter hook output priority 0; }' \
    && nft add rule inet held in udp dport 4500 @th,64,32 0 drop \
    && nft add rule inet held out udp dport 4500 @th,64,32 0 drop";

/// Both ends rekey at once, again and again, while pings run; in the end there is one pair of SAs. So many packets may be
/// lost each time.
fn rekey_at_once(ours: &[&str], theirs: &[&str], crossing: Crossing, tolerated: u32) -> Result<Pair> {
    let pair = Pair::two_sites(Case { their_daemon: "retransmit_timeout = 0.5", ..Case::default() })?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    let stream = PingStream::start(&pair.world, Site::MOON.host, Site::SUN.host4)?;
    for _ in 0..ROUNDS {
        rekey_both(&pair, ours, theirs, crossing)?;
        pair.ours.wait_status(LIMIT, "one pair of SAs", |status| {
            let status = status.to_string();
            let alone = |state: &str| status.matches(state).count() == 1;
            alone("\"ESTABLISHED\"") && alone("\"INSTALLED\"") && !status.contains("\"DELETING\"")
        })?;
        pair.expect_pings()?;
    }
    let mut result = stream.stop()?;
    let sas = pair.theirs.swanctl(&["--list-sas"])?;
    ensure!(sas.matches("ESTABLISHED").count() == 1 && sas.matches("INSTALLED").count() == 1, "{sas}");
    result.received += result.sent.saturating_sub(result.received).min(tolerated * ROUNDS);
    ensure!(result.lossless() && result.sent > 100, "{result:?}\n{}\n{}", pair.ours.log(), pair.theirs.log());
    Ok(pair)
}

/// Which of the two comes first is left to chance; whoever finds its SA replaced may say so.
fn rekey_both(pair: &Pair, ours: &[&str], theirs: &[&str], crossing: Crossing) -> Result<()> {
    let requests = || {
        let count = |log: String, line: &str| log.matches(line).count();
        (
            count(pair.ours.log(), "sent CREATE_CHILD_SA request"),
            count(pair.theirs.log(), "generating CREATE_CHILD_SA request"),
        )
    };
    let before = requests();
    if crossing == Crossing::Certain {
        pair.world.sh("moon", HOLD)?;
    }
    std::thread::scope(|scope| {
        let their_end = scope.spawn(|| pair.theirs.try_swanctl(theirs).map(drop));
        let our_end = scope.spawn(|| pair.ours.ctl(ours).map(drop));
        if crossing == Crossing::Certain {
            let sent = wait_until(LIMIT, "requests of both", || {
                let now = requests();
                Ok(now.0 > before.0 && now.1 > before.1)
            });
            pair.world.sh("moon", "nft delete table inet held")?;
            sent?;
        }
        for end in [their_end, our_end] {
            end.join().map_err(|_| anyhow!("a control program panicked"))??;
        }
        Ok(())
    })
}

/// When they have met, strongSwan closes the old SA as soon as our deletion comes, and then begins to send on the new one:
/// what falls between is lost.
#[test]
fn both_rekey_the_child_at_once() -> Result<()> {
    let (ours, theirs) = (["rekey", "net", "--child", "net"], ["--rekey", "--child", "net"]);
    let pair = rekey_at_once(&ours, &theirs, Crossing::Certain, 1)?;
    ensure!(pair.theirs.log().contains("CHILD_REKEY collision"), "they never met:\n{}", pair.theirs.log());
    Ok(())
}

#[test]
fn both_rekey_the_ike_sa_at_once() -> Result<()> {
    let pair = rekey_at_once(&["rekey", "net"], &["--rekey", "--ike", "net"], Crossing::Certain, 0)?;
    ensure!(pair.theirs.log().contains("IKE_REKEY collision"), "they never met:\n{}", pair.theirs.log());
    Ok(())
}

/// When these cross, strongSwan puts its rekeying off for a quarter of a minute.
#[test]
fn one_rekeys_the_child_while_the_other_rekeys_the_ike_sa() -> Result<()> {
    let (ours, theirs) = (["rekey", "net", "--child", "net"], ["--rekey", "--ike", "net"]);
    rekey_at_once(&ours, &theirs, Crossing::ByChance, 0).map(drop)
}
