//! Authenticating anew before the old authentication is too old: a complete new IKE SA with its children is set up, and
//! then the old one goes (RFC 7296 §2.8.3). The policies go over from one to the other, so that no packet is lost.
//!
//! RFC 4478: a responder announces when it wants that, and an initiator does it in time.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use super::context::Context;
use super::established::{Established, Life};
use super::failure::Trouble;
use super::initiator::{Locating, can_initiate};
use super::redirect::remark_redirection;
use super::run::REKEY_AGAIN;
use super::task::{ChildWish, Queued, Task};
use crate::config::{Childless, Connection, Gateway};
use crate::io::{DownReason, IkeSaId, IkeSpi, RemarkLevel, Ticket};
use crate::wire::{Notify, NotifyType, Role};

/// How an IKE SA, or the first of those that replaced one another, was authenticated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Our role then.
    pub(super) role: Role,
    /// When the first message of it was to be sent, or came in.
    pub(super) began: Instant,
    pub(super) since: Instant,
    /// When we authenticate anew.
    pub(super) reauth_at: Option<Instant>,
    /// When the authentication counts no more.
    pub(super) ends_at: Option<Instant>,
    /// What we told the peer, as a responder.
    announced: Option<Duration>,
}

impl Origin {
    pub(super) fn new(cx: &mut Context, (began, now): (Instant, Instant), connection: &Connection, role: Role) -> Self {
        let nothing = Self { role, began, since: now, reauth_at: None, ends_at: None, announced: None };
        let Some(after) = connection.reauth_after else {
            return nothing;
        };
        let sooner = cx.random_duration(connection.ike_lifetime.jitter).min(after);
        let ends_at = Some(now + after + grace(connection, after));
        match role {
            Role::OriginalInitiator => Self { reauth_at: Some(now + (after - sooner)), ends_at, ..nothing },
            // A peer that does not do it in time is met half way.
            Role::OriginalResponder => {
                Self { reauth_at: Some(now + after), ends_at, announced: Some(after - sooner), ..nothing }
            }
        }
    }

    /// RFC 4478 §3: the peer wants to see us authenticated anew after this long.
    ///
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |                    Lifetime (seconds)                         |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    fn wanted_by_peer(&mut self, cx: &mut Context, now: Instant, lifetime: Duration) {
        let earlier = (lifetime / 10).min(LONGEST_MARGIN);
        let at = now + lifetime.saturating_sub(earlier + cx.random_duration(earlier));
        self.reauth_at = Some(self.reauth_at.map_or(at, |before| before.min(at)));
    }
}

/// How long the old authentication counts after it should have been renewed: as long as the IKE SA itself has after it
/// should have been rekeyed, or a tenth of its time.
fn grace(connection: &Connection, after: Duration) -> Duration {
    let lifetime = &connection.ike_lifetime;
    let of_rekeying = lifetime.expire_after.zip(lifetime.rekey_after).map(|(end, rekey)| end.saturating_sub(rekey));
    of_rekeying.unwrap_or_else(|| (after / 10).max(SHORTEST_GRACE))
}

/// What a new IKE SA takes over from the one that it makes needless.
#[derive(Debug)]
pub(super) struct Succession {
    /// The old one, which may be rekeyed meanwhile and keeps its number.
    pub(super) old: IkeSaId,
    /// Whose commands end with it.
    pub(super) tickets: Vec<Ticket>,
    /// The virtual addresses that we have over the old one, and would like to keep.
    pub(super) addresses: Vec<IpAddr>,
    /// Children of the old one that were asked for.
    tried: BTreeSet<String>,
}

impl Established {
    /// What the peer is told about how long its authentication counts.
    pub(super) fn authentication_lifetime(&self) -> Option<Notify> {
        let seconds = u32::try_from(self.origin.announced?.as_secs()).unwrap_or(u32::MAX);
        Some(Notify::with_data(NotifyType::AuthLifetime, seconds.to_be_bytes().to_vec()))
    }

    /// The peer may say how long our authentication counts. Only who began the SA may be told so (RFC 4478 §3).
    pub(super) fn on_authentication_lifetime(&mut self, cx: &mut Context, now: Instant, notify: &Notify) {
        let Some(seconds) = notify.data.first_chunk().map(|octets| u32::from_be_bytes(*octets)) else {
            return;
        };
        if self.origin.role != Role::OriginalInitiator {
            return;
        }
        let text = format!("the peer wants us to authenticate ourselves anew within {seconds} s");
        cx.remark(Some(self.connection_name()), RemarkLevel::Info, text);
        let lifetime = Duration::from_secs(seconds.into());
        if lifetime < SHORTEST_LIFETIME {
            let text = format!("once in {} s is as often as we do it", SHORTEST_LIFETIME.as_secs());
            cx.remark(Some(self.connection_name()), RemarkLevel::Warn, text);
        }
        self.origin.wanted_by_peer(cx, now, lifetime.max(SHORTEST_LIFETIME));
    }

