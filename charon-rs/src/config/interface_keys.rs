//! The keys of `[interface.NAME]`.

use std::net::IpAddr;

use espdp_api::{DfPolicy, DscpPolicy, InterfaceName, L2tpCookie, Layer, Mtu, NextHop, Protection, Vni};

use super::bridge;
use super::daemon::{port, prefixes};
use super::interface::{Carrier, InterfaceDraft, Kind};
use super::item::{At, Complaints, Item, collect};
use super::keys::Key;
use super::shape_keys::number_or;
use super::source::Complaint;

/// The keys of `[interface.NAME]`.
pub(super) const INTERFACE_KEYS: &[Key<InterfaceDraft>] = &[
    Key {
        name: "kind",
        also_called: &[],
        takes: "`ipsec`, `ipip`, `gre`, `vxlan`, `l2tpv3`, `tap`, `host` or `memory`",
        default: "what the name starts with",
        doc: "`ipsec`: packets go into tunnel-mode ESP as they are. `ipip`: they get an outer IP header first, which \
              transport-mode ESP then protects; tunnel mode gives the same on the wire. `gre`, `vxlan`, `l2tpv3`: they get the \
              headers of that tunnel, and what comes out is protected as the policies of the interface say. `tap`: an Ethernet device of the \
              kernel, with addresses the gateway's own place in a bridge. `host`: the link of this name that exists already. `memory`: one \
              end of a link within the process.",
        set: |draft, item| {
            draft.kind = Some(item.choice(Kind::WORDS)?);
            Ok(())
        },
    },
    Key {
        name: "addresses",
        also_called: &["address"],
        takes: "address/length, or a list",
        default: "none: an unnumbered interface",
        doc: "The addresses of the interface.",
        set: |draft, item| {
            draft.addresses = Some(item.at(prefixes(item, "an address with its length such as \"10.9.0.1/30\"")?));
            Ok(())
        },
    },
    Key {
        name: "mtu",
        also_called: &[],
        takes: "`auto` or octets",
        default: "\"auto\"",
        doc: "`auto` computes it from the cipher, the encapsulation and the MTU of the way to the peer, so that no packet is \
              fragmented.",
        set: |draft, item| {
            draft.mtu = Some(mtu(item)?);
            Ok(())
        },
    },
    Key {
        name: "bridge",
        also_called: &[],
        takes: "name of a `[bridge.NAME]`",
        default: "none; required for `tap`, `host` and `memory`",
        doc: "The bridge domain that the interface is a port of. A tunnel in a bridge has no device of its own.",
        set: |draft, item| {
            draft.bridge = Some(bridge::name(item)?);
            Ok(())
        },
    },
    Key {
        name: "split_horizon",
        also_called: &[],
        takes: "0 to 255",
        default: "1 for tunnels, 0 for others",
        doc: "Ports of the same group do not forward to each other, so that a full mesh of tunnels has no loop; 0 is no group.",
        set: |draft, item| {
            draft.split_horizon = Some(item.at(small(item, 0..=255)?));
            Ok(())
        },
    },
    Key {
        name: "mac",
        also_called: &[],
        takes: "MAC address",
        default: "a random one",
        doc: "The Ethernet address of the interface's device.",
        set: |draft, item| {
            draft.mac = Some(item.at(bridge::mac(item)?));
            Ok(())
        },
    },
    Key {
        name: "netns",
        also_called: &[],
        takes: "name of a network namespace",
        default: "the one that the daemon runs in",
        doc: "The namespace (`ip netns`) that the inside of the interface is in: its device, addresses and routes. What carries the \
              tunnel stays where the daemon is.",
        set: |draft, item| {
            draft.netns = Some(item.at(item.text("the name of a network namespace")?.as_str().to_owned()));
            Ok(())
        },
    },
    Key {
        name: "link",
        also_called: &[],
        takes: "number",
        default: "required for `memory`",
        doc: "`memory`: the number of the link; the two interfaces of the process with the same number are its ends.",
        set: |draft, item| {
            draft.link = Some(item.at(word(item, 0)?));
            Ok(())
        },
    },
    Key {
        name: "host_link",
        also_called: &[],
        takes: "name of an Ethernet link of the host",
        default: "none: all packets pass the host's network stack",
        doc: "`ipsec`: what policies of the interface cover is read from this link and written to it past the host's stack \
              (AF_PACKET), which is faster. Filters, translation and counters of the host do not see these packets. What the \
              stack knows better (packets for the gateway, of a default route, to neighbours that it has not found yet) stays with it.",
        set: |draft, item| {
            let text = item.text("the name of a link")?;
            let name = InterfaceName::new(text.as_str()).map_err(|error| text.complain(error.to_string()))?;
            draft.host_link = Some(item.at(name));
            Ok(())
        },
    },
    Key {
        name: "local",
        also_called: &[],
        takes: "address",
        default: "required for `gre`, `vxlan`, `l2tpv3`, and for `ipip` without protection",
        doc: "Our end of the tunnel: the source of its outer IP header.",
        set: |draft, item| {
            draft.local = Some(address(item)?);
            Ok(())
        },
    },
    Key {
        name: "remote",
        also_called: &[],
        takes: "address",
        default: "required as `local`, unless there are next hops",
        doc: "The peer's end of the tunnel, of the same family.",
        set: |draft, item| {
            draft.remote = Some(address(item)?);
            Ok(())
        },
    },
    Key {
        name: "next_hop",
        also_called: &[],
        takes: "`PREFIX via ADDRESS`, or a list",
        default: "none: the tunnel has one peer",
        doc: "Multipoint `gre`: which inner destinations are behind which peer. The longest prefix counts.",
        set: |draft, item| {
            draft.next_hops = Some(item.at(next_hops(item)?));
            Ok(())
        },
    },
    Key {
        name: "protection",
        also_called: &[],
        takes: "`required` or `none`",
        default: "\"required\"",
        doc: "`required`: the tunnel's packets travel in ESP or not at all, and what comes in clear is dropped. `none`: they leave \
              as they are, along the routes of this host, where the policies of other interfaces may still protect them.",
        set: |draft, item| {
            let words = [("required", Protection::Required), ("none", Protection::None)];
            draft.protection = Some(item.at(item.choice(&words)?));
            Ok(())
        },
    },
    Key {
        name: "ttl",
        also_called: &["hoplimit"],
        takes: "1 to 255",
        default: "64",
        doc: "Time to live of the tunnel's outer IP header.",
        set: |draft, item| {
            draft.hop_limit = Some(item.at(small(item, 1..=255)?));
            Ok(())
        },
    },
    Key {
        name: "dscp",
        also_called: &[],
        takes: "`copy`, or 0 to 63",
        default: "\"copy\"",
        doc: "DSCP of the tunnel's outer IP header: that of the inner packet, or always the same.",
        set: |draft, item| {
            let dscp = number_or(item, &[("copy", DscpPolicy::Copy)], 0..=63, |value| {
                DscpPolicy::Fixed(u8::try_from(value).unwrap_or(u8::MAX))
            })?;
            draft.dscp = Some(item.at(dscp));
            Ok(())
        },
    },
    Key {
        name: "df",
        also_called: &[],
        takes: "`copy`, `set` or `clear`",
        default: "\"set\"",
        doc: "Don't Fragment of the tunnel's outer IPv4 header. `set` fits the computed MTU.",
        set: |draft, item| {
            let words = [("copy", DfPolicy::Copy), ("set", DfPolicy::Set), ("clear", DfPolicy::Clear)];
            draft.df = Some(item.at(item.choice(&words)?));
            Ok(())
        },
    },
    Key {
        name: "key",
        also_called: &[],
        takes: "number up to 4294967295",
        default: "none",
        doc: "`gre`: the key, the same at both ends.",
        set: |draft, item| {
            draft.key = Some(item.at(word(item, 0)?));
            Ok(())
        },
    },
    Key {
        name: "checksum",
        also_called: &[],
        takes: "true or false",
        default: "false",
        doc: "`gre`: packets have a checksum, and are taken only with one.",
        set: |draft, item| {
            draft.checksum = Some(item.at(item.boolean()?));
            Ok(())
        },
    },
    Key {
        name: "sequence",
        also_called: &[],
        takes: "true or false",
        default: "false",
        doc: "`gre`, `l2tpv3`: packets have sequence numbers, and what was overtaken is dropped.",
        set: |draft, item| {
            draft.sequence = Some(item.at(item.boolean()?));
            Ok(())
        },
    },
    Key {
        name: "layer",
        also_called: &[],
        takes: "`ip` or `ethernet`",
        default: "\"ip\"",
        doc: "`gre`: whether it carries IP packets or Ethernet frames.",
        set: |draft, item| {
            draft.layer = Some(item.at(item.choice(&[("ip", Layer::Ip), ("ethernet", Layer::Ethernet)])?));
            Ok(())
        },
    },
    Key {
        name: "vni",
        also_called: &[],
        takes: "number up to 16777215",
        default: "required for `vxlan`",
        doc: "`vxlan`: the network identifier.",
        set: |draft, item| {
            let number = item.integer(0..=u64::from(Vni::MOST))?;
            let vni = u32::try_from(number).ok().and_then(|number| Vni::try_from(number).ok());
            draft.vni = Some(item.at(vni.ok_or_else(|| item.wrong_type("a VNI"))?));
            Ok(())
        },
    },
    Key {
        name: "port",
        also_called: &[],
        takes: "port",
        default: "4789 for `vxlan`, 1701 for `l2tpv3`",
        doc: "`vxlan`: the UDP port that both ends send to. `l2tpv3` over UDP: our port.",
        set: |draft, item| {
            draft.port = Some(item.at(port(item)?));
            Ok(())
        },
    },
    Key {
        name: "peer_port",
        also_called: &[],
        takes: "port",
        default: "1701",
        doc: "`l2tpv3` over UDP: the peer's port.",
        set: |draft, item| {
            draft.peer_port = Some(item.at(port(item)?));
            Ok(())
        },
    },
    Key {
        name: "carrier",
        also_called: &[],
        takes: "`ip` or `udp`",
        default: "\"ip\"",
        doc: "`l2tpv3`: whether it travels directly in IP or in UDP.",
        set: |draft, item| {
            draft.carrier = Some(item.at(item.choice(&[("ip", Carrier::Ip), ("udp", Carrier::Udp)])?));
            Ok(())
        },
    },
    Key {
        name: "session",
        also_called: &[],
        takes: "number from 1 to 4294967295",
        default: "required for `l2tpv3`",
        doc: "`l2tpv3`: our session id, which the peer writes.",
        set: |draft, item| {
            draft.session = Some(item.at(word(item, 1)?));
            Ok(())
        },
    },
    Key {
        name: "peer_session",
        also_called: &[],
        takes: "number from 1 to 4294967295",
        default: "required for `l2tpv3`",
        doc: "`l2tpv3`: the peer's session id, which we write.",
        set: |draft, item| {
            draft.peer_session = Some(item.at(word(item, 1)?));
            Ok(())
        },
    },
    Key {
        name: "cookie",
        also_called: &[],
        takes: "8 or 16 hexadecimal digits",
        default: "none",
        doc: "`l2tpv3`: our cookie, which must be in every packet of the peer.",
        set: |draft, item| {
            draft.cookie = Some(item.at(cookie(item)?));
            Ok(())
        },
    },
    Key {
        name: "peer_cookie",
        also_called: &[],
        takes: "8 or 16 hexadecimal digits",
        default: "none",
        doc: "`l2tpv3`: the peer's cookie, which we write.",
        set: |draft, item| {
            draft.peer_cookie = Some(item.at(cookie(item)?));
            Ok(())
        },
    },
    Key {
        name: "sublayer",
        also_called: &[],
        takes: "true or false",
        default: "false, or true with `sequence`",
        doc: "`l2tpv3`: packets have the default L2-specific sublayer, as both ends must agree on.",
        set: |draft, item| {
            draft.sublayer = Some(item.at(item.boolean()?));
            Ok(())
        },
    },
];

