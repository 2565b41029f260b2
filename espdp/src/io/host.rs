//! Links that exist without us, as ports of a bridge domain: AF_PACKET with vnet headers, so that super-packets pass in one piece.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use espdp_api::InterfaceName;
use espdp_core::VnetHeader;
use socket2::{Domain, MaybeUninitSlice, MsgHdr, MsgHdrMut, Socket, Type};

use super::control_message::ControlBuffer;
use super::device::DeviceError;

/// A link of the host, promiscuous. Only what comes in there is read, not what the host or we send.
#[derive(Debug)]
pub(crate) struct HostPort {
    socket: Socket,
    control: ControlBuffer,
}

impl HostPort {
    /// Opens the link `name` in the network namespace of the calling thread.
    pub(crate) fn open(name: &InterfaceName) -> Result<Self, DeviceError> {
        let failed = |step| move |source| DeviceError { step, name: name.clone(), source };
        // Protocol 0: nothing is received before the socket is bound to the link.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed("open a packet socket for"))?;
        let prepare = || {
            socket.set_nonblocking(true)?;
            for option in [libc::PACKET_VNET_HDR, libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
                set_option(&socket, option, &1i32)?;
            }
            super::port::set_buffers(&socket)
        };
        prepare().map_err(failed("set options of the packet socket for"))?;
        let index = rustix::net::netdevice::name_to_index(&socket, name.as_str());
        let index = index.map_err(|error| failed("find")(error.into()))?;
        attach(&socket, index, Some(libc::PACKET_MR_PROMISC)).map_err(failed("attach to"))?;
        Ok(Self { socket, control: ControlBuffer::new() })
    }

    /// Reads one frame with its vnet header; `None` when none is waiting. The kernel takes the outermost VLAN tag out of a frame;
    /// here it is put back.
    ///
    /// ```text
    ///  read:      4 octets free │ vnet header │ destination, source │              │ EtherType …
    ///  with tag:  vnet header │ destination, source │ VLAN tag                     │ EtherType …
    /// ```
    pub(crate) fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let Some(space) = buffer.get_mut(TAG_LEN..) else { return Ok(None) };
        let control = self.control.octets_mut();
        // SAFETY: the slices have the layout of `[MaybeUninit<u8>]`, and `recvmsg` writes only initialised octets into them.
        let (space, control) = unsafe {
            let space: *mut [MaybeUninit<u8>] = std::ptr::from_mut(space) as *mut [MaybeUninit<u8>];
            let control: *mut [MaybeUninit<u8>] = std::ptr::from_mut(control) as *mut [MaybeUninit<u8>];
            (&mut *space, &mut *control)
        };
        let mut buffers = [MaybeUninitSlice::new(space)];
        let mut message = MsgHdrMut::new().with_buffers(&mut buffers).with_control(control);
        let len = match self.socket.recvmsg(&mut message, 0) {
            Ok(len) => len,
            // ENETDOWN: the link was set down, which the socket says once.
            Err(error) if is_temporary(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_cut = message.flags().is_truncated();
        let control_len = message.control_len();
        if is_cut {
            return Ok(Some(&[])); // Longer than any frame that a link can be told to take.
        }
        let Some(tag) = self.control.decode(control_len).vlan_tag else {
            return Ok(buffer.get(TAG_LEN..TAG_LEN + len));
        };
        Ok(insert_tag(buffer, tag, len))
    }

    /// Sends one frame with its vnet header.
    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        self.socket.sendmsg(&MsgHdr::new().with_buffers(pieces), 0).map(drop)
    }
}

impl AsFd for HostPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Octets of a VLAN tag.
const TAG_LEN: usize = 4;
/// Where the tag stands: behind the vnet header and the addresses.
const TAG_AT: usize = VnetHeader::LEN + 12;

/// Moves what stands in front of the tag to the start of `buffer`, where [`TAG_LEN`] octets are free, and writes the tag.
fn insert_tag(buffer: &mut [u8], tag: [u8; TAG_LEN], len: usize) -> Option<&[u8]> {
    let whole = buffer.get_mut(..TAG_LEN + len)?;
    whole.copy_within(TAG_LEN..TAG_LEN + TAG_AT.min(len), 0);
    *whole.get_mut(TAG_AT..)?.first_chunk_mut()? = tag;
    let (vnet, frame) = VnetHeader::split_from(whole, VnetHeader::LEN)?;
    if frame.len() < TAG_LEN || vnet.flags & VnetHeader::NEEDS_CSUM == 0 {
        return Some(whole);
    }
    let moved = VnetHeader { csum_start: vnet.csum_start.saturating_add(4), ..vnet }.encode();
    whole.get_mut(..VnetHeader::LEN)?.copy_from_slice(&moved[..VnetHeader::LEN]);
    Some(whole)
}

fn is_temporary(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENETDOWN)
}

