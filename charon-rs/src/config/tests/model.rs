//! What each key becomes in the model.

use std::collections::BTreeSet;
use std::time::Duration;

use espdp_api::{
    CryptoEngine, DfPolicy, DscpPolicy, FlowLabelPolicy, FragmentPolicy, HopLimitPolicy, InterfaceKind, IpsecProtocol,
    Mode, MssPolicy, Mtu, PacketShape, PaddingPolicy, PathMtuPolicy, PolicySpec, Routes, TrafficLimit,
};
use ike_proto::config::{
    Child, ChildSelector, Childless, CloseAction, Dpd, DpdAction, Fragmentation, Lifetime, LocalMethod, RemoteAddress,
    RemoteMethod, StartAction, UdpEncapsulation,
};
use ike_proto::identity::{Identity, IdentityPattern};
use ike_proto::proposal::{default_esp_proposals, default_ike_proposals};

use super::auth_keys::AUTH_KEYS;
use super::child_keys::CHILD_KEYS;
use super::conn_keys::CONN_KEYS;
use super::shape_keys::SHAPE_KEYS;
use super::*;

const MINIMAL: &str = "[conn.net]\nright = \"192.0.2.2\"\nauto = \"add\"\n";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The minimal connection with one more line.
fn with(line: &str) -> Connection {
    connection(&format!("[interface.ipip0]\n{MINIMAL}{line}\n"))
}

fn child_with(line: &str) -> Child {
    let mut connection = with(line);
    assert_eq!(connection.children.len(), 1);
    connection.children.remove(0)
}

fn printed<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[test]
fn a_connection_needs_only_a_peer() {
    let conn = connection(MINIMAL);
    assert_eq!((conn.name.as_str(), conn.local_port, conn.remote_port), ("net", 500, 500));
    assert!(conn.local_addresses.is_empty() && conn.local.identity.is_none() && conn.dpd.is_none());
    assert_eq!(conn.remote_addresses, [RemoteAddress::Address("192.0.2.2".parse().unwrap())]);
    assert_eq!(conn.remote.identity, IdentityPattern::Exactly(Identity::Ipv4("192.0.2.2".parse().unwrap())));
    assert_eq!((&conn.local.method, &conn.remote.method), (&LocalMethod::PreSharedKey, &RemoteMethod::PreSharedKey));
    assert_eq!(conn.ike_proposals, default_ike_proposals());
    let rekey_after = Some(secs(3 * 3600 - 540));
    assert_eq!(conn.ike_lifetime, Lifetime { rekey_after, jitter: secs(540), expire_after: Some(secs(3 * 3600)) });
    assert_eq!(conn.retransmission, defaults::RETRANSMISSION);
    assert_eq!(conn.encapsulation, UdpEncapsulation::Detect);
    let child = &conn.children[0];
    assert_eq!((child.name.as_str(), child.mode, child.start), ("net", Mode::Tunnel, StartAction::None));
    let host = vec![ChildSelector::HOST];
    assert_eq!((&child.local_selectors, &child.remote_selectors), (&host, &host));
    assert_eq!(child.esp_proposals, default_esp_proposals());
    assert_eq!(
        child.lifetime,
        Lifetime { rekey_after: Some(secs(3060)), jitter: secs(540), expire_after: Some(secs(3600)) }
    );
    assert_eq!((child.rekey_after_traffic, child.expire_after_traffic), Default::default());
    assert_eq!((child.replay_window, child.interface.as_str()), (1024, "ipsec0"));
    assert_eq!((child.routes.clone(), child.shape), (Routes::FromSelectors, PacketShape::default()));
}

