//! MOBIKE (RFC 4555): addresses change, SAs stay.

use std::net::IpAddr;
use std::time::Duration;

use espdp_api::{AddressRange, Encapsulation, IkePath, Mode, OuterPath};

use super::super::mobike::Move;
use super::super::task::{Queued, Task};
use super::super::testbed::{Datagram, Fate, Who, World};
use crate::config::{ChildSelector, Connection, Dpd, DpdAction, RemoteAddress, UdpEncapsulation, Uniqueness};
use crate::io::{FailureCode, IkeSaReport, Notice, Target};
use crate::wire::{ExchangeType, MessageKind};

const ELSEWHERE: &str = "192.0.2.77";
const SECOND: &str = "192.0.2.102";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Moon goes where its routes lead, Sun takes it from everywhere.
fn mobile(who: Who, connection: &mut Connection) {
    match who {
        Who::Moon => connection.local_addresses.clear(),
        Who::Sun => connection.remote_addresses = vec![RemoteAddress::Any],
    }
}

fn mobile_world() -> World {
    let mut world = World::with(mobile);
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    world
}

fn names(report: &IkeSaReport) -> (String, Vec<String>) {
    let children = report.children.iter().map(|child| child.spi_in.to_string()).collect();
    (format!("{} {}", report.initiator_spi, report.responder_spi), children)
}

/// Where `who` sends the packets of its only child.
fn esp_path(world: &mut World, who: Who) -> OuterPath {
    let paths: Vec<OuterPath> = world.side(who).dataplane.outbound.values().copied().collect();
    let [path] = paths.try_into().unwrap();
    assert_eq!(world.only_ike_sa(who).children[0].path, path, "the report says so, too");
    path
}

/// Both ends send ESP between these addresses, Moon's first.
fn assert_esp_between(world: &mut World, moon: &str, sun: &str) {
    let (at_moon, at_sun) = (esp_path(world, Who::Moon), esp_path(world, Who::Sun));
    assert_eq!((at_moon.local, at_moon.remote), (address(moon), address(sun)), "Moon");
    assert_eq!((at_sun.local, at_sun.remote), (address(sun), address(moon)), "Sun");
}

/// What the IKE SAs that moved are said to have changed: an end of their path, before and after.
fn moved(world: &mut World, who: Who, end: fn(&IkePath) -> IpAddr) -> Vec<(IpAddr, IpAddr)> {
    let moves = world.side(who).notices.iter().filter_map(|notice| {
        let Notice::IkeMoved { sa, path } = notice else { return None };
        Some((end(&sa.path), end(path)))
    });
    moves.collect()
}

fn is_request(datagram: &Datagram, from: Who) -> bool {
    datagram.from == from && datagram.is(ExchangeType::Informational, MessageKind::Request)
}

const UDP: Encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };

/// R4555-3.3-1: the NAT-T ports from IKE_AUTH on, although there is no NAT, and although ESP needs no UDP.
#[test]
fn mobike_uses_the_nat_ports_from_the_start_and_esp_goes_without_udp() {
    let mut world = mobile_world();
    let ports: Vec<(ExchangeType, u16, u16)> = world
        .seen
        .iter()
        .filter(|datagram| datagram.from == Who::Moon)
        .map(|datagram| (datagram.header().exchange, datagram.path.local.port(), datagram.path.remote.port()))
        .collect();
    assert_eq!(ports, [(ExchangeType::IkeSaInit, 500, 500), (ExchangeType::IkeAuth, 4500, 4500)]);
    assert_eq!(esp_path(&mut world, Who::Moon).encapsulation, Encapsulation::Esp);
    assert_eq!(esp_path(&mut world, Who::Sun).encapsulation, Encapsulation::Esp);
}

#[test]
fn a_connection_without_mobike_stays_on_the_port_and_says_nothing_of_it() {
    for without in [Who::Moon, Who::Sun] {
        let mut world = World::with(|who, connection| {
            mobile(who, connection);
            connection.mobike &= who != without;
        });
        world.initiate(Who::Moon);
        let port = if without == Who::Moon { 500 } else { 4500 };
        assert_eq!(world.only_ike_sa(Who::Sun).path.remote.port(), port);
        let before = world.seen.len();
        world.readdress(Who::Moon, &[ELSEWHERE]);
        assert_eq!(world.seen.len(), before, "nobody moves");
    }
}

