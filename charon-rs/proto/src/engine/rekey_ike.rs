//! Replacing an IKE SA (RFC 7296 §1.3.2, §2.8, §2.8.2, §2.18).
//!
//! The new SA inherits the Child SAs and the tasks; the Delete is the last request on the old one (R7296-2.8-3).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use espdp_api::{IkePath, OuterPath, Secret};

use super::child::ChildSa;
use super::collision::{ChildActivity, IkeActivity, PeerWish, Survivor, Verdict, judge_request, survivor};
use super::context::Context;
use super::established::{Established, Life, Request};
use super::extensions::window_announcement;
use super::failure::Trouble;
use super::followup::{Begun, Made, Rounds};
use super::ike_sa::FollowUp;
use super::initiator::{first_group, offered_group};
use super::mobike::Mobike;
use super::nat::Nat;
use super::negotiate::{RoundsAllowed, choose_ike};
use super::reauth::Succession;
use super::session::{Names, Session, SessionParts};
use super::task::{Progress, Queued, Running, Task, TaskQueue};
use super::window::{OurWindow, TheirWindow};
use crate::crypto::key_exchange::{KeyExchange, respond};
use crate::crypto::schedule::{IkeExchange, IkeKeys};
use crate::io::{ChildSaId, DownReason, IkeSpi, Notice};
use crate::proposal::{IkeProposal, IkeSuite, check_ike_answer, ike_offer};
use crate::rules::Body;
use crate::wire::{ExchangeType, KeyExchange as KeyExchangePayload, NotifyType, Payload, Role};

/// A new IKE SA that was offered to the peer.
#[derive(Debug)]
pub(super) struct IkeOffer {
    pub(super) spi: IkeSpi,
    nonce: Vec<u8>,
    key_exchange: KeyExchange,
    /// What was offered: the connection may be configured anew before the answer comes.
    proposals: Vec<IkeProposal>,
}

/// What the peer made to replace an SA that we are replacing as well: it has no children until it is decided which of
/// the two stays.
#[derive(Debug)]
pub(super) struct Rival {
    pub(super) spi: IkeSpi,
    nonces: [Vec<u8>; 2],
}

/// What a replaced SA leaves behind.
pub(super) struct Estate {
    pub(super) children: BTreeMap<ChildSaId, ChildSa>,
    pub(super) tasks: TaskQueue,
    old: (IkeSpi, IkeSpi),
    /// Our SPIs of the SA and of those that it had replaced, the oldest first.
    ancestors: Vec<IkeSpi>,
    mobile: Option<Mobile>,
    succession: Option<Succession>,
    displaced_at: Option<Instant>,
}

/// Where a replaced SA that may move was last.
struct Mobile {
    path: IkePath,
    nat: Nat,
    unconfirmed: Option<OuterPath>,
    mobike: Box<Mobike>,
}

impl Estate {
    /// There is nobody to take it: the dataplane is cleaned up.
    pub(super) fn abandon(self, cx: &mut Context) {
        for child in self.children.into_values() {
            child.abandon(cx);
        }
        let mut tasks = self.tasks;
        for mut queued in tasks.drain() {
            cx.settle(queued.take_tickets(), &Err("the IKE SA is gone".to_owned()));
        }
        let tickets = self.succession.into_iter().flat_map(|succession| succession.tickets);
        cx.settle(tickets, &Err("the IKE SA is gone".to_owned()));
    }
}

/// What two peers agreed on for a new IKE SA whose keys are still to be made.
#[derive(Debug)]
pub(super) struct IkeTerms {
    pub(super) suite: IkeSuite,
    pub(super) names: Names,
    shared_secret: Secret<Vec<u8>>,
    nonces: [Vec<u8>; 2],
}

impl Established {
    // As the one who asks.

