//! Whether an example did what its description says, judged by what arrived and by what was seen on the wire.

use super::description::{Carried, Description, Wanted};
use super::report::TrafficReport;
use crate::lab::stack::begins_with;
use crate::lab::tally::{StackCount, Tally};
use crate::lab::verdict::Check;

/// Everything that is known when a run is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence<'a> {
    /// What had to happen.
    pub(super) description: &'a Description,
    /// What became of the traffic.
    pub(super) traffic: &'a [TrafficReport],
    /// What was on the wire.
    pub(super) wire: &'a Tally,
}

/// Judges a run.
pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let Evidence { description, traffic, wire } = *evidence;
    let mut checks: Vec<Check> = traffic.iter().map(arrived).collect();
    checks.extend(description.wire.stacks.iter().map(|wanted| seen(wanted, wire)));
    checks.push(nothing_else(&description.wire.stacks, wire));
    let arriving = |carried| {
        let mut all = description.traffic.iter();
        all.any(|traffic| traffic.carried == carried && traffic.result == Wanted::Arrives)
    };
    if arriving(Carried::Secret) {
        checks.push(nothing_secret(wire));
    }
    if arriving(Carried::Clear) {
        checks.push(readable(wire));
    }
    checks
}

fn arrived(traffic: &TrafficReport) -> Check {
    let TrafficReport { what, passed, found } = traffic;
    Check { name: what.clone().into(), passed: *passed, found: found.clone() }
}

fn seen(wanted: &str, wire: &Tally) -> Check {
    let of_kind = || wire.stacks.iter().filter(|(stack, _)| begins_with(stack, wanted)).map(|(_, count)| count);
    let frames: u64 = of_kind().map(|count| count.frames).sum();
    let senders: std::collections::BTreeSet<_> = of_kind().flat_map(|count| &count.senders).collect();
    Check {
        name: format!("{wanted} in both directions").into(),
        passed: senders.len() >= 2,
        found: format!("{frames} frames from {} senders", senders.len()),
    }
}

/// What finds neighbours and keys may always be seen.
fn nothing_else(wanted: &[String], wire: &Tally) -> Check {
    let may_be_seen = |stack: &str| {
        let wanted = wanted.iter().map(String::as_str);
        wanted.chain(ALWAYS).any(|allowed| begins_with(stack, allowed))
    };
    let other: Vec<(&String, &StackCount)> = wire.stacks.iter().filter(|(stack, _)| !may_be_seen(stack)).collect();
    let found = if other.is_empty() {
        format!("{} frames looked at", wire.frames)
    } else {
        other.iter().map(|(stack, count)| format!("{} frames of {stack}", count.frames)).collect::<Vec<_>>().join(", ")
    };
    Check { name: "nothing else is on the wire".into(), passed: other.is_empty() && wire.frames > 0, found }
}

fn nothing_secret(wire: &Tally) -> Check {
    let found = match wire.examples.first() {
        Some(example) => format!("{} of {} frames, for example {example}", wire.leaks, wire.frames),
        None => format!("{} frames, all of them fit to be seen", wire.frames),
    };
    Check { name: "nothing secret is readable on the wire".into(), passed: wire.leaks == 0 && wire.frames > 0, found }
}

fn readable(wire: &Tally) -> Check {
    let found = format!("{} of {} frames", wire.readable, wire.frames);
    Check { name: "what goes in clear is readable on the wire".into(), passed: wire.readable > 0, found }
}

const ALWAYS: [&str; 6] =
    ["arp", "ipv6/icmpv6", "ipv4/udp/ike", "ipv6/udp/ike", "ipv4/udp/keepalive", "ipv6/udp/keepalive"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::frame::tests::{ESP, ethernet, ip, udp};
    use crate::lab::tally::{MARKER, READABLE};

    const THERE: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

    fn description(traffic: &str) -> Description {
        let text = format!(
            "title = \"\"\nstory = \"\"\npicture = \"\"\nhosts = {{ a = [] }}\nrouters = {{ b = [] }}\ngateways = []\n\
             links = []\ntraffic = [{traffic}]\n[wire]\nnode = \"a\"\ninterface = \"x\"\nstacks = [\"ipv4/esp\"]\n\
             secret = [\"10.0.0.0/8\"]\n"
        );
        Description::parse(&text).unwrap()
    }

    struct Run {
        description: Description,
        traffic: Vec<TrafficReport>,
        wire: Tally,
    }

    impl Run {
        /// ESP in both directions, and IKE.
        fn good() -> Self {
            let traffic = vec![TrafficReport { what: "a pings b".into(), passed: true, found: String::new() }];
            let description = description("{ from = \"a\", ping = \"10.0.0.1\" }");
            let mut run = Self { description, traffic, wire: Tally::default() };
            run.see(&ip(THERE, 17, &udp(500, &[7; 28])));
            run.see(&ip(THERE, 50, &ESP));
            let mut back = ethernet(&ip(THERE, 50, &ESP));
            back[6] = 9;
            run.wire.add(&back, &run.description.wire.secret);
            run
        }

        fn see(&mut self, packet: &[u8]) {
            self.wire.add(&ethernet(packet), &self.description.wire.secret);
        }

        fn failed(&self) -> Vec<String> {
            let Self { description, traffic, wire } = self;
            let checks = judge(&Evidence { description, traffic, wire });
            checks.iter().filter(|check| !check.passed).map(|check| check.name.to_string()).collect()
        }
    }

    #[test]
    fn a_good_run_passes_everything() {
        assert_eq!(Run::good().failed(), [""; 0]);
    }

    #[test]
    fn traffic_that_does_not_do_what_it_should_fails_the_run() {
        let mut run = Run::good();
        run.traffic[0].passed = false;
        assert_eq!(run.failed(), ["a pings b"]);
    }

    #[test]
    fn esp_in_one_direction_only_fails_the_run() {
        let mut run = Run::good();
        run.wire = Tally::default();
        run.see(&ip(THERE, 50, &ESP));
        assert_eq!(run.failed(), ["ipv4/esp in both directions"]);
    }

    #[test]
    fn a_frame_that_nobody_expects_fails_the_run() {
        let mut run = Run::good();
        run.see(&ip(THERE, 47, &[0, 0, 8, 0]));
        assert_eq!(run.failed(), ["nothing else is on the wire"]);
    }

    #[test]
    fn secret_octets_and_addresses_fail_the_run_even_in_esp() {
        let mut run = Run::good();
        run.see(&ip(THERE, 50, &[&ESP[..], MARKER].concat()));
        assert_eq!(run.failed(), ["nothing secret is readable on the wire"]);
        let mut run = Run::good();
        run.see(&ip(["10.0.0.1", "192.0.2.2"], 50, &ESP));
        assert_eq!(run.failed(), ["nothing secret is readable on the wire"]);
    }

    #[test]
    fn what_should_go_in_clear_and_does_not_fails_the_run() {
        let mut run = Run::good();
        run.description = description("{ from = \"a\", ping = \"192.0.2.2\", carried = \"clear\" }");
        assert_eq!(run.failed(), ["what goes in clear is readable on the wire"]);
        run.see(&ip(THERE, 50, &[&ESP[..], READABLE].concat()));
        assert_eq!(run.failed(), [""; 0]);
    }
}
