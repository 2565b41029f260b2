//! Attempts at SAs as stories: which messages went to and fro, how often they had to be sent, and how it ended. The last story
//! that went wrong and the last one that went well are kept for each connection, and the last ones of peers that no connection
//! is for.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use espdp_api::IkePath;
use ike_proto::io::{Failure, IkeSaId, MessageTrace, Notice, Repetition};

use super::phrases;

/// What happened in one attempt to set SAs up or to replace them.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    /// The connection, if it is known.
    pub(crate) connection: Option<String>,
    /// The peer, if there was a message.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether we began.
    pub(crate) by_us: bool,
    /// When it began.
    pub(crate) began: SystemTime,
    /// What happened, in order.
    pub(crate) steps: Vec<Step>,
    /// Steps that were left out because there are too many.
    pub(crate) omitted: usize,
    /// How it ended.
    pub(crate) ending: Ending,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// When.
    pub(crate) at: SystemTime,
    /// What.
    pub(crate) event: Event,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A message.
    Message(Exchanged),
    /// Something else.
    Note(String),
}

/// A message, and how often it came.
#[derive(Clone, Debug)]
pub(crate) struct Exchanged {
    /// The addresses, ours first.
    pub(crate) path: IkePath,
    /// Whether we sent it.
    pub(crate) sent: bool,
    /// On the wire, without marker.
    pub(crate) octets: usize,
    /// In one line.
    pub(crate) summary: String,
    /// What it says about proposals, identities and selectors.
    pub(crate) details: Vec<String>,
    /// How often it went or came again, and when last.
    pub(crate) again: Option<(u32, SystemTime)>,
}

/// How a story ended.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// Not yet.
    Open,
    /// With an SA.
    Up,
    /// Without.
    Failed(Arc<Failure>),
}

/// The stories worth keeping.
#[derive(Debug, Default)]
pub(crate) struct Stories {
    all: BTreeMap<u64, Story>,
    of_sas: BTreeMap<IkeSaId, u64>,
    of_connections: BTreeMap<String, OfConnection>,
    /// Requests of peers that are no SA yet.
    knocking: VecDeque<(SocketAddr, u64)>,
    /// Refused peers that no connection is for, the newest last.
    strangers: VecDeque<u64>,
    last: u64,
}

/// What is kept of one connection.
#[derive(Clone, Debug, Default)]
struct OfConnection {
    latest: Option<u64>,
    failed: Option<u64>,
    succeeded: Option<u64>,
    /// Failures since the last success, and when the first of them was.
    failures: Option<(u32, SystemTime)>,
    /// When an IKE SA went down last, and why.
    down: Option<(SystemTime, &'static str)>,
}

impl Stories {
    /// Takes down what happened.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
    pub(crate) fn record(&mut self, notice: &Notice, now: SystemTime) {
        match notice {
            Notice::Message(trace) => self.on_message(trace, now),
            Notice::Repetition(repetition) => self.on_repetition(repetition, now),
            Notice::Remark { connection: Some(connection), text, .. } => self.on_remark(connection, text, now),
            Notice::Failure(failure) => self.on_failure(failure, now, true),
            Notice::Abandoned(failure) => self.on_failure(failure, now, false),
            Notice::IkeUp(sa) => self.on_up(&sa.connection, sa.id, None, now),
            Notice::ChildUp { sa, child } => {
                let text = format!("Child SA {} is up", child.name);
                self.on_up(&sa.connection, sa.id, Some((child.name.as_str(), text)), now);
            }
            Notice::IkeDown { sa, reason } => {
                self.of_sas.remove(&sa.id);
                self.of_connections.entry(sa.connection.clone()).or_default().down =
                    Some((now, phrases::because(reason)));
            }
            _ => {}
        }
    }

    /// The latest story of a connection.
    pub(crate) fn latest(&self, connection: &str) -> Option<&Story> {
        self.find(connection, |own| own.latest)
    }

