//! Longest prefix match over our own routing table and the main one.
//!
//! Linux asks its routing tables one after the other and takes the first answer, however short its prefix is. A table of our own in
//! front of the main one would hide every connected network that lies inside one of our routes. In the main table itself our
//! routes would catch the packets that carry the tunnels, as soon as a route covers a peer's address. So each prefix length among
//! our routes has a pair of rules, the longest first: what the main table knows better counts, then our routes of this length,
//! always without the packets that carry our mark. With 10.0.0.0/8 and a default route that is
//!
//! ```text
//! 4373: not from all fwmark 0x32 lookup main suppress_prefixlength 8
//! 4374: not from all fwmark 0x32 lookup 4301 suppress_prefixlength 7
//! 4375: not from all fwmark 0x32 lookup 4310
//! 4397: not from all fwmark 0x32 lookup main suppress_prefixlength 0
//! 4398: not from all fwmark 0x32 lookup 4301
//! 4399: not from all fwmark 0x32 lookup 4302
//! ```
//!
//! The third rule of a length is there when destinations of that length are to be dropped while our routes are not there. Those
//! have a table for each length, 4310 for a length of 8: a blackhole is an answer that the kernel does not suppress, so in one
//! table for all lengths it would hide what the main table knows better.
//!
//! Of routes of the same length ours is taken. Nothing has to be followed or copied when the main table changes. One thing differs
//! from a single table: a `blackhole`, `unreachable` or `prohibit` route is an answer that the kernel does not suppress, so in
//! the main table it beats our routes inside it, those to single addresses excepted. A null route that is to catch only what no
//! tunnel takes has to lead into a dummy interface.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use espdp_api::IpPrefix;

use crate::{Family, RouteKey, Rule};

/// Where our routes are, and which rules lead there.
#[derive(Clone, Copy, Debug)]
pub struct LongestMatch {
    /// The table of our routes.
    pub table: u32,
    /// The priority of the first of the rules; the last possible one is 386 later.
    pub priority: u32,
    /// Packets with this mark never see our routes.
    pub mark: u32,
}

impl LongestMatch {
    /// The rules that routes to `destinations` need, and blackholes for `dropped`.
    #[must_use]
    pub fn rules(
        &self,
        destinations: impl IntoIterator<Item = IpPrefix>,
        dropped: impl IntoIterator<Item = IpPrefix>,
    ) -> BTreeSet<Rule> {
        let lengths = |prefixes: &mut dyn Iterator<Item = IpPrefix>| -> BTreeSet<(Family, u8)> {
            prefixes.map(|to| (Family::from(to.address()), to.bits())).collect()
        };
        let dropped = lengths(&mut dropped.into_iter());
        let all: BTreeSet<_> = lengths(&mut destinations.into_iter()).union(&dropped).copied().collect();
        let rules = |(family, bits)| {
            self.of_length(family, bits).take(if dropped.contains(&(family, bits)) { 3 } else { 2 }).flatten()
        };
        all.into_iter().flat_map(rules).collect()
    }

    /// Whether a rule is one of those that [`Self::rules`] may give: then it is ours, or was left behind by a predecessor.
    #[must_use]
    pub fn owns(&self, rule: &Rule) -> bool {
        (0..=rule.family.bits()).any(|bits| self.of_length(rule.family, bits).flatten().any(|own| own == *rule))
    }

    /// The blackhole that drops packets to `destination` when our route is not there.
    #[must_use]
    pub fn blackhole(&self, destination: IpPrefix) -> RouteKey {
        RouteKey::new(self.blackhole_table(destination.bits()), destination)
    }

    /// Whether a blackhole is one of ours.
    #[must_use]
    pub fn owns_blackhole(&self, key: &RouteKey) -> bool {
        key.table == self.blackhole_table(key.destination.bits())
    }

    /// All tables with routes of ours: theirs, and one of blackholes for each length.
    #[must_use]
    pub fn tables(&self) -> RangeInclusive<u32> {
        self.table..=self.blackhole_table(Family::V6.bits())
    }

    fn blackhole_table(&self, bits: u8) -> u32 {
        self.table.saturating_add(1).saturating_add(bits.into())
    }

    /// The rules for routes with a prefix of `bits`: what the main table knows better (nothing is better than a single
    /// address), our routes, our blackholes.
    fn of_length(&self, family: Family, bits: u8) -> impl Iterator<Item = Option<Rule>> {
        let places = u32::from(family.bits().saturating_sub(bits)).saturating_mul(3);
        let priority = self.priority.saturating_add(places);
        let rule = |place, table, longer_than| {
            let priority = priority.saturating_add(place);
            Rule { family, priority, table, except_mark: self.mark, longer_than }
        };
        let better = (bits < family.bits()).then(|| rule(0, MAIN_TABLE, Some(bits)));
        let ours = rule(1, self.table, bits.checked_sub(1));
        [better, Some(ours), Some(rule(2, self.blackhole_table(bits), None))].into_iter()
    }
}

