//! How others get a worker to do something.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

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

/// The worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dataplane's worker has ended")]
pub(crate) struct WorkerGone;
