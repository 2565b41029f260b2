//! The security policy database: policies and keys by hand, and their order among those of connections. Needs root.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use charon_rs::lab::topology::Topology;
use e2e::LIMIT;
use harness::{Capture, Gateway, PingStream, Site, World, ping, tcp_transfer, tshark, wait_until};
use tempfile::TempDir;

/// Keys of two SAs: `a` is what moon sends on, `b` what sun sends on.
const SECRETS: [&str; 2] =
    ["000102030405060708090a0b0c0d0e0f", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f"];

/// What packets carry, and what no capture of the outside may show.
const PATTERN: &[u8; 16] = b"innermost secret";

/// Two networks behind gateways that are not on one link:
///
/// ```text
/// alice ───────── moon ────────── core ────────── sun ───────── bob
/// 100.1.0.10  .1   10.0.0.2   .1       .1   10.1.0.2   .1  100.2.0.10
/// ```
fn far_sites() -> Result<World> {
    let topology = Topology::new()
        .host("alice")
        .router("moon")
        .router("core")
        .router("sun")
        .host("bob")
        .link(1500, ("alice", "eth0", &["100.1.0.10/16"]), ("moon", "lan0", &["100.1.0.1/16"]))?
        .link(1500, ("moon", "wan0", &["10.0.0.2/24"]), ("core", "eth0", &["10.0.0.1/24"]))?
        .link(1500, ("core", "eth1", &["10.1.0.1/24"]), ("sun", "wan0", &["10.1.0.2/24"]))?
        .link(1500, ("bob", "eth0", &["100.2.0.10/16"]), ("sun", "lan0", &["100.2.0.1/16"]))?
        .default_routes("alice", ["100.1.0.1"])?
        .default_routes("bob", ["100.2.0.1"])?
        .default_routes("moon", ["10.0.0.1"])?
        .default_routes("sun", ["10.1.0.1"])?;
    World::build(&topology)
}

/// Both gateways with what they run on.
struct Pair {
    moon: Gateway,
    sun: Gateway,
    world: World,
    folder: TempDir,
}

impl Pair {
    /// Starts both; `toml` says what stands in the file of one, `outer` being its own address and the other's.
    fn start(world: World, outer: [&str; 2], secrets: &str, toml: impl Fn(bool, &str, &str) -> String) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let [moon, sun] = outer;
        let sun = Gateway::start(&world, "sun", folder.path(), &toml(false, sun, moon), secrets)?;
        let moon = Gateway::start(&world, "moon", folder.path(), &toml(true, moon, sun_of(outer)), secrets)?;
        Ok(Self { moon, sun, world, folder })
    }

    /// Sends a datagram with [`PATTERN`] from moon to sun; whether it arrives as it was sent.
    fn datagram(&self, address: &str, port: u16) -> Result<bool> {
        let to = SocketAddr::new(address.parse::<IpAddr>()?, port);
        let receiver = self.world.namespace("sun")?.run(|| UdpSocket::bind(to))??;
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        self.world.namespace("moon")?.run(|| UdpSocket::bind((unspecified(to), 0))?.send_to(PATTERN, to))??;
        let mut buffer = [0; 64];
        match receiver.recv(&mut buffer) {
            Ok(len) => Ok(buffer.get(..len) == Some(PATTERN)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// How often moon dropped a packet for this reason that belongs to no SA.
    fn drops(&self, reason: &str) -> Result<u64> {
        let stats = self.moon.json(&["stats"])?;
        Ok(stats["stats"]["drops"][reason].as_u64().unwrap_or(0))
    }
}

fn sun_of(outer: [&str; 2]) -> &str {
    outer[1]
}

fn unspecified(address: SocketAddr) -> IpAddr {
    if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() }
}

/// The tables of both SAs for one end. `moon`'s SPI is 1000, sun's 1001.
fn sas(is_moon: bool, left: &str, right: &str, lines: &str) -> String {
    let sa = |name: &str, spi: u32, is_ours: bool| {
        let direction = if is_ours { "out" } else { "in" };
        format!(
            "[sa.{name}]\nspi = {spi}\ndirection = \"{direction}\"\nleft = \"{left}\"\nright = \"{right}\"\n\
             esp = \"aes128-sha256\"\n{lines}\n"
        )
    };
    sa("a", 1000, is_moon) + &sa("b", 1001, !is_moon)
}

/// The secrets file of both.
fn secrets() -> String {
    let [encryption, integrity] = SECRETS;
    let table =
        |name: &str| format!("[sa.{name}]\nencryption_key = \"{encryption}\"\nintegrity_key = \"{integrity}\"\n");
    format!("{}{}[secret.net]\npsk = \"correct horse battery staple\"\n", table("a"), table("b"))
}

/// Wireshark's table of the two SAs, in a folder as [`tshark`] wants it.
fn keys_for_wireshark(folder: &Path, moon: &str, sun: &str) -> Result<std::path::PathBuf> {
    let keys = folder.join("keys");
    fs::create_dir_all(&keys)?;
    fs::write(keys.join("ikev2_decryption_table"), "")?;
    let [encryption, integrity] = SECRETS;
    let mut table = fs::File::create(keys.join("esp_sa"))?;
    for (from, to, spi) in [(moon, sun, 1000), (sun, moon, 1001)] {
        writeln!(
            table,
            "\"IPv4\",\"{from}\",\"{to}\",\"0x{spi:08x}\",\"AES-CBC [RFC3602]\",\"0x{encryption}\",\
             \"HMAC-SHA-256-128 [RFC4868]\",\"0x{integrity}\""
        )?;
    }
    Ok(keys)
}

/// Whether these octets stand anywhere in a capture.
fn is_in(capture: &Path, octets: &[u8]) -> Result<bool> {
    Ok(fs::read(capture)?.windows(octets.len()).any(|window| window == octets))
}

/// Pings with [`PATTERN`] and wants every reply.
fn ping_with_pattern(world: &World, node: &str, address: &str) -> Result<()> {
    let pattern: String = PATTERN.iter().map(|octet| format!("{octet:02x}")).collect();
    world.sh(node, &format!("ping -n -c 3 -i 0.2 -W 2 -s 64 -p {pattern} {address}")).map(drop)
}

#[test]
fn keys_by_hand_join_two_networks_and_nothing_of_them_is_seen_outside() -> Result<()> {
    let pair = Pair::start(far_sites()?, ["10.0.0.2", "10.1.0.2"], &secrets(), |is_moon, left, right| {
        let (ours, theirs) = if is_moon { ("100.1.0.0/16", "100.2.0.0/16") } else { ("100.2.0.0/16", "100.1.0.0/16") };
        let policy =
            format!("[policy.nets]\nleftsubnet = \"{ours}\"\nrightsubnet = \"{theirs}\"\nsa = [\"a\", \"b\"]\n");
        sas(is_moon, left, right, "") + &policy
    })?;
    let capture = Capture::start(&pair.world, "moon", pair.folder.path())?;
    ping_with_pattern(&pair.world, "alice", "100.2.0.10").with_context(|| pair.moon.log())?;
    ping_with_pattern(&pair.world, "bob", "100.1.0.10")?;
    tcp_transfer(&pair.world, "alice", "bob", "100.2.0.10", 4 << 20)?;
    let capture = capture.stop()?;
    ensure!(!is_in(&capture, PATTERN)?, "inner octets outside");
    let others = tshark(&capture, None, "ip and not esp", &["ip.src", "ip.dst", "ip.proto"])?;
    ensure!(others.is_empty(), "{others:?}");
    let outer = tshark(&capture, None, "esp", &["ip.src", "ip.dst", "ip.proto", "esp.spi"])?;
    for row in &outer {
        let row: Vec<&str> = row.iter().map(String::as_str).collect();
        let known = [["10.0.0.2", "10.1.0.2", "50", "0x000003e8"], ["10.1.0.2", "10.0.0.2", "50", "0x000003e9"]];
        ensure!(known.iter().any(|known| row == *known), "{row:?}");
    }
    // With the keys it is all there, addresses and payload.
    let keys = keys_for_wireshark(pair.folder.path(), "10.0.0.2", "10.1.0.2")?;
    let inner = tshark(&capture, Some(&keys), "icmp.type == 8", &["ip.src", "ip.dst", "data.data"])?;
    ensure!(inner.len() == 6, "{} echo requests", inner.len());
    let pattern: String = PATTERN.iter().map(|octet| format!("{octet:02x}")).collect();
    for row in &inner {
        let row = row.join(" ");
        ensure!(row.contains("100.1.0.10") && row.contains("100.2.0.10") && row.contains(&pattern), "{row}");
    }
    let list = pair.moon.expect_ctl(&["list"])?;
    ensure!(
        list.contains("nets") && list.contains("protect") && list.contains("100.1.0.0/16 === 100.2.0.0/16"),
        "{list}"
    );
    let status = pair.moon.json(&["status"])?;
    let sa = &status["policies"]["nets"]["sas"]["a"];
    ensure!(sa["spi"] == "000003e8" && sa["packets"].as_u64().is_some_and(|packets| packets > 3), "{status:#}");
    Ok(())
}

#[test]
fn a_connection_joins_the_same_networks() -> Result<()> {
    let pair = Pair::start(far_sites()?, ["10.0.0.2", "10.1.0.2"], &secrets(), |is_moon, left, right| {
        let (ours, theirs) = if is_moon { ("100.1.0.0/16", "100.2.0.0/16") } else { ("100.2.0.0/16", "100.1.0.0/16") };
        format!(
            "[conn.nets]\nleft = \"{left}\"\nright = \"{right}\"\nleftsubnet = \"{ours}\"\nrightsubnet = \"{theirs}\"\n\
             esp = \"aes128-sha256\"\nauto = \"add\"\n"
        )
    })?;
    let capture = Capture::start(&pair.world, "moon", pair.folder.path())?;
    pair.moon.expect_ctl(&["up", "nets"])?;
    ping_with_pattern(&pair.world, "alice", "100.2.0.10").with_context(|| pair.moon.log())?;
    ping_with_pattern(&pair.world, "bob", "100.1.0.10")?;
    let capture = capture.stop()?;
    ensure!(!is_in(&capture, PATTERN)?, "inner octets outside");
    let others = tshark(&capture, None, "ip and not esp and not isakmp", &["ip.src", "ip.dst", "ip.proto"])?;
    ensure!(others.is_empty(), "{others:?}");
    ensure!(tshark(&capture, None, "esp", &["esp.spi"])?.len() >= 12);
    Ok(())
}

/// A policy between the gateways' own addresses in transport mode, keyed by hand.
fn transport(is_moon: bool, left: &str, right: &str, lines: &str) -> String {
    let lines = format!("type = \"transport\"\n{lines}");
    let policy =
        format!("[policy.hosts]\nleftsubnet = \"{left}/32\"\nrightsubnet = \"{right}/32\"\nsa = [\"a\", \"b\"]\n");
    sas(is_moon, left, right, &lines) + &policy
}

#[test]
fn transport_mode_changes_nothing_of_the_header_but_protocol_length_and_checksum() -> Result<()> {
    let pair = Pair::start(World::two_sites()?, ["192.168.0.1", "192.168.0.2"], &secrets(), |is_moon, left, right| {
        transport(is_moon, left, right, "")
    })?;
    // What moon's own programs say is seen on the interface before it is protected.
    let inside = pair.folder.path().join("inside.pcap");
    let mut command = pair.world.command("moon", "tcpdump")?;
    command.args(["-i", "ipsec0", "-n", "-U", "--immediate-mode", "-Z", "root", "-w"]).arg(&inside);
    let mut dump = harness::Daemon::start(command, pair.folder.path().join("inside.tcpdump"))?;
    wait_until(LIMIT, "tcpdump", || Ok(dump.log().contains("listening on")))?;
    let capture = Capture::start(&pair.world, "moon", pair.folder.path())?;
    ping_with_pattern(&pair.world, "moon", "192.168.0.2").with_context(|| pair.moon.log())?;
    let capture = capture.stop()?;
    dump.signal(rustix::process::Signal::INT)?;
    dump.wait(LIMIT)?;
    ensure!(!is_in(&capture, PATTERN)?, "inner octets outside");
    ensure!(is_in(&inside, PATTERN)?, "the capture of the inside shows what it should");
    const SAME: [&str; 8] =
        ["ip.version", "ip.hdr_len", "ip.dsfield", "ip.flags", "ip.frag_offset", "ip.ttl", "ip.src", "ip.dst"];
    let fields: Vec<&str> = SAME.into_iter().chain(["ip.proto", "ip.len"]).collect();
    let before = tshark(&inside, None, "icmp.type == 8", &fields)?;
    let after = tshark(&capture, None, "esp and ip.src == 192.168.0.1", &fields)?;
    // A capture that ends right behind the last packets may miss some of them.
    ensure!(before.len() >= 2 && after.len() >= 2, "{} packets became {}", before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        ensure!(before.get(..SAME.len()) == after.get(..SAME.len()), "{before:?} became {after:?}");
        ensure!(before.get(SAME.len()).map(String::as_str) == Some("1"), "{before:?}");
        ensure!(after.get(SAME.len()).map(String::as_str) == Some("50"), "{after:?}");
        // 72 octets of ICMP: SPI, number and IV 24; 72 + 2 padded to 80; ICV 16; header 20.
        ensure!(after.last().map(String::as_str) == Some("140"), "{after:?}");
    }
    let keys = keys_for_wireshark(pair.folder.path(), "192.168.0.1", "192.168.0.2")?;
    let inner = tshark(&capture, Some(&keys), "esp and icmp.type == 8", &["data.data"])?;
    ensure!(inner.len() >= 2, "{inner:?}");
    tcp_transfer(&pair.world, "moon", "sun", "192.168.0.2", 2 << 20)
}

#[test]
fn transport_mode_goes_through_a_nat_with_checksums_put_right() -> Result<()> {
    // Keyed by hand: each end knows the addresses as it sees them.
    let world = World::left_behind_nat()?;
    let folder = tempfile::tempdir()?;
    let udp = "forceencaps = true\n";
    let (moon_toml, sun_toml) =
        (transport(true, "172.16.0.2", "192.168.0.2", udp), transport(false, "192.168.0.2", "192.168.0.9", udp));
    let sun = Gateway::start(&world, "sun", folder.path(), &sun_toml, &secrets())?;
    let moon = Gateway::start(&world, "moon", folder.path(), &moon_toml, &secrets())?;
    through_nat(&Pair { moon, sun, world, folder })?;
    // Negotiated.
    let world = World::left_behind_nat()?;
    let folder = tempfile::tempdir()?;
    let conn = |left: &str, right: &str| {
        format!(
            "[conn.hosts]\nleft = \"{left}\"\nright = \"{right}\"\nleftid = \"@x\"\nrightid = \"@x\"\n\
             type = \"transport\"\nesp = \"aes128-sha256\"\nauto = \"add\"\n"
        )
    };
    let sun = Gateway::start(&world, "sun", folder.path(), &conn("192.168.0.2", "%any"), &secrets())?;
    let moon = Gateway::start(&world, "moon", folder.path(), &conn("172.16.0.2", "192.168.0.2"), &secrets())?;
    moon.expect_ctl(&["up", "hosts"])?;
    through_nat(&Pair { moon, sun, world, folder })
}

/// Whether echo requests, UDP and TCP of moon arrive at sun, and only ESP in UDP is seen there.
fn through_nat(pair: &Pair) -> Result<()> {
    let capture = Capture::start(&pair.world, "sun", pair.folder.path())?;
    ping_with_pattern(&pair.world, "moon", "192.168.0.2").with_context(|| pair.moon.log() + &pair.sun.log())?;
    ensure!(pair.datagram("192.168.0.2", 5353)?, "a datagram with a checksum\n{}", pair.sun.log());
    tcp_transfer(&pair.world, "moon", "sun", "192.168.0.2", 1 << 20)?;
    let capture = capture.stop()?;
    ensure!(!is_in(&capture, PATTERN)?, "inner octets outside");
    let carriers = tshark(&capture, None, "esp", &["ip.proto", "udp.dstport"])?;
    ensure!(carriers.len() > 10 && carriers.iter().all(|row| row.first().is_some_and(|proto| proto == "17")));
    Ok(())
}

#[test]
fn ports_and_icmp_types_decide_between_protect_bypass_and_discard() -> Result<()> {
    let pair = Pair::start(World::two_sites()?, ["192.168.0.1", "192.168.0.2"], &secrets(), |is_moon, left, right| {
        let policy = |name: &str, action: &str, selectors: &str| {
            format!(
                "[policy.{name}]\naction = \"{action}\"\npriority = 10\nleftsubnet = \"{left}/32\"\n\
                 rightsubnet = \"{right}/32\"\n{selectors}\n"
            )
        };
        // What sun does not let pass in clear itself, its guard drops.
        let suns = |ports: &str| format!("{}protoport = \"{ports}\"", if is_moon { "right" } else { "left" });
        transport(is_moon, left, right, "")
            + &policy("open", "bypass", &suns("udp/7777"))
            + &policy("shut", "discard", &suns("udp/9000-9999"))
            // One port of a range that is dropped is not, because it is asked first.
            + &policy("hole", "bypass", &suns("udp/9500")).replace("priority = 10", "priority = 9")
            + &policy("echo", "bypass", &suns("icmp/8"))
    })?;
    let capture = Capture::start(&pair.world, "moon", pair.folder.path())?;
    for (port, arrives) in [(8888, true), (7777, true), (9999, false), (9500, true)] {
        ensure!(pair.datagram("192.168.0.2", port)? == arrives, "port {port}\n{}", pair.moon.log());
    }
    ensure!(pair.drops("discard")? == 1, "{}", pair.moon.expect_ctl(&["stats"])?);
    ensure!(ping(&pair.world, "moon", "192.168.0.2", 2)?.lossless(), "{}", pair.moon.log());
    let capture = capture.stop()?;
    let clear = tshark(&capture, None, "udp", &["ip.src", "ip.dst", "udp.dstport", "data.data"])?;
    let pattern: String = PATTERN.iter().map(|octet| format!("{octet:02x}")).collect();
    let expected = |port: &str| ["192.168.0.1", "192.168.0.2", port, &pattern].map(str::to_owned).to_vec();
    ensure!(clear == [expected("7777"), expected("9500")], "{clear:?}");
    let echoes = tshark(&capture, None, "icmp", &["icmp.type"])?;
    ensure!(
        echoes.iter().flatten().all(|kind| kind == "8") && !echoes.is_empty(),
        "requests alone are in clear: {echoes:?}"
    );
    // The datagram to port 8888 and the replies, the last of which the end of the capture may have missed.
    let protected = tshark(&capture, None, "esp", &["ip.src"])?.concat();
    let (first, replies) = protected.split_first().context("nothing was protected")?;
    let are_replies = !replies.is_empty() && replies.iter().all(|source| source == "192.168.0.2");
    ensure!(first == "192.168.0.1" && are_replies, "{protected:?}");
    Ok(())
}

#[test]
fn ike_and_esp_of_the_gateway_leave_whatever_is_protected() -> Result<()> {
    let pair = Pair::start(World::two_sites()?, ["192.168.0.1", "192.168.0.2"], &secrets(), |is_moon, left, right| {
        let (ours, theirs) = if is_moon { (Site::MOON, Site::SUN) } else { (Site::SUN, Site::MOON) };
        format!(
            "[conn.all]\nleft = \"{left}\"\nright = \"{right}\"\nleftsubnet = \"{}\"\nrightsubnet = \"{}\"\n\
             auto = \"{}\"\n{}",
            if is_moon { ours.net4 } else { "0.0.0.0/0" },
            if is_moon { "0.0.0.0/0" } else { theirs.net4 },
            if is_moon { "route" } else { "add" },
            if is_moon { "routes = \"0.0.0.0/0\"\n" } else { "" },
        )
    })?;
    // The trap takes everything, the gateway's own address included; IKE comes through it nevertheless.
    ping(&pair.world, "alice", Site::SUN.host4, 1)?;
    pair.moon.wait_status(LIMIT, "the tunnel", |status| status.to_string().contains("INSTALLED"))?;
    ensure!(ping(&pair.world, "alice", Site::SUN.host4, 3)?.lossless(), "{}", pair.moon.log());
    pair.moon.expect_ctl(&["rekey", "all"])?;
    ensure!(ping(&pair.world, "alice", Site::SUN.host4, 3)?.lossless(), "{}", pair.moon.log());
    Ok(())
}

#[test]
fn packets_for_a_trap_that_nobody_answers_are_dropped_and_counted() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let toml = format!(
        "[conn.net]\nleft = \"192.168.0.1\"\nright = \"192.168.0.2\"\nleftsubnet = \"{}\"\nrightsubnet = \"{}\"\n\
         auto = \"route\"\n",
        Site::MOON.net4,
        Site::SUN.net4
    );
    let moon = Gateway::start(&world, "moon", folder.path(), &toml, &secrets())?;
    let capture = Capture::start(&world, "moon", folder.path())?;
    ensure!(ping(&world, "alice", Site::SUN.host4, 3)?.received == 0);
    let capture = capture.stop()?;
    let stats = moon.json(&["stats"])?;
    ensure!(stats["stats"]["drops"]["no_sa"] == 3, "{stats:#}");
    let asked = tshark(&capture, None, "isakmp", &["frame.number"])?;
    let clear = tshark(&capture, None, "icmp.type == 8", &["frame.number"])?;
    ensure!(!asked.is_empty() && clear.is_empty(), "{} questions, {} in clear", asked.len(), clear.len());
    Ok(())
}

#[test]
fn a_reload_changes_policies_without_losing_a_packet_of_the_others() -> Result<()> {
    let toml = |is_moon: bool, left: &str, right: &str| transport(is_moon, left, right, "");
    let pair = Pair::start(World::two_sites()?, ["192.168.0.1", "192.168.0.2"], &secrets(), toml)?;
    let stream = PingStream::start(&pair.world, "moon", "192.168.0.2")?;
    let file = pair.moon.folder().join("ipsec.toml");
    let before = fs::read_to_string(&file)?;
    let shut = "[policy.shut]\naction = \"discard\"\npriority = 1\nleftsubnet = \"192.168.0.1/32\"\n\
                rightsubnet = \"192.168.0.2/32\"\nrightprotoport = \"udp\"\n";
    ensure!(pair.datagram("192.168.0.2", 5353)?);
    fs::write(&file, format!("{before}{shut}"))?;
    pair.moon.expect_ctl(&["reload"])?;
    wait_until(LIMIT, "the new policy", || Ok(!pair.datagram("192.168.0.2", 5353)?))?;
    ensure!(pair.drops("discard")? >= 1);
    ensure!(pair.moon.expect_ctl(&["list"])?.contains("shut"));
    fs::write(&file, &before)?;
    pair.moon.expect_ctl(&["reload"])?;
    wait_until(LIMIT, "the policy's end", || pair.datagram("192.168.0.2", 5353))?;
    let result = stream.stop()?;
    ensure!(result.lossless(), "{result:?}\n{}", pair.moon.log());
    let status = pair.moon.json(&["status"])?;
    ensure!(status["policies"]["shut"].is_null() && !status["policies"]["hosts"].is_null(), "{status:#}");
    Ok(())
}
