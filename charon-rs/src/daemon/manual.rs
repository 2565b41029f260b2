//! Policies that no connection negotiates, and their SAs that are keyed by hand, in the dataplane.

use std::collections::{BTreeMap, BTreeSet};

use espdp_api::{
    Carries, Command, Direction, InboundSaSpec, InterfaceName, IpsecProtocol, OutboundSaSpec, PolicyId, PolicySpec,
    SaSpec, SequenceEnd,
};

use super::shell::Shell;
use crate::config::{ManualPolicy, ManualSa};

/// The policies in force, by their names.
#[derive(Debug, Default)]
pub(crate) struct Manual {
    policies: BTreeMap<String, (PolicyId, ManualPolicy)>,
    /// What the dataplane has refused of them. It is tried again with the next change that may cure it.
    refused: BTreeSet<Part>,
    /// The SAs wanted now, each with the number of the step that installs it.
    installations: BTreeMap<Part, u64>,
    /// Such steps so far.
    ordered: u64,
    /// Policies so far: no id is used twice.
    made: u64,
}

/// A policy, or one of its SAs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    policy: PolicyId,
    /// The SA's name; `None` is the policy itself.
    sa: Option<String>,
}

impl Manual {
    /// The policies with their ids, in the order of their names.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (PolicyId, &ManualPolicy)> {
        self.policies.values().map(|(id, policy)| (*id, policy))
    }

    /// The interfaces whose packets they select.
    pub(super) fn specs(&self) -> impl Iterator<Item = &PolicySpec> {
        self.policies.values().map(|(_, policy)| &policy.spec)
    }

    /// The interfaces of all of them.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        self.policies.values().map(|(_, policy)| &policy.spec.interface)
    }

    /// Whether something of them is not in force.
    pub(super) fn lacks_something(&self) -> bool {
        !self.refused.is_empty()
    }

    /// The dataplane has refused it.
    pub(super) fn was_refused(&mut self, part: Part) {
        if self.policies.values().any(|(id, _)| *id == part.policy) {
            self.refused.insert(part);
        }
    }

    /// What has to be done to have just the `wanted` policies, what was refused before included: whatever is protected stays so meanwhile, and an SPI is given
    /// back before somebody else takes it.
    pub(super) fn change_to(&mut self, wanted: Vec<ManualPolicy>) -> Vec<Step> {
        let (mut set, mut gone, mut new) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = std::mem::take(&mut self.policies);
        let refused = std::mem::take(&mut self.refused);
        for policy in wanted {
            let old = before.remove(&policy.name);
            let id = old.as_ref().map_or_else(|| self.fresh_id(), |(id, _)| *id);
            let old = old.map(|(_, old)| old);
            let is_refused = |sa: Option<&str>| refused.contains(&Part { policy: id, sa: sa.map(str::to_owned) });
            if is_refused(None) || old.as_ref().is_none_or(|old| old.spec != policy.spec) {
                let spec = PolicySpec { id, ..policy.spec.clone() };
                let what = format!("policy `{}` cannot be set", policy.name);
                let part = Part { policy: id, sa: None };
                set.push(step(Command::SetPolicy(Box::new(spec)), None, what, Some(part)));
            }
            // SAs carry the selectors of their policy, so they go when those change.
            let same_selectors =
                |old: &ManualPolicy| (&old.spec.local, &old.spec.remote) == (&policy.spec.local, &policy.spec.remote);
            let stays = old.as_ref().is_some_and(same_selectors);
            let mut old_sas = old.map(|old| old.sas).unwrap_or_default();
            old_sas.retain(|sa| !is_refused(Some(&sa.name)));
            gone.extend(old_sas.iter().filter(|sa| !(stays && policy.sas.contains(sa))).map(|sa| removal(id, sa)));
            for sa in policy.sas.iter().filter(|sa| !(stays && old_sas.contains(sa))) {
                self.ordered += 1;
                let part = Part { policy: id, sa: Some(sa.name.clone()) };
                self.installations.insert(part.clone(), self.ordered);
                new.push(installation(part, &policy.spec, sa, self.ordered));
            }
            self.policies.insert(policy.name.clone(), (id, policy));
        }
        gone.extend(before.into_values().map(|(id, policy)| {
            step(Command::RemovePolicy(id), None, format!("policy `{}` cannot be removed", policy.name), None)
        }));
        let sas = self.policies.values().flat_map(|(id, policy)| policy.sas.iter().map(move |sa| (*id, &sa.name)));
        let wanted: BTreeSet<Part> = sas.map(|(policy, sa)| Part { policy, sa: Some(sa.clone()) }).collect();
        self.installations.retain(|part, _| wanted.contains(part));
        set.into_iter().chain(gone).chain(new).collect()
    }

    /// Whether what follows a step is still wanted: not if the SA was removed or changed while the dataplane carried it out.
    pub(super) fn goes_on(&self, pending: &PendingStep) -> bool {
        pending.part.as_ref().is_some_and(|part| self.installations.get(part) == Some(&pending.installation))
    }

    /// Ids that the engine, which counts from 1, never comes to.
    fn fresh_id(&mut self) -> PolicyId {
        self.made += 1;
        PolicyId(1 << 63 | self.made)
    }
}

