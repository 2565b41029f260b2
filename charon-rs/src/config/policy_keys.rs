//! The keys of `[policy.NAME]` and `[spd]`.

use std::ops::Range;

use espdp_api::{
    InterfaceName, PolicyAction, PolicyDirections, PolicyId, PolicySpec, PortRange, Routes, TrafficSelector,
};

use super::child_keys::{priority, routes, subnets};
use super::defaults;
use super::item::{At, Item};
use super::keys::Key;
use super::manual::{ManualSa, asked, is_for, served};
use super::source::Complaint;
use super::values::selector;

/// `[policy.NAME]` while it is read.
#[derive(Default)]
pub(super) struct PolicyDraft {
    action: Option<At<PolicyAction>>,
    priority: Option<u32>,
    directions: Option<PolicyDirections>,
    left_subnets: Option<At<Vec<TrafficSelector>>>,
    right_subnets: Option<At<Vec<TrafficSelector>>>,
    left_protocol: Option<(u8, PortRange)>,
    right_protocol: Option<(u8, PortRange)>,
    pub(super) sas: Option<Vec<At<String>>>,
    pub(super) interface: Option<At<InterfaceName>>,
    routes: Option<Routes>,
    later_fragments: Option<bool>,
}

/// `[spd]` while it is read.
#[derive(Default)]
pub(super) struct SpdDraft {
    pub(super) default: Option<PolicyAction>,
}

/// The keys of `[spd]`.
pub(super) const SPD_KEYS: &[Key<SpdDraft>] = &[Key {
    name: "default",
    also_called: &[],
    takes: "`discard` or `bypass`",
    default: "\"discard\"",
    doc: "What becomes of packets that a route leads into an interface of kind `ipsec` and that no policy selects: they are dropped, \
          or leave in clear.",
    set: |draft, item| {
        draft.default = Some(item.choice(&[("discard", PolicyAction::Discard), ("bypass", PolicyAction::Bypass)])?);
        Ok(())
    },
}];

/// The keys of `[policy.NAME]`.
pub(super) const POLICY_KEYS: &[Key<PolicyDraft>] = &[
    Key {
        name: "action",
        also_called: &[],
        takes: "`protect`, `bypass` or `discard`",
        default: "\"protect\"",
        doc: "What becomes of the packets: they travel in the SAs of the policy, leave in clear, or are dropped.",
        set: |draft, item| {
            let protect = PolicyAction::Protect { acquire: false };
            let words = [("protect", protect), ("bypass", PolicyAction::Bypass), ("discard", PolicyAction::Discard)];
            draft.action = Some(item.at(item.choice(&words)?));
            Ok(())
        },
    },
    Key {
        name: "priority",
        also_called: &[],
        takes: "number",
        default: "1000",
        doc: "The policy with the lowest number is asked first; of several with one number the narrowest. Those of connections have \
              1000 if they do not say otherwise.",
        set: |draft, item| {
            draft.priority = Some(priority(item)?);
            Ok(())
        },
    },
    Key {
        name: "direction",
        also_called: &[],
        takes: "`both`, `out` or `in`",
        default: "\"both\"",
        doc: "Whether it is asked for what leaves, for what comes in through SAs, or for both. `left` is our side either way.",
        set: |draft, item| {
            let words = [
                ("both", PolicyDirections::Both),
                ("out", PolicyDirections::Outbound),
                ("in", PolicyDirections::Inbound),
            ];
            draft.directions = Some(item.choice(&words)?);
            Ok(())
        },
    },
    Key {
        name: "leftsubnet",
        also_called: &[],
        takes: "as in a connection",
        default: "none: it must be given",
        doc: "Our side.",
        set: |draft, item| {
            draft.left_subnets = Some(item.at(subnets(item)?));
            Ok(())
        },
    },
    Key {
        name: "leftprotoport",
        also_called: &[],
        takes: "protocol, or protocol/port",
        default: "any protocol",
        doc: "Narrows every `leftsubnet` without brackets: `tcp/22`, `udp/1000-2000`, `icmp/8`, `icmp/3(4)`.",
        set: |draft, item| {
            draft.left_protocol = Some(protocol(item)?);
            Ok(())
        },
    },
    Key {
        name: "rightsubnet",
        also_called: &[],
        takes: "as in a connection",
        default: "none: it must be given",
        doc: "The peer's side.",
        set: |draft, item| {
            draft.right_subnets = Some(item.at(subnets(item)?));
            Ok(())
        },
    },
    Key {
        name: "rightprotoport",
        also_called: &[],
        takes: "protocol, or protocol/port",
        default: "any protocol",
        doc: "Narrows every `rightsubnet` without brackets.",
        set: |draft, item| {
            draft.right_protocol = Some(protocol(item)?);
            Ok(())
        },
    },
    Key {
        name: "sa",
        also_called: &[],
        takes: "name of an SA, or a list",
        default: "none: `protect` needs one in each of its directions",
        doc: "The SAs of the policy, `[sa.NAME]`: one to send on, and one or more to receive on.",
        set: |draft, item| {
            let texts = item.texts("the name of an SA")?;
            draft.sas =
                Some(texts.iter().map(|text| At { value: text.as_str().to_owned(), span: text.span() }).collect());
            Ok(())
        },
    },
    Key {
        name: "interface",
        also_called: &[],
        takes: "name",
        default: "\"ipsec0\"",
        doc: "The interface whose packets it selects.",
        set: |draft, item| {
            let text = item.text("the name of an interface")?;
            let name = InterfaceName::new(text.as_str()).map_err(|error| text.complain(error.to_string()))?;
            draft.interface = Some(item.at(name));
            Ok(())
        },
    },
    Key {
        name: "routes",
        also_called: &[],
        takes: "`auto`, `none`, or a list of prefixes",
        default: "`auto` if it protects what leaves, `none` otherwise",
        doc: "What is led into the interface: the prefixes of `rightsubnet`, nothing, or these.",
        set: |draft, item| {
            draft.routes = Some(routes(item)?);
            Ok(())
        },
    },
    Key {
        name: "later_fragments",
        also_called: &[],
        takes: "`true` or `false`",
        default: "true",
        doc: "Whether fragments that do not show their ports follow the first one of their packet into SAs for certain ports \
              (RFC 4301 §7.3). Both ends must have it the same.",
        set: |draft, item| {
            draft.later_fragments = Some(item.boolean()?);
            Ok(())
        },
    },
];

