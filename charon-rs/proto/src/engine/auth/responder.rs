//! IKE_AUTH as its responder (RFC 7296 §1.2, RFC 4739 §2.1).
//!
//! Judging the initiator → proving who we are → [listening](Stage::Listening) for the next round, if there is one → the
//! same again → established, or [`super::refusal::Refused`]. The initiator goes first: who cannot prove anything costs us
//! no signature.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::proof::{Audience, Proof, Proving, on_signed, prove};
use super::verdict::{
    Authenticated, Claim, Judging, Passed, PeerAuthenticated, Verdict, check_round, judge, method_refused, missing_id,
};
use super::{certificates, own_identity_in, ppk};
use crate::config::{Childless, Connection};
use crate::engine::context::Context;
use crate::engine::create_child::has_child_for;
use crate::engine::established::{Established, Request};
use crate::engine::extensions::{may_be_childless, window_announcement};
use crate::engine::failure::{Incompatible, Trouble, abridged};
use crate::engine::ike_sa::{FollowUp, IkeSa, Received};
use crate::engine::mobike::{Mobike, announcement, nat_not_allowed, unexpected_nat};
use crate::engine::negotiate::{accepts, suite_refused};
use crate::engine::responder::HalfOpen;
use crate::engine::session::{Opened, Session};
use crate::engine::uniqueness::admit_newcomer;
use crate::engine::window::OurWindow;
use crate::identity::Identity;
use crate::io::{
    CertificateRequest, ConfigKey, Cure, FailureCode, ProofRefusal, RemarkLevel, Signed, TimerKind, Verified,
};
use crate::rules::{Body, LATER_AUTH_REQUEST};
use crate::wire::{Identification, Notify, NotifyType, Payload, Role};

/// An IKE SA that a peer sets up who has begun to say who it is.
pub(in crate::engine) struct ResponderAuth {
    pub(in crate::engine) handshake: Handshake,
    stage: Stage,
}

/// What there is in all stages.
pub(in crate::engine) struct Handshake {
    pub(in crate::engine) half_open: HalfOpen,
    /// The first request, with the child that the peer wants.
    first: Body,
    /// Whose certificates are of use to the peer.
    requested: Vec<CertificateRequest>,
    /// The identifier of the post-quantum key that is mixed in.
    ppk: Option<Vec<u8>>,
    /// Exchanges that are done.
    round: usize,
    passed: Passed,
}

enum Stage {
    /// The shell judges the peer's signature.
    Judging(Request, Judging, Box<Trial>),
    /// The shell makes our signature.
    Proving(Request),
    /// The request of the next round is awaited.
    Listening,
}

/// A peer's claim, and the connections that it may be for.
#[derive(Debug)]
struct Trial {
    claim: Claim,
    /// Those that are left to try, the one at hand first.
    candidates: VecDeque<Arc<Connection>>,
    /// Why the first of them did not accept it.
    trouble: Option<(Arc<Connection>, Trouble)>,
}

impl ResponderAuth {
    /// Begins with the first request.
    pub(in crate::engine) fn begin(
        cx: &mut Context,
        now: Instant,
        mut half_open: HalfOpen,
        request: Request,
        mut body: Body,
    ) -> Option<IkeSa> {
        half_open.session.extensions.add_announced_in_auth(body.notifies());
        let read = Claim::read(&body, Role::OriginalInitiator)
            .and_then(|claim| claim.ok_or_else(|| missing_id("IKE_AUTH request", Role::OriginalInitiator)))
            .and_then(|mut claim| {
                let candidates = choose(cx, &mut half_open, &claim, &body)?;
                let ppk = ppk::accept(cx, &mut half_open.session, &body, &mut claim)?;
                Ok((candidates, claim, ppk))
            });
        let (candidates, claim, ppk) = match read {
            Ok(read) => read,
            Err(trouble) => return half_open.refuse(cx, now, request, trouble),
        };
        if half_open.session.connection.mobike && unexpected_nat(body.notifies(), request.path) {
            return half_open.refuse(cx, now, request, nat_not_allowed());
        }
        let requested = certificates::requested(&body);
        body.drop_certificates();
        let handshake = Handshake { half_open, first: body, requested, ppk, round: 0, passed: Passed::default() };
        handshake.judge(cx, now, request, Trial::new(claim, candidates))
    }

