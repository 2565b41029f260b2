//! An established IKE SA: two message windows, a queue of tasks, and the Child SAs.
//!
//! Whether one of our requests is outstanding is a matter of the window, never of the SA: the peer's requests are served
//! meanwhile (R7296-2.3-2).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use espdp_api::{EspSpi, IkePath};

use super::auth::Authenticated;
use super::child::{ChildSa, deadlines};
use super::collision::IkeActivity;
use super::context::Context;
use super::failure::{About, Reaction, Trouble, Trust};
use super::followup::Unfinished;
use super::ike_sa::{FollowUp, Received};
use super::informational::Farewell;
use super::mobike::Mobike;
use super::reauth::{Origin, Succession};
use super::redirect::Redirections;
use super::rekey_ike::Rival;
use super::serve::Serving;
use super::session::Session;
use super::task::{Progress, Queued, Running, Task, TaskQueue};
use super::window::{Arrival, OurWindow, TheirWindow};
use crate::config::{Child, Connection};
use crate::io::{ChildSaId, DownReason, IkeSpi, Notice, RemarkLevel};
use crate::rules::notifies;
use crate::wire::{ExchangeType, MessageKind, Notify, NotifyType, Payload, WireError};

/// An IKE SA whose peer is known.
pub(super) struct Established {
    pub(super) session: Session,
    pub(super) who: Authenticated,
    pub(super) ours: OurWindow,
    pub(super) theirs: TheirWindow,
    pub(super) children: BTreeMap<ChildSaId, ChildSa>,
    pub(super) tasks: TaskQueue,
    pub(super) running: Option<Running>,
    /// The peer's request that is being worked on.
    pub(super) serving: Option<Serving>,
    /// What the peer wants and has not done all key exchanges for.
    pub(super) unfinished: Option<Unfinished>,
    /// The peer's requests that wait for that one, by number. There are fewer than its window has.
    pub(super) waiting: BTreeMap<u32, (Request, Result<Vec<Payload>, WireError>)>,
    pub(super) life: Life,
    pub(super) since: Instant,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expires_at: Option<Instant>,
    /// When the peer was heard last: an authentic new message, or a packet on an SA that was silent.
    pub(super) last_heard: Instant,
    /// What belongs to changes of addresses, if both ends can (RFC 4555).
    pub(super) mobike: Option<Box<Mobike>>,
    /// The SA that the peer made to replace this one while our own request to do so was on its way.
    pub(super) rival: Option<Rival>,
    /// One of two SAs that were made in the place of a third one, and has nothing until it is known which of them stays.
    pub(super) is_spare: bool,
    /// Children that the peer deleted over this SA while it was spare and had none.
    pub(super) deleted_early: Vec<EspSpi>,
    /// Our SPIs of the SAs that this one came after and that may still be there to be deleted, the oldest first.
    pub(super) ancestors: Vec<IkeSpi>,
    pub(super) origin: Origin,
    /// What it takes over from another one that it makes needless.
    pub(super) succession: Option<Succession>,
    pub(super) redirections: Redirections,
    /// When it goes because a newer one with the same peer is there.
    pub(super) displaced_at: Option<Instant>,
    /// The peer has deleted it, and the answer waits for the last packets.
    pub(super) farewell: Option<Farewell>,
    /// When somebody who waits for a deletion has waited long enough.
    pub(super) patience_ends: Option<Instant>,
    /// When an unprotected message made us probe the peer last.
    last_hint: Option<Instant>,
}

/// Where an SA is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// In use.
    Up,
    /// Replaced by the SA with this SPI of ours; it is only there to be deleted.
    Replaced(IkeSpi),
    /// Our request to delete it is queued or on its way.
    Deleting,
    /// Over: the engine drops it.
    Over,
}

