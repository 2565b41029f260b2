//! The table `[daemon]`.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use espdp_api::{CryptoEngine, GuardMode, IpPrefix, Workers};

use super::item::{At, Complaints, Item, collect};
use super::keys::Key;
use super::log::{self, LogFormat};
use super::source::Complaint;
use super::{DaemonConfig, DashboardConfig};

/// `[daemon]` while it is read.
#[derive(Default)]
pub(super) struct DaemonDraft {
    pub(super) config: DaemonConfig,
    /// Where `keylog` stands, to warn about it.
    pub(super) keylog: Option<Range<usize>>,
    pub(super) places: CredentialPlaces,
    pub(super) guard: Option<GuardMode>,
    pub(super) dashboard: DashboardDraft,
}

/// What is said about the dashboard.
#[derive(Default)]
pub(super) struct DashboardDraft {
    listen: Option<At<SocketAddr>>,
    token: Option<At<PathBuf>>,
    certificate: Option<At<PathBuf>>,
    key: Option<At<PathBuf>>,
    client_authority: Option<At<PathBuf>>,
}

impl DashboardDraft {
    /// The dashboard, if there is to be one.
    ///
    /// # Errors
    /// When what is said does not fit together.
    pub(super) fn finish(self) -> Result<Option<DashboardConfig>, Complaint> {
        let Self { listen, token, certificate, key, client_authority } = self;
        let Some(At { value: listen, span }) = listen else {
            let other = [token, certificate, key, client_authority].into_iter().flatten().next();
            return other.map_or(Ok(None), |other| {
                Err(Complaint::new(other.span, "there is no dashboard that this is for")
                    .expected("expected dashboard = \"127.0.0.1:8443\" beside it"))
            });
        };
        let token = token.ok_or_else(|| {
            Complaint::new(span, "everybody could see the dashboard")
                .expected("expected dashboard_token = \"FILE\"; make one: openssl rand -hex 32 >FILE; chmod 600 FILE")
        })?;
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate.value, key.value)),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                let complaint = Complaint::new(one.span, "a certificate needs its key, and a key its certificate");
                return Err(complaint.expected("expected both dashboard_cert and dashboard_key, or none"));
            }
        };
        let client_authority = client_authority.map(|at| at.value);
        Ok(Some(DashboardConfig { listen, token_file: token.value, certificate, client_authority }))
    }
}

/// Files and folders of CA certificates and CRLs; `None` for the folders beside the configuration.
#[derive(Default)]
pub(super) struct CredentialPlaces {
    pub(super) authorities: Option<Vec<String>>,
    pub(super) crls: Option<Vec<String>>,
}

