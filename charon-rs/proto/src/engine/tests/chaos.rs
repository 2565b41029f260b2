//! Random operations over a bad network: in the end both sides agree, and nothing is left when all is taken down.

use std::time::Duration;

use super::super::testbed::{Fate, Who, World};
use crate::SecureRandom;
use crate::config::{Dpd, DpdAction};
use crate::io::Target;
use crate::testing::SeededRandom;

/// A random number below `bound`.
fn below(random: &mut SeededRandom, bound: u8) -> u8 {
    let mut octet = [0];
    random.fill_public(&mut octet);
    octet[0] % bound
}

fn bad_network(seed: u64) -> impl FnMut(&super::super::testbed::Datagram) -> Fate {
    let mut random = SeededRandom::new(seed);
    move |_| {
        let mut delay = || Duration::from_millis(u64::from(below(&mut random, 250)) * 2);
        let (first, second) = (delay(), delay());
        match below(&mut random, 10) {
            0 | 1 => Fate::Lose,
            2 => Fate::Late(vec![first, second]),
            _ => Fate::Late(vec![first]),
        }
    }
}

fn run(seed: u64) {
    let mut world = World::with(|_, connection| {
        connection.dpd = Some(Dpd { delay: Duration::from_secs(60), action: DpdAction::Clear });
        connection.retransmission.tries = 12;
    });
    let mut random = SeededRandom::new(seed ^ 0x5eed);
    world.network(bad_network(seed));
    world.initiate(Who::Moon);
    let child = || Target::Child { connection: None, child: "net".into() };
    let ike = || Target::Connection("net-net".into());
    for _ in 0..12 {
        let who = if below(&mut random, 2) == 0 { Who::Moon } else { Who::Sun };
        match below(&mut random, 10) {
            0 | 1 => drop(world.initiate(who)),
            2..=4 => drop(world.rekey(who, child())),
            5..=7 => drop(world.rekey(who, ike())),
            8 => drop(world.terminate(who, child())),
            _ => drop(world.terminate(who, ike())),
        }
        world.pass(Duration::from_millis(u64::from(below(&mut random, 100)) * 20));
    }
    world.repair_network();
    world.pass(Duration::from_secs(600));
    let (moon, sun) = (world.ike_sas(Who::Moon), world.ike_sas(Who::Sun));
    let spis = |sas: &[crate::io::IkeSaReport]| {
        let mut spis: Vec<_> = sas.iter().map(|sa| (sa.initiator_spi, sa.responder_spi)).collect();
        spis.sort_unstable();
        spis
    };
    assert_eq!(spis(&moon), spis(&sun), "seed {seed}");
    let pairs = |sas: &[crate::io::IkeSaReport]| {
        let children = sas.iter().flat_map(|sa| &sa.children);
        let mut pairs: Vec<_> = children.map(|child| (child.spi_in.value(), child.spi_out.unwrap().value())).collect();
        pairs.sort_unstable();
        pairs
    };
    let mut crossed: Vec<_> = pairs(&sun).into_iter().map(|(inbound, outbound)| (outbound, inbound)).collect();
    crossed.sort_unstable();
    assert_eq!(pairs(&moon), crossed, "seed {seed}");
    world.assert_traffic_flows(moon.iter().map(|sa| sa.children.len()).sum());
    for who in [Who::Moon, Who::Sun] {
        world.terminate(who, ike());
    }
    world.pass(Duration::from_secs(600));
    world.assert_nothing_left();
}

#[test]
fn whatever_happens_both_ends_agree_in_the_end_and_nothing_leaks() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("IKE_PROTO_SEED") {
        return run(seed);
    }
    for seed in 0..number("IKE_PROTO_SEEDS").unwrap_or(40) {
        println!("seed {seed}");
        run(seed);
    }
}
