//! SAs and policies that nobody negotiates: `[sa.NAME]`, `[policy.NAME]` and `[spd]`, and what they must have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use espdp_api::{
    AddressRange, Direction, EspAlgorithms, EspSpi, InterfaceKind, InterfaceName, InterfaceSpec, Mode, OuterPath,
    PacketShape, PolicyAction, PolicyDirections, PolicyId, PolicySpec, SaLimits, Secret, TrafficSelector,
};

use super::interface::Interfaces;
use super::item::At;
use super::keys::{Key, Section, names, unknown_key};
use super::policy_keys::{POLICY_KEYS, PolicyDraft, SPD_KEYS, SpdDraft};
use super::problem::Report;
use super::sa_keys::{SA_KEYS, SaDraft};
use super::sa_secrets::SaKeys;
use super::shape_keys::SHAPE_KEYS;
use super::source::{Complaint, nearest};
use super::{defaults, place_of};

/// A policy of the configuration, with the SAs that are keyed by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualPolicy {
    /// Its name.
    pub name: String,
    /// The policy; whoever sets it chooses the id.
    pub spec: PolicySpec,
    /// Its SAs: at most one of them sends.
    pub sas: Vec<ManualSa>,
}

/// Half of an SA pair whose keys stand in the secrets file.
#[derive(Clone, Debug)]
pub struct ManualSa {
    /// Its name.
    pub name: String,
    /// Whether we send or receive on it.
    pub direction: Direction,
    /// The SPI on the wire.
    pub spi: EspSpi,
    /// Cipher and integrity.
    pub algorithms: EspAlgorithms,
    /// The key of the cipher.
    pub encryption_key: Secret<Vec<u8>>,
    /// The key of the integrity transform.
    pub integrity_key: Secret<Vec<u8>>,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Where its packets travel.
    pub path: OuterPath,
    /// How much it may carry.
    pub limits: SaLimits,
    /// How late a packet may come; 0: nobody looks.
    pub replay_window: u32,
    /// How its packets are shaped.
    pub shape: PacketShape,
}

impl PartialEq for ManualSa {
    fn eq(&self, other: &Self) -> bool {
        let plain = |sa: &Self| {
            let limits = (sa.limits.soft, sa.limits.hard);
            (sa.direction, sa.spi, sa.algorithms, sa.mode, sa.path, limits, sa.replay_window, sa.shape)
        };
        // Both are our own: how long a comparison takes tells nobody anything.
        self.name == other.name
            && plain(self) == plain(other)
            && self.encryption_key.expose() == other.encryption_key.expose()
            && self.integrity_key.expose() == other.integrity_key.expose()
    }
}

impl Eq for ManualSa {}

/// The tables of a file that are about manual SAs and policies.
pub(super) struct Tables<'a> {
    pub(super) sas: Vec<Section<'a>>,
    pub(super) policies: Vec<Section<'a>>,
}

/// What the tables are read with.
pub(super) struct Context<'a> {
    /// The keys of the secrets file.
    pub(super) keys: &'a BTreeMap<String, SaKeys>,
    /// The tables `[interface.NAME]`.
    pub(super) interfaces: &'a Interfaces,
    /// Our UDP port for ESP.
    pub(super) nat_port: u16,
}

/// Reads the tables.
pub(super) fn read(tables: &Tables<'_>, context: &Context<'_>, report: &mut Report) -> Vec<ManualPolicy> {
    let mut sas: BTreeMap<String, (Range<usize>, Option<ManualSa>)> = BTreeMap::new();
    for section in &tables.sas {
        let sa = read_sa(section, context, report);
        sas.insert(section.name.to_owned(), (section.span.clone(), sa));
    }
    check_spis(tables, &sas, report);
    let mut used = BTreeSet::new();
    let mut policies = Vec::new();
    for section in &tables.policies {
        let draft = read_policy(section, context.interfaces, report);
        policies.extend(finish_policy(section, draft, &sas, &mut used, report));
    }
    for section in tables.sas.iter().filter(|section| !used.contains(section.name)) {
        let complaint = Complaint::new(section.span.clone(), format!("no policy uses sa `{}`", section.name));
        report.add(section.source.warning(complaint.expected("expected its name in `sa` of a [policy.NAME]")));
    }
    policies
}

/// Whether packets that no policy selects leave in clear: `[spd]`.
pub(super) fn read_default(section: &Section<'_>, report: &mut Report) -> PolicyAction {
    let mut draft = SpdDraft::default();
    for entry in section.apply(SPD_KEYS, &mut draft, report) {
        let complaint = unknown_key(entry, "[spd]", &[], names(SPD_KEYS), place_of(entry.name));
        report.add(section.source.error(complaint));
    }
    draft.default.unwrap_or(PolicyAction::Discard)
}

/// The policies that are asked last where packets that nobody selects are to leave in clear: one for each interface that
/// has no tunnel of its own.
pub(super) fn last_policies(interfaces: &[InterfaceSpec]) -> Vec<ManualPolicy> {
    let everything: Vec<TrafficSelector> = ["0.0.0.0/0", "::/0"]
        .iter()
        .filter_map(|all| super::values::address::range(all).ok())
        .map(TrafficSelector::any_protocol)
        .collect();
    let plain = interfaces.iter().filter(|interface| interface.kind == InterfaceKind::Ipsec);
    plain
        .map(|interface| {
            let all = everything.clone();
            let spec = PolicySpec::protect(UNNUMBERED, interface.name.clone(), all.clone(), all);
            let spec = PolicySpec { action: PolicyAction::Bypass, priority: u32::MAX, ..spec };
            ManualPolicy { name: format!("default of {}", interface.name), spec, sas: Vec::new() }
        })
        .collect()
}

