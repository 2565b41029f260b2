//! What a capture holds of IKE and ESP: frames of pcap and pcapng files to UDP datagrams, with fragments of IP put together.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use etherparse::defrag::IpDefragPool;
use etherparse::{EtherType, IpNumber, NetSlice, SlicedPacket, TransportSlice, UdpSlice};
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::{Block, PcapNgReader};

use crate::daemon::capture::{IKE_PLAIN, OUTSIDE};

/// An IKE message as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Captured {
    /// Since 1970.
    pub(super) at: Duration,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// The message, without non-ESP marker.
    pub(super) message: Vec<u8>,
    /// Whether IP had it in fragments.
    pub(super) was_fragmented: bool,
}

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Ike(Captured),
    /// An ESP packet, alone or in UDP.
    Esp {
        source: IpAddr,
        destination: IpAddr,
    },
}

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaptureError {
    /// The file.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// Its format.
    #[error("this is no capture in pcap or pcapng format: {0}")]
    Format(#[from] pcap_file::PcapError),
    /// What was captured.
    #[error("frames of link type {0:?} are not known here: capture on an Ethernet interface, on `any`, or IP packets")]
    LinkType(DataLink),
}

/// Reads a capture and gives what is of interest to `take`, in the order of the file.
///
/// In captures of ours IKE messages may be there twice: as they were outside, and in plain text. Of the two it gives what can be
/// looked into, after all else: what was outside for whoever `has_keys`, and what is in plain text for everybody else.
///
/// # Errors
/// When it is no capture. Frames that are cut off or make no sense are left out.
pub(super) fn read(file: &Path, has_keys: bool, mut take: impl FnMut(Found)) -> Result<(), CaptureError> {
    let mut file = BufReader::new(File::open(file)?);
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    file.rewind()?;
    let mut frames = Frames::default();
    let (mut plain, mut outside) = (Vec::new(), Vec::new());
    if magic == PCAPNG_MAGIC {
        let mut reader = PcapNgReader::new(file)?;
        while let Some(block) = reader.next_block() {
            let Block::EnhancedPacket(packet) = block? else { continue };
            let (data, stamp, interface) = (packet.data.into_owned(), packet.timestamp, packet.interface_id);
            let Some(interface) = usize::try_from(interface).ok().and_then(|index| reader.interfaces().get(index))
            else {
                continue;
            };
            let (link, at) = (interface.linktype, at(stamp, interface));
            let name = name_of(interface);
            frames.take(link, at, &data, &mut |found| match (name, &found) {
                (Some(IKE_PLAIN), _) => plain.push(found),
                (Some(OUTSIDE), Found::Ike(_)) => outside.push(found),
                _ => take(found),
            })?;
        }
    } else {
        let mut reader = PcapReader::new(file)?;
        let link = reader.header().datalink;
        while let Some(packet) = reader.next_packet() {
            let packet = packet?;
            frames.take(link, packet.timestamp, &packet.data, &mut take)?;
        }
    }
    let is_outside = plain.is_empty() || (has_keys && !outside.is_empty());
    (if is_outside { outside } else { plain }).into_iter().for_each(take);
    Ok(())
}

fn name_of<'a>(interface: &'a InterfaceDescriptionBlock<'_>) -> Option<&'a str> {
    interface
        .options
        .iter()
        .find_map(|option| if let InterfaceDescriptionOption::IfName(name) = option { Some(&**name) } else { None })
}

/// The reader takes all time stamps for nanoseconds; the interface says what they are, microseconds if it does not.
fn at(stamp: Duration, interface: &InterfaceDescriptionBlock<'_>) -> Duration {
    let resolution = interface.options.iter().find_map(|option| {
        if let InterfaceDescriptionOption::IfTsResol(resolution) = option { Some(*resolution) } else { None }
    });
    let units = stamp.as_nanos();
    let nanos = match resolution.unwrap_or(6) {
        binary if binary & 0x80 != 0 => {
            units.saturating_mul(1_000_000_000).checked_shr(u32::from(binary & 0x7f)).unwrap_or_default()
        }
        decimal @ 0..=9 => units.saturating_mul(10u128.pow(9 - u32::from(decimal))),
        decimal => units / 10u128.checked_pow(u32::from(decimal) - 9).unwrap_or(u128::MAX),
    };
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Frames on their way to datagrams.
#[derive(Default)]
struct Frames {
    fragments: IpDefragPool<u64>,
    count: u64,
}

impl Frames {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are hundreds of link types that have nothing to do with IP"
    )]
    fn take(
        &mut self,
        link: DataLink,
        at: Duration,
        frame: &[u8],
        take: &mut impl FnMut(Found),
    ) -> Result<(), CaptureError> {
        self.count += 1;
        if self.count.is_multiple_of(FRAGMENTS_WAIT) {
            let count = self.count;
            self.fragments.retain(|seen| count - seen < FRAGMENTS_WAIT);
        }
        let sliced = match link {
            DataLink::ETHERNET => SlicedPacket::from_ethernet(frame),
            DataLink::LINUX_SLL => SlicedPacket::from_linux_sll(frame),
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => SlicedPacket::from_ip(frame),
            // The family, in the byte order of whoever captured, which the IP header tells as well.
            DataLink::NULL | DataLink::LOOP => SlicedPacket::from_ip(frame.get(4..).unwrap_or_default()),
            DataLink::LINUX_SLL2 => {
                let kind = frame.first_chunk().map_or(0, |kind| u16::from_be_bytes(*kind));
                SlicedPacket::from_ether_type(EtherType(kind), frame.get(SLL2_HEADER..).unwrap_or_default())
            }
            other => return Err(CaptureError::LinkType(other)),
        };
        let Ok(sliced) = sliced else { return Ok(()) };
        let (source, destination) = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
            }
            Some(NetSlice::Ipv6(ip)) => {
                (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
            }
            Some(NetSlice::Arp(_)) | None => return Ok(()),
        };
        if let Some(TransportSlice::Udp(udp)) = &sliced.transport {
            take_udp(udp, (source, destination), at, false, take);
        } else if let Ok(Some(whole)) = self.fragments.process_sliced_packet(&sliced, self.count, ()) {
            if whole.ip_number == IpNumber::UDP
                && let Ok(udp) = UdpSlice::from_slice(&whole.payload)
            {
                take_udp(&udp, (source, destination), at, true, take);
            }
            self.fragments.return_buf(whole);
        } else if protocol(&sliced) == Some(IpNumber::ENCAPSULATING_SECURITY_PAYLOAD) {
            take(Found::Esp { source, destination });
        }
        Ok(())
    }
}

