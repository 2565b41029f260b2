//! What the control thread keeps in the host's own network stack: the guard and what else a [`HostSpec`] asks for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use espdp_api::{Done, GuardMode, HostSpec, InterfaceName, InterfaceSpec, Outcome, PolicyId, PolicySpec};
use espdp_core::InterfaceId;
use tunnels::nft::{Nft, NftError, Table};
use tunnels::{
    Family, GuardContext, Netlink, NetlinkError, NetworkState, SteeringNumbers, SteeringPlaces, TABLE, asked_routes,
    host_table, is_covered, plan,
};

use super::book::Interface;
use super::devices::DeviceSource;
use super::{Control, refusal, system};
use crate::DataplaneSettings;

/// The host's network stack, as far as it is ours.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Routes and rules that were asked for and are there; at first those that a predecessor left.
    actual: NetworkState,
    /// Our table of the packet filter.
    table: InKernel,
    /// The numbers of the interfaces that packets are steered to.
    steering: SteeringPlaces,
    /// Whether routes or the table of the packet filter are not as they should be.
    is_stale: bool,
    /// When to try that again, and to make devices again that somebody deleted.
    pub(super) lost_due: Option<Instant>,
}

/// What is there under the name of our table.
#[derive(Debug, Default)]
enum InKernel {
    /// Perhaps the table of a predecessor.
    #[default]
    Unknown,
    /// This table, or none.
    Known(Option<Box<Table>>),
}

impl Host {
    /// Finds out what a predecessor left behind. Its routes go; its rules and blackholes stay until we are told what there is to
    /// be, so that nothing leaves in clear meanwhile.
    pub(super) async fn start(
        netlink: &Netlink,
        settings: &DataplaneSettings,
        families: &[Family],
    ) -> Result<Self, NetlinkError> {
        let mut actual = NetworkState::default();
        for family in families {
            netlink.remove_static_routes(*family).await?;
            let is_ours = |table: u32| is_steering(settings, table);
            let rules = netlink.mark_rules(*family).await?;
            actual.mark_rules.extend(rules.into_iter().filter(|rule| is_ours(rule.table)));
            let blackholes = netlink.blackholes(*family).await?;
            actual.blackholes.extend(blackholes.into_iter().filter(|key| is_ours(key.table)));
        }
        Ok(Self { actual, ..Self::default() })
    }

    /// Takes away what is ours, unless it is to outlive us.
    pub(super) async fn stop(mut self, netlink: &Netlink, spec: Option<&HostSpec>, has_table: bool) {
        if spec.is_none() && !has_table {
            return;
        }
        if spec.is_some_and(|spec| spec.guard == GuardMode::Always) {
            let kept = NetworkState { static_routes: Default::default(), ..self.actual.clone() };
            return netlink.clear(&mut self.actual, &kept).await;
        }
        netlink.clear(&mut self.actual, &NetworkState::default()).await;
        if !matches!(self.table, InKernel::Known(None))
            && let Err(error) = Nft.remove(TABLE).await
            && !matches!(error, NftError::NotInstalled)
        {
            tracing::warn!(%error, "the table {TABLE} of nftables is left behind");
        }
    }
}

impl Control {
    pub(super) async fn set_host(&mut self, spec: HostSpec) -> Outcome {
        self.host.steering = self.host.steering.followed_by(&spec.steering);
        self.book.host = Some(spec);
        // From now on what a predecessor left behind is taken over or taken away.
        self.book.inherited = NetworkState::default();
        self.apply_host().await
    }

    /// Has everything in the host's network stack as it is to be. What cannot be done does not keep the rest from being done, the
    /// guard least of all, and is tried again.
    async fn apply_host(&mut self) -> Outcome {
        let applied = self.apply().await;
        self.apply_asked().await;
        self.host.is_stale = applied.is_err();
        self.retry_if_stale();
        let guarded = self.apply_table().await;
        guarded.map_err(|error| system("set the host's packet filter", &error))?;
        applied.map_err(refusal)?;
        Ok(Done::Ok)
    }

    fn retry_if_stale(&mut self) {
        if self.host.is_stale {
            self.host.lost_due = Some(Instant::now() + PATIENCE);
        }
    }

    /// The steps that [`Self::set_host`] would take with `spec`, and the lines of our table that would change.
    pub(super) fn plan_host(&mut self, spec: HostSpec) -> Outcome {
        let places = self.host.steering.followed_by(&spec.steering);
        let asked = asked_routes(&spec, (steering(&self.settings), &places));
        let steered = std::mem::replace(&mut self.host.steering, places);
        let before = self.book.host.replace(spec);
        let inherited = std::mem::take(&mut self.book.inherited);
        let desired = self.book.desired();
        let table = self.table();
        self.book.inherited = inherited;
        self.book.host = before;
        self.host.steering = steered;
        let steps = plan(&self.actual, &desired).into_iter().chain(plan(&self.host.actual, &asked));
        let mut lines: Vec<String> = steps.map(|step| step.to_string()).collect();
        let current = match &self.host.table {
            InKernel::Known(Some(table)) => table.lines(),
            InKernel::Known(None) | InKernel::Unknown => Vec::new(),
        };
        lines.extend(difference(&current, &table.map(|table| table.lines()).unwrap_or_default()));
        Ok(Done::Plan(lines))
    }