/// A command, and what to say if it fails.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) command: Command,
    pub(super) pending: PendingStep,
}

/// What is known of a step while the dataplane carries it out.
#[derive(Debug)]
pub(super) struct PendingStep {
    /// What follows when that is done.
    pub(super) then: Option<Command>,
    pub(super) what: String,
    /// What is not in force if it is refused.
    pub(super) part: Option<Part>,
    /// The number of the installation that it belongs to; 0 if it is none.
    pub(super) installation: u64,
}

impl Shell {
    /// Has just these policies in force.
    pub(super) fn change_policies(&mut self, wanted: Vec<ManualPolicy>) {
        for step in self.applied.manual.change_to(wanted) {
            self.order(step);
        }
    }

    /// Something has changed that may have kept a policy or an SA from being in force.
    pub(super) fn retry_policies(&mut self) {
        if self.applied.manual.lacks_something() {
            self.set_policies();
        }
    }

    /// The dataplane has refused something that nobody negotiates.
    pub(super) fn on_refused_part(&mut self, part: Option<Part>) {
        if let Some(part) = part {
            self.applied.manual.was_refused(part);
        }
    }
}

fn step(command: Command, then: Option<Command>, what: String, part: Option<Part>) -> Step {
    Step { command, pending: PendingStep { then, what, part, installation: 0 } }
}

fn removal(policy: PolicyId, sa: &ManualSa) -> Step {
    let command = Command::RemoveSa { direction: sa.direction, spi: sa.spi, policy };
    step(command, None, format!("sa `{}` cannot be removed", sa.name), None)
}

fn installation(part: Part, spec: &PolicySpec, sa: &ManualSa, number: u64) -> Step {
    let (policy, limits) = (part.policy, sa.limits);
    let half = SaSpec {
        protocol: IpsecProtocol::Esp,
        spi: sa.spi,
        policy,
        algorithms: sa.algorithms,
        encryption_key: sa.encryption_key.clone(),
        integrity_key: sa.integrity_key.clone(),
        mode: sa.mode,
        path: sa.path,
        local: spec.local.clone(),
        remote: spec.remote.clone(),
        limits,
    };
    let (command, then) = match sa.direction {
        Direction::Inbound => {
            let spec = InboundSaSpec { sa: half, replay_window: sa.replay_window };
            (Command::ClaimSpi(sa.spi), Some(Command::InstallInbound(Box::new(spec))))
        }
        Direction::Outbound => {
            // Whoever does not look at the numbers does not mind when they begin anew.
            let sequence_end = if sa.replay_window == 0 { SequenceEnd::Wrap } else { SequenceEnd::Stop };
            let spec = OutboundSaSpec { sa: half, shape: sa.shape, sequence_end, inbound: None, carries: Carries::All };
            // Activating does not wait in the dataplane's queue, so it has to wait here.
            (Command::InstallOutbound(Box::new(spec)), Some(Command::Activate { policy, spi: sa.spi }))
        }
    };
    let what = format!("sa `{}` cannot be installed", sa.name);
    Step { command, pending: PendingStep { then, what, part: Some(part), installation: number } }
}

