//! VICI, which anybody may speak who can open the socket.

use charon_rs::vici::{Message, Packet};

/// The input is the content of a segment.
pub(crate) fn run(input: &[u8]) {
    if let Ok(packet) = Packet::parse(input) {
        let Ok(encoded) = packet.encode() else { return };
        let again = Packet::parse(encoded.get(4..).unwrap_or_default());
        assert_eq!(again.ok(), Some(packet), "what is sent means something else");
    }
    if let Ok(message) = Message::parse(input) {
        drop(message.to_string());
    }
}
