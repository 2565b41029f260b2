//! The end of the sequence numbers, which no test can send its way to.

use espdp_api::{
    AddressRange, Carries, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi, InterfaceKind, InterfaceName,
    IpsecProtocol, Mode, OutboundSaSpec, OuterPath, PacketShape, PolicyId, PolicySpec, SaLimits, SaSpec, Secret,
    SequenceEnd, TrafficSelector,
};

use super::*;

const POLICY: PolicyId = PolicyId(1);

fn sender(extended_sequence_numbers: bool) -> (Dataplane, InterfaceId) {
    sender_to(extended_sequence_numbers, SequenceEnd::Stop)
}

fn sender_to(extended_sequence_numbers: bool, sequence_end: SequenceEnd) -> (Dataplane, InterfaceId) {
    let mut dataplane = Dataplane::new(&Secret::new([1; 32]));
    let name = InterfaceName::new("ipsec0").unwrap();
    let interface = dataplane.set_interface(&name, InterfaceKind::Ipsec).unwrap();
    let all = AddressRange::new([0, 0, 0, 0].into(), [255, 255, 255, 255].into()).unwrap();
    let (local, remote) = (vec![TrafficSelector::any_protocol(all)], vec![TrafficSelector::any_protocol(all)]);
    let spec = PolicySpec::protect(POLICY, name, local, remote);
    dataplane.set_policy(&spec).unwrap();
    let (cipher, integrity) = (EspCipher::AesGcm16 { key_bits: 128 }, EspIntegrity::None);
    let (local, remote) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let sa = SaSpec {
        protocol: IpsecProtocol::Esp,
        spi: EspSpi::try_from(0x1234).unwrap(),
        policy: POLICY,
        algorithms: EspAlgorithms { cipher, integrity, extended_sequence_numbers },
        encryption_key: Secret::new(vec![7; 20]),
        integrity_key: Secret::new(vec![]),
        mode: Mode::Tunnel,
        path: OuterPath { local, remote, encapsulation: Encapsulation::Esp },
        local: spec.local,
        remote: spec.remote,
        limits: SaLimits::default(),
    };
    dataplane
        .install_outbound(&OutboundSaSpec {
            sa,
            shape: PacketShape::default(),
            sequence_end,
            inbound: None,
            carries: Carries::All,
        })
        .unwrap();
    dataplane.activate(POLICY, EspSpi::try_from(0x1234).unwrap()).unwrap();
    (dataplane, interface)
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn now() -> Instant {
    Instant::now()
}

/// The last octets of the sequence numbers that were sent.
fn send(dataplane: &mut Dataplane, interface: InterfaceId, packets: usize) -> Vec<u8> {
    let mut packet = vec![0; 28];
    crate::packet::write_header(&mut packet, [10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 200, 0, 8).unwrap();
    let mut batch = OutboundBatch::new();
    let mut filling = dataplane.fill(now(), &mut batch);
    for _ in 0..packets {
        let progress = filling.push(&mut SuperPacket::new(interface, VnetHeader::default(), &packet));
        assert_eq!(progress, Progress::Done);
    }
    filling.seal().runs().flat_map(|run| run.packets().map(|esp| esp[7]).collect::<Vec<_>>()).collect()
}

/// R4106-3.1-1, and a cipher in counter mode takes off what it put on before.
#[test]
fn what_was_sealed_is_neither_sealed_nor_sent_again() {
    let (mut dataplane, interface) = sender(false);
    let mut packet = vec![0; 28];
    crate::packet::write_header(&mut packet, [10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 200, 0, 8).unwrap();
    let mut batch = OutboundBatch::new();
    let push = |filling: &mut Filling<'_>| {
        let mut packet = SuperPacket::new(interface, VnetHeader::default(), &packet);
        assert_eq!(filling.push(&mut packet), Progress::Done);
    };
    let sent = |sealed: Sealed<'_>| sealed.runs().flat_map(|run| run.packets().map(<[u8]>::to_vec)).collect::<Vec<_>>();
    let mut filling = dataplane.fill(now(), &mut batch);
    push(&mut filling);
    let first = sent(filling.seal());
    assert_eq!(first.len(), 1);
    assert!(sent(dataplane.fill_on(now(), &mut batch).seal()).is_empty(), "the batch was sent");
    let mut filling = dataplane.fill_on(now(), &mut batch);
    push(&mut filling);
    let second = sent(filling.seal());
    assert_eq!((second.len(), second[0][7]), (1, 2), "only the new packet");
}

#[test]
fn nothing_is_sent_past_the_last_sequence_number() {
    // R4303-3.3.3-1
    for (extended, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
        let (mut dataplane, interface) = sender(extended);
        dataplane.outbound.get_mut(0).unwrap().set_sequence(last - 2);
        assert_eq!(send(&mut dataplane, interface, 5), [0xfe, 0xff]);
        assert_eq!(send(&mut dataplane, interface, 1), [0u8; 0]);
        let (direction, spi, policy) = (Direction::Outbound, EspSpi::try_from(0x1234).unwrap(), POLICY);
        assert_eq!(dataplane.poll_event(), Some(Event::HardLimit { direction, spi, policy }));
        assert_eq!(dataplane.poll_event(), None, "reported once");
        let statistics = dataplane.statistics(now()).pop().unwrap();
        assert_eq!((statistics.sequence, statistics.packets), (last, 2));
        assert_eq!(statistics.drops[0].packets, 4);
    }
}

#[test]
fn an_extended_sender_crosses_the_32_bit_border() {
    let (mut dataplane, interface) = sender(true);
    dataplane.outbound.get_mut(0).unwrap().set_sequence(u64::from(u32::MAX) - 1);
    assert_eq!(send(&mut dataplane, interface, 3), [0xff, 0, 1]);
    assert_eq!(dataplane.poll_event(), None);
}

/// RFC 4303 §3.3.3: a receiver that does not look at the numbers takes them anew.
#[test]
fn where_nobody_looks_at_the_numbers_they_begin_anew() {
    let (mut dataplane, interface) = sender_to(false, SequenceEnd::Wrap);
    dataplane.outbound.get_mut(0).unwrap().set_sequence(u64::from(u32::MAX) - 1);
    assert_eq!(send(&mut dataplane, interface, 3), [0xff, 0, 1]);
    assert_eq!(dataplane.poll_event(), None, "nobody has to rekey");
}