    /// When this SA is to be authenticated anew.
    pub(super) fn reauth_at(&self) -> Option<Instant> {
        self.origin.reauth_at.filter(|_| self.is_in_use())
    }

    /// The children that are up or are to come up.
    fn children_to_move(&self) -> BTreeSet<String> {
        let useful = self.children.values().filter(|child| child.is_useful()).map(|child| child.child.name.clone());
        let wanted = self.tasks.iter().filter_map(|queued| {
            if let Task::CreateChild(wish) = &queued.task { Some(wish.child.name.clone()) } else { None }
        });
        useful.chain(wanted).collect()
    }

    fn is_creating_any(&self) -> bool {
        let creates = |queued: &Queued| matches!(queued.task, Task::CreateChild(_));
        self.tasks.iter().any(creates) || self.running.as_ref().is_some_and(|running| creates(&running.queued))
    }

    pub(super) fn has_any_child(&self) -> bool {
        self.children.values().any(|child| child.is_useful())
    }
}

impl Engine {
    /// Begins to authenticate the peer of an IKE SA, and ourselves, anew.
    pub(super) fn reauthenticate(&mut self, now: Instant, spi: IkeSpi, tickets: Vec<Ticket>) {
        if let Err(why) = self.begin_reauthentication(now, spi, tickets, None) {
            let (why, tickets) = why;
            self.cx.settle(tickets, &Err(why.clone()));
            self.with_established(spi, |sa, cx| sa.reauthenticate_later(cx, now, &why));
        }
    }

    /// The peer of an IKE SA wants us at another gateway: what there is moves there (RFC 5685 §5).
    pub(super) fn move_elsewhere(&mut self, now: Instant, spi: IkeSpi, gateway: Gateway) {
        if let Err((why, _)) = self.begin_reauthentication(now, spi, Vec::new(), Some(gateway)) {
            let connection = self.established_sa(spi).map(|sa| sa.connection_name().to_owned());
            let text = format!("we do not follow a redirection: {why}");
            self.cx.remark(connection.as_deref(), RemarkLevel::Warn, text);
        }
    }

    /// Where the peer is now, or at the gateway to which it sends us.
    fn begin_reauthentication(
        &mut self,
        now: Instant,
        spi: IkeSpi,
        tickets: Vec<Ticket>,
        gateway: Option<Gateway>,
    ) -> Result<(), (String, Vec<Ticket>)> {
        let Some(sa) = self.established_sa(spi).filter(|sa| sa.is_in_use()) else {
            return Err(("the IKE SA is going away".to_owned(), tickets));
        };
        let connection = self.cx.connections.get(sa.connection_name()).filter(|connection| sa.is_meant_by(connection));
        let Some(connection) = connection.cloned() else {
            return Err(("the connection is not for this peer any more".to_owned(), tickets));
        };
        if sa.origin.role == Role::OriginalResponder && !can_initiate(&connection) {
            return Err(("only the peer can begin, and it did not".to_owned(), tickets));
        }
        if self.attempts.contains_key(&connection.name) {
            return Err(("another IKE SA of the connection is being set up".to_owned(), tickets));
        }
        let names = sa.children_to_move();
        let children = connection.children.iter().filter(|child| names.contains(&child.name));
        let wishes: VecDeque<ChildWish> = children.map(|child| ChildWish::new(Arc::new(child.clone()))).collect();
        if wishes.is_empty() && connection.childless == Childless::Never {
            return Err(("the IKE SA has no children, and `childless` is `never`".to_owned(), tickets));
        }
        let tried = wishes.iter().map(|wish| wish.child.name.clone()).collect();
        let (address, mut redirections) = (sa.session.path.remote.ip(), sa.redirections.clone());
        let addresses = sa.session.virtual_addresses.ours.clone();
        let succession = Succession { old: sa.session.names.id, tickets, addresses, tried };
        if let Some(gateway) = &gateway {
            if !redirections.follow(now, address) {
                return Err((Trouble::redirected_too_often().to_string(), succession.tickets));
            }
            remark_redirection(&mut self.cx, &connection, address, gateway);
        }
        let place = (gateway.unwrap_or(Gateway::Address(address)), succession, redirections);
        let new_spi = self.cx.new_ike_spi();
        let begun = Locating::begin_again(&mut self.cx, now, connection, new_spi, wishes, place);
        match begun {
            Some(sa) => self.keep(new_spi, sa),
            None => self.forget(new_spi),
        }
        Ok(())
    }

