//! The Authentication Header between two dataplanes.

use espdp_api::*;

use crate::gateway::{Gateway, Suite, connect};
use crate::traffic::{Capture, ping, tcp_transfer};
use crate::world::{World, may_run};
use crate::{LEFT, RIGHT, assert_carried, gateways};

fn sha512(left: &'static str, right: &'static str, mode: Mode) -> Suite {
    let integrity = EspIntegrity::HmacSha2_512_256;
    let algorithms = EspAlgorithms { cipher: EspCipher::Null, integrity, extended_sequence_numbers: true };
    Suite { protocol: IpsecProtocol::Ah, algorithms, mode, encapsulation: Encapsulation::Esp, left, right }
}

#[test]
fn ah_in_tunnel_mode_carries_both_families_over_both() {
    if !may_run() {
        return;
    }
    for (left_address, right_address, mtu) in
        [("192.0.2.1", "192.0.2.2", 1500 - 20 - 44), ("2001:db8::1", "2001:db8::2", 1500 - 40 - 48)]
    {
        let world = World::new();
        let (mut left, mut right) = gateways(&world);
        let capture = Capture::start(&world.left);
        connect(&mut left, &mut right, sha512(left_address, right_address, Mode::Tunnel), &LEFT, &RIGHT);
        assert_eq!(left.statistics().1.mtu, mtu);
        ping(&world.left, "10.2.0.1", mtu as usize - 20);
        ping(&world.right, "fd01::1", 1200);
        ping(&world.left, "10.2.0.1", 4000);
        tcp_transfer(&world.left, &world.right, "10.2.0.1", 1 << 20);
        tcp_transfer(&world.right, &world.left, "fd01::1", 1 << 20);
        let seen = capture.finish();
        assert!(seen.ah > 1000, "{seen:?}");
        assert_eq!((seen.other, seen.esp, seen.udp_4500), (0, 0, 0), "{seen:?}");
        assert_carried(&mut left, &mut right, 1 << 20);
        assert_carried(&mut right, &mut left, 1 << 20);
        left.stop();
        right.stop();
    }
}

#[test]
fn ah_in_transport_mode_covers_what_the_gateways_say_to_each_other() {
    if !may_run() {
        return;
    }
    for (left_address, right_address) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        let world = World::new();
        let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
        let capture = Capture::start(&world.left);
        left.interface(InterfaceKind::Ipsec, &[]);
        left.policy(&[left_address], &[right_address], &[right_address]);
        right.interface(InterfaceKind::Ipsec, &[]);
        right.policy(&[right_address], &[left_address], &[left_address]);
        let suite = sha512(left_address, right_address, Mode::Transport);
        connect(&mut left, &mut right, suite, &[left_address], &[right_address]);
        ping(&world.left, right_address, 64);
        tcp_transfer(&world.left, &world.right, right_address, 1 << 20);
        let seen = capture.finish();
        assert!(seen.ah > 500, "{seen:?}");
        assert_eq!((seen.other, seen.esp), (0, 0), "{seen:?}");
        assert_carried(&mut left, &mut right, 1 << 20);
    }
}
