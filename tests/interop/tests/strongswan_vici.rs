//! The control socket beside strongSwan's own: stock `swanctl` and the Python client `vici` ask both daemons the same in the same
//! situation, and get the same answers but for numbers. Needs root, strongSwan, and the Python client in `target/tools/python`
//! (`tests/run` puts it there).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use harness::{Charon, Gateway, Site, StrongSwan, World, finish};
use interop::certificates::Certificates;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Our daemon in `moon`, strongSwan in `sun`, both without a configuration.
struct Two {
    ours: Gateway,
    theirs: StrongSwan,
    folder: TempDir,
    _world: World,
}

impl Two {
    fn start() -> Result<Self> {
        Self::with(&[])
    }

    /// Both with these files in their swanctl folders.
    fn with(files: &[(&str, PathBuf)]) -> Result<Self> {
        let world = World::two_sites()?;
        let folder = tempfile::tempdir()?;
        let charon = Charon { files, ..Charon::default() };
        let theirs = StrongSwan::start(&world, Site::SUN.gateway, folder.path(), charon, "")?;
        for (name, source) in files {
            let target = folder.path().join("ours").join(name);
            target.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::copy(source, target)?;
        }
        let ours = Gateway::start(&world, Site::MOON.gateway, folder.path(), "", "")?;
        Ok(Self { ours, theirs, folder, _world: world })
    }

    /// Runs swanctl against our daemon, with `configuration` as its swanctl.conf.
    fn swanctl(&self, configuration: &str, arguments: &[&str]) -> Result<(bool, String)> {
        let folder = self.folder.path().join("ours");
        write_folder(&folder, configuration)?;
        self.ours.swanctl(&folder, arguments)
    }

    /// What both print for the same question, each seen from its own side.
    fn compare(&self, arguments: &[&str]) -> Result<()> {
        let (_, ours) = self.swanctl(&configuration(Side::Ours), arguments)?;
        let theirs = self.theirs.try_swanctl(arguments)?;
        let theirs = String::from_utf8_lossy(&theirs.stdout).into_owned() + &String::from_utf8_lossy(&theirs.stderr);
        let (ours, theirs) = (sorted(&masked(&from_the_other_side(&ours))), sorted(&masked(&theirs)));
        ensure!(ours == theirs, "{arguments:?}\n--- ours\n{ours}\n--- strongSwan's\n{theirs}");
        Ok(())
    }
}

/// Whose configuration.
#[derive(Clone, Copy)]
enum Side {
    Ours,
    Theirs,
}

/// Two connections with what both daemons know.
fn configuration(side: Side) -> String {
    let text = r#"
connections {
  gw {
    version = 2
    local_addrs = 192.168.0.1
    remote_addrs = 192.168.0.2
    encap = yes
    proposals = aes256gcm16-prfsha384-x25519
    dpd_delay = 30s
    local { auth = psk
      id = moon.example.org }
    remote { auth = psk
      id = sun.example.org }
    children {
      net { local_ts = 10.1.0.0/16
        remote_ts = 10.2.0.0/16
        esp_proposals = aes256gcm16-x25519, aes256-sha256
        dpd_action = restart
        updown = /bin/true }
      second { local_ts = 10.1.0.0/16[udp/1000-2000]
        remote_ts = 10.2.0.0/16[udp]
        start_action = trap
        rekey_bytes = 1000000
        rekey_packets = 5000
        dpd_action = trap
        close_action = trap
        esp_proposals = aes256-sha256 }
      passed { local_ts = 10.77.0.0/16
        remote_ts = 10.88.0.0/16
        mode = pass }
      dropped { local_ts = 10.78.0.0/16
        remote_ts = 10.89.0.0/16
        mode = drop }
    }
  }
  rw {
    version = 2
    remote_addrs = %any
    reauth_time = 2h
    unique = replace
    vips = 0.0.0.0, ::
    pools = clients, six
    local { auth = psk }
    remote { auth = psk
      id = *.example.org }
    children { one { remote_ts = dynamic } }
  }
}
pools {
  clients { addrs = 10.3.0.0/24
    dns = 10.3.0.53
    subnet = 10.9.0.0/16
    28675 = hello }
  others { addrs = 10.4.0.5-10.4.0.9 }
  six { addrs = fec3::/120
    dns = fec3::53 }
}
secrets { ike-1 { id-1 = moon.example.org
  id-2 = sun.example.org
  secret = Vpp123 } }
"#;
    match side {
        Side::Ours => text.to_owned(),
        Side::Theirs => from_the_other_side(text),
    }
}

