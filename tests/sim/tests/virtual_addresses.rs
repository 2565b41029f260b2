//! Road warriors over a bad network: whatever is lost, rekeyed, authenticated anew or rebooted, each keeps its own address.

use std::collections::BTreeMap;
use std::time::Duration;

use espdp_api::AddressRange;
use ike_proto::Settings;
use ike_proto::config::{ChildSelector, Connection, Dpd, DpdAction, Lifetime, Pool, RemoteAddress, Uniqueness};
use ike_proto::identity::{Identity, IdentityPattern};
use ike_proto::io::{Command, Ticket};
use sim::{Faults, HostId, World, address, connection, for_seeds, secret};

const GATEWAY: &str = "192.0.2.1";
const CLIENTS: [&str; 3] = ["192.0.2.11", "192.0.2.12", "192.0.2.13"];

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Everybody is rekeyed often, and clients authenticate themselves anew.
fn short_lives(connection: &mut Connection) {
    let lifetime = |after| Lifetime {
        rekey_after: Some(seconds(after)),
        jitter: Duration::from_millis(after * 200),
        expire_after: Some(seconds(after * 20)),
    };
    connection.ike_lifetime = lifetime(70);
    connection.children.iter_mut().for_each(|child| child.lifetime = lifetime(40));
    connection.dpd = Some(Dpd { delay: seconds(20), action: DpdAction::Restart });
}

fn client(here: &str) -> Connection {
    let mut client = connection(address(here), address(GATEWAY));
    short_lives(&mut client);
    client.reauth_after = Some(seconds(150));
    client.local.identity = Some(Identity::Fqdn(format!("{here}.example")));
    client.virtual_addresses = vec![address("0.0.0.0")];
    client.children[0].local_selectors = vec![ChildSelector::HOST];
    client
}

fn gateway() -> Connection {
    let mut gateway = connection(address(GATEWAY), address(CLIENTS[0]));
    short_lives(&mut gateway);
    gateway.dpd = Some(Dpd { delay: seconds(20), action: DpdAction::Clear });
    gateway.remote_addresses = vec![RemoteAddress::Any];
    gateway.remote.identity = IdentityPattern::Any;
    gateway.uniqueness = Uniqueness::Replace;
    gateway.pools = vec!["pool".to_owned()];
    gateway.children[0].remote_selectors = vec![ChildSelector::HOST];
    gateway
}

fn connect(world: &mut World, host: HostId, here: &str) {
    world.command(host, Command::SetSecret(secret()));
    world.command(host, Command::SetConnection(Box::new(client(here))));
    let command = Command::Initiate { ticket: Ticket(1), connection: Some("net".into()), child: None };
    world.command(host, command);
}

/// The addresses of each client, as it sees them.
fn seen(world: &World, clients: &[HostId]) -> Vec<Vec<String>> {
    let of = |host: &HostId| {
        let sas = world.host(*host).established().into_iter();
        let mut addresses: Vec<String> = sas.flat_map(|sa| sa.local_virtual).map(|ip| ip.to_string()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    };
    clients.iter().map(of).collect()
}

/// No address of the gateway's is for two.
fn assert_nobody_shares(world: &World, gateway: HostId) {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for sa in world.host(gateway).established() {
        let peer = sa.remote_id.unwrap_or_default();
        for address in sa.remote_virtual {
            let owner = owners.entry(address.to_string()).or_insert_with(|| peer.clone());
            assert_eq!(*owner, peer, "{address}:\n{}", world.story());
        }
    }
}

#[test]
fn each_road_warrior_keeps_its_address_whatever_happens() {
    for_seeds(40, |seed| {
        let mut world = World::new(seed, Faults::BAD);
        let settings = Settings::default();
        let moon = world.add(address(GATEWAY), settings.clone());
        let addresses = AddressRange::new(address("10.3.0.1"), address("10.3.0.3")).unwrap();
        let pool = Pool { name: "pool".to_owned(), base: addresses.start(), addresses, attributes: Vec::new() };
        world.command(moon, Command::SetSecret(secret()));
        world.command(moon, Command::SetPool(pool));
        world.command(moon, Command::SetConnection(Box::new(gateway())));
        let clients = CLIENTS.map(|here| world.add(address(here), settings.clone()));
        for (host, here) in clients.iter().zip(CLIENTS) {
            connect(&mut world, *host, here);
        }
        let up = world.run_until(seconds(120), |world| seen(world, &clients).iter().all(|own| own.len() == 1));
        assert!(up, "not all are up:\n{}", world.story());
        let given = seen(&world, &clients);
        for round in 0..30 {
            world.run(seconds(20));
            assert_nobody_shares(&world, moon);
            if round == 12 {
                let host = clients[usize::try_from(seed).unwrap() % clients.len()];
                world.host_mut(host).reboot(settings.clone(), seed + 1000);
                connect(&mut world, host, CLIENTS[usize::try_from(seed).unwrap() % clients.len()]);
            }
            for (own, first) in seen(&world, &clients).iter().zip(&given) {
                assert!(own.is_empty() || own == first, "{own:?} was {first:?}:\n{}", world.story());
            }
        }
        world.set_faults(Faults::NONE);
        let up = world.run_until(seconds(300), |world| seen(world, &clients) == given);
        assert!(up, "{:?} was {given:?}:\n{}", seen(&world, &clients), world.story());
        let pools = world.host(moon).engine.pools();
        assert_eq!((pools[0].leases.len(), pools[0].online()), (3, 3), "{}", world.story());
    });
}
