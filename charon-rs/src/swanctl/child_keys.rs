//! The keys of `connections.NAME.children.NAME`.

use std::time::Duration;

use espdp_api::{DfPolicy, DscpPolicy, InterfaceName, Mode, PacketShape, PaddingPolicy};
use ike_proto::config::{ChildSelector, CloseAction, DpdAction, StartAction};
use ike_proto::proposal::{EspProposal, default_esp_proposals, parse_ah_list, parse_esp_list};

use super::keys::{Foreign, Key, Toml};
use crate::config::read_program;
use crate::config::values::selector;

/// What a child says; the rest is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChildDraft {
    pub(crate) local: Option<Vec<ChildSelector>>,
    pub(crate) remote: Option<Vec<ChildSelector>>,
    pub(crate) esp: Option<Vec<EspProposal>>,
    pub(crate) ah: Option<Vec<EspProposal>>,
    pub(crate) mode: Option<ChildMode>,
    pub(crate) start: Option<StartAction>,
    pub(crate) close: CloseAction,
    pub(crate) dpd: Option<DpdAction>,
    pub(crate) rekey_time: Option<Duration>,
    pub(crate) life_time: Option<Duration>,
    pub(crate) rand_time: Option<Duration>,
    pub(crate) bytes: Limits,
    pub(crate) packets: Limits,
    pub(crate) replay_window: Option<u32>,
    pub(crate) interface: Option<InterfaceName>,
    pub(crate) priority: Option<u32>,
    pub(crate) shape: PacketShape,
    pub(crate) updown: Vec<String>,
    pub(crate) per_resource: bool,
}

/// Traffic after which a child is rekeyed and after which it ends; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) rekey: Option<u64>,
    pub(crate) life: Option<u64>,
}

/// What becomes of the packets of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildMode {
    /// They travel in a Child SA.
    Protect(Mode),
    /// They leave in clear.
    Pass,
    /// They are dropped.
    Drop,
}

