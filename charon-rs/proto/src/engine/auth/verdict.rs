//! The peer's proof of who it is, for one round, and what we think of it.

use super::certificates;
use super::{Transcript, psk};
use crate::config::{Connection, RemoteAuth, RemoteMethod};
use crate::engine::context::{Asker, Context};
use crate::engine::failure::{Incompatible, Trouble};
use crate::engine::session::Session;
use crate::identity::Identity;
use crate::io::{Ask, CertificateData, Cure, FailureCode, ProofRefusal, RemarkLevel, Verified, VerifyRequest};
use crate::rules::{Body, Violation};
use crate::wire::{Authentication, AuthenticationMethod, Identification, NotifyType, PayloadType, Role};

/// The peer proved one identity. Only [`judge`] and [`Judging::settle`] make it, so no SA is established without.
#[derive(Clone, Debug)]
pub(super) struct PeerAuthenticated(Identity);

/// Both identities of an SA, and the proof that the peer's is true. An SA that replaces another has a copy of it.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Authenticated {
    pub(in crate::engine) local_id: Identity,
    /// That of the first round.
    pub(in crate::engine) remote_id: Identity,
    /// Never read: that it is here means that nobody forgot to check.
    _peer: Vec<PeerAuthenticated>,
}

/// The rounds that the peer has passed.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<PeerAuthenticated>);

impl Passed {
    pub(super) fn push(&mut self, peer: PeerAuthenticated) {
        self.0.push(peer);
    }

    /// The peer is authentic if it has passed all rounds of the connection.
    pub(super) fn complete(self, connection: &Connection, local_id: Identity) -> Result<Authenticated, Trouble> {
        match self.0.first() {
            Some(PeerAuthenticated(first)) if self.0.len() == connection.remote_rounds().count() => {
                Ok(Authenticated { local_id, remote_id: first.clone(), _peer: self.0 })
            }
            _ => Err(round_missing(connection)),
        }
    }

    /// The peer as it named itself last.
    pub(super) fn last(&self) -> Option<&Identity> {
        self.0.last().map(|PeerAuthenticated(identity)| identity)
    }
}

/// Who the peer says it is in one round, and its proof.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) identification: Identification,
    pub(super) authentication: Authentication,
    certificates: Vec<CertificateData>,
    /// The peer wants to prove another identity after this one (RFC 4739 §2.1).
    pub(super) another_follows: bool,
}

impl Claim {
    /// The claim in an IKE_AUTH message of the end in `role`; `None` if it makes none.
    pub(super) fn read(body: &Body, role: Role) -> Result<Option<Self>, Trouble> {
        let identification = match role {
            Role::OriginalInitiator => body.id_initiator(),
            Role::OriginalResponder => body.id_responder(),
        };
        let (identification, authentication) = match (identification, body.authentication()) {
            (Ok(identification), Ok(authentication)) => (identification.clone(), authentication.clone()),
            (Err(_), Err(_)) => return Ok(None),
            (Err(violation), Ok(_)) => return Err(violation.into()),
            (Ok(identification), Err(_)) if role == Role::OriginalInitiator => return Err(wants_eap(identification)),
            (Ok(_), Err(violation)) => return Err(violation.into()),
        };
        Ok(Some(Self {
            identification,
            authentication,
            certificates: certificates::received(body)?,
            another_follows: body.has_notify(NotifyType::AnotherAuthFollows),
        }))
    }

    /// The identity, if it is of a type that we know.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identification.identity()
    }

    /// The identity for people.
    pub(super) fn name(&self) -> String {
        self.identity().map_or_else(|| "of an unknown type".to_owned(), ToString::to_string)
    }

    /// Whether the method is the one that is demanded.
    pub(super) fn is_made_by(&self, demanded: &RemoteMethod) -> bool {
        match demanded {
            RemoteMethod::PreSharedKey => self.authentication.method == AuthenticationMethod::SharedKey,
            RemoteMethod::Signature(_) => self.authentication.method.is_signature(),
        }
    }
}

/// What is thought of a claim.
pub(super) enum Verdict {
    /// It is true.
    True(PeerAuthenticated),
    /// The shell was asked.
    Asked(Judging),
}

/// The shell judges a claim.
#[derive(Debug)]
pub(super) struct Judging(Identity);

/// Judges a claim by what `remote` demands, or has the shell do so.
pub(super) fn judge(
    cx: &mut Context,
    session: &Session,
    transcript: &Transcript,
    (remote, claim): (&RemoteAuth, &Claim),
    our_id: &Identity,
) -> Result<Verdict, Trouble> {
    let Some(identity) = claim.identity().filter(|identity| remote.identity.matches(identity)) else {
        return Err(id_refused(remote, claim));
    };
    if !claim.is_made_by(&remote.method) {
        return Err(method_refused(&remote.method, claim));
    }
    let octets = transcript.signed_octets(session, session.names.role.peer(), &claim.identification);
    match &remote.method {
        RemoteMethod::PreSharedKey => {
            psk::verify(&cx.secrets, session, &octets, &claim.authentication.data, (our_id, identity))?;
            Ok(Verdict::True(PeerAuthenticated(identity.clone())))
        }
        RemoteMethod::Signature(trust) => {
            let request = VerifyRequest {
                connection: session.connection.name.clone(),
                trust: trust.name.clone(),
                identity: identity.clone(),
                octets,
                method: claim.authentication.method.number(),
                data: claim.authentication.data.clone(),
                certificates: claim.certificates.clone(),
            };
            cx.ask(Asker::Judgement(session.names.local_spi()), Ask::Verify(Box::new(request)));
            Ok(Verdict::Asked(Judging(identity.clone())))
        }
    }
}

