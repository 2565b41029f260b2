//! `[sa.NAME]`, `[policy.NAME]` and `[spd]`.

use espdp_api::{
    Direction, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, Mode, PolicyDirections, PolicySpec, PortRange,
};

use super::*;

const SECRETS: &str = "[sa.out]\nencryption_key = \"000102030405060708090a0b0c0d0e0f\"\n\
    integrity_key = \"0x0101010101010101010101010101010101010101010101010101010101010101\"\n\
    [sa.in]\nencryption_key = \"0f0e0d0c0b0a09080706050403020100\"\n\
    integrity_key = \"0202020202020202020202020202020202020202020202020202020202020202\"\n";

const SAS: &str = "[sa.out]\nspi = 1000\ndirection = \"out\"\nleft = \"10.0.0.2\"\nright = \"10.1.0.2\"\nesp = \"aes128-sha256\"\n\
    [sa.in]\nspi = 0x3e9\ndirection = \"in\"\nleft = \"10.0.0.2\"\nright = \"10.1.0.2\"\nesp = \"aes128-sha256\"\n";

const POLICY: &str =
    "[policy.nets]\nleftsubnet = \"100.1.0.0/16\"\nrightsubnet = \"100.2.0.0/16\"\nsa = [\"out\", \"in\"]\n";

