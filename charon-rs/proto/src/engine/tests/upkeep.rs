//! What the engine owes its caller: timers, keys, the books.

use std::time::Duration;

use super::super::testbed::{Who, World};
use crate::Settings;
use crate::io::{Notice, Target};

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
