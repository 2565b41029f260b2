//! Virtual addresses with Debian's strongSwan: we get them from its pools, and it gets them from ours. Needs root and strongSwan.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::{Charon, Gateway, Site, StrongSwan, World, ping, wait_until};
use interop::LIMIT;
use serde_json::Value;
use tempfile::TempDir;

/// We are in `moon`, strongSwan is in `sun`.
struct Two {
    ours: Gateway,
    theirs: StrongSwan,
    world: World,
    folder: TempDir,
}

impl Two {
    /// Starts both: `ours` are lines of our connection, `tables` further tables; `theirs` are lines of theirs, `child` of its
    /// child, `pools` their pools.
    fn start((ours, tables): (&str, &str), (theirs, child, pools): (&str, &str, &str)) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let world = World::two_sites()?;
        let swanctl = format!(
            "connections {{
  net {{
    version = 2
    local_addrs = 192.168.0.2
    proposals = aes128gcm16-prfsha256-x25519
    {theirs}
    local {{ auth = psk
      id = sun.example.org }}
    remote {{ auth = psk
      id = moon.example.org }}
    children {{
      net {{
        esp_proposals = aes128gcm16
        {child}
      }}
    }}
  }}
}}
pools {{
  {pools}
}}
secrets {{
  ike-net {{
    secret = \"a key\"
  }}
}}
"
        );
        let sun = StrongSwan::start(&world, "sun", folder.path(), Charon::default(), &swanctl)?;
        let config = format!(
            "[conn.net]
left = \"192.168.0.1\"
leftid = \"moon.example.org\"
right = \"192.168.0.2\"
rightid = \"sun.example.org\"
ike = \"aes128gcm16-prfsha256-x25519\"
esp = \"aes128gcm16\"
auto = \"add\"
retransmit_timeout = \"500ms\"
{ours}
{tables}
"
        );
        let moon = Gateway::start(&world, "moon", folder.path(), &config, "[secret.net]\npsk = \"a key\"\n")?;
        Ok(Self { ours: moon, theirs: sun, world, folder })
    }

    fn expect_ping(&self, from: &str, to: &str) -> Result<()> {
        let result = ping(&self.world, from, to, 3)?;
        let logs = || format!("--- ours\n{}--- theirs\n{}", self.ours.log(), self.theirs.log());
        ensure!(result.lossless(), "{from} to {to}: {result:?}\n{}", logs());
        Ok(())
    }

    /// The virtual addresses that our daemon shows of one end.
    fn addresses(&self, key: &str) -> Result<Vec<String>> {
        let status = self.ours.json(&["status"])?;
        let sas = status.pointer("/tunnels/net/ike-sas").and_then(Value::as_object).context("no IKE SA")?;
        let list = sas.values().next().and_then(|sa| sa.get(key)).and_then(Value::as_array);
        Ok(list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect())
    }

    /// Whether our interface has an address.
    fn has(&self, address: &str) -> Result<bool> {
        Ok(self.world.sh("moon", "ip -o addr show dev ipsec0")?.contains(&format!(" {address}/")))
    }

    /// Waits until charon has so many leases in use.
    fn wait_leases(&self, online: &str) -> Result<()> {
        wait_until(LIMIT, "strongSwan's leases", || {
            Ok(self.theirs.swanctl(&["--list-pools", "--raw"])?.contains(online))
        })
    }

    /// Runs stock swanctl against our daemon.
    fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let folder = self.folder.path().join("ours");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("swanctl.conf"), "")?;
        self.ours.swanctl(&folder, arguments).map(|(_, said)| said)
    }
}

const CLIENT: &str = "leftsourceip = [\"%config4\", \"%config6\"]\nrightsubnet = [\"10.2.0.0/16\", \"fec2::/64\"]";

const THEIR_SUBNETS: &str = "local_ts = 10.2.0.0/16, fec2::/64";

const THEIR_POOLS: &str = "rw { addrs = 10.3.0.0/28
    dns = 10.2.0.53 }
  rw6 { addrs = fec3::/120 }";

