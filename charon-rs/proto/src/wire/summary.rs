//! A message in one line, as strongSwan logs it.

use std::fmt::Write as _;

use super::header::{Header, MessageKind};
use super::message::Fragment;
use super::payload::Payload;
use super::payload_type::PayloadType;

/// The exchange, the message ID and the payloads: `IKE_AUTH request 1 [ IDi N(INIT_CONTACT) AUTH SA TSi TSr ]`.
/// Nothing in it comes from strings of the peer.
#[must_use]
pub fn summary(header: &Header, payloads: &[Payload]) -> String {
    let mut line = format!("{} [ ", name(header));
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

/// The same of a fragment, which hides what it is a part of: `IKE_AUTH request 1 [ SKF(2/3) ]`.
#[must_use]
pub fn fragment_summary(header: &Header, Fragment { number, total }: Fragment) -> String {
    format!("{} [ {}({number}/{total}) ]", name(header), PayloadType::EncryptedFragment)
}

fn name(header: &Header) -> String {
    let kind = match header.kind {
        MessageKind::Request => "request",
        MessageKind::Response => "response",
    };
    format!("{} {kind} {}", header.exchange, header.message_id)
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
        let fragment = Fragment { number: 2, total: 3 };
        assert_eq!(fragment_summary(&header, fragment), "INFORMATIONAL response 1 [ SKF(2/3) ]");
    }
}
