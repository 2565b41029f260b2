//! What configurations may say beyond the plain case: selectors, identities, keys and proposals, in both roles. Needs
//! root and strongSwan.

use anyhow::{Context, Result, ensure};
use harness::{Charon, Gateway, StrongSwan, World, ping, wait_until};
use interop::{Case, LIMIT, Pair};

/// A tunnel between the two sites with everything spelled out.
#[derive(Clone, Copy, Debug)]
struct Tunnel<'a> {
    /// Our `leftid` and `rightid`.
    our_ids: [&'a str; 2],
    /// strongSwan's `id` in `local` and `remote`.
    their_ids: [&'a str; 2],
    /// Our `leftsubnet` and `rightsubnet`, as TOML.
    our_subnets: [&'a str; 2],
    /// strongSwan's `local_ts` and `remote_ts`.
    their_subnets: [&'a str; 2],
    /// Our secret, as TOML, and strongSwan's.
    keys: [&'a str; 2],
}

const PLAIN: Tunnel<'_> = Tunnel {
    our_ids: ["moon.example.org", "sun.example.org"],
    their_ids: ["sun.example.org", "moon.example.org"],
    our_subnets: ["\"10.1.0.0/16\"", "\"10.2.0.0/16\""],
    their_subnets: ["10.2.0.0/16", "10.1.0.0/16"],
    keys: ["\"a key\"", "\"a key\""],
};

impl Tunnel<'_> {
    fn start(&self, world: &World, folder: &std::path::Path) -> Result<(Gateway, StrongSwan)> {
        let ([left_id, right_id], [local_id, remote_id]) = (self.our_ids, self.their_ids);
        let ([left, right], [local, remote]) = (self.our_subnets, self.their_subnets);
        let [our_key, their_key] = self.keys;
        let toml = format!(
            "[conn.net]\nleft = \"192.168.0.1\"\nright = \"192.168.0.2\"\nleftid = '{left_id}'\nrightid = '{right_id}'\n\
             leftsubnet = {left}\nrightsubnet = {right}\nike = \"aes128gcm16-prfsha256-x25519\"\nesp = \"aes128gcm16\"\n\
             auto = \"add\"\n"
        );
        let secrets = format!("[secret.net]\npsk = {our_key}\n");
        let swanctl = format!(
            "connections {{\n net {{\n  version = 2\n  local_addrs = 192.168.0.2\n  remote_addrs = 192.168.0.1\n\
             proposals = aes128gcm16-prfsha256-x25519\n  local {{\n   auth = psk\n   id = {local_id}\n  }}\n\
             remote {{\n   auth = psk\n   id = {remote_id}\n  }}\n  children {{\n   net {{\n    local_ts = {local}\n\
             remote_ts = {remote}\n    esp_proposals = aes128gcm16\n   }}\n  }}\n }}\n}}\n\
             secrets {{\n ike-net {{\n  secret = {their_key}\n }}\n}}\n"
        );
        let theirs = StrongSwan::start(world, "sun", folder, Charon::default(), &swanctl)?;
        let ours = Gateway::start(world, "moon", folder, &toml, &secrets)?;
        Ok((ours, theirs))
    }

    /// Brings it up from both ends in turn and wants an answer to every ping.
    fn expect(&self, what: &str, pings: &[Pairing<'_>]) -> Result<()> {
        let (world, folder) = (World::two_sites()?, tempfile::tempdir()?);
        let (ours, theirs) = self.start(&world, folder.path()).context(what.to_owned())?;
        for we_initiate in [true, false] {
            let role = if we_initiate { "we initiate" } else { "we respond" };
            if we_initiate {
                ours.expect_ctl(&["up", "net"]).map(drop)
            } else {
                theirs.swanctl(&["--initiate", "--child", "net"]).map(drop)
            }
            .with_context(|| format!("{what}, {role}: {}", theirs.log()))?;
            for [from, to] in pings {
                let result = ping(&world, from, to, 1)?;
                ensure!(result.lossless(), "{what}, {role}: {from} to {to}\n{}\n{}", ours.log(), theirs.log());
            }
            theirs.swanctl(&["--terminate", "--ike", "net"])?;
            ours.wait_status(LIMIT, "the end", |status| !status.to_string().contains("ESTABLISHED"))?;
        }
        Ok(())
    }
}

/// One thing for each side, or a host and the address that it pings.
type Pairing<'a> = [&'a str; 2];

const BETWEEN_HOSTS: [Pairing<'_>; 2] = [["alice", "10.2.0.10"], ["bob", "10.1.0.10"]];
const BETWEEN_GATEWAYS: [Pairing<'_>; 2] = [["moon", "192.168.0.2"], ["sun", "192.168.0.1"]];

#[test]
fn selectors_may_be_ranges_hosts_protocols_and_wider_than_the_peers() -> Result<()> {
    let everywhere = ["0.0.0.0/0", "0.0.0.0/0"];
    let cases: [(&str, Pairing<'_>, Pairing<'_>, &[Pairing<'_>]); 7] = [
        (
            "true ranges",
            ["\"10.1.0.5-10.1.0.77\"", "\"10.2.0.1-10.2.0.200\""],
            ["10.2.0.1-10.2.0.200", "10.1.0.5-10.1.0.77"],
            &BETWEEN_HOSTS,
        ),
        ("the peer's are wider", PLAIN.our_subnets, everywhere, &BETWEEN_HOSTS),
        ("ours are wider", ["\"0.0.0.0/0\"", "\"0.0.0.0/0\""], PLAIN.their_subnets, &BETWEEN_HOSTS),
        (
            "each is wider on one side",
            ["\"10.1.0.0/17\"", "\"10.2.0.0/16\""],
            ["10.2.0.0/17", "10.1.0.0/16"],
            &BETWEEN_HOSTS,
        ),
        (
            "the peer's network has ours in it",
            ["\"10.1.0.0/16\"", "\"10.0.0.0/8\""],
            ["10.0.0.0/8", "10.1.0.0/16"],
            &[["alice", "10.2.0.10"]],
        ),
        (
            "one protocol",
            ["\"10.1.0.0/16[icmp]\"", "\"10.2.0.0/16[icmp]\""],
            ["10.2.0.0/16[icmp]", "10.1.0.0/16[icmp]"],
            &BETWEEN_HOSTS,
        ),
        ("the gateways themselves", ["\"192.168.0.1\"", "\"192.168.0.2\""], ["dynamic", "dynamic"], &BETWEEN_GATEWAYS),
    ];
    for (what, our_subnets, their_subnets, pings) in cases {
        Tunnel { our_subnets, their_subnets, ..PLAIN }.expect(what, pings)?;
    }
    Ok(())
}

#[test]
fn identities_may_be_of_any_type() -> Result<()> {
    for (ours, theirs) in [
        (["192.168.0.1", "192.168.0.2"], ["192.168.0.2", "192.168.0.1"]),
        (["fec0::1", "fec0::2"], ["fec0::2", "fec0::1"]),
        (["moon@example.org", "*@example.org"], ["sun@example.org", "moon@example.org"]),
        (["@#0a0b0c", "@#0d0e0f"], ["\"@#0d0e0f\"", "\"@#0a0b0c\""]),
        (
            ["C=CH, O=strongSwan, CN=moon", "C=CH, O=strongSwan, CN=sun"],
            ["\"C=CH, O=strongSwan, CN=sun\"", "\"C=CH, O=strongSwan, CN=moon\""],
        ),
        (["moon.example.org", "%any"], PLAIN.their_ids),
        (["moon.example.org", "*.example.org"], PLAIN.their_ids),
    ] {
        Tunnel { our_ids: ours, their_ids: theirs, ..PLAIN }.expect(&format!("{ours:?}"), &BETWEEN_HOSTS)?;
    }
    Ok(())
}

#[test]
fn keys_may_be_written_as_strongswan_writes_them() -> Result<()> {
    let long = format!("\"{}\"", "ab".repeat(100));
    for [ours, theirs] in [
        ["\"0x0a0b0c0d0e0f00\"", "0x0a0b0c0d0e0f00"],
        ["\"0sFpZAZqEN6Ti9sqt4ZP5EWcqx\"", "0sFpZAZqEN6Ti9sqt4ZP5EWcqx"],
        [&long, &long],
        ["\"grüße ☃\"", "\"grüße ☃\""],
        ["'a \"quoted\" # key = {}'", "0x61202271756f746564222023206b6579203d207b7d"],
    ] {
        Tunnel { keys: [ours, theirs], ..PLAIN }.expect(ours, &BETWEEN_HOSTS)?;
    }
    Ok(())
}

#[test]
fn of_many_proposals_a_common_one_is_found() -> Result<()> {
    let many = "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha512-prfsha384-prfsha256-ecp521-ecp384-x25519-modp4096";
    let ciphers = "aes256gcm16-aes128gcm16-chacha20poly1305";
    for (our_ike, our_esp, their_ike, their_esp) in [
        (many, ciphers, "aes128gcm16-prfsha256-curve25519", "chacha20poly1305"),
        ("aes128gcm16-prfsha256-curve25519", "chacha20poly1305", many, ciphers),
        (
            "aes256gcm16-prfsha384-ecp521,aes256-sha512-modp4096,aes128-sha256-x25519",
            "aes256gcm16,aes128-sha256",
            "aes128-sha256-modp2048, aes128-sha256-x25519",
            "aes192-sha384, aes128-sha256",
        ),
        ("default", "default", "default", "default"),
        ("aes128-sha1-modp2048", "aes128-sha1", "aes128-sha1-modp2048", "aes128-sha1"),
        ("aes128-sha256-modp3072", "aes256gcm16-noesn-esn", "aes128-sha256-modp3072", "aes256gcm16-noesn"),
    ] {
        let ours = Case { ike: our_ike, esp: our_esp, ..Case::default() };
        let theirs = Case { ike: their_ike, esp: their_esp, ..Case::default() };
        let pair = Pair::unlike(ours, theirs)?;
        pair.up_from_ours().with_context(|| format!("{ours:?} {theirs:?}"))?;
        pair.expect_ping("alice", "10.2.0.10")?;
        pair.ours.expect_ctl(&["down", "net"])?;
        pair.up_from_theirs().with_context(|| format!("{ours:?} {theirs:?}"))?;
        pair.expect_ping("alice", "10.2.0.10")?;
    }
    Ok(())
}

#[test]
fn a_peer_without_transport_mode_is_explained() -> Result<()> {
    // It answers with a tunnel, or refuses if it was configured for transport mode, too, which its userspace ESP lacks.
    for (their_child, wanted) in [("", "the peer wants a tunnel"), ("mode = transport", "`type = \"tunnel\"`")] {
        let case = Case { our_lines: "type = \"transport\"", their_child, ..Case::default() };
        let pair = Pair::two_sites(case)?;
        let said = pair.ours.ctl(&["up", "net"])?;
        ensure!(!said.success && said.stderr.contains(wanted), "{}{}", said.stdout, said.stderr);
    }
    Ok(())
}

#[test]
fn groups_for_secrecy_that_differ_show_at_the_first_rekeying_and_break_nothing() -> Result<()> {
    let ours = Case { esp: "aes256gcm16-ecp256", ..Case::default() };
    let theirs = Case { esp: "aes256gcm16-modp2048", ..Case::default() };
    let pair = Pair::unlike(ours, theirs)?;
    pair.up_from_ours()?;
    let said = pair.ours.ctl(&["rekey", "net", "--child", "net"])?;
    ensure!(!said.success, "{}", said.stdout);
    let status = pair.ours.expect_ctl(&["status", "net"])?;
    for wanted in ["CHILD_NO_PROPOSAL", "aes256gcm16-ecp256"] {
        ensure!(status.contains(wanted), "`{wanted}` is not in: {status}");
    }
    pair.theirs.swanctl(&["--rekey", "--child", "net"])?;
    wait_until(LIMIT, "the reason", || {
        let status = pair.ours.expect_ctl(&["status", "net"])?;
        Ok(["MODP_2048", "aes256gcm16-modp2048"].iter().all(|wanted| status.contains(wanted)))
    })?;
    pair.expect_pings()
}
