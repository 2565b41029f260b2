//! A TCP transfer that checks what arrives.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::netns::{Namespace, NetnsError};
use super::tally::MARKER;

/// A transfer that runs. Dropping it makes both ends stop.
#[derive(Debug)]
pub struct Transfer {
    progress: Arc<Progress>,
    sender: JoinHandle<Result<io::Result<()>, NetnsError>>,
    receiver: JoinHandle<Result<io::Result<Received>, NetnsError>>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Where the server listens.
    pub address: SocketAddr,
    /// When it ends.
    pub extent: Extent,
    /// What is repeated all the time.
    pub text: &'static [u8],
}

/// When a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// After this time.
    Time(Duration),
    /// When as many octets were sent, or a few more.
    Octets(u64),
}

impl Stream {
    /// The [`MARKER`] over and over to the usual port of `address`.
    #[must_use]
    pub fn new(address: IpAddr, extent: Extent) -> Self {
        Self { address: SocketAddr::new(address, PORT), extent, text: MARKER }
    }

    fn pattern(&self) -> Vec<u8> {
        self.text.iter().copied().cycle().take(PATTERN).collect()
    }

    fn is_over(&self, started: Instant, sent: u64) -> bool {
        match self.extent {
            Extent::Time(duration) => started.elapsed() >= duration,
            Extent::Octets(octets) => sent >= octets,
        }
    }
}

/// What became of a transfer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransferReport {
    /// Octets that arrived, as they were sent.
    pub octets: u64,
    /// From the first octet to the last, in seconds.
    pub seconds: f64,
    /// Megabits each second.
    pub mbit_per_second: f64,
    /// Why it failed, if it did; then the rest is zero.
    pub failure: Option<String>,
}

impl TransferReport {
    /// The report of a transfer that failed.
    #[must_use]
    pub fn failed(why: &TransferError) -> Self {
        Self { octets: 0, seconds: 0.0, mbit_per_second: 0.0, failure: Some(why.to_string()) }
    }
}

#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    octets: AtomicU64,
}

struct Received {
    octets: u64,
    took: Duration,
}

impl Transfer {
    /// Sends `stream` from `client` to `server`.
    ///
    /// # Errors
    /// [`TransferError`] when the server cannot listen.
    pub fn start(client: &Namespace, server: &Namespace, stream: Stream) -> Result<Self, TransferError> {
        let listener = server.run(|| TcpListener::bind(stream.address))?.map_err(TransferError::Listen)?;
        let progress = Arc::new(Progress::default());
        let receiver = server.start({
            let progress = Arc::clone(&progress);
            move || receive(&listener, &stream.pattern(), &progress)
        })?;
        let sender = client.start({
            let progress = Arc::clone(&progress);
            move || send(&stream, &progress)
        })?;
        Ok(Self { progress, sender, receiver })
    }

    /// Octets that have arrived so far.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.progress.octets.load(Ordering::Relaxed)
    }

    /// Whether both ends are done.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.sender.is_finished() && self.receiver.is_finished()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// [`TransferError`] when an end failed or something else arrived than was sent.
    pub fn finish(self) -> Result<TransferReport, TransferError> {
        let (sender, receiver) = (self.sender.join(), self.receiver.join());
        let sent = sender.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        sent.map_err(|error| TransferError::Send(explained(error)))?;
        let received = receiver.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let Received { octets, took } = received.map_err(|error| TransferError::Receive(explained(error)))?;
        let seconds = took.as_secs_f64();
        // Exact up to 2^53 octets.
        #[expect(clippy::cast_precision_loss, reason = "a few digits are enough for people")]
        let mbit_per_second = if seconds > 0.0 { octets as f64 * 8.0 / seconds / 1e6 } else { 0.0 };
        Ok(TransferReport { octets, seconds, mbit_per_second, failure: None })
    }

    /// A handle that stops the transfer when it is dropped, so that a caller that gives up leaves nothing behind.
    #[must_use]
    pub fn stop_on_drop(&self) -> impl Drop + use<> {
        StopOnDrop(Arc::clone(&self.progress))
    }
}

struct StopOnDrop(Arc<Progress>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// The server has no socket.
    #[error("the server cannot listen: {0}")]
    Listen(io::Error),
    /// The client could not connect or send.
    #[error("the client cannot send: {0}")]
    Send(io::Error),
    /// The server did not get what was sent.
    #[error("the server did not receive it all: {0}")]
    Receive(io::Error),
}

