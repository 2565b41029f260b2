//! `charonctl trace` at two gateways. Needs root.

use anyhow::{Context, Result, ensure};
use e2e::{Case, Twins};
use harness::Site;

#[test]
fn a_packet_and_its_answer_are_shown_step_by_step() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    twins.up()?;
    let none = twins.moon.expect_ctl(&["trace", "show"])?;
    ensure!(none.contains("no packet was followed"), "{none}");
    let said = twins.moon.expect_ctl(&["trace", "add", "2", "--addresses", "10.2.0.0/16", "--protocol", "1"])?;
    ensure!(said.contains("following 2 packet(s)"), "{said}");
    twins.expect_ping(Site::SUN.host, Site::MOON.host6)?; // other packets, which are not asked for
    twins.expect_ping(Site::MOON.host, Site::SUN.host4)?;
    let shown = twins.moon.expect_ctl(&["trace", "show"])?;
    for line in [
        "packet 1, outbound, after ",
        "  from ipsec0: 10.1.0.10 to 10.2.0.10, ICMP type 8 code 0, 84 octets",
        "  sealed: ",
        "  sent 192.0.2.1 to 192.0.2.2: ",
        "packet 2, inbound, after ",
        "  selectors take 10.2.0.10 to 10.1.0.10, ICMP type 0 code 0",
        "  to ipsec0: 84 octets",
    ] {
        let line = line.replace("192.0.2.", "192.168.0.");
        ensure!(shown.lines().any(|shown| shown.starts_with(&line)), "no {line:?} in\n{shown}");
    }
    let traces = twins.moon.json(&["trace", "show"])?;
    let traces = traces.as_array().context("a list")?;
    ensure!(traces.len() == 2 && traces.iter().all(|trace| trace["after-us"].is_u64()), "{traces:?}");
    ensure!(traces[1]["steps"].as_array().context("steps")?.last() == Some(&"to_inside".into()), "{traces:?}");
    Ok(())
}

#[test]
fn what_is_dropped_is_shown_with_its_reason_and_mistakes_are_refused() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    twins.up()?;
    twins.moon.expect_ctl(&["trace", "add", "9", "--dropped", "--direction", "out"])?;
    // The route leads into the interface for the peer's networks only; from the gateway's own address it fits no policy.
    twins.world.sh("moon", "ping -c 1 -W 1 -I 192.168.0.1 10.2.0.10; true")?;
    let shown = twins.moon.expect_ctl(&["trace", "show"])?;
    ensure!(shown.contains("  from ipsec0: 192.168.0.1 to 10.2.0.10, ICMP type 8 code 0"), "{shown}");
    ensure!(shown.contains("  dropped: no_policy"), "{shown}");
    let refused = twins.moon.ctl(&["trace", "add", "1", "--spi", "7"])?;
    ensure!(!refused.success && refused.stderr.contains("`7` is no SPI"), "{refused:?}");
    Ok(())
}
