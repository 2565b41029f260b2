//! Links of the host whose packets are read from a ring in shared memory, without a system call for each.
//!
//! The kernel (AF_PACKET, `TPACKET_V2`) copies a frame into the next slot and hands the slot over by its status; we read the
//! frame where it is and hand the slot back. A super-packet is longer than a slot: then its slot says that the whole waits in the
//! queue of the socket. So thousands of small packets may wait, and super-packets need no slots of 64 KiB.
//!
//! ```text
//!  0        4         8          12        14        16                 32                    mac - 10      mac
//! ┌────────┬─────────┬──────────┬─────────┬─────────┬─────────┬────────┬──────────────┬──────┬─────────────┬──────────┐
//! │ status │ length  │ captured │ mac     │ network │ time    │ VLAN   │ sockaddr_ll  │  …   │ vnet header │ frame    │
//! └────────┴─────────┴──────────┴─────────┴─────────┴─────────┴────────┴──────────────┴──────┴─────────────┴──────────┘
//!  numbers in the machine's byte order; `mac` is where the frame starts
//! ```

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use espdp_api::{InterfaceName, MacAddress};
use espdp_core::VnetHeader;
use socket2::{Domain, MsgHdr, Socket, Type};

use super::device::DeviceError;
use super::host::{attach, set_option};

/// A link of the host, read through a ring. Only what comes in there is read, not what the host or we send.
#[derive(Debug)]
pub(crate) struct PacketRing {
    // The socket must be closed after the memory is unmapped only for tidiness: each keeps the ring alive.
    memory: Memory,
    /// The slot that is filled next.
    slot: usize,
    socket: Socket,
    index: u32,
    mac: MacAddress,
}

impl PacketRing {
    /// Opens the link `name` in the network namespace of the calling thread.
    pub(crate) fn open(name: &InterfaceName) -> Result<Self, DeviceError> {
        let failed = |step| move |source| DeviceError { step, name: name.clone(), source };
        // Protocol 0: nothing is received before the socket is bound to the link.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed("open a packet socket for"))?;
        let index = rustix::net::netdevice::name_to_index(&socket, name.as_str());
        let index = index.map_err(|error| failed("find")(error.into()))?;
        let prepare = || {
            socket.set_nonblocking(true)?;
            set_option(&socket, libc::PACKET_VERSION, &VERSION)?;
            for option in [libc::PACKET_VNET_HDR, libc::PACKET_IGNORE_OUTGOING, PACKET_COPY_THRESH] {
                set_option(&socket, option, &1i32)?;
            }
            super::port::set_buffers(&socket)?;
            let ring = libc::tpacket_req {
                tp_block_size: BLOCK_LEN,
                tp_block_nr: SLOTS * SLOT_LEN / BLOCK_LEN,
                tp_frame_size: SLOT_LEN,
                tp_frame_nr: SLOTS,
            };
            set_option(&socket, libc::PACKET_RX_RING, &ring)
        };
        prepare().map_err(failed("make a packet ring for"))?;
        let memory = Memory::map(&socket).map_err(failed("map the packet ring of"))?;
        attach(&socket, index, None).map_err(failed("attach to"))?;
        let mac = own_address(&socket).map_err(failed("ask for the address of"))?;
        Ok(Self { memory, slot: 0, socket, index, mac })
    }

    /// The link's number.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// The link's own address.
    pub(crate) fn mac(&self) -> MacAddress {
        self.mac
    }

    /// The next frame; `None` when none is waiting.
    pub(crate) fn next(&mut self) -> Option<Frame<'_>> {
        let slot = self.memory.slot(self.slot)?;
        // Acquire: what the kernel wrote before the status is seen.
        let status = slot.status().load(Ordering::Acquire);
        // Made only then: a frame that is dropped gives its slot back.
        (status & libc::TP_STATUS_USER != 0).then(|| Frame { ring: self, status })
    }

    /// Sends one frame with its vnet header.
    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        self.socket.sendmsg(&MsgHdr::new().with_buffers(pieces), 0).map(drop)
    }

    /// What went wrong with the link, if anything did. Asking makes the socket forget it.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
    }
}

impl AsFd for PacketRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A frame in its slot. Dropped, the slot goes back to the kernel.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    ring: &'a mut PacketRing,
    status: u32,
}

impl Frame<'_> {
    /// The vnet header and the frame, from the Ethernet header on; a long one is read into `buffer`. `None` when it is not for this
    /// host's address, has a VLAN tag, or did not fit anywhere.
    pub(crate) fn for_us<'b>(&'b mut self, buffer: &'b mut [u8]) -> io::Result<Option<(VnetHeader, &'b mut [u8])>> {
        if !self.is_long() {
            return Ok(self.in_slot());
        }
        // Whoever it is for, it must be taken out of the queue.
        let len = rustix::io::read(&self.ring.socket, &mut *buffer)?;
        let is_for_us = self.is_for_us();
        let read = buffer.get_mut(..len).filter(|_| is_for_us);
        let Some((vnet, frame)) = read.and_then(|read| read.split_at_mut_checked(VnetHeader::LEN)) else {
            return Ok(None);
        };
        Ok(VnetHeader::split_from(vnet, VnetHeader::LEN).map(|(vnet, _)| (vnet, frame)))
    }

    /// Whether it is too long for its slot, as super-packets are.
    pub(crate) fn is_long(&self) -> bool {
        self.status & libc::TP_STATUS_COPY != 0
    }

    fn is_for_us(&mut self) -> bool {
        if self.status & libc::TP_STATUS_VLAN_VALID != 0 {
            return false;
        }
        let Some(slot) = self.ring.memory.slot(self.ring.slot) else { return false };
        slot.octets().get(SOCKET_ADDRESS + PACKET_TYPE) == Some(&libc::PACKET_HOST)
    }

    fn in_slot(&mut self) -> Option<(VnetHeader, &mut [u8])> {
        if !self.is_for_us() {
            return None;
        }
        let slot = self.ring.memory.slot(self.ring.slot)?;
        // The slot is ours until the frame is dropped, which ends the borrow of what is returned.
        let octets = slot.octets();
        let whole = number(octets, LENGTH)?;
        let captured = number(octets, CAPTURED)?;
        let [low, high] = *octets.get(MAC..)?.first_chunk()?;
        let start = usize::from(u16::from_ne_bytes([low, high]));
        if whole != captured {
            return None;
        }
        let end = start.checked_add(usize::try_from(captured).ok()?)?;
        let (vnet, _) = VnetHeader::split_from(octets.get(start.checked_sub(VnetHeader::LEN)?..end)?, VnetHeader::LEN)?;
        Some((vnet, octets.get_mut(start..end)?))
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.ring.memory.slot(self.ring.slot) {
            // Release: we are done with the frame before the kernel sees that the slot is its own.
            slot.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.ring.slot = (self.ring.slot + 1) % SLOTS as usize;
    }
}

