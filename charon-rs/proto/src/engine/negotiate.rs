//! Proposals: what the engine asks of negotiation, and how its refusals become failures with both sides' view.

use std::borrow::Cow;

use super::failure::{Incompatible, Trouble};
use crate::config::Connection;
use crate::io::{Cure, FailureCode};
use crate::proposal::{IkeAgreement, IkeProposal, IkeSuite, Mismatch, negotiate_ike};
use crate::wire::{NotifyType, WireProposal};

/// Chooses from a peer's offer for an IKE SA. `group` is that of the public value that came along: if it will do, it is
/// taken, which saves a round trip. Additional key exchanges may be chosen if the peer said that it can do them now.
pub(super) fn choose_ike(
    connection: &Connection,
    theirs: &[WireProposal],
    group: u16,
    rounds: RoundsAllowed,
) -> Result<IkeAgreement, Trouble> {
    let ours: Cow<'_, [IkeProposal]> = match rounds {
        RoundsAllowed::Yes => Cow::Borrowed(&connection.ike_proposals),
        RoundsAllowed::No => connection.ike_proposals.iter().filter_map(IkeProposal::without_rounds).collect(),
    };
    let ours = ours.as_ref();
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
            && chosen.additional == other.additional
    };
    match negotiate_ike(&with_group, theirs) {
        Ok(other) if differs_by_group(&other) => Ok(other),
        // R7296-3.4-2.
        Ok(_) | Err(_) => Err(Trouble::WrongGroup { group: agreement.suite.group as u16 }),
    }
}

/// Whether additional key exchanges (RFC 9370) may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoundsAllowed {
    Yes,
    /// The peer did not announce IKE_INTERMEDIATE in IKE_SA_INIT.
    No,
}

/// Whether a connection accepts the algorithms that were agreed on before it was known who the peer is.
pub(super) fn accepts(connection: &Connection, suite: IkeSuite) -> bool {
    connection.ike_proposals.iter().any(|ours| {
        ours.ciphers.contains(&suite.cipher)
            && suite.integrity.is_none_or(|integrity| ours.integrity.contains(&integrity))
            && ours.prfs.contains(&suite.prf)
            && ours.groups.contains(&suite.group)
            && suite.additional.is_among(&ours.additional)
    })
}

/// The failure of an authentic peer whose connection does not accept the algorithms.
pub(super) fn suite_refused(connection: &Connection, suite: IkeSuite) -> Trouble {
    let agreed = IkeProposal {
        ciphers: vec![suite.cipher],
        integrity: suite.integrity.into_iter().collect(),
        prfs: vec![suite.prf],
        groups: vec![suite.group],
        additional: suite.additional.to_rounds(),
    };
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::IkeNoProposal,
        notify: NotifyType::AuthenticationFailed,
        what: format!("the peer is that of connection `{}`, which does not accept {agreed}", connection.name),
        ours: connection.ike_proposals.iter().map(ToString::to_string).collect(),
        theirs: vec![agreed.to_string()],
        hint: Some("another connection for the same addresses accepts it: give both the same `ike`".to_owned()),
        cure: None,
    }))
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
        cure: code.deciding_key().map(|key| Cure::new(key, mismatch.value.clone())),
    }
}
