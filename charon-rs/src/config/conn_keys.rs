//! The keys of `[conn.NAME]` that are about the peer and the IKE SA.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use ike_proto::config::{Childless, Fragmentation, Gateway, RedirectAt, RemoteAddress, UdpEncapsulation, Uniqueness};
use ike_proto::proposal::{IkeProposal, parse_ike_list};
use ike_proto::wire::ConfigurationAttribute;
use tracing::level_filters::LevelFilter;

use super::auth_keys::AuthDraft;
use super::child_keys::{ChildDraft, proposals};
use super::daemon::port;
use super::item::{At, Complaints, Item, collect};
use super::keys::{Foreign, Key};
use super::log;
use super::pool::{PoolUse, Wanted, attributes, uses, wanted};
use super::source::Complaint;
use super::values::{ValueError, address};

/// `[conn.NAME]` while it is read: what the file says, the rest empty.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnDraft {
    /// Where its keys stand.
    pub(super) spans: BTreeMap<&'static str, Range<usize>>,
    pub(super) left: Option<At<Vec<IpAddr>>>,
    pub(super) left_port: Option<At<u16>>,
    pub(super) right: Option<At<Vec<RemoteAddress>>>,
    pub(super) right_port: Option<u16>,
    pub(super) ike: Option<At<Vec<IkeProposal>>>,
    pub(super) ike_lifetime: Option<At<Duration>>,
    pub(super) reauth: Option<bool>,
    pub(super) reauth_time: Option<At<Duration>>,
    pub(super) uniqueness: Option<Uniqueness>,
    pub(super) follow_redirects: Option<bool>,
    pub(super) redirect_to: Option<At<Gateway>>,
    pub(super) redirect_at: Option<RedirectAt>,
    pub(super) dpd_delay: Option<At<Duration>>,
    pub(super) retransmit_timeout: Option<Duration>,
    pub(super) retransmit_base: Option<f64>,
    pub(super) retransmit_tries: Option<u32>,
    pub(super) retransmit_limit: Option<Duration>,
    pub(super) force_encapsulation: Option<bool>,
    pub(super) encapsulation: Option<UdpEncapsulation>,
    pub(super) mobike: Option<bool>,
    pub(super) childless: Option<Childless>,
    pub(super) fragmentation: Option<Fragmentation>,
    pub(super) fragment_size: Option<u16>,
    pub(super) ppk_id: Option<String>,
    pub(super) ppk_required: Option<bool>,
    pub(super) log_level: Option<LevelFilter>,
    pub(super) left_source: Option<At<Vec<Wanted>>>,
    pub(super) right_source: Vec<At<PoolUse>>,
    pub(super) right_dns: Vec<ConfigurationAttribute>,
    pub(super) auth: AuthDraft,
    pub(super) child: ChildDraft,
}

