//! Ethernet segments over tunnels between two of our gateways: bridge domains, VXLAN, GRE and L2TPv3 with frames inside, protected
//! and plain. Needs root.

use anyhow::{Result, ensure};
use e2e::SECRETS;
use harness::{Capture, Gateway, Site, World, expect_silence, ping, tcp_transfer, tshark};
use tempfile::TempDir;

/// The hosts' addresses on the common segment, and those of the gateways.
const ALICE: &str = "10.9.0.10";
const BOB: &str = "10.9.0.20";
const BVI: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
/// The stations of the gateways.
const MAC: [&str; 2] = ["02:00:5e:00:53:01", "02:00:5e:00:53:02"];

/// Two gateways with the same configuration seen from both sides.
struct Segment {
    world: World,
    folder: TempDir,
    moon: Gateway,
    sun: Gateway,
}

impl Segment {
    /// Starts both; `config` gives the configuration of a side (0 is moon) with its outer address and the other's.
    fn start(config: impl Fn(usize, &str, &str) -> String) -> Result<Self> {
        let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
        for (host, address) in [("alice", ALICE), ("bob", BOB)] {
            // Otherwise it gives up after having asked three times for the address of a station that is not there yet, and drops
            // what is for it for as long as it has given up.
            let ask_on = "echo 100 > /proc/sys/net/ipv4/neigh/eth0/mcast_solicit";
            let address = format!("ip address add {address}/24 dev eth0 && ip link set eth0 mtu 1400");
            world.sh(host, &format!("{ask_on} && {address}"))?;
        }
        let (here, there) = (Site::MOON.outer4, Site::SUN.outer4);
        let sun = Gateway::start(&world, "sun", folder.path(), &config(1, there, here), SECRETS)?;
        let moon = Gateway::start(&world, "moon", folder.path(), &config(0, here, there), SECRETS)?;
        Ok(Self { world, folder, moon, sun })
    }

    fn expect_ping(&self, from: &str, to: &str) -> Result<()> {
        let result = ping(&self.world, from, to, 3)?;
        ensure!(
            result.lossless(),
            "{from} to {to}: {result:?}\n--- moon\n{}\n--- sun\n{}",
            self.moon.expect_ctl(&["stats"]).unwrap_or_default() + &self.moon.log(),
            self.sun.expect_ctl(&["stats"]).unwrap_or_default() + &self.sun.log()
        );
        Ok(())
    }
}

/// A connection in transport mode that protects the tunnel `interface`.
fn connection(interface: &str, side: usize, here: &str, there: &str) -> String {
    let [id, peer] = if side == 0 { ["moon", "sun"] } else { ["sun", "moon"] };
    format!(
        "[conn.net]\nleft = \"{here}\"\nleftid = \"{id}.example.org\"\nright = \"{there}\"\nrightid = \"{peer}.example.org\"\n\
         ike = \"aes256gcm16-prfsha256-x25519\"\nesp = \"aes256gcm16-esn\"\ninterface = \"{interface}\"\n\
         type = \"transport\"\nauto = \"add\"\n"
    )
}

/// A gateway's own place on the segment, and the host behind it.
fn members(side: usize) -> String {
    format!(
        "[interface.bvi0]\nbridge = \"lan\"\naddress = \"{}/24\"\nmac = \"{}\"\nmtu = 1400\n\
         [interface.lan0]\nkind = \"host\"\nbridge = \"lan\"\n",
        BVI[side], MAC[side]
    )
}

fn vxlan(here: &str, there: &str, more: &str) -> String {
    format!("[interface.vxlan0]\nlocal = \"{here}\"\nremote = \"{there}\"\nvni = 4242\nbridge = \"lan\"\n{more}")
}

/// Item by item: hosts of both sites and both gateways are on one segment, all of it in ESP; and none of it passes before.
#[test]
fn a_segment_over_vxlan_is_encrypted_and_learns_floods_and_answers() -> Result<()> {
    let segment = Segment::start(|side, here, there| {
        "[bridge.lan]\nlearn_neighbours = true\n".to_owned()
            + &vxlan(here, there, "")
            + &members(side)
            + &connection("vxlan0", side, here, there)
    })?;
    let capture = Capture::start(&segment.world, "moon", segment.folder.path())?;
    expect_silence(&segment.world, "alice", BOB)?;
    segment.moon.expect_ctl(&["up", "net"])?;
    segment.expect_ping("alice", BOB)?;
    segment.expect_ping("bob", ALICE)?;
    segment.expect_ping("alice", BVI[1])?;
    segment.expect_ping("moon", BVI[1])?;
    tcp_transfer(&segment.world, "bob", "alice", ALICE, 4 << 20)?;
    let capture = capture.stop()?;
    let esp = tshark(&capture, None, "esp", &["ip.src"])?;
    ensure!(esp.len() > 100, "only {} ESP packets", esp.len());
    for clear in ["vxlan", "udp.port == 4789", "ip.addr == 10.9.0.0/24", "arp.src.proto_ipv4 == 10.9.0.0/24"] {
        let leaked = tshark(&capture, None, clear, &["frame.number"])?;
        ensure!(leaked.is_empty(), "{clear}: {leaked:?}");
    }
    Ok(())
}

