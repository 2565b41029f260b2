//! Tunnels in `[interface.NAME]`, and what children bound to them protect.

use espdp_api::{
    DfPolicy, DscpPolicy, Gre, InterfaceKind, InterfaceSpec, L2tpCarrier, L2tpCookie, L2tpSublayer, L2tpv3, Layer,
    Mode, Protection, Routes, Vxlan,
};

use super::*;

const ENDS: &str = "local = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n";

fn interface(text: &str) -> InterfaceSpec {
    let mut interfaces = good(text).interfaces;
    assert_eq!(interfaces.len(), 1);
    interfaces.remove(0)
}

#[test]
fn a_gre_interface_has_what_its_keys_say() {
    let plain = interface(&format!("[interface.gre0]\n{ENDS}"));
    assert_eq!((plain.kind, plain.protection), (InterfaceKind::Gre(Gre::default()), Protection::Required));
    let ends = plain.ends.unwrap();
    assert_eq!((ends.local.to_string(), ends.remote.unwrap().to_string()), ("192.0.2.1".into(), "192.0.2.2".into()));
    assert_eq!((ends.hop_limit, ends.dscp, ends.df), (64, DscpPolicy::Copy, DfPolicy::Set));
    let full = interface(&format!(
        "[interface.tun1]\nkind = \"gre\"\n{ENDS}key = 0xff00ff00\nchecksum = true\nsequence = true\nlayer = \"ethernet\"\n\
         protection = \"none\"\nttl = 7\ndscp = 46\ndf = \"clear\"\nmtu = 1360"
    ));
    let gre = Gre { key: Some(0xff00_ff00), checksum: true, sequence: true, layer: Layer::Ethernet };
    assert_eq!((full.kind, full.protection), (InterfaceKind::Gre(gre), Protection::None));
    let ends = full.ends.unwrap();
    assert_eq!((ends.hop_limit, ends.dscp, ends.df), (7, DscpPolicy::Fixed(46), DfPolicy::Clear));
}

#[test]
fn multipoint_vxlan_and_l2tp_interfaces_have_what_their_keys_say() {
    let multipoint = interface(
        "[interface.gre0]\nlocal = \"192.0.2.1\"\nnext_hop = [\"10.2.0.0/16 via 192.0.2.2\", \"fd03::/16 via 192.0.2.3\"]",
    );
    let hops: Vec<_> = multipoint.next_hops.iter().map(|hop| (hop.inner.to_string(), hop.remote.to_string())).collect();
    assert_eq!(hops, [("10.2.0.0/16".into(), "192.0.2.2".into()), ("fd03::/16".into(), "192.0.2.3".into())]);
    assert_eq!(multipoint.ends.unwrap().remote, None);
    let vxlan = |port| InterfaceKind::Vxlan(Vxlan { vni: 42.try_into().unwrap(), port });
    assert_eq!(interface(&format!("[interface.vxlan0]\n{ENDS}vni = 42")).kind, vxlan(4789));
    assert_eq!(interface(&format!("[interface.vxlan0]\n{ENDS}vni = 42\nport = 8472")).kind, vxlan(8472));
    let l2tp = L2tpv3 {
        session: 7,
        peer_session: 9,
        cookie: L2tpCookie::None,
        peer_cookie: L2tpCookie::None,
        carrier: L2tpCarrier::Ip,
        sublayer: L2tpSublayer::None,
    };
    let with = |keys: &str| interface(&format!("[interface.l2tp0]\n{ENDS}session = 7\npeer_session = 9\n{keys}")).kind;
    assert_eq!(with(""), InterfaceKind::L2tpv3(l2tp));
    let full = "cookie = \"01020304\"\npeer_cookie = \"A1a2030405060708\"\ncarrier = \"udp\"\npeer_port = 1702\nsequence = true";
    assert_eq!(
        with(full),
        InterfaceKind::L2tpv3(L2tpv3 {
            cookie: L2tpCookie::Four([1, 2, 3, 4]),
            peer_cookie: L2tpCookie::Eight([0xa1, 0xa2, 3, 4, 5, 6, 7, 8]),
            carrier: L2tpCarrier::Udp { local_port: 1701, remote_port: 1702 },
            sublayer: L2tpSublayer::Sequenced,
            ..l2tp
        })
    );
    assert_eq!(with("sublayer = true"), InterfaceKind::L2tpv3(L2tpv3 { sublayer: L2tpSublayer::Default, ..l2tp }));
}

/// What is said about an interface table with these keys.
fn said(keys: &str) -> String {
    Folder::new(&format!("[interface.{keys}")).complaints()
}

