//! Programs for a packet socket's filter (classic BPF): which frames the kernel passes on.

use socket2::SockFilter;

/// Every frame of the interface with this number.
pub(super) fn everything(interface: u32) -> Vec<SockFilter> {
    assemble(&[
        (Label::Start, &[load(WORD, INTERFACE), if_equal(interface, Label::Pass, Label::Drop)]),
        (Label::Pass, &[give(u32::MAX)]),
        (Label::Drop, &[give(0)]),
    ])
}

/// Every frame of the interface that is not ESP between IP addresses, by itself or on UDP port 4500.
///
/// Frames are Ethernet's: the type stands at 12, an IPv4 header at 14 has its fragment offset at 20 and its protocol at 23,
/// an IPv6 header its next header at 20 and the payload at 54.
pub(super) fn all_but_esp(interface: u32) -> Vec<SockFilter> {
    assemble(&[
        (
            Label::Start,
            &[
                load(WORD, INTERFACE),
                if_equal(interface, Label::Next, Label::Drop),
                load(HALF, 12),
                if_equal(ETHERTYPE_IPV4, Label::Ipv4, Label::Next),
                if_equal(ETHERTYPE_IPV6, Label::Ipv6, Label::Pass),
            ],
        ),
        (
            Label::Ipv4,
            &[
                load(BYTE, 23),
                if_equal(PROTOCOL_ESP, Label::Drop, Label::Next),
                if_equal(PROTOCOL_UDP, Label::Next, Label::Pass),
                load(HALF, 20),
                if_any(0x1fff, Label::Pass, Label::Next),
                Op { code: LDX_IPV4_HEADER_LENGTH, ..load(BYTE, 14) },
                load(HALF_AFTER_X, 14 + UDP_PORT),
                if_equal(PORT_NAT, Label::Next, Label::Pass),
                load(HALF_AFTER_X, 14 + UDP_LENGTH),
                if_at_least(UDP_WITH_MARKER, Label::Next, Label::Pass),
                load(WORD_AFTER_X, 14 + UDP_PAYLOAD),
                // Four zero octets come before IKE (RFC 3948 §2.2).
                if_equal(0, Label::Pass, Label::Drop),
            ],
        ),
        (
            Label::Ipv6,
            &[
                load(BYTE, 20),
                if_equal(PROTOCOL_ESP, Label::Drop, Label::Next),
                if_equal(PROTOCOL_UDP, Label::Next, Label::Pass),
                load(HALF, 54 + UDP_PORT),
                if_equal(PORT_NAT, Label::Next, Label::Pass),
                load(HALF, 54 + UDP_LENGTH),
                if_at_least(UDP_WITH_MARKER, Label::Next, Label::Pass),
                load(WORD, 54 + UDP_PAYLOAD),
                if_equal(0, Label::Pass, Label::Drop),
            ],
        ),
        (Label::Pass, &[give(u32::MAX)]),
        (Label::Drop, &[give(0)]),
    ])
}

/// An operation whose jumps still have names.
#[derive(Clone, Copy)]
struct Op {
    code: u16,
    operand: u32,
    then: Label,
    otherwise: Label,
}

/// Where a jump leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Start,
    /// The operation that follows.
    Next,
    Ipv4,
    Ipv6,
    Pass,
    Drop,
}

/// Turns names into distances, which count from the operation after the jump.
fn assemble(blocks: &[(Label, &[Op])]) -> Vec<SockFilter> {
    let start_of = |label: Label| {
        blocks.iter().take_while(|(name, _)| *name != label).map(|(_, operations)| operations.len()).sum::<usize>()
    };
    let operations = blocks.iter().flat_map(|(_, operations)| operations.iter());
    let filter = operations.enumerate().map(|(at, op)| {
        let distance = |label: Label| {
            let target = if label == Label::Next { at.saturating_add(1) } else { start_of(label) };
            u8::try_from(target.saturating_sub(at.saturating_add(1))).unwrap_or(u8::MAX)
        };
        SockFilter::new(op.code, distance(op.then), distance(op.otherwise), op.operand)
    });
    filter.collect()
}

const fn load(code: u16, place: u32) -> Op {
    Op { code, operand: place, then: Label::Next, otherwise: Label::Next }
}

const fn if_equal(operand: u32, then: Label, otherwise: Label) -> Op {
    Op { code: JUMP_EQUAL, operand, then, otherwise }
}

const fn if_at_least(operand: u32, then: Label, otherwise: Label) -> Op {
    Op { code: JUMP_AT_LEAST, operand, then, otherwise }
}

const fn if_any(bits: u32, then: Label, otherwise: Label) -> Op {
    Op { code: JUMP_ANY_BIT, operand: bits, then, otherwise }
}

/// Passes on this many octets.
const fn give(octets: u32) -> Op {
    Op { code: RETURN, operand: octets, then: Label::Next, otherwise: Label::Next }
}

// Operation codes (Linux `bpf_common.h`).
const WORD: u16 = 0x20;
const HALF: u16 = 0x28;
const BYTE: u16 = 0x30;
const WORD_AFTER_X: u16 = 0x40;
const HALF_AFTER_X: u16 = 0x48;
const LDX_IPV4_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The place of the interface number: ancillary data at -0x1000, field 8 (Linux `filter.h`).
const INTERFACE: u32 = 0xffff_f008;

const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const PROTOCOL_UDP: u32 = 17;
const PROTOCOL_ESP: u32 = 50;
const PORT_NAT: u32 = 4500;

/// Destination port, length and payload from the start of a UDP header.
const UDP_PORT: u32 = 2;
const UDP_LENGTH: u32 = 4;
const UDP_PAYLOAD: u32 = 8;
/// A UDP header and four octets.
const UDP_WITH_MARKER: u32 = 12;