/// What stands for the id until the policy is set.
const UNNUMBERED: PolicyId = PolicyId(0);

fn read_sa(section: &Section<'_>, context: &Context<'_>, report: &mut Report) -> Option<ManualSa> {
    let mut draft = SaDraft::default();
    section.apply(SHAPE_KEYS, &mut draft.shape, report);
    let unknown = section.apply(SA_KEYS, &mut draft, report);
    for entry in unknown.into_iter().filter(|entry| Key::find(SHAPE_KEYS, entry.name).is_none()) {
        let all = names(SA_KEYS).chain(names(SHAPE_KEYS));
        let complaint = unknown_key(entry, "[sa.NAME]", &[], all, place_of(entry.name));
        report.add(section.source.error(complaint));
    }
    if draft.direction == Some(Direction::Inbound) {
        for (key, span) in section.spans(SHAPE_KEYS) {
            let message = format!("`{key}` has no effect on an SA to receive on: it is about packets that we send");
            report
                .add(section.source.error(Complaint::new(span, message).expected("expected it at the SA to send on")));
        }
    }
    if let Some(At { value: 1.., span }) = &draft.replay_window {
        let message = "the peer's packets are dropped from its next start on, when its numbers begin at 1 again";
        let complaint = Complaint::new(span.clone(), message);
        report.add(
            section.source.warning(complaint.expected("expected 0 with keys that nobody negotiates (RFC 4303 §3.4.3)")),
        );
    }
    let finished = draft.finish(section.name, section.span.clone(), context.keys.get(section.name), context.nat_port);
    finished
        .map_err(|complaints| complaints.into_iter().for_each(|complaint| report.add(section.source.error(complaint))))
        .ok()
}

/// Of the SAs that we receive on, no two may have one SPI: it is all that tells them apart.
fn check_spis(tables: &Tables<'_>, sas: &BTreeMap<String, (Range<usize>, Option<ManualSa>)>, report: &mut Report) {
    let mut inbound: BTreeMap<EspSpi, &str> = BTreeMap::new();
    for section in &tables.sas {
        let Some((span, Some(sa))) = sas.get(section.name) else { continue };
        if sa.direction == Direction::Inbound
            && let Some(other) = inbound.insert(sa.spi, section.name)
        {
            let message = format!("sa `{}` and sa `{other}` receive on the same SPI", section.name);
            report.add(
                section.source.error(Complaint::new(span.clone(), message).expected("expected an SPI of its own")),
            );
        }
    }
}

fn read_policy(section: &Section<'_>, interfaces: &Interfaces, report: &mut Report) -> PolicyDraft {
    let mut draft = PolicyDraft::default();
    for entry in section.apply(POLICY_KEYS, &mut draft, report) {
        let complaint = unknown_key(entry, "[policy.NAME]", &[], names(POLICY_KEYS), place_of(entry.name));
        report.add(section.source.error(complaint));
    }
    if let Some(At { value: name, span }) = &draft.interface
        && !interfaces.contains_key(name)
        && *name != defaults::interface()
    {
        let mut complaint = Complaint::new(span.clone(), format!("there is no [interface.{name}]"));
        complaint.nearest = nearest(name.as_str(), interfaces.keys().map(InterfaceName::as_str)).map(str::to_owned);
        report
            .add(section.source.error(complaint.expected(format!("expected a table [interface.{name}] in this file"))));
    }
    draft
}

fn finish_policy(
    section: &Section<'_>,
    draft: PolicyDraft,
    sas: &BTreeMap<String, (Range<usize>, Option<ManualSa>)>,
    used: &mut BTreeSet<String>,
    report: &mut Report,
) -> Option<ManualPolicy> {
    let mut complaints = Vec::new();
    let mut own = Vec::new();
    let mut is_whole = true;
    for At { value: name, span } in draft.sas.iter().flatten() {
        match sas.get(name) {
            None => complaints.push(
                Complaint::new(span.clone(), format!("there is no [sa.{name}]"))
                    .nearest(name, sas.keys().map(String::as_str))
                    .expected(format!("expected a table [sa.{name}] in this file")),
            ),
            Some(_) if !used.insert(name.clone()) => complaints.push(
                Complaint::new(span.clone(), format!("sa `{name}` serves another policy already"))
                    .expected("expected an SA of its own; one policy may have many subnets"),
            ),
            Some((_, sa)) => {
                is_whole &= sa.is_some();
                own.extend(sa.clone());
            }
        }
    }
    let spec = draft.finish(section.span.clone(), UNNUMBERED, &own, is_whole).map_err(|more| complaints.extend(more));
    if complaints.is_empty() {
        return spec.ok().map(|spec| ManualPolicy { name: section.name.to_owned(), spec, sas: own });
    }
    complaints.into_iter().for_each(|complaint| report.add(section.source.error(complaint)));
    None
}

/// Whether any selector is of the address family of `range`.
pub(super) fn is_for(selectors: &[TrafficSelector], range: &AddressRange) -> bool {
    selectors.iter().any(|selector| selector.addresses.is_ipv4() == range.is_ipv4())
}

/// How many of these SAs send, and how many receive.
pub(super) fn served(sas: &[ManualSa]) -> (usize, usize) {
    let count = |direction| sas.iter().filter(|sa| sa.direction == direction).count();
    (count(Direction::Outbound), count(Direction::Inbound))
}

/// Whether a policy is asked for what leaves, and for what comes in.
pub(super) fn asked(directions: PolicyDirections) -> (bool, bool) {
    (directions != PolicyDirections::Inbound, directions != PolicyDirections::Outbound)
}
