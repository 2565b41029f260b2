//! What the engine owes its caller: timers, keys, the books.

use std::time::Duration;

use super::super::testbed::{Who, World};
use crate::Settings;
use crate::io::{Notice, PlainText, Target};
use crate::wire::{ExchangeType, Message, Payload};

#[test]
fn keys_are_exported_only_when_asked_for() {
    let exports = |export_keys: bool| {
        let mut world = World::bare(&Settings { export_keys, ..Settings::default() });
        world.configure(|_, _| {});
        world.initiate(Who::Moon);
        world.rekey(Who::Moon, Target::Child { connection: None, child: "net".into() });
        world.rekey(Who::Moon, Target::Connection("net-net".into()));
        let count = |wanted: fn(&Notice) -> bool| world.moon.notices.iter().filter(|notice| wanted(notice)).count();
        (count(|notice| matches!(notice, Notice::IkeKeys(_))), count(|notice| matches!(notice, Notice::ChildKeys(_))))
    };
    assert_eq!(exports(false), (0, 0));
    assert_eq!(exports(true), (2, 2));
}

#[test]
fn messages_are_told_in_plain_text_as_long_as_that_is_wanted() {
    let mut world = World::new();
    world.moon.engine.export_plain_text(true);
    world.sun.engine.export_plain_text(true);
    world.initiate(Who::Moon);
    let told = |world: &mut World, who| -> Vec<PlainText> {
        let told = |notice: &Notice| if let Notice::PlainText(text) = notice { Some(text.clone()) } else { None };
        world.side(who).notices.iter().filter_map(told).collect()
    };
    let (of_moon, of_sun) = (told(&mut world, Who::Moon), told(&mut world, Who::Sun));
    let sent: Vec<bool> = of_moon.iter().map(|text| text.sent).collect();
    assert_eq!(sent, [true, false, true, false]);
    for (here, there) in of_moon.iter().zip(&of_sun) {
        assert_eq!((&here.message, here.sent), (&there.message, !there.sent));
    }
    let request = Message::parse(&of_moon[2].message).unwrap();
    assert_eq!((request.header.exchange, request.encrypted), (ExchangeType::IkeAuth, None));
    assert!(request.payloads.iter().any(|payload| matches!(payload, Payload::Authentication(_))));
    assert_eq!(of_moon[2].connection.as_deref(), Some("net-net"));
    assert!(!format!("{:?}", of_moon[2]).contains("message"), "what they say is for nobody's log");
    world.moon.engine.export_plain_text(false);
    world.rekey(Who::Moon, Target::Connection("net-net".into()));
    assert_eq!(told(&mut world, Who::Moon).len(), of_moon.len());
}

#[test]
fn an_idle_sa_without_timers_wants_no_wake_up() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.pass(Duration::from_secs(100));
    assert_eq!(world.moon.engine.poll_timeout(), None);
    assert_eq!(world.sun.engine.poll_timeout(), None);
}

#[test]
fn a_timer_that_was_served_is_not_due_again() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    for who in [Who::Moon, Who::Sun] {
        let now = world.now;
        world.side(who).engine.handle_timeout(now);
        assert!(world.side(who).engine.poll_timeout().is_none_or(|(at, _)| at > now));
    }
}
