//! Links of the host that interfaces read and write past the host's network stack.
//!
//! What an interface takes from its link follows from its policies. First our table of nftables has the stack drop it, then the
//! worker takes it: a packet that comes in between is lost, and none is forwarded twice. Without the table nothing is taken.

use std::time::{Duration, Instant};

use espdp_api::{InterfaceName, InterfaceSpec, WorkerId};
use espdp_core::InterfaceId;
use tunnels::nft::Table;
use tunnels::{Neighbour, NeighbourWatch, TABLE, Taken};

use super::Control;
use crate::io::ring::PacketRing;

/// The links that are open.
#[derive(Debug, Default)]
pub(super) struct Links {
    open: Vec<Link>,
    /// Who is on them; watched while there are any.
    neighbours: Option<NeighbourWatch>,
    /// When to look at what is taken; policies often come many at a time.
    pub(super) due: Option<Instant>,
}

/// One of them.
#[derive(Debug)]
struct Link {
    name: InterfaceName,
    interface: InterfaceId,
    /// What the stack drops.
    taken: Taken,
}

impl Links {
    /// The next neighbour that is known better; none comes while no link is open.
    pub(super) async fn next_neighbour(&mut self) -> Option<Neighbour> {
        match &mut self.neighbours {
            Some(watch) => watch.next().await,
            None => std::future::pending().await,
        }
    }

    /// Has the stack drop what is taken, in `table` or in one for that alone.
    pub(super) fn add_to(&self, table: Option<Table>) -> Option<Table> {
        if self.open.iter().all(|link| link.taken.is_empty()) {
            return table;
        }
        let empty = || Table { name: TABLE.to_owned(), sets: Vec::new(), chains: Vec::new() };
        let mut table = table.unwrap_or_else(empty);
        for link in &self.open {
            link.taken.keep_from_stack(&mut table, &link.name);
        }
        Some(table)
    }

    /// Whether there is a table for them even if nothing else needs one.
    pub(super) fn need_table(&self) -> bool {
        self.open.iter().any(|link| !link.taken.is_empty())
    }

    /// Has what is taken looked at soon.
    pub(super) fn look(&mut self) {
        if !self.open.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + SETTLES);
        }
    }
}

impl Control {
    /// Opens the link of an interface, or closes the one that it does not have any more. A link that is not there yet is opened when
    /// it is set up: until then everything takes the way through the device.
    pub(super) async fn serve_link(&mut self, interface: InterfaceId, spec: &InterfaceSpec) {
        let wanted = spec.host_link.clone();
        let position = self.links.open.iter().position(|link| link.interface == interface);
        if position.map(|at| &self.links.open[at].name) != wanted.as_ref() {
            if let Some(at) = position {
                self.links.open.remove(at);
                self.use_link(interface, None).await;
            }
            if let Some(name) = wanted {
                self.links.open.push(Link { name: name.clone(), interface, taken: Taken::default() });
                self.open_link(&name).await;
            }
            self.links.due = Some(Instant::now());
        }
    }

    /// Closes the link of an interface that goes.
    pub(super) async fn drop_link(&mut self, interface: InterfaceId) {
        if !self.links.open.iter().any(|link| link.interface == interface) {
            return;
        }
        self.use_link(interface, None).await;
        self.links.open.retain(|link| link.interface != interface);
        if self.links.open.is_empty() {
            self.links.neighbours = None;
        }
        // Nothing may be dropped for its sake any more.
        self.take_from_links().await;
    }

    /// Opens a link, perhaps anew: it may be another one of the same name.
    pub(super) async fn open_link(&mut self, name: &InterfaceName) {
        let Some(link) = self.links.open.iter().find(|link| link.name == *name) else { return };
        let interface = link.interface;
        match PacketRing::open(name) {
            Ok(ring) => self.use_link(interface, Some(ring)).await,
            Err(error) => {
                tracing::warn!(%error, "packets of {name} take the way through the host's stack until it is set up");
                return;
            }
        }
        // What is known of neighbours is told once, when the watch begins.
        match NeighbourWatch::open().await {
            Ok(watch) => self.links.neighbours = Some(watch),
            Err(error) => self.note_failure("watch the neighbours of a link", Some(error.to_string())),
        }
    }

    async fn use_link(&self, interface: InterfaceId, ring: Option<PacketRing>) {
        let used = match self.ask(WorkerId::FIRST, move |worker| worker.set_link(interface, ring)).await {
            Ok(used) => used.map_err(|error| error.to_string()),
            Err(refusal) => Err(refusal.to_string()),
        };
        self.note_failure("serve a link of the host", used.err());
    }

    /// Tells the worker where a neighbour is.
    pub(super) fn tell_neighbour(&self, neighbour: Neighbour) {
        self.mailboxes.post(WorkerId::FIRST, move |worker| worker.set_neighbour(&neighbour, Instant::now()));
    }

    /// Has the stack and the worker agree on who forwards what comes from links.
    pub(super) async fn take_from_links(&mut self) {
        self.links.due = None;
        let own = match self.netlink.local_addresses().await {
            Ok(addresses) => addresses.into_iter().map(|at| at.address).collect::<Vec<_>>(),
            Err(error) => return self.note_failure("look at the addresses of the host", Some(error.to_string())),
        };
        let mut changed = Vec::new();
        for link in &mut self.links.open {
            let is_of = |spec: &InterfaceName| {
                self.book.interfaces.get(spec).is_some_and(|interface| interface.id == link.interface)
            };
            let policies = self.book.policies.values().map(|policy| &policy.spec).filter(|spec| is_of(&spec.interface));
            let taken = Taken::of(policies, &own);
            if taken != link.taken {
                let before = std::mem::replace(&mut link.taken, taken.clone());
                changed.push((link.interface, taken, before));
            }
        }
        match self.apply_table().await {
            Ok(()) => {
                for (interface, taken, _) in changed {
                    self.mailboxes.post(WorkerId::FIRST, move |worker| worker.set_taken(interface, taken));
                }
            }
            Err(error) => {
                for (interface, _, before) in changed {
                    let of_interface = self.links.open.iter_mut().find(|link| link.interface == interface);
                    if let Some(link) = of_interface {
                        link.taken = before;
                    }
                }
                self.note_failure("keep the host's stack from what links bring", Some(error.to_string()));
            }
        }
    }
}

/// How long what is taken may be as it was before.
const SETTLES: Duration = Duration::from_millis(50);