#[test]
fn the_initiator_moves_and_all_goes_on_with_the_same_sas() {
    let mut world = mobile_world();
    let before = names(&world.only_ike_sa(Who::Moon));
    for place in [ELSEWHERE, SECOND, "192.0.2.1"] {
        world.readdress(Who::Moon, &[place]);
        assert_esp_between(&mut world, place, "192.0.2.2");
        let (moon, sun) = (world.only_ike_sa(Who::Moon), world.only_ike_sa(Who::Sun));
        assert_eq!((moon.path.local, sun.path.remote), ((address(place), 4500).into(), (address(place), 4500).into()));
        assert_eq!(names(&moon), before);
        world.assert_agreement(1);
    }
    let moves = [("192.0.2.1", ELSEWHERE), (ELSEWHERE, SECOND), (SECOND, "192.0.2.1")];
    let moves = moves.map(|(from, to)| (address(from), address(to)));
    assert_eq!(moved(&mut world, Who::Moon, |path| path.local.ip()), moves, "each is told once");
    assert_eq!(moved(&mut world, Who::Sun, |path| path.remote.ip()), moves);
    assert_eq!(world.count(ExchangeType::CreateChildSa, MessageKind::Request), 0);
    assert_eq!(world.count(ExchangeType::IkeAuth, MessageKind::Request), 1);
    assert_eq!((world.failures(Who::Moon), world.failures(Who::Sun)), (vec![], vec![]));
}

/// R4555-3.7-1.
#[test]
fn the_responder_sends_nothing_to_a_new_address_before_the_peer_is_seen_there() {
    let mut world = mobile_world();
    world.network(|datagram| if is_request(datagram, Who::Sun) { Fate::Hold } else { Fate::Deliver });
    world.readdress(Who::Moon, &[ELSEWHERE]);
    let sun = world.only_ike_sa(Who::Sun);
    assert_eq!(sun.path.remote.ip(), address(ELSEWHERE), "IKE follows at once");
    assert_eq!(esp_path(&mut world, Who::Sun).remote, Who::Moon.address(), "ESP does not");
    assert_eq!(esp_path(&mut world, Who::Moon).local, address(ELSEWHERE), "and Moon sends from there");
    // What is made meanwhile waits as well.
    world.rekey(Who::Moon, Target::Child { connection: None, child: "net".into() });
    let remotes: Vec<IpAddr> = world.sun.dataplane.outbound.values().map(|path| path.remote).collect();
    assert!(remotes.iter().all(|remote| *remote == Who::Moon.address()), "{remotes:?}");
    world.release();
    world.pass(Duration::from_secs(10));
    assert_esp_between(&mut world, ELSEWHERE, "192.0.2.2");
    world.assert_agreement(1);
}

/// RFC 4555 §3.7: the answer must bring the COOKIE2 of the request.
#[test]
fn an_answer_with_another_cookie_ends_the_sa() {
    let mut world = mobile_world();
    world.network(|datagram| if is_request(datagram, Who::Sun) { Fate::Hold } else { Fate::Deliver });
    world.readdress(Who::Moon, &[ELSEWHERE]);
    let forged = world.sun.engine.sas.values_mut().any(|sa| {
        let super::super::ike_sa::IkeSa::Established(sa) = sa else { return false };
        let Some(running) = &mut sa.running else { return false };
        let Task::Move(Move::Confirm, Some(told)) = &mut running.queued.task else { return false };
        told.forge_cookie();
        true
    });
    assert!(forged, "the check is under way");
    world.release();
    assert_eq!(world.failures(Who::Sun), [FailureCode::PeerMisbehaved]);
    world.assert_nothing_left();
}

