//! Whether the certificates of a path were revoked.
//!
//! Asked in this order, until somebody knows: OCSP answers and CRLs that the peer sent, CRLs of files, OCSP responders, CRLs
//! over HTTP. Of all of them only what the right CA signed counts.
//!
//! | module | what lives there |
//! |---|---|
//! | `fetch` | HTTP |
//! | `cache`, `disk` | what was fetched already |
//! | `known` | CRLs whose signatures were checked already |

mod cache;
mod disk;
mod fetch;
mod known;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pki::certificate::Certificate;
use pki::crl::{Crl, VerifiedCrl};
use pki::ocsp;
use pki::path::{Strength, ValidPath};
use pki::revocation::{Source, Status, sources};
use pki::time::UnixTime;
use tokio::sync::Semaphore;

use self::cache::{Cache, Held, Key};
use self::disk::Disk;
pub use self::fetch::FetchLimits;
use self::fetch::{FetchError, Fetcher, MAX_OCSP, Query};
use self::known::KnownCrls;
use super::store::Store;
use super::{now, rng};

/// What could not be fetched is not tried again for this long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What does not say how long it holds is fetched again after this.
const DEFAULT_VALIDITY: Duration = Duration::from_secs(3600);

/// Octets of a nonce (RFC 9654 §2.1).
const NONCE: usize = 32;

/// A certificate with who issued it, and where to ask about it. It comes only from a path that is right: nobody else's word
/// makes us connect anywhere (CVE-2022-40617).
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) certificate: Certificate,
    issuer: Certificate,
    ocsp_uris: Vec<String>,
    crl_uris: Vec<String>,
    delta_uris: Vec<String>,
}

/// What a peer sent about revocation; nothing is believed of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Offered {
    /// OCSP responses (RFC 4806).
    pub(super) ocsp: Vec<Vec<u8>>,
    /// CRLs.
    pub(super) crls: Vec<Vec<u8>>,
}

impl Link {
    /// The links of a path.
    pub(super) fn of(path: &ValidPath<'_>, store: &Store) -> Vec<Self> {
        let owned = |uris: Vec<&str>| uris.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let link = |source: Source<'_>| {
            let mut link = Self {
                certificate: source.certificate.clone(),
                issuer: source.issuer.clone(),
                ocsp_uris: owned(source.ocsp_uris),
                crl_uris: owned(source.crl_uris),
                delta_uris: owned(source.delta_uris),
            };
            for places in store.places_of(source.issuer) {
                link.ocsp_uris.extend_from_slice(&places.ocsp_uris);
                link.crl_uris.extend_from_slice(&places.crl_uris);
            }
            link
        };
        sources(path).into_iter().map(link).collect()
    }

    /// As the library asks for it.
    pub(super) fn source(&self) -> Source<'_> {
        Source {
            certificate: &self.certificate,
            issuer: &self.issuer,
            ocsp_uris: self.ocsp_uris.iter().map(String::as_str).collect(),
            crl_uris: self.crl_uris.iter().map(String::as_str).collect(),
            delta_uris: self.delta_uris.iter().map(String::as_str).collect(),
        }
    }
}

/// Finds out about certificates.
#[derive(Debug)]
pub(super) struct Revocation {
    known: KnownCrls,
    fetcher: Fetcher,
    crls: Cache<Arc<Crl>>,
    answers: Cache<Vec<u8>>,
    disk: Disk,
    limits: FetchLimits,
    /// Signatures that are checked at the same time, here and elsewhere.
    threads: Arc<Semaphore>,
}

impl Revocation {
    /// One that keeps CRLs in `folder` and computes when one of `threads` is free.
    pub(super) fn new(limits: FetchLimits, folder: Option<&Path>, threads: Arc<Semaphore>) -> Self {
        Self {
            known: KnownCrls::default(),
            fetcher: Fetcher::default(),
            crls: Cache::default(),
            answers: Cache::default(),
            disk: Disk::new(folder),
            limits,
            threads,
        }
    }

    /// Forgets what was fetched.
    pub(super) fn flush(&self) {
        self.crls.clear();
        self.answers.clear();
        self.disk.clear();
    }

