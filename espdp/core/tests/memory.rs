//! How much memory a tunnel takes. A binary of its own, because it counts every allocation of the process.

#![expect(clippy::unwrap_used, reason = "a test whose setting fails has nothing to show")]

use std::alloc::System;

use espdp_api::{
    AddressRange, Carries, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, InboundSaSpec, InterfaceKind,
    InterfaceName, IpsecProtocol, Mode, OutboundSaSpec, OuterPath, PacketShape, PolicyId, PolicySpec, SaLimits, SaSpec,
    Secret, SequenceEnd, TrafficSelector,
};
use espdp_core::Dataplane;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TUNNELS: u64 = 1000;
/// Octets of both SAs of a tunnel, its policy, and their places in all tables.
const MOST: usize = 4096;

/// What does not go back when `work` is done, for each of the tunnels.
fn octets_of(work: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    work();
    let change = region.change();
    (change.bytes_allocated - change.bytes_deallocated) / TUNNELS as usize
}

fn host(last: u64) -> TrafficSelector {
    let [.., high, low] = last.to_be_bytes();
    let address = [10, 2, high, low].into();
    TrafficSelector::any_protocol(AddressRange::new(address, address).unwrap())
}

#[test]
fn a_tunnel_with_both_sas_takes_less_than_4096_octets() {
    let mut dataplane = Dataplane::new(&Secret::new([1; 32]));
    let name = InterfaceName::new("ipsec0").unwrap();
    dataplane.set_interface(&name, InterfaceKind::Ipsec).unwrap();
    let site =
        TrafficSelector::any_protocol(AddressRange::new([10, 1, 0, 0].into(), [10, 1, 255, 255].into()).unwrap());
    let policies = octets_of(|| {
        for number in 0..TUNNELS {
            let (id, remote) = (PolicyId(number), host(number));
            dataplane.set_policy(&PolicySpec::protect(id, name.clone(), vec![site], vec![remote])).unwrap();
        }
    });
    let sas = octets_of(|| {
        for number in 0..TUNNELS {
            let spi = dataplane.reserve_spi(0x4711_0000).unwrap();
            let encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
            let path = OuterPath { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into(), encapsulation };
            let sa = || SaSpec {
                protocol: IpsecProtocol::Esp,
                spi,
                policy: PolicyId(number),
                algorithms: EspAlgorithms {
                    cipher: EspCipher::AesGcm16 { key_bits: 256 },
                    integrity: EspIntegrity::None,
                    extended_sequence_numbers: true,
                },
                encryption_key: Secret::new(vec![number as u8; 36]),
                integrity_key: Secret::new(vec![]),
                mode: Mode::Tunnel,
                path,
                local: vec![site],
                remote: vec![host(number)],
                limits: SaLimits::default(),
            };
            dataplane.install_inbound(&InboundSaSpec { sa: sa(), replay_window: 1024 }).unwrap();
            let (shape, carries) = (PacketShape::default(), Carries::All);
            let (inbound, sequence_end) = (Some(spi), SequenceEnd::Stop);
            let outbound = OutboundSaSpec { sa: sa(), shape, carries, inbound, sequence_end };
            dataplane.install_outbound(&outbound).unwrap();
            dataplane.activate(PolicyId(number), spi).unwrap();
        }
    });
    assert!((100..MOST).contains(&policies), "{policies} octets for the policy");
    assert!((500..MOST).contains(&(sas + policies)), "{sas} octets for both SAs, {policies} for the policy");
}
