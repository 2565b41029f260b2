//! Connections and SAs for people.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Error, Outcome, json, policies, refused, text};
use crate::vici::{Client, Message};

/// Shows connections with all their SAs, and why they are down.
pub(super) fn status(
    client: &mut Client,
    name: Option<&str>,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Error> {
    let (tunnels, answer) = tunnels(client, name)?;
    let policies = if name.is_none() { policies::fetch(client)? } else { Vec::new() };
    if json {
        print_json(&tunnels, &policies, &answer, out)?;
    } else if tunnels.is_empty() {
        match name {
            Some(name) => eprintln!("charonctl: there is no connection or child `{name}`"),
            None => writeln!(out, "no connections are configured")?,
        }
    } else {
        for (index, (name, tunnel)) in tunnels.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            print_tunnel(out, name, tunnel)?;
        }
    }
    if !json {
        policies::status(out, &policies)?;
    }
    if let Some(refused) = answer.section("refused").filter(|_| name.is_none() && !json) {
        let time = text::time(text::text(refused, "time"), "%b %d %H:%M:%S");
        writeln!(out, "\nlast peer that fits no connection, {time}: {}", text::text(refused, "peer"))?;
        text::failure(out, "  ", refused)?;
    }
    Ok(match name {
        None => Outcome::Done,
        Some(_) if tunnels.is_empty() => Outcome::Failed,
        Some(_) if tunnels.iter().all(|(_, tunnel)| tunnel.text("state") == Some("UP")) => Outcome::Done,
        Some(_) => Outcome::NotUp,
    })
}

/// Shows one line for each connection, and for each policy of its own.
pub(super) fn list(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let (tunnels, answer) = tunnels(client, None)?;
    let policies = policies::fetch(client)?;
    if json {
        print_json(&tunnels, &policies, &answer, out)?;
        return Ok(Outcome::Done);
    }
    let header = ["NAME", "STATE", "PEER", "CHILDREN", "IN", "OUT", "SINCE"].map(str::to_owned).to_vec();
    let mut rows = vec![header];
    for (name, tunnel) in &tunnels {
        rows.push(list_row(name, tunnel));
    }
    text::table(out, &rows)?;
    if !policies.is_empty() {
        writeln!(out)?;
        policies::list(out, &policies)?;
    }
    Ok(Outcome::Done)
}

/// Shows how the daemon is doing.
pub(super) fn stats(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let version = client.request("version", Message::new())?;
    let stats = client.request("stats", Message::new())?;
    if stats.section("uptime").is_none() {
        return refused(&stats, json, out);
    }
    if json {
        writeln!(out, "{}", json!({"version": json::of(&version), "stats": json::of(&stats)}))?;
        return Ok(Outcome::Done);
    }
    let value = |section: &str, name: &str| {
        stats.section(section).and_then(|section| section.text(name)).unwrap_or("-").to_owned()
    };
    let (daemon, number) = (text::text(&version, "daemon"), text::text(&version, "version"));
    writeln!(out, "daemon      {daemon} {number}, up {}", value("uptime", "running"))?;
    writeln!(out, "IKE SAs     {}, {} half-open", value("ikesas", "total"), value("ikesas", "half-open"))?;
    let (turns, longest) = (value("event-loop", "turns"), value("event-loop", "longest-turn-us"));
    writeln!(out, "event loop  {turns} turns, the longest took {longest} µs")?;
    let by = |name: &str| value("crypto", name);
    let (cbc, chacha) = (by("aes-cbc-sha256"), by("chacha20poly1305"));
    writeln!(out, "crypto      AES-GCM by {}, AES-CBC with SHA-256 by {cbc}, ChaCha20 by {chacha}", by("aes-gcm"))?;
    for (name, interface) in stats.section("interfaces").into_iter().flat_map(Message::sections) {
        let side = |direction: &str| {
            let octets = text::number(interface, &format!("bytes-{direction}")).unwrap_or_default();
            format!("{} in {} packets", text::octets(octets), text::text(interface, &format!("packets-{direction}")))
        };
        writeln!(out, "{name:<11} MTU {}, in {}, out {}", text::text(interface, "mtu"), side("in"), side("out"))?;
    }
    print_drops(out, "drops       ", stats.section("drops"))?;
    Ok(Outcome::Done)
}

