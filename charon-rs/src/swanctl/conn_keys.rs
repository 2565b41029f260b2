//! The keys of `connections.NAME`.

use std::net::IpAddr;
use std::time::Duration;

use ike_proto::config::{Childless, Fragmentation, RemoteAddress, SendCertificates, Uniqueness};
use ike_proto::proposal::{IkeProposal, default_ike_proposals, parse_ike_list};

use super::child_keys::BY_INTERFACE;
use super::keys::{Foreign, Key, Toml};
use crate::config::values::address;

/// What a connection says about its IKE SA; the rest is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnDraft {
    pub(crate) local_addresses: Vec<RemoteAddress>,
    pub(crate) remote_addresses: Option<Vec<RemoteAddress>>,
    pub(crate) local_port: Option<u16>,
    pub(crate) remote_port: Option<u16>,
    pub(crate) proposals: Option<Vec<IkeProposal>>,
    pub(crate) rekey_time: Option<Duration>,
    pub(crate) reauth_time: Option<Duration>,
    pub(crate) over_time: Option<Duration>,
    pub(crate) rand_time: Option<Duration>,
    pub(crate) dpd_delay: Option<Duration>,
    pub(crate) uniqueness: Option<Uniqueness>,
    pub(crate) encap: Option<bool>,
    pub(crate) mobike: Option<bool>,
    pub(crate) childless: Option<Childless>,
    pub(crate) fragmentation: Option<Fragmentation>,
    pub(crate) ppk_id: Option<String>,
    pub(crate) ppk_required: Option<bool>,
    pub(crate) virtual_addresses: Vec<IpAddr>,
    pub(crate) pools: Vec<String>,
    pub(crate) send_requests: Option<bool>,
    pub(crate) send_certificates: Option<SendCertificates>,
}