    /// Puts routes and rules there that were asked for. One that cannot be there now is tried again when links come.
    pub(super) async fn apply_asked(&mut self) {
        let Some(spec) = &self.book.host else { return };
        let desired = asked_routes(spec, (steering(&self.settings), &self.host.steering));
        for error in self.netlink.apply_each(&mut self.host.actual, &desired).await {
            tracing::warn!(%error, "a route or rule of the configuration is not there");
        }
    }

    /// The kernel took the routes through a link that was set down, and took none while there was no such link.
    pub(super) async fn host_link_is_up(&mut self, name: &InterfaceName) {
        self.host.actual.forget_link(name);
        self.host.actual.forget_routes_by_gateway();
        self.apply_asked().await;
        // Perhaps it is another link of the same name: the socket of a port belongs to the one that there was.
        let of_host = |own: &&Interface| DeviceSource::of(&own.spec) == DeviceSource::Host && own.spec.netns.is_none();
        let Some(id) = self.book.interfaces.get(name).filter(of_host).map(|own| own.id) else { return };
        if let Err(error) = self.make_device_again(id, name).await {
            tracing::debug!(interface = %name, error, "a link of the host cannot be used yet");
        }
    }

    /// Puts our table of the packet filter there, if it is another one than before. Where that fails it is tried again, unless
    /// there is no `nft` at all.
    pub(super) async fn apply_table(&mut self) -> Result<(), NftError> {
        let desired = self.table().map(Box::new);
        if matches!(&self.host.table, InKernel::Known(known) if *known == desired) {
            return Ok(());
        }
        // A transaction that was given up may have been carried out nevertheless.
        self.host.table = InKernel::Unknown;
        let done = match &desired {
            Some(table) => Nft.replace(table).await,
            None => match Nft.remove(TABLE).await {
                // Then nobody made a table either.
                Err(NftError::NotInstalled) => Ok(()),
                other => other,
            },
        };
        match &done {
            Ok(()) => self.host.table = InKernel::Known(desired),
            Err(NftError::NotInstalled) => {}
            Err(_) => {
                self.host.is_stale = true;
                self.retry_if_stale();
            }
        }
        done
    }

    fn table(&self) -> Option<Table> {
        self.links.add_to(self.asked_table())
    }

    fn asked_table(&self) -> Option<Table> {
        let mut spec = self.book.host.clone()?;
        spec.guarded.retain(|policy| self.book.is_here(policy));
        let DataplaneSettings { mark, ike_port, nat_port, .. } = self.settings;
        let set = self.book.policies.values().map(|policy| &policy.spec);
        let more: Vec<&PolicySpec> = set.filter(|policy| self.book.is_here(policy) && adds(policy, &spec)).collect();
        let context = GuardContext { mark, ike_ports: [ike_port, nat_port] };
        host_table(&spec, &more, context, (steering(&self.settings), &self.host.steering))
    }

    /// Guards a policy that was set or is gone, if the configuration does not cause that already.
    pub(super) async fn guard_policies(&mut self, before: Option<&PolicySpec>, id: PolicyId) {
        let Some(host) = self.book.host.as_ref().filter(|host| host.guard != GuardMode::Off) else { return };
        let now = self.book.policies.get(&id).map(|policy| &policy.spec);
        if before == now || !before.into_iter().chain(now).any(|policy| adds(policy, host)) {
            return;
        }
        let applied = self.apply_table().await;
        self.note_failure("guard a policy", applied.err().map(|error| error.to_string()));
    }

    /// Makes a device again that somebody deleted. Until its routes are back, their packets find our blackholes.
    pub(super) async fn restore_device(&mut self, id: InterfaceId) {
        let Some((name, spec)) = self.interface_of(id) else { return };
        // Another worker may have told the same, or another device have taken the place of the one that was lost.
        if self.is_served(id, &spec).await {
            return;
        }
        tracing::warn!(interface = %name, "somebody deleted an interface of ours: making it again");
        if let Err(error) = self.make_device_again(id, &name).await {
            tracing::warn!(interface = %name, error, "an interface cannot be made again yet");
        }
    }

