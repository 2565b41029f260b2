//! The daemon's own log: how its lines look, and how much is said about which connection.
//!
//! A line about a connection names it in its field `connection`. By that field a connection can have a level of its own, more
//! talkative or more silent than the rest, from the configuration (`log` of a connection) or told while the daemon runs.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use anyhow::Context as _;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// The field by which a line names the connection that it is about.
const CONNECTION: &str = "connection";

/// How much is said about what; all copies are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs {
    levels: Arc<RwLock<Levels>>,
}

#[derive(Debug, Default)]
struct Levels {
    /// What holds where nothing else does.
    base: EnvFilter,
    /// From the configuration.
    file: BTreeMap<String, LevelFilter>,
    /// Told over the control socket, which counts more.
    told: BTreeMap<String, LevelFilter>,
}

/// The level of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnLevel {
    /// The connection.
    pub(crate) connection: String,
    /// The level.
    pub(crate) level: LevelFilter,
    /// Whether it was told while the daemon runs, not in the configuration.
    pub(crate) told: bool,
}

impl Logs {
    /// The log of this process, on its standard error.
    ///
    /// # Errors
    /// When `filter` is none, or there is a log already.
    pub(crate) fn start(filter: &str, format: LogFormat) -> anyhow::Result<Self> {
        let base = EnvFilter::try_new(filter).with_context(|| format!("`{filter}` is no log filter"))?;
        let logs = Self { levels: Arc::new(RwLock::new(Levels { base, ..Levels::default() })) };
        let is_journal = env::var("JOURNAL_STREAM").is_ok_and(|stream| is_our_stderr(&stream));
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        let text = Format::default().with_target(false);
        let lines = match (format, is_journal) {
            (LogFormat::Text, false) => lines.with_ansi(io::stderr().is_terminal()).event_format(text).boxed(),
            // The journal knows the time.
            (LogFormat::Text, true) => lines.with_ansi(false).event_format(ForJournal(text.without_time())).boxed(),
            (LogFormat::Json, false) => lines.json().flatten_event(true).boxed(),
            (LogFormat::Json, true) => {
                lines.json().map_event_format(|json| ForJournal(json.flatten_event(true))).boxed()
            }
        };
        tracing_subscriber::registry().with(lines.with_filter(logs.clone())).try_init()?;
        Ok(logs)
    }

    /// Has these levels hold for connections, as the configuration has them, instead of those that it had before.
    pub(crate) fn set_file(&self, levels: BTreeMap<String, LevelFilter>) {
        self.change(|own| own.file = levels);
    }

    /// Has this level hold for a connection from now on; `None`: what the configuration says.
    pub(crate) fn tell(&self, connection: &str, level: Option<LevelFilter>) {
        self.change(|own| match level {
            Some(level) => drop(own.told.insert(connection.to_owned(), level)),
            None => drop(own.told.remove(connection)),
        });
    }

    /// The levels that the configuration has.
    pub(crate) fn of_file(&self) -> BTreeMap<String, LevelFilter> {
        self.read().file.clone()
    }

    /// What holds where no connection has a level of its own.
    pub(crate) fn base(&self) -> String {
        self.read().base.to_string()
    }

    /// The connections that have a level of their own, by name.
    pub(crate) fn own(&self) -> Vec<OwnLevel> {
        let levels = self.read();
        let names = levels.file.keys().chain(levels.told.keys().filter(|name| !levels.file.contains_key(*name)));
        let mut own: Vec<OwnLevel> = names
            .filter_map(|name| {
                let level = levels.of(name)?;
                Some(OwnLevel { connection: name.clone(), level, told: levels.told.contains_key(name) })
            })
            .collect();
        own.sort_by(|a, b| a.connection.cmp(&b.connection));
        own
    }

    fn change(&self, change: impl FnOnce(&mut Levels)) {
        change(&mut self.levels.write().unwrap_or_else(PoisonError::into_inner));
        // What each place in the program may say is remembered there.
        tracing::callsite::rebuild_interest_cache();
    }

