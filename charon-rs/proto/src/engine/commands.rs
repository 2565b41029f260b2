//! Commands: configuration, and SAs that somebody wants up, down or replaced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use espdp_api::PolicySpec;

use super::established::{Established, Life};
use super::ike_sa::IkeSa;
use super::initiator::Locating;
use super::task::{ChildWish, Queued, Task};
use super::{Engine, ShuttingDown};
use crate::config::{Child, Childless, Connection, SecretKind};
use crate::io::{ChildSaId, Command, DownReason, IkeSpi, Notice, RemarkLevel, Target, Ticket};

/// What a command is for, once it is found.
pub(super) enum Object {
    Ike(IkeSpi),
    Child(IkeSpi, ChildSaId),
}

impl Engine {
    pub(super) fn carry_out(&mut self, now: Instant, command: Command) {
        match command {
            Command::SetConnection(connection) => self.set_connection(now, *connection),
            Command::RemoveConnection(name) => self.remove_connection(now, &name),
            Command::SetSecret(secret) => {
                let name = secret.name.clone();
                match secret.kind {
                    SecretKind::Ike => {
                        self.cx.ppks.remove(&name);
                        self.cx.secrets.insert(secret);
                    }
                    SecretKind::Ppk => {
                        self.cx.secrets.remove(&name);
                        self.cx.ppks.insert(name, secret);
                    }
                }
            }
            Command::RemoveSecret(name) => {
                self.cx.secrets.remove(&name);
                self.cx.ppks.remove(&name);
            }
            Command::SetPool(pool) => self.cx.leases.set(pool),
            Command::RemovePool(name) => self.cx.leases.remove(&name),
            Command::Initiate { ticket, connection, child } => self.initiate(now, ticket, connection, child),
            Command::Install { ticket, connection, child } => self.install(ticket, connection.as_deref(), &child),
            Command::Uninstall { ticket, connection, child } => self.uninstall(ticket, connection.as_deref(), &child),
            Command::Terminate { ticket, target } => self.terminate(now, ticket, &target),
            Command::TerminateAtOnce { ticket, target } => self.terminate_at_once(now, ticket, &target),
            Command::Rekey { ticket, target } => self.rekey(now, ticket, &target),
            Command::Reauthenticate { ticket, target } => self.renew(now, ticket, &target),
            Command::Redirect { ticket, target, gateway } => self.redirect(now, ticket, &target, &gateway),
            Command::ShutDown { grace } => self.shut_down(now, grace),
        }
    }

    fn set_connection(&mut self, now: Instant, connection: Connection) {
        let connection = Arc::new(connection);
        self.untrap(&connection.name);
        self.cx.connections.insert(connection.clone());
        for spi in self.cx.contacts.of(&connection.name) {
            self.with_established(spi, |sa, _| sa.reconfigure(&connection));
        }
        self.cx.reconciler.configure(now, &connection);
        for child in connection.children.iter().filter(|child| child.start.traps()) {
            if let Err(why) = self.trap(&connection, child) {
                self.cx.remark(Some(&connection.name), RemarkLevel::Warn, why);
            }
        }
    }

    fn trap(&mut self, connection: &Connection, child: &Child) -> Result<(), String> {
        let command = self.cx.policies.trap(connection, child).map_err(|error| error.to_string())?;
        command.into_iter().for_each(|command| self.cx.command("set a trap", command));
        Ok(())
    }

    /// Has the policies of children wait for packets.
    fn install(&mut self, ticket: Ticket, connection: Option<&str>, child: &str) {
        let installed = self.find_children(connection, Some(child)).and_then(|(connection, children)| {
            children.iter().try_for_each(|child| self.trap(&connection, child)).map(|()| children.len())
        });
        match installed {
            Ok(count) => {
                self.cx.open_ticket(ticket, count, "");
                (0..count).for_each(|_| self.cx.settle([ticket], &Ok(())));
            }
            Err(why) => self.cx.open_ticket(ticket, 0, &why),
        }
    }

    /// Has them wait no more.
    fn uninstall(&mut self, ticket: Ticket, connection: Option<&str>, child: &str) {
        let waits = |(of, name, _): &(&str, &str, &PolicySpec)| {
            *name == child && connection.is_none_or(|connection| connection == *of)
        };
        let owner = self.cx.policies.traps().find(waits).map(|(connection, ..)| connection.to_owned());
        let removed = owner.and_then(|connection| self.cx.policies.untrap_child(&connection, child));
        let Some(commands) = removed else {
            return self.cx.open_ticket(ticket, 0, &format!("policy '{child}' not found"));
        };
        commands.into_iter().for_each(|command| self.cx.command("remove a trap", command));
        self.cx.open_ticket(ticket, 1, "");
        self.cx.settle([ticket], &Ok(()));
    }

