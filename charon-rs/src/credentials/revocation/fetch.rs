//! Fetching over HTTP, with a bound for everything.
//!
//! CRLs and OCSP responses are signed, and checking the certificate of an HTTPS server could need a CRL that only that server
//! has (RFC 5280 §8); so only `http` is spoken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Bounds of fetching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// How long everything may take that is fetched for one peer; zero: nothing is fetched.
    pub time: Duration,
    /// The largest CRL, in octets.
    pub crl: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(10), crl: 16 << 20 }
    }
}

/// The largest OCSP response, in octets: one certificate's status and a responder's certificate need a few thousand.
pub(super) const MAX_OCSP: usize = 64 << 10;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// Connections to one host at the same time.
const PER_HOST: usize = 2;

/// Connections at the same time.
const OVERALL: usize = 16;

/// Hosts whose connections are counted; those without any are forgotten when there are more.
const MAX_HOSTS: usize = 256;

/// A connection must be there within this.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Why nothing was fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    /// Not a URI, or one of another kind than `http`.
    #[error("`{0}` is no http:// address")]
    Scheme(String),
    /// No connection.
    #[error("{host} cannot be reached: {why}")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// Something went wrong on the way.
    #[error("{host} gives no proper answer: {why}")]
    Transport {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// An answer, but not what was asked for.
    #[error("{host} answers {status}")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },
    /// More than is taken.
    #[error("{host} sends more than {limit} octets")]
    TooLarge {
        /// The host.
        host: String,
        /// The bound.
        limit: usize,
    },
    /// It leads in circles, or too far.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Query {
    /// A document.
    Get,
    /// An answer to an OCSP request.
    Ocsp(Vec<u8>),
}

/// Fetches, and counts connections.
#[derive(Debug)]
pub(super) struct Fetcher {
    overall: Semaphore,
    hosts: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self { overall: Semaphore::new(OVERALL), hosts: Mutex::default() }
    }
}

/// Where a URI leads.
struct Target {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Fetcher {
    /// Fetches at most `limit` octets. Whoever calls bounds the time.
    ///
    /// # Errors
    /// [`FetchError`]
    pub(super) async fn fetch(&self, uri: &str, query: &Query, limit: usize) -> Result<Vec<u8>, FetchError> {
        let mut target = Target::parse(uri)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange(&target, query, limit).await?;
            match response {
                Reply::Content(octets) => return Ok(octets),
                Reply::Elsewhere(location) => target = target.follow(&location)?,
            }
        }
        Err(FetchError::Redirects)
    }

    async fn exchange(&self, target: &Target, query: &Query, limit: usize) -> Result<Reply, FetchError> {
        let closed = |why: tokio::sync::AcquireError| target.transport(&why);
        let host = self.host(&target.host);
        let _of_host = host.acquire().await.map_err(closed)?;
        let _overall = self.overall.acquire().await.map_err(closed)?;
        let stream = target.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|why| target.transport(&why))?;
        // Dropped, and with it the connection, when whoever asked is gone.
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(target.request(query)?).await.map_err(|why| target.transport(&why))?;
        target.reply(response, limit).await
    }

    fn host(&self, host: &str) -> Arc<Semaphore> {
        // Nothing in there can be half done.
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, permits| Arc::strong_count(permits) > 1);
        }
        Arc::clone(hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(PER_HOST))))
    }
}

/// What a server sends.
enum Reply {
    Content(Vec<u8>),
    Elsewhere(String),
}

