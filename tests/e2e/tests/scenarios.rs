//! Every example of `etc/examples`: its files are what the daemon accepts, `charonctl lab` runs them, and tshark sees on the
//! wire what the lab says it saw. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{built, finish, tshark};
use serde_json::Value;

#[test]
fn net_to_net() -> Result<()> {
    play("net-to-net", &["eth:ethertype:ip:esp"])
}

#[test]
fn certificates() -> Result<()> {
    play("certificates", &["eth:ethertype:ip:esp"])
}

#[test]
fn nat() -> Result<()> {
    play("nat", &["eth:ethertype:ip:udp:udpencap:esp"])
}

#[test]
fn transport() -> Result<()> {
    play("transport", &["eth:ethertype:ip:esp", "eth:ethertype:ipv6:esp"])
}

#[test]
fn v6_in_v4() -> Result<()> {
    play("v6-in-v4", &["eth:ethertype:ip:esp"])
}

#[test]
fn v4_in_v6() -> Result<()> {
    play("v4-in-v6", &["eth:ethertype:ipv6:esp"])
}

#[test]
fn ipsec() -> Result<()> {
    play("ipsec", &["eth:ethertype:ip:esp"])
}

#[test]
fn ipip() -> Result<()> {
    play("ipip", &["eth:ethertype:ip:esp"])
}

#[test]
fn ipip_tunnel() -> Result<()> {
    play("ipip-tunnel", &["eth:ethertype:ip:esp"])
}

#[test]
fn every_scenario_is_listed_and_has_a_test() -> Result<()> {
    let mut command = Command::new(built("charonctl")?);
    command.args(["--json", "lab", "--scenario", "list"]);
    let listed: Value = serde_json::from_slice(&finish(command)?.stdout)?;
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios.rs"))?;
    let listed = listed.as_array().context("a list")?;
    ensure!(!listed.is_empty());
    for scenario in listed {
        let name = scenario["name"].as_str().context("a name")?;
        ensure!(source.contains(&format!("play(\"{name}\"")), "`{name}` has no test");
    }
    Ok(())
}

/// Checks the files of an example, runs it, and has tshark look at the capture: each of `protocols`, as tshark writes them,
/// must be there, and nothing else but IKE, ARP and neighbour discovery.
fn play(name: &str, protocols: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    check(name, folder.path())?;
    let out = folder.path().join("out");
    let mut command = Command::new(built("charonctl")?);
    command.args(["--json", "lab", "--scenario", name, "--out"]).arg(&out);
    let output = finish(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| said.to_string())?;
    ensure!(output.status.success() && report["passed"] == true, "{report:#}\n{said}");
    // A packet was followed out of one gateway and into another, and its answer back.
    let traces = report["traces"].as_array().context("traces")?;
    let ended = |step: &str| {
        let last = |trace: &&Value| trace["steps"].as_array().and_then(|steps| steps.last()) == Some(&step.into());
        traces.iter().filter(last).count()
    };
    ensure!(ended("sent") >= 2 && ended("to_inside") >= 2, "{traces:#?}");
    let seen = tshark(&out.join("capture.pcap"), None, "frame", &["frame.protocols"])?;
    for wanted in protocols {
        ensure!(seen.iter().flatten().any(|seen| seen == wanted), "no {wanted}: {seen:?}");
    }
    let usual = ["eth:ethertype:arp", "eth:ethertype:ip:udp:isakmp", "eth:ethertype:ipv6:udp:isakmp"];
    let usual_beginnings = [
        "eth:ethertype:ip:udp:isakmp:",
        "eth:ethertype:ipv6:udp:isakmp:",
        "eth:ethertype:ip:udp:udpencap:isakmp",
        "eth:ethertype:ipv6:udp:udpencap:isakmp",
        "eth:ethertype:ipv6:icmpv6",
        "eth:ethertype:ipv6:ipv6.hopopts:icmpv6",
    ];
    for seen in seen.iter().flatten() {
        let expected = protocols.contains(&seen.as_str()) || usual.contains(&seen.as_str());
        ensure!(expected || usual_beginnings.iter().any(|usual| seen.starts_with(usual)), "{seen} on the wire");
    }
    Ok(())
}

/// Has `charonctl check` read the configuration of each gateway, with the secrets as private as they must be.
fn check(name: &str, folder: &Path) -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/examples").join(name);
    let secrets = folder.join("ipsec.secrets.toml");
    let text = if example.join("secrets.toml").exists() { fs::read(example.join("secrets.toml"))? } else { Vec::new() };
    fs::write(&secrets, text)?;
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600))?;
    let mut checked = 0;
    for entry in fs::read_dir(&example)? {
        let file = entry?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if ["secrets.toml", "scenario.toml"].contains(&name) {
            continue;
        }
        // Certificates are made by the lab, and lie beside the file where it is used.
        let copy = folder.join("ipsec.toml");
        fs::copy(&file, &copy)?;
        let mut command = Command::new(built("charonctl")?);
        command.arg("check").arg(&copy).arg("--secrets").arg(&secrets);
        let output = finish(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let certificates_missing = name_of(&example) == "certificates" && said.contains("moon.example.org.pem");
        ensure!(output.status.success() || certificates_missing, "{}: {said}", file.display());
        checked += 1;
    }
    ensure!(checked >= 2, "{} has {checked} configurations", example.display());
    Ok(())
}

fn name_of(folder: &Path) -> &str {
    folder.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
