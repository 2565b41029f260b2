//! `verify`: whether a certificate is trusted, and if not, why.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args as Arguments, ValueEnum};
use der::asn1::ObjectIdentifier;
use pki::certificate::Certificate;
use pki::crl::{self, VerifiedCrl};
use pki::general_name::GeneralName;
use pki::identity::Identity;
use pki::ocsp;
use pki::path::{PathError, Requirements, Strength, ValidPath, validate};
use pki::revocation::{self, Policy, Source, Status};
use pki::time::UnixTime;
use serde_json::json;

use super::files::{self, Input};
use super::options::{Flag, oid};
use super::{Outcome, dates, now};

#[derive(Arguments)]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// Trusted CA; can be repeated. Without one the certificate must be self-signed
    #[arg(long, short = 'c', value_name = "FILE")]
    cacert: Vec<PathBuf>,
    /// Certificates that may be needed on the way to a trusted CA; can be repeated
    #[arg(long, value_name = "FILE")]
    untrusted: Vec<PathBuf>,
    /// CRL; can be repeated
    #[arg(long, short = 'l', value_name = "FILE")]
    crl: Vec<PathBuf>,
    /// OCSP response in DER; can be repeated
    #[arg(long, value_name = "FILE")]
    ocsp_response: Vec<PathBuf>,
    /// What to do when nothing is known about revocation
    #[arg(long, value_name = "POLICY", default_value = "relaxed")]
    revocation: RevocationPolicy,
    /// IKE identity that the certificate must have
    #[arg(long, value_name = "NAME")]
    identity: Option<GeneralName>,
    /// What it must be usable for, one of them; can be repeated
    #[arg(long, short = 'e', value_name = "FLAG")]
    flag: Vec<Flag>,
    /// Policy that it must be issued under, one of them; can be repeated
    #[arg(long, value_name = "OID", value_parser = oid)]
    policy: Vec<ObjectIdentifier>,
    /// Keys and hashes that are strong enough, such as rsa-3072-ecdsa-256-sha256
    #[arg(long, value_name = "STRENGTH")]
    strength: Option<Strength>,
    /// Time to verify for; by default now
    #[arg(long, value_name = "DATE", value_parser = dates::parse)]
    at: Option<UnixTime>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum RevocationPolicy {
    Strict,
    Ifuri,
    Relaxed,
}

/// What was found out.
struct Report {
    path: Vec<String>,
    revocation: Vec<(String, Status)>,
    /// Why not, with the exit status that strongSwan has for it.
    refusal: Option<(u8, String)>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    let mut certificates = Certificate::load(&args.input.read()?).with_context(|| args.input.name())?;
    let mut anchors = load_all(&args.cacert)?;
    if anchors.is_empty() && certificates.first().is_some_and(Certificate::is_self_signed) {
        anchors.push(certificates.first().context("no certificate")?.clone());
    }
    certificates.extend(load_all(&args.untrusted)?);
    let Some((end_entity, bag)) = certificates.split_first() else { bail!("{}: no certificate", args.input.name()) };
    let report = examine(args, end_entity, bag, &anchors)?;
    show(args, end_entity, &report);
    Ok(report.refusal.map_or(Outcome::Done, |(status, _)| Outcome::Refused(status)))
}

fn examine(args: &Args, end_entity: &Certificate, bag: &[Certificate], anchors: &[Certificate]) -> Result<Report> {
    let requirements = Requirements {
        strength: args.strength.clone().unwrap_or_default(),
        purposes: Flag::purposes(&args.flag),
        policies: args.policy.clone(),
        authorities: Vec::new(),
    };
    let now = args.at.unwrap_or_else(now);
    let mut report = Report { path: Vec::new(), revocation: Vec::new(), refusal: None };
    let path = match validate(end_entity, bag, anchors, now, &requirements) {
        Ok(path) => path,
        Err(error) => {
            let in_time = !matches!(error, PathError::Expired { .. } | PathError::NotYetValid { .. });
            report.refusal = Some((if in_time { UNTRUSTED } else { LIFETIME }, error.to_string()));
            return Ok(report);
        }
    };
    report.path = path.certificates().iter().map(|certificate| certificate.subject().to_string()).collect();
    check_revocation(args, &path, now, &requirements.strength, &mut report)?;
    if let Some(name) = &args.identity
        && !has_identity(end_entity, name)?
        && report.refusal.is_none()
    {
        let why = format!("`{name}` is neither the subject nor an alternative name of `{}`", end_entity.subject());
        report.refusal = Some((UNTRUSTED, why));
    }
    Ok(report)
}

