//! A small web server: few clients, each of which may cost little, with or without TLS.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Clients at a time.
const MAX_CLIENTS: usize = 16;

/// A client has shaken hands within this.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// A request's head must be there within this.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// A client may stay for as long as this, and come again.
const LONGEST_STAY: Duration = Duration::from_secs(60);

/// Octets of a request's head at most.
const HEAD: usize = 8192;

/// What is known of a client besides its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Whether it has shown a certificate, which TLS has verified.
    pub(super) has_certificate: bool,
}

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// Answers requests.
pub(super) trait Site: Send + Sync + 'static {
    /// For the log.
    const NAME: &'static str;

    /// Answers one.
    fn answer(&self, request: Request<Incoming>, client: Client) -> impl Future<Output = Answer> + Send;
}

/// An answer without content.
pub(super) fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// Serves clients for ever.
pub(super) async fn serve<S: Site>(listener: TcpListener, tls: Option<TlsAcceptor>, site: Arc<S>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: accepting again at once would only spin.
                tracing::warn!(site = S::NAME, %error, "a client could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(site = S::NAME, limit = MAX_CLIENTS, "too many clients; the newest is turned away");
            continue;
        };
        let (site, tls) = (Arc::clone(&site), tls.clone());
        tokio::spawn(async move {
            if tokio::time::timeout(LONGEST_STAY, welcome(stream, tls, site)).await.is_err() {
                tracing::debug!(site = S::NAME, "a client stayed too long");
            }
            drop(place);
        });
    }
}

async fn welcome<S: Site>(stream: TcpStream, tls: Option<TlsAcceptor>, site: Arc<S>) {
    let Some(tls) = tls else { return converse(stream, Client { has_certificate: false }, site).await };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            converse(stream, Client { has_certificate }, site).await;
        }
        Ok(Err(error)) => tracing::debug!(site = S::NAME, %error, "a client did not finish its TLS handshake"),
        Err(_) => tracing::debug!(site = S::NAME, "a client took too long for its TLS handshake"),
    }
}

async fn converse<S: Site>(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, client: Client, site: Arc<S>) {
    let answer = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request, client).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_DEADLINE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = served.await {
        tracing::debug!(site = S::NAME, %error, "a client is let go");
    }
}