    /// The latest one that ended without an SA.
    pub(crate) fn failed(&self, connection: &str) -> Option<&Story> {
        self.find(connection, |own| own.failed)
    }

    /// The latest one that ended with an SA.
    pub(crate) fn succeeded(&self, connection: &str) -> Option<&Story> {
        self.find(connection, |own| own.succeeded)
    }

    /// How often a connection failed since it was up last, and since when.
    pub(crate) fn failures(&self, connection: &str) -> Option<(u32, SystemTime)> {
        self.of_connections.get(connection)?.failures
    }

    /// When an IKE SA of a connection went down last, and why.
    pub(crate) fn down(&self, connection: &str) -> Option<(SystemTime, &'static str)> {
        self.of_connections.get(connection)?.down
    }

    /// Refused peers that no connection is for, the newest first.
    pub(crate) fn strangers(&self) -> impl Iterator<Item = &Story> {
        self.strangers.iter().rev().filter_map(|number| self.all.get(number))
    }

    /// Forgets a connection that does not exist any more.
    pub(crate) fn forget(&mut self, connection: &str) {
        if let Some(own) = self.of_connections.remove(connection) {
            for number in [own.latest, own.failed, own.succeeded].into_iter().flatten() {
                self.all.remove(&number);
            }
        }
    }

    fn find(&self, connection: &str, which: impl Fn(&OfConnection) -> Option<u64>) -> Option<&Story> {
        self.all.get(&which(self.of_connections.get(connection)?)?)
    }

    fn on_message(&mut self, trace: &MessageTrace, now: SystemTime) {
        let number = match (trace.ike_sa, &trace.connection) {
            (Some(id), Some(connection)) => self.of_sa(id, connection, trace, now),
            _ => self.of_stranger(trace, now),
        };
        let Some(story) = number.and_then(|number| self.all.get_mut(&number)) else { return };
        let message = Exchanged {
            path: trace.path,
            sent: trace.sent,
            octets: trace.octets,
            summary: trace.summary.clone(),
            details: trace.details.clone(),
            again: None,
        };
        story.add(now, Event::Message(message));
    }

    /// The story that a message of an SA belongs to, if any: what an SA that is up does otherwise is no part of one.
    fn of_sa(&mut self, id: IkeSaId, connection: &str, trace: &MessageTrace, now: SystemTime) -> Option<u64> {
        let begins_child = trace.summary.starts_with("CREATE_CHILD_SA request");
        let known = self.of_sas.get(&id).copied();
        let known = known.filter(|number| self.all.get(number).is_some_and(|story| !begins_child || story.is_open()));
        if known.is_some() {
            return known;
        }
        let is_answer = trace.sent && trace.summary.starts_with("IKE_SA_INIT response");
        let knocked = self.knocking.iter().rposition(|(peer, _)| is_answer && *peer == trace.path.remote);
        let number = match knocked.and_then(|at| self.knocking.remove(at)) {
            Some((_, number)) => number,
            None if begins_child || trace.summary.starts_with("IKE_") => {
                self.begin(Some(trace.path.remote), trace.sent, now)
            }
            None => return None,
        };
        self.all.get_mut(&number)?.connection = Some(connection.to_owned());
        self.of_sas.insert(id, number);
        while self.of_sas.len() > MAX_OPEN {
            self.of_sas.pop_first();
        }
        let own = self.of_connections.entry(connection.to_owned()).or_default();
        let before = own.latest.replace(number);
        self.let_go(connection, before);
        Some(number)
    }

