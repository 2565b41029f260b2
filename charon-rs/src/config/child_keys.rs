//! The keys of `[conn.NAME]` and `[conn.NAME.child.CHILD]` that are about Child SAs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use espdp_api::{InterfaceName, IpPrefix, Mode, PacketShape, PortRange, Routes, TrafficSelector};
use ike_proto::config::{ChildSelector, CloseAction, DpdAction, StartAction};
use ike_proto::proposal::{EspProposal, ProposalError, ProposalProblem, parse_ah_list, parse_esp_list};

use super::conn_keys::positive;
use super::daemon::prefixes;
use super::item::{At, Complaints, Item, collect};
use super::keys::Key;
use super::source::Complaint;
use super::values::{address, selector};

/// What a connection or a child of its own says about Child SAs; the rest is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct ChildDraft {
    /// Where its keys stand.
    pub(super) spans: BTreeMap<&'static str, Range<usize>>,
    pub(super) left_subnets: Option<At<Vec<ChildSelector>>>,
    pub(super) left_protocol: Option<At<(u8, PortRange)>>,
    pub(super) right_subnets: Option<At<Vec<ChildSelector>>>,
    pub(super) right_protocol: Option<At<(u8, PortRange)>>,
    pub(super) esp: Option<At<Vec<EspProposal>>>,
    pub(super) mode: Option<Mode>,
    pub(super) auto: Option<At<Auto>>,
    pub(super) dpd_action: Option<Option<DpdAction>>,
    pub(super) close_action: Option<CloseAction>,
    pub(super) lifetime: Option<At<Duration>>,
    pub(super) rekey: Option<bool>,
    pub(super) margin_time: Option<At<Duration>>,
    pub(super) rekey_fuzz_percent: Option<u32>,
    pub(super) life_bytes: Option<At<u64>>,
    pub(super) margin_bytes: Option<At<u64>>,
    pub(super) life_packets: Option<At<u64>>,
    pub(super) margin_packets: Option<At<u64>>,
    pub(super) interface: Option<At<InterfaceName>>,
    pub(super) priority: Option<u32>,
    pub(super) routes: Option<Routes>,
    pub(super) replay_window: Option<At<u32>>,
    pub(super) later_fragments: Option<bool>,
    pub(super) per_resource: Option<bool>,
    pub(super) updown: Option<Vec<String>>,
    pub(super) shape: PacketShape,
}

/// What `auto` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auto {
    /// It is not loaded.
    Ignore,
    /// It is loaded.
    Load(StartAction),
}

