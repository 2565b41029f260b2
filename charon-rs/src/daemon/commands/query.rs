//! Commands that only look.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use espdp::CryptoReport;
use espdp_api::{CryptoEngine, EspCipher, EspIntegrity, Mode, PolicyAction};
use ike_proto::io::{IkeSaReport, IkeState};
use ike_proto::proposal::{Algorithm, KeyExchangeGroup, Prf};

use super::{failed, success};
use crate::daemon::report;
use crate::daemon::service::Daemon;
use crate::daemon::shell::{Gone, Shell, Statistics};
use crate::vici::{Message, Streamer};

/// The dataplane answers at once or is in trouble; then SAs are shown without counters.
pub(super) const STATISTICS_DEADLINE: Duration = Duration::from_secs(1);

/// Names and versions.
pub(super) fn version() -> Message {
    let system = rustix::system::uname();
    Message::new()
        .with("daemon", "charon-rs")
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("sysname", system.sysname().to_string_lossy())
        .with("release", system.release().to_string_lossy())
        .with("machine", system.machine().to_string_lossy())
}

/// How the daemon is doing. The keys up to `plugins` are strongSwan's; it has worker threads where we have one loop.
pub(super) async fn stats(daemon: &Daemon) -> Message {
    let look = |shell: &mut Shell| (shell.engine.ike_sas(), shell.load, shell.engine.poll_timeout().is_some());
    let (sas, load, scheduled) = match daemon.handle.ask(look).await {
        Ok(looked) => looked,
        Err(gone) => return failed(gone),
    };
    let (since, started) = daemon.started;
    let priorities = || ["critical", "high", "medium", "low"].iter().fold(Message::new(), |m, name| m.with(name, 0));
    let half_open = sas.iter().filter(|sa| matches!(sa.state, IkeState::Created | IkeState::Connecting)).count();
    let mut message = Message::new()
        .with_section(
            "uptime",
            Message::new().with("running", uptime(started.elapsed())).with("since", local_time(since)),
        )
        .with_section("workers", Message::new().with("total", 1).with("idle", 1).with_section("active", priorities()))
        .with_section("queues", priorities())
        .with("scheduled", u8::from(scheduled))
        .with_section("ikesas", Message::new().with("total", sas.len()).with("half-open", half_open));
    message.put_list("plugins", ["ike-proto", "espdp"]);
    message.put_section(
        "event-loop",
        Message::new().with("turns", load.turns).with("longest-turn-us", load.longest_turn.as_micros()),
    );
    let crypto_engine = daemon.startup.as_ref().map_or_else(CryptoEngine::default, |startup| startup.crypto_engine);
    let CryptoReport { aes_gcm, aes_cbc_sha256, chacha20poly1305, .. } = CryptoReport::new(crypto_engine);
    let crypto = Message::new().with("aes-gcm", aes_gcm).with("aes-cbc-sha256", aes_cbc_sha256);
    message.put_section("crypto", crypto.with("chacha20poly1305", chacha20poly1305));
    message.put_section("threads", threads());
    if let Ok(Some(statistics)) = statistics(daemon).await {
        message.put_section("interfaces", interfaces(&statistics));
        let mut drops = Message::new();
        statistics.drops.iter().for_each(|drop| drops.put(&drop.reason, drop.packets));
        message.put_section("drops", drops);
    }
    message
}

/// The processor time of the daemon's threads so far, in milliseconds; those of one name together.
fn threads() -> Message {
    let hertz = u64::from(rustix::param::clock_ticks_per_second() as u32).max(1);
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        // A thread may end while we look.
        let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else { continue };
        // proc(5): the name stands in parentheses and may have blanks; the times are the 14th and 15th word.
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
        let ticks: u64 =
            rest.split_ascii_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
        *times.entry(name.to_owned()).or_default() += ticks * 1000 / hertz;
    }
    times.into_iter().fold(Message::new(), |message, (name, time)| message.with(&name, time))
}

/// Streams `list-sa` events; `ike` and `ike-id` select IKE SAs, `child` and `child-id` which Child SAs are shown with them.
pub(super) async fn list_sas(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let (sas, statistics) = match (ike_sas(daemon).await, statistics(daemon).await) {
        (Ok(sas), Ok(statistics)) => (sas, statistics),
        (Err(gone), _) | (_, Err(gone)) => return failed(gone),
    };
    let now = Instant::now();
    let is = |key: &str, value: &str| arguments.text(key).is_none_or(|wanted| wanted == value);
    for mut sa in sas.into_iter().filter(|sa| is("ike", &sa.connection) && is("ike-id", &sa.id.0.to_string())) {
        sa.children.retain(|child| is("child", &child.name) && is("child-id", &child.id.0.to_string()));
        let section = report::ike_sa_with_children(&sa, statistics.as_ref(), now);
        streamer.send("list-sa", Message::new().with_section(&sa.connection, section)).await;
    }
    Message::new()
}

