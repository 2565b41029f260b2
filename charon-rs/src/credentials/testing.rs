//! Certificates and keys for tests, made with `pki`'s own issuing code.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use pki::certificate::{Certificate, SerialNumber};
use pki::hash::HashAlgorithm;
use pki::issue::{CaTemplate, Issuer, Template};
use pki::key::{Curve, KeyType, PrivateKey};
use pki::signature::{RsaPadding, SignatureScheme};
use pki::time::UnixTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{now, rng};

/// A key of each type, made once: RSA with 2048 and 3072 bits.
pub(crate) fn key(key_type: KeyType) -> &'static PrivateKey {
    static KEYS: [OnceLock<PrivateKey>; 6] = [const { OnceLock::new() }; 6];
    let index = match key_type {
        KeyType::Rsa { bits: ..=2048 } => 0,
        KeyType::Rsa { .. } => 1,
        KeyType::Ecdsa(Curve::P256) => 2,
        KeyType::Ecdsa(Curve::P384) => 3,
        KeyType::Ecdsa(Curve::P521) => 4,
        KeyType::Ed25519 => 5,
    };
    KEYS[index].get_or_init(|| PrivateKey::generate(key_type, &mut rng()).unwrap())
}

/// A certificate with its key, and the making of others below it. It is valid from yesterday until tomorrow.
pub(crate) struct Entity {
    pub(crate) key: PrivateKey,
    pub(crate) certificate: Certificate,
}

impl Entity {
    /// A root CA called `CN=name`.
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    /// A root CA; `change` may change everything.
    pub(crate) fn root_with(name: &str, change: impl FnOnce(&mut Template)) -> Self {
        let key = own_key();
        let mut template = template(name);
        template.ca = Some(CaTemplate::default());
        change(&mut template);
        let certificate = template.self_signed(&key, natural(&key), &mut rng()).unwrap();
        Self { key, certificate }
    }

    /// A CA below this one.
    pub(crate) fn authority(&self, name: &str, change: impl FnOnce(&mut Template)) -> Self {
        self.issue(own_key(), name, |template| {
            template.ca = Some(CaTemplate::default());
            change(template);
        })
    }

    /// A gateway below this CA: `CN=name`, also called `name.example.org`.
    pub(crate) fn gateway(&self, name: &str, change: impl FnOnce(&mut Template)) -> Self {
        self.issue(own_key(), name, |template| {
            template.alternative_names = vec![format!("{name}.example.org").parse().unwrap()];
            change(template);
        })
    }

    /// Whatever `change` makes of a certificate for `key`.
    pub(crate) fn issue(&self, key: PrivateKey, name: &str, change: impl FnOnce(&mut Template)) -> Self {
        let mut template = template(name);
        change(&mut template);
        let certificate = self.issuer().issue(&template, key.public_key(), &mut rng()).unwrap();
        Self { key, certificate }
    }

    /// This CA as it signs.
    pub(crate) fn issuer(&self) -> Issuer<'_> {
        Issuer::new(&self.certificate, &self.key, natural(&self.key)).unwrap()
    }

    /// A copy of the key, for stores.
    pub(crate) fn key_copy(&self) -> PrivateKey {
        copy(&self.key)
    }
}

/// The same key once more.
pub(crate) fn copy(key: &PrivateKey) -> PrivateKey {
    PrivateKey::from_der(&key.to_der(pki::key::KeyFormat::Pkcs8)).unwrap()
}

/// Yesterday and tomorrow.
pub(crate) fn day(change: i64) -> UnixTime {
    UnixTime(now().0.saturating_add_signed(change * 86_400))
}

fn template(name: &str) -> Template {
    let subject = if name.contains('=') { name.parse().unwrap() } else { format!("CN={name}").parse().unwrap() };
    let serial = HashAlgorithm::Sha256.digest(name.as_bytes())[..8].to_vec();
    Template::new(subject, SerialNumber::positive(&serial).unwrap(), day(-1), day(1))
}

