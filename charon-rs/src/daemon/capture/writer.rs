//! The thread that writes packets to a pcapng file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use espdp::Captured;
use espdp_api::{CaptureRemark, CapturedPacket, Direction, Layer, PolicyId, Viewpoint};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use tokio::sync::oneshot;

use super::{PolicyName, Wish};

/// What policies are called, for remarks.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(Arc<Mutex<BTreeMap<PolicyId, PolicyName>>>);

impl Labels {
    pub(super) fn add(&self, names: BTreeMap<PolicyId, PolicyName>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    pub(super) fn remove(&self, policy: PolicyId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&policy);
    }

    pub(super) fn of(&self, policy: PolicyId) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&policy).map(ToString::to_string)
    }
}

/// How a capture goes, for those who ask.
#[derive(Debug)]
pub(crate) struct Progress {
    wish: Wish,
    began: SystemTime,
    packets: AtomicU64,
    octets: AtomicU64,
    /// Why it ended, and how many packets were lost.
    ending: Mutex<Option<(Ending, u64)>>,
}

/// Why a capture ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Somebody wanted that.
    Stopped,
    /// The file is as long as it may be.
    Full,
    /// It could not be written.
    Failed(String),
}

/// How a capture goes, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// What is captured.
    pub(crate) wish: Wish,
    /// Since when.
    pub(crate) began: SystemTime,
    /// Packets in the file.
    pub(crate) packets: u64,
    /// Octets of the file.
    pub(crate) octets: u64,
    /// Packets that did not get into it.
    pub(crate) lost: u64,
    /// Why it ended; `None` while it runs.
    pub(crate) ending: Option<Ending>,
}

impl Progress {
    pub(super) fn new(wish: Wish) -> Self {
        let (packets, octets) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { wish, began: SystemTime::now(), packets, octets, ending: Mutex::new(None) }
    }

    /// How it goes; `lost` is how many packets are lost so far, as long as it runs.
    pub(super) fn report(&self, lost: Option<u64>) -> Report {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (ending, at_the_end) = ending.unzip();
        Report {
            wish: self.wish.clone(),
            began: self.began,
            packets: self.packets.load(Ordering::Relaxed),
            octets: self.octets.load(Ordering::Relaxed),
            lost: at_the_end.or(lost).unwrap_or_default(),
            ending,
        }
    }
}

/// Writes one file.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) file: File,
    pub(super) progress: Arc<Progress>,
    pub(super) labels: Labels,
    /// Told when no more can be written, although somebody wants that.
    pub(super) full: oneshot::Sender<()>,
}

impl Writer {
    /// Writes until there are no packets any more.
    pub(super) fn run(self, mut captured: Captured) {
        let Self { file, progress, labels, full } = self;
        let mut late = BTreeMap::new();
        // So that the queue ends soon.
        let give_up = |captured: &mut Captured, late: &mut BTreeMap<Viewpoint, u64>| {
            if full.send(()).is_err() {
                tracing::debug!("nobody ends a capture that is full");
            }
            captured.for_each(|packet| *late.entry(packet.viewpoint).or_default() += 1);
        };
        let written = Section::begin(file, &progress, labels).and_then(|mut section| {
            let ending = section.write_all(&mut captured, &mut late)?;
            Ok((section, ending))
        });
        let (mut section, mut ending) = match written {
            Ok((section, ending)) => (Some(section), ending),
            Err(error) => (None, Ending::Failed(error.to_string())),
        };
        if ending != Ending::Stopped {
            give_up(&mut captured, &mut late);
        }
        let mut lost = captured.lost();
        for (viewpoint, packets) in late {
            *lost.entry(viewpoint).or_default() += packets;
        }
        let all_lost = lost.values().sum();
        if let Some(Err(error)) = section.take().map(|section| section.finish(lost)) {
            ending = Ending::Failed(error.to_string());
        }
        if let Ending::Failed(why) = &ending {
            tracing::warn!(why, "the capture cannot be written");
        }
        *progress.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some((ending, all_lost));
    }
}

/// The one section of a file.
struct Section<'a> {
    pcapng: PcapNgWriter<BufWriter<File>>,
    progress: &'a Progress,
    labels: Labels,
    /// The numbers of the interfaces that are described so far, and packets of each.
    interfaces: BTreeMap<(Viewpoint, Layer), (u32, u64)>,
    octets: u64,
}