/// The keys of a connection.
pub(crate) const CONN_KEYS: &[Key<ConnDraft>] = &[
    Key {
        name: "version",
        takes: "`0` or `2`",
        default: "`0`, which is IKEv2 here",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["0", "2"]),
    },
    Key {
        name: "local_addrs",
        takes: "addresses, or `%any`",
        default: "`%any`",
        toml: Toml::List("left"),
        set: |draft, value| {
            draft.local_addresses = value.list(address::remote)?;
            Ok(())
        },
    },
    Key {
        name: "remote_addrs",
        takes: "addresses, ranges, networks, host names, or `%any`",
        default: "`%any`",
        toml: Toml::List("right"),
        set: |draft, value| {
            draft.remote_addresses = Some(value.list(address::remote)?);
            Ok(())
        },
    },
    Key {
        name: "local_port",
        takes: "port",
        default: "`500`, or `4500` where `remote_port` is not `500`",
        toml: Toml::Number("leftikeport"),
        set: |draft, value| {
            draft.local_port = Some(value.number()?);
            Ok(())
        },
    },
    Key {
        name: "remote_port",
        takes: "port",
        default: "`500`",
        toml: Toml::Number("rightikeport"),
        set: |draft, value| {
            draft.remote_port = Some(value.number()?);
            Ok(())
        },
    },
    Key {
        name: "vips",
        takes: "addresses; `0.0.0.0` and `::` for any",
        default: "none are asked for",
        toml: Toml::Together,
        set: |draft, value| {
            draft.virtual_addresses = value.list(|text| text.parse::<IpAddr>())?;
            Ok(())
        },
    },
    Key {
        name: "pools",
        takes: "names of pools",
        default: "peers get no virtual addresses",
        toml: Toml::Together,
        set: |draft, value| {
            draft.pools = value.items()?;
            Ok(())
        },
    },
    Key {
        name: "proposals",
        takes: "IKE proposals, `default` among them",
        default: "`default`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.proposals = Some(value.list(parse_ike)?.concat());
            Ok(())
        },
    },
    Key {
        name: "rekey_time",
        takes: "time",
        default: "`4h`, `0` with `reauth_time`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.rekey_time = Some(value.time()?);
            Ok(())
        },
    },
    Key {
        name: "reauth_time",
        takes: "time",
        default: "`0`: never",
        toml: Toml::Together,
        set: |draft, value| {
            draft.reauth_time = Some(value.time()?);
            Ok(())
        },
    },
    Key {
        name: "over_time",
        takes: "time",
        default: "a tenth of the longer of the two",
        toml: Toml::Together,
        set: |draft, value| {
            draft.over_time = Some(value.time()?);
            Ok(())
        },
    },
    Key {
        name: "rand_time",
        takes: "time",
        default: "as `over_time`",
        toml: Toml::Together,
        set: |draft, value| {
            draft.rand_time = Some(value.time()?);
            Ok(())
        },
    },
    Key {
        name: "dpd_delay",
        takes: "time",
        default: "`0`: dead peers are not looked for",
        toml: Toml::Together,
        set: |draft, value| {
            draft.dpd_delay = Some(value.time()?);
            Ok(())
        },
    },
    Key {
        name: "dpd_timeout",
        takes: "time",
        default: "it has a meaning in IKEv1 only",
        toml: Toml::Nothing,
        set: |_, value| value.time().map(drop),
    },
    Key {
        name: "keyingtries",
        takes: "`0`, `1` or `%forever`",
        default: "it is tried again for ever where something wants the connection up",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["0", "1", "%forever"]),
    },
    Key {
        name: "unique",
        takes: "`no`, `never`, `replace` or `keep`",
        default: "`no`",
        toml: Toml::Text("uniqueids"),
        set: |draft, value| {
            draft.uniqueness = Some(value.choice(&[
                ("no", Uniqueness::No),
                ("never", Uniqueness::Never),
                ("replace", Uniqueness::Replace),
                ("yes", Uniqueness::Replace),
                ("keep", Uniqueness::Keep),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "encap",
        takes: "`yes` or `no`",
        default: "`no`",
        toml: Toml::Switch("forceencaps"),
        set: |draft, value| {
            draft.encap = Some(value.switch()?);
            Ok(())
        },
    },
    Key {
        name: "mobike",
        takes: "`yes` or `no`",
        default: "`yes`",
        toml: Toml::Switch("mobike"),
        set: |draft, value| {
            draft.mobike = Some(value.switch()?);
            Ok(())
        },
    },
    Key {
        name: "childless",
        takes: "`allow`, `prefer`, `force` or `never`",
        default: "`allow`",
        toml: Toml::Text("childless"),
        set: |draft, value| {
            draft.childless = Some(value.choice(&[
                ("allow", Childless::Allow),
                ("prefer", Childless::Prefer),
                ("force", Childless::Force),
                ("never", Childless::Never),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "fragmentation",
        takes: "`yes`, `accept`, `force` or `no`",
        default: "`yes`",
        toml: Toml::Text("fragmentation"),
        set: |draft, value| {
            draft.fragmentation = Some(value.choice(&[
                ("yes", Fragmentation::Offer),
                ("accept", Fragmentation::Accept),
                ("force", Fragmentation::Force),
                ("no", Fragmentation::Never),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "ppk_id",
        takes: "identity of a post-quantum key",
        default: "none",
        toml: Toml::Text("ppk_id"),
        set: |draft, value| {
            draft.ppk_id = Some(value.text()?.to_owned());
            Ok(())
        },
    },
    Key {
        name: "ppk_required",
        takes: "`yes` or `no`",
        default: "`no`",
        toml: Toml::Switch("ppk_required"),
        set: |draft, value| {
            draft.ppk_required = Some(value.switch()?);
            Ok(())
        },
    },
    Key {
        name: "send_certreq",
        takes: "`yes` or `no`",
        default: "`yes`",
        toml: Toml::Switch("sendcertreq"),
        set: |draft, value| {
            draft.send_requests = Some(value.switch()?);
            Ok(())
        },
    },
    Key {
        name: "send_cert",
        takes: "`ifasked`, `always` or `never`",
        default: "`ifasked`",
        toml: Toml::Text("sendcert"),
        set: |draft, value| {
            draft.send_certificates = Some(value.choice(&[
                ("ifasked", SendCertificates::IfAsked),
                ("always", SendCertificates::Always),
                ("never", SendCertificates::Never),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "aggressive",
        takes: "`no`",
        default: "it has a meaning in IKEv1 only",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["no"]),
    },
    Key {
        name: "pull",
        takes: "`yes` or `no`",
        default: "it has a meaning in IKEv1 only",
        toml: Toml::Nothing,
        set: |_, value| value.switch().map(drop),
    },
    Key {
        name: "dscp",
        takes: "`000000`",
        default: "`000000`",
        toml: Toml::Nothing,
        set: |_, value| value.only(&["000000"]),
    },
    Key { name: "mediation", takes: "`no`", default: "`no`", toml: Toml::Nothing, set: |_, value| value.only(&["no"]) },
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

/// Keys of a connection that mean something here nobody does.
pub(crate) const FOREIGN_KEYS: &[Foreign] = &[
    Foreign { name: "mediated_by", advice: "there is no mediation" },
    Foreign { name: "mediation_peer", advice: "there is no mediation" },
    Foreign { name: "ocsp", advice: "the peer is asked for OCSP answers where revocation is strict or ifuri" },
];

/// `default` among proposals stands for ours.
fn parse_ike(text: &str) -> Result<Vec<IkeProposal>, String> {
    if text == "default" {
        Ok(default_ike_proposals())
    } else {
        parse_ike_list(text).map_err(|error| error.to_string())
    }
}
