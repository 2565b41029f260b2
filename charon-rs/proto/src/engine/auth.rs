//! Authentication: what is proven in IKE_AUTH, to whom and how (RFC 7296 §2.15, RFC 7427, RFC 4739).
//!
//! Each end proves who it is in one round or several, and every round has the same three steps: a [`proof`] of ours, a
//! [`claim`](verdict::Claim) of the peer's, and the [`verdict`] on it. Pre-shared keys are at hand; private keys and the
//! judgement of certificates are the shell's, so that the steps may take their time.
//!
//! | module | what lives there |
//! |---|---|
//! | [`initiator`] | the stages of the initiator |
//! | [`responder`] | the stages of the responder, and who it takes its peer for |
//! | [`refusal`] | telling a peer that nothing comes of it |
//! | [`ppk`] | post-quantum pre-shared keys |
//! | [`proof`] | our proof |
//! | [`verdict`] | the peer's proof |
//! | [`psk`] | pre-shared keys |
//! | [`certificates`] | certificates and requests for them |

pub(super) mod certificates;
pub(super) mod initiator;
mod ppk;
mod proof;
mod psk;
pub(super) mod refusal;
pub(super) mod responder;
mod verdict;

use std::net::IpAddr;

use espdp_api::IkePath;

use super::intermediate::IntAuth;
use super::session::Session;
use crate::config::Connection;
use crate::crypto::auth::SignedOctets;
use crate::identity::Identity;
use crate::wire::{Identification, Role};

pub(super) use verdict::Authenticated;

/// Both IKE_SA_INIT messages that made the keys, as they were on the wire, and what authenticates those after them.
#[derive(Debug)]
pub(super) struct Transcript {
    pub(super) ours: Vec<u8>,
    pub(super) theirs: Vec<u8>,
    pub(super) intermediate: IntAuth,
}

impl Transcript {
    /// What the end in `role` signs when it says that it is `identification`.
    fn signed_octets(&self, session: &Session, role: Role, identification: &Identification) -> Vec<u8> {
        let message = if role == session.names.role { &self.ours } else { &self.theirs };
        let (sk_p, peer_nonce) = match role {
            Role::OriginalInitiator => (&session.keys.sk_pi, &session.nonce_r),
            Role::OriginalResponder => (&session.keys.sk_pr, &session.nonce_i),
        };
        let id_body = identification.octets();
        let signed = SignedOctets { message, peer_nonce, sk_p, id_body };
        [signed.concatenated(session.suite.prf), self.intermediate.octets()].concat()
    }
}

/// Who we say we are in a round, from 0: the configured identity, or our address. Where the peer has more rounds than we,
/// we stay who we were in our last one.
fn own_identity_in(connection: &Connection, round: usize, path: IkePath) -> Identity {
    let local = connection.local_rounds().take(round + 1).last();
    local.and_then(|local| local.identity.clone()).unwrap_or_else(|| identity_of(path.local.ip()))
}

/// The identity of somebody who is known by the address only.
fn identity_of(address: IpAddr) -> Identity {
    match address {
        IpAddr::V4(address) => Identity::Ipv4(address),
        IpAddr::V6(address) => Identity::Ipv6(address),
    }
}
