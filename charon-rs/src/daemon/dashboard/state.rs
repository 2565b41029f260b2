//! Everything that the page shows, in one document.

use serde_json::{Value, json};

use crate::daemon::commands;
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::vici::{Message, Streamer};

/// The document. What the daemon cannot tell is left out.
pub(super) async fn state(daemon: &Daemon) -> Value {
    let (tunnels, _) = ask(daemon, "list-tunnels", Message::new()).await;
    let (_, stats) = ask(daemon, "stats", Message::new()).await;
    let expiries = daemon.handle.ask(expiries).await.unwrap_or_default();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "tunnels": sections(&tunnels),
        "stories": stories(daemon, &tunnels).await,
        "stats": stats.as_ref().map(crate::ctl::json_of),
        "expiries": expiries,
    })
}

/// Has a command of the control socket carried out: what it streams, and its answer.
async fn ask(daemon: &Daemon, name: &str, arguments: Message) -> (Vec<Message>, Option<Message>) {
    let (streamer, mut events) = Streamer::channel();
    let call = async move { commands::call(daemon, name, &arguments, &streamer).await };
    let collect = async {
        let mut all = Vec::new();
        while let Some((_, message)) = events.recv().await {
            all.push(message);
        }
        all
    };
    let (answer, events) = tokio::join!(call, collect);
    (events, answer)
}

/// Why those are not up that are not, by their names.
async fn stories(daemon: &Daemon, tunnels: &[Message]) -> Value {
    let mut stories = serde_json::Map::new();
    let down = tunnels.iter().flat_map(Message::sections).filter(|(_, tunnel)| tunnel.text("state") != Some("UP"));
    for (name, _) in down.take(STORIES) {
        let (told, _) = ask(daemon, "explain", Message::new().with("name", name)).await;
        let told: String =
            told.iter().flat_map(Message::sections).map(|(own, section)| crate::ctl::story_of(own, section)).collect();
        stories.insert(name.to_owned(), told.into());
    }
    stories.into()
}

/// Stories on a page at most: whoever has more failures than this has one cause for many.
const STORIES: usize = 16;

/// The sections of all messages by their names.
fn sections(messages: &[Message]) -> Value {
    let sections = messages.iter().flat_map(Message::sections);
    sections
        .map(|(name, section)| (name.to_owned(), crate::ctl::json_of(section)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Subject or issuer, kind, and the second since 1970 at which it ends.
fn expiries(shell: &mut Shell) -> Vec<Value> {
    let expiries = crate::daemon::metrics::expiries(shell.desk.store());
    expiries.into_iter().map(|(subject, kind, at)| json!({"subject": subject, "kind": kind, "ends": at})).collect()
}
