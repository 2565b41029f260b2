//! Who talks to whom: the established IKE SAs by their connections and by the identities of both ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::identity::{Identity, IdentityPattern};
use crate::io::IkeSpi;

/// All established IKE SAs, by the SPIs that we chose. To find the one at hand and those that are like it takes as long
/// among thousands as among a few.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    all: BTreeMap<IkeSpi, Contact>,
    by_connection: BTreeMap<String, BTreeSet<IkeSpi>>,
    by_identities: BTreeMap<Arc<Identities>, BTreeSet<IkeSpi>>,
}

/// Ours and the peer's, both canonical.
type Identities = (Identity, Identity);

#[derive(Debug)]
struct Contact {
    connection: String,
    identities: Arc<Identities>,
    /// The peer's identity as it is, for patterns.
    remote: Identity,
    /// Where the peer is.
    address: IpAddr,
}

impl Contacts {
    /// Notes an SA, or what it is now.
    pub(super) fn note(
        &mut self,
        connection: &str,
        spi: IkeSpi,
        (local, remote): (&Identity, &Identity),
        address: IpAddr,
    ) {
        self.forget(spi);
        let identities = Arc::new((local.canonical(), remote.canonical()));
        self.by_connection.entry(connection.to_owned()).or_default().insert(spi);
        self.by_identities.entry(identities.clone()).or_default().insert(spi);
        self.all
            .insert(spi, Contact { connection: connection.to_owned(), identities, remote: remote.clone(), address });
    }

    /// The peer of an SA is somewhere else now.
    pub(super) fn moved(&mut self, spi: IkeSpi, address: IpAddr) {
        if let Some(contact) = self.all.get_mut(&spi) {
            contact.address = address;
        }
    }

    /// The SA is gone.
    pub(super) fn forget(&mut self, spi: IkeSpi) {
        let Some(contact) = self.all.remove(&spi) else {
            return;
        };
        if let Some(spis) = self.by_connection.get_mut(&contact.connection) {
            spis.remove(&spi);
            if spis.is_empty() {
                self.by_connection.remove(&contact.connection);
            }
        }
        if let Some(spis) = self.by_identities.get_mut(&contact.identities) {
            spis.remove(&spi);
            if spis.is_empty() {
                self.by_identities.remove(&contact.identities);
            }
        }
    }

    /// Whether an SA is established, for whatever connection, in which we have this identity and the peer is one of those.
    pub(super) fn knows(&self, local: &Identity, remote: &IdentityPattern) -> bool {
        let local = local.canonical();
        if let IdentityPattern::Exactly(remote) = remote {
            return self.by_identities.contains_key(&(local, remote.canonical()));
        }
        let first = (local.clone(), Identity::Ipv4(Ipv4Addr::UNSPECIFIED));
        let ours = self.by_identities.range(first..).take_while(|(identities, _)| identities.0 == local);
        let contacts = ours.flat_map(|(_, spis)| spis).filter_map(|spi| self.all.get(spi));
        contacts.map(|contact| &contact.remote).any(|theirs| remote.matches(theirs))
    }

    /// The other SAs of the connection of this one that have its identities, ours and the peer's.
    pub(super) fn same_as(&self, spi: IkeSpi) -> Vec<IkeSpi> {
        let Some(contact) = self.all.get(&spi) else {
            return Vec::new();
        };
        let same = self.with(&contact.connection, &contact.identities);
        same.map(|(other, _)| other).filter(|other| *other != spi).collect()
    }

    /// Those of them whose peer is where that of this one is.
    pub(super) fn near(&self, spi: IkeSpi) -> Vec<IkeSpi> {
        let address = |spi: &IkeSpi| self.all.get(spi).map(|contact| contact.address);
        self.same_as(spi).into_iter().filter(|other| address(other) == address(&spi)).collect()
    }

    /// Where the peers of a connection's SAs with these identities are.
    pub(super) fn addresses(&self, connection: &str, local: &Identity, remote: &Identity) -> Vec<IpAddr> {
        let identities = (local.canonical(), remote.canonical());
        self.with(connection, &identities).map(|(_, contact)| contact.address).collect()
    }