/// The keys of a child.
pub(crate) const CHILD_KEYS: &[Key<ChildDraft>] = &[
    Key {
        name: "local_ts",
        takes: "networks, ranges, addresses or `dynamic`, with or without `[protocol/port]`",
        default: "`dynamic`: our address",
        toml: Toml::List("leftsubnet"),
        set: |draft, value| {
            draft.local = Some(value.list(selector::child_selector)?);
            Ok(())
        },
    },
    Key {
        name: "remote_ts",
        takes: "as `local_ts`",
        default: "`dynamic`: the peer's address",
        toml: Toml::List("rightsubnet"),
        set: |draft, value| {
            draft.remote = Some(value.list(selector::child_selector)?);
            Ok(())
        },
    },
    Key {
        name: "esp_proposals",
        takes: "ESP proposals, `default` among them",
        default: "`default`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.esp = Some(value.list(parse_esp)?.concat());
            Ok(())
        },
    },
    Key {
        name: "ah_proposals",
        takes: "AH proposals",
        default: "ESP is used",
        toml: Toml::Together,
        set: |draft, value| {
            draft.ah = Some(value.list(|text| parse_ah_list(text).map_err(|error| error.to_string()))?.concat());
            Ok(())
        },
    },
    Key {
        name: "mode",
        takes: "`tunnel`, `transport`, `pass` or `drop`",
        default: "`tunnel`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.mode = Some(value.choice(&[
                ("tunnel", ChildMode::Protect(Mode::Tunnel)),
                ("transport", ChildMode::Protect(Mode::Transport)),
                ("pass", ChildMode::Pass),
                ("drop", ChildMode::Drop),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "start_action",
        takes: "`none`, `trap`, `start` or `trap\\|start`",
        default: "`none`",
        toml: Toml::Together,
        set: |draft, value| {
            let once = |trap| StartAction::Once { trap };
            draft.start = Some(value.choice(&[
                ("none", StartAction::None),
                ("trap", StartAction::Trap),
                ("route", StartAction::Trap),
                ("start", once(false)),
                ("trap|start", once(true)),
                ("start|trap", once(true)),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "close_action",
        takes: "`none`, `trap` or `start`",
        default: "`none`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.close = value.choice(&[
                ("none", CloseAction::None),
                ("clear", CloseAction::None),
                ("trap", CloseAction::Trap),
                ("hold", CloseAction::Trap),
                ("start", CloseAction::Start),
                ("restart", CloseAction::Start),
            ])?;
            Ok(())
        },
    },
    Key {
        name: "dpd_action",
        takes: "`clear`, `trap` or `start`",
        default: "`clear`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.dpd = Some(value.choice(&[
                ("clear", DpdAction::Clear),
                ("none", DpdAction::Clear),
                ("trap", DpdAction::Hold),
                ("hold", DpdAction::Hold),
                ("start", DpdAction::Restart),
                ("restart", DpdAction::Restart),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "rekey_time",
        takes: "time",
        default: "`1h`, or ten elevenths of `life_time`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.rekey_time = Some(value.time()?);
            Ok(())
        },
    },
    Key {
        name: "life_time",
        takes: "time",
        default: "`rekey_time` and a tenth",
        toml: Toml::Together,
        set: |draft, value| {
            draft.life_time = Some(value.time()?);
            Ok(())
        },
    },
    Key {
        name: "rand_time",
        takes: "time",
        default: "what `life_time` is longer than `rekey_time`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.rand_time = Some(value.time()?);
            Ok(())
        },
    },
    Key {
        name: "rekey_bytes",
        takes: "number",
        default: "no limit",
        toml: Toml::Together,
        set: |draft, value| {
            draft.bytes.rekey = Some(value.number()?);
            Ok(())
        },
    },
    Key {
        name: "life_bytes",
        takes: "number",
        default: "`rekey_bytes` and a tenth",
        toml: Toml::Together,
        set: |draft, value| {
            draft.bytes.life = Some(value.number()?);
            Ok(())
        },
    },
    Key {
        name: "rand_bytes",
        takes: "number",
        default: "limits of traffic are not spread",
        toml: Toml::Nothing,
        set: |_, value| value.number::<u64>().map(drop),
    },
    Key {
        name: "rekey_packets",
        takes: "number",
        default: "no limit but that of the sequence numbers",
        toml: Toml::Together,
        set: |draft, value| {
            draft.packets.rekey = Some(value.number()?);
            Ok(())
        },
    },
    Key {
        name: "life_packets",
        takes: "number",
        default: "`rekey_packets` and a tenth",
        toml: Toml::Together,
        set: |draft, value| {
            draft.packets.life = Some(value.number()?);
            Ok(())
        },
    },
    Key {
        name: "rand_packets",
        takes: "number",
        default: "limits of traffic are not spread",
        toml: Toml::Nothing,
        set: |_, value| value.number::<u64>().map(drop),
    },
    Key {
        name: "replay_window",
        takes: "packets",
        default: "`1024`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.replay_window = Some(value.number()?);
            Ok(())
        },
    },
    Key {
        name: "interface",
        takes: "interface of ours",
        default: "`ipsec0`",
        toml: Toml::Text("interface"),
        set: |draft, value| {
            draft.interface = Some(value.read(|name| InterfaceName::new(name))?);
            Ok(())
        },
    },
    Key {
        name: "priority",
        takes: "number; the lowest is asked first",
        default: "`0`: children that pass or drop packets are asked before those that protect them",
        toml: Toml::Together,
        set: |draft, value| {
            draft.priority = Some(value.number()?).filter(|priority| *priority > 0);
            Ok(())
        },
    },
    Key {
        name: "updown",
        takes: "absolute path of a program, and its arguments",
        default: "none",
        toml: Toml::Text("updown"),
        set: |draft, value| {
            draft.updown = value.read(read_program)?;
            Ok(())
        },
    },
    Key {
        name: "hostaccess",
        takes: "`yes` or `no`",
        default: "it has no effect: the daemon changes no firewall for hosts",
        toml: Toml::Nothing,
        set: |_, value| value.switch().map(drop),
    },
    Key {
        name: "tfc_padding",
        takes: "`0`, `mtu`, or octets",
        default: "`0`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.shape.padding = match value.text()? {
                "0" => PaddingPolicy::None,
                "mtu" => PaddingPolicy::ToPathMtu,
                _ => PaddingPolicy::To(value.number()?),
            };
            Ok(())
        },
    },
    Key {
        name: "copy_df",
        takes: "`yes` or `no`",
        default: "as the interface's MTU demands it: never fragmented on the way",
        toml: Toml::Together,
        set: |draft, value| {
            draft.shape.df = if value.switch()? { DfPolicy::Copy } else { DfPolicy::Clear };
            Ok(())
        },
    },
    Key {
        name: "copy_ecn",
        takes: "`yes`",
        default: "`yes`",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["yes"]),
    },
    Key {
        name: "copy_dscp",
        takes: "`out` or `no`",
        default: "`out`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.shape.dscp = value.choice(&[("out", DscpPolicy::Copy), ("no", DscpPolicy::Fixed(0))])?;
            Ok(())
        },
    },
    Key {
        name: "per_cpu_sas",
        takes: "`yes` or `no`",
        default: "`no`",
        toml: Toml::Switch("per_resource_sas"),
        set: |draft, value| {
            draft.per_resource = value.switch()?;
            Ok(())
        },
    },
    Key {
        name: "policies",
        takes: "`yes`",
        default: "`yes`",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["yes"]),
    },
    Key {
        name: "policies_fwd_out",
        takes: "`yes` or `no`",
        default: "it has a meaning for the kernel's IPsec only",
        toml: Toml::Nothing,
        set: |_, value| value.switch().map(drop),
    },
    Key {
        name: "hw_offload",
        takes: "`no` or `auto`",
        default: "`no`",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["no", "auto"]),
    },
    Key { name: "ipcomp", takes: "`no`", default: "`no`", toml: Toml::Nothing, set: |_, value| value.only(&["no"]) },
    Key { name: "sha256_96", takes: "`no`", default: "`no`", toml: Toml::Nothing, set: |_, value| value.only(&["no"]) },
    Key { name: "reqid", takes: "`0`", default: "`0`", toml: Toml::Nothing, set: |_, value| value.only(&["0"]) },
    Key {
        name: "inactivity",
        takes: "`0`",
        default: "`0`",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["0", "0s"]),
    },
    Key {
        name: "mark_in",
        takes: "`0`",
        default: "`0`",
        toml: Toml::Nothing,
        set: |_, value| value.only_or(NO_MARK, BY_INTERFACE),
    },
    Key {
        name: "mark_out",
        takes: "`0`",
        default: "`0`",
        toml: Toml::Nothing,
        set: |_, value| value.only_or(NO_MARK, BY_INTERFACE),
    },
    Key {
        name: "mark_in_sa",
        takes: "`no`",
        default: "`no`",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["no"]),
    },
    Key {
        name: "set_mark_in",
        takes: "`0`",
        default: "`0`",
        toml: Toml::Nothing,
        set: |_, value| value.only_or(NO_MARK, BY_INTERFACE),
    },
    Key {
        name: "set_mark_out",
        takes: "`0`",
        default: "`0`",
        toml: Toml::Nothing,
        set: |_, value| value.only_or(NO_MARK, BY_INTERFACE),
    },
    Key {
        name: "if_id_in",
        takes: "`0`",
        default: "`0`",
        toml: Toml::Nothing,
        set: |_, value| value.only_or(&["0"], BY_INTERFACE),
    },
    Key {
        name: "if_id_out",
        takes: "`0`",
        default: "`0`",
        toml: Toml::Nothing,
        set: |_, value| value.only_or(&["0"], BY_INTERFACE),
    },
];

/// What takes the place of marks and interface identifiers of the kernel's IPsec.
pub(super) const BY_INTERFACE: &str = "packets take the child's way here because they are routed into its interface: give each such child an interface = NAME of its own";

const NO_MARK: &[&str] = &["0", "0/0", "0x0", "0x00000000/0x00000000"];

/// Keys of a child that mean something here nobody does.
pub(crate) const FOREIGN_KEYS: &[Foreign] = &[
    Foreign { name: "label", advice: "packets have no security labels here" },
    Foreign { name: "label_mode", advice: "packets have no security labels here" },
];

fn parse_esp(text: &str) -> Result<Vec<EspProposal>, String> {
    if text == "default" {
        Ok(default_esp_proposals())
    } else {
        parse_esp_list(text).map_err(|error| error.to_string())
    }
}
