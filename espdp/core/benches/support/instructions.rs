//! How many instructions of ours a packet takes, which does not depend on what else the machine does.
//!
//! The benchmark runs itself under valgrind's callgrind, twice with a different number of rounds: what differs is the work on packets.
//! Ciphers and checksums do not count: valgrind does not know the instructions of the fast ones, and takes the library's.

use std::process::Command;

/// Paths, octets and SAs to look at, with the most instructions per packet outbound and inbound: a tenth more than there were when
/// this was written.
const LIMITS: [(&str, usize, usize, [f64; 2]); 4] = [
    ("outbound", 64, 1, [205.0, 335.0]),
    ("outbound", 64, 1000, [435.0, 665.0]),
    ("outbound-tso", 64, 1, [560.0, 730.0]),
    ("outbound-tso", 1400, 1, [560.0, 730.0]),
];

/// Rounds of the two runs. In the first ones flows are learnt.
const ROUNDS: [usize; 2] = [30, 60];

/// Prints a table, and ends the process with an error where there are more instructions than allowed.
pub fn guard(batch: usize) {
    println!("{:<13} {:>6} {:>5} {:>9} {:>7} {:>9} {:>7}", "path", "octets", "sas", "out", "limit", "in", "limit");
    let mut is_right = true;
    for (path, octets, sas, limits) in LIMITS {
        let [few, many] = ROUNDS.map(|rounds| count(path, octets, sas, rounds));
        let packets = ((ROUNDS[1] - ROUNDS[0]) * batch) as f64;
        let [out, back] = [0, 1].map(|way| (many[way] - few[way]) as f64 / packets);
        println!("{path:<13} {octets:>6} {sas:>5} {out:>9.1} {:>7} {back:>9.1} {:>7}", limits[0], limits[1]);
        // None at all are counted when names of functions have changed.
        is_right &= (1.0..=limits[0]).contains(&out) && (1.0..=limits[1]).contains(&back);
    }
    if !is_right {
        eprintln!("the hot paths take more instructions than allowed, or none");
        std::process::exit(1);
    }
}

/// Instructions of ours outbound and inbound.
fn count(path: &str, octets: usize, sas: usize, rounds: usize) -> [u64; 2] {
    let out = std::env::temp_dir().join(format!("espdp-instructions-{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["aes256gcm16", path, &octets.to_string()])
        .args(["--sas", &sas.to_string(), "--rounds", &rounds.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind, which counts the instructions, cannot be run: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let profile = std::fs::read_to_string(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    sum(&profile)
}

/// Adds up what functions of ours take themselves, from a file as callgrind writes it: a line with the name of a function, then lines
/// with a number of a line and a cost; what a call costs stands behind a line that tells of it.
fn sum(profile: &str) -> [u64; 2] {
    let (mut ways, mut way, mut is_call) = ([0; 2], None, false);
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            way = way_of(name);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if let (false, Some(way), Some(cost)) = (is_call, way, cost) {
                ways[way] += cost;
            }
            is_call = false;
        }
    }
    ways
}

/// Which way a function of ours works on; `None` for others, and for ciphers.
fn way_of(name: &str) -> Option<usize> {
    if !name.contains("espdp_core::") || name.contains("espdp_core::crypto") {
        return None;
    }
    let is_inbound = ["::inbound::", "::coalesce::", "::replay::"].iter().any(|part| name.contains(part));
    Some(usize::from(is_inbound))
}