/// Every default that the reference tells as a value is the one that is used.
#[test]
fn documented_defaults_are_the_real_ones() {
    let is_value = |default: &str| {
        default.starts_with('"') || default.parse::<f64>().is_ok() || matches!(default, "true" | "false")
    };
    let mut tested = 0;
    let of_conn = CONN_KEYS.iter().chain(AUTH_KEYS).map(|key| (key.name, key.default));
    let of_child = CHILD_KEYS.iter().map(|key| (key.name, key.default));
    let of_shape = SHAPE_KEYS.iter().map(|key| (key.name, key.default));
    for (name, default) in of_conn.chain(of_child).chain(of_shape) {
        if is_value(default) && name != "auto" {
            let explicit = with(&format!("{name} = {default}"));
            assert_eq!(format!("{explicit:?}"), format!("{:?}", with("")), "{name}");
            tested += 1;
        }
    }
    for key in DAEMON_KEYS.iter().filter(|key| is_value(key.default)) {
        let explicit = good(&format!("[daemon]\n{} = {}", key.name, key.default));
        assert_eq!(format!("{explicit:?}"), format!("{:?}", good("")), "{}", key.name);
        tested += 1;
    }
    assert!(tested > 25, "{tested}");
    assert!(good("[conn.net]\nright = \"192.0.2.2\"").connections.is_empty(), "auto is \"ignore\" by default");
}

#[test]
fn each_key_of_a_connection_has_its_effect() {
    assert_eq!(printed(&with("left = [\"192.0.2.1\", \"2001:db8::1\"]").local_addresses), ["192.0.2.1", "2001:db8::1"]);
    assert!(with("left = \"%defaultroute\"").local_addresses.is_empty());
    assert_eq!(with("leftid = \"@moon\"").local.identity, Some(Identity::Fqdn("moon".into())));
    assert_eq!(with("rightid = \"*.b.org\"").remote.identity, IdentityPattern::FqdnUnder("b.org".into()));
    assert_eq!(with("rightid = \"%any\"").remote.identity, IdentityPattern::Any);
    assert_eq!(with("leftauth = \"secret\"").local.method, LocalMethod::PreSharedKey);
    assert_eq!(with("rightauth = \"psk\"").remote.method, RemoteMethod::PreSharedKey);
    let ports = |text: &str| (with(text).local_port, with(text).remote_port);
    assert_eq!((ports("leftikeport = 4500"), ports("rightikeport = 502")), ((4500, 500), (4500, 502)));
    assert_eq!(ports("leftikeport = 500\nrightikeport = 502"), (500, 502));
    assert_eq!(
        printed(&with("ike = \"aes256gcm16-prfsha384-ecp384!\"").ike_proposals),
        ["aes256gcm16-prfsha384-ecp384"]
    );
    assert_eq!(with("ikelifetime = \"8h\"").ike_lifetime.expire_after, Some(secs(8 * 3600)));
    let clear = with("dpdaction = \"clear\"\ndpddelay = \"5s\"").dpd;
    assert_eq!(clear, Some(Dpd { delay: secs(5), action: DpdAction::Clear }));
    assert_eq!(with("dpdaction = \"hold\"").dpd, Some(Dpd { delay: secs(30), action: DpdAction::Hold }));
    assert_eq!(with("dpdaction = \"restart\"\ndpddelay = \"0s\"").dpd, None);
    let sent =
        with("retransmit_timeout = \"500ms\"\nretransmit_base = 2\nretransmit_tries = 3\nretransmit_limit = \"10s\"")
            .retransmission;
    assert_eq!((sent.first, sent.factor, sent.tries, sent.longest), (Duration::from_millis(500), 2.0, 3, secs(10)));
    assert_eq!(with("forceencaps = true").encapsulation, UdpEncapsulation::Force);
    assert_eq!(with("encapsulation = \"force\"").encapsulation, UdpEncapsulation::Force);
    assert_eq!(with("encapsulation = \"auto\"").encapsulation, UdpEncapsulation::Auto);
    assert_eq!(with("forceencaps = true\nencapsulation = \"refuse\"").encapsulation, UdpEncapsulation::Refuse);
    assert!(!with("mobike = false").mobike);
    assert_eq!(with("").childless, Childless::Allow);
    assert_eq!(with("childless = \"force\"").childless, Childless::Force);
    for (word, meaning) in [
        ("yes", Fragmentation::Offer),
        ("no", Fragmentation::Never),
        ("accept", Fragmentation::Accept),
        ("force", Fragmentation::Force),
    ] {
        assert_eq!(with(&format!("fragmentation = \"{word}\"")).fragmentation, meaning);
    }
    assert_eq!((with("").fragmentation, with("").fragment_size), (Fragmentation::Offer, 1280));
    assert_eq!(with("fragmentsize = 576").fragment_size, 576);
}