/// What one gateway says, as the other one would.
fn from_the_other_side(text: &str) -> String {
    let swap = |text: String, a: &str, b: &str| text.replace(a, "\u{0}").replace(b, a).replace('\u{0}', b);
    let pairs = [("moon.", "sun."), ("192.168.0.1", "192.168.0.2"), ("10.1.0.0", "10.2.0.0")];
    pairs.iter().fold(text.to_owned(), |text, (a, b)| swap(text, a, b))
}

/// Numbers that differ from run to run, and what each daemon calls itself.
fn masked(text: &str) -> String {
    let is_value = |word: &str, key: &str| word.starts_with(&format!("{key}="));
    let numbers = ["uniqueid", "reqid", "rekey-time", "life-time", "established", "install-time", "ikesa-uniqueid"];
    let words = text.split(' ').map(|word| {
        let word = word.trim_start_matches('{');
        match numbers.iter().find(|key| is_value(word, key)) {
            Some(key) => format!("{key}=#"),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The order of events of one name follows hash tables at strongSwan.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn write_folder(folder: &Path, configuration: &str) -> Result<()> {
    for inner in ["x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private", "rsa", "ecdsa"] {
        fs::create_dir_all(folder.join(inner))?;
    }
    Ok(fs::write(folder.join("swanctl.conf"), configuration)?)
}

#[test]
fn stock_swanctl_prints_the_same_for_both_daemons() -> Result<()> {
    let two = Two::start()?;
    two.theirs.load(&configuration(Side::Theirs))?;
    let (done, said) = two.swanctl(&configuration(Side::Ours), &["--load-all"])?;
    ensure!(done && said.contains("successfully loaded 2 connections"), "{said}");
    for question in [
        &["--list-conns", "--raw"][..],
        &["--list-pols", "--raw"],
        &["--list-pols", "--trap", "--child", "second", "--raw"],
        &["--list-certs", "--raw"],
        &["--list-authorities", "--raw"],
        &["--list-pools", "--raw"],
        &["--list-pools", "--leases", "--raw"],
        &["--list-pools"],
        &["--list-sas", "--raw"],
        &["--counters", "--raw"],
        &["--counters", "--name", "nope", "--raw"],
        &["--flush-certs", "--raw"],
        &["--reload-settings", "--raw"],
        &["--initiate", "--child", "nope", "--raw"],
        &["--initiate", "--ike", "nope", "--raw"],
        &["--terminate", "--ike", "nope", "--raw"],
        &["--terminate", "--child-id", "99", "--raw"],
        &["--rekey", "--child", "nope", "--raw"],
        &["--redirect", "--ike", "nope", "--gateway", "192.0.2.9", "--raw"],
        &["--install", "--child", "nope"],
        &["--uninstall", "--child", "nope"],
        &["--install", "--child", "net"],
        &["--list-pols", "--raw"],
        &["--uninstall", "--child", "net"],
        &["--uninstall", "--child", "net"],
        &["--list-pols", "--raw"],
    ] {
        two.compare(question)?;
    }
    let (done, said) = two.swanctl(&configuration(Side::Ours), &["--load-all"])?;
    ensure!(done && said.contains("successfully loaded 2 connections, 0 unloaded"), "twice: {said}");
    let (done, said) = two.swanctl("connections { }", &["--load-conns"])?;
    ensure!(done && said.contains("2 unloaded"), "{said}");
    let (done, said) = two.swanctl("pools { }", &["--load-pools"])?;
    ensure!(done && said.contains("3 unloaded"), "{said}");
    Ok(())
}

/// What configurations of strongSwan's own tests have: certificates and CAs, rounds, keys, protocols, ports and priorities.
const OF_EVERY_KIND: &str = r"
connections {
  rw {
    version = 2
    local_addrs = 192.0.2.1
    local { auth = pubkey
      certs = gw.pem
      id = moon.example.org }
    remote { auth = pubkey
      cacerts = ca.pem
      revocation = ifuri }
    proposals = aes128-sha256-modp3072
    children {
      icmp { local_ts = 10.1.0.0/16[icmp/2048]
        remote_ts = dynamic[icmp/2048]
        hostaccess = yes
        updown = /usr/local/libexec/ipsec/_updown iptables }
      ftp-ssh { local_ts = 10.1.0.0/16[tcp/21-22], 10.1.0.0/16[tcp/https]
        remote_ts = dynamic[tcp/32768-65535], dynamic[udp/1701]
        rekey_time = 5400
        rekey_bytes = 500000000
        rekey_packets = 1000000
        esp_proposals = aes128gcm128-modp3072 }
      gre { mode = transport
        local_ts = dynamic[gre]
        remote_ts = dynamic[gre] }
      first { local_ts = 10.1.0.0/16, 224.0.0.251/32
        priority = 2
        policies_fwd_out = yes }
    }
  }
  home {
    version = 2
    remote_addrs = 192.0.2.2
    mobike = no
    reauth_time = 10800
    ppk_id = carol@example.org
    ppk_required = yes
    local { auth = psk
      id = carol@example.org }
    remote { auth = pubkey
      id = *@example.org
      revocation = strict }
    remote-2 { auth = psk }
    children { home { remote_ts = 10.1.0.0/16 } }
  }
  shunts {
    version = 2
    children {
      drop-all { local_ts = 10.66.0.0/16
        remote_ts = 10.67.0.0/16
        priority = 4
        mode = drop
        start_action = trap }
      pass-ssh { local_ts = 10.66.0.0/16[tcp/ssh]
        remote_ts = 10.67.0.0/16[tcp]
        priority = 1
        mode = pass
        start_action = trap }
    }
  }
}
authorities { root { cacert = ca.pem
  crl_uris = http://crl.example.org/root.crl
  ocsp_uris = http://ocsp.example.org:8880 } }
secrets { ppk { id = carol@example.org
  secret = 0x0102030405060708 } }
";

#[test]
fn configurations_of_every_kind_are_listed_the_same_by_both_daemons() -> Result<()> {
    let certificates = Certificates::new("--type ecdsa --size 256")?;
    let moon = certificates.folder().join("moon.example.org");
    let two = Two::with(&[
        ("x509ca/ca.pem", moon.join("cacerts/ca.pem")),
        ("x509/gw.pem", moon.join("certs/moon.example.org.pem")),
        ("private/gw.pem", moon.join("private/moon.example.org.pem")),
    ])?;
    two.theirs.load(OF_EVERY_KIND)?;
    let (done, said) = two.swanctl(OF_EVERY_KIND, &["--load-all"])?;
    ensure!(done && said.contains("successfully loaded 3 connections"), "{said}");
    for question in ["--list-conns", "--list-authorities"] {
        let theirs = two.theirs.swanctl(&[question, "--raw"])?;
        let (_, ours) = two.swanctl(OF_EVERY_KIND, &[question, "--raw"])?;
        // Connections that nobody negotiates have no rounds at strongSwan.
        let comparable = |text: &str| sorted(text).replace(WITHOUT_ROUNDS, "").replace(DEFAULT_ROUNDS, "");
        let (ours, theirs) = (comparable(&ours), comparable(&theirs));
        ensure!(ours == theirs, "{question}\n--- ours\n{ours}\n--- strongSwan's\n{theirs}");
    }
    Ok(())
}

const WITHOUT_ROUNDS: &str =
    "local-1 {groups=[] cert_policy=[] certs=[] cacerts=[]} remote-1 {groups=[] cert_policy=[] certs=[] cacerts=[]} ";
const DEFAULT_ROUNDS: &str = "local-1 {class=pre-shared key groups=[] cert_policy=[] certs=[] cacerts=[]} remote-1 {class=pre-shared key groups=[] cert_policy=[] certs=[] cacerts=[]} ";

/// The arguments of `load-conn` and `load-shared` as the Python client takes them.
fn python_connection(side: Side) -> Result<Value> {
    let text = json!({
        "conn": {"gw": {
            "version": "2", "local_addrs": ["192.168.0.1"], "remote_addrs": ["192.168.0.2"], "encap": "yes",
            "proposals": ["aes256gcm16-prfsha384-x25519"],
            "local": {"auth": "psk", "id": "moon.example.org"},
            "remote": {"auth": "psk", "id": "sun.example.org"},
            "children": {"net": {
                "local_ts": ["10.1.0.0/16"], "remote_ts": ["10.2.0.0/16"], "esp_proposals": ["aes256gcm16-x25519"],
            }},
        }},
        "shared": {"id": "ike-1", "type": "IKE", "data": "Vpp123", "owners": ["moon.example.org", "sun.example.org"]},
    })
    .to_string();
    let text = if matches!(side, Side::Ours) { text } else { from_the_other_side(&text) };
    Ok(serde_json::from_str(&text)?)
}

fn python(folder: &Path, socket: &Path, side: Side) -> Result<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = root.join("../../target/tools/python");
    ensure!(
        library.join("vici").exists(),
        "the Python client is missing: python3 -m pip install --target target/tools/python vici"
    );
    let file = folder.join("connection.json");
    fs::write(&file, python_connection(side)?.to_string())?;
    let mut command = Command::new("python3");
    command.arg(root.join("vici_client.py")).arg(library).arg(socket).arg(file);
    let output = finish(command)?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).with_context(|| text)
}

/// The peer's side, by swanctl.
fn passive(side: Side) -> String {
    let text = r"connections { gw { version = 2
  local_addrs = 192.168.0.1
  remote_addrs = 192.168.0.2
  encap = yes
  proposals = aes256gcm16-prfsha384-x25519
  local { auth = psk
    id = moon.example.org }
  remote { auth = psk
    id = sun.example.org }
  children { net { local_ts = 10.1.0.0/16
    remote_ts = 10.2.0.0/16
    esp_proposals = aes256gcm16-x25519 } } } }
secrets { ike-1 { id-1 = moon.example.org
  id-2 = sun.example.org
  secret = Vpp123 } }
";
    if matches!(side, Side::Ours) { text.to_owned() } else { from_the_other_side(text) }
}

/// What is the same for everybody in the same situation.
fn shape(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let is_ignored = |item: &&Value| IGNORED.iter().any(|key| item["key"] == *key);
            Value::Array(items.iter().filter(|item| !is_ignored(item)).map(shape).collect())
        }
        Value::Object(member) => {
            let key = member.get("key").and_then(Value::as_str).unwrap_or_default();
            let key = if key.starts_with("net-") { "net-#" } else { key };
            let value = &value["value"];
            json!([key, if NUMBERS.contains(&key) { json!("#") } else { shape(value) }])
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Tasks have each daemon's own names. strongSwan, which wants UDP always, says that it fakes a NAT only if the peer does not.
const IGNORED: [&str; 6] = ["tasks-active", "tasks-passive", "tasks-queued", "nat-remote", "nat-fake", "counters"];

const NUMBERS: [&str; 10] = [
    "uniqueid",
    "reqid",
    "initiator-spi",
    "responder-spi",
    "spi-in",
    "spi-out",
    "established",
    "rekey-time",
    "life-time",
    "install-time",
];

#[test]
fn the_python_client_gets_the_same_answers_and_events_from_both_daemons() -> Result<()> {
    let two = Two::start()?;
    two.swanctl(&passive(Side::Ours), &["--load-all"])?;
    let theirs = python(two.folder.path(), &two.theirs.socket(), Side::Theirs)?;
    two.theirs.load(&passive(Side::Theirs))?;
    two.swanctl("connections { }", &["--load-conns"])?;
    let ours = python(two.folder.path(), &two.ours.socket(), Side::Ours)
        .with_context(|| format!("--- our log\n{}", two.ours.log()))?;
    let ours: Value = serde_json::from_str(&from_the_other_side(&ours.to_string()))?;
    let of = |answers: &Value| -> Result<Map<String, Value>> {
        Ok(answers.as_object().context("answers")?.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    let (ours, theirs) = (of(&ours)?, of(&theirs)?);
    ensure!(ours.keys().eq(theirs.keys()));
    let ours_alone = ["events", "refused"];
    for (key, value) in ours.iter().filter(|(key, _)| !ours_alone.contains(&key.as_str())) {
        let (own, other) = (shape(value), shape(&theirs[key]));
        ensure!(own == other, "{key}\n--- ours\n{own}\n--- strongSwan's\n{other}");
    }
    for (what, refusal) in ours["refused"].as_object().context("refusals")? {
        // There are no tokens here, and we say so.
        let other = if what == "a token" { &json!(NO_TOKENS) } else { &theirs["refused"][what] };
        ensure!(refusal == other, "{what}: {refusal} instead of {other}");
    }
    for event in ["ike-updown", "child-updown", "child-rekey", "ike-rekey"] {
        let of = |answers: &Map<String, Value>| -> Result<Value> {
            let all = answers["events"].as_array().context("events")?;
            Ok(shape(all.iter().find(|seen| seen[0] == event).context(event)?))
        };
        let (own, other) = (of(&ours)?, of(&theirs)?);
        ensure!(
            without_old_rekey_time(&own) == without_old_rekey_time(&other),
            "{event}\n--- ours\n{own}\n--- strongSwan's\n{other}"
        );
    }
    Ok(())
}

const NO_TOKENS: &str = "CommandException: Command failed: keys on tokens are not supported: put the private key into swanctl's folder `private`";

/// strongSwan still shows when a Child SA would be rekeyed that was just replaced.
fn without_old_rekey_time(event: &Value) -> String {
    event.to_string().replace("[\"rekey-time\",\"#\"],", "")
}

#[test]
fn swanctl_is_told_which_key_is_refused_and_which_one_was_meant() -> Result<()> {
    let two = Two::start()?;
    let (done, said) = two.swanctl("connections { gw { mobik = no } }", &["--load-conns"])?;
    ensure!(!done && said.contains("unknown option: mobik (did you mean mobike?), config discarded"), "{said}");
    let (done, said) = two.swanctl("connections { gw { children { net { interface = lo } } } }", &["--load-conns"])?;
    ensure!(!done && said.contains("lo is a link of the host; expected an interface for the daemon to make"), "{said}");
    for (pool, why) in [
        ("addrs = nonsense", "invalid addrs value: nonsense"),
        ("dns = 10.0.0.1", "missing addrs for pool 'p'"),
        ("addrs = 10.3.0.0/24\n dns = foo", "invalid attribute value for dns"),
        ("addrs = 10.3.0.0/24\n nonsense = 1", "invalid attribute: nonsense"),
    ] {
        let pools = format!("pools {{ p {{ {pool} }} }}");
        let (done, said) = two.swanctl(&pools, &["--load-pools"])?;
        two.theirs.load("connections { }")?;
        fs::write(two.theirs.socket().with_file_name("swanctl").join("swanctl.conf"), &pools)?;
        let theirs = two.theirs.try_swanctl(&["--load-pools"])?;
        let theirs = String::from_utf8_lossy(&theirs.stderr).into_owned();
        ensure!(!done && said.contains(why) && theirs.contains(why), "{pool}: {said}\n{theirs}");
    }
    Ok(())
}
