//! A NAT that gets another address while tunnels cross it. Needs root and strongSwan.

use anyhow::{Result, ensure};
use harness::{Charon, Gateway, Site, StrongSwan, World, ping, wait_until};
use interop::{Case, LIMIT, Pair};

/// The NAT gets another outer address and forgets all mappings, as after a new dial-up.
fn renumber(world: &World) -> Result<()> {
    world.sh("nat", "ip address del 192.168.0.9/24 dev wan0 && ip address add 192.168.0.8/24 dev wan0").map(drop)
}

fn wait_for_pings(world: &World, from: &str, to: &str) -> Result<()> {
    wait_until(LIMIT, "pings after the NAT changed its address", || Ok(ping(world, from, to, 1)?.lossless()))
}

#[test]
fn our_new_address_reaches_the_peer_behind_whose_back_it_changed() -> Result<()> {
    let case = Case {
        ours: Site::HIDDEN_MOON,
        seen_as: Some("%any"),
        our_lines: "dpdaction = \"restart\"\ndpddelay = \"1s\"\n",
        ..Case::default()
    };
    let pair = Pair::start(World::left_behind_nat()?, case)?;
    pair.up_from_ours()?;
    pair.expect_ping("bob", Site::MOON.host4)?;
    renumber(&pair.world)?;
    wait_for_pings(&pair.world, "alice", Site::SUN.host4)?;
    wait_for_pings(&pair.world, "bob", Site::MOON.host4)?;
    // ESP is followed at once, IKE when our next probe has shown us that we are seen elsewhere (RFC 4555 §3.8).
    wait_until(LIMIT, "IKE at the new address", || Ok(pair.theirs.swanctl(&["--list-sas"])?.contains("192.168.0.8[")))
}

/// strongSwan at moon, behind the NAT.
fn hidden_peer(world: &World, folder: &std::path::Path) -> Result<StrongSwan> {
    let swanctl = "connections {
  net {
    version = 2
    local_addrs = 172.16.0.2
    remote_addrs = 192.168.0.2
    proposals = aes128gcm16-prfsha256-x25519
    local {
      auth = psk
      id = moon.example.org
    }
    remote {
      auth = psk
      id = sun.example.org
    }
    children {
      net {
        local_ts = 10.1.0.0/16
        remote_ts = 10.2.0.0/16
        esp_proposals = aes128gcm16
      }
    }
  }
}
secrets {
  ike-net {
    secret = \"a key\"
  }
}
";
    StrongSwan::start(world, "moon", folder, Charon { options: "keep_alive = 1s", ..Charon::default() }, swanctl)
}

/// We at sun, for anybody of `example.org`.
fn open_gateway(world: &World, folder: &std::path::Path) -> Result<Gateway> {
    let config = "[conn.net]
left = \"192.168.0.2\"
leftid = \"sun.example.org\"
leftsubnet = \"10.2.0.0/16\"
right = \"%any\"
rightid = \"*.example.org\"
rightsubnet = \"10.1.0.0/16\"
ike = \"aes128gcm16-prfsha256-x25519\"
esp = \"aes128gcm16\"
auto = \"add\"
";
    Gateway::start(world, "sun", folder, config, "[secret.net]\npsk = \"a key\"\n")
}

#[test]
fn a_peer_that_its_nat_renumbered_is_followed() -> Result<()> {
    let (world, folder) = (World::left_behind_nat()?, tempfile::tempdir()?);
    let ours = open_gateway(&world, folder.path())?;
    let theirs = hidden_peer(&world, folder.path())?;
    theirs.swanctl(&["--initiate", "--child", "net"])?;
    ensure!(ping(&world, "bob", Site::MOON.host4, 2)?.lossless(), "{}", ours.log());
    renumber(&world)?;
    wait_for_pings(&world, "alice", Site::SUN.host4)?;
    wait_for_pings(&world, "bob", Site::MOON.host4)?;
    // IKE follows as well: the request and its answer find the way.
    ours.expect_ctl(&["rekey", "net"])?;
    ours.expect_ctl(&["rekey", "net", "--child", "net"])?;
    ensure!(ping(&world, "bob", Site::MOON.host4, 2)?.lossless(), "{}", ours.log());
    let status = ours.expect_ctl(&["status"])?;
    ensure!(status.contains("192.168.0.8["), "{status}");
    Ok(())
}
