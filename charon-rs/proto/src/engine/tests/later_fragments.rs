//! Fragments of packets but the first, in Child SAs for certain ports (RFC 4301 §7.3).

use std::time::Duration;

use espdp_api::{Mode, PortRange, TrafficSelector};

use super::super::testbed::{Who, World};
use crate::config::{ChildSelector, Connection};
use crate::io::{Notice, Target};

/// Who wants them.
fn world(wants: impl Fn(Who) -> bool, adapt: impl Fn(&mut Connection)) -> World {
    World::with(|who, connection| {
        connection.children[0].later_fragments = wants(who);
        adapt(connection);
        let child = &mut connection.children[0];
        for selector in child.local_selectors.iter_mut().chain(&mut child.remote_selectors) {
            let (protocol, ports) = (17, PortRange { start: 53, end: 53 });
            *selector = match *selector {
                ChildSelector::Fixed(fixed) => TrafficSelector { protocol, ports, ..fixed }.into(),
                ChildSelector::Dynamic { .. } => ChildSelector::Dynamic { protocol, ports },
            };
        }
    })
}

/// Whether the dataplanes of both were told to let them through.
fn travel(world: &World) -> (bool, bool) {
    let does = |side: &super::super::testbed::Side| !side.dataplane.later_fragments.is_empty();
    (does(&world.moon), does(&world.sun))
}

/// How many messages of an end ask for them or agree to them.
fn mentions(world: &mut World, who: Who) -> usize {
    let is_one = |notice: &&Notice| matches!(notice, Notice::Message(trace) if trace.sent && trace.summary.contains("N(NON_FIRST_FRAG)"));
    world.side(who).notices.iter().filter(is_one).count()
}

/// R4301-7.3-1.
#[test]
fn they_travel_if_both_ends_want_it() {
    for (moon, sun) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = world(|who| if who == Who::Moon { moon } else { sun }, |_| {});
        let both = moon && sun;
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        assert_eq!(travel(&world), (both, both), "moon {moon}, sun {sun}");
        // Who answers says so only to those who asked.
        assert_eq!((mentions(&mut world, Who::Moon), mentions(&mut world, Who::Sun)), (moon.into(), both.into()));
        for (who, wants) in [(Who::Sun, sun), (Who::Moon, moon)] {
            let before = mentions(&mut world, who);
            world.rekey(who, Target::Child { connection: None, child: "net".into() });
            world.pass(Duration::from_secs(10));
            world.assert_agreement(1);
            assert_eq!(travel(&world), (both, both), "rekeyed by {who:?}: moon {moon}, sun {sun}");
            assert_eq!(mentions(&mut world, who) - before, usize::from(wants));
        }
    }
}

/// Between hosts nobody else fragments what they send.
#[test]
fn transport_mode_does_not_ask_for_them() {
    let mut world = world(
        |_| true,
        |connection| {
            let child = &mut connection.children[0];
            child.mode = Mode::Transport;
            (child.local_selectors, child.remote_selectors) = (vec![ChildSelector::HOST], vec![ChildSelector::HOST]);
        },
    );
    world.initiate(Who::Moon);
    world.assert_agreement(1);
    assert_eq!((travel(&world), mentions(&mut world, Who::Moon)), ((false, false), 0));
}
