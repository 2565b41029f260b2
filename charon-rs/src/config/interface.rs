//! The tables `[interface.NAME]`: what their keys must have in common.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use espdp_api::{
    AddressRange, BridgeName, DfPolicy, DscpPolicy, Gre, InterfaceKind, InterfaceName, InterfaceSpec, IpPrefix,
    L2tpCarrier, L2tpCookie, L2tpSublayer, L2tpv3, Layer, MacAddress, Mode, Mtu, NextHop, PortRange, Protection,
    TrafficSelector, TunnelEnds, Vni, Vxlan,
};

use super::bridge;
use super::item::At;
use super::source::Complaint;

/// The interfaces of a file, and where their names stand.
pub(super) type Interfaces = BTreeMap<InterfaceName, At<InterfaceSpec>>;

/// `[interface.NAME]` while it is read.
#[derive(Default)]
pub(super) struct InterfaceDraft {
    pub(super) kind: Option<Kind>,
    pub(super) addresses: Option<At<Vec<IpPrefix>>>,
    pub(super) mtu: Option<Mtu>,
    pub(super) local: Option<At<IpAddr>>,
    pub(super) remote: Option<At<IpAddr>>,
    pub(super) next_hops: Option<At<Vec<NextHop>>>,
    pub(super) protection: Option<At<Protection>>,
    pub(super) hop_limit: Option<At<u8>>,
    pub(super) dscp: Option<At<DscpPolicy>>,
    pub(super) df: Option<At<DfPolicy>>,
    pub(super) key: Option<At<u32>>,
    pub(super) checksum: Option<At<bool>>,
    pub(super) sequence: Option<At<bool>>,
    pub(super) layer: Option<At<Layer>>,
    pub(super) vni: Option<At<Vni>>,
    pub(super) port: Option<At<u16>>,
    pub(super) peer_port: Option<At<u16>>,
    pub(super) carrier: Option<At<Carrier>>,
    pub(super) session: Option<At<u32>>,
    pub(super) peer_session: Option<At<u32>>,
    pub(super) cookie: Option<At<L2tpCookie>>,
    pub(super) peer_cookie: Option<At<L2tpCookie>>,
    pub(super) sublayer: Option<At<bool>>,
    pub(super) bridge: Option<At<BridgeName>>,
    pub(super) split_horizon: Option<At<u8>>,
    pub(super) mac: Option<At<MacAddress>>,
    pub(super) netns: Option<At<String>>,
    pub(super) link: Option<At<u32>>,
    pub(super) host_link: Option<At<InterfaceName>>,
}

/// What `kind` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ipsec,
    Ipip,
    Gre,
    Vxlan,
    L2tpv3,
    Tap,
    Host,
    Memory,
}

/// What `carrier` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Ip,
    Udp,
}

impl Kind {
    pub(super) const WORDS: &[(&str, Self)] = &[
        ("ipsec", Self::Ipsec),
        ("ipip", Self::Ipip),
        ("gre", Self::Gre),
        ("vxlan", Self::Vxlan),
        ("l2tpv3", Self::L2tpv3),
        ("tap", Self::Tap),
        ("host", Self::Host),
        ("memory", Self::Memory),
    ];

    /// The kind that a name starts with.
    fn of_name(name: &str) -> Option<Self> {
        let also = [("l2tp", Self::L2tpv3), ("bvi", Self::Tap), ("mem", Self::Memory)];
        Self::WORDS.iter().chain(&also).find(|(word, _)| name.starts_with(word)).map(|(_, kind)| *kind)
    }

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

impl InterfaceDraft {
    /// The interface `name`, whose name stands at `span`.
    pub(super) fn finish(self, name: &str, span: Range<usize>) -> Result<InterfaceSpec, Complaint> {
        let kind = self.kind.or_else(|| Kind::of_name(name)).ok_or_else(|| {
            let words: Vec<_> = Kind::WORDS.iter().map(|(word, _)| format!("`kind = \"{word}\"`")).collect();
            Complaint::new(span.clone(), format!("the kind of `{name}` does not follow from its name"))
                .expected(format!("expected {}", words.join(" or ")))
        })?;
        self.check_keys(kind)?;
        let name = InterfaceName::new(name).map_err(|error| Complaint::new(span.clone(), error.to_string()))?;
        let protection = self.protection.as_ref().map_or(Protection::Required, |at| at.value);
        let ends = self.ends(kind, protection, &span)?;
        let interface_kind = self.interface_kind(kind, &span)?;
        let bridge = bridge::port(interface_kind, self.bridge.as_ref(), self.split_horizon.as_ref(), &span)?;
        self.check_device(interface_kind, bridge.is_some())?;
        Ok(InterfaceSpec {
            bridge,
            mac: self.mac.as_ref().map(|at| at.value),
            netns: self.netns.as_ref().map(|at| at.value.clone()),
            host_link: self.host_link.as_ref().map(|at| at.value.clone()),
            addresses: self.addresses.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
            mtu: self.mtu.unwrap_or(Mtu::Automatic),
            ends,
            protection,
            next_hops: self.next_hops.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
            ..InterfaceSpec::new(name, interface_kind)
        })
    }

