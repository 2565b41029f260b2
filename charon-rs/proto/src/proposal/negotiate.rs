//! Choosing from an offer, and checking what a peer chose from ours (RFC 7296 §2.7, §3.3.6).

use espdp_api::{EspAlgorithms, EspCipher, EspIntegrity, EspSpi, IpsecProtocol};

use super::additional::{NONE, each_round, round_transform};
use super::algorithm::Algorithm;
use super::mismatch::{Mismatch, Miss};
use super::negotiable::Negotiable;
use super::offer::{sequence_numbers, transform};
use super::{AdditionalGroups, EspProposal, EspSuite, IkeProposal, IkeSuite, KeyExchangeGroup, Rounds};
use crate::io::IkeSpi;
use crate::wire::{Protocol, TransformType, WireProposal, WireTransform};

/// What both sides agree on for an IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeAgreement {
    /// The algorithms.
    pub suite: IkeSuite,
    /// The peer's SPI, if its proposal has one, as those that replace an SA do.
    pub peer_spi: Option<IkeSpi>,
    /// The answer: the number of the peer's proposal (R7296-3.3.1-1) and the chosen transforms as they came
    /// (R7296-3.3.6-1), one of each type in the offer (R7296-2.7-2). The SPI is empty; who needs one puts it in.
    pub answer: WireProposal,
}

/// What both sides agree on for a Child SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspAgreement {
    /// The algorithms.
    pub suite: EspSuite,
    /// The SPI on which the peer receives.
    pub peer_spi: EspSpi,
    /// The answer, like [`IkeAgreement::answer`]. The SPI is empty; ours must be put in.
    pub answer: WireProposal,
}

/// Chooses from the proposals of a peer for an IKE SA: the first of ours that agrees with one of theirs, and in it of
/// each type the first of ours that they offer, too (R7296-2.7-1).
///
/// # Errors
/// A [`Mismatch`] that says for each pair of proposals what they lack.
pub fn negotiate_ike(ours: &[IkeProposal], theirs: &[WireProposal]) -> Result<IkeAgreement, Box<Mismatch>> {
    negotiate(ours, theirs)
}

/// Chooses from the proposals of a peer for a Child SA, as [`negotiate_ike`] does. In IKE_AUTH, `ours` goes through
/// [`super::without_groups`] first.
///
/// # Errors
/// A [`Mismatch`] that says for each pair of proposals what they lack.
pub fn negotiate_esp(ours: &[EspProposal], theirs: &[WireProposal]) -> Result<EspAgreement, Box<Mismatch>> {
    negotiate(ours, theirs)
}

/// Checks what the peer chose from our offer of `offered` (R7296-3.3.6-2).
///
/// # Errors
/// A [`BadAnswer`]: the peer broke a rule, and the exchange has failed.
pub fn check_ike_answer(offered: &[IkeProposal], answer: &[WireProposal]) -> Result<IkeAgreement, BadAnswer> {
    check_answer(offered, answer)
}

/// Checks what the peer chose from our offer of `offered`, which is what [`super::esp_offer`] was given.
///
/// # Errors
/// A [`BadAnswer`]: the peer broke a rule, and the exchange has failed.
pub fn check_esp_answer(offered: &[EspProposal], answer: &[WireProposal]) -> Result<EspAgreement, BadAnswer> {
    check_answer(offered, answer)
}

/// Why an answer is none to our offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAnswer {
    /// Not just one proposal.
    #[error("the peer answered with {0} proposals instead of one")]
    Count(usize),
    /// A number that no proposal of ours has.
    #[error("the peer chose proposal {number}, we offered {offered}")]
    Number {
        /// The number.
        number: u8,
        /// How many we offered.
        offered: usize,
    },
    /// Several transforms of one type.
    #[error("the peer chose more than one {0} transform")]
    Ambiguous(TransformType),
    /// Something that was not in the proposal.
    #[error("the peer's answer does not fit our proposal {number}: {obstacle}")]
    NotOffered {
        /// The proposal.
        number: u8,
        /// What does not fit.
        obstacle: Obstacle,
    },
}

/// What stands between two proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// Theirs is for something else.
    #[error("the peer's proposal is for {0}")]
    Protocol(Protocol),
    /// The SPI has not the size that belongs to the protocol, or is reserved.
    #[error("the peer's SPI is not a valid one")]
    Spi,
    /// Both have transforms of this type, and none is in both.
    #[error("there is no {0} transform in common")]
    NothingInCommon(TransformType),
    /// Theirs lacks a type that must be there.
    #[error("the peer names no {0} transform")]
    Missing(TransformType),
    /// Theirs has a type that we do without.
    #[error("the peer wants a {0} transform, which we do without")]
    Unwanted(TransformType),
    /// Theirs has a type that means nothing to us in this place.
    #[error("the peer wants a transform of {0}, which is not known here")]
    UnknownType(TransformType),
}