/// The kernel's VXLAN device and bridge at the other end, in clear: VNI, flooding, learning and ARP suppression are seen on the wire.
#[test]
fn a_plain_segment_is_understood_by_the_kernels_vxlan() -> Result<()> {
    let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
    let (here, there) = (Site::MOON.outer4, Site::SUN.outer4);
    world.sh("alice", &format!("ip address add {ALICE}/24 dev eth0 && ip link set eth0 mtu 1400"))?;
    world.sh("bob", &format!("ip address add {BOB}/24 dev eth0 && ip link set eth0 mtu 1400"))?;
    world.sh(
        "sun",
        &format!(
            "ip link add br0 type bridge && ip link set br0 up \
             && ip link add vx0 type vxlan id 4242 local {there} remote {here} dstport 4789 \
             && ip link set vx0 master br0 up && ip address flush dev lan0 && ip link set lan0 master br0"
        ),
    )?;
    let bob = world.sh("bob", "ip -brief link show eth0 | awk '{ print $3 }'")?;
    let config = format!("[bridge.lan]\nneighbours = {{ \"{BOB}\" = \"{}\" }}\n", bob.trim())
        + &vxlan(here, there, "protection = \"none\"\n")
        + &members(0);
    let capture = Capture::start(&world, "moon", folder.path())?;
    let moon = Gateway::start(&world, "moon", folder.path(), &config, SECRETS)?;
    for (from, to) in [("alice", BOB), ("bob", ALICE), ("bob", BVI[0])] {
        let result = ping(&world, from, to, 3)?;
        ensure!(result.lossless(), "{from} to {to}: {result:?}\n{}", moon.log());
    }
    // No TCP: over veth the kernel leaves the inner checksum to a network card that there is not.
    world.sh("alice", &format!("ping -n -c 3 -i 0.2 -s 1300 {BOB}"))?;
    let capture = capture.stop()?;
    let frames = tshark(&capture, None, "vxlan && icmp", &["vxlan.vni", "udp.dstport"])?;
    ensure!(frames.len() >= 18, "only {} frames", frames.len());
    ensure!(frames.iter().all(|row| row == &["4242", "4789"]), "{frames:?}");
    // What is asked for a known neighbour is answered at the port; what nobody knows crosses.
    let asked = tshark(
        &capture,
        None,
        &format!("vxlan && arp.opcode == 1 && arp.dst.proto_ipv4 == {BOB}"),
        &["arp.src.proto_ipv4"],
    )?;
    ensure!(asked.is_empty(), "{asked:?}");
    let others = tshark(&capture, None, "vxlan && arp.opcode == 1", &["arp.dst.proto_ipv4"])?;
    ensure!(!others.is_empty(), "bob's own questions cross");
    Ok(())
}

