//! From drafts to the model: defaults, and what keys must have in common.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use espdp_api::{InterfaceName, Mode, PolicySpec, PortRange, Routes, TrafficLimit, TrafficSelector};
use ike_proto::Settings;
use ike_proto::config::{
    Child, ChildSelector, Childless, Connection, Dpd, DpdAction, Lifetime, PpkUse, Redirect, RedirectAt, RemoteAddress,
    Retransmission, StartAction, UdpEncapsulation, Uniqueness,
};
use ike_proto::identity::{Identity, IdentityPattern};
use ike_proto::proposal::{default_esp_proposals, default_ike_proposals};

use super::child_keys::{Auto, ChildDraft};
use super::conn_keys::ConnDraft;
use super::connections::Resolved;
use super::defaults;
use super::interface::{self, Interfaces};
use super::item::At;
use super::material::Material;
use super::pool::Pools;
use super::problem::Report;
use super::source::{Complaint, Source, nearest};
use super::values::identity;
use super::weakness;

/// Makes connections of drafts; what does not fit together goes to `report`.
pub(super) struct Builder<'a> {
    pub(super) source: &'a Source,
    /// The interfaces of the file.
    pub(super) interfaces: &'a Interfaces,
    /// The settings of the file.
    pub(super) settings: &'a Settings,
    /// The pools of the file, and those that connections write down.
    pub(super) pools: &'a mut Pools,
    /// Certificates and keys.
    pub(super) material: &'a mut Material,
    pub(super) report: &'a mut Report,
}

/// One of the two SAs of a tunnel, for what their lifetimes have in common.
struct Span<'a> {
    lifetime: Option<&'a At<Duration>>,
    default: Duration,
    key: &'static str,
}