    /// Keys of a device are for interfaces that have one that is ours.
    fn check_device(&self, kind: InterfaceKind, is_bridged: bool) -> Result<(), Complaint> {
        let is_port_only = matches!(kind, InterfaceKind::Host | InterfaceKind::Memory { .. })
            || (is_bridged && kind != InterfaceKind::Tap);
        if let (Some(link), Some(_)) = (&self.host_link, &self.netns) {
            let complaint = Complaint::new(link.span.clone(), "`host_link` means nothing with `netns`");
            return Err(complaint.expected("expected one of them: the link is where the daemon is"));
        }
        let (key, span) = match (&self.addresses, &self.netns, &self.mac) {
            (Some(addresses), _, _) if is_port_only => ("addresses", addresses.span.clone()),
            (_, Some(netns), _) if is_port_only => ("netns", netns.span.clone()),
            (_, _, Some(mac)) if is_port_only || kind.layer() == Layer::Ip => ("mac", mac.span.clone()),
            _ => return Ok(()),
        };
        let complaint =
            Complaint::new(span, format!("`{key}` means nothing here: the interface has no Ethernet device of ours"));
        Err(complaint.expected("expected it at a `tap` interface of the bridge"))
    }

    /// No key may be without effect.
    fn check_keys(&self, kind: Kind) -> Result<(), Complaint> {
        fn at<T>(key: Option<&At<T>>) -> Option<Range<usize>> {
            key.map(|at| at.span.clone())
        }
        let tunnels = &[Kind::Ipip, Kind::Gre, Kind::Vxlan, Kind::L2tpv3][..];
        let keys = [
            ("local", at(self.local.as_ref()), tunnels),
            ("remote", at(self.remote.as_ref()), tunnels),
            ("protection", at(self.protection.as_ref()), tunnels),
            ("ttl", at(self.hop_limit.as_ref()), tunnels),
            ("dscp", at(self.dscp.as_ref()), tunnels),
            ("df", at(self.df.as_ref()), tunnels),
            ("next_hop", at(self.next_hops.as_ref()), &[Kind::Gre]),
            ("key", at(self.key.as_ref()), &[Kind::Gre]),
            ("checksum", at(self.checksum.as_ref()), &[Kind::Gre]),
            ("layer", at(self.layer.as_ref()), &[Kind::Gre]),
            ("sequence", at(self.sequence.as_ref()), &[Kind::Gre, Kind::L2tpv3]),
            ("vni", at(self.vni.as_ref()), &[Kind::Vxlan]),
            ("port", at(self.port.as_ref()), &[Kind::Vxlan, Kind::L2tpv3]),
            ("peer_port", at(self.peer_port.as_ref()), &[Kind::L2tpv3]),
            ("carrier", at(self.carrier.as_ref()), &[Kind::L2tpv3]),
            ("session", at(self.session.as_ref()), &[Kind::L2tpv3]),
            ("peer_session", at(self.peer_session.as_ref()), &[Kind::L2tpv3]),
            ("cookie", at(self.cookie.as_ref()), &[Kind::L2tpv3]),
            ("peer_cookie", at(self.peer_cookie.as_ref()), &[Kind::L2tpv3]),
            ("sublayer", at(self.sublayer.as_ref()), &[Kind::L2tpv3]),
            ("link", at(self.link.as_ref()), &[Kind::Memory]),
            ("host_link", at(self.host_link.as_ref()), &[Kind::Ipsec]),
        ];
        for (name, span, kinds) in keys {
            if let Some(span) = span.filter(|_| !kinds.contains(&kind)) {
                let words: Vec<_> = kinds.iter().map(|kind| kind.word()).collect();
                return Err(Complaint::new(span, format!("`{name}` means nothing for kind `{}`", kind.word()))
                    .expected(format!("it is for {}", words.join(", "))));
            }
        }
        let over_ip = self.carrier.as_ref().is_none_or(|carrier| carrier.value == Carrier::Ip);
        let ports = [("port", &self.port), ("peer_port", &self.peer_port)];
        match ports.into_iter().find_map(|(name, port)| Some((name, port.as_ref()?.span.clone()))) {
            Some((name, span)) if kind == Kind::L2tpv3 && over_ip => {
                Err(Complaint::new(span, format!("`{name}` means nothing over IP"))
                    .expected("expected carrier = \"udp\" with it"))
            }
            _ => Ok(()),
        }
    }

