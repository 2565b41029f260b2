//! Additional key exchanges (RFC 9370): up to seven rounds after the first key exchange, each with a method of its own.

use super::algorithm::Algorithm;
use super::{IkeProposal, KeyExchangeGroup, Rounds};
use crate::wire::{AdditionalRound, TransformType, WireTransform};

/// The additional key exchanges that were chosen, at most one for each of the seven rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdditionalGroups([Option<KeyExchangeGroup>; 7]);

impl AdditionalGroups {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The rounds in which something is exchanged, in their order, and what.
    pub fn rounds(self) -> impl Iterator<Item = (AdditionalRound, KeyExchangeGroup)> {
        AdditionalRound::ALL.into_iter().zip(self.0).filter_map(|(round, group)| Some((round, group?)))
    }

    /// Whether each of them, or of the rounds that are left out, is among the alternatives.
    #[must_use]
    pub fn is_among(self, rounds: &Rounds) -> bool {
        let fits = |(chosen, ours): (Option<KeyExchangeGroup>, &Vec<_>)| {
            ours.contains(&chosen) || (chosen.is_none() && ours.is_empty())
        };
        self.0.into_iter().zip(rounds).all(fits)
    }

    /// The proposal's way to offer just these.
    #[must_use]
    pub fn to_rounds(self) -> Rounds {
        self.0.map(|group| group.into_iter().map(Some).collect())
    }
}

impl From<[Option<KeyExchangeGroup>; 7]> for AdditionalGroups {
    fn from(rounds: [Option<KeyExchangeGroup>; 7]) -> Self {
        Self(rounds)
    }
}

impl IkeProposal {
    /// Whether additional key exchanges are offered, required or not.
    #[must_use]
    pub fn has_rounds(&self) -> bool {
        self.additional.iter().flatten().any(Option::is_some)
    }

    /// The same proposal without additional key exchanges, unless it requires one.
    #[must_use]
    pub fn without_rounds(&self) -> Option<Self> {
        let may_be_left_out = |groups: &Vec<Option<KeyExchangeGroup>>| groups.is_empty() || groups.contains(&None);
        let may_do_without = self.additional.iter().all(may_be_left_out);
        may_do_without.then(|| Self { additional: Rounds::default(), ..self.clone() })
    }
}

/// The rounds with what is offered for each.
pub(super) fn each_round(rounds: &Rounds) -> impl Iterator<Item = (AdditionalRound, &[Option<KeyExchangeGroup>])> {
    AdditionalRound::ALL.into_iter().zip(rounds.iter().map(Vec::as_slice))
}

/// The transform that stands for a method in a round; `None` is the transform NONE, for a round that may be left out.
pub(super) fn round_transform(round: AdditionalRound, group: Option<KeyExchangeGroup>) -> WireTransform {
    let kind = TransformType::AdditionalKeyExchange(round);
    WireTransform { kind, id: group.map_or(NONE, KeyExchangeGroup::id), attributes: Vec::new() }
}

/// All transforms of the rounds.
pub(super) fn round_transforms(rounds: &Rounds) -> Vec<WireTransform> {
    let of_round = |(round, groups): (AdditionalRound, &[Option<KeyExchangeGroup>])| {
        groups.iter().map(move |&group| round_transform(round, group)).collect::<Vec<_>>()
    };
    each_round(rounds).flat_map(of_round).collect()
}

/// The words of the rounds in a proposal text: `ke1_mlkem768`.
pub(super) fn round_keywords(rounds: &Rounds) -> Vec<String> {
    let of_round = |(round, groups): (AdditionalRound, &[Option<KeyExchangeGroup>])| {
        let word = move |group: &Option<KeyExchangeGroup>| {
            format!("ke{}_{}", round.number(), group.map_or(NONE_WORD, KeyExchangeGroup::keyword))
        };
        groups.iter().map(word).collect::<Vec<_>>()
    };
    each_round(rounds).flat_map(of_round).collect()
}

/// The number that stands for no key exchange.
pub(super) const NONE: u16 = 0;

/// The word for no key exchange, behind the prefix of a round.
pub(super) const NONE_WORD: &str = "none";
