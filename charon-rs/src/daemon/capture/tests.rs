use espdp_api::{Command, InterfaceName, PolicySpec};
use ike_proto::io::{AskId, SettledCount, Ticket};

use super::*;
use crate::config::ManualPolicy;
use crate::daemon::shell::Waiting;
use crate::daemon::testing::{Wire, ike_sa};

fn wish(connection: Option<&str>) -> Wish {
    Wish {
        file: "x".into(),
        inside: true,
        outside: true,
        ike_plain: true,
        connection: connection.map(str::to_owned),
        snaplen: 65535,
        limit: 100_000,
        rate: 1,
    }
}

#[test]
fn no_capture_begins_while_the_last_one_is_being_written() {
    let (queue, captured) = CaptureQueue::new();
    let progress = Arc::new(Progress::new(wish(None)));
    let captures = Captures { running: None, last: Some(Arc::clone(&progress)) };
    assert_eq!(captures.may_begin(), Err(NotBegun::Unwritten("x".into())));
    drop(queue);
    let (full, _) = oneshot::channel();
    Writer { file: tempfile::tempfile().unwrap(), progress, labels: Labels::default(), full }.run(captured);
    assert_eq!(captures.may_begin(), Ok(()));
}

#[tokio::test]
async fn a_capture_learns_of_policies_as_they_come_and_forgets_them_as_they_go() {
    let (mut shell, _wire) = Wire::shell();
    let (queue, _captured) = CaptureQueue::new();
    let (labels, policies) = (Labels::default(), Some(BTreeSet::new()));
    let running =
        Running { wish: wish(Some("net")), queue, policies, labels: labels.clone(), written: Written::default() };
    shell.captures.running = Some(running);
    let wanted = |shell: &Shell| shell.captures.running.as_ref().unwrap().policies.clone().unwrap();
    // The engine, which has no SA, is not asked.
    let sa = ike_sa();
    let child = sa.children[0].clone();
    let mut other = (sa.clone(), child.clone());
    (other.0.connection, other.1.policy) = ("other".to_owned(), PolicyId(77));
    let (ours, theirs) = (child.policy, other.1.policy);
    for (sa, child) in [(sa, child), other] {
        shell.capture_notice(&Notice::ChildUp { sa: Box::new(sa), child: Box::new(child) });
    }
    assert_eq!(wanted(&shell), BTreeSet::from([ours]));
    assert_eq!([ours, theirs].map(|id| labels.of(id)), [Some("net".to_owned()), Some("net of other".to_owned())]);
    // Policies of the file are there after the next command, and nothing else is gone.
    let spec = PolicySpec::protect(PolicyId(0), InterfaceName::new("ipsec0").unwrap(), Vec::new(), Vec::new());
    shell.set_file_policies(vec![ManualPolicy { name: "net".into(), spec, sas: Vec::new() }]);
    let of_file = shell.applied.manual.policies().next().unwrap().0;
    shell.capture_notice(&Notice::Settled { ticket: Ticket(1), result: Ok(SettledCount { matches: 1, done: 1 }) });
    assert_eq!(wanted(&shell), BTreeSet::from([ours, of_file]));
    assert_eq!([ours, of_file].map(|id| labels.of(id)), [Some("net".to_owned()), Some("policy net".to_owned())]);
    shell.request(Command::RemovePolicy(ours), Waiting::Engine(AskId(1), None));
    assert_eq!((wanted(&shell), labels.of(ours)), (BTreeSet::from([of_file]), None));
}

#[test]
fn the_workers_are_told_of_new_policies_that_are_wanted_and_of_no_others() {
    let (queue, _captured) = CaptureQueue::new();
    let named = |id, connection| BTreeMap::from([(PolicyId(id), PolicyName::of_child(connection, "net"))]);
    let (policies, labels, written) = (Some(BTreeSet::from([PolicyId(2)])), Labels::default(), Written::default());
    let mut running = Running { wish: wish(Some("gw")), queue, policies, labels, written };
    assert_eq!(running.learn(named(1, "gw")), Some(vec![PolicyId(1), PolicyId(2)]));
    assert_eq!(running.learn(named(1, "gw")), None);
    assert_eq!(running.learn(named(3, "other")), None);
    (running.wish.connection, running.policies) = (None, None);
    assert_eq!(running.learn(named(4, "gw")), None, "all are copied");
}