    /// The story of somebody who has no SA, if it is about one.
    fn of_stranger(&mut self, trace: &MessageTrace, now: SystemTime) -> Option<u64> {
        let peer = trace.path.remote;
        let known = self.knocking.iter().rev().find(|(known, _)| *known == peer).map(|(_, number)| *number);
        let known = known.filter(|number| self.all.get(number).is_some_and(Story::is_open));
        if known.is_some() || trace.sent || !trace.summary.starts_with("IKE_SA_INIT request") {
            return known;
        }
        let number = self.begin(Some(peer), false, now);
        self.knocking.push_back((peer, number));
        if self.knocking.len() > MAX_KNOCKING
            && let Some((_, number)) = self.knocking.pop_front()
            && !self.strangers.contains(&number)
        {
            self.drop_unless_kept(number);
        }
        Some(number)
    }

    fn on_repetition(&mut self, repetition: &Repetition, now: SystemTime) {
        let Some(story) = self.of_sas.get(&repetition.ike_sa).and_then(|number| self.all.get_mut(number)) else {
            return;
        };
        let head = format!("{} request {} ", repetition.exchange, repetition.message_id);
        let message = story.steps.iter_mut().rev().find_map(|step| match &mut step.event {
            Event::Message(message) if message.sent == repetition.sent && message.summary.starts_with(&head) => {
                Some(message)
            }
            Event::Message(_) | Event::Note(_) => None,
        });
        if let Some(message) = message {
            message.again = Some((message.again.map_or(1, |(count, _)| count.saturating_add(1)), now));
        }
    }

    fn on_remark(&mut self, connection: &str, text: &str, now: SystemTime) {
        let latest = self.of_connections.get(connection).and_then(|own| own.latest);
        if let Some(story) = latest.and_then(|number| self.all.get_mut(&number)).filter(|story| story.is_open()) {
            story.add(now, Event::Note(text.to_owned()));
        }
    }

    fn on_failure(&mut self, failure: &Failure, now: SystemTime, counts: bool) {
        let of_peer = |peer: SocketAddr| self.knocking.iter().rev().find(|(known, _)| *known == peer);
        let known = match failure.ike_sa {
            Some(id) => self.of_sas.get(&id).copied(),
            None => failure.peer.and_then(of_peer).map(|(_, number)| *number),
        };
        let number = known.filter(|number| self.all.contains_key(number));
        let number = number.unwrap_or_else(|| self.begin(failure.peer, failure.ike_sa.is_some(), now));
        let Some(story) = self.all.get_mut(&number) else { return };
        story.ending = Ending::Failed(Arc::new(failure.clone()));
        let Some(connection) = &failure.connection else {
            self.strangers.push_back(number);
            while self.strangers.len() > MAX_STRANGERS {
                let oldest = self.strangers.pop_front();
                oldest.into_iter().for_each(|number| self.drop_unless_kept(number));
            }
            return;
        };
        story.connection = Some(connection.clone());
        let own = self.of_connections.entry(connection.clone()).or_default();
        let before = [own.failed.replace(number), own.latest.replace(number)];
        if own.succeeded == Some(number) {
            own.succeeded = None;
        }
        if counts {
            let (count, since) = own.failures.unwrap_or((0, now));
            own.failures = Some((count.saturating_add(1), since));
        }
        before.into_iter().for_each(|number| self.let_go(connection, number));
    }

    fn on_up(&mut self, connection: &str, id: IkeSaId, child: Option<(&str, String)>, now: SystemTime) {
        let Some(number) = self.of_sas.get(&id).copied() else { return };
        let Some(story) = self.all.get_mut(&number) else { return };
        // What failed of an SA is told although something else of it is up.
        let failed_otherwise = matches!(&story.ending, Ending::Failed(failure) if failure.child.as_deref() != child.as_ref().map(|(name, _)| *name));
        let is_child = child.is_some();
        let text = child.map_or_else(|| "the IKE SA is up".to_owned(), |(_, text)| text);
        story.add(now, Event::Note(text));
        if failed_otherwise {
            return;
        }
        story.ending = Ending::Up;
        let own = self.of_connections.entry(connection.to_owned()).or_default();
        if is_child {
            own.failures = None;
        }
        let before = own.succeeded.replace(number);
        self.let_go(connection, before);
    }

