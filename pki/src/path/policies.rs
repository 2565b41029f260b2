//! Certificate policies (RFC 5280 §6.1.2 to §6.1.5).
//!
//! The RFC's tree can grow without bounds; nothing but its lowest level is ever asked. So here is only that level, and each
//! policy of it remembers which policies it goes back to that were the first below `anyPolicy` (RFC 9618 does the same with
//! a graph). A tree that is NULL is a level without policies.

use std::collections::{BTreeMap, BTreeSet};

use der::asn1::ObjectIdentifier;

use super::PathError;
use crate::certificate::Certificate;

pub(super) struct PolicyState {
    level: BTreeMap<ObjectIdentifier, Node>,
    /// How many certificates may still come before each rule holds.
    explicit_policy: usize,
    policy_mapping: usize,
    inhibit_any: usize,
    wanted: BTreeSet<ObjectIdentifier>,
}

/// A policy that is valid at this level.
#[derive(Clone, Default)]
struct Node {
    /// What it may be called in the next certificate.
    expected: BTreeSet<ObjectIdentifier>,
    /// The policies it goes back to, as the anchor's side calls them; none for `anyPolicy`.
    roots: BTreeSet<ObjectIdentifier>,
}

impl PolicyState {
    /// RFC 5280 §6.1.2 for a path of `len` certificates; if policies are wanted, they are wanted from the first one on.
    pub(super) fn new(len: usize, wanted: &[ObjectIdentifier]) -> Self {
        let any = Node { expected: [ANY_POLICY].into(), roots: BTreeSet::new() };
        Self {
            level: [(ANY_POLICY, any)].into(),
            explicit_policy: if wanted.is_empty() { len.saturating_add(1) } else { 0 },
            policy_mapping: len.saturating_add(1),
            inhibit_any: len.saturating_add(1),
            wanted: wanted.iter().copied().collect(),
        }
    }

    /// RFC 5280 §6.1.3 (d) to (f).
    pub(super) fn process(&mut self, link: &Certificate, is_last: bool) -> Result<(), PathError> {
        let policies: BTreeSet<_> = link.extensions().policies.iter().flatten().copied().collect();
        if policies.len() > MAX_POLICIES || link.extensions().policy_mappings.len() > MAX_POLICIES {
            return Err(lost(link));
        }
        let any_counts = self.inhibit_any > 0 || (!is_last && link.is_self_issued());
        let mut next = BTreeMap::new();
        for policy in policies.iter().copied().filter(|policy| *policy != ANY_POLICY) {
            let expecting = self.expecting(policy);
            if let Some(roots) = expecting.or_else(|| self.level.contains_key(&ANY_POLICY).then(|| [policy].into())) {
                next.insert(policy, Node { expected: [policy].into(), roots });
            }
        }
        if policies.contains(&ANY_POLICY) && any_counts {
            let expected: BTreeSet<_> = self.level.values().flat_map(|node| &node.expected).copied().collect();
            for policy in expected {
                let roots = self.expecting(policy).unwrap_or_default();
                next.entry(policy).or_insert_with(|| Node { expected: [policy].into(), roots });
            }
        }
        self.level = next;
        if self.explicit_policy == 0 && self.level.is_empty() { Err(lost(link)) } else { Ok(()) }
    }

    /// RFC 5280 §6.1.4 (a), (b) and (h) to (j). What an anchor says about policies is kept, but it has no policies itself.
    pub(super) fn prepare_next(&mut self, authority: &Certificate, is_anchor: bool) -> Result<(), PathError> {
        let extensions = authority.extensions();
        if !is_anchor {
            self.map(authority)?;
            if !authority.is_self_issued() {
                self.explicit_policy = self.explicit_policy.saturating_sub(1);
                self.policy_mapping = self.policy_mapping.saturating_sub(1);
                self.inhibit_any = self.inhibit_any.saturating_sub(1);
            }
        }
        if let Some(constraints) = extensions.policy_constraints {
            self.explicit_policy = self.explicit_policy.min(skip(constraints.require_explicit));
            self.policy_mapping = self.policy_mapping.min(skip(constraints.inhibit_mapping));
        }
        self.inhibit_any = self.inhibit_any.min(skip(extensions.inhibit_any_policy));
        Ok(())
    }

    /// RFC 5280 §6.1.5 (a), (b) and (g).
    pub(super) fn finish(&mut self, last: &Certificate) -> Result<(), PathError> {
        self.explicit_policy = self.explicit_policy.saturating_sub(1);
        if last.extensions().policy_constraints.is_some_and(|constraints| constraints.require_explicit == Some(0)) {
            self.explicit_policy = 0;
        }
        let valid = match self.wanted.is_empty() {
            true => !self.level.is_empty(),
            false => {
                self.level.iter().any(|(policy, node)| *policy == ANY_POLICY || !node.roots.is_disjoint(&self.wanted))
            }
        };
        if self.explicit_policy > 0 || valid { Ok(()) } else { Err(lost(last)) }
    }

    fn map(&mut self, authority: &Certificate) -> Result<(), PathError> {
        let mut mappings: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (issuer, subject) in &authority.extensions().policy_mappings {
            if *issuer == ANY_POLICY || *subject == ANY_POLICY {
                return Err(lost(authority));
            }
            mappings.entry(*issuer).or_default().insert(*subject);
        }
        for (policy, expected) in mappings {
            if self.policy_mapping == 0 {
                self.level.remove(&policy);
            } else if let Some(node) = self.level.get_mut(&policy) {
                node.expected = expected;
            } else if self.level.contains_key(&ANY_POLICY) {
                self.level.insert(policy, Node { expected, roots: [policy].into() });
            }
        }
        Ok(())
    }

    /// The roots of all policies of this level that may go by this name in the next certificate; `None` if there are none.
    fn expecting(&self, policy: ObjectIdentifier) -> Option<BTreeSet<ObjectIdentifier>> {
        let mut nodes = self.level.values().filter(|node| node.expected.contains(&policy)).peekable();
        nodes.peek()?;
        Some(nodes.flat_map(|node| &node.roots).copied().collect())
    }
}

/// No constraint counts as one that never holds.
fn skip(certificates: Option<u32>) -> usize {
    certificates.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX))
}

fn lost(link: &Certificate) -> PathError {
    PathError::Policy { subject: link.subject().to_string() }
}

/// RFC 5280 §4.2.1.4.
const ANY_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32.0");

/// Policies and mappings of one certificate; nobody needs more.
const MAX_POLICIES: usize = 64;