#[cfg(test)]
mod tests {
    use espdp_api::{
        AddressRange, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi, Mode, OuterPath, PacketShape,
        SaLimits, Secret, TrafficSelector,
    };

    use super::*;

    fn sa(name: &str, direction: Direction, spi: u32) -> ManualSa {
        let encapsulation = Encapsulation::Esp;
        ManualSa {
            name: name.to_owned(),
            direction,
            spi: EspSpi::try_from(spi).unwrap(),
            algorithms: EspAlgorithms {
                cipher: EspCipher::AesCbc { key_bits: 128 },
                integrity: EspIntegrity::HmacSha2_256_128,
                extended_sequence_numbers: false,
            },
            encryption_key: Secret::new(vec![1; 16]),
            integrity_key: Secret::new(vec![2; 32]),
            mode: Mode::Tunnel,
            path: OuterPath { local: [10, 0, 0, 2].into(), remote: [10, 1, 0, 2].into(), encapsulation },
            limits: SaLimits::default(),
            replay_window: 0,
            shape: PacketShape::default(),
        }
    }

    fn policy(name: &str, priority: u32, sas: Vec<ManualSa>) -> ManualPolicy {
        let all = AddressRange::new([0, 0, 0, 0].into(), [255; 4].into()).unwrap();
        let all = vec![TrafficSelector::any_protocol(all)];
        let interface = InterfaceName::new("ipsec0").unwrap();
        let spec = PolicySpec { priority, ..PolicySpec::protect(PolicyId(0), interface, all.clone(), all) };
        ManualPolicy { name: name.to_owned(), spec, sas }
    }

    /// The commands, each as one word and the last digits of what it is about.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other commands would be wrong here, whatever they are")]
    fn steps(manual: &mut Manual, wanted: &[ManualPolicy]) -> Vec<String> {
        let said = |command: Command| match command {
            Command::SetPolicy(spec) => format!("set {} {}", spec.id.0 & 0xff, spec.priority),
            Command::RemovePolicy(id) => format!("remove {}", id.0 & 0xff),
            Command::ClaimSpi(spi) => format!("claim {spi}"),
            Command::InstallInbound(spec) => format!("receive {} {}", spec.sa.policy.0 & 0xff, spec.sa.spi),
            Command::InstallOutbound(spec) => format!("send {} {}", spec.sa.policy.0 & 0xff, spec.sa.spi),
            Command::Activate { spi, .. } => format!("activate {spi}"),
            Command::RemoveSa { spi, .. } => format!("end {spi}"),
            other => panic!("{other:?}"),
        };
        let steps = manual.change_to(wanted.to_vec()).into_iter();
        steps.flat_map(|step| std::iter::once(step.command).chain(step.pending.then)).map(said).collect()
    }

    #[test]
    fn policies_come_before_their_sas_and_what_is_the_same_is_left_alone() {
        let mut manual = Manual::default();
        let both = || vec![sa("out", Direction::Outbound, 0x1001), sa("in", Direction::Inbound, 0x1002)];
        let first = [policy("a", 1, both())];
        assert_eq!(
            steps(&mut manual, &first),
            ["set 1 1", "send 1 00001001", "activate 00001001", "claim 00001002", "receive 1 00001002"]
        );
        assert!(steps(&mut manual, &first).is_empty());
        assert_eq!(steps(&mut manual, &[policy("a", 2, both())]), ["set 1 2"], "its SAs go on");
    }

