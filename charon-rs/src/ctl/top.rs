//! `charonctl top`: tunnels, rates, drops and threads, as they are now.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table};

use super::{Error, Outcome, status, text};
use crate::vici::{Client, Message};

/// What the daemon says at one time.
struct Sample {
    at: Instant,
    tunnels: Vec<(String, Message)>,
    stats: Message,
    version: String,
}

/// What has changed between two samples.
struct View {
    title: String,
    tunnels: Vec<TunnelRow>,
    /// Reason and packets per second; all of it so far.
    drops: Vec<(String, f64, u64)>,
    /// Thread and the part of a core that it takes.
    threads: Vec<(String, f64)>,
    interval: Duration,
}

/// One connection.
#[derive(Clone, Debug, Default, PartialEq)]
struct TunnelRow {
    name: String,
    state: String,
    peer: String,
    /// Bits per second.
    bits: [f64; 2],
    packets: [f64; 2],
    drops: f64,
    /// Until the next rekeying of one of its SAs.
    rekey: String,
    why: String,
}

/// The order of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Name,
    Traffic,
}

const WAYS: [&str; 2] = ["in", "out"];

/// Shows what happens until `q` is pressed; with `once`, or where there is no terminal, one look over a second.
pub(super) fn top(client: &mut Client, interval: Duration, once: bool, out: &mut dyn Write) -> Result<Outcome, Error> {
    let first = Sample::take(client)?;
    if once || !io::stdout().is_terminal() {
        std::thread::sleep(interval);
        print(out, &View::between(&first, &Sample::take(client)?, Order::Name))?;
        return Ok(Outcome::Done);
    }
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, client, interval, first);
    ratatui::try_restore()?;
    shown.map(|()| Outcome::Done)
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    client: &mut Client,
    interval: Duration,
    first: Sample,
) -> Result<(), Error> {
    let (mut before, mut now, mut order) = (first, Sample::take(client)?, Order::Name);
    loop {
        let view = View::between(&before, &now, order);
        terminal.draw(|frame| draw(frame, &view))?;
        let due = now.at + interval;
        while event::poll(due.saturating_duration_since(Instant::now()))? {
            let Event::Key(key) = event::read()? else { break };
            let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(());
            }
            if key.code == KeyCode::Char('s') {
                order = if order == Order::Name { Order::Traffic } else { Order::Name };
                break;
            }
        }
        if Instant::now() >= due {
            before = std::mem::replace(&mut now, Sample::take(client)?);
        }
    }
}

impl Sample {
    fn take(client: &mut Client) -> Result<Self, Error> {
        let version = client.request("version", Message::new())?;
        let (tunnels, _) = status::tunnels(client, None)?;
        let stats = client.request("stats", Message::new())?;
        let version = format!("{} {}", text::text(&version, "daemon"), text::text(&version, "version"));
        Ok(Self { at: Instant::now(), tunnels, stats, version })
    }

    /// A counter of every Child SA, by tunnel, IKE SA and Child SA.
    fn counters(&self, key: &str) -> BTreeMap<(&str, &str, &str), u64> {
        let mut counters = BTreeMap::new();
        for (tunnel, section) in &self.tunnels {
            for (ike, sa) in section.section("ike-sas").into_iter().flat_map(Message::sections) {
                for (child, section) in sa.section("child-sas").into_iter().flat_map(Message::sections) {
                    let count = match section.section(key) {
                        Some(drops) => drops.entries().filter_map(|(reason, _)| text::number(drops, reason)).sum(),
                        None => text::number(section, key).unwrap_or_default(),
                    };
                    counters.insert((tunnel.as_str(), ike, child), count);
                }
            }
        }
        counters
    }

    fn section(&self, name: &str) -> BTreeMap<String, u64> {
        let section = self.stats.section(name);
        let entries = section.into_iter().flat_map(|section| {
            section.entries().filter_map(|(name, _)| Some((name.to_owned(), text::number(section, name)?)))
        });
        entries.collect()
    }
}