fn address(item: Item<'_>) -> Result<At<IpAddr>, Complaint> {
    let text = item.text("an IP address")?;
    let parsed: Result<IpAddr, _> = text.as_str().parse();
    parsed.map(|address| item.at(address)).map_err(|_| {
        text.complain(format!("`{}` is no IP address", text.as_str()))
            .expected("expected an address such as \"192.0.2.1\" or \"2001:db8::1\"")
    })
}

fn next_hops(item: Item<'_>) -> Result<Vec<NextHop>, Complaints> {
    const WANTED: &str = "an inner prefix and a peer such as \"10.2.0.0/16 via 192.0.2.2\"";
    collect(item.texts(WANTED)?.iter().map(|text| {
        let parts =
            text.as_str().split_once(" via ").map(|(inner, remote)| (inner.trim().parse(), remote.trim().parse()));
        match parts {
            Some((Ok(inner), Ok(remote))) => Ok(NextHop { inner, remote }),
            _ => {
                Err(text.complain(format!("`{}` is no next hop", text.as_str())).expected(format!("expected {WANTED}")))
            }
        }
    }))
}

fn small(item: Item<'_>, range: std::ops::RangeInclusive<u64>) -> Result<u8, Complaint> {
    u8::try_from(item.integer(range)?).map_err(|_| item.wrong_type("a small number"))
}

