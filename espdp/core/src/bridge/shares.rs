//! How much of a table each port of a domain fills.

use std::collections::BTreeMap;

use crate::InterfaceId;

/// Counts the entries that came by each port. Whoever floods a table fills the share of his own port only.
#[derive(Debug)]
pub(super) struct Shares {
    of_ports: BTreeMap<InterfaceId, usize>,
    total: usize,
    most_of_port: usize,
    most: usize,
}

impl Shares {
    /// Nothing counted yet; at most so many entries are to come by one port, and by all of them.
    pub(super) fn new(most_of_port: usize, most: usize) -> Self {
        Self { of_ports: BTreeMap::new(), total: 0, most_of_port, most }
    }

    /// Whether one more entry may come by this port.
    pub(super) fn has_room(&self, port: InterfaceId) -> bool {
        self.of_port(port) < self.most_of_port && self.total < self.most
    }

    /// One entry has come by this port.
    pub(super) fn add(&mut self, port: InterfaceId) {
        let count = self.of_ports.entry(port).or_default();
        *count = count.saturating_add(1);
        self.total = self.total.saturating_add(1);
    }

    /// One entry that came by this port is gone.
    pub(super) fn remove(&mut self, port: InterfaceId) {
        if let Some(count) = self.of_ports.get_mut(&port).filter(|count| **count > 0) {
            *count = count.saturating_sub(1);
            self.total = self.total.saturating_sub(1);
        }
    }

    /// All entries that came by this port are gone.
    pub(super) fn leave(&mut self, port: InterfaceId) {
        let gone = self.of_ports.remove(&port).unwrap_or(0);
        self.total = self.total.saturating_sub(gone);
    }

    /// Everything is gone.
    pub(super) fn clear(&mut self) {
        self.of_ports.clear();
        self.total = 0;
    }

    /// All entries.
    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        assert_eq!(self.total, self.of_ports.values().sum::<usize>());
        self.total
    }

    fn of_port(&self, port: InterfaceId) -> usize {
        self.of_ports.get(&port).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_fills_its_own_share_and_all_of_them_the_table() {
        let mut shares = Shares::new(2, 5);
        let ports = [1, 2, 3].map(InterfaceId);
        for port in ports {
            while shares.has_room(port) {
                shares.add(port);
            }
        }
        assert_eq!(ports.map(|port| shares.of_port(port)), [2, 2, 1]);
        shares.remove(ports[0]);
        assert_eq!(ports.map(|port| shares.has_room(port)), [true, false, true]);
        shares.leave(ports[1]);
        shares.remove(ports[1]);
        assert_eq!(shares.total(), 2);
        shares.clear();
        assert_eq!(shares.total(), 0);
    }
}