#[test]
fn each_key_of_a_child_has_its_effect() {
    let subnets =
        child_with("leftsubnet = \"10.1.0.0/16, 10.5.0.1-10.5.0.9\"\nrightsubnet = [\"10.2.0.0/16[tcp/443]\"]");
    assert_eq!(printed(&subnets.local_selectors), ["10.1.0.0/16", "10.5.0.1..10.5.0.9"]);
    assert_eq!(printed(&subnets.remote_selectors), ["10.2.0.0/16[tcp/443]"]);
    assert_eq!(child_with("leftsubnet = \"%dynamic\"").local_selectors, [ChildSelector::HOST]);
    let beside = child_with("leftsubnet = \"%dynamic[tcp/22], 10.1.0.0/16\"").local_selectors;
    assert_eq!(printed(&beside), ["dynamic[tcp/22]", "10.1.0.0/16"]);
    let narrowed = child_with("leftsubnet = [\"10.1.0.0/16\", \"10.2.0.0/16[udp]\"]\nleftprotoport = \"tcp/443\"");
    assert_eq!(printed(&narrowed.local_selectors), ["10.1.0.0/16[tcp/443]", "10.2.0.0/16[udp]"]);
    assert_eq!(printed(&child_with("rightprotoport = \"gre\"").remote_selectors), ["dynamic[gre]"]);
    assert_eq!(printed(&child_with("esp = \"aes256gcm16-esn\"").esp_proposals), ["aes256gcm16-esn"]);
    assert_eq!(printed(&child_with("esp = [\"aes256gcm16\", \"chacha20poly1305\"]").esp_proposals).len(), 2);
    let ah = child_with("ah = \"sha256-esn\"").esp_proposals;
    assert_eq!((printed(&ah), ah[0].protocol), (vec!["sha256-esn".to_owned()], IpsecProtocol::Ah));
    assert_eq!(child_with("type = \"transport\"").mode, Mode::Transport);
    assert_eq!(child_with("interface = \"ipip0\"").interface.as_str(), "ipip0");
    assert_eq!(child_with("routes = \"none\"").routes, Routes::Fixed(Vec::new()));
    assert_eq!(
        child_with("routes = [\"10.9.0.0/16\", \"0.0.0.0/0\"]").routes,
        Routes::Fixed(vec!["10.9.0.0/16".parse().unwrap(), "0.0.0.0/0".parse().unwrap()])
    );
    assert_eq!(child_with("replay_window = 64").replay_window, 64);
    assert_eq!((child_with("priority = 7").priority, child_with("").priority), (7, PolicySpec::DEFAULT_PRIORITY));
    assert!(child_with("later_fragments = true").later_fragments);
    assert!(child_with("per_resource_sas = true").per_resource && !child_with("").per_resource);
    assert_eq!(child_with("df = \"copy\"").shape.df, DfPolicy::Copy);
    assert_eq!(child_with("dscp = 46").shape.dscp, DscpPolicy::Fixed(46));
    let shape = |line: &str| child_with(line).shape;
    assert_eq!(
        (shape("ttl = \"copy\"").hop_limit, shape("hoplimit = 9").hop_limit),
        (HopLimitPolicy::Copy, HopLimitPolicy::Fixed(9))
    );
    assert_eq!(shape("flowlabel = \"hash\"").flow_label, FlowLabelPolicy::Hash);
    assert_eq!(
        (shape("tfc = \"mtu\"").padding, shape("tfc = 900").padding),
        (PaddingPolicy::ToPathMtu, PaddingPolicy::To(900))
    );
    assert_eq!(
        (shape("dummy = \"2s\"").dummy_interval, shape("dummy = \"none\"").dummy_interval),
        (Some(secs(2)), None)
    );
    assert_eq!((shape("mss = \"keep\"").mss, shape("mss = 1300").mss), (MssPolicy::Keep, MssPolicy::AtMost(1300)));
    assert_eq!(shape("fragment = \"after\"").fragment, FragmentPolicy::After);
    assert_eq!(
        (shape("pmtu = \"ignore\"").path_mtu, shape("pmtu = 1400").path_mtu),
        (PathMtuPolicy::Ignore, PathMtuPolicy::Fixed(1400))
    );
    let close = |word: &str| child_with(&format!("closeaction = \"{word}\"")).close;
    assert_eq!(["none", "hold", "restart"].map(close), [CloseAction::None, CloseAction::Trap, CloseAction::Start]);
    let of_child = |word: &str| {
        let text = format!("{MINIMAL}dpdaction = \"clear\"\n[conn.net.child.a]\ndpdaction = \"{word}\"\n");
        connection(&text).children[0].dpd
    };
    assert_eq!(["clear", "hold", "none"].map(of_child), [None, Some(DpdAction::Hold), Some(DpdAction::Clear)]);
    for (word, start) in [
        ("add", StartAction::None),
        ("route", StartAction::Trap),
        ("start", StartAction::Start),
        ("once", StartAction::Once { trap: false }),
        ("route+once", StartAction::Once { trap: true }),
    ] {
        assert_eq!(connection(&MINIMAL.replace("add", word)).children[0].start, start);
    }
}

