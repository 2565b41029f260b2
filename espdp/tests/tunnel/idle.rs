//! What a dataplane costs while nothing is to be done.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::gateway::{connect, settings};
use crate::traffic::ping;
use crate::world::{World, may_run};
use crate::{LEFT, NAT_T, RIGHT, gateways, gcm};

/// How a thread of this process stands: whether it sleeps, and how often it has gone to sleep so far.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    thread: String,
    sleeps: bool,
    times: u64,
}

/// The workers in these network namespaces: other tests have some of their own.
fn workers(namespaces: &[PathBuf]) -> Vec<Standing> {
    let mut standings = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        // A thread may have ended since.
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        let is_ours = std::fs::read_link(path.join("ns/net")).is_ok_and(|namespace| namespaces.contains(&namespace));
        if is_ours && field("Name:").starts_with("espdp-worker") {
            standings.push(Standing {
                thread: path.display().to_string(),
                sleeps: field("State:").starts_with('S'),
                times: field("voluntary_ctxt_switches:").parse().unwrap(),
            });
        }
    }
    standings
}

/// Wants the workers of both gateways to sleep on, once they have done what there is to do. A loop that polls would be found running,
/// or would have slept more often each time that it is looked at.
pub(crate) fn expect_sleep(world: &World) {
    let namespaces = [&world.left, &world.right]
        .map(|namespace| namespace.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()));
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut looks = workers(&namespaces);
    assert_eq!(looks.len(), 2 * settings().workers.ids().len(), "{looks:?}");
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let again = workers(&namespaces);
        if again.iter().all(|standing| standing.sleeps && looks.contains(standing)) {
            break;
        }
        assert!(Instant::now() < deadline, "they never sleep: {looks:?}, then {again:?}");
        looks = again;
    }
}

#[test]
fn a_worker_that_has_nothing_to_do_sleeps_on() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let (mut left, mut right) = gateways(&world);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
    ping(&world.left, "10.2.0.1", 64);
    expect_sleep(&world);
    ping(&world.right, "10.1.0.1", 64);
    left.stop();
    right.stop();
}
