//! Why connections are not up.

use std::time::SystemTime;

use ike_proto::config::StartAction;

use super::own::{Tunnel, tunnels};
use super::{failed, success};
use crate::config::nearest;
use crate::daemon::applied::Applied;
use crate::daemon::journal::Entry;
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::daemon::stories::{Ending, Event, Stories, Story};
use crate::daemon::{events, explain};
use crate::vici::{Message, Streamer};

/// Streams one `explain` event for the connection of this name, or with that child: its state, the failure with what decides,
/// and its attempts as stories. Without a name, one for each connection that is not up, without stories. The answer has the
/// refused peers that no connection is for.
pub(super) async fn explain(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let wanted = arguments.text("name").map(str::to_owned);
    let name = wanted.clone();
    let looked = daemon.handle.ask(move |shell| look(shell, name.as_deref())).await;
    let Looked { sections, strangers, nearest } = match looked {
        Ok(looked) => looked,
        Err(gone) => return failed(gone),
    };
    if let Some(wanted) = wanted.filter(|_| sections.is_empty()) {
        let meant = nearest.map_or_else(
            || "`charonctl list` shows all; one without `auto` in its file is not loaded".to_owned(),
            |nearest| format!("did you mean `{nearest}`?"),
        );
        return failed(format!("there is no connection or child `{wanted}`: {meant}"));
    }
    for (name, section) in sections {
        streamer.send("explain", Message::new().with_section(&name, section)).await;
    }
    success().with_section("strangers", strangers)
}

/// What the shell says about it.
struct Looked {
    sections: Vec<(String, Message)>,
    strangers: Message,
    nearest: Option<String>,
}

fn look(shell: &mut Shell, wanted: Option<&str>) -> Looked {
    let tunnels = tunnels(shell, wanted);
    let (applied, stories) = (&shell.applied, &shell.journal.stories);
    let is_shown = |tunnel: &Tunnel| wanted.is_some() || tunnel.state() != "UP" || tunnel.failure.is_some();
    let sections = tunnels.iter().filter(|(_, tunnel)| is_shown(tunnel)).map(|(name, tunnel)| {
        let mut section = summary(name, tunnel, applied, stories);
        if wanted.is_some() {
            add_stories(&mut section, name, stories);
        }
        (name.clone(), section)
    });
    let mut strangers = Message::new();
    for (number, story) in stories.strangers().enumerate() {
        strangers.put_section(&(number + 1).to_string(), stranger(story, applied));
    }
    let names: Vec<String> = applied.connections().map(|connection| connection.name.clone()).collect();
    let nearest = wanted.and_then(|wanted| nearest(wanted, names.iter().map(String::as_str))).map(str::to_owned);
    Looked { sections: sections.collect(), strangers, nearest }
}

/// The state of a connection and, if it is not what it should be, why.
fn summary(name: &str, tunnel: &Tunnel, applied: &Applied, stories: &Stories) -> Message {
    let mut section = Message::new().with("state", tunnel.state());
    if let Some(entry) = &tunnel.failure
        && let Some(verdict) = verdict(entry, applied)
    {
        section.put_section("failure", verdict);
    } else if tunnel.state() != "UP" {
        section.put("why", why_not_up(name, tunnel, stories));
    }
    if let Some((count, since)) = stories.failures(name) {
        section.put("failures", count);
        section.put("failing-since", events::unix_time(since));
    }
    section
}

fn verdict(entry: &Entry, applied: &Applied) -> Option<Message> {
    let failure = entry.failure.as_ref()?;
    Some(explain::verdict(failure, applied).with("time", events::unix_time(entry.at)))
}

/// A connection is not up, and nothing failed.
fn why_not_up(name: &str, tunnel: &Tunnel, stories: &Stories) -> String {
    if let Some(story) = stories.latest(name) {
        match &story.ending {
            Ending::Open => return under_way(story),
            Ending::Failed(failure) => return format!("{}: {}", failure.code.name(), failure.what),
            Ending::Up => {}
        }
    }
    let children = || tunnel.connection.iter().flat_map(|connection| &connection.children);
    let waits = if children().any(|child| child.start == StartAction::Start) {
        "it will be tried again soon"
    } else if children().any(|child| child.start.traps()) {
        "the first packet for it brings it up"
    } else {
        "nothing here brings it up (auto = \"add\"): `charonctl up`, or the peer does"
    };
    match stories.down(name) {
        Some((at, because)) => format!("it went down {} ago, {because}; {waits}", ago(at)),
        None => format!("no attempt was made, and the peer made none that got here; {waits}"),
    }
}

/// What an attempt waits for.
fn under_way(story: &Story) -> String {
    let last = story.steps.iter().rev().find_map(|step| match &step.event {
        Event::Message(message) => Some(message),
        Event::Note(_) => None,
    });
    match last {
        Some(message) if message.sent && story.by_us => {
            let times = message.again.map_or(1, |(count, _)| count + 1);
            let what = message.summary.split(" [").next().unwrap_or_default();
            format!("{} has not answered {what} yet, sent {times} time(s) in {}", message.path.remote, ago(story.began))
        }
        Some(message) => format!("an attempt with {} is under way since {}", message.path.remote, ago(story.began)),
        None => format!("an attempt is under way since {}", ago(story.began)),
    }
}

fn add_stories(section: &mut Message, name: &str, stories: &Stories) {
    let succeeded = stories.succeeded(name);
    let newest = [stories.latest(name), stories.failed(name)].into_iter().flatten().max_by_key(|story| story.began);
    // An attempt that is just under way tells less than the one that failed before.
    let told = newest.map(|newest| match stories.failed(name) {
        Some(failed) if newest.is_open() && newest.steps.len() <= 1 => failed,
        _ => newest,
    });
    if let Some(story) = told {
        section.put_section("story", explain::story(story));
    }
    if let Some(story) = succeeded {
        section.put_section("succeeded", explain::story(story));
    }
}

/// A peer that no connection is for.
fn stranger(story: &Story, applied: &Applied) -> Message {
    let mut section = Message::new();
    if let Ending::Failed(failure) = &story.ending {
        section.put_section("failure", explain::verdict(failure, applied));
    }
    section.with_section("story", explain::story(story))
}

/// A time ago in whole seconds, for sentences.
fn ago(at: SystemTime) -> String {
    format!("{} s", SystemTime::now().duration_since(at).unwrap_or_default().as_secs())
}