/// `RT_TABLE_MAIN` (linux/rtnetlink.h).
const MAIN_TABLE: u32 = 254;

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u32 = 4301;
    const OURS: LongestMatch = LongestMatch { table: TABLE, priority: 4301, mark: 50 };

    fn rules(destinations: &[&str]) -> BTreeSet<Rule> {
        OURS.rules(destinations.iter().map(|text| text.parse().unwrap()), [])
    }

    /// The kernel's algorithm: the first rule whose table has an answer of sufficient length. Tables are lists of the lengths of
    /// those of their prefixes that match the destination.
    fn look_up(rules: &BTreeSet<Rule>, main: &[u8], ours: &[u8]) -> Option<(u32, u8)> {
        let in_table = |rule: &Rule| {
            let lengths = if rule.table == TABLE { ours } else { main };
            let found = *lengths.iter().max()?;
            rule.longer_than.is_none_or(|least| found > least).then_some((rule.table, found))
        };
        rules.iter().find_map(in_table).or_else(|| Some((MAIN_TABLE, *main.iter().max()?)))
    }

    #[test]
    fn the_longest_prefix_of_both_tables_wins_and_ours_among_equals() {
        let rules = rules(&["0.0.0.0/0", "10.0.0.0/8", "10.2.0.0/16", "10.3.0.1/32"]);
        let subsets = |lengths: [u8; 6]| {
            let subset = move |mask: u32| lengths.into_iter().enumerate().filter(move |(at, _)| mask >> at & 1 == 1);
            (0..64).map(move |mask| subset(mask).map(|(_, bits)| bits).collect::<Vec<u8>>())
        };
        for main in subsets([0, 4, 8, 12, 16, 32]) {
            for ours in subsets([0, 0, 8, 8, 16, 32]) {
                let longest = [(TABLE, ours.iter().max()), (MAIN_TABLE, main.iter().max())];
                let expected = longest
                    .into_iter()
                    .filter_map(|(table, bits)| Some((table, *bits?)))
                    .max_by_key(|(table, bits)| (*bits, *table));
                assert_eq!(look_up(&rules, &main, &ours), expected, "main {main:?}, ours {ours:?}");
            }
        }
    }

    #[test]
    fn each_length_in_use_has_one_pair_of_rules_in_its_family() {
        let summary = |rule: &Rule| (rule.family, rule.priority, rule.table, rule.longer_than);
        let found: Vec<_> = rules(&["10.0.0.0/8", "11.0.0.0/8", "0.0.0.0/0", "fd00::/8"]).iter().map(summary).collect();
        assert_eq!(
            found,
            [
                (Family::V4, 4373, MAIN_TABLE, Some(8)),
                (Family::V4, 4374, TABLE, Some(7)),
                (Family::V4, 4397, MAIN_TABLE, Some(0)),
                (Family::V4, 4398, TABLE, None),
                (Family::V6, 4661, MAIN_TABLE, Some(8)),
                (Family::V6, 4662, TABLE, Some(7)),
            ]
        );
        assert!(rules(&[]).is_empty());
    }

    #[test]
    fn a_single_address_does_not_ask_the_main_table() {
        for host in ["192.0.2.2/32", "2001:db8::2/128"] {
            assert_eq!(rules(&[host]).iter().map(|rule| rule.table).collect::<Vec<_>>(), [TABLE]);
        }
    }

    #[test]
    fn without_our_routes_their_packets_are_dropped_and_the_longer_routes_of_others_still_count() {
        let dropped = ["0.0.0.0/0", "10.0.0.0/8", "10.2.0.0/16"].map(|text| text.parse().unwrap());
        let rules = OURS.rules([], dropped);
        // A destination in 10.2.0.0/16, for which there are blackholes of all three lengths, and these in the main table.
        for (main, expected) in [(vec![0], 4301 + 1 + 16), (vec![0, 12], 4301 + 1 + 16), (vec![0, 24], MAIN_TABLE)] {
            let answer = rules.iter().find_map(|rule| match rule.table {
                MAIN_TABLE => main.iter().any(|bits| Some(*bits) > rule.longer_than).then_some(MAIN_TABLE),
                TABLE => None,
                blackholes => Some(blackholes),
            });
            assert_eq!(answer, Some(expected), "{main:?}");
        }
        assert!(rules.iter().all(|rule| OURS.owns(rule)));
        assert!(dropped.iter().all(|to| OURS.owns_blackhole(&OURS.blackhole(*to))));
        assert!(!OURS.owns_blackhole(&RouteKey::new(TABLE, dropped[1])));
    }

    #[test]
    fn no_rule_sees_marked_packets() {
        assert!(rules(&["0.0.0.0/0", "10.3.0.1/32", "fd00::/8"]).iter().all(|rule| rule.except_mark == 50));
    }

    #[test]
    fn rules_of_every_length_are_our_own_and_others_are_not() {
        let own = rules(&["0.0.0.0/0", "10.0.0.0/8", "10.3.0.1/32", "::/0", "fd00::/8", "fd00::1/128"]);
        for rule in own {
            assert!(OURS.owns(&rule), "{rule:?}");
            let others = [
                Rule { priority: rule.priority + 3, ..rule },
                Rule { except_mark: 51, ..rule },
                Rule { table: 4302, ..rule },
                Rule { longer_than: Some(99), ..rule },
            ];
            assert!(!others.iter().any(|other| OURS.owns(other)), "{others:?}");
        }
    }
}
