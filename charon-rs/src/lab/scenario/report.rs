//! What a person, or a program, wants to know at the end of a scenario.

use std::fmt;

use serde::Serialize;

use super::catalogue;
use crate::lab::report::{Files, GatewayReport, Kept, NodeInterfaces, write_checks, write_files, write_interfaces};
use crate::lab::tally::Tally;
use crate::lab::verdict::Check;
use crate::vici::Message;

/// Everything that a run brought. Serialised, it is the document of `--json`; displayed, the text without.
#[derive(Clone, Debug, Serialize)]
pub(in crate::lab) struct ScenarioReport {
    /// The name of the example.
    pub(in crate::lab) scenario: String,
    /// What it shows.
    pub(in crate::lab) title: String,
    /// Whether all checks passed.
    pub(in crate::lab) passed: bool,
    /// What was checked.
    pub(in crate::lab) checks: Vec<Check>,
    /// What was sent.
    pub(in crate::lab) traffic: Vec<TrafficReport>,
    /// A packet and its answer, followed through all gateways.
    pub(in crate::lab) traces: Vec<TraceReport>,
    /// The SAs of the daemons.
    pub(in crate::lab) gateways: Vec<GatewayReport>,
    /// The interfaces of all nodes, as they were at the end of the traffic.
    pub(in crate::lab) interfaces: Vec<NodeInterfaces>,
    /// What was seen on the wire.
    pub(in crate::lab) wire: Tally,
    /// Where everything is.
    pub(in crate::lab) files: Files,
    /// How to get at what still runs; `null` when nothing does.
    pub(in crate::lab) kept: Option<Kept>,
}

/// What became of something that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::lab) struct TrafficReport {
    /// What it was, as a sentence.
    pub(in crate::lab) what: String,
    /// Whether it did what it should: get through, or not.
    pub(in crate::lab) passed: bool,
    /// What came of it.
    pub(in crate::lab) found: String,
}

/// What a gateway did with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::lab) struct TraceReport {
    /// The gateway.
    pub(in crate::lab) node: String,
    /// `in` from outside or `out` to it.
    pub(in crate::lab) direction: String,
    /// What it did, step by step: stable names.
    pub(in crate::lab) steps: Vec<String>,
    /// The same as people say it.
    pub(in crate::lab) texts: Vec<String>,
}

impl TraceReport {
    /// Reads a `trace` event of a gateway's daemon.
    pub(in crate::lab) fn read(node: &str, event: &Message) -> Self {
        Self {
            node: node.to_owned(),
            direction: event.text("direction").unwrap_or_default().to_owned(),
            steps: event.list("steps"),
            texts: event.list("texts"),
        }
    }
}

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each stands with both of its ends; who began it tells them.
        for sa in self.gateways.iter().flat_map(|gateway| &gateway.sas).filter(|sa| sa.initiator) {
            writeln!(f, "{sa}")?;
            sa.children.iter().try_for_each(|child| writeln!(f, "{child}"))?;
        }
        write_interfaces(f, &self.interfaces)?;
        writeln!(f, "A packet and its answer on their way")?;
        for TraceReport { node, texts, .. } in way(&self.traces) {
            for (at, text) in texts.iter().enumerate() {
                writeln!(f, "  {:9}  {text}", if at == 0 { node.as_str() } else { "" })?;
            }
        }
        writeln!(f, "\nOn the wire")?;
        for (stack, count) in &self.wire.stacks {
            writeln!(f, "  {:6}  {stack}", count.frames)?;
        }
        writeln!(f)?;
        write_checks(f, &self.checks)?;
        write_files(f, &self.files, &self.gateways)?;
        self.kept.as_ref().map_or(Ok(()), |kept| write!(f, "\n{kept}"))
    }
}

/// Traces in the order in which the packets went: out of the gateway of the one who asks, into others, and back. Gateways tell
/// their own in order; what goes out first was not answered yet.
fn way(traces: &[TraceReport]) -> impl Iterator<Item = &TraceReport> {
    let of = |node: &str, direction: &str| {
        traces.iter().position(|trace| trace.node == node && trace.direction == direction)
    };
    let asks = |trace: &&TraceReport| of(&trace.node, "out") < of(&trace.node, "in");
    let rank = move |trace: &TraceReport| match (asks(&trace), trace.direction.as_str()) {
        (true, "out") => 0,
        (false, "in") => 1,
        (false, _) => 2,
        (true, _) => 3,
    };
    let mut traces: Vec<&TraceReport> = traces.iter().collect();
    traces.sort_by_key(|trace| rank(trace));
    traces.into_iter()
}

/// The scenarios that there are.
#[derive(Clone, Debug, Serialize)]
pub(in crate::lab) struct List(Vec<Entry>);

#[derive(Clone, Debug, Serialize)]
struct Entry {
    name: &'static str,
    title: String,
}

impl List {
    /// All of them.
    ///
    /// # Errors
    /// When a description does not read, which a test excludes.
    pub(in crate::lab) fn new() -> anyhow::Result<Self> {
        let entry = |example: &catalogue::Example| -> anyhow::Result<Entry> {
            Ok(Entry { name: example.name, title: example.description()?.title })
        };
        catalogue::list().iter().map(entry).collect::<anyhow::Result<_>>().map(Self)
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|entry| entry.name.len()).max().unwrap_or_default();
        self.0.iter().try_for_each(|Entry { name, title }| writeln!(f, "{name:width$}  {title}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_and_its_answer_stand_in_the_order_in_which_they_went() {
        let trace = |node: &str, direction: &str| TraceReport {
            node: node.to_owned(),
            direction: direction.to_owned(),
            steps: Vec::new(),
            texts: Vec::new(),
        };
        let told = [trace("moon", "out"), trace("moon", "in"), trace("sun", "in"), trace("sun", "out")];
        let ordered: Vec<String> = way(&told).map(|trace| format!("{} {}", trace.node, trace.direction)).collect();
        assert_eq!(ordered, ["moon out", "sun in", "sun out", "moon in"]);
        let told = [trace("moon", "in"), trace("moon", "out"), trace("sun", "out"), trace("sun", "in")];
        let ordered: Vec<String> = way(&told).map(|trace| format!("{} {}", trace.node, trace.direction)).collect();
        assert_eq!(ordered, ["sun out", "moon in", "moon out", "sun in"]);
    }
}
