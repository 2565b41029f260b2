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
fn road_warrior() -> Result<()> {
    play("road-warrior", &["eth:ethertype:ip:esp"])
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
fn manual_tunnel() -> Result<()> {
    play("manual-tunnel", &["eth:ethertype:ip:esp"])
}

#[test]
fn manual_transport() -> Result<()> {
    play("manual-transport", &["eth:ethertype:ip:esp"])
}

#[test]
fn bypass_discard() -> Result<()> {
    play("bypass-discard", &["eth:ethertype:ip:esp", "eth:ethertype:ip:tcp"])
}

#[test]
fn ah() -> Result<()> {
    play("ah", &["eth:ethertype:ip:ah:ip:icmp", "eth:ethertype:ip:ah:ip:tcp"])
}

#[test]
fn nat_filter() -> Result<()> {
    play("nat-filter", &["eth:ethertype:ip:esp", "eth:ethertype:ip:icmp"])
}

#[test]
fn gre() -> Result<()> {
    play("gre", &["eth:ethertype:ip:esp"])
}

#[test]
fn gre_teb() -> Result<()> {
    play("gre-teb", &["eth:ethertype:ip:esp"])
}

#[test]
fn mgre() -> Result<()> {
    play("mgre", &["eth:ethertype:ip:esp"])
}

#[test]
fn vxlan() -> Result<()> {
    play("vxlan", &["eth:ethertype:ip:esp"])
}

#[test]
fn l2tpv3() -> Result<()> {
    play("l2tpv3", &["eth:ethertype:ip:esp"])
}

#[test]
fn l2tpv3_v6() -> Result<()> {
    play("l2tpv3-v6", &["eth:ethertype:ipv6:esp"])
}

#[test]
fn ipip_plain() -> Result<()> {
    play("ipip-plain", &["eth:ethertype:ip:ip"])
}

#[test]
fn gre_plain() -> Result<()> {
    play("gre-plain", &["eth:ethertype:ip:gre:ip"])
}

#[test]
fn vxlan_plain() -> Result<()> {
    play("vxlan-plain", &["eth:ethertype:ip:udp:vxlan:eth"])
}

#[test]
fn l2tpv3_plain() -> Result<()> {
    play("l2tpv3-plain", &["eth:ethertype:ip:l2tp"])
}

#[test]
fn vxlan_bridge() -> Result<()> {
    play("vxlan-bridge", &["eth:ethertype:ip:esp"])
}

#[test]
fn pseudowire() -> Result<()> {
    play("pseudowire", &["eth:ethertype:ip:esp"])
}

#[test]
fn gre_over_vxlan() -> Result<()> {
    play(
        "gre-over-vxlan",
        &["eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:esp", "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:udp"],
    )
}

#[test]
fn every_scenario_is_listed_and_has_a_test() -> Result<()> {
    let mut command = Command::new(built("charonctl")?);
    command.args(["--json", "lab", "--scenario", "list"]);
    let listed: Value = serde_json::from_slice(&finish(command)?.stdout)?;
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios.rs"))?;
    let source: String = source.split_whitespace().collect();
    let listed = listed.as_array().context("a list")?;
    ensure!(!listed.is_empty());
    for scenario in listed {
        let name = scenario["name"].as_str().context("a name")?;
        ensure!(source.contains(&format!("play(\"{name}\"")), "`{name}` has no test");
    }
    Ok(())
}

/// Checks the files of an example, runs it, and has tshark look at the capture: each of `protocols`, as tshark writes them from
/// the outside on, must be there, and nothing else but IKE, ARP and neighbour discovery.
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
    let sent = ended("sent") + ended("sent_in_clear");
    ensure!(sent >= 2 && ended("to_inside") >= 2, "{traces:#?}");
    let seen = tshark(&out.join("capture.pcap"), None, "frame", &["frame.protocols"])?;
    for wanted in protocols {
        ensure!(seen.iter().flatten().any(|seen| seen.starts_with(wanted)), "no {wanted}: {seen:?}");
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
        let expected = protocols.iter().any(|wanted| seen.starts_with(wanted)) || usual.contains(&seen.as_str());
        ensure!(expected || usual_beginnings.iter().any(|usual| seen.starts_with(usual)), "{seen} on the wire");
    }
    Ok(())
}

/// Has `charonctl check` read the configuration of each gateway, in a folder as the gateway has it: secrets as private as they
/// must be, and certificates where the example names some.
fn check(name: &str, folder: &Path) -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/examples").join(name);
    let mut checked = 0;
    for entry in fs::read_dir(&example)? {
        let file = entry?.path();
        let gateway = file.file_stem().and_then(|name| name.to_str()).context("a file with a name")?;
        if ["secrets", "scenario"].contains(&gateway) {
            continue;
        }
        let own = folder.join(gateway);
        fs::create_dir(&own)?;
        fs::copy(&file, own.join("ipsec.toml"))?;
        if example.join("secrets.toml").exists() {
            let secrets = own.join("ipsec.secrets.toml");
            fs::copy(example.join("secrets.toml"), &secrets)?;
            fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600))?;
        }
        if fs::read_to_string(&file)?.contains("\nleftcert") {
            equip(folder, gateway, &own)?;
        }
        let mut command = Command::new(built("charonctl")?);
        command.arg("check").arg(own.join("ipsec.toml"));
        let output = finish(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{}: {said}", file.display());
        checked += 1;
    }
    ensure!(checked >= 2, "{} has {checked} configurations", example.display());
    Ok(())
}

/// Gives a gateway a certificate as the example says: with `pki quick`, whose second run uses the CA of the first.
fn equip(folder: &Path, gateway: &str, own: &Path) -> Result<()> {
    let (vpn, name) = (folder.join("vpn"), format!("{gateway}.example.org"));
    let mut command = Command::new(built("pki")?);
    command.args(["quick", "--ca", "O=Example, CN=Example CA", "--out"]).arg(&vpn).arg(&name);
    ensure!(finish(command)?.status.success(), "pki quick");
    for kind in ["certs", "private", "cacerts"] {
        fs::rename(vpn.join(&name).join(kind), own.join(kind))?;
    }
    Ok(())
}