impl PolicyDraft {
    /// The policy, or everything that is wrong with it. `sas` are those that it names, all of them if `is_whole`.
    pub(super) fn finish(
        self,
        span: Range<usize>,
        id: PolicyId,
        sas: &[ManualSa],
        is_whole: bool,
    ) -> Result<PolicySpec, Vec<Complaint>> {
        let mut complaints = Vec::new();
        for (key, given) in [("leftsubnet", &self.left_subnets), ("rightsubnet", &self.right_subnets)] {
            if given.as_ref().is_none_or(|subnets| subnets.value.is_empty()) {
                let complaint = Complaint::new(span.clone(), format!("the policy has no `{key}`"));
                complaints
                    .push(complaint.expected(format!("expected `{key}`; `{key} = \"0.0.0.0/0\"` for everything")));
            }
        }
        let local = narrowed(self.left_subnets, self.left_protocol);
        let remote = narrowed(self.right_subnets, self.right_protocol);
        let can_meet = local.iter().any(|selector| is_for(&remote, &selector.addresses));
        if !local.is_empty() && !remote.is_empty() && !can_meet {
            let message = "leftsubnet and rightsubnet are of different families: no packet can have both";
            complaints.push(Complaint::new(span.clone(), message).expected("expected IPv4 on both sides, or IPv6"));
        }
        let protect = PolicyAction::Protect { acquire: false };
        let action = self.action.as_ref().map_or(protect, |action| action.value);
        let directions = self.directions.unwrap_or_default();
        let (outbound, inbound) = asked(directions);
        let protects = action == protect;
        let at = self.action.as_ref().map_or(span, |action| action.span.clone());
        if is_whole {
            complaints.extend(wrong_sas(protects, (outbound, inbound), served(sas), at));
        }
        if !complaints.is_empty() {
            return Err(complaints);
        }
        let default_routes = if protects && outbound { Routes::FromSelectors } else { Routes::Fixed(Vec::new()) };
        let routes = self.routes.unwrap_or(default_routes).towards(&remote);
        let interface = self.interface.map_or_else(defaults::interface, |interface| interface.value);
        Ok(PolicySpec {
            action,
            priority: self.priority.unwrap_or(PolicySpec::DEFAULT_PRIORITY),
            directions,
            later_fragments: self.later_fragments.unwrap_or(true),
            routes,
            ..PolicySpec::protect(id, interface, local, remote)
        })
    }
}

/// A policy that protects needs an SA for each of its directions and just one to send on; others need none.
fn wrong_sas(
    protects: bool,
    (outbound, inbound): (bool, bool),
    (sending, receiving): (usize, usize),
    at: Range<usize>,
) -> Option<Complaint> {
    let complain = |message: &str, expected: &str| Some(Complaint::new(at.clone(), message).expected(expected));
    match (protects, sending, receiving) {
        (false, 0, 0) => None,
        (false, _, _) => {
            complain("a policy that protects nothing has SAs", "expected no `sa`, or action = \"protect\"")
        }
        (true, 0, _) if outbound => complain(
            "the policy has no SA to send on",
            "expected one with direction = \"out\" in `sa`, or direction = \"in\"",
        ),
        (true, _, 0) if inbound => complain(
            "the policy has no SA to receive on",
            "expected one with direction = \"in\" in `sa`, or direction = \"out\"",
        ),
        (true, 2.., _) => complain("the policy has several SAs to send on", "expected one"),
        (true, 1.., _) if !outbound => complain(
            "the policy is not asked for what leaves, and has an SA to send on",
            "expected direction = \"both\"",
        ),
        (true, _, 1..) if !inbound => complain(
            "the policy is not asked for what comes in, and has an SA to receive on",
            "expected direction = \"both\"",
        ),
        (true, _, _) => None,
    }
}

/// The subnets, those without a protocol of their own with that of the side.
fn narrowed(subnets: Option<At<Vec<TrafficSelector>>>, protocol: Option<(u8, PortRange)>) -> Vec<TrafficSelector> {
    let mut selectors = subnets.map(|subnets| subnets.value).unwrap_or_default();
    if let Some(protocol) = protocol {
        for selector in
            selectors.iter_mut().filter(|selector| selector.protocol == 0 && selector.ports == PortRange::ANY)
        {
            (selector.protocol, selector.ports) = protocol;
        }
    }
    selectors
}

fn protocol(item: Item<'_>) -> Result<(u8, PortRange), Complaint> {
    item.text("a protocol")?.read(selector::protocol_and_ports)
}
