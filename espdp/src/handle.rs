//! What the daemon holds of the dataplane.

mod rounds;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};

use espdp_api::{CaptureSpec, Command, FromDataplane, PolicyId, Secret, ToDataplane, WorkerId};
use tokio::sync::{mpsc, oneshot};

use crate::capture::CaptureQueue;
use crate::control::{self, Control, Request};
use crate::events::Events;
use crate::worker::{Handover, Mailbox, Mailboxes, Ports, Reports, Worker};
use crate::{DataplaneSettings, StartError};
use rounds::{Activation, Departure};

/// A running dataplane. Dropping it stops it, as [`Self::stop`] does.
#[derive(Debug)]
pub struct Dataplane {
    requests: mpsc::UnboundedSender<Request>,
    mailboxes: Mailboxes,
    /// Dropped to end the control thread.
    running: Option<oneshot::Sender<()>>,
    control: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

impl Dataplane {
    /// Opens sockets, starts the threads and clears up after a predecessor that was killed, all in the network namespace of the calling thread. The
    /// receiver gets outcomes and events; its capacity is [`DataplaneSettings::queue`].
    ///
    /// # Errors
    /// [`StartError`] when a socket cannot be opened, for lack of privilege or because a port is taken, or when the routing
    /// rules cannot be read.
    pub fn start(settings: DataplaneSettings) -> Result<(Self, mpsc::Receiver<FromDataplane>), StartError> {
        let (sender, receiver) = mpsc::channel(settings.queue.max(1));
        let events = Events::new(sender);
        let ports = Ports::open_all(&settings)?;
        let lanes = Handover::between(settings.workers).map_err(failed("connect the workers"))?;
        let families = ports.first().map(Ports::families).unwrap_or_default();
        let (too_big, narrow_paths) = mpsc::channel(NARROW_PATHS);
        let (lost, lost_devices) = mpsc::unbounded_channel();
        let mut ends = Vec::new();
        let mut all = Vec::new();
        for _ in settings.workers.ids() {
            let (mailbox, jobs, bell) = Mailbox::new().map_err(failed("make a worker's mailbox"))?;
            all.push(mailbox);
            ends.push((jobs, bell));
        }
        let mailboxes = Mailboxes::new(all);
        let (requests, request_queue) = mpsc::unbounded_channel();
        let (running, stop) = oneshot::channel();
        let mut dataplane =
            Self { requests, mailboxes: mailboxes.clone(), running: Some(running), control: None, workers: Vec::new() };
        for (((id, ports), handover), (jobs, bell)) in settings.workers.ids().zip(ports).zip(lanes).zip(ends) {
            let mut seed = Secret::new([0; 32]);
            getrandom::fill(seed.expose_mut())
                .map_err(|error| failed("get random octets")(io::Error::other(error.to_string())))?;
            let reports = Reports { events: events.clone(), too_big: too_big.clone(), lost: lost.clone() };
            let mut core = espdp_core::Dataplane::new(&seed);
            core.set_crypto_engine(settings.crypto_engine);
            let worker = Worker::new(id, (mailboxes.clone(), handover), ports, core, reports)
                .map_err(failed("make a worker"))?;
            let worker_events = events.clone();
            let run = move || report_failure("worker", &worker_events, || worker.run(&jobs, &bell));
            dataplane.workers.push(spawn(&format!("espdp-worker-{}", id.0), run)?);
        }

        let (started, start_result) = std::sync::mpsc::channel();
        let inputs = control::Inputs { requests: request_queue, narrow_paths, lost_devices, stop };
        let control_events = events.clone();
        let run_control = move || {
            report_failure("control thread", &control_events, || {
                control::run(&started, inputs, || Control::start(settings, families, mailboxes, events));
                Ok(())
            });
        };
        dataplane.control = Some(spawn("espdp-control", run_control)?);
        match start_result.recv() {
            Ok(Ok(())) => Ok((dataplane, receiver)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(failed("start the control thread")(io::Error::other("it ended at once"))),
        }
    }

    /// Hands over a message; never blocks. Every request is answered exactly once through the receiver, unless the dataplane is
    /// stopped before.
    pub fn send(&self, message: ToDataplane) {
        match message {
            // What leaves afterwards may tell the peer that nothing comes on the SA before any more: so it is done at once, and
            // not when the kernel has done what was asked of it earlier.
            ToDataplane::Request(id, Command::Activate { policy, spi }) => {
                let requests = self.requests.clone();
                self.mailboxes.pass_on(Activation::new(id, (policy, spi), requests));
            }
            ToDataplane::Request(id, command) => queue(&self.requests, Request::Todo { id, command }),
            ToDataplane::SendIke { path, message } => self.mailboxes.pass_on(Departure::new(path, message)),
            ToDataplane::SendKeepalive { path } => {
                self.mailboxes.post(WorkerId::FIRST, move |worker| worker.send_keepalive(&path));
            }
        }
    }

    /// Has all workers copy packets to `queue` from now on, instead of to any other one.
    pub fn capture(&self, spec: &CaptureSpec, queue: &CaptureQueue) {
        let (now, clock) = (Instant::now(), SystemTime::now());
        for worker in self.mailboxes.workers().ids() {
            let (spec, queue) = (spec.clone(), queue.clone());
            self.mailboxes.post(worker, move |worker| worker.core.capture(now, clock, spec, Box::new(queue)));
        }
    }

    /// Has packets of other policies copied from now on; `None`: of all.
    pub fn set_captured_policies(&self, policies: Option<&[PolicyId]>) {
        for worker in self.mailboxes.workers().ids() {
            let policies = policies.map(<[_]>::to_vec);
            self.mailboxes.post(worker, move |worker| worker.core.set_captured_policies(policies));
        }
    }

    /// Ends copying: soon no worker has the queue any more.
    pub fn end_capture(&self) {
        for worker in self.mailboxes.workers().ids() {
            self.mailboxes.post(worker, |worker| worker.core.end_capture());
        }
    }

    /// Removes interfaces, routes and rules, and returns when all threads have ended.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        drop(self.running.take());
        join(self.control.take());
        // Only now: the control thread needs the workers to the end.
        for worker in self.mailboxes.workers().ids() {
            self.mailboxes.post(worker, Worker::stop);
        }
        self.workers.drain(..).for_each(|worker| join(Some(worker)));
    }
}

fn queue(requests: &mpsc::UnboundedSender<Request>, request: Request) {
    if requests.send(request).is_err() {
        tracing::error!("the dataplane's control thread has ended");
    }
}

/// Runs the body of a thread; the daemon is told when it fails or panics, since then nothing goes on.
fn report_failure(thread: &str, events: &Events, body: impl FnOnce() -> io::Result<()>) {
    let reason = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("the dataplane's {thread} failed: {error}"),
        Err(_) => format!("the dataplane's {thread} panicked"),
    };
    tracing::error!(reason);
    events.fatal(reason);
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread of the dataplane panicked");
    }
}

/// Reports of packets that were too long for their path which may wait; one is enough to have all paths looked at.
const NARROW_PATHS: usize = 1;

fn failed(operation: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { operation: operation.to_owned(), source }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(failed("start a thread"))
}

#[cfg(test)]
mod tests {
    use espdp_api::Event;

    use super::*;

    #[test]
    fn the_daemon_learns_of_a_thread_that_fails_or_panics_and_of_no_other() {
        let (sender, mut receiver) = mpsc::channel(4);
        let events = Events::new(sender);
        report_failure("worker", &events, || Ok(()));
        report_failure("worker", &events, || Err(io::Error::other("no more packets")));
        report_failure("control thread", &events, || panic!("for the test"));
        let reasons: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        let expected = ["the dataplane's worker failed: no more packets", "the dataplane's control thread panicked"];
        assert_eq!(reasons.len(), expected.len());
        for (message, expected) in reasons.into_iter().zip(expected) {
            let FromDataplane::Event(Event::Fatal { reason }) = message else { panic!("{message:?}") };
            assert_eq!(reason, expected);
        }
    }
}
