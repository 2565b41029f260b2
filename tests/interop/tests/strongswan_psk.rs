//! Pre-shared keys with Debian's strongSwan, in both roles. Needs root and strongSwan.

use anyhow::{Result, ensure};
use harness::{Capture, Site, World, tcp_transfer, tshark};
use interop::{Case, LIMIT, Pair};

/// Suites of both daemons: AEAD and CBC, MODP, ECP and Curve25519.
const SUITES: [(&str, &str); 6] = [
    ("aes256gcm16-prfsha384-ecp384", "aes256gcm16"),
    ("aes128-sha256-modp2048", "aes128-sha256"),
    ("aes256-sha512-modp3072", "aes256-sha512"),
    ("chacha20poly1305-prfsha256-curve25519", "chacha20poly1305"),
    ("aes128gcm16-prfsha256-ecp256", "aes128gcm16-ecp256"),
    ("aes192-sha384-ecp521", "aes192gcm16"),
];

#[test]
fn every_suite_carries_pings_whoever_initiates() -> Result<()> {
    for (ike, esp) in SUITES {
        for we_initiate in [true, false] {
            println!("{ike} / {esp}, we {}", if we_initiate { "initiate" } else { "respond" });
            let pair = Pair::two_sites(Case { ike, esp, ..Case::default() })?;
            if we_initiate {
                pair.up_from_ours()?
            } else {
                pair.up_from_theirs()?
            }
            pair.expect_pings()?;
        }
    }
    Ok(())
}

/// What few use, and strongSwan has, too.
const UNCOMMON: [&str; 9] = [
    "aes128gcm8",
    "aes256gcm12",
    "aes128ccm8",
    "aes192ccm12",
    "aes256ccm16",
    "aes128ctr-sha256",
    "aes256ctr-sha512",
    "aes256-aescmac",
    "null-sha256",
];

#[test]
fn ciphers_that_few_use_carry_pings() -> Result<()> {
    for (esp, we_initiate) in UNCOMMON.into_iter().zip([true, false].into_iter().cycle()) {
        println!("{esp}, we {}", if we_initiate { "initiate" } else { "respond" });
        let pair = Pair::two_sites(Case { esp, ..Case::default() })?;
        if we_initiate {
            pair.up_from_ours()?
        } else {
            pair.up_from_theirs()?
        }
        pair.expect_pings()?;
    }
    Ok(())
}

#[test]
fn gateways_can_meet_over_ipv6() -> Result<()> {
    for we_initiate in [true, false] {
        let pair = Pair::two_sites(Case { outer6: true, ..Case::default() })?;
        if we_initiate {
            pair.up_from_ours()?
        } else {
            pair.up_from_theirs()?
        }
        pair.expect_pings()?;
    }
    Ok(())
}

#[test]
fn tcp_passes_both_ways_and_nothing_is_in_clear_outside() -> Result<()> {
    let pair = Pair::two_sites(Case::default())?;
    let capture = Capture::start(&pair.world, "moon", pair.folder.path())?;
    pair.up_from_ours()?;
    tcp_transfer(&pair.world, "alice", "bob", Site::SUN.host4, 8 << 20)?;
    tcp_transfer(&pair.world, "bob", "alice", Site::MOON.host6, 8 << 20)?;
    let capture = capture.stop()?;
    let clear = tshark(
        &capture,
        None,
        "ip.addr == 10.0.0.0/8 or ipv6.addr == fec1::/64 or ipv6.addr == fec2::/64",
        &["frame.number"],
    )?;
    ensure!(clear.is_empty(), "{} packets in clear", clear.len());
    let esp = tshark(&capture, None, "esp", &["esp.spi"])?;
    ensure!(esp.len() > 1000, "only {} ESP packets", esp.len());
    Ok(())
}

#[test]
fn wireshark_reads_our_captures_with_our_keys() -> Result<()> {
    for (ike, esp) in [("aes256gcm16-prfsha384-ecp384", "aes256gcm16"), ("aes128-sha256-modp2048", "aes256-sha256")] {
        let pair = Pair::two_sites(Case { ike, esp, ..Case::default() })?;
        let capture = Capture::start(&pair.world, "moon", pair.folder.path())?;
        pair.up_from_ours()?;
        pair.ours.expect_ctl(&["rekey", "net"])?;
        pair.ours.expect_ctl(&["rekey", "net", "--child", "net"])?;
        pair.expect_pings()?;
        let capture = capture.stop()?;
        let keys = pair.folder.path().join("keys");
        let auth = tshark(&capture, Some(&keys), "isakmp.exchangetype == 35", &["isakmp.auth.data"])?;
        ensure!(auth.len() == 2 && auth.iter().flatten().all(|mac| !mac.is_empty()), "IKE_AUTH stays dark: {auth:?}");
        let pings = tshark(&capture, Some(&keys), "icmp.type == 8", &["icmp.seq", "ip.dst"])?;
        ensure!(pings.len() >= 6, "only {} of 6 pings are read with {esp}", pings.len());
    }
    Ok(())
}