impl Established {
    /// An SA that is established now, and whose making `began` some time ago.
    pub(super) fn new(
        cx: &mut Context,
        (began, now): (Instant, Instant),
        session: Session,
        who: Authenticated,
        (ours, theirs): (OurWindow, TheirWindow),
    ) -> Self {
        let (rekey_at, expires_at) = deadlines(cx, now, &session.connection.ike_lifetime);
        let origin = Origin::new(cx, (began, now), &session.connection, session.names.role);
        let expires_at = [expires_at, origin.ends_at].into_iter().flatten().min();
        Self {
            session,
            who,
            ours,
            theirs,
            children: BTreeMap::new(),
            tasks: TaskQueue::default(),
            running: None,
            serving: None,
            unfinished: None,
            waiting: BTreeMap::new(),
            life: Life::Up,
            since: now,
            rekey_at,
            expires_at,
            last_heard: now,
            mobike: None,
            rival: None,
            is_spare: false,
            deleted_early: Vec::new(),
            ancestors: Vec::new(),
            origin,
            succession: None,
            redirections: Redirections::default(),
            displaced_at: None,
            farewell: None,
            patience_ends: None,
            last_hint: None,
        }
    }

    /// Tells everybody that the SA is there.
    pub(super) fn come_up(&self, cx: &mut Context) {
        self.note_established(cx);
        cx.notice(Notice::IkeUp(Box::new(self.report())));
        if let Some(choice) = self.session.nat.choice(self.session.connection.encapsulation) {
            cx.remark(Some(self.connection_name()), RemarkLevel::Info, choice);
        }
    }

    /// Has the SA found by its connection, its identities and the peer's address.
    pub(super) fn note_established(&self, cx: &mut Context) {
        let identities = (&self.who.local_id, &self.who.remote_id);
        let address = self.session.path.remote.ip();
        cx.contacts.note(self.connection_name(), self.local_spi(), identities, address);
    }

    /// The connection was configured anew: new Child SAs, and what replaces others, are as it says now, unless this is not its
    /// peer any more. All that was negotiated stays until then.
    pub(super) fn reconfigure(&mut self, connection: &Connection) {
        if self.is_meant_by(connection) {
            self.session.connection = Arc::new(self.session.connection.succeeded_by(connection));
        }
    }

    /// What a Child SA is replaced by: what was agreed on for it, as it is configured now.
    pub(super) fn replacement_for(&self, old: &ChildSa) -> Arc<Child> {
        let configured = self.session.connection.children.iter().find(|child| child.name == old.child.name);
        configured.map_or_else(|| old.child.clone(), |new| Arc::new(old.child.rekeyed_as(new)))
    }

    /// Whether the peer and we are still who the connection says, known in the way that it says.
    pub(super) fn is_meant_by(&self, connection: &Connection) -> bool {
        let before = &self.session.connection;
        before.local == connection.local
            && before.more_local == connection.more_local
            && before.remote.method == connection.remote.method
            && before.more_remote == connection.more_remote
            && connection.remote.identity.matches(&self.who.remote_id)
    }

    pub(super) fn local_spi(&self) -> IkeSpi {
        self.session.names.local_spi()
    }

    pub(super) fn connection_name(&self) -> &str {
        &self.session.connection.name
    }

    // Messages.

    pub(super) fn on_message(&mut self, cx: &mut Context, now: Instant, received: &Received<'_>) {
        if received.message.encrypted.is_none() {
            if notifies(&received.message.payloads).any(|notify| notify.kind.is_error()) {
                self.on_hint(cx, now);
            }
            return;
        }
        let header = received.message.header;
        match header.kind {
            MessageKind::Request => match self.theirs.arrival(header.message_id) {
                Arrival::New => self.on_new_request(cx, now, received),
                Arrival::Repeated(response) if self.session.is_repetition(received) => {
                    self.session.send(cx, now, received.path, response);
                }
                Arrival::Repeated(_) | Arrival::Ignored => {}
            },
            MessageKind::Response if self.ours.expects(header.message_id, header.exchange) => {
                let Some(opened) = self.session.open(cx, now, received) else {
                    return;
                };
                self.heard(cx, now, received.path);
                self.ours.close();
                self.on_answered_over(cx, now, received.path);
                match opened {
                    Ok(opened) => self.on_response(cx, now, opened.payloads),
                    Err(error) => self.on_bad_response(cx, now, error.into()),
                }
            }
            MessageKind::Response => {}
        }
    }

