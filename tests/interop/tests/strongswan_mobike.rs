//! Addresses that change under tunnels with strongSwan. Needs root and strongSwan.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use harness::{Charon, Gateway, Site, StrongSwan, World, ping, wait_until};
use interop::LIMIT;
use serde_json::Value;

fn ours(world: &World, site: Site, folder: &Path, lines: &str) -> Result<Gateway> {
    let peer = if site == Site::MOON { Site::SUN } else { Site::MOON };
    let config = format!(
        "[conn.net]
leftid = \"{}.example.org\"
leftsubnet = \"{}\"
rightid = \"{}.example.org\"
rightsubnet = \"{}\"
ike = \"aes128gcm16-prfsha256-x25519\"
esp = \"aes128gcm16\"
auto = \"add\"
retransmit_timeout = \"500ms\"
{lines}
",
        site.gateway, site.net4, peer.gateway, peer.net4,
    );
    Gateway::start(world, site.gateway, folder, &config, "[secret.net]\npsk = \"a key\"\n")
}

fn theirs(world: &World, site: Site, folder: &Path, lines: &str) -> Result<StrongSwan> {
    let peer = if site == Site::MOON { Site::SUN } else { Site::MOON };
    let swanctl = format!(
        "connections {{
  net {{
    version = 2
    {lines}
    proposals = aes128gcm16-prfsha256-x25519
    local {{
      auth = psk
      id = {}.example.org
    }}
    remote {{
      auth = psk
      id = {}.example.org
    }}
    children {{
      net {{
        local_ts = {}
        remote_ts = {}
        esp_proposals = aes128gcm16
      }}
    }}
  }}
}}
secrets {{
  ike-net {{
    secret = \"a key\"
  }}
}}
",
        site.gateway, peer.gateway, site.net4, peer.net4,
    );
    StrongSwan::start(world, site.gateway, folder, Charon::default(), &swanctl)
}

fn move_moon(world: &World) -> Result<()> {
    world.sh("moon", "ip addr del 192.168.0.1/24 dev wan0 && ip addr add 192.168.0.3/24 dev wan0").map(drop)
}

fn wait_for_pings(world: &World) -> Result<()> {
    for (from, to) in [("alice", Site::SUN.host4), ("bob", Site::MOON.host4)] {
        wait_until(LIMIT, "pings after the move", || Ok(ping(world, from, to, 1)?.lossless()))?;
    }
    Ok(())
}

#[test]
fn strongswan_follows_us_to_another_address() -> Result<()> {
    let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
    let peer = theirs(&world, Site::SUN, folder.path(), "local_addrs = 192.168.0.2\n    remote_addrs = %any")?;
    let gateway = ours(&world, Site::MOON, folder.path(), "right = \"192.168.0.2\"")?;
    gateway.expect_ctl(&["up", "net"])?;
    ensure!(ping(&world, "alice", Site::SUN.host4, 2)?.lossless(), "{}", gateway.log());
    move_moon(&world)?;
    wait_for_pings(&world)?;
    let seen = peer.swanctl(&["--list-sas"])?;
    ensure!(seen.contains("192.168.0.3[4500]"), "{seen}\n{}", gateway.log());
    let log = gateway.log();
    ensure!(log.matches("IKE_AUTH request").count() == 1, "{log}");
    ensure!(log.contains("N(UPD_SA_ADDR)"), "{log}");
    Ok(())
}

#[test]
fn we_follow_strongswan_to_another_address() -> Result<()> {
    let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
    let gateway = ours(&world, Site::SUN, folder.path(), "left = \"192.168.0.2\"\nright = \"%any\"")?;
    let peer = theirs(&world, Site::MOON, folder.path(), "remote_addrs = 192.168.0.2")?;
    peer.swanctl(&["--initiate", "--child", "net"])?;
    ensure!(ping(&world, "bob", Site::MOON.host4, 2)?.lossless(), "{}", gateway.log());
    move_moon(&world)?;
    gateway.wait_status(LIMIT, "the peer's new address", |status| status.to_string().contains("192.168.0.3"))?;
    wait_for_pings(&world)?;
    let log = gateway.log();
    ensure!(log.matches("IKE_AUTH request").count() == 1, "{log}");
    ensure!(log.contains("N(UPD_SA_ADDR)") && log.contains("N(COOKIE2)"), "{log}");
    Ok(())
}

/// The `ike-update` event that the daemon at `socket` sends while `happens` happens, to strongSwan's Python client.
fn update_event(socket: &Path, happens: impl FnOnce() -> Result<()>) -> Result<Vec<(String, Value)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The client waits as long as it takes.
    let mut client = Command::new("timeout")
        .args(["60", "python3"])
        .arg(root.join("vici_listen.py"))
        .arg(root.join("../../target/tools/python"))
        .arg(socket)
        .arg("ike-update")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(client.stdout.take().context("its output")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    let happened = if line == "listening\n" { happens() } else { Err(anyhow::anyhow!("the client said `{line}`")) };
    if happened.is_err() {
        client.kill()?;
    }
    let mut event = String::new();
    said.read_to_string(&mut event)?;
    client.wait()?;
    happened?;
    let event: Value = serde_json::from_str(&event).context("no event within a minute")?;
    let member = |member: &Value| Some((member["key"].as_str()?.to_owned(), member["value"].clone()));
    event.as_array().context("keys")?.iter().map(member).collect::<Option<_>>().context("keys with values")
}

#[test]
fn both_daemons_tell_of_a_peer_that_moves_in_the_same_words() -> Result<()> {
    let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
    let peer = theirs(&world, Site::SUN, folder.path(), "local_addrs = 192.168.0.2\n    remote_addrs = %any")?;
    let gateway = ours(&world, Site::MOON, folder.path(), "right = \"192.168.0.2\"")?;
    gateway.expect_ctl(&["up", "net"])?;
    let theirs_says = update_event(&peer.socket(), || move_moon(&world))?;
    drop((gateway, peer, world));

    let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
    let gateway = ours(&world, Site::SUN, folder.path(), "left = \"192.168.0.2\"\nright = \"%any\"")?;
    let peer = theirs(&world, Site::MOON, folder.path(), "remote_addrs = 192.168.0.2")?;
    peer.swanctl(&["--initiate", "--child", "net"])?;
    let ours_says = update_event(&gateway.socket(), || move_moon(&world))?;

    let (sa, moved) = ours_says.split_last().context("an event")?;
    let (their_sa, they_moved) = theirs_says.split_last().context("an event")?;
    ensure!(moved == they_moved, "{moved:?} instead of {they_moved:?}");
    ensure!(moved.contains(&("remote-host".to_owned(), "192.168.0.3".into())), "{moved:?}");
    let keys = |(name, sa): &(String, Value)| -> Vec<Value> {
        let keys = sa.as_array().into_iter().flatten().map(|member| member["key"].clone());
        // Tasks have each daemon's own names, and strongSwan fakes a NAT.
        let differs =
            |key: &Value| key.as_str().is_some_and(|key| key.starts_with("tasks-") || key.starts_with("nat-"));
        [Value::from(name.as_str())].into_iter().chain(keys.filter(|key| !differs(key))).collect()
    };
    ensure!(keys(sa) == keys(their_sa), "{sa:?} instead of {their_sa:?}");
    let was = |sa: &Value| sa.to_string().contains(r#"{"key":"remote-host","value":"192.168.0.1"}"#);
    ensure!(was(&sa.1) && was(&their_sa.1), "the section tells the SA as it was: {sa:?}");
    Ok(())
}
