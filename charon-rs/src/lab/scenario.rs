//! Scenarios: every kind of tunnel that there is an example of in `etc/examples`, run live from its own files.
//!
//! An example is a folder: a configuration for each gateway (`moon.toml`, `sun.toml`), secrets (`secrets.toml`) if it
//! has any, and `scenario.toml`, which says what to build around the gateways, which traffic to send, and what has to be seen
//! on the wire, see [`description::Description`]. All of them are part of the program.
//!
//! ```text
//! catalogue ─ description ─ play ─ verdict ─ report
//! ```

mod catalogue;
mod certificates;
mod description;
mod play;
mod report;
mod verdict;

pub(super) use catalogue::{Example, find, list};
pub(super) use play::{Plan, run};
pub(super) use report::{List, ScenarioReport};
