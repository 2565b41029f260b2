//! Every message survives the trip through a codec, so that the border can become a socket.

use espdp_api::{
    AddressRange, Command, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi, InboundSaSpec, IpsecProtocol,
    Mode, OuterPath, PolicyId, RequestId, SaLimits, SaSpec, Secret, ToDataplane, TrafficSelector,
};

#[test]
fn an_inbound_sa_survives_the_codec_with_its_keys() {
    let any = TrafficSelector::any_protocol(
        AddressRange::new("10.0.0.0".parse().unwrap(), "10.0.0.9".parse().unwrap()).unwrap(),
    );
    let sa = SaSpec {
        protocol: IpsecProtocol::Esp,
        spi: EspSpi::try_from(0x1234_5678).unwrap(),
        policy: PolicyId(7),
        algorithms: EspAlgorithms {
            cipher: EspCipher::AesGcm16 { key_bits: 256 },
            integrity: EspIntegrity::None,
            extended_sequence_numbers: true,
        },
        encryption_key: Secret::new(vec![7; 36]),
        integrity_key: Secret::new(Vec::new()),
        mode: Mode::Tunnel,
        path: OuterPath {
            local: "192.0.2.1".parse().unwrap(),
            remote: "192.0.2.2".parse().unwrap(),
            encapsulation: Encapsulation::Udp { local_port: 4500, remote_port: 1024 },
        },
        local: vec![any],
        remote: vec![any],
        limits: SaLimits::default(),
    };
    let command = Command::InstallInbound(Box::new(InboundSaSpec { sa, replay_window: 1024 }));
    let bytes = postcard::to_allocvec(&ToDataplane::Request(RequestId(1), command)).unwrap();
    let back: ToDataplane = postcard::from_bytes(&bytes).unwrap();
    let ToDataplane::Request(RequestId(1), Command::InstallInbound(spec)) = back else {
        panic!("another message came back: {back:?}");
    };
    assert_eq!(spec.sa.encryption_key.expose(), &vec![7; 36]);
    assert_eq!(spec.sa.spi.value(), 0x1234_5678);
    assert_eq!(spec.sa.local, vec![any]);
}

#[test]
fn a_reserved_spi_is_refused_by_the_codec_too() {
    let bytes = postcard::to_allocvec(&255u32).unwrap();
    assert!(postcard::from_bytes::<EspSpi>(&bytes).is_err());
}
