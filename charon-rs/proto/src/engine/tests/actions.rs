//! What becomes of a child when it is loaded, when the peer deletes it, and when the peer is dead: each child has its own answer.

use std::time::Duration;

use espdp_api::PortRange;

use super::super::testbed::{Fate, Side, Who, World, two_children};
use crate::config::{ChildSelector, CloseAction, Dpd, DpdAction, StartAction};
use crate::io::{Command, Target, Ticket};

fn closing(close: CloseAction) -> World {
    World::with(move |who, connection| {
        if who == Who::Moon {
            connection.children[0].close = close;
        }
    })
}

fn delete_from_sun(world: &mut World) {
    let target = Target::Child { connection: None, child: "net".into() };
    let ticket = world.terminate(Who::Sun, target);
    assert!(world.settled(Who::Sun, ticket).is_ok());
}

#[test]
fn a_child_that_the_peer_deletes_stays_down_waits_or_comes_back_as_it_is_configured() {
    for (close, children, waiting) in [(CloseAction::None, 0, 0), (CloseAction::Trap, 0, 1), (CloseAction::Start, 1, 0)]
    {
        let mut world = closing(close);
        world.initiate(Who::Moon);
        delete_from_sun(&mut world);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.only_ike_sa(Who::Moon).children.len(), children, "{close:?}");
        assert_eq!(world.moon.engine.traps().count(), waiting, "{close:?}");
    }
}

#[test]
fn a_child_that_is_started_once_comes_up_when_it_is_loaded_and_stays_down_when_it_falls() {
    let mut world = World::with(|who, connection| {
        if who == Who::Moon {
            connection.children[0].start = StartAction::Once { trap: false };
        }
    });
    world.pass(Duration::from_secs(1));
    world.assert_agreement(1);
    delete_from_sun(&mut world);
    world.pass(Duration::from_secs(300));
    world.assert_agreement(0);
}

#[test]
fn each_child_of_a_dead_peer_gets_what_it_wants() {
    let mut world = World::with(|who, connection| {
        two_children(who, connection);
        if who == Who::Moon {
            connection.dpd = Some(Dpd { delay: Duration::from_secs(30), action: DpdAction::Clear });
            connection.children[1].dpd = Some(DpdAction::Hold);
        }
    });
    world.initiate(Who::Moon);
    world.assert_agreement(2);
    world.network(|_| Fate::Lose);
    world.pass(Duration::from_secs(120));
    assert!(world.ike_sas(Who::Moon).is_empty());
    let waiting: Vec<&str> = world.moon.engine.traps().map(|(_, child, _)| child).collect();
    assert_eq!(waiting, ["second"]);
}

#[test]
fn policies_are_installed_and_uninstalled_by_command() {
    let mut world = World::new();
    let (install, again, uninstall, gone) = (Ticket(71), Ticket(72), Ticket(73), Ticket(74));
    for ticket in [install, again] {
        world.command(Who::Moon, Command::Install { ticket, connection: None, child: "net".into() });
        world.run();
        assert!(world.settled(Who::Moon, ticket).is_ok());
    }
    let traps = |side: &Side| side.engine.traps().map(|(connection, ..)| connection.to_owned()).collect::<Vec<_>>();
    assert_eq!(traps(&world.moon), ["net-net"]);
    assert_eq!(world.moon.dataplane.trapped.len(), 1);
    let connection = Some("net-net".to_owned());
    world.command(Who::Moon, Command::Uninstall { ticket: uninstall, connection, child: "net".into() });
    world.run();
    assert!(world.settled(Who::Moon, uninstall).is_ok());
    assert!(traps(&world.moon).is_empty() && world.moon.dataplane.policies.is_empty());
    world.command(Who::Moon, Command::Uninstall { ticket: gone, connection: None, child: "net".into() });
    world.run();
    assert_eq!(world.settled(Who::Moon, gone), Err("policy 'net' not found".to_owned()));
}

#[test]
fn a_policy_that_is_uninstalled_leaves_the_sa_alone() {
    let mut world = World::with(|_, connection| connection.children[0].start = StartAction::Trap);
    world.initiate(Who::Moon);
    let ticket = Ticket(71);
    world.command(Who::Moon, Command::Uninstall { ticket, connection: None, child: "net".into() });
    world.run();
    assert!(world.settled(Who::Moon, ticket).is_ok());
    world.assert_agreement(1);
    world.assert_traffic_flows(1);
}

/// RFC 7296 §2.9.
#[test]
fn dynamic_selectors_are_the_addresses_of_the_ike_sa_with_their_ports() {
    let mut world = World::with(|who, connection| {
        let ssh = PortRange { start: 22, end: 22 };
        let (with_port, without) = (
            ChildSelector::Dynamic { protocol: 6, ports: ssh },
            ChildSelector::Dynamic { protocol: 6, ports: PortRange::ANY },
        );
        let child = &mut connection.children[0];
        (child.local_selectors, child.remote_selectors) =
            if who == Who::Moon { (vec![without], vec![with_port]) } else { (vec![with_port], vec![without]) };
    });
    world.initiate(Who::Moon);
    let child = world.only_ike_sa(Who::Moon).children.remove(0);
    let (moon, sun) = (Who::Moon.address(), Who::Sun.address());
    assert_eq!(child.local[0].to_string(), format!("{moon}/32[tcp]"));
    assert_eq!(child.remote[0].to_string(), format!("{sun}/32[tcp/22]"));
}
