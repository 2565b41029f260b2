//! Gateways with several workers, and Child SAs for each of them (RFC 9611). Needs root.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::{Case, SECRETS, Twins};
use harness::{Capture, Gateway, Site, World, tcp_transfer, tshark};

/// Both gateways with two workers and an SA for each, encapsulated in UDP or not.
fn twins(lines: &str) -> Result<Twins> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let lines = format!("per_resource_sas = true\n{lines}");
    let case = Case { lines: &lines, ..Case::default() };
    let toml = |here, there| format!("[daemon]\nworkers = 2\n{}", case.toml(here, there));
    let sun = Gateway::start(&world, "sun", folder.path(), &toml(Site::SUN, Site::MOON), SECRETS)?;
    let moon = Gateway::start(&world, "moon", folder.path(), &toml(Site::MOON, Site::SUN), SECRETS)?;
    Ok(Twins { moon, sun, world, folder })
}

/// The SPIs of the ESP packets that moon sent.
fn spis_from_moon(capture: &std::path::Path) -> Result<BTreeSet<String>> {
    let filter = format!("esp && ip.src == {}", Site::MOON.outer4);
    Ok(tshark(capture, None, &filter, &["esp.spi"])?.into_iter().flatten().collect())
}

fn many_flows(twins: &Twins) -> Result<()> {
    for _ in 0..12 {
        tcp_transfer(&twins.world, Site::MOON.host, Site::SUN.host, Site::SUN.host4, 256 << 10)?;
    }
    Ok(())
}

#[test]
fn each_worker_has_an_sa_that_carries_its_flows() -> Result<()> {
    for lines in ["", "forceencaps = true\n"] {
        let twins = twins(lines)?;
        twins.up()?;
        for gateway in [&twins.moon, &twins.sun] {
            gateway.wait_status(e2e::LIMIT, "two Child SAs", |status| {
                status.to_string().matches("INSTALLED").count() == 2
            })?;
        }
        twins.expect_pings()?;
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        many_flows(&twins)?;
        let capture = capture.stop()?;
        let spis = spis_from_moon(&capture)?;
        ensure!(spis.len() == 2, "{spis:?}");

        twins.moon.expect_ctl(&["rekey", "net", "--child", "net"])?;
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        many_flows(&twins)?;
        let after = spis_from_moon(&capture.stop()?)?;
        ensure!(after.len() == 2 && after.is_disjoint(&spis), "{spis:?} {after:?}");
        twins.expect_pings()?;
        twins.moon.expect_ctl(&["down", "net"])?;
        twins.expect_silence()?;
    }
    Ok(())
}

#[test]
fn a_peer_with_one_worker_shares_the_sas_of_one_with_two() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let case = Case { lines: "per_resource_sas = true\n", ..Case::default() };
    let sun = Gateway::start(
        &world,
        "sun",
        folder.path(),
        &format!("[daemon]\nworkers = 1\n{}", case.toml(Site::SUN, Site::MOON)),
        SECRETS,
    )?;
    let moon = Gateway::start(
        &world,
        "moon",
        folder.path(),
        &format!("[daemon]\nworkers = 2\n{}", case.toml(Site::MOON, Site::SUN)),
        SECRETS,
    )?;
    let twins = Twins { moon, sun, world, folder };
    twins.up()?;
    twins.expect_pings()?;
    many_flows(&twins)?;
    twins.expect_pings()
}
