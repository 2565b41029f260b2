//! TUN and TAP devices whose packets carry vnet headers, so that one read or write moves a super-packet of up to 64 KiB.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use espdp_api::{InterfaceName, Layer, MacAddress};
use espdp_core::{Offloads, VnetHeader};

use super::device::DeviceError;

/// A queue of an open TUN or TAP device. Closing the last one removes the interface.
#[derive(Debug)]
pub(crate) struct Tun {
    file: File,
    offloads: Offloads,
}

impl Tun {
    /// Makes the interface `name` in the network namespace of the calling thread: for IP packets, or for Ethernet frames.
    /// `mac` is the address of its kernel side, for frames; `None`: a random one.
    pub(crate) fn create(name: &InterfaceName, layer: Layer, mac: Option<MacAddress>) -> Result<Self, DeviceError> {
        Self::open(name, layer, mac, Queue::Only)
    }

    /// Makes the interface `name` with so many queues, for IP packets. The packets of a flow all come through the same one.
    pub(crate) fn create_queues(name: &InterfaceName, queues: u8) -> Result<Vec<Self>, DeviceError> {
        let kinds = std::iter::once(Queue::First).chain(std::iter::repeat(Queue::Further));
        kinds.take(queues.into()).map(|queue| Self::open(name, Layer::Ip, None, queue)).collect()
    }

    fn open(name: &InterfaceName, layer: Layer, mac: Option<MacAddress>, queue: Queue) -> Result<Self, DeviceError> {
        let failed = |step: &'static str| move |source| DeviceError { step, name: name.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun").map_err(failed("open /dev/net/tun for"))?;
        set_interface(&file, name, layer, queue).map_err(failed("create"))?;
        // Numbers in vnet headers are little-endian from here on, whatever the machine.
        set_int(&file, libc::TUNSETVNETLE, 1).map_err(failed("set the byte order of"))?;
        let header_len = i32::try_from(VnetHeader::LEN).map_err(io::Error::other);
        header_len
            .and_then(|len| set_int(&file, libc::TUNSETVNETHDRSZ, len))
            .map_err(failed("set the header size of"))?;
        if let (Layer::Ethernet, Some(mac)) = (layer, mac) {
            set_mac(&file, mac).map_err(failed("set the MAC address of"))?;
        }
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

    /// As [`Self::read`], first into `space`, and into `rest` what has no room there.
    pub(crate) fn read_both(&self, space: &mut [u8], rest: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read_vectored(&mut [IoSliceMut::new(space), IoSliceMut::new(rest)]) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands one packet, or super-packet, with its vnet header to the inside.
    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        (&self.file).write_vectored(pieces).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A queue among those of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    /// There are no others.
    Only,
    /// The one that makes the interface.
    First,
    /// Another one of an interface that we have made.
    Further,
}

fn set_interface(file: &File, name: &InterfaceName, layer: Layer, queue: Queue) -> io::Result<()> {
    let kind = match layer {
        Layer::Ip => libc::IFF_TUN,
        Layer::Ethernet => libc::IFF_TAP,
    };
    // IFF_TUN_EXCL: an interface of this name that is there already is not ours.
    let queue = match queue {
        Queue::Only => libc::IFF_TUN_EXCL,
        Queue::First => libc::IFF_TUN_EXCL | libc::IFF_MULTI_QUEUE,
        Queue::Further => libc::IFF_MULTI_QUEUE,
    };
    let flags = kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queue;
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

fn set_mac(file: &File, mac: MacAddress) -> io::Result<()> {
    let mut sa_data = [0; 14];
    for (to, from) in sa_data.iter_mut().zip(mac.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data };
    // The device is the file's; its name is not looked at.
    let request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_hwaddr } };
    // SAFETY: `file` is open, and SIOCSIFHWADDR reads one `ifreq`, which `request` is and which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::SIOCSIFHWADDR, &raw const request) })
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