    fn untrap(&mut self, connection: &str) {
        for command in self.cx.policies.untrap(connection) {
            self.cx.command("remove a trap", command);
        }
    }

    fn remove_connection(&mut self, now: Instant, name: &str) {
        self.cx.connections.remove(name);
        self.cx.reconciler.forget(name);
        self.untrap(name);
        let theirs = self.sas.iter().filter(|(_, sa)| sa.connection_name() == name);
        let spis: Vec<IkeSpi> = theirs.map(|(spi, _)| *spi).collect();
        for spi in spis {
            self.take_down(now, spi, Vec::new());
        }
    }

    /// Deletes an IKE SA, whatever stage it is in.
    fn take_down(&mut self, now: Instant, spi: IkeSpi, tickets: Vec<Ticket>) {
        if self.established_sa(spi).is_some() {
            let mut delete = Queued::new(Task::DeleteIke { reason: DownReason::Command });
            delete.tickets = tickets;
            self.with_established(spi, |sa, cx| {
                // A peer that waits for a child gets its answer first.
                if sa.serving.is_none() {
                    sa.drop_children(cx, now, &DownReason::Command);
                }
                sa.queue_delete(cx, now, delete);
            });
        } else {
            self.with_sa(spi, |sa, cx| sa.stop(cx, now));
            self.cx.settle(tickets, &Ok(()));
        }
    }

    // Up.

    fn initiate(&mut self, now: Instant, ticket: Ticket, connection: Option<String>, child: Option<String>) {
        let found = self.find_children(connection.as_deref(), child.as_deref());
        let (connection, children) = match found {
            Ok(found) => found,
            Err(why) => return self.cx.open_ticket(ticket, 0, &why),
        };
        if self.shutting_down.is_some() {
            return self.cx.open_ticket(ticket, 0, "the daemon shuts down");
        }
        if child.is_none() && connection.children.is_empty() {
            return self.initiate_childless(now, ticket, &connection);
        }
        self.cx.open_ticket(ticket, children.len(), "the connection has no children");
        for child in children {
            self.cx.reconciler.resume(&connection, &child.name);
            let wish = ChildWish { tickets: vec![ticket], ..ChildWish::new(child) };
            self.bring_up(now, &connection, wish);
        }
    }

    /// Brings the IKE SA of a connection without children up (RFC 6023).
    fn initiate_childless(&mut self, now: Instant, ticket: Ticket, connection: &Arc<Connection>) {
        if connection.childless == Childless::Never {
            return self.cx.open_ticket(ticket, 0, "the connection has no children, and `childless` is `never`");
        }
        self.cx.open_ticket(ticket, 1, "");
        if self.usable_sas(connection).is_empty() {
            self.attempt(now, connection, None, vec![ticket]);
        } else {
            self.cx.settle([ticket], &Ok(()));
        }
    }

    /// The children that are meant, and their connection.
    fn find_children(
        &self,
        connection: Option<&str>,
        child: Option<&str>,
    ) -> Result<(Arc<Connection>, Vec<Arc<Child>>), String> {
        let has_child = |candidate: &&Arc<Connection>| {
            child.is_none_or(|name| candidate.children.iter().any(|child| child.name == name))
        };
        let found = match (connection, child) {
            (None, None) => return Err("neither connection nor child is named".to_owned()),
            (Some(connection), _) => self.cx.connections.get(connection).filter(has_child).cloned(),
            (None, Some(_)) => self.cx.connections.iter().find(has_child).cloned(),
        };
        let found = found.ok_or_else(|| match (connection, child) {
            (Some(connection), Some(child)) => format!("there is no connection `{connection}` with a child `{child}`"),
            (Some(connection), None) => format!("there is no connection `{connection}`"),
            (None, child) => format!("no connection has a child `{}`", child.unwrap_or_default()),
        })?;
        let wanted = found.children.iter().filter(|candidate| child.is_none_or(|name| candidate.name == name));
        let children = wanted.cloned().map(Arc::new).collect();
        Ok((found, children))
    }

    /// Brings a child up: over the IKE SA that is there, with the attempt that is under way, or with a new one.
    pub(super) fn bring_up(&mut self, now: Instant, connection: &Arc<Connection>, wish: ChildWish) {
        if self.shutting_down.is_some() {
            return self.cx.settle(wish.tickets, &Err("the daemon shuts down".to_owned()));
        }
        let established = self.usable_sas(connection);
        let has_child = |spi: &IkeSpi| self.established_sa(*spi).is_some_and(|sa| sa.has_child(&wish.child.name));
        if let Some(&spi) = established.iter().find(|spi| has_child(spi)).or(established.first()) {
            let queued = Queued::new(Task::CreateChild(wish));
            self.with_established(spi, |sa, cx| sa.queue(cx, now, queued));
        } else {
            self.attempt(now, connection, Some(wish), Vec::new());
        }
    }

