//! The socket, its clients, and what each of them may cost.
//!
//! Every client has a task of its own, so one that reads slowly, or whose command takes long, holds up nobody else.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::time::timeout;

use super::message::Message;
use super::packet::{Packet, PacketError, read_packet};

/// Clients at a time. Each costs a task, a descriptor and at most one segment; tools use one, monitors a few.
const MAX_CLIENTS: usize = 128;

/// A client that takes nothing for this long is let go.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Events that a command may have ready before its client has taken them.
const STREAM_DEPTH: usize = 16;

/// Where the socket is and who may use it.
#[derive(Clone, Debug)]
pub struct Access {
    /// Its path.
    pub path: PathBuf,
    /// The group that may use it besides the owner, by number.
    pub group: Option<u32>,
}

/// What a server serves.
pub trait Service: Send + Sync + 'static {
    /// Whether clients can register for events of this name.
    fn has_event(&self, name: &str) -> bool;

    /// All events from now on. A client that falls behind further than this channel reaches back is let go.
    fn subscribe(&self) -> broadcast::Receiver<Broadcast>;

    /// Carries out a command; `None` when there is none of this name. It is dropped when the client goes.
    fn call(
        self: Arc<Self>,
        name: String,
        arguments: Message,
        streamer: Streamer,
    ) -> impl Future<Output = Option<Message>> + Send + 'static;
}

/// An event for every client that has registered for it.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub message: Arc<Message>,
}

/// The way for a command to send events to its own client.
#[derive(Clone, Debug)]
pub struct Streamer(mpsc::Sender<(&'static str, Message)>);

impl Streamer {
    /// A way that ends in this process.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<(&'static str, Message)>) {
        let (sender, receiver) = mpsc::channel(STREAM_DEPTH);
        (Self(sender), receiver)
    }

    /// Sends an event if the client has registered for it; waits while the client is slow.
    pub async fn send(&self, name: &'static str, message: Message) {
        // When the receiver is gone, so is the client, and the command is about to be dropped.
        drop(self.0.send((name, message)).await);
    }
}

/// A socket that accepts clients.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Makes the socket, in place of one that nobody listens on any more. From now on clients can connect.
    ///
    /// # Errors
    /// When the path cannot be used, or somebody listens there.
    pub fn bind(access: &Access) -> io::Result<Self> {
        remove_stale(&access.path)?;
        let listener = UnixListener::bind(&access.path)?;
        // The umask already kept others out between these two steps (see `daemon::run`).
        fs::set_permissions(
            &access.path,
            fs::Permissions::from_mode(match access.group {
                Some(_) => 0o660,
                None => 0o600,
            }),
        )?;
        if access.group.is_some() {
            std::os::unix::fs::chown(&access.path, None, access.group)?;
        }
        Ok(Self { listener, path: access.path.clone() })
    }

    /// Serves clients for ever.
    pub async fn serve<S: Service>(self, service: Arc<S>) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would only spin.
                    tracing::warn!(%error, "a client of the control socket could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(
                    limit = MAX_CLIENTS,
                    "too many clients on the control socket; the newest is turned away"
                );
                continue;
            };
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                if let Err(hangup) = converse(service, stream).await {
                    tracing::debug!(%hangup, "a client of the control socket is let go");
                }
                drop(place);
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the control socket could not be removed");
        }
    }
}

/// Why a client is let go.
#[derive(Debug, thiserror::Error)]
enum Hangup {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("it sent a packet that only servers send, or a command while another was running")]
    OutOfTurn,
    #[error("it did not take its events: {0} were lost")]
    FellBehind(u64),
    #[error("it took nothing for {} seconds", WRITE_DEADLINE.as_secs())]
    Stalled,
}

type Running = Pin<Box<dyn Future<Output = Option<Message>> + Send>>;

