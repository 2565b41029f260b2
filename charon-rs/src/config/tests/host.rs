//! The guard, translation, filters and routes.

use espdp_api::{GuardMode, NatAction};

use super::*;

fn host(text: &str) -> HostSpec {
    Folder::new(text).load().unwrap().host
}

#[test]
fn the_guard_is_always_there_unless_somebody_says_otherwise() {
    assert_eq!(host("").guard, GuardMode::Always);
    assert_eq!(host("[daemon]\nlog = \"info\"").guard, GuardMode::Always);
    assert_eq!(host("[daemon]\nguard = \"while-running\"").guard, GuardMode::WhileRunning);
    assert_eq!(host("[daemon]\nguard = \"off\"").guard, GuardMode::Off);
}

#[test]
fn translations_stand_in_the_order_of_the_file() {
    let nat = host(
        "[nat.web]\nin = \"wan0\"\nprotocol = \"tcp\"\nport = 8080\ndnat = \"10.1.0.10:80\"\n\
         [nat.a]\nout = [\"wan0\", \"wan1\"]\nsource = \"10.1.0.0/16\"\nsnat = \"masquerade\"\n\
         [nat.b]\nout = \"wan2\"\nsnat = \"192.0.2.9\"\n",
    )
    .nat;
    assert_eq!(nat.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["web", "a", "b"]);
    assert_eq!(nat[0].action, NatAction::Destination("10.1.0.10".parse().unwrap(), Some(80)));
    assert_eq!((&nat[0].packets.protocols[..], &nat[0].packets.ports[..]), (&[6][..], &[(8080, 8080)][..]));
    assert_eq!(nat[1].action, NatAction::Masquerade);
    assert_eq!(nat[1].packets.to_interfaces.len(), 2);
    assert_eq!(nat[1].packets.sources[0].to_string(), "10.1.0.0/16");
    assert_eq!(nat[2].action, NatAction::Source("192.0.2.9".parse().unwrap()));
}

#[test]
fn filters_accept_unless_they_drop() {
    let filter = host(
        "[filter.web]\nin = \"ipsec0\"\nprotocol = [\"tcp\", \"udp\"]\nport = [\"80\", \"1000-2000\"]\n\
         [filter.rest]\nin = \"ipsec0\"\naction = \"drop\"\nlog = true\n",
    )
    .filter;
    assert_eq!(filter.iter().map(|rule| (rule.accept, rule.log)).collect::<Vec<_>>(), [(true, false), (false, true)]);
    assert_eq!(filter[0].packets.protocols, [6, 17]);
    assert_eq!(filter[0].packets.ports, [(80, 80), (1000, 2000)]);
}

#[test]
fn routes_with_more_conditions_than_the_destination_steer() {
    let host = host(
        "[route.far]\ndestination = [\"10.9.1.0/16\", \"10.8.0.0/16\"]\nvia = \"10.1.0.7\"\nmetric = 20\ntable = 100\n\
         [route.voice]\nsource = \"10.1.0.0/24\"\nto = \"10.2.0.0/16\"\ndscp = \"ef\"\ninterface = \"ipsec1\"\n",
    );
    let far: Vec<String> =
        host.routes.iter().map(|route| format!("{} {} {}", route.destination, route.metric, route.table)).collect();
    assert_eq!(far, ["10.9.0.0/16 20 100", "10.8.0.0/16 20 100"]);
    let [voice] = &host.steering[..] else { panic!("{:?}", host.steering) };
    assert_eq!((voice.interface.as_str(), &voice.packets.dscp[..]), ("ipsec1", &[46][..]));
    assert_eq!(voice.packets.destinations[0].to_string(), "10.2.0.0/16");
}