    pub(super) fn start_rekey_ike(&mut self, cx: &mut Context, now: Instant, queued: Queued, group: Option<u16>) {
        let proposals = self.session.connection.ike_proposals.clone();
        let wanted = group.unwrap_or(self.session.suite.group as u16);
        // RFC 7296 §3.4: the key exchange is for a group of the proposals, which may no longer have the one of this SA.
        let group = offered_group(&proposals, wanted).or_else(|| first_group(&proposals));
        let group = group.unwrap_or(self.session.suite.group);
        let key_exchange = KeyExchange::generate(group, &mut *cx.random);
        let offer = IkeOffer { spi: cx.new_ike_spi(), nonce: cx.new_nonce(), key_exchange, proposals };
        let mut payloads = vec![
            Payload::SecurityAssociation(ike_offer(&offer.proposals, Some(offer.spi))),
            Payload::Nonce(offer.nonce.clone()),
            Payload::KeyExchange(KeyExchangePayload {
                group: group as u16,
                data: offer.key_exchange.public().to_vec(),
            }),
        ];
        payloads.extend(window_announcement(&cx.settings));
        match self.request(cx, now, ExchangeType::CreateChildSa, &payloads) {
            Ok(()) => self.running = Some(Running::new(queued, Progress::IkeOffered(Box::new(offer)))),
            Err(trouble) => {
                cx.release_ike_spi(offer.spi);
                self.fail_task(cx, now, queued, trouble);
            }
        }
    }

    pub(super) fn on_rekey_ike_response(
        &mut self,
        cx: &mut Context,
        now: Instant,
        queued: Queued,
        offer: IkeOffer,
        body: Result<Body, Trouble>,
    ) {
        match body.and_then(|body| Ok((self.accept_ike(&offer, &body)?, body))) {
            Ok((terms, body)) => {
                let rounds = Rounds::of(terms.suite.additional);
                self.go_on_with_rounds(cx, now, queued, (Made::Ike(Box::new((offer, terms))), rounds), &body);
            }
            Err(trouble) => self.ike_offer_failed(cx, now, queued, &offer, trouble),
        }
    }

    /// All key exchanges for a new IKE SA that the peer agreed to are done.
    pub(super) fn replace_with_offered(
        &mut self,
        cx: &mut Context,
        now: Instant,
        queued: Queued,
        (offer, terms): (IkeOffer, IkeTerms),
        more_secrets: &[Secret<Vec<u8>>],
    ) {
        match self.successor_session(now, &terms, more_secrets) {
            Ok(session) => {
                self.on_replaced(cx, now, session, terms.nonces);
                self.finish(cx, queued, &Ok(()));
            }
            Err(trouble) => self.ike_offer_failed(cx, now, queued, &offer, trouble),
        }
    }

    /// Our offer of a new IKE SA came to nothing.
    pub(super) fn ike_offer_failed(
        &mut self,
        cx: &mut Context,
        now: Instant,
        mut queued: Queued,
        offer: &IkeOffer,
        trouble: Trouble,
    ) {
        cx.release_ike_spi(offer.spi);
        if let Some(rival) = self.take_rival(cx) {
            // The peer has made another one, and ours will not be: no need to try again.
            self.bequeath(cx, now, rival.spi);
            return self.finish(cx, queued, &Ok(()));
        }
        match (&trouble, &mut queued.task) {
            (Trouble::NotNow, _) => self.put_off(cx, now, queued),
            (Trouble::WrongGroup { group: wanted }, Task::RekeyIke { group })
                if group.is_none() && offered_group(&self.session.connection.ike_proposals, *wanted).is_some() =>
            {
                *group = Some(*wanted);
                self.queue_first(queued);
            }
            // RFC 7296 §1.3: a peer that cannot rekey says so, and gets a new IKE SA from the beginning.
            (Trouble::Refused(NotifyType::NoAdditionalSas), _) => {
                cx.follow_up(FollowUp::Reauthenticate { spi: self.local_spi() });
                self.fail_task(cx, now, queued, trouble);
            }
            _ => self.fail_task(cx, now, queued, trouble),
        }
    }

