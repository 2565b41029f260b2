//! The commands of the control socket.
//!
//! | module | commands |
//! |---|---|
//! | `control` | initiate, terminate, rekey |
//! | `query` | version, stats, list-*, get-*, counters |
//! | `own` | what only our tools use: list-tunnels, journal, keys, reload |
//! | `load` | load-conn, load-shared and what takes them back |

mod control;
mod load;
mod own;
mod query;

use std::fmt;

use super::service::Daemon;
use crate::vici::{Message, Streamer};

/// Carries out the command of this name; `None` when there is none.
pub(crate) async fn call(daemon: &Daemon, name: &str, arguments: &Message, streamer: &Streamer) -> Option<Message> {
    let answer = match name {
        "initiate" => control::initiate(daemon, arguments, streamer).await,
        "terminate" => control::terminate(daemon, arguments, streamer).await,
        "rekey" => control::rekey(daemon, arguments).await,
        "version" => query::version(),
        "stats" => query::stats(daemon).await,
        "list-sas" => query::list_sas(daemon, arguments, streamer).await,
        "list-conns" => query::list_conns(daemon, arguments, streamer).await,
        "list-policies" => query::list_policies(daemon, arguments, streamer).await,
        // Certificates, authorities and pools do not exist here yet, so there are none to list or to flush.
        "list-certs" | "list-authorities" | "get-pools" => Message::new(),
        "get-keys" => empty_list("keys"),
        "get-authorities" => empty_list("authorities"),
        "flush-certs" => success(),
        "get-algorithms" => query::get_algorithms(),
        "get-counters" => query::get_counters(daemon, arguments).await,
        "reset-counters" => query::reset_counters(daemon, arguments).await,
        "get-conns" => load::get_conns(daemon).await,
        "get-shared" => load::get_shared(daemon).await,
        "load-conn" => load::load_conn(daemon, arguments).await,
        "unload-conn" => load::unload_conn(daemon, arguments).await,
        "load-shared" => load::load_shared(daemon, arguments).await,
        "unload-shared" => load::unload_shared(daemon, arguments).await,
        "clear-creds" => load::clear_creds(daemon).await,
        "reload" | "reload-settings" => own::reload(daemon).await,
        "list-tunnels" => own::list_tunnels(daemon, arguments, streamer).await,
        "journal" => own::journal(daemon, arguments, streamer).await,
        "keys" => own::keys(daemon).await,
        _ => return None,
    };
    Some(answer)
}

fn success() -> Message {
    Message::new().with("success", "yes")
}

fn failed(why: impl fmt::Display) -> Message {
    Message::new().with("success", "no").with("errmsg", why)
}

fn empty_list(name: &str) -> Message {
    let mut message = Message::new();
    message.put_list(name, [""; 0]);
    message
}
