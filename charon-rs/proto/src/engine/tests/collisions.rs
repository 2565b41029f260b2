//! Exchanges that meet, as a table: what both ends want at the same time, and what is left of it (RFC 7296 §2.8.1, §2.8.2,
//! §2.25). Each row is played with all orders of messages below, with either end in either part, and with several sets of
//! nonces.

use std::time::Duration;

use super::super::testbed::{Datagram, Fate, Who, World, two_children};
use crate::Settings;
use crate::io::Target;
use crate::wire::{ExchangeType, MessageKind};

/// What an end wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    CreateChild,
    RekeyChild,
    /// Twice in a row.
    RekeyChildAgain,
    DeleteChild,
    RekeyIke,
    DeleteIke,
}

/// What is left when all is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// One IKE SA with so many pairs of Child SAs.
    Pairs(usize),
    Nothing,
}

use Left::Pairs;
use Want::{CreateChild, DeleteChild, DeleteIke, Nothing, RekeyChild, RekeyChildAgain, RekeyIke};

/// The child `net` is up, `second` is not.
#[rustfmt::skip]
const TABLE: &[(Want, Want, Left)] = &[
    // Alone, with whatever losses.
    (CreateChild,     Nothing,         Pairs(2)),
    (RekeyChild,      Nothing,         Pairs(1)),
    (RekeyChildAgain, Nothing,         Pairs(1)),
    (DeleteChild,     Nothing,         Pairs(0)),
    (RekeyIke,        Nothing,         Pairs(1)),
    (DeleteIke,       Nothing,         Left::Nothing),
    // No RFC says what becomes of the same child made twice.
    (CreateChild,     CreateChild,     Pairs(2)),
    // RFC 7296 §2.8.1: the one with the lowest nonce goes. R7296-2.8.1-1
    (RekeyChild,      RekeyChild,      Pairs(1)),
    (RekeyChildAgain, RekeyChild,      Pairs(1)),
    (RekeyChildAgain, RekeyChildAgain, Pairs(1)),
    // §2.25.1: other exchanges about Child SAs.
    (RekeyChild,      CreateChild,     Pairs(2)),
    (RekeyChild,      DeleteChild,     Pairs(0)),
    (DeleteChild,     DeleteChild,     Pairs(0)),
    (DeleteChild,     CreateChild,     Pairs(1)),
    // §2.8.2: both replace the IKE SA.
    (RekeyIke,        RekeyIke,        Pairs(1)),
    // §2.25.2: the IKE SA against its children, and against its end.
    (RekeyIke,        CreateChild,     Pairs(2)),
    (RekeyIke,        RekeyChild,      Pairs(1)),
    (RekeyIke,        RekeyChildAgain, Pairs(1)),
    (RekeyIke,        DeleteChild,     Pairs(0)),
    (RekeyIke,        DeleteIke,       Left::Nothing),
    (RekeyChild,      DeleteIke,       Left::Nothing),
    (CreateChild,     DeleteIke,       Left::Nothing),
    (DeleteChild,     DeleteIke,       Left::Nothing),
    (DeleteIke,       DeleteIke,       Left::Nothing),
];

/// What becomes of the first messages of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// All requests are under way before one arrives.
    RequestsCross,
    /// Both requests are served before a response arrives.
    ResponsesCross,
    /// The first request of this end is lost.
    RequestLost(Who),
    /// The first response of this end is lost.
    ResponseLost(Who),
    /// The first request of this end arrives after all that follows from the other's.
    RequestLate(Who),
    /// So does the first response.
    ResponseLate(Who),
}

const ORDERS: [Order; 10] = [
    Order::RequestsCross,
    Order::ResponsesCross,
    Order::RequestLost(Who::Moon),
    Order::RequestLost(Who::Sun),
    Order::ResponseLost(Who::Moon),
    Order::ResponseLost(Who::Sun),
    Order::RequestLate(Who::Moon),
    Order::RequestLate(Who::Sun),
    Order::ResponseLate(Who::Moon),
    Order::ResponseLate(Who::Sun),
];