/// ipsec.conf: rekey at lifetime - margintime * (1 + a random part of rekeyfuzz).
#[test]
fn lifetimes_follow_the_formula_of_ipsec_conf() {
    let life = |rekey, jitter, end| Lifetime {
        rekey_after: Some(secs(rekey)),
        jitter: secs(jitter),
        expire_after: Some(secs(end)),
    };
    assert_eq!(child_with("lifetime = \"10m\"").lifetime, life(510, 90, 600));
    assert_eq!(
        child_with("keylife = \"1h\"\nmargintime = \"5m\"\nrekeyfuzz = \"50%\"").lifetime,
        life(3300, 150, 3600)
    );
    assert_eq!(with("margintime = \"5m\"\nrekeyfuzz = \"0%\"").ike_lifetime, life(10500, 0, 10800));
    let never = Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after: Some(secs(3600)) };
    assert_eq!(child_with("rekey = false").lifetime, never);
}

#[test]
fn traffic_limits_have_a_margin() {
    let limit = |bytes, packets| TrafficLimit { bytes, packets };
    let child = child_with("lifebytes = \"10GB\"\nlifepackets = 1000");
    assert_eq!(child.expire_after_traffic, limit(Some(10_000_000_000), Some(1000)));
    assert_eq!(child.rekey_after_traffic, limit(Some(9_000_000_000), Some(900)));
    let child = child_with("lifebytes = \"1GiB\"\nmarginbytes = \"1MiB\"\nlifepackets = 1000\nmarginpackets = 1");
    assert_eq!(child.rekey_after_traffic, limit(Some((1 << 30) - (1 << 20)), Some(999)));
    assert_eq!(child_with("rekey = false\nlifepackets = 9").rekey_after_traffic, limit(None, None));
}

#[test]
fn peers_are_recognised_by_what_right_says() {
    let identity = |right: &str| connection(&format!("[conn.net]\nright = {right}\nauto = \"add\"")).remote.identity;
    assert_eq!(identity("\"2001:db8::2\"").to_string(), "2001:db8::2");
    assert_eq!(identity("\"gw.example.org\""), IdentityPattern::Exactly(Identity::Fqdn("gw.example.org".into())));
    for many in
        ["\"%any\"", "\"10.0.0.0/8\"", "\"10.0.0.1-10.0.0.9\"", "[\"10.0.0.1\", \"10.0.0.2\"]", "\"a.org, 10.0.0.1\""]
    {
        assert_eq!(identity(many), IdentityPattern::Any, "{many}");
    }
}

