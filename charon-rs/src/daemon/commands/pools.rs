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
    let load = |shell: &mut Shell| match objection_to_any(shell, &pools) {
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

/// Why these pools cannot be loaded together.
fn objection_to_any(shell: &Shell, pools: &[Pool]) -> Option<String> {
    pools.iter().find_map(|pool| objection(shell, pool)).or_else(|| overlap(shell, pools))
}

/// The first of these pools that has addresses of another one, which is new as well or stays.
fn overlap(shell: &Shell, pools: &[Pool]) -> Option<String> {
    let stays = |known: &&Pool| pools.iter().all(|pool| pool.name != known.name);
    let known: Vec<&Pool> = shell.applied.pools().filter(stays).collect();
    pools.iter().enumerate().find_map(|(index, pool)| {
        let mut others = pools.iter().take(index).chain(known.iter().copied());
        let other = others.find(|other| other.overlaps(pool))?;
        let (name, addresses, other_name, theirs) = (&pool.name, pool.addresses, &other.name, other.addresses);
        Some(format!("pool '{name}' ({addresses}) and pool '{other_name}' ({theirs}) have addresses in common"))
    })
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
    use crate::daemon::testing::Wire;
    use ike_proto::io::LeaseReport;

    fn pool(name: &str, addresses: &str) -> Pool {
        swanctl::read_pool(name, &Message::new().with("addrs", addresses)).unwrap()
    }

    /// Two peers would get the same address.
    #[tokio::test]
    async fn pools_that_have_addresses_in_common_are_refused_by_their_names() {
        let (mut shell, _wire) = Wire::shell();
        shell.set_pool(Origin::File, pool("file", "10.3.0.0/24"));
        shell.set_pool(Origin::Socket, pool("told", "10.4.0.0/24"));
        let refused = |pools: &[Pool]| objection_to_any(&shell, pools);
        for (pools, other) in [
            (vec![pool("new", "10.3.0.128/25")], "file"),
            (vec![pool("new", "10.0.0.0/8")], "file"),
            (vec![pool("new", "10.4.0.9")], "told"),
            (vec![pool("first", "10.5.0.0/16"), pool("new", "10.5.7.0/24")], "first"),
            (vec![pool("told", "10.6.0.0/24"), pool("new", "10.6.0.0/25")], "told"),
        ] {
            let why = refused(&pools).expect("it is refused");
            assert!(why.contains("'new'") && why.contains(&format!("'{other}'")), "{why}");
        }
        assert_eq!(refused(&[pool("told", "10.4.0.0/23")]), None, "it takes its own place");
        assert_eq!(refused(&[pool("told", "10.6.0.0/24"), pool("new", "10.4.0.0/24")]), None, "told goes elsewhere");
        assert_eq!(refused(&[pool("new", "fec3::/64"), pool("more", "10.5.0.0/16")]), None);
    }

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
