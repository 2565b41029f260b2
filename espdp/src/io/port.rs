//! Sockets of the outside: UDP for IKE and for ESP in UDP, raw sockets for ESP itself.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use espdp_api::{WorkerId, Workers};
use rustix::net::sockopt;
use socket2::{Domain, MaybeUninitSlice, MsgHdr, MsgHdrMut, Protocol, SockAddr, Socket, Type};
use tunnels::Family;

use crate::StartError;
use crate::io::control_message::{ControlBuffer, Received, Sending};
use crate::io::steering::{self, SpiAt};

/// A socket bound to the wildcard address of one family. Each datagram says to which of our addresses it came, and is sent from
/// the address that it names.
#[derive(Debug)]
pub(crate) struct Port {
    socket: Socket,
    family: Family,
    /// What it does with datagrams that are too long.
    too_long: TooLong,
    control: ControlBuffer,
}

impl Port {
    /// Opens UDP port `port`.
    pub(crate) fn udp(
        family: Family,
        port: u16,
        mark: u32,
        coalesce: Coalesce,
        sharing: Sharing,
    ) -> Result<Self, StartError> {
        let failed = |source| StartError::System { operation: format!("open UDP port {port} for {family}"), source };
        let open = || {
            let socket = Socket::new(domain(family), Type::DGRAM, Some(Protocol::UDP))?;
            if family == Family::V6 {
                socket.set_only_v6(true)?;
            }
            if coalesce == Coalesce::Yes {
                set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
            }
            if sharing == Sharing::BySpi {
                socket.set_reuse_port(true)?;
            }
            socket.bind(&SocketAddr::new(wildcard(family), port).into())?;
            Self::prepare(socket, family, Some(mark))
        };
        open().map_err(failed)
    }

    /// Opens the raw socket for IP protocol 50.
    pub(crate) fn esp(family: Family, mark: u32) -> Result<Self, StartError> {
        Self::raw(family, libc::IPPROTO_ESP, "ESP", mark)
    }

    /// Opens the raw socket for IP protocol 51. It only receives: what is sent brings its own IP header.
    pub(crate) fn ah(family: Family, mark: u32) -> Result<Self, StartError> {
        Self::raw(family, libc::IPPROTO_AH, "AH", mark)
    }

    fn raw(family: Family, protocol: libc::c_int, name: &str, mark: u32) -> Result<Self, StartError> {
        let failed =
            |source| StartError::System { operation: format!("open a raw {name} socket for {family}"), source };
        let open = || {
            let socket = Socket::new(domain(family), Type::RAW, Some(Protocol::from(protocol)))?;
            Self::prepare(socket, family, Some(mark))
        };
        open().map_err(failed)
    }

