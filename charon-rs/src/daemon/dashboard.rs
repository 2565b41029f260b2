//! The web page for those who would rather look: read-only, over TLS, for who has the token or a client certificate.
//!
//! | path | what |
//! |---|---|
//! | `/` | the page, or the form for the token |
//! | `/style.css`, `/script.js` | what it is made of; nothing comes from elsewhere |
//! | `/login` | takes the token, gives a cookie |
//! | `/state` | everything that the page shows, as JSON |

mod state;
mod tls;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use espdp_api::Secret;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use super::service::Daemon;
use super::web::{self, Answer, Client, Site, status};
use crate::config::DashboardConfig;

/// Who may look, and at what.
pub(super) struct Dashboard {
    daemon: Arc<Daemon>,
    token: Secret<Vec<u8>>,
    sessions: Mutex<VecDeque<Session>>,
    /// One guess at a time.
    guessing: tokio::sync::Mutex<()>,
    /// The last state, which clients share.
    state: tokio::sync::Mutex<Option<(Instant, Bytes)>>,
}

/// A browser that has shown the token.
struct Session {
    id: [u8; 32],
    until: Instant,
}

/// How long a browser stays logged in.
const SESSION: Duration = Duration::from_secs(12 * 3600);

/// Browsers that are logged in at a time; the oldest makes way.
const SESSIONS: usize = 64;

/// A wrong token costs its sender, and everybody who guesses with it, this much.
const PENALTY: Duration = Duration::from_millis(500);

/// Octets of a form at most.
const FORM: usize = 4096;

/// The state is made anew after this long.
const FRESH: Duration = Duration::from_millis(500);

/// Octets of a token at least.
const SHORTEST_TOKEN: usize = 16;

const COOKIE: &str = "charon-session";

/// Nothing but our own files, in no frame, and no form goes elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Opens the dashboard and serves it for ever.
///
/// # Errors
/// When the address, the token or the certificate cannot be used.
pub(super) async fn start(config: &DashboardConfig, daemon: Arc<Daemon>) -> anyhow::Result<()> {
    let token = read_token(config)?;
    let tls = tls::acceptor(config)?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("dashboard: nobody can be served at {}", config.listen))?;
    tracing::info!(address = %config.listen, fingerprint = %tls.fingerprint, "the dashboard is served by TLS");
    let dashboard = Dashboard {
        daemon,
        token,
        sessions: Mutex::default(),
        guessing: tokio::sync::Mutex::default(),
        state: tokio::sync::Mutex::default(),
    };
    tokio::spawn(web::serve(listener, Some(tls.acceptor), Arc::new(dashboard)));
    Ok(())
}

fn read_token(config: &DashboardConfig) -> anyhow::Result<Secret<Vec<u8>>> {
    let shown = config.token_file.display();
    let text =
        crate::config::read_private_file(&config.token_file).with_context(|| format!("dashboard_token {shown}"))?;
    let token = text.expose().trim().as_bytes().to_vec();
    anyhow::ensure!(
        token.len() >= SHORTEST_TOKEN,
        "dashboard_token {shown}: a token has {SHORTEST_TOKEN} characters at least; make one with: openssl rand -hex 32"
    );
    Ok(Secret::new(token))
}

impl Site for Dashboard {
    const NAME: &'static str = "dashboard";

    async fn answer(&self, request: Request<Incoming>, client: Client) -> Answer {
        let is_known =
            client.has_certificate || self.has_session(request.headers()) || self.has_token(request.headers());
        let mut answer = match (request.method(), request.uri().path()) {
            (&Method::POST, "/login") => self.log_in(request).await,
            (&Method::GET, "/style.css") => file("text/css", include_str!("dashboard/style.css")),
            (&Method::GET, "/") if !is_known => file("text/html; charset=utf-8", include_str!("dashboard/login.html")),
            (_, _) if !is_known => status(StatusCode::UNAUTHORIZED),
            (&Method::GET, "/") => file("text/html; charset=utf-8", include_str!("dashboard/index.html")),
            (&Method::GET, "/script.js") => file("text/javascript", include_str!("dashboard/script.js")),
            (&Method::GET, "/state") => self.show_state().await,
            (&Method::GET, _) => status(StatusCode::NOT_FOUND),
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        };
        harden(answer.headers_mut());
        answer
    }
}

impl Dashboard {
    /// For scripts: `Authorization: Bearer TOKEN`.
    fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| self.is_token(given))
    }

    fn is_token(&self, given: &[u8]) -> bool {
        given.ct_eq(self.token.expose()).into()
    }

    fn has_session(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        let Some((_, shown)) = cookies.find(|(name, _)| *name == COOKIE) else { return false };
        let mut id = [0; 32];
        // What is shorter leaves zeros, which no session is made of.
        if base16ct::lower::decode(shown, &mut id).is_err() {
            return false;
        }
        let now = Instant::now();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| session.until > now);
        // All of them are compared, each in constant time.
        sessions.iter().fold(false, |found, session| found | bool::from(session.id.ct_eq(&id)))
    }

    async fn log_in(&self, request: Request<Incoming>) -> Answer {
        let _one_at_a_time = self.guessing.lock().await;
        let body = Limited::new(request.into_body(), FORM).collect();
        let Ok(Ok(body)) = tokio::time::timeout(Duration::from_secs(5), body).await else {
            return status(StatusCode::BAD_REQUEST);
        };
        let body = body.to_bytes();
        let given = body.strip_prefix(b"token=").unwrap_or_default();
        if !self.is_token(given) {
            tokio::time::sleep(PENALTY).await;
            tracing::warn!("somebody showed a wrong token to the dashboard");
            return status(StatusCode::FORBIDDEN);
        }
        let mut id = [0; 32];
        if let Err(error) = getrandom::fill(&mut id) {
            tracing::error!(%error, "there is no randomness for a session");
            return status(StatusCode::SERVICE_UNAVAILABLE);
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back(Session { id, until: Instant::now() + SESSION });
        drop(sessions);
        let id = base16ct::lower::encode_string(&id);
        let cookie = format!("{COOKIE}={id}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Strict", SESSION.as_secs());
        let mut answer = status(StatusCode::SEE_OTHER);
        answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/"));
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            answer.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        answer
    }

    async fn show_state(&self) -> Answer {
        let mut last = self.state.lock().await;
        let octets = match &*last {
            Some((at, octets)) if at.elapsed() < FRESH => octets.clone(),
            Some(_) | None => {
                let octets = Bytes::from(state::state(&self.daemon).await.to_string());
                *last = Some((Instant::now(), octets.clone()));
                octets
            }
        };
        let mut answer = Response::new(Full::from(octets));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }
}

fn file(kind: &'static str, content: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(content));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn harden(headers: &mut HeaderMap) {
    const LINES: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in LINES {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
