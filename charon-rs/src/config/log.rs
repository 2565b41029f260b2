//! What is said about the daemon's own log.

use tracing::level_filters::LevelFilter;

use super::item::Item;
use super::source::Complaint;

/// How lines of the daemon's own log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; with priorities where the journal reads them.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

/// All levels, as they are written.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// The level that is written like this.
pub(crate) fn log_level(text: &str) -> Option<LevelFilter> {
    LEVELS.contains(&text).then(|| text.parse().ok()).flatten()
}

/// A level.
pub(super) fn level(item: Item<'_>) -> Result<LevelFilter, Complaint> {
    item.choice(&LEVELS.map(|level| (level, level)))
        .and_then(|level| log_level(level).ok_or_else(|| item.wrong_type("a level such as \"info\"")))
}

/// A level, or levels by module, as `tracing_subscriber::EnvFilter` reads them.
pub(super) fn filter(item: Item<'_>) -> Result<String, Complaint> {
    let text = item.text("a level such as \"info\"")?;
    for directive in text.split(',') {
        let (module, level) = directive.as_str().split_once('=').unwrap_or(("", directive.as_str()));
        let is_level = log_level(&level.to_ascii_lowercase()).is_some();
        if !is_level || (module.is_empty() && directive.as_str().contains('=')) {
            return Err(directive
                .complain(format!("`{}` is no level", directive.as_str()))
                .expected("expected error, warn, info, debug, trace or off, or module=level")
                .nearest(level, LEVELS));
        }
    }
    Ok(text.as_str().to_owned())
}
