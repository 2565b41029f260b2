//! The TOML front end: reads `ipsec.toml` and `ipsec.secrets.toml`, which use the words of ipsec.conf, into the one model
//! of connections that [`ike_proto::config`] defines.
//!
//! Reading applies nothing. It either gives everything a daemon needs or says everything that is wrong, each with file,
//! line, column and the nearest valid name.
//!
//! | module | what lives there |
//! |---|---|
//! | [`defaults`] | what holds when nobody says otherwise |
//! | [`values`] | values that are written as text: times, addresses, selectors, identities |
//! | `problem` | what is wrong, and how that is printed |
//! | `source`, `item` | a file, its values, and where they stand |
//! | `keys` | keys and tables in general |
//! | `daemon`, `conn_keys`, `auth_keys`, `child_keys`, `secrets`, `key_secrets` | the keys there are |
//! | `manual`, `sa_keys`, `sa_secrets`, `policy_keys` | SAs that are keyed by hand, and policies |
//! | `material`, `authentication` | files with certificates and keys, and what connections do with them |
//! | `connections` | `%default`, `also` and children |
//! | `log` | what is said about the log |
//! | `build`, `weakness` | from what is written to the model, and what is doubtful about it |
//! | `pool` | pools of virtual addresses |
//! | `host`, `host_keys` | what the host's own network stack is to do |
//! | `places` | the lines where keys stand, for those who explain failures |
//! | `reference`, `schema` | the keys for people, and for editors |

mod auth_keys;
mod authentication;
mod bridge;
mod build;
mod child_keys;
mod conn_keys;
mod connections;
mod daemon;
pub mod defaults;
mod host;
mod host_keys;
mod interface;
mod interface_keys;
mod item;
mod key_secrets;
mod keys;
mod log;
mod manual;
mod material;
mod places;
mod policy_keys;
mod pool;
mod problem;
mod reference;
mod sa_keys;
mod sa_secrets;
mod schema;
mod secrets;
mod shape_keys;
mod source;
pub mod values;
mod weakness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use espdp_api::{BridgeSpec, CryptoEngine, HostSpec, InterfaceSpec, PolicyAction};
use ike_proto::Settings;
use ike_proto::config::{Connection, LocalMethod, Pool, RemoteMethod, SharedSecret};
use toml::de::{DeTable, DeValue};
use tracing::level_filters::LevelFilter;

use bridge::{BRIDGE_KEYS, Bridge, BridgeDraft};
use build::Builder;
use connections::Resolved;
use daemon::{CredentialPlaces, DAEMON_KEYS, DaemonDraft};
use interface::{InterfaceDraft, Interfaces};
use interface_keys::INTERFACE_KEYS;
use item::At;
use keys::{Key, Section, names, unknown_key};
use material::Material;
use policy_keys::POLICY_KEYS;
use pool::{POOL_KEYS, Pools};
use problem::Report;
use sa_keys::SA_KEYS;
use sa_secrets::SaKeys;
use source::{Complaint, Source};

use crate::credentials::{FetchLimits, Layer};

pub(crate) use child_keys::read_program;
pub use log::LogFormat;
pub(crate) use log::log_level;
pub use manual::{ManualPolicy, ManualSa};
pub use places::{Line, Places};
pub use problem::{Place, Problem, Problems, Severity};
pub use reference::reference;
pub use schema::{schema, secrets_schema};
pub(crate) use secrets::read_private_file;
pub(crate) use source::nearest;

