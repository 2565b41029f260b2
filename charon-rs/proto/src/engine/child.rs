//! A Child SA: what was agreed, and how far its two halves are in the dataplane.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use espdp_api::{
    Command, Direction, EspSpi, InboundSaSpec, IpsecProtocol, Mode, OutboundSaSpec, OuterPath, PacketShape,
    PaddingPolicy, PolicyId, Refusal, SaLimits, SaSpec, SequenceEnd, TrafficSelector,
};

use super::context::{Asker, Context};
use super::policies::{Claim, Member, Stage};
use super::resources::Resource;
use super::session::Session;
use crate::config::{Child, Lifetime};
use crate::crypto::schedule::DirectionKeys;
use crate::io::{Ask, ChildKeyExport, ChildSaId, ChildSaReport, ChildState, IkeSpi, Notice};
use crate::proposal::EspSuite;

/// Everything that two peers agreed on for a Child SA.
#[derive(Debug)]
pub(super) struct AgreedChild {
    pub(super) child: Arc<Child>,
    pub(super) spi_in: EspSpi,
    pub(super) spi_out: EspSpi,
    pub(super) suite: EspSuite,
    pub(super) mode: Mode,
    pub(super) local: Vec<TrafficSelector>,
    pub(super) remote: Vec<TrafficSelector>,
    pub(super) later_fragments: bool,
    pub(super) padding: PaddingPolicy,
    pub(super) resource: Resource,
    pub(super) keys_in: DirectionKeys,
    pub(super) keys_out: DirectionKeys,
    /// Of the exchange that made it, the requester's first.
    pub(super) nonces: [Vec<u8>; 2],
    pub(super) maker: Maker,
    /// The Child SA that it replaces, with its policy.
    pub(super) replaces: Option<(ChildSaId, PolicyId)>,
}

/// Who asked for a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    We,
    Peer,
}

/// A Child SA.
#[derive(Debug)]
pub(super) struct ChildSa {
    pub(super) id: ChildSaId,
    pub(super) child: Arc<Child>,
    pub(super) policy: PolicyId,
    pub(super) phase: Phase,
    pub(super) spi_in: EspSpi,
    pub(super) spi_out: EspSpi,
    pub(super) suite: EspSuite,
    pub(super) mode: Mode,
    pub(super) path: OuterPath,
    pub(super) local: Vec<TrafficSelector>,
    pub(super) remote: Vec<TrafficSelector>,
    later_fragments: bool,
    padding: PaddingPolicy,
    /// Whose packets it carries.
    pub(super) resource: Resource,
    pub(super) inbound: Half,
    pub(super) outbound: Half,
    pub(super) nonces: [Vec<u8>; 2],
    pub(super) maker: Maker,
    /// The Child SA that it replaces.
    pub(super) replaces: Option<ChildSaId>,
    /// Another one that was made at the same time stays: it is there to be deleted.
    pub(super) redundant: bool,
    /// Somebody was told that it is up.
    pub(super) announced: bool,
    /// Somebody was told that another one took its place.
    pub(super) superseded: bool,
    pub(super) installed: Instant,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expires_at: Option<Instant>,
    /// Answers of the dataplane that are still to come.
    awaited: u8,
    refusal: Option<Refusal>,
}

/// What is going on with a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The dataplane has not confirmed it yet.
    Installing,
    /// It carries traffic, or will once it is activated.
    Up,
    /// Another one replaced it: it only receives, until somebody deletes it.
    Replaced,
    /// Our request to delete it is on its way.
    Deleting,
    /// It is deleted; what is still under way may come in until then.
    Draining(Instant),
}

/// How far one half of a Child SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// The dataplane was asked to install it.
    Asked,
    /// It is installed; an outbound half does not send yet.
    Ready,
    /// We send on it.
    Active,
    /// The dataplane did not take it.
    Refused,
    /// It was removed.
    Gone,
}

/// Which of the commands that install a child an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InstallStep {
    Policy,
    Inbound(EspSpi),
    Outbound,
    Active,
}

