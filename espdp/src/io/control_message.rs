//! Control messages (cmsg): what travels beside a datagram through `sendmsg` and `recvmsg`.
//!
//! ```text
//! ┌────────────┬─────────────┬────────────┬─────────────────────────┬─────────┐
//! │ length     │ level       │ type       │ data                    │ padding │ next message …
//! │ usize      │ i32         │ i32        │ length - 16 octets      │ to 8    │
//! └────────────┴─────────────┴────────────┴─────────────────────────┴─────────┘
//!  in the machine's byte order; length counts itself, level, type and data; sizes as on 64-bit machines
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the kernel says about a received datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// The address it was sent to (`IP_PKTINFO`, `IPV6_PKTINFO`).
    pub(crate) local: Option<IpAddr>,
    /// DSCP and ECN (`IP_TOS`, `IPV6_TCLASS`); 0 when the socket does not ask for it.
    pub(crate) traffic_class: u8,
    /// Time to live or hop limit (`IP_TTL`, `IPV6_HOPLIMIT`).
    pub(crate) hop_limit: Option<u8>,
    /// Octets of each datagram when several were received in one piece (`UDP_GRO`).
    pub(crate) segment: Option<usize>,
    /// The VLAN tag that the kernel took out of a frame, as it was on the wire (`PACKET_AUXDATA`).
    pub(crate) vlan_tag: Option<[u8; 4]>,
}

/// What we tell the kernel about a datagram to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    /// The source address.
    pub(crate) source: IpAddr,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// Time to live or hop limit; `None`: the system's.
    pub(crate) hop_limit: Option<u8>,
    /// Flow label of IPv6, 20 bits.
    pub(crate) flow_label: u32,
    /// Octets of each datagram when what is sent stands for several (`UDP_SEGMENT`).
    pub(crate) segment: Option<u16>,
}

impl Sending {
    /// An ordinary datagram from this address.
    pub(crate) fn from(source: IpAddr) -> Self {
        Self { source, traffic_class: 0, hop_limit: None, flow_label: 0, segment: None }
    }
}

/// Room for the control messages of one datagram.
#[repr(C, align(8))]
#[derive(Debug)]
pub(crate) struct ControlBuffer {
    octets: [u8; Self::SIZE],
}

impl ControlBuffer {
    /// Addresses of IPv6 take most: 16 + 20 octets and padding; traffic class, hop limit, flow label and segment size 24 each.
    /// That makes 136, and some more may come in.
    pub(crate) const SIZE: usize = 192;

    pub(crate) fn new() -> Self {
        Self { octets: [0; Self::SIZE] }
    }

    /// All of it, for the kernel to write into.
    pub(crate) fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.octets
    }

    /// Reads the messages that the kernel wrote in the first `len` octets; unknown ones are skipped.
    pub(crate) fn decode(&self, len: usize) -> Received {
        let mut received = Received::default();
        let mut rest = self.octets.get(..len).unwrap_or(&self.octets);
        while let Some((level, kind, data, next)) = split_message(rest) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // struct in_pktinfo: interface index, our address for replies, the address in the header.
                    received.local = array::<4>(data, 8).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    received.local = array::<16>(data, 0).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    received.traffic_class = data.first().copied().unwrap_or_default();
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class = array::<4>(data, 0).map(i32::from_ne_bytes);
                    received.traffic_class = class.and_then(|class| u8::try_from(class).ok()).unwrap_or_default();
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    let hops = array::<4>(data, 0).map(i32::from_ne_bytes);
                    received.hop_limit = hops.and_then(|hops| u8::try_from(hops).ok());
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment = array::<4>(data, 0).map(i32::from_ne_bytes);
                    received.segment = segment.and_then(|octets| usize::try_from(octets).ok());
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => received.vlan_tag = vlan_tag(data),
                _ => {}
            }
            rest = next;
        }
        received
    }

    /// Writes the messages for one datagram and returns them.
    pub(crate) fn encode(&mut self, sending: &Sending) -> &[u8] {
        let class = i32::from(sending.traffic_class).to_ne_bytes();
        let mut used = match sending.source {
            IpAddr::V4(source) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&source.octets());
                let used = self.put(0, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                self.put(used, libc::IPPROTO_IP, libc::IP_TOS, &class)
            }
            IpAddr::V6(source) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&source.octets());
                let used = self.put(0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
                self.put(used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class)
            }
        };
        if let Some(hops) = sending.hop_limit {
            // Zero would be a packet that ends here, and the kernel refuses it.
            let hops = i32::from(hops.max(1)).to_ne_bytes();
            used = match sending.source {
                IpAddr::V4(_) => self.put(used, libc::IPPROTO_IP, libc::IP_TTL, &hops),
                IpAddr::V6(_) => self.put(used, libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &hops),
            };
        }
        if sending.source.is_ipv6() && sending.flow_label != 0 {
            used = self.put(used, libc::IPPROTO_IPV6, libc::IPV6_FLOWINFO, &sending.flow_label.to_be_bytes());
        }
        if let Some(segment) = sending.segment {
            used = self.put(used, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        &self.octets[..used]
    }

    /// Writes one message at `at` and says where the next one goes.
    fn put(&mut self, at: usize, level: i32, kind: i32, data: &[u8]) -> usize {
        let next = at + HEADER + data.len().next_multiple_of(ALIGNMENT);
        let message = &mut self.octets[at..next];
        message[..LENGTH].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        message[LENGTH..LENGTH + 4].copy_from_slice(&level.to_ne_bytes());
        message[LENGTH + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER..HEADER + data.len()].copy_from_slice(data);
        message[HEADER + data.len()..].fill(0);
        next
    }
}

