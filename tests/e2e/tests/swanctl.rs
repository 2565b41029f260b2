//! Debian's own swanctl at our control socket. Needs root and strongswan-swanctl.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::{Case, Twins};
use harness::{Gateway, finish};

fn swanctl(gateway: &Gateway, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new("swanctl");
    command.args(arguments).arg("--uri").arg(format!("unix://{}", gateway.socket().display()));
    let output = finish(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), text))
}

#[test]
fn swanctl_initiates_lists_rekeys_and_terminates() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    let (done, text) = swanctl(&twins.moon, &["--initiate", "--child", "net"])?;
    ensure!(done && text.contains("initiate completed successfully"), "{text}");
    twins.expect_pings()?;
    let (done, text) = swanctl(&twins.moon, &["--list-sas"])?;
    for wanted in [
        "net: #1, ESTABLISHED, IKEv2",
        "moon.example.org",
        "AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519",
        "INSTALLED, TUNNEL",
        "ESP:AES_GCM_16-256",
        "10.1.0.0/16",
        "fec2::/64",
    ] {
        ensure!(done && text.contains(wanted), "`{wanted}` is not in {text}");
    }
    let (done, text) = swanctl(&twins.moon, &["--list-sas", "--raw"])?;
    ensure!(
        done && text.contains("list-sa event {net {uniqueid=1 version=2 state=ESTABLISHED local-host=192.168.0.1"),
        "{text}"
    );
    let (done, text) = swanctl(&twins.moon, &["--list-conns"])?;
    ensure!(done && text.contains("net: IKEv2"), "{text}");
    let (done, text) = swanctl(&twins.moon, &["--rekey", "--child", "net"])?;
    ensure!(done && text.contains("rekey completed successfully"), "{text}");
    twins.expect_pings()?;
    let (done, text) = swanctl(&twins.moon, &["--stats"])?;
    ensure!(done && text.contains("uptime") && text.contains("IKE_SAs: 1 total"), "{text}");
    let (done, text) = swanctl(&twins.moon, &["--version"])?;
    ensure!(done, "{text}");
    let (done, text) = swanctl(&twins.moon, &["--terminate", "--ike", "net"])?;
    ensure!(done && text.contains("terminate completed successfully"), "{text}");
    let (done, text) = swanctl(&twins.moon, &["--list-sas"])?;
    ensure!(done && !text.contains("net"), "{text}");
    Ok(())
}

#[test]
fn swanctl_is_told_why_something_did_not_work() -> Result<()> {
    let twins = Twins::start(Case { moon_lines: "retransmit_tries = 1\n", ..Case::default() })?;
    let (done, text) = swanctl(&twins.moon, &["--initiate", "--child", "nothing"])?;
    ensure!(!done && text.contains("not found"), "{text}");
    let mut twins = twins;
    twins.sun.kill()?;
    let (done, text) = swanctl(&twins.moon, &["--initiate", "--child", "net"])?;
    ensure!(!done && text.contains("initiate failed"), "{text}");
    Ok(())
}
