//! The devices of the inside: whatever gives and takes packets or frames with a vnet header in front.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use espdp_api::InterfaceName;
use espdp_core::{Delivery, VnetHeader};

use super::host::HostPort;
use super::memory::MemoryPort;
use super::tun::Tun;

/// A device.
#[derive(Debug)]
pub(crate) enum Device {
    /// A TUN or TAP device.
    Tun(Tun),
    /// A link that exists without us.
    Host(HostPort),
    /// An end of a link within the process.
    Memory(MemoryPort),
}

impl Device {
    /// Octets to offer to [`Self::read`]: the vnet header, an Ethernet header with two VLAN tags, and the largest IP packet.
    pub(crate) const READ_LEN: usize = VnetHeader::LEN + 22 + 65_536;

    /// Reads one packet with its vnet header; `None` when none is waiting.
    pub(crate) fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match self {
            Self::Tun(tun) => Ok(tun.read(buffer)?.and_then(|len| buffer.get(..len))),
            Self::Host(port) => port.read(buffer),
            Self::Memory(port) => Ok(port.read(buffer)),
        }
    }

    /// Hands over one packet, or super-packet.
    pub(crate) fn deliver(&self, delivery: &Delivery<'_>) -> io::Result<()> {
        let mut pieces = [IoSlice::new(&[]); Delivery::PIECES];
        let mut used = 0;
        for (slot, piece) in pieces.iter_mut().zip(delivery.pieces()) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        self.write_pieces(&delivery.vnet, &pieces[..used])
    }

    /// Hands over one packet that stands in one piece.
    pub(crate) fn write(&self, vnet: &VnetHeader, packet: &[u8]) -> io::Result<()> {
        self.write_pieces(vnet, &[IoSlice::new(packet)])
    }

    /// Hands over one whole packet, its checksums complete.
    pub(crate) fn write_packet(&self, packet: &[u8]) -> io::Result<()> {
        self.write(&VnetHeader::default(), packet)
    }

    fn write_pieces(&self, vnet: &VnetHeader, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let vnet = vnet.encode();
        let mut all = [IoSlice::new(&[]); 1 + Delivery::PIECES];
        all[0] = IoSlice::new(&vnet[..VnetHeader::LEN]);
        let used = 1 + pieces.len().min(Delivery::PIECES);
        all[1..used].copy_from_slice(&pieces[..used - 1]);
        match self {
            Self::Tun(tun) => tun.write(&all[..used]),
            Self::Host(port) => port.write(&all[..used]),
            Self::Memory(port) => port.write(&all[..used]),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(tun) => tun.as_fd(),
            Self::Host(port) => port.as_fd(),
            Self::Memory(port) => port.as_fd(),
        }
    }
}

/// A device that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {}: {source}", self.operation())]
pub(crate) struct DeviceError {
    pub(super) step: &'static str,
    pub(super) name: InterfaceName,
    pub(crate) source: io::Error,
}

impl DeviceError {
    /// What was tried.
    pub(crate) fn operation(&self) -> String {
        format!("{} interface {}", self.step, self.name)
    }
}