    /// Tries again what could not be done.
    pub(super) async fn restore_lost_devices(&mut self) {
        self.host.lost_due = None;
        for id in self.book.lost.clone() {
            let Some((name, _)) = self.interface_of(id) else {
                self.book.lost.remove(&id);
                continue;
            };
            if let Err(error) = self.make_device_again(id, &name).await {
                tracing::debug!(interface = %name, error, "an interface cannot be made again yet");
            }
        }
        if self.host.is_stale {
            match self.apply_host().await {
                Ok(_) => tracing::info!("routes and packet filter are as they should be again"),
                Err(error) => tracing::debug!(%error, "routes or packet filter are not as they should be yet"),
            }
        }
    }

    /// As long as that fails the interface is lost: nothing leads into it, and it is tried again.
    async fn make_device_again(&mut self, id: InterfaceId, name: &InterfaceName) -> Result<(), String> {
        let Some(spec) = self.book.interfaces.get(name).map(|own| own.spec.clone()) else { return Ok(()) };
        self.forget_link(&spec);
        self.host.actual.forget_link(name);
        self.book.lost.remove(&id);
        let made = self.make_and_serve(id, &spec).await;
        if made.is_err() {
            self.forget_link(&spec);
            self.book.lost.insert(id);
            self.host.lost_due = Some(Instant::now() + PATIENCE);
        }
        made
    }

    async fn make_and_serve(&mut self, id: InterfaceId, spec: &InterfaceSpec) -> Result<(), String> {
        // The other queues of a link that is gone are dead as well, and in the way.
        self.close_device(id).await.map_err(|refusal| refusal.to_string())?;
        let devices = self.open_device(spec).map_err(|refusal| refusal.to_string())?;
        self.apply().await.map_err(|error| error.to_string())?;
        self.apply_asked().await;
        self.serve_device(id, devices).await.map_err(|refusal| refusal.to_string())
    }

    /// Whether all workers that should have the device of an interface do have it.
    async fn is_served(&self, id: InterfaceId, spec: &InterfaceSpec) -> bool {
        let source = DeviceSource::of(spec);
        let Ok(has) = self.ask_all(move |worker| worker.has_device(id)).await else { return false };
        if source.is_shared() { has.iter().all(|has| *has) } else { has.first() == Some(&true) }
    }

    fn interface_of(&self, id: InterfaceId) -> Option<(InterfaceName, InterfaceSpec)> {
        let own = self.book.interfaces.values().find(|own| own.id == id)?;
        Some((own.spec.name.clone(), own.spec.clone()))
    }
}

/// Whether a policy that is set needs a guard beyond that of the configuration. One without routes has nothing to guard, but what
/// comes from its interface was protected.
fn adds(policy: &PolicySpec, spec: &HostSpec) -> bool {
    !is_covered(policy, &spec.guarded)
}

/// The marks are ours alone, as far as we know; tables and priorities are near those of the policies' routes.
fn steering(settings: &DataplaneSettings) -> SteeringNumbers {
    SteeringNumbers {
        mark: STEERING_MARK,
        table: settings.table.saturating_add(STEERING_TABLES),
        priority: settings.rule_priority.saturating_sub(STEERED),
    }
}

/// Whether a routing table is one of those that steered packets look into.
pub(crate) fn is_steering(settings: &DataplaneSettings, table: u32) -> bool {
    let first = steering(settings).table;
    (first..first.saturating_add(STEERED)).contains(&table)
}

/// Lines that go, after `-`, and lines that come, after `+`, in the order of the tables.
fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let gone = only_in(before, after).map(|line| format!("- {line}"));
    gone.chain(only_in(after, before).map(|line| format!("+ {line}"))).collect()
}

/// The lines that are not among `others`, or more often here than there.
fn only_in<'a>(lines: &'a [String], others: &'a [String]) -> impl Iterator<Item = &'a String> {
    let mut counts = BTreeMap::<&String, usize>::new();
    for line in others {
        *counts.entry(line).or_default() += 1;
    }
    lines.iter().filter(move |line| match counts.get_mut(line).filter(|count| **count > 0) {
        Some(count) => {
            *count -= 1;
            false
        }
        None => true,
    })
}

/// Interfaces that packets can be steered to.
const STEERED: u32 = 100;
/// How far the tables for steering are from that of the policies' routes, beyond those of the blackholes.
const STEERING_TABLES: u32 = 200;
/// The first mark of packets that are steered: "charon-rs" keeps 50 for its own packets, and small numbers are what
/// administrators take.
const STEERING_MARK: u32 = 0x4301_0000;
/// Between two attempts to make a device again.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_two_tables_is_the_lines_that_go_and_come() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(difference(&lines("a b b d"), &lines("a b c d d")), ["- b", "+ c", "+ d"]);
        assert!(difference(&lines("a b"), &lines("b a")).is_empty());
    }
}
