//! Post-quantum pre-shared keys (RFC 8784): both ends have one already, and mix it into the keys before they prove who they
//! are.
//!
//! ```text
//! IKE_SA_INIT   N(USE_PPK)                                   -->
//!                                                            <--  N(USE_PPK)
//! IKE_AUTH      ..., N(PPK_IDENTITY)(id), [N(NO_PPK_AUTH)]   -->
//!                                                            <--  ..., [N(PPK_IDENTITY)]
//! ```
//!
//! AUTH is made with the key, NO_PPK_AUTH without; the latter stands only where the initiator can do without the key. The
//! responder says by PPK_IDENTITY that it has used it.

use std::collections::BTreeMap;

use super::verdict::Claim;
use crate::config::{Connection, PpkUse, SharedSecret};
use crate::crypto::schedule::IkeKeys;
use crate::engine::context::Context;
use crate::engine::failure::{Incompatible, Trouble};
use crate::engine::session::Session;
use crate::io::FailureCode;
use crate::rules::Body;
use crate::wire::{Identification, Notify, NotifyType, Payload};

/// A key that we, as the initiator, have mixed into the keys.
pub(super) struct Offered {
    id: Vec<u8>,
    /// The keys without it.
    pub(super) before: IkeKeys,
}

impl Offered {
    /// Mixes the key of the connection into the keys, if both ends can; `None` if the SA is to do without.
    pub(super) fn new(cx: &Context, session: &mut Session) -> Result<Option<Self>, Trouble> {
        let Some(PpkUse { id, required }) = session.connection.ppk.clone() else {
            return Ok(None);
        };
        let known = id.and_then(|id| find(&cx.ppks, &id).map(|key| (id, key)));
        match known {
            Some((id, key)) if session.extensions.ppk => {
                let mixed = session.keys.with_ppk(session.suite.prf, &key.secret);
                let before = std::mem::replace(&mut session.keys, mixed);
                Ok(Some(Self { id, before }))
            }
            // R8784-3-1.
            None if required => Err(refused(&session.connection, "we do not have the key that `ppk_id` names")),
            Some(_) if required => Err(refused(&session.connection, "the peer does not use post-quantum keys")),
            _ => Ok(None),
        }
    }

    /// PPK_IDENTITY, and the Authentication Data for a responder that does not have the key.
    pub(super) fn payloads(&self, without: Option<Vec<u8>>) -> Vec<Payload> {
        let identity = [&[FIXED_ID], self.id.as_slice()].concat();
        let named = Notify::with_data(NotifyType::PpkIdentity, identity);
        let without = without.map(|data| Notify::with_data(NotifyType::NoPpkAuth, data));
        std::iter::once(named).chain(without).map(Payload::Notify).collect()
    }

    /// Goes back to the keys without, unless the responder has used the key.
    pub(super) fn settle(self, session: &mut Session, body: &Body) -> Result<(), Trouble> {
        if body.has_notify(NotifyType::PpkIdentity) {
            return Ok(());
        }
        session.keys = self.before;
        check(&session.connection, None).map_err(|_| refused(&session.connection, "the peer does not have the key"))
    }
}

/// Mixes the key that the initiator names into the keys, and says which one it is; or goes on with the initiator's proof
/// without, if there is one.
pub(super) fn accept(
    cx: &Context,
    session: &mut Session,
    body: &Body,
    claim: &mut Claim,
) -> Result<Option<Vec<u8>>, Trouble> {
    let named = body.notify(NotifyType::PpkIdentity).filter(|_| session.extensions.ppk);
    let Some(named) = named else {
        return Ok(None);
    };
    let id = named.data.split_first().filter(|(kind, _)| **kind == FIXED_ID).map(|(_, id)| id.to_vec());
    if let Some((id, key)) = id.and_then(|id| find(&cx.ppks, &id).map(|key| (id, key))) {
        session.keys = session.keys.with_ppk(session.suite.prf, &key.secret);
        return Ok(Some(id));
    }
    match body.notify(NotifyType::NoPpkAuth) {
        Some(without) => {
            claim.authentication.data = without.data.clone();
            Ok(None)
        }
        None => Err(refused(&session.connection, "we do not have the key that the peer demands")),
    }
}

/// Whether a connection is content with the key that was used, or with none (R8784-3-1).
pub(super) fn check(connection: &Connection, used: Option<&[u8]>) -> Result<(), Trouble> {
    match &connection.ppk {
        Some(PpkUse { id, required: true }) => match (id, used) {
            (_, None) => Err(refused(connection, "the peer does not use one")),
            (Some(id), Some(used)) if id != used => Err(refused(connection, "the peer uses another one")),
            _ => Ok(()),
        },
        Some(PpkUse { required: false, .. }) | None => Ok(()),
    }
}

fn find<'a>(ppks: &'a BTreeMap<String, SharedSecret>, id: &[u8]) -> Option<&'a SharedSecret> {
    let is_named = |ppk: &&SharedSecret| {
        let octets = |owner| Identification::new(owner).octets().get(ID_HEADER..).map(<[u8]>::to_vec);
        ppk.owners.iter().cloned().any(|owner| octets(owner).as_deref() == Some(id))
    };
    ppks.values().find(is_named)
}

fn refused(connection: &Connection, why: &str) -> Trouble {
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::AuthPpkRefused,
        notify: NotifyType::AuthenticationFailed,
        what: format!("a post-quantum pre-shared key is demanded (connection `{}`), but {why}", connection.name),
        ours: Vec::new(),
        theirs: Vec::new(),
        hint: Some("give both ends the same key under the same identifier, and compare `ppk_id`".to_owned()),
        cure: None,
    }))
}

/// PPK_ID_FIXED (RFC 8784 §5.1): the same key each time.
const FIXED_ID: u8 = 2;

/// Type and reserved octets of an Identification payload.
const ID_HEADER: usize = 4;
