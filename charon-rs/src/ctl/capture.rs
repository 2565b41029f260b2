//! Packets in files.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;

use super::{Error, Outcome, json, refused, text};
use crate::vici::{Client, Message};

/// What is to be done about captures.
#[derive(Debug, Subcommand)]
pub(super) enum Capture {
    /// Begins to write packets; without --inner, --outer and --ike-plain all three
    Start {
        /// The file, which the daemon makes (pcapng, for its user alone)
        file: PathBuf,
        /// Packets inside: before encryption and after decryption
        #[arg(long)]
        inner: bool,
        /// Packets outside: ESP, AH and IKE as on the wire
        #[arg(long)]
        outer: bool,
        /// IKE messages as if nobody had encrypted them; needs no keys
        #[arg(long)]
        ike_plain: bool,
        /// Only what belongs to this connection, or to this policy of the file
        #[arg(long, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(super::complete::connections))]
        connection: Option<String>,
        /// Octets of each packet that are kept [default: all]
        #[arg(long, value_name = "OCTETS")]
        snaplen: Option<u32>,
        /// How long the file may get, with k, M or G [default: 100M]
        #[arg(long, value_name = "SIZE", value_parser = size)]
        limit: Option<u64>,
        /// Packets a second that each worker copies at most [default: 50000]
        #[arg(long, value_name = "PACKETS")]
        rate: Option<u32>,
        /// Write over a file that is no capture
        #[arg(long)]
        force: bool,
    },
    /// Ends it, and shows how it went
    Stop,
    /// Shows how it goes
    Show,
}

pub(super) fn capture(client: &mut Client, what: &Capture, json: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let (answer, file) = match what {
        Capture::Start { file, inner, outer, ike_plain, connection, snaplen, limit, rate, force } => {
            // The daemon has another working folder.
            let file = std::path::absolute(file)?;
            let mut arguments = Message::new().with("file", file.display());
            for (name, is_wanted) in [("inner", inner), ("outer", outer), ("ike-plain", ike_plain), ("force", force)] {
                arguments.put_if(name, *is_wanted);
            }
            arguments.put_some("connection", connection.as_deref());
            arguments.put_some("snaplen", *snaplen);
            arguments.put_some("limit", *limit);
            arguments.put_some("rate", *rate);
            (client.request("capture-start", arguments)?, Some(file))
        }
        Capture::Stop => (client.request("capture-stop", Message::new())?, None),
        Capture::Show => (client.request("capture-show", Message::new())?, None),
    };
    if !answer.is_yes("success") {
        return refused(&answer, json, out);
    }
    match file {
        _ if json => writeln!(out, "{}", json::of(&answer))?,
        Some(file) => writeln!(out, "writing to {}: see `charonctl capture show`", file.display())?,
        None => write_report(out, &answer)?,
    }
    Ok(Outcome::Done)
}

fn write_report(out: &mut dyn Write, report: &Message) -> std::io::Result<()> {
    let state = text::text(report, "state");
    if state == "none" {
        return writeln!(out, "no packets were captured: see `charonctl capture start`");
    }
    let number = |name| text::number(report, name).unwrap_or_default();
    writeln!(out, "{}  {state}", text::text(report, "file"))?;
    let of = report.text("connection").map(|name| format!(" of {name}")).unwrap_or_default();
    writeln!(
        out,
        "  {}{of}, since {}",
        report.list("views").join(", "),
        text::time(text::text(report, "since"), "%T")
    )?;
    let (octets, limit) = (text::octets(number("octets")), text::octets(number("limit")));
    writeln!(out, "  {} packet(s), {octets} of {limit}, {} lost", number("packets"), number("lost"))?;
    report.text("why").map_or(Ok(()), |why| writeln!(out, "  ended because: {why}"))
}

/// A number of octets, with k, M or G for a thousand, a million and a milliard of them.
fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| "expected octets, as 500000, 500k, 100M or 2G".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "that is more than any file has".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = ["4096", "500k", "100M", "2G"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [4096, 500_000, 100_000_000, 2_000_000_000]);
        assert!(["", "M", "x", "-1", "1T", "99999999999G"].iter().all(|text| size(text).is_err()));
    }

    #[test]
    fn a_report_says_how_it_went_and_why_it_ended() {
        let mut report = Message::new().with("state", "ended").with("file", "/run/x").with("connection", "net");
        report.put_list("views", ["inner", "outer"]);
        for (name, value) in [("packets", 3), ("octets", 1200), ("lost", 1), ("limit", 4096)] {
            report.put(name, value);
        }
        report.put("why", "full");
        let mut out = Vec::new();
        write_report(&mut out, &report).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(shown.starts_with("/run/x  ended\n  inner, outer of net, since "), "{shown}");
        assert!(shown.ends_with("\n  3 packet(s), 1.20 kB of 4.10 kB, 1 lost\n  ended because: full\n"), "{shown}");
    }
}