/// The ring's memory, shared with the kernel.
#[derive(Debug)]
struct Memory(NonNull<u8>);

// SAFETY: the memory belongs to this value alone (and to the kernel, by the protocol of the slots), whichever thread has it.
unsafe impl Send for Memory {}

impl Memory {
    const LEN: usize = SLOT_LEN as usize * SLOTS as usize;

    fn map(socket: &Socket) -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses; nothing that exists is changed.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), Self::LEN, access, kind, socket.as_raw_fd(), 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(memory.cast()).map(Self).ok_or_else(|| io::Error::other("a mapping at address 0"))
    }

    /// The slot of this number; none beyond the last.
    fn slot(&mut self, number: usize) -> Option<Slot<'_>> {
        let offset = number.checked_mul(SLOT_LEN as usize).filter(|offset| *offset < Self::LEN)?;
        // SAFETY: `LEN` octets are mapped from the pointer on, and the offset of a slot is below that; slots do not overlap the
        // end, for `LEN` is a multiple of their length.
        let start = unsafe { self.0.add(offset) };
        Some(Slot { start, memory: std::marker::PhantomData })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and nothing borrows from it any more: slots borrow this value.
        if unsafe { libc::munmap(self.0.as_ptr().cast(), Self::LEN) } != 0 {
            tracing::debug!(error = %io::Error::last_os_error(), "a packet ring was not unmapped");
        }
    }
}

/// One slot of the ring: `SLOT_LEN` octets from `start` on, which stay mapped for as long as the memory is borrowed.
struct Slot<'a> {
    start: NonNull<u8>,
    memory: std::marker::PhantomData<&'a mut Memory>,
}

impl<'a> Slot<'a> {
    /// Whose the slot is, and what is said about the frame.
    fn status(&self) -> &'a AtomicU32 {
        // SAFETY: the slot starts with its status, 4 octets, aligned since the mapping starts with a page and slots are multiples of
        // 4 octets long. The kernel and we write it; all that we do with it is atomic.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().cast()) }
    }

    /// All of the slot. Only for a slot whose status says that it is ours: then the kernel does not touch it.
    fn octets(self) -> &'a mut [u8] {
        // SAFETY: `SLOT_LEN` octets are mapped here and borrowed exclusively through `memory`. The callers have seen
        // `TP_STATUS_USER`, and the slot is given back only when a `Frame` is dropped, which outlives what it returns.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), SLOT_LEN as usize) }
    }
}

/// The Ethernet address of the link that a socket is bound to.
fn own_address(socket: &Socket) -> io::Result<MacAddress> {
    let address = socket.local_addr()?;
    // SAFETY: the kernel wrote a `sockaddr_ll` into the storage, which is large enough for every kind of address; all of its
    // octets are initialised, for the storage starts out as zeros.
    let address = unsafe { &*address.as_ptr().cast::<libc::sockaddr_ll>() };
    let [a, b, c, d, e, f, ..] = address.sll_addr;
    match address.sll_halen {
        6 => Ok(MacAddress::new([a, b, c, d, e, f])),
        _ => Err(io::Error::other("it is no Ethernet link")),
    }
}

fn number(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// `TPACKET_V2`: frames at once, where `TPACKET_V3` waits until a block is full or a millisecond has passed.
const VERSION: libc::c_int = 1;
/// Octets of a slot: an ordinary packet with what stands in front of it.
const SLOT_LEN: u32 = 2048;
/// Slots: what may come while a worker is busy elsewhere, some milliseconds at full speed.
const SLOTS: u32 = 2048;
/// Octets that the kernel reserves in one piece.
const BLOCK_LEN: u32 = 16 * 4096;
/// Has frames that are too long for a slot wait in the queue of the socket (`linux/if_packet.h`).
const PACKET_COPY_THRESH: libc::c_int = 7;
/// Where things stand in a slot.
const LENGTH: usize = 4;
const CAPTURED: usize = 8;
const MAC: usize = 12;
const SOCKET_ADDRESS: usize = 32;
/// Where `sll_pkttype` stands in a `sockaddr_ll`.
const PACKET_TYPE: usize = 10;

const _: () = assert!(size_of::<libc::tpacket2_hdr>() == SOCKET_ADDRESS && BLOCK_LEN.is_multiple_of(SLOT_LEN));
