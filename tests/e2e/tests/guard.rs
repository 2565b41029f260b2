//! What a connection covers never passes its tunnel by, whatever becomes of the daemon. Needs root.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use charon_rs::lab::netns::NetnsError;
use e2e::{Case, LIMIT, SECRETS, Twins};
use harness::{Capture, Gateway, Site, World, built, finish, ping, tshark, wait_until};

/// What nobody outside may see.
const MARKER: &[u8] = b"this marker belongs into the tunnel";

/// R4301-5-1: at start, with a reload, and without a daemon.
#[test]
fn nothing_leaves_in_clear_while_tunnels_and_daemons_come_and_go() -> Result<()> {
    let world = open_world()?;
    let folder = tempfile::tempdir()?;
    ensure!(ping(&world, "alice", Site::SUN.host4, 1)?.lossless(), "without a guard packets would find their way");
    let case =
        Case { moon_lines: "dpddelay = \"1s\"\ndpdaction = \"restart\"\nretransmit_tries = 2\n", ..Case::default() };
    let start = |node: &str| match node {
        "moon" => {
            Gateway::start(&world, node, folder.path(), &(case.toml(Site::MOON, Site::SUN) + case.moon_lines), SECRETS)
        }
        _ => Gateway::start(&world, node, folder.path(), &case.toml(Site::SUN, Site::MOON), SECRETS),
    };
    let (mut moon, mut sun) = (start("moon")?, start("sun")?);
    let capture = Capture::start(&world, "moon", folder.path())?;
    let streams = [
        Stream::start(&world, Site::MOON, Site::SUN)?,
        Stream::start(&world, Site::SUN, Site::MOON)?,
        Stream::start6(&world, Site::MOON, Site::SUN)?,
    ];

    expect_sending(&streams, "before the tunnel is up")?;
    moon.expect_ctl(&["up", "net"])?;
    expect_arrivals(&streams, "through the tunnel")?;
    world.sh("moon", "ip link delete ipsec0")?;
    expect_arrivals(&streams, "after somebody deleted the interface")?;
    ensure!(moon.log().contains("somebody deleted an interface"), "{}", moon.log());
    reload_with(&moon, "lifetime = \"50m\"")?;
    expect_arrivals(&streams, "after a reload")?;
    moon.kill()?;
    expect_sending(&streams, "after moon was killed")?;
    moon = start("moon")?;
    expect_sending(&streams, "after moon is there again, and not its tunnel")?;
    moon.expect_ctl(&["up", "net"])?;
    expect_arrivals(&streams, "through the new tunnel")?;
    moon.expect_ctl(&["down", "net"])?;
    expect_sending(&streams, "after the tunnel was taken down")?;
    moon.expect_ctl(&["up", "net"])?;
    expect_arrivals(&streams, "through the third tunnel")?;
    ensure!(moon.stop()?.success());
    expect_sending(&streams, "after moon was stopped")?;
    moon = start("moon")?;
    moon.expect_ctl(&["up", "net"])?;
    sun.kill()?;
    moon.wait_status(LIMIT, "the peer's death", |status| !status.to_string().contains("INSTALLED"))?;
    expect_sending(&streams, "after sun died")?;

    for stream in streams {
        stream.stop()?;
    }
    let octets = std::fs::read(capture.stop()?)?;
    ensure!(octets.len() > 10_000, "the capture saw the tunnels");
    ensure!(!octets.windows(MARKER.len()).any(|window| window == MARKER), "the marker was seen outside");
    Ok(())
}

/// IKE_SA_INIT cannot be cut by IKE (RFC 7383 §2.5.1): its packet comes in fragments, of which only the first has ports.
#[test]
fn fragments_of_ike_arrive_where_everything_between_the_gateways_is_covered() -> Result<()> {
    for outer6 in [false, true] {
        let ike = "aes256gcm16-prfsha384-mlkem1024";
        let twins = Twins::start(Case { outer6, host_to_host: true, ike, ..Case::default() })?;
        let capture = Capture::start(&twins.world, "moon", twins.folder.path())?;
        twins.up()?;
        let later = if outer6 { "ipv6.fraghdr.offset > 0" } else { "ip.frag_offset > 0" };
        ensure!(!tshark(&capture.stop()?, None, later, &["frame.number"])?.is_empty(), "nothing came in fragments");
    }
    Ok(())
}

