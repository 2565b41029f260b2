//! The front door: `charonctl lab` as people run it, with real daemons in real namespaces.

#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal};
use serde_json::Value;

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_charonctl"));
    command.arg("lab").args(arguments);
    command
}

/// Says that a test cannot run for want of privileges, which in CI is a failure.
fn skipped(why: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test makes network namespaces: {why}");
    eprintln!("skipped: {why}");
}

/// What a lab gave, or nothing on a machine that allows no namespaces.
fn run(arguments: &[&str]) -> Option<Output> {
    let directory = tempfile::tempdir().unwrap();
    let output = lab(arguments).args(["--duration", "1", "--out"]).arg(directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("not root, and") {
        skipped(&said);
        return None;
    }
    Some(output)
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn failed_checks(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().filter(|check| check["passed"] == false).map(|check| check["name"].as_str().unwrap()).collect()
}

#[test]
fn traffic_crosses_encrypted() {
    let Some(output) = run(&["--json"]) else { return };
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(failed_checks(&report), [""; 0]);
    let sa = &report["gateways"][0]["sas"][0];
    assert_eq!(sa["algorithms"], "AES_GCM_16-256, PRF_HMAC_SHA2_256, MODP_2048");
    assert_eq!(sa["children"][0]["algorithms"], "AES_GCM_16-256");
    assert_eq!(sa["children"][0]["esn"], true);
    assert_eq!(sa["initiator_nonce"].as_str().unwrap().len(), 64);
    assert!(report["transfer"]["octets"].as_u64().unwrap() > 1_000_000);
    assert_eq!((&report["wire"]["leaks"], &report["wire"]["ike"]), (&0.into(), &4.into()));
}

#[test]
fn transport_mode_and_udp_encapsulation_with_other_suites_work_too() {
    let arguments = [
        "--json",
        "--mode",
        "transport",
        "--encap",
        "--ike",
        "aes128-sha256-x25519",
        "--esp",
        "aes128-sha256",
        "--psk",
        "x",
    ];
    let Some(output) = run(&arguments) else { return };
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    let child = &report["gateways"][1]["sas"][0]["children"][0];
    assert_eq!((&child["mode"], &child["in_udp"]), (&"TRANSPORT".into(), &true.into()));
    assert_eq!(child["algorithms"], "AES_CBC-128, HMAC_SHA2_256_128");
}

#[test]
fn a_tunnel_that_does_not_encrypt_is_found_out() {
    let Some(output) = run(&["--json", "--esp", "null-sha256"]) else { return };
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(failed_checks(&report), ["no inner packet is readable on the wire"]);
}

#[test]
fn a_bad_proposal_is_refused_before_anything_is_built() {
    let output = lab(&["--ike", "aes257-sha256"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("aes257"));
}

#[test]
fn an_interrupted_lab_leaves_nothing_running() {
    let directory = tempfile::tempdir().unwrap();
    let mut lab = lab(&["--duration", "60", "--out"]);
    let mut lab = lab.arg(directory.path()).stderr(Stdio::piped()).spawn().unwrap();
    let Some(daemons) = daemons_under_way(&mut lab) else { return };
    assert!(daemons.iter().all(|pid| Path::new("/proc").join(pid).exists()));
    rustix::process::kill_process(Pid::from_child(&lab), Signal::INT).unwrap();
    assert_eq!(lab.wait().unwrap().code(), Some(130));
    assert!(daemons.iter().all(|pid| !Path::new("/proc").join(pid).exists()), "{daemons:?}");
}

/// Reads what the lab says until the tunnel is in use; gives the process ids of the daemons.
fn daemons_under_way(lab: &mut Child) -> Option<Vec<String>> {
    let mut daemons = None;
    for line in BufReader::new(lab.stderr.take().unwrap()).lines().map(Result::unwrap) {
        if line.contains("not root, and") {
            skipped(&line);
            assert_eq!(lab.wait().unwrap().code(), Some(1));
            return None;
        }
        if let Some((_, pids)) = line.split_once("pids") {
            let numbers = pids.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
            daemons = Some(numbers.take(2).map(str::to_owned).collect());
        }
        if line.contains("Pinging fec3::2") {
            return daemons;
        }
    }
    panic!("the lab ended by itself: {}", lab.wait().unwrap());
}
