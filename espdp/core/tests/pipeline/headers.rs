//! What outer headers say, and what becomes of what they said.

use espdp_api::{DfPolicy, Direction, DscpPolicy, PacketShape};

use crate::support::{INNER, Setup, udp, udp_between};

#[test]
fn ecn_is_copied_out_and_combined_on_the_way_in() {
    // R6040-4.1-1, R6040-4.2-1, R6040-4.2-2: Not-ECT, ECT(1), ECT(0), CE are 0, 1, 2, 3.
    let expected = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for (source, destination) in INNER {
        let (mut left, mut right) = Setup::default().connect();
        for inner in 0..4u8 {
            for outer in 0..4u8 {
                let packet = |ecn| udp_between(source, destination, 0xb8 | ecn, 40);
                let mut wire = left.send(&packet(inner));
                assert_eq!(wire[0].outer.traffic_class, 0xb8 | inner);
                // A router on the way changes the mark, and the DSCP, which must not come in.
                wire[0].outer.traffic_class = 0x28 | outer;
                let expected = expected[usize::from(inner)][usize::from(outer)].map(packet);
                assert_eq!(right.receive(&wire).pop(), expected, "inner {inner} outer {outer}");
            }
        }
        assert_eq!(right.drops(Direction::Inbound), [("ecn".to_owned(), 1)]);
    }
}

#[test]
fn dscp_is_copied_or_fixed() {
    let packet = udp_between(INNER[0].0, INNER[0].1, 0xb8 | 2, 40);
    for (dscp, expected) in [(DscpPolicy::Copy, 0xba), (DscpPolicy::Fixed(10), 10 << 2 | 2)] {
        let (mut left, _) =
            Setup { shape: PacketShape { dscp, ..PacketShape::default() }, ..Setup::default() }.connect();
        assert_eq!(left.send(&packet)[0].outer.traffic_class, expected);
    }
}

#[test]
fn dont_fragment_is_set_cleared_or_copied() {
    // R4301-8.1-1
    let mut fragmentable = udp(true, 40);
    fragmentable[6] = 0;
    let cases = [(DfPolicy::Set, true, true), (DfPolicy::Clear, false, false), (DfPolicy::Copy, true, false)];
    for (df, for_df, for_fragmentable) in cases {
        let (mut left, _) = Setup { shape: PacketShape { df, ..PacketShape::default() }, ..Setup::default() }.connect();
        assert_eq!(left.send(&udp(true, 40))[0].outer.dont_fragment, for_df);
        assert_eq!(left.send(&udp(false, 40))[0].outer.dont_fragment, for_df);
        assert_eq!(left.send(&fragmentable)[0].outer.dont_fragment, for_fragmentable);
    }
}

#[test]
fn packets_with_different_outer_headers_are_different_runs() {
    let (mut left, mut right) = Setup::default().connect();
    let marked = udp_between(INNER[0].0, INNER[0].1, 0x28, 40);
    let wire: Vec<_> = [udp(true, 40), marked.clone(), marked].iter().flat_map(|packet| left.send(packet)).collect();
    assert_eq!(wire.iter().map(|packet| packet.outer.traffic_class).collect::<Vec<_>>(), [0, 0x28, 0x28]);
    assert_eq!(right.receive(&wire).len(), 3);
}
