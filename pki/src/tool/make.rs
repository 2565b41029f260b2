//! `gen`, `self`, `issue` and `req`: what is made and goes to standard output.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args};
use pki::certificate::{Certificate, KeyPurpose};
use pki::dn::DistinguishedName;
use pki::general_name::GeneralName;
use pki::issue::Issuer;
use pki::key::{KeyFormat, PrivateKey, PublicKey};
use pki::request::{Request, RequestTemplate};

use super::files::{self, Input, Output, Passphrase};
use super::options::{Authority, Content, Flag, Signing, key_type};
use super::{identifiers, rng};

#[derive(Args)]
pub(crate) struct GenArgs {
    /// Type of the key: rsa, ecdsa or ed25519
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "rsa")]
    kind: String,
    /// Bits; by default 3072 for rsa and 384 for ecdsa
    #[arg(long, short = 's', value_name = "BITS")]
    size: Option<u32>,
    /// Write PKCS#1 or SEC1 like strongSwan instead of PKCS#8
    #[arg(long)]
    traditional: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    passphrase: Passphrase,
}

#[derive(Args)]
pub(crate) struct SelfArgs {
    #[command(flatten)]
    input: Input,
    /// Type of the input: priv, rsa, ecdsa or ed25519
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "priv")]
    kind: String,
    /// Subject and issuer
    #[arg(long, short = 'd', value_name = "DN")]
    dn: DistinguishedName,
    #[command(flatten)]
    content: Content,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct IssueArgs {
    #[command(flatten)]
    input: Input,
    /// Type of the input: pub, pkcs10, priv, rsa, ecdsa or ed25519
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "pub")]
    kind: String,
    #[command(flatten)]
    authority: Authority,
    /// Subject; by default that of the request
    #[arg(long, short = 'd', value_name = "DN")]
    dn: Option<DistinguishedName>,
    #[command(flatten)]
    content: Content,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct ReqArgs {
    #[command(flatten)]
    input: Input,
    /// Type of the input: priv, rsa, ecdsa or ed25519
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "priv")]
    kind: String,
    /// Subject
    #[arg(long, short = 'd', value_name = "DN", required_unless_present = "oldreq")]
    dn: Option<DistinguishedName>,
    /// Request to take subject, names and purposes from
    #[arg(long, short = 'o', value_name = "FILE", conflicts_with = "dn")]
    oldreq: Option<PathBuf>,
    /// Alternative name of the subject; can be repeated
    #[arg(long, short = 'a', value_name = "NAME")]
    san: Vec<GeneralName>,
    /// What it is for, in one word: server, client, dual or ocsp
    #[arg(long, short = 'P', value_name = "PROFILE", value_parser = profile)]
    profile: Option<Profile>,
    /// What it is for; can be repeated
    #[arg(long, short = 'e', value_name = "FLAG")]
    flag: Vec<Flag>,
    /// Password that the CA knows; it is written in the clear
    #[arg(long, short = 'p', value_name = "TEXT")]
    password: Option<String>,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    output: Output,
}

type Profile = &'static [KeyPurpose];

pub(crate) fn generate(args: &GenArgs) -> Result<()> {
    let format = if args.traditional { KeyFormat::Traditional } else { KeyFormat::Pkcs8 };
    let key = PrivateKey::generate(key_type(&args.kind, args.size)?, &mut rng())?;
    match args.passphrase.read()? {
        None => args.output.write(&key.to_der(format), &key.to_pem(format)),
        Some(_) if args.traditional => bail!("an encrypted key is always PKCS#8; leave out --traditional"),
        Some(passphrase) => {
            let pem = key.to_encrypted_pem(&passphrase, &mut rng());
            let blocks = pki::pem::parse(pem.as_bytes())?;
            args.output.write(&blocks.first().context("no PEM block")?.der, &pem)
        }
    }
}

pub(crate) fn self_signed(args: &SelfArgs, order: &ArgMatches) -> Result<()> {
    let key = args.input.private_key()?;
    identifiers::check_kind(&args.kind, &key)?;
    let template = args.content.template(args.dn.clone(), order)?;
    let certificate = template.self_signed(&key, args.signing.scheme(key.key_type()), &mut rng())?;
    args.output.write(certificate.der(), &certificate.to_pem())
}