/// The keys of `[daemon]`.
pub(super) const DAEMON_KEYS: &[Key<DaemonDraft>] = &[
    Key {
        name: "socket",
        also_called: &[],
        takes: "path",
        default: "what `--socket` says, or the built-in path",
        doc: "The unix socket of `charonctl` and `swanctl`.",
        set: |draft, item| {
            draft.config.socket = Some(path(item)?);
            Ok(())
        },
    },
    Key {
        name: "log",
        also_called: &[],
        takes: "level, or levels by module",
        default: "what the environment variable `RUST_LOG` says, or `info`",
        doc: "What is logged on stderr: `error`, `warn`, `info`, `debug` or `trace`; by module: `info,ike_proto=debug`.",
        set: |draft, item| {
            draft.config.log = Some(log::filter(item)?);
            Ok(())
        },
    },
    Key {
        name: "log_format",
        also_called: &[],
        takes: "`text` or `json`",
        default: "\"text\"",
        doc: "How lines of the log look. `text`: for people; where the journal reads them, each with its priority. `json`: an object on \
              each line.",
        set: |draft, item| {
            draft.config.log_format = item.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
            Ok(())
        },
    },
    Key {
        name: "keylog",
        also_called: &[],
        takes: "path of a folder",
        default: "no keys are written",
        doc: "Writes the keys of every SA there, as Wireshark reads them (`ikev2_decryption_table`, `esp_sa`). Who can read \
              them can read all traffic: for analysis only.",
        set: |draft, item| {
            draft.keylog = Some(item.span());
            draft.config.keylog = Some(path(item)?);
            draft.config.settings.export_keys = true;
            Ok(())
        },
    },
    Key {
        name: "metrics",
        also_called: &[],
        takes: "address and port",
        default: "nowhere",
        doc: "Where Prometheus fetches `/metrics`: `127.0.0.1:9814`. It shows names and counters, no secrets, to everybody who can reach it.",
        set: |draft, item| {
            draft.config.metrics = Some(socket_address(item)?.value);
            Ok(())
        },
    },
    Key {
        name: "dashboard",
        also_called: &[],
        takes: "address and port",
        default: "there is none",
        doc: "Where a page to look at is served over TLS: `127.0.0.1:8443`. It shows tunnels, traffic, failures and certificates and \
              changes nothing. It needs `dashboard_token`.",
        set: |draft, item| {
            draft.dashboard.listen = Some(socket_address(item)?);
            Ok(())
        },
    },
    Key {
        name: "dashboard_token",
        also_called: &[],
        takes: "path",
        default: "none",
        doc: "The file with the token that one needs to see the dashboard: `openssl rand -hex 32`, readable by the daemon alone.",
        set: |draft, item| {
            draft.dashboard.token = Some(item.at(path(item)?));
            Ok(())
        },
    },
    Key {
        name: "dashboard_cert",
        also_called: &[],
        takes: "path",
        default: "one is made at each start, and its fingerprint logged",
        doc: "The dashboard's certificate and what it is signed by, as PEM. It needs `dashboard_key`.",
        set: |draft, item| {
            draft.dashboard.certificate = Some(item.at(path(item)?));
            Ok(())
        },
    },
    Key {
        name: "dashboard_key",
        also_called: &[],
        takes: "path",
        default: "none",
        doc: "The private key of `dashboard_cert`, as PEM.",
        set: |draft, item| {
            draft.dashboard.key = Some(item.at(path(item)?));
            Ok(())
        },
    },
    Key {
        name: "dashboard_client_ca",
        also_called: &[],
        takes: "path",
        default: "none",
        doc: "CAs, as PEM, whose clients see the dashboard without the token when they show their certificate.",
        set: |draft, item| {
            draft.dashboard.client_authority = Some(item.at(path(item)?));
            Ok(())
        },
    },
    Key {
        name: "hook",
        also_called: &[],
        takes: "absolute path of a program, and its arguments",
        default: "nothing is run",
        doc: "Run when an IKE SA or a Child SA comes up, goes down or is replaced. It reads one line of JSON from its standard input: \
              event, names, identities, addresses, selectors, SPIs, and why something went down. No shell reads the line.",
        set: |draft, item| {
            draft.config.hooks.program = super::child_keys::program(item)?;
            Ok(())
        },
    },
    Key {
        name: "hook_timeout",
        also_called: &[],
        takes: "duration",
        default: "\"30s\"",
        doc: "A `hook` or `updown` that takes longer is ended, with what it has started.",
        set: |draft, item| {
            draft.config.hooks.limit = super::conn_keys::positive(item)?;
            Ok(())
        },
    },
    Key {
        name: "guard",
        also_called: &[],
        takes: "`always`, `while-running` or `off`",
        default: "\"always\"",
        doc: "Whether rules of nftables and blackhole routes drop what a connection covers and does not pass its tunnel, in both \
              directions, whether the tunnel is up or not. `always`: also after a crash and when the daemon is stopped, until \
              `charonctl guard --remove`; `while-running`: until it is stopped. Guarded is what the subnets of a connection and its \
              routes have in common. Changes with a reload.",
        set: |draft, item| {
            draft.guard = Some(item.choice(&[
                ("always", GuardMode::Always),
                ("while-running", GuardMode::WhileRunning),
                ("off", GuardMode::Off),
            ])?);
            Ok(())
        },
    },
    Key {
        name: "cacerts",
        also_called: &[],
        takes: "file or folder, or a list",
        default: "the folder `cacerts` beside this file",
        doc: "The certificates of the CAs that are trusted, PEM or DER.",
        set: |draft, item| {
            draft.places.authorities = Some(places(item)?);
            Ok(())
        },
    },
    Key {
        name: "crls",
        also_called: &[],
        takes: "file or folder, or a list",
        default: "the folder `crls` beside this file",
        doc: "CRLs of those CAs, PEM or DER.",
        set: |draft, item| {
            draft.places.crls = Some(places(item)?);
            Ok(())
        },
    },
    Key {
        name: "cachedir",
        also_called: &[],
        takes: "path of a folder",
        default: "`/var/lib/charon-rs`",
        doc: "Where CRLs are kept that were fetched.",
        set: |draft, item| {
            draft.config.cache_folder = Some(path(item)?);
            Ok(())
        },
    },
    Key {
        name: "fetch_timeout",
        also_called: &[],
        takes: "duration",
        default: "\"10s\"",
        doc: "How long a peer is kept waiting while CRLs and OCSP answers about its certificate are fetched; `\"0s\"`: nothing is \
              fetched.",
        set: |draft, item| {
            draft.config.fetching.time = item.duration()?.value;
            Ok(())
        },
    },
    Key {
        name: "fetch_limit",
        also_called: &[],
        takes: "amount of data",
        default: "\"16MiB\"",
        doc: "The largest CRL that is fetched.",
        set: |draft, item| {
            let limit = item.bytes()?.value;
            draft.config.fetching.crl = usize::try_from(limit).map_err(|_| item.wrong_type("an amount of data"))?;
            Ok(())
        },
    },
    Key {
        name: "crypto_engine",
        also_called: &[],
        takes: "`auto` or `library`",
        default: "\"auto\"",
        doc: "What computes ciphers. `auto`: our own engines for whole batches of packets, where the processor has the instructions \
              and they compute known answers right at the start; `library`: never. `charonctl stats` says what is in use.",
        set: |draft, item| {
            draft.config.crypto_engine =
                item.choice(&[("auto", CryptoEngine::Auto), ("library", CryptoEngine::Library)])?;
            Ok(())
        },
    },
    Key {
        name: "ike_port",
        also_called: &[],
        takes: "port",
        default: "500",
        doc: "Our UDP port for IKE.",
        set: |draft, item| {
            draft.config.settings.ike_port = port(item)?;
            Ok(())
        },
    },
    Key {
        name: "nat_port",
        also_called: &[],
        takes: "port",
        default: "4500",
        doc: "Our UDP port for IKE and ESP through NATs.",
        set: |draft, item| {
            draft.config.settings.nat_port = port(item)?;
            Ok(())
        },
    },
    Key {
        name: "keep_alive",
        also_called: &[],
        takes: "duration",
        default: "\"20s\"",
        doc: "Time between NAT keepalives while nothing else is sent; `\"0s\"` turns them off.",
        set: |draft, item| {
            draft.config.settings.keepalive_interval = item.duration()?.value;
            Ok(())
        },
    },
    Key {
        name: "workers",
        also_called: &[],
        takes: "number from 1 to 16, or `\"auto\"`",
        default: "1",
        doc: "Threads that move packets; `\"auto\"`: one for each core. Each Child SA belongs to one of them. Packets that another one \
              reads are handed to it, and so a single SA can use two cores as well.",
        set: |draft, item| {
            draft.config.settings.workers = workers(item)?;
            Ok(())
        },
    },
    Key {
        name: "window_size",
        also_called: &[],
        takes: "number from 1 to 64",
        default: "1",
        doc: "Requests that a peer may have outstanding in an IKE SA. If it is more than one, the peer is told so, and the answers \
              to as many are kept.",
        set: |draft, item| {
            let size = item.integer(1..=64)?;
            draft.config.settings.window_size = u32::try_from(size).map_err(|_| item.wrong_type("a number"))?;
            Ok(())
        },
    },
    Key {
        name: "half_open_timeout",
        also_called: &[],
        takes: "duration",
        default: "\"30s\"",
        doc: "A peer that started an IKE SA and does not go on is forgotten after this long.",
        set: |draft, item| {
            draft.config.settings.half_open_timeout = item.duration()?.value;
            Ok(())
        },
    },
    Key {
        name: "cookie_threshold",
        also_called: &[],
        takes: "number",
        default: "30",
        doc: "With more half-open IKE SAs than this, new peers must return a cookie first.",
        set: |draft, item| {
            draft.config.settings.cookie_threshold = count(item)?;
            Ok(())
        },
    },
    Key {
        name: "block_threshold",
        also_called: &[],
        takes: "number",
        default: "50",
        doc: "Half-open IKE SAs from one address above which its further requests are dropped.",
        set: |draft, item| {
            draft.config.settings.half_open_per_address = count(item)?;
            Ok(())
        },
    },
    Key {
        name: "init_limit_half_open",
        also_called: &[],
        takes: "number",
        default: "1000",
        doc: "Half-open IKE SAs in all above which further requests are dropped.",
        set: |draft, item| {
            draft.config.settings.half_open_limit = count(item)?;
            Ok(())
        },
    },
    Key {
        name: "drain_time",
        also_called: &[],
        takes: "duration",
        default: "\"5s\"",
        doc: "How long the inbound half of a replaced Child SA still receives.",
        set: |draft, item| {
            draft.config.settings.drain_time = item.duration()?.value;
            Ok(())
        },
    },
    Key {
        name: "reconnect_first",
        also_called: &[],
        takes: "duration",
        default: "\"1s\"",
        doc: "Pause before a connection that should be up is tried again; doubled each time.",
        set: |draft, item| {
            draft.config.settings.reconnect_first = item.duration()?.value;
            Ok(())
        },
    },
    Key {
        name: "reconnect_longest",
        also_called: &[],
        takes: "duration",
        default: "\"2m\"",
        doc: "The pause between two tries grows up to this.",
        set: |draft, item| {
            draft.config.settings.reconnect_longest = item.duration()?.value;
            Ok(())
        },
    },
];