    fn on_new_request(&mut self, cx: &mut Context, now: Instant, received: &Received<'_>) {
        let Some(opened) = self.session.open(cx, now, received) else {
            return;
        };
        let header = received.message.header;
        self.heard(cx, now, received.path);
        self.theirs.accept(header.message_id);
        let request = Request { exchange: header.exchange, message_id: header.message_id, path: received.path };
        let payloads = opened.map(|opened| opened.payloads);
        // What is said meanwhile about other things need not wait for the dataplane; two children at a time must.
        if self.serving.is_some() && header.exchange == ExchangeType::CreateChildSa {
            self.waiting.insert(header.message_id, (request, payloads));
        } else {
            self.carry_out(cx, now, request, payloads);
        }
        self.run_tasks(cx, now);
    }

    fn carry_out(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        payloads: Result<Vec<Payload>, WireError>,
    ) {
        let handled = payloads.map_err(Trouble::from).and_then(|payloads| self.on_request(cx, now, request, payloads));
        if let Err(trouble) = handled {
            self.react(cx, now, request, trouble);
        }
    }

    /// Carries out what has waited for a request that is answered now.
    pub(super) fn serve_waiting(&mut self, cx: &mut Context, now: Instant) {
        while self.serving.is_none() && !self.is_over() {
            let Some((_, (request, payloads))) = self.waiting.pop_first() else {
                return;
            };
            self.carry_out(cx, now, request, payloads);
        }
    }

