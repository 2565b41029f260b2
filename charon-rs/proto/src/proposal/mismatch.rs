//! Why nothing could be agreed on, and what would help.

use std::fmt;

use super::names::{describe_proposal, describe_transform};
use super::negotiable::Negotiable;
use super::negotiate::Obstacle;
use crate::wire::{TransformType, WireProposal, WireTransform};

/// An offer of a peer that has nothing in common with what we allow. It is made for people: both sides, the nearest miss
/// and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What we allow, one text for each proposal, as in the configuration.
    pub ours: Vec<String>,
    /// What the peer offers, one text for each proposal: `IKE:AES_CBC_256/...`.
    pub theirs: Vec<String>,
    /// Each pair of proposals with what stands between them, by our order and then by theirs.
    pub misses: Vec<Miss>,
    /// What the pair that comes nearest to an agreement lacks, as a sentence without its end.
    pub nearest: String,
    /// What to do: a value to paste into the configuration, or what the peer would have to change.
    pub hint: String,
    /// The value by which our configuration would agree with the peer, if there is one.
    pub value: Option<String>,
}

/// A pair of proposals that do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The place of ours in the list, from 0.
    pub ours: usize,
    /// The place of theirs in the list, from 0.
    pub theirs: usize,
    /// What stands between them; never empty.
    pub obstacles: Vec<Obstacle>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no proposal in common: {}", self.nearest)
    }
}

impl Mismatch {
    /// Explains `misses`, which are of all pairs of `ours` and `theirs`.
    pub(super) fn new<P: Negotiable>(ours: &[P], theirs: &[WireProposal], misses: Vec<Miss>) -> Self {
        let mut by_distance: Vec<_> =
            misses.iter().filter_map(|miss| Some((miss, ours.get(miss.ours)?, theirs.get(miss.theirs)?))).collect();
        by_distance.sort_by_key(|(miss, _, _)| miss.obstacles.iter().map(Obstacle::weight).sum::<u32>());
        let nearest = by_distance.first().map_or_else(
            || "one side names no proposals at all".to_owned(),
            |(miss, our, their)| explain(&miss.obstacles, *our, their),
        );
        let adapted = by_distance.iter().find_map(|(_, our, their)| our.adapted_to(their));
        let value = adapted.as_ref().map(|adapted| extended(ours, adapted));
        let hint = match (&adapted, &value) {
            (Some(adapted), Some(value)) => paste_hint(adapted, value),
            _ => unsupported_hint(ours),
        };
        Self {
            ours: ours.iter().map(P::to_string).collect(),
            theirs: theirs.iter().map(describe_proposal).collect(),
            nearest,
            hint,
            value,
            misses,
        }
    }
}

fn explain<P: Negotiable>(obstacles: &[Obstacle], ours: &P, theirs: &WireProposal) -> String {
    let our_transforms = ours.transforms();
    let sentences: Vec<_> = obstacles
        .iter()
        .map(|obstacle| match obstacle {
            Obstacle::NothingInCommon(kind) => {
                let (offered, allowed) = (list(&theirs.transforms, *kind), list(&our_transforms, *kind));
                format!("for {kind}, the peer offers {offered}, we allow {allowed}")
            }
            Obstacle::Missing(kind) => {
                format!("for {kind}, the peer offers nothing, we want {}", list(&our_transforms, *kind))
            }
            Obstacle::Unwanted(kind) => {
                format!("for {kind}, the peer offers {}, we allow none", list(&theirs.transforms, *kind))
            }
            Obstacle::Protocol(_) | Obstacle::Spi | Obstacle::UnknownType(_) => obstacle.to_string(),
        })
        .collect();
    format!("`{ours}` and the peer's proposal {} differ: {}", theirs.number, sentences.join("; "))
}

/// The transforms of one type, by name.
fn list(transforms: &[WireTransform], kind: TransformType) -> String {
    let names: Vec<_> = transforms.iter().filter(|its| its.kind == kind).map(describe_transform).collect();
    names.join(", ")
}

/// Our proposals, and the one that the peer would agree to.
fn extended<P: Negotiable>(ours: &[P], adapted: &P) -> String {
    let present = if ours == P::defaults() {
        "default".to_owned()
    } else {
        ours.iter().map(P::to_string).collect::<Vec<_>>().join(",")
    };
    format!("{present},{adapted}")
}

/// A line for the configuration that would have let the peer in.
fn paste_hint<P: Negotiable>(adapted: &P, value: &str) -> String {
    let key = adapted.config_key();
    let adapted = adapted.to_string();
    let advice = if adapted.split('-').any(|word| matches!(word, "sha1" | "prfsha1" | "null")) {
        " (weak: better change the peer)"
    } else {
        ""
    };
    format!("{key} = \"{value}\" would agree with the peer{advice}")
}

fn unsupported_hint<P: Negotiable>(ours: &[P]) -> String {
    let wanted = ours.first().map(P::to_string).unwrap_or_default();
    format!("none of the peer's proposals can be met here; let the peer offer `{wanted}`")
}
