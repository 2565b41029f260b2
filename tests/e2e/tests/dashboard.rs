//! The web page: who may see it, and what a browser makes of it. Needs root, Chromium and its driver.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Case, LIMIT, Twins};
use harness::{built, finish};
use serde_json::Value;

const TOKEN: &str = "a-token-for-tests-0123456789";

/// Gateways of which moon has a dashboard, with a tunnel that is up and a connection whose peer is silent.
fn with_dashboard() -> Result<(Twins, tempfile::TempDir)> {
    with_dashboard_and(tempfile::tempdir()?, "")
}

/// The same, with files in `folder` and these further lines for the daemon.
fn with_dashboard_and(folder: tempfile::TempDir, lines: &str) -> Result<(Twins, tempfile::TempDir)> {
    let token = folder.path().join("token");
    fs::write(&token, format!("{TOKEN}\n"))?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let moon_lines = &format!(
        "[conn.silent]\nright = \"192.0.2.99\"\nleftid = \"moon.example\"\nrightid = \"sun.example\"\n\
         leftsubnet = \"10.7.0.0/16\"\nrightsubnet = \"10.8.0.0/16\"\nauto = \"start\"\nretransmit_tries = 1\n\
         retransmit_timeout = \"200ms\"\n\
         [daemon]\ndashboard = \"127.0.0.1:8443\"\ndashboard_token = \"{}\"\n{lines}",
        token.display()
    );
    let twins = Twins::start(Case { moon_lines, ..Case::default() })?;
    twins.up()?;
    twins.expect_pings()?;
    let code = |status: &Value| status["tunnels"]["silent"]["failure"]["code"].as_str().map(str::to_owned);
    twins.moon.wait_status(LIMIT, "the silent peer to be given up", |status| code(status).is_some())?;
    Ok((twins, folder))
}

/// What curl prints: head and body.
fn curl(twins: &Twins, arguments: &str) -> Result<String> {
    twins.world.sh("moon", &format!("curl -ski --max-time 20 {arguments}"))
}

#[test]
fn nobody_sees_anything_without_the_token_and_nobody_can_change_anything() -> Result<()> {
    let (twins, _folder) = with_dashboard()?;
    let page = "https://127.0.0.1:8443";
    for path in ["/state", "/script.js", "/anything"] {
        let answer = curl(&twins, &format!("{page}{path}"))?;
        ensure!(answer.starts_with("HTTP/1.1 401") && !answer.contains("10.1.0.0"), "{path}: {answer}");
    }
    let form = curl(&twins, &format!("{page}/"))?;
    ensure!(form.contains("action=\"/login\"") && !form.contains("script.js"), "{form}");
    for header in
        ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "cache-control: no-store"]
    {
        ensure!(form.to_lowercase().contains(header), "{header}: {form}");
    }
    let wrong = curl(&twins, &format!("-d token=wrong {page}/login"))?;
    ensure!(wrong.starts_with("HTTP/1.1 403") && !wrong.contains("charon-session"), "{wrong}");
    let forged = curl(&twins, &format!("-H 'Cookie: charon-session={}' {page}/state", "0".repeat(64)))?;
    ensure!(forged.starts_with("HTTP/1.1 401"), "{forged}");
    let right = curl(&twins, &format!("-d token={TOKEN} {page}/login"))?;
    ensure!(right.starts_with("HTTP/1.1 303"), "{right}");
    let cookie = right.lines().find_map(|line| line.strip_prefix("set-cookie: ")).context("no cookie")?;
    for word in ["Secure", "HttpOnly", "SameSite=Strict"] {
        ensure!(cookie.contains(word), "{cookie}");
    }
    let session = cookie.split(';').next().unwrap_or_default();
    let seen = curl(&twins, &format!("-H 'Cookie: {session}' {page}/state"))?;
    ensure!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    let bearer = twins.world.sh("moon", &format!("curl -sk -H 'Authorization: Bearer {TOKEN}' {page}/state"))?;
    let state: Value = serde_json::from_str(&bearer)?;
    ensure!(state["tunnels"]["net"]["state"] == "UP", "{state:#}");
    ensure!(state["stories"]["silent"].as_str().is_some_and(|story| story.contains("192.0.2.99")), "{state:#}");
    ensure!(!bearer.contains(TOKEN), "the page tells the token");
    for method in ["POST", "PUT", "DELETE"] {
        let answer = curl(&twins, &format!("-X {method} -H 'Cookie: {session}' {page}/state"))?;
        ensure!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
    let clear = curl(&twins, "http://127.0.0.1:8443/ || true")?;
    ensure!(!clear.contains("HTTP/1.1 200"), "served without TLS: {clear}");
    ensure!(twins.moon.log().contains("fingerprint"), "{}", twins.moon.log());
    ensure!(!twins.moon.log().contains(TOKEN), "the log tells the token");
    Ok(())
}