impl ChildSa {
    /// Has both halves of an agreed child installed, and its policy set if it is new. What came of it is told to
    /// [`Self::on_installed`].
    pub(super) fn install(cx: &mut Context, now: Instant, session: &Session, agreed: AgreedChild) -> Self {
        let id = cx.new_child_sa_id();
        let owner = session.names.local_spi();
        // What is replaced may have been deleted meanwhile, and its policy with it.
        let inherited =
            agreed.replaces.map(|(_, policy)| policy).filter(|policy| cx.policies.is_used_by(*policy, owner));
        let policy = inherited.unwrap_or_else(|| {
            let kin = cx.contacts.same_as(owner);
            let (connection, child) = (&*session.connection, &*agreed.child);
            let (local, remote) = (&agreed.local[..], &agreed.remote[..]);
            cx.policies.claim(Claim { owner, kin: &kin, connection, child, local, remote })
        });
        let (spi_in, spi_out) = (agreed.spi_in, agreed.spi_out);
        let member = Member { owner, spi_in, spi_out, stage: Stage::Installing, carries: agreed.resource.carries() };
        cx.policies.join(policy, id, member);
        let path = session.outer_path(cx.settings.nat_port);
        let (rekey_at, expires_at) = deadlines(cx, now, &agreed.child.lifetime);
        let mut sa = Self {
            id,
            policy,
            phase: Phase::Installing,
            spi_in: agreed.spi_in,
            spi_out: agreed.spi_out,
            suite: agreed.suite,
            mode: agreed.mode,
            path,
            local: agreed.local,
            remote: agreed.remote,
            later_fragments: agreed.later_fragments,
            padding: agreed.padding,
            resource: agreed.resource,
            inbound: Half::Asked,
            outbound: Half::Asked,
            nonces: agreed.nonces,
            maker: agreed.maker,
            replaces: agreed.replaces.map(|(id, _)| id),
            redundant: false,
            announced: false,
            superseded: false,
            installed: now,
            rekey_at,
            expires_at,
            awaited: 0,
            refusal: None,
            child: agreed.child,
        };
        sa.export_keys(cx, &agreed.keys_in, &agreed.keys_out);
        sa.ask_for_halves(cx, (owner, &session.virtual_addresses.ours), (agreed.keys_in, agreed.keys_out));
        sa
    }

    fn ask_for_halves(
        &mut self,
        cx: &mut Context,
        (owner, addresses): (IkeSpi, &[IpAddr]),
        (keys_in, keys_out): (DirectionKeys, DirectionKeys),
    ) {
        let selectors = (&self.local[..], &self.remote[..]);
        let policy = cx.policies.use_for(self.policy, &self.child, selectors, addresses, self.later_fragments);
        let mut commands: Vec<_> = policy.map(|command| (InstallStep::Policy, command)).into_iter().collect();
        let replay_window = self.child.replay_window;
        let inbound = InboundSaSpec { sa: self.spec(self.spi_in, keys_in), replay_window };
        commands.push((InstallStep::Inbound(self.spi_in), Command::InstallInbound(Box::new(inbound))));
        let shape = PacketShape { padding: self.padding, ..self.child.shape };
        let outbound = OutboundSaSpec {
            sa: self.spec(self.spi_out, keys_out),
            shape,
            sequence_end: SequenceEnd::Stop,
            inbound: Some(self.spi_in),
            carries: self.resource.carries(),
        };
        commands.push((InstallStep::Outbound, Command::InstallOutbound(Box::new(outbound))));
        for (step, command) in commands {
            self.awaited += 1;
            cx.ask(Asker::Install(owner, self.id, step), Ask::Dataplane(command));
        }
    }

    fn spec(&self, spi: EspSpi, keys: DirectionKeys) -> SaSpec {
        SaSpec {
            protocol: self.suite.protocol,
            spi,
            policy: self.policy,
            algorithms: self.suite.algorithms,
            encryption_key: keys.encryption_key,
            integrity_key: keys.integrity_key,
            mode: self.mode,
            path: self.path,
            local: self.local.clone(),
            remote: self.remote.clone(),
            limits: SaLimits { soft: self.child.rekey_after_traffic, hard: self.child.expire_after_traffic },
        }
    }

