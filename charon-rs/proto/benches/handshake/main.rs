//! What IKE SAs cost: clock time of a handshake for each of its ends, memory of an SA, and what thousands of SAs do to the
//! one at hand.
//!
//! `cargo bench -p ike-proto --bench handshake -- [--quick] [--json] [SUITE ..]`
//!
//! Two engines run in one process and one thread, with a network that loses nothing and a dataplane that answers at once.
//! What counts is the time inside the engine's own methods: the network, the dataplane and the other end are left out. Of
//! many rounds the lower quartile counts, because what else the machine does only ever adds to them. Memory is what the
//! engine asked the allocator for and did not give back, without the connections and secrets of the configuration.

#![expect(clippy::unwrap_used, reason = "a benchmark whose setting fails has nothing to measure")]

mod network;
mod report;
mod suites;

use std::time::Duration;

use ike_proto::io::{Command, Target, TimerKind};

use self::network::{Network, Phase, Role};
use self::report::{Report, lower_quartile, micros};
use self::suites::{Fleet, Suite};

/// Counts what is allocated.
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// Established SAs in one engine: few, and as many as a large gateway has.
const FEW: u32 = 10;
const MANY: u32 = 10_000;

/// The suite whose memory and scale are shown.
const USUAL: &str = "psk, ecp256";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let report = Report { json: has("--json") };
    let rounds = if has("--quick") { 20 } else { 400 };
    let all = !Suite::all().iter().any(|suite| has(suite.name));
    report.handshake_head();
    for suite in Suite::all().into_iter().filter(|suite| all || has(suite.name)) {
        handshakes(&report, &suite, rounds);
    }
    if !all {
        return;
    }
    let many = if has("--quick") { MANY / 10 } else { MANY };
    for (shape, fleet) in [("hub", Fleet::Hub), ("roadwarriors", Fleet::RoadWarriors)] {
        scale(&report, shape, fleet, many);
    }
}

/// Handshakes one after the other, each with an SA of its own that is deleted again.
fn handshakes(report: &Report, suite: &Suite, rounds: usize) {
    let mut network = Network::new(suite, Fleet::Hub, 1);
    let mut samples: Vec<Vec<(Role, Phase, Duration)>> = Vec::new();
    for _ in 0..rounds {
        samples.push(network.handshake(0));
        network.command(Role::Initiator, Command::Terminate { ticket: network::ticket(), target: named(0) });
        network.run();
    }
    for role in [Role::Responder, Role::Initiator] {
        let of = |phase: Option<Phase>| {
            let sums = samples.iter().map(|sample| {
                let mine = sample.iter().filter(|(of, at, _)| *of == role && phase.is_none_or(|phase| phase == *at));
                micros(mine.map(|(_, _, time)| *time).sum())
            });
            lower_quartile(sums.collect())
        };
        let phases: Vec<_> = role.phases().iter().map(|phase| (phase.name(), of(Some(*phase)))).collect();
        report.handshake(suite.name, role.name(), of(None), &phases);
    }
}

/// What an SA takes in memory, and how long things take among few and among many.
fn scale(report: &Report, shape: &str, fleet: Fleet, many: u32) {
    let suite = Suite::all().into_iter().find(|suite| suite.name == USUAL).unwrap();
    let few = Figures::measure(&suite, fleet, FEW);
    let lots = Figures::measure(&suite, fleet, many);
    report.memory(shape, many, lots.octets);
    report.scale_head(shape, FEW, many);
    for ((name, few), (_, lots)) in few.times.iter().zip(&lots.times) {
        report.scale(shape, name, *few, *lots);
    }
}

/// What was measured among some number of SAs.
struct Figures {
    /// Octets for each SA with one child: of the responder, of the initiator.
    octets: [f64; 2],
    /// Microseconds by operation.
    times: Vec<(&'static str, f64)>,
}

/// How often each operation is measured.
const ROUNDS: u32 = 40;

impl Figures {
    /// Sets `count` SAs up and measures operations on the last of them.
    fn measure(suite: &Suite, fleet: Fleet, count: u32) -> Self {
        let total = count + ROUNDS;
        let mut network = Network::new(suite, fleet, total);
        let before = network.octets();
        for number in 0..count {
            drop(network.handshake(number));
        }
        let after = network.octets();
        let octets = [0, 1].map(|end| (after[end] - before[end]) as f64 / f64::from(count));
        let mut times = vec![];
        let mut note = |name: &'static str, samples: Vec<f64>| times.push((name, lower_quartile(samples)));

        let handshakes: Vec<_> = (count..total).map(|number| network.handshake(number)).collect();
        for (role, name) in [(Role::Responder, "handshake, responder"), (Role::Initiator, "handshake, initiator")] {
            note(name, handshakes.iter().map(|sample| of_role(sample, role)).collect());
        }
        let mut both = |names: [&'static str; 2], samples: Vec<Vec<(Role, Phase, Duration)>>| {
            for (name, role) in names.into_iter().zip([Role::Initiator, Role::Responder]) {
                note(name, samples.iter().map(|sample| of_role(sample, role)).collect());
            }
        };
        for (timer, names) in [
            (TimerKind::DeadPeerDetection, ["liveness probe, asking end", "liveness probe, answering end"]),
            (TimerKind::RekeyChild, ["Child SA rekeying, asking end", "Child SA rekeying, answering end"]),
            (TimerKind::RekeyIke, ["IKE SA rekeying, asking end", "IKE SA rekeying, answering end"]),
        ] {
            both(names, (0..ROUNDS).map(|_| network.next_timer(timer)).collect());
        }
        let ends = (count..total).map(|number| network.terminate(named(number))).collect();
        both(["deletion by command, asking end", "deletion by command, answering end"], ends);

        let engine = network.engine(Role::Responder);
        note("poll_timeout", (0..ROUNDS).map(|_| network::time(|| engine.poll_timeout())).collect());
        let listing = (0..ROUNDS).map(|_| network::time(|| engine.ike_sas()) / f64::from(count));
        note("ike_sas(), for each SA", listing.collect());
        Self { octets, times }
    }
}

fn of_role(sample: &[(Role, Phase, Duration)], role: Role) -> f64 {
    micros(sample.iter().filter(|(of, _, _)| *of == role).map(|(_, _, time)| *time).sum())
}

/// All SAs of the initiator's connection with this number.
fn named(number: u32) -> Target {
    Target::Connection(suites::name(number))
}
