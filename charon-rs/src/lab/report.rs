//! What a person, or a program, wants to know at the end.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::ping::PingReport;
use super::rtnl::InterfaceState;
use super::sas::{ChildSa, IkeSa};
use super::tally::Tally;
use super::transfer::TransferReport;
use super::verdict::Check;

/// Everything that a run brought. Serialised, it is the document of `--json`; displayed, the text without.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Whether all checks passed.
    pub(super) passed: bool,
    /// What was checked.
    pub(super) checks: Vec<Check>,
    /// The SAs of both daemons.
    pub(super) gateways: Vec<GatewayReport>,
    /// The interfaces of all nodes, as they were at the end of the traffic.
    pub(super) interfaces: Vec<NodeInterfaces>,
    /// The echo requests.
    pub(super) pings: Vec<PingReport>,
    /// The transfer.
    pub(super) transfer: TransferReport,
    /// What was seen between the gateways.
    pub(super) wire: Tally,
    /// Where everything is.
    pub(super) files: Files,
    /// How to get at what still runs; `null` when nothing does.
    pub(super) kept: Option<Kept>,
}

/// What a daemon knows.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GatewayReport {
    /// Its node.
    pub(super) node: String,
    /// Its IKE SAs.
    pub(super) sas: Vec<IkeSa>,
}

/// The interfaces of a node.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeInterfaces {
    /// The node.
    pub(super) node: String,
    /// Its interfaces but the loopback.
    pub(super) interfaces: Vec<InterfaceState>,
}

/// What is left when all is over.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Files {
    /// The directory of all of them.
    pub(super) directory: PathBuf,
    /// The capture of the link between the gateways.
    pub(super) capture: PathBuf,
    /// Frames in the capture.
    pub(super) captured_frames: u64,
    /// A configuration directory for Wireshark with the keys in it.
    pub(super) wireshark: PathBuf,
    /// The daemons' logs.
    pub(super) logs: Vec<PathBuf>,
    /// Shows the capture, decrypted.
    pub(super) decode_command: String,
}

/// A lab that was left running.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Kept {
    /// For each node, the command that opens a shell in its namespace.
    pub(super) enter: Vec<(String, String)>,
    /// For each gateway, the command that asks its daemon.
    pub(super) control: Vec<(String, String)>,
    /// The command that removes it.
    pub(super) remove: String,
}

impl Files {
    /// The files in `directory`.
    pub(super) fn in_directory(directory: &Path, logs: Vec<PathBuf>) -> Self {
        let (capture, wireshark) = (directory.join("capture.pcap"), directory.join("wireshark"));
        let decode_command = format!("WIRESHARK_CONFIG_DIR={} tshark -r {}", quoted(&wireshark), quoted(&capture));
        Self { directory: directory.to_owned(), capture, captured_frames: 0, wireshark, logs, decode_command }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_sas(f)?;
        write_interfaces(f, &self.interfaces)?;
        self.write_traffic(f)?;
        write_checks(f, &self.checks)?;
        write_files(f, &self.files, &self.gateways)?;
        self.kept.as_ref().map_or(Ok(()), |kept| write!(f, "\n{kept}"))
    }
}

impl Report {
    fn write_sas(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [initiator, responder] = self.gateways.as_slice() else { return Ok(()) };
        for sa in &initiator.sas {
            writeln!(f, "{sa}")?;
            for child in &sa.children {
                writeln!(f, "{child}")?;
                let peer = responder.sas.iter().flat_map(|sa| &sa.children).find(|peer| peer.spi_out == child.spi_in);
                if let Some(peer) = peer {
                    write_counters(f, child, peer)?;
                }
            }
        }
        Ok(())
    }

