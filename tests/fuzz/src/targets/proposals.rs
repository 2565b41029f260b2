//! Proposals, as text and on the wire.

use std::fmt::Display;

use espdp_api::EspSpi;
use ike_proto::io::IkeSpi;
use ike_proto::proposal::{
    check_esp_answer, check_ike_answer, default_esp_proposals, default_ike_proposals, describe_proposal, esp_offer,
    ike_offer, negotiate_esp, negotiate_ike, parse_esp_list, parse_ike_list,
};
use ike_proto::wire::{
    ExchangeType, Header, Message, MessageKind, Payload, PayloadType, Role, WireProposal, encode_message,
};

/// The input is text, or after an octet of 0 the body of a Security Association payload.
pub(crate) fn run(input: &[u8]) {
    if let Some((0, body)) = input.split_first() {
        return wire(body);
    }
    let text = String::from_utf8_lossy(input);
    if let Ok(proposals) = parse_ike_list(&text) {
        assert_eq!(parse_ike_list(&join(&proposals)).as_ref(), Ok(&proposals), "what is written is not read back");
        let offer = ike_offer(&proposals, Some(IkeSpi([1; 8])));
        assert!(negotiate_ike(&proposals, &offer).is_ok(), "nobody takes his own offer of {text}");
        wire_round_trip(offer);
    }
    if let Ok(proposals) = parse_esp_list(&text) {
        assert_eq!(parse_esp_list(&join(&proposals)).as_ref(), Ok(&proposals), "what is written is not read back");
        if let Ok(spi) = EspSpi::from_wire([1; 4]) {
            let offer = esp_offer(&proposals, spi);
            assert!(negotiate_esp(&proposals, &offer).is_ok(), "nobody takes his own offer of {text}");
            wire_round_trip(offer);
        }
    }
}

fn join(proposals: &[impl Display]) -> String {
    proposals.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What is agreed on must be an answer to what was offered.
fn wire(body: &[u8]) {
    let kind = PayloadType::SecurityAssociation;
    let Some(Payload::SecurityAssociation(theirs)) = reread(Payload::Opaque { kind, body: body.to_vec() }) else {
        return;
    };
    theirs.iter().for_each(|proposal| drop(describe_proposal(proposal)));
    let (ike, esp) = (default_ike_proposals(), default_esp_proposals());
    match negotiate_ike(&ike, &theirs) {
        Ok(agreement) => {
            assert!(theirs.iter().any(|proposal| proposal.number == agreement.answer.number), "nobody offered that");
            assert!(agreement.answer.transforms.iter().all(|ours| offers(&theirs, agreement.answer.number, ours)));
        }
        Err(mismatch) => drop(format!("{mismatch:?}")),
    }
    if let Ok(agreement) = negotiate_esp(&esp, &theirs) {
        assert!(agreement.answer.transforms.iter().all(|ours| offers(&theirs, agreement.answer.number, ours)));
    }
    drop(check_ike_answer(&ike, &theirs));
    drop(check_esp_answer(&esp, &theirs));
    wire_round_trip(theirs);
}

fn offers(theirs: &[WireProposal], number: u8, transform: &ike_proto::wire::WireTransform) -> bool {
    let same_number = theirs.iter().filter(|proposal| proposal.number == number);
    same_number.flat_map(|proposal| &proposal.transforms).any(|offered| offered == transform)
}

fn wire_round_trip(proposals: Vec<WireProposal>) {
    let payload = Payload::SecurityAssociation(proposals);
    assert_eq!(reread(payload.clone()), Some(payload), "what is sent means something else");
}

/// The payload as a peer would read it; `None` if it would refuse it.
fn reread(payload: Payload) -> Option<Payload> {
    let header = Header {
        initiator_spi: IkeSpi([1; 8]),
        responder_spi: IkeSpi([0; 8]),
        exchange: ExchangeType::IkeSaInit,
        sender: Role::OriginalInitiator,
        kind: MessageKind::Request,
        message_id: 0,
    };
    let datagram = encode_message(&header, &[payload]).ok()?;
    Message::parse(&datagram).ok()?.payloads.pop()
}