#[test]
fn what_cannot_be_a_tunnel_is_refused_with_a_reason() {
    for (keys, reason) in [
        ("gre0]\nremote = \"192.0.2.2\"", "`local` is missing: a gre interface needs both ends"),
        ("gre0]\nlocal = \"192.0.2.2\"", "`remote` is missing: a gre interface needs both ends"),
        ("ipip0]\nprotection = \"none\"", "`local` is missing: a ipip interface needs both ends"),
        ("vxlan0]\nlocal = \"192.0.2.1\"\nremote = \"2001:db8::1\"\nvni = 1", "of different families"),
        ("gre0]\nlocal = \"192.0.2.1\"\nnext_hop = \"10.0.0.0/8 via ::1\"", "of different families"),
        (&format!("gre0]\n{ENDS}next_hop = \"10.0.0.0/8 via 192.0.2.3\""), "a remote end or next hops, not both"),
        (&format!("gre0]\n{ENDS}next_hop = \"10.0.0.0/8\""), "`10.0.0.0/8` is no next hop"),
        (&format!("vxlan0]\n{ENDS}"), "`vni` is missing"),
        (&format!("vxlan0]\n{ENDS}vni = 16777216"), "16777216 is out of range"),
        (&format!("vxlan0]\n{ENDS}vni = 1\nkey = 1"), "`key` means nothing for kind `vxlan`"),
        (&format!("gre0]\n{ENDS}vni = 1"), "`vni` means nothing for kind `gre`"),
        ("ipsec0]\nlocal = \"192.0.2.1\"", "`local` means nothing for kind `ipsec`"),
        (&format!("l2tp0]\n{ENDS}session = 1"), "`peer_session` is missing"),
        (&format!("l2tp0]\n{ENDS}session = 0\npeer_session = 1"), "0 is out of range"),
        (&format!("l2tp0]\n{ENDS}session = 1\npeer_session = 1\ncookie = \"123\""), "this is no cookie"),
        (&format!("l2tp0]\n{ENDS}session = 1\npeer_session = 1\nport = 5"), "`port` means nothing over IP"),
        (
            &format!("l2tp0]\n{ENDS}session = 1\npeer_session = 1\nsequence = true\nsublayer = false"),
            "stand in the sublayer",
        ),
        (&format!("gre0]\n{ENDS}ttl = 0"), "0 is out of range"),
    ] {
        let said = said(keys);
        assert!(said.contains(reason), "{keys}: {said}");
    }
}

#[test]
fn a_link_past_the_stack_is_for_one_interface_of_ipsec() {
    let with = interface("[interface.ipsec0]\nhost_link = \"eth1\"");
    assert_eq!(with.host_link.map(|name| name.to_string()), Some("eth1".to_owned()));
    for (text, reason) in [
        (format!("[interface.gre0]\n{ENDS}host_link = \"eth1\""), "`host_link` means nothing for kind `gre`"),
        ("[interface.ipsec0]\nhost_link = \"eth1\"\nnetns = \"blue\"".to_owned(), "means nothing with `netns`"),
        ("[interface.ipsec0]\nhost_link = \"a name too long for Linux\"".to_owned(), "host_link"),
        (
            "[interface.ipsec0]\nhost_link = \"eth1\"\n[interface.ipsec1]\nhost_link = \"eth1\"".to_owned(),
            "`host_link` of `ipsec0` is `eth1` as well",
        ),
    ] {
        let complaints = Folder::new(&text).complaints();
        assert!(complaints.contains(reason), "{text}: {complaints}");
    }
}

#[test]
fn tunnels_that_nobody_could_tell_apart_are_refused() {
    let two = |more: &str| Folder::new(&format!("[interface.gre0]\n{ENDS}[interface.gre1]\n{ENDS}{more}")).complaints();
    assert!(two("").contains("nobody can tell packets of `gre1` from those of `gre0`"), "{}", two(""));
    assert_eq!(two("key = 1"), "");
}

/// The selectors of the one child, ours and the peer's, and its routes.
fn child(interface: &str, conn: &str) -> (Vec<String>, Vec<String>, Routes) {
    let name = interface.split(']').next().unwrap();
    let text = format!(
        "[interface.{interface}\n{ENDS}[conn.a]\nright = \"192.0.2.2\"\nauto = \"add\"\ninterface = \"{name}\"\n{conn}"
    );
    let child = connection(&text).children.remove(0);
    let texts = |selectors: &[ike_proto::config::ChildSelector]| selectors.iter().map(ToString::to_string).collect();
    assert_eq!(child.mode == Mode::Transport, conn.contains("transport"));
    (texts(&child.local_selectors), texts(&child.remote_selectors), child.routes)
}

#[test]
fn children_of_a_tunnel_protect_its_packets_and_install_no_routes() {
    let none = Routes::Fixed(Vec::new());
    let (ours, theirs, routes) = child("gre0]", "type = \"transport\"");
    assert_eq!((ours.join(" "), theirs.join(" ")), ("192.0.2.1/32[gre]".into(), "192.0.2.2/32[gre]".into()));
    assert_eq!(routes, none);
    let (ours, theirs, _) = child("vxlan0]\nvni = 1", "type = \"transport\"");
    assert_eq!((ours.join(" "), theirs.join(" ")), ("192.0.2.1/32[udp]".into(), "192.0.2.2/32[udp]".into()));
    let (ours, _, _) = child("l2tp0]\nsession = 1\npeer_session = 2", "type = \"transport\"");
    assert_eq!(ours.join(" "), "192.0.2.1/32[115]");
    let (ours, theirs, routes) = child("gre0]", "");
    assert_eq!((ours.join(" "), theirs.join(" ")), ("0.0.0.0/0 ::/0".into(), "0.0.0.0/0 ::/0".into()));
    assert_eq!(routes, none);
    let (ours, theirs, _) = child("gre0]", "leftsubnet = \"192.0.2.0/24\"\ntype = \"transport\"");
    assert_eq!((ours.join(" "), theirs.join(" ")), ("192.0.2.0/24".into(), "192.0.2.2/32[gre]".into()));
    let (ours, theirs, routes) = child("ipip0]", "");
    assert_eq!((ours.join(" "), theirs.join(" ")), ("dynamic".into(), "dynamic".into()));
    assert_eq!(routes, Routes::FromSelectors);
}