impl View {
    fn between(before: &Sample, now: &Sample, order: Order) -> Self {
        let interval = now.at.saturating_duration_since(before.at);
        let seconds = interval.as_secs_f64().max(0.001);
        let rates = |key: &str| {
            let (old, new) = (before.counters(key), now.counters(key));
            let mut rates: BTreeMap<String, f64> = BTreeMap::new();
            for (place, count) in new {
                let grown = count.saturating_sub(old.get(&place).copied().unwrap_or_default());
                *rates.entry(place.0.to_owned()).or_default() += grown as f64 / seconds;
            }
            rates
        };
        let bits = WAYS.map(|way| rates(&format!("bytes-{way}")));
        let packets = WAYS.map(|way| rates(&format!("packets-{way}")));
        let drops = WAYS.map(|way| rates(&format!("drops-{way}")));
        let of = |rates: &BTreeMap<String, f64>, name: &str| rates.get(name).copied().unwrap_or_default();
        let mut tunnels: Vec<TunnelRow> = now
            .tunnels
            .iter()
            .map(|(name, section)| TunnelRow {
                name: name.clone(),
                bits: bits.each_ref().map(|rates| of(rates, name) * 8.0),
                packets: packets.each_ref().map(|rates| of(rates, name)),
                drops: drops.iter().map(|rates| of(rates, name)).sum(),
                ..TunnelRow::of(section)
            })
            .collect();
        if order == Order::Traffic {
            let sum = |row: &TunnelRow| row.bits.iter().sum::<f64>();
            tunnels.sort_by(|one, other| sum(other).total_cmp(&sum(one)));
        }
        let growth = |name: &str| {
            let (old, new) = (before.section(name), now.section(name));
            new.into_iter().map(move |(name, count)| {
                let grown = count.saturating_sub(old.get(&name).copied().unwrap_or_default());
                (name, grown as f64 / seconds, count)
            })
        };
        let value = |section: &str, name: &str| {
            now.stats.section(section).and_then(|section| section.text(name)).unwrap_or("-").to_owned()
        };
        let title = format!(
            "{}, up {}, {} IKE SAs ({} half-open)",
            now.version,
            value("uptime", "running"),
            value("ikesas", "total"),
            value("ikesas", "half-open"),
        );
        // Milliseconds of processor time in a second.
        let threads = growth("threads").map(|(name, grown, _)| (name, grown / 1000.0)).collect();
        Self { title, tunnels, drops: growth("drops").collect(), threads, interval }
    }
}

impl TunnelRow {
    fn of(section: &Message) -> Self {
        let sas = || section.section("ike-sas").into_iter().flat_map(Message::sections).map(|(_, sa)| sa);
        let children =
            || sas().flat_map(|sa| sa.section("child-sas")).flat_map(Message::sections).map(|(_, child)| child);
        let configured = || section.section("config").map(|config| config.list("remote_addrs").join(","));
        let peer = sas().find_map(|sa| sa.text("remote-host").map(str::to_owned)).or_else(configured);
        let rekey = sas().chain(children()).filter_map(|sa| text::number(sa, "rekey-time")).min();
        let state = text::text(section, "state").to_owned();
        let failure = section.section("failure").filter(|_| state != "UP");
        Self {
            peer: peer.unwrap_or_default(),
            rekey: rekey.map_or_else(|| "-".to_owned(), text::duration),
            why: failure.map(|failure| text::text(failure, "code").to_owned()).unwrap_or_default(),
            state,
            ..Self::default()
        }
    }

    fn cells(&self) -> [String; 8] {
        let [bits_in, bits_out] = self.bits.map(|rate| per_second(rate, "bit/s"));
        let [packets_in, packets_out] = self.packets;
        [
            self.name.clone(),
            if self.why.is_empty() { self.state.clone() } else { format!("{} {}", self.state, self.why) },
            self.peer.clone(),
            bits_in,
            bits_out,
            format!("{packets_in:.0}/{packets_out:.0}"),
            format!("{:.0}", self.drops),
            self.rekey.clone(),
        ]
    }
}

const HEAD: [&str; 8] = ["NAME", "STATE", "PEER", "IN", "OUT", "PACKETS/S", "DROPS/S", "REKEY IN"];

/// Three figures and a decimal unit.
fn per_second(rate: f64, unit: &str) -> String {
    let mut scaled = rate;
    let mut prefix = "";
    for next in ["k", "M", "G", "T"] {
        if scaled < 1000.0 {
            break;
        }
        (scaled, prefix) = (scaled / 1000.0, next);
    }
    let digits = if prefix.is_empty() || scaled >= 100.0 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    format!("{scaled:.digits$} {prefix}{unit}")
}

fn thread_lines(view: &View) -> Vec<String> {
    view.threads.iter().map(|(name, part)| format!("{name:<18} {:>4.0} %", part * 100.0)).collect()
}

fn drop_lines(view: &View) -> Vec<String> {
    view.drops.iter().map(|(reason, rate, all)| format!("{reason:<18} {rate:>8.0}/s {all:>12}")).collect()
}