/// The connections, and what else the daemon has to say about peers.
pub(super) fn tunnels(client: &mut Client, name: Option<&str>) -> Result<(Vec<(String, Message)>, Message), Error> {
    let mut arguments = Message::new();
    arguments.put_some("name", name);
    let mut tunnels = Vec::new();
    let answer = client.stream("list-tunnel", "list-tunnels", arguments, |event| {
        tunnels.extend(event.sections().map(|(name, section)| (name.to_owned(), section.clone())));
    })?;
    Ok((tunnels, answer))
}

fn print_json(
    tunnels: &[(String, Message)],
    policies: &[(String, Message)],
    answer: &Message,
    out: &mut dyn Write,
) -> io::Result<()> {
    let members = |sections: &[(String, Message)]| -> Map<String, Value> {
        sections.iter().map(|(name, section)| (name.clone(), json::of(section))).collect()
    };
    let refused = answer.section("refused").map(json::of);
    writeln!(out, "{}", json!({"tunnels": members(tunnels), "policies": members(policies), "refused": refused}))
}

fn ike_sas(tunnel: &Message) -> impl Iterator<Item = &Message> {
    tunnel.section("ike-sas").into_iter().flat_map(Message::sections).map(|(_, sa)| sa)
}

fn child_sas(sa: &Message) -> impl Iterator<Item = &Message> {
    sa.section("child-sas").into_iter().flat_map(Message::sections).map(|(_, child)| child)
}

fn list_row(name: &str, tunnel: &Message) -> Vec<String> {
    let children: Vec<&Message> = ike_sas(tunnel).flat_map(child_sas).collect();
    let sum = |key: &str| text::octets(children.iter().filter_map(|child| text::number(child, key)).sum());
    let configured = || tunnel.section("config").map(|config| config.list("remote_addrs").join(","));
    let sa = ike_sas(tunnel).next();
    let peer = sa.and_then(|sa| sa.text("remote-host")).map(str::to_owned).or_else(configured);
    let mut names: Vec<&str> = children.iter().filter_map(|child| child.text("name")).collect();
    names.dedup();
    vec![
        name.to_owned(),
        text::text(tunnel, "state").to_owned(),
        peer.unwrap_or_default(),
        names.join(" "),
        sum("bytes-in"),
        sum("bytes-out"),
        sa.map_or_else(|| "-".to_owned(), |sa| text::duration_of(sa, "established")),
    ]
}

fn print_tunnel(out: &mut dyn Write, name: &str, tunnel: &Message) -> io::Result<()> {
    writeln!(out, "{name}  {}", text::text(tunnel, "state"))?;
    if let Some(failure) = tunnel.section("failure") {
        writeln!(out, "  last failure, {}:", text::time(text::text(failure, "time"), "%b %d %H:%M:%S"))?;
        text::failure(out, "    ", failure)?;
    }
    let mut any = false;
    for sa in ike_sas(tunnel) {
        any = true;
        print_ike_sa(out, sa)?;
        for child in child_sas(sa) {
            print_child_sa(out, child)?;
        }
    }
    if !any && let Some(config) = tunnel.section("config") {
        print_config(out, tunnel, config)?;
    }
    Ok(())
}

fn print_ike_sa(out: &mut dyn Write, sa: &Message) -> io::Result<()> {
    let get = |name: &str| text::text(sa, name);
    let role = if sa.is_yes("initiator") { "initiator" } else { "responder" };
    writeln!(out, "  IKE SA #{}  {}  IKEv2, {role}", get("uniqueid"), get("state"))?;
    for side in ["local", "remote"] {
        let (host, port) = (get(&format!("{side}-host")), get(&format!("{side}-port")));
        let nat = if sa.is_yes(&format!("nat-{side}")) { "  behind NAT" } else { "" };
        writeln!(out, "    {side:<9} {host}[{port}]  {}{nat}", get(&format!("{side}-id")))?;
    }
    for (label, key) in [("our vip", "local-vips"), ("their vip", "remote-vips")] {
        let addresses = sa.list(key);
        if !addresses.is_empty() {
            writeln!(out, "    {label:<9} {}", addresses.join(", "))?;
        }
    }
    writeln!(out, "    SPIs      {} initiator, {} responder", get("initiator-spi"), get("responder-spi"))?;
    if sa.text("encr-alg").is_some() {
        writeln!(out, "    suite     {}", suite(sa, &["prf-alg", "dh-group"]))?;
    }
    for (label, key) in [("nonce i", "nonce-i"), ("nonce r", "nonce-r")] {
        if !get(key).is_empty() {
            writeln!(out, "    {label:<9} {}", get(key))?;
        }
    }
    if sa.text("established").is_some() {
        writeln!(out, "    time      up {}{}", text::duration_of(sa, "established"), ends(sa))?;
    }
    let tasks = sa.list("tasks-queued");
    if !tasks.is_empty() {
        writeln!(out, "    tasks     {}", tasks.join(", "))?;
    }
    Ok(())
}

