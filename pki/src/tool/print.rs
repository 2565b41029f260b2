//! `print`: what is in a file, for people or as JSON.

use anyhow::{Context, Result, bail};
use clap::Args as Arguments;
use pki::certificate::{Certificate, Extensions};
use pki::crl::Crl;
use pki::key::{PrivateKey, PublicKey};
use pki::pem;
use pki::request::Request;
use pki::time::UnixTime;
use serde_json::{Value, json};

use super::files::Input;
use super::{identifiers, now};

#[derive(Arguments)]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// Type of the input: x509, crl, pkcs10, pub, priv, rsa, ecdsa or ed25519; by default what it turns out to be
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    kind: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lines of a title and what belongs to it.
type Lines = Vec<(&'static str, String)>;

enum Thing {
    Certificates(Vec<Certificate>),
    Crl(Box<Crl>),
    Request(Box<Request>),
    Public(Box<PublicKey>),
    Private(Box<PrivateKey>),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let octets = args.input.read()?;
    let passphrase = args.input.passphrase.read()?;
    let passphrase = passphrase.as_deref().map(String::as_str);
    let kind = args.kind.clone().unwrap_or_else(|| kind_of(&octets).to_owned());
    let thing = read(&kind, &octets, passphrase).with_context(|| args.input.name())?;
    if args.json {
        println!("{:#}", as_json(&thing));
        return Ok(());
    }
    let blocks = match &thing {
        Thing::Certificates(all) => all.iter().map(certificate_lines).collect(),
        Thing::Crl(crl) => vec![crl_lines(crl)],
        Thing::Request(request) => vec![request_lines(request)],
        Thing::Public(key) => vec![key_lines("pubkey", key)],
        Thing::Private(key) => vec![key_lines("privkey", key.public_key())],
    };
    for (index, lines) in blocks.iter().enumerate() {
        print!("{}", if index == 0 { "" } else { "\n" });
        for (title, text) in lines {
            println!("  {:<10} {}", if title.is_empty() { String::new() } else { format!("{title}:") }, text);
        }
    }
    Ok(())
}

/// The type of what is in a file: by its label, or by what it can be read as.
fn kind_of(octets: &[u8]) -> &'static str {
    if let Ok(blocks) = pem::parse(octets) {
        return match blocks.first().map(|block| block.label.as_str()) {
            Some("X509 CRL") => "crl",
            Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => "pkcs10",
            Some("PUBLIC KEY") => "pub",
            Some(label) if label.ends_with("PRIVATE KEY") => "priv",
            _ => "x509",
        };
    }
    if Certificate::from_der(octets).is_ok() {
        "x509"
    } else if Crl::from_der(octets).is_ok() {
        "crl"
    } else if Request::from_der(octets).is_ok() {
        "pkcs10"
    } else if PublicKey::from_spki_der(octets).is_ok() {
        "pub"
    } else if PrivateKey::from_der(octets).is_ok() {
        "priv"
    } else {
        "x509"
    }
}

fn read(kind: &str, octets: &[u8], passphrase: Option<&str>) -> Result<Thing> {
    Ok(match kind {
        "x509" => Thing::Certificates(Certificate::load(octets)?),
        "crl" => Thing::Crl(Box::new(Crl::load(octets)?)),
        "pkcs10" => Thing::Request(Box::new(Request::load(octets)?)),
        "pub" => Thing::Public(Box::new(identifiers::public_key(octets)?)),
        "priv" | "rsa" | "ecdsa" | "ed25519" => {
            let key = PrivateKey::load(octets, passphrase)?;
            identifiers::check_kind(kind, &key)?;
            Thing::Private(Box::new(key))
        }
        other => bail!("there are x509, crl, pkcs10, pub, priv, rsa, ecdsa and ed25519, not `{other}`"),
    })
}

