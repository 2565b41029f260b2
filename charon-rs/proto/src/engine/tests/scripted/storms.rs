//! Much of the same, and everything at random: nothing grows without limit.

use super::*;
use crate::wire::encode_message;

const CREATE_CHILD: ExchangeType = ExchangeType::CreateChildSa;
const INFORMATIONAL: ExchangeType = ExchangeType::Informational;

#[test]
fn an_ike_sa_that_is_replaced_again_and_again_while_we_replace_it_stays_one_of_few() {
    let mut peer = Peer::beside_an_honest_one();
    let mut random = SeededRandom::new(1);
    peer.provoke_rekeying(ike());
    let before = peer.sas_of_sun();
    assert!(peer.refusal(CREATE_CHILD, &ike_rekeying(&mut random)).is_empty(), "both may want it");
    for _ in 0..200 {
        assert_eq!(peer.refusal(CREATE_CHILD, &ike_rekeying(&mut random)), [NotifyType::TemporaryFailure]);
    }
    assert_eq!(peer.sas_of_sun(), before + 1);
    peer.assert_the_honest_one_is_unharmed();
    // Nobody answers our request, and in the end there is nothing of all that.
    peer.pass(Duration::from_secs(300));
    assert!(peer.sas_of_sun() <= before, "{}", peer.sas_of_sun());
}

#[test]
fn replaced_ike_sas_that_nobody_deletes_are_few_at_any_time() {
    let mut world = World::new();
    world.initiate(Who::Moon);
    world.network(|datagram| if datagram.is(INFORMATIONAL, MessageKind::Request) { Fate::Lose } else { Fate::Deliver });
    for round in 0..50 {
        world.rekey(Who::Moon, ike());
        world.pass(Duration::from_millis(100));
        assert!(world.sun.engine.sas.len() <= 6, "{} after {round}", world.sun.engine.sas.len());
    }
    world.repair_network();
    world.pass(Duration::from_secs(120));
    world.assert_agreement(1);
}

#[test]
fn thousands_of_children_are_refused_and_all_go_at_once() {
    let mut peer = Peer::beside_an_honest_one();
    let (mut made, mut refused) = (0, 0);
    for number in 0..1500 {
        match peer.refusal(CREATE_CHILD, &child_offer(spi(0x0a00_0000 + number)))[..] {
            [] => made += 1,
            [NotifyType::NoAdditionalSas] => refused += 1,
            ref other => panic!("{other:?}"),
        }
    }
    assert_eq!((made, refused), (1023, 477));
    peer.assert_the_honest_one_is_unharmed();
    let all: Vec<EspSpi> = (0..1500).map(|number| spi(0x0a00_0000 + number)).collect();
    let sent = peer.request(INFORMATIONAL, &[Payload::Delete(Delete::Esp(all))]);
    let Some([Payload::Delete(Delete::Esp(ours))]) = sent[0].payloads.as_deref() else { panic!("{sent:?}") };
    assert_eq!(ours.len(), 1023);
    peer.pass(Duration::from_secs(10));
    assert_eq!(peer.children_of_sun(), 2, "`net`, and that of the honest one");
    assert!(peer.refusal(CREATE_CHILD, &child_offer(spi(0x0b00_0000))).is_empty(), "there is room again");
}

#[test]
fn a_child_that_is_replaced_in_a_circle_leaves_no_more_than_drains() {
    let mut peer = Peer::established();
    let mut old = spi_of_child(&mut peer);
    for number in 0..300 {
        let new = spi(0x0a00_0000 + number);
        assert!(peer.refusal(CREATE_CHILD, &child_rekeying(old, new)).is_empty());
        peer.request(INFORMATIONAL, &[Payload::Delete(Delete::Esp(vec![old]))]);
        old = new;
        peer.pass(Duration::from_millis(500));
        assert!(peer.children_of_sun() <= 12, "{}", peer.children_of_sun());
        assert_eq!(peer.world.sun.dataplane.policies.len(), 1);
    }
}

#[test]
fn deletions_of_nothing_are_cheap_in_whatever_number() {
    let mut peer = Peer::beside_an_honest_one();
    let nothing: Vec<EspSpi> = (0..16_000).map(|number| spi(0x0c00_0000 + number)).collect();
    peer.provoke_rekeying(child());
    for _ in 0..10 {
        let sent = peer.request(INFORMATIONAL, &[Payload::Delete(Delete::Esp(nothing.clone()))]);
        assert_eq!(sent[0].payloads.as_deref(), Some(&[][..]));
    }
    peer.assert_the_honest_one_is_unharmed();
}

/// A random number below `bound`.
fn below(random: &mut SeededRandom, bound: u32) -> u32 {
    let mut octets = [0; 4];
    random.fill_public(&mut octets);
    u32::from_be_bytes(octets) % bound
}

