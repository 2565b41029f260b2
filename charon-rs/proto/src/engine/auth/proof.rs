//! Our proof of who we are, for one round.

use std::fmt;

use super::{Transcript, certificates, psk};
use crate::config::{LocalAuth, LocalMethod};
use crate::engine::context::{Asker, Context};
use crate::engine::failure::Trouble;
use crate::engine::session::Session;
use crate::identity::{Identity, IdentityPattern};
use crate::io::{Ask, CertificateData, CertificateRequest, ProofRefusal, SignRequest, Signed};
use crate::wire::{Authentication, AuthenticationMethod, Identification, Notify, NotifyType, Payload};

/// How far our proof is.
pub(super) enum Proving {
    /// It is made.
    Made(Proof),
    /// The shell was asked for it.
    Asked,
}

/// A proof of ours.
#[derive(Debug)]
pub(super) struct Proof {
    certificates: Vec<CertificateData>,
    authentication: Authentication,
}

/// Whom we want to convince.
#[derive(Clone, Copy, Debug)]
pub(super) enum Audience<'a> {
    /// The peer has said who it is.
    Named(&'a Identity),
    /// The peer will be one of these, and has this address.
    OneOf(&'a IdentityPattern, &'a Identity),
}

impl fmt::Display for Audience<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(identity) | Self::OneOf(IdentityPattern::Any, identity) => identity.fmt(f),
            Self::OneOf(pattern, _) => pattern.fmt(f),
        }
    }
}

/// Proves that we are `our_id`, or has the shell do so.
pub(super) fn prove(
    cx: &mut Context,
    session: &Session,
    transcript: &Transcript,
    (local, our_id): (&LocalAuth, &Identity),
    audience: Audience<'_>,
    requested: &[CertificateRequest],
) -> Result<Proving, Trouble> {
    let octets = transcript.signed_octets(session, session.names.role, &Identification::new(our_id.clone()));
    match &local.method {
        LocalMethod::PreSharedKey => {
            let data = psk::prove(&cx.secrets, session, &octets, our_id, audience)?;
            let authentication = Authentication { method: AuthenticationMethod::SharedKey, data };
            Ok(Proving::Made(Proof { certificates: Vec::new(), authentication }))
        }
        LocalMethod::Signature(credential) => {
            let request = SignRequest {
                credential: credential.clone(),
                identity: our_id.clone(),
                octets,
                peer_hashes: session.extensions.signature_hashes.clone(),
                with_certificates: certificates::are_sent(&session.connection, requested),
                requested: requested.to_vec(),
            };
            cx.ask(Asker::Signature(session.names.local_spi()), Ask::Sign(Box::new(request)));
            Ok(Proving::Asked)
        }
    }
}

/// Takes the proof that the shell made.
pub(super) fn on_signed(session: &Session, signed: Result<Signed, Box<ProofRefusal>>) -> Result<Proof, Trouble> {
    let Signed { method, data, certificates } = signed.map_err(|refusal| Trouble::proof_refused(*refusal))?;
    let method = AuthenticationMethod::from_number(method);
    // R7427-3-1: this method is for those who said that they know it.
    let is_known = method != AuthenticationMethod::DigitalSignature || session.extensions.signature_hashes.is_some();
    if !method.is_signature() || !is_known {
        return Err(Trouble::Local(format!("the signer made a proof by {method}, which the peer will not take")));
    }
    Ok(Proof { certificates, authentication: Authentication { method, data } })
}

impl Proof {
    /// The Authentication Data alone.
    pub(super) fn into_data(self) -> Vec<u8> {
        self.authentication.data
    }

    /// The payloads that say and prove that we are `id`: the certificates in front of the proof, what we want to know of
    /// the peer between them, and whether another round of ours follows (RFC 4739 §2.1).
    pub(super) fn into_payloads(self, id: Payload, wishes: Vec<Payload>, another_follows: bool) -> Vec<Payload> {
        let mut payloads = vec![id];
        payloads.extend(self.certificates.into_iter().map(Payload::Certificate));
        payloads.extend(wishes);
        payloads.push(Payload::Authentication(self.authentication));
        if another_follows {
            payloads.push(Payload::Notify(Notify::new(NotifyType::AnotherAuthFollows)));
        }
        payloads
    }
}
