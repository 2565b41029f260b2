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