fn word(item: Item<'_>, least: u64) -> Result<u32, Complaint> {
    u32::try_from(item.integer(least..=u64::from(u32::MAX))?).map_err(|_| item.wrong_type("a number"))
}

fn cookie(item: Item<'_>) -> Result<L2tpCookie, Complaint> {
    let text = item.text("8 or 16 hexadecimal digits")?;
    let octets = base16ct::mixed::decode_vec(text.as_str()).ok();
    let cookie = octets.and_then(|octets| match octets.len() {
        4 => octets.try_into().ok().map(L2tpCookie::Four),
        8 => octets.try_into().ok().map(L2tpCookie::Eight),
        _ => None,
    });
    cookie.ok_or_else(|| text.complain("this is no cookie").expected("expected 8 or 16 hexadecimal digits"))
}

fn mtu(item: Item<'_>) -> Result<Mtu, Complaint> {
    /// RFC 791: what every IPv4 link carries at least; IPv6 is up from 1280.
    const LEAST: u64 = 576;
    match item.integer(LEAST..=u64::from(u16::MAX)) {
        Ok(octets) => Ok(Mtu::Fixed(u16::try_from(octets).map_err(|_| item.wrong_type("octets"))?)),
        Err(number) => match item.text("\"auto\" or a number of octets") {
            Ok(_) => item.choice(&[("auto", Mtu::Automatic)]),
            Err(_) => Err(number),
        },
    }
}