impl Judging {
    /// Takes the shell's judgement.
    pub(super) fn settle(
        self,
        cx: &mut Context,
        session: &Session,
        judgement: Result<Verified, Box<ProofRefusal>>,
    ) -> Result<PeerAuthenticated, Trouble> {
        let Self(identity) = self;
        let Verified { evidence } = judgement.map_err(|refusal| Trouble::proof_refused(*refusal))?;
        let text = format!("the peer is `{identity}`: {evidence}");
        cx.remark(Some(&session.connection.name), RemarkLevel::Debug, text);
        Ok(PeerAuthenticated(identity))
    }
}

/// What the peer must do in round number `round` (from 0) is what it does: there is a claim if and only if one is
/// demanded, and another one follows if and only if another one is demanded.
pub(super) fn check_round(connection: &Connection, round: usize, claim: Option<&Claim>) -> Result<(), Trouble> {
    let demanded = |round| connection.remote_rounds().nth(round).is_some();
    match claim {
        None if demanded(round) => Err(round_missing(connection)),
        Some(claim) if !claim.another_follows && demanded(round + 1) => Err(round_missing(connection)),
        Some(claim) if !demanded(round) || (claim.another_follows && !demanded(round + 1)) => {
            Err(round_unexpected(connection, claim))
        }
        _ => Ok(()),
    }
}

fn refusal(code: FailureCode, what: String, ours: Vec<String>, theirs: Vec<String>, hint: &str) -> Trouble {
    curable(code, what, (ours, theirs), hint, None)
}

/// A refusal with the value that the deciding key would have to have.
fn curable(
    code: FailureCode,
    what: String,
    (ours, theirs): (Vec<String>, Vec<String>),
    hint: &str,
    value: Option<String>,
) -> Trouble {
    let (notify, hint) = (NotifyType::AuthenticationFailed, Some(hint.to_owned()));
    let cure = code.deciding_key().zip(value).map(|(key, value)| Cure::new(key, Some(value)));
    Trouble::Incompatible(Box::new(Incompatible { code, notify, what, ours, theirs, hint, cure }))
}

fn id_refused(remote: &RemoteAuth, claim: &Claim) -> Trouble {
    let (pattern, theirs) = (&remote.identity, claim.name());
    let value = claim.identity().map(ToString::to_string);
    curable(
        FailureCode::AuthIdRefused,
        format!("the peer's identity is `{theirs}`, expected `{pattern}`"),
        (vec![pattern.to_string()], vec![theirs]),
        "set `rightid` to the identity that the peer has",
        value,
    )
}

/// The method is not the one that is demanded.
pub(super) fn method_refused(demanded: &RemoteMethod, claim: &Claim) -> Trouble {
    let (ours, method) = (name_of(demanded), claim.authentication.method);
    let value = match demanded {
        RemoteMethod::Signature(_) => "psk",
        RemoteMethod::PreSharedKey => "pubkey",
    };
    curable(
        FailureCode::AuthMethodRefused,
        format!("the peer `{}` authenticates itself by {method}, expected {ours}", claim.name()),
        (vec![ours.to_owned()], vec![method.to_string()]),
        "set `rightauth` to what the peer does, or have the peer do what the connection wants",
        Some(value.to_owned()),
    )
}

fn name_of(method: &RemoteMethod) -> &'static str {
    match method {
        RemoteMethod::PreSharedKey => "pre-shared key",
        RemoteMethod::Signature(_) => "signature",
    }
}

/// RFC 7296 §2.16: a first request without AUTH asks for EAP.
fn wants_eap(identification: &Identification) -> Trouble {
    let theirs = identification.identity().map_or_else(|| "of an unknown type".to_owned(), ToString::to_string);
    refusal(
        FailureCode::AuthMethodRefused,
        format!("the peer `{theirs}` wants to authenticate itself by EAP"),
        vec!["pre-shared key or signature".to_owned()],
        vec!["EAP".to_owned()],
        "have the peer use a pre-shared key or a certificate",
    )
}

fn rounds_of(connection: &Connection) -> Vec<String> {
    let rounds = connection.remote_rounds();
    rounds.map(|remote| format!("{} as `{}`", name_of(&remote.method), remote.identity)).collect()
}

fn round_missing(connection: &Connection) -> Trouble {
    refusal(
        FailureCode::AuthRoundMissing,
        format!("connection `{}` demands more rounds of authentication than the peer goes through", connection.name),
        rounds_of(connection),
        Vec::new(),
        "have the peer authenticate itself in all rounds (RFC 4739), or demand fewer",
    )
}

fn round_unexpected(connection: &Connection, claim: &Claim) -> Trouble {
    refusal(
        FailureCode::AuthRoundUnexpected,
        format!("connection `{}` has fewer rounds of authentication than the peer wants", connection.name),
        rounds_of(connection),
        vec![format!("{} as `{}`, and another", claim.authentication.method, claim.name())],
        "add the peer's further rounds to the connection (RFC 4739), or have it do fewer",
    )
}

/// What RFC 7296 demands of a message that should have a claim.
pub(super) fn missing_id(form: &'static str, role: Role) -> Trouble {
    let payload = match role {
        Role::OriginalInitiator => PayloadType::IdInitiator,
        Role::OriginalResponder => PayloadType::IdResponder,
    };
    Violation::Missing { form, payload }.into()
}
