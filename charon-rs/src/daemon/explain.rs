//! Why a connection is not up, for people: the failure with the line of the configuration that decides and an edit to paste,
//! and the attempt as a story.

mod advice;
mod keys;

use std::time::SystemTime;

use ike_proto::io::Failure;

use super::applied::Applied;
use super::events;
use super::stories::{Ending, Event, Exchanged, Step, Story};
use crate::vici::Message;

/// A failure with what decides in the configuration, and what to change there.
pub(crate) fn verdict(failure: &Failure, applied: &Applied) -> Message {
    let mut section = events::failure(failure);
    if let Some(advice) = advice::of(failure, applied) {
        section.put("key", &advice.key);
        section.put_some("place", advice.place.as_ref());
        section.put_some("line", advice.line.as_ref());
        section.put_some("edit-at", advice.edit_at.as_ref());
        section.put_list("edit", &advice.edit);
    }
    section
}

/// A story: who began, and step by step what happened. Times are seconds since 1970, those of steps since the beginning.
pub(crate) fn story(story: &Story) -> Message {
    let mut section = Message::new().with("began", events::unix_time(story.began));
    section.put("initiator", if story.by_us { "yes" } else { "no" });
    section.put_some("peer", story.peer);
    section.put(
        "ending",
        match story.ending {
            Ending::Open => "open",
            Ending::Up => "up",
            Ending::Failed(_) => "failed",
        },
    );
    let mut steps = Message::new();
    for (number, step) in story.steps.iter().enumerate() {
        steps.put_section(&(number + 1).to_string(), step_section(step, story.began));
    }
    section.put_section("steps", steps);
    section.put_some("omitted", Some(story.omitted).filter(|omitted| *omitted > 0));
    section
}

fn step_section(step: &Step, began: SystemTime) -> Message {
    let since = |at: SystemTime| {
        let passed = at.duration_since(began).unwrap_or_default();
        format!("{}.{:03}", passed.as_secs(), passed.subsec_millis())
    };
    let mut section = Message::new().with("at", since(step.at));
    match &step.event {
        Event::Note(text) => section.put("note", text),
        Event::Message(Exchanged { path, sent, octets, summary, details, again }) => {
            section.put("sent", if *sent { "yes" } else { "no" });
            section.put("local", path.local);
            section.put("remote", path.remote);
            section.put("octets", octets);
            section.put("message", summary);
            section.put_list("details", details);
            if let Some((count, last)) = again {
                section.put("again", count);
                section.put("again-at", since(*last));
            }
        }
    }
    section
}