fn send(what: &Stream, progress: &Progress) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&what.address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let pattern = what.pattern();
    let started = Instant::now();
    let mut sent = 0_u64;
    while !what.is_over(started, sent) && !progress.stop.load(Ordering::Relaxed) {
        stream.write_all(&pattern)?;
        sent = sent.saturating_add(u64::try_from(pattern.len()).unwrap_or(u64::MAX));
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The server closes when it has everything: only then is it known to have arrived.
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read(&mut [0]).map(|_| ())
}

fn receive(listener: &TcpListener, pattern: &[u8], progress: &Progress) -> io::Result<Received> {
    let mut stream = accept(listener, progress)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let started = Instant::now();
    let mut expected = pattern;
    let mut octets = 0_u64;
    let mut buffer = vec![0; PATTERN];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(Received { octets, took: started.elapsed() });
        }
        let mut arrived = buffer.get(..length).unwrap_or_default();
        while !arrived.is_empty() {
            let common = arrived.len().min(expected.len());
            let ((now, later), (wanted, rest)) = (arrived.split_at(common), expected.split_at(common));
            if now != wanted {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the data were changed on the way"));
            }
            arrived = later;
            expected = if rest.is_empty() { pattern } else { rest };
        }
        octets = octets.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        progress.octets.store(octets, Ordering::Relaxed);
    }
}

/// Waits for the client, which may never come: the standard library's `accept` would wait forever.
fn accept(listener: &TcpListener, progress: &Progress) -> io::Result<TcpStream> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE && !progress.stop.load(Ordering::Relaxed) {
        let mut ready = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if rustix::event::poll(&mut ready, Some(&wait))? > 0 {
            return Ok(listener.accept()?.0);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// A socket that ran out of time says "resource temporarily unavailable".
fn explained(error: io::Error) -> io::Error {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return io::Error::new(io::ErrorKind::TimedOut, format!("nothing came through for {} s", PATIENCE.as_secs()));
    }
    error
}

const PORT: u16 = 5001;

/// Octets written at a time. No multiple of the marker's length, so that every place in a segment sees every octet.
const PATTERN: usize = 128 << 10;

/// How long either end waits for the other. Less than a person's patience, more than TCP's first retransmissions.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::topology::{CLIENT, INITIATOR, Network, SERVER, Topology, TopologyError};
    use super::*;

    fn network() -> Option<Network> {
        match Network::build(&Topology::two_gateways().unwrap()) {
            Ok(network) => Some(network),
            Err(TopologyError::Namespace(error)) if error.is_permission() => {
                crate::lab::netns::skipped(&error);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn stream(address: &str, extent: Extent) -> Stream {
        Stream::new(address.parse().unwrap(), extent)
    }

    #[test]
    fn what_is_sent_arrives_and_is_measured() {
        let Some(network) = network() else { return };
        let (client, server) = (network.namespace(CLIENT).unwrap(), network.namespace(INITIATOR).unwrap());
        let duration = Duration::from_millis(200);
        let transfer = Transfer::start(client, server, stream("192.168.5.1", Extent::Time(duration))).unwrap();
        let report = transfer.finish().unwrap();
        assert!(report.octets >= PATTERN as u64 && report.octets.is_multiple_of(PATTERN as u64), "{report:?}");
        assert!(report.seconds > 0.1 && report.mbit_per_second > 0.0, "{report:?}");
    }

    #[test]
    fn an_amount_is_sent_and_no_more_than_a_pattern_beyond() {
        let Some(network) = network() else { return };
        let (client, server) = (network.namespace(CLIENT).unwrap(), network.namespace(INITIATOR).unwrap());
        let transfer = Transfer::start(client, server, stream("fec5::1", Extent::Octets(200_000))).unwrap();
        assert_eq!(transfer.finish().unwrap().octets, 2 * PATTERN as u64);
    }

    #[test]
    fn a_transfer_to_nowhere_fails_and_can_be_given_up() {
        let Some(network) = network() else { return };
        let (client, server) = (network.namespace(CLIENT).unwrap(), network.namespace(SERVER).unwrap());
        let started = Instant::now();
        let transfer =
            Transfer::start(client, server, stream("192.168.3.2", Extent::Time(Duration::from_secs(60)))).unwrap();
        drop(transfer.stop_on_drop());
        assert!(matches!(transfer.finish(), Err(TransferError::Send(_) | TransferError::Receive(_))));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn changed_data_are_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let pattern = Stream::new([127, 0, 0, 1].into(), Extent::Octets(0)).pattern();
        let mut data = pattern.clone();
        data[PATTERN / 2] ^= 1;
        let writer = std::thread::spawn(move || stream.write_all(&data));
        assert!(receive(&listener, &pattern, &Progress::default()).is_err());
        // The receiver hangs up in the middle, which the writer may or may not notice.
        drop(writer.join().unwrap());
    }
}
