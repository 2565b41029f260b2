//! What crosses the tunnel, and what is seen of it outside.
#![expect(unsafe_code, reason = "a link-layer address has no safe constructor")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use espdp_api::EspSpi;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::world::{Namespace, WIRE, index, with_netlink};

/// What the TCP streams say in clear, over and over.
pub(crate) const SECRET: &[u8; 16] = b"!inner plaintext";

/// Sends echo requests with `len` octets of ICMP from `namespace` until one is answered.
pub(crate) fn ping(namespace: &Namespace, to: &str, len: usize) {
    let to: IpAddr = to.parse().unwrap();
    namespace.run(move || {
        let (domain, protocol, request, reply, header) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0, 20),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
        };
        let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        // A route that is just being put back is waited for.
        while let Err(error) = socket.connect(&SocketAddr::new(to, 0).into()) {
            assert!(error.kind() == ErrorKind::NetworkUnreachable && Instant::now() < deadline, "{to}: {error}");
            std::thread::sleep(Duration::from_millis(1));
        }
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut message = vec![0x5a; len];
        message[..8].copy_from_slice(&[request, 0, 0, 0, 0x12, 0x34, 0, 1]);
        let sum = message.chunks(2).fold(0u32, |sum, pair| {
            let sum = sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            (sum & 0xffff) + (sum >> 16)
        });
        // For ICMPv6 the kernel does it.
        message[2..4].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
        let mut buffer = vec![0; 70_000];
        while Instant::now() < deadline {
            // Asked again each time: the first ones may be lost while neighbours are found.
            socket.send(&message).unwrap();
            while let Ok(received) = socket.read(&mut buffer) {
                let icmp = &buffer[header..received];
                if icmp[0] == reply && icmp[4..] == message[4..] {
                    return;
                }
            }
        }
        panic!("no answer from {to}");
    });
}

/// Transfers `len` octets by TCP from a client in `from` to a server in `to` at `address`, checks them, and says how long it took.
pub(crate) fn tcp_transfer(from: &Namespace, to: &Namespace, address: &str, len: usize) -> Duration {
    let address: IpAddr = address.parse().unwrap();
    let listener = to.run(move || TcpListener::bind((address, 0)).unwrap());
    let server_address = listener.local_addr().unwrap();
    let server = to.spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut received) = (vec![0; 1 << 20], 0);
        let expected = SECRET.repeat(buffer.len() / SECRET.len() + 1);
        loop {
            let read = stream.read(&mut buffer).unwrap();
            if read == 0 {
                break received;
            }
            let expected = &expected[received % SECRET.len()..][..read];
            assert!(buffer[..read] == *expected, "octet {received} or later is wrong");
            received += read;
        }
    });
    let start = Instant::now();
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&server_address, Duration::from_secs(20)).unwrap();
        rustix::net::sockopt::set_tcp_congestion(&stream, "cubic").unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let block = SECRET.repeat(1 << 12);
        for _ in 0..len / block.len() {
            stream.write_all(&block).unwrap();
        }
    });
    assert_eq!(server.join().unwrap(), len);
    start.elapsed()
}

/// Sends datagrams that no peer would send, to both UDP ports and as protocol 50: all lengths up to 100 octets and some longer ones,
/// of zeros, of ones, with an unknown SPI and with `spi`.
pub(crate) fn throw_garbage(to: &str, spi: EspSpi) {
    let to: IpAddr = to.parse().unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_ESP))).unwrap();
    for len in (0..100).chain([576, 1400, 9000, 65_000]) {
        for (start, fill) in [([0; 4], 0), ([0xff; 4], 0xff), ([0x12, 0x34, 0x56, 0x78], 1), (spi.to_wire(), 2)] {
            let mut datagram = vec![fill; len];
            datagram.iter_mut().zip(start).for_each(|(to, from)| *to = from);
            for port in [500, 4500] {
                udp.send_to(&datagram, (to, port)).unwrap();
            }
            raw.send_to(&datagram, &SocketAddr::new(to, 0).into()).unwrap();
        }
    }
}

/// Watches the wire between the gateways.
pub(crate) struct Capture {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What a [`Capture`] saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// ESP as IP protocol 50.
    pub(crate) esp: usize,
    /// AH, IP protocol 51.
    pub(crate) ah: usize,
    /// UDP from or to port 4500.
    pub(crate) udp_4500: usize,
    /// IP packets that were neither, neighbour discovery aside.
    pub(crate) other: usize,
    /// Frames in which [`SECRET`] stood in clear.
    pub(crate) secrets: usize,
}

impl Capture {
    /// Starts to watch the outer interface of `namespace`.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let mut socket = namespace.run(|| open_packet_socket().unwrap());
        let watch = move || {
            let (mut seen, mut buffer) = (Seen::default(), vec![0; 70_000]);
            loop {
                match socket.read(&mut buffer) {
                    Ok(len) => seen.add(&buffer[..len]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock && stop.load(Ordering::Acquire) => break seen,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        Self { done, thread: std::thread::spawn(watch) }
    }

    /// Says what was seen, all that was sent before this call included.
    pub(crate) fn finish(self) -> Seen {
        self.done.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

impl Seen {
    fn add(&mut self, frame: &[u8]) {
        let (protocol, ports) = match frame.get(12..14) {
            Some([0x08, 0x00]) => (frame[23], &frame[34..]),
            Some([0x86, 0xdd]) => (frame[20], &frame[54..]),
            _ => return,
        };
        match protocol {
            50 => self.esp += 1,
            51 => self.ah += 1,
            17 if ports[..2] == 4500u16.to_be_bytes() || ports[2..4] == 4500u16.to_be_bytes() => self.udp_4500 += 1,
            58 | 0 => {} // Neighbour discovery and multicast listeners.
            _ => self.other += 1,
        }
        self.secrets += usize::from(frame.windows(SECRET.len()).any(|window| window == SECRET));
    }
}

fn open_packet_socket() -> io::Result<Socket> {
    let all = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all))))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20).is_err() {
        println!("in a user namespace the capture may miss packets");
    }
    let link = with_netlink(async |netlink| index(&netlink, WIRE).await);
    // SAFETY: a `sockaddr_ll` fits into the storage, and what is not set of it is zero.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = all;
            (*address).sll_ifindex = link as i32;
            *len = size_of::<libc::sockaddr_ll>() as u32;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    Ok(socket)
}
