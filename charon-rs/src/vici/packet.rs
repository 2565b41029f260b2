//! Packets, and segments on a stream.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::message::{Message, MessageError, fitting};

/// Longest segment in octets, as the protocol's description limits it: 512 KiB.
pub const MAX_SEGMENT: usize = 512 * 1024;

/// A segment that has begun must be complete after this long: a client that stalls in the middle keeps a place for nothing.
const SEGMENT_DEADLINE: Duration = Duration::from_secs(10);

const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
const UNKNOWN: u8 = 2;
const EVENT_REGISTER: u8 = 3;
const EVENT_UNREGISTER: u8 = 4;
const EVENT_CONFIRM: u8 = 5;
const EVENT_UNKNOWN: u8 = 6;
const EVENT: u8 = 7;

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Client: do this.
    Request {
        /// The command.
        name: String,
        /// Its arguments.
        message: Message,
    },
    /// Server: done, and this is the answer.
    Response(Message),
    /// Server: there is no such command.
    Unknown,
    /// Client: send me events of this name.
    Register(String),
    /// Client: no more of them.
    Unregister(String),
    /// Server: (un)registered.
    Confirm,
    /// Server: there are no events of this name.
    EventUnknown,
    /// Server: an event.
    Event {
        /// Which.
        name: String,
        /// What it says.
        message: Message,
    },
}

impl Packet {
    /// The whole segment: length and packet, wiped when it is dropped.
    ///
    /// # Errors
    /// [`PacketError::TooLong`] when it would exceed [`MAX_SEGMENT`].
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, PacketError> {
        // Made in one piece, since one that grows leaves copies of secrets behind.
        let mut out = Zeroizing::new(Vec::with_capacity(self.longest_len()));
        out.extend([0; 4]);
        match self {
            Self::Request { name, message } => encode_named(REQUEST, name, Some(message), &mut out),
            Self::Response(message) => {
                out.push(RESPONSE);
                message.encode(&mut out);
            }
            Self::Unknown => out.push(UNKNOWN),
            Self::Register(name) => encode_named(EVENT_REGISTER, name, None, &mut out),
            Self::Unregister(name) => encode_named(EVENT_UNREGISTER, name, None, &mut out),
            Self::Confirm => out.push(EVENT_CONFIRM),
            Self::EventUnknown => out.push(EVENT_UNKNOWN),
            Self::Event { name, message } => encode_named(EVENT, name, Some(message), &mut out),
        }
        let len = out.len().saturating_sub(4);
        match u32::try_from(len) {
            Ok(prefix) if len <= MAX_SEGMENT => {
                out.splice(..4, prefix.to_be_bytes());
                Ok(out)
            }
            _ => Err(PacketError::TooLong(len)),
        }
    }

    /// As long as the segment at most.
    fn longest_len(&self) -> usize {
        const HEAD: usize = 4 + 2;
        match self {
            Self::Request { name, message } | Self::Event { name, message } => {
                HEAD + name.len() + message.encoded_len()
            }
            Self::Response(message) => HEAD + message.encoded_len(),
            Self::Register(name) | Self::Unregister(name) => HEAD + name.len(),
            Self::Unknown | Self::Confirm | Self::EventUnknown => HEAD,
        }
    }

    /// Reads a segment's content.
    ///
    /// # Errors
    /// [`PacketError`] when it is no packet.
    pub fn parse(segment: &[u8]) -> Result<Self, PacketError> {
        let (&kind, rest) = segment.split_first().ok_or(PacketError::Empty)?;
        let packet = match kind {
            REQUEST => {
                let (name, rest) = parse_name(rest)?;
                Self::Request { name, message: Message::parse(rest)? }
            }
            RESPONSE => Self::Response(Message::parse(rest)?),
            UNKNOWN => Self::Unknown,
            EVENT_REGISTER => Self::Register(parse_name(rest)?.0),
            EVENT_UNREGISTER => Self::Unregister(parse_name(rest)?.0),
            EVENT_CONFIRM => Self::Confirm,
            EVENT_UNKNOWN => Self::EventUnknown,
            EVENT => {
                let (name, rest) = parse_name(rest)?;
                Self::Event { name, message: Message::parse(rest)? }
            }
            other => return Err(PacketError::Type(other)),
        };
        Ok(packet)
    }
}

/// Why bytes are no packet, or a packet cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// A segment without content.
    #[error("an empty segment")]
    Empty,
    /// A packet type that does not exist.
    #[error("packet type {0} does not exist")]
    Type(u8),
    /// The name is cut off or no text.
    #[error("the packet's name is cut off or is no text")]
    Name,
    /// More than [`MAX_SEGMENT`].
    #[error("{0} octets are more than the {MAX_SEGMENT} of a segment")]
    TooLong(usize),
    /// The message is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The length of the segment that follows.
///
/// # Errors
/// [`PacketError::Empty`] and [`PacketError::TooLong`]: refused before anything is allocated.
pub(super) fn segment_len(prefix: [u8; 4]) -> Result<usize, PacketError> {
    match usize::try_from(u32::from_be_bytes(prefix)) {
        Ok(0) => Err(PacketError::Empty),
        Ok(len) if len <= MAX_SEGMENT => Ok(len),
        Ok(len) => Err(PacketError::TooLong(len)),
        Err(_) => Err(PacketError::TooLong(usize::MAX)),
    }
}