    #[test]
    fn what_was_refused_is_tried_again_and_nothing_else() {
        let mut manual = Manual::default();
        let both = || vec![sa("out", Direction::Outbound, 0x1001), sa("in", Direction::Inbound, 0x1002)];
        let wanted = [policy("a", 1, both()), policy("b", 1, Vec::new())];
        let first = manual.change_to(wanted.to_vec());
        let part = |sa: Option<&str>| {
            let is_it = |part: &&Part| part.policy.0 & 0xff == 1 && part.sa.as_deref() == sa;
            first.iter().filter_map(|step| step.pending.part.as_ref()).find(is_it).unwrap().clone()
        };
        manual.was_refused(part(Some("in")));
        assert!(manual.lacks_something());
        assert_eq!(steps(&mut manual, &wanted), ["claim 00001002", "receive 1 00001002"]);
        assert!(!manual.lacks_something() && steps(&mut manual, &wanted).is_empty(), "now it is in force");
        manual.was_refused(part(None));
        manual.was_refused(part(Some("out")));
        assert_eq!(steps(&mut manual, &wanted), ["set 1 1", "send 1 00001001", "activate 00001001"]);
        steps(&mut manual, &[]);
        manual.was_refused(part(None));
        assert!(!manual.lacks_something(), "nobody wants it any more");
    }

    #[test]
    fn what_was_removed_or_changed_meanwhile_is_not_installed() {
        let mut manual = Manual::default();
        let inbound = sa("in", Direction::Inbound, 0x1002);
        let rekeyed = ManualSa { encryption_key: Secret::new(vec![9; 16]), ..inbound.clone() };
        let pending = |manual: &mut Manual, sas: Vec<ManualSa>| {
            manual.change_to(vec![policy("a", 1, sas)]).pop().map(|step| step.pending).unwrap()
        };
        let first = pending(&mut manual, vec![inbound]);
        assert!(manual.goes_on(&first));
        let second = pending(&mut manual, vec![rekeyed]);
        assert!(!manual.goes_on(&first) && manual.goes_on(&second));
        pending(&mut manual, Vec::new());
        assert!(!manual.goes_on(&second));
    }

    #[test]
    fn sas_are_made_anew_when_the_selectors_of_their_policy_change() {
        let mut manual = Manual::default();
        let inbound = || vec![sa("in", Direction::Inbound, 0x1002)];
        steps(&mut manual, &[policy("a", 1, inbound())]);
        let mut narrower = policy("a", 1, inbound());
        narrower.spec.remote = vec![TrafficSelector::any_protocol(AddressRange::single([10, 2, 0, 1].into()))];
        assert_eq!(
            steps(&mut manual, &[narrower]),
            ["set 1 1", "end 00001002", "claim 00001002", "receive 1 00001002"]
        );
    }

    #[test]
    fn an_spi_is_given_back_before_another_policy_takes_it_and_nothing_is_ever_unprotected() {
        let mut manual = Manual::default();
        let inbound = || vec![sa("in", Direction::Inbound, 0x1002)];
        steps(&mut manual, &[policy("a", 1, inbound())]);
        assert_eq!(
            steps(&mut manual, &[policy("b", 1, inbound())]),
            ["set 2 1", "remove 1", "claim 00001002", "receive 2 00001002"]
        );
        let rekeyed = ManualSa { encryption_key: Secret::new(vec![9; 16]), ..sa("in", Direction::Inbound, 0x1002) };
        assert_eq!(
            steps(&mut manual, &[policy("b", 1, vec![rekeyed])]),
            ["end 00001002", "claim 00001002", "receive 2 00001002"]
        );
        assert_eq!(steps(&mut manual, &[]), ["remove 2"]);
        assert_eq!(steps(&mut manual, &[policy("b", 1, Vec::new())]), ["set 3 1"], "no id is used twice");
    }
}