fn print_child_sa(out: &mut dyn Write, child: &Message) -> io::Result<()> {
    let get = |name: &str| text::text(child, name);
    let carrier = match get("protocol") {
        "AH" => "AH",
        _ if child.is_yes("encap") => "ESP in UDP",
        _ => "ESP",
    };
    let (name, number) = (get("name"), get("uniqueid"));
    let mode = get("mode").to_lowercase();
    writeln!(out, "    CHILD SA {name} #{number}  {}  {carrier}, {mode} mode, reqid {}", get("state"), get("reqid"))?;
    let sequence = if child.is_yes("esn") { "ESN" } else { "32-bit sequence numbers" };
    writeln!(out, "      suite   {}, {sequence}", suite(child, &["dh-group"]))?;
    writeln!(out, "      local   {}", child.list("local-ts").join(" "))?;
    writeln!(out, "      remote  {}", child.list("remote-ts").join(" "))?;
    let half = |direction: &str| {
        let get = |name: &str| text::text(child, &format!("{name}-{direction}")).to_owned();
        let octets = text::octets(text::number(child, &format!("bytes-{direction}")).unwrap_or_default());
        let idle = child.text(&format!("use-{direction}")).map_or_else(
            || "never used".to_owned(),
            |seconds| format!("{} ago", text::duration(seconds.parse().unwrap_or_default())),
        );
        vec![
            format!("      {direction:<6}"),
            format!("0x{}", get("spi")),
            octets,
            format!("{} packets", get("packets")),
            idle,
            child.text(&format!("sequence-{direction}")).map(|number| format!("seq {number}")).unwrap_or_default(),
        ]
    };
    text::table(out, &[half("in"), half("out")])?;
    for direction in ["in", "out"] {
        print_drops(out, &format!("      drops {direction:<3} "), child.section(&format!("drops-{direction}")))?;
    }
    writeln!(out, "      time    up {}{}", text::duration_of(child, "install-time"), ends(child))
}

fn print_config(out: &mut dyn Write, tunnel: &Message, config: &Message) -> io::Result<()> {
    let id = |side: &str| config.section(side).map_or("", |auth| text::text(auth, "id"));
    writeln!(out, "    local     {}  {}", config.list("local_addrs").join(","), id("local-1"))?;
    writeln!(out, "    remote    {}  {}", config.list("remote_addrs").join(","), id("remote-1"))?;
    for (name, child) in config.section("children").into_iter().flat_map(Message::sections) {
        let (local, remote) = (child.list("local-ts").join(" "), child.list("remote-ts").join(" "));
        writeln!(out, "    child     {name}: {local} === {remote}")?;
    }
    let start = match text::text(tunnel, "start") {
        "start" => "is started by the daemon, and again whenever it falls",
        "trap" => "is started by the first packet",
        _ => "waits for the peer or for `charonctl up`",
    };
    writeln!(out, "    start     {start}")
}

fn print_drops(out: &mut dyn Write, label: &str, drops: Option<&Message>) -> io::Result<()> {
    let reasons: Vec<String> = drops
        .into_iter()
        .flat_map(Message::entries)
        .filter_map(|(reason, _)| Some(format!("{reason} {}", drops?.text(reason)?)))
        .collect();
    if reasons.is_empty() { Ok(()) } else { writeln!(out, "{label}{}", reasons.join(", ")) }
}

/// `AES_GCM_16-256 / PRF_HMAC_SHA2_256 / MODP_2048`.
fn suite(section: &Message, others: &[&str]) -> String {
    let bits = section.text("encr-keysize").map(|bits| format!("-{bits}")).unwrap_or_default();
    // AH has no cipher.
    let mut parts: Vec<_> = section.text("encr-alg").map(|cipher| format!("{cipher}{bits}")).into_iter().collect();
    parts.extend(section.text("integ-alg").map(str::to_owned));
    parts.extend(others.iter().filter_map(|name| section.text(name)).map(str::to_owned));
    let additional = |round: u8| section.text(&format!("ke{round}-alg")).map(|method| format!("KE{round}_{method}"));
    parts.extend((1..=7).filter_map(additional));
    parts.join(" / ")
}

