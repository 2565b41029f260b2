//! What we offer, as it goes into an SA payload.

use espdp_api::EspSpi;

use super::algorithm::{Algorithm, SequenceNumbers};
use super::negotiable::Negotiable;
use super::{EspProposal, IkeProposal, Rounds};
use crate::io::IkeSpi;
use crate::wire::{Attribute, WireProposal, WireTransform};

/// The offer of `proposals` for an IKE SA, in their order, numbered from 1. `spi` is the new SA's own SPI when it
/// replaces another SA, and `None` in IKE_SA_INIT, where the header has it (RFC 7296 §3.3.1).
#[must_use]
pub fn ike_offer(proposals: &[IkeProposal], spi: Option<IkeSpi>) -> Vec<WireProposal> {
    offer(proposals, &spi.map(|spi| spi.0.to_vec()).unwrap_or_default())
}

/// The offer of `proposals` for a Child SA on which we receive with `spi`. For IKE_AUTH they go through
/// [`without_groups`] first.
#[must_use]
pub fn esp_offer(proposals: &[EspProposal], spi: EspSpi) -> Vec<WireProposal> {
    offer(proposals, &spi.to_wire())
}

/// The same proposals without key exchanges, for the Child SA that comes with IKE_AUTH: its keys come from the key exchange of
/// IKE_SA_INIT (RFC 7296 §1.2). Proposals that become equal are named once.
#[must_use]
pub fn without_groups(proposals: &[EspProposal]) -> Vec<EspProposal> {
    let mut stripped: Vec<EspProposal> = Vec::new();
    for proposal in proposals {
        let proposal = EspProposal { groups: Vec::new(), additional: Rounds::default(), ..proposal.clone() };
        if !stripped.contains(&proposal) {
            stripped.push(proposal);
        }
    }
    stripped
}

/// The transform that stands for `algorithm`, and the only one that does (R7296-3.3.5-1, R7296-3.3.5-2).
pub(super) fn transform<A: Algorithm>(algorithm: A) -> WireTransform {
    let attributes = algorithm.key_bits().map(Attribute::key_length).into_iter().collect();
    WireTransform { kind: A::KIND, id: algorithm.id(), attributes }
}

/// [`EspProposal::extended_sequence_numbers`] as algorithms.
pub(super) fn sequence_numbers(extended: &[bool]) -> Vec<SequenceNumbers> {
    extended.iter().copied().map(SequenceNumbers::from).collect()
}

/// Numbers are one octet: what is beyond 255 cannot be offered.
fn offer<P: Negotiable>(proposals: &[P], spi: &[u8]) -> Vec<WireProposal> {
    let numbered = (1..=u8::MAX).zip(proposals);
    numbered
        .map(|(number, proposal)| {
            let (protocol, spi) = (proposal.protocol(), spi.to_vec());
            WireProposal { number, protocol, spi, transforms: proposal.transforms() }
        })
        .collect()
}