    fn on_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: Request,
        payloads: Vec<Payload>,
    ) -> Result<(), Trouble> {
        match request.exchange {
            ExchangeType::CreateChildSa => self.on_create_child_request(cx, now, request, payloads),
            ExchangeType::Informational => self.on_informational_request(cx, now, request, payloads),
            ExchangeType::IkeFollowupKe => self.on_followup_request(cx, now, request, payloads),
            misplaced @ (ExchangeType::IkeSaInit
            | ExchangeType::IkeAuth
            | ExchangeType::IkeIntermediate
            | ExchangeType::Other(_)) => Err(Trouble::Misplaced(misplaced)),
        }
    }

    /// Answers a request that failed (RFC 7296 §2.21.3).
    pub(super) fn react(&mut self, cx: &mut Context, now: Instant, request: Request, trouble: Trouble) {
        let reaction = trouble.reaction(Trust::Authenticated);
        self.report_trouble(cx, trouble, None);
        match reaction {
            Reaction::Silence => {}
            Reaction::Answer(notify) => self.answer(cx, now, request, vec![Payload::Notify(notify)]),
            Reaction::AnswerAndClose(notify) => {
                self.answer(cx, now, request, vec![Payload::Notify(notify)]);
                self.end(cx, now, DownReason::Failed);
            }
        }
    }

    /// Sends the response to a request to where the request came from (R7296-2.11-1), and keeps it.
    pub(super) fn answer(&mut self, cx: &mut Context, now: Instant, request: Request, payloads: Vec<Payload>) {
        let what = (request.exchange, MessageKind::Response, request.message_id);
        let sealed = self.session.seal(cx, what, request.path, &payloads).or_else(|error| {
            let text = format!("a response cannot be sent: {error}");
            cx.remark(Some(&self.session.connection.name), RemarkLevel::Warn, text);
            let notify = Payload::Notify(Notify::new(NotifyType::TemporaryFailure));
            self.session.seal(cx, what, request.path, &[notify])
        });
        if let Ok(message) = sealed {
            self.theirs.answered(request.message_id, message.clone());
            // The initial exchanges are over, and the response tells the peer what holds from now on (RFC 7296 §2.3).
            if request.exchange == ExchangeType::IkeAuth {
                self.theirs.widen(cx.settings.window_size);
            }
            self.session.send(cx, now, request.path, message);
        }
    }

    /// Sends a request. Only one task runs at a time, so the window is free unless its numbers are used up; then the SA
    /// ends, for they must not wrap (R7296-2.2-1).
    pub(super) fn request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) -> Result<(), Trouble> {
        let used_up = || Trouble::Local("the message numbers of the IKE SA are used up".to_owned());
        let message_id = self.ours.free_id().ok_or_else(used_up)?;
        let path = self.session.path;
        let message = self.session.seal(cx, (exchange, MessageKind::Request, message_id), path, payloads)?;
        self.ours.sent(now, exchange, message.clone(), &self.session.connection.retransmission);
        self.session.send(cx, now, path, message);
        Ok(())
    }

    /// An unprotected message for this SA says nothing for sure; now and then it is worth a probe (R7296-2.4-1,
    /// R7296-2.4-2).
    fn on_hint(&mut self, cx: &mut Context, now: Instant) {
        if self.takes_hint(now) {
            self.queue(cx, now, Queued::new(Task::Liveness));
        }
    }

    /// Whether something that may be forged or is of little weight is worth a request now (R7296-2.4-2).
    pub(super) fn takes_hint(&mut self, now: Instant) -> bool {
        let recently = self.last_hint.is_some_and(|last| now.saturating_duration_since(last) < HINT_INTERVAL);
        let takes = !recently && self.life == Life::Up && self.ours.outstanding_id().is_none();
        if takes {
            self.last_hint = Some(now);
        }
        takes
    }

    /// An authentic message that is new: the peer lives, and is where it came from. Repetitions prove neither, for anybody
    /// can send them again.
    fn heard(&mut self, cx: &mut Context, now: Instant, path: IkePath) {
        self.last_heard = now;
        self.follow_path(cx, path);
    }

    /// RFC 7296 §2.23: a peer behind a NAT is followed to where its latest authentic message came from. With MOBIKE it says
    /// itself where it is, and other messages say nothing (RFC 4555 §3.8).
    fn follow_path(&mut self, cx: &mut Context, path: IkePath) {
        if path != self.session.path && self.session.nat.follows_peer() && self.mobike.is_none() {
            self.move_to(cx, path);
        }
    }

    /// Has requests go over another path from now on, and the SA found by where the peer is then.
    pub(super) fn set_path(&mut self, cx: &mut Context, path: IkePath) {
        if path != self.session.path && self.life == Life::Up {
            cx.notice(Notice::IkeMoved { sa: Box::new(self.report()), path });
        }
        self.session.path = path;
        cx.contacts.moved(self.local_spi(), path.remote.ip());
    }

    pub(super) fn move_to(&mut self, cx: &mut Context, path: IkePath) {
        self.set_path(cx, path);
        let outer = self.session.outer_path(cx.settings.nat_port);
        for child in self.children.values_mut() {
            child.move_to(cx, outer);
        }
    }

    /// Drops all children. Until the peer agrees to a deletion, which may be never, they would take the packets that are
    /// meant for those of a new SA.
    pub(super) fn drop_children(&mut self, cx: &mut Context, now: Instant, reason: &DownReason) {
        let children: Vec<ChildSaId> = self.children.keys().copied().collect();
        for child in children {
            self.drop_child(cx, now, child, reason);
        }
    }

    // State.

    /// What the SA is busy with, for decisions about the peer's requests.
    pub(super) fn activity(&self) -> IkeActivity {
        if self.life != Life::Up {
            return IkeActivity::Closing;
        }
        let running = self.running.as_ref().map(|running| (&running.queued.task, &running.progress));
        match running {
            Some((Task::RekeyIke { .. }, Progress::IkeOffered(_) | Progress::Following(_))) => IkeActivity::Rekeying,
            Some((Task::CreateChild(_) | Task::RekeyChild { .. }, progress))
                if !matches!(progress, Progress::AwaitingSpi) =>
            {
                IkeActivity::ChangingChildren
            }
            Some((Task::DeleteChild { .. } | Task::Discard(..), _)) => IkeActivity::ChangingChildren,
            _ if self.serving.is_some() => IkeActivity::ChangingChildren,
            _ => IkeActivity::Idle,
        }
    }

    /// Whether a child of this name is up or coming up. Those for single workers do not count, so that nobody misses one that is gone
    /// (R9611-6-1).
    pub(super) fn has_child(&self, name: &str) -> bool {
        let is_for_all = |child: &ChildSa| child.resource.worker().is_none();
        self.children.values().any(|child| child.child.name == name && child.is_useful() && is_for_all(child))
    }

    /// Whether somebody works on bringing a child of this name up.
    pub(super) fn is_creating(&self, name: &str) -> bool {
        let creates = |queued: &Queued| matches!(&queued.task, Task::CreateChild(wish) if wish.child.name == name && wish.sibling.is_none());
        self.tasks.iter().any(creates) || self.running.as_ref().is_some_and(|running| creates(&running.queued))
    }

    pub(super) fn is_over(&self) -> bool {
        self.life == Life::Over
    }

    /// Says what went wrong, unless it will sort itself out.
    pub(super) fn report_trouble(&self, cx: &mut Context, trouble: Trouble, child: Option<&str>) {
        if trouble.is_passing() {
            return cx.remark(Some(self.connection_name()), RemarkLevel::Debug, trouble.to_string());
        }
        let peer = Some(self.session.path.remote);
        let ike_sa = Some(self.session.names.id);
        let about = About { ike_sa, connection: Some(&self.session.connection), child, peer };
        cx.fail(trouble.into_failure(about));
    }

    /// Ends the SA here and now: children go, tasks are settled, everybody is told.
    pub(super) fn end(&mut self, cx: &mut Context, now: Instant, reason: DownReason) {
        if self.is_over() {
            return;
        }
        let mut report = self.report();
        self.answer_farewell(cx, now);
        self.drop_serving(cx);
        self.drop_running(cx, &reason);
        let children: Vec<ChildSaId> = self.children.keys().copied().collect();
        for child in children {
            self.drop_child(cx, now, child, &reason);
        }
        for mut queued in self.tasks.drain() {
            let result = outcome_of_end(&queued.task, &reason);
            cx.settle(queued.take_tickets(), &result);
        }
        if let Some(succession) = self.succession.take() {
            let (connection, why) = (self.connection_name().to_owned(), describe(&reason).to_owned());
            cx.follow_up(FollowUp::NotReauthenticated { connection, succession: Box::new(succession), why });
        }
        let is_silent = matches!(self.life, Life::Replaced(_)) || self.is_spare;
        if let Some(rival) = self.rival.take() {
            // The peer did not notice that two rekeyings met; what it made stays (RFC 7296 §2.8.2).
            cx.follow_up(FollowUp::Close { spi: rival.spi, reason: reason.clone() });
        }
        self.life = Life::Over;
        cx.contacts.forget(self.local_spi());
        if !is_silent {
            report.tasks.clear();
            cx.notice(Notice::IkeDown { sa: Box::new(report), reason });
        }
    }
}