#[test]
fn a_nat_appears_and_disappears_on_the_way() {
    let mut world = mobile_world();
    world.set_nat(true);
    world.readdress(Who::Moon, &["10.0.0.7"]);
    let (moon, sun) = (world.only_ike_sa(Who::Moon), world.only_ike_sa(Who::Sun));
    assert_eq!((moon.nat_local, sun.nat_remote), (true, true));
    assert_eq!(esp_path(&mut world, Who::Moon).encapsulation, UDP);
    let to_nat = Encapsulation::Udp { local_port: 4500, remote_port: 5500 };
    let at_sun = esp_path(&mut world, Who::Sun);
    assert_eq!((at_sun.remote, at_sun.encapsulation), (address("198.51.100.7"), to_nat));
    world.pass(Duration::from_secs(30));
    assert!(world.keepalives > 0, "the NAT is kept awake");

    world.set_nat(false);
    world.readdress(Who::Moon, &[ELSEWHERE]);
    assert_esp_between(&mut world, ELSEWHERE, "192.0.2.2");
    for who in [Who::Moon, Who::Sun] {
        assert_eq!(esp_path(&mut world, who).encapsulation, Encapsulation::Esp);
    }
    let before = world.keepalives;
    world.pass(Duration::from_secs(60));
    assert_eq!(world.keepalives, before, "and no NAT wants none");
    world.assert_agreement(1);
}

/// RFC 4555 §3.8: a NAT forgets us; the next probe shows that the peer sees us elsewhere.
#[test]
fn a_nat_that_forgot_the_initiator_is_noticed_by_a_probe() {
    let dpd = Dpd { delay: Duration::from_secs(20), action: DpdAction::Restart };
    let mut world = World::with(|who, connection| {
        mobile(who, connection);
        connection.dpd = (who == Who::Moon).then_some(dpd);
    });
    world.set_nat(true);
    world.readdress(Who::Moon, &["10.0.0.7"]);
    world.initiate(Who::Moon);
    assert_eq!(world.only_ike_sa(Who::Sun).path.remote, "198.51.100.7:5500".parse().unwrap());
    world.pass(Duration::from_secs(25));
    world.nat_shift = 3000;
    world.pass(Duration::from_secs(25));
    let sun = world.only_ike_sa(Who::Sun);
    assert_eq!(sun.path.remote, "198.51.100.7:7500".parse().unwrap());
    let to_nat = Encapsulation::Udp { local_port: 4500, remote_port: 7500 };
    assert_eq!(esp_path(&mut world, Who::Sun).encapsulation, to_nat);
    world.assert_agreement(1);
}

/// RFC 4555 §3.8: with MOBIKE only UPDATE_SA_ADDRESSES moves the peer.
#[test]
fn other_requests_from_a_new_place_move_nobody() {
    let mut world = World::with(mobile);
    world.set_nat(true);
    world.readdress(Who::Moon, &["10.0.0.7"]);
    world.initiate(Who::Moon);
    world.nat_shift = 3000;
    world.rekey(Who::Moon, Target::Child { connection: None, child: "net".into() });
    assert_eq!(world.only_ike_sa(Who::Sun).path.remote, "198.51.100.7:5500".parse().unwrap());
}

#[test]
fn the_responder_loses_its_address_and_the_initiator_follows() {
    let mut world = World::with(|who, connection| {
        mobile(who, connection);
        connection.local_addresses.clear();
    });
    world.initiate(Who::Moon);
    world.readdress(Who::Sun, &[SECOND]);
    assert_esp_between(&mut world, "192.0.2.1", SECOND);
    assert_eq!(world.only_ike_sa(Who::Moon).path.remote.ip(), address(SECOND));
    world.assert_agreement(1);
}

/// Where the oldest SA stays, a peer may set up another one from where the old one leads to: there it authenticates anew.
#[test]
fn a_peer_that_has_moved_may_authenticate_itself_anew() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = World::with(|_, connection| {
            connection.local_addresses.clear();
            connection.remote_addresses.push(RemoteAddress::Address(address(ELSEWHERE)));
            connection.uniqueness = Uniqueness::Keep;
        });
        world.initiate(Who::Moon);
        world.pass(Duration::from_secs(1));
        world.readdress(who, &[ELSEWHERE]);
        let before = world.only_ike_sa(who).id;
        let ticket = world.reauthenticate(who, Target::Connection("net-net".into()));
        assert_eq!(world.settled(who, ticket).unwrap().done, 1, "{who:?}");
        world.pass(Duration::from_secs(10));
        world.assert_agreement(1);
        assert_ne!(world.only_ike_sa(who).id, before);
    }
}

