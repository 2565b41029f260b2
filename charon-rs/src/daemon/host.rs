//! What the host's own network stack is told: the guard follows from all connections, the rest from the file.

use std::time::{Duration, Instant};

use espdp_api::{Command, Done, HostSpec, Outcome, PolicyId, PolicySpec};
use ike_proto::config::Connection;
use ike_proto::configured_policy;
use tokio::sync::oneshot;

use super::applied::{Changes, Wanted};
use super::shell::{Shell, Waiting};

/// The host's network stack as far as it was told.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// What the file says.
    pub(super) file: HostSpec,
    told: Option<HostSpec>,
    /// When to tell it what changed over the control socket, where often many connections come in a row.
    pub(super) due: Option<Instant>,
}

/// What a reload would do.
#[derive(Debug)]
pub(crate) struct Preview {
    /// To connections, by their names.
    pub(crate) changes: Changes,
    /// To interfaces: a line for each.
    pub(crate) interfaces: Vec<String>,
    /// To the host's network stack; the dataplane answers with lines.
    pub(crate) host: oneshot::Receiver<Outcome>,
}

impl Shell {
    /// Notes that connections have changed.
    pub(super) fn host_is_stale(&mut self) {
        self.host.due.get_or_insert_with(|| Instant::now() + SETTLES);
    }

    /// Tells the dataplane what there is to be, if that is something else than before.
    pub(super) fn tell_host(&mut self) {
        self.host.due = None;
        let manual = self.applied.manual_policies().cloned();
        let spec = host_spec(&self.host.file, self.applied.connections(), manual);
        if self.host.told.as_ref() != Some(&spec) {
            self.host.told = Some(spec.clone());
            let what = "the guard and the host's routes and filters are not as configured".to_owned();
            self.request(Command::SetHost(Box::new(spec)), Waiting::Nobody(what));
        }
    }

    /// What [`Self::apply_file`] would do.
    pub(crate) fn preview(&mut self, wanted: &Wanted) -> Preview {
        let (changes, interfaces) = self.differences(wanted);
        let told = self.applied.connections_of_socket();
        let shunts = self.applied.all_shunts().filter(|(_, shunt)| shunt.installs).map(|(_, shunt)| &shunt.policy);
        let manual = wanted.policies.iter().chain(shunts).map(|policy| policy.spec.clone());
        let spec = host_spec(&wanted.host, wanted.connections.iter().chain(told), manual);
        let host = self.ask_dataplane(Command::PlanHost(Box::new(spec)));
        Preview { changes, interfaces, host }
    }
}

/// The lines of a plan.
///
/// # Errors
/// Why there are none.
pub(crate) fn lines(outcome: Outcome) -> Result<Vec<String>, String> {
    match outcome {
        Ok(Done::Plan(lines)) => Ok(lines),
        Ok(other) => Err(format!("the dataplane answers {other:?}")),
        Err(refusal) => Err(refusal.to_string()),
    }
}

/// What the file says, with its own policies and those of all children whose selectors are configured. Those of the other
/// children are guarded while they are set.
fn host_spec<'a>(
    file: &HostSpec,
    connections: impl Iterator<Item = &'a Connection>,
    manual: impl Iterator<Item = PolicySpec>,
) -> HostSpec {
    let of_children = connections.flat_map(|connection| {
        connection.children.iter().filter_map(|child| configured_policy(PolicyId(0), connection, child))
    });
    HostSpec { guarded: of_children.chain(manual).collect(), ..file.clone() }
}

/// So long after the first change over the control socket the guard follows.
const SETTLES: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use espdp_api::{AddressRange, GuardMode, InterfaceName, Routes, TrafficSelector};
    use ike_proto::config::RemoteAddress;

    use super::super::applied::Origin;
    use super::super::applied::tests::{child, connection, wanted};
    use super::*;
    use crate::daemon::testing::Wire;

    fn net(name: &str, remote: &str) -> Connection {
        let selector = |text: &str| {
            let range = AddressRange::single(text.parse().unwrap());
            vec![TrafficSelector::any_protocol(range).into()]
        };
        let net = ike_proto::config::Child {
            local_selectors: selector("10.1.0.1"),
            remote_selectors: selector(remote),
            routes: Routes::FromSelectors,
            ..child("ipsec0")
        };
        Connection { children: vec![net], ..connection(name, 500) }
    }

    fn told(wire: &mut Wire) -> Vec<HostSpec> {
        let spec = |command| if let Command::SetHost(spec) = command { Some(*spec) } else { None };
        wire.requests().into_iter().filter_map(|(_, command)| spec(command)).collect()
    }

    #[tokio::test]
    async fn the_guard_is_told_once_and_follows_what_is_configured_whether_it_is_up_or_not() {
        let (mut shell, mut wire) = Wire::shell();
        let mut file = wanted(&[net("a", "10.2.0.1"), net("b", "10.3.0.1")], &[]);
        file.host.guard = GuardMode::Always;
        shell.apply_file(file.clone());
        let [spec] = told(&mut wire).try_into().unwrap();
        assert_eq!(spec.guarded.len(), 2);
        assert_eq!(spec.guarded[0].interface, InterfaceName::new("ipsec0").unwrap());
        shell.apply_file(file.clone());
        assert!(told(&mut wire).is_empty(), "nothing changed");
        shell.set_connection(Origin::Socket, net("c", "10.4.0.1"));
        assert!(told(&mut wire).is_empty() && shell.host.due.is_some(), "others may follow at once");
        shell.tell_host();
        assert_eq!(told(&mut wire)[0].guarded.len(), 3);
        file.connections.pop();
        shell.apply_file(file);
        assert_eq!(told(&mut wire)[0].guarded.len(), 2);
    }

    #[test]
    fn a_peer_without_an_address_is_guarded_only_when_it_is_there() {
        let anybody = Connection {
            remote_addresses: vec![RemoteAddress::Any],
            children: vec![child("ipsec0")],
            ..connection("a", 500)
        };
        assert!(host_spec(&HostSpec::default(), [&anybody].into_iter(), std::iter::empty()).guarded.is_empty());
    }

    #[tokio::test]
    async fn a_preview_changes_nothing() {
        let (mut shell, mut wire) = Wire::shell();
        shell.apply_file(wanted(&[net("a", "10.2.0.1")], &["ipsec0"]));
        wire.requests();
        let preview = shell.preview(&wanted(&[net("a", "10.9.0.1"), net("b", "10.3.0.1")], &["ipsec1"]));
        assert_eq!((preview.changes.changed, preview.changes.added), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert_eq!(preview.interfaces, ["add interface ipsec1"], "ipsec0 is still needed");
        let [(_, Command::PlanHost(spec))] = &wire.requests()[..] else { panic!("one request") };
        assert_eq!(spec.guarded.len(), 2);
    }
}
