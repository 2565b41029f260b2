//! What comes and goes in the life of a tunnel with strongSwan: routes, children, peers. Needs root and strongSwan.

use anyhow::{Result, ensure};
use harness::{Site, ping, wait_until};
use interop::{Case, LIMIT, Pair};

/// The routes that lead into the interfaces of our daemon.
fn routes(pair: &Pair) -> Result<Vec<String>> {
    let all = pair.world.sh("moon", "ip route show table all")?;
    let ours = all.lines().filter(|line| line.contains("dev ipsec0") && line.contains("proto static"));
    Ok(ours.map(str::to_owned).collect())
}

fn expect_no_routes(pair: &Pair, occasion: &str) -> Result<()> {
    let mut left = Vec::new();
    wait_until(LIMIT, "the routes to go", || {
        left = routes(pair)?;
        Ok(left.is_empty())
    })
    .map_err(|error| error.context(format!("{occasion}: {left:?}")))
}

#[test]
fn routes_come_and_go_with_the_tunnel_whoever_ends_it() -> Result<()> {
    let dpd = "dpdaction = \"clear\"\ndpddelay = \"500ms\"\nretransmit_tries = 1\n";
    let pair = Pair::two_sites(Case { our_lines: dpd, ..Case::default() })?;
    expect_no_routes(&pair, "before the first tunnel")?;
    pair.up_from_ours()?;
    ensure!(routes(&pair)?.len() == 2, "one for each family: {:?}", routes(&pair)?);
    pair.ours.expect_ctl(&["down", "net"])?;
    expect_no_routes(&pair, "we ended it")?;
    pair.up_from_theirs()?;
    ensure!(routes(&pair)?.len() == 2, "one for each family: {:?}", routes(&pair)?);
    pair.theirs.swanctl(&["--terminate", "--ike", "net"])?;
    expect_no_routes(&pair, "the peer ended it")?;
    pair.up_from_ours()?;
    let Pair { ours, theirs, world, folder } = pair;
    theirs.kill()?;
    ours.wait_status(LIMIT, "the dead peer", |status| !status.to_string().contains("INSTALLED"))?;
    let left = world.sh("moon", "ip route show table all")?;
    drop(folder);
    // What stays is the route into nothing, so that the network is never reached in clear.
    ensure!(!left.contains("10.2.0.0/16 dev"), "the peer died, and this is left: {left}");
    Ok(())
}

/// A second child of strongSwan, for parts of the networks of the first.
const THEIR_CHILDREN: &str = "}
      second {
        local_ts = 10.2.1.0/24
        remote_ts = 10.1.1.0/24
        esp_proposals = aes256gcm16";

/// Ours for the same traffic as strongSwan's two.
const OUR_CHILDREN: &str = "
[conn.net.child.first]
leftsubnet = [\"10.1.0.0/16\", \"fec1::/64\"]
rightsubnet = [\"10.2.0.0/16\", \"fec2::/64\"]

[conn.net.child.second]
leftsubnet = \"10.1.1.0/24\"
rightsubnet = \"10.2.1.0/24\"
";

fn children_installed(pair: &Pair) -> Result<usize> {
    Ok(pair.ours.json(&["status"])?.to_string().matches("\"state\":\"INSTALLED\"").count())
}

#[test]
fn children_of_one_ike_sa_come_and_go_by_themselves() -> Result<()> {
    let pair = Pair::two_sites(Case { our_lines: OUR_CHILDREN, their_child: THEIR_CHILDREN, ..Case::default() })?;
    // strongSwan's userspace ESP wants an address of its own in each local subnet.
    for (node, device, address) in [
        ("sun", "lan0", "10.2.1.1/24"),
        ("moon", "lan0", "10.1.1.1/24"),
        ("alice", "eth0", "10.1.1.10/24"),
        ("bob", "eth0", "10.2.1.10/24"),
    ] {
        pair.world.sh(node, &format!("ip address add {address} dev {device}"))?;
    }
    let second = || pair.world.sh("alice", "ping -n -c 1 -W 2 -I 10.1.1.10 10.2.1.10").map(drop);
    pair.ours.expect_ctl(&["up", "net", "--child", "first"])?;
    pair.theirs.swanctl(&["--initiate", "--child", "second"])?;
    wait_until(LIMIT, "two children", || Ok(children_installed(&pair)? == 2))?;
    pair.expect_pings()?;
    second()?;
    pair.ours.expect_ctl(&["down", "net", "--child", "first"])?;
    second()?;
    pair.ours.expect_ctl(&["up", "net", "--child", "first"])?;
    pair.theirs.swanctl(&["--terminate", "--child", "second"])?;
    wait_until(LIMIT, "one child", || Ok(children_installed(&pair)? == 1))?;
    pair.expect_pings()?;
    pair.ours.expect_ctl(&["up", "net", "--child", "second"])?;
    pair.ours.expect_ctl(&["rekey", "net"])?;
    second()?;
    let established = pair.ours.json(&["status"])?.to_string().matches("\"state\":\"ESTABLISHED\"").count();
    ensure!(established == 1, "one IKE SA carries them all, not {established}");
    Ok(())
}

#[test]
fn a_connection_that_comes_up_in_part_is_not_said_to_be_up() -> Result<()> {
    // The peer has no child `second`, and the first one takes none of its traffic.
    let ours = OUR_CHILDREN.replace("10.2.1.0/24", "10.77.0.0/24");
    let pair = Pair::two_sites(Case { our_lines: &ours, ..Case::default() })?;
    let said = pair.ours.ctl(&["up", "net"])?;
    ensure!(!said.success, "{}", said.stdout);
    for wanted in ["1 of 2 children came up", "TS_UNACCEPTABLE", "10.77.0.0/24"] {
        ensure!(said.stderr.contains(wanted), "`{wanted}` is not in {}", said.stderr);
    }
    pair.expect_pings()
}

#[test]
fn reauthentication_by_the_peer_is_survived_either_way() -> Result<()> {
    for make_before_break in ["no", "yes"] {
        let pair = Pair::two_sites(Case {
            their_connection: "reauth_time = 2s\nover_time = 20s\nrand_time = 0s",
            their_daemon: &format!("make_before_break = {make_before_break}"),
            ..Case::default()
        })?;
        pair.up_from_theirs()?;
        pair.ours.wait_status(LIMIT, "two more IKE SAs", |status| {
            status.to_string().contains("\"uniqueid\":3,\"version\":2")
        })?;
        wait_until(LIMIT, "pings after reauthentication", || {
            Ok(ping(&pair.world, Site::MOON.host, Site::SUN.host4, 1)?.lossless())
        })?;
        ensure!(routes(&pair)?.len() == 2, "{:?}", routes(&pair)?);
    }
    Ok(())
}

#[test]
fn a_peer_that_restarts_is_taken_back() -> Result<()> {
    let pair = Pair::two_sites(Case::default())?;
    pair.up_from_theirs()?;
    let Pair { ours, theirs, world, folder } = pair;
    theirs.kill()?;
    let again = harness::StrongSwan::start(
        &world,
        Site::SUN.gateway,
        folder.path(),
        harness::Charon::default(),
        &Case::default().swanctl_conf(),
    )?;
    let pair = Pair { ours, theirs: again, world, folder };
    pair.up_from_theirs()?;
    pair.expect_pings()?;
    ensure!(children_installed(&pair)? == 1, "the forgotten tunnel is still there");
    Ok(())
}