/// A request of the peer, for the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) exchange: ExchangeType,
    pub(super) message_id: u32,
    /// Where it came from.
    pub(super) path: IkePath,
}

/// What a task's tickets learn when the SA ends before it was done. What was to be deleted is gone.
pub(super) fn outcome_of_end(task: &Task, reason: &DownReason) -> Result<(), String> {
    match task {
        Task::DeleteIke { .. } | Task::DeleteChild { .. } => Ok(()),
        Task::CreateChild(_)
        | Task::RekeyChild { .. }
        | Task::RekeyIke { .. }
        | Task::Liveness
        | Task::Redirect(_)
        | Task::ReportSpi(_)
        | Task::Discard(..)
        | Task::Move(..) => Err(format!("the IKE SA ended: {}", describe(reason))),
    }
}

pub(super) fn describe(reason: &DownReason) -> &'static str {
    match reason {
        DownReason::Command => "somebody here wanted it",
        DownReason::PeerDeleted => "the peer deleted it",
        DownReason::PeerDead => "the peer does not answer",
        DownReason::Expired => "its lifetime is over",
        DownReason::Replaced => "another one took its place",
        DownReason::Failed => "it failed",
    }
}

/// Unprotected messages can be forged at any rate; a probe every ten seconds is enough for the true ones.
const HINT_INTERVAL: Duration = Duration::from_secs(10);