    /// What the peer's answer makes of our offer.
    fn accept_ike(&self, offer: &IkeOffer, body: &Body) -> Result<IkeTerms, Trouble> {
        if let Some(error) = body.error() {
            return Err(match (error.kind, error.wanted_group()) {
                (_, Some(group)) => Trouble::WrongGroup { group },
                (NotifyType::TemporaryFailure, _) => Trouble::NotNow,
                (kind, _) => Trouble::Refused(kind),
            });
        }
        let not_offered = |what: String| Trouble::NotOffered(what);
        let agreement =
            check_ike_answer(&offer.proposals, body.proposals()?).map_err(|error| not_offered(error.to_string()))?;
        let peer_spi = agreement.peer_spi.filter(|spi| *spi != IkeSpi::default());
        let responder_spi = peer_spi.ok_or_else(|| not_offered("the new IKE SA has no SPI".to_owned()))?;
        let theirs = body.key_exchange()?;
        let group = offer.key_exchange.group();
        if theirs.group != agreement.suite.group as u16 || agreement.suite.group != group {
            return Err(not_offered(format!("the answer is for group {}", theirs.group)));
        }
        let shared_secret = offer.key_exchange.agree(&theirs.data).map_err(|error| not_offered(error.to_string()))?;
        let nonces = [offer.nonce.clone(), body.nonce()?.to_vec()];
        let (id, role) = (self.session.names.id, Role::OriginalInitiator);
        let names = Names { id, role, initiator_spi: offer.spi, responder_spi };
        Ok(IkeTerms { suite: agreement.suite, names, shared_secret, nonces })
    }

    /// Both ends have the new SA; if the peer has made another one at the same time, one of them is too much.
    fn on_replaced(&mut self, cx: &mut Context, now: Instant, session: Session, nonces: [Vec<u8>; 2]) {
        let mut new = self.successor(cx, now, session);
        let heir = new.local_spi();
        let rival = self.take_rival(cx);
        let rival_spi = rival.as_ref().map(|rival| rival.spi);
        let theirs_stays = rival.filter(|rival| {
            let [ours_i, ours_r] = &nonces;
            let [theirs_i, theirs_r] = &rival.nonces;
            survivor([ours_i, ours_r], [theirs_i, theirs_r]) == Survivor::Theirs
        });
        match theirs_stays {
            // The peer deletes the old SA, and we what we made.
            Some(rival) => {
                new.is_spare = true;
                new.queue_delete(cx, now, Queued::new(Task::DeleteIke { reason: DownReason::Replaced }));
                cx.follow_up(FollowUp::Insert(Box::new(new)));
                self.bequeath(cx, now, rival.spi);
            }
            // The other way round.
            None => {
                rival_spi.into_iter().for_each(|spi| cx.follow_up(FollowUp::AwaitDelete { spi }));
                cx.follow_up(FollowUp::Insert(Box::new(new)));
                self.bequeath(cx, now, heir);
                self.queue_first(Queued::new(Task::DeleteIke { reason: DownReason::Replaced }));
            }
        }
    }

    // As the one who is asked.

