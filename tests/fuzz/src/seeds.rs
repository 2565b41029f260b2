//! Corpora of what two gateways really say to each other.

use std::time::Duration;

use ike_proto::io::{Command, Target, Ticket};
use ike_proto::wire::{ExchangeType, Message, PlainMessage};
use sim::Tapped;

use crate::gateways::{Gateways, Stage};
use crate::targets::engine::{datagram_record, message_record, payloads_flags};
use crate::targets::fragments;

/// A target's name, the name of an input and the input.
pub type Seed = (&'static str, String, Vec<u8>);

/// What a life of an IKE SA, from the beginning to the end, brings for the targets that read messages.
#[must_use]
pub fn recorded() -> Vec<Seed> {
    let mut gateways = Gateways::at(Stage::Established);
    let (left, right) = (gateways.left, gateways.right);
    let child = Target::Child { connection: None, child: "net".into() };
    let ike = Target::Connection("net".into());
    let commands = [
        (left, Command::Rekey { ticket: Ticket(2), target: child.clone() }),
        (right, Command::Rekey { ticket: Ticket(3), target: child.clone() }),
        (left, Command::Terminate { ticket: Ticket(4), target: child }),
        (right, Command::Rekey { ticket: Ticket(5), target: ike }),
    ];
    for (host, command) in commands {
        gateways.world.command(host, command);
        gateways.world.run(Duration::from_secs(8));
    }
    let sent = gateways.world.tapped().to_vec();
    let mut seeds = Vec::new();
    for (number, datagram) in sent.iter().enumerate() {
        let to_right = datagram.from == left;
        let mut input = vec![u8::try_from(number).unwrap_or_default()];
        input.extend(datagram_record(to_right, &datagram.message));
        seeds.push(("datagram", format!("{number:02}"), input));
        seeds.extend(decrypted(&gateways, number, datagram));
    }
    seeds
}

/// What was inside of a message of the first IKE SA.
fn decrypted(gateways: &Gateways, number: usize, datagram: &Tapped) -> Vec<Seed> {
    let to = gateways.other(datagram.from);
    let opened = Message::parse(&datagram.message).ok().and_then(|message| {
        let (cipher, _) = gateways.voice_to(to)?;
        let plain = PlainMessage::open(&datagram.message, &message.encrypted?, &cipher).ok()?;
        Some((message.header, plain))
    });
    let Some((header, plain)) = opened else {
        return Vec::new();
    };
    let payloads = bodies(&plain);
    let stage = if header.exchange == ExchangeType::IkeAuth { Stage::Keyed } else { Stage::Established };
    let mut input = vec![payloads_flags(stage, to == gateways.right)];
    input.extend(message_record(&header, &payloads));
    vec![("payloads", format!("{number:02}-{}", header.exchange), input)]
}

/// The payloads of a message, each with its type and what stands behind its generic header.
fn bodies(plain: &PlainMessage) -> Vec<(u8, Vec<u8>)> {
    let octets = plain.octets();
    let mut kind = octets.get(28).copied().unwrap_or_default();
    let mut rest = octets.get(32..).unwrap_or_default();
    let mut bodies = Vec::new();
    while kind != 0
        && let Some((&[next, _, high, low], behind)) = rest.split_first_chunk()
    {
        let length = usize::from(u16::from_be_bytes([high, low])).saturating_sub(4).min(behind.len());
        let (body, others) = behind.split_at(length);
        bodies.push((kind, body.to_vec()));
        (kind, rest) = (next, others);
    }
    bodies
}

/// Ways in which fragments can come.
#[must_use]
pub fn fragmented() -> Vec<Seed> {
    let content = [[0, 0, 0, 20].as_slice(), &[7; 16]].concat();
    let (first, second) = content.split_at(9);
    let record = |numbers, part: &[u8]| fragments::record(1, numbers, 40, part);
    let seed = |name: &str, records: Vec<Vec<u8>>| ("fragments", name.to_owned(), [vec![5], records.concat()].concat());
    vec![
        seed("two", vec![record((1, 2), first), record((2, 2), second)]),
        seed("backwards", vec![record((2, 2), second), record((1, 2), first)]),
        seed("repeated", vec![record((1, 2), first), record((1, 2), first), record((2, 2), second)]),
        seed(
            "smaller",
            vec![record((1, 2), first), record((1, 3), first), record((2, 2), second), record((2, 3), second)],
        ),
        seed("impossible", vec![record((0, 0), first), record((3, 2), first), record((1, u16::MAX), first)]),
        seed(
            "interleaved",
            vec![record((1, 2), first), fragments::record(2, (2, 2), 40, second), record((2, 2), second)],
        ),
        seed("empty", vec![record((1, 1), &[])]),
    ]
}