    /// The IKE SAs over which the children of a connection may come up.
    fn usable_sas(&self, connection: &Connection) -> Vec<IkeSpi> {
        let is_usable = |sa: &Established| sa.is_in_use() && sa.is_meant_by(connection);
        let all = self.cx.contacts.of(&connection.name).into_iter();
        all.filter(|spi| self.established_sa(*spi).is_some_and(is_usable)).collect()
    }

    /// Sets an IKE SA up, or joins the attempt that is under way.
    fn attempt(&mut self, now: Instant, connection: &Arc<Connection>, wish: Option<ChildWish>, tickets: Vec<Ticket>) {
        if let Some(&spi) = self.attempts.get(&connection.name) {
            self.with_sa(spi, |mut sa, _| {
                sa.wish(wish, tickets);
                Some(sa)
            });
        } else {
            let spi = self.cx.new_ike_spi();
            match Locating::begin(&mut self.cx, now, connection.clone(), spi, (wish.into_iter().collect(), tickets)) {
                Some(sa) => self.keep(spi, sa),
                None => self.forget(spi),
            }
        }
    }

    /// Brings up what should be up and is not.
    pub(super) fn bring_up_wanted(&mut self, now: Instant, connection: &str) {
        let Some(connection) = self.cx.connections.get(connection).cloned() else {
            return self.cx.reconciler.forget(connection);
        };
        for name in self.cx.reconciler.wanted(&connection.name) {
            let is_up =
                self.cx.contacts.of(&connection.name).iter().any(|spi| {
                    self.established_sa(*spi).is_some_and(|sa| sa.has_child(&name) || sa.is_creating(&name))
                });
            if is_up {
                continue;
            }
            if let Some(child) = connection.children.iter().find(|child| child.name == name) {
                self.bring_up(now, &connection, ChildWish::new(Arc::new(child.clone())));
            }
        }
    }

    pub(super) fn established_sa(&self, spi: IkeSpi) -> Option<&Established> {
        self.sas.get(&spi).and_then(IkeSa::established)
    }

    // Down.

    fn terminate(&mut self, now: Instant, ticket: Ticket, target: &Target) {
        let objects = self.find(target);
        self.suspend(target);
        self.cx.open_ticket(ticket, objects.len(), "no SA matches");
        for object in objects {
            match object {
                Object::Ike(spi) => {
                    self.suspend_all(spi);
                    self.take_down(now, spi, vec![ticket]);
                    self.with_established(spi, |sa, _| sa.expect_patience(now));
                }
                Object::Child(spi, child) => {
                    let delete = Task::DeleteChild { child, reason: DownReason::Command };
                    let delete = Queued::new(delete).with_ticket(ticket);
                    self.with_established(spi, |sa, cx| {
                        if let Some(child) = sa.children.get(&child) {
                            cx.reconciler.suspend(sa.connection_name(), Some(&child.child.name));
                        }
                        sa.expect_patience(now);
                        sa.queue(cx, now, delete);
                    });
                }
            }
        }
    }

    /// What is taken down stays down until somebody wants it up.
    pub(super) fn suspend(&mut self, target: &Target) {
        match target {
            Target::Connection(name) => self.cx.reconciler.suspend(name, None),
            Target::Child { connection: Some(connection), child } => {
                self.cx.reconciler.suspend(connection, Some(child));
            }
            Target::Child { connection: None, .. } | Target::IkeSa(_) | Target::ChildSa(_) => {}
        }
    }

    pub(super) fn suspend_all(&mut self, spi: IkeSpi) {
        // It is not known yet which connection a half-open SA is for.
        let known = self.sas.get(&spi).filter(|sa| !sa.is_half_open());
        if let Some(connection) = known.map(|sa| sa.connection_name().to_owned()) {
            self.cx.reconciler.suspend(&connection, None);
        }
    }

    /// The SAs that are meant by who wants them gone at once: also those that are on their way out.
    pub(super) fn find_down(&self, target: &Target) -> Vec<Object> {
        let leaving = self.sas.iter().filter(|(_, sa)| sa.established().is_some_and(|sa| sa.life == Life::Deleting));
        let is_meant = |sa: &IkeSa| match target {
            Target::Connection(name) => sa.connection_name() == name,
            Target::IkeSa(id) => sa.id() == *id,
            Target::Child { .. } | Target::ChildSa(_) => false,
        };
        let leaving = leaving.filter(|(_, sa)| is_meant(sa)).map(|(spi, _)| Object::Ike(*spi));
        self.find(target).into_iter().chain(leaving).collect()
    }