fn certificate_lines(certificate: &Certificate) -> Lines {
    let mut lines = vec![
        ("subject", format!("\"{}\"", certificate.subject())),
        ("issuer", format!("\"{}\"", certificate.issuer())),
        ("validity", format!("not before {}", begin(certificate.not_before()))),
        ("", format!("not after  {}", end(Some(certificate.not_after())))),
        ("serial", certificate.serial().to_string()),
    ];
    lines.extend(extension_lines(certificate.extensions(), certificate.is_self_signed()));
    match certificate.signature_scheme() {
        Ok(scheme) => lines.push(("signature", scheme.to_string())),
        Err(error) => lines.push(("signature", error.to_string())),
    }
    lines.push(("sha256", identifiers::hex(&certificate.fingerprint())));
    match certificate.public_key() {
        Ok(key) => lines.extend(key_lines("pubkey", key)),
        Err(error) => lines.push(("pubkey", error.to_string())),
    }
    lines
}

fn extension_lines(extensions: &Extensions, self_signed: bool) -> Lines {
    let mut lines = Lines::new();
    let mut add = |title, items: Vec<String>| {
        if !items.is_empty() {
            lines.push((title, items.join(", ")));
        }
    };
    add("altNames", texts(&extensions.subject_alternative_names));
    add("flags", flags(extensions, self_signed));
    let points = |points: &[pki::certificate::DistributionPoint]| {
        points.iter().flat_map(|point| texts(&point.names)).collect::<Vec<_>>()
    };
    add("CRL URIs", points(&extensions.crl_distribution_points));
    add("delta URIs", points(&extensions.freshest_crl));
    add("OCSP URIs", extensions.ocsp_uris.iter().map(|uri| printable(uri)).collect());
    add(
        "pathlen",
        extensions.basic_constraints.and_then(|c| c.path_len).map(|len| len.to_string()).into_iter().collect(),
    );
    if let Some(constraints) = &extensions.name_constraints {
        add("permitted", texts(&constraints.permitted));
        add("excluded", texts(&constraints.excluded));
    }
    add("policies", texts(extensions.policies.as_deref().unwrap_or_default()));
    add("mappings", extensions.policy_mappings.iter().map(|(from, to)| format!("{from} => {to}")).collect());
    add("authkeyId", extensions.authority_key_id.iter().map(|id| colons(id)).collect());
    add("subjkeyId", extensions.subject_key_id.iter().map(|id| colons(id)).collect());
    add("unknown", extensions.unknown_critical.iter().map(|id| format!("{id} (critical)")).collect());
    lines
}

fn flags(extensions: &Extensions, self_signed: bool) -> Vec<String> {
    let mut flags = Vec::new();
    let mut add = |present: bool, name: &str| {
        if present {
            flags.push(name.to_owned());
        }
    };
    add(extensions.basic_constraints.is_some_and(|constraints| constraints.ca), "CA");
    if let Some(usage) = &extensions.key_usage {
        add(usage.crl_sign(), "CRLSign");
        add(usage.digital_signature(), "digitalSignature");
    }
    for purpose in extensions.extended_key_usage.iter().flatten() {
        add(true, &purpose.to_string());
    }
    add(self_signed, "self-signed");
    flags
}

fn request_lines(request: &Request) -> Lines {
    let mut lines = vec![("subject", format!("\"{}\"", request.subject()))];
    lines.extend(extension_lines(request.extensions(), false));
    if let Ok(scheme) = request.signature_scheme() {
        lines.push(("signature", scheme.to_string()));
    }
    lines.extend(key_lines("pubkey", request.public_key()));
    lines
}

fn crl_lines(crl: &Crl) -> Lines {
    let mut lines = vec![
        ("issuer", format!("\"{}\"", crl.issuer())),
        ("update", format!("this on {}", begin(crl.this_update()))),
        ("", format!("next on {}", end(crl.next_update()))),
    ];
    lines.extend(crl.number().map(|number| ("serial", number.to_string())));
    lines.extend(crl.base_number().map(|number| ("delta to", number.to_string())));
    let count = crl.entries().count();
    lines.push(("revoked", format!("{count} {}", if count == 1 { "certificate" } else { "certificates" })));
    lines.extend(crl.entries().map(|(serial, entry)| ("", format!("{serial}: {}, {}", entry.time, entry.reason))));
    lines
}

