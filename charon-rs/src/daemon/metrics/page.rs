//! The page that Prometheus fetches.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use ike_proto::config::Connection;
use ike_proto::io::{ChildState, IkeSaReport, IkeState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{BUCKETS, Carried, ChildName, Histogram, Way};
use crate::credentials::Store;
use crate::daemon::service::Daemon;
use crate::daemon::shell::{Load, Shell, Statistics};

/// The page as text, in the format of OpenMetrics 1.0.
///
/// # Errors
/// When the daemon is shutting down.
pub(in crate::daemon) async fn page(daemon: &Daemon) -> Result<String, crate::daemon::shell::Gone> {
    let asked = Instant::now();
    let mut snapshot = daemon.handle.ask(Snapshot::take).await?;
    snapshot.lag = asked.elapsed();
    snapshot.uptime = daemon.started.1.elapsed();
    let answer = daemon.handle.ask(Shell::statistics).await?;
    if let Ok(Ok(statistics)) = tokio::time::timeout(DEADLINE, answer).await {
        let look = move |shell: &mut Shell| (shell.metrics.carried(statistics.sas.values()), Some(statistics));
        (snapshot.carried, snapshot.statistics) = daemon.handle.ask(look).await?;
    }
    let mut registry = Registry::with_prefix("charon");
    registry.register_collector(Box::new(snapshot));
    let mut page = String::new();
    if let Err(error) = text::encode(&mut page, &registry) {
        tracing::error!(%error, "the metrics cannot be written");
    }
    Ok(page)
}

/// The dataplane answers within this, or the page does without it.
const DEADLINE: Duration = Duration::from_secs(1);

/// Everything on the page.
#[derive(Debug, Default)]
struct Snapshot {
    uptime: Duration,
    /// How long the loop took to get to our question.
    lag: Duration,
    load: Load,
    connections: Vec<ConnectionState>,
    ike_sas: BTreeMap<&'static str, u64>,
    failures: BTreeMap<(String, &'static str), u64>,
    rekeyings: BTreeMap<(String, &'static str), u64>,
    handshakes: BTreeMap<&'static str, Histogram>,
    /// Subject or issuer, kind, and the second since 1970 at which it ends.
    expiries: Vec<(String, &'static str, u64)>,
    carried: BTreeMap<(ChildName, Way), Carried>,
    /// `None` when the dataplane does not answer.
    statistics: Option<Statistics>,
}

/// A connection and its children.
#[derive(Debug)]
struct ConnectionState {
    name: String,
    /// With all its children.
    is_up: bool,
    /// Names, and whether they are up.
    children: Vec<(String, bool)>,
    /// The code of the last failure.
    failure: Option<&'static str>,
}

impl Snapshot {
    fn take(shell: &mut Shell) -> Self {
        let sas = shell.engine.ike_sas();
        let mut ike_sas: BTreeMap<&'static str, u64> = BTreeMap::new();
        for sa in &sas {
            *ike_sas.entry(crate::daemon::report::ike_state(sa.state)).or_default() += 1;
        }
        let failure = |name: &str| {
            let entry = shell.journal.failure(Some(name))?;
            entry.failure.as_ref().map(|failure| failure.code.name())
        };
        let connections = shell.engine.connections().map(|connection| {
            let (is_up, children) = state(connection, &sas);
            let failure = failure(&connection.name);
            ConnectionState { name: connection.name.clone(), is_up, children, failure }
        });
        let connections = connections.collect();
        let expiries = expiries(shell.desk.store());
        Self {
            load: shell.load,
            connections,
            ike_sas,
            failures: shell.metrics.failures.clone(),
            rekeyings: shell.metrics.rekeyings.clone(),
            handshakes: shell.metrics.handshakes.clone(),
            expiries,
            ..Self::default()
        }
    }
}

/// When certificates, CAs and CRLs end: subject or issuer, kind, and the second since 1970.
pub(in crate::daemon) fn expiries(store: &Store) -> Vec<(String, &'static str, u64)> {
    let of = |kind| {
        move |certificate: &pki::certificate::Certificate| {
            (certificate.subject().to_string(), kind, certificate.not_after().0)
        }
    };
    let crls = store.crls().filter_map(|crl| Some((crl.issuer().to_string(), "crl", crl.next_update()?.0)));
    let own = store.certificates().map(of("certificate"));
    own.chain(store.anchors().iter().chain(store.intermediates()).map(of("authority"))).chain(crls).collect()
}

/// Whether a connection is up with all its children, and which of these are.
fn state(connection: &Connection, sas: &[IkeSaReport]) -> (bool, Vec<(String, bool)>) {
    let own = || sas.iter().filter(|sa| sa.connection == connection.name);
    let serves = |name: &str| {
        let mut children = own().flat_map(|sa| &sa.children).filter(|child| child.name == name);
        children.any(|child| matches!(child.state, ChildState::Installed | ChildState::Rekeying))
    };
    let children: Vec<_> = connection.children.iter().map(|child| (child.name.clone(), serves(&child.name))).collect();
    let is_established = own().any(|sa| matches!(sa.state, IkeState::Established | IkeState::Rekeying));
    (is_established && children.iter().all(|(_, is_up)| *is_up), children)
}

impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_daemon(&mut to)?;
        self.encode_tunnels(&mut to)?;
        self.encode_traffic(&mut to)?;
        self.encode_dataplane(&mut to)
    }
}

impl Snapshot {
    fn encode_daemon(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        gauges(to, "build", "The daemon, which is there when this is.", [(version, 1.0)])?;
        gauge(to, "uptime_seconds", "Since the daemon started.", self.uptime.as_secs_f64())?;
        let loop_lag = "How long the daemon's loop took to get to this page's question.";
        gauge(to, "loop_lag_seconds", loop_lag, self.lag.as_secs_f64())?;
        let longest = self.load.longest_turn.as_secs_f64();
        gauge(to, "loop_longest_turn_seconds", "The longest turn of the loop so far.", longest)?;
        counter(to, "loop_turns", "Turns of the daemon's loop.", self.load.turns)?;
        let expiries = self
            .expiries
            .iter()
            .map(|(subject, kind, at)| ([("subject", subject.as_str()), ("kind", *kind)], *at as f64));
        let help = "When certificates, CAs and CRLs end, in seconds since 1970.";
        gauges(to, "expiry_timestamp_seconds", help, expiries)
    }

    fn encode_tunnels(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = |own: &'_ ConnectionState| ("connection", own.name.clone());
        let up = self.connections.iter().map(|own| ([name(own)], on(own.is_up)));
        gauges(to, "connection_up", "Whether a configured connection is up, with all its children.", up)?;
        let down = self.connections.iter().filter(|own| !own.is_up);
        let reasons = down.map(|own| ([name(own), ("reason", own.failure.unwrap_or("NO_FAILURE").to_owned())], 1.0));
        gauges(to, "connection_down_reason", "Why a connection is not up: the code of its last failure.", reasons)?;
        let children = self.connections.iter().flat_map(|own| {
            own.children.iter().map(move |(child, is_up)| ([name(own), ("child", child.clone())], on(*is_up)))
        });
        gauges(to, "child_up", "Whether a configured child is up.", children)?;
        let states = self.ike_sas.iter().map(|(state, count)| ([("state", *state)], *count as f64));
        gauges(to, "ike_sas", "IKE SAs by state.", states)?;
        let failures = self
            .failures
            .iter()
            .map(|((connection, code), count)| ([("connection", connection.as_str()), ("code", *code)], *count));
        counters(to, "failures", "Failures by code; without a connection for peers that none fits.", failures)?;
        let rekeyings = self
            .rekeyings
            .iter()
            .map(|((connection, kind), count)| ([("connection", connection.as_str()), ("kind", *kind)], *count));
        counters(to, "rekeyings", "SAs that were replaced.", rekeyings)?;
        let help = "From the first message of an IKE SA until it is established.";
        let mut metric = to.encode_descriptor("handshake_seconds", help, None, MetricType::Histogram)?;
        for (role, histogram) in &self.handshakes {
            let ends = BUCKETS.into_iter().chain([f64::INFINITY]);
            let beyond = histogram.count - histogram.counts.iter().sum::<u64>();
            let buckets: Vec<(f64, u64)> = ends.zip(histogram.counts.into_iter().chain([beyond])).collect();
            let role = [("role", *role)];
            let mut family = metric.encode_family(&role)?;
            family.encode_histogram::<[(&str, &str); 0]>(histogram.sum, histogram.count, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_traffic(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let labels = |(name, way): &'_ (ChildName, Way)| -> [(&'static str, String); 3] {
            [
                ("connection", name.connection.clone()),
                ("child", name.child.clone()),
                ("direction", way.name().to_owned()),
            ]
        };
        let of =
            |count: fn(&Carried) -> u64| self.carried.iter().map(move |(key, carried)| (labels(key), count(carried)));
        counters(
            to,
            "child_octets",
            "What a child has carried inside, over all its SAs.",
            of(|carried| carried.octets),
        )?;
        counters(
            to,
            "child_packets",
            "Packets that a child has carried, over all its SAs.",
            of(|carried| carried.packets),
        )?;
        let help = "Numbers that the peer used in SAs that are gone and that never passed: lost on the way or at a rekeying, or dropped.";
        let missing = self.carried.iter().filter(|((_, way), _)| *way == Way::In).map(|(key, carried)| {
            let [connection, child, _] = labels(key);
            ([connection, child], carried.missing)
        });
        counters(to, "child_missing_packets", help, missing)?;
        let drops = self.carried.iter().flat_map(|(key, carried)| {
            carried.drops.iter().map(move |(reason, count)| {
                let [connection, child, direction] = labels(key);
                ([connection, child, direction, ("reason", reason.clone())], *count)
            })
        });
        counters(to, "child_drops", "Packets that the SAs of a child have refused.", drops)
    }

    fn encode_dataplane(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let answers = on(self.statistics.is_some());
        gauge(to, "dataplane_up", "Whether the dataplane answers.", answers)?;
        let Some(statistics) = &self.statistics else { return Ok(()) };
        let drops = statistics.drops.iter().map(|drop| ([("reason", drop.reason.as_str())], drop.packets));
        counters(to, "drops", "Packets that were dropped before an SA was known, or without one.", drops)?;
        let ways = |of: fn(&espdp_api::InterfaceReport) -> (u64, u64)| {
            statistics.interfaces.iter().flat_map(move |interface| {
                let (inbound, outbound) = of(interface);
                let labels = |way| [("interface", interface.name.as_str()), ("direction", way)];
                [(labels("in"), inbound), (labels("out"), outbound)]
            })
        };
        let octets = ways(|interface| (interface.bytes_in, interface.bytes_out));
        counters(to, "interface_octets", "What passed an interface, seen from inside.", octets)?;
        let packets = ways(|interface| (interface.packets_in, interface.packets_out));
        counters(to, "interface_packets", "Packets that passed an interface, seen from inside.", packets)?;
        let mtus = statistics
            .interfaces
            .iter()
            .map(|interface| ([("interface", interface.name.as_str())], f64::from(interface.mtu)));
        gauges(to, "interface_mtu_octets", "The longest packet that an interface takes.", mtus)
    }
}

fn on(is_on: bool) -> f64 {
    f64::from(u8::from(is_on))
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    ConstGauge::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauges<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> fmt::Result {
    family(
        to,
        name,
        help,
        MetricType::Gauge,
        values.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value))),
    )
}

fn counters<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let values = values.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
    family(to, name, help, MetricType::Counter, values)
}