    fn begin(&mut self, peer: Option<SocketAddr>, by_us: bool, now: SystemTime) -> u64 {
        self.last += 1;
        let (steps, ending) = (Vec::new(), Ending::Open);
        self.all.insert(self.last, Story { connection: None, peer, by_us, began: now, steps, omitted: 0, ending });
        while self.all.len() > MAX_STORIES {
            self.all.pop_first();
        }
        self.last
    }

    /// A story is of no use any more unless something else of its connection refers to it.
    fn let_go(&mut self, connection: &str, number: Option<u64>) {
        let Some(number) = number else { return };
        let own = self.of_connections.get(connection);
        if !own.is_some_and(|own| [own.latest, own.failed, own.succeeded].contains(&Some(number))) {
            self.all.remove(&number);
        }
    }

    fn drop_unless_kept(&mut self, number: u64) {
        match self.all.get(&number).and_then(|story| story.connection.clone()) {
            Some(connection) => self.let_go(&connection, Some(number)),
            None => drop(self.all.remove(&number)),
        }
    }
}

impl Story {
    /// Whether its end is still to come.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.ending, Ending::Open)
    }

    fn add(&mut self, at: SystemTime, event: Event) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(Step { at, event });
        } else {
            self.omitted = self.omitted.saturating_add(1);
        }
    }
}

/// Steps of one story: a handshake with every additional key exchange and certificates in fragments has about 40.
const MAX_STEPS: usize = 64;

/// Stories in all, of about 2 kB each: with more connections than that, the oldest are forgotten.
const MAX_STORIES: usize = 8192;

/// SAs whose story may go on. A story is forgotten earlier than its SA ends.
const MAX_OPEN: usize = 4096;

/// Requests of strangers that may be answered yet; each comes with a story.
const MAX_KNOCKING: usize = 64;