    pub(super) fn on_rekey_ike_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        body: &Body,
    ) -> Result<(), Trouble> {
        let verdict = judge_request(PeerWish::RekeyIke, self.activity_for_peer(), ChildActivity::Unknown);
        // One rival is all that an honest peer makes.
        let has_rival = self.rival.as_ref().is_some_and(|rival| cx.has_ike_spi(rival.spi));
        if has_rival || !matches!(verdict, Verdict::GoAhead | Verdict::GoAheadContested) {
            return Err(Trouble::NotNow);
        }
        let connection = self.session.connection.clone();
        let theirs = body.key_exchange()?;
        let mut agreement = choose_ike(&connection, body.proposals()?, theirs.group, RoundsAllowed::Yes)?;
        let peer_spi = agreement.peer_spi.filter(|spi| *spi != IkeSpi::default());
        let initiator_spi = peer_spi.ok_or_else(|| Trouble::NotOffered("the new IKE SA has no SPI".to_owned()))?;
        let (public, shared_secret) = respond(agreement.suite.group, &theirs.data, &mut *cx.random)
            .map_err(|error| Trouble::NotOffered(error.to_string()))?;
        let nonces = [body.nonce()?.to_vec(), cx.new_nonce()];
        let (id, role) = (self.session.names.id, Role::OriginalResponder);
        let responder_spi = cx.new_ike_spi();
        let names = Names { id, role, initiator_spi, responder_spi };
        agreement.answer.spi = responder_spi.0.to_vec();
        let mut answer = vec![
            Payload::SecurityAssociation(vec![agreement.answer]),
            Payload::Nonce(nonces[1].clone()),
            Payload::KeyExchange(KeyExchangePayload { group: agreement.suite.group as u16, data: public }),
        ];
        answer.extend(window_announcement(&cx.settings));
        let terms = IkeTerms { suite: agreement.suite, names, shared_secret, nonces };
        let rounds = Rounds::of(terms.suite.additional);
        if rounds.are_done() {
            return self.replace_for_peer(cx, now, (request, answer), terms, &[]);
        }
        self.leave_unfinished(cx, now, (request, answer), (Begun::Ike(Box::new(terms)), rounds));
        Ok(())
    }

    /// All key exchanges for the new IKE SA that the peer wants are done: it is there when the peer has the answer.
    pub(super) fn replace_for_peer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (request, answer): (Request, Vec<Payload>),
        terms: IkeTerms,
        more_secrets: &[Secret<Vec<u8>>],
    ) -> Result<(), Trouble> {
        let spi = terms.names.responder_spi;
        let session = self.successor_session(now, &terms, more_secrets).inspect_err(|_| cx.release_ike_spi(spi))?;
        let mut new = self.successor(cx, now, session);
        self.answer(cx, now, request, answer);
        if self.activity_for_peer() == IkeActivity::Rekeying {
            new.is_spare = true;
            self.rival = Some(Rival { spi, nonces: terms.nonces });
            cx.follow_up(FollowUp::Insert(Box::new(new)));
        } else {
            cx.follow_up(FollowUp::Insert(Box::new(new)));
            self.bequeath(cx, now, spi);
        }
        Ok(())
    }

    // Both.

    /// What the peer made while our own request was on its way, unless it is gone again.
    pub(super) fn take_rival(&mut self, cx: &Context) -> Option<Rival> {
        self.rival.take().filter(|rival| cx.has_ike_spi(rival.spi))
    }

    /// What the SA is busy with, as far as the peer's wishes are concerned: a spare SA takes none.
    pub(super) fn activity_for_peer(&self) -> IkeActivity {
        if self.is_spare { IkeActivity::Closing } else { self.activity() }
    }

    fn successor_session(
        &self,
        now: Instant,
        made: &IkeTerms,
        more_secrets: &[Secret<Vec<u8>>],
    ) -> Result<Session, Trouble> {
        let [nonce_i, nonce_r] = &made.nonces;
        let exchange = IkeExchange {
            shared_secret: &made.shared_secret,
            more_secrets,
            initiator_nonce: nonce_i,
            responder_nonce: nonce_r,
            initiator_spi: made.names.initiator_spi,
            responder_spi: made.names.responder_spi,
        };
        let old = &self.session;
        let parts = SessionParts {
            names: made.names,
            connection: old.connection.clone(),
            path: old.path,
            nat: old.nat,
            suite: made.suite,
            keys: IkeKeys::rekeyed(made.suite, old.suite.prf, &old.keys.sk_d, &exchange),
            nonce_i: nonce_i.clone(),
            nonce_r: nonce_r.clone(),
            extensions: old.extensions.clone(),
        };
        let mut session = Session::new(now, parts).map_err(|error| Trouble::Local(error.to_string()))?;
        session.virtual_addresses = old.virtual_addresses.clone();
        Ok(session)
    }

    /// The new SA, still without children. Its peer is the one that was authenticated in this one, and its messages are
    /// numbered from 0.
    fn successor(&self, cx: &mut Context, now: Instant, session: Session) -> Self {
        session.export_keys(cx);
        let windows = (OurWindow::starting_at(0), TheirWindow::starting_at(0, cx.settings.window_size));
        let mut new = Self::new(cx, (now, now), session, self.who.clone(), windows);
        new.origin = self.origin;
        new.redirections = self.redirections.clone();
        new.expires_at = [new.expires_at, self.origin.ends_at].into_iter().flatten().min();
        new
    }

    /// Leaves children and tasks to another SA. This one is only there to be deleted from now on.
    pub(super) fn bequeath(&mut self, cx: &mut Context, now: Instant, heir: IkeSpi) {
        if let Some(rival) = self.rival.take().filter(|rival| rival.spi != heir) {
            cx.follow_up(FollowUp::Close { spi: rival.spi, reason: DownReason::Replaced });
        }
        self.drop_unfinished(cx);
        let old = self.session.names.spis();
        let mut tasks = TaskQueue::default();
        // A task that has not got its SPI yet begins anew over there.
        let waiting = self.running.take_if(|running| matches!(running.progress, Progress::AwaitingSpi));
        for queued in waiting.map(|running| running.queued).into_iter().chain(self.tasks.drain()) {
            if matches!(queued.task, Task::RekeyIke { .. }) {
                self.finish(cx, queued, &Ok(()));
            } else {
                tasks.push_last(queued);
            }
        }
        // Its answer comes too late to do anything.
        if let Some(Task::Move(wanted, _)) = self.running.as_ref().map(|running| &running.queued.task) {
            tasks.push_last(Queued::new(Task::Move(*wanted, None)));
        }
        let children = std::mem::take(&mut self.children);
        let Session { path, nat, unconfirmed, .. } = self.session;
        // The old SA needs it, too, see `queue_update`.
        let mobile = self.mobike.clone().map(|mobike| Mobile { path, nat, unconfirmed, mobike });
        for child in children.values() {
            cx.policies.hand_over(child.policy, child.id, heir);
        }
        self.life = Life::Replaced(heir);
        self.rekey_at = None;
        self.expires_at = Some(now + REPLACED_LINGER);
        let mut ancestors = std::mem::take(&mut self.ancestors);
        ancestors.push(self.local_spi());
        let (succession, displaced_at) = (self.succession.take(), self.displaced_at.take());
        let estate = Estate { children, tasks, old, ancestors, mobile, succession, displaced_at };
        cx.follow_up(FollowUp::Inherit { heir, estate: Box::new(estate) });
    }

    /// This is not the SA that stays, and its peer knows: it deletes it.
    pub(super) fn await_delete(&mut self, now: Instant) {
        self.expires_at = Some(now + REPLACED_LINGER);
    }

    /// Takes over what a replaced SA left (R7296-2.8.2-1).
    pub(super) fn inherit(&mut self, cx: &mut Context, now: Instant, estate: Estate) {
        self.is_spare = false;
        let Estate { mut children, mut tasks, old, mut ancestors, mobile, succession, displaced_at } = estate;
        (self.succession, self.displaced_at) = (succession, displaced_at);
        // Whoever replaces SAs faster than it deletes them has the oldest ones ended here.
        let too_many = ancestors.len().saturating_sub(MAX_ANCESTORS);
        for spi in ancestors.drain(..too_many) {
            cx.follow_up(FollowUp::Close { spi, reason: DownReason::Replaced });
        }
        if let Some(predecessor) = ancestors.last() {
            cx.leases.share(*predecessor, self.local_spi());
        }
        self.ancestors = ancestors;
        self.children.append(&mut children);
        if let Some(Mobile { path, nat, unconfirmed, mobike }) = mobile {
            self.set_path(cx, path);
            (self.session.nat, self.session.unconfirmed) = (nat, unconfirmed);
            self.mobike = Some(mobike.inherited());
        }
        let outer = self.session.outer_path(cx.settings.nat_port);
        for child in self.children.values_mut() {
            child.move_to(cx, outer);
        }
        self.note_established(cx);
        cx.notice(Notice::IkeRekeyed { old, sa: Box::new(self.report()) });
        for spi in std::mem::take(&mut self.deleted_early) {
            self.on_inherited_child_deleted(cx, now, spi);
        }
        for queued in tasks.drain() {
            if matches!(queued.task, Task::DeleteIke { .. }) {
                self.queue_delete(cx, now, queued);
            } else {
                self.queue(cx, now, queued);
            }
        }
    }
}

/// A peer that has replaced an SA deletes the old one at once; when nothing comes for so long, it is forgotten.
const REPLACED_LINGER: Duration = Duration::from_secs(60);

/// Replaced SAs behind one that is in use. They are deleted within a few round trips, so one is usual and two are rare.
const MAX_ANCESTORS: usize = 4;
