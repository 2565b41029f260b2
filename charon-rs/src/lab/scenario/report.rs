//! What a person, or a program, wants to know at the end of a scenario.

use std::fmt;

use serde::Serialize;

use super::catalogue;
use crate::lab::report::{Files, GatewayReport, Kept, NodeInterfaces, write_checks, write_files, write_interfaces};
use crate::lab::tally::Tally;
use crate::lab::verdict::Check;

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

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each stands with both of its ends; who began it tells them.
        for sa in self.gateways.iter().flat_map(|gateway| &gateway.sas).filter(|sa| sa.initiator) {
            writeln!(f, "{sa}")?;
            sa.children.iter().try_for_each(|child| writeln!(f, "{child}"))?;
        }
        write_interfaces(f, &self.interfaces)?;
        writeln!(f, "On the wire")?;
        for (stack, count) in &self.wire.stacks {
            writeln!(f, "  {:6}  {stack}", count.frames)?;
        }
        writeln!(f)?;
        write_checks(f, &self.checks)?;
        write_files(f, &self.files, &self.gateways)?;
        self.kept.as_ref().map_or(Ok(()), |kept| write!(f, "\n{kept}"))
    }
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