impl Builder<'_> {
    /// The connection, or `None` if something is wrong with it.
    pub(super) fn connection(&mut self, resolved: Resolved<'_>) -> Option<Connection> {
        let Resolved { name, span, draft, children, .. } = resolved;
        let Some(right) = &draft.right else {
            self.error(
                Complaint::new(span, format!("conn `{name}` does not say where the peer is"))
                    .expected("expected `right`; `right = \"%any\"` if it calls from anywhere"),
            );
            return None;
        };
        if right.value.is_empty() {
            return None;
        }
        let left = draft.left.as_ref().map(|left| left.value.clone()).unwrap_or_default();
        self.check_families(&draft, &left, &right.value);
        if let Some(ike) = &draft.ike {
            ike.value.iter().filter_map(weakness::of_ike).for_each(|weak| self.warning(&ike.span, weak));
        }
        let children = if children.is_empty() { vec![(name, span, draft.child.clone())] } else { children };
        let children: Vec<Child> =
            children.iter().filter_map(|(name, _, child)| self.child(name, child, &draft)).collect();
        let ike = Span { lifetime: draft.ike_lifetime.as_ref(), default: defaults::IKE_LIFETIME, key: "ikelifetime" };
        let rekeyed = self.lifetime(&ike, &draft.child);
        let (ike_lifetime, reauth_after) = self.reauthentication(rekeyed, &draft);
        let fallback = Connection::new(name);
        let mut connection = Connection {
            local_addresses: left,
            remote_addresses: right.value.clone(),
            local_port: self.local_port(&draft),
            remote_port: draft.right_port.unwrap_or(defaults::IKE_PORT),
            ike_lifetime,
            reauth_after,
            uniqueness: draft.uniqueness.unwrap_or(Uniqueness::No),
            follow_redirects: draft.follow_redirects.unwrap_or(true),
            redirect: draft
                .redirect_to
                .as_ref()
                .map(|to| Redirect { to: to.value.clone(), at: draft.redirect_at.unwrap_or(RedirectAt::Init) }),
            ike_proposals: draft.ike.as_ref().map_or_else(default_ike_proposals, |ike| ike.value.clone()),
            dpd: self.dpd(&draft),
            retransmission: retransmission(&draft),
            encapsulation: match (draft.encapsulation, draft.force_encapsulation) {
                (Some(encapsulation), _) => encapsulation,
                (None, Some(true)) => UdpEncapsulation::Force,
                (None, _) => UdpEncapsulation::Detect,
            },
            mobike: draft.mobike.unwrap_or(true),
            childless: draft.childless.unwrap_or(Childless::Allow),
            fragmentation: draft.fragmentation.unwrap_or(fallback.fragmentation),
            fragment_size: draft.fragment_size.unwrap_or(fallback.fragment_size),
            ppk: PpkUse::wanted(draft.ppk_id.clone(), draft.ppk_required),
            virtual_addresses: wanted_addresses(&draft),
            pools: self.pools_of(&draft),
            pool_attributes: draft.right_dns.clone(),
            children,
            ..fallback
        };
        self.authenticate(&draft.auth, default_peer(&right.value), &mut connection);
        Some(connection)
    }

    fn child(&mut self, name: &str, draft: &ChildDraft, conn: &ConnDraft) -> Option<Child> {
        let start = match draft.auto.as_ref().map(|auto| auto.value)? {
            Auto::Ignore => return None,
            Auto::Load(start) => start,
        };
        if let (Some(auto), Some(right)) = (&draft.auto, &conn.right)
            && start != StartAction::None
            && !right.value.iter().any(is_callable)
        {
            self.error(
                Complaint::new(
                    auto.span.clone(),
                    "the tunnel cannot be brought up from here: `right` is no address or host name",
                )
                .expected("expected auto = \"add\", or a `right` that can be called"),
            );
        }
        self.check_virtual(draft, conn, start);
        if let Some(esp) = &draft.esp {
            esp.value.iter().filter_map(weakness::of_esp).for_each(|weak| self.warning(&esp.span, weak));
        }
        let mode = draft.mode.unwrap_or(Mode::Tunnel);
        let interface = self.interface(draft.interface.as_ref());
        let mut local = selectors(draft.left_subnets.as_ref(), draft.left_protocol.as_ref());
        let mut remote = selectors(draft.right_subnets.as_ref(), draft.right_protocol.as_ref());
        self.check_selectors(draft);
        let spec = self.interfaces.get(&interface).map(|at| &at.value);
        let of_tunnel = spec.and_then(|spec| interface::selectors(spec, mode, left_host(conn), right_host(conn)));
        // The routes of a tunnel are about what is inside, which its selectors say nothing about.
        let routes = if of_tunnel.is_some() { Routes::Fixed(Vec::new()) } else { Routes::FromSelectors };
        if let Some((ours, theirs)) = of_tunnel {
            let or = |own: Option<Vec<ChildSelector>>, of_tunnel: Vec<TrafficSelector>| {
                own.unwrap_or_else(|| of_tunnel.into_iter().map(Into::into).collect())
            };
            (local, remote) = (Some(or(local, ours)), Some(or(remote, theirs)));
        }
        let esp = Span { lifetime: draft.lifetime.as_ref(), default: defaults::CHILD_LIFETIME, key: "lifetime" };
        let lifetime = self.lifetime(&esp, draft);
        let (soft_bytes, hard_bytes) =
            self.traffic(draft, draft.life_bytes.as_ref(), draft.margin_bytes.as_ref(), "bytes");
        let (soft_packets, hard_packets) =
            self.traffic(draft, draft.life_packets.as_ref(), draft.margin_packets.as_ref(), "packets");
        Some(Child {
            name: name.to_owned(),
            mode,
            local_selectors: local.unwrap_or_else(|| vec![ChildSelector::HOST]),
            remote_selectors: remote.unwrap_or_else(|| vec![ChildSelector::HOST]),
            esp_proposals: draft.esp.as_ref().map_or_else(default_esp_proposals, |esp| esp.value.clone()),
            lifetime,
            rekey_after_traffic: TrafficLimit { bytes: soft_bytes, packets: soft_packets },
            expire_after_traffic: TrafficLimit { bytes: hard_bytes, packets: hard_packets },
            replay_window: self.replay_window(draft.replay_window.as_ref()),
            interface,
            routes: draft.routes.clone().unwrap_or(routes),
            priority: draft.priority.unwrap_or(PolicySpec::DEFAULT_PRIORITY),
            later_fragments: draft.later_fragments.unwrap_or(false),
            per_resource: draft.per_resource.unwrap_or(false),
            shape: draft.shape,
            start,
            updown: draft.updown.clone().unwrap_or_default(),
            close: draft.close_action.unwrap_or_default(),
            dpd: draft
                .dpd_action
                .filter(|action| Some(*action) != conn.child.dpd_action)
                .map(|action| action.unwrap_or(DpdAction::Clear)),
        })
    }

    /// The names of the pools that peers get their addresses from.
    fn pools_of(&mut self, draft: &ConnDraft) -> Vec<String> {
        let (source, report) = (self.source, &mut *self.report);
        draft.right_source.iter().filter_map(|used| self.pools.resolve(used, source, report)).collect()
    }

    /// Virtual addresses are those of hosts in tunnels, and not known before there is one.
    fn check_virtual(&mut self, draft: &ChildDraft, conn: &ConnDraft, start: StartAction) {
        let Some(source) = &conn.left_source else { return };
        let is_fixed = |at: &At<Vec<ChildSelector>>| at.value.iter().all(|selector| selector.fixed().is_some());
        if let Some(auto) = &draft.auto
            && start.traps()
            && !draft.left_subnets.as_ref().is_some_and(is_fixed)
        {
            let complaint =
                Complaint::new(auto.span.clone(), "no packet can come from an address that is still to be given");
            self.error(complaint.expected("expected auto = \"start\" or \"add\" with leftsourceip, or a leftsubnet"));
        }
        if draft.mode == Some(Mode::Transport) {
            let complaint = Complaint::new(source.span.clone(), "transport mode has no virtual addresses");
            self.error(complaint.expected("expected type = \"tunnel\" with leftsourceip"));
        }
    }

    /// When the IKE SA is rekeyed, and when it is made anew: ipsec.conf does one or the other.
    fn reauthentication(&mut self, rekeyed: Lifetime, draft: &ConnDraft) -> (Lifetime, Option<Duration>) {
        match (draft.reauth, &draft.reauth_time) {
            (Some(false), Some(time)) => {
                self.warning(&time.span, "reauthtime has no effect with reauth = false");
                (rekeyed, None)
            }
            (_, Some(time)) => (rekeyed, Some(time.value)),
            (Some(true), None) => {
                let after = rekeyed.rekey_after.or(rekeyed.expire_after);
                (Lifetime { rekey_after: None, ..rekeyed }, after)
            }
            (Some(false) | None, None) => (rekeyed, None),
        }
    }

    /// ipsec.conf: rekey at lifetime - margintime * (1 + a random part of rekeyfuzz).
    fn lifetime(&mut self, span: &Span<'_>, draft: &ChildDraft) -> Lifetime {
        let lifetime = span.lifetime.map_or(span.default, |at| at.value);
        if draft.rekey == Some(false) {
            return Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after: Some(lifetime) };
        }
        let default_margin = defaults::MARGIN_TIME.min(lifetime / 100 * defaults::MARGIN_PERCENT);
        let margin = draft.margin_time.as_ref().map_or(default_margin, |at| at.value);
        let percent = draft.rekey_fuzz_percent.unwrap_or(defaults::REKEY_FUZZ_PERCENT);
        let jitter = margin.saturating_mul(percent) / 100;
        let earliest = margin.saturating_add(jitter);
        if earliest >= lifetime {
            let at = draft.margin_time.as_ref().or(span.lifetime).map_or(0..0, |at| at.span.clone());
            self.error(
                Complaint::new(
                    at,
                    format!("an SA would be rekeyed {earliest:?} before its end, but {} is {lifetime:?}", span.key),
                )
                .expected("margintime * (1 + rekeyfuzz) must be less than the lifetime"),
            );
        }
        Lifetime { rekey_after: Some(lifetime.saturating_sub(margin)), jitter, expire_after: Some(lifetime) }
    }

    /// The soft and the hard limit of traffic.
    fn traffic(
        &mut self,
        draft: &ChildDraft,
        life: Option<&At<u64>>,
        margin: Option<&At<u64>>,
        what: &str,
    ) -> (Option<u64>, Option<u64>) {
        let Some(life) = life else {
            if let Some(margin) = margin {
                self.warning(&margin.span, format!("margin{what} has no effect without life{what}"));
            }
            return (None, None);
        };
        let margin_amount = margin.map_or(life.value / 10, |margin| margin.value);
        if margin_amount >= life.value {
            let at = margin.map_or(&life.span, |margin| &margin.span).clone();
            self.error(Complaint::new(at, format!("margin{what} must be less than life{what}")));
        }
        let soft = (draft.rekey != Some(false)).then(|| life.value.saturating_sub(margin_amount));
        (soft, Some(life.value))
    }

    fn dpd(&mut self, draft: &ConnDraft) -> Option<Dpd> {
        let delay = draft.dpd_delay.as_ref().map_or(defaults::DPD_DELAY, |delay| delay.value);
        match draft.child.dpd_action.flatten() {
            Some(action) => (!delay.is_zero()).then_some(Dpd { delay, action }),
            None => {
                if let (Some(delay), None) = (&draft.dpd_delay, draft.child.dpd_action) {
                    self.warning(&delay.span, "dpddelay has no effect without dpdaction");
                }
                None
            }
        }
    }

    /// Each family of one side needs its like on the other.
    fn check_selectors(&mut self, draft: &ChildDraft) {
        let (Some(left), Some(right)) = (&draft.left_subnets, &draft.right_subnets) else { return };
        let fixed = |at: &At<Vec<ChildSelector>>| at.value.iter().map(ChildSelector::fixed).collect::<Option<Vec<_>>>();
        let (Some(local), Some(remote)) = (fixed(left), fixed(right)) else { return };
        let (local, remote) = (local.as_slice(), remote.as_slice());
        let has = |selectors: &[TrafficSelector], ipv4| selectors.iter().any(|s| s.addresses.is_ipv4() == ipv4);
        if ![true, false].into_iter().any(|ipv4| has(local, ipv4) && has(remote, ipv4)) {
            let message = "leftsubnet and rightsubnet are of different families: no packet can have both";
            self.error(Complaint::new(right.span.clone(), message).expected("expected IPv4 on both sides, or IPv6"));
            return;
        }
        for (ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
            for (here, there, at, other) in [(local, remote, left, "rightsubnet"), (remote, local, right, "leftsubnet")]
            {
                if has(here, ipv4) && !has(there, ipv4) {
                    self.warning(&at.span, format!("the {family} part has no effect: {other} has none"));
                }
            }
        }
    }

    fn check_families(&mut self, draft: &ConnDraft, left: &[IpAddr], right: &[RemoteAddress]) {
        let right_can = |ipv4: bool| {
            right.iter().any(|address| match address {
                RemoteAddress::Address(address) => address.is_ipv4() == ipv4,
                RemoteAddress::Range(range) => range.is_ipv4() == ipv4,
                RemoteAddress::Name(_) | RemoteAddress::Any => true,
            })
        };
        if !left.is_empty() && !left.iter().any(|address| right_can(address.is_ipv4())) {
            let at = draft.right.as_ref().map_or(0..0, |right| right.span.clone());
            self.error(
                Complaint::new(at, "left and right are addresses of different families")
                    .expected("expected IPv4 on both sides, or IPv6"),
            );
        }
    }

    fn replay_window(&mut self, window: Option<&At<u32>>) -> u32 {
        let Some(At { value, span }) = window else { return defaults::REPLAY_WINDOW };
        if *value == 0 {
            self.warning(span, "recorded packets will be accepted again");
        }
        *value
    }

    /// Our port of a connection must be one that the daemon has opened. Peers elsewhere than on port 500 expect IKE as
    /// through a NAT.
    fn local_port(&mut self, draft: &ConnDraft) -> u16 {
        let (ike_port, nat_port) = (self.settings.ike_port, self.settings.nat_port);
        let Some(At { value, span }) = draft.left_port.as_ref() else {
            return if draft.right_port.is_none_or(|port| port == defaults::IKE_PORT) { ike_port } else { nat_port };
        };
        if ![ike_port, nat_port].contains(value) {
            self.error(
                Complaint::new(span.clone(), format!("the daemon does not listen on port {value}"))
                    .expected(format!("expected {ike_port} or {nat_port}, or another `ike_port` in [daemon]")),
            );
        }
        *value
    }

    fn interface(&mut self, interface: Option<&At<InterfaceName>>) -> InterfaceName {
        let Some(At { value: name, span }) = interface else { return defaults::interface() };
        if !self.interfaces.contains_key(name) && *name != defaults::interface() {
            let mut complaint = Complaint::new(span.clone(), format!("there is no [interface.{name}]"));
            match nearest(name.as_str(), self.interfaces.keys().map(InterfaceName::as_str)) {
                Some(nearest) => complaint.nearest = Some(nearest.to_owned()),
                None => complaint = complaint.expected(format!("expected a table [interface.{name}] in this file")),
            }
            self.error(complaint);
        }
        name.clone()
    }

    pub(super) fn error(&mut self, complaint: Complaint) {
        self.report.add(self.source.error(complaint));
    }

    pub(super) fn warning(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.report.add(self.source.warning(Complaint::new(span.clone(), message)));
    }
}

