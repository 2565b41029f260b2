//! Who has which virtual address: pools and their leases (RFC 7296 §2.19, §3.15).
//!
//! An address that nobody uses any more is still leased: its peer gets it again when it comes back, as long as nobody else needs
//! it. Addresses that were never leased are given first, then those that have not been used for the longest time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::{Pool, address_at, last_offset};
use crate::identity::Identity;
use crate::io::{IkeSpi, LeaseReport, PoolReport};
use crate::wire::ConfigurationAttribute;

/// All pools.
#[derive(Debug, Default)]
pub(super) struct Leases {
    pools: BTreeMap<String, Leased>,
    /// The addresses that each IKE SA uses, with their pools, by our SPI.
    held: BTreeMap<IkeSpi, BTreeSet<(String, IpAddr)>>,
    /// Addresses that are in use and belong to no pool any more: nobody else gets them meanwhile.
    strays: BTreeMap<IpAddr, Lease>,
}

/// A pool and who has what of it.
#[derive(Debug)]
struct Leased {
    pool: Pool,
    leases: BTreeMap<IpAddr, Lease>,
    by_identity: BTreeMap<Identity, BTreeSet<IpAddr>>,
    /// The leases that nobody uses, the one that was given back first in front.
    offline: BTreeMap<u64, IpAddr>,
    /// Counts what was given back.
    given_back: u64,
    /// Where to look for an address that is not leased.
    next: u128,
}

/// One address.
#[derive(Debug)]
struct Lease {
    identity: Identity,
    /// The IKE SAs that use it: more than one while one takes the place of another.
    holders: BTreeSet<IkeSpi>,
    /// Its place among those that nobody uses.
    offline: Option<u64>,
}

/// What a peer asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseWish<'a> {
    /// Where it may come from, in order of preference.
    pub(super) pools: &'a [String],
    /// Who asks.
    pub(super) identity: &'a Identity,
    /// For which IKE SA.
    pub(super) holder: IkeSpi,
    /// Whether it is to be an IPv4 address.
    pub(super) ipv4: bool,
    /// The one that the peer would like.
    pub(super) wanted: Option<IpAddr>,
    /// IKE SAs of the same peer whose addresses this one may use as well if it asks for them by name: it may be about to take
    /// their place.
    pub(super) near: &'a [IkeSpi],
    /// IKE SAs of the same peer that go because this one comes: it gets what they have.
    pub(super) going: &'a [IkeSpi],
}

impl Leases {
    /// Adds a pool, or replaces the one of this name. Leases of addresses that are in it stay.
    pub(super) fn set(&mut self, pool: Pool) {
        let leased = self.pools.entry(pool.name.clone()).or_insert_with(|| Leased::new(pool.clone()));
        let lost: Vec<IpAddr> =
            leased.leases.keys().copied().filter(|address| !pool.addresses.contains(*address)).collect();
        if leased.pool.addresses != pool.addresses {
            leased.next = 0;
        }
        let lost: Vec<(IpAddr, Lease)> =
            lost.into_iter().filter_map(|address| Some((address, leased.forget(address)?))).collect();
        leased.pool = pool;
        self.set_adrift(lost);
        self.adopt();
    }

    /// Forgets a pool. What peers have of it, they keep.
    pub(super) fn remove(&mut self, name: &str) {
        let leases = self.pools.remove(name).map(|leased| leased.leases).unwrap_or_default();
        self.set_adrift(leases);
        self.adopt();
    }

    /// Notes leases whose pool has them no more, as far as they are in use.
    fn set_adrift(&mut self, leases: impl IntoIterator<Item = (IpAddr, Lease)>) {
        self.strays.extend(leases.into_iter().filter(|(_, lease)| !lease.holders.is_empty()));
    }

    /// Finds new pools for what has lost its own, whichever of them came or went first.
    fn adopt(&mut self) {
        for (address, stray) in std::mem::take(&mut self.strays) {
            let is_unused = |leased: &Leased| leased.leases.get(&address).is_none_or(|known| known.holders.is_empty());
            let mut pools = self.pools.iter_mut();
            let new = pools.find(|(_, leased)| leased.pool.addresses.contains(address) && is_unused(leased));
            let Some((name, leased)) = new else {
                self.strays.insert(address, stray);
                continue;
            };
            leased.forget(address);
            for holder in stray.holders {
                let held = self.held.entry(holder).or_default();
                held.retain(|(_, own)| *own != address);
                held.insert((name.clone(), address));
                leased.lease(address, &stray.identity, holder);
            }
        }
    }

