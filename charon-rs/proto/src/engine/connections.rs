//! The connections of an engine, found by name and by the addresses that they are for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use espdp_api::IkePath;

use crate::config::{Connection, RemoteAddress};

/// All connections. To find those for a path takes as long among thousands as among a few, as long as only few of them are
/// for ranges, names or anybody.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_name: BTreeMap<String, Arc<Connection>>,
    /// The names of those that name an address of the peer.
    by_address: BTreeMap<IpAddr, BTreeSet<String>>,
    /// The names of those that are for ranges, host names or anybody.
    wide: BTreeSet<String>,
}

impl Connections {
    /// Adds a connection, or replaces the one of this name.
    pub(super) fn insert(&mut self, connection: Arc<Connection>) {
        self.remove(&connection.name);
        for address in named_addresses(&connection) {
            self.by_address.entry(address).or_default().insert(connection.name.clone());
        }
        if is_wide(&connection) {
            self.wide.insert(connection.name.clone());
        }
        self.by_name.insert(connection.name.clone(), connection);
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some(connection) = self.by_name.remove(name) else {
            return;
        };
        for address in named_addresses(&connection) {
            if let Some(names) = self.by_address.get_mut(&address) {
                names.remove(name);
                if names.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
        self.wide.remove(name);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Connection>> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.by_name.values()
    }

    /// Those that are for these addresses, the most specific first, then by name.
    pub(super) fn of_path(&self, path: IkePath) -> Vec<Arc<Connection>> {
        let exact = self.by_address.get(&path.remote.ip()).into_iter().flatten();
        let names = exact.chain(&self.wide);
        let mut found: Vec<(Reverse<u8>, &Arc<Connection>)> = names
            .filter_map(|name| self.by_name.get(name))
            .filter_map(|connection| Some((Reverse(specificity(connection, path)?), connection)))
            .collect();
        found.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
        // A connection may name the address and be for a range as well.
        found.dedup_by(|(_, one), (_, other)| one.name == other.name);
        found.into_iter().map(|(_, connection)| connection.clone()).collect()
    }
}

fn named_addresses(connection: &Connection) -> impl Iterator<Item = IpAddr> {
    connection.remote_addresses.iter().filter_map(|remote| match remote {
        RemoteAddress::Address(address) => Some(*address),
        RemoteAddress::Range(_) | RemoteAddress::Name(_) | RemoteAddress::Any => None,
    })
}

fn is_wide(connection: &Connection) -> bool {
    let is_address = |remote: &RemoteAddress| matches!(remote, RemoteAddress::Address(_));
    connection.remote_addresses.is_empty() || !connection.remote_addresses.iter().all(is_address)
}

/// How precisely the connection names these addresses; `None` if they are not meant at all.
fn specificity(connection: &Connection, path: IkePath) -> Option<u8> {
    let local = match connection.local_addresses.as_slice() {
        [] => 0,
        addresses => addresses.contains(&path.local.ip()).then_some(1)?,
    };
    let remote = connection.remote_addresses.iter().filter_map(|remote| match remote {
        RemoteAddress::Address(address) => (*address == path.remote.ip()).then_some(4),
        RemoteAddress::Range(range) => range.contains(path.remote.ip()).then_some(3),
        // What the name means now is not known; the peer's identity decides.
        RemoteAddress::Name(_) => Some(2),
        RemoteAddress::Any => Some(1),
    });
    let remote: u8 = if connection.remote_addresses.is_empty() { 1 } else { remote.max()? };
    Some(2 * remote + local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(name: &str, remotes: &[RemoteAddress]) -> Arc<Connection> {
        Arc::new(Connection { remote_addresses: remotes.to_vec(), ..Connection::new(name) })
    }

    fn names(connections: &Connections, remote: &str) -> Vec<String> {
        let path =
            IkePath { local: "192.0.2.1:500".parse().unwrap(), remote: format!("{remote}:500").parse().unwrap() };
        connections.of_path(path).iter().map(|connection| connection.name.clone()).collect()
    }

    #[test]
    fn the_most_specific_connection_comes_first_and_each_once() {
        let address = |text: &str| RemoteAddress::Address(text.parse().unwrap());
        let (start, end) = ("198.51.100.0".parse().unwrap(), "198.51.100.255".parse().unwrap());
        let range = RemoteAddress::Range(espdp_api::AddressRange::new(start, end).unwrap());
        let mut connections = Connections::default();
        connections.insert(connection("anybody", &[RemoteAddress::Any]));
        connections.insert(connection("unsaid", &[]));
        connections.insert(connection("range", std::slice::from_ref(&range)));
        connections.insert(connection("name", &[RemoteAddress::Name("sun.example".to_owned())]));
        connections.insert(connection("two", &[address("198.51.100.7"), range]));
        connections.insert(connection("one", &[address("198.51.100.7")]));
        connections.insert(connection("other", &[address("203.0.113.9")]));
        let wide = ["range", "name", "anybody", "unsaid"];
        assert_eq!(names(&connections, "198.51.100.7"), [&["one", "two"], &wide[..]].concat());
        assert_eq!(names(&connections, "198.51.100.8"), ["range", "two", "name", "anybody", "unsaid"]);
        assert_eq!(names(&connections, "203.0.113.9"), ["other", "name", "anybody", "unsaid"]);
    }

    #[test]
    fn a_connection_that_is_replaced_or_removed_is_found_no_more_by_what_it_was() {
        let address = |text: &str| RemoteAddress::Address(text.parse().unwrap());
        let mut connections = Connections::default();
        connections.insert(connection("net", &[address("198.51.100.7"), RemoteAddress::Any]));
        connections.insert(connection("net", &[address("198.51.100.8")]));
        assert!(names(&connections, "198.51.100.7").is_empty());
        assert_eq!(names(&connections, "198.51.100.8"), ["net"]);
        connections.remove("net");
        assert!(names(&connections, "198.51.100.8").is_empty());
        assert!(connections.by_address.is_empty() && connections.wide.is_empty());
    }
}
