//! Translation, filters, routes and steering next to tunnels. Needs root.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use e2e::{Case, LIMIT, SECRETS, Twins};
use harness::{Gateway, Site, World, expect_silence, ping, wait_until};

/// Has `from` send one datagram from its address to `to`, where `at` listens, and tells the source that arrives.
fn source_seen(
    world: &World,
    from: &str,
    source: &str,
    at: &str,
    listen: &str,
    to: &str,
) -> Result<Option<SocketAddr>> {
    let (listen, source, to): (SocketAddr, SocketAddr, SocketAddr) = (listen.parse()?, source.parse()?, to.parse()?);
    let receiver = world.namespace(at)?.run(move || UdpSocket::bind(listen))??;
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
    let sender = world.namespace(from)?.run(move || UdpSocket::bind(source))??;
    sender.send_to(b"hello", to)?;
    let mut buffer = [0; 16];
    Ok(receiver.recv_from(&mut buffer).ok().map(|(_, from)| from))
}

#[test]
fn what_leaves_outside_the_tunnel_is_masqueraded_and_what_goes_in_is_not() -> Result<()> {
    let moon_lines = "[nat.internet]\nout = \"wan0\"\nsource = \"10.1.0.0/16\"\nsnat = \"masquerade\"\n\
                      [nat.web]\nin = \"wan0\"\nprotocol = \"udp\"\nport = 8080\ndnat = \"10.1.0.10:80\"\n";
    let twins = Twins::start(Case { moon_lines, ..Case::default() })?;
    twins.up()?;
    twins.expect_pings()?;
    let world = &twins.world;
    let seen = source_seen(world, "alice", "10.1.0.10:5000", "sun", "192.168.0.2:6000", "192.168.0.2:6000")?;
    ensure!(seen.context("outside")?.ip().to_string() == "192.168.0.1", "outside: {seen:?}");
    let seen = source_seen(world, "alice", "10.1.0.10:5000", "bob", "10.2.0.10:6000", "10.2.0.10:6000")?;
    ensure!(seen == Some("10.1.0.10:5000".parse()?), "through the tunnel: {seen:?}");
    let seen = source_seen(world, "sun", "192.168.0.2:7000", "alice", "10.1.0.10:80", "192.168.0.1:8080")?;
    ensure!(seen == Some("192.168.0.2:7000".parse()?), "through the port forward: {seen:?}");
    Ok(())
}

#[test]
fn a_filter_of_a_tunnel_lets_pass_what_is_listed_and_the_answers_of_what_we_asked() -> Result<()> {
    let moon_lines = "[filter.dns]\nin = \"ipsec0\"\nsource = \"10.2.0.10\"\nprotocol = \"udp\"\nport = 53\n\
                      [filter.rest]\nin = \"ipsec0\"\naction = \"drop\"\nlog = true\n";
    let twins = Twins::start(Case { moon_lines, ..Case::default() })?;
    twins.up()?;
    let world = &twins.world;
    twins.expect_ping("alice", Site::SUN.host4)?;
    expect_silence(world, "bob", Site::MOON.host4)?;
    let seen = |port: u16| {
        let alice = format!("10.1.0.10:{port}");
        source_seen(world, "bob", "10.2.0.10:5000", "alice", &alice, &alice)
    };
    ensure!(seen(53)?.is_some(), "what is listed does not pass");
    ensure!(seen(54)?.is_none(), "what is not listed passes");
    // Without the table everything passes again.
    let file = twins.moon.folder().join("ipsec.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.split("[filter.dns]").next().unwrap_or_default())?;
    let plan = twins.moon.expect_ctl(&["plan"])?;
    ensure!(plan.contains("- \tchain filter_in {"), "{plan}");
    twins.moon.expect_ctl(&["reload"])?;
    wait_until(LIMIT, "the end of the filter", || Ok(seen(54)?.is_some()))
}

#[test]
fn packets_that_a_rule_chooses_take_another_tunnel_than_their_destination_says() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    // Two tunnels between the same gateways: what belongs to one port goes through the second.
    let second = |here: Site, there: Site| {
        format!(
            "[interface.ipsec1]\n[conn.second]\nleft = \"{}\"\nleftid = \"second.{}\"\nright = \"{}\"\nrightid = \"second.{}\"\n\
             leftsubnet = \"0.0.0.0/0\"\nrightsubnet = \"0.0.0.0/0\"\nroutes = \"none\"\ninterface = \"ipsec1\"\nauto = \"add\"\n",
            here.outer4, here.gateway, there.outer4, there.gateway
        )
    };
    let rule = "[route.voice]\nin = \"lan0\"\nprotocol = \"udp\"\nport = 5060\ninterface = \"ipsec1\"\n\
                [route.far]\ndestination = \"203.0.113.0/24\"\nvia = \"192.168.0.2\"\nmetric = 42\ntable = 100\n";
    let case = Case::default();
    let sun_toml = case.toml(Site::SUN, Site::MOON) + &second(Site::SUN, Site::MOON);
    let sun = Gateway::start(&world, "sun", folder.path(), &sun_toml, SECRETS)?;
    let moon_toml = case.toml(Site::MOON, Site::SUN) + &second(Site::MOON, Site::SUN) + rule;
    let moon = Gateway::start(&world, "moon", folder.path(), &moon_toml, SECRETS)?;
    let route = world.sh("moon", "ip route show table 100")?;
    ensure!(route.contains("203.0.113.0/24 via 192.168.0.2") && route.contains("metric 42"), "{route}");
    moon.expect_ctl(&["up", "net"])?;
    let seen = |port: u16| {
        let bob = format!("10.2.0.10:{port}");
        source_seen(&world, "alice", "10.1.0.10:5000", "bob", &bob, &bob)
    };
    ensure!(seen(5061)?.is_some(), "{}", moon.log());
    ensure!(seen(5060)?.is_none(), "its tunnel is not up");
    moon.expect_ctl(&["up", "second"])?;
    ensure!(seen(5060)?.is_some(), "{}\n{}", moon.log(), sun.log());
    let packets = world.sh("moon", "ip -s -j link show ipsec1")?;
    ensure!(!packets.contains("\"packets\":0,\"errors\":0,\"dropped\":0,\"carrier_errors\""), "{packets}");
    world.sh("moon", "ip link set ipsec1 down")?;
    ensure!(seen(5060)?.is_none(), "it took the other tunnel while its own was away");
    ensure!(seen(5061)?.is_some());
    ensure!(ping(&world, "alice", Site::SUN.host4, 1)?.lossless());
    Ok(())
}