    /// What is known of a certificate without asking anybody.
    pub(super) fn here(&self, store: &Store, link: &Link, offered: &Offered, strength: &Strength) -> Status {
        let by_ocsp = offered.ocsp.iter().find_map(|response| ocsp_status(link, response, strength));
        by_ocsp.unwrap_or_else(|| {
            let crls = self.known.verified(store.crls(), &offered.crls, &link.issuer, strength);
            pki::crl::status(&link.certificate, &crls, now())
        })
    }

    /// What can be found out about a certificate when `here` is not enough; it takes no longer than the limits say.
    pub(super) async fn elsewhere(self: &Arc<Self>, link: &Link, here: Status, strength: &Strength) -> Status {
        let asked = async {
            match self.by_ocsp(link, strength).await {
                Some(status) => Some(status),
                None => self.by_crl(link, strength).await,
            }
        };
        let asked = tokio::time::timeout(self.limits.time, asked).await;
        asked.ok().flatten().unwrap_or(here)
    }

    /// An OCSP response about a certificate of ours, for a peer that asks for one (RFC 4806).
    pub(super) async fn staple(self: &Arc<Self>, link: &Link) -> Option<Vec<u8>> {
        let asked = async {
            for uri in &link.ocsp_uris {
                if let Ok(response) = self.answer(link, uri, &Strength::default()).await.content {
                    return Some(response);
                }
            }
            None
        };
        tokio::time::timeout(self.limits.time / 2, asked).await.ok().flatten()
    }

    async fn by_ocsp(self: &Arc<Self>, link: &Link, strength: &Strength) -> Option<Status> {
        for uri in &link.ocsp_uris {
            let held = self.answer(link, uri, strength).await;
            let (link, strength) = (link.clone(), strength.clone());
            let judge = move || ocsp_status(&link, &held.content.ok()?, &strength);
            if let Some(status) = self.computed(judge).await.flatten() {
                return Some(status);
            }
        }
        None
    }

    async fn by_crl(self: &Arc<Self>, link: &Link, strength: &Strength) -> Option<Status> {
        let mut found: Vec<VerifiedCrl> = Vec::new();
        let mut status = None;
        for uri in &link.crl_uris {
            let Some(crl) = self.crl(link, uri, strength).await else { continue };
            let deltas: Vec<String> =
                link.delta_uris.iter().cloned().chain(pki::revocation::freshest_uris(crl.crl())).collect();
            found.push(crl);
            for uri in deltas {
                found.extend(self.crl(link, &uri, strength).await);
            }
            let now_status = pki::crl::status(&link.certificate, &found, now());
            if matches!(now_status, Status::Good | Status::Revoked { .. }) {
                return Some(now_status);
            }
            status = Some(now_status);
        }
        status
    }

    async fn answer(self: &Arc<Self>, link: &Link, uri: &str, strength: &Strength) -> Held<Vec<u8>> {
        let certificate = link.certificate.fingerprint();
        let key = Key { uri: uri.to_owned(), issuer: link.issuer.fingerprint(), certificate };
        self.answers.get(key, now(), self.fetch_answer(link, uri, strength)).await
    }

    async fn fetch_answer(&self, link: &Link, uri: &str, strength: &Strength) -> Held<Vec<u8>> {
        let mut nonce = [0; NONCE];
        rand_core::Rng::fill_bytes(&mut rng(), &mut nonce);
        let request = ocsp::Request::new(&link.certificate, &link.issuer, Some(&nonce));
        let fetched = match request.to_der() {
            Ok(der) => self.fetch(uri, &Query::Ocsp(der), MAX_OCSP).await,
            Err(error) => return failed(uri, &error),
        };
        let response = match fetched {
            Ok(response) => response,
            Err(error) => return failed(uri, &error),
        };
        let (owned, wanted, octets) = (link.clone(), strength.clone(), response.clone());
        let judged = self.computed(move || {
            let request = ocsp::Request::new(&owned.certificate, &owned.issuer, Some(&nonce));
            ocsp::Response::from_der(&octets)?.verify(&request, &[], false, now(), &wanted)
        });
        match judged.await {
            Some(Ok(answer)) => Held { content: Ok(response), until: until(answer.next_update) },
            Some(Err(error)) => failed(uri, &error),
            None => failed(uri, &"its response could not be checked"),
        }
    }