    /// What goes with addresses of this pool.
    pub(super) fn attributes(&self, name: &str) -> &[ConfigurationAttribute] {
        self.pools.get(name).map(|leased| leased.pool.attributes.as_slice()).unwrap_or_default()
    }

    /// What the pools of this family among `names` have, for people.
    pub(super) fn describe(&self, names: &[String]) -> Vec<String> {
        let line = |name: &String| match self.pools.get(name) {
            Some(leased) => {
                let online = leased.leases.len().saturating_sub(leased.offline.len());
                format!("pool `{name}`: {}, {online} of {} in use", leased.pool.addresses, leased.pool.size())
            }
            None => format!("pool `{name}`, which does not exist"),
        };
        names.iter().map(line).collect()
    }

    /// Whether any of these pools has addresses of this family.
    pub(super) fn have_family(&self, names: &[String], ipv4: bool) -> bool {
        self.of_family(names, ipv4).next().is_some()
    }

    fn of_family<'a>(&'a self, names: &'a [String], ipv4: bool) -> impl Iterator<Item = &'a String> {
        let is_of = move |leased: &Leased| leased.pool.addresses.is_ipv4() == ipv4;
        names.iter().filter(move |name| self.pools.get(*name).is_some_and(is_of))
    }

    /// An address for a peer and the name of its pool: its own of earlier times if possible, in whichever pool that is; then one
    /// that nobody ever had; then one that nobody has had for the longest time. `None` when all are in use.
    pub(super) fn assign(&mut self, wish: LeaseWish<'_>) -> Option<(String, IpAddr)> {
        let names: Vec<String> = self.of_family(wish.pools, wish.ipv4).cloned().collect();
        for find in [Leased::own, Leased::unused, Leased::oldest] {
            for name in &names {
                let leased = self.pools.get_mut(name)?;
                if let Some(address) = find(leased, &wish, &self.strays) {
                    leased.lease(address, wish.identity, wish.holder);
                    self.held.entry(wish.holder).or_default().insert((name.clone(), address));
                    return Some((name.clone(), address));
                }
            }
        }
        None
    }

    /// Another IKE SA takes the place of `old`, which may still be there for a while.
    pub(super) fn share(&mut self, old: IkeSpi, new: IkeSpi) {
        let held = self.held.get(&old).cloned().unwrap_or_default();
        for (name, address) in &held {
            let leased = self.pools.get_mut(name).and_then(|leased| leased.leases.get_mut(address));
            let lease = leased.or_else(|| self.strays.get_mut(address));
            lease.into_iter().for_each(|lease| {
                lease.holders.insert(new);
            });
        }
        if !held.is_empty() {
            self.held.entry(new).or_default().extend(held);
        }
    }

    /// An IKE SA is gone. What nobody else uses waits for its peer to come back.
    pub(super) fn release(&mut self, holder: IkeSpi) {
        for (name, address) in self.held.remove(&holder).unwrap_or_default() {
            match self.pools.get_mut(&name).filter(|leased| leased.leases.contains_key(&address)) {
                Some(leased) => leased.release(address, holder),
                None => {
                    if let Some(stray) = self.strays.get_mut(&address) {
                        stray.holders.remove(&holder);
                    }
                    self.strays.retain(|other, stray| *other != address || !stray.holders.is_empty());
                }
            }
        }
    }

    /// All pools as people see them, by name.
    pub(super) fn report(&self) -> Vec<PoolReport> {
        self.pools.values().map(Leased::report).collect()
    }
}

impl Leased {
    fn new(pool: Pool) -> Self {
        let (leases, by_identity, offline) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { pool, leases, by_identity, offline, given_back: 0, next: 0 }
    }

    /// What the peer has had before: the address that it wants, one of an SA that goes, or any that nobody uses.
    fn own(&mut self, wish: &LeaseWish<'_>, _: &BTreeMap<IpAddr, Lease>) -> Option<IpAddr> {
        let own = self.by_identity.get(wish.identity)?;
        let is_free_to = |address: &IpAddr, others: &[IkeSpi]| {
            let lease = self.leases.get(address);
            lease.is_some_and(|lease| !lease.holders.is_empty() && lease.holders.iter().all(|spi| others.contains(spi)))
        };
        let is_offline = |address: &IpAddr| self.leases.get(address).is_some_and(|lease| lease.offline.is_some());
        let may_share: Vec<IkeSpi> = wish.near.iter().chain(wish.going).copied().collect();
        let wanted = wish.wanted.filter(|wanted| own.contains(wanted));
        wanted
            .filter(|wanted| is_offline(wanted) || is_free_to(wanted, &may_share))
            .or_else(|| own.iter().copied().find(|address| is_free_to(address, wish.going)))
            .or_else(|| own.iter().copied().find(is_offline))
    }