    /// Opens a raw socket for packets that bring their own IP header. Without a mark they are routed as those of any program.
    pub(crate) fn with_header(family: Family, mark: Option<u32>) -> Result<Self, StartError> {
        let failed = |source| StartError::System { operation: format!("open a raw socket for {family}"), source };
        let open = || {
            // IPPROTO_RAW: we write the header, and nothing is ever received (raw(7)).
            let socket = Socket::new(domain(family), Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_nonblocking(true)?;
            if let Some(mark) = mark {
                socket.set_mark(mark)?;
            }
            set_buffers(&socket)?;
            set_too_long(&socket, family, TooLong::Refuse)?;
            Ok(Self { socket, family, too_long: TooLong::Refuse, control: ControlBuffer::new() })
        };
        open().map_err(failed)
    }

    /// Opens the raw socket that receives packets of a tunnel directly in IP.
    pub(crate) fn tunnel(family: Family, protocol: u8) -> Result<Self, StartError> {
        let operation = format!("open a raw socket for {family} and IP protocol {protocol}");
        let open = || {
            let socket = Socket::new(domain(family), Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
            Self::prepare(socket, family, None)
        };
        open().map_err(|source| StartError::System { operation, source })
    }

    /// Opens the UDP port that receives packets of a tunnel, in super-packets (`UDP_GRO`) where several came at once.
    pub(crate) fn udp_tunnel(family: Family, port: u16) -> Result<Self, StartError> {
        let failed = |source| StartError::System { operation: format!("open UDP port {port} for {family}"), source };
        let open = || {
            let socket = Socket::new(domain(family), Type::DGRAM, Some(Protocol::UDP))?;
            if family == Family::V6 {
                socket.set_only_v6(true)?;
                // RFC 7348 §5: what comes without a checksum is taken, which RFC 6935 §5 leaves to the receiver of a tunnel.
                set_option(&socket, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)?;
            }
            set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
            socket.bind(&SocketAddr::new(wildcard(family), port).into())?;
            Self::prepare(socket, family, None)
        };
        open().map_err(failed)
    }

    fn prepare(socket: Socket, family: Family, mark: Option<u32>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if let Some(mark) = mark {
            socket.set_mark(mark)?;
        }
        set_buffers(&socket)?;
        match family {
            Family::V4 => {
                set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
                socket.set_recv_tos_v4(true)?;
                set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
            }
            Family::V6 => {
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
                socket.set_recv_tclass_v6(true)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
                // A flow label is what we say it is.
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_AUTOFLOWLABEL, 0)?;
            }
        }
        set_too_long(&socket, family, TooLong::Refuse)?;
        Ok(Self { socket, family, too_long: TooLong::Refuse, control: ControlBuffer::new() })
    }

    /// Receives into `space`: how many octets, from where, and what the kernel says about them. `None` when nothing waits.
    pub(crate) fn receive(&mut self, space: &mut [u8]) -> io::Result<Option<(usize, SocketAddr, Received)>> {
        let mut source = SockAddr::from(SocketAddr::new(wildcard(self.family), 0));
        let control = self.control.octets_mut();
        // SAFETY: the slices have the layout of `[MaybeUninit<u8>]`, and `recvmsg` writes only initialised octets into them.
        let (space, control) = unsafe {
            let space: *mut [MaybeUninit<u8>] = std::ptr::from_mut(space) as *mut [MaybeUninit<u8>];
            let control: *mut [MaybeUninit<u8>] = std::ptr::from_mut(control) as *mut [MaybeUninit<u8>];
            (&mut *space, &mut *control)
        };
        let mut buffers = [MaybeUninitSlice::new(space)];
        let mut message = MsgHdrMut::new().with_addr(&mut source).with_buffers(&mut buffers).with_control(control);
        let len = match self.socket.recvmsg(&mut message, 0) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let control_len = message.control_len();
        let source = source.as_socket().unwrap_or(SocketAddr::new(wildcard(self.family), 0));
        Ok(Some((len, source, self.control.decode(control_len))))
    }

    /// Sends the pieces as one datagram, or as many if `sending` has a segment length.
    pub(crate) fn send(
        &mut self,
        pieces: &[IoSlice<'_>],
        destination: SocketAddr,
        sending: &Sending,
        too_long: TooLong,
    ) -> io::Result<()> {
        self.treat_too_long(too_long)?;
        let destination = SockAddr::from(destination);
        let control = self.control.encode(sending);
        let message = MsgHdr::new().with_addr(&destination).with_buffers(pieces).with_control(control);
        self.socket.sendmsg(&message, 0).map(drop)
    }

    /// Sends a packet with the header that it has, on a port of [`Self::with_header`].
    pub(crate) fn send_packet(&mut self, packet: &[u8], destination: IpAddr, too_long: TooLong) -> io::Result<()> {
        self.treat_too_long(too_long)?;
        self.socket.send_to(packet, &SocketAddr::new(destination, 0).into()).map(drop)
    }

    fn treat_too_long(&mut self, too_long: TooLong) -> io::Result<()> {
        if self.too_long != too_long {
            set_too_long(&self.socket, self.family, too_long)?;
            self.too_long = too_long;
        }
        Ok(())
    }

    /// Waits until there is room to send, but not for long: a device that is stuck must not stop everything else.
    pub(crate) fn wait_for_room(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let patience = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        if let Err(error) = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&patience)) {
            tracing::debug!(%error, "could not wait for a socket");
        }
    }

