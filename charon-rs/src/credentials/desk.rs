//! Signing and verifying on threads of their own: neither the engine nor another SA ever waits for it.

use std::path::Path;
use std::sync::Arc;

use ike_proto::io::{Answer, AskId, CertificateData, ProofRefusal, SignRequest, Verified, VerifyRequest};
use pki::revocation::Status;
use tokio::sync::{Semaphore, mpsc};

use super::refusal::{self, refusal};
use super::revocation::{FetchLimits, Revocation};
use super::store::Store;
use super::verify::OCSP;
use super::{now, sign, verify};

/// Signatures that are made or checked at the same time.
const THREADS: usize = 4;

/// Asks that may wait; more are refused at once. The engine has at most so many half-open SAs by default.
const MAX_WAITING: usize = 1024;

/// Takes the engine's asks and gives the answers back.
pub(crate) struct Desk {
    store: Arc<Store>,
    revocation: Arc<Revocation>,
    answers: mpsc::UnboundedSender<(AskId, Answer)>,
    threads: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Desk {
    /// A desk that knows nothing yet, and sends its answers to `answers`.
    pub(crate) fn new(answers: mpsc::UnboundedSender<(AskId, Answer)>) -> Self {
        let threads = Arc::new(Semaphore::new(THREADS));
        Self {
            store: Arc::default(),
            revocation: Arc::new(Revocation::new(FetchLimits::default(), None, Arc::clone(&threads))),
            answers,
            threads,
            room: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    /// What is known.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What is known, to be changed; asks that wait go on with what was known before.
    pub(crate) fn store_mut(&mut self) -> &mut Store {
        Arc::make_mut(&mut self.store)
    }

    /// Sets how and where CRLs are fetched and kept; what was fetched so far is fetched again.
    pub(crate) fn set_fetching(&mut self, limits: FetchLimits, folder: Option<&Path>) {
        self.revocation = Arc::new(Revocation::new(limits, folder, Arc::clone(&self.threads)));
    }

    /// Forgets the CRLs and OCSP answers that were fetched.
    pub(crate) fn flush(&self) {
        self.revocation.flush();
    }

    /// Makes our proof, some time.
    pub(crate) fn sign(&self, id: AskId, request: Box<SignRequest>) {
        let (store, threads) = (Arc::clone(&self.store), Arc::clone(&self.threads));
        let revocation = Arc::clone(&self.revocation);
        self.serve(id, Answer::Signed, async move {
            let proof = on_thread(&threads, move || sign::sign(&store, &request, now())).await?;
            let mut signed = proof.signed;
            if let Some(link) = proof.staple
                && let Some(data) = revocation.staple(&link).await
            {
                signed.certificates.push(CertificateData { encoding: OCSP, data });
            }
            Ok(signed)
        });
    }

    /// Judges the peer's proof, some time.
    pub(crate) fn verify(&self, id: AskId, request: Box<VerifyRequest>) {
        let (store, threads) = (Arc::clone(&self.store), Arc::clone(&self.threads));
        let revocation = Arc::clone(&self.revocation);
        self.serve(id, Answer::Verified, async move {
            let (known, offline) = (Arc::clone(&store), Arc::clone(&revocation));
            let judge = move || {
                let convinced = verify::verify(&known, &request, now())?;
                let strength = &convinced.demand.constraints.certificates;
                let here = |link| offline.here(&known, link, &convinced.offered, strength);
                let statuses: Vec<Status> = convinced.links.iter().map(here).collect();
                Ok((convinced, statuses))
            };
            let (convinced, statuses) = on_thread(&threads, judge).await?;
            let demand = &convinced.demand;
            for (link, here) in convinced.links.iter().zip(statuses) {
                let status = match here {
                    Status::Good | Status::Revoked { .. } => here,
                    Status::Unknown | Status::Stale { .. } => {
                        revocation.elsewhere(link, here, &demand.constraints.certificates).await
                    }
                };
                if !demand.revocation.accepts(status, &link.source()) {
                    return Err(refusal::status(&link.certificate, status, demand.revocation));
                }
            }
            Ok(Verified { evidence: convinced.evidence })
        });
    }

    /// Runs `work` if there is room, and sends what comes out of it.
    fn serve<T: Send + 'static>(
        &self,
        id: AskId,
        wrap: fn(Result<T, Box<ProofRefusal>>) -> Answer,
        work: impl Future<Output = Result<T, ProofRefusal>> + Send + 'static,
    ) {
        let answers = self.answers.clone();
        let room = Arc::clone(&self.room).try_acquire_owned();
        tokio::spawn(async move {
            let result = match room {
                Ok(_room) => work.await,
                Err(_) => Err(refusal::busy()),
            };
            drop(answers.send((id, wrap(result.map_err(Box::new))))); // fails only when the shell is gone
        });
    }
}

/// Computes on a thread of its own as soon as one is free.
async fn on_thread<T: Send + 'static>(
    threads: &Semaphore,
    work: impl FnOnce() -> Result<T, ProofRefusal> + Send + 'static,
) -> Result<T, ProofRefusal> {
    let failed = |why: String| refusal(ike_proto::io::FailureCode::Local, why);
    let _thread = threads.acquire().await.map_err(|closed| failed(closed.to_string()))?;
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(failed(format!("checking failed: {panic}"))))
}
