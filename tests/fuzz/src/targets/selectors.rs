//! Traffic selectors, as text and on the wire.

use charon_rs::config::values::selector::selector;
use espdp_api::TrafficSelector;
use ike_proto::io::IkeSpi;
use ike_proto::selectors::{is_narrowed, narrow};
use ike_proto::wire::{ExchangeType, Header, Message, MessageKind, Payload, PayloadType, Role, encode_message};

/// The input is text, or after an octet of 0 the bodies of two Traffic Selector payloads, the first one behind its count.
pub(crate) fn run(input: &[u8]) {
    if let Some((0, rest)) = input.split_first() {
        let mut rest = crate::cursor::Cursor::new(rest);
        let (ours, theirs) = (parse(rest.counted()), parse(rest.rest()));
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            narrowing(&ours, &theirs);
        }
        return;
    }
    let text = String::from_utf8_lossy(input);
    let all: Vec<TrafficSelector> = text.split(',').filter_map(|text| selector(text).ok()).collect();
    if let Some((first, rest)) = all.split_first() {
        narrowing(std::slice::from_ref(first), rest);
        narrowing(rest, std::slice::from_ref(first));
    }
}

/// What is left belongs to both (R7296-2.9-1).
fn narrowing(ours: &[TrafficSelector], theirs: &[TrafficSelector]) {
    let narrowed = narrow(ours, theirs);
    if !narrowed.is_empty() {
        assert!(is_narrowed(&narrowed, theirs), "{narrowed:?} is not all in what was offered, {theirs:?}");
        assert!(is_narrowed(&narrowed, ours), "{narrowed:?} is not all in what is ours, {ours:?}");
        assert!(!narrow(&narrowed, &narrowed).is_empty(), "what was agreed on is nothing");
    }
    let payload = Payload::SelectorsInitiator(narrowed.clone());
    if !narrowed.is_empty() && narrowed.len() <= ike_proto::wire::MAX_SELECTORS {
        assert_eq!(reread(&payload), Some(payload), "what is sent means something else");
    }
}

fn parse(body: &[u8]) -> Option<Vec<TrafficSelector>> {
    let kind = PayloadType::SelectorsInitiator;
    match reread(&Payload::Opaque { kind, body: body.to_vec() }) {
        Some(Payload::SelectorsInitiator(selectors)) => Some(selectors),
        _ => None,
    }
}

fn reread(payload: &Payload) -> Option<Payload> {
    let header = Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([2; 8]),
        exchange: ExchangeType::CreateChildSa,
        sender: Role::OriginalInitiator,
        kind: MessageKind::Request,
        message_id: 2,
    };
    let datagram = encode_message(&header, std::slice::from_ref(payload)).ok()?;
    Message::parse(&datagram).ok()?.payloads.pop()
}