pub(crate) fn issue(args: &IssueArgs, order: &ArgMatches) -> Result<()> {
    let authority = files::certificate(&args.authority.cacert)?;
    let authority_key = args.input.passphrase.private_key(&args.authority.cakey)?;
    let issuer = Issuer::new(&authority, &authority_key, args.signing.scheme(authority_key.key_type()))?;
    let (public_key, request) = subject_key(args)?;
    let subject = match (&args.dn, &request) {
        (Some(dn), _) => dn.clone(),
        (None, Some(request)) => request.subject().clone(),
        (None, None) => bail!("--dn is missing: a key does not say whose it is"),
    };
    let mut template = args.content.template(subject, order)?;
    if let Some(request) = &request {
        take_over(&mut template, request, &args.content);
    }
    warn_about_validity(&template, &authority);
    let certificate = issuer.issue(&template, &public_key, &mut rng())?;
    args.output.write(certificate.der(), &certificate.to_pem())
}

pub(crate) fn request(args: &ReqArgs) -> Result<()> {
    let key = args.input.private_key()?;
    identifiers::check_kind(&args.kind, &key)?;
    let old = match &args.oldreq {
        Some(file) => Some(Request::load(&files::read(Some(file))?).with_context(|| file.display().to_string())?),
        None => None,
    };
    let mut purposes = Flag::purposes(&args.flag);
    purposes.extend(args.profile.unwrap_or_default());
    let mut template = RequestTemplate {
        subject: match (&args.dn, &old) {
            (Some(dn), _) => dn.clone(),
            (None, Some(old)) => old.subject().clone(),
            (None, None) => bail!("--dn is missing"),
        },
        alternative_names: args.san.clone(),
        purposes,
        challenge_password: args.password.clone(),
    };
    if let Some(old) = old {
        if template.alternative_names.is_empty() {
            template.alternative_names.clone_from(&old.extensions().subject_alternative_names);
        }
        if template.purposes.is_empty() {
            template.purposes = old.extensions().extended_key_usage.clone().unwrap_or_default();
        }
    }
    let request = template.sign(&key, args.signing.scheme(key.key_type()), &mut rng())?;
    args.output.write(request.der(), &request.to_pem())
}

/// The key to be certified, and the request if it comes with one.
fn subject_key(args: &IssueArgs) -> Result<(PublicKey, Option<Request>)> {
    let octets = args.input.read()?;
    match args.kind.as_str() {
        "pkcs10" => {
            let request = Request::load(&octets).with_context(|| args.input.name())?;
            Ok((request.public_key().clone(), Some(request)))
        }
        "pub" => Ok((identifiers::public_key(&octets).with_context(|| args.input.name())?, None)),
        kind => {
            let passphrase = args.input.passphrase.read()?;
            let key = PrivateKey::load(&octets, passphrase.as_deref().map(String::as_str))
                .with_context(|| args.input.name())?;
            identifiers::check_kind(kind, &key)?;
            Ok((key.public_key().clone(), None))
        }
    }
}

/// As strongSwan does it: names and purposes of the request count unless the command line has others.
fn take_over(template: &mut pki::issue::Template, request: &Request, content: &Content) {
    if content.san.is_empty() {
        template.alternative_names.clone_from(&request.extensions().subject_alternative_names);
    }
    if content.flag.is_empty() {
        template.purposes = request.extensions().extended_key_usage.clone().unwrap_or_default();
    }
}

fn warn_about_validity(template: &pki::issue::Template, authority: &Certificate) {
    if template.not_after > authority.not_after() {
        eprintln!(
            "pki: warning: the certificate is valid until {}, its CA only until {}",
            template.not_after,
            authority.not_after()
        );
    }
}

fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "server" => Ok(&[KeyPurpose::ServerAuth]),
        "client" => Ok(&[KeyPurpose::ClientAuth]),
        "dual" => Ok(&[KeyPurpose::ServerAuth, KeyPurpose::ClientAuth]),
        "ocsp" => Ok(&[KeyPurpose::OcspSigning]),
        _ => Err("there are server, client, dual and ocsp".to_owned()),
    }
}
