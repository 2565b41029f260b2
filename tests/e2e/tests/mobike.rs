//! Gateways that change their addresses under a tunnel. Needs root.

use anyhow::{Context, Result, ensure};
use e2e::{Case, LIMIT, SECRETS, Twins};
use harness::{Gateway, Site, World, ping, wait_until};
use serde_json::Value;

/// Both gateways; the left one may come from anywhere.
fn mobile_twins(world: World, lines: &str) -> Result<Twins> {
    let case = Case { lines, ..Case::default() };
    let folder = tempfile::tempdir()?;
    let sun = case.toml(Site::SUN, Site::MOON).replace("right = \"192.168.0.1\"", "right = \"%any\"");
    let moon = case.toml(Site::MOON, Site::SUN).replace("left = \"192.168.0.1\"\n", "");
    let sun = Gateway::start(&world, "sun", folder.path(), &sun, SECRETS)?;
    let moon = Gateway::start(&world, "moon", folder.path(), &moon, SECRETS)?;
    let twins = Twins { moon, sun, world, folder };
    twins.up()?;
    twins.expect_ping("alice", Site::SUN.host4)?;
    Ok(twins)
}

/// The value of a key, wherever it stands first.
fn find(status: &Value, key: &str) -> Option<String> {
    match status {
        Value::Object(entries) => entries
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| entries.values().find_map(|value| find(value, key))),
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// The SPIs of the IKE SA and of its child.
fn names(gateway: &Gateway) -> Result<[String; 3]> {
    let status = gateway.json(&["status"])?;
    let get = |key| find(&status, key).with_context(|| format!("no {key} in {status:#}"));
    Ok([get("initiator-spi")?, get("responder-spi")?, get("spi-in")?])
}

fn wait_for_peer(twins: &Twins, at: &str, encapsulated: bool) -> Result<()> {
    twins.sun.wait_status(LIMIT, &format!("the peer at {at}"), |status| {
        find(status, "remote-host").as_deref() == Some(at)
            && status.to_string().contains("\"encap\":true") == encapsulated
    })
}

fn wait_for_pings(twins: &Twins) -> Result<()> {
    wait_until(LIMIT, "pings after the move", || Ok(ping(&twins.world, "alice", Site::SUN.host4, 1)?.lossless()))?;
    twins.expect_ping("alice", Site::SUN.host4)?;
    twins.expect_ping("bob", Site::MOON.host4)
}

#[test]
fn a_gateway_that_changes_its_address_keeps_its_tunnel() -> Result<()> {
    let twins = mobile_twins(World::two_sites()?, "")?;
    let before = names(&twins.moon)?;
    for (old, new) in [("192.168.0.1", "192.168.0.3"), ("192.168.0.3", "192.168.0.4")] {
        twins.world.sh("moon", &format!("ip addr del {old}/24 dev wan0 && ip addr add {new}/24 dev wan0"))?;
        wait_for_peer(&twins, new, false)?;
        wait_for_pings(&twins)?;
    }
    ensure!(names(&twins.moon)? == before, "the SAs are others now: {}", twins.moon.log());
    let log = twins.moon.log();
    ensure!(log.matches("IKE_AUTH request").count() == 1 && !log.contains("CREATE_CHILD_SA request"), "{log}");
    Ok(())
}

#[test]
fn a_gateway_that_is_offline_for_a_while_comes_back_with_its_tunnel() -> Result<()> {
    let twins = mobile_twins(World::two_sites()?, "")?;
    let before = names(&twins.moon)?;
    twins.world.sh("moon", "ip addr del 192.168.0.1/24 dev wan0")?;
    wait_until(LIMIT, "the loss of the address to be noticed", || {
        Ok(twins.moon.log().contains("no way to 192.168.0.2"))
    })?;
    twins.expect_silence()?;
    twins.world.sh("moon", "ip addr add 192.168.0.5/24 dev wan0")?;
    wait_for_peer(&twins, "192.168.0.5", false)?;
    wait_for_pings(&twins)?;
    ensure!(names(&twins.moon)? == before, "the SAs are others now: {}", twins.moon.log());
    Ok(())
}

/// Only 172.16.0.2 is behind the NAT; other addresses of the same network are seen as they are.
#[test]
fn a_nat_disappears_and_appears_again() -> Result<()> {
    let world = World::left_behind_nat()?;
    world.sh(
        "nat",
        "nft flush chain ip nat post && nft add rule ip nat post ip saddr 172.16.0.2 oifname wan0 masquerade",
    )?;
    world.sh("sun", "ip route add 172.16.0.0/24 via 192.168.0.9")?;
    let twins = mobile_twins(world, "")?;
    let before = names(&twins.moon)?;
    wait_for_peer(&twins, "192.168.0.9", true)?;
    let go = |old: &str, new: &str| {
        let line = format!(
            "ip addr del {old}/24 dev wan0 && ip addr add {new}/24 dev wan0 && ip route add default via 172.16.0.1"
        );
        twins.world.sh("moon", &line).map(drop)
    };
    go("172.16.0.2", "172.16.0.3")?;
    wait_for_peer(&twins, "172.16.0.3", false)?;
    wait_for_pings(&twins)?;
    go("172.16.0.3", "172.16.0.2")?;
    wait_for_peer(&twins, "192.168.0.9", true)?;
    wait_for_pings(&twins)?;
    ensure!(names(&twins.moon)? == before, "the SAs are others now: {}", twins.moon.log());
    Ok(())
}

#[test]
fn a_responder_that_changes_its_address_takes_the_tunnel_along() -> Result<()> {
    let world = World::two_sites()?;
    let (case, folder) = (Case::default(), tempfile::tempdir()?);
    let sun = case.toml(Site::SUN, Site::MOON).replace("left = \"192.168.0.2\"\n", "");
    let sun = Gateway::start(&world, "sun", folder.path(), &sun, SECRETS)?;
    let moon = Gateway::start(&world, "moon", folder.path(), &case.toml(Site::MOON, Site::SUN), SECRETS)?;
    let twins = Twins { moon, sun, world, folder };
    twins.up()?;
    twins.expect_pings()?;
    let before = names(&twins.moon)?;
    twins.world.sh("sun", "ip addr del 192.168.0.2/24 dev wan0 && ip addr add 192.168.0.7/24 dev wan0")?;
    twins.moon.wait_status(LIMIT, "the peer's new address", |status| {
        find(status, "remote-host").as_deref() == Some("192.168.0.7")
    })?;
    wait_for_pings(&twins)?;
    ensure!(names(&twins.moon)? == before, "the SAs are others now: {}", twins.moon.log());
    Ok(())
}