/// A configuration that was read and found good.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The daemon as a whole.
    pub daemon: DaemonConfig,
    /// The connections that are not `auto = "ignore"`, in the order of the file.
    pub connections: Vec<Connection>,
    /// The pools of virtual addresses, those that connections write down themselves among them, by name.
    pub pools: Vec<Pool>,
    /// Pre-shared keys, in the order of the file.
    pub secrets: Vec<SharedSecret>,
    /// Certificates and private keys, and what connections say about them.
    pub credentials: Layer,
    /// The bridge domains.
    pub bridges: Vec<BridgeSpec>,
    /// The guard, translation, filters and routes; the policies to guard follow from the connections.
    pub host: HostSpec,
    /// The interfaces that connections name, and the others of the file.
    pub interfaces: Vec<InterfaceSpec>,
    /// The policies that no connection negotiates, with their SAs.
    pub policies: Vec<ManualPolicy>,
    /// The connections that are logged at a level of their own.
    pub log_levels: BTreeMap<String, LevelFilter>,
    /// Where in the files all of this stands.
    pub places: Places,
    /// What the author of the configuration should know.
    pub warnings: Vec<Problem>,
}

/// What holds for the daemon as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Where the control socket is; `None` leaves it to the command line and the default.
    pub socket: Option<PathBuf>,
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it: `info` or `info,ike_proto=debug`; `None` leaves it to
    /// the environment and the default.
    pub log: Option<String>,
    /// How lines of the log look.
    pub log_format: LogFormat,
    /// The folder for Wireshark's key files; `None` writes none. [`Settings::export_keys`] agrees with it.
    pub keylog: Option<PathBuf>,
    /// The folder where fetched CRLs are kept; `None` for the built-in one.
    pub cache_folder: Option<PathBuf>,
    /// Bounds of fetching CRLs and OCSP answers.
    pub fetching: FetchLimits,
    /// Programs that are run when SAs come and go.
    pub hooks: HookConfig,
    /// What may compute the ciphers of the dataplane.
    pub crypto_engine: CryptoEngine,
    /// Where Prometheus fetches its page; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The page to look at; `None`: there is none.
    pub dashboard: Option<DashboardConfig>,
    /// The settings of the IKE engine, ports among them.
    pub settings: Settings,
}

/// The page to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DashboardConfig {
    /// Where it is served.
    pub listen: SocketAddr,
    /// The file with the token that one needs to see it.
    pub token_file: PathBuf,
    /// The files of its certificate, with the chain, and of its key; `None`: one is made at each start.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The file of CAs whose clients need no token.
    pub client_authority: Option<PathBuf>,
}

/// Programs that are run when SAs come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookConfig {
    /// The one that hears of all of them, with its arguments; empty: none.
    pub program: Vec<String>,
    /// How long one may run.
    pub limit: Duration,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self { program: Vec::new(), limit: Duration::from_secs(30) }
    }
}

/// Reads and checks a configuration; `secrets` is the file of the pre-shared keys, if there is one. Nothing is applied.
///
/// # Errors
/// [`Problems`] with everything that is wrong in both files, warnings included.
pub fn load(config: &Path, secrets: Option<&Path>) -> Result<Loaded, Problems> {
    let mut report = Report::default();
    let mut sa_keys = BTreeMap::new();
    let mut loaded = Loaded { host: defaults::host(), ..Loaded::default() };
    if let Some(secrets) = secrets {
        let read = secrets::load(secrets, &mut loaded.credentials, &mut loaded.places, &mut report);
        (loaded.secrets, sa_keys) = (read.secrets, read.sa_keys);
    }
    let secrets = Secrets { file: secrets, sa_keys };
    match std::fs::read_to_string(config) {
        Ok(text) => {
            let source = Source::open(config, text);
            let root = source.parse(&mut report);
            let mut material = Material::around(config, std::mem::take(&mut loaded.credentials), &mut report);
            read(&source, &root, &secrets, &mut material, &mut loaded, &mut report);
            loaded.credentials = material.layer;
        }
        Err(error) => report.add(Problem {
            file: config.to_owned(),
            place: None,
            severity: Severity::Error,
            message: format!("the file cannot be read: {error}"),
            expected: None,
            nearest: None,
        }),
    }
    loaded.warnings = report.into_warnings()?;
    Ok(loaded)
}

