//! The daemon's own log: what it tells, about which connection, and in which form. Needs root.

use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use e2e::{Case, LIMIT, SECRETS, Twins};
use harness::{Daemon, Gateway, Site, World, built, wait_until};

/// At `info` the log says what came, went and failed, but not who talks to whom behind the gateways, nor any secret.
#[test]
fn at_info_the_log_tells_no_address_behind_the_gateways_and_no_secret() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let case = Case { lines: "lifetime = \"6s\"\nmargintime = \"3s\"\nrekeyfuzz = \"0%\"", ..Case::default() };
    let routed = case.toml(Site::MOON, Site::SUN).replace("auto = \"add\"", "auto = \"route\"");
    let other = "[conn.other]\nleft = \"192.168.0.1\"\nleftid = \"moon.example.org\"\nright = \"192.168.0.2\"\n\
                 rightid = \"sun.example.org\"\nleftsubnet = \"10.1.0.0/16\"\nrightsubnet = \"10.99.0.0/24\"\nauto = \"add\"\n";
    let (in_folder, quiet) = (folder.path(), "info");
    let sun = Gateway::start_with_log(&world, "sun", in_folder, &case.toml(Site::SUN, Site::MOON), SECRETS, quiet)?;
    let moon = Gateway::start_with_log(&world, "moon", in_folder, &(routed + other), SECRETS, quiet)?;
    let twins = Twins { moon, sun, world, folder };
    // The first packets bring it up, and their addresses are the first selectors.
    harness::ping(&twins.world, "alice", Site::SUN.host4, 1)?;
    twins.moon.wait_status(LIMIT, "the tunnel", |status| status.to_string().contains("INSTALLED"))?;
    twins.expect_pings()?;
    wait_until(LIMIT, "a rekeying", || Ok(twins.moon.log().contains("Child SA rekeyed")))?;
    let refused = twins.moon.ctl(&["up", "other"])?;
    ensure!(!refused.success, "the peer has nothing for `other`");
    wait_until(LIMIT, "the refusal", || Ok(twins.sun.log().contains("TS_UNACCEPTABLE")))?;
    twins.moon.expect_ctl(&["down", "net"])?;
    for gateway in [&twins.moon, &twins.sun] {
        let log = gateway.log();
        ensure!(log.contains("Child SA established") && log.contains("Child SA deleted"), "{log}");
        for told in ["10.1.0.", "10.2.0.", "10.99.", "fec1::", "fec2::", "correct horse"] {
            ensure!(!log.contains(told), "`{told}` is in the log:\n{log}");
        }
    }
    Ok(())
}

#[test]
fn a_connection_is_logged_at_a_level_of_its_own_while_the_daemon_runs() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let case = Case::default();
    let sun = Gateway::start(&world, "sun", folder.path(), &case.toml(Site::SUN, Site::MOON), SECRETS)?;
    let toml = case.toml(Site::MOON, Site::SUN);
    let moon = Gateway::start_with_log(&world, "moon", folder.path(), &toml, SECRETS, "info")?;
    let details = |moon: &Gateway| moon.log().lines().filter(|line| line.contains("DEBUG")).count();
    moon.expect_ctl(&["up", "net"])?;
    ensure!(details(&moon) == 0, "{}", moon.log());

    let said = moon.ctl(&["log", "nett=debug"])?;
    ensure!(!said.success && said.stderr.contains("did you mean `net`?"), "{}", said.stderr);
    let said = moon.ctl(&["log", "net=loud"])?;
    ensure!(!said.success && said.stderr.contains("`loud` is no level"), "{}", said.stderr);
    moon.expect_ctl(&["log", "net=debug"])?;
    moon.expect_ctl(&["rekey", "net"])?;
    wait_until(LIMIT, "messages in the log", || Ok(moon.log().contains("sent CREATE_CHILD_SA")))?;
    let log = moon.log();
    let mut told = log.lines().filter(|line| line.contains("DEBUG"));
    ensure!(told.all(|line| line.contains("connection=\"net\"")), "{log}");
    let shown = moon.expect_ctl(&["log", "show"])?;
    ensure!(shown == "net: debug (by command)\nall else: info\n", "{shown}");

    moon.expect_ctl(&["log", "net=default"])?;
    let before = details(&moon);
    moon.expect_ctl(&["rekey", "net"])?;
    ensure!(details(&moon) == before, "{}", moon.log());

    let file = moon.folder().join("ipsec.toml");
    std::fs::write(&file, toml.replace("auto = \"add\"", "auto = \"add\"\nlog = \"debug\""))?;
    let planned = moon.expect_ctl(&["plan"])?;
    ensure!(planned.contains("connection net: changed, holds at once"), "{planned}");
    moon.expect_ctl(&["reload"])?;
    moon.expect_ctl(&["rekey", "net"])?;
    wait_until(LIMIT, "messages in the log again", || Ok(details(&moon) > before))?;
    ensure!(moon.json(&["log", "show"])?["connections"]["net"]["from"] == "configuration");
    drop(sun);
    Ok(())
}

#[test]
fn the_log_is_json_for_who_wants_it_and_has_priorities_in_the_journal() -> Result<()> {
    let world = World::two_sites()?;
    let folder = tempfile::tempdir()?;
    let case = Case { moon_lines: "[daemon]\nlog_format = \"json\"\n", ..Case::default() };
    let toml = case.toml(Site::MOON, Site::SUN) + case.moon_lines;
    let moon = Gateway::start(&world, "moon", folder.path(), &toml, SECRETS)?;
    moon.expect_ctl(&["log", "net=trace"])?;
    let said = moon.ctl(&["up", "net", "--timeout", "1"])?;
    ensure!(!said.success, "nobody answers");
    let log = moon.log();
    let lines = log.lines().map(serde_json::from_str).collect::<Result<Vec<serde_json::Value>, _>>()?;
    let sent =
        lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.starts_with("sent IKE_SA_INIT")));
    ensure!(sent.is_some_and(|line| line["connection"] == "net" && line["level"] == "DEBUG"), "{log}");
    drop(moon);

    // As the service manager starts it: the variable names what standard error is connected to.
    let (config, log) = (folder.path().join("journal.toml"), folder.path().join("journal"));
    std::fs::write(&config, "[daemon]\nguard = \"off\"\n")?;
    let file = std::fs::File::create(&log)?.metadata()?;
    let mut command = world.command("moon", built("charon-rs")?)?;
    command.arg("--config").arg(&config).arg("--socket").arg(folder.path().join("vici"));
    command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino())).env("RUST_LOG", "debug");
    let daemon = Daemon::start(command, log)?;
    wait_until(LIMIT, "its being ready", || Ok(daemon.log().contains("is ready")))?;
    let said = daemon.log();
    ensure!(said.lines().any(|line| line.starts_with("<6> INFO charon-rs is ready")), "{said}");
    ensure!(said.lines().all(|line| line.starts_with("<6> INFO") || line.starts_with("<7>DEBUG")), "{said}");
    Ok(())
}
