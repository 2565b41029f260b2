//! Following single packets through the dataplane.

use std::collections::BTreeMap;
use std::net::IpAddr;

use espdp_api::{AddressRange, Command, Direction, Done, EspSpi, PacketTrace, PolicyId, TraceFilter, TraceStep};
use ipnet::IpNet;
use tokio::time::timeout;

use super::query::STATISTICS_DEADLINE;
use super::{failed, success};
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::vici::{Message, Streamer};

/// Has the next packets traced: how many (`packets`), and which (`direction`, `spi`, `addresses`, `protocol`, `port`,
/// `dropped`, all of them optional).
pub(super) async fn add(daemon: &Daemon, arguments: &Message) -> Message {
    let command = match (number::<usize>(arguments, "packets"), filter(arguments)) {
        (Ok(Some(packets)), Ok(filter)) => Command::Trace { packets, filter },
        (Ok(None), _) => return failed("`packets` is missing: how many are to be traced?"),
        (Err(why), _) | (_, Err(why)) => return failed(why),
    };
    match ask(daemon, command).await {
        Ok(_) => success(),
        Err(why) => failed(why),
    }
}

/// Streams one `trace` event for each packet that was traced: when, which way, and its steps, each with a stable name and as
/// people say it.
pub(super) async fn show(daemon: &Daemon, streamer: &Streamer) -> Message {
    match ask(daemon, Command::ReadTraces).await {
        Ok(Done::Traces(traces)) => {
            let named = |shell: &mut Shell| {
                shell.applied.manual.policies().map(|(id, policy)| (id, policy.name.clone())).collect()
            };
            let names: BTreeMap<PolicyId, String> = daemon.handle.ask(named).await.unwrap_or_default();
            for trace in &traces {
                streamer.send("trace", event(trace, &names)).await;
            }
            success().with("packets", traces.len())
        }
        Ok(_) => failed("the dataplane answered something else"),
        Err(why) => failed(why),
    }
}

pub(super) async fn ask(daemon: &Daemon, command: Command) -> Result<Done, String> {
    let answer = daemon.handle.ask(|shell| shell.ask_dataplane(command)).await.map_err(|gone| gone.to_string())?;
    match timeout(STATISTICS_DEADLINE, answer).await {
        Ok(Ok(outcome)) => outcome.map_err(|refusal| refusal.to_string()),
        Ok(Err(_)) | Err(_) => Err("the dataplane does not answer".to_owned()),
    }
}

/// A traced packet; policies are called by their `names` where they have some.
fn event(trace: &PacketTrace, names: &BTreeMap<PolicyId, String>) -> Message {
    let direction = match trace.direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    };
    let micros = trace.at.as_micros();
    let mut message = Message::new().with("after-us", micros).with("direction", direction);
    message.put_list("steps", trace.steps.iter().map(|step| step.name()));
    message.put_list("texts", trace.steps.iter().map(|step| text(step, names)));
    message
}

fn text(step: &TraceStep, names: &BTreeMap<PolicyId, String>) -> String {
    if let TraceStep::Policy { id, action } = step
        && let Some(name) = names.get(id)
    {
        return format!("policy `{name}` says {action}");
    }
    step.to_string()
}

fn filter(arguments: &Message) -> Result<TraceFilter, String> {
    let direction = match arguments.text("direction") {
        None => None,
        Some("in") => Some(Direction::Inbound),
        Some("out") => Some(Direction::Outbound),
        Some(other) => return Err(format!("`{other}` is no direction: `in` or `out`")),
    };
    let spi = match arguments.text("spi") {
        None => None,
        Some(text) => Some(spi(text).ok_or_else(|| format!("`{text}` is no SPI: eight hexadecimal digits"))?),
    };
    let addresses = match arguments.text("addresses") {
        None => None,
        Some(text) => Some(addresses(text).ok_or_else(|| format!("`{text}` is no address and no network"))?),
    };
    Ok(TraceFilter {
        direction,
        spi,
        addresses,
        protocol: number(arguments, "protocol")?,
        port: number(arguments, "port")?,
        dropped: arguments.is_yes("dropped"),
    })
}

fn spi(text: &str) -> Option<EspSpi> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    EspSpi::try_from(u32::from_str_radix(digits, 16).ok()?).ok()
}

/// An address, or all addresses of a network.
fn addresses(text: &str) -> Option<AddressRange> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(AddressRange::single(address));
    }
    let network: IpNet = text.parse().ok()?;
    AddressRange::new(network.network(), network.broadcast()).ok()
}

pub(super) fn number<T: std::str::FromStr>(arguments: &Message, name: &str) -> Result<Option<T>, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number for `{name}`"));
    arguments.text(name).map(number).transpose()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use espdp_api::PolicyAction;

    use super::*;

    #[test]
    fn a_filter_is_read_from_what_the_tool_says() {
        let said = Message::new()
            .with("direction", "in")
            .with("spi", "0xc0000001")
            .with("addresses", "10.1.0.0/16")
            .with("protocol", 6)
            .with("port", 443)
            .with("dropped", "yes");
        let filter = filter(&said).unwrap();
        assert_eq!(filter.direction, Some(Direction::Inbound));
        assert_eq!(filter.spi.map(EspSpi::value), Some(0xc000_0001));
        let addresses = filter.addresses.unwrap();
        assert_eq!(addresses.to_string(), "10.1.0.0/16");
        assert_eq!((filter.protocol, filter.port, filter.dropped), (Some(6), Some(443), true));
        assert_eq!(super::filter(&Message::new()).unwrap(), TraceFilter::default());
        let one = super::filter(&Message::new().with("addresses", "fd01::1")).unwrap().addresses.unwrap();
        assert_eq!((one.start(), one.end()), ("fd01::1".parse().unwrap(), "fd01::1".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (name, bad) in [
            ("direction", "up"),
            ("spi", "xyz"),
            ("spi", "7"),
            ("addresses", "10.1"),
            ("protocol", "300"),
            ("port", "a"),
        ] {
            let why = filter(&Message::new().with(name, bad)).unwrap_err();
            assert!(why.contains(&format!("`{bad}`")), "{why}");
        }
    }

    #[test]
    fn an_event_has_names_and_sentences() {
        let action = PolicyAction::Discard;
        let steps = vec![
            TraceStep::Policy { id: PolicyId(9), action },
            TraceStep::Policy { id: PolicyId(3), action },
            TraceStep::Dropped { reason: "selectors".to_owned() },
        ];
        let trace = PacketTrace { at: Duration::from_millis(2), direction: Direction::Inbound, steps };
        let event = event(&trace, &BTreeMap::from([(PolicyId(9), "rest".to_owned())]));
        assert_eq!((event.text("after-us"), event.text("direction")), (Some("2000"), Some("in")));
        assert_eq!(event.list("steps"), ["policy", "policy", "dropped"]);
        assert_eq!(event.list("texts"), ["policy `rest` says discard", "policy 3 says discard", "dropped: selectors"]);
    }
}