    /// The stage for those who test all of them.
    #[cfg(test)]
    pub(in crate::engine) fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Judging(..) => "judging the initiator",
            Stage::Proving(_) => "proving to the initiator",
            Stage::Listening => "listening",
        }
    }

    fn keep(self) -> Option<IkeSa> {
        self.handshake.wait(self.stage)
    }

    /// Takes the shell's judgement of the peer's proof. Another connection may accept what this one does not.
    pub(in crate::engine) fn on_verified(
        self,
        cx: &mut Context,
        now: Instant,
        verified: Result<Verified, Box<ProofRefusal>>,
    ) -> Option<IkeSa> {
        let Self { handshake, stage } = self;
        let Stage::Judging(request, judging, mut trial) = stage else {
            return handshake.wait(stage);
        };
        match judging.settle(cx, &handshake.half_open.session, verified) {
            Ok(peer) => handshake.accept(cx, now, request, peer),
            Err(trouble) => {
                trial.rule_out_first(&handshake, trouble);
                handshake.judge(cx, now, request, trial)
            }
        }
    }

    /// Takes our proof from the shell.
    pub(in crate::engine) fn on_signed(
        self,
        cx: &mut Context,
        now: Instant,
        signed: Result<Signed, Box<ProofRefusal>>,
    ) -> Option<IkeSa> {
        let Self { handshake, stage: Stage::Proving(request) } = self else {
            return self.keep();
        };
        match on_signed(&handshake.half_open.session, signed) {
            Ok(proof) => handshake.respond(cx, now, request, Some(proof)),
            Err(trouble) => handshake.half_open.refuse(cx, now, request, trouble),
        }
    }

    /// Takes the request of the next round. Nothing but IKE_AUTH is heard (R7296-1-1, R7296-1.4-1).
    pub(in crate::engine) fn on_message(
        mut self,
        cx: &mut Context,
        now: Instant,
        received: &Received<'_>,
    ) -> Option<IkeSa> {
        let Some((request, opened)) = self.handshake.half_open.receive(cx, now, received) else {
            return self.keep();
        };
        let handshake = self.handshake;
        let connection = handshake.half_open.session.connection.clone();
        let read = opened.map_err(Trouble::from).and_then(|Opened { payloads, .. }| {
            let body = LATER_AUTH_REQUEST.check(payloads)?;
            let claim = Claim::read(&body, Role::OriginalInitiator)?;
            check_round(&connection, handshake.round, claim.as_ref())?;
            Ok(claim)
        });
        match read {
            Ok(Some(claim)) => {
                let candidates = [connection].into();
                handshake.judge(cx, now, request, Trial::new(claim, candidates))
            }
            Ok(None) => handshake.prove(cx, now, request),
            Err(trouble) => handshake.half_open.refuse(cx, now, request, trouble),
        }
    }

    pub(in crate::engine) fn on_timeout(self, cx: &mut Context, now: Instant) -> Option<IkeSa> {
        let waits_for = match &self.stage {
            Stage::Judging(..) => Some("judgement of the peer's signature"),
            Stage::Proving(_) => Some("signature"),
            Stage::Listening => None,
        };
        if self.deadline().0 > now {
            return self.keep();
        }
        self.handshake.half_open.give_up(cx, waits_for.map(Trouble::shell_is_silent));
        None
    }

    pub(in crate::engine) fn deadline(&self) -> (Instant, TimerKind) {
        self.handshake.half_open.deadline()
    }
}

impl Handshake {
    fn wait(self, stage: Stage) -> Option<IkeSa> {
        Some(IkeSa::ResponderAuth(Box::new(ResponderAuth { handshake: self, stage })))
    }

