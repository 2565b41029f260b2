//! Virtual addresses from the request to the end: Moon is a client, Sun has a pool.

use std::net::IpAddr;
use std::time::Duration;

use espdp_api::AddressRange;

use super::super::ike_sa::IkeSa;
use super::super::testbed::{Datagram, Fate, NEVER, Who, World, connection, secret, two_children};
use crate::config::{
    ChildSelector, Childless, Connection, Lifetime, LocalAuth, LocalMethod, Pool, RemoteAddress, StartAction,
    Uniqueness,
};
use crate::identity::{Identity, IdentityPattern};
use crate::io::{Command, FailureCode, IkeSaReport, Notice, Target, Ticket};
use crate::wire::{ConfigurationAttribute, ExchangeType, MessageKind};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pool(name: &str, start: &str, end: &str) -> Pool {
    let addresses = AddressRange::new(ip(start), ip(end)).unwrap();
    Pool { name: name.to_owned(), base: addresses.start(), addresses, attributes: Vec::new() }
}

/// Moon asks for any IPv4 address, and Sun gives one to anybody.
fn road_warrior(who: Who, connection: &mut Connection) {
    let child = &mut connection.children[0];
    match who {
        Who::Moon => {
            connection.virtual_addresses = vec![ip("0.0.0.0")];
            child.local_selectors = vec![ChildSelector::HOST];
        }
        Who::Sun => {
            connection.pools = vec!["pool".to_owned()];
            connection.remote_addresses = vec![RemoteAddress::Any];
            connection.remote.identity = IdentityPattern::Any;
            child.remote_selectors = vec![ChildSelector::HOST];
        }
    }
}

/// The same with changes, and a pool of three addresses.
fn world(adapt: impl Fn(Who, &mut Connection)) -> World {
    let mut world = World::with(|who, connection| {
        road_warrior(who, connection);
        adapt(who, connection);
    });
    world.command(Who::Sun, Command::SetPool(pool("pool", "10.3.0.1", "10.3.0.3")));
    world
}

fn same(_: Who, _: &mut Connection) {}

/// Moon is somebody else from now on.
fn become_carol(world: &mut World) {
    let mut carol = connection(Who::Moon);
    road_warrior(Who::Moon, &mut carol);
    carol.name = "carol".to_owned();
    carol.local.identity = Some(Identity::Fqdn("carol".to_owned()));
    world.command(Who::Moon, Command::SetConnection(Box::new(carol)));
}

fn given(world: &mut World) -> Vec<String> {
    let (moon, sun) = (world.only_ike_sa(Who::Moon), world.only_ike_sa(Who::Sun));
    assert_eq!(moon.local_virtual, sun.remote_virtual, "both ends mean the same");
    assert!(moon.remote_virtual.is_empty() && sun.local_virtual.is_empty());
    moon.local_virtual.iter().map(ToString::to_string).collect()
}

fn selectors(sa: &IkeSaReport) -> (Vec<String>, Vec<String>) {
    let texts = |selectors: &[espdp_api::TrafficSelector]| selectors.iter().map(ToString::to_string).collect();
    (texts(&sa.children[0].local), texts(&sa.children[0].remote))
}

fn terminate(world: &mut World, who: Who) {
    world.terminate(who, Target::Connection("net-net".into()));
}

fn online(world: &World) -> usize {
    world.sun.engine.pools()[0].online()
}

#[test]
fn the_address_that_is_given_is_what_the_tunnel_is_for() {
    let mut world = world(same);
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert_eq!(given(&mut world), ["10.3.0.1"]);
    let (moon, sun) = (world.only_ike_sa(Who::Moon), world.only_ike_sa(Who::Sun));
    assert_eq!(selectors(&moon), (vec!["10.3.0.1/32".into()], vec!["10.2.0.0/16".into()]));
    assert_eq!(selectors(&sun), (vec!["10.2.0.0/16".into()], vec!["10.3.0.1/32".into()]));
    assert!(world.moon.dataplane.virtual_addresses.values().eq([&vec![ip("10.3.0.1")]]));
    assert!(world.sun.dataplane.virtual_addresses.values().all(Vec::is_empty));
    assert_eq!(online(&world), 1);
    terminate(&mut world, Who::Moon);
    world.assert_nothing_left();
    assert_eq!(online(&world), 0);
}

