//! `charonctl capture`, as tshark reads its files. Needs root.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Case, Twins};
use harness::{Site, tshark, wait_until};

/// What tshark says of a packet that went through it: a conversation of an echo.
const ECHOES: &str = "icmp.type == 8 && ip.dst == 10.2.0.10";

fn rows(file: &Path, keys: Option<&Path>, viewpoint: &str, filter: &str, field: &str) -> Result<Vec<String>> {
    let filter = format!("frame.interface_name == \"{viewpoint}\" && {filter}");
    let rows = tshark(file, keys, &filter, &[field])?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next()).filter(|cell| !cell.is_empty()).collect())
}

#[test]
fn tshark_sees_the_inside_without_keys_and_the_outside_with_them() -> Result<()> {
    for (lines, outer6) in [("", false), ("forceencaps = true", false), ("", true)] {
        println!("{lines:?}, outer IPv6 {outer6}");
        let keys = tempfile::tempdir()?;
        let moon_lines = format!("\n[daemon]\nkeylog = \"{}\"\n", keys.path().display());
        let twins = Twins::start(Case { lines, outer6, moon_lines: &moon_lines, ..Case::default() })?;
        let file = keys.path().join("moon.pcapng");
        let name = file.to_str().context("a path in UTF-8")?;
        twins.moon.expect_ctl(&["capture", "start", name])?;
        twins.up()?;
        twins.expect_ping(Site::MOON.host, Site::SUN.host4)?;
        let report = twins.moon.json(&["capture", "stop"])?;
        ensure!(report["lost"] == 0 && report["packets"].as_u64() > Some(12), "{report}");
        ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "others can read it");
        // Inside nothing is encrypted; outside everything is.
        ensure!(rows(&file, None, "ipsec0", ECHOES, "icmp.seq")? == ["1", "2", "3"], "the inside");
        ensure!(rows(&file, None, "ipsec0", "icmp.type == 0", "icmp.seq")? == ["1", "2", "3"], "the way back");
        ensure!(rows(&file, None, "outside", ECHOES, "icmp.seq")?.is_empty(), "the outside in clear");
        let esp = rows(&file, None, "outside", "esp", "esp.sequence")?;
        ensure!(esp.len() >= 6, "ESP outside: {esp:?}");
        let opened = rows(&file, Some(keys.path()), "outside", &format!("esp && {ECHOES}"), "icmp.seq")?;
        ensure!(opened == ["1", "2", "3"], "the outside with keys: {opened:?}");
        let opened = rows(&file, Some(keys.path()), "outside", "esp && icmp.type == 0", "icmp.seq")?;
        ensure!(opened == ["1", "2", "3"], "what came from outside, with keys: {opened:?}");
        // IKE_AUTH: in plain text without keys, and the same as what is encrypted.
        let auth = "isakmp.exchangetype == 35";
        let plain = rows(&file, None, "ike-plain", auth, "isakmp.auth.data")?;
        ensure!(plain.len() == 2, "proofs in plain text: {plain:?}");
        ensure!(rows(&file, None, "outside", auth, "isakmp.auth.data")?.is_empty(), "proofs on the wire");
        ensure!(rows(&file, Some(keys.path()), "outside", auth, "isakmp.auth.data")? == plain, "with keys");
        let malformed = tshark(&file, None, "_ws.malformed", &["frame.number", "frame.interface_name"])?;
        ensure!(malformed.is_empty(), "malformed: {malformed:?}");
    }
    Ok(())
}

#[test]
fn what_is_dropped_has_its_reason_and_a_connection_can_be_looked_at_alone() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    let file = twins.folder.path().join("drops.pcapng");
    let name = file.to_str().context("a path in UTF-8")?;
    twins.up()?;
    twins.moon.expect_ctl(&["capture", "start", name, "--inner"])?;
    // From the gateway's own address it fits no policy.
    twins.world.sh("moon", "ping -c 1 -W 1 -I 192.168.0.1 10.2.0.10; true")?;
    twins.moon.expect_ctl(&["capture", "stop"])?;
    let dropped = rows(&file, None, "ipsec0", "icmp.type == 8", "frame.comment")?;
    ensure!(dropped == ["dropped: no_policy"], "{dropped:?}");
    twins.moon.expect_ctl(&["capture", "start", name, "--inner", "--connection", "net"])?;
    twins.world.sh("moon", "ping -c 1 -W 1 -I 192.168.0.1 10.2.0.10; true")?;
    twins.expect_ping(Site::MOON.host, Site::SUN.host4)?;
    let shown = twins.moon.expect_ctl(&["capture", "stop"])?;
    ensure!(shown.contains("inner of net") && shown.contains("  6 packet(s)"), "{shown}");
    ensure!(tshark(&file, None, "frame.comment", &["frame.comment"])?.is_empty(), "packets of nobody");
    let refused = twins.moon.ctl(&["capture", "start", "/etc/passwd"])?;
    ensure!(!refused.success && refused.stderr.contains("no capture"), "{refused:?}");
    Ok(())
}

#[test]
fn a_capture_ends_by_itself_when_its_file_is_long_enough() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    twins.up()?;
    let file = twins.folder.path().join("short.pcapng");
    let name = file.to_str().context("a path in UTF-8")?;
    twins.moon.expect_ctl(&["capture", "start", name, "--outer", "--limit", "5k", "--snaplen", "128"])?;
    twins.world.sh(Site::MOON.host, &format!("ping -c 40 -i 0.01 -W 1 {}", Site::SUN.host4))?;
    wait_until(Duration::from_secs(10), "the end of the capture", || {
        Ok(twins.moon.json(&["capture", "show"])?["state"] == "ended")
    })?;
    let report = twins.moon.json(&["capture", "show"])?;
    ensure!(report["why"].as_str().is_some_and(|why| why.contains("as long as it may be")), "{report}");
    ensure!(std::fs::metadata(&file)?.len() <= 5000, "{report}");
    ensure!(!tshark(&file, None, "esp", &["esp.spi"])?.is_empty(), "no packets");
    // The next one begins, and the tunnel has not noticed.
    twins.moon.expect_ctl(&["capture", "start", name])?;
    twins.expect_pings()?;
    Ok(())
}