    fn with<'a>(&'a self, connection: &'a str, identities: &Identities) -> impl Iterator<Item = (IkeSpi, &'a Contact)> {
        let spis = self.by_identities.get(identities).into_iter().flatten();
        let contacts = spis.filter_map(|spi| Some((*spi, self.all.get(spi)?)));
        contacts.filter(move |(_, contact)| contact.connection == connection)
    }

    /// The SAs of a connection.
    pub(super) fn of(&self, connection: &str) -> Vec<IkeSpi> {
        self.by_connection.get(connection).into_iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fqdn(name: &str) -> Identity {
        Identity::Fqdn(name.to_owned())
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// Moon's SAs with Sun (two of connection `net` and one of `other`), and with Venus.
    fn contacts() -> Contacts {
        let mut contacts = Contacts::default();
        let sas = [
            ("net", 1, "sun.example"),
            ("net", 2, "SUN.example"),
            ("other", 3, "sun.example"),
            ("net", 4, "venus.example"),
        ];
        for (connection, number, remote) in sas {
            let identities = (&fqdn("moon.example"), &fqdn(remote));
            contacts.note(connection, IkeSpi([number; 8]), identities, address(number));
        }
        contacts
    }

    #[test]
    fn sas_are_the_same_by_connection_and_both_identities_without_regard_to_case() {
        let contacts = contacts();
        assert_eq!(contacts.same_as(IkeSpi([1; 8])), [IkeSpi([2; 8])]);
        assert_eq!(contacts.same_as(IkeSpi([3; 8])), []);
        assert_eq!(contacts.same_as(IkeSpi([9; 8])), []);
        assert_eq!(contacts.addresses("net", &fqdn("MOON.example"), &fqdn("sun.example")), [address(1), address(2)]);
        assert_eq!(contacts.of("net"), [1, 2, 4].map(|number| IkeSpi([number; 8])));
    }

    #[test]
    fn a_peer_is_known_by_its_identity_or_by_a_pattern_of_it() {
        let contacts = contacts();
        let knows = |local: &str, remote: &IdentityPattern| contacts.knows(&fqdn(local), remote);
        assert!(knows("Moon.example", &IdentityPattern::Exactly(fqdn("Sun.example"))));
        assert!(!knows("moon.example", &IdentityPattern::Exactly(fqdn("mars.example"))));
        assert!(!knows("mars.example", &IdentityPattern::Exactly(fqdn("sun.example"))));
        assert!(knows("moon.example", &IdentityPattern::FqdnUnder("example".to_owned())));
        assert!(!knows("moon.example", &IdentityPattern::FqdnUnder("example.org".to_owned())));
        assert!(knows("moon.example", &IdentityPattern::Any));
        assert!(!knows("mars.example", &IdentityPattern::Any));
    }

    #[test]
    fn patterns_of_distinguished_names_look_at_names_as_they_are() {
        let name = |value: &[u8]| {
            let len = u8::try_from(value.len()).unwrap();
            [&[0x30, len + 11, 0x31, len + 9, 0x30, len + 7, 6, 3, 0x55, 4, 3, 0x0c, len], value].concat()
        };
        let sun = Identity::Dn { der: name(b"sun"), text: "CN=sun".to_owned() };
        let any = IdentityPattern::Dn { der: name(b"*"), text: "CN=*".to_owned() };
        let mut contacts = Contacts::default();
        assert!(!contacts.knows(&fqdn("moon.example"), &any));
        contacts.note("net", IkeSpi([1; 8]), (&fqdn("moon.example"), &sun), address(1));
        assert!(contacts.knows(&fqdn("moon.example"), &any));
        assert!(contacts.knows(&fqdn("moon.example"), &IdentityPattern::Exactly(sun)));
    }

    #[test]
    fn an_sa_that_changes_or_goes_leaves_nothing_behind() {
        let mut contacts = contacts();
        contacts.note("net", IkeSpi([1; 8]), (&fqdn("moon.example"), &fqdn("venus.example")), address(7));
        assert_eq!(contacts.same_as(IkeSpi([1; 8])), [IkeSpi([4; 8])]);
        assert_eq!(contacts.same_as(IkeSpi([2; 8])), []);
        for number in 1..=4 {
            contacts.forget(IkeSpi([number; 8]));
        }
        assert!(contacts.all.is_empty() && contacts.by_connection.is_empty() && contacts.by_identities.is_empty());
    }
}