/// Reads the next packet; `None` at the end of the stream between two of them. Waits for its beginning for ever, for the
/// rest as long as [`SEGMENT_DEADLINE`].
///
/// # Errors
/// [`PacketError`]; the stream is of no use afterwards.
pub(super) async fn read_packet(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Packet>, PacketError> {
    let mut first = [0];
    if stream.read(&mut first).await? == 0 {
        return Ok(None);
    }
    let packet = timeout(SEGMENT_DEADLINE, read_rest(first, stream)).await;
    packet.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())).map(Some)
}

async fn read_rest([first]: [u8; 1], stream: &mut (impl AsyncRead + Unpin)) -> Result<Packet, PacketError> {
    let mut rest = [0; 3];
    stream.read_exact(&mut rest).await?;
    let [second, third, fourth] = rest;
    let len = segment_len([first, second, third, fourth])?;
    // Made in one piece, since one that grows leaves copies of secrets behind. A length alone costs address space, not memory.
    let mut segment = Zeroizing::new(Vec::with_capacity(len));
    let wanted = u64::try_from(len).unwrap_or(u64::MAX);
    if stream.take(wanted).read_to_end(&mut segment).await? < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Packet::parse(&segment)
}

fn encode_named(kind: u8, name: &str, message: Option<&Message>, out: &mut Vec<u8>) {
    let name = fitting(name);
    out.push(kind);
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
    if let Some(message) = message {
        message.encode(out);
    }
}

fn parse_name(bytes: &[u8]) -> Result<(String, &[u8]), PacketError> {
    let (&len, rest) = bytes.split_first().ok_or(PacketError::Name)?;
    let (name, rest) = rest.split_at_checked(usize::from(len)).ok_or(PacketError::Name)?;
    let name = std::str::from_utf8(name).map_err(|_| PacketError::Name)?;
    Ok((name.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Option<Packet>, PacketError> {
        let mut stream = bytes;
        read_packet(&mut stream).await
    }

    #[tokio::test]
    async fn packets_of_every_type_survive_the_stream() {
        let message = Message::new().with("key", "value");
        for packet in [
            Packet::Request { name: "list-sas".into(), message: message.clone() },
            Packet::Response(message.clone()),
            Packet::Unknown,
            Packet::Register("log".into()),
            Packet::Unregister("log".into()),
            Packet::Confirm,
            Packet::EventUnknown,
            Packet::Event { name: "log".into(), message },
        ] {
            assert_eq!(read(&packet.encode().unwrap()).await.unwrap(), Some(packet));
        }
    }

    #[test]
    fn a_segment_is_made_in_one_piece() {
        let mut message = Message::new().with("key", "a secret").with_section("s", Message::new().with("inner", 7));
        message.put_list("list", ["one", "another"]);
        assert_eq!(message.encoded_len(), {
            let mut out = Vec::new();
            message.encode(&mut out);
            out.len()
        });
        for packet in [
            Packet::Request { name: "load-key".into(), message: message.clone() },
            Packet::Response(message.clone()),
            Packet::Event { name: "log".into(), message },
            Packet::Register("log".into()),
            Packet::Confirm,
        ] {
            assert!(packet.encode().unwrap().len() <= packet.longest_len(), "{packet:?}");
        }
    }

    #[test]
    fn a_request_has_the_bytes_that_swanctl_sends() {
        let packet = Packet::Request { name: "initiate".into(), message: Message::new().with("child", "net") };
        assert_eq!(packet.encode().unwrap().as_slice(), b"\x00\x00\x00\x16\x00\x08initiate\x03\x05child\x00\x03net");
    }

    /// vici_len.
    #[tokio::test]
    async fn hostile_lengths_are_refused_before_anything_is_allocated() {
        assert!(matches!(read(&[0, 0, 0, 0]).await, Err(PacketError::Empty)));
        assert!(matches!(read(&[0xff; 4]).await, Err(PacketError::TooLong(_))));
        assert!(matches!(read(&[0, 8, 0, 1, 0]).await, Err(PacketError::TooLong(0x80001))));
        assert!(matches!(read(&[0, 8, 0, 0, 0]).await, Err(PacketError::Io(_))), "cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn a_segment_that_stalls_in_the_middle_is_given_up() {
        let (mut client, mut server) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, &[0, 0, 0]).await.unwrap();
        assert!(
            matches!(read_packet(&mut server).await, Err(PacketError::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
        );
    }

    #[tokio::test]
    async fn hostile_packets_are_refused() {
        for bytes in [&[9][..], &[0], &[0, 5, b'a'], &[3, 1, 0xff], &[1, 2], &[7, 1, b'a', 3]] {
            let mut segment = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
            segment.extend_from_slice(bytes);
            assert!(read(&segment).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn the_end_between_two_packets_is_no_error() {
        assert_eq!(read(&[]).await.unwrap(), None);
        assert!(matches!(read(&[0, 0]).await, Err(PacketError::Io(_))));
    }

    #[test]
    fn what_exceeds_a_segment_is_not_sent() {
        let mut message = Message::new();
        (0..9).for_each(|_| message.put("x", "y".repeat(60_000)));
        assert!(matches!(Packet::Response(message).encode(), Err(PacketError::TooLong(540_046))));
    }
}
