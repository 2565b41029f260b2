//! Ways of peers around NATs that are not quite those of the RFC.

use std::time::Duration;

use espdp_api::{AddressRange, Encapsulation, IkePath, Mode};

use super::super::testbed::{Fate, Who, World};
use crate::config::{ChildSelector, RemoteAddress, UdpEncapsulation};
use crate::io::Target;
use crate::wire::ExchangeType;

/// R7296-2.23-2.
#[test]
fn esp_in_udp_never_uses_the_port_of_plain_ike() {
    let mut world = World::new();
    world.nat_in_front_of_moon(true);
    // Moon sees the NAT and stays on port 500 all the same.
    world.moon.engine.cx.settings.nat_port = 500;
    world.initiate(Who::Moon);
    let sun = world.only_ike_sa(Who::Sun);
    assert!(sun.nat_remote);
    assert_eq!((sun.path.local.port(), sun.children[0].path.encapsulation), (500, Encapsulation::Esp));
}

#[test]
fn answers_to_repetitions_from_elsewhere_do_not_keep_the_nat_awake() {
    let mut world = World::new();
    world.nat_in_front_of_moon(true);
    world.initiate(Who::Moon);
    world.rekey(Who::Sun, Target::Child { connection: None, child: "net".into() });
    let last = world.seen.iter().rfind(|datagram| datagram.from == Who::Sun).unwrap().clone();
    assert_eq!(last.header().exchange, ExchangeType::Informational);
    let elsewhere = IkePath { local: (Who::Moon.address(), 4500).into(), remote: ([203, 0, 113, 9], 4500).into() };
    world.network(|_| Fate::Lose);
    for _ in 0..20 {
        world.pass(Duration::from_secs(5));
        let now = world.now;
        world.moon.engine.handle_datagram(now, elsewhere, &last.message);
        world.run();
    }
    assert!(world.keepalives >= 4, "{} in 100 seconds", world.keepalives);
}

/// Both behind a NAT: Moon at 10.0.0.7, Sun shown as 203.0.113.2.
fn both_behind_nats(mode: Mode) -> World {
    let mut world = World::with(|who, connection| {
        match who {
            Who::Moon => {
                connection.local_addresses.clear();
                connection.remote_addresses = vec![RemoteAddress::Address([203, 0, 113, 2].into())];
            }
            Who::Sun => connection.remote_addresses = vec![RemoteAddress::Any],
        }
        if mode == Mode::Transport {
            let child = &mut connection.children[0];
            child.mode = mode;
            (child.local_selectors, child.remote_selectors) = (vec![ChildSelector::HOST], vec![ChildSelector::HOST]);
        }
    });
    world.public_sun = Some([203, 0, 113, 2].into());
    world.set_nat(true);
    world.readdress(Who::Moon, &["10.0.0.7"]);
    world.initiate(Who::Moon);
    world
}

/// R7296-2.23-4, R7296-2.23-6.
#[test]
fn two_nats_on_the_way_are_seen_by_both_and_nobody_follows() {
    let mut world = both_behind_nats(Mode::Tunnel);
    world.assert_agreement(1);
    let (moon, sun) = (world.only_ike_sa(Who::Moon), world.only_ike_sa(Who::Sun));
    assert_eq!((moon.nat_local, moon.nat_remote, sun.nat_local, sun.nat_remote), (true, true, true, true));
    assert!(matches!(moon.children[0].path.encapsulation, Encapsulation::Udp { remote_port: 4500, .. }));
    assert!(matches!(sun.children[0].path.encapsulation, Encapsulation::Udp { remote_port: 5500, .. }));
    let before = sun.path;
    world.nat_shift = 3000;
    world.rekey(Who::Moon, Target::Child { connection: None, child: "net".into() });
    assert_eq!(world.only_ike_sa(Who::Sun).path, before, "who is behind a NAT does not follow");
    world.pass(Duration::from_secs(30));
    assert!(world.keepalives > 0, "both keep their NATs awake");
}

/// R7296-2.23-1.
#[test]
fn transport_mode_through_two_nats_has_the_addresses_that_each_side_sees() {
    let mut world = both_behind_nats(Mode::Transport);
    world.assert_agreement(1);
    let sides = |world: &mut World, who: Who| {
        let child = world.only_ike_sa(who).children.remove(0);
        (child.local[0].addresses, child.remote[0].addresses)
    };
    let host = |octets: [u8; 4]| AddressRange::single(octets.into());
    assert_eq!(sides(&mut world, Who::Moon), (host([10, 0, 0, 7]), host([203, 0, 113, 2])));
    assert_eq!(sides(&mut world, Who::Sun), (host([192, 0, 2, 2]), host([198, 51, 100, 7])));
    world.rekey(Who::Sun, Target::Child { connection: None, child: "net".into() });
    world.pass(Duration::from_secs(10));
    world.assert_agreement(1);
    assert_eq!(sides(&mut world, Who::Moon), (host([10, 0, 0, 7]), host([203, 0, 113, 2])));
}

/// What goes with IKE_SA_INIT follows from the configuration, and so do the ports.
#[test]
fn whoever_refuses_encapsulation_looks_for_no_nat_and_stays_where_it_is() {
    for refusing in [Who::Moon, Who::Sun] {
        let mut world = World::with(|who, connection| {
            if who == refusing {
                connection.encapsulation = UdpEncapsulation::Refuse;
            }
        });
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        for who in [Who::Moon, Who::Sun] {
            let sa = world.only_ike_sa(who);
            assert_eq!((sa.path.local.port(), sa.children[0].path.encapsulation), (500, Encapsulation::Esp));
            assert!(!sa.nat_local && !sa.nat_remote && !sa.nat_fake);
        }
    }
}