#[test]
fn both_families_come_with_their_servers_and_domains() {
    let mut world = world(|who, connection| match who {
        Who::Moon => connection.virtual_addresses = vec![ip("0.0.0.0"), ip("::")],
        Who::Sun => {
            connection.pools = vec!["pool".to_owned(), "six".to_owned()];
            connection.pool_attributes = vec![ConfigurationAttribute::Ip4Dns(Some([10, 2, 0, 53].into()))];
        }
    });
    let attributes = vec![
        ConfigurationAttribute::Ip6Dns(Some("fec2::53".parse().unwrap())),
        ConfigurationAttribute::of_domain("corp.example").unwrap(),
        ConfigurationAttribute::Other { kind: 28_675, value: b"hello".to_vec() },
    ];
    world.command(Who::Sun, Command::SetPool(Pool { attributes, ..pool("six", "fec3::1", "fec3::f") }));
    world.initiate(Who::Moon);
    assert_eq!(given(&mut world), ["10.3.0.1", "fec3::1"]);
    let moon = world.only_ike_sa(Who::Moon);
    assert_eq!(moon.name_servers, [ip("10.2.0.53"), ip("fec2::53")]);
    assert_eq!(moon.domains, ["corp.example"]);
    let (local, _) = selectors(&moon);
    assert_eq!(local, ["10.3.0.1/32", "fec3::1/128"]);
}

#[test]
fn domains_say_nothing_where_all_traffic_goes_through_the_tunnel() {
    let everything = || espdp_api::TrafficSelector::any_protocol(AddressRange::whole(true));
    let mut world = world(|who, connection| {
        let child = &mut connection.children[0];
        match who {
            Who::Moon => child.remote_selectors = vec![everything().into()],
            Who::Sun => child.local_selectors = vec![everything().into()],
        }
    });
    let attributes = vec![
        ConfigurationAttribute::Ip4Dns(Some([10, 2, 0, 53].into())),
        ConfigurationAttribute::of_domain("example").unwrap(),
    ];
    world.command(Who::Sun, Command::SetPool(Pool { attributes, ..pool("pool", "10.3.0.1", "10.3.0.3") }));
    world.initiate(Who::Moon);
    let moon = world.only_ike_sa(Who::Moon);
    assert_eq!((moon.name_servers.len(), moon.domains.len()), (1, 0));
}