    fn ends(&self, kind: Kind, protection: Protection, span: &Range<usize>) -> Result<Option<TunnelEnds>, Complaint> {
        let is_multipoint = self.next_hops.as_ref().is_some_and(|hops| !hops.value.is_empty());
        let needed = match kind {
            Kind::Gre | Kind::Vxlan | Kind::L2tpv3 => true,
            Kind::Ipip => protection == Protection::None,
            Kind::Ipsec | Kind::Tap | Kind::Host | Kind::Memory => false,
        };
        let missing = |key: &str| {
            let message = format!("`{key}` is missing: a {} interface needs both ends of its tunnel", kind.word());
            Complaint::new(span.clone(), message).expected(format!("expected `{key}` with an IP address"))
        };
        let Some(local) = &self.local else {
            return match &self.remote {
                None if !needed => Ok(None),
                _ => Err(missing("local")),
            };
        };
        if self.remote.is_none() && !is_multipoint {
            return Err(missing("remote"));
        }
        if let (Some(hops), Some(_)) = (&self.next_hops, &self.remote) {
            return Err(Complaint::new(hops.span.clone(), "a tunnel has a remote end or next hops, not both"));
        }
        let remote = self.remote.iter().map(|remote| (remote.value, &remote.span));
        let hops = self.next_hops.iter().flat_map(|hops| hops.value.iter().map(|hop| (hop.remote, &hops.span)));
        if let Some((_, span)) = remote.chain(hops).find(|(remote, _)| remote.is_ipv4() != local.value.is_ipv4()) {
            return Err(Complaint::new(span.clone(), "the ends of the tunnel are of different families")
                .expected("expected IPv4 on both sides, or IPv6"));
        }
        let ends = TunnelEnds::new(local.value, self.remote.as_ref().map(|remote| remote.value));
        Ok(Some(TunnelEnds {
            hop_limit: self.hop_limit.as_ref().map_or(ends.hop_limit, |at| at.value),
            dscp: self.dscp.as_ref().map_or(ends.dscp, |at| at.value),
            df: self.df.as_ref().map_or(ends.df, |at| at.value),
            ..ends
        }))
    }