    /// Judges the claim for one connection after the other, until one accepts it.
    fn judge(mut self, cx: &mut Context, now: Instant, request: Request, mut trial: Box<Trial>) -> Option<IkeSa> {
        while let Some(connection) = trial.candidates.front().cloned() {
            let session = &mut self.half_open.session;
            session.connection = connection.clone();
            let our_id = own_identity_in(&connection, self.round, session.path);
            let remote = connection.remote_rounds().nth(self.round);
            let judged = match (remote, ppk::check(&connection, self.ppk.as_deref())) {
                (_, Err(trouble)) => Err(trouble),
                (Some(remote), Ok(())) => {
                    judge(cx, session, &self.half_open.transcript, (remote, &trial.claim), &our_id)
                }
                (None, Ok(())) => Err(Trouble::Local("there is no such round".to_owned())),
            };
            match judged {
                Ok(Verdict::True(peer)) => return self.accept(cx, now, request, peer),
                Ok(Verdict::Asked(judging)) => return self.wait(Stage::Judging(request, judging, trial)),
                Err(trouble) => trial.rule_out_first(&self, trouble),
            }
        }
        let (connection, trouble) = trial.trouble?;
        self.half_open.session.connection = connection;
        self.half_open.refuse(cx, now, request, trouble)
    }

    /// The peer is who it says in this round.
    fn accept(mut self, cx: &mut Context, now: Instant, request: Request, peer: PeerAuthenticated) -> Option<IkeSa> {
        self.passed.push(peer);
        self.prove(cx, now, request)
    }

    /// Proves who we are in this round, if we have as many, to the peer as it named itself last.
    fn prove(self, cx: &mut Context, now: Instant, request: Request) -> Option<IkeSa> {
        let HalfOpen { session, transcript, .. } = &self.half_open;
        let connection = session.connection.clone();
        let local = connection.local_rounds().nth(self.round);
        let (Some(local), Some(peer)) = (local, self.passed.last()) else {
            return self.respond(cx, now, request, None);
        };
        let our_id = own_identity_in(&connection, self.round, session.path);
        match prove(cx, session, transcript, (local, &our_id), Audience::Named(peer), &self.requested) {
            Ok(Proving::Made(proof)) => self.respond(cx, now, request, Some(proof)),
            Ok(Proving::Asked) => self.wait(Stage::Proving(request)),
            Err(trouble) => self.half_open.refuse(cx, now, request, trouble),
        }
    }

    /// Answers the request of this round: with the child as well if it is the last.
    fn respond(mut self, cx: &mut Context, now: Instant, request: Request, proof: Option<Proof>) -> Option<IkeSa> {
        let session = &self.half_open.session;
        let connection = session.connection.clone();
        let mut payloads = proof.map_or_else(Vec::new, |proof| {
            let our_id = own_identity_in(&connection, self.round, session.path);
            let another_follows = connection.local_rounds().nth(self.round + 1).is_some();
            proof.into_payloads(Payload::IdResponder(Identification::new(our_id)), Vec::new(), another_follows)
        });
        if self.round == 0 && self.ppk.is_some() {
            payloads.push(Payload::Notify(Notify::new(NotifyType::PpkIdentity)));
        }
        self.round += 1;
        if connection.has_round(self.round) {
            return match self.half_open.answer(cx, now, request, &payloads) {
                Some(()) => self.wait(Stage::Listening),
                None => None,
            };
        }
        let local_id = own_identity_in(&connection, 0, session.path);
        match std::mem::take(&mut self.passed).complete(&connection, local_id) {
            Ok(who) => {
                self.half_open.session.connection = self.connection_with_child(cx);
                match self.admit(cx, &who) {
                    Ok(()) => Some(self.establish(cx, now, request, who, payloads)),
                    Err(trouble) => self.half_open.refuse(cx, now, request, trouble),
                }
            }
            Err(trouble) => self.half_open.refuse(cx, now, request, trouble),
        }
    }

    /// Another IKE SA of the same identities may be in the way.
    fn admit(&self, cx: &Context, who: &Authenticated) -> Result<(), Trouble> {
        let session = &self.half_open.session;
        let (identities, address) = ((&who.local_id, &who.remote_id), session.path.remote.ip());
        admit_newcomer(cx, &session.connection, identities, address, self.first.has_notify(NotifyType::InitialContact))
    }