#[test]
fn a_peer_that_falls_silent_is_looked_for_at_its_other_addresses() {
    let dpd = Dpd { delay: Duration::from_secs(20), action: DpdAction::Restart };
    let mut world = World::with(|who, connection| {
        mobile(who, connection);
        match who {
            Who::Moon => connection.dpd = Some(dpd),
            Who::Sun => connection.local_addresses = vec![Who::Sun.address(), address(SECOND)],
        }
    });
    world.sun.dataplane.addresses.push(address(SECOND));
    world.initiate(Who::Moon);
    let before = names(&world.only_ike_sa(Who::Moon));
    let dead = Who::Sun.address();
    world.network(move |datagram| {
        if [datagram.path.local.ip(), datagram.path.remote.ip()].contains(&dead) { Fate::Lose } else { Fate::Deliver }
    });
    world.pass(Duration::from_secs(40));
    assert_esp_between(&mut world, "192.0.2.1", SECOND);
    assert_eq!(names(&world.only_ike_sa(Who::Moon)), before);
    world.assert_agreement(1);
}

#[test]
fn a_client_that_is_left_with_the_other_family_reaches_the_peer_there() {
    let sun6 = "2001:db8::2";
    let mut world = World::with(|who, connection| {
        mobile(who, connection);
        if who == Who::Sun {
            connection.local_addresses = vec![Who::Sun.address(), address(sun6)];
        }
    });
    world.sun.dataplane.addresses.push(address(sun6));
    world.initiate(Who::Moon);
    world.readdress(Who::Moon, &["2001:db8::1"]);
    world.pass(Duration::from_secs(20));
    assert_esp_between(&mut world, "2001:db8::1", sun6);
    world.assert_agreement(1);
}

#[test]
fn a_silent_peer_with_a_name_is_looked_up_again() {
    let dpd = Dpd { delay: Duration::from_secs(20), action: DpdAction::Restart };
    let mut world = World::with(|who, connection| {
        mobile(who, connection);
        match who {
            Who::Moon => {
                connection.dpd = Some(dpd);
                connection.remote_addresses = vec![RemoteAddress::Name("sun.example.org".to_owned())];
            }
            Who::Sun => connection.local_addresses.clear(),
        }
    });
    world.initiate(Who::Moon);
    // What Sun says of its move never arrives.
    world.network(|datagram| if is_request(datagram, Who::Sun) { Fate::Lose } else { Fate::Deliver });
    world.readdress(Who::Sun, &[SECOND]);
    world.pass(Duration::from_secs(40));
    assert_eq!(esp_path(&mut world, Who::Moon).remote, address(SECOND));
    assert_eq!(esp_path(&mut world, Who::Sun).local, address(SECOND));
}

#[test]
fn the_end_that_began_decides_whoever_rekeyed_the_ike_sa() {
    for who in [Who::Moon, Who::Sun] {
        let mut world = mobile_world();
        world.rekey(who, Target::Connection("net-net".into()));
        world.readdress(Who::Moon, &[ELSEWHERE]);
        assert_esp_between(&mut world, ELSEWHERE, "192.0.2.2");
        world.assert_agreement(1);
    }
}

#[test]
fn an_address_that_changes_in_the_midst_of_a_rekeying_takes_all_along() {
    for target in [Target::Child { connection: None, child: "net".into() }, Target::Connection("net-net".into())] {
        for who in [Who::Moon, Who::Sun] {
            let mut world = mobile_world();
            world.network(|datagram| {
                if datagram.is(ExchangeType::CreateChildSa, MessageKind::Request) { Fate::Lose } else { Fate::Deliver }
            });
            let ticket = world.rekey(who, target.clone());
            world.repair_network();
            world.readdress(Who::Moon, &[ELSEWHERE]);
            world.pass(Duration::from_secs(30));
            assert_eq!(world.settled(who, ticket).unwrap().done, 1);
            assert_esp_between(&mut world, ELSEWHERE, "192.0.2.2");
            world.assert_agreement(1);
        }
    }
}

/// The answer to the peer's rekeying is lost, and we move: the peer knows only the old SA, and we are on the new one.
#[test]
fn a_move_right_after_the_peer_rekeyed_reaches_it_over_the_old_sa() {
    let mut world = mobile_world();
    world.network(|datagram| {
        if datagram.is(ExchangeType::CreateChildSa, MessageKind::Response) { Fate::Lose } else { Fate::Deliver }
    });
    world.rekey(Who::Sun, Target::Connection("net-net".into()));
    world.repair_network();
    world.readdress(Who::Moon, &[ELSEWHERE]);
    world.pass(Duration::from_secs(30));
    assert_esp_between(&mut world, ELSEWHERE, "192.0.2.2");
    world.assert_agreement(1);
}