#[test]
fn what_a_connection_says_overrides_also_which_overrides_the_default() {
    let conn = connection(
        "[conn.\"%default\"]\nikelifetime = \"1h\"\ndpddelay = \"1s\"\nright = \"192.0.2.1\"\nleftikeport = 4500\ndpdaction = \"clear\"\n\
         [conn.deep]\nikelifetime = \"2h\"\ndpddelay = \"2s\"\nleftid = \"@deep\"\n\
         [conn.first]\nalso = \"deep\"\nikelifetime = \"3h\"\nrightid = \"@first\"\n\
         [conn.second]\nikelifetime = \"4h\"\n\
         [conn.net]\nauto = \"add\"\nalso = [\"first\", \"second\"]\nrightid = \"@own\"\n",
    );
    assert_eq!(conn.name, "net");
    assert_eq!(conn.ike_lifetime.expire_after, Some(secs(4 * 3600)), "the later of two in `also`");
    assert_eq!(conn.dpd.unwrap().delay, secs(2), "also of also");
    assert_eq!(conn.local.identity, Some(Identity::Fqdn("deep".into())));
    assert_eq!(conn.remote.identity, IdentityPattern::Exactly(Identity::Fqdn("own".into())));
    assert_eq!(conn.local_port, 4500, "from %default");
}

/// `also = "first"` brings what `%default` says only where neither of the two says more.
#[test]
fn the_default_never_overrides_what_also_brings() {
    let conn = connection(
        "[conn.base]\nikelifetime = \"2h\"\n[conn.net]\nalso = \"base\"\nright = \"192.0.2.1\"\nauto = \"add\"\n\
         [conn.\"%default\"]\nikelifetime = \"1h\"",
    );
    assert_eq!(conn.ike_lifetime.expire_after, Some(secs(2 * 3600)));
}

#[test]
fn children_inherit_from_their_connection() {
    let conn = connection(
        "[conn.net]\nright = \"192.0.2.1\"\nauto = \"add\"\nesp = \"aes128gcm16\"\nleftsubnet = \"10.1.0.0/16\"\n\
         [conn.net.child.voice]\nrightsubnet = \"10.3.0.0/16\"\ndscp = 46\n\
         [conn.net.child.data]\nrightsubnet = \"10.2.0.0/16\"\nesp = \"aes256gcm16\"\nauto = \"start\"\n\
         [conn.net.child.off]\nauto = \"ignore\"\n",
    );
    let names: Vec<&str> = conn.children.iter().map(|child| child.name.as_str()).collect();
    assert_eq!(names, ["voice", "data"], "in the order of the file");
    assert_eq!(printed(&conn.children[0].esp_proposals), ["aes128gcm16"]);
    assert_eq!(printed(&conn.children[1].esp_proposals), ["aes256gcm16"]);
    assert_eq!(printed(&conn.children[1].local_selectors), ["10.1.0.0/16"]);
    assert_eq!((conn.children[0].start, conn.children[1].start), (StartAction::None, StartAction::Start));
}

#[test]
fn connections_keep_the_order_of_the_file() {
    let text: String = ["z", "a", "m"].map(|name| MINIMAL.replace("net", name)).concat();
    assert_eq!(good(&text).connections.iter().map(|conn| conn.name.clone()).collect::<Vec<_>>(), ["z", "a", "m"]);
}

#[test]
fn interfaces_are_what_their_tables_say() {
    let loaded = good(
        "[interface.ipip0]\naddresses = [\"10.9.0.1/30\", \"fd00::1/64\"]\nmtu = 1400\n[interface.tun7]\nkind = \"ipsec\"\naddress = \"10.9.1.1\"",
    );
    let [ipip, tun] = loaded.interfaces.as_slice() else { panic!("{:?}", loaded.interfaces) };
    assert_eq!((ipip.name.as_str(), ipip.kind, ipip.mtu), ("ipip0", InterfaceKind::Ipip, Mtu::Fixed(1400)));
    assert_eq!(printed(&ipip.addresses), ["10.9.0.1/30", "fd00::1/64"]);
    assert_eq!((tun.name.as_str(), tun.kind, tun.mtu), ("tun7", InterfaceKind::Ipsec, Mtu::Automatic));
    assert_eq!(printed(&tun.addresses), ["10.9.1.1/32"]);
    assert_eq!(good(MINIMAL).interfaces, [defaults::interface_spec()], "ipsec0 needs no table");
    assert_eq!(good(&format!("[interface.ipsec0]\nmtu = 1300\n{MINIMAL}")).interfaces.len(), 1);
}

