//! Every kind of tunnel between two of our gateways. Needs root.

use anyhow::{Result, ensure};
use e2e::{Case, Twins};
use harness::{Capture, Site, World, ping, tcp_transfer, tshark};

#[test]
fn every_esp_suite_carries_pings() -> Result<()> {
    for esp in [
        "aes128gcm16-esn",
        "aes192gcm16-noesn",
        "aes256gcm16-esn-x25519",
        "chacha20poly1305-esn",
        "aes128-sha256-esn",
        "aes256-sha384-noesn",
        "aes256-sha512-esn",
        "aes128-sha1",
        "null-sha256",
    ] {
        println!("{esp}");
        let twins = Twins::start(Case { esp, ..Case::default() })?;
        twins.up()?;
        twins.expect_pings()?;
    }
    Ok(())
}

#[test]
fn every_ike_suite_comes_up() -> Result<()> {
    for ike in [
        "aes128gcm16-prfsha256-modp2048",
        "aes192gcm16-prfsha384-modp3072",
        "aes256gcm16-prfsha512-modp4096",
        "chacha20poly1305-prfsha256-ecp256",
        "aes128-sha256-ecp384",
        "aes256-sha512-ecp521",
        "aes192-sha384-curve25519",
        "aes128-sha1-prfsha1-modp2048",
    ] {
        println!("{ike}");
        let twins = Twins::start(Case { ike, ..Case::default() })?;
        twins.up()?;
        twins.expect_ping("alice", Site::SUN.host4)?;
    }
    Ok(())
}

#[test]
fn tcp_fills_the_tunnel_in_both_families_over_both() -> Result<()> {
    for outer6 in [false, true] {
        for lines in ["", "forceencaps = true"] {
            println!("outer IPv6 {outer6}, {lines:?}");
            let twins = Twins::start(Case { outer6, lines, ..Case::default() })?;
            twins.up()?;
            twins.expect_pings()?;
            tcp_transfer(&twins.world, "alice", "bob", Site::SUN.host4, 16 << 20)?;
            tcp_transfer(&twins.world, "bob", "alice", Site::MOON.host6, 16 << 20)?;
        }
    }
    Ok(())
}

#[test]
fn forced_encapsulation_puts_esp_in_udp_and_without_it_esp_is_native() -> Result<()> {
    for (lines, native) in [("", true), ("forceencaps = true", false)] {
        let twins = Twins::start(Case { lines, ..Case::default() })?;
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        twins.up()?;
        twins.expect_pings()?;
        let capture = capture.stop()?;
        let esp = tshark(&capture, None, "esp", &["ip.proto"])?;
        ensure!(esp.len() >= 8, "only {} ESP packets", esp.len());
        for row in esp {
            let proto = row.first().map(String::as_str);
            ensure!(proto == Some(if native { "50" } else { "17" }), "{proto:?}");
        }
    }
    Ok(())
}

#[test]
fn an_ipip_interface_works_in_tunnel_and_in_transport_mode() -> Result<()> {
    for lines in ["", "type = \"transport\""] {
        let twins =
            Twins::start(Case { interface: "ipip0", lines, host_to_host: !lines.is_empty(), ..Case::default() })?;
        twins.up()?;
        twins.expect_ping("alice", Site::SUN.host4)?;
        tcp_transfer(&twins.world, "bob", "alice", Site::MOON.host4, 4 << 20)?;
    }
    Ok(())
}

#[test]
fn transport_mode_protects_what_the_gateways_say_to_each_other() -> Result<()> {
    for outer6 in [false, true] {
        let twins =
            Twins::start(Case { outer6, host_to_host: true, lines: "type = \"transport\"", ..Case::default() })?;
        twins.up()?;
        let (here, there) =
            if outer6 { (Site::MOON.outer6, Site::SUN.outer6) } else { (Site::MOON.outer4, Site::SUN.outer4) };
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        ensure!(ping(&twins.world, "moon", there, 3)?.lossless(), "{}", twins.moon.log());
        tcp_transfer(&twins.world, "sun", "moon", here, 2 << 20)?;
        let capture = capture.stop()?;
        let clear = tshark(&capture, None, "icmp.type == 8 or icmpv6.type == 128 or tcp", &["frame.number"])?;
        ensure!(clear.is_empty(), "{} packets in clear", clear.len());
    }
    Ok(())
}

#[test]
fn the_mtu_is_exact() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    twins.up()?;
    let link = twins.world.sh("moon", "ip -o link show dev ipsec0")?;
    let mtu: usize = link
        .split_whitespace()
        .skip_while(|word| *word != "mtu")
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_default();
    // 1500 - IPv4 20 - ESP header 8 - IV 8 - ICV 16 = 1448, a multiple of 4, less pad length and next header.
    ensure!(mtu == 1446, "MTU {mtu}: {link}");
    let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
    let size = (mtu - 28).to_string();
    twins.world.sh("moon", &format!("ping -c 2 -W 2 -M do -s {size} -I 10.1.0.1 10.2.0.10"))?;
    let capture = capture.stop()?;
    let longest = tshark(&capture, None, "esp", &["ip.len"])?;
    ensure!(longest.iter().flatten().any(|len| len == "1500"), "no full packet: {longest:?}");
    Ok(())
}

#[test]
fn both_gateways_may_be_the_same_distance_from_a_nat() -> Result<()> {
    let world = World::left_behind_nat()?;
    let folder = tempfile::tempdir()?;
    let case = Case::default();
    let sun = case.toml(Site::SUN, Site::MOON).replace("right = \"192.168.0.1\"", "right = \"%any\"");
    let moon = case.toml(Site::HIDDEN_MOON, Site::SUN);
    let sun = harness::Gateway::start(&world, "sun", folder.path(), &sun, e2e::SECRETS)?;
    let moon = harness::Gateway::start(&world, "moon", folder.path(), &moon, e2e::SECRETS)?;
    let twins = Twins { moon, sun, world, folder };
    twins.up()?;
    twins.expect_pings()?;
    tcp_transfer(&twins.world, "bob", "alice", Site::MOON.host4, 4 << 20)
}
