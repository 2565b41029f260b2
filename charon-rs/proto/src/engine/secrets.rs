//! The pre-shared keys of an engine, found by their owners.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::SharedSecret;
use crate::identity::Identity;

/// All pre-shared keys. Those of an owner are found in the same time among thousands as among a few.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    by_name: BTreeMap<String, SharedSecret>,
    /// The names of each owner's, by its canonical identity.
    by_owner: BTreeMap<Identity, BTreeSet<String>>,
    /// The same for those that have no other owner.
    by_only_owner: BTreeMap<Identity, BTreeSet<String>>,
    of_everybody: BTreeSet<String>,
}

impl Secrets {
    /// Adds a secret, or replaces the one of this name.
    pub(super) fn insert(&mut self, secret: SharedSecret) {
        self.remove(&secret.name);
        for owner in &secret.owners {
            self.by_owner.entry(owner.canonical()).or_default().insert(secret.name.clone());
        }
        match secret.owners.as_slice() {
            [] => {
                self.of_everybody.insert(secret.name.clone());
            }
            [only] => {
                self.by_only_owner.entry(only.canonical()).or_default().insert(secret.name.clone());
            }
            [_, _, ..] => {}
        }
        self.by_name.insert(secret.name.clone(), secret);
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some(secret) = self.by_name.remove(name) else {
            return;
        };
        for owner in secret.owners.iter().map(Identity::canonical) {
            for index in [&mut self.by_owner, &mut self.by_only_owner] {
                if let Some(names) = index.get_mut(&owner) {
                    names.remove(name);
                    if names.is_empty() {
                        index.remove(&owner);
                    }
                }
            }
        }
        self.of_everybody.remove(name);
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &SharedSecret> {
        self.by_name.values()
    }

    /// Those with this owner.
    pub(super) fn of(&self, owner: &Identity) -> impl Iterator<Item = &SharedSecret> {
        self.named(self.by_owner.get(&owner.canonical()))
    }

    /// Those of which both may be owners: all that one of the two owns, the one that owns fewer.
    pub(super) fn of_both(&self, one: &Identity, other: &Identity) -> impl Iterator<Item = &SharedSecret> {
        let [one, other] = [one, other].map(|owner| self.by_owner.get(&owner.canonical()));
        self.named(one.zip(other).map(|(one, other)| if one.len() < other.len() { one } else { other }))
    }

    /// Those with this owner and no other.
    pub(super) fn only_of(&self, owner: &Identity) -> impl Iterator<Item = &SharedSecret> {
        self.named(self.by_only_owner.get(&owner.canonical()))
    }

    /// Those without owners.
    pub(super) fn of_everybody(&self) -> impl Iterator<Item = &SharedSecret> {
        self.named(Some(&self.of_everybody))
    }

    fn named<'a>(&'a self, names: Option<&'a BTreeSet<String>>) -> impl Iterator<Item = &'a SharedSecret> {
        names.into_iter().flatten().filter_map(|name| self.by_name.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretKind;

    fn secret(name: &str, owners: &[&str]) -> SharedSecret {
        let owners = owners.iter().map(|owner| Identity::Fqdn((*owner).to_owned())).collect();
        SharedSecret { name: name.to_owned(), kind: SecretKind::Ike, owners, secret: vec![1].into() }
    }

    fn names<'a>(secrets: impl Iterator<Item = &'a SharedSecret>) -> Vec<&'a str> {
        secrets.map(|secret| secret.name.as_str()).collect()
    }

    #[test]
    fn secrets_are_found_by_owners_without_regard_to_case_until_they_are_replaced_or_removed() {
        let sun = Identity::Fqdn("Sun".into());
        let mut secrets = Secrets::default();
        for secret in [secret("pair", &["moon", "sun"]), secret("own", &["SUN"]), secret("all", &[])] {
            secrets.insert(secret);
        }
        assert_eq!(names(secrets.of(&sun)), ["own", "pair"]);
        assert_eq!(names(secrets.only_of(&sun)), ["own"]);
        assert_eq!(names(secrets.of_everybody()), ["all"]);
        secrets.insert(secret("own", &["venus"]));
        secrets.insert(secret("all", &["sun"]));
        assert_eq!(names(secrets.of(&sun)), ["all", "pair"]);
        assert_eq!(names(secrets.of_everybody()), [""; 0]);
        for name in ["pair", "own", "all"] {
            secrets.remove(name);
        }
        assert!(secrets.by_owner.is_empty() && secrets.by_only_owner.is_empty() && secrets.by_name.is_empty());
    }
}