const TABLES: [&str; 11] =
    ["daemon", "interface", "bridge", "conn", "pool", "sa", "policy", "spd", "nat", "filter", "route"];

/// What the secrets file says that is no credential.
struct Secrets<'a> {
    file: Option<&'a Path>,
    sa_keys: BTreeMap<String, SaKeys>,
}
/// Reads the tables of `ipsec.toml`.
fn read(
    source: &Source,
    root: &DeTable<'_>,
    secrets: &Secrets<'_>,
    material: &mut Material,
    loaded: &mut Loaded,
    report: &mut Report,
) {
    let root = Section::new(source, "", 0..0, root);
    for entry in root.entries.iter().filter(|entry| !TABLES.contains(&entry.name)) {
        let is_table = matches!(entry.value.get_ref(), DeValue::Table(_));
        let message = format!("unknown {} `{}`", if is_table { "table" } else { "key" }, entry.name);
        let complaint = Complaint::new(entry.span.clone(), message);
        report.add(source.error(match place_of(entry.name) {
            Some(place) if !is_table => complaint.expected(format!("it is a key of {place}")),
            _ if entry.name == "secret" => complaint.expected("expected in the secrets file"),
            _ => {
                let complaint = complaint.nearest(entry.name, TABLES);
                complaint.expected(
                    "expected [daemon], [interface.NAME], [bridge.NAME], [conn.NAME], [pool.NAME], [sa.NAME], [policy.NAME], [spd], \
                     [nat.NAME], [filter.NAME] or [route.NAME]",
                )
            }
        }));
    }
    let sections = |name: &str, form: &str, report: &mut Report| -> Vec<Section<'_>> {
        let Some(entry) = root.entries.iter().find(|entry| entry.name == name) else { return Vec::new() };
        let DeValue::Table(table) = entry.value.get_ref() else {
            report.add(source.error(root.item(entry).wrong_type(form)));
            return Vec::new();
        };
        let section = Section::new(source, entry.name, entry.span.clone(), table);
        if matches!(name, "daemon" | "spd") { vec![section] } else { section.tables(form, report) }
    };
    let mut places = CredentialPlaces::default();
    for section in sections("daemon", "a table [daemon]", report) {
        (loaded.daemon, loaded.host, places) = read_daemon(&section, report);
    }
    host::read(&mut loaded.host, report, |name, form, report| sections(name, form, report));
    material.trust(places.authorities.as_deref(), report);
    material.take_crls(places.crls.as_deref(), report);
    let mut bridges = Vec::new();
    for section in sections("bridge", "tables [bridge.NAME]", report) {
        bridges.extend(read_bridge(&section, report));
    }
    loaded.bridges = bridges.iter().map(|bridge| bridge.spec.clone()).collect();
    let mut interfaces = Interfaces::new();
    for section in sections("interface", "tables [interface.NAME]", report) {
        if let Some(interface) = read_interface(&section, &loaded.bridges, report) {
            let span = section.span.clone();
            if let Some(complaint) = interface::collision(&interface, span.clone(), &interfaces) {
                report.add(source.error(complaint));
            }
            interfaces.insert(interface.name.clone(), At { value: interface.clone(), span });
            loaded.interfaces.push(interface);
        }
    }
    for complaint in bridges.iter().filter_map(|bridge| bridge.complaint(&interfaces)) {
        report.add(source.error(complaint));
    }
    let mut pools = Pools::read(&sections("pool", "tables [pool.NAME]", report), report);
    let conns = sections("conn", "tables [conn.NAME]", report);
    let resolved = connections::resolve(&conns, report);
    loaded.places.add_connections(source, &resolved);
    for conn in resolved {
        let (span, log_level) = (conn.span.clone(), conn.draft.log_level);
        let settings = &loaded.daemon.settings;
        let builder = Builder { source, interfaces: &interfaces, settings, pools: &mut pools, material, report };
        let Some(connection) = read_connection(conn, builder) else { continue };
        if let Some(complaint) = secrets.file.and_then(|file| secret_problem(&connection, span, file, &loaded.secrets))
        {
            report.add(source.warning(complaint));
        }
        loaded.log_levels.extend(log_level.map(|level| (connection.name.clone(), level)));
        loaded.connections.push(connection);
    }
    loaded.pools = pools.into_vec();
    let tables = manual::Tables {
        sas: sections("sa", "tables [sa.NAME]", report),
        policies: sections("policy", "tables [policy.NAME]", report),
    };
    let context =
        manual::Context { keys: &secrets.sa_keys, interfaces: &interfaces, nat_port: loaded.daemon.settings.nat_port };
    loaded.policies = manual::read(&tables, &context, report);
    loaded.places.add_policies(source, &tables.policies);
    let of_children = loaded.connections.iter().flat_map(|conn| &conn.children).map(|child| &child.interface);
    let mut wanted = of_children.chain(loaded.policies.iter().map(|policy| &policy.spec.interface));
    if wanted.any(|name| *name == defaults::interface()) && !interfaces.contains_key(&defaults::interface()) {
        loaded.interfaces.push(defaults::interface_spec());
    }
    for section in sections("spd", "a table [spd]", report) {
        if manual::read_default(&section, report) == PolicyAction::Bypass {
            loaded.policies.extend(manual::last_policies(&loaded.interfaces));
        }
    }
}

