//! The keys of `[conn.NAME]` and `[conn.NAME.child.CHILD]` that are about the shape of packets.

use std::ops::RangeInclusive;

use espdp_api::{DfPolicy, DscpPolicy, PacketShape};

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