#[test]
fn a_nat_in_between_is_crossed_whoever_is_behind_it() -> Result<()> {
    let case = Case { ours: Site::HIDDEN_MOON, seen_as: Some("%any"), ..Case::default() };
    let pair = Pair::start(World::left_behind_nat()?, case)?;
    let capture = Capture::start(&pair.world, "moon", pair.folder.path())?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    tcp_transfer(&pair.world, "bob", "alice", Site::MOON.host4, 2 << 20)?;
    let capture = capture.stop()?;
    let native = tshark(&capture, None, "ip.proto == 50", &["frame.number"])?;
    ensure!(native.is_empty(), "ESP must travel in UDP through a NAT");
    let status = pair.ours.expect_ctl(&["status"])?;
    ensure!(status.contains("NAT"), "the status does not mention the NAT: {status}");
    Ok(())
}

#[test]
fn the_peer_can_be_behind_the_nat() -> Result<()> {
    use harness::{Charon, Gateway, StrongSwan, ping};
    // The mirror image: strongSwan is hidden at moon, we are at sun.
    let world = World::left_behind_nat()?;
    let folder = tempfile::tempdir()?;
    let swanctl = "connections { net { version = 2
    local_addrs = 172.16.0.2
    remote_addrs = 192.168.0.2
    proposals = aes256gcm16-prfsha384-ecp384
    local { auth = psk
      id = moon.example.org
    }
    remote { auth = psk
      id = sun.example.org
    }
    children { net { local_ts = 10.1.0.0/16
        remote_ts = 10.2.0.0/16
        esp_proposals = aes256gcm16
      }
    }
  }
}
secrets { ike-net { secret = \"a key\"
  }
}
";
    let config = "[conn.net]
left = \"192.168.0.2\"
leftid = \"sun.example.org\"
leftsubnet = \"10.2.0.0/16\"
right = \"%any\"
rightid = \"moon.example.org\"
rightsubnet = \"10.1.0.0/16\"
ike = \"aes256gcm16-prfsha384-ecp384\"
esp = \"aes256gcm16\"
interface = \"ipsec0\"
auto = \"add\"
";
    let secrets = "[secret.net]\npsk = \"a key\"\n";
    let ours = Gateway::start(&world, "sun", folder.path(), config, secrets)?;
    let theirs = StrongSwan::start(&world, "moon", folder.path(), Charon::default(), swanctl)?;
    theirs.swanctl(&["--initiate", "--child", "net"])?;
    let result = ping(&world, "bob", Site::MOON.host4, 5)?;
    ensure!(result.lossless(), "{result:?}\n{}\n{}", ours.log(), theirs.log());
    Ok(())
}

#[test]
fn cookies_and_another_group_are_only_a_detour() -> Result<()> {
    // strongSwan asks for a cookie once it has a half-open SA: here one whose answer never reaches us.
    let pair = Pair::two_sites(Case {
        their_daemon: "cookie_threshold = 1",
        our_lines: "retransmit_tries = 1",
        ..Case::default()
    })?;
    pair.world.sh(
        "moon",
        "nft add table ip deaf && nft 'add chain ip deaf in { type filter hook input priority 0; }' \
         && nft add rule ip deaf in udp sport 500 drop",
    )?;
    ensure!(!pair.ours.ctl(&["up", "net"])?.success, "it came up without answers");
    pair.world.sh("moon", "nft delete table ip deaf")?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    ensure!(pair.ours.log().contains("COOKIE"), "the peer asked for no cookie: {}", pair.ours.log());
    drop(pair);
    // Our first group is not theirs: INVALID_KE_PAYLOAD names the right one.
    let ours = Case { ike: "aes256gcm16-prfsha384-ecp256-ecp384", ..Case::default() };
    let pair = Pair::unlike(ours, Case::default())?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    drop(pair);
    // And the other way round.
    let theirs = Case { ike: "aes256gcm16-prfsha384-ecp256-ecp384", ..Case::default() };
    let pair = Pair::unlike(Case::default(), theirs)?;
    pair.up_from_theirs()?;
    pair.expect_pings()
}

#[test]
fn either_side_can_end_the_tunnel() -> Result<()> {
    let pair = Pair::two_sites(Case::default())?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    pair.theirs.swanctl(&["--terminate", "--ike", "net"])?;
    pair.ours.wait_status(LIMIT, "the deletion by the peer", |status| !status.to_string().contains("INSTALLED"))?;
    pair.expect_silence()?;
    pair.up_from_theirs()?;
    pair.expect_pings()?;
    pair.ours.expect_ctl(&["down", "net"])?;
    harness::wait_until(LIMIT, "strongSwan to forget the SA", || {
        Ok(!pair.theirs.swanctl(&["--list-sas"])?.contains("net:"))
    })?;
    pair.expect_silence()
}
