//! `pub`, `keyid` and `dn`: what is taken out of keys and certificates.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use pki::certificate::Certificate;
use pki::key::{KeyType, PrivateKey, PublicKey};
use pki::pem;
use pki::request::Request;

use super::files::{Input, Output};

#[derive(Args)]
pub(crate) struct PubArgs {
    #[command(flatten)]
    input: Input,
    /// Type of the input: priv, rsa, ecdsa, ed25519, pub, pkcs10 or x509
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "priv")]
    kind: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct KeyidArgs {
    #[command(flatten)]
    input: Input,
    /// Type of the input: priv, rsa, ecdsa, ed25519, pub, pkcs10 or x509
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "priv")]
    kind: String,
    /// Which identifier: all, spk (of the key's octets) or spki (of the whole SubjectPublicKeyInfo)
    #[arg(long, short = 'I', value_name = "ID", default_value = "all")]
    id: Which,
    /// How it is written
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "pretty")]
    format: Format,
}

#[derive(Args)]
pub(crate) struct DnArgs {
    #[command(flatten)]
    input: Input,
    /// How it is written
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "config")]
    format: DnFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    All,
    Spk,
    Spki,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Pretty,
    Hex,
    Base64,
    Bin,
}

#[derive(Clone, Copy, ValueEnum)]
enum DnFormat {
    Config,
    Hex,
    Base64,
    Bin,
}

pub(crate) fn public(args: &PubArgs) -> Result<()> {
    let key = key_of(&args.input, &args.kind)?;
    args.output.write(key.spki_der(), &pem::encode("PUBLIC KEY", key.spki_der()))
}

pub(crate) fn keyid(args: &KeyidArgs) -> Result<()> {
    let key = key_of(&args.input, &args.kind)?;
    let ids = [
        (Which::Spki, "keyid (SHA-1 of subjectPublicKeyInfo):", key.spki_id()),
        (Which::Spk, "subjkey (SHA-1 of subjectPublicKey):", key.key_id()),
    ];
    for (_, title, id) in ids.into_iter().filter(|(which, ..)| args.id == Which::All || args.id == *which) {
        match args.format {
            Format::Pretty => println!("{title}\n             {id}"),
            Format::Hex => println!("{}", hex(&id.0)),
            Format::Base64 => println!("{}", base64(&id.0)),
            Format::Bin => std::io::stdout().write_all(&id.0)?,
        }
    }
    Ok(())
}

pub(crate) fn dn(args: &DnArgs) -> Result<()> {
    let octets = args.input.read()?;
    let certificate = first(Certificate::load(&octets).with_context(|| args.input.name())?)?;
    let der = certificate.subject().der();
    match args.format {
        DnFormat::Config => println!("\"asn1dn:#{}\"", hex(der)),
        DnFormat::Hex => println!("{}", hex(der)),
        DnFormat::Base64 => println!("{}", base64(der)),
        DnFormat::Bin => std::io::stdout().write_all(der)?,
    }
    Ok(())
}

/// The public key in whatever is of type `kind`.
fn key_of(input: &Input, kind: &str) -> Result<PublicKey> {
    let octets = input.read()?;
    match kind {
        "pub" => public_key(&octets).with_context(|| input.name()),
        "pkcs10" => Ok(Request::load(&octets).with_context(|| input.name())?.public_key().clone()),
        "x509" => {
            let certificate = first(Certificate::load(&octets).with_context(|| input.name())?)?;
            Ok(certificate.public_key().map_err(Clone::clone).with_context(|| input.name())?.clone())
        }
        kind => {
            let passphrase = input.passphrase.read()?;
            let key =
                PrivateKey::load(&octets, passphrase.as_deref().map(String::as_str)).with_context(|| input.name())?;
            check_kind(kind, &key)?;
            Ok(key.public_key().clone())
        }
    }
}

/// A SubjectPublicKeyInfo, PEM or DER.
pub(crate) fn public_key(octets: &[u8]) -> Result<PublicKey> {
    if !pem::is_pem(octets) {
        return Ok(PublicKey::from_spki_der(octets)?);
    }
    let blocks = pem::parse(octets)?;
    let block = blocks.iter().find(|block| block.label == "PUBLIC KEY").context("there is no public key in it")?;
    Ok(PublicKey::from_spki_der(&block.der)?)
}

/// `--type rsa` wants an RSA key; `priv` takes any.
pub(crate) fn check_kind(kind: &str, key: &PrivateKey) -> Result<()> {
    let fits = match kind {
        "priv" => true,
        "rsa" => matches!(key.key_type(), KeyType::Rsa { .. }),
        "ecdsa" => matches!(key.key_type(), KeyType::Ecdsa(_)),
        "ed25519" => key.key_type() == KeyType::Ed25519,
        other => bail!("`{other}` is no type that can be read here"),
    };
    if fits { Ok(()) } else { bail!("the key is of type {}, not {kind}", key.key_type()) }
}

pub(crate) fn first(certificates: Vec<Certificate>) -> Result<Certificate> {
    certificates.into_iter().next().context("there is no certificate in it")
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// PEM without its first and last line is base64.
fn base64(octets: &[u8]) -> String {
    pem::encode("X", octets).lines().filter(|line| !line.starts_with("-----")).collect()
}