/// RFC 4301 §5.2: what arrives in clear and should have been protected is dropped.
#[test]
fn nothing_enters_in_clear_from_where_only_a_tunnel_may_come() -> Result<()> {
    let world = open_world()?;
    let folder = tempfile::tempdir()?;
    let mut moon =
        Gateway::start(&world, "moon", folder.path(), &Case::default().toml(Site::MOON, Site::SUN), SECRETS)?;
    let inside: SocketAddr = "10.1.0.10:7000".parse()?;
    let alice = world.namespace("alice")?.run(move || UdpSocket::bind(inside))??;
    alice.set_read_timeout(Some(LIMIT))?;
    // The outside forges what it likes; here it has no guard of its own.
    let forge = |world: &World| -> Result<()> {
        let bob = world.namespace("sun")?.run(|| UdpSocket::bind("10.2.0.1:7000"))??;
        for _ in 0..50 {
            bob.send_to(b"forged", inside)?;
        }
        Ok(())
    };
    // What comes from the gateway itself is not forged, and comes after what was.
    let fence = |world: &World| -> Result<()> {
        let own = world.namespace("moon")?.run(|| UdpSocket::bind("10.1.0.1:7000"))??;
        own.send_to(b"fence", inside)?;
        Ok(())
    };
    let expect_only_the_fence = |when: &str| -> Result<()> {
        forge(&world)?;
        let mut buffer = [0; 16];
        wait_until(LIMIT, "forged packets at the guard", || Ok(dropped_inbound(&world)? >= 50))?;
        fence(&world)?;
        let (len, from) = alice.recv_from(&mut buffer).with_context(|| format!("{when}: the fence"))?;
        ensure!(buffer.get(..len) == Some(b"fence"), "{when}: a forged packet came in from {from}");
        Ok(())
    };
    expect_only_the_fence("while moon runs")?;
    // A new daemon replaces the table, which counts anew.
    moon.kill()?;
    world.sh("moon", "nft reset rules >/dev/null 2>&1 || nft reset counters >/dev/null 2>&1 || true")?;
    forge(&world)?;
    fence(&world)?;
    let mut buffer = [0; 16];
    let (len, _) = alice.recv_from(&mut buffer)?;
    ensure!(buffer.get(..len) == Some(b"fence"), "a forged packet came in after moon was killed");
    Ok(())
}

#[test]
fn the_guard_stays_until_it_is_taken_away_and_foreign_rules_are_never_touched() -> Result<()> {
    let world = open_world()?;
    let folder = tempfile::tempdir()?;
    world.sh(
        "moon",
        "nft add table inet admin && nft 'add chain inet admin forward { type filter hook forward priority 0; }' \
         && nft add rule inet admin forward ip saddr 203.0.113.7 drop && ip rule add fwmark 7 lookup 77 priority 4300 \
         && ip route add blackhole 203.0.113.0/24 table 4310",
    )?;
    let foreign =
        || world.sh("moon", "nft list table inet admin; ip rule show priority 4300; ip route show table 4310");
    let before = foreign()?;
    let toml = Case::default().toml(Site::MOON, Site::SUN);
    let mut moon = Gateway::start(&world, "moon", folder.path(), &toml, SECRETS)?;
    ensure!(own_table(&world)?, "no guard: {}", moon.log());
    ensure!(foreign()?.contains(&before) && foreign()? == before, "after the start: {}", foreign()?);
    reload_with(&moon, "lifetime = \"50m\"")?;
    ensure!(foreign()? == before, "after a reload: {}", foreign()?);
    let said = finish_ctl(&world, &["--socket", &moon.socket().to_string_lossy(), "guard", "--remove"])?;
    ensure!(said.contains("guard = \"off\""), "a daemon that runs would put it back: {said}");
    ensure!(moon.stop()?.success());
    ensure!(foreign()? == before, "after the stop: {}", foreign()?);
    ensure!(own_table(&world)?, "the guard went with the daemon");
    let blackholes = world.sh("moon", "ip route show table all type blackhole")?;
    ensure!(blackholes.contains("10.2.0.0/16"), "{blackholes}");
    let said = finish_ctl(&world, &["--socket", "/nonexistent", "guard", "--remove"])?;
    ensure!(said.contains("table inet charon-rs") && said.contains("10.2.0.0/16"), "{said}");
    ensure!(!own_table(&world)? && foreign()? == before, "after the removal: {}", foreign()?);
    let left = world.sh("moon", "ip rule; ip -6 rule; ip route show table all type blackhole")?;
    ensure!(!left.contains("0x32") && !left.contains("10.2.0.0/16"), "left behind: {left}");
    Ok(())
}