#[test]
fn a_family_that_the_pool_has_not_is_left_out() {
    let mut world = world(|who, connection| {
        if who == Who::Moon {
            connection.virtual_addresses = vec![ip("::"), ip("0.0.0.0")];
        }
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert_eq!(given(&mut world), ["10.3.0.1"]);
}

#[test]
fn a_client_gets_one_address_of_each_family_however_many_it_asks_for() {
    let mut world = world(|who, connection| {
        if who == Who::Moon {
            connection.virtual_addresses = vec![ip("10.3.0.2"), ip("0.0.0.0"), ip("10.3.0.3")];
        }
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert_eq!(given(&mut world), ["10.3.0.2"]);
    assert_eq!(online(&world), 1);
}

#[test]
fn a_wanted_address_is_given_if_it_is_free() {
    let mut world = world(|who, connection| {
        if who == Who::Moon {
            connection.virtual_addresses = vec![ip("10.3.0.2")];
        }
    });
    world.initiate(Who::Moon);
    assert_eq!(given(&mut world), ["10.3.0.2"]);
    terminate(&mut world, Who::Moon);
    world.command(Who::Sun, Command::SetPool(pool("pool", "10.3.0.7", "10.3.0.8")));
    world.initiate(Who::Moon);
    assert_eq!(given(&mut world), ["10.3.0.7"], "the reply counts");
    let is_told =
        |notice: &Notice| matches!(notice, Notice::Remark { text, .. } if text.contains("than the one that we asked"));
    assert_eq!(world.moon.notices.iter().filter(|notice| is_told(notice)).count(), 1);
    world.assert_agreement(1);
}

#[test]
fn a_client_gets_its_address_again_and_others_get_others() {
    let mut world = world(same);
    world.initiate(Who::Moon);
    become_carol(&mut world);
    world.initiate_of(Who::Moon, "carol", None);
    let addresses: Vec<_> = world.ike_sas(Who::Moon).iter().flat_map(|sa| sa.local_virtual.clone()).collect();
    assert_eq!(addresses.len(), 2);
    assert_eq!(online(&world), 2);
    terminate(&mut world, Who::Moon);
    world.terminate(Who::Moon, Target::Connection("carol".into()));
    world.initiate_of(Who::Moon, "carol", None);
    assert_eq!(given(&mut world), ["10.3.0.2"], "carol's own");
}

/// RFC 7296 §3.15.4.
#[test]
fn an_exhausted_pool_leaves_an_ike_sa_without_a_child_which_the_client_ends() {
    let mut world = world(same);
    world.command(Who::Sun, Command::SetPool(pool("pool", "10.3.0.1", "10.3.0.1")));
    world.initiate(Who::Moon);
    become_carol(&mut world);
    let ticket = world.initiate_of(Who::Moon, "carol", None);
    assert!(world.settled(Who::Moon, ticket).unwrap_err().contains("INTERNAL_ADDRESS_FAILURE"));
    assert_eq!(world.failures(Who::Sun), [FailureCode::PoolExhausted]);
    assert_eq!(world.failures(Who::Moon), [FailureCode::AddressRefused]);
    let ups = |world: &World| world.sun.notices.iter().filter(|notice| matches!(notice, Notice::IkeUp(_))).count();
    assert_eq!(ups(&world), 2, "the responder had an IKE SA");
    assert_eq!(world.ike_sas(Who::Sun).len(), 1, "and the client deleted it");
    assert_eq!(given(&mut world), ["10.3.0.1"], "the first one is not touched");
    terminate(&mut world, Who::Moon);
    world.initiate_of(Who::Moon, "carol", None);
    assert_eq!(given(&mut world), ["10.3.0.1"]);
}

/// R7296-2.19-2.
#[test]
fn a_client_that_asks_for_nothing_gets_no_child_now_or_later_and_keeps_its_ike_sa() {
    let mut world = world(|who, connection| {
        if who == Who::Moon {
            connection.virtual_addresses.clear();
        }
    });
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Sun), [FailureCode::AddressNotAskedFor]);
    assert_eq!(world.failures(Who::Moon), [FailureCode::AddressNotAskedFor]);
    assert_eq!(world.only_ike_sa(Who::Sun).children.len(), 0);
    let ticket = world.initiate_child(Who::Moon, Some("net"));
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Response), 1);
    assert_eq!(world.failures(Who::Moon).len(), 2);
    assert_eq!(world.only_ike_sa(Who::Moon).children.len(), 0);
}

/// While Sun's answer to IKE_AUTH is under way, Moon changes its mind about what it asks for.
fn ask_otherwise(world: &mut World, asking: &[IpAddr]) -> Ticket {
    let is_answer = |datagram: &Datagram| datagram.is(ExchangeType::IkeAuth, MessageKind::Response);
    world.network(move |datagram| if is_answer(datagram) { Fate::Hold } else { Fate::Deliver });
    let ticket = world.initiate(Who::Moon);
    let spi = *world.moon.engine.sas.keys().next().unwrap();
    world.moon.engine.with_sa(spi, |mut sa, _| {
        let IkeSa::InitiatorAuth(auth) = &mut sa else { panic!("moon waits for a response") };
        auth.handshake.session.virtual_addresses.asking = asking.to_vec();
        Some(sa)
    });
    world.repair_network();
    world.release();
    ticket
}

#[test]
fn a_client_for_which_there_was_no_address_is_told_so_again_when_it_wants_a_child() {
    let mut world = world(same);
    world.command(Who::Sun, Command::SetPool(pool("pool", "fec3::1", "fec3::1")));
    ask_otherwise(&mut world, &[]);
    assert_eq!(world.failures(Who::Sun), [FailureCode::NoPool]);
    let ticket = world.initiate_child(Who::Moon, Some("net"));
    assert!(world.settled(Who::Moon, ticket).unwrap_err().contains("INTERNAL_ADDRESS_FAILURE"));
    let failures = world.failure_reports(Who::Sun);
    assert_eq!(failures.last().unwrap().code, FailureCode::NoPool);
    assert_eq!(world.only_ike_sa(Who::Sun).children.len(), 0);
}