/// Who the peer must be when `rightid` does not say.
fn default_peer(right: &[RemoteAddress]) -> IdentityPattern {
    match right {
        [RemoteAddress::Address(address)] => IdentityPattern::Exactly(identity::of_address(*address)),
        [RemoteAddress::Name(name)] => IdentityPattern::Exactly(Identity::Fqdn(name.clone())),
        _ => IdentityPattern::Any,
    }
}

fn retransmission(draft: &ConnDraft) -> Retransmission {
    Retransmission {
        first: draft.retransmit_timeout.unwrap_or(defaults::RETRANSMISSION.first),
        factor: draft.retransmit_base.unwrap_or(defaults::RETRANSMISSION.factor),
        tries: draft.retransmit_tries.unwrap_or(defaults::RETRANSMISSION.tries),
        longest: draft.retransmit_limit.unwrap_or(defaults::RETRANSMISSION.longest),
    }
}

fn is_callable(address: &RemoteAddress) -> bool {
    matches!(address, RemoteAddress::Address(_) | RemoteAddress::Name(_))
}

/// The selectors of one side as they are written, with the protocol for those that have none of their own; `None` when nothing
/// is written.
fn selectors(
    subnets: Option<&At<Vec<ChildSelector>>>,
    protocol: Option<&At<(u8, PortRange)>>,
) -> Option<Vec<ChildSelector>> {
    let mut selectors = match (subnets, protocol) {
        (Some(subnets), _) => subnets.value.clone(),
        (None, Some(_)) => vec![ChildSelector::HOST],
        (None, None) => return None,
    };
    let Some(At { value: (number, range), .. }) = protocol else { return Some(selectors) };
    for selector in &mut selectors {
        let (protocol, ports) = match selector {
            ChildSelector::Fixed(TrafficSelector { protocol, ports, .. })
            | ChildSelector::Dynamic { protocol, ports } => (protocol, ports),
        };
        if *protocol == 0 && *ports == PortRange::ANY {
            (*protocol, *ports) = (*number, *range);
        }
    }
    Some(selectors)
}

