//! Gateways that send their peers elsewhere (RFC 5685). Sun has two addresses and is two gateways here.

use std::net::IpAddr;
use std::time::Duration;

use super::super::testbed::{self, Fate, Who, World};
use crate::config::{Gateway, Redirect, RedirectAt, RemoteAddress};
use crate::io::{Command, FailureCode, Target, Ticket};
use crate::rules::notifies;
use crate::wire::{ExchangeType, Message, MessageKind, NotifyType};

const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));

fn ike() -> Target {
    Target::Connection("net-net".into())
}

/// Sun redirects to its other address, for which it has a connection without redirection.
fn world(to: Gateway, at: RedirectAt) -> World {
    let mut world = World::with(move |who, connection| {
        if who == Who::Sun {
            connection.redirect = Some(Redirect { to: to.clone(), at });
        }
    });
    world.sun.dataplane.addresses.push(ELSEWHERE);
    let mut other = testbed::connection(Who::Sun);
    other.name = "other".into();
    other.local_addresses = vec![ELSEWHERE];
    world.command(Who::Sun, Command::SetConnection(Box::new(other)));
    world
}

/// The notifications of all unprotected messages of moon.
fn announced(world: &World) -> Vec<NotifyType> {
    let of_moon = world.seen.iter().filter(|datagram| datagram.from == Who::Moon);
    let messages = of_moon.filter_map(|datagram| Message::parse(&datagram.message).ok());
    messages.flat_map(|message| notifies(&message.payloads).map(|notify| notify.kind).collect::<Vec<_>>()).collect()
}

fn is_elsewhere(world: &mut World) {
    let sa = world.only_ike_sa(Who::Moon);
    assert_eq!((sa.path.remote.ip(), sa.children.len()), (ELSEWHERE, 1));
    let there = world.only_ike_sa(Who::Sun);
    assert_eq!((there.connection.as_str(), there.children.len()), ("other", 1));
    world.assert_traffic_flows(1);
}

/// R5685-3-2.
#[test]
fn a_client_is_redirected_at_once_or_when_it_is_known() {
    for at in [RedirectAt::Init, RedirectAt::Auth] {
        let mut world = world(Gateway::Address(ELSEWHERE), at);
        let ticket = world.initiate(Who::Moon);
        assert_eq!(world.settled(Who::Moon, ticket).unwrap().done, 1, "{at:?}");
        is_elsewhere(&mut world);
        let announced = announced(&world);
        assert!(announced.contains(&NotifyType::RedirectSupported));
        assert!(announced.contains(&NotifyType::RedirectedFrom), "the new gateway is told who sent us");
        assert!(world.failures(Who::Moon).is_empty());
    }
}

#[test]
fn a_client_that_does_not_want_to_be_redirected_is_served() {
    for at in [RedirectAt::Init, RedirectAt::Auth] {
        let mut world = world(Gateway::Address(ELSEWHERE), at);
        let mut connection = testbed::connection(Who::Moon);
        connection.follow_redirects = false;
        world.command(Who::Moon, Command::SetConnection(Box::new(connection)));
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        assert_eq!(world.only_ike_sa(Who::Moon).path.remote.ip(), Who::Sun.address());
    }
}

/// R5685-3-2.
#[test]
fn a_gateway_may_be_named() {
    // The name leads back to sun's first address, and so in a circle.
    let mut world = world(Gateway::Name("gw.example.org".into()), RedirectAt::Init);
    let ticket = world.initiate(Who::Moon);
    assert!(world.settled(Who::Moon, ticket).is_err());
    assert_eq!(world.failures(Who::Moon), [FailureCode::RedirectLoop]);
    assert_eq!(world.count(ExchangeType::IkeSaInit, MessageKind::Request), 6);
}