/// RFC 7296 §2.21.2: the peer may refuse the child without a word about addresses.
#[test]
fn what_else_the_gateway_refuses_is_not_taken_for_the_address() {
    let mut world = World::with(|who, connection| {
        if who == Who::Sun {
            connection.children[0].esp_proposals = vec!["chacha20poly1305".parse().unwrap()];
        }
    });
    let ticket = ask_otherwise(&mut world, &[ip("0.0.0.0")]);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::ChildNoProposal]);
    world.assert_nothing_left();
}

#[test]
fn a_gateway_without_a_pool_says_so() {
    let mut world = world(|who, connection| {
        if who == Who::Sun {
            connection.pools.clear();
        }
    });
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Sun), [FailureCode::NoPool]);
    assert_eq!(world.failures(Who::Moon), [FailureCode::AddressRefused]);
    world.assert_nothing_left();
}

#[test]
fn a_pool_that_does_not_exist_is_named() {
    let mut world = world(same);
    world.command(Who::Sun, Command::RemovePool("pool".to_owned()));
    world.initiate(Who::Moon);
    let failures = world.failure_reports(Who::Sun);
    assert_eq!(failures[0].code, FailureCode::NoPool);
    assert_eq!(failures[0].ours, ["pool `pool`, which does not exist"]);
}

#[test]
fn an_address_that_no_host_can_have_counts_as_none() {
    for bad in ["127.0.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "192.0.2.2", "169.254.0.1", "0.0.0.0"] {
        let mut world = world(same);
        world.command(Who::Sun, Command::SetPool(pool("pool", bad, bad)));
        world.initiate(Who::Moon);
        assert_eq!(world.failures(Who::Moon), [FailureCode::AddressRefused], "{bad}");
        world.assert_nothing_left();
    }
}

#[test]
fn the_address_stays_over_rekeyings_and_new_authentications() {
    let mut world = world(|who, connection| {
        if who == Who::Moon {
            let lifetime = |seconds| Lifetime { rekey_after: Some(Duration::from_secs(seconds)), ..NEVER };
            connection.reauth_after = Some(Duration::from_secs(100));
            connection.ike_lifetime = lifetime(35);
            connection.children[0].lifetime = lifetime(20);
        }
    });
    world.initiate(Who::Moon);
    let first = world.only_ike_sa(Who::Moon).id;
    for _ in 0..30 {
        world.pass(Duration::from_secs(10));
        world.assert_traffic_flows(1);
        assert!(world.ike_sas(Who::Moon).iter().all(|sa| sa.local_virtual == [ip("10.3.0.1")]));
        assert_eq!(world.sun.engine.pools()[0].leases.len(), 1);
    }
    world.pass(Duration::from_secs(3));
    assert_ne!(world.only_ike_sa(Who::Moon).id, first);
    assert_eq!(given(&mut world), ["10.3.0.1"]);
    terminate(&mut world, Who::Sun);
    world.assert_nothing_left();
    assert_eq!(online(&world), 0);
}

#[test]
fn the_gateway_may_rekey_as_well() {
    let mut world = world(same);
    world.initiate(Who::Moon);
    world.rekey(Who::Sun, Target::Connection("net-net".into()));
    world.rekey(Who::Sun, Target::Child { connection: None, child: "net".into() });
    world.pass(Duration::from_secs(10));
    world.assert_agreement(1);
    assert_eq!((given(&mut world), online(&world)), (vec!["10.3.0.1".to_owned()], 1));
}

#[test]
fn the_address_stays_when_the_client_goes_elsewhere() {
    let mut world = world(|who, connection| {
        if who == Who::Moon {
            connection.local_addresses.clear();
        }
    });
    world.initiate(Who::Moon);
    let before = world.only_ike_sa(Who::Moon).children[0].spi_in;
    world.readdress(Who::Moon, &["192.0.2.77"]);
    world.assert_agreement(1);
    assert_eq!(given(&mut world), ["10.3.0.1"]);
    let after = world.only_ike_sa(Who::Moon);
    assert_eq!(after.path.local.ip(), ip("192.0.2.77"));
    assert_eq!(after.children[0].spi_in, before, "the child is for the virtual address, which has not moved");
}

