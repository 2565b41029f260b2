//! Captures of two daemons with a mistake between them.

use std::borrow::Cow;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use espdp_api::IkePath;
use etherparse::PacketBuilder;
use ike_proto::io::FailureCode;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};

use super::*;
use crate::daemon::tests::misconfigured::Who::{Moon, Sun};
use crate::daemon::tests::misconfigured::{Act, Edit, Row, attempt};
use crate::daemon::tests::pair::Pair;

/// Messages on the wire, in order.
type Seen = Vec<(IkePath, Vec<u8>)>;

/// Whether a message gets lost; it is captured all the same.
type Loses = fn(IkePath, &[u8]) -> bool;

/// What two gateways with these mistakes say to each other, and the folder with their keys.
async fn captured(edits: &'static [Edit], act: Act, lost: Loses) -> (Seen, tempfile::TempDir) {
    let mut pair = Pair::bare();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let tap = Arc::clone(&seen);
    pair.lose(move |path, message| {
        tap.lock().unwrap().push((path, message.to_vec()));
        lost(path, message)
    });
    attempt(&pair, &Row { what: "a capture", edits, said: &[], cured_by: None }, act);
    let seen = seen.lock().unwrap().clone();
    // Keys are written by a thread of their own, for which the daemon waits at its end.
    let folder = std::mem::replace(&mut pair.moon.folder, tempfile::tempdir().unwrap());
    pair.moon.shut_down().await;
    std::fs::copy(folder.path().join("keys/ikev2_decryption_table"), folder.path().join("ikev2_decryption_table"))
        .unwrap();
    (seen, folder)
}

/// The datagram of a message as IP carries it.
fn packet((path, message): &(IkePath, Vec<u8>)) -> Vec<u8> {
    let (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) = (path.local.ip(), path.remote.ip()) else {
        panic!("the gateways speak IPv4");
    };
    let builder =
        PacketBuilder::ipv4(source.octets(), destination.octets(), 64).udp(path.local.port(), path.remote.port());
    let marker: &[u8] = if path.local.port() == 4500 { &[0; 4] } else { &[] };
    let payload = [marker, message].concat();
    let mut packet = Vec::new();
    builder.write(&mut packet, &payload).unwrap();
    packet
}

/// A file with these packets, each a millisecond after the one before.
fn pcap(folder: &Path, packets: &[Vec<u8>]) -> PathBuf {
    let file = folder.join("ike.pcap");
    let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(&file).unwrap(), header).unwrap();
    for (number, packet) in packets.iter().enumerate() {
        let at = Duration::from_millis(1_800_000_000_000 + u64::try_from(number).unwrap());
        let length = u32::try_from(packet.len()).unwrap();
        writer.write_packet(&PcapPacket { timestamp: at, orig_len: length, data: Cow::Borrowed(packet) }).unwrap();
    }
    file
}

fn packets(seen: &Seen) -> Vec<Vec<u8>> {
    seen.iter().map(packet).collect()
}

fn shown(file: &Path, keys: Option<&Path>) -> String {
    let mut out = Vec::new();
    assert_eq!(explain(file, keys, false, &mut out).unwrap(), Outcome::Done);
    String::from_utf8(out).unwrap()
}