/// The keys that only a connection has; [`super::child_keys::CHILD_KEYS`] stand beside them.
pub(super) const CONN_KEYS: &[Key<ConnDraft>] = &[
    Key {
        name: "left",
        also_called: &[],
        takes: "address, or a list",
        default: "the address that leads to the peer",
        doc: "Our address. Of several, the first of the peer's family is used, and with `mobike` the peer learns of the \
              others. With `mobike` and without `left` we may come from any address.",
        set: |draft, item| {
            draft.left = Some(item.at(left(item)?));
            Ok(())
        },
    },
    Key {
        name: "leftikeport",
        also_called: &[],
        takes: "port",
        default: "`ike_port` of `[daemon]`; `nat_port` if `rightikeport` is given and not 500",
        doc: "Our UDP port for the first exchange: `ike_port` or `nat_port`. From `nat_port` everything is sent as through a \
              NAT, from the first message on.",
        set: |draft, item| {
            draft.left_port = Some(item.at(port(item)?));
            Ok(())
        },
    },
    Key {
        name: "right",
        also_called: &[],
        takes: "address, prefix, range, host name, `%any`, or a list",
        default: "none: a connection must say it",
        doc: "Where the peer is. Prefixes, ranges, `%any`, `%any4` and `%any6` are for peers that call us. Host names are \
              resolved anew for each attempt. With `mobike` the peer may go elsewhere later, unless only prefixes or ranges \
              are given.",
        set: |draft, item| {
            // Empty until it is known to be right, so that a mistake is not taken for its absence.
            draft.right = Some(item.at(Vec::new()));
            draft.right = Some(item.at(right(item)?));
            Ok(())
        },
    },
    Key {
        name: "rightikeport",
        also_called: &[],
        takes: "port",
        default: "500",
        doc: "The peer's UDP port for the first exchange. 500 changes to 4500 where there is a NAT or `mobike`; another one \
              is taken for the peer's port behind a NAT and does not change, unless `leftikeport = 500` is given.",
        set: |draft, item| {
            draft.right_port = Some(port(item)?);
            Ok(())
        },
    },
    Key {
        name: "leftsourceip",
        also_called: &[],
        takes: "`%config`, `%config4`, `%config6`, an address, or a list",
        default: "none: no virtual address is asked for",
        doc: "The virtual address that we ask the peer for: any of the tunnel's own family, of IPv4, of IPv6, or a certain one, for which \
              the peer may give another. `interface` has it while the connection is up, and a child without `leftsubnet` is for it. \
              Without any the connection does not come up. Name servers and domains go to `updown` and hooks.",
        set: |draft, item| {
            draft.left_source = Some(item.at(wanted(item)?));
            Ok(())
        },
    },
    Key {
        name: "rightsourceip",
        also_called: &[],
        takes: "network, range, address, `%NAME` of a `[pool.NAME]`, or a list",
        default: "none: peers get no virtual addresses",
        doc: "Where peers get their virtual addresses from, one of each family that they ask for. A peer keeps its address as long as \
              others do not need it, and gets no Child SA without. A child without `rightsubnet` is for it.",
        set: |draft, item| {
            draft.right_source = uses(item)?;
            Ok(())
        },
    },
    Key {
        name: "rightdns",
        also_called: &[],
        takes: "address, or a list",
        default: "none",
        doc: "Name servers that peers are told of with their virtual addresses, before those of the pool.",
        set: |draft, item| {
            draft.right_dns = attributes("dns", &item.texts("an address")?)?;
            Ok(())
        },
    },
    Key {
        name: "ike",
        also_called: &[],
        takes: "IKE proposals, or a list",
        default: "\"default\"",
        doc: "Algorithms of the IKE SA in strongSwan's notation: `aes256gcm16-prfsha384-ecp384`, `aes128-sha256-modp3072`, \
              `aes256gcm16-prfsha384-x25519-ke1_mlkem768` with an additional key exchange. \
              Only these are offered and accepted, with or without `!` at the end.",
        set: |draft, item| {
            draft.ike = Some(item.at(proposals(item, "an IKE proposal", parse_ike_list)?));
            Ok(())
        },
    },
    Key {
        name: "ikelifetime",
        also_called: &[],
        takes: "duration",
        default: "\"3h\"",
        doc: "The IKE SA ends after this long unless it was rekeyed; see `margintime` for when that is.",
        set: |draft, item| {
            draft.ike_lifetime = Some(item.duration()?);
            Ok(())
        },
    },
    Key {
        name: "reauth",
        also_called: &[],
        takes: "`true` or `false`",
        default: "false",
        doc: "Instead of being rekeyed, the IKE SA is made anew with all its children and a new authentication, before the \
              old one goes.",
        set: |draft, item| {
            draft.reauth = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "reauthtime",
        also_called: &[],
        takes: "duration",
        default: "none: as long as until rekeying if `reauth` is `true`",
        doc: "The IKE SA is made anew with a new authentication after this long, up to `margintime` times `rekeyfuzz` sooner, \
              beside being rekeyed. A peer that began the IKE SA is told so (RFC 4478).",
        set: |draft, item| {
            draft.reauth_time = Some(item.at(positive(item)?));
            Ok(())
        },
    },
    Key {
        name: "uniqueids",
        also_called: &[],
        takes: "`never`, `no`, `replace` (or `yes`), or `keep`",
        default: "\"no\"",
        doc: "What becomes of older IKE SAs of the same two identities. `no`: they stay, unless the peer says that it knows \
              nothing of them. `never`: they stay even then. `replace`: only the newest stays. `keep`: only the oldest stays, \
              unless the peer comes from the same address.",
        set: |draft, item| {
            draft.uniqueness = Some(item.choice(&[
                ("never", Uniqueness::Never),
                ("no", Uniqueness::No),
                ("replace", Uniqueness::Replace),
                ("yes", Uniqueness::Replace),
                ("keep", Uniqueness::Keep),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "redirect",
        also_called: &[],
        takes: "`true` or `false`",
        default: "true",
        doc: "Whether the peer may send us to another gateway (RFC 5685), which must have the same identity.",
        set: |draft, item| {
            draft.follow_redirects = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "redirect_to",
        also_called: &[],
        takes: "address or host name",
        default: "none",
        doc: "Sends peers that can be redirected (RFC 5685) to this gateway instead of serving them.",
        set: |draft, item| {
            let text = item.text("an address or a host name")?;
            draft.redirect_to = Some(item.at(text.read(gateway)?));
            Ok(())
        },
    },
    Key {
        name: "redirect_at",
        also_called: &[],
        takes: "`init` or `auth`",
        default: "\"init\"",
        doc: "When peers are redirected: at once, or when they have proved who they are.",
        set: |draft, item| {
            draft.redirect_at = Some(item.choice(&[("init", RedirectAt::Init), ("auth", RedirectAt::Auth)])?);
            Ok(())
        },
    },
    Key {
        name: "dpddelay",
        also_called: &[],
        takes: "duration",
        default: "\"30s\"",
        doc: "The peer is probed when nothing came from it for this long. Without `dpdaction` it has no effect. How long it \
              then takes until the peer is given up follows from the `retransmit_` keys.",
        set: |draft, item| {
            draft.dpd_delay = Some(item.duration()?);
            Ok(())
        },
    },
    Key {
        name: "retransmit_timeout",
        also_called: &[],
        takes: "duration",
        default: "\"4s\"",
        doc: "A request without answer is sent again after this long.",
        set: |draft, item| {
            draft.retransmit_timeout = Some(positive(item)?);
            Ok(())
        },
    },
    Key {
        name: "retransmit_base",
        also_called: &[],
        takes: "number from 1 to 10",
        default: "1.8",
        doc: "Each further wait is this many times as long as the one before.",
        set: |draft, item| {
            draft.retransmit_base = Some(item.float(1.0..=10.0)?);
            Ok(())
        },
    },
    Key {
        name: "retransmit_tries",
        also_called: &[],
        takes: "number",
        default: "5",
        doc: "How often a request is sent again before the peer is given up.",
        set: |draft, item| {
            let tries = item.integer(0..=100)?;
            draft.retransmit_tries = Some(u32::try_from(tries).map_err(|_| item.wrong_type("a number"))?);
            Ok(())
        },
    },
    Key {
        name: "retransmit_limit",
        also_called: &[],
        takes: "duration",
        default: "\"1m\"",
        doc: "No wait for an answer is longer than this.",
        set: |draft, item| {
            draft.retransmit_limit = Some(positive(item)?);
            Ok(())
        },
    },
    Key {
        name: "forceencaps",
        also_called: &[],
        takes: "`true` or `false`",
        default: "false",
        doc: "Pretends that there is a NAT, so that ESP always travels in UDP.",
        set: |draft, item| {
            draft.force_encapsulation = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "encapsulation",
        also_called: &[],
        takes: "`detect`, `auto`, `force` or `refuse`",
        default: "\"detect\"",
        doc: "Whether ESP travels in UDP: if there is a NAT; also without one, for speed, where the peer is charon-rs with `auto` as \
              well; always, as with `forceencaps`; or never, and NATs are not looked for. Where several connections are for the same addresses, that of the first one whose `ike` fits counts: the \
              peer asks before it says who it is. Stands above `forceencaps`.",
        set: |draft, item| {
            draft.encapsulation = Some(item.choice(&[
                ("detect", UdpEncapsulation::Detect),
                ("auto", UdpEncapsulation::Auto),
                ("force", UdpEncapsulation::Force),
                ("refuse", UdpEncapsulation::Refuse),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "mobike",
        also_called: &[],
        takes: "`true` or `false`",
        default: "true",
        doc: "Whether both ends may change their addresses (RFC 4555). The one that initiated goes wherever its routes to the \
              peer lead, and the other one follows.",
        set: |draft, item| {
            draft.mobike = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "fragmentation",
        also_called: &[],
        takes: "`yes`, `no`, `accept` or `force`",
        default: "\"yes\"",
        doc: "Whether IKE messages that are longer than `fragmentsize` go in fragments (RFC 7383), if the peer can do that, \
              too. `accept`: only the peer's do. `force`: all messages go in fragments, also small ones.",
        set: |draft, item| {
            draft.fragmentation = Some(item.choice(&[
                ("yes", Fragmentation::Offer),
                ("no", Fragmentation::Never),
                ("accept", Fragmentation::Accept),
                ("force", Fragmentation::Force),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "fragmentsize",
        also_called: &[],
        takes: "number from 256 to 65535",
        default: "1280",
        doc: "The longest IP packet with IKE in it, in octets, before a message is sent in fragments.",
        set: |draft, item| {
            let size = item.integer(256..=u64::from(u16::MAX))?;
            draft.fragment_size = Some(u16::try_from(size).map_err(|_| item.wrong_type("a number"))?);
            Ok(())
        },
    },
    Key {
        name: "childless",
        also_called: &[],
        takes: "`allow`, `prefer`, `force` or `never`",
        default: "\"allow\"",
        doc: "Whether the IKE SA may come up without a Child SA (RFC 6023). `prefer`: where we begin, all Child SAs come \
              afterwards, with keys of their own, if the peer can do that. `force`: peers that cannot are refused.",
        set: |draft, item| {
            draft.childless = Some(item.choice(&[
                ("allow", Childless::Allow),
                ("prefer", Childless::Prefer),
                ("force", Childless::Force),
                ("never", Childless::Never),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "ppk_id",
        also_called: &["ppk"],
        takes: "identifier",
        default: "none",
        doc: "The post-quantum pre-shared key (RFC 8784) that is mixed into the keys: the `id` of a `[ppk.NAME]` in the secrets \
              file. As the one who is asked we take whichever key the peer names, unless `ppk_required` stands here as well.",
        set: |draft, item| {
            draft.ppk_id = Some(item.text("an identifier")?.as_str().to_owned());
            Ok(())
        },
    },
    Key {
        name: "ppk_required",
        also_called: &[],
        takes: "`true` or `false`",
        default: "false",
        doc: "Whether there is no IKE SA without a post-quantum pre-shared key. Where we show who we are by a private key, the \
              key of `ppk_id` is always required of a peer that knows of such keys.",
        set: |draft, item| {
            draft.ppk_required = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "log",
        also_called: &[],
        takes: "level",
        default: "what holds for all of them",
        doc: "What of this connection is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`. Holds at once after a reload; \
              `charonctl log NAME=LEVEL` changes it while the daemon runs.",
        set: |draft, item| {
            draft.log_level = Some(log::level(item)?);
            Ok(())
        },
    },
    Key {
        name: "keyingtries",
        also_called: &[],
        takes: "`%forever`",
        default: "\"%forever\"",
        doc: "Here for configurations that come from ipsec.conf: a connection with `auto = \"start\"` is tried without end, \
              with pauses that grow from `reconnect_first` to `reconnect_longest`.",
        set: |_, item| Ok(item.choice(&[("%forever", ())])?),
    },
];

/// Keys of ipsec.conf that connections do not have here.
pub(super) const FOREIGN_KEYS: &[Foreign] = &[
    Foreign { name: "keyexchange", advice: "IKEv2 is all that is spoken; leave it out" },
    Foreign { name: "authby", advice: "write leftauth and rightauth" },
    Foreign {
        name: "dpdtimeout",
        advice: "it belongs to IKEv1; in IKEv2 the peer is dead when a request was sent retransmit_tries times again",
    },
    Foreign { name: "compress", advice: "IPComp is not supported; leave it out" },
    Foreign { name: "aggressive", advice: "it belongs to IKEv1; leave it out" },
    Foreign { name: "modeconfig", advice: "it belongs to IKEv1; leave it out" },
    Foreign { name: "installpolicy", advice: "policies belong to the tunnel's interface; leave it out" },
    Foreign { name: "mark", advice: "traffic is selected by interface and routes; see interface and routes" },
    Foreign { name: "reqid", advice: "it is chosen by the daemon; leave it out" },
    Foreign { name: "inactivity", advice: "it is not supported; leave it out" },
    Foreign { name: "leftfirewall", advice: "the daemon changes no firewall; write rules for the tunnel's interface" },
    Foreign { name: "rightfirewall", advice: "the daemon changes no firewall; write rules for the tunnel's interface" },
    Foreign { name: "rightsendcert", advice: "the peer is asked for its certificate; see sendcertreq" },
    Foreign { name: "strictcrlpolicy", advice: "write revocation = \"strict\" or \"ifuri\"" },
    Foreign { name: "leftrsasigkey", advice: "write leftsigkey" },
    Foreign { name: "rightrsasigkey", advice: "write rightsigkey" },
    Foreign { name: "leftcertpolicy", advice: "it has no effect on this end; leave it out" },
    Foreign {
        name: "lefthostaccess",
        advice: "the daemon changes no firewall; write rules for the tunnel's interface",
    },
    Foreign {
        name: "leftdns",
        advice: "name servers are asked for whenever `leftsourceip` asks for an address; `updown` and hooks get them",
    },
];

fn gateway(text: &str) -> Result<Gateway, ValueError> {
    const WANTED: &str = "an address or a host name";
    match address::remote(text)? {
        RemoteAddress::Address(address) => Ok(Gateway::Address(address)),
        RemoteAddress::Name(name) => Ok(Gateway::Name(name)),
        RemoteAddress::Range(_) | RemoteAddress::Any => {
            Err(ValueError::whole(text, format!("`{text}` is not one gateway"), WANTED))
        }
    }
}

fn left(item: Item<'_>) -> Result<Vec<IpAddr>, Complaints> {
    const WANTED: &str = "an address of this machine";
    let texts = item.texts(WANTED)?;
    if let [text] = texts.as_slice()
        && matches!(text.as_str(), "%any" | "%defaultroute")
    {
        return Ok(Vec::new());
    }
    collect(texts.iter().map(|text| text.read(address::local)))
}

fn right(item: Item<'_>) -> Result<Vec<RemoteAddress>, Complaints> {
    let texts = item.texts("an address, a host name or %any")?;
    if texts.is_empty() {
        let expected = "expected an address, a host name or %any";
        return Err(Complaint::new(item.span(), "there is no address here").expected(expected).into());
    }
    collect(texts.iter().map(|text| text.read(address::remote)))
}

/// A length of time that is not zero.
pub(super) fn positive(item: Item<'_>) -> Result<Duration, Complaint> {
    let time = item.duration()?;
    if time.value.is_zero() {
        return Err(Complaint::new(time.span, "it must be longer than nothing").expected("expected for example \"4s\""));
    }
    Ok(time.value)
}
