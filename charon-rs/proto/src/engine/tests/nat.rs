//! Ways of peers around NATs that are not quite those of the RFC.

use espdp_api::Encapsulation;

use super::super::testbed::{Who, World};

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