/// A script that writes down what it is told.
fn updown(folder: &Path) -> Result<(String, PathBuf)> {
    let (script, told) = (folder.join("updown"), folder.join("told"));
    let text = format!(
        "#!/bin/sh\necho $PLUTO_VERB $PLUTO_MY_SOURCEIP4_1 $PLUTO_MY_SOURCEIP6_1 $PLUTO_DNS4_1 >>{}\n",
        told.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok((script.display().to_string(), told))
}

#[test]
fn we_get_addresses_of_strongswans_pools_and_keep_them() -> Result<()> {
    let scripts = tempfile::tempdir()?;
    let (script, told) = updown(scripts.path())?;
    let lines = format!("{CLIENT}\nupdown = \"{script}\"");
    let two = Two::start((&lines, ""), ("pools = rw, rw6", THEIR_SUBNETS, THEIR_POOLS))?;
    two.ours.expect_ctl(&["up", "net"])?;
    let given = ["10.3.0.1", "fec3::1"];
    ensure!(two.addresses("local-vips")? == given, "{:?}\n{}", two.addresses("local-vips"), two.theirs.log());
    for address in given {
        ensure!(two.has(address)?, "{address} is not on the interface");
    }
    // What we send ourselves comes from the address, and what is sent to it finds us.
    two.expect_ping("moon", Site::SUN.host4)?;
    two.expect_ping("moon", Site::SUN.host6)?;
    two.expect_ping("bob", given[0])?;
    two.wait_leases("online=1")?;
    for arguments in [&["rekey", "net"][..], &["rekey", "net", "--child", "net"], &["rekey", "net", "--reauth"]] {
        two.ours.expect_ctl(arguments)?;
        ensure!(two.addresses("local-vips")? == given, "{arguments:?}: {:?}", two.addresses("local-vips"));
        two.expect_ping("moon", Site::SUN.host4)?;
    }
    two.ours.expect_ctl(&["down", "net"])?;
    for address in given {
        wait_until(LIMIT, "our address to go", || Ok(!two.has(address)?))?;
    }
    two.wait_leases("online=0 offline=1")?;
    wait_until(LIMIT, "the script's last words", || Ok(fs::read_to_string(&told)?.contains("down-client-v6")))?;
    let told = fs::read_to_string(&told)?;
    ensure!(told.contains("up-client 10.3.0.1 fec3::1 10.2.0.53"), "{told}");
    two.ours.expect_ctl(&["up", "net"])?;
    ensure!(two.addresses("local-vips")? == given, "the same ones again");
    Ok(())
}

#[test]
fn what_strongswan_does_not_give_is_named() -> Result<()> {
    let case = |ours: &str, theirs: &str| -> Result<String> {
        let two = Two::start((ours, ""), (theirs, THEIR_SUBNETS, THEIR_POOLS))?;
        ensure!(two.ours.expect_ctl(&["up", "net"]).is_err(), "it is up");
        Ok(two.ours.ctl(&["explain", "net"])?.stdout)
    };
    let refused = case(CLIENT, "")?;
    ensure!(refused.contains("CP_ADDRESS_REFUSED") && refused.contains("leftsourceip"), "{refused}");
    let required = case("rightsubnet = \"10.2.0.0/16\"", "pools = rw")?;
    ensure!(required.contains("CP_REQUIRED") && required.contains("leftsourceip = \"%config\""), "{required}");
    Ok(())
}

const OUR_POOLS: &str = "[pool.rw]
addrs = \"10.3.0.0/28\"
dns = \"10.1.0.53\"
domain = \"corp.example\"
[pool.rw6]
addrs = \"fec3::/120\"
";

const GATEWAY: &str = "leftsubnet = [\"10.1.0.0/16\", \"fec1::/64\"]\nrightsourceip = [\"%rw\", \"%rw6\"]";

const THEY_ASK: &str = "remote_addrs = 192.168.0.1\n    vips = 0.0.0.0, ::";

#[test]
fn strongswan_gets_addresses_of_our_pools_and_keeps_them() -> Result<()> {
    let two = Two::start((GATEWAY, OUR_POOLS), (THEY_ASK, "remote_ts = 10.1.0.0/16, fec1::/64", ""))?;
    let up = || two.theirs.swanctl(&["--initiate", "--child", "net"]).with_context(|| two.ours.log());
    up()?;
    let given = ["10.3.0.1", "fec3::1"];
    ensure!(two.addresses("remote-vips")? == given, "{:?}", two.addresses("remote-vips"));
    two.expect_ping("sun", Site::MOON.host4)?;
    two.expect_ping("sun", Site::MOON.host6)?;
    two.expect_ping("alice", given[0])?;
    let ours = two.swanctl(&["--list-sas", "--raw"])?;
    let theirs = two.theirs.swanctl(&["--list-sas", "--raw"])?;
    ensure!(ours.contains(" remote-vips=[10.3.0.1 fec3::1] child-sas"), "{ours}");
    ensure!(theirs.contains(" local-vips=[10.3.0.1 fec3::1] child-sas"), "{theirs}");
    let leases = two.swanctl(&["--list-pools", "--leases"])?;
    ensure!(leases.contains("10.3.0.1") && leases.contains("online") && leases.contains("sun.example.org"), "{leases}");
    for arguments in [&["--rekey", "--ike", "net"][..], &["--rekey", "--ike", "net", "--reauth"]] {
        two.theirs.swanctl(arguments)?;
        two.ours.wait_status(LIMIT, "the SA to be renewed", |status| {
            let text = status.to_string();
            text.contains("ESTABLISHED") && text.contains("INSTALLED") && text.contains("10.3.0.1/32")
        })?;
        wait_until(LIMIT, "the address over the new SA", || {
            Ok(two.addresses("remote-vips").is_ok_and(|own| own == given))
        })?;
        wait_until(LIMIT, "traffic over the new SA", || Ok(ping(&two.world, "sun", Site::MOON.host4, 1)?.lossless()))?;
    }
    two.theirs.swanctl(&["--terminate", "--ike", "net"])?;
    let pools = two.swanctl(&["--list-pools", "--raw"])?;
    ensure!(pools.contains("rw {base=10.3.0.0 size=14 online=0 offline=1"), "{pools}");
    up()?;
    ensure!(two.addresses("remote-vips")? == given, "the same ones again");
    Ok(())
}

#[test]
fn strongswan_understands_that_there_is_no_address() -> Result<()> {
    for (ours, asks, told) in [
        ("rightsourceip = \"fec3::/120\"", "vips = 0.0.0.0", "received INTERNAL_ADDRESS_FAILURE notify"),
        ("rightsourceip = \"10.3.0.1\"", "", "received FAILED_CP_REQUIRED notify"),
    ] {
        let theirs = format!("remote_addrs = 192.168.0.1\n    {asks}");
        let ours = format!("leftsubnet = \"10.1.0.0/16\"\n{ours}");
        let two = Two::start((&ours, ""), (&theirs, "remote_ts = 10.1.0.0/16", ""))?;
        ensure!(two.theirs.swanctl(&["--initiate", "--child", "net"]).is_err(), "it is up");
        ensure!(two.theirs.log().contains(told), "{}", two.theirs.log());
        let explained = two.ours.ctl(&["explain", "net"])?.stdout;
        ensure!(explained.contains("CP_NO_POOL") || explained.contains("CP_REQUIRED"), "{explained}");
    }
    Ok(())
}
