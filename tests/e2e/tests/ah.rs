//! The Authentication Header between two of our gateways, keyed by IKE. Needs root.

use anyhow::{Result, ensure};
use e2e::{Case, SECRETS, Twins};
use harness::{Capture, Gateway, Site, World, ping, tcp_transfer, tshark};

/// Both gateways with `ah` instead of `esp`.
fn twins(case: Case<'_>, ah: &str) -> Result<Twins> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let toml = |here, there| {
        let esp = format!("esp = \"{}\"", case.esp);
        case.toml(here, there).replace(&esp, &format!("ah = \"{ah}\""))
    };
    let sun = Gateway::start(&world, "sun", folder.path(), &toml(Site::SUN, Site::MOON), SECRETS)?;
    let moon = Gateway::start(&world, "moon", folder.path(), &toml(Site::MOON, Site::SUN), SECRETS)?;
    Ok(Twins { moon, sun, world, folder })
}

#[test]
fn networks_are_joined_in_tunnel_mode_and_the_wire_shows_ah() -> Result<()> {
    for (outer6, ah) in [(false, "sha256-esn"), (true, "sha512"), (false, "sha1"), (true, "sha384-esn-x25519")] {
        println!("{ah}, outer IPv6 {outer6}");
        let twins = twins(Case { outer6, ..Case::default() }, ah)?;
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        twins.up()?;
        twins.expect_pings()?;
        tcp_transfer(&twins.world, "alice", "bob", Site::SUN.host4, 2 << 20)?;
        twins.moon.expect_ctl(&["rekey", "net", "--child", "net"])?;
        twins.expect_pings()?;
        let status = twins.moon.expect_ctl(&["status"])?;
        ensure!(status.contains("AH"), "{status}");
        let capture = capture.stop()?;
        let rows = tshark(&capture, None, "ah && (icmp || icmpv6)", &["ah.spi", "ah.sequence", "ah.icv"])?;
        ensure!(rows.len() >= 12, "only {} echoes behind AH", rows.len());
        let bare = tshark(&capture, None, "(icmp.type == 8 || tcp) && !ah", &["frame.number"])?;
        ensure!(bare.is_empty(), "{} packets without AH", bare.len());
        ensure!(tshark(&capture, None, "esp", &["frame.number"])?.is_empty());
    }
    Ok(())
}

#[test]
fn hosts_are_joined_in_transport_mode() -> Result<()> {
    for outer6 in [false, true] {
        let case = Case { outer6, host_to_host: true, lines: "type = \"transport\"", ..Case::default() };
        let twins = twins(case, "sha256-esn")?;
        twins.up()?;
        let (here, there) =
            if outer6 { (Site::MOON.outer6, Site::SUN.outer6) } else { (Site::MOON.outer4, Site::SUN.outer4) };
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        ensure!(ping(&twins.world, "moon", there, 3)?.lossless(), "{}", twins.moon.log());
        tcp_transfer(&twins.world, "sun", "moon", here, 2 << 20)?;
        let capture = capture.stop()?;
        let bare = tshark(&capture, None, "(icmp.type == 8 || icmpv6.type == 128 || tcp) && !ah", &["frame.number"])?;
        ensure!(bare.is_empty(), "{} packets without AH", bare.len());
        ensure!(tshark(&capture, None, "ah && tcp", &["frame.number"])?.len() > 100);
    }
    Ok(())
}

/// R4302-3.3.3.1-1, R4302-3.4.4-1.
#[test]
fn what_routers_change_is_no_harm_and_anything_else_is_dropped() -> Result<()> {
    let twins = twins(Case::default(), "sha256")?;
    twins.up()?;
    let on_the_way = |changes: &str| {
        let table = "table ip way { chain c { type filter hook prerouting priority -300;";
        let rule = format!("{table} ip protocol 51 {changes}; }}; }}");
        twins.world.sh("sun", &format!("nft delete table ip way 2>/dev/null; nft '{rule}'"))
    };
    on_the_way("ip ttl set 7 ip dscp set af41 counter")?;
    twins.expect_ping("alice", Site::SUN.host4)?;
    let seen = twins.world.sh("sun", "nft list table ip way")?;
    ensure!(!seen.contains("packets 0"), "the packets took another way: {seen}");
    on_the_way("ip id set 4660")?;
    twins.expect_silence()?;
    let status = twins.sun.expect_ctl(&["status"])?;
    ensure!(status.contains("bad_icv"), "{status}");
    twins.world.sh("sun", "nft delete table ip way")?;
    twins.expect_ping("alice", Site::SUN.host4)
}

#[test]
fn through_a_nat_it_is_refused_and_said_why() -> Result<()> {
    let world = World::left_behind_nat()?;
    let folder = tempfile::tempdir()?;
    let case = Case::default();
    let toml = |here, there| case.toml(here, there).replace("esp = \"aes256gcm16-esn\"", "ah = \"sha256\"");
    let sun = toml(Site::SUN, Site::MOON).replace("right = \"192.168.0.1\"", "right = \"%any\"");
    let sun = Gateway::start(&world, "sun", folder.path(), &sun, SECRETS)?;
    let moon = Gateway::start(&world, "moon", folder.path(), &toml(Site::HIDDEN_MOON, Site::SUN), SECRETS)?;
    let said = moon.ctl(&["up", "net"])?;
    let said = format!("{said:?}");
    ensure!(said.contains("cannot pass the NAT"), "{said}\n{}", moon.log());
    ensure!(sun.log().contains("cannot pass the NAT"), "{}", sun.log());
    Ok(())
}