fn expect(shown: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(shown.contains(wanted), "`{wanted}` is not in:\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_it_is_told_what_can_be_told() {
    let wrong_key: &[Edit] = &[(Sun, "psk", "[secret.site]\npsk = \"wrong\"\n")];
    let other_group: &[Edit] = &[(Moon, "ike", "\"aes256gcm16-prfsha256-modp2048\"")];
    let nothing: Loses = |_, _| false;
    let table: [(&[Edit], Loses, FailureCode, &str); 5] = [
        (wrong_key, nothing, FailureCode::AuthRefusedByPeer, "room for an error notification only"),
        (other_group, nothing, FailureCode::IkeNoProposal, "proposal IKE:AES_GCM_16_256/PRF_HMAC_SHA2_256/MODP_2048"),
        (&[], |_, _| true, FailureCode::PeerSilent, "again 1 time(s)"),
        (&[], |path, _| path.remote.port() == 4500, FailureCode::NatPortSilent, "UDP port 4500 is not answered"),
        (
            &[],
            |path, _| path.local.ip() == std::net::IpAddr::from([192, 0, 2, 2]),
            FailureCode::PeerGaveUp,
            "did not go on",
        ),
    ];
    for (edits, lost, code, said) in table {
        let (seen, folder) = captured(edits, Act::Up, lost).await;
        let text = shown(&pcap(folder.path(), &packets(&seen)), None);
        expect(
            &text,
            &["192.0.2.1 -> 192.0.2.2, SPI ", code.name(), said, "500 --> 500  IKE_SA_INIT request 0 [ SA KE No "],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_it_is_told_what_is_inside() {
    let table: [(&[Edit], Act, FailureCode, &[&str]); 4] = [
        (
            &[(Sun, "psk", "[secret.site]\npsk = \"wrong\"\n")],
            Act::Up,
            FailureCode::AuthRefusedByPeer,
            &["IDi moon.example.org", "AUTH by ", "IKE_AUTH response 1 [ N(AUTH_FAILED) ]"],
        ),
        (
            &[(Sun, "leftsubnet", "\"10.9.0.0/24\"")],
            Act::Up,
            FailureCode::TsUnacceptable,
            &["TSi 10.1.0.0/24", "TSr 10.2.0.0/24", "IDr sun.example.org"],
        ),
        (&[(Moon, "esp", "\"aes128gcm16\"")], Act::Up, FailureCode::ChildNoProposal, &["proposal ESP:AES_GCM_16_128/"]),
        (
            &[(Moon, "esp", "\"aes256gcm16-x25519\"")],
            Act::Rekey,
            FailureCode::ChildNoProposal,
            &["a Child SA was to be replaced", "(PFS)", "CREATE_CHILD_SA response"],
        ),
    ];
    for (edits, act, code, said) in table {
        let (seen, folder) = captured(edits, act, |_, _| false).await;
        let text = shown(&pcap(folder.path(), &packets(&seen)), Some(folder.path()));
        expect(&text, &[code.name()]);
        expect(&text, said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_attempts_in_one_capture_explain_each_other() {
    let (mut seen, folder) = captured(&[], Act::Up, |_, _| false).await;
    let (refused, _keys) = captured(&[(Moon, "ike", "\"aes256gcm16-prfsha384-x25519\"")], Act::Up, |_, _| false).await;
    seen.extend(refused);
    let text = shown(&pcap(folder.path(), &packets(&seen)), Some(folder.path()));
    expect(
        &text,
        &[
            "no failure",
            "the IKE SA came up, as far as can be seen; there are no ESP packets",
            "nearest to what it has elsewhere in this capture: for PRF, PRF_HMAC_SHA2_384 is offered, it has PRF_HMAC_SHA2_256",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn esp_that_goes_one_way_only_is_seen() {
    let (seen, folder) = captured(&[], Act::Up, |_, _| false).await;
    let mut packets = packets(&seen);
    for number in 0..3u8 {
        let mut esp = Vec::new();
        let body = [&[0xc0, 1, 2, 3, 0, 0, 0, number], &[0x55; 40][..]].concat();
        PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .write(&mut esp, etherparse::IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &body)
            .unwrap();
        packets.push(esp);
    }
    let text = shown(&pcap(folder.path(), &packets), None);
    expect(&text, &["ESP goes one way only: 3 packets there, 0 back"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pcapng_ethernet_and_fragments_of_ip_are_read_as_well() {
    let (seen, folder) = captured(&[(Moon, "ike", "\"aes256gcm16-prfsha256-modp2048\"")], Act::Up, |_, _| false).await;
    let file = folder.path().join("ike.pcapng");
    let mut writer = PcapNgWriter::new(File::create(&file).unwrap()).unwrap();
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 65535)).unwrap();
    let mut write = |packet: &[u8]| {
        let frame = [&[2; 6][..], &[4; 6], &[0x08, 0x00], packet].concat();
        // Microseconds, which is what interfaces have that say nothing else.
        let (timestamp, original_len) =
            (Duration::from_nanos(1_800_000_000_000_000), u32::try_from(frame.len()).unwrap());
        let block =
            EnhancedPacketBlock { interface_id: 0, timestamp, original_len, data: Cow::Owned(frame), options: vec![] };
        writer.write_pcapng_block(block).unwrap();
    };
    for (number, packet) in packets(&seen).iter().enumerate() {
        if number == 0 {
            fragments(packet).iter().for_each(|fragment| write(fragment));
        } else {
            write(packet);
        }
    }
    drop(writer);
    let text = shown(&file, None);
    expect(&text, &["IKE_NO_PROPOSAL", "in IP fragments", "2027-01-1"]);
}

#[test]
fn of_ike_that_was_captured_twice_the_one_that_can_be_looked_into_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("twice.pcapng");
    let all = ["outside", "ike-plain", "vx0"];
    let table: [(bool, &[&str], &[&str]); 7] = [
        (false, &all, &["vx0", "ike-plain"]),
        (true, &all, &["vx0", "outside"]),
        // What goes through a tunnel is somebody else's.
        (false, &["vx0", "ike-plain"], &["vx0", "ike-plain"]),
        (true, &["vx0", "ike-plain"], &["vx0", "ike-plain"]),
        (false, &["outside", "vx0"], &["vx0", "outside"]),
        (true, &["outside", "vx0"], &["vx0", "outside"]),
        (false, &["eth0", "vx0"], &["eth0", "vx0"]),
    ];
    for (has_keys, interfaces, expected) in table {
        let mut writer = PcapNgWriter::new(File::create(&file).unwrap()).unwrap();
        for (name, interface_id) in interfaces.iter().zip(0..) {
            let mut interface = InterfaceDescriptionBlock::new(DataLink::RAW, 65535);
            interface.options.push(InterfaceDescriptionOption::IfName(Cow::Borrowed(name)));
            writer.write_pcapng_block(interface).unwrap();
            let mut packet = Vec::new();
            let builder = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).udp(500, 500);
            builder.write(&mut packet, name.as_bytes()).unwrap();
            let (timestamp, original_len) = (Duration::ZERO, u32::try_from(packet.len()).unwrap());
            let data = Cow::Owned(packet);
            let block = EnhancedPacketBlock { interface_id, timestamp, original_len, data, options: vec![] };
            writer.write_pcapng_block(block).unwrap();
        }
        drop(writer);
        let mut read = Vec::new();
        frames::read(&file, has_keys, |found| match found {
            Found::Ike(captured) => read.push(String::from_utf8(captured.message).unwrap()),
            Found::Esp { .. } => panic!("there is no ESP"),
        })
        .unwrap();
        assert_eq!(read, expected, "keys: {has_keys}, interfaces: {interfaces:?}");
    }
}

/// An IPv4 packet in two fragments.
fn fragments(packet: &[u8]) -> [Vec<u8>; 2] {
    let (header, payload) = packet.split_at(20);
    let cut = 64;
    [(0u16, &payload[..cut], 0x2000u16), (64 / 8, &payload[cut..], 0)].map(|(offset, part, more)| {
        let mut fragment = [header, part].concat();
        let length = u16::try_from(fragment.len()).unwrap();
        fragment[2..4].copy_from_slice(&length.to_be_bytes());
        fragment[4..6].copy_from_slice(&7u16.to_be_bytes());
        fragment[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        fragment
    })
}

#[test]
fn what_is_no_capture_is_refused_and_noise_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nothing.pcap");
    std::fs::write(&file, b"this is no capture").unwrap();
    assert_eq!(explain(&file, None, false, &mut Vec::new()).unwrap(), Outcome::Failed);
    assert_eq!(explain(&folder.path().join("missing"), None, true, &mut Vec::new()).unwrap(), Outcome::Failed);
    let path = IkePath { local: "192.0.2.1:500".parse().unwrap(), remote: "192.0.2.2:500".parse().unwrap() };
    let noise: Seen = vec![(path, vec![0xff; 20]), (path, vec![]), (path, vec![0x20; 300])];
    let text = shown(&pcap(folder.path(), &packets(&noise)), None);
    expect(&text, &["no IKEv2 messages", "3 datagrams on these ports are no IKEv2 messages"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_json() {
    let (seen, folder) = captured(&[(Sun, "psk", "# none\n")], Act::Up, |_, _| false).await;
    let mut out = Vec::new();
    explain(&pcap(folder.path(), &packets(&seen)), Some(folder.path()), true, &mut out).unwrap();
    let value: Value = serde_json::from_slice(&out).unwrap();
    let first = &value["conversations"][0];
    assert_eq!((&first["code"], &first["responder"]), (&json!("AUTH_REFUSED_BY_PEER"), &json!("192.0.2.2:500")));
    assert!(first["steps"].as_array().is_some_and(|steps| steps.len() == 4), "{first}");
}