#[test]
fn a_client_that_has_lost_everything_gets_its_address_again() {
    for uniqueness in [Uniqueness::No, Uniqueness::Replace] {
        let mut world = world(|who, connection| {
            if who == Who::Sun {
                connection.uniqueness = uniqueness;
            }
        });
        world.initiate(Who::Moon);
        world.pass(Duration::from_secs(1));
        world.crash_moon();
        let mut moon = connection(Who::Moon);
        road_warrior(Who::Moon, &mut moon);
        world.command(Who::Moon, Command::SetConnection(Box::new(moon)));
        world.initiate(Who::Moon);
        world.pass(Duration::from_secs(30));
        assert_eq!((given(&mut world), online(&world)), (vec!["10.3.0.1".to_owned()], 1), "{uniqueness:?}");
        world.assert_agreement(1);
    }
}

#[test]
fn all_children_of_an_ike_sa_share_the_address() {
    let mut world = world(|who, connection| {
        two_children(who, connection);
        let second = &mut connection.children[1];
        match who {
            Who::Moon => second.local_selectors = vec![ChildSelector::HOST],
            Who::Sun => second.remote_selectors = vec![ChildSelector::HOST],
        }
    });
    world.initiate(Who::Moon);
    world.assert_agreement(2);
    assert!(world.only_ike_sa(Who::Sun).children.iter().all(|child| child.remote[0].to_string() == "10.3.0.1/32"));
}

/// RFC 6023 §3: the request goes with IKE_AUTH, which has no child.
#[test]
fn an_ike_sa_without_a_first_child_gets_an_address_all_the_same() {
    let mut world = world(|who, connection| {
        if who == Who::Moon {
            connection.childless = Childless::Prefer;
        }
    });
    world.initiate(Who::Moon);
    assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), 1);
    world.assert_agreement(1);
    assert_eq!(given(&mut world), ["10.3.0.1"]);
}

#[test]
fn only_the_one_who_begins_asks() {
    let mut world = world(|who, connection| match who {
        Who::Moon => {
            connection.pools.clear();
            connection.remote_addresses = vec![RemoteAddress::Address(Who::Sun.address())];
        }
        Who::Sun => {
            connection.pools.clear();
            connection.remote_addresses = vec![RemoteAddress::Address(Who::Moon.address())];
        }
    });
    world.initiate(Who::Sun);
    world.assert_agreement(1);
    assert!(given(&mut world).is_empty());
    assert_eq!(selectors(&world.only_ike_sa(Who::Moon)).0, ["192.0.2.1/32"]);
}

#[test]
fn a_child_for_an_address_that_is_still_to_come_waits_for_no_packet() {
    let mut world = world(|who, connection| {
        if who == Who::Moon {
            connection.children[0].start = StartAction::Trap;
        }
    });
    assert!(world.moon.dataplane.policies.is_empty());
    assert!(
        world.moon.notices.iter().any(|notice| matches!(notice, Notice::Remark { text, .. } if text.contains("wait")))
    );
    world.initiate(Who::Moon);
    world.assert_agreement(1);
}

#[test]
fn two_hosts_with_one_identity_do_not_take_each_others_address() {
    let mut world = world(|_, connection| connection.uniqueness = Uniqueness::Never);
    world.initiate(Who::Moon);
    let mut twin = connection(Who::Moon);
    road_warrior(Who::Moon, &mut twin);
    twin.name = "twin".to_owned();
    twin.uniqueness = Uniqueness::Never;
    twin.local = LocalAuth { identity: Some(Identity::Fqdn("moon".to_owned())), method: LocalMethod::PreSharedKey };
    world.command(Who::Moon, Command::SetSecret(secret("psk", &[], b"Vpp123")));
    world.command(Who::Moon, Command::SetConnection(Box::new(twin)));
    world.initiate_of(Who::Moon, "twin", None);
    let addresses: Vec<_> = world.ike_sas(Who::Sun).iter().flat_map(|sa| sa.remote_virtual.clone()).collect();
    assert_eq!(addresses.len(), 2);
    assert_ne!(addresses[0], addresses[1]);
}
