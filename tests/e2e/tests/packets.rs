//! Packets of every shape through a tunnel: too long, fragmented, filled up, marked, and none at all. Needs root.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use charon_rs::lab::topology::Topology;
use e2e::{Case, SECRETS, Twins};
use harness::{Capture, Gateway, Site, World, tcp_transfer, tshark};

/// Two sites whose links all carry `wide` octets, but the one between a router in the middle and sun, which carries `narrow`.
fn world_with_a_narrow_hop(wide: u32, narrow: u32) -> Result<World> {
    let topology = Topology::new()
        .host("alice")
        .router("moon")
        .router("hop")
        .router("sun")
        .host("bob")
        .link(
            wide,
            ("alice", "eth0", &["10.1.0.10/16", "fec1::10/64"]),
            ("moon", "lan0", &["10.1.0.1/16", "fec1::1/64"]),
        )?
        .link(wide, ("bob", "eth0", &["10.2.0.10/16", "fec2::10/64"]), ("sun", "lan0", &["10.2.0.1/16", "fec2::1/64"]))?
        .link(wide, ("moon", "wan0", &["172.16.0.2/24"]), ("hop", "moon0", &["172.16.0.1/24"]))?
        .link(narrow, ("hop", "sun0", &["192.168.0.9/24"]), ("sun", "wan0", &["192.168.0.2/24"]))?
        .default_routes("alice", ["10.1.0.1", "fec1::1"])?
        .default_routes("bob", ["10.2.0.1", "fec2::1"])?
        .default_routes("moon", ["172.16.0.1"])?
        .default_routes("sun", ["192.168.0.9"])?;
    World::build(&topology)
}

/// Two gateways in this world, the tunnel up.
fn twins_in(world: World, lines: &str) -> Result<Twins> {
    let folder = tempfile::tempdir()?;
    let case = Case { lines, ..Case::default() };
    let sun = Gateway::start(&world, "sun", folder.path(), &case.toml(Site::SUN, Site::HIDDEN_MOON), SECRETS)?;
    let moon = Gateway::start(&world, "moon", folder.path(), &case.toml(Site::HIDDEN_MOON, Site::SUN), SECRETS)?;
    let twins = Twins { moon, sun, world, folder };
    twins.up()?;
    Ok(twins)
}

fn twins(lines: &str) -> Result<Twins> {
    let twins = Twins::start(Case { lines, ..Case::default() })?;
    twins.up()?;
    Ok(twins)
}

/// Pings bob from alice with packets of `len` octets in all, and gives what `ping` says.
fn ping(twins: &Twins, options: &str, len: usize) -> Result<String> {
    let line = format!("ping -n -c 3 -i 0.2 -W 2 {options} -s {} {} || true", len - 28, Site::SUN.host4);
    twins.world.sh("alice", &line)
}

fn expect_passes(twins: &Twins, options: &str, len: usize) -> Result<()> {
    let said = ping(twins, options, len)?;
    ensure!(said.contains(" 3 received"), "{len} octets, {options}: {said}\n{}", twins.moon.log());
    Ok(())
}

/// One field of all packets that match, as numbers.
fn numbers(capture: &Path, filter: &str, field: &str) -> Result<Vec<u64>> {
    let rows = tshark(capture, None, filter, &[field])?;
    let number = |text: &String| {
        let text = text.trim();
        text.strip_prefix("0x")
            .map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16))
            .context(text.to_owned())
    };
    rows.iter().flatten().map(number).collect()
}

/// R4301-8.2.1-1: the interface itself lets everything pass here, so that it is the dataplane that refuses.
#[test]
fn what_is_an_octet_too_long_is_answered_with_what_fits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::two_sites()?;
    let wide = |toml: String| toml.replace("[interface.ipsec0]\n", "[interface.ipsec0]\nmtu = 1500\n");
    let case = Case::default();
    let sun = Gateway::start(&world, "sun", folder.path(), &wide(case.toml(Site::SUN, Site::MOON)), SECRETS)?;
    let moon = Gateway::start(&world, "moon", folder.path(), &wide(case.toml(Site::MOON, Site::SUN)), SECRETS)?;
    let twins = Twins { moon, sun, world, folder };
    twins.up()?;
    expect_passes(&twins, "-M do", 1446)?;
    let said = ping(&twins, "-M do", 1447)?;
    ensure!(said.contains("mtu = 1446") || said.contains("mtu=1446"), "{said}\n{}", twins.moon.log());
    let line = format!("ping -6 -n -c 2 -i 0.2 -W 2 -M do -s {} {} || true", 1447 - 48, Site::SUN.host6);
    let said = twins.world.sh("alice", &line)?;
    ensure!(said.contains("mtu = 1446") || said.contains("mtu=1446") || said.contains("mtu: 1446"), "{said}");
    let report = twins.moon.expect_ctl(&["mtu", "net"])?;
    for part in
        ["1500  path MTU: the MTU of the link", "-20  IPv4 header", "1446  inner MTU", "mtu in the configuration"]
    {
        ensure!(report.contains(part), "no `{part}` in {report}");
    }
    tcp_transfer(&twins.world, "alice", "bob", Site::SUN.host4, 4 << 20)
}

#[test]
fn a_narrow_hop_in_the_middle_loses_nothing_for_good() -> Result<()> {
    let twins = twins_in(world_with_a_narrow_hop(1500, 1400)?, "")?;
    twins.expect_pings()?;
    tcp_transfer(&twins.world, "alice", "bob", Site::SUN.host4, 4 << 20)?;
    tcp_transfer(&twins.world, "bob", "alice", Site::MOON.host6, 4 << 20)?;
    // TCP was told at once what sun's end of the way carries. The first datagram that the hop cannot take is lost, and what the
    // hop says is believed from then on.
    ping(&twins, "-M do", 1446)?;
    let said = ping(&twins, "-M do", 1347)?;
    ensure!(said.contains("+3 errors"), "{said}\n{}", twins.moon.log());
    let report = twins.moon.expect_ctl(&["mtu", "net"])?;
    ensure!(report.contains("1400  path MTU") && report.contains("1346  inner MTU"), "{report}");
    expect_passes(&twins, "-M do", 1346)
}

