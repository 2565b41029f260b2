//! strongSwan 6 as the peer, for what version 5 cannot. Needs root, strongSwan, and the folder that
//! `tests/interop/install-strongswan6` fills.

use anyhow::Result;
use harness::Version;
use interop::{Case, Pair};

fn six() -> Case<'static> {
    Case { their_version: Version::Six, ..Case::default() }
}

#[test]
fn a_tunnel_comes_up_from_either_side() -> Result<()> {
    let pair = Pair::two_sites(six())?;
    pair.up_from_ours()?;
    pair.expect_pings()?;
    pair.ours.expect_ctl(&["down", "net"])?;
    pair.up_from_theirs()?;
    pair.expect_pings()
}