impl<'a> Section<'a> {
    fn begin(file: File, progress: &'a Progress, labels: Labels) -> Result<Self, PcapError> {
        // What is older; a device has no length.
        if file.metadata().is_ok_and(|found| found.is_file()) {
            file.set_len(0).map_err(PcapError::IoError)?;
        }
        let program = format!("charon-rs {}", env!("CARGO_PKG_VERSION"));
        let header = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(Cow::Owned(program))],
            ..SectionHeaderBlock::default()
        };
        let pcapng = PcapNgWriter::with_section_header(BufWriter::new(file), header)?;
        let mut section = Self { pcapng, progress, labels, interfaces: BTreeMap::new(), octets: SECTION_HEADER };
        section.count(0);
        // Whoever reads the file knows from its start what was looked at; the insides are described as packets come.
        for (viewpoint, is_wanted) in
            [(Viewpoint::Outside, progress.wish.outside), (Viewpoint::IkePlain, progress.wish.ike_plain)]
        {
            if is_wanted {
                section.interface(&viewpoint, Layer::Ip)?;
            }
        }
        section.flush()?;
        Ok(section)
    }

    /// Writes until there are no packets any more, or the file may not get longer; what comes too `late` is counted.
    fn write_all(&mut self, captured: &mut Captured, late: &mut BTreeMap<Viewpoint, u64>) -> Result<Ending, PcapError> {
        loop {
            let packet = match captured.next_waiting() {
                Some(packet) => packet,
                None => {
                    // Whoever reads along sees all that there is.
                    self.flush()?;
                    match captured.next() {
                        Some(packet) => packet,
                        None => return Ok(Ending::Stopped),
                    }
                }
            };
            let room = self.progress.wish.limit.saturating_sub(self.octets);
            if (packet.octets.len() as u64).saturating_add(PACKET_OVERHEAD) > room {
                late.insert(packet.viewpoint, 1);
                return Ok(Ending::Full);
            }
            self.write(packet)?;
        }
    }

    fn write(&mut self, packet: CapturedPacket) -> Result<(), PcapError> {
        let remark = self.remark(&packet);
        let direction = match packet.direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        let mut options = vec![EnhancedPacketOption::Flags(direction)];
        options.extend(remark.map(|remark| EnhancedPacketOption::Comment(Cow::Owned(remark))));
        let block = EnhancedPacketBlock {
            interface_id: self.interface(&packet.viewpoint, packet.layer)?,
            timestamp: packet.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            original_len: u32::try_from(packet.len).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&packet.octets),
            options,
        };
        let octets = self.pcapng.write_pcapng_block(block)?;
        self.count(octets);
        self.progress.packets.fetch_add(1, Ordering::Relaxed);
        if let Some((_, packets)) = self.interfaces.get_mut(&(packet.viewpoint, packet.layer)) {
            *packets += 1;
        }
        Ok(())
    }

    /// The number of an interface, which is described first if it was not yet.
    fn interface(&mut self, viewpoint: &Viewpoint, layer: Layer) -> Result<u32, PcapError> {
        let key = (viewpoint.clone(), layer);
        if let Some((number, _)) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let (name, description) = match viewpoint {
            Viewpoint::Inside(interface) => (interface.as_str(), "inside: before encryption, after decryption"),
            Viewpoint::Outside => (OUTSIDE, "outside: as on the wire; outer headers are put together again"),
            Viewpoint::IkePlain => (IKE_PLAIN, "IKE messages as if nobody had encrypted or fragmented them"),
        };
        let linktype = match layer {
            Layer::Ip => DataLink::RAW,
            Layer::Ethernet => DataLink::ETHERNET,
        };
        let block = InterfaceDescriptionBlock {
            linktype,
            snaplen: u32::try_from(self.progress.wish.snaplen).unwrap_or(u32::MAX),
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                InterfaceDescriptionOption::IfDescription(Cow::Borrowed(description)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        let octets = self.pcapng.write_pcapng_block(block)?;
        self.count(octets);
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        self.interfaces.insert(key, (number, 0));
        Ok(number)
    }

    /// What is to be said about a packet.
    fn remark(&self, packet: &CapturedPacket) -> Option<String> {
        let whose = || {
            let sa = packet.sa?;
            let of = self.labels.of(sa.policy).map(|name| format!(" of {name}")).unwrap_or_default();
            Some(format!("SA {:08x}{of}", sa.spi))
        };
        Some(match packet.remark.as_ref()? {
            CaptureRemark::Dropped(reason) => match whose() {
                Some(sa) => format!("dropped: {reason} ({sa})"),
                None => format!("dropped: {reason}"),
            },
            CaptureRemark::InClear => "in clear: no SA protects it".to_owned(),
            CaptureRemark::Answer => "an answer of the gateway to a packet that it could not send".to_owned(),
        })
    }

    /// Writes how much was seen and lost at each interface.
    fn finish(mut self, mut lost: BTreeMap<Viewpoint, u64>) -> Result<(), PcapError> {
        for viewpoint in lost.keys() {
            if !self.interfaces.keys().any(|(described, _)| described == viewpoint) {
                self.interface(viewpoint, Layer::Ip)?;
            }
        }
        let (began, ended) = (units(self.progress.began), units(SystemTime::now()));
        for ((viewpoint, _), (interface_id, packets)) in std::mem::take(&mut self.interfaces) {
            // Where frames and packets were seen at one interface, nobody knows which of them were lost.
            let drops = lost.remove(&viewpoint).unwrap_or_default();
            let options = vec![
                InterfaceStatisticsOption::IsbStartTime(began),
                InterfaceStatisticsOption::IsbEndTime(ended),
                InterfaceStatisticsOption::IsbIfRecv(packets.saturating_add(drops)),
                InterfaceStatisticsOption::IsbIfDrop(drops),
            ];
            let octets =
                self.pcapng.write_pcapng_block(InterfaceStatisticsBlock { interface_id, timestamp: ended, options })?;
            self.count(octets);
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), PcapError> {
        self.pcapng.get_mut().flush().map_err(PcapError::IoError)
    }

    fn count(&mut self, octets: usize) {
        self.octets += octets as u64;
        self.progress.octets.store(self.octets, Ordering::Relaxed);
    }
}

/// A time as statistics have it: nanoseconds since 1970, the high 32 bits first and then the low ones, in whatever byte order each.
fn units(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).rotate_left(32)
}

/// The name of the interface where packets are as on the wire.
pub(crate) const OUTSIDE: &str = "outside";
/// The name of the interface where IKE messages are in plain text.
pub(crate) const IKE_PLAIN: &str = "ike-plain";

/// Ten to the power of minus nine.
const NANOSECONDS: u8 = 9;
/// Octets of the first block, about.
const SECTION_HEADER: u64 = 64;
/// Octets of a packet's block besides the packet, remarks included, and a share of what is written at the end.
const PACKET_OVERHEAD: u64 = 512;

#[cfg(test)]
mod tests;