#[test]
fn the_last_of_several_changes_counts_whatever_is_lost() {
    let mut world = mobile_world();
    let mut seen = 0;
    world.network(move |_| {
        seen += 1;
        if seen % 3 == 0 { Fate::Deliver } else { Fate::Lose }
    });
    for place in ["192.0.2.70", "192.0.2.71", "192.0.2.72", ELSEWHERE] {
        world.readdress(Who::Moon, &[place]);
        world.pass(Duration::from_secs(1));
    }
    world.repair_network();
    world.pass(Duration::from_secs(30));
    assert_esp_between(&mut world, ELSEWHERE, "192.0.2.2");
    world.assert_agreement(1);
}

#[test]
fn the_end_that_follows_cannot_send_the_other_one_away() {
    let mut world = mobile_world();
    let now = world.now;
    let spi = *world.sun.engine.sas.keys().next().unwrap();
    world.sun.engine.with_established(spi, |sa, cx| {
        sa.queue(cx, now, Queued::new(Task::Move(Move::Update, None)));
    });
    world.run();
    assert_eq!(world.failures(Who::Sun), [FailureCode::PeerRefused]);
    assert_esp_between(&mut world, "192.0.2.1", "192.0.2.2");
    world.assert_agreement(1);
}

#[test]
fn a_place_that_the_configuration_does_not_allow_is_refused_and_left_again() {
    let mut world = World::with(|who, connection| {
        mobile(who, connection);
        if who == Who::Sun {
            let range = AddressRange::new(address("192.0.2.0"), address("192.0.2.9")).unwrap();
            connection.remote_addresses = vec![RemoteAddress::Range(range)];
        }
    });
    world.initiate(Who::Moon);
    world.readdress(Who::Moon, &[ELSEWHERE, "192.0.2.1"]);
    assert_eq!(world.failures(Who::Moon), [FailureCode::PeerRefused]);
    assert_esp_between(&mut world, "192.0.2.1", "192.0.2.2");
    world.assert_agreement(1);
    world.readdress(Who::Moon, &[ELSEWHERE]);
    world.pass(Duration::from_secs(200));
    assert!(world.ike_sas(Who::Moon).is_empty(), "there is no way back");
}

/// RFC 4555 §3.9.
#[test]
fn without_nat_traversal_a_nat_is_an_attack() {
    let refuse = |who: Who, connection: &mut Connection| {
        mobile(who, connection);
        connection.encapsulation = UdpEncapsulation::Refuse;
    };
    let mut world = World::with(refuse);
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert_eq!(world.only_ike_sa(Who::Moon).path.local.port(), 500, "there is no reason to leave it");
    world.readdress(Who::Moon, &[ELSEWHERE]);
    assert_esp_between(&mut world, ELSEWHERE, "192.0.2.2");
    world.set_nat(true);
    world.readdress(Who::Moon, &["10.0.0.7", ELSEWHERE]);
    assert!(world.failures(Who::Sun).len() > 1, "Moon tries again");
    assert_eq!(world.only_ike_sa(Who::Sun).path.remote.ip(), address(ELSEWHERE), "and Sun stays");

    let mut world = World::with(refuse);
    world.set_nat(true);
    world.readdress(Who::Moon, &["10.0.0.7"]);
    world.initiate(Who::Moon);
    assert_eq!(world.failures(Who::Moon), [FailureCode::PeerRefused]);
    assert!(world.ike_sas(Who::Sun).iter().all(|sa| sa.established.is_none()));
}

#[test]
fn a_child_between_the_very_addresses_is_made_anew() {
    let mut world = World::with(|who, connection| {
        mobile(who, connection);
        let child = &mut connection.children[0];
        child.mode = Mode::Transport;
        (child.local_selectors, child.remote_selectors) = (vec![ChildSelector::HOST], vec![ChildSelector::HOST]);
    });
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    world.readdress(Who::Moon, &[ELSEWHERE]);
    world.pass(Duration::from_secs(10));
    world.assert_agreement(1);
    let moon = world.only_ike_sa(Who::Moon);
    assert_eq!(moon.children[0].local[0].addresses, AddressRange::single(address(ELSEWHERE)), "it was made anew");
}
