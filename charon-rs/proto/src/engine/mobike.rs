//! MOBIKE (RFC 4555): both ends may change their addresses, and the SAs stay as they were negotiated.
//!
//! The end that initiated the first IKE SA decides which addresses are used (§2.1): [`decide`]. The other one follows, and
//! tells what addresses it has: [`follow`].

mod decide;
mod follow;
mod messages;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use espdp_api::{Command as DataplaneCommand, IkePath};

use self::messages::{additional_addresses, no_nats_allowed, peer_addresses, supported};
pub(super) use self::messages::{nat_not_allowed, unexpected_nat};
use super::context::{Asker, Context};
use super::established::{Established, Life};
use super::packets::Packets;
use super::session::Session;
use super::task::{Queued, Task};
use crate::config::{Connection, RemoteAddress};
use crate::io::{Ask, RemarkLevel};
use crate::wire::{Notify, NotifyType, Payload};

/// What MOBIKE keeps of an IKE SA, and of those that replace it.
#[derive(Clone, Debug)]
pub(super) struct Mobike {
    /// We initiated the first IKE SA, whoever rekeyed it since (RFC 4555 §1.3), and decide which addresses are used.
    decides: bool,
    /// Where the peer is, too, as far as it told us.
    peer_addresses: Vec<IpAddr>,
    /// Where we are, too, as we told the peer.
    announced: Vec<IpAddr>,
    /// The path that both ends agreed on last.
    settled: IkePath,
    /// The peer's last hash of our address and port as it sees them.
    seen_as: Option<Vec<u8>>,
    /// The message number of the last UPDATE_SA_ADDRESSES of the peer.
    newest_update: Option<u32>,
    /// Other paths that are tried while the peer does not answer.
    detours: Vec<IkePath>,
    /// The dataplane is asked which detours there are.
    seeks_detours: bool,
    /// How often the peer has seen a NAT where none is allowed, one time after the other.
    unexpected_nats: u32,
}

/// Something to do about addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Have the peer send to where we send from now (RFC 4555 §3.5).
    Update,
    /// See whether the peer can be reached where it says (RFC 4555 §3.7).
    Confirm,
    /// Tell the peer what addresses we have beside the one in use (RFC 4555 §3.6).
    Announce,
}

/// What a request about addresses said, for its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Where it was sent.
    path: IkePath,
    /// The contents of its COOKIE2.
    cookie: Option<Vec<u8>>,
}

#[cfg(test)]
impl Told {
    /// Makes the answer that the peer is going to send wrong.
    pub(super) fn forge_cookie(&mut self) {
        self.cookie = Some(vec![0; 16]);
    }
}

impl Mobike {
    /// What comes of IKE_AUTH: both ends must have announced it (RFC 4555 §3.2). `theirs` are the notifications of the
    /// peer's message, `decides` is for the initiator.
    pub(super) fn agreed<'a>(
        cx: &Context,
        session: &Session,
        theirs: impl Iterator<Item = &'a Notify> + Clone,
        decides: bool,
    ) -> Option<Box<Self>> {
        let wanted = session.connection.mobike;
        let announced = theirs.clone().any(|notify| notify.kind == NotifyType::MobikeSupported);
        (wanted && announced).then(|| {
            Box::new(Self {
                decides,
                peer_addresses: peer_addresses(theirs),
                announced: own_addresses(cx, session),
                settled: session.path,
                seen_as: None,
                newest_update: None,
                detours: Vec::new(),
                seeks_detours: false,
                unexpected_nats: 0,
            })
        })
    }

    fn add_detour(&mut self, current: IkePath, path: IkePath) {
        if path != current && self.detours.len() < MAX_ADDRESSES && !self.detours.contains(&path) {
            self.detours.push(path);
        }
    }

    /// Message numbers and the SPIs in hashes begin anew with an SA that replaces another.
    pub(super) fn inherited(mut self: Box<Self>) -> Box<Self> {
        self.newest_update = None;
        self.seen_as = None;
        self.detours.clear();
        self.seeks_detours = false;
        self
    }
}

/// What an IKE_AUTH message says about MOBIKE if the connection wants it: that we can, and where we are, too (RFC 4555
/// §3.4). The first request also says from where to where it goes if nobody looks for NATs (§3.9).
pub(super) fn announcement(cx: &Context, session: &Session, is_request: bool) -> Vec<Payload> {
    if !session.connection.mobike {
        return Vec::new();
    }
    let mut payloads = vec![supported()];
    payloads.extend(own_addresses(cx, session).into_iter().map(messages::additional_address));
    if is_request && !session.nat.traverses {
        payloads.push(no_nats_allowed(session.path));
    }
    payloads
}