    fn write_traffic(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Traffic through the tunnel")?;
        for ping in &self.pings {
            let PingReport { destination, sent, received, mean_us } = ping;
            writeln!(
                f,
                "  ping  {destination}: {received} of {sent} answered, {} ms on average",
                milliseconds(*mean_us)
            )?;
        }
        match &self.transfer {
            TransferReport { failure: Some(why), .. } => writeln!(f, "  TCP   {why}")?,
            TransferReport { octets: arrived, seconds, mbit_per_second, .. } => {
                writeln!(f, "  TCP   {} in {seconds:.1} s: {}", octets(*arrived), rate(*mbit_per_second))?;
            }
        }
        let Tally { frames, ike, keepalives, other, leaks, .. } = &self.wire;
        writeln!(
            f,
            "  wire  {frames} frames seen between the gateways: {} ESP, {ike} IKE, {keepalives} keepalives, {other} other, \
             {leaks} readable\n",
            self.wire.esp_packets()
        )
    }
}

/// A table of what the kernel counted.
pub(super) fn write_interfaces(f: &mut fmt::Formatter<'_>, nodes: &[NodeInterfaces]) -> fmt::Result {
    let mut table = Table::new(["Interfaces", "", "MTU", "received", "", "sent", "", "dropped"]);
    for node in nodes {
        for (at, interface) in node.interfaces.iter().enumerate() {
            let name = if interface.up { interface.name.clone() } else { format!("{} (down)", interface.name) };
            table.row([
                if at == 0 { format!("  {}", node.node) } else { String::new() },
                name,
                interface.mtu.to_string(),
                packets(interface.rx_packets),
                octets(interface.rx_bytes),
                packets(interface.tx_packets),
                octets(interface.tx_bytes),
                interface.dropped.to_string(),
            ]);
        }
    }
    writeln!(f, "\n{table}")
}

/// What was checked, a line for each.
pub(super) fn write_checks(f: &mut fmt::Formatter<'_>, checks: &[Check]) -> fmt::Result {
    writeln!(f, "Checks")?;
    for Check { name, passed, found } in checks {
        let separator = if found.is_empty() { "" } else { ": " };
        writeln!(f, "  {} {name}{separator}{found}", if *passed { '✔' } else { '✘' })?;
    }
    Ok(())
}

/// What is left, and how to read it.
pub(super) fn write_files(f: &mut fmt::Formatter<'_>, files: &Files, gateways: &[GatewayReport]) -> fmt::Result {
    let Files { capture, captured_frames, wireshark, logs, decode_command, .. } = files;
    writeln!(f, "\nFiles")?;
    writeln!(f, "  capture  {} ({captured_frames} frames)", capture.display())?;
    writeln!(f, "  keys     {}", wireshark.join("ikev2_decryption_table").display())?;
    writeln!(f, "           {}", wireshark.join("esp_sa").display())?;
    for (at, log) in logs.iter().enumerate() {
        writeln!(f, "  {:7}  {}", if at == 0 { "logs" } else { "" }, log.display())?;
    }
    writeln!(f, "  decode   {decode_command}")?;
    writeln!(f, "           (`wireshark` in place of `tshark` for windows)")?;
    let sas = || gateways.iter().flat_map(|gateway| &gateway.sas);
    let algorithms = sas().flat_map(|sa| sa.children.iter().map(|child| &child.algorithms).chain([&sa.algorithms]));
    if algorithms.into_iter().any(|names| names.contains("CHACHA20_POLY1305")) {
        writeln!(f, "           (Wireshark cannot decrypt ChaCha20-Poly1305)")?;
    }
    Ok(())
}

impl fmt::Display for IkeSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "IKE SA `{}`: {}", self.name, self.state)?;
        writeln!(
            f,
            "  between    {} at {} port {}, the initiator\n             {} at {} port {}, the responder",
            self.local_id, self.local_host, self.local_port, self.remote_id, self.remote_host, self.remote_port
        )?;
        writeln!(f, "  SPIs       initiator {}, responder {}", self.initiator_spi, self.responder_spi)?;
        writeln!(f, "  algorithms {}", self.algorithms)?;
        writeln!(f, "  nonces     initiator {}", self.initiator_nonce)?;
        writeln!(f, "             responder {}", self.responder_nonce)
    }
}