    fn establish(
        self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        who: Authenticated,
        mut proof: Vec<Payload>,
    ) -> IkeSa {
        let Self { half_open: HalfOpen { session, theirs, began, .. }, first, .. } = self;
        if first.has_notify(NotifyType::InitialContact) {
            cx.follow_up(FollowUp::InitialContact { spi: session.names.local_spi(), began });
        }
        let mut sa = Established::new(cx, (began, now), session, who, (OurWindow::starting_at(0), theirs));
        sa.mobike = Mobike::agreed(cx, &sa.session, first.notifies(), false);
        if sa.mobike.is_some() {
            proof.extend(announcement(cx, &sa.session, false));
        }
        proof.extend(window_announcement(&cx.settings));
        sa.come_up(cx);
        if sa.session.nat.encapsulates() && sa.session.path.local.port() != cx.settings.nat_port {
            let text = "there is a NAT, and the peer stays on the port of plain IKE: ESP goes without UDP";
            cx.remark(Some(sa.connection_name()), RemarkLevel::Info, text);
        }
        sa.serve_ike_auth(cx, now, request, proof, &first);
        IkeSa::Established(Box::new(sa))
    }

    /// Several connections may be for the very same peer; then the one with the right child is meant.
    fn connection_with_child(&self, cx: &Context) -> Arc<Connection> {
        let session = &self.half_open.session;
        let accepting = &session.connection;
        let candidates = cx.connections.of_path(self.half_open.source).into_iter();
        let mut with_child = candidates.filter(|connection| {
            is_for_same_peer(connection, accepting)
                && accepts(connection, session.suite)
                && ppk::check(connection, self.ppk.as_deref()).is_ok()
                && has_child_for(session, connection, &self.first)
        });
        with_child.next().unwrap_or_else(|| accepting.clone())
    }
}

impl Trial {
    fn new(claim: Claim, candidates: VecDeque<Arc<Connection>>) -> Box<Self> {
        Box::new(Self { claim, candidates, trouble: None })
    }

    /// The first of the candidates does not accept the claim, and neither do those that demand the same.
    fn rule_out_first(&mut self, handshake: &Handshake, trouble: Trouble) {
        let Some(first) = self.candidates.pop_front() else {
            return;
        };
        let path = handshake.half_open.session.path;
        let demands = |connection: &Connection| {
            let remote = connection.remote_rounds().nth(handshake.round).map(|remote| remote.method.clone());
            (remote, own_identity_in(connection, handshake.round, path), connection.ppk.clone())
        };
        let refused = demands(&first);
        self.candidates.retain(|connection| demands(connection) != refused);
        self.trouble.get_or_insert((first, trouble));
    }
}

fn is_for_same_peer(a: &Connection, b: &Connection) -> bool {
    let who = |connection: &'_ Connection| {
        let local: Vec<_> = connection.local_rounds().cloned().collect();
        let remote: Vec<_> = connection.remote_rounds().cloned().collect();
        (local, remote)
    };
    a.remote_addresses == b.remote_addresses && who(a) == who(b)
}

/// The connections that may be meant, the most specific first.
fn choose(
    cx: &Context,
    half_open: &mut HalfOpen,
    claim: &Claim,
    body: &Body,
) -> Result<VecDeque<Arc<Connection>>, Trouble> {
    let all = cx.connections.of_path(half_open.source);
    let (mut meant, mut nearest) = (VecDeque::new(), None);
    for connection in &all {
        match objection(half_open, connection, claim, body) {
            None => meant.push_back(connection.clone()),
            Some(objection) => {
                if nearest.as_ref().is_none_or(|(nearest, _)| objection > *nearest) {
                    nearest = Some((objection, connection));
                }
            }
        }
    }
    if !meant.is_empty() {
        meant.truncate(MAX_CANDIDATES);
        return Ok(meant);
    }
    let session = &mut half_open.session;
    let Some((objection, connection)) = nearest.filter(|(objection, _)| *objection != Objection::Identity) else {
        return Err(id_refused(&all, session, claim, body));
    };
    session.connection = connection.clone();
    Err(match objection {
        Objection::Suite => suite_refused(connection, session.suite),
        Objection::Identity | Objection::Method => method_refused(&connection.remote.method, claim),
        Objection::Rounds => rounds_refused(connection, session, claim),
        Objection::WantsChild => Trouble::childless_refused(connection, "the peer wants no Child SA to begin with"),
        Objection::WantsNoChild => Trouble::childless_refused(connection, "the peer wants a Child SA at once"),
    })
}

