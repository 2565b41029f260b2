//! Records what passes an interface, into a file and into a [`Tally`].

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::bpf;
use super::netns::{Namespace, NetnsError};
use super::tally::Tally;

/// A capture that runs. It ends with [`Capture::finish`] or when it is dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    socket: Arc<Capturing>,
    thread: Option<JoinHandle<Result<Result<Captured, CaptureError>, NetnsError>>>,
}

/// What a capture brought.
#[derive(Clone, Debug)]
pub struct Captured {
    /// All frames, also those that are not in the file.
    pub tally: Tally,
    /// Frames in the file.
    pub stored: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    esp_packets: AtomicU64,
}

impl Capture {
    /// Records all frames that pass `interface` of `namespace` in either direction. When the file holds [`STORED`] octets,
    /// the kernel passes on only what is not ESP, so that a fast transfer neither fills the disk nor is held up, nor hides a
    /// clear packet by filling the socket's buffer; [`Capture::look_at_everything`] ends that.
    ///
    /// # Errors
    /// [`CaptureError`] when the file or the socket is not to be had.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        file: &Path,
        protected: Vec<IpNet>,
    ) -> Result<Self, CaptureError> {
        let socket = Arc::new(namespace.run(|| open(interface))?.map_err(CaptureError::Socket)?);
        let create = |source| CaptureError::File { path: file.display().to_string(), source };
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            snaplen: u32::try_from(BUFFER).unwrap_or(u32::MAX),
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let file = BufWriter::new(File::create(file).map_err(create)?);
        let writer = PcapWriter::with_header(file, header)?;
        let shared = Arc::new(Shared::default());
        let recorder = Recorder {
            socket: Arc::clone(&socket),
            writer,
            protected,
            stored_octets: 0,
            stored: 0,
            tally: Tally::default(),
        };
        let thread = namespace.start({
            let shared = Arc::clone(&shared);
            move || recorder.record(&shared)
        })?;
        Ok(Self { shared, socket, thread: Some(thread) })
    }

    /// Counts ESP again, although no more of it goes to the file.
    ///
    /// # Errors
    /// [`CaptureError`] when the socket refuses.
    pub fn look_at_everything(&self) -> Result<(), CaptureError> {
        let filter = bpf::everything(self.socket.interface);
        self.socket.socket.attach_filter(&filter).map_err(CaptureError::Socket)
    }

    /// ESP packets so far, as far as they were looked at.
    #[must_use]
    pub fn esp_packets(&self) -> u64 {
        self.shared.esp_packets.load(Ordering::Relaxed)
    }

    /// Takes what is still on its way, ends, and says what was seen.
    ///
    /// # Errors
    /// [`CaptureError`] when the recording could not go on.
    pub fn finish(mut self) -> Result<Captured, CaptureError> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result?,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(CaptureError::Socket(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Recorder {
    socket: Arc<Capturing>,
    writer: PcapWriter<BufWriter<File>>,
    protected: Vec<IpNet>,
    stored_octets: usize,
    stored: u64,
    tally: Tally,
}

impl Recorder {
    fn record(mut self, shared: &Shared) -> Result<Captured, CaptureError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match rustix::net::recv(&self.socket.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    self.take(buffer.get(..length).unwrap_or_default())?;
                    shared.esp_packets.store(self.tally.esp_packets(), Ordering::Relaxed);
                }
                // The time is up (see `WAIT`): whoever wants an end gets it when nothing is left to read.
                Err(rustix::io::Errno::AGAIN) if shared.stop.load(Ordering::Relaxed) => break,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(CaptureError::Socket(error.into())),
            }
        }
        self.writer.into_writer().into_inner().map_err(|error| CaptureError::Socket(error.into_error()))?;
        Ok(Captured { tally: self.tally, stored: self.stored })
    }

    fn take(&mut self, frame: &[u8]) -> Result<(), CaptureError> {
        self.tally.add(frame, &self.protected);
        if self.stored_octets >= STORED {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.writer.write_packet(&PcapPacket::new(now, u32::try_from(frame.len()).unwrap_or(u32::MAX), frame))?;
        self.stored = self.stored.saturating_add(1);
        self.stored_octets = self.stored_octets.saturating_add(frame.len());
        if self.stored_octets >= STORED {
            let filter = bpf::all_but_esp(self.socket.interface);
            self.socket.socket.attach_filter(&filter).map_err(CaptureError::Socket)?;
        }
        Ok(())
    }
}

/// A packet socket for one interface.
#[derive(Debug)]
struct Capturing {
    socket: Socket,
    interface: u32,
}

fn open(interface: &str) -> io::Result<Capturing> {
    let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    let interface = rustix::net::netdevice::name_to_index(&socket, interface)?;
    socket.attach_filter(&bpf::everything(interface))?;
    socket.set_read_timeout(Some(WAIT))?;
    // Who is root of a user namespace only gets what the system allows everybody.
    let forced = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER);
    forced.or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))?;
    Ok(Capturing { socket, interface })
}

