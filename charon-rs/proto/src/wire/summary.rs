//! A message in one line, as strongSwan logs it.

use std::fmt::Write as _;

use super::header::{Header, MessageKind};
use super::payload::Payload;

/// The exchange, the message ID and the payloads: `IKE_AUTH request 1 [ IDi N(INIT_CONTACT) AUTH SA TSi TSr ]`.
/// Nothing in it comes from strings of the peer.
#[must_use]
pub fn summary(header: &Header, payloads: &[Payload]) -> String {
    let kind = match header.kind {
        MessageKind::Request => "request",
        MessageKind::Response => "response",
    };
    let mut line = format!("{} {kind} {} [ ", header.exchange, header.message_id);
    for payload in payloads {
        let written = if let Payload::Notify(notify) = payload {
            match notify.kind.short_name() {
                Some(name) => write!(line, "N({name}) "),
                None => write!(line, "N({}) ", notify.kind.number()),
            }
        } else {
            write!(line, "{} ", payload.kind())
        };
        // Writing to a string cannot fail.
        debug_assert!(written.is_ok());
    }
    line.push(']');
    line
}

#[cfg(test)]
mod tests {
    use super::super::{Authentication, AuthenticationMethod, ExchangeType, Identification, Notify, NotifyType, Role};
    use super::*;
    use crate::identity::Identity;
    use crate::io::IkeSpi;

    #[test]
    fn a_message_is_one_line() {
        let header = Header {
            initiator_spi: IkeSpi([1; 8]),
            responder_spi: IkeSpi([2; 8]),
            exchange: ExchangeType::IkeAuth,
            sender: Role::OriginalInitiator,
            kind: MessageKind::Request,
            message_id: 1,
        };
        let proof = Authentication { method: AuthenticationMethod::SharedKey, data: vec![1] };
        let payloads = [
            Payload::IdInitiator(Identification::new(Identity::Fqdn("moon".to_owned()))),
            Payload::Notify(Notify::new(NotifyType::InitialContact)),
            Payload::Authentication(proof),
            Payload::SecurityAssociation(Vec::new()),
            Payload::SelectorsInitiator(Vec::new()),
            Payload::SelectorsResponder(Vec::new()),
        ];
        assert_eq!(summary(&header, &payloads), "IKE_AUTH request 1 [ IDi N(INIT_CONTACT) AUTH SA TSi TSr ]");
        let header = Header { exchange: ExchangeType::Informational, kind: MessageKind::Response, ..header };
        assert_eq!(summary(&header, &[]), "INFORMATIONAL response 1 [ ]");
    }
}
