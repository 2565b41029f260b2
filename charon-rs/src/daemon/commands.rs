//! The commands of the control socket.
//!
//! | module | commands |
//! |---|---|
//! | `control` | initiate, terminate, rekey, redirect, install, uninstall |
//! | `query` | version, stats, list-*, get-*, counters |
//! | `own` | what only our tools use: list-tunnels, journal, keys, reload |
//! | `explain` | explain |
//! | `mtu` | list-mtus |
//! | `trace` | trace-packets, list-traces |
//! | `capture` | capture-start, capture-stop, capture-show |
//! | `whatif` | what-if |
//! | `plan` | plan |
//! | `pools` | load-pool, unload-pool, get-pools |
//! | `load` | load-conn, load-shared, load-cert, load-key, load-authority and what takes them back |
//! | `logs` | log-level, log-levels |
//! | `certificates` | list-certs, list-authorities |

mod capture;
mod certificates;
mod control;
mod explain;
mod load;
mod logs;
mod mtu;
mod own;
mod plan;
mod pools;
mod query;
mod trace;
mod whatif;

use std::fmt;

use super::service::Daemon;
use crate::vici::{Message, Streamer};

/// Carries out the command of this name; `None` when there is none.
pub(crate) async fn call(daemon: &Daemon, name: &str, arguments: &Message, streamer: &Streamer) -> Option<Message> {
    let answer = match name {
        "initiate" => control::initiate(daemon, arguments, streamer).await,
        "terminate" => control::terminate(daemon, arguments, streamer).await,
        "rekey" => control::rekey(daemon, arguments).await,
        "redirect" => control::redirect(daemon, arguments).await,
        "install" => control::install(daemon, arguments).await,
        "uninstall" => control::uninstall(daemon, arguments).await,
        "version" => query::version(),
        "stats" => query::stats(daemon).await,
        "list-sas" => query::list_sas(daemon, arguments, streamer).await,
        "list-conns" => query::list_conns(daemon, arguments, streamer).await,
        "list-policies" => query::list_policies(daemon, arguments, streamer).await,
        "list-certs" => certificates::list_certs(daemon, arguments, streamer).await,
        "list-authorities" => certificates::list_authorities(daemon, arguments, streamer).await,
        "get-pools" => pools::get_pools(daemon, arguments).await,
        "load-pool" => pools::load_pool(daemon, arguments).await,
        "unload-pool" => pools::unload_pool(daemon, arguments).await,
        "load-token" => load::load_token(),
        "load-cert" => load::credentials::load_cert(daemon, arguments).await,
        "load-key" => load::credentials::load_key(daemon, arguments).await,
        "unload-key" => load::credentials::unload_key(daemon, arguments).await,
        "get-keys" => load::credentials::get_keys(daemon).await,
        "load-authority" => load::credentials::load_authority(daemon, arguments).await,
        "unload-authority" => load::credentials::unload_authority(daemon, arguments).await,
        "get-authorities" => load::credentials::get_authorities(daemon).await,
        "flush-certs" => load::credentials::flush_certs(daemon).await,
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
        "reload" => own::reload(daemon).await,
        "reload-settings" => own::reload_settings(daemon).await,
        "plan" => plan::plan(daemon).await,
        "names" => own::names(daemon).await,
        "list-tunnels" => own::list_tunnels(daemon, arguments, streamer).await,
        "journal" => own::journal(daemon, arguments, streamer).await,
        "keys" => own::keys(daemon).await,
        "log-level" => logs::set_level(daemon, arguments).await,
        "log-levels" => logs::levels(daemon).await,
        "explain" => explain::explain(daemon, arguments, streamer).await,
        "list-mtus" => mtu::list(daemon, arguments, streamer).await,
        "capture-start" => capture::start(daemon, arguments).await,
        "capture-stop" => capture::stop(daemon).await,
        "capture-show" => capture::show(daemon).await,
        "what-if" => whatif::ask(daemon, arguments).await,
        "trace-packets" => trace::add(daemon, arguments).await,
        "list-traces" => trace::show(daemon, streamer).await,
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
