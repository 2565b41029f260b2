//! The computed MTU is the largest that fits, for the real packets.

use espdp_api::{Encapsulation, Mode};
use espdp_core::Overhead;
use proptest::prelude::*;

use crate::support::{Setup, UDP, all_algorithms, udp, udp_between};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// R4301-8.2.1-1.
    #[test]
    fn a_packet_of_the_inner_mtu_fits_and_one_octet_more_does_not(
        algorithms in proptest::sample::select(all_algorithms()),
        is_tunnel in any::<bool>(),
        in_udp in any::<bool>(),
        outer_is_ipv6 in any::<bool>(),
        outer_mtu in 200usize..9001,
    ) {
        let mode = if is_tunnel { Mode::Tunnel } else { Mode::Transport };
        let encapsulation = if in_udp { UDP } else { Encapsulation::Esp };
        let (mut left, _) = Setup { algorithms, mode, encapsulation, outer_is_ipv6, ..Setup::default() }.connect();
        let overhead = Overhead::new(algorithms, mode, encapsulation, outer_is_ipv6);
        let mtu = overhead.inner_mtu(outer_mtu);
        let mut outer_len = |inner_len: usize| {
            let packet = match mode {
                Mode::Tunnel => udp(true, inner_len - 28),
                Mode::Transport => {
                    let headers = if outer_is_ipv6 { 48 } else { 28 };
                    let (source, destination) = (left.path.local.to_string(), left.path.remote.to_string());
                    udp_between(&source, &destination, 0, inner_len - headers)
                }
            };
            assert_eq!(packet.len(), inner_len);
            left.send(&packet)[0].octets.len() + if outer_is_ipv6 { 40 } else { 20 } + if in_udp { 8 } else { 0 }
        };
        prop_assert!(outer_len(mtu) <= outer_mtu);
        prop_assert!(outer_len(mtu + 1) > outer_mtu);
        prop_assert_eq!(outer_len(mtu), overhead.outer_len(mtu));
    }
}

#[test]
fn an_outer_mtu_without_room_leaves_no_inner_mtu() {
    for algorithms in all_algorithms() {
        let overhead = Overhead::new(algorithms, Mode::Tunnel, UDP, false);
        assert_eq!(overhead.inner_mtu(0), 0);
        assert_eq!(overhead.inner_mtu(overhead.outer_len(0) - 1), 0);
    }
}