/// Why a capture failed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// The packet socket failed.
    #[error("cannot capture: {0}")]
    Socket(io::Error),
    /// The file could not be made.
    #[error("cannot make `{path}`")]
    File {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the capture")]
    Write(#[from] PcapError),
}

/// Octets of frames that go to the file: enough for the handshake, the pings and the start of a transfer.
pub const STORED: usize = 16 << 20;

/// Larger than any frame, super-packets of segmentation offload included.
const BUFFER: usize = 1 << 17;

/// Bursts must fit while the thread waits for a processor.
const RECEIVE_BUFFER: usize = 64 << 20;

/// How long to wait for a frame before looking whether the capture shall end.
const WAIT: Duration = Duration::from_millis(50);

/// All protocols (Linux `if_ether.h`).
const ETH_P_ALL: u16 = 0x0003;
#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Instant;

    use super::super::topology::{Network, Topology, TopologyError};
    use super::*;

    #[test]
    fn the_kernel_holds_esp_back_and_nothing_else() {
        let topology = Topology::new()
            .host("a")
            .host("b")
            .link(1500, ("a", "x", &["10.9.1.1/24", "fd09::1/64"]), ("b", "x", &["10.9.1.2/24", "fd09::2/64"]))
            .unwrap();
        let network = match Network::build(&topology) {
            Ok(network) => network,
            Err(TopologyError::Namespace(error)) if error.is_permission() => return crate::lab::netns::skipped(&error),
            Err(error) => panic!("{error}"),
        };
        let a = network.namespace("a").unwrap();
        let capturing = a.run(|| open("x")).unwrap().unwrap();
        capturing.socket.attach_filter(&bpf::all_but_esp(capturing.interface)).unwrap();
        let esp_packet = [&[0xc0; 8][..], &[7; 24]].concat();
        let ike_message = [&[0; 4][..], &[7; 28]].concat();
        a.run(|| {
            for (local, peer) in [("10.9.1.1", "10.9.1.2"), ("fd09::1", "fd09::2")] {
                let peer: std::net::IpAddr = peer.parse().unwrap();
                let domain = if peer.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
                let raw = Socket::new(domain, Type::RAW, Some(Protocol::from(50))).unwrap();
                raw.send_to(&esp_packet, &std::net::SocketAddr::new(peer, 0).into()).unwrap();
                let udp = UdpSocket::bind((local, 0)).unwrap();
                for (port, payload) in [
                    (4500, &esp_packet[..]),
                    (4500, &ike_message),
                    (4500, &[0xff]),
                    (500, &esp_packet),
                    (9, &esp_packet),
                ] {
                    // The peer refuses some of them, which is reported instead of sending a later one.
                    for _ in 0..2 {
                        assert!((0..20).any(|_| udp.send_to(payload, (peer, port)).is_ok()));
                    }
                }
            }
        })
        .unwrap();
        let mut seen = Tally::default();
        let mut buffer = vec![0; BUFFER];
        // The first packets wait for the neighbour to be found. What should not be there would come before the last.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match rustix::net::recv(&capturing.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => seen.add(&buffer[..length], &[]),
                Err(_) if (seen.ike, seen.keepalives) == (8, 4) || Instant::now() > deadline => break,
                Err(_) => {}
            }
        }
        assert_eq!(seen.esp_packets(), 0, "{seen:?}");
        assert_eq!((seen.ike, seen.keepalives), (8, 4), "{seen:?}");
        assert!(seen.other >= 4, "other ports, neighbour discovery and errors: {seen:?}");
    }

    #[test]
    fn both_directions_of_one_interface_are_recorded_and_nothing_else() {
        let topology = Topology::new()
            .host("a")
            .host("b")
            .link(1500, ("a", "x", &["10.9.1.1/24"]), ("b", "x", &["10.9.1.2/24"]))
            .and_then(|topology| topology.link(1500, ("a", "y", &["10.9.2.1/24"]), ("b", "y", &["10.9.2.2/24"])))
            .unwrap();
        let network = match Network::build(&topology) {
            Ok(network) => network,
            Err(TopologyError::Namespace(error)) if error.is_permission() => return crate::lab::netns::skipped(&error),
            Err(error) => panic!("{error}"),
        };
        let path = std::env::temp_dir().join(format!("lab-capture-{}.pcap", std::process::id()));
        let (a, b) = (network.namespace("a").unwrap(), network.namespace("b").unwrap());
        let capture = Capture::start(a, "x", &path, vec!["10.9.2.0/24".parse().unwrap()]).unwrap();
        let socket = |namespace: &Namespace, address| namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        for net in ["10.9.1", "10.9.2"] {
            let (here, there) = (socket(a, format!("{net}.1:4500")), socket(b, format!("{net}.2:4500")));
            here.send_to(b"ESP packet 1", format!("{net}.2:4500")).unwrap();
            there.recv(&mut [0; 99]).unwrap();
            there.send_to(&[0xff], format!("{net}.1:4500")).unwrap();
            here.recv(&mut [0; 99]).unwrap();
        }
        let captured = capture.finish().unwrap();
        let stored = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let tally = captured.tally;
        assert_eq!((tally.esp_packets(), tally.keepalives, tally.leaks), (1, 1, 0), "{tally:?}");
        assert_eq!(tally.esp[0].source.to_string(), "10.9.1.1");
        assert_eq!(captured.stored, tally.frames);
        assert!(stored.windows(12).any(|window| window == b"ESP packet 1"));
    }
}