    fn rekey(&mut self, now: Instant, ticket: Ticket, target: &Target) {
        let established = |object: &Object| match object {
            Object::Ike(spi) | Object::Child(spi, _) => self.established_sa(*spi).is_some(),
        };
        let objects: Vec<Object> = self.find(target).into_iter().filter(established).collect();
        self.cx.open_ticket(ticket, objects.len(), "no SA matches");
        for object in objects {
            let (spi, task) = match object {
                Object::Ike(spi) => (spi, Task::RekeyIke { group: None }),
                Object::Child(spi, child) => (spi, Task::RekeyChild { child, group: None }),
            };
            let queued = Queued::new(task).with_ticket(ticket);
            self.with_established(spi, |sa, cx| sa.queue(cx, now, queued));
        }
    }

    fn renew(&mut self, now: Instant, ticket: Ticket, target: &Target) {
        let spis = self.find_ike_sas(target);
        self.cx.open_ticket(ticket, spis.len(), "no SA matches");
        for spi in spis {
            self.reauthenticate(now, spi, vec![ticket]);
        }
    }

    /// The established IKE SAs that are meant, or whose children are.
    pub(super) fn find_ike_sas(&self, target: &Target) -> Vec<IkeSpi> {
        let spi_of = |object: Object| match object {
            Object::Ike(spi) | Object::Child(spi, _) => spi,
        };
        let objects = self.find(target).into_iter().map(spi_of);
        let spis: BTreeSet<IkeSpi> = objects.filter(|spi| self.established_sa(*spi).is_some()).collect();
        spis.into_iter().collect()
    }

    /// The SAs that are meant; those that are on their way out are not.
    fn find(&self, target: &Target) -> Vec<Object> {
        let in_use = self.sas.iter().filter(|(_, sa)| {
            let is_up = sa.established().is_some_and(Established::is_in_use);
            is_up || sa.attempt().is_some() || (sa.is_half_open() && matches!(target, Target::IkeSa(_)))
        });
        let ike_sas = |meant: &dyn Fn(&IkeSa) -> bool| {
            let matching = in_use.clone().filter(|(_, sa)| meant(sa));
            matching.map(|(spi, _)| Object::Ike(*spi)).collect()
        };
        match target {
            Target::Connection(name) => ike_sas(&|sa| sa.connection_name() == name),
            Target::IkeSa(id) => ike_sas(&|sa| sa.id() == *id),
            Target::Child { .. } | Target::ChildSa(_) => in_use
                .filter_map(|(spi, sa)| Some((spi, sa.established()?)))
                .flat_map(|(spi, sa)| {
                    let in_use = sa.children.values().filter(|child| child.is_useful() && child.announced);
                    let meant = in_use.filter(|child| match target {
                        Target::ChildSa(id) => child.id == *id,
                        Target::Child { connection, child: name } => {
                            let here = connection.as_ref().is_none_or(|connection| connection == sa.connection_name());
                            here && child.child.name == *name
                        }
                        Target::Connection(_) | Target::IkeSa(_) => false,
                    });
                    meant.map(|child| Object::Child(*spi, child.id)).collect::<Vec<_>>()
                })
                .collect(),
        }
    }

    fn shut_down(&mut self, now: Instant, grace: Duration) {
        match self.shutting_down {
            None => {}
            Some(ShuttingDown::Until(until)) => {
                self.shutting_down = Some(ShuttingDown::Until(until.min(now + grace)));
                return;
            }
            Some(ShuttingDown::Done) => return self.cx.notice(Notice::ShutDown),
        }
        self.shutting_down = Some(ShuttingDown::Until(now + grace));
        self.cx.reconciler.forget_all();
        let names: Vec<String> = self.cx.connections.iter().map(|connection| connection.name.clone()).collect();
        for name in names {
            self.untrap(&name);
        }
        let spis: Vec<IkeSpi> = self.sas.keys().copied().collect();
        for spi in spis {
            self.take_down(now, spi, Vec::new());
        }
    }

    /// Shutting down has taken long enough.
    pub(super) fn end_all(&mut self, now: Instant) {
        let spis: Vec<IkeSpi> = self.sas.keys().copied().collect();
        for spi in spis {
            self.with_established(spi, |sa, cx| sa.end(cx, now, DownReason::Command));
            self.with_sa(spi, |sa, cx| sa.stop(cx, now));
        }
    }
}