/// Streams `list-conn` events; `ike` selects one.
pub(super) async fn list_conns(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let wanted = arguments.text("ike").map(str::to_owned);
    let look = move |shell: &mut Shell| -> Vec<(String, Message)> {
        let wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        let connections = shell.engine.connections().filter(|connection| wanted(&connection.name));
        connections
            .map(|connection| {
                let shunts = shell.applied.shunts(&connection.name);
                (connection.name.clone(), report::connection(connection, shunts, shell.desk.store()))
            })
            .collect()
    };
    match daemon.handle.ask(look).await {
        Ok(connections) => {
            for (name, section) in connections {
                streamer.send("list-conn", Message::new().with_section(&name, section)).await;
            }
            Message::new()
        }
        Err(gone) => failed(gone),
    }
}

/// Streams one `list-policy` event for each policy in force: with `trap` for those that protect, with `pass` for those that let
/// packets bypass, with `drop` for those that discard them; with `child` and `ike` only those of these names.
pub(super) async fn list_policies(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let statistics = match statistics(daemon).await {
        Ok(statistics) => statistics.unwrap_or_default(),
        Err(gone) => return failed(gone),
    };
    let wanted = WantedPolicies::of(arguments);
    match daemon.handle.ask(move |shell: &mut Shell| wanted.find(shell, &statistics)).await {
        Ok(policies) => {
            for policy in policies {
                streamer.send("list-policy", policy).await;
            }
            Message::new()
        }
        Err(gone) => failed(gone),
    }
}

/// Which policies are asked for.
struct WantedPolicies {
    trap: bool,
    pass: bool,
    discard: bool,
    connection: Option<String>,
    child: Option<String>,
}

impl WantedPolicies {
    fn of(arguments: &Message) -> Self {
        let text = |name| arguments.text(name).map(str::to_owned);
        let [trap, pass, discard] = ["trap", "pass", "drop"].map(|kind| arguments.is_yes(kind));
        Self { trap, pass, discard, connection: text("ike"), child: text("child") }
    }

    fn find(&self, shell: &Shell, statistics: &Statistics) -> Vec<Message> {
        let traps = shell.engine.traps().filter(|(connection, child, _)| self.trap && self.is_named(connection, child));
        let traps = traps.map(|(connection, child, spec)| {
            let mut configured = shell.engine.connections().filter(|own| own.name == connection);
            let children = configured.next().into_iter().flat_map(|connection| &connection.children);
            let mode = children.into_iter().find(|own| own.name == child).map_or(Mode::Tunnel, |own| own.mode);
            report::policy(connection, child, report::mode(mode), spec)
        });
        let shunts = shell.applied.all_shunts().filter(|(_, shunt)| shunt.installs);
        let shunts = shunts.filter(|(connection, shunt)| self.is_named(connection, &shunt.name));
        let shunts =
            shunts.filter(|(_, shunt)| self.has_action(shunt.policy.spec.action)).map(|(connection, shunt)| {
                report::policy(
                    connection,
                    &shunt.name,
                    report::shunt_mode(shunt.policy.spec.action),
                    &shunt.policy.spec,
                )
            });
        let of_file = self.connection.is_none();
        let manual =
            shell.applied.policies_of_file().iter().filter(|policy| of_file && self.has_action(policy.spec.action));
        let manual = manual.filter(|policy| self.child.as_ref().is_none_or(|child| *child == policy.name));
        let manual =
            manual.map(|policy| Message::new().with_section(&policy.name, report::manual_policy(policy, statistics)));
        traps.chain(shunts).chain(manual).collect()
    }

    fn is_named(&self, connection: &str, child: &str) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        is(&self.connection, connection) && is(&self.child, child)
    }

    fn has_action(&self, action: PolicyAction) -> bool {
        match action {
            PolicyAction::Protect { .. } => self.trap,
            PolicyAction::Bypass => self.pass,
            PolicyAction::Discard => self.discard,
        }
    }
}

/// All algorithms by kind, each with what implements it.
pub(super) fn get_algorithms() -> Message {
    let ciphers =
        |aead| EspCipher::ALL.iter().filter(move |cipher| cipher.is_aead() == aead).map(|cipher| cipher.name());
    Message::new()
        .with_section("encryption", implemented(ciphers(false)))
        .with_section("integrity", implemented(EspIntegrity::ALL.iter().map(|integrity| integrity.name())))
        .with_section("aead", implemented(ciphers(true)))
        .with_section("hasher", implemented(HASHERS.into_iter()))
        .with_section("prf", implemented(Prf::ALL.iter().map(|prf| prf.name())))
        .with_section("kdf", implemented(["KDF_PRF", "KDF_PRF_PLUS"].into_iter()))
        .with_section("dh", implemented(KeyExchangeGroup::ALL.iter().map(|group| group.name())))
        .with_section("rng", implemented(["RNG_STRONG"].into_iter()))
        .with_section("nonce-gen", implemented(["NONCE_GEN"].into_iter()))
}