/// R5685-3-1.
#[test]
fn a_forged_redirection_is_ignored() {
    let mut world = world(Gateway::Address(ELSEWHERE), RedirectAt::Init);
    world.network(|datagram| if datagram.from == Who::Sun { Fate::Hold } else { Fate::Deliver });
    let first = world.initiate(Who::Moon);
    world.terminate(Who::Moon, ike());
    assert!(world.settled(Who::Moon, first).is_err());
    // The answer to the first attempt comes during the second one, with the nonce of the first.
    let mut plain = testbed::connection(Who::Sun);
    plain.local_addresses.push(ELSEWHERE);
    world.command(Who::Sun, Command::RemoveConnection("other".into()));
    world.command(Who::Sun, Command::SetConnection(Box::new(plain)));
    let second = world.initiate(Who::Moon);
    world.release();
    assert_eq!(world.settled(Who::Moon, second).unwrap().done, 1);
    assert_eq!(world.only_ike_sa(Who::Moon).path.remote.ip(), Who::Sun.address());
}

#[test]
fn an_established_sa_moves_to_another_gateway_without_a_gap() {
    let mut world = World::with(|who, connection| {
        if who == Who::Sun {
            connection.local_addresses.push(ELSEWHERE);
        }
    });
    world.sun.dataplane.addresses.push(ELSEWHERE);
    world.initiate(Who::Moon);
    let ticket = Ticket(99);
    let gateway = Gateway::Address(ELSEWHERE);
    world.command(Who::Sun, Command::Redirect { ticket, target: ike(), gateway });
    world.run();
    assert_eq!(world.settled(Who::Sun, ticket).unwrap().done, 1);
    world.assert_traffic_flows(1);
    world.pass(Duration::from_secs(10));
    world.assert_agreement(1);
    assert_eq!(world.only_ike_sa(Who::Moon).path.remote.ip(), ELSEWHERE);
}

#[test]
fn a_peer_that_stays_is_not_waited_for_however_often_it_rekeys() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(|datagram| if datagram.path.remote.ip() == ELSEWHERE { Fate::Lose } else { Fate::Deliver });
    let (ticket, gateway) = (Ticket(99), Gateway::Address(ELSEWHERE));
    world.command(Who::Sun, Command::Redirect { ticket, target: ike(), gateway });
    for _ in 0..5 {
        world.pass(Duration::from_secs(10));
        world.rekey(Who::Moon, ike());
        world.assert_traffic_flows(1);
    }
    world.pass(Duration::from_secs(20));
    assert!(world.ike_sas(Who::Sun).is_empty(), "{:?}", world.ike_sas(Who::Sun));
}

#[test]
fn a_gateway_that_is_not_there_does_not_cost_the_sa() {
    let mut world = World::with(|_, connection| connection.retransmission.tries = 1);
    world.initiate(Who::Moon);
    world.network(|datagram| if datagram.path.remote.ip() == ELSEWHERE { Fate::Lose } else { Fate::Deliver });
    let (ticket, gateway) = (Ticket(99), Gateway::Address(ELSEWHERE));
    world.command(Who::Sun, Command::Redirect { ticket, target: ike(), gateway });
    world.pass(Duration::from_secs(30));
    assert_eq!(world.failures(Who::Moon), [FailureCode::PeerSilent]);
    world.assert_agreement(1);
}

#[test]
fn only_who_set_the_sa_up_and_said_so_is_redirected() {
    let mut world = World::with(|who, connection| connection.follow_redirects = who == Who::Sun);
    world.initiate(Who::Moon);
    let gateway = || Gateway::Address(ELSEWHERE);
    for (number, who) in [(98, Who::Sun), (99, Who::Moon)] {
        let ticket = Ticket(number);
        world.command(who, Command::Redirect { ticket, target: ike(), gateway: gateway() });
        world.run();
        assert!(world.settled(who, ticket).is_err(), "{who:?}");
    }
    world.assert_agreement(1);
    let nowhere = RemoteAddress::Address(ELSEWHERE);
    assert!(!world.moon.engine.connections().any(|connection| connection.remote_addresses.contains(&nowhere)));
}