fn read_daemon(section: &Section<'_>, report: &mut Report) -> (DaemonConfig, HostSpec, CredentialPlaces) {
    let mut draft = DaemonDraft::default();
    for entry in section.apply(DAEMON_KEYS, &mut draft, report) {
        let complaint = unknown_key(entry, "[daemon]", &[], names(DAEMON_KEYS), place_of(entry.name));
        report.add(section.source.error(complaint));
    }
    match draft.dashboard.finish() {
        Ok(dashboard) => draft.config.dashboard = dashboard,
        Err(complaint) => report.add(section.source.error(complaint)),
    }
    if let Some(keylog) = draft.keylog {
        let complaint = Complaint::new(keylog, "the keys of all SAs are written to this folder")
            .expected("expected for analysis only: whoever reads them reads all traffic");
        report.add(section.source.warning(complaint));
    }
    let host = HostSpec { guard: draft.guard.unwrap_or(defaults::GUARD), ..HostSpec::default() };
    (draft.config, host, draft.places)
}

fn read_bridge(section: &Section<'_>, report: &mut Report) -> Option<Bridge> {
    let mut draft = BridgeDraft::default();
    for entry in section.apply(BRIDGE_KEYS, &mut draft, report) {
        let complaint = unknown_key(entry, "[bridge.NAME]", &[], names(BRIDGE_KEYS), place_of(entry.name));
        report.add(section.source.error(complaint));
    }
    let finished = draft.finish(section.name, section.span.clone());
    finished.map_err(|complaint| report.add(section.source.error(complaint))).ok()
}

fn read_interface(section: &Section<'_>, bridges: &[BridgeSpec], report: &mut Report) -> Option<InterfaceSpec> {
    let mut draft = InterfaceDraft::default();
    for entry in section.apply(INTERFACE_KEYS, &mut draft, report) {
        let complaint = unknown_key(entry, "[interface.NAME]", &[], names(INTERFACE_KEYS), place_of(entry.name));
        report.add(section.source.error(complaint));
    }
    let known = bridges.iter().map(|bridge| &bridge.name);
    if let Some(complaint) = draft.bridge.as_ref().and_then(|bridge| bridge::unknown(bridge, known)) {
        report.add(section.source.error(complaint));
    }
    draft
        .finish(section.name, section.span.clone())
        .map_err(|complaint| report.add(section.source.error(complaint)))
        .ok()
}