/// Talks with one client until it goes.
async fn converse<S: Service>(service: Arc<S>, stream: UnixStream) -> Result<(), Hangup> {
    let (reader, mut writer) = stream.into_split();
    // A packet that has half arrived stays in the stream when another branch of the loop is taken.
    let mut packets = pin!(stream::unfold(reader, async |mut reader| {
        read_packet(&mut reader).await.transpose().map(|packet| (packet, reader))
    }));
    let mut broadcasts = service.subscribe();
    let (sender, mut streamed) = mpsc::channel(STREAM_DEPTH);
    let mut registered = BTreeSet::new();
    let mut running: Option<Running> = None;
    loop {
        let reply = tokio::select! {
            biased;
            Some((name, message)) = streamed.recv() => event_for(&registered, name, &message),
            answer = finish(&mut running) => {
                while let Ok((name, message)) = streamed.try_recv() {
                    send(&mut writer, event_for(&registered, name, &message)).await?;
                }
                Some(answer.map_or(Packet::Unknown, Packet::Response))
            }
            packet = packets.next() => match packet {
                None => return Ok(()),
                Some(Ok(Packet::Request { name, message })) if running.is_none() => {
                    running = Some(Box::pin(Arc::clone(&service).call(name, message, Streamer(sender.clone()))));
                    None
                }
                Some(Ok(Packet::Register(name))) if service.has_event(&name) => {
                    registered.insert(name);
                    Some(Packet::Confirm)
                }
                Some(Ok(Packet::Unregister(name))) if registered.remove(&name) => Some(Packet::Confirm),
                Some(Ok(Packet::Register(_) | Packet::Unregister(_))) => Some(Packet::EventUnknown),
                Some(Ok(_)) => return Err(Hangup::OutOfTurn),
                Some(Err(error)) => return Err(error.into()),
            },
            event = broadcasts.recv() => match event {
                Ok(event) => event_for(&registered, event.name, &event.message),
                Err(broadcast::error::RecvError::Lagged(_)) if registered.is_empty() => None,
                Err(broadcast::error::RecvError::Lagged(lost)) => return Err(Hangup::FellBehind(lost)),
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
        };
        send(&mut writer, reply).await?;
    }
}

/// The running command's answer; waits for ever while there is none.
async fn finish(running: &mut Option<Running>) -> Option<Message> {
    match running {
        Some(command) => {
            let answer = command.await;
            *running = None;
            answer
        }
        None => std::future::pending().await,
    }
}

fn event_for(registered: &BTreeSet<String>, name: &str, message: &Message) -> Option<Packet> {
    registered.contains(name).then(|| Packet::Event { name: name.to_owned(), message: message.clone() })
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), packet: Option<Packet>) -> Result<(), Hangup> {
    let Some(packet) = packet else { return Ok(()) };
    let bytes = match packet.encode() {
        Ok(bytes) => bytes,
        Err(error @ PacketError::TooLong(_)) => {
            let excuse =
                Message::new().with("success", "no").with("errmsg", format!("the answer is too long: {error}"));
            Packet::Response(excuse).encode()?
        }
        Err(error) => return Err(error.into()),
    };
    match timeout(WRITE_DEADLINE, writer.write_all(&bytes)).await {
        Ok(written) => Ok(written.map_err(PacketError::from)?),
        Err(_) => Err(Hangup::Stalled),
    }
}

