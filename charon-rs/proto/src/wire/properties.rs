//! What holds for all messages.

use std::net::IpAddr;

use espdp_api::{AddressRange, EspSpi, PortRange, TrafficSelector};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::identity::Identity;
use crate::io::{CertificateData, CertificateRequest, IkeSpi};

fn header() -> impl Strategy<Value = Header> {
    (any::<[u8; 8]>(), any::<[u8; 8]>(), any::<u8>(), any::<(bool, bool)>(), any::<u32>()).prop_map(
        |(initiator_spi, responder_spi, exchange, (initiator, response), message_id)| Header {
            initiator_spi: IkeSpi(initiator_spi),
            responder_spi: IkeSpi(responder_spi),
            exchange: ExchangeType::from_number(exchange),
            sender: if initiator { Role::OriginalInitiator } else { Role::OriginalResponder },
            kind: if response { MessageKind::Response } else { MessageKind::Request },
            message_id,
        },
    )
}

fn esp_spi() -> impl Strategy<Value = EspSpi> {
    (256u32..).prop_map(|spi| EspSpi::try_from(spi).unwrap())
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![
        any::<u16>().prop_map(AttributeValue::Short),
        vec(any::<u8>(), 0..6).prop_map(AttributeValue::Long)
    ];
    (0u16..0x8000, value).prop_map(|(kind, value)| Attribute { kind, value })
}

fn transform() -> impl Strategy<Value = WireTransform> {
    (any::<u8>(), any::<u16>(), vec(attribute(), 0..3)).prop_map(|(kind, id, attributes)| WireTransform {
        kind: TransformType::from_number(kind),
        id,
        attributes,
    })
}

fn proposal() -> impl Strategy<Value = WireProposal> {
    (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..9), vec(transform(), 0..6)).prop_map(
        |(number, protocol, spi, transforms)| WireProposal {
            number,
            protocol: Protocol::from_number(protocol),
            spi,
            transforms,
        },
    )
}

fn identification() -> impl Strategy<Value = Identification> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| Identity::Ipv4(octets.into())),
        any::<[u8; 16]>().prop_map(|octets| Identity::Ipv6(octets.into())),
        "\\PC{1,40}".prop_map(Identity::Fqdn),
        "[a-z]{1,9}@[a-z.]{1,9}".prop_map(Identity::Rfc822),
        vec(any::<u8>(), 1..40).prop_map(Identity::KeyId),
    ]
    .prop_map(Identification::new)
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
        any::<[[u8; 16]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
    ];
    let ports = prop_oneof![
        Just(PortRange::OPAQUE),
        any::<[u16; 2]>().prop_map(|[a, b]| PortRange { start: a.min(b), end: a.max(b) }),
    ];
    (addresses, any::<u8>(), ports).prop_map(|([a, b], protocol, ports)| TrafficSelector {
        addresses: AddressRange::new(a.min(b), a.max(b)).unwrap(),
        protocol,
        ports,
    })
}

fn notify() -> impl Strategy<Value = Notify> {
    prop_oneof![
        (any::<u16>(), vec(any::<u8>(), 0..30)).prop_map(|(kind, data)| {
            // These have a form of their own.
            let plain = if [17, 44, 16388, 16389, 16390, 16393].contains(&kind) { 16384 } else { kind };
            Notify::with_data(NotifyType::from_number(plain), data)
        }),
        esp_spi().prop_map(|spi| Notify::about(NotifyType::RekeySa, spi)),
        any::<u16>().prop_map(Notify::invalid_ke),
    ]
}