impl Established {
    /// The addresses or routes of this host have changed.
    pub(super) fn on_network_changed(&mut self, cx: &mut Context, now: Instant) {
        let Some(mobike) = &self.mobike else {
            return;
        };
        let is_here = cx.has_address(self.session.path.local.ip());
        if mobike.decides || !is_here {
            self.ask_for_way(cx, self.session.path.remote.ip(), false);
        }
        if is_here && mobike.announced != own_addresses(cx, &self.session) {
            self.queue(cx, now, Queued::new(Task::Move(Move::Announce, None)));
        }
    }

    /// Finds out from which of our addresses the peer is reached at `remote`.
    fn ask_for_way(&self, cx: &mut Context, remote: IpAddr, detour: bool) {
        let asker = Asker::WayToPeer { spi: self.local_spi(), remote, detour };
        cx.ask(asker, Ask::Dataplane(DataplaneCommand::LocalAddress { remote }));
    }

    /// The dataplane has found the address from which `remote` is reached, or there is no way.
    pub(super) fn on_way_to_peer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (remote, detour): (IpAddr, bool),
        local: Result<IpAddr, String>,
    ) {
        let unusable = || "none of the addresses in the configuration is there".to_owned();
        let usable = local.and_then(|local| own_address(cx, &self.session, local).ok_or_else(unusable));
        let local = match usable {
            Ok(local) => local,
            Err(why) => return self.on_no_way(cx, now, (remote, detour), &why),
        };
        let Some(mobike) = &mut self.mobike else {
            return;
        };
        let mut path = self.session.path;
        path.local.set_ip(local);
        path.remote.set_ip(remote);
        if detour {
            mobike.add_detour(self.session.path, path);
        } else if remote == self.session.path.remote.ip() {
            if mobike.decides {
                self.on_own_address(cx, now, path);
            } else {
                self.leave_address(cx, now, path);
            }
        }
    }

    /// There is no way to `remote`. If the peer has other addresses, a probe finds out which of them works; else there is
    /// nothing to do until the network changes again.
    fn on_no_way(&mut self, cx: &mut Context, now: Instant, (remote, detour): (IpAddr, bool), why: &str) {
        let text = format!("there is no way to {remote} now: {why}");
        cx.remark(Some(self.connection_name()), RemarkLevel::Debug, text);
        let decides = self.mobike.as_ref().is_some_and(|mobike| mobike.decides);
        if decides && !detour && self.life == Life::Up && self.peer_addresses().len() > 1 {
            self.queue(cx, now, Queued::new(Task::Liveness));
        }
    }

    /// All addresses at which the peer may be found.
    fn peer_addresses(&self) -> BTreeSet<IpAddr> {
        let configured = self.session.connection.remote_addresses.iter().filter_map(|remote| match remote {
            RemoteAddress::Address(address) => Some(*address),
            RemoteAddress::Range(_) | RemoteAddress::Name(_) | RemoteAddress::Any => None,
        });
        let told = self.mobike.iter().flat_map(|mobike| mobike.peer_addresses.iter().copied());
        [self.session.path.remote.ip()].into_iter().chain(configured).chain(told).take(MAX_ADDRESSES).collect()
    }

    /// Stops looking for other paths: the peer answers.
    pub(super) fn end_detours(&mut self) {
        if let Some(mobike) = &mut self.mobike {
            mobike.detours.clear();
            mobike.seeks_detours = false;
        }
    }

    /// Sends a request that is not answered over other paths as well, and finds out which there are (RFC 4555 §3.10). The
    /// peer's own addresses are tried by the end that decides; the other one tries them only to tell of its own (§3.6).
    pub(super) fn try_detours(&mut self, cx: &mut Context, message: &Packets) {
        let announces =
            self.running.as_ref().is_some_and(|running| matches!(running.queued.task, Task::Move(Move::Announce, _)));
        let Some(mobike) = self.mobike.as_mut().filter(|mobike| mobike.decides || announces) else {
            return;
        };
        for path in &mobike.detours {
            message.clone().transmit(cx, *path);
        }
        if !mobike.seeks_detours {
            mobike.seeks_detours = true;
            self.seek_detours(cx);
        }
    }

    /// Looks for ways to all addresses of the peer, from those of ours that the configuration names if it names any.
    fn seek_detours(&mut self, cx: &mut Context) {
        let current = self.session.path;
        for remote in &self.session.connection.remote_addresses {
            if let RemoteAddress::Name(name) = remote {
                cx.ask(Asker::MorePeerAddresses(self.local_spi()), Ask::Resolve(name.clone()));
            }
        }
        let remotes = self.peer_addresses();
        self.seek_detours_to(cx, current, remotes);
    }

    /// The names of the peer may mean something else now.
    pub(super) fn on_more_addresses(&mut self, cx: &mut Context, found: Vec<IpAddr>) {
        if self.mobike.as_ref().is_some_and(|mobike| mobike.seeks_detours) {
            let found = found.into_iter().take(MAX_ADDRESSES).collect();
            self.seek_detours_to(cx, self.session.path, found);
        }
    }

    fn seek_detours_to(&mut self, cx: &mut Context, current: IkePath, remotes: BTreeSet<IpAddr>) {
        let connection = self.session.connection.clone();
        let locals: Vec<IpAddr> = usable_addresses(cx, &connection).collect();
        for remote in remotes {
            if locals.is_empty() {
                self.ask_for_way(cx, remote, true);
                continue;
            }
            for local in locals.iter().filter(|local| local.is_ipv4() == remote.is_ipv4()) {
                let mut path = current;
                path.local.set_ip(*local);
                path.remote.set_ip(remote);
                if let Some(mobike) = &mut self.mobike {
                    mobike.add_detour(current, path);
                }
            }
        }
    }

    /// The INFORMATIONAL request for a task about addresses.
    pub(super) fn start_move(&mut self, cx: &mut Context, now: Instant, mut queued: Queued) {
        let Task::Move(wanted, told) = &mut queued.task else {
            return;
        };
        let (payloads, sent) = match wanted {
            Move::Update => self.update_request(cx),
            Move::Confirm => self.confirm_request(cx),
            Move::Announce => self.announce_request(cx),
        };
        *told = Some(sent);
        self.send_task(cx, now, queued, &payloads);
    }

    /// The peer has answered it.
    pub(super) fn on_move_response(
        &mut self,
        cx: &mut Context,
        now: Instant,
        (wanted, told): (Move, &Told),
        payloads: &[Payload],
    ) {
        match wanted {
            Move::Update => self.on_update_response(cx, now, told, payloads),
            Move::Confirm => self.on_confirm_response(cx, now, told, payloads),
            Move::Announce => {}
        }
    }

    /// ESP of the peer comes from elsewhere: a NAT in front of it has forgotten it. Such packets may be followed although
    /// IKE messages may not (RFC 4555 §3.8); to another address only once the peer has shown that it is there.
    pub(super) fn on_peer_moved(&mut self, cx: &mut Context, now: Instant, path: IkePath) {
        if path == self.session.path || !self.session.nat.follows_peer() {
            return;
        }
        match &self.mobike {
            None => self.move_to(cx, path),
            Some(mobike) if mobike.decides => self.change_path(cx, now, path),
            Some(_) => self.follow_to(cx, now, path),
        }
        self.run_tasks(cx, now);
    }

    /// Has the Child SAs travel where the IKE SA travels.
    fn move_children(&mut self, cx: &mut Context) {
        self.session.unconfirmed = None;
        let outer = self.session.outer_path(cx.settings.nat_port);
        for child in self.children.values_mut() {
            child.move_to(cx, outer);
        }
    }

    fn additional_addresses(&mut self, cx: &Context) -> Vec<Payload> {
        let ours = own_addresses(cx, &self.session);
        if let Some(mobike) = &mut self.mobike {
            mobike.announced.clone_from(&ours);
        }
        additional_addresses(ours)
    }
}

