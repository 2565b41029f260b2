//! `quick`: a CA, and all that a list of gateways needs, with one command.
//!
//! ```text
//! DIR/ca/ca.pem                     the certificate of the CA
//! DIR/ca/ca.key.pem                 its key: it stays here
//! DIR/gw1.example.org/              what goes to the gateway, and nothing else
//!     cacerts/ca.pem
//!     certs/gw1.example.org.pem
//!     private/gw1.example.org.pem
//! ```
//!
//! A second run with other gateways uses the CA that is there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as Arguments;
use pki::certificate::{Certificate, KeyPurpose};
use pki::dn::DistinguishedName;
use pki::general_name::GeneralName;
use pki::issue::{CaTemplate, Issuer, Template, random_serial};
use pki::key::{KeyFormat, KeyType, PrivateKey};
use pki::signature::{RsaPadding, SignatureScheme};
use serde_json::json;

use super::files::{self, Passphrase};
use super::options::{DEFAULT_DAYS, key_type};
use super::{now, rng};

#[derive(Arguments)]
pub(crate) struct Args {
    /// Name of the CA, when there is none in the folder yet
    #[arg(long, value_name = "DN")]
    ca: Option<DistinguishedName>,
    /// Folder to write into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Type of all keys: rsa, ecdsa or ed25519
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "ecdsa")]
    kind: String,
    /// Bits; by default 3072 for rsa and 384 for ecdsa
    #[arg(long, short = 's', value_name = "BITS")]
    size: Option<u32>,
    /// Days that the gateways' certificates are valid
    #[arg(long, short = 'l', value_name = "DAYS", default_value_t = DEFAULT_DAYS)]
    lifetime: u32,
    /// Days that the certificate of a new CA is valid
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    ca_lifetime: u32,
    /// The passphrase encrypts the CA's key
    #[command(flatten)]
    passphrase: Passphrase,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Gateways: host name, address or mail address, further names of the same one after commas
    #[arg(value_name = "GATEWAY[,NAME...]", required = true)]
    gateways: Vec<String>,
}

/// A gateway to be.
struct Gateway {
    /// Its first name, which folder and files have too.
    name: String,
    names: Vec<GeneralName>,
}

/// What a gateway's files are.
struct Made {
    gateway: Gateway,
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let key_type = key_type(&args.kind, args.size)?;
    let gateways = args.gateways.iter().map(|text| gateway(text)).collect::<Result<Vec<_>>>()?;
    check_new(args, &gateways)?;
    let (ca, ca_key, ca_is_new) = authority(args, key_type)?;
    let issuer = Issuer::new(&ca, &ca_key, natural(ca_key.key_type()))?;
    let mut made = Vec::new();
    for gateway in gateways {
        made.push(equip(args, gateway, &issuer, key_type)?);
    }
    if args.json {
        show_json(args, &ca, &made);
    } else {
        show(args, &ca, ca_is_new, &made);
    }
    Ok(())
}

fn gateway(text: &str) -> Result<Gateway> {
    let mut parts = text.split(',').map(str::trim);
    let name = parts.next().unwrap_or_default().to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:@".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) || name == CA {
        bail!("`{name}` cannot be the name of a gateway: it becomes the name of files");
    }
    let mut names = Vec::new();
    for part in std::iter::once(name.as_str()).chain(parts) {
        names.push(part.parse().with_context(|| format!("`{text}`"))?);
    }
    Ok(Gateway { name, names })
}

/// Nothing is made when a gateway is there already or named twice: its key must not be replaced by accident.
fn check_new(args: &Args, gateways: &[Gateway]) -> Result<()> {
    for (index, gateway) in gateways.iter().enumerate() {
        let folder = args.out.join(&gateway.name);
        if folder.exists() {
            bail!("{} is there already; remove it to make new keys for {}", folder.display(), gateway.name);
        }
        if gateways.iter().take(index).any(|earlier| earlier.name == gateway.name) {
            bail!("{} is there twice", gateway.name);
        }
    }
    Ok(())
}