/// Why a connection cannot be the one that is meant; of two the later one is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Objection {
    Identity,
    Suite,
    Method,
    Rounds,
    WantsChild,
    WantsNoChild,
}

fn objection(half_open: &HalfOpen, connection: &Connection, claim: &Claim, body: &Body) -> Option<Objection> {
    let session = &half_open.session;
    let wanted = wanted_identity(body);
    let our_id = own_identity_in(connection, 0, session.path);
    let fits = claim.identity().is_some_and(|identity| connection.remote.identity.matches(identity));
    let has_child = body.proposals().is_ok();
    if !fits || wanted.is_some_and(|wanted| !our_id.same_as(wanted)) {
        Some(Objection::Identity)
    } else if !accepts(connection, session.suite) {
        Some(Objection::Suite)
    } else if !claim.is_made_by(&connection.remote.method) {
        Some(Objection::Method)
    } else if check_round(connection, 0, Some(claim)).is_err() || !can_do_rounds(connection, session) {
        Some(Objection::Rounds)
    } else if !has_child && !may_be_childless(connection) {
        Some(Objection::WantsChild)
    } else if has_child && connection.childless == Childless::Force {
        Some(Objection::WantsNoChild)
    } else {
        None
    }
}

/// RFC 4739 §2.1: our further rounds are only for those who said that they do that.
fn can_do_rounds(connection: &Connection, session: &Session) -> bool {
    connection.more_local.is_empty() || session.extensions.multiple_auth
}

fn rounds_refused(connection: &Connection, session: &Session, claim: &Claim) -> Trouble {
    match check_round(connection, 0, Some(claim)) {
        Err(trouble) if can_do_rounds(connection, session) => trouble,
        _ => Trouble::rounds_unsupported(connection),
    }
}

/// Whom the peer wants to talk to.
fn wanted_identity(body: &Body) -> Option<&Identity> {
    body.id_responder().ok().and_then(Identification::identity)
}

fn id_refused(all: &[Arc<Connection>], session: &Session, claim: &Claim, body: &Body) -> Trouble {
    let theirs = claim.name();
    let mut their_lines = vec![format!("identity `{theirs}`")];
    their_lines.extend(wanted_identity(body).map(|wanted| format!("asks for `{wanted}`")));
    let ours = all.iter().map(|connection| {
        let local = own_identity_in(connection, 0, session.path);
        format!("connection `{}`: we are `{local}`, the peer is `{}`", connection.name, connection.remote.identity)
    });
    // A connection for this peer has us under another name, or none is for this peer.
    let knows_peer = |connection: &&Arc<Connection>| {
        claim.identity().is_some_and(|identity| connection.remote.identity.matches(identity))
    };
    let wanted = wanted_identity(body).filter(|_| all.iter().any(|connection| knows_peer(&connection)));
    let cure = match wanted {
        Some(wanted) => Some(Cure::new(ConfigKey::LocalIdentity, Some(wanted.to_string()))),
        None => claim.identity().map(|identity| Cure::new(ConfigKey::RemoteIdentity, Some(identity.to_string()))),
    };
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::AuthIdRefused,
        notify: NotifyType::AuthenticationFailed,
        what: format!("no connection accepts the peer's identity `{theirs}`"),
        ours: abridged(ours),
        theirs: their_lines,
        hint: Some(
            "`rightid` must be the identity that the peer has, and `leftid` the one that it asks for".to_owned(),
        ),
        cure,
    }))
}

/// Connections that a peer's claim is judged for: each may cost a verification.
const MAX_CANDIDATES: usize = 8;