/// The keys about Child SAs.
pub(super) const CHILD_KEYS: &[Key<ChildDraft>] = &[
    Key {
        name: "leftsubnet",
        also_called: &[],
        takes: "prefix, range, address or `%dynamic`, with or without `[protocol/port]`, or a list",
        default: "our address",
        doc: "What we protect on our side: `10.1.0.0/16`, `10.1.0.1-10.1.0.9`, `10.1.0.0/16[tcp/443]`. Several, also of both \
              families, share one SA. `%dynamic` is our address.",
        set: |draft, item| {
            draft.left_subnets = Some(item.at(child_subnets(item)?));
            Ok(())
        },
    },
    Key {
        name: "leftprotoport",
        also_called: &[],
        takes: "protocol, or protocol/port",
        default: "any protocol",
        doc: "Narrows every `leftsubnet` without brackets: `tcp/443`, `udp/1000-2000`, `icmp/8`, `gre`, `17/%any`, \
              `tcp/opaque`.",
        set: |draft, item| {
            draft.left_protocol = Some(item.at(item.text("a protocol")?.read(selector::protocol_and_ports)?));
            Ok(())
        },
    },
    Key {
        name: "rightsubnet",
        also_called: &[],
        takes: "as `leftsubnet`",
        default: "the peer's address",
        doc: "What we protect on the peer's side.",
        set: |draft, item| {
            draft.right_subnets = Some(item.at(child_subnets(item)?));
            Ok(())
        },
    },
    Key {
        name: "rightprotoport",
        also_called: &[],
        takes: "as `leftprotoport`",
        default: "any protocol",
        doc: "Narrows every `rightsubnet` without brackets.",
        set: |draft, item| {
            draft.right_protocol = Some(item.at(item.text("a protocol")?.read(selector::protocol_and_ports)?));
            Ok(())
        },
    },
    Key {
        name: "esp",
        also_called: &[],
        takes: "ESP proposals, or a list",
        default: "\"default\"",
        doc: "Algorithms of the Child SA: `aes256gcm16`, `aes256gcm16-esn`, `aes128-sha256-ecp256`. A group stands for PFS, \
              `esn` and `noesn` for the length of sequence numbers. Only these are offered and accepted.",
        set: |draft, item| set_proposals(draft, item, proposals(item, "an ESP proposal", parse_esp_list)?),
    },
    Key {
        name: "ah",
        also_called: &[],
        takes: "AH proposals, or a list",
        default: "ESP is used",
        doc: "Integrity alone, by AH (RFC 4302) instead of ESP: `sha256`, `sha512-ecp256-esn`. It covers the IP header as well, encrypts \
              nothing and passes no NAT.",
        set: |draft, item| set_proposals(draft, item, proposals(item, "an AH proposal", parse_ah_list)?),
    },
    Key {
        name: "type",
        also_called: &[],
        takes: "`tunnel` or `transport`",
        default: "\"tunnel\"",
        doc: "The mode of the Child SA.",
        set: |draft, item| {
            draft.mode = Some(item.choice(&[("tunnel", Mode::Tunnel), ("transport", Mode::Transport)])?);
            Ok(())
        },
    },
    Key {
        name: "auto",
        also_called: &[],
        takes: "`ignore`, `add`, `route`, `start`, `once` or `route+once`",
        default: "\"ignore\"",
        doc: "`ignore`: not loaded, for others to build on with `also`. `add`: waits for the peer or for `charonctl up`. \
              `route`: the first packet brings it up. `start`: brought up at once, and again whenever it falls. `once`: brought \
              up at once; when it falls later it stays down.",
        set: |draft, item| {
            draft.auto = Some(item.at(Auto::Ignore));
            draft.auto = Some(item.at(item.choice(&[
                ("ignore", Auto::Ignore),
                ("add", Auto::Load(StartAction::None)),
                ("route", Auto::Load(StartAction::Trap)),
                ("start", Auto::Load(StartAction::Start)),
                ("once", Auto::Load(StartAction::Once { trap: false })),
                ("route+once", Auto::Load(StartAction::Once { trap: true })),
            ])?));
            Ok(())
        },
    },
    Key {
        name: "dpdaction",
        also_called: &[],
        takes: "`none`, `clear`, `hold` or `restart`",
        default: "\"none\"",
        doc: "What to do about a dead peer. `none` in a connection: it is not looked for. `clear`: remove the SAs. `hold`: remove them, and \
              let the next packet bring the tunnel back. `restart`: set the tunnel up again at once.",
        set: |draft, item| {
            draft.dpd_action = Some(item.choice(&[
                ("none", None),
                ("clear", Some(DpdAction::Clear)),
                ("hold", Some(DpdAction::Hold)),
                ("restart", Some(DpdAction::Restart)),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "closeaction",
        also_called: &[],
        takes: "`none`, `hold` or `restart`",
        default: "\"none\"",
        doc: "What to do when the peer deletes the Child SA. `hold`: the next packet brings it up again. `restart`: it is set up \
              again at once. With `auto = \"start\"` it comes up again anyway.",
        set: |draft, item| {
            draft.close_action = Some(item.choice(&[
                ("none", CloseAction::None),
                ("hold", CloseAction::Trap),
                ("restart", CloseAction::Start),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "lifetime",
        also_called: &["keylife"],
        takes: "duration",
        default: "\"1h\"",
        doc: "The Child SA ends after this long unless it was rekeyed.",
        set: |draft, item| {
            draft.lifetime = Some(item.at(positive(item)?));
            Ok(())
        },
    },
    Key {
        name: "rekey",
        also_called: &[],
        takes: "`true` or `false`",
        default: "true",
        doc: "Whether we rekey. If not, the SAs end after their lifetime unless the peer rekeys them.",
        set: |draft, item| {
            draft.rekey = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "margintime",
        also_called: &["rekeymargin"],
        takes: "duration",
        default: "9 minutes, for SAs that live less than an hour 15 % of that",
        doc: "SAs are rekeyed this long before they end, and `rekeyfuzz` sooner.",
        set: |draft, item| {
            draft.margin_time = Some(item.duration()?);
            Ok(())
        },
    },
    Key {
        name: "rekeyfuzz",
        also_called: &[],
        takes: "percentage up to 500 %",
        default: "\"100%\"",
        doc: "SAs are rekeyed up to this part of the margin sooner, drawn anew for each, so that two ends do not rekey at \
              once.",
        set: |draft, item| {
            draft.rekey_fuzz_percent = Some(percent(item)?);
            Ok(())
        },
    },
    Key {
        name: "lifebytes",
        also_called: &[],
        takes: "amount of data",
        default: "no limit",
        doc: "The Child SA ends after this much traffic in one direction unless it was rekeyed: `10GiB`.",
        set: |draft, item| {
            draft.life_bytes = Some(item.bytes()?);
            Ok(())
        },
    },
    Key {
        name: "marginbytes",
        also_called: &[],
        takes: "amount of data",
        default: "a tenth of `lifebytes`",
        doc: "It is rekeyed this much traffic sooner.",
        set: |draft, item| {
            draft.margin_bytes = Some(item.bytes()?);
            Ok(())
        },
    },
    Key {
        name: "lifepackets",
        also_called: &[],
        takes: "number",
        default: "no limit but the sequence numbers'",
        doc: "The Child SA ends after this many packets in one direction unless it was rekeyed.",
        set: |draft, item| {
            draft.life_packets = Some(item.at(packets(item)?));
            Ok(())
        },
    },
    Key {
        name: "marginpackets",
        also_called: &[],
        takes: "number",
        default: "a tenth of `lifepackets`",
        doc: "It is rekeyed this many packets sooner.",
        set: |draft, item| {
            draft.margin_packets = Some(item.at(packets(item)?));
            Ok(())
        },
    },
    Key {
        name: "interface",
        also_called: &[],
        takes: "name of an `[interface.NAME]`",
        default: "\"ipsec0\"",
        doc: "The interface the traffic goes through. `ipsec0` needs no table.",
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
        default: "\"auto\"",
        doc: "The routes into the interface that come and go with the tunnel. `auto`: one for each prefix of the negotiated \
              selectors, except those that cover a whole family.",
        set: |draft, item| {
            draft.routes = Some(routes(item)?);
            Ok(())
        },
    },
    Key {
        name: "priority",
        also_called: &[],
        takes: "number",
        default: "`1000`",
        doc: "The place of its policies among others and those of `[policy.NAME]`: the lowest number is asked first; of several with \
              one number the narrowest.",
        set: |draft, item| {
            draft.priority = Some(priority(item)?);
            Ok(())
        },
    },
    Key {
        name: "replay_window",
        also_called: &[],
        takes: "packets: 0, or 64 to 65536",
        default: "1024",
        doc: "How late a packet may come. 0 turns the protection against replay off.",
        set: |draft, item| {
            draft.replay_window = Some(item.at(replay_window(item)?));
            Ok(())
        },
    },
    Key {
        name: "later_fragments",
        also_called: &[],
        takes: "`true` or `false`",
        default: "`false`",
        doc: "Whether fragments of a packet but the first, which show no ports, may travel in a tunnel for certain ports. The \
              peer must want it as well (RFC 4301 §7.3). Tunnels for any port carry them anyway.",
        set: |draft, item| {
            draft.later_fragments = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "per_resource_sas",
        also_called: &["per_cpu_sas"],
        takes: "`true` or `false`",
        default: "`false`",
        doc: "Whether there is an SA for each of the `workers` beside one for all of them, each with keys and sequence numbers of its \
              own, if the peer can do the same (RFC 9611). Whoever sets the child up makes them.",
        set: |draft, item| {
            draft.per_resource = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "updown",
        also_called: &["leftupdown"],
        takes: "absolute path of a program, and its arguments",
        default: "nothing is run",
        doc: "Run when the Child SA comes up and goes down, not when it is rekeyed, with the environment that strongSwan gives its \
              scripts (`PLUTO_VERB`, `PLUTO_MY_CLIENT`, `PLUTO_PEER_CLIENT`, `PLUTO_MY_SOURCEIP`, `PLUTO_DNS4_1`, …); `PLUTO_INTERFACE` is the \
              tunnel's, and `PLUTO_DNS_DOMAINS` has the domains for which the name servers are meant. No shell reads the line.",
        set: |draft, item| {
            draft.updown = Some(program(item)?);
            Ok(())
        },
    },
];

/// Proposals of either protocol. A child has one of them, whether it is named with the child or with its connection.
fn set_proposals(draft: &mut ChildDraft, item: Item<'_>, proposals: Vec<EspProposal>) -> Result<(), Complaints> {
    let protocol = |proposals: &[EspProposal]| proposals.first().map(|proposal| proposal.protocol);
    if draft.esp.as_ref().is_some_and(|other| protocol(&other.value) != protocol(&proposals)) {
        let complaint = Complaint::new(item.span(), "a Child SA has either `esp` or `ah`");
        return Err(complaint.expected("leave one of them out, here or in what this inherits").into());
    }
    draft.esp = Some(item.at(proposals));
    Ok(())
}

/// Reads proposals; what is wrong is shown at its place in the string.
pub(super) fn proposals<T>(
    item: Item<'_>,
    wanted: &str,
    parse: fn(&str) -> Result<Vec<T>, ProposalError>,
) -> Result<Vec<T>, Complaints> {
    let lists = collect(item.strings(wanted)?.iter().map(|text| {
        parse(text.as_str()).map_err(|ProposalError { span, problem }| {
            let place = text.part(span).span();
            if let ProposalProblem::Unknown { keyword, nearest } = problem {
                return Complaint::new(place, format!("`{keyword}` is no algorithm"))
                    .nearest(&keyword, [nearest.as_str()]);
            }
            Complaint::new(place, problem.to_string())
        })
    }))?;
    let proposals: Vec<T> = lists.into_iter().flatten().collect();
    if proposals.is_empty() {
        return Err(Complaint::new(item.span(), "there is no proposal here")
            .expected(format!("expected {wanted}"))
            .into());
    }
    Ok(proposals)
}

/// Reads the selectors of one side of a child.
fn child_subnets(item: Item<'_>) -> Result<Vec<ChildSelector>, Complaints> {
    let texts = item.texts("a prefix such as \"10.1.0.0/16\", or \"%dynamic\"")?;
    collect(texts.iter().map(|text| match text.read(selector::child_selector)? {
        ChildSelector::Fixed(selector) => Ok(without_host_bits(text, selector)?.into()),
        dynamic @ ChildSelector::Dynamic { .. } => Ok(dynamic),
    }))
}

/// Reads selectors.
pub(super) fn subnets(item: Item<'_>) -> Result<Vec<TrafficSelector>, Complaints> {
    let texts = item.texts("a prefix such as \"10.1.0.0/16\"")?;
    collect(texts.iter().map(|text| without_host_bits(text, text.read(selector::selector)?)))
}

fn without_host_bits(text: &super::item::Text<'_>, selector: TrafficSelector) -> Result<TrafficSelector, Complaint> {
    let addresses = text.as_str().split('[').next().unwrap_or_default().trim_end();
    match addresses.parse::<IpPrefix>() {
        Ok(prefix) if prefix.address() != address::ends(prefix).0 => {
            Err(host_bits(&text.part(0..addresses.len()), prefix))
        }
        _ => Ok(selector),
    }
}

/// Reads which routes to install.
pub(super) fn routes(item: Item<'_>) -> Result<Routes, Complaints> {
    const WANTED: &str = "\"auto\", \"none\", or prefixes such as \"10.1.0.0/16\"";
    match item.text(WANTED) {
        Ok(text) if text.as_str() == "auto" => return Ok(Routes::FromSelectors),
        Ok(text) if text.as_str() == "none" => return Ok(Routes::Fixed(Vec::new())),
        _ => {}
    }
    let routes = prefixes(item, WANTED)?;
    let texts = item.texts(WANTED)?;
    collect(texts.iter().zip(routes).map(|(text, route)| {
        if route.address() == address::ends(route).0 { Ok(route) } else { Err(host_bits(text, route)) }
    }))
    .map(Routes::Fixed)
}

/// That a prefix has bits beyond its length: a slip, or an address was meant.
fn host_bits(text: &super::item::Text<'_>, prefix: IpPrefix) -> Complaint {
    let network = address::ends(prefix).0;
    text.complain(format!("`{}` has bits set beyond its length", text.as_str())).expected(format!(
        "expected {network}/{} for the network, {} for the host",
        prefix.bits(),
        prefix.address()
    ))
}

fn percent(item: Item<'_>) -> Result<u32, Complaint> {
    const WANTED: &str = "expected a percentage such as \"100%\", up to \"500%\"";
    let text = item.text("a percentage such as \"100%\"")?;
    let percent = text.as_str().strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
    percent
        .filter(|percent| *percent <= 500)
        .ok_or_else(|| text.complain(format!("`{}` is no percentage", text.as_str())).expected(WANTED))
}

/// Reads a number of packets.
pub(super) fn packets(item: Item<'_>) -> Result<u64, Complaint> {
    item.integer(1..=u64::from(u32::MAX) << 16)
}

/// Reads a program and its arguments, with blanks between them.
pub(super) fn program(item: Item<'_>) -> Result<Vec<String>, Complaint> {
    let text = item.text("the path of a program")?;
    read_program(text.as_str())
        .map_err(|expected| text.complain(format!("`{}` is no path of a program", text.as_str())).expected(expected))
}

/// The words of a line that names a program by its absolute path.
///
/// # Errors
/// What was expected.
pub(crate) fn read_program(line: &str) -> Result<Vec<String>, &'static str> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    match words.first() {
        Some(path) if path.starts_with('/') => Ok(words),
        Some(_) | None => Err("expected an absolute path such as \"/etc/charon-rs/updown\", with or without arguments"),
    }
}

/// The place of a policy among others.
pub(super) fn priority(item: Item<'_>) -> Result<u32, Complaint> {
    let number = item.integer(0..=u64::from(u32::MAX) - 1)?;
    u32::try_from(number).map_err(|_| item.wrong_type("a number"))
}

/// Reads the size of a replay window.
pub(super) fn replay_window(item: Item<'_>) -> Result<u32, Complaint> {
    const MOST: u64 = 65536;
    let window = item.integer(0..=MOST)?;
    if (1..64).contains(&window) {
        return Err(
            Complaint::new(item.span(), "a window of less than 64 packets").expected("expected 0, or 64 to 65536")
        );
    }
    u32::try_from(window).map_err(|_| item.wrong_type("packets"))
}