fn family<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    values: impl Iterator<Item = (L, impl EncodeMetric)>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ike_proto::io::Notice;

    use super::*;
    use crate::daemon::testing::{self, Wire};
    use crate::daemon::{applied, applied::Origin};

    #[test]
    fn the_page_has_names_states_and_counters_and_no_spi() {
        let (mut shell, _wire) = Wire::shell();
        shell.set_connection(Origin::File, applied::tests::connection("net", 500));
        let now = Instant::now();
        let sa = Box::new(testing::ike_sa());
        let child = Box::new(sa.children.first().unwrap().clone());
        let spi = child.spi_in;
        shell.metrics.on_notice(&Notice::ChildUp { sa, child }, now);
        shell.metrics.on_notice(&Notice::Failure(Box::new(testing::failure(Some("net"), None))), now);
        shell.metrics.on_notice(&Notice::Failure(Box::new(testing::failure(None, None))), now);
        let mut snapshot = Snapshot::take(&mut shell);
        let statistics = espdp_api::SaStatistics {
            spi,
            direction: espdp_api::Direction::Inbound,
            bytes: 4711,
            packets: 7,
            idle_seconds: None,
            sequence: 7,
            drops: Vec::new(),
        };
        snapshot.carried = shell.metrics.carried([statistics].iter());
        snapshot.handshakes.entry("initiator").or_default().observe(Duration::from_secs(40));
        let mut registry = Registry::with_prefix("charon");
        registry.register_collector(Box::new(snapshot));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        for line in [
            "charon_connection_up{connection=\"net\"} 0.0",
            "charon_connection_down_reason{connection=\"net\",reason=\"NO_FAILURE\"} 1.0",
            "charon_failures_total{connection=\"net\",code=\"IKE_NO_PROPOSAL\"} 1",
            "charon_failures_total{connection=\"\",code=\"IKE_NO_PROPOSAL\"} 1",
            "charon_child_octets_total{connection=\"net\",child=\"net\",direction=\"in\"} 4711",
            "charon_handshake_seconds_bucket{le=\"30.0\",role=\"initiator\"} 0",
            "charon_handshake_seconds_bucket{le=\"+Inf\",role=\"initiator\"} 1",
            "charon_dataplane_up 0.0",
        ] {
            assert!(page.lines().any(|own| own == line), "{line}\n---\n{page}");
        }
        assert!(!page.contains(&spi.to_string()), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }

    /// The names of metrics in a text.
    fn names(text: &str) -> std::collections::BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("charon_")).collect()
    }

    #[test]
    fn alerts_and_dashboard_are_about_metrics_that_there_are() {
        let mut registry = Registry::with_prefix("charon");
        let statistics = Some(Statistics::default());
        registry.register_collector(Box::new(Snapshot { statistics, ..Snapshot::default() }));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        let ours = names(&page);
        let rules = include_str!("../../../../etc/prometheus/charon-rs.rules.yml");
        let dashboard = include_str!("../../../../etc/prometheus/charon-rs.grafana.json");
        for name in names(rules).union(&names(dashboard)) {
            let base = name.trim_end_matches("_total").trim_end_matches("_bucket");
            assert!(ours.contains(base), "{name} is no metric of ours: {ours:?}");
        }
    }
}