/// Our addresses beside the one in use: those that the configuration names. Whoever names none shows none.
fn own_addresses(cx: &Context, session: &Session) -> Vec<IpAddr> {
    let current = session.path.local.ip();
    usable_addresses(cx, &session.connection).filter(|address| *address != current).take(MAX_ADDRESSES).collect()
}

/// The addresses of the configuration that this host has now.
fn usable_addresses<'a>(cx: &'a Context, connection: &'a Connection) -> impl Iterator<Item = IpAddr> + 'a {
    connection.local_addresses.iter().copied().filter(|address| cx.has_address(*address))
}

/// The address to send from: `routed` is what the routes say. Whoever names addresses in the configuration means those
/// and no others.
fn own_address(cx: &Context, session: &Session, routed: IpAddr) -> Option<IpAddr> {
    if session.connection.local_addresses.is_empty() {
        return Some(routed);
    }
    let same_family = |address: &IpAddr| address.is_ipv4() == routed.is_ipv4();
    let usable: Vec<IpAddr> = usable_addresses(cx, &session.connection).filter(same_family).collect();
    let preferred = [routed, session.path.local.ip()].into_iter().find(|address| usable.contains(address));
    preferred.or(usable.first().copied())
}

/// Addresses of one end that are kept: they come from outside, and each may be tried.
const MAX_ADDRESSES: usize = 16;
