//! A blocking client.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;

use zeroize::Zeroizing;

use super::message::Message;
use super::packet::{Packet, PacketError, segment_len};

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// Why talking to a daemon failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The daemon closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The daemon sent what is no packet, or the request is too long for one.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The daemon has no such command.
    #[error("the daemon does not know the command `{0}`")]
    UnknownCommand(String),
    /// The daemon has no such events.
    #[error("the daemon does not know events `{0}`")]
    UnknownEvent(String),
    /// The daemon sent a packet out of turn.
    #[error("the daemon answered out of turn")]
    OutOfTurn,
}

impl Client {
    /// Connects to the daemon that listens at `path`.
    ///
    /// # Errors
    /// When nobody does, or one may not.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(path)? })
    }

    /// Has a command carried out and gives its answer.
    ///
    /// # Errors
    /// [`ClientError`]. That the command failed is none: the answer says so.
    pub fn request(&mut self, name: &str, arguments: Message) -> Result<Message, ClientError> {
        self.request_with(name, arguments, |_, _| {})
    }

    /// Has a command carried out that streams events of the name `event` before it answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stream(
        &mut self,
        event: &str,
        name: &str,
        arguments: Message,
        mut on_event: impl FnMut(Message),
    ) -> Result<Message, ClientError> {
        self.register(event)?;
        let answer = self.request_with(name, arguments, |_, message| on_event(message))?;
        self.send(&Packet::Unregister(event.to_owned()))?;
        self.confirmed(event)?;
        Ok(answer)
    }

    /// Registers for events.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn register(&mut self, event: &str) -> Result<(), ClientError> {
        self.send(&Packet::Register(event.to_owned()))?;
        self.confirmed(event)
    }

    /// Has a command carried out and hands on every event that comes before its answer.
    ///
    /// # Errors
    /// [`ClientError`].
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes, comes out of turn")]
    pub fn request_with(
        &mut self,
        name: &str,
        message: Message,
        mut on_event: impl FnMut(&str, Message),
    ) -> Result<Message, ClientError> {
        self.send(&Packet::Request { name: name.to_owned(), message })?;
        loop {
            match self.receive()? {
                Packet::Response(answer) => return Ok(answer),
                Packet::Unknown => return Err(ClientError::UnknownCommand(name.to_owned())),
                Packet::Event { name, message } => on_event(&name, message),
                _ => return Err(ClientError::OutOfTurn),
            }
        }
    }

    /// Hands on events as they come until `on_event` breaks.
    ///
    /// # Errors
    /// [`ClientError`].
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes, comes out of turn")]
    pub fn listen(&mut self, mut on_event: impl FnMut(&str, Message) -> ControlFlow<()>) -> Result<(), ClientError> {
        loop {
            match self.receive()? {
                Packet::Event { name, message } => {
                    if on_event(&name, message).is_break() {
                        return Ok(());
                    }
                }
                _ => return Err(ClientError::OutOfTurn),
            }
        }
    }

    /// Waits for the confirmation; events that come before it belong to nobody any more.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes, comes out of turn")]
    fn confirmed(&mut self, event: &str) -> Result<(), ClientError> {
        loop {
            match self.receive()? {
                Packet::Confirm => return Ok(()),
                Packet::EventUnknown => return Err(ClientError::UnknownEvent(event.to_owned())),
                Packet::Event { .. } => {}
                _ => return Err(ClientError::OutOfTurn),
            }
        }
    }

    fn send(&mut self, packet: &Packet) -> Result<(), ClientError> {
        self.stream.write_all(&packet.encode()?)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Packet, ClientError> {
        let mut prefix = [0; 4];
        self.read(&mut prefix)?;
        let mut segment = Zeroizing::new(vec![0; segment_len(prefix)?]);
        self.read(&mut segment)?;
        Ok(Packet::parse(&segment)?)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), ClientError> {
        self.stream.read_exact(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof { ClientError::Closed } else { error.into() }
        })
    }
}
