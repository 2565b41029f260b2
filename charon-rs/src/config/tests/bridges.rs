//! Bridge domains and their ports.

use std::time::Duration;

use espdp_api::{BridgePort, BridgeSpec, Flood, InterfaceKind, Neighbour, StaticStation};

use super::*;

#[test]
fn a_bridge_learns_and_floods_unless_it_is_told_otherwise() {
    let loaded = good("[bridge.lan]");
    assert_eq!(loaded.bridges, [BridgeSpec::new("lan".to_owned().try_into().unwrap())]);
}

#[test]
fn a_bridge_has_what_its_keys_say() {
    let loaded = good(
        "[bridge.lan]\nlearning = false\nflood = \"groups\"\nage = \"10s\"\nlearn_neighbors = true\n\
         static = { \"02:00:5e:00:53:01\" = \"tap0\" }\n\
         neighbours = { \"10.9.0.2\" = \"02-00-5E-00-53-02\", \"fd09::2\" = \"02:00:5e:00:53:02\" }\n\
         [interface.tap0]\nbridge = \"lan\"\n",
    );
    let name = |text: &str| text.to_owned().try_into().unwrap();
    let (first, second) = ("02:00:5e:00:53:01".parse().unwrap(), "02:00:5e:00:53:02".parse().unwrap());
    let spec = BridgeSpec {
        learning: false,
        flood: Flood::Groups,
        age: Duration::from_secs(10),
        stations: vec![StaticStation { mac: first, interface: "tap0".to_owned().try_into().unwrap() }],
        neighbours: vec![
            Neighbour { address: [10, 9, 0, 2].into(), mac: second },
            Neighbour { address: "fd09::2".parse().unwrap(), mac: second },
        ],
        learn_neighbours: true,
        ..BridgeSpec::new(name("lan"))
    };
    assert_eq!(loaded.bridges, [spec]);
}

#[test]
fn ports_of_all_kinds_have_what_their_keys_say() {
    let ends = "local = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n";
    let loaded = good(&format!(
        "[bridge.lan]\n[interface.bvi0]\nbridge = \"lan\"\nmac = \"02:00:5e:00:53:01\"\naddress = \"10.9.0.1/24\"\n\
         [interface.eth1]\nkind = \"host\"\nbridge = \"lan\"\nsplit_horizon = 3\n\
         [interface.mem0]\nbridge = \"lan\"\nlink = 7\n\
         [interface.vxlan0]\nbridge = \"lan\"\nvni = 5\n{ends}\
         [interface.gre0]\nbridge = \"lan\"\nlayer = \"ethernet\"\nsplit_horizon = 0\n{ends}"
    ));
    let bridge: espdp_api::BridgeName = "lan".to_owned().try_into().unwrap();
    let port = |group| Some(BridgePort { bridge: bridge.clone(), split_horizon: group });
    let of = |name: &str| loaded.interfaces.iter().find(|spec| spec.name.as_str() == name).unwrap();
    assert_eq!((of("bvi0").kind, &of("bvi0").bridge), (InterfaceKind::Tap, &port(0)));
    assert_eq!(of("bvi0").mac, Some("02:00:5e:00:53:01".parse().unwrap()));
    assert_eq!(of("bvi0").addresses, ["10.9.0.1/24".parse().unwrap()]);
    assert_eq!((of("eth1").kind, &of("eth1").bridge), (InterfaceKind::Host, &port(3)));
    assert_eq!((of("mem0").kind, &of("mem0").bridge), (InterfaceKind::Memory { link: 7 }, &port(0)));
    assert_eq!((&of("vxlan0").bridge, &of("gre0").bridge), (&port(1), &port(0)));
}

#[test]
fn the_inside_of_an_interface_is_where_its_keys_say() {
    let spec = good("[interface.ipsec1]\nnetns = \"blue\"").interfaces.remove(0);
    assert_eq!(spec.netns.as_deref(), Some("blue"));
    let complaints =
        Folder::new("[bridge.lan]\n[interface.eth1]\nkind = \"host\"\nbridge = \"lan\"\nnetns = \"blue\"").complaints();
    assert!(complaints.contains("`netns` means nothing here"), "{complaints}");
}