/// Stories of refused strangers.
const MAX_STRANGERS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;

    fn message(id: Option<u32>, sent: bool, summary: &str) -> Notice {
        let connection = id.map(|_| "net");
        let ike_sa = id.map(IkeSaId);
        Notice::Message(MessageTrace { ike_sa, ..testing::message(connection, sent, summary) })
    }

    fn failure(id: Option<u32>, connection: Option<&str>) -> Notice {
        Notice::Failure(Box::new(Failure { ike_sa: id.map(IkeSaId), ..testing::failure(connection, None) }))
    }

    fn told(notices: &[Notice]) -> Stories {
        let mut stories = Stories::default();
        notices.iter().for_each(|notice| stories.record(notice, SystemTime::UNIX_EPOCH));
        stories
    }

    #[test]
    fn an_attempt_that_fails_is_told_from_its_first_message_to_its_end() {
        let stories = told(&[
            message(Some(7), true, "IKE_SA_INIT request 0 [ SA KE No ]"),
            testing::remark(Some("net"), "the next address is tried"),
            message(Some(7), false, "IKE_SA_INIT response 0 [ N(NO_PROP) ]"),
            failure(Some(7), Some("net")),
        ]);
        let story = stories.failed("net").unwrap();
        assert!(story.by_us && matches!(story.ending, Ending::Failed(_)));
        assert_eq!(story.steps.len(), 3);
        assert_eq!(stories.failures("net").unwrap().0, 1);
        assert!(stories.succeeded("net").is_none());
    }

    #[test]
    fn a_request_of_a_stranger_becomes_the_story_of_the_connection_that_takes_it() {
        let stories = told(&[
            message(None, false, "IKE_SA_INIT request 0 [ SA KE No ]"),
            message(Some(7), true, "IKE_SA_INIT response 0 [ SA KE No ]"),
            message(Some(7), false, "IKE_AUTH request 1 [ IDi AUTH ]"),
            failure(Some(7), Some("net")),
        ]);
        let story = stories.failed("net").unwrap();
        assert_eq!((story.steps.len(), story.by_us), (3, false));
        assert_eq!(stories.strangers().count(), 0);
        assert_eq!(stories.all.len(), 1);
    }

    #[test]
    fn refused_strangers_are_kept_as_far_as_there_is_room() {
        let mut stories = Stories::default();
        for _ in 0..3 * MAX_KNOCKING {
            stories.record(&message(None, false, "IKE_SA_INIT request 0 [ SA ]"), SystemTime::UNIX_EPOCH);
            stories.record(&failure(None, None), SystemTime::UNIX_EPOCH);
        }
        assert_eq!(stories.strangers().count(), MAX_STRANGERS);
        assert!(stories.all.len() <= MAX_STRANGERS + MAX_KNOCKING + 1, "{}", stories.all.len());
        assert_eq!(stories.strangers().next().unwrap().steps.len(), 1);
    }

    #[test]
    fn repetitions_are_counted_where_they_belong() {
        let repetition = |message_id| {
            let (connection, path) = ("net".to_owned(), testing::message(None, true, "").path);
            let exchange = ike_proto::wire::ExchangeType::IkeAuth;
            let ike_sa = IkeSaId(7);
            Notice::Repetition(Repetition {
                connection,
                ike_sa,
                path,
                sent: true,
                exchange,
                message_id,
                octets: 1,
                count: 1,
            })
        };
        let stories = told(&[
            message(Some(7), true, "IKE_AUTH request 1 [ AUTH ]"),
            repetition(1),
            repetition(1),
            repetition(10),
        ]);
        let Event::Message(message) = &stories.latest("net").unwrap().steps[0].event else { panic!("no message") };
        assert_eq!(message.again.unwrap().0, 2);
    }

    #[test]
    fn what_went_well_before_is_kept_beside_what_went_wrong_since() {
        let sa = Box::new(testing::ike_sa());
        let child = Box::new(sa.children.first().unwrap().clone());
        let mut stories = told(&[
            message(Some(1), true, "IKE_SA_INIT request 0 [ SA ]"),
            Notice::IkeUp(sa.clone()),
            Notice::ChildUp { sa: sa.clone(), child: child.clone() },
            message(Some(1), true, "INFORMATIONAL request 2 [ ]"),
            message(Some(1), true, "CREATE_CHILD_SA request 3 [ SA ]"),
            message(Some(1), false, "CREATE_CHILD_SA response 3 [ N(NO_PROP) ]"),
            failure(Some(1), Some("net")),
        ]);
        assert_eq!(stories.failed("net").unwrap().steps.len(), 2);
        let succeeded = stories.succeeded("net").unwrap();
        assert!(matches!(succeeded.ending, Ending::Up));
        assert!(
            succeeded.steps.iter().any(|step| matches!(&step.event, Event::Note(text) if text == "Child SA net is up"))
        );
        stories.record(&Notice::ChildUp { sa, child }, SystemTime::UNIX_EPOCH);
        assert!(stories.failures("net").is_some(), "what failed is not what is up");
        stories.forget("net");
        assert!(stories.all.is_empty() && stories.latest("net").is_none());
    }

    #[test]
    fn tens_of_thousands_of_connections_do_not_fill_the_memory() {
        let mut stories = Stories::default();
        for number in 0..20_000u32 {
            let connection = Some(number.to_string());
            let trace = testing::message(connection.as_deref(), true, "IKE_SA_INIT request 0 [ SA ]");
            let notice = Notice::Message(MessageTrace { ike_sa: Some(IkeSaId(number)), ..trace });
            stories.record(&notice, SystemTime::UNIX_EPOCH);
        }
        assert!(stories.all.len() <= MAX_STORIES && stories.of_sas.len() <= MAX_OPEN);
        assert!(stories.latest("19999").is_some() && stories.latest("0").is_none());
    }
}