#[test]
fn each_key_of_the_daemon_has_its_effect() {
    let daemon = good(
        "[daemon]\nsocket = \"/run/vici\"\nlog = \"info,ike_proto=debug\"\nkeylog = \"/tmp/k\"\nike_port = 1500\nnat_port = 14500\n\
         crypto_engine = \"library\"\n\
         keep_alive = \"0s\"\nhalf_open_timeout = \"1s\"\ncookie_threshold = 0\nblock_threshold = 1\ninit_limit_half_open = 2\n\
         window_size = 7\nworkers = 3\ndrain_time = \"3s\"\nreconnect_first = \"4s\"\nreconnect_longest = \"5s\"",
    )
    .daemon;
    assert_eq!(daemon.socket.as_deref(), Some(Path::new("/run/vici")));
    assert_eq!(daemon.log.as_deref(), Some("info,ike_proto=debug"));
    assert_eq!(daemon.keylog.as_deref(), Some(Path::new("/tmp/k")));
    assert_eq!(daemon.crypto_engine, CryptoEngine::Library);
    let settings = daemon.settings;
    assert!(settings.export_keys);
    assert_eq!((settings.ike_port, settings.nat_port), (1500, 14500));
    assert_eq!((settings.window_size, settings.workers.count()), (7, 3));
    let cores = std::thread::available_parallelism().unwrap().get();
    let automatic = good("[daemon]\nworkers = \"auto\"").daemon.settings.workers;
    assert_eq!(usize::from(automatic.count()), cores.min(16));
    assert_eq!((settings.keepalive_interval, settings.half_open_timeout), (Duration::ZERO, secs(1)));
    assert_eq!((settings.cookie_threshold, settings.half_open_per_address, settings.half_open_limit), (0, 1, 2));
    assert_eq!(
        (settings.drain_time, settings.reconnect_first, settings.reconnect_longest),
        (secs(3), secs(4), secs(5))
    );
}

#[test]
fn a_connection_starts_from_the_daemons_port() {
    assert_eq!(connection(&format!("[daemon]\nike_port = 1500\n{MINIMAL}")).local_port, 1500);
}

#[test]
fn no_two_keys_share_a_name() {
    let all: Vec<&str> = names(CONN_KEYS)
        .chain(names(AUTH_KEYS))
        .chain(names(CHILD_KEYS))
        .chain(names(SHAPE_KEYS))
        .chain(conn_keys::FOREIGN_KEYS.iter().map(|key| key.name))
        .chain([connections::ALSO, connections::CHILD])
        .collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn an_ike_sa_is_made_anew_when_it_would_be_rekeyed_or_at_a_time_of_its_own() {
    let times = |line: &str| {
        let conn = with(line);
        (conn.reauth_after, conn.ike_lifetime.rekey_after)
    };
    let rekey = Some(secs(3 * 3600 - 540));
    assert_eq!(times("reauth = false"), (None, rekey));
    assert_eq!(times("reauth = true"), (rekey, None));
    assert_eq!(times("reauthtime = \"1h\""), (Some(secs(3600)), rekey));
    assert_eq!(times("reauth = true\nreauthtime = \"1h\""), (Some(secs(3600)), rekey));
}

#[test]
fn which_of_several_ike_sas_stay_is_said_in_the_words_of_ipsec_conf() {
    use ike_proto::config::Uniqueness;
    let values = [
        ("no", Uniqueness::No),
        ("never", Uniqueness::Never),
        ("yes", Uniqueness::Replace),
        ("replace", Uniqueness::Replace),
        ("keep", Uniqueness::Keep),
    ];
    assert_eq!(connection(MINIMAL).uniqueness, Uniqueness::No);
    for (value, uniqueness) in values {
        assert_eq!(with(&format!("uniqueids = \"{value}\"")).uniqueness, uniqueness);
    }
}
