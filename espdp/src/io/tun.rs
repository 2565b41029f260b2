//! TUN devices whose packets carry vnet headers, so that one read or write moves a super-packet of up to 64 KiB.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use espdp_api::InterfaceName;
use espdp_core::{Delivery, Offloads, VnetHeader};

/// An open TUN device. Closing it removes the interface.
#[derive(Debug)]
pub(crate) struct Tun {
    file: File,
    offloads: Offloads,
}

impl Tun {
    /// Octets to offer to [`Self::read`]: the vnet header and the largest IP packet.
    pub(crate) const READ_LEN: usize = VnetHeader::LEN + 65_536;

    /// Makes the interface `name` in the network namespace of the calling thread.
    pub(crate) fn create(name: &InterfaceName) -> Result<Self, TunError> {
        let failed = |step: &'static str| move |source| TunError { step, name: name.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun").map_err(failed("open /dev/net/tun for"))?;
        set_interface(&file, name).map_err(failed("create"))?;
        // Numbers in vnet headers are little-endian from here on, whatever the machine.
        set_int(&file, libc::TUNSETVNETLE, 1).map_err(failed("set the byte order of"))?;
        let header_len = i32::try_from(VnetHeader::LEN).map_err(io::Error::other);
        header_len
            .and_then(|len| set_int(&file, libc::TUNSETVNETHDRSZ, len))
            .map_err(failed("set the header size of"))?;
        let offloads = set_offloads(&file).map_err(failed("set the offloads of"))?;
        Ok(Self { file, offloads })
    }

    /// The super-packets it takes.
    pub(crate) fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Reads one packet with its vnet header; `None` when none is waiting.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands one packet, or super-packet, to the inside.
    pub(crate) fn write(&self, delivery: &Delivery<'_>) -> io::Result<()> {
        let vnet = delivery.vnet.encode();
        let mut pieces = [IoSlice::new(&[]); 1 + Delivery::PIECES];
        pieces[0] = IoSlice::new(&vnet[..VnetHeader::LEN]);
        let mut used = 1;
        for (slot, piece) in pieces[1..].iter_mut().zip(delivery.pieces()) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        (&self.file).write_vectored(&pieces[..used]).map(drop)
    }
}

impl Tun {
    /// Hands one whole packet to the inside, its checksums complete.
    pub(crate) fn write_packet(&self, packet: &[u8]) -> io::Result<()> {
        let vnet = VnetHeader::default().encode();
        let pieces = [IoSlice::new(&vnet[..VnetHeader::LEN]), IoSlice::new(packet)];
        (&self.file).write_vectored(&pieces).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A TUN device that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {}: {source}", self.operation())]
pub(crate) struct TunError {
    step: &'static str,
    name: InterfaceName,
    pub(crate) source: io::Error,
}

impl TunError {
    /// What was tried.
    pub(crate) fn operation(&self) -> String {
        format!("{} interface {}", self.step, self.name)
    }
}

fn set_interface(file: &File, name: &InterfaceName) -> io::Result<()> {
    // IFF_TUN_EXCL: an interface of this name that is there already is not ours.
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // IFF_TUN_EXCL is the sign bit of the field, so the low 16 bits are cut out, not converted.
    let [low, high, ..] = flags.to_le_bytes();
    let ifru_flags = i16::from_le_bytes([low, high]);
    let mut request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags } };
    // SAFETY: `file` is open, and TUNSETIFF reads and writes one `ifreq`, which `request` is and which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

fn set_int(file: &File, request: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `file` is open, and both requests that this is used for read one `int`, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const value) })
}

/// Asks for everything, then for what older kernels know: USO came with Linux 6.2.
fn set_offloads(file: &File) -> io::Result<Offloads> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    if set_offload_flags(file, udp).is_ok() {
        return Ok(Offloads { tcp: true, udp: true });
    }
    set_offload_flags(file, tcp)?;
    Ok(Offloads { tcp: true, udp: false })
}

fn set_offload_flags(file: &File, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: `file` is open, and TUNSETOFFLOAD takes its flags by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