    /// An address that nobody has: the one that the peer wants, or the next one.
    fn unused(&mut self, wish: &LeaseWish<'_>, strays: &BTreeMap<IpAddr, Lease>) -> Option<IpAddr> {
        let is_unused = |address: &IpAddr| !self.leases.contains_key(address) && !strays.contains_key(address);
        let wanted = wish.wanted.filter(|wanted| self.pool.addresses.contains(*wanted) && is_unused(wanted));
        if wanted.is_some() {
            return wanted;
        }
        let last = last_offset(&self.pool.addresses);
        // All that is leased is in the pool: nothing is left to look for when that is as much.
        if u128::try_from(self.leases.len()).is_ok_and(|leased| leased > last) {
            return None;
        }
        // If there is one, no more than all that are leased or adrift are before it.
        for _ in 0..=self.leases.len() + strays.len() {
            let address = address_at(&self.pool.addresses, self.next);
            self.next = if self.next >= last { 0 } else { self.next.saturating_add(1) };
            if address.is_some_and(|address| !self.leases.contains_key(&address) && !strays.contains_key(&address)) {
                return address;
            }
        }
        None
    }

    /// The address that has not been used for the longest time.
    fn oldest(&mut self, _: &LeaseWish<'_>, _: &BTreeMap<IpAddr, Lease>) -> Option<IpAddr> {
        let address = self.offline.first_key_value().map(|(_, address)| *address)?;
        self.forget(address).map(|_| address)
    }

    fn lease(&mut self, address: IpAddr, identity: &Identity, holder: IkeSpi) {
        let new = || Lease { identity: identity.clone(), holders: BTreeSet::new(), offline: None };
        let lease = self.leases.entry(address).or_insert_with(new);
        lease.offline.take().map(|place| self.offline.remove(&place));
        lease.holders.insert(holder);
        self.by_identity.entry(identity.clone()).or_default().insert(address);
    }

    fn release(&mut self, address: IpAddr, holder: IkeSpi) {
        let Some(lease) = self.leases.get_mut(&address) else {
            return;
        };
        lease.holders.remove(&holder);
        if !lease.holders.is_empty() {
            return;
        }
        self.given_back = self.given_back.wrapping_add(1);
        lease.offline = Some(self.given_back);
        self.offline.insert(self.given_back, address);
        if self.offline.len() > MAX_OFFLINE {
            let oldest = self.offline.first_key_value().map(|(_, address)| *address);
            oldest.into_iter().for_each(|address| drop(self.forget(address)));
        }
    }

    fn forget(&mut self, address: IpAddr) -> Option<Lease> {
        let lease = self.leases.remove(&address)?;
        lease.offline.map(|place| self.offline.remove(&place));
        if let Some(own) = self.by_identity.get_mut(&lease.identity) {
            own.remove(&address);
            if own.is_empty() {
                self.by_identity.remove(&lease.identity);
            }
        }
        Some(lease)
    }

    fn report(&self) -> PoolReport {
        let lease = |(address, lease): (&IpAddr, &Lease)| LeaseReport {
            address: *address,
            identity: lease.identity.to_string(),
            online: lease.offline.is_none(),
        };
        PoolReport { pool: self.pool.clone(), leases: self.leases.iter().map(lease).collect() }
    }
}