impl Obstacle {
    /// How far apart it keeps two proposals: more than all transforms together, when no transform could help.
    pub(super) fn weight(&self) -> u32 {
        match self {
            Self::NothingInCommon(_) | Self::Missing(_) | Self::Unwanted(_) => 1,
            Self::Spi | Self::UnknownType(_) => 10,
            Self::Protocol(_) => 100,
        }
    }

    fn kind(&self) -> Option<TransformType> {
        match *self {
            Self::Protocol(_) | Self::Spi => None,
            Self::NothingInCommon(kind) | Self::Missing(kind) | Self::Unwanted(kind) | Self::UnknownType(kind) => {
                Some(kind)
            }
        }
    }
}

fn negotiate<P: Negotiable>(ours: &[P], theirs: &[WireProposal]) -> Result<P::Agreement, Box<Mismatch>> {
    let mut misses = Vec::new();
    for (our_index, our) in ours.iter().enumerate() {
        for (their_index, their) in theirs.iter().enumerate() {
            match our.match_with(their) {
                Ok(agreement) => return Ok(agreement),
                Err(obstacles) => misses.push(Miss { ours: our_index, theirs: their_index, obstacles }),
            }
        }
    }
    Err(Box::new(Mismatch::new(ours, theirs, misses)))
}

fn check_answer<P: Negotiable>(offered: &[P], answer: &[WireProposal]) -> Result<P::Agreement, BadAnswer> {
    let [chosen] = answer else {
        return Err(BadAnswer::Count(answer.len()));
    };
    let number = chosen.number;
    let index = usize::from(number).checked_sub(1);
    let Some(proposal) = index.and_then(|index| offered.get(index)) else {
        return Err(BadAnswer::Number { number, offered: offered.len() });
    };
    let kinds = chosen.transforms.iter().map(|transform| transform.kind);
    for (index, kind) in kinds.clone().enumerate() {
        if kinds.clone().take(index).any(|earlier| earlier == kind) {
            return Err(BadAnswer::Ambiguous(kind));
        }
    }
    proposal.match_with(chosen).map_err(|obstacles| {
        let obstacle = obstacles.into_iter().next().unwrap_or(Obstacle::Protocol(chosen.protocol));
        BadAnswer::NotOffered { number, obstacle }
    })
}

/// Chooses from one proposal of a peer for an IKE SA.
pub(super) fn match_ike(ours: &IkeProposal, theirs: &WireProposal) -> Result<IkeAgreement, Vec<Obstacle>> {
    let mut matching = Matching::new(theirs, Protocol::Ike);
    let peer_spi = match theirs.spi.as_slice() {
        [] => None,
        spi => matching.require(<[u8; 8]>::try_from(spi).ok().map(IkeSpi), Obstacle::Spi),
    };
    let cipher = matching.choose(&ours.ciphers);
    let integrity = matching.choose_optional(&ours.integrity);
    let prf = matching.choose(&ours.prfs);
    let group = matching.choose(&ours.groups);
    let additional = matching.choose_additional(&ours.additional, group);
    let answer = matching.finish()?;
    let (Some(cipher), Some(prf), Some(group)) = (cipher, prf, group) else {
        return Err(Vec::new());
    };
    Ok(IkeAgreement { suite: IkeSuite { cipher, integrity, prf, group, additional }, peer_spi, answer })
}

/// Chooses from one proposal of a peer for a Child SA.
pub(super) fn match_esp(ours: &EspProposal, theirs: &WireProposal) -> Result<EspAgreement, Vec<Obstacle>> {
    let mut matching = Matching::new(theirs, ours.protocol.into());
    let spi = <[u8; 4]>::try_from(theirs.spi.as_slice()).ok().and_then(|field| EspSpi::from_wire(field).ok());
    let peer_spi = matching.require(spi, Obstacle::Spi);
    let cipher = match ours.protocol {
        IpsecProtocol::Esp => matching.choose(&ours.ciphers),
        // R7296-3.3.3-1: an AH proposal names no cipher; one that does has a type that means nothing there.
        IpsecProtocol::Ah => Some(EspCipher::Null),
    };
    let integrity = matching.choose_optional(&ours.integrity).unwrap_or(EspIntegrity::None);
    let group = matching.choose_optional(&ours.groups);
    let additional = matching.choose_additional(&ours.additional, group);
    let sequence_numbers = matching.choose(&sequence_numbers(&ours.extended_sequence_numbers));
    let answer = matching.finish()?;
    let (Some(cipher), Some(sequence_numbers), Some(peer_spi)) = (cipher, sequence_numbers, peer_spi) else {
        return Err(Vec::new());
    };
    let extended_sequence_numbers = sequence_numbers.into();
    let algorithms = EspAlgorithms { cipher, integrity, extended_sequence_numbers };
    Ok(EspAgreement { suite: EspSuite { protocol: ours.protocol, algorithms, group, additional }, peer_spi, answer })
}

