//! Starting, rekeying, failing, ending. Needs root.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Case, LIMIT, SECRETS, Twins};
use harness::{Gateway, PingStream, Site, World, wait_until};

#[test]
fn lifetimes_of_seconds_lose_no_packet() -> Result<()> {
    let lines = "ikelifetime = \"7s\"\nlifetime = \"5s\"\nmargintime = \"2s\"\nrekeyfuzz = \"50%\"";
    let twins = Twins::start(Case { lines, ..Case::default() })?;
    twins.up()?;
    twins.expect_pings()?;
    let streams = [
        PingStream::start(&twins.world, "alice", Site::SUN.host4)?,
        PingStream::start(&twins.world, "bob", Site::MOON.host4)?,
    ];
    let rekeyed = |gateway: &Gateway, what: &str| gateway.log().matches(what).count();
    wait_until(Duration::from_secs(60), "several rekeyings", || {
        Ok(rekeyed(&twins.moon, "Child SA rekeyed") >= 4 && rekeyed(&twins.moon, "IKE SA rekeyed") >= 2)
    })?;
    for stream in streams {
        let result = stream.stop()?;
        ensure!(result.lossless(), "{result:?}\n--- moon\n{}\n--- sun\n{}", twins.moon.log(), twins.sun.log());
    }
    Ok(())
}

#[test]
fn the_end_of_a_daemon_leaves_nothing_behind_and_tells_the_peer() -> Result<()> {
    let moon_lines = "[daemon]\nguard = \"while-running\"\n";
    let mut twins = Twins::start(Case { moon_lines, ..Case::default() })?;
    twins.up()?;
    twins.expect_pings()?;
    let status = twins.moon.stop()?;
    ensure!(status.success(), "{status}: {}", twins.moon.log());
    let left = twins.world.sh(
        "moon",
        "ip -o link; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft list ruleset",
    )?;
    ensure!(
        !left.contains("ipsec0")
            && !left.contains("10.2.0.0/16")
            && !left.contains("fwmark")
            && !left.contains("charon-rs"),
        "left behind: {left}"
    );
    twins.sun.wait_status(LIMIT, "the deletion by the peer", |status| !status.to_string().contains("INSTALLED"))
}

#[test]
fn a_peer_that_died_is_noticed_and_brought_back() -> Result<()> {
    let moon_lines = "dpddelay = \"1s\"\ndpdaction = \"restart\"\nretransmit_tries = 2\n";
    let case = Case { moon_lines, ..Case::default() };
    let mut twins = Twins::start(case)?;
    twins.up()?;
    twins.expect_pings()?;
    twins.sun.kill()?;
    twins.moon.wait_status(LIMIT, "the peer's death", |status| !status.to_string().contains("INSTALLED"))?;
    twins.expect_silence()?;
    twins.sun = Gateway::start(&twins.world, "sun", twins.folder.path(), &case.toml(Site::SUN, Site::MOON), SECRETS)?;
    twins.moon.wait_status(LIMIT, "the tunnel's return", |status| status.to_string().contains("INSTALLED"))?;
    twins.expect_pings()
}

#[test]
fn a_tunnel_that_should_be_up_waits_for_its_peer() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let case = Case::default();
    let toml = case.toml(Site::MOON, Site::SUN).replace("auto = \"add\"", "auto = \"start\"\nretransmit_tries = 1");
    let moon = Gateway::start(&world, "moon", folder.path(), &toml, SECRETS)?;
    wait_until(LIMIT, "a first attempt that fails", || Ok(moon.log().contains("PEER_SILENT")))?;
    let sun = Gateway::start(&world, "sun", folder.path(), &case.toml(Site::SUN, Site::MOON), SECRETS)?;
    let twins = Twins { moon, sun, world, folder };
    twins.moon.wait_status(LIMIT, "the tunnel", |status| status.to_string().contains("INSTALLED"))?;
    twins.expect_pings()
}

#[test]
fn the_first_packet_brings_a_routed_tunnel_up() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let case = Case::default();
    let toml = case.toml(Site::MOON, Site::SUN).replace("auto = \"add\"", "auto = \"route\"");
    let sun = Gateway::start(&world, "sun", folder.path(), &case.toml(Site::SUN, Site::MOON), SECRETS)?;
    let moon = Gateway::start(&world, "moon", folder.path(), &toml, SECRETS)?;
    let twins = Twins { moon, sun, world, folder };
    // The packet that starts it may be lost; what matters is that no command was needed.
    harness::ping(&twins.world, "alice", Site::SUN.host4, 1)?;
    twins.moon.wait_status(LIMIT, "the tunnel", |status| status.to_string().contains("INSTALLED"))?;
    twins.expect_pings()
}

#[test]
fn a_bad_file_does_not_touch_what_runs() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    twins.up()?;
    let file = twins.moon.folder().join("ipsec.toml");
    let good = std::fs::read_to_string(&file)?;
    std::fs::write(&file, good.replace("rightsubnet", "rightsubnets"))?;
    let said = twins.moon.ctl(&["reload"])?;
    let text = said.stdout.clone() + &said.stderr;
    ensure!(!said.success && text.contains("rightsubnets") && text.contains("rightsubnet`"), "{text}");
    twins.expect_pings()?;
    std::fs::write(&file, good)?;
    twins.moon.expect_ctl(&["reload"])?;
    twins.expect_pings()
}

