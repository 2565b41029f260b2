//! What a reload would change.

use super::{failed, success};
use crate::daemon::host::lines;
use crate::daemon::service::Daemon;
use crate::vici::Message;

/// Reads the files and says what applying them would do: to connections by name, to interfaces, and to the host's network stack.
pub(super) async fn plan(daemon: &Daemon) -> Message {
    let (wanted, warnings) = match daemon.read().await {
        Ok(read) => read,
        Err(why) => return failed(why),
    };
    let preview = match daemon.handle.ask(move |shell| shell.preview(&wanted)).await {
        Ok(preview) => preview,
        Err(gone) => return failed(gone),
    };
    let Ok(outcome) = preview.host.await else { return failed("the daemon is shutting down") };
    let host = match lines(outcome) {
        Ok(host) => host,
        Err(why) => return failed(why),
    };
    let mut answer = success();
    answer.put_list("added", &preview.changes.added);
    answer.put_list("changed", &preview.changes.changed);
    answer.put_list("live", &preview.changes.live);
    answer.put_list("next-rekey", &preview.changes.at_rekey);
    answer.put_list("removed", &preview.changes.removed);
    answer.put_list("unchanged", &preview.changes.unchanged);
    answer.put_list("interfaces", &preview.interfaces);
    answer.put_list("host", &host);
    answer.put_list("warnings", &warnings);
    answer
}