fn delete() -> impl Strategy<Value = Delete> {
    prop_oneof![Just(Delete::IkeSa), vec(esp_spi(), 0..9).prop_map(Delete::Esp)]
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let attribute = prop_oneof![
        any::<Option<[u8; 4]>>().prop_map(|octets| ConfigurationAttribute::Ip4Address(octets.map(Into::into))),
        any::<Option<[u8; 16]>>().prop_map(|octets| ConfigurationAttribute::Ip6Dns(octets.map(Into::into))),
        (any::<[u8; 16]>(), 0u8..=128)
            .prop_map(|(octets, bits)| ConfigurationAttribute::Ip6Address(Some((octets.into(), bits)))),
        "[a-z0-9][a-z0-9.-]{0,60}".prop_map(|name| ConfigurationAttribute::of_domain(&name).unwrap()),
        (26u16..0x8000, vec(any::<u8>(), 0..30))
            .prop_map(|(kind, value)| ConfigurationAttribute::Other { kind, value }),
    ];
    let kind =
        prop_oneof![Just(ConfigurationKind::Request), Just(ConfigurationKind::Reply), Just(ConfigurationKind::Set)];
    (kind, vec(attribute, 0..9)).prop_map(|(kind, attributes)| Configuration { kind, attributes })
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        vec(proposal(), 1..4).prop_map(Payload::SecurityAssociation),
        (any::<u16>(), vec(any::<u8>(), 0..70))
            .prop_map(|(group, data)| Payload::KeyExchange(KeyExchange { group, data })),
        identification().prop_map(Payload::IdInitiator),
        identification().prop_map(Payload::IdResponder),
        (any::<u8>(), vec(any::<u8>(), 0..70))
            .prop_map(|(encoding, data)| Payload::Certificate(CertificateData { encoding, data })),
        (any::<u8>(), vec(any::<u8>(), 0..70)).prop_map(|(encoding, authorities)| {
            Payload::CertificateRequest(CertificateRequest { encoding, authorities })
        }),
        (any::<u8>(), vec(any::<u8>(), 0..70)).prop_map(|(method, data)| {
            Payload::Authentication(Authentication { method: AuthenticationMethod::from_number(method), data })
        }),
        vec(any::<u8>(), MIN_NONCE_OCTETS..=MAX_NONCE_OCTETS).prop_map(Payload::Nonce),
        notify().prop_map(Payload::Notify),
        delete().prop_map(Payload::Delete),
        configuration().prop_map(Payload::Configuration),
        vec(any::<u8>(), 0..30).prop_map(Payload::VendorId),
        vec(selector(), 1..6).prop_map(Payload::SelectorsInitiator),
        vec(selector(), 1..6).prop_map(Payload::SelectorsResponder),
        (54u8.., vec(any::<u8>(), 0..30))
            .prop_map(|(kind, body)| Payload::Opaque { kind: PayloadType::from_number(kind), body }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed_back(header in header(), payloads in vec(payload(), 0..8)) {
        let datagram = encode_message(&header, &payloads).unwrap();
        prop_assert_eq!(peek_header(&datagram), Ok(header));
        prop_assert_eq!(Message::parse(&datagram), Ok(Message { header, payloads, encrypted: None }));
    }

    #[test]
    fn the_order_of_payloads_is_the_senders(header in header(), payloads in vec(payload(), 0..6).prop_shuffle()) {
        // R7296-2.5-6: the codec has no opinion about it.
        let datagram = encode_message(&header, &payloads).unwrap();
        prop_assert_eq!(Message::parse(&datagram).unwrap().payloads, payloads);
    }

    #[test]
    fn arbitrary_octets_are_refused_without_panic(datagram in vec(any::<u8>(), 0..300)) {
        prop_assert!(Message::parse(&datagram).is_err() || datagram.len() >= HEADER_LEN);
    }

    #[test]
    fn arbitrary_bodies_are_parsed_or_refused(header in header(), kind in any::<u8>(), body in vec(any::<u8>(), 0..200)) {
        let datagram = encode_message(&header, &[Payload::Opaque { kind: PayloadType::from_number(kind), body }]).unwrap();
        if let Ok(Message { header, payloads, encrypted: None }) = Message::parse(&datagram) {
            // Whatever was understood can be said again, and then means the same.
            let again = encode_message(&header, &payloads).unwrap();
            prop_assert_eq!(Message::parse(&again).unwrap().payloads, payloads);
        }
    }

    #[test]
    fn damaged_messages_never_panic(
        header in header(), payloads in vec(payload(), 1..5), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut datagram = encode_message(&header, &payloads).unwrap();
        for (index, octet) in damage {
            *index.get_mut(&mut datagram) = octet;
        }
        let parsed = Message::parse(&datagram);
        // Octets are not conjured up: what came out is no longer than what went in.
        if let Ok(Message { payloads, .. }) = parsed {
            prop_assert!(payloads.len() * 4 <= datagram.len());
        }
    }

    #[test]
    fn a_truncated_message_is_refused(header in header(), payloads in vec(payload(), 1..4), cut in any::<prop::sample::Index>()) {
        let mut datagram = encode_message(&header, &payloads).unwrap();
        datagram.truncate(cut.index(datagram.len()));
        prop_assert!(Message::parse(&datagram).is_err());
    }
}