#[test]
fn a_reload_does_what_the_plan_says_and_loses_no_packet() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    twins.up()?;
    let file = twins.moon.folder().join("ipsec.toml");
    let before = std::fs::read_to_string(&file)?;
    let stream = PingStream::start(&twins.world, "alice", Site::SUN.host4)?;
    for (text, plan, log) in [
        (before.clone(), "nothing would change", "unchanged: [\"net\"]"),
        (
            before.replace("auto = \"add\"", "auto = \"add\"\ncloseaction = \"restart\""),
            "holds at once",
            "live: [\"net\"]",
        ),
        (
            before.replace("auto = \"add\"", "auto = \"add\"\nlifetime = \"50m\""),
            "from the next rekeying on",
            "live: [], at_rekey: [\"net\"]",
        ),
        (
            before.replace("auto = \"add\"", "auto = \"add\"\nmobike = false"),
            "from now on",
            "changed: [\"net\"], live: [], at_rekey: []",
        ),
        (
            format!(
                "{before}\n[conn.other]\nright = \"192.0.2.77\"\nrightid = \"sun.example.org\"\nleftid = \"moon.example.org\"\nauto = \"add\"\n"
            ),
            "connection other: new",
            "added: [\"other\"]",
        ),
    ] {
        std::fs::write(&file, text)?;
        let said = twins.moon.expect_ctl(&["plan"])?;
        ensure!(said.contains(plan), "`{plan}` is not in {said}");
        twins.moon.signal(rustix::process::Signal::HUP)?;
        wait_until(LIMIT, log, || Ok(twins.moon.log().contains(log)))?;
    }
    let pings = stream.stop()?;
    ensure!(pings.lossless(), "{pings:?}\n{}", twins.moon.log());
    Ok(())
}

/// The plan says that other algorithms hold from the next rekeying on, and so they do, without a loss.
#[test]
fn a_reload_changes_the_algorithms_of_a_tunnel_when_it_is_rekeyed() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    twins.up()?;
    for gateway in [&twins.moon, &twins.sun] {
        let file = gateway.folder().join("ipsec.toml");
        let before = std::fs::read_to_string(&file)?;
        std::fs::write(&file, before.replace("aes256gcm16-esn", "chacha20poly1305"))?;
        let plan = gateway.json(&["plan"])?;
        ensure!(plan["next-rekey"] == serde_json::json!(["net"]), "{plan}");
        gateway.expect_ctl(&["reload"])?;
    }
    let stream = PingStream::start(&twins.world, "alice", Site::SUN.host4)?;
    ensure!(!twins.moon.json(&["status"])?.to_string().contains("CHACHA20_POLY1305"), "nothing is rekeyed yet");
    twins.moon.expect_ctl(&["rekey", "net", "--child", "net"])?;
    for gateway in [&twins.moon, &twins.sun] {
        gateway.wait_status(LIMIT, "other algorithms", |status| status.to_string().contains("CHACHA20_POLY1305"))?;
    }
    let pings = stream.stop()?;
    ensure!(pings.lossless(), "{pings:?}\n{}", twins.moon.log());
    ensure!(twins.moon.log().matches("IKE_AUTH request").count() == 1, "{}", twins.moon.log());
    Ok(())
}

#[test]
fn a_daemon_without_a_configuration_starts_empty() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let gateway = Gateway::start(&world, "moon", folder.path(), "", "")?;
    let status = gateway.expect_ctl(&["list"])?;
    ensure!(!status.contains("net"), "{status}");
    let said = gateway.ctl(&["up", "nothing"])?;
    ensure!(!said.success && (said.stdout + &said.stderr).contains("nothing"));
    Ok(())
}

/// A program that says in a file what it was called with.
fn script(folder: &std::path::Path, name: &str, body: &str) -> Result<(String, std::path::PathBuf)> {
    use std::os::unix::fs::PermissionsExt;

    let (path, said) = (folder.join(name), folder.join(format!("{name}.said")));
    std::fs::write(&path, format!("#!/bin/sh\n{}\n", body.replace("SAID", &said.display().to_string())))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok((path.display().to_string(), said))
}

