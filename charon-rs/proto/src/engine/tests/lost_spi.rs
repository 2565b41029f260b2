//! ESP that one end cannot open, and children that a peer makes no more of.

use std::time::Duration;

use espdp_api::Event;

use super::super::testbed::{Who, World, net};
use crate::io::{DownReason, Notice};
use crate::wire::{ExchangeType, MessageKind};

/// Sun gets ESP for an SPI that it does not have.
fn unknown_spi(world: &mut World, spi: u32) {
    let path = world.only_ike_sa(Who::Sun).children.first().map(|child| child.path);
    let path = path.unwrap_or_else(|| panic!("sun has a child"));
    world.event(Who::Sun, Event::UnknownSpi { path, spi });
}

/// R7296-2.4-2.
#[test]
fn the_sender_of_esp_that_nobody_can_open_is_told_now_and_then() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    for spi in 0x2000..0x2100 {
        unknown_spi(&mut world, spi);
    }
    assert_eq!(world.count(ExchangeType::Informational, MessageKind::Request), 1);
    world.pass(Duration::from_secs(11));
    unknown_spi(&mut world, 0x2000);
    assert_eq!(world.count(ExchangeType::Informational, MessageKind::Request), 2);
    world.assert_agreement(1);
    let before = world.moon.notices.iter().filter(|notice| matches!(notice, Notice::ChildRekeyed { .. })).count();
    assert_eq!(before, 0, "moon has no such SA");
}

/// R7296-2.4-1, R7296-2.25-2: nothing is torn down, and what is really lost is made anew.
#[test]
fn a_child_that_the_peer_has_lost_is_replaced() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    let spi = world.only_ike_sa(Who::Sun).children[0].spi_in.value();
    unknown_spi(&mut world, spi);
    assert!(world.moon.notices.iter().any(|notice| matches!(notice, Notice::ChildRekeyed { .. })));
    world.pass(Duration::from_secs(6));
    world.assert_agreement(1);
    let down = |notice: &Notice| {
        matches!(notice, Notice::IkeDown { .. } | Notice::ChildDown { reason: DownReason::PeerDead, .. })
    };
    assert!(!world.moon.notices.iter().any(down));
}

/// RFC 7296 §2.9.
#[test]
fn a_peer_learns_that_another_child_is_for_the_rest_of_what_it_wants() {
    for (has_second, expected) in [(true, true), (false, false)] {
        let mut world = World::with(move |who, connection| {
            let rest = net("10.7.0.0", "10.7.0.255").into();
            if who == Who::Moon {
                connection.children[0].remote_selectors.push(rest);
            } else if has_second {
                let mut second = connection.children[0].clone();
                second.name = "second".into();
                second.local_selectors = vec![rest];
                connection.children.push(second);
            }
        });
        world.initiate(Who::Moon);
        world.assert_agreement(1);
        let said = |notice: &Notice| matches!(notice, Notice::Message(trace) if trace.sent && trace.summary.contains("ADD_TS_POSS"));
        assert_eq!(world.sun.notices.iter().any(said), expected);
    }
}
