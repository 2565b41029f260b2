//! FRR runs OSPF and BGP over our interfaces. Needs root and the Debian package frr.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::SECRETS;
use harness::{Daemon, Gateway, PingStream, Site, World, ping, wait_until};

/// FRR's daemons of one gateway.
struct Frr {
    daemons: Vec<Daemon>,
}

impl Frr {
    /// Starts zebra and the daemons of `protocols` with one configuration for all of them.
    fn start(world: &World, node: &str, folder: &Path, protocols: &[&str], config: &str) -> Result<Self> {
        let folder = folder.join(format!("frr-{node}"));
        fs::create_dir_all(&folder)?;
        let file = folder.join("frr.conf");
        fs::write(&file, config)?;
        // FRR gives up root for a user of its own, who has to get here.
        let path = folder.display();
        world.sh(node, &format!("chmod 755 '{path}/..' && chown -R frr:frr '{path}'"))?;
        let mut daemons = Vec::new();
        for name in ["zebra"].iter().chain(protocols) {
            let mut command = world.command(node, format!("/usr/lib/frr/{name}"))?;
            command.arg("-f").arg(&file).arg("-i").arg(folder.join(format!("{name}.pid")));
            command.arg("-z").arg(folder.join("zserv.api")).arg("--vty_socket").arg(&folder);
            command.args(["-P", "0", "--log", "stdout"]);
            daemons.push(Daemon::start(command, folder.join(format!("{name}.log")))?);
            wait_until(LIMIT, name, || Ok(folder.join(format!("{name}.vty")).exists()))?;
        }
        Ok(Self { daemons })
    }

    fn logs(&self) -> String {
        self.daemons.iter().map(Daemon::log).collect()
    }
}

/// Two tunnels for any traffic between the same gateways, without routes of our own.
fn toml(here: Site, there: Site, last: u8) -> String {
    let tunnel = |number: u8, name: &str| {
        format!(
            "[interface.ipsec{number}]\naddress = \"10.9.{number}.{last}/30\"\n\
             [conn.{name}]\nleft = \"{}\"\nleftid = \"{name}.{}\"\nright = \"{}\"\nrightid = \"{name}.{}\"\n\
             leftsubnet = \"0.0.0.0/0\"\nrightsubnet = \"0.0.0.0/0\"\nroutes = \"none\"\ninterface = \"ipsec{number}\"\n\
             auto = \"add\"\n",
            here.outer4, here.gateway, there.outer4, there.gateway
        )
    };
    tunnel(0, "first") + &tunnel(1, "second")
}

fn start_gateways(world: &World, folder: &Path) -> Result<(Gateway, Gateway)> {
    let sun = Gateway::start(world, "sun", folder, &toml(Site::SUN, Site::MOON, 2), SECRETS)?;
    let moon = Gateway::start(world, "moon", folder, &toml(Site::MOON, Site::SUN, 1), SECRETS)?;
    moon.expect_ctl(&["up", "first"])?;
    moon.expect_ctl(&["up", "second"])?;
    Ok((moon, sun))
}

fn route_to_bob(world: &World) -> Result<String> {
    world.sh("moon", "ip route show 10.2.0.0/16")
}

#[test]
fn ospf_finds_its_way_over_a_second_tunnel_when_the_first_dies() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let (moon, sun) = start_gateways(&world, folder.path())?;
    let config = |node: &str, net: &str| {
        let interface = |number: u8, cost: u8| {
            format!(
                "interface ipsec{number}\n ip ospf area 0\n ip ospf network point-to-point\n ip ospf hello-interval 1\n \
                 ip ospf dead-interval 3\n ip ospf cost {cost}\n"
            )
        };
        format!(
            "hostname {node}\n{}{}interface lan0\n ip ospf area 0\n ip ospf passive\nrouter ospf\n ospf router-id {net}\n",
            interface(0, 10),
            interface(1, 100)
        )
    };
    let frr = [
        Frr::start(&world, "moon", folder.path(), &["ospfd"], &config("moon", "10.1.0.1"))?,
        Frr::start(&world, "sun", folder.path(), &["ospfd"], &config("sun", "10.2.0.1"))?,
    ];
    let logs = || format!("{}\n{}\n{}\n{}", frr[0].logs(), frr[1].logs(), moon.log(), sun.log());
    wait_until(LIMIT, "the route over the first tunnel", || Ok(route_to_bob(&world)?.contains("dev ipsec0")))
        .map_err(|error| error.context(logs()))?;
    wait_until(LIMIT, "the way back", || Ok(ping(&world, "alice", Site::SUN.host4, 1)?.lossless()))?;
    let stream = PingStream::start(&world, "alice", Site::SUN.host4)?;
    sun.expect_ctl(&["down", "first", "--force"])?;
    wait_until(LIMIT, "the route over the second tunnel", || Ok(route_to_bob(&world)?.contains("dev ipsec1")))
        .map_err(|error| error.context(logs()))?;
    wait_until(LIMIT, "the way back over it", || Ok(ping(&world, "alice", Site::SUN.host4, 3)?.lossless()))?;
    let result = stream.stop()?;
    ensure!(result.received > 0, "{result:?}");
    Ok(())
}

#[test]
fn bgp_over_a_tunnel_brings_the_routes_of_the_other_side() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let (moon, sun) = start_gateways(&world, folder.path())?;
    let config = |node: &str, own: u8, other: u8, net: &str| {
        format!(
            "hostname {node}\nrouter bgp 6500{own}\n bgp router-id 10.9.0.{own}\n no bgp ebgp-requires-policy\n \
             timers bgp 1 3\n neighbor 10.9.0.{other} remote-as 6500{other}\n neighbor 10.9.0.{other} timers connect 1\n \
             address-family ipv4 unicast\n  network {net}\n exit-address-family\n"
        )
    };
    let frr = [
        Frr::start(&world, "moon", folder.path(), &["bgpd"], &config("moon", 1, 2, Site::MOON.net4))?,
        Frr::start(&world, "sun", folder.path(), &["bgpd"], &config("sun", 2, 1, Site::SUN.net4))?,
    ];
    let logs = || format!("{}\n{}\n{}\n{}", frr[0].logs(), frr[1].logs(), moon.log(), sun.log());
    wait_until(LIMIT, "the route", || Ok(route_to_bob(&world)?.contains("via 10.9.0.2 dev ipsec0")))
        .map_err(|error| error.context(logs()))?;
    wait_until(LIMIT, "the way back", || Ok(ping(&world, "alice", Site::SUN.host4, 1)?.lossless()))?;
    sun.expect_ctl(&["down", "first", "--force"])?;
    wait_until(LIMIT, "the end of the route", || Ok(route_to_bob(&world)?.is_empty()))
        .map_err(|error| error.context(logs()))
}

/// How long routing may take to settle.
const LIMIT: Duration = Duration::from_secs(60);
