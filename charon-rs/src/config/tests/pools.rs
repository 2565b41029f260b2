//! Virtual addresses: asking for them, and pools to give them from.

use std::net::IpAddr;

use ike_proto::wire::ConfigurationAttribute;

use super::*;

const CLIENT: &str = "[conn.rw]\nright = \"192.0.2.2\"\nleftauth = \"psk\"\nrightauth = \"psk\"\n";
const GATEWAY: &str = "[conn.rw]\nright = \"%any\"\nleftauth = \"psk\"\nrightauth = \"psk\"\nauto = \"add\"\n";

fn asked(line: &str, right: &str) -> Vec<IpAddr> {
    let text = format!("{CLIENT}auto = \"start\"\n{line}\n").replace("192.0.2.2", right);
    good(&text).connections[0].virtual_addresses.clone()
}

fn complaints(config: &str) -> String {
    Folder::new(config).complaints()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_client_asks_for_any_address_or_a_certain_one() {
    let any = "leftsourceip = \"%config\"";
    assert_eq!(asked(any, "192.0.2.2"), ips(&["0.0.0.0"]));
    assert_eq!(asked(any, "2001:db8::2"), ips(&["::"]));
    assert_eq!(asked("leftsourceip = [\"%config4\", \"%config6\"]", "192.0.2.2"), ips(&["0.0.0.0", "::"]));
    assert_eq!(asked("leftsourceip = \"10.3.0.7\"", "192.0.2.2"), ips(&["10.3.0.7"]));
    assert!(asked("", "192.0.2.2").is_empty());
    let wrong = complaints(&format!("{CLIENT}auto = \"start\"\nleftsourceip = \"%confg\"\n"));
    assert!(wrong.contains("`%confg` is no address"), "{wrong}");
}

#[test]
fn no_packet_can_wait_for_an_address_that_is_still_to_be_given() {
    let text = format!("{CLIENT}auto = \"route\"\nleftsourceip = \"%config\"\n");
    assert!(complaints(&text).contains("no packet can come from an address that is still to be given"));
    good(&format!("{text}leftsubnet = \"10.1.0.0/16\"\nrightsubnet = \"10.2.0.0/16\"\n"));
    let transport = format!("{CLIENT}auto = \"start\"\nleftsourceip = \"%config\"\ntype = \"transport\"\n");
    assert!(complaints(&transport).contains("transport mode has no virtual addresses"));
}

#[test]
fn a_gateway_gives_addresses_of_tables_and_of_what_is_written_down() {
    let text = format!(
        "{GATEWAY}rightsourceip = [\"%staff\", \"fec3::/120\"]\nrightdns = \"10.2.0.1\"\n\
         [pool.staff]\naddrs = \"10.3.0.0/24\"\ndns = [\"10.2.0.53\", \"fec2::53\"]\ndomain = \"corp.example\"\n\
         subnet = \"10.2.0.0/16\"\nnetmask = \"255.255.255.0\"\nnbns = \"10.2.0.54\"\ndhcp = \"10.2.0.55\"\n"
    );
    let loaded = good(&text);
    let connection = &loaded.connections[0];
    assert_eq!(connection.pools, ["staff", "fec3::/120"]);
    assert_eq!(connection.pool_attributes, [ConfigurationAttribute::Ip4Dns(Some([10, 2, 0, 1].into()))]);
    let names: Vec<(&str, u64, usize)> =
        loaded.pools.iter().map(|pool| (pool.name.as_str(), pool.size(), pool.attributes.len())).collect();
    assert_eq!(names, [("fec3::/120", 254, 0), ("staff", 254, 7)]);
}

#[test]
fn connections_that_write_the_same_down_share_the_pool() {
    let second = GATEWAY.replace("conn.rw", "conn.rx");
    let line = "rightsourceip = \"10.3.0.0/24\"\n";
    assert_eq!(good(&format!("{GATEWAY}{line}{second}{line}")).pools.len(), 1);
}

#[test]
fn pools_that_do_not_exist_overlap_or_are_empty_are_refused() {
    for (rest, expected) in [
        ("rightsourceip = \"%staf\"\n[pool.staff]\naddrs = \"10.3.0.0/24\"\n", "did you mean `staff`?"),
        ("rightsourceip = \"10.3.0.9\"\n[pool.staff]\naddrs = \"10.3.0.0/24\"\n", "also in pool `staff`"),
        ("[pool.a]\naddrs = \"10.3.0.0/24\"\n[pool.b]\naddrs = \"10.3.0.128/25\"\n", "also in pool `a`"),
        ("[pool.staff]\ndns = \"10.2.0.53\"\n", "the pool has no addresses"),
        ("[pool.staff]\naddrs = \"10.3.0.0/33\"\n", "expected a network such as 10.3.0.0/24"),
        ("[pool.staff]\naddrs = \"10.3.0.0/24\"\ndns = \"foo\"\n", "expected an address"),
        ("[pool.staff]\naddrs = \"10.3.0.0/24\"\ndnss = \"10.2.0.53\"\n", "did you mean `dns`?"),
        ("rightsourceip = \"%config\"\n", "`%config` is not supported"),
        ("rightsourceip = \"%dhcp\"\n", "`%dhcp` is not supported"),
    ] {
        let found = complaints(&format!("{GATEWAY}{rest}"));
        assert!(found.contains(expected), "{rest}: {found}");
    }
}