/// The CA in the folder, or a new one.
fn authority(args: &Args, key_type: KeyType) -> Result<(Certificate, PrivateKey, bool)> {
    let folder = args.out.join(CA);
    let (certificate_file, key_file) = (folder.join("ca.pem"), folder.join("ca.key.pem"));
    if certificate_file.exists() {
        let certificate = files::certificate(&certificate_file)?;
        if let Some(name) = &args.ca
            && !name.same_as(certificate.subject())
        {
            bail!("{} is of `{}`, not of `{name}`", certificate_file.display(), certificate.subject());
        }
        return Ok((certificate, args.passphrase.private_key(&key_file)?, false));
    }
    let name =
        args.ca.clone().with_context(|| format!("--ca is missing: there is no CA in {} yet", folder.display()))?;
    let key = PrivateKey::generate(key_type, &mut rng())?;
    let now = now();
    let mut template = Template::new(name, random_serial(&mut rng()), now, now.plus_days(args.ca_lifetime));
    template.ca = Some(CaTemplate { path_len: Some(0) });
    let certificate = template.self_signed(&key, natural(key_type), &mut rng())?;
    files::create_folder(&folder, true)?;
    match args.passphrase.read()? {
        Some(passphrase) => files::create(&key_file, key.to_encrypted_pem(&passphrase, &mut rng()).as_bytes(), true)?,
        None => files::create(&key_file, key.to_pem(KeyFormat::Pkcs8).as_bytes(), true)?,
    }
    files::create(&certificate_file, certificate.to_pem().as_bytes(), false)?;
    Ok((certificate, key, true))
}

fn equip(args: &Args, gateway: Gateway, issuer: &Issuer<'_>, key_type: KeyType) -> Result<Made> {
    let key = PrivateKey::generate(key_type, &mut rng())?;
    let now = now();
    // Colons and commas in a name need no quoting in a common name.
    let subject = format!("CN={}", gateway.name).parse()?;
    let not_after = now.plus_days(args.lifetime).min(issuer.certificate().not_after());
    let mut template = Template::new(subject, random_serial(&mut rng()), now, not_after);
    template.alternative_names.clone_from(&gateway.names);
    template.purposes = vec![KeyPurpose::ServerAuth, KeyPurpose::ClientAuth];
    let certificate = issuer.issue(&template, key.public_key(), &mut rng())?;
    let folder = args.out.join(&gateway.name);
    let file = |kind: &str, name: &str| folder.join(kind).join(format!("{name}.pem"));
    let made = Made {
        certificate: file("certs", &gateway.name),
        key: file("private", &gateway.name),
        ca: file("cacerts", CA),
        gateway,
    };
    for (file, private) in [(&made.certificate, false), (&made.key, true), (&made.ca, false)] {
        files::create_folder(file.parent().unwrap_or(Path::new(".")), private)?;
    }
    files::create(&made.key, key.to_pem(KeyFormat::Pkcs8).as_bytes(), true)?;
    files::create(&made.certificate, certificate.to_pem().as_bytes(), false)?;
    files::create(&made.ca, issuer.certificate().to_pem().as_bytes(), false)?;
    Ok(made)
}

fn show(args: &Args, ca: &Certificate, ca_is_new: bool, made: &[Made]) {
    let verb = if ca_is_new { "made" } else { "used" };
    println!("{verb} CA \"{}\" in {}", ca.subject(), args.out.join(CA).display());
    for made in made {
        println!("made {}", args.out.join(&made.gateway.name).display());
    }
    println!("copy each folder to its gateway; the folder {CA} stays here");
}

fn show_json(args: &Args, ca: &Certificate, made: &[Made]) {
    let gateways: Vec<_> = made
        .iter()
        .map(|made| {
            json!({
                "name": made.gateway.name,
                "alternative_names": made.gateway.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "certificate": made.certificate,
                "key": made.key,
                "ca": made.ca,
            })
        })
        .collect();
    let folder = args.out.join(CA);
    let answer = json!({
        "ca": {
            "subject": ca.subject().to_string(),
            "certificate": folder.join("ca.pem"),
            "key": folder.join("ca.key.pem"),
        },
        "gateways": gateways,
    });
    println!("{answer:#}");
}

fn natural(key_type: KeyType) -> SignatureScheme {
    SignatureScheme::natural(key_type, RsaPadding::Pkcs1)
}

/// The folder of the CA, and its file with each gateway.
const CA: &str = "ca";
