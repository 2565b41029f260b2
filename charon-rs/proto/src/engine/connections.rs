//! The connections of an engine, found by name and by the addresses that they are for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use espdp_api::IkePath;

use crate::config::{Connection, RemoteAddress};
use crate::io::ConfigKey;

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

/// A connection that is not for a path, and what would have to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Near {
    pub(super) name: String,
    /// What is in the way, as a sentence.
    pub(super) why: String,
    pub(super) key: ConfigKey,
    /// What the key would have to be.
    pub(super) value: String,
    /// So near that it may well be a slip.
    pub(super) is_close: bool,
}

impl Connections {
    /// The connections that come nearest to being for `path`, the nearest first, at most `limit`.
    pub(super) fn nearest(&self, path: IkePath, limit: usize) -> Vec<Near> {
        let mut near: Vec<(u32, &str, Near)> = self
            .by_name
            .values()
            .take(MAX_COMPARED)
            .map(|connection| {
                let (distance, near) = distance(connection, path);
                (distance, connection.name.as_str(), near)
            })
            .collect();
        near.sort_by(|(a, one, _), (b, other, _)| (a, one).cmp(&(b, other)));
        near.into_iter().take(limit).map(|(_, _, near)| near).collect()
    }
}

/// How far a connection is from being for `path`: bits in which the nearest address differs, and why it is not.
fn distance(connection: &Connection, path: IkePath) -> (u32, Near) {
    let (local, remote) = (path.local.ip(), path.remote.ip());
    let fits_local = connection.local_addresses.is_empty() || connection.local_addresses.contains(&local);
    let differing = |address: &RemoteAddress| match address {
        RemoteAddress::Address(address) => bits_between(*address, remote),
        RemoteAddress::Range(range) if range.contains(remote) => 0,
        RemoteAddress::Range(range) => bits_between(range.start(), remote),
        RemoteAddress::Name(_) | RemoteAddress::Any => 0,
    };
    let far = connection.remote_addresses.iter().map(differing).min().unwrap_or_default();
    let list = |items: Vec<String>| items.join(", ");
    let (key, why, value) = if far == 0 {
        let ours = list(connection.local_addresses.iter().map(ToString::to_string).collect());
        (ConfigKey::LocalAddresses, format!("our address is {ours}, the peer came to {local}"), local)
    } else {
        let theirs = list(connection.remote_addresses.iter().map(describe).collect());
        (ConfigKey::RemoteAddresses, format!("the peer's address is {theirs}, this one came from {remote}"), remote)
    };
    let is_close = far <= CLOSE_BITS;
    let near = Near { name: connection.name.clone(), why, key, value: value.to_string(), is_close };
    (far + if fits_local { 0 } else { ADDRESS_BITS }, near)
}

fn describe(address: &RemoteAddress) -> String {
    match address {
        RemoteAddress::Address(address) => address.to_string(),
        RemoteAddress::Range(range) => range.to_string(),
        RemoteAddress::Name(name) => name.clone(),
        RemoteAddress::Any => "%any".to_owned(),
    }
}

/// The bits after the first one in which two addresses differ, that one included; more than any for different families.
fn bits_between(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => u32::BITS - (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => u128::BITS - (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => ADDRESS_BITS,
    }
}

/// Addresses of one organisation, or with one wrong figure, differ in no more.
const CLOSE_BITS: u32 = 16;

/// More than the bits of any address.
const ADDRESS_BITS: u32 = 256;

/// Connections that are compared to explain a refusal: a stranger must not make us look through tens of thousands.
const MAX_COMPARED: usize = 256;

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

    #[test]
    fn the_nearest_connections_say_why_they_are_not_for_a_path() {
        let address = |text: &str| RemoteAddress::Address(text.parse().unwrap());
        let mut connections = Connections::default();
        connections.insert(connection("far", &[address("203.0.113.9")]));
        connections.insert(connection("slip", &[address("198.51.100.70")]));
        let mut elsewhere = Connection::new("elsewhere");
        elsewhere.remote_addresses = vec![address("198.51.100.7")];
        elsewhere.local_addresses = vec!["192.0.2.99".parse().unwrap()];
        connections.insert(Arc::new(elsewhere));
        let path = IkePath { local: "192.0.2.1:500".parse().unwrap(), remote: "198.51.100.7:500".parse().unwrap() };
        let nearest = connections.nearest(path, 3);
        let names: Vec<&str> = nearest.iter().map(|near| near.name.as_str()).collect();
        assert_eq!(names, ["slip", "far", "elsewhere"]);
        assert_eq!(nearest[0].key, ConfigKey::RemoteAddresses);
        assert_eq!(
            (nearest[0].value.as_str(), nearest[0].is_close, nearest[1].is_close),
            ("198.51.100.7", true, false)
        );
        assert!(nearest[0].why.contains("198.51.100.70"), "{}", nearest[0].why);
        assert_eq!((nearest[2].key, nearest[2].value.as_str()), (ConfigKey::LocalAddresses, "192.0.2.1"));
    }
}
