//! Certificates from `pki quick` to pings. Needs root; the test with swanctl needs strongswan-swanctl.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Case, LIMIT};
use harness::{Gateway, Site, World, built, finish, ping};

/// The CA and both gateways' folders, as the README makes them.
fn quick(out: &Path) -> Result<()> {
    let mut command = Command::new(built("pki")?);
    command.args(["quick", "--ca", "O=Example, CN=Example CA", "--out"]).arg(out);
    let output = finish({
        command.args(["moon.example.org", "sun.example.org"]);
        command
    })?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Copies a folder with all that is in it; files keep their modes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn expect_pings(world: &World, gateways: [&Gateway; 2]) -> Result<()> {
    for (from, to) in [(Site::MOON.host, Site::SUN.host4), (Site::SUN.host, Site::MOON.host6)] {
        let result = ping(world, from, to, 3)?;
        ensure!(result.lossless(), "{from} to {to}: {result:?}\n{}\n{}", gateways[0].log(), gateways[1].log());
    }
    Ok(())
}

/// What the README says: a folder for each gateway, and three lines, of which the tests' configuration has two already.
#[test]
fn what_pki_quick_makes_and_three_lines_bring_a_tunnel_up() -> Result<()> {
    let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
    let vpn = folder.path().join("vpn");
    quick(&vpn)?;
    let start = |here: Site, there: Site| -> Result<Gateway> {
        let name = format!("{}.example.org", here.gateway);
        copy(&vpn.join(&name), &folder.path().join(format!("gateway-{}", here.gateway)))?;
        let lines = format!("leftcert = \"{name}.pem\"\n");
        let toml = Case { lines: &lines, ..Case::default() }.toml(here, there);
        Gateway::start(&world, here.gateway, folder.path(), &toml, "")
    };
    let (sun, moon) = (start(Site::SUN, Site::MOON)?, start(Site::MOON, Site::SUN)?);
    moon.expect_ctl(&["up", "net"])?;
    expect_pings(&world, [&moon, &sun])?;
    let log = sun.log();
    ensure!(log.contains("certificate \"CN=moon.example.org\", CA \"O=Example, CN=Example CA\""), "{log}");
    Ok(())
}

fn swanctl_conf(here: Site, there: Site) -> String {
    format!(
        "connections {{
  net {{
    version = 2
    local_addrs = {}
    remote_addrs = {}
    local {{
      auth = pubkey
      certs = own.pem
      id = {}.example.org
    }}
    remote {{
      auth = ecdsa-256-sha256-sha384
      id = {}.example.org
      cacerts = ca.pem
    }}
    children {{
      net {{
        local_ts = {}, {}
        remote_ts = {}, {}
      }}
    }}
  }}
}}
",
        here.outer4, there.outer4, here.gateway, there.gateway, here.net4, here.net6, there.net4, there.net6
    )
}

/// `swanctl --load-all` with certificates in swanctl's own folders, at both ends; the daemons' files are empty.
#[test]
fn swanctl_loads_certificates_and_the_tunnel_comes_up() -> Result<()> {
    let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
    let vpn = folder.path().join("vpn");
    quick(&vpn)?;
    let start = |here: Site, there: Site| -> Result<(Gateway, std::path::PathBuf)> {
        let gateway = Gateway::start(&world, here.gateway, folder.path(), "", "")?;
        let own = folder.path().join(format!("swanctl-{}", here.gateway));
        for (kind, name) in [("x509", "own.pem"), ("x509ca", "ca.pem"), ("private", "own.pem")] {
            fs::create_dir_all(own.join(kind))?;
            let name_there = format!("{}.example.org.pem", here.gateway);
            let from = match kind {
                "x509" => Path::new("certs").join(&name_there),
                "x509ca" => "cacerts/ca.pem".into(),
                _ => Path::new("private").join(&name_there),
            };
            fs::copy(vpn.join(format!("{}.example.org", here.gateway)).join(from), own.join(kind).join(name))?;
        }
        fs::write(own.join("swanctl.conf"), swanctl_conf(here, there))?;
        swanctl(&gateway, &own, &["--load-all"])?;
        Ok((gateway, own))
    };
    let ((sun, _), (moon, own)) = (start(Site::SUN, Site::MOON)?, start(Site::MOON, Site::SUN)?);
    swanctl(&moon, &own, &["--initiate", "--child", "net"])?;
    sun.wait_status(LIMIT, "sun's side", |status| status.to_string().contains("INSTALLED"))?;
    expect_pings(&world, [&moon, &sun])?;
    let certificates = swanctl(&moon, &own, &["--list-certs"])?;
    ensure!(certificates.contains("has private key"), "{certificates}");
    Ok(())
}

fn swanctl(gateway: &Gateway, folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("swanctl");
    command.args(arguments).arg("--uri").arg(format!("unix://{}", gateway.socket().display()));
    command.env("SWANCTL_DIR", folder);
    let output = finish(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "swanctl {arguments:?}: {text}\n{}", gateway.log());
    Ok(text)
}