/// A proposal of the peer on the way to an agreement: what was chosen from it, and what stands in the way.
struct Matching<'a> {
    theirs: &'a WireProposal,
    chosen: Vec<&'a WireTransform>,
    obstacles: Vec<Obstacle>,
}

impl<'a> Matching<'a> {
    fn new(theirs: &'a WireProposal, protocol: Protocol) -> Self {
        let mut obstacles = Vec::new();
        if theirs.protocol != protocol {
            obstacles.push(Obstacle::Protocol(theirs.protocol));
        }
        Self { theirs, chosen: Vec::new(), obstacles }
    }

    fn require<T>(&mut self, value: Option<T>, obstacle: Obstacle) -> Option<T> {
        if value.is_none() {
            self.obstacles.push(obstacle);
        }
        value
    }

    /// The first of ours that they offer. A transform counts only if it is just as we would write it, so that unknown
    /// attributes and key lengths that are missing, odd or out of place spoil it, and it alone (R7296-3.3.6-4).
    fn choose<A: Algorithm>(&mut self, ours: &[A]) -> Option<A> {
        for &algorithm in ours {
            let wanted = transform(algorithm);
            if let Some(found) = self.theirs.transforms.iter().find(|&theirs| *theirs == wanted) {
                self.chosen.push(found);
                return Some(algorithm);
            }
        }
        self.obstacles.push(if self.offers(A::KIND) {
            Obstacle::NothingInCommon(A::KIND)
        } else {
            Obstacle::Missing(A::KIND)
        });
        None
    }

    /// The same for a type that we do without when `ours` is empty. The peer may then leave it out or offer NONE, which
    /// is chosen in that case (R5282-8-1).
    fn choose_optional<A: Algorithm>(&mut self, ours: &[A]) -> Option<A> {
        if !ours.is_empty() {
            return self.choose(ours);
        }
        let is_none =
            |theirs: &&WireTransform| theirs.kind == A::KIND && theirs.id == NONE && theirs.attributes.is_empty();
        match self.theirs.transforms.iter().find(is_none) {
            Some(none) => self.chosen.push(none),
            None if self.offers(A::KIND) => self.obstacles.push(Obstacle::Unwanted(A::KIND)),
            None => {}
        }
        None
    }

    /// The additional key exchanges: for each round the first of ours that they offer and that was not chosen before, for
    /// no method may be chosen twice (RFC 9370 §2.2.1). A round may be left out if both let it be, by NONE or by silence.
    fn choose_additional(&mut self, ours: &Rounds, first: Option<KeyExchangeGroup>) -> AdditionalGroups {
        let mut taken: Vec<KeyExchangeGroup> = first.into_iter().collect();
        let mut chosen = [None; 7];
        for ((round, ours), chosen) in each_round(ours).zip(&mut chosen) {
            let kind = TransformType::AdditionalKeyExchange(round);
            let offered = self.offers(kind);
            let silent = [None];
            let ours = if ours.is_empty() { &silent } else { ours };
            let find = |group: &Option<KeyExchangeGroup>| {
                let wanted = round_transform(round, *group);
                let found = self.theirs.transforms.iter().find(|&theirs| *theirs == wanted);
                let free = group.is_none_or(|group| !taken.contains(&group));
                (free && (found.is_some() || (group.is_none() && !offered))).then_some((*group, found))
            };
            match ours.iter().find_map(find) {
                Some((group, found)) => {
                    *chosen = group;
                    taken.extend(group);
                    self.chosen.extend(found);
                }
                None if !offered => self.obstacles.push(Obstacle::Missing(kind)),
                None if ours == silent => self.obstacles.push(Obstacle::Unwanted(kind)),
                None => self.obstacles.push(Obstacle::NothingInCommon(kind)),
            }
        }
        AdditionalGroups::from(chosen)
    }

    fn offers(&self, kind: TransformType) -> bool {
        self.theirs.transforms.iter().any(|theirs| theirs.kind == kind)
    }

    /// The answer, unless something stands in the way. That includes types of transforms that nothing was chosen of:
    /// one that is not understood spoils the proposal, and it alone (R7296-3.3.6-3).
    fn finish(mut self) -> Result<WireProposal, Vec<Obstacle>> {
        for transform in &self.theirs.transforms {
            let kind = transform.kind;
            let handled = self.chosen.iter().any(|chosen| chosen.kind == kind)
                || self.obstacles.iter().any(|obstacle| obstacle.kind() == Some(kind));
            if !handled {
                self.obstacles.push(Obstacle::UnknownType(kind));
            }
        }
        if !self.obstacles.is_empty() {
            return Err(self.obstacles);
        }
        let WireProposal { number, protocol, .. } = *self.theirs;
        let transforms = self.chosen.into_iter().cloned().collect();
        Ok(WireProposal { number, protocol, spi: Vec::new(), transforms })
    }
}
