//! Packets in files.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::trace::number;
use super::{failed, success};
use crate::daemon::capture::{Ending, Report, Wish, open};
use crate::daemon::events;
use crate::daemon::service::Daemon;
use crate::daemon::shell::{Handle, Shell};
use crate::vici::Message;

/// Begins to write packets to `file`: of which viewpoints (`inner`, `outer`, `ike-plain`; none of them: of all), of which `connection`,
/// how much of each (`snaplen`), how much in all (`limit`), how many a second (`rate`), and whether a file that is no capture is written
/// over (`force`).
pub(super) async fn start(daemon: &Daemon, arguments: &Message) -> Message {
    let wish = match wish(arguments) {
        Ok(wish) => wish,
        Err(why) => return failed(why),
    };
    let wanted = wish.clone();
    match daemon.handle.ask(move |shell| shell.may_capture(&wanted)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return failed(error),
        Err(gone) => return failed(gone),
    }
    let (path, force) = (wish.file.clone(), arguments.is_yes("force"));
    let file = match tokio::task::spawn_blocking(move || open(&path, force)).await {
        Ok(Ok(file)) => file,
        Ok(Err(error)) => return failed(error),
        Err(panic) => return failed(panic),
    };
    match daemon.handle.ask(move |shell| shell.begin_capture(wish, file)).await {
        Ok(Ok(full)) => {
            tokio::spawn(end_when(full, daemon.handle.clone()));
            success()
        }
        Ok(Err(error)) => failed(error),
        Err(gone) => failed(gone),
    }
}

/// Ends the capture when no more can be written.
async fn end_when(full: oneshot::Receiver<()>, handle: Handle) {
    // Otherwise somebody has ended it.
    if full.await.is_ok() {
        drop(handle.ask(Shell::end_capture).await); // without a shell nothing runs any more
    }
}

/// Ends the capture that runs, and tells how it went when everything is in the file.
pub(super) async fn stop(daemon: &Daemon) -> Message {
    let written = match daemon.handle.ask(Shell::end_capture).await {
        Ok(Some(written)) => written,
        Ok(None) => return failed("no capture runs"),
        Err(gone) => return failed(gone),
    };
    if timeout(DEADLINE, written).await.is_err() {
        return failed("the file is not complete yet: see `charonctl capture show`");
    }
    show(daemon).await
}

/// Tells how the capture goes that runs, or how the last one went.
pub(super) async fn show(daemon: &Daemon) -> Message {
    match daemon.handle.ask(|shell| shell.captures.report()).await {
        Ok(Some(report)) => section(&report),
        Ok(None) => success().with("state", "none"),
        Err(gone) => failed(gone),
    }
}

fn section(report: &Report) -> Message {
    let Report { wish, began, packets, octets, lost, ending } = report;
    let (state, why) = match ending {
        None => ("running", None),
        Some(Ending::Stopped) => ("ended", None),
        Some(Ending::Full) => ("ended", Some("the file is as long as it may be".to_owned())),
        Some(Ending::Failed(why)) => ("ended", Some(why.clone())),
    };
    let mut message = success().with("state", state).with("file", wish.file.display());
    let views = [("inner", wish.inside), ("outer", wish.outside), ("ike-plain", wish.ike_plain)];
    message.put_list("views", views.iter().filter(|(_, is_wanted)| *is_wanted).map(|(name, _)| *name));
    message.put_some("connection", wish.connection.as_deref());
    message.put("since", events::unix_time(*began));
    message.put("packets", packets);
    message.put("octets", octets);
    message.put("lost", lost);
    message.put("limit", wish.limit);
    message.put_some("why", why);
    message
}

fn wish(arguments: &Message) -> Result<Wish, String> {
    let file = arguments.text("file").ok_or("`file` is missing: where are packets to be written?")?;
    let [inside, outside, ike_plain] = ["inner", "outer", "ike-plain"].map(|view| arguments.is_yes(view));
    let is_all = !(inside || outside || ike_plain);
    let snaplen = number::<usize>(arguments, "snaplen")?.unwrap_or(SNAPLEN);
    let limit = number::<u64>(arguments, "limit")?.unwrap_or(LIMIT);
    let rate = number(arguments, "rate")?.unwrap_or(RATE);
    if !(SHORTEST..=SNAPLEN).contains(&snaplen) {
        return Err(format!("snaplen {snaplen}: expected {SHORTEST} to {SNAPLEN} octets"));
    }
    if limit < SMALLEST {
        return Err(format!("limit {limit}: expected at least {SMALLEST} octets"));
    }
    Ok(Wish {
        file: PathBuf::from(file),
        inside: inside || is_all,
        outside: outside || is_all,
        ike_plain: ike_plain || is_all,
        connection: arguments.text("connection").map(str::to_owned),
        snaplen,
        limit,
        rate,
    })
}

/// What waits in the queue is in the file within this, unless the disk stands still.
const DEADLINE: Duration = Duration::from_secs(10);
/// Octets of a packet that are kept unless somebody wants less: all of any.
const SNAPLEN: usize = 262_144;
/// Less than this has no addresses.
const SHORTEST: usize = 64;
/// Octets of a file unless somebody wants more.
const LIMIT: u64 = 100_000_000;
/// Less than this has no room for anything.
const SMALLEST: u64 = 4096;
/// Packets a second unless somebody wants more.
const RATE: u32 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_about_it_everything_is_wanted() {
        let all = wish(&Message::new().with("file", "/tmp/x")).unwrap();
        assert!(all.inside && all.outside && all.ike_plain);
        let one = wish(&Message::new().with("file", "/tmp/x").with("outer", "yes").with("snaplen", 96)).unwrap();
        assert_eq!((one.inside, one.outside, one.ike_plain, one.snaplen), (false, true, false, 96));
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        assert!(wish(&Message::new()).unwrap_err().contains("`file` is missing"));
        for (name, bad) in [("snaplen", "63"), ("snaplen", "999999999"), ("limit", "1"), ("rate", "fast")] {
            let why = wish(&Message::new().with("file", "/x").with(name, bad)).unwrap_err();
            assert!(why.contains(name) && why.contains(bad), "{why}");
        }
    }
}