fn ends(section: &Message) -> String {
    let part = |label: &str, name: &str| match text::number(section, name) {
        Some(seconds) => format!(", {label} in {}", text::duration(seconds)),
        None => String::new(),
    };
    part("rekeyed", "rekey-time") + &part("made anew", "reauth-time") + &part("ends", "life-time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(tunnel: &Message) -> String {
        let mut out = Vec::new();
        print_tunnel(&mut out, "net", tunnel).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_tunnel_that_is_up_shows_everything_about_its_sas() {
        let mut child = Message::new()
            .with("name", "net")
            .with("uniqueid", 2)
            .with("reqid", 1)
            .with("state", "INSTALLED")
            .with("mode", "TUNNEL")
            .with("spi-in", "bc721029")
            .with("spi-out", "61d75315")
            .with("encr-alg", "AES_GCM_16")
            .with("encr-keysize", 256)
            .with("esn", 1)
            .with("bytes-in", 252)
            .with("packets-in", 3)
            .with("use-in", 4)
            .with("bytes-out", 1_500_000)
            .with("packets-out", 1000)
            .with("sequence-out", 1000)
            .with("rekey-time", 3239)
            .with("life-time", 3960)
            .with("install-time", 61)
            .with_section("drops-in", Message::new().with("replay", 7));
        child.put_list("local-ts", ["10.1.0.0/24"]);
        child.put_list("remote-ts", ["10.2.0.0/24"]);
        let sa = Message::new()
            .with("uniqueid", 1)
            .with("state", "ESTABLISHED")
            .with("local-host", "192.168.0.1")
            .with("local-port", 500)
            .with("local-id", "moon")
            .with("remote-host", "192.168.0.2")
            .with("remote-port", 500)
            .with("remote-id", "sun")
            .with("initiator", "yes")
            .with("initiator-spi", "0158b8fb90b7623d")
            .with("responder-spi", "13514610cea16160")
            .with("encr-alg", "AES_GCM_16")
            .with("encr-keysize", 256)
            .with("prf-alg", "PRF_HMAC_SHA2_256")
            .with("dh-group", "MODP_2048")
            .with("ke1-alg", "ML_KEM_768")
            .with("nonce-i", "0102")
            .with("nonce-r", "0304")
            .with("established", 61)
            .with("rekey-time", 14098)
            .with_section("child-sas", Message::new().with_section("net-2", child));
        let tunnel = Message::new().with("state", "UP").with_section("ike-sas", Message::new().with_section("1", sa));
        assert_eq!(
            printed(&tunnel),
            "\
net  UP
  IKE SA #1  ESTABLISHED  IKEv2, initiator
    local     192.168.0.1[500]  moon
    remote    192.168.0.2[500]  sun
    SPIs      0158b8fb90b7623d initiator, 13514610cea16160 responder
    suite     AES_GCM_16-256 / PRF_HMAC_SHA2_256 / MODP_2048 / KE1_ML_KEM_768
    nonce i   0102
    nonce r   0304
    time      up 1m 1s, rekeyed in 3h 54m
    CHILD SA net #2  INSTALLED  ESP, tunnel mode, reqid 1
      suite   AES_GCM_16-256, ESN
      local   10.1.0.0/24
      remote  10.2.0.0/24
      in      0xbc721029  252 B    3 packets     4s ago
      out     0x61d75315  1.50 MB  1000 packets  never used  seq 1000
      drops in  replay 7
      time    up 1m 1s, rekeyed in 53m 59s, ends in 1h 6m
"
        );
    }

    #[test]
    fn a_tunnel_that_is_down_shows_why_and_how_it_comes_up() {
        let mut failure = Message::new()
            .with("code", "AUTH_PSK_MISMATCH")
            .with("what", "the MAC of sun does not fit our key")
            .with("hint", "compare the secrets")
            .with("time", "0.000");
        failure.put_list("ours", ["moon"]);
        failure.put_list("theirs", ["sun", "earth"]);
        let mut config = Message::new();
        config.put_list("local_addrs", ["%any"]);
        config.put_list("remote_addrs", ["192.0.2.1"]);
        let tunnel = Message::new()
            .with("state", "DOWN")
            .with("start", "trap")
            .with_section("failure", failure)
            .with_section("config", config);
        let shown = printed(&tunnel);
        assert!(shown.contains("AUTH_PSK_MISMATCH: the MAC of sun does not fit our key\n"), "{shown}");
        assert!(
            shown.contains("      theirs  sun\n              earth\n      hint    compare the secrets\n"),
            "{shown}"
        );
        assert!(shown.ends_with("    start     is started by the first packet\n"), "{shown}");
    }
}