/// Receives from the link, all protocols; with a `membership`, such as the promiscuous mode, also what is not for this host. The
/// kernel ends it with the socket.
pub(super) fn attach(socket: &Socket, index: u32, membership: Option<libc::c_int>) -> io::Result<()> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
    let address = libc::sockaddr_ll {
        sll_family: libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: all,
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: `bind` reads `len` octets of the address, which outlives the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(membership) = membership else { return Ok(()) };
    let mr_type = u16::try_from(membership).map_err(io::Error::other)?;
    let membership = libc::packet_mreq { mr_ifindex: index, mr_type, mr_alen: 0, mr_address: [0; 8] };
    set_option(socket, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

/// Sets an option of packet sockets; `T` is what the kernel reads for it.
pub(super) fn set_option<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let value = std::ptr::from_ref(value);
    // SAFETY: `setsockopt` reads `len` octets of `value`, which outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value.cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_put_back_where_the_kernel_took_it_out() {
        let vnet =
            VnetHeader { flags: VnetHeader::NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..VnetHeader::default() };
        let mut buffer = vec![0xee; TAG_LEN];
        buffer.extend_from_slice(&vnet.encode()[..VnetHeader::LEN]);
        buffer.extend_from_slice(&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0, 0x45]);
        let len = buffer.len() - TAG_LEN;
        let read = insert_tag(&mut buffer, [0x81, 0, 0, 7], len).unwrap();
        let (moved, frame) = VnetHeader::split_from(read, VnetHeader::LEN).unwrap();
        assert_eq!(moved, VnetHeader { csum_start: 38, ..vnet });
        assert_eq!(frame, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x81, 0, 0, 7, 8, 0, 0x45]);
    }

    /// Both ends of a veth pair in a namespace of their own.
    fn pair(body: impl FnOnce(HostPort, HostPort) + Send + 'static) {
        use rustix::thread::{UnshareFlags, unshare_unsafe};
        if !rustix::process::geteuid().is_root() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test makes a namespace: it needs root");
            println!("not run: this test makes a namespace, which needs root");
            return;
        }
        let body = move || {
            // SAFETY: only the network of this thread changes, which nothing else depends on.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                netlink.link().add(rtnetlink::LinkVeth::new("a", "b").build()).execute().await.unwrap();
                for name in ["a", "b"] {
                    let up = rtnetlink::LinkUnspec::new_with_name(name).up().build();
                    netlink.link().change(up).execute().await.unwrap();
                }
            });
            let [a, b] = ["a", "b"].map(|name| HostPort::open(&InterfaceName::new(name).unwrap()).unwrap());
            body(a, b);
        };
        std::thread::spawn(body).join().unwrap();
    }

    /// Sends a frame, again and again since a link that has just been set up may lose some, until one of its EtherType arrives.
    fn exchange(from: &HostPort, to: &mut HostPort, vnet: VnetHeader, frame: &[u8]) -> (VnetHeader, Vec<u8>) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let (header, mut buffer) = (vnet.encode(), vec![0; 70_000]);
        let patience = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        for _ in 0..200 {
            from.write(&[IoSlice::new(&header[..VnetHeader::LEN]), IoSlice::new(frame)]).unwrap();
            while poll(&mut [PollFd::new(to, PollFlags::IN)], Some(&patience)).unwrap() > 0 {
                let Some(read) = to.read(&mut buffer).unwrap() else { continue };
                let (vnet, received) = VnetHeader::split_from(read, VnetHeader::LEN).unwrap();
                if received[12..14] == frame[12..14] {
                    return (vnet, received.to_vec());
                }
            }
        }
        panic!("no frame arrived");
    }

    #[test]
    fn tags_and_frames_for_others_come_through_and_what_a_port_sends_does_not_come_back() {
        pair(|mut a, mut b| {
            let addresses = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];
            for tags in [&[0x81, 0x00, 0x20, 0x07][..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7], &[]] {
                let frame = |octet| [&addresses[..], tags, &[0x88, 0xb5], &[octet; 60]].concat();
                assert_eq!(exchange(&a, &mut b, VnetHeader::default(), &frame(0xaa)).1, frame(0xaa));
                // The first such frame that `a` gets is that of `b`, not its own.
                assert_eq!(exchange(&b, &mut a, VnetHeader::default(), &frame(0xbb)).1, frame(0xbb));
            }
        });
    }

    #[test]
    fn a_super_packet_passes_in_one_piece() {
        pair(|a, mut b| {
            let payload = vec![0x77; 20_000];
            let total = u16::try_from(40 + payload.len()).unwrap().to_be_bytes();
            let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0];
            frame.extend([0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend([0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
            frame.extend_from_slice(&payload);
            let vnet = VnetHeader {
                flags: VnetHeader::NEEDS_CSUM,
                gso_type: VnetHeader::GSO_TCPV4,
                hdr_len: 54,
                gso_size: 1448,
                csum_start: 34,
                csum_offset: 16,
            };
            let (received, octets) = exchange(&a, &mut b, vnet, &frame);
            assert_eq!((received.gso_type, received.gso_size, octets), (vnet.gso_type, vnet.gso_size, frame));
        });
    }
}