impl Order {
    fn network(self) -> impl FnMut(&Datagram) -> Fate {
        let mut first = true;
        move |datagram| {
            let kind = datagram.header().kind;
            let mut once = |who: Who, wanted: MessageKind, fate: Fate| {
                let is_it = first && datagram.from == who && kind == wanted;
                first &= !is_it;
                if is_it { fate } else { Fate::Deliver }
            };
            match self {
                Self::RequestsCross if kind == MessageKind::Request => Fate::Hold,
                Self::ResponsesCross if kind == MessageKind::Response => Fate::Hold,
                Self::RequestsCross | Self::ResponsesCross => Fate::Deliver,
                Self::RequestLost(who) => once(who, MessageKind::Request, Fate::Lose),
                Self::ResponseLost(who) => once(who, MessageKind::Response, Fate::Lose),
                Self::RequestLate(who) => once(who, MessageKind::Request, Fate::Late(vec![LATE])),
                Self::ResponseLate(who) => once(who, MessageKind::Response, Fate::Late(vec![LATE])),
            }
        }
    }
}

/// Less than the first repetition takes.
const LATE: Duration = Duration::from_millis(1500);

fn begin(world: &mut World, who: Who, want: Want) {
    let child = || Target::Child { connection: None, child: "net".into() };
    let ike = || Target::Connection("net-net".into());
    match want {
        Nothing => {}
        CreateChild => drop(world.begin_child(who, "second")),
        RekeyChild => drop(world.begin_rekey(who, child())),
        RekeyChildAgain => {
            world.begin_rekey(who, child());
            world.run();
            world.begin_rekey(who, child());
        }
        DeleteChild => drop(world.begin_terminate(who, child())),
        RekeyIke => drop(world.begin_rekey(who, ike())),
        DeleteIke => drop(world.begin_terminate(who, ike())),
    }
}

fn play(seed: u64, (of_moon, of_sun): (Want, Want), order: Order, left: Left) {
    println!("seed {seed}: moon wants {of_moon:?}, sun {of_sun:?}, {order:?}");
    let mut world = World::seeded(&Settings::default(), seed);
    world.configure(two_children);
    world.initiate_child(Who::Moon, Some("net"));
    let deletes = |want| matches!(want, DeleteChild | DeleteIke);
    world.watches_traffic = !deletes(of_moon) && !deletes(of_sun);
    world.network(order.network());
    begin(&mut world, Who::Moon, of_moon);
    begin(&mut world, Who::Sun, of_sun);
    world.run();
    world.release();
    world.pass(Duration::from_secs(120));
    match left {
        Left::Nothing => world.assert_nothing_left(),
        Pairs(pairs) => {
            world.assert_agreement(pairs);
            for who in [Who::Moon, Who::Sun] {
                let dataplane = &world.side(who).dataplane;
                assert_eq!((dataplane.inbound.len(), dataplane.outbound.len()), (pairs, pairs), "{who:?}");
                assert!(dataplane.reserved.is_empty(), "{who:?}");
            }
        }
    }
}

/// R7296-2.8.1-1, R7296-2.8.2-1, R7296-2.25-1, R7296-2.25.1-1, R7296-2.25.2-1.
#[test]
fn whatever_meets_whatever_leaves_what_the_table_says() {
    for &(one, other, left) in TABLE {
        for order in ORDERS {
            for seed in 0..4 {
                play(seed, (one, other), order, left);
                if one != other {
                    play(seed, (other, one), order, left);
                }
            }
        }
    }
}

/// Both orders of nonces are among the seeds, or the table would prove half of it.
#[test]
fn either_end_loses_with_some_of_the_seeds() {
    let mut losers = Vec::new();
    for seed in 0..4 {
        let mut world = World::seeded(&Settings::default(), seed);
        world.configure(|_, _| {});
        world.initiate(Who::Moon);
        world.network(Order::RequestsCross.network());
        begin(&mut world, Who::Moon, RekeyIke);
        begin(&mut world, Who::Sun, RekeyIke);
        world.run();
        world.release();
        losers.push(world.only_ike_sa(Who::Moon).initiator);
        assert!(world.count(ExchangeType::CreateChildSa, MessageKind::Request) >= 2);
    }
    assert!(losers.contains(&true) && losers.contains(&false), "{losers:?}");
}