    async fn crl(self: &Arc<Self>, link: &Link, uri: &str, strength: &Strength) -> Option<VerifiedCrl> {
        let key = Key { uri: uri.to_owned(), issuer: link.issuer.fingerprint(), certificate: Vec::new() };
        let held = self.crls.get(key.clone(), now(), self.fetch_crl(link, key, strength)).await;
        let (own, issuer, strength) = (Arc::clone(self), link.issuer.clone(), strength.clone());
        let verify = move || own.known.remembered(&*held.content.ok()?, &issuer, &strength);
        self.computed(verify).await.flatten()
    }

    /// A CRL from the disk if it is still good, else from the network. Only one that the issuer signed is kept.
    async fn fetch_crl(self: &Arc<Self>, link: &Link, key: Key, strength: &Strength) -> Held<Arc<Crl>> {
        let (own, issuer, wanted, place) = (Arc::clone(self), link.issuer.clone(), strength.clone(), key.clone());
        let kept = self.computed(move || {
            let octets = own.disk.read(&place, own.limits.crl)?;
            own.read_crl(&octets, &issuer, &wanted)
                .ok()
                .filter(|crl| crl.next_update().is_some_and(|next| now() < next))
        });
        if let Some(crl) = kept.await.flatten() {
            return Held { until: until(crl.next_update()), content: Ok(crl) };
        }
        let octets = match self.fetch(&key.uri, &Query::Get, self.limits.crl).await {
            Ok(octets) => octets,
            Err(error) => return failed(&key.uri, &error),
        };
        let (own, issuer, wanted, place) = (Arc::clone(self), link.issuer.clone(), strength.clone(), key.clone());
        let read = self.computed(move || {
            let crl = own.read_crl(&octets, &issuer, &wanted)?;
            own.disk.write(&place, &octets);
            Ok(crl)
        });
        match read.await {
            Some(Ok(crl)) => Held { until: until(crl.next_update()), content: Ok(crl) },
            Some(Err(error)) => failed::<Arc<Crl>>(&key.uri, &error as &pki::crl::CrlError),
            None => failed(&key.uri, &"it could not be read"),
        }
    }

    fn read_crl(
        &self,
        octets: &[u8],
        issuer: &Certificate,
        strength: &Strength,
    ) -> Result<Arc<Crl>, pki::crl::CrlError> {
        let crl = Crl::load(octets)?;
        self.known.check(&crl, issuer, strength)?;
        Ok(Arc::new(crl))
    }

    /// Computes on a thread where it keeps nobody waiting; `None` when it panicked.
    async fn computed<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _thread = self.threads.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.inspect_err(|panic| tracing::error!(%panic, "checking failed")).ok()
    }

    /// One fetch may take half of the time, so that a dead server is known to be dead before the time is over.
    async fn fetch(&self, uri: &str, query: &Query, limit: usize) -> Result<Vec<u8>, String> {
        if self.limits.time.is_zero() {
            return Err("fetching is turned off".to_owned());
        }
        let fetched = tokio::time::timeout(self.limits.time / 2, self.fetcher.fetch(uri, query, limit)).await;
        fetched.map_err(|_| "it takes too long".to_owned())?.map_err(|error: FetchError| error.to_string())
    }
}

/// What an OCSP response says for certain about a certificate; `None` when it says nothing that counts.
fn ocsp_status(link: &Link, response: &[u8], strength: &Strength) -> Option<Status> {
    let request = ocsp::Request::new(&link.certificate, &link.issuer, None);
    let response = ocsp::Response::from_der(response);
    match response.and_then(|response| response.verify(&request, &[], false, now(), strength)) {
        Ok(answer) => Some(answer.status).filter(|status| matches!(status, Status::Good | Status::Revoked { .. })),
        Err(error) => {
            tracing::debug!(%error, "an OCSP response does not count");
            None
        }
    }
}

/// Until when something holds; what is out of date already holds no longer than a failure.
fn until(next_update: Option<UnixTime>) -> UnixTime {
    next_update.unwrap_or_else(|| now().plus(DEFAULT_VALIDITY)).max(now().plus(RETRY_AFTER))
}

fn failed<T>(uri: &str, why: &dyn std::fmt::Display) -> Held<T> {
    tracing::info!(uri, %why, "nothing about revocation could be fetched");
    Held { content: Err(why.to_string()), until: now().plus(RETRY_AFTER) }
}

#[cfg(test)]
mod tests;