/// What the peer is asked for: where no family is given, that of the tunnel's ends.
fn wanted_addresses(draft: &ConnDraft) -> Vec<IpAddr> {
    let is_ipv6 = |address: &RemoteAddress| match address {
        RemoteAddress::Address(address) => address.is_ipv6(),
        RemoteAddress::Range(range) => !range.is_ipv4(),
        RemoteAddress::Name(_) | RemoteAddress::Any => false,
    };
    let over_ipv6 = draft.right.as_ref().is_some_and(|right| right.value.iter().all(is_ipv6))
        || draft.left.as_ref().is_some_and(|left| !left.value.is_empty() && left.value.iter().all(IpAddr::is_ipv6));
    let any: IpAddr =
        if over_ipv6 { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
    draft.left_source.iter().flat_map(|source| &source.value).map(|wanted| wanted.unwrap_or(any)).collect()
}

fn left_host(conn: &ConnDraft) -> Option<IpAddr> {
    match conn.left.as_ref()?.value.as_slice() {
        [address] => Some(*address),
        _ => None,
    }
}

fn right_host(conn: &ConnDraft) -> Option<IpAddr> {
    match conn.right.as_ref()?.value.as_slice() {
        [RemoteAddress::Address(address)] => Some(*address),
        _ => None,
    }
}