fn key_lines(title: &'static str, key: &PublicKey) -> Lines {
    vec![
        (title, key.key_type().to_string()),
        ("keyid", key.spki_id().to_string()),
        ("subjkey", key.key_id().to_string()),
    ]
}

fn begin(time: UnixTime) -> String {
    if time <= now() { format!("{time}, ok") } else { format!("{time}, not valid yet") }
}

fn end(time: Option<UnixTime>) -> String {
    let now = now();
    match time {
        None => "not told".to_owned(),
        Some(time) if time < now => format!("{time}, expired {} days ago", now.days_since(time)),
        Some(time) => format!("{time}, ok (expires in {} days)", time.days_since(now)),
    }
}

fn as_json(thing: &Thing) -> Value {
    match thing {
        Thing::Certificates(all) => Value::Array(all.iter().map(certificate_json).collect()),
        Thing::Crl(crl) => json!({
            "type": "crl",
            "issuer": crl.issuer().to_string(),
            "this_update": crl.this_update().0,
            "next_update": crl.next_update().map(|time| time.0),
            "number": crl.number().map(ToString::to_string),
            "base_number": crl.base_number().map(ToString::to_string),
            "revoked": crl.entries().map(|(serial, entry)| json!({
                "serial": serial.to_string(),
                "time": entry.time.0,
                "reason": entry.reason.to_string(),
            })).collect::<Vec<_>>(),
        }),
        Thing::Request(request) => json!({
            "type": "pkcs10",
            "subject": request.subject().to_string(),
            "alternative_names": texts(&request.extensions().subject_alternative_names),
            "flags": flags(request.extensions(), false),
            "key": key_json(request.public_key()),
        }),
        Thing::Public(key) => json!({ "type": "pub", "key": key_json(key) }),
        Thing::Private(key) => json!({ "type": "priv", "key": key_json(key.public_key()) }),
    }
}

fn certificate_json(certificate: &Certificate) -> Value {
    let extensions = certificate.extensions();
    let constraints = extensions.name_constraints.as_ref();
    json!({
        "type": "x509",
        "subject": certificate.subject().to_string(),
        "issuer": certificate.issuer().to_string(),
        "serial": certificate.serial().to_string(),
        "not_before": certificate.not_before().0,
        "not_after": certificate.not_after().0,
        "alternative_names": texts(certificate.alternative_names()),
        "flags": flags(extensions, certificate.is_self_signed()),
        "path_len": extensions.basic_constraints.and_then(|constraints| constraints.path_len),
        "permitted": constraints.map(|constraints| texts(&constraints.permitted)),
        "excluded": constraints.map(|constraints| texts(&constraints.excluded)),
        "policies": extensions.policies.as_deref().map(texts),
        "crl_uris": extensions.crl_distribution_points.iter().flat_map(|point| texts(&point.names)).collect::<Vec<_>>(),
        "ocsp_uris": extensions.ocsp_uris,
        "authority_key_id": extensions.authority_key_id.as_ref().map(|id| colons(id)),
        "subject_key_id": extensions.subject_key_id.as_ref().map(|id| colons(id)),
        "signature": certificate.signature_scheme().map_or_else(|error| error.to_string(), |scheme| scheme.to_string()),
        "sha256": identifiers::hex(&certificate.fingerprint()),
        "key": certificate.public_key().ok().map(key_json),
    })
}

fn key_json(key: &PublicKey) -> Value {
    json!({
        "type": key.key_type().to_string(),
        "keyid": key.spki_id().to_string(),
        "subjkey": key.key_id().to_string(),
    })
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn colons(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

/// What somebody else wrote, without what could do harm on a terminal.
fn printable(text: &str) -> String {
    text.bytes().flat_map(u8::escape_ascii).map(char::from).collect()
}