/// Hashes of signatures; SHA-1 only where it is named. Ed25519 hashes by itself.
const HASHERS: [&str; 5] = ["HASH_SHA1", "HASH_SHA2_256", "HASH_SHA2_384", "HASH_SHA2_512", "HASH_IDENTITY"];

/// Counters of the daemon, of one connection (`name`), or with `all=yes` of every connection too.
pub(super) async fn get_counters(daemon: &Daemon, arguments: &Message) -> Message {
    let name = arguments.text("name").map(str::to_owned);
    let all = arguments.is_yes("all");
    let look = move |shell: &mut Shell| {
        let mut counters = BTreeMap::new();
        if let Some(own) = shell.counters.of(name.as_deref()) {
            counters.insert(name.unwrap_or_default(), own);
        }
        if all {
            counters.extend(shell.counters.of_connections().map(|(name, own)| (name.to_owned(), own)));
        }
        counters
    };
    match daemon.handle.ask(look).await {
        Ok(counters) if counters.is_empty() => Message::new()
            .with_section("counters", Message::new())
            .with("success", "no")
            .with("errmsg", "no counters found for this connection"),
        Ok(counters) => {
            let mut section = Message::new();
            counters.into_iter().for_each(|(name, own)| section.put_section(&name, own));
            Message::new().with_section("counters", section).with("success", "yes")
        }
        Err(gone) => failed(gone),
    }
}

/// Sets counters to zero: all of them, or those of one connection (`name`).
pub(super) async fn reset_counters(daemon: &Daemon, arguments: &Message) -> Message {
    let name = arguments.text("name").map(str::to_owned);
    match daemon.handle.ask(move |shell| shell.counters.reset(name.as_deref())).await {
        Ok(()) => success(),
        Err(gone) => failed(gone),
    }
}

/// All IKE SAs.
pub(super) async fn ike_sas(daemon: &Daemon) -> Result<Vec<IkeSaReport>, Gone> {
    daemon.handle.ask(|shell| shell.engine.ike_sas()).await
}

/// The dataplane's counters; `None` when it does not answer.
pub(super) async fn statistics(daemon: &Daemon) -> Result<Option<Statistics>, Gone> {
    let answer = daemon.handle.ask(Shell::statistics).await?;
    Ok(tokio::time::timeout(STATISTICS_DEADLINE, answer).await.ok().and_then(Result::ok))
}

fn interfaces(statistics: &Statistics) -> Message {
    let mut section = Message::new();
    for interface in &statistics.interfaces {
        let counters = Message::new()
            .with("mtu", interface.mtu)
            .with("bytes-in", interface.bytes_in)
            .with("packets-in", interface.packets_in)
            .with("bytes-out", interface.bytes_out)
            .with("packets-out", interface.packets_out);
        section.put_section(interface.name.as_str(), counters);
    }
    section
}

/// Key lengths are not part of the names, so a name may come more than once.
fn implemented<'a>(names: impl Iterator<Item = &'a str>) -> Message {
    let mut section = Message::new();
    for name in names {
        if section.node(name).is_none() {
            section.put(name, "charon-rs");
        }
    }
    section
}

/// The two largest units, as `2 days, 3 hours`.
fn uptime(running: Duration) -> String {
    let seconds = running.as_secs();
    let units = [
        ("day", seconds / 86400),
        ("hour", seconds / 3600 % 24),
        ("minute", seconds / 60 % 60),
        ("second", seconds % 60),
    ];
    let parts = units.iter().skip_while(|(_, count)| *count == 0).take(2);
    let parts: Vec<String> =
        parts.map(|(name, count)| format!("{count} {name}{}", if *count == 1 { "" } else { "s" })).collect();
    if parts.is_empty() { "0 seconds".to_owned() } else { parts.join(", ") }
}

fn local_time(at: SystemTime) -> String {
    jiff::Zoned::try_from(at).map_or_else(|_| "unknown".to_owned(), |at| at.strftime("%b %d %H:%M:%S %Y").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_read_as_strongswan_writes_them() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (61, "1 minute, 1 second"),
            (3600, "1 hour, 0 minutes"),
            (2 * 86400 + 3 * 3600, "2 days, 3 hours"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn every_algorithm_is_listed_once() {
        let algorithms = get_algorithms();
        assert_eq!(
            algorithms.section("aead").unwrap().to_string(),
            "{AES_GCM_16=charon-rs CHACHA20_POLY1305=charon-rs AES_GCM_12=charon-rs AES_GCM_8=charon-rs \
             AES_CCM_16=charon-rs AES_CCM_12=charon-rs AES_CCM_8=charon-rs NULL_AES_GMAC=charon-rs}"
        );
        assert!(algorithms.section("dh").unwrap().text("CURVE_25519").is_some());
    }
}
