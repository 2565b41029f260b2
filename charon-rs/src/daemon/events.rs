//! Notices of the engine as VICI events.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ike_proto::io::{Failure, IkeState, Notice};

use super::journal::Entry;
use super::report;
use super::shell::Statistics;
use crate::vici::Message;

/// All events that clients can register for.
pub(crate) const NAMES: [&str; 16] = [
    "log",
    "control-log",
    "list-sa",
    "list-policy",
    "list-conn",
    "list-cert",
    "list-authority",
    "list-tunnel",
    "list-mtu",
    "ike-updown",
    "ike-rekey",
    "ike-update",
    "child-updown",
    "child-rekey",
    "trace",
    "explain",
];

/// A line of the journal, as in `log` events; sequence number, time and failure are ours.
pub(crate) fn log(entry: &Entry) -> Message {
    let mut message = control_log(entry);
    message.put("thread", 1);
    message.put("seq", entry.number);
    message.put("time", unix_time(entry.at));
    if let Some(cause) = &entry.failure {
        message.put_section("failure", failure(cause));
    }
    message
}

/// A line of the journal, as in `control-log` events.
pub(crate) fn control_log(entry: &Entry) -> Message {
    let mut message = Message::new().with("group", entry.group).with("level", entry.level);
    message.put_some("ikesa-name", entry.connection.as_deref());
    message.put_some("ikesa-uniqueid", entry.ike_sa.map(|id| id.0));
    message.with("msg", &entry.text)
}

/// A failure as a section.
pub(crate) fn failure(failure: &Failure) -> Message {
    let mut section = Message::new().with("code", failure.code.name()).with("what", &failure.what);
    section.put_some("connection", failure.connection.as_deref());
    section.put_some("child", failure.child.as_deref());
    section.put_some("peer", failure.peer);
    section.put_list("ours", &failure.ours);
    section.put_list("theirs", &failure.theirs);
    section.put_some("hint", failure.hint.as_deref());
    section
}

/// Whether [`updown_or_rekey`] makes an event of it.
pub(crate) fn is_about_an_sa(notice: &Notice) -> bool {
    matches!(
        notice,
        Notice::IkeUp(_)
            | Notice::IkeDown { .. }
            | Notice::IkeRekeyed { .. }
            | Notice::IkeMoved { .. }
            | Notice::ChildUp { .. }
            | Notice::ChildDown { .. }
            | Notice::ChildRekeyed { .. }
    )
}

/// The event for what became of an SA; `last` are counters of SAs that are gone.
#[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
pub(crate) fn updown_or_rekey(notice: &Notice, last: &Statistics, now: Instant) -> Option<(&'static str, Message)> {
    let event = match notice {
        Notice::IkeUp(sa) => ("ike-updown", up(&sa.connection, report::ike_sa(sa, now))),
        Notice::IkeDown { sa, .. } => {
            ("ike-updown", Message::new().with_section(&sa.connection, report::ike_sa(sa, now)))
        }
        Notice::ChildUp { sa, child } => {
            let children =
                Message::new().with_section(&report::child_key(child), report::child_sa(child, Some(last), now));
            ("child-updown", up(&sa.connection, report::ike_sa(sa, now).with_section("child-sas", children)))
        }
        Notice::ChildDown { sa, child, .. } => {
            let gone = report::child_sa(child, Some(last), now).with_text("state", "DELETED");
            let children = Message::new().with_section(&report::child_key(child), gone);
            let section = report::ike_sa(sa, now).with_section("child-sas", children);
            ("child-updown", Message::new().with_section(&sa.connection, section))
        }
        Notice::IkeRekeyed { old, sa } => {
            let mut before = (**sa).clone();
            (before.initiator_spi, before.responder_spi) = *old;
            before.state = IkeState::Rekeying;
            let both = Message::new()
                .with_section("old", report::ike_sa(&before, now))
                .with_section("new", report::ike_sa(sa, now));
            ("ike-rekey", Message::new().with_section(&sa.connection, both))
        }
        Notice::IkeMoved { sa, path } => {
            // The section tells the SA as it was.
            let new = Message::new()
                .with("local-host", path.local.ip())
                .with("local-port", path.local.port())
                .with("remote-host", path.remote.ip())
                .with("remote-port", path.remote.port());
            ("ike-update", new.with_section(&sa.connection, report::ike_sa(sa, now)))
        }
        Notice::ChildRekeyed { sa, old, new } => {
            let both = Message::new()
                .with_section("old", report::child_sa(old, Some(last), now).with_text("state", "REKEYED"))
                .with_section("new", report::child_sa(new, Some(last), now));
            let children = Message::new().with_section(&old.name, both);
            let section = report::ike_sa(sa, now).with_section("child-sas", children);
            ("child-rekey", Message::new().with_section(&sa.connection, section))
        }
        _ => return None,
    };
    Some(event)
}

/// Seconds since 1970 with milliseconds.
pub(crate) fn unix_time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}", since.as_secs(), since.subsec_millis())
}

fn up(connection: &str, section: Message) -> Message {
    Message::new().with("up", "yes").with_section(connection, section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;
    use ike_proto::io::DownReason;

    #[test]
    fn going_up_and_down_differ_by_the_first_key() {
        let sa = Box::new(testing::ike_sa());
        let now = Instant::now();
        let (name, message) = updown_or_rekey(&Notice::IkeUp(sa.clone()), &Statistics::default(), now).unwrap();
        assert_eq!((name, message.is_yes("up")), ("ike-updown", true));
        let child = Box::new(sa.children.first().unwrap().clone());
        let down = Notice::ChildDown { sa, child, reason: DownReason::PeerDeleted };
        let (name, message) = updown_or_rekey(&down, &Statistics::default(), now).unwrap();
        assert_eq!((name, message.text("up")), ("child-updown", None));
        assert!(message.section("net").unwrap().section("child-sas").unwrap().section("net-1").is_some());
    }

    #[test]
    fn an_ike_sa_that_moves_is_told_with_where_it_goes_and_as_it_was() {
        let sa = Box::new(testing::ike_sa());
        let path = espdp_api::IkePath { local: "[2001:db8::1]:4500".parse().unwrap(), remote: sa.path.remote };
        let moved = Notice::IkeMoved { sa, path };
        assert!(is_about_an_sa(&moved));
        let (name, message) = updown_or_rekey(&moved, &Statistics::default(), Instant::now()).unwrap();
        assert_eq!(name, "ike-update");
        assert_eq!(message.text("local-host"), Some("2001:db8::1"));
        assert_eq!(message.text("remote-port"), Some("4500"));
        assert_eq!(message.section("net").unwrap().text("local-host"), Some("192.168.0.1"));
    }

    #[test]
    fn a_rekeyed_ike_sa_shows_both_pairs_of_spis() {
        let sa = Box::new(testing::ike_sa());
        let old = (ike_proto::io::IkeSpi([1; 8]), ike_proto::io::IkeSpi([2; 8]));
        let (_, message) =
            updown_or_rekey(&Notice::IkeRekeyed { old, sa }, &Statistics::default(), Instant::now()).unwrap();
        let both = message.section("net").unwrap();
        assert_eq!(both.section("old").unwrap().text("initiator-spi"), Some("0101010101010101"));
        assert_eq!(both.section("new").unwrap().text("initiator-spi"), Some("0158b8fb90b7623d"));
    }
}