/// Who shows a certificate of the named CA sees the page without the token; who shows another one does not even get a connection,
/// and who shows none is asked for the token.
#[test]
fn a_certificate_of_the_right_ca_takes_the_place_of_the_token() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = built("pki")?;
    for (out, subject, client) in [("ours", "CN=Dashboard CA", "alice"), ("theirs", "CN=Another CA", "mallory")] {
        let mut quick = Command::new(&program);
        quick.args(["quick", "--ca", subject, "--out"]).arg(folder.path().join(out)).arg(client);
        let made = finish(quick)?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let file = |path: &str| folder.path().join(path).display().to_string();
    let files = |out: &str, client: &str| {
        let (certificate, key) =
            (format!("{out}/{client}/certs/{client}.pem"), format!("{out}/{client}/private/{client}.pem"));
        format!("--cert {} --key {}", file(&certificate), file(&key))
    };
    let lines = format!("dashboard_client_ca = \"{}\"\n", file("ours/alice/cacerts/ca.pem"));
    let (ours, theirs) = (files("ours", "alice"), files("theirs", "mallory"));
    let (twins, _folder) = with_dashboard_and(folder, &lines)?;
    let state = "https://127.0.0.1:8443/state";
    let seen = curl(&twins, &format!("{ours} {state}"))?;
    ensure!(seen.starts_with("HTTP/1.1 200") && seen.contains("\"tunnels\""), "{seen}");
    let refused = curl(&twins, &format!("{theirs} {state} || true"))?;
    ensure!(!refused.contains("HTTP/1.1"), "a certificate of another CA: {refused}");
    let with_token = format!("-H 'Authorization: Bearer {TOKEN}'");
    let refused = curl(&twins, &format!("{with_token} {theirs} {state} || true"))?;
    ensure!(!refused.contains("HTTP/1.1"), "the token does not make up for it: {refused}");
    let without = curl(&twins, state)?;
    ensure!(without.starts_with("HTTP/1.1 401"), "{without}");
    let without = curl(&twins, &format!("{with_token} {state}"))?;
    ensure!(without.starts_with("HTTP/1.1 200"), "{without}");
    Ok(())
}

/// Drives a browser by the protocol of WebDriver: logs in, waits until the page is drawn, and prints what is on it.
const BROWSE: &str = r#"
import json, subprocess, sys, time, urllib.request
token, folder = sys.argv[1], sys.argv[2]
driver = subprocess.Popen(["chromedriver", "--port=9515"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
for line in driver.stdout:
    if "started successfully" in line:
        break

def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:9515" + path, data, {"Content-Type": "application/json"}, method=method)
    return json.load(urllib.request.urlopen(request, timeout=60))["value"]

session = None
try:
    options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + folder]}
    capabilities = {"alwaysMatch": {"acceptInsecureCerts": True, "goog:chromeOptions": options}}
    session = "/session/" + ask("POST", "/session", {"capabilities": capabilities})["sessionId"]
    run = lambda script: ask("POST", session + "/execute/sync", {"script": script, "args": []})
    ask("POST", session + "/url", {"url": "https://127.0.0.1:8443/"})
    field = ask("POST", session + "/element", {"using": "css selector", "value": "input[name=token]"})
    ask("POST", session + "/element/" + list(field.values())[0] + "/value", {"text": token + "\n"})
    script = """
        const states = {};
        for (const line of document.querySelectorAll('#links line')) states[line.dataset.connection] = line.getAttribute('class');
        return {states, summary: document.getElementById('summary')?.textContent, tunnels: document.getElementById('tunnels')?.innerText,
                stories: document.getElementById('stories')?.innerText, graph: document.querySelector('#rates path')?.getAttribute('d')};
    """
    for attempt in range(300):
        page = run(script)
        if page["states"] and (page["graph"] or "").count("L") >= 2:
            break
        time.sleep(0.1)
    print(json.dumps(page))
finally:
    if session:
        ask("DELETE", session)
    driver.terminate()
"#;

#[test]
fn a_browser_draws_a_tunnel_that_is_up_and_the_story_of_one_that_is_not() -> Result<()> {
    let (twins, folder) = with_dashboard()?;
    let script = folder.path().join("browse.py");
    fs::write(&script, BROWSE)?;
    let profile = folder.path().join("profile");
    let command = format!("/usr/bin/python3 {} {TOKEN} {}", script.display(), profile.display());
    let printed = twins.world.sh("moon", &command)?;
    let page: Value = serde_json::from_str(&printed).with_context(|| printed.clone())?;
    ensure!(page["states"]["net"] == "link up" && page["states"]["silent"] == "link down", "{page:#}");
    let has = |place: &str, words: &[&str]| {
        page[place].as_str().is_some_and(|text| words.iter().all(|word| text.contains(word)))
    };
    ensure!(has("summary", &["1 of 2 tunnels up"]), "{page:#}");
    ensure!(has("tunnels", &["net", "silent", "UP", "192.0.2.99"]), "{page:#}");
    ensure!(has("stories", &["192.0.2.99", "silent"]), "{page:#}");
    Ok(())
}