/// Prefixes, host bits kept.
pub(super) fn prefixes(item: Item<'_>, wanted: &str) -> Result<Vec<IpPrefix>, Complaints> {
    collect(item.texts(wanted)?.iter().map(|text| {
        text.as_str().parse().map_err(|error: espdp_api::PrefixError| {
            text.complain(error.to_string()).expected(format!("expected {wanted}"))
        })
    }))
}

/// An address with its port.
fn socket_address(item: Item<'_>) -> Result<At<SocketAddr>, Complaint> {
    let text = item.text("an address and a port")?;
    let address = text.as_str().parse().map_err(|_| {
        text.complain(format!("`{}` is no address with a port", text.as_str()))
            .expected("expected for example \"127.0.0.1:9814\" or \"[::1]:9814\"")
    })?;
    Ok(item.at(address))
}

/// A port; 0 is none.
pub(super) fn port(item: Item<'_>) -> Result<u16, Complaint> {
    let port = item.integer(1..=u64::from(u16::MAX))?;
    u16::try_from(port).map_err(|_| item.wrong_type("a port"))
}

fn workers(item: Item<'_>) -> Result<Workers, Complaint> {
    let wanted = "a number from 1 to 16, or \"auto\"";
    if let Ok(text) = item.text(wanted) {
        return match text.as_str() {
            "auto" => Ok(as_many_as_cores()),
            _ => Err(text.complain("no number of workers").expected(format!("expected {wanted}"))),
        };
    }
    let count = item.integer(1..=Workers::MOST.into())?;
    u8::try_from(count).ok().and_then(Workers::new).ok_or_else(|| item.wrong_type(wanted))
}

/// One for each core that we may use, as far as there can be so many.
fn as_many_as_cores() -> Workers {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(Workers::MOST.into()));
    u8::try_from(cores).ok().and_then(Workers::new).unwrap_or_default()
}

fn count(item: Item<'_>) -> Result<usize, Complaint> {
    let count = item.integer(0..=1_000_000)?;
    usize::try_from(count).map_err(|_| item.wrong_type("a number"))
}

fn path(item: Item<'_>) -> Result<PathBuf, Complaint> {
    let text = item.text("a path")?;
    if text.is_empty() {
        return Err(text.complain("an empty path").expected("expected a path, or no such key"));
    }
    Ok(PathBuf::from(text.as_str()))
}

fn places(item: Item<'_>) -> Result<Vec<String>, Complaints> {
    Ok(item.strings("a file or folder")?.iter().map(|text| text.as_str().to_owned()).collect())
}