/// Removes the socket of a daemon that is gone. Anything that is no socket stays, and `bind` says so.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vici::{Client, ClientError};
    use tokio::io::AsyncReadExt;

    /// Knows `echo`, `stream` (ten events, then an answer), `flood` (events without end) and `hang`.
    struct Scripted {
        events: broadcast::Sender<Broadcast>,
    }

    impl Service for Scripted {
        fn has_event(&self, name: &str) -> bool {
            matches!(name, "item" | "news")
        }

        fn subscribe(&self) -> broadcast::Receiver<Broadcast> {
            self.events.subscribe()
        }

        async fn call(self: Arc<Self>, name: String, arguments: Message, streamer: Streamer) -> Option<Message> {
            match name.as_str() {
                "echo" => Some(arguments),
                "stream" => {
                    for number in 0..40 {
                        streamer.send("item", Message::new().with("number", number)).await;
                    }
                    Some(Message::new().with("success", "yes"))
                }
                "flood" => loop {
                    streamer.send("item", Message::new().with("filler", "x".repeat(60_000))).await;
                },
                "hang" => std::future::pending().await,
                _ => None,
            }
        }
    }

    struct Bench {
        _folder: tempfile::TempDir,
        path: PathBuf,
        events: broadcast::Sender<Broadcast>,
        server: tokio::task::JoinHandle<()>,
    }

    impl Bench {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("vici");
            let events = broadcast::Sender::new(8);
            let server = Server::bind(&Access { path: path.clone(), group: None }).unwrap();
            let server = tokio::spawn(server.serve(Arc::new(Scripted { events: events.clone() })));
            Self { _folder: folder, path, events, server }
        }

        /// Runs a blocking client beside the server.
        async fn with_client<T: Send + 'static>(&self, act: impl FnOnce(Client) -> T + Send + 'static) -> T {
            let path = self.path.clone();
            tokio::task::spawn_blocking(move || act(Client::connect(&path).unwrap())).await.unwrap()
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.server.abort();
        }
    }

    #[tokio::test]
    async fn commands_are_answered_and_unknown_ones_are_said_to_be_unknown() {
        let bench = Bench::start();
        bench
            .with_client(|mut client| {
                let arguments = Message::new().with("a", "b");
                assert_eq!(client.request("echo", arguments.clone()).unwrap(), arguments);
                let unknown = client.request("no-such-command", Message::new());
                assert!(matches!(unknown, Err(ClientError::UnknownCommand(name)) if name == "no-such-command"));
                assert!(matches!(client.register("no-such-event"), Err(ClientError::UnknownEvent(_))));
                assert!(client.request("echo", arguments).is_ok(), "the connection is still good");
            })
            .await;
    }

    #[tokio::test]
    async fn streamed_events_come_in_order_before_the_answer_and_only_when_registered() {
        let bench = Bench::start();
        bench
            .with_client(|mut client| {
                let mut numbers = Vec::new();
                let answer = client.stream("item", "stream", Message::new(), |item| {
                    numbers.push(item.text("number").unwrap().parse::<u32>().unwrap());
                });
                assert!(answer.unwrap().is_yes("success"));
                assert_eq!(numbers, (0..40).collect::<Vec<_>>());
                let answer =
                    client.request_with("stream", Message::new(), |name, _| panic!("{name} is not registered"));
                assert!(answer.is_ok());
            })
            .await;
    }

    #[tokio::test]
    async fn a_second_command_beside_a_running_one_ends_the_connection_and_no_other() {
        let bench = Bench::start();
        let mut stream = UnixStream::connect(&bench.path).await.unwrap();
        let hang = Packet::Request { name: "hang".into(), message: Message::new() }.encode().unwrap();
        stream.write_all(&[&hang[..], &hang].concat()).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
        bench.with_client(|mut client| assert!(client.request("echo", Message::new()).is_ok())).await;
    }

    #[tokio::test]
    async fn hostile_segments_end_only_their_own_connection() {
        let bench = Bench::start();
        for bytes in [&[0, 0, 0, 0][..], &[0xff; 4], &[0, 0, 0, 1, 9], &[0, 0, 0, 2, 0, 200], b"GET / HTTP/1.1\r\n\r\n"]
        {
            let mut stream = UnixStream::connect(&bench.path).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "{bytes:?}");
        }
        bench.with_client(|mut client| assert!(client.request("echo", Message::new()).is_ok())).await;
    }

    #[tokio::test]
    async fn a_client_that_takes_no_events_is_let_go_and_the_daemon_never_waits_for_it() {
        let bench = Bench::start();
        let mut lazy = UnixStream::connect(&bench.path).await.unwrap();
        lazy.write_all(&Packet::Register("news".into()).encode().unwrap()).await.unwrap();
        let mut confirmation = [0; 5];
        lazy.read_exact(&mut confirmation).await.unwrap();
        let news = Arc::new(Message::new().with("filler", "x".repeat(60_000)));
        tokio::time::pause();
        // The receiver's end of the channel goes with the client's task.
        while bench.events.send(Broadcast { name: "news", message: Arc::clone(&news) }).is_ok() {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        tokio::time::resume();
        bench.with_client(|mut client| assert!(client.request("echo", Message::new()).is_ok())).await;
    }

    #[tokio::test]
    async fn a_flooding_command_does_not_hold_up_other_clients() {
        let bench = Bench::start();
        let mut lazy = UnixStream::connect(&bench.path).await.unwrap();
        lazy.write_all(&Packet::Register("item".into()).encode().unwrap()).await.unwrap();
        let flood = Packet::Request { name: "flood".into(), message: Message::new() };
        lazy.write_all(&flood.encode().unwrap()).await.unwrap();
        lazy.readable().await.unwrap();
        bench.with_client(|mut client| assert!(client.request("echo", Message::new()).is_ok())).await;
    }

    #[tokio::test]
    async fn only_the_owner_may_use_the_socket() {
        let bench = Bench::start();
        let mode = fs::metadata(&bench.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_but_neither_a_live_one_nor_a_file() {
        let bench = Bench::start();
        let again = Server::bind(&Access { path: bench.path.clone(), group: None });
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let stale = bench.path.with_extension("stale");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        drop(Server::bind(&Access { path: stale.clone(), group: None }).unwrap());
        assert!(!stale.exists(), "a server takes its socket along");
        fs::write(&stale, "precious").unwrap();
        assert!(Server::bind(&Access { path: stale.clone(), group: None }).is_err());
        assert_eq!(fs::read_to_string(&stale).unwrap(), "precious");
    }
}
