//! How others get a worker to do something.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use espdp_api::{WorkerId, Workers};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use crate::worker::Worker;

/// What a worker is asked to do, on its own thread and with all that it owns.
pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The sending end of a worker's mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    jobs: Sender<Job>,
    bell: Arc<OwnedFd>,
}

impl Mailbox {
    /// A mailbox, the jobs for the worker, and the descriptor that becomes readable when there are some.
    pub(crate) fn new() -> std::io::Result<(Self, Receiver<Job>, Arc<OwnedFd>)> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (jobs, receiver) = channel();
        Ok((Self { jobs, bell: Arc::clone(&bell) }, receiver, bell))
    }

    /// Hands over a job that needs no answer. Jobs are done in the order in which they are posted.
    pub(crate) fn post(&self, job: impl FnOnce(&mut Worker) + Send + 'static) {
        if self.jobs.send(Box::new(job)).is_err() {
            return; // The worker has ended.
        }
        if let Err(error) = rustix::io::write(&*self.bell, &1u64.to_ne_bytes()) {
            tracing::trace!(%error, "the bell rings already");
        }
    }

    /// Hands over a job and waits for its result.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, WorkerGone> {
        let (answer, result) = oneshot::channel();
        self.post(move |worker| {
            // The one who asked may have given up.
            drop(answer.send(job(worker)));
        });
        result.await.map_err(|_| WorkerGone)
    }
}

/// The mailboxes of all workers, in order; at least one.
#[derive(Clone, Debug)]
pub(crate) struct Mailboxes(Arc<[Mailbox]>);

impl Mailboxes {
    /// Those of `all`; at least one is expected.
    pub(crate) fn new(all: Vec<Mailbox>) -> Self {
        Self(all.into())
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> Workers {
        u8::try_from(self.0.len()).ok().and_then(Workers::new).unwrap_or_default()
    }

    /// Hands a job to one worker.
    pub(crate) fn post(&self, worker: WorkerId, job: impl FnOnce(&mut Worker) + Send + 'static) {
        if let Some(mailbox) = self.0.get(worker.index()) {
            mailbox.post(job);
        }
    }

    /// Hands a job to one worker and waits for its result.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        worker: WorkerId,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, WorkerGone> {
        self.0.get(worker.index()).ok_or(WorkerGone)?.call(job).await
    }

    /// Has a job visit all workers, the last one first, until one of them has done with it; the first worker gets it at the end in any
    /// case. Jobs that are passed on so do not overtake each other, so that what the first worker does happens after what came
    /// earlier has been done wherever it had to be.
    pub(crate) fn pass_on<J: Pass>(&self, job: J) {
        self.pass_on_to(self.workers().ids().next_back(), job);
    }

    fn pass_on_to<J: Pass>(&self, worker: Option<WorkerId>, job: J) {
        let Some(worker) = worker else { return };
        let all = self.clone();
        self.post(worker, move |here| {
            let before = worker.0.checked_sub(1).map(WorkerId);
            if let Some(job) = job.visit(here) {
                all.pass_on_to(before, job);
            }
        });
    }
}

/// A job that visits one worker after the other.
pub(crate) trait Pass: Sized + Send + 'static {
    /// Does what is to be done at this worker, and gives back what is left to do for those with lower numbers.
    fn visit(self, here: &mut Worker) -> Option<Self>;
}

/// The worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dataplane's worker has ended")]
pub(crate) struct WorkerGone;