fn own_key() -> PrivateKey {
    PrivateKey::generate(KeyType::Ecdsa(Curve::P256), &mut rng()).unwrap()
}

fn natural(key: &PrivateKey) -> SignatureScheme {
    SignatureScheme::natural(key.key_type(), RsaPadding::Pkcs1)
}

/// A tiny web server on the loopback.
pub(crate) struct Web {
    address: std::net::SocketAddr,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: watch::Sender<BTreeMap<String, usize>>,
    server: JoinHandle<()>,
}

/// What a path gives.
#[derive(Clone)]
enum Page {
    Whole(u16, String, Vec<u8>),
    Endless,
    Silent,
    /// Answers by the body of the request.
    Computed(Arc<Responder>),
}

type Responder = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

impl Web {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (pages, asked) = (Arc::<Mutex<BTreeMap<String, Page>>>::default(), watch::Sender::default());
        let (served, counts) = (Arc::clone(&pages), asked.clone());
        let server = tokio::spawn(async move {
            let mut clients = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                clients.spawn(serve(stream, Arc::clone(&served), counts.clone()));
            }
        });
        Self { address, pages, asked, server }
    }

    /// The address of a path.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn put(&self, path: &str, status: u16, content: &[u8]) {
        self.set(path, Page::Whole(status, String::new(), content.to_vec()));
    }

    pub(crate) fn redirect(&self, path: &str, location: &str) {
        self.set(path, Page::Whole(302, format!("Location: {location}\r\n"), Vec::new()));
    }

    /// A path that sends without end and does not say how much.
    pub(crate) fn put_endless(&self, path: &str) {
        self.set(path, Page::Endless);
    }

    /// A path that never answers.
    pub(crate) fn put_silent(&self, path: &str) {
        self.set(path, Page::Silent);
    }

    /// A path that answers with what `answer` makes of the body of a request.
    pub(crate) fn put_computed(&self, path: &str, answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) {
        self.set(path, Page::Computed(Arc::new(answer)));
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.asked.borrow().get(path).copied().unwrap_or(0)
    }

    /// Waits until a path was asked for so often.
    pub(crate) async fn until_asked(&self, path: &str, times: usize) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|asked| asked.get(path).is_some_and(|count| *count >= times)).await.unwrap();
    }

    /// Ends it; gives an address where nobody listens.
    pub(crate) async fn stop(self) -> String {
        self.server.abort();
        assert!(self.server.await.is_err_and(|error| error.is_cancelled()));
        format!("http://{}/", self.address)
    }

    fn set(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }
}

async fn serve(
    mut stream: TcpStream,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: watch::Sender<BTreeMap<String, usize>>,
) {
    let Some((path, body)) = read_request(&mut stream).await else { return };
    let page = pages.lock().unwrap().get(&path).cloned();
    asked.send_modify(|asked| *asked.entry(path).or_default() += 1);
    let (status, headers, content) = match page {
        None => (404, String::new(), Vec::new()),
        Some(Page::Whole(status, headers, content)) => (status, headers, content),
        Some(Page::Computed(answer)) => (200, String::new(), answer(&body)),
        Some(Page::Silent) => std::future::pending().await,
        Some(Page::Endless) => {
            let mut head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
            while stream.write_all(&head).await.is_ok() {
                head = vec![7; 4096];
            }
            return;
        }
    };
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", content.len());
    let written = stream.write_all(&[head.as_bytes(), &content].concat()).await;
    drop(written); // a client may have seen enough
}

/// The path and the body of a request.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut octets = Vec::new();
    loop {
        let end = octets.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&octets[..end]).to_ascii_lowercase();
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if octets.len() >= end + 4 + len {
                let path = String::from_utf8_lossy(&octets).split(' ').nth(1)?.to_owned();
                return Some((path, octets[end + 4..].to_vec()));
            }
        }
        if stream.read_buf(&mut octets).await.ok()? == 0 {
            return None;
        }
    }
}