impl fmt::Display for ChildSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carrier = if self.in_udp { "ESP in UDP" } else { "ESP" };
        writeln!(f, "Child SA `{}`: {}, {} mode, {carrier}", self.name, self.state, self.mode.to_lowercase())?;
        writeln!(f, "  SPIs       to responder {:08x}, to initiator {:08x}", self.spi_out, self.spi_in)?;
        let numbers = if self.esn { "64-bit sequence numbers (ESN)" } else { "32-bit sequence numbers" };
        writeln!(f, "  algorithms {}, {numbers}", self.algorithms)?;
        write!(f, "  selectors  {} === {}", self.local_selectors.join(" "), self.remote_selectors.join(" "))
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The lab is still running")?;
        for (at, (node, command)) in self.enter.iter().enumerate() {
            writeln!(f, "  {:7}  {node:9}  {command}", if at == 0 { "enter" } else { "" })?;
        }
        for (at, (node, command)) in self.control.iter().enumerate() {
            writeln!(f, "  {:7}  {node:9}  {command}", if at == 0 { "control" } else { "" })?;
        }
        writeln!(f, "  remove   {}", self.remove)
    }
}

fn write_counters(f: &mut fmt::Formatter<'_>, initiator: &ChildSa, responder: &ChildSa) -> fmt::Result {
    let mut table = Table::new(["  counters", "sent", "", "received", ""]);
    for (name, child) in [("initiator", initiator), ("responder", responder)] {
        table.row([
            format!("  {name}"),
            packets(child.sent.packets),
            octets(child.sent.bytes),
            packets(child.received.packets),
            octets(child.received.bytes),
        ]);
    }
    write!(f, "{table}")
}

/// Columns as wide as their widest cell; numbers to the right, the names in front to the left.
struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn new(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned)] }
    }

    fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = width(column).unwrap_or_default();
                let numeric = cell.starts_with(|c: char| c.is_ascii_digit());
                if numeric { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") }?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn packets(count: u64) -> String {
    if count == 1 { "1 packet".to_owned() } else { format!("{count} packets") }
}

/// Decimal units, as network people count.
fn octets(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let (value, unit) = match count {
        0..1_000 => return format!("{count} B"),
        1_000..1_000_000 => (count as f64 / 1e3, "kB"),
        1_000_000..1_000_000_000 => (count as f64 / 1e6, "MB"),
        _ => (count as f64 / 1e9, "GB"),
    };
    format!("{value:.1} {unit}")
}

/// A rate in the unit that fits.
pub(super) fn rate(mbit_per_second: f64) -> String {
    if mbit_per_second < 1000.0 {
        format!("{mbit_per_second:.0} Mbit/s")
    } else {
        format!("{:.2} Gbit/s", mbit_per_second / 1000.0)
    }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03}", microseconds / 1000, microseconds % 1000)
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["name", "count"]);
        table.row(["a".into(), "7".into()]);
        table.row(["longer".into(), "12345678".into()]);
        assert_eq!(table.to_string(), "name    count\na              7\nlonger  12345678\n");
    }

    #[test]
    fn amounts_have_a_fitting_unit() {
        assert_eq!(
            [0, 999, 1000, 1_500_000, 2_340_000_000].map(octets),
            ["0 B", "999 B", "1.0 kB", "1.5 MB", "2.3 GB"]
        );
        assert_eq!(milliseconds(1042), "1.042");
        assert_eq!([12.3, 999.0, 1780.4].map(rate), ["12 Mbit/s", "999 Mbit/s", "1.78 Gbit/s"]);
    }

    #[test]
    fn a_path_with_blanks_can_be_pasted_into_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/lab-1/x.pcap")), "/tmp/lab-1/x.pcap");
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}
