//! Who wins when two exchanges meet (RFC 7296 §2.8.1, §2.8.2, §2.25): pure functions over what an SA is busy with.

/// What we are doing to a Child SA when a request about it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildActivity {
    /// Nothing.
    Idle,
    /// Our request to rekey it is on its way.
    Rekeying,
    /// We are deleting it, or it was replaced and its deletion is only a matter of time.
    Closing,
    /// It is not there (any more).
    Unknown,
    /// It is not there, but the answer to our request for a child is still to come, and may bring it.
    MayCome,
}

/// What we are doing to an IKE SA when a request about it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IkeActivity {
    /// Nothing that matters.
    Idle,
    /// We are creating, rekeying or deleting one of its Child SAs.
    ChangingChildren,
    /// Our request to rekey it is on its way.
    Rekeying,
    /// It was replaced, or we are deleting it.
    Closing,
}

/// What the peer wants of SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerWish {
    /// A new Child SA.
    CreateChild,
    /// A Child SA replaced.
    RekeyChild,
    /// The IKE SA replaced.
    RekeyIke,
}

/// What to say to a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Carry it out.
    GoAhead,
    /// Carry it out; when our own exchange is answered, nonces decide which of the two new SAs stays.
    GoAheadContested,
    /// Answer TEMPORARY_FAILURE.
    NotNow,
    /// Answer CHILD_SA_NOT_FOUND.
    NoSuchChild,
}

/// Decides about a CREATE_CHILD_SA request (RFC 7296 §2.25.1, §2.25.2). `child` is about the Child SA to be rekeyed and
/// counts only for [`PeerWish::RekeyChild`].
pub(super) fn judge_request(wish: PeerWish, ike: IkeActivity, child: ChildActivity) -> Verdict {
    match (wish, ike, child) {
        // R7296-2.25.2-1, and the SA that is going away takes no new children.
        (_, IkeActivity::Closing, _) => Verdict::NotNow,
        (PeerWish::CreateChild | PeerWish::RekeyChild, IkeActivity::Rekeying, _) => Verdict::NotNow,
        (PeerWish::CreateChild, IkeActivity::Idle | IkeActivity::ChangingChildren, _) => Verdict::GoAhead,
        (PeerWish::RekeyIke, IkeActivity::Idle, _) => Verdict::GoAhead,
        (PeerWish::RekeyIke, IkeActivity::ChangingChildren, _) => Verdict::NotNow,
        (PeerWish::RekeyIke, IkeActivity::Rekeying, _) => Verdict::GoAheadContested,
        (PeerWish::RekeyChild, _, ChildActivity::Idle) => Verdict::GoAhead,
        (PeerWish::RekeyChild, _, ChildActivity::Rekeying) => Verdict::GoAheadContested,
        // R7296-2.25.1-1.
        (PeerWish::RekeyChild, _, ChildActivity::Closing | ChildActivity::MayCome) => Verdict::NotNow,
        (PeerWish::RekeyChild, _, ChildActivity::Unknown) => Verdict::NoSuchChild,
    }
}

/// How a request to delete a Child SA is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeleteVerdict {
    /// Delete it and name our half in the response.
    DeleteBoth,
    /// Our own request is on its way: delete it and name nothing, since the peer learns our half from that request
    /// (R7296-1.4.1-2).
    DeleteSilently,
    /// Nothing to delete, nothing to name.
    Ignore,
}

/// Decides about a Delete payload for a Child SA (RFC 7296 §1.4.1, §2.25.1). `delete_sent` tells whether our own request
/// to delete it waits for its response.
pub(super) fn judge_delete(exists: bool, delete_sent: bool) -> DeleteVerdict {
    match (exists, delete_sent) {
        (false, _) => DeleteVerdict::Ignore,
        (true, true) => DeleteVerdict::DeleteSilently,
        (true, false) => DeleteVerdict::DeleteBoth,
    }
}