fn protocol(sliced: &SlicedPacket<'_>) -> Option<IpNumber> {
    match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => Some(ip.payload().ip_number),
        Some(NetSlice::Ipv6(ip)) => Some(ip.payload().ip_number),
        Some(NetSlice::Arp(_)) | None => None,
    }
}

/// RFC 3948 §2: on port 4500, four octets of zeros come before IKE, and what has no zeros there is ESP.
fn take_udp(
    udp: &UdpSlice<'_>,
    (source, destination): (IpAddr, IpAddr),
    at: Duration,
    was_fragmented: bool,
    take: &mut impl FnMut(Found),
) {
    let (ports, payload) = ((udp.source_port(), udp.destination_port()), udp.payload());
    let message = match ports {
        (NAT_PORT, _) | (_, NAT_PORT) => match payload.split_first_chunk() {
            Some((&[0, 0, 0, 0], message)) => message,
            Some(_) if payload.len() > ESP_HEADER => return take(Found::Esp { source, destination }),
            Some(_) | None => return,
        },
        (IKE_PORT, _) | (_, IKE_PORT) => payload,
        _ => return,
    };
    let (source, destination) = (SocketAddr::new(source, ports.0), SocketAddr::new(destination, ports.1));
    take(Found::Ike(Captured { at, source, destination, message: message.to_vec(), was_fragmented }));
}

const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const IKE_PORT: u16 = 500;
const NAT_PORT: u16 = 4500;

/// SPI and sequence number.
const ESP_HEADER: usize = 8;

/// `LINKTYPE_LINUX_SLL2`: the protocol is in its first two octets.
const SLL2_HEADER: usize = 20;

/// Frames for which the fragments of a packet wait for the others, so that a long capture with lost ones needs little memory.
const FRAGMENTS_WAIT: u64 = 4096;
