//! The keys of `[conn.NAME]` and `[conn.NAME.child.CHILD]` that are about the shape of packets.

use std::ops::RangeInclusive;
use std::time::Duration;

use espdp_api::{
    DfPolicy, DscpPolicy, FlowLabelPolicy, FragmentPolicy, HopLimitPolicy, MssPolicy, PacketShape, PaddingPolicy,
    PathMtuPolicy,
};

use super::item::Item;
use super::keys::Key;
use super::source::Complaint;

/// The keys about the shape of packets; they stand beside [`super::child_keys::CHILD_KEYS`].
pub(super) const SHAPE_KEYS: &[Key<PacketShape>] = &[
    Key {
        name: "df",
        also_called: &[],
        takes: "`copy`, `set` or `clear`",
        default: "\"set\"",
        doc: "Don't Fragment of the outer header. `set` fits the computed MTU of the interface.",
        set: |shape, item| {
            shape.df = item.choice(&[("copy", DfPolicy::Copy), ("set", DfPolicy::Set), ("clear", DfPolicy::Clear)])?;
            Ok(())
        },
    },
    Key {
        name: "dscp",
        also_called: &[],
        takes: "`copy`, or 0 to 63",
        default: "\"copy\"",
        doc: "DSCP of the outer header: that of the inner packet, or always the same.",
        set: |shape, item| {
            shape.dscp = number_or(item, &[("copy", DscpPolicy::Copy)], 0..=63, |value| {
                DscpPolicy::Fixed(u8::try_from(value).unwrap_or(u8::MAX))
            })?;
            Ok(())
        },
    },
    Key {
        name: "ttl",
        also_called: &["hoplimit"],
        takes: "`copy`, or 1 to 255",
        default: "64",
        doc: "Time to live, or hop limit, of the outer header in tunnel mode: that of the inner packet, or always the same.",
        set: |shape, item| {
            let copy = [("copy", HopLimitPolicy::Copy)];
            shape.hop_limit = number_or(item, &copy, 1..=255, |hops| HopLimitPolicy::Fixed(octet(hops)))?;
            Ok(())
        },
    },
    Key {
        name: "flowlabel",
        also_called: &[],
        takes: "`zero`, `copy` or `hash`",
        default: "\"zero\"",
        doc: "Flow label of an outer IPv6 header in tunnel mode: `zero` tells nothing about the inner flows, `copy` has that of the \
              inner packet, `hash` gives each inner flow one of its own, so that routers can spread the flows (RFC 6438).",
        set: |shape, item| {
            shape.flow_label = item.choice(&[
                ("zero", FlowLabelPolicy::Zero),
                ("copy", FlowLabelPolicy::Copy),
                ("hash", FlowLabelPolicy::Hash),
            ])?;
            Ok(())
        },
    },
    Key {
        name: "tfc",
        also_called: &[],
        takes: "`none`, `mtu`, or octets",
        default: "\"none\"",
        doc: "Hides the length of packets in tunnel mode (RFC 4303 §2.7): inner packets are filled up to so many octets, or to what \
              the path carries. Not with peers that say that they cannot cut the filling off.",
        set: |shape, item| {
            let words = [("none", PaddingPolicy::None), ("mtu", PaddingPolicy::ToPathMtu)];
            shape.padding = number_or(item, &words, 1..=u16::MAX, PaddingPolicy::To)?;
            Ok(())
        },
    },
    Key {
        name: "dummy",
        also_called: &[],
        takes: "`none`, or a length of time",
        default: "\"none\"",
        doc: "Hides silence (RFC 4303 §2.6): an SA that had nothing to send for so long sends a packet that the peer drops.",
        set: |shape, item| {
            shape.dummy_interval = if matches!(item.text("a length of time"), Ok(text) if text.as_str() == "none") {
                None
            } else {
                let interval = item.duration()?;
                if interval.value < SHORTEST_SILENCE {
                    let complaint = Complaint::new(interval.span, "dummy packets would come without a pause");
                    return Err(complaint.expected(format!("expected {SHORTEST_SILENCE:?} or more")).into());
                }
                Some(interval.value)
            };
            Ok(())
        },
    },
    Key {
        name: "mss",
        also_called: &[],
        takes: "`auto`, `keep`, or octets",
        default: "\"auto\"",
        doc: "The maximum segment size that TCP announces through the tunnel, in both directions, is lowered to what the path \
              carries, or to so many octets. It is never raised.",
        set: |shape, item| {
            let words = [("auto", MssPolicy::Automatic), ("keep", MssPolicy::Keep)];
            shape.mss = number_or(item, &words, 88..=u16::MAX, MssPolicy::AtMost)?;
            Ok(())
        },
    },
    Key {
        name: "fragment",
        also_called: &[],
        takes: "`before` or `after`",
        default: "\"before\"",
        doc: "What becomes of packets that are longer than the path carries. `before`: IPv4 packets without DF are fragmented, then \
              encrypted; the senders of others are told what fits. `after`: ESP packets are fragmented, and the peer reassembles.",
        set: |shape, item| {
            shape.fragment = item.choice(&[("before", FragmentPolicy::Before), ("after", FragmentPolicy::After)])?;
            Ok(())
        },
    },
    Key {
        name: "pmtu",
        also_called: &[],
        takes: "`learn`, `ignore`, or octets",
        default: "\"learn\"",
        doc: "What is believed about the path to the peer. `learn`: what ICMP messages say, which anybody can forge; but never less \
              than 576 octets with IPv4 and 1280 with IPv6, and for ten minutes. `ignore`: only what the route or its link says. \
              Otherwise the path carries packets of so many octets, outer header included.",
        set: |shape, item| {
            let words = [("learn", PathMtuPolicy::Learn), ("ignore", PathMtuPolicy::Ignore)];
            shape.path_mtu = number_or(item, &words, 576..=u16::MAX, PathMtuPolicy::Fixed)?;
            Ok(())
        },
    },
];

/// One of a few words, or a number in `range`.
pub(super) fn number_or<T: Copy>(
    item: Item<'_>,
    words: &[(&str, T)],
    range: RangeInclusive<u16>,
    number: impl Fn(u16) -> T,
) -> Result<T, Complaint> {
    if item.text("a word").is_ok() {
        return item.choice(words);
    }
    let list = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let wanted = format!("{list} or a number from {} to {}", range.start(), range.end());
    let value = item
        .integer(u64::from(*range.start())..=u64::from(*range.end()))
        .map_err(|complaint| complaint.expected(format!("expected {wanted}")))?;
    Ok(number(u16::try_from(value).map_err(|_| item.wrong_type(wanted))?))
}

/// A number that was checked to be no more than an octet holds.
fn octet(value: u16) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// The least time between two dummy packets.
const SHORTEST_SILENCE: Duration = Duration::from_millis(10);