/// Whose exchange made the SA that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survivor {
    /// Ours: the peer deletes what its exchange made, and we delete what was replaced.
    Ours,
    /// The peer's: we delete what our exchange made.
    Theirs,
}

/// Two exchanges replaced the same SA: the one with the lowest of the four nonces is undone by the side that began it
/// (RFC 7296 §2.8.1, R7296-2.8.1-1). Nonces are compared octet by octet, and a nonce that ends first is the lower one.
pub(super) fn survivor(our_exchange: [&[u8]; 2], their_exchange: [&[u8]; 2]) -> Survivor {
    if our_exchange.iter().min() < their_exchange.iter().min() { Survivor::Theirs } else { Survivor::Ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R7296-2.25.1-1, R7296-2.25.2-1.
    #[test]
    fn requests_that_meet_are_judged_by_the_table_of_the_rfc() {
        use ChildActivity as Child;
        use IkeActivity as Ike;
        use PeerWish::{CreateChild, RekeyChild, RekeyIke};
        use Verdict::{GoAhead, GoAheadContested, NoSuchChild, NotNow};
        let table = [
            (CreateChild, Ike::Idle, Child::Unknown, GoAhead),
            (CreateChild, Ike::ChangingChildren, Child::Unknown, GoAhead),
            (CreateChild, Ike::Rekeying, Child::Unknown, NotNow),
            (CreateChild, Ike::Closing, Child::Unknown, NotNow),
            (RekeyChild, Ike::Idle, Child::Idle, GoAhead),
            (RekeyChild, Ike::Idle, Child::Unknown, NoSuchChild),
            (RekeyChild, Ike::ChangingChildren, Child::Idle, GoAhead),
            (RekeyChild, Ike::ChangingChildren, Child::Rekeying, GoAheadContested),
            (RekeyChild, Ike::ChangingChildren, Child::Closing, NotNow),
            (RekeyChild, Ike::ChangingChildren, Child::Unknown, NoSuchChild),
            (RekeyChild, Ike::ChangingChildren, Child::MayCome, NotNow),
            (RekeyChild, Ike::Rekeying, Child::Idle, NotNow),
            (RekeyChild, Ike::Closing, Child::Idle, NotNow),
            (RekeyIke, Ike::Idle, Child::Unknown, GoAhead),
            (RekeyIke, Ike::ChangingChildren, Child::Unknown, NotNow),
            (RekeyIke, Ike::Rekeying, Child::Unknown, GoAheadContested),
            (RekeyIke, Ike::Closing, Child::Unknown, NotNow),
        ];
        for (wish, ike, child, verdict) in table {
            assert_eq!(judge_request(wish, ike, child), verdict, "{wish:?} while {ike:?} and {child:?}");
        }
    }

    /// R7296-1.4.1-2.
    #[test]
    fn deletes_that_cross_name_nothing_in_their_responses() {
        assert_eq!(judge_delete(true, false), DeleteVerdict::DeleteBoth);
        assert_eq!(judge_delete(true, true), DeleteVerdict::DeleteSilently);
        assert_eq!(judge_delete(false, false), DeleteVerdict::Ignore);
        assert_eq!(judge_delete(false, true), DeleteVerdict::Ignore);
    }

    /// R7296-2.8.1-1.
    #[test]
    fn the_lowest_of_four_nonces_loses_and_both_ends_agree() {
        let nonces: [&[u8]; 4] = [&[1, 9], &[1, 9, 0], &[2], &[0xff]];
        for (position, lowest) in [(0, nonces[0]), (1, nonces[0]), (2, nonces[0]), (3, nonces[0])] {
            let mut four = [nonces[1], nonces[2], nonces[3], nonces[3]];
            four[position] = lowest;
            let (ours, theirs) = ([four[0], four[1]], [four[2], four[3]]);
            let expected = if position < 2 { Survivor::Theirs } else { Survivor::Ours };
            assert_eq!(survivor(ours, theirs), expected);
            assert_ne!(survivor(theirs, ours), expected, "the peer sees the other side of the same decision");
        }
    }
}