    fn interface_kind(&self, kind: Kind, span: &Range<usize>) -> Result<InterfaceKind, Complaint> {
        let missing = |key: &str, what: &str| {
            Complaint::new(span.clone(), format!("`{key}` is missing: a {} interface needs {what}", kind.word()))
        };
        let flag = |flag: &Option<At<bool>>| flag.as_ref().is_some_and(|at| at.value);
        Ok(match kind {
            Kind::Ipsec => InterfaceKind::Ipsec,
            Kind::Tap => InterfaceKind::Tap,
            Kind::Host => InterfaceKind::Host,
            Kind::Memory => InterfaceKind::Memory {
                link: self.link.as_ref().ok_or_else(|| missing("link", "the number of its link"))?.value,
            },
            Kind::Ipip => InterfaceKind::Ipip,
            Kind::Gre => InterfaceKind::Gre(Gre {
                key: self.key.as_ref().map(|at| at.value),
                checksum: flag(&self.checksum),
                sequence: flag(&self.sequence),
                layer: self.layer.as_ref().map_or(Layer::Ip, |at| at.value),
            }),
            Kind::Vxlan => InterfaceKind::Vxlan(Vxlan {
                vni: self.vni.as_ref().ok_or_else(|| missing("vni", "a network identifier"))?.value,
                port: self.port.as_ref().map_or(Vxlan::PORT, |at| at.value),
            }),
            Kind::L2tpv3 => {
                let port = |port: &Option<At<u16>>| port.as_ref().map_or(L2tpCarrier::PORT, |at| at.value);
                let sublayer = match (flag(&self.sequence), &self.sublayer) {
                    (true, Some(At { value: false, span })) => {
                        return Err(Complaint::new(span.clone(), "sequence numbers stand in the sublayer"));
                    }
                    (true, _) => L2tpSublayer::Sequenced,
                    (false, Some(At { value: true, .. })) => L2tpSublayer::Default,
                    (false, _) => L2tpSublayer::None,
                };
                InterfaceKind::L2tpv3(L2tpv3 {
                    session: self.session.as_ref().ok_or_else(|| missing("session", "two session ids"))?.value,
                    peer_session: self
                        .peer_session
                        .as_ref()
                        .ok_or_else(|| missing("peer_session", "two session ids"))?
                        .value,
                    cookie: self.cookie.as_ref().map(|at| at.value).unwrap_or_default(),
                    peer_cookie: self.peer_cookie.as_ref().map(|at| at.value).unwrap_or_default(),
                    carrier: match self.carrier.as_ref().map(|at| at.value) {
                        None | Some(Carrier::Ip) => L2tpCarrier::Ip,
                        Some(Carrier::Udp) => {
                            L2tpCarrier::Udp { local_port: port(&self.port), remote_port: port(&self.peer_port) }
                        }
                    },
                    sublayer,
                })
            }
        })
    }
}

/// That an interface's packets cannot be told from those of an earlier one.
pub(super) fn collision(new: &InterfaceSpec, span: Range<usize>, others: &Interfaces) -> Option<Complaint> {
    let has_its_link = |other: &&At<InterfaceSpec>| new.host_link.is_some() && other.value.host_link == new.host_link;
    if let (Some(link), Some(other)) = (&new.host_link, others.values().find(has_its_link)) {
        let message = format!("`host_link` of `{}` is `{link}` as well", other.value.name);
        return Some(Complaint::new(span, message).expected("expected each link at one interface"));
    }
    let other = others.values().find(|other| are_alike(&other.value, new))?;
    let message = format!("nobody can tell packets of `{}` from those of `{}`", new.name, other.value.name);
    Some(Complaint::new(span, message).expected("expected other ends, or another key, VNI or session"))
}

fn are_alike(one: &InterfaceSpec, other: &InterfaceSpec) -> bool {
    let ends = |spec: &InterfaceSpec| spec.ends.map(|ends| (ends.local, ends.remote));
    let same_kind = match (one.kind, other.kind) {
        (InterfaceKind::Gre(one), InterfaceKind::Gre(other)) => one.key == other.key,
        (InterfaceKind::Vxlan(one), InterfaceKind::Vxlan(other)) => (one.port, one.vni) == (other.port, other.vni),
        (InterfaceKind::L2tpv3(one), InterfaceKind::L2tpv3(other)) => one.session == other.session,
        (InterfaceKind::Ipip, InterfaceKind::Ipip) => {
            one.protection == Protection::None && other.protection == Protection::None
        }
        _ => false,
    };
    same_kind && ends(one) == ends(other)
}

/// The selectors of a child that protects the packets of a tunnel and does not say more: in transport mode those packets alone,
/// between `local` and `remote` if the ends do not say it; in tunnel mode everything, since the tunnel lets out nothing else.
/// `None` for interfaces whose children protect what comes from the inside.
pub(super) fn selectors(
    spec: &InterfaceSpec,
    mode: Mode,
    local: Option<IpAddr>,
    remote: Option<IpAddr>,
) -> Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)> {
    let protocol = match spec.kind {
        InterfaceKind::Gre(_) => tunnel_codec::gre::PROTOCOL,
        InterfaceKind::L2tpv3(L2tpv3 { carrier: L2tpCarrier::Ip, .. }) => tunnel_codec::l2tp::PROTOCOL,
        // The source port of VXLAN depends on the inner flow, so neither side can name one port.
        InterfaceKind::Vxlan(_) | InterfaceKind::L2tpv3(_) => tunnel_codec::udp::PROTOCOL,
        InterfaceKind::Ipsec
        | InterfaceKind::Ipip
        | InterfaceKind::Tap
        | InterfaceKind::Host
        | InterfaceKind::Memory { .. } => return None,
    };
    if mode == Mode::Tunnel {
        let any = || {
            vec![
                TrafficSelector::any_protocol(AddressRange::whole(true)),
                TrafficSelector::any_protocol(AddressRange::whole(false)),
            ]
        };
        return Some((any(), any()));
    }
    let ends = spec.ends?;
    let own =
        |address| vec![TrafficSelector { addresses: AddressRange::single(address), protocol, ports: PortRange::ANY }];
    Some((own(local.unwrap_or(ends.local)), own(ends.remote.or(remote)?)))
}