fn check_revocation(
    args: &Args,
    path: &ValidPath<'_>,
    now: UnixTime,
    strength: &Strength,
    report: &mut Report,
) -> Result<()> {
    let policy = match args.revocation {
        RevocationPolicy::Strict => Policy::Strict,
        RevocationPolicy::Ifuri => Policy::IfUri,
        RevocationPolicy::Relaxed => Policy::Relaxed,
    };
    let crls = verified_crls(args, path, strength)?;
    for source in revocation::sources(path) {
        let by_ocsp = ocsp_status(args, &source, now, strength)?;
        let status = match by_ocsp {
            Some(status @ (Status::Good | Status::Revoked { .. })) => status,
            _ => crl::status(source.certificate, &crls, now),
        };
        let subject = source.certificate.subject().to_string();
        if !policy.accepts(status, &source) && report.refusal.is_none() {
            let revoked = matches!(status, Status::Revoked { .. });
            let why = format!("the status of `{subject}` is: {status}");
            report.refusal = Some((if revoked { REVOKED } else { UNTRUSTED }, why));
        }
        report.revocation.push((subject, status));
    }
    Ok(())
}

/// The CRLs that somebody in the path signed.
fn verified_crls(args: &Args, path: &ValidPath<'_>, strength: &Strength) -> Result<Vec<VerifiedCrl>> {
    let mut verified = Vec::new();
    for file in &args.crl {
        let crl = files::crl(file)?;
        let attempts: Vec<_> = path.certificates().iter().map(|issuer| crl.clone().verify(issuer, strength)).collect();
        let mut good: Vec<_> = attempts.iter().filter_map(|attempt| attempt.as_ref().ok().cloned()).collect();
        match good.pop() {
            Some(crl) => verified.push(crl),
            None => {
                let why = attempts.into_iter().filter_map(Result::err).last().map(|error| error.to_string());
                eprintln!("pki: {}: the CRL does not count: {}", file.display(), why.unwrap_or_default());
            }
        }
    }
    Ok(verified)
}

fn ocsp_status(args: &Args, source: &Source<'_>, now: UnixTime, strength: &Strength) -> Result<Option<Status>> {
    for file in &args.ocsp_response {
        let octets = files::read(Some(file))?;
        let response = ocsp::Response::from_der(&octets).with_context(|| file.display().to_string())?;
        let request = ocsp::Request::new(source.certificate, source.issuer, None);
        match response.verify(&request, &[], false, now, strength) {
            Ok(answer) => return Ok(Some(answer.status)),
            Err(ocsp::OcspError::OtherCertificate { .. }) => {}
            Err(error) => eprintln!("pki: {}: the OCSP response does not count: {error}", file.display()),
        }
    }
    Ok(None)
}

fn has_identity(certificate: &Certificate, name: &GeneralName) -> Result<bool> {
    let identity = match name {
        GeneralName::Dns(name) => Identity::Fqdn(name),
        GeneralName::Email(address) => Identity::Rfc822(address),
        GeneralName::Ip(std::net::IpAddr::V4(address)) => Identity::Ipv4(*address),
        GeneralName::Ip(std::net::IpAddr::V6(address)) => Identity::Ipv6(*address),
        GeneralName::Directory(name) => Identity::Dn(name.der()),
        GeneralName::Uri(_) | GeneralName::Other(_) => bail!("`{name}` is no IKE identity"),
    };
    Ok(certificate.has_identity(identity))
}

fn show(args: &Args, end_entity: &Certificate, report: &Report) {
    if args.json {
        let revocation: Vec<_> = report
            .revocation
            .iter()
            .map(|(subject, status)| json!({ "subject": subject, "status": status.to_string() }))
            .collect();
        let answer = json!({
            "subject": end_entity.subject().to_string(),
            "trusted": report.refusal.is_none(),
            "reason": report.refusal.as_ref().map(|(_, why)| why),
            "path": report.path,
            "revocation": revocation,
        });
        println!("{answer:#}");
        return;
    }
    println!("  using certificate \"{}\"", end_entity.subject());
    for (index, subject) in report.path.iter().enumerate().skip(1) {
        let kind = if index + 1 == report.path.len() { "trusted" } else { "untrusted intermediate" };
        println!("  using {kind} ca certificate \"{subject}\"");
    }
    for (subject, status) in report.revocation.iter().filter(|(_, status)| *status != Status::Unknown) {
        println!("  status of \"{subject}\": {status}");
    }
    match &report.refusal {
        None => println!("certificate trusted, lifetimes valid"),
        Some((_, why)) => println!("certificate not trusted: {why}"),
    }
}

fn load_all(files: &[PathBuf]) -> Result<Vec<Certificate>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(files::certificates(file)?);
    }
    Ok(all)
}

/// Exit statuses, as strongSwan has them.
const UNTRUSTED: u8 = 1;
const LIFETIME: u8 = 2;
const REVOKED: u8 = 3;