    /// Takes the outcome of one step. After the last one: whether the child is up.
    ///
    /// A child on whose policy nobody sends does so before anybody is told that it is up; it has nothing to lose. What
    /// takes another one's place waits until the peer is known to be ready (RFC 7296 §2.8).
    pub(super) fn on_installed(
        &mut self,
        cx: &mut Context,
        owner: IkeSpi,
        step: InstallStep,
        outcome: Result<(), Refusal>,
    ) -> Option<Result<(), Refusal>> {
        self.awaited = self.awaited.saturating_sub(1);
        let half = if outcome.is_ok() { Half::Ready } else { Half::Refused };
        match step {
            InstallStep::Policy if outcome.is_err() => cx.policies.was_refused(self.policy),
            InstallStep::Policy => {}
            InstallStep::Inbound(_) => self.inbound = half,
            InstallStep::Outbound => self.outbound = half,
            InstallStep::Active if outcome.is_ok() => self.outbound = Half::Active,
            InstallStep::Active => {}
        }
        if let Err(refusal) = outcome {
            self.refusal.get_or_insert(refusal);
        }
        if self.awaited > 0 {
            return None;
        }
        match self.refusal.take() {
            Some(refusal) => Some(Err(refusal)),
            // The peer that answered is ready, and one that asked shows that it is by its first packet.
            None if self.outbound == Half::Ready
                && self.resource.worker().is_some()
                && self.maker == Maker::We
                && self.replaces.is_none() =>
            {
                self.awaited += 1;
                let activate = Command::Activate { policy: self.policy, spi: self.spi_out };
                cx.ask(Asker::Install(owner, self.id, InstallStep::Active), Ask::Dataplane(activate));
                None
            }
            None if self.resource.worker().is_none()
                && self.outbound == Half::Ready
                && !cx.policies.has_sender(self.policy) =>
            {
                self.awaited += 1;
                cx.policies.set_sender(self.policy, self.id);
                let activate = Command::Activate { policy: self.policy, spi: self.spi_out };
                cx.ask(Asker::Install(owner, self.id, InstallStep::Active), Ask::Dataplane(activate));
                None
            }
            None => {
                self.phase = Phase::Up;
                if self.outbound == Half::Ready {
                    cx.policies.set_stage(self.policy, self.id, Stage::Waiting);
                }
                Some(Ok(()))
            }
        }
    }

    /// Sends on this SA from now on.
    pub(super) fn activate(&mut self, cx: &mut Context) {
        if self.outbound == Half::Ready {
            self.outbound = Half::Active;
            match self.resource {
                Resource::Unsaid | Resource::Any => cx.activate(self.policy, self.id, self.spi_out),
                Resource::One(_) => {
                    let activate = Command::Activate { policy: self.policy, spi: self.spi_out };
                    cx.command("send on another SA", activate);
                }
            }
        }
    }

    /// Removes the half that sends. Another child of the policy sends from now on, if there is one.
    pub(super) fn remove_outbound(&mut self, cx: &mut Context) {
        cx.pass_on_sending(self.policy, self.id);
        if matches!(self.outbound, Half::Asked | Half::Ready | Half::Active) {
            let (spi, policy) = (self.spi_out, self.policy);
            cx.command("remove an SA", Command::RemoveSa { direction: Direction::Outbound, spi, policy });
        }
        self.outbound = Half::Gone;
        cx.policies.set_stage(self.policy, self.id, Stage::Receiving);
    }

    /// Removes the half that receives.
    pub(super) fn remove_inbound(&mut self, cx: &mut Context) {
        match self.inbound {
            Half::Asked | Half::Ready | Half::Active => {
                let (spi, policy) = (self.spi_in, self.policy);
                cx.command("remove an SA", Command::RemoveSa { direction: Direction::Inbound, spi, policy });
            }
            Half::Refused => cx.release_spi(self.spi_in),
            Half::Gone => {}
        }
        self.inbound = Half::Gone;
    }

