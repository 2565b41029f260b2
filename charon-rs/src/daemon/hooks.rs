//! Programs that are run when SAs come and go: the `updown` of a child, as strongSwan calls it, and the daemon's own `hook`,
//! which gets a JSON document.

mod document;
mod environment;
mod runner;

use std::collections::BTreeMap;

use espdp_api::InterfaceName;
use ike_proto::config::Connection;
use ike_proto::io::{ChildSaId, ChildSaReport, IkeSaReport, Notice};

pub(super) use self::runner::{HookEnd, Runner};
use self::runner::{Job, Order};

/// What is to be run, and for whom it was run already.
#[derive(Debug)]
pub(super) struct Hooks {
    runner: Runner,
    /// The program that hears of everything, with its arguments; empty: none.
    program: Vec<String>,
    /// What was run for the children that are up, so that each of them ends as it began, whatever a reload changed.
    up: BTreeMap<ChildSaId, Up>,
}

/// What a child was announced with.
#[derive(Clone, Debug)]
struct Up {
    /// Empty: none.
    updown: Vec<String>,
    interface: Option<InterfaceName>,
}

impl Hooks {
    /// Hooks that hand their programs to `runner`.
    pub(super) fn new(program: Vec<String>, runner: Runner) -> Self {
        Self { runner, program, up: BTreeMap::new() }
    }

    /// Runs what is to be run when something happened; `connections` finds those of the configuration by their names.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
    pub(super) fn on_notice<'a>(&mut self, notice: &Notice, connections: impl Fn(&str) -> Option<&'a Connection>) {
        match notice {
            Notice::IkeUp(sa) => self.tell(sa, None, None, "ike-up", None),
            Notice::IkeDown { sa, reason } => {
                self.tell(sa, None, None, "ike-down", Some(super::phrases::because(reason)))
            }
            Notice::ChildUp { sa, child } => {
                let configured = connections(&sa.connection)
                    .and_then(|connection| connection.children.iter().find(|configured| configured.name == child.name));
                let up = Up {
                    updown: configured.map(|child| child.updown.clone()).unwrap_or_default(),
                    interface: configured.map(|child| child.interface.clone()),
                };
                self.run_updown(&up, sa, child, true);
                self.tell(sa, Some(child), up.interface.as_ref(), "child-up", None);
                self.up.insert(child.id, up);
            }
            Notice::ChildRekeyed { sa, old, new } => {
                if let Some(up) = self.up.remove(&old.id) {
                    self.tell(sa, Some(new), up.interface.as_ref(), "child-rekey", None);
                    self.up.insert(new.id, up);
                }
            }
            Notice::ChildDown { sa, child, reason } => {
                // One that was rekeyed is gone in the name of its successor.
                let Some(up) = self.up.remove(&child.id) else { return };
                self.run_updown(&up, sa, child, false);
                let reason = super::phrases::because(reason);
                self.tell(sa, Some(child), up.interface.as_ref(), "child-down", Some(reason));
            }
            _ => {}
        }
    }

    /// Once for each pair of selectors, as strongSwan does.
    fn run_updown(&self, up: &Up, sa: &IkeSaReport, child: &ChildSaReport, is_up: bool) {
        if up.updown.is_empty() {
            return;
        }
        for environment in environment::of(sa, child, up.interface.as_ref(), is_up) {
            self.runner.run(Job {
                order: Order::of(sa, Some(child)),
                program: up.updown.clone(),
                environment,
                input: Vec::new(),
            });
        }
    }

    fn tell(
        &self,
        sa: &IkeSaReport,
        child: Option<&ChildSaReport>,
        interface: Option<&InterfaceName>,
        event: &'static str,
        reason: Option<&'static str>,
    ) {
        if self.program.is_empty() {
            return;
        }
        let document = document::of(sa, child, interface, event, reason);
        self.runner.run(Job {
            order: Order::of(sa, child),
            program: self.program.clone(),
            environment: Vec::new(),
            input: format!("{document}\n").into_bytes(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ike_proto::config::Child;
    use ike_proto::io::DownReason;
    use tokio::sync::mpsc;

    use super::*;
    use crate::daemon::{applied, testing};

    fn hooks() -> (Hooks, mpsc::Receiver<Job>) {
        let (runner, jobs) = Runner::into_channel();
        (Hooks::new(vec!["/bin/hook".to_owned()], runner), jobs)
    }

    fn connection(updown: &str) -> Connection {
        let child = Child { updown: vec![updown.to_owned()], ..applied::tests::child("ipsec0") };
        Connection { children: vec![child], ..applied::tests::connection("net", 500) }
    }

    fn verbs(jobs: &mut mpsc::Receiver<Job>) -> Vec<String> {
        let mut verbs = Vec::new();
        while let Ok(job) = jobs.try_recv() {
            let verb = job.environment.iter().find(|(name, _)| *name == "PLUTO_VERB").map(|(_, verb)| verb.clone());
            let program = job.program.join(" ");
            verbs.push(verb.map_or_else(|| program.clone(), |verb| format!("{program} {verb}")));
        }
        verbs
    }

    #[test]
    fn a_child_ends_with_the_program_that_it_began_with_and_rekeying_runs_no_updown() {
        let (mut hooks, mut jobs) = hooks();
        let [first, second] = ["/bin/first", "/bin/second"].map(connection);
        let sa = Box::new(testing::ike_sa());
        let child = Box::new(sa.children.first().unwrap().clone());
        let up = Notice::ChildUp { sa: sa.clone(), child: child.clone() };
        hooks.on_notice(&up, |_| Some(&first));
        assert_eq!(verbs(&mut jobs), ["/bin/first up-client", "/bin/hook"]);
        let new = Box::new(ChildSaReport { id: ChildSaId(7), installed: Instant::now(), ..(*child).clone() });
        let rekeyed = Notice::ChildRekeyed { sa: sa.clone(), old: child.clone(), new: new.clone() };
        hooks.on_notice(&rekeyed, |_| Some(&second));
        assert_eq!(verbs(&mut jobs), ["/bin/hook"]);
        let reason = DownReason::Command;
        let down = |child| Notice::ChildDown { sa: sa.clone(), child, reason: reason.clone() };
        hooks.on_notice(&down(child), |_| Some(&second));
        assert_eq!(verbs(&mut jobs), Vec::<String>::new(), "what was replaced is not down");
        hooks.on_notice(&down(new), |_| None);
        assert_eq!(verbs(&mut jobs), ["/bin/first down-client", "/bin/hook"]);
    }
}
