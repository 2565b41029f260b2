//! Commands about pools of virtual addresses.

use ike_proto::config::Pool;
use ike_proto::io::PoolReport;

use super::{failed, success};
use crate::daemon::applied::Origin;
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::swanctl;
use crate::vici::Message;

/// Loads the pools of the message, each in a section of its name.
pub(super) async fn load_pool(daemon: &Daemon, arguments: &Message) -> Message {
    let mut pools = Vec::new();
    for (name, section) in arguments.sections() {
        match swanctl::read_pool(name, section) {
            Ok(pool) => pools.push(pool),
            Err(why) => return failed(why),
        }
    }
    let load = |shell: &mut Shell| match pools.iter().find_map(|pool| objection(shell, pool)) {
        Some(why) => failed(why),
        None => {
            pools.into_iter().for_each(|pool| shell.set_pool(Origin::Socket, pool));
            success()
        }
    };
    daemon.handle.ask(load).await.unwrap_or_else(failed)
}

/// Forgets a pool of which nobody has an address.
pub(super) async fn unload_pool(daemon: &Daemon, arguments: &Message) -> Message {
    let Some(name) = arguments.text("name").map(str::to_owned) else { return failed("missing pool name") };
    let unload = move |shell: &mut Shell| {
        let online = report(shell, &name).map_or(0, |pool| pool.online());
        match shell.applied.pool_origin(&name) {
            None => failed(format!("pool '{name}' not found")),
            Some(Origin::File) => failed(format!("pool '{name}' is from the configuration file: remove it there")),
            Some(Origin::Socket) if online > 0 => {
                failed(format!("pool '{name}' has {online} online leases, unable to unload"))
            }
            Some(Origin::Socket) => {
                shell.remove_pool(&name);
                success()
            }
        }
    };
    daemon.handle.ask(unload).await.unwrap_or_else(failed)
}

/// All pools, or the one of `name`; with `leases` also who has which address.
pub(super) async fn get_pools(daemon: &Daemon, arguments: &Message) -> Message {
    let name = arguments.text("name").map(str::to_owned);
    let with_leases = arguments.is_yes("leases");
    let look = move |shell: &mut Shell| {
        let pools = shell.engine.pools().into_iter();
        let mut message = Message::new();
        for report in pools.filter(|report| name.as_ref().is_none_or(|name| *name == report.pool.name)) {
            message.put_section(&report.pool.name, section(&report, with_leases));
        }
        message
    };
    daemon.handle.ask(look).await.unwrap_or_else(failed)
}

fn report(shell: &Shell, name: &str) -> Option<PoolReport> {
    shell.engine.pools().into_iter().find(|report| report.pool.name == name)
}

/// Why a pool cannot be loaded: the file has one of its name, or peers have addresses that it has not.
fn objection(shell: &Shell, pool: &Pool) -> Option<String> {
    let name = &pool.name;
    if shell.applied.pool_origin(name) == Some(Origin::File) {
        return Some(format!("pool '{name}' is from the configuration file: change it there"));
    }
    let report = report(shell, name).filter(|report| report.pool.addresses != pool.addresses)?;
    let online = report.online();
    (online > 0).then(|| format!("pool '{name}' has {online} online leases, unable to replace"))
}

fn section(report: &PoolReport, with_leases: bool) -> Message {
    let online = report.online();
    let mut section = Message::new()
        .with("base", report.pool.base)
        .with("size", report.pool.size())
        .with("online", online)
        .with("offline", report.leases.len().saturating_sub(online));
    if with_leases {
        let mut leases = Message::new();
        for (index, lease) in report.leases.iter().enumerate() {
            let status = if lease.online { "online" } else { "offline" };
            let lease = Message::new().with("address", lease.address).with("identity", &lease.identity);
            leases.put_section(&index.to_string(), lease.with("status", status));
        }
        section.put_section("leases", leases);
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike_proto::io::LeaseReport;

    #[test]
    fn a_pool_is_shown_with_its_leases_as_strongswan_does() {
        let pool = swanctl::read_pool("rw", &Message::new().with("addrs", "10.3.0.0/24")).unwrap();
        let lease = |last: u8, online| LeaseReport {
            address: [10, 3, 0, last].into(),
            identity: format!("carol{last}"),
            online,
        };
        let report = PoolReport { pool, leases: vec![lease(1, true), lease(2, false)] };
        assert_eq!(
            section(&report, true).to_string(),
            "{base=10.3.0.0 size=254 online=1 offline=1 leases {0 {address=10.3.0.1 identity=carol1 status=online} \
             1 {address=10.3.0.2 identity=carol2 status=offline}}}"
        );
        assert!(section(&report, false).section("leases").is_none());
    }
}