    /// Has datagrams that come to this port, which sockets of all workers share (`SO_REUSEPORT`, in order), go to the worker that
    /// has the SA. IKE and keepalives go to the first one.
    pub(crate) fn steer_by_spi(&self, workers: Workers) -> Result<(), StartError> {
        let failed = |source| StartError::System { operation: "steer datagrams to the workers".to_owned(), source };
        steering::attach(&self.socket, libc::SO_ATTACH_REUSEPORT_CBPF, &steering::by_spi(workers)).map_err(failed)
    }

    /// Keeps a raw socket from the packets of other workers' SAs; each socket would get a copy of all.
    pub(crate) fn keep_only(&self, worker: WorkerId, workers: Workers, spi_at: SpiAt) -> Result<(), StartError> {
        let failed = |source| StartError::System { operation: "filter a raw socket by worker".to_owned(), source };
        let filter = steering::only_of(worker, workers, self.family, spi_at);
        steering::attach(&self.socket, libc::SO_ATTACH_FILTER, &filter).map_err(failed)
    }

    #[cfg(test)]
    fn local_port(&self) -> u16 {
        self.socket.local_addr().unwrap().as_socket().unwrap().port()
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Socket buffers in octets: about 60 super-packets, some milliseconds of traffic at full speed.
const BUFFER_LEN: usize = 4 << 20;

/// Above the system's limit where we may: root in a user namespace may not, and gets what the limit allows.
pub(super) fn set_buffers(socket: &Socket) -> io::Result<()> {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER_LEN).is_err() {
        socket.set_recv_buffer_size(BUFFER_LEN)?;
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER_LEN).is_err() {
        socket.set_send_buffer_size(BUFFER_LEN)?;
    }
    Ok(())
}

fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

fn wildcard(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Whether received datagrams may come in super-packets (`UDP_GRO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coalesce {
    Yes,
    No,
}

/// Who else has the same UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Nobody.
    Alone,
    /// The other workers, see [`Port::steer_by_spi`].
    BySpi,
}

/// What a socket does with datagrams that are too long for the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooLong {
    /// It fragments them; datagrams leave without Don't Fragment.
    Fragment,
    /// It refuses them, and learns from ICMP messages what is too long; datagrams leave with Don't Fragment.
    Refuse,
    /// It refuses what the first link does not carry, whatever ICMP messages say; datagrams leave with Don't Fragment.
    RefuseByLink,
}

fn set_too_long(socket: &Socket, family: Family, too_long: TooLong) -> io::Result<()> {
    use sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
    match family {
        Family::V4 => {
            let how = match too_long {
                TooLong::Fragment => Ipv4PathMtuDiscovery::DONT,
                TooLong::Refuse => Ipv4PathMtuDiscovery::DO,
                TooLong::RefuseByLink => Ipv4PathMtuDiscovery::PROBE,
            };
            sockopt::set_ip_mtu_discover(socket, how)?;
        }
        Family::V6 => {
            let how = match too_long {
                TooLong::Fragment => Ipv6PathMtuDiscovery::DONT,
                TooLong::Refuse => Ipv6PathMtuDiscovery::DO,
                TooLong::RefuseByLink => Ipv6PathMtuDiscovery::PROBE,
            };
            sockopt::set_ipv6_mtu_discover(socket, how)?;
        }
    }
    Ok(())
}

/// Sets an option that takes an `int`.
fn set_option(socket: &Socket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `socket` is open, and the option is read from `value`, which is `len` octets long and outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sockets with marks and large buffers are for root only, which in CI there must be.
    fn may_run() -> bool {
        let root = rustix::process::geteuid().is_root();
        assert!(root || std::env::var("CI").as_deref() != Ok("true"), "this test sets socket marks: it needs root");
        if !root {
            println!("not run: this test sets socket marks, which needs root");
        }
        root
    }

    fn wait(port: &Port) {
        use rustix::event::{PollFd, PollFlags, poll};
        poll(&mut [PollFd::new(port, PollFlags::IN)], None).unwrap();
    }

    /// Sends a run of five datagrams, the last one shorter, to ourselves.
    fn run_comes_back_whole(family: Family, loopback: IpAddr) {
        let mut sender = Port::udp(family, 0, 7, Coalesce::No, Sharing::Alone).unwrap();
        let mut receiver = Port::udp(family, 0, 7, Coalesce::Yes, Sharing::Alone).unwrap();
        let destination = SocketAddr::new(loopback, receiver.local_port());
        let octets: Vec<u8> = (0..=255).cycle().take(4 * 1000 + 300).collect();
        let sending =
            Sending { traffic_class: 0x2d, hop_limit: Some(77), segment: Some(1000), ..Sending::from(loopback) };
        let pieces = [IoSlice::new(&octets[..10]), IoSlice::new(&octets[10..])];
        sender.send(&pieces, destination, &sending, TooLong::Refuse).unwrap();

        let mut received = Vec::new();
        let mut space = vec![0; 65_536];
        while received.len() < octets.len() {
            wait(&receiver);
            let Some((len, source, about)) = receiver.receive(&mut space).unwrap() else { continue };
            assert_eq!(source, SocketAddr::new(loopback, sender.local_port()));
            assert_eq!((about.local, about.traffic_class, about.hop_limit), (Some(loopback), 0x2d, Some(77)));
            assert!(about.segment == Some(1000) || len <= 1000, "{len} octets of {:?}", about.segment);
            received.extend_from_slice(&space[..len]);
        }
        assert_eq!(received, octets);
        assert_eq!(receiver.receive(&mut space).unwrap(), None);
    }

    #[test]
    fn a_run_of_datagrams_arrives_with_its_segment_length_addresses_and_traffic_class() {
        if may_run() {
            run_comes_back_whole(Family::V4, Ipv4Addr::LOCALHOST.into());
            run_comes_back_whole(Family::V6, Ipv6Addr::LOCALHOST.into());
        }
    }

    /// R3948-2.1-2.
    #[test]
    fn datagrams_without_a_checksum_arrive_like_those_that_have_one() {
        if !may_run() {
            return;
        }
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut receiver = Port::udp(Family::V4, 0, 7, Coalesce::Yes, Sharing::Alone).unwrap();
        let mut sender = Port::udp(Family::V4, 0, 7, Coalesce::No, Sharing::Alone).unwrap();
        let destination = SocketAddr::new(loopback, receiver.local_port());
        let sending = Sending::from(loopback);
        for text in [b"with", b"none"] {
            sender.send(&[IoSlice::new(text)], destination, &sending, TooLong::Refuse).unwrap();
            let mut space = [0; 16];
            wait(&receiver);
            let (len, _, _) = receiver.receive(&mut space).unwrap().unwrap();
            assert_eq!(&space[..len], text);
            set_option(&sender.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        }
    }

    #[test]
    fn a_datagram_to_another_of_our_addresses_says_so_and_the_answer_leaves_from_there() {
        if !may_run() {
            return;
        }
        let (ours, theirs) = (IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 3]));
        let mut port = Port::udp(Family::V4, 0, 7, Coalesce::Yes, Sharing::Alone).unwrap();
        let mut peer = Port::udp(Family::V4, 0, 7, Coalesce::No, Sharing::Alone).unwrap();
        peer.send(
            &[IoSlice::new(b"?")],
            SocketAddr::new(ours, port.local_port()),
            &Sending::from(theirs),
            TooLong::Fragment,
        )
        .unwrap();
        wait(&port);
        let (len, source, about) = port.receive(&mut [0; 16]).unwrap().unwrap();
        assert_eq!((len, source.ip(), about.local, about.segment), (1, theirs, Some(ours), None));
        port.send(&[IoSlice::new(b"!")], source, &Sending::from(ours), TooLong::Refuse).unwrap();
        wait(&peer);
        let (_, answered_from, _) = peer.receive(&mut [0; 16]).unwrap().unwrap();
        assert_eq!(answered_from, SocketAddr::new(ours, port.local_port()));
    }

    #[test]
    fn a_port_that_is_taken_is_named_in_the_error() {
        if !may_run() {
            return;
        }
        let first = Port::udp(Family::V4, 0, 7, Coalesce::No, Sharing::Alone).unwrap();
        let number = first.local_port();
        let error = Port::udp(Family::V4, number, 7, Coalesce::No, Sharing::Alone).unwrap_err();
        assert!(error.to_string().contains(&format!("open UDP port {number} for IPv4")), "{error}");
    }
}
