//! Notices of the engine in the daemon's own log. What comes and goes is told by the name of its connection; addresses of what is
//! behind the gateways stay at `debug`.

use ike_proto::io::{Failure, FailureCode, Notice, RemarkLevel};

use super::phrases;

/// Logs what happened, if it is for people.
#[expect(clippy::wildcard_enum_match_arm, reason = "other notices are for programs, or are in the journal")]
pub(crate) fn trace(notice: &Notice) {
    match notice {
        Notice::IkeUp(sa) => {
            tracing::info!(connection = sa.connection, ike_sa = sa.id.0, "IKE SA established");
        }
        Notice::IkeDown { sa, reason } => {
            let why = phrases::because(reason);
            tracing::info!(connection = sa.connection, ike_sa = sa.id.0, "IKE SA deleted: {why}");
        }
        Notice::IkeRekeyed { sa, .. } => {
            tracing::info!(connection = sa.connection, ike_sa = sa.id.0, "IKE SA rekeyed");
        }
        Notice::IkeMoved { sa, path } => {
            let (connection, ike_sa, before) = (&sa.connection, sa.id.0, sa.path);
            tracing::info!(connection, ike_sa, "IKE SA goes over to another path");
            tracing::debug!(connection, ike_sa, local = %path.local, remote = %path.remote, old_local = %before.local, old_remote = %before.remote, "where it goes");
        }
        Notice::ChildUp { sa, child } => {
            let (connection, ike_sa) = (&sa.connection, sa.id.0);
            tracing::info!(connection, ike_sa, child = child.name, child_sa = child.id.0, "Child SA established");
        }
        Notice::ChildDown { sa, child, reason } => {
            let (connection, ike_sa, why) = (&sa.connection, sa.id.0, phrases::because(reason));
            tracing::info!(connection, ike_sa, child = child.name, child_sa = child.id.0, "Child SA deleted: {why}");
        }
        Notice::ChildRekeyed { sa, old, new } => {
            let (connection, ike_sa) = (&sa.connection, sa.id.0);
            tracing::info!(
                connection,
                ike_sa,
                child = old.name,
                child_sa = old.id.0,
                by = new.id.0,
                "Child SA rekeyed"
            );
        }
        Notice::Failure(failure) => log_failure(failure),
        Notice::Message(message) => {
            let (connection, path, octets) = (&message.connection, message.path, message.octets);
            let direction = if message.sent { "sent" } else { "received" };
            tracing::debug!(connection, local = %path.local, remote = %path.remote, octets, "{direction} {}", message.summary);
        }
        Notice::Abandoned(failure) => {
            let (code, connection, peer) = (failure.code.name(), &failure.connection, failure.peer);
            tracing::debug!(code, connection, ?peer, "{}", failure.what);
        }
        Notice::Repetition(repetition) => {
            let (connection, path, count) = (&repetition.connection, repetition.path, repetition.count);
            let (exchange, message_id) = (repetition.exchange, repetition.message_id);
            let direction = if repetition.sent { "sent again" } else { "received again" };
            tracing::debug!(connection, local = %path.local, remote = %path.remote, count, "{direction} {exchange} {message_id}");
        }
        Notice::Remark { connection, level, text } => match level {
            RemarkLevel::Debug => tracing::debug!(connection, "{text}"),
            RemarkLevel::Info => tracing::info!(connection, "{text}"),
            RemarkLevel::Warn => tracing::warn!(connection, "{text}"),
        },
        _ => {}
    }
}

/// Both sides' view and the way out belong together, so a failure is one event with everything in it. What each side wants to have
/// protected tells of the networks and hosts behind the gateways, and is a detail.
fn log_failure(failure: &Failure) {
    let code = failure.code.name();
    let (connection, child) = (&failure.connection, &failure.child);
    let in_full = in_full(failure);
    if failure.code == FailureCode::TsUnacceptable {
        tracing::warn!(code, connection, child, "{}", failure.what);
        tracing::debug!(code, connection, child, "{in_full}");
    } else {
        tracing::warn!(code, connection, child, "{in_full}");
    }
    if let Some(peer) = failure.peer {
        tracing::debug!(code, connection, %peer, "the peer of this failure");
    }
}

fn in_full(failure: &Failure) -> String {
    let mut text = failure.what.clone();
    for (label, items) in [("ours", &failure.ours), ("theirs", &failure.theirs)] {
        if !items.is_empty() {
            text.push_str(&format!("; {label}: {}", items.join(", ")));
        }
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("; hint: {hint}"));
    }
    text
}
