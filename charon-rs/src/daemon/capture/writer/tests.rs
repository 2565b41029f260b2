use std::path::Path;

use espdp::{CaptureQueue, CaptureSink};
use espdp_api::{CapturedSa, InterfaceName};
use pcap_file::pcapng::{Block, PcapNgReader};

use super::*;

fn wish(limit: u64) -> Wish {
    Wish {
        file: "x".into(),
        inside: true,
        outside: true,
        ike_plain: true,
        connection: None,
        snaplen: 65535,
        limit,
        rate: 1,
    }
}

fn packet(viewpoint: Viewpoint, layer: Layer, remark: Option<CaptureRemark>) -> CapturedPacket {
    CapturedPacket {
        at: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5),
        viewpoint,
        layer,
        direction: Direction::Outbound,
        octets: vec![0x45; 60],
        len: 1400,
        sa: Some(CapturedSa { spi: 0xc000_0001, policy: PolicyId(7) }),
        remark,
    }
}

/// Writes what `fill` puts into the queue.
fn write(path: &Path, limit: u64, fill: impl FnOnce(&mut CaptureQueue)) -> Report {
    let (mut queue, captured) = CaptureQueue::new();
    fill(&mut queue);
    drop(queue);
    let progress = Arc::new(Progress::new(wish(limit)));
    let labels = Labels::default();
    let name = PolicyName { connection: Some("gw".to_owned()), own: "net".to_owned() };
    labels.add(BTreeMap::from([(PolicyId(7), name)]));
    let (full, _) = oneshot::channel();
    let writer = Writer { file: File::create(path).unwrap(), progress: Arc::clone(&progress), labels, full };
    writer.run(captured);
    progress.report(None)
}

fn blocks(path: &Path) -> Vec<Block<'static>> {
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block() {
        blocks.push(block.unwrap().into_owned());
    }
    blocks
}

#[test]
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there is is not looked for")]
fn each_viewpoint_is_an_interface_and_each_drop_has_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pcapng");
    let inside = || Viewpoint::Inside(InterfaceName::new("vx0").unwrap());
    let dropped = || Some(CaptureRemark::Dropped("replay".to_owned()));
    let report = write(&path, 100_000, |queue| {
        queue.put(packet(inside(), Layer::Ethernet, None));
        queue.put(packet(Viewpoint::Outside, Layer::Ip, dropped()));
        queue.put(packet(inside(), Layer::Ethernet, Some(CaptureRemark::InClear)));
        queue.lose(Viewpoint::Outside);
        queue.lose(Viewpoint::IkePlain);
    });
    assert_eq!((report.packets, report.lost, report.ending), (3, 2, Some(Ending::Stopped)));
    let (mut interfaces, mut remarks, mut statistics) = (Vec::new(), Vec::new(), Vec::new());
    for block in blocks(&path) {
        match block {
            Block::InterfaceDescription(block) => {
                let name = block.options.into_iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                    _ => None,
                });
                interfaces.push((name.unwrap(), block.linktype));
            }
            Block::EnhancedPacket(block) => {
                assert_eq!((block.data.len(), block.original_len), (60, 1400));
                assert_eq!(block.timestamp, Duration::new(1_700_000_000, 5));
                remarks.extend(block.options.into_iter().filter_map(|option| match option {
                    EnhancedPacketOption::Comment(remark) => Some((block.interface_id, remark.into_owned())),
                    _ => None,
                }));
            }
            Block::InterfaceStatistics(block) => {
                let lost = block.options.iter().find_map(|option| match option {
                    InterfaceStatisticsOption::IsbIfDrop(lost) => Some(*lost),
                    _ => None,
                });
                statistics.push((block.interface_id, lost.unwrap()));
            }
            other => panic!("{other:?}"),
        }
    }
    let named = |name: &str, linktype| (name.to_owned(), linktype);
    let expected =
        [named("outside", DataLink::RAW), named("ike-plain", DataLink::RAW), named("vx0", DataLink::ETHERNET)];
    assert_eq!(interfaces, expected);
    let remark = |interface, text: &str| (interface, text.to_owned());
    let expected = [remark(0, "dropped: replay (SA c0000001 of net of gw)"), remark(2, "in clear: no SA protects it")];
    assert_eq!(remarks, expected);
    statistics.sort_unstable();
    assert_eq!(statistics, [(0, 1), (1, 1), (2, 0)]);
}

#[test]
fn a_file_gets_no_longer_than_it_may_and_what_comes_late_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pcapng");
    let report = write(&path, 4096, |queue| {
        (0..500).for_each(|_| queue.put(packet(Viewpoint::Outside, Layer::Ip, None)));
    });
    let len = std::fs::metadata(&path).unwrap().len();
    assert_eq!((report.ending, report.packets + report.lost), (Some(Ending::Full), 500));
    assert!(report.packets > 20 && len <= 4096, "{} packets in {len} octets", report.packets);
    // Two interfaces are described, and have statistics.
    assert_eq!(blocks(&path).len(), 4 + usize::try_from(report.packets).unwrap());
}

#[test]
fn a_disk_that_is_full_ends_the_capture() {
    let report = write(Path::new("/dev/full"), 1 << 20, |queue| {
        (0..500).for_each(|_| queue.put(packet(Viewpoint::Outside, Layer::Ip, None)));
    });
    assert!(matches!(report.ending, Some(Ending::Failed(_))), "{report:?}");
}
