//! Ways of peers around NATs that are not quite those of the RFC.

use std::time::Duration;

use espdp_api::{Encapsulation, IkePath};

use super::super::testbed::{Fate, Who, World};
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