    fn read(&self) -> RwLockReadGuard<'_, Levels> {
        self.levels.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Levels {
    fn of(&self, connection: &str) -> Option<LevelFilter> {
        self.told.get(connection).or_else(|| self.file.get(connection)).copied()
    }

    /// The most talkative level of a connection.
    fn loudest(&self) -> Option<LevelFilter> {
        self.told.values().chain(self.file.values()).max().copied()
    }
}

impl<S: Subscriber> Filter<S> for Logs {
    fn enabled(&self, metadata: &Metadata<'_>, cx: &Context<'_, S>) -> bool {
        let levels = self.read();
        let may_be_wanted = || levels.loudest().is_some_and(|loudest| *metadata.level() <= loudest);
        Filter::<S>::enabled(&levels.base, metadata, cx) || (is_about_connections(metadata) && may_be_wanted())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_about_connections(metadata) {
            return Interest::sometimes();
        }
        Filter::<S>::callsite_enabled(&self.read().base, metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, cx: &Context<'_, S>) -> bool {
        let levels = self.read();
        let mut named = ConnectionOf { levels: &levels, level: None };
        if is_about_connections(event.metadata()) {
            event.record(&mut named);
        }
        match named.level {
            Some(level) => *event.metadata().level() <= level,
            None => Filter::<S>::enabled(&levels.base, event.metadata(), cx),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = self.read();
        let base = Filter::<S>::max_level_hint(&levels.base)?;
        Some(levels.loudest().map_or(base, |loudest| loudest.max(base)))
    }
}

fn is_about_connections(metadata: &Metadata<'_>) -> bool {
    metadata.fields().field(CONNECTION).is_some()
}

/// Finds the level of the connection that a line is about.
struct ConnectionOf<'a> {
    levels: &'a Levels,
    level: Option<LevelFilter>,
}

impl Visit for ConnectionOf<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == CONNECTION {
            self.level = self.levels.of(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == CONNECTION {
            self.level = self.levels.of(&format!("{value:?}"));
        }
    }
}

/// Lines for the journal: each begins with its priority, as sd-daemon(3) has it.
struct ForJournal<F>(F);

impl<S, N, F> FormatEvent<S, N> for ForJournal<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(cx, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// syslog(3)'s number of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Whether `stream`, the device and inode in `JOURNAL_STREAM`, is what our standard error is connected to (systemd.exec(5)).
fn is_our_stderr(stream: &str) -> bool {
    let Ok(status) = rustix::fs::fstat(io::stderr()) else { return false };
    stream
        .split_once(':')
        .is_some_and(|(device, inode)| device.parse() == Ok(status.st_dev) && inode.parse() == Ok(status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap()))
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect()
        }
    }

    impl io::Write for Paper {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Paper {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// Logs at `info` while `body` runs, in the journal's format.
    fn logged(body: impl FnOnce(&Logs, &Paper)) {
        let logs = Logs { levels: Arc::new(RwLock::new(Levels { base: EnvFilter::new("info"), ..Levels::default() })) };
        let paper = Paper::default();
        let text = ForJournal(Format::default().without_time().with_target(false));
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).event_format(text).with_writer(paper.clone());
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(logs.clone()));
        tracing::subscriber::with_default(subscriber, || body(&logs, &paper));
    }

    fn say() {
        let nobody: Option<String> = None;
        tracing::debug!(connection = "a", "detail of a");
        tracing::debug!(connection = %"b", "detail of b");
        tracing::info!(connection = "a", "news of a");
        tracing::info!(connection = Some("b".to_owned()), "news of b");
        tracing::debug!(connection = nobody, "detail of nobody");
        tracing::debug!("detail");
    }

    fn levels(levels: &[(&str, LevelFilter)]) -> BTreeMap<String, LevelFilter> {
        levels.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect()
    }

    #[test]
    fn a_connection_has_a_level_of_its_own_from_one_line_to_the_next() {
        logged(|logs, paper| {
            say();
            let usual = ["<6> INFO news of a connection=\"a\"", "<6> INFO news of b connection=\"b\""];
            assert_eq!(paper.lines(), usual);
            logs.tell("b", Some(LevelFilter::DEBUG));
            say();
            assert_eq!(
                paper.lines(),
                [
                    "<7>DEBUG detail of b connection=b",
                    "<6> INFO news of a connection=\"a\"",
                    "<6> INFO news of b connection=\"b\""
                ]
            );
            logs.set_file(levels(&[("a", LevelFilter::OFF), ("b", LevelFilter::TRACE)]));
            logs.tell("b", Some(LevelFilter::ERROR));
            say();
            assert!(paper.lines().is_empty(), "what is told counts more than the file");
            logs.tell("b", None);
            logs.set_file(BTreeMap::new());
            say();
            assert_eq!(paper.lines(), usual, "all is as it was");
        });
    }

    #[test]
    fn levels_are_shown_with_where_they_are_from() {
        let logs = Logs::default();
        logs.set_file(levels(&[("b", LevelFilter::WARN), ("c", LevelFilter::WARN)]));
        logs.tell("c", Some(LevelFilter::DEBUG));
        logs.tell("a", Some(LevelFilter::OFF));
        let own: Vec<_> = logs.own().into_iter().map(|own| (own.connection, own.level, own.told)).collect();
        let expected =
            [("a", LevelFilter::OFF, true), ("b", LevelFilter::WARN, false), ("c", LevelFilter::DEBUG, true)];
        assert_eq!(own, expected.map(|(name, level, told)| (name.to_owned(), level, told)));
    }

    #[test]
    fn each_line_of_a_message_has_its_priority() {
        logged(|_, paper| {
            tracing::error!("two\nlines");
            tracing::warn!("one");
            assert_eq!(paper.lines(), ["<3>ERROR two", "<3>lines", "<4> WARN one"]);
        });
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let status = rustix::fs::fstat(io::stderr()).unwrap();
        assert!(is_our_stderr(&format!("{}:{}", status.st_dev, status.st_ino)));
        assert!(!is_our_stderr(&format!("{}:{}", status.st_dev, status.st_ino + 1)));
        assert!(!is_our_stderr("8"));
        assert!(!is_our_stderr(""));
    }
}