/// Frames in GRE, ESP in transport mode around it, VXLAN outside; both domains with static neighbours and without learning.
///
/// ```text
///  10.9.0.x   inner0 (TAP) ─ [lan] ─ gre0 ─ GRE ─ ESP ┐
///  10.8.0.x   bvi0 (TAP) ────────── [under] ◀─────────┘ ─ vxlan0 ─ VXLAN ─ 192.168.0.x
/// ```
#[test]
fn gre_over_ipsec_over_vxlan_carries_frames_with_static_neighbours_only() -> Result<()> {
    let under = ["10.8.0.1", "10.8.0.2"];
    let under_mac = ["02:00:5e:00:54:01", "02:00:5e:00:54:02"];
    let segment = Segment::start(|side, here, there| {
        let other = 1 - side;
        let domain = |name: &str, own: &str, tunnel: &str, mac: [&str; 2], address: [&str; 2]| {
            format!(
                "[bridge.{name}]\nlearning = false\nflood = \"none\"\n\
                 static = {{ \"{}\" = \"{own}\", \"{}\" = \"{tunnel}\" }}\nneighbours = {{ \"{}\" = \"{}\" }}\n",
                mac[side], mac[other], address[other], mac[other]
            )
        };
        let tap = |name: &str, bridge: &str, address: &str, mac: &str, mtu: u16| {
            format!(
                "[interface.{name}]\nkind = \"tap\"\nbridge = \"{bridge}\"\naddress = \"{address}/24\"\nmac = \"{mac}\"\nmtu = {mtu}\n"
            )
        };
        domain("lan", "inner0", "gre0", MAC, BVI)
            + &domain("under", "bvi0", "vxlan0", under_mac, under)
            + &tap("inner0", "lan", BVI[side], MAC[side], 1360)
            + &tap("bvi0", "under", under[side], under_mac[side], 1450)
            + &format!(
                "[interface.vxlan0]\nlocal = \"{here}\"\nremote = \"{there}\"\nvni = 9\nbridge = \"under\"\nprotection = \"none\"\n\
                 [interface.gre0]\nlocal = \"{}\"\nremote = \"{}\"\nlayer = \"ethernet\"\nbridge = \"lan\"\n",
                under[side], under[other]
            )
            + &connection("gre0", side, under[side], under[other])
    })?;
    let capture = Capture::start(&segment.world, "moon", segment.folder.path())?;
    segment.moon.expect_ctl(&["up", "net"])?;
    segment.expect_ping("moon", BVI[1])?;
    segment.expect_ping("sun", BVI[0])?;
    tcp_transfer(&segment.world, "moon", "sun", BVI[1], 2 << 20)?;
    let capture = capture.stop()?;
    let esp = tshark(&capture, None, "vxlan && esp", &["vxlan.vni"])?;
    ensure!(esp.len() > 100 && esp.iter().all(|row| row == &["9"]), "{} packets: {:?}", esp.len(), esp.first());
    // Nothing else is on the wire: no ESP outside of VXLAN, no GRE, nothing of the inside, and no question for an address.
    let outer = format!("!(vxlan) && (esp || gre || ip.addr == {} || ip.addr == {})", under[0], BVI[0]);
    for clear in [outer.as_str(), "gre", "ip.addr == 10.9.0.0/24", "vxlan && arp"] {
        let leaked = tshark(&capture, None, clear, &["frame.number"])?;
        ensure!(leaked.is_empty(), "{clear}: {leaked:?}");
    }
    let fragments = tshark(&capture, None, "ip.flags.mf == 1 || ip.frag_offset > 0", &["frame.number"])?;
    ensure!(fragments.is_empty(), "1360 octets inside fit without fragments: {fragments:?}");
    Ok(())
}

/// A pseudo-wire of L2TPv3 between the two sites, in ESP.
#[test]
fn a_pseudo_wire_of_l2tpv3_is_a_port_of_a_bridge() -> Result<()> {
    let segment = Segment::start(|side, here, there| {
        format!(
            "[bridge.lan]\n[interface.l2tp0]\nlocal = \"{here}\"\nremote = \"{there}\"\nsession = {}\npeer_session = {}\n\
             cookie = \"0102030{}\"\npeer_cookie = \"0102030{}\"\nbridge = \"lan\"\n",
            7 + side,
            8 - side,
            side,
            1 - side
        ) + &members(side)
            + &connection("l2tp0", side, here, there)
    })?;
    let capture = Capture::start(&segment.world, "moon", segment.folder.path())?;
    segment.moon.expect_ctl(&["up", "net"])?;
    segment.expect_ping("alice", BOB)?;
    segment.expect_ping("sun", ALICE)?;
    let capture = capture.stop()?;
    let esp = tshark(&capture, None, "esp", &["ip.src"])?;
    ensure!(esp.len() >= 12, "only {} ESP packets", esp.len());
    let leaked = tshark(&capture, None, "ip.proto == 115 || ip.addr == 10.9.0.0/24", &["frame.number"])?;
    ensure!(leaked.is_empty(), "{leaked:?}");
    Ok(())
}

/// The inside of a tunnel in a namespace of its own: nothing of it is in that of the gateway.
#[test]
fn the_inside_of_a_tunnel_is_in_the_namespace_that_its_interface_names() -> Result<()> {
    let name = format!("charon-rs-e2e-{}", std::process::id());
    let made = std::process::Command::new("ip").args(["netns", "add", &name]).output()?;
    ensure!(made.status.success(), "{made:?}");
    let segment = Segment::start(|side, here, there| {
        let netns = if side == 0 { format!("netns = \"{name}\"\n") } else { String::new() };
        let (own, other) = (BVI[side], BVI[1 - side]);
        format!("[interface.ipsec0]\naddress = \"{own}/32\"\n{netns}")
            + &connection("ipsec0", side, here, there).replace("transport", "tunnel")
            + &format!("leftsubnet = \"{own}/32\"\nrightsubnet = \"{other}/32\"\n")
    });
    let checked = segment.and_then(|segment| {
        segment.moon.expect_ctl(&["up", "net"])?;
        segment.expect_ping("sun", BVI[0])?;
        let links = segment.world.sh("moon", "ip -o link")?;
        ensure!(!links.contains("ipsec0"), "{links}");
        Ok(())
    });
    let removed = std::process::Command::new("ip").args(["netns", "delete", &name]).output()?;
    ensure!(removed.status.success(), "{removed:?}");
    checked
}
