//! `charonctl whatif`, compared with what becomes of packets. Needs root.

use anyhow::{Result, ensure};
use e2e::{Case, Twins};
use harness::{Site, tshark};

#[test]
fn what_is_said_of_a_packet_is_what_becomes_of_it() -> Result<()> {
    let twins = Twins::start(Case { lines: "forceencaps = true", ..Case::default() })?;
    let ask = |more: &[&str]| {
        let question = ["whatif", "10.1.0.10", "10.2.0.10", "icmp"];
        twins.moon.json(&[&question[..], more].concat())
    };
    // Before the tunnel is up there is no SA, and no route of it.
    let before = ask(&["--from", "ipsec0"])?;
    ensure!(before["outbound"]["fate"] == "dropped", "{before}");
    twins.up()?;
    let said = ask(&["--len", "84"])?;
    let outbound = &said["outbound"];
    ensure!(said["link"] == "ipsec0" && outbound["connection"] == "net" && outbound["fate"] == "protected", "{said}");
    ensure!(outbound["place"].as_str().is_some_and(|place| place.contains("ipsec.toml:")), "{said}");
    let file = twins.folder.path().join("whatif.pcapng");
    let name = file.to_string_lossy();
    twins.moon.expect_ctl(&["capture", "start", &name, "--outer"])?;
    twins.expect_ping(Site::MOON.host, Site::SUN.host4)?;
    twins.moon.expect_ctl(&["capture", "stop"])?;
    let sent = tshark(&file, None, "esp && ip.src == 192.168.0.1", &["frame.len", "esp.spi"])?;
    ensure!(!sent.is_empty(), "no ESP");
    for row in sent {
        ensure!(row[0].parse().ok() == outbound["wire-octets"].as_u64(), "{row:?}, {said}");
        ensure!(row[1].trim_start_matches("0x") == outbound["spi"], "{row:?}, {said}");
    }
    let long = ask(&["--len", "1500"])?;
    ensure!(long["outbound"]["reason"] == "too_big", "{long}");
    let told = long["outbound"]["told-mtu"].as_str().unwrap_or_default();
    ensure!(told.parse().ok() == long["outbound"]["longest"].as_u64(), "{long}");
    ensure!(ask(&["--len", told])?["outbound"]["fit"] == "whole", "{long}");
    ensure!(ask(&["--len", "1500", "--may-fragment"])?["outbound"]["fate"] == "protected", "it may be cut");
    Ok(())
}

#[test]
fn routes_past_the_tunnels_and_packets_of_nobody_are_told() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    twins.up()?;
    let past = twins.moon.expect_ctl(&["whatif", "10.1.0.10", "192.168.0.2", "tcp", "40000", "443"])?;
    ensure!(past.contains("past all tunnels"), "{past}");
    let nobody = twins.moon.expect_ctl(&["whatif", "192.168.0.1", "10.2.0.10", "udp"])?;
    ensure!(nobody.contains("no policy selects it\n  dropped: no_policy"), "{nobody}");
    let back = twins.moon.expect_ctl(&["whatif", "10.2.0.10", "10.1.0.10", "udp", "53"])?;
    let sa = back.lines().find(|line| line.contains("of net may bring it")).unwrap_or_default();
    let sas = twins.moon.json(&["status"])?;
    let spi = sa.split_whitespace().nth(2).unwrap_or("none");
    ensure!(sas.to_string().contains(spi), "{back}");
    let refused = twins.moon.ctl(&["whatif", "10.1.0.10", "fd00::1", "udp"])?;
    ensure!(!refused.success && refused.stderr.contains("different families"), "{refused:?}");
    let refused = twins.moon.ctl(&["whatif", "10.1.0.10", "10.2.0.10", "udp", "--from", "nowhere0"])?;
    ensure!(!refused.success && refused.stderr.contains("no interface `nowhere0`"), "{refused:?}");
    Ok(())
}