fn loaded(config: &str) -> Loaded {
    Folder::with_secrets(config, SECRETS).load().unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn a_policy_with_manual_keys_needs_two_sas_and_two_subnets() {
    let loaded = loaded(&format!("{SAS}{POLICY}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let [policy] = loaded.policies.as_slice() else { panic!("{:?}", loaded.policies) };
    let spec = &policy.spec;
    assert_eq!((policy.name.as_str(), spec.priority), ("nets", PolicySpec::DEFAULT_PRIORITY));
    assert_eq!(spec.action, PolicyAction::Protect { acquire: false });
    assert_eq!(spec.routes, ["100.2.0.0/16".parse().unwrap()]);
    assert_eq!((spec.local[0].to_string(), spec.remote[0].to_string()), ("100.1.0.0/16".into(), "100.2.0.0/16".into()));
    let [out, inbound] = policy.sas.as_slice() else { panic!("{:?}", policy.sas) };
    assert_eq!((out.direction, out.spi.value()), (Direction::Outbound, 1000));
    assert_eq!((inbound.direction, inbound.spi.value()), (Direction::Inbound, 0x3e9));
    let (cipher, integrity) = (EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha2_256_128);
    assert_eq!(out.algorithms, EspAlgorithms { cipher, integrity, extended_sequence_numbers: false });
    assert_eq!((out.mode, out.replay_window, out.path.encapsulation), (Mode::Tunnel, 0, Encapsulation::Esp));
    assert_eq!(inbound.encryption_key.expose()[..2], [15, 14]);
    assert_eq!(out.integrity_key.expose(), &[1; 32]);
    assert_eq!(loaded.interfaces.len(), 1, "the default interface");
    assert!(!format!("{policy:?}").contains("15, 14"), "keys are not printed");
}

#[test]
fn policies_say_protocols_types_directions_and_routes() {
    let policy = |keys: &str| {
        let config =
            format!("[policy.p]\naction = \"bypass\"\nleftsubnet = \"::/0\"\nrightsubnet = \"fd00::/8\"\n{keys}");
        loaded(&config).policies.remove(0).spec
    };
    assert!(policy("").routes.is_empty(), "what bypasses comes with the routes of others");
    assert_eq!(policy("routes = \"auto\"").routes, ["fd00::/8".parse().unwrap()]);
    let ping = policy("rightprotoport = \"icmpv6/128\"\ndirection = \"out\"\npriority = 7");
    assert_eq!((ping.directions, ping.priority), (PolicyDirections::Outbound, 7));
    assert_eq!((ping.remote[0].protocol, ping.remote[0].ports), (58, PortRange { start: 0x8000, end: 0x80ff }));
    assert_eq!((ping.local[0].protocol, ping.local[0].ports), (0, PortRange::ANY));
    assert!(ping.later_fragments && !policy("later_fragments = false").later_fragments);
}

#[test]
fn what_no_policy_selects_bypasses_only_where_that_was_said() {
    let tables = "[interface.ipsec0]\n[interface.ipip0]\n";
    assert!(loaded(&format!("{tables}[spd]\ndefault = \"discard\"")).policies.is_empty());
    let bypass = loaded(&format!("{tables}[spd]\ndefault = \"bypass\"")).policies;
    let [policy] = bypass.as_slice() else { panic!("{bypass:?}") };
    assert_eq!((policy.spec.action, policy.spec.priority), (PolicyAction::Bypass, u32::MAX));
    assert_eq!(policy.spec.interface.as_str(), "ipsec0");
}

/// What is wrong with `config`, without the lines that show where.
fn messages(config: &str, secrets: &str) -> Vec<String> {
    match Folder::with_secrets(config, secrets).load() {
        Ok(loaded) => loaded.warnings.iter().map(|warning| warning.message.clone()).collect(),
        Err(problems) => problems.iter().map(|problem| problem.message.clone()).collect(),
    }
}

/// RFC 4106 §2, RFC 7634 §2: numbers that start anew with one key break these ciphers.
#[test]
fn ciphers_that_need_numbers_which_are_never_used_twice_are_refused() {
    for esp in ["aes128gcm16", "chacha20poly1305", "aes128ctr-sha256"] {
        let config = format!("{SAS}{POLICY}").replacen("aes128-sha256", esp, 1);
        let said = Folder::with_secrets(&config, SECRETS).complaints();
        assert!(said.contains("this cipher must not be used with keys by hand"), "{said}");
        assert!(said.contains("ipsec.toml:6:"), "{said}");
    }
}

#[test]
fn every_mistake_with_keys_and_sas_is_told() {
    let good = format!("{SAS}{POLICY}");
    let changed = |from: &str, to: &str| messages(&good.replacen(from, to, 1), SECRETS);
    for (from, to, said) in [
        ("spi = 1000", "spi = 255", "255 is out of range"),
        ("spi = 1000\n", "", "sa `out` has no `spi`"),
        ("right = \"10.1.0.2\"", "right = \"fd00::1\"", "left and right are addresses of different families"),
        (
            "aes128-sha256",
            "aes128-sha256-esn",
            "extended sequence numbers need both ends to start at once: nobody sends their high half",
        ),
        ("aes128-sha256", "aes128-sha256-ecp256", "a group for keys that nobody exchanges"),
        ("aes128-sha256", "aes128-aes256-sha256", "several algorithms"),
        ("aes128-sha256", "aes256-sha256", "`encryption_key` in the secrets file has 16 octets"),
        (
            "esp = \"aes128-sha256\"",
            "esp = \"aes128-sha256\"\nreplay_window = 64",
            "the peer's packets are dropped from its next start on, when its numbers begin at 1 again",
        ),
        (
            "direction = \"in\"",
            "direction = \"in\"\ndf = \"set\"",
            "`df` has no effect on an SA to receive on: it is about packets that we send",
        ),
        ("[\"out\", \"in\"]", "[\"out\", \"inn\"]", "there is no [sa.inn]"),
        ("[\"out\", \"in\"]", "\"out\"", "the policy has no SA to receive on"),
        ("[\"out\", \"in\"]", "\"in\"", "the policy has no SA to send on"),
        (
            "[\"out\", \"in\"]",
            "[\"out\", \"in\"]\ndirection = \"out\"",
            "the policy is not asked for what comes in, and has an SA to receive on",
        ),
        ("[\"out\", \"in\"]", "[\"out\", \"in\"]\naction = \"discard\"", "a policy that protects nothing has SAs"),
        ("leftsubnet = \"100.1.0.0/16\"\n", "", "the policy has no `leftsubnet`"),
        ("100.2.0.0/16", "fd00::/8", "leftsubnet and rightsubnet are of different families: no packet can have both"),
        ("leftsubnet", "leftsubnett", "unknown key `leftsubnett`"),
        ("direction = \"out\"", "direction = \"in\"", "sa `in` and sa `out` receive on the same SPI"),
    ] {
        let from_second = if said.contains("same SPI") { good.replace("0x3e9", "1000") } else { good.clone() };
        let all = messages(&from_second.replacen(from, to, 1), SECRETS);
        assert!(all.iter().any(|message| message == said), "{to}: {all:?}");
    }
    assert_eq!(changed("sa = [\"out\", \"in\"]", "action = \"discard\"").len(), 2, "two SAs that nobody uses");
    let twice = format!("{good}{}", POLICY.replace("nets", "more"));
    assert!(messages(&twice, SECRETS).contains(&"sa `out` serves another policy already".to_owned()));
    let without = SECRETS.replacen("[sa.out]", "[sa.outer]", 1);
    assert!(messages(&good, &without).contains(&"sa `out` has no keys".to_owned()));
}

#[test]
fn nothing_of_a_key_is_shown() {
    let secrets = SECRETS.replacen("000102030405060708090a0b0c0d0e0f", "00010203zz", 1);
    let said = Folder::with_secrets(&format!("{SAS}{POLICY}"), &secrets).complaints();
    assert!(said.contains("this is not hexadecimal") && !said.contains("0001"), "{said}");
}
