//! Following single packets through the gateway.

use std::io::Write;

use clap::Subcommand;

use super::{Error, Outcome, json, refused, text};
use crate::vici::{Client, Message};

/// What is to be done about traces.
#[derive(Debug, Subcommand)]
pub(super) enum Trace {
    /// Follows the next packets; what was traced before is forgotten
    Add {
        /// How many, at most 1000; 0 ends it
        packets: u32,
        /// Only packets that come from outside (in) or go there (out)
        #[arg(long, value_name = "DIRECTION", value_parser = ["in", "out"])]
        direction: Option<String>,
        /// Only packets of the SA with this SPI, in hexadecimal digits
        #[arg(long)]
        spi: Option<String>,
        /// Only inner packets from or to this address or network
        #[arg(long, value_name = "ADDRESS[/LENGTH]")]
        addresses: Option<String>,
        /// Only inner packets of this IP protocol
        #[arg(long, value_name = "NUMBER")]
        protocol: Option<u8>,
        /// Only inner packets from or to this port
        #[arg(long)]
        port: Option<u16>,
        /// Only packets that are dropped
        #[arg(long)]
        dropped: bool,
    },
    /// Shows the packets that were followed, step by step
    Show,
}

pub(super) fn trace(client: &mut Client, what: &Trace, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let Trace::Add { packets, direction, spi, addresses, protocol, port, dropped } = what else {
        return show(client, json, out);
    };
    let mut arguments = Message::new().with("packets", packets);
    arguments.put_some("direction", direction.as_deref());
    arguments.put_some("spi", spi.as_deref());
    arguments.put_some("addresses", addresses.as_deref());
    arguments.put_some("protocol", *protocol);
    arguments.put_some("port", *port);
    arguments.put_if("dropped", *dropped);
    let answer = client.request("trace-packets", arguments)?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        writeln!(out, "{}", json::of(&answer))?;
    } else if *packets == 0 {
        writeln!(out, "no packets are followed any more")?;
    } else {
        writeln!(out, "following {packets} packet(s): see `charonctl trace show`")?;
    }
    Ok(Outcome::Done)
}

fn show(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let mut traces = Vec::new();
    let answer = client.stream("trace", "list-traces", Message::new(), |trace| traces.push(trace))?;
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    if json {
        let traces: Vec<_> = traces.iter().map(json::of).collect();
        writeln!(out, "{}", serde_json::Value::from(traces))?;
    } else if traces.is_empty() {
        writeln!(out, "no packet was followed: see `charonctl trace add`")?;
    } else {
        traces.iter().enumerate().try_for_each(|(at, trace)| write_trace(out, at + 1, trace))?;
    }
    Ok(Outcome::Done)
}

fn write_trace(out: &mut dyn Write, number: usize, trace: &Message) -> std::io::Result<()> {
    let micros = text::number(trace, "after-us").unwrap_or_default();
    writeln!(out, "packet {number}, {}, after {}.{:06} s", way(trace), micros / 1_000_000, micros % 1_000_000)?;
    trace.list("texts").iter().try_for_each(|step| writeln!(out, "  {step}"))
}

/// Which way a packet went.
fn way(trace: &Message) -> &'static str {
    if trace.text("direction") == Some("in") { "inbound" } else { "outbound" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_a_heading_and_a_line_for_each_step() {
        let mut trace = Message::new().with("after-us", 1_002_003).with("direction", "in");
        trace.put_list("texts", ["from outside", "dropped: replay"]);
        let mut out = Vec::new();
        write_trace(&mut out, 2, &trace).unwrap();
        let expected = "packet 2, inbound, after 1.002003 s\n  from outside\n  dropped: replay\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