impl Target {
    fn parse(uri: &str) -> Result<Self, FetchError> {
        let refused = || FetchError::Scheme(uri.chars().filter(|c| !c.is_control()).take(200).collect());
        let parsed: Uri = uri.parse().map_err(|_| refused())?;
        let is_http = parsed.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"));
        let authority = parsed.authority().filter(|_| is_http).ok_or_else(refused)?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(80),
            // What stands before an `@` is a password that nobody here has.
            authority: authority.as_str().rsplit('@').next().unwrap_or_default().to_owned(),
            path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// Where a redirect leads: to an address, or to another path of the same host.
    fn follow(&self, location: &str) -> Result<Self, FetchError> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Self::parse(&format!("http://{}{location}", self.authority));
        }
        Self::parse(location)
    }

    async fn connect(&self) -> Result<TcpStream, FetchError> {
        let failed = |why: String| FetchError::Connect { host: self.host.clone(), why };
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("it takes too long".to_owned())),
        }
    }

    fn request(&self, query: &Query) -> Result<Request<Full<Bytes>>, FetchError> {
        let builder = Request::builder()
            .uri(self.path.as_str())
            .header(HOST, self.authority.as_str())
            .header(USER_AGENT, concat!("charon-rs/", env!("CARGO_PKG_VERSION")));
        let request = match query {
            Query::Get => builder.method(Method::GET).header(ACCEPT, "application/pkix-crl, */*").body(Full::default()),
            Query::Ocsp(request) => builder
                .method(Method::POST)
                .header(CONTENT_TYPE, "application/ocsp-request")
                .header(ACCEPT, "application/ocsp-response")
                .body(Full::from(request.clone())),
        };
        request.map_err(|why| self.transport(&why))
    }

    async fn reply(&self, response: Response<Incoming>, limit: usize) -> Result<Reply, FetchError> {
        let status = response.status();
        if status.is_redirection() {
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            return location.map(|location| Reply::Elsewhere(location.to_owned())).ok_or(self.status(status));
        }
        if status != StatusCode::OK {
            return Err(self.status(status));
        }
        let too_large = || FetchError::TooLarge { host: self.host.clone(), limit };
        let body = response.into_body();
        if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            return Err(too_large());
        }
        match Limited::new(body, limit).collect().await {
            Ok(octets) => Ok(Reply::Content(octets.to_bytes().to_vec())),
            Err(why) if why.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Err(why) => Err(self.transport(&why)),
        }
    }

    fn status(&self, status: StatusCode) -> FetchError {
        FetchError::Status { host: self.host.clone(), status: status.as_u16() }
    }

    fn transport(&self, why: &dyn std::fmt::Display) -> FetchError {
        FetchError::Transport { host: self.host.clone(), why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::testing::Web;

    async fn get(uri: &str) -> Result<Vec<u8>, FetchError> {
        Fetcher::default().fetch(uri, &Query::Get, 1000).await
    }

    /// untrusted_cdp, for those that are trusted: only what is http is asked for.
    #[tokio::test]
    async fn files_directories_and_tls_are_not_fetched() {
        for uri in
            ["file:///etc/passwd", "ldap://localhost/x", "https://localhost/x", "ftp://localhost/", "/etc/passwd", ""]
        {
            assert!(matches!(get(uri).await, Err(FetchError::Scheme(_))), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_document_is_fetched_also_over_redirects() {
        let web = Web::start().await;
        web.put("/crl", 200, b"a CRL");
        web.redirect("/old", "/crl");
        web.redirect("/older", &web.uri("/old"));
        assert_eq!(get(&web.uri("/crl")).await, Ok(b"a CRL".to_vec()));
        assert_eq!(get(&web.uri("/older")).await, Ok(b"a CRL".to_vec()));
        assert_eq!(web.asked("/crl"), 2);
    }

    #[tokio::test]
    async fn redirects_end_and_do_not_leave_http() {
        let web = Web::start().await;
        web.redirect("/circle", "/circle");
        web.redirect("/file", "file:///etc/passwd");
        assert_eq!(get(&web.uri("/circle")).await, Err(FetchError::Redirects));
        assert_eq!(web.asked("/circle"), MAX_REDIRECTS + 1);
        assert!(matches!(get(&web.uri("/file")).await, Err(FetchError::Scheme(_))));
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_taken() {
        let web = Web::start().await;
        web.put("/fits", 200, &[7; 1000]);
        web.put("/large", 200, &[7; 1001]);
        web.put_endless("/endless");
        assert_eq!(get(&web.uri("/fits")).await.map(|octets| octets.len()), Ok(1000));
        for path in ["/large", "/endless"] {
            assert!(matches!(get(&web.uri(path)).await, Err(FetchError::TooLarge { limit: 1000, .. })), "{path}");
        }
    }

    #[tokio::test]
    async fn errors_of_servers_are_told() {
        let web = Web::start().await;
        web.put("/gone", 410, b"");
        assert!(matches!(get(&web.uri("/gone")).await, Err(FetchError::Status { status: 410, .. })));
        let nobody = web.stop().await;
        assert!(matches!(get(&nobody).await, Err(FetchError::Connect { .. })));
    }

    #[tokio::test]
    async fn only_a_few_connections_go_to_one_host() {
        let web = Web::start().await;
        web.put_silent("/silent");
        let fetcher = Arc::new(Fetcher::default());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..PER_HOST + 3 {
            let (fetcher, uri) = (Arc::clone(&fetcher), web.uri("/silent"));
            tasks.spawn(async move { fetcher.fetch(&uri, &Query::Get, 1000).await });
        }
        web.until_asked("/silent", PER_HOST).await;
        // The others wait for a permit of the host and have not come as far as a connection.
        assert_eq!(fetcher.host("127.0.0.1").available_permits(), 0);
        assert_eq!(fetcher.overall.available_permits(), OVERALL - PER_HOST);
        assert_eq!(web.asked("/silent"), PER_HOST);
    }
}
