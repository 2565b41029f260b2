//! Sockets of the outside: UDP for IKE and for ESP in UDP, raw sockets for ESP itself.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::sockopt;
use socket2::{Domain, MaybeUninitSlice, MsgHdr, MsgHdrMut, Protocol, SockAddr, Socket, Type};
use tunnels::Family;

use crate::StartError;
use crate::io::control_message::{ControlBuffer, Received, Sending};

/// A socket bound to the wildcard address of one family. Each datagram says to which of our addresses it came, and is sent from
/// the address that it names.
#[derive(Debug)]
pub(crate) struct Port {
    socket: Socket,
    family: Family,
    /// Whether datagrams leave with Don't Fragment and are refused when they are too long for the path.
    dont_fragment: bool,
    control: ControlBuffer,
}

impl Port {
    /// Opens UDP port `port` and asks for received datagrams in super-packets (`UDP_GRO`) when `coalesce` is set.
    pub(crate) fn udp(family: Family, port: u16, mark: u32, coalesce: bool) -> Result<Self, StartError> {
        let failed = |source| StartError::System { operation: format!("open UDP port {port} for {family}"), source };
        let open = || {
            let socket = Socket::new(domain(family), Type::DGRAM, Some(Protocol::UDP))?;
            if family == Family::V6 {
                socket.set_only_v6(true)?;
            }
            if coalesce {
                set_option(&socket, libc::SOL_UDP, libc::UDP_GRO)?;
            }
            socket.bind(&SocketAddr::new(wildcard(family), port).into())?;
            Self::prepare(socket, family, mark)
        };
        open().map_err(failed)
    }

    /// Opens the raw socket for IP protocol 50.
    pub(crate) fn esp(family: Family, mark: u32) -> Result<Self, StartError> {
        let failed = |source| StartError::System { operation: format!("open a raw ESP socket for {family}"), source };
        let open = || {
            let socket = Socket::new(domain(family), Type::RAW, Some(Protocol::from(libc::IPPROTO_ESP)))?;
            Self::prepare(socket, family, mark)
        };
        open().map_err(failed)
    }

    fn prepare(socket: Socket, family: Family, mark: u32) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_mark(mark)?;
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_LEN)?;
        sockopt::set_socket_send_buffer_size_force(&socket, BUFFER_LEN)?;
        match family {
            Family::V4 => {
                set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
                socket.set_recv_tos_v4(true)?;
            }
            Family::V6 => {
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
                socket.set_recv_tclass_v6(true)?;
            }
        }
        set_dont_fragment(&socket, family, true)?;
        Ok(Self { socket, family, dont_fragment: true, control: ControlBuffer::new() })
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
        dont_fragment: bool,
    ) -> io::Result<()> {
        if self.dont_fragment != dont_fragment {
            set_dont_fragment(&self.socket, self.family, dont_fragment)?;
            self.dont_fragment = dont_fragment;
        }
        let destination = SockAddr::from(destination);
        let control = self.control.encode(sending);
        let message = MsgHdr::new().with_addr(&destination).with_buffers(pieces).with_control(control);
        self.socket.sendmsg(&message, 0).map(drop)
    }

    /// Waits until there is room to send, but not for long: a device that is stuck must not stop everything else.
    pub(crate) fn wait_for_room(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let patience = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        if let Err(error) = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&patience)) {
            tracing::debug!(%error, "could not wait for a socket");
        }
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

fn set_dont_fragment(socket: &Socket, family: Family, on: bool) -> io::Result<()> {
    use sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
    match family {
        Family::V4 => {
            let how = if on { Ipv4PathMtuDiscovery::DO } else { Ipv4PathMtuDiscovery::DONT };
            sockopt::set_ip_mtu_discover(socket, how)?;
        }
        Family::V6 => {
            let how = if on { Ipv6PathMtuDiscovery::DO } else { Ipv6PathMtuDiscovery::DONT };
            sockopt::set_ipv6_mtu_discover(socket, how)?;
        }
    }
    Ok(())
}

/// Switches an option on that takes an `int`.
fn set_option(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `socket` is open, and the option is read from `on`, which is `len` octets long and outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