fn some_payload(random: &mut SeededRandom, known: &[EspSpi]) -> Payload {
    let any_spi = |random: &mut SeededRandom| known[below(random, known.len() as u32) as usize];
    match below(random, 12) {
        0 => Payload::Nonce(vec![7; 16 + below(random, 241) as usize]),
        1 => Payload::KeyExchange(KeyExchange { group: [31, 14, 19, 0][below(random, 4) as usize], data: vec![9; 32] }),
        2 => Payload::Notify(Notify::new(NotifyType::from_number(below(random, 0x1_0000) as u16))),
        3 => Payload::Notify(Notify::about(NotifyType::RekeySa, any_spi(random))),
        4 => Payload::Delete(Delete::Esp(vec![any_spi(random); 1 + below(random, 3) as usize])),
        5 => Payload::SelectorsInitiator(vec![net("10.1.0.0", "10.1.255.255")]),
        6 => Payload::SelectorsResponder(vec![net("10.2.0.0", "10.2.255.255")]),
        7 => Payload::VendorId(vec![1; below(random, 200) as usize]),
        8 => Payload::Notify(Notify::new(NotifyType::UseTransportMode)),
        9 => {
            let (kind, length) = (below(random, 256) as u8, below(random, 60) as usize);
            Payload::Opaque { kind: PayloadType::from_number(kind.max(1)), body: vec![3; length] }
        }
        10 => ike_rekeying(random).swap_remove(0),
        _ => child_offer(spi(0x0a00_0000 + below(random, 40))).swap_remove(0),
    }
}

/// One strange thing.
fn act(peer: &mut Peer, random: &mut SeededRandom, open: &mut Vec<Header>, known: &mut Vec<EspSpi>) -> Vec<Sent> {
    let new = spi(0x0a00_0000 + below(random, 40));
    let old = known[below(random, known.len() as u32) as usize];
    known.push(new);
    let exchange = [CREATE_CHILD, INFORMATIONAL][below(random, 2) as usize];
    match below(random, 12) {
        0 | 1 => peer.request(CREATE_CHILD, &child_offer(new)),
        2 | 3 => peer.request(CREATE_CHILD, &child_rekeying(old, new)),
        4 => peer.request(CREATE_CHILD, &ike_rekeying(random)),
        5 => peer.request(INFORMATIONAL, &[Payload::Delete(Delete::Esp(vec![old, new]))]),
        6 => {
            let payloads: Vec<_> = (0..below(random, 7)).map(|_| some_payload(random, known)).collect();
            peer.request(exchange, &payloads)
        }
        7 => {
            let target = if below(random, 2) == 0 { child() } else { ike() };
            let before = peer.world.seen.len();
            peer.world.rekey(Who::Sun, target);
            peer.received_since(before)
        }
        8 => match open.pop() {
            Some(header) => {
                let payloads: Vec<_> = match below(random, 4) {
                    0 => child_offer(new),
                    1 => ike_rekeying(random),
                    2 => vec![Payload::Notify(Notify::new(NotifyType::TemporaryFailure))],
                    _ => (0..below(random, 5)).map(|_| some_payload(random, known)).collect(),
                };
                peer.respond(&header, &payloads)
            }
            None => Vec::new(),
        },
        9 => {
            let id = below(random, 12);
            let message = peer.seal(exchange, MessageKind::Request, id, &[]);
            peer.next = peer.next.max(if id == peer.next { id + 1 } else { 0 });
            peer.send(&message)
        }
        10 => {
            let names = peer.session().names;
            let header = names.header(exchange, MessageKind::Response, below(random, 5));
            let refusal = Payload::Notify(Notify::new(NotifyType::InvalidIkeSpi));
            peer.send(&encode_message(&header, &[refusal]).unwrap())
        }
        _ => peer.pass(Duration::from_millis(u64::from(below(random, 3000)))),
    }
}

/// Whatever a peer does that has the keys: no panic, few messages for each of its own, nothing left in the end, and the
/// others are served.
fn run(seed: u64) {
    let mut peer = Peer::beside_an_honest_one();
    let mut random = SeededRandom::new(seed);
    let (mut open, mut known) = (Vec::new(), vec![spi_of_child(&mut peer)]);
    for step in 0..120 {
        let sent = act(&mut peer, &mut random, &mut open, &mut known);
        assert!(sent.len() <= 8, "seed {seed} step {step}: {sent:?}");
        open.extend(sent.iter().map(|sent| sent.header).filter(|header| header.kind == MessageKind::Request));
        assert!(peer.sas_of_sun() <= 8, "seed {seed} step {step}: {} IKE SAs", peer.sas_of_sun());
        assert!(peer.children_of_sun() <= 150, "seed {seed} step {step}: {} children", peer.children_of_sun());
        assert!(peer.tasks_of_sun() <= 150, "seed {seed} step {step}: {} tasks", peer.tasks_of_sun());
        assert!(peer.world.sun.dataplane.reserved.len() <= 4, "seed {seed} step {step}");
        if !peer.is_alive() {
            break;
        }
    }
    peer.assert_the_honest_one_is_unharmed();
    peer.world.terminate(Who::Sun, Target::Connection("net-net".into()));
    peer.pass(Duration::from_secs(300));
    let left: Vec<_> = peer.world.ike_sas(Who::Sun).into_iter().map(|sa| sa.connection).collect();
    assert_eq!(left, ["honest"], "seed {seed}");
    assert_eq!(peer.sas_of_sun(), 1, "seed {seed}");
    let dataplane = &peer.world.sun.dataplane;
    let counts =
        (dataplane.inbound.len(), dataplane.outbound.len(), dataplane.policies.len(), dataplane.reserved.len());
    assert_eq!(counts, (1, 1, 1, 0), "seed {seed}");
}

#[test]
fn whatever_a_peer_with_keys_does_others_are_served_and_nothing_is_left() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("IKE_PROTO_SEED") {
        return run(seed);
    }
    for seed in 0..number("IKE_PROTO_SEEDS").unwrap_or(60) {
        run(seed);
    }
}
