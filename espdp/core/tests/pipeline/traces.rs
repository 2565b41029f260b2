//! Packets are followed through both gateways, step by step.

use espdp_api::{Direction, TraceFilter, TraceStep};

use crate::support::{Gateway, Setup, udp};

fn trace(gateway: &mut Gateway, packets: usize, filter: TraceFilter) {
    gateway.dataplane.trace(gateway.now, packets, filter);
}

/// The names of the steps of each packet that was traced.
fn steps(gateway: &Gateway) -> Vec<Vec<&'static str>> {
    gateway.dataplane.traces().iter().map(|trace| trace.steps.iter().map(TraceStep::name).collect()).collect()
}

fn last(gateway: &Gateway) -> String {
    gateway.dataplane.traces().last().unwrap().steps.last().unwrap().to_string()
}

#[test]
fn a_packet_is_followed_from_one_inside_to_the_other() {
    let (mut left, mut right) = Setup::default().connect();
    for gateway in [&mut left, &mut right] {
        trace(gateway, 9, TraceFilter::default());
    }
    left.send(&udp(true, 50));
    let wire = left.send(&udp(true, 100));
    right.receive(&wire);
    let outbound = ["from_inside", "policy", "sa", "sealed", "sent"];
    assert_eq!(steps(&left), [outbound, outbound]);
    assert_eq!(steps(&right), [["from_outside", "admitted", "opened", "selected", "to_inside"]]);
    let octets = wire[0].octets.len();
    assert_eq!(last(&left), format!("sent 192.0.2.1 to 192.0.2.2 in UDP: {octets} octets"));
    assert_eq!(last(&right), format!("to ipsec0: {} octets", udp(true, 100).len()));
    // Both tell the same SA and sequence number.
    let said: Vec<String> = left.dataplane.traces()[1].steps.iter().map(ToString::to_string).collect();
    let spi = right.inbound_spi;
    assert!(said.contains(&format!("SA {:08x}, sequence number 2", spi.value())), "{said:?}");
    let heard: Vec<String> = right.dataplane.traces()[0].steps.iter().map(ToString::to_string).collect();
    assert!(heard[0].ends_with(&format!("{octets} octets, SPI {:08x}", spi.value())), "{heard:?}");
    assert_eq!(heard[1], "SA found, sequence number 2 is new");
    assert_eq!(heard[2], "authentic, decrypted: protocol 4 inside");
}

#[test]
fn what_is_dropped_says_why() {
    let (mut left, mut right) = Setup::default().connect();
    let wire = left.send(&udp(true, 50));
    trace(&mut left, 9, TraceFilter::default());
    trace(&mut right, 9, TraceFilter::default());
    assert!(left.send(&[0x45; 9]).is_empty());
    assert_eq!(last(&left), "dropped: malformed");
    let mut forged = wire.clone();
    forged[0].octets[30] ^= 1;
    right.receive(&forged);
    assert_eq!(last(&right), "dropped: bad_icv");
    right.receive(&wire);
    assert_eq!(last(&right), "to ipsec0: 78 octets");
    right.receive(&wire);
    assert_eq!(last(&right), "dropped: replay");
    let mut strange = wire.clone();
    strange[0].octets[0] ^= 0x80;
    right.receive(&strange);
    assert_eq!(last(&right), "dropped: unknown_spi");
    strange[0].octets.truncate(5);
    right.receive(&strange);
    assert_eq!(last(&right), "dropped: short");
    assert_eq!(steps(&right).len(), 5);
}

#[test]
fn only_what_the_filter_takes_is_kept_and_no_more_than_was_asked_for() {
    let (mut left, mut right) = Setup::default().connect();
    trace(&mut right, 1, TraceFilter { dropped: true, ..TraceFilter::default() });
    let wire = left.send(&udp(true, 50));
    right.receive(&wire);
    right.receive(&wire);
    right.receive(&wire);
    assert_eq!(steps(&right), [["from_outside", "dropped"]]);
    trace(&mut left, 9, TraceFilter { protocol: Some(6), ..TraceFilter::default() });
    left.send(&udp(true, 50));
    assert!(steps(&left).is_empty());
    trace(&mut left, 0, TraceFilter::default());
    left.send(&udp(true, 50));
    assert!(steps(&left).is_empty());
}

#[test]
fn a_trace_knows_both_directions() {
    let (mut left, mut right) = Setup::default().connect();
    trace(&mut left, 9, TraceFilter { direction: Some(Direction::Inbound), ..TraceFilter::default() });
    left.send(&udp(true, 50));
    let back = right.send(&udp(false, 50));
    left.receive(&back);
    assert_eq!(steps(&left).len(), 1);
    assert_eq!(left.dataplane.traces()[0].direction, Direction::Inbound);
}