#[test]
fn programs_hear_of_tunnels_that_come_and_go_but_updown_of_no_rekeying() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let told = "echo $PLUTO_VERB $PLUTO_CONNECTION $PLUTO_ME $PLUTO_PEER $PLUTO_MY_CLIENT $PLUTO_PEER_CLIENT \
                $PLUTO_INTERFACE $PLUTO_REQID >>SAID; echo spoken";
    let (updown, calls) = script(folder.path(), "updown", told)?;
    let (hook, documents) = script(folder.path(), "hook", "cat >>SAID")?;
    let lines = "lifetime = \"5s\"\nmargintime = \"2s\"\nrekeyfuzz = \"0%\"";
    let moon_lines = &format!("updown = \"{updown}\"\n[daemon]\nhook = \"{hook}\"\n");
    let mut twins = Twins::start(Case { lines, moon_lines, ..Case::default() })?;
    twins.up()?;
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    wait_until(LIMIT, "a rekeying that the hook hears of", || Ok(read(&documents).contains("child-rekey")))?;
    let status = twins.moon.stop()?;
    ensure!(status.success(), "{status}: {}", twins.moon.log());
    let calls = read(&calls);
    let (ups, downs): (Vec<&str>, Vec<&str>) = calls.lines().partition(|call| call.starts_with("up-client"));
    ensure!(
        !ups.is_empty() && ups.len() == downs.len(),
        "each pair of selectors has one call up and one down: {calls}"
    );
    for (up, down) in ups.iter().zip(&downs) {
        ensure!(up.replace("up-", "down-") == **down, "{calls}");
    }
    ensure!(ups.iter().any(|up| up.contains(" 10.1.0.0/16 10.2.0.0/16 ipsec0 ")), "{calls}");
    ensure!(twins.moon.log().contains("spoken"), "what a script says is in the log: {}", twins.moon.log());
    let events: Vec<String> = read(&documents)
        .lines()
        .map(|line| Ok(serde_json::from_str::<serde_json::Value>(line)?["event"].to_string()))
        .collect::<Result<_>>()?;
    ensure!(
        events.iter().any(|event| event == "\"ike-up\"") && events.last().is_some_and(|last| last.ends_with("down\""))
    );
    let count = |name: &str| events.iter().filter(|event| event.contains(name)).count();
    ensure!(count("child-up") == 1 && count("child-down") == 1, "{events:?}");
    Ok(())
}

/// Values of the page of metrics, as the reference parser of OpenMetrics reads them.
fn metrics(twins: &Twins) -> Result<std::collections::BTreeMap<String, f64>> {
    const READ: &str = "import json, sys, urllib.request\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as families\n\
        page = urllib.request.urlopen('http://127.0.0.1:9814/metrics', timeout=20).read().decode()\n\
        samples = [sample for family in families(page) for sample in family.samples]\n\
        print(json.dumps({' '.join([s.name] + sorted(s.labels.values())): s.value for s in samples}))";
    let folder = twins.folder.path().join("read-metrics.py");
    std::fs::write(&folder, READ)?;
    Ok(serde_json::from_str(&twins.world.sh("moon", &format!("/usr/bin/python3 {}", folder.display()))?)?)
}

#[test]
fn prometheus_finds_counters_that_go_on_over_rekeyings_and_states() -> Result<()> {
    let lines = "lifetime = \"5s\"\nmargintime = \"2s\"\nrekeyfuzz = \"0%\"";
    let moon_lines = "[daemon]\nmetrics = \"127.0.0.1:9814\"\n";
    let twins = Twins::start(Case { lines, moon_lines, ..Case::default() })?;
    let before = metrics(&twins)?;
    ensure!(before.get("charon_connection_up net") == Some(&0.0), "{before:?}");
    twins.up()?;
    twins.expect_pings()?;
    let carried = |page: &std::collections::BTreeMap<String, f64>| {
        page.get("charon_child_packets_total in net net").copied().unwrap_or_default()
    };
    let first = metrics(&twins)?;
    ensure!(carried(&first) > 0.0 && first.get("charon_connection_up net") == Some(&1.0), "{first:?}");
    let mut last = first.clone();
    wait_until(LIMIT, "a rekeying", || {
        let page = metrics(&twins)?;
        ensure!(carried(&page) >= carried(&last), "counters go back: {page:?}");
        last = page;
        Ok(last.get("charon_rekeyings_total child net") >= Some(&1.0))
    })?;
    ensure!(last.get("charon_handshake_seconds_count initiator") == Some(&1.0), "{last:?}");
    twins.moon.expect_ctl(&["down", "net"])?;
    let after = metrics(&twins)?;
    ensure!(carried(&after) >= carried(&last) && after.get("charon_connection_up net") == Some(&0.0), "{after:?}");
    Ok(())
}

#[test]
fn the_shell_completes_the_names_of_the_daemon_that_runs() -> Result<()> {
    let twins = Twins::start(Case::default())?;
    let complete = |words: &[&str]| -> Result<String> {
        let mut command = std::process::Command::new(harness::built("charonctl")?);
        command.env("COMPLETE", "fish").args(["--", "charonctl", "--socket"]).arg(twins.moon.socket()).args(words);
        let output = harness::finish(command)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    ensure!(complete(&["up", "n"])? == "net\n", "{}", complete(&["up", "n"])?);
    ensure!(complete(&["mtu", "ips"])? == "ipsec0\n", "{}", complete(&["mtu", "ips"])?);
    ensure!(complete(&["rekey", "net", "--child", ""])? == "net\n", "{}", complete(&["rekey", "net", "--child", ""])?);
    Ok(())
}