/// Octets of the length field.
const LENGTH: usize = size_of::<usize>();
/// Octets of length, level and type.
const HEADER: usize = LENGTH + 8;
/// Messages start at multiples of this.
const ALIGNMENT: usize = size_of::<usize>();

/// Level, type, data and what follows; `None` when there is no whole message any more.
fn split_message(octets: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let len = usize::from_ne_bytes(octets.first_chunk().copied()?);
    let level = i32::from_ne_bytes(array(octets, LENGTH)?);
    let kind = i32::from_ne_bytes(array(octets, LENGTH + 4)?);
    let data = octets.get(HEADER..len)?;
    let next = octets.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    Some((level, kind, data, next))
}

fn array<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}

/// The tag that a `struct tpacket_auxdata` speaks of: status, two lengths of 4 octets, two offsets of 2, then the tag's
/// content and its EtherType, which is 0x8100 unless the status says that it is given.
fn vlan_tag(auxdata: &[u8]) -> Option<[u8; 4]> {
    let status = u32::from_ne_bytes(array::<4>(auxdata, 0)?);
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let [tci0, tci1] = u16::from_ne_bytes(array::<2>(auxdata, 16)?).to_be_bytes();
    let is_given = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let tpid = if is_given { u16::from_ne_bytes(array::<2>(auxdata, 18)?) } else { 0x8100 };
    let [tpid0, tpid1] = tpid.to_be_bytes();
    Some([tpid0, tpid1, tci0, tci1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_where_their_length_says() {
        let mut buffer = ControlBuffer::new();
        let source = IpAddr::V6("2001:db8::1".parse().unwrap());
        let octets = {
            let sending = Sending { traffic_class: 0xb9, segment: Some(1400), ..Sending::from(source) };
            buffer.encode(&Sending { hop_limit: Some(9), flow_label: 0xf_edcb, ..sending }).to_vec()
        };
        let (level, kind, data, rest) = split_message(&octets).unwrap();
        assert_eq!((level, kind, data.len()), (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20));
        let (level, kind, data, rest) = split_message(rest).unwrap();
        assert_eq!((level, kind, data), (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &0xb9i32.to_ne_bytes()[..]));
        let (level, kind, data, rest) = split_message(rest).unwrap();
        assert_eq!((level, kind, data), (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &9i32.to_ne_bytes()[..]));
        let (level, kind, data, rest) = split_message(rest).unwrap();
        assert_eq!((level, kind, data), (libc::IPPROTO_IPV6, libc::IPV6_FLOWINFO, &[0, 0x0f, 0xed, 0xcb][..]));
        let (level, kind, data, rest) = split_message(rest).unwrap();
        assert_eq!((level, kind, data), (libc::SOL_UDP, libc::UDP_SEGMENT, &1400u16.to_ne_bytes()[..]));
        assert_eq!(split_message(rest), None);
    }

    #[test]
    fn a_message_longer_than_the_buffer_or_shorter_than_its_header_ends_the_list() {
        for len in [0, HEADER - 1, HEADER + 1000, usize::MAX] {
            let mut buffer = ControlBuffer::new();
            buffer.octets_mut()[..LENGTH].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(buffer.decode(ControlBuffer::SIZE), Received::default(), "{len}");
        }
    }

    #[test]
    fn a_segment_size_is_read_as_the_kernel_writes_it() {
        let mut buffer = ControlBuffer::new();
        let used = buffer.put(0, libc::SOL_UDP, libc::UDP_GRO, &1452i32.to_ne_bytes());
        let used = buffer.put(used, libc::IPPROTO_IP, libc::IP_TOS, &[3]);
        assert_eq!(
            buffer.decode(used),
            Received { local: None, traffic_class: 3, hop_limit: None, segment: Some(1452), vlan_tag: None }
        );
    }

    #[test]
    fn a_vlan_tag_is_read_as_it_was_on_the_wire() {
        let auxdata = |status: u32, tci: u16, tpid: u16| {
            let [head, tail] = [status.to_ne_bytes(), [0; 4]];
            [&head[..], &tail, &tail, &tail, &tci.to_ne_bytes(), &tpid.to_ne_bytes()].concat()
        };
        let valid = libc::TP_STATUS_VLAN_VALID;
        assert_eq!(vlan_tag(&auxdata(0, 7, 0x88a8)), None);
        assert_eq!(vlan_tag(&auxdata(valid, 0x2007, 0x88a8)), Some([0x81, 0, 0x20, 7]));
        let both = valid | libc::TP_STATUS_VLAN_TPID_VALID;
        assert_eq!(vlan_tag(&auxdata(both, 7, 0x88a8)), Some([0x88, 0xa8, 0, 7]));
        assert_eq!(vlan_tag(&auxdata(both, 7, 0x88a8)[..18]), None);
    }
}