/// The connection of a section, if it is to be loaded and nothing is wrong with it.
fn read_connection(conn: Resolved<'_>, mut builder: Builder<'_>) -> Option<Connection> {
    if conn.is_loaded() {
        return builder.connection(conn);
    }
    if conn.draft.right.is_some() && conn.draft.child.auto.is_none() && !conn.is_base {
        let complaint = Complaint::new(conn.span, format!("conn `{}` is not loaded: it has no `auto`", conn.name))
            .expected("expected auto = \"add\", \"route\" or \"start\"; auto = \"ignore\" if that is meant");
        builder.report.add(builder.source.warning(complaint));
    }
    None
}

/// A connection with pre-shared keys should have one.
fn secret_problem(
    connection: &Connection,
    span: Range<usize>,
    file: &Path,
    secrets: &[SharedSecret],
) -> Option<Complaint> {
    let local = std::iter::once(&connection.local).chain(&connection.more_local);
    let remote = std::iter::once(&connection.remote).chain(&connection.more_remote);
    let by_secret = local.into_iter().any(|round| round.method == LocalMethod::PreSharedKey)
        || remote.into_iter().any(|round| round.method == RemoteMethod::PreSharedKey);
    (by_secret && !secrets::is_there_one(connection, secrets)).then(|| {
        Complaint::new(span, format!("there is no secret for conn `{}`", connection.name))
            .expected(format!("expected one for its two identities in {}", file.display()))
    })
}

/// What a name is in `[conn.NAME]`.
pub(crate) enum Known {
    /// A key, with its first name and what it takes.
    Key { name: &'static str, takes: &'static str },
    /// A key of ipsec.conf that is none here, and what to do instead.
    Foreign(&'static str),
    /// Neither, and the key that is most like it.
    No(Option<&'static str>),
}

/// Looks a key of connections and children up.
pub(crate) fn known_key(name: &str) -> Known {
    fn find<D>(keys: &'static [Key<D>], name: &str) -> Option<Known> {
        Key::find(keys, name).map(|key| Known::Key { name: key.name, takes: key.takes })
    }
    let found = find(conn_keys::CONN_KEYS, name)
        .or_else(|| find(auth_keys::AUTH_KEYS, name))
        .or_else(|| find(child_keys::CHILD_KEYS, name))
        .or_else(|| find(shape_keys::SHAPE_KEYS, name));
    let foreign = || conn_keys::FOREIGN_KEYS.iter().find(|key| key.name == name);
    found.or_else(|| foreign().map(|key| Known::Foreign(key.advice))).unwrap_or_else(|| {
        let all = names(conn_keys::CONN_KEYS).chain(names(auth_keys::AUTH_KEYS));
        Known::No(nearest(name, all.chain(names(child_keys::CHILD_KEYS)).chain(names(shape_keys::SHAPE_KEYS))))
    })
}

/// Where a key belongs.
fn place_of(name: &str) -> Option<&'static str> {
    if Key::find(DAEMON_KEYS, name).is_some() {
        Some("[daemon]")
    } else if connections::is_of_conn(name) || name == connections::ALSO {
        Some("[conn.NAME]")
    } else if connections::is_of_child(name) {
        Some("[conn.NAME] or [conn.NAME.child.CHILD]")
    } else if Key::find(INTERFACE_KEYS, name).is_some() {
        Some("[interface.NAME]")
    } else if Key::find(POLICY_KEYS, name).is_some() {
        Some("[policy.NAME]")
    } else if Key::find(POOL_KEYS, name).is_some() {
        Some("[pool.NAME]")
    } else if Key::find(SA_KEYS, name).is_some() {
        Some("[sa.NAME]")
    } else if Key::find(BRIDGE_KEYS, name).is_some() {
        Some("[bridge.NAME]")
    } else {
        host::place_of(name)
    }
}

#[cfg(test)]
mod tests;