    /// A new IKE SA has got children, or has not: when all are there that the old one has, the old one goes.
    pub(super) fn succeed(&mut self, now: Instant, spi: IkeSpi) {
        let Some(new) = self.established_sa(spi).filter(|sa| sa.is_in_use() && !sa.is_creating_any()) else {
            return;
        };
        let Some(succession) = &new.succession else {
            return;
        };
        let old_spi = self.in_use(new.connection_name(), succession.old);
        let old = old_spi.and_then(|old| self.established_sa(old));
        let names = old.map(Established::children_to_move).unwrap_or_default();
        let is_missing = |name: &String| !new.has_child(name) && !succession.tried.contains(name);
        let missing: BTreeSet<String> = names.into_iter().filter(is_missing).collect();
        let is_failure = old.is_some_and(Established::has_any_child) && !new.has_any_child();
        if missing.is_empty() {
            return self.end_succession(now, (old_spi, spi), is_failure);
        }
        self.with_established(spi, |sa, cx| {
            if let Some(succession) = &mut sa.succession {
                succession.tried.extend(missing.iter().cloned());
            }
            let children = sa.session.connection.children.clone();
            for child in children.into_iter().filter(|child| missing.contains(&child.name)) {
                sa.queue(cx, now, Queued::new(Task::CreateChild(ChildWish::new(Arc::new(child)))));
            }
        });
        // What the configuration does not have any more cannot be asked for.
        self.succeed(now, spi);
    }

    fn end_succession(&mut self, now: Instant, (old, new): (Option<IkeSpi>, IkeSpi), is_failure: bool) {
        let mut tickets = Vec::new();
        self.with_established(new, |sa, _| {
            tickets = sa.succession.take().map(|succession| succession.tickets).unwrap_or_default();
        });
        let result = if is_failure { Err("the peer takes none of the children over".to_owned()) } else { Ok(()) };
        self.cx.settle(tickets, &result);
        let Some(old) = old else {
            return;
        };
        if let Err(why) = &result {
            self.with_established(old, |sa, cx| sa.reauthenticate_later(cx, now, why));
        }
        let delete = Queued::new(Task::DeleteIke { reason: DownReason::Replaced });
        self.with_established(if is_failure { new } else { old }, |sa, cx| sa.queue_delete(cx, now, delete));
    }

    /// The attempt to authenticate anew came to nothing.
    pub(super) fn on_reauthentication_failed(
        &mut self,
        now: Instant,
        connection: &str,
        succession: Succession,
        why: &str,
    ) {
        self.cx.settle(succession.tickets, &Err(why.to_owned()));
        if let Some(old) = self.in_use(connection, succession.old) {
            self.with_established(old, |sa, cx| sa.reauthenticate_later(cx, now, why));
        }
    }

    /// The IKE SA with this number that is in use.
    pub(super) fn in_use(&self, connection: &str, id: IkeSaId) -> Option<IkeSpi> {
        let is_it = |spi: &IkeSpi| {
            let sa = self.established_sa(*spi).filter(|sa| sa.is_in_use());
            sa.is_some_and(|sa| sa.session.names.id == id)
        };
        self.cx.contacts.of(connection).into_iter().find(is_it)
    }
}

impl Established {
    /// It did not work this time.
    pub(super) fn reauthenticate_later(&mut self, cx: &mut Context, now: Instant, why: &str) {
        if self.life != Life::Up {
            return;
        }
        let text = format!("the peer is not authenticated anew yet: {why}");
        cx.remark(Some(self.connection_name()), RemarkLevel::Warn, text);
        let left = self.origin.ends_at.map_or(REKEY_AGAIN, |end| end.saturating_duration_since(now) / 3);
        self.origin.reauth_at = Some(now + left.clamp(SHORTEST_WAIT, REKEY_AGAIN));
    }
}

/// So much before the end that the peer set we begin at the latest, if it gives us that much.
const LONGEST_MARGIN: Duration = Duration::from_secs(300);

/// No peer has us authenticate ourselves more often than this, which would leave time for little else.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);

/// Attempts are at least so far apart.
const SHORTEST_WAIT: Duration = Duration::from_secs(5);

/// Long enough for an attempt or two.
const SHORTEST_GRACE: Duration = Duration::from_secs(60);