#[test]
fn fragments_pass_both_ways_and_nothing_outside_is_longer_than_the_path() -> Result<()> {
    for (lines, inside) in [("pmtu = 1000", true), ("pmtu = 1000\nfragment = \"after\"", false)] {
        let twins = twins(lines)?;
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        expect_passes(&twins, "-M dont", 2500)?;
        expect_passes(&twins, "-M dont", 999)?;
        let capture = capture.stop()?;
        let lens = numbers(&capture, "ip.proto == 50", "ip.len")?;
        ensure!(!lens.is_empty(), "no ESP");
        // Those that are to be fragmented outside are longer, and whoever has to may do it.
        ensure!(lens.iter().all(|len| *len <= 1000) == inside, "{lines}: {lens:?}");
        let whole_or_nothing = numbers(&capture, "ip.proto == 50 && ip.flags.df == 1 && ip.len > 1000", "ip.len")?;
        ensure!(whole_or_nothing.is_empty(), "{lines}: {whole_or_nothing:?}");
        tcp_transfer(&twins.world, "alice", "bob", Site::SUN.host4, 1 << 20)?;
    }
    Ok(())
}

#[test]
fn jumbo_frames_are_filled() -> Result<()> {
    let twins = twins_in(world_with_a_narrow_hop(9000, 9000)?, "")?;
    let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
    expect_passes(&twins, "-M do", 8946)?;
    let capture = capture.stop()?;
    let lens = numbers(&capture, "esp", "ip.len")?;
    ensure!(lens.contains(&9000), "{lens:?}");
    tcp_transfer(&twins.world, "bob", "alice", Site::MOON.host4, 8 << 20)
}

#[test]
fn filled_packets_all_have_one_length_on_the_wire() -> Result<()> {
    let twins = twins("tfc = 800")?;
    let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
    for len in [28, 100, 500, 800] {
        expect_passes(&twins, "", len)?;
    }
    let capture = capture.stop()?;
    let mut lens = numbers(&capture, "esp", "ip.len")?;
    lens.sort_unstable();
    lens.dedup();
    // IPv4 20, ESP header 8, IV 8, 800 and trailer 2 filled up to 804, ICV 16.
    ensure!(lens == [856], "{lens:?}");
    Ok(())
}

/// R4303-2.6-1.
#[test]
fn silence_is_filled_with_dummies() -> Result<()> {
    let twins = twins("dummy = \"100ms\"\ntfc = 400")?;
    let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
    // Both ends were told to speak up; here is enough time for a few words.
    let spoken = |stats: &str| stats.contains("dummy");
    let deadline = std::time::Instant::now() + e2e::LIMIT;
    while !spoken(&twins.sun.expect_ctl(&["status", "net"])?) {
        ensure!(std::time::Instant::now() < deadline, "{}", twins.sun.expect_ctl(&["status", "net"])?);
        twins.expect_pings()?;
    }
    let capture = capture.stop()?;
    let mut lens = numbers(&capture, "esp", "ip.len")?;
    lens.sort_unstable();
    lens.dedup();
    ensure!(lens.len() == 1, "dummies are told by their length: {lens:?}");
    twins.expect_pings()
}

#[test]
fn marks_and_hop_limits_stand_outside_as_configured() -> Result<()> {
    for (lines, dscp, ttl) in [("", 10, 64), ("dscp = 46\nttl = 9", 46, 9), ("ttl = \"copy\"", 10, 63)] {
        let twins = twins(lines)?;
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        // DSCP 10, ECT(0).
        expect_passes(&twins, "-Q 0x2a", 200)?;
        let capture = capture.stop()?;
        let from_moon = format!("esp and ip.src == {}", Site::MOON.outer4);
        for (field, expected) in [("ip.dsfield.dscp", dscp), ("ip.dsfield.ecn", 2), ("ip.ttl", ttl)] {
            let seen = numbers(&capture, &from_moon, field)?;
            ensure!(!seen.is_empty() && seen.iter().all(|value| *value == expected), "{lines}: {field} {seen:?}");
        }
    }
    Ok(())
}

#[test]
fn transport_mode_leaves_the_header_to_its_packet() -> Result<()> {
    let twins = Twins::start(Case { host_to_host: true, lines: "type = \"transport\"", ..Case::default() })?;
    twins.up()?;
    let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
    let line = format!("ping -n -c 3 -i 0.2 -W 2 -t 7 -Q 0x2a -M dont -s 1400 {}", Site::SUN.outer4);
    twins.world.sh("moon", &line)?;
    let capture = capture.stop()?;
    let from_moon = format!("esp and ip.src == {}", Site::MOON.outer4);
    for (field, expected) in [("ip.ttl", 7), ("ip.dsfield.dscp", 10), ("ip.flags.df", 0)] {
        let seen = numbers(&capture, &from_moon, field).or_else(|_| {
            let rows = tshark(&capture, None, &from_moon, &[field])?;
            anyhow::Ok(rows.iter().flatten().map(|text| u64::from(text.as_str() == "True")).collect())
        })?;
        ensure!(!seen.is_empty() && seen.iter().all(|value| *value == expected), "{field} {seen:?}");
    }
    tcp_transfer(&twins.world, "moon", "sun", Site::SUN.outer4, 2 << 20)
}