#[test]
fn a_guard_that_is_off_is_not_there_and_one_for_the_run_goes_with_it() -> Result<()> {
    let world = open_world()?;
    let folder = tempfile::tempdir()?;
    let toml =
        |guard: &str| format!("{}\n[daemon]\nguard = \"{guard}\"\n", Case::default().toml(Site::MOON, Site::SUN));
    let mut moon = Gateway::start(&world, "moon", folder.path(), &toml("off"), SECRETS)?;
    ensure!(!own_table(&world)? && ping(&world, "alice", Site::SUN.host4, 1)?.lossless());
    std::fs::write(moon.folder().join("ipsec.toml"), toml("while-running"))?;
    let plan = moon.expect_ctl(&["plan"])?;
    ensure!(plan.contains("add blackhole 10.2.0.0/16") && plan.contains("+ \tchain guard_out"), "{plan}");
    ensure!(!own_table(&world)?, "a plan changes nothing");
    moon.expect_ctl(&["reload"])?;
    wait_until(LIMIT, "the guard", || own_table(&world))?;
    harness::expect_silence(&world, "alice", Site::SUN.host4)?;
    let plan = moon.json(&["plan"])?;
    ensure!(plan["host"].as_array().is_none_or(Vec::is_empty), "nothing is left to do: {plan}");
    ensure!(moon.stop()?.success());
    ensure!(!own_table(&world)?);
    Ok(())
}

/// Two sites whose gateways would forward everything in clear.
fn open_world() -> Result<World> {
    let world = World::two_sites()?;
    world.sh("moon", "ip route add 10.2.0.0/16 via 192.168.0.2 && ip -6 route add fec2::/64 via fec0::2")?;
    world.sh("sun", "ip route add 10.1.0.0/16 via 192.168.0.1 && ip -6 route add fec1::/64 via fec0::1")?;
    Ok(world)
}

fn own_table(world: &World) -> Result<bool> {
    Ok(world.sh("moon", "nft list tables")?.lines().any(|line| line.trim() == "table inet charon-rs"))
}

/// What moon's guard dropped on its way in.
fn dropped_inbound(world: &World) -> Result<usize> {
    let chains = world.sh("moon", "nft list table inet charon-rs")?;
    let inbound =
        chains.lines().skip_while(|line| !line.contains("chain inbound")).take_while(|line| line.trim() != "}");
    let packets = |line: &str| line.split_once("counter packets ")?.1.split(' ').next()?.parse::<usize>().ok();
    Ok(inbound.filter_map(packets).sum())
}

fn reload_with(gateway: &Gateway, line: &str) -> Result<()> {
    let file = gateway.folder().join("ipsec.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{text}\n{line}\n"))?;
    gateway.expect_ctl(&["reload"]).map(drop)
}

/// Runs `charonctl` in moon's namespace, whether it succeeds or not.
fn finish_ctl(world: &World, arguments: &[&str]) -> Result<String> {
    let mut command = world.command("moon", built("charonctl")?)?;
    command.args(arguments);
    let output = finish(command)?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Datagrams with the marker from one host to another, three hundred a second.
struct Stream {
    from: &'static str,
    sent: Arc<AtomicUsize>,
    received: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::result::Result<(), NetnsError>>>,
}

impl Stream {
    fn start(world: &World, from: Site, to: Site) -> Result<Self> {
        Self::between(world, from, to, from.host4.parse()?, to.host4.parse()?)
    }

    fn start6(world: &World, from: Site, to: Site) -> Result<Self> {
        Self::between(world, from, to, from.host6.parse()?, to.host6.parse()?)
    }

    fn between(world: &World, from: Site, to: Site, source: IpAddr, target: IpAddr) -> Result<Self> {
        let (sent, received, ended) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let sender = world.namespace(from.host)?.run(move || UdpSocket::bind((source, 0)))??;
        let receiver = world.namespace(to.host)?.run(move || UdpSocket::bind((target, 0)))??;
        let target = receiver.local_addr()?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (count, stop) = (Arc::clone(&sent), Arc::clone(&ended));
        let sending = world.namespace(from.host)?.start(move || {
            while !stop.load(Ordering::Relaxed) {
                // Refused or not: what counts is what is on the wire.
                if sender.send_to(MARKER, target).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(3));
            }
        })?;
        let (count, stop) = (Arc::clone(&received), Arc::clone(&ended));
        let receiving = world.namespace(to.host)?.start(move || {
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if receiver.recv(&mut buffer).is_ok_and(|len| buffer.get(..len) == Some(MARKER)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self { from: from.host, sent, received, ended, threads: vec![sending, receiving] })
    }

    fn stop(mut self) -> Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of {} panicked", self.from))??;
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Waits until each stream has sent a hundred datagrams more.
fn expect_sending(streams: &[Stream], when: &str) -> Result<()> {
    for stream in streams {
        let before = stream.sent.load(Ordering::Relaxed);
        wait_until(LIMIT, when, || Ok(stream.sent.load(Ordering::Relaxed) > before + 100))?;
    }
    Ok(())
}

/// Waits until a hundred more have arrived of each stream.
fn expect_arrivals(streams: &[Stream], when: &str) -> Result<()> {
    for stream in streams {
        let before = stream.received.load(Ordering::Relaxed);
        let arrived = || Ok(stream.received.load(Ordering::Relaxed) > before + 100);
        wait_until(LIMIT, &format!("datagrams of {} {when}", stream.from), arrived)?;
    }
    Ok(())
}