fn draw(frame: &mut Frame<'_>, view: &View) {
    let below = u16::try_from(view.drops.len().max(view.threads.len())).unwrap_or(u16::MAX).clamp(1, 10) + 2;
    let [head, tunnels, rest, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(4), Constraint::Length(below), Constraint::Length(1)])
            .areas(frame.area());
    let [drops, threads] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(rest);
    frame.render_widget(Paragraph::new(view.title.as_str()).style(Style::new().add_modifier(Modifier::BOLD)), head);
    let widths = [14, 26, 22, 12, 12, 14, 8, 9].map(Constraint::Min);
    let rows = view.tunnels.iter().map(|row| {
        let color = match row.state.as_str() {
            "UP" => Color::Green,
            "DOWN" => Color::Red,
            _ => Color::Yellow,
        };
        Row::new(row.cells()).style(Style::new().fg(color))
    });
    let header = Row::new(HEAD).style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_widget(Table::new(rows, widths).header(header), tunnels);
    let lines = |lines: Vec<String>| lines.into_iter().map(Line::from).collect::<Vec<_>>();
    let block = |title| Block::bordered().title(title);
    frame.render_widget(Paragraph::new(lines(drop_lines(view))).block(block(" drops without an SA ")), drops);
    frame.render_widget(Paragraph::new(lines(thread_lines(view))).block(block(" threads ")), threads);
    frame.render_widget(format!("q: quit   s: sort by traffic or name   every {:.1?}", view.interval), foot);
}

fn print(out: &mut dyn Write, view: &View) -> io::Result<()> {
    writeln!(out, "{}\n", view.title)?;
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(view.tunnels.iter().map(|row| row.cells().to_vec()));
    text::table(out, &rows)?;
    for (title, lines) in [("drops without an SA", drop_lines(view)), ("threads", thread_lines(view))] {
        if !lines.is_empty() {
            writeln!(out, "\n{title}")?;
            lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn sample(at: Instant, children: &[(&str, u64)], dropped: u64) -> Sample {
        let mut sas = Message::new();
        for (name, octets) in children {
            let child = Message::new().with("bytes-in", octets).with("packets-in", octets / 100).with("rekey-time", 70);
            let drops = Message::new().with("replay", octets / 1000);
            sas.put_section(name, child.with_section("drops-in", drops));
        }
        let sa = Message::new().with("remote-host", "192.0.2.9").with_section("child-sas", sas);
        let up = Message::new().with("state", "UP").with_section("ike-sas", Message::new().with_section("1", sa));
        let failure = Message::new().with("code", "PEER_SILENT");
        let down = Message::new().with("state", "DOWN").with_section("failure", failure);
        let stats = Message::new()
            .with_section("uptime", Message::new().with("running", "2 hours"))
            .with_section("drops", Message::new().with("unknown-spi", dropped))
            .with_section("threads", Message::new().with("espdp-0", dropped * 5));
        let tunnels = vec![("idle".to_owned(), down), ("net".to_owned(), up)];
        Sample { at, tunnels, stats, version: "charon-rs 1".to_owned() }
    }

    #[test]
    fn rates_are_what_was_added_by_each_sa_also_when_one_is_replaced() {
        let start = Instant::now();
        let before = sample(start, &[("net-1", 10_000)], 100);
        let now = sample(start + Duration::from_secs(2), &[("net-1", 30_000), ("net-2", 5_000)], 300);
        let view = View::between(&before, &now, Order::Traffic);
        let row = view.tunnels.first().unwrap();
        assert_eq!((row.name.as_str(), row.bits, row.packets), ("net", [100_000.0, 0.0], [125.0, 0.0]));
        assert!((row.drops - 12.5).abs() < 1e-9, "{}", row.drops);
        assert_eq!(view.drops, [("unknown-spi".to_owned(), 100.0, 300)]);
        assert_eq!(view.threads, [("espdp-0".to_owned(), 0.5)]);
        let later = sample(start + Duration::from_secs(4), &[("net-2", 5_000)], 300);
        let view = View::between(&now, &later, Order::Name);
        assert_eq!(view.tunnels.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["idle", "net"]);
        assert!(view.tunnels.iter().all(|row| row.bits == [0.0; 2]));
    }

    #[test]
    fn the_screen_shows_tunnels_their_rates_and_why_one_is_down() {
        let start = Instant::now();
        let before = sample(start, &[("net-1", 0)], 0);
        let now = sample(start + Duration::from_secs(1), &[("net-1", 2_500_000)], 4);
        let view = View::between(&before, &now, Order::Name);
        let mut terminal = Terminal::new(TestBackend::new(130, 20)).unwrap();
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        let screen = terminal.backend().to_string();
        for wanted in ["charon-rs 1, up 2 hours", "DOWN PEER_SILENT", "20.0 Mbit/s", "25000/0", "1m 10s", "unknown-spi"]
        {
            assert!(screen.contains(wanted), "{wanted}\n{screen}");
        }
        let mut printed = Vec::new();
        print(&mut printed, &view).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.contains("20.0 Mbit/s") && printed.contains("espdp-0"), "{printed}");
    }
}
