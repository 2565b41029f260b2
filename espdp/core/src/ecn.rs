//! Explicit congestion notification in tunnels (RFC 6040).

/// The two ECN bits.
pub(crate) const MASK: u8 = 0b11;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The ECN bits of the outgoing inner packet, or `None` when it must be dropped (RFC 6040 §4.2, R6040-4.2-1,
/// R6040-4.2-2). Only the low two bits of the arguments count.
pub(crate) fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        // Whoever marked the packet took it for ECN-capable; without the mark the sender would never slow down.
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) | (CE, _) => Some(CE),
        (ECT_0, ECT_1) | (ECT_1, _) => Some(ECT_1),
        (_, _) => Some(ECT_0),
    }
}

/// The ECN bits of the outer header in normal mode (RFC 6040 §4.1, R6040-4.1-1).
pub(crate) fn encapsulate(inner: u8) -> u8 {
    inner & MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decapsulation_follows_the_whole_table_of_rfc_6040() {
        // Columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer), expected, "inner {inner:02b}, outer {outer:02b}");
                assert_eq!(decapsulate(inner | 0xb8, outer | 0x48), expected);
            }
        }
    }

    #[test]
    fn encapsulation_copies_the_mark() {
        for ecn in [NOT_ECT, ECT_0, ECT_1, CE] {
            assert_eq!(encapsulate(0xb8 | ecn), ecn);
        }
    }
}
