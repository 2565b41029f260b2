//! Engines, from outside and behind their keys.

use std::time::Duration;

use ike_proto::testing::SeededRandom;
use ike_proto::wire::{ExchangeType, HEADER_LEN, Header, MessageKind, Payload, PayloadType, PlainMessage};

use crate::cursor::{Cursor, counted};
use crate::gateways::{Gateways, Stage};

/// More would not find more, but take longer.
const MAX_MESSAGES: usize = 12;

/// Datagrams of somebody who has no keys. The input is the stage, and for each datagram how it is finished and its octets
/// behind their count.
pub(crate) fn datagrams(input: &[u8]) {
    let mut input = Cursor::new(input);
    let mut gateways = Gateways::at(match input.octet() % 3 {
        0 => Stage::Begun,
        1 => Stage::Keyed,
        _ => Stage::Established,
    });
    for _ in 0..MAX_MESSAGES {
        if input.is_empty() {
            break;
        }
        let how = input.octet();
        let mut datagram = input.counted().to_vec();
        if how & SET_SPIS != 0 {
            set_spis(&gateways, &mut datagram);
        }
        if how & SET_LENGTH != 0 {
            set_length(&mut datagram);
        }
        let to = if how & TO_RIGHT != 0 { gateways.right } else { gateways.left };
        gateways.deliver(to, datagram);
        gateways.world.run(Duration::from_millis(if how & LATER != 0 { 700 } else { 1 }));
    }
    gateways.finish();
}

/// A datagram of [`datagrams`], so that its SPIs and its length fit.
pub(crate) fn datagram_record(to_right: bool, datagram: &[u8]) -> Vec<u8> {
    let how = SET_SPIS | SET_LENGTH | if to_right { TO_RIGHT } else { 0 };
    [vec![how], counted(datagram)].concat()
}

const TO_RIGHT: u8 = 1;
const SET_SPIS: u8 = 2;
const SET_LENGTH: u8 = 4;
const LATER: u8 = 8;

/// Sets the SPIs to those of the IKE SA, as far as they are known.
fn set_spis(gateways: &Gateways, datagram: &mut [u8]) {
    let last = gateways.world.tapped().last().map(|sent| sent.message.clone()).unwrap_or_default();
    let spis = last.get(..16).unwrap_or_default();
    datagram.iter_mut().zip(spis).for_each(|(octet, spi)| *octet = *spi);
}

fn set_length(datagram: &mut [u8]) {
    let length = u32::try_from(datagram.len()).unwrap_or_default().to_be_bytes();
    datagram.iter_mut().take(HEADER_LEN).skip(24).zip(length).for_each(|(octet, length)| *octet = length);
}

/// Messages of a peer that has the keys. The input is the stage and who reads, and for each message its exchange, what
/// becomes of it, its number and its payloads: how many, and of each its type and its body behind its count.
pub(crate) fn payloads(input: &[u8]) {
    let mut input = Cursor::new(input);
    let flags = input.octet();
    let mut gateways = Gateways::at(if flags & ESTABLISHED != 0 { Stage::Established } else { Stage::Keyed });
    let to = if flags & TO_RIGHT != 0 { gateways.right } else { gateways.left };
    let Some((mut cipher, sender)) = gateways.voice_to(to) else {
        return;
    };
    let mut random = SeededRandom::new(7);
    for _ in 0..MAX_MESSAGES {
        let Some(keys) = gateways.keys().filter(|_| !input.is_empty()) else {
            break;
        };
        let (exchange, how, message_id) = (input.octet(), input.octet(), input.octet());
        let header = Header {
            initiator_spi: keys.initiator_spi,
            responder_spi: keys.responder_spi,
            exchange: ExchangeType::from_number(exchange),
            sender,
            kind: if how & RESPONSE != 0 { MessageKind::Response } else { MessageKind::Request },
            message_id: message_id.into(),
        };
        let payloads: Vec<Payload> = (0..input.octet() % 32)
            .map(|_| Payload::Opaque { kind: PayloadType::from_number(input.octet()), body: input.counted().to_vec() })
            .collect();
        let Ok(message) = PlainMessage::new(&header, &payloads) else {
            continue;
        };
        let sealed = if how & FRAGMENTED != 0 {
            message.seal_in_fragments(200, &mut cipher, &mut random)
        } else {
            message.seal(&mut cipher, &mut random).map(|whole| vec![whole])
        };
        for datagram in sealed.unwrap_or_default() {
            gateways.deliver(to, datagram);
        }
        gateways.world.run(Duration::from_millis(if how & LATER != 0 { 700 } else { 1 }));
    }
    gateways.finish();
}

/// The first octet of an input of [`payloads`].
pub(crate) fn payloads_flags(stage: Stage, to_right: bool) -> u8 {
    let established = if stage == Stage::Established { ESTABLISHED } else { 0 };
    established | if to_right { TO_RIGHT } else { 0 }
}

/// A message of [`payloads`].
pub(crate) fn message_record(header: &Header, payloads: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let how = if header.kind == MessageKind::Response { RESPONSE } else { 0 };
    let message_id = u8::try_from(header.message_id).unwrap_or_default();
    let count = u8::try_from(payloads.len()).unwrap_or_default();
    let mut record = vec![header.exchange.number(), how, message_id, count];
    for (kind, body) in payloads {
        record.push(*kind);
        record.extend(counted(body));
    }
    record
}

const ESTABLISHED: u8 = 2;
const RESPONSE: u8 = 1;
const FRAGMENTED: u8 = 2;