    /// There is nobody to take it: the dataplane is cleaned up.
    pub(super) fn abandon(mut self, cx: &mut Context) {
        self.remove_outbound(cx);
        self.remove_inbound(cx);
        cx.leave_policy(self.policy, self.id);
    }

    /// Both ends have deleted it, and everybody was told: it only receives what is still under way, for a while.
    pub(super) fn drain(&mut self, cx: &mut Context, now: Instant) {
        self.remove_outbound(cx);
        cx.policies.set_stage(self.policy, self.id, Stage::Draining);
        if !self.is_draining() {
            self.phase = Phase::Draining(now + cx.settings.drain_time);
        }
        (self.rekey_at, self.expires_at, self.announced) = (None, None, false);
    }

    /// Whether somebody believes that it is up.
    pub(super) fn is_known(&self) -> bool {
        self.announced && !self.superseded && !self.redundant
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining(_))
    }

    /// Has both halves travel on another path.
    pub(super) fn move_to(&mut self, cx: &mut Context, path: OuterPath) {
        if self.path == path {
            return;
        }
        self.path = path;
        let halves =
            [(Direction::Inbound, self.spi_in, self.inbound), (Direction::Outbound, self.spi_out, self.outbound)];
        for (direction, spi, half) in halves {
            if !matches!(half, Half::Gone | Half::Refused) {
                let policy = self.policy;
                cx.command("move an SA", Command::MoveSa { direction, spi, policy, path });
            }
        }
    }

    /// Whether it carries traffic or soon will, so that nobody needs to make another one.
    pub(super) fn is_useful(&self) -> bool {
        matches!(self.phase, Phase::Installing | Phase::Up) && !self.redundant
    }

    fn export_keys(&self, cx: &mut Context, keys_in: &DirectionKeys, keys_out: &DirectionKeys) {
        // AH hides nothing that a key would show.
        if !cx.settings.export_keys || self.suite.protocol == IpsecProtocol::Ah {
            return;
        }
        cx.notice(Notice::ChildKeys(Box::new(ChildKeyExport {
            path: self.path,
            algorithms: self.suite.algorithms,
            spi_in: self.spi_in,
            spi_out: self.spi_out,
            encryption_in: keys_in.encryption_key.clone(),
            integrity_in: keys_in.integrity_key.clone(),
            encryption_out: keys_out.encryption_key.clone(),
            integrity_out: keys_out.integrity_key.clone(),
        })));
    }

    /// As people see it. `rekeying` tells whether our request to replace it is on its way.
    pub(super) fn report(&self, rekeying: bool) -> ChildSaReport {
        let state = match self.phase {
            Phase::Installing => ChildState::Installing,
            Phase::Up if rekeying => ChildState::Rekeying,
            Phase::Up => ChildState::Installed,
            Phase::Replaced | Phase::Draining(_) => ChildState::Rekeyed,
            Phase::Deleting => ChildState::Deleting,
        };
        ChildSaReport {
            id: self.id,
            name: self.child.name.clone(),
            policy: self.policy,
            state,
            mode: self.mode,
            spi_in: self.spi_in,
            spi_out: Some(self.spi_out),
            protocol: self.suite.protocol,
            algorithms: self.suite.algorithms,
            pfs_group: self.suite.group,
            additional: self.suite.additional,
            path: self.path,
            local: self.local.clone(),
            remote: self.remote.clone(),
            installed: self.installed,
            rekey_at: self.rekey_at,
            expires_at: self.expires_at,
        }
    }
}

/// When an SA that begins now is rekeyed and when it ends. The random part keeps two ends with the same lifetimes from
/// rekeying at once (RFC 7296 §2.8.1).
pub(super) fn deadlines(cx: &mut Context, now: Instant, lifetime: &Lifetime) -> (Option<Instant>, Option<Instant>) {
    let jitter = cx.random_duration(lifetime.jitter);
    let rekey_at = lifetime.rekey_after.map(|after| now + after.saturating_sub(jitter));
    (rekey_at, lifetime.expire_after.map(|after| now + after))
}
