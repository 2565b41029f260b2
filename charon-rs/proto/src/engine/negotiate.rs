//! Proposals: what the engine asks of negotiation, and how its refusals become failures with both sides' view.

use super::failure::{Incompatible, Trouble};
use crate::config::Connection;
use crate::io::FailureCode;
use crate::proposal::{IkeAgreement, IkeProposal, Mismatch, negotiate_ike};
use crate::wire::{NotifyType, WireProposal};

/// Chooses from a peer's offer for an IKE SA. `group` is that of the public value that came along: if it will do, it is
/// taken, which saves a round trip.
pub(super) fn choose_ike(
    connection: &Connection,
    theirs: &[WireProposal],
    group: u16,
) -> Result<IkeAgreement, Trouble> {
    let ours = &connection.ike_proposals;
    let agreement = negotiate_ike(ours, theirs)
        .map_err(|mismatch| Trouble::Incompatible(Box::new(ike_incompatible(&mismatch, &connection.name))))?;
    if agreement.suite.group as u16 == group {
        return Ok(agreement);
    }
    let with_group: Vec<IkeProposal> = ours
        .iter()
        .map(|proposal| {
            let groups = proposal.groups.iter().copied().filter(|&ours| ours as u16 == group).collect();
            IkeProposal { groups, ..proposal.clone() }
        })
        .filter(|proposal| !proposal.groups.is_empty())
        .collect();
    let differs_by_group = |other: &IkeAgreement| {
        let (chosen, other) = (agreement.suite, other.suite);
        (chosen.cipher, chosen.integrity, chosen.prf) == (other.cipher, other.integrity, other.prf)
    };
    match negotiate_ike(&with_group, theirs) {
        Ok(other) if differs_by_group(&other) => Ok(other),
        // R7296-3.4-2.
        Ok(_) | Err(_) => Err(Trouble::WrongGroup { group: agreement.suite.group as u16 }),
    }
}

fn ike_incompatible(mismatch: &Mismatch, connection: &str) -> Incompatible {
    incompatible(mismatch, FailureCode::IkeNoProposal, &format!("connection `{connection}`"))
}

/// The failure of a child whose proposals the peer does not share.
pub(super) fn esp_incompatible(mismatch: &Mismatch, child: &str) -> Incompatible {
    incompatible(mismatch, FailureCode::ChildNoProposal, &format!("child `{child}`"))
}

fn incompatible(mismatch: &Mismatch, code: FailureCode, whose: &str) -> Incompatible {
    Incompatible {
        code,
        notify: NotifyType::NoProposalChosen,
        what: format!("{mismatch} ({whose})"),
        ours: mismatch.ours.clone(),
        theirs: mismatch.theirs.clone(),
        hint: Some(mismatch.hint.clone()),
    }
}