/// Leases of a pool that nobody uses: a peer that is not among the last so many gets another address.
const MAX_OFFLINE: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use espdp_api::AddressRange;

    use super::*;

    fn pool(name: &str, start: &str, end: &str) -> Pool {
        let addresses = AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap();
        Pool { name: name.to_owned(), base: addresses.start(), addresses, attributes: Vec::new() }
    }

    /// Three addresses of IPv4 and one of IPv6.
    fn leases() -> Leases {
        let mut leases = Leases::default();
        leases.set(pool("four", "10.3.0.1", "10.3.0.3"));
        leases.set(pool("six", "fec3::1", "fec3::1"));
        leases
    }

    fn spi(number: u8) -> IkeSpi {
        IkeSpi([number; 8])
    }

    /// Peer `name` asks for an address for its SA number `holder`.
    fn ask(leases: &mut Leases, name: &str, holder: u8, adapt: impl Fn(&mut LeaseWish<'_>)) -> Option<String> {
        let (pools, identity) = (["four".to_owned(), "six".to_owned()], Identity::Fqdn(name.to_owned()));
        let (pools, identity, holder) = (&pools[..], &identity, spi(holder));
        let mut wish = LeaseWish { pools, identity, holder, ipv4: true, wanted: None, near: &[], going: &[] };
        adapt(&mut wish);
        leases.assign(wish).map(|(_, address)| address.to_string())
    }

    fn any(leases: &mut Leases, name: &str, holder: u8) -> Option<String> {
        ask(leases, name, holder, |_| {})
    }

    fn wanted(leases: &mut Leases, name: &str, holder: u8, wanted: &str) -> Option<String> {
        ask(leases, name, holder, |wish| wish.wanted = Some(wanted.parse().unwrap()))
    }

    #[test]
    fn peers_get_one_address_after_the_other_until_there_are_no_more() {
        let mut leases = leases();
        let given: Vec<_> = (1..=4).map(|number| any(&mut leases, &format!("peer{number}"), number)).collect();
        assert_eq!(given, [Some("10.3.0.1".into()), Some("10.3.0.2".into()), Some("10.3.0.3".into()), None]);
        assert_eq!(ask(&mut leases, "peer1", 1, |wish| wish.ipv4 = false), Some("fec3::1".into()));
    }

    #[test]
    fn a_peer_that_comes_back_gets_its_address_again() {
        let mut leases = leases();
        any(&mut leases, "carol", 1);
        any(&mut leases, "dave", 2);
        leases.release(spi(1));
        assert_eq!(any(&mut leases, "erin", 3), Some("10.3.0.3".into()), "it is kept for carol while there are others");
        assert_eq!(any(&mut leases, "carol", 4), Some("10.3.0.1".into()));
    }

    #[test]
    fn when_all_were_leased_the_one_that_was_given_back_first_is_given_to_others() {
        let mut leases = leases();
        for (name, number) in [("carol", 1), ("dave", 2), ("erin", 3)] {
            any(&mut leases, name, number);
        }
        leases.release(spi(2));
        leases.release(spi(1));
        assert_eq!(any(&mut leases, "frank", 4), Some("10.3.0.2".into()));
        assert_eq!(any(&mut leases, "dave", 5), Some("10.3.0.1".into()), "his own is frank's now");
        assert_eq!(any(&mut leases, "carol", 6), None);
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_if_nobody_else_has_it() {
        let mut leases = leases();
        assert_eq!(wanted(&mut leases, "carol", 1, "10.3.0.3"), Some("10.3.0.3".into()));
        assert_eq!(wanted(&mut leases, "dave", 2, "10.3.0.3"), Some("10.3.0.1".into()));
        assert_eq!(wanted(&mut leases, "erin", 3, "192.0.2.1"), Some("10.3.0.2".into()), "it is in no pool");
    }

    #[test]
    fn two_hosts_with_one_identity_get_an_address_each() {
        let mut leases = leases();
        assert_eq!(any(&mut leases, "carol", 1), Some("10.3.0.1".into()));
        assert_eq!(wanted(&mut leases, "carol", 2, "10.3.0.1"), Some("10.3.0.2".into()), "the other one uses it");
    }

    #[test]
    fn an_sa_that_takes_the_place_of_another_one_may_have_its_address() {
        let mut leases = leases();
        any(&mut leases, "carol", 1);
        let old = [spi(1)];
        let mut near = |wanted: Option<&str>, holder| {
            ask(&mut leases, "carol", holder, |wish| {
                (wish.near, wish.wanted) = (&[], wanted.map(|wanted| wanted.parse().unwrap()));
                let _: &[IkeSpi] = &old;
            })
        };
        assert_eq!(near(Some("10.3.0.1"), 2), Some("10.3.0.2".into()), "a stranger to the first SA does not");
        let (identity, pools) = (Identity::Fqdn("carol".into()), ["four".to_owned()]);
        let wish = |holder, wanted: Option<&str>| LeaseWish {
            pools: &pools,
            identity: &identity,
            holder: spi(holder),
            ipv4: true,
            wanted: wanted.map(|wanted| wanted.parse().unwrap()),
            near: &old,
            going: &[],
        };
        assert_eq!(leases.assign(wish(3, Some("10.3.0.1"))).unwrap().1.to_string(), "10.3.0.1");
        leases.release(spi(1));
        assert!(leases.report()[0].leases[0].online, "the new one still uses it");
        leases.release(spi(3));
        assert!(!leases.report()[0].leases[0].online);
    }

    #[test]
    fn an_sa_before_which_another_one_goes_gets_its_address_without_asking() {
        let mut leases = leases();
        any(&mut leases, "carol", 1);
        let (identity, pools, old) = (Identity::Fqdn("carol".into()), ["four".to_owned()], [spi(1)]);
        let (holder, wanted) = (spi(2), None);
        let wish = LeaseWish { pools: &pools, identity: &identity, holder, ipv4: true, wanted, near: &[], going: &old };
        assert_eq!(leases.assign(wish).unwrap().1.to_string(), "10.3.0.1");
    }

    #[test]
    fn a_rekeyed_sa_keeps_the_address_and_gives_it_back_once() {
        let mut leases = leases();
        any(&mut leases, "carol", 1);
        leases.share(spi(1), spi(2));
        leases.release(spi(1));
        assert_eq!(any(&mut leases, "carol", 3), Some("10.3.0.2".into()), "it is in use");
        leases.release(spi(2));
        assert_eq!(any(&mut leases, "carol", 4), Some("10.3.0.1".into()));
    }

    #[test]
    fn a_pool_that_changes_keeps_the_leases_that_fit() {
        let mut leases = leases();
        any(&mut leases, "carol", 1);
        any(&mut leases, "dave", 2);
        leases.set(pool("four", "10.3.0.2", "10.3.0.9"));
        let report = &leases.report()[0];
        assert_eq!((report.pool.size(), report.leases.len()), (8, 1));
        leases.release(spi(1));
        leases.release(spi(2));
        assert_eq!(any(&mut leases, "erin", 3), Some("10.3.0.3".into()));
        leases.remove("four");
        assert_eq!(any(&mut leases, "erin", 4), None);
        leases.release(spi(3));
    }

    #[test]
    fn what_is_in_use_is_given_to_nobody_else_while_pools_change() {
        let mut leases = leases();
        assert_eq!(any(&mut leases, "carol", 1), Some("10.3.0.1".into()));
        leases.set(pool("four", "10.3.0.2", "10.3.0.3"));
        leases.set(pool("five", "10.3.0.1", "10.3.0.1"));
        assert_eq!(leases.report()[0].online(), 1, "it is in another pool now");
        leases.remove("five");
        leases.share(spi(1), spi(2));
        leases.release(spi(1));
        leases.set(pool("four", "10.3.0.1", "10.3.0.2"));
        assert_eq!(any(&mut leases, "dave", 3), Some("10.3.0.2".into()));
        assert_eq!(any(&mut leases, "erin", 4), None, "carol has the other one");
        leases.release(spi(2));
        assert_eq!(any(&mut leases, "erin", 5), Some("10.3.0.1".into()));
        leases.remove("four");
        leases.release(spi(3));
        leases.release(spi(5));
        assert!(leases.strays.is_empty() && leases.held.is_empty());
    }

    /// A pool under another name: the old one may go before or after the new one comes.
    #[test]
    fn what_is_in_use_stays_leased_when_its_pool_gets_another_name() {
        for new_one_first in [true, false] {
            let mut leases = leases();
            any(&mut leases, "carol", 1);
            let renamed = pool("larger", "10.3.0.1", "10.3.0.4");
            if new_one_first {
                leases.set(renamed);
                leases.remove("four");
            } else {
                leases.remove("four");
                leases.set(renamed);
            }
            assert_eq!(leases.report()[0].online(), 1, "the new one first: {new_one_first}");
            leases.share(spi(1), spi(2));
            leases.release(spi(1));
            leases.set(pool("larger", "10.3.0.1", "10.3.0.5"));
            assert_eq!(leases.report()[0].online(), 1, "what came by rekeying has it still");
            leases.release(spi(2));
            assert_eq!(leases.report()[0].online(), 0);
            assert!(leases.strays.is_empty() && leases.held.is_empty());
        }
    }

    #[test]
    fn a_pool_of_which_every_address_was_leased_is_not_searched() {
        let mut leases = leases();
        for number in 1..=3 {
            any(&mut leases, &format!("peer{number}"), number);
        }
        let next = |leases: &Leases| leases.pools["four"].next;
        let before = next(&leases);
        assert_eq!(any(&mut leases, "frank", 4), None);
        leases.release(spi(2));
        assert_eq!(any(&mut leases, "frank", 4), Some("10.3.0.2".into()));
        assert_eq!(next(&leases), before);
    }

    #[test]
    fn huge_pools_begin_at_their_beginning() {
        let mut leases = Leases::default();
        leases.set(pool("four", "fec3::", "fec3:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(ask(&mut leases, "carol", 1, |wish| wish.ipv4 = false), Some("fec3::".into()));
        assert_eq!(leases.report()[0].pool.size(), u64::MAX);
    }
}
