//! What IKE and ESP proposals have in common.

use std::fmt;

use espdp_api::{EspCipher, IpsecProtocol};

use super::additional::{each_round, round_transform, round_transforms};
use super::algorithm::Algorithm;
use super::defaults::{default_esp_proposals, default_ike_proposals};
use super::negotiate::{EspAgreement, IkeAgreement, Obstacle, match_esp, match_ike};
use super::offer::{sequence_numbers, transform};
use super::{EspProposal, IkeProposal, KeyExchangeGroup, Rounds};
use crate::wire::{Protocol, WireProposal, WireTransform};

/// A proposal of ours, of either kind.
pub(super) trait Negotiable: Clone + PartialEq + fmt::Display {
    /// The protocol of the SA.
    fn protocol(&self) -> Protocol;

    /// The key of the configuration that lists proposals of this kind.
    fn config_key(&self) -> &'static str;

    /// What an agreement consists of.
    type Agreement;

    /// What the configuration means by `default`.
    fn defaults() -> Vec<Self>;

    /// All its transforms, type by type, in order of preference.
    fn transforms(&self) -> Vec<WireTransform>;

    /// Chooses from one proposal of a peer.
    fn match_with(&self, theirs: &WireProposal) -> Result<Self::Agreement, Vec<Obstacle>>;

    /// The proposal, one algorithm of each type, that would agree with the peer's and is nearest to this one: of each
    /// type the first of ours that the peer offers, or else the first of all that there are.
    fn adapted_to(&self, theirs: &WireProposal) -> Option<Self>;
}

impl Negotiable for IkeProposal {
    fn protocol(&self) -> Protocol {
        Protocol::Ike
    }

    fn config_key(&self) -> &'static str {
        "ike"
    }

    type Agreement = IkeAgreement;

    fn defaults() -> Vec<Self> {
        default_ike_proposals()
    }

    fn transforms(&self) -> Vec<WireTransform> {
        let Self { ciphers, integrity, prfs, groups, additional } = self;
        let first = [transforms(ciphers), transforms(integrity), transforms(prfs), transforms(groups)];
        [first.concat(), round_transforms(additional)].concat()
    }

    fn match_with(&self, theirs: &WireProposal) -> Result<IkeAgreement, Vec<Obstacle>> {
        match_ike(self, theirs)
    }

    fn adapted_to(&self, theirs: &WireProposal) -> Option<Self> {
        let integrity = nearest(&self.integrity, theirs);
        let (prfs, groups) = (nearest(&self.prfs, theirs), nearest(&self.groups, theirs));
        let additional = nearest_rounds(&self.additional, &groups, theirs);
        every(&self.ciphers, theirs).find_map(|cipher| {
            let integrity = if cipher.is_aead() { Vec::new() } else { integrity.clone() };
            let (ciphers, prfs, groups) = (vec![cipher], prfs.clone(), groups.clone());
            let adapted = Self { ciphers, integrity, prfs, groups, additional: additional.clone() };
            adapted.match_with(theirs).is_ok().then_some(adapted)
        })
    }
}

impl Negotiable for EspProposal {
    fn protocol(&self) -> Protocol {
        self.protocol.into()
    }

    fn config_key(&self) -> &'static str {
        match self.protocol {
            IpsecProtocol::Esp => "esp",
            IpsecProtocol::Ah => "ah",
        }
    }

    type Agreement = EspAgreement;

    fn defaults() -> Vec<Self> {
        default_esp_proposals()
    }

    fn transforms(&self) -> Vec<WireTransform> {
        let Self { protocol: _, ciphers, integrity, groups, additional, extended_sequence_numbers } = self;
        let numbers = sequence_numbers(extended_sequence_numbers);
        let first = [transforms(ciphers), transforms(integrity), transforms(groups), transforms(&numbers)];
        [first.concat(), round_transforms(additional)].concat()
    }

    fn match_with(&self, theirs: &WireProposal) -> Result<EspAgreement, Vec<Obstacle>> {
        match_esp(self, theirs)
    }

    fn adapted_to(&self, theirs: &WireProposal) -> Option<Self> {
        let integrity = nearest(&self.integrity, theirs);
        let groups = nearest(&self.groups, theirs);
        let additional = nearest_rounds(&self.additional, &groups, theirs);
        let numbers = nearest(&sequence_numbers(&self.extended_sequence_numbers), theirs);
        let extended_sequence_numbers: Vec<_> = numbers.into_iter().map(bool::from).collect();
        let adapted = |ciphers: Vec<EspCipher>| {
            let is_aead = ciphers.iter().any(|cipher| cipher.is_aead());
            let adapted = Self {
                protocol: self.protocol,
                ciphers,
                integrity: if is_aead { Vec::new() } else { integrity.clone() },
                groups: groups.clone(),
                additional: additional.clone(),
                extended_sequence_numbers: extended_sequence_numbers.clone(),
            };
            adapted.match_with(theirs).is_ok().then_some(adapted)
        };
        match self.protocol {
            IpsecProtocol::Esp => every(&self.ciphers, theirs).find_map(|cipher| adapted(vec![cipher])),
            IpsecProtocol::Ah => adapted(Vec::new()),
        }
    }
}

fn transforms<A: Algorithm>(algorithms: &[A]) -> Vec<WireTransform> {
    algorithms.iter().copied().map(transform).collect()
}

/// The algorithms that a peer offers and we could do: those of `ours` first.
fn every<A: Algorithm>(ours: &[A], theirs: &WireProposal) -> impl Iterator<Item = A> {
    ours.iter().chain(A::ALL).copied().filter(|&algorithm| theirs.transforms.contains(&transform(algorithm)))
}

/// The first of these, or nothing.
fn nearest<A: Algorithm>(ours: &[A], theirs: &WireProposal) -> Vec<A> {
    every(ours, theirs).take(1).collect()
}

/// The same for the rounds of additional key exchanges: no method twice, and NONE where the peer offers it and nothing else
/// that we could do.
fn nearest_rounds(ours: &Rounds, first: &[KeyExchangeGroup], theirs: &WireProposal) -> Rounds {
    let mut taken = first.to_vec();
    let mut rounds = Rounds::default();
    for ((round, ours), nearest) in each_round(ours).zip(&mut rounds) {
        let all = KeyExchangeGroup::ALL.iter().copied().map(Some).chain([None]);
        let possible = |group: &Option<KeyExchangeGroup>| {
            group.is_none_or(|group| !taken.contains(&group))
                && theirs.transforms.contains(&round_transform(round, *group))
        };
        let found = ours.iter().copied().chain(all).find(possible);
        taken.extend(found.flatten());
        nearest.extend(found);
    }
    rounds
}
