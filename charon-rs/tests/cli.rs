//! The two programs as processes: what needs neither privileges nor a daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GOOD: &str = "[conn.gw]\nright = \"192.0.2.1\"\nauto = \"add\"\n";

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn charonctl(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_charonctl"), arguments)
}

fn write(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("ipsec.toml");
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_file_is_checked_without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), GOOD);
    let output = charonctl(&["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("good, 1 connection(s): gw\n"), "{output:?}");
}

#[test]
fn a_wrong_file_is_refused_with_line_and_column_by_both_programs() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &GOOD.replace("right", "rihgt"));
    let path = file.to_str().unwrap();
    for output in [charonctl(&["check", path]), run(env!("CARGO_BIN_EXE_charon-rs"), &["--config", path])] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("ipsec.toml:2:1: ") && said.contains("`rihgt`"), "{said}");
    }
    let output = charonctl(&["check", path, "--json"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"line\":2"), "{output:?}");
}

#[test]
fn exit_statuses_tell_a_wrong_command_line_from_a_missing_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nobody");
    assert_eq!(charonctl(&["up"]).status.code(), Some(2));
    let output = charonctl(&["--socket", socket.to_str().unwrap(), "list"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
